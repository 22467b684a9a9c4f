"""Lowest eigenpairs of a symmetric operator by block Lanczos with thick restarts.

Every step keeps the identity H Q = Q T + W E^T, with Q^T Q = I, T symmetric and E the last columns of the
identity. A Ritz pair (theta, Q s) then has the residual norm |W E^T s|, which costs no product with H. The
operator is used only through block products H V: whatever a product reads (data, say) is read once per step
for all columns of the block. Nothing here is specific to a Hessian.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from bendscape.core.errors import ParameterError

FloatArray = npt.NDArray[np.float64]
Product = Callable[[FloatArray], FloatArray]
"""A function from V, shape (n, b), to H V of the same shape."""

EIGVAL_TOLERANCE = 1e-9
"""Bound on the error of an eigenvalue from the residuals, absolute."""
VECTOR_TOLERANCE = 1e-6
"""Bound on the error of a unit vector or of the lowest space from the residuals: the sine of an angle."""
MOST_STEPS = 5000

_FULL_RANK = 1e-10  # a new block smaller than this, relative to H V, means that the Krylov space is exhausted
_CANCELLED = 1e-2  # if projection leaves less than this of H V, project a second time
_NOTHING_TO_GAIN = 100 * np.finfo(np.float64).eps  # smallest useful residual, relative to the norm of H
_KEPT_SHARE = 0.4  # fraction of the basis kept by a restart


class Eigenpairs(NamedTuple):
    """Lowest Ritz pairs in ascending order, with bounds on their distance from eigenpairs.

    ``residuals`` are norms |H v - theta v| from the recurrence; ``eigval_error`` is the largest of min(r,
    r^2/gap) over the pairs, ``vector_error`` is r/gap of the lowest vector, and ``space_error`` is |r|/gap of
    the lowest ``space`` vectors together, each gap to the nearest Ritz value outside. ``n_steps`` counts
    block products, ``n_products`` multiplied columns.
    """

    values: FloatArray
    vectors: FloatArray
    converged: bool
    residuals: FloatArray
    eigval_error: float
    vector_error: float
    space_error: float
    n_steps: int
    n_products: int
    n_restarts: int


def lowest_eigenpairs(
    product: Product,
    start: FloatArray,
    count: int,
    *,
    space: int = 1,
    eigval_tolerance: float = EIGVAL_TOLERANCE,
    vector_tolerance: float = VECTOR_TOLERANCE,
    max_vectors: int | None = None,
    max_steps: int = MOST_STEPS,
) -> Eigenpairs:
    """Lowest eigenpairs H v = theta v of a symmetric operator.

    Block Lanczos: W = H Q_j - Q_{j-1} B^T - Q_j A, A = Q_j^T H Q_j, then W is projected orthogonal to the
    whole basis, and W = Q_{j+1} B. When the basis is full it is replaced by its lowest Ritz vectors.

    Parameters
    ----------
    product : callable
        V of shape (n, b), b at most the width of ``start``, to H V.
    start : array, shape (n, b)
        First block, of any scale; it sets the block width. Should be random, so that no eigenvector is
        missed.
    count : int
        Number of pairs, 1 <= count < n.
    space : int
        Dimension of the lowest space, whose span must converge even if the individual vectors need not.
    eigval_tolerance, vector_tolerance : float
        Stop when ``eigval_error`` is at most the first, ``vector_error`` and ``space_error`` the second, or
        residuals have reached 100 rounding errors of the norm of H, as in a degenerate space.
    max_vectors : int, optional
        Number of basis vectors in memory, at least :func:`least_vectors`; by default :func:`default_vectors`.
    max_steps : int
        Largest number of block products.

    Returns
    -------
    Eigenpairs
        Unit vectors in columns; ``converged`` is False after ``max_steps``.

    Raises
    ------
    ParameterError
        ``count``, ``space`` or ``max_vectors`` is outside its range.

    Notes
    -----
    Exact at full depth. Of a degenerate eigenvalue, only as many eigenvectors as the block is wide are
    certain to be found. The basis is orthonormal to 1e-12 at any depth; memory 8 n (max_vectors + count)
    bytes and a few blocks. The residuals are those of the operator as applied: a product in single precision
    has its own eigenpairs, which differ by 1e-7 of the norm of H. Held by ``tests/test_lanczos.py``.
    """
    n, b = start.shape
    if not 1 <= count < n:
        raise ParameterError("count", count, f"an integer from 1 to {n - 1}, the dimension less 1")
    if not 1 <= space <= count:
        raise ParameterError("space", space, f"an integer from 1 to count = {count}")
    least = least_vectors(n, count, b)
    most = default_vectors(n, count, b) if max_vectors is None else min(max_vectors, n)
    if most < least:
        raise ParameterError("max_vectors", max_vectors, f">= {least} for {count} pairs, blocks of {b}")
    basis = _Basis(n, most, start)
    schedule = _Schedule(2 * (count + b))
    n_steps = n_products = n_restarts = 0
    while True:
        n_products += basis.width
        n_steps += 1
        basis.extend(product)
        full = basis.depth + basis.width > most
        last = n_steps >= max_steps or basis.width == 0
        if full or last or schedule.due(basis.depth):
            ritz = _Ritz(basis, count, space)
            ratio = ritz.ratio(eigval_tolerance, vector_tolerance)
            if ratio <= 1 or last:
                break
            schedule.note(basis.depth, ratio)
            if full:
                kept = min(max(count + b, int(_KEPT_SHARE * most)), most - 2 * b)
                basis.restart(kept)
                schedule = _Schedule(kept + 2 * b)
                n_restarts += 1
    vectors = basis.Q[:, : basis.depth] @ ritz.S[:, :count]
    return Eigenpairs(
        ritz.values[:count],
        vectors,
        ratio <= 1,
        ritz.residuals[:count],
        ritz.eigval_error,
        ritz.vector_error,
        ritz.space_error,
        n_steps,
        n_products,
        n_restarts,
    )


def least_vectors(n: int, count: int, width: int) -> int:
    """Smallest number of basis vectors with which a restart works."""
    return min(n, count + 4 * width)


def default_vectors(n: int, count: int, width: int) -> int:
    """Default number of basis vectors in memory: 160 for single vectors, 320 and more for blocks.

    Restarts at this depth cost about a tenth more steps than none (docs/decisions/0007-lanczos.md).
    """
    return min(n, max(160 * min(width, 2), 24 * width, 8 * count + 4 * width))


class _Basis:
    """Orthonormal Q, the projected T, and the next block, which couples to the columns from ``coupled``."""

    def __init__(self, n: int, most: int, start: FloatArray) -> None:
        width = min(start.shape[1], n)
        self.n, self.most = n, most
        self.Q = np.empty((n, most + width), order="F")
        self.T = np.zeros((most + width, most + width))
        self.depth, self.coupled = 0, 0
        self.norm = 0.0  # largest |H q| so far, a lower bound on the norm of H
        self.width = width
        self.Q[:, :width] = np.linalg.qr(start[:, :width])[0]
        self.B = np.zeros((0, 0))
        self.fresh = 0

    def extend(self, product: Product) -> None:
        """Multiply the next block by H, project, and replace it by the following block."""
        Q, T, m, b = self.Q, self.T, self.depth, self.width
        block = Q[:, m : m + b]
        W = product(block)
        scale = float(np.linalg.norm(W, axis=0).max())
        self.norm = max(self.norm, scale)
        if m:
            W -= Q[:, self.coupled : m] @ T[self.coupled : m, m : m + b]
        A = block.T @ W
        W -= block @ A
        T[m : m + b, m : m + b] = (A + A.T) / 2
        past = Q[:, : m + b]
        W -= past @ (past.T @ W)
        self.coupled, self.depth = m, m + b
        room = self.n - self.depth
        q, B = np.linalg.qr(W)
        left = np.abs(np.diagonal(B)).min(initial=np.inf)
        if left <= _CANCELLED * scale:
            q, B = self._of_full_rank(W, _FULL_RANK * max(scale, self.norm * np.finfo(np.float64).eps))
        q, B = q[:, :room], B[:room]
        if room and not q.shape[1]:
            q, B = self._another(), np.zeros((1, b))
        self.width, self.B = q.shape[1], B
        if self.depth + self.width <= Q.shape[1]:
            self._place(q, B)

    def _place(self, q: FloatArray, B: FloatArray) -> None:
        m, b = self.depth, q.shape[1]
        self.Q[:, m : m + b] = q
        self.T[m : m + b, self.coupled : m] = B
        self.T[self.coupled : m, m : m + b] = B.T

    def _of_full_rank(self, W: FloatArray, smallest: float) -> tuple[FloatArray, FloatArray]:
        """Factors of W without the directions below ``smallest``, projected once more."""
        past = self.Q[:, : self.depth]
        W = W - past @ (past.T @ W)
        u, s, vh = np.linalg.svd(W, full_matrices=False)
        kept = s > smallest
        q = u[:, kept]
        q -= past @ (past.T @ q)
        q, R = np.linalg.qr(q)
        return q, R @ (s[kept, np.newaxis] * vh[kept])

    def _another(self) -> FloatArray:
        """A unit vector outside an invariant space, which products with H never leave."""
        self.fresh += 1
        vector = np.random.default_rng(self.fresh).standard_normal((self.n, 1))
        past = self.Q[:, : self.depth]
        for _ in range(3):
            vector -= past @ (past.T @ vector)
            vector /= np.linalg.norm(vector)
        return vector

    def restart(self, kept: int) -> None:
        """Replace the basis by its ``kept`` lowest Ritz vectors; the next block couples to all of them."""
        m, b = self.depth, self.width
        values, S = eigh(self.T[:m, :m], subset_by_index=(0, kept - 1), driver="evr", check_finite=False)
        B = self.B @ S[self.coupled :]
        block = self.Q[:, m : m + b].copy()
        for rows in range(0, self.n, 4096):  # in place, a few rows at a time
            some = self.Q[rows : rows + 4096]
            some[:, :kept] = some[:, :m] @ S
        self.T[:] = 0
        self.T[range(kept), range(kept)] = values
        self.depth, self.coupled, self.B = kept, 0, B
        self._place(block, B)


class _Ritz:
    """Ritz values, their coordinates, and the error bounds from their residuals."""

    def __init__(self, basis: _Basis, count: int, space: int) -> None:
        m = basis.depth
        self.found = min(count + 1, m)
        self.values, self.S = eigh(
            basis.T[:m, :m], subset_by_index=(0, self.found - 1), driver="evr", check_finite=False
        )
        if basis.width:
            self.residuals = np.linalg.norm(basis.B @ self.S[basis.coupled :], axis=0)
        else:
            self.residuals = np.zeros(self.found)
        self.enough = m > count
        self.floor = _NOTHING_TO_GAIN * basis.norm
        values, residuals = self.values, self.residuals
        wanted = min(count, self.found - 1)
        if not self.enough:
            self.eigval_error = self.vector_error = self.space_error = np.inf
            return
        gaps = np.diff(values)
        nearest = np.minimum(np.concatenate([[np.inf], gaps])[:wanted], gaps[:wanted])
        with np.errstate(divide="ignore", invalid="ignore"):
            r = residuals[:wanted]
            self.eigval_error = float(np.fmin(r, r**2 / nearest).max())
            self.vector_error = _quotient(r[0], gaps[0])
            self.space_error = _quotient(float(np.linalg.norm(r[:space])), gaps[space - 1])

    def ratio(self, eigval_tolerance: float, vector_tolerance: float) -> float:
        """Largest error relative to its tolerance; at most 1 once everything requested has converged."""
        if self.enough and self.residuals[:-1].max() <= self.floor:
            return 0.0
        worst = max(self.vector_error, self.space_error)
        return max(self.eigval_error / eigval_tolerance, worst / vector_tolerance)


def _quotient(residual: float, gap: float) -> float:
    if residual == 0:
        return 0.0
    return float(residual / gap) if gap > 0 else float("inf")


class _Schedule:
    """When to compute the Ritz values: the error decreases exponentially, so the end can be extrapolated."""

    def __init__(self, first: int) -> None:
        self.next = first
        self.seen: list[tuple[int, float]] = []

    def due(self, depth: int) -> bool:
        return depth >= self.next

    def note(self, depth: int, ratio: float) -> None:
        """Check again at 80 per cent of the way to the extrapolated end, but 4 to 20 per cent deeper."""
        self.seen.append((depth, float(np.log(min(ratio, 1e300)))))
        ahead = 0.1 * depth
        if len(self.seen) > 1:
            (before, high), (now, low) = self.seen[-2:]
            if high > low:
                ahead = 0.8 * low * (now - before) / (high - low)
        self.next = depth + max(1, int(min(max(ahead, 0.04 * depth), 0.2 * depth)))
