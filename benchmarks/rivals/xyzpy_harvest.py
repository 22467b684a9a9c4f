"""xyzpy: `Harvester.harvest_combos` on loky's pool of two, into a netCDF file at the end. STORE SEEDS"""

import json
import sys
import time

from cell import WARM, axes, draw

# what a user writes
import xyzpy  # isort: skip
from joblib.externals.loky import get_reusable_executor


def sweep(store, grid, pool):
    harvester = xyzpy.Harvester(xyzpy.Runner(draw, var_names="x"), data_name=store + ".h5")
    harvester.harvest_combos(grid, missing_only=True, executor=pool, verbosity=0)


# to here

if __name__ == "__main__":
    pool = get_reusable_executor(max_workers=2)
    list(pool.map(draw, [0.7] * 64, [1.0] * 64, [WARM[0]] * 64, range(64)))
    started = time.perf_counter()
    sweep(sys.argv[1], axes(int(sys.argv[2])), pool)
    print(json.dumps({"seconds": time.perf_counter() - started}))
