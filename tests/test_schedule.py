"""Schedules: what is due, what was spent, what was missed; a month of it on a clock that the test winds."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import isinf
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from command_line import bendscape
from test_schedule_windows import fires

from bendscape.cluster import schedule_call
from bendscape.cluster.credentials import environment, read_environment
from bendscape.cluster.schedule import Schedule, arguments, due, missed_since, report, runs_of
from bendscape.cluster.schedule_call import perform
from bendscape.cluster.schedule_windows import Window, cron_lines
from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.options import core_hours_of, seconds_of
from bendscape.sweep.location import store_url
from bendscape.sweep.store import ledger as ledger_module
from bendscape.sweep.store import runs as runs_module
from bendscape.sweep.store.ledger import LeaseHeld, Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.records import Receipt
from bendscape.sweep.store.runs import RunRecord, core_seconds_left, core_seconds_used
from campaigns import RANDOM, IdleExecutor, campaign_text, make_campaign, run, zone_far_from_midnight

KernelFile = Callable[..., str]
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
STEP = 10 * MINUTE
NIGHTS = Schedule(
    name="nights", timer="cron", file="/c.toml", store="file:///none", rules=("daily 20:00-06:00",),
    zone=BERLIN, every=30, window_core_hours=100.0, core_hours=2000.0, options=("--workers", "16"),
)  # fmt: skip


@dataclass
class Working:
    """A run at work: its ledger, when it began and will end, and why."""

    ledger: Ledger
    began: datetime
    ends: datetime
    reason: str
    charges: dict[str, float | None]


class Month:
    """A machine with 16 cores, a clock that the test winds, a cron on that clock, and a store with a ledger.

    A run computes until its budget or its core-hours end. Its receipts of the last minutes are lost if it
    is killed.
    """

    CORES, PENDING = 16, 5 * MINUTE

    def __init__(self, monkeypatch: pytest.MonkeyPatch, schedule: Schedule, start: datetime) -> None:
        self.schedule = replace(schedule, installed=start.timestamp())
        self.now, self.working = start, None
        self.said: list[str] = []
        self.spent: Counter[str] = Counter()  # core seconds that the ledger can know of, by label
        self.past: list[Working] = []
        clock = SimpleNamespace(
            **{name: getattr(time, name) for name in ("monotonic", "sleep")},
            time=lambda: self.now.timestamp(),
        )
        monkeypatch.setattr(ledger_module, "time", clock)
        monkeypatch.setattr(runs_module, "time", clock)
        monkeypatch.setattr(schedule_call, "cells_left", lambda _: True)

    working: Working | None

    def tick(self) -> None:
        """The timer calls."""
        assert perform(self.schedule, self.now, self.said.append, self._run, quiet=True) in (0, 75)

    def begin(self, charges: dict[str, float | None], seconds: float) -> None:
        """A run begins, unless another is at work."""
        ledger = Ledger(connect(self.schedule.store))
        ledger.acquire(self.said.append, about={"charges": charges})
        ledger.replay()
        left = min(core_seconds_left(ledger, charges).values(), default=float("inf"))
        lasts = min(seconds, left / self.CORES)
        reason = "end of the core-hours" if lasts < seconds else "end of the time budget"
        ends = self.now + timedelta(seconds=lasts)
        self.working = Working(ledger, self.now, ends, reason, charges)

    def _run(self, words: list[str]) -> int:
        assert words[:4] == ["run", self.schedule.file, "--store", self.schedule.store]
        assert words[-2:] == ["--workers", "16"]
        given = core_hours_of("x", [b for a, b in pairwise(words) if a == "--core-hours"])
        limits = {label: None if isinf(hours) else 3600 * hours for label, hours in given.items()}
        seconds = seconds_of("x", words[words.index("--time-budget") + 1])
        try:
            self.begin(limits, seconds)
        except LeaseHeld:
            return 2
        return 75

    def end(self, *, killed: bool = False) -> None:
        """The run at work ends, or is killed: then its pid is that of no process."""
        assert self.working is not None
        of, self.working = self.working, None
        until = max(of.began, self.now - self.PENDING) if killed else of.ends
        seconds = (until - of.began).total_seconds() * self.CORES
        number = of.ledger.epoch
        of.ledger.add(
            [Receipt(f"64/{number}.0", done=1, computed=1, seconds=seconds, finished=until.timestamp())]
        )
        of.ledger.flush()
        for label in of.charges:
            self.spent[label] += seconds  # type: ignore[assignment]
        self.past.append(replace(of, ends=self.now))
        if not killed:
            of.ledger.release("stopped", of.reason)
            return
        of.ledger._stopped.set()
        path = Path(self.schedule.store.removeprefix("file://")) / f"ledger/lease/{number:06d}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "pid": 2**22 + 1, "process_start": "1"}))

    def pass_until(self, until: datetime, lines: list[str], zone: str, *, on: bool = True) -> None:
        """Let the time pass, with the machine on or off."""
        if not on and self.working:
            self.end(killed=True)
        while self.now < until:
            if self.working and self.working.ends <= self.now:
                self.end()
            if on and any(fires(line, self.now.astimezone(ZoneInfo(zone))) for line in lines):
                self.tick()
            self.now += STEP


@pytest.fixture
def store(tmp_path: Path, kernel_file: KernelFile) -> str:
    """A store that has been published, by a run of nobody's schedule."""
    run(tmp_path / "s.zarr", kernel_file(RANDOM), make_campaign(), IdleExecutor())
    return store_url(tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("start", "of_clocks"),
    [
        pytest.param(datetime(2026, 10, 10, 12, tzinfo=UTC), "back", id="autumn"),
        pytest.param(datetime(2026, 3, 1, 12, tzinfo=UTC), "forward", id="spring", marks=pytest.mark.slow),
    ],
)
def test_a_month_with_two_changes_of_clocks_keeps_to_windows_and_budgets_and_tells_what_was_missed(
    monkeypatch: pytest.MonkeyPatch, store: str, start: datetime, of_clocks: str
) -> None:
    # The clock of cron is New York's, that of the schedule Berlin's: each changes once, on days of its own.
    month = Month(monkeypatch, replace(NIGHTS, store=store, every=60), start)
    windows = month.schedule.windows
    lines = cron_lines(windows, 60, NEW_YORK, start)

    def day(number: int, hour: int, minute: int = 0) -> datetime:
        at = (start.date() + timedelta(days=number)).timetuple()[:3]
        return datetime(*at, hour, minute, tzinfo=ZoneInfo(BERLIN)).astimezone(UTC)

    month.pass_until(day(3, 12), lines, NEW_YORK)
    month.pass_until(day(5, 12), lines, NEW_YORK, on=False)  # two nights without electricity
    month.pass_until(day(7, 22, 10), lines, NEW_YORK)
    month.pass_until(day(7, 22, 50), lines, NEW_YORK, on=False)  # and an hour within a night
    month.pass_until(day(9, 19, 50), lines, NEW_YORK)
    month.begin({}, 11 * 3600)  # somebody else's run, all night
    month.pass_until(day(31, 12), lines, NEW_YORK)

    told = report(month.schedule, month.now, runs_of(store), 40)
    states = [past["state"] for past in told["past"]]
    assert len(states) == 31, "every night once"
    assert [k for k, state in enumerate(states) if state == "missed"] == [3, 4]
    assert told["missed"] == 2
    assert states[9] == "another run"
    assert len(told["past"][7]["runs"]) == 2, "the night that was cut short went on after it"
    assert states[-1] == "no core-hours left"
    assert set(states) == {"stopped", "missed", "another run", "no core-hours left"}
    missed = [line for line in month.said if line.startswith("missed: ")]
    assert missed == [
        f"missed: the window from {told['past'][k]['start']} to {told['past'][k]['end']} passed without a run"
        for k in (3, 4)
    ]

    assert core_seconds_used(runs_of(store)) == pytest.approx(month.spent)
    hours = {label: seconds / 3600 for label, seconds in month.spent.items()}
    assert hours.pop("nights") == pytest.approx(2000)
    assert told["core_hours"] == {
        "limit": 2000.0,
        "used": pytest.approx(2000),
        "left": pytest.approx(0, abs=1e-6),
    }
    assert all(spent <= 100 + 1e-9 for spent in hours.values())
    assert sum(hours.values()) == pytest.approx(2000)
    full = [past for past in told["past"] if past["core_hours"] == pytest.approx(100)]
    assert len(full) >= 18, "a night pays for 100 core-hours, however long it is"

    ours = [one for one in month.past if "nights" in one.charges]
    spans = windows.between(start, month.now)
    for one in ours:
        window = next(span for span in spans if one.began in span)
        assert one.ends <= window.end
    assert all(a.ends <= b.began for a, b in pairwise(month.past)), "one at a time"
    changed = {span.end - span.start for span in spans}
    assert changed == {10 * HOUR, (11 if of_clocks == "back" else 9) * HOUR}


# -- one moment


def record(**of: Any) -> RunRecord:
    known = {"epoch": 1, "host": "h", "user": "u", "started": 0.0, "ended": 1.0, "outcome": "stopped"}
    return RunRecord(**{**known, "reason": "", "cells": 0, "core_seconds": 0.0, "charges": {}, **of})


AT = datetime(2026, 11, 27, 23, tzinfo=UTC)
WINDOW = NIGHTS.windows.open_at(AT)
assert WINDOW is not None
LABEL = NIGHTS.label(WINDOW)
SAME = {"nights": 2000 * 3600.0, LABEL: 100 * 3600.0}


@pytest.mark.parametrize(
    ("runs", "left", "why"),
    [
        ([], True, ""),
        ([record(outcome="at work")], True, "run 1 is at work, of u on h"),
        ([record(charges=SAME, core_seconds=360000.0)], True, f"the 100 core-hours of {LABEL} are used"),
        (
            [record(charges={"nights": None}, core_seconds=7.3e6)],
            True,
            "the 2000 core-hours of nights are used",
        ),
        ([record(charges=SAME, outcome="killed")], True, ""),
        ([record(charges=SAME, reason="SIGTERM")], True, ""),
        ([record(charges=SAME, outcome="error", reason="OSError")], True, ""),
        (
            [record(charges=SAME, reason="end of the time budget")],
            True,
            "no further tile fits into this window",
        ),
        (
            [record(charges=SAME, reason="end of the core-hours")],
            True,
            "no further tile fits into the core-hours",
        ),
        ([record(charges={**SAME, LABEL: 9.0}, reason="end of the core-hours")], True, ""),  # a raised budget
        ([record(charges=SAME, outcome="complete")], False, "nothing is left to compute"),
        ([record(charges=SAME, outcome="target unreachable")], False, "nothing is left to compute"),
        ([record(charges=SAME, outcome="target unreachable")], True, ""),  # the target has changed
        ([record(charges=SAME, outcome="failed cells")], False, "nothing is left to compute"),
        ([record(charges=SAME, outcome="complete")], True, ""),  # the campaign has grown
        ([record(charges={"nights": 1.0, "nights/x": 1.0}, outcome="complete")], False, ""),  # another night
    ],
)
def test_a_run_is_due_unless_one_is_at_work_or_nothing_more_can_come_of_it(
    runs: list[RunRecord], left: bool, why: str
) -> None:
    found = due(NIGHTS, AT, runs, lambda: left)
    assert found.why_not.startswith(why)
    assert (found.window is None) == bool(why)


def test_no_run_is_due_outside_a_window_or_in_its_last_minute() -> None:
    def why(moment: datetime) -> str:
        return due(NIGHTS, moment, [], lambda: True).why_not

    assert why(datetime(2026, 11, 27, 12, tzinfo=UTC)) == (
        "no window is open; the next opens at 2026-11-27 20:00+01:00"
    )
    assert why(datetime(2026, 11, 28, 4, 59, 30, tzinfo=UTC)) == "the window ends within a minute"
    assert why(datetime(2026, 11, 28, 4, 58, tzinfo=UTC)) == ""


def test_a_run_gets_the_time_to_the_end_of_its_window_and_both_budgets() -> None:
    assert WINDOW is not None
    assert arguments(NIGHTS, WINDOW, AT + HOUR) == [
        *("run", "/c.toml", "--store", "file:///none", "--time-budget", "18000s"),
        *("--core-hours", "nights=2000.0", "--core-hours", "nights/2026-11-27T20:00+01:00=100.0"),
        *("--workers", "16"),
    ]
    free = replace(NIGHTS, core_hours=None, window_core_hours=None)
    assert [word for word in arguments(free, WINDOW, AT) if "=" in word] == ["nights=inf", f"{LABEL}=inf"]
    assert core_hours_of("x", ["nights=inf", f"{LABEL}=inf"]), "the option takes them"


def test_a_window_before_the_installation_is_not_missed_and_one_after_it_is() -> None:
    installed = replace(NIGHTS, installed=datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp())
    (first, second) = missed_since(installed, AT, [])
    assert (first.start, second.start) == (
        datetime(2026, 11, 25, 19, tzinfo=UTC),
        datetime(2026, 11, 26, 19, tzinfo=UTC),
    )
    told = report(installed, AT, [], 5)
    assert [past["state"] for past in told["past"]] == ["missed", "missed", "open"]
    assert (told["next_start"], told["open_until"]) == ("2026-11-28 20:00+01:00", "2026-11-28 06:00+01:00")
    assert told["window_core_hours"] == {"limit": 100.0, "used": 0.0, "left": 100.0}


def test_many_missed_windows_are_counted_and_the_last_of_them_named() -> None:
    said: list[str] = []
    month = replace(NIGHTS, installed=AT.timestamp() - 30 * 86400)
    assert perform(month, AT, said.append, lambda _: 75) == 75
    assert len(said) == 7
    assert (
        said[4]
        == "missed: the window from 2026-11-26 20:00+01:00 to 2026-11-27 06:00+01:00 passed without a run"
    )
    assert said[5:] == ["missed: 25 windows before these", f"2026-11-28 00:00 {LABEL}"]


def test_a_run_of_somebody_else_excuses_a_window_only_if_it_was_there_all_through_it() -> None:
    installed = replace(NIGHTS, installed=AT.timestamp() - 86400)
    (night,) = installed.windows.between(AT - 30 * HOUR, AT - 20 * HOUR)

    def state(start: timedelta, end: timedelta) -> str:
        began, ended = (moment.timestamp() for moment in (night.start + start, night.start + end))
        return report(installed, AT, [record(started=began, ended=ended)], 2)["past"][0]["state"]

    assert state(-HOUR, 11 * HOUR) == "another run"
    assert state(0 * HOUR, 9.5 * HOUR) == "another run"
    assert state(4 * HOUR, 4.1 * HOUR) == "missed", "a repair of some minutes"
    assert state(0 * HOUR, 5 * HOUR) == "missed"
    assert state(11 * HOUR, 12 * HOUR) == "missed"


def test_a_schedule_is_read_back_as_it_was_written_and_nothing_else_is_read() -> None:
    odd = replace(NIGHTS, file="/a 'b' \"c\" %d\n\udce9.toml", place={"options": ["--x"]})
    assert Schedule.from_json(odd.to_json()) == odd
    assert odd.to_json().isascii()
    for text in ("", "[]", '{"name": 1}', NIGHTS.to_json().replace("every", "evry"), "null"):
        with pytest.raises(ParameterError, match="a schedule as `bendscape schedule install` writes it"):
            Schedule.from_json(text)


# -- credentials


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret 'env'"
    path.write_text(
        "# of the store\nAWS_SECRET_ACCESS_KEY='hush hush'\nexport AWS_REGION=eu\n\n; no\nX=a=b\n"
    )
    path.chmod(0o600)
    return path


def test_credentials_are_read_only_from_a_file_that_nobody_else_can_read(secret: Path) -> None:
    found = {"AWS_SECRET_ACCESS_KEY": "hush hush", "AWS_REGION": "eu", "X": "a=b"}
    assert read_environment(str(secret)) == found
    before = dict(os.environ)
    with environment(str(secret)):
        assert os.environ["X"] == "a=b"
    assert dict(os.environ) == before
    for mode in (0o640, 0o604, 0o660):
        secret.chmod(mode)
        with pytest.raises(ParameterError, match=f"it has mode {mode:03o}"):
            read_environment(str(secret))
    with pytest.raises(ParameterError, match="FileNotFoundError"):
        read_environment(str(secret) + "x")


def test_a_line_of_credentials_that_cannot_be_read_is_named_by_its_number_and_not_shown(secret: Path) -> None:
    secret.write_text("A=1\nhush hush\n")
    with pytest.raises(ParameterError, match="line 2 is none") as refused:
        read_environment(str(secret))
    assert "hush" not in str(refused.value)


def test_a_window_names_itself_by_its_start_on_the_clock_of_the_schedule() -> None:
    window = Window(datetime(2026, 7, 1, 18, tzinfo=UTC), datetime(2026, 7, 2, 4, tzinfo=UTC))
    assert NIGHTS.label(window) == "nights/2026-07-01T20:00+02:00"


# -- the command that a timer calls, on a real campaign


def test_the_timer_computes_within_its_core_hours_and_looks_again_in_vain(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENDSCAPE_SCHEDULES", str(tmp_path / "schedules"))
    module = kernel_file(f"time.sleep(0.25)\n{RANDOM}")
    file = tmp_path / "a 'c' %.toml"
    file.write_text(campaign_text(alpha=[0.8, 1.0], N=[64], a=[0.7], p=[1], seeds=8))
    always = Schedule(
        name="always", timer="cron", file=str(file), store=store_url(tmp_path / "s.zarr"), rules=("always",),
        zone=zone_far_from_midnight(), core_hours=2.6 / 3600, folder=str(tmp_path), installed=time.time(),
        options=("--kernel-module", Path(module).name, "--address", "serial"),
    )  # fmt: skip
    first = bendscape("schedule", "run", always.to_json())
    assert first.returncode == 75, first.stderr
    (one,) = runs_of(always.store)
    assert one.reason == "end of the core-hours"
    assert one.cells == 8, "a second tile of two seconds does not fit"
    assert one.core_seconds > 2.0
    asked = bendscape("schedule", "run", always.to_json(), "--ask")
    assert (asked.returncode, "no further tile fits into the core-hours" in asked.stderr) == (1, True)
    again = bendscape("schedule", "run", always.to_json())
    assert (again.returncode, again.stderr.count("no run is due")) == (0, 1), again.stderr
    richer = replace(always, core_hours=None)
    assert bendscape("schedule", "run", richer.to_json(), "--ask").stderr == "a run is due\n"
    assert bendscape("schedule", "run", richer.to_json()).returncode == 0
    assert "nothing is left to compute" in bendscape("schedule", "run", richer.to_json()).stderr
    assert [run.outcome for run in runs_of(always.store)] == ["stopped", "complete"]
    # A run that began after the look: the lease keeps the second one out, which is no failure.
    ledger = Ledger(connect(always.store))
    ledger.acquire(lambda _: None)
    monkeypatch.setattr(schedule_call, "runs_of", lambda _: [])
    late = bendscape("schedule", "run", richer.to_json())
    ledger.release()
    assert (late.returncode, "stop that run, or wait for it" in late.stderr) == (0, True), late.stderr


def test_a_timer_that_finds_a_run_at_work_is_content(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(connect(store))
    ledger.acquire(lambda _: None)
    try:
        busy = replace(NIGHTS, store=store, rules=("always",), zone=zone_far_from_midnight())
        shown = bendscape("schedule", "run", busy.to_json())
        assert (shown.returncode, "is at work" in shown.stderr) == (0, True)
        assert perform(busy, AT, lambda _: None, lambda _: 2) == 0, "also if it began just now"
    finally:
        ledger.release()
