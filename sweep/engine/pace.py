"""How fast a campaign is computed, and what is left of it, from the receipts in its ledger."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Cell
from bendscape.sweep.campaign.kernel import Kernel, Outcome
from bendscape.sweep.engine.plan import Plan
from bendscape.sweep.store.records import Records
from bendscape.sweep.store.root import Store

RATE_SECONDS = 300.0
"""Receipts of the last so many seconds make the present rate."""


def size_rows(plan: Plan) -> list[dict[str, Any]]:
    """Cells of every size: wanted, done, failed, missing, seconds a cell, and the core seconds left.

    The core time left is the kernel's estimate of what is missing, corrected by what finished cells took. If
    the kernel is not installed (:func:`kernel_or_stand_in`), all cells of a size are taken to cost the same,
    and the time left is None for a size without finished cells.
    """
    rows: list[dict[str, Any]] = []
    axis, records = plan.layout.axes.size, plan.records
    for n, size in plan.sizes.items():
        computed = int(records.sizes[n].computed.sum())
        seconds = float(records.sizes[n].seconds.sum())
        known = not size.missing or plan.kernel.variables or size.estimated
        rows.append(
            {
                axis.name if axis else "size": n,
                "cells": size.cells,
                "done": size.done,
                "failed": size.failed,
                "missing": size.missing,
                "seconds_per_cell": seconds / computed if computed else None,
                "core_seconds_left": size.seconds_left * plan.correction(n) if known else None,
            }
        )
    return rows


def receipts_since(records: Records, time: float) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The tiles that came back after a time, as (3, n): when, cells computed, core seconds; and the number of
    the host of each in `Records.hosts`."""
    columns, hosts = [np.zeros((3, 0))], [np.zeros(0, np.intp)]
    for size in records.sizes.values():
        recent = (size.finished > time) & (size.computed > 0)
        columns.append(np.array([size.finished[recent], size.computed[recent], size.seconds[recent]]))
        hosts.append(size.host[recent].astype(np.intp))
    return np.concatenate(columns, axis=1), np.concatenate(hosts)


def recent_pace(records: Records) -> tuple[float | None, float | None]:
    """Cells a second and busy cores over the last `RATE_SECONDS`; None with fewer than two receipts."""
    (finished, computed, seconds), _ = receipts_since(records, time.time() - RATE_SECONDS)
    span = float(np.ptp(finished)) if finished.size else 0.0
    if not span:
        return None, None
    later = np.arange(finished.size) != finished.argmin()  # the first receipt only opens the interval
    return float(computed[later].sum()) / span, float(seconds[later].sum()) / span


def kernel_or_stand_in(store: Store, modules: Iterable[str]) -> Kernel:
    """The kernel of a store, or one without variables and cost model if it is not installed."""
    try:
        return store.kernel(modules)
    except ParameterError:
        return Kernel(
            store.kernel_name, store.attributes["kernel_version"], (), _refuse, lambda _: 1.0, lambda _: 0.0,
            axes=store.layout.axes,
        )  # fmt: skip


def _refuse(cell: Cell, rng: np.random.Generator) -> Outcome:
    raise RuntimeError("this kernel is not installed")
