"""bendscape: `run_campaign` on a local Ray of two workers, into a Zarr store. STORE SEEDS"""

import json
import sys
import tempfile
import time

import numpy as np
from cell import SECONDS, WARM, axes, draw
from rich.console import Console

from bendscape.cluster.local import ray_options
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.grid import Cell
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable, load_kernel
from bendscape.sweep.engine.ray_executor import RayExecutor
from bendscape.sweep.engine.run import run_campaign
from bendscape.sweep.location import store_url
from bendscape.sweep.store.publish import silence_zarr


def compute(cell: Cell, rng: np.random.Generator) -> Outcome:
    return Outcome({"x": draw(cell.a, cell.alpha, cell.N, cell.seed)})


KERNEL = Kernel(
    name="draw",
    version=1,
    variables=(Variable("x", "a random number"),),
    compute=compute,
    seconds=lambda cell: max(SECONDS, 4e-5),
    peak_bytes=lambda cell: 1e6,
)
CAMPAIGN = """
[campaign]
name = "rivals"
store = "unused"
entropy = 1
kernel = "draw"
[grid]
p = 1
p_star = 1
a = {a}
alpha = {alpha}
N = {N}
seeds = {seeds}
"""


def run(store: str, seeds: int, **changes: object) -> float:
    campaign = parse_campaign(CAMPAIGN.format(**{**axes(seeds), "seeds": seeds, **changes}))
    started = time.perf_counter()
    run_campaign(
        campaign, store_url(store), load_kernel("draw", [__file__]), lambda: RayExecutor({}),
        console=Console(quiet=True), kernel_modules=(__file__,),
    )  # fmt: skip
    return time.perf_counter() - started


if __name__ == "__main__":
    silence_zarr()
    keeper = RayExecutor(ray_options(2))  # owns the Ray that the runs join
    with tempfile.TemporaryDirectory() as folder:
        run(folder + "/warm.zarr", 2, N=list(WARM))
    print(json.dumps({"seconds": run(sys.argv[1], int(sys.argv[2]))}))
    keeper.close()
