"""The cost of the engine per cell: everything that a real run does (workers, Zarr, ledger), with a trivial
kernel.

    python benchmarks/overhead.py

Each number is the median over `ROUNDS` fresh stores, taken in turn so that a noisy machine disturbs all
equally. The reference is a bare loop over the same cells with the same random streams, in this process and
without a store. `benchmarks/engine.py` compares with other engines.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ray
from rich.console import Console
from rich.table import Table

from bendscape.cluster.local import available_cores, ray_options
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.file import Campaign, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.campaign.tiles import Layout
from bendscape.sweep.engine.executor import Executor, SerialExecutor
from bendscape.sweep.engine.fork_server import ForkServer
from bendscape.sweep.engine.processes import ProcessExecutor
from bendscape.sweep.engine.ray_executor import RayExecutor
from bendscape.sweep.engine.run import run_campaign
from bendscape.sweep.engine.wanted import wanted_tiles
from bendscape.sweep.kernels.quadratic import AXES
from bendscape.sweep.location import store_url
from bendscape.sweep.store.publish import silence_zarr

HERE = Path(__file__).parent
MODULE = str(HERE / "trivial_kernel.py")
ROUNDS = 5
CAMPAIGN = """
[campaign]
name = "overhead"
store = "unused"
entropy = 1
kernel = "trivial"
[grid]
p = [1]
p_star = [1]
a = [0.7, 1.5]
alpha = {{ start = 0.5, stop = 2.0, num = 10 }}
N = [128, 256]
seeds = {seeds}
"""


def bare(campaign: Campaign) -> float:
    """Seconds of the kernel alone, called for every cell in a loop."""
    kernel, grid = load_kernel("trivial", [MODULE]), campaign.to_grid(AXES)
    layout = Layout.of(grid, kernel)
    cells = [c for t in wanted_tiles(layout, grid, kernel) for _, _, c in layout.cells(t.key, t.mask)]
    started = time.perf_counter()
    for cell in cells:
        kernel.compute(cell, cell_rng(1, cell))
    return time.perf_counter() - started


def engine(campaign: Campaign, make: Callable[[], Executor]) -> float:
    """Seconds of a whole run on a fresh store: plan, store, lease, tasks, tiles, ledger."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        summary = run_campaign(
            campaign, store_url(Path(folder) / "s.zarr"), load_kernel("trivial", [MODULE]), make,
            console=Console(quiet=True), kernel_modules=(MODULE,),
        )  # fmt: skip
        seconds = time.perf_counter() - started
    assert summary.outcome == "complete"
    return seconds


def cold(campaign: Campaign) -> float:
    """The same with its own Ray, started and shut down."""
    return engine(campaign, lambda: RayExecutor(ray_options()))


def warm(campaign: Campaign) -> float:
    """The same with processes whose server is already running."""
    server = ForkServer()
    server.reports.poll(60)
    return engine(campaign, lambda: ProcessExecutor(server=server))


def main() -> None:
    """Measure, print the table, write overhead.json beside this file."""
    silence_zarr()
    campaigns = {cells: parse_campaign(CAMPAIGN.format(seeds=cells // 40)) for cells in (400, 4000)}
    rows: dict[tuple[int, str], list[float]] = {}
    for campaign in campaigns.values():
        rows[campaign.to_grid(AXES).cell_count(), "with Ray's start-up"] = [cold(campaign) for _ in range(2)]
    keeper = RayExecutor(ray_options())  # owns the Ray that the other runs join
    engine(campaigns[400], lambda: RayExecutor({}))  # the workers' first imports
    for _ in range(ROUNDS):
        for cells, campaign in campaigns.items():
            rows.setdefault((cells, "bare loop"), []).append(bare(campaign))
            rows.setdefault((cells, "serial"), []).append(engine(campaign, SerialExecutor))
            rows.setdefault((cells, "processes"), []).append(engine(campaign, ProcessExecutor))
            rows.setdefault((cells, "processes, imports done"), []).append(warm(campaign))
            rows.setdefault((cells, "Ray running"), []).append(engine(campaign, lambda: RayExecutor({})))
    keeper.close()

    table = Table("cells", "run", "seconds", "ms a cell", "times the bare loop")
    document = []
    for (cells, name), seconds in sorted(rows.items()):
        median = statistics.median(seconds)
        ratio = median / statistics.median(rows[cells, "bare loop"])
        table.add_row(str(cells), name, f"{median:.3f}", f"{1e3 * median / cells:.3f}", f"{ratio:.1f}")
        document.append({"cells": cells, "run": name, "seconds": median, "ratio": ratio})
    Console().print(table)
    machine = {"cores": available_cores(), "python": platform.python_version(), "ray": ray.__version__}
    (HERE / "overhead.json").write_text(json.dumps({"machine": machine, "rows": document}, indent=2))


if __name__ == "__main__":
    main()
