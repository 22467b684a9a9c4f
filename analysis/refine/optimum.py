"""Optimal designs: how to divide computing time among points so that one parameter of a fit is determined
best.

A cell at point i measures a mean with gradient J_i in the parameters and standard deviation sigma_i, and
costs c_i seconds. With n_i cells at every point

    M = M_0 + sum_i n_i J_i J_i^T / sigma_i^2,    variance = e^T M^-1 e,

e the direction of the parameter and M_0 the prior with the cells that exist. Under the constraint
sum_i n_i c_i = seconds the variance is a convex function of the shares x_i = n_i c_i / seconds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bendscape.analysis.dataset.curves import Floats

GAP = 0.005
"""Certified gap to the optimum, relative to the variance, at which the iteration stops."""

_STEPS = 20_000
_LOOK = 25  # steps between two looks at the certificate


class Points(NamedTuple):
    """Points where cells can be computed: gradients of the mean, (n, k); standard deviation and seconds of
    one cell, (n,)."""

    gradient: Floats
    sigma: Floats
    cost: Floats

    @property
    def rows(self) -> Floats:
        """J_i / (sigma_i c_i^(1/2)), (n, k): information of one second is the outer product with itself."""
        return np.asarray(self.gradient / (self.sigma * np.sqrt(self.cost))[:, None])


class Optimum(NamedTuple):
    """Shares of the time, the variance that they give, and a bound on the relative amount by which the least
    possible variance is smaller."""

    share: Floats
    variance: float
    gap: float


def information(gradient: Floats, sigma: Floats, cells: Floats) -> Floats:
    """sum_i n_i J_i J_i^T / sigma_i^2, shape (k, k)."""
    rows = gradient * (np.sqrt(cells) / sigma)[:, None]
    return np.asarray(rows.T @ rows)


def column_of_inverse(matrix: Floats, direction: Floats) -> Floats:
    """M^-1 e for a symmetric positive semidefinite M, whose parameters may have any units.

    A singular M is treated as if the parameters that it does not determine had a huge variance, so that a
    design is drawn to determine them.
    """
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    scaled = matrix * scale * scale[:, None] + 1e-10 * np.eye(len(matrix))
    return np.asarray(scale * np.linalg.solve(scaled, scale * direction))


def variance(matrix: Floats, direction: Floats) -> float:
    """e^T M^-1 e."""
    return float(direction @ column_of_inverse(matrix, direction))


def optimum(
    points: Points, known: Floats, direction: Floats, seconds: float, start: Floats | None = None
) -> Optimum:
    """Shares of ``seconds`` that minimise the variance of one parameter.

    With d_i = seconds (J_i^T M^-1 e)^2 / (sigma_i^2 c_i), which is the fall of the variance with x_i, the
    iteration is x_i <- x_i d_i^(1/2), normalised. By convexity the least variance is not below

        variance - (max_i d_i - sum_i x_i d_i),

    which certifies the result: the iteration stops when this gap is at most ``GAP`` of the variance.

    Parameters
    ----------
    points : Points
        At least one.
    known : array, shape (k, k)
        Information of the prior and of the cells that exist.
    direction : array, shape (k,)
        The parameter: a unit vector, or any combination.
    seconds : float
        Time to divide, > 0.
    start : array, shape (n,), optional
        Shares to begin with, all > 0; by default equal ones.

    Returns
    -------
    Optimum
        Shares >= 0 that sum to 1.

    Notes
    -----
    ``tests/test_optimum.py`` compares it with scipy's SLSQP. Source of the iteration: Silvey, Titterington
    and Torsney, Comm. Stat. A 7 (1978) 1379; of the bound: the convexity of the variance, as in Kiefer's
    equivalence theorem.
    """
    rows = points.rows
    share = np.full(len(rows), 1 / len(rows)) if start is None else start / start.sum()
    for step in range(_STEPS + 1):
        matrix = known + seconds * (rows * share[:, None]).T @ rows
        column = column_of_inverse(matrix, direction)
        slope = seconds * (rows @ column) ** 2
        if step % _LOOK == 0:
            value = float(direction @ column)
            gap = float(slope.max() - share @ slope) / value
            if gap <= GAP or step == _STEPS:
                break
        share = share * np.sqrt(slope)
        share /= share.sum()
    return Optimum(share, value, max(gap, 0.0))


def whole_cells(share: Floats, seconds: float, cost: Floats, least: int) -> Floats:
    """Whole numbers of cells for these shares of the time, none between 1 and ``least`` - 1, at a total cost
    of at most ``seconds``.

    Points that would get fewer than ``least`` cells are left out, those with the smallest number first, and
    their time goes to the others in proportion. Cells that rounding down leaves over go to the points with
    the largest fractions. All zero if the time does not suffice for ``least`` cells anywhere.
    """
    share = np.where(share > 0, share, 0.0)
    while True:
        if not share.any():
            return np.zeros(len(share))
        cells = share / share.sum() * seconds / cost
        few = (share > 0) & (cells < least)
        if not few.any():
            break
        share[np.flatnonzero(few)[cells[few].argmin()]] = 0.0
    whole: Floats = np.floor(cells)
    left = seconds - float(whole @ cost)
    for i in np.argsort(-(cells - whole), kind="stable"):
        if share[i] > 0 and cost[i] <= left:
            whole[i] += 1
            left -= float(cost[i])
    return whole


def lattice(low: float, high: float, steps: int) -> list[float]:
    """Values with few digits from low to high: multiples of the largest of 1, 2 and 5 times a power of ten
    that divides the range into at least ``steps`` parts. Nested ranges share values."""
    if not high > low:
        return []
    width = (high - low) / steps
    power = 10.0 ** np.floor(np.log10(width))
    step = power * max(m for m in (1, 2, 5) if m * power <= width * (1 + 1e-9))
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in np.arange(first, last + 1)]
