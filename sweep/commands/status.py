"""Progress of a campaign, read from its ledger during or after a run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Cell
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.kernel import Kernel, Outcome
from bendscape.sweep.campaign.tiles import Layout, TileKey
from bendscape.sweep.engine.hidden import hidden_cells
from bendscape.sweep.engine.plan import Plan
from bendscape.sweep.engine.provenance import version_in
from bendscape.sweep.store.records import Records
from bendscape.sweep.store.root import Store, open_store
from bendscape.sweep.store.rounds import read_rounds
from bendscape.sweep.store.runs import run_records

RATE_SECONDS = 300.0


def store_status(
    location: str | os.PathLike[str] | Store, kernel_modules: Iterable[str] = ()
) -> dict[str, Any]:
    """Done, failed and missing cells by size, the rate, the time left, and who holds the lease.

    Rate and ETA come from the receipts of the last five minutes of an active run, and are None otherwise.
    The core time left is that of `bendscape.sweep.engine.plan.Plan`: the kernel's estimate of what is
    missing, corrected by what finished cells took. If the kernel is neither installed nor in one of
    `kernel_modules`, all cells of a size are taken to cost the same, and the time left is null for a size
    without finished cells. `hidden` gives the number of finished cells that the latest campaign file does not
    name, and how to see them. `jobs` lists the jobs that this user submitted for this store, as reported
    by the entry points `bendscape.jobs`. `target` is the table of the campaign file published last, and
    `rounds` what each round of a campaign with a target found and added.
    """
    store = open_store(location)
    attributes, ledger = store.attributes, store.ledger
    campaign = parse_campaign(attributes["campaign"], source=store.url)
    kernel = _kernel(store, kernel_modules)
    layout = store.layout.on(kernel.axes)
    records = ledger.records
    plan = Plan(layout, campaign.to_grid(kernel.axes), kernel, records)
    sizes: list[dict[str, Any]] = []
    for n, size in plan.sizes.items():
        computed = int(records.sizes[n].computed.sum())
        seconds = float(records.sizes[n].seconds.sum())
        cost = seconds / computed if computed else None
        known = not size.missing or kernel.variables or size.estimated
        row = {
            layout.axes.size.name if layout.axes.size else "size": n,
            "cells": size.cells,
            "done": size.done,
            "failed": size.failed,
            "missing": size.missing,
        }
        left = size.seconds_left * plan.correction(n) if known else None
        sizes.append({**row, "seconds_per_cell": cost, "core_seconds_left": left})
    costs = [row["core_seconds_left"] for row in sizes]
    seconds_left = None if None in costs else sum(costs)
    holder = ledger.holder()
    runs = ledger.runs()
    did = [asdict(run) for run in run_records(ledger, runs)]
    at_work = holder is not None and holder["alive"] is not False
    rate, cores = _recent(records) if at_work else (None, None)
    missing = plan.total("missing")
    return {
        "store": store.url,
        "name": attributes["name"],
        "cells": plan.total("cells"),
        "done": plan.total("done"),
        "failed": plan.total("failed"),
        "missing": missing,
        "hidden": hidden_cells(plan, ledger)._asdict(),
        "sizes": sizes,
        "target": campaign.target,
        "rounds": [of.summary() for of in read_rounds(ledger)],
        "rate": rate,
        "core_hours_left": None if seconds_left is None else seconds_left / 3600,
        "eta_seconds": 0.0
        if not missing
        else seconds_left / cores
        if cores and seconds_left is not None
        else None,
        "holder": holder,
        "jobs": [job for point in entry_points(group="bendscape.jobs") for job in point.load()(store.url)],
        "runs": [{**about, **run} for about, run in zip(runs, did, strict=True)],
        "provenance": {
            "bendscape_version": version_in(attributes),
            **{k: attributes[k] for k in ("python", "packages", "created", "revised")},
        },
    }


def store_tiles(location: str | os.PathLike[str] | Store) -> list[dict[str, Any]]:
    """Every recorded tile: its cells and their outcomes, and where, when and for how long they were computed.

    A model axis is given by its value; curve (as in the campaign) and seed by the first and last value in the
    tile. `seconds` is the sum over its attempts; `epoch` is the run of the last attempt, as numbered in the
    `runs` of `store_status`.
    """
    store = open_store(location)
    layout, records = store.layout, store.ledger.records
    rows = []
    for key in records:
        known = records.get(key)
        if known is None:
            continue
        rows.append(
            {
                "tile": layout.name(key),
                **_ends(layout, key),
                "done": known.done.bit_count(),
                "failed": known.failed.bit_count(),
                "seconds": known.seconds,
                "attempts": known.attempts,
                "host": known.host,
                "finished": known.finished,
                "epoch": known.epoch,
            }
        )
    return rows


def _ends(layout: Layout, key: TileKey) -> dict[str, Any]:
    seeds, first = layout.region(key)[-1], layout.place(key, 0)
    ends = {"seed": [seeds.start, seeds.stop - 1]}
    if layout.curve is not None and layout.axes.curve is not None:
        coordinates = layout.coordinates(key)
        ends[layout.axes.curve.name] = [coordinates[0], coordinates[-1]]
    return {name: value for name, value in first.items() if name != layout.curve} | ends


def _recent(records: Records) -> tuple[float | None, float | None]:
    # Cells per second and busy cores over the last minutes; the first receipt only opens the interval.
    columns = [np.zeros((3, 0))]
    for size in records.sizes.values():
        recent = (size.finished > time.time() - RATE_SECONDS) & (size.computed > 0)
        columns.append(np.array([size.finished[recent], size.computed[recent], size.seconds[recent]]))
    finished, computed, seconds = np.concatenate(columns, axis=1)
    span = float(np.ptp(finished)) if finished.size else 0.0
    if not span:
        return None, None
    later = np.arange(finished.size) != finished.argmin()
    return float(computed[later].sum()) / span, float(seconds[later].sum()) / span


def _kernel(store: Store, modules: Iterable[str]) -> Kernel:
    # A kernel that is not installed has no cost model; a stand-in gives the rest of the status.
    try:
        return store.kernel(modules)
    except ParameterError:
        return Kernel(
            store.kernel_name, store.attributes["kernel_version"], (), _refuse, lambda _: 1.0, lambda _: 0.0,
            axes=store.layout.axes,
        )  # fmt: skip


def _refuse(cell: Cell, rng: np.random.Generator) -> Outcome:
    raise RuntimeError("this kernel is not installed")
