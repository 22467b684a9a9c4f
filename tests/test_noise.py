"""Noise on the teacher's pre-activations, in theory and in samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.drawn_labels import drawn_labels_theory
from bendscape.core.quadratic.sampling.hessian import dense_hessian, sample_instance
from bendscape.core.quadratic.sampling.inputs import drawn_inputs
from bendscape.core.quadratic.theory.branch import a_tricritical
from bendscape.core.quadratic.theory.integrals import Averages, averages
from bendscape.core.quadratic.theory.outlier import alpha_0, asymptotics, transition


def test_zero_noise_gives_the_bits_of_a_model_without_noise() -> None:
    plain, silent = Model(2, 2, 0.7), Model(2, 2, 0.7, noise=0)
    assert plain == silent
    ours, rng = np.random.default_rng(5), np.random.default_rng(5)
    instance = sample_instance(silent, 1.5, 20, ours)
    students, teachers = rng.standard_normal((2, 20)), rng.standard_normal((2, 20))
    inputs = drawn_inputs("gaussian", 30, 20, rng).stored("float64")
    assert isinstance(instance.inputs, np.ndarray)
    assert (instance.inputs == inputs).all()
    assert ours.bit_generator.state == rng.bit_generator.state  # nothing else was drawn
    noisy = sample_instance(Model(2, 2, 0.7, noise=0.5), 1.5, 20, np.random.default_rng(5))
    assert (noisy.inputs == inputs).all()
    assert (noisy.yhat == instance.yhat).all()
    assert not np.isclose(noisy.y, instance.y).any()
    assert students.shape == teachers.shape


@pytest.mark.parametrize("noise", [-0.1, math.nan, math.inf, True, "x"])
def test_noise_is_a_variance(noise: object) -> None:
    with pytest.raises(ParameterError, match="noise"):
        Model(1, 1, 1.0, noise)  # type: ignore[arg-type]


@pytest.mark.parametrize("gamma", [0.2, 0.7, 1.0])
def test_averages_with_noise_are_means_over_noisy_labels_weighted_by_the_clean_teacher(gamma: float) -> None:
    model = Model(3, 2, 0.9, noise=0.6)
    rng = np.random.default_rng(11)
    u = rng.standard_normal((1_000_000, 2))
    y = ((u + math.sqrt(model.noise) * rng.standard_normal(u.shape)) ** 2).mean(axis=1)
    yhat = (rng.standard_normal((len(u), 3)) ** 2).mean(axis=1)
    clean = (u * u).mean(axis=1)  # the weight itself, no conditional expectation taken
    samples = []
    for c, share in ((1, 2 / 3), (3, 1 / 3)):
        ratio = (c * yhat - y) / (model.a + (1 - gamma) * y + gamma * c * yhat)
        samples.append(share * np.array([ratio, (clean - 1) * ratio, ratio**2, clean * ratio**2]))
    terms = sum(samples)
    # Four means, each within five of its standard errors: false alarm 2e-6.
    error = terms.std(axis=1) / math.sqrt(len(u))
    found = np.array(averages(model, gamma))
    assert (abs(found - terms.mean(axis=1)) < 5 * error).all()
    assert isinstance(averages(model, gamma), Averages)


@pytest.mark.parametrize("p", [1, 4, math.inf])
def test_noise_does_not_move_a_discontinuous_threshold_but_lowers_its_overlap(p: float) -> None:
    clean, noisy = transition(Model(p, 2, 6.0)), transition(Model(p, 2, 6.0, 0.3))
    assert clean.kind == noisy.kind == "discontinuous"
    assert noisy.alpha_bbp == pytest.approx(clean.alpha_bbp, rel=1e-13)
    assert 0 < noisy.overlap_sq_jump < 0.9 * clean.overlap_sq_jump
    assert noisy.alpha_sharp < clean.alpha_sharp
    assert alpha_0(Model(p, 2, 6.0, 0.3)).complex_re > alpha_0(Model(p, 2, 6.0)).complex_re


@pytest.mark.parametrize("p", [1, 3, math.inf])
def test_noise_raises_a_continuous_threshold_and_the_tricritical_offset(p: float) -> None:
    tricritical = [a_tricritical(p, 2, noise) for noise in (0.0, 0.2, 1.0)]
    assert tricritical == sorted(set(tricritical))
    for noise, a in zip((0.2, 1.0), tricritical[1:], strict=True):
        assert transition(Model(p, 2, a * 0.99, noise)).kind == "continuous"
        assert transition(Model(p, 2, a * 1.01, noise)).kind == "discontinuous"
    thresholds = [transition(Model(p, 2, 0.1, noise)).alpha_bbp for noise in (0.2, 0.5, 1.0)]
    assert thresholds == sorted(thresholds)


def test_samples_with_noise_show_the_outlier_of_the_theory() -> None:
    model, N, seeds = Model(1, 1, 0.5, noise=0.4), 500, 12
    alpha = 3 * transition(model).alpha_bbp
    theory = asymptotics(model, alpha)
    measured = []
    for seed in range(seeds):
        instance = sample_instance(model, alpha, N, np.random.default_rng(seed))
        values, vectors = np.linalg.eigh(dense_hessian(instance))
        overlap_sq = instance.teacher_overlap_sq(vectors[:, :1])[0]
        predicted = drawn_labels_theory(model, N, instance.y, instance.yhat)
        measured.append((values[0], overlap_sq, predicted.outlier_sample, predicted.overlap_sq_sample))
    mean, spread = np.mean(measured, axis=0), np.std(measured, axis=0, ddof=1) / math.sqrt(seeds)
    without = asymptotics(Model(1, 1, 0.5), alpha)
    for i, (exact, clean) in enumerate(
        zip(
            (theory.lambda_star, theory.overlap_sq) * 2,
            (without.lambda_star, without.overlap_sq) * 2,
            strict=True,
        )
    ):
        # Five standard errors (false alarm 1e-4 with eleven degrees of freedom) and O(1/N) of bias.
        band = 5 * spread[i] + 10 / N
        assert abs(mean[i] - exact) < band
        if i % 2:  # the overlap tells the noise
            assert abs(mean[i] - clean) > band
