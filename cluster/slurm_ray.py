"""The Ray of a Slurm job: a head where the driver runs, a worker on each other node, and another node where
one is lost."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from bendscape.cluster.place import write_private
from bendscape.cluster.ray_node import environment, free_ports, serve
from bendscape.cluster.slurm import REPLACEMENT, ask
from bendscape.core.errors import ParameterError
from bendscape.sweep.engine.executor import answers

HEAD_SECONDS = 180.0  # for the head of Ray to answer
TARGETS = "metrics.json"
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
    metrics_port: int = 0


@dataclass
class Heard:
    """The signals so far: the early one, and the one that ends the job for good."""

    early: bool = False
    end: bool = False

    @property
    def anything(self) -> bool:
        """Whether there was any."""
        return self.early or self.end

    def listen(self) -> None:
        """Install the handlers."""
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "early", True))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "end", True))


def say(text: str) -> None:
    """A line in the log of the job."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} job: {text}", file=sys.stderr, flush=True)


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


def node_command(
    told: Told, index: int, address: str, head: str, module: str = "bendscape.cluster.ray_node"
) -> list[str]:
    """The command of a node of Ray."""
    return [
        *(sys.executable, "-m", module, "--folder", f"j{told.job}-{index}"),
        *("--address", address, "--head", head, *(("--first",) if index == 0 else ())),
        *("--cpus", str(told.cpus), "--memory", str(told.memory * 9 // 10)),
        *("--ports", *map(str, told.ports)),
        *(("--metrics-port", str(told.metrics_port)) if told.metrics_port and index == 0 else ()),
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

    @property
    def targets(self) -> Path:
        """The file by which a Prometheus of this user finds the metrics (`file_sd_configs`)."""
        return self.told.folder / TARGETS

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
        if self.told.metrics_port:
            found = {"targets": [f"{here}:{self.told.metrics_port}"], "labels": {"slurm_job": self.told.job}}
            write_private(self.targets, json.dumps([found]))
        for index, (host, address) in list(enumerate(self.addresses.items()))[1:]:
            self.workers.append(Worker(host, index, self._launch(host, index, address), time.monotonic()))
        return True

    def _launch(self, host: str, index: int, address: str) -> subprocess.Popen[bytes]:
        command = node_command(self.told, index, address, self.head, module="bendscape.cluster.slurm_ray")
        return self._process(step(self.told, host, command))

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
            *("sbatch", "--parsable", f"--time={minutes}", f"--job-name=for-{self.told.job}"),
            *(REPLACEMENT, self.head),
        ]
        return ask(*command, folder=self.told.folder).strip().partition(";")[0]

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
        self.targets.unlink(missing_ok=True)


def replace(told: Told, head: str) -> NoReturn:
    """Become a node in place of a lost one, at the head that is given, until that is gone."""
    os.environ.update(environment(str(told.folder / "token")))
    (address,) = allocation(told.job).values()
    command = node_command(told, 999, address, head)
    os.execv(command[0], command)


def guard(job: str, head: str, *, seconds: float = 3600.0, pause: float = 10.0) -> None:
    """Requeue a job whose first node is lost; return once its head answers again, or it no longer runs.

    With `--no-kill` Slurm removes a lost node from a job even if it is the one that runs the batch script,
    and the job would keep the others to the end of its wall time, with nothing to do.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until and not answers(head):
        with contextlib.suppress(OSError, ParameterError, KeyError):  # Slurm may be out of reach, too
            shown = ask("scontrol", "--oneliner", "show", "job", job)
            fields = dict(part.split("=", 1) for part in shown.split() if "=" in part)
            if fields["JobState"] != "RUNNING":
                return
            if fields["BatchHost"] not in ask("scontrol", "show", "hostnames", fields["NodeList"]).split():
                say(f"{fields['BatchHost']}, the first node of job {job}, is lost: back into the queue")
                ask("scontrol", "requeue", job)
                return
        time.sleep(pause)


if __name__ == "__main__":
    if not serve(sys.argv[1:]):
        guard(os.environ["SLURM_JOB_ID"], sys.argv[sys.argv.index("--head") + 1])
