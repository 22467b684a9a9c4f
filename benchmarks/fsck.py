"""How long a check of a store takes: one request after another, and with many on their way together.

    python benchmarks/fsck.py [--models 20] [--latency 0.02 0.1] [--threads 1 4 16]

A store with the variables of the kernel `hessian`, a hundred cells and 11 objects a tile, on plain files and
on an S3 server on loopback whose every answer takes `latency` seconds longer. The server is in this process
and answers one request at a time, so it bounds what threads can gain: its own rate is measured too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from s3_server import S3Server

from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.engine.executor import SerialExecutor
from bendscape.sweep.engine.run import run_campaign
from bendscape.sweep.location import store_url
from bendscape.sweep.store import objects
from bendscape.sweep.store.fsck import fsck
from bendscape.sweep.store.publish import silence_zarr

HERE = Path(__file__).parent
MODULE = str(HERE / "store_requests_kernel.py")
CAMPAIGN = """
[campaign]
name = "fsck"
store = "unused"
entropy = 1
kernel = "requests"
[grid]
p = [1]
p_star = [1]
a = {{ start = 0.5, stop = 1.5, num = {models} }}
alpha = {{ start = 0.5, stop = 2.0, num = 10 }}
N = [64]
seeds = 20
"""


def make(url: str, models: int) -> None:
    """A complete store."""
    campaign, kernel = parse_campaign(CAMPAIGN.format(models=models)), load_kernel("requests", [MODULE])
    console = Console(quiet=True)
    done = run_campaign(campaign, url, kernel, SerialExecutor, console=console, kernel_modules=(MODULE,))
    assert done.outcome == "complete"


def check(url: str, threads: int) -> tuple[int, float, float]:
    """Tiles, and seconds by the wall and of the CPU, of a check with so many threads."""
    objects.together.__defaults__ = (threads,)
    wall, cpu = time.perf_counter(), time.process_time()
    found = fsck(url)
    assert found.sound
    return found.tiles, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Check each store with each number of threads, print the table, write fsck.json beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.02, 0.1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16])
    asked = parser.parse_args()
    silence_zarr()
    server = S3Server()
    os.environ.update(server.environment)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        places = {"files": (store_url(folder), 0.0), "S3": (server.new_url(), 0.0)}
        for url, _ in places.values():
            make(url, asked.models)
        places |= {f"S3, {1e3 * latency:g} ms": (places["S3"][0], latency) for latency in asked.latency}
        for name, (url, server.latency) in places.items():
            for threads in asked.threads:
                tiles, wall, cpu = check(url, threads)
                rows.append({"store": name, "threads": threads, "tiles": tiles, "wall": wall, "cpu": cpu})
    table = Table("store", "threads", "tiles", "s", "ms a tile", "CPU ms a tile", "times")
    for row in rows:
        alone = next(of["wall"] for of in rows if of["store"] == row["store"])
        each = (1e3 * row[kind] / row["tiles"] for kind in ("wall", "cpu"))
        table.add_row(
            row["store"], str(row["threads"]), str(row["tiles"]), f"{row['wall']:.2f}",
            *(f"{ms:.1f}" for ms in each), f"{alone / row['wall']:.1f}",
        )  # fmt: skip
    Console().print(table)
    (HERE / "fsck.json").write_text(json.dumps(rows, indent=2))
    server.stop()


if __name__ == "__main__":
    main()
