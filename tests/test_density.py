"""The density of the whole spectrum: its mass, its moments, its edge, and samples."""

from __future__ import annotations

import math

import mpmath as mp
import numpy as np
import oracle
import pytest

from bendscape.core.errors import ParameterError, PrecisionWarning, unwarned
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.hessian import dense_hessian, sample_instance
from bendscape.core.quadratic.theory import density as density_module
from bendscape.core.quadratic.theory.bulk import left_edge
from bendscape.core.quadratic.theory.density import bulk_density, density_rule, upper_quantile
from bendscape.core.quadratic.theory.half_plane import plane_averages
from bendscape.core.quadratic.theory.integrals import averages


@pytest.mark.parametrize(
    ("model", "alpha"),
    [
        (Model(1, 1, 0.7), 1.5),
        (Model(1, 1, 0.7), 0.3),
        (Model(3, 2, 1.5), 1.0),
        (Model(60, 30, 10.0), 80.0),
        (Model(1, 40, 1e3), 5e4),
        (Model(22, 16, 0.7), 688.6),
        (Model(2, 1, 1e-6), 1.0),  # a peak at 0
        (Model(4, 366, 130.0), 0.047),  # an almost isolated piece
        (Model(68, 16, 0.67, 36.7), 1.0001),  # an almost sharp edge next to 0
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
    # Of the second moment, the 1e-8 that are cut off hold 1.5e-3 where a = 1e-6, 6e-5 or less elsewhere.
    assert weights @ (density.rho * grid**2) == pytest.approx(second, rel=1e-4 if model.a > 1e-3 else 2e-3)
    # The integral, from the mean of log D, rises through the same masses.
    assert (np.diff(density.integrated) >= -2 * density.integrated_error.max()).all()
    assert density.integrated[-1] == pytest.approx(1, abs=1e-7)


def somewhere(rng: np.random.Generator) -> tuple[Model, float]:
    """A model and a load anywhere in the domain, a third of them with alpha at or next to 1, or below."""
    p, p_star = (round(512 ** rng.uniform()) for _ in range(2))
    noise = rng.choice([0.0, 10 ** rng.uniform(-3, 2)])
    alpha = p_star * 10 ** rng.uniform(math.log10(0.02), 4)
    special = [1.0, 1 + rng.choice([-1, 1]) * 10 ** rng.uniform(-8, -1), 10 ** rng.uniform(-1.7, 0)]
    which = rng.integers(9)
    return Model(p, p_star, 10 ** rng.uniform(-6, 3), noise), special[which] if which < 3 else alpha


def check_somewhere(rng: np.random.Generator) -> None:
    model, alpha = somewhere(rng)
    with unwarned():  # the error estimates may exceed the claimed accuracy, but must be bounds
        grid, weights, density = density_rule(model, alpha)
        # Half the points in the middle of the mass, half spread over all of it.
        points = np.concatenate([rng.choice(grid, 20), np.linspace(grid[0], grid[-1], 20)])
        points = np.sort(points[points != 0])
        found = bulk_density(model, alpha, points)
    case = f"{model} at alpha = {alpha!r}"
    assert weights @ density.rho + density.atom == pytest.approx(1, abs=1e-6), case
    assert np.isfinite(found.rho).all(), case
    assert (found.rho >= 0).all(), case
    assert density.integrated_error.max() < 1e-6, case
    assert (np.diff(found.integrated) >= -2 * found.integrated_error.max()).all(), case
    # The points taken from the rule were found along the curve there, and by bracketing here.
    for i in np.flatnonzero(np.isin(points, grid)):
        j = int(np.searchsorted(grid, points[i]))
        slack = found.rho_error[i] + density.rho_error[j] + 1e-11 * density.rho.max()
        assert abs(found.rho[i] - density.rho[j]) <= slack, case


def test_anywhere_in_the_domain_the_mass_is_one_and_no_point_is_lost() -> None:
    rng = np.random.default_rng(3)
    for _ in range(8):
        check_somewhere(rng)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 150))
def test_everywhere_in_the_domain_the_mass_is_one_and_no_point_is_lost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(6):
        check_somewhere(rng)


def chi(dof: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of chi2_dof/dof, by the trapezoidal rule in the logarithm."""
    log = np.arange(-76 / dof - 4, 4, 0.05)
    weight = np.exp(dof / 2 * (log - np.exp(log)))
    return np.exp(log), weight / weight.sum()


@pytest.mark.parametrize("model", [Model(3, 2, 0.9), Model(1, 40, 1e-3, 0.5), Model(300, 7, 20.0)], ids=str)
def test_the_averages_of_the_half_plane_are_those_of_a_quadrature_over_both_outputs(model: Model) -> None:
    # The trapezoidal rule in the logarithms of y and yhat shares nothing with the Laplace form. 1e-10 for its
    # own step, next to poles at a distance of 0.3 or more.
    (y, of_y), (yhat, of_yhat) = chi(model.p_star), chi(model.p)
    y = (1 + model.noise) * y[:, np.newaxis]
    gamma = np.array([0.4 + 0.5j, 1 + 2j, -1 + 0.8j, -0.01 + 0.02j])
    found = plane_averages(model, gamma)
    for i, x in enumerate(gamma):
        expected = np.zeros(5, dtype=complex)
        for c, share in ((1, 1 - 1 / model.p), (3, 1 / model.p)):
            u = c * yhat - y
            D = model.a + y + x * u
            log_d = np.log(D * np.exp(-0.5j)) + 0.5j if x.real < 0 else np.log(D * np.exp(0.5j)) - 0.5j
            for j, term in enumerate(
                (u / D, (u / D) ** 2, (model.a + y) / D, log_d, u**2 * (model.a + y) / D**3)
            ):
                expected[j] += share * (of_y @ term @ of_yhat)
        np.testing.assert_allclose([column[i] for column in found], expected, rtol=1e-10)


def test_the_height_falls_to_zero_without_a_jump_at_an_edge_all_but_at_zero() -> None:
    # The bracket there is -7e-12 at v = 0 and grows by 1.18 v^2: far below 1, but not below what can be seen.
    model, alpha = Model(390, 96, 0.10945386783447132, 12.447655316247856), 0.999999985306395
    xi = np.array([-6.7980e-9, -6.7320e-9, -6.7313e-9, -6.7300e-9, -6.7290e-9])
    v = density_module._spectrum(model, alpha).curve(xi).tau.imag
    assert v[-2] > 1e-6
    # v^2 is linear in xi so close to the edge.
    np.testing.assert_allclose(
        np.diff(v**2) / np.diff(xi), (v[-1] ** 2 - v[0] ** 2) / (xi[-1] - xi[0]), rtol=1e-3
    )


def test_the_curve_is_where_the_map_is_real() -> None:
    # tau t/(tau - t) and t^2/|tau - t|^2 averaged over both outputs on a grid of their logarithms, p = 1.
    model, alpha = Model(1, 3, 0.9), 2.0
    found = density_module._spectrum(model, alpha).curve([-0.3, 0.2, 1.0])
    (y, of_y), (yhat, of_yhat) = chi(model.p_star), chi(model.p)
    t = (3 * yhat - y[:, np.newaxis]) / (model.a + y[:, np.newaxis])
    for tau, x in zip(found.tau, found.x, strict=True):
        assert tau.imag > 0.2  # far enough from the poles for this rule
        assert alpha * (of_y @ (t**2 / abs(tau - t) ** 2) @ of_yhat) == pytest.approx(1, abs=1e-8)
        assert tau + alpha * (of_y @ (tau * t / (tau - t)) @ of_yhat) == pytest.approx(x, abs=1e-8)
    (lower, upper), (below, above) = found.x[:2] * 2, found.integrated[:2]
    nodes, weights = np.polynomial.legendre.leggauss(60)
    lam = (lower + upper) / 2 + (upper - lower) / 2 * nodes
    lam_mass = (upper - lower) / 2 * (weights @ bulk_density(model, alpha, lam).rho)
    assert lam_mass == pytest.approx(above - below, abs=1e-6)


@pytest.mark.parametrize("lam", [0.627, 1.326])
def test_the_error_estimate_of_the_density_bounds_its_error(lam: float) -> None:
    model, alpha = Model(2, 3, 0.9), 4.0
    found = bulk_density(model, alpha, [lam])
    tau = density_module._invert(density_module._spectrum(model, alpha), np.array([model.p / 2 * lam]))[0]
    gamma = mp.mpc(-1 / tau)
    assert 0.8 < mp.arg(gamma) < math.pi - 0.8  # far from the poles, no ray is needed
    with mp.workdps(oracle.DIGITS):
        x = mp.mpf(model.p) / 2 * mp.mpf(lam)
        exact = oracle.root(lambda at: -1 / at + alpha * oracle.laplace_averages(model, at)[0] - x, gamma)
        error = abs(model.p / (2 * mp.pi) * exact.imag - mp.mpf(found.rho[0]))
    assert error <= found.rho_error[0] <= 1e-12 * found.rho[0]


def test_a_point_that_is_not_found_is_nan_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_module, "_MOST_BRACKETS", 0)
    with pytest.warns(PrecisionWarning, match="nan at 2 of 3 points"):
        found = bulk_density(Model(2, 1, 0.7), 1.5, [-100.0, -0.1, 2.0])
    for column in (found.rho, found.integrated, found.rho_error, found.integrated_error):
        assert np.isnan(column).tolist() == [False, True, True]


def test_at_alpha_one_the_density_diverges_like_an_inverse_square_root_on_both_sides_of_zero() -> None:
    grid = np.array([-1e-8, -1e-10, -1e-12, 1e-12, 1e-10, 1e-8])
    scaled = bulk_density(Model(2, 2, 0.7), 1.0, grid).rho * np.sqrt(abs(grid))
    # The next order is smaller by |lambda|^(1/2), times a logarithm.
    np.testing.assert_allclose(scaled[:3], scaled[2], rtol=1e-2)
    np.testing.assert_allclose(scaled[3:], scaled[3], rtol=1e-2)
    assert abs(scaled[2] / scaled[3] - 1) > 0.05  # the sides differ


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


@pytest.mark.parametrize(
    ("model", "alpha"),
    [(Model(2, 1, 0.7), 1.5), (Model(1, 3, 0.7), 0.6), (Model(2, 4, 1e-2, 0.3), 1.0)],
    ids=["p > p_star", "p < p_star, alpha < 1", "noise, alpha = 1"],
)
def test_samples_have_the_density(model: Model, alpha: float) -> None:
    N, seeds = 200, 10
    cuts = np.array([-0.8, -0.4, -0.1, 0.1, 0.5, 1.5, 4.0, 10.0])
    expected = bulk_density(model, alpha, cuts).integrated
    counted = []
    for seed in range(seeds):
        instance = sample_instance(model, alpha, N, np.random.default_rng(seed))
        values = np.linalg.eigvalsh(dense_hessian(instance))
        counted.append(np.searchsorted(values, cuts) / len(values))
    # Five standard errors of the mean over seeds (false alarm 7e-4 a cut at nine degrees of freedom, 2e-2
    # over all, the seeds are fixed) and p p_star outliers with an O(1/N) bias.
    spread = np.std(counted, axis=0, ddof=1) / math.sqrt(seeds)
    outliers = (2 + model.p * model.p_star) / (model.p * N)
    assert (abs(np.mean(counted, axis=0) - expected) < 5 * spread + outliers).all()


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
