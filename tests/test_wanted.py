"""Plans of large campaigns: the wanted and remaining tiles, as arrays, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bendscape.sweep.campaign.axes import Cell
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable
from bendscape.sweep.campaign.tiles import Layout
from bendscape.sweep.engine.plan import Plan, plan_campaign
from bendscape.sweep.kernels.quadratic import AXES, NETWORK
from bendscape.sweep.store.records import Receipt, Records, cells_in
from campaigns import make_campaign

LARGE = {
    "p": [1, 2, 3, 4],
    "a": [0.7, 1.5],
    "alpha": "{ start = 0.5, stop = 2.0, num = 50 }",
    "seeds": 25_000,
}


FIFTY = "{ start = 0.5, stop = 2.0, num = 50 }"


def compute(cell: Cell, rng: np.random.Generator) -> Outcome:
    return Outcome({"x": rng.random()})


def kernel(seconds: float) -> Kernel:
    return Kernel(
        "probe", 1, (Variable("x", "a number"),), compute, lambda cell: seconds, lambda cell: 1e6, **NETWORK
    )


def brute(plan: Plan, records: Records) -> tuple[int, int, int]:
    """Wanted, finished and failed cells, counted one by one."""
    wanted = done = failed = 0
    for task in Plan(plan.layout, plan.grid, plan.kernel).tasks(1):
        for tile in task.tiles:
            finished, given_up = records.masks(tile.key)
            wanted += tile.mask.bit_count()
            done += (tile.mask & finished).bit_count()
            failed += (tile.mask & given_up).bit_count()
    return wanted, done, failed


def test_a_plan_agrees_with_counting_every_cell() -> None:
    grown = make_campaign(p=[1, 2, 3], alpha=[0.8, 0.9, 1.0, 1.2], seeds=9, N=[32, 64, 128])
    grid, records, rng = make_campaign().to_grid(AXES), Records(), np.random.default_rng(3)
    layout = Layout.of(grid, kernel(0.3))
    for task in Plan(layout, grid, kernel(0.3)).tasks(1):
        for tile in task.tiles:
            done, failed = (int(rng.integers(0, 64)) & tile.mask for _ in range(2))
            records.add(Receipt(str(tile.key), done, failed & ~done, computed=6, seconds=1.0))
    for campaign, before in ((make_campaign(), layout), (grown, layout)):
        plan = plan_campaign(campaign, kernel(0.3), before, records)
        found = tuple(plan.total(name) for name in ("cells", "done", "failed"))
        assert found == brute(plan, records)
        left = sum(tile.mask.bit_count() for task in plan.tasks(1) for tile in task.tiles)
        assert left == plan.total("missing") > 0
        again = plan_campaign(campaign, kernel(0.3), before, records, retry_failed=True)
        left = sum(tile.mask.bit_count() for task in again.tasks(1) for tile in task.tiles)
        assert left == again.total("missing") + again.total("failed")
        assert again.total("failed") == found[2]


def test_the_recorded_cells_of_a_block_are_those_of_their_masks() -> None:
    grid, records = make_campaign(p=[1, 2, 3], seeds=7).to_grid(AXES), Records()
    layout, rng = Layout.of(grid, kernel(0.3)), np.random.default_rng(4)
    expected = np.zeros(layout.shape(64), dtype=bool)
    for task in Plan(layout, grid, kernel(0.3)).tasks(1):
        for tile in task.tiles:
            if tile.key.size == 64:
                records.add(Receipt(str(tile.key), done := int(rng.integers(0, 64)) & tile.mask))
                for _, (i, j), _ in layout.cells(tile.key, done):
                    expected[layout.region(tile.key)][0, 0, 0, i, j] = True
    picks = [np.array(pick) for pick in ([2, 0], [0], [1, 0], [2, 1, 0], [6, 0, 3])]
    size = layout.sizes[64]
    found = cells_in(records.sizes[64].done, (size.curve_block, size.seed_block), picks)
    np.testing.assert_array_equal(found, expected[np.ix_(*picks)])
    assert 0 < found.mean() < 1


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_a_plan_of_many_tiles_takes_tens_of_bytes_a_tile_and_hands_tasks_out_one_by_one() -> None:
    campaign, dear = (
        make_campaign(p=[1, 2, 3, 4], alpha=FIFTY, seeds=25_000),
        kernel(0.02),
    )  # a tile: 100 cells, 2 s
    before, _ = tracemalloc.get_traced_memory()
    plan = plan_campaign(campaign, dear)
    first = list(islice(plan.tasks(2), 10))
    _, peak = tracemalloc.get_traced_memory()
    assert plan.total("tiles") == 200_000
    assert plan.total("cells") == 20_000_000
    assert all(7 < task.seconds <= 8 for task in first)
    # Masks of a hundred cells take 26 bytes a tile, the other columns 44; blocks of 2^22 cells come and go.
    assert (peak - before) / plan.total("tiles") < 250


def test_estimates_of_many_alphas_follow_the_kernel() -> None:
    asked: list[float] = []

    def seconds(cell: Cell) -> float:
        asked.append(cell.alpha)
        return 0.1 * cell.alpha

    grid = make_campaign(p=[1], a=[0.7], alpha="{ start = 0.5, stop = 2.0, num = 31 }", N=[64], seeds=20)
    costs = Kernel("probe", 1, (Variable("x", "a number"),), compute, seconds, lambda cell: 1e6, **NETWORK)
    plan = plan_campaign(grid, costs)
    assert plan.layout.sizes[64].curve_block == 1
    assert plan.total("seconds") == pytest.approx(0.1 * 20 * np.linspace(0.5, 2.0, 31).sum(), rel=1e-12)
    assert len(asked) < 31


def test_the_benchmark_of_large_campaigns_runs() -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "benchmarks" / "scale.py"), "--one", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["tiles"] == 4000
