"""One frame: everything that the live page shows, as one JSON document.

A frame holds no clock: two frames of a store in which nothing has happened are equal, so a page that has the
latest one need not be sent another.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import xarray as xr

from bendscape.analysis.live.analyst import Analyst
from bendscape.analysis.live.cells import RowCells
from bendscape.analysis.live.coverage import Coverage, along, row_dims
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Axis
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.tiles import coordinate_in_words
from bendscape.sweep.commands.console import plain
from bendscape.sweep.engine.following import Following
from bendscape.sweep.engine.pace import RATE_SECONDS, receipts_since, recent_pace, size_rows
from bendscape.sweep.store.root import Store

FORMAT = 1
"""Version of the document."""
FAILURES = 100  # listed one by one
BINS = 90  # of the history of the rate
LEAST_BIN = 2.0  # seconds
ROWS, KEPT_BYTES = 32, 2**30  # held in memory, those asked for last
ATTENTION = 60.0  # seconds for which a row counts as watched after it was asked for


class Watch:
    """A store as the live page shows it: `look` reads what is new, `frame` says it."""

    def __init__(self, location: str, modules: Iterable[str] = ()) -> None:
        self.following = Following(location, modules)
        self.silent = ""  # why the store does not answer
        self._of: Any = None  # the plan that the coverage is of
        self._coverage: Coverage | None = None
        self._rows: OrderedDict[tuple[int, ...], RowCells] = OrderedDict()
        self._asked: dict[tuple[int, ...], float] = {}
        self._analyst = Analyst()
        self._dataset: xr.Dataset | None = None

    def look(self, *, strict: bool = False) -> None:
        """Read what is new in the ledger, and the new tiles of the rows that are watched.

        A store that does not answer is no error: the frame says so, and what was known stays.

        Raises
        ------
        ParameterError
            With `strict`: something other than a bendscape store is there.
        """
        try:
            self.following.look()
            self._follow()
            self.silent = ""
        except (OSError, KeyError, ValueError) as error:  # a store that is being changed, too: the next look
            if strict and isinstance(error, ParameterError):
                raise
            self.silent = " ".join(str(error).split())[:400] or type(error).__name__

    def _follow(self) -> None:
        seen = self.following
        if seen.plan is None or seen.store is None:
            self._of, self._coverage, self._dataset = None, None, None
            self._rows.clear()
            return
        if self._of is not seen.plan:  # the store, or its latest campaign file, is another one
            self._of, self._dataset = seen.plan, None
            self._coverage = Coverage(seen.plan.layout, seen.grid)
            self._rows.clear()
        assert self._coverage is not None
        self._coverage.update(seen.records)
        for row, cells in self._rows.items():
            if self._watched(row):
                cells.update(seen.records)

    def read_all(self, row: Sequence[int] = ()) -> None:
        """Read everything of a row, and wait for its analysis."""
        self.look(strict=True)
        if self.following.plan is None:
            return
        cells = self._cells(self._row(row))
        while cells.left:
            cells.update(self.following.records)
        self._estimates(cells)
        self._analyst.wait()

    @property
    def behind(self) -> bool:
        """Whether tiles of rows that are watched are still to be read, and can be."""
        if self.silent:
            return False
        return any(cells.left and self._watched(row) for row, cells in self._rows.items())

    def _watched(self, row: tuple[int, ...]) -> bool:
        return time.monotonic() - self._asked[row] < ATTENTION

    def _row(self, asked: Sequence[int]) -> tuple[int, ...]:
        # Indices beyond the grid are brought back into it.
        lengths = [len(self.following.grid.dims[name]) for name in row_dims(self.following.grid)]
        padded = [*asked, *[0] * len(lengths)]
        return tuple(max(0, min(at, n - 1)) for at, n in zip(padded, lengths, strict=False))

    def _cells(self, row: tuple[int, ...]) -> RowCells:
        seen = self.following
        assert seen.store is not None
        self._asked[row] = time.monotonic()
        if row not in self._rows:
            cells = RowCells(seen.store, seen.grid, row)
            room = KEPT_BYTES - cells.bytes
            while self._rows and (
                len(self._rows) >= ROWS or sum(kept.bytes for kept in self._rows.values()) > room
            ):
                self._rows.popitem(last=False)
            self._rows[row] = cells
            cells.update(seen.records)
        self._rows.move_to_end(row)
        return self._rows[row]

    def _estimates(self, cells: RowCells) -> dict[str, Any] | None:
        seen = self.following
        if seen.store is None or cells.too_large:
            return None
        if self._dataset is None:
            self._dataset = xr.open_dataset(seen.store, engine="bendscape")  # type: ignore[arg-type]
        ds = self._dataset
        if not cells.changes:
            return None
        key = (seen.store.attributes.get("created"), seen.store.revision, cells.row)
        return self._analyst.ask(key, cells.changes, lambda: cells.dataset(ds).load())

    # -- the document

    def absent(self) -> dict[str, Any]:
        """The document of a store of which nothing is known."""
        name = self.following.url.rpartition("/")[2]
        head = {"format": FORMAT, "store": self.following.url, "silent": self.silent}
        return {**head, "state": "absent", "name": name, "problems": []}

    def frame(self, row: Sequence[int] = ()) -> dict[str, Any]:
        """The document; `row` are the indices of the watched row, one for each dimension along the rows."""
        seen = self.following
        if seen.store is None or seen.plan is None or self._coverage is None:
            return self.absent()
        plan, store, grid = seen.plan, seen.store, seen.grid
        sizes = size_rows(plan)
        counts = {kind: int(plan.total(kind)) for kind in ("cells", "done", "failed", "missing")}
        pace = recent_pace(seen.records) if seen.at_work else (None, None)
        left = [one["core_seconds_left"] for one in sizes]
        core_seconds = None if None in left else sum(left)
        try:
            cells = self._cells(self._row(row))
            watched = _watched(cells, store, grid)
            watched["estimates"] = self._estimates(cells)
            damage = cells.damage
        except OSError as error:
            self.silent = " ".join(str(error).split())[:400]
            watched, damage = None, {}
        document = {
            **self.absent(),
            "name": store.attributes["name"],
            "state": _state(seen, counts),
            **counts,
            "hidden": plan.hidden,
            "rate": pace[0],
            "cores": pace[1],
            "eta_seconds": core_seconds / pace[1] if core_seconds is not None and pace[1] else None,
            "core_hours_left": None if core_seconds is None else core_seconds / 3600,
            "holder": _holder(seen.holder),
            "hosts": _hosts(seen),
            "history": _history(seen),
            "runs": [asdict(run) for run in reversed(seen.runs)],
            "rounds": _rounds(seen),
            "problems": [{"path": path, "why": why} for path, why in (seen.problems | damage).items()],
            "size_rows": sizes,
            "axes": _axes(store, grid),
            "failures": _failures(seen),
            "row": watched,
            "about": {
                "kernel": store.kernel_name,
                "revision": store.revision,
                "created": store.attributes.get("created", ""),
                "campaign": store.attributes["campaign"],
            },
        }
        found: dict[str, Any] = plain(document) | {"map": self._coverage.map()}
        return found


def _state(seen: Following, counts: Mapping[str, int]) -> str:
    """`at work`, `dead` (a run that holds the lease and is gone), `complete`, `failed cells` (nothing else is
    left), `stopped`, or `empty` (nothing computed yet, and no run at work)."""
    if seen.at_work:
        return "at work"
    if not counts["missing"]:
        return "failed cells" if counts["failed"] else "complete"
    if seen.holder is not None:
        return "dead"
    return "stopped" if counts["done"] + counts["failed"] else "empty"


def _holder(holder: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if holder is None:
        return None
    kept = {name: holder.get(name) for name in ("epoch", "host", "user", "pid", "started", "alive")}
    # Of a run at work the heartbeat is not news; of a dead one it says since when.
    return kept | {"seen": None if holder["alive"] else holder["seen"]}


def _hosts(seen: Following) -> list[dict[str, Any]]:
    """Hosts that sent receipts of late: cores busy there, and cells computed."""
    if not seen.at_work:
        return []
    (when, computed, seconds), host = receipts_since(seen.records, time.time() - RATE_SECONDS)
    span, names = float(np.ptp(when)) if when.size else 0.0, seen.records.hosts
    if not span:
        return []
    seconds[when.argmin()] = 0.0  # the first receipt only opens the interval
    rows = [
        {
            "host": names[k],
            "cells": int(computed[host == k].sum()),
            "cores": round(float(seconds[host == k].sum()) / span, 1),
        }
        for k in np.unique(host).tolist()
    ]
    return sorted(rows, key=lambda row: (-row["cores"], row["host"]))


def _history(seen: Following) -> dict[str, Any] | None:
    """Cells computed a second since the latest run began, in at most ``BINS`` bins of equal width; times in
    seconds since 1970. A tile counts when it was last computed."""
    started = seen.runs[-1].started if seen.runs else None
    if started is None:
        return None
    (when, computed, _), _ = receipts_since(seen.records, started)
    if not when.size:
        return None
    least = (float(when.max()) - started) / BINS
    width = LEAST_BIN * 2.0 ** max(0, math.ceil(math.log2(max(least, 1e-9) / LEAST_BIN)))
    bins = 1 + int((float(when.max()) - started) / width)
    counts, _ = np.histogram(when, bins, (started, started + bins * width), weights=computed)
    return {"start": started, "width": width, "rate": (counts / width).tolist()}


def _axes(store: Store, grid: Grid) -> dict[str, Any]:
    """The dimensions along rows and columns, and the sizes, with their values as numbers and as texts."""
    layout, column = store.layout, along(grid)

    def about(name: str) -> dict[str, Any]:
        axis = layout.axes.curve if name == layout.curve and layout.axes.curve else layout.axes[name]
        words = axis.long_name or axis.name
        if name != axis.name:
            words = f"{words} over {grid.around}"
        return _axis(name, words, axis, grid.dims[name])

    size = layout.axes.size
    return {
        "rows": [about(name) for name in row_dims(grid)],
        "columns": None if column is None else about(column),
        "size": None if size is None else _axis(size.name, size.long_name or size.name, size, grid.sizes),
        "constants": {name: coordinate_in_words(value) for name, value in grid.constants.items()},
        "seeds": [grid.seeds[size] for size in grid.sizes],
    }


def _axis(name: str, words: str, axis: Axis, values: Sequence[Any]) -> dict[str, Any]:
    texts = [coordinate_in_words(value) for value in values]
    return {"name": name, "long_name": words, "units": axis.units, "values": list(values), "texts": texts}


def _failures(seen: Following) -> dict[str, Any]:
    """The failed cells that the campaign wants, at most ``FAILURES`` of them, with their coordinates."""
    assert seen.plan is not None
    layout, grid = seen.plan.layout, seen.grid
    listed = (
        {
            "key": f"{layout.name(key)} {error.bit}",
            "at": {name: coordinate_in_words(value) for name, value in at.items()},
            **{name: getattr(error, name) for name in ("error", "message", "traceback", "host", "attempts")},
        }
        for key, error in seen.records.failures()
        if grid.holds(at := layout.place(key, error.bit))
    )
    return {"total": int(seen.plan.total("failed")), "listed": list(islice(listed, FAILURES))}


def _watched(cells: RowCells, store: Store, grid: Grid) -> dict[str, Any]:
    """The means of every scalar variable along the row, by size."""
    first, variables = next(iter(grid.sizes)), []
    for name in cells.names if not cells.too_large else ():
        if name == "status":
            continue
        about = store.about(f"{store.layout.group(first)}/{name}")
        curves = [
            dict(zip(("mean", "error", "n"), cells.means(size, name), strict=True)) for size in grid.sizes
        ]
        variables.append(
            {
                "name": name,
                "long_name": about.get("long_name", name),
                "units": about.get("units", "1"),
                "sizes": [{kind: _short(of) for kind, of in curve.items()} for curve in curves],
            }
        )
    return {
        "index": list(cells.row),
        "variables": variables,
        "tiles_left": cells.left,
        "too_large": cells.too_large,
    }


def _short(values: Any) -> list[Any]:
    """Numbers with seven digits."""
    return [value if isinstance(value, int) else float(f"{value:.7g}") for value in values.tolist()]


def _rounds(seen: Following) -> list[dict[str, Any]]:
    """The rounds of a campaign with a target: what each found, and the cells that it added."""
    return [{**of.summary(), "counts": of.counts} for of in seen.rounds]
