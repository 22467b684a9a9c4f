"""What overparametrization buys: thresholds and overlaps of the Hessian beside those of label-only methods.

All of it is theory in the limit of large N; it needs the axes of a sweep but none of its cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.counts import wanted_points
from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.estimate.laws import asymptotics
from bendscape.analysis.figures.style import (
    FAINT,
    PANELS,
    THRESHOLD,
    columns_of,
    size_colours,
    small_multiples,
    style,
)
from bendscape.analysis.figures.tables import few
from bendscape.analysis.findings.label_only import label_only_asymptotics
from bendscape.core.errors import unwarned
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.label_only import spectral_gain
from bendscape.core.quadratic.theory.outlier import Asymptotics, alpha_0, transition_at
from bendscape.sweep.kernels.label_only import WEIGHTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOADS = 4
"""Number of alphas of the campaign at which a table gives overlaps."""

DRAWN = 6
"""Largest number of widths in one panel of the figure."""

_FINE = 81
_BESIDE = 1e-8


class Width(NamedTuple):
    """A student of width p: its thresholds, alpha_bbp over those of the label-only methods, and its squared
    overlap at the loads of its group, 0 if there is no outlier."""

    p: int
    transition: str
    alpha_bbp: float
    alpha_0: float
    over_hessian_limit: float
    over_optimal: float
    overlap_sq: list[float]


class Gain(NamedTuple):
    """All widths of one (p_star, a), with the thresholds of the label-only methods and their squared overlaps
    at the same loads. ``least`` is the width with the lowest threshold."""

    p_star: int
    a: float
    loads: list[float]
    widths: list[Width]
    hessian_limit: float
    optimal: float
    overlap_sq: dict[str, list[float]]
    least: Width


def gains(ds: xr.Dataset) -> list[Gain]:
    """Every (p_star, a) of a sweep, with the widths that the campaign wants there, done or not.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns; only its axes, the theory in
        its root, and what the campaign wants are read.

    Returns
    -------
    list of Gain
        In the order of the axes. ``alpha_0`` is the real part of its complex definition; nan if the imaginary
        part, which measures how sharply alpha_0 is defined, is not smaller.

    Notes
    -----
    Held by ``tests/test_gain.py``.
    """
    wanted = wanted_points(ds)
    wanted = wanted.any([dim for dim in wanted.dims if dim not in ("p", "p_star", "a")]).compute()
    found = []
    for j, p_star in enumerate(ds["p_star"].values.tolist()):
        for k, a in enumerate(ds["a"].values.tolist()):
            chosen = ds["p"][wanted.isel(p_star=j, a=k)]
            if chosen.size:
                at = {dim: place for dim, place in (("p_star", j), ("a", k)) if dim in ds["alpha"].dims}
                alpha = ds["alpha"].isel(at)
                alpha = alpha.sel(p=chosen) if "p" in alpha.dims else alpha
                found.append(
                    _gain(chosen.values.tolist(), p_star, a, few(np.unique(alpha.values).tolist(), LOADS))
                )
    return found


@unwarned()
def _gain(widths: list[int], p_star: int, a: float, loads: list[float]) -> Gain:
    rows = []
    for p in widths:
        model = Model(p, p_star, a)
        gain, bound = spectral_gain(model), alpha_0(model)
        rows.append(
            Width(
                p,
                transition_at(model).kind,
                gain.alpha_bbp,
                bound.complex_re if bound.complex_im < bound.complex_re else math.nan,
                gain.over_hessian_limit,
                gain.over_optimal,
                [_overlap_sq(asymptotics(model, load)) for load in loads],
            )
        )
    label_only = {
        weights: [_overlap_sq(label_only_asymptotics(weights, p_star, a, load)) for load in loads]
        for weights in WEIGHTS
    }
    least = min(rows, key=lambda row: row.alpha_bbp)
    return Gain(p_star, a, loads, rows, gain.hessian_limit, gain.optimal, label_only, least)


def _overlap_sq(at: Asymptotics) -> float:
    return 0.0 if math.isnan(at.overlap_sq) else at.overlap_sq


def gain_pages(found: Sequence[Gain]) -> Iterator[tuple[str, Figure]]:
    """Squared overlap against alpha for students and label-only methods, a panel for each (p_star, a).

    In pages of at most ``PANELS``, each with a name as in :func:`bendscape.analysis.figures.draw.pages`."""
    for start in range(0, len(found), PANELS):
        page = f"gain-{start // PANELS + 1}" if len(found) > PANELS else "gain"
        yield page, gain_figure(found[start : start + PANELS])


@unwarned()
def gain_figure(found: Sequence[Gain]) -> Figure:
    """One page: at most ``DRAWN`` widths per panel, evenly chosen, and both label-only methods."""
    widths = sorted({row.p for gain in found for row in few(gain.widths, DRAWN)})
    colours = dict(zip(widths, size_colours(len(widths)), strict=True))
    with style():
        figure, all_axes = small_multiples(len(found))
        for axes, gain in zip(all_axes, found, strict=True):
            largest = max(gain.hessian_limit, *(row.alpha_bbp for row in gain.widths))
            last = max(gain.loads[-1], 1.3 * largest)
            for row in few(gain.widths, DRAWN):
                student = partial(asymptotics, Model(row.p, gain.p_star, gain.a))
                curve = _curve(student, row.alpha_bbp, last)
                axes.plot(*curve, color=colours[row.p], label=f"$p = {row.p}$", zorder=3)
            looks = {
                "hessian_limit": (gain.hessian_limit, FAINT, (0, (4, 2)), r"labels only, as $p \to \infty$"),
                "optimal": (gain.optimal, THRESHOLD, "solid", "labels only, optimal"),
            }
            for weights, (threshold, colour, dashes, label) in looks.items():
                method = partial(label_only_asymptotics, weights, gain.p_star, gain.a)
                curve = _curve(method, threshold, last)
                axes.plot(*curve, color=colour, linestyle=dashes, label=label, zorder=2)
            axes.set_title(f"$p^* = {gain.p_star}$, $a = {gain.a:g}$")
            axes.set_xlabel(r"$\alpha$")
            axes.set_ylabel("squared overlap  $m^2$")
        entries = {
            text: handle
            for axes in all_axes
            for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        ordered = [*(text for p in widths if (text := f"$p = {p}$") in entries)]
        ordered += [text for text in entries if text not in ordered]
        figure.legend(
            [entries[text] for text in ordered],
            ordered,
            loc="outside upper left",
            ncols=3 * columns_of(len(all_axes)),
            columnspacing=1.2,
        )
        return figure


def _curve(at: Callable[[float], Asymptotics], threshold: float, last: float) -> tuple[Floats, Floats]:
    """Curve from alpha = 0 to last: 0 up to the threshold, with the jump there, if any."""
    above = np.geomspace(threshold * (1 + _BESIDE), last, _FINE)
    overlap_sq = [_overlap_sq(at(alpha)) for alpha in above.tolist()]
    return np.concatenate([[0.0, threshold], above]), np.concatenate([[0.0, 0.0], overlap_sq])
