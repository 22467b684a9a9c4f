"""What a collapse is fitted to: scaled mean overlaps of all sizes with their errors, the universal curve, and
the two minimisations."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from bendscape.analysis.curves import Flags, Floats
from bendscape.analysis.estimators import PointCurves
from bendscape.core.spiked_edge import critical_overlap


class Points(NamedTuple):
    """Y at all sizes and alphas with data: alpha, N, resampled Y (n_boot + 1, n), standard error of Y."""

    alpha: Floats
    N: Floats
    Y: Floats
    error: Floats

    def where(self, keep: Flags) -> Points:
        """Those of them that are kept."""
        return Points(self.alpha[keep], self.N[keep], self.Y[:, keep], self.error[keep])


def scaled_points(curves: PointCurves) -> Points:
    """Y of all sizes together, each error smoothed along alpha; only where mean and spread are positive."""
    parts = []
    for N, at_size in zip(curves.sizes, curves.curves, strict=True):
        if "overlap" not in at_size:
            continue
        curve = at_size["overlap"]
        alpha, n = curve.alpha, curve.n_seeds
        mean = curve.smoothed(alpha)[0]
        use = mean > 0
        spread = curve.means[1:].std(axis=0) * np.sqrt(n / (n - 1))
        # An error that follows the fluctuations of its own mean gives low means more weight, and biases: so
        # both are smoothed, the relative error as that of one cell.
        use &= spread > 0
        relative = np.log(np.where(use, spread, 1.0) * np.sqrt(n) / np.where(use, mean, 1.0))
        degree = 2 if use.sum() >= 6 else 0
        if not use.any():
            continue
        centre = alpha[use].mean()
        smooth = np.exp(np.polyval(np.polyfit(alpha[use] - centre, relative[use], degree), alpha - centre))
        smooth *= np.sqrt(np.mean((np.exp(relative[use]) / smooth[use]) ** 2))  # logs average too low
        error = smooth * mean / np.sqrt(n)
        parts.append(
            Points(alpha[use], np.full(use.sum(), float(N)), curve.means[:, use], np.asarray(error[use]))
        )
    if not parts:
        return Points(*(np.empty(0),) * 2, np.empty((curves.n_boot + 1, 0)), np.empty(0))
    return Points(*(np.concatenate([part[i] for part in parts], axis=-1) for i in range(4)))


@lru_cache(maxsize=32)
def _universal(r: int) -> PchipInterpolator:
    """log phi_r on a fine grid in asinh(w / r^(1/3)), from -150 to 150."""
    at = np.linspace(-5.7, 5.7, 457)
    phi = [critical_overlap(float(w), r) for w in r ** (1 / 3) * np.sinh(at)]
    return PchipInterpolator(at, np.log(phi))


def universal_overlap(w: Floats, r: int) -> Floats:
    """phi_r of :func:`bendscape.core.spiked_edge.critical_overlap` at many w at once, to 1e-4 relative."""
    at = np.clip(np.arcsinh(w / r ** (1 / 3)), -5.7, 5.7)
    return np.asarray(np.exp(_universal(r)(at)), dtype=np.float64)


def lowest(grid: Floats, chi2: Floats) -> tuple[Floats, Floats]:
    """Place and value of the minimum of every row, by a parabola through three points; -inf and inf where it
    is at an end of the grid."""
    rows, k = np.arange(len(chi2)), chi2.argmin(axis=1)
    inner = np.clip(k, 1, len(grid) - 2)
    left, here, right = (chi2[rows, inner + step] for step in (-1, 0, 1))
    bend = np.maximum(left - 2 * here + right, 1e-300)
    step = np.clip(0.5 * (left - right) / bend, -1.0, 1.0)
    place = grid[inner] + step * (grid[1] - grid[0])
    place = np.where(k == 0, -np.inf, np.where(k == len(grid) - 1, np.inf, place))
    return place, here - 0.25 * (left - right) * step


def zero_of_line(points: Points, Y: Floats) -> tuple[Floats, float]:
    """Where a weighted straight line through Y vanishes, for every row, and chi^2 of the first."""
    centre = points.alpha.mean()
    design = np.stack([np.ones_like(points.alpha), points.alpha - centre], axis=1) / points.error[:, None]
    target = Y / points.error
    level, slope = (target @ np.linalg.pinv(design).T).T
    residual = target[0] - design @ np.array([level[0], slope[0]])
    zero = np.where(slope > 0, centre - level / np.where(slope > 0, slope, 1.0), -np.inf)
    return zero, float((residual**2).sum())
