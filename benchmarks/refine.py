"""Core-hours that a relative error of 1 % of alpha_c takes: refinement against uniform grids, and coverage.

    python benchmarks/refine.py                       # planted curves, 40 replicates, 3 models
    python benchmarks/refine.py --real 3 --target 0.05 --hours 0.1   # sampled Hessians instead

Planted curves are theory's, with a correction to scaling drawn for every replicate from the prior of the fit;
cells are exponential, as those of sampled Hessians nearly are. ``refine`` begins with a coarse uniform grid
(13 values of alpha from 0.4 to 1.6 of alpha_bbp, sizes 256 to 4096, 8 seeds) and follows the rule of
``analysis/refine`` until it says `met` or `unreachable`; its cost includes all rounds. ``paper`` is the grid
of an earlier campaigns/paper.toml (25 alphas from 0.4 to 1.6 of alpha_bbp, all its sizes) with its numbers
of seeds multiplied by the least factor, in steps of 10 %, at which its own interval meets the target: a user
would have to guess it; where it has sizes that ``grid`` has not, every fourth replicate. ``grid`` is the same
without sizes above 4096, as refinement has them. ``window`` is the same with 9 alphas in |w| <= 0.65 of each
size, for which alpha_c has to be known beforehand. ``least`` is what the optimal design in |w| <= 0.5 would
take, with sizes up to 4096, for one who knows alpha_c and the correction: no rule can do with less, but for
the scatter of measured errors. Every method is judged by the same estimator, ``theory_curve``, and by the
same error: the larger of half the 68 % interval and half the 95 % interval over 1.96. Cost is that of the
kernel's cost model.

``--real`` runs campaigns of sampled Hessians with a table [target], of the same sizes. The grid that it
compares with is the first round of the campaign with as many seeds as the fitted design model says that the
error of the end needs: it is not run.

``--shape other`` plants curves with twice theory's amplitude, ``--shape near`` with 1.4 times: theory's curve
is wrong, and ``collapse``, which does not know it, is right. ``--power`` then leaves out the grids and prints
how the campaigns end: given up, met by ``collapse``, met by theory's curve, and the intervals that hold the
truth.

Printed: median core-hours of the models that met the target and their ratios; how many met it, of refinement
and of each grid; the coverage of the 95 % intervals at the end, that is after the stopping rule, with its
binomial error; the ratios with the models that did not meet it; every model that did not, and every interval
that missed the truth. The numbers are written to refine.json beside this file, or to ``--json``, and
``--print`` prints them again.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import planted_refine
from planted_refine import SIZES, Planted, core_hours, refined

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.estimate.collapse_fits import MEANS, PointScaling, Settings, scale_width
from bendscape.analysis.estimate.collapse_points import scaled_points
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.student import ONE_SIGMA
from bendscape.analysis.refine.critical_load import QUANTITY, critical_load_design, fit_critical_load
from bendscape.analysis.refine.design_model import Fitted
from bendscape.analysis.refine.optimum import Points, optimum, variance
from bendscape.analysis.refine.refiner import Sweep
from bendscape.analysis.refine.rounds import candidates
from bendscape.analysis.refine.states import row_of
from bendscape.core.quadratic.model import Model
from bendscape.sweep import Campaign, run
from bendscape.sweep.store.root import open_store
from bendscape.sweep.store.rounds import read_rounds

MODELS = (Model(1, 1, 0.7), Model(1, 1, 1.5), Model(2, 1, 1.5))
RATIO = {256: 12, 512: 8, 1024: 4, 2048: 2, 4096: 1, 16384: 0.5, 100000: 0.375}
"""Seeds of that campaign, over 16."""
GRIDS = ("paper", "grid", "window")
STEP, MOST = 1.1, 4000.0
"""Step of the factor, and the factor at which a grid is given up."""
AMPLITUDE = {"theory": 1.0, "near": 1.4, "other": 2.0}


def points_of(kind: str, planted: Planted) -> list[tuple[float, int]]:
    """The points of a uniform grid."""
    if kind != "window":
        sizes = SIZES if kind == "grid" else [N for N in RATIO if planted.model.p == 1 or N <= 8192]
        return [(round(float(x), 12), N) for x in np.linspace(0.4, 1.6, 25) for N in sizes]
    found, width = [], critical_point(planted.model).width
    for N in SIZES:
        for w in np.linspace(-0.65, 0.65, 9):
            found.append((round((planted.truth + w * width * N ** (-1 / 3)) / planted.unit, 12), N))
    return found


def judged(planted: Planted, asked: planted_refine.Asked, name: str) -> tuple[float, float, float, float]:
    """Estimate, error and interval of one estimator."""
    block = planted.block(asked).transpose("alpha_factor", "N", "seed")
    points = scaled_points(block, block["alpha"].values, scale_width(planted.model))
    n_boot = 100 if name == "collapse" else 4  # theory_curve's interval does not use them
    fit = PointScaling(points, planted.model, 0.95, n_boot, 0).fit(name, Settings())
    (low, high), (left, right) = fit.interval(0.95), fit.interval(ONE_SIGMA)
    value = math.nan if fit.values is None else float(fit.values[0])
    return value, max((high - low) / 3.919928, (right - left) / 2), low, high


def uniform(kind: str, planted: Planted, target: float, name: str) -> dict[str, Any]:
    """The least uniform grid whose interval meets the target."""
    points, scale = points_of(kind, planted), 2.0
    while True:
        asked = {(x, N): max(4, round(scale * RATIO[N])) for x, N in points}
        value, error, low, high = judged(planted, asked, name)
        ratio = error / (target * abs(value)) if math.isfinite(value) and math.isfinite(error) else 2.0
        if ratio <= 1 or scale > MOST:
            break
        scale = min(scale * max(STEP, 0.75 * ratio**2), STEP * MOST)  # a bad start must not overshoot
    covered = bool(low <= planted.truth <= high)
    return {
        "core_hours": core_hours(planted, asked),
        "met": ratio <= 1,
        "covered": covered,
        "value": value,
        "error": error,
    }


def least(planted: Planted, target: float, name: str) -> float:
    """Core-hours of the optimal design at the truth, from no cells at all."""
    block = planted.block(dict.fromkeys(points_of("window", planted), 100))
    block = block.transpose("alpha_factor", "N", "seed")
    points = scaled_points(block, block["alpha"].values, scale_width(planted.model))
    design = critical_load_design(points, planted.model, name, planted.truth, 1e-3, SIZES)
    theta = np.array(design.theta)
    if name == "theory_curve":
        theta[1:] = np.array(planted.correction) / Settings().correction
    held = planted.held({})
    at = candidates(design, held.unit, held.accepts, {}, held.present, held.cost)
    cells = Points(design.gradient(theta, at.curve, at.size), design.sigma(at.curve, at.size), at.cost)
    low, high = 1.0, 1e7
    for _ in range(24):
        seconds = math.sqrt(low * high)
        enough = optimum(cells, design.prior, design.direction, seconds).variance
        low, high = (low, seconds) if enough <= (target * planted.truth) ** 2 else (seconds, high)
    return high / 3600


def replicate(task: tuple[Model, int], target: float, shape: str, power: bool) -> dict[str, Any]:
    """One planted campaign, by every method or, for the power of the rule alone, by refinement."""
    model, entropy = task
    stream = np.random.default_rng([7, entropy, int(model.p), round(100 * model.a)])
    planted = Planted(
        model, tuple(stream.normal(MEANS, Settings().correction)), AMPLITUDE[shape], 1.0, 1000 + entropy
    )
    with threadpool_limits(1):
        last, asked, rows = refined(planted, target)
        name = "theory_curve" if shape == "theory" else "collapse"
        grids = {} if power else {kind: uniform(kind, planted, target, name) for kind in ("grid", "window")}
        same = points_of("paper", planted) == points_of("grid", planted)
        if grids and (same or entropy % 4 == 0):
            grids["paper"] = dict(grids["grid"]) if same else uniform("paper", planted, target, name)
        bound = math.nan if power else least(planted, target, name)
    fitted = last.fitted
    return {
        "model": [int(model.p), model.p_star, model.a],
        "entropy": entropy,
        "truth": planted.truth,
        "state": last.state.state,
        "reason": last.state.reason,
        "estimator": fitted.estimator,
        "value": fitted.value,
        "error": fitted.error,
        "covered": bool(fitted.low <= planted.truth <= fitted.high),
        "core_hours": core_hours(planted, asked),
        "least": bound,
        "rounds": len(rows),
        "round_errors": [row.state.error for row in rows],
        "gap": max((row.gap for row in rows if row.additions), default=math.nan),
        **grids,
    }


def share(found: list[bool]) -> str:
    """A share with its binomial standard error."""
    if not found:
        return "–"
    p = float(np.mean(found))
    return f"{p:.3f} ± {math.sqrt(max(p * (1 - p), 1 / len(found) / 4) / len(found)):.3f}"


def table(rows: list[dict[str, Any]]) -> None:
    """Print the results of the planted curves."""
    rows = sorted(rows, key=lambda row: int(row["entropy"]))
    print(
        "model    met by refine, paper, grid, window    core-hours: refine, paper, grid, window, least    "
        "ratios to refine    coverage of refine, paper, grid, window"
    )
    for model in MODELS:
        mine = [row for row in rows if row["model"] == [int(model.p), model.p_star, model.a]]
        met = [row for row in mine if row["state"] == "met"]
        if not met:
            print(f"({model.p}, {model.p_star}, {model.a}): none of {len(mine)} met the target")
            continue
        cost = [float(np.median([row["core_hours"] for row in met]))]
        cost += [float(np.median([row[kind]["core_hours"] for row in mine if kind in row])) for kind in GRIDS]
        cost.append(float(np.median([row["least"] for row in mine])))
        reached = [f"{len(met)}/{len(mine)}"]
        for kind in GRIDS:
            tried = [row[kind]["met"] for row in mine if kind in row]
            reached.append(f"{sum(tried)}/{len(tried)}")
        coverage = [share([row["covered"] for row in met])]
        coverage += [share([row[kind]["covered"] for row in mine if kind in row]) for kind in GRIDS]
        print(
            f"({model.p}, {model.p_star}, {model.a})    "
            + ", ".join(reached)
            + "    "
            + "  ".join(f"{hours:.3f}" for hours in cost)
            + "    "
            + "  ".join(f"{hours / cost[0]:.2f}" for hours in cost[1:])
            + "    "
            + ", ".join(coverage)
        )
        hours = [[row["core_hours"], *(row[kind]["core_hours"] for kind in GRIDS[1:])] for row in mine]
        middle, mean = np.median(hours, axis=0), np.mean(hours, axis=0)
        first = core_hours(Planted(model), planted_refine.PILOT)
        precision = np.mean([row["error"] / abs(row["value"]) for row in met])
        print(
            f"    all {len(mine)}: ratios of grid, window by medians {middle[1] / middle[0]:.2f}, "
            f"{middle[2] / middle[0]:.2f}, by means {mean[1] / mean[0]:.2f}, {mean[2] / mean[0]:.2f}; "
            f"first grid {100 * first / cost[0]:.0f} % of the cost; mean relative error at the end "
            f"{100 * precision:.3f} %"
        )
        for row in mine:
            off = abs(row["value"] - row["truth"]) / row["error"] if row["error"] > 0 else math.nan
            if row["state"] != "met" or not row["covered"]:
                print(
                    f"    {row['entropy']}: {row['state']}, {row['value']:.4f} ± {row['error']:.4f} "
                    f"by {row['estimator']}, {off:.1f} errors from {row['truth']:.4f}, "
                    f"{row['core_hours']:.3f} core-hours: {row['reason']}"
                )


def ends(rows: list[dict[str, Any]]) -> None:
    """Print how campaigns on planted curves end, and whether their intervals hold the truth."""
    print("model: replicates; given up, met by collapse, by theory's curve, open (of which hold the truth)")
    for model in MODELS:
        mine = [row for row in rows if row["model"] == [int(model.p), model.p_star, model.a]]
        kinds = {"given up": [row for row in mine if row["state"] == "unreachable"]}
        for name in ("collapse", "theory_curve"):
            kinds[name] = [row for row in mine if row["state"] == "met" and row["estimator"] == name]
        kinds["open"] = [row for row in mine if row["state"] == "open"]
        counts = ", ".join(f"{len(of)} ({sum(row['covered'] for row in of)})" for of in kinds.values())
        print(f"({model.p}, {model.p_star}, {model.a}): {len(mine)}; {counts}")
        for row in mine:
            print(
                f"    {row['entropy']}: {row['state']}, {row['value']:.4f} ± {row['error']:.4f} by "
                f"{row['estimator']}, truth {row['truth']:.4f}, {row['rounds']} rounds, "
                f"{row['core_hours']:.3f} core-hours: {row['reason']}"
            )


def sampled(model: Model, entropy: int, target: float, hours: float) -> dict[str, Any]:
    """One campaign of sampled Hessians that goes in rounds by itself, and what a uniform grid would take.

    The grid is that of the first round with more seeds: as many as the design model needs at the estimate of
    the end for the error of the end. Both costs are those of cells by the receipts.
    """
    about = {"name": "refine", "store": "unused", "entropy": entropy}
    grid = {
        "p": [int(model.p)], "p_star": [model.p_star], "a": [model.a],
        "alpha": {"around": "alpha_bbp", "start": 0.4, "stop": 1.6, "num": 13},
        "N": list(SIZES), "seeds": 8,
    }  # fmt: skip
    aim = {"alpha_c": target, "core_hours": hours}
    campaign = Campaign.from_dict({"campaign": about, "grid": grid, "target": aim})
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/real.zarr"
        run(campaign, store=store, workers=1, progress=False)
        rounds = read_rounds(open_store(store).ledger)
        sweep = Sweep(QUANTITY, open_store(store))
        ((at, block),) = sweep.models()
        fitted, held = fit_critical_load(block), sweep.held(at, block)
        found = row_of(fitted, held, target * abs(fitted.value), sweep.halves(block)).state
        hours, first = held.seconds / 3600, held.unit * np.linspace(0.4, 1.6, 13)
        uniform_hours = math.nan
        if fitted.design is not None and fitted.error > 0:
            places = np.array([(x, N, held.cost(x / held.unit, N)) for x in first for N in SIZES]).T
            uniform_hours = grid_hours(fitted, model, *places)
    return {
        "model": [int(model.p), model.p_star, model.a],
        "entropy": entropy,
        "state": found.state,
        "reason": found.reason,
        "value": fitted.value,
        "error": fitted.error,
        "theory": critical_point(model).alpha,
        "covered": bool(fitted.low <= critical_point(model).alpha <= fitted.high),
        "rounds": len(rounds),
        "core_hours": hours,
        "grid": uniform_hours,
    }


def grid_hours(fitted: Fitted, model: Model, alpha: Floats, N: Floats, cost: Floats) -> float:
    """Core-hours of a uniform grid for the error of a fit, by its design model; inf beyond any use."""
    design = fitted.design
    assert design is not None
    inflation = fitted.error / design.standard_error()
    inside = np.abs(alpha - fitted.value) * np.cbrt(N) / scale_width(model) <= Settings().window
    low, high = 1.0, 1e6
    for _ in range(40):
        seeds = math.sqrt(low * high)
        known = design.prior + design.information(alpha[inside], N[inside], np.full(inside.sum(), seeds))
        enough = inflation * math.sqrt(variance(known, design.direction)) <= fitted.error
        low, high = (low, seeds) if enough else (seeds, high)
    return high * float(cost.sum()) / 3600 if high < 9e5 else math.inf


def write(path: Path, document: dict[str, Any]) -> None:
    """Write the numbers, also those of an unfinished run."""
    path.write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=40)
    parser.add_argument("--target", type=float, default=0.01)
    parser.add_argument("--shape", choices=tuple(AMPLITUDE), default="theory")
    parser.add_argument("--power", action="store_true", help="refinement alone, and how it ends")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="number of the first replicate")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--print", action="store_true", help="print the table of an earlier or running run")
    parser.add_argument(
        "--only", type=int, nargs="+", default=[0, 1, 2], help="numbers of the models, from 0"
    )
    parser.add_argument("--real", type=int, default=0, help="replicates on sampled Hessians, instead")
    parser.add_argument("--hours", type=float, default=0.05, help="core-hours of one sampled replicate")
    options = parser.parse_args()
    models = [MODELS[k] for k in options.only]
    if options.print:
        (ends if options.power else table)(json.loads(options.json.read_text())["rows"])
        return
    if options.real:
        rows = []
        print("model, entropy: state, alpha_c, theory's; core-hours, of a uniform grid, ratio; reason")
        for model, entropy in [(m, options.first + e) for e in range(options.real) for m in models]:
            row = sampled(model, 100 + entropy, options.target, options.hours)
            rows.append(row)
            print(
                f"({model.p}, {model.p_star}, {model.a}), {row['entropy']}: {row['state']}, "
                f"{row['value']:.4f} ± {row['error']:.4f}, {row['theory']:.4f}; "
                f"{row['core_hours']:.4f}, {row['grid']:.4f}, {row['grid'] / row['core_hours']:.1f}; "
                f"{row['reason']}",
                flush=True,
            )
            write(options.json, {"target": options.target, "real": rows})
        return
    tasks = [(model, options.first + e) for e in range(options.replicates) for model in models]
    one = partial(replicate, target=options.target, shape=options.shape, power=options.power)
    began = time.time()
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        rows = []
        for row in pool.imap_unordered(one, tasks):
            rows.append(row)
            write(options.json, {"target": options.target, "shape": options.shape, "rows": rows})
    (ends if options.power else table)(rows)
    print(f"{time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
