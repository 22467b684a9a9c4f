"""The wanted tiles of every size, as arrays: a million of them are planned in seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bendscape.sweep.campaign.axes import Cell, Scalar, cell_type
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.campaign.tiles import Layout, Tile, TileKey
from bendscape.sweep.store.records import Records, as_int

BLOCK_CELLS = 2**22  # cells handled together, one byte each
ESTIMATES = 5  # curve blocks per model at which the kernel is asked; linear interpolation in between


class Block(NamedTuple):
    """Wanted tiles of one size: rows are points (model dimensions, curve block), columns seed blocks.

    `points` holds storage indices, shape (rows, dimensions); `want`, `done` and `failed` are masks of shape
    (rows, columns, bytes), the latter two restricted to wanted cells; `cell_seconds` and `peak_bytes`, shape
    (rows,), are the kernel's estimates at the largest wanted value of the curve.
    """

    points: NDArray[np.intp]
    want: NDArray[np.uint8]
    done: NDArray[np.uint8]
    failed: NDArray[np.uint8]
    attempted: NDArray[np.uint32]
    measured: NDArray[np.float64]
    cell_seconds: NDArray[np.float64]
    peak_bytes: NDArray[np.float64]

    def missing(self, retry_failed: bool) -> NDArray[np.uint8]:
        """The masks of the cells to be computed."""
        return self.want & ~self.done if retry_failed else self.want & ~(self.done | self.failed)


def count(masks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of cells in every mask."""
    counted: NDArray[np.int64] = np.bitwise_count(masks).sum(axis=-1, dtype=np.int64)
    return counted


@dataclass
class Wanted:
    """The wanted points of one size.

    `points` holds storage indices, shape (rows, dimensions); `seeds` the number of seeds wanted in each slot
    of the curve block, shape (rows, slots), and 0 where the point is not wanted.
    """

    layout: Layout
    size: int
    points: NDArray[np.intp]
    seeds: NDArray[np.int64]
    cell_seconds: NDArray[np.float64]
    peak_bytes: NDArray[np.float64]

    @classmethod
    def of(cls, layout: Layout, grid: Grid, kernel: Kernel, size: int) -> Wanted:
        """The points of one size that `grid` wants, and the kernel's estimates of their cost."""
        block, counts = layout.sizes[size].curve_block, grid.counts(size)
        places = [_places(layout.dims[name], values) for name, values in grid.dims.items()]
        long = grid.curve is not None
        length = len(layout.dims[layout.curve]) if layout.curve is not None else 1
        blocks, curve_at = math.ceil(length / block), places[-1] if long else np.zeros(1, np.intp)
        shape = grid.shape[:-1] if long else grid.shape
        models = counts.reshape(math.prod(shape), -1)
        indices = np.indices(shape).reshape(len(shape), len(models))
        model_at = np.zeros((len(models), len(shape)), dtype=np.intp)
        for column, (at, index) in enumerate(zip(places, indices, strict=False)):
            model_at[:, column] = at[index]
        wanted = np.zeros((len(models), blocks * block), dtype=np.int64)
        wanted[:, curve_at] = models
        by_block = wanted.reshape(len(models), blocks, block)
        rows, columns = np.nonzero(by_block.any(axis=2))
        seconds, peaks = _estimates(kernel, grid, size, models > 0, curve_at // block, blocks)
        points = np.column_stack([model_at[rows], columns]) if long else model_at[rows]
        there = rows, columns
        return cls(layout, size, points, by_block[there], seconds[there], peaks[there])

    def blocks(self, records: Records) -> Iterator[Block]:
        """All wanted tiles with their records, in blocks of bounded size."""
        size, cells = self.layout.sizes[self.size], self.layout.tile_cells(self.size)
        most = math.ceil(self.seeds.max(initial=0) / size.seed_block)
        known = records.size(self.size, len(self.layout.cell_dims))
        known.reserve(self.layout.tile_shape(self.size), cells)
        step = max(1, BLOCK_CELLS // (max(1, most) * cells))
        for start in range(0, len(self.points), step):
            rows = slice(start, start + step)
            columns = math.ceil(self.seeds[rows].max() / size.seed_block)
            run = np.arange(columns * size.seed_block).reshape(columns, 1, size.seed_block)
            at = (*self.points[rows].T, slice(columns))
            masks = (run < self.seeds[rows, None, :, None]).reshape(-1, columns, cells)
            want = np.packbits(masks, axis=-1, bitorder="little")
            yield Block(
                points=self.points[rows],
                want=want,
                done=known.done[at] & want,
                failed=known.failed[at] & want,
                attempted=known.computed[at],
                measured=known.seconds[at],
                cell_seconds=self.cell_seconds[rows],
                peak_bytes=self.peak_bytes[rows],
            )

    def tiles(self, records: Records, retry_failed: bool) -> Iterator[Tile]:
        """Every tile with cells to compute, with the mask of those cells."""
        for block in self.blocks(records):
            missing = block.missing(retry_failed)
            cells = count(missing)
            for row, column in np.argwhere(cells).tolist():
                key = TileKey(self.size, (*block.points[row].tolist(), column))
                seconds = float(block.cell_seconds[row]) * int(cells[row, column])
                yield Tile(key, as_int(missing[row, column]), seconds)


def _places(stored: tuple[Scalar, ...], values: tuple[Scalar, ...]) -> NDArray[np.intp]:
    at = {value: place for place, value in enumerate(stored)}
    return np.array([at[value] for value in values], dtype=np.intp)


def _estimates(
    kernel: Kernel,
    grid: Grid,
    size: int,
    keep: NDArray[np.bool_],
    block_of: NDArray[np.intp],
    blocks: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds and bytes of the most expensive wanted cell of every model and block of the curve.

    The kernel is asked at a few points of each model; in between its estimates are interpolated linearly.
    `keep` says which points of a model are wanted, `block_of` in which block each point lies.
    """
    seconds, peaks = np.zeros((len(keep), blocks)), np.zeros((len(keep), blocks))
    by_model = {name: column.reshape(len(keep), -1) for name, column in grid.points(size).items()}
    coordinates = np.array(grid.dims[grid.curve] if grid.curve is not None else [0.0])
    made = cell_type(grid.axes)

    def cell(row: int, place: int) -> Cell:
        values = {name: column[row, place].item() for name, column in by_model.items()}
        coordinate = coordinates[place].item() if grid.curve is not None else None
        return made(**values, seed=0, coordinate=coordinate)

    for row in np.flatnonzero(keep.any(axis=1)).tolist():
        wanted = np.flatnonzero(keep[row])
        last = np.full(blocks, -1)
        np.maximum.at(last, block_of[wanted], wanted)  # the coordinates of a campaign increase
        present = np.flatnonzero(last >= 0)
        asked = np.sort(last[present])
        if len(asked) > ESTIMATES:
            asked = asked[np.linspace(0, len(asked) - 1, ESTIMATES).round().astype(int)]
        cells = [cell(row, place) for place in asked.tolist()]
        for into, of in ((seconds, kernel.seconds), (peaks, kernel.peak_bytes)):
            estimates = [of(one) for one in cells]
            into[row, present] = np.interp(coordinates[last[present]], coordinates[asked], estimates)
    return seconds, peaks


def wanted_tiles(layout: Layout, grid: Grid, kernel: Kernel) -> Iterator[Tile]:
    """Every tile of the grid with its wanted cells, the largest sizes first."""
    for size in sorted(grid.sizes, reverse=True):
        yield from Wanted.of(layout, grid, kernel, size).tiles(Records(), retry_failed=False)
