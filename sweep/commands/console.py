"""Standard output for results, standard error for everything else."""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from rich.console import Console

_SPELT = {
    "\u00b1": "+-",
    "\u2013": "-",
    "\u2026": "...",
    "\u03b1": "alpha",
    "\u03bb": "lambda",
    "\u00b7": "*",
}


def _spelt(error: UnicodeError) -> tuple[str, int]:
    # Characters that the encoding lacks: spelt out where that is usual, otherwise as an escape.
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    return _SPELT.get(letter, letter.encode("ascii", "backslashreplace").decode()), error.start + 1


def take_any_encoding() -> None:
    """Let standard output and error print any text, whatever the encoding of the terminal or pipe."""
    codecs.register_error("bendscape-spelt", _spelt)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # absent if a notebook or test replaced the stream
        if reconfigure is not None:
            reconfigure(errors="bendscape-spelt")


@contextlib.contextmanager
def results_only() -> Iterator[None]:
    """Keep standard output for results: meanwhile, all other output, even that of C code, goes to standard
    error.

    Used around kernels, whose output would otherwise be mixed into a JSON document.
    """
    kept = None
    with contextlib.suppress(OSError, ValueError, AttributeError):  # if either stream is closed
        sys.stdout.flush()
        os.fstat(2)
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


class _Lasting:
    """Standard error that works even after its terminal was closed: no message may end a run."""

    def write(self, text: str) -> int:
        with _unbroken():
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with _unbroken():
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


@contextlib.contextmanager
def _unbroken() -> Iterator[None]:
    try:
        yield
    except OSError:  # drop what is in the buffer, and everything that follows
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def console() -> Console:
    """The console for messages and progress, on standard error."""
    return Console(file=cast(TextIO, _Lasting()), soft_wrap=True, highlight=False)


def out() -> Console:
    """The console for results, on standard output; at least 100 columns wide if it is not a terminal."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=max(100, made.width))


def print_json(document: object) -> None:
    """Print one JSON document; numbers that are not finite become null."""
    json.dump(plain(document), sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def plain(value: Any) -> Any:
    """A value as JSON can hold it: arrays as lists, numbers that are not finite as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
