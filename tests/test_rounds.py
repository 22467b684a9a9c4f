"""Campaigns with a target: rounds of run, analyse, refine and extend, through kills, budgets and edits."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import refiners
import xarray as xr
from command_line import bendscape
from rich.console import Console
from test_core_hours import Clockwork

from bendscape.analysis.dataset.export import export_store
from bendscape.analysis.live.server import one_frame
from bendscape.core.errors import ParameterError
from bendscape.sweep import Axes, Axis, Campaign, Variable, kernel
from bendscape.sweep import plan as plan_of
from bendscape.sweep import run as run_in_python
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.campaign.target import Proposal
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine import run as run_module
from bendscape.sweep.engine import stop as stop_module
from bendscape.sweep.engine.executor import Job, Result, SerialExecutor
from bendscape.sweep.engine.run import open_plan, run_campaign, work_left
from bendscape.sweep.location import store_url
from bendscape.sweep.store import ledger as ledger_module
from bendscape.sweep.store.fsck import fsck
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.rounds import Round, read_rounds
from campaigns import RANDOM, campaign_text, data_files, run, write_kernel

KernelFile = Callable[..., str]
GRID: dict[str, Any] = {"p": [1], "a": [0.7, 1.5], "alpha": [0.8, 1.2], "N": [64], "seeds": 4}
TARGET = "\n[target]\nmean_x = { absolute = 0.25 }\n"


@pytest.fixture(autouse=True)
def _refiner(monkeypatch: pytest.MonkeyPatch) -> None:
    refiners.install(monkeypatch)


def aimed(target: str = TARGET, **changes: Any) -> Campaign:
    return parse_campaign(campaign_text(**{**GRID, **changes}) + target)


def rounds_of(store: Path | str) -> list[Round]:
    return read_rounds(Ledger(connect(store_url(store))))


def told(store: Path | str) -> list[dict[str, Any]]:
    """The rounds without what differs from run to run."""
    own = ("epoch", "recorded", "core_seconds")
    return [{k: v for k, v in of.to_json().items() if k not in own} for of in rounds_of(store)]


def opened(store: Path | str) -> xr.Dataset:
    with xr.open_dataset(store_url(store), engine="bendscape") as ds:
        return ds.load()


@pytest.fixture
def module(kernel_file: KernelFile) -> str:
    return kernel_file(RANDOM)


def test_rounds_go_on_until_every_model_has_its_precision(tmp_path: Path, module: str) -> None:
    store = tmp_path / "s.zarr"
    summary = run(store, module, aimed())
    assert (summary.outcome, summary.exit_code, summary.missing, summary.hidden) == ("complete", 0, 0, 0)
    rounds = rounds_of(store)
    assert [of.number for of in rounds] == list(range(1, len(rounds) + 1))
    assert [of.outcome for of in rounds] == ["open"] * summary.rounds + ["met"]
    assert summary.rounds >= 2
    assert all(of["state"] == "met" and of["error"] <= 0.25 for of in summary.models)
    spent = [of.core_seconds for of in rounds]
    assert spent == sorted(spent)
    assert spent[0] > 0
    ds = opened(store)
    assert int((ds.status == 1).sum()) == summary.done == int(ds.n_seeds.sum()) > 16
    assert ds.n_seeds.sel(alpha=1.2).values.ravel().tolist() == [4, 4], "nobody asked for more there"
    assert bool((ds.coverage == 1).all())
    again = run(store, module, aimed())
    assert (again.outcome, again.computed, len(rounds_of(store))) == ("complete", 0, len(rounds))
    assert fsck(store).sound


def test_a_round_adds_seeds_and_changes_no_cell_that_was_there(
    tmp_path: Path, module: str, whole: Path
) -> None:
    run(tmp_path / "grid.zarr", module, parse_campaign(campaign_text(**GRID)))
    before, after = opened(tmp_path / "grid.zarr"), opened(whole)
    xr.testing.assert_equal(after.x.sel(seed=before.seed).drop_vars("n_seeds"), before.x.drop_vars("n_seeds"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the campaign with its target, computed without a disturbance."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        refiners.install(patch)
        run(folder / "s.zarr", write_kernel(folder, RANDOM), aimed())
    return folder / "s.zarr"


class Killed(BaseException):
    """Stands for kill -9: after it, nothing more is written."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """From a step on this process writes nothing: a step is an object of the ledger that is created, or an
    extension of the layout. Returns their number so far."""
    beat, count = Ledger._beat, 0

    def fused(call: Callable[..., None]) -> Callable[..., None]:
        def fuse(*rest: Any) -> None:
            nonlocal count
            count += 1
            if count > step:
                raise Killed
            call(*rest)

        return fuse

    def still(self: Ledger, *rest: Any, **more: Any) -> None:
        if count <= step:
            beat(self, *rest, **more)

    monkeypatch.setattr(Ledger, "create", fused(Ledger.create))
    monkeypatch.setattr(run_module, "write_layout", fused(run_module.write_layout))
    monkeypatch.setattr(Ledger, "_beat", still)
    monkeypatch.setattr(Ledger, "_alive", lambda *_: False)
    return lambda: count


def test_a_run_killed_before_any_step_goes_on_to_the_same_store_and_the_same_rounds(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    with monkeypatch.context() as patch:
        steps = killed_at(10_000, patch)
        run(tmp_path / "counted.zarr", module, aimed())
        files, rounds = data_files(whole), told(whole)
    assert steps() > 3 * len(rounds)
    for step in range(steps()):
        store = tmp_path / f"{step}.zarr"
        with monkeypatch.context() as patch:
            killed_at(step, patch)
            with pytest.raises(Killed):
                run(store, module, aimed())
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "_alive", lambda *_: False)
            assert run(store, module, aimed()).outcome == "complete"
        assert told(store) == rounds, step
        assert data_files(store) == files, step


def test_an_analysis_sees_only_the_cells_of_finished_rounds(tmp_path: Path, module: str, whole: Path) -> None:
    store = tmp_path / "s.zarr"
    run(store, module, parse_campaign(campaign_text(**{**GRID, "seeds": 40})))
    assert run(store, module, aimed()).outcome == "complete"
    assert told(store) == told(whole)


class Signalled(SerialExecutor):
    """Asks this process to stop while the cells of the second call are computed."""

    calls = 0

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        self.calls += 1
        if self.calls == 2:
            signal.raise_signal(signal.SIGTERM)
        yield from super().run(next_job)


def test_a_signal_during_a_round_stops_cleanly_and_the_next_run_goes_on(
    tmp_path: Path, module: str, whole: Path
) -> None:
    store = tmp_path / "s.zarr"
    stopped = run(store, module, aimed(), Signalled())
    assert (stopped.outcome, stopped.exit_code, stopped.reason, stopped.rounds) == (
        "stopped",
        75,
        "SIGTERM",
        1,
    )
    assert stopped.missing > 0
    assert run(store, module, aimed()).outcome == "complete"
    assert told(store) == told(whole)
    assert data_files(store) == data_files(whole)


class Costly(SerialExecutor):
    """Real cells; receipts say 0.25 s a cell, by which the clock of the run moves on."""

    def __init__(self, clock: list[float]) -> None:
        self.clock = clock

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        for result in super().run(next_job):
            assert result is not None
            costs = [replace(of, seconds=0.25 * of.computed) for of in result.receipts]
            self.clock[0] += sum(of.seconds for of in costs)
            yield result._replace(receipts=costs)


def budgets(kind: str, number: int) -> dict[str, Any]:
    """The budget of one run of many, each for two or three of the tiles below, of one cell."""
    if kind == "time":
        return {"time_budget": 0.7}  # of which nine tenths are for cells
    if kind == "core-hours":
        return {"core_hours": {"": 0.6 / 3600}}
    label, tiles = ("day", "night")[number % 2], 2.4 * (number // 2 + 1)
    return {"core_hours": {label: 0.25 * tiles / 3600}}


@pytest.mark.parametrize("kind", ["time", "core-hours", "two labels"])
def test_budgets_that_end_within_rounds_lead_to_the_store_and_the_rounds_of_a_run_left_alone(
    tmp_path: Path, module: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [time.time() + 1e6]  # no second that this test takes counts
    virtual = SimpleNamespace(time=lambda: clock[0], monotonic=lambda: clock[0])
    text = campaign_text(**GRID).replace('kernel = "probe"', 'kernel = "probe"\ntile_seconds = 0.25')
    campaign = parse_campaign(text + TARGET)
    assert run(tmp_path / "whole.zarr", module, campaign, Costly(clock)).outcome == "complete"
    monkeypatch.setattr(stop_module, "time", virtual)
    store, within = tmp_path / "s.zarr", set[tuple[int, int]]()
    for number in range(40):
        summary = run(store, module, campaign, Costly(clock), **budgets(kind, number))
        if summary.outcome == "complete":
            break
        assert (summary.outcome, summary.exit_code) == ("stopped", 75)
        assert 0 < summary.computed <= 3
        within.add((summary.rounds, summary.missing))
    assert summary.outcome == "complete"
    assert sum(missing > 0 for rounds, missing in within if rounds) >= 2, "they ended within rounds"
    assert told(store) == told(tmp_path / "whole.zarr")
    assert data_files(store) == data_files(tmp_path / "whole.zarr")


def test_an_unfinished_round_of_another_target_is_proposed_anew(
    tmp_path: Path, module: str, whole: Path
) -> None:
    store = tmp_path / "s.zarr"
    run(store, module, aimed(), Signalled())
    (first,) = rounds_of(store)
    loose = run(store, module, aimed("\n[target]\nmean_x = { absolute = 10.0 }\n"))
    assert (loose.outcome, loose.computed, loose.done) == ("complete", 0, 16)
    assert [(of.outcome, of.replaces) for of in rounds_of(store)] == [("open", 0), ("met", 1)]
    back = run(store, module, aimed())
    assert back.outcome == "complete"
    assert rounds_of(store)[2].additions == first.additions
    xr.testing.assert_identical(opened(store).drop_attrs(), opened(whole).drop_attrs())
    plan, _ = open_plan(store_url(store), aimed(), load_kernel("probe", [module]))
    assert plan.total("missing") == 0


def test_a_target_that_no_model_can_reach_ends_with_its_reasons(tmp_path: Path, module: str) -> None:
    own = (
        "\n[target]\nmean_x = { absolute = 0.4 }\n[[target.models]]\na = 1.5\nmean_x = { absolute = 0.01 }\n"
    )
    store = tmp_path / "s.zarr"
    summary = run(store, module, aimed(own))
    assert (summary.outcome, summary.exit_code, summary.missing) == ("target unreachable", 3, 0)
    assert "a = 1.5" in summary.reason
    assert "seeds are needed, more than 64" in summary.reason
    assert "a = 0.7" not in summary.reason, "the other model has its precision"
    assert [of["state"] for of in summary.models] == ["met", "unreachable"]
    before = rounds_of(store)
    again = run(store, module, aimed(own))
    assert (again.outcome, again.reason, again.computed) == (summary.outcome, summary.reason, 0)
    assert rounds_of(store) == before, "nothing has changed: nothing is analysed again"
    paid = run(store, module, aimed(own.replace("[target]\n", "[target]\ncore_hours = 50\n")))
    assert (paid.outcome, len(rounds_of(store))) == ("target unreachable", len(before) + 1)
    looser = own.replace("0.01", "0.4")
    assert run(store, module, aimed(looser)).outcome == "complete"


def test_the_core_hours_of_a_target_count_every_receipt_of_the_store(
    tmp_path: Path, module: str, whole: Path
) -> None:
    store, tile = tmp_path / "s.zarr", 1.0 / 3600  # a tile of four seeds by the clock of the executor
    grid = {**GRID, "a": [0.7], "alpha": [0.8]}

    def target(hours: float) -> Campaign:
        return aimed(f"{TARGET}core_hours = {hours!r}\n", **grid)

    spent = run(store, module, target(1.5 * tile), Costly([0.0]))
    assert (spent.outcome, spent.exit_code) == ("target unreachable", 3)
    assert "core-hours of [target] are used up" in spent.reason
    assert spent.core_seconds == 1.0
    assert not work_left(store_url(store), target(1.5 * tile), load_kernel("probe", [module]))
    again = run(store, module, target(1.5 * tile), Costly([0.0]))
    assert (again.outcome, again.computed) == ("target unreachable", 0)
    assert work_left(store_url(store), target(40 * tile), load_kernel("probe", [module]))
    more = run(store, module, target(40 * tile), Costly([0.0]))
    assert (more.outcome, more.exit_code) == ("complete", 0)
    own = tmp_path / "whole.zarr"
    run(own, module, target(40 * tile), Costly([0.0]))
    strip = [{k: v for k, v in of.items() if k != "target"} for of in told(store)]
    assert strip == [{k: v for k, v in of.items() if k != "target"} for of in told(own)]
    assert data_files(store) == data_files(own)


def test_the_core_hours_of_a_run_stop_rounds_with_work_left(tmp_path: Path, module: str) -> None:
    summary = run(tmp_path / "s.zarr", module, aimed(), Clockwork(), core_hours={"": 1.5 / 3600})
    assert (summary.outcome, summary.exit_code, summary.reason) == ("stopped", 75, "end of the core-hours")


def test_a_failed_cell_neither_blocks_the_rounds_nor_is_forgotten(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file("if cell.seed == 2: raise ValueError('no luck')\n" + RANDOM)
    summary = run(tmp_path / "s.zarr", module, aimed())
    assert (summary.outcome, summary.exit_code) == ("failed cells", 1)
    assert summary.failed == 4
    assert rounds_of(tmp_path / "s.zarr")[-1].outcome == "met"


def test_rounds_end_when_every_cell_of_the_last_one_failed(tmp_path: Path, kernel_file: KernelFile) -> None:
    module = kernel_file("if cell.seed >= 4: raise ValueError('no luck')\n" + RANDOM)
    summary = run(tmp_path / "s.zarr", module, aimed())
    assert (summary.outcome, summary.rounds, summary.done) == ("target unreachable", 1, 16)
    assert (
        summary.reason == f"all {summary.failed} cells of the last round failed: more of them would not help"
    )
    again = run(tmp_path / "s.zarr", module, aimed())
    assert (again.outcome, again.computed, again.reason) == (summary.outcome, 0, summary.reason)


RUBBISH: dict[str, Callable[[Proposal], Any]] = {
    "ZeroDivisionError": lambda of: 1 // 0,
    "addition.seeds = -3": lambda of: replace(of, additions=(replace(of.additions[0], seeds=-3),)),
    "addition.alpha = -1": lambda of: replace(of, additions=(replace(of.additions[0], curve=-1),)),
    "addition.alpha = nan": lambda of: replace(of, additions=(replace(of.additions[0], curve=math.nan),)),
    "addition = 'planet'": lambda of: replace(of, additions=(replace(of.additions[0], model={"planet": 3}),)),
    "a state is 'lost'": lambda of: replace(of, models=(replace(of.models[0], state="lost"),)),  # type: ignore[arg-type]
    "not JSON serializable": lambda of: replace(of, models=(replace(of.models[0], reason=object()),)),  # type: ignore[arg-type]
    "AttributeError": lambda of: None,
}


@pytest.mark.parametrize("words", RUBBISH)
def test_a_refiner_that_fails_is_one_line_and_loses_nothing(
    tmp_path: Path, module: str, whole: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    with monkeypatch.context() as patch:
        wrong = replace(refiners.MEAN, refine=lambda *of: RUBBISH[words](refiners.mean_of_x(*of)))
        patch.setattr(refiners, "MEAN", wrong)
        with pytest.raises(ParameterError, match="whose refiner gives") as error:
            run(store, module, aimed())
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert rounds_of(store) == []
    assert int((opened(store).status == 1).sum()) == 16
    assert run(store, module, aimed()).outcome == "complete"
    assert told(store) == told(whole)


NURSERY = """
import os, random, signal, sys, time
from pathlib import Path
import pytest, refiners
from campaigns import run
from test_rounds import aimed

patch = pytest.MonkeyPatch()
refiners.install(patch)
folder, module = Path(sys.argv[1]), sys.argv[2]

def attempt(store, seconds):
    pid = os.fork()
    if not pid:
        os._exit(run(store, module, aimed()).exit_code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False

start = time.monotonic()
assert attempt(folder / "whole.zarr", 300)
seconds, moments, kills = time.monotonic() - start, random.Random(1), 0
for _ in range(4):
    if attempt(folder / "killed.zarr", moments.uniform(0.1, 0.6) * seconds):
        break
    kills += 1
else:
    assert attempt(folder / "killed.zarr", 300)
print(kills)
"""


def test_a_driver_killed_at_random_moments_ends_with_the_bytes_and_rounds_of_one_left_alone(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file("import time; time.sleep(0.004)\n" + RANDOM)
    command = [sys.executable, "-c", NURSERY, str(tmp_path), module]
    tests = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": tests}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 1
    killed, alone = tmp_path / "killed.zarr", tmp_path / "whole.zarr"
    assert told(killed) == told(alone)
    assert data_files(killed) == data_files(alone)
    assert fsck(killed).sound


def test_a_larger_grid_and_another_target_go_on_from_the_rounds_of_the_store(
    tmp_path: Path, module: str
) -> None:
    store = tmp_path / "s.zarr"
    first = run(store, module, aimed())
    wider = run(store, module, aimed("\n[target]\nmean_x = { absolute = 0.2 }\n", a=[0.7, 1.5, 3.0]))
    assert (wider.outcome, wider.hidden) == ("complete", 0)
    assert wider.rounds > first.rounds
    assert all(of["error"] <= 0.2 for of in wider.models)
    assert len(wider.models) == 3
    plain = run(store, module, aimed())
    assert plain.outcome == "complete"
    assert plain.done > first.done, "the seeds of the rounds belong to the campaign"
    plan, hidden = open_plan(store_url(store), aimed(), load_kernel("probe", [module]))
    assert plan.total("missing") == 0
    assert hidden.cells == plain.hidden == 4, (
        "what is hidden is one point of the larger grid that no round has"
    )


def test_a_target_changes_no_identity_of_a_store(tmp_path: Path, module: str) -> None:
    plain = parse_campaign(campaign_text(**GRID))
    axes = load_kernel("probe", [module]).axes
    assert aimed().spec_hash(axes) == plain.spec_hash(axes)
    run(tmp_path / "s.zarr", module, plain)
    assert run(tmp_path / "s.zarr", module, aimed()).outcome == "complete"


def test_a_campaign_whose_target_nobody_serves_is_refused_before_anything_runs(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, store = (
        kernel_file("return Outcome({'y': 1.0})", 'Variable("y", "a number")'),
        tmp_path / "s.zarr",
    )
    with pytest.raises(ParameterError, match=r"kernel 'probe' gives; it lacks the variable x"):
        run(store, module, aimed())
    with pytest.raises(ParameterError, match=r"a quantity of installed refiners \(mean_x\).*line 18"):
        run(store, module, aimed("\n[target]\nmean_y = 0.1\n"))
    refiners.install(monkeypatch, "no_such_module:MEAN")
    with pytest.raises(ParameterError, match="a refiner that can be imported; ModuleNotFoundError"):
        run(store, module, aimed())
    assert not store.exists()


@pytest.mark.parametrize(
    ("table", "accepted"),
    [
        ("mean_x = 0", "a number > 0 (a relative error)"),
        ("mean_x = { relative = 0.1, absolute = 1 }", "{ relative = number > 0 }"),
        ("core_hours = 3", "a quantity of installed refiners"),
        ("mean_x = 0.1\ncore_hours = -1", "target.core_hours must be a number > 0"),
        ('"x=0.5" = 0.1\n"x = 0.50" = 0.2', "absent, since x=0.5 is given before"),
        ('"x=0.5" = 0.1\n[[target.models]]\na = 3\n"x=0.7" = 0.2', "must be one quantity"),
        ("mean_x = 0.1\na = 3", "conditions stand in tables [[target.models]]"),
        ("mean_x = 0.1\n[[target.models]]\nmean_x = 1", "a condition on at least one of p, p_star, a"),
        (
            "mean_x = 0.1\n[[target.models]]\na = -1\nmean_x = 1",
            "models[0].a must be finite numbers > 0",
        ),
        ("mean_x = 0.1\n[[target.models]]\na = 1", "target.models[0].mean_x must be given"),
        (
            "mean_x = 0.1\n[[target.models]]\na = 1.5\nmean_x = 1\n[[target.models]]\na = 1.6\nmean_x = 1",
            "target.models[1] = 'a = [1.6]' is not accepted",
        ),
    ],
)
def test_a_mistake_in_a_target_is_one_line(table: str, accepted: str) -> None:
    with pytest.raises(ParameterError) as error:
        aimed(f"\n[target]\n{table}\n").to_target(load_kernel("hessian").axes)
    assert accepted in str(error.value)
    assert "\n" not in str(error.value)


def test_targets_by_model_are_relative_or_absolute_and_the_first_that_holds_counts() -> None:
    target = aimed(
        "\n[target]\nmean_x = 0.1\n[[target.models]]\na = [1.5, 3]\nmean_x = { absolute = 2 }\n"
        "[[target.models]]\na = 3\nmean_x = 5\n",
        a=[0.7, 1.5, 3.0],
    ).to_target(load_kernel("hessian").axes)
    assert target is not None
    assert [target.wanted({"p": 1, "a": a}, -4.0) for a in (0.7, 1.5, 3.0)] == [pytest.approx(0.4), 2.0, 2.0]
    assert math.isnan(target.wanted({"p": 1, "a": 0.7}, math.nan))


def test_commands_and_python_show_rounds_and_states(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, store = tmp_path / "c.toml", tmp_path / "s.zarr"
    file.write_text(campaign_text(**GRID) + TARGET)
    path = os.pathsep.join([str(refiners.distribution(tmp_path / "site")), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    options = ("--store", store, "--kernel-module", module)
    assert "further rounds follow" in " ".join(bendscape("plan", file, *options).stdout.split())
    done = bendscape("run", file, *options, "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert "round 1: 0 of 2 models have their mean_x; 2 points get cells" in " ".join(done.stderr.split())
    summary = json.loads(done.stdout)
    status = json.loads(bendscape("status", store, "--json").stdout)
    assert [of["outcome"] for of in status["rounds"]] == ["open"] * summary["rounds"] + ["met"]
    assert status["rounds"][-1]["models"] == summary["models"]
    assert status["target"] == {"mean_x": {"absolute": 0.25}}
    shown = bendscape("status", store).stdout
    assert "2 of 2 models have their mean_x; met" in shown
    assert "p = 1, p_star = 1, a = 0.7: " in shown
    file.write_text(campaign_text(**GRID) + TARGET.replace("0.25", "0.001"))
    code = bendscape("run", file, *options, "--address", "serial")
    assert code.returncode == 3
    assert "the target is unreachable: 0 of 2 models" in " ".join(code.stderr.split())
    grid = {key: value for key, value in GRID.items() if key != "seeds"} | {"p_star": 1, "seeds": 4}
    campaign = Campaign.of(
        name="probe", store=tmp_path / "t.zarr", entropy=7, kernel="probe", grid=grid,
        target={"mean_x": {"absolute": 0.25}},
    )  # fmt: skip
    assert plan_of(campaign, kernel_modules=[module])["target"] == {"mean_x": {"absolute": 0.25}}
    found = run_in_python(campaign, kernel_modules=[module], address="serial", progress=False)
    assert (found.outcome, found.rounds) == ("complete", summary["rounds"])
    assert store_status(tmp_path / "t.zarr", [module])["rounds"][-1]["outcome"] == "met"


def test_a_function_of_this_process_goes_in_rounds_too(tmp_path: Path) -> None:
    axes = Axes((Axis("load", "float64", "curve"), Axis("seed", "int64", "seed")))

    @kernel(axes=axes, variables=(Variable("x", "a number"),))
    def noisy(cell: Any, rng: np.random.Generator) -> dict[str, float]:
        return {"x": cell.load + rng.normal()}

    campaign = Campaign.of(
        name="noisy", store=tmp_path / "s.zarr", entropy=1, grid={"load": [0.5, 1.0], "seeds": 4},
        target={"mean_x": {"absolute": 0.3}}, more=[{"load": [0.7], "seeds": 2}],
    )  # fmt: skip
    summary = run_in_python(campaign, kernel=noisy, address="serial", progress=False)
    assert (summary.outcome, summary.rounds > 0) == ("complete", True)
    assert opened(tmp_path / "s.zarr").n_seeds.values[1:].tolist() == [2, 4]


def test_the_store_keeps_the_target_that_was_run_last(tmp_path: Path, module: str) -> None:
    store = tmp_path / "s.zarr"
    for target, kept in ((TARGET, 0.25), (TARGET.replace("0.25", "9"), 9), ("", None)):
        assert run(store, module, aimed(target)).outcome == "complete"
        assert store_status(store, [module])["target"] == (kept and {"mean_x": {"absolute": kept}})


def test_another_run_that_recorded_the_round_meanwhile_ends_this_one(
    tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    store, other = tmp_path / "s.zarr", []

    def meanwhile(self: Ledger) -> None:
        if not other:
            other.append(True)
            run(store, module, aimed())

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_alive", lambda *_: False)
        patch.setattr(Ledger, "check_lease", meanwhile)
        with pytest.raises(ledger_module.LeaseLost):
            run(store, module, aimed())
    assert run(store, module, aimed()).outcome == "complete"
    assert data_files(store) == data_files(whole)


def test_a_damaged_record_of_a_round_is_found_and_set_aside(tmp_path: Path, module: str) -> None:
    store = tmp_path / "s.zarr"
    run(store, module, aimed())
    record = store / "ledger" / "rounds" / "000001.json"
    record.write_text(record.read_text()[:40])
    with pytest.raises(OSError, match=r"ledger/rounds/000001\.json of the store is damaged"):
        run(store, module, aimed())
    assert not fsck(store).sound
    assert fsck(store, repair=True).repaired
    assert run(store, module, aimed()).outcome == "complete"
    assert fsck(store).sound


def test_rounds_on_an_object_store_are_those_on_files_and_each_asks_for_a_cell_twice_at_most(
    module: str, s3: Any, whole: Path
) -> None:
    url = s3.new_url()
    assert run(url, module, aimed()).outcome == "complete"
    asked = list(s3.requests)
    assert told(url) == told(whole)
    assert data_files(url) == data_files(whole)
    recorded = [k for k, (method, path) in enumerate(asked) if method == "PUT" and "/ledger/rounds/" in path]
    assert len(recorded) == len(rounds_of(url)) == 3
    for start, end in pairwise(recorded):
        chunks = Counter(one for one in asked[start:end] if re.search("/N=64/(x|status)/c/", one[1]))
        # Published, computed, analysed: a tile is written once, and read before that and by the analysis.
        assert all(count <= (1 if method == "PUT" else 2) for (method, _), count in chunks.items())
        rest = end - start - chunks.total()
        assert rest <= 140, "five for each variable and axis, 125 in all, whatever the number of cells"


def test_readers_of_rounds_on_an_object_store_write_nothing_and_ask_for_each_record_once(
    tmp_path: Path, module: str, s3: Any
) -> None:
    url = s3.new_url()
    assert run(url, module, aimed()).outcome == "complete"
    rounds = rounds_of(url)

    def asked(most: int, call: Callable[[], Any]) -> Any:
        """What a reader returns. It asks at most so often for anything but records of rounds and cells, and
        for none of these twice."""
        before = len(s3.requests)
        found = call()
        requests = s3.requests[before:]
        assert {method for method, _ in requests} <= {"GET", "HEAD"}
        once = [path for _, path in requests if re.search(r"/ledger/rounds/\d|/c/", path)]
        assert len(set(once)) == len(once)
        assert len(requests) - len(once) <= most, requests
        return found

    assert len(asked(20, lambda: store_status(url, [module]))["rounds"]) == len(rounds)
    frame = asked(25, lambda: one_frame(url, [module]))
    assert [of["outcome"] for of in frame["rounds"]] == [of.outcome for of in rounds]
    assert asked(12, lambda: opened(url)).n_seeds.max() > 4
    asked(12, lambda: export_store(url, tmp_path / "e.nc"))


def test_what_a_run_says_of_its_rounds(tmp_path: Path, module: str) -> None:
    said = io.StringIO()
    run_campaign(
        aimed(), store_url(tmp_path / "s.zarr"), load_kernel("probe", [module]), SerialExecutor,
        console=Console(file=said, width=1000), kernel_modules=(module,),
    )  # fmt: skip
    lines = [line for line in said.getvalue().splitlines() if line.startswith(("round", "the target"))]
    assert lines[0].startswith("round 1: 0 of 2 models have their mean_x; 2 points get cells, about ")
    assert lines[-1].startswith("the target is met after ")
