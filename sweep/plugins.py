"""Entry points of installed packages: kernels, places, commands, analyses and theories."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from importlib.metadata import EntryPoints
from pathlib import Path


def entry_points(**selection: str) -> EntryPoints:
    """`importlib.metadata.entry_points`, cached: packages are read again only after an installation."""
    return _all(tuple(map(_state, sys.path))).select(**selection)


@lru_cache(maxsize=1)
def _all(state: tuple[tuple[str, int], ...]) -> EntryPoints:
    return metadata.entry_points()


def _state(folder: str) -> tuple[str, int]:
    # An installation adds or removes a folder of metadata.
    with suppress(OSError):
        return folder, Path(folder).stat().st_mtime_ns
    return folder, 0
