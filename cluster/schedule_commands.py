"""The commands of schedules: install, list, remove, and what a timer calls. Heavy imports are inside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bendscape.cluster.commands import File, RunOptions, StoreOption
from bendscape.sweep.commands.options import Json

if TYPE_CHECKING:
    from bendscape.cluster.schedule import Schedule

app = typer.Typer(
    no_args_is_help=True, help="Compute a campaign in windows of the week, within budgets of core-hours."
)
SET_BY_SCHEDULES = ("--store", "--time-budget", "--core-hours", "--new-generation", "--json")


@app.command()
def install(
    file: File,
    options: RunOptions = None,
    window: Annotated[
        list[str],
        typer.Option(
            metavar="TEXT",
            help='When to compute: "mon-fri 20:00-06:00", "sat,sun", "fri 20:00 - mon 06:00", nights, '
            "weekends or always; may be given again.",
        ),
    ] = [],  # noqa: B006
    time_zone: Annotated[
        str,
        typer.Option(metavar="NAME", help="Whose clock it is, e.g. Europe/Berlin; by default this one's."),
    ] = "",
    window_core_hours: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Core-hours of each window.")
    ] = None,
    core_hours: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Core-hours of the schedule, all windows together.")
    ] = None,
    systemd: Annotated[bool, typer.Option("--systemd", help="By a timer of your own systemd.")] = False,
    cron: Annotated[bool, typer.Option("--cron", help="By a line of your crontab.")] = False,
    scrontab: Annotated[bool, typer.Option("--scrontab", help="By Slurm's scrontab, as a job.")] = False,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="By a CronJob that creates RayJobs.")
    ] = False,
    every: Annotated[
        int, typer.Option(metavar="MINUTES", help="How often to look, within a window, whether a run is due.")
    ] = 15,
    scron: Annotated[
        list[str],
        typer.Option(metavar="OPTION", help="Option of the job, e.g. --scron=--cpus-per-task=16."),
    ] = [],  # noqa: B006
    place: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=VALUE", help="Parameter of KubeRay, e.g. --place image=...; see `submit kuberay`."
        ),
    ] = [],  # noqa: B006
    name: Annotated[
        str, typer.Option(help="Name of the schedule; by default made from that of the campaign.")
    ] = "",
    store: StoreOption = "",
    credentials: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="NAME=value lines for the environment of runs, in a file that you alone can read.",
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be installed.")] = False,
    json: Json = False,
) -> None:
    """Have a campaign computed in windows of the week. Installed again under its name, it is changed.

    Times are those of the clock in the time zone, summer time included. Core-hours are those that cells took,
    and the ledger of the store keeps count, by the name of the schedule and by window. A start while a run is
    at work does nothing; one that was cut short goes on at the next look, every so many minutes.
    """
    import dataclasses
    import os
    import sys
    import time

    from bendscape.cluster.commands import job_of
    from bendscape.cluster.credentials import read_environment
    from bendscape.cluster.schedule import Schedule, path_of, report
    from bendscape.cluster.schedule import every as known
    from bendscape.cluster.schedule_timers import TIMERS, stays_after_logout
    from bendscape.cluster.schedule_windows import local_zone
    from bendscape.core.errors import ParameterError
    from bendscape.sweep.commands.console import console, print_json

    chosen = [
        timer for timer, asked in zip(TIMERS, (systemd, cron, scrontab, kubernetes), strict=True) if asked
    ]
    if len(chosen) != 1:
        accepted = "exactly one of --systemd, --cron, --scrontab and --kubernetes"
        raise ParameterError("timer", ", ".join(chosen), accepted)
    if credentials:
        if kubernetes:
            remedy = "name a Secret: --place secrets=NAME"
            raise ParameterError("--credentials", credentials, "absent on Kubernetes", remedy)
        credentials = os.path.abspath(os.path.expanduser(credentials))
        read_environment(credentials)
    if (scron and not scrontab) or (place and not kubernetes):
        option, of = ("--scron", "--scrontab") if scron and not scrontab else ("--place", "--kubernetes")
        raise ParameterError(option, (scron or place)[0], f"absent without {of}")
    fixed = (*SET_BY_SCHEDULES, "--address", "--grace") if kubernetes else SET_BY_SCHEDULES
    job = job_of(file, store, options or (), fixed=fixed)
    schedule = Schedule(
        name=name or _slug(job.name), timer=chosen[0], file=job.file, store=job.store, rules=tuple(window),
        zone=time_zone or local_zone(), every=every, window_core_hours=window_core_hours,
        core_hours=core_hours, credentials=credentials, options=job.options,
        place={"options": scron} if scrontab else _parameters(place), folder=job.folder, python=job.python,
        installed=time.time(),
    )  # fmt: skip
    if dry_run:
        sys.stdout.write(TIMERS[schedule.timer].render(schedule))
        return
    with _alone():
        earlier = next((one for one in known() if one.name == schedule.name), None)
        if earlier is not None and earlier.store != schedule.store:
            accepted = f"a name of its own: the schedule of this name is of {earlier.store}"
            raise ParameterError("--name", schedule.name, accepted, "give another --name, or remove that one")
        if earlier is not None and (earlier.rules, earlier.zone) == (schedule.rules, schedule.zone):
            schedule = dataclasses.replace(schedule, installed=earlier.installed)
        text = TIMERS[schedule.timer].render(schedule)  # refuses what cannot be, before anything is written
        _keep(schedule)
        try:
            schedule = dataclasses.replace(schedule, id=TIMERS[schedule.timer].install(schedule))
            if earlier is not None and (earlier.timer, earlier.id) != (schedule.timer, schedule.id):
                TIMERS[earlier.timer].remove(earlier)  # or it would go on for ever, known to nobody
        except BaseException:
            path_of(schedule.name).unlink() if earlier is None else _keep(earlier)
            raise
        _keep(schedule)
    document = report(schedule, _now(), [], 0)
    if json:
        print_json({key: document[key] for key in ("name", "timer", "store", "next_start")} | {"text": text})
        return
    say = console()
    say.print(
        f"schedule {schedule.name}: the next window opens at {document['next_start']} "
        f"({schedule.zone}); store {schedule.store}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    if systemd and not stays_after_logout():
        say.print("your timers stop when you log out: `loginctl enable-linger` keeps them", markup=False)


@app.command("list")
def list_schedules(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this schedule.")] = None,
    windows: Annotated[int, typer.Option(min=0, help="How many of the last windows to show.")] = 7,
    json: Json = False,
) -> None:
    """Next start, what each window did, what was missed, and the core-hours that are left."""
    from rich.table import Table

    from bendscape.cluster.credentials import environment
    from bendscape.cluster.schedule import check_begun, every, load, report, runs_of
    from bendscape.cluster.schedule_timers import TIMERS
    from bendscape.sweep.commands.console import console, out, print_json, results_only

    def unreadable(path: Path, error: Exception) -> None:
        console().print(f"{path} is no schedule: {error}", markup=False, soft_wrap=True)

    documents = []
    for schedule in [load(name)] if name else every(unreadable):
        runs, errors = [], []
        try:
            with results_only(), environment(schedule.credentials):
                runs = runs_of(schedule.store)
                check_begun(schedule, runs)
        except Exception as error:  # of one store: the others are still to be shown
            errors.append(f"the store cannot be read: {type(error).__name__}: {error}")
        document = report(schedule, _now(), runs, windows)
        try:
            present = TIMERS[schedule.timer].present(schedule)
        except (OSError, ValueError) as error:
            present = None
            errors.append(str(error))
        if errors:  # nobody knows what its windows did
            document |= {"past": None, "missed": None, "core_hours": None, "window_core_hours": None}
        documents.append({**document, "installed": present, "errors": errors})
    if json:
        print_json({"schedules": documents})
        return
    if not documents:
        console().print("no schedules; `bendscape schedule install` makes one")
    for document in documents:
        table = Table("window", "until", "state", "runs", "cells", "core-hours", title=document["name"])
        for past in document["past"] or ():
            state = past["state"] + (f" ({past['reason']})" if past["reason"] else "")
            runs_text = ", ".join(map(str, past["runs"]))
            row = (past["start"], past["end"], state, runs_text, str(past["cells"]))
            table.add_row(*row, f"{past['core_hours']:.3g}")
        out().print(table)
        for line in _lines(document):
            out().print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(document: dict[str, Any]) -> Iterator[str]:
    yield f"{document['campaign']} -> {document['store']}, by {document['timer']}"
    open_until = f"; a window is open until {document['open_until']}" if document["open_until"] else ""
    yield f"next start {document['next_start']} ({document['time_zone']}){open_until}"
    for of, key in (("in all", "core_hours"), ("in this window", "window_core_hours")):
        if budget := document[key]:
            left = (
                "no limit" if budget["limit"] is None else f"{budget['left']:.3g} of {budget['limit']:g} left"
            )
            yield f"core-hours {of}: {budget['used']:.3g} used, {left}"
    if document["missed"]:
        yield f"missed: {document['missed']} windows passed without a run"
    if document["installed"] is False:
        yield f"its timer is not there any more, or was changed: install {document['name']} again"
    yield from document["errors"]


@app.command()
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]) -> None:
    """Remove a schedule and its timer, nothing else. A run at work goes on; the ledger keeps the history."""
    from bendscape.cluster.schedule import load, path_of
    from bendscape.cluster.schedule_timers import TIMERS
    from bendscape.sweep.commands.console import console

    with _alone():
        schedule = load(name)
        TIMERS[schedule.timer].remove(schedule)
        path_of(name).unlink()
    console().print(f"schedule {name} is removed; its store is kept: {schedule.store}", markup=False)


@app.command("run")
def run_schedule(
    schedule: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a schedule, or its file, or its JSON.")
    ],
    options: RunOptions = None,
    log: Annotated[
        bool, typer.Option("--log", help="Print into the log beside the file of the schedule.")
    ] = False,
    ask: Annotated[
        bool, typer.Option("--ask", help="Start nothing: exit code 0 says that a run is due, 1 that none is.")
    ] = False,
) -> None:
    """What a timer calls: `bendscape run` if a window is open, no run is at work and core-hours are left.

    Exit code 0 if no run is due, else that of `bendscape run`.
    """
    import os
    import sys

    from bendscape.cluster.credentials import environment
    from bendscape.cluster.schedule import Schedule, load, path_of
    from bendscape.cluster.schedule_call import look, perform
    from bendscape.sweep.commands.cli import app as bendscape
    from bendscape.sweep.commands.console import console

    path: Path | None = None
    if schedule.startswith("{"):
        known = Schedule.from_json(schedule)
    elif schedule.endswith(".json"):
        path = Path(schedule).absolute()
        known = Schedule.from_json(path.read_text())
    else:
        path, known = path_of(schedule), load(schedule)
    if log:
        place = os.path.splitext(schedule)[0] + ".log"
        descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
    if ask:
        with environment(known.credentials):
            found, _ = look(known, _now())
        console().print(found.why_not or "a run is due", markup=False, soft_wrap=True)
        raise typer.Exit(0 if found.window else 1)
    command = typer.main.get_command(bendscape)

    def call(arguments: list[str]) -> int:
        return int(command.main([*arguments, *(options or ())], "bendscape", standalone_mode=False) or 0)

    def begun() -> None:
        if path is not None and not known.begun:
            _begin(path, known)

    say = console()
    code = perform(
        known,
        _now(),
        lambda line: say.print(line, markup=False, soft_wrap=True),
        call,
        quiet=log,
        begun=begun,
    )
    sys.stdout.flush()
    raise typer.Exit(code)


def _now() -> datetime:
    from datetime import UTC

    return datetime.now(UTC)


def _slug(name: str) -> str:
    import re

    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "campaign"


def _parameters(given: list[str]) -> dict[str, Any]:
    # Of KubeRay; those that may be given again are several values.
    from bendscape.core.errors import ParameterError

    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ParameterError("--place", text, "NAME=VALUE")
        several = name in ("secrets", "env", "node_labels")
        found[name] = (*found.get(name, ()), value) if several else value
    return found


def _keep(schedule: Schedule) -> None:
    from bendscape.cluster.place import write_private
    from bendscape.cluster.schedule import path_of

    write_private(path_of(schedule.name), schedule.to_json())


def _begin(path: Path, schedule: Schedule) -> None:
    # Unless it was changed or removed meanwhile.
    import dataclasses

    from bendscape.cluster.place import write_private

    with _alone(path.parent):
        if path.exists() and path.read_text() == schedule.to_json():
            write_private(path, dataclasses.replace(schedule, begun=True).to_json())


@contextmanager
def _alone(folder: Path | None = None) -> Iterator[None]:
    """A context in which no other command of this user changes schedules."""
    import fcntl
    import os

    from bendscape.cluster.schedule import schedules_folder
    from bendscape.core.errors import ParameterError

    folder = folder or schedules_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        accepted = "a folder to write in"
        raise ParameterError("BENDSCAPE_SCHEDULES", str(folder), accepted, str(error)) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
