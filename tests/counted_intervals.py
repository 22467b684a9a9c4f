"""How often intervals hold the truth, counted on many planted samples without the passes over a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

import numpy as np
import numpy.typing as npt
import planted_coverage

from bendscape.analysis.dataset.curves import local_smoother
from bendscape.analysis.estimate import crossings
from bendscape.analysis.estimate.collapse_points import universal_overlap
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.crossings import Crossing, Curve, crossing, mean_curve
from bendscape.analysis.estimate.edge_fits import LAWS, amplitude
from bendscape.analysis.estimate.estimators import SMOOTHING
from bendscape.analysis.estimate.student import means
from bendscape.core.quadratic.model import Model

Floats = npt.NDArray[np.float64]

MODEL = Model(1, 1, 0.7)
TRUTH = critical_point(MODEL).alpha
AMPLITUDE = 1.5
"""Of the law of the edge that is planted."""


class Count(NamedTuple):
    """Samples, those with an interval of two ends, intervals that hold the truth among them, and samples of
    which something said is wrong: an end beyond the truth, or a range that holds it and is said not to."""

    samples: int
    estimated: int
    held: int
    wrong: int
    width: float


ESTIMATORS = ("alpha_overlap", "alpha_pair", "alpha_gap", "alpha_gap_sample")


def threshold_counts(
    cells: str,
    seeds: int,
    alpha: Floats,
    size: int,
    samples: int,
    *,
    names: tuple[str, ...] = ESTIMATORS,
    entropy: int = 0,
) -> dict[str, Count]:
    """Counts of the estimators of a threshold at one size, for alpha_pair at it and at twice the size.

    Means and noise are those of :func:`planted_coverage.threshold_sweep`."""
    with mock.patch.object(crossings, "local_smoother", _remembered()):
        found = list(_samples(cells, seeds, alpha, size, samples, names, entropy))
    return {name: _counted([sample[name] for sample in found]) for name in names}


def _samples(
    cells: str, seeds: int, alpha: Floats, size: int, samples: int, names: tuple[str, ...], entropy: int
) -> Iterator[dict[str, Crossing]]:
    rng = np.random.default_rng([20261128, seeds, size, entropy])
    shape, critical = (len(alpha), seeds), critical_point(MODEL)
    counted, off = np.ones(shape, bool), (alpha - TRUTH)[:, None]
    width = {N: SMOOTHING * critical.width * N ** (-1 / 3) for N in (size, 2 * size)}
    mean = {}
    for N in width:
        x = N ** (-1 / 3) * critical.amplitude * universal_overlap(off * N ** (1 / 3) / critical.width, 1)
        mean[N] = x * (1 + x**4) ** -0.25
    for _ in range(samples):
        here, larger = (
            mean_curve(
                alpha, N ** (1 / 3) * planted_coverage.overlaps(at, cells, shape, rng), counted, width[N]
            )
            for N, at in mean.items()
        )
        shared, own = (size**-0.5 * planted_coverage.noise(cells, shape, rng) for _ in range(2))
        gap_sample = 0.3 * off - 0.3 * own
        asked: dict[str, tuple[Curve, Curve | float]] = {
            "alpha_overlap": (here, critical.overlap_level),
            "alpha_pair": (larger, here),
            "alpha_gap": (mean_curve(alpha, gap_sample - shared, counted, width[size]), 0.0),
            "alpha_gap_sample": (mean_curve(alpha, gap_sample, counted, width[size]), 0.0),
        }
        yield {name: crossing(*asked[name], 0.95) for name in names}


def _remembered() -> mock.Mock:
    """The smoother, computed once for the same alphas."""
    known: dict[tuple[bytes, ...], Floats] = {}

    def remembered(x: Floats, grid: Floats, bandwidth: float, weights: Floats) -> Floats:
        key = (x.tobytes(), grid.tobytes(), np.float64(bandwidth).tobytes(), weights.tobytes())
        if key not in known:
            known[key] = local_smoother(x, grid, bandwidth, weights)
        return known[key]

    return mock.Mock(side_effect=remembered)


def _counted(ats: list[Crossing]) -> Count:
    good = [at for at in ats if at.flag == "estimated"]
    wrong = sum(
        at.low > TRUTH
        or at.high < TRUTH
        or (at.flag == "above_the_alpha_range" and at.last > TRUTH)
        or (at.flag == "below_the_alpha_range" and at.first < TRUTH)
        for at in ats
    )
    held = sum(at.low <= TRUTH <= at.high for at in good)
    width = float(np.median([at.high - at.low for at in good])) if good else np.nan
    return Count(len(ats), len(good), held, wrong, width)


def edge_count(
    cells: str,
    seeds: int,
    sizes: tuple[int, ...],
    samples: int,
    *,
    law: str = "n_two_thirds",
    slope: float = 0.5,
    entropy: int = 0,
) -> Count:
    """Counts of the amplitude of a law of the edge, with noise of standard deviation 2.5 N^(-slope)."""
    N, n = np.array(sizes, np.float64), np.full(len(sizes), float(seeds))
    rng = np.random.default_rng([20261128, seeds, len(sizes), entropy])
    noise = 2.5 * N[:, None] ** -slope * planted_coverage.noise(cells, (samples, len(N), seeds), rng)
    gap, counted = AMPLITUDE * LAWS[law](N)[:, None] + noise, np.ones((len(N), seeds), bool)
    parts = [amplitude(law, N, n, means(of, counted), False, 0.95) for of in gap]
    low, high = (np.array([part[f"c_{end}"] for part in parts]) for end in ("low", "high"))
    held = int(((low <= AMPLITUDE) & (high >= AMPLITUDE)).sum())
    return Count(samples, samples, held, samples - held, float(np.median(high - low)))
