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
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from bendscape.core.activations.activation import Network
from bendscape.core.activations.averages import Averages, averages, sample_averages
from bendscape.core.activations.quadrature import Rules, check_widths, rules_of
from bendscape.core.activations.weight import Weight, least_weight
from bendscape.core.errors import ParameterError, as_positive

FloatArray = npt.NDArray[np.float64]
At = Callable[[float], Averages]

EDGE = 1 - 1e-9
"""The smooth edge is evaluated at this fraction of 1/inf d, where no denominator vanishes."""

SCAN = 24
"""Points between zero and 1/inf d where signs are compared before a root is refined."""


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


def check_even(network: Network) -> None:
    """Refuse networks that this theory is not for: a teacher that is not even, a student of p > 1 that is
    not, and widths without a quadrature."""
    check_widths(network)
    if network.p > 1 and not network.student.even:
        raise ParameterError(
            "activation", network.activation, "an even activation for this theory at p > 1", "use the sectors"
        )


@lru_cache(maxsize=16)
def _averages(network: Network, typical: bool) -> tuple[Rules, At, tuple[At, ...], float]:
    check_even(network)
    rules = rules_of(network)
    end = EDGE / least_weight(network, typical=typical)
    return rules, averages(network, rules.best), tuple(averages(network, of) for of in rules.others), end


def even_spectrum(network: Network, alpha: float, *, typical: bool = False) -> EvenSpectrum:
    """Left edge and outlier of an even network at load alpha.

    Parameters
    ----------
    network : Network
        Even teacher; even student, or p = 1. p at most 64, or inf.
    alpha : float
        Samples per dimension, > 0.
    typical : bool
        As in :func:`even_transition`.

    Returns
    -------
    EvenSpectrum
        Eigenvalues in the units of H, at p = inf of p H; overlap in [0, 1]. The errors are the largest
        differences to two coarser rules or, for 4 < p < inf, standard errors over scramblings.

    Raises
    ------
    ParameterError
        As :func:`check_even`, or the spectrum has no left edge, or ``typical`` at finite p.
    """
    rules, best, others, end = _averages(network, typical)
    load = as_positive("alpha", alpha) / (1 if math.isinf(network.p) else network.p)
    fine, rough = _spectrum(best, load, end), [_spectrum(other, load, end) for other in others]
    errors = (rules.error(float(fine[k]), [float(each[k]) for each in rough]) for k in (0, 2, 3))
    return EvenSpectrum(*fine, *errors)


def even_transition(network: Network, *, typical: bool = False) -> EvenTransition:
    """Threshold alpha_bbp of an even network.

    Continuous where g E[T'] = E[(u^2 - 1) T] has a root g in (1/inf d, 0), then alpha_bbp = p/(g E[(u^2 - 1)
    T]); discontinuous otherwise, with g = 1/inf d.

    Parameters
    ----------
    network : Network
        As for :func:`even_spectrum`.
    typical : bool
        At p = inf, which limit: by default that of alpha_bbp(p), N -> inf before p -> inf; else the other
        order, where the student's output is at its mean and rare outputs do not hold the edge. The two agree
        where p inf d does (:func:`bendscape.core.activations.weight.least_weight`), as for an unbounded
        teacher and a student that bends upwards only. Hessians of N far below exp(c p) show the second.

    Returns
    -------
    EvenTransition
        In samples per dimension; below alpha_sharp the edge is smooth.

    Raises
    ------
    ParameterError
        As :func:`even_spectrum`.
    """
    rules, best, others, end = _averages(network, typical)
    width = 1.0 if math.isinf(network.p) else float(network.p)
    fine, rough = _transition(best, width, end), [_transition(other, width, end)[0] for other in others]
    return EvenTransition(*fine, rules.error(fine[0], rough))


class SampleTheory(NamedTuple):
    """Edge, outlier and overlap for one cell's own samples; the last two nan where there is no outlier."""

    edge_sample: float
    outlier_sample: float
    overlap_sq_sample: float


def sample_theory(weight: Weight, u_sq: FloatArray, N: int) -> SampleTheory:
    """The theory with every average replaced by the mean over one cell's M samples.

    Parameters
    ----------
    weight : Weight
        v and e of shape (p, M).
    u_sq : array, shape (M,)
        Mean over l of u_l^2 of each sample.
    N : int
        Input dimension.

    Returns
    -------
    SampleTheory
        In the units of H. This edge is always sharp; nan where no sample has a negative weight.

    Notes
    -----
    Held by ``tests/test_activations.py`` against the conditional theory of the square.
    """
    p, count = weight.e.shape
    least = _least_of(weight)
    if least >= 0:
        return SampleTheory(math.nan, math.nan, math.nan)
    found = _spectrum(sample_averages(weight, u_sq), count / (p * N), (1 - 1e-12) / least)
    return SampleTheory(found[0], found[2], found[3])


def sample_transition(weight: Weight, u_sq: FloatArray) -> float:
    """The load alpha_bbp at which the theory with every average over M drawn samples has an outlier.

    This is about what Hessians of N = M/alpha show: rarer samples do not hold their edge.

    Parameters
    ----------
    weight, u_sq
        As for :func:`sample_theory`.

    Returns
    -------
    float
        In samples per dimension; nan where there is no outlier at any load.
    """
    least = _least_of(weight)
    if least >= 0:
        return math.nan
    return _transition(sample_averages(weight, u_sq), float(len(weight.e)), (1 - 1e-12) / least)[0]


def _least_of(weight: Weight) -> float:
    """Lowest eigenvalue of D among samples: none is below its lowest e, or above any e + v^2."""
    v, e = weight
    low = e.min(axis=0) <= (e + v * v).min()
    d = v[:, None, low] * v[None, :, low]
    d[np.arange(len(e)), np.arange(len(e))] += e[:, low]
    return float(np.linalg.eigvalsh(d.transpose(2, 0, 1))[:, 0].min())


def _first_root(function: Callable[[float], float], end: float, last: float) -> float:
    """The root of a function of g nearest to zero in (last, 0), or nan; scanned where other loads are."""
    grid = [g for g in map(float, end * np.linspace(1e-3, 1, SCAN)) if g > last] + [last]
    before, before_value = grid[0], function(grid[0])
    for g in grid[1:]:
        value = function(g)
        if before_value * value <= 0:
            return float(brentq(function, before, g, xtol=1e-13))
        before, before_value = g, value
    return math.nan


def _spectrum(averages: At, load: float, end: float) -> tuple[float, str, float, float]:
    edge = _first_root(lambda g: load * g * g * averages(g).slope - 1, end, end)
    kind = "smooth" if math.isnan(edge) else "sharp"
    last = end if math.isnan(edge) else edge
    lambda_minus = 1 / last + load * averages(last).trace

    def outlier(g: float) -> float:
        found = averages(g)
        return load * g * (found.teacher_trace - found.trace) - 1

    g = _first_root(outlier, end, last)
    if math.isnan(g):
        return lambda_minus, kind, math.nan, math.nan
    found = averages(g)
    slope = load * found.slope - 1 / g**2
    return lambda_minus, kind, 1 / g + load * found.trace, slope / (slope - load * found.teacher_slope)


def _transition(averages: At, width: float, end: float) -> tuple[float, str, float]:
    def signal(g: float) -> float:
        found = averages(g)
        return found.teacher_trace - found.trace

    alpha_sharp = width / (end**2 * averages(end).slope)
    g = _first_root(lambda g: g * averages(g).slope - signal(g), end, end)
    kind = "discontinuous" if math.isnan(g) else "continuous"
    last = end if math.isnan(g) else g
    weight = last * signal(last)
    if weight <= 0:
        return math.nan, "none", alpha_sharp
    return width / weight, kind, alpha_sharp
