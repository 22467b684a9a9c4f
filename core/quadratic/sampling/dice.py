"""The Hessian's lowest eigenpairs at any N, exact in law, without the data matrix.

Lanczos' iteration starts in the span of the teacher and multiplies with H = (1/N) sum_mu D_mu x_mu x_mu^T. It
needs X only along the directions that it reaches, so X is revealed there and nowhere else
(:mod:`bendscape.core.quadratic.sampling.reveal`): k steps cost O(M p k) memory and O(M p^2 k^2) time, where
the matrix would need O(M N) of either. The Ritz values and vectors have the same law as with an explicit X.

There is one start vector, not a block: N is limited by the memory for U, p vectors of length M per step, and
the degree of the polynomial that resolves the edge grows with the number of steps, not with the block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh_tridiagonal

from bendscape.core.errors import ParameterError
from bendscape.core.numerics.threads import on_one_thread
from bendscape.core.quadratic.model import Model, sample_count
from bendscape.core.quadratic.sampling.gaussian import GaussianMatrix
from bendscape.core.quadratic.sampling.hessian import refuse_infinite_width
from bendscape.core.quadratic.sampling.recurrence import PiecedImages, StoredImages, TurningFrame
from bendscape.core.quadratic.sampling.reveal import (
    BATCH,
    BLOCK_ROWS,
    COMPACT_BATCH,
    COMPACT_ROWS,
    GROWTH,
    Array,
    Workspace,
)

FloatArray = npt.NDArray[np.float64]

TOLERANCE = 1e-6
"""Squared sine, estimated as (residual/gap)^2, between a Ritz vector and its eigenvector.

An eigenvalue that the iteration has not yet found makes the gap look too wide, so this is only an estimate.
At 1e-4, 4 cells of 2000 missed one of their lowest pairs; at 1e-6 none did, for a tenth more steps.
"""
STEPS = 10.0
"""Number of steps near the transition: 10 N^0.4 (p p_star/a)^0.2, to a factor of 1.6 for p p_star = 1 to 6,
a = 0.1 to 20 and N = 10^2 to 10^5."""

THIN = 0.25
"""Largest fraction of the M dimensions that U may fill with float32 as the default, or in 16 bits."""


class Form(TypedDict):
    """What :func:`sample_dice` and :func:`dice_bytes` are told."""

    wide: bool
    compact: bool


FORMS = {
    "dice": Form(wide=False, compact=False),
    "dice_wide": Form(wide=True, compact=False),
    "dice_compact": Form(wide=True, compact=True),
}
"""The form of each method that draws its data as it goes."""

PATIENCE = 4
"""An iteration gives up after this multiple of the expected number of steps."""

_FIRST_CHECK = 8
_CHECKS = 16, 64  # check every k/16 steps, in 16 bits k/64, as only large cells are kept so,
_CHECK_EVERY = 4  # but not more often than this: a check of a small cell takes as long as a step
_EXHAUSTED = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}  # length of a step relative to H


class Dice(NamedTuple):
    """Results of one cell; arrays over its lowest max(2, p p_star) eigenpairs, lowest first.

    Parameters
    ----------
    eigvals : array
        Ritz values, in the units of H.
    overlaps_sq : array
        Squared overlap m^2 of each Ritz vector with the span of the teacher weights, in [0, 1].
    residuals : array
        |H v - lambda v| of each pair.
    steps : int
        Products with H.
    converged : bool
        Whether the lowest two pairs, and the space of the lowest p p_star, are resolved. Not so where M is so
        small that the null space of H is among them.
    y, yhat : array, shape (M,)
        The cell's labels and student outputs.
    orthogonality : float
        max |U^T U - 1| as measured, before correction.
    components : array, shape (count, p, p_star)
        Of every part v_k of the Ritz vectors, on an orthonormal basis of the teacher span.
    """

    eigvals: FloatArray
    overlaps_sq: FloatArray
    residuals: FloatArray
    steps: int
    converged: bool
    y: FloatArray
    yhat: FloatArray
    orthogonality: float
    components: FloatArray


class Weighted(NamedTuple):
    """Labels, student outputs, and a function that multiplies block b of X v_1, ..., X v_p, shape (p, rows),
    with the samples' weights D/N."""

    y: FloatArray
    yhat: FloatArray
    weigh: Callable[[int, Array], Array]


Weights = Callable[[Workspace, FloatArray, FloatArray], Weighted]
"""From the pre-activations of student, (p, M), and teacher, (p_star, M), in a workspace."""


def expected_steps(model: Model, N: int) -> int:
    """Expected number of steps of a cell near its transition; at most pN."""
    steps = STEPS * math.pow(N, 0.4) * math.pow(model.p * model.p_star / max(model.a, 1e-2), 0.2)
    return min(int(model.p) * int(N), math.ceil(steps) + _FIRST_CHECK)


def _filling(model: Model, alpha: float, N: int) -> float:
    """Part of the M dimensions that U is expected to fill."""
    return int(model.p) * expected_steps(model, N) / sample_count(alpha, N)


def _default_precision(model: Model, alpha: float, N: int) -> type[np.floating[Any]]:
    """float32 if U fills only a small part of the space; float64 if it may fill it, as in small cells."""
    return np.float64 if _filling(model, alpha, N) > THIN else np.float32


def refuse_compact(model: Model, alpha: float, N: int) -> None:
    """Refuse 16 bits where U may fill more than a quarter of the M dimensions."""
    filling = _filling(model, alpha, N)
    if filling > THIN:
        accepted = f"so large that U fills {THIN} of the M dimensions or less in 16 bits, not {filling:.2f}"
        raise ParameterError("N", int(N), accepted, "use dice or dice_wide")


def dice_bytes(
    model: Model,
    alpha: float,
    N: int,
    steps: int | None = None,
    dtype: npt.DTypeLike | None = None,
    *,
    wide: bool = False,
    compact: bool = False,
) -> float:
    """Memory of a cell that takes the given number of steps, by default the expected number.

    U, at p > 1 the images Z of the right basis beside it, some tens of working vectors of length M, and the
    labels; in :func:`sample_dice`'s default precision if no other is given. With ``compact``, 2 bytes for a
    number of U and Z, and one converted block of each.
    """
    M, p = sample_count(alpha, N), int(model.p)
    steps = expected_steps(model, N) if steps is None else steps
    room = steps * p * (1 + GROWTH if steps > expected_steps(model, N) else 1)
    long = min(room, M) + (min(room, int(N)) if p > 1 else 0)
    working = (COMPACT_BATCH if compact else BATCH) + 10 * p + 3 * (p + model.p_star)
    if wide and p > 1:  # the vectors of the steps, at half their final width on average, or at all of N
        small = 8.0 * (3 * steps**2 + 3 * min(steps * p, M) ** 2) + 6.0 * steps * p * min(steps * p, int(N))
    else:
        small = 8.0 * steps**2 * (3 + 3 * p**2)
    labels = 8.0 * M * 4 * (p + model.p_star)
    bytes_each = np.dtype(dtype or _default_precision(model, alpha, N)).itemsize
    kept = 2 * M * long + bytes_each * COMPACT_ROWS // p * long if compact else bytes_each * M * long
    return float(kept + bytes_each * M * working + small + labels)


@on_one_thread
def sample_dice(
    model: Model,
    alpha: float,
    N: int,
    rng: np.random.Generator,
    *,
    dtype: npt.DTypeLike | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int | None = None,
    wide: bool = False,
    compact: bool = False,
    xp: Any = np,
    device: Any = None,
    normal: Callable[[tuple[int, ...]], Array] | None = None,
    weights: Weights | None = None,
) -> Dice:
    """Draw one cell and find its lowest eigenpairs, revealing the data only where the iteration needs them.

    Lanczos' iteration from a random vector of R^p x span(teacher), with H v = (1/N) X^T [d_perp P + s lambda
    (lambda . P)], P_k = X v_k, X revealed along the way; Ritz pairs of the tridiagonal matrix it leaves.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension; M = sample_count(alpha, N).
    N : int
        Input dimension, >= p + p_star.
    rng : numpy.random.Generator
        Source of randomness.
    dtype : numpy dtype, optional
        float32 or float64 for what has length M; what has length k is in double precision in either case. By
        default float32, but float64 where the steps may fill a quarter of the M dimensions.
    tolerance : float
        The iteration stops where (residual/gap)^2, the squared sine between Ritz vector and eigenvector, is
        below it for the lowest two pairs and for the space of the lowest p p_star. Eigenvalues are then
        accurate to that share of the gap beside them, and overlaps to twice its root at worst.
    max_steps : int, optional
        Give up there, with converged False; more than max(2, p p_star), by default four times the expected
        number.
    wide : bool
        Keep the past vectors in pieces, project on them once, and leave U alone once it fills the M
        dimensions: the same law, rounded differently. For p = 8 a third to a half of the time and
        memory, for p = 4 about the same; at p = 1 nothing changes.
    compact : bool
        Keep U, and at p > 1 Z, in 16 bits: half the memory, and less time where U is read from memory. The
        law is the same to the rounding: an eigenvalue moves by less than 1 per cent of what cells differ by.
        Refused where the steps may fill a quarter of the M dimensions. Only with numpy.
    xp : module
        Array library that follows the array API standard, whose slices are views: ``numpy``, or on a GPU
        ``torch`` or ``cupy`` themselves.
    device : object, optional
        Device of the arrays of ``xp``, such as "cuda" for ``torch``; by default the library's own default.
    normal : callable, optional
        normal(shape) -> array of Gaussian numbers on that device, such as ``lambda shape: torch.randn(shape,
        device="cuda")``; by default they come from ``rng`` and are copied there.
    weights : callable, optional
        Labels and weights D of another network of the same widths; by default those of ``model``.

    Returns
    -------
    Dice
        Eigenvalues in the units of H, overlaps in [0, 1].

    Raises
    ------
    ParameterError
        If p = inf, if N < p + p_star, for a dtype or number of steps other than above, or where ``compact``
        is refused.

    Notes
    -----
    Runs on one BLAS thread. The joint law of all fields is that of a matrix drawn and diagonalised, up to the
    tolerance and the rounding of ``dtype``; held by ``tests/test_dice.py``. Memory 4 M p k bytes for k steps
    in float32, twice that at p > 1, half of it with ``compact``. Sources: conditioning after Y. M. Lu,
    arXiv:2101.07464; the Hessian of arXiv:2510.18435; the three-term form at p = 1 and the projection with
    the measured Gram matrix are this project's own.
    """
    p, p_star = refuse_infinite_width(model), model.p_star
    M, N, known = sample_count(alpha, N), int(N), p + p_star
    if known > N:
        raise ParameterError("N", N, f">= p + p_star = {known} for dice", "use dense")
    try:
        precision = np.dtype(dtype or _default_precision(model, alpha, N))
    except TypeError:
        raise ParameterError("dtype", dtype, "float32 or float64", "leave it to the default") from None
    if precision not in _EXHAUSTED:
        raise ParameterError("dtype", precision, "float32 or float64", "leave it to the default")
    if compact:
        refuse_compact(model, alpha, N)
        if xp is not np:
            raise ParameterError("compact", True, "False with another array library", "leave it out")
    count = max(2, p * p_star)
    if max_steps is not None and max_steps <= count:
        raise ParameterError("max_steps", max_steps, f"> max(2, p p_star) = {count}", "raise it")
    first = expected_steps(model, N)
    last = min(PATIENCE * first if max_steps is None else max_steps, p * N)
    rows = max(1, (COMPACT_ROWS if compact else BLOCK_ROWS) // p) if xp is np else M
    space = Workspace(
        M, rng, precision, xp=xp, device=device, normal=normal, block_rows=rows, compact=compact
    )

    wide = wide and p > 1
    data = GaussianMatrix(space, N, p, min(first * p, M) if wide else first * p, until_full=wide)
    directions, images = data.directions(known)
    preactivations = directions.T @ space.gather(images)
    fields, teacher_fields = preactivations[p_star:], preactivations[:p_star]
    of_model = partial(_weights, model, N, rng) if weights is None else weights
    y, yhat, weigh = of_model(space, fields, teacher_fields)
    start = np.zeros((p, known))
    start[:, :p_star] = rng.standard_normal((p, p_star))
    start /= np.linalg.norm(start)

    right: TurningFrame | StoredImages
    if p == 1:
        right = TurningFrame(space, images, start, p_star)
    else:
        form, most = (PiecedImages, N) if wide else (StoredImages, math.inf)
        right = form(space, images, start, p_star, first, most)
    Y = space.zeros(p)
    for b in range(space.blocks):
        Y[b, :, :] = weigh(b, right.start(b))
        data.left.measure(b, Y[b, :, :])
        right.measure(b, Y[b, :, :])

    diagonal: list[float] = []
    lengths: list[float] = []
    check = _FIRST_CHECK
    while True:
        here, length = right.advance(data.factor(Y))
        diagonal.append(here)
        lengths.append(length)
        steps = len(diagonal)
        nothing = _EXHAUSTED[space.precision] * max(map(abs, diagonal))
        exhausted = steps == p * N or length <= nothing
        if exhausted or steps >= min(check, last):
            check = steps + max(_CHECK_EVERY, steps // _CHECKS[compact])
            values, vectors = _lowest(diagonal, lengths, count + 1)
            residuals = np.zeros(len(values)) if exhausted else lengths[-1] * np.abs(vectors[-1])
            if exhausted:  # before pN steps the rest is the null space, whose multiplicity is not seen
                converged = steps == p * N or (len(values) >= count and values[count - 1] < -nothing)
            else:
                converged = _resolved(values, residuals, count, p * p_star, tolerance)
            if converged or exhausted or steps >= last:
                break
        right.begin(data.begin())
        for b in range(space.blocks):
            Y[b, :, :] = weigh(b, right.extend(b, data.reveal(b, Y[b, :, :])))
            data.left.measure(b, Y[b, :, :])
            right.measure(b, Y[b, :, :])
        data.commit()
        right.commit()
    return Dice(
        values[:count],
        right.overlaps_sq(vectors[:, :count]),
        residuals[:count],
        steps,
        converged,
        y,
        yhat,
        float(np.abs(data.left.excess).max(initial=0.0)),
        right.components(vectors[:, :count]),
    )


def _weights(
    model: Model,
    N: int,
    rng: np.random.Generator,
    space: Workspace,
    fields: FloatArray,
    teacher_fields: FloatArray,
) -> Weighted:
    """Labels and weights of the quadratic network."""
    p = int(model.p)
    if model.noise:
        teacher_fields = teacher_fields + math.sqrt(model.noise) * rng.standard_normal(teacher_fields.shape)
    y, yhat = (teacher_fields**2).mean(axis=0), (fields**2).mean(axis=0)
    scale = (2 / p) / (N * (model.a + y))
    if p == 1:
        along = space.spread((scale * (3 * yhat - y))[np.newaxis])
        return Weighted(y, yhat, lambda b, rows: along[b, :, :] * rows)
    across = space.spread((scale * (yhat - y))[np.newaxis])
    plain, weighted = space.spread(fields), space.spread(fields * (scale * 2 / p))

    def weigh(b: int, rows: Array) -> Array:
        projected = space.xp.sum(plain[b, :, :] * rows, axis=0, keepdims=True)
        return across[b, :, :] * rows + weighted[b, :, :] * projected

    return Weighted(y, yhat, weigh)


def _lowest(diagonal: list[float], lengths: list[float], count: int) -> tuple[FloatArray, FloatArray]:
    """Lowest eigenpairs of the tridiagonal matrix of the steps so far."""
    last = min(count, len(diagonal)) - 1
    values, vectors = eigh_tridiagonal(diagonal, lengths[:-1], select="i", select_range=(0, last))
    return values, vectors


def _resolved(values: FloatArray, residuals: FloatArray, count: int, space: int, tolerance: float) -> bool:
    """Whether the lowest two pairs are resolved from their neighbours, and the lowest ``space`` from the
    rest."""
    if len(values) <= count:
        return False
    gaps = np.diff(values)
    apart = np.array([gaps[0], min(gaps[0], gaps[1])])
    angles = residuals[:2] / apart
    together = residuals[:space] / (values[space] - values[:space])
    return bool(max(angles.max(), together.max()) ** 2 <= tolerance)
