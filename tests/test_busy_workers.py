"""One driver keeps hundreds of workers at work, as long as it takes less time than they do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from simulated_workers import SimulatedWorkers, drive

from bendscape.sweep.engine.ray_executor import RayExecutor


def taking(seconds: float) -> Callable[[], float]:
    """A clock on which the driver takes so long for every result and for every order."""
    counter = itertools.count()
    return lambda: seconds * next(counter)


@pytest.mark.parametrize("workers", [64, 512])
def test_a_driver_that_takes_milliseconds_keeps_every_worker_busy_at_tiles_of_two_seconds(
    tmp_path: Path, workers: int
) -> None:
    pool = SimulatedWorkers(workers, 2.0, look_seconds=lambda jobs: 2e-5 * jobs, driver_seconds=taking(1e-3))
    plan = drive(pool, tmp_path, 30)
    plan.recount()
    assert plan.total("missing") == 0
    assert pool.tiles == plan.total("tiles")
    assert pool.busy() > 0.99
    segments = list((tmp_path / "ledger" / "segments").iterdir())
    assert len(segments) <= pool.now / 5 + pool.tiles / 1000 + 2, "it is recorded in few objects"


def test_workers_wait_for_a_driver_that_takes_longer_than_they_do(tmp_path: Path) -> None:
    pool = SimulatedWorkers(128, 2.0, driver_seconds=taking(20e-3))
    drive(pool, tmp_path, 60)
    tasks_a_second = 1 / (2 * 20e-3)
    kept = tasks_a_second * pool.tile_seconds * pool.tiles / pool.jobs
    assert kept < 0.5 * 128
    assert pool.busy() == pytest.approx(kept / 128, rel=0.15)


@pytest.mark.parametrize(("cores", "asked", "window"), [(2, None, 4), (2, 1, 1), (5000, None, 6000)])
def test_every_core_of_a_large_cluster_has_a_task_and_a_bounded_number_wait(
    cores: int, asked: int | None, window: int
) -> None:
    executor = object.__new__(RayExecutor)
    executor._cores, executor._workers = cores, asked
    assert executor._window() == window
