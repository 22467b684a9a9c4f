"""A Ray of our own on this machine, within the cores and the memory that this process may use."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from bendscape.core.model import ParameterError

_OBJECT_STORE_BYTES = 100 * 2**20  # only receipts travel, and they are small


def available_cores() -> int:
    """Cores this process may use: its affinity, cut by a cgroup quota where there is one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return affinity if quota == "max" else max(1, min(affinity, int(quota) // int(period)))
    except (OSError, ValueError):
        return affinity


def ray_options(workers: int | None = None) -> dict[str, Any]:
    """Options of `ray.init` for a fresh local Ray with `workers` slots (default: every core there is).

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
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": _temp_dir(),
    }


def _temp_dir() -> str:
    # Ray puts sockets some 65 characters below it, and their paths may have 107.
    name = f"bendscape-ray-{os.getuid()}"
    preferred = Path(tempfile.gettempdir()) / name
    return str(preferred if len(str(preferred)) <= 40 else Path("/tmp") / name)
