"""One finite instance for any activations: the lowest eigenpairs of its Hessian, and their overlap.

H is pN x pN with blocks H_kl = (1/N) sum_mu D^mu_kl x^mu x^mu^T, D_kl = [sigma'_k sigma'_l / p^2 + delta_kl
(yhat - y) sigma''_k / p] / (a + y). ``dense`` forms it; ``explicit`` only multiplies with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from bendscape.core.activations.activation import Network
from bendscape.core.errors import ParameterError, as_integer, as_positive
from bendscape.core.numerics.lanczos import lowest_eigenpairs

FloatArray = npt.NDArray[np.float64]

METHODS = ("dense", "explicit")
BLOCK = 4
"""Vectors that the explicit method multiplies at once."""
MOST_STEPS = 2000


class LowestPairs(NamedTuple):
    """Lowest eigenvalues, ascending, and squared overlaps of their vectors with the teacher span.

    ``converged`` is False if the iteration gave up; both arrays are then nan.
    """

    eigvals: FloatArray
    overlaps_sq: FloatArray
    converged: bool


@dataclass(frozen=True, eq=False)
class Sample:
    """Data, weights and the p x p weight D of each sample.

    Parameters
    ----------
    inputs : array, shape (M, N)
    teacher_basis : array, shape (N, p_star)
        Orthonormal basis of the span of the teacher weights.
    slopes : array, shape (M, p)
        v_k = sigma'(lambda_k) / (p sqrt(a + y)).
    diagonal : array, shape (M, p)
        e_k = (yhat - y) sigma''(lambda_k) / (p (a + y)); D = v v^T + diag(e).
    """

    inputs: FloatArray
    teacher_basis: FloatArray
    slopes: FloatArray
    diagonal: FloatArray

    def product(self, vectors: FloatArray) -> FloatArray:
        """H times columns, shape (pN, b), without forming H."""
        N, p = self.inputs.shape[1], self.slopes.shape[1]
        projected = np.einsum("mn,knb->mkb", self.inputs, vectors.reshape(p, N, -1), optimize=True)
        along = np.einsum("mk,mkb->mb", self.slopes, projected)
        weighted = self.slopes[:, :, None] * along[:, None, :] + self.diagonal[:, :, None] * projected
        result: FloatArray = np.einsum("mn,mkb->knb", self.inputs, weighted, optimize=True) / N
        return result.reshape(vectors.shape)

    def matrix(self) -> FloatArray:
        """H as a matrix, shape (pN, pN)."""
        N, p = self.inputs.shape[1], self.slopes.shape[1]
        matrix = np.empty((p * N, p * N))
        for k in range(p):
            for other in range(k + 1):
                weight = self.slopes[:, k] * self.slopes[:, other]
                if k == other:
                    weight = weight + self.diagonal[:, k]
                block = (self.inputs.T * weight) @ self.inputs / N
                matrix[k * N : (k + 1) * N, other * N : (other + 1) * N] = block
                matrix[other * N : (other + 1) * N, k * N : (k + 1) * N] = block
        return matrix


def draw(network: Network, alpha: float, N: int, rng: np.random.Generator) -> Sample:
    """Draw weights uniform on spheres of radius sqrt(N), Gaussian data, M = round(alpha N), and D."""
    N = as_integer("N", N, 2)
    count = round(as_positive("alpha", alpha) * N)
    if count < 1:
        raise ParameterError("alpha", alpha, f"at least 1/N = {1 / N:g} at N = {N}", "raise alpha or N")
    p, p_star, a = network.p, network.p_star, network.a
    weights = rng.standard_normal((p + p_star, N))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    inputs = rng.standard_normal((count, N))
    fields = inputs @ weights.T
    y = network.teacher.value(fields[:, p:]).mean(axis=1)
    fields = fields[:, :p]
    pull = (network.student.value(fields).mean(axis=1) - y) / (p * (a + y))
    return Sample(
        inputs,
        np.linalg.qr(weights[p:].T)[0],
        network.student.slope(fields) / (p * np.sqrt(a + y))[:, None],
        pull[:, None] * network.student.curvature(fields),
    )


def lowest_pairs(
    network: Network, alpha: float, N: int, rng: np.random.Generator, method: str = "explicit"
) -> LowestPairs:
    """Draw one instance and find its lowest max(2, p p_star) eigenpairs.

    m^2 = sum_k |Q^T v_k|^2 with Q an orthonormal basis of the teacher span.

    Parameters
    ----------
    network : Network
        Any activations.
    alpha : float
        Samples per dimension; M = round(alpha N).
    N : int
        Input dimension; p N must exceed the number of pairs.
    rng : numpy.random.Generator
        First the instance, then (explicit) the start vectors: both methods see the same instance.
    method : {"dense", "explicit"}

    Returns
    -------
    LowestPairs

    Raises
    ------
    ParameterError
        Bad parameter or method.
    """
    if method not in METHODS:
        raise ParameterError("method", method, "one of " + ", ".join(METHODS))
    sample = draw(network, alpha, N, rng)
    p, size = network.p, network.p * int(N)
    signals = p * network.p_star
    count = max(2, signals)
    if count >= size:
        raise ParameterError("N", N, f"above {count / p:g}, for {count} pairs at p = {p}")
    if method == "dense":
        values, vectors = eigh(sample.matrix(), subset_by_index=(0, count - 1))
    else:
        start = rng.standard_normal((size, min(BLOCK, size)))
        found = lowest_eigenpairs(sample.product, start, count, space=signals, max_steps=MOST_STEPS)
        if not found.converged:
            return LowestPairs(np.full(count, np.nan), np.full(count, np.nan), False)
        values, vectors = found.values, found.vectors
    parts = vectors.reshape(p, int(N), -1)
    components = np.tensordot(sample.teacher_basis, parts, axes=(0, 1))
    return LowestPairs(values, np.einsum("lkb,lkb->b", components, components), True)
