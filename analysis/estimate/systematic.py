"""Systematic error of a threshold read off at one size, which more seeds do not reduce: the spacing of the
alphas, and corrections to the critical law at small N."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.counts import DONE, realised_alpha
from bendscape.analysis.dataset.curves import Floats, local_smoother, sign_change
from bendscape.analysis.estimate.collapse_points import universal_overlap
from bendscape.analysis.estimate.critical import CriticalPoint, critical_point
from bendscape.analysis.estimate.estimators import LEAST_ALPHAS, LEAST_SEEDS, SMOOTHING
from bendscape.core.quadratic.model import Model

CORRECTION = 1 / 3
"""Standard deviation of the first correction to the critical law, in units of N^(-1/3) times its value at the
threshold. Sampled Hessians of six models (p = 1 to 4, p_star = 1 and 2, both kinds of transition) at N = 32
to 128 have -0.6 to 0.4, a root mean square of 0.3."""

_SHIFTS = np.linspace(-0.5, 0.5, 5)
_GRID = 321


def systematic_errors(block: xr.Dataset, model: Model) -> Floats:
    """Systematic error of alpha_overlap at each size, spacing and small-N bias added in quadrature.

    Parameters
    ----------
    block : xarray.Dataset
        ``status`` and, where there is one, ``alpha_realised`` of this model, in memory, dimensions (alpha, N,
        seed), with the coordinate ``alpha``.
    model : Model

    Returns
    -------
    array, shape (N,)
        nan where there is no overlap level, where too few alphas have enough seeds, or where the alphas are
        so far apart that theory's own curve does not cross between them.

    Notes
    -----
    :func:`spacing_error` at theory's critical load, and :func:`small_size_error`. Held by
    ``tests/test_verdicts.py``. Source: this project's own.
    """
    critical = critical_point(model)
    loads = realised_alpha(block, block["alpha"].values.astype(np.float64))
    counts = (block["status"].values == DONE).sum(axis=2)
    errors = []
    for k, N in enumerate(block["N"].values.tolist()):
        use = counts[:, k] >= LEAST_SEEDS
        if math.isnan(critical.overlap_level) or len(np.unique(loads[k][use])) < LEAST_ALPHAS:
            errors.append(math.nan)
            continue
        seeds = counts[use, k].astype(np.float64)
        of_spacing = spacing_error(critical, _rank(model), N, loads[k][use], seeds)
        errors.append(math.hypot(of_spacing, small_size_error(critical, _rank(model), N)))
    return np.array(errors)


def spacing_error(critical: CriticalPoint, r: int, N: float, alpha: Floats, n_seeds: Floats) -> float:
    """Largest error of alpha_overlap on theory's curve without noise.

    N^(1/3) <overlap_sq_space> = A phi_r(w) is evaluated at these alphas, with its threshold at theory's
    critical load or shifted by up to half the spacing of the alphas there, and smoothed as the cells are.

    Parameters
    ----------
    critical : CriticalPoint
        Critical point of the model.
    r : int
        p p_star.
    N : float
    alpha, n_seeds : array, shape (n,)
        Realised loads with data, in increasing order, and the number of seeds at each.

    Returns
    -------
    float
        inf if the threshold is not found between the alphas.
    """
    place = int(np.clip(np.searchsorted(alpha, critical.alpha), 1, len(alpha) - 1))
    planted = critical.alpha + _SHIFTS * (alpha[place] - alpha[place - 1])
    scale = N ** (-1 / 3) * critical.width
    curves = critical.amplitude * universal_overlap((alpha - planted[:, None]) / scale, r)
    grid = np.linspace(alpha[0], alpha[-1], _GRID)
    smoothed = curves @ local_smoother(alpha, grid, SMOOTHING * scale, n_seeds).T
    found = sign_change(grid, smoothed - critical.overlap_level)
    return float(np.abs(found - planted).max())


def small_size_error(critical: CriticalPoint, r: int, N: float) -> float:
    """Shift of alpha_overlap due to a first correction to the critical law, of relative size
    ``CORRECTION`` N^(-1/3):

        CORRECTION N^(-2/3) width phi_r(0)/phi_r'(0).
    """
    step = 1e-2
    below, here, above = universal_overlap(np.array([-step, 0.0, step]), r)
    slope = (above - below) / (2 * step)
    return float(CORRECTION * N ** (-2 / 3) * critical.width * here / slope)


def _rank(model: Model) -> int:
    return int(model.p) * model.p_star
