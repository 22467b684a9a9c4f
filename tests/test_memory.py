"""Associative memories: the dynamics, the learning rules and their theory, and the kernel."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from command_line import bendscape
from scipy.optimize import brentq, minimize
from scipy.special import expit

from bendscape.core.errors import ParameterError
from bendscape.core.memory import theory
from bendscape.core.memory.daydreaming import daydream
from bendscape.core.memory.dynamics import Update, is_fixed, relax
from bendscape.core.memory.patterns import corrupted, draw, signs
from bendscape.core.memory.pseudo_likelihood import pseudo_likelihood
from bendscape.core.memory.retrieval import basin_overlap, retrieval_map, stabilities
from bendscape.core.memory.rules import hebb, pseudo_inverse
from bendscape.core.numerics.logistic import logistic_step
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.kernels.memory import AXES, DEFAULTS

OVERLAPS = tuple(k / 10 for k in range(1, 11))

FILE = """
[campaign]
name = "memories"
store = "unused"
entropy = 1

[kernel]
name = "memory"
{options}

[grid]
rule = {rule}
alpha = {alpha}
N = [20]
seeds = 2
"""


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b)))


# -- patterns and dynamics


def test_a_corrupted_pattern_has_exactly_the_overlap_that_flipped_spins_allow() -> None:
    patterns = signs((7, 40), np.random.default_rng(1))
    for overlap in (1.0, 0.55, 0.5, 0.0):
        expected = 1 - 2 * round(40 * (1 - overlap) / 2) / 40
        found = (corrupted(patterns, overlap, np.random.default_rng(2)) * patterns).mean(axis=1)
        assert found == pytest.approx(np.full(7, expected), abs=1e-15)


def test_patterns_of_few_features_are_correlated_and_those_of_many_are_not() -> None:
    """<(xi.xi'/N)^2> is 1/N for independent ones, and near (2/pi)^2/D more for features."""
    rng = np.random.default_rng(3)
    for alpha_D, squared in ((0.0, 1 / 200), (0.05, 1 / 200 + (2 / math.pi) ** 2 / 10)):
        found = draw(0.3, 200, rng, alpha_D=alpha_D, unseen=5)
        assert found.stored.shape == (60, 200)
        assert found.unseen.shape == (5, 200)
        assert found.features.shape == (round(200 * alpha_D), 200)
        assert set(np.unique(found.stored)) == {-1.0, 1.0}
        overlaps = (found.stored @ found.stored.T / 200)[np.triu_indices(60, 1)]
        assert (overlaps**2).mean() == pytest.approx(squared, rel=0.25)  # 1770 pairs of 10 features


@pytest.mark.parametrize("N", [63, 150])
def test_asynchronous_updates_are_those_of_one_spin_after_another(N: int) -> None:
    """Blocks of 64: one block, and two with a rest. Asymmetric couplings, stopped while states move."""
    rng = np.random.default_rng(4)
    couplings, start = rng.standard_normal((N, N)), signs((5, N), rng)
    np.fill_diagonal(couplings, 0)
    found = relax(couplings, start, np.random.default_rng(5), most_sweeps=3)
    expected = start.copy()
    order = np.random.default_rng(5).permutation(N)
    for i in [*order, *order, *order]:
        expected[:, i] = np.where(
            expected @ couplings[i] * expected[:, i] < 0, -expected[:, i], expected[:, i]
        )
    np.testing.assert_array_equal(found.states, expected)
    assert found.sweeps == 3
    assert not found.settled.any()


def test_with_symmetric_couplings_asynchronous_updates_settle_and_parallel_ones_may_cycle() -> None:
    rng = np.random.default_rng(6)
    couplings = rng.standard_normal((80, 80))
    couplings += couplings.T
    np.fill_diagonal(couplings, 0)
    start = signs((20, 80), rng)

    def energy(states: np.ndarray) -> np.ndarray:
        return np.asarray(-0.5 * ((states @ couplings) * states).sum(axis=1))

    found = relax(couplings, start, rng)
    assert found.settled.all()
    assert (energy(found.states) < energy(start)).all()
    parallel = relax(couplings, start, rng, update="parallel")
    fields = parallel.states @ couplings * parallel.states
    np.testing.assert_array_equal(parallel.settled, (fields > 0).all(axis=1))
    assert not parallel.settled.all()
    assert parallel.sweeps < 200, "a cycle of period 2 is recognised"


def test_a_spin_without_a_field_keeps_its_value() -> None:
    start = signs((3, 10), np.random.default_rng(7))
    for update in ("asynchronous", "parallel"):
        found = relax(np.zeros((10, 10)), start, np.random.default_rng(8), update=update)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.states, start)
        assert found.settled.all()
    assert is_fixed(np.zeros((10, 10)), start).all()


@pytest.mark.parametrize("N", [20, 21, 30])
def test_a_pattern_is_a_fixed_point_if_no_field_is_against_it_and_fields_that_cancel_are_none(N: int) -> None:
    """Hebb's fields are integers over N. By the integers, one pattern in 20 has a field that is exactly 0 and
    none against it; in floating point it is 1e-17 of either sign."""
    ties = 0
    for seed in range(100):
        patterns = signs((N // 5, N), np.random.default_rng(seed))
        integers = (patterns.T @ patterns).astype(int)
        np.fill_diagonal(integers, 0)
        along = (patterns.astype(int) @ integers) * patterns.astype(int)
        expected, couplings = (along >= 0).all(axis=1), hebb(patterns)
        np.testing.assert_array_equal(is_fixed(couplings, patterns), expected)
        for update in get_args(Update):
            ended = relax(couplings, patterns, np.random.default_rng(1), update=update).states
            np.testing.assert_array_equal((ended == patterns).all(axis=1), expected)
        ties += int((expected & (along == 0).any(axis=1)).sum())
    assert ties > 10


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ([0.0, 0.25, 0.75, 1.0], 0.5),
        ([0.0, 0.0, 1.0, 1.0], 0.5),
        ([0.6, 0.4, 0.9, 1.0], 0.44),
        ([0.5, 0.7, 1.0, 1.0], 0.2),
        ([0.0, 1.0, 1.0, 0.4], math.nan),
    ],
)
def test_the_basin_reaches_to_the_overlap_from_which_half_are_recovered(
    share: list[float], expected: float
) -> None:
    found = basin_overlap((0.2, 0.4, 0.6, 0.8), np.array(share))
    assert found == pytest.approx(expected, nan_ok=True)


# -- learning rules


@pytest.mark.parametrize(("alpha", "stored"), [(0.11, True), (0.18, False)])
def test_hebbs_rule_retrieves_below_a_load_near_0_138_and_not_above(alpha: float, stored: bool) -> None:
    """N = 600, where the transition is between 0.12 and 0.16; measured shares 1 and 0.35. The theory's
    overlap at 0.11 is 0.996, and 1/N^(1/2) = 0.04 is its scatter over patterns."""
    rng = np.random.default_rng(2)
    patterns = draw(alpha, 600, rng).stored
    found = retrieval_map(hebb(patterns), patterns[:40], [1.0], rng).final_overlap
    assert ((found >= 0.9).mean() > 0.9) == stored
    assert ((found >= 0.9).mean() < 0.5) != stored
    assert math.isnan(theory.hebb_overlap(alpha)) != stored
    if stored:
        assert found.mean() == pytest.approx(theory.hebb_overlap(alpha), abs=0.01)


def test_the_theory_of_hebbs_rule_ends_at_0_1379_with_overlap_0_967() -> None:
    """Amit, Gutfreund and Sompolinsky give 0.138 and 0.967."""
    assert theory.hebb_overlap(0.1379) == pytest.approx(0.967, abs=2e-3)
    assert math.isnan(theory.hebb_overlap(0.1381))


@pytest.mark.parametrize("alpha", [1e-300, 1e-4, 0.01, 1 / 72, 0.02])
def test_at_small_loads_hebbs_rule_retrieves_with_the_errors_of_gaussian_noise(alpha: float) -> None:
    """erf((2 alpha)^(-1/2)) while the response, exp(-1/(2 alpha)), is below 1e-10."""
    assert theory.hebb_overlap(alpha) == pytest.approx(math.erf((2 * alpha) ** -0.5), abs=1e-9)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.95])
def test_the_pseudo_inverse_stores_all_patterns_with_the_stability_of_the_theory(alpha: float) -> None:
    """For a neuron all stabilities are the same, to rounding. The diagonal of a projection on P of N
    dimensions has mean alpha and variance 2 alpha (1 - alpha)/N, which shifts the mean stability by less than
    2 % here."""
    patterns = draw(alpha, 300, np.random.default_rng(9)).stored
    found = stabilities(pseudo_inverse(patterns), patterns)
    assert found.min() > 0
    assert np.ptp(found, axis=0).max() < 1e-9
    assert found.mean() == pytest.approx(theory.pseudo_inverse_stability(alpha), rel=0.02)


def test_the_pseudo_inverse_ends_at_alpha_1() -> None:
    with pytest.raises(ParameterError, match="span fewer than N = 50"):
        pseudo_inverse(draw(1.0, 50, np.random.default_rng(10)).stored)
    assert math.isnan(theory.pseudo_inverse_stability(1.0))


def test_a_spin_that_the_pseudo_inverse_finds_alone_has_no_couplings() -> None:
    """The span of the patterns contains the unit vector e_i if this does not raise the rank: common at N = 8,
    P = 7. Then e_i is its own projection, and the row of i is 0, not rounding."""
    seen = set()
    for seed in range(10):
        patterns = signs((7, 8), np.random.default_rng(seed))
        rank = np.linalg.matrix_rank(patterns)
        alone = np.array([np.linalg.matrix_rank(np.vstack([patterns, e])) == rank for e in np.eye(8)])
        couplings = pseudo_inverse(patterns)
        np.testing.assert_array_equal(couplings, couplings.T)
        np.testing.assert_array_equal((couplings == 0).all(axis=1), alone)
        found = stabilities(couplings, patterns)
        assert not found[:, alone].any()
        assert (found[:, ~alone] > 0.01).all()
        assert is_fixed(couplings, patterns).all()
        turned = patterns * np.where(alone, -1.0, 1.0)
        ended = relax(couplings, turned, np.random.default_rng(seed))
        np.testing.assert_array_equal(ended.states, turned)
        assert ended.settled.all()
        seen.add(bool(alone.any()))
    assert seen == {False, True}


def test_each_neuron_minimises_its_own_loss() -> None:
    """Against SciPy's BFGS for single neurons, to its tolerance."""
    patterns, beta, ridge = draw(0.6, 30, np.random.default_rng(11)).stored, 0.7, 0.02 * 30
    found = pseudo_likelihood(patterns, beta, 0.02, tolerance=1e-8)
    assert found.residual <= 1e-8
    assert not np.diag(found.couplings).any()
    for i in (0, 17):
        others = np.delete(patterns, i, axis=1) * patterns[:, i : i + 1]

        def loss(w: np.ndarray, signed: np.ndarray = others) -> float:
            return float(np.logaddexp(0, -2 * beta * signed @ w).sum() + ridge / 2 * w @ w)

        expected = minimize(loss, np.zeros(29), options={"gtol": 1e-7}).x
        np.testing.assert_allclose(np.delete(found.couplings[i], i), expected, atol=1e-5)


def test_strong_regularisation_gives_hebbs_couplings_and_only_its_ratio_to_beta_squared_matters() -> None:
    patterns = draw(0.4, 60, np.random.default_rng(12)).stored
    assert cosine(pseudo_likelihood(patterns, 1.0, 1e3).couplings, hebb(patterns)) > 1 - 1e-4
    one, other = (pseudo_likelihood(patterns, b, 0.01 * b**2, tolerance=1e-8).couplings for b in (1.0, 3.0))
    np.testing.assert_allclose(other, one / 3, atol=1e-7)


@pytest.mark.parametrize("beta", [0.7, 1.0])
def test_a_neuron_that_correlates_with_no_other_is_solved_without_couplings(beta: float) -> None:
    """Three patterns, each twice, the second time with the first spin turned. Sums of 0.7 do not cancel."""
    half = signs((3, 8), np.random.default_rng(17))
    patterns = np.concatenate([half, half * np.where(np.arange(8) == 0, -1.0, 1.0)])
    found = pseudo_likelihood(patterns, beta, 0.01)
    assert found.residual <= 1e-4
    assert not found.couplings[0].any()
    assert np.abs(found.couplings[:, 0]).max() < 1e-12
    assert np.abs(found.couplings[1:]).sum(axis=1).min() > 0.1


def test_a_cell_with_such_a_neuron_converges() -> None:
    cell: Any = AXES.cell(rule="pseudo_likelihood", alpha_D=0.0, beta=1.0, tau=16.0, alpha=0.25, N=8, seed=14)
    outcome = load_kernel("memory", (), {}).compute(cell, cell_rng(1, cell))
    assert outcome.converged
    assert 0 < outcome.values["residual"] <= 1e-4


def test_a_pseudo_likelihood_that_does_not_converge_says_so() -> None:
    patterns = draw(0.5, 40, np.random.default_rng(13)).stored
    assert pseudo_likelihood(patterns, 1.0, 0.01, tolerance=1e-17).residual > 1e-17


@pytest.mark.parametrize(("regularisation", "alpha"), [(1.0, 0.5), (0.01, 0.5), (0.01, 1.2)])
def test_mean_stabilities_of_the_pseudo_likelihood_are_those_of_the_theory(
    regularisation: float, alpha: float
) -> None:
    """Mean of 4 samples of N = 150. Measured standard deviations of a sample below 0.01, so 4.5 standard
    errors are 0.02, and 1/N for corrections of that order."""
    found = []
    for seed in range(4):
        patterns = draw(alpha, 150, np.random.default_rng([14, seed])).stored
        couplings = pseudo_likelihood(patterns, 1.0, regularisation).couplings
        found.append(stabilities(couplings, patterns).mean())
    expected = theory.pseudo_likelihood_stability(alpha, 1.0, regularisation)
    assert np.mean(found) == pytest.approx(expected, abs=0.02 + 1 / 150)


def test_the_theory_of_the_pseudo_likelihood_begins_at_hebbs_rule() -> None:
    """The first correction is of order 1/regularisation."""
    found = theory.pseudo_likelihood_stability(0.4, 1.0, 1e4)
    assert found == pytest.approx(theory.hebb_stability(0.4), rel=1e-3)


@pytest.mark.parametrize(
    ("alpha", "log_V", "ratio", "stability"),
    [
        (1.9, 4.715691366, 1e-3, 0.430843),
        (2.0, 3.601444055, 1e-3, 0.436958),
        (1.8, 3.372395409, 1e-2, 0.484626),
        (2.1, 2.929023530, 1e-6, 0.449761),
    ],
)
def test_the_theory_of_the_pseudo_likelihood_has_the_averages_of_a_dense_rule(
    alpha: float, log_V: float, ratio: float, stability: float
) -> None:
    """At a given V the equations are one for q, and explicit for lambda and the stability. Here fields spread
    over 9 to 28 times the width of the loss's kinks, which have 40 nodes or more of the trapezoidal rule.
    The tolerances are those of the roots."""
    t = np.linspace(-9, 9, 20_001)
    weights = np.exp(-0.5 * t**2) / np.exp(-0.5 * t**2).sum()

    def excess(sigma: float) -> float:
        return alpha * float(weights @ logistic_step(sigma * t, log_V) ** 2) / sigma**2 - 1

    sigma = float(brentq(excess, 1.0, 100.0, xtol=1e-11))
    step, V = logistic_step(sigma * t, log_V), math.exp(log_V)
    curvature = V * expit(sigma * t + step) * expit(-sigma * t - step)
    ridge = (1 - alpha * float(weights @ (curvature / (1 + curvature)))) / V
    assert 4 * ridge == pytest.approx(ratio, rel=5e-3)
    found = theory.pseudo_likelihood_stability(alpha, 0.5, ridge)
    assert found == pytest.approx(float(weights @ step) / sigma, abs=1e-9)
    assert found == pytest.approx(stability, abs=2e-6)


def test_the_theory_of_the_pseudo_likelihood_is_not_given_below_its_range() -> None:
    assert theory.pseudo_likelihood_stability(0.1, 1.0, 1e-8) == pytest.approx(3.02, abs=0.01)
    assert math.isnan(theory.pseudo_likelihood_stability(0.1, 1.0, 0.99e-8))


@pytest.mark.parametrize("log_chi", [-30.0, 0.0, 8.0])
def test_the_logistic_step_solves_its_equation(log_chi: float) -> None:
    x = np.linspace(-20, 20, 41)
    step = logistic_step(x, log_chi)
    np.testing.assert_allclose(np.log(step) + np.logaddexp(0, x + step), log_chi, atol=1e-10)


def test_pseudo_likelihood_has_larger_basins_than_hebbs_rule_at_the_same_load() -> None:
    """Measured here: Hebb 0.40, pseudo-likelihood 0.28, at alpha = 0.1; the scatter over samples is near
    0.03. At alpha = 0.3 Hebb has none."""
    found = {}
    for alpha in (0.1, 0.3):
        patterns = draw(alpha, 200, np.random.default_rng(4)).stored
        for name, J in (("hebb", hebb(patterns)), ("pl", pseudo_likelihood(patterns, 1.0, 0.01).couplings)):
            ended = retrieval_map(J, patterns[:32], OVERLAPS, np.random.default_rng(5)).final_overlap
            found[name, alpha] = basin_overlap(OVERLAPS, (ended >= 0.9).mean(axis=1))
    assert found["pl", 0.1] < found["hebb", 0.1] - 0.05
    assert found["pl", 0.3] < 0.7
    assert math.isnan(found["hebb", 0.3])


def test_daydreaming_converges_and_stores_far_beyond_hebbs_rule() -> None:
    """Two trainings with other dreams end in the same couplings, up to fluctuations that averages leave,
    measured cosine 0.993; the start is farther, 0.880. At alpha = 0.4, three times Hebb's capacity, all
    patterns are recovered."""
    patterns = draw(0.4, 64, np.random.default_rng(8)).stored
    one, other = (daydream(patterns, 8.0, np.random.default_rng(seed), duration=8) for seed in (1, 2))
    assert cosine(one.couplings, other.couplings) > 0.985
    assert cosine(one.couplings, hebb(patterns)) < 0.92
    assert one.epochs == 64
    np.testing.assert_array_equal(one.couplings, one.couplings.T)
    assert not np.diag(one.couplings).any()
    assert np.linalg.norm(one.couplings, 2) == pytest.approx(1, abs=2e-3)
    ends = [
        retrieval_map(J, patterns, [1.0], np.random.default_rng(9)).final_overlap
        for J in (hebb(patterns), one.couplings)
    ]
    assert (ends[0] >= 0.9).mean() < 0.2
    assert (ends[1] >= 0.9).mean() > 0.9


def test_the_drift_of_a_training_is_how_far_it_is_from_half_of_it() -> None:
    """The same stream: the first half of a training is the training of half the duration."""
    patterns = draw(0.5, 40, np.random.default_rng(18)).stored
    half, whole = (
        daydream(patterns, 4.0, np.random.default_rng(19), duration=duration).couplings for duration in (2, 4)
    )
    drift = daydream(patterns, 4.0, np.random.default_rng(19), duration=4).drift
    assert drift == pytest.approx(math.sqrt(2 - 2 * cosine(half, whole)), rel=1e-6)


@pytest.mark.parametrize(("alpha", "short"), [(0.3, 1.0), (0.8, 4.0)])
def test_a_training_by_daydreaming_that_is_cut_short_has_not_converged(alpha: float, short: float) -> None:
    """The default training has, and is far from where the short one ends."""
    patterns = draw(alpha, 48, np.random.default_rng(20)).stored
    cut, long = (
        daydream(patterns, 16.0, np.random.default_rng(1), duration=duration)
        for duration in (short, DEFAULTS.duration)
    )
    assert long.drift <= DEFAULTS.drift < cut.drift
    assert math.sqrt(2 - 2 * cosine(cut.couplings, long.couplings)) > DEFAULTS.drift


def test_a_training_by_daydreaming_has_a_least_duration() -> None:
    with pytest.raises(ParameterError, match="duration must be a finite number >= 1"):
        daydream(signs((3, 10), np.random.default_rng(0)), 8.0, np.random.default_rng(0), duration=0.5)


def test_dreams_in_groups_give_the_couplings_of_one_dream_after_another() -> None:
    """Measured: cosine 0.988; mean stabilities 1.374 and 1.377."""
    patterns = draw(0.4, 50, np.random.default_rng(15)).stored
    grouped, single = (
        daydream(patterns, 8.0, np.random.default_rng(16), duration=4, dreams=dreams) for dreams in (None, 1)
    )
    assert cosine(grouped.couplings, single.couplings) > 0.975
    assert stabilities(grouped.couplings, patterns).mean() == pytest.approx(
        stabilities(single.couplings, patterns).mean(), abs=0.02
    )


def test_networks_that_learned_examples_of_few_features_have_attractors_near_unseen_ones() -> None:
    """Measured final overlaps with unseen examples: 0.999 for 6 features, 0.18 for independent patterns."""
    found = {}
    for alpha_D in (0.04, 0.0):
        patterns = draw(1.0, 150, np.random.default_rng(6), alpha_D=alpha_D, unseen=30)
        couplings = pseudo_likelihood(patterns.stored, 1.0, 0.01).couplings
        ended = retrieval_map(couplings, patterns.unseen, [1.0], np.random.default_rng(7))
        found[alpha_D] = float(ended.final_overlap.mean())
    assert found[0.04] > 0.95
    assert found[0.0] < 0.4


# -- the kernel


@pytest.mark.parametrize("rule", ["hebb", "pseudo_inverse", "pseudo_likelihood", "daydreaming"])
def test_a_cell_of_the_kernel_is_what_the_library_finds(rule: str) -> None:
    cell: Any = AXES.cell(rule=rule, alpha_D=0.3, beta=2.0, tau=4.0, alpha=0.25, N=40, seed=1)
    options = {
        "overlaps": [0.5, 1.0],
        "bins": [0.0, 1.0, 2.0],
        "trials": 6,
        "regularisation": 0.1,
        "duration": 8.0,
        "drift": 1.0,
    }
    outcome = load_kernel("memory", (), options).compute(cell, cell_rng(1, cell))
    rng = cell_rng(1, cell)
    patterns = draw(0.25, 40, rng, alpha_D=0.3, unseen=6)
    stored, values = patterns.stored, outcome.values
    if rule == "daydreaming":
        couplings = daydream(stored, 4.0, rng, duration=8).couplings
    elif rule == "pseudo_likelihood":
        couplings = pseudo_likelihood(stored, 2.0, 0.1).couplings
    else:
        couplings = {"hebb": hebb, "pseudo_inverse": pseudo_inverse}[rule](stored)
    found = stabilities(couplings, stored)
    assert values["stability_min"] == found.min()
    assert values["stability_mean"] == found.mean()
    np.testing.assert_allclose(values["stability_histogram"], [(found < 1).mean(), (found >= 1).mean()])
    assert values["fixed_points"] == is_fixed(couplings, stored).mean()
    ended = retrieval_map(couplings, stored[:6], (0.5, 1.0), rng)
    np.testing.assert_array_equal(values["final_overlap"], ended.final_overlap.mean(axis=1))
    assert values["unsettled"] == ended.unsettled
    unseen = retrieval_map(couplings, patterns.unseen, (1.0,), rng).final_overlap
    assert values["unseen_overlap"] == unseen.mean()
    assert outcome.converged


def test_a_rule_that_did_not_converge_is_reported() -> None:
    cell: Any = AXES.cell(rule="daydreaming", alpha_D=0.0, beta=1.0, tau=4.0, alpha=0.5, N=40, seed=1)
    outcome = load_kernel("memory", (), {"duration": 8.0, "drift": 1e-6, "trials": 2}).compute(
        cell, cell_rng(1, cell)
    )
    assert outcome.values["residual"] > 1e-6
    assert not outcome.converged


def test_a_training_of_duration_below_8_is_never_called_converged() -> None:
    """At large tau and small load its direction moves slowly, which is not the same as little. At a load of
    0.05 there is one pattern, and nothing moves at all."""
    for alpha, duration in ((0.05, 7.9), (0.05, 8.0), (0.2, 7.9), (0.2, 8.0)):
        cell: Any = AXES.cell(rule="daydreaming", alpha_D=0.0, beta=1.0, tau=4.0, alpha=alpha, N=20, seed=1)
        options = {"duration": duration, "drift": 1.0, "trials": 2}
        outcome = load_kernel("memory", (), options).compute(cell, cell_rng(1, cell))
        assert outcome.converged is (duration >= 8)
        assert (outcome.values["residual"] == 0) is (alpha == 0.05)


def test_the_references_are_the_theory_of_independent_patterns() -> None:
    kernel = load_kernel("memory", (), {"regularisation": 0.1})
    rules = np.array(["hebb", "pseudo_inverse", "pseudo_likelihood", "daydreaming"])
    (reference,) = kernel.references
    alpha = np.full(4, 0.1)
    found = reference.compute(rule=rules, alpha=alpha)
    expected = [10**0.5, 3.0, theory.pseudo_likelihood_stability(0.1, 1.0, 0.1), math.nan]
    np.testing.assert_allclose(found["stability_theory"], expected)
    np.testing.assert_allclose(found["overlap_theory"], [theory.hebb_overlap(0.1), *[math.nan] * 3])
    features = reference.compute(rule=rules, alpha=alpha, alpha_D=np.full(4, 0.2))
    assert np.isnan(features["stability_theory"]).all()


@pytest.mark.parametrize(
    ("options", "rule", "alpha", "named"),
    [
        ("overlaps = [0.5, 0.2]", "hebb", 0.2, "overlaps"),
        ("bins = [1.0, 1.0]", "hebb", 0.2, "bins"),
        ("regularisation = 0.0", "hebb", 0.2, "regularisation"),
        ("duration = 0.5", "daydreaming", 0.2, "duration"),
        ("", "storkey", 0.2, "rule"),
        ("", "hebb", 0.01, "alpha"),
        ("", "pseudo_inverse", 1.0, "alpha"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line(
    tmp_path: Path, options: str, rule: str, alpha: float, named: str
) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(FILE.format(options=options, rule=json.dumps(rule), alpha=json.dumps([alpha])))
    found = bendscape("plan", file, "--store", tmp_path / "store.zarr")
    assert found.returncode == 2
    assert named in found.stderr
    assert len(found.stderr.splitlines()) == 1
