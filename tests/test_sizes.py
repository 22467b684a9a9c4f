"""The laws of finite size beside samples, below and above both kinds of threshold: N from 2^7 to 2^12, in the
slow suite to 2^14."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.edge_scales import edge_scales
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.observe import observe

CELLS = {2**7: 60, 2**8: 40, 2**9: 24, 2**10: 16, 2**11: 8, 2**12: 3}
LARGE = CELLS | {2**13: 2, 2**14: 1}


@pytest.mark.parametrize(
    "counts", [CELLS, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["to 2^12", "to 2^14"]
)
@pytest.mark.parametrize(
    ("model", "alpha"),
    [(Model(1, 1, 0.7), 2.5), (Model(1, 1, 1.5), 1.2)],
    ids=["above a continuous threshold", "inside a smooth edge"],
)
def test_samples_of_every_size_follow_the_laws(model: Model, alpha: float, counts: dict[int, int]) -> None:
    """Drawn without their data (``dice``), which has the law of a drawn matrix.

    Mean eigenvalue at each size within 4 standard errors and 0.6 (C p N)^(-2/3), which the law may leave out;
    spread of all sizes together, in units of the law's, within 20 percent: of 151 cells it is known to 6, and
    up to 10 are left out. Overlap over that of the law, up to N = 2^10 and beyond, within 4 standard errors
    (of the sample's own spread) and 15 percent. By chance 1 run in 10^3 fails.
    """
    softness = edge_scales(model, alpha).softness
    deviations: list[float] = []
    ratios: dict[bool, list[float]] = {False: [], True: []}
    for N, cells in counts.items():
        seen = [observe(model, alpha, N, np.random.default_rng((41, N, s)), "dice") for s in range(cells)]
        assert all(each.converged for each in seen)
        law, overlap = lowest_eigenvalue_law(model, alpha, N), mean_overlap_sq(model, alpha, N)
        eigval_min = np.array([each.eigval_min for each in seen])
        left_out = 0.6 * (softness * model.p * N) ** (-2 / 3)
        assert eigval_min.mean() == pytest.approx(law.mean, abs=4 * law.sd / math.sqrt(cells) + left_out)
        ratios[N > 2**10] += [each.overlap_sq_space / overlap for each in seen]
        deviations += ((eigval_min - law.mean) / law.sd).tolist()
    assert np.std(deviations) == pytest.approx(1, abs=0.2)
    for ratio in ratios.values():
        band = 4 * float(np.std(ratio)) / math.sqrt(len(ratio)) + 0.15
        assert band < 1
        assert np.mean(ratio) == pytest.approx(1, abs=band)
