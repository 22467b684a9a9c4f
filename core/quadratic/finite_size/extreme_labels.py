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
from copy import copy
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline, PPoly
from scipy.optimize import brentq, elementwise
from scipy.special import expit, gammaincc, gammaln, logit

from bendscape.core.quadratic.finite_size.crossover import tail_nodes
from bendscape.core.quadratic.finite_size.label_fluctuations import matrix_shift
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
_GAMMAS, _OUTPUTS, _ROOTS = 64, 0.5, np.polynomial.legendre.leggauss(24)
_NEAREST = 1e-3  # distance to the first pole of the other labels, relative to its distance from 1
_ROOT_TOLERANCE = 1e-9
_LEAST_WEIGHT = 1e-22  # relative to the largest; smaller weights contribute nothing before the last pole


class DrawnCells(NamedTuple):
    """Edge or outlier of each drawn cell, arrays of shape (CELLS,), with the scales of
    core/quadratic/finite_size/edge_scales.py."""

    place: FloatArray
    width: FloatArray
    shift: FloatArray
    amplitude: FloatArray
    distance: FloatArray
    outlier_width: FloatArray
    var_rest: FloatArray
    first_pole: FloatArray


class _Sums(NamedTuple):
    """alpha times the averages of t = u/D, y t, b = u^2/D^2, y b, u^3/D^3, u^4/D^4, and of t t, t y t,
    y t y t."""

    t: FloatArray
    yt: FloatArray
    b: FloatArray
    yb: FloatArray
    cube: FloatArray
    fourth: FloatArray
    t_sq: FloatArray
    t_yt: FloatArray
    yt_sq: FloatArray


class _Labels:
    """Labels of shape (..., labels), with the products that their sums at every gamma share."""

    def __init__(self, model: Model, weight: FloatArray, y: FloatArray, yhat: FloatArray) -> None:
        p = float(model.p)
        self._a, self._y, self._yhat = model.a, y, yhat
        self._u = [(share, c, c * yhat - y) for c, share in ((1.0, (p - 1) / p), (3.0, 1 / p)) if share]
        self._weights: tuple[FloatArray, ...] = weight, weight * y, weight * y * y

    def __getitem__(self, cells: Indices) -> _Labels:
        chosen = copy(self)
        chosen._y, chosen._yhat = self._y[cells], self._yhat[cells]
        chosen._u = [(share, c, u[cells]) for share, c, u in self._u]
        chosen._weights = tuple(weight[cells] for weight in self._weights)
        return chosen

    def _ratios(self, gamma: FloatArray) -> Iterator[tuple[float, FloatArray]]:
        """Fraction of directions with each c, and u/D at gamma (..., 1)."""
        of_y = (1 - gamma) * self._y
        of_y += self._a
        for share, c, u in self._u:
            D = gamma * c * self._yhat
            D += of_y
            yield share, np.divide(u, D, out=D)

    def sums(self, gamma: FloatArray) -> _Sums:
        """Weighted sums over all labels at gamma of shape (..., 1)."""
        t = b = cube = fourth = np.zeros(1)
        for share, ratio in self._ratios(gamma):
            square = ratio * ratio
            t, b = t + share * ratio, b + share * square
            cube, fourth = cube + share * (square * ratio), fourth + share * (square * square)
        once, with_y, with_y_sq = self._weights
        t_sq = t * t
        products = (t, once), (t, with_y), (b, once), (b, with_y), (cube, once), (fourth, once)
        squares = (t_sq, once), (t_sq, with_y), (t_sq, with_y_sq)
        return _Sums(*(np.einsum("...l,...l", x, weight) for x, weight in products + squares))

    def b(self, gamma: FloatArray) -> FloatArray:
        """The third of the sums alone."""
        of = (share * np.einsum("...l,...l,...l", self._weights[0], r, r) for share, r in self._ratios(gamma))
        return np.asarray(sum(of))


class _Rest:
    """alpha times the averages over all labels with poles beyond ``last``, as functions of gamma."""

    def __init__(self, model: Model, alpha: float, last: float) -> None:
        n, m = model.p_star / 2, model.p / 2
        step = _OUTPUTS / math.sqrt(1 + m)
        width = 25 / m + math.sqrt(50 / m)
        yhat = np.exp(np.arange(-width, math.log1p(width), step))
        c = 1.0 if model.p > 1 else 3.0
        end = np.minimum((model.a + last * c * yhat) / (last - 1), 2 + 45 / n)
        x, of_x = _ROOTS
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
        labels = _Labels(model, weight[kept], y[kept], outputs[kept])
        places = np.linspace(logit(_FIRST_GAMMA / last), logit(self._end / last), _GAMMAS)
        rows = [labels.sums(np.array([gamma])) for gamma in last * expit(places)]
        self._spline = CubicSpline(places, np.array(rows))
        self._of_b = PPoly.construct_fast(np.ascontiguousarray(self._spline.c[..., 2]), self._spline.x)

    def _place(self, gamma: FloatArray) -> FloatArray:
        return np.asarray(logit(np.minimum(gamma, self._end) / self._last))

    def __call__(self, gamma: FloatArray) -> _Sums:
        return _Sums(*np.moveaxis(self._spline(self._place(gamma)), -1, 0))

    def b(self, gamma: FloatArray) -> FloatArray:
        """The third of the sums alone."""
        return np.asarray(self._of_b(self._place(gamma)))


@lru_cache(maxsize=1)
def _random_numbers() -> tuple[FloatArray, FloatArray, Indices, FloatArray]:
    """Arrivals of a Poisson process in each cell, two arrays of shares, and the order that sorts the first.

    The same at every load and size, so that the law has no noise from point to point.
    """
    rng = np.random.default_rng(2026)
    shape = (CELLS, 2 * int(EXTREMES))
    arrivals = np.cumsum(rng.standard_exponential(shape), axis=1)
    of_outputs, of_tail = rng.random(shape), rng.random(shape)
    return arrivals, of_outputs, np.argsort(of_outputs, axis=None), of_tail


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
    arrivals, of_outputs, order, of_tail = _random_numbers()
    drawn = arrivals < size * alpha * mass.sum()
    cumulated = np.concatenate([[0.0], np.cumsum(mass / mass.sum())])
    between = np.append(nodes, nodes[-1] * nodes[1] / nodes[0]) * math.sqrt(nodes[0] / nodes[1])
    # In increasing order, in which a table is searched several times faster.
    outputs = np.exp(np.interp(of_outputs.ravel()[order], cumulated, np.log(between)))
    first = n * (model.a + last * c * outputs) / (last - 1)
    x = np.geomspace(first[0], first[-1] + 40, 4000)
    tail = gammaincc(n, x)
    x, log_tail = x[tail > 0], np.log(tail[tail > 0])
    yhat, y, least, log_first = (np.zeros(drawn.shape) for _ in range(4))
    yhat.ravel()[order], least.ravel()[order] = outputs, first / n
    log_first.ravel()[order] = np.interp(first, x, log_tail)
    # The x > first at which the tail of a gamma variable of shape n is a random share of that beyond first.
    beyond = np.interp(-(np.log(of_tail[drawn]) + log_first[drawn]), -log_tail, x)
    y[drawn] = np.maximum(beyond / n, least[drawn])
    most = int(drawn.sum(axis=1).max())  # those drawn come first
    return last, drawn[:, :most].astype(np.float64), y[:, :most], yhat[:, :most]


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
        ``place`` of edge or outlier, ``width`` (C p N)^(-2/3), ``shift``, N times the next order of
        :func:`bendscape.core.quadratic.finite_size.label_fluctuations.matrix_shift`, ``amplitude`` A,
        ``distance`` w N^(-1/3), ``outlier_width`` (the scale that replaces ``width`` for an outlier; nan
        without one) and ``var_rest``, the variance of the place due to the labels not drawn; ``first_pole``,
        the gamma of the pole of the most extreme label.

    Notes
    -----
    Returns the same numbers at every call. Held by ``tests/test_extreme_labels.py`` against cells in which
    all labels are drawn. Source: this project's own.
    """
    p = float(model.p)
    last, weight, y, yhat = _draw(model, alpha, size)
    rest = _Rest(model, alpha, last)

    everyone = np.arange(CELLS)

    labels = _Labels(model, weight / size, y, yhat)

    def of_cells(cells: Indices) -> _Labels:
        return labels if len(cells) == CELLS else labels[cells]

    def total(gamma: FloatArray, cells: Indices = everyone) -> _Sums:
        drawn = of_cells(cells).sums(gamma[:, np.newaxis])
        return _Sums(*(a + b for a, b in zip(rest(gamma), drawn, strict=True)))

    def past_edge(gamma: FloatArray, cells: Indices) -> FloatArray:
        with np.errstate(divide="ignore"):  # at the pole
            b = rest.b(gamma) + of_cells(cells).b(gamma[:, np.newaxis])
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
    shift = matrix_shift(p, star, at_star.cube, at_star.fourth)
    return DrawnCells(place, width, shift, amplitude, distance, outlier_width, noise, nearest)
