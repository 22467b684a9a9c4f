"""Sweeps of one model in which samples hide the teacher below a load that is planted at each size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import synthetic
import xarray as xr

from bendscape.core.quadratic.finite_size.drift_law import hiding_curve
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import asymptotics, transition

SEEDS = {30_000: 60, 100_000: 40, 300_000: 24, 1_000_000: 16, 10_000_000: 8}
LOADS = np.round(np.arange(0.76, 1.2, 0.02), 12)
KINDS = {"drift": 4.2, "no_drift": 0.31}
"""Default planted amplitudes: K, and alpha_bbp minus the constant."""


def place(model: Model, law: str, amplitude: float) -> Callable[[float], float]:
    """alpha_seen(N) of a law."""
    bbp = transition(model).alpha_bbp
    return lambda N: bbp - (amplitude / np.log(N) if law == "drift" else amplitude)


@lru_cache(maxsize=32)
def _empty(
    model: Model, seeds: tuple[tuple[int, int], ...], loads: tuple[float, ...]
) -> tuple[xr.Dataset, npt.NDArray[np.float64]]:
    """A sweep without cells, and the overlap of samples that no label hides."""
    curve, bbp = hiding_curve(model), transition(model).alpha_bbp
    below = np.interp(loads, curve.alpha, curve.overlap_sq)
    visible = [asymptotics(model, x).overlap_sq if x > bbp else y for x, y in zip(loads, below, strict=True)]
    frame = synthetic.frame((int(model.p),), (model.p_star,), (model.a,), dict(seeds), alpha=np.array(loads))
    return frame, np.array(visible)


def sweep(
    model: Model,
    seen: Callable[[float], float],
    seeds: Mapping[int, int] = SEEDS,
    *,
    overlap: str = "overlap_sq_sample",
    stretch: float = 1.0,
    spread: float = 0.15,
    loads: npt.NDArray[np.float64] = LOADS,
    entropy: int = 0,
) -> xr.Dataset:
    """A complete sweep in which a cell shows the principal-value overlap with probability exp(-kappa).

    kappa is theory's with its place moved to ``seen(N)`` and its width times ``stretch``; what is shown has a
    gamma law of relative standard deviation ``spread``; a hidden cell has no outlier."""
    curve = hiding_curve(model)
    empty, visible = _empty(model, tuple(sorted(seeds.items())), tuple(loads))
    ds = empty.copy(deep=True)
    rng = np.random.default_rng([20261122, entropy])
    for k, (N, count) in enumerate(sorted(seeds.items())):
        moved = curve.threshold(N) + (loads - seen(N)) / stretch
        shown = np.exp(-np.exp(np.minimum(curve.log_kappa(moved, N), 50.0)))
        cells = visible[:, None] * spread**2 * rng.gamma(spread**-2, 1.0, (len(loads), count))
        hidden = rng.random(cells.shape) > shown[:, None]
        values = {
            overlap: np.where(hidden, np.nan if overlap == "overlap_sq_sample" else 0.0, cells),
            "alpha_realised": loads[:, None] + np.zeros(cells.shape),
            "status": np.ones(cells.shape, np.int8),
        }
        for name, value in values.items():
            ds[name].values[0, 0, 0, :, k, :count] = value
    return synthetic.with_coverage(ds.drop_vars({"overlap_sq_space", "overlap_sq_sample"} - {overlap}))
