"""Accuracy of the intervals and choices of ``analysis/estimate/drift.py``, and results for drawn labels.

    python benchmarks/drift.py                     # planted sweeps (two minutes)
    python benchmarks/drift.py --sampled           # a campaign of labels, ten minutes on one core, resumable

Planted: cells show the teacher with probability exp(-kappa), with kappa shifted to a load that follows either
law, at the sizes and seeds of ``tests/planted_drift.py`` or half the seeds, and with a width other than
theory's. Printed: bias of alpha_seen, mean statistical and systematic error; fractions of truths within one
statistical error, the 95 per cent interval and two total errors; then fractions of the outcomes. Sampled:
campaigns/drift.toml with fewer seeds, through the engine.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import planted_drift
import xarray as xr

from bendscape.analysis.estimate.drift import OUTCOMES, drift
from bendscape.analysis.estimate.drift_curves import FLAGS
from bendscape.core.quadratic.model import Model
from bendscape.sweep.campaign.file import parse_campaign
from campaigns import run

MODELS = (Model(2, 1, 1.5), Model(8, 1, 1.5))
FEWER = "seeds = { 10000 = 200, 30000 = 100, 100000 = 60, 300000 = 30, 1000000 = 16, 10000000 = 5 }"
TOLD = ("drift", "no_drift", "cannot_tell", "neither", "not_enough_data")


def planted(repeats: int) -> None:
    """Print the table of planted sweeps."""
    print(
        "| model | law | amplitude | seeds | width | bias | stat. | syst. | 1 s.e. | 95 % | 2 total | ",
        end="",
    )
    print("outcomes |\n" + "|---" * 12 + "|")
    for model in MODELS:
        for law, amplitude, share, stretch in (
            ("drift", 4.2, 1.0, 1.0),
            ("drift", 4.2, 0.5, 1.0),
            ("drift", 4.2, 1.0, 0.7),
            ("no_drift", 0.31, 1.0, 1.0),
            ("no_drift", 0.31, 0.5, 1.0),
            ("no_drift", 0.31, 1.0, 0.7),
        ):
            seeds = {N: max(4, round(share * n)) for N, n in planted_drift.SEEDS.items()}
            seen = planted_drift.place(model, law, amplitude)
            rows, outcomes = [], Counter[str]()
            for repeat in range(repeats):
                ds = planted_drift.sweep(model, seen, seeds, stretch=stretch, entropy=repeat)
                at = drift(ds, n_boot=400).compute().squeeze()
                outcomes[tuple(OUTCOMES)[int(at["law"])]] += 1
                rows.append([at[f"alpha_seen{part}"] - seen(at["N"]) for part in ("", "_low", "_high")])
                rows[-1] += [at[f"alpha_seen_{part}"] for part in ("error", "systematic", "total_error")]
            off, low, high, error, systematic, total = np.array(rows).transpose(1, 0, 2)
            ok = np.isfinite(off)
            inside = (np.nan_to_num(low, nan=-9) <= 0) & (np.nan_to_num(high, nan=9) >= 0)
            shares = (np.abs(off) < error)[ok], inside[ok], (np.abs(off) < 2 * total)[ok]
            told = ", ".join(f"{name} {outcomes[name] / repeats:.2f}" for name in TOLD if outcomes[name])
            print(
                f"| ({model.p}, 1, 1.5) | {law} | {amplitude} | {share:g} | {stretch} | "
                f"{off[ok].mean():+.4f} | {np.nanmean(error):.4f} | {np.nanmean(systematic):.4f} | "
                + " | ".join(f"{x.mean():.2f}" for x in shares)
                + f" | {told} |",
                flush=True,
            )  # fmt: skip


def sampled(store: Path) -> None:
    """Fill the store, and print the results for each model."""
    text = (Path(__file__).parent.parent / "campaigns" / "drift.toml").read_text()
    text = re.sub(r"seeds = .*", FEWER, text).replace(", 3000000, ", ", ")
    text = text.replace("or (N == 3000000 and 0.91 < alpha < 1.11) ", "")
    run(store, "", parse_campaign(text))
    report(store)


def report(store: Path) -> None:
    """Print the results for each model of a store."""
    found = drift(xr.open_dataset(store, engine="bendscape", chunks={}), free_alpha_bbp=True).compute()
    for p in found["p"].values:
        at = found.sel(p=p).squeeze()
        print(f"({p}, 1, 1.5): alpha_bbp {at.alpha_bbp:.4f}, N_x {at.crossover_size:.3g}")
        print(
            "| N | seeds | alpha_seen | 95 % | systematic | width | alpha_bbp(N) | K |\n" + "|---" * 8 + "|"
        )
        for N in found["N"].values:
            of = at.sel(N=N)
            flag = tuple(FLAGS)[int(of.flag)]
            if flag not in ("estimated", "interval_leaves_the_alpha_range"):
                print(f"| {N:g} | {of.n_seeds:d} | {flag} |")
                continue
            effective = (of.alpha_bbp - of.alpha_seen) * np.log(N)
            print(
                f"| {N:g} | {of.n_seeds:d} | {of.alpha_seen:.4f}({of.alpha_seen_error:.4f}) | "
                f"[{of.alpha_seen_low:.4f}, {of.alpha_seen_high:.4f}] | {of.alpha_seen_systematic:.4f} | "
                f"{of.stretch:.2f} | {of.alpha_bbp_at_size:.4f} | {effective:.2f} |"
            )
        print(f"law {tuple(OUTCOMES)[int(at.law)]}")
        for name in sorted(set(found.data_vars) - {"law"}):
            if found[name].dims == ("p", "p_star", "a"):
                print(f"  {name} {at[name].item():.4g}", end="")
        print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--sampled", action="store_true")
    parser.add_argument("--store", type=Path, default=Path("build/drift-sampled.zarr"))
    options = parser.parse_args()
    with threadpool_limits(1):
        if options.sampled:
            sampled(options.store)
        else:
            planted(options.repeats)


if __name__ == "__main__":
    main()
