"""The failed cells of a store as a dataset: coordinates, error, host, and number of attempts."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.tiles import Layout
from bendscape.sweep.store.records import Records

_OF_FAILURE: dict[str, Any] = {"error": str, "message": str, "traceback": str, "host": str, "attempts": int}
_KINDS: dict[str, Any] = {"int64": int, "float64": float, "str": str}


def failures(grid: Grid, layout: Layout, records: Records) -> xr.Dataset:
    """One row for each failed cell that the campaign wants, in the order of the axes; may be empty.

    Returns
    -------
    xarray.Dataset
        Over ``failure``: the value of the cell on every axis, and the coordinate of a relative curve (such as
        ``alpha_factor``); ``error`` (the name of the exception), ``message``, ``traceback``; ``host``, where
        it last failed; ``attempts``.
    """
    axes = layout.axes
    kinds = {axis.name: _KINDS[axis.dtype] for axis in axes.declared if axis.name not in layout.constants}
    if layout.curve is not None:
        kinds[layout.curve] = float
    rows = []
    for key, failure in records.failures():
        place = layout.place(key, failure.bit)
        if grid.holds(place):
            about = {name: getattr(failure, name) for name in _OF_FAILURE}
            rows.append({**{name: failure.cell.get(name) for name in kinds}, **place, **about})
    sizes = [axes.size.name] if axes.size is not None else []
    order = (*sizes, *layout.dims, "seed")
    rows.sort(key=lambda row: tuple(row[name] for name in order))
    columns: dict[str, Any] = {
        name: np.array([row[name] for row in rows], dtype=object if kind is str else kind)
        for name, kind in (kinds | _OF_FAILURE).items()
    }
    return xr.Dataset(
        {name: ("failure", column) for name, column in columns.items()},
        attrs={"long_name": "failed cells: their coordinates, their errors and where they happened"},
    )
