"""Thresholds against the student's width, and the (p, a) diagram of kinds: measurements on top of theory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.models import MODEL
from bendscape.analysis.estimate.verdicts import preferred_estimator
from bendscape.analysis.figures.style import (
    DASHED,
    FAINT,
    INK,
    THRESHOLD,
    columns_of,
    draw_points,
    panels_in_rows,
    shared_legend,
    style,
)
from bendscape.analysis.figures.tables import Numbers, groups, left_out, rows_where, table
from bendscape.analysis.figures.theory_map import draw_phase, phase_handles, theory_map
from bendscape.analysis.findings.results import Results
from bendscape.core.quadratic.model import TRANSITION_KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDEST = 16
"""Theory is shown at least up to this width of the student."""

SHOWN = ("collapse", "theory_curve")
"""Estimators whose critical loads are shown."""

_GRID = 49  # number of values of a in the diagram
_BEYOND = 2.5  # factor by which the diagram extends beyond the measured a
_THEORY = ("alpha_bbp", "alpha_0_principal_value", "alpha_0_complex_re", "alpha_0_complex_im")
_ESTIMATES = {"collapse": ("o", "measured: collapse"), "theory_curve": ("D", "measured: theory's curve")}
_NUMBER = "number: probability of a jump"
_KINDS = {
    "continuous": ("o", INK, "continuous"),
    "discontinuous": ("s", THRESHOLD, "discontinuous"),
    "cannot_tell": ("D", "white", "cannot tell"),
    "neither": ("X", FAINT, "neither"),
    "no_estimate": (".", FAINT, "no estimate"),
}


def thresholds_numbers(results: Results) -> Numbers:
    """``thresholds``: the critical load alpha_c of every model by two estimators of
    :func:`bendscape.analysis.estimate.collapse.collapse`. ``thresholds-theory``: alpha_bbp and alpha_0 for p
    from 1 to ``WIDEST``, or to the widest of the sweep, and for p = inf, where it is p_star (a + 1)/2."""
    found = table_of_loads(results["collapse"], "thresholds")
    axes = [np.unique(found[name].values).tolist() for name in ("p_star", "a")]
    theory = theory_map(p=[*_widths(found), math.inf], p_star=axes[0], a=axes[1], alpha_0=True)
    kinds = np.array(TRANSITION_KINDS)[theory["transition"].values]
    grid = {name: values.ravel() for name, values in _mesh(theory).items()}
    columns = {name: theory[name].values.ravel() for name in _THEORY}
    return {"thresholds": found, "thresholds-theory": table([grid | {"transition": kinds.ravel()} | columns])}


def kinds_numbers(results: Results) -> Numbers:
    """``kinds``: the kind of every model's transition according to the data, with its probability, by
    :func:`bendscape.analysis.estimate.verdicts.preferred_estimator`. ``kinds-theory``: the kind, alpha_bbp
    and the tricritical a, over a grid of p and a around the models."""
    found = table_of_loads(results["collapse"], "kinds")
    found = found.isel(row=_best_rows(found))
    a = np.unique(found["a"].values)
    grid_a = np.geomspace(a.min() / _BEYOND, a.max() * _BEYOND, _GRID).tolist()
    p_star = np.unique(found["p_star"].values).tolist()
    theory = theory_map(p=list(map(float, _widths(found))), p_star=p_star, a=grid_a, alpha_0=False)
    kinds = np.array(TRANSITION_KINDS)[theory["transition"].values]
    columns = {"transition": kinds, "alpha_bbp": theory["alpha_bbp"].values}
    columns["a_tricritical"] = np.broadcast_to(theory["a_tricritical"].values[:, :, None], kinds.shape)
    flat = {name: values.ravel() for name, values in (_mesh(theory) | columns).items()}
    return {"kinds": found, "kinds-theory": table([flat])}


def _best_rows(found: xr.Dataset) -> list[int]:
    """For every model the row of its preferred estimator, or its only row."""
    places: dict[Any, dict[str, int]] = {}
    for k, (*model, estimator) in enumerate(
        zip(*(found[name].values for name in (*MODEL, "estimator")), strict=True)
    ):
        places.setdefault(tuple(model), {})[str(estimator)] = k
    flags = found["flag"].values
    best = []
    for rows in places.values():
        name = preferred_estimator({estimator: str(flags[k]) for estimator, k in rows.items()})
        best.append(rows.get(name, min(rows.values())))
    return best


def _mesh(theory: xr.Dataset) -> dict[str, Any]:
    axes = ("p", "p_star", "a")
    return dict(zip(axes, np.meshgrid(*(theory[name].values for name in axes), indexing="ij"), strict=True))


def _widths(found: xr.Dataset) -> Sequence[int]:
    return range(1, max(WIDEST, int(found["p"].values.max())) + 1)


def table_of_loads(loads: xr.Dataset, figure: str) -> xr.Dataset:
    """The finite critical loads of :func:`bendscape.analysis.estimate.collapse.collapse`, one row for each
    model and estimator; the figure is left out if there are none."""
    meanings = {name: loads[name].attrs["flag_meanings"].split() for name in ("flag", "kind_from_data")}
    blocks, flags = [], set()
    for model in np.ndindex(*(loads.sizes[dim] for dim in ("p", "p_star", "a"))):
        at_model = loads.isel(dict(zip(("p", "p_star", "a"), model, strict=True)))
        for name in SHOWN:
            at = at_model.sel(estimator=name)
            flag = meanings["flag"][int(at["flag"])]
            if int(at["n_cells"]):
                flags.add(flag)
            if not math.isfinite(at["alpha_c"].item()):
                continue
            numbers = (
                "alpha_c",
                "alpha_c_error",
                "alpha_c_total_error",
                "alpha_bbp",
                "probability_discontinuous",
            )
            blocks.append(
                {dim: at[dim].item() for dim in ("p", "p_star", "a")}
                | {"estimator": name, "transition": TRANSITION_KINDS[int(at["transition"])], "flag": flag}
                | {column: at[column].item() for column in numbers}
                | {"kind_from_data": meanings["kind_from_data"][int(at["kind_from_data"])]}
            )
    if not blocks:
        why = ", ".join(sorted(flags)).replace("_", " ") or "no cells"
        raise left_out(figure, f"no critical load from the collapse of sizes yet: {why}")
    return table(blocks)


def draw_thresholds(numbers: Numbers) -> Figure:
    """Lines with dots: alpha_bbp at every p, and alpha_0 where the transition is discontinuous (principal
    value; crosses: the complex one, where the other does not exist). Horizontal: alpha_bbp at p = inf.
    Points: measured critical loads with their total errors; open where the fit is flagged."""
    measured, theory = numbers.values()
    keys = groups(numbers, ("p_star", "a"))
    columns = columns_of(len(keys))
    with style():
        figure, at = panels_in_rows([keys[start : start + columns] for start in range(0, len(keys), columns)])
        for (p_star, a), axes in at.items():
            points, lines = rows_where(measured, p_star=p_star, a=a), rows_where(theory, p_star=p_star, a=a)
            seen = lines["p"] >= min(p_star, points["p"].min())  # narrower students would set the scale
            _draw_theory(axes, {name: values[seen] for name, values in lines.items()})
            for shift, (name, (marker, words)) in zip((0.96, 1.04), _ESTIMATES.items(), strict=True):
                for sound in (True, False):
                    keep = (points["estimator"] == name) & ((points["flag"] == "estimated") == sound)
                    look = {"color": "#2f6db3" if name == "collapse" else "#5e3c99", "marker": marker}
                    look |= {"label": words} if sound else {"markerfacecolor": "white", "label": "flagged"}
                    p, alpha_c, error = (
                        points[column][keep] for column in ("p", "alpha_c", "alpha_c_total_error")
                    )
                    draw_points(axes, shift * p, alpha_c, error, look | {"markersize": 4.2, "zorder": 5})
            axes.set_title(f"$p^* = {p_star}$, $a = {a:g}$")
            axes.set_xlabel("student width  $p$")
            axes.set_ylabel(r"critical load  $\alpha$")
        shared_legend(figure, at.values())
        return figure


def _draw_theory(axes: Any, rows: dict[str, Any]) -> None:
    finite = np.isfinite(rows["p"])
    (limit,) = rows["alpha_bbp"][~finite]
    rows = {name: values[finite] for name, values in rows.items()}
    p = rows["p"]
    axes.plot(
        p, rows["alpha_bbp"], "-o", color=THRESHOLD, markersize=2, linewidth=1.1, label=r"$\alpha_{\rm BBP}$"
    )
    sharp = rows["transition"] == "continuous"
    alpha_0 = np.where(sharp, np.nan, rows["alpha_0_principal_value"])
    if np.isfinite(alpha_0).any():
        label = r"$\alpha_0$, principal value"
        axes.plot(
            p, alpha_0, color=INK, linestyle=DASHED, marker="o", markersize=2, linewidth=0.9, label=label
        )
    complex_one = np.where(sharp | np.isfinite(alpha_0), np.nan, rows["alpha_0_complex_re"])
    complex_one = np.where(rows["alpha_0_complex_im"] < complex_one, complex_one, np.nan)
    if np.isfinite(complex_one).any():
        axes.plot(p, complex_one, "x", color=INK, markersize=3, label=r"$\alpha_0$, complex")
    axes.axhline(limit, color=FAINT, linewidth=0.9, label=r"$\alpha_{\rm BBP}$ at $p = \infty$")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")


def draw_kinds(numbers: Numbers) -> Figure:
    """Theory: grey where discontinuous, above the tricritical line; contours of alpha_bbp. Points: the kind
    according to the data, with the probability of a discontinuous transition."""
    from matplotlib.lines import Line2D

    measured, theory = numbers.values()
    keys = groups(numbers, ("p_star",))
    columns = columns_of(len(keys))
    with style():
        figure, at = panels_in_rows([keys[start : start + columns] for start in range(0, len(keys), columns)])
        for (p_star,), axes in at.items():
            draw_phase(axes, _grid(rows_where(theory, p_star=p_star)))
            points = rows_where(measured, p_star=p_star)
            for name, (marker, colour, words) in _KINDS.items():
                keep = points["kind_from_data"] == name
                if keep.any():
                    axes.plot(
                        points["p"][keep], points["a"][keep], marker, color=colour, markeredgecolor=INK,
                        markersize=5.5, linestyle="none", label=f"measured: {words}", zorder=6, clip_on=False,
                    )  # fmt: skip
            for p, a, odds in zip(*(points[c] for c in ("p", "a", "probability_discontinuous")), strict=True):
                axes.annotate(
                    _probability(odds), (p, a), (6, 5), textcoords="offset points", va="center",
                    fontsize=6.5, zorder=7, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                )  # fmt: skip
            axes.set_title(f"$p^* = {p_star}$")
        handles = [*phase_handles(alpha_0=False), Line2D([], [], linestyle="none", label=_NUMBER)]
        shared_legend(figure, at.values(), {str(each.get_label()): each for each in handles})
        return figure


def _grid(rows: dict[str, Any]) -> xr.Dataset:
    """The theory of one p_star, restored to a grid over (p, a)."""
    p, a = np.unique(rows["p"]), np.unique(rows["a"])
    shape = (len(p), len(a))
    return xr.Dataset(
        {
            "alpha_bbp": (("p", "a"), rows["alpha_bbp"].reshape(shape)),
            "a_tricritical": ("p", rows["a_tricritical"].reshape(shape)[:, 0]),
        },
        {"p": p, "a": a},
    )


def _probability(value: float) -> str:
    if math.isnan(value):
        return ""
    return "> 0.99" if value > 0.99 else "< 0.01" if value < 0.01 else f"{value:.2f}"
