"""The approach of the lowest eigenvalue to the edge of the bulk below threshold, on logarithmic axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bendscape.analysis.dataset.models import MODEL
from bendscape.analysis.estimate.edge_fits import LAWS, LEAST_SEEDS, OUTCOMES
from bendscape.analysis.estimate.laws import lowest_eigenvalue_law
from bendscape.analysis.figures.style import (
    DASHED,
    DOTTED,
    INK,
    MARKERS,
    draw_points,
    model_rows,
    model_title,
    panels_in_rows,
    plain_logarithmic,
    shared_legend,
    size_colours,
    style,
)
from bendscape.analysis.figures.tables import Numbers, few, groups, left_out, rows_where, table
from bendscape.analysis.findings.panels import Panel
from bendscape.analysis.findings.results import Results
from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size
from bendscape.core.quadratic.model import EDGE_KINDS, Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOADS = (0.55, 0.85)
"""The alphas shown: those of the campaign nearest to these fractions of the threshold that the smallest
fitted size shows."""

LEAST_SIZES = 2
_TICKS = 5
_SHORT = {"n_two_thirds": r"$N^{-2/3}$", "one_over_log": r"$1/\log N$"}


def edge_numbers(results: Results) -> Numbers:
    """``edge``: <eigval_min> - lambda_minus at two alphas below threshold of every model, with both laws
    fitted by :func:`bendscape.analysis.estimate.edge_scaling.edge_scaling`, the law that the data support,
    and the prediction without a free parameter. Alphas with fewer than two positive gaps are left out, as
    logarithmic axes show only positive ones."""
    least = results.least_size
    blocks = [
        block
        for panel in results.panels
        if panel.measured["eigval_min"].n_seeds.any(axis=1).sum() >= LEAST_SIZES
        for i in _loads(panel, least)
        for block in [_block(results, panel, i, least)]
        if (block["gap"] > 0).sum() >= LEAST_SIZES
    ]
    if not blocks:
        raise left_out(
            "edge", f"no model has {LEAST_SIZES} sizes with a positive gap at an alpha below its threshold"
        )
    return {"edge": table(blocks)}


def _loads(panel: Panel, least_size: int) -> list[int]:
    """Indices of the alphas shown."""
    seen = alpha_bbp_at_size(Model(panel.p, panel.p_star, panel.a), least_size)
    below = np.flatnonzero(panel.alpha < seen)
    if not len(below):
        return []
    return list(dict.fromkeys(int(below[abs(panel.alpha[below] - part * seen).argmin()]) for part in LOADS))


def _block(results: Results, panel: Panel, i: int, least_size: int) -> dict[str, Any]:
    model = Model(panel.p, panel.p_star, panel.a)
    at = results["edge_scaling"].sel(p=panel.p, p_star=panel.p_star, a=panel.a).isel({results.alpha_dim: i})
    at = at.sel(N=at["n_seeds"] > 0)
    fitted = ((at["N"] >= least_size) & (at["n_seeds"] >= LEAST_SEEDS)).values
    loads = panel.alpha_realised[np.isin(panel.N, at["N"]), i]
    prediction = [
        lowest_eigenvalue_law(model, float(load), int(N)).mean if use else math.nan
        for N, load, use in zip(at["N"].values, loads, fitted, strict=True)
    ]
    block: dict[str, Any] = {
        "p": panel.p,
        "p_star": panel.p_star,
        "a": panel.a,
        "transition": panel.transition,
        "alpha_bbp": panel.alpha_bbp,
        "alpha": float(panel.alpha[i]),
        "edge": EDGE_KINDS[int(at["edge"])] if "edge" in at else "",
        "law": tuple(OUTCOMES)[int(at["law"])],
        "N": at["N"].values,
        "n_seeds": at["n_seeds"].values,
        "fitted": fitted,
        "gap": (at["mean"] - at["lambda_minus"]).values,
        "gap_error": at["mean_error"].values,
        "gap_prediction": np.array(prediction) - at["lambda_minus"].values,
    }
    for law in LAWS:
        block |= {f"{law}_{part}": float(at[f"{law}_{part}"]) for part in ("c", "p_value")}
    return block


def draw_edge(numbers: Numbers) -> Figure:
    """Points: <eigval_min> - lambda_minus with its standard error; a bar that reaches 0 extends down to the
    axis. Lines: c N^(-2/3) (dashed) and c / log N (dotted) as fitted, and the prediction without a free
    parameter (full). The law that the data support is written at each alpha."""
    from matplotlib.lines import Line2D

    (found,) = numbers.values()
    models = groups(numbers, MODEL)
    kinds = {tuple(head): kind for *head, kind in groups(numbers, (*MODEL, "transition"))}
    with style():
        figure, at = panels_in_rows(model_rows(models, kinds))
        for model, axes in at.items():
            rows = rows_where(found, **dict(zip(MODEL, model, strict=True)))
            axes.set_xscale("log")
            axes.set_yscale("log", nonpositive="clip")
            loads = list(dict.fromkeys(rows["alpha"].tolist()))
            for k, (load, colour) in enumerate(zip(loads, size_colours(len(loads)), strict=True)):
                keep = rows["alpha"] == load
                _draw_load(axes, {name: values[keep] for name, values in rows.items()}, colour, MARKERS[k])
            axes.set_title(model_title(*model, after=f": {kinds[model]}"))
            axes.set_xlabel("dimension  $N$")
            axes.set_ylabel(r"$\langle\lambda_{\min}\rangle - \lambda_-$")
            axes.set_ylim(*_limits(rows))
            plain_logarithmic(axes.xaxis, few(np.unique(rows["N"]).tolist(), _TICKS))
            plain_logarithmic(axes.yaxis)
            axes.legend(loc="upper right", fontsize=7, handletextpad=0.3)
        looks: dict[str, tuple[float, Any]] = {"prediction, nothing fitted": (0, None)}
        looks |= {r"$c\,N^{-2/3}$": DASHED, r"$c\,/\log N$": DOTTED}
        lines = {words: Line2D([], [], color=INK, linestyle=dashes) for words, dashes in looks.items()}
        shared_legend(figure, [], lines)
        return figure


def _limits(rows: dict[str, Any]) -> tuple[float, float]:
    """Range of the axis: all points and predictions, bars where they end above 0, and room for the legend.

    Bars that extend to 0, or below half the smallest point, are cut at the lower end of the panel."""
    gap, error = rows["gap"], np.nan_to_num(rows["gap_error"])
    shown = np.concatenate([gap, rows["gap_prediction"]])
    least, upper = shown[shown > 0].min(), np.nanmax(np.append(shown, (gap + error)[gap > 0]))
    lower = (gap - error)[gap > error]
    low = 0.8 * max(least / 2, min(least, *lower)) if len(lower) else 0.4 * least
    return float(low), float(upper * (upper / low) ** 0.3)


def _draw_load(axes: Any, rows: dict[str, Any], colour: Any, marker: str) -> None:
    N, gap = rows["N"].astype(np.float64), rows["gap"]
    law, edge = rows["law"][0], rows["edge"][0]
    words = _SHORT.get(law, law.replace("_", " "))
    label = rf"$\alpha = {rows['alpha'][0]:.3g}$" + (f", {edge} edge" if edge else "") + f": {words}"
    # Negative values have no logarithm; they are only in the numbers.
    look = {"color": colour, "marker": marker, "label": label}
    draw_points(axes, N, np.where(gap > 0, gap, np.nan), rows["gap_error"], look)
    prediction = rows["gap_prediction"]
    axes.plot(N, np.where(prediction > 0, prediction, np.nan), color=colour, linewidth=1.1, zorder=2)
    fitted = N[rows["fitted"]]
    line = np.geomspace(fitted.min(), fitted.max(), 40) if len(fitted) else fitted
    for name, dashes in (("n_two_thirds", DASHED), ("one_over_log", DOTTED)):
        c = rows[f"{name}_c"][0]
        if c > 0:
            axes.plot(line, c * LAWS[name](line), color=colour, linestyle=dashes, linewidth=0.9, zorder=1)
