"""The collapse of all sizes finds the planted load, its error, and the definition that it supports."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import planted_collapse
import pytest
import synthetic
import xarray as xr
from scipy.integrate import quad
from scipy.stats import norm

from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.collapse_fits import CHOICES, ESTIMATORS, FLAGS, Settings
from bendscape.analysis.estimate.collapse_points import Points, lowest, scaled_points, universal_overlap
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.verdicts import (
    ANSWERS,
    DEFINITIONS,
    KINDS,
    SUPPORT,
    answer,
    kind_of,
    landmarks,
    log_odds_discontinuous,
    supported,
)
from bendscape.analysis.findings.results import Results
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.finite_size.spiked_edge import critical_overlap
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.core.quadratic.theory.branch import (
    load_on_branch,
    overlap_sq_on_branch,
    principal_value,
    principal_value_end,
)
from bendscape.core.quadratic.theory.outlier import outlier

CONTINUOUS, DISCONTINUOUS = Model(1, 1, 0.7), Model(1, 1, 1.5)
SIZES = {160: 200, 320: 200, 640: 200, 1280: 200}
COLLAPSES = ("collapse", "theory_curve", "crossing")


def word(meanings: object, code: xr.DataArray) -> str:
    return list(meanings)[int(code.item())]  # type: ignore[call-overload, no-any-return]


def at(result: xr.Dataset, estimator: str) -> xr.Dataset:
    return result.isel(p=0, p_star=0, a=0).sel(estimator=estimator)


@pytest.fixture(scope="module")
def continuous() -> xr.Dataset:
    return planted_collapse.sweep(CONTINUOUS, SIZES, correction=(0, 0, 0, 0.3, -0.3))


@pytest.fixture(scope="module")
def found(continuous: xr.Dataset) -> xr.Dataset:
    return collapse(continuous, least_size=0, n_boot=200)


@pytest.fixture(scope="module")
def found_below() -> xr.Dataset:
    """A discontinuous model with much data."""
    sweep = planted_collapse.sweep(DISCONTINUOUS, SIZES, correction=(0, 0, 0, 0.3), spread=0.3)
    return collapse(sweep, least_size=0, n_boot=200)


@pytest.mark.parametrize("name", COLLAPSES)
def test_the_planted_load_lies_within_four_errors_of_its_estimate(found: xr.Dataset, name: str) -> None:
    of, truth = at(found, name), critical_point(CONTINUOUS).alpha
    assert word(FLAGS, of["flag"]) == "estimated"
    assert abs(of["alpha_c"].item() - truth) < 4 * of["alpha_c_error"].item()
    assert of["alpha_c_error"].item() < 0.15
    assert of["alpha_c_low"].item() < of["alpha_c"].item() < of["alpha_c_high"].item()
    assert of["p_value"].item() > 0.01
    total = math.hypot(of["alpha_c_error"].item(), of["alpha_c_systematic"].item())
    assert of["alpha_c_total_error"].item() == pytest.approx(total)


def test_a_correction_biases_the_fit_unless_it_is_allowed_for() -> None:
    sweep = planted_collapse.sweep(CONTINUOUS, SIZES, correction=(0, 0, 0, 1.0), spread=0.1)
    truth = critical_point(CONTINUOUS).alpha
    plain, allowed = (at(collapse(sweep, n_boot=100, correction=size), "collapse") for size in (0.0, 2.0))
    assert plain["alpha_c"].item() - truth > 10 * plain["alpha_c_error"].item()
    assert abs(allowed["alpha_c"].item() - truth) < 3 * allowed["alpha_c_error"].item()


def test_crossings_of_sizes_are_extrapolated_by_the_law_that_a_correction_gives_them() -> None:
    """alpha_c + K (N N')^(-1/3), at sizes so large that only the first order matters."""
    truth, sizes = critical_point(CONTINUOUS).alpha, (10**4, 4 * 10**4, 16 * 10**4, 64 * 10**4)
    loads = np.round(np.linspace(1.1, 1.4, 31), 12)
    sweep = planted_collapse.sweep(
        CONTINUOUS, dict.fromkeys(sizes, 100), correction=(0, 0, 0, 1.0), loads=loads, spread=0.003
    )
    crossings = []
    for k in range(3):
        pair = planted_collapse.scaling(sweep.isel(N=[k, k + 1]), CONTINUOUS)
        values = pair.fit("crossing", Settings(correction=0.0)).values
        assert values is not None
        crossings.append(float(values[0]) - truth)
    step = [(N * larger) ** (-1 / 3) for N, larger in pairwise(sizes)]
    K = np.array(crossings) / step
    assert K.min() > 1
    np.testing.assert_allclose(K, K.mean(), rtol=0.15)
    fit = planted_collapse.scaling(sweep, CONTINUOUS).fit("crossing", Settings(correction=2.0))
    assert fit.values is not None
    assert abs(fit.values[0] - truth) < abs(crossings[-1]) / 2


def test_below_the_crossover_a_discontinuous_transition_is_found_at_alpha_0_and_not_at_alpha_bbp(
    found_below: xr.Dataset,
) -> None:
    known = landmarks(DISCONTINUOUS)
    for name in COLLAPSES:
        of = at(found_below, name)
        verdicts = {str(d): word(SUPPORT, of["supported"].sel(definition=d)) for d in DEFINITIONS}
        assert verdicts["alpha_bbp"] == "rejected"
        assert verdicts["alpha_0_principal_value"] == "supported"
        assert word(ANSWERS, of["answer"]) == "several"
        assert word(KINDS, of["kind_from_data"]) == "discontinuous"
        assert of["probability_discontinuous"].item() > 0.95
        distance = (of["alpha_c"] - known.definitions["alpha_bbp"]) / of["alpha_c_total_error"]
        assert of["distance"].sel(definition="alpha_bbp").item() == pytest.approx(distance.item())
    here = found_below.isel(p=0, p_star=0, a=0)
    assert here["crossover_size"].item() == pytest.approx(known.crossover_size)
    assert here["overlap_exponent_at_bbp"].item() > -1 / 3 + 3 * here["overlap_exponent_at_bbp_error"].item()


def test_few_data_distinguish_neither_the_kinds_nor_the_definitions() -> None:
    sweep = planted_collapse.sweep(DISCONTINUOUS, dict.fromkeys((160, 320, 640), 40))
    of = at(collapse(sweep, n_boot=100), "collapse")
    assert word(ANSWERS, of["answer"]) == "cannot_tell"
    assert word(KINDS, of["kind_from_data"]) == "cannot_tell"
    assert 0.05 < of["probability_discontinuous"].item() < 0.95


def test_the_definitions_coincide_for_a_continuous_transition(found: xr.Dataset) -> None:
    of = at(found, "theory_curve")
    assert word(ANSWERS, of["answer"]) == "one_value"
    assert word(KINDS, of["kind_from_data"]) in ("continuous", "cannot_tell")
    exponent, error = (
        at(found, "collapse")[f"overlap_exponent_at_bbp{end}"].item() for end in ("", "_error")
    )
    assert exponent == pytest.approx(-1 / 3, abs=0.1 + 4 * error)


def test_the_overlap_itself_vanishes_like_a_square_root_so_its_square_is_a_straight_line() -> None:
    above = [outlier(CONTINUOUS, critical_point(CONTINUOUS).alpha + step).overlap_sq for step in (1e-3, 4e-3)]
    assert math.log(above[1] / above[0]) / math.log(4) == pytest.approx(1.0, abs=1e-2)
    gamma = principal_value_end(DISCONTINUOUS)[0]
    alpha_0 = critical_point(DISCONTINUOUS).alpha
    near = [principal_value(DISCONTINUOUS, gamma - step) for step in (1e-3, 4e-3)]
    loads = [load_on_branch(gamma - s, v).real for s, v in zip((1e-3, 4e-3), near, strict=True)]
    squares = [overlap_sq_on_branch(gamma - s, v).real for s, v in zip((1e-3, 4e-3), near, strict=True)]
    slope = math.log(squares[1] / squares[0]) / math.log((loads[1] - alpha_0) / (loads[0] - alpha_0))
    assert slope == pytest.approx(1.0, abs=2e-2)


def test_the_square_root_is_biased_low_and_its_systematic_error_says_so(found: xr.Dataset) -> None:
    of, truth = at(found, "square_root"), critical_point(CONTINUOUS).alpha
    bias = of["square_root_bias"].item()
    assert bias < -0.05
    assert of["alpha_c_systematic"].item() >= abs(bias)
    assert abs(of["alpha_c"].item() - truth) < 3 * of["alpha_c_total_error"].item()


def test_sizes_that_do_not_collapse_are_flagged_as_a_poor_fit_without_conclusions() -> None:
    sweep = planted_collapse.sweep(CONTINUOUS, SIZES, correction=(), spread=0.1)
    sweep["overlap_sq_space"].values[..., 1, :] *= 1.3
    of = at(collapse(sweep, least_size=0, n_boot=100), "collapse")
    assert word(FLAGS, of["flag"]) == "poor_fit"
    assert math.isfinite(of["alpha_c"].item())
    assert word(ANSWERS, of["answer"]) == "no_estimate"
    assert word(KINDS, of["kind_from_data"]) == "no_estimate"


def test_the_systematic_error_is_the_change_between_choices_beyond_its_noise(found: xr.Dataset) -> None:
    of = at(found, "collapse")
    values, errors, p = (
        of[name].values for name in ("alpha_c_by_choice", "difference_error_by_choice", "p_value_by_choice")
    )
    assert list(of["choice"].values) == list(CHOICES)
    assert np.isfinite(values).all()
    assert values[0] == of["alpha_c"].item()
    assert errors[0] == 0
    excess = np.sqrt(np.maximum(0, (values - values[0]) ** 2 - errors**2))
    assert of["alpha_c_systematic"].item() == pytest.approx(excess[p >= 0.01].max())


def test_sizes_near_and_beyond_the_crossover_are_left_out() -> None:
    model = Model(4, 1, 1.5)
    assert 20000 < landmarks(model).crossover_size < 40000
    sweep = synthetic.planted(p=(4,), a=(1.5,), seeds={128: 20, 512: 20, 4096: 20, 65536: 20})
    here = collapse(sweep, least_size=0, n_boot=100).isel(p=0, p_star=0, a=0)
    assert (here["n_sizes"].item(), here["largest_size"].item()) == (2, 512)
    assert here["alpha_bbp_at_size"].values[-1] > here["alpha_bbp_at_size"].values[0]
    beyond = collapse(sweep, least_size=4000, n_boot=100)
    for name in ESTIMATORS:
        assert word(FLAGS, at(beyond, name)["flag"]) == "beyond_the_crossover"
        assert math.isnan(at(beyond, name)["alpha_c"].item())


def test_a_model_without_a_critical_point_of_its_own_has_a_collapse_and_no_theory_curve() -> None:
    sweep = synthetic.planted(p=(4,), a=(1.5,), seeds={128: 60, 512: 60, 1024: 60})
    result = collapse(sweep, n_boot=100)
    assert word(FLAGS, at(result, "theory_curve")["flag"]) == "no_theory_curve"
    of = at(result, "collapse")
    assert abs(of["alpha_c"].item() - of["alpha_bbp"].item()) < 4 * of["alpha_c_error"].item()
    assert word(SUPPORT, of["supported"].sel(definition="alpha_0_principal_value")) == "undefined"


def test_a_partially_filled_store_gives_partial_results_with_their_coverage(continuous: xr.Dataset) -> None:
    sweep = continuous.copy(deep=True)
    status = sweep["status"].values
    status[..., ::2, 0, :] = 0  # every other alpha of the smallest size
    status[..., 1, 50:] = 2  # a quarter of the seeds of the next size
    status[..., 3, :] = 0  # all cells of the largest
    result = collapse(sweep, least_size=0, n_boot=100)
    here = result.isel(p=0, p_star=0, a=0)
    assert here["n_sizes"].item() == 3
    assert here["coverage"].item() == pytest.approx((status == 1).mean())
    of = at(result, "collapse")
    assert abs(of["alpha_c"].item() - of["alpha_bbp"].item()) < 4 * of["alpha_c_total_error"].item()
    status[..., 1:, :] = 0
    alone = collapse(sweep, least_size=0, n_boot=100)
    for name in ("collapse", "crossing"):
        assert word(FLAGS, at(alone, name)["flag"]) == "not_enough_data"
    assert word(FLAGS, at(alone, "theory_curve")["flag"]) == "estimated"
    status[:] = 0
    empty = collapse(sweep, n_boot=100)
    for name in ESTIMATORS:
        assert word(FLAGS, at(empty, name)["flag"]) == "not_enough_data"
        assert word(KINDS, at(empty, name)["kind_from_data"]) == "no_estimate"
    assert empty["coverage"].item() == 0


@pytest.mark.parametrize(
    ("part", "expected"), [(slice(0, 9), "above_the_alpha_range"), (slice(28, 39), "below_the_alpha_range")]
)
def test_a_load_outside_the_measured_alphas_is_flagged_with_its_side(part: slice, expected: str) -> None:
    sweep = planted_collapse.sweep(CONTINUOUS, dict.fromkeys(SIZES, 100), spread=0.1)
    of = at(collapse(sweep.isel(alpha=part), n_boot=100), "theory_curve")
    assert word(FLAGS, of["flag"]) == expected
    assert math.isnan(of["alpha_c"].item())


def test_sizes_below_256_are_left_out_unless_fewer_than_two_reach_it(continuous: xr.Dataset) -> None:
    """As in every command: one store has one critical load, whoever asks."""
    found = collapse(continuous, n_boot=100)
    assert (found["n_sizes"].item(), found.attrs["least_size"]) == (3, 256)
    assert Results(continuous).least_size == 256
    small = collapse(continuous.isel(N=slice(2)), n_boot=100)
    assert (small["n_sizes"].item(), small.attrs["least_size"]) == (2, 160)


def test_the_result_survives_a_round_trip_through_zarr(found: xr.Dataset, tmp_path: Path) -> None:
    found.to_zarr(tmp_path / "collapse.zarr", consolidated=False)
    back = xr.open_zarr(tmp_path / "collapse.zarr", consolidated=False).load()
    xr.testing.assert_identical(back, found)


def test_a_lazy_dataset_gives_the_same_one_model_in_memory_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = synthetic.planted(p=(1, 2), a=(0.7,), seeds={128: 20, 512: 20}).chunk(p=1, p_star=1, a=1)
    loaded: list[int] = []

    def counting(block: xr.Dataset, *rest: Any) -> Points:
        loaded.append(block["overlap_sq_space"].size)
        return scaled_points(block, *rest)

    monkeypatch.setattr("bendscape.analysis.estimate.collapse.scaled_points", counting)
    lazy = collapse(sweep, n_boot=100)
    assert not loaded
    assert all(variable.chunks for variable in lazy.data_vars.values())
    result = lazy.compute(scheduler="synchronous")
    assert loaded == [21 * 2 * 20] * 2
    monkeypatch.undo()
    xr.testing.assert_identical(result, collapse(sweep.compute(), n_boot=100))


@pytest.mark.parametrize(
    "options",
    [
        {"n_boot": 10},
        {"level": 1.0},
        {"seed": -1},
        {"window": 0.0},
        {"window": math.nan},
        {"order": 9},
        {"correction": -1.0},
        {"least_size": -1},
    ],
)
def test_options_out_of_range_are_refused_by_name(continuous: xr.Dataset, options: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(options))):
        collapse(continuous, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "error"), [(1.0, 0.1), (1.25, 0.1), (1.4, 0.1), (1.2, 0.02), (0.2, 0.3)])
def test_the_odds_of_a_discontinuous_transition_are_those_of_the_two_likelihoods(
    value: float, error: float
) -> None:
    alpha_bbp = 1.25
    below, _ = quad(lambda x: norm.pdf(value, x, error), 0, alpha_bbp, points=[min(value, alpha_bbp)])
    odds = below / alpha_bbp / norm.pdf(value, alpha_bbp, error)
    assert log_odds_discontinuous(value, error, alpha_bbp) == pytest.approx(math.log(odds), abs=1e-6)


def test_the_kind_is_decided_only_at_sufficient_odds() -> None:
    assert kind_of(1.25, 0.3, 1.25) == "cannot_tell"
    assert kind_of(1.25, 0.02, 1.25) == "continuous"
    assert kind_of(1.1, 0.02, 1.25) == "discontinuous"
    assert kind_of(1.5, 0.02, 1.25) == "neither"
    assert kind_of(math.nan, 0.02, 1.25) == "no_estimate"
    assert kind_of(0.1, 1e-3, 1.25) == "discontinuous"  # 1150 errors away: no overflow


def test_support_follows_from_the_distances() -> None:
    places = dict(zip(DEFINITIONS, (1.4, 1.1, 1.0, math.nan), strict=True))
    expected = {(1.1, 0.02): "one", (1.05, 0.04): "several", (1.2, 0.3): "cannot_tell", (2.0, 0.1): "none"}
    for (value, error), words in expected.items():
        verdicts = {name: supported(value, error, place, 0.95) for name, place in places.items()}
        assert verdicts["alpha_0_complex_re"] == "undefined"
        assert answer(verdicts, places) == words
    nothing = {name: supported(math.nan, 0.1, place, 0.95) for name, place in places.items()}
    assert answer(nothing, places) == "no_estimate"


@pytest.mark.parametrize("r", [1, 4])
def test_the_vectorised_universal_curve_agrees_with_the_scalar_one(r: int) -> None:
    w = np.array([-60.0, -7.3, -1.1, 0.0, 0.37, 2.2, 9.0, 80.0])
    one_by_one = [critical_overlap(float(x), r) for x in w]
    np.testing.assert_allclose(universal_overlap(w, r), one_by_one, rtol=2e-4)


def test_the_minimum_of_a_parabola_is_exact_and_one_at_an_end_is_beyond_it() -> None:
    grid = np.linspace(0, 1, 11)
    place, value = lowest(grid, np.array([(grid - 0.437) ** 2 + 2, grid, -grid]))
    np.testing.assert_allclose(place, [0.437, -np.inf, np.inf])
    assert value[0] == pytest.approx(2.0)


@pytest.mark.slow
@pytest.mark.parametrize("model", [CONTINUOUS, DISCONTINUOUS], ids=["continuous", "discontinuous"])
def test_sampled_hessians_collapse_at_the_critical_load_of_theory(model: Model) -> None:
    """N = 128 to 512 with 100 seeds at each of 21 loads: 3 total errors are allowed."""
    loads = np.round(np.linspace(0.7, 1.7, 21), 12)
    ds = synthetic.frame((1,), (1,), (model.a,), {128: 100, 256: 100, 512: 100}, alpha=loads)
    for k, N in enumerate(ds["N"].values):
        for i, seed in np.ndindex(len(loads), 100):
            cell = observe(model, float(loads[i]), int(N), np.random.default_rng((int(N), i, seed)))
            for name in ("overlap_sq_space", "eigval_min", "edge_sample", "alpha_realised"):
                ds[name].values[0, 0, 0, i, k, seed] = getattr(cell, name)
            ds["status"].values[0, 0, 0, i, k, seed] = 1 if cell.converged else 3
    result = collapse(ds, n_boot=200)
    for name in ("collapse", "crossing"):
        of = at(result, name)
        assert word(FLAGS, of["flag"]) == "estimated"
        assert abs(of["alpha_c"].item() - critical_point(model).alpha) < 3 * of["alpha_c_total_error"].item()
