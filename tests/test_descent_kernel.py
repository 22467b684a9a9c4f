"""The kernel `descent`: cells are those of `follow`, and stores hold arrays over recorded times."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from command_line import bendscape

from bendscape.analysis.dataset.analyses import load_analysis
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.descent.cost import Work, descent_seconds, path_precision, resolve_data
from bendscape.core.quadratic.descent.explicit import ExplicitData
from bendscape.core.quadratic.descent.measure import follow
from bendscape.core.quadratic.descent.revealed import RevealedData
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.hessian import sample_instance
from bendscape.sweep.campaign.axes import Cell, cell_rng
from bendscape.sweep.campaign.file import Campaign, load_campaign, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.engine.plan import plan_campaign
from bendscape.sweep.kernels.descent import AXES
from campaigns import run

ENTROPY = 7
TIMES = [0.1, 1.0, 3.0]


def cell(**changes: Any) -> Cell:
    at = {"p": 1, "p_star": 1, "a": 0.01, "noise": 0.0, "dynamics": "free", "alpha": 3.0, "N": 24, "seed": 0}
    return AXES.cell(**{**at, **changes})


def text(options: str = "times = [0.1, 1, 3]", **grid: Any) -> str:
    given = {"p": [1], "p_star": [1], "a": [0.01], "alpha": [3.0], "N": [24], "seeds": 2} | grid
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in given.items())
    return f"""
[campaign]
name = "descents"
store = "unused"
entropy = {ENTROPY}

[kernel]
name = "descent"
{options}

[grid]
{lines}
"""


def campaign(options: str = "times = [0.1, 1, 3]", **grid: Any) -> Campaign:
    return parse_campaign(text(options, **grid))


@pytest.mark.parametrize("kind", ["explicit", "revealed"])
@pytest.mark.parametrize("dynamics", ["free", "confined"])
def test_a_cell_is_what_follow_returns_bit_for_bit(kind: str, dynamics: str) -> None:
    here = cell(p=2, p_star=2, noise=0.2, dynamics=dynamics)
    options = {"times": TIMES, "data": kind, "pairs": 2, "overlaps": 3, "tolerance": 1e-3}
    values = load_kernel("descent", (), options).compute(here, cell_rng(ENTROPY, here)).values
    model, rng = Model(2, 2, 0.01, 0.2), cell_rng(ENTROPY, here)
    data = (
        ExplicitData(sample_instance(model, 3.0, 24, rng))
        if kind == "explicit"
        else RevealedData(model, 3.0, 24, rng)
    )
    found = follow(data, TIMES, pairs=2, tolerance=1e-3, confined=dynamics == "confined")
    for i, seen in enumerate(found.seen):
        for name in ("loss", "alignment", "generalisation_error", "gradient_norm"):
            assert values[name][i] == getattr(seen, name)
        assert values["multiplier"][i] == seen.multiplier.mean()
        for name in ("edge_sample", "outlier_sample", "overlap_sq_sample"):
            np.testing.assert_equal(values[name][i], getattr(seen.own, name))
        assert seen.pairs is not None
        assert seen.pairs.converged
        assert (values["eigenvalue"][i] == seen.pairs.values).all()
        assert (values["eigenvector_overlap_sq"][i] == seen.pairs.overlaps_sq).all()
        assert (values["eigenvector_residual"][i] == seen.pairs.residuals).all()
        for name, matrix in (("overlap_students", seen.Q), ("overlap_teachers", seen.R)):
            assert (values[name][i, :2, :2] == matrix).all()
            assert np.isnan(values[name][i, 2]).all()
            assert np.isnan(values[name][i, :, 2]).all()
    assert (values["evaluations"], values["directions"]) == (found.evaluations, found.directions)
    assert (values["recovered"], values["stopped"], values["time_reached"]) == (found.recovered, 0, 3.0)
    np.testing.assert_equal(values["time_recovered"], found.time_recovered)
    np.testing.assert_equal(values["time_lost"], found.time_lost)
    assert (values["alignment"].max() < 1e-12) == (dynamics == "confined")


def test_a_cell_that_stops_at_recovery_has_nan_after_it_and_the_same_time_of_recovery() -> None:
    here = cell(alpha=5.0, seed=1)
    whole, short = (
        load_kernel("descent", (), {"times": [0.1, 30, 60], "until_recovered": stop}).compute(
            here, cell_rng(ENTROPY, here)
        )
        for stop in (False, True)
    )
    assert whole.values["time_recovered"] == short.values["time_recovered"] < 30
    assert (whole.values["recovered"], short.values["recovered"]) == (1, 1)
    assert (whole.values["stopped"], short.values["stopped"]) == (0, 1)
    assert whole.converged
    assert short.converged
    assert np.isfinite(whole.values["loss"]).all()
    assert np.isfinite(short.values["loss"]).tolist() == [True, False, False]
    assert short.values["time_reached"] == 0.1
    kept = not math.isnan(short.values["outlier_sample"][0])
    assert short.values["outlier_kept"] == kept


def test_a_path_that_cannot_go_on_is_not_converged() -> None:
    steps = {"method": "gradient_descent", "times": [0, 1e200], "learning_rate": 1e200}
    found = load_kernel("descent", (), steps).compute(cell(), cell_rng(ENTROPY, cell()))
    assert (found.values["stopped"], found.converged) == (3, False)
    assert np.isfinite(found.values["loss"]).tolist() == [True, False]
    assert found.values["time_reached"] == 0


def test_a_store_has_the_recorded_times_as_a_dimension_and_is_resumed_and_extended(tmp_path: Path) -> None:
    store, whole = tmp_path / "s.zarr", tmp_path / "whole.zarr"
    wide = {"dynamics": ["free", "confined"], "alpha": [2.0, 3.0], "N": [16, 24], "seeds": 3}
    assert run(store, "", campaign(dynamics=["free"])).outcome == "complete"
    again = run(store, "", campaign(dynamics=["free"]))
    assert (again.outcome, again.computed) == ("complete", 0)
    assert run(store, "", campaign(**wide)).outcome == "complete"
    run(whole, "", campaign(**wide))
    ds, same = (xr.open_dataset(path, engine="bendscape").load() for path in (store, whole))
    xr.testing.assert_equal(ds, same)
    assert ds["loss"].dims == ("p", "p_star", "a", "dynamics", "alpha", "N", "seed", "time")
    assert ds["time"].values.tolist() == TIMES
    assert ds["recovered"].dims == ds["loss"].dims[:-1]
    assert "NaN after the end of the path" in ds["loss"].attrs["long_name"]
    here = cell(dynamics="confined", N=16, alpha=2.0, seed=2)
    values = load_kernel("descent", (), {"times": TIMES}).compute(here, cell_rng(ENTROPY, here)).values
    at = ds.sel(dynamics="confined", N=16, alpha=2.0, seed=2).squeeze()
    assert (at["loss"] == values["loss"]).all()
    assert (ds["status"] == 1).all()
    assert ds["alpha_bbp"].values == pytest.approx(2.850752, abs=1e-6)
    assert load_analysis("drift").lacking(ds) == ["overlap_sq_sample without the dimension time"]
    for table in ("times = [0.1, 1]", "times = [0.1, 1, 3]\npairs = 1"):
        with pytest.raises(ParameterError, match="options"):
            run(store, "", campaign(table, **wide))


def test_the_free_dynamics_are_the_default_and_have_the_same_bits(tmp_path: Path) -> None:
    run(tmp_path / "s.zarr", "", campaign())
    run(tmp_path / "named.zarr", "", campaign(dynamics=["free"]))
    one, named = (
        xr.open_dataset(tmp_path / f, engine="bendscape").load().squeeze() for f in ("s.zarr", "named.zarr")
    )
    assert one["dynamics"].item() == "free"
    assert (one["loss"] == named["loss"]).all()


def test_a_store_is_exported_with_its_times(tmp_path: Path) -> None:
    store, file = tmp_path / "s.zarr", tmp_path / "campaign.toml"
    file.write_text(text("times = [0.1, 1]\npairs = 1\noverlaps = 2", dynamics=["free", "confined"]))
    assert bendscape("run", file, "--store", store, "--address", "serial").returncode == 0
    ds = xr.open_dataset(store, engine="bendscape").load()
    for name in ("out.nc", "out.zarr"):
        found = bendscape("export", store, "-o", tmp_path / name)
        assert found.returncode == 0, found.stderr
        back = xr.open_dataset(tmp_path / name)
        assert back["eigenvalue"].dims[-2:] == ("time", "pair")
        assert back["overlap_students"].dims[-3:] == ("time", "student", "other_student")
        np.testing.assert_array_equal(back["loss"], ds["loss"])
        np.testing.assert_array_equal(back["dynamics"].astype(str), ds["dynamics"].astype(str))
        back.close()
    status = json.loads(bendscape("status", store, "--json").stdout)
    assert status["done"] == 4


@pytest.mark.parametrize(
    ("options", "grid", "line"),
    [
        ("times = [1, 0.5]", {}, "kernel.times must be numbers in increasing order"),
        ("times = []", {}, "kernel.times"),
        ("times = [-1]", {}, "kernel.times.0 must be greater than or equal to 0"),
        ("pairs = 4", {}, "kernel.pairs must be less than or equal to 3"),
        ("learning_rate = 0.1", {}, 'kernel.learning_rate must be absent, or kernel.method = "gradient_des'),
        ('method = "gradient_descent"', {}, "kernel.learning_rate must be given with kernel.method"),
        (
            'times = [0.1, 1]\nmethod = "gradient_descent"\nlearning_rate = 0.5',
            {},
            "times must be at least one step of 0.5 apart, and from the start; lower the learning rate",
        ),
        ("tolerance = 1", {}, "kernel.tolerance must be less than or equal to 0.03"),
        ('tolerance = 1e-6\nprecision = "float32"', {}, "'float64' for a kernel.tolerance below 0.0001"),
        ("rel = 0.5", {}, "kernel.rel must be less than or equal to 0.1"),
        ('data = "drawn"', {}, "kernel.data must be 'auto', 'explicit' or 'revealed'"),
        ("overlaps = 2", {"p": [1, 4]}, "grid.p must be at most 2, the widths of the overlap matrices"),
        ('data = "revealed"', {"N": [2], "p": [4]}, "grid.N must be >= p + p_star = 5 for revealed data"),
        ("", {"dynamics": ["trapped"]}, "grid.dynamics must be one of free, confined"),
        ("", {"dynamics": ["confined"], "p_star": [4], "N": [4]}, "grid.N must be > p_star = 4 for confined"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_one_line(
    tmp_path: Path, options: str, grid: dict[str, Any], line: str
) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(text(options, **grid))
    found = bendscape("plan", file, "--store", tmp_path / "s.zarr")
    assert found.returncode == 2
    assert line in " ".join(found.stderr.replace("is not accepted: ", "").split())
    assert "Traceback" not in found.stderr
    assert len(found.stderr.strip().splitlines()) <= 3


def test_data_are_revealed_where_that_is_faster_or_fits_and_the_same_on_every_machine() -> None:
    model, work = Model(1, 1, 0.01), Work(100.0, 7)
    kinds = [resolve_data(model, 3.5, N, "auto", work, 2**33) for N in (100, 10_000, 10**6)]
    assert kinds == ["explicit", "revealed", "revealed"]
    assert resolve_data(Model(4, 1, 0.01), 3.5, 4, "auto", work, 2**33) == "explicit"
    assert resolve_data(model, 3.5, 10**6, "auto", work, 1.0) == "revealed"
    measured = work._replace(moments=50, pairs=3, until_recovered=True)
    for N in (24, 500, 1000, 1500, 2000):
        assert resolve_data(model, 3.5, N, "auto", work, 2**33) == resolve_data(
            model, 3.5, N, "auto", measured, 2**33
        )
    precisions = [
        path_precision(model, 3.5, 10_000, "revealed", work._replace(tolerance=of)) for of in (3e-3, 1e-5)
    ]
    assert precisions == ["float32", "float64"]
    confined = work._replace(confined=True)
    assert descent_seconds(model, 5.0, 1000, "explicit", confined) > descent_seconds(
        model, 5.0, 1000, "explicit", work
    )


def test_the_kernel_is_listed_with_its_options() -> None:
    listed = json.loads(bendscape("kernels", "--json").stdout)["kernels"]
    (found,) = [of for of in listed if of["name"] == "descent"]
    assert [axis["name"] for axis in found["axes"]][3:5] == ["noise", "dynamics"]
    assert all(option["long_name"] for option in found["options"])
    assert {of["name"] for of in found["variables"]} >= {"loss", "recovered", "time_recovered", "time_lost"}


@pytest.mark.parametrize(
    ("name", "hours"), [("descent", 1.6), ("descent-wide", 0.4), ("descent-small", 0.0055)]
)
def test_the_campaigns_take_the_time_that_they_state(name: str, hours: float) -> None:
    campaign = load_campaign(Path(__file__).parents[1] / "campaigns" / f"{name}.toml")
    plan = plan_campaign(campaign, load_kernel(campaign.kernel_name, (), campaign.options))
    assert 0.3 * hours < sum(of.seconds for of in plan.sizes.values()) / 3600 < hours
