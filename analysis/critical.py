"""The overlap expected where a residual overlap is born: the level a threshold is read off at, one size at a
time.

Where an outlier is born continuously, the lowest eigenpairs follow the universal law of r = p p_star critical
spikes at the edge of a real symmetric random matrix. All that depends on the model is an amplitude and a
width in alpha, and both follow from the expansion of the theory around the critical g."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from bendscape.core.branch import load_on_branch, overlap_sq_on_branch, principal_value, principal_value_end
from bendscape.core.integrals import averages
from bendscape.core.model import Model
from bendscape.core.outlier import transition

CRITICAL_OVERLAP = 0.845
"""phi_r(0) / r^(1/3): for r critical spikes of a Gaussian orthogonal matrix of size N (edge at 2, spikes of
strength 1), N^(1/3) times the squared overlap of an eigenvector with their space, averaged over the r extreme
vectors, at large N. Sampled at N = 1e4 and 1e5: 0.845(9), 1.062(8), 1.220(8), 1.355(7) for r = 1 to 4; the
cube root of r holds to 2 % up to r = 8."""

_STEP = 1e-4  # relative step of the central differences, whose error is its square


class CriticalPoint(NamedTuple):
    """Where the residual overlap is born at sizes below the crossover, and the scales of its finite-size
    law."""

    alpha: float
    amplitude: float
    width: float
    overlap_level: float


def _critical_gamma(model: Model) -> float:
    """Zero of psi: in (0, 1) for a continuous transition, above 1 on the principal-value branch for a
    discontinuous one, or nan."""
    at_bbp = transition(model)
    if at_bbp.kind == "continuous":
        return at_bbp.gamma
    gamma, reached = principal_value_end(model)
    return gamma if reached else math.nan


@lru_cache(maxsize=1024)
def critical_point(model: Model) -> CriticalPoint:
    """Critical load alpha_c at finite size, with the amplitude A and the width of the scaling law of the
    overlap there.

    <overlap_sq_space> = A N^(-1/3) phi_r((alpha - alpha_c) N^(1/3) / width), r = p p_star, phi_r universal,
    phi_r(w) -> 2 w for w -> inf. With psi(gamma) = gamma B + F = 0 at gamma_c, alpha_c = -1/(gamma_c F), S =
    (alpha/p) E[y T] and z the spectral map,

        A = (z''^2 / (4 p))^(1/3) / S',    width = 2 A / (d overlap_sq / d alpha),    overlap_level = A
        phi_r(0).

    Parameters
    ----------
    model : Model
        Any p.

    Returns
    -------
    CriticalPoint
        ``alpha`` is alpha_bbp for a continuous transition and the principal-value alpha_0 for a discontinuous
        one, around which sizes below the crossover behave as if the transition were continuous;
        ``amplitude``; ``width`` in units of alpha N^(1/3); ``overlap_level``, the value of N^(1/3)
        <overlap_sq_space> at alpha_c. All nan where the principal-value branch has no zero, and at p = inf.

    Notes
    -----
    Limits: the law needs N^(1/3) >> width and, for a discontinuous transition, N below the crossover.
    Accuracy: alpha_c 1e-12, A and width 1e-5 relative, phi_r(0) 1 to 2 per cent (1 per cent of level moves
    the threshold by about 0.01 width N^(-1/3)); held by ``tests/test_thresholds.py``. Source: expansion of
    arXiv:2510.18435 around its threshold; phi_r(0) sampled from the block tridiagonal form of the spiked
    ensemble (Bloemendal and Virag, arXiv:1109.3704)."""
    nowhere = CriticalPoint(math.nan, math.nan, math.nan, math.nan)
    if math.isinf(model.p):
        return nowhere
    gamma = _critical_gamma(model)
    if math.isnan(gamma):
        return nowhere
    at_gamma = averages if gamma < 1 else principal_value
    h = _STEP * min(gamma, abs(gamma - 1))
    below, at, above = (at_gamma(model, x) for x in (gamma - h, gamma, gamma + h))
    p = float(model.p)

    alpha = load_on_branch(gamma, at).real
    z_second = (8 / p**3) * abs(-2 / gamma**3 - alpha * (above.B - below.B) / (2 * h))
    s_prime = (4 / p**2) * alpha * at.B_y
    amplitude = (z_second**2 / (4 * p)) ** (1 / 3) / s_prime

    overlap_sq_change = overlap_sq_on_branch(gamma + h, above) - overlap_sq_on_branch(gamma - h, below)
    slope = (overlap_sq_change / (load_on_branch(gamma + h, above) - load_on_branch(gamma - h, below))).real
    level = amplitude * CRITICAL_OVERLAP * (p * model.p_star) ** (1 / 3)
    return CriticalPoint(alpha, amplitude, 2 * amplitude / slope, level)
