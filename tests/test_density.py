"""The density of the whole spectrum: its mass, its moments, its edge, and samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bendscape.core.bulk import left_edge
from bendscape.core.density import bulk_density, density_rule, upper_quantile
from bendscape.core.hessian import dense_hessian, sample_instance
from bendscape.core.integrals import averages, mean_log
from bendscape.core.model import Model, ParameterError


@pytest.mark.parametrize(
    ("model", "alpha"),
    [
        (Model(1, 1, 0.7), 1.5),
        (Model(1, 1, 0.7), 0.3),
        (Model(3, 2, 1.5), 1.0),
        (Model(60, 30, 10.0), 80.0),
        (Model(1, 40, 1e3), 5e4),
        (Model(22, 16, 0.7), 688.6),
    ],
    ids=str,
)
def test_the_density_has_unit_mass_and_the_moments_of_the_weights(model: Model, alpha: float) -> None:
    grid, weights, density = density_rule(model, alpha)
    mass = weights @ density.rho + density.atom
    assert density.atom == max(0.0, 1 - alpha)
    assert mass == pytest.approx(1, abs=1e-6)
    # tr H/(pN) and tr H^2/(pN) from the first two means of the weights d; 1e-8 of the mass is cut off.
    at_zero = averages(model, 0.0)
    first = (2 / model.p) * alpha * at_zero.A
    second = first**2 + (2 / model.p) ** 2 * alpha * at_zero.B
    assert weights @ (density.rho * grid) == pytest.approx(first, abs=1e-4 * math.sqrt(second))
    assert weights @ (density.rho * grid**2) == pytest.approx(second, rel=1e-3)
    # The integral, from the mean of log D, rises through the same masses.
    assert (np.diff(density.integrated) > -1e-9).all()
    assert density.integrated[-1] == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("gamma", [0.3, 0.8 + 0.4j])
def test_the_mean_of_log_d_has_the_derivative_a(gamma: complex) -> None:
    model, h = Model(3, 2, 0.9), 1e-5
    slope = (mean_log(model, gamma + h) - mean_log(model, gamma - h)) / (2 * h)
    assert slope == pytest.approx(averages(model, gamma).A, rel=1e-8)


def test_a_sharp_edge_is_a_square_root_and_a_smooth_one_is_thinner_than_any_power() -> None:
    sharp, smooth = (Model(1, 1, 0.7), 1.5), (Model(1, 1, 1.5), 1.2)
    for (model, alpha), kind in ((sharp, "sharp"), (smooth, "smooth")):
        edge = left_edge(model, alpha)
        assert edge.kind == kind
        near = edge.lambda_minus + np.array([-1e-3, 1e-5, 1e-4, 0.05])
        rho = bulk_density(model, alpha, near).rho
        assert rho[0] == 0
        if kind == "sharp":
            assert rho[2] / rho[1] == pytest.approx(math.sqrt(10), rel=1e-2)
        else:
            assert rho[2] < 1e-9
            assert rho[3] > 0


def test_samples_have_the_density() -> None:
    model, alpha, N, seeds = Model(2, 1, 0.7), 1.5, 200, 6
    cuts = np.array([-0.8, -0.4, -0.1, 0.1, 0.5, 1.5, 4.0, 10.0])
    expected = bulk_density(model, alpha, cuts).integrated
    counted = []
    for seed in range(seeds):
        instance = sample_instance(model, alpha, N, np.random.default_rng(seed))
        values = np.linalg.eigvalsh(dense_hessian(instance))
        counted.append(np.searchsorted(values, cuts) / len(values))
    # Five standard errors of the mean over seeds (false alarm 1e-2 at five degrees of freedom over all cuts,
    # the seeds are fixed) and p p_star outliers with an O(1/N) bias.
    spread = np.std(counted, axis=0, ddof=1) / math.sqrt(seeds)
    assert (abs(np.mean(counted, axis=0) - expected) < 5 * spread + 4 / (model.p * N)).all()


def test_the_upper_quantile_leaves_the_mass_it_is_asked_for() -> None:
    model, alpha = Model(3, 2, 1.5), 2.0
    for mass in (0.1, 1e-6):
        above = 1 - bulk_density(model, alpha, [upper_quantile(model, alpha, mass)]).integrated[0]
        assert 0.9 * mass < above <= mass


def test_a_grid_must_be_finite_and_without_zero() -> None:
    for grid in ([0.0, 1.0], [math.nan], [[1.0]]):
        with pytest.raises(ParameterError, match="grid"):
            bulk_density(Model(1, 1, 1.0), 1.0, grid)
    with pytest.raises(ParameterError, match="p = inf"):
        bulk_density(Model(math.inf, 1, 1.0), 1.0, [1.0])
