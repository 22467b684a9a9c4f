"""Block Lanczos on operators of known spectrum, and the Hessian's products streamed over blocks of data."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bendscape.core.errors import ParameterError
from bendscape.core.numerics.lanczos import _Basis, default_vectors, least_vectors, lowest_eigenpairs
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.cost import cost_bytes
from bendscape.core.quadratic.sampling.hessian import Instance, dense_hessian, sample_instance
from bendscape.core.quadratic.sampling.inputs import (
    BLOCK_NUMBERS,
    DrawnInputs,
    Precision,
    drawn_inputs,
    rows_of_block,
)
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.core.quadratic.sampling.products import hessian_product

FloatArray = npt.NDArray[np.float64]

SHAPES = [Model(1, 1, 0.7), Model(2, 1, 1.5), Model(1, 3, 2.0), Model(3, 2, 0.5)]
each_shape = pytest.mark.parametrize("model", SHAPES, ids=str)
each_precision = pytest.mark.parametrize("precision", ["float64", "float32"])
BITS = {"float64": 1e-14, "float32": 5e-7}  # of a product, relative to its norm


def symmetric(values: FloatArray, seed: int = 0) -> FloatArray:
    n = len(values)
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    return np.asarray((basis * values) @ basis.T)


def start(n: int, b: int) -> FloatArray:
    return np.random.default_rng((n, b)).standard_normal((n, b))


SPECTRA = {
    "line": np.linspace(-1, 1, 150),
    "semicircle with an outlier": np.concatenate([[-1.3], np.sin(np.linspace(-1.5, 1.5, 149))]),
    "a close pair": np.concatenate([[-2.0, -2.0 + 1e-4], np.linspace(-1, 1, 148)]),
    "twelve eigenvalues in 150 dimensions": np.repeat(np.linspace(-3, 2, 12), 13)[:150],
    "few beside a great zero": np.concatenate([[-1.0, -0.5], np.zeros(148)]),
    "zero": np.zeros(150),
}


@pytest.mark.parametrize("b", [1, 2, 5])
@pytest.mark.parametrize("max_vectors", [None, 40])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_the_lowest_pairs_are_found_and_their_errors_are_honest(
    spectrum: str, max_vectors: int | None, b: int
) -> None:
    if spectrum.startswith("twelve") and b < 3:
        return  # copies of an eigenvalue beyond the width of the block are not promised
    values = np.sort(SPECTRA[spectrum])
    matrix = symmetric(values)
    seen = lowest_eigenpairs(lambda V: matrix @ V, start(150, b), 3, space=2, max_vectors=max_vectors)
    assert seen.converged
    # Residuals down to rounding: sqrt(n) eps of the norm of H, which is at most 3, and of what it adds up to.
    off = np.linalg.norm(matrix @ seen.vectors - seen.vectors * seen.values, axis=0)
    assert off == pytest.approx(seen.residuals, rel=1e-3, abs=1e-13)
    assert np.abs(seen.values - values[:3]).max() <= seen.eigval_error + 1e-13
    assert seen.vectors.T @ seen.vectors == pytest.approx(np.eye(3), abs=1e-12)
    if spectrum in ("line", "semicircle with an outlier", "a close pair"):
        assert seen.eigval_error <= 1e-9
        assert max(seen.vector_error, seen.space_error) <= 1e-6
        exact = np.linalg.eigh(matrix)[1]
        assert np.linalg.norm(exact[:, 1:].T @ seen.vectors[:, 0]) <= seen.vector_error + 1e-9
        outside = exact[:, 2:].T @ seen.vectors[:, :2]
        assert np.linalg.norm(outside) <= seen.space_error + 1e-9


@pytest.mark.parametrize("b", [1, 3])
def test_the_basis_keeps_its_identity_through_restarts(b: int) -> None:
    """H Q = Q T + W E^T with orthonormal Q, to rounding, after every step."""
    matrix = symmetric(np.linspace(-1, 1, 90))
    basis = _Basis(90, 30, start(90, b))
    for step in range(40):
        if basis.depth + basis.width > 30:
            basis.restart(12)
        basis.extend(lambda V: matrix @ V)
        m, full = basis.depth, basis.depth + basis.width
        if full > 30 + b:
            continue
        Q, T = basis.Q[:, :full], basis.T[:full, :m]
        assert pytest.approx(np.eye(full), abs=1e-12) == Q.T @ Q, f"step {step}"
        assert matrix @ Q[:, :m] == pytest.approx(Q @ T, abs=1e-12), f"step {step}"


def test_at_full_depth_the_whole_spectrum_is_there() -> None:
    values = np.sort(np.random.default_rng(3).standard_normal(40))
    matrix = symmetric(values)
    seen = lowest_eigenpairs(lambda V: matrix @ V, start(40, 3), 39, space=39, max_vectors=40)
    assert seen.converged
    assert seen.values == pytest.approx(values[:39], abs=1e-13)
    assert seen.n_products == 40


def test_giving_up_is_reported_with_the_accuracy_reached() -> None:
    matrix = symmetric(np.linspace(-1, 1, 200))
    seen = lowest_eigenpairs(lambda V: matrix @ V, start(200, 2), 2, max_steps=9)
    assert not seen.converged
    assert (seen.n_steps, seen.n_products) == (9, 18)
    assert seen.vector_error > 1e-6
    off = np.linalg.norm(matrix @ seen.vectors - seen.vectors * seen.values, axis=0)
    assert off == pytest.approx(seen.residuals, rel=1e-6)


def test_looser_tolerances_take_fewer_steps_and_blocks_fewer_than_single_vectors() -> None:
    matrix = symmetric(np.linspace(-1, 1, 400))

    def steps(b: int, tolerance: float) -> int:
        return lowest_eigenpairs(
            lambda V: matrix @ V, start(400, b), 2, eigval_tolerance=tolerance, vector_tolerance=tolerance
        ).n_steps

    assert steps(1, 1e-2) < steps(1, 1e-9)
    assert steps(4, 1e-6) < 0.6 * steps(1, 1e-6)


@pytest.mark.parametrize(
    ("parameter", "arguments"),
    [("count", {"count": 0}), ("count", {"count": 30}), ("space", {"count": 2, "space": 3}),
     ("max_vectors", {"count": 2, "max_vectors": 9})],
)  # fmt: skip
def test_impossible_requests_are_refused(parameter: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=parameter):
        lowest_eigenpairs(lambda V: V, start(30, 2), **arguments)
    assert least_vectors(30, 2, 2) == 10 <= default_vectors(30, 2, 2) == 30


def drawn(model: Model, N: int, **options: Any) -> Instance:
    return sample_instance(model, 1.7, N, np.random.default_rng(N), **options)


@each_precision
@each_shape
def test_a_block_product_is_that_of_the_matrix(model: Model, precision: Precision) -> None:
    for N in (30, 700):  # one block of data, and several
        instance = drawn(model, N)
        V = start(instance.size, 3)
        expected = dense_hessian(instance) @ V
        error = np.linalg.norm(hessian_product(instance, precision)(V) - expected, axis=0)
        assert (error <= BITS[precision] * np.linalg.norm(expected, axis=0)).all()
        single = hessian_product(instance, precision)(V[:, :1])
        assert np.linalg.norm(single - expected[:, :1]) <= BITS[precision] * np.linalg.norm(expected[:, 0])


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
@each_precision
def test_drawn_data_are_the_stored_ones_bit_for_bit(precision: Precision, law: str) -> None:
    model, N = Model(2, 1, 1.5), 600
    kept, again = (
        drawn(model, N, inputs=law, precision=precision, stored=stored) for stored in (True, False)
    )
    assert isinstance(again.inputs, DrawnInputs)
    assert len(again.inputs) == len(kept.inputs) == 1020 > rows_of_block(N)
    assert kept.y.tobytes() == again.y.tobytes()
    assert kept.fields.tobytes() == again.fields.tobytes()
    V = start(2 * N, 2)
    first, second = (hessian_product(instance, precision)(V) for instance in (kept, again))
    assert first.tobytes() == second.tobytes()
    assert (kept.inputs == again.inputs.stored(precision)).all()


def test_blocks_have_streams_of_their_own_and_the_law_they_should() -> None:
    rng = np.random.default_rng(0)
    for law, fourth in (("gaussian", 3.0), ("rademacher", 1.0)):
        X = np.asarray(drawn_inputs(law, 900, 600, rng).stored("float64"))
        rows = rows_of_block(600)
        assert rows == BLOCK_NUMBERS // 600
        # 540 000 numbers: means within five standard errors, false alarm 2e-6 for each law.
        error = 5 / math.sqrt(X.size)
        assert abs(X.mean()) < error
        assert abs((X**2).mean() - 1) <= error * math.sqrt(fourth - 1) + 1e-15
        assert abs((X[:rows] * X[rows : 2 * rows]).mean()) < 5 / math.sqrt(rows * 600)
    assert set(np.unique(X)) == {-1.0, 1.0}
    with pytest.raises(ParameterError, match="inputs"):
        drawn_inputs("cauchy", 10, 10, rng)
    with pytest.raises(ParameterError, match="precision"):
        drawn(Model(1, 1, 1.0), 10, precision="float16")


@pytest.mark.parametrize("stored", [True, False])
@each_precision
@each_shape
def test_explicit_agrees_with_dense_on_the_same_random_state(
    model: Model, precision: Precision, stored: bool
) -> None:
    """In single precision errors are those of a product, 3e-7 of a norm near 10, and over the gap."""
    N = 80
    dense = observe(model, 1.9, N, np.random.default_rng(4), "dense")
    seen = observe(model, 1.9, N, np.random.default_rng(4), "explicit", precision=precision, stored=stored)
    eigvals = 1e-9 if precision == "float64" else 3e-6
    gap = dense.eigval_second - dense.eigval_min
    overlaps = 2e-6 + (0 if precision == "float64" else 3e-6 / gap)
    assert seen.converged
    assert abs(seen.eigval_min - dense.eigval_min) < eigvals
    assert abs(seen.eigval_second - dense.eigval_second) < eigvals
    assert abs(seen.overlap_sq - dense.overlap_sq) < overlaps
    assert seen.residual < 1e-5
    assert (seen.edge_sample, seen.alpha_realised) == (dense.edge_sample, dense.alpha_realised)


def test_errors_of_single_precision_are_far_below_the_spread_of_cells() -> None:
    """Over 12 cells: the largest error of the mean's ingredients below 1e-3 of their spread."""
    model, N = Model(1, 1, 0.7), 256
    double, single = (
        [observe(model, 2.0, N, np.random.default_rng((6, s)), "explicit", precision=kind) for s in range(12)]
        for kind in ("float64", "float32")
    )
    for name in ("eigval_min", "eigval_second", "overlap_sq"):
        exact, rounded = (np.array([getattr(cell, name) for cell in cells]) for cells in (double, single))
        assert (exact != rounded).any()
        assert np.abs(exact - rounded).max() < 1e-3 * exact.std(ddof=1)


@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(3, 2, 1.0)], ids=str)
@each_precision
def test_memory_without_stored_data_is_predicted_and_does_not_grow_with_their_number(
    model: Model, precision: Precision
) -> None:
    N, alpha, options = 250, 40.0, {"precision": precision, "stored": False}
    observe(model, 1.5, 60, np.random.default_rng(0), "explicit", precision=precision, stored=False)
    tracemalloc.start()
    try:
        observe(model, alpha, N, np.random.default_rng(0), "explicit", precision=precision, stored=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    needed = cost_bytes(model, alpha, N, "explicit", **options)  # type: ignore[arg-type]
    assert peak <= needed <= 2 * peak
    bytes_of_data = 8 * alpha * N * N
    assert peak < 0.9 * bytes_of_data
    assert needed < cost_bytes(model, alpha, N, "explicit")
    with pytest.raises(ParameterError, match="stored=False"):
        observe(model, alpha, N, np.random.default_rng(0), "explicit", max_bytes=needed)


def test_methods_for_gaussian_data_refuse_other_laws() -> None:
    with pytest.raises(ParameterError, match="inputs"):
        observe(Model(1, 1, 1.0), 1.0, 100, np.random.default_rng(0), "conditional", inputs="rademacher")


@pytest.mark.parametrize(
    ("model", "alpha"), [(Model(1, 1, 0.7), 2.2), (Model(1, 1, 0.7), 0.8), (Model(2, 1, 1.5), 2.0)], ids=str
)
def test_random_signs_have_the_mean_eigenvalue_and_overlap_of_gaussian_data(
    model: Model, alpha: float
) -> None:
    """Universality at N = 300 over 40 cells of either law.

    Means differ by less than 4.5 standard errors of their difference and an allowance of 3/N for both
    (fourth moments enter at order 1/N, here with a factor below 3). Two
    comparisons, each a false alarm for less than 2 seeds in 10^5 (t law with 78 degrees of freedom); the
    standard error is 0.03 of the eigenvalue and 0.02 of the overlap.
    """
    N, cells = 300, 40
    seen = [
        [observe(model, alpha, N, np.random.default_rng((9, s, len(law))), inputs=law) for s in range(cells)]
        for law in ("gaussian", "rademacher")
    ]
    for name in ("eigval_min", "overlap_sq"):
        means, errors = [], []
        for of_law in seen:
            sample = np.array([getattr(cell, name) for cell in of_law])
            means.append(sample.mean())
            errors.append(sample.std(ddof=1) / math.sqrt(cells))
        assert abs(means[0] - means[1]) < 4.5 * math.hypot(*errors) + 3 / N
