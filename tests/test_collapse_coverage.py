"""The intervals of the collapse have their nominal coverage, and uninformative data give no interval."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import planted_collapse
import planted_coverage
import pytest
import xarray as xr
from scipy.stats import binom
from scipy.stats import t as t_law

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.collapse_fits import ESTIMATORS, FLAGS, MEANS, Settings
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.profiles import Fit, accepted, one_sided
from bendscape.analysis.estimate.verdicts import ANSWERS, KINDS
from bendscape.core.quadratic.model import Model

MODEL = Model(1, 1, 0.7)
TRUTH = critical_point(MODEL).alpha
SIZES = (160, 320, 640)
WIDE = np.round(np.arange(0.4, 3.401, 0.1), 12)
CORRECTION = Settings().correction


RANGES = {"below": np.arange(0.2, 0.901, 0.05), "above": np.arange(1.5, 3.401, 0.1)}


def sweep(alpha: Floats, seeds: int, cells: str, entropy: int, correction: float = CORRECTION) -> xr.Dataset:
    """Three sizes, with a correction to scaling drawn from the prior of the fit."""
    drawn = np.array(MEANS) + correction * np.random.default_rng([5, entropy]).standard_normal(9)
    return planted_coverage.threshold_sweep(
        MODEL, dict.fromkeys(SIZES, seeds), alpha, cells=cells, correction=tuple(drawn), entropy=entropy
    )


def outcomes(alpha: Floats, seeds: int, cells: str, repeats: int) -> dict[str, Counter[str]]:
    """For each estimator how often which flag was given, and ``held`` for an estimate whose interval holds
    the truth."""
    counts = {name: Counter[str]() for name in ESTIMATORS}
    for entropy in range(repeats):
        scaling = planted_collapse.scaling(sweep(alpha, seeds, cells, entropy), MODEL, n_boot=2)
        for name in ESTIMATORS:
            fit = scaling.fit(name, Settings())
            low, high = fit.interval(scaling.level)
            counts[name][fit.flag] += 1
            counts[name]["held"] += fit.flag == "estimated" and low <= TRUTH <= high
    return counts


def too_few(estimated: int) -> int:
    """The number of these 95 per cent intervals that hold the truth, or fewer, in one run of a thousand."""
    return int(binom.ppf(0.001, estimated, 0.95)) - 1


@pytest.mark.parametrize(
    ("seeds", "cells", "repeats"),
    [
        (6, "normal", 60),
        pytest.param(4, "normal", 400, marks=pytest.mark.slow),
        pytest.param(6, "exponential", 400, marks=pytest.mark.slow),
        pytest.param(6, "lognormal", 400, marks=pytest.mark.slow),
        pytest.param(12, "lognormal", 400, marks=pytest.mark.slow),
        pytest.param(64, "exponential", 400, marks=pytest.mark.slow),
    ],
)
def test_intervals_of_the_collapse_have_their_nominal_coverage(seeds: int, cells: str, repeats: int) -> None:
    """Alphas on both sides. A right estimator fails with a probability of 0.001. 60 estimates show a coverage
    of 0.80 with a probability of 0.79 and one of 0.85 with 0.41; 400 show 0.85 in all of 1000 runs and 0.90
    in 0.77 of them. An estimator with fewer than 30 estimates is not judged: few seeds leave it without."""
    judged = []
    for name, counts in outcomes(WIDE, seeds, cells, repeats).items():
        if counts["estimated"] >= 30:
            judged.append(name)
            assert counts["held"] > too_few(counts["estimated"]), (name, counts)
    assert "theory_curve" in judged
    assert len(judged) == 4 or (seeds, cells) not in {(6, "normal"), (64, "exponential")}


@pytest.mark.parametrize("part", RANGES)
@pytest.mark.parametrize(
    ("seeds", "repeats"), [(6, 20), (60, 10), pytest.param(12, 200, marks=pytest.mark.slow)]
)
def test_alphas_that_miss_the_threshold_give_only_a_side_or_a_bound(
    part: str, seeds: int, repeats: int
) -> None:
    """An interval would have to end on both sides of the wrong place: 1 of 1300 did. So 2 of one estimator
    are a false alarm with a probability of 2e-4 here and, 5 of them, of less in the slow test; a share of 0.3
    that is estimated is seen in all but 0.15 of the runs of 10 sweeps and 0.01 of those of 20."""
    for name, counts in outcomes(RANGES[part], seeds, "exponential", repeats).items():
        assert counts["estimated"] <= max(1, 0.02 * repeats), (name, counts)
        wrong = "below_the_alpha_range" if part == "below" else "above_the_alpha_range"
        assert counts[wrong] <= 0.1 * repeats, (name, counts)
        if name == "theory_curve":
            right = "above_the_alpha_range" if part == "below" else "below_the_alpha_range"
            assert counts[right] >= 0.5 * repeats


@pytest.mark.parametrize(("part", "end"), [("below", "alpha_c_low"), ("above", "alpha_c_high")])
def test_sizes_that_do_not_cross_within_the_alphas_give_a_bound(part: str, end: str) -> None:
    found = collapse(sweep(RANGES[part], 240, "normal", 0), least_size=0, n_boot=100).squeeze()
    for name in ("collapse", "theory_curve", "crossing"):
        at = found.sel(estimator=name)
        side = "above" if part == "below" else "below"
        assert tuple(FLAGS)[int(at["flag"])] == f"{side}_the_alpha_range"
        assert math.isnan(at["alpha_c"])
        bounds = (at["alpha_c_low"].item(), at["alpha_c_high"].item())
        assert [math.isfinite(bound) for bound in bounds] == [end == "alpha_c_low", end == "alpha_c_high"]
        assert bounds[0] < TRUTH if part == "below" else bounds[1] > TRUTH
        assert RANGES[part].min() < at[end] < RANGES[part].max()


def test_a_continuous_model_far_below_its_threshold_is_not_called_discontinuous() -> None:
    """alpha_bbp = 7.78 is far above the alphas. One of 600 such estimates names the wrong side, so more than
    one of 12 is a false alarm with a probability of 2e-4."""
    model, alpha = Model(1, 2, 0.5), np.round(np.arange(1.0, 3.01, 0.1), 12)
    flags = Counter[str]()
    for entropy in range(4):
        ds = planted_coverage.threshold_sweep(
            model, dict.fromkeys((128, 256, 512), 12), alpha, cells="exponential", entropy=entropy
        )
        found = collapse(ds, least_size=0, n_boot=100).squeeze()
        flags.update(tuple(FLAGS)[int(code)] for code in found["flag"])
        assert {tuple(KINDS)[int(code)] for code in found["kind_from_data"]} == {"no_estimate"}
        assert np.isnan(found["probability_discontinuous"]).all()
    known = {"above_the_alpha_range", "interval_leaves_the_alpha_range", "not_enough_data"}
    assert flags["above_the_alpha_range"] >= 4
    assert sum(count for flag, count in flags.items() if flag not in known) <= 1


def test_a_crossing_of_two_sizes_has_no_degrees_of_freedom_and_no_kind() -> None:
    ds = planted_coverage.threshold_sweep(MODEL, {160: 200, 1280: 200}, WIDE, cells="normal")
    at = collapse(ds, n_boot=100).squeeze().sel(estimator="crossing")
    assert tuple(FLAGS)[int(at["flag"])] == "estimated"
    assert at["alpha_c_low"] < TRUTH < at["alpha_c_high"]
    assert at["dof"] == 0
    assert math.isnan(at["p_value"])
    assert tuple(KINDS)[int(at["kind_from_data"])] == "no_estimate"
    assert math.isnan(at["probability_discontinuous"])
    assert tuple(ANSWERS)[int(at["answer"])] == "no_estimate"


def test_the_ends_of_an_interval_follow_from_chi_squared_and_may_be_open() -> None:
    grid = np.linspace(0.0, 10.0, 41)
    fit = Fit(np.array([4.0]), error_dof=10.0, dof=5, chi2=5.0, grid=grid, deviance=((grid - 4.0) / 0.5) ** 2)
    low, high = fit.interval(0.95)
    half = 0.5 * float(t_law.isf(0.025, 10))
    assert (low, high) == (pytest.approx(4.0 - half), pytest.approx(4.0 + half))
    assert fit.flagged(0.95).flag == "estimated"
    assert fit._replace(bias=-0.3).interval(0.95) == pytest.approx((low - 0.3, high + 0.3))
    flat = fit._replace(deviance=np.where(grid < 4.0, fit.deviance, 0.0))
    assert flat.interval(0.95) == (low, math.inf)
    assert flat.flagged(0.95).flag == "interval_leaves_the_alpha_range"
    longer = fit.at_most(4.0, 1.0)
    assert longer.interval(0.95) == pytest.approx((4.0 - 2 * half, 4.0 + 2 * half))
    assert fit.at_most(4.0, 16.0).interval(0.95) == (low, high)
    beyond = fit._replace(values=np.array([math.inf]), deviance=np.maximum(0.0, 10.0 - grid) ** 2)
    assert beyond.flagged(0.95).flag == "above_the_alpha_range"
    assert beyond._replace(deviance=0 * grid).flagged(0.95).flag == "not_enough_data"


def test_a_curve_that_is_significant_on_one_side_alone_bounds_its_zero_there() -> None:
    grid = np.linspace(0.0, 4.0, 5)
    places, deviance = one_sided(grid, np.array([1.0, -5.0, -2.0, 1.0, 0.5]), 2.5)
    np.testing.assert_allclose(places, [0, 1, 2, 2.5, 3, 4])
    np.testing.assert_allclose(deviance, [25, 25, 4, 0, 1, 1])
    assert accepted(places, deviance, 9.0) == (pytest.approx(1 + 2 / 3), math.inf)
    _, never = one_sided(grid, np.full(5, -3.0), math.inf)
    assert accepted(grid, never, 4.0) == (pytest.approx(3 + 1 / 3), math.inf)
