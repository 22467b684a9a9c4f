"""Averages of T(g) = tr D (1 - g D)^-1, over a quadrature or over the samples of one cell.

With c_k = 1 - g e_k and s_j = sum_k v_k^2 / c_k^j, Sherman and Morrison give T(g) = sum_k e_k / c_k + s_2 /
(1 - g s_1).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.activations.activation import Network
from bendscape.core.activations.quadrature import Rule
from bendscape.core.activations.weight import Weight, weight_of

FloatArray = npt.NDArray[np.float64]


class Averages(NamedTuple):
    """E[T], E[u^2 T], E[T'] and E[u^2 T'] at one g, where u is one of the teacher's pre-activations."""

    trace: float
    teacher_trace: float
    slope: float
    teacher_slope: float


def traces(weight: Weight, g: float) -> tuple[FloatArray, FloatArray]:
    """T(g) and T'(g) of every sample."""
    shape = weight.e.shape[1:]
    diagonal, diagonal_slope, s1, s2, s2e, s3e = (np.zeros(shape) for _ in range(6))
    for v, e in zip(weight.v, weight.e, strict=True):  # one unit at a time: the arrays are large
        inverse = 1 / (1 - g * e)
        ratio = e * inverse
        diagonal += ratio
        diagonal_slope += ratio * ratio
        square = v * v * inverse
        s1 += square
        square *= inverse
        s2 += square
        s2e += square * e
        s3e += square * ratio
    denominator = 1 - g * s1
    slope = diagonal_slope + 2 * s3e / denominator + s2 * (s1 + g * s2e) / denominator**2
    return diagonal + s2 / denominator, slope


def averages(network: Network, rule: Rule) -> Callable[[float], Averages]:
    """The averages by a rule, as a function of g that remembers its values."""
    weight = weight_of(network, rule.fields[:, :, None], rule.y)
    signal = rule.label_weights * rule.u_sq

    @lru_cache(maxsize=256)
    def at(g: float) -> Averages:
        trace, slope = (rule.weights @ each for each in traces(weight, g))
        return Averages(
            float(trace @ rule.label_weights),
            float(trace @ signal),
            float(slope @ rule.label_weights),
            float(slope @ signal),
        )

    return at


def sample_averages(weight: Weight, u_sq: FloatArray) -> Callable[[float], Averages]:
    """Means over the samples of one cell, as a function of g; ``u_sq`` is the mean of u_l^2 of each."""

    def at(g: float) -> Averages:
        trace, slope = traces(weight, g)
        count = len(u_sq)
        return Averages(
            float(trace.mean()), float(trace @ u_sq) / count, float(slope.mean()), float(slope @ u_sq) / count
        )

    return at
