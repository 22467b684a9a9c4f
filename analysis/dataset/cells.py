"""The cells of a store as arrays over its dimensions, sizes and seeds: only what is asked for is read.

A cell is there if the ledger has recorded it and every variable of its tile can be read. A tile of which
something is missing or damaged is left out as if it had not been computed, with a warning that names it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import NOT_WANTED, STATUS
from bendscape.sweep.campaign.tiles import Layout, TileKey
from bendscape.sweep.location import folder_of
from bendscape.sweep.store.compare_and_swap import Reading
from bendscape.sweep.store.ledger import DamageWarning
from bendscape.sweep.store.records import Records, cells_in

EXACT = 2**53
"""Up to here every integer is a float64."""

_UNKNOWN, _WHOLE, _DAMAGED = 0, 1, 2
_NAMED = 3  # tiles that a warning names

Picks = list[NDArray[np.intp]]


class Axes(NamedTuple):
    """Sorted values of a campaign's axes, and where each lies in storage."""

    values: dict[str, NDArray[Any]]
    storage: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, grid: Grid, layout: Layout) -> Axes:
        """The axes of a campaign in a store that holds it."""
        places = tuple(
            np.array([layout.dims[name].index(value) for value in values])
            for name, values in grid.dims.items()
        )
        return cls({name: np.array(values) for name, values in grid.dims.items()}, places)


class Lazy(BackendArray):
    """An array that reads a block for the outer product of index arrays, one for each dimension."""

    shape: tuple[int, ...]

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        picks = [np.atleast_1d(np.arange(n)[k]) for k, n in zip(key, self.shape, strict=True)]
        scalar = tuple(axis for axis, k in enumerate(key) if isinstance(k, int | np.integer))
        return self.block(picks).squeeze(axis=scalar)

    def block(self, picks: Picks) -> NDArray[Any]:
        """The values at the outer product of `picks`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Cells:
    """The cells of a store: what is wanted, what was recorded of it, and which tiles were found damaged."""

    url: str
    axes: Axes
    layout: Layout
    sizes: tuple[int, ...]
    seeds: NDArray[np.int64]
    wanted: NDArray[np.bool_]
    records: Records
    variables: Mapping[str, int]  # of inner dimensions of each
    _state: dict[int, NDArray[np.int8]] = field(default_factory=dict)

    @property
    def sized(self) -> bool:
        """Whether there is an axis of sizes."""
        return self.layout.axes.size is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the variables that are measured: points, sizes where there is an axis of them, seeds."""
        return (*self.wanted.shape, int(self.seeds.max()))

    def path(self, key: TileKey, name: str) -> str:
        """The chunk that keeps one variable of a tile."""
        return self.layout.path(key, name, self.variables[name])

    def split(self, picks: Picks) -> tuple[Picks, NDArray[np.intp], Picks]:
        """Picked points, sizes (the only one, where there is no axis of them), and what follows."""
        points = picks[: len(self.layout.dims)]
        rest = picks[len(points) :]
        return (points, rest[0], rest[1:]) if self.sized else (points, np.zeros(1, np.intp), rest)

    def blocks(self, size: int) -> tuple[int | None, int]:
        """Curve and seed blocks of a tile; None for the first where there is no curve."""
        blocks = self.layout.sizes[size]
        return None if self.layout.curve is None else blocks.curve_block, blocks.seed_block

    def tile_picks(self, size: int, places: Picks, seeds: NDArray[np.intp]) -> Picks:
        """Indices of the tiles that hold an outer product of storage indices, on every dimension."""
        chunks = self.layout.chunks(size)
        return [pick // chunk for pick, chunk in zip([*places, seeds], chunks, strict=True)]

    def places(self, picks: Picks) -> Picks:
        """Storage indices of the picked points."""
        return [place[pick] for place, pick in zip(self.axes.storage, picks, strict=False)]

    def recorded(self, kind: str, size: int, places: Picks, seeds: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which cells of one size are "done" or "failed", at the outer product of storage indices.

        A cell in a tile that is not whole is neither.
        """
        n = self.sizes[size]
        tiles = self.tile_picks(n, places, seeds)
        self._look(n, tiles)
        found = cells_in(getattr(self.records.sizes[n], kind), self.blocks(n), [*places, seeds])
        there: NDArray[np.bool_] = found & (self._states(n)[np.ix_(*tiles)] != _DAMAGED)
        return there

    def tiles(self, size: int, tiles: Picks, states: tuple[int, ...] = (_UNKNOWN, _WHOLE)) -> list[TileKey]:
        """Those of an outer product of tile indices that hold a finished cell, and are in such a state."""
        distinct = [np.unique(index) for index in tiles]
        at = np.ix_(*distinct)
        there = self.records.sizes[size].done[at].any(axis=-1) & np.isin(self._states(size)[at], states)
        chosen = zip(
            *(index[places] for index, places in zip(distinct, np.nonzero(there), strict=True)), strict=True
        )
        return [TileKey(size, tuple(map(int, index))) for index in chosen]

    def leave_out(self, damage: dict[TileKey, str]) -> None:
        """From now on these tiles are not there; a warning says why."""
        for key in damage:
            self._states(key.size)[key.chunk] = _DAMAGED
        if damage:
            named = "; ".join(f"{self.layout.name(key)}: {why}" for key, why in list(damage.items())[:_NAMED])
            more = f"; and {len(damage) - _NAMED} more tiles" if len(damage) > _NAMED else ""
            remedy = f"`bendscape fsck --repair {self.url}`, then its campaign computes them again"
            warnings.warn(
                f"cells recorded as done are left out, since their tiles are damaged: {named}{more}; "
                f"{remedy}",
                DamageWarning,
                stacklevel=2,
            )

    def _states(self, size: int) -> NDArray[np.int8]:
        return self._state.setdefault(size, np.zeros(self.layout.tile_shape(size), np.int8))

    def _look(self, size: int, tiles: Picks) -> None:
        # On plain files it costs microseconds to see whether each variable has its chunk.
        folder, states = folder_of(self.url), self._states(size)
        if folder is None:
            return
        damage: dict[TileKey, str] = {}
        for key in self.tiles(size, tiles, (_UNKNOWN,)):
            missing = [name for name in self.variables if not os.path.exists(folder / self.path(key, name))]
            states[key.chunk] = _WHOLE
            if missing:
                damage[key] = f"{', '.join(missing)} missing"
        self.leave_out(damage)


class Measured(Lazy):
    """One variable of all sizes over dimensions, sizes and seeds; only the tiles asked for are read.

    Inner dimensions of a variable come last. What is not there is NaN, or in an integer the lowest number of
    its type; the status tells what is not wanted from what is not there yet. With `floats` a reader makes
    floats of integers.
    """

    def __init__(self, name: str, arrays: list[zarr.Array[Any]], cells: Cells, floats: bool = False) -> None:
        self._name, self._arrays, self._cells, self._floats = name, arrays, cells, floats
        self.dtype = np.dtype(arrays[0].dtype)
        self._outer = len(cells.shape)
        self.shape = cells.shape + tuple(arrays[0].shape[len(cells.layout.cell_dims) :])

    @property
    def fill(self) -> Any:
        """What a cell holds that is not there."""
        if self.dtype.kind in "fc":
            return np.nan
        return STATUS["absent"] if self._name == "status" else np.iinfo(self.dtype).min

    def block(self, picks: Picks) -> NDArray[Any]:
        nothing = NOT_WANTED if self._name == "status" else self.fill
        block = np.full([len(pick) for pick in picks], nothing, dtype=self.dtype)
        points, sizes, (seed_pick,) = self._cells.split(picks[: self._outer])
        places, inner = self._cells.places(points), picks[self._outer :]
        for column, size in enumerate(sizes):
            present = np.flatnonzero(seed_pick < self._cells.seeds[size])
            seeds = seed_pick[present]
            if not seeds.size or not all(place.size for place in places):
                continue
            values = np.full([*map(len, [*places, seeds, *inner])], self.fill, dtype=self.dtype)
            if self._cells.recorded("done", size, places, seeds).any():
                found = self._stored(size, places, seeds, inner)
                # after the reading, which can find a tile damaged
                there = self._cells.recorded("done", size, places, seeds)
                values = np.where(there.reshape(*there.shape, *[1] * len(inner)), found, values)
            if self._name == "status":
                values[self._cells.recorded("failed", size, places, seeds)] = STATUS["failed"]
            at = (slice(None),) * len(places) + ((column,) if self._cells.sized else ())
            block[(*at, present)] = values
        block[~self._cells.wanted[np.ix_(*picks[: self._outer - 1])]] = nothing
        if self._floats and self.dtype.itemsize == 8 and self.dtype.kind == "i":
            self._warn_of_rounding(block)
        return block

    def _warn_of_rounding(self, block: NDArray[Any]) -> None:
        if (np.abs(block[block != self.fill]) > EXACT).any():
            warnings.warn(
                f"{self._name} holds integers above 2^53, which are rounded to floats: open the store with "
                "mask_and_scale=False to have them exactly",
                UserWarning,
                stacklevel=2,
            )

    def _stored(self, size: int, places: Picks, seeds: NDArray[np.intp], inner: Picks) -> NDArray[Any]:
        cells, array, n = self._cells, self._arrays[size], self._cells.sizes[size]
        tiles = cells.tile_picks(n, places, seeds)
        try:
            found: NDArray[Any] = np.asarray(array.oindex[(*places, seeds, *inner)])
        except (OSError, ParameterError, MemoryError):  # of the store, not of a chunk
            raise
        except Exception:  # each codec has its own
            damage = {key: why for key in cells.tiles(n, tiles) if (why := self._why(array, key))}
            if not damage:
                raise
            cells.leave_out(damage)
            return self._by_tiles(array, n, [*places, seeds], inner, tiles)
        if isinstance(array.store, Reading):
            missing = array.store.missing
            gone = [key for key in cells.tiles(n, tiles) if cells.path(key, self._name) in missing]
            cells.leave_out(dict.fromkeys(gone, f"{self._name} missing"))
        return found

    def _why(self, array: zarr.Array[Any], key: TileKey) -> str:
        """Why a chunk cannot be read; empty where it can."""
        try:
            array[self._cells.layout.region(key)]
        except Exception as error:
            return (
                f"{self._name} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            )
        return ""

    def _by_tiles(
        self, array: zarr.Array[Any], size: int, picked: Picks, inner: Picks, tiles: Picks
    ) -> NDArray[Any]:
        """What can be read, tile by tile."""
        found = np.full([*map(len, [*picked, *inner])], self.fill, dtype=self.dtype)
        for key in self._cells.tiles(size, tiles):
            inside = [np.flatnonzero(index == at) for index, at in zip(tiles, key.chunk, strict=True)]
            where = tuple(pick[at] for pick, at in zip(picked, inside, strict=True))
            found[np.ix_(*inside, *(np.arange(len(pick)) for pick in inner))] = array.oindex[(*where, *inner)]
        return found


class Coverage(Lazy):
    """Share of the wanted seeds that is done, over dimensions and sizes."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self.dtype, self.shape = np.dtype("float64"), cells.wanted.shape

    def block(self, picks: Picks) -> NDArray[Any]:
        share = np.full([len(pick) for pick in picks], np.nan)
        points, sizes, _ = self._cells.split(picks)
        places = self._cells.places(points)
        for column, size in enumerate(sizes):
            seeds = np.arange(self._cells.seeds[size])
            done = self._cells.recorded("done", size, places, seeds).mean(axis=-1)
            share[(..., *((column,) if self._cells.sized else ()))] = done
        return np.where(self._cells.wanted[np.ix_(*picks)], share, np.nan)
