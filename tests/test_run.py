"""The engine's law: any executor, order, interruption or repetition yields the store of one serial run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from command_line import BENDSCAPE, bendscape

import campaigns
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.theory import maps
from bendscape.core.quadratic.theory.maps import transitions_of_models
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.commands.status import store_status, store_tiles
from bendscape.sweep.engine.executor import Executor, Job, Result, SerialExecutor
from bendscape.sweep.engine.identity import generation
from bendscape.sweep.engine.isolation import CRASHES
from bendscape.sweep.engine.worker import Order, Superseded, run_tiles
from bendscape.sweep.location import store_url
from bendscape.sweep.store import publish as store_module
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from campaigns import RANDOM, calls, campaign_text, data_files, make_campaign, recorded, run

KernelFile = Callable[..., str]
Pool = Callable[..., Executor]
CELLS = 2 * 2 * 3 * 2 * 6


def on_ray(*values: object) -> Any:
    """Parameter values of a test that needs Ray."""
    return pytest.param(*values, marks=pytest.mark.ray)


def while_slow(seconds: float) -> str:
    """Make cells take this long while a file exists, so that only the disturbed part of a test is slow."""
    return f"if (CALLS.parent / 'slow').exists():\n    time.sleep({seconds})\n{RANDOM}"


class ShuffledExecutor(SerialExecutor):
    """All jobs in a random order, their tiles reversed."""

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        jobs = list(iter(next_job, None))
        random.Random(3).shuffle(jobs)
        jobs = [job._replace(order=job.order._replace(tiles=job.order.tiles[::-1])) for job in jobs]
        return super().run(lambda: jobs.pop() if jobs else None)


def reference(tmp_path: Path, module: str) -> dict[str, bytes]:
    run(tmp_path / "reference.zarr", module, make_campaign())
    assert len(calls(module)) == CELLS
    return data_files(tmp_path / "reference.zarr")


def test_a_shuffled_order_of_tiles_gives_the_same_bits(tmp_path: Path, kernel_file: KernelFile) -> None:
    module = kernel_file(RANDOM)
    serial = reference(tmp_path, module)
    run(tmp_path / "b.zarr", module, make_campaign(), ShuffledExecutor())
    assert data_files(tmp_path / "b.zarr") == serial


@pytest.mark.parametrize("workers", [1, 2])
def test_one_and_two_workers_give_the_bits_of_a_serial_run(
    tmp_path: Path, kernel_file: KernelFile, pool: Pool, workers: int
) -> None:
    module = kernel_file(RANDOM)
    serial = reference(tmp_path, module)
    executor = pool(workers)
    assert executor.slots == workers
    summary = run(tmp_path / "b.zarr", module, make_campaign(), executor)
    assert summary.outcome == "complete"
    assert data_files(tmp_path / "b.zarr") == serial


def test_real_hessians_have_the_same_bits_in_a_worker_and_in_this_process(tmp_path: Path, pool: Pool) -> None:
    text = campaign_text(p=[1, 2], N=[32, 48], seeds=3).replace('kernel = "probe"', 'kernel = "hessian"')
    from bendscape.sweep.campaign.file import parse_campaign

    run(tmp_path / "a.zarr", "", parse_campaign(text))
    run(tmp_path / "b.zarr", "", parse_campaign(text), pool())
    assert data_files(tmp_path / "a.zarr") == data_files(tmp_path / "b.zarr")
    with xr.open_dataset(tmp_path / "a.zarr", engine="bendscape") as ds:
        assert int((ds.status == 1).sum()) == 2 * 2 * 3 * 2 * 3
        assert bool((ds.eigval_min <= ds.eigval_second).all())


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_a_driver_killed_at_any_point_loses_nothing_that_reached_the_store(
    tmp_path: Path, kernel_file: KernelFile, jobs: int
) -> None:
    module = kernel_file(RANDOM)
    serial = reference(tmp_path, module)
    for path in (Path(module).parent / "calls").iterdir():
        path.unlink()
    store = tmp_path / "b.zarr"
    script = Path(campaigns.__file__)
    dead = subprocess.run([sys.executable, script, store, module, str(jobs)], timeout=60, check=False)
    assert dead.returncode == -signal.SIGKILL
    before = calls(module)
    summary = run(store, module, make_campaign())
    assert summary.outcome == "complete"
    assert data_files(store) == serial
    assert set(calls(module).values()) == {1}, "a cell was computed twice"
    assert sum(before.values()) + summary.computed == CELLS


@pytest.mark.parametrize(
    ("address", "how"),
    [
        ("local", signal.SIGINT),
        ("local", signal.SIGKILL),
        pytest.param("ray", signal.SIGKILL, marks=[pytest.mark.ray, pytest.mark.slow]),  # see test_chaos.py
    ],
)
def test_an_interrupted_command_is_finished_by_the_same_command(
    tmp_path: Path, kernel_file: KernelFile, address: str, how: signal.Signals
) -> None:
    module = kernel_file(while_slow(0.02))
    serial = reference(tmp_path, module)
    for path in (Path(module).parent / "calls").iterdir():
        path.unlink()
    (tmp_path / "slow").touch()
    file = tmp_path / "campaign.toml"
    file.write_text(campaign_text())
    store = tmp_path / "b.zarr"
    command = [BENDSCAPE, "run", file, "--store", store, "--json", "--kernel-module", module]
    process = subprocess.Popen(
        [*command, "--workers", "1", "--address", address], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 120
        while len(calls(module)) < CELLS // 4 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(how)
        stdout, stderr = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (75 if how == signal.SIGINT else -9), stderr.decode()
    if how == signal.SIGINT:
        stopped = json.loads(stdout)
        assert stopped["outcome"] == "stopped"
        assert 0 < stopped["missing"] < CELLS
        assert stopped["computed"] == sum(calls(module).values())
    quiet = -1  # workers of a killed driver die with it; one may still be inside a cell
    while quiet != (quiet := len(list((Path(module).parent / "calls").iterdir()))):
        time.sleep(1.0)
    known = recorded(store)
    before = sum(calls(module).values())
    (tmp_path / "slow").unlink()
    finished = bendscape(*command[1:], "--address", "serial")
    assert finished.returncode == 0, finished.stderr
    assert data_files(store) == serial
    computed = json.loads(finished.stdout)["computed"]
    assert sum(calls(module).values()) - before == computed
    assert computed <= CELLS - len(known)
    if how == signal.SIGINT:
        assert set(calls(module).values()) == {1}


@pytest.mark.parametrize(
    ("address", "signals", "code"),
    [
        ("local", (signal.SIGTERM,), 75),
        ("local", (signal.SIGINT, signal.SIGINT), 130),
        on_ray("ray", (signal.SIGTERM,), 75),
        pytest.param("ray", (signal.SIGINT, signal.SIGINT), 130, marks=[pytest.mark.ray, pytest.mark.slow]),
    ],
)
def test_signals_to_the_whole_process_group_stop_in_seconds_and_lose_nothing(
    tmp_path: Path, kernel_file: KernelFile, address: str, signals: tuple[signal.Signals, ...], code: int
) -> None:
    # As a terminal, systemd or Slurm send them: Ray's own processes get them too, ours do not.
    slow, store, file = tmp_path / "slow", tmp_path / "s.zarr", tmp_path / "c.toml"
    pause = "time.sleep(float(slow.read_text() or 5) if slow.exists() else 0)"
    module = kernel_file(f"slow = CALLS.parent / 'slow'\n{pause}\n{RANDOM}")
    slow.write_text("0.1")
    file.write_text(campaign_text())
    command = [BENDSCAPE, "run", file, "--store", store, "--json", "--kernel-module", module]
    command += ["--address", address]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        begun = 30
        deadline = time.monotonic() + 120
        while len(calls(module)) < begun and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
            if begun == 30 <= len(calls(module)) and code == 130:  # the second must find the run at work
                slow.write_text("5.0")
                begun = len(calls(module)) + 2
        for number in signals:
            os.killpg(process.pid, number)
            time.sleep(0.5)
        stdout, stderr = process.communicate(timeout=50)  # Ray's client would wait a minute, then abort
    finally:
        process.kill()
        process.wait()
        slow.unlink(missing_ok=True)
    assert process.returncode == code, stderr.decode()
    assert json.loads(stdout)["exit_code"] == code
    if (address, code) == ("local", 75):
        assert sum(calls(module).values()) == len(recorded(store)), "what was under way came to its end"
    assert store_status(store)["holder"] is None, "the lease was given back"
    run(store, module, make_campaign())
    run(tmp_path / "reference.zarr", kernel_file(RANDOM), make_campaign())
    assert data_files(store) == data_files(tmp_path / "reference.zarr")


def test_a_writer_that_a_newer_revision_has_overtaken_writes_nothing(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file(f"if cell.p == 2:\n    raise ValueError('no luck')\n{RANDOM}")
    store = tmp_path / "s.zarr"
    run(store, module, make_campaign(alpha=[1.0, 1.5, 2.0], seeds=4))
    stale = Order(store_url(store), 1, (module,), (("N=64/1.0.0.1.0", 0b1111),))
    run_tiles(stale)  # while the revision stands, a worker may try what failed again
    run(store, module, make_campaign(alpha=[1.0, 1.5, 2.0, 2.5], seeds=6))
    files = data_files(store)
    with pytest.raises(Superseded):
        run_tiles(stale)
    assert data_files(store) == files


def test_going_back_to_an_older_campaign_file_cuts_nothing_off(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file(f"if cell.seed == 0 and attempt < 3:\n    raise ValueError('not yet')\n{RANDOM}")
    store = tmp_path / "s.zarr"
    small, large = make_campaign(alpha=[1.0, 1.5]), make_campaign(alpha=[1.0, 1.5, 2.0])
    assert run(store, module, small).failed == 16
    assert run(store, module, large).failed == 24
    for _ in range(2):
        run(store, module, small, retry_failed=True)
    for _ in range(3):
        run(store, module, large, retry_failed=True)
    assert run(store, module, large).outcome == "complete"
    with xr.open_dataset(store, engine="bendscape") as ds:
        assert bool((ds.status == 1).all()), "what the ledger calls done is there"


def test_a_store_that_cannot_be_written_ends_the_run_in_one_line(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module, store, file = kernel_file(RANDOM), tmp_path / "s.zarr", tmp_path / "c.toml"
    run(store, module, make_campaign(N=[64]))
    for chunk in store.glob("N=64/x/c"):
        shutil.rmtree(chunk)
        chunk.write_text("in the way of every chunk")
    file.write_text(campaign_text(N=[64], seeds=8))
    done = bendscape("run", file, "--store", store, "--kernel-module", module, "--address", "serial")
    assert done.returncode == 74
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    with xr.open_dataset(store, engine="bendscape") as ds:
        assert set(ds.status.sel(seed=[6, 7]).values.ravel()) == {0}, "no cell is blamed for it"


def test_a_time_budget_stops_cleanly_and_reports_what_is_left(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file(f"time.sleep(0.01)\n{RANDOM}")
    summary = run(tmp_path / "a.zarr", module, make_campaign(), time_budget=1e-3)
    assert (summary.outcome, summary.exit_code, summary.computed) == ("stopped", 75, 0)
    assert summary.core_seconds_left > 0
    assert run(tmp_path / "a.zarr", module, make_campaign()).exit_code == 0


def test_a_finished_campaign_computes_nothing_and_starts_no_executor(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file(RANDOM)
    run(tmp_path / "a.zarr", module, make_campaign())

    class Unwanted(SerialExecutor):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            raise AssertionError("nothing was left to do")

    assert run(tmp_path / "a.zarr", module, make_campaign(), Unwanted()).computed == 0


def test_failed_cells_keep_their_error_and_the_others_their_values(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file(f"if cell.seed == 2 and cell.N == 64:\n    raise ValueError('no luck')\n{RANDOM}")
    store = tmp_path / "a.zarr"
    summary = run(store, module, make_campaign())
    assert (summary.outcome, summary.exit_code, summary.failed) == ("failed cells", 1, 12)
    with xr.open_dataset(store, engine="bendscape") as ds:
        bad = ds.sel(seed=2, N=64)
        assert set(bad.status.values.ravel()) == {2}
        assert bool(bad.x.isnull().all())
        assert int((ds.status == 1).sum()) == CELLS - 12
    ledger = Ledger(connect(store_url(store)))
    ledger.replay()
    errors = ledger.records.errors()
    assert {(e.error, e.message, e.attempts) for e in errors} == {("ValueError", "no luck", 1)}
    assert all(
        e.cell["seed"] == 2 and e.cell["N"] == 64 and "raise ValueError" in e.traceback for e in errors
    )
    assert len({tuple(e.cell.items()) for e in errors}) == 12

    assert run(store, module, make_campaign()).computed == 0, "a recorded failure is not retried unasked"
    assert run(store, module, make_campaign(), retry_failed=True).computed == 12
    ledger.replay()
    assert {e.attempts for e in ledger.records.errors()} == {2}


def test_a_retry_that_succeeds_clears_the_error(tmp_path: Path, kernel_file: KernelFile) -> None:
    module = kernel_file(f"if cell.seed == 2 and attempt == 1:\n    raise ValueError('once')\n{RANDOM}")
    store = tmp_path / "a.zarr"
    assert run(store, module, make_campaign()).exit_code == 1
    assert run(store, module, make_campaign(), retry_failed=True).exit_code == 0
    ledger = Ledger(connect(store_url(store)))
    ledger.replay()
    assert ledger.records.errors() == []
    clean = kernel_file(RANDOM)
    run(tmp_path / "b.zarr", clean, make_campaign())
    assert data_files(store) == data_files(tmp_path / "b.zarr")


@pytest.mark.parametrize("pool", ["processes"], indirect=True)  # on Ray: see the segfaults in test_chaos.py
def test_a_cell_that_kills_its_worker_and_no_other_is_recorded_as_failed(
    tmp_path: Path, kernel_file: KernelFile, pool: Pool
) -> None:
    module = kernel_file(
        f"if cell[:-1] == (1, 1, 0.7, 0.8, 128, 0):\n    os.kill(os.getpid(), signal.SIGKILL)\n{RANDOM}"
    )
    store = tmp_path / "a.zarr"
    summary = run(store, module, make_campaign(p=[1], N=[128]), pool())
    assert summary.outcome == "failed cells"
    assert summary.missing == 0
    with xr.open_dataset(store, engine="bendscape") as ds:
        status = ds.status.load()
    assert int(status.sel(p=1, p_star=1, a=0.7, alpha=0.8, N=128, seed=0)) == 2
    assert int((status == 1).sum()) == status.size - 1
    ledger = Ledger(connect(store_url(store)))
    ledger.replay()
    (error,) = ledger.records.errors()
    assert (error.error, error.attempts, error.host) == ("WorkerLost", CRASHES, socket.gethostname())
    assert (error.cell["seed"], error.cell["a"]) == (0, 0.7)


def test_nan_is_a_value_and_not_convergence_a_status(tmp_path: Path, kernel_file: KernelFile) -> None:
    module = kernel_file("return Outcome({'x': math.nan}, converged=cell.seed > 0)")
    store = tmp_path / "a.zarr"
    assert run(store, module, make_campaign()).exit_code == 0
    with xr.open_dataset(store, engine="bendscape") as ds:
        assert bool(ds.x.isnull().all())
        assert set(ds.status.sel(seed=0).values.ravel()) == {3}
        assert set(ds.status.sel(seed=slice(1, None)).values.ravel()) == {1}
    assert run(store, module, make_campaign()).computed == 0


def test_growing_every_axis_computes_only_the_new_cells_and_moves_no_bit(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file(RANDOM)
    store = tmp_path / "a.zarr"
    run(store, module, make_campaign())
    with xr.open_dataset(store, engine="bendscape") as ds:
        before = ds.load()
    wider = {"p": [1, 2, 3], "a": [0.5, 0.7, 1.5], "alpha": [0.8, 0.9, 1.0, 1.2, 1.4]}
    wider |= {"N": [32, 64, 128], "seeds": 7}
    summary = run(store, module, make_campaign(**wider))
    assert summary.computed == 3 * 3 * 5 * 3 * 7 - CELLS
    assert set(calls(module).values()) == {1}
    with xr.open_dataset(store, engine="bendscape") as ds:
        after = ds.load()
    assert all(np.all(np.diff(after[axis]) > 0) for axis in ("p", "a", "alpha", "N", "seed"))
    overlap = after.x.sel({axis: before[axis] for axis in before.x.dims})
    np.testing.assert_array_equal(overlap, before.x)
    fresh = tmp_path / "b.zarr"
    run(fresh, module, make_campaign(**wider))
    with xr.open_dataset(fresh, engine="bendscape") as ds:
        xr.testing.assert_equal(after, ds.load())

    assert run(store, module, make_campaign()).computed == 0
    with xr.open_dataset(store, engine="bendscape") as ds:
        xr.testing.assert_equal(ds.load(), before)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"entropy": 8}, "entropy"),
        ({"alpha": '{ around = "alpha_bbp", values = [1.0] }'}, "around: None there, 'alpha_bbp' here"),
    ],
)
def test_a_store_refuses_a_campaign_with_other_bits_and_shows_the_difference(
    tmp_path: Path, kernel_file: KernelFile, change: dict[str, object], named: str
) -> None:
    module = kernel_file(RANDOM)
    run(tmp_path / "a.zarr", module, make_campaign())
    files = data_files(tmp_path / "a.zarr")
    with pytest.raises(ParameterError, match=named):
        run(tmp_path / "a.zarr", module, make_campaign(**change))
    assert data_files(tmp_path / "a.zarr") == files


def test_a_new_version_of_a_kernel_is_refused(tmp_path: Path, kernel_file: KernelFile) -> None:
    run(tmp_path / "a.zarr", kernel_file(RANDOM), make_campaign())
    with pytest.raises(ParameterError, match="kernel_version: 1 there, 2 here"):
        run(tmp_path / "a.zarr", kernel_file(RANDOM, version=2), make_campaign())


def test_a_new_generation_lies_beside_the_old_one_and_is_found_again(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store, campaign = tmp_path / "a.zarr", make_campaign()
    url, first = store_url(store), load_kernel("probe", [kernel_file(RANDOM)])
    assert generation(url, campaign, first) == url, "a new store is the first generation"
    run(store, kernel_file(RANDOM), campaign)
    files = data_files(store)
    module = kernel_file(RANDOM, version=2)
    second = load_kernel("probe", [module])
    beside = store_url(tmp_path / "a.generation-2.zarr")
    assert generation(url, campaign, first) == url
    assert generation(url, campaign, second) == beside
    assert run(tmp_path / "a.generation-2.zarr", module, campaign).computed == CELLS
    assert generation(url, campaign, second) == beside, "the same command resumes it"
    assert generation(url, make_campaign(entropy=8), second).endswith("a.generation-3.zarr")
    assert data_files(store) == files


def test_every_tile_tells_where_it_was_computed_and_by_which_run(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file("if cell.seed == 2 and attempt == 1: raise ValueError('once')\n" + RANDOM)
    for retry in (False, True):
        run(tmp_path / "a.zarr", module, make_campaign(), retry_failed=retry)
    rows, runs = store_tiles(tmp_path / "a.zarr"), store_status(tmp_path / "a.zarr")["runs"]
    assert sum(row["done"] for row in rows) == CELLS
    assert {(row["host"], row["attempts"], row["epoch"]) for row in rows} == {(socket.gethostname(), 2, 2)}
    assert all(row["seconds"] > 0 and row["finished"] > runs[1]["started"] for row in rows)
    assert [one["epoch"] for one in runs] == [1, 2]
    assert all(one["bendscape_version"] and one["packages"]["numpy"] for one in runs)
    at = rows[0]
    assert (at["p"], at["p_star"], at["a"], at["alpha"], at["N"], at["seed"]) == (
        1, 1, 0.7, [0.8, 0.8], 64, [0, 5]
    )  # fmt: skip


def test_a_stop_is_heeded_while_the_theory_of_a_new_store_is_computed(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, campaign, asked = kernel_file(RANDOM), make_campaign(), []

    def slow(*models: Any, **options: Any) -> Any:
        asked.append(models)
        signal.raise_signal(signal.SIGTERM)
        return transitions_of_models(*models, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "REFERENCE_POINTS", 1)  # a look at the signal for every model
        patch.setattr(maps, "transitions_of_models", slow)
        stopped = run(tmp_path / "a.zarr", module, campaign)
    assert (stopped.outcome, stopped.missing, len(asked)) == ("stopped", CELLS, 1)
    assert run(tmp_path / "a.zarr", module, campaign).computed == CELLS
    run(tmp_path / "b.zarr", module, campaign)
    assert data_files(tmp_path / "a.zarr") == data_files(tmp_path / "b.zarr")


def test_within_a_budget_what_was_computed_is_recorded_and_no_cell_is_given_up(
    tmp_path: Path, kernel_file: KernelFile, pool: Pool
) -> None:
    module = kernel_file("time.sleep(0.25)\n" + RANDOM)
    one = make_campaign(p=[1], a=[0.7], alpha=[0.8], N=[64], seeds=1)
    assert run(tmp_path / "one.zarr", module, one, pool()).computed == 1  # the start of workers takes a while
    campaign = make_campaign(seeds=12)  # tiles of three seconds, 36 seconds for two workers
    stopped = run(tmp_path / "a.zarr", module, campaign, pool(), time_budget=12.0)
    assert stopped.outcome == "stopped"
    begun = sum(calls(module).values()) - 1
    assert 0 < begun == stopped.computed == len(recorded(tmp_path / "a.zarr"))
