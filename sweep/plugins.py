"""What installed packages add to bendscape: kernels, places, commands, analyses, theories."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from importlib.metadata import EntryPoints
from pathlib import Path


def entry_points(**selection: str) -> EntryPoints:
    """`importlib.metadata.entry_points`, which reads every installed package, read once and again after an
    installation.
    """
    return _all(tuple(map(_state, sys.path))).select(**selection)


@lru_cache(maxsize=1)
def _all(state: tuple[tuple[str, int], ...]) -> EntryPoints:
    return metadata.entry_points()


def _state(folder: str) -> tuple[str, int]:
    # An installation adds or removes a folder of metadata.
    with suppress(OSError):
        return folder, Path(folder).stat().st_mtime_ns
    return folder, 0
