"""The teacher-student perceptron: theory, the rule at a fixed norm, training, and the kernel."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from command_line import bendscape

from bendscape.core.errors import ParameterError
from bendscape.core.perceptron.fixed_norm import minimise
from bendscape.core.perceptron.model import draw, generalisation_error, losses, norm_of
from bendscape.core.perceptron.theory import fixed_norm, hebb, largest_stability
from bendscape.core.perceptron.training import gradient_descent, gradient_flow
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.kernels.perceptron import AXES

FILE = """
[campaign]
name = "perceptrons"
store = "unused"
entropy = 1

[kernel]
name = "perceptron"
{options}

[grid]
alpha = {alpha}
N = [20]
seeds = 2
"""


def test_the_error_of_largest_stability_is_a_half_over_alpha_at_large_loads() -> None:
    """0.5005/alpha of Opper et al. (1990), given with four digits; corrections at alpha = 1000 are below
    1e-3."""
    assert largest_stability(1000).generalisation_error * 1000 == pytest.approx(0.5005, rel=1e-3)


def test_hebbs_error_is_the_formula_of_vallet() -> None:
    for alpha in (0.5, 8.0, 100.0):
        expected = math.acos(math.sqrt(2 * alpha / (2 * alpha + math.pi))) / math.pi
        assert hebb(alpha).generalisation_error == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 8.0])
def test_the_rule_at_a_fixed_norm_lies_between_hebb_and_largest_stability(alpha: float) -> None:
    """The correction is of order norm at small norms, and of order 1/norm at large ones."""
    assert fixed_norm(alpha, 1e-5).overlap == pytest.approx(hebb(alpha).overlap, abs=1e-5)
    assert fixed_norm(alpha, 1e4 * alpha).overlap == pytest.approx(largest_stability(alpha).overlap, abs=1e-4)


@pytest.mark.parametrize(("norm", "error"), [(1, 0.0980829), (10, 0.0548287), (100, 0.0588955)])
def test_the_error_at_a_fixed_norm_keeps_its_values(norm: float, error: float) -> None:
    """All seven digits."""
    assert fixed_norm(8, norm).generalisation_error == pytest.approx(error, abs=6e-8)


@pytest.mark.parametrize(("alpha", "norm"), [(2.0, 1.0), (8.0, 10.0)])
def test_the_theory_is_the_mean_over_samples(alpha: float, norm: float) -> None:
    """Overlap over 12 samples of N = 200, with 1/N for corrections of that order;
    4.5 standard errors with 11 degrees of freedom: a false alarm in fewer than 1 of 500 runs for the two."""
    found = []
    for seed in range(12):
        sample = draw(alpha, 200, np.random.default_rng([seed, 1]))
        w = minimise(sample, norm).w
        found.append(float(w @ sample.teacher) / (norm_of(w) * 200))
    error = float(np.std(found, ddof=1)) / math.sqrt(len(found))
    assert error < 0.01
    assert abs(np.mean(found) - fixed_norm(alpha, norm).overlap) < 4.5 * error + 1 / 200


@pytest.mark.parametrize("norm", [0.1, 3.0, 100.0])
def test_the_minimiser_is_stationary_on_the_sphere_and_beats_its_neighbours(norm: float) -> None:
    rng = np.random.default_rng(3)
    sample = draw(4, 40, rng)
    found = minimise(sample, norm)
    here = losses(sample, found.w)
    assert found.converged
    assert found.multiplier > 0
    assert norm_of(found.w) == pytest.approx(norm, rel=2e-8)
    off = np.linalg.norm(here.force - found.multiplier * found.w)
    assert off <= 1e-5 * np.linalg.norm(here.force)
    for size in (0.01, 0.1, 1.0):
        for _ in range(10):
            w = found.w + size * norm * rng.standard_normal(40)
            assert losses(sample, w * (norm / norm_of(w))).loss > here.loss


def test_a_rule_found_from_a_smaller_norm_is_the_same() -> None:
    sample = draw(4, 40, np.random.default_rng(4))
    np.testing.assert_allclose(
        minimise(sample, 5.0, minimise(sample, 1.0)).w, minimise(sample, 5.0).w, rtol=0, atol=1e-5
    )


def test_the_force_and_the_curvature_are_derivatives_of_the_loss() -> None:
    """Central differences with steps of 1e-5: errors of 1e-9 and rounding."""
    rng = np.random.default_rng(5)
    sample = draw(3, 12, rng)
    w, step = 2 * rng.standard_normal(12), 1e-5 * rng.standard_normal(12)
    up, here, down = losses(sample, w + step), losses(sample, w), losses(sample, w - step)
    assert sample.M * (down.loss - up.loss) / 2 == pytest.approx(float(here.force @ step), rel=1e-4)
    curved = sample.signed.T @ (here.curvature * (sample.signed @ step))
    np.testing.assert_allclose((down.force - up.force) / 2, curved, rtol=1e-5, atol=1e-12)


def test_the_generalisation_error_is_the_share_of_new_inputs_with_the_wrong_label() -> None:
    """1e5 inputs, 4 standard errors: a false alarm in 1 of 16000 runs; here it has a fixed seed."""
    rng = np.random.default_rng(6)
    teacher, w = rng.standard_normal((2, 10))
    inputs = rng.standard_normal((100_000, 10))
    share = float(((inputs @ w) * (inputs @ teacher) < 0).mean())
    error = generalisation_error(w, teacher)
    assert abs(share - error) < 4 * math.sqrt(error * (1 - error) / 100_000)
    assert generalisation_error(np.zeros(10), teacher) == 0.5


def test_the_flow_is_the_limit_of_small_learning_rates_and_of_small_tolerances() -> None:
    """Measured: 2.6e-3 at the first time at the default tolerance, with the norm below 1; 1.8e-3 for steps
    of 1e-3, which are of first order. Tolerance 1e-9 changes 5e-7."""
    sample = draw(4, 30, np.random.default_rng(7))
    times = [0.1, 1.0, 10.0]
    exact = gradient_flow(sample, times, tolerance=1e-8)
    for default, tight in zip(gradient_flow(sample, times), exact, strict=True):
        assert np.abs(default.w - tight.w).max() <= 5e-3 * norm_of(tight.w)
        assert default.evaluations < tight.evaluations
    for steps, flow in zip(gradient_descent(sample, times, learning_rate=1e-3), exact, strict=True):
        assert steps.time == pytest.approx(flow.time)
        assert np.abs(steps.w - flow.w).max() <= 3e-3 * norm_of(flow.w)


def test_training_ends_at_the_rule_of_its_own_norm() -> None:
    """Both go to the weights of largest stability, training as 1/log t (Soudry et al., 2018)."""
    sample = draw(8, 100, np.random.default_rng(8))
    off = []
    for now in gradient_flow(sample, [1e2, 1e6, 1e10]):
        rule = minimise(sample, norm_of(now.w))
        off.append(1 - float(rule.w @ now.w) / float(np.linalg.norm(rule.w) * np.linalg.norm(now.w)))
        assert now.here.training_error == 0 or now.time < 1e6
    assert off[2] < off[1]
    assert off[2] < 1e-3
    error = generalisation_error(now.w, sample.teacher)
    assert error == pytest.approx(generalisation_error(rule.w, sample.teacher), rel=0.1)


@pytest.mark.parametrize("times", [[], [1.0, 1.0], [-1.0], [math.nan]])
def test_times_that_do_not_increase_are_refused(times: list[float]) -> None:
    with pytest.raises(ParameterError, match="in increasing order"):
        gradient_flow(draw(2, 5, np.random.default_rng(0)), times)


def test_a_sample_has_an_input_from_half_of_one_on() -> None:
    assert draw(0.51, 1, np.random.default_rng(0)).M == 1
    with pytest.raises(ParameterError, match=r"alpha > 0\.05 at N = 10"):
        draw(0.05, 10, np.random.default_rng(0))


def test_a_cell_of_the_kernel_is_what_the_library_finds() -> None:
    cell: Any = AXES.cell(alpha=4.0, N=20, seed=1)
    times = [0.1, 10.0]
    outcome = load_kernel("perceptron", (), {"times": times}).compute(cell, cell_rng(1, cell))
    sample = draw(4.0, 20, cell_rng(1, cell))
    for i, now in enumerate(gradient_flow(sample, times)):
        assert outcome.values["norm"][i] == norm_of(now.w)
        assert outcome.values["loss"][i] == now.here.loss
        assert outcome.values["generalisation_error"][i] == generalisation_error(now.w, sample.teacher)
        rule = minimise(sample, norm_of(now.w))
        expected = generalisation_error(rule.w, sample.teacher)
        assert outcome.values["fixed_norm_error"][i] == pytest.approx(expected, abs=1e-6)
    assert outcome.values["evaluations"] == now.evaluations
    assert outcome.converged


@pytest.mark.parametrize(
    ("options", "alpha", "named"),
    [
        ("times = [2, 1]", 4, "times"),
        ('method = "gradient_descent"', 4, "learning_rate"),
        ("learning_rate = 0.1", 4, "learning_rate"),
        ("tolerance = 1", 4, "tolerance"),
        ("", 0.01, "alpha"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line(
    tmp_path: Any, options: str, alpha: float, named: str
) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(FILE.format(options=options, alpha=json.dumps([alpha])))
    found = bendscape("plan", file, "--store", tmp_path / "store.zarr")
    assert found.returncode == 2
    assert named in found.stderr
    assert len(found.stderr.splitlines()) == 1
