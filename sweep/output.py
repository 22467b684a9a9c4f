"""Whether a result can be written, asked before the work that makes it."""

from __future__ import annotations

import os
from pathlib import Path

from bendscape.core.model import ParameterError


def check_writable(path: str | Path, *, folder: bool = False, name: str = "output") -> None:
    """Refuse, in words, a place that cannot be written; nothing is made.

    Parameters
    ----------
    path : path
        A file, new or to be replaced, or a folder to put files in; missing parents are made
        when it is written.
    folder : bool
        A folder is meant.
    name : str
        What an error calls it: the option that it was given with.

    Raises
    ------
    ParameterError
        A folder where a file is meant, a file where a folder is meant or stands in the way, or no permission.
    """
    place = Path(path).absolute()
    if not folder and place.is_dir():
        raise ParameterError(name, str(path), "a file", "it is a folder: name a file inside it")
    if not folder and place.exists():
        if not os.access(place, os.W_OK):
            raise ParameterError(name, str(path), "a file that may be written", "permission is denied")
        return
    parent = place if folder else place.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise ParameterError(name, str(path), "a place in a folder", f"{parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ParameterError(name, str(path), "a place that may be written", f"{parent} is read-only")
