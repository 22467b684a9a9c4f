"""Verdicts follow from errors and stated alternatives, and are right as often as their power says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from bendscape.analysis.estimate.verdicts import SURE
from bendscape.analysis.findings.evidence import STRONG, VERDICTS, WEAK, Comparison, compare, jointly, weigh

RNG = [20261129, 14]
DRAWS = 1500


def verdicts(separation: float, truth: float) -> dict[str, float]:
    """Share of each verdict over draws of three loads, whose alternative is this many errors away in all and
    whose true place is this fraction of the way to it."""
    rng = np.random.default_rng(RNG)
    error, claimed = np.array([0.1, 0.2, 0.4]), np.array([1.0, 2.0, 3.0])
    step = separation * error / math.sqrt(3)
    counted = dict.fromkeys(VERDICTS, 0.0)
    for _ in range(DRAWS):
        measured = claimed + truth * step + error * rng.standard_normal(3)
        pairs = [
            compare(*map(float, each)) for each in zip(measured, error, claimed, claimed + step, strict=True)
        ]
        counted[weigh(pairs).verdict()] += 1 / DRAWS
    return counted


@pytest.mark.parametrize("separation", [2.0, 3.5, 6.0])
def test_a_true_claim_is_contradicted_at_most_as_often_as_stated_and_a_false_one_with_the_power(
    separation: float,
) -> None:
    power = float(norm.cdf(separation - SURE))
    true, false = verdicts(separation, 0.0), verdicts(separation, 1.0)
    # the stated rate is 0.0027; 1500 draws scatter by 0.0014
    assert true["contradicted"] < 0.0027 + 3 * 0.0014
    # chi^2 contradicts a few more of the false ones than the direction alone
    assert false["contradicted"] > power - 3 * math.sqrt(power * (1 - power) / DRAWS)
    assert false["supported"] < 0.0013 + 3 * 0.001
    if power < WEAK:
        assert true["no power"] > 0.99
        assert true["supported"] == true["consistent"] == 0
    elif power < STRONG:
        assert true["consistent"] > 0.99
    else:
        assert true["supported"] > 0.99


def test_the_power_is_that_against_the_nearest_of_several_alternatives() -> None:
    at = weigh([compare(1.0, 0.02, 1.0, 0.9, 1.2)])
    assert at.separation == pytest.approx([5.0, 10.0])
    assert at.power == pytest.approx(float(norm.cdf(5.0 - SURE)))
    assert (
        weigh([compare(1.1, 0.02, 1.0, 0.9, 1.2)]).verdict() == "contradicted"
    )  # between both, near neither


def test_data_that_leave_an_alternative_or_lean_on_theory_are_consistent_at_most() -> None:
    between = weigh([compare(1.5, 0.2, 1.0, 2.0)])  # 2.5 errors from either
    assert between.separation[0] - between.towards[0] < SURE
    assert between.power > STRONG
    assert between.verdict() == "consistent"
    assert weigh([compare(1.0, 0.1, 1.0, 2.0)]).verdict() == "supported"
    assert weigh([compare(1.0, 0.1, 1.0, 2.0)]).verdict(of_data=False) == "consistent"


def test_without_data_there_is_no_power_and_the_power_is_not_a_number() -> None:
    assert weigh([]).verdict() == "no power"
    assert math.isnan(weigh([]).power)
    assert jointly([], []) == []


def test_an_error_common_to_all_comparisons_does_not_average_out() -> None:
    pairs = [compare(1.0, 0.01, 1.0, 1.2)] * 16
    common = weigh(jointly(pairs, [np.array([0.1])] * 16))
    assert common.separation[0] == pytest.approx(0.2 / math.hypot(0.1, 0.01 / 4))
    assert (
        weigh([compare(1.0, math.hypot(0.01, 0.1), 1.0, 1.2)] * 16).separation[0] > 3 * common.separation[0]
    )


def test_correlated_numbers_are_weighed_by_their_covariance() -> None:
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    step = np.array([1.0, -1.0])
    at = weigh([Comparison(np.zeros(2), np.zeros(2), step[None], covariance)])
    assert at.separation[0] == pytest.approx(math.sqrt(2 / 0.1))
