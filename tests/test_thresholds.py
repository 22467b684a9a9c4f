"""Thresholds are found where they were planted, with correct intervals; otherwise the reason is given."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import synthetic
import xarray as xr
from rich.console import Console
from threadpoolctl import threadpool_limits

from bendscape.analysis.dataset.curves import local_smoother, resampled_means, resampling_counts, sign_change
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.estimators import ESTIMATORS, FLAGS, cells_by_size
from bendscape.analysis.estimate.notation import compact, with_error
from bendscape.analysis.estimate.thresholds import (
    render_thresholds,
    thresholds,
    thresholds_table,
)
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.branch import principal_value_end
from bendscape.core.quadratic.theory.bulk import left_edge, spectral_map
from bendscape.core.quadratic.theory.outlier import alpha_0, outlier, transition

PLANTED = {
    "overlap_crossing": 1.15,
    "gap_crossing": 1.35,
    "gap_sample_crossing": 1.25,
}
TARGET = {
    "alpha_overlap": 1.15,
    "alpha_pair": 1.15,
    "alpha_gap": 1.35,
    "alpha_gap_sample": 1.25,
}


def flag(result: xr.Dataset, name: str, **at: int) -> str:
    return tuple(FLAGS)[int(result[f"{name}_flag"].isel(at).item())]


@pytest.fixture(scope="module")
def planted() -> xr.Dataset:
    return synthetic.planted(seeds={128: 300, 4096: 200}, **PLANTED)


@pytest.fixture(scope="module")
def found(planted: xr.Dataset) -> xr.Dataset:
    return thresholds(planted)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_planted_crossing_lies_within_five_standard_errors_of_its_estimate(
    found: xr.Dataset, name: str
) -> None:
    for k in range(1 if name == "alpha_pair" else 2):
        at = found.isel(p=0, p_star=0, a=0, N=k)
        value, error, low, high = (at[f"{name}{part}"].item() for part in ("", "_error", "_low", "_high"))
        assert abs(value - TARGET[name]) < 5 * error
        assert error < 0.05
        assert low < value < high
        assert high - low == pytest.approx(2 * 1.96 * error, rel=0.25)


def test_every_size_has_its_own_estimate_and_the_largest_has_no_pair(found: xr.Dataset) -> None:
    assert found["alpha_overlap"].dims == ("p", "p_star", "a", "N")
    assert np.isfinite(found["alpha_overlap"].values).all()
    assert flag(found, "alpha_pair", p=0, p_star=0, a=0, N=1) == "no_larger_size"
    assert found["n_seeds"].values.ravel().tolist() == [300, 200]
    assert found["n_cells"].values.ravel().tolist() == [300 * 21, 200 * 21]
    assert found["alpha_overlap"].attrs["definition"] == ESTIMATORS["alpha_overlap"]


def test_absolute_alpha_gives_the_same_answer_as_the_factor_that_stands_for_it() -> None:
    factor = synthetic.planted(seeds={128: 50}, **PLANTED)
    loads = factor["alpha"].values.ravel()
    absolute = synthetic.planted(seeds={128: 50}, alpha=loads, **PLANTED)
    by_factor, by_load = thresholds(factor), thresholds(absolute)
    assert "alpha_factor" in factor.dims
    assert "alpha_factor" not in absolute.dims
    for name in ("alpha_overlap", "alpha_gap", "alpha_gap_sample"):
        np.testing.assert_allclose(by_factor[name], by_load[name], rtol=1e-9)
        np.testing.assert_allclose(by_factor[f"{name}_high"], by_load[f"{name}_high"], rtol=1e-9)


def test_the_smoothing_narrows_with_the_size_so_a_wide_range_is_harmless() -> None:
    sweep = synthetic.planted(seeds={10**6: 40}, alpha=np.linspace(0.6, 4.0, 69), **PLANTED)
    assert thresholds(sweep)["alpha_overlap"].item() == pytest.approx(1.15, abs=0.02)


def test_absent_failed_and_unconverged_seeds_are_left_out(planted: xr.Dataset) -> None:
    clean = planted.isel(seed=slice(0, 60))
    spoiled = clean.copy(deep=True)
    for place, status in ((3, 0), (4, 2), (5, 3)):
        spoiled["status"][..., place] = status
        for name in ("overlap_sq_space", "eigval_min", "edge_sample"):
            spoiled[name][..., place] = math.nan if status < 3 else 1e6
    kept = clean.isel(seed=[k for k in range(60) if k not in (3, 4, 5)])
    expected, got = thresholds(kept), thresholds(spoiled)
    for name in ESTIMATORS:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-12)
    assert got["n_seeds"].values.ravel().tolist() == [57, 57]


def test_a_half_filled_sweep_gives_partial_results() -> None:
    sweep = synthetic.planted(seeds={128: 60, 512: 60, 2048: 60}, **PLANTED)
    sweep["status"].values[0, 0, 0, ::2, 0, :] = 0  # every other alpha missing
    sweep["status"].values[0, 0, 0, :, 1, 3:] = 0  # three seeds of sixty: too few
    result = thresholds(sweep)
    assert result["alpha_overlap"][0, 0, 0, 0].item() == pytest.approx(1.15, abs=0.15)
    assert flag(result, "alpha_overlap", p=0, p_star=0, a=0, N=1) == "not_enough_data"
    assert math.isnan(result["alpha_overlap"][0, 0, 0, 1].item())
    assert (
        flag(result, "alpha_pair", p=0, p_star=0, a=0, N=0) == "estimated"
    )  # the pair skips the size without data
    assert flag(result, "alpha_overlap", p=0, p_star=0, a=0, N=2) == "estimated"


def test_the_range_of_a_threshold_is_that_of_the_alphas_that_were_used() -> None:
    """Above 0.9 nothing is measured, or with too few seeds: the table must not say > 3.00."""
    sweep = synthetic.planted(
        alpha=np.linspace(0.1, 3.0, 30), seeds={1024: 40, 4096: 40}, overlap_crossing=5.0, gap_crossing=5.0
    )
    sweep["status"].values[0, 0, 0, 9:, 0, :] = 0  # where = "alpha < 0.95", or a store being filled
    sweep["status"].values[0, 0, 0, 20:, 1, 3:] = 0  # three seeds of forty from 2.1 on
    sweep["status"].values[0, 0, 0, :2, 1, :] = 0  # the larger size starts at 0.3
    result = thresholds(sweep)
    rows = thresholds_table(result)
    used = {"alpha_overlap": [(0.1, 0.9), (0.3, 2.0)], "alpha_gap": [(0.1, 0.9), (0.3, 2.0)]}
    for name, spans in used.items():
        assert result[f"{name}_last"].dims == ("p", "p_star", "a", "N")
        for row, (first, last) in zip(rows, spans, strict=True):
            assert (row[name]["first"], row[name]["last"]) == pytest.approx((first, last), abs=0.01)
            assert row[name]["flag"] == "above_the_alpha_range"
    assert [compact(row["alpha_gap"]) for row in rows] == ["> 0.90", "> 2.00"]
    pair = rows[0]["alpha_pair"]
    assert (pair["first"], pair["last"]) == pytest.approx((0.3, 0.9), abs=0.01)
    assert math.isnan(rows[1]["alpha_pair"]["last"])
    text = io.StringIO()
    Console(file=text, width=100).print(render_thresholds(result))
    assert "> 3.00" not in text.getvalue()
    assert "> 2.00" in text.getvalue()


def test_a_threshold_is_read_off_at_the_realised_alpha() -> None:
    """The same cells with every M / N larger by 0.05, and the edges of the larger load."""
    sweep = synthetic.planted(alpha=np.linspace(0.6, 2.0, 15), seeds={128: 60, 4096: 60}, **PLANTED)
    shifted = sweep.copy(deep=True).assign(alpha_realised=sweep["alpha_realised"] + 0.05)
    for k in range(2):
        for i, load in enumerate(sweep["alpha_realised"].values[0, 0, 0, :, k, 0]):
            edges = [left_edge(Model(1, 1, 0.7), x).lambda_minus for x in (load, load + 0.05)]
            for name in ("eigval_min", "edge_sample"):
                shifted[name].values[0, 0, 0, i, k] += edges[1] - edges[0]
    before, after = thresholds(sweep), thresholds(shifted)
    for name in ESTIMATORS:
        for part, tolerance in (("", 1e-4), ("_last", 1e-9)):
            moved = (after[f"{name}{part}"] - before[f"{name}{part}"]).values.ravel()
            assert moved[0] == pytest.approx(0.05, abs=tolerance), name
    plain = thresholds(sweep.drop_vars("alpha_realised"))
    assert plain["alpha_gap_last"].values.ravel().tolist() == [2.0, 2.0]


def test_two_alphas_with_the_same_number_of_samples_are_harmless() -> None:
    sweep = synthetic.planted(alpha=np.linspace(0.6, 2.0, 60), seeds={16: 40}, **PLANTED)
    assert len(np.unique(sweep["alpha_realised"].values)) < 30
    result = thresholds(sweep)
    assert abs(result["alpha_overlap"].item() - 1.15) < 5 * result["alpha_overlap_error"].item()


def test_a_bound_is_rounded_to_the_safe_side() -> None:
    bound = {"value": math.nan, "first": 0.7449, "last": 0.9467}
    assert compact(bound | {"flag": "above_the_alpha_range"}) == "> 0.94"
    assert compact(bound | {"flag": "below_the_alpha_range"}) == "< 0.75"
    assert compact(bound | {"last": 0.9, "flag": "above_the_alpha_range"}) == "> 0.90"


def test_a_model_that_the_campaign_leaves_out_is_flagged_and_not_listed() -> None:
    sweep = synthetic.planted(a=(0.7, 1.5), seeds={128: 20})
    sweep["status"].values[:, :, 1] = 0
    result = thresholds(sweep)
    assert flag(result, "alpha_gap", p=0, p_star=0, a=1, N=0) == "not_enough_data"
    assert {row["a"] for row in thresholds_table(result)} == {0.7}


@pytest.mark.parametrize(
    ("crossing", "expected"), [(9.0, "above_the_alpha_range"), (-9.0, "below_the_alpha_range")]
)
def test_no_crossing_within_the_range_says_on_which_side_the_threshold_lies(
    crossing: float, expected: str
) -> None:
    sweep = synthetic.planted(seeds={4096: 30}, gap_crossing=crossing, gap_sample_crossing=crossing)
    result = thresholds(sweep)
    for name in ("alpha_gap", "alpha_gap_sample"):
        assert flag(result, name, p=0, p_star=0, a=0, N=0) == expected
        assert math.isnan(result[name].item())
        assert math.isnan(result[f"{name}_low"].item())


def test_an_interval_that_leaves_the_range_is_open_and_says_so() -> None:
    last = 1.6 * transition(Model(1, 1, 0.7)).alpha_bbp
    result = thresholds(synthetic.planted(seeds={128: 30}, gap_crossing=last - 0.01, entropy=3))
    assert flag(result, "alpha_gap", p=0, p_star=0, a=0, N=0) == "interval_leaves_the_alpha_range"
    assert math.isnan(result["alpha_gap_high"].item())
    assert result["alpha_gap_low"].item() < result["alpha_gap"].item() < last


def test_a_model_without_a_principal_value_has_no_overlap_level() -> None:
    result = thresholds(synthetic.planted(p=(4,), a=(1.5,), seeds={128: 20, 256: 20}))
    assert flag(result, "alpha_overlap", p=0, p_star=0, a=0, N=0) == "no_overlap_level_known"
    assert flag(result, "alpha_pair", p=0, p_star=0, a=0, N=0) != "no_overlap_level_known"


def test_the_interval_of_a_size_depends_only_on_its_cells(planted: xr.Dataset) -> None:
    sweep = planted.isel(seed=slice(0, 40))
    alone, both = thresholds(sweep.isel(N=[1])), thresholds(sweep)
    assert alone["alpha_overlap_low"].item() == both["alpha_overlap_low"][..., 1].item()


def test_a_lazy_dataset_is_read_one_model_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = synthetic.planted(p=(1, 2), a=(0.7, 1.5), seeds={128: 20}).chunk(p=1, p_star=1, a=1)
    loaded: list[int] = []

    def counting(block: xr.Dataset, *rest: Any) -> Any:
        loaded.append(block["overlap_sq_space"].size)
        return cells_by_size(block, *rest)

    monkeypatch.setattr("bendscape.analysis.estimate.thresholds.cells_by_size", counting)
    lazy = thresholds(sweep)
    assert not loaded
    assert all(variable.chunks for variable in lazy.data_vars.values())
    result = lazy.compute(scheduler="synchronous")
    assert loaded == [21 * 20] * 4
    monkeypatch.undo()
    xr.testing.assert_identical(result, thresholds(sweep.compute()))


@pytest.mark.parametrize("options", [{"level": 95.0}, {"level": 0.0}])
def test_options_out_of_range_are_refused_by_name(planted: xr.Dataset, options: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(options))):
        thresholds(planted, **options)  # type: ignore[arg-type]


def test_a_dataset_of_another_kernel_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(ParameterError, match="overlap_sq_space"):
        thresholds(synthetic.planted(seeds={128: 4}).drop_vars("overlap_sq_space"))


@pytest.mark.filterwarnings("ignore::bendscape.core.errors.PrecisionWarning")  # close to the threshold
@pytest.mark.parametrize("parameters", [(1, 1, 0.7), (2, 1, 0.7), (2, 2, 0.5), (1, 1, 0.05)])
def test_the_critical_point_of_a_continuous_transition_agrees_with_the_asymptotic_theory(
    parameters: tuple[int, int, float],
) -> None:
    """amplitude and width from their own routes: curvature of the map, and edge and outlier just above
    alpha_bbp."""
    model = Model(*parameters)
    at, critical = transition(model), critical_point(model)
    assert critical.alpha == pytest.approx(at.alpha_bbp, rel=1e-12)
    step = 1e-4 * critical.alpha
    slope = outlier(model, critical.alpha + step).overlap_sq / step
    above = outlier(model, critical.alpha + 10 * step)
    gap = left_edge(model, critical.alpha + 10 * step).lambda_minus - above.lambda_star
    g, dg = -model.p * at.gamma / 2, 1e-3 * (1 - at.gamma)
    around = [spectral_map(model, at.alpha_bbp, g + shift) for shift in (-dg, 0.0, dg)]
    z_second = abs(around[0] - 2 * around[1] + around[2]) / dg**2
    edge_width = (2 * model.p**2 / z_second) ** (-1 / 3)  # (C p)^(-2/3), C = sqrt(2/|z''|)
    assert critical.width == pytest.approx(10 * step * math.sqrt(edge_width / gap), rel=0.02)
    assert critical.amplitude == pytest.approx(critical.width * slope / 2, rel=0.01)


@pytest.mark.parametrize("parameters", [(1, 1, 1.5), (2, 1, 1.5), (4, 2, 1.5), (3, 1, 0.7)])
def test_the_critical_point_of_a_discontinuous_transition_is_alpha_0(
    parameters: tuple[int, int, float],
) -> None:
    model = Model(*parameters)
    assert critical_point(model).alpha == pytest.approx(alpha_0(model).principal_value, rel=1e-9)
    assert 0.2 < critical_point(model).amplitude < 1


def test_the_amplitude_goes_through_the_tricritical_point_without_a_jump() -> None:
    below, above = critical_point(Model(1, 1, 1.1086)), critical_point(Model(1, 1, 1.1089))
    assert transition(Model(1, 1, 1.1086)).kind != transition(Model(1, 1, 1.1089)).kind
    assert above.amplitude == pytest.approx(below.amplitude, rel=1e-3)
    assert above.width == pytest.approx(below.width, rel=1e-3)


def test_there_is_no_critical_point_where_the_branch_has_no_zero_or_p_is_infinite() -> None:
    assert not principal_value_end(Model(4, 1, 1.5))[1]
    assert all(map(math.isnan, critical_point(Model(4, 1, 1.5))))
    assert all(map(math.isnan, critical_point(Model(math.inf, 1, 1.5))))


def sample_overlap(N: int, a: float, alpha: float, rng: np.random.Generator) -> float:
    """overlap_sq of the lowest eigenvector of the Hessian for p = p_star = 1, from the definition."""
    x = rng.standard_normal((round(alpha * N), N))
    w, teacher = rng.standard_normal((2, N))
    w, teacher = w / np.linalg.norm(w), teacher / np.linalg.norm(teacher)
    y, yhat = (x @ teacher) ** 2, (x @ w) ** 2
    vectors = np.linalg.eigh((x.T * (2 * (3 * yhat - y) / (a + y))) @ x / N)[1]
    return float((vectors[:, 0] @ teacher) ** 2)


@pytest.mark.parametrize("a", [0.7, 1.5])
def test_the_overlap_of_sampled_hessians_reaches_its_level_at_the_critical_point(a: float) -> None:
    """N = 64, 400 samples: the standard error is about 5 %, and 4 of them are allowed."""
    rng = np.random.default_rng(7)
    critical = critical_point(Model(1, 1, a))
    with threadpool_limits(1):  # threads only hinder matrices this small
        overlaps = [sample_overlap(64, a, critical.alpha, rng) for _ in range(400)]
    scaled = 64 ** (1 / 3) * np.array(overlaps)
    assert abs(scaled.mean() - critical.overlap_level) < 4 * scaled.std() / math.sqrt(400)


def test_the_smoother_reproduces_parabolas_and_its_rows_sum_to_one() -> None:
    x = np.sort(np.random.default_rng(0).uniform(0, 3, 12))
    grid = np.linspace(x[0], x[-1], 50)
    smoother = local_smoother(x, grid, 0.8, np.ones(12))
    np.testing.assert_allclose(smoother @ (1 + 2 * x - 3 * x**2), 1 + 2 * grid - 3 * grid**2, atol=1e-9)
    np.testing.assert_allclose(smoother.sum(axis=1), 1, atol=1e-12)
    line = local_smoother(x[:4], grid[:5], 0.8, np.ones(4))
    np.testing.assert_allclose(line @ (1 + 2 * x[:4]), 1 + 2 * grid[:5], atol=1e-9)


def test_a_sign_change_is_interpolated_and_noise_does_not_move_it_to_another_crossing() -> None:
    grid = np.linspace(0, 10, 101)
    wiggle = np.where((grid > 1) & (grid < 1.4), 0.5, 0.0)
    curves = np.array([grid - 3.14, grid - 3.14 + 5 * wiggle, grid + 1, grid - 11])
    np.testing.assert_allclose(sign_change(grid, curves), [3.14, 3.14, -np.inf, np.inf])


def test_resampled_means_are_the_means_of_the_drawn_seeds() -> None:
    rng = np.random.default_rng(1)
    values, done = rng.normal(size=(3, 8)), np.ones((3, 8), bool)
    values[1, 5], done[1, 5] = math.nan, False
    counts = resampling_counts(8, 20, rng)
    means = resampled_means(values, done, counts)
    np.testing.assert_allclose(means[0], [values[0].mean(), np.nanmean(values[1]), values[2].mean()])
    drawn = np.repeat(np.arange(8), counts[7].astype(int))
    np.testing.assert_allclose(means[7], np.nanmean(values[:, drawn], axis=1))
    assert counts.sum(axis=1).tolist() == [8] * 21


def test_the_table_has_one_row_a_model_and_size_with_numbers_flags_and_reasons(found: xr.Dataset) -> None:
    rows = thresholds_table(found)
    assert [row["N"] for row in rows] == [128, 4096]
    assert rows[0]["transition"] == "continuous"
    assert rows[0]["alpha_bbp"] == rows[0]["alpha_bbp_at_size"] == transition(Model(1, 1, 0.7)).alpha_bbp
    assert rows[0]["alpha_overlap"]["value"] == found["alpha_overlap"][0, 0, 0, 0].item()
    assert rows[1]["alpha_pair"]["flag"] == "no_larger_size"
    assert rows[1]["alpha_pair"]["reason"] == "no larger size to compare with"


def test_the_rendered_table_fits_one_hundred_columns_and_cuts_nothing_off() -> None:
    result = thresholds(synthetic.planted(p=(1, 12), a=(0.7, 1.5), seeds={128: 20, 100000: 10}))
    text = io.StringIO()
    Console(file=text, width=100).print(render_thresholds(result))
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in text.getvalue()
    for row in thresholds_table(result):
        assert f"{row['alpha_bbp']:.6f}" in text.getvalue()
        assert compact(row["alpha_gap"]) in text.getvalue()


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.2434, 0.0123, "1.243(12)"),
        (1.24, 0.0996, "1.240(100)"),
        (1.2, 0.31, "1.20(31)"),
        (1.9, math.nan, "1.90(?)"),
    ],
)
def test_a_value_carries_its_error_in_units_of_its_last_digit(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


def test_a_selection_that_no_analysis_can_read_is_refused_in_one_line(planted: xr.Dataset) -> None:
    for part, words in (
        (planted.isel(N=0, drop=True), "N among its dimensions"),
        (planted.isel(N=[]), "at least one value"),
        (planted.isel(p=[0, 0]), "no value occurs twice"),
        (planted.isel(N=slice(None, None, -1)), "increasing order"),
    ):
        with pytest.raises(ParameterError, match=words):
            thresholds(part)
