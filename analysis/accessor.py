"""`ds.bend`: the analyses of this package as methods of a dataset that xarray has opened.

Registered when a store is opened with ``engine="bendscape"``; otherwise by importing this module.
Every method calls the function of the same name, where its documentation is.
"""

from __future__ import annotations

import inspect
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bendscape.analysis.estimate.edge_scaling import Statistic
    from bendscape.analysis.figures.tables import Numbers
    from bendscape.analysis.findings.results import Results


_PLOT = f"  {'.bend.plot':<24} Figures: write it alone for their list."


def _contents(ds: xr.Dataset) -> str:
    """The contents of a dataset in one line, from its metadata alone."""
    axes = [
        f"{name} {ds.sizes[name]}" for name in ("p", "p_star", "a", "noise", "N", "seed") if name in ds.sizes
    ]
    loads = next((str(dim) for dim in ds.sizes if str(dim).startswith("alpha")), "")
    if loads:
        axes.insert(min(3, len(axes)), f"{loads} {ds.sizes[loads]}")
    name = ds.attrs.get("name") or "a dataset without a name"
    return f"bendscape: {name}; {', '.join(axes) or 'no axes of a sweep'}; {len(ds.data_vars)} variables"


def _methods(of: object, prefix: str) -> list[str]:
    """A line for each method: its call, and the first sentence of its docstring."""
    found = []
    for name, method in vars(type(of)).items():
        if not name.startswith("_") and inspect.isfunction(method):
            doc = (inspect.getdoc(method) or "").splitlines()[0].split(": :func:")[0]
            found.append(f"  {f'.bend{prefix}.{name}(...)':<24} {doc}.")
    return found


def _html(head: str, lines: list[str]) -> str:
    rows = "".join(
        f"<tr><td style='text-align:left'><code>{escape(call)}</code></td>"
        f"<td style='text-align:left'>{escape(words)}</td></tr>"
        for call, words in (line.split(None, 1) for line in lines)
    )
    return f"<p>{escape(head)}</p><table>{rows}</table>"


class _Plot:
    """Figures of a sweep, in the style of the project: each a matplotlib figure with all panels on one page.

    Results that several figures share are computed once for this dataset; open the store again to see new
    cells. If the store lacks what a figure needs, the error names it.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @cached_property
    def _results(self) -> Results:
        from bendscape.analysis.findings.results import Results

        return Results(self._ds)

    def numbers(self, name: str) -> Numbers:
        """The tables behind a figure, by the name of its method here:
        :func:`bendscape.analysis.figures.draw.numbers_of`."""
        from bendscape.analysis.figures.draw import numbers_of

        return numbers_of(self._results, name)

    def __repr__(self) -> str:
        return f"figures of {_contents(self._ds)}\n" + "\n".join(_methods(self, ".plot"))

    def _repr_html_(self) -> str:
        return _html(f"figures of {_contents(self._ds)}", _methods(self, ".plot"))

    def _draw(self, name: str) -> Figure:
        from bendscape.analysis.figures.draw import draw_figure

        return draw_figure(self._results, name)

    def overlap(self) -> Figure:
        """Overlap against alpha at every size: :func:`bendscape.analysis.figures.alpha.draw_overlap`."""
        return self._draw("overlap")

    def eigenvalue(self) -> Figure:
        """Lowest eigenvalue against alpha: :func:`bendscape.analysis.figures.alpha.draw_eigenvalue`."""
        return self._draw("eigenvalue")

    def spectrum(self) -> Figure:
        """Whole spectra and their density: :func:`bendscape.analysis.figures.spectrum.draw_spectrum`."""
        return self._draw("spectrum")

    def edge(self) -> Figure:
        """Distance to the edge against N: :func:`bendscape.analysis.figures.edge.draw_edge`."""
        return self._draw("edge")

    def thresholds(self) -> Figure:
        """Thresholds against p: :func:`bendscape.analysis.figures.thresholds.draw_thresholds`."""
        return self._draw("thresholds")

    def kinds(self) -> Figure:
        """The (p, a) diagram: :func:`bendscape.analysis.figures.thresholds.draw_kinds`."""
        return self._draw("kinds")

    def collapse(self) -> Figure:
        """All sizes on one curve: :func:`bendscape.analysis.figures.collapse.draw_collapse`."""
        return self._draw("collapse")


@xr.register_dataset_accessor("bend")  # type: ignore[no-untyped-call]
class Bend:
    """Thresholds, scaling and figures of a sweep of the Hessian."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def __repr__(self) -> str:
        return "\n".join([_contents(self._ds), *_methods(self, ""), _PLOT])

    def _repr_html_(self) -> str:
        return _html(_contents(self._ds), [*_methods(self, ""), _PLOT])

    @cached_property
    def plot(self) -> _Plot:
        """Figures."""
        return _Plot(self._ds)

    def thresholds(self, *, level: float = 0.95) -> xr.Dataset:
        """Thresholds at each size with intervals:
        :func:`bendscape.analysis.estimate.thresholds.thresholds`."""
        from bendscape.analysis.estimate.thresholds import thresholds

        return thresholds(self._ds, level=level)

    def edge_scaling(
        self,
        *,
        statistic: Statistic | None = None,
        least_size: int | None = None,
        extra_draws: int = 0,
        prediction: bool = True,
        free_edge: bool = False,
        wrong: float = 0.01,
        misfit: float = 0.01,
        level: float = 0.95,
        seed: int = 0,
    ) -> xr.Dataset:
        """The lowest eigenvalue against N: :func:`bendscape.analysis.estimate.edge_scaling.edge_scaling`."""
        from bendscape.analysis.estimate.edge_scaling import edge_scaling

        return edge_scaling(
            self._ds,
            statistic=statistic,
            least_size=least_size,
            extra_draws=extra_draws,
            prediction=prediction,
            free_edge=free_edge,
            wrong=wrong,
            misfit=misfit,
            level=level,
            seed=seed,
        )

    def collapse(
        self,
        *,
        least_size: int | None = None,
        window: float = 0.65,
        order: int = 3,
        correction: float = 0.5,
        n_boot: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> xr.Dataset:
        """The critical load from all sizes: :func:`bendscape.analysis.estimate.collapse.collapse`."""
        from bendscape.analysis.estimate.collapse import collapse

        return collapse(
            self._ds,
            least_size=least_size,
            window=window,
            order=order,
            correction=correction,
            n_boot=n_boot,
            level=level,
            seed=seed,
        )

    def drift(
        self,
        *,
        overlap: str | None = None,
        beyond: float = 1.0,
        free_alpha_bbp: bool = False,
        n_boot: int = 1000,
        wrong: float = 0.01,
        misfit: float = 0.01,
        level: float = 0.95,
        seed: int = 0,
    ) -> xr.Dataset:
        """The threshold seen beyond the crossover size: :func:`bendscape.analysis.estimate.drift.drift`."""
        from bendscape.analysis.estimate.drift import drift

        return drift(
            self._ds,
            overlap=overlap,
            beyond=beyond,
            free_alpha_bbp=free_alpha_bbp,
            n_boot=n_boot,
            wrong=wrong,
            misfit=misfit,
            level=level,
            seed=seed,
        )

    def shift_map(self, result: xr.Dataset | None = None) -> xr.Dataset:
        """Thresholds over (p, p_star, a): :func:`bendscape.analysis.findings.shift_map.shift_map`."""
        from bendscape.analysis.findings.shift_map import shift_map

        return shift_map(self._ds, result)

    def analyse(self, name: str, **options: Any) -> xr.Dataset:
        """An installed analysis by name, with its options:
        :func:`bendscape.analysis.dataset.analyses.load_analysis`."""
        from bendscape.analysis.dataset.analyses import load_analysis

        return load_analysis(name)(self._ds, **options)

    def report(self, path: str | Path) -> Path:
        """A self-contained page: :func:`bendscape.analysis.report.page.write_report`."""
        from bendscape.analysis.report.page import write_report

        return write_report(self._ds, path)
