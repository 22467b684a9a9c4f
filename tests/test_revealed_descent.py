"""Descent on data revealed along the path: the algebra, the law, and wrong variants that both detect."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from two_samples import data_ratios, smallest_p_value

import bendscape.core.quadratic.sampling.gaussian as gaussian_module
import bendscape.core.quadratic.sampling.reveal as reveal_module
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.descent.explicit import ExplicitData
from bendscape.core.quadratic.descent.flow import Moment, Path, gradient_descent, gradient_flow
from bendscape.core.quadratic.descent.landscape import Data
from bendscape.core.quadratic.descent.revealed import RevealedData, revealed_bytes
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.gaussian import Transposed
from bendscape.core.quadratic.sampling.hessian import Instance, sample_instance
from bendscape.core.quadratic.sampling.reveal import LeftBasis, bartlett

FloatArray = npt.NDArray[np.float64]

FALSE_ALARMS = 1e-3
"""Probability that a correct sampler fails any test of a law in this file, slow ones too, with random seeds;
half of it is for the data and half for what is measured."""


def weights(moment: Moment) -> FloatArray:
    return moment.w


def revealed(model: Model, alpha: float, N: int, seed: int, **how: Any) -> RevealedData:
    return RevealedData(model, alpha, N, np.random.default_rng(seed), **how)


# Wrong variants


def one_pass(self: Transposed) -> FloatArray:
    left = self._data.left
    left.begin()
    for b in range(self._data.space.blocks):
        left.measure(b, self._Y[b, :, :])
    return np.eye(left.width)


def no_projection(reveal: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: LeftBasis, b: int, rows: Any) -> tuple[Any, Any]:
        new, fresh = reveal(self, b, rows)
        return new, self.space.device_array(self.space.rng.standard_normal(fresh.shape))

    return wrong


def one_degree_short(rows: int, width: int, rng: np.random.Generator) -> FloatArray:
    return bartlett(rows - 1, width, rng) if rows > width else bartlett(rows, width, rng)


def every_degree_of_freedom(N: int) -> Callable[..., FloatArray]:
    return lambda rows, width, rng: bartlett(N if rows >= width else rows, width, rng)


def make_wrong(patch: pytest.MonkeyPatch, wrong: str, N: int) -> None:
    if wrong == "one pass":
        patch.setattr(Transposed, "_first_pass", one_pass)
    elif wrong == "one degree short":
        patch.setattr(gaussian_module, "bartlett", one_degree_short)
    elif wrong == "all degrees of freedom":
        patch.setattr(gaussian_module, "bartlett", every_degree_of_freedom(N))
    else:
        patch.setattr(LeftBasis, "reveal", no_projection(LeftBasis.reveal))


# The algebra: with everything revealed, it is a path on the data that it has drawn


def as_explicit(data: RevealedData) -> ExplicitData:
    """The data of a path that has revealed all there is, in the basis in which it was revealed."""
    N, known = data.N, data.directions
    X = np.zeros((data.M, N))
    X[:, :known] = data.data.known_data()
    wide = [np.pad(w, ((0, 0), (0, N - w.shape[1]))) for w in (data.students, data.teachers)]
    fields = X @ wide[0].T / math.sqrt(N)
    y = data.y.reshape(-1)[: data.M].astype(np.float64)
    return ExplicitData(Instance(data.model, X, wide[0], wide[1], fields, y, (fields**2).mean(axis=1)))


def worst_difference(data: Data, again: Callable[[], Data], times: list[float]) -> float:
    """Largest |dw|/sqrt(pN) between a revealed path and the path on what it revealed."""
    first = gradient_flow(data, times, weights)
    second = gradient_flow(again(), times, weights)
    assert len(first.seen) == len(second.seen) == len(times)
    return max(
        float(np.linalg.norm(np.pad(w, ((0, 0), (0, x.shape[1] - w.shape[1]))) - x)) / math.sqrt(x.size)
        for w, x in zip(first.seen, second.seen, strict=True)
    )


WHOLE = [
    (Model(1, 1, 0.01), 3.0, 40),
    (Model(1, 2, 0.5), 0.7, 40),  # M < N: U fills R^M, and X vanishes on what was not revealed
    (Model(2, 1, 0.01), 2.5, 30),
    (Model(3, 2, 0.5, noise=0.3), 2.0, 24),
    (Model(4, 1, 0.1), 1.2, 20),
]


@pytest.mark.parametrize(("model", "alpha", "N"), WHOLE, ids=str)
def test_with_everything_revealed_the_path_is_that_on_the_revealed_data(
    model: Model, alpha: float, N: int
) -> None:
    for seed in range(2):
        data = revealed(model, alpha, N, seed)
        assert worst_difference(data, lambda d=data: as_explicit(d), [0.1, 1.0, 10.0]) < 1e-7
        assert data.directions == min(N, data.M + int(model.p) + model.p_star)
        assert data.orthogonality() < 1e-12


@pytest.mark.parametrize(("dtype", "error"), [(np.float32, 1e-3), (np.float64, 1e-7)])
def test_one_pass_loses_the_basis_and_every_cell_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch, dtype: Any, error: float
) -> None:
    model, alpha, N = WHOLE[0]
    times = [0.1, 1.0]
    for seed in range(5):
        data = revealed(model, alpha, N, seed, dtype=dtype)
        path = gradient_flow(data, times, weights).seen
        again = gradient_flow(as_explicit(data), times, weights).seen
        assert len(path) == len(times)
        assert max(np.linalg.norm(w - x) for w, x in zip(path, again, strict=True)) < error * math.sqrt(N)
    make_wrong(monkeypatch, "one pass", N)
    for seed in range(5):
        data = revealed(model, alpha, N, seed, dtype=dtype)
        with pytest.raises(ArithmeticError, match="no longer orthonormal"):
            gradient_flow(data, times, weights, max_evaluations=500)


# The law of the data, with everything revealed


def data_scores(model: Model, alpha: float, N: int, cells: int) -> FloatArray:
    """Deviations of the mean ratios from 1, in standard errors; the last is the error of the first ratio."""
    ratios, known = [], int(model.p) + model.p_star
    for seed in range(cells):
        data = revealed(model, alpha, N, seed)
        yhat = data.evaluate(data.students).yhat
        gradient_flow(
            data, [1e3], weights, until=lambda m: m.data.directions == m.data.N, max_evaluations=500
        )
        assert data.directions == N
        y, yhat = (x.reshape(-1)[: data.M] for x in (data.y, yhat))
        ratios.append(data_ratios(data.data.known_data(), known, (3 * yhat - y) / (model.a + y), N))
    mean, error = np.mean(ratios, axis=0) - 1, np.std(ratios, axis=0, ddof=1) / math.sqrt(cells)
    return np.append(mean / error, error[0])


LAW = [(Model(1, 1, 1.0), 1.5, 50), (Model(3, 1, 0.5), 1.0, 64)]
LAW_CELLS = 80
SCORE = float(stats.norm.isf(FALSE_ALARMS / 2 / (2 * 3 * len(LAW))))


@pytest.mark.parametrize(("model", "alpha", "N"), LAW, ids=str)
def test_the_revealed_data_have_the_law_of_gaussian_data_given_the_labels(
    model: Model, alpha: float, N: int
) -> None:
    scores = data_scores(model, alpha, N, LAW_CELLS)
    assert scores[3] < 0.01 / SCORE / 0.9  # so that 1 per cent of the data's norm would not pass
    assert np.abs(scores[:3]).max() < SCORE


@pytest.mark.parametrize(
    "wrong",
    ["one degree short", pytest.param("all degrees of freedom", marks=pytest.mark.slow), "no projection"],
)
def test_the_test_of_the_data_law_detects_a_wrong_variant(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    model, alpha, N = LAW[0]
    make_wrong(monkeypatch, wrong, N)
    assert np.abs(data_scores(model, alpha, N, LAW_CELLS)[:3]).max() > SCORE


# The law of what is measured, against explicit data


def hessian_at(moment: Moment) -> tuple[FloatArray, float]:
    """Lowest two eigenvalues of H and the squared overlap of the lowest vector with the teacher."""
    data, p, N = moment.data, len(moment.w), moment.data.N
    with data.fork():
        if isinstance(data, RevealedData):  # reveal the rest: the products of p N random vectors span R^(pN)
            rng = np.random.default_rng(0)
            while data.directions < min(N, data.M + p + data.model.p_star):
                data.hessian_times(moment.here, rng.standard_normal((p, data.directions)))
        n = data.directions
        H = np.array([data.hessian_times(moment.here, e.reshape(p, n)).ravel() for e in np.eye(p * n)])
        values, vectors = np.linalg.eigh((H + H.T) / 2)
        basis = np.linalg.qr(data.teachers.T)[0]
        lowest = vectors[:, 0].reshape(p, n)[:, : len(basis)]
    return values[:2], float(((lowest @ basis) ** 2).sum())


def row(moment: Moment) -> list[float]:
    overlap = moment.overlaps
    return [
        moment.here.loss,
        overlap.alignment,
        overlap.generalisation_error,
        float(moment.here.multiplier.mean()),
        math.log(float(np.linalg.norm(moment.here.force))),
    ]


def sample(make: Callable[[int], Data], cells: int, times: list[float], hessian: bool) -> FloatArray:
    rows = []
    for seed in range(cells):
        seen: Path[Any] = gradient_flow(
            make(seed), times, lambda m: (row(m), hessian_at(m) if hessian and m.time == times[-1] else None)
        )
        numbers = [x for at, _ in seen.seen for x in at]
        for _, found in seen.seen:
            if found is not None:
                numbers += [*found[0], found[1]]
        rows.append(numbers)
    return np.array(rows)


@cache
def by_explicit(
    model: Model, alpha: float, N: int, cells: int, times: tuple[float, ...], hessian: bool
) -> FloatArray:
    def make(seed: int) -> Data:
        return ExplicitData(sample_instance(model, alpha, N, np.random.default_rng([1, seed])))

    return sample(make, cells, list(times), hessian)


CELLS = [  # what is revealed of R^N, and whether the Hessian is compared too
    pytest.param(Model(1, 1, 0.01), 3.0, 30, True, 60, None, id="p = 1, N = 30, all revealed"),
    pytest.param(Model(2, 1, 0.1), 2.0, 60, False, 30, None, id="p = 2, N = 60, part revealed"),
    pytest.param(Model(1, 1, 0.1), 3.0, 80, False, 30, np.float32, id="N = 80, single precision"),
]
PRECISE = [
    pytest.param(Model(1, 1, 0.01), 3.0, 200, False, 400, None, id="p = 1, N = 200"),
    pytest.param(Model(1, 1, 0.01), 3.0, 40, True, 1500, None, id="p = 1, N = 40"),
    pytest.param(Model(2, 1, 0.01), 2.5, 100, False, 600, None, id="p = 2, N = 100"),
    pytest.param(Model(1, 1, 0.01), 4.0, 300, False, 400, None, id="p = 1, N = 300"),
]
LEVEL = FALSE_ALARMS / 2 / (len(CELLS) + len(PRECISE) + 1)
AT = (0.1, 0.6)


@pytest.mark.parametrize(
    ("model", "alpha", "N", "hessian", "cells", "dtype"),
    [
        *CELLS,
        *(pytest.param(*case.values, id=f"{case.id}, many", marks=pytest.mark.slow) for case in PRECISE),
    ],
)
def test_what_is_measured_along_the_path_has_the_law_of_explicit_data(
    model: Model, alpha: float, N: int, hessian: bool, cells: int, dtype: Any
) -> None:
    ours = sample(lambda seed: revealed(model, alpha, N, seed, dtype=dtype), cells, list(AT), hessian)
    theirs = by_explicit(model, alpha, N, 2 * cells, AT, hessian)
    assert smallest_p_value(ours, theirs) > LEVEL


def test_the_test_of_the_joint_law_detects_all_degrees_of_freedom(monkeypatch: pytest.MonkeyPatch) -> None:
    model, alpha, N, hessian, cells, _ = CELLS[0].values
    make_wrong(monkeypatch, "all degrees of freedom", N)
    ours = sample(lambda seed: revealed(model, alpha, N, seed), cells, list(AT), hessian)
    assert smallest_p_value(ours, by_explicit(model, alpha, N, 2 * cells, AT, hessian)) < LEVEL


def test_the_test_of_the_joint_law_detects_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its paths end, without the check of the basis that would make all of them errors."""
    model, alpha, N = CELLS[0].values[:3]

    def ends(make: Callable[[int], Data], cells: int) -> FloatArray:
        paths = (gradient_flow(make(seed), [0.3], weights, max_evaluations=300) for seed in range(cells))
        return np.array([row(path.end) for path in paths])

    theirs = ends(lambda s: ExplicitData(sample_instance(model, alpha, N, np.random.default_rng([2, s]))), 40)
    assert smallest_p_value(ends(lambda seed: revealed(model, alpha, N, seed), 20), theirs) > LEVEL
    make_wrong(monkeypatch, "one pass", N)
    monkeypatch.setattr(reveal_module, "_LOST", math.inf)
    with np.errstate(all="ignore"):
        ours = ends(lambda seed: revealed(model, alpha, N, seed), 20)
    assert smallest_p_value(ours, theirs) < LEVEL


# Precision, the option that drops, the fork


def test_along_a_long_path_the_basis_stays_orthogonal() -> None:
    data = revealed(Model(1, 1, 0.01), 2.0, 1000, 0, dtype=np.float32)
    gradient_flow(data, [8.0], weights)
    assert data.data.dropped == 0
    assert data.directions > 200
    assert data.orthogonality() < 5e-6


def test_dropping_small_directions_is_an_option_that_is_off() -> None:
    model, times = Model(1, 1, 0.01), [1.0, 4.0]
    exact = revealed(model, 4.0, 1000, 0)
    path = gradient_flow(exact, times, lambda m: m.here.loss)
    assert exact.data.dropped == 0
    assert exact.directions == path.evaluations + 2
    rough = revealed(model, 4.0, 1000, 0, rel=1e-3)
    other = gradient_flow(rough, times, lambda m: m.here.loss)
    assert rough.data.dropped + rough.directions == other.evaluations + 2
    assert 0.4 < rough.directions / other.evaluations < 0.9
    assert other.seen[0] == pytest.approx(path.seen[0], abs=0.1)


def test_the_loss_before_the_signal_is_seen_is_what_was_measured_before() -> None:
    """L/N at alpha = 4: 1.375(10) at t = 1 and 1.268(12) at t = 2, here within three standard deviations.

    Confined, because at N = 1e4 some cells see the signal at t = 2, which lowers the loss.
    """
    data = revealed(Model(1, 1, 0.01), 4.0, 10_000, 4)
    loss = gradient_flow(data, [1.0, 2.0], lambda m: m.here.loss, confined=True).seen
    assert loss[0] == pytest.approx(1.375, abs=0.03)
    assert loss[1] == pytest.approx(1.268, abs=0.036)


@pytest.mark.parametrize("p", [1, 2])
def test_products_in_a_fork_leave_the_path_as_it_is(p: int) -> None:
    times = [0.1, 0.5, 1.0]

    def look(moment: Moment) -> tuple[FloatArray, int]:
        data, v = moment.data, np.random.default_rng(5).standard_normal(moment.w.shape)
        before = data.directions
        with data.fork():
            for _ in range(20):
                v = data.hessian_times(moment.here, v)
                v /= np.linalg.norm(v)
            assert data.directions == before + 20 * p
        assert data.directions == before
        return moment.w, before

    plain = gradient_flow(revealed(Model(p, 1, 0.1), 3.0, 300, 1), times, weights).seen
    looked = gradient_flow(revealed(Model(p, 1, 0.1), 3.0, 300, 1), times, look).seen
    assert all(np.array_equal(w, x) for w, (x, _) in zip(plain, looked, strict=True))


def test_gradient_descent_reveals_the_same_matrix() -> None:
    data = revealed(Model(1, 1, 0.1), 2.0, 30, 0)
    first = gradient_descent(data, [0.05, 1.0], weights, learning_rate=0.01)
    again = gradient_descent(as_explicit(data), [0.05, 1.0], weights, learning_rate=0.01)
    assert first.seen[1] == pytest.approx(again.seen[1], abs=1e-8)
    assert data.directions == 30


def test_the_memory_estimate_counts_what_is_allocated() -> None:
    import tracemalloc

    def run() -> RevealedData:
        data = revealed(Model(1, 1, 0.01), 3.0, 1500, 0)
        gradient_flow(data, [4.0], lambda m: None)
        return data

    gradient_flow(revealed(Model(1, 1, 0.01), 3.0, 50, 0), [0.1], lambda m: None)  # what is imported late
    tracemalloc.start()
    try:
        data = run()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.6 < peak / revealed_bytes(data.model, 3.0, 1500, data.directions) < 1.2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": Model(math.inf, 1, 1.0)}, "p must be finite"),
        ({"model": Model(3, 2, 1.0), "N": 4}, "N must be >= p . p_star = 5"),
        ({"dtype": np.float16}, "dtype must be float32 or float64"),
        ({"dtype": "many"}, "dtype must be float32 or float64"),
        ({"rel": -1}, "rel must be from 0 to 0.1"),
        ({"rel": 0.5}, "rel must be from 0 to 0.1"),
    ],
    ids=str,
)
def test_unsupported_input_is_refused_in_one_line(changed: dict[str, Any], message: str) -> None:
    arguments = {"model": Model(1, 1, 1.0), "alpha": 2.0, "N": 20, "rng": np.random.default_rng(0)}
    with pytest.raises(ParameterError, match=message) as caught:
        RevealedData(**(arguments | changed))
    assert "\n" not in str(caught.value)


# Rounding


def disorder(p: int, before: int) -> float:
    """Largest error of U^T U after 60 products whose new parts are this small, in single precision."""
    data = RevealedData(Model(p, 1, 0.1), 4.0, 1000, np.random.default_rng(0), dtype=np.float32)
    space = data.data.space
    first = Y = space.normal(p)
    for step in range(before + 60):
        Y = space.normal(p) if step < before else 0.99 * Y + 0.01 * first + 4.5e-7 * space.normal(p)
        product = data.data.transposed()
        for b in range(space.blocks):
            product.put(b, Y[b])
        product.coordinates()
    return data.orthogonality()


@pytest.mark.parametrize(("p", "before"), [(1, 700), pytest.param(2, 350, marks=pytest.mark.slow)])
def test_new_parts_of_the_size_of_rounding_do_not_spoil_the_basis(
    p: int, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trapped path slows down until its evaluations nearly repeat themselves to single precision."""
    assert disorder(p, before) < 1e-6
    monkeypatch.setattr(gaussian_module, "MOSTLY_NEW", 0.0)
    with pytest.raises(ArithmeticError, match="no longer orthonormal"):
        disorder(p, before)
