"""Start-up time of `bendscape run`, with processes on this machine and with its own Ray.

    python benchmarks/start.py [--rounds 3] [--only PART ...] [--addresses local ray serial]

first      seconds from the command to the end of the first cell, and to its own end, for 400 cells; and, as a
           reference for the machine, the seconds that Python takes to import numpy, scipy.linalg and zarr
trivial    the whole command for 400 and for 4,000 cells that cost nothing
kill       the whole command for 200 cells of 0.1 s on two workers, one of which is killed half way; and the
           number of cells lost

Each number is the median over the rounds, taken in turn so that a noisy machine disturbs all equally. Prints
a table with ratios to `local`, and writes start.json beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
NOTE = struct.Struct("=qd")  # one per cell: the process that computed it, and when it finished
KERNEL = """
import os, struct, time
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable

SECONDS = float(os.environ["BENCH_SECONDS"])
NOTES = os.open(os.environ["BENCH_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def compute(cell, rng):
    time.sleep(SECONDS)
    outcome = Outcome({"x": rng.normal()})
    os.write(NOTES, struct.pack("=qd", os.getpid(), time.time()))
    return outcome

KERNEL = Kernel("noted", 1, (Variable("x", "a random number"),), compute,
                lambda cell: max(SECONDS, 4e-5), lambda cell: 1e6)
"""
CAMPAIGN = """
[campaign]
name = "start"
store = "unused"
entropy = 1
kernel = "noted"
[grid]
p = [1]
p_star = [1]
a = [0.7, 1.5]
alpha = {{ start = 0.5, stop = 2.0, num = 10 }}
N = [128, 256]
seeds = {seeds}
"""


class Command:
    """One run of the command on a new store."""

    def __init__(self, address: str, seeds: int, seconds: float, folder: Path) -> None:
        place = Path(tempfile.mkdtemp(dir=folder))
        self.cells, self._notes = 40 * seeds, place / "notes"
        (place / "kernel.py").write_text(KERNEL)
        (place / "c.toml").write_text(CAMPAIGN.format(seeds=seeds))
        environment = {**os.environ, "BENCH_SECONDS": str(seconds), "BENCH_NOTES": str(self._notes)}
        self._started = time.time()
        command = [Path(sys.executable).with_name("bendscape"), "run", place / "c.toml"]
        command += ["--store", place / "s.zarr", "--kernel-module", place / "kernel.py"]
        self._process = subprocess.Popen(
            [*command, "--workers", "2", "--address", address],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def notes(self) -> list[tuple[int, float]]:
        """The notes of the cells computed so far."""
        with contextlib.suppress(FileNotFoundError):
            content = self._notes.read_bytes()
            return list(NOTE.iter_unpack(content[: len(content) // NOTE.size * NOTE.size]))
        return []

    def running(self) -> bool:
        """Whether the command is still running."""
        return self._process.poll() is None

    def end(self) -> tuple[float, float]:
        """Seconds to the first cell, and to the end of the command."""
        _, said = self._process.communicate(timeout=600)
        seconds = time.time() - self._started
        if self._process.returncode:
            raise SystemExit(said.decode())
        return min(when for _, when in self.notes()) - self._started, seconds


def first(address: str, folder: Path) -> dict[str, float]:
    """Time to the first cell."""
    to_first, to_end = Command(address, 10, 0.0, folder).end()
    started = time.time()
    subprocess.run([sys.executable, "-c", "import numpy, scipy.linalg, zarr"], check=True)
    imports = time.time() - started
    return {"first cell": to_first, "all of 400 cells": to_end, "imports alone": imports}


def trivial(address: str, folder: Path) -> dict[str, float]:
    """Time to the last of many cells."""
    return {"4,000 trivial cells": Command(address, 100, 0.0, folder).end()[1]}


def kill(address: str, folder: Path) -> dict[str, float]:
    """With a worker killed half way; not for the serial executor, which has none."""
    command = Command(address, 5, 0.1, folder)
    while address != "serial" and command.running() and len(command.notes()) < command.cells // 2:
        time.sleep(0.01)
    if address != "serial":
        os.kill(command.notes()[-1][0], signal.SIGKILL)
    _, seconds = command.end()
    return {"200 cells of 0.1 s, one kill": seconds, "cells lost": len(command.notes()) - command.cells}


PARTS: dict[str, Callable[[str, Path], dict[str, float]]] = {"first": first, "trivial": trivial, "kill": kill}


def main() -> None:
    """Measure, print, write start.json beside this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--addresses", nargs="+", default=["local", "ray", "serial"])
    chosen = parser.parse_args()
    rows: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(chosen.rounds):
            for part in chosen.only:
                for address in chosen.addresses:
                    for name, value in PARTS[part](address, Path(folder)).items():
                        rows.setdefault(name, {}).setdefault(address, []).append(value)
                        print(f"{name}, {address}: {value:.3g}", file=sys.stderr)
    table = Table("seconds", *chosen.addresses, *(f"{a} / local" for a in chosen.addresses if a != "local"))
    document: dict[str, dict[str, float]] = {}
    for name, measured in rows.items():
        document[name] = row = {a: statistics.median(values) for a, values in measured.items()}
        ratios = [f"{row[a] / row['local']:.2f}" if row.get("local") else "" for a in row if a != "local"]
        table.add_row(name, *(f"{value:.2f}" for value in row.values()), *ratios)
    Console(width=120).print(table)
    machine = {"cores": os.cpu_count(), "load_average": os.getloadavg()}
    (HERE / "start.json").write_text(json.dumps({"machine": machine, "rows": document}, indent=2) + "\n")


if __name__ == "__main__":
    main()
