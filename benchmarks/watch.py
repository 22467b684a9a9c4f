"""What the live page asks of an object store, and what a look and a frame take as the store grows.

    python benchmarks/watch.py [--json FILE]

Requests are counted by an S3 server on loopback (tests/s3_server.py; the extra `dev`), of a store while it is
filled, and when it is finished. Times are those of one look with one frame at stores of growing numbers of
tiles, on files, relative to the smallest: with nothing new, and with one new tile.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from s3_server import S3Server

from bendscape.analysis.live.frame import Watch
from bendscape.sweep.campaign.tiles import TileKey
from bendscape.sweep.engine.executor import SerialExecutor
from bendscape.sweep.store import ledger as ledger_module
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.records import Receipt
from campaigns import IdleExecutor, campaign_text, parse_campaign, run, write_kernel

TILES = (100, 1_000, 10_000)
REPEATS = 15


class Watched(SerialExecutor):
    """Takes a look after each job."""

    def __init__(self, watch: Watch, server: S3Server, costs: list[dict[str, int]]) -> None:
        self._watch, self._server, self._costs = watch, server, costs

    def run(self, next_job: Any) -> Iterator[Any]:
        for result in super().run(next_job):
            yield result
            self._costs.append(requests(self._watch, self._server))


def requests(watch: Watch, server: S3Server) -> dict[str, int]:
    """The requests of one look and one frame, by what they are for."""
    before = len(server.requests)
    watch.look()
    watch.frame()
    made = [path for _, path in server.requests[before:]]
    segments, chunks = (sum(part in path for path in made) for part in ("/segments/", "/c/"))
    return {"segments": segments, "chunks": chunks, "others": len(made) - segments - chunks}


def asked(folder: Path) -> dict[str, Any]:
    """Requests while a store is filled and when it is finished."""
    server = S3Server()
    import os

    os.environ.update(server.environment)
    module = write_kernel(folder, "return Outcome({'x': 1.0})")
    url, costs = server.new_url(), list[dict[str, int]]()
    campaign = parse_campaign(campaign_text())
    run(url, module, campaign, IdleExecutor())
    watch = Watch(url, [module])
    requests(watch, server)
    flush, ledger_module.FLUSH_SECONDS = ledger_module.FLUSH_SECONDS, 0.0
    run(url, module, campaign, Watched(watch, server, costs))
    ledger_module.FLUSH_SECONDS = flush
    requests(watch, server)
    idle = requests(watch, server)
    server.stop()
    return {"at work": costs[1:], "finished": idle}


def taken(folder: Path, tiles: int) -> dict[str, float]:
    """Seconds of a look with a frame, with nothing new and with one new tile of a row that is not watched."""
    seeds = 8
    models = math.isqrt(tiles)
    values = [round(0.1 + 0.01 * k, 2) for k in range(models)]
    text = campaign_text(
        a=values, alpha=[round(0.1 * k, 2) for k in range(1, models + 1)], N=[32], seeds=seeds
    )
    module = write_kernel(folder, "return Outcome({'x': 1.0})")
    place = folder / "s.zarr"
    run(place, module, parse_campaign(text), IdleExecutor())
    watch = Watch(str(place), [module])
    watch.look()
    assert watch.following.plan is not None
    layout = watch.following.plan.layout
    shape = layout.tile_shape(32)
    # Receipts alone: what a look reads of other rows is the ledger.
    keys = [TileKey(32, tuple(map(int, at))) for at in np.ndindex(*shape)]
    writer = Ledger(connect(watch.following.url))
    writer.acquire(lambda line: None)
    writer.add(
        Receipt(str(key), 2**8 - 1, computed=8, seconds=1.0, finished=time.time())
        for key in keys
        if key.chunk[2]
    )
    writer.flush()
    watch.look()
    idle, new = [], []
    for k in range(REPEATS):
        begun = time.perf_counter()
        watch.look()
        watch.frame()
        idle.append(time.perf_counter() - begun)
        writer.add([Receipt(str(keys[-1 - k]), 2**8 - 1, computed=8, seconds=1.0, finished=time.time())])
        writer.flush()
        begun = time.perf_counter()
        watch.look()
        watch.frame()
        new.append(time.perf_counter() - begun)
    writer.release()
    return {
        "tiles": len(keys),
        "nothing new": statistics.median(idle),
        "one new tile": statistics.median(new),
    }


def main() -> None:
    """Count, time, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    into = parser.parse_args().json
    with tempfile.TemporaryDirectory() as made:
        folders = [Path(made, str(k)) for k in range(len(TILES) + 1)]
        for folder in folders:
            folder.mkdir()
        counted = asked(folders[0])
        times = [taken(folder, tiles) for folder, tiles in zip(folders[1:], TILES, strict=True)]
    print("requests of a look, at work: (segments, chunks, others)")
    for cost in counted["at work"]:
        print("  ", *cost.values())
    print("finished:", sum(counted["finished"].values()))
    first = times[0]
    for row in times:
        ratios = ", ".join(
            f"{name} {row[name] * 1e3:.1f} ms ({row[name] / first[name]:.1f} times)"
            for name in ("nothing new", "one new tile")
        )
        print(f"{row['tiles']} tiles: {ratios}")
    if into is not None:
        into.write_text(json.dumps({"requests": counted, "times": times}, indent=1))


if __name__ == "__main__":
    main()
