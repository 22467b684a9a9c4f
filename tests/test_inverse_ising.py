"""Inverse Ising: enumeration, Monte Carlo, every method of inference, and the kernel."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from command_line import bendscape
from scipy.optimize import linprog, minimize
from scipy.stats import chi2

from bendscape.core.errors import ParameterError
from bendscape.core.inverse_ising import sampling
from bendscape.core.inverse_ising.estimate import score
from bendscape.core.inverse_ising.exact import moments, spins_of, state_probabilities
from bendscape.core.inverse_ising.maximum_likelihood import fisher_information, maximum_likelihood
from bendscape.core.inverse_ising.mean_field import empirical_moments, naive_mean_field, tap
from bendscape.core.inverse_ising.model import (
    FloatArray,
    Ising,
    pairs,
    random_regular_graph,
    sherrington_kirkpatrick,
    square_lattice,
)
from bendscape.core.inverse_ising.pseudo_likelihood import pseudo_likelihood
from bendscape.core.inverse_ising.sampling import draw_samples, exponents, heat_bath, swendsen_wang
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.kernels.inverse_ising import AXES, METHODS, SHARED, infer

CRITICAL = math.asinh(1) / 2
FILE = """
[campaign]
name = "couplings"
store = "unused"
entropy = 1

[kernel]
name = "inverse_ising"
{options}

[grid]
model = "{model}"
method = "{method}"
beta = 0.3
samples = 100
N = {N}
seeds = 2
"""


def small(scale: float, N: int = 6, *, field: float = 0.0) -> Ising:
    """Gaussian couplings of a given scale, and fields of another."""
    rng = np.random.default_rng(11)
    return Ising(scale * math.sqrt(N) * sherrington_kirkpatrick(N, rng), field * rng.uniform(0.5, 1.5, N))


def lattice(side: int, beta: float, field: float = 0.0) -> Ising:
    return Ising(beta * square_lattice(side**2), np.full(side**2, field))


# -- models


def test_the_enumeration_is_the_sum_over_all_states() -> None:
    model = small(0.4, 4, field=0.2)
    states = np.array(list(itertools.product([1, -1], repeat=4)))[:, ::-1]  # bit i set: spin i is -1
    assert np.array_equal(spins_of(np.arange(16), 4), states)
    weight = np.array(
        [
            math.exp(
                sum(model.theta[i, j] * s[i] * s[j] for i in range(4) for j in range(i)) + s @ model.field
            )
            for s in states
        ]
    )
    p = weight / weight.sum()
    np.testing.assert_allclose(state_probabilities(model), p, rtol=1e-12)
    np.testing.assert_allclose(np.exp(exponents(model, states)), weight, rtol=1e-12)
    m, C = moments(model)
    np.testing.assert_allclose(m, p @ states, atol=1e-14)
    np.testing.assert_allclose(C, (states.T * p) @ states - np.outer(m, m), atol=1e-14)


def test_graphs_have_their_degrees() -> None:
    rng = np.random.default_rng(0)
    for J, degree in ((square_lattice(9), 4), (square_lattice(25), 4), (random_regular_graph(30, 3, rng), 3)):
        assert np.array_equal(J, J.T)
        assert not np.diag(J).any()
        assert set(np.unique(J)) == {0.0, 1.0}
        assert (J.sum(axis=0) == degree).all()
    signs = random_regular_graph(30, 3, rng, random_signs=True)
    assert set(np.unique(signs)) == {-1.0, 0.0, 1.0}
    assert (np.abs(signs).sum(axis=0) == 3).all()
    J = sherrington_kirkpatrick(200, rng)
    assert pairs(J).std() == pytest.approx(200**-0.5, rel=0.03)  # 4 standard errors of 1/sqrt(2 * 19900)


def test_random_regular_graphs_are_uniform() -> None:
    """There are 12 graphs of degree 2 on 5 vertices. chi squared of 1200 draws: false alarm 1e-4."""
    rng = np.random.default_rng(1)
    found = [tuple(pairs(random_regular_graph(5, 2, rng))) for _ in range(1200)]
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == 12
    assert ((counts - 100) ** 2 / 100).sum() < chi2.isf(1e-4, 11)


@pytest.mark.parametrize(("N", "degree"), [(3, 3), (5, 3), (20, 7), (20, 0)])
def test_a_graph_that_does_not_exist_is_refused(N: int, degree: int) -> None:
    with pytest.raises(ParameterError, match=r"degree"):
        random_regular_graph(N, degree, np.random.default_rng(0))


# -- samples


@pytest.mark.parametrize(
    ("sampler", "model"),
    [
        (swendsen_wang, lattice(3, 0.3)),
        (swendsen_wang, lattice(3, 0.2, field=0.1)),
        (heat_bath, lattice(3, 0.3, field=-0.1)),
        (heat_bath, small(0.4, 8)),
        (None, small(0.4, 8, field=0.2)),
    ],
)
def test_samples_have_the_exact_moments(sampler: Any, model: Ising) -> None:
    """All <s_i> and <s_i s_j>, of 4000 samples: at most 45 numbers within 4.5 standard errors, a false alarm
    in fewer than 1 of 3000 runs of one case."""
    rng = np.random.default_rng(2)
    spins = draw_samples(model, 4000, rng).spins if sampler is None else sampler(model, 4000, rng, 30)
    s = spins.astype(np.float64)
    m, C = moments(model)
    exact = np.concatenate([m, pairs(C + np.outer(m, m))])
    found = np.concatenate([s.mean(axis=0), pairs(s.T @ s / len(s))])
    assert (np.abs(found - exact) < 4.5 * np.sqrt((1 - exact**2) / len(s))).all()


def kaufman(side: int, K: float) -> float:
    """Log of the partition function of the periodic lattice: Kaufman, Phys. Rev. 76 (1949) 1232, eq. 44."""
    angle = np.pi * np.arange(2 * side) / side
    gamma = np.arccosh(np.cosh(2 * K) / np.tanh(2 * K) - np.cos(angle))
    gamma[0] = 2 * K + math.log(math.tanh(K))
    half = side * gamma / 2
    products = [
        np.prod(2 * f(half[first::2]))
        for f, first in ((np.cosh, 1), (np.sinh, 1), (np.cosh, 0), (np.sinh, 0))
    ]
    return math.log(0.5 * sum(products)) + side**2 / 2 * math.log(2 * math.sinh(2 * K))


def kaufman_bonds(side: int, K: float) -> float:
    """Mean of the sum over bonds of s_i s_j."""
    return (kaufman(side, K + 1e-5) - kaufman(side, K - 1e-5)) / 2e-5


def test_kaufmans_energy_is_that_of_the_enumeration() -> None:
    """Central differences with steps of 1e-5: 1e-8."""
    model = lattice(4, CRITICAL)
    C = moments(model)[1]
    assert kaufman_bonds(4, CRITICAL) == pytest.approx(pairs(C)[model.edges].sum(), rel=1e-7)


@pytest.mark.parametrize(
    ("sampler", "K"), [(swendsen_wang, CRITICAL), (swendsen_wang, 0.6), (heat_bath, 0.3)]
)
def test_the_energy_of_a_lattice_is_kaufmans(sampler: Any, K: float) -> None:
    """800 chains on 6 x 6 spins; 4.5 standard errors: a false alarm in 1 of 1e5 runs."""
    model = lattice(6, K)
    bonds = exponents(model, sampler(model, 800, np.random.default_rng(3), 40)) / K
    error = bonds.std(ddof=1) / math.sqrt(len(bonds))
    assert error < 0.02 * 72
    assert abs(bonds.mean() - kaufman_bonds(6, K)) < 4.5 * error


def test_chains_that_are_too_short_are_told_from_those_that_are_not() -> None:
    """At the critical point of 8 x 8 spins, 2 moves and 40. |difference| < 4.5: a false alarm in 1e5 runs."""
    model, rng = lattice(8, CRITICAL), np.random.default_rng(4)
    assert abs(draw_samples(model, 200, rng, sweeps=2).start_difference) > 5
    assert abs(draw_samples(model, 200, rng, sweeps=40).start_difference) < 4.5
    assert abs(draw_samples(small(0.5, 20), 200, rng, sweeps=1).start_difference) > 5
    assert draw_samples(model, 3, rng, sweeps=5).spins.shape == (3, 64)


def test_a_quench_without_a_field_starts_from_both_signs_and_with_one_from_one() -> None:
    """Without moves, all cold starts are one state; 50 chains have one sign in 1 of 6e14 runs."""
    for field in (0.0, 0.2):
        cold = heat_bath(small(0.5, 8, field=field), 100, np.random.default_rng(13), 0)[1::2]
        assert len(np.unique(cold, axis=0)) == (1 if field else 2)
        assert (cold == cold[0]).all(axis=1).sum() + (cold == -cold[0]).all(axis=1).sum() == 50


@pytest.mark.parametrize(("beta", "equilibrium"), [(1.0, True), (5.0, False)])
def test_a_glass_that_is_out_of_equilibrium_has_not_converged(
    beta: float, equilibrium: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Sherrington-Kirkpatrick model with 30 sweeps of the heat bath, where enumeration has the energy: of
    the hot chains of the glass it is off by 10 standard errors and more. At beta = 1, 4.5 standard errors
    for the energy and the kernel's 5 for the check: a false alarm in fewer than 1 of 1e5 runs."""
    monkeypatch.setattr(sampling, "MOST_SPINS", 0)
    point = {"model": "sherrington_kirkpatrick", "beta": beta, "samples": 100, "N": 16, "seed": 0}
    cell = AXES.cell(method="tap", **point)
    outcome = load_kernel("inverse_ising", (), {"sweeps": 30}).compute(cell, cell_rng(5, cell))
    assert outcome.converged == equilibrium

    rng = cell_rng(5, SHARED.cell(**point))
    model = Ising(beta * sherrington_kirkpatrick(16, rng), np.zeros(16))
    hot = exponents(model, heat_bath(model, 1000, rng, 30)[0::2])
    off = hot.mean() - pairs(moments(model)[1]) @ pairs(model.theta)
    in_errors = abs(off) / (hot.std(ddof=1) / math.sqrt(len(hot)))
    assert in_errors < 4.5 if equilibrium else in_errors > 10


# -- inference


def test_maximum_likelihood_has_the_moments_of_the_samples() -> None:
    spins = draw_samples(small(0.3, 7, field=0.2), 500, np.random.default_rng(5)).spins
    found = maximum_likelihood(spins)
    for exact, empirical in zip(
        moments(Ising(found.theta, found.field)), empirical_moments(spins), strict=True
    ):
        np.testing.assert_allclose(exact, empirical, atol=1e-9)


def test_maximum_likelihood_errs_by_the_fisher_information() -> None:
    """M delta^T F delta is chi squared of 36 degrees of freedom up to M^(-1/2), M = 20000; between the
    quantiles of 1e-4 on either side."""
    model = small(0.3, 8, field=0.1)
    found = maximum_likelihood(draw_samples(model, 20_000, np.random.default_rng(6)).spins)
    off = np.concatenate([pairs(found.theta - model.theta), found.field - model.field])
    distance = 20_000 * float(off @ fisher_information(model) @ off)
    assert chi2.ppf(1e-4, 36) < distance < chi2.isf(1e-4, 36)


def falls(of: Any, model: Any) -> float:
    """Power of two by which a residual falls when couplings are halved."""
    return math.log2(of(model(0.02)) / of(model(0.01)))


def test_naive_mean_field_has_the_error_of_the_high_temperature_expansion() -> None:
    """Without fields: theta + (2/3) theta^3, and terms of fourth order or higher."""

    def residual(model: Ising, third: float) -> float:
        found = naive_mean_field(*moments(model)).theta
        return float(np.abs(found - model.theta - third * model.theta**3).max())

    assert falls(lambda model: residual(model, 0.0), small) == pytest.approx(3, abs=0.1)
    assert falls(lambda model: residual(model, 2 / 3), small) > 3.8


def test_tap_removes_the_error_of_second_order() -> None:
    def residual(method: Any, part: str) -> Any:
        def of(model: Ising) -> float:
            return float(np.abs(getattr(method(*moments(model)), part) - getattr(model, part)).max())

        return of

    def fields(scale: float) -> Ising:
        return small(scale, field=0.5)

    for part in ("theta", "field"):
        assert falls(residual(naive_mean_field, part), fields) == pytest.approx(2, abs=0.1)
        assert falls(residual(tap, part), fields) > 2.9


def test_tap_is_naive_mean_field_without_magnetisation() -> None:
    m, C = moments(small(0.3))
    assert np.abs(m).max() < 1e-15
    np.testing.assert_allclose(tap(m, C).theta, naive_mean_field(m, C).theta, rtol=0, atol=1e-14)


@pytest.mark.parametrize("l2", [0.0, 3.0])
def test_pseudo_likelihood_is_the_logistic_regression_of_each_spin(l2: float) -> None:
    """Against BFGS of one regression after the other, to its tolerance."""
    spins = draw_samples(small(0.3, 6, field=0.1), 300, np.random.default_rng(7)).spins
    s = spins.astype(np.float64)
    rows, fields = np.zeros((6, 6)), np.zeros(6)
    for r in range(6):
        others = np.delete(np.arange(6), r)

        def loss(at: FloatArray, r: int = r, others: Any = others) -> float:
            terms = np.logaddexp(0, -2 * s[:, r] * (s[:, others] @ at[:-1] + at[-1]))
            return float(terms.sum() + l2 / 2 * (at[:-1] @ at[:-1])) / len(s)

        found = minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-7, "xrtol": 0}).x
        rows[r, others], fields[r] = found[:-1], found[-1]
    estimate = pseudo_likelihood(spins, l2)
    np.testing.assert_allclose(estimate.theta, (rows + rows.T) / 2, atol=1e-5)
    np.testing.assert_allclose(estimate.field, fields, atol=1e-5)


def test_the_error_of_pseudo_likelihood_falls_as_the_root_of_the_number_of_samples() -> None:
    """From 500 to 8000 samples by 4. Over 8 seeds the error of 36 couplings has 4 per cent, the ratio 6: five
    of them."""
    model = lattice(3, 0.25)
    rng = np.random.default_rng(8)
    errors = [
        [
            score(pseudo_likelihood(draw_samples(model, M, rng).spins).theta, model.theta).error
            for _ in range(8)
        ]
        for M in (500, 8000)
    ]
    few, many = np.mean(errors, axis=1)
    assert few / many == pytest.approx(4, abs=1.2)
    assert many < 0.15


def test_samples_that_determine_nothing_give_no_number() -> None:
    rng = np.random.default_rng(9)
    spins = np.where(rng.random((40, 8)) < 0.5, 1, -1).astype(np.int8)
    few, copied = spins[:8], spins.copy()
    copied[:, 1] = copied[:, 0]
    with_threshold = spins.copy()
    with_threshold[:, 0] = np.where(spins[:, 1:4].sum(axis=1) > 0, 1, -1)
    with_constant = spins.copy()
    with_constant[:, 2] = 1
    cases = [
        (few, "naive_mean_field", "singular_correlations"),
        (few, "tap", "singular_correlations"),
        (few, "pseudo_likelihood", "singular_correlations"),
        (few, "maximum_likelihood", "no_finite_estimate"),
        (copied, "naive_mean_field", "singular_correlations"),
        (copied, "maximum_likelihood", "no_finite_estimate"),
        (with_threshold, "pseudo_likelihood", "no_finite_estimate"),
        (with_constant, "naive_mean_field", "singular_correlations"),
        (with_constant, "pseudo_likelihood", "no_finite_estimate"),
        (with_constant, "maximum_likelihood", "no_finite_estimate"),
    ]
    for data, method, flag in cases:
        found = infer(method, data)
        assert found.flag == flag, method
        assert np.isnan(found.theta).all()
        assert np.isnan(found.field).all()
    for data in (copied, with_threshold):
        for method in ("pseudo_likelihood", "maximum_likelihood"):
            found = infer(method, data, l2=1.0)
            assert found.flag == "estimated"
            assert np.isfinite(found.theta).all()
    strong = np.array([[1.0, -0.9], [-0.9, 1.0]])
    assert tap(np.array([0.9, 0.9]), strong).flag == "no_real_solution"


def on_the_boundary(rows: FloatArray) -> bool:
    """Whether some direction has products >= 0 with all rows, and not all of them 0."""
    found = linprog(-rows.sum(axis=0), A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1))
    return bool(found.fun < -1e-9)


def test_a_likelihood_has_an_estimate_where_its_maximum_is_finite() -> None:
    """A linear programme decides. Pseudo-likelihood: no spin's h has s h >= 0 in all samples. Maximum
    likelihood: the moments of the samples lie inside the polytope of all moments, not on its boundary."""
    rng = np.random.default_rng(12)
    flags = []
    for _ in range(12):
        s = np.where(rng.random((20, 5)) < 0.5, 1, -1).astype(np.int8)
        others = [np.concatenate([np.delete(s, r, axis=1), np.ones((20, 1))], axis=1) for r in range(5)]
        infinite = any(on_the_boundary(s[:, [r]] * others[r]) for r in range(5))
        flags.append(infinite)
        assert pseudo_likelihood(s).flag == ("no_finite_estimate" if infinite else "estimated")
        products = [
            np.concatenate([of[:, i] * of[:, j], of], axis=1)
            for of in (s, spins_of(np.arange(32), 5))
            for i, j in [np.triu_indices(5, 1)]
        ]
        infinite = on_the_boundary(products[0].mean(axis=0) - products[1])
        flags.append(infinite)
        assert maximum_likelihood(s).flag == ("no_finite_estimate" if infinite else "estimated")
    assert 0 < sum(flags[0::2]) < 12
    assert 0 < sum(flags[1::2]) < 12


@pytest.mark.parametrize("method", ["pseudo_likelihood", "maximum_likelihood"])
def test_a_negative_regularisation_and_too_many_spins_are_refused(method: str) -> None:
    with pytest.raises(ParameterError, match="l2"):
        infer(method, np.ones((4, 3), np.int8), l2=-1.0)
    with pytest.raises(ParameterError, match="at most 16"):
        maximum_likelihood(np.ones((4, 17), np.int8))


def test_scores_are_those_of_their_definitions() -> None:
    rng = np.random.default_rng(10)
    theta = 0.3 * random_regular_graph(8, 3, rng)
    found = np.round(theta + 0.2 * sherrington_kirkpatrick(8, rng), 1)  # rounded, so that there are ties
    got, true, is_edge = pairs(found), pairs(theta), pairs(theta) != 0
    scores = score(found, theta)
    assert scores.error == pytest.approx(math.sqrt(((got - true) ** 2).sum() / (true**2).sum()))
    ratio = (~is_edge).sum() / is_edge.sum()
    assert scores.error**2 == pytest.approx(scores.error_edges**2 + ratio * scores.error_non_edges**2)
    over = np.sign(np.abs(got[is_edge])[:, None] - np.abs(got[~is_edge]))
    assert scores.edge_auc == pytest.approx((0.5 * (1 + over)).mean())
    assert scores.edges_recovered == float((over > 0).all())
    perfect = score(theta, theta)
    assert perfect == (0, 0, 0, 1, 1)
    every = score(0.5 * sherrington_kirkpatrick(8, rng), sherrington_kirkpatrick(8, rng))
    assert every.error == every.error_edges
    assert all(map(math.isnan, every[2:]))


# -- the kernel


def test_all_methods_infer_from_the_same_samples_and_other_seeds_from_others() -> None:
    kernel = load_kernel("inverse_ising", (), {"sweeps": 3})
    point = {"model": "random_regular_graph", "beta": 0.3, "samples": 60, "N": 24}
    differences = {
        (method, seed): kernel.compute(cell, cell_rng(5, cell)).values["start_difference"]
        for method in METHODS[:3]
        for seed in (0, 1)
        for cell in [AXES.cell(method=method, seed=seed, **point)]
    }
    for seed in (0, 1):
        assert len({differences[method, seed] for method in METHODS[:3]}) == 1
    assert differences["tap", 0] != differences["tap", 1]


def test_a_cell_of_the_kernel_is_what_the_library_finds() -> None:
    point: dict[str, Any] = {"model": "square_lattice", "beta": 0.25, "field": 0.4, "samples": 300, "N": 9}
    rng = cell_rng(5, SHARED.cell(seed=1, **point))
    model = lattice(3, 0.25, field=0.1)
    spins = draw_samples(model, 300, rng).spins
    for method in METHODS:
        cell = AXES.cell(method=method, seed=1, **point)
        outcome = load_kernel("inverse_ising", (), {"l2": 0.5}).compute(cell, cell_rng(5, cell))
        expected = score(infer(method, spins, 0.5).theta, model.theta)
        assert outcome.values["reconstruction_error"] == expected.error
        assert outcome.values["edge_auc"] == expected.edge_auc
        assert outcome.values["outcome"] == 0
        assert math.isnan(outcome.values["start_difference"])  # type: ignore[arg-type]
        assert outcome.converged


def test_a_cell_out_of_equilibrium_has_not_converged_and_one_without_estimate_says_why() -> None:
    cell = AXES.cell(model="square_lattice", method="tap", beta=CRITICAL, samples=100, N=64, seed=0)
    assert not load_kernel("inverse_ising", (), {"sweeps": 1}).compute(cell, cell_rng(1, cell)).converged
    cell = AXES.cell(model="square_lattice", method="tap", beta=0.2, samples=9, N=9, seed=0)
    outcome = load_kernel("inverse_ising", (), {}).compute(cell, cell_rng(1, cell))
    assert outcome.converged
    assert outcome.values["outcome"] == 1
    assert outcome.values["recovered"] == 0
    assert math.isnan(outcome.values["reconstruction_error"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "model", "method", "N", "named"),
    [
        ("", "square_lattice", "tap", [9, 10], "N = 10 "),
        ("", "square_lattice", "tap", [4], "N = 4 "),
        ("", "random_regular_graph", "tap", [9], "N > 3 with 3 N even"),
        ("degree = 7", "random_regular_graph", "tap", [8], "degree"),
        ("l2 = -1", "square_lattice", "tap", [9], "l2"),
        ("", "square_lattice", "maximum_likelihood", [16, 25], "where = "),
        ("", "square_lattice", "bethe", [9], "method"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line(
    tmp_path: Any, options: str, model: str, method: str, N: list[int], named: str
) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(FILE.format(options=options, model=model, method=method, N=json.dumps(N)))
    found = bendscape("plan", file, "--store", tmp_path / "store.zarr")
    assert found.returncode == 2
    assert named in found.stderr
    assert len(found.stderr.splitlines()) == 1
