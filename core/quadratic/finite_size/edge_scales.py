"""Edge and outlier seen by samples of finite size, and their scales.

Up to the crossover size a sample has no label beyond the pole of a smooth edge. It sees the edge and the
outlier that the averages have without such labels: those of the principal-value branch. Both are therefore
sought at gamma in (0, inf), with the averages themselves up to 1 and their principal values beyond.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from scipy.optimize import brentq, minimize_scalar

from bendscape.core.errors import ParameterError, as_real
from bendscape.core.quadratic.finite_size.crossover import tail_probability, window_end
from bendscape.core.quadratic.finite_size.label_fluctuations import DirectionAverages
from bendscape.core.quadratic.model import Model, as_load, refuse_noise
from bendscape.core.quadratic.theory.branch import overlap_sq_on_branch, principal_value
from bendscape.core.quadratic.theory.bulk import ROOT_TOLERANCE, reduced_map
from bendscape.core.quadratic.theory.integrals import Averages, averages
from bendscape.core.quadratic.theory.outlier import transition_at

ALL_AVERAGED = 0.8
"""Largest gamma of edge or outlier at which single labels move them no more than all the others do."""

_FIRST_STEP, _STEP_GROWTH, _FARTHEST = 1e-3, 1.15, 1e3
_APART = 1e6  # distance of an outlier from an edge that has ended, to reach the limit of the universal law


class EdgeScales(NamedTuple):
    """Edge and outlier seen at sizes below the crossover, and their scales; nan where there is none."""

    gamma_edge: float
    lambda_edge: float
    softness: float
    amplitude: float
    distance: float
    gamma_star: float
    lambda_star: float
    overlap_sq: float


def at_any_gamma(model: Model, gamma: float) -> Averages:
    """The averages at gamma > 0; principal values beyond 1."""
    return averages(model, gamma) if gamma <= 1 else principal_value(model, gamma)


def as_size(N: object) -> float:
    """Return a dimension between 2 and 1e280, not necessarily an integer, or raise ParameterError."""
    size = as_real(N)
    if not 2 <= size <= 1e280:
        raise ParameterError("N", N, "a number between 2 and 1e280")
    return size


def as_point(alpha: object, N: object) -> tuple[float, float]:
    """Return load and dimension as floats, with at least one sample, or raise ParameterError."""
    size, load = as_size(N), as_load(alpha)
    if load * size < 1:
        raise ParameterError(
            "alpha", alpha, f"at least 1/N = {1 / size:g} at N = {size:g}", "raise alpha or N"
        )
    return load, size


@lru_cache(maxsize=4096)
def edge_scales(model: Model, alpha: float) -> EdgeScales:
    """Edge and outlier of the averages continued past gamma = 1, with their finite-size scales.

    The edge solves alpha gamma^2 B = 1. There z'' = -(8/p^3)(2/gamma^3 + alpha B'), C = sqrt(2/|z''|), S' =
    (4/p^2) alpha B_y, the overlap's amplitude A = (z''^2/(4 p))^(1/3)/S', and the distance w N^(-1/3) from
    criticality is

        w = m^2 N^(1/3)/(2 A) with an outlier of overlap m^2,
        w = -N^(1/3) |lambda_edge - S| (A p/S')^(1/2) without one.

    This choice makes both limits of the universal law exact: m^2 above threshold, and below it the overlap
    p_star S'/(N (lambda_edge - S)^2) of an eigenvector at the edge.

    Parameters
    ----------
    model : Model
        Finite p.
    alpha : float
        Samples per dimension, > 0.

    Returns
    -------
    EdgeScales
        ``gamma_edge``, ``lambda_edge`` (inside a smooth edge above 1, and above lambda_minus), ``softness``
        C, ``amplitude`` A, ``distance`` w N^(-1/3); ``gamma_star``, ``lambda_star`` and ``overlap_sq`` of the
        outlier. Where the continued edge has ended (z'' = 0), its position and softness are nan, and an
        outlier that remains, down to alpha_0, is far from any edge: m^2 = 2 A w N^(-1/3) with w in its limit.
        All are nan if there is no outlier either; such samples see the tail of the bulk at every size.

    Notes
    -----
    For gamma <= 1 these are lambda_minus, lambda_star and overlap_sq. Accuracy 1e-10 relative, held by
    ``tests/test_edge_law.py``. Source: this project's own; heuristic beyond gamma = 1.
    """
    refuse_noise(model, "the finite-size laws")
    if math.isinf(model.p):
        raise ParameterError("p", model.p, "finite at finite N", "at p = inf N is infinite by construction")
    alpha, p = as_load(alpha), float(model.p)
    edge = _continued_edge(model, alpha)
    if math.isnan(edge):
        return _without_edge(model, alpha)
    at_edge = at_any_gamma(model, edge)
    lambda_edge = reduced_map(model, alpha, edge, at_edge)
    z_second, S_prime = _slopes(model, alpha, edge, at_edge)
    if not z_second > 0:
        return _without_edge(model, alpha)
    amplitude = (z_second**2 / (4 * p)) ** (1 / 3) / S_prime
    star, lambda_star, overlap_sq = math.nan, math.nan, math.nan
    gap = (2 / p) * _past_outlier(model, alpha, edge) / edge  # lambda_edge - S
    if gap > 0:
        star, lambda_star, overlap_sq = _outlier_before(model, alpha, edge)
        lambda_star = min(lambda_edge, lambda_star)
        distance = overlap_sq / (2 * amplitude)
    else:
        distance = gap * math.sqrt(amplitude * p / S_prime)
    return EdgeScales(
        edge, lambda_edge, math.sqrt(2 / z_second), amplitude, distance, star, lambda_star, overlap_sq
    )


def _past_outlier(model: Model, alpha: float, gamma: float) -> float:
    return -alpha * gamma * float(at_any_gamma(model, gamma).F) - 1


def _outlier_before(model: Model, alpha: float, gamma: float) -> tuple[float, float, float]:
    """gamma, position and overlap of the outlier that lies before the given gamma."""
    star = float(brentq(lambda x: _past_outlier(model, alpha, x), 0.0, gamma, **ROOT_TOLERANCE))
    at_star = at_any_gamma(model, star)
    overlap_sq = max(0.0, overlap_sq_on_branch(star, at_star).real)
    return star, reduced_map(model, alpha, star, at_star), overlap_sq


def _without_edge(model: Model, alpha: float) -> EdgeScales:
    """Scales of an outlier without an edge, before gamma = 1 or on the branch beyond; all nan without one."""
    nowhere = math.nan
    ends = [1.0]
    if transition_at(model).kind == "discontinuous":
        ends.append(window_end(model)[0])
    for end in ends:
        if _past_outlier(model, alpha, end) > 0:
            star, lambda_star, overlap_sq = _outlier_before(model, alpha, end)
            amplitude = overlap_sq / (2 * _APART)
            return EdgeScales(nowhere, nowhere, nowhere, amplitude, _APART, star, lambda_star, overlap_sq)
    return EdgeScales(*[nowhere] * 8)


def outermost(scales: EdgeScales) -> float:
    """gamma of the outlier, or of the edge if there is no outlier; nan if the averages have neither."""
    return scales.gamma_edge if math.isnan(scales.gamma_star) else scales.gamma_star


def share_of_drawn(scales: EdgeScales) -> float:
    """Weight of the law with drawn extreme labels relative to that of averages; 1 inside a smooth edge.

    Before it both laws hold. The weight decreases linearly in gamma to 0 at ``ALL_AVERAGED``, so that the
    result has no step.
    """
    gamma = outermost(scales)
    return 1.0 if math.isnan(gamma) else min(1.0, max(0.0, (gamma - ALL_AVERAGED) / (1 - ALL_AVERAGED)))


def hidden(model: Model, alpha: float, gamma: float, size: float) -> float:
    """kappa, the expected number of sample directions beyond the pole at gamma; nan for gamma = nan."""
    return gamma if math.isnan(gamma) else size * alpha * tail_probability(model, gamma) if gamma > 1 else 0.0


def critical_scales(model: Model, alpha: float, gamma: float) -> tuple[float, float]:
    """Amplitude A and width of the law of the overlap around a threshold at this load and gamma.

    At a threshold the edge meets the outlier, alpha gamma^2 B = 1 = -alpha gamma F. With gap = lambda_edge -
    S and d gamma/d alpha = -(8/p^3) B/|z''| of the edge,

        1/width = (d gap/d alpha) (A p/S')^(1/2),
        d gap/d alpha = (2/p) (1/(alpha gamma) + alpha B_y d gamma/d alpha).

    Returns
    -------
    amplitude, width : float
        The distance of :func:`edge_scales` is (alpha - alpha_c)/width to first order, from both sides.

    Notes
    -----
    Accuracy 1e-9 relative. Held by ``tests/test_edge_law.py`` against edge and outlier nearby. Source: this
    project's own.
    """
    at, p = at_any_gamma(model, gamma), float(model.p)
    z_second, S_prime = _slopes(model, alpha, gamma, at)
    amplitude = (z_second**2 / (4 * p)) ** (1 / 3) / S_prime
    of_edge = -(8 / p**3) * float(at.B) / z_second
    of_gap = (2 / p) * (1 / (alpha * gamma) + alpha * float(at.B_y) * of_edge)
    return amplitude, 1 / (of_gap * math.sqrt(amplitude * p / S_prime))


def _slopes(model: Model, alpha: float, gamma: float, at: Averages) -> tuple[float, float]:
    """|z''| and S', derivatives with respect to g."""
    p = float(model.p)
    B_prime = -2 * DirectionAverages(model, gamma).single((1 - 1 / p, 1 / p), 3)
    z_second = (8 / p**3) * (2 / gamma**3 + alpha * B_prime)
    return z_second, (4 / p**2) * alpha * float(at.B_y)


@lru_cache(maxsize=1024)
def continued_edge_end(model: Model) -> tuple[float, float]:
    """gamma and load at which the continued edge ends: the first minimum of its load 1/(gamma^2 B).

    There z'' = 0. Solutions of the equation of the edge beyond this gamma are not edges of any sample.
    """

    def load(gamma: float) -> float:
        B = float(at_any_gamma(model, gamma).B)
        return 1 / (gamma * gamma * B) if B > 0 else math.inf

    before, here, step = 1.0, 1.0, _FIRST_STEP
    while step < _FARTHEST and load(1 + step) < load(here):
        before, here, step = here, 1 + step, step * _STEP_GROWTH
    found = minimize_scalar(load, bounds=(before, 1 + step), method="bounded", options={"xatol": 1e-9})
    return float(found.x), float(found.fun)


def _continued_edge(model: Model, alpha: float) -> float:
    """The gamma > 0 at which alpha gamma^2 B = 1, with principal values beyond 1; nan if there is none."""

    def past_edge(gamma: float) -> float:
        B = float(at_any_gamma(model, gamma).B)
        return 1 / math.sqrt(alpha * B) - gamma if B > 0 else gamma

    if past_edge(1.0) <= 0:
        return float(brentq(past_edge, 0.0, 1.0, **ROOT_TOLERANCE))
    end, least = continued_edge_end(model)
    if not least < alpha:
        return math.nan
    return float(brentq(past_edge, 1.0, end, **ROOT_TOLERANCE))
