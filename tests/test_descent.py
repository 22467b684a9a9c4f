"""The flow on the spheres with explicit data: forces, errors, outcomes, and gradient descent beside it."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.descent.explicit import ExplicitData
from bendscape.core.quadratic.descent.flow import RADIUS_SAFETY, Moment, gradient_descent, gradient_flow
from bendscape.core.quadratic.descent.landscape import RECOVERED, Overlaps, overlaps, retracted
from bendscape.core.quadratic.descent.measure import follow
from bendscape.core.quadratic.descent.own_labels import right_edge
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.hessian import dense_hessian, sample_instance

FloatArray = npt.NDArray[np.float64]

MODELS = [Model(1, 1, 0.01), Model(2, 1, 0.5), Model(3, 2, 1.0, noise=0.2)]


def cell(model: Model, alpha: float, N: int, seed: int = 0, **how: Any) -> ExplicitData:
    instance = sample_instance(model, alpha, N, np.random.default_rng(seed), **how)
    return ExplicitData(instance, how.get("precision", "float64"))


def loss_of(data: ExplicitData, w: FloatArray) -> float:
    X, y = np.asarray(data.instance.inputs), data.instance.y
    yhat = ((X @ w.T) ** 2).mean(axis=1) / data.N
    return float(((y - yhat) ** 2 / (data.model.a + y)).sum() / 2)


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("how", [{}, {"stored": False}, {"inputs": "rademacher"}], ids=str)
def test_force_and_hessian_are_those_of_the_loss_on_the_spheres(model: Model, how: dict[str, Any]) -> None:
    data = cell(model, 3.0, 30, **how)
    kept = cell(model, 3.0, 30, **(how | {"stored": True}))
    rng = np.random.default_rng(1)
    w = retracted(rng.standard_normal(data.students.shape), data.N)
    here = data.evaluate(w)
    assert here.loss * data.N == pytest.approx(loss_of(kept, w), rel=1e-12)
    assert np.einsum("kn,kn->k", here.force, w) == pytest.approx(0, abs=1e-9 * np.abs(here.force).max() * 30)

    h, v = 1e-5, rng.standard_normal(w.shape)
    along = (loss_of(kept, retracted(w + h * v, data.N)) - loss_of(kept, retracted(w - h * v, data.N))) / (
        2 * h
    )
    assert -np.vdot(here.force, v) == pytest.approx(along, rel=1e-6)

    # the Riemannian Hessian P (H - mu) P is the derivative of the force, projected
    def tangential(u: FloatArray) -> FloatArray:
        return np.asarray(u - w * np.einsum("kn,kn->k", u, w)[:, None] / data.N)

    t = tangential(v)
    ahead, behind = (data.evaluate(retracted(w + s * h * t, data.N)).force for s in (1, -1))
    riemannian = tangential(data.hessian_times(here, t) - here.multiplier[:, None] * t)
    assert -tangential(ahead - behind) / (2 * h) == pytest.approx(
        riemannian, rel=1e-5, abs=1e-6 * np.abs(riemannian).max()
    )


def test_at_the_initial_point_the_hessian_is_that_of_the_other_samplers() -> None:
    for model in MODELS:
        data = cell(model, 2.0, 20)
        v = np.random.default_rng(2).standard_normal(data.students.shape)
        product = data.hessian_times(data.evaluate(data.students), v)
        assert product.ravel() == pytest.approx(dense_hessian(data.instance) @ v.ravel(), rel=1e-9)


def test_overlaps_of_known_weights() -> None:
    N, e = 4, np.eye(4) * 2
    same = overlaps(np.stack([e[0], -e[0]]), e[:1], N)
    assert (same.alignment, same.generalisation_error, same.width) == pytest.approx((1, 0, 1))
    apart = overlaps(e[1:3], e[:1], N)
    assert (apart.alignment, apart.width) == (0, 2)
    assert apart.generalisation_error == pytest.approx(2 * (1 / 2 + 1))
    wide = overlaps(np.pad(e[:2], ((0, 0), (0, 3))), e[:2], N)  # more coordinates than the teacher has
    assert wide.alignment == pytest.approx(1)
    q = 0.6
    one = overlaps(np.array([[q * 2, 0.8 * 2, 0, 0]]), e[:1], N)
    assert one.alignment == pytest.approx(q**2)


@pytest.mark.parametrize("model", [Model(2, 1, 0.5), Model(2, 3, 0.5)], ids=str)
def test_the_generalisation_error_is_the_mean_over_new_samples(model: Model) -> None:
    data = cell(model, 1.0, 40)
    X = np.random.default_rng(3).standard_normal((40_000, 40))
    miss = ((X @ data.students.T) ** 2).mean(axis=1) - ((X @ data.teachers.T) ** 2).mean(axis=1)
    squares = (miss / 40) ** 2
    error = squares.std() / math.sqrt(len(squares))
    expected = overlaps(data.students, data.teachers, 40).generalisation_error
    assert abs(squares.mean() - expected) < 5 * error  # false alarm 6e-7


# The error against the flow, and what it costs


def weights(moment: Moment) -> FloatArray:
    return moment.w


TIMES = [0.03, 0.1, 0.3, 1.0]


@cache
def reference(seed: int) -> list[FloatArray]:
    return gradient_flow(cell(Model(1, 1, 0.01), 4.0, 200, seed), TIMES, weights, tolerance=1e-7).seen


@pytest.mark.parametrize("seed", [0, 1])
def test_the_error_against_the_flow_is_what_the_documentation_states(seed: int) -> None:
    data = cell(Model(1, 1, 0.01), 4.0, 200, seed)
    cost = {}
    for tolerance, allowed in ((1e-2, 1e-2), (3e-3, 5e-3), (1e-3, 2e-3)):
        path = gradient_flow(data, TIMES, weights, tolerance=tolerance)
        cost[tolerance] = path.evaluations
        errors = [
            np.linalg.norm(w - ref) / math.sqrt(200)
            for w, ref in zip(path.seen, reference(seed), strict=True)
        ]
        assert max(errors) < allowed
        assert [np.linalg.norm(w) for w in path.seen] == pytest.approx([math.sqrt(200)] * 4, rel=1e-12)
    assert cost[3e-3] < 300  # an unstabilised method is bound to steps of 2/3600 at first, of 2/100 later


def test_single_precision_data_move_the_path_by_less_than_its_error() -> None:
    data = cell(Model(1, 1, 0.01), 4.0, 200, precision="float32")
    path = gradient_flow(data, TIMES, weights)
    errors = [
        np.linalg.norm(w - ref) / math.sqrt(200) for w, ref in zip(path.seen, reference(0), strict=True)
    ]
    assert max(errors) < 5e-3


@pytest.mark.parametrize(
    ("model", "alpha", "N"),
    [(MODELS[0], 4.0, 100), (Model(2, 1, 0.01), 2.5, 60), (Model(4, 2, 0.5), 2.5, 32)],
    ids=str,
)
def test_the_spectral_radius_from_the_labels_covers_the_true_one(model: Model, alpha: float, N: int) -> None:
    def ratio(moment: Moment) -> float:
        p, data = len(moment.w), moment.data
        H = [data.hessian_times(moment.here, e.reshape(p, N)).ravel() for e in np.eye(p * N)]
        J = np.array(H) - np.diag(np.repeat(moment.here.multiplier, N))
        for k in range(p):
            v = np.zeros((p, N))
            v[k] = moment.w[k] / math.sqrt(N)
            J -= np.outer(v, v.ravel() @ J)
            J -= np.outer(J @ v.ravel(), v)
        estimate = right_edge(model, N, data.y, moment.here.yhat, moment.overlaps.width)
        return float(
            RADIUS_SAFETY * (estimate - moment.here.multiplier.min()) / np.abs(np.linalg.eigvalsh(J)).max()
        )

    for seed in range(3):
        ratios = gradient_flow(cell(model, alpha, N, seed), [0, 0.03, 0.3, 3, 20], ratio).seen
        assert min(ratios) > 1
        assert max(ratios) < 2.5  # at these sizes; 1.4 at N = 400


# Outcomes


def test_the_path_says_why_it_stopped() -> None:
    model = Model(1, 1, 0.01)

    def recovered(moment: Moment) -> bool:
        return moment.overlaps.alignment > RECOVERED

    def go(**how: Any) -> Any:
        return gradient_flow(cell(model, 4.0, 100), [0.0, 1.0, 100.0], lambda m: m.overlaps.alignment, **how)

    whole = go()
    assert whole.stopped == "time"
    assert whole.end.time == 100
    assert whole.times.tolist() == [0, 1, 100]
    assert whole.seen[0] < 0.1 < RECOVERED < whole.seen[2]
    asked = go(until=recovered)
    assert asked.stopped == "asked"
    assert asked.times.tolist() == [0, 1]
    assert 1 < asked.end.time < 100
    assert recovered(asked.end)
    assert asked.evaluations < whole.evaluations
    short = go(max_evaluations=50)
    assert short.stopped == "evaluations"
    assert short.seen == whole.seen[: len(short.seen)]


def test_what_is_asked_is_asked_at_the_start_too() -> None:
    data = cell(Model(1, 1, 0.01), 3.0, 20)
    data.students = data.teachers.copy()
    found = follow(data, [1.0], pairs=0, until_recovered=True)
    assert (found.recovered, found.time_recovered, found.stopped) == (True, 0.0, "asked")
    assert (found.evaluations, found.seen) == (1, [])
    descent = follow(data, [0.0, 1.0], pairs=0, until_recovered=True, learning_rate=0.1)
    assert (descent.time_recovered, [seen.time for seen in descent.seen]) == (0.0, [0.0])
    assert follow(data, [0.0], pairs=0).recovered


def test_recorded_times_may_be_closer_than_any_step() -> None:
    times = [1e-300, 0.1, float(np.nextafter(0.1, 1)), 0.2]
    path = gradient_flow(cell(Model(1, 1, 0.01), 3.0, 20), times, weights)
    assert (path.stopped, path.times.tolist()) == ("time", times)
    alone = gradient_flow(cell(Model(1, 1, 0.01), 3.0, 20), [0.2], weights)
    assert path.end.w == pytest.approx(alone.end.w, abs=2e-2 * math.sqrt(20))


def test_a_force_that_is_not_finite_ends_the_path_with_an_outcome() -> None:
    data = cell(Model(1, 1, 0.01), 3.0, 20)
    evaluate, calls = data.evaluate, 0

    def breaks(w: FloatArray) -> Any:
        nonlocal calls
        calls += 1
        here = evaluate(w)
        return here if calls < 40 else here._replace(force=here.force * np.nan)

    data.evaluate = breaks  # type: ignore[method-assign]
    path = gradient_flow(data, [0.0, 100.0], weights)
    assert path.stopped == "step"
    assert len(path.seen) == 1
    assert np.isfinite(path.end.w).all()


@pytest.mark.parametrize("model", [Model(1, 1, 0.01), Model(2, 2, 0.5)], ids=str)
def test_confined_weights_never_see_the_teacher(model: Model) -> None:
    data = cell(model, 5.0, 50)
    path = gradient_flow(data, [0.0, 1.0, 10.0], lambda m: (m.overlaps, m.here.loss), confined=True)
    seen: list[Overlaps] = [overlap for overlap, _ in path.seen]
    assert max(np.abs(overlap.R).max() for overlap in seen) < 1e-12
    assert path.seen[2][1] < path.seen[1][1] < path.seen[0][1]
    descent = gradient_descent(data, [1.0], lambda m: m.overlaps, learning_rate=1e-3, confined=True)
    assert np.abs(descent.seen[0].R).max() < 1e-12


# Gradient descent


def test_gradient_descent_follows_the_flow_at_a_small_learning_rate_and_not_at_a_large_one() -> None:
    data, root = cell(Model(1, 1, 0.01), 4.0, 100), 10.0
    flow = gradient_flow(data, [0.02, 0.1], weights, tolerance=1e-6).seen
    errors = {}
    for rate in (1e-4, 2e-5, 2e-2):
        path = gradient_descent(data, [0.02, 0.1], weights, learning_rate=rate)
        assert path.steps == round(0.1 / rate) == path.evaluations - 1
        assert path.stopped == "time"
        errors[rate] = np.linalg.norm(path.seen[1] - flow[1]) / root
    assert errors[1e-4] < 1e-2
    assert 3 < errors[1e-4] / errors[2e-5] < 8  # of first order
    assert errors[2e-2] > 0.5


def test_gradient_descent_is_recorded_at_the_step_nearest_to_each_time() -> None:
    data = cell(Model(1, 1, 1.0), 3.0, 20)
    path = gradient_descent(data, [0.0, 0.024, 0.1], lambda m: m.time, learning_rate=0.01)
    assert path.seen == pytest.approx([0.0, 0.02, 0.1])
    stopped = gradient_descent(
        data, [1.0], lambda m: m.time, learning_rate=0.01, until=lambda m: m.time > 0.05
    )
    assert stopped.stopped == "asked"
    assert stopped.end.time == pytest.approx(0.06)
    assert not stopped.seen


def test_gradient_descent_refuses_times_that_its_steps_do_not_tell_apart() -> None:
    data = cell(Model(1, 1, 1.0), 3.0, 20)
    for times in ([0.1, 0.2], [1.0, 1.2, 3.0], [0.0, 0.4]):
        with pytest.raises(ParameterError, match="at least one step of 1 apart, and from the start"):
            gradient_descent(data, times, weights, learning_rate=1.0)


@pytest.mark.parametrize("rate", [1e154, 1e200, 1e300])
def test_steps_that_overflow_end_gradient_descent_with_an_outcome(rate: float) -> None:
    path = gradient_descent(cell(Model(1, 1, 0.01), 3.0, 20), [0.0, rate], weights, learning_rate=rate)
    assert path.stopped == "step"
    assert np.isfinite(path.end.w).all()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"times": [1.0, 0.5]}, "times must be finite numbers >= 0, in increasing order"),
        ({"times": []}, "times must be"),
        ({"times": "soon"}, "times must be"),
        ({"tolerance": 0}, "tolerance must be a finite number > 0"),
        ({"max_evaluations": 0}, "max_evaluations must be an integer >= 1"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_one_line(how: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"times": [1.0], "observe": weights} | how
    with pytest.raises(ParameterError, match=message) as caught:
        gradient_flow(cell(Model(1, 1, 1.0), 2.0, 10), **arguments)
    assert "\n" not in str(caught.value)


def test_confined_weights_need_a_direction_off_the_teacher() -> None:
    data = cell(Model(1, 3, 1.0), 2.0, 3)
    with pytest.raises(ParameterError, match="confined must be False at N = 3 <= p_star"):
        gradient_flow(data, [1.0], weights, confined=True)


def test_a_learning_rate_is_positive() -> None:
    with pytest.raises(ParameterError, match="learning_rate must be a finite number > 0"):
        gradient_descent(cell(Model(1, 1, 1.0), 2.0, 10), [1.0], weights, learning_rate=-1)


@pytest.mark.slow
def test_success_at_small_n_is_what_was_measured_before() -> None:
    """q^2 > 0.9 by T = 300: N = 128, alpha = 2.25, 0.52 +- 0.15 of 100; N = 256, none at 1.75, all at 3.5."""

    def share(alpha: float, N: int, cells: int) -> float:
        found = 0
        for seed in range(cells):
            data = cell(Model(1, 1, 0.01), alpha, N, seed)
            path = gradient_flow(data, [300.0], weights, until=lambda m: m.overlaps.alignment > RECOVERED)
            found += path.stopped == "asked"
        return found / cells

    assert share(2.25, 128, 100) == pytest.approx(0.52, abs=0.15)  # 3 standard errors
    assert share(1.75, 256, 60) == 0
    assert share(3.5, 256, 60) == 1
