"""Instances, their Hessian as matrix and operator, its lowest eigenpairs by several methods, and theory."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import bendscape.core.quadratic.sampling.observe
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.cost import (
    MAX_BYTES,
    block_width,
    cost_bytes,
    cost_seconds,
    explicit_products,
)
from bendscape.core.quadratic.sampling.hessian import Instance, dense_hessian, sample_instance
from bendscape.core.quadratic.sampling.observe import Observation, observe
from bendscape.core.quadratic.sampling.products import hessian_operator
from bendscape.core.quadratic.theory.outlier import asymptotics, transition

FloatArray = npt.NDArray[np.float64]

SHAPES = [
    Model(1, 1, 0.7),
    Model(2, 1, 1.5),
    Model(1, 3, 2.0),
    Model(2, 3, 1.5),
    Model(4, 2, 0.5),
    Model(3, 3, 0.1),
]
each_shape = pytest.mark.parametrize("model", SHAPES, ids=str)


def drawn(model: Model, N: int, alpha: float = 1.7, seed: int = 0) -> Instance:
    return sample_instance(model, alpha, N, np.random.default_rng(seed))


def numbers(observation: Observation) -> FloatArray:
    """The measured and predicted numbers, without the name of the method."""
    fields = dataclasses.asdict(observation)
    return np.array(
        [fields[name] for name in fields if name not in ("method", "n_matvecs", "residual")], dtype=float
    )


@each_shape
def test_weights_lie_on_their_spheres_and_labels_follow_from_them(model: Model) -> None:
    instance = drawn(model, 50)
    assert instance.inputs.shape == (85, 50)
    assert np.linalg.norm(instance.students, axis=1) == pytest.approx(math.sqrt(50), rel=1e-14)
    assert np.linalg.norm(instance.teachers, axis=1) == pytest.approx(math.sqrt(50), rel=1e-14)
    assert instance.fields == pytest.approx(
        instance.inputs @ instance.students.T / math.sqrt(50), rel=1e-10, abs=1e-12
    )
    y = ((instance.inputs @ instance.teachers.T) ** 2).mean(axis=1) / 50
    assert instance.y == pytest.approx(y, rel=1e-10)
    assert instance.yhat == pytest.approx((instance.fields**2).mean(axis=1), rel=1e-12)
    assert instance.alpha_realised == 85 / 50


@each_shape
def test_the_eigenvalues_of_a_samples_weight_are_d_perp_and_d_par(model: Model) -> None:
    instance, p = drawn(model, 20), int(model.p)
    for mu in range(3):
        vector = instance.fields[mu]
        weight = instance.rank_one_weight[mu] * np.outer(vector, vector) + instance.d_perp[mu] * np.eye(p)
        expected = sorted([instance.d_perp[mu]] * (p - 1) + [instance.d_par[mu]])
        assert np.linalg.eigvalsh(weight) == pytest.approx(expected, rel=1e-10, abs=1e-13)


def gradient(instance: Instance, students: npt.NDArray[np.complex128]) -> npt.NDArray[np.complex128]:
    """Gradient of L = (1/2) sum_mu (y - yhat)^2/(a + y) by the chain rule, for complex weights."""
    N, p = instance.N, len(students)
    fields = instance.inputs @ students.T / math.sqrt(N)
    yhat = (fields**2).sum(axis=1) / p
    pull = (yhat - instance.y) / (instance.model.a + instance.y)
    slope = (pull[:, None] * fields * 2 / p).T @ instance.inputs / math.sqrt(N)
    return np.asarray(slope.ravel())


@each_shape
def test_the_hessian_is_that_of_the_loss(model: Model) -> None:
    instance = drawn(model, 5)
    a, y = instance.model.a, instance.y

    def loss(students: npt.NDArray[np.complex128]) -> complex:
        yhat = ((instance.inputs @ students.T) ** 2).mean(axis=1) / instance.N
        return complex((0.5 * (y - yhat) ** 2 / (a + y)).sum())

    size, h = instance.size, 1e-20j
    start = instance.students.ravel().astype(complex)

    def shifted(by: npt.NDArray[Any]) -> npt.NDArray[np.complex128]:
        return np.asarray((start + by).reshape(instance.students.shape))

    # The gradient by complex steps of the loss itself, the Hessian by complex steps of the gradient.
    basis = np.eye(size)
    numeric = np.array([loss(shifted(h * e)).imag / 1e-20 for e in basis])
    assert gradient(instance, shifted(0 * basis[0])).real == pytest.approx(numeric, rel=1e-10, abs=1e-12)
    by_difference = np.array([gradient(instance, shifted(h * e)).imag / 1e-20 for e in basis])
    assert dense_hessian(instance) == pytest.approx(by_difference, rel=1e-10, abs=1e-12)


@each_shape
def test_the_operator_on_the_identity_is_the_matrix_and_the_matrix_is_symmetric(model: Model) -> None:
    instance = drawn(model, 23)
    matrix, operator = dense_hessian(instance), hessian_operator(instance)
    size = instance.size
    assert (matrix == matrix.T).all()
    scale = np.abs(matrix).max()
    assert operator.matmat(np.eye(size)) == pytest.approx(matrix, abs=1e-13 * scale)
    columns = np.column_stack([operator.matvec(e) for e in np.eye(size)])
    assert columns == pytest.approx(matrix, abs=1e-13 * scale)
    assert operator.H @ np.ones(size) == pytest.approx(matrix.sum(axis=1), abs=1e-12 * scale)


def test_an_instance_whose_weights_have_one_sign_has_a_hessian_all_the_same() -> None:
    instance = drawn(Model(1, 1, 1.0), 6, alpha=0.5, seed=3)
    for y in (0 * instance.y, instance.y + 1e3):
        one_sign = dataclasses.replace(instance, y=y)
        assert dense_hessian(one_sign) == pytest.approx(
            hessian_operator(one_sign) @ np.eye(6), rel=1e-12, abs=1e-13
        )
    nothing = dataclasses.replace(instance, y=0 * instance.y, yhat=0 * instance.yhat)
    assert (dense_hessian(nothing) == 0).all()


def test_the_overlap_counts_the_whole_span_of_the_teacher_once() -> None:
    instance = drawn(Model(2, 3, 1.0), 12)
    inside = np.concatenate([instance.teachers[0] + 2 * instance.teachers[2], -instance.teachers[1]])
    outside = np.concatenate([np.linalg.qr(np.vstack([instance.teachers, np.eye(12)]).T)[0][:, 7]] * 2)
    vectors = np.column_stack([inside / np.linalg.norm(inside), outside / np.linalg.norm(outside)])
    mixed = (vectors[:, :1] + vectors[:, 1:]) / math.sqrt(2)
    overlaps = instance.teacher_overlap_sq(np.column_stack([vectors, mixed]))
    assert overlaps == pytest.approx([1, 0, 0.5], abs=1e-14)


@pytest.mark.parametrize("alpha", [0.6, 2.4])
@each_shape
def test_both_methods_see_the_same_instance_and_agree(model: Model, alpha: float) -> None:
    dense = observe(model, alpha, 60, np.random.default_rng(7), "dense")
    explicit = observe(model, alpha, 60, np.random.default_rng(7), "explicit")
    assert (dense.method, explicit.method) == ("dense", "explicit")
    # Overlaps by twice the tolerance of a vector, 1e-6; eigenvalues, whose error is its square, far better.
    assert numbers(explicit) == pytest.approx(numbers(dense), abs=2e-6, nan_ok=True)
    eigvals = [(seen.eigval_min, seen.eigval_second) for seen in (dense, explicit)]
    assert eigvals[1] == pytest.approx(eigvals[0], abs=1e-9)
    assert dense.n_matvecs == 0 < explicit.n_matvecs
    assert max(dense.residual, explicit.residual) < 1e-5
    assert dense.converged
    assert explicit.converged


@pytest.mark.parametrize("method", ["dense", "explicit"])
def test_the_observation_is_that_of_the_full_spectrum(method: str) -> None:
    model, N = Model(2, 3, 1.5), 30
    seen = observe(model, 3.0, N, np.random.default_rng(11), method)
    instance = sample_instance(model, 3.0, N, np.random.default_rng(11))
    values, vectors = np.linalg.eigh(dense_hessian(instance))
    overlaps = instance.teacher_overlap_sq(vectors)
    assert seen.eigval_min == pytest.approx(values[0], abs=1e-10)
    assert seen.eigval_second == pytest.approx(values[1], abs=1e-10)
    assert seen.overlap_sq == pytest.approx(overlaps[0], abs=1e-8)
    assert seen.overlap_sq_space == pytest.approx(overlaps[:6].mean(), abs=1e-8)
    assert overlaps.mean() == pytest.approx(3 / N, rel=1e-10)  # the whole space holds the teacher 2 * 3 times


@pytest.mark.parametrize("method", ["dense", "explicit", "dice"])
def test_the_same_random_state_gives_the_same_bits(method: str) -> None:
    for model in (Model(1, 1, 0.7), Model(2, 3, 1.5)):
        first, second, other = (
            observe(model, 1.3, 40, np.random.default_rng(seed), method) for seed in (5, 5, 6)
        )
        assert numbers(first).tobytes() == numbers(second).tobytes()
        assert first.residual == second.residual
        assert first.eigval_min != other.eigval_min


def test_cells_smaller_than_the_space_to_average_over_average_over_what_there_is() -> None:
    seen = observe(Model(1, 4, 1.0), 3.0, 2, np.random.default_rng(0))
    assert seen.method == "dense"
    assert seen.overlap_sq == pytest.approx(1)  # four teachers span the plane
    assert seen.overlap_sq_space == pytest.approx(1)
    assert seen.eigval_min <= seen.eigval_second


def test_not_converging_is_reported_and_leaves_nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bendscape.core.quadratic.sampling.observe, "LANCZOS_STEPS", 5)
    seen = observe(Model(1, 1, 1.5), 1.3, 300, np.random.default_rng(0), "explicit")
    assert not seen.converged
    measured = (seen.eigval_min, seen.eigval_second, seen.overlap_sq, seen.overlap_sq_space, seen.residual)
    assert all(math.isnan(value) for value in measured)
    assert seen.n_matvecs > 0
    assert math.isfinite(seen.edge_sample)
    assert seen.alpha_realised == 1.3


def test_dice_stopped_by_the_memory_limit_reports_it_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bendscape.core.quadratic.sampling.observe, "PATIENCE", 0)
    seen = observe(Model(1, 1, 1.5), 1.3, 1000, np.random.default_rng(0), "dice")
    assert not seen.converged
    assert math.isnan(seen.eigval_min)
    assert seen.n_matvecs == 3
    assert math.isfinite(seen.edge_sample)
    assert seen.alpha_realised == 1.3


@pytest.mark.parametrize("model", [Model(1, 1, 20.0), Model(2, 1, 0.5)], ids=str)
def test_dice_stays_within_the_memory_it_is_given(model: Model) -> None:
    alpha, N = 0.75 * model.a + 0.5, 1000
    given = 1.02 * cost_bytes(model, alpha, N, "dice")
    observe(model, alpha, 100, np.random.default_rng(0), "dice")
    tracemalloc.start()
    try:
        observe(model, alpha, N, np.random.default_rng(0), "dice", max_bytes=given)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= given


def test_dice_wide_allocates_no_more_vectors_than_the_data_have_dimensions() -> None:
    """At p = 8 the steps have many more vectors than there are samples, M, or dimensions, N."""
    model, alpha, N = Model(8, 1, 1.5), 1.5, 256
    given = 1.02 * cost_bytes(model, alpha, N, "dice_wide")
    observe(model, alpha, 64, np.random.default_rng(0), "dice_wide")
    tracemalloc.start()
    try:
        assert observe(model, alpha, N, np.random.default_rng(0), "dice_wide", max_bytes=given).converged
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= given


def test_with_few_samples_auto_chooses_a_method_that_handles_the_null_space() -> None:
    seen = observe(Model(1, 1, 1.0), 0.005, 2000, np.random.default_rng(0))
    assert seen.method != "dice"
    assert seen.converged


@pytest.mark.parametrize("method", ["dense", "dice", "conditional"])
def test_an_unknown_precision_is_refused(method: str) -> None:
    with pytest.raises(ParameterError, match="precision = 'half'"):
        observe(Model(1, 1, 1.0), 1.0, 50, np.random.default_rng(0), method, precision="half")  # type: ignore[arg-type]


def test_dice_refuses_data_that_are_not_gaussian() -> None:
    model, rng = Model(1, 1, 1.5), np.random.default_rng(0)
    assert observe(model, 1.3, 1000, rng).method == "dice"
    assert observe(model, 1.3, 1000, rng, inputs="rademacher").method in ("dense", "explicit")
    for method in ("dice", "dice_wide", "dice_compact", "conditional"):
        with pytest.raises(ParameterError, match=f"gaussian for {method}"):
            observe(model, 1.3, 1000, rng, method, inputs="rademacher")


def test_the_residual_reports_a_wrong_eigenpair(monkeypatch: pytest.MonkeyPatch) -> None:
    solve = bendscape.core.quadratic.sampling.observe._solve_dense

    def off(instance: Instance, count: int) -> bendscape.core.quadratic.sampling.observe._Pairs:
        pairs = solve(instance, count)
        assert pairs.values is not None
        return pairs._replace(values=pairs.values + 0.01)

    monkeypatch.setattr(bendscape.core.quadratic.sampling.observe, "_solve_dense", off)
    assert observe(SHAPES[0], 1.3, 30, np.random.default_rng(0), "dense").residual == pytest.approx(
        0.01, rel=1e-6
    )


def test_the_conditional_method_gives_what_the_labels_predict_and_measures_nothing() -> None:
    model, alpha, N = Model(2, 1, 1.5), 2.5, 100_000
    seen = observe(model, alpha, N, np.random.default_rng(4), "conditional")
    theory = asymptotics(model, alpha)
    assert seen.method == "conditional"
    assert seen.converged
    assert (seen.alpha_realised, seen.n_matvecs) == (alpha, 0)
    measured = (seen.eigval_min, seen.eigval_second, seen.overlap_sq, seen.overlap_sq_space, seen.residual)
    assert all(math.isnan(value) for value in measured)
    # The labels move these by 1 to 4 over sqrt(N) = 0.003 to 0.013: five times that.
    assert seen.edge_sample == pytest.approx(theory.lambda_minus, abs=0.02)
    assert seen.outlier_sample == pytest.approx(theory.lambda_star, abs=0.02)
    assert seen.overlap_sq_sample == pytest.approx(theory.overlap_sq, abs=0.06)
    again = observe(model, alpha, N, np.random.default_rng(4), "conditional")
    assert numbers(again).tobytes() == numbers(seen).tobytes()
    assert cost_bytes(model, alpha, 10**10, "conditional") < 2e7


@pytest.mark.parametrize(
    ("method", "N"),
    [
        ("dense", 100),
        ("explicit", 100),
        ("dice", 2000),
        ("dice_wide", 2000),
        ("dice_compact", 4000),
        ("conditional", 200_000),
    ],
)
@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(3, 2, 1.0)], ids=str)
def test_cost_bytes_bounds_what_is_allocated_within_a_factor_of_two(
    model: Model, method: str, N: int
) -> None:
    rng = np.random.default_rng(0)
    observe(model, 1.5, 3000 if method == "dice_compact" else 100, rng, method)
    tracemalloc.start()
    try:
        observe(model, 1.5, N, rng, method)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Dice takes as many steps as it needs, within 1.6 times the expected number.
    assert peak * (0.6 if method.startswith("dice") else 1) <= cost_bytes(model, 1.5, N, method) <= 2 * peak


def test_a_million_dimensions_fit_into_the_default_memory_in_16_bits_alone() -> None:
    needed = [cost_bytes(Model(1, 1, 1.5), 1.4, 10**6, method) for method in ("dice", "dice_compact")]
    assert needed[1] < MAX_BYTES < needed[0]
    with pytest.raises(ParameterError, match="in 16 bits"):
        observe(Model(1, 1, 1.5), 1.4, 100, np.random.default_rng(0), "dice_compact")


def grows(cost: Callable[[Model, float, int], float]) -> bool:
    small = cost(Model(1, 1, 1.0), 1.0, 200)
    larger = (
        cost(Model(2, 1, 1.0), 1.0, 200),
        cost(Model(1, 1, 1.0), 2.0, 200),
        cost(Model(1, 1, 1.0), 1.0, 400),
    )
    return all(value > small > 0 for value in larger)


@pytest.mark.parametrize("method", ["dense", "explicit", "dice", "dice_wide", "conditional"])
def test_costs_grow_with_width_load_and_size_and_auto_takes_a_fast_method(method: str) -> None:
    """``auto`` chooses by an older model, so it may take twice the time of the fastest."""
    assert grows(lambda model, alpha, N: cost_seconds(model, alpha, N, method))
    assert grows(lambda model, alpha, N: cost_bytes(model, alpha, N, method))
    for model, N in ((Model(1, 1, 0.7), 128), (Model(4, 1, 0.7), 2048)):
        if method in ("dense", "explicit", "dice"):  # the others are never taken by auto
            assert cost_seconds(model, 1.3, N) <= 2 * cost_seconds(model, 1.3, N, method)


@pytest.mark.parametrize(
    ("model", "N"),
    [
        (Model(1, 1, 0.1), 512),
        (Model(1, 1, 5.0), 128),
        (Model(2, 1, 0.01), 256),
        (Model(4, 1, 0.7), 256),
        (Model(8, 1, 0.3), 256),
        (Model(8, 1, 1.5), 128),
        (Model(16, 1, 0.1), 128),
    ],
)
def test_the_cost_model_counts_the_products_of_explicit_within_a_factor_of_two(model: Model, N: int) -> None:
    """The mean of three cells at the threshold, where a single cell scatters by a third."""
    alpha, width = transition(model).alpha_bbp, block_width(int(model.p), True)
    cells = [observe(model, alpha, N, np.random.default_rng(seed), "explicit") for seed in range(3)]
    needed = np.mean([cell.n_matvecs for cell in cells])
    assert 0.5 < needed / explicit_products(model, N, width) < 2


@pytest.mark.parametrize(("N", "fastest"), [(32, "dense"), (4000, "dice")])
def test_auto_runs_the_method_that_the_cost_model_finds_fastest(N: int, fastest: str) -> None:
    model = Model(1, 1, 0.7)
    costs = {method: cost_seconds(model, 1.3, N, method) for method in ("dense", "explicit", "dice")}
    assert min(costs, key=costs.__getitem__) == fastest
    assert observe(model, 1.3, N, np.random.default_rng(0)).method == fastest


def test_auto_chooses_a_method_that_fits_in_memory_or_refuses() -> None:
    model, N = Model(1, 1, 0.7), 64
    sizes = {method: cost_bytes(model, 1.0, N, method) for method in ("dense", "explicit", "dice")}
    assert observe(model, 1.0, N, np.random.default_rng(0)).method == "dense"
    smallest = min(sizes, key=sizes.__getitem__)
    assert smallest != "dense"
    limited = observe(model, 1.0, N, np.random.default_rng(0), max_bytes=sizes[smallest] * 1.01)
    assert limited.method == smallest
    with pytest.raises(ParameterError, match="lower N"):
        observe(model, 1.0, N, np.random.default_rng(0), max_bytes=sizes[smallest] * 0.9)


@pytest.mark.parametrize(("model", "N"), [(Model(1, 1, 0.7), 400), (Model(4, 2, 1.5), 80)], ids=str)
def test_well_above_threshold_samples_show_outlier_and_overlap_of_the_theory(model: Model, N: int) -> None:
    """Means over 32 cells at 1.5 alpha_bbp: within 4 standard errors and a finite-size allowance of theory.

    The allowances, 1.2/sqrt(N) for the eigenvalue (the outliers split by that order) and 0.5/sqrt(N) for the
    overlap, exceed the shifts measured over 120 cells by half. Where they cover the shift, each of the four
    comparisons fails by chance for at most 4 seeds in 10^4.
    """
    alpha = 1.5 * transition(model).alpha_bbp
    cells = [observe(model, alpha, N, np.random.default_rng((2024, seed))) for seed in range(32)]
    theory = asymptotics(model, cells[0].alpha_realised)
    for name, expected, allowance in (
        ("eigval_min", theory.lambda_star, 1.2),
        ("overlap_sq_space", theory.overlap_sq, 0.5),
    ):
        sample = np.array([getattr(cell, name) for cell in cells])
        band = 4 * sample.std(ddof=1) / math.sqrt(len(sample)) + allowance / math.sqrt(N)
        assert sample.mean() == pytest.approx(expected, abs=band)
    overlaps = np.array([cell.overlap_sq for cell in cells])
    assert overlaps.mean() > 10 * model.p_star / N  # a random vector has p_star/N


def test_well_below_threshold_samples_show_the_edge_and_no_overlap() -> None:
    """Mean of 32 cells at 0.6 alpha_bbp: the edge within 4 standard errors and 4 N^(-2/3), little overlap.

    The allowance exceeds the Tracy-Widom shift of 2.5 N^(-2/3) measured over 120 cells; where it covers the
    shift, 4 seeds in 10^4 fail by chance.
    """
    model, N = Model(1, 1, 0.7), 300
    alpha = 0.6 * transition(model).alpha_bbp
    cells = [observe(model, alpha, N, np.random.default_rng((77, seed))) for seed in range(32)]
    lowest = np.array([cell.eigval_min for cell in cells])
    theory = asymptotics(model, cells[0].alpha_realised)
    band = 4 * lowest.std(ddof=1) / math.sqrt(len(cells)) + 4 * N ** (-2 / 3)
    assert lowest.mean() == pytest.approx(theory.lambda_minus, abs=band)
    assert np.mean([cell.overlap_sq for cell in cells]) < 0.075
