"""The measured overlap above the threshold beside theory's at the same N."""

from __future__ import annotations

import math

import numpy as np
import planted_collapse
import pytest
import xarray as xr

from bendscape.analysis.findings.overlap_above import ACCURACY, overlaps_above
from bendscape.analysis.findings.panels import means
from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import asymptotics, transition

MODEL = Model(1, 1, 0.7)
BBP = transition(MODEL).alpha_bbp
LOADS = np.round(np.array([0.8, 1.2, 1.6]) * BBP * 64) / 64  # times N a whole number


def found(factor: float = 1.0, sizes: tuple[int, ...] = (128, 512)) -> xr.Dataset:
    """Means of a sweep with this multiple of the law's overlap in every cell, and noise of a tenth of it."""
    ds = planted_collapse.sweep(MODEL, dict.fromkeys(sizes, 25), loads=LOADS)
    rng = np.random.default_rng(20261128)
    for k, N in enumerate(sizes):
        law = np.array([mean_overlap_sq(MODEL, load, N) for load in LOADS])[:, None]
        noise = rng.standard_normal((len(LOADS), 25))
        ds["overlap_sq_space"].values[0, 0, 0, :, k] = factor * law * (1 + 0.1 * noise)
    return means(ds).compute()


@pytest.mark.parametrize("factor", [1.0, 0.7, 1.3])
def test_the_ratio_is_that_planted_at_the_loads_above_threshold_of_the_largest_size(factor: float) -> None:
    (row,) = overlaps_above(found(factor))
    assert (row.model, row.N, row.loads) == (MODEL, 512, 2)
    assert row.ratio == pytest.approx(factor, rel=0.05)
    of_law = ACCURACY * (128 / 512) ** (1 / 3)
    assert of_law < row.error < math.hypot(of_law, 0.03)
    assert (abs(row.distance) > 3) == (factor != 1)
    limit = sum(asymptotics(MODEL, load).overlap_sq for load in LOADS[1:])
    law = sum(mean_overlap_sq(MODEL, load, 512) for load in LOADS[1:])
    assert row.finite_size == pytest.approx(law / limit)


def test_the_error_of_the_law_falls_with_the_size_that_is_reached() -> None:
    (small,), (large,) = (overlaps_above(found(sizes=(N,))) for N in (128, 4096))
    assert large.error < small.error / 2
    assert abs(math.log(large.finite_size)) < abs(math.log(small.finite_size))


def test_a_sweep_below_its_threshold_or_without_seeds_gives_no_ratio() -> None:
    assert overlaps_above(found().isel(alpha=[0])) == []
    few = found()
    assert overlaps_above(few.assign(overlap_sq_space_n_seeds=few["overlap_sq_space_n_seeds"] * 0 + 5)) == []


def test_the_amplitude_of_one_over_log_still_drifts_where_the_campaign_reads_it() -> None:
    model = Model(4, 1, 1.5)
    alpha = 0.4 * transition(model).alpha_bbp
    edge = asymptotics(model, alpha).lambda_minus
    sizes = [256, 512, 1024, 1e5]
    found = [(lowest_eigenvalue_law(model, alpha, N).mean - edge) * math.log(N) for N in sizes]
    assert found == pytest.approx([0.259, 0.258, 0.269, 0.349], abs=2e-3)
