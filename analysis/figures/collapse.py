"""All sizes on one curve, around the measured critical load and around the theory's threshold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bendscape.analysis.dataset.models import MODEL
from bendscape.analysis.estimate.collapse_fits import USUAL_WIDTH
from bendscape.analysis.estimate.collapse_points import universal_overlap
from bendscape.analysis.estimate.critical import SAFE, critical_point
from bendscape.analysis.figures.style import (
    INK,
    draw_points,
    model_title,
    panels_in_rows,
    shared_legend,
    size_looks,
    style,
)
from bendscape.analysis.figures.tables import Numbers, groups, left_out, rows_where, table
from bendscape.analysis.figures.thresholds import table_of_loads
from bendscape.analysis.findings.panels import Panel
from bendscape.analysis.findings.results import Results
from bendscape.core.quadratic.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPAN = (-2.0, 2.5)
"""Range of w in the figure."""

_FINE = 91
_BAND = "#eef1f5"
_CENTRES = {"w": r"\alpha_c", "w_bbp": r"\alpha_{\rm BBP}"}


def collapse_numbers(results: Results) -> Numbers:
    """``collapse``: Y = N^(1/3) <overlap_sq_space> of the sizes that the collapse uses, against w around the
    measured alpha_c and around theory's alpha_bbp, with the results of the fit. ``collapse-curves``: the
    universal curve A phi_r(w), r = p p_star, without fitted parameters.

    Sizes beyond a tenth of the crossover size are left out, as
    :func:`bendscape.analysis.estimate.collapse.collapse` does."""
    table_of_loads(results["collapse"], "collapse")
    points: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for panel in results.panels:
        at = results["collapse"].sel(p=panel.p, p_star=panel.p_star, a=panel.a, estimator="collapse")
        if not math.isfinite(at["alpha_c"].item()):
            continue
        model = Model(panel.p, panel.p_star, panel.a)
        scales = critical_point(model)
        head = {"p": panel.p, "p_star": panel.p_star, "a": panel.a}
        width = USUAL_WIDTH if math.isnan(scales.width) else scales.width
        fit = {name: at[name].item() for name in ("alpha_c", "alpha_c_total_error", "chi2", "dof")}
        fit |= {"distance_from_bbp": at["distance"].sel(definition="alpha_bbp").item()}
        fit |= {"width": width, "window": float(results["collapse"].attrs["window"])}
        known = head | {"transition": panel.transition, "alpha_bbp": panel.alpha_bbp} | fit
        most = at["crossover_size"].item() / SAFE
        points += [known | block for block in _scaled(panel, width, fit["alpha_c"], results.least_size, most)]
        if math.isfinite(scales.amplitude):
            w = np.linspace(*SPAN, _FINE)
            universal = scales.amplitude * universal_overlap(w, panel.p * panel.p_star)
            curves.append(head | {"w": w, "scaled_overlap": universal})
    if not points:
        raise left_out("collapse", "no critical load from the collapse of sizes yet")
    empty = {name: np.empty(0) for name in (*MODEL, "w", "scaled_overlap")}
    return {"collapse": table(points), "collapse-curves": table(curves or [empty])}


def _scaled(panel: Panel, width: float, alpha_c: float, least: int, most: float) -> list[dict[str, Any]]:
    means, blocks = panel.measured["overlap_sq_space"], []
    for k, N in enumerate(panel.N):
        seen = means.n_seeds[k] > 0
        if not (least <= N <= most and seen.any()):
            continue
        unit, alpha = N ** (1 / 3), panel.alpha_realised[k][seen]
        blocks.append(
            {
                "N": N,
                "alpha": panel.alpha[seen],
                "alpha_realised": alpha,
                "n_seeds": means.n_seeds[k][seen],
                "w": (alpha - alpha_c) * unit / width,
                "w_bbp": (alpha - panel.alpha_bbp) * unit / width,
                "scaled_overlap": unit * means.mean[k][seen],
                "scaled_overlap_error": unit * means.error[k][seen],
            }
        )
    return blocks


def draw_collapse(numbers: Numbers) -> Figure:
    """Left: around the measured alpha_c, where all sizes meet; the band is the window of the fit. Right:
    around theory's alpha_bbp, where they meet only if the transition is continuous. Line: the universal
    curve."""
    points, curves = numbers.values()
    models = groups(numbers, MODEL)
    looks = size_looks(points["N"].values.tolist())
    with style():
        figure, at = panels_in_rows([[(*model, centre) for centre in _CENTRES] for model in models])
        for (*model, centre), axes in at.items():
            key = dict(zip(MODEL, model, strict=True))
            rows, curve = rows_where(points, **key), rows_where(curves, **key)
            keep = (rows[centre] >= SPAN[0]) & (rows[centre] <= SPAN[1])
            if centre == "w":
                window = rows["window"][0]
                axes.axvspan(-window, window, color=_BAND, zorder=0, linewidth=0, label="window of the fit")
            for N, look in looks.items():
                here = keep & (rows["N"] == N)
                x, y, error = (
                    rows[name][here] for name in (centre, "scaled_overlap", "scaled_overlap_error")
                )
                draw_points(axes, x, y, error, look)
            axes.plot(
                curve["w"], curve["scaled_overlap"], color=INK, zorder=3, label=r"theory, $A\,\varphi_r(w)$"
            )
            axes.set_title(_title(model, centre, {name: values[0] for name, values in rows.items()}))
            w = rows[centre][keep]
            axes.set_xlim(max(SPAN[0], w.min(initial=0) - 0.3), min(SPAN[1], w.max(initial=0) + 0.3))
            axes.set_ylim(0, 1.15 * rows["scaled_overlap"][keep].max(initial=0.5))
            axes.set_xlabel(rf"$w = (\alpha - {_CENTRES[centre]})\,N^{{1/3}} / {rows['width'][0]:.3g}$")
            axes.set_ylabel(r"$N^{1/3}\,\langle m^2\rangle$")
        shared_legend(figure, at.values())
        return figure


def _title(model: Any, centre: str, fit: dict[str, Any]) -> str:
    name = model_title(*model, after=f": {fit['transition']}")
    if centre == "w":
        error = f"{fit['alpha_c_total_error']:.3f}" if math.isfinite(fit["alpha_c_total_error"]) else "?"
        quality = rf"$\chi^2/\nu = {fit['chi2']:.1f}/{fit['dof']:.0f}$"
        return rf"{name}" "\n" rf"$\alpha_c = {fit['alpha_c']:.3f} \pm {error}$, {quality}"
    off = fit["distance_from_bbp"]
    words = rf"$\alpha_{{\rm BBP}} = {fit['alpha_bbp']:.3f}$"
    if math.isfinite(off):
        words += rf": {abs(off):.1f} errors {'above' if off < 0 else 'below'} $\alpha_c$"
    return f"{name}\n{words}"
