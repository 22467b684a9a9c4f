"""This machine: a Ray of our own within the cores and the memory that this process may use, and a driver
that runs in the background."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from bendscape.cluster.place import Job, Parameters, Place, State, folder_of, write_private
from bendscape.core.errors import ParameterError
from bendscape.sweep.engine.machine import available_cores, available_memory
from bendscape.sweep.engine.sessions import session_folder

_OBJECT_STORE_BYTES = 100 * 2**20  # only receipts travel, and they are small


def ray_options(workers: int | None = None, memory: float | None = None) -> dict[str, Any]:
    """Options of `ray.init` for a fresh local Ray with `workers` slots (default: every core there is).

    Its tasks get `memory` bytes together, by default what this process may use.

    The address is "local", so that it never joins a cluster that happens to run here.

    Raises
    ------
    ParameterError
        Fewer than one worker.
    """
    if workers is not None and workers < 1:
        raise ParameterError("--workers", workers, "an integer >= 1")
    return {
        "address": "local",
        "num_cpus": workers or available_cores(),
        "_memory": int(available_memory() if memory is None else memory),
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": str(session_folder()),
    }


class LocalParameters(Parameters):
    """What can be said of a job on this machine."""

    workers: int | None = Field(None, ge=1, description="Number of tasks at a time; by default one per core.")


def render_script(job: Job, parameters: LocalParameters, folder: Path) -> str:
    """The shell script of a job: its driver, what it prints in `log`, and its exit code in `exit`."""
    workers = () if parameters.workers is None else ("--workers", str(parameters.workers))
    at = shlex.quote(str(folder))
    return "\n".join(
        [
            "#!/bin/sh",
            "umask 077",
            "trap : TERM INT HUP  # the driver heeds them; its exit code is still to be written",
            f"cd {shlex.quote(job.folder)} || exit 2",
            f"{shlex.join(job.command(*workers))} >{at}/log 2>&1 </dev/null",
            f"echo $? >{at}/exit.part && mv {at}/exit.part {at}/exit",
            "",
        ]
    )


class Local(Place):
    """Jobs as processes on this machine, which outlive the terminal but not the machine."""

    name = "local"

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = LocalParameters.of(parameters)

    def ray_options(self, workers: int | None = None, memory: float | None = None) -> dict[str, Any]:
        """A fresh Ray on this machine."""
        return ray_options(workers or self.parameters.workers, memory)

    def render(self, job: Job, folder: Path) -> str:
        """The shell script."""
        return render_script(job, self.parameters, folder)

    def start(self, job: Job, folder: Path) -> str:
        """Start the script in a session of its own."""
        write_private(folder / "script", self.render(job, folder))
        started = subprocess.Popen(
            ["/bin/sh", str(folder / "script")], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        started.returncode = 0  # it is to outlive this process, which must not wait for it
        write_private(folder / "process", f"{started.pid} {_started(started.pid)}")
        return folder.name

    def states(self, ids: Sequence[str]) -> dict[str, State]:
        """From the files of each job, and whether its process lives."""
        return {id: self._state(folder_of(self.name, id)) for id in ids}

    def _state(self, folder: Path) -> State:
        pid = _pid(folder)
        if not (folder / "exit").exists() and pid is not None:
            return State("running", f"process {pid}")
        try:
            state = State.of_exit(int((folder / "exit").read_text()))
        except (OSError, ValueError):
            state = State("failed", "it was killed; the same command resumes")
        cancelled = (folder / "cancelled").exists() and state.word in ("work left", "failed")
        return state._replace(word="cancelled") if cancelled else state

    def cancel(self, id: str) -> None:
        """Ask the driver to stop: it finishes the tasks under way."""
        folder = folder_of(self.name, id)
        if (pid := _pid(folder)) is not None:
            write_private(folder / "cancelled", "")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)

    def log(self, id: str) -> str:
        """What the driver has printed so far."""
        try:
            return (folder_of(self.name, id) / "log").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""


def _started(pid: int) -> str:
    # When a process started, by which one that was given its number later is told apart; empty if it is gone.
    # Linux counts from its own start. The date that `ps` makes of that changes when the clock is set.
    if Path("/proc/self/stat").exists():
        try:
            state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if state in "ZX" else rest[18]
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout.split()
    return " ".join(shown[1:]) if shown and not shown[0].startswith("Z") else ""


def _pid(folder: Path) -> int | None:
    # Of the script, if it still runs.
    try:
        pid, _, started = (folder / "process").read_text().partition(" ")
    except OSError:
        return None
    return int(pid) if started and _started(int(pid)) == started else None


PLACE = Local
