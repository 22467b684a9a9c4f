"""Wide students: thresholds approach the limit of infinite width, which depends on its order with N."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bendscape.core import ParameterError
from bendscape.core.activations.activation import Network
from bendscape.core.activations.published import typical_threshold
from bendscape.core.activations.sampling import observe, weigh
from bendscape.core.activations.theory import even_spectrum, even_transition, sample_transition
from bendscape.core.activations.weight import least_weight

SATURATING = ("gauss", "gauss")


@pytest.mark.parametrize(
    "names",
    [
        ("log_cosh", "quadratic"),
        SATURATING,
        pytest.param(("sqrt", "quadratic"), marks=pytest.mark.slow),
        pytest.param(("quadratic", "gauss"), marks=pytest.mark.slow),
    ],
)
def test_thresholds_approach_that_of_infinite_width_as_1_over_p(names: tuple[str, str]) -> None:
    limit = even_transition(Network(math.inf, 1, 1.0, *names)).alpha_bbp
    near, far = (p * (limit - even_transition(Network(p, 1, 1.0, *names)).alpha_bbp) for p in (16, 8))
    assert near == pytest.approx(far, rel=0.1)
    assert abs(near) < 1.6 * limit  # within 10 per cent of the limit at p = 16


@pytest.mark.parametrize("a", [1.0, 5.0])
def test_infinite_width_has_the_infimum_of_wide_students(a: float) -> None:
    """In closed form: rare outputs are 0 or 2, typical ones 2 - sqrt(2)."""
    limit = min(-8 * math.exp(-1.5) / a, -4 / (a + 2))
    assert least_weight(Network(math.inf, 1, a, *SATURATING)) == pytest.approx(limit, rel=1e-9)
    assert 512 * least_weight(Network(512, 1, a, *SATURATING)) == pytest.approx(limit, rel=5e-3)
    typical = min(-(2 - 2**0.5) * 4 * math.exp(-1.5) / a, -2 * 2**0.5 / (a + 2))
    assert least_weight(Network(math.inf, 1, a, *SATURATING), typical=True) == pytest.approx(
        typical, rel=1e-9
    )


@pytest.mark.parametrize("names", [("quadratic", "quadratic"), ("log_cosh", "quadratic"), ("sqrt", "sqrt")])
def test_the_order_of_limits_is_immaterial_where_large_labels_hold_the_edge(
    names: tuple[str, str],
) -> None:
    network = Network(math.inf, 1, 0.5, *names)
    assert typical_threshold(network) == pytest.approx(even_transition(network).alpha_bbp, rel=1e-9)


def test_both_orders_have_one_outlier_above_both_thresholds() -> None:
    """Below the limit of alpha_bbp(p) the outlier is inside the part of the bulk that rare outputs make."""
    network = Network(math.inf, 1, 1.0, *SATURATING)
    load = even_transition(network).alpha_bbp
    one, other = (even_spectrum(network, 1.2 * load, typical=typical) for typical in (False, True))
    assert one.lambda_star == pytest.approx(other.lambda_star, rel=1e-9)
    assert one.overlap_sq == pytest.approx(other.overlap_sq, rel=1e-9)
    assert one.lambda_star < one.lambda_minus < other.lambda_minus
    between = [even_spectrum(network, 0.9 * load, typical=typical) for typical in (False, True)]
    assert math.isnan(between[0].lambda_star)
    assert between[0].lambda_minus < between[1].lambda_star < between[1].lambda_minus


def test_drawn_samples_have_an_outlier_above_the_typical_threshold_not_that_of_rare_outputs() -> None:
    """1e4 samples are far fewer than the rare outputs need: at p = 8, 16, 32 the loads are 2.6, 2.4, 2.1 with
    an error of 0.1, where alpha_bbp is 4.9, 5.3, 5.5 and the typical threshold 1.72."""
    loads = []
    for p in (8, 16, 32):
        rng = np.random.default_rng(p)
        fields, u = rng.standard_normal((p, 10_000)), rng.standard_normal((1, 10_000))
        loads.append(sample_transition(*weigh(Network(p, 1, 1.0, *SATURATING), fields, u)))
    typical = typical_threshold(Network(math.inf, 1, 1.0, *SATURATING))
    assert typical == pytest.approx(1.7182, abs=1e-4)
    assert typical < loads[2] < loads[0] < 0.75 * even_transition(Network(8, 1, 1.0, *SATURATING)).alpha_bbp
    assert loads[2] - typical < 0.6 * (loads[0] - typical)


def test_sampled_hessians_have_an_outlier_between_the_two_thresholds() -> None:
    """p = 8, N = 150, 6 seeds, alpha_bbp = 4.92: at alpha = 3.5 the overlap of theory for the cells' own
    samples, within 5 standard errors plus 0.05 for finite N; at 1.2 no outlier, and an overlap lower by 4."""
    network = Network(8, 1, 1.0, *SATURATING)
    found = [
        [observe(network, alpha, 150, np.random.default_rng(seed), "dice") for seed in range(6)]
        for alpha in (1.2, 3.5)
    ]
    below, between = (np.array([one.overlap_sq_space for one in each]) for each in found)
    error = math.hypot(below.std(ddof=1), between.std(ddof=1)) / 6**0.5
    assert between.mean() - below.mean() > 4 * error
    assert all(math.isnan(one.outlier_sample) for one in found[0])
    own = np.nan_to_num([one.overlap_sq_sample for one in found[1]])
    assert np.count_nonzero(own) >= 4
    assert abs(between.mean() - own.mean()) < 5 * (between - own).std(ddof=1) / 6**0.5 + 0.05


def test_what_has_an_edge_at_every_width_but_not_in_the_limit_is_refused() -> None:
    """One unit of a quartic student bends down by about sqrt(p) where p others are at zero."""
    low = [p * least_weight(Network(p, 1, 1.0, "quartic", "gauss")) for p in (64, 256)]
    assert low[1] == pytest.approx(2 * low[0], rel=0.1)
    with pytest.raises(ParameterError, match="bounded below with the teacher gauss at p = inf"):
        least_weight(Network(math.inf, 1, 1.0, "quartic", "gauss"))
    assert math.isnan(typical_threshold(Network(math.inf, 1, 1.0, "quartic", "gauss")))
