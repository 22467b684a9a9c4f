"""The two laws of the generalisation error against the norm of the weights, along training of a
perceptron."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from scipy.optimize import brentq

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.counts import DONE
from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.estimate.options import check_level
from bendscape.analysis.estimate.power_law import LEAST_SEEDS, Fit, contrast, slope_of_means
from bendscape.core.errors import ParameterError
from bendscape.core.perceptron import theory

Error = Literal["generalisation_error", "fixed_norm_error"]

LEAST_TIMES, LEAST_ALPHAS = 3, 3
_PARTS = {
    "": "estimate",
    "_error": "standard error",
    "_low": "lower end of the interval",
    "_high": "upper end of the interval",
    "_theory": "the same of the rule at a fixed norm, N to infinity",
}
_AT_POINT = {
    "early_exponent": "d log error / d log norm in the window",
    "log_norm_star": "log of the norm at which the error falls to factor times that of largest stability",
    "log_final_error": "log of the error at the last time",
}
_AT_SIZE = {
    "norm_star_exponent": "d log norm_star / d log alpha",
    "final_exponent": "d log (error at the last time) / d log alpha",
}


def norm_laws(
    ds: xr.Dataset,
    *,
    error: Error = "generalisation_error",
    least_norm: float = 1.0,
    share: float = 0.125,
    factor: float = 1.5,
    level: float = 0.95,
) -> xr.Dataset:
    """Exponents of the error in the norm at early times and, of norm* and of the final error, in alpha.

    For 1 << norm << alpha the error of the rule at a fixed norm is 0.313 (alpha norm)^(-1/2), and for norm >>
    alpha it is 0.5005/alpha. The two meet at a norm proportional to alpha. So there are two laws: the
    exponent of the early error in the norm is -1/2, and that of norm* in alpha is 1. Both are limits: at
    alpha = 64 the theory's own curve has -0.42 in the default window. Estimates are therefore given beside
    the same number of the curve of :func:`bendscape.core.perceptron.theory.fixed_norm`, as ``*_theory``.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not. Read at once.
    error : {"generalisation_error", "fixed_norm_error"}
        The error of the trained weights, or that of the rule of their norm on the same sample.
    least_norm, share : float
        The early window: recorded times at which the geometric mean of the norm over the seeds is from
        least_norm to share * alpha. At least 3 times are needed.
    factor : float
        > 1. norm* is the smallest norm at which the error is at most factor times that of largest stability
        at N = infinity, by linear interpolation of log error in log norm between recorded times.
    level : float
        Level of the intervals, in (0, 1).

    Returns
    -------
    xarray.Dataset
        Over (alpha, N): ``early_exponent``, ``log_norm_star``, ``log_final_error``; over N:
        ``norm_star_exponent``, ``final_exponent``; each with ``_error``, ``_low``, ``_high`` and ``_theory``,
        and the last two with ``_p_value``, of a straight line in log alpha. ``n_seeds``, ``n_times`` in the
        window; ``not_enough_data``, where there is no interval of an exponent in alpha. nan where there is no
        value.

    Raises
    ------
    ParameterError
        ``ds`` lacks a variable or an axis, or an option is out of its range.

    Notes
    -----
    Everything is found for each seed, and then averaged: the interval is Student's, widened for skewness
    (:func:`bendscape.analysis.estimate.student.t_limits`). A point needs 6 seeds. A seed that never comes
    within the factor makes norm* of its point nan, because the others would be a selection. Exponents in
    alpha are least-squares slopes with weights n_seeds, at least 3 alphas. chi squared takes the measured
    variances, times nu/(nu - 2) for their nu degrees of freedom. The final error is at the last recorded time
    and not at infinite time; its theory is that of the geometric mean of the norm there.

    Limits: nothing is extrapolated in N or alpha. Trained weights differ from the rule of their norm, so only
    ``fixed_norm_error`` has the theory as its limit of large N. Coverage on planted data:
    ``tests/test_norm_laws.py``. Source of the laws: arXiv:2505.13230; the estimates are this project's own.
    """
    ds = ANALYSIS.sweep(ds, also=(error,) if error in get_args(Error) else ())
    _check(error, least_norm, share, factor, level)
    ds = ds[["status", "norm", error, "error_largest_stability"]].compute()
    order = ("alpha", "N", "seed", "time")
    alphas, sizes = np.atleast_1d(ds["alpha"].values).astype(np.float64), np.atleast_1d(ds["N"].values)
    ds = ds.expand_dims([name for name in ("alpha", "N", "seed") if name not in ds["status"].dims])
    with np.errstate(divide="ignore", invalid="ignore"):
        norm, errors = (np.log(ds[name].transpose(*order).values) for name in ("norm", error))
    limit = np.log(np.broadcast_to(ds["error_largest_stability"].values.ravel(), alphas.shape))
    done = ds["status"].transpose(*order[:3]).values == DONE
    done &= np.isfinite(norm).all(axis=-1) & np.isfinite(errors).all(axis=-1)

    shape = (len(alphas), len(sizes))
    found = {name + part: np.full(shape, math.nan) for name in _AT_POINT for part in _PARTS}
    found["n_seeds"], found["n_times"] = done.sum(axis=-1), np.zeros(shape, np.int64)
    cells = {name: np.full(done.shape, math.nan) for name in _AT_POINT}
    for i, k in np.argwhere(found["n_seeds"] >= LEAST_SEEDS):
        x, y, use = norm[i, k, done[i, k]], errors[i, k, done[i, k]], done[i, k]
        typical = x.mean(axis=0)
        early = (typical >= math.log(least_norm)) & (typical <= math.log(share * alphas[i]))
        found["n_times"][i, k] = early.sum()
        star = math.log(factor) + limit[i]
        if early.sum() >= LEAST_TIMES:
            cells["early_exponent"][i, k, use] = slopes(x[:, early], y[:, early])
            curve = np.array([_log_error(alphas[i], at) for at in typical[early]])
            found["early_exponent_theory"][i, k] = slopes(typical[early][None], curve[None])[0]
        cells["log_norm_star"][i, k, use] = first_below(x, y, star)
        found["log_norm_star_theory"][i, k] = _log_norm_star(alphas[i], star)
        cells["log_final_error"][i, k, use] = y[:, -1]
        found["log_final_error_theory"][i, k] = _log_error(alphas[i], typical[-1])
        for name, values in cells.items():
            row = values[i, k, use][None]
            fit = slope_of_means(row, None, level) if np.isfinite(row).all() else Fit()
            for part, number in zip(_PARTS, fit, strict=False):
                if part != "_theory":
                    found[name + part][i, k] = number
    data: dict[str, Any] = {name: (("alpha", "N"), values) for name, values in found.items()}
    lacking = np.zeros(len(sizes), bool)
    for name, of in (("norm_star_exponent", "log_norm_star"), ("final_exponent", "log_final_error")):
        parts = {name + part: np.full(len(sizes), math.nan) for part in (*_PARTS, "_p_value")}
        for k in range(len(sizes)):
            there = np.isfinite(found[of][:, k])
            lacking[k] |= there.sum() < LEAST_ALPHAS
            if there.sum() >= LEAST_ALPHAS:
                loads, n = np.log(alphas[there]), found["n_seeds"][there, k]
                fit = slope_of_means(cells[of][there, k], loads, level)
                for part, number in zip(("", "_error", "_low", "_high", "_p_value"), fit, strict=True):
                    parts[name + part][k] = number
                parts[name + "_theory"][k] = contrast(loads, n) @ found[of + "_theory"][there, k]
        data |= {part: (("N",), values) for part, values in parts.items()}
    data["not_enough_data"] = (("N",), lacking)
    words = {
        name + part: f"{text}: {said}"
        for name, text in (_AT_POINT | _AT_SIZE).items()
        for part, said in _PARTS.items()
    }
    result = xr.Dataset(data, coords={"alpha": alphas, "N": sizes})
    for name, text in words.items():
        result[name].attrs["long_name"] = text
    result.attrs = {
        "error": error,
        "least_norm": least_norm,
        "share": share,
        "factor": factor,
        "level": level,
    }
    result.attrs["name"] = ds.attrs.get("name", "")
    return result


def slopes(x: Floats, y: Floats) -> Floats:
    """Least-squares slope of each row, (seed, time) -> (seed,)."""
    off = x - x.mean(axis=1, keepdims=True)
    return np.asarray((off * y).sum(axis=1) / (off**2).sum(axis=1))


def first_below(x: Floats, y: Floats, level: float) -> Floats:
    """x at which y first falls to the level, (seed, time) -> (seed,); nan if it does not, or begins below."""
    found = np.full(len(x), math.nan)
    for row, (at, value) in enumerate(zip(x, y, strict=True)):
        i = int(np.argmax(value <= level))
        if i and value[i] <= level:
            part = (value[i - 1] - level) / (value[i - 1] - value[i])
            found[row] = at[i - 1] + part * (at[i] - at[i - 1])
    return found


@lru_cache(4096)
def _log_error(alpha: float, log_norm: float) -> float:
    """log of the theory's error."""
    return math.log(theory.fixed_norm(alpha, math.exp(log_norm)).generalisation_error)


@lru_cache(4096)
def _log_norm_star(alpha: float, level: float) -> float:
    """log norm at which the theory's log error falls to the level; nan if Hebb's rule is below it."""
    high = math.log(alpha + 1)
    if math.log(theory.hebb(alpha).generalisation_error) <= level:
        return math.nan
    while _log_error(alpha, high) > level:
        high += 1.0
    return float(brentq(lambda at: _log_error(alpha, at) - level, -10.0, high, xtol=1e-6))


def _check(error: str, least_norm: float, share: float, factor: float, level: float) -> None:
    if error not in get_args(Error):
        raise ParameterError("error", error, f"one of {', '.join(get_args(Error))}")
    for name, value, least in (
        ("least_norm", least_norm, 0.0),
        ("share", share, 0.0),
        ("factor", factor, 1.0),
    ):
        if not least < value < math.inf:
            raise ParameterError(name, value, f"a finite number > {least:g}")
    check_level(level)


ANALYSIS = Analysis(
    "norm_laws",
    norm_laws,
    ("norm", ("generalisation_error", "fixed_norm_error"), "error_largest_stability"),
    {"alpha": "curve", "N": "size", "seed": "seed"},
    ("time",),
)
