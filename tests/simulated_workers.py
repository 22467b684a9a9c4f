"""An executor whose workers are times on a simulated clock, and a driver that takes as long as it takes here.

A worker computes nothing: its job ends when its tiles would, on the clock. The driver is the real one, and
the CPU time that it spends on a result or an order passes on the clock too, so that workers wait for a driver
that cannot keep up. As on Ray, jobs beyond those that run wait in a queue, from which a worker helps itself.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.kernel import Kernel, Variable
from bendscape.sweep.engine.driver import Driver
from bendscape.sweep.engine.executor import Job, Result
from bendscape.sweep.engine.plan import Plan, plan_campaign
from bendscape.sweep.engine.progress import Meter
from bendscape.sweep.engine.stop import Stop
from bendscape.sweep.engine.worker import Order
from bendscape.sweep.kernels.quadratic import NETWORK
from bendscape.sweep.location import store_url
from bendscape.sweep.store import ledger as ledger_module
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.records import Receipt

CAMPAIGN = """
[campaign]
name = "busy"
store = "unused"
entropy = 1
kernel = "made-up"
tile_seconds = {tile_seconds}
[grid]
p = [1, 2, 3, 4, 5]
p_star = [1, 2]
a = [0.7, 1.5]
alpha = {{ start = 0.5, stop = 2.0, num = 50 }}
N = [1024]
seeds = {seeds}
"""
POINTS = 5 * 2 * 2 * 50
CELL_SECONDS = 0.02
MOST_WAITING = 1000  # as on Ray
KERNEL = Kernel(
    "made-up",
    1,
    (Variable("x", "a number"),),
    None,  # type: ignore[arg-type]
    lambda cell: CELL_SECONDS,
    lambda cell: 1e6,
    **NETWORK,
)


def cpu_seconds() -> float:
    """The driver's own time: other processes on this machine do not count."""
    return time.process_time()


class SimulatedWorkers:
    """Workers on a clock that starts at 0 and stands at `now`.

    Parameters
    ----------
    slots
        Workers.
    tile_seconds
        Mean time of a whole tile; each is drawn around it, with a relative spread of a fifth.
    look_seconds, order_seconds
        What the executor itself takes to see which of so many jobs are back, and to order one.
    driver_seconds
        The time of the driver, by default its CPU time here; a test gives a made-up one.
    """

    memory = float("inf")

    def __init__(
        self,
        slots: int,
        tile_seconds: float = 2.0,
        look_seconds: Callable[[int], float] = lambda jobs: 0.0,
        order_seconds: float = 0.0,
        driver_seconds: Callable[[], float] = cpu_seconds,
    ) -> None:
        self.slots, self.now, self.driver = slots, 0.0, 0.0
        self.worked, self.tiles, self.jobs = 0.0, 0, 0
        self.last_order = 0.0  # when the last job was given out: from then on there is nothing to do
        self.tile_seconds, self._look, self._order = tile_seconds, look_seconds, order_seconds
        self._seconds, self._rng = driver_seconds, np.random.default_rng(1)
        self._free, self._numbers = slots, itertools.count()
        self._running: list[tuple[float, int, float, Job]] = []  # end, number, start, job
        self._queue: deque[Job] = deque()
        self._back: deque[Job] = deque()
        self._spans: list[tuple[float, float]] = []

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        """Results in the order of completion."""
        more = True
        while True:
            while more and self._under_way() < self.slots + min(MOST_WAITING, self.slots):
                began = self._seconds()
                job = next_job()
                self._driver_takes(self._seconds() - began)
                more = job is not None
                if job is not None:
                    self._driver_takes(self._order)
                    self._queue.append(job)
                    self.last_order = self.now
                    self._until(self.now)
            if not self._running and not self._back:
                return
            if not self._back:
                self._until(self._running[0][0])
            self._driver_takes(self._look(self._under_way()))
            for _ in range(len(self._back)):  # what comes back meanwhile is seen at the next look
                job = self._back.popleft()
                began = self._seconds()
                yield Result(job, self._receipts(job), None)
                self._driver_takes(self._seconds() - began)
            more = True

    def _under_way(self) -> int:
        return len(self._running) + len(self._queue) + len(self._back)

    def _driver_takes(self, seconds: float) -> None:
        self.driver += seconds
        self._until(self.now + seconds)

    def _until(self, moment: float) -> None:
        # Everything that workers do by themselves up to a moment.
        at = self.now
        while True:
            while self._free and self._queue:
                job = self._queue.popleft()
                mean = self.tile_seconds
                drawn = self._rng.normal(mean, mean / 5, len(job.order.tiles))
                end = at + float(np.clip(drawn, 0.2 * mean, 1.8 * mean).sum())
                heapq.heappush(self._running, (end, next(self._numbers), at, job))
                self._free -= 1
            if not self._running or self._running[0][0] > moment:
                break
            at, _, start, job = heapq.heappop(self._running)
            self._spans.append((start, at))
            self._free += 1
            self._back.append(job)
        self.now = max(self.now, moment)

    def _receipts(self, job: Job) -> list[Receipt]:
        self.jobs += 1
        self.tiles += len(job.order.tiles)
        return [
            Receipt(
                tile, mask, 0, mask.bit_count(), self.tile_seconds, "host", self.now, hash(tile) & 2**63 - 1
            )
            for tile, mask in job.order.tiles
        ]

    def busy(self) -> float:
        """Share of the workers' time, until the last job was given out, in which they computed."""
        end = self.last_order
        return sum(min(to, end) - min(since, end) for since, to in self._spans) / (self.slots * end)

    def close(self) -> None:
        """Nothing to end."""


class _Clock:
    """The time of the simulation, for the ledger, which flushes by it."""

    def __init__(self, pool: SimulatedWorkers) -> None:
        self._pool = pool
        self.time, self.sleep = time.time, time.sleep

    def monotonic(self) -> float:
        """Seconds since the workers began."""
        return self._pool.now


def drive(pool: SimulatedWorkers, folder: str | Path, seconds: float) -> Plan:
    """A campaign that takes these workers about so many simulated seconds; the ledger is in the folder."""
    seeds = max(1, round(pool.slots * seconds / CELL_SECONDS / POINTS))
    campaign = parse_campaign(CAMPAIGN.format(seeds=seeds, tile_seconds=pool.tile_seconds))
    plan, console, url = plan_campaign(campaign, KERNEL), Console(quiet=True), store_url(folder)
    pool.tile_seconds = plan.total("seconds") / plan.total("tiles")
    real, ledger_module.time = ledger_module.time, _Clock(pool)  # type: ignore[assignment]
    try:
        ledger = Ledger(connect(url), plan.records)
        ledger.acquire(console.print)
        meter = Meter(plan, pool.slots, console)
        Driver(plan, pool, ledger, meter, Stop(), console, Order(url, 1, (), ()))()
        ledger.release()
    finally:
        ledger_module.time = real
    return plan
