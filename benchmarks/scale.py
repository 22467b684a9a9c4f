"""The cost of a large campaign for its driver: planning, resuming, the records of every tile, the theory.

    python benchmarks/scale.py [--tiles 10000 100000 1000000] [--points 1000000]

One campaign of each size with a hundred cells per tile, none of which is computed: the receipts are made up,
so only the driver's own work is timed. Each size runs in its own process, whose peak memory is measured. Time
and memory per tile of the largest campaign are compared with those of the smallest.

A first run also publishes the theory at every (p, p_star, a, alpha). It is planned and published for the
given number of distinct points, with alpha around alpha_bbp, and compared with the same theory one point at a
time (the scalar functions on a random sample, extrapolated to the whole grid).
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bendscape.core.errors import unwarned
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import asymptotics, transition
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
from bendscape.sweep.store.publish import silence_zarr, write_layout
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
POINTS = """
[campaign]
name = "points"
store = "unused"
entropy = 1
kernel = "made-up"
[grid]
p = [1, 2, 3, 4, 5]
p_star = [1, 2]
a = {{ start = 0.1, stop = 10.0, num = {offsets} }}
alpha = {{ around = "alpha_bbp", start = 0.5, stop = 2.5, num = 100 }}
N = [1024]
seeds = 1
"""
POINTS_OF_AN_OFFSET = 5 * 2 * 100
SAMPLE = 300
TILES_OF_100_SEEDS = 5 * 2 * 2 * 50 * 4


def _seconds(cell: Cell) -> float:
    return 0.02


KERNEL = Kernel("made-up", 1, (Variable("x", "a number"),), None, _seconds, lambda cell: 1e6, **NETWORK)  # type: ignore[arg-type]


class Answers:
    """An executor whose workers finish immediately."""

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
        """Nothing to do."""


def peak_mib() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(tiles: int) -> dict[str, float]:
    """CPU seconds of each step, and peak memory beyond that of the imports."""
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


def measure_points(points: int) -> dict[str, float]:
    """CPU seconds of planning and publishing a first run of distinct points, and of its theory point by
    point."""
    campaign = parse_campaign(POINTS.format(offsets=max(1, points // POINTS_OF_AN_OFFSET)))
    imports = peak_mib()
    silence_zarr()
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        plan = plan_campaign(campaign, KERNEL)
        planned = time.process_time()
        write_layout(store_url(folder), plan.layout, KERNEL, None, {})
        published = time.process_time()
    grid = plan.grid
    values, shape = grid.curve_values, grid.shape
    rng = np.random.default_rng(1)
    sample = [tuple(rng.integers(shape).tolist()) for _ in range(SAMPLE)]
    axes = [grid.values[name] for name in ("p", "p_star", "a")]
    at = [(Model(*(of[i] for of, i in zip(axes, where, strict=False))), where) for where in sample]
    with unwarned():
        began = time.process_time()
        for model, _ in at:
            transition(model)
        between = time.process_time()
        for model, where in at:
            asymptotics(model, float(values[where]))
        ended = time.process_time()
    models, total = math.prod(shape[:3]), math.prod(shape)
    return {
        "points": total,
        "plan": planned - started,
        "publish": published - planned,
        "one_at_a_time": (models * (between - began) + total * (ended - between)) / SAMPLE,
        "peak_mib": peak_mib() - imports,
    }


def main() -> None:
    """Measure each size in its own process, print the table, write scale.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--one-points", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one)))
        return
    if asked.one_points:
        print(json.dumps(measure_points(asked.one_points)))
        return

    def apart(option: str, number: int) -> dict[str, float]:
        command = [sys.executable, __file__, option, str(number)]
        found: dict[str, float] = json.loads(subprocess.check_output(command, text=True))
        return found

    rows = [apart("--one", tiles) for tiles in asked.tiles]
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
    first = apart("--one-points", asked.points)
    whole = first["plan"] + first["publish"]
    print(
        f"a first run of {first['points']:.0f} distinct points plans in {first['plan']:.1f} s and publishes "
        f"their theory in {first['publish']:.1f} s, {1e6 * whole / first['points']:.0f} us a point, in "
        f"{first['peak_mib']:.0f} MiB; one point at a time that theory alone takes "
        f"{first['one_at_a_time']:.0f} s: {first['one_at_a_time'] / whole:.0f} times as long"
    )
    document = {"tiles": rows, "points": first}
    (Path(__file__).parent / "scale.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
