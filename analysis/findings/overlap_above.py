"""The measured overlap with the teacher above the threshold, compared with theory at the same N."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.models import MODEL, alpha_axis
from bendscape.analysis.estimate.edge_fits import LEAST_SEEDS, widened
from bendscape.analysis.estimate.laws import asymptotics, mean_overlap_sq
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import transition

ACCURACY = 0.125
"""Half of the 25 per cent within which samples at N = 128 follow the finite-N law; decreases like
N^(-1/3)."""


class OverlapAbove(NamedTuple):
    """Measured overlap over theory's at the same N, for all loads of one model above alpha_bbp together, at
    the largest size measured there; its error, statistical and that of the law; and theory's overlap at this
    N relative to N = infinity."""

    model: Model
    N: int
    loads: int
    ratio: float
    error: float
    finite_size: float

    @property
    def distance(self) -> float:
        """Distance from 1, in errors."""
        return (self.ratio - 1) / self.error


def overlaps_above(found: xr.Dataset) -> list[OverlapAbove]:
    """Overlaps above the threshold of every model with data there.

    With y_i the mean of overlap_sq_space over the seeds at one load and L_i theory's
    :func:`bendscape.core.quadratic.finite_size.overlap_law.mean_overlap_sq` there,

        ratio = sum_i y_i / sum_i L_i,
        error^2 = sum_i s_i^2 / (sum_i L_i)^2 + (``ACCURACY`` (128/N)^(1/3))^2.

    Parameters
    ----------
    found : xarray.Dataset
        What :func:`bendscape.analysis.findings.panels.means` returns, computed.

    Returns
    -------
    list of OverlapAbove
        In the order of the axes. A load needs ``LEAST_SEEDS`` seeds.

    Notes
    -----
    Held by ``tests/test_overlap_above.py``. Source: this project's own.
    """
    rows = []
    for index in np.ndindex(*(found.sizes[name] for name in MODEL)):
        at = found.isel(dict(zip(MODEL, index, strict=True)))
        model = Model(*(at[name].item() for name in MODEL))
        above = at["alpha"].values > transition(model).alpha_bbp
        counts = (at["overlap_sq_space_n_seeds"] >= LEAST_SEEDS) & (at["overlap_sq_space_error"] > 0)
        use = counts.transpose("N", alpha_axis(found)).values & above
        if not use.any():
            continue
        k = int(np.flatnonzero(use.any(axis=1))[-1])
        one, N = at.isel({"N": k, alpha_axis(found): np.flatnonzero(use[k])}), int(at["N"][k])
        loads = one["alpha_realised"].values.tolist()
        law = sum(mean_overlap_sq(model, load, N) for load in loads)
        seeds = zip(one["overlap_sq_space_error"].values, one["overlap_sq_space_n_seeds"].values, strict=True)
        statistical = math.sqrt(sum(widened(float(e), int(n) - 1) ** 2 for e, n in seeds)) / law
        error = math.hypot(statistical, ACCURACY * (128 / N) ** (1 / 3))
        limit = float(np.nansum([asymptotics(model, load).overlap_sq for load in loads]))
        ratio = float(one["overlap_sq_space"].sum()) / law
        share = law / limit if limit > 0 else math.inf
        rows.append(OverlapAbove(model, N, len(loads), ratio, error, share))
    return rows
