"""Stores and cells of version 2, when all kernels had the axes of one network, are read and reproduced.

tests/data holds two stores as version 2 wrote them: one of the kernel `labels`, and one of a kernel of a
user's own, some of whose cells failed. The numbers below were computed by version 2.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.kernels.quadratic import AXES
from bendscape.sweep.store.fsck import fsck
from campaigns import run

DATA = Path(__file__).parent / "data"
CAMPAIGN = """
[campaign]
name = "version-2"
store = "v2.zarr"
entropy = 20261122
kernel = "{kernel}"

[grid]
p = [1, 2]
p_star = [1]
a = {a}
alpha = {{ around = "alpha_bbp", start = 0.6, stop = 1.4, num = {num} }}
N = {N}
seeds = {seeds}
where = "p >= p_star"
"""
OLD = {"a": "[0.7, 1.5]", "num": 3, "N": "[16, 24]", "seeds": "{ 16 = 4, 24 = 2 }"}
GROWN = {"a": "[0.7, 1.0, 1.5]", "num": 5, "N": "[16, 20, 24]", "seeds": "{ 16 = 9, 20 = 1, 24 = 2 }"}

OWN = """
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable

def compute(cell, rng):
    if cell.seed == 1 and cell.N == 24:
        raise ValueError(f"no luck at alpha = {cell.alpha}")
    return Outcome({"x": float(rng.random()), "n": int(rng.integers(100))})

VARIABLES = (Variable("x", "a uniform number"), Variable("n", "an integer", dtype="int64"))
KERNEL = Kernel("facts", 1, VARIABLES, compute, lambda cell: 1e-3, lambda cell: 1e5)
"""


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    zipfile.ZipFile(DATA / "labels-store-version-2.zip").extractall(tmp_path / "labels.zarr")
    return tmp_path / "labels.zarr"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    zipfile.ZipFile(DATA / "own-store-version-2.zip").extractall(tmp_path / "own.zarr")
    return tmp_path / "own.zarr"


def opened(store: Path) -> xr.Dataset:
    with xr.open_dataset(store, engine="bendscape") as ds:
        return ds.load().drop_attrs()


def test_stores_of_version_2_are_read_unchanged_and_sound(labels: Path) -> None:
    assert json.loads((labels / "zarr.json").read_text())["attributes"]["bendscape_store_version"] == 2
    ds = opened(labels)
    assert ds["edge_sample"].dims == ("p", "p_star", "a", "alpha_factor", "N", "seed")
    assert int((ds["status"] == 1).sum()) == 72
    assert fsck(labels).sound
    assert store_status(labels)["done"] == 72


def test_they_are_resumed_and_extended_to_the_result_of_a_single_new_run(labels: Path) -> None:
    before = opened(labels)
    same = run(labels, "", parse_campaign(CAMPAIGN.format(kernel="labels", **OLD)))
    assert (same.outcome, same.computed) == ("complete", 0)
    grown = parse_campaign(CAMPAIGN.format(kernel="labels", **GROWN))
    summary = run(labels, "", grown)
    assert (summary.outcome, summary.computed) == ("complete", summary.cells - 72)
    fresh = labels.with_name("fresh.zarr")
    assert run(fresh, "", grown).outcome == "complete"
    now, anew = opened(labels), opened(fresh)
    cells = ["status", "coverage", "edge_sample", "outlier_sample", "overlap_sq_sample", "alpha_realised"]
    added = (now["seed"] >= 4) | (now["N"] == 20) | ~now["a"].isin(before["a"])
    left, right = (ds[cells].drop_vars("alpha").where(added) for ds in (now, anew))
    xr.testing.assert_identical(left, right)
    # Cells of another machine: bits of NumPy and SciPy differ between processors in the last digits.
    xr.testing.assert_allclose(now, anew, rtol=1e-9)
    part = opened(labels).sel({dim: before[dim] for dim in ("p", "a", "N", "seed")})
    part = part.sel(alpha_factor=before["alpha_factor"])
    for name in ("edge_sample", "alpha_realised"):
        kept = part[name].where(before[name].notnull().values)
        np.testing.assert_array_equal(kept.values, before[name].values)
    assert fsck(labels).sound


def test_failed_cells_of_a_users_own_kernel_are_found_and_retried(own: Path, tmp_path: Path) -> None:
    with xr.open_dataset(own, engine="bendscape", group="errors") as errors:
        assert errors.sizes["failure"] == 12
        assert set(errors["N"].values) == {24}
        assert set(errors["seed"].values) == {1}
    before, module = opened(own), tmp_path / "facts.py"
    module.write_text(OWN.replace("cell.seed == 1 and cell.N == 24", "False"))
    campaign = parse_campaign(CAMPAIGN.format(kernel="facts", **OLD))
    summary = run(own, str(module), campaign, retry_failed=True, accept_kernel_change=True)
    assert (summary.outcome, summary.computed) == ("complete", 12)
    after = opened(own)
    done = before["status"] == 1
    for name in ("x", "n"):
        xr.testing.assert_equal(after[name].where(done), before[name].where(done))
    assert bool(after["x"].sel(N=24, seed=1).notnull().all())


def test_a_lost_root_is_made_again_from_the_campaign_record_of_that_time(labels: Path) -> None:
    before = opened(labels)
    (labels / "zarr.json").unlink()
    shutil.rmtree(labels / "alpha_bbp")
    assert fsck(labels, repair=True).repaired
    again = opened(labels)
    xr.testing.assert_allclose(again, before, rtol=1e-12)  # thresholds were computed one model at a time
    xr.testing.assert_identical(again[["edge_sample", "status"]], before[["edge_sample", "status"]])


def test_cells_of_the_kernels_of_that_time_keep_their_bits() -> None:
    for name, facts in FACTS.items():
        cell = AXES.cell(1.2, p=2, p_star=1, a=1.5, alpha=1.5, N=32, seed=3)
        rng = cell_rng(20261122, cell)
        values = load_kernel(name).compute(cell, rng).values
        for variable, fact in facts.items():
            # Bits of LAPACK and BLAS differ between machines in the last digits; those of a stream never do.
            np.testing.assert_allclose(values[variable], fact, rtol=1e-9, err_msg=f"{name}: {variable}")


FACTS = {
    "hessian": {
        "eigval_min": -1.104533868365222,
        "eigval_second": -0.9162708100596983,
        "overlap_sq": 0.2789100226612012,
        "overlap_sq_space": 0.2637891452981462,
        "edge_sample": -0.8412423649250782,
        "outlier_sample": -0.8614539314130467,
        "overlap_sq_sample": 0.17598523363215143,
        "alpha_realised": 1.5,
    },
    "labels": {
        "edge_sample": -0.73201974048137,
        "outlier_sample": -0.7359310706324942,
        "overlap_sq_sample": 0.08438437650337541,
        "alpha_realised": 1.5,
    },
    "spectral": {
        "eigval_min_hessian_limit": -0.6621977034093611,
        "eigval_second_hessian_limit": -0.37943306958660494,
        "overlap_sq_hessian_limit": 0.17155949511132348,
        "overlap_sq_space_hessian_limit": 0.17155949511132348,
        "eigval_min_optimal": -0.6960762900384827,
        "eigval_second_optimal": -0.4741227344260591,
        "overlap_sq_optimal": 0.12358384963099642,
        "overlap_sq_space_optimal": 0.12358384963099642,
        "alpha_realised": 1.5,
    },
}
