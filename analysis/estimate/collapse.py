"""The critical load from the collapse of all sizes of a sweep, and what it says of the transition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.counts import DONE, share_done
from bendscape.analysis.dataset.curves import half_width
from bendscape.analysis.dataset.models import alpha_axis, code_output, map_models, model_of, number_output
from bendscape.analysis.estimate.collapse_fits import (
    CHOICES,
    ESTIMATORS,
    FLAGS,
    PointScaling,
    Settings,
    scale_width,
)
from bendscape.analysis.estimate.collapse_points import overlap_exponent, scaled_points
from bendscape.analysis.estimate.critical import SAFE
from bendscape.analysis.estimate.estimators import MEASURED
from bendscape.analysis.estimate.options import check_resampling, usual_least_size
from bendscape.analysis.estimate.profiles import Fit
from bendscape.analysis.estimate.student import ONE_SIGMA
from bendscape.analysis.estimate.verdicts import (
    ANSWERS,
    DEFINITIONS,
    KINDS,
    SUPPORT,
    Landmarks,
    answer,
    kind_of,
    landmarks,
    log_odds_discontinuous,
    supported,
)
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size

_DIMS: Mapping[str, tuple[str, ...]] = {
    "": (),
    "E": ("estimator",),
    "D": ("estimator", "definition"),
    "C": ("estimator", "choice"),
    "N": ("N",),
}
_NUMBERS: Mapping[str, tuple[str, str]] = {  # name: dimensions beside the model's, long name
    "alpha_c": ("E", "critical load"),
    "alpha_c_error": ("E", "statistical standard error"),
    "alpha_c_low": ("E", "lower end of the statistical interval"),
    "alpha_c_high": ("E", "upper end of the statistical interval"),
    "alpha_c_systematic": ("E", "systematic error"),
    "alpha_c_total_error": ("E", "statistical and systematic error, added in quadrature"),
    "alpha_c_first": ("E", "first alpha searched"),
    "alpha_c_last": ("E", "last alpha searched"),
    "chi2": ("E", "chi squared at the minimum"),
    "dof": ("E", "degrees of freedom"),
    "p_value": ("E", "probability of a larger chi squared"),
    "probability_discontinuous": ("E", "probability of a discontinuous transition, even odds before"),
    "distance": ("D", "estimate less definition, in total standard errors"),
    "alpha_c_by_choice": ("C", "critical load by other choices of window, sizes, correction, order"),
    "difference_error_by_choice": ("C", "standard error of its difference from the default"),
    "p_value_by_choice": ("C", "probability of a larger chi squared"),
    **{name: ("", f"{words}, theory") for name, words in DEFINITIONS.items()},
    "crossover_size": ("", "size N_x up to which a discontinuous transition looks continuous, theory"),
    "square_root_bias": ("", "what the square-root estimator makes of theory's curve, less theory's alpha_c"),
    "overlap_exponent_at_bbp": ("", "slope of log <overlap_sq_space> in log N at theory's alpha_bbp"),
    "overlap_exponent_at_bbp_error": ("", "standard error of that slope"),
    "n_sizes": ("", "sizes used"),
    "smallest_size": ("", "smallest size used"),
    "largest_size": ("", "largest size used"),
    "n_cells": ("", "cells done, all sizes"),
    "coverage": ("", "cells done over cells wanted, all alphas and sizes"),
    "alpha_bbp_at_size": ("N", "threshold seen at size N, theory"),
}
_CODES: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "flag": ("E", "outcome of the estimate", FLAGS),
    "supported": ("D", "whether the data support a definition", SUPPORT),
    "answer": ("E", "what the data say of the definitions together", ANSWERS),
    "kind_from_data": ("E", "kind of the transition as the data have it", KINDS),
    "flag_by_choice": ("C", "outcome of the estimate", FLAGS),
}


def collapse(
    ds: xr.Dataset,
    *,
    least_size: int | None = None,
    window: float = 0.65,
    order: int = 3,
    correction: float = 0.5,
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Critical load alpha_c of every model of a sweep, from all its sizes together.

    alpha_c is the load where the residual overlap appears at the sizes measured. In theory it is alpha_bbp
    for a continuous transition. For a discontinuous one it is alpha_0 at sizes below the crossover size N_x,
    beyond which the threshold climbs towards alpha_bbp like 1/log N (``alpha_bbp_at_size``). Sizes above
    N_x/10 are left out. So nothing here estimates alpha_bbp of a discontinuous transition, which comes from
    theory only.

    Estimators, by name along ``estimator``: ``collapse``, ``theory_curve``, ``crossing``, ``square_root``
    (:data:`bendscape.analysis.estimate.collapse_fits.ESTIMATORS`). The first two fit

        N^(1/3) <overlap_sq_space> = f(w) + c(w, N),    w = (alpha - alpha_c) N^(1/3)/width,

    in the window |w| <= ``window`` (4 N^(-1/3) in alpha at (1, 1, 1.5)). f is a polynomial of order ``order``
    or the theory's A phi_r; c are corrections to scaling of order N^0, N^(-1/3) and N^(-2/3), parabolas whose
    coefficients have normal priors. Those of order N^(-1/3) have the standard deviation ``correction``
    N^(1/3) <overlap_sq_space> at alpha_c, around means from sampled models
    (:mod:`bendscape.analysis.estimate.collapse_fits`).

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not; read in
        one pass of :func:`bendscape.analysis.dataset.models.map_models` when the result is computed.
    least_size : int, optional
        Smallest size used; by default
        :func:`bendscape.analysis.estimate.options.usual_least_size`, as in every command.
    window : float
        Half width, in units of width N^(-1/3), > 0.
    order : int
        Order of the polynomial, 2 to 6.
    correction : float
        >= 0; 0 omits the corrections to scaling, their means too.
    n_boot : int
        Resamplings of the mean overlaps, >= 100, for the errors of differences between choices.
    level : float
        Level of the intervals and of ``supported``, in (0, 1).
    seed : int
        Random seed of the resampling, >= 0.

    Returns
    -------
    xarray.Dataset
        Lazy if ``ds`` is. Over (p, p_star, a), with further dimensions ``estimator``, ``definition`` and
        ``choice``: ``alpha_c`` with ``alpha_c_error``, ``alpha_c_low``, ``alpha_c_high``,
        ``alpha_c_systematic``, ``flag``, ``chi2``, ``dof``, ``p_value``; theory's ``alpha_bbp``, three
        ``alpha_0_*`` and ``crossover_size``; ``distance`` from each of them in total errors and
        ``supported``, with ``answer`` for all together; ``kind_from_data`` and ``probability_discontinuous``
        (Bayes factor of :func:`bendscape.analysis.estimate.verdicts.log_odds_discontinuous`); the estimate
        for every choice that enters the systematic error; sizes; and ``coverage``, the fraction of the wanted
        cells that is done, nan if the campaign wants none. Where there is no estimate, nan and a flag with
        the reason.

    Notes
    -----
    An interval holds the loads at which chi^2 exceeds its minimum by at most the square of Student's
    quantile, with errors pooled over all alphas of a size
    (:func:`bendscape.analysis.estimate.collapse_points.scaled_points`); ``alpha_c_error`` is half its length
    at 68 per cent. An end outside the measured alphas is nan. For ``collapse`` and ``crossing`` no interval
    is shorter than the errors alone imply. If there is no minimum or crossing within the alphas, ``alpha_c``
    is nan and the end that is not nan is a bound. Coverage of 95 % intervals flagged ``estimated``, on
    planted sweeps with corrections to scaling drawn from the prior: 0.91 to 1.00 with 6 seeds or more, for
    normal, exponential and lognormal cells; of 1300 sweeps whose alphas miss the threshold one gave an
    estimate (``benchmarks/coverage.py``, ``tests/test_collapse_coverage.py``, ``docs/collapse.md``).

    The systematic error is the largest (d^2 - s^2)^(1/2) over the choices of ``choice`` with a p-value above
    0.01, where d is the change of the estimate and s the standard error of d from common resamplings; for the
    square root it is at least the bias on theory's curve. Cells at different alphas are taken as independent,
    as they are in a campaign. The kind is inferred relative to theory's alpha_bbp: without that, nothing
    below the crossover size distinguishes the kinds. A flagged estimate, or one without degrees of freedom,
    gives no kind. Source: this project's own, on the scaling law of arXiv:2604.27992.
    """
    ds = ANALYSIS.sweep(ds)
    alpha_dim = alpha_axis(ds)
    least_size = usual_least_size(ds) if least_size is None else least_size
    _check_options(least_size, window, order, correction, n_boot, level, seed)
    options: dict[str, Any] = {"least_size": least_size, "n_boot": n_boot, "level": level, "seed": seed}
    shape: dict[str, Any] = {"window": window, "order": order, "correction": correction}
    of_model = partial(_of_model, alpha_dim=alpha_dim, settings=Settings(**shape), **options)
    outputs = {name: number_output(_DIMS[dims], words) for name, (dims, words) in _NUMBERS.items()}
    outputs |= {
        name: code_output(_DIMS[dims], words, meanings) for name, (dims, words, meanings) in _CODES.items()
    }
    measured = [*MEASURED, "lambda_minus", *(name for name in ("alpha_realised", "coverage") if name in ds)]
    labels = {"estimator": tuple(ESTIMATORS), "definition": tuple(DEFINITIONS), "choice": CHOICES}
    found = map_models(ds, of_model, outputs, measured, labels)
    out = ds[["transition"]].reset_coords(drop=True).merge(found.reset_coords(drop=True))
    out["estimator"].attrs["definitions"] = "; ".join(
        f"{name}: {words}" for name, words in ESTIMATORS.items()
    )
    out.attrs = {**shape, **options, "name": ds.attrs.get("name", "")}
    return out


def _of_model(
    block: xr.Dataset,
    *,
    alpha_dim: str,
    settings: Settings,
    least_size: int,
    n_boot: int,
    level: float,
    seed: int,
) -> dict[str, Any]:
    """The outputs of :func:`collapse` for one model."""
    block = block.transpose(alpha_dim, "N", "seed")
    model, sizes = model_of(block), block["N"].values
    known = landmarks(model)
    large = sizes >= least_size
    use = large & (sizes <= known.crossover_size / SAFE)
    alpha = block["alpha"].values.astype(np.float64)
    points = scaled_points(block.isel(N=np.flatnonzero(use)), alpha, scale_width(model))
    scaling = PointScaling(points, model, level, n_boot, seed)
    at = collapse_point(scaling, settings, known)
    if large.any() and not use.any():
        at["flag"] = [_code(FLAGS, "beyond_the_crossover")] * len(ESTIMATORS)
    return at | {
        "n_cells": (block["status"].values == DONE).sum(),
        "coverage": share_done(block, (alpha_dim, "N", "seed")).item(),
        "alpha_bbp_at_size": [alpha_bbp_at_size(model, float(N)) for N in sizes],
    }


def collapse_point(scaling: PointScaling, settings: Settings, known: Landmarks) -> dict[str, Any]:
    """All numbers of one model by their names in the dataset, computed from its points."""
    level, bbp = scaling.level, known.definitions["alpha_bbp"]
    slope = overlap_exponent(scaling.points, bbp, scaling.width)
    bias = scaling.square_root_bias(settings)
    at: dict[str, Any] = dict(known.definitions) | {
        "crossover_size": known.crossover_size,
        "square_root_bias": bias,
        "overlap_exponent_at_bbp": slope[0],
        "overlap_exponent_at_bbp_error": slope[1],
        "n_sizes": len(scaling.sizes),
        "smallest_size": scaling.sizes.min(initial=math.inf) if len(scaling.sizes) else math.nan,
        "largest_size": scaling.sizes.max(initial=0.0) if len(scaling.sizes) else math.nan,
    }
    rows = []
    for name in ESTIMATORS:
        fits = scaling.fits(name, settings)
        row = _summary(fits, level, bias if name == "square_root" else 0.0)
        trusted = row["flag"] == _code(FLAGS, "estimated") and row["dof"] > 0
        value, error = row["alpha_c"], row["alpha_c_total_error"] if trusted else math.nan
        verdicts = {
            definition: supported(value, error, place, level)
            for definition, place in known.definitions.items()
        }
        odds = log_odds_discontinuous(value, error, bbp)
        row["distance"] = [
            (value - place) / row["alpha_c_total_error"] for place in known.definitions.values()
        ]
        row["supported"] = [_code(SUPPORT, verdict) for verdict in verdicts.values()]
        row["answer"] = _code(ANSWERS, answer(verdicts, known.definitions))
        row["kind_from_data"] = _code(KINDS, kind_of(value, error, bbp))
        row["probability_discontinuous"] = 0.5 + 0.5 * math.tanh(odds / 2)
        rows.append(row)
    return at | {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _summary(fits: Mapping[str, Fit], level: float, bias: float) -> dict[str, Any]:
    """Estimate, interval and systematic error of one estimator from its fits by choice."""
    nan, default = math.nan, fits["default"]
    by_choice = {
        "alpha_c_by_choice": np.full(len(CHOICES), nan),
        "difference_error_by_choice": np.full(len(CHOICES), nan),
        "p_value_by_choice": np.full(len(CHOICES), nan),
        "flag_by_choice": np.full(len(CHOICES), _code(FLAGS, "not_enough_data"), np.int8),
    }
    row: dict[str, Any] = dict.fromkeys(("alpha_c", "error", "low", "high", "systematic", "total_error"), nan)
    row = {name if name == "alpha_c" else f"alpha_c_{name}": value for name, value in row.items()}
    row |= {"alpha_c_first": default.grid[0], "alpha_c_last": default.grid[-1]}
    row |= {"flag": _code(FLAGS, default.flag), "chi2": default.chi2}
    row |= {"dof": nan if default.values is None else default.dof, "p_value": default.p_value} | by_choice
    low, high = (end if math.isfinite(end) else nan for end in default.interval(level))
    row |= {"alpha_c_low": low, "alpha_c_high": high}
    if default.values is None or not math.isfinite(default.values[0]):
        return row
    excess = [0.0 if math.isnan(bias) else abs(bias)]
    for choice, fit in fits.items():
        k = CHOICES.index(choice)
        by_choice["flag_by_choice"][k] = _code(FLAGS, fit.flag)
        by_choice["p_value_by_choice"][k] = fit.p_value
        if fit.values is None or not math.isfinite(fit.values[0]):
            continue
        both = np.isfinite(fit.values) & np.isfinite(default.values)
        difference = (fit.values[both] - default.values[both])[1:]
        change = float(fit.values[0] - default.values[0])
        by_choice["alpha_c_by_choice"][k] = fit.values[0]
        by_choice["difference_error_by_choice"][k] = error = half_width(difference)
        if fit.flag == "estimated":
            excess.append(math.sqrt(max(0.0, change**2 - error**2)))
    left, right = default.interval(ONE_SIGMA)
    error, systematic = (right - left) / 2, max(excess)
    error = error if math.isfinite(error) else nan
    row |= {"alpha_c": float(default.values[0]), "alpha_c_error": error, "alpha_c_systematic": systematic}
    return row | {"alpha_c_total_error": math.hypot(error, systematic)}


def _code(meanings: Mapping[str, str], name: str) -> int:
    return tuple(meanings).index(name)


def _check_options(
    least_size: int, window: float, order: int, correction: float, n_boot: int, level: float, seed: int
) -> None:
    if least_size < 0:
        raise ParameterError("least_size", least_size, "an integer >= 0")
    if not 0 < window < math.inf:
        raise ParameterError("window", window, "a number > 0", "0.65 holds |w| <= 0.65")
    if not 2 <= order <= 6:
        raise ParameterError("order", order, "an integer from 2 to 6", "3 is a cubic")
    if not 0 <= correction < math.inf:
        raise ParameterError("correction", correction, "a number >= 0", "0 leaves it out")
    check_resampling(n_boot, level, seed)


ANALYSIS = Analysis("collapse", collapse, (*MEASURED, "lambda_minus", "transition"))
