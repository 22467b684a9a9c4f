"""The asymptotic theory compared with independent numbers and integrals, and the laws that it must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.legendre import leggauss
from problems import PROBLEMS, SPOT_ALPHA_0, SPOT_OUTLIERS, SPOT_THRESHOLDS, TRICRITICAL, Problem
from scipy.optimize import brentq

from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.branch import (
    a_tricritical,
    load_on_branch,
    overlap_sq_on_branch,
    principal_value,
    principal_value_end,
    psi,
)
from bendscape.core.quadratic.theory.bulk import left_edge, reduced_map, self_energy, spectral_map
from bendscape.core.quadratic.theory.integrals import Averages, averages
from bendscape.core.quadratic.theory.outlier import alpha_0, asymptotics, outlier, transition

each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.slug)

# Numbers that are small differences give a warning, which is tested in test_precision.py.
lossy = pytest.mark.filterwarnings("ignore::bendscape.core.errors.PrecisionWarning")

models = st.builds(
    Model,
    p=st.integers(1, 8) | st.just(math.inf),
    p_star=st.integers(1, 5),
    a=st.floats(0.02, 4.0),
)


def same(value: float, expected: float, rel: float) -> bool:
    return value == pytest.approx(expected, rel=rel, abs=1e-15, nan_ok=True)


@each_problem
def test_thresholds_and_the_jump_are_those_of_the_reference(problem: Problem) -> None:
    at_bbp = transition(problem.model)
    assert at_bbp.kind == problem.transition
    assert same(at_bbp.alpha_bbp, problem.alpha_bbp, 1e-12)
    assert same(at_bbp.alpha_sharp, problem.alpha_sharp, 1e-12)
    assert same(at_bbp.lambda_minus, problem.lambda_minus_at_bbp, 1e-12)
    assert same(at_bbp.overlap_sq_jump, problem.overlap_sq_jump, 1e-11)
    assert same(a_tricritical(problem.model.p, problem.model.p_star), problem.a_tricritical, 1e-12)


@each_problem
def test_edge_outlier_and_overlap_are_those_of_the_reference(problem: Problem) -> None:
    for known in problem.points:
        found = asymptotics(problem.model, known.alpha)
        assert found.alpha == known.alpha
        assert found.edge == known.edge
        assert same(found.lambda_minus, known.lambda_minus, 1e-12)
        isolated = known.outlier == "isolated"
        assert same(found.lambda_star, known.lambda_star if isolated else math.nan, 1e-12)
        assert same(found.overlap_sq, known.overlap_sq if isolated else math.nan, 1e-11)
        assert outlier(problem.model, known.alpha)[:2] == pytest.approx(found[3:5], rel=0, nan_ok=True)


@each_problem
def test_the_three_definitions_of_alpha_0_are_those_of_the_reference(problem: Problem) -> None:
    found = alpha_0(problem.model)
    assert same(found.principal_value, problem.alpha_0["principal_value"], 1e-10)
    assert same(found.tangent, problem.alpha_0["tangent"], 1e-10)
    assert same(found.complex_re, problem.alpha_0["complex_re"], 1e-10)
    assert found.complex_im >= 0
    assert found.complex_im == pytest.approx(problem.alpha_0["complex_im"], abs=1e-10)


def test_inside_a_smooth_edge_the_principal_value_branch_is_that_of_the_reference() -> None:
    points = [(problem.model, point) for problem in PROBLEMS for point in problem.points]
    inside = [(model, point) for model, point in points if point.outlier == "inside smooth edge"]
    assert len(inside) >= 10
    for model, known in inside:
        end, reached = principal_value_end(model)
        assert reached

        def excess(gamma: float, model: Model = model, alpha: float = known.alpha) -> float:
            return load_on_branch(gamma, principal_value(model, gamma)).real - alpha

        gamma = float(brentq(excess, 1 + 1e-9, end, xtol=1e-14))
        at_gamma = principal_value(model, gamma)
        assert same(reduced_map(model, known.alpha, gamma, at_gamma), known.lambda_star, 1e-10)
        assert same(overlap_sq_on_branch(gamma, at_gamma).real, known.overlap_sq, 1e-8)


@pytest.mark.parametrize(("model", "alpha_bbp", "kind"), SPOT_THRESHOLDS, ids=str)
def test_thresholds_agree_with_known_digits(model: Model, alpha_bbp: float, kind: str) -> None:
    at_bbp = transition(model)
    assert at_bbp.alpha_bbp == pytest.approx(alpha_bbp, abs=6e-11)
    assert at_bbp.kind == kind


@pytest.mark.parametrize(("model", "principal", "tangent", "complex_re"), SPOT_ALPHA_0, ids=str)
def test_alpha_0_agrees_with_known_digits(
    model: Model, principal: float, tangent: float, complex_re: float
) -> None:
    found = alpha_0(model)
    assert found.principal_value == pytest.approx(principal, abs=6e-5, nan_ok=True)
    if not math.isnan(tangent):
        assert found.tangent == pytest.approx(tangent, abs=6e-5)
        assert found.complex_re == pytest.approx(complex_re, abs=6e-5)


@pytest.mark.parametrize(("model", "alpha", "lambda_star", "overlap_sq"), SPOT_OUTLIERS, ids=str)
def test_outliers_agree_with_known_digits(
    model: Model, alpha: float, lambda_star: float, overlap_sq: float
) -> None:
    assert outlier(model, alpha)[:2] == pytest.approx((lambda_star, overlap_sq), abs=6e-5)


@lossy
@pytest.mark.parametrize("p_star", [1, 2])
def test_tricritical_offsets_agree_with_known_digits_and_separate_the_kinds(p_star: int) -> None:
    for p, known in enumerate(TRICRITICAL[p_star], start=1):
        a = a_tricritical(p, p_star)
        assert a == pytest.approx(known, abs=6e-6)
        assert transition(Model(p, p_star, a * (1 - 1e-9))).kind == "continuous"
        assert transition(Model(p, p_star, a * (1 + 1e-9))).kind == "discontinuous"
    assert a_tricritical(math.inf, p_star) == 0


def by_quadrature(model: Model, gamma: float) -> Averages:
    """The averages as two-dimensional integrals over the chi laws of sqrt(p_star y) and sqrt(p yhat)."""
    nodes, weights = leggauss(300)
    reach = 13.0
    x, w = (nodes + 1) * reach / 2, weights * reach / 2

    def law(dof: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        density: np.ndarray[tuple[int], np.dtype[np.float64]] = w * np.exp(
            (dof - 1) * np.log(x) - x * x / 2 - math.lgamma(dof / 2) - (dof / 2 - 1) * math.log(2)
        )
        return density

    probability = np.outer(law(model.p_star), law(model.p))
    y, yhat = (x * x / model.p_star)[:, None], (x * x / model.p)[None, :]
    total = np.zeros(4)
    for c, share in ((1, 1 - 1 / model.p), (3, 1 / model.p)):
        u = c * yhat - y
        D = model.a + (1 - gamma) * y + gamma * c * yhat
        terms = (u / D, (y - 1) * u / D, (u / D) ** 2, y * (u / D) ** 2)
        total += share * np.array([(probability * term).sum() for term in terms])
    return Averages(*total)


@pytest.mark.parametrize("gamma", [0.01, 0.4, 0.97, 1.0])
@pytest.mark.parametrize(
    "model", [Model(1, 1, 0.7), Model(3, 1, 1.5), Model(2, 5, 0.3), Model(16, 4, 2.0)], ids=str
)
def test_the_laplace_integrals_are_the_averages_over_y_and_yhat(model: Model, gamma: float) -> None:
    assert averages(model, gamma) == pytest.approx(by_quadrature(model, gamma), rel=1e-11)


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_derivatives_by_complex_step_are_those_of_central_differences(gamma: float) -> None:
    model, h = Model(3, 2, 0.9), 1e-5
    exact = [average.imag / 1e-30 for average in averages(model, complex(gamma, 1e-30))]
    ahead, behind = averages(model, gamma + h), averages(model, gamma - h)
    if gamma == 1.0:  # nothing is defined past the cut: one-sided differences of second order
        here, twice = averages(model, gamma), averages(model, gamma - 2 * h)
        slopes = [(3 * x - 4 * y + z) / (2 * h) for x, y, z in zip(here, behind, twice, strict=True)]
    else:
        slopes = [(x - y) / (2 * h) for x, y in zip(ahead, behind, strict=True)]
    assert exact == pytest.approx(slopes, rel=1e-7)


def test_the_principal_value_is_that_of_a_symmetric_cut_around_the_pole() -> None:
    # p = inf: yhat = 1, and A = PV int (1 - y)/(a + gamma + (1 - gamma) y) exp(-y) dy at p_star = 2.
    model, gamma = Model(math.inf, 2, 0.5), 1.4
    pole = (model.a + gamma) / (gamma - 1)
    nodes, weights = leggauss(400)

    def integrate(low: float, high: float) -> float:
        y = (low + high) / 2 + nodes * (high - low) / 2
        inside = np.exp(-y) * (1 - y) / (model.a + gamma + (1 - gamma) * y)
        return float((weights * inside).sum() * (high - low) / 2)

    # Nodes mirrored about the pole cancel its two sides.
    assert (
        pytest.approx(integrate(0, 2 * pole) + integrate(2 * pole, 2 * pole + 40), rel=1e-9)
        == principal_value(model, gamma).A
    )


@pytest.mark.parametrize("model", [Model(4, 1, 1.5), Model(12, 4, 5.0)], ids=str)
def test_without_a_zero_the_principal_value_branch_ends_where_its_load_stops_falling(model: Model) -> None:
    end, reached = principal_value_end(model)
    assert not reached
    loads = [load_on_branch(x, principal_value(model, x)).real for x in np.linspace(1 + 1e-6, end, 60)]
    assert loads == sorted(loads, reverse=True)
    assert 0 < loads[-1] < loads[0] == pytest.approx(transition(model).alpha_bbp, rel=1e-4)


@pytest.mark.parametrize("factor", [1.2, 3.3])
@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(4, 2, 0.4), Model(1, 3, 2.0)], ids=str)
def test_a_sharp_edge_is_the_highest_point_of_the_spectral_map(model: Model, factor: float) -> None:
    alpha = factor * transition(model).alpha_sharp
    edge = left_edge(model, alpha)
    g = -model.p * edge.gamma / 2
    assert edge.kind == "sharp"
    assert spectral_map(model, alpha, g) == pytest.approx(edge.lambda_minus, rel=1e-13)
    for step in (1e-3, -1e-3):
        assert spectral_map(model, alpha, g * (1 + step)) < edge.lambda_minus


def test_the_self_energy_at_small_g_is_the_mean_eigenvalue() -> None:
    model, alpha = Model(2, 2, 1.0), 1.7
    y_inverse = by_quadrature(model, 0.0).A  # E[u/(a + y)], the mean of p d / 2
    assert self_energy(model, alpha, -1e-9) == pytest.approx(alpha * (2 / model.p) * y_inverse, rel=1e-8)


@settings(max_examples=60, deadline=None)
@given(models, st.floats(0.05, 4.0).filter(lambda factor: abs(factor - 1) > 1e-6))
def test_an_outlier_is_isolated_exactly_above_alpha_bbp_and_lies_left_of_the_edge(
    model: Model, factor: float
) -> None:
    at_bbp = transition(model)
    found = asymptotics(model, factor * at_bbp.alpha_bbp)
    assert math.isnan(found.lambda_star) == math.isnan(found.overlap_sq) == (factor < 1)
    if factor > 1:
        assert found.lambda_star <= found.lambda_minus
        assert at_bbp.overlap_sq_jump < found.overlap_sq < 1


@settings(max_examples=60, deadline=None)
@given(models, st.floats(0.05, 4.0).filter(lambda factor: abs(factor - 1) > 1e-6))
def test_the_edge_is_smooth_exactly_below_alpha_sharp(model: Model, factor: float) -> None:
    at_bbp = transition(model)
    edge = left_edge(model, factor * at_bbp.alpha_sharp)
    assert (edge.kind == "smooth") == (edge.gamma == 1) == (factor < 1)
    assert (at_bbp.kind == "discontinuous") == (at_bbp.alpha_bbp < at_bbp.alpha_sharp)


@lossy
@settings(max_examples=30, deadline=None)
@given(models)
def test_at_the_threshold_the_outlier_sits_on_the_edge_and_its_overlap_is_the_jump(model: Model) -> None:
    at_bbp = transition(model)
    found = asymptotics(model, at_bbp.alpha_bbp * (1 + 1e-9))
    assert found.lambda_star == pytest.approx(at_bbp.lambda_minus, rel=1e-6, abs=1e-7)
    assert found.overlap_sq == pytest.approx(at_bbp.overlap_sq_jump, abs=1e-7)
    assert psi(at_bbp.gamma, averages(model, at_bbp.gamma)).real <= 1e-12


def test_the_threshold_approaches_that_of_infinite_width_and_the_infinite_one_is_closed_form() -> None:
    for p_star, a in ((1, 0.7), (2, 1.5), (3, 0.2)):
        limit = transition(Model(math.inf, p_star, a))
        assert limit.alpha_bbp == pytest.approx(p_star * (a + 1) / 2, rel=1e-14)
        assert limit.alpha_sharp == pytest.approx(p_star * (a + 1) ** 2 / 2, rel=1e-14)
        assert limit.kind == "discontinuous"
        assert limit.lambda_minus == 0
        distances = [
            abs(transition(Model(p, p_star, a)).alpha_bbp - limit.alpha_bbp) for p in (64, 128, 256, 2000)
        ]
        assert distances == sorted(distances, reverse=True)
        assert distances[-1] < 3e-3
        wide = asymptotics(Model(10**6, p_star, a), 1.4 * limit.alpha_bbp)
        assert asymptotics(Model(math.inf, p_star, a), 1.4 * limit.alpha_bbp).overlap_sq == pytest.approx(
            wide.overlap_sq, rel=1e-5
        )


@lossy
@pytest.mark.parametrize("a", [1e-6, 1e-8])
def test_as_a_vanishes_the_threshold_of_one_unit_is_three_at_gamma_one_quarter(a: float) -> None:
    at_bbp = transition(Model(1, 1, a))
    assert at_bbp.alpha_bbp == pytest.approx(3, rel=30 * math.sqrt(a))
    assert at_bbp.gamma == pytest.approx(0.25, rel=30 * math.sqrt(a))


@lossy
def test_a_vanishing_offset_leaves_weak_recovery_at_infinite_width() -> None:
    assert transition(Model(math.inf, 3, 1e-9)).alpha_bbp == pytest.approx(1.5, rel=1e-8)


def test_alpha_0_falls_with_the_width_where_alpha_bbp_does_not() -> None:
    found = [alpha_0(Model(p, 1, 0.7)) for p in (1, 2, 3, 4, 6, 8, 12)]
    for definition in ("principal_value", "tangent", "complex_re"):
        values = [getattr(each, definition) for each in found]
        assert values == sorted(values, reverse=True)
    thresholds = [transition(Model(p, 1, 0.7)).alpha_bbp for p in (1, 2, 3, 4, 6, 8, 12)]
    assert thresholds != sorted(thresholds, reverse=True)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.floats(0.3, 0.999))
def test_alpha_0_is_alpha_bbp_for_a_continuous_transition(p: int, p_star: int, share: float) -> None:
    model = Model(p, p_star, share * a_tricritical(p, p_star))
    alpha_bbp = transition(model).alpha_bbp
    assert alpha_0(model)[:4] == (alpha_bbp, alpha_bbp, alpha_bbp, 0.0)


def test_near_tricriticality_the_three_definitions_of_alpha_0_meet() -> None:
    model = Model(3, 2, 1.01 * a_tricritical(3, 2))
    found, alpha_bbp = alpha_0(model), transition(model).alpha_bbp
    window = alpha_bbp - found.principal_value
    assert window > 0
    assert found.tangent == pytest.approx(found.principal_value, abs=0.02 * window)
    assert found.complex_re == pytest.approx(found.principal_value, abs=1e-6 * window)


def test_at_large_load_the_overlap_tends_to_one() -> None:
    for model in (Model(1, 1, 0.7), Model(4, 2, 1.5)):
        found = [outlier(model, load).overlap_sq for load in (1e1, 1e2, 1e4, 1e6)]
        assert found == sorted(found)
        assert found[-1] == pytest.approx(1, abs=1e-5)
