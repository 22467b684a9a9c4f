"""Independent patterns at N = infinity: mean stabilities of the rules, and what Hebb's couplings retrieve."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import erf, expit

from bendscape.core.errors import as_positive
from bendscape.core.memory.patterns import FloatArray
from bendscape.core.numerics.gaussian import gaussian_mean
from bendscape.core.numerics.logistic import logistic_kinks, logistic_step

_LEAST = 1e-8
"""Regularisation over beta^2 from which the theory of the pseudo-likelihood is given."""


def hebb_stability(alpha: float) -> float:
    """Mean stability of Hebb's rule, alpha^(-1/2): fields 1 + Gaussian noise, rows of norm (alpha)^(1/2)."""
    return 1 / math.sqrt(as_positive("alpha", alpha))


def pseudo_inverse_stability(alpha: float) -> float:
    """Every stability of the pseudo-inverse rule, ((1 - alpha)/alpha)^(1/2); nan for alpha >= 1.

    Derived in :func:`bendscape.core.memory.rules.pseudo_inverse`."""
    alpha = as_positive("alpha", alpha)
    return math.sqrt((1 - alpha) / alpha) if alpha < 1 else math.nan


def pseudo_likelihood_stability(alpha: float, beta: float, regularisation: float) -> float:
    """Mean stability at the largest regularised pseudo-likelihood.

    With l(h) = log(1 + exp(-2 beta h)), h(x) the minimiser of l(h) + (h - x)^2/(2 V), x = q^(1/2) t and t
    standard Gaussian,

        1 - lambda V = alpha E[1 - dh/dx],    q = alpha E[(h - x)^2],    stability = E[h]/q^(1/2).

    Parameters
    ----------
    alpha, beta, regularisation : float
        > 0; as of :func:`bendscape.core.memory.pseudo_likelihood.pseudo_likelihood`.

    Returns
    -------
    float
        To 1e-9, by trapezoidal rules of 60,001 nodes for 0.1 <= alpha <= 4 and regularisation/beta^2 of 1e-7
        to 1e3; nan below 1e-8. Held by ``tests/test_memory.py``, by sampling too.

    Notes
    -----
    The replica-symmetric equations of a ridge-regularised convex loss; for independent patterns the labels of
    a neuron are independent of its inputs. They are exact because the problem is strictly convex. Derived
    here; arXiv:2507.05147 has a theory of its own for the loss without regularisation.
    """
    alpha, beta = as_positive("alpha", alpha), as_positive("beta", beta)
    # in units of 1/(2 beta) the loss is log(1 + exp(-h)), with this ridge
    ridge = as_positive("regularisation", regularisation) / (4 * beta**2)
    if 4 * ridge < _LEAST:
        return math.nan

    def mean(f: Callable[[FloatArray, FloatArray], FloatArray], sigma: float, log_V: float) -> float:
        """E f(dh, x), dh the step from x."""
        return gaussian_mean(lambda x: f(logistic_step(x, log_V), x), sigma, logistic_kinks(log_V), scale=1.0)

    def deviation(log_V: float) -> float:
        """q^(1/2) at this V."""

        def excess(log_q: float) -> float:
            return math.log(alpha * mean(lambda step, x: step**2, math.exp(0.5 * log_q), log_V)) - log_q

        most = 2 * log_V + math.log(alpha)
        return math.exp(0.5 * float(brentq(excess, min(most, 0.0) - 30, most + 1, xtol=1e-12)))

    def balance(log_V: float) -> float:
        V = math.exp(log_V)

        def response(step: FloatArray, x: FloatArray) -> FloatArray:
            curvature = V * expit(x + step) * expit(-x - step)
            return np.asarray(curvature / (1 + curvature))

        return 1 - ridge * V - alpha * mean(response, deviation(log_V), log_V)

    # the response is between 0 and V/4
    between = -math.log(ridge + alpha / 4) - 1, -math.log(ridge) + 1
    log_V = float(brentq(balance, *between, xtol=1e-12))
    sigma = deviation(log_V)
    return mean(lambda step, x: step, sigma, log_V) / sigma  # E[x] = 0


def hebb_overlap(alpha: float) -> float:
    """Overlap of the retrieval states of Hebb's rule at zero temperature; nan where there are none.

    erf(y), with y the largest solution of y ((2 alpha)^(1/2) + (2/pi^(1/2)) exp(-y^2)) = erf(y). There is one
    up to alpha = 0.1379, with overlap 0.967.

    Notes
    -----
    Replica-symmetric; breaking the symmetry raises the end to about 0.144 (Amit, Gutfreund and Sompolinsky,
    Ann. Phys. 173 (1987) 30; Crisanti, Amit and Gutfreund, Europhys. Lett. 2 (1986) 337)."""
    alpha = as_positive("alpha", alpha)

    def off(y: float) -> float:
        return y * (math.sqrt(2 * alpha) + 2 / math.sqrt(math.pi) * math.exp(-y * y)) - float(erf(y))

    # no solution exceeds (2 alpha)^(-1/2); from 6 on erf(y) is 1 and the left side a line
    grid = np.append(max(6.0, 2 / math.sqrt(2 * alpha)), np.linspace(6.0, 0.5, 1101))
    values = [off(y) for y in grid]
    for k in range(1, len(grid)):
        if values[k] <= 0 < values[k - 1]:
            return float(erf(brentq(off, grid[k], grid[k - 1], xtol=1e-14)))
    return math.nan
