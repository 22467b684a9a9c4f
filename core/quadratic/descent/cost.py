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


class Work(NamedTuple):
    """What the cost of a path depends on, beside model, alpha and N; as of
    :func:`bendscape.core.quadratic.descent.measure.follow`.

    Parameters
    ----------
    last_time : float
        The last recorded time.
    moments : int
        Number of recorded times.
    pairs, tolerance, learning_rate, until_recovered
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
    until_recovered: bool = False


_TO_ONE, _PER_ROOT = 130.0, 0.55  # evaluations up to t = 1, and their growth with time
_PRODUCTS = {0: 0, 1: 120, 2: 250, 3: 300}  # products of the iteration for the eigenpairs, at one moment
_SECONDS_CELL, _SECONDS_MOMENT, _SECONDS_EVALUATION = 2e-3, 1e-3, 3e-5
_SECONDS_NORMAL = 1.2e-8  # per Gaussian number
_SECONDS_SAMPLE = 1.2e-8  # per sample and student in an evaluation: outputs, radius
_SECONDS_ENTRY = {"float64": 6e-10, "float32": 3e-10}  # per entry of X and student in an evaluation
_SECONDS_REVEALED = {"float64": 4.6e-9, "float32": 2.3e-9}  # per entry of U and student in an evaluation
_ONCE = 0.6  # a product that projects once, over an evaluation


def expected_evaluations(model: Model, work: Work) -> float:
    """Evaluations of the force of one path, recovered or trapped, to a factor of 2."""
    if work.learning_rate is not None:
        return 1 + work.last_time / work.learning_rate
    grown = _TO_ONE * max(work.last_time, 0.01) ** 0.4 / model.p**0.4
    return max(8.0, grown) * math.sqrt(TOLERANCE / work.tolerance) ** 0.5


def resolve_data(model: Model, alpha: float, N: int, data: str, work: Work, max_bytes: float) -> Kind:
    """Explicit or revealed: for auto the faster that fits into ``max_bytes``, or the smaller if none does.

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
    return min(fitting, key=lambda kind: descent_seconds(model, alpha, N, kind, work))


def descent_seconds(model: Model, alpha: float, N: int, kind: Kind, work: Work) -> float:
    """Seconds of one cell on one core with one BLAS thread.

    explicit: M N numbers drawn, and p M N entries an evaluation. revealed: p M r an evaluation, for the r =
    min(p e, N) directions known after e evaluations.
    """
    M, p = sample_count(alpha, N), int(model.p)
    evaluations = expected_evaluations(model, work)
    products = work.moments * _PRODUCTS[work.pairs]
    precision = _precision(model, alpha, N, kind, work)
    seconds = _SECONDS_CELL + work.moments * (_SECONDS_MOMENT + 1e-7 * M)
    seconds += (evaluations + products) * (_SECONDS_EVALUATION + _SECONDS_SAMPLE * M * p)
    if kind == "explicit":
        entries = p * M * N * (evaluations + products)
        return seconds + _SECONDS_NORMAL * M * N + _SECONDS_ENTRY[precision] * entries
    path = _summed(evaluations, p, min(M, N)) * p * M
    each = _PRODUCTS[work.pairs]
    at_end = min(p * (evaluations / 2 + each / 2), N) * p * M
    return seconds + _SECONDS_REVEALED[precision] * (path + _ONCE * products * at_end)


def descent_bytes(model: Model, alpha: float, N: int, kind: Kind, work: Work) -> float:
    """Peak memory of one cell in bytes, without the interpreter and its libraries."""
    M, p = sample_count(alpha, N), int(model.p)
    each = _PRODUCTS[work.pairs]
    precision = _precision(model, alpha, N, kind, work)
    if kind == "explicit":
        size = np.dtype(precision).itemsize
        vectors = 8.0 * p * N * (20 + each)
        return size * M * (N + 4.0 * p + 20) + vectors + 1e6
    directions = min(math.ceil(p * (expected_evaluations(model, work) + each)), N)
    return revealed_bytes(model, alpha, N, directions, precision) + 8.0 * p * directions * (20 + each) + 1e6


def _summed(evaluations: float, p: int, most: int) -> float:
    """Sum over the evaluations of the directions known, min(p e, most)."""
    rising = min(evaluations, most / p)
    return p * rising**2 / 2 + most * (evaluations - rising)


def _precision(model: Model, alpha: float, N: int, kind: Kind, work: Work) -> str:
    if work.precision is not None:
        return work.precision
    return "float64" if kind == "explicit" else default_precision(model, alpha, N).name
