"""What the call of a timer does: look whether a run is due, and call `bendscape run`."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bendscape.cluster.credentials import environment
from bendscape.cluster.schedule import (
    Due,
    Schedule,
    arguments,
    check_begun,
    due,
    missed_since,
    opened,
    runs_of,
)

if TYPE_CHECKING:
    from bendscape.sweep.store.runs import RunRecord

SHOWN = 5  # missed windows
LEASE_HELD = 2  # exit code of `bendscape run`, beside that of bad input, which comes as an error


def perform(
    schedule: Schedule,
    now: datetime,
    say: Callable[[str], None],
    call: Callable[[list[str]], int],
    *,
    quiet: bool = False,
    begun: Callable[[], None] = lambda: None,
) -> int:
    """Call `bendscape run` if a run is due at a moment; returns its exit code, or 0.

    `quiet` leaves out what there is to say when none is due. `begun` is called if the store has runs; the
    call itself may end this process.
    """
    with environment(schedule.credentials):
        found, runs = look(schedule, now)
        if runs:
            begun()
        if found.window is None:
            if not quiet:
                say(f"no run is due: {found.why_not}")
            return 0
        missed = missed_since(schedule, now, runs)
        for passed in missed[-SHOWN:]:
            about = passed.to_json(schedule)
            say(f"missed: the window from {about['start']} to {about['end']} passed without a run")
        if more := len(missed[:-SHOWN]):
            say(f"missed: {more} windows before these")
        say(f"{now.astimezone(schedule.windows.tz):%Y-%m-%d %H:%M} {schedule.label(found.window)}")
        if schedule.folder:
            os.chdir(schedule.folder)
        code = call(arguments(schedule, found.window, now))
    return 0 if code == LEASE_HELD else code


def look(schedule: Schedule, now: datetime) -> tuple[Due, list[RunRecord]]:
    """What is due at a moment, and the runs of the store: none outside a window, where nobody need know."""
    found = opened(schedule, now)
    if found.window is None:
        return found, []
    runs = runs_of(schedule.store)
    check_begun(schedule, runs)
    return due(schedule, now, runs, lambda: cells_left(schedule)), runs


def cells_left(schedule: Schedule) -> bool:
    """Whether a run would find anything to do, as the campaign file is now."""
    import typer.main

    from bendscape.sweep.commands.calls import open_work
    from bendscape.sweep.commands.cli import app as bendscape
    from bendscape.sweep.engine.run import work_left

    run = typer.main.get_command(bendscape).commands["run"]  # type: ignore[attr-defined]
    modules = run.make_context("run", [schedule.file, *schedule.options]).params["kernel_module"]
    folder = Path(schedule.folder)
    absolute = [str(folder / module) if module.endswith(".py") else module for module in modules]
    work = open_work(schedule.file, schedule.store, kernel_modules=absolute)
    return work_left(work.url, work.campaign, work.kernel)
