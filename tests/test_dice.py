"""The sampler that reveals its data step by step, compared with fully drawn matrices."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from scipy.linalg import eigh, eigvalsh_tridiagonal
from two_samples import data_ratios, smallest_p_value

import bendscape.core.quadratic.sampling.dice as dice_module
import bendscape.core.quadratic.sampling.gaussian as gaussian_module
import bendscape.core.quadratic.sampling.reveal as reveal_module
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.dice import TOLERANCE, Dice, dice_bytes, sample_dice
from bendscape.core.quadratic.sampling.drawn_labels import drawn_labels_theory
from bendscape.core.quadratic.sampling.hessian import Instance, dense_hessian, lower_hessian, sample_instance
from bendscape.core.quadratic.sampling.recurrence import PiecedImages, StoredImages, TurningFrame
from bendscape.core.quadratic.sampling.reveal import Array, LeftBasis, Workspace, bartlett

FloatArray = npt.NDArray[np.float64]

FALSE_ALARMS = 1e-3
"""Probability that a correct sampler fails any test of this file with random seeds; divided equally."""


# Every direction revealed: the algebra of the iteration, and the law of the data that it has drawn


class Revealed(NamedTuple):
    """A cell run until nothing is left to reveal."""

    dice: Dice
    instance: Instance  # in the basis in which the data were revealed
    ritz: FloatArray
    images: FloatArray  # X Q, shape (M, directions revealed)


def revealed(
    monkeypatch: pytest.MonkeyPatch, model: Model, alpha: float, N: int, seed: int, steps: int | None = None
) -> Revealed:
    images: list[FloatArray] = []
    factors: list[FloatArray] = []
    tridiagonal: list[Any] = []

    def recording(side: type) -> type:
        class Recording(side):  # type: ignore[misc]
            def __init__(self, space: Any, first: Array, *rest: Any) -> None:
                images.append(first[0].copy())
                super().__init__(space, first, *rest)

            def extend(self, b: int, rows: Array) -> Array:
                images.append(rows.copy())
                return super().extend(b, rows)

        return Recording

    current, lowest = gaussian_module.bartlett, dice_module._lowest

    def keep_factor(*arguments: Any) -> FloatArray:
        factors.append(current(*arguments))
        return factors[-1]

    def keep_tridiagonal(diagonal: Any, lengths: Any, count: int) -> Any:
        tridiagonal[:] = diagonal, lengths[:-1]
        return lowest(diagonal, lengths, count)

    with monkeypatch.context() as patch:
        patch.setattr(dice_module, "TurningFrame", recording(TurningFrame))
        patch.setattr(dice_module, "StoredImages", recording(StoredImages))
        patch.setattr(gaussian_module, "bartlett", keep_factor)
        patch.setattr(dice_module, "_lowest", keep_tridiagonal)
        dice = sample_dice(model, alpha, N, np.random.default_rng(seed), tolerance=0.0, max_steps=steps)
    Z = np.concatenate(images).T
    weights = np.zeros((Z.shape[1], model.p_star + int(model.p)))
    weights[: weights.shape[1]] = factors[0] / np.linalg.norm(factors[0], axis=0)
    teachers, students = weights.T[: model.p_star], weights.T[model.p_star :]
    root = math.sqrt(N)
    # the instance divides by its own dimension, of which some are missing where M < N
    instance = Instance(model, Z, root * students, root * teachers, Z @ students.T, dice.y, dice.yhat)
    return Revealed(dice, instance, eigvalsh_tridiagonal(*tridiagonal), Z)


WHOLE = [
    (Model(1, 1, 1.0), 1.5, 40),
    (Model(1, 3, 1.0), 0.7, 40),
    (Model(2, 1, 1.5), 1.5, 24),
    (Model(2, 2, 1.5), 2.0, 24),
    (Model(3, 1, 0.5), 1.3, 20),
    (Model(2, 3, 0.5, noise=0.3), 0.6, 20),
    (Model(2, 1, 1.0), 6.0, 3),
    (Model(1, 1, 1.0), 3.0, 2),
]


@pytest.mark.parametrize(("model", "alpha", "N"), WHOLE, ids=str)
def test_with_every_direction_revealed_it_tridiagonalises_the_revealed_hessian(
    monkeypatch: pytest.MonkeyPatch, model: Model, alpha: float, N: int
) -> None:
    for seed in range(3):
        dice, instance, ritz, Z = revealed(monkeypatch, model, alpha, N, seed)
        directions = Z.shape[1]
        assert directions == min(N, len(Z) + model.p_star + int(model.p))
        assert dice.converged
        values, vectors = np.linalg.eigh(dense_hessian(instance) * directions / N)
        if directions == N:
            assert dice.steps == int(model.p) * N
            assert ritz == pytest.approx(values, abs=1e-11 * np.abs(values).max())
        else:  # M < N: the null space is seen once, or not at all
            nearest = np.abs(ritz[:, None] - values).min(axis=1)
            assert nearest.max() < 1e-11 * np.abs(values).max()
        count = len(dice.eigvals)
        assert count == max(2, int(model.p) * model.p_star)
        assert dice.eigvals == pytest.approx(values[:count], rel=1e-10)
        # Ritz vectors mix by rounding over gap, and gaps of 1e-4 occur
        assert dice.overlaps_sq == pytest.approx(instance.teacher_overlap_sq(vectors[:, :count]), abs=1e-9)
        y = ((Z @ instance.teachers.T) ** 2).mean(axis=1) / N
        assert model.noise or dice.y == pytest.approx(y, rel=1e-10)
        assert dice.yhat == pytest.approx((instance.fields**2).mean(axis=1), rel=1e-10)


def ratios_of(cell: Revealed, N: int) -> FloatArray:
    known = len(cell.instance.students) + len(cell.instance.teachers)
    weights = (3 * cell.dice.yhat - cell.dice.y) / (cell.instance.model.a + cell.dice.y)
    return data_ratios(cell.images, known, weights, N)


def data_scores(
    monkeypatch: pytest.MonkeyPatch, model: Model, alpha: float, N: int, cells: int
) -> tuple[FloatArray, FloatArray]:
    """Deviations of the mean ratios from 1, and their standard errors."""
    steps = 1 - (int(model.p) + model.p_star - N) // int(model.p)  # all that reveal something
    ratios = np.array(
        [ratios_of(revealed(monkeypatch, model, alpha, N, seed, steps), N) for seed in range(cells)]
    )
    return ratios.mean(axis=0) - 1, ratios.std(axis=0, ddof=1) / math.sqrt(cells)


LAW = [(Model(1, 1, 1.0), 1.5, 60), (Model(1, 2, 1.0), 0.6, 80), (Model(3, 1, 0.5), 1.0, 60)]
LAW_CELLS = 120
SCORE = float(stats.norm.isf(FALSE_ALARMS / 4 / (2 * 3 * len(LAW))))


@pytest.mark.parametrize(("model", "alpha", "N"), LAW, ids=str)
def test_the_revealed_data_have_the_law_of_gaussian_data_given_the_labels(
    monkeypatch: pytest.MonkeyPatch, model: Model, alpha: float, N: int
) -> None:
    deviations, errors = data_scores(monkeypatch, model, alpha, N, LAW_CELLS)
    assert errors[0] < 0.01 / SCORE / 0.9  # so that 1 percent of the data's norm would not pass
    assert np.abs(deviations / errors).max() < SCORE


def no_fresh_numbers(reveal: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: LeftBasis, b: int, rows: Array) -> tuple[Array, Array]:
        new, fresh = reveal(self, b, rows)
        return new, 0 * fresh

    return wrong


def no_projection(reveal: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: LeftBasis, b: int, rows: Array) -> tuple[Array, Array]:
        new, fresh = reveal(self, b, rows)
        return new, self.space.device_array(self.space.rng.standard_normal(fresh.shape))

    return wrong


def one_degree_short(rows: int, width: int, rng: np.random.Generator) -> FloatArray:
    return bartlett(rows - 1, width, rng) if rows > width else bartlett(rows, width, rng)


def diagonal_only(rows: int, width: int, rng: np.random.Generator) -> FloatArray:
    factor = bartlett(rows, width, rng)
    return factor if rows < width else np.asarray(np.diag(np.diag(factor)))


WRONG_FACTORS = {"one degree short": one_degree_short, "no off-diagonal": diagonal_only}
WRONG_REVEALS = {"no fresh numbers": no_fresh_numbers, "no projection": no_projection}


def one_now(variants: list[str]) -> list[Any]:
    """The first variant in every run, the others in the slow suite: what they show is the power of a test."""
    first, *others = variants
    return [first, *(pytest.param(other, marks=pytest.mark.slow) for other in others)]


@pytest.mark.parametrize("wrong", one_now([*WRONG_FACTORS, *WRONG_REVEALS]))
def test_the_test_of_the_data_law_detects_every_wrong_variant(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    if wrong in WRONG_FACTORS:
        monkeypatch.setattr(gaussian_module, "bartlett", WRONG_FACTORS[wrong])
    else:
        monkeypatch.setattr(LeftBasis, "reveal", WRONG_REVEALS[wrong](LeftBasis.reveal))
    deviations, errors = data_scores(monkeypatch, *LAW[2], LAW_CELLS)
    assert np.abs(deviations / errors).max() > SCORE


# The law of the measurements, compared with fully drawn and diagonalised matrices


def by_dice(
    model: Model, alpha: float, N: int, cells: int, compact: bool = False
) -> tuple[FloatArray, list[float]]:
    """Lowest two eigenvalues, overlap_sq and overlap_sq_space, and the edges that the labels predict."""
    rng, rows, edges = np.random.default_rng([N, cells]), [], []
    space = int(model.p) * model.p_star
    for _ in range(cells):
        dice = sample_dice(model, alpha, N, rng, compact=compact)
        assert dice.converged
        rows.append([*dice.eigvals[:2], dice.overlaps_sq[0], dice.overlaps_sq[:space].mean()])
        edges.append(drawn_labels_theory(model, N, dice.y, dice.yhat).edge_sample)
    return np.array(rows), edges


@cache
def by_matrix(model: Model, alpha: float, N: int, cells: int) -> tuple[FloatArray, list[float]]:
    """The same from the matrix."""
    rng, rows, edges = np.random.default_rng([N, cells, 1]), [], []
    space = int(model.p) * model.p_star
    for _ in range(cells):
        instance = sample_instance(model, alpha, N, rng)
        last = max(2, space) - 1
        values, vectors = eigh(lower_hessian(instance), lower=True, subset_by_index=(0, last), driver="evr")
        overlaps_sq = instance.teacher_overlap_sq(vectors)
        rows.append([*values[:2], overlaps_sq[0], overlaps_sq[:space].mean()])
        edges.append(drawn_labels_theory(model, N, instance.y, instance.yhat).edge_sample)
    return np.array(rows), edges


CELLS = [  # kind of transition and place beside it
    pytest.param(Model(1, 1, 0.3), 1.0, 40, id="continuous, below"),
    pytest.param(Model(2, 1, 0.5), 0.98, 32, id="continuous, at"),
    pytest.param(Model(3, 1, 0.5), 1.7, 24, id="continuous, above"),
    pytest.param(Model(1, 1, 1.5), 1.375, 40, id="discontinuous, at"),
    pytest.param(Model(2, 1, 1.5), 3.0, 32, id="discontinuous, above"),
    pytest.param(Model(2, 3, 1.0, noise=0.4), 0.7, 32, id="noise, p < p_star, alpha < 1"),
]
COMPACT = [  # large enough for 16 bits
    pytest.param(Model(1, 1, 1.5), 1.375, 320, id="discontinuous, at"),
    pytest.param(Model(2, 1, 5.0), 6.0, 128, id="p = 2, above"),
]
LEVEL = FALSE_ALARMS / 4 / (len(CELLS) + len(COMPACT))


@pytest.mark.parametrize(("model", "alpha", "N"), CELLS)
def test_eigenvalues_and_overlaps_have_the_joint_law_of_a_drawn_matrix(
    model: Model, alpha: float, N: int
) -> None:
    assert smallest_p_value(by_dice(model, alpha, N, 80)[0], by_matrix(model, alpha, N, 400)[0]) > LEVEL


@pytest.mark.parametrize(("model", "alpha", "N"), COMPACT)
def test_vectors_kept_in_16_bits_leave_that_law_as_it_is(model: Model, alpha: float, N: int) -> None:
    compact = by_dice(model, alpha, N, 80, compact=True)[0]
    assert smallest_p_value(compact, by_matrix(model, alpha, N, 400)[0]) > LEVEL


def unturned(advance: Callable[..., Any]) -> Callable[..., Any]:
    def wrong(self: TurningFrame, revealed: FloatArray) -> tuple[float, float]:
        teacher = self._teacher
        result = advance(self, revealed)
        self._teacher = np.concatenate([teacher[:, 1:], np.zeros((len(teacher), len(revealed)))], axis=1)
        if self._teacher.shape[1]:
            self._seen[-1] = self._teacher[:, 0]
        return result

    return wrong


@pytest.mark.parametrize("wrong", one_now(["teacher not turned", *WRONG_REVEALS, "all degrees of freedom"]))
def test_the_test_of_the_joint_law_detects_a_wrong_variant(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    model, alpha, N = Model(1, 2, 1.0), 4.0, 40
    if wrong in WRONG_REVEALS:
        monkeypatch.setattr(LeftBasis, "reveal", WRONG_REVEALS[wrong](LeftBasis.reveal))
    elif wrong == "teacher not turned":
        monkeypatch.setattr(TurningFrame, "advance", unturned(TurningFrame.advance))
    else:
        monkeypatch.setattr(gaussian_module, "bartlett", lambda _, width, rng: bartlett(N, width, rng))
    dice, matrix = by_dice(model, alpha, N, 80)[0], by_matrix(model, alpha, N, 400)[0]
    assert smallest_p_value(dice, matrix) < LEVEL


PRECISE = [
    pytest.param(Model(1, 1, 0.3), 1.62, 400, 1500, id="p = 1, continuous, at"),
    pytest.param(Model(1, 1, 1.5), 1.375, 400, 1500, id="p = 1, discontinuous, at"),
    pytest.param(Model(2, 2, 1.0), 3.0, 100, 3000, id="p = 2, above"),
    pytest.param(Model(2, 3, 1.0, noise=0.4), 0.7, 100, 1500, id="noise, alpha < 1"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "alpha", "N", "cells"), PRECISE)
def test_an_error_of_one_percent_in_the_mean_eigenvalue_is_detected(
    model: Model, alpha: float, N: int, cells: int
) -> None:
    (dice, edges), (matrix, edges_there) = (
        by_dice(model, alpha, N, cells),
        by_matrix(model, alpha, N, 2 * cells),
    )

    def p_value(dice: FloatArray) -> float:
        # what the labels predict of the eigenvalue takes most of its variance with it
        left = stats.ttest_ind(dice[:, 0] - edges, matrix[:, 0] - edges_there, equal_var=False)
        return 2 * min(smallest_p_value(dice, matrix), float(left.pvalue))

    level = FALSE_ALARMS / 4 / len(PRECISE)
    assert p_value(dice) > level
    assert p_value(dice * np.array([1.01, 1, 1, 1])) < level


# Effects of stopping, rounding and the array library


@pytest.mark.parametrize(("model", "alpha"), [(Model(1, 1, 1.5), 1.375), (Model(2, 2, 1.0), 2.4)], ids=str)
def test_where_it_stops_every_pair_agrees_with_the_full_run(model: Model, alpha: float) -> None:
    N, space = 40, int(model.p) * model.p_star
    for seed in range(30):
        stopped = sample_dice(model, alpha, N, np.random.default_rng(seed))
        full = sample_dice(model, alpha, N, np.random.default_rng(seed), tolerance=0.0)
        assert stopped.converged
        assert stopped.steps < full.steps == int(model.p) * N
        gap = full.eigvals[1] - full.eigvals[0]
        # residual^2/gap bounds the error of a value, twice residual/gap that of an overlap
        assert stopped.eigvals[:2] == pytest.approx(full.eigvals[:2], abs=2 * TOLERANCE * gap)
        assert stopped.overlaps_sq[0] == pytest.approx(full.overlaps_sq[0], abs=2 * math.sqrt(TOLERANCE))
        # a single missed pair would change the mean by its overlap over their number
        together = stopped.overlaps_sq[:space].mean()
        assert together == pytest.approx(full.overlaps_sq[:space].mean(), abs=2 * math.sqrt(TOLERANCE))


@pytest.mark.parametrize(
    ("model", "alpha", "N"),
    [
        (Model(2, 1, 1.5), 1.3, 60),
        (Model(4, 2, 1.5), 2.6, 40),
        (Model(8, 1, 0.3), 0.8, 48),  # U and Z fill their spaces
        (Model(8, 1, 0.3), 2.5, 30),  # Z fills, U does not
    ],
    ids=str,
)
def test_the_form_for_wide_students_finds_the_pairs_of_the_same_cell(
    monkeypatch: pytest.MonkeyPatch, model: Model, alpha: float, N: int
) -> None:
    """Both use the same random numbers in the same order, so they reveal one matrix. Eigenvalues agree to the
    square of a residual over a gap, 1e-9 here, and vectors to 1e-5 of a gap; rounding is smaller."""
    made: list[PiecedImages] = []

    class Recording(PiecedImages):
        def __init__(self, *given: Any) -> None:
            made.append(self)
            super().__init__(*given)

    monkeypatch.setattr(dice_module, "PiecedImages", Recording)
    plain, wide = (
        sample_dice(model, alpha, N, np.random.default_rng(3), dtype=np.float64, tolerance=1e-10, wide=wide)
        for wide in (False, True)
    )
    assert plain.converged
    assert wide.converged
    np.testing.assert_array_equal(wide.y, plain.y)
    np.testing.assert_allclose(wide.eigvals, plain.eigvals, rtol=0, atol=1e-8)
    np.testing.assert_allclose(wide.overlaps_sq, plain.overlaps_sq, rtol=0, atol=1e-4)
    pieces = made[0]._pieces
    width = max(piece.shape[2] for piece in pieces)
    padded = [np.pad(piece, ((0, 0), (0, 0), (0, width - piece.shape[2]))) for piece in pieces]
    vectors = np.concatenate(padded).reshape(-1, int(model.p) * width)[: wide.steps]
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(wide.steps), rtol=0, atol=1e-12)


def test_too_few_steps_are_reported_with_honest_residuals() -> None:
    model = Model(2, 1, 1.0)
    short = sample_dice(model, 1.5, 200, np.random.default_rng(0), max_steps=20)
    full = sample_dice(model, 1.5, 200, np.random.default_rng(0))
    assert not short.converged
    assert short.steps == 20
    assert full.converged
    assert (short.eigvals >= full.eigvals).all()
    assert short.eigvals[0] - full.eigvals[0] <= short.residuals[0]
    assert (short.residuals > 1e3 * full.residuals).all()


def test_with_a_null_space_among_the_lowest_pairs_it_does_not_converge() -> None:
    model, seen = Model(1, 1, 1.0), set()
    for seed in range(30):  # two samples in eight dimensions: at most two eigenvalues below 0
        dice = sample_dice(model, 0.25, 8, np.random.default_rng(seed))
        below = int(((3 * dice.yhat - dice.y) < 0).sum())  # by Sylvester's law
        assert dice.converged == (below == 2)
        seen.add(below)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("fill", [0.0, 1.0], ids=["one part", "grown"])
def test_columns_in_16_bits_are_the_rounded_vectors_in_every_product(fill: float) -> None:
    """Two spaces with the same vectors: what was put in 16 bits, put again in float32, has the same products,
    to the rounding of a sum of 100 numbers of float32, 1e-5."""
    rng, count = np.random.default_rng(0), 6
    compact, plain = (Workspace(500, rng, block_rows=100, compact=short) for short in (True, False))
    kept, same = (space.columns(count if fill == 0 else 2) for space in (compact, plain))
    assert type(kept).__name__ == "CompactColumns"
    drawn = compact.normal(count) * 10.0 ** np.arange(-3, 3, dtype=np.float32)[:, np.newaxis]
    drawn[2, 1, :] = 0.0  # a block of zeros has no largest number
    for j in range(0, count, 2):
        kept.reserve(2)
        same.reserve(2)
        for b in range(compact.blocks):
            rounded = kept.put(b, drawn[b, j : j + 2])
            largest = np.abs(drawn[b, j : j + 2]).max(axis=1, keepdims=True)
            assert (np.abs(rounded - drawn[b, j : j + 2]) <= 0.51 * largest / 32767).all()
            same.put(b, rounded)
        for columns in (kept, same):
            columns.commit(2)
    assert len(kept.parts) == (1 if fill == 0 else 2 + (count > 4))
    rows, coefficients = compact.normal(3), rng.standard_normal((3, count)).astype(np.float32)
    for b in (0, 1, 1, 4):
        for first in (0, 3):
            seen, wanted = np.zeros((2, 3, count - first))
            kept.dot(b, rows[b], seen, first=first)
            same.dot(b, rows[b], wanted, first=first)
            np.testing.assert_allclose(seen, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
            now, then = (columns.combine(b, coefficients[:, first:], first=first) for columns in (kept, same))
            np.testing.assert_allclose(now, then, rtol=1e-5, atol=1e-5 * np.abs(then).max())
        less, wanted = (columns.without(b, rows[b], coefficients) for columns in (kept, same))
        np.testing.assert_allclose(less, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
        whole = [np.concatenate([vectors for _, vectors in of.views(b)]) for of in (kept, same)]
        np.testing.assert_allclose(*whole, rtol=1e-6)
    mark = kept.mark()
    kept.reserve(2)
    kept.put(4, rows[4, :2])
    kept.commit(2)
    assert kept.views(4)[0][1].shape == (count + 2, 100)
    kept.forget(mark)
    np.testing.assert_allclose(kept.views(4)[0][1], whole[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "alpha", "N"), [(Model(1, 1, 1.5), 1.4, 2000), (Model(2, 1, 1.5), 1.3, 1500)], ids=str
)
def test_16_bits_move_a_cell_by_far_less_than_cells_differ(
    monkeypatch: pytest.MonkeyPatch, model: Model, alpha: float, N: int
) -> None:
    """The same instance twice. In 300 cells of N = 1000 eigenvalues moved by 0.001 of their standard
    deviation (root mean square), in 80 of N = 8000 by 0.003, and overlaps by 0.011."""
    monkeypatch.setattr(dice_module, "COMPACT_ROWS", dice_module.BLOCK_ROWS)
    monkeypatch.setattr(reveal_module, "COMPACT_BATCH", reveal_module.BATCH)
    monkeypatch.setattr(dice_module, "_CHECKS", (16, 16))
    found = np.array(
        [
            [
                [*dice.eigvals[:2], *dice.overlaps_sq[:1], dice.orthogonality]
                for dice in (
                    sample_dice(model, alpha, N, np.random.default_rng(seed), wide=True, compact=compact)
                    for compact in (False, True)
                )
            ]
            for seed in range(12)
        ]
    )
    moved = np.abs(found[:, 1] - found[:, 0])[:, :3]
    assert moved.any()
    assert (np.sqrt((moved**2).mean(axis=0)) < 0.05 * found[:, 0, :3].std(axis=0)).all()
    assert found[:, 1, 3].max() < 1e-3


def rounded_draws(seed: int, dtype: npt.DTypeLike) -> Callable[[tuple[int, ...]], Array]:
    rng = np.random.default_rng(seed)
    return lambda shape: rng.standard_normal(shape).astype(dtype)


ROUNDED = [(Model(1, 1, 1.0), 1.5, 1500), (Model(2, 1, 1.0), 1.5, 500), (Model(3, 1, 0.5), 1.3, 400)]


@pytest.mark.parametrize(
    ("model", "alpha", "N"),
    [*ROUNDED, *(pytest.param(*case[:2], 4 * case[2], marks=pytest.mark.slow) for case in ROUNDED)],
    ids=str,
)
def test_single_precision_moves_a_cell_by_far_less_than_its_spread(
    model: Model, alpha: float, N: int
) -> None:
    single, double = (
        sample_dice(model, alpha, N, np.random.default_rng(1), dtype=d, normal=rounded_draws(2, d))
        for d in (np.float32, np.float64)
    )
    # eigenvalues of cells differ by about their own spacing, overlaps by about their own size
    spacing = double.eigvals[1] - double.eigvals[0]
    moved = np.abs(single.eigvals[:2] - double.eigvals[:2]).max() / spacing
    # the lowest vector, and the lowest p p_star together: neighbours all but degenerate may mix in the space
    overlap_moved = max(
        abs(single.overlaps_sq[0] / double.overlaps_sq[0] - 1),
        abs(single.overlaps_sq[: int(model.p)].sum() / double.overlaps_sq[: int(model.p)].sum() - 1),
    )
    print(f"p = {model.p}, N = {N}: eigenvalue {moved:.1e} of the spacing, overlap {overlap_moved:.1e}")
    assert single.steps == double.steps
    assert moved < 0.01
    assert overlap_moved < 0.01
    assert single.orthogonality < 5e-5  # 1e-4 and more without the correction by the Gram matrix, at p = 3
    assert double.orthogonality < 1e-11


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("model", [Model(1, 2, 1.0), Model(2, 1, 1.5)], ids=str)
def test_an_array_library_that_allows_only_the_standard_gives_the_same_numbers(
    model: Model, dtype: npt.DTypeLike
) -> None:
    strict = pytest.importorskip("array_api_strict")
    ours = sample_dice(model, 1.5, 120, np.random.default_rng(3), dtype=dtype)
    # the order of a few sums differs; the iteration carries what that changes on
    rounding = 1e-4 if dtype == np.float32 else 1e-8
    for device in (None, strict.Device("CPU_DEVICE")):
        theirs = sample_dice(model, 1.5, 120, np.random.default_rng(3), dtype=dtype, xp=strict, device=device)
        assert (theirs.steps, theirs.converged) == (ours.steps, ours.converged)
        assert theirs.eigvals == pytest.approx(ours.eigvals, rel=rounding)
        assert theirs.overlaps_sq == pytest.approx(ours.overlaps_sq, abs=rounding)
        assert theirs.y == pytest.approx(ours.y, rel=rounding)


def test_the_same_state_of_the_generator_gives_the_same_bits() -> None:
    rng, again = np.random.default_rng(5), np.random.default_rng(5)
    first = sample_dice(Model(2, 1, 1.0), 1.5, 60, rng)
    second = sample_dice(Model(2, 1, 1.0), 1.5, 60, again)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert rng.bit_generator.state == again.bit_generator.state
    assert sample_dice(Model(2, 1, 1.0), 1.5, 60, rng).eigvals[0] != first.eigvals[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": Model(math.inf, 1, 1.0)}, "p must be finite"),
        ({"model": Model(3, 2, 1.0), "N": 4}, "N must be >= p . p_star = 5"),
        ({"dtype": np.float16}, "dtype must be float32 or float64"),
        ({"max_steps": 2}, "max_steps must be > max"),
        ({"compact": True}, "in 16 bits, not 0.50; use dice"),
        ({"compact": True, "N": 5000, "xp": object()}, "compact must be False with another array library"),
    ],
    ids=["p", "N", "dtype", "max_steps", "compact", "library"],
)
def test_unsupported_input_is_refused_in_one_line(changed: dict[str, Any], message: str) -> None:
    arguments = {"model": Model(1, 1, 1.0), "alpha": 2.0, "N": 20, "rng": np.random.default_rng(0)}
    with pytest.raises(ParameterError, match=message) as caught:
        sample_dice(**(arguments | changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "alpha", "N"),
    [(Model(1, 1, 1.0), 1.5, 1500), (Model(2, 1, 1.0), 1.5, 500), (Model(2, 2, 1.0), 0.8, 100)],
    ids=str,
)
def test_the_memory_estimate_is_within_a_factor_of_two_of_the_allocator(
    model: Model, alpha: float, N: int
) -> None:
    sample_dice(model, alpha, 20, np.random.default_rng(0))  # what is imported late
    tracemalloc.start()
    try:
        dice = sample_dice(model, alpha, N, np.random.default_rng(0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    steps = max(dice.steps, dice_module.expected_steps(model, N))
    assert peak / 2 < dice_bytes(model, alpha, N, steps) < 2 * peak


@pytest.mark.parametrize("model", [Model(1, 1, 1.5), Model(3, 2, 1.0)], ids=str)
def test_the_division_into_blocks_of_rows_changes_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One block, several, and a last one that is not full: the same draws give the same cell to rounding."""
    alpha, N = 1.53, 120
    M, found = round(alpha * N), []
    for rows in (4096, 50 * int(model.p), 21 * int(model.p)):
        draws = np.random.default_rng(5)

        def normal(shape: tuple[int, ...], draws: np.random.Generator = draws) -> FloatArray:
            blocks, count, length = shape
            laid = np.zeros((count, blocks * length))
            laid[:, :M] = draws.standard_normal((count, M))
            return np.ascontiguousarray(laid.reshape(count, blocks, length).transpose(1, 0, 2))

        monkeypatch.setattr(dice_module, "BLOCK_ROWS", rows)
        rng = np.random.default_rng(3)
        found.append(sample_dice(model, alpha, N, rng, dtype=np.float64, normal=normal))
    whole = found[0]
    for divided in found[1:]:
        assert divided.steps == whole.steps
        assert divided.eigvals[:2] == pytest.approx(whole.eigvals[:2], rel=1e-9)
        assert divided.overlaps_sq[:2] == pytest.approx(whole.overlaps_sq[:2], rel=1e-6)
        assert divided.y == pytest.approx(whole.y, rel=1e-12)
