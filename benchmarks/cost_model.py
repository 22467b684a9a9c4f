"""Fit the cost model: seconds of each term of a cell's cost on one core of this machine.

    python benchmarks/cost_model.py [--repeats 2]

Times cells of every method over p, alpha and N in CPU seconds, fits the constants of
``bendscape.core.quadratic.sampling.cost`` by non-negative least squares on relative errors, prints them in
the form of ``SECONDS`` with the range of measured over fitted, beside that of the constants in use, and
writes cost_model.json."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from scipy.optimize import nnls
from threadpoolctl import threadpool_limits

from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.cost import SECONDS, cost_terms
from bendscape.core.quadratic.sampling.observe import observe

HERE = Path(__file__).parent

# Near the thresholds, where the iterations take most steps; (p, p_star, a, alpha) and sizes.
POINTS = [(1, 1, 1.5, 1.2), (1, 1, 0.7, 1.2), (2, 1, 1.5, 1.1), (4, 1, 1.5, 1.0), (4, 2, 1.5, 2.0)]
SIZES = {
    "dense": [32, 64, 128, 256, 512, 1024],
    "explicit": [64, 128, 256, 512, 1024, 2048],
    "dice": [32, 128, 512, 2048, 8192, 32768],
    "conditional": [128, 1024, 8192, 65536, 2**20],
}
LARGEST = {"dense": 2048, "explicit": 4096, "dice": 33000, "conditional": 2**21}  # of p N, p^(3/2) N for dice


def measured(method: str, repeats: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Terms and CPU seconds of every cell, and a description of the cells."""
    terms, seconds, names = [], [], []
    for p, p_star, a, alpha in POINTS:
        model = Model(p, p_star, a)
        for N in SIZES[method]:
            if N * (p**1.5 if method == "dice" else p) > LARGEST[method]:
                continue
            times = []
            for repeat in range(repeats):
                started = time.process_time()
                observe(model, alpha, N, np.random.default_rng(repeat), method)
                times.append(time.process_time() - started)
            terms.append(cost_terms(model, alpha, N, method))
            seconds.append(float(np.mean(times)))
            names.append(f"p = {p}, p* = {p_star}, a = {a:g}, alpha = {alpha:g}, N = {N}")
    return np.array(terms), np.array(seconds), names


def main(repeats: Annotated[int, typer.Option(help="Cells at every point.")] = 2) -> None:
    """Measure, fit, print and write."""
    document = {}
    console = Console()
    for method in SIZES:
        terms, seconds, names = measured(method, repeats)
        # A zero constant would be a term that these data do not determine; it may matter elsewhere.
        fitted, _ = nnls(terms / seconds[:, np.newaxis], np.ones(len(seconds)))
        ratio = seconds / (terms @ fitted)
        in_use = seconds / (terms @ np.array(SECONDS[method]))
        console.print(f'"{method}": ({", ".join(f"{value:.2g}" for value in fitted)}),')
        console.print(
            f"    measured over fitted {ratio.min():.2f} .. {ratio.max():.2f}, over the constants in use "
            f"{in_use.min():.2f} .. {in_use.max():.2f}"
        )
        document[method] = {
            "fitted": fitted.tolist(),
            "in_use": list(SECONDS[method]),
            "cells": [
                {"cell": name, "seconds": float(s), "fitted_over": float(r), "in_use_over": float(u)}
                for name, s, r, u in zip(names, seconds, ratio, in_use, strict=True)
            ],
        }
    (HERE / "cost_model.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    with threadpool_limits(1):
        typer.run(main)
