"""Writing results to files: the place is checked before the work starts, and a result is written whole or not
at all, and replaces nothing but an earlier result of its kind."""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bendscape.core.errors import ParameterError

REPORT = "bendscape report"
_REPORT_MARKS = (
    f'<meta name="generator" content="{REPORT}">',
    ": thresholds</title>",  # the only mark in reports of bendscape 0.1
)
_HIERARCHY = ("zarr.json", ".zgroup", ".zarray")


def check_writable(
    path: str | Path, *, folder: bool = False, hierarchy: bool = False, name: str = "output"
) -> None:
    """Refuse a place that cannot be written or that lies inside a store; creates nothing.

    Parameters
    ----------
    path : path
        A file, new or to be replaced, or a folder for files; missing parents are created when it is
        written.
    folder : bool
        Whether the path is to be a folder.
    hierarchy : bool
        Whether it is to become a Zarr hierarchy; `check_replaceable` decides what may be replaced.
    name : str
        The option that gave the path, for errors.

    Raises
    ------
    ParameterError
        A URL; a place inside a store or another Zarr hierarchy, links followed; a folder where a file is
        meant; a file where a folder is meant or needed; no permission.
    """
    if re.match(r"[A-Za-z][\w+.-]*:/", os.fspath(path)):
        raise ParameterError(name, str(path), "a path on this machine", "copy the result there afterwards")
    place = Path(path).absolute()
    for at in (place, place.resolve()):
        for above in (at.parent, *at.parent.parents) if hierarchy else (at, *at.parents):
            if _is_hierarchy(above):
                raise ParameterError(
                    name, str(path), "a place outside any Zarr hierarchy or store", f"{above} is one"
                )
    if not folder and not hierarchy and place.is_dir():
        raise ParameterError(name, str(path), "a file", "it is a folder: name a file inside it")
    if not folder and not hierarchy and place.exists():
        if not os.access(place, os.W_OK):
            raise ParameterError(name, str(path), "a file that may be written", "permission denied")
        place = place.resolve()  # replaced by renaming, so the folder of the target must be writable
    parent = place if folder and not hierarchy else place.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise ParameterError(name, str(path), "a place in a folder", f"{parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ParameterError(name, str(path), "a place that may be written", f"{parent} is read-only")


def _is_hierarchy(folder: Path) -> bool:
    """Whether this is the root or a part of a Zarr hierarchy, or a store that has lost its root."""
    return any(os.path.exists(folder / name) for name in (*_HIERARCHY, "ledger/segments", "ledger/lease"))


def check_report(path: str | Path, *, name: str = "output") -> None:
    """Refuse a place where no report may be written: as `check_writable`, and also a name without .html and
    an existing file that is not a report."""
    place = Path(path)
    if place.suffix.lower() not in (".html", ".htm"):
        raise ParameterError(name, str(path), "a file named .html")
    check_writable(place, name=name)
    check_replaceable(place, *_REPORT_MARKS, what="report", name=name)


def check_replaceable(path: Path, *marks: str, what: str, name: str = "output") -> None:
    """Refuse a place that holds anything without one of the marks that our own outputs of this kind carry.

    An empty file may be replaced.
    """
    if os.path.lexists(path) and not any(holds(path, mark) for mark in marks):
        raise ParameterError(
            name, str(path), f"a new place, or an earlier {what}", "something else is there: choose another"
        )


def holds(path: Path, mark: str) -> bool:
    """Whether a mark is in a file, or begins the title of a Zarr hierarchy (a folder or zip). An empty file
    counts as marked."""
    try:
        if path.is_dir():
            return _titled((path / "zarr.json").read_text(encoding="utf-8"), mark)
        if not path.stat().st_size:
            return True
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return _titled(archive.read("zarr.json").decode(), mark)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(mark.encode()) >= 0
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def _titled(document: str, mark: str) -> bool:
    found = json.loads(document)
    attributes = found.get("attributes") if isinstance(found, dict) else None
    return isinstance(attributes, dict) and str(attributes.get("title", "")).startswith(mark)


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path beside `path`, with the same ending, at which to write the file or folder meant for `path`.

    It is renamed to `path`, replacing what was there, only if the body of the context succeeds.
    """
    place = Path(path).resolve()  # a link stays a link
    place.parent.mkdir(parents=True, exist_ok=True)
    aside, before = (
        place.with_name(f".{place.stem}.{word}-{os.getpid()}{place.suffix}") for word in ("unfinished", "old")
    )
    try:
        yield aside
        if place.is_dir():
            place.rename(before)
            aside.rename(place)
            shutil.rmtree(before)
        else:
            aside.replace(place)
    finally:
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink(missing_ok=True)
