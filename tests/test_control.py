"""Control variates: planted answers, coverage, absence of bias, and the reduction of variance on real
cells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.control_variate import Controlled, controlled_mean, label_controls
from bendscape.core.quadratic.sampling.dice import sample_dice
from bendscape.core.quadratic.sampling.drawn_labels import (
    DrawnLabels,
    drawn_labels_theory,
    sample_drawn_labels,
)
from bendscape.core.quadratic.sampling.observe import observe

FloatArray = npt.NDArray[np.float64]


def planted(rng: np.random.Generator, n: int, rho: float, k: int = 1) -> tuple[FloatArray, FloatArray]:
    """Values of mean 3 and sd 2 that correlate rho with k normal controls of mean 1."""
    c = rng.standard_normal((n, k)) + 1
    along = (c - 1).sum(axis=1) / math.sqrt(k)
    return 3 + 2 * (rho * along + math.sqrt(1 - rho**2) * rng.standard_normal(n)), c


def skewed(rng: np.random.Generator, n: int) -> tuple[FloatArray, FloatArray]:
    """Values of mean 2 on a curve of a skewed control of mean 1, with noise that grows along it."""
    c = rng.exponential(size=n)
    return c**2 + c * rng.standard_normal(n), c


def brute_force(f: FloatArray, c: FloatArray, centre: FloatArray, weight: float) -> float:
    """The definition: slopes refitted without each cell."""
    terms = []
    for i in range(len(f)):
        rest = np.delete(np.arange(len(f)), i)
        design = c[rest] - c[rest].mean(axis=0)
        slopes = np.linalg.lstsq(design, f[rest] - f[rest].mean(), rcond=1e-9)[0]
        terms.append(f[i] - weight * slopes @ (c[i] - centre))
    return float(np.mean(terms))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_mean_equals_that_with_slopes_refitted_without_each_cell(k: int) -> None:
    rng = np.random.default_rng(k)
    f, c = planted(rng, 12, 0.7, k)
    extra = rng.standard_normal((30, k)) + 1
    found = controlled_mean(f, c, extra=extra)
    assert found.mean == pytest.approx(brute_force(f, c, extra.mean(axis=0), 30 / 42), abs=1e-12)
    known = controlled_mean(f, c, expected=np.ones(k))
    assert known.mean == pytest.approx(brute_force(f, c, np.ones(k), 1.0), abs=1e-12)


@pytest.mark.parametrize("present", [0, 1, 2])
def test_a_control_that_few_cells_have_is_treated_by_the_same_definition(present: int) -> None:
    rng = np.random.default_rng(5)
    f, c = planted(rng, 15, 0.7)
    rare = np.where(np.arange(15) < present, rng.uniform(size=15), 0.0)
    both = np.column_stack([c[:, 0], rare])
    found = controlled_mean(f, both, expected=[1.0, 0.1])
    assert found.mean == pytest.approx(brute_force(f, both, np.array([1.0, 0.1]), 1.0), rel=1e-7)
    alone = controlled_mean(f, rare, expected=0.1)
    assert alone.mean == pytest.approx(brute_force(f, rare[:, np.newaxis], np.array([0.1]), 1.0), rel=1e-7)


def test_no_extra_information_gives_the_plain_mean() -> None:
    f, _ = planted(np.random.default_rng(1), 20, 0.9)
    found = controlled_mean(f, np.full(20, 4.0), expected=4.0)
    assert found.mean == pytest.approx(f.mean(), rel=1e-14)
    assert found.error == pytest.approx(f.std(ddof=1) / math.sqrt(20), rel=1e-12)
    assert found.variance_ratio == pytest.approx(1, rel=1e-12)


def test_controls_that_repeat_each_other_count_once() -> None:
    f, c = planted(np.random.default_rng(2), 20, 0.8)
    once = controlled_mean(f, c, expected=1.0)
    twice = controlled_mean(f, np.hstack([c, 2 * c - 1]), expected=[1.0, 1.0])
    assert twice.mean == pytest.approx(once.mean, rel=1e-10)
    assert twice.error == pytest.approx(once.error, rel=1e-10)
    assert twice.dof == once.dof


@pytest.mark.parametrize(("rho", "m"), [(0.0, 500), (0.6, 100), (0.9, 25), (0.9, 2500), (0.9, math.inf)])
def test_the_variance_falls_as_planted(rho: float, m: float) -> None:
    """1000 experiments of 50 cells: variance and its estimate within 4 standard errors; 10^-3 by chance.

    Expected is s^2 [(1 - rho^2)/n (1 + 1/n) + rho^2/(n + m)], 1/n for the slope's own noise.
    """
    n, runs = 50, 1000
    rng = np.random.default_rng(3)
    found: list[Controlled] = []
    for _ in range(runs):
        f, c = planted(rng, n, rho)
        about: dict[str, Any] = (
            {"expected": 1.0} if math.isinf(m) else {"extra": rng.standard_normal(int(m)) + 1}
        )
        found.append(controlled_mean(f, c, **about))
    expected = 4 * ((1 - rho**2) / n * (1 + 1 / n) + rho**2 / (n + m))
    means = np.array([each.mean for each in found])
    assert np.var(means - 3) == pytest.approx(expected, rel=4 * math.sqrt(2 / runs))
    assert abs(means.mean() - 3) < 4 * math.sqrt(expected / runs)
    claimed = np.array([each.error**2 for each in found])
    assert claimed.mean() == pytest.approx(
        expected, abs=4 * claimed.std() / math.sqrt(runs) + 1e-3 * expected
    )
    logs = np.log([each.variance_ratio for each in found])
    # The jackknife's error is the spread of the ratio, within a tenth at 50 cells.
    jackknife = np.array([each.variance_ratio_error / each.variance_ratio for each in found])
    if rho > 0:
        assert np.sqrt(np.mean(jackknife**2)) == pytest.approx(logs.std(), rel=0.15)
    assert logs.mean() == pytest.approx(
        math.log(4 / n / expected), abs=4 * logs.std() / math.sqrt(runs) + 0.03
    )


@pytest.mark.parametrize(("rho", "n"), [(0.3, 12), (0.9, 12), (0.9, 40)])
def test_the_interval_has_its_nominal_coverage(rho: float, n: int) -> None:
    """3000 intervals of 90 percent, extra draws ten times the cells: 4 sd, 10^-4 by chance, and 2 percent.

    The 2 percent are for the degrees of freedom at 12 cells, which what the extra draws leave does not share.
    """
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(3000):
        f, c = planted(rng, n, rho)
        low, high = controlled_mean(f, c, extra=rng.standard_normal(10 * n) + 1).interval(0.9)
        hits += low < 3 < high
    assert hits / 3000 == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 3000) + 0.02)


def test_a_curved_relation_leaves_no_bias_where_fitting_on_all_cells_does() -> None:
    """6000 experiments of 10 skewed cells: 4 standard errors of their mean, 10^-4 by chance."""
    rng = np.random.default_rng(6)
    found = [controlled_mean(*skewed(rng, 10), expected=1.0) for _ in range(6_000)]
    means, overfit = np.array([(each.mean, each.overfit) for each in found]).T
    error = means.std() / math.sqrt(len(means))
    assert abs(means.mean() - 2) < 4 * error
    assert abs((means + overfit).mean() - 2) > 8 * error


def test_on_skewed_cells_the_interval_nearly_has_its_nominal_coverage() -> None:
    """1500 intervals of 95 percent at 60 cells, where skewness takes the plain mean's coverage down to 88."""
    rng = np.random.default_rng(7)
    hits = plain = 0
    for _ in range(1500):
        f, c = skewed(rng, 60)
        found = controlled_mean(f, c, extra=rng.exponential(size=600))
        low, high = found.interval()
        hits += low < 2 < high
        plain += abs(found.plain_mean - 2) < 2 * found.plain_error
    assert 0.87 < hits / 1500 < 0.97
    assert hits / 1500 > plain / 1500 - 4 * math.sqrt(2 * 0.1 / 1500)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.5])
def test_a_control_that_few_cells_carry_does_no_harm(share: float) -> None:
    """800 experiments of 40 cells: the variance is not 1.3 times the plain one, and cut where half carry it.

    If every control were used it would be 6 and 16 times the plain one at shares of 0.02 and 0.05.
    """
    rng = np.random.default_rng(8)

    def rare(count: int) -> FloatArray:
        return np.where(rng.uniform(size=count) < share, rng.beta(1, 2, size=count), 0.0)

    means = []
    for _ in range(800):
        c = rare(40)
        found = controlled_mean(c + 0.1 * rng.chisquare(1, size=40), c, extra=rare(1000))
        means.append((found.mean, found.plain_mean))
    controlled, plain = np.var(means, axis=0)
    assert controlled < 1.3 * plain
    assert share < 0.5 or controlled < 0.5 * plain


def test_every_cell_has_its_controls_with_or_without_an_outlier() -> None:
    cells = [DrawnLabels(-1.5, math.nan, math.nan), DrawnLabels(-1.5, -1.7, 0.2)]
    np.testing.assert_array_equal(label_controls(cells), [[-1.5, 0.0], [-1.7, 0.2]])
    assert label_controls([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("values", "controls", "about", "names"),
    [
        ([1.0, 2, 3], [1.0, 2, 3], {"expected": 0.0}, "values"),
        ([1.0, 2, 3, math.nan], [1.0, 2, 3, 4], {"expected": 0.0}, "values"),
        ([1.0, 2, 3, 4], [1.0, 2, 3, math.nan], {"expected": 0.0}, "controls"),
        ([1.0, 2, 3, 4], [1.0, 2, 3], {"expected": 0.0}, "controls"),
        ([1.0, 2, 3, 4], [1.0, 2, 3, 4], {}, "extra"),
        ([1.0, 2, 3, 4], [1.0, 2, 3, 4], {"expected": 0.0, "extra": [1.0]}, "extra"),
        ([1.0, 2, 3, 4], [1.0, 2, 3, 4], {"extra": np.ones((5, 2))}, "extra"),
        ([1.0, 2, 3, 4], [1.0, 2, 3, 4], {"extra": []}, "extra"),
        ([1.0, 2, 3, 4], [1.0, 2, 3, 4], {"expected": [1.0, 2.0]}, "expected"),
    ],
)
def test_input_that_cannot_be_averaged_is_refused_by_name(
    values: Any, controls: Any, about: dict[str, Any], names: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        controlled_mean(values, controls, **about)
    assert caught.value.parameter == names


@pytest.mark.parametrize(("alpha", "cut", "cut_overlap"), [(0.8, 2.21, 1.10), (1.9, 2.83, 1.32)])
def test_cells_of_dice_agree_with_diagonalised_ones_at_half_their_variance(
    alpha: float, cut: float, cut_overlap: float
) -> None:
    """60 controlled cells against 240 plain ones at N = 200: 4 standard errors, six times 10^-4 by chance.

    The cuts were measured over 800 other, diagonalised cells, to 5 percent.
    """
    model, N, cells = Model(1, 1, 0.7), 200, 60
    seen = [sample_dice(model, alpha, N, np.random.default_rng((1, seed))) for seed in range(cells)]
    own = label_controls(drawn_labels_theory(model, N, cell.y, cell.yhat) for cell in seen)
    extra = label_controls(
        sample_drawn_labels(model, alpha, N, np.random.default_rng((2, seed))) for seed in range(1200)
    )
    dense = [observe(model, alpha, N, np.random.default_rng((3, seed)), "dense") for seed in range(240)]
    eigenvalue = controlled_mean([cell.eigvals[0] for cell in seen], own[:, 0], extra=extra[:, 0])
    overlap = controlled_mean([cell.overlaps_sq[0] for cell in seen], own[:, 1], extra=extra[:, 1])
    for found, known, plain in (
        (eigenvalue, cut, np.array([cell.eigval_min for cell in dense])),
        (overlap, cut_overlap, np.array([cell.overlap_sq for cell in dense])),
    ):
        error = math.hypot(found.error, plain.std() / math.sqrt(len(plain)))
        assert abs(found.mean - plain.mean()) < 4 * error
        assert abs(found.variance_ratio - known) < 4 * math.hypot(found.variance_ratio_error, 0.05 * known)
    assert eigenvalue.variance_ratio > 1.5

    shuffled = np.random.default_rng(4).permutation(own[:, 0])
    unpaired = controlled_mean([cell.eigvals[0] for cell in seen], shuffled, extra=extra[:, 0])
    assert unpaired.variance_ratio < 1.3  # R^2 of 60 unrelated pairs is below 0.23 but for 10^-4
