"""What several figures and tables of one sweep are made of, computed once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import xarray as xr
from dask.base import compute

from bendscape.analysis.dataset.analyses import Analysis, in_words, sweep_of_network
from bendscape.analysis.dataset.models import alpha_axis
from bendscape.analysis.estimate.collapse import ANALYSIS as COLLAPSE
from bendscape.analysis.estimate.drift import ANALYSIS as DRIFT
from bendscape.analysis.estimate.edge_scaling import ANALYSIS as EDGE_SCALING
from bendscape.analysis.estimate.options import usual_least_size
from bendscape.analysis.estimate.thresholds import ANALYSIS as THRESHOLDS
from bendscape.analysis.findings.panels import ANALYSIS as MEANS
from bendscape.analysis.findings.panels import Panel, panels
from bendscape.core.errors import ParameterError


class Results:
    """Results of a sweep, each computed when it is first asked for, and together in one pass if asked for
    together.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not. What an
        analysis needs of it is asked when that analysis is.
    n_boot : int
        Bootstrap resamplings behind critical loads and the drift.
    least_size : int, optional
        Size from which on fits are made; by default
        :func:`bendscape.analysis.estimate.options.usual_least_size`.
    extra_draws : int
        Labels drawn for every cell, for the laws of the edge.
    """

    def __init__(
        self, ds: xr.Dataset, *, n_boot: int = 1000, least_size: int | None = None, extra_draws: int = 0
    ) -> None:
        self._given, self._least_size = ds, least_size
        self.n_boot, self.extra_draws = n_boot, extra_draws
        self._found: dict[str, xr.Dataset] = {}

    @cached_property
    def ds(self) -> xr.Dataset:
        """The sweep, with its dimensions as those of a store."""
        return sweep_of_network(self._given)

    @property
    def alpha_dim(self) -> str:
        """Name of its axis along alpha."""
        return alpha_axis(self.ds)

    def lacking(self, name: str) -> list[str]:
        """What the dataset lacks for one of ``PASSES``, in words."""
        return PASSES[name].analysis.lacking(self._given)

    def possible(self, names: Iterable[str]) -> list[str]:
        """Those of ``PASSES`` that are named and that the dataset has what is needed for.

        Raises
        ------
        ParameterError
            There is none of them; the line says what each lacks.
        """
        lacking = {name: self.lacking(name) for name in names}
        if all(lacking.values()):
            each = "; ".join(f"for {name} {', '.join(what)}" for name, what in lacking.items())
            accepted = f"a sweep with what one of {', '.join(lacking)} needs"
            raise ParameterError("store", in_words(self._given), accepted, f"it lacks {each}")
        return [name for name, what in lacking.items() if not what]

    def read(self, names: Iterable[str]) -> None:
        """Compute those of ``PASSES`` that are named and not there yet, in one pass over the store."""
        missing = [name for name in dict.fromkeys(names) if name not in self._found]
        for name in missing:
            PASSES[name].analysis.check(self._given)
        if missing:
            lazy = [PASSES[name].analysis.estimate(self.ds, **PASSES[name].options(self)) for name in missing]
            self._found |= dict(zip(missing, compute(*lazy), strict=True))  # type: ignore[no-untyped-call]

    def __getitem__(self, name: str) -> xr.Dataset:
        """One of ``PASSES``, computed."""
        self.read([name])
        return self._found[name]

    @cached_property
    def panels(self) -> list[Panel]:
        """Means over seeds and asymptotic theory of every model:
        :func:`bendscape.analysis.findings.panels.panels`."""
        return panels(self.ds, self["means"])

    @cached_property
    def least_size(self) -> int:
        """Size from which on fits are made."""
        return self._least_size or usual_least_size(self.ds)


class Pass(NamedTuple):
    """An analysis, and its options as commands, figures, claims and the report have them."""

    analysis: Analysis
    options: Callable[[Results], dict[str, Any]]


PASSES: Mapping[str, Pass] = {
    "means": Pass(MEANS, lambda of: {}),
    "loads": Pass(COLLAPSE, lambda of: {"least_size": of.least_size, "n_boot": of.n_boot}),
    "edge": Pass(
        EDGE_SCALING,
        lambda of: {"min_size": of.least_size, "extra_draws": of.extra_draws, "prediction": False},
    ),
    "drift": Pass(DRIFT, lambda of: {"n_boot": of.n_boot}),
    "thresholds": Pass(THRESHOLDS, lambda of: {}),
}
"""What a pass over the store can compute, by name."""

OF_A_REPORT = ("means", "loads", "edge", "thresholds")
"""What the figures and the report of a sweep are made of."""
