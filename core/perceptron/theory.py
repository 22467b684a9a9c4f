"""The rules at a fixed norm in the limit of large N, by the replica-symmetric equations (exact: the loss is
convex)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from bendscape.core.errors import ParameterError, as_positive
from bendscape.core.numerics.gaussian import TAIL, gaussian_mean, piecewise_rule
from bendscape.core.numerics.logistic import logistic_kinks, logistic_step
from bendscape.core.perceptron.model import FloatArray, angle_error


class Rule(NamedTuple):
    """A rule at N = infinity.

    Parameters
    ----------
    norm : float
        lambda = |w|/sqrt(N).
    overlap : float
        w.u/(|w| |u|) with the teacher.
    generalisation_error : float
        arccos(overlap)/pi.
    """

    norm: float
    overlap: float
    generalisation_error: float


def hebb(alpha: float) -> Rule:
    """The rule at norm -> 0: w proportional to sum_mu y_mu x_mu.

    overlap = 1/sqrt(1 + pi/(2 alpha)). Source: Vallet, Europhys. Lett. 8 (1989) 747.
    """
    overlap = 1 / math.sqrt(1 + math.pi / (2 * as_positive("alpha", alpha)))
    return Rule(0.0, overlap, angle_error(overlap))


def largest_stability(alpha: float) -> Rule:
    """The rule at norm -> infinity: the weights whose smallest field h_mu/|w| is largest.

    With rho the overlap, kappa the stability and (x)_+ = max(x, 0):
    1 - rho^2 = alpha E (kappa - h)_+^2, rho = alpha sqrt(2/pi) E (kappa - s)_+, where h = rho |t| +
    sqrt(1 - rho^2) z and s = sqrt(1 - rho^2) z, t and z standard Gaussian. For large alpha the generalisation
    error is 0.5005/alpha (Opper, Kinzel, Kleinz and Nehl, J. Phys. A 23 (1990) L581).

    Raises
    ------
    ParameterError
        ``alpha`` is not > 0.
    """
    alpha = as_positive("alpha", alpha)

    def excess(h: FloatArray, kappa: float) -> FloatArray:
        return np.maximum(kappa - h, 0.0)

    def stability(sigma: float) -> float:
        """kappa that gives the overlap of sigma."""
        rho = math.sqrt(1 - sigma**2)

        def missing(kappa: float) -> float:
            inner = gaussian_mean(lambda s: excess(s, kappa), sigma, (kappa,))
            return alpha * math.sqrt(2 / math.pi) * inner - rho

        return float(brentq(missing, -TAIL, 2 * TAIL + 4 / alpha, xtol=1e-14, rtol=1e-13))

    def balance(log_sigma: float) -> float:
        sigma = math.exp(log_sigma)
        kappa = stability(sigma)
        squared = _fields(lambda h: excess(h, kappa) ** 2, 1.0, sigma, (kappa,))
        return math.log(alpha * squared) - 2 * log_sigma

    sigma = math.exp(float(brentq(balance, math.log(1e-9), math.log1p(-1e-12), xtol=1e-13)))
    overlap = math.sqrt(1 - sigma**2)
    return Rule(math.inf, overlap, math.asin(sigma) / math.pi)


def fixed_norm(alpha: float, norm: float) -> Rule:
    """The minimiser of sum_mu log(1 + exp(-h_mu)) over |w| = norm sqrt(N), as N goes to infinity.

    With R = w.u/N, sigma^2 = norm^2 - R^2 and delta(x) the solution of delta = chi/(1 + exp(x + delta)), the
    step of the proximal map: sigma^2 = alpha E delta(R|t| + sigma z)^2 and R = alpha sqrt(2/pi) E delta(sigma
    z), t and z standard Gaussian. chi grows with the norm, exponentially once the sample is separated.

    Parameters
    ----------
    alpha : float
        Inputs per dimension, > 0.
    norm : float
        lambda > 0; below 1e-6 it is Hebb's rule to all digits.

    Returns
    -------
    Rule
        With a relative error of the order of 1e-9; held by ``tests/test_perceptron.py``, by sampling too.

    Raises
    ------
    ParameterError
        ``alpha`` or ``norm`` is not > 0, or ``norm`` exceeds 1e6.
    """
    alpha, norm = as_positive("alpha", alpha), as_positive("norm", norm)
    if norm > 1e6:
        raise ParameterError("norm", norm, "<= 1e6", "largest_stability is the limit")
    if norm < 1e-6:
        return hebb(alpha)._replace(norm=norm)

    def solution(log_chi: float) -> tuple[float, float]:
        """(R, sigma) at one chi."""
        kinks = logistic_kinks(log_chi)

        def pull(sigma: float) -> float:
            mean = gaussian_mean(lambda x: logistic_step(x, log_chi), sigma, kinks, scale=1.0)
            return alpha * math.sqrt(2 / math.pi) * mean

        def balance(log_sigma: float) -> float:
            sigma = math.exp(log_sigma)
            around = math.hypot(pull(sigma), sigma), sigma
            squared = _fields(lambda x: logistic_step(x, log_chi) ** 2, *around, kinks, scale=1.0)
            return math.log(alpha * squared) - 2 * log_sigma

        low = min(log_chi, 0.0) - 20
        high = 0.5 * math.log(alpha) + min(log_chi, math.log1p(max(log_chi, 0.0)) + 5)
        sigma = math.exp(float(brentq(balance, low, high + 0.1, xtol=1e-12)))
        return pull(sigma), sigma

    def off(log_chi: float) -> float:
        return math.log(math.hypot(*solution(log_chi)) / norm)

    low, step = math.log(norm) - math.log(alpha + 1) - 3, 2.0
    low = min(low, -1.0)
    while off(low + step) < 0:
        low, step = low + step, 1.5 * step
    R, sigma = solution(float(brentq(off, low, low + step, xtol=1e-10)))
    return Rule(norm, R / math.hypot(R, sigma), math.atan2(sigma, R) / math.pi)


def _fields(
    f: Callable[[FloatArray], FloatArray],
    norm: float,
    sigma: float,
    kinks: tuple[float, ...],
    scale: float = 0.0,
) -> float:
    """E f(R|t| + sigma z), R^2 = norm^2 - sigma^2: the density is 2 phi(x/norm) Phi(R x/(norm
    sigma))/norm."""
    R = math.sqrt(max(0.0, norm**2 - sigma**2))
    rise = sigma * np.array([-TAIL, -3.0, -1.0, 0.0, 1.0, 3.0, TAIL])
    x, weight = piecewise_rule(norm, tuple(rise), kinks, scale)
    density = np.exp(-0.5 * (x / norm) ** 2) * ndtr(R * x / (norm * sigma))
    return float(weight @ (f(x) * density)) * 2 / (norm * math.sqrt(2 * math.pi))
