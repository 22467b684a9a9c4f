"""Coverage of a grid as a map: for every model, point and size, how many cells are done, failed and wanted.

One dimension of the grid runs along the columns of the map (:func:`along`); the others are its rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.tiles import Layout
from bendscape.sweep.store.records import Records

MOST_PLACES = 20_000
"""Largest number of places in a map, all sizes together; beyond, neighbouring rows are added up."""
BLOCK_TILES = 4096  # counted at a time, to bound memory


def along(grid: Grid) -> str | None:
    """The dimension along the columns: the curve; without one, the model axis of numbers with most values,
    or else the axis of text with most; None for a grid without dimensions."""
    if grid.curve is not None:
        return grid.curve
    order = {name: k for k, name in enumerate(grid.dims)}

    def rank(name: str) -> tuple[bool, bool, int, int]:
        values = grid.dims[name]
        number = not isinstance(values[0], str)
        return len(values) > 1, number, len(values), -order[name]

    return max(grid.dims, key=rank, default=None)


def row_dims(grid: Grid) -> list[str]:
    """The dimensions along the rows."""
    return [name for name in grid.dims if name != along(grid)]


class Coverage:
    """Counts of cells for every point of a grid, brought up to date tile by tile."""

    def __init__(self, layout: Layout, grid: Grid) -> None:
        self.layout, self.grid = layout, grid
        self._places = [
            [layout.dims[name].index(value) for value in values] for name, values in grid.dims.items()
        ]
        self._seen = {size: np.zeros(layout.tile_shape(size), np.uint16) for size in grid.sizes}
        # Seeds wanted, by tile (without the tiles of seeds) and slot of the curve; then cells done and failed.
        self._wanted = {size: self._stored(grid.counts(size), size) for size in grid.sizes}
        self._counts = {
            size: np.zeros((2, *seen.shape, layout.sizes[size].curve_block), np.uint16)
            for size, seen in self._seen.items()
        }

    def _stored(self, values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        *tiles, _ = self.layout.tile_shape(size)
        block = self.layout.sizes[size].curve_block
        if self.grid.curve is None:
            stored = np.zeros((*tiles, 1), np.int64)
            stored[..., 0][np.ix_(*self._places)] = values
            return stored
        whole = np.zeros((*tiles[:-1], tiles[-1] * block), np.int64)
        whole[np.ix_(*self._places)] = values
        return whole.reshape(*tiles, block)

    def update(self, records: Records) -> int:
        """Count the tiles that have changed since the last call; returns their number."""
        changed = 0
        for size, seen in self._seen.items():
            known = records.size(size, seen.ndim)
            known.reserve(self.layout.tile_shape(size), self.layout.tile_cells(size))
            attempts = known.attempts[tuple(map(slice, seen.shape))]
            tiles = np.argwhere(attempts != seen)
            changed += len(tiles)
            for start in range(0, len(tiles), BLOCK_TILES):
                at = tuple(tiles[start : start + BLOCK_TILES].T)
                for kind, masks in enumerate((known.done[at], known.failed[at])):
                    self._counts[size][(kind, *at)] = self._by_slot(size, masks, at)
            seen[...] = attempts
        return changed

    def _by_slot(
        self, size: int, masks: NDArray[np.uint8], at: tuple[NDArray[np.intp], ...]
    ) -> NDArray[np.intp]:
        # Masks are (tile, bytes); the result is (tile, slot of the curve), of the seeds that are wanted.
        blocks = self.layout.sizes[size]
        bits = np.unpackbits(masks, axis=-1, count=self.layout.tile_cells(size), bitorder="little")
        cells = bits.reshape(len(masks), blocks.curve_block, blocks.seed_block)
        seeds = at[-1][:, None] * blocks.seed_block + np.arange(blocks.seed_block)
        slots = self._wanted[size][at[:-1]].reshape(-1, blocks.curve_block)
        wanted = seeds[:, None, :] < slots[:, :, None]
        return np.asarray((cells & wanted).sum(axis=-1))

    def table(self, size: int) -> NDArray[np.int64]:
        """Done, failed and wanted cells of one size, (3, rows, columns), in the order of the campaign."""
        grid = self.grid
        counts = self._counts[size].sum(axis=-2, dtype=np.int64)  # over the tiles of seeds
        counts = counts[..., 0] if grid.curve is None else counts.reshape(*counts.shape[:-2], -1)
        picked = counts[np.ix_(range(2), *self._places)]
        table = np.concatenate([picked, grid.counts(size)[None]])
        name = along(grid)
        if name is not None:
            table = np.moveaxis(table, 1 + list(grid.dims).index(name), -1)
        columns = len(grid.dims[name]) if name is not None else 1
        return table.reshape(3, -1, columns)

    def map(self) -> dict[str, Any]:
        """The map as JSON.

        ``rows`` and ``columns`` are numbers of places; ``merged`` models are added up in each row (1 unless
        there are more than ``MOST_PLACES`` places). ``sizes`` holds for each size, in the order of
        ``grid.sizes``, ``done``, ``failed`` and ``wanted``, flat in C order; a place with 0 wanted cells was
        never asked for.
        """
        tables = [self.table(size) for size in self.grid.sizes]
        _, rows, columns = tables[0].shape
        most = max(1, MOST_PLACES // (columns * len(tables)))
        merged = math.ceil(rows / most)
        if merged > 1:
            starts = np.arange(0, rows, merged)
            tables = [np.add.reduceat(table, starts, axis=1) for table in tables]
        kinds = ("done", "failed", "wanted")
        return {
            "rows": tables[0].shape[1],
            "columns": columns,
            "merged": merged,
            "sizes": [
                {kind: table[k].reshape(-1).tolist() for k, kind in enumerate(kinds)} for table in tables
            ],
        }
