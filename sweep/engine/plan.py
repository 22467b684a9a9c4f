"""The plan: what a campaign would do, worked out before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.filesize import decimal

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import Campaign
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.campaign.tiles import Layout, Task, Tile, bundle
from bendscape.sweep.engine.wanted import Wanted, count
from bendscape.sweep.store.records import Records

TASK_SECONDS = (0.5, 8.0)  # shortest worth a round trip, longest that a clean stop should have to wait for
TASKS_PER_SLOT = 16
MAX_TILES = 10_000_000


@dataclass
class SizePlan:
    """Cells of one size: wanted, recorded as finished or failed; seconds left; memory of the largest task.

    Seconds are the kernel's estimates. `estimated` and `measured` are the estimated and the measured seconds
    of the recorded cells, so that an estimate can be corrected by the speed of this machine.
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
    def missing(self) -> int:
        """Cells that are neither finished nor failed."""
        return self.cells - self.done - self.failed


def correction(size: int, estimated: Mapping[int, float], measured: Mapping[int, float]) -> float:
    """Ratio of measured to estimated seconds of one size; if it has no records, of all sizes; else 1."""
    if estimated.get(size):
        return measured[size] / estimated[size]
    total = sum(estimated.values())
    return sum(measured.values()) / total if total else 1.0


@dataclass
class Plan:
    """A campaign compared with what is recorded: the cells that are wanted and those that are left."""

    layout: Layout
    grid: Grid
    kernel: Kernel
    records: Records = field(default_factory=Records)
    retry_failed: bool = False
    sizes: dict[int, SizePlan] = field(init=False)

    def __post_init__(self) -> None:
        self._wanted = {n: Wanted.of(self.layout, self.grid, self.kernel, n) for n in self.grid.sizes}
        self.recount()

    def correction(self, size: int) -> float:
        """Factor that corrects the kernel's estimates for a size, from the recorded times."""
        estimated = {n: of.estimated for n, of in self.sizes.items()}
        return correction(size, estimated, {n: of.measured for n, of in self.sizes.items()})

    @property
    def hidden(self) -> int:
        """Number of finished cells that this campaign does not name; they are kept but not shown to
        readers."""
        finished = sum(int(np.bitwise_count(size.done).sum()) for size in self.records.sizes.values())
        return finished - int(self.total("done"))

    def check_memory(self, available: float) -> None:
        """Refuse a plan that cannot run because of its memory, before anything runs.

        Raises
        ------
        ParameterError
            A remaining task needs more than the `available` bytes.
        """
        for n, size in sorted(self.sizes.items(), reverse=True):
            if size.tiles_left and size.peak_bytes > available:
                at = self.size_in_words(n)
                raise ParameterError(
                    "memory of a task", f"{_bytes(size.peak_bytes)}{at and f' at {at}'}",
                    f"at most {_bytes(available)}, the memory available or allowed by --max-memory",
                    f"leave out {at or 'its most expensive cells'}, or run where there is more memory",
                )  # fmt: skip

    def size_in_words(self, size: int) -> str:
        """ "N = 128"; empty for a kernel without a size axis."""
        axis = self.grid.axes.size
        return "" if axis is None else f"{axis.name} = {size}"

    def recount(self) -> None:
        """Count again what is recorded, after the records have grown."""
        self.sizes = {n: self._count(wanted) for n, wanted in self._wanted.items()}

    def _count(self, wanted: Wanted) -> SizePlan:
        size = SizePlan()
        if len(wanted.peak_bytes):
            size.peak_bytes = float(wanted.peak_bytes.max()) + self._tile_bytes(wanted.size)
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

    def _tile_bytes(self, size: int) -> float:
        return float(self.kernel.cell_bytes() * self.layout.tile_cells(size))

    def total(self, name: str) -> Any:
        """Sum over sizes of one attribute of `SizePlan`."""
        return sum(getattr(size, name) for size in self.sizes.values())

    @property
    def seconds_left(self) -> float:
        """Seconds left on one core, with estimates corrected by measured times."""
        return sum(of.seconds_left * self.correction(n) for n, of in self.sizes.items())

    def task_seconds(self, slots: int) -> float:
        """Target duration of a task: enough tasks to keep every slot busy to the end, none too short."""
        shortest, longest = TASK_SECONDS
        share = self.seconds_left / (slots * TASKS_PER_SLOT)
        return max(shortest, min(longest, share))

    def tasks(self, slots: int, correction: Callable[[int], float] | None = None) -> Iterator[Task]:
        """Bundles of the tiles that have missing cells, the most expensive first.

        `correction(size)` multiplies the estimates of a size. It is called as tasks are taken, so that
        finished tasks improve the estimates for later ones.
        """
        return bundle(self._left(), self.task_seconds(slots), correction or self.correction)

    def _left(self) -> Iterator[Tile]:
        for size in sorted(self.grid.sizes, reverse=True):
            yield from self._wanted[size].tiles(self.records, self.retry_failed)

    @property
    def next_tile(self) -> tuple[int, float] | None:
        """Size and corrected seconds of the tile that would be computed first."""
        tile = next(self._left(), None)
        return None if tile is None else (tile.key.size, tile.seconds * self.correction(tile.key.size))

    def stored_bytes(self) -> int:
        """Bytes of all arrays before compression."""
        return int(self.total("cells")) * self.kernel.cell_bytes()

    def stored_objects(self) -> int:
        """Objects of all tiles: one for each variable, and the status."""
        return int(self.total("tiles")) * (len(self.kernel.variables) + 1)

    def to_json(self, slots: int) -> dict[str, Any]:
        """The plan as `bendscape plan --json` prints it."""
        axis = self.grid.axes.size
        return {
            "cells": self.total("cells"),
            "tiles": self.total("tiles"),
            "tasks": sum(1 for _ in self.tasks(slots)),
            "cells_left": self.total("missing") + (self.total("failed") if self.retry_failed else 0),
            "cells_hidden": self.hidden,
            "core_hours": sum(s.seconds * self.correction(n) for n, s in self.sizes.items()) / 3600,
            "core_hours_left": self.seconds_left / 3600,
            "bytes": self.stored_bytes(),
            "objects": self.stored_objects(),
            "peak_bytes_per_task": max(size.peak_bytes for size in self.sizes.values()),
            "slots": slots,
            "sizes": [
                {
                    axis.name if axis else "size": n,
                    **vars(s),
                    "correction": self.correction(n),
                    "missing": s.missing,
                    "tile": self.layout.chunks(n),
                }
                for n, s in self.sizes.items()
            ],
        }


def _bytes(number: float) -> str:
    return decimal(int(number)) if math.isfinite(number) else "any number of bytes"


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
        The kernel refuses a point, no point is wanted, or there are more than `MAX_TILES` tiles.
    """
    grid = campaign.to_grid(kernel.axes)
    if kernel.check is not None:
        kernel.check(grid)
    if not any(grid.wanted(size).any() for size in grid.sizes):
        raise ParameterError("grid.where", grid.where, "a condition that keeps at least one point")
    grown = Layout.of(grid, kernel, layout, campaign.campaign.tile_seconds)
    tiles = sum(math.prod(grown.tile_shape(size)) for size in grid.sizes)
    if tiles > MAX_TILES:
        raise ParameterError("grid", f"{tiles} tiles", f"at most {MAX_TILES} tiles", "split the campaign")
    return Plan(grown, grid, kernel, Records() if records is None else records, retry_failed)
