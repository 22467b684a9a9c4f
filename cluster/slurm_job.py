"""What runs inside a Slurm job: Ray on its nodes, the driver, and what to do when either ends.

The batch script becomes this process, which Slurm's signals reach. It starts rounds of the driver until the
campaign is done or the wall time is nearly over; then it requeues its job. It never requeues a job that was
told to end. All it has to know is on its command line, in the batch script.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from bendscape.cluster.place import write_private
from bendscape.cluster.ray_node import environment, free_ports
from bendscape.cluster.slurm import CANCELLED, ROUNDS, SHUTDOWN_SECONDS, ask, seconds_left
from bendscape.core.errors import ParameterError
from bendscape.sweep.engine.executor import answers

TEMPORARY = (74, 75)  # exit codes of `bendscape run`: the store or the cluster failed; stopped with work left
FRUITLESS_ROUNDS = 3  # one after another, after which another would not help
HEAD_SECONDS = 180.0  # for the head of Ray to answer
SECOND_TERM_SECONDS = 10.0  # Slurm waits 30 s, unless told otherwise, between TERM and KILL
PAUSES = (5.0, 60.0)  # before a lost node is started again: the first, and the longest


class Told(NamedTuple):
    """The command line of this process."""

    job: str
    folder: Path
    nodes: int
    cpus: int
    memory: int
    wall_time: float
    drain: float
    ports: tuple[int, int]
    driver: list[str]


@dataclass
class Heard:
    """The signals so far: the early one, and the one that ends the job for good."""

    early: bool = False
    end: bool = False

    def listen(self) -> None:
        """Install the handlers."""
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "early", True))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "end", True))


def say(text: str) -> None:
    """A line in the log of the job."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} job: {text}", file=sys.stderr, flush=True)


class Clock:
    """The wall time that is left, as Slurm has it: it may have been changed; or counted here, if Slurm does
    not answer."""

    def __init__(self, told: Told) -> None:
        self._job = told.job
        self._end = time.monotonic() + told.wall_time

    def left(self) -> float:
        """Seconds."""
        with contextlib.suppress(OSError, ValueError, ParameterError):
            answer = ask("squeue", "--noheader", f"--jobs={self._job}", "--Format=TimeLeft:30")
            self._end = time.monotonic() + seconds_left(answer.strip())
        return self._end - time.monotonic()


def allocation(job: str) -> dict[str, str]:
    """The nodes that the job has now, the one that runs this process first, and their addresses."""
    names = ask("squeue", "--noheader", f"--jobs={job}", "--Format=NodeList:4000").strip()
    hosts = ask("scontrol", "show", "hostnames", names).split()
    hosts.sort(key=lambda host: host != os.environ.get("SLURMD_NODENAME"))
    addresses = {}
    for line in ask("scontrol", "--oneliner", "show", "node", names).splitlines():
        fields = dict(part.split("=", 1) for part in line.split() if "=" in part)
        addresses[fields["NodeName"]] = fields["NodeAddr"]
    return {host: addresses[host] for host in hosts}


def node_command(told: Told, index: int, address: str, head: str) -> list[str]:
    """The command of a node of Ray."""
    return [
        *(sys.executable, "-m", "bendscape.cluster.ray_node", "--folder", f"j{told.job}-{index}"),
        *("--address", address, "--head", head, *(("--first",) if index == 0 else ())),
        *("--cpus", str(told.cpus), "--memory", str(told.memory * 9 // 10)),
        *("--ports", *map(str, told.ports)),
    ]


def step(told: Told, host: str, command: Sequence[str]) -> list[str]:
    """The command that runs another on one node of this job."""
    return [
        *("srun", "--overlap", "--export=ALL", "--nodes=1", "--ntasks=1", f"--nodelist={host}"),
        *(f"--cpus-per-task={told.cpus}", "--input=none", "--quiet", *command),
    ]


@dataclass
class Worker:
    """A node of Ray beside the head: its process here, and when to start it again."""

    host: str
    index: int
    process: subprocess.Popen[bytes]
    since: float
    pause: float = PAUSES[0]
    due: float | None = None
    replaced: bool = False


@dataclass
class Ray:
    """The Ray of a round: a head here, a worker on each other node, all of them processes of this job."""

    told: Told
    addresses: dict[str, str]
    head: str = ""
    first: subprocess.Popen[bytes] | None = None
    workers: list[Worker] = field(default_factory=list)
    replacements: list[str] = field(default_factory=list)

    @property
    def token(self) -> Path:
        """The file of its token."""
        return self.told.folder / "token"

    def start(self, heard: Heard) -> bool:
        """Start it; False if its head does not answer."""
        write_private(self.token, secrets.token_hex(32))
        os.environ.update(environment(str(self.token)))
        here = next(iter(self.addresses.values()))
        self.head = f"{here}:{free_ports(1, here, self.told.ports)[0]}"
        os.environ["BENDSCAPE_SLURM_RAY"] = self.head
        self.first = self._process(node_command(self.told, 0, here, self.head))
        since = time.monotonic()
        while not answers(self.head):
            if self.first.poll() is not None or time.monotonic() - since > HEAD_SECONDS or heard.end:
                return False
            time.sleep(1)
        for index, (host, address) in list(enumerate(self.addresses.items()))[1:]:
            self.workers.append(Worker(host, index, self._launch(host, index, address), time.monotonic()))
        return True

    def _launch(self, host: str, index: int, address: str) -> subprocess.Popen[bytes]:
        return self._process(step(self.told, host, node_command(self.told, index, address, self.head)))

    def _process(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # What Ray says of itself would bury what the driver says in the log of the job.
        with open(
            os.open(self.told.folder / "ray.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab"
        ) as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def tend(self, left: Callable[[], float]) -> None:
        """Start again what ended; ask Slurm for another node where one is gone."""
        now = time.monotonic()
        for worker in self.workers:
            if worker.replaced or worker.process.poll() is None:
                continue
            if worker.due is None:
                if now - worker.since > 300:
                    worker.pause = PAUSES[0]
                worker.due = now + worker.pause
                worker.pause = min(2 * worker.pause, PAUSES[1])
                say(f"Ray on {worker.host} has ended; the run goes on with the other nodes")
            elif now >= worker.due:
                self._again(worker, left)

    def _again(self, worker: Worker, left: Callable[[], float]) -> None:
        try:
            still = worker.host in allocation(self.told.job)
            if still:
                worker.process = self._launch(worker.host, worker.index, self.addresses[worker.host])
                say(f"starting Ray on {worker.host} again")
            else:
                job = self._replace(left())
                self.replacements.append(job)
                worker.replaced = True
                say(f"{worker.host} is lost: job {job} asks for a node in its place")
        except (OSError, ParameterError) as error:
            say(f"{worker.host} cannot be replaced now: {error}")
        worker.due = None if worker.process.poll() is None else time.monotonic() + worker.pause
        worker.since = time.monotonic()

    def _replace(self, left: float) -> str:
        # A node that is lost does not come back to its job, so a small job of its own joins instead.
        minutes = max(1, int(left // 60))
        command = [
            *("sbatch", "--parsable", "--nodes=1", "--ntasks=1", f"--cpus-per-task={self.told.cpus}"),
            *((f"--mem={-(-self.told.memory // 2**20)}M",) if self.told.memory else ()),
            *(f"--time={minutes}", f"--job-name=for-{self.told.job}", "--no-requeue", "--export=ALL"),
            *("--output=ray.log", "--open-mode=append"),
            *(f"--{name}={os.environ[key]}" for name, key in INHERITED if os.environ.get(key)),
        ]
        write_private(self.told.folder / "replacement", replacement_script(self.told, self.head))
        return ask(*command, "replacement", folder=self.told.folder).strip().partition(";")[0]

    def stop(self) -> None:
        """End it, and nothing else."""
        processes = [worker.process for worker in self.workers]
        processes += [self.first] if self.first is not None else []
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR1)  # srun passes it on; at TERM it would kill the node
        until = time.monotonic() + 15
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, until - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()
        for job in self.replacements:
            with contextlib.suppress(OSError, ParameterError):
                ask("scancel", job)
        self.token.unlink(missing_ok=True)


INHERITED = (("partition", "SLURM_JOB_PARTITION"), ("account", "SLURM_JOB_ACCOUNT"), ("qos", "SLURM_JOB_QOS"))
"""Options of a replacement that are those of this job."""


def replacement_script(told: Told, head: str) -> str:
    """The batch script of a node that replaces a lost one."""
    command = [
        *(sys.executable, "-m", "bendscape.cluster.slurm_job", "--replace", head),
        *("--folder", str(told.folder), "--cpus", str(told.cpus), "--memory", str(told.memory)),
        *("--ports", *map(str, told.ports)),
    ]
    return f"#!/bin/bash\numask 077\nexec {shlex.join(command)}\n"


class Round(NamedTuple):
    """How a round of the driver ended."""

    exit_code: int
    computed: int | None
    seconds: float

    @property
    def fruitless(self) -> bool:
        """Whether it left nothing behind: if that cannot be told, whether it was short."""
        return self.computed == 0 if self.computed is not None else self.seconds < 600


def play(told: Told, heard: Heard, clock: Clock) -> Round:
    """One round: start Ray where there are several nodes, run the driver, and end both."""
    started = time.monotonic()
    addresses = allocation(told.job) if told.nodes > 1 else {}
    ray = Ray(told, addresses) if len(addresses) > 1 else None
    try:
        if ray is not None and not ray.start(heard):
            say("the head of Ray did not start")
            return Round(74, 0, time.monotonic() - started)
        return _drive(told, heard, clock, ray, started)
    finally:
        if ray is not None:
            ray.stop()


def _drive(told: Told, heard: Heard, clock: Clock, ray: Ray | None, started: float) -> Round:
    budget = clock.left() - SHUTDOWN_SECONDS
    if budget <= SHUTDOWN_SECONDS or heard.early or heard.end:
        return Round(75, 0, time.monotonic() - started)
    where = ["--address", ray.head] if ray else ["--address", "local"]
    if ray is None and "--workers" not in told.driver:
        where += ["--workers", str(told.cpus)]
    if ray is None and told.memory and "--max-memory" not in told.driver:
        where += ["--max-memory", f"{told.memory * 9 // 10}"]
    # The signal may come a minute early; what then is under way may still use the budget.
    limits = ["--time-budget", f"{budget:.0f}s", "--grace", f"{told.drain + 90:.0f}s", "--json"]
    summary = told.folder / "summary.json"
    with summary.open("wb") as file:
        driver = subprocess.Popen([*told.driver, *where, *limits], stdout=file)
    since: float | None = None
    early = False
    while driver.poll() is None:
        if heard.end and since is None:
            driver.send_signal(signal.SIGTERM)
            since = time.monotonic()
        elif since is not None and time.monotonic() - since > SECOND_TERM_SECONDS:
            driver.send_signal(signal.SIGTERM)
            since = float("inf")
        if heard.early and not early and since is None:
            say("the wall time is nearly over: draining")
            driver.send_signal(signal.SIGUSR1)
            early = True
        if ray is not None and not heard.end:
            ray.tend(clock.left)
        time.sleep(0.5)
    try:
        computed = json.loads(summary.read_text(encoding="utf-8")).get("computed")
    except (OSError, ValueError):
        computed = None
    return Round(driver.returncode, computed, time.monotonic() - started)


def run(told: Told, heard: Heard) -> int:
    """Rounds until the campaign is done, the wall time is nearly over, or the job is told to end."""
    clock = Clock(told)
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    say(f"job {told.job} starts, after {restarts} requeues, with {clock.left():.0f} s of wall time")
    while True:
        if (told.folder / CANCELLED).exists():
            say("it was cancelled: nothing is started")
            return 75
        ended = play(told, heard, clock)
        fruitless = note(told.folder, ended, restarts)
        again = ended.exit_code in TEMPORARY or ended.exit_code < 0
        if heard.end:
            say("told to end: it does not come back")
            return ended.exit_code if ended.exit_code >= 0 else 74
        if not again:
            return ended.exit_code
        if fruitless >= FRUITLESS_ROUNDS:
            say(f"nothing was computed in {fruitless} rounds one after another: another would not help")
            return ended.exit_code if ended.exit_code >= 0 else 74
        if not heard.early and clock.left() > told.drain + 120:
            say(f"the driver ended with exit code {ended.exit_code}; it is started again here")
            time.sleep(PAUSES[0])
            continue
        return requeue(told, heard, clock)


def note(folder: Path, ended: Round, restarts: int) -> int:
    """Write a round down; returns how many fruitless ones there were last, one after another."""
    path = folder / ROUNDS
    with (
        contextlib.suppress(OSError),
        open(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a") as file,
    ):
        line: Mapping[str, Any] = {
            **ended._asdict(),
            "requeues": restarts,
            "ended": time.time(),
            "fruitless": ended.fruitless,
        }
        file.write(json.dumps(line) + "\n")
    count = 0
    with contextlib.suppress(OSError, ValueError):
        for line_ in reversed(path.read_text().splitlines()):
            if not json.loads(line_)["fruitless"]:
                break
            count += 1
    return count


def requeue(told: Told, heard: Heard, clock: Clock) -> int:
    """Put this job back into the queue, under the same id; Slurm then ends this process."""
    while not heard.end and not (told.folder / CANCELLED).exists():
        try:
            say("work is left: back into the queue")
            ask("scontrol", "requeue", told.job)
            return 75
        except OSError as error:
            if clock.left() < 10:
                say(f"this site does not requeue jobs ({error}): the same `bendscape submit` resumes")
                return 75
            say(f"not yet: {error}")
            time.sleep(5)
    return 75


def replace(told: Told, head: str) -> NoReturn:
    """Become a node in place of a lost one, at the head that is given, until that is gone."""
    os.environ.update(environment(str(told.folder / "token")))
    (address,) = allocation(told.job).values()
    command = node_command(told, 999, address, head)
    os.execv(command[0], command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a job, or be a node that replaces a lost one."""
    heard = Heard()
    heard.listen()
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--wall-time", type=float, default=3600.0)
    parser.add_argument("--drain", type=float, default=120.0)
    parser.add_argument("--ports", type=int, nargs=2, required=True)
    parser.add_argument("--replace", default="")
    parser.add_argument("driver", nargs="*")
    given = parser.parse_args(arguments)
    told = Told(
        os.environ["SLURM_JOB_ID"], given.folder, given.nodes, given.cpus, given.memory, given.wall_time,
        given.drain, (given.ports[0], given.ports[1]), given.driver,
    )  # fmt: skip
    return replace(told, given.replace) if given.replace else run(told, heard)


if __name__ == "__main__":
    sys.exit(main())
