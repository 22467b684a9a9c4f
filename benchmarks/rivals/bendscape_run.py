"""bendscape: `run_campaign` with two processes or a Ray of two, into a Zarr store. STORE SEEDS ADDRESS"""

import json
import sys
import tempfile
import time
from collections.abc import Callable

from cell import SECONDS, WARM, axes, draw
from rich.console import Console

from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.engine.executor import Executor, executor_at
from bendscape.sweep.engine.fork_server import ForkServer
from bendscape.sweep.engine.run import run_campaign
from bendscape.sweep.location import store_url
from bendscape.sweep.store.publish import silence_zarr

# what a user writes: a file with the kernel, and the campaign
import numpy as np  # isort: skip
from bendscape.sweep.campaign.axes import Cell  # isort: skip
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable  # isort: skip


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
# to here


def run(store: str, seeds: int, make: Callable[[], Executor], **changes: object) -> float:
    campaign = parse_campaign(CAMPAIGN.format(**{**axes(seeds), "seeds": seeds, **changes}))
    started = time.perf_counter()
    run_campaign(
        campaign, store_url(store), load_kernel("draw", [__file__]), make,
        console=Console(quiet=True), kernel_modules=(__file__,),
    )  # fmt: skip
    return time.perf_counter() - started


if __name__ == "__main__":
    silence_zarr()
    store, seeds, address = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if address == "local":
        server = ForkServer()  # started before the imports, as by the command
        server.reports.poll(60)
        seconds = run(store, seeds, executor_at(address, 2, server=server))
    else:
        keeper = executor_at(address, 2)()  # owns the Ray that the runs join
        from bendscape.sweep.engine.ray_executor import RayExecutor

        with tempfile.TemporaryDirectory() as folder:
            run(folder + "/warm.zarr", 2, lambda: RayExecutor({}), N=list(WARM))
        seconds = run(store, seeds, lambda: RayExecutor({}))
    print(json.dumps({"seconds": seconds}))
    sys.stdout.flush()
    if address != "local":
        keeper.close()
