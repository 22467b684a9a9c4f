"""The `bendscape` command, called in this process if only its output and exit code matter."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

from bendscape.sweep.commands import cli

BENDSCAPE = Path(sys.executable).with_name("bendscape")


def bendscape(*arguments: object, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """Output and exit code of the command, without a second interpreter that imports everything again.

    All of `main` runs, so tracebacks, usage errors and warnings look as they do to a user. For commands that
    start Ray, receive signals, or depend on the environment, use `process`.
    """
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, newline="\n", write_through=True) for _ in range(2)]

    def show(message: Any, *where: Any, **more: Any) -> None:
        sys.stderr.write(warnings.formatwarning(message, *where[:3]))

    with (
        mock.patch.object(sys, "argv", [str(BENDSCAPE), *map(str, arguments)]),
        mock.patch.object(sys, "stdout", streams[0]),
        mock.patch.object(sys, "stderr", streams[1]),
        mock.patch.object(warnings, "formatwarning"),  # which `main` replaces
        warnings.catch_warnings(),
        mock.patch.object(cli, "_leave", sys.exit),
    ):
        warnings.resetwarnings()  # to those of an interpreter, which pytest has made errors
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = show
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int), "a command ends with a number"
    out, err = (stream.detach().getvalue().decode(encoding) for stream in streams)
    return subprocess.CompletedProcess(list(arguments), code, out, err)


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    command = [str(BENDSCAPE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)
