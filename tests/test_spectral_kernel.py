"""The `spectral` kernel through a real campaign: both weights on the same samples, beside their theory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from bendscape.core.quadratic.sampling.label_only import sample_spectral
from bendscape.core.quadratic.theory.label_only import (
    SpectralWeights,
    spectral_asymptotics,
    spectral_transition,
)
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.file import Campaign, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.kernels.label_only import KERNEL, WEIGHTS
from bendscape.sweep.kernels.quadratic import AXES
from campaigns import campaign_text, data_files, run

N, SEEDS = 256, 24


def campaign(**changes: object) -> Campaign:
    text = campaign_text(**{"p": [1], "p_star": [1, 2], "a": [0.7], "where": "alpha > 0", **changes})
    return parse_campaign(text.replace('kernel = "probe"', 'kernel = "spectral"'))


def weights_of(suffix: str, a: float) -> SpectralWeights:
    return {"hessian_limit": SpectralWeights.hessian_limit(a), "optimal": SpectralWeights.optimal()}[suffix]


def opened(store: Path) -> xr.Dataset:
    return xr.open_dataset(store, engine="bendscape", chunks={})


@pytest.fixture(scope="module")
def ds(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    store = tmp_path_factory.mktemp("spectral") / "spectral.zarr"
    summary = run(store, "", campaign(alpha=[0.2, 3.0], N=[N], seeds=SEEDS))
    assert (summary.outcome, summary.done) == ("complete", 2 * 2 * SEEDS)
    return opened(store).load()


def test_the_kernel_is_found_by_its_name() -> None:
    assert load_kernel("spectral").variables is KERNEL.variables
    assert set(WEIGHTS) == {weights_of(suffix, 0.7).kind for suffix in WEIGHTS}


@pytest.mark.parametrize("suffix", WEIGHTS)
def test_a_cell_holds_what_the_sampler_gives_for_its_stream(ds: xr.Dataset, suffix: str) -> None:
    cell = AXES.cell(p=1, p_star=2, a=0.7, alpha=3.0, N=N, seed=5)
    sample = sample_spectral(2, weights_of(suffix, 0.7), 3.0, N, cell_rng(7, cell))
    found = ds.sel(p=1, p_star=2, a=0.7, alpha=3.0, N=N, seed=5)
    for name in ("eigval_min", "eigval_second", "overlap_sq", "overlap_sq_space"):
        # 1e-10: eigenvalues may differ in the last bits between two runs of a threaded BLAS
        assert found[f"{name}_{suffix}"].item() == pytest.approx(getattr(sample, name), rel=1e-10)
    assert found["alpha_realised"].item() == sample.alpha_realised == 3.0


@pytest.mark.parametrize("suffix", WEIGHTS)
@pytest.mark.parametrize("p_star", [1, 2])
def test_means_over_seeds_agree_with_the_theory_attached(ds: xr.Dataset, p_star: int, suffix: str) -> None:
    """Means of 24 samples: 4 standard errors and a finite-size allowance of 1/N^(2/3) around theory.

    4 standard errors of a mean over 24 fail by chance for 6 seeds in 10^4, in each of eight comparisons: one
    entropy in 200. The allowance exceeds the shifts measured over 200 samples, 0.3 to 0.6 N^(-2/3).
    """
    cells = ds.sel(p=1, p_star=p_star, a=0.7, alpha=3.0, N=N)
    lowest = cells[f"eigval_min_{suffix}"]
    if p_star == 2:
        lowest = (lowest + cells[f"eigval_second_{suffix}"]) / 2
    pairs = {
        "lambda_star": lowest,
        "overlap_sq_theory": cells[f"overlap_sq_space_{suffix}"],
    }
    for name, sample in pairs.items():
        band = 4 * sample.std(ddof=1).item() / np.sqrt(SEEDS) + N ** (-2 / 3)
        assert sample.mean().item() == pytest.approx(cells[f"{name}_{suffix}"].item(), abs=band)


def test_the_optimal_weights_see_more_than_those_of_the_wide_hessian(ds: xr.Dataset) -> None:
    """On the same samples: the mean difference of the overlaps is over ten standard errors from 0."""
    above = ds.sel(alpha=3.0, p=1, a=0.7, N=N)
    gain = above["overlap_sq_space_optimal"] - above["overlap_sq_space_hessian_limit"]
    assert (gain.mean("seed") > 10 * gain.std("seed", ddof=1) / np.sqrt(SEEDS)).all()
    sizes = above["overlap_sq_space_optimal"].std("seed", ddof=1)
    assert (gain.std("seed", ddof=1) < sizes).all()  # paired, so that they vary together


@pytest.mark.parametrize("alpha", [[0.2, 3.0], '{ around = "alpha_bbp", values = [0.5, 2.0] }'])
def test_theory_of_each_point_is_attached_on_reading(tmp_path: Path, alpha: object) -> None:
    store = tmp_path / "s.zarr"
    run(store, "", campaign(alpha=alpha, N=[32], seeds=1, p=[1, 2]))
    ds = opened(store).load()
    dims = ("p", "p_star", "a", "alpha" if isinstance(alpha, list) else "alpha_factor")
    loads = ds["alpha"].broadcast_like(ds["lambda_minus"]).transpose(*dims).values
    assert np.unique(loads).size == (2 if isinstance(alpha, list) else 8)
    for suffix in WEIGHTS:
        weights = weights_of(suffix, 0.7)
        for j, p_star in enumerate((1, 2)):
            threshold = ds[f"alpha_bbp_{suffix}"].sel(p_star=p_star, a=0.7).item()
            assert threshold == spectral_transition(p_star, weights).alpha_bbp
            for i in range(2):
                for m in range(2):
                    point = spectral_asymptotics(p_star, weights, loads[i, j, 0, m])
                    fields = {"lambda_minus": "lambda_minus", "lambda_star": "lambda_star"}
                    for name, field in (fields | {"overlap_sq_theory": "overlap_sq"}).items():
                        found = ds[f"{name}_{suffix}"].transpose(*dims)[i, j, 0, m].item()
                        assert found == pytest.approx(getattr(point, field), rel=1e-15, nan_ok=True)
    assert ds["overlap_sq_theory_optimal"].attrs["units"] == "1"
    assert not {variable.name for variable in KERNEL.variables} - set(ds.data_vars)


def test_a_stopped_run_goes_on_to_the_same_store(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole.zarr", tmp_path / "halves.zarr"
    wanted = campaign(alpha=[1.0, 2.0], N=[32], seeds=6)
    assert run(whole, "", wanted).computed == 24
    assert run(halves, "", wanted, time_budget=1e-9).outcome == "stopped"
    assert run(halves, "", campaign(alpha=[1.0], N=[32], seeds=6)).computed == 12
    resumed = run(halves, "", wanted)
    assert (resumed.outcome, resumed.computed) == ("complete", 12)
    first, second = opened(whole).load(), opened(halves).load()
    for variable in KERNEL.variables:
        assert np.array_equal(first[variable.name], second[variable.name])
    assert run(whole, "", wanted).computed == 0
    assert data_files(whole)


def test_a_teacher_wider_than_the_input_fails_only_its_cell(tmp_path: Path) -> None:
    summary = run(tmp_path / "s.zarr", "", campaign(alpha=[1.0], N=[2], seeds=1))
    assert (summary.outcome, summary.done, summary.failed) == ("failed cells", 1, 1)


@pytest.mark.parametrize(("alpha", "p_star", "size"), [(0.3, 1, 512), (1.0, 4, 256), (4.0, 1, 256)])
def test_memory_stays_below_what_the_kernel_declares(alpha: float, p_star: int, size: int) -> None:
    cell = AXES.cell(p=1, p_star=p_star, a=0.7, alpha=alpha, N=size, seed=0)
    KERNEL.compute(cell, np.random.default_rng(0))  # quadrature and imports are not the cell's
    tracemalloc.start()
    try:
        KERNEL.compute(cell, np.random.default_rng(0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= KERNEL.peak_bytes(cell) <= 1.5 * peak


def test_declared_seconds_grow_with_size_and_load_and_not_with_the_width() -> None:
    cell = AXES.cell(p=1, p_star=1, a=0.7, alpha=1.0, N=256, seed=0)
    assert (
        KERNEL.seconds(cell)
        < KERNEL.seconds(cell._replace(alpha=2.0))
        < KERNEL.seconds(cell._replace(N=1024))
    )
    assert KERNEL.seconds(cell) == KERNEL.seconds(cell._replace(p=64))
    assert KERNEL.seconds(cell._replace(N=4096)) > 30 * KERNEL.seconds(cell._replace(N=1024))
