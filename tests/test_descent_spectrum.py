"""What is measured along a descent: eigenpairs of the Riemannian Hessian, own labels, outcomes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.descent.explicit import ExplicitData
from bendscape.core.quadratic.descent.flow import Moment, gradient_flow
from bendscape.core.quadratic.descent.measure import follow, measure
from bendscape.core.quadratic.descent.revealed import RevealedData
from bendscape.core.quadratic.descent.spectrum import lowest_pairs, own_labels
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.hessian import sample_instance

FloatArray = npt.NDArray[np.float64]


def explicit(model: Model, alpha: float, N: int, seed: int = 0) -> ExplicitData:
    return ExplicitData(sample_instance(model, alpha, N, np.random.default_rng(seed)))


def dense_pairs(moment: Moment) -> tuple[FloatArray, FloatArray]:
    """Lowest eigenvalues of P (H - mu) P on the tangent space, and squared overlaps with the teacher."""
    data, (p, N) = moment.data, moment.w.shape
    H = np.array([data.hessian_times(moment.here, e.reshape(p, N)).ravel() for e in np.eye(p * N)])
    H -= np.diag(np.repeat(moment.here.multiplier, N))
    radial = np.zeros((p * N, p))
    for k in range(p):
        radial[k * N : (k + 1) * N, k] = moment.w[k]
    tangent = np.linalg.qr(np.concatenate([radial, np.eye(p * N)], axis=1))[0][:, p:]
    values, vectors = np.linalg.eigh(tangent.T @ H @ tangent)
    basis = np.linalg.qr(data.teachers.T)[0]
    lowest = (tangent @ vectors[:, :3]).T.reshape(3, p, N)[:, :, : len(basis)] @ basis
    return values[:3], (lowest**2).sum(axis=(1, 2))


@pytest.mark.parametrize(
    ("model", "alpha", "N"),
    [(Model(1, 1, 0.01), 4.0, 60), (Model(2, 1, 0.1), 2.5, 40), (Model(3, 2, 0.5), 2.0, 24)],
    ids=str,
)
def test_the_lowest_pairs_are_those_of_the_projected_matrix(model: Model, alpha: float, N: int) -> None:
    def both(moment: Moment) -> float:
        found = lowest_pairs(moment, tolerance=1e-9)
        values, overlaps_sq = dense_pairs(moment)
        assert found.converged
        assert found.values == pytest.approx(values, abs=1e-8 * np.abs(values).max())
        apart = np.diff(values).min() > 1e-3 * np.abs(values).max()
        assert not apart or found.overlaps_sq == pytest.approx(overlaps_sq, abs=1e-5)
        loose = lowest_pairs(moment)  # honest: an eigenvalue lies within the residual of each value
        assert loose.steps <= found.steps
        assert (np.abs(loose.values - values) <= loose.residuals + 1e-8 * np.abs(values).max()).all()
        return float(values[0])

    lowest = gradient_flow(explicit(model, alpha, N), [0.0, 0.1, 1.0], both).seen
    assert lowest[0] < lowest[1] < lowest[2]


def test_what_is_measured_follows_from_the_loss_on_the_spheres_alone() -> None:
    """Loss, gradient and its norm, multipliers, lowest pairs and overlaps by differences of the loss;
    tolerances are those of differences in double precision."""
    p, N, model = 2, 12, Model(2, 2, 0.05, 0.3)
    instance = sample_instance(model, 3.0, N, np.random.default_rng(3))
    X, y, teacher = np.asarray(instance.inputs), instance.y, np.linalg.qr(instance.teachers.T)[0]

    def loss(w: FloatArray) -> float:
        yhat = ((X @ w.T) ** 2).mean(axis=1) / N
        return float(((y - yhat) ** 2 / (0.05 + y)).sum()) / 2

    def look(moment: Moment) -> None:
        w, seen = moment.w, measure(moment, 3)
        radial = np.zeros((p * N, p))
        for k in range(p):
            radial[k * N : (k + 1) * N, k] = w[k]
        tangent = np.linalg.qr(np.concatenate([radial, np.eye(p * N)], axis=1))[0][:, p:]

        def on_spheres(c: FloatArray) -> float:
            moved = w + (tangent @ c).reshape(p, N)
            return loss(moved * np.sqrt(N) / np.linalg.norm(moved, axis=1, keepdims=True))

        h, n = 2e-3, tangent.shape[1]
        e = h * np.eye(n)
        H = np.array(
            [
                [
                    sum(s * t * on_spheres(s * e[i] + t * e[j]) for s in (1, -1) for t in (1, -1))
                    for j in range(n)
                ]
                for i in range(n)
            ]
        ) / (4 * h**2)
        values, vectors = np.linalg.eigh(H)
        overlaps_sq = [((tangent @ v).reshape(p, N) @ teacher) ** 2 for v in vectors.T[:3]]
        gradient = [(on_spheres(e[i]) - on_spheres(-e[i])) / (2 * h) for i in range(n)]
        radially = [(loss(w + h * r) - loss(w - h * r)) / (2 * h) / N for r in radial.T.reshape(p, p, N)]
        assert seen.pairs is not None
        assert seen.pairs.values == pytest.approx(values[:3], abs=1e-4)
        assert seen.pairs.overlaps_sq == pytest.approx([of.sum() for of in overlaps_sq], abs=1e-3)
        assert seen.loss == pytest.approx(loss(w) / N)
        assert seen.gradient_norm == pytest.approx(np.linalg.norm(gradient) / np.sqrt(N), rel=1e-4)
        assert seen.multiplier == pytest.approx(radially, abs=1e-3)

    gradient_flow(ExplicitData(instance), [0.1, 1.0], look)


def test_revealed_data_have_the_pairs_of_what_they_reveal() -> None:
    """With everything revealed by the path, the pairs are those of an explicit matrix."""
    data = RevealedData(Model(1, 1, 0.1), 2.0, 30, np.random.default_rng(0))
    end = gradient_flow(data, [2.0], lambda m: m).end
    assert data.directions == 30
    found = lowest_pairs(end, tolerance=1e-9)
    values, overlaps_sq = dense_pairs(end)
    assert found.values == pytest.approx(values, rel=1e-7)
    assert found.overlaps_sq == pytest.approx(overlaps_sq, abs=1e-6)


def test_one_projection_for_lanczos_vectors_loses_no_direction() -> None:
    """The pairs of a fork agree whether its products project once or twice."""
    data = RevealedData(Model(2, 1, 0.01), 3.0, 400, np.random.default_rng(0), dtype=np.float32)
    times = data.hessian_times
    found = []

    def look(moment: Moment) -> None:
        for once in (True, False):
            rng, known = data.data.space.rng, data.directions
            data.data.space.rng = np.random.default_rng(1)
            data.hessian_times = lambda here, v, once, asked=once: times(here, v, once=asked)  # type: ignore[method-assign, misc]
            found.append(lowest_pairs(moment, 1, tolerance=1e-5))
            data.data.space.rng = rng
            assert data.directions == known

    gradient_flow(data, [0.3], look)
    assert found[0].steps == pytest.approx(found[1].steps, abs=3)
    assert found[0].values == pytest.approx(found[1].values, rel=1e-3)
    assert found[0].overlaps_sq == pytest.approx(found[1].overlaps_sq, abs=1e-2)


@pytest.mark.parametrize(
    ("model", "alpha", "N", "time"),
    [
        (Model(1, 1, 0.01), 0.5, 60, 10.0),
        (Model(1, 1, 1.0), 1 / 40, 40, 1.0),
        (Model(2, 1, 0.01), 0.5, 40, 100.0),
    ],
    ids=str,
)
def test_degenerate_eigenvalues_are_found_as_often_as_they_occur(
    model: Model, alpha: float, N: int, time: float
) -> None:
    """M < N: -mu has multiplicity N - 1 - M at p = 1; of interpolating wide students a cluster lies at 0."""
    moment = gradient_flow(explicit(model, alpha, N), [time], lambda m: m).seen[0]
    values, _ = dense_pairs(moment)
    found = lowest_pairs(moment)
    assert found.converged
    assert found.values == pytest.approx(values, abs=2e-3 * np.abs(values).max())
    if model.p == 1:
        assert values == pytest.approx(-moment.here.multiplier.repeat(3))


def test_too_few_steps_are_reported() -> None:
    moment = gradient_flow(explicit(Model(1, 1, 0.01), 3.0, 100), [0.1], lambda m: m).end
    short = lowest_pairs(moment, max_steps=12)
    assert (short.converged, short.steps) == (False, 12)
    full = lowest_pairs(moment)
    assert (short.values > full.values).any()
    few = lowest_pairs(moment, 2, max_steps=1)
    assert np.isnan(few.values).tolist() == [False, True]
    with pytest.raises(ParameterError, match="count must be an integer >= 1"):
        lowest_pairs(moment, 0)


def test_the_edge_of_the_own_labels_is_near_the_measured_one_before_late_times() -> None:
    """N = 2000, alpha = 3: the second pair belongs to the bulk, as far above its edge as N^(-2/3) says."""
    data = RevealedData(Model(1, 1, 0.01), 3.0, 2000, np.random.default_rng(2))
    seen = gradient_flow(
        data, [0.3, 1.0], lambda m: (lowest_pairs(m, 2).values[1], own_labels(m).edge_sample)
    ).seen
    for measured, edge in seen:
        assert measured == pytest.approx(edge, abs=0.15)
    assert seen[0][1] == pytest.approx(-2.582, abs=0.3)  # at N = 1e4; cells differ by 1/sqrt(N)
    assert seen[1][1] == pytest.approx(-1.473, abs=0.2)


def test_a_cell_is_followed_to_its_outcome() -> None:
    model, times = Model(1, 1, 0.01), [0.0, 0.1, 1.0, 30.0]
    found = follow(explicit(model, 4.0, 100), times, pairs=1)
    assert found.recovered
    assert found.stopped == "time"
    assert 1 < found.time_recovered < 30
    assert [seen.time for seen in found.seen] == times
    assert found.seen[-1].alignment > 0.99
    assert found.seen[-1].generalisation_error < 1e-2
    assert found.seen[-1].gradient_norm < 1e-2 < found.seen[0].gradient_norm
    first = found.seen[0]
    assert pytest.approx(np.ones((1, 1))) == first.Q
    assert first.alignment == pytest.approx(float(first.R[0, 0] ** 2))
    assert first.pairs is not None
    assert first.pairs.values.shape == (1,)
    early = follow(explicit(model, 4.0, 100), times, pairs=0, until_recovered=True)
    assert early.stopped == "asked"
    assert early.time_recovered == found.time_recovered
    assert early.evaluations < found.evaluations
    assert early.seen[0].pairs is None


def test_a_cell_that_is_trapped_says_so_and_when_it_lost_the_outlier() -> None:
    found = follow(explicit(Model(1, 1, 0.01), 3.2, 400, 1), [0.0, 0.05, 1.0, 5.0], pairs=0, confined=True)
    assert (found.recovered, found.stopped) == (False, "time")
    assert math.isnan(found.time_recovered)
    assert not math.isnan(found.seen[0].own.outlier_sample)
    assert math.isnan(found.seen[-1].own.outlier_sample)
    assert found.time_lost in (0.05, 1.0, 5.0)


def test_gradient_descent_is_followed_in_the_same_way() -> None:
    found = follow(explicit(Model(2, 1, 1.0), 3.0, 30), [0.0, 0.5], pairs=2, learning_rate=0.01)
    assert found.evaluations == 51
    assert found.seen[1].loss < found.seen[0].loss


def test_the_measurement_of_a_moment_leaves_the_path_as_it_is() -> None:
    def run(observe: Any) -> FloatArray:
        data = RevealedData(Model(1, 1, 0.01), 3.0, 300, np.random.default_rng(1))
        return gradient_flow(data, [0.1, 1.0], observe).end.w

    assert np.array_equal(run(measure), run(lambda m: None))


@pytest.mark.slow
def test_the_outlier_measured_before_is_found_again() -> None:
    """N = 8000, alpha = 5, t = 0.3: -3.641 and m^2 0.586 in one cell; cells differ by 1/sqrt(N) and more."""
    data = RevealedData(Model(1, 1, 0.01), 5.0, 8000, np.random.default_rng(3))
    found = gradient_flow(data, [0.3], lambda m: lowest_pairs(m, 1)).seen[0]
    assert found.converged
    assert found.values[0] == pytest.approx(-3.641, abs=0.15)
    assert found.overlaps_sq[0] == pytest.approx(0.586, abs=0.1)
