"""The `theory` kernel through a real campaign: the theory at each cell's own size, on the grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size, crossover_size
from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import alpha_0, transition
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.kernels.quadratic import REFERENCES
from campaigns import campaign_text, run


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    store = tmp_path_factory.mktemp("theory") / "theory.zarr"
    text = campaign_text(p=[1, 4], a=[0.5, 1.5], alpha=[1.2], N=[10**3, 10**10], seeds=2)
    summary = run(store, "", parse_campaign(text.replace('kernel = "probe"', 'kernel = "theory"')))
    assert (summary.outcome, summary.done) == ("complete", 16)
    return xr.open_dataset(store, engine="bendscape", chunks={}).load()


def test_every_cell_carries_the_theory_of_its_model_and_size(opened: xr.Dataset) -> None:
    for p in (1, 4):
        for a in (0.5, 1.5):
            model = Model(p, 1, a)
            bound = alpha_0(model)
            for N in (10**3, 10**10):
                cell = opened.sel(p=p, p_star=1, a=a, alpha=1.2, N=N, seed=0)
                found = {
                    name: cell[name].item()
                    for name in ("alpha_bbp_at_size", "crossover_size", "overlap_sq_jump")
                }
                assert found["alpha_bbp_at_size"] == alpha_bbp_at_size(model, N)
                assert found["crossover_size"] == crossover_size(model)
                assert found["overlap_sq_jump"] == transition(model).overlap_sq_jump
                law = lowest_eigenvalue_law(model, 1.2, N)
                assert cell["eigval_min_law"].item() == pytest.approx(law.mean, rel=1e-12)
                assert cell["eigval_min_sd_law"].item() == pytest.approx(law.sd, rel=1e-12)
                overlap_sq = mean_overlap_sq(model, 1.2, N)
                assert cell["overlap_sq_space_law"].item() == pytest.approx(overlap_sq, rel=1e-12)
                for name in ("principal_value", "tangent", "complex_re", "complex_im"):
                    value = getattr(bound, name)
                    assert cell[f"alpha_0_{name}"].item() == pytest.approx(value, rel=1e-14, nan_ok=True)


def test_the_threshold_at_a_size_lies_between_alpha_0_and_that_of_the_root(opened: xr.Dataset) -> None:
    at_size = opened["alpha_bbp_at_size"].isel(seed=0, alpha=0)
    assert (at_size <= opened["alpha_bbp"] * (1 + 1e-13)).all()
    climbs = at_size.isel(N=1) > at_size.isel(N=0)
    assert (climbs == (opened["transition"] == 1)).sel(p=1).all()
    continuous = opened["alpha_bbp"].sel(a=0.5, p=1).values
    assert at_size.sel(a=0.5, p=1).values == pytest.approx(continuous.repeat(2)[None], rel=1e-13)


def test_seeds_of_a_point_agree_and_nothing_hides_the_theory_of_the_root(opened: xr.Dataset) -> None:
    names = {variable.name for variable in load_kernel("theory").variables}
    assert not names & {v.name for reference in REFERENCES for v in reference.variables}
    assert names < set(opened.data_vars)
    for name in names:
        values = opened[name].transpose("seed", ...).values
        assert np.array_equal(values[0], values[1], equal_nan=True)
    assert math.isinf(opened["crossover_size"].sel(p=1, a=0.5).values.max())
