"""How many cores and how much memory this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_V1 = "memory.limit_in_bytes"  # of cgroups version 1, where each controller has its own tree
_KEPT = 0.1  # fraction of the memory kept for the driver, Ray and the file system


def available_cores() -> int:
    """Cores that this process may use: its CPU affinity, reduced by a cgroup quota if there is one."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return affinity if quota == "max" else max(1, min(affinity, int(quota) // int(period)))
    except (OSError, ValueError):
        return affinity


def available_memory() -> float:
    """Bytes that tasks may use together: nine tenths of the machine's memory, or of its cgroup's if that is
    less."""
    limits = [float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")]
    for path in _memory_limits():
        try:
            limits.append(float(path.read_text()))  # "max" means no limit
        except (OSError, ValueError):
            continue
    return (1 - _KEPT) * min(limits)


def _memory_limits() -> Iterator[Path]:
    # Of every cgroup of this process up to the root; inside a container the root is the container's own.
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:
        lines = []
    for line in ["0::/", "0:memory:/", *lines]:
        _, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if controllers in ("", "memory"):
            root, name = (_CGROUP, "memory.max") if not controllers else (_CGROUP / "memory", _V1)
            parts = [part for part in place.split("/") if part not in ("", "..")]
            yield from (root.joinpath(*parts[:depth], name) for depth in range(len(parts) + 1))
