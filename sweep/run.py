"""The driver: open or grow the store, order what is missing, record what comes back, stop cleanly."""

from __future__ import annotations

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

from rich.console import Console

from bendscape.core.model import ParameterError
from bendscape.sweep.campaign import Campaign
from bendscape.sweep.executor import Executor, Job, Result
from bendscape.sweep.kernel import Kernel
from bendscape.sweep.ledger import Ledger
from bendscape.sweep.plan import Plan, plan_campaign
from bendscape.sweep.progress import Meter
from bendscape.sweep.store import connect, read_root, write_layout
from bendscape.sweep.tiles import Layout, Task, Tile, TileKey
from bendscape.sweep.worker import Order, run_tiles

CRASHES = 3  # workers that a tile may end before its missing cells are recorded as failed
EXIT = {"complete": 0, "failed cells": 1, "stopped": 75}
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


def check_identity(url: str, attributes: dict[str, Any], campaign: Campaign, kernel: Kernel) -> None:
    """Refuse to mix two campaigns in one store.

    Raises
    ------
    ParameterError
        With each difference.
    """
    wanted = identity(campaign, kernel)
    differences = [
        f"{k}: {attributes.get(k)!r} there, {v!r} here" for k, v in wanted.items() if attributes.get(k) != v
    ]
    if differences:
        raise ParameterError(
            "store", url, "a store of the same kernel, entropy and kind of alpha axis",
            f"{'; '.join(differences)}. Give this campaign a store of its own (campaign.store or --store)",
        )  # fmt: skip


def open_plan(url: str, campaign: Campaign, kernel: Kernel, retry_failed: bool = False) -> Plan:
    """The plan against whatever the store already holds; it changes nothing."""
    attributes = read_root(url)
    if attributes is None:
        return plan_campaign(campaign, kernel)
    check_identity(url, attributes, campaign, kernel)
    ledger = Ledger(connect(url))
    ledger.replay()
    layout = Layout.from_json(attributes["layout"])
    return plan_campaign(campaign, kernel, layout, ledger, retry_failed=retry_failed)


class Stop:
    """Asked to stop: once, admit nothing more and drain; twice, stop at once."""

    def __init__(self, budget: float | None = None) -> None:
        self.deadline = None if budget is None else time.monotonic() + budget
        self.asked = 0
        self.reason = ""

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

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Listen to SIGINT, SIGTERM and SIGUSR1; installed after Ray's own handlers, which it replaces."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.ask) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
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
    stop = Stop(time_budget)
    if (attributes := read_root(url)) is not None:
        check_identity(url, attributes, campaign, kernel)
    ledger = Ledger(connect(url))
    ledger.acquire(console.print)
    try:
        ledger.replay()
        ledger.compact()
        attributes = read_root(url)  # again: it may have grown before the lease was ours
        before = Layout.from_json(attributes["layout"]) if attributes else None
        plan = plan_campaign(campaign, kernel, before, ledger, retry_failed=retry_failed)
        publish(url, campaign, plan, before, attributes, ledger)
        ledger.beat()
        meter = None
        if plan.total("tiles_left"):
            executor = make_executor()
            try:
                meter = Meter(plan, executor.slots, console)
                with stop.signals(), meter:
                    _drive(url, campaign, plan, executor, ledger, meter, stop, kernel_modules, console)
            finally:
                executor.close()
    finally:
        ledger.release()
    end = plan_campaign(campaign, kernel, plan.layout, ledger)
    missing, failed = end.total("missing"), end.total("failed")
    return Summary(
        store=url,
        outcome="stopped" if missing else "failed cells" if failed else "complete",
        cells=end.total("cells"),
        done=end.total("done"),
        failed=failed,
        computed=meter.computed if meter else 0,
        missing=missing,
        seconds=time.monotonic() - started,
        core_seconds_left=meter.core_seconds_left if meter and missing else 0.0,
    )


def publish(
    url: str,
    campaign: Campaign,
    plan: Plan,
    before: Layout | None,
    attributes: dict[str, Any] | None,
    ledger: Ledger,
) -> None:
    """Create or grow the store, and keep the campaign with its provenance, if anything of it is new."""
    if attributes is not None and attributes["spec_hash"] == campaign.spec_hash:
        return
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
    ledger.record_campaign(description)
    write_layout(url, plan.layout, plan.kernel, before, description)


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


def _drive(
    url: str,
    campaign: Campaign,
    plan: Plan,
    executor: Executor,
    ledger: Ledger,
    meter: Meter,
    stop: Stop,
    kernel_modules: tuple[str, ...],
    console: Console,
) -> None:
    tasks = plan.tasks(executor.slots)
    memory = {N: int(plan.peak_bytes(N)) for N in plan.grid.N}
    estimates: dict[str, float] = {}
    crashes: dict[str, int] = {}
    again: deque[Task] = deque()

    def next_job() -> Job | None:
        if again:
            task = again.popleft()
        else:
            upcoming = next(tasks, None)
            if upcoming is None:
                return None
            task = upcoming
        if not stop.admits(task.seconds * meter.correction(task.N)):
            return None
        tiles = tuple((str(tile.key), tile.mask) for tile in task.tiles)
        estimates.update((str(tile.key), tile.seconds) for tile in task.tiles)
        return Job(Order(url, campaign.spec_hash, kernel_modules, tiles), memory[task.N])

    def crashed(result: Result) -> None:
        # Every tile of a lost task goes alone next time, so that the one to blame shows itself.
        assert result.error is not None
        for key, mask in result.job.order.tiles:
            if len(result.job.order.tiles) == 1:
                crashes[key] = crashes.get(key, 0) + 1
            if crashes.get(key, 0) >= CRASHES:
                take(run_tiles(result.job.order, crash=result.error))
            else:
                again.append(Task((Tile(TileKey.parse(key), mask, estimates[key]),)))
        console.print(
            f"a task was lost ({type(result.error).__name__}: {_first_line(result.error)}); it goes again"
        )

    def take(receipts: list[Any]) -> None:
        for receipt in receipts:
            key = TileKey.parse(receipt.tile)
            known = ledger.records.get(key)
            done, failed = (known.done, known.failed) if known else (0, 0)
            ledger.add([receipt])
            merged = ledger.records[key]
            meter.advance(
                key.N,
                done=(merged.done & ~done).bit_count(),
                failed=merged.failed.bit_count() - failed.bit_count(),
                computed=receipt.computed,
                estimated=estimates[receipt.tile],
                measured=receipt.seconds,
            )

    announced = False
    for result in executor.run(next_job):
        ledger.beat()
        if result is None:
            ledger.add([])
            meter.tick()
        elif result.error is not None:
            crashed(result)
        else:
            take(result.receipts)
        if stop.asked and not announced:
            announced = True
            console.print(
                f"stopping on {stop.reason}: waiting for the tasks under way; once more stops at once"
            )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
