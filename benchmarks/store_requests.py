"""Requests and bytes that a tile costs on an object store: a run, readers and a check.

    python benchmarks/store_requests.py [--tiles 8 32]

A store with the variables of the kernel `hessian`, a hundred cells a tile, on an S3 server on loopback that
counts what it is asked. Two campaigns that differ in their number of tiles alone are run by one worker; the
difference, over the tiles that one has more, is what a tile costs, and the rest is what a run costs once.
Heartbeats, which go by the clock, are not counted, and nothing is flushed by the clock.

`packed` is what one object a tile would cost and be: the same cells written by zarr into one array for each
type of number, with a last dimension `variable`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from s3_server import S3Server

from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.campaign.tiles import Layout, TileKey
from bendscape.sweep.engine.executor import Job, Result, SerialExecutor
from bendscape.sweep.engine.run import run_campaign
from bendscape.sweep.engine.worker import Order, run_tiles
from bendscape.sweep.store import ledger
from bendscape.sweep.store.compare_and_swap import CompareAndSwap, zarr_store
from bendscape.sweep.store.fsck import fsck
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.publish import silence_zarr
from bendscape.sweep.store.root import open_store

HERE = Path(__file__).parent
MODULE = str(HERE / "store_requests_kernel.py")
CAMPAIGN = """
[campaign]
name = "requests"
store = "unused"
entropy = 1
kernel = "requests"
[grid]
p = [1]
p_star = [1]
a = {{ start = 0.5, stop = 1.5, num = {models} }}
alpha = {alpha}
N = [64]
seeds = 20
"""
ALPHA = "{ start = 0.5, stop = 2.0, num = 10 }"
RELATIVE = '{ around = "alpha_bbp", start = 0.5, stop = 2.0, num = 10 }'
TILES_OF_A_MODEL = 2
FAR, FAR_TILES = 0.05, 16
METHODS = ("PUT", "GET", "HEAD", "LIST", "DELETE")


class Counted:
    """What the server was asked since `start`, by method; a GET of a bucket is a LIST."""

    def __init__(self, server: S3Server) -> None:
        self.server = server

    def __call__(self, work: Callable[[], object]) -> Counter[str]:
        """The requests and bytes of some work."""
        server = self.server
        server.requests.clear()
        server.received = server.sent = 0
        work()
        found = Counter(_method(*request) for request in server.requests if not request[1].endswith(".beat"))
        return found + Counter({"up": server.received, "down": server.sent})


def _method(method: str, path: str) -> str:
    return "LIST" if method == "GET" and path.count("/") <= 2 and not path.endswith("zarr.json") else method


def measure(server: S3Server, models: int, alpha: str) -> dict[str, Counter[str]]:
    """Every kind of access to a store of that many models."""
    counted, url = Counted(server), server.new_url()
    campaign = parse_campaign(CAMPAIGN.format(models=models, alpha=alpha))
    kernel, console = load_kernel("requests", [MODULE]), Console(quiet=True)

    def run() -> None:
        done = run_campaign(campaign, url, kernel, SerialExecutor, console=console, kernel_modules=(MODULE,))
        assert done.outcome == "complete"

    def read(names: list[str]) -> None:
        with xr.open_dataset(url, engine="bendscape", chunks={}) as ds:
            ds[names].load()

    def plain() -> None:
        with xr.open_zarr(zarr_store(url), group="N=64") as ds:
            ds.load()

    names = [variable.name for variable in kernel.variables]
    found = {
        "run": counted(run),
        "run again": counted(run),
        "read one variable": counted(lambda: read(names[:1])),
        "read all variables": counted(lambda: read([*names, "status"])),
        "plain xr.open_zarr": counted(plain),
        "fsck": counted(lambda: fsck(url)),
    }
    assert fsck(url).sound
    packed, store = server.new_url(), open_store(url)
    blocks = {name: store.read(f"N=64/{name}") for name in [*names, "status"]}
    found["packed: write"] = counted(lambda: write_packed(packed, store.layout, blocks))
    found["packed: read"] = counted(lambda: xr.open_zarr(zarr_store(packed)).load())
    return found


def seconds_of_a_tile(server: S3Server, latency: float) -> float:
    """Median time of a worker for a tile that costs nothing to compute, on a server so far away."""
    url, kernel = server.new_url(), load_kernel("requests", [MODULE])
    campaign = parse_campaign(CAMPAIGN.format(models=FAR_TILES // TILES_OF_A_MODEL, alpha=ALPHA))

    class Nobody(SerialExecutor):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            yield from ()

    console = Console(quiet=True)
    run_campaign(campaign, url, kernel, Nobody, console=console, kernel_modules=(MODULE,))
    layout, seconds = open_store(url).layout, []
    server.latency = latency
    for index in np.ndindex(*layout.tile_shape(64)):
        key, began = TileKey(64, index), time.perf_counter()
        run_tiles(Order(url, 1, (MODULE,), ((str(key), (1 << layout.tile_cells(64)) - 1),)))
        seconds.append(time.perf_counter() - began)
    server.latency = 0.0
    return float(np.median(seconds))


def write_packed(packed: str, layout: Layout, blocks: dict[str, NDArray[Any]]) -> None:
    """The cells of a store as one array for each type of number, written tile by tile."""
    kinds: dict[str, list[str]] = {}
    for name, block in blocks.items():
        kinds.setdefault(str(block.dtype), []).append(name)
    target = CompareAndSwap(connect(packed))
    zarr.create_group(target, overwrite=False)
    size, arrays = 64, {}
    for kind, of in kinds.items():
        arrays[kind] = zarr.create_array(
            target, name=kind, shape=(*layout.shape(size), len(of)), chunks=(*layout.chunks(size), len(of)),
            dtype=kind, dimension_names=(*layout.cell_dims, f"variable_{kind}"),
            config={"write_empty_chunks": True},
        )  # fmt: skip
    target.forget()
    zarr.consolidate_metadata(zarr_store(packed))
    for index in np.ndindex(*layout.tile_shape(size)):
        region = layout.region(TileKey(size, index))
        for kind, of in kinds.items():
            arrays[kind][region] = np.stack([blocks[name][region] for name in of], axis=-1)


def main() -> None:
    """Measure two campaigns, print what a tile costs, write store_requests.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, nargs=2, default=[8, 32])
    few, many = parser.parse_args().tiles
    ledger.FLUSH_SECONDS = 1e9
    silence_zarr()
    server = S3Server()
    os.environ.update(server.environment)
    document: dict[str, Any] = {}
    for title, alpha in (("alpha as it is", ALPHA), ("alpha around a threshold", RELATIVE)):
        small, large = (measure(server, tiles // TILES_OF_A_MODEL, alpha) for tiles in (few, many))
        table = Table("a tile", *METHODS, "requests", "kB up", "kB down", "once", title=title)
        for name, of in small.items():
            cost = {kind: (large[name][kind] - of[kind]) / (many - few) for kind in (*METHODS, "up", "down")}
            requests = sum(cost[method] for method in METHODS)
            once = sum(of[method] for method in METHODS) - few * requests
            row = [*(f"{cost[method]:.2f}" for method in METHODS), f"{requests:.2f}"]
            table.add_row(name, *row, f"{cost['up'] / 1e3:.2f}", f"{cost['down'] / 1e3:.2f}", f"{once:.0f}")
            document.setdefault(title, {})[name] = {**cost, "requests": requests, "once": once}
        Console(width=130).print(table)
    seconds = seconds_of_a_tile(server, FAR)
    document["seconds"] = seconds
    print(
        f"at {1e3 * FAR:g} ms for every answer, a worker takes {seconds:.2f} s to look at a tile and write it"
    )
    (HERE / "store_requests.json").write_text(json.dumps(document, indent=2))
    server.stop()


if __name__ == "__main__":
    main()
