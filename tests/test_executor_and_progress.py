"""Jobs run in a bounded window on cores that are ours, and the person at the terminal sees how far it is."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from bendscape.cluster.local import available_cores, ray_options
from bendscape.core.model import ParameterError
from bendscape.sweep.executor import Job, RayExecutor, Result, place_options
from bendscape.sweep.kernel import load_kernel
from bendscape.sweep.plan import plan_campaign
from bendscape.sweep.progress import Meter, clock
from bendscape.sweep.records import Receipt, Records
from bendscape.sweep.stop import Stop
from campaigns import RANDOM, data_files, make_campaign, run

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


def test_a_local_ray_is_our_own_and_keeps_within_our_cores() -> None:
    options = ray_options()
    assert options["address"] == "local"
    assert 1 <= options["num_cpus"] == available_cores()
    assert ray_options(3)["num_cpus"] == 3
    with pytest.raises(ParameterError, match="--workers = 0"):
        ray_options(0)


def test_an_address_is_a_place_or_a_cluster_and_never_whatever_is_found() -> None:
    assert place_options("10.0.0.1:6379", None) == {"address": "10.0.0.1:6379"}
    assert place_options("local", 2)["num_cpus"] == 2
    with pytest.raises(ParameterError, match="'auto'"):
        place_options("auto", None)


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
    assert shown.core_seconds_left == pytest.approx((72 - 6) * 0.25 * 4 + 72 * 0.25)
    shown.advance(64, done=6, failed=0, computed=0, estimated=1.5, measured=0.0)  # found in the store
    assert shown.core_seconds_left == pytest.approx((72 - 6) * 0.25 * 4 + (72 - 6) * 0.25)


def test_a_resumed_campaign_goes_by_what_its_finished_cells_cost(kernel_file: KernelFile) -> None:
    kernel, campaign = load_kernel("probe", [kernel_file(RANDOM)]), make_campaign()
    fresh = plan_campaign(campaign, kernel)
    tile = next(iter(next(fresh.tasks(1)).tiles))  # six cells at N = 128, four times as dear as estimated
    receipt = Receipt(str(tile.key), done=tile.mask, computed=6, seconds=6.0)
    records = Records()
    records.add(receipt)
    resumed = plan_campaign(campaign, kernel, records=records)
    assert resumed.sizes[128].correction == pytest.approx(4.0)
    assert resumed.sizes[64].correction == 1.0
    assert resumed.to_json(1)["core_hours_left"] * 3600 == pytest.approx(66 * 0.25 * 4 + 72 * 0.25)
    assert Meter(resumed, 1, Console(quiet=True)).core_seconds_left == pytest.approx(66 * 1.0 + 72 * 0.25)


def test_a_clock_reads_hours_minutes_and_seconds() -> None:
    assert [clock(s) for s in (0.4, 59.6, 3600, 360000)] == ["0:00:00", "0:01:00", "1:00:00", "100:00:00"]


def test_a_budget_admits_only_what_can_still_finish() -> None:
    stop = Stop(budget=100.0)
    assert stop.admits(50)
    assert not stop.admits(1000)
    assert not stop.admits(1), "once it is over, it is over"


@pytest.mark.ray
def test_a_job_may_have_all_the_memory_of_a_node(
    tmp_path: Path, kernel_file: KernelFile, local_ray: None
) -> None:
    class Careful(RayExecutor):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            def alone() -> Job | None:
                job = next_job()
                return job and job._replace(whole_node=True)

            return super().run(alone)

    summary = run(tmp_path / "s.zarr", kernel_file(RANDOM), make_campaign(N=[64]), Careful({}))
    assert summary.outcome == "complete"


@pytest.mark.ray
def test_a_task_that_fits_no_node_is_refused_instead_of_waited_for(
    tmp_path: Path, kernel_file: KernelFile, local_ray: None
) -> None:
    module = Path(kernel_file(RANDOM))
    module.write_text(module.read_text().replace("1e6", "1e15"))
    with pytest.raises(ParameterError, match="memory of a task"):
        run(tmp_path / "s.zarr", str(module), make_campaign(), RayExecutor({}))
