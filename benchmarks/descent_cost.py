"""The cost model of descents against measured cells: CPU seconds and allocated bytes.

    python benchmarks/descent_cost.py           # two minutes
    python benchmarks/descent_cost.py --large   # N = 4000 and 10000 too

Each row is the mean of a few cells of the kernel `descent`; the ratios are measured over estimated. Peak
bytes are those of the allocator, of one more cell.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bendscape.sweep.campaign.loading import load_kernel

SHORT, LONG = [0.1, 0.3, 1, 3, 10], [0.1, 0.3, 1, 3, 10, 30, 100]
CASES: list[tuple[int, float, int, str, dict[str, Any]]] = [
    (1, 2.0, 128, "free", {}),
    (1, 3.0, 128, "free", {}),
    (1, 3.5, 400, "confined", {}),
    (1, 2.5, 512, "free", {"pairs": 3}),
    (1, 3.5, 1000, "free", {"until_recovered": True}),
    (1, 3.5, 1000, "confined", {"data": "explicit", "precision": "float32"}),
    (1, 3.5, 1000, "confined", {"data": "revealed"}),
    (1, 3.5, 1000, "confined", {"data": "revealed", "pairs": 1, "times": SHORT}),
    (1, 3.5, 2000, "confined", {}),
    (4, 2.25, 128, "free", {"times": [*LONG, 300]}),
    (4, 3.0, 512, "free", {"data": "explicit", "times": [*LONG, 300]}),
    (4, 3.0, 1000, "free", {"data": "revealed", "times": [*LONG, 300]}),
    (4, 3.5, 1000, "free", {"data": "revealed", "pairs": 1, "times": SHORT}),
    (8, 2.0, 256, "free", {"times": [*LONG, 300]}),
    (2, 2.0, 1000, "free", {"times": [*LONG, 300]}),
    (1, 3.0, 256, "free", {"tolerance": 1e-5}),
    (1, 3.0, 128, "free", {"method": "gradient_descent", "learning_rate": 0.01, "times": SHORT}),
]
LARGE: list[tuple[int, float, int, str, dict[str, Any]]] = [
    (1, 2.5, 4000, "free", {"until_recovered": True}),
    (1, 3.5, 4000, "confined", {}),
    (1, 4.0, 10000, "free", {"until_recovered": True}),
    (1, 3.5, 4000, "confined", {"pairs": 1, "times": SHORT}),
    (4, 2.5, 4000, "free", {"times": SHORT}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--cells", type=int, default=4)
    asked = parser.parse_args()
    print("|  p | alpha |     N | dynamics | options | s measured | ratio | MB measured | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for p, alpha, N, dynamics, options in CASES + (LARGE if asked.large else []):
        kernel = load_kernel("descent", (), options)

        at = {"p": p, "p_star": 1, "a": 0.01, "noise": 0.0, "dynamics": dynamics, "alpha": alpha, "N": N}
        cells = [kernel.axes.cell(**at, seed=seed) for seed in range(asked.cells)]
        with threadpool_limits(1):
            start = time.process_time()
            for seed, cell in enumerate(cells):
                kernel.compute(cell, np.random.default_rng(seed))
            seconds = (time.process_time() - start) / asked.cells
            tracemalloc.start()
            kernel.compute(cells[0], np.random.default_rng(0))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        words = ", ".join(f"{k} = {v}" for k, v in options.items() if k != "times")
        words += f" T = {options['times'][-1]}" if "times" in options else ""
        time_ratio, size_ratio = seconds / kernel.seconds(cells[0]), peak / kernel.peak_bytes(cells[0])
        print(
            f"| {p:2} | {alpha:5g} | {N:5} | {dynamics} | {words} | {seconds:.3g} | {time_ratio:.2f} | "
            f"{peak / 1e6:.3g} | {size_ratio:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
