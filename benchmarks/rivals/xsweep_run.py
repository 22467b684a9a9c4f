"""xsweep: its process or thread executor, two workers, into a Zarr store. STORE SEEDS EXECUTOR CHUNK

CHUNK is the length of the store's chunks along the seeds, the unit of writing; 0 leaves the choice to xsweep.
"""

import json
import sys
import time

import xarray as xr
from cell import axes, draw
from xsweep import SweepPolicy, sweep


@sweep("loop(a, alpha, N, seed) -> x()", version="1")
def point(a, alpha, N, seed):
    return draw(a, alpha, N, seed)


if __name__ == "__main__":
    store, seeds, executor, chunk = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    policy = SweepPolicy(store=store, executor=executor, max_workers=2, force_unlock=True)
    if chunk:
        chunks = {"a": 1, "alpha": 1, "N": 1, "seed": chunk}
        policy = SweepPolicy(**{**vars(policy), "store_chunks": chunks})
    started = time.perf_counter()
    point(xr.Dataset(coords=axes(seeds)), policy=policy)
    print(json.dumps({"seconds": time.perf_counter() - started}))
