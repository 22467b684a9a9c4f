"""Budgets in core-hours: what a run admits, what the ledger keeps, and what is left for the next."""

from __future__ import annotations

import io
import json
import math
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import bendscape
from rich.console import Console

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.commands.options import core_hours_of
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine.executor import Executor, Job, Result, SerialExecutor
from bendscape.sweep.engine.run import run_campaign
from bendscape.sweep.location import store_url
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.records import Receipt
from bendscape.sweep.store.runs import core_seconds_left, core_seconds_used, run_records
from campaigns import DEFAULT, RANDOM, campaign_text, make_campaign, run

KernelFile = Callable[..., str]
CELL = 0.25  # seconds, as the kernel of `campaigns` says
TILE = 6 * CELL
GROWN: dict[str, Any] = {
    "alpha": [round(0.5 + 0.1 * k, 1) for k in range(10)],
    "N": [64],
    "a": [0.7],
    "p": [1],
}
TILES = 10


class Clockwork(SerialExecutor):
    """Computes nothing: answers each job with the receipt of a worker that needed `pace` times the estimate.

    So many jobs are under way at a time, as in the window of a cluster.
    """

    def __init__(self, window: int = 1, pace: float = 1.0) -> None:
        self.slots, self._window, self._pace = window, window, pace  # type: ignore[misc]

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        jobs: deque[Job] = deque()
        while True:
            while len(jobs) < self._window and (job := next_job()) is not None:
                jobs.append(job)
            if not jobs:
                return
            job = jobs.popleft()
            yield Result(job, [self._receipt(*tile) for tile in job.order.tiles], None)

    def _receipt(self, tile: str, mask: int) -> Receipt:
        cells = mask.bit_count()
        return Receipt(tile, done=mask, computed=cells, seconds=self._pace * CELL * cells, finished=1.0)


def hours(tiles: float) -> float:
    return tiles * TILE / 3600


def ledger_of(store: Path) -> Ledger:
    ledger = Ledger(connect(store_url(store)))
    ledger.replay()
    return ledger


@pytest.mark.parametrize("window", [1, 3, 8])
def test_a_run_computes_as_many_tiles_as_its_core_hours_pay_for_and_stops(
    tmp_path: Path, kernel_file: KernelFile, window: int
) -> None:
    store, module = tmp_path / "a.zarr", kernel_file(RANDOM)
    summary = run(store, module, make_campaign(**GROWN), Clockwork(window), core_hours={"": hours(4.5)})
    assert (summary.outcome, summary.exit_code, summary.reason) == ("stopped", 75, "end of the core-hours")
    assert (summary.computed, summary.core_seconds) == (24, 4 * TILE)
    (record,) = run_records(ledger_of(store))
    assert (record.cells, record.core_seconds) == (24, 4 * TILE)
    assert (record.outcome, record.reason, record.charges) == ("stopped", "end of the core-hours", {})
    rest = run(store, module, make_campaign(**GROWN), Clockwork(window), core_hours={"": hours(TILES)})
    assert (rest.outcome, rest.reason, rest.computed) == ("complete", "", 36), "each run alone has its own"


def test_what_cells_really_cost_counts_and_not_what_the_kernel_says(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file(RANDOM)
    summary = run(
        tmp_path / "a.zarr", module, make_campaign(**GROWN), Clockwork(1, 2.0), core_hours={"": hours(7)}
    )
    assert summary.computed == 18, "after the first tile each is known to cost two"
    assert summary.core_seconds == 6 * TILE


class Waiting(Clockwork):
    """Asks of each job, after so many seconds, whether to compute it a second time, before it answers."""

    def __init__(self, waited: float) -> None:
        super().__init__()
        self.waited, self.again = waited, list[bool]()

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        def asked() -> Job | None:
            job = next_job()
            self.again += [job.again(self.waited)] if job else []
            return job

        yield from super().run(asked)


@pytest.mark.parametrize(
    ("waited", "tiles", "budget", "again", "computed"),
    [
        (2.9 * TILE, 3, 3600, [False, False, False], 3),
        (3.1 * TILE, 2.5, 3600, [True], 1),
        (3.1 * TILE, 3.5, 3600, [True, False], 2),
        (3.1 * TILE, 1.5, 3600, [False], 1),
        (3.1 * TILE, 1.5, None, [True], 1),
        (3.1 * TILE, math.inf, 12 * TILE, [True] * TILES, TILES),
    ],
    ids=["slow", "paid", "paid once", "unpaid", "waits for ever", "unlimited"],
)
def test_a_job_is_computed_a_second_time_only_if_it_is_late_and_paid_for(
    tmp_path: Path, kernel_file: KernelFile, waited: float, tiles: float, budget: float | None,
    again: list[bool], computed: int,
) -> None:  # fmt: skip
    executor, limit = Waiting(waited), {"": hours(tiles)}
    summary = run(
        tmp_path / "a.zarr", kernel_file(RANDOM), make_campaign(**GROWN), executor,
        core_hours=limit, time_budget=budget,
    )  # fmt: skip
    assert (executor.again, summary.computed) == (again, 6 * computed)


def test_a_job_that_nobody_waits_for_is_not_computed_a_second_time(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    class Interrupted(Waiting):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            job = next_job()
            assert job is not None
            signal.raise_signal(signal.SIGTERM)
            self.again = [job.again(self.waited)]
            yield Result(job, [self._receipt(*tile) for tile in job.order.tiles], None)

    executor = Interrupted(100 * TILE)
    run(tmp_path / "a.zarr", kernel_file(RANDOM), make_campaign(**GROWN), executor, grace=TILE / 2)
    assert executor.again == [False]


def test_runs_with_one_label_share_its_core_hours_and_the_smallest_rest_counts(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store, module, campaign = tmp_path / "a.zarr", kernel_file(RANDOM), make_campaign(**GROWN)

    def computed(**limits: float) -> int:
        allowed = {label: hours(tiles) for label, tiles in limits.items()}
        return run(store, module, campaign, Clockwork(2), core_hours=allowed).computed // 6

    assert computed(night_1=3, thesis=5) == 3
    assert computed(night_1=3, thesis=5) == 0, "the night is over its budget"
    assert computed(night_2=3, thesis=5) == 2, "the thesis has two left"
    assert computed(thesis=6) == 1, "a budget that was raised has more left"
    assert computed(other=math.inf) == TILES - 6
    used = core_seconds_used(run_records(ledger_of(store)))
    assert used == {"night_1": 3 * TILE, "night_2": 2 * TILE, "thesis": 6 * TILE, "other": 4 * TILE}


def test_what_a_killed_run_computed_is_charged_and_its_end_is_its_last_sign_of_life(tmp_path: Path) -> None:
    killed = ledger_of(tmp_path)
    gone = {"pid": 2**22 + 1, "process_start": "1"}  # no process has this id
    killed.acquire(lambda _: None, about={"charges": {"night": 100.0}, **gone})
    killed.add([Receipt(f"64/{k}.0", done=3, computed=2, seconds=20.0, finished=5.0) for k in range(2)])
    killed.flush()
    killed.add([Receipt("64/2.0", done=3, computed=2, seconds=20.0)])  # not flushed: nobody will know
    killed._stopped.set()
    ledger = ledger_of(tmp_path)
    (record,) = run_records(ledger)
    assert (record.outcome, record.cells, record.core_seconds) == ("killed", 4, 40.0)
    assert record.ended is not None
    assert record.started is not None
    assert 0 <= record.ended - record.started < 60
    assert core_seconds_left(ledger, {"night": 100.0, "week": 50.0, "never": None}) == {
        "night": 60,
        "week": 50,
    }


KILLED = """
import os, signal
from bendscape.sweep.store import ledger
import test_core_hours as here

class Dying(here.Clockwork):
    def run(self, next_job):
        for count, result in enumerate(super().run(next_job)):
            if count == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            yield result

ledger.FLUSH_SECONDS = 0.0  # every receipt is flushed at once
night = {{"night": here.hours(5)}}
here.run({store!r}, {module!r}, here.make_campaign(**here.GROWN), Dying(), core_hours=night)
"""


def test_a_run_after_kill_9_has_what_the_killed_one_left(tmp_path: Path, kernel_file: KernelFile) -> None:
    store, module = str(tmp_path / "a.zarr"), kernel_file(RANDOM)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(store=store, module=module)],
        cwd=Path(__file__).parent, timeout=120, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    summary = run(store, module, make_campaign(**GROWN), Clockwork(), core_hours={"night": hours(5)})
    assert (summary.computed, summary.reason) == (2 * 6, "end of the core-hours")
    first, second = run_records(ledger_of(Path(store)))
    assert (first.outcome, first.core_seconds, first.cells) == ("killed", 3 * TILE, 18)
    assert (second.outcome, second.core_seconds) == ("stopped", 2 * TILE)


def test_snapshots_keep_the_account_of_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bendscape.sweep.store.ledger.COMPACT_SEGMENTS", 2)
    for run_number in range(3):
        ledger = ledger_of(tmp_path)
        ledger.acquire(lambda _: None)
        for k in range(3):
            ledger.add([Receipt(f"64/{k}.0", done=1, computed=1, seconds=1.0 + run_number)])
            ledger.flush()
        ledger.release("complete")
    assert len(list((tmp_path / "ledger/snapshots").glob("*.npz"))) > 1
    assert [run.core_seconds for run in run_records(ledger_of(tmp_path))] == [3.0, 6.0, 9.0]


def test_no_executor_is_started_for_less_than_a_tile_and_the_run_says_what_is_missing(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    def unwanted() -> SerialExecutor:
        raise AssertionError("nothing can be computed")

    module, said = kernel_file(RANDOM), io.StringIO()
    for limits in ({"": hours(0.5)}, {"night": hours(0.5)}):
        summary = run_campaign(
            make_campaign(), store_url(tmp_path / "s.zarr"), load_kernel("probe", [module]), unwanted,
            console=Console(file=said, width=1000), kernel_modules=(module,), core_hours=limits,
        )  # fmt: skip
        assert (summary.exit_code, summary.computed) == (75, 0)
    assert "0.00021 of the 0.0002083 core-hours are left, and a tile of N = 128 takes about 0.00042" in (
        said.getvalue()
    )
    assert "0.0002083 core-hours of 'night' are left" in said.getvalue()


def test_the_command_tells_core_hours_in_its_document_and_status_every_run(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module, file = kernel_file(RANDOM), tmp_path / "c.toml"
    file.write_text(campaign_text(**{**DEFAULT, **GROWN}))
    where = ("--store", tmp_path / "s.zarr", "--kernel-module", module, "--address", "serial", "--json")
    shown = bendscape("run", file, *where, "--core-hours", "night=1", "--core-hours", "2")
    document = json.loads(shown.stdout)
    assert (shown.returncode, document["reason"]) == (0, "")
    assert document["core_seconds"] > 0
    (run_of_store,) = store_status(tmp_path / "s.zarr")["runs"]
    assert run_of_store["charges"] == {"night": 3600.0}
    assert run_of_store["core_seconds"] == document["core_seconds"]
    assert (run_of_store["outcome"], run_of_store["cells"]) == ("complete", 60)
    told = " ".join(bendscape("status", tmp_path / "s.zarr", "--kernel-module", module).stdout.split())
    assert f"last run: 1 on {run_of_store['host']}, complete, 60 cells in" in told


def test_workers_of_this_machine_and_of_ray_stop_when_the_core_hours_are_used(
    tmp_path: Path, kernel_file: KernelFile, pool: Callable[..., Executor]
) -> None:
    module, campaign = kernel_file(f"time.sleep({CELL})\n{RANDOM}"), make_campaign(**GROWN)
    summary = run(tmp_path / "a.zarr", module, campaign, pool(2), core_hours={"night": hours(3.3)})
    assert (summary.exit_code, summary.reason) == (75, "end of the core-hours")
    assert summary.computed in (12, 18), "three tiles, or two if the machine was slow"
    (record,) = run_records(ledger_of(tmp_path / "a.zarr"))
    assert record.core_seconds == summary.core_seconds >= summary.computed * CELL


@pytest.mark.parametrize("text", ["0", "-1", "nan", "=3", "a=", "a=b", "x\n=1", "1h", "a'b=1"])
def test_core_hours_that_are_none_are_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ParameterError, match="must be core-hours > 0 such as 40, or LABEL=40"):
        core_hours_of("--core-hours", [text])


def test_core_hours_are_a_number_a_text_or_a_mapping() -> None:
    assert core_hours_of("x", 40) == core_hours_of("x", "40") == core_hours_of("x", {"": 40}) == {"": 40.0}
    assert core_hours_of("x", ["a/b 2=1e-3", "inf"]) == {"a/b 2": 1e-3, "": math.inf}
    with pytest.raises(ParameterError, match="once for each label"):
        core_hours_of("x", ["1", "2"])
