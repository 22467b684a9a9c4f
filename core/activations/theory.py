"""Theory as N goes to infinity for even activations: edge, outlier, overlap and threshold.

With T(g) = tr D (1 - g D)^-1 and u one of the teacher's pre-activations:

- bulk map z(g) = 1/g + (alpha/p) E[T(g)] for g in (1/inf d, 0);
- the left edge is at z'(g) = 0 (sharp), or at g = 1/inf d if there is no zero (smooth);
- the outlier solves 1/g = (alpha/p) E[(u^2 - 1) T(g)];
- m^2 = 1/(1 - S'(g)/z'(g)) with S = (alpha/p) E[u^2 T].

Source: arXiv:2510.18435 for the square, extended to other even activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from bendscape.core.activations.activation import Network
from bendscape.core.activations.averages import Averages, check_even, least_weight, rule
from bendscape.core.errors import as_positive

EDGE = 1 - 1e-9
"""The smooth edge is evaluated at this fraction of 1/inf d, where no denominator vanishes."""

SCAN = 24
"""Points between zero and 1/inf d where signs are compared before a root is refined."""

COARSE = 0.75
"""Share of the nodes in the rule that the error estimate compares with."""


class EvenSpectrum(NamedTuple):
    """Edge and outlier at one load; the outlier is nan where there is none. Errors are of quadrature."""

    lambda_minus: float
    edge: str
    lambda_star: float
    overlap_sq: float
    lambda_minus_error: float
    lambda_star_error: float
    overlap_sq_error: float


class EvenTransition(NamedTuple):
    """The threshold, its kind, and its error of quadrature; nan and "none" where no outlier ever appears."""

    alpha_bbp: float
    kind: str
    alpha_sharp: float
    alpha_bbp_error: float


def even_spectrum(network: Network, alpha: float) -> EvenSpectrum:
    """Left edge and outlier of an even network at load alpha.

    Parameters
    ----------
    network : Network
        Even student and teacher; p at most 4.
    alpha : float
        Samples per dimension, > 0.

    Returns
    -------
    EvenSpectrum
        Eigenvalues in the units of H, overlap in [0, 1]. The errors are the differences to a rule with three
        quarters of the nodes.

    Raises
    ------
    ParameterError
        An activation is not even, p is above 4, or the spectrum has no left edge.
    """
    check_even(network)
    load = as_positive("alpha", alpha) / network.p
    end = EDGE / least_weight(network)
    fine, coarse = (_spectrum(rule(network, share), load, end) for share in (1.0, COARSE))
    return EvenSpectrum(*fine, abs(fine[0] - coarse[0]), abs(fine[2] - coarse[2]), abs(fine[3] - coarse[3]))


def even_transition(network: Network) -> EvenTransition:
    """Threshold alpha_bbp of an even network.

    Continuous where g E[T'] = E[(u^2 - 1) T] has a root g in (1/inf d, 0), then alpha_bbp = p/(g E[(u^2 - 1)
    T]); discontinuous otherwise, with g = 1/inf d.

    Parameters
    ----------
    network : Network
        Even student and teacher; p at most 4.

    Returns
    -------
    EvenTransition
        In samples per dimension; below alpha_sharp the edge is smooth.

    Raises
    ------
    ParameterError
        As :func:`even_spectrum`.
    """
    check_even(network)
    end = EDGE / least_weight(network)
    fine, coarse = (_transition(rule(network, share), network.p, end) for share in (1.0, COARSE))
    return EvenTransition(*fine, abs(fine[0] - coarse[0]))


def _first_root(function: Callable[[float], float], end: float) -> float:
    """The root of a function of g nearest to zero in (end, 0), or nan."""
    grid = end * np.linspace(1e-3, 1, SCAN)
    before, before_value = float(grid[0]), function(float(grid[0]))
    for g in map(float, grid[1:]):
        value = function(g)
        if before_value * value <= 0:
            return float(brentq(function, before, g, xtol=1e-13))
        before, before_value = g, value
    return math.nan


def _spectrum(
    averages: Callable[[float], Averages], load: float, end: float
) -> tuple[float, str, float, float]:
    edge = _first_root(lambda g: load * g * g * averages(g).slope - 1, end)
    kind = "smooth" if math.isnan(edge) else "sharp"
    last = end if math.isnan(edge) else edge
    lambda_minus = 1 / last + load * averages(last).trace

    def outlier(g: float) -> float:
        found = averages(g)
        return load * g * (found.teacher_trace - found.trace) - 1

    g = _first_root(outlier, last)
    if math.isnan(g):
        return lambda_minus, kind, math.nan, math.nan
    found = averages(g)
    slope = load * found.slope - 1 / g**2
    return lambda_minus, kind, 1 / g + load * found.trace, slope / (slope - load * found.teacher_slope)


def _transition(averages: Callable[[float], Averages], p: int, end: float) -> tuple[float, str, float]:
    def signal(g: float) -> float:
        found = averages(g)
        return found.teacher_trace - found.trace

    alpha_sharp = p / (end**2 * averages(end).slope)
    g = _first_root(lambda g: g * averages(g).slope - signal(g), end)
    kind = "discontinuous" if math.isnan(g) else "continuous"
    last = end if math.isnan(g) else g
    weight = last * signal(last)
    if weight <= 0:
        return math.nan, "none", alpha_sharp
    return p / weight, kind, alpha_sharp
