"""The style of figures, applied to each figure and never to matplotlib's global state."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from bendscape.core.quadratic.model import TRANSITION_KINDS

INK = "#22262b"
FAINT = "#9aa1a9"
THEORY = INK
THRESHOLD = "#b3261e"
PANEL_WIDTH, PANEL_HEIGHT = 3.5, 2.7
COLUMNS = 3
"""Panels side by side in a figure as wide as a page."""

PANELS = 12
"""Panels on one page of a figure. More would not fit a page, and their layout would take too long."""

DASHED: tuple[float, Sequence[float]] = (0, (4, 2))
DOTTED: tuple[float, Sequence[float]] = (0, (1, 1.5))

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.02,
    "axes.grid": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.2,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
}


@contextmanager
def style(**more: Any) -> Iterator[None]:
    """Make and save figures inside this block; matplotlib's own settings are restored after it."""
    settings: Any = RC | more
    with matplotlib.rc_context(settings):
        yield


def size_colours(n: int) -> list[tuple[float, float, float]]:
    """Colours for n sizes in increasing order: viridis, light to dark, without its palest end; safe for
    colour-blind readers."""
    places = np.linspace(0.78, 0.08, n) if n > 1 else np.array([0.35])
    return [tuple(map(float, colour[:3])) for colour in matplotlib.colormaps["viridis"](places)]  # type: ignore[misc]


def columns_of(n: int) -> int:
    """Number of panels side by side when there are n: as square as a page allows."""
    return 2 if n == 4 else min(n, COLUMNS)


def small_multiples(n: int) -> tuple[Figure, list[Any]]:
    """A figure with n panels in rows of at most ``COLUMNS``, and room for a legend above them."""
    columns = columns_of(n)
    rows = -(-n // columns)
    figure = Figure(
        figsize=(max(PANEL_WIDTH * columns, 4.6), PANEL_HEIGHT * rows + 0.55), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[n:]:
        spare.remove()
    return figure, list(axes[:n])


def panels_in_rows(rows: Sequence[Sequence[Any]]) -> tuple[Figure, dict[Any, Any]]:
    """A figure with the panels of each row side by side, by their keys; rows may differ in length."""
    columns = max(map(len, rows))
    figure = Figure(
        figsize=(max(PANEL_WIDTH * columns, 4.6), PANEL_HEIGHT * len(rows) + 0.55), layout="constrained"
    )
    grid = figure.subplots(len(rows), columns, squeeze=False)
    found: dict[Any, Any] = {}
    for row, axes in zip(rows, grid, strict=True):
        found |= dict(zip(row, axes, strict=False))
        for spare in axes[len(row) :]:
            spare.remove()
    return figure, found


def model_rows(models: Sequence[tuple[int, int, float]], kinds: Mapping[Any, str]) -> list[list[Any]]:
    """Models (p, p_star, a) in rows: those of one (p, p_star) side by side in the order of a, so that a
    continuous transition is beside a discontinuous one.

    If there are more than ``COLUMNS``, each row pairs a continuous with a discontinuous model, and the rest
    follow. If no (p, p_star) has both kinds, the rows are filled in order."""
    of_widths: dict[Any, list[Any]] = {}
    for model in models:
        of_widths.setdefault(model[:2], []).append(model)
    if not any(len({kinds[model] for model in same}) == 2 for same in of_widths.values()):
        return _filled(models, columns_of(len(models)))
    rows: list[list[Any]] = []
    for same in of_widths.values():
        if len(same) <= COLUMNS:
            rows.append(same)
            continue
        one, other = ([model for model in same if kinds[model] == kind] for kind in TRANSITION_KINDS)
        pairs = list(zip(reversed(one), other, strict=False))  # nearest to the change of kind first
        paired = {model for pair in pairs for model in pair}
        rows += [list(pair) for pair in pairs]
        rows += _filled([model for model in same if model not in paired], 2 if pairs else COLUMNS)
    return rows


def _filled(models: Sequence[Any], columns: int) -> list[list[Any]]:
    return [list(models[start : start + columns]) for start in range(0, len(models), max(columns, 1))]


def shared_legend(figure: Figure, all_axes: Iterable[Any], last: Mapping[str, Any] | None = None) -> None:
    """One legend above all panels: sizes in order, then everything else with a label, then ``last``."""
    entries: dict[str, Any] = {}
    for axes in all_axes:
        entries |= {text: handle for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    entries |= last or {}
    ordered = sorted(entries, key=lambda text: (not text.startswith("$N ="), _size_of(text)))
    figure.legend(
        [entries[text] for text in ordered],
        ordered,
        loc="outside upper left",
        ncols=_columns_that_fit(ordered, figure.get_size_inches()[0]),
        columnspacing=1.2,
    )


def _columns_that_fit(texts: Sequence[str], width: float) -> int:
    """Largest number of columns, filled one after the other as in a legend, whose entries fit side by
    side."""
    wide = [0.42 + 0.066 * len(re.sub(r"\\[a-zA-Z]+|[${}^_\\,]", "", text)) for text in texts]
    for columns in range(len(texts), 1, -1):
        if sum(max(part) for part in np.array_split(wide, columns)) <= width:
            return columns
    return 1


def _size_of(text: str) -> int:
    return int("".join(filter(str.isdigit, text)) or 0) if text.startswith("$N =") else 0


def size_looks(sizes: Iterable[float]) -> dict[float, dict[str, Any]]:
    """Colour, marker and label of every size, in increasing order: light to dark, safe in grey print."""
    ordered = sorted(set(sizes))
    colours = size_colours(len(ordered))
    return {
        N: {"color": colour, "marker": MARKERS[k % len(MARKERS)], "label": f"$N = {N:.0f}$"}
        for k, (N, colour) in enumerate(zip(ordered, colours, strict=True))
    }


def draw_points(axes: Any, x: Any, y: Any, error: Any, look: Mapping[str, Any]) -> None:
    """Points with error bars where both numbers are finite; an unknown error has no bar."""
    seen = np.isfinite(x) & np.isfinite(y)
    if seen.any():
        error = np.nan_to_num(np.asarray(error)[..., seen])
        axes.errorbar(
            x[seen], y[seen], error, **{"linestyle": "none", "elinewidth": 0.9, "zorder": 4} | dict(look)
        )


def plain_logarithmic(axis: Any, places: Sequence[float] | None = None) -> None:
    """Label a logarithmic axis with plain numbers: at 1, 2, 5 of every decade (over many decades, at 1), or
    at the given places."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    log_locator = LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,))
    axis.set_major_locator(log_locator if places is None else FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}" if places is None else "{x:.0f}")


def model_title(p: int, p_star: int, a: float, *, after: str = "") -> str:
    """The title of a panel: its model."""
    return f"$p = {p}$, $p^* = {p_star}$, $a = {a:g}${after}"
