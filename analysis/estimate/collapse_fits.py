"""The critical load of one model by finite-size scaling of its mean overlap: four estimators with intervals
and resamplings.

Near the load alpha_c at which the residual overlap appears, Y = N^(1/3) <overlap_sq_space> follows

    Y = f(w) + c(w, N),    c = k_0(w) + N^(-1/3) k_1(w) + N^(-2/3) k_2(w),
    w = (alpha - alpha_c) N^(1/3) / width,

with f the master curve, a polynomial or the theory's A phi_r, and c the corrections to scaling. The k_j are
parabolas in u = w/0.5, and each coefficient has a normal prior with a standard deviation of ``correction``
Y(0) times 0.04, 1 and 4 (``PRIOR``). Unconstrained, they would cost most of the precision; without them
alpha_c is biased. With the prior their uncertainty is part of the interval.

k_0 has the mean Y(0) (-0.03 + 0.02 u) and k_1 Y(0) (-0.1 + 0.1 u) (``MEANS``). Near alpha_c overlaps of
sampled Hessians lie below theory's curve, on average by 4 per cent at u = 0 where the student is no narrower
than the teacher, and by more below alpha_c (``benchmarks/corrections.py``). Between N = 256 and 1024 that
hardly falls, but it may fall like N^(-1/3): hence a part of each. With a mean of 0 most fits took it for a
load that is too high.

k_0 is for corrections that fall too slowly for any power to be seen. Where the edge is nearly smooth, extreme
labels cause them: at (1, 1, 0.7) the mean overlaps of sampled Hessians at w = -0.5 are a tenth of Y(0) below
theory's curve at N = 256, 512 and 1024 alike. With k_1 alone, alpha_c was 2 per cent too high there, two to
five errors at a precision of 1 to 0.5 per cent (``tests/test_corrections.py``). Beside a free polynomial k_0
does nothing.

An interval holds all loads that the data do not reject: those at which chi^2, minimised over everything else,
exceeds its minimum by at most the square of Student's quantile. If the data are weak the interval extends
beyond the alphas. Where f is free, each end is judged in the window around it, since a single window placed
by the noise would reject the true load too often. Also, chi^2 rises no faster than expected for a curve of
the universal shape: with few data, intervals that end within the alphas would otherwise mostly do so by
chance. Resamplings (normal, with the standard errors of Y) are used only for the errors of differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.polynomial.polynomial import polyvander

from bendscape.analysis.dataset.curves import Flags, Floats, sign_change
from bendscape.analysis.estimate.collapse_points import Points, finer, lowest, universal_overlap, zero_of_line
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.laws import mean_overlap_sq
from bendscape.analysis.estimate.profiles import Fit, one_sided
from bendscape.core.quadratic.model import Model

ESTIMATORS: Mapping[str, str] = {
    "collapse": (
        "alpha_c that minimises chi^2 of Y = N^(1/3) <overlap_sq_space> around one polynomial in "
        "w = (alpha - alpha_c) N^(1/3) / width, with corrections to scaling"
    ),
    "theory_curve": (
        "the same with the theory's curve A phi_r(w) in place of the polynomial: alpha_c and the correction "
        "alone are free"
    ),
    "crossing": (
        "alpha at which Y of all sizes cross: where b of Y = f + g N^(-1/3) + h N^(-2/3) + b N^(1/3), fitted "
        "to the smooth curves of all sizes at one alpha, turns from negative to positive; near alpha_c, b is "
        "f'(0) (alpha - alpha_c)/width, g and h the corrections to scaling"
    ),
    "square_root": (
        "zero of a straight line through <overlap_sq_space> (the overlap itself vanishes like a square root, "
        "its square linearly) at the largest size with data between 1 and 3 width N^(-1/3) above alpha_c of "
        "the collapse; biased, mostly low, by the curvature and the rounding at this size, and its interval "
        "is longer by what that bias is on theory's curve"
    ),
}
"""The estimators by name, each with its definition."""

FLAGS: Mapping[str, str] = {
    "estimated": "estimated",
    "poor_fit": "estimated, but chi^2 has a p-value below 0.01: the interval is not to be trusted",
    "interval_leaves_the_alpha_range": "estimated, but the interval leaves the alphas searched",
    "not_enough_data": (
        "too few sizes, alphas or seeds in the window, or too noisy to tell on which side alpha_c lies"
    ),
    "no_theory_curve": "theory has no critical point for this p, p_star, a",
    "above_the_alpha_range": (
        "no minimum or crossing within the alphas measured: by the best fit alpha_c lies above them, and it "
        "is not below alpha_c_low"
    ),
    "below_the_alpha_range": (
        "no minimum or crossing within the alphas measured: by the best fit alpha_c lies below them, and it "
        "is not above alpha_c_high"
    ),
    "beyond_the_crossover": "every size lies beyond a tenth of the crossover size, where nothing collapses",
}
"""Outcomes of one estimate, in words; stored as int8, the index in this order."""

USUAL_WIDTH = 6.0
"""Width in alpha N^(1/3) if theory gives none."""
LINE = (1.0, 3.0)
"""Window of the straight line above alpha_c, in units of width N^(-1/3)."""

PRIOR = (0.04, 1.0, 4.0)
"""Standard deviations of the coefficients of the corrections of order N^0, N^(-1/3) and N^(-2/3), in units of
``Settings.correction``."""
MEANS = (-0.75, 0.5, 0.0, -0.1, 0.1, 0.0, 0.0, 0.0, 0.0)
"""Means of these coefficients, three for each order, in units of Y at alpha_c times ``PRIOR``: rounded, those
of the models of ``benchmarks/corrections.py`` with p >= p_star."""
_REACH, _PARABOLA = 0.5, 3  # w at which the terms of a correction have equal priors; its coefficients
_CORRECTIONS = _PARABOLA * len(PRIOR)
_RISE = 0.877  # d log phi_r / dw at w = 0, times r^(1/3)
_GRID = 121
_CLOSE, _NEAR = 4, 65  # steps of that grid, and points, around its minimum
_LINE_GRID = 801
_LEAST_POINTS = 3  # per size in the window
_LEAST_DOF = 3
LEAST_CELLS = 64
"""Per size, over all its alphas. With fewer, skewed cells do not determine their standard deviation well
enough for a comparison with a known curve."""


@dataclass(frozen=True)
class Settings:
    """Settings of a fit: half width of the window in units of width N^(-1/3), order of the polynomial,
    size of the corrections to scaling (standard deviation of the coefficients of that of order N^(-1/3), in
    units of Y at alpha_c), number of smallest sizes left out, start of the straight line's window."""

    window: float = 0.65
    order: int = 3
    correction: float = 0.5
    skip: int = 0
    line_start: float = LINE[0]

    def choices(self) -> dict[str, Settings]:
        """These settings and the variations from which the systematic error is determined."""
        return {
            "default": self,
            "narrow_window": replace(self, window=self.window / 1.5, line_start=1.25 * self.line_start),
            "wide_window": replace(self, window=self.window * 1.5, line_start=self.line_start / 1.25),
            "without_the_smallest_size": replace(self, skip=self.skip + 1),
            "half_the_correction": replace(self, correction=self.correction / 2),
            "twice_the_correction": replace(self, correction=2 * self.correction),
            "next_order": replace(self, order=self.order + 1),
        }


CHOICES = tuple(Settings().choices())
_INDIFFERENT = {  # choices that an estimator does not depend on
    "collapse": (),
    "theory_curve": ("next_order",),
    "crossing": ("next_order", "narrow_window", "wide_window"),
    "square_root": ("next_order", "half_the_correction", "twice_the_correction"),
}


class PointScaling:
    """The estimators of alpha_c of one model.

    Parameters
    ----------
    points : Points
        From :func:`bendscape.analysis.estimate.collapse_points.scaled_points`, at the sizes to be used.
    model : Model
    level : float
        Level of the intervals.
    n_boot, seed : int
        Number and random seed of the resamplings.
    """

    def __init__(self, points: Points, model: Model, level: float, n_boot: int, seed: int) -> None:
        self.points, self.model, self.level = points, model, level
        self.critical = critical_point(model)
        self.width = scale_width(model)
        self.sizes = np.unique(points.N)
        entropy = [seed, int(model.p), model.p_star, int(np.float64(model.a).view(np.uint64))]
        rng = np.random.default_rng(entropy)
        drawn = rng.standard_normal((n_boot, _CORRECTIONS))
        self.drawn = np.vstack([np.zeros((1, _CORRECTIONS)), drawn])
        noise = rng.standard_normal((n_boot, len(points.Y))) * points.error
        self.Y = np.vstack([points.Y, points.Y + noise])
        self._fits: dict[tuple[str, Settings], Fit] = {}

    def fits(self, name: str, settings: Settings) -> dict[str, Fit]:
        """One estimator for all choices that enter it, in the order of ``CHOICES``."""
        return {
            choice: self.fit(name, chosen)
            for choice, chosen in settings.choices().items()
            if choice not in _INDIFFERENT[name]
        }

    def fit(self, name: str, settings: Settings) -> Fit:
        """One estimator, by its name in ``ESTIMATORS``."""
        if (name, settings) not in self._fits:
            found: Fit = getattr(self, f"_{name}")(settings)
            self._fits[name, settings] = found.flagged(self.level)
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

    def _start(self, points: Points) -> float:
        """Centre of the first window: where the sizes cross, or the end of the alphas nearest to it."""
        crossing = self.fit("crossing", Settings(correction=0.0)).values
        where = float(np.median(points.alpha)) if crossing is None else float(crossing[0])
        return float(np.clip(where, points.alpha.min(), points.alpha.max()))

    def _scaled(
        self, settings: Settings, columns: Callable[[Floats], Floats], known: Callable[[Floats], Floats]
    ) -> Fit:
        """Least squares of Y against known(w) + columns(w) + corrections to scaling, minimised over
        alpha_c."""
        n_free = columns(np.zeros(1)).shape[-1]
        used = np.isin(self.points.N, self.sizes[settings.skip :])
        if not n_free:
            used &= self.points.cells() >= LEAST_CELLS
        if not used.any():
            return Fit(None, "not_enough_data")
        mean = self.points.mean.copy()

        def profile(centre: float) -> tuple[Flags, Points, Floats, Floats] | None:
            """The points in the window around a load, loads to search, and chi^2 there; errors are updated
            from the fit."""
            keep = used & self._window(centre, settings.window)
            here = self.points._replace(mean=mean).where(keep)
            if keep.sum() < n_free + 1 + _LEAST_DOF or len(np.unique(here.N)) < (2 if n_free else 1):
                return None
            reach = settings.window * self.width * here.N.min() ** (-1 / 3)
            ends = self.points.alpha[used].min(), self.points.alpha[used].max()
            grid = np.linspace(max(centre - reach, ends[0]), min(centre + reach, ends[1]), _GRID)
            chi2, fitted = self._chi2(here, self.Y[:1, keep], grid, settings, columns, known)
            mean[keep] = np.clip(fitted, 0.5 * self.points.mean[keep], 2 * self.points.mean[keep])
            return keep, here, grid, chi2[0]

        centre, seen = self._start(self.points.where(used)), set[bytes]()
        while found := profile(
            centre
        ):  # move the window to the estimate until it holds the same points again
            keep, here, grid, chi2 = found
            if keep.tobytes() in seen:
                break
            seen.add(keep.tobytes())
            centre = float(np.clip(lowest(grid, chi2[None])[0][0], grid[0], grid[-1]))
        if not found:
            return Fit(None, "not_enough_data")
        values, least = lowest(grid, self._chi2(here, self.Y[:, keep], grid, settings, columns, known)[0])
        if math.isfinite(values[0]):  # precise data need finer steps around the minimum
            reach = _CLOSE * (grid[1] - grid[0])
            near = np.linspace(max(values[0] - reach, grid[0]), min(values[0] + reach, grid[-1]), _NEAR)
            close = self._chi2(here, self.Y[:1, keep], near, settings, columns, known)[0]
            place, low = lowest(near, close)
            if math.isfinite(place[0]):
                values[0], least[0] = place[0], low[0]
            grid, order = np.unique(np.concatenate([grid, near]), return_index=True)
            chi2 = np.concatenate([chi2, close[0]])[order]
        fit = Fit(
            values,
            chi2=float(least[0]),
            dof=len(here.alpha) - n_free - 1,
            error_dof=here.joint_error_dof(),
            grid=grid,
            deviance=np.maximum(chi2 - min(float(chi2.min()), float(least[0])), 0.0),
        )
        # Each load is judged in the window around it, so each end of the interval in its own: where noise has
        # put the window, a polynomial can mimic a collapse; a known curve cannot.
        for end in np.clip(fit.interval(self.level), grid[0], grid[-1]) if n_free else ():
            if found := profile(float(end)):
                fit = fit.or_not_rejected(found[2], found[3] - found[3].min())
        nearest = float(np.clip(values[0], grid[0], grid[-1]))
        information, skewness = self._information(here, nearest, settings, columns)
        return fit.at_most(nearest, information) if n_free else fit._replace(skewness=skewness)

    def _window(self, centre: float, half_width: float) -> Flags:
        """The points around a load, from sizes with enough points there."""
        keep = np.abs(self.points.alpha - centre) * np.cbrt(self.points.N) <= half_width * self.width
        sizes, counts = np.unique(self.points.N[keep], return_counts=True)
        return np.asarray(keep & np.isin(self.points.N, sizes[counts >= _LEAST_POINTS]))

    def _chi2(
        self,
        points: Points,
        Y: Floats,
        grid: Floats,
        settings: Settings,
        columns: Callable[[Floats], Floats],
        known: Callable[[Floats], Floats],
    ) -> tuple[Floats, Floats]:
        """chi^2 of every row of Y at every alpha_c of the grid, minimised over the rest; and the best fit to
        the first row."""
        basis = self._basis(points, grid, settings, columns)
        n = len(points.alpha)
        prior = self._prior(settings, len(Y))
        w = (points.alpha - grid[:, None]) * np.cbrt(points.N) / self.width  # (grid, point)
        # chi^2 = |t|^2 - |t Q|^2 for t = (Y - known)/error, without an array of (grid, resampling, point)
        t, base = Y / points.error, known(w) / points.error
        along = np.hstack([t, prior]) @ basis - base[:, None] @ basis[:, :n]
        square = (t**2).sum(axis=1) + (prior**2).sum(axis=1) - 2 * base @ t.T + (base**2).sum(axis=1)[:, None]
        chi2 = np.asarray((square - (along**2).sum(axis=2)).T)
        best = chi2[0].argmin()
        return chi2, (base[best] + basis[best, :n] @ along[best, 0]) * points.error

    def _prior(self, settings: Settings, rows: int) -> Floats:
        """The prior's means, and resamplings, in its standard deviations."""
        if not settings.correction > 0:
            return np.empty((rows, 0))
        return np.asarray(self.drawn[:rows] + np.array(MEANS) / settings.correction)

    def _basis(
        self, points: Points, grid: Floats, settings: Settings, columns: Callable[[Floats], Floats]
    ) -> Floats:
        """The regressors at every alpha_c of the grid: orthonormal columns over points and prior."""
        n_prior = _CORRECTIONS if settings.correction > 0 else 0
        unit = settings.correction * self._level(points)  # standard deviation of the coefficients of g
        w = (points.alpha - grid[:, None]) * np.cbrt(points.N) / self.width
        free = columns(w)
        corrections = unit * corrections_to_scaling(w, points.N)[..., :n_prior]
        n, n_free = len(points.alpha), free.shape[-1]
        design = np.zeros((len(grid), n + n_prior, n_free + n_prior))
        design[:, :n] = np.concatenate([free, corrections], axis=-1) / points.error[:, None]
        design[:, n:, n_free:] = np.eye(n_prior)
        return np.asarray(np.linalg.qr(design)[0])

    def _level(self, points: Points) -> float:
        """Y at alpha_c, from theory or, without it, approximately."""
        level = self.critical.overlap_level
        return float(points.Y.mean()) if math.isnan(level) else level

    def _information(
        self, points: Points, place: float, settings: Settings, columns: Callable[[Floats], Floats]
    ) -> tuple[float, float]:
        """Expected rise of chi^2 with the squared distance from alpha_c, for a curve of the universal shape;
        and the skewness of the weighted sum of Y that determines alpha_c."""
        r, root = int(self.model.p) * self.model.p_star, np.cbrt(points.N)
        w, step = (points.alpha - place) * root / self.width, 0.01
        phi = universal_overlap(np.stack([w - step, w + step, np.zeros_like(w)]), r)
        slope = (
            self._level(points) * (phi[1] - phi[0]) / (2 * step * phi[2]) * root / self.width / points.error
        )
        basis = self._basis(points, np.array([place]), settings, columns)[0]
        along = slope @ basis[: len(w)]
        information = float(slope @ slope - along @ along)
        weights = slope - basis[: len(w)] @ along  # of Y/error
        third = float((weights**3 * points.skewness / np.sqrt(points.n_seeds)).sum())
        return information, third / information**1.5

    def _crossing(self, settings: Settings) -> Fit:
        """Where b of Y = f + g N^(-1/3) + h N^(-2/3) + b N^(1/3) turns positive, with Y the smooth curves of
        all sizes."""
        sizes = self.sizes[settings.skip :]
        if len(sizes) < 2:
            return Fit(None, "not_enough_data")
        grid = finer(np.unique(self.points.alpha[np.isin(self.points.N, sizes)]))
        curves, errors = zip(*(self.points.smoothed(N, grid, self.width) for N in sizes), strict=True)
        error = np.stack(errors, axis=1)  # (grid, size)
        spanned = np.isfinite(error).sum(axis=1) >= 2
        if not spanned.any():
            return Fit(None, "not_enough_data")
        grid, error = grid[spanned], error[spanned]
        smoother = np.nan_to_num(np.stack([curve[spanned] for curve in curves], axis=1))
        weight = np.nan_to_num(1 / error)
        n, root = len(sizes), np.cbrt(sizes)
        Y = smoother @ self.points.Y  # (grid, size)
        # g and h, those of order N^(-1/3) and N^(-2/3), are normal, with Y here in place of Y at alpha_c
        level = np.abs((weight**2 * Y).sum(axis=1) / (weight**2).sum(axis=1))
        unit = settings.correction * level
        orders = tuple(enumerate(PRIOR))[1:] if settings.correction > 0 else ()  # that of N^0 is in f
        prior = self._prior(settings, len(self.Y))[:, _PARABOLA::_PARABOLA]  # at w = 0
        n_prior = len(orders)
        design = np.zeros((len(grid), n + n_prior, 2 + n_prior))
        design[:, :n, 0], design[:, :n, 1] = weight, weight * root / root[-1]
        if n_prior:
            scale = unit[:, None, None] * np.stack([size / root**k for k, size in orders], axis=-1)
            design[:, :n, 2:], design[:, n:, 2:] = weight[..., None] * scale, np.eye(n_prior)
        inverse = np.linalg.pinv(design)
        of_points = np.einsum("gs,gsn->gn", inverse[:, 1, :n] * weight, smoother)
        b = self.Y @ of_points.T + prior @ inverse[:, 1, n:].T  # (resampling, grid)
        values = sign_change(grid, b)
        error_of_b = np.sqrt((inverse[:, 1] ** 2).sum(axis=1))
        at = int(np.abs(grid - np.clip(values[0], grid[0], grid[-1])).argmin())
        target = np.append(weight[at] * Y[at], prior[0])
        residual = target - design[at] @ (inverse[at] @ target)
        used = np.isin(self.points.N, sizes[weight[at] > 0])
        searched, deviance = one_sided(grid, b[0] / error_of_b, float(values[0]))
        rise = _RISE * (int(self.model.p) * self.model.p_star) ** (-1 / 3)
        steepness = rise * float(level[at]) * root[-1] / self.width
        nearest = float(np.clip(values[0], grid[0], grid[-1]))
        fit = Fit(
            values,
            chi2=float(residual @ residual),
            dof=int((weight[at] > 0).sum()) - 2,
            error_dof=self.points.where(used).joint_error_dof(),
            grid=searched,
            deviance=deviance,
        )
        return fit.at_most(nearest, (steepness / float(error_of_b[at])) ** 2)

    def _square_root(self, settings: Settings) -> Fit:
        collapsed = self.fit("collapse", replace(settings, line_start=LINE[0]))
        line = self._line(settings)
        if line is None or collapsed.flag != "estimated":
            return Fit(None, "not_enough_data")
        if math.isnan(self.critical.alpha):
            return Fit(None, "no_theory_curve")
        here = self.points.where(line)
        grid = np.linspace(0.0, float(here.alpha.max()), _LINE_GRID)
        zero, z, chi2 = zero_of_line(here, self.Y[:, line], grid)
        searched, deviance = one_sided(grid, z, float(zero[0]))
        return Fit(
            zero,
            chi2=chi2,
            dof=len(here.alpha) - 2,
            error_dof=here.joint_error_dof(),
            grid=searched,
            deviance=deviance,
            bias=self._bias(here),
        )

    def _line(self, settings: Settings) -> Flags | None:
        """The largest size's points in the window of the straight line, or None."""
        centre = self.fit("collapse", replace(settings, line_start=LINE[0])).values
        if centre is None or not np.isfinite(centre[0]):
            return None
        w = (self.points.alpha - centre[0]) * np.cbrt(self.points.N) / self.width
        keep = (w >= settings.line_start) & (w <= LINE[1])
        for N in self.sizes[::-1]:
            here: Flags = keep & (self.points.N == N)
            if here.sum() >= 2 + _LEAST_DOF:
                return here
        return None

    def square_root_bias(self, settings: Settings) -> float:
        """What the straight line gives for the theory's own curve at the same points, minus the critical
        load; nan without theory."""
        line = self._line(settings)
        return (
            math.nan
            if line is None or math.isnan(self.critical.alpha)
            else self._bias(self.points.where(line))
        )

    def _bias(self, line: Points) -> float:
        N, alpha = float(line.N[0]), line.alpha.tolist()
        Y = N ** (1 / 3) * np.array([[mean_overlap_sq(self.model, a, N) for a in alpha]])
        return float(zero_of_line(line, Y, line.alpha)[0][0]) - self.critical.alpha


def corrections_to_scaling(w: Floats, N: Floats) -> Floats:
    """The regressors of the corrections to scaling, one column for each coefficient, all orders one after the
    other, for coefficients with a prior of standard deviation ``correction`` in units of Y at alpha_c."""
    powers, root = polyvander(w / _REACH, _PARABOLA - 1), np.cbrt(N)[..., None]
    return np.concatenate([scale * powers / root**k for k, scale in enumerate(PRIOR)], axis=-1)


def scale_width(model: Model) -> float:
    """Width in alpha N^(1/3) from theory, or ``USUAL_WIDTH``."""
    width = critical_point(model).width
    return USUAL_WIDTH if math.isnan(width) else width
