"""The law of the lowest eigenvalue where a few extreme labels decide, by drawing these labels.

Where the averages continued past gamma = 1 have no edge, the edge of a sample is determined by the labels
nearest to the pole, and fluctuates with each of them. About thirty such labels per cell are drawn from their
exact law; all others are replaced by their average, with Gaussian fluctuations. The cell then has a sharp
edge, and perhaps an outlier, at a gamma before its first pole, and the laws of a sharp edge apply with the
scales of the cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq, elementwise
from scipy.special import expit, gammaincc, gammaln, logit

from bendscape.core.quadratic.finite_size.crossover import tail_nodes
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.integrals import averages

FloatArray = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

CELLS = 400
"""Number of cells drawn: means are known to 1/20, standard deviations to 1/28 of a standard deviation."""
EXTREMES = 30.0
"""Mean number of labels drawn in each cell."""

_FARTHEST = 30.0  # labels with a pole beyond this are never drawn
_FIRST_GAMMA = 0.02
# Accuracy of the averages over all other labels, which changes no cell by more than 2e-5 standard deviations:
_GAMMAS, _OUTPUTS, _ROOTS = 64, 0.5, 24
_NEAREST = 1e-3  # distance to the first pole of the other labels, relative to its distance from 1
_ROOT_TOLERANCE = 1e-9
_LEAST_WEIGHT = 1e-22  # relative to the largest; smaller weights contribute nothing before the last pole


class DrawnCells(NamedTuple):
    """Edge or outlier of each drawn cell, arrays of shape (CELLS,), with the scales of
    core/quadratic/finite_size/edge_scales.py."""

    place: FloatArray
    width: FloatArray
    amplitude: FloatArray
    distance: FloatArray
    outlier_width: FloatArray
    var_rest: FloatArray
    first_pole: FloatArray


class _Sums(NamedTuple):
    """alpha times the averages of t = u/D, y t, b = u^2/D^2, y b, u^3/D^3, and of t t, t y t, y t y t."""

    t: FloatArray
    yt: FloatArray
    b: FloatArray
    yb: FloatArray
    cube: FloatArray
    t_sq: FloatArray
    t_yt: FloatArray
    yt_sq: FloatArray


def _ratios(
    model: Model, y: FloatArray, yhat: FloatArray, gamma: FloatArray
) -> Iterator[tuple[float, FloatArray]]:
    """Fraction of directions with each c, and u/D of samples (..., labels) at gamma (..., 1)."""
    p, of_y = float(model.p), (1 - gamma) * y
    for c, share in ((1.0, (p - 1) / p), (3.0, 1 / p)):
        if share:
            yield share, (c * yhat - y) / (model.a + of_y + gamma * c * yhat)


def _sums(model: Model, weight: FloatArray, y: FloatArray, yhat: FloatArray, gamma: FloatArray) -> _Sums:
    """Weighted sums over the last axis of samples of shape (..., labels), at gamma of shape (..., 1)."""
    t = b = cube = np.zeros(1)
    for share, ratio in _ratios(model, y, yhat, gamma):
        square = ratio * ratio
        t, b, cube = t + share * ratio, b + share * square, cube + share * square * ratio
    yt = y * t
    return _Sums(
        *(np.einsum("...l,...l", weight, x) for x in (t, yt, b, y * b, cube, t * t, t * yt, yt * yt))
    )


class _Rest:
    """alpha times the averages over all labels with poles beyond ``last``, as functions of gamma."""

    def __init__(self, model: Model, alpha: float, last: float) -> None:
        n, m = model.p_star / 2, model.p / 2
        step = _OUTPUTS / math.sqrt(1 + m)
        width = 25 / m + math.sqrt(50 / m)
        yhat = np.exp(np.arange(-width, math.log1p(width), step))
        c = 1.0 if model.p > 1 else 3.0
        end = np.minimum((model.a + last * c * yhat) / (last - 1), 2 + 45 / n)
        x, of_x = np.polynomial.legendre.leggauss(_ROOTS)
        root = np.sqrt(end)[:, np.newaxis] * (1 + x) / 2  # y = root^2 removes the singularity at 0
        y = root**2
        log_density = n * math.log(n) + (2 * n - 1) * np.log(root) - n * y - gammaln(n)
        log_outputs = m * np.log(m * yhat) - m * yhat - gammaln(m)
        weight = alpha * step * np.exp(log_density + log_outputs[:, np.newaxis]) * np.sqrt(end)[:, np.newaxis]
        weight *= of_x
        outputs = np.broadcast_to(yhat[:, np.newaxis], y.shape)
        kept = weight > _LEAST_WEIGHT * weight.max()
        # The averages vary on the scale of gamma and of the distance from their first pole.
        self._last, self._end = last, last - _NEAREST * (last - 1)
        nodes = weight[kept], y[kept], outputs[kept]
        places = np.linspace(logit(_FIRST_GAMMA / last), logit(self._end / last), _GAMMAS)
        rows = [_sums(model, *nodes, np.array([gamma])) for gamma in last * expit(places)]
        self._spline = CubicSpline(places, np.array(rows))

    def __call__(self, gamma: FloatArray) -> _Sums:
        place = logit(np.minimum(gamma, self._end) / self._last)
        return _Sums(*np.moveaxis(self._spline(place), -1, 0))


def _draw(model: Model, alpha: float, size: float) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    """The last pole; and weight (0 or 1), y and yhat of the extreme labels, of shape (CELLS, labels)."""
    c, n = (1.0 if model.p > 1 else 3.0), model.p_star / 2

    def excess(log_step: float) -> float:
        expected = size * alpha * float(tail_nodes(model, 1 + math.exp(log_step), c)[1].sum())
        return math.log(max(expected, 1e-300) / EXTREMES)

    high = math.log(_FARTHEST - 1)
    if excess(high) > 0:
        low = high
        while excess(low) > 0:
            low -= 1.0
        high = float(brentq(excess, low, low + 1.0, xtol=1e-6))  # need not be accurate: sets the number drawn
    last = 1 + math.exp(high)
    nodes, mass = tail_nodes(model, last, c)
    # The same random numbers at every load and size, so that the law has no noise from point to point.
    rng = np.random.default_rng(2026)
    shape = (CELLS, 2 * int(EXTREMES))
    arrivals = np.cumsum(rng.standard_exponential(shape), axis=1)
    weight = (arrivals < size * alpha * mass.sum()).astype(np.float64)
    cumulated = np.concatenate([[0.0], np.cumsum(mass / mass.sum())])
    between = np.append(nodes, nodes[-1] * nodes[1] / nodes[0]) * math.sqrt(nodes[0] / nodes[1])
    yhat = np.exp(np.interp(rng.random(shape), cumulated, np.log(between)))
    first = n * (model.a + last * c * yhat) / (last - 1)
    y = _beyond(n, first, rng.random(shape)) / n
    return last, weight, np.maximum(y, first / n), yhat


def _beyond(n: float, first: FloatArray, share: FloatArray) -> FloatArray:
    """The x > first at which the tail of a gamma variable of shape n is ``share`` times that beyond first."""
    x = np.geomspace(first.min(), first.max() + 40, 4000)
    tail = gammaincc(n, x)
    kept = tail > 0
    wanted = np.log(share) + np.interp(first, x[kept], np.log(tail[kept]))
    found: FloatArray = np.interp(-wanted, -np.log(tail[kept]), x[kept])
    return found


def _solve(past: Callable[[FloatArray, Indices], FloatArray], high: FloatArray, cells: Indices) -> FloatArray:
    """Where a function of gamma turns positive in each cell, or ``high`` if it does not before."""
    bracket = np.full(len(high), _FIRST_GAMMA), high
    found = elementwise.find_root(past, bracket, args=(cells,), tolerances={"xrtol": _ROOT_TOLERANCE})
    places: FloatArray = np.where(found.success, found.x, high)
    return places


@lru_cache(maxsize=1024)
def drawn_cells(model: Model, alpha: float, size: float) -> DrawnCells:
    """Edge or outlier of ``CELLS`` cells with drawn extreme labels.

    With alpha times each average split as alpha <.>_rest + (1/N) sum over the drawn labels, the edge solves
    gamma^-2 = alpha B between 0 and the first pole; if -alpha gamma F > 1 there, the outlier solves
    -alpha gamma F = 1 before it. Scales as in
    :func:`bendscape.core.quadratic.finite_size.edge_scales.edge_scales`.

    Parameters
    ----------
    model : Model
        Finite p, without noise.
    alpha : float
        Samples per dimension.
    size : float
        Dimension N.

    Returns
    -------
    DrawnCells
        ``place`` of edge or outlier, ``width`` (C p N)^(-2/3), ``amplitude`` A, ``distance`` w N^(-1/3),
        ``outlier_width`` (the scale that replaces ``width`` for an outlier; nan without one) and
        ``var_rest``, the variance of the place due to the labels not drawn; ``first_pole``, the gamma of the
        pole of the most extreme label.

    Notes
    -----
    Returns the same numbers at every call. Held by ``tests/test_extreme_labels.py`` against cells in which
    all labels are drawn. Source: this project's own.
    """
    p = float(model.p)
    last, weight, y, yhat = _draw(model, alpha, size)
    rest = _Rest(model, alpha, last)

    everyone = np.arange(CELLS)

    def total(gamma: FloatArray, cells: Indices = everyone) -> _Sums:
        drawn = _sums(model, weight[cells] / size, y[cells], yhat[cells], gamma[:, np.newaxis])
        return _Sums(*(a + b for a, b in zip(rest(gamma), drawn, strict=True)))

    def past_edge(gamma: FloatArray, cells: Indices) -> FloatArray:
        b = rest(gamma).b
        with np.errstate(divide="ignore"):  # at the pole
            for share, ratio in _ratios(model, y[cells], yhat[cells], gamma[:, np.newaxis]):
                b = b + share * np.einsum("cl,cl,cl->c", weight[cells] / size, ratio, ratio)
        return gamma - b**-0.5  # nearly linear up to the pole, unlike b

    def past_outlier(gamma: FloatArray, cells: Indices) -> FloatArray:
        at = total(gamma, cells)
        return gamma * (at.t - at.yt) - 1

    c = 1.0 if p > 1 else 3.0
    poles = np.where(weight > 0, (model.a + y) / np.maximum(y - c * yhat, 1e-300), last)
    nearest = np.minimum(poles.min(axis=1), last)
    edge = _solve(past_edge, nearest, everyone)
    at = total(edge)
    z_second = (8 / p**3) * (2 / edge**3 - 2 * at.cube)
    S_prime = (4 / p**2) * at.yb
    amplitude = np.cbrt(z_second**2 / (4 * p)) / S_prime
    gap = (2 / p) * (at.t - at.yt - 1 / edge)
    isolated = gap > 0
    star = edge.copy()
    star[isolated] = _solve(past_outlier, edge[isolated], everyone[isolated])
    at_star = total(star)
    Z = star**-2 - at_star.b
    overlap_sq = np.where(isolated, np.maximum(Z, 0) / (np.maximum(Z, 0) + at_star.yb), 0.0)
    distance = np.where(isolated, overlap_sq / (2 * amplitude), gap * np.sqrt(amplitude * p / S_prime))
    w = distance * math.cbrt(size)
    S_prime_star = (4 / p**2) * at_star.yb
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = overlap_sq * S_prime_star * np.sqrt(2 / (p * size) / ((4 / p**2) * Z) / (4 * w))
    outlier_width = np.where(isolated & (w > 1e-3), scale, np.nan)
    others = rest(star)
    # The labels move an outlier by (delta S - R delta Sigma)/(1 - R), an edge by delta Sigma.
    of_yt = overlap_sq
    of_t = np.where(isolated, (1 - overlap_sq), 1.0)
    noise = (
        of_t**2 * (others.t_sq - others.t**2 / alpha)
        + 2 * of_t * of_yt * (others.t_yt - others.t * others.yt / alpha)
        + of_yt**2 * (others.yt_sq - others.yt**2 / alpha)
    )
    noise = 4 / (p * p * size) * np.maximum(0.0, noise)
    # The mean contribution of the drawn labels at fixed gamma is known: use it as a control variate.
    fixed = np.full(CELLS, float(np.minimum(1.0, star).mean()))
    here, known = total(fixed), averages(model, float(fixed[0]))
    drawn_t = here.t - alpha * float(known.A)
    drawn_yt = here.yt - alpha * float(known.A + known.F)
    place = (2 / p) * (at_star.t - 1 / star - np.mean(of_t * drawn_t + of_yt * drawn_yt))
    width = (np.sqrt(2 / z_second) * p * size) ** (-2 / 3)
    return DrawnCells(place, width, amplitude, distance, outlier_width, noise, nearest)
