"""Activations of student and teacher as axes: cells, theory beside them, constants, refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bendscape.analysis.dataset.models import as_sweep
from bendscape.core import Model, ParameterError, asymptotics, transition
from bendscape.core.activations.activation import ACTIVATIONS, Network
from bendscape.core.activations.published import TRANSITION_KINDS, outliers_of, thresholds_of
from bendscape.core.activations.sampling import observe, seconds_of
from bendscape.core.quadratic.model import EDGE_KINDS
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.file import Campaign, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.kernels.activations import AXES, VARIABLES
from bendscape.sweep.store.root import open_store
from campaigns import run

ENTROPY = 20261122
GRID: Mapping[str, str] = {
    "p": "[1, 2]",
    "p_star": "[1]",
    "a": "[1.0]",
    "activation": '["quadratic", "softplus"]',
    "alpha": '{ around = "alpha_bbp", values = [0.8, 2.0] }',
    "N": "[16]",
    "seeds": "3",
}


def campaign(options: str = "", **grid: str) -> Campaign:
    head = f'[campaign]\nname = "bent"\nstore = "s.zarr"\nentropy = {ENTROPY}\n\n'
    head += '[kernel]\nname = "activations"\n'
    lines = (f"{key} = {value}" for key, value in {**GRID, **grid}.items() if value)
    return parse_campaign(f"{head}{options}\n\n[grid]\n" + "\n".join(lines))


def opened(store: Path) -> xr.Dataset:
    with xr.open_dataset(store, engine="bendscape") as ds:
        return ds.load()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of the student's activation; the teacher's is a constant."""
    path = tmp_path_factory.mktemp("bent") / "s.zarr"
    assert run(path, "", campaign()).outcome == "complete"
    return path


def test_cells_are_those_of_the_sampler_bit_for_bit(store: Path) -> None:
    ds = opened(store)
    assert ds["eigval_min"].dims == ("p", "p_star", "a", "activation", "alpha_factor", "N", "seed")
    for p, name, seed in itertools.product((1, 2), ("quadratic", "softplus"), (0, 2)):
        at = ds.sel(p=p, p_star=1, a=1.0, activation=name, alpha_factor=2.0, N=16, seed=seed)
        alpha = at["alpha"].item()
        cell = AXES.cell(2.0, p=p, p_star=1, a=1.0, activation=name, alpha=alpha, N=16, seed=seed)
        sampled = observe(Network(p, 1, 1.0, name), alpha, 16, cell_rng(ENTROPY, cell))
        for variable in VARIABLES:
            np.testing.assert_array_equal(at[variable.name].item(), getattr(sampled, variable.name))


def test_theory_beside_the_cells_is_that_of_the_network(store: Path) -> None:
    ds = opened(store)
    for p, name in itertools.product((1, 2), ("quadratic", "softplus")):
        network, at = Network(p, 1, 1.0, name), ds.sel(p=p, p_star=1, a=1.0, activation=name)
        found = thresholds_of(network)
        for field in ("alpha_bbp", "alpha_bbp_error", "alpha_bbp_relative", "alpha_0_tangent"):
            np.testing.assert_array_equal(at[field].item(), getattr(found, field))
        assert TRANSITION_KINDS[int(at["transition"])] == found.transition
        point = at.sel(alpha_factor=2.0)
        theory = outliers_of(network, point["alpha"].item())
        assert EDGE_KINDS[int(point["edge"])] == theory.edge
        for field, value in (
            ("lambda_minus", theory.lambda_minus),
            ("lambda_star", theory.lambda_star),
            ("overlap_sq_theory", theory.overlap_sq),
            ("lambda_star_symmetric", theory.lambda_star_symmetric),
            ("overlap_sq_theory_relative", theory.overlap_sq_relative),
            ("theory_error", theory.error),
        ):
            np.testing.assert_array_equal(point[field].item(), value)
    # softplus: the relative outlier alone
    split = ds.sel(p=2, activation="softplus").squeeze()
    assert math.isnan(split["alpha_bbp_symmetric"].item())
    assert split["alpha_bbp"].item() == split["alpha_bbp_relative"].item() > 0


def test_without_the_axes_both_are_quadratic_and_theory_is_that_of_the_square(tmp_path: Path) -> None:
    plain = campaign(activation="", p="[2]", alpha="[3.0]", seeds="1")
    assert run(tmp_path / "s.zarr", "", plain).outcome == "complete"
    ds = opened(tmp_path / "s.zarr")
    assert (ds["activation"].item(), ds["teacher_activation"].item()) == ("quadratic", "quadratic")
    exact, at = transition(Model(2, 1, 1.0)), asymptotics(Model(2, 1, 1.0), 3.0)
    assert ds["alpha_bbp"].item() == pytest.approx(exact.alpha_bbp, rel=1e-8)
    assert TRANSITION_KINDS[int(ds["transition"].item())] == exact.kind
    for name, value in (("lambda_minus", at.lambda_minus), ("overlap_sq_theory", at.overlap_sq)):
        assert ds[name].item() == pytest.approx(value, rel=1e-8)
    layout = open_store(tmp_path / "s.zarr").attributes["layout"]
    assert layout["constants"] == {"activation": "quadratic", "teacher_activation": "quadratic"}


def test_streams_do_not_depend_on_whether_the_default_is_named() -> None:
    at = {"p": 2, "p_star": 1, "a": 1.5, "alpha": 1.5, "N": 32, "seed": 3}
    facts = {
        name: int(cell_rng(ENTROPY, AXES.cell(1.2, **at, **of)).integers(2**62))
        for name, of in (
            ("plain", {}),
            ("named", {"activation": "quadratic", "teacher_activation": "quadratic"}),
            ("student", {"activation": "log_cosh"}),
            ("teacher", {"teacher_activation": "log_cosh"}),
        )
    }
    # as for the kernel hessian, whose axes these are but for those with a default
    assert facts["plain"] == facts["named"] == 4_167_105_112_565_973_004
    assert len(set(facts.values())) == 3


@pytest.mark.parametrize("method", ["dense", "explicit", "dice"])
def test_every_method_computes_a_cell_and_says_how_many_products_it_took(tmp_path: Path, method: str) -> None:
    grid = {"activation": '["log_cosh"]', "p": "[2]", "alpha": "[4.0]", "N": "[20]", "seeds": "1"}
    found = campaign(f'method = "{method}"', **grid, teacher_activation='["sqrt"]')
    assert run(tmp_path / "s.zarr", "", found).outcome == "complete"
    ds = opened(tmp_path / "s.zarr")
    assert (ds["n_matvecs"].item() == 0) == (method == "dense")
    assert 0 <= ds["overlap_sq"].item() <= 1
    assert ds["residual"].item() < 1e-2 * abs(ds["eigval_min"].item())


@pytest.mark.parametrize(
    ("grid", "line"),
    [
        ({"activation": '["quadratic", "relu"]'}, r"one of quadratic, log_cosh, .*found 'relu'"),
        (
            {"activation": '["quartic"]', "alpha": "[3.0]"},
            r"grid\.activation = 'quartic'.*bounded below.*at p = 1",
        ),
        (
            {"teacher_activation": '["tanh"]', "alpha": "[3.0]"},
            r"grid\.teacher_activation = 'tanh'.*above -a = -1",
        ),
        ({"activation": '["tanh"]', "p": "[2]"}, r"a threshold > 0; it is nan for p = 2.*activation = tanh"),
        ({"alpha": "[0.01]"}, r"alpha N >= 1"),
    ],
)
def test_what_no_cell_can_be_computed_for_is_refused_before_any_is(
    tmp_path: Path, grid: dict[str, str], line: str
) -> None:
    with pytest.raises(ParameterError, match=line) as found:
        run(tmp_path / "s.zarr", "", campaign(**grid))
    assert "\n" not in str(found.value)
    assert not (tmp_path / "s.zarr" / "zarr.json").exists()


def test_networks_that_where_leaves_out_are_not_refused(tmp_path: Path) -> None:
    grid = {
        "activation": '["quadratic", "quartic"]',
        "alpha": "[3.0]",
        "where": "\"activation == 'quadratic'\"",
    }
    assert run(tmp_path / "s.zarr", "", campaign(**grid, seeds="1")).outcome == "complete"


def test_the_kernel_hessian_has_not_changed() -> None:
    kernel = load_kernel("hessian")
    assert (kernel.version, [axis.name for axis in kernel.axes.declared]) == (
        3,
        ["p", "p_star", "a", "noise", "alpha", "N", "seed"],
    )


def test_estimates_cover_what_a_cell_takes() -> None:
    kernel = load_kernel("activations")
    for name, N in itertools.product(ACTIVATIONS, (64, 4096)):
        if name != "quartic":
            cell = AXES.cell(p=2, p_star=1, a=1.0, activation=name, alpha=3.0, N=N, seed=0)
            assert 1e-4 < kernel.seconds(cell) < 1e4
            assert 8 * 3 * N < kernel.peak_bytes(cell) < 1e11


def test_explicit_is_planned_in_blocks_at_every_width() -> None:
    """A cell took 0.11 CPU seconds; with vectors one by one, as the square has them, 1.4 were planned."""
    network = Network(8, 1, 1.0, "log_cosh", "quadratic")
    assert 0.03 < seconds_of(network, 1.2, 256, "explicit") < 0.4


def test_analyses_of_the_square_refuse_other_activations(store: Path) -> None:
    ds = opened(store)
    with pytest.raises(
        ParameterError, match=r"activation must be quadratic .*; ds\.sel\(activation='quadratic'"
    ):
        as_sweep(ds)
    with pytest.raises(ParameterError, match=r"activation = \['softplus'\] is not accepted"):
        as_sweep(ds.sel(activation="softplus"))
    part = as_sweep(ds.sel(activation="quadratic"))
    assert not {"activation", "teacher_activation"} & set(part.variables)
