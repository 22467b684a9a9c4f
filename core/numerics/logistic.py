"""The proximal map of the logistic loss."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import expit

FloatArray = npt.NDArray[np.float64]


def logistic_step(x: FloatArray, log_chi: float) -> FloatArray:
    """delta = chi/(1 + exp(x + delta)): the step from x to the minimiser h = x + delta of log(1 + exp(-h)) +
    (h - x)^2/(2 chi).

    Newton's iteration from above for log delta + log(1 + exp(x + delta)) = log chi, which is convex in log
    delta. All digits, also where delta is far below those of x."""
    y = np.minimum(log_chi, np.log(np.maximum(1.0, log_chi - x)))
    for _ in range(100):
        delta = np.exp(y)
        h = x + delta
        change = (y + np.logaddexp(0.0, h) - log_chi) / (1 + delta * expit(h))
        y = y - change
        if np.all(np.abs(change) <= 1e-12):
            break
    return np.asarray(np.exp(y))


def logistic_kinks(log_chi: float) -> tuple[float, ...]:
    """Where delta turns from nearly 0 to a line, and from a line to nearly chi; both turns have a width of
    order 1."""
    return max(log_chi, 0.0), -math.exp(min(log_chi, 40.0))
