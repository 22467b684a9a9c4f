"""Every asymptotic number is judged twice: is it accurate, and is its error estimate a bound?"""

from __future__ import annotations

import math
import warnings

import oracle
import pytest
from scipy.optimize import brentq

from bendscape.core.errors import PrecisionWarning
from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size, crossover_size
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.branch import a_tricritical, complex_root, principal_value_end
from bendscape.core.quadratic.theory.bulk import left_edge
from bendscape.core.quadratic.theory.integrals import RAY, averages
from bendscape.core.quadratic.theory.outlier import alpha_0, asymptotics, outlier, transition

lossy = pytest.mark.filterwarnings("ignore::bendscape.core.errors.PrecisionWarning")

CORNERS = [
    Model(1, 1, 1e-6),  # lambda_minus at alpha_bbp is a small difference
    Model(1, 1, 1.5),
    Model(2, 512, 1e3),  # p < p_star
    Model(512, 512, 1e3),
    Model(512, 7, 1e-2),
    Model(math.inf, 3, 1e-6),  # so is the jump here
]
PAST_THE_CUT = [
    Model(1, 1, 1.5),
    pytest.param(Model(5, 512, 1e3), marks=pytest.mark.slow),
    pytest.param(Model(512, 7, 1.0), marks=pytest.mark.slow),
    Model(1, 1, 1e3),
]


def judge(value: float, error: float, exact: oracle.Number, accuracy: float) -> None:
    true_error = float(abs(exact - value))
    assert true_error <= error  # honest
    assert error <= accuracy * abs(float(abs(exact)))  # and small enough to be of use


@lossy
@pytest.mark.parametrize("model", CORNERS, ids=str)
def test_thresholds_are_accurate_and_their_errors_honest(model: Model) -> None:
    found = transition(model)
    exact = oracle.transition(model, found.gamma)
    judge(found.alpha_bbp, found.alpha_bbp_error, exact["alpha_bbp"], 1e-12)
    judge(found.alpha_sharp, found.alpha_sharp_error, exact["alpha_sharp"], 1e-12)
    judge(found.lambda_minus, found.lambda_minus_error, exact["lambda_minus"], 2e-9)
    judge(found.overlap_sq_jump, found.overlap_sq_jump_error, exact["overlap_sq_jump"], 1e-8)


@lossy
@pytest.mark.parametrize("factor", [0.8, 1.0001, 40.0])
@pytest.mark.parametrize("model", [CORNERS[0], CORNERS[1], CORNERS[3]], ids=str)
def test_edge_and_outlier_are_accurate_and_their_errors_honest(model: Model, factor: float) -> None:
    alpha = factor * transition(model).alpha_bbp
    found, edge = asymptotics(model, alpha), left_edge(model, alpha)
    judge(found.lambda_minus, found.lambda_minus_error, oracle.left_edge(model, alpha, edge.gamma), 2e-9)
    if factor < 1:
        assert math.isnan(found.overlap_sq)
        assert math.isnan(found.overlap_sq_error)
        return
    gamma = brentq(lambda x: alpha * x * averages(model, x).F + 1, 0, edge.gamma, xtol=1e-14)
    lambda_star, overlap_sq = oracle.outlier(model, alpha, gamma)
    judge(found.lambda_star, found.lambda_star_error, lambda_star, 2e-9)
    judge(found.overlap_sq, found.overlap_sq_error, overlap_sq, 1e-9)


@lossy
@pytest.mark.parametrize("model", PAST_THE_CUT, ids=str)
def test_alpha_0_is_accurate_and_its_errors_honest(model: Model) -> None:
    found = alpha_0(model)
    gamma, reached = principal_value_end(model)
    assert reached != math.isnan(found.principal_value)
    if reached:
        exact = oracle.alpha_0(model, gamma, RAY, principal=True)
        judge(found.principal_value, found.principal_value_error, exact, 1e-9)
    # The continuation does not depend on the line of integration: the exact one is taken along another.
    exact = oracle.alpha_0(model, complex_root(model), 1.1, principal=False)
    as_found = complex(found.complex_re, math.copysign(found.complex_im, float(exact.imag)))
    judge(0.0, found.complex_error, exact - as_found + 0 * exact, math.inf)
    assert found.complex_error <= 1e-9 * float(abs(exact))


def test_just_above_a_continuous_threshold_the_overlap_reports_its_lost_digits_and_warns() -> None:
    model = Model(1, 1, 0.7)
    alpha_bbp = transition(model).alpha_bbp
    for distance in (1e-7, 1e-9, 1e-11):
        alpha = alpha_bbp * (1 + distance)
        with pytest.warns(PrecisionWarning, match="overlap_sq = .* of Model") as caught:
            found = outlier(model, alpha)
        assert len(caught) == 1
        exact = oracle.outlier(model, alpha, 0.9022992242608444)[1]
        judge(found.overlap_sq, found.overlap_sq_error, exact, 1e-13 / distance)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert outlier(model, alpha_bbp * (1 + 1e-3)).overlap_sq_error < 1e-13
        # Nothing is claimed where a last digit of alpha decides, and there is nothing to warn of.
        for alpha in (alpha_bbp, math.nextafter(alpha_bbp, 2), math.nextafter(alpha_bbp, 0)):
            assert math.isnan(outlier(model, alpha).overlap_sq)


def test_numbers_that_are_good_to_ten_digits_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in (Model(1, 1, 1e-3), Model(7, 300, 20.0), Model(512, 1, 1e3), Model(math.inf, 5, 1e-3)):
            transition(model)
            left_edge(model, 3.3)
            asymptotics(model, 2.2 * transition(model).alpha_bbp)


def test_functions_that_do_not_return_the_jump_do_not_warn_of_it() -> None:
    barely = Model(1, 1, a_tricritical(1, 1) * (1 + 1e-6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alpha_0(barely)
        alpha_bbp_at_size(barely, 1e6)
        crossover_size(barely)
        mean_overlap_sq(barely, 1.1, 1e4)


def test_the_jump_vanishes_at_tricriticality_and_warns_on_its_way() -> None:
    model = Model(2, 1, a_tricritical(2, 1) * (1 + 1e-9))
    with pytest.warns(PrecisionWarning, match="overlap_sq_jump"):
        found = transition(model)
    assert 0 < found.overlap_sq_jump < 1e-8
    exact = oracle.transition(model, found.gamma)["overlap_sq_jump"]
    judge(found.overlap_sq_jump, found.overlap_sq_jump_error, exact, 1e-4)
