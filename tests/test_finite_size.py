"""The threshold that samples of finite size show: alpha_0, then a logarithmic climb to alpha_bbp."""

from __future__ import annotations

import math

import pytest
from problems import CROSSOVER_LOG10, PROBLEMS, THRESHOLDS_AT_SIZE, Problem
from scipy.integrate import quad
from scipy.stats import chi, chi2

from bendscape.core.quadratic.finite_size.crossover import (
    alpha_bbp_at_size,
    crossover_size,
    seen_at_size,
    tail_probability,
)
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import alpha_0, transition

DISCONTINUOUS = [problem for problem in PROBLEMS if problem.transition == "discontinuous"]


@pytest.mark.parametrize(("N", "threshold"), THRESHOLDS_AT_SIZE)
def test_thresholds_at_size_agree_with_known_digits(N: float, threshold: float) -> None:
    assert alpha_bbp_at_size(Model(1, 1, 1.5), N) == pytest.approx(threshold, abs=6e-4)


@pytest.mark.parametrize(("model", "log10_size"), CROSSOVER_LOG10, ids=str)
def test_crossover_sizes_agree_with_known_digits(model: Model, log10_size: float) -> None:
    assert math.log10(crossover_size(model)) == pytest.approx(log10_size, abs=0.06)


def test_a_continuous_threshold_is_the_same_at_every_size() -> None:
    model = Model(1, 1, 0.7)
    assert alpha_bbp_at_size(model, 10) == alpha_bbp_at_size(model, 1e30) == transition(model).alpha_bbp
    assert crossover_size(model) == math.inf


def test_infinite_width_has_no_threshold_at_finite_size() -> None:
    assert math.isnan(alpha_bbp_at_size(Model(math.inf, 1, 1.0), 1000))
    assert math.isnan(crossover_size(Model(math.inf, 1, 1.0)))


@pytest.mark.parametrize("problem", DISCONTINUOUS, ids=lambda problem: problem.slug)
def test_the_threshold_climbs_from_alpha_0_to_alpha_bbp(problem: Problem) -> None:
    model = problem.model
    sizes = (2, 1e3, 1e5, 1e8, 1e12, 1e24, 1e100, 1e280)
    climb = [alpha_bbp_at_size(model, N) for N in sizes]
    assert climb == sorted(climb)
    known = problem.alpha_0["principal_value"]
    end = problem.alpha_0["complex_re"] if math.isnan(known) else known
    assert climb[0] >= end * (1 - 1e-9)
    assert climb[-1] < problem.alpha_bbp
    smallest, crossover = alpha_bbp_at_size(model, 1), crossover_size(model)
    assert alpha_bbp_at_size(model, 0.99 * crossover) == pytest.approx(smallest, rel=1e-12)
    assert alpha_bbp_at_size(model, 1.5 * crossover) > smallest * (1 + 1e-6)


def test_at_large_size_the_distance_to_alpha_bbp_falls_like_one_over_log_n() -> None:
    # (alpha_bbp - alpha(N)) ln N tends to K = (p_star a/2) |d alpha/d gamma| at gamma = 1.
    model = Model(1, 1, 1.5)
    alpha_bbp = transition(model).alpha_bbp
    K = [(alpha_bbp - alpha_bbp_at_size(model, N)) * math.log(N) for N in (1e60, 1e120, 1e240)]
    assert abs(K[2] / K[1] - 1) < abs(K[1] / K[0] - 1) < 0.1


@pytest.mark.parametrize(
    ("model", "gamma"),
    [
        *((model, gamma) for model in (Model(1, 1, 1.5), Model(4, 2, 0.7)) for gamma in (1.02, 1.3, 3.0)),
        (Model(40, 3, 0.4), 3.0),
        (Model(40, 3, 0.01), 1.001),  # a probability of 2e-42, from yhat far below its mean
    ],
    ids=str,
)
def test_the_tail_probability_is_that_of_the_chi_square_laws(model: Model, gamma: float) -> None:
    def beyond(root: float, c: int) -> float:  # root = sqrt(p yhat), of chi law
        threshold = (model.a + gamma * c * root**2 / model.p) / (gamma - 1)
        return float(chi.pdf(root, model.p) * chi2.sf(model.p_star * threshold, model.p_star))

    expected = 0.0
    for c, count in ((1, model.p - 1), (3, 1)):
        expected += count * quad(beyond, 0, 14, args=(c,), epsabs=0, epsrel=1e-10, limit=200)[0]
    assert tail_probability(model, gamma) == pytest.approx(expected, rel=1e-8, abs=0)


def test_the_end_of_the_window_is_alpha_0_by_principal_value() -> None:
    for model in (Model(4, 1, 0.7), Model(2, 2, 1.5)):
        assert alpha_bbp_at_size(model, 2) == pytest.approx(alpha_0(model).principal_value, rel=1e-12)


@pytest.mark.parametrize(
    ("model", "N", "words"),
    [
        (Model(1, 1, 1.5), 1000, "alpha_0"),
        (Model(1, 1, 1.5), 1e12, "threshold seen, between alpha_0 and alpha_bbp"),
        (Model(1, 1, 0.7), 1000, "alpha_bbp"),
        (Model(math.inf, 1, 1.5), 1000, "no threshold"),
    ],
    ids=str,
)
def test_the_threshold_of_a_size_is_called_what_it_is(model: Model, N: float, words: str) -> None:
    """alpha_0 is not alpha_bbp, whatever the size."""
    assert seen_at_size(model, N) == words
