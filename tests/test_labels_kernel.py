"""The `labels` kernel in a real campaign: the theory conditional on each cell's own labels."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from command_line import bendscape

from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.cost import cost_seconds
from bendscape.core.quadratic.sampling.drawn_labels import sample_drawn_labels
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.file import Campaign, load_campaign, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.engine.plan import plan_campaign
from bendscape.sweep.kernels import labels as labels_kernel
from bendscape.sweep.kernels.hessian import KERNEL as HESSIAN
from bendscape.sweep.kernels.labels import KERNEL
from bendscape.sweep.kernels.quadratic import AXES
from campaigns import campaign_text, run

LOADS = [0.72, 0.76, 0.8, 0.84, 0.88, 0.92]
CELL = AXES.cell(p=2, p_star=1, a=1.5, alpha=1.0, N=20_000, seed=0)


def campaign(**changes: object) -> Campaign:
    text = campaign_text(**{"p": [8], "a": [1.5], "alpha": LOADS, "N": [8000], "seeds": 6, **changes})
    return parse_campaign(text.replace('kernel = "probe"', 'kernel = "labels"'))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("labels") / "labels.zarr"
    assert run(place, "", campaign()).done == 36
    return place


def test_the_kernel_is_found_by_its_name_and_its_variables_are_those_of_the_hessian() -> None:
    assert load_kernel("labels").variables is KERNEL.variables
    assert set(KERNEL.variables) < set(HESSIAN.variables)
    assert len(KERNEL.variables) == 4


def test_a_cell_holds_what_core_gives_for_its_stream(store: Path) -> None:
    ds = xr.open_dataset(store, engine="bendscape", chunks={}).load()
    assert (ds["status"] == 1).all()
    absent = 0
    for alpha, seed in ((0.72, 0), (0.8, 3), (0.92, 5)):
        expected = sample_drawn_labels(
            Model(8, 1, 1.5),
            alpha,
            8000,
            cell_rng(7, AXES.cell(p=8, p_star=1, a=1.5, alpha=alpha, N=8000, seed=seed)),
        )
        found = ds.sel(p=8, p_star=1, a=1.5, alpha=alpha, N=8000, seed=seed)
        for name, value in expected._asdict().items():
            np.testing.assert_equal(found[name].item(), value)
        assert found["alpha_realised"].item() == round(alpha * 8000) / 8000
        absent += bool(np.isnan(expected.outlier_sample))
    assert 0 < absent < 3, "cells with and without an outlier"


def test_keeping_labels_or_drawing_them_again_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KERNEL.compute(CELL, np.random.default_rng(3))
    monkeypatch.setattr(labels_kernel, "KEPT_SAMPLES", 0)
    again = KERNEL.compute(CELL, np.random.default_rng(3))
    np.testing.assert_equal(dict(kept.values), dict(again.values))


@pytest.mark.parametrize(("p", "size", "kept"), [(1, 30_000, True), (8, 200_000, True), (2, 200_000, False)])
def test_memory_stays_below_what_the_kernel_declares(
    p: int, size: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with more samples than core keeps by itself, and with labels that are drawn again."""
    monkeypatch.setattr("bendscape.core.quadratic.sampling.drawn_labels.KEPT_SAMPLES", 1000)
    monkeypatch.setattr("bendscape.core.quadratic.sampling.cost.KEPT_SAMPLES", 1000)
    monkeypatch.setattr(labels_kernel, "KEPT_SAMPLES", 10**6 if kept else 1000)
    cell = CELL._replace(p=p, N=size)
    KERNEL.compute(cell._replace(N=100), np.random.default_rng(0))  # imports are not the cell's
    tracemalloc.start()
    try:
        KERNEL.compute(cell, np.random.default_rng(0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= KERNEL.peak_bytes(cell) <= 2.5 * peak


def test_declared_memory_stops_growing_where_labels_are_drawn_again() -> None:
    sizes = [KERNEL.peak_bytes(CELL._replace(N=N)) for N in (10**6, 10**7, 10**8)]
    assert sizes[0] < sizes[1] < 3e8
    assert sizes[2] < 5e7, "one block"


def test_declared_seconds_are_linear_in_the_samples_and_near_those_of_core() -> None:
    """Both were fitted to measured times; the kernel's cells keep labels up to a larger size."""
    per_sample = [KERNEL.seconds(CELL._replace(N=N)) / N for N in (10**5, 10**6, 10**7)]
    assert max(per_sample) < 1.1 * min(per_sample)
    for p in (1, 2, 8):
        model, cell = Model(p, 1, 1.5), CELL._replace(p=p, N=10**5)
        assert 0.5 < KERNEL.seconds(cell) / cost_seconds(model, 1.0, 10**5, "conditional") < 3
    assert KERNEL.seconds(CELL._replace(N=10**8)) > 40 * KERNEL.seconds(CELL._replace(N=10**7))


def test_the_campaign_of_the_page_fits_into_an_hour_of_two_cores() -> None:
    wanted = load_campaign(Path(__file__).parent.parent / "campaigns" / "drift.toml")
    plan = plan_campaign(wanted, KERNEL)
    assert wanted.campaign.store.endswith("runs/drift.zarr")
    assert sum(size.seconds for size in plan.sizes.values()) < 2 * 3600


def test_scaling_of_a_store_of_labels_gives_the_drift_and_lists_what_the_rest_lacks(
    store: Path, tmp_path: Path
) -> None:
    call = ("scaling", store, "--n-boot", 100)
    done = bendscape(*call, "--json", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[:2] == [
        "left out collapse: this store lacks overlap_sq_space, eigval_min",
        "left out edge_scaling: this store lacks eigval_min",
    ]
    found = json.loads(done.stdout)
    assert (found["collapse"], found["edge_scaling"]) == ([], [])
    (row,) = found["drift"]
    assert (row["p"], row["law"], row["sizes"][0]["N"]) == (8, "not_enough_data", 8000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drift.zarr"]
    assert "law" in xr.open_zarr(tmp_path / "drift.zarr", consolidated=False)
    assert "Threshold seen beyond the crossover size" in bendscape(*call).stdout
