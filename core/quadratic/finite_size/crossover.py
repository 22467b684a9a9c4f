"""What a sample of size N shows of a discontinuous transition.

Inside a smooth edge the density is exponentially small. A sample in which no label falls into the part of the
tail beyond the outlier cannot distinguish the outlier from an isolated eigenvalue. The threshold that it
shows is therefore not alpha_bbp but the lower load at which that part of the tail holds about one eigenvalue
in N.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import gammaincc, gammaln

from bendscape.core.errors import ParameterError, as_real
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.branch import (
    complex_root,
    load_on_branch,
    principal_value,
    principal_value_end,
)
from bendscape.core.quadratic.theory.integrals import RAY, averages
from bendscape.core.quadratic.theory.outlier import transition_at

FloatArray = npt.NDArray[np.float64]

LARGEST_SIZE = 1e280
"""Largest dimension: beyond it the probability of one sample in N is no longer a normal double."""

_SMALLEST = 1e-300  # smaller probabilities are replaced by this; no N reaches them


def tail_probability(model: Model, gamma: float) -> float:
    """Expected number of directions of one sample beyond the pole, sum_c P(D_c < 0).

    D_c = a + (1 - gamma) y + gamma c yhat is negative where y exceeds (a + gamma c yhat)/(gamma - 1): an
    incomplete gamma function of yhat, averaged over yhat by the trapezoidal rule in log yhat around the
    tilted mean.

    Parameters
    ----------
    model : Model
        Finite p.
    gamma : float
        Reduced Stieltjes variable, > 1.

    Returns
    -------
    float
        Between 0 and p.

    Notes
    -----
    Limits: 0 as gamma -> 1. Accuracy 1e-12 relative; held by ``tests/test_finite_size.py``. Source: this
    project's own.
    """
    total = 0.0
    for c, count in ((1.0, model.p - 1), (3.0, 1)):
        if count:
            total += count * float(tail_nodes(model, gamma, c)[1].sum())
    return total


def tail_nodes(model: Model, gamma: float, c: float) -> tuple[FloatArray, FloatArray]:
    """Values of yhat, equidistant in log yhat, and the joint probability of each with D_c < 0."""
    n, m = model.p_star / 2, model.p / 2
    rate = n / (1 + model.noise)
    step = 0.2 / math.sqrt(1 + m)
    width = 40 / m + math.sqrt(80 / m)
    # gammaincc decreases like exp(-tilt yhat); multiplied by the density of yhat it peaks at m/(m + tilt).
    tilt = rate * gamma * c / (gamma - 1)
    yhat = m / (m + tilt) * np.exp(np.arange(-width, math.log1p(width), step))
    log_density = m * np.log(m * yhat) - m * yhat - gammaln(m)
    first = rate * (model.a + gamma * c * yhat) / (gamma - 1)
    alike = (
        int(np.searchsorted(first, first[0], "right")) - 1
    )  # where yhat is lost in rounding: half of p = 1
    beyond = np.full(len(first), gammaincc(n, first[0]))
    beyond[alike:] = gammaincc(n, first[alike:])
    return yhat, step * np.exp(log_density) * beyond


@lru_cache(maxsize=1024)
def window_end(model: Model) -> tuple[float, float]:
    """gamma and load at the end of the pre-critical window on the principal-value branch (alpha_0).

    If that branch has no zero: the point at which its load equals the real part of the complex alpha_0 or, if
    its load stays above that, the point of its lowest load.
    """
    gamma, reached = principal_value_end(model)
    load = load_on_branch(gamma, principal_value(model, gamma)).real
    if reached:
        return gamma, load
    root = complex_root(model)
    floor = load_on_branch(root, averages(model, root, ray=RAY)).real
    if floor <= load:
        return gamma, load

    def above_floor(x: float) -> float:
        return load_on_branch(x, principal_value(model, x)).real - floor

    return float(brentq(above_floor, 1.0, gamma, xtol=1e-14, rtol=1e-14)), floor


def _log_expected(model: Model, gamma: float) -> float:
    """log of alpha(gamma) sum_c P(D_c < 0), the expected number of directions beyond the outlier over N."""
    load = load_on_branch(gamma, principal_value(model, gamma)).real
    return math.log(max(load * tail_probability(model, gamma), _SMALLEST))


def alpha_bbp_at_size(model: Model, N: float) -> float:
    """Threshold alpha_bbp(N) that samples of dimension N show.

    Continuous transition: alpha_bbp. Discontinuous: the load alpha(gamma) on the principal-value branch,
    gamma > 1, at which N alpha sum_c P(D_c < 0) = 1; if N is too small for a solution, alpha_0, where the
    branch ends.

    Parameters
    ----------
    model : Model
        Any p; nan for p = inf, where N is infinite by construction.
    N : float
        Dimension, from 1 to 1e280.

    Returns
    -------
    float
        A load in [alpha_0, alpha_bbp]: below it samples of this size show no overlap with the teacher, above
        it they do. If alpha_0 has no principal value, it is replaced by the real part of the complex alpha_0
        or by the lowest load of the branch, whichever is higher.

    Raises
    ------
    ParameterError
        N is outside this range.

    Notes
    -----
    Limits: alpha_0 up to :func:`crossover_size`, then an increase towards alpha_bbp, at a distance that
    decreases only like 1/log N. Accuracy of the equation's solution 1e-9; the law itself is the leading order
    in log N.
    Held by ``tests/test_finite_size.py``. Source: this project's own, from the exact tail of the
    principal-value branch.
    """
    size = as_real(N)
    if not 1 <= size <= LARGEST_SIZE:
        raise ParameterError("N", N, f"a number between 1 and {LARGEST_SIZE:g}")
    if math.isinf(model.p):
        return math.nan
    at_bbp = transition_at(model)
    if at_bbp.kind == "continuous":
        return at_bbp.alpha_bbp
    end, alpha_end = window_end(model)

    def excess(log_step: float) -> float:
        return math.log(size) + _log_expected(model, 1 + math.exp(log_step))

    high = math.log(end - 1)
    if excess(high) <= 0:
        return alpha_end
    low = high
    while excess(low) > 0:
        low -= 1.0
    gamma = 1 + math.exp(float(brentq(excess, low, low + 1.0, xtol=1e-13, rtol=1e-13)))
    return load_on_branch(gamma, principal_value(model, gamma)).real


def seen_at_size(model: Model, N: float) -> str:
    """The meaning of :func:`alpha_bbp_at_size` at this N, in words.

    "alpha_bbp" for a continuous transition; for a discontinuous one "alpha_0" up to the crossover size, and
    "threshold seen, between alpha_0 and alpha_bbp" beyond; "no threshold" at p = inf.
    """
    if math.isinf(model.p):
        return "no threshold"
    if transition_at(model).kind == "continuous":
        return "alpha_bbp"
    climbing = alpha_bbp_at_size(model, N) > window_end(model)[1]
    return "threshold seen, between alpha_0 and alpha_bbp" if climbing else "alpha_0"


def crossover_size(model: Model) -> float:
    """Size N_x up to which a discontinuous transition looks like a continuous one at alpha_0.

    N_x = 1/(alpha_0 sum_c P(D_c < 0)) at the end of the principal-value branch.

    Parameters
    ----------
    model : Model
        Finite p; nan for p = inf.

    Returns
    -------
    float
        A dimension; inf for a continuous transition, which looks the same at every size.

    Notes
    -----
    Below N_x samples behave as if the edge were sharp and alpha_0 the threshold; above it the threshold
    increases with N. An order of magnitude, held by ``tests/test_finite_size.py``. Source: this project's
    own.
    """
    if math.isinf(model.p):
        return math.nan
    if transition_at(model).kind == "continuous":
        return math.inf
    return math.exp(-_log_expected(model, window_end(model)[0]))
