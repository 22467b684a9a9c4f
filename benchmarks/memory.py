"""Cost of one cell of the kernel `memory`: CPU seconds and memory beside the kernel's estimates.

python benchmarks/memory.py --sizes 400 2000 --load 0.3
python benchmarks/memory.py --sizes 2000 --load 0.3 --rules daydreaming --duration 0.125
python benchmarks/memory.py --sizes 64 --load 0.8 --rules daydreaming --tau 64 --duration 8 --seeds 4
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import time

from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.kernels.memory import AXES, RULES


def measure(rule: str, N: int, load: float, tau: float, duration: float, seed: int) -> str:
    kernel = load_kernel("memory", (), {"duration": duration})
    cell = AXES.cell(rule=rule, alpha_D=0.0, beta=1.0, tau=tau, alpha=load, N=N, seed=seed)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    values = kernel.compute(cell, cell_rng(1, cell)).values
    seconds = time.process_time() - start
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    costs = f"{seconds:8.2f} s, estimate {kernel.seconds(cell):8.2f}; {megabytes:5.0f} MB, estimate "
    costs += f"{kernel.peak_bytes(cell) / 1e6:5.0f}"
    found = f"mean stability {values['stability_mean']:.4f}, residual {values['residual']:.1e}, fixed points "
    found += f"{values['fixed_points']:.3f}, basin {values['basin_overlap']:.3f}"
    return f"{rule:18} N = {N:5d}: {costs}; {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--rules", choices=RULES, nargs="+", default=RULES)
    parser.add_argument("--load", type=float, default=0.3)
    parser.add_argument("--duration", type=float, default=1.0, help="of Daydreaming, in units of tau epochs")
    parser.add_argument("--tau", type=float, default=16.0, help="of Daydreaming")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    for N in given.sizes:
        for rule, seed in itertools.product(given.rules, range(given.seeds)):
            # each in a process of its own, whose peak of memory is that of the cell
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                settings = (rule, N, given.load, given.tau, given.duration, seed)
                print(pool.apply(measure, settings), flush=True)


if __name__ == "__main__":
    main()
