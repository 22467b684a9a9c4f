"""Samples of the label-only spectral method: an explicit N x N matrix and its lowest eigenvectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh

from bendscape.core.errors import as_integer
from bendscape.core.quadratic.model import sample_count
from bendscape.core.quadratic.theory.label_weights import SpectralWeights


class SpectralSample(NamedTuple):
    """Lowest eigenvalues of one D_f, the overlap of the lowest eigenvector, and its mean over the lowest
    p_star."""

    eigval_min: float
    eigval_second: float
    overlap_sq: float
    overlap_sq_space: float
    alpha_realised: float


def sample_spectral(
    p_star: int, weights: SpectralWeights, alpha: float, N: int, rng: np.random.Generator
) -> SpectralSample:
    """Draw one D_f = (1/N) sum_mu f(y_mu) x_mu x_mu^T and measure its lowest eigenvectors.

    y = (1/p_star) sum_l (w*_l.x)^2 / N with w*_l uniform on the sphere of radius sqrt(N); m^2 = |Q^T v|^2
    with Q an orthonormal basis of the span of the w*_l.

    Parameters
    ----------
    p_star : int
        Teacher hidden units.
    weights : SpectralWeights
        Only its function ``f`` is used.
    alpha : float
        Samples per dimension; M = sample_count(alpha, N).
    N : int
        Input dimension, > p_star.
    rng : numpy.random.Generator
        Teacher first, then data.

    Returns
    -------
    SpectralSample
        ``eigval_min``, ``eigval_second``, ``overlap_sq`` of the lowest eigenvector, ``overlap_sq_space`` its
        mean over the lowest p_star, and ``alpha_realised`` = M/N.

    Notes
    -----
    Limits: :func:`bendscape.core.quadratic.theory.label_only.spectral_asymptotics` as N -> inf. Memory 8 (2 M
    N + N^2) bytes, time of order M N^2. Held by ``tests/test_spectral.py``. Source: this project's own.
    """
    p_star = as_integer("p_star", p_star, 1)
    N = as_integer("N", N, p_star + 1, f"an integer > p_star = {p_star}")
    M = sample_count(alpha, N)
    teachers = rng.standard_normal((p_star, N))
    teachers *= np.sqrt(N) / np.linalg.norm(teachers, axis=1, keepdims=True)
    X = rng.standard_normal((M, N))
    y = ((X @ teachers.T) ** 2).mean(axis=1) / N

    D_f = (X.T * weights.f(y)) @ X / N
    last = max(2, p_star) - 1
    values, vectors = eigh(D_f, subset_by_index=(0, last), driver="evr", overwrite_a=True, check_finite=False)
    basis, _ = np.linalg.qr(teachers.T)
    overlaps = np.sum((basis.T @ vectors) ** 2, axis=0)
    return SpectralSample(
        float(values[0]), float(values[1]), float(overlaps[0]), float(overlaps[:p_star].mean()), M / N
    )
