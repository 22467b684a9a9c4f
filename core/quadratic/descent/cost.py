"""The cost of following one cell, in seconds and bytes, and the choice between explicit and revealed data."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.descent.flow import TOLERANCE
from bendscape.core.quadratic.descent.revealed import default_precision, revealed_bytes
from bendscape.core.quadratic.model import Model, sample_count
from bendscape.core.quadratic.sampling.hessian import refuse_infinite_width
from bendscape.core.quadratic.sampling.inputs import Precision

Kind = Literal["explicit", "revealed"]
KINDS = ("auto", "explicit", "revealed")
"""Accepted values of ``data``."""
TIGHT = 1e-3
"""Tolerance below which the default precision is double."""


class Work(NamedTuple):
    """What the cost of a path depends on, beside model, alpha and N; as of
    :func:`bendscape.core.quadratic.descent.measure.follow`.

    Parameters
    ----------
    last_time : float
        The last recorded time.
    moments : int
        Number of recorded times.
    pairs, tolerance, learning_rate, confined, until_recovered
        As of ``follow``.
    precision : {"float64", "float32"}, optional
        Of the data or the long vectors; by default that of the kind of data.
    """

    last_time: float
    moments: int = 1
    pairs: int = 0
    tolerance: float = TOLERANCE
    learning_rate: float | None = None
    precision: Precision | None = None
    confined: bool = False
    until_recovered: bool = False


_AT_ONE, _GROWTH = 95.0, 0.56  # evaluations of a trapped path are 95 T^0.56 at p = 1, alpha = 3.5
_RECOVERY = 30.0  # time at which wider students have recovered, if they do
_AFTER = 250.0  # evaluations after recovery
_PRODUCTS = 0.0, 150.0, 210.0, 250.0  # of the iteration for the eigenpairs at one moment, at N = 2000
_SEVERAL = 1.4  # more of them where it starts from several vectors
_SECONDS_CELL, _SECONDS_MOMENT, _SECONDS_EVALUATION = 1e-3, 3e-4, 1.6e-5
_SECONDS_NORMAL = 1.2e-8  # per Gaussian number
_SECONDS_SAMPLE = 1.2e-8  # per sample and student in an evaluation: outputs, radius
_SECONDS_ENTRY = {"float64": 4.5e-10, "float32": 2.1e-10}  # per entry of X and student in an evaluation
_SECONDS_REVEALED = {"float64": 1.6e-9, "float32": 1.0e-9}  # per entry of U and student in an evaluation
_ONCE, _CLOSED = 0.6, 0.3  # the same for products that project once, and where all directions are known


def expected_evaluations(model: Model, alpha: float, N: int, work: Work) -> float:
    """Evaluations of the force of one path, averaged over recovered and trapped ones, to a factor of 2."""
    if work.learning_rate is not None:
        return 1 + work.last_time / work.learning_rate
    p = int(model.p)

    def until(time: float) -> float:
        per_time = _GROWTH / math.pow(p, 0.4)
        return 20 + _AT_ONE / math.pow(p, 0.27) * math.sqrt(alpha / 3.5) * math.pow(time, per_time)

    whole = until(work.last_time)
    recovery = _RECOVERY
    if p == 1:
        recovery = (7 + 4 * math.log(max(N / 256, 1.0))) * math.pow(3 / alpha, 4)
    recovered = until(min(work.last_time, recovery))
    if not work.until_recovered:
        recovered = min(recovered + _AFTER, whole)
    half = 2.3 + 0.12 * math.log(N / 128) if p == 1 else 2.1  # where half of the cells recover, at a = 0.01
    share = 0.0 if work.confined else 1 / (1 + math.exp(min((half - alpha) / 0.25, 50.0)))
    mean = share * recovered + (1 - share) * whole
    return mean * math.pow(TOLERANCE / work.tolerance, 0.13)


def path_precision(model: Model, alpha: float, N: int, kind: Kind, work: Work) -> Precision:
    """The precision of a cell for which none is given.

    float64, but float32 for revealed data where a path sees a small part of the space and the tolerance is at
    least ``TIGHT``: below it, single precision would shorten the steps.
    """
    if work.precision is not None:
        return work.precision
    single = default_precision(model, alpha, N) == np.float32
    single = single and kind == "revealed" and work.tolerance >= TIGHT
    return "float32" if single else "float64"


def _expected_products(model: Model, N: int, work: Work) -> float:
    """Products with the Hessian at one recorded time."""
    p = int(model.p)
    started = _SEVERAL if p > 1 and work.pairs > 1 else 1.0
    return min(started * _PRODUCTS[work.pairs] * math.pow(N / 2000, 0.35) / math.pow(p, 0.4), 1.0 * p * N)


def resolve_data(model: Model, alpha: float, N: int, data: str, work: Work, max_bytes: float) -> Kind:
    """Explicit or revealed: for auto the faster that fits into ``max_bytes``, or the smaller if none does.

    It is the same whatever is measured along the path and whether it ends at recovery.

    Raises
    ------
    ParameterError
        Another ``data``, or revealed data with N < p + p_star.
    """
    if data not in KINDS:
        raise ParameterError("data", data, "one of " + ", ".join(KINDS))
    least = refuse_infinite_width(model) + model.p_star
    if data == "revealed" and least > N:
        raise ParameterError("N", N, f">= p + p_star = {least} for revealed data", "use explicit data")
    if data == "explicit" or least > N:
        return "explicit"
    if data == "revealed":
        return "revealed"
    both: tuple[Kind, ...] = ("explicit", "revealed")
    sizes = {kind: descent_bytes(model, alpha, N, kind, work) for kind in both}
    fitting = [kind for kind in both if sizes[kind] <= max_bytes]
    if not fitting:
        return min(both, key=sizes.__getitem__)
    path = work._replace(moments=1, pairs=0, until_recovered=False)
    return min(fitting, key=lambda kind: descent_seconds(model, alpha, N, kind, path))


def descent_seconds(model: Model, alpha: float, N: int, kind: Kind, work: Work) -> float:
    """Seconds of one cell on one core with one BLAS thread.

    explicit: M N numbers drawn, and p M N entries an evaluation. revealed: p M r an evaluation, for the r =
    min(p e, N) directions known after e evaluations.
    """
    M, p = sample_count(alpha, N), int(model.p)
    evaluations, each = expected_evaluations(model, alpha, N, work), _expected_products(model, N, work)
    products = work.moments * each
    precision = path_precision(model, alpha, N, kind, work)
    seconds = _SECONDS_CELL + work.moments * (_SECONDS_MOMENT + 1e-7 * M) + _SECONDS_NORMAL * M * p
    seconds += (evaluations + products) * (_SECONDS_EVALUATION + _SECONDS_SAMPLE * M * p)
    if kind == "explicit":
        entries = p * M * N * (evaluations + products)
        return seconds + _SECONDS_NORMAL * M * N + _SECONDS_ENTRY[precision] * entries
    entries = _entries(0, evaluations, p, N)
    entries += _ONCE * work.moments * _entries(evaluations / 2, each, p, N)
    return seconds + _SECONDS_REVEALED[precision] * p * M * entries


def descent_bytes(model: Model, alpha: float, N: int, kind: Kind, work: Work) -> float:
    """Peak memory of one cell in bytes, without the interpreter and its libraries."""
    M, p = sample_count(alpha, N), int(model.p)
    each = _expected_products(model, N, work)
    precision = path_precision(model, alpha, N, kind, work)
    if kind == "explicit":
        size = np.dtype(precision).itemsize
        vectors = 8.0 * p * N * (20 + each)
        return size * M * (1.1 * N + 4.0 * p + 20) + vectors + 2e5
    evaluations = expected_evaluations(model, alpha, N, work)
    directions = min(math.ceil(p * (evaluations + each)), N)
    return revealed_bytes(model, alpha, N, directions, precision) + 8.0 * p * directions * (20 + each) + 2e5


def _entries(before: float, count: float, p: int, N: int) -> float:
    """Sum over evaluations of the directions known, min(p e, N), for e from ``before``; where all are known
    nothing is projected."""
    rising = min(count, max(0.0, N / p - before))
    return p * rising * (before + rising / 2) + _CLOSED * N * (count - rising)
