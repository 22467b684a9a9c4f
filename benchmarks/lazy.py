"""One pass over a store of 1e7 cells, compared with plain xarray on the store's own chunks: seconds and
memory.

    nice python benchmarks/lazy.py [--cells 1e7] [--ways pass plain ...]

Makes a store like those of the engine: layout, theory, tiles, checksums and ledger are written by the
functions of `sweep`, the cells are planted, and every tenth tile is missing. Tiles are cut by the engine's
own rule for a kernel that takes 2 us N per cell. Then each way reads it in a fresh process, with a warm page
cache:

    pass, plain    cells done, mean, standard deviation and the bootstrap error of the mean of eigval_min, by
                   `map_models` on the dataset of engine="bendscape", and by plain xarray on the groups of the
                   store with their own chunks
    limited        the pass, in a process limited to 320 MiB more than it has with the store open
    loaded         loading the whole dataset, under the same limit
    distributed    the pass, in two worker processes of dask.distributed
    thresholds, edge_scaling, collapse, together
                   the analyses, and all three in one pass
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from dask.base import compute

from bendscape.analysis.dataset.curves import resampling_counts
from bendscape.analysis.dataset.models import Output, map_models
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.estimate.thresholds import thresholds
from bendscape.core.quadratic.model import Model
from bendscape.sweep.campaign.axes import Cell
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.engine.plan import plan_campaign
from bendscape.sweep.engine.run import publish
from bendscape.sweep.engine.wanted import wanted_tiles
from bendscape.sweep.kernels.hessian import KERNEL as HESSIAN
from bendscape.sweep.kernels.quadratic import AXES, NETWORK
from bendscape.sweep.location import store_url
from bendscape.sweep.store.compare_and_swap import zarr_store
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.publish import silence_zarr
from bendscape.sweep.store.records import Receipt
from bendscape.sweep.store.tile_store import tile_checksum

NUMBERS = Path(__file__).parent / "lazy.json"
SEEDS, SIZES, ALPHAS = 256, (128, 256, 512, 1024, 2048), 20
CAMPAIGN = f"""
[campaign]
name = "lazy"
store = "unused"
entropy = 20261122
kernel = "hessian"
[grid]
p = [1, 2, 3, 4]
p_star = [1]
a = {{ start = 0.3, stop = 1.9, num = MODELS }}
alpha = {[k / 64 for k in range(40, 40 + 4 * ALPHAS, 4)]}
N = {list(SIZES)}
seeds = {SEEDS}
"""  # M / N is alpha itself at every size
RESAMPLINGS = 100
LIMIT = 320 * 2**20
OUTPUTS = {name: Output(("alpha", "N"), np.float64, {}) for name in ("n", "mean", "sd", "error")}
COUNTS = resampling_counts(SEEDS, RESAMPLINGS, np.random.default_rng(7))[1:]


def _seconds(cell: Cell) -> float:
    return 2e-6 * cell.N


def write(folder: str, cells: float) -> dict[str, int]:
    """Make the store; returns the numbers of its models, tiles, cells and bytes."""
    silence_zarr()
    kernel = Kernel(
        "hessian", HESSIAN.version, HESSIAN.variables, HESSIAN.compute, _seconds, lambda cell: 1e6, **NETWORK
    )
    each = len(SIZES) * SEEDS * ALPHAS
    models = max(1, round(cells / each / 4))
    campaign = parse_campaign(CAMPAIGN.replace("MODELS", str(models)))
    url, grid = store_url(folder), campaign.to_grid(AXES)
    plan = plan_campaign(campaign, kernel)
    ledger = Ledger(connect(url), plan.records)
    ledger.acquire(print)
    publish(url, campaign, plan, None, ledger, lambda: None)
    layout, rng = plan.layout, np.random.default_rng(20261122)
    root = zarr.open_group(zarr_store(url), mode="r+")
    edges = np.asarray(root["lambda_minus"])
    tiles = [tile for tile in wanted_tiles(layout, grid, kernel) if rng.random() < 0.9]
    slabs: dict[tuple[int, int], list[Any]] = {}
    for tile in tiles:
        slabs.setdefault((tile.key.size, tile.key.chunk[0]), []).append(tile)
    for (N, i), of_slab in slabs.items():
        scales = [critical_point(Model(layout.dims["p"][i], 1, a)) for a in layout.dims["a"]]
        fill = {variable.name: variable.fill_value for variable in kernel.variables} | {"status": 0}
        values = planted(N, np.array(layout.dims[layout.curve]), edges[i, 0], scales, rng)
        blocks = {name: np.full(array.shape, fill[name], array.dtype) for name, array in values.items()}
        size, receipts = layout.sizes[N], []
        for tile in of_slab:
            at = tile.key.chunk[2], *layout.region(tile.key)[3:]
            for name, array in values.items():
                blocks[name][at] = array[at]
            whole = {name: block[at] for name, block in blocks.items()}
            check = tile_checksum(whole, tile.mask, size.seed_block)
            count = tile.mask.bit_count()
            receipts.append(
                Receipt(str(tile.key), tile.mask, 0, count, tile.seconds, "host", time.time(), check)
            )
        for name, block in blocks.items():
            root[f"N={N}/{name}"][i, 0] = block  # type: ignore[index]
        ledger.add(receipts)
    ledger.release()
    done = sum(tile.mask.bit_count() for tile in tiles)
    width = sum(np.dtype(variable.dtype).itemsize for variable in kernel.variables) + 1
    return {
        "models": 4 * models,
        "tiles": len(tiles),
        "cells": 4 * models * each,
        "done": done,
        "bytes": done * width,
    }


def planted(
    N: int,
    alpha: npt.NDArray[np.float64],
    edge: npt.NDArray[np.float64],
    scales: list[Any],
    rng: np.random.Generator,
) -> dict[str, npt.NDArray[Any]]:
    """Every variable of the models along a, shape (a, alpha, seed): overlaps rise at the critical load."""
    shape = (len(scales), len(alpha), SEEDS)
    level = np.nan_to_num([scale.overlap_level for scale in scales], nan=0.5)[:, None]
    width = np.nan_to_num([scale.width for scale in scales], nan=5.0)[:, None]
    centre = np.nan_to_num([scale.alpha for scale in scales], nan=1.2)[:, None]
    w = (alpha - centre) * N ** (1 / 3) / width
    mean = level * N ** (-1 / 3) * np.logaddexp(0, 1.4 * w) / np.log(2)
    space = mean[..., None] * rng.gamma(2.0, 0.5, shape)
    noise = rng.standard_normal(shape) / np.sqrt(N)
    lowest = edge[..., None] + 2.5 * N ** (-2 / 3) + 2.5 * noise
    values = {
        "eigval_min": lowest, "eigval_second": lowest + N ** (-2 / 3), "overlap_sq": 1.05 * space,
        "overlap_sq_space": space, "edge_sample": edge[..., None] + 2 * noise, "outlier_sample": lowest,
        "overlap_sq_sample": 0.9 * space, "alpha_realised": np.broadcast_to(alpha[:, None], shape),
        "residual": np.abs(noise) * 1e-12,
    }  # fmt: skip
    return {
        **values, "n_matvecs": np.full(shape, 300, np.int64), "status": np.ones(shape, np.int8),
    }  # fmt: skip


def moments(block: xr.Dataset) -> Mapping[str, Any]:
    """Cells done, mean, standard deviation and bootstrap error of the mean, (alpha, N)."""
    block = block.transpose("alpha", "N", "seed")
    done = block["status"].values == 1
    x = np.where(done, block["eigval_min"].values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        n = done.sum(axis=-1)
        mean = x.sum(axis=-1) / n
        squares = (np.where(done, x - mean[..., None], 0.0) ** 2).sum(axis=-1)
        error = ((x @ COUNTS.T) / (done @ COUNTS.T)).std(axis=-1)
        return {"n": n, "mean": mean, "sd": np.sqrt(squares / n), "error": error}


def opened(folder: str) -> xr.Dataset:
    """The dataset as users open it."""
    return xr.open_dataset(folder, engine="bendscape", chunks={})


def lazy_pass(folder: str) -> xr.Dataset:
    """The pass, without computing it."""
    return map_models(opened(folder), moments, OUTPUTS, ["status", "eigval_min"])


def plain(folder: str) -> xr.Dataset:
    """As one would write it by hand, with the chunks of the store, size by size."""
    tree = xr.open_datatree(folder, engine="zarr", chunks={})
    counts, found = xr.DataArray(COUNTS, dims=("draw", "seed")), []
    for N in SIZES:
        ds = tree[f"N={N}"].to_dataset()
        done = ds["status"] == 1
        x = ds["eigval_min"].where(done)
        draws = xr.dot(counts, x.fillna(0.0), dim="seed") / xr.dot(counts, done.astype(float), dim="seed")
        values = {
            "n": done.sum("seed"),
            "mean": x.mean("seed"),
            "sd": x.std("seed"),
            "error": draws.std("draw"),
        }
        found.append(xr.Dataset(values).assign_coords(N=N))
    return xr.concat(compute(*found), "N")  # type: ignore[no-untyped-call]


def limited(folder: str, work: Callable[[xr.Dataset], xr.Dataset]) -> xr.Dataset:
    """Some work in a process that may take at most ``LIMIT`` beyond its memory with the store open."""
    ds = opened(folder)
    held = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (held + LIMIT, held + LIMIT))
    return work(ds)


def distributed(folder: str) -> xr.Dataset:
    """The pass in two worker processes; their start is not timed."""
    from dask.distributed import Client, LocalCluster

    options: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(2, threads_per_worker=1, **options) as cluster, Client(cluster) as client:  # type: ignore[no-untyped-call]
        client.run(opened, folder)  # imports
        before = client.run(_used)
        started = time.perf_counter()
        found = lazy_pass(folder).compute()
        wall, after = time.perf_counter() - started, client.run(_used)
    cpu = sum(after[worker]["cpu"] - before[worker]["cpu"] for worker in after)
    peak = max(used["peak_mib"] for used in after.values())
    return found.assign_attrs(seconds=wall, cpu=cpu, peak_mib=peak)


def analyses(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """The analyses, lazy, with 200 resamplings."""
    return {
        "thresholds": thresholds(ds),
        "edge_scaling": edge_scaling(ds, prediction=False),
        "collapse": collapse(ds, n_boot=200),
    }


def together(folder: str) -> xr.Dataset:
    """All three in one pass."""
    found = compute(*analyses(opened(folder)).values())  # type: ignore[no-untyped-call]
    return xr.Dataset(attrs={"results": len(found)})


def by_limited_pass(ds: xr.Dataset) -> xr.Dataset:
    """The pass over an open dataset."""
    return map_models(ds, moments, OUTPUTS, ["status", "eigval_min"]).compute()


WAYS: dict[str, Callable[[str], xr.Dataset]] = {
    "nothing": opened,
    "pass": lambda folder: lazy_pass(folder).compute(),
    "plain": plain,
    "limited": lambda folder: limited(folder, by_limited_pass),
    "loaded": lambda folder: limited(folder, lambda ds: ds.load()),
    "distributed": distributed,
    "thresholds": lambda folder: analyses(opened(folder))["thresholds"].compute(),
    "edge_scaling": lambda folder: analyses(opened(folder))["edge_scaling"].compute(),
    "collapse": lambda folder: analyses(opened(folder))["collapse"].compute(),
    "together": together,
}


def _used() -> dict[str, float]:
    """CPU seconds and peak memory of this process; ru_maxrss would include the parent before exec."""
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    return {"cpu": time.process_time(), "peak_mib": peak / 1024}


def measure(way: str, folder: str) -> None:
    """Run one way and print its seconds, its peak memory and a checksum."""
    started, before = time.perf_counter(), time.process_time()
    try:
        result = WAYS[way](folder)
    except MemoryError:
        print(json.dumps({"out_of_memory": True}))
        return
    used = _used()
    row = {
        "seconds": time.perf_counter() - started,
        "cpu": used["cpu"] - before,
        "peak_mib": used["peak_mib"],
    }
    row |= {name: result.attrs[name] for name in row if name in result.attrs}
    check = [float(result[name].sum()) for name in OUTPUTS if name in result]
    print(json.dumps({**row, "check": check}))


def main() -> None:
    """Make the store, run every way in a process of its own, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=float, default=1e7)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS][1:], default=[*WAYS][1:])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        measure(*asked.measure)
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        found["store"] = store = write(folder, asked.cells)
        print(
            f"{store['cells']:.3g} cells of {store['models']} models in {store['tiles']} tiles",
            file=sys.stderr,
        )
        for way in ("pass", "nothing", *asked.ways):  # the first warms the caches
            command = [sys.executable, __file__, "--measure", way, folder]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode and way != "loaded":
                raise SystemExit(f"{way}: {done.stderr}")
            found[way] = json.loads(done.stdout) if done.returncode == 0 else {"out_of_memory": True}
            print(way, found[way], file=sys.stderr)
    checks = [found[way]["check"] for way in ("pass", "plain", "limited", "distributed") if way in found]
    for check in checks:
        np.testing.assert_allclose(check, checks[0], rtol=1e-9)
    base = found["nothing"]["peak_mib"]
    print(
        f"{store['cells']:.3g} cells, {store['done']:.3g} of them done, in {store['tiles']} tiles, "
        f"{store['bytes'] / 2**20:.0f} MiB uncompressed, of which the pass reads "
        f"{store['done'] * 9 / 2**20:.0f} MiB; {os.cpu_count()} cores; imports take {base:.0f} MiB"
    )
    print("| way | seconds | CPU seconds | peak MiB above the imports |\n|---|---|---|---|")
    for way in asked.ways:
        row = found[way]
        if "seconds" not in row:
            print(f"| {way} | out of memory | | |")
            continue
        print(f"| {way} | {row['seconds']:.1f} | {row['cpu']:.1f} | {row['peak_mib'] - base:.0f} |")
    if {"pass", "plain"} <= set(asked.ways):
        found["ratios"] = {key: found["plain"][key] / found["pass"][key] for key in ("seconds", "cpu")}
        found["ratios"]["peak"] = (found["plain"]["peak_mib"] - base) / (found["pass"]["peak_mib"] - base)
        print("plain over pass: " + ", ".join(f"{key} {ratio:.1f}" for key, ratio in found["ratios"].items()))
    NUMBERS.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
