"""The estimators of a threshold: what each is, what can become of it, and the curves it is read off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.critical import critical_point
from bendscape.analysis.curves import (
    Floats,
    local_smoother,
    resampled_means,
    resampling_counts,
    sign_change,
)
from bendscape.core.model import Model

ESTIMATORS: Mapping[str, str] = {
    "alpha_overlap": (
        "alpha at which N^(1/3) <overlap_sq_space> reaches the value it has at a critical point of this "
        "model: the theory's amplitude times a universal number for the rank p p_star. Tends to alpha_bbp "
        "where the transition is continuous; where it is discontinuous, to the principal-value alpha_0 at "
        "all sizes below the crossover."
    ),
    "alpha_pair": (
        "alpha at which the curves N^(1/3) <overlap_sq_space> of this size and of the next larger one "
        "cross. Same limits as alpha_overlap, without any input from theory; several times its "
        "statistical error."
    ),
    "alpha_gap": (
        "alpha at which the mean gap lambda_minus - <eigval_min> to the asymptotic edge changes sign from "
        "negative to positive. Tends to alpha_bbp for both kinds of transition, from above and slowly; "
        "for p p_star > 1 the splitting of the outliers pulls it down by order N^(-1/2)."
    ),
    "alpha_gap_sample": (
        "alpha at which the mean gap <edge_sample - eigval_min> to the edge of each sample's own labels "
        "changes sign. Tends to alpha_bbp where the transition is continuous, to alpha_0 where it is "
        "discontinuous and N below the crossover; as slowly as alpha_gap, with a smaller statistical "
        "error."
    ),
}
"""Estimators by name, each with its definition."""

SHORT_NAMES: Mapping[str, str] = {
    "alpha_overlap": "overlap level",
    "alpha_pair": "size pair",
    "alpha_gap": "gap",
    "alpha_gap_sample": "gap, own labels",
}

FLAGS: Mapping[str, str] = {
    "estimated": "estimated",
    "not_enough_data": "not enough data",
    "above_the_alpha_range": "no crossing within the alpha range: the threshold lies above it",
    "below_the_alpha_range": "no crossing within the alpha range: the threshold lies below it",
    "interval_leaves_the_alpha_range": "estimated, but the interval leaves the alpha range",
    "no_overlap_level_known": "no overlap level is known for this p, p_star, a",
    "no_larger_size": "no larger size to compare with",
}
"""Outcomes of one estimate, each in words; stored as int8, the place in this order."""

DONE = 1
"""Status of a cell that counts."""

MEASURED = ("status", "overlap_sq_space", "eigval_min", "edge_sample")
LEAST_SEEDS = 4
LEAST_ALPHAS = 4
SMOOTHING = 1.5
"""Half width of the smoothing over alpha, in units of width N^(-1/3): the curves change little within it."""

_FINE = 16  # points of the fine grid between two values of alpha


def flag_code(flag: str) -> int:
    """The int8 that stands for an outcome."""
    return tuple(FLAGS).index(flag)


class Draws(NamedTuple):
    """One estimate and its resamplings (row 0 is the estimate), or the flag that says why there is none."""

    name: str
    values: Floats | None
    flag: str = "estimated"


class PointCurves:
    """The bootstrap mean curves of one model at all sizes, smoothed onto one fine grid of alpha.

    Parameters
    ----------
    block : xarray.Dataset
        ``MEASURED`` and ``lambda_minus`` of this model, in memory, dimensions (alpha, N, seed).
    alpha : array, shape (n,)
    model : Model
    n_boot, seed : int
        Number and random seed of the resamplings.
    """

    def __init__(self, block: xr.Dataset, alpha: Floats, model: Model, n_boot: int, seed: int) -> None:
        self.model, self.n_boot, self.seed = model, n_boot, seed
        self.critical = critical_point(model)
        self.grid = np.linspace(alpha.min(), alpha.max(), _FINE * max(1, len(alpha) - 1) + 1)
        self.sizes = [int(N) for N in block["N"].values]
        self.curves = [self._smooth_means(block.isel(N=k), alpha, N) for k, N in enumerate(self.sizes)]

    def _smooth_means(self, block: xr.Dataset, alpha: Floats, N: int) -> dict[str, Floats] | None:
        """Curves of one size, (n_boot + 1, grid) each and nan outside the alphas that have data."""
        done = block["status"].values == DONE
        use, seeds = done.sum(axis=1) >= LEAST_SEEDS, done.any(axis=0)
        if use.sum() < LEAST_ALPHAS:
            return None
        mask, x = done[use][:, seeds], alpha[use]
        measured = {name: block[name].values[use][:, seeds] for name in MEASURED[1:]}
        cells = {
            "overlap": N ** (1 / 3) * measured["overlap_sq_space"],
            "gap": block["lambda_minus"].values[use][:, None] - measured["eigval_min"],
            "gap_sample": measured["edge_sample"] - measured["eigval_min"],
        }
        model = self.model
        entropy = [self.seed, N, int(model.p), model.p_star, int(np.float64(model.a).view(np.uint64))]
        counts = resampling_counts(int(seeds.sum()), self.n_boot, np.random.default_rng(entropy))
        width = self.critical.width * N ** (-1 / 3)
        bandwidth = (self.grid[-1] - self.grid[0]) / 4 if math.isnan(width) else SMOOTHING * width
        smoother = local_smoother(x, self.grid, bandwidth, mask.sum(axis=1).astype(np.float64))
        smoother[(self.grid < x[0]) | (self.grid > x[-1])] = np.nan
        return {
            name: resampled_means(values, mask & np.isfinite(values), counts) @ smoother.T
            for name, values in cells.items()
        }

    def draws(self, k: int) -> list[Draws]:
        """Every estimator at the k-th size, in the order of ``ESTIMATORS``."""
        here = self.curves[k]
        if here is None:
            return [Draws(name, None, "not_enough_data") for name in ESTIMATORS]
        level = self.critical.overlap_level
        larger = next((curves["overlap"] for curves in self.curves[k + 1 :] if curves is not None), None)
        return [
            Draws("alpha_overlap", None, "no_overlap_level_known")
            if math.isnan(level)
            else self._change("alpha_overlap", here["overlap"] - level),
            Draws("alpha_pair", None, "no_larger_size")
            if larger is None
            else self._change("alpha_pair", larger - here["overlap"]),
            self._change("alpha_gap", here["gap"]),
            self._change("alpha_gap_sample", here["gap_sample"]),
        ]

    def _change(self, name: str, curves: Floats) -> Draws:
        inside = ~np.isnan(curves).any(axis=0)
        if inside.sum() < 2:
            return Draws(name, None, "not_enough_data")
        return Draws(name, sign_change(self.grid[inside], curves[:, inside]))
