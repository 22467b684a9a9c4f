"""Exponents: slopes of means over seeds, with intervals; and of any variable along the curve axis."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.special import chdtrc

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.counts import DONE
from bendscape.analysis.dataset.curves import Flags, Floats
from bendscape.analysis.estimate.options import check_level
from bendscape.analysis.estimate.student import means, weighted
from bendscape.analysis.estimate.success import roles_of
from bendscape.core.errors import ParameterError

LEAST_SEEDS, LEAST_POINTS = 6, 3
_PARTS = {
    "": "d log variable / d log of the curve axis",
    "_error": "standard error",
    "_low": "lower end of the interval",
    "_high": "upper end of the interval",
    "_p_value": "probability of a larger chi squared of a straight line in logarithms",
}


class Fit(NamedTuple):
    """A mean or a slope: value, standard error, interval, and the probability of a larger chi squared."""

    value: float = math.nan
    error: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan


def power_law(ds: xr.Dataset, *, variable: str, level: float = 0.95) -> xr.Dataset:
    """The exponent of a positive variable along the curve axis: d log variable / d log x.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not, with a curve
        axis, sizes and seeds. A selection along the curve is the window of the fit.
    variable : str
        > 0, one number a cell.
    level : float
        Level of the interval, in (0, 1).

    Returns
    -------
    xarray.Dataset
        Over the axes of models and the size: ``exponent`` with ``_error``, ``_low``, ``_high`` and
        ``_p_value`` of a straight line in logarithms; ``n_points`` of the curve that were used;
        ``not_enough_data`` where fewer than 3 were, and the rest is nan.

    Raises
    ------
    ParameterError
        There is no such variable, or an axis is missing, or the axis has values <= 0.

    Notes
    -----
    Least-squares slope of the means over seeds of log variable in log x, with the number of seeds as weights.
    A point needs 6 seeds. It is left out if the variable is nan in a cell that is done, or not positive: the
    mean over the others would be that of a selection. Cells of different points must be independent. Interval
    and chi squared: as in :func:`bendscape.analysis.estimate.norm_laws.norm_laws`. Coverage on planted data:
    ``tests/test_power_law.py``.
    """
    check_level(level)
    ds = ANALYSIS.sweep(ds)
    if variable not in ds.data_vars:
        raise ParameterError("variable", variable, f"one of {', '.join(map(str, ds.data_vars))}")
    at = roles_of(ds)
    order = (*at.models, at.size, at.curve, at.seed)
    if extra := [str(dim) for dim in ds[variable].dims if dim not in order]:
        raise ParameterError("variable", variable, "one number a cell", f"select one of {', '.join(extra)}")
    x = ds[at.curve].values.astype(np.float64)
    if not (x > 0).all():
        raise ParameterError("ds", at.curve, "a curve axis with values > 0")
    data = ds[["status", variable]].compute()
    done = data["status"].transpose(*order).values == DONE
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(data[variable].transpose(*order).values)
    use = (done & np.isfinite(logs)).sum(axis=-1) >= LEAST_SEEDS
    use &= (~done | np.isfinite(logs)).all(axis=-1)
    found = {part: np.full(use.shape[:-1], math.nan) for part in _PARTS}
    n_points = use.sum(axis=-1)
    for index in np.argwhere(n_points >= LEAST_POINTS):
        there = use[tuple(index)]
        rows = np.where(done, logs, math.nan)[tuple(index)][there]
        fit = slope_of_means(rows, np.log(x[there]), level)
        for part, number in zip(_PARTS, fit, strict=True):
            found[part][tuple(index)] = number
    dims = order[:-2]
    result = xr.Dataset(coords={dim: ds[dim].reset_coords(drop=True) for dim in dims})
    for part, values in found.items():
        result["exponent" + part] = (dims, values, {"long_name": _PARTS[part], "units": "1"})
    result["n_points"] = (dims, n_points, {"long_name": "points of the curve in the fit", "units": "1"})
    result["not_enough_data"] = (dims, n_points < LEAST_POINTS)
    result.attrs = {"variable": variable, "level": level, "name": ds.attrs.get("name", "")}
    return result


def slope_of_means(values: Floats, x: Floats | None, level: float) -> Fit:
    """Slope against x of the means of rows of seeds, nan for an absent seed; their mean if x is None.

    A row in which fewer than LEAST_SEEDS values are finite gives an empty fit."""
    counted: Flags = np.isfinite(values)
    n = counted.sum(axis=1)
    if (n < LEAST_SEEDS).any():
        return Fit()
    of = means(values, counted)
    weights = np.ones(1) if x is None else contrast(x, n)
    fit = weighted(weights[None], of)
    low, high = (float(limit[0]) for limit in fit.t_limits(level))
    value, deviation = float(fit.value[0]), math.sqrt(float(fit.variance[0]))
    p_value = math.nan
    if x is not None and len(x) > 2 and (of.variance > 0).all():
        w = (of.dof - 2) / of.dof / of.variance
        centre = (w @ x) / w.sum()
        line = (w * (x - centre)) @ of.mean / (w @ (x - centre) ** 2)
        residual = of.mean - (w @ of.mean) / w.sum() - line * (x - centre)
        p_value = float(chdtrc(len(x) - 2, w @ residual**2))
    return Fit(value, deviation, value - high * deviation, value - low * deviation, p_value)


def contrast(x: Floats, n: Floats) -> Floats:
    """Weights of the least-squares slope of values at x with weights n."""
    off = x - (n @ x) / n.sum()
    return np.asarray(n * off / (n @ off**2))


ANALYSIS = Analysis("power_law", power_law, ("status",), {"seed": "seed"})
