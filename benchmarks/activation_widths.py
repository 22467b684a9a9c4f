"""How thresholds of wide students approach those of infinite width, for several activations; p_star = 1.

    python benchmarks/activation_widths.py --numbers build/activation-widths.json

prints three tables as Markdown. The first has alpha_bbp at finite p, its extrapolation by 1/p, and both
limits: N before p (p = inf), and p before N (typical). The second has the load at which the theory of M drawn
samples has an outlier, about what Hessians of N = M/alpha show. The third has sampled Hessians below both
limits and between them, and the overlap in the theory of their own samples. Numbers that the JSON file has
already are not computed again.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from activations import Numbers

from bendscape.core.activations.activation import Network
from bendscape.core.activations.published import typical_threshold
from bendscape.core.activations.quadrature import WIDEST
from bendscape.core.activations.sampling import observe, weigh
from bendscape.core.activations.theory import even_transition, sample_transition

CASES = (
    ("quadratic", "quadratic", 1.0),
    ("log_cosh", "quadratic", 0.1),
    ("log_cosh", "quadratic", 1.0),
    ("sqrt", "quadratic", 1.0),
    ("gauss", "quadratic", 0.5),
    ("gauss", "quadratic", 1.0),
    ("log_cosh", "log_cosh", 1.0),
    ("sqrt", "sqrt", 1.0),
    ("gauss", "gauss", 1.0),
    ("gauss", "gauss", 5.0),
    ("quadratic", "gauss", 1.0),
    ("log_cosh", "gauss", 1.0),
)
WIDTHS = (8, 16, 32)
DRAWN = (("gauss", "gauss", 1.0), ("gauss", "quadratic", 0.5))
DRAWN_WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)
SAMPLES = (3_000, 30_000)
DRAWS = 3
HESSIANS = DRAWN[0]
POINTS = ((8, 1.2), (8, 3.5), (16, 1.2), (16, 3.5))
"""Widths and loads of sampled Hessians."""
SIZES = ((75, 8), (150, 6), (300, 4))
"""N and seeds."""

Case = tuple[str, str, float]


def network_of(case: Case, p: float) -> Network:
    """The network of a case at one width."""
    student, teacher, a = case
    return Network(p, 1, a, student, teacher)


def row(*cells: object) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*cells: str) -> None:
    """Print the head of a table."""
    print()
    row(*cells)
    print("|---" * len(cells) + "|")


def threshold(numbers: Numbers, case: Case, p: float) -> tuple[float, float]:
    """alpha_bbp with its error; nan where there is no theory."""
    if WIDEST < p < math.inf:
        return math.nan, math.nan
    load, error = numbers(f"alpha_bbp {case} {p}", lambda: list(even_transition(network_of(case, p))[::3]))
    return load, error


def drawn(numbers: Numbers, case: Case, p: int, M: int) -> tuple[float, float]:
    """Mean and standard error of the load at which the theory of M samples has an outlier."""

    def make() -> list[float]:
        loads = []
        for seed in range(DRAWS):
            rng = np.random.default_rng([seed, p, M])
            fields, u = rng.standard_normal((p, M)), rng.standard_normal((1, M))
            loads.append(sample_transition(*weigh(network_of(case, p), fields, u)))
        return [float(np.mean(loads)), float(np.std(loads, ddof=1)) / math.sqrt(DRAWS)]

    load, error = numbers(f"drawn {case} {p} {M} {DRAWS}", make)
    return load, error


def sampled(numbers: Numbers, p: int, alpha: float, N: int, seeds: int) -> tuple[float, float, float]:
    """Mean overlap of the lowest p eigenvectors with its standard error, and mean overlap of theory."""

    def make() -> list[float]:
        network = network_of(HESSIANS, p)
        found = [observe(network, alpha, N, np.random.default_rng(seed), "dice") for seed in range(seeds)]
        overlaps = np.array([each.overlap_sq_space for each in found])
        own = np.nan_to_num([each.overlap_sq_sample for each in found])
        return [float(overlaps.mean()), float(overlaps.std(ddof=1) / math.sqrt(seeds)), float(own.mean())]

    overlap, error, own = numbers(f"sampled {HESSIANS} {p} {alpha} {N} {seeds}", make)
    return overlap, error, own


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--numbers", type=Path, help="JSON file of what was computed")
    numbers = Numbers(parser.parse_args().numbers)

    head("student", "teacher", "a", *(f"p = {p}" for p in WIDTHS), "extrapolated", "p = inf", "typical")
    for case in CASES:
        found = [threshold(numbers, case, p) for p in WIDTHS]
        (one, of_one), (two, of_two) = found[-2:]
        found.append((2 * two - one, math.hypot(2 * of_two, of_one)))
        limit = threshold(numbers, case, math.inf)[0], typical_threshold(network_of(case, math.inf))
        row(
            *case, *(f"{load:.4f} ({error:.0e})" for load, error in found), *(f"{load:.4f}" for load in limit)
        )

    head("student", "teacher", "a", "p", "alpha_bbp", *(f"M = {M}" for M in SAMPLES))
    for case in DRAWN:
        for p in DRAWN_WIDTHS:
            found = [drawn(numbers, case, p, M) for M in SAMPLES]
            exact = threshold(numbers, case, p)[0]
            row(*case, p, f"{exact:.2f}", *(f"{load:.2f} ({error:.2f})" for load, error in found))

    head("p", "alpha", *(f"N = {N}" for N, _ in SIZES))
    for p, alpha in POINTS:
        measured = [sampled(numbers, p, alpha, *size) for size in SIZES]
        row(p, alpha, *(f"{overlap:.3f} ({error:.3f}), {own:.3f}" for overlap, error, own in measured))


if __name__ == "__main__":
    main()
