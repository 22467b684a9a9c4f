"""The mean overlap at finite N: the universal function, its limits, and samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import eigh, eigh_tridiagonal

from bendscape.analysis.estimate.critical import critical_point
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size, crossover_size
from bendscape.core.quadratic.finite_size.edge_scales import edge_scales
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.finite_size.spiked_edge import (
    TRACY_WIDOM_MEAN,
    TRACY_WIDOM_SD,
    critical_eigenvalue,
    critical_overlap,
    many_spikes,
)
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.core.quadratic.theory.outlier import asymptotics, transition


@pytest.mark.parametrize("w", [-2.0, 0.0, 1.0])
def test_the_table_agrees_with_sampled_spiked_matrices(w: float) -> None:
    """800 corners of n = 10^4: within 4 standard errors and 4 percent (n^(-1/3) = 0.046); 10^-4 by chance."""
    n, rows, draws = 10_000, 240, 800
    rng = np.random.default_rng(9)
    theta = 1 + w * n ** (-1 / 3) if w <= 0 else (1 - 2 * w * n ** (-1 / 3)) ** -0.5
    exact = n ** (2 / 3) * (theta + 1 / theta - 2) if w > 0 else 0.0
    overlaps, places = [], []
    for _ in range(draws):
        diagonal = rng.standard_normal(rows) * math.sqrt(2 / n)
        diagonal[0] += theta
        off = np.sqrt(rng.chisquare(n - 1 - np.arange(rows - 1)) / n)
        values, vectors = eigh_tridiagonal(diagonal, off, select="i", select_range=(rows - 1, rows - 1))
        overlaps.append(n ** (1 / 3) * vectors[0, 0] ** 2)
        places.append(n ** (2 / 3) * (2 - values[0]) + exact)
    mean, sd = critical_eigenvalue(w, 1)
    band = 4 / math.sqrt(draws)
    assert np.mean(overlaps) == pytest.approx(
        critical_overlap(w, 1), abs=band * np.std(overlaps) + 0.04 * critical_overlap(w, 1)
    )
    assert np.mean(places) == pytest.approx(mean, abs=band * sd + 0.05)
    assert np.std(places) == pytest.approx(sd, rel=0.12)


@pytest.mark.parametrize("r", [1, 3, 20])
def test_the_universal_function_increases_and_has_both_limits(r: int) -> None:
    w = np.linspace(-30, 30, 400)
    phi = [critical_overlap(float(x), r) for x in w]
    assert phi == sorted(phi)
    scale = r ** (1 / 3)
    assert critical_overlap(300 * scale, r) == pytest.approx(600 * scale, rel=1e-4)
    assert critical_overlap(-300 * scale, r) == pytest.approx(r / (300 * scale) ** 2, rel=1e-3)


@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(2, 2, 0.5), Model(1, 1, 1.5)], ids=str)
def test_above_threshold_it_tends_to_the_overlap_of_the_outlier(model: Model) -> None:
    alpha = 1.4 * transition(model).alpha_bbp
    assert mean_overlap_sq(model, alpha, 1e15) == pytest.approx(
        asymptotics(model, alpha).overlap_sq, rel=1e-3
    )


def test_below_threshold_it_tends_to_that_of_a_vector_at_the_edge() -> None:
    """N m^2 tends to p_star S'/(lambda_minus - S)^2: from averages written out here, at a sharp edge."""
    model, alpha = Model(1, 1, 0.7), 0.9
    rng, M = np.random.default_rng(0), 4_000_000
    y, yhat = rng.chisquare(1, M), rng.chisquare(1, M)
    gamma = edge_scales(model, alpha).gamma_edge
    q = 2 * (3 * yhat - y) / (model.a + (1 - gamma) * y + gamma * 3 * yhat)
    S, S_prime = alpha * (y * q).mean(), alpha * (y * q**2).mean()
    limit = S_prime / (asymptotics(model, alpha).lambda_minus - S) ** 2
    assert 1e15 * mean_overlap_sq(model, alpha, 1e15) == pytest.approx(
        limit, rel=0.05
    )  # 4e6 samples: 1 percent


@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(2, 2, 0.5)], ids=str)
def test_at_a_continuous_threshold_it_equals_the_level_used_by_the_estimator(model: Model) -> None:
    critical = critical_point(model)
    level = 1e4 * mean_overlap_sq(model, critical.alpha, 1e12)
    assert level == pytest.approx(critical.overlap_level, rel=0.02)  # both sampled apart, to 1 percent


@pytest.mark.parametrize(
    ("alpha", "sampled"), [(1.2, 0.031), (1.25, 0.037), (1.3, 0.044), (1.375, 0.056), (1.5, 0.081)]
)
def test_large_samples_of_a_discontinuous_transition_follow_it(alpha: float, sampled: float) -> None:
    """Means at N = 10^4 of an independent sampling, known to two digits and some 5 percent."""
    assert mean_overlap_sq(Model(1, 1, 1.5), alpha, 1e4) == pytest.approx(sampled, rel=0.12)


@pytest.mark.parametrize(
    ("model", "alpha"),
    [(Model(1, 1, 0.7), 1.2434), (Model(1, 1, 0.7), 2.0), (Model(1, 1, 1.5), 1.2), (Model(2, 2, 0.5), 2.8)],
    ids=str,
)
def test_samples_have_the_mean_overlap_of_the_law(model: Model, alpha: float) -> None:
    """120 cells of N = 200, within 4 standard errors and 25 percent: 1 in 10^4 by chance."""
    seen = [observe(model, alpha, 200, np.random.default_rng((8, s))).overlap_sq_space for s in range(120)]
    expected = mean_overlap_sq(model, alpha, 200)
    band = 4 * np.std(seen) / math.sqrt(120) + 0.25 * expected
    assert np.mean(seen) == pytest.approx(expected, abs=band)
    assert np.mean(seen) > 0.6 * expected


@pytest.mark.parametrize("model", [Model(1, 1, 1.5), Model(4, 2, 1.5), Model(4, 1, 1.5)], ids=str)
def test_beyond_the_crossover_the_overlap_appears_at_the_threshold_of_that_size(model: Model) -> None:
    """exp(-1) of the branch's overlap, and what is left behind a label. 40 cells of drawn labels alone at the
    threshold of (4, 1, 1.5) at N = 1e5 gave 0.0095 +- 0.0017 against 0.0116 of exp(-1); what lies behind a
    label, and at 1e5 the matrix, which drawn labels lack, make the law 0.0178 there."""
    for N in (1e3 * crossover_size(model), 1e24):
        threshold, alpha_bbp = alpha_bbp_at_size(model, N), transition(model).alpha_bbp
        at, far = (mean_overlap_sq(model, alpha, N) for alpha in (threshold, alpha_bbp))
        jump = transition(model).overlap_sq_jump
        assert mean_overlap_sq(model, 0.9 * threshold, N) < 0.02 * jump
        assert far == pytest.approx(jump, rel=0.02)
        assert 0 < at < far
        # exp(-1) of what the branch has there, and the little that is left of it behind a label.
        if not math.isnan(edge_scales(model, threshold).gamma_star):
            shown = edge_scales(model, threshold).overlap_sq / math.e
            assert 0.97 * shown < at < (1.05 if N == 1e24 else 1.25) * shown


@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(1, 1, 1.5)], ids=str)
def test_it_increases_with_the_load_and_stays_between_0_and_1(model: Model) -> None:
    for N in (100, 1e5, 1e10, 1e24):
        curve = [mean_overlap_sq(model, float(alpha), N) for alpha in np.linspace(0.7, 40, 120)]
        assert curve == sorted(curve)
        assert 0 <= curve[0] <= curve[-1] <= 1


def test_the_law_is_nan_where_there_is_none_and_invalid_sizes_are_refused() -> None:
    assert math.isnan(mean_overlap_sq(Model(math.inf, 1, 1.0), 1.0, 100))
    with pytest.raises(ParameterError, match="N must be"):
        mean_overlap_sq(Model(1, 1, 1.5), 1.0, 1)


@pytest.mark.parametrize("r", [3, 12])
def test_the_edge_of_many_spikes_holds_at_any_number(r: int) -> None:
    """60 matrices of n = 600 at w = 0: mean within 4 standard errors and 0.25, sd within 40 percent."""
    n, rng = 600, np.random.default_rng(r)
    x = r / n
    places = []
    for _ in range(60):
        G = rng.standard_normal((n, n)) / math.sqrt(2 * n)
        G = G + G.T
        G[range(r), range(r)] += 1
        top = eigh(G, eigvals_only=True, subset_by_index=(n - 1, n - 1))[0]
        places.append(top)
    # What the limit of many spikes leaves out at this n, exactly: min over z of z + (1 - x)/z + x/(z - 1).
    z = np.linspace(1.0001, 3, 200_000)
    exact = float((z + (1 - x) / z + x / (z - 1)).min())
    left_out = n ** (2 / 3) * (exact - 2) - r ** (2 / 3) * many_spikes(0.0)[0]
    xi = n ** (2 / 3) * (2 - np.array(places)) + left_out
    mean, sd = critical_eigenvalue(0.0, r)
    assert np.mean(xi) == pytest.approx(mean, abs=4 * sd / math.sqrt(60) + 0.25)
    assert np.std(xi) == pytest.approx(sd, rel=0.4)


def test_untabulated_numbers_of_spikes_lie_between_the_table_and_infinity() -> None:
    for x in (-10.0, -1.0, 0.0, 2.0, 20.0):
        scale = many_spikes(x)[1]
        for moment, limit in ((0, TRACY_WIDOM_MEAN), (1, TRACY_WIDOM_SD)):
            far = []
            for r in (64, 4096, 10**6):
                value = critical_eigenvalue(x * r ** (1 / 3), r)[moment]
                if moment == 0:
                    value += r ** (2 / 3) * (many_spikes(x)[0] - max(x, 0.0) ** 2)
                far.append(abs(value / scale - limit))
            assert far[0] >= far[1] >= far[2] - 1e-6
            assert far[2] < 0.02


def test_the_edge_of_many_spikes_is_the_minimum_of_the_map() -> None:
    for x in (-1e4, -3.0, 0.0, 0.7, 5.0, 1e4):
        edge, scale, overlap = many_spikes(x)
        s = overlap / 2
        nearby = [(s * f) ** 2 + 1 / (s * f - x) for f in (1 - 1e-4, 1 + 1e-4) if s * f > x]
        assert all(value >= edge * (1 - 1e-12) for value in nearby)
        assert scale > 1
