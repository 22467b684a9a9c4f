"""The cell that every engine computes, and the axes that it is swept over.

The environment variable `BENCH_SECONDS` is CPU time to use up as a numerical kernel does, in a library that
releases the interpreter lock. If `BENCH_NOTES` names a folder, every call records its wall time and its
thread's CPU time there. The N in WARM only start workers: they take long enough to need all of them, and
record nothing.
"""

from __future__ import annotations

import os
import struct
import time
from functools import lru_cache
from pathlib import Path

import numpy as np

SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))
NOTES = os.environ.get("BENCH_NOTES", "")
NOTE = struct.Struct("dd")
WARM = (2, 3)
MATRIX = np.full((128, 128), 0.5)


def axes(seeds: int) -> dict[str, list]:
    """The axes: 40 cells for each seed."""
    alpha = [0.5, 0.66, 0.83, 1.0, 1.16, 1.33, 1.5, 1.66, 1.83, 2.0]
    return {"a": [0.7, 1.5], "alpha": alpha, "N": [128, 256], "seed": list(range(seeds))}


def draw(a: float, alpha: float, N: int, seed: int) -> float:
    """One random number from the cell's own stream."""
    if N in WARM:
        time.sleep(0.02)
        return 0.0
    wall, cpu = time.perf_counter(), time.thread_time()
    key = (int(a * 1e6), int(alpha * 1e6), int(N), int(seed))
    number = float(np.random.default_rng(np.random.SeedSequence(1, spawn_key=key)).random())
    burn(cpu)
    if NOTES:
        note(wall, cpu)
    return number


def burn(since: float) -> None:
    """Multiply matrices until the thread's CPU clock has advanced by SECONDS."""
    while SECONDS and time.thread_time() - since < SECONDS:
        MATRIX @ MATRIX


def note(wall: float, cpu: float) -> None:
    """Append the time since then to this process's file, in one write, so that a kill never truncates it."""
    os.write(_file(os.getpid()), NOTE.pack(time.perf_counter() - wall, time.thread_time() - cpu))


@lru_cache(maxsize=2)
def _file(pid: int) -> int:
    return os.open(Path(NOTES) / str(pid), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
