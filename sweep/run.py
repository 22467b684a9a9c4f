"""The driver: open or grow the store, order what is missing, record what comes back, stop cleanly."""

from __future__ import annotations

import contextlib
import platform
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from rich.console import Console

from bendscape.core.model import ParameterError
from bendscape.sweep.campaign import Campaign
from bendscape.sweep.executor import Executor, Job, PoolLost, Result
from bendscape.sweep.kernel import Kernel
from bendscape.sweep.ledger import LeaseLost, Ledger
from bendscape.sweep.objects import connect, probe
from bendscape.sweep.plan import Plan, plan_campaign
from bendscape.sweep.progress import Meter
from bendscape.sweep.records import Receipt
from bendscape.sweep.store import read_root, write_layout
from bendscape.sweep.tiles import Layout, Task, Tile, TileKey
from bendscape.sweep.worker import Order, Superseded, run_tiles

CRASHES = 3  # workers that a tile may end before its missing cells are recorded as failed
EXIT = {"complete": 0, "failed cells": 1, "stopped": 75}
CRASH = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError)
PACKAGES = ("bendscape", "numpy", "scipy", "ray", "zarr", "obstore")


@dataclass(frozen=True)
class Summary:
    """How a run ended. `outcome` is "complete", "failed cells" or "stopped"."""

    store: str
    outcome: str
    cells: int
    done: int
    failed: int
    computed: int
    missing: int
    seconds: float
    core_seconds_left: float

    @property
    def exit_code(self) -> int:
        """0 complete, 1 finished with failed cells, 75 stopped cleanly with work left."""
        return EXIT[self.outcome]


def identity(campaign: Campaign, kernel: Kernel) -> dict[str, Any]:
    """What may never change within a store: everything that decides the bits of a cell."""
    return {
        "kernel": kernel.name,
        "kernel_version": kernel.version,
        "entropy": campaign.campaign.entropy,
        "alpha_around": campaign.grid.alpha.around,
    }


def _differences(attributes: dict[str, Any], campaign: Campaign, kernel: Kernel) -> list[str]:
    wanted = identity(campaign, kernel)
    return [
        f"{k}: {attributes.get(k)!r} there, {v!r} here" for k, v in wanted.items() if attributes.get(k) != v
    ]


def check_identity(url: str, attributes: dict[str, Any], campaign: Campaign, kernel: Kernel) -> None:
    """Refuse to mix two campaigns in one store.

    Raises
    ------
    ParameterError
        With each difference.
    """
    if differences := _differences(attributes, campaign, kernel):
        raise ParameterError(
            "store", url, "a store of the same kernel, entropy and kind of alpha axis",
            f"{'; '.join(differences)}. Give this campaign a store of its own (--store), or the next "
            "generation of this one (--new-generation)",
        )  # fmt: skip


def generation(url: str, campaign: Campaign, kernel: Kernel) -> str:
    """The first that is this campaign's, or free, of `s.zarr`, `s.generation-2.zarr`, ..."""
    stem, suffix = (url.removesuffix(".zarr"), ".zarr") if url.endswith(".zarr") else (url, "")
    number, candidate = 1, url
    while (attributes := read_root(candidate)) is not None and _differences(attributes, campaign, kernel):
        number += 1
        candidate = f"{stem}.generation-{number}{suffix}"
    return candidate


def open_plan(url: str, campaign: Campaign, kernel: Kernel) -> Plan:
    """The plan against whatever the store already holds; it changes nothing."""
    attributes = read_root(url)
    if attributes is None:
        return plan_campaign(campaign, kernel)
    check_identity(url, attributes, campaign, kernel)
    ledger = Ledger(connect(url))
    ledger.replay()
    layout = Layout.from_json(attributes["layout"])
    return plan_campaign(campaign, kernel, layout, ledger.records)


class Stop:
    """Asked to stop: once, admit nothing more and drain; twice, stop at once."""

    def __init__(self, budget: float | None = None) -> None:
        self.deadline = None if budget is None else time.monotonic() + budget
        self.asked = 0
        self.reason = ""
        self.announced = False

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """A signal handler: it only sets a flag, and the second time raises."""
        self.asked += 1
        self.reason = signal.Signals(number).name
        if self.asked > 1:
            raise KeyboardInterrupt

    def admits(self, seconds: float) -> bool:
        """Whether a task of this length may start."""
        if self.deadline is not None and time.monotonic() + seconds > self.deadline:
            self.asked, self.reason = max(1, self.asked), "the time budget"
        return not self.asked

    def announce(self, console: Console) -> None:
        """Say once why the run stops."""
        if self.asked and not self.announced:
            self.announced = True
            console.print(f"stopping on {self.reason}; a second signal does not wait for the tasks under way")

    def listen(self) -> dict[int, Any]:
        """Take the signals, again after Ray's start, which replaces handlers; returns those before."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {s: signal.signal(s, self.ask) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Listen, and give the handlers back afterwards."""
        before = self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def run_campaign(
    campaign: Campaign,
    url: str,
    kernel: Kernel,
    make_executor: Callable[[], Executor],
    *,
    console: Console,
    kernel_modules: tuple[str, ...] = (),
    retry_failed: bool = False,
    time_budget: float | None = None,
) -> Summary:
    """Bring a store up to a campaign: compute what is missing, and nothing else.

    Idempotent: the same call finishes an interrupted run, and extends the store when axes have grown.

    Raises
    ------
    ParameterError
        The store belongs to another campaign.
    LeaseHeld, LeaseLost
        Another driver works on this store, or took it over.
    """
    started = time.monotonic()
    stop, meter = Stop(time_budget), None
    if (attributes := read_root(url)) is not None:
        check_identity(url, attributes, campaign, kernel)
    probe(url)
    ledger = Ledger(connect(url))
    ledger.acquire(console.print, about=provenance())
    try:
        with stop.signals():
            ledger.replay()
            attributes = read_root(url)  # again: it may have grown before the lease was ours
            before = Layout.from_json(attributes["layout"]) if attributes else None
            plan = plan_campaign(campaign, kernel, before, ledger.records, retry_failed=retry_failed)
            revision = publish(url, campaign, plan, before, attributes, ledger)
            if plan.total("tiles_left") and not stop.asked:
                executor = _started(make_executor, stop)
                meter = Meter(plan, executor.slots if executor else 1, console)
                if executor is not None:
                    drive = _Driver(
                        plan, executor, ledger, meter, stop, console, url, revision, kernel_modules
                    )
                    try:
                        with meter:
                            drive()
                    finally:
                        executor.close()
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to show
            ledger.release()
        raise
    ledger.release()
    plan.recount()
    missing, failed = plan.total("missing"), plan.total("failed")
    return Summary(
        store=url,
        outcome="stopped" if missing else "failed cells" if failed else "complete",
        cells=plan.total("cells"),
        done=plan.total("done"),
        failed=failed,
        computed=meter.computed if meter else 0,
        missing=missing,
        seconds=time.monotonic() - started,
        core_seconds_left=meter.core_seconds_left if meter and missing else 0.0,
    )


def _started(make_executor: Callable[[], Executor], stop: Stop) -> Executor | None:
    try:
        executor = make_executor()
    except SystemExit:  # Ray's own answer to SIGTERM, in the moments before ours is back
        stop.ask(signal.SIGTERM)
        return None
    stop.listen()
    return executor


def publish(
    url: str,
    campaign: Campaign,
    plan: Plan,
    before: Layout | None,
    attributes: dict[str, Any] | None,
    ledger: Ledger,
) -> int:
    """Create or grow the store, and keep the campaign with its provenance, if anything of it is new.

    Returns the revision of the store, which is recorded before anything changes: a worker that still has
    an older one will not write from then on.
    """
    if attributes is not None and attributes["spec_hash"] == campaign.spec_hash:
        revision: int = attributes["revision"]
        if revision == ledger.revision:  # else an extension was cut short before it was published
            return revision
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    description = {
        "name": campaign.campaign.name,
        **identity(campaign, plan.kernel),
        "campaign": campaign.text,
        "grid": campaign.grid.model_dump(mode="json"),
        "spec_hash": campaign.spec_hash,
        "created": attributes["created"] if attributes else now,
        "revised": now,
        **provenance(),
    }
    revision = ledger.record_campaign(description)
    write_layout(url, plan.layout, plan.kernel, before, {**description, "revision": revision})
    return revision


def provenance() -> dict[str, Any]:
    """The code and the environment that computed something."""
    return {
        "code_version": code_version(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def code_version() -> str:
    """Version of the package, with the commit and a `dirty` flag where it runs from a checkout."""
    folder, text = Path(__file__).parent, version("bendscape")
    if not (folder.parent / ".git").exists():
        return text
    try:
        git = [
            "git",
            "-C",
            str(folder.parent),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
            "--exclude=*",
        ]
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return f"{text}+{commit}" if commit else text


@dataclass
class _Driver:
    """Orders what is missing, records what comes back, and decides about what does not."""

    plan: Plan
    executor: Executor
    ledger: Ledger
    meter: Meter
    stop: Stop
    console: Console
    url: str
    revision: int
    kernel_modules: tuple[str, ...]

    def __post_init__(self) -> None:
        self._tasks = self.plan.tasks(self.executor.slots, self.meter.correction)
        self._again: deque[Task] = deque()
        self._estimates: dict[str, float] = {}
        self._losses: dict[str, int] = {}

    def __call__(self) -> None:
        """Until nothing is left, or the stop is asked for and what was under way is back."""
        try:
            for result in self.executor.run(self._next_job):
                self.stop.announce(self.console)
                if result is None:
                    self.ledger.add([])
                    self.meter.tick()
                elif result.error is not None:
                    self._lost(result, result.error)
                else:
                    self._take(result.receipts)
        except PoolLost as error:
            self.console.print(f"{error}: what was under way is lost, what was recorded is not")
        self.stop.announce(self.console)

    def _next_job(self) -> Job | None:
        task = self._again.popleft() if self._again else next(self._tasks, None)
        if task is None or not self.stop.admits(task.seconds * self.meter.correction(task.N)):
            return None
        tiles = tuple((str(tile.key), tile.mask) for tile in task.tiles)
        self._estimates.update((str(tile.key), tile.seconds) for tile in task.tiles)
        order = Order(self.url, self.revision, self.kernel_modules, tiles)
        return Job(order, int(self.plan.sizes[task.N].peak_bytes))

    def _lost(self, result: Result, error: BaseException) -> None:
        # Every tile of a lost task goes alone next time, so that the one to blame shows itself.
        if isinstance(error, Superseded):
            raise LeaseLost(str(error))
        tiles = result.job.order.tiles
        what = "worker was lost" if isinstance(error, CRASH) else "task failed"
        self.console.print(
            f"a {what} ({type(error).__name__}: {_first_line(error)}); it goes again", markup=False
        )
        for key, mask in tiles:
            if len(tiles) == 1:
                self._losses[key] = self._losses.get(key, 0) + 1
            if self._losses.get(key, 0) < CRASHES:
                self._again.appendleft(Task((Tile(TileKey.parse(key), mask, self._estimates[key]),)))
            elif isinstance(error, CRASH):
                self._take(run_tiles(result.job.order, crash=error))
            else:
                raise error  # not the cells' fault: the store cannot be written, say

    def _take(self, receipts: list[Receipt]) -> None:
        for receipt in receipts:
            key = TileKey.parse(receipt.tile)
            done, failed = self.ledger.records.masks(key)
            self.ledger.add([receipt])
            done_now, failed_now = self.ledger.records.masks(key)
            self.meter.advance(
                key.N,
                done=(done_now & ~done).bit_count(),
                failed=failed_now.bit_count() - failed.bit_count(),
                computed=receipt.computed,
                estimated=self._estimates.pop(receipt.tile),
                measured=receipt.seconds,
            )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
