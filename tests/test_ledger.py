"""The ledger loses nothing, replays from any state it can be left in, and admits one driver at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import obstore
import pytest
from test_records import error, everything

from bendscape.sweep.campaign.tiles import TileKey
from bendscape.sweep.location import store_url
from bendscape.sweep.store import ledger as module
from bendscape.sweep.store.ledger import LeaseHeld, LeaseLost, Ledger, _process_start
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.records import CellError, Receipt


def ledger_of(path: Path) -> Ledger:
    ledger = Ledger(connect(store_url(path)))
    ledger.replay()
    return ledger


def quiet(message: str) -> None:
    pass


def receipt(index: int, done: int, failed: int = 0, errors: tuple[CellError, ...] = ()) -> Receipt:
    return Receipt(
        f"N=64/0.0.0.{index}.0", done, failed, computed=done.bit_count(), seconds=1.5, errors=errors
    )


def test_what_was_flushed_is_there_after_a_replay(tmp_path: Path) -> None:
    first = ledger_of(tmp_path)
    first.acquire(quiet)
    first.add([receipt(0, 0b111), receipt(1, 0b001, 0b100, (error(2),))])
    first.flush()
    first.add([receipt(0, 0b11000)])
    first.release()
    again = ledger_of(tmp_path)
    assert everything(again.records) == everything(first.records)
    assert again.records.masks(TileKey(64, (0, 0, 0, 0, 0))) == (0b11111, 0)
    assert again.records.masks(TileKey(64, (0, 0, 0, 1, 0))) == (0b001, 0b100)
    assert again.records.errors() == [error(2)]


def test_a_snapshot_replaces_its_segments_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_SEGMENTS", 3)
    ledger = ledger_of(tmp_path)
    ledger.acquire(quiet)
    for index in range(11):
        ledger.add([receipt(index % 2, 1 << index)])
        ledger.flush()
    snapshots = sorted(path.name for path in (tmp_path / "ledger" / "snapshots").iterdir())
    assert snapshots == ["000001-000006.npz", "000001-000009.npz"], "two are kept, while a run goes on"
    for path in (tmp_path / "ledger" / "segments").iterdir():
        if path.stem <= Path(snapshots[-1]).stem:
            path.unlink()
    ledger.release()
    assert everything(ledger_of(tmp_path).records) == everything(ledger.records)
    assert len(ledger_of(tmp_path)._segments) == 2


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.acquire(quiet)
    ledger.add([receipt(0, 1)])
    ledger.release()
    (tmp_path / "ledger/segments/000001-000001.jsonl").write_text("{half a li")
    with pytest.raises(OSError, match=r"000001-000001\.jsonl of the store is damaged"):
        ledger_of(tmp_path)


def test_the_pulse_goes_on_while_the_driver_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.3)
    ledger = ledger_of(tmp_path)
    ledger.acquire(quiet)
    seen, deadline = set(), time.monotonic() + 30
    while len(seen) < 3 and time.monotonic() < deadline:
        seen.add(ledger.beat_of(1)["count"])
    ledger.release()
    assert len(seen) == 3
    last = ledger.beat_of(1)
    assert (last["count"], last["released"]) == (0, True), "no beat came after the last"


def test_a_living_holder_on_this_machine_is_refused_by_name_and_at_once(tmp_path: Path) -> None:
    first, second = ledger_of(tmp_path), ledger_of(tmp_path)
    first.acquire(quiet)
    with pytest.raises(LeaseHeld, match=rf"process {os.getpid()}, for \d+ s"):
        second.acquire(quiet)
    holder = second.holder()
    assert holder is not None
    assert holder["pid"] == os.getpid()
    first.release()
    assert second.holder() is None
    second.acquire(quiet)


def test_a_restart_of_the_machine_is_told_with_the_takeover(tmp_path: Path) -> None:
    ledger, said = ledger_of(tmp_path), []
    ledger.acquire(quiet)
    path = tmp_path / "ledger/lease/000001.json"
    holder = json.loads(path.read_text())
    host, boot, space = holder["machine"].split("/")
    path.write_text(json.dumps({**holder, "machine": f"{host}/another-{boot}/{space}"}))
    ledger_of(tmp_path).acquire(said.append, lease_seconds=0.2)
    assert any("bendscape fsck" in line for line in said)


def test_a_dead_holder_on_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    script = (
        "import os, sys; from bendscape.sweep.store.ledger import Ledger;"
        "from bendscape.sweep.store.objects import connect;"
        "Ledger(connect(sys.argv[1])).acquire(print); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, store_url(tmp_path)], timeout=60, check=False)
    said: list[str] = []
    ledger = ledger_of(tmp_path)
    ledger.acquire(said.append)
    assert "which is gone" in said[0]


def test_a_holder_that_ended_and_was_not_waited_for_is_dead(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.acquire(quiet)
    child = subprocess.Popen(["sleep", "60"])
    path = tmp_path / "ledger" / "lease" / "000001.json"
    own = {"pid": child.pid, "process_start": _process_start(child.pid)}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    assert (ledger.holder() or {})["alive"] is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it keeps its entry in the table of processes
    assert (ledger.holder() or {})["alive"] is False
    child.wait()
    ledger.release()


def test_a_holder_says_whether_it_is_alive(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.acquire(quiet)
    path = tmp_path / "ledger" / "lease" / "000001.json"
    here = json.loads(path.read_text())
    for changes, alive in (({}, True), ({"process_start": "1"}, False), ({"machine": "another"}, None)):
        path.write_text(json.dumps(here | changes))
        holder = ledger.holder()
        assert holder is not None
        assert holder["alive"] is alive
    ledger.release()


@pytest.mark.parametrize("beats", [True, False])
def test_a_holder_elsewhere_is_judged_by_its_pulse(tmp_path: Path, beats: bool) -> None:
    first = ledger_of(tmp_path)
    first.acquire(quiet)
    path = tmp_path / "ledger" / "lease" / "000001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "another", "host": "far-away"}))
    second = ledger_of(tmp_path)

    beat = path.with_suffix(".beat")
    look = second.beat_of

    def look_then_beat(epoch: int) -> dict[str, object]:
        seen = look(epoch)
        if beats:
            beat.write_text(json.dumps({"count": time.time(), "released": False}))
        return seen

    second.beat_of = look_then_beat  # type: ignore[method-assign]
    if beats:
        with pytest.raises(LeaseHeld, match="far-away"):
            second.acquire(quiet, lease_seconds=1.0)
    else:
        second.acquire(quiet, lease_seconds=0.5)
        first.add([receipt(0, 1)])
        with pytest.raises(LeaseLost):
            first.flush()


def test_of_two_drivers_that_see_a_free_store_one_gets_in(tmp_path: Path) -> None:
    first, second = ledger_of(tmp_path), ledger_of(tmp_path)
    second._newest_epoch = lambda: 0  # type: ignore[method-assign]
    first.acquire(quiet)
    second.beat_of = lambda epoch: {"released": True}  # type: ignore[method-assign]
    with pytest.raises(LeaseHeld):
        second.acquire(quiet)


def test_an_object_once_written_is_never_replaced(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.acquire(quiet)
    obstore.put(ledger.objects, "ledger/segments/000001-000001.jsonl", b"someone else's")
    ledger.add([receipt(0, 1)])
    with pytest.raises(LeaseLost):
        ledger.flush()
    assert (tmp_path / "ledger/segments/000001-000001.jsonl").read_bytes() == b"someone else's"
