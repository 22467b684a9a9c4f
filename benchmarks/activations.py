"""Maps of the threshold over width and a for several activations, with sampled Hessians beside them.

    python benchmarks/activations.py --numbers build/activations.json --figure docs/activations.svg

prints tables as Markdown, one of thresholds for each student and teacher and one of sampled Hessians, and
draws the figure. Upper row: alpha_bbp(p, a) over alpha_bbp(1, a) by theory;
"typical" is infinite width with the student's output at its mean (p to infinity before N).
Lower row: the mean squared overlap of the lowest p p_star eigenvectors of sampled Hessians at a = 1 beside
theory's m^2. Numbers that the JSON file has already are not computed again.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from bendscape.analysis.estimate.notation import with_error
from bendscape.core.activations.activation import Network
from bendscape.core.activations.published import outliers_of, thresholds_of
from bendscape.core.activations.sampling import observe
from bendscape.core.activations.theory import even_transition
from bendscape.core.errors import ParameterError

STUDENTS = ("quadratic", "log_cosh", "sqrt", "gauss", "softplus")
"""Students of a quadratic teacher."""
ALIKE = ("log_cosh", "sqrt", "gauss")
"""Students of a teacher with the same activation; these have a table only."""
A = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
TYPICAL = "typical"
WIDTHS = (1, 2, 4, 8, math.inf, TYPICAL)
SAMPLED_WIDTHS = (1, 2)
FACTORS = (0.6, 1.3, 2.0, 3.0)
"""Sampled loads, as multiples of alpha_bbp."""
LINE = (1.0001, 1.05, 1.1, 1.2, 1.3, 1.45, 1.6, 1.8, 2.0, 2.3, 2.6, 3.0, 3.2)
"""Loads at which theory's line is drawn, as multiples of alpha_bbp."""
WORST = 0.02
"""Relative error of quadrature above which a threshold is not drawn."""


class Numbers:
    """Numbers by key, kept in a file."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {}

    def __call__(self, key: str, make: Any) -> Any:
        if key not in self.known:
            self.known[key] = make()
            if self.path:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(json.dumps(self.known, indent=0))
        return self.known[key]


def threshold(
    numbers: Numbers, p: float | str, a: float, student: str, teacher: str
) -> tuple[float, float, str]:
    """alpha_bbp, its error and its kind; nan without a theory."""

    def make() -> list[Any]:
        try:
            if isinstance(p, str):
                limit = even_transition(Network(math.inf, 1, a, student, teacher), typical=True)
                return [limit.alpha_bbp, limit.alpha_bbp_error, limit.kind]
            found = thresholds_of(Network(p, 1, a, student, teacher))
        except ParameterError:
            return [math.nan, math.nan, "unknown"]
        return [found.alpha_bbp, found.alpha_bbp_error, found.transition]

    found = numbers(f"threshold {student} {teacher} {p} {a}", make)
    return found[0], found[1], found[2]


def sampled(numbers: Numbers, p: int, student: str, alpha: float, N: int, seeds: int) -> list[float]:
    """Mean and standard error of the outliers' eigenvalue, and of their overlap."""

    def make() -> list[float]:
        network = Network(p, 1, 1.0, student)
        found = [observe(network, alpha, N, np.random.default_rng(seed), "dice") for seed in range(seeds)]
        values = [
            one.eigval_min if p == 1 or student == "softplus" else (one.eigval_min + one.eigval_second) / 2
            for one in found
        ]
        overlaps = [one.overlap_sq_space if student != "softplus" else one.overlap_sq for one in found]
        both = [(np.mean(of), np.std(of, ddof=1) / math.sqrt(seeds)) for of in (values, overlaps)]
        return [float(number) for pair in both for number in pair]

    found: list[float] = numbers(f"sampled {student} {p} {alpha:.6f} {N} {seeds}", make)
    return found


def theory_line(numbers: Numbers, p: int, student: str, load: float) -> list[float]:
    """m^2 at ``LINE`` times the threshold, at a = 1."""

    def make() -> list[float]:
        network = Network(p, 1, 1.0, student)
        return [outliers_of(network, factor * load).overlap_sq for factor in LINE]

    found: list[float] = numbers(f"line {student} {p}", make)
    return found


def text(value: float, error: float) -> str:
    """A number with its error in units of the last digit; four decimals where the error is below these."""
    if math.isnan(value):
        return "–"
    return f"{value:.4f}" if error < 5e-5 else with_error(value, error)


def row(*cells: object) -> None:
    """Print a row of a table."""
    shown = [f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in cells]
    print("| " + " | ".join(shown) + " |", flush=True)


def head(*cells: str, title: str = "") -> None:
    """Print the head of a table, after its title."""
    print(f"\n{title}\n" if title else "")
    row(*cells)
    print("|---" * len(cells) + "|")


def tables(numbers: Numbers, N: int, seeds: int) -> None:
    """Print the thresholds of each student and teacher, and sampled Hessians beside theory."""
    heads = ["typical" if p == TYPICAL else "p = ∞" if p == math.inf else f"p = {p}" for p in WIDTHS]
    for student, teacher in [(name, "quadratic") for name in STUDENTS] + [(name, name) for name in ALIKE]:
        columns: list[list[str]] = []
        for p in WIDTHS:
            found = [threshold(numbers, p, a, student, teacher) for a in A]
            columns.append([text(*of[:2]) + (" d" if of[2] == "discontinuous" else "") for of in found])
        if columns[-1] == columns[-2]:  # the order of the limits does not matter
            columns.pop()
        kept = [k for k, column in enumerate(columns) if set(column) != {"–"}]
        head("a", *(heads[k] for k in kept), title=f"`{student}` student, `{teacher}` teacher:")
        for i, a in enumerate(A):
            row(a, *(columns[k][i] for k in kept))
    head("student", "p", "α/α_BBP", "λ_*", "sampled", "m²", "sampled")
    for student in STUDENTS:
        for p in SAMPLED_WIDTHS:
            load, _, _ = threshold(numbers, p, 1.0, student, "quadratic")
            for factor in FACTORS[1:]:
                theory = outliers_of(Network(p, 1, 1.0, student), factor * load)
                value, error, overlap, of_overlap = sampled(numbers, p, student, factor * load, N, seeds)
                measured = with_error(value, error), with_error(overlap, of_overlap)
                row(
                    student, p, factor, f"{theory.lambda_star:.3f}", measured[0],
                    f"{theory.overlap_sq:.3f}", measured[1],
                )  # fmt: skip


def draw(numbers: Numbers, path: Path, N: int, seeds: int) -> None:
    """The figure."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "bendscape"
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(2, len(STUDENTS), figsize=(14, 6.2), layout="constrained")
    for k, student in enumerate(STUDENTS):
        at = np.array([[threshold(numbers, p, a, student, "quadratic")[:2] for a in A] for p in WIDTHS])
        kinds = [[threshold(numbers, p, a, student, "quadratic")[2] for a in A] for p in WIDTHS]
        good = at[:, :, 1] <= WORST * at[:, :, 0]
        ratio = np.where(good, at[:, :, 0] / at[0, :, 0], math.nan)
        image = rows[0, k].imshow(
            np.log2(ratio), cmap="RdBu_r", vmin=-1, vmax=1, origin="lower", aspect="auto"
        )
        for i, j in np.argwhere(good):
            text = f"{at[i, j, 0]:.2f}{'' if kinds[i][j] == 'continuous' else '*'}"
            dark = abs(math.log2(ratio[i, j])) > 0.6
            rows[0, k].text(
                j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black"
            )
        rows[0, k].set_xticks(range(len(A)), [f"{a:g}" for a in A])
        rows[0, k].set_yticks(range(len(WIDTHS)), ["∞" if p == math.inf else p for p in WIDTHS])
        rows[0, k].set(title=student.replace("_", " "), xlabel="a", ylabel="p" if not k else "")
        for p, colour in zip(SAMPLED_WIDTHS, ("tab:blue", "tab:orange"), strict=True):
            load = float(at[WIDTHS.index(p), A.index(1.0), 0])
            line = theory_line(numbers, p, student, load)
            rows[1, k].plot([0.5, 1, *LINE], [0, 0, *line], color=colour)
            points = [sampled(numbers, p, student, factor * load, N, seeds) for factor in FACTORS]
            rows[1, k].errorbar(
                FACTORS, [of[2] for of in points], [of[3] for of in points], fmt="o", ms=4, color=colour,
                label=f"p = {p}",
            )  # fmt: skip
        rows[1, k].set(xlabel="α / α_BBP", ylabel="m²" if not k else "", ylim=(0, 1), xlim=(0.5, 3.2))
    rows[1, 0].legend(frameon=False)
    bar = figure.colorbar(image, ax=rows[0, :], ticks=[-1, 0, 1], pad=0.01)
    bar.ax.set_yticklabels(["half", "1", "twice"])
    bar.set_label("α_BBP(p, a) / α_BBP(1, a)")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Print the tables, and draw the figure if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--numbers", type=Path, help="JSON file of what was computed")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--N", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=6)
    given = parser.parse_args()
    numbers = Numbers(given.numbers)
    tables(numbers, given.N, given.seeds)
    if given.figure:
        draw(numbers, given.figure, given.N, given.seeds)


if __name__ == "__main__":
    main()
