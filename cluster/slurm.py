"""Slurm: a batch job that owns its nodes, requeues itself while work is left, and asks Slurm rarely.

Here: what is submitted, and what Slurm is asked. What runs inside the job: `slurm_job.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from bendscape.cluster.credentials import is_private
from bendscape.cluster.place import Job, Parameters, Place, State, Word, folder_of, write_private
from bendscape.cluster.ray_node import PORTS
from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.options import bytes_of, seconds_of
from bendscape.sweep.engine.metrics import can_export

EXPORTED = (
    *(
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
    ),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "MODULEPATH", "MODULESHOME", "XDG_STATE_HOME", "BENDSCAPE_JOBS"),
    *("SSL_CERT_FILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "SLURM_CONF"),
)
"""The variables that a job gets from the environment of `submit`: by name, and none that holds a secret."""
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
SHUTDOWN_SECONDS = 30  # between the end of a run and that of its job
ANSWER_SECONDS = 60  # how long Slurm may take to answer
CANCELLED, ROUNDS, REPLACEMENT = "cancelled", "rounds.jsonl", "replacement"  # files of a job's folder
_OURS = (
    *("--job-name", "--nodes", "--ntasks", "--cpus-per-task", "--mem", "--time", "--signal", "--requeue"),
    *(
        "--no-requeue",
        "--output",
        "--error",
        "--open-mode",
        "--export",
        "--dependency",
        "--no-kill",
        "--array",
    ),
    *("--ntasks-per-node", "--partition", "--account", "--chdir", "--wrap", "--parsable"),
)
_OVERRIDING = (  # set in a shell for other jobs, they would change what the script says
    *("SBATCH_EXPORT", "SBATCH_SIGNAL", "SBATCH_REQUEUE", "SBATCH_NO_REQUEUE", "SBATCH_OPEN_MODE"),
    *("SBATCH_OUTPUT", "SBATCH_JOB_NAME", "SBATCH_TIMELIMIT", "SBATCH_NO_KILL", "SBATCH_WAIT"),
)
_WORDS: dict[str, Word] = {
    "PENDING": "waiting", "REQUEUED": "waiting", "REQUEUE_HOLD": "waiting", "SPECIAL_EXIT": "waiting",
    "RESV_DEL_HOLD": "waiting", "REQUEUE_FED": "waiting", "CONFIGURING": "waiting",
    "RUNNING": "running", "COMPLETING": "running", "SUSPENDED": "running", "STOPPED": "running",
    "STAGE_OUT": "running", "SIGNALING": "running", "RESIZING": "running",
    "CANCELLED": "cancelled", "COMPLETED": "complete", "TIMEOUT": "work left", "PREEMPTED": "work left",
}  # fmt: skip


def _seconds(value: object) -> object:
    # As everywhere here (8h, 90min), or as Slurm writes it (8:00:00, 1-12:00:00).
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", value)
    if found and (found[1] is None or found[4] is None) and found[1] is not None:
        return 86400 * int(found[1]) + 3600 * int(found[2]) + 60 * int(found[3])  # D-HH:MM
    if found and found[4] is not None:
        return 86400 * int(found[1] or 0) + 3600 * int(found[2]) + 60 * int(found[3]) + int(found[4])
    try:
        return seconds_of("time", value)
    except ParameterError:
        raise ValueError("a time such as 8h, 90min, 8:00:00 or 1-12:00:00") from None


def _bytes(value: object) -> object:
    try:
        return int(bytes_of("mem", value)) if isinstance(value, str) else value
    except ParameterError as error:
        raise ValueError(error.accepted) from None


def _word(value: str) -> str:
    if not re.fullmatch(r"[\w.,@+-]+", value, re.ASCII):
        raise ValueError("a name of letters, digits and . , @ + - _")
    return value


def _flag(value: str) -> str:
    name = value.partition("=")[0]
    if not re.fullmatch(r"--[a-z][a-z-]+(=[\w.,:@+/%*&|()\[\]-]+)?", value, re.ASCII) or name in _OURS:
        raise ValueError(
            "an option of sbatch such as --qos=long, without blanks or quotes, and none of "
            + ", ".join(_OURS)
        )
    return value


def _line(value: str) -> str:
    if "\n" in value or "\r" in value or "\0" in value:
        raise ValueError("one line of shell")
    return value


def _private_file(value: str) -> str:
    path = Path(value).expanduser().absolute()
    try:
        about = path.stat()
    except OSError as error:
        raise ValueError(f"a file of NAME=value lines that you can read ({error.strerror})") from None
    if not stat.S_ISREG(about.st_mode) or not is_private(about):
        raise ValueError(f"a file that you own and nobody else can read: chmod 600 {shlex.quote(str(path))}")
    return str(path)


def _exported(port: int) -> int:
    if not can_export():
        raise ValueError("given only where Ray can export metrics: pip install 'bendscape[metrics]'")
    return port


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=366 * 86400)]
Name = Annotated[str, AfterValidator(_word)]


class SlurmParameters(Parameters):
    """What can be said of a Slurm job."""

    cpus: int = Field(ge=1, le=4096, description="Cores on each node: as many tasks at a time.")
    time: Seconds = Field(description="Wall time of one round: it requeues itself while work is left.")
    nodes: int = Field(1, ge=1, le=10000, description="Nodes; with one, no Ray is started.")
    mem: Annotated[int, BeforeValidator(_bytes), Field(ge=2**26)] | None = None
    """Bytes on each node; by default what the site gives."""
    partition: Name | None = None
    account: Name | None = None
    drain: Seconds = 120.0
    """Slurm's signal comes so long before the end of the wall time, or up to a minute earlier."""
    setup: tuple[Annotated[str, AfterValidator(_line)], ...] = ()
    """Lines of shell before anything else: `module load python/3.11`."""
    credentials: Annotated[str, AfterValidator(_private_file)] | None = None
    """File of NAME=value lines for the job's environment, readable by its owner alone."""
    sbatch: tuple[Annotated[str, AfterValidator(_flag)], ...] = ()
    """Further options of sbatch."""
    ports: tuple[Annotated[int, Field(ge=1024, le=65535)], Annotated[int, Field(ge=1024, le=65535)]] = PORTS
    """Ports that Ray may use on a node, where several nodes are used."""
    metrics_port: Annotated[int, AfterValidator(_exported), Field(ge=1024, le=65535)] | None = None
    """Port on the first node at which Ray serves metrics; a job of one node then starts a Ray, too."""


def job_name(job: Job) -> str:
    """The name of a job in Slurm: of its campaign, and of its store, since two runs of one store must not
    run at the same time (`--dependency=singleton`)."""
    label = re.sub("[^A-Za-z0-9.-]+", "-", job.name).strip("-.")[:40] or "campaign"
    return f"bendscape-{label}-{hashlib.blake2b(job.store.encode(), digest_size=4).hexdigest()}"


def wall_time(seconds: float) -> str:
    """Seconds as Slurm writes a time, rounded up to a minute, as Slurm would."""
    minutes = -int(-seconds // 60)
    return f"{minutes // 1440}-{minutes // 60 % 24:02}:{minutes % 60:02}:00"


def seconds_left(text: str) -> float:
    """The seconds in a time as Slurm reports it: 1-02:03:04, 2:03:04, 3:04; inf where there is no limit.

    Raises
    ------
    ValueError
        It is none, such as NOT_SET.
    """
    if text == "UNLIMITED":
        return math.inf
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d\d)", text)
    if found is None:
        raise ValueError(text)
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(86400 * days + 3600 * hours + 60 * minutes + seconds)


def render_script(job: Job, parameters: SlurmParameters, folder: Path) -> str:
    """The batch script of a campaign. It is submitted from `folder`, where its files are."""
    told = parameters
    directives = [
        *(f"--job-name={job_name(job)}", f"--nodes={told.nodes}", f"--time={wall_time(told.time)}"),
        *(("--no-kill",) if told.nodes > 1 else ()),  # of one node, Slurm itself requeues the job
        *("--requeue", f"--signal=B:USR1@{told.drain:.0f}", "--dependency=singleton"),
        "--output=log",
    ]
    inside = [
        *("--folder", str(folder), "--nodes", told.nodes, "--cpus", told.cpus, "--memory", told.mem or 0),
        *("--wall-time", f"{told.time:.0f}", "--drain", f"{told.drain:.0f}", "--ports", *told.ports),
        *(("--metrics-port", told.metrics_port) if told.metrics_port else ()),
    ]
    module = [job.python, "-m", "bendscape.cluster.slurm_job"]
    command = shlex.join([*module, *map(str, inside), "--", *job.command()])
    heed = "trap '' USR1 TERM  # until the line below heeds them: neither may end the job before it"
    return _script(directives, [heed], command, told, job.folder)


def render_replacement(job: Job, parameters: SlurmParameters, folder: Path) -> str:
    """The batch script of a node in place of a lost one; its argument is the address of the head."""
    told = parameters
    inside = ["--folder", str(folder), "--cpus", told.cpus, "--memory", told.mem or 0, "--ports", *told.ports]
    command = shlex.join([job.python, "-m", "bendscape.cluster.slurm_job", *map(str, inside), "--replace"])
    directives = ["--nodes=1", "--no-requeue", "--output=ray.log"]
    return _script(directives, [], f'{command} "$1"', told, job.folder)


def _script(
    directives: Sequence[str], first: Sequence[str], command: str, told: SlurmParameters, folder: str
) -> str:
    common = [
        *("--ntasks-per-node=1", f"--cpus-per-task={told.cpus}"),
        *((f"--mem={-(-told.mem // 2**20)}M",) if told.mem else ()),
        *((f"--partition={told.partition}",) if told.partition else ()),
        *((f"--account={told.account}",) if told.account else ()),
        *("--open-mode=append", f"--export={','.join(EXPORTED)}", *told.sbatch),
    ]
    lines = ["#!/bin/bash -l", *(f"#SBATCH {directive}" for directive in (*directives, *common))]
    lines += [*first, "umask 077", *told.setup]
    if told.credentials is not None:
        lines.append(f"set -a; . {shlex.quote(told.credentials)}; set +a")
    return "\n".join([*lines, f"cd {shlex.quote(folder)} || exit 2", f"exec {command}", ""])


def ask(*command: str, folder: Path | None = None) -> str:
    """What a command of Slurm answers.

    Raises
    ------
    ParameterError
        There is no Slurm here.
    OSError
        It refused, or did not answer.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OVERRIDING}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS, cwd=folder,
            env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        remedy = "run it where Slurm's commands are, on a login node"
        raise ParameterError("place", "slurm", f"a place that is here: {command[0]} is not", remedy) from None
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} did not answer within {ANSWER_SECONDS} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise OSError(f"{command[0]}: {said[:400]}")
    return done.stdout


class Slurm(Place):
    """Jobs in the queue of a Slurm cluster."""

    name = "slurm"

    def __init__(self, parameters: Mapping[str, Any], ask: Callable[..., str] = ask) -> None:
        self._told = parameters
        self._ask = ask

    @property
    def parameters(self) -> SlurmParameters:
        """What was said of the job, checked."""
        return SlurmParameters.of(self._told)

    def ray_options(self, workers: int | None = None, memory: float | None = None) -> dict[str, Any]:
        """The Ray of the job in which this process runs.

        Raises
        ------
        ParameterError
            It does not run in a job of several nodes.
        """
        if not (address := os.environ.get("BENDSCAPE_SLURM_RAY", "")):
            raise ParameterError(
                "--address",
                "slurm",
                "used inside a job of several nodes",
                "`bendscape submit slurm` makes one",
            )
        return {"address": address}

    def render(self, job: Job, folder: Path) -> str:
        """The batch script."""
        return render_script(job, self.parameters, folder)

    def start(self, job: Job, folder: Path) -> str:
        """Submit the batch script."""
        exposed = [name for name in SECRETS if name in os.environ]
        if job.store.startswith("s3://") and exposed and self.parameters.credentials is None:
            accepted = "a file of NAME=value lines that you alone can read"
            remedy = f"{exposed[0]} of this shell is not handed to Slurm, which would keep it"
            raise ParameterError("--credentials", "missing", accepted, remedy)
        write_private(folder / "script", self.render(job, folder))
        if self.parameters.nodes > 1:
            write_private(folder / REPLACEMENT, render_replacement(job, self.parameters, folder))
        write_private(folder / "log", "")  # Slurm appends to it, and would make it readable by others
        answer = self._ask("sbatch", "--parsable", "script", folder=folder)
        return answer.strip().partition(";")[0]

    def states(self, ids: Sequence[str]) -> dict[str, State]:
        """Where jobs stand: one question to squeue, and one to sacct about those that it has forgotten."""
        shape = "JobID:|,State:|,exit_code:|,Reason:|"
        answer = self._ask(
            "squeue", f"--user={os.getuid()}", "--states=all", "--noheader", f"--Format={shape}"
        )
        told = {id: (state, _exit_code(code), why) for id, state, code, why in _rows(answer, 4)}
        if forgotten := [id for id in ids if id not in told]:
            with contextlib.suppress(OSError, ParameterError):  # a site without accounting
                answer = self._ask(
                    *("sacct", "--noheader", "--parsable2", "--allocations"),
                    *("--format=JobIDRaw,State,ExitCode", f"--jobs={','.join(forgotten)}"),
                )
                told |= {
                    id: (state.split()[0], _exit_code(code), "")
                    for id, state, code in _rows(answer, 3)
                    if state
                }
        return {id: _state(*told.get(id, ("", None, "")), _last_round(id)) for id in ids}

    def cancel(self, id: str) -> None:
        """Cancel the job; its driver is told, and stops."""
        with contextlib.suppress(ParameterError):  # it stays cancelled whatever it is doing now
            write_private(folder_of(self.name, id) / CANCELLED, "")
        self._ask("scancel", id)

    def log(self, id: str) -> str:
        """What the job has printed so far, in all its rounds."""
        try:
            return (folder_of(self.name, id) / "log").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""


def _rows(answer: str, columns: int) -> list[list[str]]:
    rows = [line.strip().rstrip("|").split("|") for line in answer.splitlines()]
    return [[cell.strip() for cell in row[:columns]] for row in rows if len(row) >= columns]


def _last_round(id: str) -> dict[str, Any]:
    try:
        lines = (folder_of("slurm", id) / ROUNDS).read_text(encoding="utf-8").splitlines()
        last: dict[str, Any] = json.loads(lines[-1])
        return {**last, "rounds": len(lines)}
    except (OSError, ValueError, IndexError, ParameterError):
        return {}


def _exit_code(text: str) -> int | None:
    # squeue gives the status of `wait`, sacct the exit code and the signal: 768 and 3:0 are the same.
    code, separator, number = text.partition(":")
    if not code.isdecimal() or not (number or "0").isdecimal():
        return None
    return int(code) - int(number) if separator else os.waitstatus_to_exitcode(int(code))


def _state(state: str, exit_code: int | None, reason: str, last: dict[str, Any]) -> State:
    # Slurm says whether the job lives. How its driver ended, the job itself has written down; without that,
    # it ended before its first round.
    rounds = last.get("rounds", 0)
    after = f"after {rounds} round{'s' if rounds > 1 else ''}" if rounds else ""
    detail = ", ".join(part for part in (state, reason if reason not in ("", "None") else "", after) if part)
    word = _WORDS.get(state, "failed" if state else "unknown")
    if word in ("waiting", "running"):
        return State(word, detail)
    code: int | None = last.get("exit_code", exit_code)
    if word == "cancelled" or code is None or (code == 0 and state not in ("", "COMPLETED")):
        return State(word, detail, None if word == "cancelled" else code or None)
    return State.of_exit(code, detail)


PLACE = Slurm
