"""Thresholds with error bars, at each size, from a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from bendscape.analysis.dataset.analyses import Analysis
from bendscape.analysis.dataset.counts import DONE, share_done
from bendscape.analysis.dataset.models import (
    alpha_axis,
    code_output,
    map_models,
    model_of,
    number_output,
)
from bendscape.analysis.estimate.critical import SAFE, critical_point
from bendscape.analysis.estimate.estimators import (
    ESTIMATORS,
    FLAGS,
    MEASURED,
    SHORT_NAMES,
    cells_by_size,
    crossings,
    flag_code,
)
from bendscape.analysis.estimate.notation import compact
from bendscape.analysis.estimate.options import check_level
from bendscape.analysis.estimate.systematic import systematic_errors
from bendscape.analysis.estimate.verdicts import NOT_ENOUGH_DATA, Estimate, against_theory
from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size, crossover_size
from bendscape.core.quadratic.model import TRANSITION_KINDS, Model

if TYPE_CHECKING:
    from rich.table import Table

_PARTS = {
    "": "estimate",
    "_error": "standard error",
    "_low": "lower end of the interval",
    "_high": "upper end of the interval",
    "_first": "first alpha it was looked for at",
    "_last": "last alpha it was looked for at",
}


def thresholds(ds: xr.Dataset, *, level: float = 0.95) -> xr.Dataset:
    """Measured thresholds of every model and every size of a sweep, with intervals.

    With <.> the mean over the seeds that are done, smoothed over alpha by local parabolas of half width
    1.5 width N^(-1/3), each estimator is the sign change from negative to positive of a curve:

    - alpha_overlap, of N^(1/3) <overlap_sq_space> - overlap_level;
    - alpha_pair, of the same curve N^(1/3) <overlap_sq_space> at the next size with data, minus the one here;
    - alpha_gap, of lambda_minus - <eigval_min>;
    - alpha_gap_sample, of <edge_sample - eigval_min>.

    The abscissa at every size is the mean of alpha_realised = M / N, and lambda_minus is taken there. Without
    alpha_realised in the dataset, alpha is used: at N = 16 the two differ by up to 0.03.

    width and overlap_level are from :func:`bendscape.analysis.estimate.critical.critical_point`, the sign
    change from :func:`bendscape.analysis.dataset.curves.sign_change`. The interval holds the loads at which
    the curve could vanish according to a t test with the variance and the skewness of the cells at each alpha
    (:func:`bendscape.analysis.estimate.crossings.crossing`).

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not; read in
        one pass of :func:`bendscape.analysis.dataset.models.map_models` when the result is computed.
    level : float
        Level of the intervals, in (0, 1).

    Returns
    -------
    xarray.Dataset
        Lazy if ``ds`` is. Over (p, p_star, a, N), for each name in ``ESTIMATORS``: ``name``, the estimate;
        ``name_error``, half the width of its interval at 68 %; ``name_low`` and ``name_high``, its interval;
        ``name_flag``, int8 with the meanings in its attributes; ``name_first`` and ``name_last``, the alphas
        between which it was searched (those with data at this size; for alpha_pair, at both sizes). Without
        an estimate the numbers are nan and the flag gives the reason; an end of an interval that these alphas
        do not determine is nan too. Also ``n_seeds`` (most seeds done at one alpha), ``n_cells`` (cells
        done), ``coverage`` (cells done over cells wanted), and from theory ``alpha_bbp``, ``transition`` and
        ``alpha_bbp_at_size``, the threshold expected to be seen at each N.

    Notes
    -----
    Limits: at least 4 alphas with 4 seeds each; cells at different alphas and seeds are independent, as the
    engine's are; the error is that of the seeds, without the bias from smoothing and finite size. On
    sampled Hessians with p = p_star = 1 and N = 128 to 1024, alpha_overlap was within 5 % of alpha_bbp
    (a = 0.7) and of alpha_0 (a = 1.5), while both gaps were 35 to 60 % above alpha_bbp at N = 128 and, at
    N = 1024, still 10 to 15 % (a = 0.7) and up to 7 % (a = 1.5). With p = 2 (a = 0.7, and p_star = 2,
    a = 0.5) alpha_overlap was 6 to 9 % low at N = 64 and within 5 % from N = 128 on. The coverage of the
    intervals on planted data is in docs/analysis.md and held by ``tests/test_intervals.py``. Source: this
    project's own estimators, on the scaling law of arXiv:2604.27992.
    """
    ds = ANALYSIS.sweep(ds)
    alpha_dim = alpha_axis(ds)
    check_level(level)
    of_model = partial(_of_model, alpha_dim=alpha_dim, level=level)
    measured = [*MEASURED, "lambda_minus", *(name for name in ("alpha_realised", "coverage") if name in ds)]
    outputs = {
        name: number_output(("N",), words, np.int64 if name.startswith("n_") else np.float64)
        for name, words in _LONG_NAMES.items()
    }
    for name, definition in ESTIMATORS.items():
        outputs[name].attrs["definition"] = definition
        outputs[f"{name}_flag"] = code_output(("N",), "outcome of the estimate", FLAGS)
    found = map_models(ds, of_model, outputs, measured)
    theory = ds[["alpha_bbp", "transition"]].reset_coords(drop=True)
    out = theory.merge(found.reset_coords(drop=True))
    out.attrs = {"level": level, "name": ds.attrs.get("name", "")}
    return out


def _of_model(block: xr.Dataset, *, alpha_dim: str, level: float) -> dict[str, npt.NDArray[Any]]:
    """The outputs of :func:`thresholds` for one model, over N."""
    block = block.transpose(alpha_dim, "N", "seed")
    model, sizes = model_of(block), block["N"].values
    cells = cells_by_size(block, block["alpha"].values.astype(np.float64), model)
    overlap_level = critical_point(model).overlap_level
    done = block["status"].values == DONE
    found: dict[str, Any] = {
        "alpha_bbp_at_size": [alpha_bbp_at_size(model, int(N)) for N in sizes],
        "n_seeds": done.sum(axis=2).max(axis=0),
        "n_cells": done.sum(axis=(0, 2)),
        "coverage": share_done(block, (alpha_dim, "seed")).values,
        "alpha_overlap_systematic": systematic_errors(block, model),
    }
    for k in range(len(sizes)):
        for name, at in zip(ESTIMATORS, crossings(cells, k, overlap_level, level), strict=True):
            flag, *numbers = at
            for part, number in zip(_PARTS, numbers, strict=True):
                found.setdefault(f"{name}{part}", []).append(number)
            found.setdefault(f"{name}_flag", []).append(flag_code(flag))
    return {name: np.asarray(values) for name, values in found.items()}


_LONG_NAMES = {
    "alpha_bbp_at_size": "threshold seen at size N, theory",
    "n_seeds": "most seeds done at one alpha",
    "n_cells": "cells done",
    "coverage": "cells done over cells wanted, all alphas",
    "alpha_overlap_systematic": "overlap level: error from the spacing of the alphas and from small N",
} | {
    f"{name}{part}": f"{SHORT_NAMES[name]}: {words}" for name in ESTIMATORS for part, words in _PARTS.items()
}


def thresholds_table(result: xr.Dataset) -> list[dict[str, Any]]:
    """Rows of the table of thresholds, one for each model and size, in the order of the axes.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`thresholds` returns.

    Returns
    -------
    list of dict
        ``p, p_star, a, transition, alpha_bbp, N, n_seeds, n_cells, alpha_bbp_at_size`` and for each name in
        ``ESTIMATORS`` a dict of ``value, error, low, high`` (nan where there is none), ``first, last`` (the
        alphas between which it was searched), ``flag`` (its name) and ``reason`` (in words);
        ``systematic``, the error of alpha_overlap from the spacing of the alphas and from small N;
        ``verdict`` and ``verdict_reason`` from
        :func:`bendscape.analysis.estimate.verdicts.against_theory`, alpha_overlap against alpha_bbp_at_size.
        Models without a finished cell are left out.
    """
    rows: list[dict[str, Any]] = []
    values = {str(name): variable.values for name, variable in result.compute().variables.items()}
    for index in np.ndindex(*values["n_cells"].shape):
        i, j, k, n = index
        if not values["n_cells"][i, j, k].any():
            continue
        row: dict[str, Any] = {
            "p": int(values["p"][i]),
            "p_star": int(values["p_star"][j]),
            "a": float(values["a"][k]),
        }
        row["transition"] = TRANSITION_KINDS[int(values["transition"][i, j, k])]
        row |= {"alpha_bbp": float(values["alpha_bbp"][i, j, k]), "N": int(values["N"][n])}
        row |= {name: int(values[name][index]) for name in ("n_seeds", "n_cells")}
        row["alpha_bbp_at_size"] = float(values["alpha_bbp_at_size"][index])
        for name in ESTIMATORS:
            flag = tuple(FLAGS)[int(values[f"{name}_flag"][index])]
            row[name] = {
                part.removeprefix("_") or "value": float(values[f"{name}{part}"][index]) for part in _PARTS
            }
            row[name] |= {"flag": flag, "reason": FLAGS[flag]}
        row["systematic"] = float(values["alpha_overlap_systematic"][index])
        row |= _verdict(row, float(result.attrs["level"]))
        rows.append(row)
    return rows


def _verdict(row: Mapping[str, Any], level: float) -> dict[str, str]:
    """How alpha_overlap at one size compares with the threshold that theory expects there, and why."""
    model, at = Model(row["p"], row["p_star"], row["a"]), row["alpha_overlap"]
    if at["flag"] == "estimated" and row["N"] > crossover_size(model) / SAFE:
        beyond = "N lies beyond a tenth of the crossover size, where the overlap level no longer holds"
        return {"verdict": NOT_ENOUGH_DATA, "verdict_reason": beyond}
    bounds = at["value"], at["low"], at["high"], level
    estimate = Estimate(*bounds, row["systematic"], at["flag"], at["reason"])
    found = against_theory(estimate, row["alpha_bbp_at_size"])
    return {"verdict": found.words, "verdict_reason": found.reason}


def render_thresholds(result: xr.Dataset) -> Table:
    """The table of thresholds for a terminal of 100 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(f"Thresholds {result.attrs['name']}".strip()),
        caption="(digits) standard error of the last digits; * the interval at "
        f"{100 * float(result.attrs['level']):g} % leaves the alphas measured; > < no crossing between them; "
        "– no estimate. theory at N: the threshold expected to be seen at this size; verdict: the overlap "
        "level against it, sigma the statistical error with that of the spacing of alphas and of small N. "
        "cont., disc.: kind of transition.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    for name in ("p", "p*", "a"):
        table.add_column(name, justify="right")
    table.add_column("kind")
    for name in ("alpha_bbp", "N", "seeds", "theory\nat N"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in SHORT_NAMES.values():
        header = name.replace(", ", ",\n") if "," in name else name.replace(" ", "\n")
        table.add_column(header, justify="right", min_width=10, no_wrap=True)
    table.add_column("verdict")
    before: tuple[Any, ...] = ()
    for row in thresholds_table(result):
        point = (row["p"], row["p_star"], row["a"])
        head = ["", "", "", "", ""]
        if point != before:
            table.add_section()
            kind = row["transition"][:4] + "."
            head = [str(row["p"]), str(row["p_star"]), f"{row['a']:g}", kind, f"{row['alpha_bbp']:.6f}"]
        cells = [compact(row[name]) for name in ESTIMATORS]
        table.add_row(
            *head,
            str(row["N"]),
            str(row["n_seeds"]),
            f"{row['alpha_bbp_at_size']:.4f}",
            *cells,
            row["verdict"],
        )
        before = point
    return table


ANALYSIS = Analysis("thresholds", thresholds, (*MEASURED, "lambda_minus", "alpha_bbp", "transition"))
