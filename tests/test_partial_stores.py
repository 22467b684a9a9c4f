"""Stores that are still filling: every analysis uses what is recorded, and reports its coverage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from dask.base import compute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import campaigns
from bendscape.analysis import open as opening
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.estimate.thresholds import thresholds
from bendscape.analysis.findings.shift_map import shift_map
from bendscape.sweep.store.records import Receipt

WHERE = "p >= p_star and (N < 48 or a < 1) and (alpha < 1.9 or p == 1)"
ANALYSES = ("thresholds", "collapse", "edge_scaling", "shift_map")
MODEL = ("p", "p_star", "a")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of sampled Hessians, complete: 6 of 8 models, of which 3 want the largest size too."""
    text = campaigns.campaign_text(
        p=[1, 2], p_star=[1, 2], a=[0.6, 1.5], alpha=[0.7, 1.0, 1.3, 1.6, 1.9, 2.2], N=[24, 36, 48],
        seeds=8, where=WHERE,
    )  # fmt: skip
    store = tmp_path_factory.mktemp("whole") / "s.zarr"
    campaign = campaigns.parse_campaign(text.replace('kernel = "probe"', 'kernel = "hessian"'))
    campaigns.run(store, "", campaign)
    return store


@pytest.fixture(scope="module")
def answers(whole: Path) -> dict[str, xr.Dataset]:
    """Results of the complete store."""
    return every_answer(opened(whole))


def opened(store: Path) -> xr.Dataset:
    return xr.open_dataset(store, engine="bendscape", chunks={})


def every_answer(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """Results of one pass, and the map made from it."""
    lazy = (
        thresholds(ds),
        collapse(ds, n_boot=100),
        edge_scaling(ds, least_size=20, prediction=False),
    )
    found = compute(*lazy)  # type: ignore[no-untyped-call]
    return dict(zip(ANALYSES, (*found, shift_map(ds, found[1])), strict=True))


def receipts(store: Path) -> list[Receipt]:
    """Everything that the ledger of a store holds."""
    segments = sorted((store / "ledger" / "segments").iterdir())
    return [Receipt.from_json(line) for path in segments for line in path.read_text().splitlines()]


def as_if_only(store: Path, recorded: list[Receipt], place: Path) -> Path:
    """The store with only these receipts, in this order; other cells in its arrays are unrecorded,
    like those that a worker has just written."""
    if not place.exists():
        shutil.copytree(store, place)
        for folder in ("segments", "snapshots"):
            shutil.rmtree(place / "ledger" / folder, ignore_errors=True)
        (place / "ledger" / "segments").mkdir()
    segment = place / "ledger" / "segments" / "000001-000001.jsonl"
    segment.unlink(missing_ok=True)
    if recorded:
        segment.write_text("".join(receipt.to_json() + "\n" for receipt in recorded))
    return place


def models_of(found: xr.Dataset) -> list[dict[str, int]]:
    return [
        dict(zip(MODEL, index, strict=True)) for index in np.ndindex(*(found.sizes[dim] for dim in MODEL))
    ]


def finished_models(ds: xr.Dataset) -> list[dict[str, int]]:
    """Indices of the models whose wanted cells are all done."""
    share = ds["coverage"].fillna(1).min([dim for dim in ds["coverage"].dims if dim not in MODEL]).compute()
    return [at for at in models_of(ds) if share.isel(at).item() == 1]


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_store_filled_in_any_order_gives_results_with_coverage_and_finished_models_keep_theirs(
    data: st.DataObject, whole: Path, answers: Mapping[str, xr.Dataset], tmp_path: Path
) -> None:
    kept = []
    for receipt in data.draw(st.permutations(receipts(whole))):
        mask = data.draw(
            st.sampled_from([0, receipt.done, receipt.done]) | st.integers(0, receipt.done),
            label=receipt.tile,
        )
        kept.append(replace(receipt, done=receipt.done & mask))
    ds = opened(as_if_only(whole, [receipt for receipt in kept if receipt.done], tmp_path / "s.zarr"))
    done = (ds["status"] == 1).compute()
    assert int(done.sum()) == sum(receipt.done.bit_count() for receipt in kept)
    wanted = (ds["coverage"].notnull() * ds["n_seeds"]).compute()
    found = every_answer(ds)
    for name, result in found.items():
        over = [dim for dim in ("alpha", "N") if dim not in result["coverage"].dims]
        cells = wanted.sum(over)
        share = done.sum([*over, "seed"]) / cells.where(cells > 0)
        beside = ["alpha", "n_seeds", "noise"]
        xr.testing.assert_allclose(
            result["coverage"].drop_vars(beside, errors="ignore"), share.drop_vars(beside, errors="ignore")
        )
        assert not (result["coverage"] < 0).any(), name
        assert not (result["coverage"] > 1).any(), name
    for at in finished_models(ds):
        for name, result in found.items():
            shifts = [str(variable) for variable in result.data_vars if str(variable).startswith("shift")]
            xr.testing.assert_identical(
                result.isel(at).drop_vars(shifts), answers[name].isel(at).drop_vars(shifts)
            )
    nothing = done.sum(["alpha", "N", "seed"]) == 0
    assert not found["shift_map"]["covered"].where(nothing, False).any()


def test_a_model_that_the_campaign_does_not_want_has_no_coverage_and_one_wanted_in_part_can_be_complete(
    answers: Mapping[str, xr.Dataset],
) -> None:
    for name, result in answers.items():
        coverage = result["coverage"]
        per_model = coverage.max([dim for dim in coverage.dims if dim not in MODEL])
        assert np.isnan(per_model.sel(p=1, p_star=2)).all(), name
        assert (per_model.where(per_model["p"] >= per_model["p_star"], 1) == 1).all(), name
        assert ((coverage == 1) | coverage.isnull()).all(), name
    at_size = answers["thresholds"]["coverage"].sel(N=48)
    assert np.isnan(at_size.sel(a=1.5)).all()
    assert np.isnan(answers["edge_scaling"]["coverage"].sel(p=2, p_star=1, alpha=2.2)).all()


def test_a_store_half_filled_is_half_covered(whole: Path, tmp_path: Path) -> None:
    """Every receipt with the lower half of its seeds, of which 8 lie side by side in a mask."""
    half = [replace(one, done=one.done & int("0f" * 64, 16)) for one in receipts(whole)]
    ds = opened(as_if_only(whole, half, tmp_path / "s.zarr"))
    assert (ds["status"].sel(seed=slice(0, 3)).max("seed") == 1).any()
    for name, result in every_answer(ds).items():
        coverage = result["coverage"].values
        np.testing.assert_array_equal(coverage[~np.isnan(coverage)], 0.5, err_msg=name)


def test_several_results_together_read_every_part_of_a_store_once(
    whole: Path, answers: Mapping[str, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    block = opening.Measured.block

    def counting(self: Any, picks: list[Any]) -> Any:
        reads.append(json.dumps([self._name, [pick.tolist() for pick in picks]]))
        return block(self, picks)

    monkeypatch.setattr(opening, "CHUNK_BYTES", 3 * 6 * 8 * 8)  # three models at one size
    ds = opened(whole)
    monkeypatch.setattr(opening.Measured, "block", counting)
    found = every_answer(ds)
    assert len(reads) == len(set(reads))
    assert {json.loads(read)[0] for read in reads} == {
        "status", "eigval_min", "overlap_sq_space", "edge_sample", "alpha_realised",
    }  # fmt: skip
    assert len(reads) > 5 * 3 * 2, "the store is in several parts"
    for name, result in found.items():
        xr.testing.assert_identical(result, answers[name])


@pytest.mark.parametrize("name", ANALYSES[:3])
def test_a_result_is_lazy_where_the_dataset_is_and_in_memory_where_that_is(whole: Path, name: str) -> None:
    options: dict[str, Any] = {"edge_scaling": {"prediction": False}, "collapse": {"n_boot": 100}}.get(
        name, {}
    )
    ds = opened(whole).isel(p=[0], p_star=[0], a=[0])
    lazy = getattr(ds.bend, name)(**options)
    assert all(variable.chunks for variable in lazy.data_vars.values())
    eager = getattr(ds.load().bend, name)(**options)
    assert not eager.chunks
    xr.testing.assert_identical(lazy.compute(), eager)


def test_threads_and_the_workers_of_a_distributed_client_give_the_same(whole: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("distributed_pass.py")), str(whole)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"]
    assert found["cells"] == int((opened(whole).isel(a=[0])["status"] == 1).sum())
    assert found["here"] == [found["own"]]
    assert found["own"] not in found["there"]
    assert found["there"]
