"""Cost of one cell of the kernel `memory`: CPU seconds and memory beside the kernel's estimates.

python benchmarks/memory.py --sizes 400 2000 --load 0.3
python benchmarks/memory.py --sizes 2000 --load 0.3 --rules daydreaming --duration 0.125
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.kernels.memory import AXES, RULES


def measure(rule: str, N: int, load: float, duration: float) -> str:
    kernel = load_kernel("memory", (), {"duration": duration})
    cell = AXES.cell(rule=rule, alpha_D=0.0, beta=1.0, tau=16.0, alpha=load, N=N, seed=0)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    values = kernel.compute(cell, cell_rng(1, cell)).values
    seconds = time.process_time() - start
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    costs = f"{seconds:8.2f} s, estimate {kernel.seconds(cell):8.2f}; {megabytes:5.0f} MB, estimate "
    costs += f"{kernel.peak_bytes(cell) / 1e6:5.0f}"
    found = f"mean stability {values['stability_mean']:.4f}, residual {values['residual']:.1e}"
    return f"{rule:18} N = {N:5d}: {costs}; {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--rules", choices=RULES, nargs="+", default=RULES)
    parser.add_argument("--load", type=float, default=0.3)
    parser.add_argument("--duration", type=float, default=1.0, help="of Daydreaming, in units of tau epochs")
    given = parser.parse_args()
    for N in given.sizes:
        for rule in given.rules:  # each in a process of its own, whose peak of memory is that of the cell
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(pool.apply(measure, (rule, N, given.load, given.duration)), flush=True)


if __name__ == "__main__":
    main()
