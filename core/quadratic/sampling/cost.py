"""The cost of a cell in seconds and bytes, for each method: for planning, and for the choice made by
`auto`."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError
from bendscape.core.numerics.lanczos import default_vectors
from bendscape.core.quadratic.model import Model, sample_count
from bendscape.core.quadratic.sampling.dice import FORMS, dice_bytes, expected_steps, refuse_compact
from bendscape.core.quadratic.sampling.drawn_labels import BLOCK_NUMBERS, KEPT_SAMPLES
from bendscape.core.quadratic.sampling.hessian import refuse_infinite_width
from bendscape.core.quadratic.sampling.inputs import BLOCK_NUMBERS as DRAWN_NUMBERS
from bendscape.core.quadratic.sampling.inputs import Precision

FloatArray = npt.NDArray[np.float64]

METHODS = ("dense", "explicit", *FORMS, "conditional", "auto")
"""Accepted values of ``method``."""

MAX_BYTES = 8 * 2.0**30
"""Default limit of the memory of one cell."""

_COLUMNS, _COLUMNS_DRAWN = 4, 16  # multiplied in one pass over the data, if these are kept or drawn again
_PASSES = 20.0  # sums over the labels: Newton steps for edge and outlier
_ALONE = 4.0  # cost of orthogonalising a vector alone over that in a block
_STEPS, _STEPS_EXPONENT = (
    8.0,
    0.45,
)  # steps of explicit by which auto chooses: 8 N^0.45/b^0.5, b vectors at a time

_DECADE = {"explicit": (1e-6, 0.06), **dict.fromkeys(FORMS, (1e-3, 0.1))}
"""Default tolerance, and the relative increase in steps for each decade below it: 5 to 7, and 7 to 10 per
cent."""

SECONDS = {
    "dense": (8e-4, 1.2e-8, 3.0e-11, 1.6e-8, 3.7e-11),
    "explicit": (1.0e-3, 7.1e-9, 1.4e-4, 2.0e-10, 1e-8),
    "dice": (1.9e-3, 8.8e-5, 4.7e-8, 1.1e-10, 3.6e-10),
    "dice_wide": (1.9e-3, 8.8e-5, 4.7e-8, 1.1e-10, 9e-11),
    "dice_compact": (1.9e-3, 8.8e-5, 4.7e-8, 9e-11, 9e-11),
    "conditional": (5e-4, 1.1e-8, 6e-8),
}
"""Seconds of each term of :func:`cost_terms` on one idle core with one BLAS thread; fitted by
``benchmarks/cost_model.py``, except for terms of explicit that its data do not determine, for the last of
dice_wide, a quarter of that of dice, and for the entries of dice_compact."""


def pairs_wanted(model: Model, N: int) -> int:
    """Number of eigenpairs computed for a cell: the lowest max(2, p p_star) of its pN."""
    p = int(model.p)
    return min(max(2, p * model.p_star), p * N)


def block_width(p: int, stored: bool) -> int:
    """Number of vectors that explicit multiplies at a time, p columns each: as many as cost no more than
    reading X."""
    return max(1, (_COLUMNS if stored else _COLUMNS_DRAWN) // p)


def resolve_method(
    model: Model, alpha: float, N: int, method: str, *, max_bytes: float = MAX_BYTES, inputs: str = "gaussian"
) -> str:
    """Name of the method that will run: for auto the fastest that fits or, if none does, the smallest."""
    p = refuse_infinite_width(model)
    if method not in METHODS:
        raise ParameterError("method", method, "one of " + ", ".join(METHODS))
    sample_count(alpha, N)
    if method == "explicit" and pairs_wanted(model, int(N)) >= p * int(N):
        raise ParameterError(
            "N", N, f"> {max(2, p * model.p_star) // p} for the explicit method", "use dense"
        )
    if method in FORMS and p + model.p_star > int(N):
        raise ParameterError("N", N, f">= p + p_star = {p + model.p_star} for {method}", "use dense")
    if method == "dice_compact":
        refuse_compact(model, alpha, N)
    if inputs != "gaussian" and method in (*FORMS, "conditional"):
        raise ParameterError("inputs", inputs, f"gaussian for {method}", "use explicit or dense")
    if method != "auto":
        return method
    possible = ["dense"]
    if pairs_wanted(model, int(N)) < p * int(N):
        possible.append("explicit")
    few = (
        p * sample_count(alpha, N) < 20 + 4 * p * model.p_star
    )  # few samples: the lowest eigenvalues may all be positive or zero
    if p + model.p_star <= int(N) and inputs == "gaussian" and not few:
        possible.append("dice")
    fitting = [name for name in possible if cost_bytes(model, alpha, N, name) <= max_bytes]
    if not fitting:
        return min(possible, key=lambda name: cost_bytes(model, alpha, N, name))
    return min(fitting, key=lambda name: float(cost_terms(model, alpha, N, name, wide=False) @ SECONDS[name]))


def _more_steps(method: str, tolerance: float | None) -> float:
    """Factor by which a tolerance increases the steps of a method."""
    if tolerance is None or method not in _DECADE:
        return 1  # an integer, so that counts stay exact
    default, share = _DECADE[method]
    return 1 + share * math.log10(default / tolerance)


def explicit_products(model: Model, N: int, width: int) -> float:
    """Products of the Hessian with a vector that explicit needs near a threshold, ``width`` at a time.

    61.6 (N/256)^0.40 (p p_star)^0.48 width^0.55 c^(0.25 + 0.07 log(p p_star) + 0.10 log(N/256)), c = 1 + 1/a:
    small a widens the spectrum by large positive eigenvalues, and p p_star eigenvalues have to be resolved.
    Fitted to 85 points with p from 1 to 32, a from 0.01 to 5 and N from 128 to 1024, which took 0.6 to 1.6
    times as many.
    """
    pairs, n, c = math.log(int(model.p) * model.p_star), math.log(N / 256), math.log(1 + 1 / model.a)
    return math.exp(
        4.12 + 0.40 * n + 0.48 * pairs + 0.55 * math.log(width) + (0.25 + 0.07 * pairs + 0.10 * n) * c
    )


def _steps_of_a_cluster(model: Model) -> float:
    """Factor on the expected steps at p > 1: 1.7 to 2 at p p_star/a = 27, about 1 up to 6."""
    return min(2.0, max(1.0, model.p * model.p_star / (6 * model.a)) ** 0.4) if model.p > 1 else 1


def cost_terms(
    model: Model, alpha: float, N: int, method: str, *, tolerance: float | None = None, wide: bool = True
) -> FloatArray:
    """Number of times that a cell performs each costly operation; ``SECONDS[method]`` gives the time of each.

    dense: cell, Gaussian numbers M N, Gram matrices M n^2, reduction n^2 and n^3, n = pN. explicit: cell,
    numbers, steps s with blocks of b vectors (:func:`explicit_products`), their products s b M n and vectors
    s b n, a vector alone counted four times.
    dice and its forms: cell, steps k, numbers k p M, entries of U and Z read p^2 k^2 M (twice at
    p > 1, where U ends at M vectors and Z at N), coordinates p^2 k^3 (at p > 1, likewise).
    conditional: cell, numbers, samples.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension.
    N : int
        Input dimension.
    method : {"dense", "explicit", "dice", "dice_wide", "dice_compact", "conditional"}
        As in :func:`bendscape.core.quadratic.sampling.observe.observe`, and so is ``tolerance``.
    wide : bool
        Whether to count what is particular to wide students. ``auto`` chooses without it: another choice
        would change the bits of campaigns that are extended.

    Returns
    -------
    array
        Counts, as many as ``SECONDS[method]`` has entries.
    """
    M, N, p = sample_count(alpha, N), int(N), int(model.p)
    size = p * N
    if method == "conditional":
        draws = 1.0 if M <= KEPT_SAMPLES else _PASSES
        counts = [1.0, draws * (p + model.p_star) * M, 1.0 * M]
    elif method == "dense":
        counts = [1.0, M * N, M * size**2, size**2, size**3]
    elif method == "explicit":
        width = block_width(p, stored=True)
        if wide:
            steps = explicit_products(model, N, width) / width
        else:
            steps = _STEPS * math.pow(N, _STEPS_EXPONENT) / math.sqrt(width)
        steps *= _more_steps(method, tolerance)
        vectors = steps * size * width * (_ALONE if wide and width == 1 else 1)
        counts = [1.0, M * N, steps, steps * M * size * width, vectors]
    else:
        steps = _more_steps(method, tolerance) * expected_steps(model, N)
        entries = M * (steps * p) ** 2 * (2 if p > 1 else 1)
        coordinates = float(p**2 * steps**3) if p > 1 else 0.0
        if wide and p > 1:
            steps *= _steps_of_a_cluster(model)
            vectors, directions = steps * p, min(N, M + p + model.p_star)  # U holds M at most, Z these
            filled = max(0.0, vectors - directions)
            entries = M * (min(vectors, M) ** 2 + (vectors - filled) ** 2 + 2 * directions * filled)
            coordinates = steps * vectors * (vectors - filled)
        counts = [1.0, steps, steps * p * M, entries, coordinates]
    return np.array(counts, dtype=np.float64)


def cost_seconds(
    model: Model, alpha: float, N: int, method: str = "auto", *, tolerance: float | None = None
) -> float:
    """Time one cell takes on one core: ``cost_terms . SECONDS``.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension.
    N : int
        Input dimension.
    method : {"auto", "dense", "explicit", "dice", "dice_wide", "dice_compact", "conditional"}
        As in :func:`bendscape.core.quadratic.sampling.observe.observe`, and so is ``tolerance``.

    Returns
    -------
    float
        Seconds.

    Notes
    -----
    Accurate to a factor of 2 to 3 on an idle core, of 4 at p >= 4, like the number of steps of the
    iterations. A campaign corrects it by the time that its own cells took. Only its growth is held by
    ``tests/test_samplers.py``. Source: ``benchmarks/cost_model.py``.
    """
    method = resolve_method(model, alpha, N, method)
    return float(cost_terms(model, alpha, N, method, tolerance=tolerance) @ SECONDS[method])


def cost_bytes(
    model: Model,
    alpha: float,
    N: int,
    method: str = "auto",
    *,
    precision: Precision | None = None,
    stored: bool = True,
    tolerance: float | None = None,
) -> float:
    """Memory one cell takes at its peak.

    Data M N, and for dense the Hessian (pN)^2 with the weighted rows it is made from; for explicit the Krylov
    basis, and without stored data no M N; for dice what
    :func:`bendscape.core.quadratic.sampling.dice.dice_bytes` says. For conditional one block of samples, and
    the labels where there are few enough to keep.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension.
    N : int
        Input dimension.
    method : {"auto", "dense", "explicit", "dice", "dice_wide", "dice_compact", "conditional"}
        As in :func:`bendscape.core.quadratic.sampling.observe.observe`.
    precision, stored, tolerance
        As in ``observe``.

    Returns
    -------
    float
        Bytes, without the interpreter and its libraries.

    Notes
    -----
    An upper bound on the arrays allocated, within a factor of 2. For dice, whose number of steps is not known
    in advance, an estimate to a factor of 1.7; ``max_bytes`` of ``observe`` is never exceeded. Held by
    ``tests/test_samplers.py`` against the allocator.
    """
    method = resolve_method(model, alpha, N, method)
    M, p, size = sample_count(alpha, N), int(model.p), int(model.p) * int(N)
    count = pairs_wanted(model, int(N))
    if method in FORMS:
        steps = math.ceil(_more_steps(method, tolerance) * expected_steps(model, N))
        return dice_bytes(model, alpha, N, steps, precision, **FORMS[method])
    if method == "conditional":
        width = p + model.p_star
        block = min(M, max(1, BLOCK_NUMBERS // width))
        kept = 2.0 * M if M <= KEPT_SAMPLES else 0.0
        return 8.0 * (kept + block * (2.0 * min(width, int(N)) + 10.0) + width**2) + 2e4
    small = 16.0 * M * (p + model.p_star) + 3.0 * size * count + 2e4
    if method == "dense":
        rows = M * (size if p > 1 else N)
        numbers = M * N + rows + size**2 + (N**2 if p > 1 else 0) + 40.0 * size
        return 8.0 * (numbers + small)
    width = min(block_width(p, stored), size)
    basis = default_vectors(size, count, width) + width
    drawn = 8.0 * max(N, min(M * N, DRAWN_NUMBERS))
    single = precision == "float32"
    data = (4.0 if single else 8.0) * M * N if stored else drawn * (1.5 if single else 1.0)
    held = size * (basis + 5.0 * width + count) + 0.4 * min(size, 4096) * basis + 2.4 * basis**2
    labels = M * (4.0 * p + 2.0 * model.p_star + 14.0) + 2e4
    return data + max(8.0 * held, drawn if stored else 0.0) + 8.0 * labels
