"""The theory of one cell's own labels: its edge and its outlier in O(M), without a matrix.

At finite N the lowest eigenvalue fluctuates from cell to cell by O(N^(-1/2)), and most of it comes from which
labels were drawn. Replacing every average over (y, yhat) by the mean over the cell's own M samples keeps
those fluctuations and predicts the eigenvalue of this very cell, which makes the prediction a control variate
for the measured one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.model import Model, ParameterError, as_integer

FloatArray = npt.NDArray[np.float64]

_MOST_STEPS = 100
_LAST_STEP = 2e-15  # relative


class Conditional(NamedTuple):
    """What one cell's labels predict; outlier and overlap are nan where there is no outlier."""

    edge_sample: float
    outlier_sample: float
    overlap_sq_sample: float


class _Labels:
    """Sums over one cell's samples and the p directions of each, divided by p N: they contain the load."""

    def __init__(self, model: Model, N: int, y: FloatArray, yhat: FloatArray) -> None:
        p = int(model.p)
        c, count = np.array([(1.0, p - 1.0), (3.0, 1.0)] if p > 1 else [(3.0, 1.0)]).T
        self.y = y
        self.u = c[:, np.newaxis] * yhat - y
        self.offset = model.a + y
        self.signal = y / (1 + model.noise) ** 2 + model.noise / (1 + model.noise)
        self.share = count / (p * N)
        with np.errstate(divide="ignore"):
            poles = np.where(self.u < 0, -self.offset / self.u, math.inf)
        self.gamma_max = float(poles.min())  # D = offset + gamma u stays positive below it
        self.filling = float(self.share @ np.count_nonzero(self.u, axis=1))  # rank of H / (pN), if below 1

    def total(self, terms: FloatArray) -> float:
        return float(self.share @ terms.sum(axis=1))

    def ratio(self, gamma: float) -> FloatArray:
        """u/D, shape (directions, M)."""
        ratio: FloatArray = self.u / (self.offset + gamma * self.u)
        return ratio

    def edge_equation(self, gamma: float) -> tuple[float, float]:
        """1/sqrt(B) - gamma and its slope: falls through zero at the edge, nearly straight all the way."""
        ratio = self.ratio(gamma)
        square = ratio * ratio
        B = self.total(square)
        return B**-0.5 - gamma, self.total(square * ratio) * B**-1.5 - 1

    def outlier_equation(self, gamma: float) -> tuple[float, float]:
        """-gamma F - 1 and its slope: rises through zero at the outlier."""
        ratio = self.ratio(gamma)
        centred = (self.signal - 1) * ratio
        F = self.total(centred)
        return -gamma * F - 1, gamma * self.total(centred * ratio) - F


def _solve(
    equation: Callable[[float], tuple[float, float]],
    low: float,
    high: float,
    sign_at_low: float,
    start: float,
) -> float:
    """Root between low and high by Newton's method, by halving where a step leaves the bracket or stalls."""
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


def conditional_theory(model: Model, N: int, y: npt.ArrayLike, yhat: npt.ArrayLike) -> Conditional:
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
        Labels, >= 0.
    yhat : array, shape (M,)
        Student outputs, >= 0.

    Returns
    -------
    Conditional
        ``edge_sample`` and ``outlier_sample`` in units of the eigenvalues of H, ``overlap_sq_sample`` in [0,
        1]; the last two nan where no outlier is left of the edge.

    Notes
    -----
    Limits: lambda_minus, lambda_star and overlap_sq as N -> inf, except that a finite sample's edge is always
    sharp; where no direction has a negative weight and they do not fill the space, the spectrum starts at 0,
    which is then the edge. Accuracy 1e-12 relative; held by ``tests/test_conditional.py``. Source: this
    project's own, arXiv:2510.18435 with sample averages.
    """
    if math.isinf(model.p):
        raise ParameterError("p", model.p, "finite for one cell's labels", "p = inf has theory only")
    N = as_integer("N", N, 2)
    labels, outputs = np.asarray(y, dtype=np.float64), np.asarray(yhat, dtype=np.float64)
    if labels.ndim != 1 or labels.size == 0 or not (np.isfinite(labels) & (labels >= 0)).all():
        raise ParameterError("y", y, "a one-dimensional array of finite numbers >= 0")
    if outputs.shape != labels.shape or not (np.isfinite(outputs) & (outputs >= 0)).all():
        raise ParameterError("yhat", yhat, "an array of finite numbers >= 0 of the same length as y")

    cell = _Labels(model, N, labels, outputs)
    if math.isinf(cell.gamma_max) and cell.filling <= 1:
        return Conditional(0.0, math.nan, math.nan)
    high = cell.gamma_max
    from_zero = cell.edge_equation(0.0)[0]
    if math.isinf(high):
        high = from_zero
        while cell.edge_equation(high)[0] > 0:
            high *= 2
    edge = _solve(cell.edge_equation, 0.0, high, 1.0, start=min(from_zero, 0.9 * high))
    edge_sample = _map(model, cell, edge)
    if cell.outlier_equation(edge)[0] <= 0:
        return Conditional(edge_sample, math.nan, math.nan)

    gamma = _solve(cell.outlier_equation, 0.0, edge, -1.0, start=0.9 * edge)
    square = cell.ratio(gamma) ** 2
    Z = gamma**-2 - cell.total(square)
    overlap_sq = max(0.0, Z / (Z + cell.total(cell.signal * square)))
    return Conditional(edge_sample, min(_map(model, cell, gamma), edge_sample), overlap_sq)


def _map(model: Model, cell: _Labels, gamma: float) -> float:
    """Spectral map z of the cell at gamma."""
    return (2 / model.p) * (-1 / gamma + cell.total(cell.ratio(gamma)))
