"""The driver: open or grow the store, order what is missing, record what comes back, stop cleanly."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import obstore
from rich.console import Console

from bendscape.core.model import ParameterError
from bendscape.sweep.campaign import Campaign
from bendscape.sweep.executor import Executor, Job, PoolLost, Result
from bendscape.sweep.isolation import CRASHED, Isolation, Part
from bendscape.sweep.kernel import Kernel
from bendscape.sweep.ledger import LeaseLost, Ledger, campaign_path
from bendscape.sweep.limits import Abandoned
from bendscape.sweep.objects import connect, exclusive, exists, probe
from bendscape.sweep.plan import Plan, plan_campaign
from bendscape.sweep.progress import Meter
from bendscape.sweep.records import Receipt
from bendscape.sweep.stop import GRACE_SECONDS, Stop, Stopped
from bendscape.sweep.store import (
    STORE_VERSION,
    Conflict,
    check_rootless,
    holds_cells,
    read_root,
    stored_variables,
    write_layout,
)
from bendscape.sweep.tiles import Layout, Task, Tile, TileKey
from bendscape.sweep.worker import Order, Superseded, run_tiles, take_note

NOTES = "ledger/notes"  # of the cells that suspected workers are at; nothing here outlives a run
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
    grace: float = GRACE_SECONDS,
    cell_timeout: float | None = None,
) -> Summary:
    """Bring a store up to a campaign: compute what is missing, and nothing else.

    Idempotent: the same call finishes an interrupted run, and extends the store when axes have grown.
    `time_budget` and `grace` (seconds) bound when it stops, see `bendscape.sweep.stop.Stop`;
    `cell_timeout` (seconds) what a cell may take, see `bendscape.sweep.limits.cell_limit`.

    Raises
    ------
    ParameterError
        The store belongs to another campaign.
    LeaseHeld, LeaseLost
        Another driver works on this store, or took it over.
    """
    started = time.monotonic()
    stop, meter = Stop(time_budget, grace), None
    if (attributes := read_root(url)) is not None:
        check_identity(url, attributes, campaign, kernel)
    probe(url)
    ledger = Ledger(connect(url))
    with stop.signals():
        ledger.acquire(console.print, about=provenance(kernel_modules))
        try:
            ledger.replay()
            attributes = read_root(url)  # again: it may have grown before the lease was ours
            before = Layout.from_json(attributes["layout"]) if attributes else None
            plan = plan_campaign(campaign, kernel, before, ledger.records, retry_failed=retry_failed)
            try:
                revision = publish(url, campaign, plan, before, attributes, ledger, stop.heed)
            except Stopped:
                stop.announce(console)
            if plan.total("tiles_left") and not stop.asked:
                executor = _started(make_executor, stop)
                meter = Meter(plan, executor.slots if executor else 1, console)
                if executor is not None:
                    drive = _Driver(
                        plan, executor, ledger, meter, stop, console,
                        Order(url, revision, kernel_modules, (), cell_timeout),
                    )  # fmt: skip
                    try:
                        with meter:
                            drive()
                    finally:
                        executor.close()
        except BaseException:
            with stop.shield(), contextlib.suppress(Exception):  # the first error is the one to show
                ledger.release()
            raise
        with stop.shield():
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
        core_seconds_left=(meter.core_seconds_left if meter else plan.seconds_left) if missing else 0.0,
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
    heed: Callable[[], None],
) -> int:
    """Create or grow the store, and keep the campaign with its provenance, if anything of it is new.

    Returns the revision of the store, which is recorded before anything changes: a worker that still has
    an older one will not write from then on, nor will a driver that was taken over while it published.

    Raises
    ------
    LeaseLost
        Another driver has changed the store since its `attributes` were read.
    Stopped
        By `heed`, before anything was published.
    ParameterError
        Cells are there, and no root that tells what they are.
    """
    if attributes is not None and attributes["spec_hash"] == campaign.spec_hash:
        revision: int = attributes["revision"]
        current = attributes["bendscape_store_version"] == STORE_VERSION
        if current and revision == ledger.revision:  # else an extension was cut short before it was published
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
    try:
        with exclusive(url, "layout"):
            rootless = attributes is None and holds_cells(url)
            if read_root(url, patient=True) != attributes:
                raise Conflict("zarr.json")
            if rootless:
                check_rootless(url)
            # From the layout and the variables `fsck --repair` can make the root again.
            variables = [vars(variable) for variable in stored_variables(plan.kernel)]
            rebuilding = {"layout": plan.layout.to_json(), "variables": variables}
            revision = ledger.record_campaign({**description, **rebuilding})

            def check() -> None:
                if exists(url, campaign_path(revision + 1)):
                    raise Conflict(campaign_path(revision + 1))

            described = {**description, "revision": revision}
            write_layout(url, plan.layout, plan.kernel, before, described, check, heed)
    except Conflict as conflict:
        raise LeaseLost(f"another driver changed {conflict} of this store meanwhile") from None
    return revision


def provenance(kernel_modules: tuple[str, ...] = ()) -> dict[str, Any]:
    """The code and the environment that computed something; a user's module by the BLAKE2b of its file."""
    modules = {
        module: hashlib.blake2b(Path(module).read_bytes(), digest_size=16).hexdigest()
        if module.endswith(".py")
        else _version_of(module)
        for module in kernel_modules
    }
    return {
        **({"kernel_modules": modules} if modules else {}),
        "code_version": code_version(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _version_of(module: str) -> str:
    try:
        return version(module.partition(".")[0])
    except PackageNotFoundError:
        return "not installed as a package"


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
    order: Order  # what all orders have in common

    def __post_init__(self) -> None:
        self._tasks = self.plan.tasks(self.executor.slots, self.meter.correction)
        self._isolation = Isolation()
        self._parts: dict[Order, Part] = {}
        self._estimates: dict[str, float] = {}
        self._under_way: dict[tuple[tuple[str, int], ...], float] = {}

    def __call__(self) -> None:
        """Until nothing is left, or the stop is asked for and what was under way is back or overdue.

        Whatever ends it, what came back is flushed before anything else may fail.
        """
        self._forget_notes()
        try:
            for result in self.executor.run(self._next_job):
                self.stop.announce(self.console)
                with self.stop.shield():
                    self._handle(result)
                if self.stop.overdue:
                    break
            overdue = self.stop.overdue
        except Abandoned:
            overdue = True
        except PoolLost as error:
            overdue = False
            self.console.print(f"{error}: what was under way is lost, what was recorded is not")
        except BaseException:
            with self.stop.shield(), contextlib.suppress(Exception):  # the first error is the one to show
                self.ledger.flush()
            raise
        with self.stop.shield():
            self.ledger.flush()
        self.stop.announce(self.console)
        if overdue:
            self.console.print("the tasks still under way are given up")

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

    def _next_job(self) -> Job | None:
        part = self._isolation.next()
        task = Task((part.tile,)) if part else next(self._tasks, None)
        if task is None:
            return None
        pace = self.meter.correction(task.N)
        ahead = sum(self._under_way.values()) / self.executor.slots  # a job waits for those before it
        if not self.stop.admits(ahead + task.seconds * pace):
            return None
        self._estimates.update((str(tile.key), tile.seconds) for tile in task.tiles)
        order = self.order._replace(
            tiles=tuple((str(tile.key), tile.mask) for tile in task.tiles),
            pace=pace,
            note=f"{NOTES}/{uuid.uuid4().hex}.json" if part and part.noted else "",
            until=self.stop.ends,
        )
        self._under_way[order.tiles] = task.seconds * pace
        if part:
            self._parts[order] = part
        whole_node = part is not None and part.whole_node
        return Job(order, int(self.plan.sizes[task.N].peak_bytes), whole_node, self.stop.deadline)

    def _lost(self, result: Result, error: Exception) -> None:
        if isinstance(error, Superseded):
            raise LeaseLost(str(error))
        order = result.job.order
        part = self._parts.pop(order, None)
        note = take_note(order) if order.note else None
        what = "worker was lost" if isinstance(error, CRASHED) else "task failed"
        self.console.print(
            f"a {what} ({type(error).__name__}: {_first_line(error)}); it goes again", markup=False
        )
        tiles = [Tile(TileKey.parse(key), mask, self._estimates[key]) for key, mask in order.tiles]
        if verdict := self._isolation.lost(tiles, part, note, error):
            self.console.print(
                f"a cell of {tiles[0].key} is recorded as failed: {_first_line(verdict.error)}", markup=False
            )
            self._take(run_tiles(order, verdict))

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
            self.meter.tiles_done -= self._isolation.back(key) > 0  # another part of it is still to come

    def _forget_notes(self) -> None:
        # Those of a run that was killed: its workers are gone with it.
        objects = connect(self.order.url)
        for page in obstore.list(objects, prefix=NOTES):
            for item in page:
                with contextlib.suppress(FileNotFoundError):  # a driver that was taken over is at it too
                    obstore.delete(objects, item["path"])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
