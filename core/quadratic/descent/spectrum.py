"""Lowest eigenpairs of the Riemannian Hessian at one moment of a descent.

On the spheres the second derivative of the loss is P (H - mu) P, with mu_k on the block of w_k and P the
projection off every w_k. Lanczos' iteration with full reorthogonalisation runs in the coordinates of the
data, which may gain directions with every product; it needs no long vector of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from bendscape.core.errors import as_integer, as_positive
from bendscape.core.numerics.threads import on_one_thread
from bendscape.core.quadratic.descent.flow import Moment
from bendscape.core.quadratic.sampling.drawn_labels import drawn_labels_theory

FloatArray = npt.NDArray[np.float64]

PAIRS = 3
RESIDUAL = 1e-3
"""Residual at which a pair is good enough, relative to the largest of the wanted eigenvalues."""
MOST_STEPS = 800

_FIRST_CHECK = 10
_CHECK_EVERY = 0.05
_SEED = 0x6C616E637A6F73  # not 0: the start would be the weights that default_rng(0) draws
_NOTHING = 1e-10  # length of a step, relative to the first, below which the space is exhausted


class LowestPairs(NamedTuple):
    """Lowest eigenpairs of P (H - mu) P, in ascending order.

    Parameters
    ----------
    values : array, shape (count,)
        Eigenvalues; nan beyond the dimension.
    overlaps_sq : array, shape (count,)
        Squared overlap of each eigenvector with the span of the teacher, sum_k |Q^T v_k|^2 in [0, 1].
    residuals : array, shape (count,)
        |P (H - mu) P v - value v|, which bounds the distance to an eigenvalue.
    steps : int
        Products with H.
    converged : bool
        Whether every residual is below the tolerance.
    """

    values: FloatArray
    overlaps_sq: FloatArray
    residuals: FloatArray
    steps: int
    converged: bool


@on_one_thread
def lowest_pairs(
    moment: Moment, count: int = PAIRS, *, tolerance: float = RESIDUAL, max_steps: int = MOST_STEPS
) -> LowestPairs:
    """Lowest eigenpairs of the Riemannian Hessian P (H - mu) P.

    Parameters
    ----------
    moment : Moment
        A point of a path.
    count : int
        Number of pairs.
    tolerance : float
        Stop when every residual is at most this multiple of the largest |value| among the pairs. It is not
        tied to gaps, which are tiny at the edge of the bulk.
    max_steps : int
        Give up there.

    Returns
    -------
    LowestPairs
        In units of the eigenvalues of H.

    Notes
    -----
    Runs on one BLAS thread. An outlier is found in 100 products or so, pairs at the edge of the bulk in some
    hundreds. Where eigenvalues may be degenerate (M < N, or p > 1 near a minimum of zero loss) the iteration
    starts from ``count`` vectors, since one shows each eigenvalue once; the overlap of a degenerate one is
    that of some vector of its space. Products are made in ``data.fork()``: for revealed data the law given
    the path so far is exact. Memory there is 8 M p bytes a product, freed afterwards. The first start is
    random, with a share of the teacher and of the force, so that neither is missed. Held by
    ``tests/test_descent_spectrum.py``. Source: the band form of Lanczos' iteration, Ruhe, Math. Comput. 33
    (1979) 680.
    """
    count = as_integer("count", count, 1)
    tolerance = as_positive("tolerance", tolerance)
    data, w, here = moment.data, moment.w, moment.here
    p, N, mu = len(w), data.N, here.multiplier[:, np.newaxis]
    dimension = p * (N - 1)
    block = min(1 if p == 1 and data.M >= N else count, dimension)
    with data.fork():
        n = data.directions
        most = min(as_integer("max_steps", max_steps, 1), dimension)
        unit = _widened(w, n) / math.sqrt(N)

        def tangential(v: FloatArray) -> FloatArray:
            v[:, : unit.shape[1]] -= np.einsum("kn,kn->k", unit, v[:, : unit.shape[1]])[:, np.newaxis] * unit
            return v

        rng = np.random.default_rng(
            _SEED
        )  # of the iteration, not of the cell: any start finds the same pairs
        starts = rng.standard_normal((block, p, n)) / math.sqrt(p * n)
        mixed = rng.standard_normal((p, len(data.teachers))) @ data.teachers
        starts[0] += _widened(mixed / np.linalg.norm(mixed), n)
        size = float(np.linalg.norm(here.force))
        if size:
            starts[0] += _widened(here.force / size, n)
        basis = np.zeros((min(64, most + block), p, n + 64 * p))
        known = 0  # vectors of the basis; the Hessian has been applied to the first k
        for start in starts:
            start = _outside(tangential(start), basis[:known, :, :n])[0]
            basis[known, :, :n] = start / np.linalg.norm(start)
            known += 1

        projected = np.zeros((most + block, most))
        wide, scale = n, 0.0
        check = _FIRST_CHECK
        for k in range(most):
            ahead = data.hessian_times(here, basis[k, :, :wide].copy(), once=True)
            ahead[:, :wide] -= mu * basis[k, :, :wide]
            ahead = tangential(ahead)
            wide = ahead.shape[1]
            ahead, along = _outside(ahead, basis[:known, :, :wide])
            ahead = tangential(ahead)
            projected[k:known, k] = along[k:]
            scale = max(scale, abs(float(along[k])))
            length = float(np.linalg.norm(ahead))
            if length > _NOTHING * scale and known < dimension:
                basis = _roomier(basis, known, wide, p, most + block)
                basis[known, :, :wide] = ahead / length
                projected[known, k] = length
                known += 1
            exhausted = known == k + 1
            if exhausted or k + 1 >= min(check, most):
                check = max(k + 3, math.ceil((k + 1) * (1 + _CHECK_EVERY)))
                wanted = min(count, k + 1)
                values, vectors = eigh(projected[: k + 1, : k + 1], subset_by_index=(0, wanted - 1))
                residuals = np.linalg.norm(projected[k + 1 : known, : k + 1] @ vectors, axis=0)
                good = bool(wanted == count or exhausted) and bool(
                    residuals.max() <= tolerance * np.abs(values).max()
                )
                if good or exhausted:
                    break
        teacher = np.linalg.qr(data.teachers.T)[0]
        parts = np.einsum(
            "jkn,nl,jb->bkl", basis[: k + 1, :, : len(teacher)], teacher, vectors, optimize=True
        )
    missing = np.full(count - wanted, np.nan)
    overlaps_sq = np.einsum("bkl,bkl->b", parts, parts)
    return LowestPairs(
        np.concatenate([values, missing]),
        np.concatenate([overlaps_sq, missing]),
        np.concatenate([residuals, missing]),
        k + 1,
        good,
    )


class OwnLabels(NamedTuple):
    """What the cell's labels and present outputs predict of P (H - mu) P; nan where there is no outlier."""

    edge_sample: float
    outlier_sample: float
    overlap_sq_sample: float


def own_labels(moment: Moment) -> OwnLabels:
    """Edge, outlier and its overlap from the cell's own labels and outputs at one moment, in O(M).

    :func:`bendscape.core.quadratic.sampling.drawn_labels.drawn_labels_theory` with the present outputs in
    place of the initial ones, less the mean multiplier.

    Parameters
    ----------
    moment : Moment
        A point of a path.

    Returns
    -------
    OwnLabels
        Eigenvalues in the units of H.

    Notes
    -----
    It treats the outputs as independent of the data, but along a path they are not. At p = 1, N = 1e4, alpha
    = 3 the edge was within 0.01 of the measured one up to t = 1 and 0.03 at t = 3; it fails at small N and
    late t. The outlier is good while the student has not seen the signal (q^2 << 1), and wrong after.
    """
    data = moment.data
    y, yhat = (x.reshape(-1)[: data.M].astype(np.float64) for x in (data.y, moment.here.yhat))
    found = drawn_labels_theory(data.model, data.N, y, yhat)
    mu = float(moment.here.multiplier.mean())
    return OwnLabels(found.edge_sample - mu, found.outlier_sample - mu, found.overlap_sq_sample)


def _widened(array: FloatArray, n: int) -> FloatArray:
    return np.pad(array, ((0, 0), (0, n - array.shape[1])))


def _outside(v: FloatArray, basis: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The part of v orthogonal to a basis, by two projections, and its coordinates on the basis."""
    total = np.zeros(len(basis))
    for _ in range(2):
        along = np.einsum("jkn,kn->j", basis, v)
        v = v - np.einsum("j,jkn->kn", along, basis)
        total += along
    return v, total


def _roomier(basis: FloatArray, count: int, width: int, p: int, most: int) -> FloatArray:
    """The basis with room for one more vector, and for the directions that its product may gain."""
    steps, _, room = basis.shape
    if count < steps and width + p <= room:
        return basis
    grown = np.zeros(
        (min(most, steps + steps // 2 + 1) if count == steps else steps, p, room + room // 2 + p)
    )
    grown[:count, :, :room] = basis[:count]
    return grown
