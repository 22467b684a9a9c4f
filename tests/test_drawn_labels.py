"""The theory of one cell's own labels: its equations, its limits, and its correlation with the cell."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bendscape.core.quadratic.sampling.drawn_labels
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.drawn_labels import drawn_labels_theory, sample_drawn_labels
from bendscape.core.quadratic.sampling.hessian import sample_instance
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.core.quadratic.theory.outlier import asymptotics, transition

FloatArray = npt.NDArray[np.float64]


def labels(model: Model, M: int, seed: int) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    return rng.chisquare(model.p_star, M) / model.p_star, rng.chisquare(model.p, M) / model.p


class Literal:
    """The equations as stated, in g: z, z', and the sums weighted by y."""

    def __init__(self, model: Model, N: int, y: FloatArray, yhat: FloatArray) -> None:
        d_perp = 2 / model.p * (yhat - y) / (model.a + y)
        d_par = 2 / model.p * (3 * yhat - y) / (model.a + y)
        self.d = np.concatenate([np.repeat(d_perp, int(model.p) - 1), d_par])
        self.y = np.concatenate([np.repeat(y, int(model.p) - 1), y])
        self.pN = model.p * N

    def z(self, g: float) -> float:
        return float(1 / g + (self.d / (1 - g * self.d)).sum() / self.pN)

    def z_prime(self, g: float) -> float:
        return float(-1 / g**2 + ((self.d / (1 - g * self.d)) ** 2).sum() / self.pN)

    def outlier_gap(self, g: float) -> float:
        return float(1 / g - ((self.y - 1) * self.d / (1 - g * self.d)).sum() / self.pN)

    def overlap_sq(self, g: float) -> float:
        S_prime = float((self.y * (self.d / (1 - g * self.d)) ** 2).sum() / self.pN)
        return 1 / (1 - S_prime / self.z_prime(g))

    def root(self, function: object, low: float, high: float) -> float:
        """Plain bisection in g, to the last bit."""
        assert callable(function)
        sign = math.copysign(1, function(low))
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if function(middle) * sign > 0 else (low, middle)
        return (low + high) / 2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(3, 2, 1.5), Model(1, 4, 0.2)], ids=str)
def test_edge_outlier_and_overlap_solve_the_stated_equations(model: Model, seed: int) -> None:
    N = 80
    y, yhat = labels(model, (40, 120, 400)[seed % 3], seed)
    found = drawn_labels_theory(model, N, y, yhat)
    stated = Literal(model, N, y, yhat)
    pole = 1 / stated.d.min()
    edge = stated.root(stated.z_prime, pole * (1 - 1e-14), -1e-9)
    assert found.edge_sample == pytest.approx(stated.z(edge), rel=1e-11)
    # z - S falls from the edge to g = 0, so its sign at the edge tells whether there is an outlier.
    if stated.outlier_gap(edge) <= 0:
        assert math.isnan(found.outlier_sample)
        assert math.isnan(found.overlap_sq_sample)
    else:
        g = stated.root(stated.outlier_gap, edge, -1e-12)
        assert found.outlier_sample == pytest.approx(stated.z(g), rel=1e-11)
        assert found.overlap_sq_sample == pytest.approx(stated.overlap_sq(g), rel=1e-8)


def test_the_cells_include_some_with_and_some_without_an_outlier() -> None:
    found = [
        drawn_labels_theory(model, 80, *labels(model, M, seed))
        for model in (Model(1, 1, 0.7), Model(3, 2, 1.5), Model(1, 4, 0.2))
        for seed, M in enumerate((40, 120, 400) * 2)
    ]
    absent = sum(math.isnan(each.outlier_sample) for each in found)
    assert 4 < absent < 14


@pytest.mark.parametrize("factor", [0.7, 1.3])
@pytest.mark.parametrize("model", [Model(1, 1, 0.7), Model(2, 2, 1.0), Model(1, 2, 0.4)], ids=str)
def test_with_many_samples_it_is_the_asymptotic_theory(model: Model, factor: float) -> None:
    """200,000 dimensions leave them off by O(2 10^-3): the band is 1 percent, and 0.01 around 0."""
    N = 200_000
    alpha = factor * transition(model).alpha_bbp
    M = round(alpha * N)
    found = drawn_labels_theory(model, N, *labels(model, M, 12))
    theory = asymptotics(model, M / N)
    assert found.edge_sample == pytest.approx(theory.lambda_minus, rel=0.01, abs=0.01)
    assert found.outlier_sample == pytest.approx(theory.lambda_star, rel=0.01, abs=0.01, nan_ok=True)
    assert found.overlap_sq_sample == pytest.approx(theory.overlap_sq, abs=0.01, nan_ok=True)


@settings(max_examples=80, deadline=None)
@given(
    st.builds(Model, p=st.integers(1, 5), p_star=st.integers(1, 4), a=st.floats(0.01, 5.0)),
    st.integers(2, 60),
    st.integers(1, 200),
    st.integers(0, 2**32),
)
def test_the_outlier_is_left_of_the_edge_and_the_overlap_between_0_and_1(
    model: Model, N: int, M: int, seed: int
) -> None:
    found = drawn_labels_theory(model, N, *labels(model, M, seed))
    assert math.isfinite(found.edge_sample)
    assert math.isnan(found.outlier_sample) == math.isnan(found.overlap_sq_sample)
    if not math.isnan(found.outlier_sample):
        assert found.outlier_sample <= found.edge_sample
        assert 0 <= found.overlap_sq_sample <= 1


def test_without_a_negative_direction_the_spectrum_starts_at_zero_or_at_a_positive_edge() -> None:
    model, yhat = Model(1, 1, 1.0), np.full(40, 2.0)
    assert drawn_labels_theory(model, 50, 0 * yhat, yhat)[0] == 0
    # 40 samples in 10 dimensions with one weight d: a Wishart matrix, of left edge d (sqrt(M/N) - 1)^2.
    filled = drawn_labels_theory(model, 10, 0 * yhat, yhat)
    assert filled.edge_sample == pytest.approx(12 * (math.sqrt(4) - 1) ** 2, rel=1e-12)
    assert drawn_labels_theory(model, 50, 0 * yhat, 0 * yhat)[0] == 0


@pytest.mark.parametrize(("model", "factor"), [(Model(1, 1, 0.7), 0.7), (Model(2, 1, 0.7), 0.7)], ids=str)
def test_it_correlates_with_the_eigenvalue_of_its_own_cell(model: Model, factor: float) -> None:
    """Correlation of 60 cells above 0.7; measured 0.8 to 0.9, with a standard error of 0.04."""
    alpha = factor * transition(model).alpha_bbp
    cells = [observe(model, alpha, 200, np.random.default_rng((8, seed))) for seed in range(60)]
    measured = np.array([cell.eigval_min for cell in cells])
    predicted = np.array([cell.edge_sample for cell in cells])
    assert np.corrcoef(measured, predicted)[0, 1] > 0.7
    assert (measured - predicted).var() < 0.6 * measured.var()


def test_redrawn_labels_give_the_same_predictions_as_kept_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same blocks either way, so the same sums; and the memory is that of one block, not of the cell."""
    for model, seed in ((Model(1, 1, 1.5), 1), (Model(3, 2, 0.7), 2)):
        kept = sample_drawn_labels(model, 2.5, 4000, np.random.default_rng(seed))
        monkeypatch.setattr(bendscape.core.quadratic.sampling.drawn_labels, "KEPT_SAMPLES", 100)
        again = sample_drawn_labels(model, 2.5, 4000, np.random.default_rng(seed))
        assert again == kept
        monkeypatch.undo()
    monkeypatch.setattr(bendscape.core.quadratic.sampling.drawn_labels, "BLOCK_NUMBERS", 2000)
    monkeypatch.setattr(bendscape.core.quadratic.sampling.drawn_labels, "KEPT_SAMPLES", 100)
    sample_drawn_labels(Model(1, 1, 1.5), 1.5, 1000, np.random.default_rng(0))
    peaks = []
    for N in (2000, 40_000):
        tracemalloc.start()
        sample_drawn_labels(Model(1, 1, 1.5), 1.5, N, np.random.default_rng(0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize(("p", "p_star", "N"), [(2, 1, 12), (3, 4, 5)])
def test_drawn_directions_have_the_overlaps_of_random_weights(p: int, p_star: int, N: int) -> None:
    """Mean and second moment 1/N of the overlaps of 4000 draws: within 5 standard errors, 10^-6 by chance.

    For overlaps on the sphere the variance of c^2 is 2 (N - 1)/(N^2 (N + 2)), below 2/N^2.
    """
    rng, count, draws = np.random.default_rng(3), p + p_star, 4000
    pairs = np.triu_indices(count, 1)
    overlaps = []
    for _ in range(draws):
        directions = bendscape.core.quadratic.sampling.drawn_labels._directions(count, N, rng)
        assert np.linalg.norm(directions, axis=1) == pytest.approx(1, abs=1e-14)
        overlaps.append((directions @ directions.T)[pairs])
    found = np.array(overlaps)
    assert np.abs(found.mean(axis=0)).max() < 5 / math.sqrt(draws * N)
    assert np.abs((found**2).mean(axis=0) - 1 / N).max() < 5 * math.sqrt(2 / draws) / N


def test_labels_drawn_without_data_have_the_law_of_labels_that_come_with_data() -> None:
    """The predicted edge over 400 cells at N = 40, where overlaps between weights matter: mean and variance.

    Two-sample bands of 4 standard errors, for a heavy-tailed variance 4 x 0.12: 1 in 10^4 by chance.
    """
    model, alpha, N, cells = Model(2, 1, 1.0), 1.5, 40, 400
    with_data, without = [], []
    for seed in range(cells):
        instance = sample_instance(model, alpha, N, np.random.default_rng((1, seed)))
        with_data.append(drawn_labels_theory(model, N, instance.y, instance.yhat).edge_sample)
        without.append(sample_drawn_labels(model, alpha, N, np.random.default_rng((2, seed))).edge_sample)
    first, second = np.array(with_data), np.array(without)
    error = math.sqrt((first.var() + second.var()) / cells)
    assert first.mean() == pytest.approx(second.mean(), abs=4 * error)
    assert first.var() == pytest.approx(second.var(), rel=0.5)
