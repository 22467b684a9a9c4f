"""Results that several figures and tables of one sweep share, each computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import xarray as xr
from dask.base import compute

from bendscape.analysis.dataset.analyses import Analysis, dataset_in_words, sweep_of_network
from bendscape.analysis.dataset.models import alpha_axis
from bendscape.analysis.estimate.collapse import ANALYSIS as COLLAPSE
from bendscape.analysis.estimate.descent import ANALYSIS as DESCENT
from bendscape.analysis.estimate.drift import ANALYSIS as DRIFT
from bendscape.analysis.estimate.edge_scaling import ANALYSIS as EDGE_SCALING
from bendscape.analysis.estimate.options import usual_least_size
from bendscape.analysis.estimate.thresholds import ANALYSIS as THRESHOLDS
from bendscape.analysis.findings.activations import ANALYSIS as ACTIVATIONS
from bendscape.analysis.findings.activations import ActivationModel, activation_models
from bendscape.analysis.findings.panels import ANALYSIS as MEANS
from bendscape.analysis.findings.panels import Panel, panels
from bendscape.core.errors import ParameterError


class Results:
    """Results of a sweep. Each is computed when first requested; results requested together are computed in
    one pass.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not. It is checked
        for what an analysis needs when that analysis is requested.
    n_boot : int
        Bootstrap resamplings for critical loads and the drift.
    least_size : int, optional
        Smallest size used in fits; by default
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
        """The sweep, with the dimensions of a store."""
        return sweep_of_network(self._given)

    @property
    def alpha_dim(self) -> str:
        """Name of the dimension along alpha."""
        return alpha_axis(self.ds)

    def lacking(self, name: str) -> list[str]:
        """What the dataset lacks for one of ``PASSES``, in words."""
        return PASSES[name].analysis.lacking(self._given)

    def possible(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` for which the dataset has what is needed.

        Raises
        ------
        ParameterError
            There are none; the message says what each lacks.
        """
        lacking = {name: self.lacking(name) for name in names}
        if all(lacking.values()):
            each = "; ".join(f"for {name} {', '.join(what)}" for name, what in lacking.items())
            accepted = f"a sweep with what one of {', '.join(lacking)} needs"
            raise ParameterError("store", dataset_in_words(self._given), accepted, f"it lacks {each}")
        return [name for name, what in lacking.items() if not what]

    def read(self, names: Iterable[str]) -> None:
        """Compute the named ``PASSES`` that have not been computed yet, in one pass over the store."""
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

    @property
    def given(self) -> xr.Dataset:
        """The dataset as it was given."""
        return self._given

    @property
    def is_of_descents(self) -> bool:
        """Whether the dataset follows descents in time, and has figures and a report of those."""
        return not DESCENT.lacking(self._given)

    @property
    def is_of_activations(self) -> bool:
        """Whether the dataset sweeps activations, and has claims and a report of those."""
        return not ACTIVATIONS.lacking(self._given)

    @cached_property
    def activations(self) -> list[ActivationModel]:
        """What each network shows: :func:`bendscape.analysis.findings.activations.activation_models`."""
        return activation_models(ACTIVATIONS(self._given).compute())

    @cached_property
    def descent(self) -> xr.Dataset:
        """What descents show: :func:`bendscape.analysis.estimate.descent.descent`."""
        return DESCENT(self._given)

    @cached_property
    def least_size(self) -> int:
        """Smallest size used in fits."""
        return self._least_size or usual_least_size(self.ds)


class Pass(NamedTuple):
    """An analysis with the options that commands, figures, claims and the report use."""

    analysis: Analysis
    options: Callable[[Results], dict[str, Any]]


PASSES: Mapping[str, Pass] = {
    each.analysis.name: each
    for each in (
        Pass(MEANS, lambda of: {}),
        Pass(COLLAPSE, lambda of: {"least_size": of.least_size, "n_boot": of.n_boot}),
        Pass(
            EDGE_SCALING,
            lambda of: {"least_size": of.least_size, "extra_draws": of.extra_draws, "prediction": False},
        ),
        Pass(DRIFT, lambda of: {"n_boot": of.n_boot}),
        Pass(THRESHOLDS, lambda of: {}),
    )
}
"""The results that a pass over the store can compute, by the name of the analysis."""

OF_A_REPORT = ("means", "collapse", "edge_scaling", "thresholds")
"""The results that the figures and the report of a sweep use."""
