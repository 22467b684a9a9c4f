"""Credentials of runs that nobody starts by hand: in a file that its owner alone can read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from bendscape.core.errors import ParameterError


@contextmanager
def environment(file: str) -> Iterator[None]:
    """A context with the variables of a file of credentials.

    Raises
    ------
    ParameterError
        Others can read the file, or it is none of NAME=VALUE lines; values are never shown.
    """
    before = dict(os.environ)
    os.environ.update(read_environment(file) if file else {})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def is_private(about: os.stat_result) -> bool:
    """Whether this user owns a file and nobody else can read it."""
    return about.st_uid == os.getuid() and not about.st_mode & 0o077


def read_environment(file: str) -> dict[str, str]:
    """The variables of a file that only its owner, who must be this user, can read."""
    name, accepted = "--credentials", "a file of NAME=VALUE lines that you own"
    try:
        with open(file, encoding="utf-8") as opened:
            about, text = os.fstat(opened.fileno()), opened.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(name, file, accepted, type(error).__name__) from None
    if not is_private(about):
        mode = f"it has mode {stat.S_IMODE(about.st_mode):03o} and owner {about.st_uid}"
        raise ParameterError(name, file, "a file that you own and nobody else can read", f"{mode}: chmod 600")
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)", line)
        if match is None:
            raise ParameterError(name, file, accepted, f"line {number} is none (its text is not shown)")
        value = match[2].strip()
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        found[match[1]] = value[1:-1] if quoted else value
    return found
