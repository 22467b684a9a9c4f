"""What a grid wants of a layout: the tiles of every size as arrays, so that a million plan in seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bendscape.core.quadratic.model import Model
from bendscape.sweep.campaign.grid import Cell, Grid
from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.campaign.tiles import Layout, Tile, TileKey
from bendscape.sweep.store.records import Records, as_int

BLOCK_CELLS = 2**22  # cells looked at together, one byte each
ESTIMATES = 5  # alpha blocks of a model at which the kernel is asked; in between, straight lines


class Block(NamedTuple):
    """Wanted tiles of one size: rows are points (p, p_star, a, alpha block), columns seed blocks.

    `points` holds storage indices, shape (rows, 4); `want`, `done` and `failed` are masks of shape (rows,
    columns, bytes), what is recorded cut to what is wanted; `cell_seconds` and `peak_bytes`, shape (rows,),
    are the kernel's estimates at the largest wanted alpha.
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
        """The masks of what is to be computed."""
        return self.want & ~self.done if retry_failed else self.want & ~(self.done | self.failed)


def count(masks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Cells in every mask."""
    counted: NDArray[np.int64] = np.bitwise_count(masks).sum(axis=-1, dtype=np.int64)
    return counted


@dataclass
class Wanted:
    """The wanted points of one size."""

    layout: Layout
    N: int
    seeds: int
    points: NDArray[np.intp]
    slots: NDArray[np.bool_]
    cell_seconds: NDArray[np.float64]
    peak_bytes: NDArray[np.float64]

    @classmethod
    def of(cls, layout: Layout, grid: Grid, kernel: Kernel, N: int) -> Wanted:
        """What `grid` wants of size N, and what the kernel says that it costs."""
        size, keep = layout.sizes[N], grid.wanted(N)
        blocks = math.ceil(len(layout.alpha) / size.alpha_block)
        alpha_at = np.array([layout.alpha.index(value) for value in grid.alpha])
        factors = np.array(layout.alpha + (0.0,) * (blocks * size.alpha_block - len(layout.alpha)))
        rows: list[tuple[int, ...]] = []
        slots, seconds, peaks = [np.zeros((0, size.alpha_block), dtype=bool)], [np.zeros(0)], [np.zeros(0)]
        for index, model in grid.models():
            at = layout.p.index(model.p), layout.p_star.index(model.p_star), layout.a.index(model.a)
            wanted = np.zeros(blocks * size.alpha_block, dtype=bool)
            wanted[alpha_at[keep[index]]] = True
            by_block = wanted.reshape(blocks, size.alpha_block)
            present = np.flatnonzero(by_block.any(axis=1))
            if not present.size:
                continue
            top = np.where(by_block, factors.reshape(blocks, size.alpha_block), 0.0).max(axis=1)[present]
            costs = _estimates(kernel, grid.p[index[0]], model, N, top, float(grid.units[index]))
            rows.extend((*at, block) for block in present.tolist())
            slots.append(by_block[present])
            seconds.append(costs[0])
            peaks.append(costs[1])
        points = np.array(rows, dtype=np.intp).reshape(-1, 4)
        found = (np.concatenate(parts) for parts in (slots, seconds, peaks))
        return cls(layout, N, grid.seeds[N], points, *found)

    def blocks(self, records: Records) -> Iterator[Block]:
        """All wanted tiles with what is recorded of them, some at a time."""
        size = self.layout.sizes[self.N]
        columns = math.ceil(self.seeds / size.seed_block)
        cells = size.alpha_block * size.seed_block
        run = np.arange(columns * size.seed_block).reshape(columns, 1, size.seed_block) < self.seeds
        known = records.size(self.N)
        known.reserve(self.layout.tile_shape(self.N), cells)
        step = max(1, BLOCK_CELLS // (columns * cells))
        for start in range(0, len(self.points), step):
            rows = slice(start, start + step)
            at = (*self.points[rows].T, slice(columns))
            masks = (self.slots[rows, None, :, None] & run).reshape(-1, columns, cells)
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
        """Every tile with cells to compute, and the mask of those."""
        for block in self.blocks(records):
            missing = block.missing(retry_failed)
            cells = count(missing)
            for row, column in np.argwhere(cells).tolist():
                key = TileKey._make((self.N, *block.points[row].tolist(), column))
                seconds = float(block.cell_seconds[row]) * int(cells[row, column])
                yield Tile(key, as_int(missing[row, column]), seconds)


def _estimates(
    kernel: Kernel, p: int, model: Model, N: int, factors: NDArray[np.float64], unit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # Seconds and bytes of a cell at each alpha, from a few of them: estimates bear straight lines.
    asked = factors
    if len(factors) > ESTIMATES:
        asked = np.sort(factors)[np.linspace(0, len(factors) - 1, ESTIMATES).round().astype(int)]
    cells = [Cell(p, model.p_star, model.a, factor * unit, N, 0, factor) for factor in asked.tolist()]
    seconds = [kernel.seconds(cell) for cell in cells]
    peaks = [kernel.peak_bytes(cell) for cell in cells]
    if asked is factors:
        return np.array(seconds, dtype=float), np.array(peaks, dtype=float)
    return np.interp(factors, asked, seconds), np.interp(factors, asked, peaks)


def wanted_tiles(layout: Layout, grid: Grid, kernel: Kernel) -> Iterator[Tile]:
    """Every tile of the grid with the cells wanted, the dearest sizes first."""
    for N in sorted(grid.N, reverse=True):
        yield from Wanted.of(layout, grid, kernel, N).tiles(Records(), retry_failed=False)
