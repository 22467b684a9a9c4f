"""`ds.bend`: what this package makes of a sweep, as methods of the dataset that xarray opened.

Registered when a store is opened with ``engine="bendscape"``; otherwise by importing this module.
Every method is the function of the same name, which its page documents.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bendscape.analysis.results import Results
    from bendscape.analysis.tables import Numbers


class _Plot:
    """Figures of a sweep, in the style of the project, each a matplotlib figure with all panels on one page.

    What several of them need is computed once for this dataset; open the store again to see new cells. Where
    a store lacks what a figure needs, the error says what.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @cached_property
    def _results(self) -> Results:
        from bendscape.analysis.results import Results

        return Results(self._ds)

    def numbers(self, name: str) -> Numbers:
        """The tables behind a figure, by its name here: :func:`bendscape.analysis.figures.numbers_of`."""
        from bendscape.analysis.figures import numbers_of

        return numbers_of(self._results, name)

    def _draw(self, name: str) -> Figure:
        from bendscape.analysis.figures import draw_figure

        return draw_figure(self._results, name)

    def overlap(self) -> Figure:
        """Overlap against alpha at every size: :func:`bendscape.analysis.alpha_figures.draw_overlap`."""
        return self._draw("overlap")

    def eigenvalue(self) -> Figure:
        """Lowest eigenvalue against alpha: :func:`bendscape.analysis.alpha_figures.draw_eigenvalue`."""
        return self._draw("eigenvalue")

    def spectrum(self) -> Figure:
        """Whole spectra and their density: :func:`bendscape.analysis.spectrum_figure.draw_spectrum`."""
        return self._draw("spectrum")

    def edge(self) -> Figure:
        """Distance to the edge against N: :func:`bendscape.analysis.edge_figure.draw_edge`."""
        return self._draw("edge")

    def thresholds(self) -> Figure:
        """Thresholds against p: :func:`bendscape.analysis.threshold_figures.draw_thresholds`."""
        return self._draw("thresholds")

    def kinds(self) -> Figure:
        """The (p, a) diagram: :func:`bendscape.analysis.threshold_figures.draw_kinds`."""
        return self._draw("kinds")

    def collapse(self) -> Figure:
        """All sizes on one curve: :func:`bendscape.analysis.collapse_figure.draw_collapse`."""
        return self._draw("collapse")


@xr.register_dataset_accessor("bend")  # type: ignore[no-untyped-call]
class Bend:
    """Thresholds, scaling and figures of a sweep of the Hessian."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @cached_property
    def plot(self) -> _Plot:
        """Figures."""
        return _Plot(self._ds)

    def thresholds(self, **options: Any) -> xr.Dataset:
        """Thresholds at each size with intervals: :func:`bendscape.analysis.thresholds.thresholds`."""
        from bendscape.analysis.thresholds import thresholds

        return thresholds(self._ds, **options)

    def edge_scaling(self, **options: Any) -> xr.Dataset:
        """The lowest eigenvalue against N: :func:`bendscape.analysis.edge_scaling.edge_scaling`."""
        from bendscape.analysis.edge_scaling import edge_scaling

        return edge_scaling(self._ds, **options)

    def collapse(self, **options: Any) -> xr.Dataset:
        """The critical load from all sizes: :func:`bendscape.analysis.collapse.collapse`."""
        from bendscape.analysis.collapse import collapse

        return collapse(self._ds, **options)

    def drift(self, **options: Any) -> xr.Dataset:
        """The threshold seen beyond the crossover size: :func:`bendscape.analysis.drift.drift`."""
        from bendscape.analysis.drift import drift

        return drift(self._ds, **options)

    def shift_map(self, result: xr.Dataset | None = None) -> xr.Dataset:
        """Thresholds over (p, p_star, a): :func:`bendscape.analysis.shift_map.shift_map`."""
        from bendscape.analysis.shift_map import shift_map

        return shift_map(self._ds, result)

    def report(self, path: str | Path) -> Path:
        """A self-contained page: :func:`bendscape.analysis.report.write_report`."""
        from bendscape.analysis.report import write_report

        return write_report(self._ds, path)
