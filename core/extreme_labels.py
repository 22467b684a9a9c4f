"""The lowest eigenvalue where a few extreme labels decide: their law, by drawing them.

Where the averages continued past gamma = 1 have no edge, a sample's edge is made by the labels nearest to the
pole, and it fluctuates with each of them. Those few are drawn, some thirty a cell, from their exact law; all
others are replaced by their average, whose fluctuations are Gaussian. The cell then has a sharp edge, and
perhaps an outlier, at a gamma before its first pole, and the laws of a sharp edge hold for it with its own
scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import gammaincc, gammainccinv, gammaln

from bendscape.core.finite_size import tail_nodes
from bendscape.core.model import Model

FloatArray = npt.NDArray[np.float64]

CELLS = 400
"""Cells drawn: means are known to 1/20 and standard deviations to 1/28 of a standard deviation."""
EXTREMES = 30.0
"""Labels drawn in each, on average."""

_FARTHEST = 30.0  # labels with a pole beyond are never drawn one by one
_FIRST_GAMMA = 0.02
_HALVINGS = 46  # to 1e-14


class DrawnCells(NamedTuple):
    """Edge or outlier of each drawn cell, arrays of shape (CELLS,), as of core/edge_scales.py."""

    place: FloatArray
    width: FloatArray
    amplitude: FloatArray
    distance: FloatArray
    outlier_width: FloatArray
    var_rest: FloatArray


class _Sums(NamedTuple):
    """alpha times the averages over c of u/D, y u/D, u^2/D^2, y u^2/D^2, u^3/D^3 and (u/D summed)^2."""

    t: FloatArray
    yt: FloatArray
    b: FloatArray
    yb: FloatArray
    cube: FloatArray
    t_sq: FloatArray


def _sums(model: Model, weight: FloatArray, y: FloatArray, yhat: FloatArray, gamma: FloatArray) -> _Sums:
    """Weighted sums over the last axis of samples of shape (..., labels), at gamma of shape (..., 1)."""
    p = float(model.p)
    t, b, cube = (np.zeros(np.broadcast_shapes(y.shape, gamma.shape)) for _ in range(3))
    for c, share in ((1.0, (p - 1) / p), (3.0, 1 / p)):
        if share:
            ratio = (c * yhat - y) / (model.a + (1 - gamma) * y + gamma * c * yhat)
            t += share * ratio
            b += share * ratio**2
            cube += share * ratio**3
    return _Sums(*((weight * x).sum(axis=-1) for x in (t, y * t, b, y * b, cube, t * t)))


class _Rest:
    """alpha times the averages over all labels whose pole lies beyond ``last``, as functions of gamma."""

    def __init__(self, model: Model, alpha: float, last: float) -> None:
        n, m = model.p_star / 2, model.p / 2
        step = 0.2 / math.sqrt(1 + m)
        yhat = np.exp(np.arange(-40 / m - math.sqrt(80 / m), math.log1p(40 / m + math.sqrt(80 / m)), step))
        c = 1.0 if model.p > 1 else 3.0
        end = np.minimum((model.a + last * c * yhat) / (last - 1), 2 + 45 / n)
        x, of_x = np.polynomial.legendre.leggauss(80)
        root = np.sqrt(end)[:, np.newaxis] * (1 + x) / 2  # y = root^2: no singularity at 0
        y = root**2
        log_density = n * math.log(n) + (2 * n - 1) * np.log(root) - n * y - gammaln(n)
        log_outputs = m * np.log(m * yhat) - m * yhat - gammaln(m)
        weight = alpha * step * np.exp(log_density + log_outputs[:, np.newaxis]) * np.sqrt(end)[:, np.newaxis]
        weight *= of_x
        outputs = np.broadcast_to(yhat[:, np.newaxis], y.shape).ravel()
        # Nodes gather before the first pole that is left out.
        gammas = last - (last - _FIRST_GAMMA) * np.linspace(1, 0.003, 160) ** 2
        rows = [_sums(model, weight.ravel(), y.ravel(), outputs, np.array([gamma])) for gamma in gammas]
        self._spline = CubicSpline(gammas, np.array(rows))

    def __call__(self, gamma: FloatArray) -> _Sums:
        return _Sums(*np.moveaxis(self._spline(gamma), -1, 0))


def _draw(model: Model, alpha: float, size: float) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    """The last pole, and weight (0 or 1), y and yhat of the extreme labels, of shape (CELLS, labels)."""
    c, n = (1.0 if model.p > 1 else 3.0), model.p_star / 2

    def excess(log_step: float) -> float:
        expected = size * alpha * float(tail_nodes(model, 1 + math.exp(log_step), c)[1].sum())
        return math.log(max(expected, 1e-300) / EXTREMES)

    high = math.log(_FARTHEST - 1)
    if excess(high) > 0:
        low = high
        while excess(low) > 0:
            low -= 1.0
        high = float(brentq(excess, low, low + 1.0))
    last = 1 + math.exp(high)
    nodes, mass = tail_nodes(model, last, c)
    rng = np.random.default_rng(2026)
    counts = rng.poisson(size * alpha * mass.sum(), CELLS)
    shape = (CELLS, max(1, int(counts.max())))
    weight = (np.arange(shape[1]) < counts[:, np.newaxis]).astype(np.float64)
    cumulated = np.concatenate([[0.0], np.cumsum(mass / mass.sum())])
    between = np.append(nodes, nodes[-1] * nodes[1] / nodes[0]) * math.sqrt(nodes[0] / nodes[1])
    yhat = np.exp(np.interp(rng.random(shape), cumulated, np.log(between)))
    first = n * (model.a + last * c * yhat) / (last - 1)
    y = gammainccinv(n, rng.random(shape) * gammaincc(n, first)) / n
    return last, weight, np.maximum(y, first / n), yhat


def _solve(past: Callable[[FloatArray], FloatArray], high: FloatArray) -> FloatArray:
    """Where a function of gamma turns positive, by halving, for every cell at once."""
    low = np.full(len(high), _FIRST_GAMMA)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = past(middle) > 0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    found: FloatArray = (low + high) / 2
    return found


@lru_cache(maxsize=256)
def drawn_cells(model: Model, alpha: float, size: float) -> DrawnCells:
    """Edge or outlier of ``CELLS`` cells with drawn extreme labels.

    With M alpha-weighted averages split as <.>_rest + (1/N) sum over the drawn labels, the edge solves
    gamma^-2 = alpha B between 0 and the first pole; where -alpha gamma F > 1 there, the outlier solves
    -alpha gamma F = 1 before it. Scales as of :func:`bendscape.core.edge_scales.edge_scales`.

    Parameters
    ----------
    model : Model
        With finite p, without noise.
    alpha : float
        Samples per dimension.
    size : float
        Dimension N.

    Returns
    -------
    DrawnCells
        ``place`` of edge or outlier, ``width`` (C p N)^(-2/3), ``amplitude`` A, ``distance`` w N^(-1/3),
        ``outlier_width`` (the scale that replaces ``width`` for an outlier; nan where there is none) and
        ``var_rest``, the variance of the place by the labels that were not drawn.

    Notes
    -----
    Same numbers at every call. Held by ``tests/test_extreme_labels.py`` against whole cells of labels.
    Source: this project's own.
    """
    p = float(model.p)
    last, weight, y, yhat = _draw(model, alpha, size)
    rest = _Rest(model, alpha, last)

    def total(gamma: FloatArray, cells: slice | npt.NDArray[np.bool_] = slice(None)) -> _Sums:
        drawn = _sums(model, weight[cells] / size, y[cells], yhat[cells], gamma[:, np.newaxis])
        return _Sums(*(a + b for a, b in zip(rest(gamma), drawn, strict=True)))

    def past_edge(gamma: FloatArray) -> FloatArray:
        return total(gamma).b - gamma**-2

    def past_outlier(gamma: FloatArray) -> FloatArray:
        at = total(gamma, isolated)
        return gamma * (at.t - at.yt) - 1

    c = 1.0 if p > 1 else 3.0
    poles = np.where(weight > 0, (model.a + y) / np.maximum(y - c * yhat, 1e-300), last)
    nearest = np.minimum(poles.min(axis=1), last)
    edge = _solve(past_edge, nearest)
    at = total(edge)
    z_second = (8 / p**3) * (2 / edge**3 - 2 * at.cube)
    S_prime = (4 / p**2) * at.yb
    amplitude = np.cbrt(z_second**2 / (4 * p)) / S_prime
    gap = (2 / p) * (at.t - at.yt - 1 / edge)
    isolated = gap > 0
    star = edge.copy()
    star[isolated] = _solve(past_outlier, edge[isolated])
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
    noise = 4 / (p * p * size) * np.maximum(0.0, others.t_sq - others.t**2 / alpha)
    place = (2 / p) * (at_star.t - 1 / star)
    width = (np.sqrt(2 / z_second) * p * size) ** (-2 / 3)
    return DrawnCells(place, width, amplitude, distance, outlier_width, noise)
