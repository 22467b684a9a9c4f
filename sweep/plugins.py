"""What installed packages add to bendscape: kernels, places, commands, analyses, theories."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from importlib.metadata import EntryPoints
from pathlib import Path
from typing import Any


def entry_points(group: str, **selection: str) -> EntryPoints:
    """`importlib.metadata.entry_points` without its cost, which is to read what every installed package says:
    that is done once, and again after an installation.
    """
    found: EntryPoints = _all(tuple(map(_state, sys.path))).select(group=group, **selection)
    return found


@lru_cache(maxsize=1)
def _all(state: tuple[tuple[str, int], ...]) -> Any:  # its type depends on the version of Python
    return metadata.entry_points()


def _state(folder: str) -> tuple[str, int]:
    # An installation adds or removes a folder of metadata.
    with suppress(OSError):
        return folder, Path(folder).stat().st_mtime_ns
    return folder, 0
