"""How figures look: one style, applied to each figure and never to matplotlib's global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

INK = "#22262b"
FAINT = "#9aa1a9"
THEORY = INK
THRESHOLD = "#b3261e"
PANEL_WIDTH, PANEL_HEIGHT = 3.5, 2.7
COLUMNS = 3
"""Panels side by side, in a figure as wide as a page."""

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
    """Make and save figures inside this block; matplotlib's own settings are back after it."""
    settings: Any = RC | more
    with matplotlib.rc_context(settings):
        yield


def size_colours(n: int) -> list[tuple[float, float, float]]:
    """Colours for n sizes in growing order: viridis, light to dark, without its palest end; safe for
    colour-blind eyes."""
    places = np.linspace(0.78, 0.08, n) if n > 1 else np.array([0.35])
    return [tuple(map(float, colour[:3])) for colour in matplotlib.colormaps["viridis"](places)]  # type: ignore[misc]


def columns_of(n: int) -> int:
    """Panels side by side when there are n of them: as square as a page allows."""
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
