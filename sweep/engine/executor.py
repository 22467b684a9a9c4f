"""The contract of an executor, the serial executor, and which executor an address stands for.

An executor knows no physics and no ledger. Ray is imported only if it is asked for.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any, NamedTuple, Protocol

from bendscape.core.errors import ParameterError
from bendscape.sweep.engine.fork_server import ForkServer
from bendscape.sweep.engine.limits import never
from bendscape.sweep.engine.machine import available_memory
from bendscape.sweep.engine.metrics import check_port
from bendscape.sweep.engine.worker import Order, run_tiles
from bendscape.sweep.plugins import entry_points
from bendscape.sweep.store.records import Receipt


def _ever(waited: float) -> bool:
    return True


class Job(NamedTuple):
    """An order for a worker, with its memory.

    With `whole_node` no other job shares the memory of the node; used for a job that ran out of memory.
    `until` returns the time (on `time.monotonic`) after which nobody waits for the job; it may change
    meanwhile. `again`, given the seconds since the job was handed over, says whether to compute it a second
    time beside the first, which may never come back.
    """

    order: Order
    memory: int
    whole_node: bool = False
    until: Callable[[], float] = never
    again: Callable[[float], bool] = _ever


class Result(NamedTuple):
    """The outcome of a job: its receipts, the error that it raised, or a `WorkerLost`."""

    job: Job
    receipts: list[Receipt]
    error: Exception | None


class Executor(Protocol):
    """Runs jobs until `next_job` has none and all are back; may yield None while it waits."""

    @property
    def slots(self) -> int:
        """Number of jobs that run at the same time."""
        ...

    @property
    def memory(self) -> float:
        """Bytes that the jobs on the largest machine may use together."""
        ...

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        """Results in the order of completion."""
        ...

    def close(self) -> None:
        """End at once everything that this executor started."""
        ...


class WorkerLost(Exception):
    """A worker process ended before its job did: it crashed, was killed, or reached its hard limit."""


class NodeLost(WorkerLost):
    """The worker was lost with its node, which says nothing about the job."""


class WorkerOutOfMemory(WorkerLost):
    """The worker was killed because memory ran out."""


class PoolLost(Exception):
    """All workers are gone for good; no running job will return."""


def _run(job: Job) -> Result:
    try:
        return Result(job, run_tiles(job.order, until=job.until), None)
    except Exception as error:
        return Result(job, [], error)


class SerialExecutor:
    """One job after another in this process: the reference that every other executor must reproduce.

    A cell that never returns to Python, or that ends its process, ends the run, as there is no other process.
    """

    slots = 1

    @property
    def memory(self) -> float:
        """Memory that this process may use."""
        return available_memory()

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        """Results in the order of the jobs; raises `Abandoned` inside a job that is no longer waited for."""
        while (job := next_job()) is not None:
            yield _run(job)

    def close(self) -> None:
        """Nothing to do."""


class Choice(NamedTuple):
    """The executor that an address stands for, the reason, and whether its jobs run on this machine."""

    name: str
    reason: str
    here: bool


def choose(address: str) -> Choice:
    """The executor that an address stands for. Checks the syntax only; starts and contacts nothing.

    Raises
    ------
    ParameterError
        The address is neither `local`, `serial`, a place of the entry-point group `bendscape.places` nor
        host:port. `auto` is refused because it could join somebody else's cluster.
    """
    if address == "local":
        why = "one machine needs no cluster; to use one, pass --address ray or host:port"
        return Choice("processes", why, here=True)
    if address == "serial":
        return Choice("serial", "--address serial: one cell after another, in this process", here=True)
    if address in _places():
        return Choice("ray", f"--address {address}: a fresh Ray, started for this run", here=True)
    if ":" not in address:
        accepted = ", ".join(["local", *sorted(_places()), "serial or host:port"])
        raise ParameterError("--address", address, accepted)
    return Choice("ray", f"--address {address}: the Ray cluster at that address", here=False)


def executor_at(
    address: str,
    workers: int | None = None,
    memory: float | None = None,
    server: ForkServer | None = None,
    metrics_port: int | None = None,
) -> Callable[[], Executor]:
    """A function that makes the executor for an address. A running cluster is contacted here, and must
    answer.

    Parameters
    ----------
    workers
        Number of jobs at the same time, by default one per core.
    memory
        Bytes that the jobs on this machine may use together, by default what this process may use.
    server
        A fork server that was started before, for local workers.
    metrics_port
        Where a Ray that is started for this run serves its metrics, on loopback; by default at a port that it
        chooses.

    Raises
    ------
    ParameterError
        An address that `choose` refuses, a cluster that does not answer, or a port that cannot be used.
    """
    name, _, here = choose(address)
    if metrics_port is not None:
        check_port(metrics_port, name, here)
    if name == "serial":
        return SerialExecutor
    if name == "processes":
        return lambda: _processes(workers, memory, server)
    options = place_options(address, workers, memory)
    if metrics_port is not None:
        options |= {"_metrics_export_port": metrics_port}
    return lambda: _on_ray(options, workers)


def _processes(workers: int | None, memory: float | None, server: ForkServer | None) -> Executor:
    from bendscape.sweep.engine.processes import ProcessExecutor

    return ProcessExecutor(workers, memory, server)


def _on_ray(options: dict[str, Any], workers: int | None) -> Executor:
    from bendscape.sweep.engine.ray_executor import RayExecutor

    return RayExecutor(options, workers)


def place_options(address: str, workers: int | None, memory: float | None = None) -> dict[str, Any]:
    """Options of `ray.init` for an address: a place by name (`ray`), or host:port of a running cluster.

    `workers` and `memory` (bytes that the tasks may use together) are for a place that starts its own Ray.

    Raises
    ------
    ParameterError
        The address is neither, or the cluster does not answer.
    """
    places = _places()
    if address in places:
        options: dict[str, Any] = places[address].load()(workers, memory)
        return options
    choose(address)
    if not answers(address.removeprefix("ray://")):
        raise ParameterError(
            "--address", address, "the address of a running Ray cluster", "nothing answers at this address"
        )
    return {"address": address}


def _places() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="bendscape.places")}


def answers(address: str) -> bool:
    """Whether something listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except (OSError, ValueError, OverflowError):
        return False
