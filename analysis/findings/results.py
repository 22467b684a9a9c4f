"""What several figures and tables of one sweep are made of, computed once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

import xarray as xr
from dask.base import compute

from bendscape.analysis.dataset.models import alpha_axis
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.estimate.estimators import usual_least_size
from bendscape.analysis.estimate.thresholds import hessian_sweep, thresholds
from bendscape.analysis.findings.panels import Panel, means, panels


class Results:
    """Results of a sweep, each computed when it is first asked for, and together in one pass if asked for
    together.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not; refused where
        it is not a sweep of the Hessian.
    n_boot : int
        Bootstrap resamplings behind critical loads.
    """

    def __init__(self, ds: xr.Dataset, n_boot: int = 1000) -> None:
        self.ds, self.n_boot = hessian_sweep(ds), n_boot
        self.alpha_dim = alpha_axis(self.ds)
        self._found: dict[str, xr.Dataset] = {}

    def read(self, names: Iterable[str]) -> None:
        """Compute those of ``PASSES`` that are named and not there yet, in one pass over the store."""
        missing = [name for name in dict.fromkeys(names) if name not in self._found]
        if missing:
            found = compute(*(PASSES[name](self) for name in missing))  # type: ignore[no-untyped-call]
            self._found |= dict(zip(missing, found, strict=True))

    def _get(self, name: str) -> xr.Dataset:
        self.read([name])
        return self._found[name]

    @cached_property
    def panels(self) -> list[Panel]:
        """Means over seeds and asymptotic theory of every model:
        :func:`bendscape.analysis.findings.panels.panels`."""
        return panels(self.ds, self._get("means"))

    @cached_property
    def least_size(self) -> int:
        """Size from which on fits are made:
        :func:`bendscape.analysis.estimate.estimators.usual_least_size`."""
        return usual_least_size(self.ds)

    @property
    def loads(self) -> xr.Dataset:
        """Critical loads by :func:`bendscape.analysis.estimate.collapse.collapse`, about a second a model."""
        return self._get("loads")

    @property
    def edge(self) -> xr.Dataset:
        """Laws of the edge by :func:`bendscape.analysis.estimate.edge_scaling.edge_scaling`, of plain means
        and without the prediction."""
        return self._get("edge")

    @property
    def thresholds(self) -> xr.Dataset:
        """Thresholds at each size by :func:`bendscape.analysis.estimate.thresholds.thresholds`."""
        return self._get("thresholds")


PASSES: Mapping[str, Callable[[Results], xr.Dataset]] = {
    "means": lambda results: means(results.ds),
    "loads": lambda results: collapse(results.ds, least_size=results.least_size, n_boot=results.n_boot),
    "edge": lambda results: edge_scaling(results.ds, min_size=results.least_size, prediction=False),
    "thresholds": lambda results: thresholds(results.ds),
}
"""What a pass over the store can compute, by name."""
