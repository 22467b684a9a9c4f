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
from scipy.special import roots_genlaguerre, roots_hermitenorm

from bendscape.core.activations.activation import Network
from bendscape.core.errors import ParameterError

FloatArray = npt.NDArray[np.float64]

WIDEST = 4
"""Largest width with a quadrature: the number of nodes grows like n^p / p!."""

NODES = {1: 160, 2: 100, 3: 64, 4: 40}
"""Gauss-Hermite nodes for each of p pre-activations; half of them by symmetry."""

LEAST_WEIGHT = 1e-17


class Averages(NamedTuple):
    """E[T], E[u^2 T], E[T'] and E[u^2 T'] at one g, where u is one of the teacher's pre-activations."""

    trace: float
    teacher_trace: float
    slope: float
    teacher_slope: float


@lru_cache(maxsize=32)
def _even_rule(width: int, nodes: int) -> tuple[FloatArray, FloatArray]:
    """Nodes (n, width) and weights for averages of even symmetric functions of independent Gaussians."""
    x, w = roots_hermitenorm(2 * (nodes // 2))
    x, w = x[x > 0], w[x > 0] / w[x > 0].sum()
    chosen = np.array(list(combinations_with_replacement(range(x.size), width)))
    weights = w[chosen].prod(axis=1)
    repeats = (chosen[:, :, None] == np.arange(x.size)).sum(axis=1)
    factorial = np.cumprod(np.concatenate(([1.0], np.arange(1.0, width + 1))))
    weights *= factorial[width] / factorial[repeats].prod(axis=1)
    kept = weights > LEAST_WEIGHT
    return x[chosen[kept]], weights[kept]


def _labels(network: Network, nodes: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Labels y, the mean of u_l^2 at each, and weights."""
    if network.teacher_activation == "quadratic":
        n = network.p_star / 2
        x, w = roots_genlaguerre(nodes // 2, n - 1)
        kept = w > LEAST_WEIGHT * w.sum()
        y, w = x[kept] / n, w[kept] / w.sum()
        return y, y, w
    u, w = _even_rule(network.p_star, nodes)
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
            "p_star", network.p_star, f"at most {WIDEST} for a teacher that is not quadratic", "sample instead"
        )


def rule(network: Network, share: float = 1.0) -> Callable[[float], Averages]:
    """The averages as a function of g, with a share of the nodes."""
    p, a = network.p, network.a
    fields, weights = _even_rule(p, round(share * NODES[p]))
    y, u_sq, label_weights = _labels(network, round(share * NODES[max(2, min(network.p_star, WIDEST))]))
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
        slope = weights @ (
            diagonal_slope + 2 * s3e / denominator + s2 * (s1 + g * s2e) / denominator**2
        )
        signal = label_weights * u_sq
        return Averages(
            float(trace @ label_weights), float(trace @ signal), float(slope @ label_weights), float(slope @ signal)
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
    start = network.student.value(np.zeros(1))[0]
    flat = network.student.curvature(np.zeros(1))[0] / p
    # All pre-activations at zero, where v = 0, and the largest label.
    least = -flat if np.isinf(most) else -flat * (most - start) / (a + most)

    def lowest(x: FloatArray) -> float:
        y = network.teacher.value(x[-1:])[0]
        slope, curvature = network.student.slope(x[:-1]), network.student.curvature(x[:-1])
        pull = network.student.value(x[:-1]).mean() - y
        weight = np.outer(slope, slope) / p**2 + np.diag(pull * curvature) / p
        return float(np.linalg.eigvalsh(weight)[0] / (a + y))

    for scale in (0.3, 1.0, 1.7, 2.5):
        for label in (0.0, 1.0, 3.0):
            found = minimize(lowest, np.append(np.full(p, scale), label), method="Nelder-Mead")
            least = min(least, float(found.fun))
    if least >= 0:
        raise ParameterError("activation", network.activation, "one whose Hessian has a left edge below zero")
    return float(least)
