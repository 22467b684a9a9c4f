"""The law of the approach of the lowest eigenvalue to the edge is identified where it was planted, rarely
wrongly, and left open if the data are insufficient."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import xarray as xr
from scipy.optimize import curve_fit
from scipy.stats import binom

import campaigns
from bendscape.analysis.estimate.edge_fits import (
    LAWS,
    OUTCOMES,
    chosen_law,
    fit_law,
    mean_error,
    median_error,
    widened,
)
from bendscape.analysis.estimate.edge_scaling import edge_scaling as scaling
from bendscape.analysis.estimate.laws import lowest_eigenvalue_law  # each point once
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.control_variate import controlled_mean, label_controls
from bendscape.core.quadratic.sampling.drawn_labels import sample_drawn_labels
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.core.quadratic.theory.outlier import alpha_0, transition

MODEL = Model(1, 1, 0.7)
ALPHA = np.linspace(0.6, 0.8, 200) * transition(MODEL).alpha_bbp
NINE = dict.fromkeys((100, 178, 316, 562, 1000, 1778, 3162, 5623, 10000), 40)
FOUR = dict.fromkeys((128, 256, 512, 1024), 20)
AMPLITUDE = {"n_two_thirds": 5.0, "one_over_log": 0.15}


def edge_scaling(ds: xr.Dataset, **options: Any) -> xr.Dataset:
    """With sizes from 100 on, as planted laws have no corrections."""
    return scaling(ds, **{"least_size": 100} | options)


def planted(law: str, c: float, seeds: dict[int, int] = NINE, **options: Any) -> xr.Dataset:
    options = {"alpha": ALPHA, "noise": 1.25, "realised": False} | options
    return synthetic.approaching_edge(MODEL, seeds, lambda N: c * LAWS[law](N), **options)


def told(found: xr.Dataset) -> Counter[str]:
    return Counter(tuple(OUTCOMES)[code] for code in found["law"].values.ravel())


@pytest.fixture(scope="module")
def sweeps() -> dict[str, xr.Dataset]:
    return {law: planted(law, c) for law, c in AMPLITUDE.items()}


@pytest.fixture(scope="module")
def found(sweeps: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    return {law: edge_scaling(sweep, prediction=False).compute() for law, sweep in sweeps.items()}


@pytest.mark.parametrize("law", LAWS)
def test_the_planted_edge_law_is_chosen_in_nine_of_ten_sweeps_and_the_wrong_one_in_at_most_one_of_a_hundred(
    found: dict[str, xr.Dataset], law: str
) -> None:
    """200 sweeps of nine sizes with 40 seeds; the rates of a long run are in docs/analysis.md."""
    outcomes = told(found[law])
    (other,) = set(LAWS) - {law}
    assert outcomes[law] >= 180
    assert outcomes[other] <= binom.isf(1e-3, 200, 0.01)
    assert outcomes["neither"] <= binom.isf(1e-3, 200, 0.02)


@pytest.mark.parametrize("law", LAWS)
def test_if_the_distance_is_lost_in_the_noise_the_answer_is_cannot_tell(law: str) -> None:
    outcomes = told(
        edge_scaling(planted(law, 0.2 * AMPLITUDE[law], FOUR, noise=2.5), prediction=False).compute()
    )
    assert outcomes["cannot_tell"] >= 180
    assert outcomes["n_two_thirds"] + outcomes["one_over_log"] <= binom.isf(1e-3, 200, 0.03)


def test_with_known_errors_the_wrong_law_is_chosen_at_most_at_the_stated_rate() -> None:
    """At 10 per cent and the amplitude where it happens most often, 2000 draws an amplitude."""
    rng = np.random.default_rng(3)
    N = np.geomspace(128, 8192, 7)
    error = 0.2 * N**-0.5
    worst = 0.0
    for c in (0.0, 0.5, 1.0, 2.0, 4.0):
        wrong = 0
        for noise in error * rng.standard_normal((500, len(N))):
            gap = c * N ** (-2 / 3) + noise
            wrong += (
                chosen_law({law: fit_law(law, N, gap, error) for law in LAWS}, 0.1, 1e-6) == "one_over_log"
            )
        worst = max(worst, wrong / 500)
    assert 0.01 < worst <= 0.1


def test_a_distance_that_does_not_fall_at_all_is_neither_law() -> None:
    assert (
        told(edge_scaling(planted("n_two_thirds", 0.0, alpha=ALPHA[:20]), prediction=False).compute())[
            "neither"
        ]
        <= 2
    )
    stuck = synthetic.approaching_edge(MODEL, NINE, lambda N: 0.5 + 0 * N, alpha=ALPHA[:20], noise=1.25)
    assert told(edge_scaling(stuck, prediction=False).compute()) == {"neither": 20}
    below = planted("n_two_thirds", -5.0, alpha=ALPHA[:20])
    assert told(edge_scaling(below, prediction=False).compute())["neither"] >= 18


def test_a_fit_is_that_of_weighted_least_squares() -> None:
    rng = np.random.default_rng(0)
    N = np.array([100.0, 300, 1000, 5000])
    error = rng.uniform(0.01, 0.1, 4)
    gap = 3 * N ** (-2 / 3) + error * rng.standard_normal(4)
    for name, law in LAWS.items():
        for free in (False, True):
            fit = fit_law(name, N, gap, error, free)
            expected, covariance = curve_fit(
                (lambda N, c, s: c * law(N) + s) if free else (lambda N, c: c * law(N)),  # noqa: B023
                N,
                gap,
                sigma=error,
                absolute_sigma=True,
            )
            assert [fit.c, fit.shift][: 1 + free] == pytest.approx(expected, rel=1e-5)
            errors = np.sqrt(np.diag(covariance))
            assert [fit.c_error, fit.shift_error][: 1 + free] == pytest.approx(errors, rel=1e-5)


def test_errors_of_mean_and_median_are_those_of_many_resamplings() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_exponential(31)
    resampled = values[rng.integers(31, size=(40000, 31))]
    assert median_error(values) == pytest.approx(np.median(resampled, axis=1).std(), rel=0.03)
    assert mean_error(values) == pytest.approx(resampled.mean(axis=1).std() * np.sqrt(31 / 30), rel=0.03)
    few = rng.standard_normal((20000, 8))
    t = few.mean(axis=1) / np.array([widened(mean_error(row), 7) for row in few])
    assert t.std() == pytest.approx(1.0, rel=0.03)


def test_intervals_of_the_amplitude_have_their_nominal_coverage(found: dict[str, xr.Dataset]) -> None:
    for law, c in AMPLITUDE.items():
        at = found[law]
        inside = (at[f"{law}_c_low"] < c) & (c < at[f"{law}_c_high"])
        assert binom.ppf(1e-3, 200, 0.95) <= int(inside.sum()) <= 200
        assert float(at[f"{law}_p_value"].mean()) == pytest.approx(0.5, abs=0.1)
        assert (at["dof"] == 8).all()
        assert (at["delta_chi2"] == at["one_over_log_chi2"] - at["n_two_thirds_chi2"]).all()


def test_medians_are_fitted_like_means(sweeps: dict[str, xr.Dataset]) -> None:
    sweep = sweeps["n_two_thirds"].isel(alpha=slice(0, 40))
    at = edge_scaling(sweep, statistic="median", prediction=False).compute()
    np.testing.assert_allclose(
        at["median"].values[0, 0, 0], np.median(sweep["eigval_min"].values[0, 0, 0], axis=-1), rtol=1e-14
    )
    outcomes = told(at)
    assert outcomes["n_two_thirds"] >= 20
    assert outcomes["one_over_log"] <= 2
    few = edge_scaling(sweep.isel(alpha=slice(0, 2)), statistic="median").compute()
    assert few["prediction"].notnull().any()
    assert few["prediction_chi2"].isnull().all()


def test_alphas_at_or_above_the_threshold_have_means_but_no_fit() -> None:
    model = Model(1, 1, 1.5)
    window, bbp = alpha_0(model).principal_value, transition(model).alpha_bbp
    alpha = np.array([0.8 * window, 0.5 * (window + bbp), 1.1 * bbp])
    sweep = synthetic.approaching_edge(model, FOUR, lambda N: N ** (-2 / 3), alpha=alpha)
    at = edge_scaling(sweep).compute().squeeze()
    names = [tuple(OUTCOMES)[code] for code in at["law"].values]
    assert names[0] != "not_applicable"
    assert at["edge"].values.tolist() == sweep["edge"].values.ravel().tolist()
    assert names[1:] == ["not_applicable", "not_applicable"]
    assert np.isfinite(at["mean"].values).all()
    assert np.isnan(at["n_two_thirds_c"].values).tolist() == [False, True, True]
    assert np.isnan(at["prediction"].values[1:]).all()


def test_too_few_sizes_or_seeds_are_not_enough_and_small_sizes_can_be_left_out() -> None:
    sweep = planted("n_two_thirds", 5.0, FOUR, alpha=ALPHA[:3])
    assert told(edge_scaling(sweep.isel(N=slice(2)), prediction=False).compute()) == {"not_enough_data": 3}
    assert told(edge_scaling(sweep.isel(seed=slice(5)), prediction=False).compute()) == {"not_enough_data": 3}
    assert told(edge_scaling(sweep, prediction=False, least_size=500).compute()) == {"not_enough_data": 3}
    assert told(edge_scaling(sweep, prediction=False, least_size=5000).compute()) == {"not_enough_data": 3}
    at = edge_scaling(sweep, prediction=False, least_size=200).compute()
    assert (at["n_sizes"] == 3).all()
    alone = edge_scaling(sweep.isel(N=slice(1, 4)), prediction=False).compute()
    xr.testing.assert_identical(at["n_two_thirds_c"], alone["n_two_thirds_c"])


def test_the_edge_is_that_of_the_realised_alpha_and_data_on_the_law_agree_with_the_prediction() -> None:
    """p-values of 20 sweeps planted on the law's mean, N = 60 where M / N is up to 0.008 off alpha."""
    seeds = dict.fromkeys((60, 130, 290), 30)
    alpha = ALPHA[::10]
    sweep = synthetic.approaching_edge(MODEL, seeds, lambda N: 0 * N, alpha=alpha, noise=1.25)
    for i, k in np.ndindex(len(alpha), 3):
        load, N = float(sweep["alpha_realised"][0, 0, 0, i, k, 0]), int(sweep["N"][k])
        law = lowest_eigenvalue_law(MODEL, load, N).mean
        edge = float(edge_at(load))
        sweep["eigval_min"][0, 0, 0, i, k] += law - edge
    at = edge_scaling(sweep, least_size=50).compute().squeeze()
    assert float(at["prediction_p_value"].mean()) == pytest.approx(0.5, abs=0.2)
    assert float(at["lambda_minus"][0, 0]) == edge_at(float(sweep["alpha_realised"][0, 0, 0, 0, 0, 0]))
    off = edge_scaling(sweep.drop_vars("alpha_realised"), least_size=50, prediction=False).compute().squeeze()
    assert not np.array_equal(off["lambda_minus"].values, at["lambda_minus"].values)


def edge_at(alpha: float) -> float:
    from bendscape.core.quadratic.theory.bulk import left_edge

    return left_edge(MODEL, alpha).lambda_minus


@pytest.fixture(scope="module")
def sampled() -> xr.Dataset:
    """Diagonalised Hessians of three small sizes."""
    counts, alpha = {32: 40, 48: 40, 72: 40}, 0.7 * transition(MODEL).alpha_bbp
    ds = synthetic.frame((1,), (1,), (0.7,), counts, alpha=[alpha])
    for k, N in enumerate(counts):
        for i in range(counts[N]):
            cell = observe(MODEL, alpha, N, np.random.default_rng((5, N, i)), "dense")
            for name in ("eigval_min", "edge_sample", "outlier_sample", "alpha_realised"):
                ds[name].values[0, 0, 0, 0, k, i] = getattr(cell, name)
            ds["status"].values[0, 0, 0, 0, k, i] = 1
    return synthetic.with_coverage(ds)


def test_the_control_variate_reduces_the_error_and_agrees_with_core(sampled: xr.Dataset) -> None:
    at = edge_scaling(sampled, least_size=30, extra_draws=6, seed=2).compute().squeeze()
    assert at.attrs["statistic"] == "controlled"
    assert (at["variance_ratio"] > 1.3).all()
    assert (at["controlled_error"] < at["mean_error"]).all()
    assert (abs(at["controlled"] - at["mean"]) < 4 * at["mean_error"]).all()
    cells, load = sampled.isel(N=1).squeeze(), float(at["N"][1])
    M = round(float(cells["alpha_realised"][0]) * 48)
    rng = np.random.default_rng([2, 48, M, 1, 1, int(np.float64(0.7).view(np.uint64))])
    drawn = label_controls(sample_drawn_labels(MODEL, M / 48, 48, rng) for _ in range(240))
    own = np.fmin(cells["edge_sample"].values, cells["outlier_sample"].values)
    expected = controlled_mean(cells["eigval_min"].values, own, extra=drawn[:, 0])
    assert load == 48
    assert float(at["controlled"][1]) == expected.mean
    assert float(at["controlled_error"][1]) == expected.error
    again = edge_scaling(sampled.isel(N=[1]), least_size=30, extra_draws=6, seed=2).compute().squeeze()
    assert float(again["controlled"]) == expected.mean
    without = (
        edge_scaling(sampled, least_size=30, extra_draws=6, seed=2, statistic="mean").compute().squeeze()
    )
    np.testing.assert_array_equal(without["controlled"].values, at["controlled"].values)
    assert float(without["n_two_thirds_c_error"]) > float(at["n_two_thirds_c_error"])


def test_a_fitted_edge_finds_a_planted_shift_and_warns() -> None:
    sweep = synthetic.approaching_edge(
        MODEL, NINE, lambda N: 0.1 + 5 * N ** (-2 / 3), alpha=ALPHA[:20], noise=1.25, realised=False
    )
    at = edge_scaling(sweep, free_edge=True, prediction=False).compute()
    off = (at["n_two_thirds_shift"] - 0.1) / at["n_two_thirds_shift_error"]
    assert (abs(off) < 4.5).all()
    assert (at["dof"] == 7).all()
    assert "a wrong edge makes up for a wrong law" in at.attrs["warning"]
    assert "warning" not in edge_scaling(sweep.isel(alpha=[0])).attrs


def test_a_partial_sweep_gives_partial_results_and_their_coverage() -> None:
    whole = planted("n_two_thirds", 5.0, dict.fromkeys((128, 256, 512, 1024, 2048), 12), alpha=ALPHA[:4])
    partial = whole.copy(deep=True)
    partial["status"].values[0, 0, 0, 0, 4] = 0  # a size not yet computed
    partial["status"].values[0, 0, 0, 1, 4, 4:] = 0  # one with too few seeds for a fit
    partial["status"].values[0, 0, 0, 2] = 0  # an alpha without any
    partial["status"].values[0, 0, 0, 3, 0, 0] = 2  # one failed cell
    partial["eigval_min"] = partial["eigval_min"].where(partial["status"] == 1)
    at = edge_scaling(synthetic.with_coverage(partial), prediction=False).compute().squeeze()
    full = edge_scaling(whole, prediction=False).compute().squeeze()
    assert at["n_sizes"].values.tolist() == [4, 4, 0, 5]
    assert at["n_seeds"].values[:, 4].tolist() == [0, 4, 0, 12]
    np.testing.assert_allclose(at["coverage"].values[1], [1, 1, 1, 1, 1 / 3])
    assert tuple(OUTCOMES)[int(at["law"][2])] == "not_enough_data"
    np.testing.assert_array_equal(at["mean"].values[0, :4], full["mean"].values[0, :4])
    assert np.isfinite(at["mean"].values[1, 4])
    assert at["n_seeds"].values[3, 0] == 11
    smaller = edge_scaling(whole.isel(N=slice(4)), prediction=False).compute().squeeze()
    assert float(at["n_two_thirds_c"][0]) == float(smaller["n_two_thirds_c"][0])


def test_a_result_is_lazy_and_survives_a_round_trip_through_zarr(tmp_path: Path) -> None:
    sweep = synthetic.planted(
        p=(1, 2), a=(0.6, 0.7), seeds=dict.fromkeys((64, 128, 256), 8), alpha_factor=[0.8, 1.2]
    )
    lazy = edge_scaling(sweep.chunk(p=1, a=1), least_size=64)
    assert all(variable.chunks for variable in lazy.data_vars.values())
    result = lazy.compute()
    for name, dataset in (("lazy", lazy), ("result", result)):
        dataset.to_zarr(tmp_path / name, zarr_format=3, consolidated=False)
        again = xr.open_zarr(tmp_path / name, consolidated=False).load()
        xr.testing.assert_identical(again, result)
    assert result["law"].dims == ("p", "p_star", "a", "alpha_factor")
    assert result["law"].attrs["flag_meanings"].split() == list(OUTCOMES)
    xr.testing.assert_identical(edge_scaling(sweep, least_size=64).compute(), result)


def test_a_store_of_sampled_hessians_is_analysed_as_it_was_opened(tmp_path: Path) -> None:
    text = campaigns.campaign_text(p=[1], a=[0.6, 0.7], alpha=[0.8, 2.0], N=[24, 36, 48], seeds=8)
    campaign = campaigns.parse_campaign(text.replace('kernel = "probe"', 'kernel = "hessian"'))
    campaigns.run(tmp_path / "s.zarr", "", campaign)
    ds = xr.open_dataset(tmp_path / "s.zarr", engine="bendscape", chunks={})
    options: dict[str, Any] = {"least_size": 20, "extra_draws": 2}
    at = edge_scaling(ds, **options).compute()
    assert (at["coverage"] == 1).all()
    assert (at["n_seeds"] == 8).all()
    assert (at["n_sizes"].sel(alpha=0.8) == 3).all()
    assert set(told(at.sel(alpha=[2.0]))) == {"not_applicable"}
    assert np.isfinite(at["n_two_thirds_c"].sel(alpha=0.8)).all()
    assert np.isfinite(at["controlled"].sel(alpha=0.8)).all()
    xr.testing.assert_identical(at, edge_scaling(ds.load(), **options).compute())


@pytest.mark.parametrize(
    "options",
    [
        {"statistic": "mode"},
        {"extra_draws": -1},
        {"extra_draws": 0, "statistic": "controlled"},
        {"least_size": 1},
        {"wrong": 0.0},
        {"misfit": 0.7},
        {"level": 95.0},
        {"seed": -1},
    ],
)
def test_options_out_of_range_are_refused_by_name(
    sweeps: dict[str, xr.Dataset], options: dict[str, Any]
) -> None:
    with pytest.raises(ParameterError, match=next(iter(options))):
        edge_scaling(sweeps["n_two_thirds"], **options)
