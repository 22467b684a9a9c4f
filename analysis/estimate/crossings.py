"""Where a mean curve crosses zero upwards, and the interval of loads that the data do not exclude."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bendscape.analysis.dataset.curves import Flags, Floats, local_smoother, sign_change
from bendscape.analysis.estimate.student import ONE_SIGMA, Means, means, weighted

_FINE = 16  # points of the fine grid per interval of alpha
_STRICTER = 3  # factor beyond Bonferroni, where chance alone is to be ruled out


class Curve(NamedTuple):
    """Means over seeds at the n alphas with data, (n,), and the half width of the smoothing."""

    alpha: Floats
    cells: Means
    bandwidth: float

    def smoother(self, grid: Floats) -> Floats:
        """Weights of the means at the points of a grid within the alphas, (grid, n)."""
        return local_smoother(self.alpha, grid, self.bandwidth, self.cells.dof + 1)


class Crossing(NamedTuple):
    """Zero of a rising curve, its standard error and interval, or the flag that says why there is none; the
    first and the last alpha searched."""

    flag: str
    value: float = math.nan
    error: float = math.nan
    low: float = math.nan
    high: float = math.nan
    first: float = math.nan
    last: float = math.nan


def mean_curve(alpha: Floats, values: Floats, counted: Flags, bandwidth: float) -> Curve:
    """Curve through the counted cells (alpha, seed), at least 3 at every alpha."""
    return Curve(alpha, means(values, counted), bandwidth)


def crossing(here: Curve, other: Curve | float, level: float) -> Crossing:
    """Where a curve rises through another curve or through a number.

    With f the smoothed curve minus the other and s its standard error,

        f = sum_i S_i y_i,    s^2 = sum_i S_i^2 v_i,    t = f/s,

    where y_i is the mean of the cells at one alpha, v_i its variance from these cells and S the smoother, the
    estimate is :func:`bendscape.analysis.dataset.curves.sign_change` of f. The interval holds the loads at
    which the curve could vanish. Its lower end is the last load below the estimate at which t is below its
    lower limit, its upper end the first load above the estimate at which t is above its upper limit, with the
    limits of :meth:`bendscape.analysis.estimate.student.Sums.t_limits`.

    Noise alone exceeds a limit somewhere, since there are as many independent places as the smoothing has
    free parameters, m. Therefore such an end counts only if t, somewhere on that side, exceeds the sum of its
    limit and that of the level 1 - (1 - level)/(3 m). Otherwise the end is where t exceeds the latter limit,
    and it is open if t never does. Without the factor 3, which is stricter than Bonferroni, the few closed
    intervals from data with little information would too often owe both ends to noise.

    Parameters
    ----------
    here : Curve
        A curve with independent cells.
    other : Curve or float
        The curve or number that it rises through.
    level : float
        Level of the interval, in (0, 1).

    Returns
    -------
    Crossing
        ``estimated``; ``interval_leaves_the_alpha_range`` with nan for an open end;
        ``above_the_alpha_range`` or ``below_the_alpha_range``, without a number, if f does not change sign
        and t exceeds the limit at the last or first alpha, otherwise ``not_enough_data``. ``error`` is half
        the width of the interval at 68 %, without the condition on m; nan if an end is open.

    Notes
    -----
    Limits: the mean crosses once; it follows a parabola over the half width of the smoothing; cells at
    different alphas and seeds are independent, as the engine's are, each with its own random stream. Source:
    the inverted test of Fieller, J. R. Stat. Soc. B 16 (1954) 175, and this project's own condition on open
    ends. ``benchmarks/intervals.py`` measures the coverage.
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
    """The last load below value at which t is below its lower limit, and the first above it at which t is
    above its upper limit, interpolated linearly between grid points; nan where there is none."""
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
    """Zero of the rising line through two points; the midpoint if one of them is infinite."""
    share = -y[0] / (y[1] - y[0]) if np.isfinite(y).all() and y[1] > y[0] else 0.5
    return float(x[0] + (x[1] - x[0]) * min(1.0, max(0.0, share)))


def fine_grid(alpha: Floats, first: float, last: float) -> Floats:
    """Points from first to last, ``_FINE`` for each interval between neighbouring alphas."""
    knots = np.unique([first, *alpha[(alpha > first) & (alpha < last)], last])
    places = np.arange(_FINE * (len(knots) - 1) + 1) / _FINE
    return np.asarray(np.interp(places, np.arange(len(knots)), knots), dtype=np.float64)
