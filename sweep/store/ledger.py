"""The ledger: which cells are recorded, with their errors and costs, and who may write.

    ledger/campaign/<revision>.json     every campaign file this store was run with, and the layout it made
    ledger/lease/<epoch>.json, .beat    the holder of an epoch; its heartbeat and, at the end, its outcome
    ledger/segments/<epoch>-<seq>.jsonl receipts, appended as immutable objects
    ledger/snapshots/<epoch>-<seq>.npz  all receipts up to that segment, merged
    ledger/rounds/<number>.json         rounds of a campaign with a target, see `bendscape.sweep.store.rounds`
    ledger/damaged/                     what `bendscape fsck --repair` has taken out of use

The data decide what exists (`status` in the store); the ledger only makes it unnecessary to look. Replaying
it costs a listing, one snapshot and the segments since. Everything except heartbeats and snapshots is
create-only, and a cell has the same bits whoever computes it, so two drivers would repeat work but not harm
each other. The lease avoids the repeated work.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore

from bendscape.core.errors import ParameterError
from bendscape.sweep.store.objects import Damaged, check_process, names_in, read_object, together
from bendscape.sweep.store.records import Account, Receipt, Records
from bendscape.sweep.texts import NAME_CHARACTERS, clean, host_name

FLUSH_SECONDS = 5.0
FLUSH_RECEIPTS = 1000
LEASE_SECONDS = 30.0
COMPACT_SEGMENTS = 20
UNKNOWN = {"host": "an unknown host", "user": "somebody", "pid": "unknown"}  # for an unreadable lease


class LeaseHeld(Exception):
    """Another driver is working on this store."""


class DamageWarning(UserWarning):
    """Part of a store is damaged: other parts make up for it, or its cells are left out."""


class LeaseLost(Exception):
    """Another driver has taken this store over."""


def _machine() -> str:
    # Host, boot and pid namespace, within which a pid is unique; empty if the system does not report them.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{host_name()}/{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _rebooted(holder: dict[str, Any]) -> bool:
    # True if this is the holder's host after a restart: writes not yet on its disk are lost.
    host, _, boot = holder.get("machine", "").partition("/")
    here, _, now = _machine().partition("/")
    return bool(boot) and host == here and boot.partition("/")[0] != now.partition("/")[0]


def _process_start(pid: int) -> str:
    # Empty also for a process that has ended and whose parent has not asked for its exit code.
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in ("Z", "X") else fields[18]


def runs_here(holder: dict[str, Any]) -> bool | None:
    """Whether the holder's process runs on this machine; None if the holder is on another machine."""
    if not holder.get("machine") or holder["machine"] != _machine():
        return None
    return bool(holder["process_start"]) and _process_start(holder["pid"]) == holder["process_start"]


def _user() -> str:
    try:
        return clean(getpass.getuser(), NAME_CHARACTERS)
    except (KeyError, OSError):  # in a container the user may have no name
        return str(os.getuid())


def campaign_path(revision: int) -> str:
    """Path of the campaign file of a revision; once it exists, workers of older revisions stop writing."""
    return f"ledger/campaign/{revision:06d}.json"


def campaign_of(ledger: Ledger, revision: int) -> str:
    """The text of the campaign file of a revision.

    Raises
    ------
    ParameterError
        The store had no such revision.
    """
    document = ledger.read(campaign_path(revision)) if 1 <= revision <= ledger.revision else {}
    if "campaign" not in document:
        raise ParameterError("revision", revision, f"an integer from 1 to {ledger.revision}")
    text: str = document["campaign"]
    return text


def _lines(receipts: Iterable[Receipt]) -> str:
    return "".join(receipt.to_json() + "\n" for receipt in receipts)


@dataclass
class Ledger:
    """The ledger of one store. Reading needs no lease; `acquire` before `add` and `flush`."""

    objects: ObjectStore
    records: Records = field(default_factory=Records)
    _epoch: int = 0
    _sequence: int = 0
    _flushed: float = 0.0
    _pending: list[Receipt] = field(default_factory=list)
    _segments: list[str] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _pulsing: threading.Thread | None = None

    # -- reading

    def replay(self, without: Container[str] = ()) -> None:
        """Load the newest snapshot that can be read and every segment after it, except those in `without`.

        Segments are never deleted, so a damaged snapshot costs only time, and gives a warning.

        Raises
        ------
        Damaged
            A segment cannot be read.
        """
        last = after = ""
        self.records = Records()
        for name in reversed(self._snapshots()):
            if f"ledger/snapshots/{name}" in without:
                continue
            try:
                self.records = self._open_snapshot(name)
            except Damaged as error:
                warnings.warn(str(error), DamageWarning, stacklevel=2)
                continue
            last = name.removesuffix(".npz")
            # A driver that lost its lease may have written segments after this snapshot was prepared.
            after = min(last, self.records.follows or last)
            break
        own = f"{last.partition('-')[0]}-"
        names = self._names("segments", after=f"{after}.jsonl" if after else "")
        self._segments = [name for name in names if not (name.startswith(own) and name <= f"{last}.jsonl")]
        for name in self._segments:
            if f"ledger/segments/{name}" not in without:
                self.load_segment(name, self.records)
        self.records.follows = max(last, "000000-000000", *names).removesuffix(".jsonl")

    def damage(self) -> dict[str, str]:
        """Every snapshot and segment that cannot be read, and why."""
        looks: list[Callable[[], object]] = [partial(self._open_snapshot, name) for name in self._snapshots()]
        looks += [partial(self.load_segment, name, Records()) for name in self._names("segments")]

        def try_to(look: Callable[[], object]) -> Damaged | None:
            with contextlib.suppress(FileNotFoundError):  # an active run deletes old snapshots
                try:
                    look()
                except Damaged as error:
                    return error
            return None

        return {error.path: error.why for error in together(try_to, looks) if error is not None}

    def holder(self) -> dict[str, Any] | None:
        """Who holds the lease, None if it was released; `alive` is None for a holder on another machine."""
        epoch = self._newest_epoch()
        if not epoch or self.beat_of(epoch).get("released"):
            return None
        holder = self._holder_of(epoch)
        return {"epoch": epoch, **holder, "alive": runs_here(holder)}

    def runs(self) -> list[dict[str, Any]]:
        """Every run that held the lease, with what it recorded about itself."""
        epochs = [int(name.partition(".")[0]) for name in self._names("lease") if name.endswith(".json")]
        with ThreadPoolExecutor(8) as pool:  # of an object store each answer takes a while
            holders = list(pool.map(self._holder_of, epochs))
        return [{"epoch": epoch, **holder} for epoch, holder in zip(epochs, holders, strict=True)]

    def beat_of(self, epoch: int) -> dict[str, Any]:
        """The last heartbeat of a run: its `time`, whether it has `released` the lease, and how it ended.

        An unreadable heartbeat counts as not released.
        """
        return self.read(f"ledger/lease/{epoch:06d}.beat")

    @property
    def epoch(self) -> int:
        """Epoch of the lease that this ledger holds; 0 if it holds none."""
        return self._epoch

    @property
    def account(self) -> Account:
        """Sums over the receipts of the run that holds the lease through this ledger."""
        return self.records.accounts.get(self._epoch, Account())

    @property
    def revision(self) -> int:
        """Number of campaign files recorded; workers refuse to write for an older one."""
        return len(self._names("campaign"))

    def _names(self, folder: str, after: str = "") -> list[str]:
        return names_in(self.objects, f"ledger/{folder}", after)

    def read(self, path: str) -> dict[str, Any]:
        """A JSON object of the ledger, empty where there is none or where it cannot be read."""
        try:
            document = json.loads(read_object(self.objects, path))
        except (FileNotFoundError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def _holder_of(self, epoch: int) -> dict[str, Any]:
        return self.read(f"ledger/lease/{epoch:06d}.json") or dict(UNKNOWN)

    def _snapshots(self) -> list[str]:
        return [name for name in self._names("snapshots") if name.endswith(".npz")]

    def _open_snapshot(self, name: str) -> Records:
        path = f"ledger/snapshots/{name}"
        try:
            return Records.from_bytes(read_object(self.objects, path))
        except ValueError as error:
            raise Damaged(path, error) from None

    def load_segment(self, name: str, into: Records) -> None:
        """Merge the receipts of a segment: all or none, as beside a damaged line others may be wrong too.
        Raises `Damaged` if it cannot be read."""
        path, epoch = f"ledger/segments/{name}", int(name.partition("-")[0])
        try:
            text = read_object(self.objects, path).decode()
            if not text.endswith("\n"):
                raise ValueError("it is truncated")
            receipts = [Receipt.from_json(line) for line in text.splitlines()]
            for receipt in receipts:
                into.add(receipt, epoch)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise Damaged(path, error) from None

    # -- the lease

    def _newest_epoch(self) -> int:
        return max((int(name.partition(".")[0]) for name in self._names("lease")), default=0)

    def acquire(
        self,
        say: Callable[[str], None],
        lease_seconds: float = LEASE_SECONDS,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Become the driver of this store; `about` is kept with the lease, as the history of its runs.

        Whether a holder on this machine is alive is known at once. One elsewhere is taken to be dead when its
        heartbeat has stopped for `lease_seconds` on the clock of the observer.

        Raises
        ------
        LeaseHeld
            Another driver is alive; its name and age.
        """
        check_process()
        epoch = self._newest_epoch()
        if epoch and not self.beat_of(epoch).get("released"):
            holder = self._holder_of(epoch)
            if self._alive(epoch, holder, say, lease_seconds):
                age = time.time() - holder.get("started", time.time())
                who = f"{holder.get('user')}@{holder.get('host')}, process {holder.get('pid')}"
                raise LeaseHeld(f"held by {who}, for {age:.0f} s: stop that run, or wait for it")
            say(f"taking over from process {holder.get('pid')} on {holder.get('host')}, which is gone")
            if _rebooted(holder):
                say("this machine has been restarted since then: `bendscape fsck` finds what its disk lost")
        holder = {
            "host": host_name(),
            "machine": _machine(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "user": _user(),
            "started": time.time(),
            **(about or {}),
        }
        self.create(f"ledger/lease/{epoch + 1:06d}.json", json.dumps(holder), LeaseHeld)
        self._epoch, self._sequence = epoch + 1, 0
        self._flushed = time.monotonic()
        self._beat(1)
        self._stopped.clear()
        self._pulsing = threading.Thread(target=self._pulse, daemon=True)
        self._pulsing.start()

    def _pulse(self) -> None:
        # In a separate thread, so that the heartbeat goes on while the driver starts Ray or publishes.
        count = 1
        while not self._stopped.wait(LEASE_SECONDS / 6):
            count += 1
            with contextlib.suppress(Exception):  # if the store fails, the driver's own writes report it
                self._beat(count)

    def _beat(self, count: int, released: bool = False, **end: Any) -> None:
        pulse = json.dumps({"count": count, "released": released, "time": time.time(), **end})
        obstore.put(self.objects, f"ledger/lease/{self._epoch:06d}.beat", pulse.encode())

    def _alive(
        self, epoch: int, holder: dict[str, Any], say: Callable[[str], None], lease_seconds: float
    ) -> bool:
        if (here := runs_here(holder)) is not None:
            return here
        say(f"waiting {lease_seconds:.0f} s to see whether the run on {holder.get('host')} is still alive")
        before, deadline = self.beat_of(epoch), time.monotonic() + lease_seconds
        while time.monotonic() < deadline:
            time.sleep(min(1.0, lease_seconds / 10))
            now = self.beat_of(epoch)
            if now != before:
                return not now.get("released")
        return False

    def release(self, outcome: str = "", reason: str = "") -> None:
        """Flush and release the lease; `outcome` and `reason` are stored with the account of the run."""
        self._stopped.set()
        self.flush()
        if self._pulsing is not None:
            self._pulsing.join(LEASE_SECONDS)  # otherwise its last heartbeat could overwrite this one
        self._beat(0, released=True, outcome=outcome, reason=reason, **self.account._asdict())

    # -- writing

    def record_campaign(self, document: dict[str, Any]) -> int:
        """Keep the campaign file, code and environment of this run; from now on this is the revision."""
        revision = self.revision + 1
        text = json.dumps({**document, "epoch": self._epoch})  # the epoch makes the text unique
        self.create(campaign_path(revision), text, LeaseLost)
        return revision

    def add(self, receipts: Iterable[Receipt]) -> None:
        """Take receipts in; they are durable after the next `flush`."""
        for receipt in receipts:
            self.records.add(receipt, self._epoch)
            self._pending.append(receipt)
        if len(self._pending) >= FLUSH_RECEIPTS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def check_lease(self) -> None:
        """Raise LeaseLost if a newer driver took over."""
        if self._newest_epoch() > self._epoch:
            raise LeaseLost("another run has taken over this store; what was computed stays in the store")

    def flush(self) -> None:
        """Append what is pending as one immutable segment.

        Raises
        ------
        LeaseLost
            A newer driver took over; its ledger is the one that counts, and the data are in the store.
        """
        self._flushed = time.monotonic()
        if not self._pending:
            return
        self.check_lease()
        self._sequence += 1
        name = f"{self._epoch:06d}-{self._sequence:06d}.jsonl"
        self.create(f"ledger/segments/{name}", _lines(self._pending), LeaseLost)
        self._pending.clear()
        self._segments.append(name)
        # Snapshots become rarer as the records grow: their cost per tile stays constant.
        if len(self._segments) >= max(COMPACT_SEGMENTS, len(self.records) // 20_000):
            self._compact(name.removesuffix(".jsonl"))

    def _compact(self, last: str) -> None:
        obstore.put(self.objects, f"ledger/snapshots/{last}.npz", self.records.to_bytes())
        self._segments.clear()
        # Keep the last two: a reader may be opening the older one. Segments are never deleted.
        for name in self._snapshots()[:-2]:
            obstore.delete(self.objects, f"ledger/snapshots/{name}")

    def create(self, path: str, text: str, refusal: type[Exception]) -> None:
        """Write an object that is not there yet; if another run has written it, raise `refusal`."""
        try:
            obstore.put(self.objects, path, text.encode(), mode="create")
        except AlreadyExistsError:
            # If the reply to a successful write was lost, the retry finds our own object: not a conflict.
            if read_object(self.objects, path) != text.encode():
                raise refusal(f"another run has just written {path}") from None
