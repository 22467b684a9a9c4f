"""What several figures of one sweep are made of, computed once for all of them."""

from __future__ import annotations

from functools import cached_property

import xarray as xr

from bendscape.analysis.collapse import collapse
from bendscape.analysis.panels import Panel, panels
from bendscape.analysis.thresholds import alpha_dimension

USUAL_LEAST_SIZE = 256
"""Smaller sizes have corrections that neither a collapse nor a law of the edge knows."""


class Results:
    """Results of a sweep, each computed when it is first asked for.

    Parameters
    ----------
    ds : xarray.Dataset
        What ``xr.open_dataset(store, engine="bendscape", chunks={})`` returns, complete or not; refused where
        it is not a sweep of the Hessian.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self.ds, self.alpha_dim = ds, alpha_dimension(ds)

    @cached_property
    def panels(self) -> list[Panel]:
        """Means over seeds and asymptotic theory of every model: :func:`bendscape.analysis.panels.panels`."""
        return panels(self.ds)

    @cached_property
    def least_size(self) -> int:
        """Size from which on fits are made: 256, or the smallest where fewer than two reach it."""
        sizes = self.ds["N"].values
        return USUAL_LEAST_SIZE if (sizes >= USUAL_LEAST_SIZE).sum() > 1 else int(sizes.min())

    @cached_property
    def loads(self) -> xr.Dataset:
        """Critical loads by :func:`bendscape.analysis.collapse.collapse`, about a second a model."""
        return collapse(self.ds, least_size=self.least_size).compute()
