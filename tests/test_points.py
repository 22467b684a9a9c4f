"""Edge, outlier and overlap of many points agree with the scalar functions, at any load of any model."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import oracle
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from problems import PROBLEMS
from scipy.optimize import brentq

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import EDGE_KINDS, Model
from bendscape.core.quadratic.theory import many, maps, points
from bendscape.core.quadratic.theory.bulk import left_edge
from bendscape.core.quadratic.theory.integrals import averages
from bendscape.core.quadratic.theory.maps import transition_map, transitions_of_models
from bendscape.core.quadratic.theory.outlier import Asymptotics, asymptotics, transition
from bendscape.core.quadratic.theory.points import Points, asymptotics_of_points

lossy = pytest.mark.filterwarnings("ignore::bendscape.core.errors.PrecisionWarning")

# The whole claimed domain, evenly in the logarithm of every parameter, p < p_star included.
models = st.builds(
    lambda p, p_star, log_a, noise: Model(
        p if p == math.inf else round(2**p), round(2**p_star), 10**log_a, noise
    ),
    p=st.floats(0, 9) | st.just(math.inf),
    p_star=st.floats(0, 9),
    log_a=st.floats(-6, 3),
    noise=st.just(0.0) | st.floats(0, 2),
)


def of_model(model: Model, alpha: Any) -> Points:
    return asymptotics_of_points(model.p, model.p_star, model.a, alpha, model.noise)


def agrees(found: Points, at: int, known: Asymptotics, model: Model) -> None:
    """Equal within both error estimates, similar error estimates, and equal to 1e-11."""
    assert EDGE_KINDS[found.edge[at]] == known.edge
    assert math.isnan(found.overlap_sq[at]) == math.isnan(known.overlap_sq)
    for name in ("lambda_minus", "lambda_star", "overlap_sq"):
        value, expected = getattr(found, name)[at], getattr(known, name)
        error, its_error = getattr(found, f"{name}_error")[at], getattr(known, f"{name}_error")
        assert math.isnan(value) == math.isnan(expected) == math.isnan(error)
        if math.isnan(expected):
            continue
        assert abs(value - expected) <= error + its_error, name
        assert its_error / 10 <= error <= 10 * its_error, name
        scale = 1.0 if name == "overlap_sq" else max(abs(expected), 2 / model.p)
        assert abs(value - expected) <= 1e-11 * scale, name


@lossy
@settings(max_examples=60, deadline=None)
@given(models, st.lists(st.floats(-2, 6), min_size=1, max_size=4), st.floats(0, 1))
@example(Model(1, 1, 1e-6), [0.0, 1e-4], 0.5)
@example(Model(1, 512, 1e3), [0.1, 0.2, 0.3, 0.4], 0.5)
@example(Model(2, 15, 1e-12), [-8.0, -16.0, 4.0], 0.0)  # edges all but at gamma = 1, where averages bend fast
def test_each_point_agrees_with_the_scalar_functions(model: Model, decades: list[float], near: float) -> None:
    thresholds = transition(model)
    apart = 10 ** -(3 + 5 * near)  # closer by than 1e-8 a continuous overlap is all but lost
    loads = [thresholds.alpha_bbp * 10**decade for decade in decades]
    for threshold in (thresholds.alpha_bbp, thresholds.alpha_sharp):
        loads += [threshold * (1 - apart), threshold * (1 + apart)]
    found = of_model(model, loads)
    for at, load in enumerate(loads):
        agrees(found, at, asymptotics(model, load), model)


@lossy
def test_along_a_curve_of_loads_every_point_agrees_with_the_scalar_functions() -> None:
    """Where the roots between two anchors begin by interpolation, loads dense and sparse."""
    rng = np.random.default_rng(20261128)
    outliers = 0
    for count, reach in [(40, 1.2), (40, 30.0), (12, 1e6)] * 5:
        p, p_star, log_a, noise = rng.uniform((0, 0, -6, -1), (9, 9, 3, 1))
        model = Model(round(2**p), round(2**p_star), 10**log_a, max(0.0, noise))
        loads = transition(model).alpha_bbp * np.geomspace(1 / math.sqrt(reach), reach, count)
        found = of_model(model, loads)
        for at, load in enumerate(loads.tolist()):
            agrees(found, at, asymptotics(model, load), model)
        outliers += int(np.isfinite(found.overlap_sq).sum())
    assert outliers > 200


def test_all_points_of_the_reference_table_in_one_call() -> None:
    table = [(problem.model, point) for problem in PROBLEMS for point in problem.points]
    columns = [(model.p, model.p_star, model.a, point.alpha) for model, point in table]
    found = asymptotics_of_points(*np.array(columns).T)
    assert [EDGE_KINDS[kind] for kind in found.edge] == [point.edge for _, point in table]
    assert found.lambda_minus == pytest.approx([point.lambda_minus for _, point in table], rel=1e-12)
    isolated = [point.outlier == "isolated" for _, point in table]
    assert sum(isolated) > 50
    assert np.isfinite(found.overlap_sq).tolist() == isolated
    for name, rel in (("lambda_star", 1e-12), ("overlap_sq", 1e-11)):
        expected = [getattr(point, name) if point.outlier == "isolated" else math.nan for _, point in table]
        assert getattr(found, name) == pytest.approx(expected, rel=rel, abs=1e-15, nan_ok=True)


@pytest.mark.parametrize("model", [Model(1, 1, 1e-6), Model(1, 1, 1.5), Model(512, 7, 1e-2)], ids=str)
def test_errors_of_points_bound_the_difference_from_high_precision(model: Model) -> None:
    alpha_bbp = transition(model).alpha_bbp
    loads = alpha_bbp * np.linspace(1.05, 3.0, 12)  # the fifth lies between two anchors
    found, at = of_model(model, loads), 4
    load = float(loads[at])
    edge = left_edge(model, load)
    gamma = brentq(lambda x: load * x * averages(model, x).F + 1, 0, edge.gamma, xtol=1e-14)
    lambda_star, overlap_sq = oracle.outlier(model, load, gamma)
    exact = {
        "lambda_minus": oracle.left_edge(model, load, edge.gamma),
        "lambda_star": lambda_star,
        "overlap_sq": overlap_sq,
    }
    for name, value in exact.items():
        error = getattr(found, f"{name}_error")[at]
        assert float(abs(value - float(getattr(found, name)[at]))) <= error
        assert error <= 1e-10 * max(abs(float(value)), 1e-3)


def test_at_a_discontinuous_threshold_there_is_no_outlier_and_just_above_it_there_is_the_jump() -> None:
    model = Model(1, 1, 1.5)
    at_bbp = transition(model)
    here = [math.nextafter(at_bbp.alpha_bbp, side) for side in (0.0, 9.0)]
    loads = [*here, at_bbp.alpha_bbp, at_bbp.alpha_bbp * (1 + 1e-11)]
    found = of_model(model, loads)
    for value, load in zip(found.overlap_sq.tolist(), loads, strict=True):
        expected = at_bbp.overlap_sq_jump if load == loads[-1] else math.nan
        assert value == pytest.approx(expected, rel=1e-9, nan_ok=True)
        assert asymptotics(model, load).overlap_sq == pytest.approx(value, rel=1e-12, nan_ok=True)


def test_a_point_has_the_same_bits_whatever_else_is_asked_for_and_in_any_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a store holds is then the same whether it was made at once or grew."""
    rng = np.random.default_rng(3)
    columns = (
        rng.choice([1, 2, 5, math.inf], 400),
        rng.integers(1, 3, 400),
        rng.choice([1e-4, 0.5, 1.5, 40.0], 400),
        rng.choice([0.9, 1.7, 3.3, 8.1, 60.0], 400),
        rng.choice([0.0, 0.3], 400),
    )
    found = asymptotics_of_points(*columns)
    assert 100 < np.isfinite(found.overlap_sq).sum() < 400
    thresholds = transitions_of_models(*columns[:3], columns[4])
    monkeypatch.setattr(points, "BLOCK", 37)
    monkeypatch.setattr(maps, "BLOCK", 37)
    monkeypatch.setattr(many, "CHUNK", 5)
    for chosen in (rng.permutation(400), rng.permutation(400)[:71], np.array([7]), np.array([], dtype=int)):
        some = [column[chosen] for column in columns]
        for value, whole in zip(asymptotics_of_points(*some)[:4], found[:4], strict=True):
            np.testing.assert_array_equal(value, whole[chosen])
        for name, values in transitions_of_models(*some[:3], some[4]).items():
            np.testing.assert_array_equal(values, thresholds[name][chosen])


def test_memory_does_not_grow_with_the_number_of_points_beyond_the_result() -> None:
    grid = np.meshgrid([1.0, 2.0], np.geomspace(0.1, 10, 100), np.linspace(1, 9, 100))
    p, a, alpha = (column.ravel() for column in grid)
    tracemalloc.start()
    found = asymptotics_of_points(p, 1, a, alpha)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.edge) == 20_000
    # Columns, order and rows of the result, some hundred doubles for each point of a block, and the averages.
    assert peak < 25 * 8 * len(alpha) + 120 * 8 * points.BLOCK + 40 * many.CHUNK * 130 * 8


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ((1.5, 1, 1.0, 1.0), "p = 1.5"),
        (([1, 0], 1, 1.0, 1.0), "p = 0"),
        ((1, math.inf, 1.0, 1.0), "p_star = inf"),
        ((1, 1, [1.0, math.nan], 1.0), "a = nan"),
        ((1, 1, 1.0, [1.0, -2.0]), "alpha = -2"),
        ((1, 1, 1.0, 1e101), "alpha = 1e\\+101"),
        ((1, 1, 1.0, 1.0, -0.1), "noise = -0.1"),
        (([[1]], 1, 1.0, 1.0), "at most one dimension"),
    ],
    ids=str,
)
def test_a_bad_column_is_refused_by_name(given: tuple[Any, ...], named: str) -> None:
    with pytest.raises(ParameterError, match=named):
        asymptotics_of_points(*given)


@lossy
def test_a_list_of_models_has_the_thresholds_of_the_map_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    axes: dict[str, Any] = {"p": [4, 1, math.inf], "p_star": [3, 1], "a": [1.5, 0.2, 30.0, 0.9]}
    grids = [transition_map(**axes, noise=noise, alpha_0=True).data_vars for noise in (0.1, 0.7)]
    columns = [of.ravel() for of in np.meshgrid(*axes.values(), [0.1, 0.7], indexing="ij")]
    shuffled = np.random.default_rng(1).permutation(len(columns[0]))
    p, p_star, a, noise = (column[shuffled] for column in columns)
    monkeypatch.setattr(maps, "BLOCK", 5)
    found = transitions_of_models(p, p_star, a, noise, alpha_0=True)
    assert set(found) == set(grids[0]) - {"a_tricritical"}
    for name, values in found.items():
        if not name.endswith("_error"):
            expected = np.stack([grid[name][1] for grid in grids], axis=-1).ravel()[shuffled]
            assert values == pytest.approx(expected, rel=1e-10, abs=1e-12, nan_ok=True)
