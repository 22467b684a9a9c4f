"""The means of a variable by size, and the part of each curve around a level that a cubic describes."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.counts import DONE
from bendscape.analysis.dataset.curves import Floats, local_smoother, sign_change
from bendscape.sweep.campaign.grid import NO_SIZE

WINDOW = 0.3
"""Distance of the mean from the level, relative to its range at this size, up to which a cubic describes
it."""

LEAST_SEEDS, LEAST_POINTS = 4, 5
_GRID = 401  # on which a smooth curve is evaluated
_SIDE = 3.0  # standard errors from the level at which the last point says on which side the crossing lies


class Curve(NamedTuple):
    """Points of one size with enough cells: x, mean, standard deviation of a cell, number of cells; and the
    degrees of freedom of the standard deviations."""

    size: float
    x: Floats
    mean: Floats
    sigma: Floats
    cells: Floats
    dof: float


class Window(NamedTuple):
    """The points of one size in its window, the ends of the window, and whether points outside had to be
    taken because it holds fewer than ``LEAST_POINTS``.

    The standard deviation of a cell is then the exponential of a parabola in x (a line or a constant where
    few points determine it), scaled so that its mean square is that of the cells: a few cells do not
    determine their own.
    """

    curve: Curve
    low: float
    high: float
    reach: float
    lacking: bool


def curves_of(block: xr.Dataset, variable: str) -> list[Curve]:
    """The means of one model by size, at points with ``LEAST_SEEDS`` cells, in increasing order of size and
    x.
    """
    roles = {str(name): of.attrs.get("role") for name, of in block.coords.items()}
    size = next((name for name in block["status"].dims if roles.get(str(name)) == "size"), None)
    curve = next(name for name, role in roles.items() if role == "curve")
    dim = block[curve].dims[0]
    order = [dim, *([size] if size is not None else []), ...]
    status, cells = (block[name].transpose(*order).values for name in ("status", variable))
    x = np.asarray(block[curve].values, dtype=np.float64)
    sizes = [float(NO_SIZE)] if size is None else block[size].values.astype(float).tolist()
    if size is None:
        status, cells = status[:, None], cells[:, None]
    found = []
    for k, N in sorted(enumerate(sizes), key=lambda pair: pair[1]):
        use = (status[:, k] == DONE) & np.isfinite(cells[:, k])
        n = use.sum(axis=1)
        rows = np.flatnonzero(n >= LEAST_SEEDS)
        rows = rows[np.argsort(x[rows], kind="stable")]
        if len(rows) < LEAST_POINTS:
            continue
        values = np.where(use[rows], cells[rows, k], np.nan)
        mean, spread = np.nanmean(values, axis=1), np.nanstd(values, axis=1, ddof=1)
        cells_there = n[rows].astype(np.float64)
        found.append(Curve(N, x[rows], mean, spread, cells_there, float((cells_there - 1).sum())))
    return found


def _smooth_spread(x: Floats, spread: Floats, n: Floats) -> tuple[Floats, float] | None:
    """Smooth standard deviations and their degrees of freedom; None if all cells are equal."""
    good = spread > 0
    if good.sum() < 2:
        return None
    degree = 2 if good.sum() >= 12 else 1 if good.sum() >= 6 else 0
    centre = x.mean()
    smooth = np.exp(np.polyval(np.polyfit(x[good] - centre, np.log(spread[good]), degree), x - centre))
    scatter = (spread / smooth) ** 2
    smooth = smooth * math.sqrt(float(np.average(scatter, weights=n)))
    spreading = float(np.var(scatter / scatter.mean(), ddof=1))
    most = float((n - 1).sum())
    return smooth, min(most, max(1.0, 2 * (len(x) - degree - 1) / max(spreading, 1e-12)))


def window_of(curve: Curve, level: float) -> Window | str | None:
    """The part of a curve around the crossing that a cubic describes; ``above`` or ``below`` if the crossing
    lies beyond the points; None if the cells do not tell."""
    x, off = curve.x, curve.mean - level
    grid = np.linspace(x[0], x[-1], _GRID)
    smooth = local_smoother(x, grid, float(np.ptp(x)) / 8, curve.cells) @ off
    rising = np.sign(smooth[-_GRID // 4 :].mean() - smooth[: _GRID // 4].mean()) or 1.0
    at = float(sign_change(grid, rising * smooth[None])[0])
    if math.isinf(at):
        k = -1 if at > 0 else 0
        spread = max(float(curve.sigma[k]), float(np.median(curve.sigma)), 1e-300)
        sure = abs(off[k]) * math.sqrt(curve.cells[k]) > _SIDE * spread
        return ("above" if at > 0 else "below") if sure else None
    beyond = np.abs(smooth) > WINDOW * np.ptp(smooth)
    low = float(grid[beyond & (grid < at)].max(initial=x[0]))
    high = float(grid[beyond & (grid > at)].min(initial=x[-1]))
    keep = (x >= low) & (x <= high)
    lacking = keep.sum() < LEAST_POINTS
    if lacking:
        keep[np.argsort(np.abs(x - at), kind="stable")[:LEAST_POINTS]] = True
    found = _smooth_spread(x[keep], curve.sigma[keep], curve.cells[keep])
    if found is None:
        return None
    part = Curve(curve.size, x[keep], curve.mean[keep], found[0], curve.cells[keep], found[1])
    return Window(part, low, high, WINDOW * float(np.ptp(smooth)), bool(lacking))
