"""Root of the command line. Heavy imports are inside the commands, so that --help is fast."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from bendscape.sweep.commands import kernels, metrics
from bendscape.sweep.commands import stores as store_commands
from bendscape.sweep.commands.options import Json, Memory, Modules, bytes_of, core_hours_of, seconds_of
from bendscape.sweep.plugins import entry_points

EXIT_INPUT, EXIT_BUG, EXIT_IO = 2, 70, 74  # the last two as in sysexits.h

app = typer.Typer(
    name="bendscape",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"bendscape {version('bendscape')}\n")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Sweep theory and simulation of a neural network's Hessian at initialisation, and turn the sweep into
    thresholds with error bars."""


File = Annotated[Path, typer.Argument(metavar="FILE.toml", help="Campaign file.")]
StoreOption = Annotated[
    str, typer.Option("--store", metavar="URL", help="Store to use instead of campaign.store.")
]
Address = Annotated[
    str,
    typer.Option(
        help="local (processes on this machine), serial (this process alone), ray (a fresh Ray on this "
        "machine), or host:port of a Ray cluster."
    ),
]


@app.command()
def plan(
    file: File,
    store: StoreOption = "",
    address: Address = "local",
    max_memory: Memory = "",
    kernel_module: Modules = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Show what a campaign would do: cells, tiles, tasks, core-hours, bytes, peak memory per task, executor.

    Exit code 2 if a task needs more memory than --max-memory, by default what this machine has.
    """
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    from bendscape.sweep.commands.calls import open_work, planned
    from bendscape.sweep.commands.console import out, print_json, results_only
    from bendscape.sweep.engine.machine import available_cores
    from bendscape.sweep.engine.progress import clock

    slots = available_cores()
    memory = bytes_of("--max-memory", max_memory) if max_memory else None
    with results_only():
        work = open_work(file, store, kernel_modules=kernel_module)
        made, hidden, document = planned(work, memory, address)
    if json:
        print_json(document)
        return
    peak = decimal(int(document["peak_bytes_per_task"]))
    table = Table(
        made.grid.axes.size.name if made.grid.axes.size else "size",
        "cells",
        "done",
        "failed",
        "tiles",
        "tile",
        "core time",
        "left",
        title=Text(work.campaign.campaign.name),
    )
    for size, row in made.sizes.items():
        shape = "x".join(map(str, made.layout.chunks(size)[len(made.layout.models) :]))
        table.add_row(
            *map(str, (size or "all", row.cells, row.done, row.failed, row.tiles, shape)),
            clock(row.seconds * made.correction(size)),
            clock(row.seconds_left * made.correction(size)),
        )
    out().print(table)
    out().print(
        f"{document['cells']} cells in {document['tiles']} tiles ({document['objects']} objects), "
        f"{document['tasks']} task{'s' * (document['tasks'] != 1)}, {slots} core{'s' * (slots != 1)}; "
        f"{document['core_hours']:.3g} core-hours, {document['core_hours_left']:.3g} left; "
        f"{decimal(document['bytes'])} before compression; at most {peak} per task"
    )
    out().print(
        f"executor: {document['executor']}; {document['executor_reason']}", markup=False, soft_wrap=True
    )
    if work.campaign.target is not None:
        out().print(
            "this campaign has a target: the plan is that of its present round, and further rounds follow "
            "from the results",
            soft_wrap=True,
        )
    if line := hidden.line(work.url):
        out().print(line, markup=False, soft_wrap=True)


@app.command()
def run(
    file: File,
    store: StoreOption = "",
    address: Address = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of tasks at a time; by default one per core.")
    ] = None,
    time_budget: Annotated[
        str, typer.Option(metavar="TIME", help="Stop cleanly within this time, e.g. 2h or 90min.")
    ] = "",
    core_hours: Annotated[
        list[str],
        typer.Option(
            metavar="[LABEL=]HOURS",
            help="Stop cleanly when this run has computed for so many core-hours; with a label, when all "
            "runs of the store that were given this label have. The ledger keeps count.",
        ),
    ] = [],  # noqa: B006
    max_memory: Memory = "",
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="How long to wait for the tasks under way after a signal.")
    ] = "5min",
    cell_timeout: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Time limit of a cell, which is then recorded as failed; by default an hour plus ten times "
            "the kernel's estimate.",
        ),
    ] = "",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retry failed cells.")] = False,
    new_generation: Annotated[
        bool,
        typer.Option(
            "--new-generation", help="If kernel or entropy have changed, use a new store beside the old one."
        ),
    ] = False,
    accept_kernel_change: Annotated[
        bool,
        typer.Option(
            "--accept-kernel-change",
            help="Continue a store although the source of the kernel has changed under the same version. You "
            "state that its results are the same bit for bit, and the store records that you did.",
        ),
    ] = False,
    kernel_module: Modules = [],  # noqa: B006
    metrics_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="With --address ray: serve metrics for Prometheus at http://127.0.0.1:PORT/metrics.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="After the run, print the table of thresholds and write the report to this file."),
    ] = None,
    json: Json = False,
) -> None:
    """Bring a store up to a campaign file; the same command resumes and extends.

    SIGINT, SIGTERM, SIGUSR1, SIGHUP and the end of a budget stop it: no further task starts, and tasks under
    way are given up after --grace or the end of the time budget. A second signal stops it at once. Nothing
    recorded is ever lost. A cell that ends its worker three times is recorded as failed; the others continue.

    A campaign with a target goes in rounds until every model has its precision.

    Exit code 0: complete; 1: finished with failed cells; 3: the target is unreachable, or its core-hours are
    used up; 75: stopped cleanly with work left; 130: stopped at once by a second signal; 2: bad input, or
    another run is at work; 74: the store or the cluster failed.
    """
    from bendscape.sweep.engine.fork_server import ForkServer

    # The server imports in its own process while the imports below run here.
    server = ForkServer() if address == "local" else None

    from contextlib import closing, nullcontext
    from dataclasses import asdict

    from bendscape.core.errors import ParameterError
    from bendscape.sweep.commands.calls import bring_up, open_work
    from bendscape.sweep.commands.console import console, print_json, results_only
    from bendscape.sweep.commands.output import check_report
    from bendscape.sweep.engine.progress import clock
    from bendscape.sweep.engine.rounds import UNREACHABLE
    from bendscape.sweep.store.ledger import LeaseHeld, LeaseLost

    say = console()
    with results_only():
        work = open_work(file, store, kernel_modules=kernel_module, new_generation=new_generation)
    url = work.url
    budget = seconds_of("--time-budget", time_budget) if time_budget else None
    patience = seconds_of("--grace", grace)
    memory = bytes_of("--max-memory", max_memory) if max_memory else None
    timeout = seconds_of("--cell-timeout", cell_timeout) if cell_timeout else None
    hours = core_hours_of("--core-hours", core_hours)
    if report is not None:
        check_report(report, name="--report")
    try:
        with results_only(), closing(server) if server else nullcontext():
            summary = bring_up(
                work, console=say, address=address, workers=workers, max_memory=memory,
                time_budget=budget, core_hours=hours, grace=patience, cell_timeout=timeout,
                retry_failed=retry_failed, accept_kernel_change=accept_kernel_change,
                metrics_port=metrics_port, server=server,
            )  # fmt: skip
    except LeaseHeld as error:
        say.print(f"error: {url}: {error}", markup=False)
        raise typer.Exit(2) from None
    except (LeaseLost, KeyboardInterrupt) as error:
        lost = isinstance(error, LeaseLost)
        reason = str(error) if lost else "stopped at once"
        say.print(f"{reason}; what was recorded is kept, and the same command resumes from there")
        code = 75 if lost else 130
        if json:
            print_json(
                {"store": url, "outcome": "lease lost" if lost else "stopped at once", "exit_code": code}
            )
        _leave(code)
    say.print(
        f"{summary.outcome}: {summary.done} of {summary.cells} cells done, {summary.failed} failed, "
        f"{summary.missing} left; {summary.computed} computed in {clock(summary.seconds)}; store {url}",
        markup=False,
    )
    if summary.missing and summary.outcome != UNREACHABLE:
        say.print(
            f"the same command resumes; about {summary.core_seconds_left / 3600:.2g} core-hours are left"
        )
    if summary.failed:
        say.print(f"`bendscape errors {summary.store}` lists what failed and why", markup=False)
    if json:
        print_json({**asdict(summary), "exit_code": summary.exit_code})
    if report is not None and not summary.missing:
        say.print("reading the store for the table and the report ...")
        try:
            _invoke("report", store=url, output=report, table=not json)
        except ParameterError as error:  # the campaign is done; its exit code takes precedence
            say.print(f"error: {error}", markup=False)
            _leave(summary.exit_code or EXIT_INPUT)
    _leave(summary.exit_code)


def _leave(code: int) -> None:
    # Skips Ray's exit handlers: if its processes were killed from outside, they wait a minute and abort.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a terminal that was closed
            stream.flush()
    os._exit(code)


store_commands.register(app)  # status, errors and fsck
kernels.register(app)
metrics.register(app)


def _invoke(command: str, **arguments: Any) -> None:
    # Calls a command of another layer by the name under which it is registered.
    for registered in app.registered_commands:
        if registered.name == command and registered.callback is not None:
            registered.callback(**arguments)
            return
    raise RuntimeError(f"no command {command!r} is registered")


@cache
def load_commands() -> None:
    """Add the commands of every package registered in the entry-point group `bendscape.commands`."""
    for point in sorted(entry_points(group="bendscape.commands"), key=lambda point: point.name):
        point.load()(app)


def main() -> None:
    """The `bendscape` command: bad input is one line on standard error and exit code 2."""
    from bendscape.sweep.commands.console import take_any_encoding

    load_commands()
    take_any_encoding()
    warnings.formatwarning = _one_line
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EXIT_IO)
    except Exception as error:
        usage = getattr(error, "format_message", None)  # a usage error of the command-line parser
        code = _exit_code(error) if usage is None else EXIT_INPUT
        if code == EXIT_BUG:
            traceback.print_exc()
        elif line := " ".join((str(error) if usage is None else usage()).split()):
            line += _after_dashes(error)
            outside = f"{type(error).__name__}: {_brief(line)}"
            sys.stderr.write(f"error: {line if code == EXIT_INPUT else outside}\n")
        sys.exit(code)


def _after_dashes(error: Exception) -> str:
    # Where an option is unknown to a command that hands options on to `run`.
    context = getattr(error, "ctx", None)
    handed_on = context is not None and any(one.name == "options" for one in context.command.params)
    return (
        "; options of `bendscape run` follow after --" if handed_on and hasattr(error, "option_name") else ""
    )


def _brief(line: str) -> str:
    # The message of the store library without the debug output that follows it.
    return line.partition(" Debug source: ")[0].removeprefix("Generic LocalFileSystem error: ")[:400]


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Warnings about precision or damage are shown without file name and line number."""
    if category.__name__ in ("PrecisionWarning", "DamageWarning"):
        return f"warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _exit_code(error: Exception) -> int:
    # Imported here, because --help must not load numpy.
    from bendscape.core.errors import ParameterError
    from bendscape.sweep.engine.executor import WorkerLost

    if isinstance(error, ParameterError):
        return EXIT_INPUT
    outside = ("obstore", "zarr", "ray")  # errors of the store, the network or the cluster
    if isinstance(error, OSError | WorkerLost) or type(error).__module__.partition(".")[0] in outside:
        return EXIT_IO
    return EXIT_BUG
