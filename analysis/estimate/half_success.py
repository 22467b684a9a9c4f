"""Where a success rate passes one half: rates of success against a curve axis, their crossing with an
interval, and its slope in ln N."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, stdtrit
from scipy.stats import binomtest, chi2

from bendscape.analysis.dataset.curves import Floats

Counts = npt.NDArray[np.int64]

LEVEL = 0.95
LEAST_CELLS = 3
"""A curve value with fewer cells is left out."""
LEAST_VALUES = 3
"""Values of the curve axis that a crossing needs."""
MISFIT = 0.01
"""p-value of the form of the curve below which an estimate is flagged."""

FLAGS = {
    "estimated": "the curve crosses one half within its values, and both ends of the interval are inside",
    "interval_leaves_the_range": "an end of the interval lies beyond the values of the curve axis: open",
    "above_the_range": "the crossing lies above the end `low`",
    "below_the_range": "the crossing lies below the end `high`",
    "not_enough_data": "too few cells or values, or no rise that the data show",
    "no_rising_curve_fits": "no curve of the family describes the rates",
}
"""Outcomes of a crossing, in words."""

MANY = 60
"""Cells at a value from which on a finer grid is used."""
_PLACES, _WIDTHS = 301, 36
_FAR = 20.0  # in ln likelihood
_MARGIN = 1.0  # places of the crossing beyond the values of the curve axis, in units of their span
_LN2 = math.log(2.0)
SKEWS = (0.25, 0.5, 1.0, 2.0, 4.0)
LIGHT, HEAVY = 2.0, 1.0
_MIRRORED = (8, 5, 4, 3, 2, 1, 6, 7, 0)
"""Places of the mirror images of the curves of `_curves`."""


class Interval(NamedTuple):
    """A value with the ends of its interval; an open end is infinite."""

    value: float
    low: float
    high: float


class HalfSuccess(NamedTuple):
    """Where a success rate passes one half.

    ``value`` is nan without a crossing, ``chi2`` with ``dof`` compares the rates with the curve, and
    ``places`` with ``deviance`` is the profile, 2 ln(largest likelihood / largest with the crossing there).
    """

    value: float
    low: float
    high: float
    width: float
    chi2: float
    dof: int
    p_value: float
    flag: str
    places: Floats
    deviance: Floats


class Slope(NamedTuple):
    """Crossings against ln N: slope with the interval of the counts alone (``statistical``) and with the
    heterogeneity of sizes (``total``); the common crossing without a slope; ``chi2`` of the straight line
    and of the constant, with p-values; ``dof`` of the line."""

    statistical: Interval
    total: Interval
    common: Interval
    chi2: float
    dof: int
    p_value: float
    chi2_constant: float
    p_value_constant: float
    sizes: tuple[int, ...]


@lru_cache(maxsize=65536)
def rate_interval(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """A rate with its Wilson interval (J. Am. Stat. Assoc. 22 (1927) 209); all nan without trials."""
    if not trials:
        return Interval(math.nan, math.nan, math.nan)
    at = binomtest(successes, trials).proportion_ci(level, method="wilson")
    return Interval(successes / trials, float(at.low), float(at.high))


def _curves(u: Floats) -> Floats:
    """ln P of rising curves with P(0) = 1/2 on a first axis: logistic ones in a distorted variable.

    Widths left and right of the middle that differ by a factor (``SKEWS``), tails that are lighter or heavier
    (``LIGHT``, ``HEAVY``), and the Gompertz curve with its mirror image, which have one of each."""
    skewed = [np.where(u > 0, u / r**0.5, u * r**0.5) for r in SKEWS]
    light = np.sinh(np.clip(LIGHT * u, -50.0, 50.0)) / LIGHT
    heavy = np.arcsinh(HEAVY * u) / HEAVY
    mirror = np.log(-np.expm1(-_LN2 * np.exp(np.clip(u, -300.0, 50.0))))
    gompertz = -_LN2 * np.exp(np.clip(-u, -300.0, 50.0))
    return np.stack([gompertz, *(-np.logaddexp(0.0, -v) for v in (*skewed, light, heavy)), mirror])


class Design:
    """The family of curves at the values of one curve axis, shared by all samples of the same design.

    P(x) = F((x - c)/w): c on a grid from one span below to one span above the values, w from a twentieth of
    the smallest spacing (a step) to twenty spans (no rise).
    """

    def __init__(self, x: Floats, places: Floats | None = None, widths: Floats | None = None) -> None:
        self.x = np.asarray(x, dtype=np.float64)
        span = float(np.ptp(self.x))
        spacing = float(np.diff(np.unique(self.x)).min())
        all_places = np.linspace(self.x[0] - _MARGIN * span, self.x[-1] + _MARGIN * span, _PLACES)
        self.places = all_places if places is None else places
        self.widths = np.geomspace(spacing / 20, 20 * span, _WIDTHS) if widths is None else widths
        u = (self.x - self.places[:, None, None]) / self.widths[:, None]
        self.success = np.maximum(_curves(u), -700.0)
        self.failure = np.maximum(_curves(-u)[list(_MIRRORED)], -700.0)

    def closer(self, found: Floats) -> Design:
        """A finer grid where a likelihood is not far from its largest; for many cells."""
        near = found >= found.max() - _FAR
        grids = []
        for values, axes in ((self.places, (0, 2)), (self.widths, (0, 1))):
            inside = np.flatnonzero(near.any(axis=axes))
            grids.append((values[max(0, inside[0] - 1)], values[min(len(values) - 1, inside[-1] + 1)]))
        return Design(self.x, np.linspace(*grids[0], _PLACES // 2), np.geomspace(*grids[1], _WIDTHS))

    def likelihood(self, successes: Counts, trials: Counts) -> Floats:
        """ln likelihood over (curve, place, width)."""
        return np.asarray(self.success @ successes + self.failure @ (trials - successes), dtype=np.float64)


@lru_cache(maxsize=4)
def _design(x: tuple[float, ...]) -> Design:
    """The design of these values; some 15 MB for ten."""
    return Design(np.array(x))


def half_success(
    x: Floats,
    successes: Counts,
    trials: Counts,
    *,
    level: float = LEVEL,
    design: Design | None = None,
) -> HalfSuccess:
    """The value of a curve axis at which a rising success rate passes one half.

    The curve is P(x) = F((x - c)/w) with the width w free and F one of nine with F(0) = 1/2: logistic, also
    with two widths or with lighter or heavier tails, Gompertz, and the mirror image of the latter. With D(c)
    the ratio of likelihoods, w and F chosen best for each c, the interval holds every c that is not rejected,

        D(c) = 2 [l(best) - l(c)]/max(1, chi2/dof) <= chi^2_1(level),

    and the value is the mean of c with the weights exp(-D/2).

    Parameters
    ----------
    x : array, shape (n,)
        Values of the curve axis, increasing.
    successes, trials : integer arrays, shape (n,)
        Cells that succeeded, and cells that are done. Values with fewer than ``LEAST_CELLS`` are left out.
    level : float
    design : Design, optional
        That of ``x``, to share it between samples.

    Returns
    -------
    HalfSuccess
        ``flag`` is one of ``FLAGS``. Where cells separate (all fail below a value, all succeed above the
        next) every c between the two is equally likely. An end beyond the
        values of the axis is open, since there the shape of the curve would decide.

    Notes
    -----
    Pearson's chi2 counts values at which the curve expects at least one success and one failure. The
    coverage under curves outside the family, with 10 to 50 cells at 4 to 8 values, is measured by
    ``benchmarks/half_success.py``. Held by ``tests/test_half_success.py``.
    """
    keep = trials >= LEAST_CELLS
    if keep.sum() < LEAST_VALUES:
        return _nothing()
    if design is None or not keep.all():
        design = _design(tuple(np.asarray(x, dtype=np.float64)[keep].tolist()))
    k, n = np.asarray(successes)[keep], np.asarray(trials)[keep]
    found = design.likelihood(k, n)
    places, profile = design.places, found.max(axis=(0, 2))
    if n.max() > MANY:
        design = design.closer(found)
        found = design.likelihood(k, n)
        outside = (places < design.places[0]) | (places > design.places[-1])
        places = np.concatenate([places[outside], design.places])
        order = places.argsort()
        profile = np.concatenate([profile[outside], found.max(axis=(0, 2))])[order]
        places = places[order]
    best = np.unravel_index(int(found.argmax()), found.shape)
    deviance = np.maximum(2 * (found[best] - profile), 0.0)
    expected = np.exp(design.success[best])
    counted = (n * expected >= 1) & (n * (1 - expected) >= 1)
    dof = max(0, int(counted.sum()) - 2)
    variance = np.where(counted, n * expected * (1 - expected), 1.0)
    misfit = float(np.where(counted, (k - n * expected) ** 2 / variance, 0.0).sum())
    p_value = float(chdtrc(dof, misfit)) if dof else math.nan
    deviance = deviance / max(1.0, misfit / dof if dof else 1.0)
    low, high = accepted(places, deviance, float(chi2.ppf(level, 1)))
    first, last = float(design.x[0]), float(design.x[-1])
    low, high = (low if low >= first else -math.inf), (high if high <= last else math.inf)
    value = _centre(places, deviance)
    if not math.isfinite(low) and not math.isfinite(high):
        flag = "not_enough_data"
    elif p_value < MISFIT:
        flag = "no_rising_curve_fits"
    elif math.isfinite(low) and math.isfinite(high):
        flag = "estimated"
    elif first < value < last:
        flag = "interval_leaves_the_range"
    else:
        flag = "above_the_range" if math.isfinite(low) else "below_the_range"
    shown = flag in ("estimated", "interval_leaves_the_range")
    return HalfSuccess(
        value if shown else math.nan,
        low,
        high,
        float(design.widths[best[2]]) if shown else math.nan,
        misfit,
        dof,
        p_value,
        flag,
        places,
        deviance,
    )


def _centre(places: Floats, deviance: Floats) -> float:
    """Mean place where a deviance exceeds its least value by at most 4, with the weights exp(-deviance/2).

    Curves of several shapes fit few cells alike, with crossings that differ by much of the interval: the
    place of the largest likelihood is that of one of them."""
    above = deviance - deviance.min()
    weight = np.where(above <= 4.0, np.exp(-0.5 * above), 0.0) * np.gradient(places)
    return float(weight @ places / weight.sum())


def _nothing() -> HalfSuccess:
    none = np.zeros(0)
    nan = math.nan
    return HalfSuccess(nan, -math.inf, math.inf, nan, nan, 0, nan, "not_enough_data", none, none)


def accepted(places: Floats, deviance: Floats, most: float) -> tuple[float, float]:
    """First and last place at which a deviance is at most ``most``, by straight lines between places; an end
    at the end of the grid is open."""
    inside = np.flatnonzero(deviance <= most)
    if not inside.size:
        return math.nan, math.nan
    first, last = int(inside[0]), int(inside[-1])

    def edge(outer: int, inner: int) -> float:
        share = (most - deviance[inner]) / (deviance[outer] - deviance[inner])
        return float(places[inner] + share * (places[outer] - places[inner]))

    low = -math.inf if first == 0 else edge(first - 1, first)
    high = math.inf if last == len(places) - 1 else edge(last + 1, last)
    return low, high


def slope_in_log_size(sizes: Sequence[int], found: Sequence[HalfSuccess], level: float = LEVEL) -> Slope:
    """Slope B of the crossing in ln N, from the profiles of all sizes together.

        D(A, B) = sum_N deviance_N(A + B ln N),

    minimised over A for each B. A size whose window is missed enters as the bound that it is.

    Parameters
    ----------
    sizes : sequence of int
    found : sequence of HalfSuccess
        One for each size; those without a profile are left out.

    Returns
    -------
    Slope
        ``statistical``: D(B) <= D_min + chi^2_1(level), the counts alone. ``total``: also the scatter of
        sizes about the line, D(B) <= D_min + t^2 max(1, D_min/dof) with t the quantile of Student's t for
        dof = sizes - 2 (Knapp and Hartung, Stat. Med. 22 (2003) 2693); open with two sizes, which show no
        scatter. ``common`` has B = 0, with its own dof. All nan with fewer than two sizes at which the
        crossing is located: bounds alone do not make a slope.

    Notes
    -----
    A deviance beyond the grid of a size is that at its end. Held by ``tests/test_half_success.py``.
    """
    used = [(int(N), at) for N, at in zip(sizes, found, strict=True) if len(at.places)]
    nan = Interval(math.nan, math.nan, math.nan)
    names = tuple(N for N, _ in used)
    if sum(math.isfinite(at.value) for _, at in used) < 2:
        return Slope(nan, nan, nan, math.nan, 0, math.nan, math.nan, math.nan, names)
    logs = np.log(names)
    dof, narrow = len(used) - 2, float(chi2.ppf(level, 1))

    def widened(deviance: float, dof: int) -> float:
        return float(stdtrit(dof, 0.5 + level / 2)) ** 2 * max(1.0, deviance / dof) if dof else math.inf

    def surface(A: Floats, B: Floats) -> Floats:
        total: Floats = np.zeros((len(B), len(A)))
        for log_size, (_, at) in zip(logs - logs.mean(), used, strict=True):
            total += np.interp(A + B[:, None] * log_size, at.places, at.deviance)
        return total

    ends = (min(at.places[0] for _, at in used), max(at.places[-1] for _, at in used))
    most = 2 * float(ends[1] - ends[0]) / float(np.ptp(logs))
    A, B = np.linspace(*ends, 161), np.linspace(-most, most, 161)
    for _ in range(2):  # once over everything, once where it matters
        D = surface(A, B)
        least = float(D.min())
        near = least + 1.2 * max(narrow, widened(least, dof) if dof else 0.0) >= D
        A, B = _around(A, np.flatnonzero(near.any(axis=0))), _around(B, np.flatnonzero(near.any(axis=1)))
    of_slope = surface(A, B).min(axis=1)
    least = float(of_slope.min())
    places = np.linspace(*ends, 2001)
    constant = surface(places, np.zeros(1))[0]
    flat = float(constant.min())

    def interval(places: Floats, deviance: Floats, most: float) -> Interval:
        low, high = accepted(places, deviance - deviance.min(), most)
        return Interval(_centre(places, deviance), low, high)

    statistical = interval(B, of_slope, narrow)
    total = (
        interval(B, of_slope, widened(least, dof))
        if dof
        else statistical._replace(low=-math.inf, high=math.inf)
    )
    return Slope(
        statistical,
        total,
        interval(places, constant, widened(flat, dof + 1)),
        least,
        dof,
        float(chdtrc(dof, least)) if dof else math.nan,
        flat,
        float(chdtrc(dof + 1, flat)),
        names,
    )


def _around(values: Floats, inside: npt.NDArray[np.intp]) -> Floats:
    """As many values between the first and the last of some places, with one more on each side."""
    first, last = max(0, inside[0] - 1), min(len(values) - 1, inside[-1] + 1)
    return np.linspace(values[first], values[last], len(values))
