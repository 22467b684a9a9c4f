"""xyzpy: `Harvester.harvest_combos` on loky's pool of two, into a netCDF file at the end. STORE SEEDS"""

import json
import sys
import time

import xyzpy
from cell import WARM, axes, draw
from joblib.externals.loky import get_reusable_executor

if __name__ == "__main__":
    pool = get_reusable_executor(max_workers=2)
    list(pool.map(draw, [0.7] * 64, [1.0] * 64, [WARM[0]] * 64, range(64)))
    harvester = xyzpy.Harvester(xyzpy.Runner(draw, var_names="x"), data_name=sys.argv[1] + ".h5")
    started = time.perf_counter()
    harvester.harvest_combos(axes(int(sys.argv[2])), missing_only=True, executor=pool, verbosity=0)
    print(json.dumps({"seconds": time.perf_counter() - started}))
