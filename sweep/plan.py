"""The plan: what a campaign would do, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bendscape.core.model import ParameterError
from bendscape.sweep.campaign import Campaign
from bendscape.sweep.grid import Grid
from bendscape.sweep.kernel import Kernel
from bendscape.sweep.records import Records
from bendscape.sweep.store import stored_variables
from bendscape.sweep.tiles import Layout, Task, Tile, bundle
from bendscape.sweep.wanted import Wanted, count

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
    """A campaign against what is recorded: what is wanted and what is left of it."""

    layout: Layout
    grid: Grid
    kernel: Kernel
    records: Records = field(default_factory=Records)
    retry_failed: bool = False
    sizes: dict[int, SizePlan] = field(init=False)

    def __post_init__(self) -> None:
        self._wanted = {N: Wanted.of(self.layout, self.grid, self.kernel, N) for N in self.grid.N}
        self.recount()

    def recount(self) -> None:
        """Count again what is recorded: the records may have grown since."""
        self.sizes = {N: self._count(wanted) for N, wanted in self._wanted.items()}

    def _count(self, wanted: Wanted) -> SizePlan:
        size = SizePlan()
        if len(wanted.peak_bytes):
            size.peak_bytes = float(wanted.peak_bytes.max()) + self._tile_bytes(wanted.N)
        for block in wanted.blocks(self.records):
            cells, missing = count(block.want), count(block.missing(self.retry_failed))
            cost = block.cell_seconds[:, None]
            size.cells += int(cells.sum())
            size.done += int(count(block.done).sum())
            size.failed += int(count(block.failed).sum())
            size.tiles += int((cells > 0).sum())
            size.tiles_left += int((missing > 0).sum())
            size.seconds += float((cost * cells).sum())
            size.seconds_left += float((cost * missing).sum())
            size.estimated += float((cost * block.attempted).sum())
            size.measured += float(block.measured.sum())
        return size

    def _tile_bytes(self, N: int) -> float:
        blocks = self.layout.sizes[N]
        return 8.0 * len(stored_variables(self.kernel)) * blocks.alpha_block * blocks.seed_block

    def total(self, name: str) -> Any:
        """Sum of a column of `sizes`."""
        return sum(getattr(size, name) for size in self.sizes.values())

    @property
    def seconds_left(self) -> float:
        """Seconds of one core that are left, estimates corrected by what was measured."""
        return sum(size.seconds_left * size.correction for size in self.sizes.values())

    def task_seconds(self, slots: int) -> float:
        """Duration to aim a task at: enough tasks to keep every slot busy to the end, none too short."""
        shortest, longest = TASK_SECONDS
        share = self.seconds_left / (slots * TASKS_PER_SLOT)
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
        for N in sorted(self.grid.N, reverse=True):
            yield from self._wanted[N].tiles(self.records, self.retry_failed)

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
            "core_hours_left": self.seconds_left / 3600,
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
    records: Records | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Plan a campaign on a new store, or on one that already has a layout and records.

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
    tiles = sum(math.prod(grown.tile_shape(N)) for N in grid.N)
    if tiles > MAX_TILES:
        raise ParameterError("grid", f"{tiles} tiles", f"at most {MAX_TILES} tiles", "split the campaign")
    return Plan(grown, grid, kernel, Records() if records is None else records, retry_failed)
