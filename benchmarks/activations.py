"""Thresholds of even networks against the width, with sampled Hessians beside them, as Markdown.

For each student and teacher, alpha_bbp(p, a) by theory; then, at a = 1 and twice the threshold, the mean of
the lowest p eigenvalues and of their overlaps over seeds of an explicit Hessian, beside lambda_* and m^2.
Standard errors in parentheses.
"""

from __future__ import annotations

import argparse

import numpy as np

from bendscape.core.activations.activation import Network
from bendscape.core.activations.sampling import lowest_pairs
from bendscape.core.activations.theory import even_spectrum, even_transition

PAIRS = (
    ("quadratic", "quadratic"),
    ("log_cosh", "quadratic"),
    ("sqrt", "quadratic"),
    ("gauss", "quadratic"),
    ("log_cosh", "log_cosh"),
    ("sqrt", "sqrt"),
    ("gauss", "gauss"),
)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--a", type=float, nargs="+", default=[0.3, 1.0, 2.0])
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--N", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=12)
    given = parser.parse_args()
    thresholds: dict[tuple[str, str, int, float], float] = {}
    print("| student | teacher | a | " + " | ".join(f"p = {p}" for p in given.widths) + " |")
    print("|---" * (3 + len(given.widths)) + "|")
    for student, teacher in PAIRS:
        for a in given.a:
            shown = []
            for p in given.widths:
                found = even_transition(Network(p, 1, a, student, teacher))
                thresholds[student, teacher, p, a] = found.alpha_bbp
                shown.append(f"{found.alpha_bbp:.4f} ({found.alpha_bbp_error:.0e}) {found.kind[0]}")
            print(f"| {student} | {teacher} | {a:g} | " + " | ".join(shown) + " |", flush=True)
    print("\n| student | teacher | p | alpha | lambda_* | sampled | m^2 | sampled |\n" + "|---" * 8 + "|")
    for student, teacher in PAIRS:
        for p in (p for p in given.widths if p < 3):
            network = Network(p, 1, 1.0, student, teacher)
            threshold = thresholds.get((student, teacher, p, 1.0), np.nan)
            if np.isnan(threshold):
                continue
            alpha = round(2 * threshold, 2)
            theory = even_spectrum(network, alpha)
            seeds = range(given.seeds)
            pairs = [lowest_pairs(network, alpha, given.N, np.random.default_rng(seed)) for seed in seeds]
            values = np.array([pair.eigvals[:p].mean() for pair in pairs])
            overlaps = np.array([pair.overlaps_sq[:p].mean() for pair in pairs])
            error = len(pairs) ** -0.5
            print(
                f"| {student} | {teacher} | {p} | {alpha:g} | {theory.lambda_star:.3f} | "
                f"{values.mean():.3f} ({values.std(ddof=1) * error:.3f}) | {theory.overlap_sq:.3f} | "
                f"{overlaps.mean():.3f} ({overlaps.std(ddof=1) * error:.3f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
