"""Sweeps of one model with one threshold planted for every estimator and cells of a chosen law, to measure
coverage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import synthetic
import xarray as xr
from planted_collapse import corrections
from scipy.stats import norm

from bendscape.analysis.estimate.collapse_points import universal_overlap
from bendscape.analysis.estimate.critical import critical_point
from bendscape.core.quadratic.model import Model

Floats = npt.NDArray[np.float64]

_QUANTILES = (np.arange(20000) + 0.5) / 20000
CELLS: Mapping[str, Callable[[Floats], Floats]] = {
    "normal": lambda u: np.asarray(norm.ppf(u), np.float64),
    "exponential": lambda u: -1 - np.log1p(-u),
    "lognormal": lambda u: np.asarray((np.exp(norm.ppf(u) - 0.5) - 1) / np.sqrt(np.e - 1), np.float64),
}
"""Laws of cells by their inverse distribution function: mean 0, variance 1; the lognormal one has a skewness
of 6.2, its logarithm a standard deviation of 1."""
_SPREAD = {"normal": 0.3, "exponential": 1.0, "lognormal": float(np.sqrt(np.e - 1))}
"""Relative standard deviation of overlaps: those of sampled Hessians have about 1."""


def noise(cells: str, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Independent cells of mean 0 and variance 1."""
    return CELLS[cells](rng.random(shape))


@lru_cache(maxsize=8)
def _scales(cells: str) -> tuple[Floats, Floats]:
    """Means of min(1, s (1 + spread x)) over a law of cells against s."""
    scale = np.geomspace(1e-6, 1e3, 1500)
    factor = np.maximum(1 + _SPREAD[cells] * CELLS[cells](_QUANTILES), 0.0)
    return np.array([np.minimum(1.0, s * factor).mean() for s in scale]), scale


def overlaps(mean: Floats, cells: str, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Cells in [0, 1] with exactly these means: those of a law, cut at 1 and the scale raised to make up."""
    means, scales = _scales(cells)
    scale = np.interp(mean, means, scales)
    return np.clip(scale * (1 + _SPREAD[cells] * noise(cells, shape, rng)), 0.0, 1.0)


@lru_cache(maxsize=16)
def _frame(model: Model, seeds: tuple[tuple[int, int], ...], alpha: tuple[float, ...]) -> xr.Dataset:
    return synthetic.frame((int(model.p),), (model.p_star,), (model.a,), dict(seeds), alpha=np.array(alpha))


def _empty(model: Model, seeds: Mapping[int, int], alpha: Floats) -> xr.Dataset:
    return _frame(model, tuple(sorted(seeds.items())), tuple(alpha.tolist())).copy(deep=True)


def threshold_sweep(
    model: Model,
    seeds: Mapping[int, int],
    alpha: Floats,
    *,
    cells: str = "exponential",
    correction: Sequence[float] = (),
    entropy: int = 0,
) -> xr.Dataset:
    """A complete sweep in which every curve crosses at theory's ``critical_point(model).alpha``, alpha_c.

    With x = N^(-1/3) A phi_r(w), w = (alpha - alpha_c) N^(1/3)/width, and the ``corrections`` of
    planted_collapse.py, the mean of overlap_sq_space is x (1 + x^4)^(-1/4): the scaling law where x is small,
    below 1 everywhere. Both mean gaps are 0.3 (alpha - alpha_c), with noise of size N^(-1/2) that eigval_min
    shares with edge_sample. alpha_realised is alpha itself."""
    critical = critical_point(model)
    ds = _empty(model, seeds, alpha)
    rng = np.random.default_rng([20261128, entropy])
    edge, off = ds["lambda_minus"].values[0, 0, 0, :, None], (alpha - critical.alpha)[:, None]
    for k, (N, count) in enumerate(sorted(seeds.items())):
        shape = (len(alpha), count)
        w = off * N ** (1 / 3) / critical.width
        more = critical.overlap_level * corrections(w[:, 0], N, correction)[:, None]
        curve = critical.amplitude * universal_overlap(w, int(model.p) * model.p_star)
        x = N ** (-1 / 3) * np.maximum(curve + more, 0.02 * curve)
        shared, own = (N**-0.5 * noise(cells, shape, rng) for _ in range(2))
        values = {
            "overlap_sq_space": overlaps(x * (1 + x**4) ** -0.25, cells, shape, rng),
            "eigval_min": edge - 0.3 * off + shared + 0.3 * own,
            "edge_sample": edge + shared,
            "alpha_realised": alpha[:, None] + np.zeros(shape),
            "status": np.ones(shape, np.int8),
        }
        for name, value in values.items():
            ds[name].values[0, 0, 0, :, k, :count] = value
    return synthetic.with_coverage(ds)


def edge_sweep(
    model: Model,
    seeds: Mapping[int, int],
    alpha: Floats,
    distance: Callable[[Floats], Floats],
    *,
    cells: str = "normal",
    size_of_noise: float = 2.5,
    entropy: int = 0,
) -> xr.Dataset:
    """A complete sweep with <eigval_min> = lambda_minus + distance(N) at alpha, and noise of standard
    deviation size_of_noise N^(-1/2); no alpha_realised."""
    ds = _empty(model, seeds, alpha)
    rng = np.random.default_rng([20261128, entropy])
    edge = ds["lambda_minus"].values[0, 0, 0, :, None]
    for k, (N, count) in enumerate(sorted(seeds.items())):
        shape = (len(alpha), count)
        values = {
            "eigval_min": edge
            + distance(np.array(float(N)))
            + size_of_noise * N**-0.5 * noise(cells, shape, rng),
            "edge_sample": np.broadcast_to(edge, shape),
            "status": np.ones(shape, np.int8),
        }
        for name, value in values.items():
            ds[name].values[0, 0, 0, :, k, :count] = value
    return synthetic.with_coverage(ds.drop_vars("alpha_realised"))
