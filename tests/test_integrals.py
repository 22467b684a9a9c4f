"""The one-dimensional averages compared with high-precision quadrature and exact limits."""

from __future__ import annotations

import math

import mpmath as mp
import oracle
import pytest

from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.branch import a_tricritical
from bendscape.core.quadratic.theory.integrals import averages
from bendscape.core.quadratic.theory.outlier import alpha_0, asymptotics, transition

# Corners of the domain: small and large p, p_star and a, gamma at both ends and where roots lie.
TABLE = [
    (Model(3, 2, 0.9), 0.5),
    (Model(1, 1, 1e-6), 0.25),
    (Model(1, 1, 1e-6), 1.0),
    (Model(2, 3, 0.5), 1e-3),
    (Model(5, 1, 1e3), 0.97),
    (Model(1, 512, 1e3), 0.1789),
    (Model(512, 512, 1e3), 1.0),
    (Model(512, 7, 0.01), 0.99),
    (Model(512, 1, 1e-6), 0.998),
    (Model(math.inf, 7, 1e-6), 0.9),
]


@pytest.mark.parametrize(("model", "gamma"), TABLE, ids=str)
def test_every_average_is_its_quadrature_over_the_law_of_y(model: Model, gamma: float) -> None:
    direct = oracle.direct_averages(model, gamma)
    with mp.workdps(oracle.DIGITS):
        laplace = oracle.laplace_averages(model, mp.mpf(gamma))
    # The two forms share nothing but the definitions; 17 digits is what the quadrature promises at least.
    assert all(abs(x - y) <= 1e-17 * abs(y) for x, y in zip(laplace, direct, strict=True))
    found = averages(model, gamma)
    for value, exact in zip(found[1:], direct[1:], strict=True):
        assert abs(mp.mpf(value) - exact) <= 1e-13 * abs(exact)
    # A changes sign: its error is relative to the size of its two parts, each of order 1/(1 + a).
    assert abs(mp.mpf(found.A) - direct[0]) <= 1e-14 * (abs(direct[0]) + 1 / (1 + model.a))


@pytest.mark.parametrize(("p", "offset", "slope"), [(1, 0.7, 0.5), (5, 1e-3, 3.0), (512, 2.0, 1.0)])
def test_the_inverse_moments_are_exponential_integrals(p: int, offset: float, slope: float) -> None:
    with mp.workdps(25):
        half = mp.mpf(p) / 2
        centre = mp.sqrt(p)

        def moment(power: int) -> mp.mpf:
            def integrand(r: mp.mpf) -> mp.mpf:
                density = mp.power(2, 1 - half) / mp.gamma(half) * mp.power(r, p - 1) * mp.exp(-r * r / 2)
                return density / (offset + slope * r * r / p) ** power

            cuts = sorted(
                {max(0.0, float(centre) - 12), math.sqrt(offset), float(centre), float(centre) + 12}
            )
            return mp.quad(integrand, cuts)

        closed = oracle.inverse_moments(p, mp.mpf(offset), mp.mpf(slope))
        assert all(abs(moment(k) - closed[k - 1]) < 1e-18 * closed[k - 1] for k in (1, 2))


@pytest.mark.parametrize("a", [0.2, 1.0, 3.7])
@pytest.mark.parametrize("p_star", [1, 3])
def test_the_threshold_approaches_infinite_width_with_its_first_correction(p_star: int, a: float) -> None:
    # E[1/(a + yhat)] = 1/(a+1) + (2/p)/(a+1)^3 + O(1/p^2) in the closed form of alpha_bbp: the correction is
    # p_star (a+2)(a-1)/((a+1)(a+3))/p, from below for a < 1 and from above for a > 1.
    limit, slope = p_star * (a + 1) / 2, p_star * (a + 2) * (a - 1) / ((a + 1) * (a + 3))
    rest = []
    for p in (1000, 2000, 4000):
        at_bbp = transition(Model(p, p_star, a))
        assert at_bbp.kind == "discontinuous"
        rest.append(p * p * (at_bbp.alpha_bbp - limit - slope / p))
    # What is left is of second order: p^2 times it settles, to O(1/p).
    assert rest[2] == pytest.approx(rest[1], rel=0.02)
    assert rest[1] == pytest.approx(rest[0], rel=0.04)


@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(3, 2, 1e-3), Model(2, 9, 30.0)], ids=str)
def test_at_large_load_edge_outlier_and_overlap_follow_the_weights_alone(model: Model) -> None:
    # gamma -> 0: 1 - m^2 = B_y/(alpha F^2), lambda_star = (2/p) alpha (A + F), lambda_minus = (2/p) alpha A.
    at_zero, alpha = averages(model, 0.0), 1e12
    found = asymptotics(model, alpha)
    assert alpha * (1 - found.overlap_sq) == pytest.approx(at_zero.B_y / at_zero.F**2, rel=1e-3)
    unit = 2 * alpha / model.p
    assert found.lambda_star == pytest.approx(unit * (at_zero.A + at_zero.F), rel=1e-4)
    assert found.lambda_minus == pytest.approx(unit * at_zero.A, rel=1e-4)


@pytest.mark.filterwarnings("ignore::bendscape.core.errors.PrecisionWarning")  # the jump is small here
@pytest.mark.parametrize("p", [1, 2, 3, 17, 100, 512])
def test_the_tricritical_offset_separates_the_kinds_for_every_pair_of_widths(p: int) -> None:
    before = 0.0
    for p_star in (1, 2, 7, 60, 512):
        a = a_tricritical(p, p_star)
        assert a > before
        assert transition(Model(p, p_star, a * (1 - 1e-3))).kind == "continuous"
        assert transition(Model(p, p_star, a * (1 + 1e-3))).kind == "discontinuous"
        before = a
        if p_star >= 7:  # its order of magnitude is p_star/p, where the fluctuations of y and yhat balance
            assert 1 < a * p / p_star < 12
    assert a_tricritical(p + 1, 7) < a_tricritical(p, 7)


def test_alpha_0_falls_with_the_width_to_its_value_at_infinite_width() -> None:
    widths = (1, 2, 3, 4, 8, 30, 100, 512, math.inf)
    found = [alpha_0(Model(p, 1, 0.7)) for p in widths]
    values = [each.complex_re for each in found]
    assert values == sorted(values, reverse=True)
    existing = [each.principal_value for each in found if not math.isnan(each.principal_value)]
    assert len(existing) >= 6
    assert existing == sorted(existing, reverse=True)
    thresholds = [transition(Model(p, 1, 0.7)).alpha_bbp for p in widths]
    assert thresholds[2] < thresholds[3] < thresholds[4]


@pytest.mark.parametrize("distance", [0.01, 0.03])
@pytest.mark.parametrize(("p", "p_star"), [(1, 1), (2, 7), (512, 3)])
def test_the_tangent_estimates_alpha_0_near_tricriticality(p: int, p_star: int, distance: float) -> None:
    model = Model(p, p_star, (1 + distance) * a_tricritical(p, p_star))
    found, alpha_bbp = alpha_0(model), transition(model).alpha_bbp
    window = alpha_bbp - found.principal_value
    assert window > 0
    # The tangent misses the curvature of m^2(alpha): a share of the window that is linear in the distance.
    assert abs(found.tangent - found.principal_value) < 2 * distance * window
