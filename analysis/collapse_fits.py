"""The critical load of one model by finite-size scaling of its mean overlap: four estimators, each with its
resamplings.

Around the load alpha_c at which the residual overlap is born, Y = N^(1/3) <overlap_sq_space> follows

    Y = f(w) + N^(-1/3) g(w),    w = (alpha - alpha_c) N^(1/3) / width,

f the master curve and g the first correction to scaling. f can be a polynomial or the theory's A phi_r, and g
is a parabola whose coefficients are unknown but not arbitrary: each is taken to be normal with mean 0 and
standard deviation ``correction`` times Y(0). A free g costs most of the precision and none at all biases;
this way its uncertainty is part of the interval, because every resampling draws another mean for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.polynomial.polynomial import polyvander
from scipy.stats import chi2 as chi2_law

from bendscape.analysis.collapse_points import (
    Points,
    lowest,
    scaled_points,
    universal_overlap,
    zero_of_line,
)
from bendscape.analysis.curves import Floats
from bendscape.analysis.estimators import PointCurves
from bendscape.core.overlap_law import mean_overlap_sq

ESTIMATORS: Mapping[str, str] = {
    "collapse": (
        "alpha_c that minimises chi^2 of Y = N^(1/3) <overlap_sq_space> around one polynomial in "
        "w = (alpha - alpha_c) N^(1/3) / width, with a correction to scaling N^(-1/3) g(w)"
    ),
    "theory_curve": (
        "the same with the theory's curve A phi_r(w) in place of the polynomial: alpha_c and the correction "
        "alone are free"
    ),
    "crossing": (
        "alpha at which Y of successive sizes N, N' cross, extrapolated by alpha_c + K (N N')^(-1/3), which "
        "is what a correction to scaling N^(-1/3) g makes of it to first order, K = width g(0)/f'(0)"
    ),
    "square_root": (
        "zero of a straight line through <overlap_sq_space> (the overlap itself vanishes like a square root, "
        "its square linearly) at the largest size with data between 1 and 3 width N^(-1/3) above alpha_c of "
        "the collapse; biased, mostly low, by the curvature and the rounding at this size"
    ),
}
"""Estimators by name, each with its definition."""

FLAGS: Mapping[str, str] = {
    "estimated": "estimated",
    "poor_fit": "estimated, but chi^2 has a p-value below 0.01: the interval is not to be trusted",
    "interval_leaves_the_alpha_range": "estimated, but the interval leaves the alphas searched",
    "not_enough_data": "too few sizes, alphas or seeds in the window",
    "no_theory_curve": "theory has no critical point for this p, p_star, a",
    "above_the_alpha_range": "no minimum or crossing within the alphas measured: alpha_c lies above them",
    "below_the_alpha_range": "no minimum or crossing within the alphas measured: alpha_c lies below them",
    "beyond_the_crossover": "every size lies beyond a tenth of the crossover size, where nothing collapses",
}
"""Outcomes of one estimate, each in words; stored as int8, the place in this order."""

POOR = 0.01
USUAL_WIDTH = 6.0
"""Width in alpha N^(1/3) where theory has none."""
LINE = (1.0, 3.0)
"""Window of the straight line above alpha_c, in units of width N^(-1/3)."""

_CORRECTION = 3  # coefficients of g
_GRID = 121
_LEAST_POINTS = 3  # of one size in the window
_LEAST_DOF = 3
_MOVES = 12


@dataclass(frozen=True)
class Settings:
    """How a collapse is fitted: half width of the window in units of width N^(-1/3), order of the polynomial,
    standard deviation of the coefficients of g in units of Y at alpha_c, sizes left out at the small end,
    start of the straight line's window."""

    window: float = 0.65
    order: int = 3
    correction: float = 0.5
    skip: int = 0
    line_start: float = LINE[0]

    def choices(self) -> dict[str, Settings]:
        """These settings and those that a systematic error is read off."""
        return {
            "default": self,
            "narrow_window": replace(self, window=self.window / 1.5, line_start=1.25 * self.line_start),
            "wide_window": replace(self, window=self.window * 1.5, line_start=self.line_start / 1.25),
            "without_the_smallest_size": replace(self, skip=self.skip + 1),
            "no_correction": replace(self, correction=0.0),
            "twice_the_correction": replace(self, correction=2 * self.correction),
            "next_order": replace(self, order=self.order + 1),
        }


CHOICES = tuple(Settings().choices())
_INDIFFERENT = {  # what does not enter an estimator at all
    "collapse": (),
    "theory_curve": ("next_order",),
    "crossing": ("next_order", "narrow_window", "wide_window"),
    "square_root": ("next_order", "no_correction", "twice_the_correction"),
}


class Fit(NamedTuple):
    """One estimate with its resamplings (row 0 is the estimate), or the flag that says why there is none;
    chi^2 and its degrees of freedom; the first and the last alpha searched."""

    values: Floats | None
    flag: str = "estimated"
    chi2: float = math.nan
    dof: int = 0
    first: float = math.nan
    last: float = math.nan

    @property
    def p_value(self) -> float:
        """Probability of a larger chi^2, nan without degrees of freedom."""
        return float(chi2_law.sf(self.chi2, self.dof)) if self.dof > 0 else math.nan


def _flagged(found: Fit) -> Fit:
    """A fit with the flag that its values and chi^2 ask for."""
    if found.values is None:
        return found
    value = float(found.values[0])
    if not math.isfinite(value):
        return found._replace(flag="above_the_alpha_range" if value > 0 else "below_the_alpha_range")
    return found._replace(flag="poor_fit") if found.p_value < POOR else found


class PointScaling:
    """The estimators of alpha_c of one model.

    Parameters
    ----------
    curves : PointCurves
        Bootstrap mean curves of one model at the sizes that are to be used.
    """

    def __init__(self, curves: PointCurves) -> None:
        self.curves, self.model, self.critical = curves, curves.model, curves.critical
        self.points = scaled_points(curves)
        self.sizes = np.unique(self.points.N)
        width = self.critical.width
        self.width = USUAL_WIDTH if math.isnan(width) else width
        model = self.model
        entropy = [curves.seed, int(model.p), model.p_star, int(np.float64(model.a).view(np.uint64))]
        drawn = np.random.default_rng(entropy).standard_normal((curves.n_boot, _CORRECTION + 1))
        self.drawn = np.vstack([np.zeros((1, _CORRECTION + 1)), drawn])
        self._fits: dict[tuple[str, Settings], Fit] = {}
        self.pairs = [
            next(draws for draws in curves.draws(k) if draws.name == "alpha_pair")
            for k in range(len(curves.sizes))
        ]

    def fits(self, name: str, settings: Settings) -> dict[str, Fit]:
        """One estimator by all the choices that enter it, in the order of ``CHOICES``."""
        return {
            choice: self.fit(name, chosen)
            for choice, chosen in settings.choices().items()
            if choice not in _INDIFFERENT[name]
        }

    def fit(self, name: str, settings: Settings) -> Fit:
        """One estimator, by its name in ``ESTIMATORS``."""
        if (name, settings) not in self._fits:
            self._fits[name, settings] = _flagged(getattr(self, f"_{name}")(settings))
        return self._fits[name, settings]

    def _collapse(self, settings: Settings) -> Fit:
        if len(self.sizes) - settings.skip < 2:
            return Fit(None, "not_enough_data")

        def columns(w: Floats) -> Floats:
            return np.asarray(polyvander(w, settings.order))

        return self._scaled(settings, columns, lambda w: np.zeros_like(w))

    def _theory_curve(self, settings: Settings) -> Fit:
        r = int(self.model.p) * self.model.p_star
        if math.isnan(self.critical.amplitude):
            return Fit(None, "no_theory_curve")
        return self._scaled(
            settings,
            lambda w: np.empty((*w.shape, 0)),
            lambda w: self.critical.amplitude * universal_overlap(w, r),
        )

    def _start(self) -> float:
        """Where a window is centred first: the crossing of two sizes, or theory's threshold."""
        crossings = [float(draws.values[0]) for draws in self.pairs if draws.values is not None]
        crossings = [value for value in crossings if math.isfinite(value)]
        if crossings:
            return float(np.median(crossings))
        known = self.critical.alpha
        return float(np.median(self.points.alpha)) if math.isnan(known) else known

    def _scaled(
        self, settings: Settings, columns: Callable[[Floats], Floats], known: Callable[[Floats], Floats]
    ) -> Fit:
        """Least squares of Y on known(w) + columns(w) + N^(-1/3) g(w), its minimum over alpha_c."""
        used = self.points.where(np.isin(self.points.N, self.sizes[settings.skip :]))
        if not len(used.alpha):
            return Fit(None, "not_enough_data")
        centre, seen = self._start(), set()
        for _ in range(_MOVES):  # the window follows the estimate until it holds the same points again
            keep = np.abs(used.alpha - centre) * np.cbrt(used.N) <= settings.window * self.width
            sizes, counts = np.unique(used.N[keep], return_counts=True)
            keep &= np.isin(used.N, sizes[counts >= _LEAST_POINTS])
            here = used.where(keep)
            n_free = columns(np.zeros(1)).shape[-1]
            n_sizes = len(np.unique(here.N))
            if len(here.alpha) < n_free + 1 + _LEAST_DOF or n_sizes < (2 if n_free else 1):
                return Fit(None, "not_enough_data")
            reach = settings.window * self.width * here.N.min() ** (-1 / 3)
            first = max(centre - reach, float(used.alpha.min()))
            last = min(centre + reach, float(used.alpha.max()))
            grid = np.linspace(first, last, _GRID)
            place = lowest(grid, self._chi2(here, grid, settings, columns, known, rows=1))[0][0]
            moved = float(np.clip(place, first, last))
            if keep.tobytes() in seen:
                break
            seen.add(keep.tobytes())
            centre = moved
        values, chi2 = lowest(grid, self._chi2(here, grid, settings, columns, known))
        return Fit(values, "estimated", float(chi2[0]), len(here.alpha) - n_free - 1, first, last)

    def _chi2(
        self,
        points: Points,
        grid: Floats,
        settings: Settings,
        columns: Callable[[Floats], Floats],
        known: Callable[[Floats], Floats],
        rows: int | None = None,
    ) -> Floats:
        """chi^2 of every resampling (or the first rows) at every alpha_c of the grid, all else fitted."""
        cube_root = np.cbrt(points.N)
        level = self.critical.overlap_level
        level = float(points.Y[0].mean()) if math.isnan(level) else level
        n_prior = _CORRECTION if settings.correction > 0 else 0
        prior = self.drawn[:rows, :n_prior]  # in units of its standard deviation
        unit = settings.correction * level  # coefficients of g in units of their standard deviation
        w = (points.alpha - grid[:, None]) * cube_root / self.width  # (grid, point)
        free = columns(w)
        g = unit * polyvander(w, _CORRECTION - 1)[..., :n_prior] / cube_root[:, None]
        n, n_free = len(points.alpha), free.shape[-1]
        design = np.zeros((len(grid), n + n_prior, n_free + n_prior))
        design[:, :n] = np.concatenate([free, g], axis=-1) / points.error[:, None]
        design[:, n:, n_free:] = np.eye(n_prior)
        basis = np.linalg.qr(design)[0]
        # chi^2 = |t|^2 - |t Q|^2 for t = (Y - known)/error, without an array of (grid, resampling, point)
        Y, base = points.Y[:rows] / points.error, known(w) / points.error
        along = np.hstack([Y, prior]) @ basis - base[:, None] @ basis[:, :n]
        square = (Y**2).sum(axis=1) + (prior**2).sum(axis=1) - 2 * base @ Y.T + (base**2).sum(axis=1)[:, None]
        return np.asarray((square - (along**2).sum(axis=2)).T)

    def _crossing(self, settings: Settings) -> Fit:
        """Generalised least squares of the crossings, with K drawn like the other corrections."""
        pairs = [k for k, draws in enumerate(self.pairs) if draws.values is not None][settings.skip :]
        if not pairs:
            return Fit(None, "not_enough_data")
        first = min(self.pairs[k].first for k in pairs)
        last = max(self.pairs[k].last for k in pairs)
        crossings = np.array([self.pairs[k].values for k in pairs]).T
        met = np.isfinite(crossings[0])
        if not met.any():  # no two sizes cross within the alphas: on which side they would, the largest say
            return Fit(crossings[:1, -1], "estimated", first=first, last=last)
        sizes = [self.curves.sizes[k] for k in pairs]
        larger = [float(self.sizes[self.sizes > N][0]) for N in sizes]
        x = ((np.array(sizes) * larger) ** (-1 / 3))[met]
        crossings = np.clip(
            crossings,
            np.array([self.pairs[k].first for k in pairs]),
            np.array([self.pairs[k].last for k in pairs]),
        )[:, met]
        covariance = np.atleast_2d(np.cov(crossings[1:].T)) + 1e-12 * np.eye(len(x))
        root = np.linalg.inv(np.linalg.cholesky(covariance))
        K = settings.correction * self.width
        design, target = root @ np.ones((len(x), 1)), crossings @ root.T
        if K > 0:
            design = np.vstack([np.hstack([design, root @ (K * x[:, None])]), [[0.0, 1.0]]])
            target = np.hstack([target, self.drawn[:, -1:]])
        solution = target @ np.linalg.pinv(design).T
        chi2 = float(((target[0] - design @ solution[0]) ** 2).sum())
        return Fit(solution[:, 0], "estimated", chi2, len(x) - 1, first, last)

    def _square_root(self, settings: Settings) -> Fit:
        line = self._line(settings)
        if line is None:
            return Fit(None, "not_enough_data")
        zero, chi2 = zero_of_line(line, line.Y)
        return Fit(zero, "estimated", chi2, len(line.alpha) - 2, 0.0, float(line.alpha.max()))

    def _line(self, settings: Settings) -> Points | None:
        """The largest size's points in the window of the straight line, or None."""
        centre = self.fit("collapse", replace(settings, line_start=LINE[0])).values
        if centre is None or not np.isfinite(centre[0]):
            return None
        w = (self.points.alpha - centre[0]) * np.cbrt(self.points.N) / self.width
        keep = (w >= settings.line_start) & (w <= LINE[1])
        for N in self.sizes[::-1]:
            here = keep & (self.points.N == N)
            if here.sum() >= 2 + _LEAST_DOF:
                return self.points.where(here)
        return None

    def overlap_exponent(self, alpha: float) -> Floats:
        """Slope of log <overlap_sq_space> against log N at one load, every row a resampling; nan where fewer
        than two sizes have it within their alphas.

        -1/3 where the overlap is critical, more where it survives; a check on the kind, not independent of
        alpha_c.
        """
        spans = [
            (N, curve)
            for N, curves in zip(self.curves.sizes, self.curves.curves, strict=True)
            if (curve := curves.get("overlap")) and curve.alpha.min() <= alpha <= curve.alpha.max()
        ]
        if len(spans) < 2:
            return np.full(len(self.drawn), np.nan)
        log_N = np.log([N for N, _ in spans])
        Y = np.stack([curve.smoothed(np.array([alpha]))[:, 0] for _, curve in spans], axis=1)
        logs = np.log(np.maximum(Y, 1e-12))
        weight = 1 / np.maximum(logs[1:].std(axis=0), 1e-12)
        design = np.stack([np.ones_like(log_N), log_N], axis=1) * weight[:, None]
        return np.asarray((logs * weight) @ np.linalg.pinv(design)[1] - 1 / 3)

    def square_root_bias(self, settings: Settings) -> float:
        """What the straight line makes of the theory's own curve at the same points, less the critical load;
        nan where theory has none."""
        line = self._line(settings)
        if line is None or math.isnan(self.critical.alpha):
            return math.nan
        Y = [
            N ** (1 / 3) * mean_overlap_sq(self.model, a, N) for a, N in zip(line.alpha, line.N, strict=True)
        ]
        return float(zero_of_line(line, np.array([Y]))[0][0]) - self.critical.alpha
