"""Gaussian averages over the pre-activations of even networks, by quadrature.

The weight of one sample is D = v v^T + diag(e) with v_k = sigma'_k / (p sqrt(a + y)) and e_k = (yhat - y)
sigma''_k / (p (a + y)). With c_k = 1 - g e_k and s_j = sum_k v_k^2 / c_k^j, Sherman and Morrison give
T(g) = tr D (1 - g D)^-1 = sum_k e_k / c_k + s_2 / (1 - g s_1).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from bendscape.core.activations.activation import Network
from bendscape.core.errors import ParameterError

FloatArray = npt.NDArray[np.float64]

WIDEST = 4
"""Largest width with a quadrature: the number of nodes grows like n^p / p!."""

NODES = {1: 160, 2: 40, 3: 24, 4: 16}
"""Nodes on the half-line for each of p pre-activations."""

LEAST_WEIGHT = 1e-17

REACH = 8.0
"""The rule on the line ends here; beyond it a Gaussian has probability 1e-15."""

GRADING = 0.5
"""Below it the rule is dense."""

LOG_STEP, LOG_REACH = 0.3, 30.0
"""Step of the rule in log y, and where it ends: at weights of exp(-30)."""


class Averages(NamedTuple):
    """E[T], E[u^2 T], E[T'] and E[u^2 T'] at one g, where u is one of the teacher's pre-activations."""

    trace: float
    teacher_trace: float
    slope: float
    teacher_slope: float


def gather(x: FloatArray, w: FloatArray, width: int) -> tuple[FloatArray, FloatArray]:
    """Nodes (n, width) and weights of a product rule for functions symmetric in their arguments."""
    chosen = np.array(list(combinations_with_replacement(range(x.size), width)))
    repeats = (chosen[:, :, None] == np.arange(x.size)).sum(axis=1)
    factorial = np.cumprod(np.concatenate(([1.0], np.arange(1.0, width + 1))))
    weights = w[chosen].prod(axis=1) * factorial[width] / factorial[repeats].prod(axis=1)
    kept = weights > LEAST_WEIGHT
    return x[chosen[kept]], weights[kept]


def trapezoid(nodes: int) -> tuple[FloatArray, FloatArray]:
    """Midpoint rule for a Gaussian average, on ``nodes`` points above zero; the error falls exponentially.

    With x = GRADING sinh(t), equidistant in t: at a smooth edge the integrand is narrow around zero.
    """
    step = np.arcsinh(REACH / GRADING) / nodes
    t = (np.arange(nodes) + 0.5) * step
    x = GRADING * np.sinh(t)
    w = np.exp(-x * x / 2) * np.cosh(t)
    return x, w / w.sum()


@lru_cache(maxsize=32)
def _even_rule(width: int, nodes: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights for even symmetric functions of independent Gaussians."""
    return gather(*trapezoid(nodes), width)


def labels(network: Network, share: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Labels y, the mean of u_l^2 at each, and weights; y is gamma distributed for a quadratic teacher."""
    p_star = network.p_star
    if network.teacher_activation == "quadratic" and p_star > 1:
        n = p_star / 2
        step = LOG_STEP / share
        t = np.arange(-LOG_REACH / n, np.log(1 + LOG_REACH / n) + step, step)
        y = np.exp(t)
        w = np.exp(n * (1 + t - y))
        return y, y, w / w.sum()
    u, w = _even_rule(p_star, round(share * NODES[max(2, p_star)]))
    return network.teacher.value(u).mean(axis=1), (u * u).mean(axis=1), w


def check_even(network: Network) -> None:
    """Refuse activations that are not even, and widths without a quadrature."""
    for name, activation in (("activation", network.student), ("teacher_activation", network.teacher)):
        if not activation.even:
            raise ParameterError(name, getattr(network, name), "an even activation for this theory")
    if network.p > WIDEST:
        raise ParameterError("p", network.p, f"at most {WIDEST} for this theory", "sample instead")
    if network.teacher_activation != "quadratic" and network.p_star > WIDEST:
        raise ParameterError(
            "p_star",
            network.p_star,
            f"at most {WIDEST} for a teacher that is not quadratic",
            "sample instead",
        )


def rule(network: Network, share: float = 1.0) -> Callable[[float], Averages]:
    """The averages as a function of g, with a share of the nodes."""
    p, a = network.p, network.a
    fields, weights = _even_rule(p, round(share * NODES[p]))
    y, u_sq, label_weights = labels(network, share)
    yhat = network.student.value(fields).mean(axis=1)
    slopes_sq, curvatures = network.student.slope(fields) ** 2, network.student.curvature(fields)
    pull = (yhat[:, None] - y) / (p * (a + y))
    scale = 1 / (p * p * (a + y))

    def at(g: float) -> Averages:
        diagonal = np.zeros_like(pull)
        diagonal_slope, s1, s2, s2e, s3e = (np.zeros_like(pull) for _ in range(5))
        for k in range(p):
            e = pull * curvatures[:, k, None]
            inverse = 1 / (1 - g * e)
            ratio = e * inverse
            diagonal += ratio
            diagonal_slope += ratio * ratio
            square = scale * slopes_sq[:, k, None] * inverse
            s1 += square
            square = square * inverse
            s2 += square
            s2e += square * e
            s3e += square * ratio
        denominator = 1 - g * s1
        trace = weights @ (diagonal + s2 / denominator)
        slope = weights @ (diagonal_slope + 2 * s3e / denominator + s2 * (s1 + g * s2e) / denominator**2)
        signal = label_weights * u_sq
        return Averages(
            float(trace @ label_weights),
            float(trace @ signal),
            float(slope @ label_weights),
            float(slope @ signal),
        )

    return at


def least_weight(network: Network) -> float:
    """inf d, the infimum of the lowest eigenvalue of D over all pre-activations.

    Raises
    ------
    ParameterError
        The infimum is not negative: the spectrum has no left side to speak of.
    """
    p, a, most = network.p, network.a, network.teacher.most
    grid = np.linspace(-10, 10, 4001)
    start = network.student.value(np.zeros(1))[0]
    if np.isinf(most):  # v vanishes as y goes to infinity
        least = -network.student.curvature(grid).max() / p
    else:  # all pre-activations at zero, where v = 0 for an even student
        flat = network.student.curvature(np.zeros(1))[0] / p
        least = -flat * (most - start) / (a + most) if network.student.even else 0.0

    def lowest(x: FloatArray) -> float:
        y = network.teacher.value(x[-1:])[0]
        slope, curvature = network.student.slope(x[:-1]), network.student.curvature(x[:-1])
        pull = network.student.value(x[:-1]).mean() - y
        weight = np.outer(slope, slope) / p**2 + np.diag(pull * curvature) / p
        return float(np.linalg.eigvalsh(weight)[0] / (a + y))

    for scale in (0.3, 1.0, 1.7, 2.5):
        for label in (0.0, 1.0, 3.0):
            for same in {p, 1}:  # all alike, or one at odds with saturated others
                fields = np.where(np.arange(p) < same, scale, 4.0)
                found = minimize(lowest, np.append(fields, label), method="Nelder-Mead")
                least = min(least, float(found.fun))
    if least >= 0:
        raise ParameterError("activation", network.activation, "one whose Hessian has a left edge below zero")
    return float(least)
