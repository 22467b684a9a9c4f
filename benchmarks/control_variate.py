"""Reduction of the variance of means by the theory of each cell's own labels, and the bias of the method.

    nice python benchmarks/control_variate.py            # measures missing points (half an hour)
    python benchmarks/control_variate.py --table         # prints from control_variate.json

Cells come from dice, extra labels from ``sample_drawn_labels``. At N = 500 and p p_star = 1, independently
drawn and diagonalised Hessians give a plain mean for comparison. Delete control_variate.json to start afresh.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bendscape.core import Model, drawn_labels_theory, lowest_eigenvalue_law, sample_drawn_labels, transition
from bendscape.core.quadratic.sampling.control_variate import controlled_mean, label_controls
from bendscape.core.quadratic.sampling.dice import sample_dice
from bendscape.core.quadratic.sampling.observe import observe

NUMBERS = Path(__file__).parent / "control_variate.json"
CONTINUOUS, DISCONTINUOUS = Model(1, 1, 0.7), Model(1, 1, 1.5)
EVERY = (0.7, 1.0, 1.4)  # loads in units of alpha_bbp
POINTS: list[tuple[Model, int, int, tuple[float, ...]]] = [  # model, N, cells, loads
    (CONTINUOUS, 500, 160, EVERY),
    (DISCONTINUOUS, 500, 160, EVERY),
    (Model(2, 1, 1.5), 500, 60, EVERY),
    (Model(1, 2, 0.7), 500, 60, EVERY),
    (DISCONTINUOUS, 8000, 40, EVERY),
    (DISCONTINUOUS, 32000, 20, (0.7,)),
    (CONTINUOUS, 2000, 60, EVERY),
    (DISCONTINUOUS, 2000, 60, EVERY),
    (Model(4, 1, 0.7), 500, 60, EVERY),
    (Model(2, 2, 0.5), 500, 60, EVERY),
    (CONTINUOUS, 8000, 40, EVERY),
    (Model(2, 1, 1.5), 2000, 30, EVERY),
    (Model(1, 2, 0.7), 2000, 30, EVERY),
    (Model(4, 2, 1.5), 500, 24, (1.4,)),
]
EXTRA = 25  # draws of labels for every measured cell
DENSE = 160  # diagonalised cells
CONTROL = {"eigval_min": 0, "overlap_sq": 1, "overlap_sq_space": 1}  # column of label_controls


def measure(model: Model, factor: float, N: int, cells: int) -> dict[str, Any]:
    """Measured quantities of one point's cells, their controls, extra controls, and diagonalised cells."""
    alpha, space = factor * transition(model).alpha_bbp, int(model.p) * model.p_star
    point = (int(model.p), model.p_star, round(100 * model.a), round(100 * factor), N)

    def rngs(stream: int, count: int) -> list[np.random.Generator]:
        return [np.random.default_rng((stream, *point, i)) for i in range(count)]

    started = time.perf_counter()
    seen = [sample_dice(model, alpha, N, rng) for rng in rngs(1, cells)]
    measured = time.perf_counter()
    extra = [sample_drawn_labels(model, alpha, N, rng) for rng in rngs(2, EXTRA * cells)]
    drawn = time.perf_counter()
    compared = DENSE if N == 500 and space == 1 else 0
    dense = [observe(model, alpha, N, rng, "dense") for rng in rngs(3, compared)]
    own = [drawn_labels_theory(model, N, cell.y, cell.yhat) for cell in seen]
    return {
        "eigval_min": [float(cell.eigvals[0]) for cell in seen],
        "overlap_sq": [float(cell.overlaps_sq[0]) for cell in seen],
        "overlap_sq_space": [float(cell.overlaps_sq[:space].mean()) for cell in seen],
        "controls": label_controls(own).tolist(),
        "extra": label_controls(extra).tolist(),
        "dense": {name: [getattr(cell, name) for cell in dense] for name in CONTROL},
        "converged": sum(cell.converged for cell in seen),
        "seconds_cell": (measured - started) / cells,
        "seconds_labels": (drawn - measured) / len(extra),
    }


def estimate(model: Model, factor: float, N: int, data: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table for one point, one for every quantity."""
    law = lowest_eigenvalue_law(model, factor * transition(model).alpha_bbp, N)
    explained = min(1.0, (law.sd_labels / law.sd) ** 2)  # fraction of the variance due to labels
    predicted = 1 / (1 - explained * EXTRA / (1 + EXTRA))
    rows = []
    for name, column in CONTROL.items():
        if int(model.p) * model.p_star == 1 and name == "overlap_sq_space":
            continue
        own, extra = np.array(data["controls"])[:, column], np.array(data["extra"])[:, column]
        dense = np.array(data["dense"][name])
        rows.append(
            {
                "found": controlled_mean(data[name], own, extra=extra),
                "what": name,
                "label": f"{model.p}, {model.p_star} | {model.a:g} | {factor:g} | {N}",
                "outlier": float((np.array(data["extra"])[:, 1] > 0).mean()),
                "law": (law.mean, law.sd) if name == "eigval_min" else None,
                "predicted": predicted if name == "eigval_min" else None,
                "N": N,
                "dense": (dense.mean(), dense.std(ddof=1) / math.sqrt(len(dense))) if len(dense) else None,
                "cells": len(own),
                "cost": data["seconds_labels"] / data["seconds_cell"],
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> None:
    """Print the table, and the bias over all points."""
    print("| p, p* | a | α/α_BBP | N | cells | outlier | what | plain | controlled | law | cut | its law |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        found, law = row["found"], row["law"]
        predicted = f"{row['predicted']:.2f}" if law else ""
        print(
            f"| {row['label']} | {row['cells']} | {row['outlier']:.2f} | {row['what']} "
            f"| {found.plain_mean:.4f}({found.plain_error:.4f}) | {found.mean:.4f}({found.error:.4f}) "
            f"| {f'{law[0]:.4f}' if law else ''} "
            f"| {found.variance_ratio:.2f}({found.variance_ratio_error:.2f}) | {predicted} |"
        )
    for name in CONTROL:
        these = [row for row in rows if row["what"] == name]
        if not these:
            continue
        moved, against = [], []
        for row in these:
            found = row["found"]
            spread = found.plain_error**2 - found.error**2
            if spread > 0.05 * found.plain_error**2:  # otherwise there is nothing to compare
                moved.append((found.plain_mean - found.mean) / math.sqrt(spread))
            if row["dense"]:
                mean, error = row["dense"]
                against.append((found.mean - mean) / math.hypot(found.error, error))
        cuts = [row["found"].variance_ratio for row in these]
        print(f"{name}: cut {min(cuts):.2f} to {max(cuts):.2f}, median {np.median(cuts):.2f}")
        print(f"  plain - controlled, in its standard errors: {summary(moved)}")
        print(f"  controlled - diagonalised, in its standard errors: {summary(against)}")
        expected = [math.log(r["found"].variance_ratio / r["predicted"]) for r in these if r["predicted"]]
        if expected:
            middle, spread = math.exp(np.mean(expected)), np.std(expected)
            print(f"  cut over its law: geometric mean {middle:.2f}, rms of the logarithm {spread:.2f}")
        overfit = [row["found"].overfit / row["found"].error for row in these]
        print(f"  overfit, in errors: mean {np.mean(overfit):+.3f}, largest {np.abs(overfit).max():.3f}")
    for size in sorted({row["N"] for row in rows}):
        off = [
            (row["found"].mean - row["law"][0]) / row["law"][1]
            for row in rows
            if row["law"] and row["N"] == size
        ]
        print(f"N = {size}: controlled - law, in sd of a cell: {min(off):+.2f} to {max(off):+.2f}")
    print(f"a draw of labels costs {np.median([row['cost'] for row in rows]):.1e} of a cell (median)")


def page(rows: list[dict[str, Any]]) -> None:
    """Print the short table of docs/control-variates.md: the reduction of the variance, by size."""
    sizes = sorted({row["N"] for row in rows})
    heads = [f"{what}, N = {N}" for what in ("λ₁", "m²") for N in sizes]
    print("| p, p* | a | α/α_BBP | outlier | " + " | ".join(heads) + " |")
    print("|---" * (4 + len(heads)) + "|")
    for point in dict.fromkeys(row["label"].rpartition(" | ")[0] for row in rows):
        cells = []
        for name in ("eigval_min", "overlap_sq"):
            for N in sizes:
                found = [r["found"] for r in rows if (r["label"], r["what"]) == (f"{point} | {N}", name)]
                cells.append(
                    f"{found[0].variance_ratio:.1f}({found[0].variance_ratio_error:.1f})" if found else ""
                )
        outlier = [row["outlier"] for row in rows if row["label"] == f"{point} | 500"]
        print(f"| {point} | {outlier[0]:.2f} | " + " | ".join(cells) + " |")


def summary(z: list[float]) -> str:
    """Mean with error, and chi squared, of numbers that should be standard normal."""
    if not z:
        return "no point"
    return f"mean {np.mean(z):+.2f} ± {len(z) ** -0.5:.2f}, chi2 {np.square(z).sum():.1f} of {len(z)}"


def main() -> None:
    """Measure missing points and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", action="store_true")
    only_print = parser.parse_args().table
    data: dict[str, Any] = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    rows = []
    with threadpool_limits(1):
        for model, N, cells, factors in POINTS:
            for factor in factors:
                key = f"{model}, {factor}, {N}, {cells}"
                if key not in data and not only_print:
                    data[key] = measure(model, factor, N, cells)
                    NUMBERS.write_text(json.dumps(data))
                    sys.stderr.write(f"{key}: {data[key]['seconds_cell']:.2f} s a cell\n")
                if key in data:
                    rows += estimate(model, factor, N, data[key])
    converged = sum(each["converged"] for each in data.values())
    cells = sum(len(each["controls"]) for each in data.values())
    table(rows)
    page(rows)
    print(f"{converged} of {cells} cells converged")


if __name__ == "__main__":
    main()
