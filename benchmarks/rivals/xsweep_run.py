"""xsweep: its process or thread executor, two workers, into a Zarr store. STORE SEEDS EXECUTOR CHUNK

CHUNK is the length of the store's chunks along the seeds, the unit of writing; 0 leaves the choice to xsweep.
"""

import json
import sys
import time

from cell import axes, draw

# what a user writes
import xarray as xr  # isort: skip
from xsweep import SweepPolicy, sweep


@sweep("loop(a, alpha, N, seed) -> x()", version="1")
def point(a, alpha, N, seed):
    return draw(a, alpha, N, seed)


def sweep_all(store, grid, executor, **options):
    policy = SweepPolicy(store=store, executor=executor, max_workers=2, force_unlock=True, **options)
    point(xr.Dataset(coords=grid), policy=policy)


# to here

if __name__ == "__main__":
    store, seeds, executor, chunk = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    options = {"store_chunks": {"a": 1, "alpha": 1, "N": 1, "seed": chunk}} if chunk else {}
    started = time.perf_counter()
    sweep_all(store, axes(seeds), executor, **options)
    print(json.dumps({"seconds": time.perf_counter() - started}))
