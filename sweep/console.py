"""Standard output for results, standard error for everything else."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from rich.console import Console


def console() -> Console:
    """Messages and progress: standard error."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def out() -> Console:
    """Results that a person reads: standard output, at least 100 columns where it is not a terminal."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=max(100, made.width))


def print_json(document: object) -> None:
    """Print one JSON document; what is not finite becomes null."""
    json.dump(_plain(document), sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
