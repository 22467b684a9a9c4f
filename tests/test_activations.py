"""Networks with activations other than the square: theory against closed forms, samples against theory."""

from __future__ import annotations

import numpy as np
import pytest

from bendscape.core import Model, ParameterError, asymptotics, transition
from bendscape.core.activations.activation import ACTIVATIONS, Network
from bendscape.core.activations.averages import least_weight
from bendscape.core.activations.sampling import draw, lowest_pairs
from bendscape.core.activations.sectors import sector_spectrum
from bendscape.core.activations.theory import even_spectrum, even_transition


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_and_curvatures_are_derivatives(name: str) -> None:
    x, h = np.linspace(-3, 3, 13), 1e-5
    activation = ACTIVATIONS[name]
    assert (activation.value(x + h) - activation.value(x - h)) / (2 * h) == pytest.approx(
        activation.slope(x), abs=1e-9
    )
    assert (activation.slope(x + h) - activation.slope(x - h)) / (2 * h) == pytest.approx(
        activation.curvature(x), abs=1e-9
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


@pytest.mark.parametrize("name", ["log_cosh", "sqrt", "gauss"])
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
    pairs = [lowest_pairs(network, alpha, 300, np.random.default_rng(seed)) for seed in range(10)]
    k = network.p
    for measured, expected in (
        (np.array([pair.eigvals[:k].mean() for pair in pairs]), theory.lambda_star),
        (np.array([pair.overlaps_sq[:k].mean() for pair in pairs]), theory.overlap_sq),
    ):
        assert abs(measured.mean() - expected) < 5 * measured.std(ddof=1) / len(pairs) ** 0.5 + 0.04


@pytest.mark.slow
def test_only_the_relative_outlier_of_softplus_leaves_first() -> None:
    """False alarms below 1e-3: 5 standard errors plus 0.01 for finite N, 10 seeds."""
    network = Network(2, 1, 1.0, "softplus")
    theory = sector_spectrum(network, 4.0)
    assert np.isnan(theory.symmetric.lambda_star)
    assert theory.relative == pytest.approx((-0.20921, 0.69962), abs=1e-4)
    pairs = [lowest_pairs(network, 4.0, 300, np.random.default_rng(seed)) for seed in range(10)]
    for name, expected in (
        ("eigvals", theory.relative.lambda_star),
        ("overlaps_sq", theory.relative.overlap_sq),
    ):
        measured = np.array([getattr(pair, name)[0] for pair in pairs])
        assert abs(measured.mean() - expected) < 5 * measured.std(ddof=1) / len(pairs) ** 0.5 + 0.01


@pytest.mark.slow
def test_tanh_has_no_outlier_in_either_sector() -> None:
    found = sector_spectrum(Network(2, 1, 1.0, "tanh"), 6.0)
    assert np.isnan(found.symmetric.lambda_star)
    assert np.isnan(found.relative.lambda_star)


@pytest.mark.slow
def test_both_sectors_of_an_even_student_are_its_single_outlier() -> None:
    network = Network(2, 1, 1.5)
    exact, found = asymptotics(Model(2, 1, 1.5), 1.9844), sector_spectrum(network, 1.9844)
    for outlier in (found.symmetric, found.relative):
        assert outlier == pytest.approx((exact.lambda_star, exact.overlap_sq), abs=1e-4)


@pytest.mark.parametrize("activation", ["log_cosh", "softplus"])
def test_the_dense_matrix_and_the_product_agree_on_one_instance(activation: str) -> None:
    network = Network(3, 2, 0.5, activation)
    sample = draw(network, 2.0, 30, np.random.default_rng(0))
    vectors = np.random.default_rng(1).standard_normal((90, 4))
    assert sample.matrix() @ vectors == pytest.approx(sample.product(vectors), abs=1e-12)
    dense, explicit = (
        lowest_pairs(network, 2.0, 30, np.random.default_rng(2), method) for method in ("dense", "explicit")
    )
    assert explicit.eigvals == pytest.approx(dense.eigvals, abs=1e-8)
    assert explicit.overlaps_sq == pytest.approx(dense.overlaps_sq, abs=1e-5)


@pytest.mark.parametrize("name", ["quadratic", "log_cosh", "sqrt", "gauss"])
def test_no_sample_weighs_less_than_the_infimum(name: str) -> None:
    network = Network(3, 1, 0.3, name)
    sample = draw(network, 300.0, 100, np.random.default_rng(0))
    weights = sample.slopes[:, :, None] * sample.slopes[:, None] + sample.diagonal[:, :, None] * np.eye(3)
    assert np.linalg.eigvalsh(weights).min() >= least_weight(network)


def test_the_square_keeps_its_infimum() -> None:
    assert least_weight(Network(4, 1, 1.0)) == pytest.approx(-0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (lambda: Network(1, 1, 1.0, "relu"), "activation = 'relu' is not accepted"),
        (lambda: Network(1, 1, 0.7, "quadratic", "tanh"), "no left edge"),
        (lambda: even_transition(Network(2, 1, 1.0, "softplus")), "an even activation"),
        (lambda: even_transition(Network(9, 1, 1.0, "log_cosh")), "p = 9 is not accepted"),
        (lambda: sector_spectrum(Network(1, 1, 1.0, "softplus"), 2.0), "from 2 to 3"),
        (lambda: lowest_pairs(Network(1, 1, 1.0), 1.0, 9, np.random.default_rng(), "lu"), "method = 'lu'"),
    ],
)
def test_what_has_no_theory_or_no_edge_is_refused_in_one_line(wrong, line: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ParameterError, match=line) as found:
        wrong()
    assert "\n" not in str(found.value)
