"""The plan: what a campaign would do, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bendscape.core.model import ParameterError
from bendscape.sweep.campaign import Campaign
from bendscape.sweep.grid import Grid
from bendscape.sweep.kernel import Kernel
from bendscape.sweep.ledger import Ledger
from bendscape.sweep.store import stored_variables
from bendscape.sweep.tiles import Layout, Task, Tile, bundle, wanted_tiles

TASK_SECONDS = (0.5, 8.0)  # shortest worth a round trip, longest that a clean stop should wait for
TASKS_PER_SLOT = 16
MAX_TILES = 10_000_000


@dataclass
class SizePlan:
    """Cells of one size: wanted, recorded as finished or failed; seconds left; memory of its dearest task.

    Seconds are the kernel's estimates. What the recorded cells were estimated to take, and what they took,
    stand beside them, so that an estimate can be corrected by what this machine does.
    """

    cells: int = 0
    done: int = 0
    failed: int = 0
    tiles: int = 0
    tiles_left: int = 0
    seconds: float = 0.0
    seconds_left: float = 0.0
    estimated: float = 0.0
    measured: float = 0.0
    peak_bytes: float = 0.0

    @property
    def correction(self) -> float:
        """Measured over estimated seconds of what is recorded; 1 where nothing is."""
        return self.measured / self.estimated if self.estimated else 1.0

    @property
    def missing(self) -> int:
        """Cells that are neither finished nor failed."""
        return self.cells - self.done - self.failed


@dataclass
class Plan:
    """A campaign against the ledger: what is wanted and what is left of it."""

    layout: Layout
    grid: Grid
    kernel: Kernel
    ledger: Ledger | None = None
    retry_failed: bool = False
    sizes: dict[int, SizePlan] = field(init=False)

    def __post_init__(self) -> None:
        self.sizes = {N: SizePlan() for N in self.grid.N}
        for tile in wanted_tiles(self.layout, self.grid, self.kernel):
            size = self.sizes[tile.key.N]
            wanted = tile.mask.bit_count()
            done, failed = self._recorded(tile)
            missing = self._missing(tile)
            size.cells += wanted
            size.done += (tile.mask & done).bit_count()
            size.failed += (tile.mask & failed).bit_count()
            size.tiles += 1
            size.tiles_left += bool(missing)
            size.seconds += tile.seconds
            size.seconds_left += tile.seconds * missing.bit_count() / wanted
            if self.ledger and (record := self.ledger.records.get(tile.key)):
                size.estimated += tile.seconds * record.computed / wanted
                size.measured += record.seconds
            if tile.key.seed == 0:  # memory does not depend on the seed
                *_, cell = next(self.layout.cells(tile.key, 1 << (tile.mask.bit_length() - 1)))
                size.peak_bytes = max(
                    size.peak_bytes, self.kernel.peak_bytes(cell) + self._tile_bytes(cell.N)
                )

    def _tile_bytes(self, N: int) -> float:
        blocks = self.layout.sizes[N]
        return 8.0 * len(stored_variables(self.kernel)) * blocks.alpha_block * blocks.seed_block

    def _recorded(self, tile: Tile) -> tuple[int, int]:
        record = self.ledger.records.get(tile.key) if self.ledger else None
        return (record.done, record.failed) if record else (0, 0)

    def _missing(self, tile: Tile) -> int:
        done, failed = self._recorded(tile)
        return tile.mask & ~done & ~(0 if self.retry_failed else failed)

    def total(self, name: str) -> Any:
        """Sum of a column of `sizes`."""
        return sum(getattr(size, name) for size in self.sizes.values())

    def task_seconds(self, slots: int) -> float:
        """Duration to aim a task at: enough tasks to keep every slot busy to the end, none too short."""
        shortest, longest = TASK_SECONDS
        left = sum(size.seconds_left * size.correction for size in self.sizes.values())
        share = left / (slots * TASKS_PER_SLOT)
        return max(shortest, min(longest, share))

    def tasks(self, slots: int, correction: Callable[[int], float] | None = None) -> Iterator[Task]:
        """Bundles of the tiles that have missing cells, the dearest first.

        `correction(N)` multiplies the estimates of a size. It is asked as the tasks are taken, so that one
        that learns from what came back shapes the tasks still to come.
        """
        return bundle(
            self._left(), self.task_seconds(slots), correction or (lambda N: self.sizes[N].correction)
        )

    def _left(self) -> Iterator[Tile]:
        for tile in wanted_tiles(self.layout, self.grid, self.kernel):
            if missing := self._missing(tile):
                seconds = tile.seconds * missing.bit_count() / tile.mask.bit_count()
                yield Tile(tile.key, missing, seconds)

    def stored_bytes(self) -> int:
        """Bytes of all arrays before compression."""
        cell = sum({"float64": 8, "int64": 8, "int8": 1}[v.dtype] for v in stored_variables(self.kernel))
        return int(self.total("cells")) * cell

    def to_json(self, slots: int) -> dict[str, Any]:
        """The plan as `bendscape plan --json` prints it."""
        return {
            "cells": self.total("cells"),
            "tiles": self.total("tiles"),
            "tasks": sum(1 for _ in self.tasks(slots)),
            "cells_left": self.total("missing") + (self.total("failed") if self.retry_failed else 0),
            "core_hours": sum(s.seconds * s.correction for s in self.sizes.values()) / 3600,
            "core_hours_left": sum(s.seconds_left * s.correction for s in self.sizes.values()) / 3600,
            "bytes": self.stored_bytes(),
            "peak_bytes_per_task": max(size.peak_bytes for size in self.sizes.values()),
            "slots": slots,
            "sizes": [
                {
                    "N": n,
                    **vars(s),
                    "correction": s.correction,
                    "missing": s.missing,
                    "tile": self.layout.chunks(n),
                }
                for n, s in self.sizes.items()
            ],
        }


def plan_campaign(
    campaign: Campaign,
    kernel: Kernel,
    layout: Layout | None = None,
    ledger: Ledger | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Plan a campaign on a new store, or on one that already has a layout and a ledger.

    Raises
    ------
    ParameterError
        A point has less than one sample, no point is wanted, or there are more than `MAX_TILES` tiles.
    """
    grid = campaign.to_grid()
    grid.check_samples()
    if not any(grid.wanted(N).any() for N in grid.N):
        raise ParameterError("grid.where", grid.where, "a condition that keeps at least one point")
    grown = Layout.of(grid, kernel, layout)
    tiles = sum(grown.tile_count(N) for N in grid.N)
    if tiles > MAX_TILES:
        raise ParameterError("grid", f"{tiles} tiles", f"at most {MAX_TILES} tiles", "split the campaign")
    return Plan(grown, grid, kernel, ledger, retry_failed)
