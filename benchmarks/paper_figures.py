"""The figures of arXiv:2510.18435 by number, at loads, sizes and constants a of our own choice.

    python benchmarks/paper_figures.py figures/paper             # all: some ten CPU minutes
    python benchmarks/paper_figures.py figures/paper --only 2 6  # thresholds alone: seconds

writes paper-1, -2, -3, -4, -6, -7, -8, each as .svg with its numbers as .csv, and prints where the curves of
figure 3 cross. What each figure shows is known from the captions of the published version; its values of a
and N are not. Figures 9 and 10 follow descents: docs/descent.md. docs/paper-3.svg and -8.svg are copies.
Every cell has the seed (number of the figure, N, p, place of the load, realisation); the two panels of a
figure share them.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_expit
from scipy.stats import chi2
from threadpoolctl import threadpool_limits

from bendscape.analysis.estimate.half_success import rate_interval
from bendscape.analysis.figures.style import (
    DASHED,
    DOTTED,
    FAINT,
    INK,
    THRESHOLD,
    plain_logarithmic,
    size_colours,
    size_looks,
    small_multiples,
    style,
)
from bendscape.analysis.figures.theory_map import theory_map
from bendscape.core import Model, alpha_0, asymptotics, transition
from bendscape.core.activations.activation import Network
from bendscape.core.activations.quadrature import trapezoid
from bendscape.core.activations.sampling import observe as observe_network
from bendscape.core.activations.weight import least_weight, weight_of
from bendscape.core.quadratic.sampling.hessian import dense_hessian, sample_instance
from bendscape.core.quadratic.sampling.observe import observe

Rows = list[dict[str, Any]]
Drawn = tuple[Figure, Rows]

CONTINUOUS, DISCONTINUOUS = THRESHOLD, "#2f5fa8"
WIDTHS = [1, 2, 4, 8, 16, 32, 64]
ALPHA_0 = "alpha_0_principal_value"

OVERLAP_MODELS = (Model(2, 1, 0.3), Model(2, 1, 1.5))
OVERLAP_SEEDS = {512: 48, 1024: 32}
OVERLAP_FACTORS = (0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.6, 2.0, 2.5)

LOWEST_LOADS = {
    Model(1, 1, 0.3): (0.4, 0.7, 1.0, 1.3, 1.5, 1.7, 1.9, 2.2, 2.6, 3.0, 3.5),
    Model(1, 1, 1.5): (0.2, 0.4, 0.6, 0.8, 1.0, 1.15, 1.3, 1.5, 1.8, 2.2, 2.6),
}
LOWEST_SEEDS = {64: 2400, 128: 1600, 256: 800, 512: 240}
FITTED = 0.5
"""Relative distance from alpha_bbp of the loads from which the crossing of sizes is read."""

NETWORKS = {"sigmoid": 1.0, "tanh": 50.0}
NETWORK_LOADS = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 16.0)
NETWORK_SEEDS = {(1, 128): 48, (1, 512): 24, (2, 256): 24}


def seeded(*key: int) -> np.random.Generator:
    """Random numbers of one cell."""
    return np.random.default_rng(key)


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    array = np.array(list(values))
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array)))


def root(mean: float, error: float) -> tuple[float, float]:
    """m from the mean of m^2, with its error."""
    m = math.sqrt(mean)
    return m, error / (2 * m)


def kinds(ds: xr.Dataset) -> Any:
    """Whether each transition of a map is continuous."""
    return ds["transition"].values == ds["transition"].attrs["flag_meanings"].split().index("continuous")


def rows_of(ds: xr.Dataset) -> Rows:
    """The models of a map, one a row."""
    names = [name for name in ("alpha_bbp", "alpha_bbp_error", ALPHA_0, "alpha_0_complex_re") if name in ds]
    frame = ds[[*names, "a_tricritical"]].to_dataframe().reset_index()
    frame["transition"] = np.where(kinds(ds).ravel(), "continuous", "discontinuous")
    return list(frame.drop(columns="noise").to_dict("records"))


def overlap_against_load() -> Drawn:
    """Figure 1: m against alpha at p = 2, by theory and by sampled Hessians."""
    rows: Rows = []
    figure, panels = small_multiples(len(OVERLAP_MODELS))
    for axes, model in zip(panels, OVERLAP_MODELS, strict=True):
        at = transition(model)
        factors = 1 + np.geomspace(1e-3, 1.6, 120)
        line = [math.sqrt(above(model, float(factor * at.alpha_bbp))) for factor in factors]
        axes.plot(
            at.alpha_bbp * np.array([0.4, 1, 1, *factors]), [0, 0, math.sqrt(at.overlap_sq_jump), *line],
            color=INK, label="theory",
        )  # fmt: skip
        axes.axvline(at.alpha_bbp, color=THRESHOLD, linewidth=0.8, label=r"$\alpha_{\rm BBP}$")
        if at.kind == "discontinuous":
            axes.axvline(alpha_0(model).principal_value, color=FAINT, linestyle=DASHED, label=r"$\alpha_0$")
        looks = size_looks(OVERLAP_SEEDS)
        for N, seeds in OVERLAP_SEEDS.items():
            of_size: Rows = []
            for place, factor in enumerate(OVERLAP_FACTORS):
                alpha = factor * at.alpha_bbp
                seen = [observe(model, alpha, N, seeded(1, N, model.p, place, k)) for k in range(seeds)]
                mean, error = mean_and_error(cell.overlap_sq_space for cell in seen)
                m, m_error = root(mean, error)
                of_size.append(
                    {
                        "p": model.p, "p_star": model.p_star, "a": model.a, "alpha": alpha, "N": N,
                        "cells": seeds, "overlap_sq_space": mean, "overlap_sq_space_error": error, "m": m,
                        "m_error": m_error, "m_theory": math.sqrt(above(model, alpha)),
                        "alpha_bbp": at.alpha_bbp, "transition": at.kind,
                    }
                )  # fmt: skip
            draw_rows(axes, of_size, "m", "m_error", looks[N])
            rows += of_size
        axes.set_xlabel(r"$\alpha$")
        axes.set_ylabel(r"overlap $m$")
        axes.set_ylim(0, 1)
        axes.set_title(f"$p = {model.p}$, $p^* = {model.p_star}$, $a = {model.a:g}$: {at.kind}")
    panels[-1].legend()
    return figure, rows


def above(model: Model, alpha: float) -> float:
    """Theory's m^2, zero below the threshold."""
    return float(np.nan_to_num(asymptotics(model, alpha).overlap_sq))


def draw_rows(axes: Any, rows: Rows, name: str, error: str, look: Any) -> None:
    """Points of one size with their errors."""
    axes.errorbar(
        [row["alpha"] for row in rows], [row[name] for row in rows], [row[error] for row in rows],
        linestyle="none", elinewidth=0.9, **look,
    )  # fmt: skip


def threshold_against_a(p_star: int, limits: tuple[float, float]) -> Drawn:
    """Figures 2 and 6: alpha_bbp against a for several p, and against p at three a."""
    figure, (main, *small) = small_multiples(4)
    a = np.linspace(*limits, 301)
    at = theory_map(p=[1, 2, 4, 8, 16], p_star=[p_star], a=a.tolist(), alpha_0=False).isel(p_star=0)
    rows = rows_of(at)
    for p, colour in zip(at["p"].values, size_colours(at.sizes["p"]), strict=True):
        of_p = at.sel(p=p)
        main.plot(a, of_p["alpha_bbp"], color=colour, label=f"$p = {p:g}$")
        turn = float(of_p["a_tricritical"])
        main.plot(turn, transition(Model(int(p), p_star, turn)).alpha_bbp, "o", color=colour)
    main.plot(a, p_star * (a + 1) / 2, color=INK, linestyle=DASHED, label=r"$p \to \infty$: $p^*(a + 1)/2$")
    main.set_ylim(0, 1.45 * float(at["alpha_bbp"].max()))
    main.set_xlabel(r"$a$")
    main.set_ylabel(r"$\alpha_{\rm BBP}$")
    main.set_title(f"$p^* = {p_star}$; points: where the kind changes")
    main.legend(ncols=2, loc="upper right")
    fixed = [0.1, 0.5, 1.0]
    against_p = theory_map(p=WIDTHS, p_star=[p_star], a=fixed).isel(p_star=0)
    for axes, constant in zip(small, fixed, strict=True):
        draw_against_p(axes, against_p.sel(a=constant), p_star)
    small[-1].legend()
    return figure, rows + rows_of(against_p)


def draw_against_p(axes: Any, at: xr.Dataset, p_star: int) -> None:
    """alpha_bbp by its kind and alpha_0, against the width at one a."""
    p, load, continuous = at["p"].values, at["alpha_bbp"].values, kinds(at)
    limit = p_star * (float(at["a"]) + 1) / 2
    axes.axhline(limit, color=INK, linestyle=DASHED, linewidth=0.8)
    axes.plot(p, load, color=FAINT, linewidth=0.8)
    axes.plot(p[continuous], load[continuous], "o", color=CONTINUOUS, label=r"$\alpha_{\rm BBP}$, continuous")
    axes.plot(
        p[~continuous], load[~continuous], "s", color=DISCONTINUOUS,
        label=r"$\alpha_{\rm BBP}$, discontinuous",
    )  # fmt: skip
    axes.plot(
        p[~continuous], at[ALPHA_0].values[~continuous], "x", color=CONTINUOUS, markersize=5,
        label=r"$\alpha_0$, principal value",
    )  # fmt: skip
    axes.set_xscale("log", base=2)
    plain_logarithmic(axes.xaxis, WIDTHS)
    axes.set_ylim(0, 1.1 * load.max())
    axes.set_xlabel(r"$p$")
    axes.set_ylabel(r"$\alpha$")
    axes.set_title(f"$p^* = {p_star}$, $a = {float(at['a']):g}$")


def is_lowest(model: Model, alpha: float, N: int, rng: np.random.Generator) -> bool:
    """Whether the eigenvector with the largest overlap with the signal is that of the lowest eigenvalue."""
    instance = sample_instance(model, alpha, N, rng)
    _, vectors = np.linalg.eigh(dense_hessian(instance))
    return int(instance.teacher_overlap_sq(vectors).argmax()) == 0


def lowest_rows(model: Model, loads: Sequence[float], N: int, cells: int) -> Rows:
    """In how many cells of one size that is so, with Wilson intervals of 95 per cent."""
    at, shown = transition(model), alpha_0(model).principal_value
    rows: Rows = []
    for place, alpha in enumerate(loads):
        seen = sum(is_lowest(model, alpha, N, seeded(3, N, 1, place, k)) for k in range(cells))
        phi, low, high = rate_interval(seen, cells)
        rows.append(
            {
                "p": model.p, "p_star": model.p_star, "a": model.a, "alpha": alpha, "N": N, "cells": cells,
                "lowest": seen, "phi": phi, "phi_low": low, "phi_high": high, "alpha_bbp": at.alpha_bbp,
                ALPHA_0: shown, "transition": at.kind,
            }
        )  # fmt: skip
    return rows


def share_of_lowest() -> Drawn:
    """Figure 3: the share of cells in which the most informative eigenvector is the lowest."""
    rows: Rows = []
    figure, panels = small_multiples(len(LOWEST_LOADS))
    looks = size_looks(LOWEST_SEEDS)
    for axes, (model, loads) in zip(panels, LOWEST_LOADS.items(), strict=True):
        of_model: Rows = []
        for N, cells in LOWEST_SEEDS.items():
            of_size = lowest_rows(model, loads, N, cells)
            phi = np.array([[row[name] for row in of_size] for name in ("phi", "phi_low", "phi_high")])
            axes.errorbar(loads, phi[0], abs(phi[1:] - phi[0]), linewidth=0.8, elinewidth=0.8, **looks[N])
            of_model += of_size
        at = transition(model)
        axes.axvline(at.alpha_bbp, color=DISCONTINUOUS, linewidth=0.9, label=r"$\alpha_{\rm BBP}$")
        if at.kind == "discontinuous":
            shown = alpha_0(model).principal_value
            axes.axvline(shown, color=THRESHOLD, linewidth=0.9, label=r"$\alpha_0$")
        axes.set_xlabel(r"$\alpha$")
        axes.set_ylabel(r"$\phi$")
        axes.set_ylim(0, 1)
        axes.set_title(f"$p = p^* = 1$, $a = {model.a:g}$: {at.kind}")
        print_crossings(of_model)
        rows += of_model
    panels[-1].legend()
    return figure, rows


def print_crossings(rows: Rows) -> None:
    """Where the curves of all sizes cross, and those of two sizes a factor of four apart."""
    near = [row for row in rows if abs(row["alpha"] / row["alpha_bbp"] - 1) <= FITTED]
    first, last = near[0]["alpha"], near[-1]["alpha"]
    for sizes in (tuple(LOWEST_SEEDS), (64, 256), (128, 512)):
        load, low, high, p_value = crossing([row for row in near if row["N"] in sizes])
        where = "" if first <= load <= last else f", which is not within the loads {first:g} to {last:g}"
        print(
            f"a = {rows[0]['a']:g}: N = {sizes} cross at {load:.2f} [{low:.2f}, {high:.2f}]{where}; "
            f"p = {p_value:.2g}"
        )


def crossing(rows: Rows, draws: int = 200) -> tuple[float, float, float, float]:
    """The load at which curves of all sizes cross, the ends of its 68 per cent interval, from counts drawn
    again, and the p-value of the fit: logit phi is a parabola in alpha, plus log N times a straight line
    that vanishes where sizes cross."""
    alpha, log_size, phi = (np.array([row[name] for row in rows]) for name in ("alpha", "N", "phi"))
    cells, log_size = np.array([row["cells"] for row in rows]), np.log2(log_size)
    middle, width = (alpha.max() + alpha.min()) / 2, np.ptp(alpha)
    x, size = (alpha - middle) / width, log_size - log_size.mean()
    terms = np.stack([np.ones_like(x), x, x * x, size, size * x], axis=1)

    def load(c: Any) -> float:
        return float(middle - width * c[3] / c[4])

    rng, seen = seeded(3, 0), cells * phi
    best = likeliest(terms, seen, cells)
    again = [load(likeliest(terms, rng.binomial(cells, phi), cells)) for _ in range(draws)]
    expected = cells * expit(terms @ best)
    chi_sq = float(((seen - expected) ** 2 / (expected * (1 - expected / cells))).sum())
    low, high = np.percentile(again, [16, 84])
    return load(best), float(low), float(high), float(chi2.sf(chi_sq, len(x) - terms.shape[1]))


def likeliest(terms: Any, seen: Any, cells: Any) -> Any:
    """Coefficients of a logistic regression of counts."""

    def minus_log_likelihood(c: Any) -> tuple[float, Any]:
        logit = terms @ c
        value = seen @ log_expit(logit) + (cells - seen) @ log_expit(-logit)
        return -float(value), -terms.T @ (seen - cells * expit(logit))

    return minimize(minus_log_likelihood, np.zeros(terms.shape[1]), jac=True, method="BFGS").x


def alpha_0_against_p() -> Drawn:
    """Figure 4: alpha_0 and alpha_bbp against p."""
    fixed = [0.5, 0.7, 1.0]
    at = theory_map(p=WIDTHS, p_star=[1], a=fixed).isel(p_star=0)
    figure, panels = small_multiples(len(fixed))
    for axes, a in zip(panels, fixed, strict=True):
        of_a = at.sel(a=a)
        apart = ~kinds(of_a)
        axes.plot(WIDTHS, of_a["alpha_bbp"], "s-", color=DISCONTINUOUS, label=r"$\alpha_{\rm BBP}$")
        axes.plot(WIDTHS, of_a[ALPHA_0], "x-", color=THRESHOLD, label=r"$\alpha_0$, principal value")
        axes.plot(
            np.array(WIDTHS)[apart], of_a["alpha_0_complex_re"].values[apart], color=FAINT, linestyle=DOTTED,
            label=r"$\alpha_0$, complex zero",
        )  # fmt: skip
        axes.set_xscale("log", base=2)
        plain_logarithmic(axes.xaxis, WIDTHS)
        axes.set_ylim(0.4, None)
        axes.set_xlabel(r"$p$")
        axes.set_ylabel(r"$\alpha$")
        axes.set_title(f"$p^* = 1$, $a = {a:g}$")
    panels[-1].legend()
    return figure, rows_of(at)


def threshold_against_teacher() -> Drawn:
    """Figure 7: alpha_bbp at p = 1 for wider and wider teachers."""
    teachers, a = [1, 2, 3, 4, 6, 8], np.linspace(0.02, 4, 200)
    at = theory_map(p=[1], p_star=teachers, a=a.tolist(), alpha_0=False).isel(p=0)
    figure, (against_a, against_teacher) = small_multiples(2)
    for p_star, colour in zip(teachers, size_colours(len(teachers)), strict=True):
        of_teacher = at.sel(p_star=p_star)
        continuous = kinds(of_teacher)
        load = of_teacher["alpha_bbp"].values
        against_a.plot(a, np.where(continuous, load, math.nan), color=colour, label=f"$p^* = {p_star}$")
        against_a.plot(a, np.where(continuous, math.nan, load), color=colour, linestyle=DASHED)
    fixed = [0.1, 0.5, 1.5, 4.0]
    wider = theory_map(p=[1], p_star=[*range(1, 17)], a=fixed, alpha_0=False).isel(p=0)
    for constant, colour in zip(fixed, size_colours(len(fixed)), strict=True):
        of_a = wider.sel(a=constant)
        against_teacher.plot(
            wider["p_star"], of_a["alpha_bbp"], "o-", color=colour, label=f"$a = {constant:g}$"
        )
    against_a.set_title("$p = 1$; solid continuous, dashed discontinuous")
    against_a.set_xlabel(r"$a$")
    against_teacher.set_title("$p = 1$")
    against_teacher.set_xlabel(r"$p^*$")
    for axes in (against_a, against_teacher):
        axes.set_yscale("log")
        plain_logarithmic(axes.yaxis)
        axes.set_ylabel(r"$\alpha_{\rm BBP}$")
    against_a.set_ylim(1, 1500)
    against_a.legend(ncols=3, loc="upper left")
    against_teacher.legend()
    return figure, rows_of(at) + rows_of(wider)


class Branch(NamedTuple):
    """The outlier of a network of one unit each, outside the bulk, along decreasing loads: its squared
    overlaps with teacher and student. The last load is the threshold."""

    alpha: Any
    teacher: Any
    student: Any


def lowest_outlier(network: Network, *, nodes: int = 80) -> Branch:
    """The lowest outlier at p = p_star = 1, for activations that need not be even.

    With s = (lambda, u) and T = D/(1 - gD), outliers solve 1/g = alpha kappa with kappa an eigenvalue of
    E[T (s s^T - 1)]; along its eigenvector e the weight is e_i^2/(1 - S'/z') with S' = alpha e^T E[T^2 s s^T]
    e and z' = alpha E[T^2] - 1/g^2. It leaves the bulk where z' = 0 or, if there is no such g, at the inverse
    of the least weight.
    """
    x, w = trapezoid(nodes)
    x, w = np.concatenate((-x, x)), np.concatenate((w, w)) / 2
    fields, u = (of.ravel() for of in np.meshgrid(x, x))
    part, weight = weight_of(network, fields[None], network.teacher.value(u)), np.outer(w, w).ravel()
    d, s = part.v[0] ** 2 + part.e[0], np.stack([fields, u])

    def at(g: float) -> tuple[float, float, Any]:
        """The load of the outlier, g^2 z', and the weights of its parts over these."""
        T = d / (1 - g * d)
        moments, squares = ((s * (weight * of)) @ s.T for of in (T, T * T))
        values, vectors = np.linalg.eigh(moments - float(weight @ T) * np.eye(2))
        alpha, e = 1 / (g * float(values[0])), vectors[:, 0]
        rest = 1 - alpha * g * g * float(weight @ (T * T))
        return alpha, rest, e**2 / (max(rest, 0) + alpha * g * g * float(e @ squares @ e))

    grid = (1 - 1e-9) / least_weight(network) * np.geomspace(1e-4, 1, 600)
    inside = [at(g)[1] <= 0 for g in grid]
    kept = list(grid[: inside.index(True)] if any(inside) else grid)
    if any(inside):
        kept.append(brentq(lambda g: at(g)[1], grid[len(kept)], kept[-1]))
    found = [(alpha, *(max(rest, 0) * share[::-1])) for alpha, rest, share in map(at, kept)]
    return Branch(*np.array(found).T)


def other_activations() -> Drawn:
    """Figure 8: the overlap of the lowest eigenvector with the signal for sigmoid and tanh."""
    rows: Rows = []
    figure, panels = small_multiples(len(NETWORKS))
    looks = [{"color": c, "marker": m} for c, m in zip(size_colours(3), "osD", strict=True)]
    for axes, (name, a) in zip(panels, NETWORKS.items(), strict=True):
        theory = lowest_outlier(Network(1, 1, a, name, name))
        order = np.argsort(theory.alpha)
        loads, limit = theory.alpha[order], np.sqrt(theory.teacher[order])
        inside = loads <= 1.1 * NETWORK_LOADS[-1]
        axes.plot(
            [NETWORK_LOADS[0], loads[0], *loads[inside]], [0, 0, *limit[inside]], color=INK,
            label="theory, $p = 1$",
        )  # fmt: skip
        axes.axvline(loads[0], color=THRESHOLD, linewidth=0.8)
        for ((p, N), seeds), look in zip(NETWORK_SEEDS.items(), looks, strict=True):
            network, of_size = Network(p, 1, a, name, name), []
            for place, alpha in enumerate(NETWORK_LOADS):
                seen = [
                    observe_network(network, alpha, N, seeded(8, N, p, place, k), "dice")
                    for k in range(seeds)
                ]
                mean, error = mean_and_error(cell.overlap_sq for cell in seen)
                m, m_error = root(mean, error)
                theory_m = float(np.interp(alpha, loads, limit, left=0.0)) if p == 1 else math.nan
                of_size.append(
                    {
                        "activation": name, "teacher_activation": name, "p": p, "p_star": 1, "a": a,
                        "alpha": alpha, "N": N, "cells": seeds, "overlap_sq": mean,
                        "overlap_sq_error": error, "m": m, "m_error": m_error, "m_theory": theory_m,
                        "alpha_bbp": loads[0] if p == 1 else math.nan,
                    }
                )  # fmt: skip
            draw_rows(axes, of_size, "m", "m_error", {**look, "label": f"$p = {p}$, $N = {N}$"})
            rows += of_size
        axes.set_xscale("log")
        plain_logarithmic(axes.xaxis)
        axes.set_xlabel(r"$\alpha$")
        axes.set_ylabel(r"overlap $m$ of the lowest eigenvector")
        axes.set_ylim(0, 1)
        axes.set_title(f"{name}, student and teacher, $p^* = 1$, $a = {a:g}$")
    panels[0].legend()
    return figure, rows


FIGURES: dict[int, Callable[[], Drawn]] = {
    1: overlap_against_load,
    2: lambda: threshold_against_a(1, (0.02, 3.0)),
    3: share_of_lowest,
    4: alpha_0_against_p,
    6: lambda: threshold_against_a(2, (0.02, 4.0)),
    7: threshold_against_teacher,
    8: other_activations,
}
"""The figures by their numbers in the paper."""


def write_paper_figures(directory: Path, only: Iterable[int] = ()) -> list[Path]:
    """Write figures and their numbers; all of them if none is named."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for number in list(only) or FIGURES:
        with style(**{"svg.hashsalt": f"paper-{number}"}), threadpool_limits(1):
            figure, rows = FIGURES[number]()
            written += [directory / f"paper-{number}.svg", directory / f"paper-{number}.csv"]
            figure.savefig(written[-2], metadata={"Date": None})
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with written[-1].open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            table.writerows(
                {name: "" if value != value else value for name, value in row.items()} for row in rows
            )
    return written


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", type=int, nargs="+", choices=tuple(FIGURES), default=[])
    asked = parser.parse_args()
    for path in write_paper_figures(asked.directory, asked.only):
        print(path)


if __name__ == "__main__":
    main()
