"""Does the verdict on a training by Daydreaming hold? Trainings of increasing length beside the longest.

python benchmarks/daydreaming.py --N 64 --load 0.3 0.8 --tau 16 --longest 64 --seeds 0
"""

from __future__ import annotations

import argparse
import copy
import itertools

import numpy as np

from bendscape.core.memory.daydreaming import daydream
from bendscape.core.memory.dynamics import is_fixed
from bendscape.core.memory.patterns import FloatArray, draw
from bendscape.core.memory.retrieval import basin_overlap, retrieval_map, stabilities
from bendscape.core.numerics.threads import on_one_thread

OVERLAPS = tuple(k / 10 for k in range(1, 11))


def recalled(couplings: FloatArray, patterns: FloatArray) -> str:
    """Share of fixed points, basin (three corrupted states of each pattern), and the smallest stability of a
    pattern over the mean one, averaged over patterns."""
    basins = []
    for seed in range(3):
        ended = retrieval_map(couplings, patterns[:48], OVERLAPS, np.random.default_rng(seed)).final_overlap
        basins.append(basin_overlap(OVERLAPS, (ended >= 0.9).mean(axis=1)))
    stability = stabilities(couplings, patterns)
    smallest = stability.min(axis=1).mean() / stability.mean()
    found = f"fixed points {is_fixed(couplings, patterns).mean():.3f}, basin {np.mean(basins):.3f}"
    return f"{found}, smallest stability {smallest:.3f}"


@on_one_thread
def compare(N: int, load: float, alpha_D: float, tau: float, longest: int, seed: int) -> None:
    rng = np.random.default_rng([seed, N])
    patterns = draw(load, N, rng, alpha_D=alpha_D).stored
    durations = [2**k for k in range(longest.bit_length())]
    found = [daydream(patterns, tau, copy.deepcopy(rng), duration=duration) for duration in durations]
    units = [of.couplings / np.linalg.norm(of.couplings) for of in found]
    for duration, of, unit in zip(durations, found, units, strict=True):
        left = np.linalg.norm(unit - units[-1])
        print(
            f"N = {N}, load {load}, tau = {tau:g}, seed {seed}, duration {duration:3}: residual "
            f"{of.drift:.3f}, distance from the longest {left:.3f}, {recalled(of.couplings, patterns)}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--N", type=int, default=64)
    parser.add_argument("--load", type=float, nargs="+", default=[0.3, 0.8])
    parser.add_argument("--alpha-D", type=float, default=0.0)
    parser.add_argument("--tau", type=float, nargs="+", default=[16.0])
    parser.add_argument("--longest", type=int, default=64, help="longest training, a power of 2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    for load, tau, seed in itertools.product(given.load, given.tau, given.seeds):
        compare(given.N, load, given.alpha_D, tau, given.longest, seed)


if __name__ == "__main__":
    main()
