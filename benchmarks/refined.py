"""Reading a refined store: recorded tiles alone, against every chunk of the array.

    python benchmarks/refined.py [--seeds 2000]

A campaign of 51 loads with 8 seeds, of which three have as many as asked for, in tiles of four cells: most of
the array is absent, as after rounds to a target. One variable is read with `SPARSE` of
`analysis/dataset/cells.py` as it is and with 0, which reads an outer product of chunks; the two take turns.
Prints CPU seconds and their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

from bendscape.analysis.dataset import cells
from bendscape.sweep import Campaign, run
from bendscape.sweep.campaign.axes import Cell
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable

ROUNDS = 3


def compute(cell: Cell, rng: np.random.Generator) -> Outcome:
    """One random number."""
    return Outcome({"x": rng.random()})


KERNEL = Kernel(
    name="refined",
    version=1,
    variables=(Variable("x", "a uniform random number"),),
    compute=compute,
    seconds=lambda cell: 0.5,  # four cells in a tile of two seconds
    peak_bytes=lambda cell: 1e6,
)


def seconds(store: str, sparse: float) -> float:
    """CPU seconds of one reading."""
    cells.SPARSE = sparse
    ds = xr.open_dataset(store, engine="bendscape")
    started = time.process_time()
    ds["x"].load()
    return time.process_time() - started


def main() -> None:
    """Make the store, read it, print the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2000, help="at three of 51 loads")
    asked = parser.parse_args()
    point = {"p": 1, "p_star": 1, "a": 0.7, "N": [64]}
    loads = np.linspace(0.5, 1.5, 51).round(2).tolist()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "refined.zarr")
        campaign = Campaign.of(
            name="refined",
            store=store,
            entropy=1,
            kernel="refined",
            grid={**point, "alpha": loads, "seeds": 8},
            more=[{**point, "alpha": loads[24:27], "seeds": asked.seeds}],
        )
        run(campaign, kernel_modules=[__file__], progress=False)
        usual = cells.SPARSE
        found = {sparse: [] for sparse in (usual, 0.0)}
        for _ in range(ROUNDS):
            for sparse, times in found.items():
                times.append(seconds(store, sparse))
    tiles, every = (statistics.median(times) for times in found.values())
    print(f"recorded tiles {tiles:.2f} s, every chunk {every:.2f} s: {every / tiles:.1f} times as long")


if __name__ == "__main__":
    main()
