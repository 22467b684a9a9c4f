"""One pass over 1e7 cells against plain xarray with the store's own chunks: seconds and peak memory.

    nice python benchmarks/lazy.py

Writes a sweep of 400 models, 20 alphas, 5 sizes and 256 seeds to a temporary folder, in tiles like the
engine's (one model, one size, 20 alphas, 128 seeds), and reads it in a fresh process for each way, on the
threaded scheduler, page cache warm. The task of ``pass`` and ``plain`` is the same: cells done, mean and
standard deviation of eigval_min over seeds; ``edge_scaling`` is the whole analysis but for the prediction.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bendscape.analysis.edge_scaling import edge_scaling
from bendscape.analysis.models import Output, map_models

NUMBERS = Path(__file__).parent / "lazy.json"
MODELS = {"p": np.arange(1, 6), "p_star": np.arange(1, 5), "a": np.linspace(0.5, 2.4, 20)}
ALPHA = np.arange(20, 40) / 64  # M / N is alpha itself at every size
SIZES = (128, 256, 512, 1024, 2048)
SEEDS, SEED_BLOCK = 256, 128
DIMS = ("p", "p_star", "a", "alpha", "N", "seed")


def write(folder: Path) -> None:
    """The sweep, model by model along p; every tenth cell is absent."""
    rng = np.random.default_rng(20261122)
    models, points = tuple(map(len, MODELS.values())), (*map(len, MODELS.values()), len(ALPHA))
    coords = MODELS | {"alpha": ALPHA, "N": np.array(SIZES), "seed": np.arange(SEEDS)}
    theory = {
        "alpha_bbp": (DIMS[:3], np.ones(models)),
        "transition": (DIMS[:3], np.zeros(models, np.int8)),
        "lambda_minus": (DIMS[:4], np.full(points, -1.0)),
    }
    xr.Dataset(theory, coords).to_zarr(folder, zarr_format=3, consolidated=False)
    shape = (*points, len(SIZES), SEEDS)
    chunks = (1, 1, 1, len(ALPHA), 1, SEED_BLOCK)
    scale = np.array(SIZES)[:, None] ** -0.5
    names = ("status", "eigval_min", "edge_sample", "overlap_sq", "overlap_sq_space", "alpha_realised")
    for i in range(models[0]):
        status = (rng.random((1, *shape[1:])) < 0.9).astype(np.int8)
        values = -1 + scale * rng.standard_normal(status.shape)
        ds = xr.Dataset({name: (DIMS, np.where(status, values, np.nan)) for name in names})
        ds["alpha_realised"] = DIMS, np.where(status, ALPHA[:, None, None], np.nan)
        ds["status"] = DIMS, status
        encoding: Any = {name: {"chunks": chunks} for name in names} if i == 0 else None
        append: Any = {"mode": "a"} if i == 0 else {"append_dim": "p"}
        ds.to_zarr(folder, zarr_format=3, consolidated=False, encoding=encoding, **append)


def moments(block: xr.Dataset) -> dict[str, Any]:
    """Cells done, mean and standard deviation, (alpha, N)."""
    done = block["status"].values == 1
    x = block["eigval_min"].values
    n = done.sum(axis=-1)
    mean = np.where(done, x, 0.0).sum(axis=-1) / n
    squares = np.where(done, x - mean[..., None], 0.0)
    return {"n": n, "mean": mean, "sd": np.sqrt((squares**2).sum(axis=-1) / n)}


def by_pass(folder: str) -> xr.Dataset:
    """In one pass over the models."""
    ds = xr.open_zarr(folder, chunks=None, consolidated=False)
    outputs = {name: Output(("alpha", "N"), np.float64, {}) for name in ("n", "mean", "sd")}
    return map_models(ds, moments, outputs, ["status", "eigval_min"]).compute()


def by_plain_xarray(folder: str) -> xr.Dataset:
    """As one would write it, with the chunks that the store has."""
    ds = xr.open_zarr(folder, chunks={}, consolidated=False)
    done = ds["status"] == 1
    x = ds["eigval_min"].where(done)
    found = {"n": done.sum("seed"), "mean": x.mean("seed"), "sd": x.std("seed")}
    return xr.Dataset(found).compute()


def by_edge_scaling(folder: str) -> xr.Dataset:
    """Means, medians, their errors, both fits and the choice."""
    ds = xr.open_zarr(folder, chunks=None, consolidated=False)
    return edge_scaling(ds, prediction=False).compute()


def nothing(folder: str) -> xr.Dataset:
    """Imports alone, for the memory they take."""
    return xr.open_zarr(folder, chunks=None, consolidated=False)


WAYS = {"nothing": nothing, "pass": by_pass, "plain": by_plain_xarray, "edge_scaling": by_edge_scaling}


def measure(way: str, folder: str) -> None:
    """Run one way and print its seconds, its peak memory and a checksum."""
    started, used = time.perf_counter(), time.process_time()
    result = WAYS[way](folder)
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent before exec
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    check = [float(result[name].sum()) for name in ("n", "mean", "sd") if name in result]
    print(json.dumps({"seconds": wall, "cpu": cpu, "peak_mib": peak, "check": check}))


def main() -> None:
    """Write the sweep, run every way in a process of its own, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", nargs=2)
    asked = parser.parse_args().measure
    if asked:
        measure(*asked)
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        cells = int(np.prod([len(axis) for axis in MODELS.values()])) * len(ALPHA) * len(SIZES) * SEEDS
        for way in ("nothing", *WAYS):  # the first warms the caches
            command = [sys.executable, __file__, "--measure", way, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[way] = json.loads(done.stdout)
    np.testing.assert_allclose(found["pass"]["check"], found["plain"]["check"], rtol=1e-9)
    base = found["nothing"]["peak_mib"]
    print(f"{cells:.3g} cells, {os.cpu_count()} cores; imports take {base:.0f} MiB")
    print("| way | seconds | CPU seconds | peak MiB above the imports |\n|---|---|---|---|")
    for way in ("pass", "plain", "edge_scaling"):
        row = found[way]
        print(f"| {way} | {row['seconds']:.1f} | {row['cpu']:.1f} | {row['peak_mib'] - base:.0f} |")
    found["cells"] = cells
    found["ratio_seconds"] = found["plain"]["seconds"] / found["pass"]["seconds"]
    found["ratio_peak"] = (found["plain"]["peak_mib"] - base) / (found["pass"]["peak_mib"] - base)
    print(f"plain over pass: seconds {found['ratio_seconds']:.1f}, memory {found['ratio_peak']:.1f}")
    NUMBERS.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
