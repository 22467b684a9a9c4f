"""A store followed while it fills, by a process that only reads: each look reads what is new since the last.

A look asks for the version of the root, the names of the segments and leases after those known, and the
heartbeat of a run at work: four requests to an object store, three when no run is at work, and one more if
the campaign has a target. On top come one request for each new segment and, after an extension, one for the
new root. The first look replays the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import obstore
from obstore.exceptions import BaseError

from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.engine.pace import kernel_or_stand_in
from bendscape.sweep.engine.plan import Plan
from bendscape.sweep.location import folder_of, store_url
from bendscape.sweep.store.ledger import LEASE_SECONDS, Ledger, runs_here
from bendscape.sweep.store.objects import Damaged, connect, names_in
from bendscape.sweep.store.publish import silence_zarr
from bendscape.sweep.store.records import Records
from bendscape.sweep.store.root import Store, holds_cells, open_store, read_store, rootless
from bendscape.sweep.store.rounds import FOLDER, Round, read_rounds
from bendscape.sweep.store.runs import RunRecord, run_records

RUNS = 20
"""The latest runs whose history is read."""
LATE = 20
"""The last so many segments are listed again: a driver that lost its lease may have written one more, whose
name is before those of the next run."""


class Following:
    """What is known of a store after the last `look`.

    Attributes
    ----------
    url
        Where the store lies, or will lie.
    store
        The store, whose ledger is the one followed; None until it is published.
    plan
        The latest campaign file compared with the records; None without a store.
    holder
        The lease of the newest run if it has not been released: as `Ledger.holder` gives it, and `seen`, the
        time of the last heartbeat. `alive` is never None: a run on another machine is taken to be dead when
        its heartbeat has stopped for `LEASE_SECONDS` on the clock of this machine.
    runs
        The latest `RUNS` runs.
    rounds
        The rounds of a campaign with a target, the first first.
    problems
        What could not be read, by its path or place.
    """

    def __init__(self, location: str, modules: Iterable[str] = ()) -> None:
        self.url, self._modules = store_url(location), tuple(modules)
        silence_zarr()
        self._forget()

    def _forget(self) -> None:
        self.store: Store | None = None
        self.plan: Plan | None = None
        self.holder: dict[str, Any] | None = None
        self.runs: list[RunRecord] = []
        self.rounds: list[Round] = []
        self.problems: dict[str, str] = {}
        self._version: str | None = None
        self._looked = self._aimed = False
        self._after, self._loaded = "", set[str]()  # segments up to a name, and some after it
        self._epoch, self._run, self._state = 0, dict[str, Any](), (0, False, False)
        self._beat: dict[str, Any] = {}
        self._beat_seen = 0.0

    @property
    def ledger(self) -> Ledger:
        """The ledger of the store."""
        assert self.store is not None, "there is no store yet"
        return self.store.ledger

    @property
    def records(self) -> Records:
        """Everything recorded."""
        return self.ledger.records

    @property
    def grid(self) -> Grid:
        """The grid of the latest campaign file."""
        assert self.plan is not None, "there is no store yet"
        return self.plan.grid

    @property
    def aimed(self) -> bool:
        """Whether the campaign has a target."""
        return self._aimed

    @property
    def at_work(self) -> bool:
        """Whether a run holds the lease and is alive."""
        return self.holder is not None and bool(self.holder["alive"])

    def look(self) -> None:
        """Read what is new.

        Raises
        ------
        ParameterError
            Something other than a bendscape store is there.
        OSError
            The store does not answer. What was known stays known, and the next look goes on from there.
        """
        folder = folder_of(self.url)
        if folder is not None and not folder.exists():
            self._forget()
            return
        try:
            self._look()
        except BaseError as error:  # its first line says enough
            raise OSError(f"{self.url} cannot be read: {str(error).splitlines()[0]}") from None

    def _look(self) -> None:
        try:
            version = obstore.head(connect(self.url, patient=False), "zarr.json")["e_tag"]
        except FileNotFoundError:
            if self.store is not None:
                self._forget()
            # A folder of something else is refused, and so is a store that has lost its root.
            cells, self._looked = not self._looked and holds_cells(self.url), True
            if read_store(self.url) is None and cells:
                raise rootless(self.url) from None
            return
        if self.store is None or version != self._version:
            self._publish(open_store(self.url), version)
        self._segments()
        self._lease()
        self._rounds()
        assert self.plan is not None
        self.plan.recount()

    def _publish(self, store: Store, version: str | None) -> None:
        known, created = self.store, store.attributes.get("created")
        if known is None or known.attributes.get("created") != created:
            self._forget()
            store.with_ledger(self._replayed())
        else:
            store.with_ledger(known.ledger)
        kernel = kernel_or_stand_in(store, self._modules)
        seen = (store.with_kernel(kernel) if kernel.variables else store).with_ledger(store.ledger)
        plan = Plan(seen.layout, seen.grid(), kernel, store.ledger.records)
        self.store, self.plan, self._version = seen, plan, version
        campaign = parse_campaign(store.attributes["campaign"], source=store.url)
        self._aimed = campaign.target is not None

    def _replayed(self) -> Ledger:
        ledger = Ledger(connect(self.url))
        for _ in range(RUNS):
            try:
                ledger.replay(without=self.problems)
                break
            except Damaged as error:
                self.problems[error.path] = error.why
        self._after = f"{ledger.records.follows}.jsonl"
        return ledger

    def _segments(self) -> None:
        names = names_in(self.ledger.objects, "ledger/segments", self._after)
        for name in names:
            if name in self._loaded:
                continue
            path = f"ledger/segments/{name}"
            try:
                self.ledger.load_segment(name, self.records)
            except Damaged as error:
                self.problems[path] = error.why
            except FileNotFoundError:  # taken out of use by a repair
                pass
            self._loaded.add(name)
        newest = max(names, default="")
        if sum(name.partition("-")[0] == newest.partition("-")[0] for name in names) > LATE:
            self._after = newest
            self._loaded.clear()

    def _rounds(self) -> None:
        if not self._aimed:
            return
        last = f"{self.rounds[-1].number:06d}.json" if self.rounds else ""
        if names_in(self.ledger.objects, FOLDER, last):
            try:
                self.rounds = read_rounds(self.ledger)
            except Damaged as error:
                self.problems[error.path] = error.why

    def _lease(self) -> None:
        after = f"{self._epoch:06d}.json" if self._epoch else ""
        names = names_in(self.ledger.objects, "ledger/lease", after)
        newest = max((int(name.partition(".")[0]) for name in names), default=self._epoch)
        if newest != self._epoch:
            self._run = self.ledger.read(f"ledger/lease/{newest:06d}.json")
            self._epoch, self._beat = newest, {}
        if not self._epoch:
            return
        if not self._beat.get("released"):
            beat = self.ledger.beat_of(self._epoch)
            if beat != self._beat:
                # The first heartbeat seen may be old; its age is known up to the difference of the clocks.
                age = 0.0 if self._beat else max(0.0, time.time() - beat.get("time", 0.0))
                self._beat, self._beat_seen = beat, time.monotonic() - age
        released = bool(self._beat.get("released"))
        here = runs_here(self._run)
        alive = time.monotonic() - self._beat_seen < LEASE_SECONDS if here is None else here
        if released or not self._run:
            self.holder = None
        else:
            about = {"epoch": self._epoch, **self._run, "alive": alive}
            self.holder = {**about, "seen": self._beat.get("time")}
        if (state := (self._epoch, released, alive)) != self._state:
            first = max(1, self._epoch - RUNS + 1)
            leases = [(epoch, f"ledger/lease/{epoch:06d}.json") for epoch in range(first, self._epoch + 1)]
            runs = [{"epoch": epoch, **self.ledger.read(path)} for epoch, path in leases]
            self.runs, self._state = run_records(self.ledger, runs), state
