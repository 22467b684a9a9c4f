"""Planted success rates, for the tests and the benchmark of the intervals of half success."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr

from bendscape.analysis.estimate.half_success import Design, HalfSuccess, half_success, slope_in_log_size

Floats = npt.NDArray[np.float64]

CURVES: Mapping[str, Callable[[Floats], Floats]] = {
    "logistic": expit,
    "probit": lambda u: ndtr(0.6 * u),
    "Gompertz": lambda u: np.exp(-math.log(2) * np.exp(-u)),
    "saturates at 0.85": lambda u: 0.85 * expit(u + math.log(0.5 / 0.35)),
    "heavy tails": lambda u: 0.5 + np.arctan(u) / math.pi,
    "straight": lambda u: np.clip(0.5 + u / 4, 0, 1),
    "plateau at 1/2": lambda u: 0.5 * expit(3 * (u + 1.5)) + 0.5 * expit(3 * (u - 1.5)),
    "kink at 1/2": lambda u: np.where(u < 0, expit(2 * u), expit(0.5 * u)),
}
"""Rising curves with the value 1/2 at u = 0; the first is in the family that is fitted."""

SPAN = 1.5


class Covered(NamedTuple):
    """Share of samples with an interval of two ends, how many of those hold the truth, share of all samples
    in which a stated end is wrong, and the mean width of intervals."""

    two_ends: float
    right: float
    wrong: float
    width: float


def coverage(
    curve: Callable[[Floats], Floats],
    values: int,
    cells: int,
    samples: int,
    rng: np.random.Generator,
    *,
    off: float = 0.0,
    width: float = 0.25,
) -> Covered:
    """Coverage for equally spaced values of a curve axis of length ``SPAN``; the crossing is anywhere in a
    quarter of it, ``off`` right of the middle."""
    x = np.linspace(0, SPAN, values)
    design, trials = Design(x), np.full(values, cells)
    right, wrong, widths = 0, 0, []
    for c in rng.uniform(0.375, 0.625, samples) * SPAN + off:
        found = half_success(x, rng.binomial(trials, curve((x - c) / width)), trials, design=design)
        held = bool(found.low <= c <= found.high)
        wrong += not held
        if found.flag == "estimated":
            right += held
            widths.append(found.high - found.low)
    n = len(widths)
    return Covered(n / samples, right / n if n else math.nan, wrong / samples, float(np.mean(widths or [0])))


def crossings(
    slope: float, scatter: float, rng: np.random.Generator, seeds: Mapping[int, int], values: int = 6
) -> list[HalfSuccess]:
    """Crossings of sizes at 2.5 + slope ln(N/500), with a normal scatter that the counts do not show."""
    x = np.linspace(1.75, 3.25, values)
    found, design = [], Design(x)
    for N, cells in seeds.items():
        c = 2.5 + slope * math.log(N / 500) + scatter * rng.normal()
        trials = np.full(values, cells)
        successes = rng.binomial(trials, CURVES["Gompertz"]((x - c) / 0.2))
        found.append(half_success(x, successes, trials, design=design))
    return found


def slope_coverage(
    slope: float, scatter: float, seeds: Mapping[int, int], samples: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Shares of samples in which the statistical and the total interval hold the slope, and in which the
    total one excludes zero."""
    held = np.zeros(3)
    for _ in range(samples):
        at = slope_in_log_size(list(seeds), crossings(slope, scatter, rng, seeds))
        held[0] += at.statistical.low <= slope <= at.statistical.high
        held[1] += at.total.low <= slope <= at.total.high
        held[2] += at.total.low > 0 or at.total.high < 0
    first, second, third = (held / samples).tolist()
    return first, second, third
