"""How busy one driver keeps many workers at tiles of two seconds, and where it no longer can.

    python benchmarks/busy.py [--workers 64 512 4096] [--seconds 140] [--tile-seconds 2] [--ray]

The driver, its plan and its ledger are real; the workers are times on a simulated clock, on which the CPU
time that the driver takes here passes as well (`tests/simulated_workers.py`). Time that other processes take
from this one does not count, nor does waiting for the store: a flush of the ledger is one LIST and one PUT
every five seconds, or every thousand receipts.

`driver` is the driver on an executor that costs nothing. `Ray` adds what Ray's own calls cost: ordering a
task, fetching its receipt, and a look at those under way. `--ray` measures them on this machine; without it
the figures of such a measurement are taken, `ORDER` and `LOOK`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from simulated_workers import SimulatedWorkers, drive

HERE = Path(__file__).parent
ORDER, LOOK = 0.5e-3, 1.1e-6  # seconds a task, and a task under way


def measure(
    workers: int, seconds: float, tile_seconds: float, order: float = 0.0, look: float = 0.0
) -> dict[str, Any]:
    """Drive so many workers for about so long on the simulated clock."""
    pool = SimulatedWorkers(workers, tile_seconds, lambda jobs: look * jobs, order)
    with tempfile.TemporaryDirectory() as folder:
        plan = drive(pool, folder, seconds)
        segments = len(list((Path(folder) / "ledger" / "segments").iterdir()))
    assert pool.tiles == plan.total("tiles")
    return {
        "workers": workers,
        "tiles": pool.tiles,
        "tile_seconds": pool.tile_seconds,
        "tasks": pool.jobs,
        "simulated": pool.now,
        "busy": pool.busy(),
        "driver_us_a_tile": 1e6 * pool.driver / pool.tiles,
        "driver_busy": pool.driver / pool.now,
        "segments": segments,
    }


def _nothing() -> None:
    """A task."""


def ray_costs() -> tuple[float, float]:
    """Seconds that Ray takes to order a task and fetch its result, and to look at a task under way."""
    import ray

    from bendscape.cluster.local import ray_options
    from bendscape.sweep.engine.ray_executor import RayExecutor

    executor = RayExecutor(ray_options(1))
    nothing, never = ray.remote(num_cpus=0)(_nothing), ray.remote(resources={"never": 1})(_nothing)
    ray.get([nothing.remote() for _ in range(100)])
    orders, looks = [], []
    for _ in range(5):
        began = time.process_time()
        ray.get([nothing.remote() for _ in range(200)])
        orders.append((time.process_time() - began) / 200)
    waiting = [never.remote() for _ in range(1000)]
    for _ in range(50):
        refs = [*waiting, nothing.remote()]
        time.sleep(0.01)  # it is back
        began = time.process_time()
        ray.wait(refs, num_returns=1, timeout=0.2)
        ray.wait(refs, num_returns=len(refs), timeout=0)
        looks.append((time.process_time() - began) / len(refs))
    for ref in waiting:
        ray.cancel(ref, force=True)
    executor.close()
    return float(np.median(orders)), float(np.median(looks))


def main() -> None:
    """Print the table, write busy.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[64, 512, 4096])
    parser.add_argument("--seconds", type=float, default=140)
    parser.add_argument("--tile-seconds", type=float, nargs="+", default=[2.0])
    parser.add_argument("--ray", action="store_true", help="measure what Ray's calls cost here")
    asked = parser.parse_args()
    order, look = ray_costs() if asked.ray else (ORDER, LOOK)
    print(f"Ray: {1e3 * order:.2f} ms a task, and {1e3 * look * 1000:.1f} ms for a look at 1000 tasks")
    table = Table("executor", "workers", "s a tile", "tiles", "busy", "driver us a tile", "driver busy")
    rows = []
    for tile_seconds in asked.tile_seconds:
        for name, costs in {"driver": (0.0, 0.0), "Ray": (order, look)}.items():
            for workers in asked.workers:
                seconds = asked.seconds * max(1.0, tile_seconds / 8)
                row = {"executor": name, **measure(workers, seconds, tile_seconds, *costs)}
                rows.append(row)
                busy, driver_busy = (f"{row[of]:.1%}" for of in ("busy", "driver_busy"))
                table.add_row(
                    name, str(workers), f"{row['tile_seconds']:.1f}", str(row["tiles"]), busy,
                    f"{row['driver_us_a_tile']:.0f}", driver_busy,
                )  # fmt: skip
    Console(width=110).print(table)
    document = {"ray_order": order, "ray_look": look, "rows": rows}
    (HERE / "busy.json").write_text(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
