"""The estimators of a threshold: their definitions, their outcomes, and the curves they are read off from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.counts import DONE, realised_alpha
from bendscape.analysis.dataset.curves import (
    Flags,
    Floats,
)
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.crossings import Crossing, crossing, mean_curve
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.bulk import left_edge

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
"""The estimators by name, each with its definition."""

SHORT_NAMES: Mapping[str, str] = {
    "alpha_overlap": "overlap level",
    "alpha_pair": "size pair",
    "alpha_gap": "gap",
    "alpha_gap_sample": "gap, own labels",
}

FLAGS: Mapping[str, str] = {
    "estimated": "estimated",
    "not_enough_data": "not enough data",
    "above_the_alpha_range": "no crossing within the alphas measured: the threshold lies above them",
    "below_the_alpha_range": "no crossing within the alphas measured: the threshold lies below them",
    "interval_leaves_the_alpha_range": "estimated, but the interval leaves the alphas measured",
    "no_overlap_level_known": "no overlap level is known for this p, p_star, a",
    "no_larger_size": "no larger size to compare with",
}
"""Outcomes of one estimate, in words; stored as int8, the index in this order."""

MEASURED = ("status", "overlap_sq_space", "eigval_min", "edge_sample")
LEAST_SEEDS = 4
LEAST_ALPHAS = 4
SMOOTHING = 1.5
"""Half width of the smoothing over alpha, in units of width N^(-1/3), within which curves change little."""


def flag_code(flag: str) -> int:
    """The int8 code of an outcome."""
    return tuple(FLAGS).index(flag)


class QuantityCells(NamedTuple):
    """Cells of one quantity at one size, (alpha, seed); which of them count; the loads; the loads with data;
    and the half width of the smoothing."""

    alpha: Floats
    values: Floats
    counted: Flags
    bandwidth: float


def cells_by_size(block: xr.Dataset, alpha: Floats, model: Model) -> list[dict[str, QuantityCells]]:
    """The quantities from which thresholds are read off, at each size: ``overlap``, N^(1/3) overlap_sq_space;
    ``gap``, lambda_minus - eigval_min; ``gap_sample``, edge_sample - eigval_min. Quantities with too few
    seeds or alphas are left out.

    Parameters
    ----------
    block : xarray.Dataset
        ``MEASURED``, ``lambda_minus`` and, where there is one, ``alpha_realised`` of this model, in memory,
        dimensions (alpha, N, seed).
    alpha : array, shape (n,)
        Alphas of the campaign; the abscissae are those of
        :func:`bendscape.analysis.dataset.counts.realised_alpha`.
    model : Model
    """
    found, realised = [], realised_alpha(block, alpha)
    for k, N in enumerate(block["N"].values.tolist()):
        loads = realised[k]
        edges = zip(alpha, block["lambda_minus"].values, loads, strict=True)
        lambda_minus = np.array(
            [edge if x == load else left_edge(model, x).lambda_minus for load, edge, x in edges]
        )
        measured = {name: block[name].isel(N=k).values for name in MEASURED}
        quantities = {
            "overlap": N ** (1 / 3) * measured["overlap_sq_space"],
            "gap": lambda_minus[:, None] - measured["eigval_min"],
            "gap_sample": measured["edge_sample"] - measured["eigval_min"],
        }
        width = critical_point(model).width * N ** (-1 / 3)
        cells = {}
        for name, values in quantities.items():
            counted = (measured["status"] == DONE) & np.isfinite(values)
            use = counted.sum(axis=1) >= LEAST_SEEDS
            if len(np.unique(loads[use])) < LEAST_ALPHAS:
                continue
            bandwidth = float(np.ptp(loads[use]) / 4 if math.isnan(width) else SMOOTHING * width)
            cells[name] = QuantityCells(loads[use], values[use], counted[use], bandwidth)
        found.append(cells)
    return found


def crossings(
    cells: list[dict[str, QuantityCells]], k: int, overlap_level: float, level: float
) -> list[Crossing]:
    """Every estimator at the k-th size, in the order of ``ESTIMATORS``.

    Parameters
    ----------
    cells : list of dict
        What :func:`cells_by_size` returns.
    k : int
        Index of the size.
    overlap_level : float
        Level of N^(1/3) <overlap_sq_space>; nan if none is known.
    level : float
        Level of the intervals.
    """
    curves = {name: mean_curve(*of) for name, of in cells[k].items()}
    if "overlap" not in curves:
        of_overlap = [Crossing("not_enough_data")] * 2
    else:
        larger = next((of["overlap"] for of in cells[k + 1 :] if "overlap" in of), None)
        of_overlap = [
            Crossing("no_overlap_level_known")
            if math.isnan(overlap_level)
            else crossing(curves["overlap"], overlap_level, level),
            Crossing("no_larger_size")
            if larger is None
            else crossing(mean_curve(*larger), curves["overlap"], level),
        ]
    return of_overlap + [
        crossing(curves[name], 0.0, level) if name in curves else Crossing("not_enough_data")
        for name in ("gap", "gap_sample")
    ]
