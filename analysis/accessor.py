"""`ds.bend`: what this package makes of a sweep, as methods of the dataset that xarray opened.

Registered when a store is opened with ``engine="bendscape"``; otherwise by importing this module.
Every method is the function of the same name, which its page documents.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _Plot:
    """Figures of a sweep: matplotlib figures in the style of the project."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def overlap(self) -> Figure:
        """Overlap against alpha at every size: :func:`bendscape.analysis.figures.overlap_figure`."""
        from bendscape.analysis.figures import overlap_figure

        return overlap_figure(self._ds)

    def eigenvalue(self) -> Figure:
        """Lowest eigenvalue against alpha: :func:`bendscape.analysis.figures.eigenvalue_figure`."""
        from bendscape.analysis.figures import eigenvalue_figure

        return eigenvalue_figure(self._ds)


@xr.register_dataset_accessor("bend")  # type: ignore[no-untyped-call]
class Bend:
    """Thresholds, scaling and figures of a sweep of the Hessian."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @property
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
