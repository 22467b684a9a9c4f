"""pipefunc: `Pipeline.map` on a process pool of two, into an array of files or of Zarr. STORE SEEDS STORAGE

With resume, so that the same command continues in the folder of an interrupted run.
"""

import json
import sys
import time
from pathlib import Path

from cell import WARM, axes, draw

# what a user writes
from concurrent.futures import ProcessPoolExecutor  # isort: skip
from pipefunc import Pipeline, pipefunc


@pipefunc(output_name="x", mapspec="a[i], alpha[j], N[k], seed[l] -> x[i, j, k, l]")
def point(a, alpha, N, seed):
    return draw(a, alpha, N, seed)


def sweep(store, grid, pool, storage):
    Pipeline([point]).map(
        grid, store, executor=pool, storage=storage, resume=store.exists(), return_results=False
    )


# to here

if __name__ == "__main__":
    store, seeds, storage = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(draw, [0.7] * 64, [1.0] * 64, [WARM[0]] * 64, range(64)))
        started = time.perf_counter()
        sweep(store, axes(seeds), pool, storage)
        print(json.dumps({"seconds": time.perf_counter() - started}))
