"""Coverage of the intervals of thresholds and of laws of the edge on planted data: two tables in minutes.

    nice python benchmarks/intervals.py                    # 1000 samples per line
    python benchmarks/intervals.py --samples 400 --only 0.6

Samples are those of ``tests/counted_intervals.py``, which calls the estimators without the pass over a sweep;
``benchmarks/coverage.py`` calls the public functions, for more estimators. Thresholds: fraction of samples
whose interval has both ends, the fraction of these that holds the truth, and the fraction of all samples with
any wrong statement. Edge: fraction of intervals of c that hold the truth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import counted_intervals
import planted_coverage

ALPHAS = {  # the threshold is 1.243
    "0.6-1.9, 27": np.round(np.arange(0.6, 1.901, 0.05), 12),
    "0.7-1.9, 9": np.round(np.arange(0.7, 1.901, 0.15), 12),
    "1.05-1.5, 4": np.round(np.arange(1.05, 1.501, 0.15), 12),
    "0.5-1.2, 15": np.round(np.arange(0.5, 1.201, 0.05), 12),
    "1.3-2.2, 19": np.round(np.arange(1.3, 2.201, 0.05), 12),
}
SEEDS = (4, 6, 12, 64)
EDGE_SIZES = {
    3: (256, 512, 1024),
    5: (256, 512, 1024, 2048, 4096),
    9: (100, 178, 316, 562, 1000, 1778, 3162, 5623, 10000),
}


def thresholds(samples: int, only: str) -> None:
    """Print the table of thresholds."""
    names = ("alpha_overlap", "alpha_pair", "alpha_gap", "alpha_gap_sample")
    print("| alphas | N | seeds | cells | " + " | ".join(names) + " |\n" + "|---" * 8 + "|")
    for label, alpha in ALPHAS.items():
        if not label.startswith(only):
            continue
        for size in (320, 5000) if len(alpha) < 10 else (320,):
            for cells in planted_coverage.CELLS:
                for seeds in SEEDS:
                    counts = counted_intervals.threshold_counts(cells, seeds, alpha, size, samples)
                    print(
                        f"| {label} | {size} | {seeds} | {cells} | "
                        + " | ".join(
                            f"{at.estimated / at.samples:.2f}, "
                            + (f"{at.held / at.estimated:.3f}" if at.estimated else "–")
                            + f", {at.wrong / at.samples:.3f}"
                            for at in (counts[name] for name in names)
                        )
                        + " |",
                        flush=True,
                    )


def edges(samples: int) -> None:
    """Print the table of laws of the edge."""
    print("| sizes | seeds | noise | " + " | ".join(planted_coverage.CELLS) + " |\n" + "|---" * 6 + "|")
    for number, sizes in EDGE_SIZES.items():
        for seeds in SEEDS[1:]:
            for words, slope in (("N^(-1/2)", 1 / 2), ("N^(-2/3)", 2 / 3)):
                counts = [
                    counted_intervals.edge_count(cells, seeds, sizes, samples, slope=slope)
                    for cells in planted_coverage.CELLS
                ]
                shares = " | ".join(f"{at.held / at.samples:.3f}" for at in counts)
                print(f"| {number} | {seeds} | {words} | {shares} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--only", default="", help="edges, or how the alphas of a line begin, such as 0.6")
    options = parser.parse_args()
    with threadpool_limits(1):
        if "edges".startswith(options.only):
            edges(4 * options.samples)
        thresholds(options.samples, options.only)


if __name__ == "__main__":
    main()
