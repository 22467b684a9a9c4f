"""The folders that Ray makes, one for each run. A run removes its own at the end, and those of runs that were
killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

from bendscape.core.errors import ParameterError

_SESSION = re.compile(r"session_[0-9_-]+_([0-9]+)")  # Ray names a session by time and process id
LONGEST_PATH = 40  # bytes: Ray adds about 65 for its sockets, whose paths may have at most 107


def session_folder() -> Path:
    """The folder for the sessions of this user, accessible to this user alone.

    In the system's temporary folder (TMPDIR), or in `/tmp` if that path is too long for sockets or contains
    non-ASCII characters, which Ray does not accept.

    Raises
    ------
    ParameterError
        The folder belongs to somebody else, or cannot be made.
    """
    name = f"bendscape-ray-{os.getuid()}"
    folder = Path(tempfile.gettempdir()) / name
    if len(os.fsencode(folder)) > LONGEST_PATH or not str(folder).isascii():
        folder = Path("/tmp") / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owned = folder.stat().st_uid == os.getuid() and not folder.is_symlink()
    except OSError as error:
        raise ParameterError("TMPDIR", str(folder), "a folder that can be made", str(error)) from None
    if not owned:
        raise ParameterError("TMPDIR", str(folder), "a folder of your own", "set TMPDIR to another place")
    folder.chmod(0o700)
    return folder


def remove_session(session: Path) -> None:
    """Remove the folder of an ended session; whatever cannot be removed is left for the next run."""
    shutil.rmtree(session, ignore_errors=True)
    latest = session.parent / "session_latest"
    with contextlib.suppress(OSError):
        if latest.is_symlink() and not latest.exists():
            latest.unlink()


def sweep_sessions(folder: Path) -> None:
    """Remove the sessions in a folder whose runs have ended."""
    for session in folder.glob("session_*"):
        named = _SESSION.fullmatch(session.name)
        if named and session.is_dir() and not session.is_symlink() and not _lives(session, int(named[1])):
            remove_session(session)


def _lives(session: Path, pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        # In another container that shares this folder the process id means nothing; Ray's socket does.
        with socket.socket(socket.AF_UNIX) as raylet, contextlib.suppress(OSError):
            raylet.connect(str(session / "sockets" / "raylet"))
            return True
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True
