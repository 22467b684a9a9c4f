"""How overparametrization shifts the transition: measured thresholds over (p, p_star, a), beside theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import ndtri

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.estimate.collapse import ANALYSIS as COLLAPSE
from bendscape.analysis.estimate.verdicts import preferred_estimator
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.theory.maps import transition_map

METHODS: Mapping[str, str] = {
    "none": "no estimate that can be trusted",
    "collapse": "collapse of all sizes on one curve",
    "theory_curve": "collapse of all sizes on theory's curve",
}
"""Origin of a measured value; stored as int8 in this order."""

_READ = ("alpha_c", "alpha_c_total_error", "flag")
_MEASURED: Mapping[str, str] = {
    "alpha_c": "critical load: alpha_bbp of a continuous transition, alpha_0 of a discontinuous one",
    "window": "theory's alpha_bbp less alpha_c of a discontinuous transition",
    "shift": "critical load less that of the student with p = p_star",
}


def shift_map(ds: xr.Dataset, result: xr.Dataset | None = None) -> xr.Dataset:
    """Critical load, pre-critical window and shift over the (p, p_star, a) of a sweep, beside theory.

    With alpha_c the critical load measured from all sizes
    (:func:`bendscape.analysis.estimate.collapse.collapse`, by
    :func:`bendscape.analysis.estimate.verdicts.preferred_estimator`), which is alpha_bbp where the transition
    is continuous and alpha_0 where it is discontinuous,

        window = alpha_bbp - alpha_c, alpha_bbp from theory,
        shift = alpha_c(p, p_star, a) - alpha_c(p_star, p_star, a).

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not.
    result : xarray.Dataset, optional
        The result of :func:`bendscape.analysis.estimate.collapse.collapse`; if not given, computed in a pass
        over ``ds``.

    Returns
    -------
    xarray.Dataset
        Over (p, p_star, a), in memory: measured ``alpha_c``, ``window`` and ``shift``, each with
        ``_error`` (statistical and systematic), ``_low`` and ``_high`` (its interval at the level of
        ``result``), ``_method`` (``METHODS``) and ``_theory``. From theory alone: ``alpha_bbp_theory``;
        ``alpha_0_theory``, the principal value or, where that branch has no zero, the complex one;
        ``overlap_sq_jump``, the squared overlap just above a discontinuous threshold; the three
        ``alpha_0_*``. ``width_ratio`` = p/p_star; ``coverage``, the fraction of the wanted cells that is
        done, nan if the campaign wants none; and ``covered``, whether alpha_c was estimated. Nothing measured
        here is alpha_bbp of a discontinuous transition, which sizes within reach do not show: only the lower
        end of the window is measured. For a continuous transition the window is nan, except in theory, where
        it is 0. The shift is nan if the sweep has no p = p_star.

    Notes
    -----
    Intervals are normal, with the total error of alpha_c; for a shift the errors of two models are added in
    quadrature. Held by ``tests/test_shift_map.py``. Source: arXiv:2510.18435 for the quantities mapped.
    """
    result = (COLLAPSE.estimate(ds) if result is None else result).compute()
    names = result["flag"].attrs["flag_meanings"].split()
    chosen = _preferred(result["flag"], names)
    best = result[list(_READ)].sel(estimator=chosen).drop_vars("estimator")
    level = float(result.attrs["level"])
    axes = {name: result[name].values.tolist() for name in ("p", "p_star", "a")}
    theory = xr.Dataset(*transition_map(**axes, alpha_0=True))
    sharp = theory["transition"] == 0
    estimated = best["flag"] == names.index("estimated")
    measured, error = (best[name].where(estimated) for name in ("alpha_c", "alpha_c_total_error"))

    exact = {name: theory[name] for name in ("alpha_bbp", "alpha_0_principal_value", "alpha_0_tangent")}
    real = theory["alpha_0_complex_re"]
    exact["alpha_0_complex_re"] = real.where(real > 0)  # else not a load
    principal = theory["alpha_0_principal_value"]
    exact["alpha_0"] = principal.where(principal.notnull(), exact["alpha_0_complex_re"])
    exact["window_theory"] = (theory["alpha_bbp"] - exact["alpha_0"]).where(~sharp, 0.0)
    critical = theory["alpha_bbp"].where(sharp, exact["alpha_0"])
    exact["shift_theory"] = _less_equal_width(critical)
    exact["alpha_c_theory"] = critical
    values = {
        "alpha_c": (measured, error),
        "window": ((theory["alpha_bbp"] - measured).where(~sharp), error.where(~sharp)),
        "shift": (_less_equal_width(measured), _in_quadrature(error)),
    }
    half = float(ndtri(0.5 + level / 2))
    out = xr.Dataset(coords={name: result[name] for name in axes})
    for name, (value, its_error) in values.items():
        words = _MEASURED[name]
        method = chosen.where(value.notnull(), "none")
        codes = xr.apply_ufunc(list(METHODS).index, method, vectorize=True, output_dtypes=[np.int8])
        parts = {
            name: (value, words),
            f"{name}_error": (its_error, f"{words}: statistical and systematic error"),
            f"{name}_low": (value - half * its_error, f"{words}: lower end of the interval"),
            f"{name}_high": (value + half * its_error, f"{words}: upper end of the interval"),
            f"{name}_theory": (exact[f"{name}_theory"], f"{words}, theory"),
        }
        for part, (values_of, long_name) in parts.items():
            out[part] = values_of.reset_coords(drop=True).assign_attrs(long_name=long_name, units="1")
        out[f"{name}_method"] = codes.reset_coords(drop=True).assign_attrs(
            long_name=f"{words}: where the value comes from",
            units="1",
            flag_values=np.arange(len(METHODS), dtype=np.int8),
            flag_meanings=" ".join(METHODS),
        )
    for name in ("alpha_0_principal_value", "alpha_0_tangent", "alpha_0_complex_re"):
        out[name] = exact[name].reset_coords(drop=True)
    for name, words in (
        ("alpha_bbp", "threshold of the teacher's outlier"),
        ("alpha_0", "load at which the residual overlap is born below N_x"),
    ):
        out[f"{name}_theory"] = (
            exact[name].reset_coords(drop=True).assign_attrs(long_name=f"{words}, theory", units="1")
        )
    out["transition"] = theory["transition"].reset_coords(drop=True)
    out["overlap_sq_jump"] = theory["overlap_sq_jump"].reset_coords(drop=True)
    out["width_ratio"] = (out["p"] / out["p_star"]).assign_attrs(long_name="p / p_star", units="1")
    out["coverage"], out["covered"] = result["coverage"], estimated.reset_coords(drop=True)
    out["covered"].attrs = {"long_name": "whether the critical load was estimated from data"}
    return out.assign_attrs(level=level, name=result.attrs.get("name", ""))


def _preferred(flags: xr.DataArray, names: Sequence[str]) -> xr.DataArray:
    """The name of the preferred estimator for every model."""

    def of_model(codes: npt.NDArray[np.int8]) -> str:
        each = zip(flags["estimator"].values.tolist(), codes, strict=True)
        return preferred_estimator({estimator: names[code] for estimator, code in each})

    found: xr.DataArray = xr.apply_ufunc(
        of_model, flags, input_core_dims=[["estimator"]], vectorize=True, output_dtypes=[object]
    )
    return found


def _less_equal_width(values: xr.DataArray) -> xr.DataArray:
    """Values minus that of the student as wide as the teacher; nan if the sweep has none."""
    return values - _at_equal_width(values)


def _in_quadrature(error: xr.DataArray) -> xr.DataArray:
    """The error of such a difference; 0 for the student as wide as the teacher."""
    both: xr.DataArray = (error**2 + _at_equal_width(error) ** 2) ** 0.5
    return both.where(both["p"] != both["p_star"], 0.0 * error)


def _at_equal_width(values: xr.DataArray) -> xr.DataArray:
    if "p" not in values.dims or "p_star" not in values.dims:
        raise ParameterError("dataset", str(values.dims), "one over p, p_star and a")
    equal = values.where(values["p"] == values["p_star"])
    return equal.max("p")  # at most one of them is not nan


ANALYSIS = Analysis("shift_map", shift_map, COLLAPSE.variables)
