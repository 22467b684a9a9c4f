"""signac with signac-flow: a job folder for each cell, its operation run by two processes. STORE SEEDS

The number is in the document of the job, so that the same command goes on where an interrupted run stopped.
flow starts its processes for each run: their start is in every time.
"""

import json
import sys
import time
from itertools import product
from pathlib import Path

from cell import axes, draw

# what a user writes
import signac  # isort: skip
from flow import FlowProject  # isort: skip


class Sweep(FlowProject):
    pass


@Sweep.post.true("x")
@Sweep.operation
def point(job):
    job.document["x"] = draw(**job.statepoint())


def sweep(store, grid):
    signac.init_project(store)
    project = Sweep.get_project(store)
    for values in product(*grid.values()):
        project.open_job(dict(zip(grid, values, strict=True))).init()
    project.run(np=2)


# to here

if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    started = time.perf_counter()
    sweep(sys.argv[1], axes(int(sys.argv[2])))
    print(json.dumps({"seconds": time.perf_counter() - started}))
