"""The cells of one row of the map, held in memory and brought up to date tile by tile: each is read once."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bendscape.analysis.live.coverage import along, row_dims
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import NOT_WANTED, STATUS
from bendscape.sweep.campaign.tiles import Layout, TileKey
from bendscape.sweep.location import folder_of
from bendscape.sweep.store.objects import together
from bendscape.sweep.store.records import Records
from bendscape.sweep.store.root import Store

TILES_A_LOOK = 100
"""Largest number of tiles that are read at one look; the others follow at the next."""
MOST_BYTES = 2**28
"""Largest memory for the cells of one row; a larger row has no curves."""
_NUMBERS = "fciu"


class _Read(NamedTuple):
    key: TileKey
    values: dict[str, NDArray[Any]]
    damage: str


def scalars(store: Store) -> list[str]:
    """Names of the variables that are one number in every cell, status first."""
    first = next(iter(store.layout.sizes))
    group, dims = store.layout.group(first), len(store.layout.cell_dims)
    names = []
    for name in sorted(store.variables(first), key=lambda name: (name != "status", name)):
        path = f"{group}/{name}"
        kind = np.dtype(store.metadata[path]["data_type"]).kind
        if len(store.dims(path)) == dims and kind in _NUMBERS:
            names.append(name)
    return names


class RowCells:
    """Status and scalar variables of all cells of one row: one model, or one line along a model axis.

    Parameters
    ----------
    store, grid
        The store, and the grid of its latest campaign file.
    row
        Index of the value of every dimension in `row_dims`, in the order of the grid.

    Attributes
    ----------
    values
        By size and variable, (columns, seeds); the modulus of complex numbers. Absent and failed cells are
        NaN; status has the codes of the dataset.
    damage
        Tiles that cannot be read, and why; their cells count as absent.
    left
        Number of tiles still to be read.
    bytes
        Memory that the cells take.
    too_large
        Bytes that the row would need, if that is more than ``MOST_BYTES``; then nothing is read. Else 0.
    """

    def __init__(self, store: Store, grid: Grid, row: Sequence[int]) -> None:
        self.store, self.grid, self.row = store, grid, tuple(row)
        self.names = scalars(store)
        self.damage: dict[str, str] = {}
        self.left = self.changes = 0
        layout, column = store.layout, along(grid)
        named = dict(zip(row_dims(grid), self.row, strict=True))
        places = {name: layout.dims[name].index(grid.dims[name][at]) for name, at in named.items()}
        # Indices of the tiles of the row along every dimension of storage, and the column of each place.
        self._picks = [
            [places[name]] if name in places else list(range(len(values)))
            for name, values in layout.models.items()
        ]
        values = grid.dims[column] if column is not None else ()
        self._column = {layout.dims[column].index(v): k for k, v in enumerate(values)} if column else {0: 0}
        self._along_model = list(layout.models).index(column) if column in layout.models else None
        self.columns = max(1, len(values))
        needed = sum(grid.seeds[size] for size in grid.sizes) * self.columns * len(self.names) * 8
        self.too_large = needed if needed > MOST_BYTES else 0
        self.bytes = 0 if self.too_large else needed
        self.values: dict[int, dict[str, NDArray[np.float64]]] = {}
        self._seen: dict[int, NDArray[np.uint16]] = {}
        if not self.too_large:
            for size in grid.sizes:
                shape = (self.columns, grid.seeds[size])
                self.values[size] = {name: np.full(shape, math.nan) for name in self.names}
                self.values[size]["status"][...] = STATUS["absent"]
                seeds = np.arange(grid.seeds[size])
                self.values[size]["status"][seeds >= self._counts(size)[:, None]] = NOT_WANTED
                self._seen[size] = np.zeros([len(pick) for pick in self._tiles(layout, size)], np.uint16)

    def _counts(self, size: int) -> NDArray[np.int64]:
        index = iter(self.row)
        column = along(self.grid)
        at = tuple(slice(None) if name == column else next(index) for name in self.grid.dims)
        found: NDArray[np.int64] = np.atleast_1d(self.grid.counts(size)[at])
        return found

    def _tiles(self, layout: Layout, size: int) -> list[list[int]]:
        shape = layout.tile_shape(size)
        seeds = range(min(shape[-1], -(-self.grid.seeds[size] // layout.sizes[size].seed_block)))
        curve = [list(range(shape[-2]))] if layout.curve is not None else []
        return [*self._picks, *curve, list(seeds)]

    def update(self, records: Records, most: int = TILES_A_LOOK) -> bool:
        """Read the tiles that have changed since the last call, at most so many; whether any had.

        Raises
        ------
        OSError
            The store does not answer; what was read is kept.
        """
        if self.too_large:
            return False
        changed: list[tuple[float, TileKey, tuple[int, ...], int]] = []
        for size, seen in self._seen.items():
            known, tiles = (
                records.size(size, len(self.store.layout.cell_dims)),
                self._tiles(self.store.layout, size),
            )
            known.reserve(self.store.layout.tile_shape(size), self.store.layout.tile_cells(size))
            attempts, when = known.attempts[np.ix_(*tiles)], known.finished[np.ix_(*tiles)]
            for at in map(tuple, np.argwhere(attempts != seen).tolist()):
                chunk = tuple(pick[k] for pick, k in zip(tiles, at, strict=True))
                changed.append((-float(when[at]), TileKey(size, chunk), at, int(attempts[at])))
        changed.sort()  # the newest first
        self.left = max(0, len(changed) - most)
        wanted = changed[:most]
        for read, (_, key, at, count) in zip(
            together(self._read, [(records, key) for _, key, _, _ in wanted]), wanted, strict=True
        ):
            self._put(records, read)
            self._seen[key.size][at] = count
        self.changes += bool(wanted)
        return bool(wanted)

    def _read(self, of: tuple[Records, TileKey]) -> _Read:
        records, key = of
        if not records.masks(key)[0]:
            return _Read(key, {}, "")  # only failed cells
        layout, values = self.store.layout, {}
        folder = folder_of(self.store.url)
        for name in self.names:
            array = self.store.array(f"{layout.group(key.size)}/{name}")
            path = layout.path(key, name)
            try:
                block = np.asarray(array[layout.region(key)])
            except OSError:
                raise
            except Exception as error:  # each codec raises its own
                why = f"{name} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
                return _Read(key, {}, why)
            gone = path in getattr(array.store, "missing", ())
            if gone or (folder is not None and not os.path.exists(folder / path)):
                return _Read(key, {}, f"{name} missing")
            # The lowest integer of a dtype stands for absence.
            numbers = (np.abs(block) if block.dtype.kind == "c" else block).astype(np.float64)
            if block.dtype.kind == "i" and name != "status":
                numbers[block == np.iinfo(block.dtype).min] = math.nan
            values[name] = numbers.reshape(layout.slots(key))
        return _Read(key, values, "")

    def _put(self, records: Records, read: _Read) -> None:
        layout, key = self.store.layout, read.key
        name = layout.name(key)
        self.damage.pop(name, None)
        if read.damage:
            self.damage[name] = read.damage
        blocks, (slots, seeds) = layout.sizes[key.size], layout.slots(key)
        done, failed = (
            self._bits(mask, blocks.curve_block, blocks.seed_block) for mask in records.masks(key)
        )
        done, failed = done[:slots, :seeds] & bool(read.values), failed[:slots, :seeds]
        if self._along_model is not None:
            columns = [self._column.get(key.chunk[self._along_model], -1)]
        else:
            first = key.chunk[-2] * blocks.curve_block if layout.curve is not None else 0
            columns = [self._column.get(first + i, -1) for i in range(slots)]
        rows = [i for i, column in enumerate(columns) if column >= 0]
        first = key.chunk[-1] * blocks.seed_block
        seeds = max(0, min(seeds, self.grid.seeds[key.size] - first))
        into = np.ix_([columns[i] for i in rows], range(first, first + seeds))
        of = np.ix_(rows, range(seeds))
        for name in self.names:
            values = self.values[key.size][name]
            if name == "status":
                state = np.where(failed, STATUS["failed"], STATUS["absent"]).astype(np.float64)
                state = np.where(done, read.values.get(name, state), state)
                values[into] = np.where(values[into] == NOT_WANTED, NOT_WANTED, state[of])
            elif read.values:
                values[into] = np.where(done, read.values[name], math.nan)[of]

    @staticmethod
    def _bits(mask: int, *shape: int) -> NDArray[np.bool_]:
        width = -(-math.prod(shape) // 8)
        bits = np.unpackbits(np.frombuffer(mask.to_bytes(width, "little"), np.uint8), bitorder="little")
        return bits[: math.prod(shape)].reshape(shape).astype(bool)

    def means(
        self, size: int, name: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Mean over the seeds that are done, its standard error and their number, by column; NaN without
        data, and the error with a single seed.

        mean = sum x / n, error = sqrt(sum (x - mean)^2 / (n (n - 1))).
        """
        values, status = self.values[size][name], self.values[size]["status"]
        done = (status == STATUS["done"]) & np.isfinite(values)
        n = done.sum(axis=1)
        blank = np.full(n.shape, math.nan)
        with np.errstate(over="ignore", invalid="ignore"):  # then infinite, which is shown as no number
            mean = np.divide(np.where(done, values, 0.0).sum(axis=1), n, out=blank.copy(), where=n > 0)
            squares = np.where(done, (values - mean[:, None]) ** 2, 0.0).sum(axis=1)
            return mean, np.sqrt(np.divide(squares, n * (n - 1.0), out=blank.copy(), where=n > 1)), n

    def dataset(self, ds: xr.Dataset) -> xr.Dataset:
        """The row as a dataset in memory: `ds`, a dataset of the whole store, with this row selected and its
        scalar variables replaced by what was read; arrays over inner dimensions are left out."""
        ds = ds.isel({name: [at] for name, at in zip(row_dims(self.grid), self.row, strict=True)})
        kept = [name for name in ds.data_vars if "seed" not in ds[name].dims or name in self.names]
        ds = ds[kept]
        dims, sizes, most = ds["status"].dims, list(self.grid.sizes), ds.sizes["seed"]
        column = along(self.grid)
        inner = [name for name in (column, "seed") if name is not None]
        found: dict[str, Any] = {}
        size_axis = self.grid.axes.size
        for name in self.names:
            fill = NOT_WANTED if name == "status" else math.nan
            whole = np.full((len(sizes), self.columns, most), float(fill))
            for k, size in enumerate(sizes):
                values, status = self.values[size][name], self.values[size]["status"]
                there = np.isin(status, (STATUS["done"], STATUS["not_converged"])) | (name == "status")
                whole[k, :, : values.shape[1]] = np.where(there, values, math.nan)
            array = whole if size_axis is not None else whole[0]
            array = array if column is not None else array.squeeze(axis=-2)
            named = [size_axis.name, *inner] if size_axis is not None else inner
            one = xr.DataArray(array.astype(np.int8) if name == "status" else array, dims=named)
            missing = {dim: 1 for dim in dims if dim not in named}
            found[name] = one.expand_dims(missing).transpose(*dims).assign_attrs(ds[name].attrs)
        if "coverage" in ds:
            share = (found["status"] == STATUS["done"]).sum("seed") / ds["n_seeds"]
            found["coverage"] = share.where(ds["wanted"]).assign_attrs(ds["coverage"].attrs)
        return ds.drop_vars([*found]).assign({name: one.variable for name, one in found.items()})
