"""Where a campaign stands, read from its ledger while it runs or after."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from bendscape.core.model import ParameterError
from bendscape.sweep.campaign import parse_campaign
from bendscape.sweep.grid import Cell
from bendscape.sweep.kernel import Kernel, Outcome, load_kernel
from bendscape.sweep.ledger import Ledger
from bendscape.sweep.plan import Plan
from bendscape.sweep.store import connect, open_root
from bendscape.sweep.tiles import Layout

RATE_SECONDS = 300.0


def store_status(location: str | os.PathLike[str]) -> dict[str, Any]:
    """Done, failed and missing cells by size, rate, what is left, and who holds the lease.

    The rate is over the last five minutes of the receipts, null when nothing came in then. The core time
    left is what the missing cells of a size cost at the mean measured cost of its finished ones; a size
    without any goes by the kernel's estimate.
    """
    url, attributes = open_root(location)
    campaign = parse_campaign(attributes["campaign"], source=url)
    ledger = Ledger(connect(url))
    ledger.replay()
    plan = Plan(Layout.from_json(attributes["layout"]), campaign.to_grid(), _kernel(attributes), ledger)
    receipts = list(ledger.records.items())
    sizes, seconds_left = [], 0.0
    for N, size in plan.sizes.items():
        computed = sum(receipt.computed for key, receipt in receipts if key.N == N)
        seconds = sum(receipt.seconds for key, receipt in receipts if key.N == N)
        left = seconds / computed * size.missing if computed else size.seconds_left
        seconds_left += left
        row = {"N": N, "cells": size.cells, "done": size.done, "failed": size.failed, "missing": size.missing}
        sizes.append(
            {**row, "seconds_per_cell": seconds / computed if computed else None, "core_seconds_left": left}
        )
    rate = _rate([(receipt.finished, receipt.computed) for _, receipt in receipts if receipt.computed])
    missing = plan.total("missing")
    return {
        "store": url,
        "name": attributes["name"],
        "cells": plan.total("cells"),
        "done": plan.total("done"),
        "failed": plan.total("failed"),
        "missing": missing,
        "sizes": sizes,
        "rate": rate,
        "core_hours_left": seconds_left / 3600,
        "eta_seconds": 0.0 if not missing else missing / rate if rate else None,
        "holder": ledger.holder(),
        "provenance": {
            k: attributes[k] for k in ("code_version", "python", "packages", "created", "revised")
        },
    }


def _rate(receipts: list[tuple[float, int]]) -> float | None:
    # Cells a second over the last minutes; the first receipt opens the interval.
    recent = sorted(r for r in receipts if r[0] > time.time() - RATE_SECONDS)
    if len(recent) < 2 or recent[-1][0] == recent[0][0]:
        return None
    return sum(computed for _, computed in recent[1:]) / (recent[-1][0] - recent[0][0])


def _kernel(attributes: dict[str, Any]) -> Kernel:
    # A kernel that is not installed here has no cost model; everything else about the store is known.
    try:
        return load_kernel(attributes["kernel"])
    except ParameterError:
        return Kernel(
            attributes["kernel"], attributes["kernel_version"], (), _refuse, lambda _: 0.0, lambda _: 0.0
        )


def _refuse(cell: Cell, rng: np.random.Generator) -> Outcome:
    raise RuntimeError("this kernel is not installed")
