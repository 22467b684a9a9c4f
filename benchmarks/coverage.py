"""Coverage of the 95 per cent intervals of every estimator, on planted sweeps, as one table.

    nice python benchmarks/coverage.py                                          # all of it (hours)
    python benchmarks/coverage.py --only thresholds around seeds=6 --replicates 100
    python benchmarks/coverage.py --only edge_scaling normal lognormal --replicates 400

A condition consists of a function (thresholds, collapse, edge_scaling, drift), the position of its alphas
(below, just_below, around, just_above or above the threshold, or wide around it), the seeds per size, the law
of the cells, the number of sizes and, for collapse, whether a correction to scaling is planted, of the size
that it allows for. ``--only`` selects by these words: any of several words of one kind, and all kinds that
are named. The sweeps are those of ``tests/planted_coverage.py``. The public functions are called, so the
table judges what users get, at about a second a sweep. ``benchmarks/intervals.py`` does thresholds and laws
of the edge a hundred times faster, without the pass over a sweep: for choosing a method, and for errors of a
hundredth.

Printed for each estimator: the number of estimates, the fraction flagged estimated, and of these the fraction
of intervals that hold the truth with its binomial standard error, the median width of the interval and the
mean error of the estimate. Sizes and, for edge_scaling, alphas of one sweep count separately. The numbers are
written to coverage.json beside this file, or to ``--json``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import planted_coverage
import planted_drift

from bendscape.analysis.estimate import collapse_fits, drift_curves, edge_fits, estimators
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.drift import drift
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.estimate.thresholds import thresholds
from bendscape.core.quadratic.model import Model

MODEL, DRIFTING = Model(1, 1, 0.7), Model(8, 1, 1.5)
TRUTH = critical_point(MODEL).alpha
N_BOOT = 400
ALPHAS = {  # the threshold is 1.243
    "below": np.round(np.arange(0.2, 0.901, 0.05), 12),
    "just_below": np.round(np.arange(0.5, 1.201, 0.05), 12),
    "around": np.round(np.arange(0.6, 1.901, 0.05), 12),
    "just_above": np.round(np.arange(1.3, 2.201, 0.05), 12),
    "above": np.round(np.arange(1.5, 3.401, 0.1), 12),
    "wide": np.round(np.arange(0.4, 3.401, 0.1), 12),
}
SIZES = {2: (320, 640), 3: (160, 320, 640), 5: (160, 320, 640, 1280, 2560)}
EDGE_SIZES = {2: (256, 1024), 3: (256, 512, 1024), 5: (256, 512, 1024, 2048, 4096)}
DRIFT_SIZES = {2: (30_000, 300_000), 3: (30_000, 100_000, 300_000)}
DRIFT_SIZES[5] = (*DRIFT_SIZES[3], 1_000_000, 10_000_000)
EDGE_ALPHAS = np.linspace(0.7, 0.9, 8)
EDGE_AMPLITUDE = 1.5


_NUMBERS = ("seeds", "sizes", "correction")


class Condition(NamedTuple):
    """What is planted, and which function is called."""

    function: str
    alphas: str
    seeds: int
    cells: str
    sizes: int
    correction: float = 0.0

    def words(self) -> dict[str, str]:
        """The word that selects each of its parts, by kind."""
        parts = self._asdict().items()
        return {kind: f"{kind}={value:g}" if kind in _NUMBERS else str(value) for kind, value in parts}


class Asked(NamedTuple):
    """One estimate: estimator, flag, value and interval, and the truth."""

    name: str
    flag: str
    value: float
    low: float
    high: float
    truth: float


def conditions() -> Iterator[Condition]:
    """All conditions."""
    grid = (4, 6, 12, 64), planted_coverage.CELLS, SIZES
    for alphas in ALPHAS:
        for seeds, cells, sizes in itertools.product(*grid):
            yield Condition("thresholds", alphas, seeds, cells, sizes)
            yield Condition("collapse", alphas, seeds, cells, sizes)
            yield Condition("collapse", alphas, seeds, cells, sizes, 0.5)
    for seeds, cells, sizes in itertools.product(*grid):
        yield Condition("edge_scaling", "below", seeds, cells, sizes)
    for seeds, sizes in itertools.product((4, 6, 12, 64), DRIFT_SIZES):
        yield Condition("drift", "around", seeds, "hidden", sizes)


def chosen(only: list[str]) -> list[Condition]:
    """The conditions selected by the words: any of several words of one kind, all kinds that are named."""
    every = list(conditions())
    kinds = {word: kind for condition in every for kind, word in condition.words().items()}
    if unknown := set(only) - set(kinds):
        raise SystemExit(f"coverage.py: --only {min(unknown)}: none of {', '.join(kinds)}")
    asked = {kinds[word] for word in only}
    return [at for at in every if all(word in only for kind, word in at.words().items() if kind in asked)]


def words_of(code: xr.DataArray, meanings: Any) -> npt.NDArray[np.str_]:
    """Names of outcomes from their codes."""
    return np.array(list(meanings))[code.values]


def of_thresholds(at: Condition, entropy: int) -> Iterator[Asked]:
    """All estimators, at all sizes for which they are defined."""
    ds = planted_coverage.threshold_sweep(
        MODEL, dict.fromkeys(SIZES[at.sizes], at.seeds), ALPHAS[at.alphas], cells=at.cells, entropy=entropy
    )
    found = thresholds(ds).compute().squeeze()
    for name in estimators.ESTIMATORS:
        flags = words_of(found[f"{name}_flag"], estimators.FLAGS)
        for k, flag in enumerate(flags):
            if flag != "no_larger_size":
                parts = (found[f"{name}{part}"].values[k] for part in ("", "_low", "_high"))
                yield Asked(name, str(flag), *map(float, parts), TRUTH)


def of_collapse(at: Condition, entropy: int) -> Iterator[Asked]:
    """All four estimators."""
    g = np.array(collapse_fits.MEANS) + at.correction * np.random.default_rng([5, entropy]).standard_normal(9)
    ds = planted_coverage.threshold_sweep(
        MODEL,
        dict.fromkeys(SIZES[at.sizes], at.seeds),
        ALPHAS[at.alphas],
        cells=at.cells,
        correction=tuple(g) if at.correction else (),
        entropy=entropy,
    )
    found = collapse(ds, least_size=0, n_boot=100, seed=entropy).compute().squeeze()
    for k, flag in enumerate(words_of(found["flag"], collapse_fits.FLAGS)):
        parts = (found[f"alpha_c{part}"].values[k] for part in ("", "_low", "_high"))
        yield Asked(str(found["estimator"].values[k]), str(flag), *map(float, parts), TRUTH)


def of_edge_scaling(at: Condition, entropy: int) -> Iterator[Asked]:
    """The amplitude of the planted law, at every alpha."""
    for law, shape in edge_fits.LAWS.items():
        c = EDGE_AMPLITUDE / (1.0 if law == "n_two_thirds" else 10.0)
        ds = planted_coverage.edge_sweep(
            MODEL,
            dict.fromkeys(EDGE_SIZES[at.sizes], at.seeds),
            EDGE_ALPHAS,
            lambda N, shape=shape, c=c: c * shape(N),
            cells=at.cells,
            entropy=entropy,
        )
        found = edge_scaling(ds, prediction=False).compute().squeeze()
        for k in range(len(EDGE_ALPHAS)):
            parts = [float(found[f"{law}_c{part}"].values[k]) for part in ("", "_low", "_high")]
            flag = "estimated" if math.isfinite(sum(parts)) else "not_enough_data"
            yield Asked(f"edge_{law}", flag, *parts, c)


def of_drift(at: Condition, entropy: int) -> Iterator[Asked]:
    """The load seen at every size."""
    seen = planted_drift.place(DRIFTING, "drift", 4.2)
    sizes = DRIFT_SIZES[at.sizes]
    ds = planted_drift.sweep(DRIFTING, seen, dict.fromkeys(sizes, at.seeds), entropy=entropy)
    found = drift(ds, n_boot=N_BOOT, seed=entropy).compute().squeeze()
    flags = words_of(found["flag"], drift_curves.FLAGS)
    for k, N in enumerate(sizes):
        parts = (float(found[f"alpha_seen{part}"].values[k]) for part in ("", "_low", "_high"))
        yield Asked("alpha_seen", str(flags[k]), *parts, seen(N))


FUNCTIONS = {
    "thresholds": of_thresholds,
    "collapse": of_collapse,
    "edge_scaling": of_edge_scaling,
    "drift": of_drift,
}


def measured(at: Condition, replicates: int) -> list[dict[str, Any]]:
    """One row for each estimator of a condition."""
    asked = defaultdict(list)
    start = zlib.crc32(repr(at).encode())
    with threadpool_limits(1):
        for replicate in range(replicates):
            for one in FUNCTIONS[at.function](at, (start + replicate) % 2**32):
                asked[one.name].append(one)
    rows = []
    for name, estimates in asked.items():
        good = [one for one in estimates if one.flag == "estimated"]
        row = at._asdict() | {"estimator": name, "asked": len(estimates), "estimated": len(good)}
        row["flags"] = {
            flag: sum(one.flag == flag for one in estimates) for flag in {one.flag for one in estimates}
        }
        if good:
            held = int(sum(one.low <= one.truth <= one.high for one in good))
            row |= {"held": held, "coverage": held / len(good)}
            row["coverage_error"] = math.sqrt((held + 1) * (len(good) - held + 1) / (len(good) + 2) ** 3)
            row["median_width"] = float(np.median([one.high - one.low for one in good]))
            row["bias"] = float(np.mean([one.value - one.truth for one in good]))
        rows.append(row)
    return rows


HEAD = (
    "estimator",
    "alphas",
    "seeds",
    "cells",
    "sizes",
    "g",
    "asked",
    "estimated",
    "coverage",
    "width",
    "bias",
)


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    share = f"{row['estimated'] / row['asked']:.2f}"
    tail = ["–"] * 3
    if row["estimated"]:
        tail = [
            f"{row['coverage']:.3f} ± {row['coverage_error']:.3f}",
            f"{row['median_width']:.3f}",
            f"{row['bias']:+.3f}",
        ]
    at = (f"{row[key]}" for key in ("estimator", "alphas", "seeds", "cells", "sizes", "correction", "asked"))
    return "| " + " | ".join([*at, share, *tail]) + " |"


def main() -> None:
    """Print the table and write its numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="WORD", help="such as: collapse around seeds=6"
    )
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    todo = chosen(options.only)
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|", flush=True)
    rows: list[dict[str, Any]] = []
    each = partial(measured, replicates=options.replicates)
    with (
        multiprocessing.get_context("spawn").Pool(options.jobs) if options.jobs > 1 else nullcontext() as pool
    ):
        for of_condition in pool.imap(each, todo) if pool else map(each, todo):
            rows += of_condition
            print("\n".join(map(line, of_condition)), flush=True)
            options.json.write_text(json.dumps({"replicates": options.replicates, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
