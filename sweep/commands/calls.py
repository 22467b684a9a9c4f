"""What the commands do, as functions: `run`, `plan` and `status`, for Python and for the commands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import Campaign
from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.campaign.loading import hold, load_kernel, pickled, with_options
from bendscape.sweep.commands.console import console as standard_error
from bendscape.sweep.commands.options import bytes_of, core_hours_of, seconds_of
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine.executor import Executor, choose, executor_at
from bendscape.sweep.engine.fork_server import ForkServer
from bendscape.sweep.engine.hidden import Hidden
from bendscape.sweep.engine.identity import generation
from bendscape.sweep.engine.machine import available_cores, available_memory
from bendscape.sweep.engine.plan import Plan
from bendscape.sweep.engine.rounds import aim_of
from bendscape.sweep.engine.run import Summary, open_plan, run_campaign
from bendscape.sweep.engine.stop import GRACE_SECONDS
from bendscape.sweep.location import store_url
from bendscape.sweep.store.publish import silence_zarr

Asked = Campaign | str | os.PathLike[str] | Mapping[str, Any]
"""A campaign, the path of a campaign file, or the dictionary that such a file is parsed to."""


def run(
    campaign: Asked,
    *,
    store: str | os.PathLike[str] | None = None,
    kernel: Kernel | None = None,
    kernel_modules: Iterable[str] = (),
    address: str = "local",
    workers: int | None = None,
    max_memory: str | float | None = None,
    time_budget: str | float | None = None,
    core_hours: str | float | Mapping[str, float] | None = None,
    grace: str | float = GRACE_SECONDS,
    cell_timeout: str | float | None = None,
    retry_failed: bool = False,
    new_generation: bool = False,
    accept_kernel_change: bool = False,
    progress: bool = True,
) -> Summary:
    """Bring a store up to a campaign: what `bendscape run` does, with its options.

    The same call resumes and extends. It returns when everything is done, when the time budget ends, or when
    a signal stops it (only in the main thread; Python handles no signals elsewhere). A first Ctrl-C, or
    "interrupt" in a notebook, stops it cleanly. A second one raises KeyboardInterrupt, and what was recorded
    is kept. A campaign with a target goes in rounds until every model has its precision or none can gain.

    Parameters
    ----------
    campaign
        A `Campaign`, the path of a campaign file, or a dictionary as for `Campaign.from_dict`.
    store
        Path or URL of the store instead of that of the campaign.
    kernel
        A kernel in this process: a function decorated with `kernel`, or a `Kernel`. A campaign that names no
        kernel uses this one; a campaign that names another is refused. It is sent to worker processes by
        cloudpickle, at most 10 MB.
    kernel_modules
        Files or modules that define KERNEL, as `--kernel-module` names them.
    address
        Where to compute, as `--address`: "local" (processes on this machine), "serial" (this process alone),
        "ray" (a fresh Ray on this machine), or host:port of a Ray cluster.
    workers
        Number of tasks at a time, by default one per core.
    max_memory
        Bytes, or a text such as "12GB".
    time_budget, grace, cell_timeout
        Seconds, or a text such as "1h30min"; see `bendscape run --help`.
    core_hours
        Limit of the computing time of this run in core-hours; a mapping limits all runs with each label.
    retry_failed, new_generation, accept_kernel_change
        As the options of these names.
    progress
        Whether to show messages and progress: a bar in a terminal or a notebook, else on standard error.

    Returns
    -------
    Summary
        Cells done, failed and missing, the outcome, and the exit code of the command.

    Raises
    ------
    ParameterError
        Bad input: one line with the parameter, its value and what is accepted.
    LeaseHeld, LeaseLost
        Another run works on this store, or took it over.
    """
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise ParameterError("workers", workers, "an integer >= 1")
    limits = {
        "max_memory": None if max_memory is None else bytes_of("max_memory", max_memory),
        "time_budget": None if time_budget is None else seconds_of("time_budget", time_budget),
        "cell_timeout": None if cell_timeout is None else seconds_of("cell_timeout", cell_timeout),
    }
    patience = seconds_of("grace", grace)
    hours = core_hours_of("core_hours", {} if core_hours is None else core_hours)
    choose(address)
    work = open_work(campaign, store, kernel, kernel_modules, new_generation=new_generation)
    server = ForkServer() if address == "local" else None  # it imports while the plan is made
    with closing(server) if server else nullcontext():
        return bring_up(
            work, console=standard_error() if progress else Console(quiet=True),
            address=address, workers=workers, grace=patience, retry_failed=retry_failed, core_hours=hours,
            accept_kernel_change=accept_kernel_change, server=server, **limits,
        )  # fmt: skip


def plan(
    campaign: Asked,
    *,
    store: str | os.PathLike[str] | None = None,
    kernel: Kernel | None = None,
    kernel_modules: Iterable[str] = (),
    address: str = "local",
    max_memory: str | float | None = None,
) -> dict[str, Any]:
    """What a campaign would do, without running it: the document that `bendscape plan --json` prints.

    Cells, tiles, tasks, core-hours, bytes and the peak memory of a task, also by size. Of a campaign with a
    target it is the present round; what follows depends on its results. Parameters and errors are those of
    `run`; a task that needs more memory than is available is an error too.
    """
    memory = None if max_memory is None else bytes_of("max_memory", max_memory)
    return planned(open_work(campaign, store, kernel, kernel_modules), memory, address)[2]


def status(store: str | os.PathLike[str], *, kernel_modules: Iterable[str] = ()) -> dict[str, Any]:
    """Progress of a campaign, during or after a run: the document that `bendscape status --json` prints.

    Parameters
    ----------
    store
        Path or URL of the store.
    kernel_modules
        Modules with kernels that are not installed, as in `run`; needed to estimate the time left.

    Raises
    ------
    ParameterError
        There is no store.
    """
    return store_status(store, modules_of(kernel_modules))


@dataclass(frozen=True)
class Work:
    """A campaign, its kernel and the URL of its store; `pickle` is the kernel if it cannot be loaded by
    name."""

    campaign: Campaign
    url: str
    kernel: Kernel
    modules: tuple[str, ...]
    pickle: bytes = b""


def open_work(
    campaign: Asked,
    store: str | os.PathLike[str] | None = None,
    kernel: Kernel | None = None,
    kernel_modules: Iterable[str] = (),
    *,
    new_generation: bool = False,
) -> Work:
    """Load and check everything that a campaign needs, without computing or writing anything."""
    silence_zarr()
    modules = modules_of(kernel_modules)
    if isinstance(campaign, Mapping):
        campaign = Campaign.from_dict(campaign)
    elif not isinstance(campaign, Campaign):
        campaign = Campaign.from_file(campaign)
    if kernel is None:
        held = load_kernel(campaign.kernel_name, modules, campaign.options)
    else:
        held = with_options(hold(kernel, "Python"), campaign.options, "Python")
    named = campaign.of_kernel(held.name)
    campaign.to_grid(held.axes)  # refuses a mistake, with its line in the file, before anything is written
    aim_of(campaign, held)
    pickle = b"" if kernel is None else pickled(held)
    url = store_url(store or named.campaign.store)
    if new_generation:
        url = generation(url, named, held)
    return Work(named, url, held, modules, pickle)


def modules_of(modules: Iterable[str]) -> tuple[str, ...]:
    """Module names, with files as absolute paths, since workers may start in another folder."""
    if isinstance(modules, str):
        raise ParameterError("kernel_modules", modules, "a list of files or modules")
    return tuple(str(Path(m).absolute()) if str(m).endswith(".py") else str(m) for m in modules)


def planned(
    work: Work, max_memory: float | None = None, address: str = "local"
) -> tuple[Plan, Hidden, dict[str, Any]]:
    """The plan of opened work, the cells that its store hides, and the document for JSON."""
    choice = choose(address)
    made, hidden = open_plan(work.url, work.campaign, work.kernel)
    made.check_memory(available_memory() if max_memory is None else max_memory)
    about = {"name": work.campaign.campaign.name, "store": work.url}
    where = {"executor": choice.name, "executor_reason": choice.reason, "target": work.campaign.target}
    return made, hidden, about | made.to_json(available_cores()) | where


def bring_up(
    work: Work,
    *,
    console: Console,
    address: str = "local",
    workers: int | None = None,
    max_memory: float | None = None,
    time_budget: float | None = None,
    core_hours: Mapping[str, float] | None = None,
    grace: float = GRACE_SECONDS,
    cell_timeout: float | None = None,
    retry_failed: bool = False,
    accept_kernel_change: bool = False,
    server: ForkServer | None = None,
) -> Summary:
    """Compute what opened work lacks; see `run` and `run_campaign`.

    `server` is a fork server for local processes, if one was started before.
    """
    choice, start = choose(address), executor_at(address, workers, max_memory, server)

    def make_executor() -> Executor:
        if choice.name == "ray":
            console.print("starting Ray ..." if choice.here else f"joining the Ray cluster at {address} ...")
        return start()

    return run_campaign(
        work.campaign, work.url, work.kernel, make_executor,
        console=console, kernel_modules=work.modules, kernel_pickle=work.pickle, retry_failed=retry_failed,
        time_budget=time_budget, core_hours=core_hours, grace=grace, cell_timeout=cell_timeout,
        accept_kernel_change=accept_kernel_change,
        max_memory=max_memory or available_memory() if choice.here else max_memory,
    )  # fmt: skip
