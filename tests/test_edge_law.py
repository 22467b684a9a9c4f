"""The law of the lowest eigenvalue at finite N: its ingredients, its limits, and samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import gammaln

from bendscape.analysis.estimate.critical import critical_point
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.edge_scales import edge_scales
from bendscape.core.quadratic.finite_size.extreme_labels import drawn_cells
from bendscape.core.quadratic.finite_size.label_fluctuations import (
    label_fluctuations,
    matrix_shift,
    student_shift,
)
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.finite_size.spiked_edge import (
    TRACY_WIDOM_MEAN,
    TRACY_WIDOM_SD,
    critical_eigenvalue,
)
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.drawn_labels import sample_drawn_labels
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.core.quadratic.theory.bulk import left_edge
from bendscape.core.quadratic.theory.outlier import asymptotics, transition


class TwoDimensional:
    """Averages over (y, yhat) by the trapezoidal rule in both logarithms."""

    def __init__(self, model: Model, gamma: float) -> None:
        log = np.arange(-90, 5, 0.1)
        y, yhat = np.exp(log)[:, np.newaxis], np.exp(log)[np.newaxis, :]
        n, m = model.p_star / 2, model.p / 2
        self.weight = 0.1**2 * self.density(log, n)[:, np.newaxis] * self.density(log, m)[np.newaxis, :]
        self.y, self.t, self.b, self.cube = y, 0.0 * y * yhat, 0.0 * y * yhat, 0.0 * y * yhat
        for c, count in ((1, model.p - 1), (3, 1)):
            ratio = (c * yhat - y) / (model.a + (1 - gamma) * y + gamma * c * yhat)
            self.t += count / model.p * ratio
            self.b += count / model.p * ratio**2
            self.cube += count / model.p * ratio**3

    @staticmethod
    def density(log: Any, shape: float) -> Any:
        return np.exp(shape * (math.log(shape) + log) - shape * np.exp(log) - gammaln(shape))

    def mean(self, values: Any) -> float:
        return float((self.weight * values).sum())

    def cov(self, first: Any, second: Any) -> float:
        return self.mean(first * second) - self.mean(first) * self.mean(second)


@pytest.mark.parametrize(
    ("model", "gamma"),
    [(Model(1, 1, 1.5), 0.9), (Model(4, 2, 0.5), 0.7), (Model(3, 1, 1.0), 1.0), (Model(2, 5, 0.1), 0.3)],
    ids=str,
)
def test_label_fluctuations_agree_with_two_dimensional_averages(model: Model, gamma: float) -> None:
    found, direct = label_fluctuations(model, gamma), TwoDimensional(model, gamma)
    yt = direct.y * direct.t
    assert found.var_t == pytest.approx(direct.cov(direct.t, direct.t), rel=1e-9)
    assert found.cov_t_yt == pytest.approx(direct.cov(direct.t, yt), rel=1e-9)
    assert found.var_yt == pytest.approx(direct.cov(yt, yt), rel=1e-9)
    assert found.var_b == pytest.approx(direct.cov(direct.b, direct.b), rel=1e-9)
    assert pytest.approx(direct.mean(direct.b), rel=1e-10) == found.B
    assert found.B_prime == pytest.approx(-2 * direct.mean(direct.cube), rel=1e-9)


def test_label_fluctuations_continue_smoothly_past_the_pole() -> None:
    model = Model(2, 1, 1.5)
    at = [np.array(label_fluctuations(model, gamma)) for gamma in (0.999, 1.0, 1.001)]
    assert at[2] - at[1] == pytest.approx(at[1] - at[0], rel=0.05)


@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(3, 1, 1.0)], ids=str)
def test_the_students_directions_shift_by_the_trace_of_their_own_resolvent(model: Model) -> None:
    """The p^2 x p^2 self-energy of the student's span, from 400000 samples: 2 percent, 10 times its noise."""
    rng, p, alpha, gamma, M = np.random.default_rng(1), int(model.p), 1.4, 0.8, 400_000
    lambda_edge = -0.5 / p
    fields = rng.standard_normal((M, p))
    y, yhat = rng.chisquare(model.p_star, M) / model.p_star, (fields**2).mean(axis=1)
    unit = fields / np.linalg.norm(fields, axis=1, keepdims=True)

    def weight(c: int) -> Any:
        return 2 / p * (c * yhat - y) / (model.a + (1 - gamma) * y + gamma * c * yhat)

    def self_energy(power: int) -> Any:
        across, along = weight(1) ** power, weight(3) ** power
        outer = np.einsum("mi,mj->mij", unit, unit)
        Q = across[:, None, None] * np.eye(p) + (along - across)[:, None, None] * outer
        product = np.einsum("mi,mj,mkl->ikjl", fields, fields, Q, optimize=True)
        return alpha * product.reshape(p * p, p * p) / M

    resolvent = np.linalg.inv(lambda_edge * np.eye(p * p) - self_energy(1))
    expected = (np.trace(resolvent @ self_energy(2)) + p * p * 2 / (p * gamma)) / p
    assert student_shift(model, alpha, gamma, lambda_edge) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(2, 2, 0.5), Model(2, 1, 1.5)], ids=str)
def test_where_the_edge_is_sharp_its_scales_are_those_of_the_asymptotic_theory(model: Model) -> None:
    for factor in (1.05, 1.7, 3.0):
        alpha = factor * transition(model).alpha_sharp
        scales, theory = edge_scales(model, alpha), asymptotics(model, alpha)
        assert scales.lambda_edge == pytest.approx(theory.lambda_minus, rel=1e-10)
        assert scales.lambda_star == pytest.approx(theory.lambda_star, rel=1e-10, nan_ok=True)
        assert scales.overlap_sq == pytest.approx(theory.overlap_sq, rel=1e-9, nan_ok=True)


def test_labels_move_an_outlier_by_the_influence_of_its_equation() -> None:
    """m^2 (delta S - R delta Sigma), R = S'/z', with the variance taken over the two-dimensional law."""
    model, alpha, N = Model(2, 1, 1.0), 2.5, 1e4
    scales = edge_scales(model, alpha)
    direct = TwoDimensional(model, scales.gamma_star)
    B, B_y = direct.mean(direct.b), direct.mean(direct.y * direct.b)
    R = alpha * B_y / (alpha * B - scales.gamma_star**-2)
    influence = (direct.y - R) * direct.t / (1 - R)
    sd = 2 * math.sqrt(alpha / N * direct.cov(influence, influence)) / model.p
    assert lowest_eigenvalue_law(model, alpha, N).sd_labels == pytest.approx(sd, rel=1e-8)


@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(2, 2, 0.5)], ids=str)
def test_just_above_threshold_the_matrix_part_is_that_of_a_critical_spike(model: Model) -> None:
    """m^4 (2/(p N)) S'^2/|z'| is (C p N)^(-4/3) 4 w there, so the spread is that of the universal law."""
    alpha, N = transition(model).alpha_bbp * (1 + 1e-4), 1e13
    law, scales = lowest_eigenvalue_law(model, alpha, N), edge_scales(model, alpha)
    w, width = scales.distance * N ** (1 / 3), (scales.softness * model.p * N) ** (-2 / 3)
    assert w > 0.2
    matrix = math.sqrt(law.sd**2 - law.sd_labels**2)
    assert matrix == pytest.approx(width * critical_eigenvalue(w, int(model.p) * model.p_star)[1], rel=0.01)


def test_inside_a_smooth_edge_the_edge_that_samples_see_lies_above_lambda_minus() -> None:
    model = Model(1, 1, 1.5)
    scales = edge_scales(model, 1.0)
    assert scales.gamma_edge > 1
    assert scales.lambda_edge > left_edge(model, 1.0).lambda_minus + 0.01
    assert math.isnan(edge_scales(model, 0.3).gamma_edge)


@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(2, 2, 0.5), Model(1, 1, 1.5)], ids=str)
def test_around_the_threshold_of_samples_the_distance_is_that_of_the_scaling_law(model: Model) -> None:
    """alpha - alpha_c over the width, from both sides, with the width of an expansion made apart."""
    critical = critical_point(model)
    for sign in (-1, 1):
        alpha = critical.alpha * (1 + sign * 1e-4)
        scales = edge_scales(model, alpha)
        assert scales.distance == pytest.approx((alpha - critical.alpha) / critical.width, rel=2e-3)
        assert scales.amplitude == pytest.approx(critical.amplitude, rel=2e-3)


def test_far_below_threshold_the_law_of_a_sharp_edge_is_tracy_widoms() -> None:
    model, alpha = Model(1, 1, 0.7), 0.9
    scales = edge_scales(model, alpha)
    assert scales.lambda_edge == pytest.approx(left_edge(model, alpha).lambda_minus, rel=1e-12)
    law = lowest_eigenvalue_law(model, alpha, 1e12)
    assert law.regime == "edge"
    width = (scales.softness * 1e12) ** (-2 / 3)
    assert (law.mean - scales.lambda_edge) / width == pytest.approx(TRACY_WIDOM_MEAN, rel=0.01)
    matrix = math.sqrt(law.sd**2 - law.sd_labels**2)
    assert matrix / width == pytest.approx(TRACY_WIDOM_SD, rel=0.01)
    assert critical_eigenvalue(-1e9, 3) == pytest.approx((TRACY_WIDOM_MEAN, TRACY_WIDOM_SD))


@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(1, 1, 1.5)], ids=str)
def test_the_law_has_no_step_where_the_outlier_appears(model: Model) -> None:
    alpha = critical_point(model).alpha
    for N in (100, 1e5):
        below, above = (
            np.array(lowest_eigenvalue_law(model, alpha * f, N)[:3]) for f in (1 - 1e-7, 1 + 1e-7)
        )
        assert above == pytest.approx(below, rel=1e-4)


@pytest.mark.parametrize("ratio", [0.2, 1.0, 3.0])
def test_the_shift_of_a_real_edge_is_the_known_one_of_wishart_matrices(ratio: float) -> None:
    """-((N - 1/2)^(1/2) + (M - 1/2)^(1/2))^2/N to order 1/N, for labels that are all -1 and p = 1."""
    root = math.sqrt(ratio)
    m = 1 / (1 + root)
    t = -1 / (1 - m) / 2  # u/D, half of d/(1 + m d)
    found = matrix_shift(1.0, 2 * m, ratio * t**3, ratio * t**4)
    assert found == pytest.approx(1 + (root + 1 / root) / 2, rel=1e-12)


def test_the_shift_of_a_real_edge_is_the_known_one_of_the_orthogonal_ensemble() -> None:
    """-2 (1 - 1/(2 N))^(1/2) to order 1/N: the map -1/m - m has its edge at m = 1."""
    assert matrix_shift(1.0, 2.0, 0.0, 0.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("model", "alpha"),
    [
        (Model(1, 1, 0.7), 0.9),
        (Model(1, 1, 0.7), 1.2434),
        (Model(1, 1, 0.7), 2.5),
        (Model(1, 1, 1.5), 1.0),
        (Model(1, 1, 1.5), 2.5),
        (Model(2, 2, 0.5), 1.5),
    ],
    ids=str,
)
def test_samples_have_the_mean_and_the_spread_of_the_law(model: Model, alpha: float) -> None:
    """160 cells of N = 128: mean within 4 standard errors and the stated accuracy, sd within 35 percent.

    Where the accuracy covers the terms left out, 1 comparison of the mean in 10^4 fails by chance; the
    standard error of an sd of 160 cells is 6 percent, up to 15 percent are left out, and 3 in 10^3 fail.
    """
    N, cells = 128, 160
    seen = [observe(model, alpha, N, np.random.default_rng((31, seed))).eigval_min for seed in range(cells)]
    law = lowest_eigenvalue_law(model, alpha, N)
    assert np.mean(seen) == pytest.approx(law.mean, abs=4 * law.sd / math.sqrt(cells) + law.accuracy)
    assert np.std(seen, ddof=1) == pytest.approx(law.sd, rel=0.35)


@pytest.mark.parametrize(("model", "alpha"), [(Model(1, 1, 1.5), 0.4), (Model(1, 1, 0.7), 0.6)], ids=str)
def test_far_below_the_threshold_the_law_has_the_shift_of_a_real_matrix(model: Model, alpha: float) -> None:
    """1600 cells of N = 64: mean nearer to the law than to one without the shift, 7 of their standard errors
    away; 4 in 10^4 fail by chance."""
    N, cells = 64, 1600
    seen = [observe(model, alpha, N, np.random.default_rng((33, seed))).eigval_min for seed in range(cells)]
    law, shift = lowest_eigenvalue_law(model, alpha, N), drawn_cells(model, alpha, float(N)).shift.mean() / N
    assert np.mean(seen) == pytest.approx(law.mean, abs=shift / 2)


@pytest.mark.slow
@pytest.mark.parametrize(("N", "cells"), [(2048, 80), (8192, 60), (2**14, 40)])
@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(1, 1, 1.5)], ids=str)
@pytest.mark.parametrize("alpha", [0.8, 2.5])
def test_large_samples_have_the_mean_and_the_spread_of_the_law(
    model: Model, alpha: float, N: int, cells: int
) -> None:
    """Mean within 4 standard errors and the stated accuracy, sd within 4 of its standard errors.

    Overlap within 4 standard errors and 30 percent, by which the law may lie above samples below a threshold.

    Below and above threshold of either kind; 3 comparisons, each of which fails by chance in 1 of 10^4.
    """
    seen = [observe(model, alpha, N, np.random.default_rng((32, N, seed)), "dice") for seed in range(cells)]
    assert all(cell.converged for cell in seen)
    law = lowest_eigenvalue_law(model, alpha, N)
    eigvals, overlaps = [[c.eigval_min for c in seen], [c.overlap_sq for c in seen]]
    assert np.mean(eigvals) == pytest.approx(law.mean, abs=4 * law.sd / math.sqrt(cells) + law.accuracy)
    assert np.std(eigvals, ddof=1) == pytest.approx(law.sd, rel=4 / math.sqrt(2 * cells))
    spread = np.std(overlaps, ddof=1) / math.sqrt(cells)
    expected = mean_overlap_sq(model, alpha, N)
    assert np.mean(overlaps) == pytest.approx(expected, abs=4 * spread + 0.3 * expected)


@pytest.mark.parametrize(("model", "alpha"), [(Model(1, 1, 0.7), 0.9), (Model(2, 1, 1.5), 2.5)], ids=str)
def test_large_samples_of_labels_have_the_spread_the_law_gives_to_labels(model: Model, alpha: float) -> None:
    """80 cells of N = 20000, labels alone: sd within 32 percent, 4 times its standard error: 1 in 10^4."""
    cells = [sample_drawn_labels(model, alpha, 20_000, np.random.default_rng((5, s))) for s in range(80)]
    moved = [c.edge_sample if math.isnan(c.outlier_sample) else c.outlier_sample for c in cells]
    law = lowest_eigenvalue_law(model, alpha, 20_000)
    assert np.std(moved, ddof=1) == pytest.approx(law.sd_labels, rel=0.32)


def test_without_an_edge_the_extreme_label_determines_the_eigenvalue() -> None:
    """25 cells of N = 20000 far below alpha_0: the edge of their labels within one predicted sd."""
    model, alpha, N = Model(1, 1, 1.5), 0.3, 20_000
    cells = [sample_drawn_labels(model, alpha, N, np.random.default_rng((6, s))) for s in range(25)]
    law = lowest_eigenvalue_law(model, alpha, N)
    assert law.regime == "tail"
    assert np.mean([c.edge_sample for c in cells]) == pytest.approx(law.mean, abs=law.sd)


def test_with_growing_size_the_tail_reaches_down_to_lambda_minus() -> None:
    model, alpha = Model(1, 1, 1.5), 1.0
    lambda_minus, seen = left_edge(model, alpha).lambda_minus, edge_scales(model, alpha).lambda_edge
    laws = [lowest_eigenvalue_law(model, alpha, N) for N in (1e4, 1e9, 1e14, 1e24, 1e100)]
    assert [law.regime for law in laws] == ["edge", "tail", "tail", "tail", "tail"]
    means = [law.mean for law in laws[1:]]
    assert means == sorted(means, reverse=True)
    assert lambda_minus < means[-1] < means[0] < seen
    shares = [law.tail_share for law in laws]
    assert shares == sorted(shares)


@pytest.mark.parametrize("N", [1, 0, math.nan, math.inf, "many"])
def test_sizes_out_of_range_are_refused(N: object) -> None:
    with pytest.raises(ParameterError, match="N must be a number between 2"):
        lowest_eigenvalue_law(Model(1, 1, 1.0), 1.0, N)  # type: ignore[arg-type]


def test_infinite_width_has_no_law_at_finite_size() -> None:
    with pytest.raises(ParameterError, match="finite at finite N"):
        lowest_eigenvalue_law(Model(math.inf, 1, 1.0), 1.0, 100)
