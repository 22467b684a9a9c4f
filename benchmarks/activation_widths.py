"""How thresholds of wide students approach those of infinite width, for several activations; p_star = 1.

    python benchmarks/activation_widths.py --numbers build/activation-widths.json

prints tables as Markdown. The first two, for the quadratic teacher and for others, have alpha_bbp at finite
p, its extrapolation by 1/p, and the limit of N before p. The next has the limit of p before N (typical) where
it is another one. Then come the load at which the theory of M drawn samples has an outlier, about what
Hessians of N = M/alpha show; and sampled Hessians below both limits and between them, with the overlap in the
theory of their own samples. Numbers that the JSON file has already are not computed again.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from activations import Numbers, head, row, text

from bendscape.analysis.estimate.notation import with_error
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
)
WIDTHS = (8, 16, 32)
DRAWN = (("gauss", "gauss", 1.0), ("gauss", "quadratic", 0.5))
DRAWN_WIDTHS = (1, 2, 4, 8, 16, 32, 64)
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

    limits = {case: threshold(numbers, case, math.inf)[0] for case in CASES}
    columns = (*(f"p = {p}" for p in WIDTHS), "from 16, 32", "p = ∞")
    for square in (True, False):
        head("student" if square else "student, teacher", "a", *columns)
        for case in CASES:
            if (case[1] == "quadratic") == square:
                found = [threshold(numbers, case, p) for p in WIDTHS]
                (one, of_one), (two, of_two) = found[-2:]
                found.append((2 * two - one, math.hypot(2 * of_two, of_one)))
                shown = [*(text(*of) for of in found), text(limits[case], 0.0)]
                row(case[0] if square else ", ".join(case[:2]), case[2], *shown)

    head("student", "teacher", "a", "p = ∞", "typical")
    for case in CASES:
        shown = [text(of, 0.0) for of in (limits[case], typical_threshold(network_of(case, math.inf)))]
        if shown[0] != shown[1]:
            row(*case, *shown)

    for case in DRAWN:
        title = f"`{case[0]}` student, `{case[1]}` teacher, a = {case[2]:g}:"
        head("p", "α_BBP", *(f"M = {M}" for M in SAMPLES), title=title)
        for p in DRAWN_WIDTHS:
            of_samples = [with_error(*drawn(numbers, case, p, M)) for M in SAMPLES]
            row(p, f"{threshold(numbers, case, p)[0]:.2f}", *of_samples)

    head("p", "α", "N", "overlap", "theory of its samples")
    for p, alpha in POINTS:
        for N, seeds in SIZES:
            overlap, error, own = sampled(numbers, p, alpha, N, seeds)
            row(p, alpha, N, with_error(overlap, error), f"{own:.3f}")


if __name__ == "__main__":
    main()
