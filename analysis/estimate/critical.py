"""The overlap expected at the critical load, which is the level at which a threshold is read off for one
size.

Where an outlier appears continuously, the lowest eigenpairs follow the universal law of r = p p_star critical
spikes at the edge of a real symmetric random matrix. The model enters only through an amplitude and a width
in alpha, and both follow from the expansion of the theory around the critical g."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from bendscape.core.quadratic.finite_size.edge_scales import at_any_gamma, critical_scales
from bendscape.core.quadratic.finite_size.spiked_edge import critical_overlap
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.branch import load_on_branch, principal_value_end
from bendscape.core.quadratic.theory.outlier import transition_at

SAFE = 10.0
"""Sizes up to the crossover size divided by this show a critical load; there an extreme label hides one
overlap in ten."""


class CriticalPoint(NamedTuple):
    """The load where the residual overlap appears at sizes below the crossover, and the scales of its
    finite-size law."""

    alpha: float
    amplitude: float
    width: float
    overlap_level: float


def _critical_gamma(model: Model) -> float:
    """Zero of psi: in (0, 1) for a continuous transition, above 1 on the principal-value branch for a
    discontinuous one; nan if there is none."""
    at_bbp = transition_at(model)
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
    Accuracy: alpha_c 1e-12, A and width 1e-9 relative, phi_r(0) 1 per cent for r = 1, else 2 (1 per cent of
    level moves the threshold by about 0.01 width N^(-1/3)); held by ``tests/test_thresholds.py``. Source:
    :func:`bendscape.core.quadratic.finite_size.edge_scales.critical_scales` and
    :mod:`bendscape.core.quadratic.finite_size.spiked_edge`."""
    nowhere = CriticalPoint(math.nan, math.nan, math.nan, math.nan)
    if math.isinf(model.p):
        return nowhere
    gamma = _critical_gamma(model)
    if math.isnan(gamma):
        return nowhere
    alpha = load_on_branch(gamma, at_any_gamma(model, gamma)).real
    amplitude, width = critical_scales(model, alpha, gamma)
    return CriticalPoint(
        alpha, amplitude, width, amplitude * critical_overlap(0.0, int(model.p) * model.p_star)
    )
