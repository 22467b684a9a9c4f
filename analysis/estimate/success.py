"""Success rates of a sweep along its curve axis, at every size: crossings of one half and their drift in ln
N."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.analyses import Analysis, dataset_in_words
from bendscape.analysis.dataset.counts import DONE
from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.dataset.models import alpha_axis
from bendscape.analysis.estimate.half_success import (
    FLAGS,
    LEVEL,
    HalfSuccess,
    Slope,
    half_success,
    rate_interval,
    slope_in_log_size,
)
from bendscape.analysis.estimate.options import check_level
from bendscape.core.errors import ParameterError

_OF_HALF = {
    "half": "value of the curve axis at which half succeed",
    "half_low": "lower end of its interval; -inf: open",
    "half_high": "upper end of its interval; inf: open",
    "half_width": "width of the curve",
    "half_chi2": "chi squared of the rates about the curve",
    "half_dof": "its degrees of freedom",
    "half_p_value": "probability of a larger chi squared",
}
_OF_SLOPE = {
    "slope": "slope of half in ln N",
    "slope_low": "lower end of its interval, with the scatter of sizes about the line",
    "slope_high": "upper end of its interval, with the scatter of sizes about the line",
    "slope_counts_low": "lower end of its interval from the counts alone",
    "slope_counts_high": "upper end of its interval from the counts alone",
    "line_p_value": "probability of a larger chi squared of the line in ln N",
    "common": "one value of half for all sizes",
    "common_low": "lower end of its interval, with the scatter of sizes",
    "common_high": "upper end of its interval, with the scatter of sizes",
    "common_p_value": "probability of a larger chi squared of one value for all sizes",
}


class Roles(NamedTuple):
    """The dimensions of a sweep by role; what has none of the roles of an axis is in none."""

    models: tuple[str, ...]
    curve: str
    size: str
    seed: str


def roles_of(ds: xr.Dataset) -> Roles:
    """The dimensions of a sweep by the attribute ``role`` of their coordinates; without one, by the names of
    the network."""
    named = {alpha_axis(ds): "curve", "N": "size", "seed": "seed"}
    named |= dict.fromkeys(("p", "p_star", "a"), "model")
    roles = {str(dim): str(ds[dim].attrs.get("role", named.get(str(dim), ""))) for dim in ds.dims}
    one = {role: [dim for dim, of in roles.items() if of == role] for role in ("curve", "size", "seed")}
    if missing := [role for role, dims in one.items() if len(dims) != 1]:
        needed = f"a sweep with one axis of each role among {', '.join(missing)}"
        raise ParameterError("store", dataset_in_words(ds), needed)
    models = tuple(dim for dim, of in roles.items() if of == "model")
    return Roles(models, one["curve"][0], one["size"][0], one["seed"][0])


def success_curves(
    ds: xr.Dataset,
    *,
    variable: str = "recovered",
    by: float | None = None,
    falling: bool = False,
    level: float = LEVEL,
) -> xr.Dataset:
    """Rates of success against the curve axis at every size, and where they pass one half.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not, with a curve
        axis, sizes and seeds. Only cells that are done count; ``n_cells`` says how many.
    variable : str
        0 or 1 in every cell; or, with ``by``, a time that is nan where nothing happened.
    by : float, optional
        Success is ``variable <= by``.
    falling : bool
        The rate falls along the curve axis; the rate of failures is what rises through one half.
    level : float
        Level of all intervals.

    Returns
    -------
    xarray.Dataset
        In memory. As :func:`curves_from_counts`.

    Raises
    ------
    ParameterError
        There is no such variable, it has other values than 0 and 1, or an axis is missing.
    """
    check_level(level)
    if variable not in ds:
        raise ParameterError("variable", variable, f"one of {', '.join(map(str, ds.data_vars))}")
    at = roles_of(ds)
    cells = ds[variable]
    if extra := [str(dim) for dim in cells.dims if dim not in (*at.models, at.curve, at.size, at.seed)]:
        raise ParameterError("variable", variable, "one number a cell", f"select one of {', '.join(extra)}")
    done = (ds["status"] == DONE) if "status" in ds else xr.ones_like(cells, bool)
    counted = done if by is not None else done & cells.notnull()
    success = (cells <= by) if by is not None else cells == 1
    odd = (counted & (cells != 0) & (cells != 1)).any() if by is None else xr.DataArray(False)
    counts = xr.Dataset(
        {"k": (success & counted).sum(at.seed), "n": counted.sum(at.seed), "odd": odd}
    ).compute()
    if counts["odd"]:
        raise ParameterError("variable", variable, "0 or 1 in every cell", "or give a limit: by=30.0")
    found = curves_from_counts(counts["k"], counts["n"], ds, falling=falling, level=level)
    found.attrs |= {"variable": variable, "level": level} | ({} if by is None else {"by": by})
    return found


def curves_from_counts(
    successes: xr.DataArray,
    trials: xr.DataArray,
    ds: xr.Dataset,
    *,
    falling: bool = False,
    level: float = LEVEL,
) -> xr.Dataset:
    """Rates with Wilson intervals, their crossing of one half at each size, and its drift with the size.

    Parameters
    ----------
    successes, trials : xarray.DataArray
        Over the axes of ``ds`` without seeds, and any more dimensions (times).
    ds : xarray.Dataset
        The sweep. Along the alpha of the network the abscissa is M/N with M = round(alpha N).
    falling : bool
        As of :func:`success_curves`.

    Returns
    -------
    xarray.Dataset
        ``rate``, ``rate_low``, ``rate_high``, ``n_cells`` over all dimensions; ``half`` and its interval
        (:func:`bendscape.analysis.estimate.half_success.half_success`) without the curve axis; ``slope``,
        ``common`` (:func:`bendscape.analysis.estimate.half_success.slope_in_log_size`) without the size too.
        The coordinate ``abscissa`` is what the curves are functions of.
    """
    at = roles_of(ds)
    k, n = xr.broadcast(successes, trials)
    others = [str(dim) for dim in k.dims if dim not in (at.curve, at.size)]
    k, n = k.transpose(*others, at.size, at.curve), n.transpose(*others, at.size, at.curve)
    x = _abscissa(ds, at).broadcast_like(k).transpose(*k.dims).values
    sizes = [int(size) for size in ds[at.size].values]
    K, n_cells = k.values.astype(np.int64), n.values.astype(np.int64)
    rising = n_cells - K if falling else K
    rates = np.array(
        [rate_interval(int(a), int(b), level) for a, b in zip(K.ravel(), n_cells.ravel(), strict=True)]
    ).reshape(*K.shape, 3)
    halves = {name: np.full(K.shape[:-1], math.nan) for name in (*_OF_HALF, "half_flag")}
    slopes = {name: np.full(K.shape[:-2], math.nan) for name in _OF_SLOPE}
    found: dict[tuple[int, ...], list[HalfSuccess]] = {index: [] for index in np.ndindex(K.shape[:-2])}
    for j in range(len(sizes)):  # one size after the other: curves at equal values share their design
        for index, of_index in found.items():
            of_index.append(_half(x[index][j], rising[index][j], n_cells[index][j], level))
            for name, value in _half_values(of_index[-1]).items():
                halves[name][(*index, j)] = value
    for index, of_index in found.items():
        for name, value in _slope_values(slope_in_log_size(sizes, of_index, level)).items():
            slopes[name][index] = value
    dims = tuple(map(str, k.dims))
    coords = {
        dim: (ds[dim] if dim in ds.coords else k[dim]).reset_coords(drop=True)
        for dim in dims
        if dim in k.coords
    }
    coords["abscissa"] = _abscissa(ds, at).assign_attrs(long_name="value of the curve axis; of alpha, M/N")
    words = {"rate": "rate of success", "rate_low": "lower end", "rate_high": "upper end"}
    arrays = {name: (dims, rates[..., place], words[name]) for place, name in enumerate(words)}
    arrays["n_cells"] = (dims, n_cells, "cells that are done")
    arrays["n_success"] = (dims, K, "cells that succeeded")
    arrays |= {name: (dims[:-1], halves[name], of) for name, of in _OF_HALF.items()}
    arrays |= {name: (dims[:-2], slopes[name], of) for name, of in _OF_SLOPE.items()}
    flags = {"flag_values": np.arange(len(FLAGS), dtype=np.int8), "flag_meanings": " ".join(FLAGS)}
    flags |= {"long_name": "outcome of half"}
    variables: dict[str, Any] = {
        name: (over, values, {"long_name": of, "units": "1"}) for name, (over, values, of) in arrays.items()
    }
    variables["half_flag"] = (dims[:-1], halves["half_flag"].astype(np.int8), flags)
    return xr.Dataset(variables, coords)


def _abscissa(ds: xr.Dataset, at: Roles) -> xr.DataArray:
    x = ds["alpha"] if at.curve == "alpha_factor" else ds[at.curve]
    x = x.reset_coords(drop=True).astype(np.float64)
    if at.curve in ("alpha", "alpha_factor") and at.size == "N":
        size = ds["N"].reset_coords(drop=True)
        x = (x * size + 0.5).astype(np.int64) / size
    return x


def _half(x: Floats, successes: Any, trials: Any, level: float) -> HalfSuccess:
    """Loads that a small size rounds to one value are one value with the cells of all."""
    values, place = np.unique(x, return_inverse=True)
    if len(values) < 2:
        return half_success(x[:0], successes[:0], trials[:0])
    k, n = (np.bincount(place, weights=counts).astype(np.int64) for counts in (successes, trials))
    return half_success(values, k, n, level=level)


def _half_values(at: HalfSuccess) -> Mapping[str, float]:
    values = (at.value, at.low, at.high, at.width, at.chi2, float(at.dof), at.p_value)
    return dict(zip(_OF_HALF, values, strict=True)) | {"half_flag": float(tuple(FLAGS).index(at.flag))}


def _slope_values(at: Slope) -> Mapping[str, float]:
    ends = (*at.total, at.statistical.low, at.statistical.high)
    return dict(zip(_OF_SLOPE, (*ends, at.p_value, *at.common, at.p_value_constant), strict=True))


ANALYSIS = Analysis(
    "success", success_curves, (("recovered", "time_recovered", "success"),), {"seed": "seed"}
)
