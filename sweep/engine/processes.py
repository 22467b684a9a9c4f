"""Processes on this machine as an executor: no cluster, no files, and the first cell within a second."""

from __future__ import annotations

import itertools
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from bendscape.core.errors import as_integer
from bendscape.sweep.engine.executor import Job, NodeLost, Result, WorkerLost, WorkerOutOfMemory
from bendscape.sweep.engine.fork_server import FAILED, READY, ForkServer
from bendscape.sweep.engine.machine import available_cores, available_memory

WAIT_SECONDS = 0.2  # signals are handled between two waits


@dataclass
class _Worker:
    connection: Connection[Any, Any]
    job: Job | None = None
    closed: bool = False  # nothing more will come through the connection


class ProcessExecutor:
    """Worker processes on this machine, one job each. A lost worker is reported as a result, and replaced.

    Jobs start in the order in which they are given, as soon as a worker is free and the total memory stays
    below `memory`. A job that wants the whole node, or more than is available, waits until no other job runs,
    and runs alone.

    Parameters
    ----------
    workers
        Number of workers, by default one per core.
    memory
        Bytes that the jobs may use together, by default what this process may use.
    server
        A fork server that was started before.

    Raises
    ------
    WorkerLost
        No worker can be started.
    """

    def __init__(
        self, workers: int | None = None, memory: float | None = None, server: ForkServer | None = None
    ) -> None:
        self._slots = as_integer("--workers", available_cores() if workers is None else workers, 1)
        self._memory = available_memory() if memory is None else memory
        self._server, self._prints = _ready(server or ForkServer()), True
        self._numbers = itertools.count()
        self._workers: dict[int, _Worker] = {}
        self._out_of_memory = _times_out_of_memory()

    @property
    def slots(self) -> int:
        """Largest number of workers; they are started when there are jobs for them."""
        return self._slots

    @property
    def memory(self) -> float:
        """Bytes that the jobs may use together."""
        return self._memory

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        """Results in the order of completion."""
        held: Job | None = None
        results: deque[Result] = deque()
        while True:
            # A free worker gets its next job before the driver handles its last result.
            more = True
            while more and len(self._jobs()) < self._slots:
                held = held or next_job()
                more = held is not None and self._fits(held)
                if held is not None and more:
                    self._give(held)
                    held = None
            if results:
                yield results.popleft()
            elif not self._jobs():
                return
            else:
                results.extend(self._wait())
                if not results:
                    yield None

    def _jobs(self) -> list[Job]:
        return [worker.job for worker in self._workers.values() if worker.job is not None]

    def _fits(self, job: Job) -> bool:
        others = self._jobs()
        if not others:
            return True
        alone = job.whole_node or any(other.whole_node for other in others)
        return not alone and job.memory + sum(other.memory for other in others) <= self._memory

    def _give(self, job: Job) -> None:
        idle = (worker for worker in self._workers.values() if worker.job is None and not worker.closed)
        worker = next(idle, None)
        if worker is None:
            number = next(self._numbers)
            worker = self._workers[number] = _Worker(self._server.fork(number))
        worker.job = job
        try:
            worker.connection.send(job.order)
        except OSError:  # it has just died; the server will report that
            worker.closed = True

    def _wait(self) -> Iterator[Result]:
        listening = [worker.connection for worker in self._workers.values() if not worker.closed]
        output = [self._server.output] if self._prints else []
        ready = set(wait([self._server.reports, *output, *listening], WAIT_SECONDS))
        if self._server.output in ready:
            self._prints = self._server.pass_on()
        for number, worker in self._workers.items():
            if worker.connection in ready:
                yield from self._receive(number, worker)
        if self._server.reports not in ready:
            return
        try:
            number, what = self._server.reports.recv()
        except (EOFError, OSError):
            yield from self._server_lost()
            return
        yield from self._ended(number, what)

    def _receive(self, number: int, worker: _Worker) -> Iterator[Result]:
        try:
            receipts, error = worker.connection.recv()
        except (EOFError, OSError):
            worker.closed = True
            self._server.kill(number)  # in case it is alive: a cell may have closed a connection not its own
            return
        if worker.job is not None:
            job, worker.job = worker.job, None
            yield Result(job, receipts, error)

    def _ended(self, number: int, what: int | str) -> Iterator[Result]:
        worker = self._workers.pop(number)
        yield from self._last_words(number, worker)
        if worker.job is not None:
            yield Result(worker.job, [], self._lost(what))

    def _last_words(self, number: int, worker: _Worker) -> Iterator[Result]:
        # A result that was sent before the end counts.
        with worker.connection:
            if not worker.closed and worker.connection.poll():
                yield from self._receive(number, worker)

    def _lost(self, what: int | str) -> WorkerLost:
        if what == -signal.SIGKILL and _times_out_of_memory() > self._out_of_memory:
            self._out_of_memory += 1
            return WorkerOutOfMemory("the system ran out of memory and killed a worker process")
        if isinstance(what, str):
            return WorkerLost(what)
        how = f"was killed by {_signal_name(-what)}" if what < 0 else f"exited with code {what}"
        return WorkerLost(f"a worker process {how}")

    def _server_lost(self) -> Iterator[Result]:
        # The workers died with the server.
        workers, self._workers = self._workers, {}
        self._server.close()
        self._server, self._prints = _ready(ForkServer()), True
        for number, worker in workers.items():
            yield from self._last_words(number, worker)
            if worker.job is not None:
                yield Result(worker.job, [], NodeLost("the process that forks workers was killed"))

    def close(self) -> None:
        """End the workers at once, whatever they are doing."""
        self._server.close()
        for worker in self._workers.values():
            worker.connection.close()
        self._workers.clear()


def _ready(server: ForkServer) -> ForkServer:
    try:
        while not server.reports.poll(WAIT_SECONDS):
            server.pass_on()  # imports that print more than the pipe holds would otherwise block for ever
        number, what = server.reports.recv()
    except (EOFError, OSError):
        number, what = FAILED, "the process that forks them ended at once"
    if number == READY:
        return server
    server.close()
    raise WorkerLost(f"no worker can be started: {what.strip().splitlines()[-1]}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _times_out_of_memory() -> int:
    # How often Linux has killed a process because memory ran out; it does not say which process.
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(counters.get("oom_kill", 0))
    except (OSError, ValueError):
        return 0
