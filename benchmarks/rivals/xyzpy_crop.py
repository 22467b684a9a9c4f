"""xyzpy: batches on disk, grown by loky's pool of two, reaped into a netCDF file. STORE SEEDS BATCHSIZE"""

import json
import sys
import time

from cell import WARM, axes, draw

# what a user writes
from pathlib import Path  # isort: skip
import xyzpy
from joblib.externals.loky import get_reusable_executor


def sweep(store, grid, pool, batchsize):
    harvester = xyzpy.Harvester(xyzpy.Runner(draw, var_names="x"), data_name=store + ".h5")
    place = {"name": Path(store).name, "parent_dir": str(Path(store).parent), "batchsize": batchsize}
    crop = harvester.Crop(**place)
    if crop.is_prepared():  # an earlier run was interrupted
        crop.grow(executor=pool, verbosity=0)
        crop.reap()
    else:
        harvester.cultivate(grid, **place, executor=pool, verbosity=0, on_error="raise")


# to here

if __name__ == "__main__":
    pool = get_reusable_executor(max_workers=2)
    list(pool.map(draw, [0.7] * 64, [1.0] * 64, [WARM[0]] * 64, range(64)))
    started = time.perf_counter()
    sweep(sys.argv[1], axes(int(sys.argv[2])), pool, int(sys.argv[3]))
    print(json.dumps({"seconds": time.perf_counter() - started}))
