"""Jobs run in a bounded window on our own cores, and the terminal shows the progress."""

from __future__ import annotations

import io
import itertools
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bendscape.cluster.local import ray_options
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.commands.options import bytes_of
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine.executor import Job, Result, SerialExecutor, choose, place_options
from bendscape.sweep.engine.machine import available_cores, available_memory
from bendscape.sweep.engine.plan import plan_campaign
from bendscape.sweep.engine.progress import Meter, clock
from bendscape.sweep.engine.ray_executor import RayExecutor
from bendscape.sweep.engine.run import open_plan
from bendscape.sweep.engine.stop import Stop
from bendscape.sweep.kernels.quadratic import AXES
from bendscape.sweep.location import store_url
from bendscape.sweep.store.records import Receipt, Records
from campaigns import RANDOM, campaign_text, data_files, make_campaign, run

KernelFile = Callable[..., str]


@pytest.mark.ray
@pytest.mark.parametrize(("workers", "window"), [(1, 1), (2, 4)])
def test_the_window_of_jobs_under_way_is_bounded(
    tmp_path: Path, kernel_file: KernelFile, local_ray: None, workers: int, window: int
) -> None:
    under_way = 0
    most = 0

    class Counting(RayExecutor):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            nonlocal under_way, most

            def counted() -> Job | None:
                nonlocal under_way, most
                job = next_job()
                under_way += job is not None
                most = max(most, under_way)
                return job

            for result in super().run(counted):
                under_way -= result is not None
                yield result

    summary = run(tmp_path / "s.zarr", kernel_file(RANDOM), make_campaign(), Counting({}, workers))
    assert summary.outcome == "complete"
    assert most == window
    assert under_way == 0


def test_every_tile_is_one_object_of_each_variable(tmp_path: Path, kernel_file: KernelFile) -> None:
    module, campaign = kernel_file(RANDOM), make_campaign()
    run(tmp_path / "s.zarr", module, campaign)
    plan = plan_campaign(campaign, load_kernel("probe", [module]))
    for variable in ("x", "status"):
        chunks = [name for name in data_files(tmp_path / "s.zarr") if re.match(rf"N=\d+/{variable}/c/", name)]
        assert len(chunks) == plan.total("tiles") == 24


def test_a_local_ray_is_private_and_uses_only_our_cores() -> None:
    options = ray_options()
    assert options["address"] == "local"
    assert 1 <= options["num_cpus"] == available_cores()
    assert ray_options(3)["num_cpus"] == 3
    with pytest.raises(ParameterError, match="--workers = 0"):
        ray_options(0)


def test_an_address_is_a_place_or_a_cluster_and_never_auto() -> None:
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        address = f"127.0.0.1:{cluster.getsockname()[1]}"
        assert place_options(address, None) == {"address": address}
    with pytest.raises(ParameterError, match="nothing answers"):
        place_options(address, None)
    assert place_options("ray", 2)["num_cpus"] == 2
    for ask in (lambda address: place_options(address, None), choose):
        with pytest.raises(ParameterError, match=r"'auto'.*local, ray, serial or host:port"):
            ask("auto")


def meter(kernel_file: KernelFile, console: Console) -> Meter:
    return Meter(plan_campaign(make_campaign(), load_kernel("probe", [kernel_file(RANDOM)])), 2, console)


def test_without_a_terminal_progress_is_plain_lines(kernel_file: KernelFile) -> None:
    stream = io.StringIO()
    with meter(kernel_file, Console(file=stream, width=200)) as shown:
        shown.advance(128, done=5, failed=1, computed=6, estimated=1.5, measured=3.0)
    first, last = stream.getvalue().splitlines()
    assert first.startswith("0/144 cells, 0/24 tiles, 0 failed, 0.0/s")
    assert re.match(r"5/144 cells, 1/24 tiles, 1 failed, \d+\.\d/s, ETA \d:\d\d:\d\d$", last)


def test_on_a_terminal_progress_is_a_live_bar(kernel_file: KernelFile) -> None:
    stream = io.StringIO()
    with meter(kernel_file, Console(file=stream, force_terminal=True, width=160)) as shown:
        for _ in range(24):
            shown.advance(128, done=6, failed=0, computed=6, estimated=1.5, measured=1.5)
    assert "100%" in stream.getvalue()
    assert "144/144 cells, 24/24 tiles" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


def test_the_end_is_predicted_from_measured_costs(kernel_file: KernelFile) -> None:
    shown = meter(kernel_file, Console(quiet=True))
    assert shown.core_seconds_left == pytest.approx(144 * 0.25)
    shown.advance(128, done=6, failed=0, computed=6, estimated=1.5, measured=6.0)
    # A size without measurements uses the correction measured for the others.
    assert shown.core_seconds_left == pytest.approx((72 - 6) * 0.25 * 4 + 72 * 0.25 * 4)
    shown.advance(64, done=6, failed=0, computed=0, estimated=1.5, measured=0.0)  # found in the store
    assert shown.core_seconds_left == pytest.approx((72 - 6) * 0.25 * 4 + (72 - 6) * 0.25 * 4)
    shown.advance(64, done=6, failed=0, computed=6, estimated=1.5, measured=3.0)
    assert shown.core_seconds_left == pytest.approx((72 - 6) * 0.25 * 4 + (72 - 12) * 0.25 * 2)
    assert shown.seconds_left == pytest.approx(shown.core_seconds_left / 2)


def test_a_resumed_campaign_goes_by_what_its_finished_cells_cost(kernel_file: KernelFile) -> None:
    kernel, campaign = load_kernel("probe", [kernel_file(RANDOM)]), make_campaign()
    fresh = plan_campaign(campaign, kernel)
    tile = next(iter(next(fresh.tasks(1)).tiles))  # six cells at N = 128, four times as dear as estimated
    receipt = Receipt(str(tile.key), done=tile.mask, computed=6, seconds=6.0)
    records = Records()
    records.add(receipt)
    resumed = plan_campaign(campaign, kernel, records=records)
    assert resumed.correction(128) == resumed.correction(64) == pytest.approx(4.0)
    assert resumed.to_json(1)["core_hours_left"] * 3600 == pytest.approx(66 * 0.25 * 4 + 72 * 0.25 * 4)
    assert Meter(resumed, 1, Console(quiet=True)).core_seconds_left == pytest.approx(66 * 1.0 + 72 * 1.0)


def test_before_anything_was_measured_the_end_is_called_the_kernels_estimate(kernel_file: KernelFile) -> None:
    shown = meter(kernel_file, Console(quiet=True))
    assert shown.line().endswith("ETA 0:00:18 (kernel's estimate)")
    shown.advance(128, done=6, failed=0, computed=6, estimated=1.5, measured=1.5)
    assert shown.line().endswith("ETA 0:00:17")


def test_run_status_and_plan_agree_on_the_time_left(tmp_path: Path, kernel_file: KernelFile) -> None:
    module = kernel_file(f"if cell.seed == 2: raise ValueError\ntime.sleep(4e-4 * cell.N)\n{RANDOM}")
    path = Path(module)
    path.write_text(path.read_text().replace("lambda cell: 0.25", "lambda cell: 1e-3 * cell.N * cell.alpha"))

    class Halfway(SerialExecutor):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            yield from itertools.islice(super().run(next_job), 2)

    for retry in (False, True):
        summary = run(tmp_path / "s.zarr", module, make_campaign(), Halfway(), retry_failed=retry)
        assert summary.missing > 0
        status = store_status(tmp_path / "s.zarr", [module])
        plan, _ = open_plan(store_url(tmp_path / "s.zarr"), make_campaign(), load_kernel("probe", [module]))
        assert status["core_hours_left"] * 3600 == pytest.approx(summary.core_seconds_left)
        assert plan.seconds_left == pytest.approx(summary.core_seconds_left)
        assert Meter(plan, 1, Console(quiet=True)).core_seconds_left == pytest.approx(plan.seconds_left)
    unknown = store_status(tmp_path / "s.zarr")  # of a kernel that is not named: a mean cost instead
    finished = [row for row in unknown["sizes"] if row["seconds_per_cell"] is not None]
    assert finished
    for row in finished:
        assert row["core_seconds_left"] == pytest.approx(row["seconds_per_cell"] * row["missing"])


def test_memory_bounds_how_many_tasks_run_and_so_the_end(kernel_file: KernelFile) -> None:
    plan = plan_campaign(make_campaign(), load_kernel("probe", [kernel_file(RANDOM)]))
    peak = plan.sizes[64].peak_bytes
    ends = [Meter(plan, 4, Console(quiet=True), count * peak + 1).seconds_left * count for count in (1, 2, 4)]
    assert ends == pytest.approx([plan.seconds_left] * 3)
    assert Meter(plan, 4, Console(quiet=True)).seconds_left == pytest.approx(plan.seconds_left / 4)


def test_a_task_beyond_the_memory_is_refused_before_anything_is_made_or_computed(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = Path(kernel_file(RANDOM))
    module.write_text(module.read_text().replace("lambda cell: 1e6", "lambda cell: 1e4 * cell.N"))
    kernel = load_kernel("probe", [str(module)])
    named = r"1\.3 MB at N = 128.*--max-memory.*leave out N = 128"
    with pytest.raises(ParameterError, match=named):
        plan_campaign(make_campaign(), kernel).check_memory(1e6)
    with pytest.raises(ParameterError, match=named):
        run(tmp_path / "s.zarr", str(module), make_campaign(), max_memory=1e6)
    assert not (tmp_path / "s.zarr" / "zarr.json").exists()
    assert run(tmp_path / "s.zarr", str(module), make_campaign(), max_memory=2e6).outcome == "complete"
    # What is done already needs no memory.
    assert run(tmp_path / "s.zarr", str(module), make_campaign(), max_memory=1e6).outcome == "complete"


def test_a_size_too_large_for_any_machine_is_refused_by_plan_and_run() -> None:
    grid = {"p": [1], "a": [0.7], "alpha": [1.0], "N": [10**7], "seeds": 1}
    campaign = parse_campaign(campaign_text(**grid).replace('"probe"\n\n', '"hessian"\n\n'))
    plan = plan_campaign(campaign, load_kernel("hessian"))
    with pytest.raises(ParameterError, match="GB at N = 10000000"):
        plan.check_memory(available_memory())


def test_the_plan_sets_the_only_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = AXES.cell(p=1, p_star=1, a=0.7, alpha=1.5, N=64, seed=0)
    kernel, usual = load_kernel("hessian"), {}
    usual = kernel.compute(cell, np.random.default_rng(1)).values
    monkeypatch.setattr("bendscape.core.quadratic.sampling.observe.MAX_BYTES", 1e3)
    monkeypatch.setattr("bendscape.sweep.kernels.hessian.MAX_BYTES", 1e3)
    assert kernel.compute(cell, np.random.default_rng(1)).values == usual


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "max\n"}, None),
        ({"memory.max": "2000000000\n"}, 1.8e9),
        ({"memory.max": "max\n", "job/memory.max": "1000000000\n", "job/step/memory.max": "max\n"}, 0.9e9),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({"memory/memory.limit_in_bytes": "1e18", "memory/old/memory.limit_in_bytes": "5e8"}, 4.5e8),
    ],
)
def test_memory_is_that_of_the_machine_or_of_the_smallest_cgroup_around_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    groups = tmp_path / "groups"
    groups.write_text("4:memory:/old\n0::/job/step\n")
    monkeypatch.setattr("bendscape.sweep.engine.machine._CGROUP", tmp_path)
    monkeypatch.setattr("bendscape.sweep.engine.machine._OWN_CGROUPS", groups)
    machine = 0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert available_memory() == pytest.approx(machine if expected is None else expected)


@pytest.mark.parametrize(
    ("text", "size"), [("12GB", 12e9), ("1.5GiB", 1.5 * 2**30), ("500 MB", 5e8), ("7", 7.0)]
)
def test_sizes_of_the_command_line_have_units(text: str, size: float) -> None:
    assert bytes_of("--max-memory", text) == size
    for wrong in ("", "0", "GB", "-1GB", "1gb", "12 gigabytes"):
        with pytest.raises(ParameterError, match="--max-memory"):
            bytes_of("--max-memory", wrong)


def test_a_clock_reads_hours_minutes_and_seconds() -> None:
    assert [clock(s) for s in (0.4, 59.6, 3600, 360000)] == ["0:00:00", "0:01:00", "1:00:00", "100:00:00"]


def test_a_budget_admits_only_what_can_still_finish() -> None:
    stop = Stop(budget=100.0)
    assert stop.admits(50)
    assert not stop.admits(1000)
    assert not stop.admits(1), "once it is over, it is over"


@pytest.mark.ray
def test_a_task_that_fits_no_node_is_refused_instead_of_waited_for(
    tmp_path: Path, kernel_file: KernelFile, local_ray: None
) -> None:
    module = Path(kernel_file(RANDOM))
    module.write_text(module.read_text().replace("1e6", "1e15"))
    with pytest.raises(ParameterError, match="memory of a task"):
        run(tmp_path / "s.zarr", str(module), make_campaign(), RayExecutor({}))
