"""Optimal designs: against a general optimiser, with the certificate, in whole cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from bendscape.analysis.refine.optimum import (
    GAP,
    Points,
    information,
    lattice,
    optimum,
    variance,
    whole_cells,
)

SECONDS = 50.0


def problem(n: int, k: int, seed: int) -> tuple[Points, Any, Any]:
    """Random points, the information that exists, and a direction; units of the parameters differ by far."""
    rng = np.random.default_rng([17, n, k, seed])
    units = 10.0 ** rng.integers(-4, 5, k)
    points = Points(rng.normal(size=(n, k)) * units, rng.uniform(0.5, 2, n), rng.uniform(0.1, 10, n))
    cells = rng.integers(0, 3, n).astype(float)
    known = information(points.gradient, points.sigma, cells) + np.diag(0.1 * units**2)
    return points, known, np.eye(k)[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_shares_are_those_of_a_general_optimiser(seed: int) -> None:
    points, known, direction = problem(9, 3, seed)

    def value(share: Any) -> float:
        cells = np.maximum(share, 0) / np.maximum(share, 0).sum() * SECONDS / points.cost
        return 1e4 * variance(known + information(points.gradient, points.sigma, cells), direction) / scale

    scale = 1.0
    scale = value(np.ones(9)) / 1e4
    found = optimum(points, known, direction, SECONDS)
    one = {"type": "eq", "fun": lambda x: x.sum() - 1}
    other = minimize(
        value, np.full(9, 1 / 9), bounds=[(0, 1)] * 9, constraints=one, method="SLSQP",
        options={"ftol": 1e-10, "maxiter": 500},
    )  # fmt: skip
    assert value(found.share) == pytest.approx(found.variance * 1e4 / scale, rel=1e-6)
    assert value(found.share) <= other.fun * (1 + GAP) + 1e-9
    assert other.fun >= value(found.share) * (1 - found.gap) * (1 - 1e-6)


@given(n=st.integers(2, 12), k=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_no_division_of_the_time_beats_the_certificate(n: int, k: int, seed: int) -> None:
    points, known, direction = problem(n, k, seed)
    found = optimum(points, known, direction, SECONDS)
    assert found.gap <= GAP
    assert found.share.min() >= 0
    assert found.share.sum() == pytest.approx(1)
    for share in np.random.default_rng(seed).dirichlet(np.full(n, 0.3), 20):
        more = information(points.gradient, points.sigma, share * SECONDS / points.cost)
        assert variance(known + more, direction) >= found.variance * (1 - found.gap) * (1 - 1e-6)


@given(
    share=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    seconds=st.floats(0.01, 1e4),
    least=st.integers(1, 8),
    seed=st.integers(0, 100),
)
@settings(max_examples=60, deadline=None)
def test_whole_cells_keep_to_the_time_and_to_the_least_number(
    share: list[float], seconds: float, least: int, seed: int
) -> None:
    cost = np.random.default_rng(seed).uniform(0.01, 10, len(share))
    cells = whole_cells(np.array(share), seconds, cost, least)
    assert cells @ cost <= seconds * (1 + 1e-12)
    assert ((cells == 0) | (cells >= least)).all()
    assert (cells == np.round(cells)).all()
    assert not cells[np.array(share) == 0].any()
    affordable = cost[np.array(share) > 0] * least <= seconds * (1 - 1e-9)
    assert cells.any() or not affordable.all() or not len(affordable)


def test_values_of_the_curve_have_few_digits_and_nested_ranges_share_them() -> None:
    wide, narrow = lattice(0.43, 1.57, 8), lattice(0.83, 1.17, 8)
    assert wide == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    assert narrow == [0.84, 0.86, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08, 1.1, 1.12, 1.14, 1.16]  # fmt: skip  # noqa: E501
    assert {x for x in wide if 0.84 <= x <= 1.16} <= set(narrow)
    assert lattice(1.0, 1.0, 8) == []
