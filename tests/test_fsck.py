"""fsck finds every disagreement between data and ledger, and repairs the ledger from the data."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from command_line import bendscape

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import transition
from bendscape.sweep.commands.status import store_tiles
from bendscape.sweep.location import store_url
from bendscape.sweep.store import fsck as fsck_module
from bendscape.sweep.store import ledger as ledger_module
from bendscape.sweep.store.fsck import fsck
from bendscape.sweep.store.ledger import LeaseHeld, Ledger
from bendscape.sweep.store.objects import connect, together
from campaigns import RANDOM, IdleExecutor, data_files, make_campaign, run, write_kernel

KernelFile = Callable[..., str]
CELLS, TILES = 144, 24


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A complete store, recorded in one segment however long it took, and its kernel."""
    folder = tmp_path_factory.mktemp("complete")
    path, module = folder / "s.zarr", write_kernel(folder, RANDOM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bendscape.sweep.store.ledger.FLUSH_SECONDS", 3600.0)
        assert run(path, module, make_campaign()).done == CELLS
    return path, module


@pytest.fixture
def store(complete: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy of it, the test's own."""
    path, module = complete
    shutil.copytree(path, tmp_path / "s.zarr")
    return tmp_path / "s.zarr", module


def chunk(path: Path, name: str) -> Path:
    return path / f"N=64/{name}/c/0/0/1/2/0"


def test_a_whole_store_is_sound_and_a_check_changes_nothing(store: tuple[Path, str]) -> None:
    path, _ = store
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    found = fsck(path)
    assert found.sound
    assert (found.tiles, found.cells, found.unverified, found.orphans) == (TILES, CELLS, 0, [])
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_rounding_of_the_outlier_at_a_threshold_is_not_reported_as_damage(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    path = tmp_path / "s.zarr"
    relative = '{ around = "alpha_bbp", start = 0.5, stop = 1.5, num = 3 }'
    run(path, kernel_file(RANDOM), make_campaign(alpha=relative), IdleExecutor())
    overlap_sq = zarr.open_array(path / "overlap_sq_theory", mode="r+")
    jump = transition(Model(1, 1, 1.5)).overlap_sq_jump
    assert np.isnan(overlap_sq[0, 0, 1, 1])
    overlap_sq[0, 0, 1, 1] = jump  # as other versions of the libraries would round it
    assert fsck(path).sound
    overlap_sq[0, 0, 1, 1] = 0.9 * jump
    assert fsck(path).hierarchy == {"overlap_sq_theory": "1 values are not those of this campaign"}


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
    assert "not those that were written" in found.damaged["N=64/1.0.0.0.0"]
    assert found.absent == {"N=64/0.0.1.2.0": 6}
    assert not found.sound
    assert run(path, module, make_campaign()).computed == 0, "a check alone changes nothing"

    assert fsck(path, repair=True).repaired
    assert (path / "ledger/damaged/000003/N=64/x/c/0/0/0/1/0").read_bytes() == torn_bytes(whole)
    assert run(path, module, make_campaign()).computed == 18
    assert fsck(path).sound
    assert data_files(path) == whole


def test_a_check_reads_many_tiles_at_the_same_time_and_finds_what_one_after_another_finds(
    store: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = store
    damage = json.loads((path / "N=64/x/zarr.json").read_text())
    chunk(path, "x").write_bytes(b"no chunk")
    (path / "N=128/status/c/1/0/0/0/0").unlink()
    (path / "N=64/x/zarr.json").write_text(json.dumps({**damage, "shape": [1]}))
    one = partial(together, threads=1)
    with monkeypatch.context() as patch:
        patch.setattr("bendscape.sweep.store.fsck.together", one)
        patch.setattr("bendscape.sweep.store.ledger.together", one)
        alone = fsck(path)
    both, read = threading.Barrier(4, timeout=30), fsck_module._read

    def meeting(*asked: Any) -> Any:
        both.wait()  # breaks unless four are read together: a size has twelve tiles
        return read(*asked)

    monkeypatch.setattr(fsck_module, "_read", meeting)
    assert fsck(path) == alone
    assert (len(alone.damaged), len(alone.absent), len(alone.hierarchy)) == (1, 1, 1)


def test_answers_come_in_order_a_few_ahead_of_who_takes_them_and_an_error_comes_in_its_turn() -> None:
    begun = []

    def ask(number: int) -> int:
        begun.append(number)
        if number == 7:
            raise OSError("no answer")
        return number**2

    answers = together(ask, iter(range(10**9)), threads=2)
    assert [next(answers) for _ in range(5)] == [0, 1, 4, 9, 16]
    assert max(begun) <= 5 + 2 * 2
    with pytest.raises(OSError, match="no answer"):
        list(answers)
    assert max(begun) <= 7 + 2 * 2


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
    assert found.sound, "they are only not yet recorded"
    with xr.open_dataset(path, engine="bendscape") as ds:
        xr.testing.assert_identical(ds.load(), before)
    assert fsck(path).sound
    assert run(path, module, make_campaign()).computed == 0


def test_what_belongs_to_no_tile_is_listed(store: tuple[Path, str]) -> None:
    path, _ = store
    litter = [
        "N=64/x/c/9/0/0/0/0", "N=64/x/c/0/0/0/0/0#1", "N=96/x/c/0/0/0/0/0", "N=foo/junk.txt",
        "N=64/status/c/999999999999/0/0/0/0", "N=64/x/c/0/0/0/0/00", "zarr.json#2",
    ]  # fmt: skip
    for name in litter:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"?")
    found = fsck(path)
    assert found.orphans == sorted(litter)
    assert found.sound, "litter harms nobody"
    assert found.tiles == TILES
    mended = fsck(path, repair=True)
    assert mended.removed == sorted(name for name in litter if "#" in name)
    assert len(store_tiles(path)) == TILES, "no tile of the litter is in the ledger"


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


def test_the_command_lists_its_findings_and_fails_until_the_store_is_repaired(
    store: tuple[Path, str],
) -> None:
    path, _ = store
    chunk(path, "x").write_bytes(b"")

    def say(*options: str) -> tuple[int, str]:
        done = bendscape("fsck", path, *options)
        return done.returncode, done.stdout

    code, text = say()
    assert code == 1
    assert "N=64/0.0.1.2.0" in text
    assert "--repair" in text
    code, text = say("--repair", "--json")
    assert code == 0
    assert list(json.loads(text)["damaged"]) == ["N=64/0.0.1.2.0"]
    assert say()[0] == 0


def cut(path: Path, name: str, to: int) -> None:
    (found,) = path.glob(name)
    found.write_bytes(found.read_bytes()[:to])


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("zarr.json", 100),
        ("zarr.json", 0),
        ("ledger/segments/000001-*.jsonl", 50),
        ("ledger/segments/000001-*.jsonl", 0),
        ("ledger/lease/000001.beat", 0),
        ("ledger/lease/000001.json", 5),
        ("alpha_bbp/c/0/0/0", 3),
        ("p/c/0", 3),
        ("N=64/seed/c/0", 3),
        ("N=64/x/zarr.json", 10),
        ("N=128/status/zarr.json", 0),
    ],
)
def test_a_repair_restores_truncated_files(store: tuple[Path, str], name: str, to: int) -> None:
    path, module = store
    whole, root = data_files(path), json.loads((path / "zarr.json").read_text())
    with xr.open_dataset(path, engine="bendscape") as ds:
        before = ds.load()
    if name.endswith(".beat"):  # of a driver that is gone
        holder = path / "ledger/lease/000001.json"
        holder.write_text(json.dumps({**json.loads(holder.read_text()), "process_start": "1"}))
    cut(path, name, to)
    found = fsck(path)
    assert found.sound == name.startswith("ledger/lease"), "a lease is not data"
    assert fsck(path, repair=True).repaired
    assert fsck(path).sound
    assert run(path, module, make_campaign()).computed == 0
    assert data_files(path) == whole
    assert json.loads((path / "zarr.json").read_text())["attributes"] == root["attributes"]
    with xr.open_dataset(path, engine="bendscape") as ds:
        xr.testing.assert_identical(ds.load(), before)


def test_a_root_that_was_deleted_is_made_again_and_a_run_before_that_is_refused(
    store: tuple[Path, str],
) -> None:
    path, module = store
    run(path, module, make_campaign(p=[1, 2, 3]))
    whole = data_files(path)
    (path / "zarr.json").unlink()
    with pytest.raises(ParameterError, match="fsck --repair"):
        run(path, module, make_campaign(p=[1, 2, 3], seeds=7))
    assert data_files(path) == whole
    assert fsck(path).hierarchy == {"zarr.json": "it is missing"}
    fsck(path, repair=True)
    assert run(path, module, make_campaign(p=[1, 2, 3])).computed == 0
    assert data_files(path) == whole


def test_a_damaged_snapshot_is_ignored(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "COMPACT_SEGMENTS", 1)
    monkeypatch.setattr(ledger_module, "FLUSH_SECONDS", 0.0)
    path, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    run(path, module, make_campaign())
    newest = sorted((path / "ledger/snapshots").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:40])
    with pytest.warns(ledger_module.DamageWarning, match=newest.name):
        assert run(path, module, make_campaign()).computed == 0
    assert list(fsck(path).ledger) == [f"ledger/snapshots/{newest.name}"]
    fsck(path, repair=True)
    assert fsck(path).sound


def test_a_value_chunk_that_is_missing_is_found_without_a_checksum_too(store: tuple[Path, str]) -> None:
    path, module = store
    whole = data_files(path)
    for segment in (path / "ledger/segments").iterdir():
        lines = [json.loads(line) for line in segment.read_text().splitlines()]
        segment.write_text("".join(json.dumps({**line, "checksum": "0"}) + "\n" for line in lines))
    assert fsck(path).unverified == TILES
    chunk(path, "x").unlink()
    found = fsck(path)
    assert found.damaged == {"N=64/0.0.1.2.0": "x of its finished cells are missing"}
    fsck(path, repair=True)
    assert fsck(path).unverified == 0, "a repair fills checksums in"
    assert run(path, module, make_campaign()).computed == 6
    assert data_files(path) == whole


def test_what_is_left_of_a_tile_with_lost_cells_is_computed_again_with_them(store: tuple[Path, str]) -> None:
    path, module = store
    whole = data_files(path)
    status = zarr.open_array(path / "N=64/status", mode="r+")
    status[0, 0, 0, 0, 2] = 0
    values = zarr.open_array(path / "N=64/x", mode="r+")
    values[0, 0, 0, 0, 3] += 1.0
    assert fsck(path).absent == {"N=64/0.0.0.0.0": 1}
    fsck(path, repair=True)
    assert run(path, module, make_campaign()).computed == 6
    assert data_files(path) == whole
