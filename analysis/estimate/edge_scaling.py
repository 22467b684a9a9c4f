"""The approach of the lowest eigenvalue to the edge of the bulk with N, below threshold, and its law."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import chdtrc

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.counts import DONE, realised_alpha, share_done
from bendscape.analysis.dataset.curves import Flags, Floats
from bendscape.analysis.dataset.models import (
    Output,
    alpha_axis,
    code_output,
    map_models,
    model_of,
    number_output,
)
from bendscape.analysis.estimate.edge_fits import (
    LAWS,
    LEAST_DOF,
    LEAST_SEEDS,
    OUTCOMES,
    LawFit,
    amplitude,
    chosen_law,
    fit_law,
    mean_error,
    median_error,
    smooth_errors,
)
from bendscape.analysis.estimate.laws import lowest_eigenvalue_law
from bendscape.analysis.estimate.options import check_level, check_shares, usual_least_size
from bendscape.analysis.estimate.student import Means, third_moment
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size
from bendscape.core.quadratic.model import EDGE_KINDS, Model
from bendscape.core.quadratic.sampling.control_variate import controlled_mean, label_controls
from bendscape.core.quadratic.sampling.drawn_labels import sample_drawn_labels
from bendscape.core.quadratic.theory.bulk import left_edge

Statistic = Literal["mean", "median", "controlled"]

_AT_SIZE = {
    "n_seeds": "seeds done",
    "coverage": "seeds done over seeds wanted",
    "lambda_minus": "left edge of the bulk at the realised alpha, theory",
    "mean": "mean lowest eigenvalue",
    "mean_error": "its standard error, bootstrap over seeds",
    "median": "median lowest eigenvalue",
    "median_error": "its standard error, bootstrap over seeds",
    "controlled": "mean lowest eigenvalue, labels as control variate",
    "controlled_error": "its standard error",
    "variance_ratio": "factor by which the control variate cuts the variance of the mean",
    "prediction": "mean lowest eigenvalue, theory without a free parameter",
}
_PARTS = {
    "c": "amplitude c",
    "c_error": "standard error of c",
    "c_low": "lower end of the interval of c",
    "c_high": "upper end of the interval of c",
    "shift": "fitted edge less lambda_minus",
    "shift_error": "standard error of the fitted edge",
    "chi2": "chi squared of the fit",
    "p_value": "probability of a larger chi squared",
}
_AT_ALPHA = {
    "n_sizes": "sizes in the fits",
    "dof": "degrees of freedom of each fit",
    "delta_chi2": "chi squared of one_over_log less that of n_two_thirds",
    "prediction_chi2": "chi squared of the data against the prediction",
    "prediction_p_value": "probability of a larger chi squared, with n_sizes degrees of freedom",
} | {f"{law}_{part}": f"{OUTCOMES[law]}: {words}" for law in LAWS for part, words in _PARTS.items()}
FREE_EDGE_WARNING = (
    "lambda_minus was fitted together with the law: a wrong edge makes up for a wrong law, and inside a "
    "smooth edge n_two_thirds fits with an edge above lambda_minus: the choice says nothing of the limit"
)


def edge_scaling(
    ds: xr.Dataset,
    *,
    statistic: Statistic | None = None,
    least_size: int | None = None,
    extra_draws: int = 0,
    prediction: bool = True,
    free_edge: bool = False,
    wrong: float = 0.01,
    misfit: float = 0.01,
    level: float = 0.95,
    seed: int = 0,
) -> xr.Dataset:
    """Lowest eigenvalue against N at every (p, p_star, a, alpha) below threshold, fitted to two laws.

    With y(N) the statistic of eigval_min over the seeds that are done, and lambda_minus the theory's edge at
    the realised alpha = M/N of each size, c in

        n_two_thirds:  y = lambda_minus + c N^(-2/3)        (sharp edge)
        one_over_log:  y = lambda_minus + c/log N           (exponentially thin tail)

    is found by least squares with weights N n_seeds, which do not depend on the data: cells of one size have
    a variance of order 1/N. Its interval comes from the variance and the skewness measured at each size
    (:func:`bendscape.analysis.estimate.edge_fits.amplitude`). chi^2 of a law is the smallest for any c, with
    errors from a power law of the variance in N
    (:func:`bendscape.analysis.estimate.edge_fits.smooth_errors`). ``law`` is chosen by
    :func:`bendscape.analysis.estimate.edge_fits.chosen_law`: the law with the smaller chi^2, if it fits
    (p-value at least ``misfit``, c not significantly negative) and chi^2 differs by at least the 1 -
    ``wrong`` quantile of chi^2 with one degree of freedom, 6.63 at 0.01; neither if none fits; otherwise
    cannot_tell. Given normal errors, the wrong one of the two is chosen with probability at most ``wrong``.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not.
    statistic : {"mean", "median", "controlled"}, optional
        The statistic that is fitted; by default "controlled" with extra draws, else "mean".
    least_size : int, optional
        Smallest size in fits and prediction, >= 2; see the limits. By default
        :func:`bendscape.analysis.estimate.options.usual_least_size`, as in every command.
    extra_draws : int
        Labels drawn for every measured cell to estimate the expectation of the control variate
        (:func:`bendscape.core.quadratic.sampling.control_variate.controlled_mean` on min(edge_sample,
        outlier_sample)); 0 for no control variate. 8 give nearly the full gain. One draw takes 1 ms at N =
        1000, and the time grows like N.
    prediction : bool
        Also compare with :func:`bendscape.core.quadratic.finite_size.edge_law.lowest_eigenvalue_law`, which
        takes milliseconds to tenths of a second a point, and seconds far below alpha_0.
    free_edge : bool
        Also fit the edge. Then the wrong law can win; ``warning`` in the attributes says so, and the choice
        is made all the same.
    wrong, misfit : float
        Probabilities of choosing the wrong law, and of rejecting a law that holds; in (0, 0.5).
    level : float
        Level of the intervals of c, in (0, 1).
    seed : int
        Random seed of the extra draws, >= 0. They depend only on it, the model, N and M.

    Returns
    -------
    xarray.Dataset
        Lazy if ``ds`` is; ``compute()`` reads the store once. Over (p, p_star, a, alpha): ``law``, int8 with
        the meanings of ``OUTCOMES`` in its attributes; ``delta_chi2``, positive where n_two_thirds fits
        better; for each law ``n_two_thirds_c`` with ``_error``, ``_low``, ``_high``, ``_shift`` and its error
        (of a fitted edge), ``_chi2`` and ``_p_value``; ``dof``, ``n_sizes``; ``prediction_chi2`` and its
        p-value (not for medians); ``edge``, the theory's kind of edge. Over these and N: ``n_seeds``,
        ``coverage``, ``lambda_minus``, ``mean``, ``median`` and ``controlled`` with their errors,
        ``variance_ratio``, ``prediction``. nan where there is no value.

    Notes
    -----
    Applies below threshold. Alphas at or above
    :func:`bendscape.core.quadratic.finite_size.crossover.alpha_bbp_at_size` at the smallest size used
    (alpha_bbp, or alpha_0 where the transition is discontinuous) are ``not_applicable`` and have only means
    and medians. A size needs 6 seeds, a fit 2 degrees of freedom.

    Limits: both laws are leading orders. On sampled Hessians (``docs/analysis.md``): at a sharp edge the
    result is neither if sizes start at 64 or 128, because of corrections, and n_two_thirds if they start at
    256. Inside a smooth edge and below the crossover size, where the principal-value edge exists, the truth
    is neither: it is that edge, above lambda_minus, plus a term N^(-2/3). With sizes from 512 on the result
    is one_over_log, which then only means slower than N^(-2/3). The accuracy of the prediction is that of
    ``lowest_eigenvalue_law``; where the errors of the data are smaller, so is the p-value. Rates of right and
    wrong choices on planted data are held by ``tests/test_edge_scaling.py``. Source: this project's own.
    """
    of_labels = ["edge_sample", "outlier_sample"] if extra_draws else []
    ds = ANALYSIS.sweep(ds, also=of_labels)
    alpha_dim = alpha_axis(ds)
    statistic = statistic or ("controlled" if extra_draws else "mean")
    least_size = usual_least_size(ds) if least_size is None else least_size
    _check_options(statistic, least_size, extra_draws, wrong, misfit, level, seed)
    measured = ["status", "eigval_min", "lambda_minus"]
    measured += [name for name in ("alpha_realised", "coverage", "edge") if name in ds]
    measured += of_labels
    outputs = {
        name: number_output((alpha_dim, "N"), words, np.int64 if name == "n_seeds" else np.float64)
        for name, words in _AT_SIZE.items()
    }
    for name, words in _AT_ALPHA.items():
        dtype = np.int64 if name in ("n_sizes", "dof") else np.float64
        outputs[name] = number_output((alpha_dim,), words, dtype)
    if "edge" in ds:
        outputs["edge"] = Output((alpha_dim,), np.int8, dict(ds["edge"].attrs))
    outputs["law"] = code_output((alpha_dim,), "law of the approach to the edge", OUTCOMES)
    options: dict[str, Any] = {
        "statistic": statistic,
        "least_size": least_size,
        "extra_draws": extra_draws,
        "prediction": prediction,
        "free_edge": free_edge,
        "wrong": wrong,
        "misfit": misfit,
        "level": level,
        "seed": seed,
    }
    of_model = partial(_of_model, alpha_dim=alpha_dim, **options)
    found = map_models(ds, of_model, outputs, measured)
    found.attrs = {name: int(value) if isinstance(value, bool) else value for name, value in options.items()}
    found.attrs["name"] = ds.attrs.get("name", "")
    if free_edge:
        found.attrs["warning"] = FREE_EDGE_WARNING
    return found


def _check_options(
    statistic: str, least_size: int, extra_draws: int, wrong: float, misfit: float, level: float, seed: int
) -> None:
    if statistic not in get_args(Statistic):
        raise ParameterError("statistic", statistic, f"one of {', '.join(get_args(Statistic))}")
    if statistic == "controlled" and not extra_draws:
        raise ParameterError("extra_draws", 0, "positive for the statistic controlled", "8 will do")
    if least_size < 2:
        raise ParameterError("least_size", least_size, "an integer >= 2", "1/log N needs N above 1")
    for name, value in (("extra_draws", extra_draws), ("seed", seed)):
        if value < 0:
            raise ParameterError(name, value, "an integer >= 0")
    check_shares(wrong, misfit)
    check_level(level)


def _of_model(
    block: xr.Dataset, *, alpha_dim: str, least_size: int, **options: Any
) -> dict[str, npt.NDArray[Any]]:
    """The outputs of :func:`edge_scaling` for one model."""
    block = block.transpose(alpha_dim, "N", "seed")
    model, sizes = model_of(block), block["N"].values
    alpha, theory = block["alpha"].values.astype(np.float64), block["lambda_minus"].values
    realised = realised_alpha(block, alpha).T
    done = (block["status"].values == DONE) & np.isfinite(block["eigval_min"].values)
    measured = {name: cells for name, cells in block.items() if cells.ndim == 3}
    shape = (len(alpha), len(sizes))
    found: dict[str, npt.NDArray[Any]] = {name: np.full(shape, math.nan) for name in _AT_SIZE}
    found |= {name: np.full(shape[0], math.nan) for name in _AT_ALPHA}
    if "edge" in block:
        kinds = block["edge"].values.astype(np.float64)
        for place in np.flatnonzero(np.isnan(kinds)):  # masked together with its cells
            kinds[place] = EDGE_KINDS.index(left_edge(model, float(alpha[place])).kind)
        found["edge"] = kinds
    found["n_seeds"] = done.sum(axis=2)
    found["coverage"] = share_done(block, ("seed",)).values
    for name in ("n_sizes", "dof"):
        found[name] = np.zeros(shape[0], np.int64)
    outcomes = []
    large = sizes >= least_size
    seen = alpha_bbp_at_size(model, int(sizes[large].min())) if large.any() else math.nan
    for i, nominal in enumerate(alpha):
        below = not nominal >= seen
        error_dof, third = np.zeros((2, len(sizes)))
        for k in np.flatnonzero(done[i].any(axis=1)):
            load = float(realised[i, k])
            edge = theory[i] if load == nominal else left_edge(model, load).lambda_minus
            cells = {str(name): cell.values[i, k, done[i, k]] for name, cell in measured.items()}
            use = below and bool(large[k]) and len(cells["eigval_min"]) >= LEAST_SEEDS
            more, error_dof[k], third[k] = _statistics(cells, model, int(sizes[k]), load, use, **options)
            for name, number in ({"lambda_minus": edge} | more).items():
                found[name][i, k] = number
        at_size = {name: found[name][i] for name in _AT_SIZE}
        at_alpha, outcome = _fits(at_size, sizes, error_dof, third, **options)
        for name, number in at_alpha.items():
            found[name][i] = number
        outcomes.append(outcome if below else "not_applicable")
    return found | {"law": np.array([tuple(OUTCOMES).index(outcome) for outcome in outcomes], np.int8)}


def _statistics(
    cells: Mapping[str, Floats],
    model: Model,
    N: int,
    alpha: float,
    use: bool,
    *,
    statistic: Statistic,
    extra_draws: int,
    prediction: bool,
    seed: int,
    **_: Any,
) -> tuple[dict[str, float], int, float]:
    """Mean, median and, where useful, controlled mean and prediction at one (alpha, N); with the degrees of
    freedom of the statistic's error (0 if it cannot be used) and its third moment (0 if unknown)."""
    values = cells["eigval_min"]
    n = len(values)
    found = {"mean": float(values.mean()), "median": float(np.median(values))}
    if n > 1:
        found |= {"mean_error": mean_error(values), "median_error": median_error(values)}
    if not use:
        return found, 0, 0.0
    error_dof, third = n - 1, third_moment(values) if statistic == "mean" else 0.0
    if prediction:
        found["prediction"] = lowest_eigenvalue_law(model, alpha, N).mean
    if extra_draws:
        own = np.fmin(cells["edge_sample"], cells["outlier_sample"])
        known = np.isfinite(own)
        if known.sum() < LEAST_SEEDS:
            return found, 0 if statistic == "controlled" else error_dof, third
        identity = [int(model.p), model.p_star, int(np.float64(model.a).view(np.uint64))]
        rng = np.random.default_rng([seed, N, round(alpha * N), *identity])
        drawn = (sample_drawn_labels(model, alpha, N, rng) for _ in range(extra_draws * int(known.sum())))
        mean = controlled_mean(values[known], own[known], extra=label_controls(drawn)[:, 0])
        found |= {
            "controlled": mean.mean,
            "controlled_error": mean.error,
            "variance_ratio": mean.variance_ratio,
        }
        if statistic == "controlled":
            error_dof = mean.dof
            third = third_moment(values[known] - mean.coefficients[0] * own[known])
    return found, error_dof, third


def _fits(
    at_size: Mapping[str, Floats],
    sizes: npt.NDArray[np.int64],
    error_dof: Floats,
    third: Floats,
    *,
    statistic: Statistic,
    free_edge: bool,
    wrong: float,
    misfit: float,
    level: float,
    **_: Any,
) -> tuple[dict[str, float], str]:
    """The numbers of ``_AT_ALPHA`` and the outcome, from the statistics at all sizes."""
    use: Flags = (error_dof > 2) & (at_size[f"{statistic}_error"] > 0)
    n_sizes = int(use.sum())
    found: dict[str, float] = {"n_sizes": n_sizes, "dof": max(0, n_sizes - 1 - free_edge)}
    if not n_sizes:
        return found, "not_enough_data"
    N, n_seeds = sizes[use].astype(np.float64), at_size["n_seeds"][use].astype(np.float64)
    gap = (at_size[statistic] - at_size["lambda_minus"])[use]
    cells = Means(gap, at_size[f"{statistic}_error"][use] ** 2, third[use], error_dof[use])
    error = smooth_errors(N, n_seeds, cells)
    off = (at_size[statistic] - at_size["prediction"])[use] / error
    if statistic != "median" and np.isfinite(off).all():
        chi2 = float(off @ off)
        found |= {"prediction_chi2": chi2, "prediction_p_value": float(chdtrc(n_sizes, chi2))}
    if found["dof"] < LEAST_DOF:
        return found, "not_enough_data"
    fits: dict[str, LawFit] = {}
    for law in LAWS:
        parts = amplitude(law, N, n_seeds, cells, free_edge, level)
        own = {name: number for name, number in parts.items() if name in LawFit._fields}
        fits[law] = fit_law(law, N, gap, error, free_edge)._replace(**own)
        found |= {f"{law}_{part}": number for part, number in (fits[law]._asdict() | parts).items()}
    found["delta_chi2"] = fits["one_over_log"].chi2 - fits["n_two_thirds"].chi2
    return found, chosen_law(fits, wrong, misfit)


ANALYSIS = Analysis("edge_scaling", edge_scaling, ("status", "eigval_min", "lambda_minus"))
