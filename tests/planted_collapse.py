"""Sweeps of one model whose mean overlaps collapse by construction, with corrections to scaling planted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import synthetic
import xarray as xr

from bendscape.analysis.estimate.collapse_fits import (
    MEANS,
    PointScaling,
    corrections_to_scaling,
    scale_width,
)
from bendscape.analysis.estimate.collapse_points import scaled_points, universal_overlap
from bendscape.analysis.estimate.critical import critical_point
from bendscape.core.quadratic.model import Model

LOADS = np.round(np.arange(0.5, 2.45, 0.05), 12)  # times N a whole number for N a multiple of 20


def corrections(
    w: npt.NDArray[np.float64], N: float, coefficients: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Corrections to scaling in units of Y at the critical load: three coefficients of order N^0, then those
    of N^(-1/3) and N^(-2/3), each times its ``PRIOR``. Beyond |w| = 1, where no fit looks, they are those
    at 1."""
    k = corrections_to_scaling(np.clip(w, -1, 1), np.full(np.shape(w), float(N)))
    return np.asarray(k[..., : len(coefficients)] @ np.asarray(coefficients, dtype=np.float64))


def sweep(
    model: Model,
    seeds: Mapping[int, int],
    *,
    alpha_c: float | None = None,
    correction: Sequence[float] = MEANS,
    loads: npt.NDArray[np.float64] = LOADS,
    spread: float = 1.0,
    entropy: int = 0,
) -> xr.Dataset:
    """A complete sweep with N^(1/3) <overlap_sq_space> = A phi_r(w) + ``corrections`` of these coefficients,
    by default those that the fit expects.

    w = (alpha - alpha_c) N^(1/3)/width, alpha_c theory's critical load by default; cells have a gamma law of
    relative standard deviation ``spread``, which is about 1 for sampled Hessians, and are cut at 1. Gaps are
    noise."""
    critical = critical_point(model)
    place = critical.alpha if alpha_c is None else alpha_c
    ds = synthetic.frame((int(model.p),), (model.p_star,), (model.a,), seeds, alpha=loads)
    rng = np.random.default_rng([20261122, entropy])
    for k, (N, count) in enumerate(sorted(seeds.items())):
        w = (loads - place) * N ** (1 / 3) / critical.width
        mean = critical.amplitude * universal_overlap(w, int(model.p) * model.p_star)
        mean = np.maximum(mean + critical.overlap_level * corrections(w, N, correction), 0.02 * mean)
        cells = N ** (-1 / 3) * mean[:, None] * spread**2 * rng.gamma(spread**-2, 1.0, (len(loads), count))
        values = {
            "overlap_sq_space": np.minimum(cells, 1.0),
            "eigval_min": rng.standard_normal(cells.shape),
            "edge_sample": rng.standard_normal(cells.shape),
            "alpha_realised": loads[:, None] + np.zeros(cells.shape),
            "status": np.ones(cells.shape, np.int8),
        }
        for name, value in values.items():
            ds[name].values[0, 0, 0, :, k, :count] = value
    return synthetic.with_coverage(ds)


def scaling(ds: xr.Dataset, model: Model, *, level: float = 0.95, n_boot: int = 200) -> PointScaling:
    """The estimators of such a sweep, without a pass over a dataset."""
    block = ds[["status", "overlap_sq_space", "alpha_realised"]].isel(p=0, p_star=0, a=0)
    points = scaled_points(block.transpose("alpha", "N", "seed"), ds["alpha"].values, scale_width(model))
    return PointScaling(points, model, level, n_boot, 0)
