"""A tile may have several writers at once: the union of their cells is kept, bit for bit, on files and S3."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bendscape.sweep.campaign.file import Campaign
from bendscape.sweep.campaign.kernel import STATUS, Kernel
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.campaign.tiles import TileKey
from bendscape.sweep.engine.worker import Order, Superseded, run_tiles
from bendscape.sweep.location import store_url
from bendscape.sweep.store import tile_store
from bendscape.sweep.store.objects import connect, exclusive
from bendscape.sweep.store.root import open_store
from bendscape.sweep.store.tile_store import FINISHED, TileStore, mask_of, tile_checksum
from campaigns import IdleExecutor, make_campaign, run

KernelFile = Callable[..., str]
TILE = TileKey(64, (0, 0, 0, 0, 0))
SMALL: dict[str, Any] = {"p": [1], "a": [0.7], "N": [64], "alpha": [0.8, 1.2], "seeds": 4}
CELLS = 8
VARIABLES = "Variable('x', 'a number'), Variable('k', 'a count', 'int64')"


class Place:
    """An empty published store of one tile, and what its writers need."""

    def __init__(self, url: str, module: str, campaign: Campaign | None = None) -> None:
        self.url, self.module = url, module
        run(url, module, campaign or make_campaign(**SMALL), IdleExecutor())
        self.layout = open_store(url).layout
        self.kernel: Kernel = load_kernel("probe", [module])

    def writer(self) -> TileStore:
        return TileStore(self.url, self.layout, self.kernel)

    def own(self, bits: list[int], status: str = "done", value: float = 0.0) -> dict[str, Any]:
        """A block with these cells computed; the value of a cell is its bit, unless told."""
        block = self.writer().empty(TILE)
        for bit in bits:
            slot = divmod(bit, 4)
            block["status"][slot] = STATUS[status]
            if status != "failed":
                block["x"][slot], block["k"][slot] = value or bit + 0.5, bit + 1
        return block

    def found(self) -> dict[str, Any]:
        return {name: self.writer().read(TILE, name).ravel().tolist() for name in ("x", "k", "status")}

    def complete(self) -> dict[str, Any]:
        block = self.own(list(range(CELLS)))
        return {name: values.ravel().tolist() for name, values in block.items()}


@pytest.fixture
def place(url: str, kernel_file: KernelFile) -> Place:
    return Place(url, kernel_file("return Outcome({'x': cell.seed, 'k': 1})", VARIABLES))


def nothing() -> None:
    """A check that always passes."""


@pytest.mark.parametrize("trial", [0, 1, *(pytest.param(k, marks=pytest.mark.slow) for k in range(2, 12))])
def test_concurrent_writers_of_one_tile_leave_the_union_of_their_cells(place: Place, trial: int) -> None:
    order = random.Random(trial).sample(range(CELLS), CELLS)
    barrier = threading.Barrier(4, timeout=60)

    def work(bits: list[int]) -> None:
        writer = place.writer()
        for bit in bits:
            barrier.wait()
            writer.update(TILE, place.own([bit]), nothing)

    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(work, order[i::4]) for i in range(4)]:
            job.result(timeout=60)
    assert place.found() == place.complete()


@pytest.mark.parametrize("stage", ["x", "k", "status"])
@pytest.mark.parametrize("before", [[], [7]], ids=["fresh", "begun"])
def test_a_writer_between_the_read_and_the_write_of_another_keeps_its_cells(
    place: Place, monkeypatch: pytest.MonkeyPatch, stage: str, before: list[int]
) -> None:
    if before:
        place.writer().update(TILE, place.own(before), nothing)
    first, second = place.writer(), place.writer()
    merge, started = tile_store._merge, threading.Event()
    other = threading.Thread(target=lambda: second.update(TILE, place.own([4, 5, 6]), nothing))

    def interrupted(name: str, own: Any, stored: Any, absent: Any) -> Any:
        merged = merge(name, own, stored, absent)
        if name == stage and not started.is_set() and threading.current_thread() is not other:
            started.set()
            other.start()
            other.join(timeout=2 if place.url.startswith("file") else 60)  # on files it waits for the lock
        return merged

    monkeypatch.setattr(tile_store, "_merge", interrupted)
    own = first.update(TILE, place.own([0, 1, 2, 3]), nothing)
    other.join(timeout=60)
    assert started.is_set()
    last = place.writer().update(TILE, place.own([7]), nothing)
    assert last["status"].all()
    # What a writer is told has every cell that it calls finished: its checksum is that of the final tile.
    mask = mask_of(own["status"], FINISHED, 4)
    assert mask & 0b1111 == 0b1111
    assert tile_checksum(own, mask, 4) == tile_checksum(last, mask, 4)
    assert place.found() == place.complete()


def test_a_finished_cell_is_not_replaced_by_a_failure_nor_by_other_bits(place: Place) -> None:
    writer = place.writer()
    writer.update(TILE, place.own([0, 1], "failed"), nothing)
    writer.update(TILE, place.own([1, 2]), nothing)
    writer.update(TILE, place.own([1], "failed"), nothing)
    status = writer.update(TILE, place.own([1, 2], "not_converged", value=99.0), nothing)["status"]
    kinds = [STATUS[kind] for kind in ("failed", "done", "done")]
    assert status.ravel().tolist()[:3] == kinds
    found = place.found()
    assert found["x"][1:3] == [1.5, 2.5]
    assert np.isnan(found["x"][0])
    assert not any(found["status"][3:])


def test_a_nan_keeps_its_bits_when_its_tile_is_written_again(place: Place) -> None:
    writer, values = place.writer(), place.own([0, 1, 2])
    nans = np.array([0xFFF8000000000000, 0x7FF8000000001234, 0x7FF8000000000000], dtype=np.uint64)
    values["x"].ravel()[:3] = nans.view(np.float64)
    writer.update(TILE, values, nothing)
    last = writer.update(TILE, place.own([4, 5]), nothing)
    assert last["x"].ravel()[:3].view(np.uint64).tolist() == nans.tolist()
    assert writer.read(TILE, "x").ravel()[:3].view(np.uint64).tolist() == nans.tolist()


def test_status_names_no_cell_whose_variables_are_not_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = TileStore._put

    def dying(self: TileStore, key: Any, variable: Any, *rest: Any) -> Any:
        if variable.name == "status":
            raise KeyboardInterrupt
        return put(self, key, variable, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(TileStore, "_put", dying)
        with pytest.raises(KeyboardInterrupt):
            place.writer().update(TILE, place.own([0, 1]), nothing)
    assert not any(place.found()["status"])
    place.writer().update(TILE, place.own([2, 3]), nothing)  # over what the dead writer left
    place.writer().update(TILE, place.own([0, 1, 4, 5, 6, 7]), nothing)
    assert place.found() == place.complete()


EDGE = TileKey(64, (0, 0, 0, 1, 0))  # of three alphas in blocks of two, the last block holds one
NARROW = {**SMALL, "alpha": [0.8, 1.0, 1.2]}
WIDER = make_campaign(**{**SMALL, "alpha": [0.8, 1.0, 1.2, 1.6]})  # and now two


def whole_edge(place: Place) -> None:
    """Every cell of the grown tile is there, with the value that a cell has whoever computes it."""
    reader = Place(place.url, place.module, WIDER).writer()
    assert reader.read(EDGE, "status").tolist() == [[STATUS["done"]] * 4] * 2
    assert reader.read(EDGE, "x").tolist() == [[alpha + seed for seed in range(4)] for alpha in (1.2, 1.6)]


def test_a_worker_that_a_grown_store_has_overtaken_is_refused_and_loses_nothing(
    url: str, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(url, kernel_file("return Outcome({'x': cell.alpha + cell.seed})"), make_campaign(**NARROW))
    stale = Order(url, 1, (place.module,), ((str(EDGE), 0b1111),))
    read, asked = TileStore.read, []

    def overtaken(self: TileStore, key: TileKey, name: str) -> Any:
        found = read(self, key, name)
        if not asked:  # the stale worker has looked at its tile; before it writes, a newer run fills it
            asked.append(1)
            run(url, place.module, WIDER)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(TileStore, "read", overtaken)
        with pytest.raises(Superseded):
            run_tiles(stale)
    assert asked
    whole_edge(place)


def test_a_stale_writer_that_has_just_passed_its_check_cuts_off_nothing(
    url: str, kernel_file: KernelFile
) -> None:
    place = Place(url, kernel_file("return Outcome({'x': cell.alpha + cell.seed})"), make_campaign(**NARROW))
    old, newer, asked = place.writer(), threading.Thread(target=run, args=(url, place.module, WIDER)), []
    own = old.empty(EDGE)
    own["status"][:], own["x"][:] = STATUS["done"], 1.2 + np.arange(4)

    def check() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise Superseded("as the check of a worker would find now")
        newer.start()
        newer.join(timeout=3 if url.startswith("file") else 60)  # on files it waits for the lock

    if url.startswith("file"):
        old.update(EDGE, own, check)
    else:
        with pytest.raises(Superseded):
            old.update(EDGE, own, check)
    newer.join(timeout=60)
    assert not newer.is_alive()
    whole_edge(place)


def test_a_fresh_tile_on_s3_costs_one_read_and_one_write_for_each_variable(
    s3: Any, s3_url: str, kernel_file: KernelFile
) -> None:
    place = Place(s3_url, kernel_file("return Outcome({'x': cell.seed, 'k': 1})", VARIABLES))
    writer = place.writer()
    for name in ("x", "k", "status"):
        writer.read(TILE, name)
    own = place.own([0])
    s3.requests.clear()
    writer.update(TILE, own, nothing)
    assert [method for method, _ in s3.requests] == ["GET", "PUT", "PUT", "PUT"]


def test_a_worker_on_s3_looks_once_at_its_tile_and_at_the_revision_only_where_it_could_cut_cells_off(
    s3: Any, s3_url: str, kernel_file: KernelFile
) -> None:
    place = Place(s3_url, kernel_file("return Outcome({'x': cell.alpha})"), make_campaign(**NARROW))
    asked = {}
    for key in (TILE, TILE, EDGE):  # the first order of a worker also opens the store
        s3.requests.clear()
        run_tiles(Order(s3_url, 1, (place.module,), ((str(key), 0b11),)))
        asked[key] = Counter((method, path.rpartition("sweep.zarr/")[2]) for method, path in s3.requests)
    chunk = {key: f"c/{'/'.join(map(str, key.chunk))}" for key in asked}
    revision = ("HEAD", "ledger/campaign/000002.json")
    written = {("PUT", f"N=64/{name}/{chunk[EDGE]}"): 1 for name in ("x", "status")}
    assert asked[EDGE] == {**written, ("GET", f"N=64/status/{chunk[EDGE]}"): 1, revision: 2}
    assert asked[TILE][revision] == 1
    assert asked[TILE].total() == 3, "its cells are there: one look at each variable"


def test_a_relative_curve_is_read_once_for_all_tiles_of_its_chunk(
    s3: Any, s3_url: str, kernel_file: KernelFile
) -> None:
    around = '{ around = "alpha_bbp", values = [0.5, 1.5] }'
    campaign = make_campaign(p=[1, 2], a=[0.7, 1.5], N=[64], alpha=around, seeds=12)
    place = Place(s3_url, kernel_file("return Outcome({'x': cell.alpha})"), campaign)
    keys = list(product([0, 1], [0], [0, 1], [0], [0, 1]))
    s3.requests.clear()
    run_tiles(Order(s3_url, 1, (place.module,), tuple((str(TileKey(64, key)), 0b11) for key in keys)))
    assert sum("/alpha/c/" in path for _, path in s3.requests) == 1
    reader = place.writer()
    for key in keys:
        expected = place.layout.curve_values(TileKey(64, key))
        assert reader.curve_values(TileKey(64, key)).tolist() == pytest.approx(expected.tolist(), rel=1e-12)
        assert reader.read(TileKey(64, key), "x").ravel()[0] == reader.curve_values(TileKey(64, key))[0]


def test_variables_of_a_tile_are_on_their_way_to_s3_together_and_its_status_goes_last(
    s3_url: str, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(s3_url, kernel_file("return Outcome({'x': cell.seed, 'k': 1})", VARIABLES))
    put, both, order = TileStore._put, threading.Barrier(2, timeout=30), []

    def meeting(self: TileStore, key: Any, variable: Any, *rest: Any) -> Any:
        if variable.name != "status":
            both.wait()  # breaks where one is sent only after the other
        done = put(self, key, variable, *rest)
        order.append(variable.name)
        return done

    monkeypatch.setattr(TileStore, "_put", meeting)
    place.writer().update(TILE, place.own(list(range(CELLS))), nothing)
    assert order[-1] == "status"
    assert place.found() == place.complete()


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    url = store_url(tmp_path)
    script = (
        "import os, sys; from bendscape.sweep.store.objects import exclusive;"
        "exclusive(sys.argv[1], 'tile').__enter__(); os._exit(9)"
    )
    dead = subprocess.run([sys.executable, "-c", script, url], timeout=60, check=False)
    assert dead.returncode == 9
    connect(url)
    with exclusive(url, "tile"), exclusive(url, "another tile"):
        assert list((tmp_path / "ledger" / "locks").iterdir())
