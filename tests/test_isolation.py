"""Cells have time limits, the cell that ended a worker is identified, and stopping takes a bounded time."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.kernel import Kernel, Outcome
from bendscape.sweep.campaign.tiles import Tile, TileKey
from bendscape.sweep.commands.options import seconds_of
from bendscape.sweep.engine.executor import NodeLost, WorkerLost, WorkerOutOfMemory
from bendscape.sweep.engine.isolation import CRASHES, FORGIVEN, Isolation, Part
from bendscape.sweep.engine.limits import Abandoned, CellTimeout, Limits, cell_limit, grace
from bendscape.sweep.engine.stop import Stop
from bendscape.sweep.engine.worker import Note, Verdict
from bendscape.sweep.kernels.quadratic import AXES
from bendscape.sweep.location import store_url
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from campaigns import RANDOM, make_campaign, run

CRASH = WorkerLost("crashed")
NODE = NodeLost("gone")
CELL = AXES.cell(p=1, p_star=1, a=1.5, alpha=1.2, N=64, seed=0)


def kernel(seconds: float) -> Kernel:
    return Kernel("k", 1, (), lambda cell, rng: Outcome({}), lambda cell: seconds, lambda cell: 1.0)


def forever() -> None:
    while True:
        time.sleep(0.001)


# -- limits


def test_the_default_limit_is_an_hour_plus_ten_times_the_expected_time() -> None:
    assert cell_limit(kernel(60.0), CELL, None, pace=1.0) == 3600 + 600
    assert cell_limit(kernel(60.0), CELL, None, pace=0.1) == 3600 + 600
    assert cell_limit(kernel(60.0), CELL, None, pace=3.0) == 3600 + 1800
    assert cell_limit(kernel(60.0), CELL, 5.0, pace=3.0) == 5.0
    assert all(cell_limit(kernel(bad), CELL, None, 1.0) == 1e8 for bad in (math.inf, math.nan, 1e300))


def test_a_limit_raises_inside_the_cell_and_the_next_cell_has_its_own() -> None:
    with Limits() as limits:
        for _ in range(2):
            with pytest.raises(CellTimeout, match=r"0\.05 s"), limits.cell(0.05):
                forever()
        with limits.cell(100.0):
            pass
        time.sleep(0.1)  # no alarm is left


def test_a_cell_that_swallows_the_first_alarm_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bendscape.sweep.engine.limits.AGAIN_SECONDS", 0.05)
    swallowed = []

    def stubborn() -> None:
        try:
            forever()
        except CellTimeout as error:
            swallowed.append(error)
        forever()

    with Limits() as limits, pytest.raises(CellTimeout), limits.cell(0.05):
        stubborn()
    assert len(swallowed) == 1


def test_handlers_and_timers_of_the_caller_are_restored() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with Limits() as limits, limits.cell(10.0):
            time.sleep(0.1)
            assert not rung
        deadline = time.monotonic() + 20
        while not rung and time.monotonic() < deadline:
            time.sleep(0.01)
        assert rung == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_thread_has_no_soft_limit() -> None:
    ended = []

    def cell() -> None:
        with Limits() as limits, limits.cell(0.01):
            time.sleep(0.05)
        ended.append(True)

    thread = threading.Thread(target=cell)
    thread.start()
    thread.join(20)
    assert ended == [True]


HARD = """
import itertools, time
from bendscape.sweep.engine.limits import Limits
with Limits(hard=True) as limits:
    for _ in range({cells}):
        with limits.cell({limit}):
            {deed}
    limits.rest()
    time.sleep({after})
print("came to the end")
"""


@pytest.mark.parametrize(
    ("deed", "cells", "limit", "after", "ends"),
    [
        ("sum(itertools.repeat(0))", 1, 0.5, 0.0, False),
        ("time.sleep(0.7)", 6, 1.0, 0.0, True),  # longer than one watch, each within its limit
        ("pass", 3, 0.1, 2.5, True),  # writing takes what it takes
    ],
)
def test_the_hard_limit_ends_a_process_that_never_comes_back_to_python_and_no_other(
    deed: str, cells: int, limit: float, after: float, ends: bool
) -> None:
    text = textwrap.dedent(HARD).format(deed=deed, cells=cells, limit=limit, after=after)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, timeout=60, check=False)
    assert (b"came to the end" in done.stdout) == ends
    assert done.returncode == (0 if ends else 1), done.stderr
    assert (b"Timeout (" in done.stderr) == (not ends)


def test_a_cell_over_its_limit_fails_and_its_tile_goes_on(
    tmp_path: Path, kernel_file: Callable[..., str]
) -> None:
    module = kernel_file(f"if cell[:-1] == (1, 1, 0.7, 0.8, 64, 3):\n    time.sleep(3600)\n{RANDOM}")
    summary = run(
        tmp_path / "s.zarr", module, make_campaign(p=[1], a=[0.7], alpha=[0.8], N=[64]), cell_timeout=1.0
    )
    assert (summary.done, summary.failed) == (5, 1)
    ledger = Ledger(connect(store_url(tmp_path / "s.zarr")))
    ledger.replay()
    (error,) = ledger.records.errors()
    assert (error.error, error.attempts, error.cell["seed"]) == ("CellTimeout", 1, 3)
    assert "time.sleep(3600)" in error.traceback, "where it was"


def test_a_value_that_is_not_a_number_fails_only_its_cell(
    tmp_path: Path, kernel_file: Callable[..., str]
) -> None:
    module = kernel_file(f"if cell.seed == 1:\n    return Outcome({{'x': 'many'}})\n{RANDOM}")
    summary = run(tmp_path / "s.zarr", module, make_campaign(p=[1], a=[0.7], alpha=[0.8], N=[64]))
    assert (summary.done, summary.failed) == (5, 1)


# -- isolation


def tile(mask: int, seed: int = 0) -> Tile:
    return Tile(TileKey(64, (0, 0, 0, 0, seed)), mask, float(mask.bit_count()))


def note(bit: int, ago: float = 0.0, limit: float = 60.0) -> Note:
    return Note(bit, "far", time.time() - ago, limit)


def campaign_of_losses(
    isolation: Isolation, tiles: list[Tile], bad: set[int], error: Exception
) -> tuple[int, int, list[Verdict], int]:
    """Simulate workers that die at the first bad cell: cells done, cells blamed, verdicts, workers lost."""
    done = blamed = losses = 0
    verdicts: list[Verdict] = []
    assert isolation.lost(tiles, None, None, error) is None
    while part := isolation.next():
        hit = [bit for bit in range(64) if part.tile.mask >> bit & 1 and bit in bad]
        if not hit:
            done |= part.tile.mask
            isolation.back(part.tile.key)
            continue
        losses += 1
        assert losses < 100, "without end"
        seen = note(hit[0]) if part.noted else None
        if verdict := isolation.lost([part.tile], part, seen, error):
            verdicts.append(verdict)
            blamed |= part.tile.mask
            isolation.back(part.tile.key)
    return done, blamed, verdicts, losses


@pytest.mark.parametrize("bad", [set(), {3}, {0, 5, 9}])
def test_only_the_cells_that_end_their_workers_are_blamed(bad: set[int]) -> None:
    done, blamed, verdicts, losses = campaign_of_losses(Isolation(), [tile(0b1111111111)], bad, CRASH)
    assert blamed == sum(1 << bit for bit in bad)
    assert done == 0b1111111111 & ~blamed
    assert [(v.error, v.attempts, v.host) for v in verdicts] == [(CRASH, CRASHES, "far")] * len(bad)
    assert losses == len(bad) * (CRASHES + 1)


def test_a_cell_that_takes_its_node_down_is_found_after_the_forgiven_losses() -> None:
    done, blamed, _, losses = campaign_of_losses(Isolation(), [tile(0b111)], {1}, NODE)
    assert (done, blamed) == (0b101, 0b010)
    assert FORGIVEN < losses <= FORGIVEN + 2 + CRASHES


def test_a_worker_that_is_killed_from_outside_costs_no_cell_its_value() -> None:
    isolation = Isolation()
    isolation.lost([tile(0b11)], None, None, CRASH)
    part = isolation.next()
    assert part is not None
    isolation.lost([part.tile], part, note(0), CRASH)  # suspected,
    done = 0
    for strike in range(CRASHES + 1):
        part = isolation.next()
        assert part is not None
        if part.alone and strike in (0, 1):
            assert isolation.lost([part.tile], part, note(0), CRASH) is None
            continue
        done |= part.tile.mask  # and cleared
        isolation.back(part.tile.key)
    assert done == 0b11


def test_a_cell_past_its_hard_limit_costs_three_losses_and_no_more() -> None:
    isolation = Isolation()
    isolation.lost([tile(0b11)], None, None, CRASH)
    late = note(0, ago=200.0)  # limit 60 s, grace 30 s
    whole = isolation.next()
    assert whole is not None
    assert isolation.lost([whole.tile], whole, late, CRASH) is None, "others were in the same process"
    rest = isolation.next()
    assert rest is not None
    assert rest.tile.mask == 0b10
    isolation.back(rest.tile.key)
    suspect = isolation.next()
    assert suspect is not None
    verdict = isolation.lost([suspect.tile], suspect, late, CRASH)
    assert verdict is not None
    assert isinstance(verdict.error, CellTimeout)
    assert (verdict.attempts, verdict.host, isolation.next()) == (1, "far", None)


def test_parts_of_one_tile_never_run_at_the_same_time() -> None:
    isolation = Isolation()
    isolation.lost([tile(0b1111), tile(0b1, seed=1)], None, None, CRASH)
    first, other = isolation.next(), isolation.next()
    assert first is not None
    assert other is not None
    isolation.lost([first.tile], first, note(2), CRASH)
    rest = isolation.next()
    assert rest is not None
    assert rest.tile.mask == 0b1011
    assert isolation.next() is None, "the suspected cell waits for the rest of its tile"
    assert isolation.back(rest.tile.key) == 1
    assert isolation.next() == Part(Tile(first.tile.key, 0b0100, 1.0))


def test_workers_that_die_before_they_begin_end_the_run_and_blame_no_cell() -> None:
    isolation = Isolation()
    isolation.lost([tile(0b11)], None, None, CRASH)
    for _ in range(FORGIVEN):
        part = isolation.next()
        assert part is not None
        assert isolation.lost([part.tile], part, None, CRASH) is None
    part = isolation.next()
    assert part is not None
    with pytest.raises(WorkerLost):
        isolation.lost([part.tile], part, None, CRASH)


def test_a_cell_that_runs_out_of_memory_gets_a_whole_node_before_it_is_blamed() -> None:
    isolation, error = Isolation(), WorkerOutOfMemory("too much")
    isolation.lost([tile(0b1)], None, None, error)
    seen = []
    while part := isolation.next():
        seen.append(part.whole_node)
        verdict = isolation.lost([part.tile], part, note(0), error)
    assert seen == [False, True, True]
    assert verdict is not None
    assert verdict.error is error


@pytest.mark.parametrize(("ago", "named"), [(1.0, False), (600.0, True)])
def test_the_end_of_a_worker_by_the_hard_limit_is_distinguished_from_a_crash(ago: float, named: bool) -> None:
    isolation = Isolation()
    isolation.lost([tile(0b1)], None, None, CRASH)
    verdict = None
    while part := isolation.next():
        verdict = isolation.lost([part.tile], part, note(0, ago, limit=60.0), CRASH)
    assert verdict is not None
    assert isinstance(verdict.error, CellTimeout) == named
    if named:
        assert "60 s" in str(verdict.error)
        assert f"{grace(60.0):g} to" in str(verdict.error)


# -- stopping


def test_a_signal_sets_a_deadline_and_a_budget_has_one() -> None:
    stop = Stop(grace=50.0)
    assert stop.deadline() == math.inf
    with stop.signals():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert stop.deadline() == pytest.approx(time.monotonic() + 50.0, abs=20.0)
    assert not stop.overdue
    assert not stop.admits(0.0)
    late = Stop(budget=-1.0)
    assert late.overdue
    assert (late.asked, late.reason) == (1, "end of the time budget")


def test_a_second_signal_stops_at_once_but_never_truncates_a_record() -> None:
    stop, recorded = Stop(), []

    def record() -> None:
        with stop.shield():
            os.kill(os.getpid(), signal.SIGTERM)
            recorded.append("whole")

    with stop.signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            record()
        with stop.shield():
            recorded.append("and what is written on the way out")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert len(recorded) == 2


@pytest.mark.parametrize("how", ["budget", "grace"])
def test_a_serial_run_does_not_wait_longer_than_it_may_for_the_cell_under_way(
    tmp_path: Path, kernel_file: Callable[..., str], how: str
) -> None:
    ask = "os.kill(os.getpid(), signal.SIGTERM)\n    " if how == "grace" else ""
    slow = f"if cell.seed == 3 and cell.a == 1.5 and attempt == 1:\n    {ask}time.sleep(3600)\n{RANDOM}"
    module, campaign = kernel_file(slow), make_campaign(p=[1], alpha=[0.8], N=[64])
    limits = {"time_budget": 8.0} if how == "budget" else {"grace": 0.5}
    summary = run(tmp_path / "s.zarr", module, campaign, **limits)
    assert (summary.outcome, summary.exit_code, summary.done, summary.missing) == ("stopped", 75, 6, 6)
    assert run(tmp_path / "s.zarr", module, campaign).outcome == "complete"


def test_abandoned_work_is_not_a_failure_of_its_cell() -> None:
    with Limits(until=lambda: time.monotonic() - 1.0) as limits, pytest.raises(Abandoned), limits.cell(60.0):
        forever()


@pytest.mark.parametrize("option", ["--time-budget", "--grace", "--cell-timeout"])
def test_times_of_the_command_line_have_units(option: str) -> None:
    assert seconds_of(option, "1h30min") == 5400
    for bad in ("5", "0s", "-1s", "1 h", "soon"):
        with pytest.raises(ParameterError, match=option):
            seconds_of(option, bad)
