"""What runs inside a Slurm job: Ray on its nodes, the driver, and what to do when either ends.

The batch script becomes this process, which Slurm's signals reach. It starts rounds of the driver until the
campaign is done, its core-hours are used up or the wall time is nearly over; only in the last case it
requeues its job. It never requeues a job that was told to end. All it has to know is on its command line, in
the batch script.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from bendscape.cluster.slurm import CANCELLED, ROUNDS, SHUTDOWN_SECONDS, ask, seconds_left
from bendscape.cluster.slurm_ray import PAUSES, Heard, Ray, Told, allocation, replace, say
from bendscape.core.errors import ParameterError
from bendscape.sweep.engine.stop import CORE_HOURS

TEMPORARY = (74, 75)  # exit codes of `bendscape run`: the store or the cluster failed; stopped with work left
REFUSED = 2  # bad input, or another run is at work on the store
FRUITLESS_ROUNDS = 3  # one after another, after which another would not help
TERM_SECONDS = (10.0, 20.0)  # Slurm's own TERM may have reached the driver; after 30 s Slurm kills


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


class Round(NamedTuple):
    """How a round of the driver ended."""

    exit_code: int
    computed: int | None
    seconds: float
    reason: str = ""

    @property
    def fruitless(self) -> bool:
        """Whether it left nothing behind: if that cannot be told, whether it was short."""
        return self.computed == 0 if self.computed is not None else self.seconds < 600


def play(told: Told, heard: Heard, clock: Clock) -> Round:
    """One round: start Ray for several nodes or for metrics, run the driver, and end both."""
    started = time.monotonic()
    addresses = allocation(told.job) if told.nodes > 1 or told.metrics_port else {}
    ray = Ray(told, addresses) if len(addresses) > 1 or told.metrics_port else None
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
    if budget <= SHUTDOWN_SECONDS or heard.anything:
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
        driver = subprocess.Popen([*_driver(told), *where, *limits], stdout=file)
    since, terms, early = None, list(TERM_SECONDS), False
    while driver.poll() is None:
        if heard.end and since is None:
            since = time.monotonic()
        if since is not None and terms and time.monotonic() - since > terms[0]:
            driver.send_signal(signal.SIGTERM)
            terms.pop(0)
        if heard.early and not early and since is None:
            say("the wall time is nearly over: draining")
            driver.send_signal(signal.SIGUSR1)
            early = True
        if ray is not None and not heard.end:
            ray.tend(clock.left)
        time.sleep(0.5)
    try:
        document = json.loads(summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        document = {}
    computed, reason = document.get("computed"), document.get("reason", "")
    return Round(driver.returncode, computed, time.monotonic() - started, reason)


def _driver(told: Told) -> list[str]:
    # Cells that fail again must not take up every round. Which ones a round has tried, nobody writes down.
    tried = any(line.get("computed") for line in rounds(told.folder))
    return [word for word in told.driver if not (tried and word == "--retry-failed")]


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
        # What was accepted before is refused now: most likely the driver of a node that Slurm gave up still
        # holds the store.
        held = ended.exit_code == REFUSED and restarts > 0
        again = ended.exit_code in TEMPORARY or ended.exit_code < 0 or held
        if heard.end:
            say("told to end: it does not come back")
            return ended.exit_code if ended.exit_code >= 0 else 74
        if not again:
            return ended.exit_code
        if ended.reason == CORE_HOURS:
            say("the core-hours are used up: it ends with work left")
            return ended.exit_code
        if fruitless >= FRUITLESS_ROUNDS:
            say(f"nothing was computed in {fruitless} rounds one after another: another would not help")
            return ended.exit_code if ended.exit_code >= 0 else 74
        if not heard.early and clock.left() > told.drain + 120:
            say(f"the driver ended with exit code {ended.exit_code}; it is started again here")
            time.sleep(PAUSES[1] if held else PAUSES[0])
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
    fruitless = [line["fruitless"] for line in rounds(folder)]
    return len(list(takewhile(bool, reversed(fruitless))))


def rounds(folder: Path) -> list[dict[str, Any]]:
    """The rounds so far, as they were written down; without lines that a lost node has cut short."""
    found = []
    with contextlib.suppress(OSError):
        for line in (folder / ROUNDS).read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return found


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
    parser.add_argument("--metrics-port", type=int, default=0)
    parser.add_argument("--replace", default="")
    parser.add_argument("driver", nargs="*")
    given = parser.parse_args(arguments)
    told = Told(
        os.environ["SLURM_JOB_ID"], given.folder, given.nodes, given.cpus, given.memory, given.wall_time,
        given.drain, (given.ports[0], given.ports[1]), given.driver, given.metrics_port,
    )  # fmt: skip
    return replace(told, given.replace) if given.replace else run(told, heard)


if __name__ == "__main__":
    sys.exit(main())
