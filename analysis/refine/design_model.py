"""What an estimator declares so that the cells which it needs most can be found: its model of the mean, with
its gradient, and how far the present fit may be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.refine.optimum import information, variance

Trust = Literal["sound", "suspect", "refuted"]


@dataclass(frozen=True)
class DesignModel:
    """The mean of a measured quantity on a curve and size axis, near the present fit.

    Parameters
    ----------
    parameters
        Names of the k parameters.
    theta
        Their values by the present fit, (k,).
    target
        Index of the parameter that is wanted.
    mean
        ``mean(theta, curve, size)``, (n,), for arrays (n,) of values of the curve, in the curve's own units,
        and of sizes.
    gradient
        ``gradient(theta, curve, size)``, the derivatives of the mean, (n, k).
    sigma
        ``sigma(curve, size)``, the standard deviation of one cell, (n,), > 0.
    prior
        Information on the parameters before any cell, (k, k): zeros, or the inverse covariance of a prior.
    curve, size, cells
        The points that the fit uses, with their numbers of cells, (m,).
    region
        ``region(size)``, the first and the last value of the curve between which the model holds.
    sizes
        Sizes at which cells may be added.
    least_cells, least_points
        Cells, and points in the region with at least ``least_seeds`` cells, below which the fit leaves out a
        size or cannot describe it.
    least_seeds
        Cells below which the fit leaves out a point.
    """

    parameters: tuple[str, ...]
    theta: Floats
    target: int
    mean: Callable[[Floats, Floats, Floats], Floats]
    gradient: Callable[[Floats, Floats, Floats], Floats]
    sigma: Callable[[Floats, Floats], Floats]
    prior: Floats
    curve: Floats
    size: Floats
    cells: Floats
    region: Callable[[float], tuple[float, float]]
    sizes: tuple[int, ...]
    least_cells: int = 0
    least_points: int = 0
    least_seeds: int = 4

    @property
    def direction(self) -> Floats:
        """Unit vector of the target, (k,)."""
        return np.asarray(np.eye(len(self.parameters))[self.target])

    def information(self, curve: Floats, size: Floats, cells: Floats) -> Floats:
        """Information of cells at these points, (k, k)."""
        return information(self.gradient(self.theta, curve, size), self.sigma(curve, size), cells)

    def known(self) -> Floats:
        """Information of the prior and of the cells that the fit uses, (k, k)."""
        return np.asarray(self.prior + self.information(self.curve, self.size, self.cells))

    def standard_error(self) -> float:
        """Standard error of the target by this model: [M^-1]^(1/2)."""
        return math.sqrt(variance(self.known(), self.direction))


class Shift(NamedTuple):
    """How far an estimate moves under another choice of the fit, with the standard error of that change."""

    words: str
    change: float
    error: float


@dataclass(frozen=True)
class Fitted:
    """The estimate of one model of a sweep, and the design model that goes with it.

    Parameters
    ----------
    value, error
        Estimate and standard error; nan if there is none. The error is not below what the 95 % interval
        implies.
    trust
        ``suspect`` if a test fails (p-value below 0.01, or 3 errors), ``refuted`` if one fails by far (1e-6,
        or 4.5 errors), otherwise ``sound``.
    reason
        Why there is no estimate, or why it is not sound; empty otherwise.
    bounded
        Whether the lack of an estimate is final: more cells at the points of the campaign do not help.
    design
        None if nothing is known of where the target lies.
    estimator
        Name of the estimator.
    low, high
        Ends of the 95 % interval.
    shifts
        Other choices of the fit.
    """

    value: float = math.nan
    error: float = math.nan
    trust: Trust = "sound"
    reason: str = ""
    bounded: bool = False
    design: DesignModel | None = None
    estimator: str = ""
    low: float = math.nan
    high: float = math.nan
    shifts: tuple[Shift, ...] = field(default=())


@dataclass(frozen=True)
class Quantity:
    """A quantity that a target can name; see :func:`bendscape.analysis.refine.refiner.refiner`.

    Parameters
    ----------
    name
        The name of its entry point of the group `bendscape.refiners`, or VARIABLE=LEVEL.
    needs
        The variables and axes that the sweep must have. Its estimate is not used.
    fit
        ``fit(block)`` for one model of the sweep: a dataset in memory over the curve, the sizes and the
        seeds, with the variables that ``needs`` names, the coordinate of the model axes, and `status`.
    numbers
        Variables of ``needs`` that have to be one real number a cell.
    """

    name: str
    needs: Analysis
    fit: Callable[[xr.Dataset], Fitted]
    numbers: tuple[str, ...] = ()
