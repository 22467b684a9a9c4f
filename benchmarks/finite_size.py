"""Samples of finite size compared with the parameter-free laws: docs/finite-size.svg and the numbers of its
page.

    python benchmarks/finite_size.py              # samples (about 15 minutes on one core), then draws
    python benchmarks/finite_size.py --draw       # draws again from finite_size.json
    python benchmarks/finite_size.py --largest N  # with samples up to N only: two minutes for N = 512
    python benchmarks/finite_size.py --far        # both laws far below the threshold: two minutes
    python benchmarks/finite_size.py --memory     # peak memory of the conditional method at N = 1e5, 1e6, 1e7

One continuous and one discontinuous model. Eigenvalues and overlaps come from sampled Hessians of N = 2^7 to
2^14; for N up to 2^18 the conditional method gives edge or outlier from drawn labels.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from bendscape.analysis.figures.style import THEORY, THRESHOLD, size_colours, style
from bendscape.core import Model, alpha_bbp_at_size, asymptotics, crossover_size, transition
from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.sampling.observe import observe

HERE = Path(__file__).parent
NUMBERS, FIGURE = HERE / "finite_size.json", HERE.parent / "docs" / "finite-size.svg"
CONTINUOUS, DISCONTINUOUS = Model(1, 1, 0.7), Model(1, 1, 1.5)
EIGENVALUE_LOADS = {CONTINUOUS: (0.8, 2.5), DISCONTINUOUS: (0.8, 2.5)}
EIGENVALUE_SEEDS = {128: 400, 256: 320, 512: 240, 1024: 160, 2048: 120, 4096: 80, 8192: 50, 16384: 40}
FEWEST = 20  # cells needed to draw a standard deviation
CONDITIONAL_SEEDS = {2**14: 60, 2**16: 40, 2**18: 20}
OVERLAP_LOADS = {
    CONTINUOUS: (0.7, 0.95, 1.1, 1.2434, 1.4, 1.7, 2.1),
    DISCONTINUOUS: (0.7, 0.9, 1.0964, 1.25, 1.3745, 1.6, 2.1),
}
OVERLAP_SEEDS = {128: 400, 1024: 160, 16384: 24}
FAR_MODELS = (
    Model(1, 1, 0.7),
    Model(1, 1, 1.5),
    Model(1, 2, 3.0),
    Model(2, 1, 0.7),
    Model(2, 2, 1.5),
    Model(4, 1, 1.5),
)
FAR_LOADS, FAR_SIZES, FAR_SEEDS = (0.3, 0.5, 1.0), (64, 256), 200
CLIMBERS = (DISCONTINUOUS, Model(4, 1, 0.7), Model(2, 1, 1.5), Model(4, 2, 1.5))


def mean_and_error(values: Any) -> dict[str, float]:
    """Mean, its standard error and the standard deviation."""
    array = np.array(values)
    sd = float(array.std(ddof=1))
    return {"mean": float(array.mean()), "error": sd / math.sqrt(len(array)), "sd": sd}


def sample(largest: int) -> list[dict[str, Any]]:
    """Measure every point of the figure up to a size, and all points from drawn labels."""
    rows: list[dict[str, Any]] = []

    def cells(model: Model, alpha: float, N: int, seeds: int, method: str) -> list[Any]:
        return [
            observe(model, alpha, N, np.random.default_rng((2026, N, seed)), method) for seed in range(seeds)
        ]

    def add(what: str, model: Model, alpha: float, N: int, seeds: int, **values: Any) -> None:
        rows.append({"what": what, "a": model.a, "alpha": alpha, "N": N, "seeds": seeds, **values})
        sys.stderr.write(f"{rows[-1]}\n")

    for model, loads in EIGENVALUE_LOADS.items():
        for alpha in loads:
            for N, seeds in up_to(EIGENVALUE_SEEDS, largest).items():
                seen = cells(model, alpha, N, seeds, "auto")
                add("eigval_min", model, alpha, N, seeds, **mean_and_error([c.eigval_min for c in seen]))
            for N, seeds in CONDITIONAL_SEEDS.items():
                labels = [
                    c.edge_sample if math.isnan(c.outlier_sample) else c.outlier_sample
                    for c in cells(model, alpha, N, seeds, "conditional")
                ]
                add("conditional", model, alpha, N, seeds, **mean_and_error(labels))
    for model, loads in OVERLAP_LOADS.items():
        for alpha in loads:
            for N, seeds in up_to(OVERLAP_SEEDS, largest).items():
                overlaps = [c.overlap_sq_space for c in cells(model, alpha, N, seeds, "auto")]
                add("overlap_sq_space", model, alpha, N, seeds, **mean_and_error(overlaps))
    return rows


def up_to(seeds: dict[int, int], largest: int) -> dict[int, int]:
    """The sizes up to ``largest``."""
    return {N: number for N, number in seeds.items() if largest >= N}


def far_below() -> None:
    """Print samples and laws at small loads, where a few extreme labels decide."""
    print(
        "| p | p* | a | α | N | overlap | law | law/overlap - 1 | (eigenvalue - law)/sd | accuracy/sd "
        "| law's sd/sd - 1 |"
    )
    print("|---" * 11 + "|")
    for model in FAR_MODELS:
        for alpha in FAR_LOADS:
            for N in FAR_SIZES:
                seen = [
                    observe(model, alpha, N, np.random.default_rng((31, seed))) for seed in range(FAR_SEEDS)
                ]
                overlap = mean_and_error([c.overlap_sq_space for c in seen])
                place = mean_and_error([c.eigval_min for c in seen])
                expected, law = mean_overlap_sq(model, alpha, N), lowest_eigenvalue_law(model, alpha, N)
                print(
                    f"| {model.p} | {model.p_star} | {model.a:g} | {alpha:g} | {N} | "
                    f"{overlap['mean']:.4f}({overlap['error']:.4f}) | {expected:.4f} | "
                    f"{expected / overlap['mean'] - 1:+.2f}({overlap['error'] / overlap['mean']:.2f}) | "
                    f"{(place['mean'] - law.mean) / place['sd']:+.2f}({1 / math.sqrt(FAR_SEEDS):.2f}) | "
                    f"{law.accuracy / place['sd']:.2f} | "
                    f"{law.sd / place['sd'] - 1:+.2f}({1 / math.sqrt(2 * FAR_SEEDS):.2f}) |",
                    flush=True,
                )


def compare(rows: list[dict[str, Any]]) -> None:
    """Compute the law for every measured row, and print the table of the page."""
    print("| what | a | alpha | N | cells | mean | law | sd | law |\n|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        model = Model(1, 1, row["a"])
        law = lowest_eigenvalue_law(model, row["alpha"], row["N"])
        if row["what"] == "overlap_sq_space":
            row["law_mean"], row["law_sd"] = mean_overlap_sq(model, row["alpha"], row["N"]), math.nan
        elif row["what"] == "eigval_min":
            row["law_mean"], row["law_sd"] = law.mean, law.sd
        else:
            row["law_mean"], row["law_sd"] = math.nan, law.sd_labels
        print(
            f"| {row['what']} | {row['a']:g} | {row['alpha']:g} | {row['N']} | {row['seeds']} | "
            f"{row['mean']:.4f}({row['error']:.4f}) | {row['law_mean']:.4f} | {row['sd']:.4f} | "
            f"{row['law_sd']:.4f} |"
        )


def draw(rows: list[dict[str, Any]]) -> None:
    """Write the figure."""
    with style():
        figure = Figure(figsize=(10.5, 6.2), layout="constrained")
        axes = figure.subplots(2, 3)
        for column, model in enumerate((CONTINUOUS, DISCONTINUOUS)):
            draw_eigenvalues(axes[0, column], model, rows)
            draw_overlaps(axes[1, column], model, rows)
        draw_spread(axes[0, 2], rows)
        draw_climb(axes[1, 2])
        figure.savefig(FIGURE, metadata={"Date": None})


def draw_eigenvalues(ax: Any, model: Model, rows: list[dict[str, Any]]) -> None:
    """Mean and spread of the lowest eigenvalue against N."""
    sizes = np.geomspace(100, 3e5, 60)
    for alpha, colour in zip(EIGENVALUE_LOADS[model], size_colours(2), strict=True):
        laws = [lowest_eigenvalue_law(model, alpha, N) for N in sizes]
        mean, sd = np.array([law.mean for law in laws]), np.array([law.sd for law in laws])
        ax.fill_between(sizes, mean - sd, mean + sd, color=colour, alpha=0.18, lw=0)
        ax.plot(sizes, mean, color=colour, label=f"α = {alpha:g}")
        for what, filled in (("eigval_min", colour), ("conditional", "white")):
            seen = [r for r in rows if (r["what"], r["a"], r["alpha"]) == (what, model.a, alpha)]
            ax.errorbar(
                [r["N"] for r in seen], [r["mean"] for r in seen], [r["sd"] for r in seen],
                fmt="o", color=colour, mfc=filled, lw=0.9, capsize=2,
            )  # fmt: skip
        theory = asymptotics(model, alpha)
        limit = theory.lambda_minus if math.isnan(theory.lambda_star) else theory.lambda_star
        ax.axhline(limit, color=colour, ls=":", lw=0.8)
    ax.set_xscale("log")
    ax.set_xlabel("N")
    ax.set_ylabel("lowest eigenvalue, mean ± sd")
    ax.set_title(f"p = p* = 1, a = {model.a:g}: {transition(model).kind}")
    ax.legend(loc="lower right")


def draw_overlaps(ax: Any, model: Model, rows: list[dict[str, Any]]) -> None:
    """Mean overlap against alpha."""
    loads = np.linspace(0.6, 2.2, 120)
    sizes = [*OVERLAP_SEEDS, 10**5, 10**9]
    for N, colour in zip(sizes, size_colours(len(sizes)), strict=True):
        ax.plot(
            loads, [mean_overlap_sq(model, alpha, N) for alpha in loads], color=colour, label=f"N = {N:g}"
        )
        seen = [r for r in rows if (r["what"], r["a"], r["N"]) == ("overlap_sq_space", model.a, N)]
        if seen:
            ax.errorbar(
                [r["alpha"] for r in seen], [r["mean"] for r in seen], [r["error"] for r in seen],
                fmt="o", color=colour, lw=0.9,
            )  # fmt: skip
    limit = [asymptotics(model, alpha).overlap_sq for alpha in loads]
    ax.plot(loads, np.nan_to_num(limit), color=THEORY, ls=":", lw=0.9, label="N = ∞")
    ax.axvline(transition(model).alpha_bbp, color=THRESHOLD, lw=0.7)
    ax.set_xlabel("α")
    ax.set_ylabel("mean squared overlap")
    ax.legend(loc="upper left")


def draw_spread(ax: Any, rows: list[dict[str, Any]]) -> None:
    """Measured over predicted standard deviation."""
    for model, colour in zip((CONTINUOUS, DISCONTINUOUS), size_colours(2), strict=True):
        for what, filled in (("eigval_min", colour), ("conditional", "white")):
            for alpha, marker in zip(EIGENVALUE_LOADS[model], "os", strict=True):
                seen = [
                    r
                    for r in rows
                    if (r["what"], r["a"], r["alpha"]) == (what, model.a, alpha) and r["seeds"] >= FEWEST
                ]
                label = f"a = {model.a:g}, α = {alpha:g}" if what == "eigval_min" else None
                ax.errorbar(
                    [r["N"] for r in seen],
                    [r["sd"] / r["law_sd"] for r in seen],
                    [r["sd"] / r["law_sd"] / math.sqrt(2 * r["seeds"]) for r in seen],
                    fmt=marker, color=colour, mfc=filled, lw=0.9, label=label,
                )  # fmt: skip
    ax.axhline(1, color=THEORY, lw=0.8)
    ax.set_xscale("log")
    ax.set_xlabel("N")
    ax.set_ylabel("sd measured / sd of the law")
    ax.set_title("filled: eigenvalue; open: labels alone")
    ax.set_ylim(0.5, 1.5)
    ax.legend(loc="lower right")


def draw_climb(ax: Any) -> None:
    """The threshold that samples show, relative to alpha_bbp."""
    sizes = np.geomspace(1e2, 1e24, 90)
    for model, colour in zip(CLIMBERS, size_colours(len(CLIMBERS)), strict=True):
        alpha_bbp = transition(model).alpha_bbp
        climb = [alpha_bbp_at_size(model, N) / alpha_bbp for N in sizes]
        ax.plot(sizes, climb, color=colour, label=f"p = {model.p}, p* = {model.p_star}, a = {model.a:g}")
        ax.axvline(crossover_size(model), color=colour, ls=":", lw=0.7)
    ax.axhline(1, color=THRESHOLD, lw=0.7)
    ax.set_xscale("log")
    ax.set_xlabel("N")
    ax.set_ylabel("α_BBP(N) / α_BBP")
    ax.legend(loc="lower right")


def memory() -> None:
    """Peak memory of a process that runs one conditional cell, by size."""
    for N in (10**5, 10**6, 10**7):
        script = (
            "import resource, numpy as np; from bendscape.core.quadratic.sampling.observe import observe; "
            "from bendscape.core import Model; "
            f"observe(Model(1, 1, 1.5), 1.6, {N}, np.random.default_rng(0), 'conditional'); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        started = time.perf_counter()
        peak = subprocess.check_output([sys.executable, "-c", script], text=True)
        print(f"N = {N:.0e}: peak {int(peak) / 1024:.0f} MiB, {time.perf_counter() - started:.1f} s")


def main() -> None:
    """Sample, compare, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--far", action="store_true")
    parser.add_argument("--largest", type=int, default=max(EIGENVALUE_SEEDS))
    chosen = parser.parse_args()
    if chosen.far:
        with threadpool_limits(1):
            far_below()
        return
    if chosen.memory:
        memory()
        return
    if not chosen.draw:
        with threadpool_limits(1):
            NUMBERS.write_text(json.dumps(sample(chosen.largest), indent=1))
    rows = json.loads(NUMBERS.read_text())
    compare(rows)
    draw(rows)


if __name__ == "__main__":
    main()
