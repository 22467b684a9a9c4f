"""The critical load alpha_c of the two-layer network as the quantity of a target: which estimator speaks for
a model, whether it can be trusted, and its model of the mean.

The estimator is `theory_curve` where theory has a curve and the data do not refute it, otherwise `collapse`.
The rule looks at tests of the fit, never at the estimated value, and hence does not choose by chance the
estimate that looks best.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.polynomial import polynomial
from scipy.stats import norm

from bendscape.analysis.dataset.curves import Floats, half_width
from bendscape.analysis.dataset.models import alpha_axis, model_of
from bendscape.analysis.estimate.collapse import ANALYSIS
from bendscape.analysis.estimate.collapse_fits import (
    FLAGS,
    LEAST_CELLS,
    MEANS,
    PointScaling,
    Settings,
    corrections_to_scaling,
    scale_width,
)
from bendscape.analysis.estimate.collapse_points import Points, scaled_points, universal_overlap
from bendscape.analysis.estimate.critical import SAFE, critical_point
from bendscape.analysis.estimate.estimators import LEAST_SEEDS
from bendscape.analysis.estimate.options import usual_least_size
from bendscape.analysis.estimate.profiles import Fit
from bendscape.analysis.estimate.student import ONE_SIGMA
from bendscape.analysis.refine.design_model import DesignModel, Fitted, Quantity, Shift
from bendscape.analysis.refine.refiner import refiner
from bendscape.analysis.refine.trust import CERTAIN, REFUTED, compared, halved, judged, worse
from bendscape.core.quadratic.finite_size.crossover import crossover_size
from bendscape.core.quadratic.model import Model

LEVEL = 0.95
TRUSTED = 0.5
"""Cells are added where |w| is at most this. The fits use |w| up to 0.65: a design that is not confined walks
along the tangent of its curve to where the curve no longer holds, even below alpha = 0."""

_N_BOOT = 200
_ORDER = Settings().order
_Z = float(norm.isf((1 - LEVEL) / 2))
_SIDES = ("above_the_alpha_range", "below_the_alpha_range")


def fit_critical_load(block: xr.Dataset) -> Fitted:
    """alpha_c of one model, by the rule of this module, with its design.

    Parameters
    ----------
    block : xarray.Dataset
        One model of a sweep of the network, in memory.

    Returns
    -------
    Fitted
        ``error`` is the largest of half the 68 % interval and half the 95 % interval over its normal
        quantile. Suspect or refuted: chi^2; theory's curve and the collapse disagree; odd and even seeds
        disagree.
    """
    alpha_dim = alpha_axis(block)
    block = block.transpose(alpha_dim, "N", "seed")
    model, sizes = model_of(block), block["N"].values
    used = (sizes >= usual_least_size(block)) & (sizes <= crossover_size(model) / SAFE)
    if not used.any():
        return Fitted(reason=FLAGS["beyond_the_crossover"], bounded=True)
    block = block.isel(N=np.flatnonzero(used))
    scaling = _scaling(block, model)
    fits = {name: scaling.fit(name, Settings()) for name in ("theory_curve", "collapse")}
    name = "theory_curve" if _holds(fits["theory_curve"], fits["collapse"]) else "collapse"
    fit = fits[name]
    value, error, (low, high) = _numbers(fit)
    if fit.values is None or not math.isfinite(value):
        return Fitted(reason=FLAGS[fit.flag], bounded=fit.flag in _SIDES, estimator=name)
    verdict = judged(fit.p_value, f"chi^2 {fit.chi2:.3g} with {fit.dof} degrees of freedom")
    if name == "theory_curve":
        other, other_error, _ = _numbers(fits["collapse"])
        words = f"theory's curve and the collapse ({other:.4g}) disagree"
        verdict = worse(verdict, compared(value - other, other_error, words))
    halves = [_numbers(_scaling(half, model).fit(name, Settings())) for half in halved(block, "seed")]
    words = f"odd and even seeds ({halves[0][0]:.4g}, {halves[1][0]:.4g}) disagree"
    both = math.hypot(halves[0][1], halves[1][1])
    verdict = worse(verdict, compared(halves[0][0] - halves[1][0], both, words))
    design = critical_load_design(
        scaling.points, model, name, value, error, tuple(block["N"].values.tolist())
    )
    shifts = _shifts(scaling, name, fit)
    return Fitted(value, error, *verdict, False, design, name, low, high, shifts)


def _scaling(block: xr.Dataset, model: Model) -> PointScaling:
    points = scaled_points(block, block["alpha"].values.astype(np.float64), scale_width(model))
    return PointScaling(points, model, LEVEL, _N_BOOT, 0)


def _holds(curve: Fit, collapse: Fit) -> bool:
    """Whether theory's curve exists and is not refuted by chi^2 or by the collapse."""
    if curve.flag == "no_theory_curve":
        return False
    if curve.values is None:
        return True  # no data yet
    (value, _, _), (other, error, _) = _numbers(curve), _numbers(collapse)
    apart = collapse.flag == "estimated" and abs(value - other) > CERTAIN * error
    return not (curve.p_value < REFUTED or apart)


def _numbers(fit: Fit) -> tuple[float, float, tuple[float, float]]:
    """Estimate, standard error, interval; nan where there is none."""
    if fit.values is None or not math.isfinite(fit.values[0]):
        return math.nan, math.nan, (math.nan, math.nan)
    (low, high), (left, right) = fit.interval(LEVEL), fit.interval(ONE_SIGMA)
    error = max((high - low) / (2 * _Z), (right - left) / 2)
    ends = tuple(end if math.isfinite(end) else math.nan for end in (low, high))
    return float(fit.values[0]), error if math.isfinite(error) else math.nan, (ends[0], ends[1])


def _shifts(scaling: PointScaling, name: str, default: Fit) -> tuple[Shift, ...]:
    """Changes under the other choices of the fit that have an estimate."""
    found = []
    for choice, fit in scaling.fits(name, Settings()).items():
        if choice == "default" or fit.values is None or default.values is None or fit.flag != "estimated":
            continue
        both = np.isfinite(fit.values) & np.isfinite(default.values)
        change = fit.values[both] - default.values[both]
        found.append(Shift(choice.replace("_", " "), float(change[0]), half_width(change[1:])))
    return tuple(found)


def critical_load_design(
    points: Points, model: Model, name: str, value: float, error: float, sizes: tuple[int, ...]
) -> DesignModel:
    """The model of the mean of ``theory_curve`` or ``collapse``, near an estimate of alpha_c.

    Y = N^(1/3) <overlap_sq_space> at w = (alpha - alpha_c) N^(1/3)/width is

        Y = f(w) + unit sum_j c_j k_j(w, N),    dY/d alpha_c = -(N^(1/3)/width) dY/dw,

    with f = A phi_r, or a cubic with four free coefficients, unit half of Y at alpha_c, and k_j the
    corrections to scaling of the fit: the c_j have normal priors of variance 1. Beside theory's curve they
    are those of the fit. The cubic's coefficients are those of the universal curve and its c_j the means of
    the prior, since a free curve through few and noisy cells would send the next ones to the wrong places;
    the errors of the fit count in full. A cell's standard deviation is Y times a relative one, whose
    logarithm is a straight line in w through those of the points in the window.

    Parameters
    ----------
    points : Points
        The points of the fit.
    model : Model
    name : {"theory_curve", "collapse"}
    value, error : float
        alpha_c and its standard error, which may be nan. Sizes at which twice the error exceeds the window
        are left out, if others remain.
    sizes : tuple of int
        Sizes at which cells may be added.
    """
    critical, width, r = critical_point(model), scale_width(model), int(model.p) * model.p_star
    level = float(points.Y.mean()) if math.isnan(critical.overlap_level) else critical.overlap_level
    unit = Settings().correction * level
    at = np.linspace(-Settings().window, Settings().window, 27)
    amplitude = level / float(universal_overlap(np.zeros(1), r)[0])
    cubic = polynomial.polyfit(at, amplitude * universal_overlap(at, r), _ORDER)
    free = name == "collapse"
    n_free = len(cubic) if free else 0

    def scaled(theta: Floats, alpha: Floats, N: Floats) -> tuple[Floats, Floats]:
        return (alpha - theta[0]) * np.cbrt(N) / width, np.cbrt(N)

    def curve(theta: Floats, w: Floats) -> Floats:
        if free:
            return np.asarray(polynomial.polyval(w, theta[1 : 1 + n_free]))
        return np.asarray(amplitude * universal_overlap(w, r))

    def mean(theta: Floats, alpha: Floats, N: Floats) -> Floats:
        w, _ = scaled(theta, alpha, N)
        return np.asarray(curve(theta, w) + unit * corrections_to_scaling(w, N) @ theta[1 + n_free :])

    def gradient(theta: Floats, alpha: Floats, N: Floats) -> Floats:
        w, root = scaled(theta, alpha, N)
        step = 1e-3 * width / root
        slope = (mean(theta, alpha - step, N) - mean(theta, alpha + step, N)) / (2 * step)  # in alpha_c
        free = polynomial.polyvander(w, _ORDER)[:, :n_free]
        return np.column_stack([slope, free, unit * corrections_to_scaling(w, N)])

    w = (points.alpha - value) * np.cbrt(points.N) / width
    inside = np.abs(w) <= Settings().window
    columns = unit * corrections_to_scaling(w, points.N) / points.error[:, None]
    n_prior = columns.shape[1]
    c: Floats = np.array(MEANS) / Settings().correction
    if not free:  # least squares with the prior, at the estimate
        off = (points.Y - amplitude * universal_overlap(w, r)) / points.error
        columns, off = columns[inside], off[inside]
        c = np.asarray(np.linalg.solve(columns.T @ columns + np.eye(n_prior), columns.T @ off + c), float)
    theta = np.concatenate([[value], cubic[:n_free], c])
    relative = points.relative_error * np.sqrt(points.n_seeds)
    near = inside if inside.sum() >= 3 else np.ones(len(w), dtype=bool)
    degree = int(near.sum() >= 6 and np.ptp(w[near]) > 0)
    trend = polynomial.polyfit(w[near], np.log(relative[near]), degree, w=np.sqrt(points.n_seeds[near]))
    reach = float(np.abs(w[near]).max())

    def sigma(alpha: Floats, N: Floats) -> Floats:
        w, _ = scaled(theta, alpha, N)
        spread = np.exp(polynomial.polyval(np.clip(w, -reach, reach), trend))
        return np.asarray(np.maximum(mean(theta, alpha, N), 0.05 * level) * spread)

    def region(N: float) -> tuple[float, float]:
        half = TRUSTED * width * N ** (-1 / 3)
        return max(value - half, 0.0), value + half

    prior = np.diag([0.0] * (1 + n_free) + [1.0] * n_prior)
    sharp = tuple(N for N in sizes if not 2 * error > Settings().window * width * N ** (-1 / 3))
    names = ("alpha_c", *(f"f_{k}" for k in range(n_free)), *(f"c_{k}" for k in range(n_prior)))
    kept = points.where(inside & (free | (points.cells() >= LEAST_CELLS)))
    return DesignModel(
        names,
        theta,
        0,
        mean,
        gradient,
        sigma,
        prior,
        kept.alpha,
        kept.N,
        kept.n_seeds,
        region,
        sharp or sizes[:1],
        least_cells=LEAST_CELLS if not free else 0,
        least_points=3,  # in the window of a size, for the collapse
        least_seeds=LEAST_SEEDS,
    )


QUANTITY = Quantity("alpha_c", replace(ANALYSIS, name="alpha_c"), fit_critical_load)
REFINER = refiner(QUANTITY)
