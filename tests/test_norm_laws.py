"""The two laws of the error against the norm, on planted data: values, coverage, and what is not enough."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from bendscape.analysis.dataset.analyses import load_analysis
from bendscape.analysis.estimate.norm_laws import first_below, norm_laws
from bendscape.analysis.estimate.power_law import slope_of_means
from bendscape.core.errors import ParameterError
from bendscape.core.perceptron.theory import fixed_norm, largest_stability

ALPHAS = (16.0, 32.0, 64.0)


def planted(noise: float, seeds: int = 8, exponent: float = 0.5) -> xr.Dataset:
    """The error 0.5/alpha (1 + (alpha/norm)^exponent) with normal noise of its log, one number for each
    seed."""
    rng = np.random.default_rng(0)
    norm = np.geomspace(0.5, 1e5, 19)
    shape = (len(ALPHAS), 1, seeds, len(norm))
    alpha = np.array(ALPHAS)[:, None, None, None]
    error = (
        0.5 / alpha * (1 + (alpha / norm) ** exponent) * np.exp(noise * rng.standard_normal((*shape[:3], 1)))
    )
    cell = ("alpha", "N", "seed")
    return xr.Dataset(
        {
            "status": (cell, np.ones(shape[:3], np.int8)),
            "norm": ((*cell, "time"), np.broadcast_to(norm, shape)),
            "generalisation_error": ((*cell, "time"), error),
            "error_largest_stability": (("alpha",), 0.5 / np.array(ALPHAS)),
        },
        coords={"alpha": list(ALPHAS), "N": [100], "seed": np.arange(seeds), "time": np.arange(19.0)},
    )


def test_a_planted_law_is_found() -> None:
    """Interpolation between 19 norms: 0.02 of log norm*. At norm* the planted error is 1 + (alpha/norm)^(1/2)
    = 1.5 units, so norm* = 4 alpha."""
    found = norm_laws(planted(noise=0.01))
    assert float(found["norm_star_exponent"][0]) == pytest.approx(1.0, abs=0.1)
    assert float(found["final_exponent"][0]) == pytest.approx(-1.0, abs=0.03)
    assert float(found["log_norm_star"][1, 0]) == pytest.approx(math.log(4 * 32), abs=0.1)
    assert found["norm_star_exponent_low"][0] < 1 < found["norm_star_exponent_high"][0]
    assert not found["not_enough_data"].any()
    exponent = found["early_exponent"].sel(alpha=64, N=100)
    assert -0.5 < float(exponent) < -0.3


def test_the_theory_beside_an_estimate_is_that_of_the_curve() -> None:
    found = norm_laws(planted(noise=0.01))
    at = math.exp(float(found["log_norm_star_theory"][1, 0]))
    level = 1.5 * largest_stability(32).generalisation_error
    assert fixed_norm(32, at).generalisation_error == pytest.approx(level, rel=2e-3)
    assert float(found["norm_star_exponent_theory"][0]) == pytest.approx(1.0, abs=0.1)


def test_the_exponent_of_the_early_error_goes_to_a_half_with_alpha() -> None:
    """alpha = 1000: between norms 10 and 20 corrections of order 1/norm and norm/alpha are left."""
    ratio = fixed_norm(1000, 10).generalisation_error / fixed_norm(1000, 20).generalisation_error
    assert math.log(ratio, 2) == pytest.approx(0.5, abs=0.03)


def test_between_one_and_alpha_the_error_has_the_amplitude_of_the_documentation() -> None:
    """At alpha = 1e6 and norm 100 corrections of order 1/norm and norm/alpha are left."""
    amplitude = math.sqrt(math.sqrt(8 * math.pi) * (math.log(2) - 0.5)) / math.pi
    assert fixed_norm(1e6, 100).generalisation_error * 1e4 == pytest.approx(amplitude, rel=0.01)


def test_intervals_hold_the_planted_slope_as_often_as_they_say() -> None:
    """1000 fits each, 6 seeds, normal and skewed (exponential) cells whose spread grows with x. 95 % less 3
    standard deviations of the count is 0.929: at exact coverage a false alarm in 1 of 370 runs."""
    rng, x = np.random.default_rng(1), np.log([4.0, 8.0, 16.0, 32.0])
    for draw in (rng.standard_normal, lambda size: rng.exponential(size=size) - 1):
        held = fits = 0
        for _ in range(1000):
            fit = slope_of_means(x[:, None] + x[:, None] * draw((4, 6)), x, 0.95)
            held, fits = held + (fit.low < 1 < fit.high), fits + 1
        assert held / fits > 0.929


def test_a_curve_in_log_alpha_has_a_small_p_value_and_a_line_rarely_does() -> None:
    rng, x = np.random.default_rng(2), np.log([4.0, 8.0, 16.0, 32.0, 64.0])
    rejected = [
        slope_of_means(x[:, None] + rng.standard_normal((5, 8)), x, 0.95).p_value < 0.01 for _ in range(1000)
    ]
    assert np.mean(rejected) < 0.03
    curved = slope_of_means((x**2)[:, None] + 0.3 * rng.standard_normal((5, 8)), x, 0.95)
    assert curved.p_value < 1e-3


def test_too_few_seeds_are_not_enough_data() -> None:
    found = norm_laws(planted(noise=0.01, seeds=5))
    assert found["not_enough_data"].all()
    assert np.isnan(found["norm_star_exponent"]).all()


def test_a_seed_that_never_falls_leaves_no_norm_star_at_its_point() -> None:
    ds = planted(noise=0.01)
    ds["generalisation_error"][0, 0, 3] = 0.4
    found = norm_laws(ds)
    assert np.isnan(found["log_norm_star"][0, 0])
    assert found["not_enough_data"].all()
    assert np.isnan(first_below(np.array([[0.0, 1.0]]), np.array([[2.0, 1.0]]), 0.5)).all()


def test_the_analysis_is_installed_and_refuses_what_it_cannot_use() -> None:
    assert load_analysis("norm_laws").lacking(planted(0.01)) == []
    with pytest.raises(ParameterError, match="error_largest_stability"):
        norm_laws(planted(0.01).drop_vars("error_largest_stability"))
    for name in ("factor", "share", "least_norm", "level", "error"):
        with pytest.raises(ParameterError, match=name):
            norm_laws(planted(0.01), **{name: -1})
