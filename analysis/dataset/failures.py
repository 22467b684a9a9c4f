"""The failed cells of a store as a dataset: where, what went wrong, and how often it was tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.store.records import CellError, Records

_OF_FAILURE: dict[str, Any] = {"error": str, "message": str, "traceback": str, "host": str, "attempts": int}


def failures(grid: Grid, records: Records) -> xr.Dataset:
    """One row for each failed cell that the campaign wants, in the order of the axes; none may have failed.

    Returns
    -------
    xarray.Dataset
        Over ``failure``: the coordinates of the cell (``N, p, p_star, a, alpha, seed``, and ``alpha_factor``
        of a relative axis), ``error`` (the name of the exception), ``message``, ``traceback``, ``host``,
        where it last failed, and ``attempts``.
    """
    kinds = {"N": int, "p": int, "p_star": int, "a": float, "alpha": float, "seed": int}
    kinds |= {grid.alpha_dim: float} | _OF_FAILURE
    rows = [row for row in (_row(grid, failure) for failure in records.errors()) if row is not None]
    rows.sort(key=lambda row: tuple(row[name] for name in ("N", "p", "p_star", "a", "alpha", "seed")))
    columns: dict[str, Any] = {
        name: np.array([row[name] for row in rows], dtype=object if kind is str else kind)
        for name, kind in kinds.items()
    }
    return xr.Dataset(
        {name: ("failure", column) for name, column in columns.items()},
        attrs={"long_name": "failed cells: their coordinates, their errors and where they happened"},
    )


def _row(grid: Grid, failure: CellError) -> dict[str, Any] | None:
    cell = grid.find(failure.cell)
    return None if cell is None else cell | {name: getattr(failure, name) for name in _OF_FAILURE}
