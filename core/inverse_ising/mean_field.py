"""Couplings from correlations by naive mean field and by the TAP equations."""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from bendscape.core.inverse_ising.estimate import Estimate, no_estimate
from bendscape.core.inverse_ising.model import FloatArray, Spins
from bendscape.core.numerics.threads import on_one_thread

_SINGULAR = 1e-10
"""Smallest reciprocal condition number of correlations that are inverted."""


def empirical_moments(spins: Spins) -> tuple[FloatArray, FloatArray]:
    """Mean spins, shape (N,), and their covariances (1/M) sum_mu (s - m)(s - m)^T, N x N."""
    s = spins.astype(np.float64)
    m = s.mean(axis=0)
    s -= m
    return m, np.asarray(s.T @ s) / len(s)


def naive_mean_field(m: FloatArray, C: FloatArray) -> Estimate:
    """theta_ij = -(C^-1)_ij for i != j, from magnetisations m, shape (N,), and correlations C, N x N.

    For small couplings without fields the estimate from exact correlations is theta_ij + (2/3) theta_ij^3 +
    terms of fourth order. Source: Kappen and Rodriguez, Neural Comput. 10 (1998) 1137.
    """
    inverse = _inverse(C)
    if inverse is None:
        return no_estimate(len(m), "singular_correlations")
    theta = -inverse
    np.fill_diagonal(theta, 0.0)
    return Estimate(theta, np.arctanh(m) - theta @ m)


def tap(m: FloatArray, C: FloatArray) -> Estimate:
    """The root of (C^-1)_ij = -theta_ij - 2 theta_ij^2 m_i m_j that is -(C^-1)_ij where m_i m_j = 0:

    theta_ij = -2 (C^-1)_ij / (1 + sqrt(1 - 8 m_i m_j (C^-1)_ij)).

    Without magnetisation it is the naive mean field. Otherwise the error of second order of the latter is
    gone. Source: Kappen and Rodriguez, Neural Comput. 10 (1998) 1137; Tanaka, Phys. Rev. E 58 (1998) 2302.
    """
    inverse = _inverse(C)
    if inverse is None:
        return no_estimate(len(m), "singular_correlations")
    np.fill_diagonal(inverse, 0.0)
    square = 1 - 8 * np.outer(m, m) * inverse
    if (square < 0).any():
        return no_estimate(len(m), "no_real_solution")
    theta = -2 * inverse / (1 + np.sqrt(square))
    reaction = m * ((theta**2) @ (1 - m**2))
    return Estimate(theta, np.arctanh(m) - theta @ m + reaction)


@on_one_thread
def _inverse(C: FloatArray) -> FloatArray | None:
    """The inverse of a symmetric matrix, or None if it is singular to ten digits."""
    scale = np.linalg.eigvalsh(C)[[0, -1]]
    if not scale[0] > _SINGULAR * scale[1]:
        return None
    try:
        found = cho_solve(cho_factor(C), np.eye(len(C)))
    except LinAlgError:
        return None
    return np.asarray(0.5 * (found + found.T))
