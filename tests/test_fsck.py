"""A check of a store finds every way in which data and ledger can part, and mends it from the data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
import zarr

from bendscape.sweep.fsck import fsck
from bendscape.sweep.ledger import LeaseHeld, Ledger
from bendscape.sweep.objects import connect, store_url
from campaigns import RANDOM, data_files, make_campaign, run

KernelFile = Callable[..., str]
CELLS, TILES = 144, 24


@pytest.fixture
def store(tmp_path: Path, kernel_file: KernelFile) -> tuple[Path, str]:
    """A complete store and its kernel."""
    path, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    assert run(path, module, make_campaign()).done == CELLS
    return path, module


def chunk(path: Path, name: str) -> Path:
    return path / f"N=64/{name}/c/0/0/1/2/0"


def test_a_whole_store_is_sound_and_a_check_changes_nothing(store: tuple[Path, str]) -> None:
    path, _ = store
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    found = fsck(path)
    assert found.sound
    assert (found.tiles, found.cells, found.unverified, found.orphans) == (TILES, CELLS, 0, [])
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_a_changed_value_a_torn_chunk_and_a_lost_one_are_found_and_computed_again(
    store: tuple[Path, str],
) -> None:
    path, module = store
    whole = data_files(path)
    values = zarr.open_array(path / "N=64/x", mode="r+")
    values[1, 0, 0, 0, 3] += 1e-12
    torn = path / "N=64/x/c/0/0/0/1/0"
    torn.write_bytes(torn.read_bytes()[:-7])
    chunk(path, "status").unlink()
    found = fsck(path)
    assert set(found.damaged) == {"N=64/1.0.0.0.0", "N=64/0.0.0.1.0"}
    assert "other values" in found.damaged["N=64/1.0.0.0.0"]
    assert found.absent == {"N=64/0.0.1.2.0": 6}
    assert not found.sound
    assert run(path, module, make_campaign()).computed == 0, "a check alone changes nothing"

    assert fsck(path, repair=True).repaired
    assert (path / "ledger/damaged/N=64/x/c/0/0/0/1/0").read_bytes() == torn_bytes(whole)
    assert run(path, module, make_campaign()).computed == 18
    assert fsck(path).sound
    assert data_files(path) == whole


def torn_bytes(whole: dict[str, bytes]) -> bytes:
    return whole["N=64/x/c/0/0/0/1/0"][:-7]


def test_a_lost_ledger_is_rebuilt_from_the_data(store: tuple[Path, str]) -> None:
    path, module = store
    with xr.open_dataset(path, engine="bendscape") as ds:
        before = ds.load()
    for folder in ("segments", "snapshots"):
        shutil.rmtree(path / "ledger" / folder, ignore_errors=True)
    with xr.open_dataset(path, engine="bendscape") as ds:
        assert not bool((ds.status == 1).any())
    found = fsck(path, repair=True)
    assert sum(found.unrecorded.values()) == CELLS
    with xr.open_dataset(path, engine="bendscape") as ds:
        xr.testing.assert_identical(ds.load(), before)
    assert fsck(path).sound
    assert run(path, module, make_campaign()).computed == 0


def test_what_belongs_to_no_tile_is_listed(store: tuple[Path, str]) -> None:
    path, _ = store
    litter = ["N=64/x/c/9/0/0/0/0", "N=64/x/c/0/0/0/0/0#1", "N=96/x/c/0/0/0/0/0"]
    for name in litter:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"?")
    found = fsck(path)
    assert set(litter) - {"N=64/x/c/0/0/0/0/0#1"} <= set(found.orphans)
    assert found.sound, "litter harms nobody"


def test_repair_is_refused_while_a_run_is_at_work(store: tuple[Path, str]) -> None:
    path, _ = store
    ledger = Ledger(connect(store_url(path)))
    ledger.acquire(lambda line: None)
    with pytest.raises(LeaseHeld):
        fsck(path, repair=True)
    assert fsck(path).sound
    ledger.release()


def test_cells_that_failed_are_sound_and_keep_their_errors(tmp_path: Path, kernel_file: KernelFile) -> None:
    path = tmp_path / "s.zarr"
    run(path, kernel_file("if cell.seed == 2: raise ValueError('no')\n" + RANDOM), make_campaign())
    assert fsck(path, repair=True).sound
    ledger = Ledger(connect(store_url(path)))
    ledger.replay()
    assert len(ledger.records.errors()) == CELLS // 6


def test_the_command_tells_what_it_found_and_fails_until_it_is_mended(store: tuple[Path, str]) -> None:
    path, _ = store
    chunk(path, "x").write_bytes(b"")
    command = [str(Path(sys.executable).with_name("bendscape")), "fsck", str(path)]

    def say(*options: str) -> tuple[int, str]:
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout

    code, text = say()
    assert code == 1
    assert "N=64/0.0.1.2.0" in text
    assert "--repair" in text
    code, text = say("--repair", "--json")
    assert code == 0
    assert list(json.loads(text)["damaged"]) == ["N=64/0.0.1.2.0"]
    assert say()[0] == 0
