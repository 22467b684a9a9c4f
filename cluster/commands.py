"""The commands of the cluster: submit a campaign to a place, and look after its jobs.

Heavy imports wait inside the commands, so that help answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bendscape.sweep.commands.options import Json

if TYPE_CHECKING:
    from bendscape.cluster.place import Job, Place, State

File = Annotated[Path, typer.Argument(metavar="FILE.toml", help="Campaign file.")]
RunOptions = Annotated[
    list[str] | None,
    typer.Argument(metavar="[-- OPTIONS]", help="Further options of `bendscape run`, after --."),
]
StoreOption = Annotated[
    str, typer.Option("--store", metavar="URL", help="Store to use instead of campaign.store.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted, and do nothing.")]
Wait = Annotated[
    bool,
    typer.Option("--wait", help="Follow the job to its end; its exit code is that of `bendscape run`."),
]
SET_BY_PLACES = ("--address", "--store", "--time-budget", "--grace", "--json")
WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5.0, 60.0  # between two looks at a job: at first, and later


def register(app: typer.Typer) -> None:
    """Add the commands of the cluster to the command line."""
    from bendscape.cluster.kuberay_command import submit_kuberay  # it needs what is defined here

    submit = typer.Typer(no_args_is_help=True, help="Run a campaign as a job: on this machine or a cluster.")
    submit.command("local")(submit_local)
    submit.command("slurm")(submit_slurm)
    submit.command("kuberay")(submit_kuberay)
    app.add_typer(submit, name="submit")
    jobs = typer.Typer(no_args_is_help=True, help="The jobs that were submitted: list, log, cancel.")
    jobs.command("list")(jobs_list)
    jobs.command("log")(jobs_log)
    jobs.command("cancel")(jobs_cancel)
    app.add_typer(jobs, name="jobs")
    from bendscape.cluster.schedule_commands import app as schedule

    app.add_typer(schedule, name="schedule")


def submit_local(
    file: File,
    options: RunOptions = None,
    store: StoreOption = "",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of tasks at a time; by default one per core.")
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Run a campaign in the background on this machine, also after you log out."""
    from bendscape.cluster.place import place

    job = job_of(file, store, options or ())
    hand_over(place("local", {"workers": workers}), job, dry_run=dry_run, wait=wait, json=json)


def submit_slurm(
    file: File,
    options: RunOptions = None,
    store: StoreOption = "",
    nodes: Annotated[int, typer.Option(help="Nodes; on several, Ray is started on all of them.")] = 1,
    cpus: Annotated[int | None, typer.Option(help="Cores on each node.  [required]")] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Wall time of one round, e.g. 8h or 1-12:00:00; the job requeues itself while work is left."
            "  [required]",
        ),
    ] = None,
    mem: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory on each node, e.g. 16GB; by default the site's."),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Partition; by default the site's.")] = None,
    account: Annotated[str | None, typer.Option(help="Account to charge.")] = None,
    drain: Annotated[
        str, typer.Option(metavar="TIME", help="How long before the wall time no more tasks start.")
    ] = "2min",
    setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="Line of shell before the rest, e.g. 'module load python/3.11'."),
    ] = None,
    credentials: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="NAME=value lines for the job's environment, in a file that you alone can read.",
        ),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="Further option of sbatch, e.g. --sbatch=--qos=long."),
    ] = None,
    ports: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="FIRST LAST", help="Ports that Ray may use on the nodes."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", help="Port on the first node at which Ray serves metrics for Prometheus."
        ),
    ] = None,
    dry_run: DryRun = False,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Run a campaign as a Slurm job that requeues itself while work is left, and stops when it is done."""
    from bendscape.cluster.place import place

    told = {
        "nodes": nodes, "cpus": cpus, "time": time, "mem": mem, "partition": partition, "account": account,
        "drain": drain, "setup": setup, "credentials": credentials, "sbatch": sbatch, "ports": ports,
        "metrics_port": metrics_port,
    }  # fmt: skip
    job = job_of(file, store, options or (), rounds=True)
    hand_over(place("slurm", told), job, dry_run=dry_run, wait=wait, json=json)


def job_of(
    file: Path,
    store: str,
    options: list[str] | tuple[str, ...],
    budget: float | None = None,
    fixed: tuple[str, ...] = SET_BY_PLACES,
    rounds: bool = False,
) -> Job:
    """The job of a campaign file, once everything in it and in the options of its run is known to be right.

    Options that are `fixed` are set by whoever calls. With `rounds` the job may start its run several times.

    Raises
    ------
    ParameterError
        What `bendscape run` would refuse, an option that the place sets, or core-hours that each of several
        runs of the job would have anew.
    """
    import typer.main

    from bendscape.cluster.place import Job
    from bendscape.core.errors import ParameterError
    from bendscape.sweep.commands.calls import open_work
    from bendscape.sweep.commands.cli import app
    from bendscape.sweep.commands.console import results_only
    from bendscape.sweep.commands.options import bytes_of, core_hours_of, seconds_of
    from bendscape.sweep.engine.executor import choose
    from bendscape.sweep.engine.metrics import check_port
    from bendscape.sweep.store.runs import OWN

    for option in options:
        if option.partition("=")[0] in fixed:
            accepted = f"an option of `bendscape run` other than {', '.join(fixed)}"
            raise ParameterError("option", option, accepted, "these are set by options before --")
    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    asked = run.make_context("run", [str(file), *options]).params
    chosen = choose(asked["address"])
    if asked["metrics_port"] is not None:
        check_port(asked["metrics_port"], chosen.name, chosen.here)
    limits = core_hours_of("--core-hours", asked["core_hours"])
    if rounds and OWN in limits:
        accepted = (
            f"LABEL={limits[OWN]:g}, as this job may run several times, and each run would have as much"
        )
        raise ParameterError("--core-hours", f"{limits[OWN]:g}", accepted)
    for name, of in (("grace", seconds_of), ("cell_timeout", seconds_of), ("max_memory", bytes_of)):
        if asked[name]:
            of(f"--{name.replace('_', '-')}", asked[name])
    with results_only():
        work = open_work(
            file, store, kernel_modules=asked["kernel_module"], new_generation=asked["new_generation"]
        )
    return Job(
        file=str(file.absolute()), store=work.url, name=work.campaign.campaign.name,
        budget=budget, options=tuple(options),
    )  # fmt: skip


def hand_over(place: Place, job: Job, *, dry_run: bool, wait: bool, json: bool) -> None:
    """Submit a job, or show what would be submitted; with `wait` follow it and leave with its exit code."""
    import sys
    import time

    from bendscape.cluster.place import jobs_folder
    from bendscape.sweep.commands.console import console, print_json

    if dry_run:
        text = place.render(job, jobs_folder() / "DRY-RUN")
        if json:
            print_json({"place": place.name, "store": job.store, "text": text})
        else:
            sys.stdout.write(text)
        return
    say = console()
    id = place.submit(job)
    say.print(f"submitted to {place.name} as job {id}; store {job.store}", markup=False)
    state, last, pause = _look(place, id), None, WAIT_SECONDS
    while wait and not state.ended:
        if state != last:
            say.print(f"job {id}: {state.word}{state.detail and f' ({state.detail})'}", markup=False)
        last = state
        time.sleep(pause)
        pause = min(1.2 * pause, LONGEST_WAIT_SECONDS)
        state = _look(place, id)
    if wait:
        say.print(f"job {id}: {state.word}{state.detail and f' ({state.detail})'}", markup=False)
    if json:
        print_json({"place": place.name, "id": id, "store": job.store, **state._asdict()})
    if wait:
        unknown = 75 if state.word == "cancelled" else 74
        raise typer.Exit(unknown if state.exit_code is None else state.exit_code)


def _look(place: Place, id: str) -> State:
    # A scheduler that does not answer for a while has ended no job.
    from bendscape.cluster.place import State

    try:
        return place.state(id)
    except OSError as error:
        return State("unknown", str(error))


def jobs_list(
    store: Annotated[str | None, typer.Argument(metavar="STORE", help="Only the jobs of this store.")] = None,
    json: Json = False,
) -> None:
    """The jobs that you submitted, and where they stand."""
    from datetime import datetime

    from rich.table import Table

    from bendscape.cluster.place import jobs_of
    from bendscape.sweep.commands.console import out, print_json

    rows = jobs_of(store, all_of_them=True)
    if json:
        print_json({"jobs": rows})
        return
    table = Table("place", "id", "submitted", "campaign", "state", "detail")
    for row in rows:
        when = datetime.fromtimestamp(row["submitted"]).isoformat(" ", "minutes")
        table.add_row(row["place"], row["id"], when, row["name"], row["state"], row["detail"])
    out().print(table)


Id = Annotated[str, typer.Argument(metavar="ID", help="Id of a job, as `bendscape jobs list` shows it.")]


def jobs_log(id: Id) -> None:
    """What a job has printed so far."""
    import sys

    sys.stdout.write(_place_of(id).log(id))


def jobs_cancel(id: Id) -> None:
    """End a job for good. What it recorded is kept, and submitting it again resumes."""
    _place_of(id).cancel(id)


def _place_of(id: str) -> Place:
    from bendscape.cluster.place import place, records
    from bendscape.core.errors import ParameterError

    for record in records():
        if record.id == id:
            return place(record.place)
    raise ParameterError("ID", id, "the id of a job that you submitted", "see `bendscape jobs list`")
