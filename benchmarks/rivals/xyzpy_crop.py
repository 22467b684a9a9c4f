"""xyzpy: batches on disk, grown by loky's pool of two, reaped into a netCDF file. STORE SEEDS BATCHSIZE"""

import json
import sys
import time
from pathlib import Path

import xyzpy
from cell import WARM, axes, draw
from joblib.externals.loky import get_reusable_executor

if __name__ == "__main__":
    store, seeds, batchsize = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    pool = get_reusable_executor(max_workers=2)
    list(pool.map(draw, [0.7] * 64, [1.0] * 64, [WARM[0]] * 64, range(64)))
    harvester = xyzpy.Harvester(xyzpy.Runner(draw, var_names="x"), data_name=store + ".h5")
    place = {"name": Path(store).name, "parent_dir": str(Path(store).parent)}
    started = time.perf_counter()
    crop = harvester.Crop(**place, batchsize=batchsize)
    if crop.is_prepared():  # an earlier run was interrupted
        crop.grow(executor=pool, verbosity=0)
        crop.reap()
    else:
        harvester.cultivate(
            axes(seeds), **place, batchsize=batchsize, executor=pool, verbosity=0, on_error="raise"
        )
    print(json.dumps({"seconds": time.perf_counter() - started}))
