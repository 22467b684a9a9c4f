"""The symmetric and the relative sector: against the even theory, against known values, against samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bendscape.core import Model, transition
from bendscape.core.activations.activation import Network
from bendscape.core.activations.sampling import observe
from bendscape.core.activations.sectors import SECTORS, sector_spectrum, sector_thresholds
from bendscape.core.activations.theory import even_spectrum, even_transition


@pytest.mark.parametrize("name", ["quadratic", "log_cosh"])
def test_both_sectors_of_an_even_student_are_its_single_outlier(name: str) -> None:
    network = Network(2, 1, 1.5, name)
    at, even = sector_spectrum(network, 3.5), even_spectrum(network, 3.5)
    assert at.lambda_minus == pytest.approx(even.lambda_minus, abs=1e-8)
    for outlier in (at.symmetric, at.relative):
        # fewer nodes on each side than the even rule: 1e-7 covers their stated errors
        assert outlier[:2] == pytest.approx((even.lambda_star, even.overlap_sq), abs=1e-7)
        assert outlier.lambda_star_error < 1e-7


@pytest.mark.parametrize("a", [0.5, 1.5])
def test_both_thresholds_of_the_square_are_that_of_the_closed_form(a: float) -> None:
    exact = transition(Model(2, 1, a))
    for found in sector_thresholds(Network(2, 1, a)).values():
        assert found.alpha_bbp == pytest.approx(exact.alpha_bbp, abs=1e-7)
        assert found.kind == exact.kind
        assert found.alpha_bbp_error < 1e-7


def test_a_wider_even_student_has_its_threshold_within_the_stated_error() -> None:
    network = Network(3, 1, 1.0, "log_cosh")
    even, found = even_transition(network), sector_thresholds(network)["relative"]
    # 1e-6: with 12 and 9 nodes on each side the error is the same by chance; a second coarse rule shows it
    assert 1e-6 < found.alpha_bbp_error < 1e-3
    assert abs(found.alpha_bbp - even.alpha_bbp) < found.alpha_bbp_error


@pytest.mark.parametrize(
    ("name", "alpha", "symmetric", "relative"),
    [
        ("softplus", 4.0, None, (-0.20921, 0.69962)),
        ("shifted_quadratic", 3.0, None, (-1.0067, 0.374)),
        ("tanh", 6.0, None, None),
        ("sigmoid", 14.0, None, None),
    ],
)
def test_outliers_of_both_sectors_are_those_known(
    name: str, alpha: float, symmetric: None, relative: tuple[float, float] | None
) -> None:
    at = sector_spectrum(Network(2, 1, 1.0, name), alpha)
    for outlier, known in ((at.symmetric, symmetric), (at.relative, relative)):
        if known is None:
            assert math.isnan(outlier.lambda_star)
        else:
            assert outlier[:2] == pytest.approx(known, abs=2e-3)


def test_the_outlier_of_a_sector_appears_at_its_threshold() -> None:
    network = Network(2, 1, 1.0, "softplus")
    load = sector_thresholds(network)["relative"].alpha_bbp
    assert math.isnan(sector_spectrum(network, 0.99 * load).relative.lambda_star)
    above = sector_spectrum(network, 1.01 * load)
    assert above.relative.lambda_star < above.lambda_minus


def test_samples_show_the_relative_outlier_above_its_threshold_and_no_symmetric_one() -> None:
    """N = 200, 12 seeds at 2.5 thresholds and at 0.6 of it.

    Above, eigenvalue and overlap within 5 standard errors plus 0.02 for finite N (at N = 400 and 16 seeds
    they agree to 0.003 and 0.011). The symmetric overlap of the lowest pair, and both below the threshold,
    are those of vectors of the bulk, of order N^(-1/3) near the edge: below 0.3 and at most half of the
    outlier's. False alarms below 1e-3.
    """
    network = Network(2, 1, 1.0, "softplus")
    load, N = sector_thresholds(network)["relative"].alpha_bbp, 200
    theory = sector_spectrum(network, 2.5 * load)
    above, below = (
        [observe(network, factor * load, N, np.random.default_rng(seed), "dice") for seed in range(12)]
        for factor in (2.5, 0.6)
    )
    for name, expected in (
        ("eigval_min", theory.relative.lambda_star),
        ("overlap_sq", theory.relative.overlap_sq),
    ):
        values = np.array([getattr(one, name) for one in above])
        assert abs(values.mean() - expected) < 5 * values.std(ddof=1) / 12**0.5 + 0.02
    relative = np.mean([one.overlap_sq_space_relative for one in above])
    assert relative > 0.5
    assert np.mean([one.overlap_sq_space_symmetric for one in above]) < 0.3
    for sector in SECTORS:
        assert np.mean([getattr(one, f"overlap_sq_space_{sector}") for one in below]) < relative / 2
