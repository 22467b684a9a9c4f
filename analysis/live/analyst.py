"""Analyses in the background: they take seconds, and data arrive at any moment.

One runs at a time, and the next waits for `PATIENCE` times what the last one took.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

import xarray as xr

PATIENCE = 3.0
KEPT = 16  # results


class Analyst:
    """Computes the estimates of rows in a thread of its own, one at a time; keeps the last result of each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._rest = 0.0  # on the monotonic clock
        self._found: dict[Hashable, tuple[int, dict[str, Any]]] = {}

    def ask(self, row: Hashable, state: int, dataset: Callable[[], xr.Dataset]) -> dict[str, Any] | None:
        """The latest result for a row, None if there is none yet or no analysis fits.

        Starts an analysis of this `state` of the row (a number that changes with the data), if that is due.
        `dataset` is called here, in the caller's thread.
        """
        with self._lock:
            known = self._found.get(row)
            fitting = known is None or bool(known[1])
            due = fitting and (known is None or known[0] != state) and time.monotonic() >= self._rest
            if due and (self._thread is None or not self._thread.is_alive()):
                ds = dataset()
                self._thread = threading.Thread(target=self._run, args=(row, state, ds), daemon=True)
                self._thread.start()
            return None if known is None else known[1] or None

    def wait(self) -> None:
        """Wait for the analysis under way."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, row: Hashable, state: int, ds: xr.Dataset) -> None:
        begun = time.monotonic()
        from bendscape.analysis.live.estimates import estimate, fits  # here, so that the page is there first

        try:
            result = estimate(ds) if fits(ds) else {}
        except Exception as error:  # said on the page; the page must not depend on it
            result = {
                "tables": [],
                "figures": None,
                "failed": {"analysis": f"{type(error).__name__}: {error}"},
            }
        with self._lock:
            if len(self._found) > KEPT and row not in self._found:
                self._found.pop(next(iter(self._found)))
            self._found[row] = state, result
            self._rest = time.monotonic() + PATIENCE * (time.monotonic() - begun)
