"""How often the intervals of half success, and of its slope in ln N, are right.

    python benchmarks/half_success.py --samples 400     # two minutes on one core

Planted: 4, 6 or 8 values of the curve axis with 10, 20 or 50 cells each, the crossing near the middle or
towards the end, and curves of which only the first is in the family that is fitted. The slope: sizes with few
seeds and a scatter of the crossings that the counts do not show.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from planted_success import CURVES, coverage, slope_coverage

SIZES = {
    "128 to 512, 50 seeds": {128: 50, 256: 50, 512: 50},
    "128 to 2000, 50 to 10 seeds": {128: 50, 256: 40, 512: 30, 1000: 20, 2000: 10},
    "128 to 4000, 100 to 24 seeds": {128: 100, 256: 80, 512: 60, 1000: 40, 2000: 30, 4000: 24},
}


def curves(samples: int, rng: np.random.Generator) -> None:
    """Print the coverage of half success."""
    print("| curve | values | cells | two ends | of these right, lowest and highest | wrong end | width |")
    print("|---" * 7 + "|")
    for name, curve in CURVES.items():
        for values in (4, 6, 8):
            for cells in (10, 20, 50):
                found = [
                    coverage(curve, values, cells, samples, rng, off=off, width=width)
                    for off in (0.0, 0.3)
                    for width in (0.1, 0.25)
                ]
                ends, right, wrong, wide = np.array(found).T
                print(
                    f"| {name} | {values} | {cells} | {ends.min():.2f} to {ends.max():.2f} | "
                    f"{right.min():.3f}, {right.max():.3f} | {wrong.max():.3f} | {wide.mean():.2f} |",
                    flush=True,
                )


def slopes(samples: int, rng: np.random.Generator) -> None:
    """Print the coverage of its slope in ln N."""
    for sizes, seeds in SIZES.items():
        print(f"\nN = {sizes}:\n\n| slope | scatter | counts alone | total | total excludes 0 |")
        print("|---" * 5 + "|")
        for slope in (0.0, 0.12):
            for scatter in (0.0, 0.05):
                counts, total, seen = slope_coverage(slope, scatter, seeds, samples, rng)
                print(f"| {slope} | {scatter} | {counts:.3f} | {total:.3f} | {seen:.3f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--entropy", type=int, default=20261129)
    parser.add_argument("--only", choices=("curves", "slope"), default="")
    given = parser.parse_args()
    rng = np.random.default_rng(given.entropy)
    if given.only != "slope":
        curves(given.samples, rng)
    if given.only != "curves":
        slopes(given.samples, rng)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
