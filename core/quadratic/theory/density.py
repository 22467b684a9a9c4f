"""Density of the whole spectrum, on both sides of zero, its integral, and a rule of unit mass.

Everything is computed from the curve of ``half_plane`` on which the spectral map is real. A given lambda is
first bracketed between points of that curve and then found by Newton's method; a step that would leave the
bracket is replaced by bisection. Integrals over lambda are integrals along the curve, where nothing is
singular at 0: where alpha is near 1 the density has a peak like |lambda|^(-1/2) there, but tau goes like
|lambda|^(1/2).
"""

from __future__ import annotations

import math
import sys
import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError, PrecisionWarning
from bendscape.core.quadratic.model import Model, as_load
from bendscape.core.quadratic.theory.bulk import edge_at
from bendscape.core.quadratic.theory.half_plane import (
    Curve,
    curve,
    curve_at,
    map_at,
    map_size,
    newton,
    plane_averages,
)
from bendscape.core.quadratic.theory.integrals import averages

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

TOLERANCE = 1e-6
"""Error of the integrated density above which a warning is given."""

_MOST_BRACKETS = 80
_ROUNDING = 4 * sys.float_info.epsilon
_NOISE = 1e-14  # error of E log D, which enters the integrated density times alpha
_GAUSS = 10  # nodes in a panel
_MOST_PANELS = 300  # which share the tolerance
_MOST_HALVINGS, _MOST_AT_ONCE = 64, 1000
_NEXT_TO_ZERO = 1e-12  # relative to the left end of the curve: where integrals begin on either side of 0


class Density(NamedTuple):
    """Spectral density on a grid; rho and the atom add up to one unit of mass. Errors are absolute bounds."""

    rho: FloatArray
    integrated: FloatArray
    atom: float
    rho_error: FloatArray
    integrated_error: FloatArray


class DensityRule(NamedTuple):
    """Nodes, weights and the density there: sum(weights * density.rho * f) integrates f."""

    grid: FloatArray
    weights: FloatArray
    density: Density


class _Spectrum(NamedTuple):
    """Starting values for the curve of one model."""

    model: Model
    alpha: float
    edge: float  # lambda_minus
    edge_error: float
    left: float  # tau there
    largest: float  # height of the curve

    def curve(self, xi: npt.ArrayLike) -> Curve:
        return curve(self.model, self.alpha, np.asarray(xi, dtype=np.float64), self.largest)


def _spectrum(model: Model, alpha: float) -> _Spectrum:
    if math.isinf(model.p):
        raise ParameterError("p", model.p, "finite here", "at p = inf the spectrum shrinks to 0 like 1/p")
    alpha = as_load(alpha)
    edge = edge_at(model, alpha)
    largest = math.sqrt(alpha * averages(model, 0.0).B)
    return _Spectrum(model, alpha, edge.lambda_minus, edge.lambda_minus_error, -1 / edge.gamma, largest)


def _nodes(spectrum: _Spectrum) -> FloatArray:
    """Initial points xi, with distances halving towards the left edge and towards 0, and doubling to the
    right."""
    left, halves = spectrum.left, 0.5 ** np.arange(1, 21)
    to_the_right = -left * 2.0 ** np.arange(-20, math.ceil(math.log2(2 - 4 * spectrum.largest / left)) + 1)
    return np.concatenate([left * (1 - halves[::-1]), left * halves[1:], to_the_right])


def _between(low: FloatArray, high: FloatArray) -> FloatArray:
    """Where to split an interval: at its geometric mean if it is wide, towards 0 if it begins there."""
    least, most = np.minimum(abs(low), abs(high)), np.maximum(abs(low), abs(high))
    scaled = np.sign(low + high) * np.sqrt(most * np.maximum(least, 1e-6 * most))
    return np.where((low * high >= 0) & (most > 4 * least), scaled, (low + high) / 2)


def _invert(spectrum: _Spectrum, x: FloatArray) -> ComplexArray:
    """Points of the curve at given real x, which lie right of the edge and are not 0; nan where none was
    found."""
    model, alpha = spectrum.model, spectrum.alpha
    begin = spectrum.curve(_nodes(spectrum))
    tau = np.concatenate([[spectrum.left], begin.tau])
    at_x = np.concatenate([[model.p / 2 * spectrum.edge], begin.x])
    if alpha <= 1:  # the curve goes through 0
        place = np.searchsorted(tau.real, 0.0)
        tau, at_x = np.insert(tau, place, 0.0), np.insert(at_x, place, 0.0)
    while at_x[-1] < x.max():
        further = spectrum.curve([4 * tau[-1].real])
        tau, at_x = np.append(tau, further.tau), np.append(at_x, further.x)
    at_x = np.maximum.accumulate(at_x)  # it increases, up to rounding
    cell = np.clip(np.searchsorted(at_x, x), 1, len(at_x) - 1)
    low, x_low, high, x_high = tau[cell - 1], at_x[cell - 1], tau[cell], at_x[cell]

    found = np.full(len(x), complex(math.nan, math.nan))
    todo = np.arange(len(x))
    for _ in range(_MOST_BRACKETS):
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.clip((x[todo] - x_low[todo]) / (x_high[todo] - x_low[todo]), 0.0, 1.0)
        start = low[todo] + np.where(np.isnan(part), 0.5, part) * (high[todo] - low[todo])
        found[todo] = newton(model, alpha, x[todo], start, low[todo].real, high[todo].real)
        todo = todo[np.isnan(found[todo])]
        if not len(todo):
            break
        middle = spectrum.curve(_between(low[todo].real, high[todo].real))
        above = middle.x > x[todo]
        for is_new, bound, x_bound in ((above, high, x_high), (~above, low, x_low)):
            bound[todo[is_new]], x_bound[todo[is_new]] = middle.tau[is_new], middle.x[is_new]
        # The bracket is exhausted: take the nearer end, whose distance counts as an error.
        nearer = np.where(x_high[todo] - x[todo] < x[todo] - x_low[todo], high[todo], low[todo])
        closed = (high[todo] - low[todo]).real <= _ROUNDING * abs(nearer)
        found[todo[closed]] = nearer[closed]
        todo = todo[~closed]
    return found


def _density(spectrum: _Spectrum, tau: ComplexArray, x: FloatArray) -> Density:
    """Density at points of the curve that were found for given x, with errors from another rule.

    An error e of x moves its root by a zero of x' d + x'' d^2/2 - e, of which the nearer one has |d| at most
    2 |e/x'| and at most |2 e/x''|^(1/2).
    """
    p, alpha, gamma = spectrum.model.p, spectrum.alpha, -1 / tau
    at = plane_averages(spectrum.model, gamma)
    points, here = curve_at(alpha, tau, at), map_at(alpha, tau, at)
    other = plane_averages(spectrum.model, gamma, refined=True)
    x_error = 2 * abs(here - map_at(alpha, tau, other)) + abs(here - x) + _ROUNDING * map_size(alpha, tau, at)
    by_slope = 2 * x_error / np.maximum(abs(points.slope), 1e-100)
    tau_error = np.minimum(by_slope, np.sqrt(2 * x_error / np.maximum(abs(points.bend), 1e-200)))
    of_log = 2 * abs(at.log_d - other.log_d) + _ROUNDING * abs(at.log_d)
    return Density(
        p / (2 * math.pi) * gamma.imag,
        points.integrated,
        max(0.0, 1 - alpha),
        p / (2 * math.pi) * (tau_error + _ROUNDING * abs(tau)) * abs(gamma) ** 2,
        (alpha * of_log + _ROUNDING * (abs(points.x * gamma) + math.pi)) / math.pi,
    )


def _warn_of_lost_precision(spectrum: _Spectrum, density: Density) -> None:
    lost = int(np.isnan(density.rho).sum())
    largest = float(np.nanmax(density.rho, initial=0.0))
    rho_error = float(np.nanmax(density.rho_error, initial=0.0))
    integrated_error = float(np.nanmax(density.integrated_error, initial=0.0))
    if lost or integrated_error > TOLERANCE:
        warnings.warn(
            f"density of {spectrum.model} at alpha = {spectrum.alpha:g}: nan at {lost} of {len(density.rho)} "
            f"points, rho of {largest:.3g} +- {rho_error:.1g}, its integral +- {integrated_error:.1g}",
            PrecisionWarning,
            stacklevel=3,
        )


def bulk_density(model: Model, alpha: float, grid: npt.ArrayLike) -> Density:
    """Density rho(lambda) of the whole spectrum as N -> inf, its integral, and the atom at 0.

    rho = -Im g(lambda + i0)/pi with z(g) = lambda; the integrated density is N(lambda) = -(1/pi) Im[lambda g
    - log gamma + (alpha/p) sum over the p directions of E log D].

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension, finite and > 0.
    grid : array, shape (points,)
        Values of lambda, finite, not 0 (where an atom may sit), in any order.

    Returns
    -------
    Density
        ``rho`` and ``integrated`` of the grid's shape, per eigenvalue: rho integrates to 1 - ``atom``,
        ``integrated`` goes from 0 to 1 and contains the ``atom``, of mass max(0, 1 - alpha) at 0. Their error
        estimates ``rho_error`` and ``integrated_error``. nan, with a PrecisionWarning, at a point where no
        solution was found.

    Raises
    ------
    ParameterError
        ``grid`` is not such an array, or p or ``alpha`` is not as stated.

    Notes
    -----
    Limits: 0 left of lambda_minus, where it ends like a square root (sharp) or like exp(-A/(lambda -
    lambda_minus)) (smooth); on the right there is no edge but a tail, see :func:`upper_quantile`; for alpha =
    1 it diverges at 0 like |lambda|^(-1/2). Accuracy: as estimated, usually 1e-11 relative to the largest
    density, at a sharp edge up to the square root of what rounding leaves; exponentially small tails only in
    absolute terms. A PrecisionWarning says where ``integrated`` is worse than 1e-6. Held by
    ``tests/test_density.py``. Source: the equation is that of arXiv:2510.18435, its solution along the curve
    this project's own.
    """
    spectrum = _spectrum(model, alpha)
    points = np.asarray(grid, dtype=np.float64)
    if points.ndim != 1 or not (np.isfinite(points) & (points != 0)).all():
        raise ParameterError("grid", grid, "a one-dimensional array of finite numbers other than 0")
    atom = max(0.0, 1 - spectrum.alpha)
    zero = np.zeros_like(points)
    density = Density(zero, np.where(points > 0, atom, 0.0), atom, zero.copy(), zero.copy())
    inside = points > spectrum.edge + spectrum.edge_error
    if inside.any():
        tau = _invert(spectrum, model.p / 2 * points[inside])
        found = ~np.isnan(tau)
        there = _density(spectrum, tau[found], model.p / 2 * points[inside][found])
        for column in ("rho", "integrated", "rho_error", "integrated_error"):
            values = np.full(len(tau), math.nan)
            values[found] = getattr(there, column)
            getattr(density, column)[inside] = values
    _warn_of_lost_precision(spectrum, density)
    return density


def _right_end(spectrum: _Spectrum, mass: float) -> float:
    """Point xi of the curve with the given mass above it, or the smallest mass that rounding can resolve."""
    mass += _NOISE * spectrum.alpha
    xi = _nodes(spectrum)
    while 1 - float(spectrum.curve(xi[-1:]).integrated[0]) > mass:
        xi = np.append(xi, 2 * xi[-1])
    low = high = math.nan
    for _ in range(3):
        above = 1 - spectrum.curve(xi).integrated > mass
        last = int(np.flatnonzero(above)[-1]) if above.any() else 0
        low, high = float(xi[last]), float(xi[last + 1])
        xi = np.linspace(low, high, 17)
        xi = xi[xi != 0]
    return high


def upper_quantile(model: Model, alpha: float, mass: float = 1e-8) -> float:
    """Point with a given mass of the spectrum above it: a grid may end there, since there is no right edge.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension, finite and > 0.
    mass : float
        Share of the eigenvalues above the point, from 1e-10 to 0.5.

    Returns
    -------
    float
        lambda with N(lambda) >= 1 - mass; the smallest such, to within the 256th part of a factor of two in
        tau.

    Raises
    ------
    ParameterError
        ``mass`` is outside this range, or p or ``alpha`` is not as stated.

    Notes
    -----
    Limits: a mass below the rounding error of 1 - N, 1e-14 alpha, is increased by that error. Held by
    ``tests/test_density.py``.
    """
    spectrum = _spectrum(model, alpha)
    if not 1e-10 <= mass <= 0.5:
        raise ParameterError("mass", mass, "between 1e-10 and 0.5")
    return (2 / model.p) * float(spectrum.curve([_right_end(spectrum, mass)]).x[0])


def density_rule(model: Model, alpha: float, tolerance: float = 3e-7, mass: float = 1e-8) -> DensityRule:
    """Grid on which the density integrates to unit mass, with its weights and the density on it.

    Gauss-Legendre panels along the curve, each halved until its mass agrees with the difference of the
    integrated density between its ends.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension, finite and > 0.
    tolerance : float
        Mass by which the sum of all panels may differ from the integrated density.
    mass : float
        Mass left out above the last node, see :func:`upper_quantile`.

    Returns
    -------
    DensityRule
        ``grid`` rising, without 0; sum(weights * rho) + atom = 1 to 1e-6 by default.

    Notes
    -----
    Takes less than a second at moderate p and p_star, a few seconds at large ones, and longer where alpha is
    within 1e-5 of 1. Held by ``tests/test_density.py`` for a random sample of the whole domain. Source: this
    project's own.
    """
    spectrum = _spectrum(model, alpha)
    left, end = spectrum.left, _right_end(spectrum, mass)
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
    steps = -left * np.array([_NEXT_TO_ZERO, 1e-3, 0.03, 0.2, 0.6])
    right = steps[-1] * 2.0 ** np.arange(1, max(1, math.ceil(math.log2(max(end / steps[-1], 1)))))
    ends = np.concatenate([[left, 0.98 * left, 0.85 * left], -steps[::-1], steps, right])
    ends = np.append(ends[ends < end], end)
    low, high = ends[:-1], ends[1:]
    across = low * high < 0
    low, high = low[~across], high[~across]
    done: list[tuple[ComplexArray, FloatArray, FloatArray]] = []
    for halvings in range(_MOST_HALVINGS + 1):
        half = (high - low) / 2
        xi = (low + half)[:, np.newaxis] + half[:, np.newaxis] * nodes
        at_end = np.unique(np.concatenate([low, high]))
        points = spectrum.curve(np.concatenate([xi.ravel(), at_end]))
        rise = points.integrated[xi.size :]
        expected = rise[np.searchsorted(at_end, high)] - rise[np.searchsorted(at_end, low)]
        tau, slope = points.tau[: xi.size], points.slope[: xi.size]
        # d lambda/d xi along the curve, where x'(tau) d tau is real.
        off = (tau.imag > 0) & (slope.real > 0)
        along = np.where(off, abs(slope) ** 2 / np.where(off, slope.real, 1.0), slope.real)
        along = (2 / model.p) * np.maximum(along, 0.0).reshape(xi.shape)
        rho = model.p / (2 * math.pi) * (-1 / tau).imag.reshape(xi.shape)
        here = half[:, np.newaxis] * weights * along
        missed = abs((here * rho).sum(axis=1) - expected)
        good = missed <= max(tolerance / _MOST_PANELS, _NOISE * spectrum.alpha)
        if halvings == _MOST_HALVINGS or len(low) > _MOST_AT_ONCE:
            good[:] = True
        keep = np.repeat(good, _GAUSS)
        done.append((tau[keep], points.x[: xi.size][keep], here[good].ravel()))
        middle = _between(low[~good], high[~good])
        low, high = np.concatenate([low[~good], middle]), np.concatenate([middle, high[~good]])
        if not len(low):
            break
    tau, x, along = (np.concatenate(column) for column in zip(*done, strict=True))
    order = np.lexsort((tau.real, x.real))  # x rises with tau.real up to rounding
    density = _density(spectrum, tau[order], x.real[order])
    _warn_of_lost_precision(spectrum, density)
    return DensityRule((2 / model.p) * x.real[order], along.real[order], density)
