"""Progress of a campaign, read from its ledger during or after a run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import entry_points
from typing import Any

from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.tiles import Layout, TileKey
from bendscape.sweep.engine.hidden import hidden_cells
from bendscape.sweep.engine.pace import kernel_or_stand_in, recent_pace, size_rows
from bendscape.sweep.engine.plan import Plan
from bendscape.sweep.engine.provenance import version_in
from bendscape.sweep.store.root import Store, open_store
from bendscape.sweep.store.rounds import read_rounds
from bendscape.sweep.store.runs import run_records


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
    kernel = kernel_or_stand_in(store, kernel_modules)
    layout = store.layout.on(kernel.axes)
    records = ledger.records
    plan = Plan(layout, campaign.to_grid(kernel.axes), kernel, records)
    holder = ledger.holder()
    runs = ledger.runs()
    did = [asdict(run) for run in run_records(ledger, runs)]
    at_work = holder is not None and holder["alive"] is not False
    return {
        **progress_of(store, plan, at_work),
        "hidden": hidden_cells(plan, ledger)._asdict(),
        "target": campaign.target,
        "rounds": [of.summary() for of in read_rounds(ledger)],
        "holder": holder,
        "jobs": jobs_for(store.url),
        "runs": [{**about, **run} for about, run in zip(runs, did, strict=True)],
        "provenance": {
            "bendscape_version": version_in(attributes),
            **{k: attributes[k] for k in ("python", "packages", "created", "revised")},
        },
    }


def progress_of(store: Store, plan: Plan, at_work: bool) -> dict[str, Any]:
    """The part of `store_status` that follows from the records of a store: cells, rate and time left."""
    sizes = size_rows(plan)
    costs = [row["core_seconds_left"] for row in sizes]
    left = None if None in costs else sum(costs)
    rate, cores = recent_pace(plan.records) if at_work else (None, None)
    missing = plan.total("missing")
    eta = 0.0 if not missing else left / cores if cores and left is not None else None
    return {
        "store": store.url,
        "name": store.attributes["name"],
        "cells": plan.total("cells"),
        "done": plan.total("done"),
        "failed": plan.total("failed"),
        "missing": missing,
        "sizes": sizes,
        "rate": rate,
        "core_hours_left": None if left is None else left / 3600,
        "eta_seconds": eta,
    }


def jobs_for(url: str) -> list[dict[str, Any]]:
    """Jobs that this user submitted for a store, by the entry points `bendscape.jobs`."""
    return [job for point in entry_points(group="bendscape.jobs") for job in point.load()(url)]


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
