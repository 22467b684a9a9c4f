"""Ray Tune: a grid search of one trial for each cell, two at a time, with actors used again. STORE SEEDS

An interrupted experiment is restored, and a trial whose worker dies is run again. The points of an experiment
are fixed, so that more seeds are another experiment.
"""

import json
import logging
import os
import sys
import time

from cell import WARM, axes, draw

os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"

# what a user writes
from pathlib import Path  # isort: skip
import ray  # isort: skip
from ray import tune  # isort: skip


def point(config):
    return {"x": draw(**config)}


def sweep(store, grid):
    place = Path(store, f"{len(grid['seed'])} seeds")
    if tune.Tuner.can_restore(str(place)):
        tuner = tune.Tuner.restore(str(place), point, restart_errored=True)
    else:
        tuner = tune.Tuner(
            point,
            param_space={axis: tune.grid_search(values) for axis, values in grid.items()},
            tune_config=tune.TuneConfig(max_concurrent_trials=2, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=store,
                name=place.name,
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        )
    if errors := tuner.fit().errors:
        raise errors[0]


# to here

if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    warm = ray.remote(draw)
    ray.get([warm.remote(0.7, 1.0, WARM[0], seed) for seed in range(64)])
    started = time.perf_counter()
    sweep(sys.argv[1], axes(int(sys.argv[2])))
    print(json.dumps({"seconds": time.perf_counter() - started}))
