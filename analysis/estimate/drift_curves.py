"""The load at which samples of one size begin to show the teacher, by shifting theory's curve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

from bendscape.analysis.dataset.curves import Flags, Floats, half_width, resampled_means, resampling_counts
from bendscape.analysis.estimate.estimators import LEAST_ALPHAS, LEAST_SEEDS
from bendscape.core.quadratic.finite_size.drift_law import HidingCurve
from bendscape.core.quadratic.model import Model

FLAGS: Mapping[str, str] = {
    "estimated": "estimated",
    "not_applicable": "the transition is continuous: its threshold is alpha_bbp at every size",
    "below_the_crossover": "no label hides the teacher at this size: the overlap is born at alpha_0",
    "not_enough_data": "not enough data",
    "above_the_alpha_range": "hidden at all alphas measured: the threshold lies above them",
    "below_the_alpha_range": "seen at all alphas measured: the threshold lies below them",
    "alphas_too_far_apart": "the overlap jumps from hidden to seen between two alphas",
    "interval_leaves_the_alpha_range": "estimated, but the interval leaves the alphas measured",
}
"""Outcomes at one size, in words; stored as int8, the index in this order."""

STRETCHES = np.geomspace(0.4, 2.5, 11)
"""Widths that are tried, in units of theory's; the middle one is 1."""

_FARTHEST = 4.0  # largest spacing of alphas at the estimate, in units of the width of exp(-kappa)
_PLACES = 200  # number of loads tried


class Seen(NamedTuple):
    """alpha_seen of one size, or the flag that says why there is none.

    ``error`` is the standard error, ``low`` and ``high`` the interval, ``stretch`` the fitted width over
    theory's, ``cross_check`` the estimate with theory's width, ``systematic`` the part of their difference
    that exceeds its own error, ``error_dof`` the degrees of freedom of the error.
    """

    flag: str
    value: float = math.nan
    error: float = math.nan
    low: float = math.nan
    high: float = math.nan
    systematic: float = math.nan
    cross_check: float = math.nan
    stretch: float = math.nan
    error_dof: int = 0


class SizeCurve(NamedTuple):
    """The data of one size: loads, cells (alpha, seed), which are done, and the overlap without hiding labels
    at each load."""

    N: int
    alpha: Floats
    cells: Floats
    done: Flags
    visible: Floats


def alpha_seen(
    model: Model, curve: HidingCurve, size: SizeCurve, n_boot: int, level: float, seed: int
) -> Seen:
    """The load t at which exp(-kappa) is 1/e, by least squares of

        <overlap_sq>(alpha) = visible(alpha) exp(-kappa(alpha_bbp(N) + (alpha - t)/r)),

    weighted by the seeds at each alpha. kappa and visible are theory's. The estimate fits the position t and
    the width r; the cross-check fits t alone, with r = 1.

    Parameters
    ----------
    model : Model
        A model with a discontinuous transition.
    curve : HidingCurve
        The hiding curve of this model.
    size : SizeCurve
        The data of a size beyond the crossover; loads where ``visible`` is nan are left out.
    n_boot, level, seed : int, float, int
        Number of resamplings of the seeds, the same draw at every alpha; level of the interval; random seed.

    Returns
    -------
    Seen
        Error and interval come from n_boot resamplings of n seeds, times (n/(n - 1))^(1/2) and, for the
        interval, times the ratio of the quantile of Student's t with n - 1 degrees of freedom to the normal
        one.

    Notes
    -----
    alpha_bbp(N) is no input: kappa is 1 at t whatever its value. Coverage: ``tests/test_drift.py`` and
    ``benchmarks/drift.py``. Source: this project's own; the interval is the expanded percentile interval of
    Hesterberg, Am. Stat. 69 (2015) 371.
    """
    seeds = size.done.any(axis=0)
    n_seeds = size.done.sum(axis=1)
    use = (n_seeds >= LEAST_SEEDS) & np.isfinite(size.visible)
    if len(np.unique(size.alpha[use])) < LEAST_ALPHAS:
        return Seen("not_enough_data")
    alpha, order = size.alpha[use], np.argsort(size.alpha[use], kind="stable")
    entropy = [seed, size.N, int(model.p), model.p_star, int(np.float64(model.a).view(np.uint64))]
    counts = resampling_counts(int(seeds.sum()), n_boot, np.random.default_rng(entropy))
    means = resampled_means(size.cells[use][:, seeds], size.done[use][:, seeds], counts)
    alpha, visible, weights = alpha[order], size.visible[use][order], n_seeds[use][order].astype(np.float64)
    moved = _Moved(curve, size.N, alpha, visible, weights)
    places, stretches = moved.fitted(means[:, order], STRETCHES)
    error_dof = int(np.median(weights)) - 1
    value = float(places[0])
    if not math.isfinite(value):
        return Seen("above_the_alpha_range" if value > 0 else "below_the_alpha_range")
    small_sample = math.sqrt((error_dof + 1) / error_dof)
    error = small_sample * half_width(places[1:])
    nearest = np.searchsorted(alpha, value)
    if error == 0 or alpha[nearest] - alpha[nearest - 1] > _FARTHEST * moved.width:
        return Seen("alphas_too_far_apart")
    tail = 0.5 + level / 2
    expanded = small_sample * float(stdtrit(error_dof, tail) / ndtri(tail))
    ends = np.quantile(places[1:], (1 - tail, tail), method="nearest")  # does not interpolate inf
    low, high = (value + expanded * (float(end) - value) if math.isfinite(end) else math.nan for end in ends)

    others, _ = moved.fitted(means[:, order], np.ones(1))
    systematic = math.nan
    both = np.isfinite(others) & np.isfinite(places)
    if both[0] and both[1:].sum() > 0.5 * n_boot:
        change = float(others[0] - value)
        noise = small_sample * half_width((others[both] - places[both])[1:])
        systematic = math.sqrt(max(0.0, change**2 - noise**2))
    leaves = math.isnan(low + high + error)
    return Seen(
        "interval_leaves_the_alpha_range" if leaves else "estimated",
        value, error, low, high, systematic, float(others[0]), float(stretches[0]), error_dof,
    )  # fmt: skip


class _Moved:
    """Theory's curve at every position and stretch, compared with many resamplings at once."""

    def __init__(self, curve: HidingCurve, N: int, alpha: Floats, visible: Floats, weights: Floats) -> None:
        self.curve, self.N, self.alpha, self.visible, self.weights = curve, N, alpha, visible, weights
        self.threshold = curve.threshold(N)
        self.places = np.linspace(alpha.min(), alpha.max(), _PLACES)
        step = 1e-3 * self.threshold
        ahead, here = curve.log_kappa(self.threshold + np.array([step, 0.0]), N)
        self.width = step / float(here - ahead)

    def fitted(self, means: Floats, stretches: Floats) -> tuple[Floats, Floats]:
        """Least-squares position and stretch for every row of means; -inf or inf if the position is the first
        or the last tried."""
        least = np.full(len(means), np.inf)
        place, stretch, rows = np.zeros(len(means)), np.zeros(len(means)), np.arange(len(means))
        for r in stretches:
            loads = self.threshold + (self.alpha - self.places[:, None]) / r
            seen = self.visible * np.exp(-np.exp(np.minimum(self.curve.log_kappa(loads, self.N), 100.0)))
            squares = (self.weights * seen**2).sum(axis=1) - 2 * (self.weights * means) @ seen.T
            lowest = squares.argmin(axis=1)
            better = squares[rows, lowest] < least
            least = np.where(better, squares[rows, lowest], least)
            place = np.where(better, self._vertex(squares, lowest), place)
            stretch = np.where(better, r, stretch)
        return place, stretch

    def _vertex(self, squares: Floats, lowest: Floats) -> Floats:
        """Minimum of the parabola through the least square and its neighbours."""
        rows, last = np.arange(len(squares)), len(self.places) - 1
        middle = np.clip(lowest, 1, last - 1).astype(np.intp)
        left, centre, right = (squares[rows, middle + k] for k in (-1, 0, 1))
        bend = left - 2 * centre + right
        shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
        found = self.places[middle] + shift * (self.places[1] - self.places[0])
        found = np.where(lowest == 0, -np.inf, found)
        return np.where(lowest == last, np.inf, found)
