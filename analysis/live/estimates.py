"""Current estimates of the watched row, by every installed analysis that fits it, in the background.

Analyses are found by their entry points; those of this package that have a short table are shown by it, those
of other packages by the numbers they return. An analysis takes seconds and data arrive at any moment, so one
runs at a time, and it waits between two runs for `PATIENCE` times what the last one took.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Hashable, Mapping
from importlib.metadata import EntryPoint
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.analyses import installed, loaded
from bendscape.analysis.estimate.estimators import ESTIMATORS, SHORT_NAMES
from bendscape.analysis.estimate.notation import compact, with_error
from bendscape.analysis.estimate.thresholds import thresholds_table
from bendscape.analysis.findings.results import PASSES, Results
from bendscape.analysis.findings.scaling import load_rows
from bendscape.analysis.report.figures import figure_numbers
from bendscape.core.errors import ParameterError

N_BOOT = 200  # resamplings: enough for an error to 5 %
PATIENCE = 3.0
MOST_ROWS = 50  # of a table
FIGURES = ("means", "collapse")  # what the figures of the network are made of


class Table(NamedTuple):
    """One analysis as a table of texts."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def _thresholds(results: Results) -> Table:
    rows = [
        [
            str(row["N"]),
            str(row["n_seeds"]),
            f"{row['alpha_bbp_at_size']:.4f}",
            *(compact(row[name]) for name in ESTIMATORS),
            row["verdict"],
        ]
        for row in thresholds_table(results["thresholds"])
    ]
    columns = ["N", "seeds", "theory at N", *SHORT_NAMES.values(), "verdict"]
    return Table("Thresholds at each size", columns, rows)


def _loads(results: Results) -> Table:
    rows = []
    for row in load_rows(results["collapse"]):
        total = math.hypot(row["error"], row["systematic"])
        value = with_error(row["alpha_c"], total) if math.isfinite(row["alpha_c"]) else "–"
        words = row["verdict"] if row["flag"] == "estimated" else row["reason"]
        rows.append([row["estimator"].replace("_", " "), value, words])
    return Table("Critical load from all sizes", ["estimator", "alpha_c", "verdict"], rows)


SHOWN: Mapping[str, Callable[[Results], Table]] = {"thresholds": _thresholds, "collapse": _loads}
"""Analyses of this package with a table of their own. Its others take minutes, or all models at once."""


def numbers_of(name: str, found: xr.Dataset) -> Table:
    """The result of any analysis as a table: a row for each place of each variable, at most ``MOST_ROWS``."""
    rows: list[list[str]] = []
    for variable in found.data_vars:
        array = found[variable]
        for index in np.ndindex(*array.shape):
            if len(rows) == MOST_ROWS:
                break
            at = {
                dim: array[dim].values[k]
                for dim, k in zip(array.dims, index, strict=True)
                if dim in array.coords
            }
            value = array.values[index]
            text = f"{value:.6g}" if array.dtype.kind == "f" else str(value)
            rows.append([str(variable), ", ".join(f"{dim} = {v}" for dim, v in at.items()), text])
    return Table(name, ["quantity", "at", "value"], rows)


def estimate(ds: xr.Dataset) -> dict[str, Any]:
    """What the installed analyses say of a dataset in memory.

    Returns
    -------
    dict
        ``tables``, each with title, columns and rows of text; ``figures``, the numbers of the figures of the
        report (:func:`bendscape.analysis.report.figures.figure_numbers`), None where they do not fit;
        ``failed``, by name, why an analysis that fits gave nothing.
    """
    tables: list[Table] = []
    failed: dict[str, str] = {}
    figures: dict[str, Any] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of precision; the report says them
        results = Results(ds, n_boot=N_BOOT)
        for name, point in installed().items():
            if not shown(point):
                continue
            try:
                analysis = loaded(point)
                if analysis.lacking(ds):
                    continue
                ours = name in SHOWN and PASSES[name].analysis is analysis
                tables.append(SHOWN[name](results) if ours else numbers_of(name, analysis(ds).compute()))
            except Exception as error:  # of data that do not suffice, or of another package
                failed[name] = _why(error)
        if not any(PASSES[name].analysis.lacking(ds) for name in FIGURES):
            try:
                figures = figure_numbers(results.panels, load_rows(results["collapse"]), [])
            except Exception as error:
                failed["figures"] = _why(error)
    return {
        "tables": [table._asdict() for table in tables if table.rows],
        "figures": figures,
        "failed": failed,
    }


def _why(error: Exception) -> str:
    if isinstance(error, ParameterError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({last.name})"


def shown(point: EntryPoint) -> bool:
    """Whether an analysis is for this page: one of ``SHOWN``, or one of another package."""
    return point.name in SHOWN or not point.value.startswith("bendscape.")


def fits(ds: xr.Dataset) -> bool:
    """Whether any installed analysis that would be shown fits a dataset."""
    for point in installed().values():
        if not shown(point):
            continue
        try:
            if not loaded(point).lacking(ds):
                return True
        except ParameterError:
            continue
    return False


class Analyst:
    """Computes estimates in a thread of its own, the latest request first; keeps the last result of a row."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._rest = 0.0  # on the monotonic clock
        self._found: dict[Hashable, tuple[int, dict[str, Any]]] = {}

    def ask(self, row: Hashable, state: int, dataset: Callable[[], xr.Dataset]) -> dict[str, Any] | None:
        """The latest result for a row, None if there is none yet; starts an analysis of this `state` of it (a
        number that changes with the data), if that is due. `dataset` is called here, in the caller's
        thread."""
        with self._lock:
            known = self._found.get(row)
            due = (known is None or known[0] != state) and time.monotonic() >= self._rest
            if due and (self._thread is None or not self._thread.is_alive()):
                ds = dataset()
                self._thread = threading.Thread(target=self._run, args=(row, state, ds), daemon=True)
                self._thread.start()
            return None if known is None else known[1]

    def wait(self) -> None:
        """Wait for the analysis under way."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, row: Hashable, state: int, ds: xr.Dataset) -> None:
        begun = time.monotonic()
        result = estimate(ds)
        with self._lock:
            if len(self._found) > 16 and row not in self._found:
                self._found.pop(next(iter(self._found)))
            self._found[row] = state, result
            self._rest = time.monotonic() + PATIENCE * (time.monotonic() - begun)
