"""What a large campaign costs its driver: planning, resuming, and the bookkeeping of every tile.

    python benchmarks/scale.py [--tiles 10000 100000 1000000]

One campaign of each size, a hundred cells a tile, none of which is computed: the receipts are made up, so
that only the driver's own work is timed. Each size runs in a process of its own, whose peak memory is
measured. Time per tile and memory per tile of the largest campaign are compared with those of the smallest.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bendscape.sweep.campaign.axes import Cell
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.kernel import Kernel, Variable
from bendscape.sweep.engine.driver import Driver
from bendscape.sweep.engine.executor import Job, Result
from bendscape.sweep.engine.plan import Plan, plan_campaign
from bendscape.sweep.engine.progress import Meter
from bendscape.sweep.engine.stop import Stop
from bendscape.sweep.engine.worker import Order
from bendscape.sweep.kernels.quadratic import NETWORK
from bendscape.sweep.location import store_url
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.records import Receipt

CAMPAIGN = """
[campaign]
name = "scale"
store = "unused"
entropy = 1
kernel = "made-up"
[grid]
p = [1, 2, 3, 4, 5]
p_star = [1, 2]
a = [0.7, 1.5]
alpha = {{ start = 0.5, stop = 2.0, num = 50 }}
N = [128, 256, 512, 1024]
seeds = {seeds}
"""
TILES_OF_100_SEEDS = 5 * 2 * 2 * 50 * 4


def _seconds(cell: Cell) -> float:
    return 0.02


KERNEL = Kernel("made-up", 1, (Variable("x", "a number"),), None, _seconds, lambda cell: 1e6, **NETWORK)  # type: ignore[arg-type]


class Answers:
    """An executor whose workers are done at once."""

    slots = 2

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        """A receipt for every tile of every job."""
        while (job := next_job()) is not None:
            now = time.time()
            receipts = [
                Receipt(tile, mask, 0, mask.bit_count(), 2.0, "host", now, hash(tile) & 2**63 - 1)
                for tile, mask in job.order.tiles
            ]
            yield Result(job, receipts, None)

    def close(self) -> None:
        """Nothing to end."""


def peak_mib() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(tiles: int) -> dict[str, float]:
    """CPU seconds of each step, and peak memory beyond what the imports take."""
    campaign = parse_campaign(CAMPAIGN.format(seeds=100 * max(1, tiles // TILES_OF_100_SEEDS)))
    imports, console = peak_mib(), Console(quiet=True)
    found: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Plan]) -> Plan:
        started = time.process_time()
        made = step()
        found[name] = time.process_time() - started
        return made

    with tempfile.TemporaryDirectory() as folder:
        url = store_url(folder)
        plan = timed("plan", lambda: plan_campaign(campaign, KERNEL))
        found["tiles"], found["cells"] = plan.total("tiles"), plan.total("cells")
        ledger = Ledger(connect(url), plan.records)
        ledger.acquire(console.print)
        drive = Driver(
            plan, Answers(), ledger, Meter(plan, 2, console), Stop(), console, Order(url, 1, (), ())
        )
        timed("drive", lambda: (drive(), ledger.release(), plan)[-1])  # type: ignore[func-returns-value]
        plan.recount()
        assert plan.total("missing") == 0

        def resume() -> Plan:
            again = Ledger(connect(url))
            again.replay()
            return plan_campaign(campaign, KERNEL, plan.layout, again.records)

        assert timed("resume", resume).total("missing") == 0
        snapshots = sorted((Path(folder) / "ledger" / "snapshots").glob("*"))
        found["snapshot_mib"] = snapshots[-1].stat().st_size / 2**20 if snapshots else 0.0
    found["peak_mib"] = peak_mib() - imports
    return found


def main() -> None:
    """Measure each size in its own process, print the table, write scale.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one)))
        return
    rows = []
    for tiles in asked.tiles:
        command = [sys.executable, __file__, "--one", str(tiles)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    table = Table("tiles", "cells", "plan s", "resume s", "us a tile", "MiB", "bytes a tile", "snapshot MiB")
    for row in rows:
        row["drive_us_a_tile"] = 1e6 * row["drive"] / row["tiles"]
        row["bytes_a_tile"] = 2**20 * row["peak_mib"] / row["tiles"]
        table.add_row(
            f"{row['tiles']:.0f}", f"{row['cells']:.0e}", f"{row['plan']:.2f}", f"{row['resume']:.2f}",
            f"{row['drive_us_a_tile']:.0f}", f"{row['peak_mib']:.0f}", f"{row['bytes_a_tile']:.0f}",
            f"{row['snapshot_mib']:.1f}",
        )  # fmt: skip
    Console().print(table)
    ratio = rows[-1]["drive_us_a_tile"] / rows[0]["drive_us_a_tile"]
    print(f"a tile of the largest campaign takes the driver {ratio:.2f} times one of the smallest")
    (Path(__file__).parent / "scale.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
