"""The overlap with the teacher and the lowest eigenvalue against alpha, at every size, with theory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.interpolate import PchipInterpolator

from bendscape.analysis.dataset.models import MODEL
from bendscape.analysis.estimate.laws import asymptotics, mean_overlap_sq
from bendscape.analysis.figures.style import (
    DASHED,
    FAINT,
    THEORY,
    THRESHOLD,
    draw_points,
    model_rows,
    model_title,
    panels_in_rows,
    shared_legend,
    size_looks,
    style,
)
from bendscape.analysis.figures.tables import Numbers, few, groups, rows_where, table
from bendscape.analysis.findings.panels import Panel
from bendscape.analysis.findings.results import Results
from bendscape.core.errors import unwarned
from bendscape.core.quadratic.finite_size.edge_scales import edge_scales, share_of_drawn
from bendscape.core.quadratic.model import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

CURVES = 6
"""Number of sizes per model, evenly chosen, for which a finite-size curve is drawn."""

_FINE = 33  # alphas of such a curve
_APART = 4  # where labels are drawn, only every fourth of them is evaluated


def overlap_numbers(results: Results) -> Numbers:
    """``overlap``: <overlap_sq_space> at every size and alpha with data. ``overlap-curves``: theory against
    alpha; at N = inf the outlier's overlap (0 up to alpha_bbp), at finite N
    :func:`bendscape.core.quadratic.finite_size.overlap_law.mean_overlap_sq`.

    Where the law at finite N is a mean over drawn labels, it is evaluated at every fourth alpha of its curve
    and interpolated by monotone cubics, which is within 2 per cent of the law.
    """
    found = results.panels
    theory = (("overlap_sq_theory", "overlap_sq"),)
    return {
        "overlap": table(_measured(found, "overlap_sq_space", theory)),
        "overlap-curves": table(block for panel in found for block in _overlap_curves(panel)),
    }


def eigenvalue_numbers(results: Results) -> Numbers:
    """``eigenvalue``: <eigval_min> at every size and alpha with data. ``eigenvalue-curves``: lambda_minus and
    lambda_star against alpha."""
    found = results.panels
    theory = (("lambda_minus", "lambda_minus"), ("lambda_star", "lambda_star"))
    curves = [
        _head(panel)
        | {"alpha": panel.alpha_line, "lambda_minus": panel.lambda_minus, "lambda_star": panel.lambda_star}
        for panel in found
    ]
    return {"eigenvalue": table(_measured(found, "eigval_min", theory)), "eigenvalue-curves": table(curves)}


def _head(panel: Panel) -> dict[str, Any]:
    return {"p": panel.p, "p_star": panel.p_star, "a": panel.a}


def _measured(
    found: list[Panel], variable: str, theory: tuple[tuple[str, str], ...]
) -> Iterator[dict[str, Any]]:
    """One row for each size and alpha with data, with theory at the realised alpha."""
    for panel in found:
        means, model = panel.measured[variable], Model(*_head(panel).values())
        for k, i in np.ndindex(means.n_seeds.shape):
            if not means.n_seeds[k, i]:
                continue
            realised = float(panel.alpha_realised[k, i])
            with unwarned():
                at = asymptotics(model, realised)
            yield (
                _head(panel)
                | {
                    "transition": panel.transition,
                    "alpha_bbp": panel.alpha_bbp,
                    "N": panel.N[k],
                    "alpha": panel.alpha[i],
                    "alpha_realised": realised,
                    variable: means.mean[k, i],
                    f"{variable}_error": means.error[k, i],
                    "n_seeds": means.n_seeds[k, i],
                }
                | {column: getattr(at, field) for column, field in theory}
            )


def _overlap_curves(panel: Panel) -> Iterator[dict[str, Any]]:
    head, model = _head(panel), Model(*_head(panel).values())
    yield head | {"N": math.inf, "alpha": panel.alpha_line, "overlap_sq_theory": panel.overlap_sq}
    line = np.linspace(panel.alpha_line[0], panel.alpha_line[-1], _FINE)
    means = panel.measured["overlap_sq_space"]
    sizes = [N for k, N in enumerate(panel.N) if means.n_seeds[k].any()]
    for N in few(sizes, CURVES):
        known = line[line * N >= 1]
        yield head | {"N": float(N), "alpha": known, "overlap_sq_theory": _law_along(model, known, N)}


def _law_along(model: Model, alpha: FloatArray, N: int) -> FloatArray:
    """The law at increasing loads. Where labels are drawn for it, which takes some 0.05 seconds a load, it is
    evaluated at every ``_APART``-th load and interpolated by a monotone cubic; the law is smooth there."""
    drawn = np.array([share_of_drawn(edge_scales(model, load)) > 0 for load in alpha.tolist()], dtype=bool)
    if not drawn.any():
        return np.array([mean_overlap_sq(model, load, N) for load in alpha.tolist()])
    kept = ~drawn
    kept[np.append(np.flatnonzero(drawn)[::_APART], np.flatnonzero(drawn)[-1])] = True
    values = np.array([mean_overlap_sq(model, load, N) for load in alpha[kept].tolist()])
    found: FloatArray = PchipInterpolator(alpha[kept], values)(alpha) if len(values) > 1 else values
    return found


def draw_overlap(numbers: Numbers) -> Figure:
    """Points: <overlap_sq_space> with its standard error, one colour for each size. Thin lines: theory at
    that size. Thick line: the limit of large N, 0 up to alpha_bbp (dashed, vertical)."""
    measured, curves = numbers.values()
    return _draw(measured, curves, "overlap_sq_space", _overlap_theory)


def draw_eigenvalue(numbers: Numbers) -> Figure:
    """Points: <eigval_min> with its standard error, one colour for each size. Lines: lambda_minus (grey) and,
    above alpha_bbp (dashed, vertical), lambda_star."""
    measured, curves = numbers.values()
    return _draw(measured, curves, "eigval_min", _eigenvalue_theory)


def _overlap_theory(
    axes: Any, points: dict[str, Any], curves: dict[str, Any], looks: dict[float, dict[str, Any]]
) -> None:
    for N, look in looks.items():
        here = curves["N"] == N
        axes.plot(
            curves["alpha"][here], curves["overlap_sq_theory"][here], color=look["color"], linewidth=0.8
        )
    limit = np.isinf(curves["N"])
    alpha, overlap_sq = curves["alpha"][limit], curves["overlap_sq_theory"][limit]
    above = alpha > points["alpha_bbp"][0]
    axes.plot(alpha[~above], overlap_sq[~above], color=THEORY, zorder=3)
    axes.plot(alpha[above], overlap_sq[above], color=THEORY, zorder=3, label=r"theory, $N \to \infty$")
    top = float(np.nanmax(points["overlap_sq_space"], initial=0.0))
    axes.set_ylim(bottom=min(0.0, -0.02 * top))
    rank = int(points["p"][0] * points["p_star"][0])
    axes.set_ylabel("squared overlap  $m^2$" if rank == 1 else rf"$m^2$, mean of the lowest ${rank}$ vectors")


def _eigenvalue_theory(
    axes: Any, points: dict[str, Any], curves: dict[str, Any], looks: dict[float, dict[str, Any]]
) -> None:
    axes.plot(curves["alpha"], curves["lambda_minus"], color=FAINT, zorder=3, label=r"edge $\lambda_-$")
    axes.plot(curves["alpha"], curves["lambda_star"], color=THEORY, zorder=3, label=r"outlier $\lambda_{*}$")
    axes.set_ylabel(r"lowest eigenvalue  $\lambda$")


def _draw(
    measured: xr.Dataset, curves: xr.Dataset, variable: str, draw_theory: Callable[..., None]
) -> Figure:
    from matplotlib.lines import Line2D

    models = groups({"": measured}, MODEL)
    kinds = {tuple(head): kind for *head, kind in groups({"": measured}, (*MODEL, "transition"))}
    looks = size_looks(measured["N"].values.tolist())
    with style():
        figure, at = panels_in_rows(model_rows(models, kinds))
        for model, axes in at.items():
            named = dict(zip(MODEL, model, strict=True))
            points, lines = rows_where(measured, **named), rows_where(curves, **named)
            alpha_bbp = points["alpha_bbp"][0]
            threshold = axes.axvline(alpha_bbp, color=THRESHOLD, linestyle=DASHED, linewidth=1.0, zorder=1)
            for N, look in looks.items():
                x, y, error = (
                    points[name][points["N"] == N]
                    for name in ("alpha_realised", variable, f"{variable}_error")
                )
                draw_points(axes, x, y, error, look)
            draw_theory(axes, points, lines, looks)
            title = model_title(*model, after=f": {kinds[model]}")
            axes.set_title(f"{title}\n" rf"$\alpha_{{\rm BBP}} = {alpha_bbp:.4f}$")
            axes.set_xlabel(r"$\alpha$")
        last = (
            {"theory, finite $N$": Line2D([], [], color=FAINT, linewidth=0.8)}
            if variable != "eigval_min"
            else {}
        )
        shared_legend(figure, at.values(), last | {r"$\alpha_{\rm BBP}$": threshold})
        return figure
