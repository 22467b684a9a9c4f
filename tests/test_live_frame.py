"""Frames of the live page, for every family: they say what the dataset says, and read only what is new."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import refiners
import xarray as xr
from command_line import bendscape
from test_any_axes import CASES, Place, module_of

from bendscape.analysis.live import cells as live_cells
from bendscape.analysis.live.coverage import Coverage, along, row_dims
from bendscape.analysis.live.frame import Watch
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine.executor import SerialExecutor
from bendscape.sweep.engine.following import Following
from bendscape.sweep.location import store_url
from bendscape.sweep.store.records import Receipt
from campaigns import RANDOM, IdleExecutor, all_objects, campaign_text, run, write_kernel

if TYPE_CHECKING:
    from s3_server import S3Server


@pytest.fixture(params=list(CASES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Every kind of axes, with a cell that fails."""
    case = CASES[request.param]
    guard = f"if {case.bad}: raise ValueError('<b>no luck</b>')"
    return Place(case, module_of(case, tmp_path / "any.py", guard), tmp_path)


@pytest.fixture
def sweep(tmp_path: Path) -> Place:
    """A curve and no sizes."""
    case = CASES["no sizes"]
    return Place(case, module_of(case, tmp_path / "any.py"), tmp_path)


def test_map_means_and_failures_are_those_of_the_dataset_for_any_axes(place: Place) -> None:
    assert place.run("s.zarr", place.case.wider) == "failed cells"
    ds = place.opened("s.zarr")
    watch = Watch(str(place.folder / "s.zarr"), [place.module])
    watch.read_all()
    grid = watch.following.grid
    column, rows = along(grid), row_dims(grid)
    size = grid.axes.size.name if grid.axes.size else None
    sizes = [{size: n} if size else {} for n in grid.sizes]
    lengths = [len(grid.dims[name]) for name in rows]
    first = watch.frame()
    for k, at in enumerate(sizes):
        status = ds["status"].sel(at).transpose(*rows, *([column] if column else []), "seed")
        for kind, codes in (("done", (1, 3)), ("failed", (2,)), ("wanted", (0, 1, 2, 3))):
            expected = status.isin(codes).sum("seed").values.reshape(-1).tolist()
            assert first["map"]["sizes"][k][kind] == expected
    for row in np.ndindex(*lengths):
        watched = watch.frame(row)["row"]
        assert watched["index"] == list(row)
        assert "x" in [of["name"] for of in watched["variables"]]
        here = ds.isel(dict(zip(rows, row, strict=True)))
        for of in watched["variables"]:
            for k, at in enumerate(sizes):
                done = here.sel(at).where(here.sel(at)["status"] == 1)[of["name"]]
                done = abs(done) if done.dtype.kind == "c" else done
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # means over nothing
                    mean = np.atleast_1d(done.mean("seed").values)
                    error = np.atleast_1d(
                        done.std("seed", ddof=1).values / np.sqrt(done.notnull().sum("seed"))
                    )
                got = of["sizes"][k]
                np.testing.assert_allclose(np.array(got["mean"], float), mean, rtol=1e-5)
                np.testing.assert_allclose(np.array(got["error"], float), error, rtol=1e-5)
                assert got["n"] == np.atleast_1d(done.notnull().sum("seed").values).tolist()
    failed = int((ds["status"] == 2).sum())
    assert first["failed"] == first["failures"]["total"] == len(first["failures"]["listed"]) == failed > 0
    for failure in first["failures"]["listed"]:
        assert set(failure["at"]) == set(place.case.dims)
        assert failure["message"] == "<b>no luck</b>"
        assert "ValueError" in failure["traceback"]
    json.dumps(first, allow_nan=False)


def test_a_frame_counts_what_status_counts(place: Place) -> None:
    place.run("s.zarr", place.case.grid)
    url = str(place.folder / "s.zarr")
    frame, status = Watch(url, [place.module]), store_status(url, [place.module])
    frame.look()
    document = frame.frame()
    same = ("store", "name", "cells", "done", "failed", "missing", "core_hours_left", "holder")
    assert {name: document[name] for name in same} == {name: status[name] for name in same}
    assert document["size_rows"] == status["sizes"]
    assert document["runs"][0]["outcome"] == status["runs"][0]["outcome"] == "failed cells"
    assert document["state"] == "failed cells"


def test_a_page_can_wait_for_a_store_and_never_writes(sweep: Place) -> None:
    watch = Watch(str(sweep.folder / "s.zarr"), [sweep.module])
    watch.look()
    assert watch.frame()["state"] == "absent"
    assert not (sweep.folder / "s.zarr").exists()
    sweep.run("s.zarr", sweep.case.wider, executor=IdleExecutor())
    before = all_objects(sweep.folder / "s.zarr")
    watch.look()
    assert watch.frame()["state"] == "empty"
    assert all_objects(sweep.folder / "s.zarr") == before
    sweep.run("s.zarr", sweep.case.wider)
    before = all_objects(sweep.folder / "s.zarr")
    for _ in range(2):
        watch.look()
        frame = watch.frame()
    assert (frame["state"], frame["missing"], frame["row"]["tiles_left"]) == ("complete", 0, 0)
    assert all_objects(sweep.folder / "s.zarr") == before


def test_a_frame_of_an_unchanged_store_is_equal_and_follows_an_extension(sweep: Place) -> None:
    sweep.run("s.zarr", sweep.case.grid)
    watch = Watch(str(sweep.folder / "s.zarr"), [sweep.module])
    watch.look()
    first = watch.frame()
    watch.look()
    assert watch.frame() == first
    sweep.run("s.zarr", sweep.case.wider)
    watch.look()
    grown = watch.frame((1,))
    fresh = Watch(str(sweep.folder / "s.zarr"), [sweep.module])
    fresh.look()
    assert grown == fresh.frame((1,))
    assert grown["axes"]["rows"][0]["values"] == [3, 7]
    assert fresh.frame((99, 5))["row"]["index"] == [1]  # brought back into the grid


def test_another_store_in_the_same_place_is_read_anew(sweep: Place, tmp_path: Path) -> None:
    sweep.run("s.zarr", sweep.case.wider)
    watch = Watch(str(sweep.folder / "s.zarr"), [sweep.module])
    watch.look()
    (sweep.folder / "s.zarr").rename(tmp_path / "old.zarr")
    watch.look()
    assert watch.frame()["state"] == "absent"
    sweep.run("s.zarr", sweep.case.grid)
    watch.look()
    assert (watch.frame()["cells"], watch.frame()["done"]) == (6, 6)


class Flushing(SerialExecutor):
    """Calls `between` after each job."""

    def __init__(self, between: Any) -> None:
        self._between = between

    def run(self, next_job: Any) -> Any:
        for result in super().run(next_job):
            yield result
            self._between()


def test_every_look_during_a_run_reads_only_what_is_new(
    s3: S3Server, s3_url: str, sweep: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bendscape.sweep.store.ledger.FLUSH_SECONDS", 0.0)  # a segment for each receipt
    monkeypatch.setattr("bendscape.sweep.engine.plan.TASK_SECONDS", (0.0, 0.0))  # a task for each tile
    run(s3_url, sweep.module, sweep.campaign(sweep.case.grid))
    watch = Watch(s3_url, [sweep.module])
    watch.look()
    watch.frame((0,))
    costs: list[list[tuple[str, str]]] = []

    def look() -> None:
        before = len(s3.requests)
        watch.look()
        watch.frame((0,))
        costs.append(s3.requests[before:])

    wider = {**sweep.case.wider, "seeds": "40"}
    run(s3_url, sweep.module, sweep.campaign(wider), executor=Flushing(look))
    assert len(costs) > 3
    variables, kinds = 3, []  # status, x, n
    for cost in costs[1:]:  # the first finds the new root and the new run
        segments = sum("/segments/" in path for _, path in cost)
        chunks = sum("/c/" in path for _, path in cost)
        assert {method for method, _ in cost} == {"GET", "HEAD"}
        assert chunks % variables == 0
        assert chunks // variables <= segments  # of tiles that came back; those of another row are not read
        assert len(cost) - segments - chunks == 4  # version of the root, two lists, a heartbeat
        kinds.append((segments, chunks))
    assert any(chunks == 0 for _, chunks in kinds)
    read = [path for cost in costs for _, path in cost if "/segments/" in path]
    assert len(read) == len(set(read))
    look()  # the end of the run, with its account
    for _ in range(2):
        look()
        assert [method for method, _ in costs[-1]] == ["HEAD", "GET", "GET"]
    fresh = Watch(s3_url, [sweep.module])
    fresh.look()
    mine, theirs = watch.frame((0,)), fresh.frame((0,))
    assert mine == theirs
    assert mine["state"] == "complete"


def test_a_store_that_does_not_answer_is_said_and_followed_again(
    s3: S3Server, s3_url: str, sweep: Place
) -> None:
    run(s3_url, sweep.module, sweep.campaign(sweep.case.grid))
    watch = Watch(s3_url, [sweep.module])
    watch.look()
    watch.frame()
    s3.failing = True
    try:
        watch.look()
        frame = watch.frame()
    finally:
        s3.failing = False
    assert s3_url in frame["silent"]
    assert frame["done"] == 6
    watch.look()
    assert watch.frame()["silent"] == ""


def test_tiles_of_many_rows_that_are_watched_are_read_once_and_memory_is_bounded(
    sweep: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.run("s.zarr", {**sweep.case.grid, "width": "[3, 4, 5, 6, 7, 8]"})
    read: list[Any] = []
    real = live_cells.RowCells._read
    monkeypatch.setattr(live_cells.RowCells, "_read", lambda *of: read.append(of) or real(*of))
    watch = Watch(str(sweep.folder / "s.zarr"), [sweep.module])
    seen: list[list[dict[str, Any]]] = []
    for _ in range(2):
        watch.look()
        seen.append([watch.frame((row,))["row"] for row in range(6)])
    assert seen[0] == seen[1]
    assert len(read) == 6
    one = next(iter(watch._rows.values())).bytes
    assert one == 2 * 3 * 3 * 8  # points, seeds, variables with status
    monkeypatch.setattr("bendscape.analysis.live.frame.KEPT_BYTES", 2 * one)
    watch._rows.clear()
    assert [watch.frame((row,))["row"] for row in range(6)] == seen[0]
    assert len(watch._rows) == 2


def test_numbers_beyond_any_error_have_none(tmp_path: Path) -> None:
    module = write_kernel(tmp_path, "return Outcome({'x': 1e300 * (-1) ** cell.seed})")
    grid = {"p": [1], "a": [0.7], "alpha": [1.0], "N": [64], "seeds": 4}
    run(tmp_path / "s.zarr", module, parse_campaign(campaign_text(**grid)))
    watch = Watch(str(tmp_path / "s.zarr"), [module])
    watch.look()
    (of,) = watch.frame()["row"]["variables"]
    assert of["sizes"] == [{"mean": [0.0], "error": [None], "n": [4]}]


def test_a_damaged_tile_is_named_and_its_cells_count_as_absent(sweep: Place) -> None:
    sweep.run("s.zarr", sweep.case.wider)
    store = sweep.folder / "s.zarr"
    chunks = sorted(path for path in (store / "cells" / "x" / "c").rglob("*") if path.is_file())
    chunks[0].write_bytes(b"no chunk")
    chunks[1].unlink()
    watch = Watch(str(store), [sweep.module])
    watch.look()
    found = [p for row in range(2) for p in watch.frame((row,))["problems"]]
    assert len(found) == 2
    assert {of["why"].partition(" (")[0] for of in found} == {"x cannot be read", "x missing"}
    counts = [of["sizes"][0]["n"] for row in range(2) for of in watch.frame((row,))["row"]["variables"]]
    assert any(0 in of or min(of) < 20 for of in counts)


def test_a_damaged_segment_of_the_ledger_is_named(sweep: Place) -> None:
    sweep.run("s.zarr", sweep.case.grid)
    sweep.run("s.zarr", sweep.case.wider)
    store = sweep.folder / "s.zarr"
    assert not (store / "ledger" / "snapshots").exists()
    first, *_ = sorted((store / "ledger" / "segments").iterdir())
    first.write_text("{")
    watch = Watch(str(store), [sweep.module])
    watch.look()
    frame = watch.frame()
    assert [of["path"] for of in frame["problems"]] == [f"ledger/segments/{first.name}"]
    assert 0 < frame["done"] < frame["cells"]


def test_a_late_segment_of_an_earlier_run_is_counted_once(sweep: Place) -> None:
    sweep.run("s.zarr", sweep.case.grid)
    url = store_url(sweep.folder / "s.zarr")
    following = Following(url, [sweep.module])
    following.look()
    sweep.run("s.zarr", sweep.case.wider)
    following.look()
    seconds = sum(float(size.seconds.sum()) for size in following.records.sizes.values())
    late = Receipt("cells/0.0.0", 0, seconds=1.0, finished=1.0).to_json() + "\n"
    (sweep.folder / "s.zarr" / "ledger" / "segments" / "000001-000009.jsonl").write_text(late)
    for _ in range(3):
        following.look()
    again = sum(float(size.seconds.sum()) for size in following.records.sizes.values())
    assert again == pytest.approx(seconds + 1.0)


def test_tiles_are_read_a_few_at_a_look_and_the_rest_later(
    sweep: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.run("s.zarr", {**sweep.case.wider, "seeds": "60"})
    watch = Watch(str(sweep.folder / "s.zarr"), [sweep.module])
    monkeypatch.setattr(live_cells.RowCells.update, "__defaults__", (1,))
    watch.look()
    left = watch.frame()["row"]["tiles_left"]
    assert left > 1
    assert watch.behind
    watch.look()
    assert watch.frame()["row"]["tiles_left"] == left - 1
    for _ in range(left):
        watch.look()
    assert not watch.behind


def test_a_row_too_large_for_memory_has_no_curves_and_says_why(
    sweep: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_cells, "MOST_BYTES", 100)
    sweep.run("s.zarr", sweep.case.wider)
    watch = Watch(str(sweep.folder / "s.zarr"), [sweep.module])
    watch.look()
    row = watch.frame()["row"]
    assert row["too_large"] > 100
    assert row["variables"] == []


def test_rows_of_a_large_map_are_added_up_and_no_cell_is_lost(
    sweep: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bendscape.analysis.live.coverage.MOST_PLACES", 6)
    widths = {**sweep.case.wider, "width": "[3, 4, 5, 6, 7]"}
    sweep.run("s.zarr", widths)
    following = Following(str(sweep.folder / "s.zarr"), [sweep.module])
    following.look()
    assert following.plan is not None
    coverage = Coverage(following.plan.layout, following.grid)
    coverage.update(following.records)
    found = coverage.map()
    assert (found["rows"], found["columns"], found["merged"]) == (2, 3, 3)
    assert found["sizes"][0]["done"] == [60, 60, 60, 40, 40, 40]


def test_the_command_prints_one_frame_and_refuses_what_is_no_store(sweep: Place) -> None:
    sweep.run("s.zarr", sweep.case.grid)
    done = bendscape("watch", sweep.folder / "s.zarr", "--json", "--kernel-module", sweep.module)
    assert done.returncode == 0, done.stderr
    frame = json.loads(done.stdout)
    assert (frame["format"], frame["state"], frame["done"]) == (1, "complete", 6)
    (sweep.folder / "other").mkdir()
    (sweep.folder / "other" / "thing").write_text("")
    refused = bendscape("watch", sweep.folder / "other", "--json")
    assert refused.returncode == 2
    assert "a bendscape store" in refused.stderr
    with pytest.raises(ParameterError):
        Watch(str(sweep.folder / "other")).look(strict=True)
    absent = bendscape("watch", sweep.folder / "none.zarr", "--json")
    assert (absent.returncode, json.loads(absent.stdout)["state"]) == (0, "absent")


def test_rounds_of_a_campaign_with_a_target_are_shown_with_its_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refiners.install(monkeypatch)
    module = write_kernel(tmp_path, RANDOM)
    grid = {"p": [1], "a": [0.7, 1.5], "alpha": [0.8, 1.2], "N": [64], "seeds": 4}
    campaign = parse_campaign(campaign_text(**grid) + "\n[target]\nmean_x = { absolute = 0.25 }\n")
    run(tmp_path / "s.zarr", module, campaign, IdleExecutor())
    watch = Watch(str(tmp_path / "s.zarr"), [module])
    watch.look()
    assert watch.frame()["rounds"] == []
    summary = run(tmp_path / "s.zarr", module, campaign)
    watch.look()
    frame = watch.frame((0, 0, 1))
    assert [of["outcome"] for of in frame["rounds"]] == ["open"] * summary.rounds + ["met"]
    assert frame["rounds"][-1]["counts"] == {"met": 2, "open": 0, "unreachable": 0}
    assert frame["done"] == frame["cells"] == summary.done > 16
    wanted = np.array(frame["map"]["sizes"][0]["wanted"]).reshape(2, 2)
    with xr.open_dataset(tmp_path / "s.zarr", engine="bendscape") as ds:
        np.testing.assert_array_equal(wanted, ds["n_seeds"].values.reshape(2, 2))  # each point has its own
        n = (ds["status"] == 1).sum("seed").values.reshape(2, 2)
    assert frame["row"]["variables"][0]["sizes"][0]["n"] == n[1].tolist()


def test_the_network_has_thresholds_and_the_figures_of_the_report(tmp_path: Path) -> None:
    text = """
[campaign]
name = "small"
store = "unused"
entropy = 5
kernel = "hessian"

[grid]
p = [1]
p_star = [1]
a = [0.7]
alpha = { start = 0.8, stop = 1.8, num = 6 }
N = [16, 32]
seeds = 8
"""
    run(tmp_path / "s.zarr", "", parse_campaign(text))
    watch = Watch(str(tmp_path / "s.zarr"))
    watch.read_all()
    estimates = watch.frame()["row"]["estimates"]
    titles = [table["title"] for table in estimates["tables"]]
    assert titles == ["Critical load from all sizes", "Thresholds at each size"]
    assert [row[0] for row in estimates["tables"][1]["rows"]] == ["16", "32"]
    (model,) = estimates["figures"]["models"]
    with xr.open_dataset(tmp_path / "s.zarr", engine="bendscape") as ds:
        mean = ds["eigval_min"].mean("seed").squeeze().sel(N=16).values
    np.testing.assert_allclose(model["sizes"][0]["eigenvalue"], mean, rtol=1e-5)
    assert estimates["failed"] == {}
