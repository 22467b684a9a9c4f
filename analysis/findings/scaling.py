"""`bendscape scaling`: critical loads, the laws of the edge and the drift beyond the crossover size, as rows
and as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.models import MODEL
from bendscape.analysis.estimate.collapse_fits import FLAGS
from bendscape.analysis.estimate.notation import with_error
from bendscape.analysis.estimate.verdicts import Estimate, against_theory, expected_definition
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import transition_at

if TYPE_CHECKING:
    from rich.table import Table

LAWS = {
    "n_two_thirds": "N^(-2/3)",
    "one_over_log": "1/log N",
    "cannot_tell": "cannot tell",
    "neither": "neither",
}
"""Outcomes for the law of the edge that a table counts, by name."""

_DRIFT = (
    *(
        "alpha_bbp",
        "crossover_size",
        "K",
        "K_error",
        "K_low",
        "K_high",
        "K_systematic",
        "K_at_sizes",
        "K_theory",
    ),
    *("delta_chi2", "drift_p_value", "no_drift_p_value", "leading_order_error", "prediction_offset"),
)
_NUMBERS = {"alpha_c": "", "error": "_error", "systematic": "_systematic", "low": "_low", "high": "_high"}


def _models(result: xr.Dataset) -> Iterator[tuple[dict[str, Any], xr.Dataset]]:
    result = result.compute()  # once, if it is lazy
    for index in np.ndindex(*(result.sizes[name] for name in MODEL)):
        at = result.isel(dict(zip(MODEL, index, strict=True)))
        yield {name: at[name].item() for name in MODEL}, at


def _word(code: xr.DataArray) -> str:
    return str(code.attrs["flag_meanings"].split()[int(code.item())])


def load_rows(result: xr.Dataset) -> list[dict[str, Any]]:
    """Rows of the critical loads, one for each model and estimator, in the order of the axes.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`bendscape.analysis.estimate.collapse.collapse` returns.

    Returns
    -------
    list of dict
        ``p, p_star, a, transition`` (theory's kind), ``estimator, alpha_c, error`` (statistical),
        ``systematic, low, high, flag, reason`` (the flag in words), ``kind_from_data,
        probability_discontinuous, answer``, and ``definitions``: for each its theoretical value, the distance
        in total errors, and whether it is supported. ``against`` names the definition that sizes below the
        crossover show; ``verdict`` and ``verdict_reason`` compare with it
        (:func:`bendscape.analysis.estimate.verdicts.against_theory`); a flagged estimate gives no verdict.
        ``alpha_0`` is theory's, for a discontinuous transition in the definition of ``against``, else nan.
        Models without data are left out.
    """
    rows = []
    for point, at in _models(result):
        if not at["n_cells"].item():
            continue
        kind = transition_at(Model(point["p"], point["p_star"], point["a"])).kind
        for name in result["estimator"].values.tolist():
            one = at.sel(estimator=name)
            row: dict[str, Any] = {**point, "transition": kind, "estimator": name}
            row |= {key: one[f"alpha_c{part}"].item() for key, part in _NUMBERS.items()}
            row |= {key: _word(one[key]) for key in ("flag", "kind_from_data", "answer")}
            row["probability_discontinuous"] = one["probability_discontinuous"].item()
            row["definitions"] = {
                which: {
                    "theory": at[which].item(),
                    "distance": one["distance"].sel(definition=which).item(),
                    "verdict": _word(one["supported"].sel(definition=which)),
                }
                for which in result["definition"].values.tolist()
            }
            row["n_sizes"] = int(at["n_sizes"].item())
            row["reason"] = FLAGS[row["flag"]]
            row["against"] = expected_definition(
                kind, {which: at["theory"] for which, at in row["definitions"].items()}
            )
            known = row["definitions"][row["against"]]["theory"]
            row["alpha_0"] = math.nan if row["against"] == "alpha_bbp" else known
            bounds = (row["alpha_c"], row["low"], row["high"], float(result.attrs["level"]))
            verdict = against_theory(Estimate(*bounds, row["systematic"], row["flag"], row["reason"]), known)
            row |= {"verdict": verdict.words, "verdict_reason": verdict.reason}
            rows.append(row)
    return rows


def edge_rows(result: xr.Dataset) -> list[dict[str, Any]]:
    """Rows of the laws of the edge, one for each model and alpha below threshold with data.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`bendscape.analysis.estimate.edge_scaling.edge_scaling` returns.

    Returns
    -------
    list of dict
        ``p, p_star, a, alpha, law, reason`` (for the law, in words), ``delta_chi2, n_sizes, dof``, and
        for each law ``c, error, chi2, p_value``.
    """
    rows = []
    parts = {"c": "c", "error": "c_error", "chi2": "chi2", "p_value": "p_value"}
    laws = ("n_two_thirds", "one_over_log")
    words = result["law"].attrs["flag_meanings"].split()
    names = (
        "alpha",
        "law",
        "delta_chi2",
        "n_sizes",
        "dof",
        *(f"{a}_{b}" for a in laws for b in parts.values()),
    )
    for point, at in _models(result):
        columns = (at[name].values.tolist() for name in names)  # selecting a row of a dataset takes longer
        for values in zip(*columns, strict=True):
            one = dict(zip(names, values, strict=True))
            law = words[one["law"]]
            if law in ("not_applicable", "not_enough_data"):
                continue
            row = {**point, "alpha": one["alpha"], "law": law}
            row |= {name: one[name] for name in ("delta_chi2", "n_sizes", "dof")}
            for name in laws:
                row[name] = {key: one[f"{name}_{part}"] for key, part in parts.items()}
            row["reason"] = _reason_of_law(row, float(result.attrs["misfit"]))
            rows.append(row)
    return rows


def _reason_of_law(row: Mapping[str, Any], misfit: float) -> str:
    """Why a law of the edge was chosen, or none was, from the numbers of both fits."""
    both = {name: row[name] for name in ("n_two_thirds", "one_over_log")}
    fits = [LAWS[name] for name, fit in both.items() if fit["p_value"] >= misfit]
    if row["law"] in both:
        return f"chi2 is lower by {abs(row['delta_chi2']):.1f}"
    if row["law"] == "neither":
        if fits:
            return f"{' and '.join(fits)} would fit, but from below lambda_minus: a negative amplitude"
        return "both chi2 are too large"
    if len(fits) < len(both):
        return f"{' and '.join(fits)} alone fits, but chi2 differs by {abs(row['delta_chi2']):.1f} alone"
    return f"chi2 differs by {abs(row['delta_chi2']):.1f} alone"


def drift_rows(result: xr.Dataset) -> list[dict[str, Any]]:
    """Rows of the threshold seen beyond the crossover size, one for each model with such sizes.

    Parameters
    ----------
    result : xarray.Dataset
        What :func:`bendscape.analysis.estimate.drift.drift` returns, computed.

    Returns
    -------
    list of dict
        ``p, p_star, a, alpha_bbp`` (theory's), ``crossover_size, law, n_sizes, K`` with ``K_low, K_high,
        K_systematic, K_at_sizes, K_theory``, ``delta_chi2``, p-values, ``leading_order_error``,
        ``prediction_offset``, and ``sizes``: for each size beyond the crossover with data its ``N,
        alpha_seen, error, systematic, low, high, alpha_bbp_at_size, flag``. Continuous transitions, and
        models measured only below their crossover size, are left out.
    """
    rows = []
    for point, at in _models(result):
        sizes: list[dict[str, Any]] = []
        for N in at["N"].values.tolist():
            one = at.sel(N=N)
            flag = _word(one["flag"])
            if flag in ("not_applicable", "below_the_crossover") or not one["n_seeds"].item():
                continue
            sizes.append({"N": N, "alpha_seen": one["alpha_seen"].item()})
            sizes[-1] |= {
                part: one[f"alpha_seen_{part}"].item() for part in ("error", "systematic", "low", "high")
            }
            sizes[-1] |= {"alpha_bbp_at_size": one["alpha_bbp_at_size"].item(), "flag": flag}
        if sizes:
            row = {**point, "law": _word(at["law"]), "n_sizes": at["n_sizes"].item()}
            rows.append(row | {name: at[name].item() for name in _DRIFT} | {"sizes": sizes})
    return rows


def render_loads(rows: list[dict[str, Any]]) -> Table:
    """The critical loads for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="Critical loads from all sizes",
        caption="(digits) statistical and systematic error together; alpha_bbp and alpha_0 are theory's, "
        "alpha_0 the principal value or, where that branch has no zero, the complex one; verdict: alpha_c "
        "against alpha_bbp of a continuous transition, and against alpha_0 of a discontinuous one, whose "
        "alpha_bbp no size within reach shows; kind, data: from where alpha_c lies beside theory's alpha_bbp",
        caption_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False,
    )  # fmt: skip
    for name in (
        "p",
        "p*",
        "a",
        "kind",
        "estimator",
        "alpha_c",
        "alpha_bbp",
        "alpha_0",
        "verdict",
        "kind, data",
        "flag",
    ):
        table.add_column(name)
    for row in rows:
        total = (row["error"] ** 2 + row["systematic"] ** 2) ** 0.5
        loads = (row["definitions"]["alpha_bbp"]["theory"], row["alpha_0"])
        table.add_row(
            str(row["p"]), str(row["p_star"]), f"{row['a']:g}", row["transition"][:4] + ".", row["estimator"],
            with_error(row["alpha_c"], total) if row["alpha_c"] == row["alpha_c"] else "–",
            *(f"{load:.4f}" if math.isfinite(load) else "" for load in loads),
            row["verdict"], row["kind_from_data"].replace("_", " "), row["flag"].replace("_", " "),
        )  # fmt: skip
    return table


def render_edges(rows: list[dict[str, Any]]) -> Table:
    """The laws of the edge for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(title="Lowest eigenvalue against N, below threshold", box=box.SIMPLE_HEAD, padding=0)
    for name in (
        "p",
        "p*",
        "a",
        "alpha",
        "sizes",
        "law",
        "chi2, N^(-2/3)",
        "chi2, 1/log N",
        "dof",
        "why",
    ):
        table.add_column(name)
    for row in rows:
        table.add_row(
            str(row["p"]), str(row["p_star"]), f"{row['a']:g}", f"{row['alpha']:.4f}",
            str(int(row["n_sizes"])), LAWS[row["law"]],
            *(f"{row[name]['chi2']:.1f}" for name in ("n_two_thirds", "one_over_log")), f"{row['dof']:g}",
            row["reason"],
        )  # fmt: skip
    return table


def render_drift(rows: list[dict[str, Any]]) -> Table:
    """The threshold seen beyond the crossover size, for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="Threshold seen beyond the crossover size",
        caption="(digits) statistical and systematic error together; drift: alpha_bbp - K/log N, alpha_bbp "
        "from theory, which no size within reach shows; K theory: of alpha_bbp(N) at the same sizes",
        caption_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False,
    )  # fmt: skip
    for name in ("p", "p*", "a", "alpha_bbp", "N", "alpha_seen", "alpha_bbp(N)", "law", "K", "K theory"):
        table.add_column(name)
    for row in rows:
        head = [str(row["p"]), str(row["p_star"]), f"{row['a']:g}", f"{row['alpha_bbp']:.4f}"]
        error = row["K_error"] ** 2 + row["K_systematic"] ** 2
        fitted = row["K"] == row["K"]
        tail = [row["law"], with_error(row["K"], error**0.5) if fitted else "", f"{row['K_at_sizes']:.2f}"]
        for size in row["sizes"]:
            total = (size["error"] ** 2 + np.nan_to_num(size["systematic"]) ** 2) ** 0.5
            value = size["alpha_seen"]
            seen = with_error(value, total) if value == value else size["flag"].replace("_", " ")
            table.add_row(
                *head, f"{size['N']:g}", seen, f"{size['alpha_bbp_at_size']:.4f}", *tail[: 3 if fitted else 1]
            )
            head, tail = [""] * 4, [""] * 3
    return table
