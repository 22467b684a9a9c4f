"""The data of a collapse (scaled mean overlaps of all sizes with their errors), the universal curve, and two
minimisations."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.interpolate import PchipInterpolator

from bendscape.analysis.dataset.counts import DONE, realised_alpha
from bendscape.analysis.dataset.curves import Flags, Floats, local_smoother
from bendscape.analysis.estimate.estimators import LEAST_ALPHAS, LEAST_SEEDS, SMOOTHING
from bendscape.analysis.estimate.student import means
from bendscape.core.quadratic.finite_size.spiked_edge import critical_overlap


class Points(NamedTuple):
    """Y = N^(1/3) <overlap_sq_space> at all sizes and alphas with data, arrays of shape (n,): alpha, N,
    seeds, Y, the mean of Y smoothed over alpha or from a fit, the standard error of Y relative to that mean,
    the degrees of freedom of the errors of this size, and the skewness of its cells."""

    alpha: Floats
    N: Floats
    n_seeds: Floats
    Y: Floats
    mean: Floats
    relative_error: Floats
    error_dof: Floats
    skewness: Floats

    @property
    def error(self) -> Floats:
        """Standard error of Y."""
        return self.mean * self.relative_error

    def where(self, keep: Flags) -> Points:
        """The points selected by a mask."""
        return Points(*(values[keep] for values in self))

    def cells(self) -> Floats:
        """Number of cells of the size of each point, over all alphas kept."""
        return np.asarray([self.n_seeds[self.N == N].sum() for N in self.N], dtype=np.float64)

    def joint_error_dof(self) -> float:
        """Welch-Satterthwaite degrees of freedom of the error of an estimate to which all sizes contribute
        equally."""
        each = self.error_dof[np.unique(self.N, return_index=True)[1]]
        return float(len(each) ** 2 / (1 / each).sum())

    def smoothed(self, N: float, grid: Floats, width: float) -> tuple[Floats, Floats]:
        """Matrix from Y to the smooth curve of one size on a grid, (grid, n), and the curve's standard error;
        nan outside the alphas of that size."""
        here = self.N == N
        alpha = self.alpha[here]
        smoother = np.zeros((len(grid), len(self.Y)))
        smoother[:, here] = local_smoother(alpha, grid, SMOOTHING * width * N ** (-1 / 3), self.n_seeds[here])
        smoother[(grid < alpha.min()) | (grid > alpha.max())] = np.nan
        return smoother, np.sqrt((smoother**2) @ self.error**2)


def scaled_points(block: xr.Dataset, alpha: Floats, width: float) -> Points:
    """Y of all sizes of one model, with errors pooled over all alphas of a size.

    Parameters
    ----------
    block : xarray.Dataset
        ``status``, ``overlap_sq_space`` and, where there is one, ``alpha_realised``, in memory, dimensions
        (alpha, N, seed).
    alpha : array, shape (n,)
        Alphas of the campaign; the abscissae are those of
        :func:`bendscape.analysis.dataset.counts.realised_alpha`.
    width : float
        Width in alpha N^(1/3).

    Returns
    -------
    Points
        At alphas with ``LEAST_SEEDS`` cells, of sizes with ``LEAST_ALPHAS`` such alphas, where mean and
        spread are positive.

    Notes
    -----
    A few cells do not determine their own standard deviation, and an error that follows the fluctuation of
    its own mean gives low means more weight, which is a bias. So the mean is smoothed along alpha, and the
    relative standard deviation s(alpha) of one cell is modelled as the exponential of a parabola (a line with
    fewer than 12 alphas, a constant with fewer than 6), scaled so that its mean square is right. Its degrees
    of freedom follow from the scatter of the m squares about it: 2 (m - 3) over the variance of
    (measured/s)^2, but at most the cells minus one at each alpha. Cells at different alphas are taken as
    independent.
    """
    realised = realised_alpha(block, alpha)
    parts = []
    for k, N in enumerate(block["N"].values.astype(np.float64)):
        cells = N ** (1 / 3) * block["overlap_sq_space"].values[:, k]
        done = (block["status"].values[:, k] == DONE) & np.isfinite(cells)
        n = done.sum(axis=1)
        use = n >= LEAST_SEEDS
        if len(np.unique(realised[k][use])) < LEAST_ALPHAS:
            continue
        x, count = realised[k][use], n[use].astype(np.float64)
        kept = np.where(done, cells, np.nan)[use]
        Y, spread = np.nanmean(kept, axis=1), np.nanstd(kept, axis=1, ddof=1)
        mean = local_smoother(x, x, SMOOTHING * width * N ** (-1 / 3), count) @ Y
        good = (mean > 0) & (spread > 0)
        if not good.any():
            continue
        x, count, Y, mean, relative = x[good], count[good], Y[good], mean[good], (spread / mean)[good]
        parameters = 3 if len(x) >= 12 else 2 if len(x) >= 6 else 1
        centre = x.mean()
        smooth = np.exp(np.polyval(np.polyfit(x - centre, np.log(relative), parameters - 1), x - centre))
        scatter = (relative / smooth) ** 2
        smooth *= np.sqrt(scatter.mean())  # corrects the bias of averaging logarithms
        variance = np.var(scatter / scatter.mean(), ddof=1) if len(x) > 1 else np.inf
        most = (count - 1).sum()
        error_dof = min(most, max(1.0, 2 * (len(x) - parameters) / max(variance, 1e-12)))
        third = means(kept[good], done[use][good]).third * count**2  # per cell
        skewness = (third / (mean * smooth) ** 3).mean()
        each = np.broadcast_to([[N], [error_dof], [skewness]], (3, len(x)))
        parts.append(Points(x, each[0], count, Y, mean, smooth / np.sqrt(count), *each[1:]))
    if not parts:
        return Points(*[np.empty(0)] * 8)
    return Points(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def overlap_exponent(points: Points, alpha: float, width: float) -> tuple[float, float]:
    """Slope of log <overlap_sq_space> against log N at one load, and its standard error; nan if fewer than
    two sizes have the load within their alphas.

    -1/3 at criticality, larger where the overlap survives; a check of the kind of transition, which is not
    independent of alpha_c.
    """
    at = [(N, *points.smoothed(N, np.array([alpha]), width)) for N in np.unique(points.N)]
    spans = [(N, float(curve[0] @ points.Y), float(e[0])) for N, curve, e in at if np.isfinite(e[0])]
    if len(spans) < 2:
        return np.nan, np.nan
    N, Y, error = np.array(spans).T
    Y = np.maximum(Y, 1e-12)
    design = np.stack([np.ones_like(N), np.log(N)], axis=1) / (error / Y)[:, None]
    inverse = np.linalg.pinv(design)[1]
    return float(inverse @ (np.log(Y) * Y / error)) - 1 / 3, float(np.sqrt((inverse**2).sum()))


def finer(alpha: Floats, between: int = 4) -> Floats:
    """A grid from the first alpha to the last, with ``between`` steps from each alpha to the next."""
    places = np.arange(between * (len(alpha) - 1) + 1) / between
    return np.asarray(np.interp(places, np.arange(len(alpha)), alpha), dtype=np.float64)


@lru_cache(maxsize=32)
def _universal(r: int) -> PchipInterpolator:
    """Interpolant of log phi_r in asinh(w / r^(1/3)), for w from -150 to 150."""
    at = np.linspace(-5.7, 5.7, 457)
    phi = [critical_overlap(float(w), r) for w in r ** (1 / 3) * np.sinh(at)]
    return PchipInterpolator(at, np.log(phi))


def universal_overlap(w: Floats, r: int) -> Floats:
    """phi_r of :func:`bendscape.core.quadratic.finite_size.spiked_edge.critical_overlap` at many w, to 1e-4
    relative."""
    at = np.clip(np.arcsinh(w / r ** (1 / 3)), -5.7, 5.7)
    return np.asarray(np.exp(_universal(r)(at)), dtype=np.float64)


def lowest(grid: Floats, chi2: Floats) -> tuple[Floats, Floats]:
    """Position and value of the minimum of every row, by a parabola through three points; -inf or inf if it
    is at an end of the grid."""
    rows, k = np.arange(len(chi2)), chi2.argmin(axis=1)
    inner = np.clip(k, 1, len(grid) - 2)
    left, here, right = (chi2[rows, inner + step] for step in (-1, 0, 1))
    bend = np.maximum(left - 2 * here + right, 1e-300)
    step = np.clip(0.5 * (left - right) / bend, -1.0, 1.0)
    place = grid[inner] + step * (grid[1] - grid[0])
    place = np.where(k == 0, -np.inf, np.where(k == len(grid) - 1, np.inf, place))
    return place, here - 0.25 * (left - right) * step


def zero_of_line(points: Points, Y: Floats, grid: Floats) -> tuple[Floats, Floats, float]:
    """Zero of a weighted straight line through Y, for every row (-inf if the line does not rise); and, for
    the first row, the line over its standard error on a grid, and chi^2."""
    centre = points.alpha.mean()
    design = np.stack([np.ones_like(points.alpha), points.alpha - centre], axis=1) / points.error[:, None]
    target, inverse = Y / points.error, np.linalg.pinv(design)
    level, slope = (target @ inverse.T).T
    at = np.stack([np.ones_like(grid), grid - centre], axis=1) @ inverse
    residual = target[0] - design @ np.array([level[0], slope[0]])
    zero = np.where(slope > 0, centre - level / np.where(slope > 0, slope, 1.0), -np.inf)
    return zero, at @ target[0] / np.sqrt((at**2).sum(axis=1)), float((residual**2).sum())
