"""`bendscape status`: how progress is shown, and how it is watched."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.console import out, plain, results_only
from bendscape.sweep.commands.status import jobs_for, progress_of
from bendscape.sweep.engine.following import Following
from bendscape.sweep.engine.progress import clock
from bendscape.sweep.engine.run import EXIT

_ENDINGS = tuple(outcome for outcome in EXIT if outcome != "stopped")
LEAST_INTERVAL, LONGEST_INTERVAL = 0.5, 86400.0
_pause = time.sleep
JOBS_SECONDS = 60.0  # between two questions about jobs, which go to a scheduler that many people share


def shown(document: dict[str, Any]) -> tuple[Table, list[str]]:
    """The table of sizes and the lines below it, from what `store_status` or `Watch.document` gives."""
    size_name = next(iter(document["sizes"][0]))
    table = Table(
        size_name,
        "cells",
        "done",
        "failed",
        "missing",
        "core time left",
        title=Text(f"{document['name']}  {document['store']}"),
    )
    for row in document["sizes"]:
        left = row["core_seconds_left"]
        counts = (str(row[k]) for k in ("cells", "done", "failed", "missing"))
        table.add_row(str(row[size_name] or "all"), *counts, "unknown" if left is None else clock(left))
    holder, left, eta = document["holder"], document["core_hours_left"], document["eta_seconds"]
    who = f"process {holder['pid']} of {holder['user']} on {holder['host']}" if holder else "nobody"
    gone = ", which is gone" if holder and holder["alive"] is False else ""
    rate = "" if document["rate"] is None else f"{document['rate']:.3g} cells/s; "
    hours = "unknown" if left is None else f"{left:.3g} core-hours"
    end = "unknown" if eta is None else clock(eta)
    lines = [f"{rate}{hours} left; ETA {end}; held by {who}{gone}"]
    if document["runs"] and not holder:
        last = document["runs"][-1]
        why = f" ({last['reason']})" if last["reason"] else ""
        lines.append(
            f"last run: {last['epoch']} on {last['host']}, {last['outcome'] or 'ended'}{why}, "
            f"{last['cells']} cells in {last['core_seconds'] / 3600:.3g} core-hours"
        )
    lines += _rounds(document["rounds"])
    for job in document["jobs"]:
        detail = job["detail"] and f" ({job['detail']})"
        lines.append(f"job {job['id']} at {job['place']}: {job['state']}{detail}")
    return table, lines


def _rounds(rounds: list[dict[str, Any]]) -> Iterator[str]:
    # A line for each round, and for each model as of the last one.
    for row in rounds:
        met, spent = sum(of["state"] == "met" for of in row["models"]), row["core_seconds"] / 3600
        stand = f"{met} of {len(row['models'])} models have their {row['quantity']}"
        more = f"; {row['points']} points get cells, about {row['core_hours']:.2g} core-hours"
        yield f"round {row['number']}, after {spent:.3g} core-hours: {stand}" + (
            more if row["outcome"] == "open" else f"; {row['outcome']}"
        )
    for of in rounds[-1]["models"] if rounds else ():
        at = ", ".join(f"{name} = {value}" for name, value in of["model"].items()) or "the model"
        value, error, wanted = (
            "unknown" if of[name] is None else f"{of[name]:.4g}" for name in ("value", "error", "wanted")
        )
        why = of["reason"] and f": {of['reason']}"
        yield f"  {at}: {value}, standard error {error}, wanted {wanted}: {of['state']}{why}"


class Watch:
    """A store that is looked at again and again.

    Attributes
    ----------
    following
        What is known of the store.
    trouble
        Why the last look failed; empty if it did not.
    """

    def __init__(self, location: str, modules: Iterable[str]) -> None:
        self.following = Following(location, modules)
        self.trouble = ""
        self._jobs: list[dict[str, Any]] = []
        self._asked = -JOBS_SECONDS

    def look(self) -> None:
        """Read what is new; a store that does not answer is waited for.

        Raises
        ------
        ParameterError
            Something other than a bendscape store is there.
        """
        try:
            with results_only():  # the module of a kernel may print
                self.following.look()
            self.trouble = ""
        except OSError as error:
            self.trouble = " ".join(str(error).split())[:300]
        if time.monotonic() - self._asked >= JOBS_SECONDS:
            self._jobs, self._asked = jobs_for(self.following.url), time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether every cell is done or has failed, and nobody is at work on more; with a target, whether the
        last run has said that it is met or cannot be."""
        at = self.following
        if self.trouble or at.plan is None or at.at_work:
            return False
        return self._last in _ENDINGS if at.aimed else not at.plan.total("missing")

    @property
    def exit_code(self) -> int:
        """0 if every cell is done, 1 if some have failed; with a target, that of the last run."""
        assert self.following.plan is not None
        if self.following.aimed:
            return EXIT[self._last]
        return 1 if self.following.plan.total("failed") else 0

    @property
    def _last(self) -> str:
        return self.following.runs[-1].outcome if self.following.runs else ""

    def document(self) -> dict[str, Any]:
        """The document of one look: as `status --json`, with `time` and `trouble`, and without `hidden`,
        `target` and `provenance`; before there is a store, its URL and jobs alone."""
        at = self.following
        about = {"time": time.time(), "trouble": self.trouble}
        if at.store is None or at.plan is None:
            return {"store": at.url, "jobs": self._jobs, **about}
        runs = [asdict(run) for run in at.runs]
        known = progress_of(at.store, at.plan, at.at_work)
        rounds = [of.summary() for of in at.rounds]
        return {
            **known, "rounds": rounds, "holder": at.holder, "jobs": self._jobs, "runs": runs, **about
        }  # fmt: skip


def watch_status(location: str, modules: Iterable[str], interval: float, as_json: bool) -> int:
    """Show the progress of a store until every cell is done or has failed; returns the exit code.

    Parameters
    ----------
    interval
        Seconds between two looks.
    as_json
        Print one document per line instead.

    Raises
    ------
    ParameterError
        An interval that is too short; something other than a bendscape store.
    """
    if not LEAST_INTERVAL <= interval <= LONGEST_INTERVAL:
        accepted = f"from {LEAST_INTERVAL:g}s to {LONGEST_INTERVAL / 86400:g}d"
        raise ParameterError("--interval", f"{interval:g}s", accepted)
    watch, console = Watch(location, modules), out()
    with _ended_by_signals():
        if as_json:
            return _documents(watch, interval)
        redrawable = console.is_terminal and not console.is_dumb_terminal
        return _redrawn(watch, console, interval) if redrawable else _lines(watch, console, interval)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    # By an exception, so that the cursor of the terminal comes back.
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _documents(watch: Watch, interval: float) -> int:
    while True:
        watch.look()
        sys.stdout.write(json.dumps(plain(watch.document()), allow_nan=False) + "\n")
        sys.stdout.flush()
        if watch.finished:
            return watch.exit_code
        _pause(interval)


def _redrawn(watch: Watch, console: Console, interval: float) -> int:
    # Drawn only when there is something to draw, and as one write: nothing flickers.
    watch.look()
    live = Live(console=console, auto_refresh=False, vertical_overflow="ellipsis")
    try:  # not `with`: a signal while it starts would leave the terminal without its cursor
        live.start()
        while not watch.finished:
            live.update(_picture(watch, console.height), refresh=True)
            _pause(interval)
            watch.look()
        live.update(_picture(watch, console.height), refresh=True)
    finally:
        live.stop()
    return watch.exit_code


def _picture(watch: Watch, height: int) -> Group:
    document, notes = watch.document(), _notes(watch)
    if "sizes" not in document:
        jobs = [f"job {job['id']} at {job['place']}: {job['state']}" for job in document["jobs"]]
        return Group(*map(Text, [*jobs, *notes]))
    table, lines = shown(document)
    texts = [*map(Text, [*lines, *notes])]
    # What does not fit is cut off below: then the lines are worth more than the last rows.
    fits = table.row_count + len(texts) + 6 <= height
    return Group(table, *texts) if fits else Group(*texts, table)


def _notes(watch: Watch) -> list[str]:
    at = watch.following
    said = [f"{path} is damaged: {why}" for path, why in at.problems.items()]
    if at.plan is not None and at.plan.total("failed"):
        said.append(f"`bendscape errors {at.url}` lists what failed and why")
    if at.plan is not None and not at.at_work and not watch.finished:
        said.append("no run is at work: waiting for the next")
    if watch.trouble:
        said.append(f"the store does not answer, trying again: {watch.trouble}")
    elif at.store is None:
        said.append(f"no store at {at.url} yet: waiting for a run that makes it")
    moment = datetime.now().isoformat(" ", "seconds")
    return [*said, moment if watch.finished else f"{moment}; Ctrl-C ends this, and nothing else"]


def _lines(watch: Watch, console: Console, interval: float) -> int:
    before = ""
    while True:
        watch.look()
        document, (*notes, _) = watch.document(), _notes(watch)
        counts = []
        if "sizes" in document:
            counts = [
                f"{document['done']}/{document['cells']} cells, {document['failed']} failed, "
                f"{document['missing']} left"
            ]
        # The rate and the time left change without an event: they are printed, but are no reason to print.
        if (state := "; ".join([*counts, *notes])) != before:
            rate, eta = document.get("rate"), document.get("eta_seconds")
            pace = [f"{rate:.3g} cells/s, ETA {'unknown' if eta is None else clock(eta)}"] if rate else []
            line = "; ".join([*counts, *pace, *notes])
            moment = datetime.now().isoformat(" ", "seconds")
            console.print(f"{moment} {line}", markup=False, highlight=False, soft_wrap=True)
            console.file.flush()
            before = state
        if watch.finished:
            return watch.exit_code
        _pause(interval)
