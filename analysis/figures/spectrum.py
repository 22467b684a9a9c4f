"""Whole spectra of Hessians from a campaign's own random streams, with the density from theory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigvalsh

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.dataset.models import MODEL
from bendscape.analysis.estimate.laws import asymptotics
from bendscape.analysis.figures.style import (
    DASHED,
    DOTTED,
    INK,
    THRESHOLD,
    model_title,
    panels_in_rows,
    shared_legend,
    style,
)
from bendscape.analysis.figures.tables import Numbers, few, groups, left_out, rows_where, table
from bendscape.analysis.findings.panels import Panel
from bendscape.analysis.findings.results import Results
from bendscape.core.errors import unwarned
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.hessian import lower_hessian, sample_instance
from bendscape.core.quadratic.theory.density import bulk_density, upper_quantile
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.kernels.quadratic import AXES, Cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPECTRA = 6
"""Number of models drawn, evenly chosen: a spectrum takes a second."""

LARGEST = 2048
"""Largest p N of a Hessian; also the number of eigenvalues pooled from smaller ones."""

SIDES = {"below": 0.7, "above": 2.0}
"""The spectra are taken at the alphas of the campaign nearest to these multiples of alpha_bbp."""

SHOWN = 0.1
"""Fraction of the spectrum beyond the right end of a panel: the spectrum has a long tail there, no edge."""

_GRID = 240
_ZERO = 1e-9  # eigenvalues of smaller modulus belong to the atom
_FILL = "#c9d3e0"


def spectrum_numbers(results: Results) -> Numbers:
    """``spectrum``: every eigenvalue of Hessians of the campaign, for a few models, at one alpha below and
    one above alpha_bbp. ``spectrum-density``: the theory's density. ``spectrum-marks``: lambda_minus,
    lambda_star and the mass of the atom at 0.

    The Hessian of seed s is that of the cell (p, p_star, a, alpha, N, s) of the campaign, from the same
    random stream. If the campaign has drawn the data themselves, and not used dice, its eigval_min is the
    lowest eigenvalue here. N is the largest size with data and p N <= ``LARGEST``; the first seeds are used.
    """
    ds = results.ds
    if "entropy" not in ds.attrs:
        raise left_out("spectrum", "the dataset does not say from which entropy the campaign drew")
    fitting = [panel for panel in results.panels if _size(panel)]
    if not fitting:
        raise left_out("spectrum", f"no model has data at a size with p N <= {LARGEST}")
    chosen = [(panel, side, i) for panel in few(fitting, SPECTRA) for side, i in _loads(panel)]
    if not chosen:
        raise left_out("spectrum", "no alpha on either side of alpha_bbp")
    axis = ds[results.alpha_dim].values
    blocks, lines, marks = [], [], []
    for panel, side, i in chosen:
        head = {"p": panel.p, "p_star": panel.p_star, "a": panel.a, "side": side, "alpha": panel.alpha[i]}
        cells = _cells(panel, i, float(axis[i]))
        blocks += [head | block for block in _spectra(int(ds.attrs["entropy"]), cells)]
        line, mark = _theory(Model(panel.p, panel.p_star, panel.a), float(panel.alpha[i]))
        known = {"transition": panel.transition, "alpha_bbp": panel.alpha_bbp}
        lines.append(head | line)
        marks.append(head | known | mark)
    return {"spectrum": table(blocks), "spectrum-density": table(lines), "spectrum-marks": table(marks)}


def _size(panel: Panel) -> int:
    """The largest size with data whose Hessian is small enough; 0 if there is none."""
    seen = panel.measured["eigval_min"].n_seeds.any(axis=1)
    return max(
        (N for N, some in zip(panel.N, seen, strict=True) if some and panel.p * N <= LARGEST), default=0
    )


def _loads(panel: Panel) -> Iterator[tuple[str, int]]:
    """The indices of the alphas shown, those with data, on each side of alpha_bbp where there is one."""
    for side, factor in SIDES.items():
        off = np.round(abs(panel.alpha / panel.alpha_bbp - factor), 9)  # the first of two equally near
        there = ((panel.alpha < panel.alpha_bbp) == (factor < 1)) & (_seeds(panel) > 0)
        off = np.where(there, off, np.inf)
        if np.isfinite(off).any():
            yield side, int(off.argmin())


def _seeds(panel: Panel) -> Any:
    """The number of seeds done at each alpha, at the size shown."""
    return panel.measured["eigval_min"].n_seeds[list(panel.N).index(_size(panel))]


def _cells(panel: Panel, i: int, axis: float) -> list[Cell]:
    N = _size(panel)
    seeds = range(min(int(_seeds(panel)[i]), max(1, LARGEST // (panel.p * N))))
    at = {"p": panel.p, "p_star": panel.p_star, "a": panel.a, "alpha": float(panel.alpha[i]), "N": N}
    return [AXES.cell(axis, **at, seed=seed) for seed in seeds]


def _spectra(entropy: int, cells: list[Cell]) -> Iterator[dict[str, Any]]:
    """All eigenvalues of each cell's Hessian, in increasing order."""
    for cell in cells:
        instance = sample_instance(
            Model(cell.p, cell.p_star, cell.a), cell.alpha, cell.N, cell_rng(entropy, cell)
        )
        eigvals = eigvalsh(lower_hessian(instance), lower=True, overwrite_a=True, check_finite=False)
        found = {"alpha_realised": instance.alpha_realised, "N": cell.N, "seed": cell.seed}
        yield found | {"rank": np.arange(len(eigvals)), "eigval": eigvals}


@unwarned()
def _theory(model: Model, alpha: float) -> tuple[dict[str, Any], dict[str, Any]]:
    at = asymptotics(model, alpha)
    last = upper_quantile(model, alpha, SHOWN)
    inside = (last - at.lambda_minus) * np.linspace(0, 1, _GRID)[1:] ** 2
    beside_zero = np.abs(at.lambda_minus) * np.geomspace(1e-4, 0.5, 30)  # the density can diverge there
    grid = np.concatenate([[at.lambda_minus], at.lambda_minus + inside, beside_zero, -beside_zero])
    grid = np.unique(grid[(grid != 0) & (grid <= last)])
    density = bulk_density(model, alpha, grid)
    mark = {"lambda_minus": at.lambda_minus, "lambda_star": at.lambda_star, "atom": density.atom}
    return {"eigenvalue": grid, "density": density.rho}, mark


def draw_spectrum(numbers: Numbers) -> Figure:
    """Bars: all eigenvalues except the atom at 0, whose mass is written as text. Line: theory's density.
    Inset: the left end, with a tick for every eigenvalue, lambda_minus dotted and lambda_star dashed."""
    spectrum, lines, marks = numbers.values()
    models = groups(numbers, MODEL)
    with style():
        figure, at = panels_in_rows([[(*model, side) for side in SIDES] for model in models])
        for (*model, side), axes in at.items():
            key = dict(zip((*MODEL, "side"), (*model, side), strict=True))
            cells, line, mark = (rows_where(each, **key) for each in (spectrum, lines, marks))
            if not len(mark["alpha"]):
                axes.remove()
                continue
            _draw_panel(axes, cells, line, {name: values[0] for name, values in mark.items()})
            times = mark["alpha"][0] / mark["alpha_bbp"][0]
            title = model_title(*model, after=f": {mark['transition'][0]}")
            of = (
                rf"$\alpha = {mark['alpha'][0]:.4g} = {times:.3g}\,\alpha_{{\rm BBP}}$, $N = {cells['N'][0]}$"
            )
            n_seeds = len(np.unique(cells["seed"]))
            axes.set_title(f"{title}\n{of}, {n_seeds} seed{'s' if n_seeds > 1 else ''}")
        shared_legend(figure, [axes for axes in at.values() if axes.figure is not None])
        return figure


def _draw_panel(axes: Any, cells: dict[str, Any], line: dict[str, Any], mark: dict[str, float]) -> None:
    eigvals = cells["eigval"]
    off_zero = eigvals[abs(eigvals) > _ZERO]
    edge, star, right = mark["lambda_minus"], mark["lambda_star"], float(line["eigenvalue"].max())
    left = min(float(eigvals.min()), edge if math.isnan(star) else star)
    margin = 0.03 * (right - left)
    _bars(axes, off_zero, len(eigvals), np.linspace(left - margin, right, 90))
    axes.plot(line["eigenvalue"], line["density"], color=INK, linewidth=1.1, label="density, theory")
    axes.set_xlim(left - margin, right)
    near = line["density"][abs(line["eigenvalue"]) > 0.02 * (right - left)]
    beside = float(np.interp(left + 0.55 * (right - left), line["eigenvalue"], line["density"]))
    axes.set_ylim(0, max(1.2 * float(near.max()), beside / 0.36))  # clear of the inset
    axes.set_xlabel(r"eigenvalue  $\lambda$")
    axes.set_ylabel(r"density  $\rho$")
    words = rf"atom at 0: ${mark['atom']:.3g}$" if mark["atom"] > 0 else ""
    inset = axes.inset_axes((0.57, 0.46, 0.42, 0.46))
    inset.set_title(words, fontsize=7, loc="right", pad=2)
    end = edge + 0.25 * (0 - edge)
    span = end - left
    top = _bars(inset, off_zero, len(eigvals), np.linspace(left - 0.12 * span, end, 15))
    inset.plot(line["eigenvalue"], line["density"], color=INK, linewidth=1.0)
    inset.axvline(edge, color=INK, linestyle=DOTTED, linewidth=1.0, label=r"edge $\lambda_-$")
    if not math.isnan(star):
        inset.axvline(star, color=THRESHOLD, linestyle=DASHED, linewidth=1.0)
        axes.plot([], [], color=THRESHOLD, linestyle=DASHED, linewidth=1.0, label=r"outlier $\lambda_{*}$")
    axes.plot([], [], color=INK, linestyle=DOTTED, linewidth=1.0, label=r"edge $\lambda_-$")
    ticks = off_zero[off_zero < end]
    inset.plot(ticks, np.zeros(len(ticks)), "|", color=INK, markersize=5, clip_on=False, zorder=5)
    inset.set_xlim(left - 0.12 * span, end)
    shown = line["density"][line["eigenvalue"] <= end]
    inset.set_ylim(0, 1.1 * max(top, float(shown.max())))
    inset.set_yticks([])
    inset.locator_params(axis="x", nbins=4)
    inset.tick_params(labelsize=6.5)


def _bars(axes: Any, values: Floats, total: int, edges: Floats) -> float:
    """Draw a histogram, normalised to all eigenvalues including the atom; returns the height of the highest
    bar."""
    heights = np.histogram(values, edges)[0] / (total * np.diff(edges))
    axes.stairs(heights, edges, fill=True, color=_FILL, label="eigenvalues", zorder=1)
    return float(heights.max())
