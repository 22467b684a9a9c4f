"""The loop of a run: hands out the missing tasks, records their receipts and handles lost tasks."""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from dataclasses import dataclass
from functools import partial

import obstore
from rich.console import Console

from bendscape.sweep.campaign.tiles import Task, Tile, TileKey
from bendscape.sweep.engine.executor import Executor, Job, PoolLost, Result, WorkerLost
from bendscape.sweep.engine.isolation import Isolation, Part
from bendscape.sweep.engine.limits import Abandoned
from bendscape.sweep.engine.metrics import Tally
from bendscape.sweep.engine.plan import Plan
from bendscape.sweep.engine.progress import Meter
from bendscape.sweep.engine.stop import Stop
from bendscape.sweep.engine.worker import Order, Superseded, run_tiles, take_note
from bendscape.sweep.store.ledger import LeaseLost, Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.records import Receipt
from bendscape.sweep.texts import message_of

LATE = 3  # times its estimate, after which a job may be computed a second time
NOTES = "ledger/notes"  # which cell a suspected worker is computing; deleted by the next run


@dataclass
class Driver:
    """Hands out the missing tasks, records their receipts and handles lost tasks."""

    plan: Plan
    executor: Executor
    ledger: Ledger
    meter: Meter
    stop: Stop
    console: Console
    order: Order  # the fields common to all orders
    campaign: str = ""  # its name, for metrics

    def __post_init__(self) -> None:
        self._tasks = self.plan.tasks(self.executor.slots, self.meter.correction)
        self._isolation = Isolation()
        self._tally = Tally(self.executor, self.campaign)
        self._parts: dict[Order, Part] = {}
        self._estimates: dict[str, float] = {}
        self._under_way: dict[tuple[tuple[str, int], ...], float] = {}
        self._twice = 0.0  # core seconds for jobs that are computed a second time, which have no receipts

    def __call__(self) -> None:
        """Run until nothing is left, or until a stop was requested and all tasks are back or overdue.

        Receipts that have been received are flushed however the loop ends.
        """
        self._forget_notes()
        try:
            for result in self.executor.run(self._next_job):
                self.stop.announce(self.console)
                with self.stop.shield():
                    self._handle(result)
                if self._tally.due:
                    self._report()
                if self.stop.overdue:
                    break
            overdue = self.stop.overdue
        except Abandoned:
            overdue = True
        except PoolLost as error:
            overdue = False
            self.console.print(f"{error}: the tasks under way are lost; what was recorded is kept")
        except BaseException:
            with self.stop.shield(), contextlib.suppress(Exception):  # the first error is the one to show
                self.ledger.flush()
            raise
        with self.stop.shield():
            self.ledger.flush()
        self._report()
        self.stop.announce(self.console)
        if overdue:
            self.console.print("giving up the tasks still under way")

    def _handle(self, result: Result | None) -> None:
        if result is None:
            self.ledger.add([])
            self.meter.tick()
            return
        self._under_way.pop(result.job.order.tiles, None)
        if result.error is not None:
            self._lost(result, result.error)
        else:
            if self._parts.pop(result.job.order, None) and result.job.order.note:
                take_note(result.job.order)
            self._take(result.receipts)

    def _report(self) -> None:
        meter = self.meter
        self._tally.report(
            {
                "campaign_cells": meter.cells,
                "campaign_cells_done": meter.done,
                "campaign_cells_failed": meter.failed,
                "campaign_cells_left": max(0, meter.cells - meter.done - meter.failed),
                "tiles_in_flight": sum(map(len, self._under_way)),
                "campaign_core_seconds_left": meter.core_seconds_left,
                "slots": self.executor.slots,
            }
        )

    def _next_job(self) -> Job | None:
        part = self._isolation.next()
        task = Task((part.tile,)) if part else next(self._tasks, None)
        if task is None:
            return None
        pace = self.meter.correction(task.size)
        ahead = sum(self._under_way.values()) / self.executor.slots  # time until the tasks under way are done
        committed = self._committed()
        first = task.tiles[0].seconds * pace
        # The first tile must fit. The worker leaves out later tiles that would end too late. The driver
        # leaves out those that would exceed the core-hours, because it alone knows the total.
        if not self.stop.admits(ahead + first, committed + first):
            return None
        task = task.within(self.stop.core_seconds - committed, pace)
        name = self.plan.layout.name
        self._estimates.update((name(tile.key), tile.seconds) for tile in task.tiles)
        order = self.order._replace(
            tiles=tuple((name(tile.key), tile.mask) for tile in task.tiles),
            pace=pace,
            note=f"{NOTES}/{uuid.uuid4().hex}.json" if part and part.noted else "",
            until=self.stop.ends,
        )
        self._under_way[order.tiles] = seconds = task.seconds * pace
        if part:
            self._parts[order] = part
        whole_node = part is not None and part.whole_node
        again = partial(self._again, seconds)
        return Job(order, int(self.plan.sizes[task.size].peak_bytes), whole_node, self.stop.deadline, again)

    def _committed(self) -> float:
        return self.ledger.account.core_seconds + sum(self._under_way.values()) + self._twice

    def _again(self, seconds: float, waited: float) -> bool:
        # A job that takes long is rather slow than lost, and the second one costs core-hours, too. It may
        # exceed them only where the run would otherwise wait without end.
        deadline = self.stop.deadline()
        if waited < LATE * seconds or time.monotonic() + seconds > deadline:
            return False
        if math.isfinite(deadline) and self._committed() + seconds > self.stop.core_seconds:
            return False
        self._twice += seconds
        return True

    def _lost(self, result: Result, error: Exception) -> None:
        if isinstance(error, Superseded):
            raise LeaseLost(str(error))
        self._tally.add("tasks_lost", isinstance(error, WorkerLost))
        order = result.job.order
        part = self._parts.pop(order, None)
        note = take_note(order) if order.note else None
        what, then = ("worker lost", "its task") if isinstance(error, WorkerLost) else ("task failed", "it")
        self.console.print(
            f"{what} ({type(error).__name__}: {_first_line(error)}); retrying {then}", markup=False
        )
        tiles = [Tile(TileKey.parse(key), mask, self._estimates[key]) for key, mask in order.tiles]
        if verdict := self._isolation.lost(tiles, part, note, error):
            self.console.print(
                f"a cell of {self.plan.layout.name(tiles[0].key)} is recorded as failed: "
                f"{_first_line(verdict.error)}",
                markup=False,
            )
            self._take(run_tiles(order, verdict))

    def _take(self, receipts: list[Receipt]) -> None:
        for receipt in receipts:
            key = TileKey.parse(receipt.tile)
            done, failed = self.ledger.records.masks(key)
            self.ledger.add([receipt])
            done_now, failed_now = self.ledger.records.masks(key)
            self._tally.add("cells_done", (done_now & ~done).bit_count())
            self._tally.add("cells_failed", receipt.failed.bit_count())
            self._tally.add("core_seconds", receipt.seconds)
            self.meter.advance(
                key.size,
                done=(done_now & ~done).bit_count(),
                failed=failed_now.bit_count() - failed.bit_count(),
                computed=receipt.computed,
                estimated=self._estimates.pop(receipt.tile),
                measured=receipt.seconds,
            )
            self.meter.tiles_done -= self._isolation.back(key) > 0  # another part of it is still to come

    def _forget_notes(self) -> None:
        # Notes of a run that was killed; its workers ended with it.
        objects = connect(self.order.url)
        for page in obstore.list(objects, prefix=NOTES):
            for item in page:
                with contextlib.suppress(FileNotFoundError):  # a driver without the lease may delete it
                    obstore.delete(objects, item["path"])


def _first_line(error: BaseException) -> str:
    return (message_of(error).strip().splitlines() or [""])[0][:200]
