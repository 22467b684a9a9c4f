"""Where a success rate passes one half: values, bounds, and how often the intervals are right.

The statistical tests have fixed seeds. With 150 samples a share that is 0.93 is below 0.86 with a probability
of 10^-3; all nine together fail by chance with less than 0.01.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from planted_success import CURVES, coverage, crossings, slope_coverage
from scipy.optimize import minimize
from scipy.special import expit

from bendscape.analysis.estimate.half_success import (
    HEAVY,
    LIGHT,
    Design,
    _curves,
    half_success,
    rate_interval,
    slope_in_log_size,
)

X = np.linspace(1.5, 3.5, 6)


def test_every_curve_rises_from_zero_through_one_half_to_one_and_has_its_mirror_image() -> None:
    u = np.linspace(-60, 60, 2401)
    P = np.exp(_curves(u))
    assert np.allclose(P[:, 1200], 0.5)
    assert (np.diff(P, axis=1) >= 0).all()
    assert (P[:, 0] < 0.01).all()
    assert (P[:, -1] > 0.99).all()
    assert LIGHT > 1 >= HEAVY
    design = Design(X)
    assert np.allclose(np.exp(design.success) + np.exp(design.failure), 1, atol=1e-12)


def test_the_estimate_is_that_of_a_logistic_fit_where_the_curve_is_logistic() -> None:
    trials = np.full(6, 4000)
    successes = np.round(trials * expit((X - 2.45) / 0.3)).astype(int)

    def minus(theta: np.ndarray) -> float:
        P = expit((X - theta[0]) / math.exp(theta[1]))
        return -float((successes * np.log(P) + (trials - successes) * np.log1p(-P)).sum())

    fit = minimize(minus, [2.4, -1.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    found = half_success(X, successes, trials)
    assert found.flag == "estimated"
    assert found.value == pytest.approx(fit.x[0], abs=0.02)
    assert found.low < 2.45 < found.high
    assert found.p_value > 0.01


def test_cells_that_separate_leave_the_whole_gap_open() -> None:
    found = half_success(X, np.array([0, 0, 0, 20, 20, 20]), np.full(6, 20))
    assert found.flag == "estimated"
    assert found.value == pytest.approx(2.5, abs=0.02)
    assert found.low < 2.4
    assert found.high > 2.6
    assert X[2] - 0.1 < found.low
    assert found.high < X[3] + 0.1


@pytest.mark.parametrize(
    ("successes", "flag"),
    [
        ([0, 0, 0, 0, 0, 0], "above_the_range"),
        ([20, 20, 20, 20, 20, 20], "below_the_range"),
        ([0, 0, 0, 1, 3, 6], "above_the_range"),
        ([10, 9, 11, 10, 10, 9], "not_enough_data"),
        ([20, 20, 12, 8, 0, 0], "not_enough_data"),
        ([0, 0, 1, 3, 7, 12], "interval_leaves_the_range"),
    ],
)
def test_a_window_that_misses_the_crossing_gives_a_bound_or_nothing(successes: list[int], flag: str) -> None:
    found = half_success(X, np.array(successes), np.full(6, 20))
    assert found.flag == flag
    assert math.isfinite(found.value) == (flag == "interval_leaves_the_range")
    assert not (math.isfinite(found.low) and math.isfinite(found.high))


def test_too_few_cells_or_values_are_not_enough_data() -> None:
    few = half_success(X, np.array([0, 0, 0, 2, 2, 2]), np.full(6, 2))
    two = half_success(X[:2], np.array([0, 20]), np.array([20, 20]))
    assert few.flag == two.flag == "not_enough_data"
    assert math.isnan(few.value)


def test_rates_that_no_curve_of_the_family_describes_are_flagged() -> None:
    found = half_success(X, np.array([0, 190, 20, 180, 10, 200]), np.full(6, 200))
    assert found.flag in ("no_rising_curve_fits", "not_enough_data")
    assert math.isnan(found.value)
    assert found.p_value < 1e-6


def test_a_rate_without_cells_is_unknown_and_with_none_successful_has_an_upper_end() -> None:
    assert math.isnan(rate_interval(0, 0).value)
    at = rate_interval(0, 10)
    assert at.value == at.low == 0
    assert 0.2 < at.high < 0.35


@pytest.mark.parametrize(
    ("name", "values", "cells", "off"),
    [
        ("logistic", 4, 10, 0.3),
        ("logistic", 8, 50, 0.0),
        ("Gompertz", 6, 20, 0.3),
        ("saturates at 0.85", 6, 50, 0.0),
        ("heavy tails", 8, 20, 0.3),
        ("straight", 8, 50, 0.0),
        ("kink at 1/2", 6, 20, 0.0),
    ],
)
def test_an_interval_of_95_per_cent_holds_the_crossing_under_curves_outside_the_family(
    name: str, values: int, cells: int, off: float
) -> None:
    found = coverage(CURVES[name], values, cells, 150, np.random.default_rng(7), off=off)
    assert found.two_ends > 0.3
    assert found.right >= 0.86
    assert found.wrong <= 0.14


def test_the_slope_in_ln_n_holds_with_scatter_and_counts_alone_do_not() -> None:
    seeds = {128: 50, 256: 40, 512: 30, 1000: 20, 2000: 10}
    counts, total, _ = slope_coverage(0.12, 0.15, seeds, 30, np.random.default_rng(3))
    assert total >= 0.8  # of a share of 0.95, one run in 1000
    assert counts < total


def test_without_drift_a_slope_is_seen_rarely_and_with_many_cells_it_is_seen() -> None:
    few = {128: 40, 256: 40, 512: 40, 1000: 40}
    many = {128: 400, 256: 400, 512: 400, 1000: 400, 4000: 400}
    none = slope_coverage(0.0, 0.0, few, 30, np.random.default_rng(5))[2]
    seen = slope_coverage(0.12, 0.0, many, 5, np.random.default_rng(5))[2]
    assert none <= 0.1
    assert seen >= 0.9


def test_two_sizes_show_no_scatter_so_the_total_interval_of_their_slope_is_open() -> None:
    found = crossings(0.1, 0.0, np.random.default_rng(1), {128: 100, 1000: 100})
    slope = slope_in_log_size([128, 1000], found)
    assert math.isfinite(slope.statistical.low)
    assert slope.total.low == -math.inf
    one = slope_in_log_size([128], found[:1])
    assert math.isnan(one.statistical.value)
