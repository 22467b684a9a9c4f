"""A run: open or grow the store, compute what is missing of a campaign, stop cleanly."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console

from bendscape.sweep.campaign.file import Campaign
from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.engine.driver import Driver
from bendscape.sweep.engine.executor import Executor
from bendscape.sweep.engine.hidden import Hidden, hidden_cells
from bendscape.sweep.engine.identity import check_identity, identity, kernel_source
from bendscape.sweep.engine.plan import Plan, plan_campaign
from bendscape.sweep.engine.progress import Meter
from bendscape.sweep.engine.provenance import provenance
from bendscape.sweep.engine.stop import BUDGET, CORE_HOURS, GRACE_SECONDS, Stop, Stopped, least_budget
from bendscape.sweep.engine.worker import Order
from bendscape.sweep.store.compare_and_swap import Conflict
from bendscape.sweep.store.ledger import LeaseLost, Ledger, campaign_path
from bendscape.sweep.store.objects import connect, exclusive, exists, probe
from bendscape.sweep.store.publish import stored_variables, write_layout
from bendscape.sweep.store.root import STORE_VERSION, Store, holds_cells, read_store, rootless
from bendscape.sweep.store.runs import OWN, core_seconds_left

EXIT = {"complete": 0, "failed cells": 1, "stopped": 75}


@dataclass(frozen=True)
class Summary:
    """How a run ended. `outcome` is "complete", "failed cells" or "stopped".

    `core_seconds_left` is the plan's estimate, as `bendscape status` shows it. `hidden` is the number of
    finished cells of the store that the campaign does not name. `time_budget_needed` (seconds) is set only if
    the budget was too short to compute anything. `core_seconds` is the computing time measured by
    the workers; `reason` says why the run stopped.
    """

    store: str
    outcome: str
    cells: int
    done: int
    failed: int
    computed: int
    missing: int
    seconds: float
    core_seconds_left: float
    hidden: int = 0
    time_budget_needed: float | None = None
    core_seconds: float = 0.0
    reason: str = ""

    @property
    def exit_code(self) -> int:
        """0 complete, 1 finished with failed cells, 75 stopped cleanly with work left."""
        return EXIT[self.outcome]


def open_plan(url: str, campaign: Campaign, kernel: Kernel) -> tuple[Plan, Hidden]:
    """The plan for what the store does not hold yet, and the cells it would hide; nothing is changed."""
    store = read_store(url)
    if store is None:
        return plan_campaign(campaign, kernel), Hidden(0, {})
    check_identity(store, campaign, kernel)
    plan = plan_campaign(campaign, kernel, store.layout.on(kernel.axes), store.ledger.records)
    return plan, hidden_cells(plan, store.ledger)


def run_campaign(
    campaign: Campaign,
    url: str,
    kernel: Kernel,
    make_executor: Callable[[], Executor],
    *,
    console: Console,
    kernel_modules: tuple[str, ...] = (),
    kernel_pickle: bytes = b"",
    retry_failed: bool = False,
    time_budget: float | None = None,
    core_hours: Mapping[str, float] | None = None,
    grace: float = GRACE_SECONDS,
    cell_timeout: float | None = None,
    accept_kernel_change: bool = False,
    max_memory: float | None = None,
) -> Summary:
    """Bring a store up to a campaign: compute what is missing, and nothing else.

    Idempotent: the same call finishes an interrupted run, and extends the store when axes have grown.
    `time_budget` and `grace` (seconds) bound when it stops, see `bendscape.sweep.engine.stop.Stop`;
    `core_hours` limits the computing time by label; all runs of the store with the same label share its
    limit (the label "" belongs to this run alone; `math.inf` is no limit);
    `cell_timeout` (seconds) bounds the time of a cell, see `bendscape.sweep.engine.limits.cell_limit`.
    Workers load the kernel by its name, also from `kernel_modules`, or from `kernel_pickle` if it is given.
    `accept_kernel_change` allows the source of the kernel to differ from that which computed the store.
    `max_memory` (bytes) is what the tasks on one machine may use together, by default what it has.

    Raises
    ------
    ParameterError
        The store belongs to another campaign, or to another source of the kernel; a task needs more memory
        than there is.
    LeaseHeld, LeaseLost
        Another driver works on this store, or took it over.
    """
    started = ready = time.monotonic()
    campaign.to_grid(kernel.axes)  # reports mistakes in the file before a store is created
    stop, meter = Stop(time_budget, grace), None

    def found() -> Store | None:
        if (store := read_store(url)) is not None:
            check_identity(store, campaign, kernel, accept_kernel_change=accept_kernel_change)
        return store

    found()
    probe(url)
    ledger = Ledger(connect(url))
    with stop.signals():
        limits = {label: 3600 * of if math.isfinite(of) else None for label, of in (core_hours or {}).items()}
        charges = {label: limit for label, limit in limits.items() if label != OWN}
        ledger.acquire(console.print, about=provenance(kernel, kernel_modules) | {"charges": charges})
        try:
            ledger.replay()
            store = found()  # read again: another run may have extended it before we held the lease
            before = store.layout.on(kernel.axes) if store else None
            plan = plan_campaign(campaign, kernel, before, ledger.records, retry_failed=retry_failed)
            plan.check_memory(math.inf if max_memory is None else max_memory)
            try:
                revision = publish(url, campaign, plan, store, ledger, stop.heed)
            except Stopped:
                stop.announce(console)
            left = core_seconds_left(ledger, limits)
            stop.core_seconds = min(left.values(), default=math.inf)
            next_tile = plan.next_tile
            if next_tile is not None:
                stop.admits(-math.inf, next_tile[1])  # too dear, whenever it ends: no executor is started
            if plan.total("tiles_left") and not stop.asked:
                executor = _started(make_executor, stop)
                ready = time.monotonic()
                memory = min(executor.memory if executor else math.inf, max_memory or math.inf)
                meter = Meter(plan, executor.slots if executor else 1, console, memory)
                if executor is not None:
                    drive = Driver(
                        plan, executor, ledger, meter, stop, console,
                        Order(url, revision, kernel_modules, (), cell_timeout, kernel_digest=kernel.digest,
                              kernel_pickle=kernel_pickle),
                        campaign.campaign.name,
                    )  # fmt: skip
                    try:
                        plan.check_memory(memory)
                        with meter:
                            drive()
                    finally:
                        executor.close()
            plan.retry_failed = False  # failed cells have been retried
            plan.recount()
            missing, failed = plan.total("missing"), plan.total("failed")
            outcome = "stopped" if missing else "failed cells" if failed else "complete"
        except BaseException as error:
            at_once = isinstance(error, KeyboardInterrupt)
            with stop.shield(), contextlib.suppress(Exception):  # the first error is the one to show
                ledger.release("stopped" if at_once else "error", type(error).__name__)
            raise
        with stop.shield():
            ledger.release(outcome, stop.reason if missing else "")
    computed = meter.computed if meter else 0
    if not computed and stop.reason == CORE_HOURS:
        console.print(_too_dear(plan, next_tile, left, limits), markup=False)
    needed = _needed(plan, next_tile, ready - started) if not computed and stop.reason == BUDGET else None
    if needed is not None:
        console.print(needed.line(time_budget or 0.0), markup=False)
    if line := hidden_cells(plan, ledger).line(url):
        console.print(line, markup=False)
    return Summary(
        store=url,
        outcome=outcome,
        cells=plan.total("cells"),
        done=plan.total("done"),
        failed=failed,
        computed=computed,
        missing=missing,
        seconds=time.monotonic() - started,
        core_seconds_left=plan.seconds_left,
        hidden=plan.hidden,
        time_budget_needed=needed.seconds if needed else None,
        core_seconds=ledger.account.core_seconds,
        reason=stop.reason if missing else "",
    )


class _Needed(NamedTuple):
    """A budget that is long enough to compute something, and what takes so long."""

    seconds: float
    start: float
    where: str
    tile: float

    def line(self, budget: float) -> str:
        return (
            f"nothing was computed: --time-budget {budget:.3g}s is too short for any progress. Starting "
            f"takes {self.start:.2g} s, a tile{self.where and f' of {self.where}'} about {self.tile:.2g} s; "
            f"use --time-budget {math.ceil(self.seconds)}s or more"
        )


def _needed(plan: Plan, tile: tuple[int, float] | None, start: float) -> _Needed | None:
    if tile is None:
        return None
    size, seconds = tile
    return _Needed(1.1 * least_budget(start + seconds), start, plan.size_in_words(size), seconds)


def _too_dear(
    plan: Plan,
    tile: tuple[int, float] | None,
    left: Mapping[str, float],
    limits: Mapping[str, float | None],
) -> str:
    label = min(left, key=lambda name: left[name])
    of, limit = f" of {label!r}" if label else "", (limits[label] or 0.0) / 3600
    if left[label] <= 0 or tile is None:
        return f"nothing was computed: the {limit:.4g} core-hours{of} are used"
    size, seconds = tile
    at = plan.size_in_words(size)
    return (
        f"nothing was computed: {left[label] / 3600:.2g} of the {limit:.4g} core-hours{of} are left, and a "
        f"tile{at and f' of {at}'} takes about {seconds / 3600:.2g}"
    )


def _started(make_executor: Callable[[], Executor], stop: Stop) -> Executor | None:
    try:
        executor = make_executor()
    except SystemExit:  # Ray's SIGTERM handler, until ours is installed again
        stop.ask(signal.SIGTERM)
        return None
    stop.listen()
    return executor


def publish(
    url: str,
    campaign: Campaign,
    plan: Plan,
    store: Store | None,
    ledger: Ledger,
    heed: Callable[[], None],
) -> int:
    """Create or extend the store, and record the campaign with its provenance if anything in it is new.

    Returns the revision of the store, which is recorded before anything changes. From then on a worker with
    an older revision will not write, nor will a driver that was taken over while it published.

    Raises
    ------
    LeaseLost
        Another driver has changed the store since it was read.
    Stopped
        By `heed`, before anything was published.
    ParameterError
        There are cells, but no root that describes them.
    """
    source = kernel_source(store, plan.kernel)
    attributes = store.attributes if store else None
    before = store.layout.on(plan.kernel.axes) if store else None
    same = attributes is not None and source.items() <= attributes.items()
    spec_hash, asked = campaign.spec_hash(plan.kernel.axes), campaign.canonical(plan.kernel.axes)
    if attributes is not None and same and attributes["spec_hash"] == spec_hash:
        revision: int = attributes["revision"]
        current = attributes["bendscape_store_version"] == STORE_VERSION
        if current and revision == ledger.revision:  # otherwise an extension was interrupted
            return revision
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    description = {
        "name": campaign.campaign.name,
        **identity(campaign, plan.kernel),
        **source,
        "campaign": campaign.text,
        "grid": asked["grid"],
        "spec_hash": spec_hash,
        "created": attributes["created"] if attributes else now,
        "revised": now,
        **provenance(),
    }
    try:
        with exclusive(url, "layout"):
            cells = attributes is None and holds_cells(url)
            now_there = read_store(url, patient=True)
            if (now_there.attributes if now_there else None) != attributes:
                raise Conflict("zarr.json")
            if cells:
                raise rootless(url)
            # `fsck --repair` can rebuild the root from the layout and the variables.
            variables = [vars(variable) for variable in stored_variables(plan.kernel)]
            rebuilding = {"layout": plan.layout.to_json(), "variables": variables}
            revision = ledger.record_campaign({**description, **rebuilding})

            def check() -> None:
                if exists(url, campaign_path(revision + 1)):
                    raise Conflict(campaign_path(revision + 1))

            described = {**description, "revision": revision}
            write_layout(url, plan.layout, plan.kernel, before, described, check, heed)
    except Conflict as conflict:
        raise LeaseLost(f"another run has meanwhile changed {conflict} of this store") from None
    return revision
