"""Networks with activations other than the square: theory against closed forms, samples against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from bendscape.core import Model, ParameterError, asymptotics, transition
from bendscape.core.activations import activation as activations
from bendscape.core.activations.activation import ACTIVATIONS, Activation, Network
from bendscape.core.activations.published import outliers_of, thresholds_of
from bendscape.core.activations.sampling import draw, method_for, observe
from bendscape.core.activations.sectors import sector_spectrum
from bendscape.core.activations.theory import even_spectrum, even_transition, sample_theory
from bendscape.core.activations.weight import Weight, least_weight, weight_of
from bendscape.core.quadratic.sampling.drawn_labels import drawn_labels_theory
from bendscape.core.quadratic.theory.outlier import alpha_0


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_and_curvatures_are_derivatives(name: str) -> None:
    x, h = np.linspace(-3, 3, 13), 1e-5
    activation = ACTIVATIONS[name]
    assert (activation.value(x + h) - activation.value(x - h)) / (2 * h) == pytest.approx(
        activation.slope(x), abs=1e-8
    )
    assert (activation.slope(x + h) - activation.slope(x - h)) / (2 * h) == pytest.approx(
        activation.curvature(x), abs=1e-7
    )
    assert np.allclose(activation.value(x), activation.value(-x)) == activation.even
    far = activation.value(np.linspace(-30, 30, 6001))
    assert far.min() >= activation.least - 1e-12
    assert far.max() <= activation.most + 1e-12


@pytest.mark.parametrize(("p", "p_star", "a"), [(1, 1, 0.7), (1, 1, 1.5), (2, 1, 1.5), (2, 2, 0.5)])
def test_the_square_has_the_threshold_of_its_closed_form(p: int, p_star: int, a: float) -> None:
    found, exact = even_transition(Network(p, p_star, a)), transition(Model(p, p_star, a))
    # 1e-8: the smooth edge is evaluated at 1 - 1e-9 of its place
    assert found.alpha_bbp == pytest.approx(exact.alpha_bbp, rel=1e-8)
    assert found.alpha_sharp == pytest.approx(exact.alpha_sharp, rel=1e-6)
    assert found.kind == exact.kind
    assert found.alpha_bbp_error < 1e-5


@pytest.mark.parametrize(("p", "alpha"), [(1, 2.0618), (2, 1.9844)])
def test_the_square_has_the_spectrum_of_its_closed_form(p: int, alpha: float) -> None:
    found, exact = even_spectrum(Network(p, 1, 1.5), alpha), asymptotics(Model(p, 1, 1.5), alpha)
    assert found.lambda_minus == pytest.approx(exact.lambda_minus, abs=1e-9)
    assert found.lambda_star == pytest.approx(exact.lambda_star, abs=1e-9)
    assert found.overlap_sq == pytest.approx(exact.overlap_sq, abs=1e-9)


@pytest.mark.parametrize("p_star", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_wide_squares_have_the_closed_form_within_the_error_of_scrambled_points(p_star: int) -> None:
    """5 standard errors, themselves from 4 scramblings; the seeds are fixed."""
    found, exact = even_transition(Network(8, p_star, 1.0)), transition(Model(8, p_star, 1.0))
    assert 0 < found.alpha_bbp_error < 1e-3
    assert abs(found.alpha_bbp - exact.alpha_bbp) < 5 * found.alpha_bbp_error
    at = even_spectrum(Network(8, p_star, 1.0), 2.0 * exact.alpha_bbp)
    closed = asymptotics(Model(8, p_star, 1.0), 2.0 * exact.alpha_bbp)
    assert abs(at.lambda_star - closed.lambda_star) < 5 * at.lambda_star_error
    assert abs(at.overlap_sq - closed.overlap_sq) < 5 * at.overlap_sq_error


@pytest.mark.parametrize("p_star", [1, 3])
def test_infinitely_wide_squares_have_the_limit_in_closed_form(p_star: int) -> None:
    # the smooth edge is evaluated at 1 - 1e-9 of its place
    assert even_transition(Network(math.inf, p_star, 0.5)).alpha_bbp == pytest.approx(p_star * 0.75, rel=1e-8)


@pytest.mark.parametrize("name", ["log_cosh", "sqrt", "gauss", "sigmoid"])
def test_the_outlier_appears_at_the_threshold(name: str) -> None:
    network = Network(1, 1, 1.0, name)
    threshold = even_transition(network).alpha_bbp
    assert np.isnan(even_spectrum(network, 0.99 * threshold).lambda_star)
    above = even_spectrum(network, 1.01 * threshold)
    assert above.lambda_star < above.lambda_minus
    assert 0 < above.overlap_sq < 1


@pytest.mark.parametrize(
    ("network", "alpha"),
    [
        (Network(2, 1, 1.0, "log_cosh"), 3.04),
        (Network(2, 1, 1.0, "sqrt"), 3.38),
        (Network(1, 1, 0.5, "log_cosh", "log_cosh"), 4.27),
    ],
)
def test_samples_of_even_networks_agree_with_theory(network: Network, alpha: float) -> None:
    """At N = 300, 10 seeds: 5 standard errors plus 0.04 for finite N; false alarms below 1e-3."""
    theory = even_spectrum(network, alpha)
    found = [observe(network, alpha, 300, np.random.default_rng(seed), "dice") for seed in range(10)]
    overlaps = np.array([one.overlap_sq_space for one in found])
    assert abs(overlaps.mean() - theory.overlap_sq) < 5 * overlaps.std(ddof=1) / len(found) ** 0.5 + 0.04
    # the p outliers split around lambda_star
    values = np.array([(one.eigval_min + one.eigval_second) / 2 for one in found])
    values = values if network.p > 1 else np.array([one.eigval_min for one in found])
    assert abs(values.mean() - theory.lambda_star) < 5 * values.std(ddof=1) / len(found) ** 0.5 + 0.04


def test_the_teachers_outlier_of_a_sigmoid_student_is_the_second() -> None:
    """At N = 300, 10 seeds, 2.5 times the threshold: 5 standard errors plus 0.04 for finite N, and 0.01 for
    the eigenvalue, 0.07 above the lowest one; that is along the student's own weights. False alarms below
    1e-3."""
    network = Network(1, 1, 1.0, "sigmoid")
    theory = even_spectrum(network, 14.0)
    values, overlaps = np.empty((10, 2)), np.empty((10, 2))
    for seed in range(10):
        sample = draw(network, 14.0, 300, np.random.default_rng(seed))
        of, vectors = np.linalg.eigh(sample.matrix())
        values[seed], overlaps[seed] = of[:2], (sample.teacher_basis[:, 0] @ vectors[:, :2]) ** 2
    errors = [each.std(axis=0, ddof=1)[1] / 10**0.5 for each in (values, overlaps)]
    assert abs(values[:, 1].mean() - theory.lambda_star) < 5 * errors[0] + 0.01
    assert abs(overlaps[:, 1].mean() - theory.overlap_sq) < 5 * errors[1] + 0.04
    assert values[:, 0].mean() < theory.lambda_star - 0.05
    assert overlaps[:, 0].mean() < 0.1


@pytest.mark.parametrize("network", [Network(2, 1, 1.0, "log_cosh"), Network(2, 1, 1.0, "softplus")])
def test_dice_draws_from_the_law_of_explicit_data(network: Network) -> None:
    """48 seeds each, means within 4.5 standard errors; 10 comparisons, false alarms below 1e-4."""
    names = ("eigval_min", "eigval_second", "overlap_sq", "overlap_sq_space_relative", "alpha_realised")
    samples = [
        [observe(network, 3.0, 24, np.random.default_rng([k, seed]), method) for seed in range(48)]
        for k, method in enumerate(("dense", "dice"))
    ]
    for name in names:
        one, other = (np.array([getattr(at, name) for at in sample]) for sample in samples)
        error = math.hypot(one.std(ddof=1), other.std(ddof=1)) / 48**0.5
        assert abs(one.mean() - other.mean()) <= 4.5 * error, name


def test_squares_have_the_law_of_the_quadratic_networks_sampler() -> None:
    """One instance: the Hessian's blocks for weights and data given are those of the closed form of D."""
    network, sample = Network(2, 1, 0.7), draw(Network(2, 1, 0.7), 2.0, 20, np.random.default_rng(0))
    v, e = sample.weight
    y = sample.u_sq
    fields = v * np.sqrt(network.a + y) / 2 * network.p
    yhat = (fields**2).mean(axis=0)
    assert e == pytest.approx(np.tile((yhat - y) / (network.a + y), (2, 1)), abs=1e-12)
    found = sample_theory(sample.weight, y, 20)
    exact = drawn_labels_theory(Model(2, 1, 0.7), 20, y, yhat)
    assert found.edge_sample == pytest.approx(exact.edge_sample, rel=1e-9)
    assert found.outlier_sample == pytest.approx(exact.outlier_sample, rel=1e-9, nan_ok=True)


def test_the_theory_of_a_samples_own_labels_is_that_of_the_square() -> None:
    rng, N = np.random.default_rng(1), 300
    for p in (1, 3):
        network, fields, u = (
            Network(p, 2, 0.5),
            rng.standard_normal((p, 8 * N)),
            rng.standard_normal((2, 8 * N)),
        )
        y, yhat = (u**2).mean(axis=0), (fields**2).mean(axis=0)
        found = sample_theory(weight_of(network, fields, y), y, N)
        exact = drawn_labels_theory(Model(p, 2, 0.5), N, y, yhat)
        assert found == pytest.approx(tuple(exact), rel=1e-8)
        assert not math.isnan(exact.outlier_sample)


def test_samples_without_a_negative_weight_have_no_edge_of_their_own() -> None:
    assert all(map(math.isnan, sample_theory(Weight(np.ones((1, 9)), np.zeros((1, 9))), np.ones(9), 3)))


@pytest.mark.parametrize("activation", ["log_cosh", "softplus"])
def test_the_dense_matrix_and_the_product_agree_on_one_instance(activation: str) -> None:
    network = Network(3, 2, 0.5, activation)
    sample = draw(network, 2.0, 30, np.random.default_rng(0))
    vectors = np.random.default_rng(1).standard_normal((90, 4))
    assert sample.matrix() @ vectors == pytest.approx(sample.product(vectors), abs=1e-12)
    dense, explicit = (
        observe(network, 2.0, 30, np.random.default_rng(2), method) for method in ("dense", "explicit")
    )
    assert explicit.eigval_min == pytest.approx(dense.eigval_min, abs=1e-8)
    for name in ("overlap_sq", "overlap_sq_space", "overlap_sq_space_symmetric", "overlap_sq_space_relative"):
        assert getattr(explicit, name) == pytest.approx(getattr(dense, name), abs=1e-5)
    parts = dense.overlap_sq_space_symmetric + 2 * dense.overlap_sq_space_relative
    assert parts == pytest.approx(3 * dense.overlap_sq_space)


def test_the_fastest_method_is_the_one_expected_to_be() -> None:
    network = Network(2, 1, 0.1, "log_cosh")
    assert [method_for(network, 1.7, N, "auto") for N in (64, 1024)] == ["dense", "dice"]
    assert method_for(network, 1.7, 1024, "auto", inputs="rademacher") == "explicit"
    with pytest.raises(ParameterError, match="gaussian for dice"):
        method_for(network, 1.7, 1024, "dice", inputs="rademacher")


@pytest.mark.parametrize("inputs", ["gaussian", "rademacher"])
def test_data_have_the_law_asked_for(inputs: str) -> None:
    data = draw(Network(1, 1, 1.0, "sqrt"), 4.0, 50, np.random.default_rng(0), inputs=inputs).inputs
    assert (set(np.unique(data)) == {-1.0, 1.0}) == (inputs == "rademacher")
    assert data.shape == (200, 50)


@pytest.mark.parametrize("name", ["quadratic", "log_cosh", "sqrt", "gauss", "softplus", "sigmoid"])
def test_no_sample_weighs_less_than_the_infimum(name: str) -> None:
    network = Network(3, 1, 0.3, name)
    v, e = draw(network, 300.0, 100, np.random.default_rng(0)).weight
    weights = (v[:, None] * v[None] + e[:, None] * np.eye(3)[:, :, None]).transpose(2, 0, 1)
    assert np.linalg.eigvalsh(weights).min() >= least_weight(network)


@pytest.mark.parametrize("teacher", ["quadratic", "gauss"])
@pytest.mark.parametrize("name", ["gauss", "softplus", "tanh", "sigmoid"])
def test_the_infimum_is_that_of_a_search_over_all_pre_activations(name: str, teacher: str) -> None:
    network = Network(3, 1, 1.0, name, teacher)

    def lowest(x: np.ndarray) -> float:
        y = network.teacher.value(x[-1:])
        v, e = weight_of(network, x[:-1, None], y)
        return float(np.linalg.eigvalsh(v @ v.T + np.diag(e[:, 0]))[0])

    rng = np.random.default_rng(0)
    starts = rng.standard_normal((12, 4)) * 2
    found = min(minimize(lowest, start, method="Nelder-Mead").fun for start in starts)
    assert least_weight(network) <= found + 1e-6
    # and it is reached: within 1 per cent by such a search, or in the limit of large labels
    assert least_weight(network) > 1.01 * found or teacher == "quadratic"


def test_the_square_keeps_its_infimum() -> None:
    assert least_weight(Network(4, 1, 1.0)) == pytest.approx(-0.5, abs=1e-12)
    assert least_weight(Network(math.inf, 1, 1.0)) == pytest.approx(-2.0, abs=1e-12)


LINEAR = Activation(lambda x: x, np.ones_like, np.zeros_like, False, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("student", "teacher", "line"),
    [
        ("quartic", "quadratic", "weights are bounded below"),
        ("linear", "quadratic", "left edge below zero"),
        ("quadratic", "linear", "above -a = -1"),
        ("quadratic", "tanh", "above -a = -1"),
    ],
)
@pytest.mark.parametrize("p", [1, 3])
def test_what_has_no_left_edge_is_refused_in_one_line(
    p: int, student: str, teacher: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(activations.ACTIVATIONS, "linear", LINEAR)
    with pytest.raises(ParameterError, match=line) as found:
        least_weight(Network(p, 1, 1.0, student, teacher))
    assert "\n" not in str(found.value)


def test_a_quartic_student_of_a_bounded_teacher_has_a_left_edge() -> None:
    assert -10 < least_weight(Network(2, 1, 1.0, "quartic", "gauss")) < 0


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (lambda: Network(1, 1, 1.0, "relu"), "activation = 'relu' is not accepted"),
        (lambda: Network(1, 1, 0.7, "quadratic", "tanh"), "no left edge"),
        (lambda: even_transition(Network(2, 1, 1.0, "softplus")), "an even activation"),
        (lambda: even_transition(Network(65, 1, 1.0, "log_cosh")), "p = 65 is not accepted"),
        (
            lambda: even_transition(Network(1, 1, 2.0, "log_cosh", "softplus")),
            "teacher_activation = 'softplus'",
        ),
        (lambda: sector_spectrum(Network(1, 1, 1.0, "softplus"), 2.0), "from 2 to 4"),
        (lambda: observe(Network(1, 1, 1.0), 1.0, 9, np.random.default_rng(), "lu"), "method = 'lu'"),
        (lambda: observe(Network(math.inf, 1, 1.0), 1.0, 9, np.random.default_rng()), "finite for sampling"),
        (lambda: even_transition(Network(8, 1, 1.0, "gauss"), typical=True), "p = 8 is not accepted"),
    ],
)
def test_what_has_no_theory_or_no_sampler_is_refused_in_one_line(wrong, line: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ParameterError, match=line) as found:
        wrong()
    assert "\n" not in str(found.value)


def test_what_has_no_theory_is_published_as_unknown() -> None:
    network = Network(2, 1, 2.0, "log_cosh", "tanh")
    assert thresholds_of(network).transition == "unknown"
    assert math.isnan(thresholds_of(network).alpha_bbp)
    assert math.isnan(outliers_of(network, 2.0).lambda_minus)


@pytest.mark.parametrize("p", [1, 2])
def test_the_tangents_alpha_0_is_that_of_the_closed_form(p: int) -> None:
    found, exact = thresholds_of(Network(p, 1, 1.5)), alpha_0(Model(p, 1, 1.5)).tangent
    assert found.alpha_0_tangent == pytest.approx(exact, rel=0.02)  # two loads beside alpha_bbp, no limit
    continuous = thresholds_of(Network(p, 1, 0.3))
    assert continuous.alpha_0_tangent == continuous.alpha_bbp


def test_both_sectors_of_an_even_student_are_published_as_its_single_outlier() -> None:
    network = Network(2, 1, 1.0, "log_cosh")
    at, of = outliers_of(network, 3.0), even_spectrum(network, 3.0)
    assert (at.lambda_star_symmetric, at.lambda_star_relative) == (of.lambda_star, of.lambda_star)
    assert at.overlap_sq == at.overlap_sq_relative == of.overlap_sq
    load = even_transition(network).alpha_bbp
    assert thresholds_of(network)[2:4] == (load, load)
