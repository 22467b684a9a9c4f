"""Drawn extreme labels: cells of whole labels, and samples, where the averages have no edge."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.edge_scales import edge_scales
from bendscape.core.quadratic.finite_size.extreme_labels import drawn_cells
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.drawn_labels import sample_drawn_labels
from bendscape.core.quadratic.sampling.observe import observe


@pytest.mark.parametrize(
    ("model", "alpha", "N"), [(Model(1, 1, 1.5), 0.3, 2000), (Model(4, 1, 1.5), 0.4, 500)], ids=str
)
def test_their_edges_agree_with_cells_in_which_all_labels_are_drawn(
    model: Model, alpha: float, N: int
) -> None:
    """150 cells: mean within 4 standard errors of both, sd within 50 percent: heavy tails."""
    cells = [sample_drawn_labels(model, alpha, N, np.random.default_rng((7, s))) for s in range(150)]
    seen = [c.edge_sample if math.isnan(c.outlier_sample) else c.outlier_sample for c in cells]
    drawn = drawn_cells(model, alpha, N)
    sd = math.sqrt(drawn.place.var() + drawn.var_rest.mean())
    assert np.mean(seen) == pytest.approx(drawn.place.mean(), abs=4 * sd * math.sqrt(1 / 150 + 1 / 400))
    assert np.std(seen) == pytest.approx(sd, rel=0.5)


@pytest.mark.parametrize(
    ("model", "alpha", "N"), [(Model(4, 1, 1.5), 0.4, 150), (Model(8, 1, 0.7), 0.35, 100)], ids=str
)
def test_samples_have_the_spread_and_the_overlap_of_the_law_where_no_edge_exists(
    model: Model, alpha: float, N: int
) -> None:
    """100 cells: mean within 0.8 sd, sd within 45 percent; overlap within 4 standard errors and 30 percent,
    and far above that of a random vector. Each 10^-4 by chance."""
    assert math.isnan(edge_scales(model, alpha).gamma_edge)
    cells = [observe(model, alpha, N, np.random.default_rng((17, s))) for s in range(100)]
    seen = [cell.eigval_min for cell in cells]
    law = lowest_eigenvalue_law(model, alpha, N)
    assert np.mean(seen) == pytest.approx(law.mean, abs=0.8 * law.sd)
    assert np.std(seen, ddof=1) == pytest.approx(law.sd, rel=0.45)
    overlaps, expected = [cell.overlap_sq_space for cell in cells], mean_overlap_sq(model, alpha, N)
    assert np.mean(overlaps) == pytest.approx(expected, abs=0.4 * float(np.std(overlaps)) + 0.3 * expected)
    assert np.mean(overlaps) > 2 * model.p_star / N
