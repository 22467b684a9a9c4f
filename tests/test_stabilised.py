"""The stabilised explicit method on problems with exact answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from bendscape.core.errors import ParameterError
from bendscape.core.numerics.stabilised import DAMPING, Stabilised, StepTooSmall, chebyshev, combination

FloatArray = npt.NDArray[np.float64]


@dataclass
class Force:
    force: FloatArray


def amplification(stages: int, z: FloatArray) -> FloatArray:
    """w_1/w_0 of one step on dw/dt = (z/h) w."""
    first, mu, nu, forced, at_start = chebyshev(stages)
    before, w = np.ones_like(z), 1 + first * z
    for j in range(2, stages + 1):
        before, w = w, 1 - mu[j] - nu[j] + mu[j] * w + nu[j] * before + forced[j] * z * w + at_start[j] * z
    return w


@pytest.mark.parametrize("stages", [2, 3, 5, 20, 150])
def test_a_step_is_of_second_order_and_damps_the_whole_stable_interval(stages: int) -> None:
    small = np.array([-1e-3, 1e-3])
    assert amplification(stages, small) == pytest.approx(1 + small + small**2 / 2, abs=3e-10)
    stable = 2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * DAMPING)
    inside = np.linspace(-stable, -1.0, 5000)
    assert np.abs(amplification(stages, inside)).max() < 1  # about 1 - DAMPING/3 in the middle
    assert np.abs(amplification(stages, np.array([-1.15 * stable - 1])))[0] > 1


STIFF = np.array([1e4, 1e2, 1.0])


def driven(tolerance: float, radius: float = STIFF[0]) -> tuple[Stabilised[Force], FloatArray]:
    """dw_i/dt = -r_i (w_i - cos t) - sin t, with t as a component of its own: w_i = cos t + e^(-r_i t)."""

    def evaluate(w: FloatArray) -> Force:
        t = w[-1]
        return Force(np.append(-STIFF * (w[:-1] - np.cos(t)) - np.sin(t), 1.0))

    walk = Stabilised(
        evaluate, np.array([2.0, 2.0, 2.0, 0.0]), radius=lambda w, _: radius, tolerance=tolerance
    )
    worst = 0.0
    for time in (1e-4, 1e-2, 1.0, 5.0):
        while walk.t < time:
            walk.advance(time)
            exact = np.cos(walk.t) + np.exp(-STIFF * walk.t)
            worst = max(worst, float(np.abs(walk.w[:3] - exact).max()))
        assert walk.t == time == pytest.approx(walk.w[-1], rel=1e-12)
    return walk, np.array(worst)


def test_errors_follow_the_tolerance_on_a_stiff_problem_and_stiffness_costs_its_root() -> None:
    costs, errors = [], []
    for tolerance in (1e-2, 1e-4, 1e-6):
        walk, worst = driven(tolerance)
        assert worst < 20 * tolerance  # errors of steps add up
        costs.append(walk.evaluations)
        errors.append(float(worst))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert costs[0] < STIFF[0] * 5 / 2 / 10  # unstabilised, h < 2e-4 needs 25,000
    twice, _ = driven(1e-2, radius=4 * STIFF[0])
    assert 1.2 < twice.evaluations / costs[0] < 2.5


def test_a_path_may_gain_components_on_the_way() -> None:
    """Every evaluation adds a component that decays from nothing; the others are as without them."""
    width = 1

    def growing(w: FloatArray) -> Force:
        nonlocal width
        width += 1
        return Force(np.append(-w, np.zeros(width - len(w))))

    walk = Stabilised(growing, np.array([1.0]), radius=lambda w, _: 10.0, tolerance=1e-6)
    plain = Stabilised(lambda w: Force(-w), np.array([1.0]), radius=lambda w, _: 10.0, tolerance=1e-6)
    while walk.t < 1:
        walk.advance(1.0)
        plain.advance(1.0)
    assert walk.w[0] == plain.w[0] == pytest.approx(np.exp(-1), abs=1e-4)
    assert len(walk.w) > 10
    assert not walk.w[1:].any()
    assert combination((2.0, np.ones((2, 1))), (1.0, np.ones((2, 3)))).tolist() == [[3, 1, 1]] * 2


def test_a_radius_that_is_too_small_costs_rejected_steps_but_no_accuracy() -> None:
    walk, worst = driven(1e-2, radius=STIFF[0] / 2)
    assert worst < 3e-2
    assert walk.rejected > 0


def test_where_no_step_is_small_enough_it_says_so() -> None:
    walk = Stabilised(
        lambda w: Force(np.where(w < 0.5, np.nan, -1.0)),
        np.array([1.0]),
        radius=lambda w, _: 1.0,
        tolerance=1e-3,
    )

    def to_the_end() -> None:
        while walk.t < 2:
            walk.advance(2.0)

    with pytest.raises(StepTooSmall, match=r"at t = 0\.5"):
        to_the_end()
    assert walk.w[0] == pytest.approx(0.5, abs=1e-6)


def test_a_tolerance_below_rounding_is_refused() -> None:
    with pytest.raises(ParameterError, match="tolerance must be >= 5e-06 in this precision; float64"):
        Stabilised(
            lambda w: Force(-w), np.array([1.0]), radius=lambda w, _: 1.0, tolerance=1e-6, rounding=1.2e-7
        )
