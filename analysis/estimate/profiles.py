"""An estimate with the interval of all values that the data do not reject, and its outcome."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import f as f_law

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.estimate.student import t_limits

POOR = 0.01
"""P-value below which a fit is called poor."""

SURER = 0.1
"""Fraction of the error rate at which one end of the alphas must be rejected before a side is named."""


class Fit(NamedTuple):
    """One estimate with its resamplings (row 0 is the estimate; inf or -inf beyond the alphas searched), or
    the flag that says why there is none; chi^2 with its degrees of freedom, and those of the errors; the
    alphas searched, with the deviance there (chi^2 minus its minimum); the possible bias of the estimate, by
    which the interval is extended on both sides; and the skewness of the mean overlaps, as far as it matters:
    where they are low by chance, the estimate is high and its error small."""

    values: Floats | None
    flag: str = "estimated"
    chi2: float = math.nan
    dof: int = 0
    error_dof: float = math.nan
    grid: Floats = np.array([math.nan])
    deviance: Floats = np.array([math.nan])
    bias: float = 0.0
    skewness: float = 0.0

    @property
    def p_value(self) -> float:
        """Probability of a larger chi^2 by the F distribution; nan without degrees of freedom."""
        return float(f_law.sf(self.chi2 / self.dof, self.dof, self.error_dof)) if self.dof > 0 else math.nan

    def interval(self, level: float) -> tuple[float, float]:
        """First and last alpha that the data do not reject at this level; -inf or inf if it is an end of the
        alphas searched."""
        if self.values is None:
            return -math.inf, math.inf
        limits = t_limits(np.array(self.skewness), np.array(self.error_dof), level)
        (low, _), (_, high) = (accepted(self.grid, self.deviance, float(t**2)) for t in limits)
        return low - abs(self.bias), high + abs(self.bias)

    def or_not_rejected(self, grid: Floats, deviance: Floats) -> Fit:
        """This fit extended to the alphas searched by another, with the smaller deviance where both have
        one."""
        every = np.union1d(self.grid, grid)
        pairs = ((self.grid, self.deviance), (grid, deviance))
        each = [np.interp(every, *pair, left=math.inf, right=math.inf) for pair in pairs]
        return self._replace(grid=every, deviance=np.minimum(*each))

    def at_most(self, place: float, information: float) -> Fit:
        """This fit with the deviance limited to information times the squared distance from a place. With few
        data, chance makes curves steeper than they can be, and intervals that owe their ends to this miss the
        truth too often."""
        return self._replace(deviance=np.minimum(self.deviance, information * (self.grid - place) ** 2))

    def flagged(self, level: float) -> Fit:
        """This fit with the flag that follows from estimate, interval and chi^2.

        Without a minimum or crossing within the alphas, a side is named only if the opposite end is rejected,
        at a tenth of the error rate."""
        if self.values is None:
            return self
        value, (low, high) = float(self.values[0]), self.interval(level)
        flag = "estimated"
        if not math.isfinite(value):
            ends = self.interval(1 - SURER * (1 - level))
            sure = math.isfinite(ends[0] if value > 0 else ends[1])
            flag = f"{'above' if value > 0 else 'below'}_the_alpha_range" if sure else "not_enough_data"
        elif self.p_value < POOR:
            flag = "poor_fit"
        elif not (math.isfinite(low) and math.isfinite(high)):
            flag = "interval_leaves_the_alpha_range"
        return self._replace(flag=flag)


def one_sided(grid: Floats, z: Floats, zero: float) -> tuple[Floats, Floats]:
    """Deviance of loads as the zero of a rising curve, on a grid and at the estimate ``zero``, where z is the
    curve over its standard error: the largest square of z among those that are negative between a load and
    the estimate or, for loads above the estimate, positive."""
    if math.isfinite(zero) and zero not in grid:
        k = int(np.searchsorted(grid, zero))
        grid, z = np.insert(grid, k, zero), np.insert(z, k, 0.0)
    left = np.maximum.accumulate(np.minimum(z, 0.0)[::-1] ** 2 * (grid < zero)[::-1])[::-1]
    right = np.maximum.accumulate(np.maximum(z, 0.0) ** 2 * (grid > zero))
    deviance = np.where(grid < zero, left, right)
    if math.isinf(zero):
        deviance[-1 if zero > 0 else 0] = 0.0  # loads beyond the grid are not rejected
    return grid, np.asarray(deviance)


def accepted(grid: Floats, deviance: Floats, most: float) -> tuple[float, float]:
    """First and last grid point whose deviance is at most ``most``, interpolated in its square root; -inf or
    inf if that is an end of the grid."""
    root, inside = np.sqrt(np.maximum(deviance, 0.0)), np.flatnonzero(deviance <= most)
    ends = [-np.inf, np.inf]
    for i, (at, step, end) in enumerate(((inside[0], -1, 0), (inside[-1], 1, len(grid) - 1))):
        if at != end:
            share = (np.sqrt(most) - root[at]) / (root[at + step] - root[at])
            ends[i] = float(grid[at] + share * (grid[at + step] - grid[at]))
    return ends[0], ends[1]
