"""The climb with N of the load at which the overlaps of two sizes cross, from the data alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.polynomial import Polynomial

from bendscape.analysis.dataset.curves import Flags, Floats
from bendscape.analysis.dataset.models import MODEL, alpha_axis
from bendscape.analysis.estimate.collapse_fits import PRIOR, Settings
from bendscape.analysis.estimate.edge_fits import LEAST_SEEDS
from bendscape.core.quadratic.model import Model

LEAST_LOADS = 6
"""Loads that the curve of a size needs."""

_DEGREE = 3
_FARTHEST = 0.25  # error of a crossing, relative to the range of the loads, beyond which it is left out


class Climb(NamedTuple):
    """log(high/low) of the loads at which the curves of the two smallest and of the two largest sizes cross,
    with its error, statistical and that of the first two corrections to scaling."""

    model: Model
    sizes: tuple[int, int, int, int]
    low: float
    high: float
    error: float

    @property
    def value(self) -> float:
        """log(high/low): 0 as N goes to infinity for a continuous transition."""
        return math.log(self.high / self.low)


class PairLoad(NamedTuple):
    """Load at which the curves of two sizes cross, with its error, statistical and that of a first
    correction to scaling."""

    small: int
    large: int
    load: float
    error: float


class _Curve(NamedTuple):
    """log(N^(1/3) <overlap_sq_space>) of one size as a polynomial in alpha, with its covariance and range."""

    N: int
    log_Y: Polynomial
    covariance: Floats
    first: float
    last: float


class _Crossing(NamedTuple):
    load: float
    error: float
    per_correction: Floats  # by order as in ``PRIOR``, for ``Settings.correction`` = 1


def climbs(found: xr.Dataset) -> list[Climb]:
    """The climb of every model with four sizes whose curves cross.

    log Y, Y = N^(1/3) <overlap_sq_space>, is a cubic in alpha at each size. Y(N_1) = Y(N_2) at alpha_12. At a
    continuous transition all sizes cross at alpha_c, up to corrections to scaling: with
    Y = f(w) + N^(-1/3) g(w) + N^(-2/3) h(w) the crossing moves by g(0)/f(0) (N_1^(-1/3) - N_2^(-1/3)) and by
    h(0)/f(0) (N_1^(-2/3) - N_2^(-2/3)) over the slope of log Y(N_2)/Y(N_1) there, for both pairs with the
    same g(0) and h(0), of standard deviations 1/2 and 2 in units of f(0), as in the collapse. Their mean is
    taken as 0: that of the collapse comes from a comparison with theory's curve. At a discontinuous one it
    climbs beyond the crossover size.

    Parameters
    ----------
    found : xarray.Dataset
        What :func:`bendscape.analysis.findings.panels.means` returns, computed.

    Returns
    -------
    list of Climb
        Nothing enters but the exponents and those standard deviations. Both pairs have no size in common,
        so their errors are independent. A size needs ``LEAST_LOADS`` loads with ``LEAST_SEEDS`` seeds.

    Notes
    -----
    Held by ``tests/test_claims.py``. Source: this project's own.
    """
    rows = []
    for index in np.ndindex(*(found.sizes[name] for name in MODEL)):
        at = found.isel(dict(zip(MODEL, index, strict=True))).transpose("N", alpha_axis(found))
        curves = [curve for k in range(at.sizes["N"]) if (curve := _curve(at.isel(N=k))) is not None]
        if len(curves) < 4:
            continue
        ends = [curves[0], curves[1], curves[-2], curves[-1]]
        low, high = _crossing(*ends[:2]), _crossing(*ends[2:])
        if low is None or high is None:
            continue
        statistical = math.hypot(low.error / low.load, high.error / high.load)
        of_scaling = high.per_correction / high.load - low.per_correction / low.load
        error = math.hypot(statistical, *(Settings().correction * of_scaling))
        sizes = (ends[0].N, ends[1].N, ends[2].N, ends[3].N)
        model = Model(*(at[name].item() for name in MODEL))
        rows.append(Climb(model, sizes, low.load, high.load, error))
    return rows


def pair_load(at: xr.Dataset, variable: str = "overlap_sq_space") -> PairLoad | None:
    """The crossing of the two largest sizes of one model, as in :func:`climbs` but with the correction of
    order N^(-1/3) alone; None where they do not cross or have too few cells.

    Parameters
    ----------
    at : xarray.Dataset
        Means over seeds of one model over (N, alpha).
    variable : str
        The overlap whose curves cross.
    """
    curves = [_curve(at.isel(N=k), variable) for k in range(at.sizes["N"])]
    known = [curve for curve in curves if curve is not None]
    if len(known) < 2:
        return None
    small, large = known[-2:]
    found = _crossing(small, large)
    if found is None:
        return None
    error = math.hypot(found.error, Settings().correction * float(found.per_correction[1]))
    return PairLoad(small.N, large.N, found.load, error)


def _curve(at: xr.Dataset, variable: str = "overlap_sq_space") -> _Curve | None:
    """The curve of one size; its relative errors are those of the mean scatter of its cells."""
    mean, error = at[variable].values, at[f"{variable}_error"].values
    n = at[f"{variable}_n_seeds"].values.astype(np.float64)
    use: Flags = (n >= LEAST_SEEDS) & (error > 0) & (mean > 0)
    if use.sum() < LEAST_LOADS:
        return None
    alpha, N = at["alpha_realised"].values[use], int(at["N"])
    scatter = math.sqrt(float(((error[use] / mean[use]) ** 2 * n[use]).mean()))
    weight = np.sqrt(n[use]) / scatter
    log_Y = np.log(mean[use]) + math.log(N) / 3
    fit = Polynomial.fit(alpha, log_Y, _DEGREE, w=weight)
    powers = np.vander(fit.mapparms()[0] + fit.mapparms()[1] * alpha, _DEGREE + 1, increasing=True)
    inverse = np.linalg.inv(powers.T @ (weight[:, None] ** 2 * powers))
    return _Curve(N, fit, np.asarray(inverse, np.float64), float(alpha.min()), float(alpha.max()))


def _crossing(small: _Curve, large: _Curve) -> _Crossing | None:
    """Where the larger size overtakes the smaller, if that happens once."""
    first, last = max(small.first, large.first), min(small.last, large.last)
    if not first < last:
        return None
    grid = np.linspace(first, last, 401)
    ratio = large.log_Y(grid) - small.log_Y(grid)
    up = np.flatnonzero((ratio[:-1] < 0) & (ratio[1:] >= 0))
    if len(up) != 1:
        return None
    k = int(up[0])
    load = float(grid[k] - ratio[k] * (grid[1] - grid[0]) / (ratio[k + 1] - ratio[k]))
    slope = float(large.log_Y.deriv()(load) - small.log_Y.deriv()(load))
    if not slope > 0:
        return None
    variance = sum(_variance(curve, load) for curve in (small, large))
    error = math.sqrt(variance) / slope
    if error > _FARTHEST * (last - first):
        return None
    moves = [size * (small.N ** (-k / 3) - large.N ** (-k / 3)) for k, size in enumerate(PRIOR)]
    return _Crossing(load, error, np.array(moves) / slope)


def _variance(curve: _Curve, load: float) -> float:
    shift, scale = curve.log_Y.mapparms()
    powers = np.vander([shift + scale * load], _DEGREE + 1, increasing=True)[0]
    return float(powers @ curve.covariance @ powers)
