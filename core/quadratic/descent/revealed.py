"""Descent without the data: every force reveals X in p more directions, and only there.

Exact in law, whatever the path does with what it has seen: conditioned on it, the rest of X is Gaussian and
independent. In place of M N numbers, 2 M r are kept for r directions.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError, as_real
from bendscape.core.quadratic.descent.landscape import Evaluation, LongArray, on_spheres
from bendscape.core.quadratic.model import Model, sample_count
from bendscape.core.quadratic.sampling.gaussian import StoredMatrix, Transposed
from bendscape.core.quadratic.sampling.hessian import refuse_infinite_width
from bendscape.core.quadratic.sampling.reveal import BATCH, GROWTH, Array, Workspace

FloatArray = npt.NDArray[np.float64]

BLOCK_ROWS = 8192
"""Rows of a block of one vector (of p vectors, divided by p)."""
EXPECTED = 128
"""Evaluations for which space is allocated at first; it then grows by a quarter at a time."""
THIN = 0.25
"""Largest fraction of the M dimensions that 1000 evaluations may fill with float32 as the default."""
LARGEST_REL = 0.1


def default_precision(model: Model, alpha: float, N: int) -> np.dtype[np.floating[Any]]:
    """float32 where 1000 evaluations reveal only a small part of the space, float64 elsewhere."""
    filling = 1000 * int(model.p) / sample_count(alpha, N)
    return np.dtype(np.float64 if filling > THIN else np.float32)


def revealed_bytes(
    model: Model, alpha: float, N: int, directions: int, dtype: npt.DTypeLike | None = None
) -> float:
    """Memory of a path that has revealed this many directions: U and X Q, and some tens of long vectors."""
    M, p = sample_count(alpha, N), int(model.p)
    room = float(max(directions, EXPECTED * p))
    room *= 1 + GROWTH if directions > EXPECTED * p else 1
    long = 2 * min(room, M) + BATCH + 12 * p + 2 * model.p_star + 12
    precision = np.dtype(dtype) if dtype is not None else default_precision(model, alpha, N)
    return float(precision.itemsize * M * long)


class RevealedData:
    """One cell whose data are revealed along the path that is followed on it.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension; M = sample_count(alpha, N).
    N : int
        Input dimension, >= p + p_star.
    rng : numpy.random.Generator
        Source of randomness of weights, labels and everything revealed.
    dtype : numpy dtype, optional
        float32 or float64 for what has length M; coordinates are in double precision. By default float32, but
        float64 where 1000 evaluations would fill a quarter of the M dimensions.
    rel : float, optional
        An approximation, off at 0: where the part of a vector that leaves the known directions is smaller
        than rel times the vector, it is dropped, and no direction is revealed. 1e-3 saves a quarter to a half
        of the directions.

    Raises
    ------
    ParameterError
        If p = inf, if N < p + p_star, or for another dtype or a rel outside [0, 0.1].

    Notes
    -----
    With rel = 0 the joint law of path, loss, overlaps and Hessian is that of explicit Gaussian data, to the
    rounding of ``dtype``: only what is below four times its precision, relative to a vector, is dropped. Held
    by ``tests/test_revealed_descent.py``. Memory 8 M r bytes in float32 for r directions, p for every
    evaluation; time O(M p r) an evaluation. Source: conditioning after Y. M. Lu, arXiv:2101.07464; its use
    along a descent is this project's own.
    """

    def __init__(
        self,
        model: Model,
        alpha: float,
        N: int,
        rng: np.random.Generator,
        *,
        dtype: npt.DTypeLike | None = None,
        rel: float = 0.0,
    ) -> None:
        p, p_star = refuse_infinite_width(model), model.p_star
        self.M, self.N, self.model = sample_count(alpha, N), int(N), model
        if p + p_star > self.N:
            raise ParameterError("N", N, f">= p + p_star = {p + p_star}", "use explicit data")
        if not 0 <= as_real(rel) <= LARGEST_REL:
            raise ParameterError("rel", rel, f"from 0 to {LARGEST_REL:g}", "0 is exact")
        precision = _precision(dtype, default_precision(model, alpha, N))
        self.rounding = float(np.finfo(precision).eps)
        space = Workspace(self.M, rng, precision, block_rows=max(1, BLOCK_ROWS // p))
        self.data = StoredMatrix(space, self.N, p, min(EXPECTED * p, self.M), float(rel))
        weights, images = self.data.directions(p_star + p)
        root = math.sqrt(self.N)
        self.teachers, self.students = root * weights.T[:p_star], root * weights.T[p_star:]
        u = np.stack([space.device_array(weights.T[:p_star]) @ block for block in images])
        if model.noise:
            u += math.sqrt(model.noise) * space.normal(p_star)
        self.y: LongArray = np.einsum("blr,blr->br", u, u) / u.dtype.type(p_star)

    @property
    def directions(self) -> int:
        """Directions of R^N revealed so far."""
        return self.data.known

    def evaluate(self, w: FloatArray) -> Evaluation:
        """Loss and force at weights w, shape (p, n); the force has all directions then known."""
        p, a, space = len(w), self.model.a, self.data.space
        coordinates = self._padded(w / math.sqrt(self.N))
        fields = np.empty((space.blocks, p, space.rows), dtype=space.precision)
        yhat = np.empty((space.blocks, space.rows), dtype=space.precision)
        product, loss = self.data.transposed(), 0.0
        for b in range(space.blocks):
            here, y = self.data.times(b, coordinates), self.y[b]
            fields[b] = here
            np.einsum("kr,kr->r", here, here, out=yhat[b])
            yhat[b] *= 1 / p
            miss = y - yhat[b]
            pull = miss / (a + y)
            loss += float(miss @ pull) / 2
            product.put(b, pull * here)
        downhill = product.coordinates() * (2 / (p * math.sqrt(self.N)))
        force, multiplier = on_spheres(downhill, w)
        return Evaluation(force, loss / self.N, multiplier, fields, yhat)

    def hessian_times(self, here: Evaluation, v: FloatArray, *, once: bool = False) -> FloatArray:
        """H v for v of shape (p, n), with the Euclidean Hessian of L where ``here`` was evaluated.

        (H v)_k = (1/N) X^T [d_perp P_k + s lambda_k sum_l lambda_l P_l], P_k = X v_k, revealing X further.
        With ``once``, vectors are projected once, which takes 3/5 of the time; only for an iteration whose
        vectors are orthonormal. A power iteration, say, would lose directions.
        """
        p, a = len(v), self.model.a
        coordinates = self._padded(v)
        product: Transposed = self.data.transposed(once=once)
        for b in range(self.data.space.blocks):
            P, fields = self.data.times(b, coordinates), here.fields[b]
            scale = (2 / p) / (self.N * (a + self.y[b]))
            along = (2 / p) * scale * np.einsum("kr,kr->r", fields, P)
            product.put(b, scale * (here.yhat[b] - self.y[b]) * P + along * fields)
        return product.coordinates()

    def fork(self) -> AbstractContextManager[None]:
        """Inside, products reveal X further; afterwards that is forgotten, and the path keeps its bits."""
        return self.data.fork()

    def orthogonality(self) -> float:
        """max |U^T U - 1|, measured: an O(M r^2) check of the basis."""
        left, space = self.data.left.columns, self.data.space
        gram = np.zeros((len(left), len(left)))
        for b in range(space.blocks):
            rows = np.concatenate([part for _, part in left.views(b)]).astype(np.float64)
            gram += rows @ rows.T
        return float(np.abs(gram - np.eye(len(left))).max(initial=0.0))

    def _padded(self, coordinates: FloatArray) -> Array:
        wide = np.zeros((len(coordinates), self.directions), dtype=self.data.space.precision)
        wide[:, : coordinates.shape[1]] = coordinates
        return wide


def _precision(
    dtype: npt.DTypeLike | None, default: np.dtype[np.floating[Any]]
) -> np.dtype[np.floating[Any]]:
    if dtype is None:
        return default
    for accepted in (np.float32, np.float64):
        try:
            if np.dtype(dtype) == accepted:
                return np.dtype(accepted)
        except TypeError:
            break
    raise ParameterError("dtype", dtype, "float32 or float64", "leave it to the default")
