"""The climb with N, beyond the crossover size, of the threshold that samples show, and its law."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import chdtrc, ndtri

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.counts import DONE, realised_alpha, share_done
from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.dataset.models import (
    alpha_axis,
    code_output,
    map_models,
    model_of,
    number_output,
)
from bendscape.analysis.estimate.drift_curves import FLAGS, Seen, SizeCurve, alpha_seen
from bendscape.analysis.estimate.edge_fits import (
    LEAST_DOF,
    LawFit,
    chosen_law,
    fit_law,
    widened,
)
from bendscape.analysis.estimate.options import check_resampling, check_shares
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size, crossover_size
from bendscape.core.quadratic.finite_size.drift_law import HidingCurve, drift_amplitude, hiding_curve
from bendscape.core.quadratic.finite_size.overlap_law import overlap_sq_if_not_hidden
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import asymptotics, transition_at

LAWS: Mapping[str, Callable[[Floats], Floats]] = {
    "drift": lambda N: 1 / np.log(N),
    "no_drift": lambda N: np.ones_like(N),
}
"""Laws of the decrease of alpha_bbp - alpha_seen with N, with alpha_bbp from theory."""

OUTCOMES: Mapping[str, str] = {
    "not_applicable": "the transition is continuous: its threshold is alpha_bbp at every size",
    "not_enough_data": "too few sizes beyond the crossover with an estimate",
    "cannot_tell": "both laws fit, or neither is enough better than the other",
    "drift": "alpha_seen = alpha_bbp - K/log N, alpha_bbp from theory",
    "no_drift": "alpha_seen = constant",
    "neither": "neither law fits",
}
"""Outcomes for the law, in words; stored as int8, the index in this order."""

OVERLAPS = ("overlap_sq_space", "overlap_sq_sample")
"""Variables from which the threshold is seen: measured, and from the theory of a cell's own labels."""

ALPHA_BBP_SOURCE = "theory: at no size within reach do data know it"
FREE_WARNING = (
    "alpha_bbp_free extrapolates in 1/log N, of which the sizes measured span a small part, and by a leading "
    "order that theory itself misses by leading_order_error there: it is no measurement of alpha_bbp"
)

_AT_SIZE = {
    "alpha_seen": "load at which samples of this size begin to show the teacher",
    "alpha_seen_error": "its statistical standard error, bootstrap over seeds",
    "alpha_seen_low": "lower end of its statistical interval",
    "alpha_seen_high": "upper end of its statistical interval",
    "alpha_seen_systematic": "its systematic error: what theory's width changes beyond noise",
    "alpha_seen_total_error": "statistical and systematic error, added in quadrature",
    "alpha_seen_cross_check": "the same load with theory's width of the curve",
    "stretch": "fitted width of the curve over theory's",
    "alpha_bbp_at_size": "threshold expected at this size, theory without a free parameter",
    "K_at_size": "(alpha_bbp - alpha_bbp_at_size) log N, theory",
}
_OF_MODEL = {
    "alpha_bbp": "threshold as N goes to infinity, theory",
    "crossover_size": "size N_x beyond which labels hide the teacher, theory",
    "K_theory": "K as N goes to infinity, theory",
    "K": "amplitude K of the drift",
    "K_error": "its statistical standard error",
    "K_low": "lower end of its statistical interval",
    "K_high": "upper end of its statistical interval",
    "K_systematic": "largest change of K when one of the sizes is left out, beyond its noise",
    "K_at_sizes": "K that the same fit gives on alpha_bbp_at_size at the same sizes, theory",
    "leading_order_error": "largest distance of alpha_bbp_at_size from alpha_bbp - K_at_sizes/log N",
    "drift_chi2": "drift: chi squared of the fit",
    "drift_p_value": "drift: probability of a larger chi squared",
    "alpha_constant": "no drift: the load at all sizes",
    "alpha_constant_error": "its statistical standard error",
    "no_drift_chi2": "no drift: chi squared of the fit",
    "no_drift_p_value": "no drift: probability of a larger chi squared",
    "delta_chi2": "chi squared of no_drift less that of drift",
    "prediction_chi2": "chi squared of alpha_seen against alpha_bbp_at_size, nothing fitted",
    "prediction_p_value": "probability of a larger chi squared",
    "prediction_offset": "largest distance of alpha_seen from alpha_bbp_at_size, sizes used",
    "coverage": "cells done over cells that the campaign wants, all sizes",
}
_FREE = {
    "alpha_bbp_free": "alpha_bbp fitted together with K: not a measurement, see warning",
    "alpha_bbp_free_error": "its statistical standard error",
    "alpha_bbp_free_low": "lower end of its statistical interval",
    "alpha_bbp_free_high": "upper end of its statistical interval",
}
_COUNTS = {
    "n_sizes": "sizes in the fits",
    "dof": "degrees of freedom of each fit",
    "n_cells": "cells done, all sizes",
}


def drift(
    ds: xr.Dataset,
    *,
    overlap: str | None = None,
    beyond: float = 1.0,
    free_alpha_bbp: bool = False,
    n_boot: int = 1000,
    wrong: float = 0.01,
    misfit: float = 0.01,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """The load alpha_seen(N) at which samples begin to show the teacher, and the law of its climb.

    The mean overlap is the overlap without hiding labels times exp(-kappa), and alpha_seen is the load where
    exp(-kappa) = 1/e (:func:`bendscape.analysis.estimate.drift_curves.alpha_seen`). As a function of size it
    is fitted by least squares to

        drift:     alpha_seen = alpha_bbp - K/log N,    alpha_bbp from theory,
        no_drift:  alpha_seen = constant,

    with weights 1/alpha_seen_total_error^2, where the statistical part is that of Student's t. ``law`` is
    chosen by :func:`bendscape.analysis.estimate.edge_fits.chosen_law`, as in
    :func:`bendscape.analysis.estimate.edge_scaling.edge_scaling`. alpha_bbp of a discontinuous transition is
    never extrapolated from data; it is theory's.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not, with
        one of ``OVERLAPS``.
    overlap : {"overlap_sq_space", "overlap_sq_sample"}, optional
        The variable that shows the teacher; by default the first of these that is present. An absent outlier
        counts as overlap 0.
    beyond : float
        Sizes of at least this many crossover sizes are fitted, >= 1.
    free_alpha_bbp : bool
        Also report a fit with alpha_bbp free, with ``warning`` in the attributes; no choice and no other
        number depends on it.
    n_boot : int
        Bootstrap resamplings of the seeds, >= 100, the same draw at every alpha of one size.
    wrong, misfit : float
        Probabilities of choosing the wrong law, and of rejecting a law that holds; in (0, 0.5).
    level : float
        Level of the intervals, in (0, 1).
    seed : int
        Random seed of the resampling, >= 0.

    Returns
    -------
    xarray.Dataset
        On Dask and not yet computed; ``compute()`` reads the store once. Over (p, p_star, a): ``law``,
        int8 with the meanings of ``OUTCOMES`` in its attributes; ``K`` with error, interval and
        systematic error, beside ``K_theory`` and ``K_at_sizes``; ``alpha_constant``; chi squared and
        p-value of both laws and of theory's alpha_bbp_at_size, which has no free parameter;
        ``leading_order_error``, ``prediction_offset``; ``alpha_bbp``, ``crossover_size``. Over these and
        N: ``alpha_seen`` with errors, interval, ``flag`` and cross-check, ``alpha_bbp_at_size``, ``n_seeds``.
        Where there is no estimate, nan and a flag with the reason.

    Notes
    -----
    Limits: a size counts with at least 4 alphas of 4 seeds, the law needs 3 sizes. The drift is the leading
    order in 1/log N, for theory and data alike: K is an effective value at the sizes used, which exceeds
    K_theory as ``K_at_size`` does, and with errors below ``leading_order_error`` the answer may be
    neither. alpha_bbp_at_size is a leading order too, and is off by ``prediction_offset``. Coverage and error
    rates on planted data are held by ``tests/test_drift.py``; docs/drift.md has the results of label samples.
    Source: this project's own.
    """
    ds = ANALYSIS.sweep(ds)
    overlap, alpha_dim = _overlap(ds, overlap), alpha_axis(ds)
    _check_options(beyond, wrong, misfit)
    check_resampling(n_boot, level, seed)
    measured = ["status", overlap]
    measured += [name for name in ("alpha_realised", "coverage") if name in ds]
    outputs = {name: number_output(("N",), words) for name, words in _AT_SIZE.items()}
    outputs["n_seeds"] = number_output(("N",), "most seeds done at one alpha", np.int64)
    outputs["flag"] = code_output(("N",), "outcome of the estimate", FLAGS)
    of_model = _OF_MODEL | (_FREE if free_alpha_bbp else {})
    outputs |= {name: number_output((), words) for name, words in of_model.items()}
    outputs |= {name: number_output((), words, np.int64) for name, words in _COUNTS.items()}
    outputs["law"] = code_output((), "law of the threshold that samples show", OUTCOMES)
    outputs["alpha_bbp"].attrs["source"] = ALPHA_BBP_SOURCE
    options: dict[str, Any] = {"overlap": overlap, "beyond": beyond, "free_alpha_bbp": free_alpha_bbp}
    options |= {"n_boot": n_boot, "wrong": wrong, "misfit": misfit, "level": level, "seed": seed}
    found = map_models(ds, partial(_of_model, alpha_dim=alpha_dim, **options), outputs, measured)
    found.attrs = {name: int(value) if isinstance(value, bool) else value for name, value in options.items()}
    found.attrs |= {"name": ds.attrs.get("name", ""), "alpha_bbp_source": ALPHA_BBP_SOURCE}
    if free_alpha_bbp:
        found.attrs["warning"] = FREE_WARNING
    return found


def _overlap(ds: xr.Dataset, wanted: str | None) -> str:
    """The overlap variable to read."""
    there = [name for name in OVERLAPS if name in ds]
    if wanted is not None and wanted not in there:
        raise ParameterError("overlap", wanted, f"one of {', '.join(there)}")
    return wanted or there[0]


def _check_options(beyond: float, wrong: float, misfit: float) -> None:
    if not 1 <= beyond < math.inf:
        raise ParameterError("beyond", beyond, "a number >= 1", "below the crossover size nothing drifts")
    check_shares(wrong, misfit)


def _of_model(
    block: xr.Dataset, *, alpha_dim: str, overlap: str, beyond: float, free_alpha_bbp: bool, **options: Any
) -> dict[str, Any]:
    """The outputs of :func:`drift` for one model."""
    block = block.transpose(alpha_dim, "N", "seed", ...)
    model, sizes = model_of(block), block["N"].values
    done = block["status"].values == DONE
    at_bbp, n_x = transition_at(model), crossover_size(model)
    found: dict[str, Any] = {name: np.full(len(sizes), math.nan) for name in _AT_SIZE}
    found |= dict.fromkeys([*_OF_MODEL, *_FREE], math.nan) | {"n_sizes": 0, "dof": 0}
    found |= {"alpha_bbp": at_bbp.alpha_bbp, "crossover_size": n_x, "K_theory": drift_amplitude(model)}
    found |= {"n_cells": done.sum(), "n_seeds": done.sum(axis=2).max(axis=0)}
    found["coverage"] = share_done(block, (alpha_dim, "N", "seed")).item()
    known = np.array([alpha_bbp_at_size(model, float(N)) for N in sizes])
    found |= {"alpha_bbp_at_size": known, "K_at_size": (at_bbp.alpha_bbp - known) * np.log(sizes)}
    if at_bbp.kind == "continuous":
        return found | _coded(["not_applicable"] * len(sizes), "not_applicable")
    loads, curve = realised_alpha(block, block["alpha"].values.astype(np.float64)), hiding_curve(model)
    cells = np.where(np.isnan(block[overlap].values) & (overlap == "overlap_sq_sample"), 0.0, block[overlap])
    seen = []
    for k, N in enumerate(sizes):
        if beyond * n_x > N:
            seen.append(Seen("below_the_crossover"))
            continue
        measured = done[:, k].any(axis=1)
        visible = np.full(len(measured), math.nan)
        visible[measured] = _visible(model, at_bbp.alpha_bbp, curve, loads[k, measured], int(N), overlap)
        size = SizeCurve(int(N), loads[k], cells[:, k], done[:, k] & np.isfinite(cells[:, k]), visible)
        seen.append(alpha_seen(model, curve, size, options["n_boot"], options["level"], options["seed"]))
    for k, at in enumerate(seen):
        total = math.hypot(at.error, np.nan_to_num(at.systematic))
        numbers = (at.value, at.error, at.low, at.high, at.systematic, total, at.cross_check, at.stretch)
        for name, number in zip(_AT_SIZE, numbers, strict=False):
            found[name][k] = number
    fits, outcome = _fits(found, sizes, np.array([at.error_dof for at in seen]), free_alpha_bbp, **options)
    return found | fits | _coded([at.flag for at in seen], outcome)


def _coded(flags: list[str], outcome: str) -> dict[str, Any]:
    codes = np.array([tuple(FLAGS).index(flag) for flag in flags], np.int8)
    return {"flag": codes, "law": np.int8(tuple(OUTCOMES).index(outcome))}


def _visible(
    model: Model, alpha_bbp: float, curve: HidingCurve, loads: Floats, N: int, overlap: str
) -> Floats:
    """Mean overlap of samples in which no label hides the teacher; nan below the principal-value branch."""
    found = np.full(len(loads), math.nan)
    for i in np.flatnonzero(loads >= curve.alpha[0]):
        alpha = float(loads[i])
        if overlap == "overlap_sq_space":
            found[i] = overlap_sq_if_not_hidden(model, alpha, N)
        elif alpha > alpha_bbp:
            found[i] = asymptotics(model, alpha).overlap_sq
        else:
            found[i] = np.interp(alpha, curve.alpha, curve.overlap_sq)
    return found


def _fits(
    at_size: Mapping[str, Any],
    sizes: Any,
    error_dof: Any,
    free_alpha_bbp: bool,
    *,
    wrong: float,
    misfit: float,
    level: float,
    **_: Any,
) -> tuple[dict[str, float], str]:
    """The numbers of ``_OF_MODEL`` that follow from the sizes, and the outcome."""
    use = (error_dof > 2) & (at_size["alpha_seen_error"] > 0)
    N, bbp = sizes[use].astype(np.float64), float(at_size["alpha_bbp"])
    found: dict[str, float] = {"n_sizes": len(N), "dof": max(0, len(N) - 1)}
    if not len(N):
        return found, "not_enough_data"
    seen, known = at_size["alpha_seen"][use], at_size["alpha_bbp_at_size"][use]
    statistical = [
        widened(e, f) for e, f in zip(at_size["alpha_seen_error"][use], error_dof[use], strict=True)
    ]
    error = np.hypot(statistical, np.nan_to_num(at_size["alpha_seen_systematic"][use]))
    off = seen - known
    chi2 = float(((off / error) ** 2).sum())
    found |= {"prediction_chi2": chi2, "prediction_p_value": float(chdtrc(len(N), chi2))}
    found["prediction_offset"] = float(off[np.abs(off).argmax()])
    if found["dof"] < LEAST_DOF:
        return found, "not_enough_data"
    fits = {law: fit_law(law, N, bbp - seen, error, laws=LAWS) for law in LAWS}
    drift, constant = fits["drift"], fits["no_drift"]
    half = float(ndtri(0.5 + level / 2))
    theory = fit_law("drift", N, bbp - known, error, laws=LAWS).c
    found |= {
        "K": drift.c,
        "K_error": drift.c_error,
        "K_low": drift.c - half * drift.c_error,
        "K_high": drift.c + half * drift.c_error,
        "K_systematic": _without_one(drift, N, bbp - seen, error),
        "K_at_sizes": theory,
        "leading_order_error": float(np.abs(bbp - theory / np.log(N) - known).max()),
        "drift_chi2": drift.chi2,
        "drift_p_value": drift.p_value,
        "alpha_constant": bbp - constant.c,
        "alpha_constant_error": constant.c_error,
        "no_drift_chi2": constant.chi2,
        "no_drift_p_value": constant.p_value,
        "delta_chi2": constant.chi2 - drift.chi2,
    }
    if free_alpha_bbp:
        free = fit_law("drift", N, bbp - seen, error, free_edge=True, laws=LAWS)
        value, spread = bbp - free.shift, half * free.shift_error
        numbers = (value, free.shift_error, value - spread, value + spread)
        found |= dict(zip(_FREE, numbers, strict=True))
    return found, chosen_law(fits, wrong, misfit)


def _without_one(whole: LawFit, N: Floats, gap: Floats, error: Floats) -> float:
    """Largest (d^2 - s^2)^(1/2) over sizes, d the change of K without that size and s its standard error."""
    excess = [0.0]
    for k in range(len(N)):
        rest = np.arange(len(N)) != k
        part = fit_law("drift", N[rest], gap[rest], error[rest], laws=LAWS)
        variance = part.c_error**2 - whole.c_error**2
        excess.append(math.sqrt(max(0.0, (part.c - whole.c) ** 2 - max(0.0, variance))))
    return max(excess)


ANALYSIS = Analysis("drift", drift, ("status", OVERLAPS))
