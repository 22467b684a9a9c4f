"""bendscape from Python: `run` with the user's function, in two processes. STORE SEEDS"""

import json
import sys
import time

from cell import axes, draw

# what a user writes
from bendscape.sweep import Axes, Axis, Campaign, Variable, kernel, run

SIZE, SEED = Axis("N", "int64", "size"), Axis("seed", "int64", "seed")
AXES = Axes((Axis("a"), Axis("alpha", role="curve"), SIZE, SEED))


@kernel(axes=AXES, variables=(Variable("x", "a random number"),))
def point(cell, rng):
    return {"x": draw(cell.a, cell.alpha, cell.N, cell.seed)}


def sweep(store, grid):
    campaign = Campaign.of(name="rivals", store=store, entropy=1, grid=grid)
    run(campaign, kernel=point, workers=2, progress=False)


# to here

if __name__ == "__main__":
    grid = {**axes(int(sys.argv[2])), "seeds": int(sys.argv[2])}
    del grid["seed"]
    started = time.perf_counter()
    sweep(sys.argv[1], grid)
    print(json.dumps({"seconds": time.perf_counter() - started}))
