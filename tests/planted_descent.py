"""Descents with a planted answer: when the direction is lost, which cells recover, how the overlap grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from scipy.special import expit

TIMES = np.array([0.1, 0.3, 1.0, 3.0, 10.0, 30.0])


def descents(
    seeds: Mapping[int, int],
    alpha: np.ndarray,
    rng: np.random.Generator,
    *,
    recovery: Callable[[float], float],
    short: float = 2.8,
    algorithmic: Callable[[float], float] = lambda N: 4.1,
    median_loss: np.ndarray | None = None,
    kept_when_free: bool = False,
) -> xr.Dataset:
    """A sweep at p = p_star = 1, free and confined, on the axes of a store.

    A cell has the direction from the start with a probability that passes one half at ``short``. Of these it
    is kept for ever with one that passes one half at ``algorithmic(N)``, so that the direction is kept by
    half of all cells there; otherwise it is lost after a lognormal time, with a median for every load if
    ``median_loss`` is given. Free cells recover with a
    probability that passes one half at ``recovery(N)``.
    """
    sizes, n = list(seeds), max(seeds.values())
    shape = (1, 1, 1, 2, len(alpha), len(sizes), n)
    dims = ("p", "p_star", "a", "dynamics", "alpha", "N", "seed")
    load = np.broadcast_to(alpha[:, None, None], shape)
    N = np.broadcast_to(np.array(sizes)[:, None], shape)
    free = np.broadcast_to(np.array([False, True])[:, None, None, None], shape)
    at_recovery, at_threshold = (
        np.broadcast_to(np.array([of(size) for size in sizes])[:, None], shape)
        for of in (recovery, algorithmic)
    )
    u = rng.uniform(size=shape)
    seen = u < expit((load - short) / 0.1)
    keeps = u < (1.0 if kept_when_free else expit((load - at_threshold) / 0.1))
    typical = np.exp(0.5 + 2 * (load - 3.5)) if median_loss is None else median_loss[:, None, None]
    lost = np.where(keeps, np.inf, typical * np.exp(0.8 * rng.normal(size=shape)))
    recovers = free & (rng.uniform(size=shape) < expit((load - at_recovery) / 0.15))
    when = np.where(recovers, 4 * np.exp(0.3 * rng.normal(size=shape)), np.nan)
    ended = when[..., None] <= TIMES
    overlap = rng.chisquare(1, shape)[..., None] * (1 + 8 * np.minimum(TIMES, 3.0)) / N[..., None]
    C = np.where(ended, 0.99, np.where(free[..., None], np.minimum(overlap, 0.09), 0.0))
    has = seen[..., None] & (lost[..., None] > TIMES)
    done = np.arange(n) < np.array([seeds[size] for size in sizes])[:, None]
    along = {
        "alignment": C,
        "loss": np.where(ended, 1e-6, 1.2),
        "edge_sample": np.full(C.shape, -1.0),
        "outlier_sample": np.where(has & ~ended, -1.5, np.nan),
        "overlap_sq_sample": np.where(has & ~ended, 0.3, np.nan),
    }
    roles = {"alpha": "curve", "N": "size", "seed": "seed"}
    coords = {
        "p": [1],
        "p_star": [1],
        "a": [0.01],
        "dynamics": ["confined", "free"],
        "alpha": alpha,
        "N": sizes,
        "seed": np.arange(n),
    }
    return xr.Dataset(
        {name: ((*dims, "time"), values) for name, values in along.items()}
        | {
            "time_recovered": (dims, np.where(when <= TIMES[-1], when, np.nan)),
            "recovered": (dims, (when <= TIMES[-1]).astype(float)),
            "status": (dims, np.broadcast_to(done, shape).astype(np.int8)),
        },
        {name: (name, values, {"role": roles.get(name, "model")}) for name, values in coords.items()}
        | {"time": TIMES},
        {"name": "planted"},
    )
