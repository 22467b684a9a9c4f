"""Descents at a set of sizes: recovery by a time, the loss of the downward direction, the amplification of
the overlap, the confined dynamics and interpolation, each with intervals."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import binom

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.counts import DONE
from bendscape.analysis.dataset.curves import Flags, Floats
from bendscape.analysis.estimate.half_success import LEVEL, rate_interval
from bendscape.analysis.estimate.options import check_level
from bendscape.analysis.estimate.student import means, t_limits
from bendscape.analysis.estimate.success import curves_from_counts, roles_of
from bendscape.core.errors import ParameterError

ALIGNED = 0.1
"""Alignment from which on a descent has turned to the signal: no loss of the direction counts after it."""
INTERPOLATED = 1e-3
"""Loss L/N below which the data are interpolated."""
UNSEEN = 0.5
"""Largest alignment of an interpolation that is no recovery."""
SETTLED = 2.0
"""Growth of the overlap to the last time below which it counts as saturated."""
DELOCALISED = 20.0
"""An eigenvector shows the teacher if its squared overlap exceeds this over N: normal directions do so with
a probability of 10^-5."""

_READ = ("alignment", "loss", "edge_sample", "outlier_sample", "overlap_sq_sample", "time_recovered")
_LOSS = {
    "seen_rate": "share of cells that had the downward direction at a recorded time",
    "n_seen": "cells that had it",
    "n_lost": "of these, cells that lost it by the last time",
    "time_lost_low": "the median loss is later than this recorded time; 0: before the first",
    "time_lost_high": "the median loss is not later than this recorded time; inf: open",
    "time_lost": "first recorded time by which half of them have lost it; nan: most kept it",
    "alignment_lost": "median alignment at the last recorded time with the direction",
    "alignment_lost_low": "lower end of its interval",
    "alignment_lost_high": "upper end of its interval",
    "overlap_lost": "median squared overlap of the direction with the teacher at that time",
    "overlap_lost_low": "lower end of its interval",
    "overlap_lost_high": "upper end of its interval",
}
_GAIN = {
    "amplification": "mean of N C over cells, C the alignment, 1 after a cell ended by recovery",
    "amplification_low": "lower end of its interval, Student's t with skewness",
    "amplification_high": "upper end of its interval, Student's t with skewness",
    "amplification_median": "median of N C",
    "amplification_median_low": "lower end of its interval, order statistics",
    "amplification_median_high": "upper end of its interval, order statistics",
}
_SATURATION = {
    "time_saturated": "first recorded time with a median growth to the last below a factor of two",
    "time_saturated_low": "lower end of its interval",
    "time_saturated_high": "upper end of its interval; inf: the overlap may still grow",
}


_SPECTRUM = {
    "edge": "median left edge of the Riemannian Hessian, own labels, of cells not recovered by then",
    "edge_low": "lower end of its interval, order statistics",
    "edge_high": "upper end of its interval, order statistics",
    "outlier": "median outlier, own labels, of cells not recovered by then that have one",
    "outlier_low": "lower end of its interval, order statistics",
    "outlier_high": "upper end of its interval, order statistics",
}


def descent(
    ds: xr.Dataset, *, level: float = LEVEL, direction: str = "own_labels", interpolated: float = INTERPOLATED
) -> xr.Dataset:
    """What descents of a sweep show, at every recorded time T.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not, with
        ``alignment``, ``loss``, ``edge_sample``, ``outlier_sample``, ``overlap_sq_sample`` over ``time``, and
        ``time_recovered``. These are loaded, 40 bytes a cell and time.
    level : float
        Level of all intervals.
    direction : {"own_labels", "eigenvector"}
        The downward direction is there if the cell's own labels have an outlier, or if the eigenvector with
        the largest overlap among those measured exceeds ``DELOCALISED``/N; where the iteration did not
        converge, as at the time before.
    interpolated : float
        Loss L/N below which the data are interpolated.

    Returns
    -------
    xarray.Dataset
        In memory, over the axes of the models, N, alpha, ``time`` as each needs:

        - ``recovered_*``: as :func:`bendscape.analysis.estimate.success.curves_from_counts`, success is
          recovery by T.
        - ``kept_*``: the same, success is a direction that was seen and not lost by T, of the cells that
          reached a recorded time.
        - ``fitted_*``: the same at the last time, success is *not* to interpolate without the signal (loss
          below ``interpolated``, alignment below ``UNSEEN``); interpolation lies below ``fitted_half``.
        - ``time_lost``, ``alignment_lost``, ``overlap_lost`` with intervals; ``n_seen``, ``n_lost``.
        - ``amplification`` and its median over all cells, ``edge`` and ``outlier`` over the cells not
          recovered by then, whether or not recovery ended them, with intervals; ``time_saturated``.

    Notes
    -----
    *Lost*: the first recorded time without the direction after one with it, while the alignment is at most
    ``ALIGNED``. Once the weights have turned to the signal the labels' outlier means nothing, and such cells
    count as having kept it. Cells that lost it before the first recorded time were never seen with it:
    ``seen_rate`` tells. Times of loss are known between two recorded times only: (``time_lost_low``,
    ``time_lost_high``] holds the median over cells with probability ``level``, by binomial limits of the
    share lost at each time. ``time_lost_low`` is the last time at which that share is surely below one half.

    N C is broad (chi squared with one degree of freedom at the start) and its mean is over all cells: one
    that ended by recovery counts with C = 1. ``time_saturated`` is from the median over cells of
    C(last)/C(t), by order statistics, and nan where more than one cell in ten has turned to the signal or
    recovered. Held by
    ``tests/test_descent_analysis.py``.
    """
    check_level(level)
    ANALYSIS.check(ds)
    if "time" not in ds.dims:
        raise ParameterError("ds", list(map(str, ds.dims)), "a dataset with time among its dimensions")
    at = roles_of(ds)
    read = [*_READ, *(["eigenvector_overlap_sq"] if direction == "eigenvector" else [])]
    if direction not in ("own_labels", "eigenvector") or any(name not in ds for name in read):
        accepted = "own_labels, or eigenvector in a store with pairs"
        raise ParameterError("direction", direction, accepted)
    cells = ds[[*read, "status"]].compute()
    order = (*at.models, at.size, at.curve, at.seed)
    done = (cells["status"] == DONE).transpose(*order)
    C, loss = (cells[name].transpose(*order, "time") for name in ("alignment", "loss"))
    recorded = done & C.notnull()
    if direction == "own_labels":
        here = cells["outlier_sample"].notnull()
    else:
        largest = cells["eigenvector_overlap_sq"].max("pair").transpose(..., "time")
        here = _last_known(largest > DELOCALISED / ds[at.size].reset_coords(drop=True), largest.notnull())
    states = _states(here.transpose(*order, "time").values & recorded.values, C.values, recorded.values)
    seen, lost = (xr.DataArray(state, recorded.coords, recorded.dims) for state in states)
    total = done.sum(at.seed)
    followed_at_all = recorded.any("time")
    by_time = done & (cells["time_recovered"] <= ds["time"])
    found = xr.Dataset()
    last = _last(recorded)
    fitted = (loss < interpolated) & (C < UNSEEN)
    for name, success, trials in (
        ("recovered", by_time.sum(at.seed), total),
        ("kept", (seen & ~lost & done).sum(at.seed), followed_at_all.sum(at.seed)),
        ("fitted", (done & ~fitted.isel(time=last)).sum(at.seed), total),
    ):
        curves = curves_from_counts(success, trials, ds, level=level)
        named = curves.rename({of: f"{name}_{of}" for of in curves.data_vars})
        found = found.assign_coords(named.coords).assign(named.data_vars)
    dims = (*at.models, at.size, at.curve)
    along = tuple(array.transpose(*order, "time").values for array in (seen, lost, recorded))
    overlap = cells["overlap_sq_sample"].transpose(*order, "time").values
    time = ds["time"].values.astype(np.float64)
    rows = _over(
        dims, done.shape[:-1], _LOSS,
        lambda i: _lost(along[0][i], along[1][i], along[2][i], C.values[i], overlap[i], time, level),
    )  # fmt: skip
    sizes = np.broadcast_to(
        ds[at.size].values.reshape([-1 if dim == at.size else 1 for dim in dims]), done.shape[:-1]
    )
    followed = (recorded | by_time).transpose(*order, "time").values  # a cell may have ended by recovery:
    reached = C.where(recorded, 1.0).values  # from 0.9 on C goes to 1
    recovered = by_time.transpose(*order, "time").values
    growth = _over(
        dims, done.shape[:-1], _SATURATION,
        lambda i: _saturated(C.values[i], recorded.values[i], recovered[i], time, level),
    )  # fmt: skip
    gains = _over(
        (*dims, "time"), (*done.shape[:-1], len(time)), _GAIN,
        lambda i: _amplified(
            sizes[i[:-1]] * reached[i[:-1]][:, i[-1]][followed[i[:-1]][:, i[-1]]], level
        ),
    )  # fmt: skip
    trapped = recorded.values & ~recovered
    labels = [cells[f"{name}_sample"].transpose(*order, "time").values for name in ("edge", "outlier")]

    def spectrum(i: tuple[int, ...]) -> tuple[float, ...]:
        use = trapped[i[:-1]][:, i[-1]]
        edge, outlier = (median_interval(values[i[:-1]][:, i[-1]][use], level) for values in labels)
        return (*edge, *outlier)

    gains |= _over((*dims, "time"), (*done.shape[:-1], len(time)), _SPECTRUM, spectrum)
    found = found.assign(rows | growth | gains).assign_coords(time=ds["time"].reset_coords(drop=True))
    found.attrs |= {"level": level, "direction": direction, "interpolated": interpolated}
    return found


def _last(recorded: xr.DataArray) -> xr.DataArray:
    """The place of the last recorded time of every cell, 0 if it has none."""
    places = recorded * xr.DataArray(np.arange(recorded.sizes["time"]), dims="time")
    return places.max("time").astype(np.int64)


def _last_known(flags: xr.DataArray, known: xr.DataArray) -> xr.DataArray:
    """Flags over time, the last dimension, with unknown ones as at the last known time; False before any."""
    known, flags = known.transpose(*flags.dims), flags & known
    places = np.maximum.accumulate(np.where(known.values, np.arange(flags.sizes["time"]), 0), axis=-1)
    return flags.copy(data=np.take_along_axis(flags.values, places, axis=-1))


def _states(here: Flags, C: Floats, recorded: Flags) -> tuple[Flags, Flags]:
    """Whether a cell has been seen with the direction, and whether it has lost it, by each time: last
    axis."""
    seen = np.logical_or.accumulate(here, axis=-1)
    turned = np.logical_or.accumulate(recorded & (C > ALIGNED), axis=-1)
    lost = np.logical_or.accumulate(seen & ~here & recorded & ~turned, axis=-1)
    return seen, lost


def _over(dims: tuple[str, ...], shape: tuple[int, ...], names: dict[str, str], of: Any) -> dict[str, Any]:
    arrays = {name: np.full(shape, math.nan) for name in names}
    for index in np.ndindex(shape):
        for array, value in zip(arrays.values(), of(index), strict=True):
            array[index] = value
    return {name: (dims, arrays[name], {"long_name": names[name], "units": "1"}) for name in names}


def _lost(
    seen: Flags, lost: Flags, recorded: Flags, C: Floats, overlap: Floats, time: Floats, level: float
) -> tuple[float, ...]:
    """The values of ``_LOSS`` for the cells of one point, arrays over (seed, time)."""
    counted = recorded.any(axis=1)
    had = seen[:, -1] & counted
    n, gone = int(had.sum()), had & lost[:, -1]
    low, high, middle = 0.0, math.inf, math.nan
    for k in range(len(time)) if n else ():
        share = rate_interval(int(lost[had, k].sum()), n, level)
        low = float(time[k]) if share.high < 0.5 else low
        high = float(time[k]) if share.low > 0.5 and high == math.inf else high
        middle = float(time[k]) if share.value >= 0.5 and math.isnan(middle) else middle
    before = np.argmax(lost[gone], axis=1) - 1  # it had the direction then
    rows = np.flatnonzero(gone)
    of_alignment, of_overlap = (median_interval(values[rows, before], level) for values in (C, overlap))
    rate = n / int(counted.sum()) if counted.any() else math.nan
    return (rate, n, int(gone.sum()), low, high, middle, *of_alignment, *of_overlap)


def median_interval(values: Floats, level: float) -> tuple[float, float, float]:
    """The median of independent values, with the order statistics between which that of their law lies with
    probability at least ``level``, whatever the law; open ends with fewer than six values at 0.95."""
    ordered = np.sort(values[np.isfinite(values)])
    n = len(ordered)
    if not n:
        return math.nan, math.nan, math.nan
    k = _order(n, level)
    ends = (float(ordered[k - 1]), float(ordered[n - k])) if k > 0 else (-math.inf, math.inf)
    return float(np.median(ordered)), *ends


@lru_cache(maxsize=4096)
def _order(n: int, level: float) -> int:
    """The largest k for which fewer than k of n values lie below the median with probability (1 - level)/2 at
    most."""
    return int(binom.ppf(0.5 * (1 - level), n, 0.5))


def _amplified(values: Floats, level: float) -> tuple[float, ...]:
    """Mean with the limits of Student's t with skewness, and median with order statistics."""
    middle = median_interval(values, level)
    if len(values) < 3:
        return (float(values.mean()) if len(values) else math.nan, 0.0, math.inf, *middle)
    of = means(values[None], np.ones((1, len(values)), bool))
    mean, variance = float(of.mean[0]), float(of.variance[0])
    if not variance:
        return (mean, 0.0, math.inf, *middle)
    lower, upper = t_limits(of.third / variance**1.5, of.dof, level)
    error = math.sqrt(variance)
    return (mean, max(0.0, mean - float(upper[0]) * error), mean - float(lower[0]) * error, *middle)


def _saturated(
    C: Floats, recorded: Flags, recovered: Flags, time: Floats, level: float
) -> tuple[float, float, float]:
    """The values of ``_SATURATION`` from the cells that were followed to the last time."""
    whole = recorded.all(axis=1)
    turned = (recorded & (ALIGNED < C)) | recovered
    if whole.sum() < 6 or turned.any(axis=1).sum() > 0.1 * (recorded | recovered).any(axis=1).sum():
        return math.nan, math.nan, math.nan
    middle, low, high = math.nan, math.inf, math.inf
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = C[whole][:, [-1]] / C[whole]
    for k in range(len(time) - 1, -1, -1) if len(time) > 1 else ():
        of = median_interval(growth[:, k], level)
        if k == len(time) - 1:
            continue  # growth to itself says nothing
        middle = (
            float(time[k]) if of[0] <= SETTLED and (math.isnan(middle) or middle == time[k + 1]) else middle
        )
        high = float(time[k]) if of[2] <= SETTLED and high in (math.inf, time[k + 1]) else high
        low = float(time[k]) if of[1] <= SETTLED else low
    return middle, (low if math.isfinite(low) else float(time[-1])), high


ANALYSIS = Analysis("descent", descent, ("status", *_READ), {"N": "size", "seed": "seed"}, inner=("time",))
