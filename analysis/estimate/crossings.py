"""Where a mean curve rises through zero, and the interval of loads that its data do not exclude."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bendscape.analysis.dataset.curves import Flags, Floats, local_smoother, sign_change
from bendscape.analysis.estimate.student import ONE_SIGMA, Means, means, weighted

_FINE = 16  # points of the fine grid between two values of alpha
_STRICTER = 3  # than Bonferroni, where chance alone is to be ruled out


class Curve(NamedTuple):
    """Means over seeds at the n alphas with data, (n,), and the half width of the smoothing."""

    alpha: Floats
    cells: Means
    bandwidth: float

    def smoother(self, grid: Floats) -> Floats:
        """Weights of the means at points of a grid within the alphas, (grid, n)."""
        return local_smoother(self.alpha, grid, self.bandwidth, self.cells.freedom + 1)


class Crossing(NamedTuple):
    """Where a curve rises through zero, its standard error and the ends of its interval, or the flag that
    says why there is none; the first and the last alpha it was looked for at."""

    flag: str
    value: float = math.nan
    error: float = math.nan
    low: float = math.nan
    high: float = math.nan
    first: float = math.nan
    last: float = math.nan


def mean_curve(alpha: Floats, values: Floats, counted: Flags, bandwidth: float) -> Curve:
    """Curve of the cells (alpha, seed) that count, at least 3 at every alpha."""
    return Curve(alpha, means(values, counted), bandwidth)


def crossing(here: Curve, other: Curve | float, level: float) -> Crossing:
    """Where a curve rises through another one or through a number.

    With f the smoothed curve less the other and s its standard error,

        f = sum_i S_i y_i,    s^2 = sum_i S_i^2 v_i,    t = f/s,

    y_i the mean of the cells at one alpha, v_i its variance from these cells and S the smoother, the estimate
    is :func:`bendscape.analysis.dataset.curves.sign_change` of f. The interval holds the loads at which the
    curve could vanish: it reaches down to the last load before the estimate at which t is below its lower
    limit, and up to the first one behind it at which t is above the upper one, limits of
    :meth:`bendscape.analysis.estimate.student.Sums.t_limits`.

    Noise alone passes a limit somewhere, as there are as many independent places as the smoothing has free
    parameters m. So with the limits of the level 1 - (1 - level)/(3 m), an end where t passes the limit needs
    t to go on to the sum of both on its side. Where it does not, the end is where t passes the farther limit,
    and open where it never does. Without the 3, which is stricter than Bonferroni, the few intervals that
    data of little information have would too often owe both ends to noise.

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
        ``estimated``; ``interval_leaves_the_alpha_range`` with nan for an end that is open;
        ``above_the_alpha_range`` and ``below_the_alpha_range``, without a number, where f does not change
        sign and t is beyond the limit at the last or the first alpha; ``not_enough_data`` where it is not.
        ``error`` is half the width of the interval of loads at 68 %, without the second condition; nan where
        an end is open.

    Notes
    -----
    Limits: the mean crosses once; it follows a parabola over the half width of the smoothing; cells of
    different alphas and seeds are independent, as those of the engine are, each of which draws from a stream
    of its own. Source: the inverted test of Fieller, J. R. Stat. Soc. B 16 (1954) 175, and this project's own
    condition on open ends. ``benchmarks/intervals.py`` measures the coverage.
    """
    both = [here, *([other] if isinstance(other, Curve) else [])]
    first, last = max(float(c.alpha.min()) for c in both), min(float(c.alpha.max()) for c in both)
    if not first < last:
        return Crossing("not_enough_data")
    grid = fine_grid(here.alpha, first, last)
    at = weighted(here.smoother(grid), here.cells)
    if isinstance(other, Curve):
        at = at.minus(weighted(other.smoother(grid), other.cells))
    else:
        at = at._replace(value=at.value - other)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(at.value == 0, 0.0, at.value / np.sqrt(at.variance))
    limits = at.t_limits(level)
    value = float(sign_change(grid, at.value[None])[0])
    if math.isinf(value):
        end, k = ("above", -1) if value > 0 else ("below", 0)
        told = t[k] < limits[0][k] if value > 0 else t[k] > limits[1][k]
        return Crossing(f"{end}_the_alpha_range" if told else "not_enough_data", first=first, last=last)
    parameters = max(1.0, *(float(np.trace(c.smoother(c.alpha))) for c in both))
    farther = at.t_limits(1 - (1 - level) / (_STRICTER * parameters))
    told = (
        (t < farther[0] + limits[0])[grid <= value].any(),
        (t > farther[1] + limits[1])[grid >= value].any(),
    )
    pairs = zip(told, _ends(grid, t, limits, value), _ends(grid, t, farther, value), strict=True)
    low, high = (near if enough else far for enough, near, far in pairs)
    left, right = _ends(grid, t, at.t_limits(ONE_SIGMA), value)
    flag = "interval_leaves_the_alpha_range" if math.isnan(low + high) else "estimated"
    return Crossing(flag, value, (right - left) / 2, low, high, first, last)


def _ends(grid: Floats, t: Floats, limits: tuple[Floats, Floats], value: float) -> tuple[float, float]:
    """The last load before value at which t is below the lower limit, and the first one behind it at which t
    is above the upper one, by a straight line between points of the grid; nan where there is none."""
    below, above = t - limits[0], t - limits[1]
    low = high = math.nan
    if len(found := np.flatnonzero((below < 0) & (grid <= value))):
        k = min(found[-1], len(grid) - 2)
        low = min(value, _zero(grid[k : k + 2], below[k : k + 2]))
    if len(found := np.flatnonzero((above > 0) & (grid >= value))):
        k = max(found[0], 1)
        high = max(value, _zero(grid[k - 1 : k + 1], above[k - 1 : k + 1]))
    return low, high


def _zero(x: Floats, y: Floats) -> float:
    """Where a rising line through two points vanishes, the middle where one of them is at infinity."""
    share = -y[0] / (y[1] - y[0]) if np.isfinite(y).all() and y[1] > y[0] else 0.5
    return float(x[0] + (x[1] - x[0]) * min(1.0, max(0.0, share)))


def fine_grid(alpha: Floats, first: float, last: float) -> Floats:
    """Points from first to last, ``_FINE`` between two values of alpha."""
    knots = np.unique([first, *alpha[(alpha > first) & (alpha < last)], last])
    places = np.arange(_FINE * (len(knots) - 1) + 1) / _FINE
    return np.asarray(np.interp(places, np.arange(len(knots)), knots), dtype=np.float64)
