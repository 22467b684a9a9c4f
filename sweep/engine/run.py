"""A run: open or grow the store, compute what is missing of a campaign, stop cleanly."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from bendscape.sweep.campaign.file import Campaign, parse_campaign
from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.engine.budgets import budget_needed, too_dear
from bendscape.sweep.engine.driver import Driver
from bendscape.sweep.engine.executor import Executor
from bendscape.sweep.engine.hidden import Hidden, hidden_cells
from bendscape.sweep.engine.identity import check_identity, identity, kernel_source
from bendscape.sweep.engine.plan import Plan, plan_campaign
from bendscape.sweep.engine.progress import Meter
from bendscape.sweep.engine.provenance import provenance
from bendscape.sweep.engine.rounds import UNREACHABLE, Rounds, aim_of, announce, reasons_in_words
from bendscape.sweep.engine.stop import BUDGET, CORE_HOURS, GRACE_SECONDS, Stop, Stopped
from bendscape.sweep.engine.worker import Order
from bendscape.sweep.store.compare_and_swap import Conflict
from bendscape.sweep.store.ledger import LeaseLost, Ledger, campaign_path
from bendscape.sweep.store.objects import connect, exclusive, exists, probe
from bendscape.sweep.store.publish import stored_variables, write_layout
from bendscape.sweep.store.root import STORE_VERSION, Store, holds_cells, read_store, rootless
from bendscape.sweep.store.rounds import Round
from bendscape.sweep.store.runs import OWN, core_seconds_left

EXIT = {"complete": 0, "failed cells": 1, UNREACHABLE: 3, "stopped": 75}


@dataclass(frozen=True)
class Summary:
    """How a run ended. `outcome` is "complete", "failed cells", "stopped" or, for a campaign with a target,
    "target unreachable".

    `core_seconds_left` is the plan's estimate, as `bendscape status` shows it. `hidden` is the number of
    finished cells of the store that the campaign does not name. `time_budget_needed` (seconds) is set only if
    the budget was too short to compute anything. `core_seconds` is the computing time measured by
    the workers; `reason` says why the run stopped, or why the target is unreachable. `rounds` is the number
    of rounds that have added cells to a campaign with a target, and `models` the states of its models as of
    the last analysis (the fields of `bendscape.sweep.campaign.target.ModelState`, null where unknown).
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
    rounds: int = 0
    models: tuple[dict[str, Any], ...] = ()

    @property
    def exit_code(self) -> int:
        """0 complete, 1 finished with failed cells, 3 target unreachable, 75 stopped cleanly with work
        left."""
        return EXIT[self.outcome]


def open_plan(url: str, campaign: Campaign, kernel: Kernel) -> tuple[Plan, Hidden]:
    """The plan for what the store does not hold yet, and the cells it would hide; nothing is changed.

    The recorded rounds of a campaign with a target are part of it.
    """
    store = read_store(url)
    if store is None:
        return plan_campaign(campaign, kernel), Hidden(0, {})
    check_identity(store, campaign, kernel)
    if (rounds := Rounds.of(campaign, kernel, store)) is not None:
        campaign = rounds.campaign
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
    A campaign with a target goes in rounds, see `bendscape.sweep.engine.rounds`.

    Raises
    ------
    ParameterError
        The store belongs to another campaign, or to another source of the kernel; a task needs more memory
        than there is.
    LeaseHeld, LeaseLost
        Another driver works on this store, or took it over.
    """
    started = time.monotonic()
    campaign.to_grid(kernel.axes)  # reports mistakes in the file before a store is created
    aim_of(campaign, kernel)
    stop = Stop(time_budget, grace)

    def found() -> Store | None:
        if (store := read_store(url)) is not None:
            check_identity(store, campaign, kernel, accept_kernel_change=accept_kernel_change)
        return store

    found()
    probe(url)
    ledger = Ledger(connect(url))
    order = Order(
        url, 0, kernel_modules, (), cell_timeout, kernel_digest=kernel.digest, kernel_pickle=kernel_pickle
    )
    work = _Work(url, kernel, ledger, stop, console, make_executor, order, max_memory, started)
    with stop.signals():
        limits = {label: 3600 * of if math.isfinite(of) else None for label, of in (core_hours or {}).items()}
        charges = {label: limit for label, limit in limits.items() if label != OWN}
        ledger.acquire(console.print, about=provenance(kernel, kernel_modules) | {"charges": charges})
        try:
            ledger.replay()
            rounds = Rounds.of(campaign, kernel, found(), ledger)
            left = core_seconds_left(ledger, limits)
            of_target = math.inf if rounds is None else rounds.core_seconds_left(ledger)
            stop.core_seconds = min(*left.values(), of_target, math.inf)
            try:
                plan = work(campaign if rounds is None else rounds.campaign, found, retry_failed)
                end = None if rounds is None else _play(rounds, work, plan, found)
            finally:
                work.close()
            plan = work.plan or plan
            missing, failed = plan.total("missing"), plan.total("failed")
            spent = stop.reason == CORE_HOURS and of_target <= min(left.values(), default=math.inf)
            outcome, reason = _ending(rounds, end, missing, failed, stop, spent)
        except BaseException as error:
            at_once = isinstance(error, KeyboardInterrupt)
            with stop.shield(), contextlib.suppress(Exception):  # the first error is the one to show
                ledger.release("stopped" if at_once else "error", type(error).__name__)
            raise
        with stop.shield():
            ledger.release(outcome, reason)
    needed = None
    if not work.computed and stop.reason == CORE_HOURS and not spent:
        console.print(too_dear(plan, work.next_tile, left, limits), markup=False)
    if spent:
        console.print(f"{UNREACHABLE}: {reason}", markup=False)
    if not work.computed and stop.reason == BUDGET:
        needed = budget_needed(plan, work.next_tile, work.ready - started)
    if needed is not None:
        console.print(needed.line(time_budget or 0.0), markup=False)
    if line := hidden_cells(plan, ledger).line(url):
        console.print(line, markup=False)
    last = rounds.last if rounds is not None else None
    return Summary(
        store=url,
        outcome=outcome,
        cells=plan.total("cells"),
        done=plan.total("done"),
        failed=failed,
        computed=work.computed,
        missing=missing,
        seconds=time.monotonic() - started,
        core_seconds_left=plan.seconds_left,
        hidden=plan.hidden,
        time_budget_needed=needed.seconds if needed else None,
        core_seconds=ledger.account.core_seconds,
        reason=reason,
        rounds=0 if rounds is None else sum(of.outcome == "open" for of in rounds.recorded),
        models=tuple(last.to_json()["models"]) if last is not None else (),
    )


@dataclass
class _Work:
    """What computes the cells of a campaign and of its rounds: a call brings the store up to one plan."""

    url: str
    kernel: Kernel
    ledger: Ledger
    stop: Stop
    console: Console
    make_executor: Callable[[], Executor]
    order: Order
    max_memory: float | None
    ready: float  # when the first cells could start
    computed: int = 0
    next_tile: tuple[int, float] | None = None
    plan: Plan | None = None
    executor: Executor | None = None

    def __call__(
        self, campaign: Campaign, found: Callable[[], Store | None], retry_failed: bool = False
    ) -> Plan:
        """Plan, publish, and compute what is missing; returns the plan with what is recorded now."""
        store = found()  # read again: another run may have extended it before we held the lease
        before = store.layout.on(self.kernel.axes) if store else None
        stop, ledger, url = self.stop, self.ledger, self.url
        plan = self.plan = plan_campaign(
            campaign, self.kernel, before, ledger.records, retry_failed=retry_failed
        )
        plan.check_memory(math.inf if self.max_memory is None else self.max_memory)
        try:
            revision = publish(url, campaign, plan, store, ledger, stop.heed)
        except Stopped:
            stop.announce(self.console)
        self.next_tile = plan.next_tile
        if self.next_tile is not None:
            spent = ledger.account.core_seconds
            stop.admits(-math.inf, spent + self.next_tile[1])  # too dear, whenever it ends: start no executor
        if plan.total("tiles_left") and not stop.asked:
            if self.executor is None:
                self.executor = _started(self.make_executor, stop)
                self.ready = time.monotonic()
            if self.executor is not None:
                self._drive(self.executor, plan, revision, campaign.campaign.name)
        plan.retry_failed = False  # failed cells have been retried
        plan.recount()
        return plan

    def _drive(self, executor: Executor, plan: Plan, revision: int, name: str) -> None:
        memory = min(executor.memory, self.max_memory or math.inf)
        meter = Meter(plan, executor.slots, self.console, memory)
        order = self.order._replace(revision=revision)
        drive = Driver(plan, executor, self.ledger, meter, self.stop, self.console, order, name)
        plan.check_memory(memory)
        try:
            with meter:
                drive()
        finally:
            self.computed += meter.computed

    def close(self) -> None:
        """End the executor, if one was started."""
        if self.executor is not None:
            self.executor.close()


def _play(rounds: Rounds, work: _Work, plan: Plan, found: Callable[[], Store | None]) -> Round | None:
    """Rounds until the target is met or unreachable, or the run has to stop; returns the last round if it is
    the end."""
    while not plan.total("missing") and not work.stop.asked:
        made = rounds.settled(plan) or rounds.next(work.url, work.ledger, plan)
        announce(made, partial(work.console.print, markup=False))
        if made.outcome != "open":
            return made
        plan = work(rounds.campaign, found)
    return None


def _ending(
    rounds: Rounds | None, end: Round | None, missing: int, failed: int, stop: Stop, spent: bool
) -> tuple[str, str]:
    """The outcome of a run, and why it is not complete."""
    if rounds is not None and spent and end is None:
        hours = rounds.target.core_hours
        return UNREACHABLE, f"the {hours:g} core-hours of [target] are used up"
    if missing or (rounds is not None and end is None):
        return "stopped", stop.reason
    if end is not None and end.outcome == "unreachable":
        return UNREACHABLE, reasons_in_words(end.reasons)
    return ("failed cells" if failed else "complete"), ""


def _started(make_executor: Callable[[], Executor], stop: Stop) -> Executor | None:
    try:
        executor = make_executor()
    except SystemExit:  # Ray's SIGTERM handler, until ours is installed again
        stop.ask(signal.SIGTERM)
        return None
    stop.listen()
    return executor


def work_left(url: str, campaign: Campaign, kernel: Kernel) -> bool:
    """Whether `run_campaign` would find anything to do: cells that are neither done nor failed, or, with a
    target, an analysis that is still to be made. Not if the core-hours of the target are used up."""
    store = read_store(url)
    plan, _ = open_plan(url, campaign, kernel)
    if store is None or (rounds := Rounds.of(campaign, kernel, store)) is None:
        return bool(plan.total("missing"))
    if plan.total("missing"):
        tile = plan.next_tile
        return tile is None or tile[1] <= rounds.core_seconds_left(store.ledger)
    return rounds.settled(plan) is None


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
    if attributes is not None and (campaign.target is not None or "target" in attributes["campaign"]):
        same = same and parse_campaign(attributes["campaign"]).target == campaign.target
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
