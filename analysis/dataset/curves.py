"""Mean curves against alpha, their bootstrap over seeds, and their sign changes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

LEAST_NEIGHBOURS = 6
"""A local parabola uses at least this many values of alpha."""


def resampling_counts(n_seeds: int, n_boot: int, rng: np.random.Generator) -> Floats:
    """Bootstrap counts: how often each of n_seeds seeds is drawn, one resampling in each row. Row 0 is the
    data itself, every seed once."""
    drawn = rng.multinomial(n_seeds, np.full(n_seeds, 1.0 / n_seeds), size=n_boot)
    return np.vstack([np.ones((1, n_seeds)), drawn])


def resampled_means(values: Floats, done: Flags, counts: Floats) -> Floats:
    """Means over the seeds that are done, weighted by each row of counts: (alpha, seed) and (row, seed) ->
    (row, alpha).

    If a resampling contains no seed of an alpha, the mean of the data is used there.
    """
    weight = counts @ done.T.astype(np.float64)
    total = counts @ np.where(done, values, 0.0).T
    means: Floats = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
    return np.where(np.isnan(means), means[:1], means)


def half_width(values: Floats) -> float:
    """Half the width of the central 68 % of the resamplings; nan if it is unbounded or there are none."""
    if not len(values):
        return math.nan
    left, right = np.quantile(values, (0.158655, 0.841345), method="nearest")  # does not interpolate inf
    return float((right - left) / 2) if math.isfinite(left) and math.isfinite(right) else math.nan


def local_smoother(x: Floats, grid: Floats, bandwidth: float, weights: Floats) -> Floats:
    """Matrix of the local quadratic regression from values at x to a smooth curve on grid.

    At each point t of the grid a parabola is fitted with weights w_i (1 - |x_i - t|^3/h^3)^3 and evaluated at
    t. The half width h is the bandwidth, increased where needed to include ``LEAST_NEIGHBOURS`` of the x.
    With fewer than four values of x a straight line is fitted.

    Parameters
    ----------
    x, weights : array, shape (n,)
        Abscissae in increasing order, and the number of seeds at each.
    grid : array, shape (g,)
        Where the curve is evaluated.
    bandwidth : float
        Half width h, in units of x.

    Returns
    -------
    array, shape (g, n)
        Rows sum to 1. Parabolas (lines) are reproduced exactly; held by ``tests/test_thresholds.py``.
    """
    degree = 2 if len(np.unique(x)) > 3 else 1
    distance = np.abs(x - grid[:, None])
    nearest = np.sort(distance, axis=1)[:, min(LEAST_NEIGHBOURS, len(x)) - 1]
    h = np.maximum(bandwidth, 1.05 * nearest)[:, None]
    root_weight: Floats = np.sqrt(weights * np.clip(1 - (distance / h) ** 3, 0.0, None) ** 3)
    powers = ((x - grid[:, None]) / h)[..., None] ** np.arange(degree + 1)
    fit = np.linalg.pinv(root_weight[..., None] * powers)  # (grid, degree + 1, n)
    return np.asarray(fit[:, 0, :] * root_weight, dtype=np.float64)


def sign_change(grid: Floats, curves: Floats) -> Floats:
    """Where curves change sign from negative to positive, one value for each row.

    The point t that minimises the integral of the curve up to t. For a curve with a single crossing this is
    its zero. Of several crossings due to noise it is the one with most of the negative part before it and
    most of the positive part after it.

    Parameters
    ----------
    grid : array, shape (g,)
    curves : array, shape (n, g)

    Returns
    -------
    array, shape (n,)
        Interpolated linearly between grid points; -inf where the integral is smallest at the start (the curve
        has changed sign before the grid, if at all), +inf where it is smallest at the end.
    """
    steps = 0.5 * (curves[:, 1:] + curves[:, :-1]) * np.diff(grid)
    integral = np.concatenate([np.zeros((len(curves), 1)), np.cumsum(steps, axis=1)], axis=1)
    rows = np.arange(len(curves))
    lowest = integral.argmin(axis=1)
    left = np.clip(np.where(curves[rows, lowest] >= 0, lowest - 1, lowest), 0, len(grid) - 2)
    y0, y1 = curves[rows, left], curves[rows, left + 1]
    slope = np.where(y1 > y0, y1 - y0, 1.0)
    zero = grid[left] - np.clip(y0 / slope, -1.0, 0.0) * (grid[left + 1] - grid[left])
    zero = np.where(lowest == 0, -np.inf, zero)
    return np.where(lowest == len(grid) - 1, np.inf, zero)
