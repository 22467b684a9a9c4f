"""A schedule: a campaign, the windows in which it may compute, and its budgets in core-hours.

A timer calls `bendscape schedule run` now and then. That looks at the clock and at the ledger of the store,
and calls the idempotent `bendscape run` if a run is due. Everything that happened is in the ledger, so a
crash, a second timer or a missed start cannot put a schedule out of step.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bendscape.cluster.schedule_windows import Window, Windows
from bendscape.core.errors import ParameterError

if TYPE_CHECKING:
    from bendscape.sweep.store.runs import RunRecord

TIMERS = ("systemd", "cron", "scrontab", "kubernetes")
LEAST = timedelta(minutes=1)  # of a window that is worth a start
ENDS = ("complete", "failed cells", "target unreachable")  # outcomes of a run that leave nothing to compute
_NAME = "[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"


@dataclass(frozen=True)
class Schedule:
    """What a timer is to do; kept in a file that its owner alone can read, and without credentials.

    Attributes
    ----------
    name
        Lower-case letters, digits and hyphens, 40 at most. Its core-hours are charged to this name.
    timer
        One of TIMERS.
    file, store
        The campaign file as an absolute path, and the URL of the store.
    rules, zone
        See `bendscape.cluster.schedule_windows.Windows`.
    every
        Minutes between two looks within a window, so that a run that was cut short goes on.
    window_core_hours, core_hours
        Core-hours of each window, and of all together; None is no limit.
    credentials
        A file with credentials, one NAME=VALUE a line, which its owner alone can read; empty for none.
    options
        Further options of `bendscape run`.
    place
        What the timer's place is told: the parameters of KubeRay, or `options` of a job of scrontab.
    folder, python
        Where relative paths among the options start, and the interpreter that has bendscape.
    installed
        Seconds since 1970.
    id
        What Kubernetes knows it by.
    begun
        Whether a look has found runs in its store, which must be there from then on. Installed again, it may
        begin anew.
    """

    name: str
    timer: str
    file: str
    store: str
    rules: tuple[str, ...]
    zone: str
    every: int = 15
    window_core_hours: float | None = None
    core_hours: float | None = None
    credentials: str = ""
    options: tuple[str, ...] = ()
    place: dict[str, Any] = field(default_factory=dict)
    folder: str = ""
    python: str = ""
    installed: float = 0.0
    id: str = ""
    begun: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(_NAME, self.name):
            raise ParameterError("--name", self.name, "1 to 40 lower-case letters, digits and inner hyphens")
        if self.timer not in TIMERS:
            raise ParameterError("timer", self.timer, f"one of {', '.join(TIMERS)}")
        if self.every not in range(1, 61) or 60 % self.every:
            raise ParameterError(
                "--every", self.every, "minutes that divide an hour: 1, 5, 10, 15, 30, 60 ..."
            )
        for option, hours in (
            ("--window-core-hours", self.window_core_hours),
            ("--core-hours", self.core_hours),
        ):
            if hours is not None and not 0 < hours < float("inf"):
                raise ParameterError(option, hours, "core-hours > 0")
        _ = self.windows

    @cached_property
    def windows(self) -> Windows:
        """Its windows."""
        return Windows(self.rules, self.zone)

    def label(self, window: Window) -> str:
        """What the runs in a window are charged to, beside the name of the schedule."""
        return f"{self.name}/{window.start.astimezone(self.windows.tz).isoformat(timespec='minutes')}"

    def limits(self, window: Window) -> dict[str, float | None]:
        """Core-hours of the labels of a run in a window."""
        return {self.name: self.core_hours, self.label(window): self.window_core_hours}

    def to_json(self) -> str:
        """One line of JSON, in ASCII whatever is in the paths."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Schedule:
        """Inverse of `to_json`.

        Raises
        ------
        ParameterError
            It is something else.
        """
        accepted = "a schedule as `bendscape schedule install` writes it"
        try:
            known = json.loads(text)
            if not isinstance(known, dict):
                raise ValueError("it is no JSON object")
            unknown = set(known) - {one.name for one in fields(cls)}
            if unknown:
                raise ValueError(f"unknown {', '.join(sorted(unknown))}")
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in known.items()}
            return cls(**values)
        except (ValueError, TypeError) as error:
            if isinstance(error, ParameterError):
                raise
            raise ParameterError("schedule", text[:200], accepted, str(error)) from None


# -- what is to be done now


@dataclass(frozen=True)
class Due:
    """What a schedule is to do at a moment: a run in `window`, or nothing, and `why_not`."""

    window: Window | None
    why_not: str = ""


def opened(schedule: Schedule, now: datetime) -> Due:
    """Whether a window is open at a moment, which is told without a look at the store."""
    window = schedule.windows.open_at(now)
    if window is None:
        opens = _shown(schedule, schedule.windows.next_after(now).start)
        return Due(None, f"no window is open; the next opens at {opens}")
    if window.end - now < LEAST:
        return Due(None, "the window ends within a minute")
    return Due(window)


def due(schedule: Schedule, now: datetime, runs: list[RunRecord], left: Callable[[], bool]) -> Due:
    """Whether a run is due at a moment, as far as the runs of the store tell.

    `left` says whether a run would find anything to do; it is asked only if a run in the same window has
    found nothing more, in case the campaign has grown since.
    """
    from bendscape.sweep.engine.stop import BUDGET, CORE_HOURS
    from bendscape.sweep.store.runs import core_seconds_used

    if (found := opened(schedule, now)).window is None:
        return found
    window = found.window
    at_work = next((run for run in runs if run.outcome == "at work"), None)
    if at_work is not None:
        return Due(None, f"run {at_work.epoch} is at work, of {at_work.user} on {at_work.host}")
    used, limits = core_seconds_used(runs), schedule.limits(window)
    for label, hours in limits.items():
        if hours is not None and used[label] >= 3600 * hours:
            return Due(None, f"the {hours:g} core-hours of {label} are used")
    before = [run for run in runs if schedule.label(window) in run.charges]
    last = before[-1] if before else None
    if last is not None and last.reason == BUDGET:
        return Due(None, "no further tile fits into this window")
    same = {label: None if hours is None else 3600 * hours for label, hours in limits.items()}
    if last is not None and last.reason == CORE_HOURS and last.charges == same:
        return Due(None, "no further tile fits into the core-hours that are left")
    if last is not None and last.outcome in ENDS and not left():
        return Due(None, "nothing is left to compute")
    return Due(window)


def arguments(schedule: Schedule, window: Window, now: datetime) -> list[str]:
    """The arguments of the `bendscape run` that is due."""
    charges = [
        word
        for label, hours in schedule.limits(window).items()
        for word in ("--core-hours", f"{label}={'inf' if hours is None else hours}")
    ]
    seconds = int((window.end - now).total_seconds())
    return [
        "run", schedule.file, "--store", schedule.store, "--time-budget", f"{seconds}s", *charges,
        *schedule.options,
    ]  # fmt: skip


# -- what happened


@dataclass(frozen=True)
class Past:
    """What became of a window.

    `state` is that of its last run ("complete", "failed cells", "target unreachable", "stopped", "error",
    "killed", "at work");
    without a run "open", "missed", "no core-hours left", or "another run" where one that is none of the
    schedule's was at work all through it.
    """

    start: datetime
    end: datetime
    state: str
    reason: str = ""
    runs: list[int] = field(default_factory=list)
    cells: int = 0
    core_hours: float = 0.0
    hosts: list[str] = field(default_factory=list)

    def to_json(self, schedule: Schedule) -> dict[str, Any]:
        """With times on the clock of the schedule."""
        return {**asdict(self), "start": _shown(schedule, self.start), "end": _shown(schedule, self.end)}


def history(schedule: Schedule, now: datetime, runs: list[RunRecord]) -> list[Past]:
    """Every window since the schedule was installed, the open one included."""
    since = datetime.fromtimestamp(schedule.installed, UTC)
    at_first = schedule.windows.open_at(since)
    started = schedule.windows.between(at_first.start if at_first else since, now + timedelta(seconds=1))
    return [_past(schedule, window, now, runs) for window in started]


def _past(schedule: Schedule, window: Window, now: datetime, runs: list[RunRecord]) -> Past:
    own = [run for run in runs if schedule.label(window) in run.charges]
    if own:
        return Past(
            window.start,
            window.end,
            state=own[-1].outcome,
            reason=own[-1].reason,
            runs=[run.epoch for run in own],
            cells=sum(run.cells for run in own),
            core_hours=sum(run.core_seconds for run in own) / 3600,
            hosts=list(dict.fromkeys(run.host for run in own)),
        )
    before = [run for run in runs if schedule.name in run.charges and _began(run) < window.start.timestamp()]
    limit = before[-1].charges[schedule.name] if before else None
    if limit is not None and sum(run.core_seconds for run in before) >= limit:
        state = "no core-hours left"
    elif now in window:
        state = "open"
    else:
        # A run that is none of ours kept it out only if it was there at every look.
        others = {run.epoch: held for run in runs if (held := _within(run, window, now))}
        free = (window.end - window.start).total_seconds() - sum(others.values())
        if others and free < 120 * schedule.every:
            return Past(window.start, window.end, "another run", runs=list(others))
        state = "missed"
    return Past(window.start, window.end, state)


def _began(run: RunRecord) -> float:
    return run.started or 0.0


def _within(run: RunRecord, window: Window, now: datetime) -> float:
    # Seconds of a window in which a run was at work.
    ended = now.timestamp() if run.ended is None else run.ended
    return max(0.0, min(ended, window.end.timestamp()) - max(_began(run), window.start.timestamp()))


def missed_since(schedule: Schedule, now: datetime, runs: list[RunRecord]) -> list[Past]:
    """The windows that passed without a run since the last run of the schedule."""
    last = max((_began(run) for run in runs if schedule.name in run.charges), default=0.0)
    return [p for p in history(schedule, now, runs) if p.state == "missed" and p.start.timestamp() > last]


def report(schedule: Schedule, now: datetime, runs: list[RunRecord], last: int) -> dict[str, Any]:
    """A schedule as `bendscape schedule list --json` prints it, with its last windows."""
    from bendscape.sweep.store.runs import core_seconds_used

    past = history(schedule, now, runs)
    window = schedule.windows.open_at(now)
    used = core_seconds_used(runs)

    def budget(label: str, limit: float | None) -> dict[str, float | None]:
        spent = used[label] / 3600
        return {"limit": limit, "used": spent, "left": None if limit is None else max(0.0, limit - spent)}

    return {
        "name": schedule.name,
        "timer": schedule.timer,
        "campaign": schedule.file,
        "store": schedule.store,
        "windows": list(schedule.rules),
        "time_zone": schedule.zone,
        "next_start": _shown(schedule, schedule.windows.next_after(now).start),
        "open_until": None if window is None else _shown(schedule, window.end),
        "core_hours": budget(schedule.name, schedule.core_hours),
        "window_core_hours": None
        if window is None
        else budget(schedule.label(window), schedule.window_core_hours),
        "missed": sum(one.state == "missed" for one in past),
        "past": [one.to_json(schedule) for one in past[-last:]] if last else [],
    }


def _shown(schedule: Schedule, moment: datetime) -> str:
    return moment.astimezone(schedule.windows.tz).isoformat(" ", "minutes")


def runs_of(store: str) -> list[RunRecord]:
    """The runs of a store, none where there is no store yet."""
    from bendscape.sweep.location import folder_of
    from bendscape.sweep.store.ledger import Ledger
    from bendscape.sweep.store.objects import connect
    from bendscape.sweep.store.runs import run_records

    folder = folder_of(store)
    if folder is not None and not folder.is_dir():
        return []
    ledger = Ledger(connect(store))
    ledger.replay()
    return run_records(ledger)


def check_begun(schedule: Schedule, runs: list[RunRecord]) -> None:
    """Refuse to begin anew, with a budget anew, where the store was moved or its disk is not mounted.

    Raises
    ------
    ParameterError
        The schedule has run, but its store has no runs.
    """
    if schedule.begun and not runs:
        remedy = f"bring it back; or install {schedule.name} again, which then begins anew"
        raise ParameterError("store", schedule.store, "where it was when this schedule last ran", remedy)


# -- where schedules are kept


def schedules_folder() -> Path:
    """The folder of the schedules of this user: `BENDSCAPE_SCHEDULES`, or `bendscape/schedules` in
    `XDG_STATE_HOME` (`~/.local/state`). With scrontab it must lie where every node sees it."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    own = os.environ.get("BENDSCAPE_SCHEDULES") or os.path.join(state, "bendscape", "schedules")
    return Path(own).expanduser().absolute()


def path_of(name: str) -> Path:
    """The file of a schedule of this user."""
    return schedules_folder() / f"{name}.json"


def load(name: str) -> Schedule:
    """A schedule of this user by its name.

    Raises
    ------
    ParameterError
        There is none, or its file holds something else.
    """
    try:
        return Schedule.from_json(path_of(name).read_text())
    except OSError:
        known = [one.name for one in every()]
        accepted = f"one of {', '.join(known)}" if known else "the name of a schedule; there are none"
        raise ParameterError("schedule", name, accepted, "`bendscape schedule list` shows them") from None


def every(unreadable: Callable[[Path, Exception], None] = lambda *_: None) -> list[Schedule]:
    """The schedules of this user; `unreadable` is told of files that hold something else."""
    found = []
    for path in sorted(schedules_folder().glob("*.json")):
        try:
            found.append(Schedule.from_json(path.read_text()))
        except (OSError, ValueError) as error:
            unreadable(path, error)
    return found
