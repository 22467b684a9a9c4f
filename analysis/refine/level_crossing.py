"""A quantity for any kernel with a curve axis: where the mean of a variable passes a level.

    mean(x, N) = level + s_N u + q_N u^2 + c_N u^3,    u = x - x_c - kappa (N / N_0)^(-exponent),

x the curve, N the size, N_0 the smallest size used. Each size has a cubic of its own, in a window around its
crossing where the mean is within 30 % of its range of the level; the crossings of all sizes share x_c, which
is the limit of large N, and the shift kappa. The terms beyond the straight line have normal priors. With one
size, or without a size axis, there is no kappa and x_c is the crossing there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import least_squares
from scipy.special import stdtrit
from scipy.stats import f as f_law
from scipy.stats import norm

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.refine.design_model import DesignModel, Fitted, Quantity, Shift
from bendscape.analysis.refine.level_windows import (
    LEAST_POINTS,
    LEAST_SEEDS,
    Curve,
    Window,
    curves_of,
    window_of,
)
from bendscape.analysis.refine.optimum import column_of_inverse, information
from bendscape.analysis.refine.trust import compared, halved, judged, worse
from bendscape.core.errors import ParameterError

BEND = 0.5
"""Standard deviation of the quadratic and of the cubic term at the ends of a window, relative to the distance
of the mean from the level there. Free ones would follow the noise of a few cells, and be taken for steep
curves."""

LEVEL = 0.95
_TRUSTED = 0.8  # part of the window of a size within which cells are added


class Solution(NamedTuple):
    """A fit: parameters, chi^2, the weights of the means in x_c, and the information, (k, k)."""

    theta: Floats
    chi2: float
    weights: Floats
    information: Floats


class Shape:
    """The model of the mean for given sizes, each with the window of its cubic; see the module."""

    def __init__(self, level: float, windows: Sequence[Window], exponent: float) -> None:
        self.level, self.windows, self.exponent = level, tuple(windows), exponent
        sizes = [at.curve.size for at in windows]
        self.sizes, self.shifted = np.array(sizes), len(sizes) > 1
        half = np.array([(at.high - at.low) / 2 for at in windows])
        bend = BEND * np.array([at.reach for at in windows])
        free = np.full((2, len(sizes)), np.inf)[: 1 + self.shifted, 0]
        sd = np.stack([np.full(len(sizes), np.inf), bend / half**2, bend / half**3], axis=1)
        self.prior_sd = np.concatenate([free, sd.reshape(-1)])
        self.names = (
            "x_c",
            *(["kappa"] if self.shifted else []),
            *(f"{letter}_{N:g}" for N in sizes for letter in "sqc"),
        )

    @property
    def prior(self) -> Floats:
        """Square root of the information of the prior, (k, k)."""
        return np.diag(1 / self.prior_sd)

    def _parts(self, theta: Floats, curve: Floats, size: Floats) -> tuple[Floats, Floats, Any, Floats]:
        """(N/N_0)^-exponent, u, which size each point has, and the coefficients (n, 3)."""
        h = np.asarray((size / self.sizes[0]) ** -self.exponent if self.shifted else np.zeros(len(size)))
        which = np.searchsorted(self.sizes, size)
        u = curve - theta[0] - (theta[1] * h if self.shifted else 0.0)
        return h, u, which, theta[1 + self.shifted :].reshape(-1, 3)[which]

    def mean(self, theta: Floats, curve: Floats, size: Floats) -> Floats:
        """The mean, (n,)."""
        _, u, _, of = self._parts(theta, curve, size)
        return np.asarray(self.level + ((of[:, 2] * u + of[:, 1]) * u + of[:, 0]) * u)

    def gradient(self, theta: Floats, curve: Floats, size: Floats) -> Floats:
        """Its derivatives, (n, k)."""
        h, u, which, of = self._parts(theta, curve, size)
        slope = (3 * of[:, 2] * u + 2 * of[:, 1]) * u + of[:, 0]
        found = np.zeros((len(u), len(self.names)))
        found[:, 0] = -slope
        if self.shifted:
            found[:, 1] = -slope * h
        for power in range(3):
            found[np.arange(len(u)), 1 + self.shifted + 3 * which + power] = u ** (power + 1)
        return found


def level_crossing(name: str, variable: str, level: float, exponent: float = 0.5) -> Quantity:
    """The quantity ``name``: where the mean of ``variable`` passes ``level``, extrapolated to large N.

    Parameters
    ----------
    name : str
        The name that a target uses, and of the entry point of `bendscape.refiners`.
    variable : str
        A variable of the kernel with one number a cell.
    level : float
        Finite.
    exponent : float
        The crossing of size N lies kappa (N/N_0)^-exponent from that of large N; > 0. It is taken as known:
        with three sizes or more chi^2 tests it, and so does leaving out the smallest size; with two sizes
        nothing does.

    Raises
    ------
    ParameterError
        The level is not finite, or the exponent not positive.
    """
    if not math.isfinite(level):
        raise ParameterError("level", level, "a finite number")
    if not 0 < exponent < math.inf:
        raise ParameterError("exponent", exponent, "a number > 0")

    def fit(block: xr.Dataset) -> Fitted:
        return fit_level_crossing(block, variable, level, exponent)

    def unused(ds: xr.Dataset, **options: Any) -> xr.Dataset:
        raise NotImplementedError("a quantity is estimated one model at a time")

    return Quantity(name, Analysis(name, unused, (variable,), {}), fit)


def fit_level_crossing(block: xr.Dataset, variable: str, level: float, exponent: float) -> Fitted:
    """x_c of one model with its design; see :func:`level_crossing`.

    ``error`` is the standard error by the fit, times Student's quantile at 95 % over the normal one. Suspect
    or refuted: chi^2; odd and even seeds disagree.
    """
    found = _solved(block, variable, level, exponent)
    if isinstance(found, Fitted):
        return found
    windows, shape, best = found
    curves = [at.curve for at in windows]
    value, dof = float(best.theta[0]), sum(len(c.x) for c in curves) - 1 - shape.shifted - len(curves)
    error_dof = len(curves) ** 2 / sum(1 / c.dof for c in curves)
    plain = _error(best)
    quantile = float(stdtrit(error_dof, 0.5 + LEVEL / 2))
    error = plain * quantile / float(norm.ppf(0.5 + LEVEL / 2))
    p_value = float(f_law.sf(best.chi2 / dof, dof, error_dof)) if dof > 0 else math.nan
    trust = judged(p_value, f"chi^2 {best.chi2:.3g} with {dof} degrees of freedom")
    if trust[0] == "refuted" and any(at.lacking for at in windows):
        trust = "suspect", f"{trust[1]}; fewer than {LEAST_POINTS} points are in the window of a size"
    first, second = (_of_half(half, variable, windows, shape) for half in halved(block, _dim(block, "seed")))
    if first is not None and second is not None:
        (one, e), (other, f) = first, second
        words = f"odd and even seeds ({one:.4g}, {other:.4g}) disagree"
        trust = worse(trust, compared(one - other, math.hypot(e, f), words))
    x, sizes, _, _, cells = _arrays(curves)
    by_size = {at.curve.size: at for at in windows}

    def sigma(curve: Floats, size: Floats) -> Floats:
        every = np.zeros(len(curve))
        for N, at in by_size.items():
            every[size == N] = np.interp(curve[size == N], at.curve.x, at.curve.sigma)
        return every

    def region(N: float) -> tuple[float, float]:
        low, high = by_size[N].low, by_size[N].high
        middle, half = (low + high) / 2, _TRUSTED * (high - low) / 2
        return middle - half, middle + half

    design = DesignModel(
        shape.names,
        best.theta,
        0,
        shape.mean,
        shape.gradient,
        sigma,
        shape.prior**2,
        x,
        sizes,
        cells,
        region,
        tuple(int(N) for N in by_size),
        least_points=LEAST_POINTS,
        least_seeds=LEAST_SEEDS,
    )
    half = quantile * plain
    shifts = _shifts(curves, shape, best)
    return Fitted(value, error, *trust, False, design, "level_crossing", value - half, value + half, shifts)


def _solved(
    block: xr.Dataset, variable: str, level: float, exponent: float
) -> tuple[list[Window], Shape, Solution] | Fitted:
    """The points in the windows of all sizes and the fit to them, or the reason why there is none."""
    kept, sides, why = [], set(), "too few points with enough cells near the level"
    for curve in curves_of(block, variable):
        window = window_of(curve, level)
        if isinstance(window, str):
            sides.add(window)
        elif window is not None:
            kept.append(window)
    if not kept:
        if len(sides) == 1:
            where = f"{sides.pop()} the values measured"
            return Fitted(reason=f"no crossing: the mean passes the level {where}", bounded=True)
        return Fitted(reason=why)
    shape = Shape(level, kept, exponent)
    best = _solution([at.curve for at in kept], shape)
    return (kept, shape, best) if best is not None else Fitted(reason="the fit does not converge")


def _arrays(curves: list[Curve]) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    x, mean, sigma, cells = (np.concatenate(each) for each in zip(*(c[1:5] for c in curves), strict=True))
    return x, np.concatenate([np.full(len(c.x), c.size) for c in curves]), mean, sigma, cells


def _solution(curves: list[Curve], shape: Shape) -> Solution | None:
    """Least squares from the crossings of cubics through each size."""
    x, size, mean, sigma, cells = _arrays(curves)
    error = sigma / np.sqrt(cells)
    places, cubics = [], []
    for c in curves:
        at = float(np.interp(0.0, *_rising(c, shape.level)))
        cubic = np.polyfit(c.x - at, c.mean - shape.level, 3, w=np.sqrt(c.cells) / c.sigma)
        places.append(at)
        cubics += cubic[-2::-1].tolist()  # without the constant, the slope first
    h = (shape.sizes / shape.sizes[0]) ** -shape.exponent
    shift = np.polyfit(h, places, 1) if shape.shifted else np.array([0.0, places[0]])
    start = np.array([shift[1], *([shift[0]] if shape.shifted else []), *cubics])
    found = least_squares(
        lambda theta: np.concatenate([(shape.mean(theta, x, size) - mean) / error, theta / shape.prior_sd]),
        start,
        jac=lambda theta: np.vstack([shape.gradient(theta, x, size) / error[:, None], shape.prior]),
        x_scale="jac",
        method="trf",
    )
    if not found.success:
        return None
    gradient = shape.gradient(found.x, x, size)
    matrix = information(gradient, sigma, cells) + shape.prior**2
    column = column_of_inverse(matrix, np.eye(len(found.x))[0])
    return Solution(found.x, 2 * float(found.cost), gradient @ column / error**2, matrix)


def _rising(curve: Curve, level: float) -> tuple[Floats, Floats]:
    """A monotone sequence of means less the level, and the x of its members, for a first interpolation."""
    slope, constant = np.polyfit(curve.x, curve.mean - level, 1, w=np.sqrt(curve.cells) / curve.sigma)
    line = slope * curve.x + constant
    order = np.argsort(line, kind="stable")
    return line[order], curve.x[order]


def _of_half(
    block: xr.Dataset, variable: str, windows: list[Window], shape: Shape
) -> tuple[float, float] | None:
    """x_c and its standard error from some of the cells, at the points and with the standard deviations of
    the fit to all; None if a size has too few points with enough of these cells."""
    parts = {c.size: c for c in curves_of(block, variable)}
    curves = []
    for at in windows:
        part = parts.get(at.curve.size)
        keep = np.isin(part.x, at.curve.x) if part is not None else np.zeros(0, dtype=bool)
        if part is None or keep.sum() < LEAST_POINTS:
            return None
        sigma = np.interp(part.x[keep], at.curve.x, at.curve.sigma)
        curves.append(Curve(part.size, part.x[keep], part.mean[keep], sigma, part.cells[keep], at.curve.dof))
    found = _solution(curves, shape)
    if found is None:
        return None
    return float(found.theta[0]), _error(found)


def _error(found: Solution) -> float:
    return math.sqrt(column_of_inverse(found.information, np.eye(len(found.theta))[0])[0])


def _shifts(curves: list[Curve], shape: Shape, best: Solution) -> tuple[Shift, ...]:
    """The change of x_c without the smallest size, of three or more; its error from the weights of the same
    means in both."""
    if len(curves) < 3:
        return ()
    _, _, _, sigma, cells = _arrays(curves)
    variance = sigma**2 / cells
    rest = Shape(shape.level, shape.windows[1:], shape.exponent)
    solution = _solution(curves[1:], rest)
    if solution is None:
        return ()
    weights = np.concatenate([np.zeros(len(curves[0].x)), solution.weights])
    error = math.sqrt(float(((weights - best.weights) ** 2) @ variance))
    return (Shift("leaving out the smallest size", float(solution.theta[0] - best.theta[0]), error),)


def _dim(block: xr.Dataset, role: str) -> str:
    """The dimension of the cells that has a role."""
    return next(str(dim) for dim in block["status"].dims if block[dim].attrs.get("role", dim) == role)
