"""The theory for one cell's own labels: its edge and its outlier in O(M), without a matrix.

At finite N the lowest eigenvalue fluctuates from cell to cell by O(N^(-1/2)), and most of it comes from which
labels were drawn. Replacing every average over (y, yhat) by the mean over the cell's own M samples keeps
those fluctuations and predicts the eigenvalue of this particular cell. The prediction can therefore serve as
a control variate for the measured eigenvalue.

The sums need the labels only one at a time, so the labels may be generated again, block by block, for every
sum: then a cell of any size needs only the memory of one block (:func:`sample_drawn_labels`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError, as_integer
from bendscape.core.quadratic.model import Model, sample_count

FloatArray = npt.NDArray[np.float64]
Blocks = Callable[[], Iterable[tuple[FloatArray, FloatArray]]]
"""Yields the labels y and outputs yhat of one cell, block by block, and the same ones at every call."""

BLOCK_NUMBERS = 2**18
"""Gaussian numbers drawn at a time by :func:`sample_drawn_labels`; they fit into the cache."""
KEPT_SAMPLES = 2**20
"""Cells with at most this many samples keep their labels; larger ones draw them again for every sum."""

LARGEST_LABEL = 1e100
"""Largest accepted label or output: the squares of larger ones would overflow."""

_MOST_STEPS = 100
_LAST_STEP = 2e-15  # relative size at which Newton's method stops


class DrawnLabels(NamedTuple):
    """Predictions from one cell's labels; outlier and overlap are nan if there is no outlier."""

    edge_sample: float
    outlier_sample: float
    overlap_sq_sample: float


class _Labels:
    """Sums over one cell's samples and the p directions of each, divided by p N, so that they include the
    load."""

    def __init__(self, model: Model, N: int, blocks: Blocks) -> None:
        p = int(model.p)
        c, count = np.array([(1.0, p - 1.0), (3.0, 1.0)] if p > 1 else [(3.0, 1.0)]).T
        self.a, self.noise = model.a, model.noise
        self.c = c[:, np.newaxis]
        self.share = count / (p * N)
        self.blocks = blocks
        self.gamma_max = math.inf  # D = offset + gamma u stays positive below it
        self.filling = 0.0  # rank of H / (pN), if below 1
        for _, u, offset in self.terms():
            with np.errstate(divide="ignore"):
                poles = np.where(u < 0, -offset / u, math.inf)
            self.gamma_max = min(self.gamma_max, float(poles.min()))
            self.filling += float(self.share @ np.count_nonzero(u, axis=1))

    def terms(self) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
        """The teacher's signal, u and a + y of every block, u of shape (directions, samples)."""
        for y, yhat in self.blocks():
            signal = y / (1 + self.noise) ** 2 + self.noise / (1 + self.noise)  # E[u_l^2 | y]
            yield signal, self.c * yhat - y, self.a + y

    def total(self, *of: Callable[[FloatArray, FloatArray], FloatArray], gamma: float) -> list[float]:
        """Sums of functions of y and of u/D at one gamma, in one pass over the samples."""
        sums = [0.0] * len(of)
        for y, u, offset in self.terms():
            ratio = u / (offset + gamma * u)
            for i, function in enumerate(of):
                sums[i] += float(self.share @ function(y, ratio).sum(axis=1))
        return sums

    def edge_equation(self, gamma: float) -> tuple[float, float]:
        """1/sqrt(B) - gamma and its slope: decreases through zero at the edge, and is almost linear."""
        B, cube = self.total(lambda y, ratio: ratio * ratio, lambda y, ratio: ratio**2 * ratio, gamma=gamma)
        return B**-0.5 - gamma, cube * B**-1.5 - 1

    def outlier_equation(self, gamma: float) -> tuple[float, float]:
        """-gamma F - 1 and its slope: increases through zero at the outlier."""
        F, slope = self.total(
            lambda y, ratio: (y - 1) * ratio, lambda y, ratio: (y - 1) * ratio * ratio, gamma=gamma
        )
        return -gamma * F - 1, gamma * slope - F


def _solve(
    equation: Callable[[float], tuple[float, float]],
    low: float,
    high: float,
    sign_at_low: float,
    start: float,
) -> float:
    """Root between low and high by Newton's method, with bisection where a step leaves the bracket or
    stalls."""
    gamma, last = start, high - low
    for _ in range(_MOST_STEPS):
        value, slope = equation(gamma)
        if value * sign_at_low > 0:
            low = gamma
        else:
            high = gamma
        step = -value / slope if slope else math.inf
        if not low <= gamma + step <= high or abs(step) > 0.5 * last:
            step = 0.5 * (low + high) - gamma
        gamma += step
        last = abs(step)
        if last <= _LAST_STEP * gamma:
            break
    return gamma


def drawn_labels_theory(model: Model, N: int, y: npt.ArrayLike, yhat: npt.ArrayLike) -> DrawnLabels:
    """Edge, outlier and overlap m^2 of one cell, from its own labels y and outputs yhat.

    z(g) = 1/g + (1/(pN)) sum_mu T_mu(g), T = sum over the p directions of d/(1 - g d). The edge is z where
    z'(g) = 0 between the nearest pole and 0; the outlier is z where 1/g = (1/(pN)) sum_mu (y_mu - 1) T_mu(g),
    if that lies between the edge's g and 0; then m^2 = 1/(1 - S'/z') with S(g) = (1/(pN)) sum_mu y_mu
    T_mu(g). Coded in gamma = -2 g/p.

    Parameters
    ----------
    model : Model
        With finite p.
    N : int
        Input dimension of the cell, >= 2.
    y : array, shape (M,)
        Labels, from 0 to 1e100.
    yhat : array, shape (M,)
        Student outputs, likewise.

    Returns
    -------
    DrawnLabels
        ``edge_sample`` and ``outlier_sample`` in units of the eigenvalues of H, ``overlap_sq_sample`` in [0,
        1]; the last two nan where no outlier is left of the edge.

    Raises
    ------
    ParameterError
        p is infinite, N < 2, or ``y`` or ``yhat`` has another shape or values outside this range.

    Notes
    -----
    Limits: lambda_minus, lambda_star and overlap_sq as N -> inf, except that a finite sample's edge is always
    sharp; where no direction has a negative weight and the directions do not fill the space, the spectrum
    starts at 0, which is then the edge. Accuracy 1e-12 relative; held by ``tests/test_drawn_labels.py``.
    Source: this project's own, arXiv:2510.18435 with sample averages.
    """
    if math.isinf(model.p):
        raise ParameterError("p", model.p, "finite for one cell's labels", "at p = inf there is only theory")
    N = as_integer("N", N, 2)
    labels, outputs = _numbers("y", y), _numbers("yhat", yhat)
    if labels.ndim != 1 or labels.size == 0 or not ((labels >= 0) & (labels <= LARGEST_LABEL)).all():
        raise ParameterError("y", y, f"a one-dimensional array of numbers from 0 to {LARGEST_LABEL:g}")
    if outputs.shape != labels.shape or not ((outputs >= 0) & (outputs <= LARGEST_LABEL)).all():
        raise ParameterError("yhat", yhat, f"numbers from 0 to {LARGEST_LABEL:g}, as many as y")

    return _predicted(model, _Labels(model, N, lambda: [(labels, outputs)]))


def _numbers(parameter: str, values: npt.ArrayLike) -> FloatArray:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ParameterError(parameter, values, "an array of numbers") from None


def _predicted(model: Model, cell: _Labels) -> DrawnLabels:
    if math.isinf(cell.gamma_max) and cell.filling <= 1:
        return DrawnLabels(0.0, math.nan, math.nan)
    high = cell.gamma_max
    from_zero = cell.edge_equation(0.0)[0]
    if math.isinf(high):
        high = from_zero
        while cell.edge_equation(high)[0] > 0:
            high *= 2
    edge = _solve(cell.edge_equation, 0.0, high, 1.0, start=min(from_zero, 0.9 * high))
    edge_sample = _map(model, cell, edge)
    if cell.outlier_equation(edge)[0] <= 0:
        return DrawnLabels(edge_sample, math.nan, math.nan)

    gamma = _solve(cell.outlier_equation, 0.0, edge, -1.0, start=0.9 * edge)
    B, B_y = cell.total(lambda y, ratio: ratio**2, lambda y, ratio: y * ratio**2, gamma=gamma)
    Z = gamma**-2 - B
    overlap_sq = max(0.0, Z / (Z + B_y))
    return DrawnLabels(edge_sample, min(_map(model, cell, gamma), edge_sample), overlap_sq)


def _map(model: Model, cell: _Labels, gamma: float) -> float:
    """Spectral map z of the cell at gamma."""
    (A,) = cell.total(lambda y, ratio: ratio, gamma=gamma)
    return (2 / model.p) * (-1 / gamma + A)


def sample_drawn_labels(
    model: Model, alpha: float, N: int, rng: np.random.Generator, *, kept: int | None = None
) -> DrawnLabels:
    """Draw the labels of one cell, without its data, and return the theory conditional on them.

    The directions of p + p_star random weights have the Gram matrix L L^T with the rows of L normalised and L
    a Bartlett factor: L_ii of chi_(N-i) law (i from 0), L_ij normal for j < i. Given the weights, the fields
    of one sample are normal with that covariance; y and yhat are means of their squares. Beyond ``kept``
    samples each sum draws the labels again, from the same seeds: the same bits, in less memory.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension; M = sample_count(alpha, N).
    N : int
        Input dimension, >= 2.
    rng : numpy.random.Generator
        Source of the weights' directions and of the seed of the samples.
    kept : int, optional
        Largest M whose labels are kept, at 16 bytes each; ``KEPT_SAMPLES`` by default.

    Returns
    -------
    DrawnLabels
        As of :func:`drawn_labels_theory`.

    Raises
    ------
    ParameterError
        p is infinite, or :func:`sample_count` refuses ``alpha`` and N.

    Notes
    -----
    The labels have exactly their law at finite N, including the overlaps between weights; the predictions
    from them are the leading order in N. Time O(M (p + p_star)^2), about 20 times as long beyond ``kept``;
    memory is bounded at any N. Held by ``tests/test_drawn_labels.py``. Source: this project's own.
    """
    if math.isinf(model.p):
        raise ParameterError("p", model.p, "finite for sampling", "at p = inf there is only theory")
    M = sample_count(alpha, N)
    N = int(N)
    directions = _directions(int(model.p) + model.p_star, N, rng)
    seed = [int(word) for word in rng.integers(2**32, size=4)]
    blocks = _blocks(model, M, directions, seed)
    kept = KEPT_SAMPLES if kept is None else kept
    if kept >= M:
        labels = list(blocks())
        return _predicted(model, _Labels(model, N, lambda: labels))
    return _predicted(model, _Labels(model, N, blocks))


def _directions(count: int, N: int, rng: np.random.Generator) -> FloatArray:
    """Coordinates of ``count`` random unit vectors of R^N in a basis of their span, one a row."""
    if count > N:
        coordinates = rng.standard_normal((count, N))
    else:
        coordinates = np.tril(rng.standard_normal((count, count)), -1)
        np.fill_diagonal(coordinates, np.sqrt(rng.chisquare(N - np.arange(count))))
    unit: FloatArray = coordinates / np.linalg.norm(coordinates, axis=1, keepdims=True)
    return unit


def _blocks(model: Model, M: int, directions: FloatArray, seed: list[int]) -> Blocks:
    """Blocks of the labels of M samples, the same at every call."""
    p, width = int(model.p), directions.shape[1]
    block = max(1, BLOCK_NUMBERS // len(directions))

    def draw() -> Iterator[tuple[FloatArray, FloatArray]]:
        rng = np.random.default_rng(seed)
        for first in range(0, M, block):
            fields = directions @ rng.standard_normal((width, min(block, M - first)))
            if model.noise:
                fields[p:] += math.sqrt(model.noise) * rng.standard_normal(fields[p:].shape)
            np.square(fields, out=fields)
            yield fields[p:].mean(axis=0), fields[:p].mean(axis=0)

    return draw
