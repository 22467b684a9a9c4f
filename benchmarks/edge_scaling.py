"""How often the law of the approach to the edge is identified, on planted data and on sampled Hessians.

    nice python benchmarks/edge_scaling.py              # both tables (some minutes), writes edge_scaling.json
    nice python benchmarks/edge_scaling.py --planted    # only the calibration

Planted: 400 sweeps per line with <eigval_min> = lambda_minus + the law, and normal noise of sd 2.5 N^(-1/2),
as from labels and matrix together, or half of it, as left by the control variate. Sampled: independently
drawn cells, with and without the control variate, by smallest size.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

sys.path.append(str(Path(__file__).parent.parent / "tests"))

import synthetic

from bendscape.analysis.estimate.edge_fits import LAWS, OUTCOMES
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.core import Model, transition
from bendscape.core.quadratic.model import EDGE_KINDS
from bendscape.core.quadratic.sampling.observe import observe

NUMBERS = Path(__file__).parent / "edge_scaling.json"
PLANTED = Model(1, 1, 0.7)
REPEATS = 400
SWEEPS: dict[str, dict[int, int]] = {
    "4 sizes to 1024, 64 seeds": dict.fromkeys((128, 256, 512, 1024), 64),
    "4 sizes to 1024, 1000 seeds": dict.fromkeys((128, 256, 512, 1024), 1000),
    "6 sizes to 4096, 200 seeds": dict.fromkeys((128, 256, 512, 1024, 2048, 4096), 200),
    "9 sizes to 10000, 40 seeds": dict.fromkeys((100, 178, 316, 562, 1000, 1778, 3162, 5623, 10000), 40),
    "9 sizes to 10000, 8 seeds": dict.fromkeys((100, 178, 316, 562, 1000, 1778, 3162, 5623, 10000), 8),
}
AMPLITUDES = {"n_two_thirds": (0.5, 1.5, 5.0), "one_over_log": (0.05, 0.15, 0.5)}
NOISES = (2.5, 1.25)
SAMPLED: list[tuple[Model, float, dict[int, int]]] = [  # model, alpha / alpha_bbp, seeds by size
    (Model(1, 1, 0.7), 0.7, {64: 800, 128: 800, 256: 800, 512: 400, 1024: 200, 2048: 100, 4096: 40}),
    (Model(1, 1, 1.5), 0.7, {64: 800, 128: 800, 256: 800, 512: 400, 1024: 200, 2048: 100, 4096: 40}),
    (Model(4, 1, 1.5), 0.4, {64: 400, 128: 400, 256: 400, 512: 200, 1024: 100, 2048: 40}),
]


def planted(law: str, c: float, seeds: dict[int, int], noise: float) -> dict[str, float]:
    """Fraction of each outcome over ``REPEATS`` planted sweeps, each of one alpha."""
    alpha = np.linspace(0.6, 0.8, REPEATS) * transition(PLANTED).alpha_bbp
    sweep = synthetic.approaching_edge(
        PLANTED,
        seeds,
        lambda N: c * LAWS[law](N),
        alpha=alpha,
        noise=noise,
        realised=False,
        entropy=round(1000 * c),
    )
    found = edge_scaling(sweep, least_size=100, prediction=False).compute()
    told = Counter(tuple(OUTCOMES)[code] for code in found["law"].values.ravel())
    return {outcome: told[outcome] / REPEATS for outcome in OUTCOMES}


def print_planted(rows: list[dict[str, Any]]) -> None:
    """The calibration, in percent."""
    print("| sweep | noise | planted | right | wrong | cannot tell | neither |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        law, told = row["law"], row["told"]
        other = next(name for name in LAWS if name != law)
        shares = (told[name] for name in (law, other, "cannot_tell", "neither"))
        print(
            f"| {row['sweep']} | {row['noise']:g} | {law} {row['c']:g} | "
            + " | ".join(f"{100 * share:.1f}" for share in shares)
            + " |"
        )
    for law in LAWS:
        other = next(name for name in LAWS if name != law)
        wrong = [row["told"][other] for row in rows if row["law"] == law]
        print(f"{law}: {other} in {100 * np.mean(wrong):.2f} %, at most {100 * max(wrong):.2f} % of a line")
    print(f"neither: {100 * np.mean([row['told']['neither'] for row in rows]):.2f} %")


def sampled(model: Model, factor: float, seeds: dict[int, int]) -> dict[str, Any]:
    """Cells of one point, size by size."""
    alpha = factor * transition(model).alpha_bbp
    fields = ("eigval_min", "edge_sample", "outlier_sample", "alpha_realised")
    cells: dict[str, Any] = {}
    for N, count in seeds.items():
        point = (int(model.p), model.p_star, round(100 * model.a), round(100 * factor), N)
        seen = [observe(model, alpha, N, np.random.default_rng((7, *point, i))) for i in range(count)]
        cells[str(N)] = {name: [getattr(cell, name) for cell in seen] for name in fields}
        sys.stderr.write(f"{model} {factor} {N}\n")
    return cells


def as_sweep(model: Model, factor: float, cells: dict[str, Any]) -> xr.Dataset:
    """The cells as a dataset of one model and one alpha."""
    counts = {int(N): len(values["eigval_min"]) for N, values in cells.items()}
    alpha = [factor * transition(model).alpha_bbp]
    ds = synthetic.frame((int(model.p),), (model.p_star,), (model.a,), counts, alpha=alpha)
    for k, N in enumerate(sorted(counts)):
        for name, values in cells[str(N)].items():
            ds[name].values[0, 0, 0, 0, k, : counts[N]] = values
        ds["status"].values[0, 0, 0, 0, k, : counts[N]] = 1
    return ds


def print_sampled(data: dict[str, Any]) -> None:
    """The results of the analysis on sampled Hessians, by smallest size."""
    print(
        "| p, p*, a | α/α_BBP | edge | sizes from | draws | law | Δχ² | p N^(-2/3) "
        "| p 1/log N | c | theory | λ₋ fitted |"
    )
    print("|---" * 12 + "|")
    for model, factor, _ in SAMPLED:
        ds = as_sweep(model, factor, data[f"{model}, {factor}"])
        head = f"{model.p}, {model.p_star}, {model.a:g} | {factor:g} | {EDGE_KINDS[ds['edge'].item()]}"
        for extra in (0, 8):
            for least_size in (64, 128, 256, 512):
                at = edge_scaling(ds, least_size=least_size, extra_draws=extra).compute().squeeze()
                free = edge_scaling(
                    ds, least_size=least_size, extra_draws=extra, free_edge=True, prediction=False
                )
                free = free.compute().squeeze()
                law, with_free = (tuple(OUTCOMES)[int(each["law"])] for each in (at, free))
                print(
                    f"| {head} | {least_size} | {extra} | {law} "
                    f"| {at['delta_chi2']:.1f} | {at['n_two_thirds_p_value']:.2g} "
                    f"| {at['one_over_log_p_value']:.2g} "
                    f"| {at['n_two_thirds_c']:.2f}({at['n_two_thirds_c_error']:.2f}), "
                    f"{at['one_over_log_c']:.3f}({at['one_over_log_c_error']:.3f}) "
                    f"| {at['prediction_p_value']:.2g} | {with_free}, {free['n_two_thirds_shift']:+.3f} |"
                )
        for N, y, e, edge_at, law in zip(
            at["N"].values,
            at["controlled"].values,
            at["controlled_error"].values,
            at["lambda_minus"].values,
            at["prediction"].values,
            strict=True,
        ):
            if math.isfinite(y):
                print(f"  N = {N}: gap {y - edge_at:+.4f}({e:.4f}), predicted {law - edge_at:+.4f}")


def main() -> None:
    """Plant, sample what is missing, and print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--planted", action="store_true")
    only_planted = parser.parse_args().planted
    data: dict[str, Any] = json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {}
    with threadpool_limits(1):
        data["planted"] = [
            {"sweep": name, "noise": noise, "law": law, "c": c, "told": planted(law, c, seeds, noise)}
            for name, seeds in SWEEPS.items()
            for noise in NOISES
            for law in LAWS
            for c in AMPLITUDES[law]
        ]
        print_planted(data["planted"])
        if not only_planted:
            cells = data.setdefault("sampled", {})
            for model, factor, seeds in SAMPLED:
                key = f"{model}, {factor}"
                if key not in cells:
                    cells[key] = sampled(model, factor, seeds)
            print_sampled(cells)
    NUMBERS.write_text(json.dumps(data))


if __name__ == "__main__":
    main()
