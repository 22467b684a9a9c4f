"""The runs of a store: what each computed, and the labels to which its core-hours are charged.

A label is the name of a budget, for example of one window of a schedule. The labels of a run are stored
with its lease, and its core-hours are the sum over its receipts, so both survive a crash.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bendscape.sweep.store.ledger import LEASE_SECONDS, Ledger
from bendscape.sweep.store.records import Account

OWN = ""  # the label that only this run has


@dataclass(frozen=True)
class RunRecord:
    """One run, from its start to its end.

    Attributes
    ----------
    epoch
        Its number.
    host, user
        Where it ran and for whom.
    started, ended
        Seconds since 1970. A killed run ends with its last heartbeat or receipt; an active run has None.
    outcome
        "complete", "failed cells", "target unreachable", "stopped" or "error", as the run recorded; "at work"
        for an active run; "killed" if no end is recorded; "" for an older version of bendscape and for
        `fsck --repair`.
    reason
        Why it was stopped, or the name of the error.
    cells
        Number of cells computed, failed ones included.
    core_seconds
        Computing time of these cells on one core, in seconds, as measured by the workers.
    charges
        The labels of the run with their limits in core seconds; None for a label without a limit.
    """

    epoch: int
    host: str
    user: str
    started: float | None
    ended: float | None
    outcome: str
    reason: str
    cells: int
    core_seconds: float
    charges: dict[str, float | None]


def run_records(ledger: Ledger, runs: list[dict[str, Any]] | None = None) -> list[RunRecord]:
    """Every run of a store in the order of their starts; the ledger must have been replayed.

    `runs` is what `Ledger.runs` said, if it was asked before.
    """
    runs, holder = ledger.runs() if runs is None else runs, ledger.holder()
    with ThreadPoolExecutor(8) as pool:
        beats = list(pool.map(lambda run: ledger.beat_of(run["epoch"]), runs))
    at_work = holder["epoch"] if holder else 0
    return [
        _record(ledger, run, beat, holder if run["epoch"] == at_work else None)
        for run, beat in zip(runs, beats, strict=True)
    ]


def _record(
    ledger: Ledger, run: dict[str, Any], beat: dict[str, Any], holder: dict[str, Any] | None
) -> RunRecord:
    account = ledger.records.accounts.get(run["epoch"], Account())
    if beat.get("released"):
        outcome, ended = beat.get("outcome", ""), beat.get("time")
    else:
        recent = time.time() - beat.get("time", 0.0) < 2 * LEASE_SECONDS
        alive = holder is not None and (recent if holder["alive"] is None else holder["alive"])
        outcome = "at work" if alive else "killed"
        ended = None if alive else max(beat.get("time", 0.0), account.last) or None
    return RunRecord(
        epoch=run["epoch"],
        host=run.get("host", ""),
        user=run.get("user", ""),
        started=run.get("started"),
        ended=ended,
        outcome=outcome,
        reason=beat.get("reason", ""),
        # The larger one: receipts may be lost, and snapshots of older versions have no sums.
        cells=max(account.cells, beat.get("cells", 0)),
        core_seconds=max(account.core_seconds, beat.get("core_seconds", 0.0)),
        charges=run.get("charges", {}),
    )


def core_seconds_used(runs: list[RunRecord]) -> Counter[str]:
    """Core seconds used, by label."""
    used: Counter[str] = Counter()
    for run in runs:
        for label in run.charges:
            used[label] += run.core_seconds  # type: ignore[assignment]
    return used


def core_seconds_left(ledger: Ledger, limits: Mapping[str, float | None]) -> dict[str, float]:
    """Core seconds left at the start of a run, by label. Labels without a limit are omitted.

    The ledger must have been replayed and must hold the lease, so that no other run can use the rest.
    """
    shared = any(label != OWN for label in limits)
    used = core_seconds_used(run_records(ledger)) if shared else Counter[str]()
    return {label: limit - used[label] for label, limit in limits.items() if limit is not None}


def core_seconds_spent(ledger: Ledger) -> float:
    """Core seconds of all receipts of a store; the ledger must have been replayed."""
    return float(sum(float(size.seconds.sum()) for size in ledger.records.sizes.values()))
