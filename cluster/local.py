"""A Ray of our own on this machine, within the cores and the memory that this process may use."""

from __future__ import annotations

from typing import Any

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
