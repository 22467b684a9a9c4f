"""The cells of a store as lazy arrays over its dimensions, sizes and seeds: only what is requested is read.

A cell is present if the ledger has recorded it and every variable of its tile can be read. A tile with a
missing or damaged chunk is treated as not computed, with a warning that names it.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Mapping
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
"""Integers up to here are exact as float64."""

_UNKNOWN, _WHOLE, _DAMAGED = 0, 1, 2
_NAMED = 3  # tiles named in a warning
SPARSE = 0.5
"""Where less than this share of the tiles of a block is recorded, as in a refined campaign, only those are
asked for: to find that a chunk is absent takes as long as to read it."""

Picks = list[NDArray[np.intp]]


class SortedAxes(NamedTuple):
    """Sorted values of a campaign's axes, and the storage index of each."""

    values: dict[str, NDArray[Any]]
    storage: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, grid: Grid, layout: Layout) -> SortedAxes:
        """The axes of a campaign, in a store that holds it."""
        places = tuple(
            np.array([layout.dims[name].index(value) for value in values])
            for name, values in grid.dims.items()
        )
        return cls({name: np.array(values) for name, values in grid.dims.items()}, places)


class Lazy(BackendArray):
    """An array that reads blocks given by one index array for each dimension (an outer product)."""

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
    """The cells of a store: which are wanted, which are recorded, and which tiles were found damaged.

    `counts` is the number of seeds wanted at each point, over dimensions and, with an axis of sizes, sizes;
    `seeds` the most of them at each size.
    """

    url: str
    axes: SortedAxes
    layout: Layout
    sizes: tuple[int, ...]
    seeds: NDArray[np.int64]
    counts: NDArray[np.int64]
    records: Records
    variables: Mapping[str, int]  # number of inner dimensions by name
    _state: dict[int, NDArray[np.int8]] = field(default_factory=dict)

    @property
    def sized(self) -> bool:
        """Whether there is a size axis."""
        return self.layout.axes.size is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the measured variables: points, sizes (if there is a size axis), seeds."""
        return (*self.counts.shape, int(self.seeds.max()))

    def path(self, key: TileKey, name: str) -> str:
        """Path of the chunk with one variable of a tile."""
        return self.layout.path(key, name, self.variables[name])

    def split(self, picks: Picks) -> tuple[Picks, NDArray[np.intp], Picks]:
        """Split picks into points, sizes (the only size, without a size axis), and the rest."""
        points = picks[: len(self.layout.dims)]
        rest = picks[len(points) :]
        return (points, rest[0], rest[1:]) if self.sized else (points, np.zeros(1, np.intp), rest)

    def counts_at(self, picks: Picks) -> NDArray[np.int64]:
        """The number of seeds wanted at the picked points and sizes."""
        return self.counts[np.ix_(*picks)] if picks else self.counts

    def blocks(self, size: int) -> tuple[int | None, int]:
        """Curve and seed blocks of a tile; the first is None without a curve."""
        blocks = self.layout.sizes[size]
        return None if self.layout.curve is None else blocks.curve_block, blocks.seed_block

    def tile_picks(self, size: int, places: Picks, seeds: NDArray[np.intp]) -> Picks:
        """Indices of the tiles that hold an outer product of storage indices, along each dimension."""
        chunks = self.layout.chunks(size)
        return [pick // chunk for pick, chunk in zip([*places, seeds], chunks, strict=True)]

    def places(self, picks: Picks) -> Picks:
        """Storage indices of the picked points."""
        return [place[pick] for place, pick in zip(self.axes.storage, picks, strict=False)]

    def recorded(self, kind: str, size: int, places: Picks, seeds: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which cells of one size are "done" or "failed", at an outer product of storage indices.

        A cell in an incomplete tile is neither.
        """
        n = self.sizes[size]
        tiles = self.tile_picks(n, places, seeds)
        self._look(n, tiles)
        found = cells_in(getattr(self.records.sizes[n], kind), self.blocks(n), [*places, seeds])
        there: NDArray[np.bool_] = found & (self._states(n)[np.ix_(*tiles)] != _DAMAGED)
        return there

    def tiles(self, size: int, tiles: Picks, states: tuple[int, ...] = (_UNKNOWN, _WHOLE)) -> list[TileKey]:
        """The tiles of an outer product of indices that hold a finished cell and are in one of the states."""
        distinct = [np.unique(index) for index in tiles]
        at = np.ix_(*distinct)
        there = self.records.sizes[size].done[at].any(axis=-1) & np.isin(self._states(size)[at], states)
        chosen = zip(
            *(index[places] for index, places in zip(distinct, np.nonzero(there), strict=True)), strict=True
        )
        return [TileKey(size, tuple(map(int, index))) for index in chosen]

    def leave_out(self, damage: dict[TileKey, str]) -> None:
        """Treat these tiles as absent from now on, and warn why."""
        for key in damage:
            self._states(key.size)[key.chunk] = _DAMAGED
        if damage:
            named = "; ".join(f"{self.layout.name(key)}: {why}" for key, why in list(damage.items())[:_NAMED])
            more = f"; and {len(damage) - _NAMED} more tiles" if len(damage) > _NAMED else ""
            remedy = f"repair with `bendscape fsck --repair {self.url}`, then run the campaign again"
            warnings.warn(
                f"cells recorded as done are left out because their tiles are damaged: {named}{more}; "
                f"{remedy}",
                DamageWarning,
                stacklevel=2,
            )

    def _states(self, size: int) -> NDArray[np.int8]:
        return self._state.setdefault(size, np.zeros(self.layout.tile_shape(size), np.int8))

    def _look(self, size: int, tiles: Picks) -> None:
        # On plain files, checking that each variable has its chunk takes microseconds.
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
    """One variable over dimensions, sizes and seeds; only the requested tiles are read.

    Inner dimensions come last. Absent cells are NaN or, for integers, the lowest value of the dtype; the
    status distinguishes cells that are not wanted from cells not yet computed. With `floats`, integers will
    be converted to floats by the reader.
    """

    def __init__(self, name: str, arrays: list[zarr.Array[Any]], cells: Cells, floats: bool = False) -> None:
        self._name, self._arrays, self._cells, self._floats = name, arrays, cells, floats
        self.dtype = np.dtype(arrays[0].dtype)
        self._outer = len(cells.shape)
        self.shape = cells.shape + tuple(arrays[0].shape[len(cells.layout.cell_dims) :])

    @property
    def fill(self) -> Any:
        """The value of an absent cell."""
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
                # after reading, which may find a tile damaged
                there = self._cells.recorded("done", size, places, seeds)
                values = np.where(there.reshape(*there.shape, *[1] * len(inner)), found, values)
            if self._name == "status":
                values[self._cells.recorded("failed", size, places, seeds)] = STATUS["failed"]
            at = (slice(None),) * len(places) + ((column,) if self._cells.sized else ())
            block[(*at, present)] = values
        counts = self._cells.counts_at(picks[: self._outer - 1])
        block[counts[..., np.newaxis] <= seed_pick] = nothing
        if self._floats and self.dtype.itemsize == 8 and self.dtype.kind == "i":
            self._warn_of_rounding(block)
        return block

    def _warn_of_rounding(self, block: NDArray[Any]) -> None:
        if (np.abs(block[block != self.fill]) > EXACT).any():
            warnings.warn(
                f"{self._name} holds integers above 2^53, which floats round: open the store with "
                "mask_and_scale=False to have them exactly",
                UserWarning,
                stacklevel=2,
            )

    def _stored(self, size: int, places: Picks, seeds: NDArray[np.intp], inner: Picks) -> NDArray[Any]:
        cells, array, n = self._cells, self._arrays[size], self._cells.sizes[size]
        tiles = cells.tile_picks(n, places, seeds)
        there = cells.tiles(n, tiles)
        try:
            found: NDArray[Any]
            if len(there) < SPARSE * math.prod(len(np.unique(index)) for index in tiles):
                lines: dict[tuple[int, ...], list[TileKey]] = {}
                for key in there:
                    lines.setdefault(key.chunk[:-1], []).append(key)
                found = self._in_parts(array, [*places, seeds], inner, tiles, lines.values())
            else:
                found = np.asarray(array.oindex[(*places, seeds, *inner)])
        except (OSError, ParameterError, MemoryError):  # an error of the store, not of one chunk
            raise
        except Exception:  # each codec raises its own
            damage = {key: why for key in there if (why := self._why(array, key))}
            if not damage:
                raise
            cells.leave_out(damage)
            one_by_one = [[key] for key in cells.tiles(n, tiles)]
            return self._in_parts(array, [*places, seeds], inner, tiles, one_by_one)
        if isinstance(array.store, Reading):
            missing = array.store.missing
            gone = [key for key in there if cells.path(key, self._name) in missing]
            cells.leave_out(dict.fromkeys(gone, f"{self._name} missing"))
        return found

    def _why(self, array: zarr.Array[Any], key: TileKey) -> str:
        """Why a chunk cannot be read; empty if it can."""
        try:
            array[self._cells.layout.region(key)]
        except Exception as error:
            return (
                f"{self._name} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            )
        return ""

    def _in_parts(
        self,
        array: zarr.Array[Any],
        picked: Picks,
        inner: Picks,
        tiles: Picks,
        parts: Iterable[list[TileKey]],
    ) -> NDArray[Any]:
        """What some tiles hold, each part at once: tiles that differ in their seeds alone."""
        found = np.full([*map(len, [*picked, *inner])], self.fill, dtype=self.dtype)
        for keys in parts:
            inside = [
                np.flatnonzero(index == at) for index, at in zip(tiles, keys[0].chunk[:-1], strict=False)
            ]
            inside.append(np.flatnonzero(np.isin(tiles[-1], [key.chunk[-1] for key in keys])))
            where = tuple(pick[at] for pick, at in zip(picked, inside, strict=True))
            found[np.ix_(*inside, *(np.arange(len(pick)) for pick in inner))] = array.oindex[(*where, *inner)]
        return found


class Coverage(Lazy):
    """Fraction of the wanted seeds that are done, over dimensions and sizes."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self.dtype, self.shape = np.dtype("float64"), cells.counts.shape

    def block(self, picks: Picks) -> NDArray[Any]:
        share = np.full([len(pick) for pick in picks], np.nan)
        points, sizes, _ = self._cells.split(picks)
        places = self._cells.places(points)
        counts = self._cells.counts_at(picks)
        for column, size in enumerate(sizes):
            at = (..., *((column,) if self._cells.sized else ()))
            seeds = np.arange(self._cells.seeds[size])
            done = self._cells.recorded("done", size, places, seeds) & (seeds < counts[at][..., np.newaxis])
            share[at] = done.sum(axis=-1)
        return np.asarray(np.divide(share, counts, out=np.full(share.shape, np.nan), where=counts > 0))
