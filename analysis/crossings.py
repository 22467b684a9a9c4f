"""Where a mean curve rises through zero: the crossing, and the interval of loads that its data do not exclude."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

from bendscape.analysis.curves import Flags, Floats, local_smoother, sign_change

ONE_SIGMA = float(2 * ndtr(1.0) - 1)
"""Level of the interval whose half width is the standard error."""

_FINE = 16  # points of the fine grid between two values of alpha


class Curve(NamedTuple):
    """Cells against alpha: means over seeds, (n,), the variances of these means and the seeds behind them, at
    the n alphas with data in increasing order, and the half width of the smoothing."""

    alpha: Floats
    mean: Floats
    variance: Floats
    n_seeds: Floats
    bandwidth: float

    def smoothed(self, grid: Floats) -> Smoothed:
        """The smoothed mean on a grid within the alphas, with its variance there."""
        smoother = local_smoother(self.alpha, grid, self.bandwidth, self.n_seeds)
        share = smoother**2 * self.variance
        at_alphas = local_smoother(self.alpha, self.alpha, self.bandwidth, self.n_seeds)
        return Smoothed(
            smoother @ self.mean,
            share.sum(axis=1),
            (share**2 / (self.n_seeds - 1)).sum(axis=1),
            float(np.trace(at_alphas)),
        )


class Smoothed(NamedTuple):
    """A smooth curve on a grid: value, variance, sum of squared shares of the variance over their degrees of
    freedom, and how many parameters the smoothing leaves free."""

    value: Floats
    variance: Floats
    squares: Floats
    parameters: float

    def minus(self, other: Smoothed) -> Smoothed:
        """The difference of two independent curves."""
        return Smoothed(
            self.value - other.value,
            self.variance + other.variance,
            self.squares + other.squares,
            max(self.parameters, other.parameters),
        )


class Crossing(NamedTuple):
    """Where a curve rises through zero, its standard error and the ends of its interval, or the flag that says
    why there is none; the first and the last alpha it was looked for at."""

    flag: str
    value: float = math.nan
    error: float = math.nan
    low: float = math.nan
    high: float = math.nan
    first: float = math.nan
    last: float = math.nan


def mean_curve(alpha: Floats, values: Floats, counted: Flags, bandwidth: float) -> Curve:
    """Means over the seeds that count, and their variances, from cells (alpha, seed).

    Every alpha has at least two seeds that count.
    """
    n = counted.sum(axis=1).astype(np.float64)
    mean = np.where(counted, values, 0.0).sum(axis=1) / n
    squares = np.where(counted, values - mean[:, None], 0.0) ** 2
    return Curve(alpha, mean, squares.sum(axis=1) / (n * (n - 1)), n, bandwidth)


def crossing(here: Curve, other: Curve | float, level: float) -> Crossing:
    """Where a curve rises through another one or through a number.

    With f the smoothed curve less the other, s its standard error and nu its degrees of freedom,

        f = sum_i S_i y_i,    s^2 = sum_i S_i^2 v_i,    nu = s^4 / sum_i (S_i^2 v_i)^2/(n_i - 1),

    y_i the mean of the n_i cells at one alpha, v_i its variance from these cells and S the smoother, the
    estimate is :func:`bendscape.analysis.curves.sign_change` of f. The interval reaches down to the last load
    before it at which f/s is below -t, and up to the first one behind it at which f/s is above t, the quantile
    of Student's law with nu degrees of freedom: all loads at which the curve could vanish.

    Parameters
    ----------
    here : Curve
        With independent cells.
    other : Curve or float
        What it rises through.
    level : float
        Of the interval, in (0, 1).

    Returns
    -------
    Crossing
        ``estimated``; ``interval_leaves_the_alpha_range`` with nan for an end where the curve is not told from
        zero up to the last alpha, or by no more than the farthest of as many independent points as the
        smoothing leaves would be by chance (Bonferroni); ``above_the_alpha_range`` and
        ``below_the_alpha_range``, without a number, where f does not change sign and is told from zero at the
        alpha where it would have to; ``not_enough_data`` where it is not. ``error`` is half the width of the
        interval at 68 %, nan where that one has no end.

    Notes
    -----
    Limits: the mean crosses once; it follows a parabola over the half width of the smoothing; cells of
    different alphas and seeds are independent, as those of the engine are, each of which draws from a stream
    of its own. Source: the inverted test of Fieller, J. R. Stat. Soc. B 16 (1954) 175, with the degrees of
    freedom of Welch, Biometrika 34 (1947) 28; ``benchmarks/intervals.py`` measures its coverage.
    """
    both = [here] + [other] * isinstance(other, Curve)
    first, last = max(float(c.alpha.min()) for c in both), min(float(c.alpha.max()) for c in both)
    if not first < last:
        return Crossing("not_enough_data")
    grid = fine_grid(here.alpha, first, last)
    at = here.smoothed(grid)
    at = (
        at.minus(other.smoothed(grid)) if isinstance(other, Curve) else at._replace(value=at.value - other)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(at.value == 0, 0.0, at.value / np.sqrt(at.variance))
        freedom = np.where(at.squares > 0, at.variance**2 / at.squares, 1e9)
    value = float(sign_change(grid, at.value[None])[0])
    bound = stdtrit(freedom, 0.5 + level / 2)
    if value > last:
        return Crossing("above_the_alpha_range" if t[-1] < -bound[-1] else "not_enough_data", first=first, last=last)
    if value < first:
        return Crossing("below_the_alpha_range" if t[0] > bound[0] else "not_enough_data", first=first, last=last)
    low, high = _ends(grid, t, bound, value)
    farthest = stdtrit(freedom, 1 - (1 - level) / 2 / max(1.0, at.parameters))
    if not (t < -farthest)[grid <= value].any():
        low = math.nan
    if not (t > farthest)[grid >= value].any():
        high = math.nan
    left, right = _ends(grid, t, stdtrit(freedom, 0.5 + ONE_SIGMA / 2), value)
    flag = "interval_leaves_the_alpha_range" if math.isnan(low + high) else "estimated"
    return Crossing(flag, value, (right - left) / 2, low, high, first, last)


def _ends(grid: Floats, t: Floats, bound: Floats, value: float) -> tuple[float, float]:
    """The last load before value at which t is below -bound, and the first one behind it at which t is above
    bound, between points of the grid by a straight line; nan where there is none."""
    low = high = math.nan
    below, above = np.flatnonzero((t < -bound) & (grid <= value)), np.flatnonzero((t > bound) & (grid >= value))
    if len(below):
        k = below[-1]
        low = min(value, _zero(grid[k], grid[k + 1], (t + bound)[k], (t + bound)[k + 1]))
    if len(above):
        k = above[0]
        high = max(value, _zero(grid[k - 1], grid[k], (t - bound)[k - 1], (t - bound)[k]))
    return low, high


def _zero(left: float, right: float, y_left: float, y_right: float) -> float:
    """Where a line through two points, below and above zero, vanishes."""
    if not (math.isfinite(y_left) and math.isfinite(y_right) and y_right > y_left):
        return right if math.isfinite(y_right) else left
    return float(left + (right - left) * min(1.0, max(0.0, -y_left / (y_right - y_left))))


def fine_grid(alpha: Floats, first: float, last: float) -> Floats:
    """Points from first to last, ``_FINE`` between two values of alpha."""
    knots = np.unique([first, *alpha[(alpha > first) & (alpha < last)], last])
    places = np.arange(_FINE * (len(knots) - 1) + 1) / _FINE
    return np.asarray(np.interp(places, np.arange(len(knots)), knots), dtype=np.float64)
