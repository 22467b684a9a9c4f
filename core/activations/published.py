"""Theory of any network as one record: both sectors, and which of them shows first."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from bendscape.core.activations.activation import Network
from bendscape.core.activations.quadrature import check_widths
from bendscape.core.activations.sectors import SECTORS, check_sectors, sector_spectrum, sector_thresholds
from bendscape.core.activations.theory import check_even, even_spectrum, even_transition
from bendscape.core.errors import ParameterError

TRANSITION_KINDS = ("continuous", "discontinuous", "none", "unknown")
"""Kinds of transition; none: no outlier leaves the bulk at any load; unknown: no theory for this network."""


BESIDE = 2e-3
"""Relative distance from alpha_bbp of the loads that give the tangent."""


class Thresholds(NamedTuple):
    """Thresholds of both sectors, nan where there is none; ``alpha_bbp`` is the lower, with its kind and its
    error of quadrature. At p = 1, and for even students, both sectors are one. ``alpha_0_tangent`` is where
    the tangent to the squared overlap just above alpha_bbp vanishes: alpha_bbp for a continuous
    transition, about where sizes below the crossover show a discontinuous one."""

    alpha_bbp: float
    alpha_bbp_error: float
    alpha_bbp_symmetric: float
    alpha_bbp_relative: float
    alpha_0_tangent: float
    transition: str


class Outliers(NamedTuple):
    """Edge and outliers at one load; ``lambda_star`` is the lower outlier, and ``overlap_sq`` the overlap of
    its vectors. nan where there is no outlier, or no theory. ``error`` is the largest error of quadrature."""

    edge: str
    lambda_minus: float
    lambda_star: float
    overlap_sq: float
    lambda_star_symmetric: float
    lambda_star_relative: float
    overlap_sq_symmetric: float
    overlap_sq_relative: float
    error: float


_NAN = math.nan
NO_THRESHOLDS = Thresholds(_NAN, _NAN, _NAN, _NAN, _NAN, "unknown")
NO_OUTLIERS = Outliers("sharp", _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN)


def check_theory(network: Network) -> None:
    """Refuse networks without a theory; there is one for an even teacher and an even student of any width up
    to 64 or infinite, p = 1, or any student of p = 2 to 4."""
    if is_split(network):
        check_widths(network)
        check_sectors(network)
    else:
        check_even(network)


def has_theory(network: Network) -> bool:
    """Whether :func:`check_theory` accepts it."""
    try:
        check_theory(network)
    except ParameterError:
        return False
    return True


def is_split(network: Network) -> bool:
    """Whether the symmetric and the relative sector differ."""
    return network.p > 1 and not network.student.even


@lru_cache(maxsize=4096)
def thresholds_of(network: Network | None) -> Thresholds:
    """Thresholds of a network, unknown where there is no theory (or no such network)."""
    if network is None or not has_theory(network):
        return NO_THRESHOLDS
    if is_split(network):
        sectors = [sector_thresholds(network)[name] for name in SECTORS]
        first = min(sectors, key=lambda of: math.inf if math.isnan(of.alpha_bbp) else of.alpha_bbp)
        symmetric, relative = (of.alpha_bbp for of in sectors)
        load, error, kind = first.alpha_bbp, first.alpha_bbp_error, first.kind
    else:
        even = even_transition(network)
        load, error, kind = even.alpha_bbp, even.alpha_bbp_error, even.kind
        symmetric = relative = load
    shown = _tangent(network, load) if kind == "discontinuous" else load
    return Thresholds(load, error, symmetric, relative, shown, kind)


def typical_threshold(network: Network) -> float:
    """At p = inf the threshold where the student's output is at its mean, which is below alpha_bbp where rare
    outputs hold the edge; nan at finite p, and where there is none or no theory.

    Source: :func:`bendscape.core.activations.theory.even_transition`, with ``typical``.
    """
    if math.isfinite(network.p) or not has_theory(network):
        return math.nan
    try:
        return even_transition(network, typical=True).alpha_bbp
    except ParameterError:  # no weight is negative where outputs are at their mean
        return math.nan


def _tangent(network: Network, load: float) -> float:
    """alpha_bbp - m^2/(d m^2/d alpha) just above alpha_bbp, from two loads there."""
    near, far = (outliers_of(network, load * (1 + step)).overlap_sq for step in (BESIDE, 2 * BESIDE))
    return load * (1 + BESIDE * (1 - near / (far - near)))


@lru_cache(maxsize=2**14)
def outliers_of(network: Network | None, alpha: float) -> Outliers:
    """Edge and outliers of a network at one load, nan where there is no theory (or no such network)."""
    if network is None or not has_theory(network):
        return NO_OUTLIERS
    if not is_split(network):
        at = even_spectrum(network, alpha)
        star, overlap = at.lambda_star, at.overlap_sq
        error = _largest(at.lambda_minus_error, at.lambda_star_error, at.overlap_sq_error)
        return Outliers(at.edge, at.lambda_minus, star, overlap, star, star, overlap, overlap, error)
    found = sector_spectrum(network, alpha)
    one, other = found.symmetric, found.relative
    first = other if math.isnan(one.lambda_star) or other.lambda_star < one.lambda_star else one
    return Outliers(
        found.edge,
        found.lambda_minus,
        first.lambda_star,
        first.overlap_sq,
        one.lambda_star,
        other.lambda_star,
        one.overlap_sq,
        other.overlap_sq,
        _largest(found.lambda_minus_error, *one[2:], *other[2:]),
    )


def _largest(*errors: float) -> float:
    return max((error for error in errors if not math.isnan(error)), default=math.nan)
