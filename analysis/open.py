"""The xarray backend: a store as one lazy dataset over the axes of its kernel, while it fills.

    xr.open_dataset(store, engine="bendscape", chunks={})
    xr.open_dataset(store, engine="bendscape", group="errors")    one row for each failed cell
    xr.open_datatree(store, engine="bendscape")                   both, as "cells" and "errors"

Axes are sorted and restricted to the values of the latest campaign, whatever their order in storage; the
kernel's references at the same points are attached. `status` says of each cell whether it is done, failed,
not yet computed (absent) or not wanted: seeds beyond those of a size or point, and points that `where` leaves
out.

Integers of absent cells are NaN, so integers are converted to floats. With `mask_and_scale=False` they keep
their dtype, and absent cells hold its lowest value (`_FillValue`).

A dataset shows what the ledger had recorded when it was opened: cells computed later stay absent in it, in
every variable, however late a variable is read. Open the store again to see them. Damaged tiles are left out,
with a warning.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendEntrypoint
from xarray.core import indexing

from bendscape.analysis import accessor as _registers_bend  # noqa: F401
from bendscape.analysis.dataset.analyses import loaded, theories
from bendscape.analysis.dataset.cells import Cells, Coverage, Measured, SortedAxes
from bendscape.analysis.dataset.failures import failures
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import DIGITS
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import NOT_WANTED, STATUS, Variable
from bendscape.sweep.kernels.hessian import VARIABLES as HESSIAN
from bendscape.sweep.kernels.label_only import VARIABLES as SPECTRAL
from bendscape.sweep.store.objects import Damaged
from bendscape.sweep.store.publish import HOW_TO_READ, silence_zarr
from bendscape.sweep.store.records import Records
from bendscape.sweep.store.root import Store, open_store

CHUNK_BYTES = (
    2**22
)  # of one variable at one size: many tiles to a Dask chunk, and a pass over ten sizes of ten


# variables (analysis/dataset/models.py) holds 0.4 GB a thread
def _range_of(variable: Variable) -> dict[str, Any]:
    return {name: value for name, value in variable.attributes.items() if name.startswith("valid_")}


_DECLARED = {variable.name: _range_of(variable) for variable in (*HESSIAN, *SPECTRAL)}
"""Valid ranges of variables by name, for kernels that declared none: in stores from before ranges were
stored, and of other kernels with a variable that analyses read."""

GROUPS = ("errors",)
READ_STATUS = {**STATUS, "not_wanted": NOT_WANTED}
"""Codes of the status for readers."""

_LONG_NAMES = {
    "n_seeds": "seeds that the campaign wants at this size, or at this point",
    "wanted": "whether the campaign wants cells at this point",
    "coverage": "share of the wanted seeds that is done; NaN where the campaign wants none",
}
_ROUNDED = {
    "comment": f"rounded to {DIGITS} significant digits: select values of your own with "
    'ds.sel(..., method="nearest")'
}


def _words(name: str) -> dict[str, str]:
    return {"long_name": _LONG_NAMES[name], "units": "1"}


class BendscapeBackend(BackendEntrypoint):
    """Opens stores for `xr.open_dataset(store, engine="bendscape")`."""

    description = "Open a bendscape store as one dataset over the axes of its kernel"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "mask_and_scale", "group", "revision")
    supports_groups = True

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = True,
        group: str | None = None,
        revision: int | None = None,
    ) -> xr.Dataset:
        """One lazy dataset; with ``group="errors"`` the failed cells. See the module's docstring.

        ``filename_or_obj`` is a path, a URL, or a :class:`bendscape.sweep.store.root.Store`, an open store,
        so that several datasets can share one state of it.

        ``revision`` opens the store as an earlier campaign file describes it; `bendscape status` gives the
        number if the latest file hides cells. ``attrs["hidden"]`` names the hidden values.

        Raises
        ------
        ParameterError
            There is no bendscape store at this path or URL, or no such group in it.
        """
        if group not in (None, *GROUPS):
            raise ParameterError("group", group, "errors, or none for the cells")
        silence_zarr()
        store = open_store(filename_or_obj)
        grid = store.grid(revision)
        if group in GROUPS:
            ds = failures(grid, store.layout, store.ledger.records)
        else:
            ds = _cells(store, grid, mask_and_scale)
        return xr.decode_cf(
            ds, concat_characters=False, mask_and_scale=mask_and_scale, decode_times=False,
            decode_coords=False, decode_timedelta=False, drop_variables=drop_variables,
        )  # fmt: skip

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = True,
    ) -> dict[str, xr.Dataset]:
        """The cells as "/cells" and the failed ones as "/errors".

        They are siblings: in a group below the cells, the coordinates of failed cells would be lost, since
        xarray would inherit those of the parent.
        """
        store = open_store(filename_or_obj)
        cells, errors = (
            self.open_dataset(
                store, drop_variables=drop_variables, mask_and_scale=mask_and_scale, group=group
            )
            for group in (None, "errors")
        )
        return {"/": xr.Dataset(attrs=cells.attrs), "/cells": cells, "/errors": errors}

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = True,
    ) -> xr.DataTree:
        """A tree of ``cells`` and ``errors``."""
        return xr.DataTree.from_dict(
            self.open_groups_as_dict(
                filename_or_obj, drop_variables=drop_variables, mask_and_scale=mask_and_scale
            )
        )

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """False: only when requested by name, since a store is also a valid Zarr group."""
        return False


def _cells(store: Store, grid: Grid, floats: bool) -> xr.Dataset:
    """The dataset of the cells, with integers as stored."""
    layout = store.layout
    axes, points, size_axis = SortedAxes.of(grid, layout), tuple(grid.dims), layout.axes.size
    seeds = np.array([grid.seeds[size] for size in grid.sizes])
    counts = np.stack([grid.counts(size) for size in grid.sizes], axis=-1)
    sized = () if size_axis is None else (size_axis.name,)
    if size_axis is None:
        seeds, counts = seeds[0], counts[..., 0]
    dims = (*points, *sized, "seed")
    coords: dict[str, Any] = {name: _axis(store, name, values) for name, values in axes.values.items()}
    if size_axis is not None:
        about = {"long_name": size_axis.long_name, "units": size_axis.units}
        coords[size_axis.name] = (size_axis.name, np.array(grid.sizes), about)
    about = {"long_name": layout.axes.seed.long_name, "units": "1"}
    coords["seed"] = ("seed", np.arange(seeds.max()), about)
    by_point = bool(grid.parts)
    coords["n_seeds"] = (dims[:-1] if by_point else sized, counts if by_point else seeds, _words("n_seeds"))
    coords["wanted"] = (dims[:-1], counts > 0, _words("wanted"))
    for name, value in layout.constants.items():
        axis = layout.axes[name]
        coords[name] = ((), value, {"long_name": axis.long_name, "units": axis.units})
    numbers = {v.name for of in store.references for v in of.variables if not v.nan}
    numbers |= {layout.axes.curve.name} if layout.axes.curve is not None else set()
    theory = {
        name: _known(store, name, axes, points, numbers)
        for name in sorted(store.arrays())
        if store.dims(name) != (name,)
    }
    if layout.around is not None and layout.axes.curve is not None:
        coords[layout.axes.curve.name] = theory.pop(layout.axes.curve.name)

    first = grid.sizes[0]
    names = sorted(store.variables(first))
    inner_dims = {
        name: store.dims(f"{layout.group(first)}/{name}")[len(layout.cell_dims) :] for name in names
    }
    cells = Cells(
        store.url,
        axes,
        layout,
        grid.sizes,
        np.atleast_1d(seeds),
        counts,
        _recorded(store),
        {k: len(v) for k, v in inner_dims.items()},
    )
    measured: dict[str, xr.Variable] = {}
    for name in names:
        arrays = [store.array(f"{layout.group(size)}/{name}") for size in grid.sizes]
        data = Measured(name, arrays, cells, floats)
        of: dict[str, Any] = _DECLARED.get(name, {}) | store.about(f"{layout.group(first)}/{name}")
        if name == "status":
            of |= {"flag_values": list(READ_STATUS.values()), "flag_meanings": " ".join(READ_STATUS)}
        elif data.dtype.kind not in "fc":
            of["_FillValue"] = data.dtype.type(data.fill)
        measured[name] = xr.Variable((*dims, *inner_dims[name]), indexing.LazilyIndexedArray(data), of)
        for dim in inner_dims[name]:
            coords[dim] = _axis(store, dim, store.read(dim))
    measured["coverage"] = xr.Variable(
        dims[:-1], indexing.LazilyIndexedArray(Coverage(cells)), _words("coverage")
    )
    about = _provenance(store.attributes)
    if layout.around is not None:
        about["around"] = layout.around
    if hidden := layout.beyond(grid):
        about["hidden"] = hidden
    ds = xr.Dataset({**measured, **theory}, coords, about)
    for axis in layout.axes.declared:
        if axis.name in ds.coords:
            ds[axis.name].attrs["role"] = axis.role
    ds = _with_theories(ds)
    width = max(math.prod(of.shape[len(dims) :]) * of.dtype.itemsize for of in measured.values())
    chunks = _chunks(dict(zip(dims, cells.shape, strict=True)), len(layout.models), sized, max(8, width))
    for variable in ds.variables.values():
        variable.encoding["preferred_chunks"] = {
            dim: chunks.get(str(dim), ds.sizes[dim]) for dim in variable.dims
        }
    return ds


def _with_theories(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with every installed theory for which it has what is needed."""
    for point in theories():
        try:
            theory = loaded(point)
        except ParameterError as error:  # another package's theory: the cells can be read without it
            warnings.warn(str(error), UserWarning, stacklevel=2)
            continue
        if not theory.lacking(ds):
            ds = ds.assign(theory.estimate(ds).variables)
    return ds


def _axis(store: Store, name: str, values: NDArray[Any]) -> tuple[str, NDArray[Any], dict[str, Any]]:
    about = store.about(name) | (_ROUNDED if values.dtype.kind == "f" else {})
    return name, values, about


def _forget_threads() -> None:
    # After a fork, Dask's thread pool of the parent has no threads, and tasks would wait for ever.
    threaded: Any = sys.modules.get("dask.threaded")
    if threaded:
        threaded.default_pool = None
        threaded.pools.clear()
        threaded.main_thread = threading.current_thread()


os.register_at_fork(after_in_child=_forget_threads)


def _recorded(store: Store) -> Records:
    layout, records = store.layout, store.ledger.records
    for size in layout.sizes:
        known = records.size(size, len(layout.cell_dims))
        known.reserve(layout.tile_shape(size), layout.tile_cells(size))
    return records


def _known(
    store: Store, name: str, axes: SortedAxes, points: tuple[str, ...], numbers: set[str]
) -> xr.Variable:
    values = store.read(name)
    if name in numbers and np.isnan(values).any():
        raise Damaged(name, "values of it are missing")
    n = values.ndim
    return xr.Variable(points[:n], values[np.ix_(*axes.storage[:n])], store.about(name))


def _chunks(shape: dict[str, int], models: int, sized: tuple[str, ...], width: int) -> dict[str, int]:
    # The same for all variables, as Dask requires. Whole curves and all seeds of one size stay together; the
    # model axes are cut to reach the target size.
    chunks = shape | dict.fromkeys(sized, 1)
    dims = list(shape)
    size = math.prod(chunks[dim] for dim in dims[models:]) * width
    for dim in reversed(dims[:models]):
        chunks[dim] = min(shape[dim], max(1, CHUNK_BYTES // size))
        size *= chunks[dim]
    return chunks


def _provenance(attributes: dict[str, Any]) -> dict[str, Any]:
    left_out = ("layout", "grid", "around", "alpha_around", "dimensions", "constants", "inner", HOW_TO_READ)
    kept = {k: v for k, v in attributes.items() if k not in left_out and v is not None}
    return {k: json.dumps(v) if isinstance(v, dict) else v for k, v in kept.items()}
