"""Whether numbers have the law they should: two samples of rows, and data that were revealed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]

COMBINATIONS = 8


def smallest_p_value(first: FloatArray, second: FloatArray) -> float:
    """Smallest p-value of all tests times their number: below a level with at most that probability.

    Welch's and Kolmogorov-Smirnov's test on each column, the latter on combinations of whitened columns too.
    """
    both = np.concatenate([first, second])
    scales, axes = np.linalg.eigh(np.cov(both.T))
    kept = scales > 1e-10 * scales[-1]  # columns may coincide
    white = (axes[:, kept] / np.sqrt(scales[kept])) @ np.random.default_rng(0).standard_normal(
        (int(kept.sum()), COMBINATIONS)
    )
    found = [float(stats.ttest_ind(first, second, equal_var=False).pvalue.min())]
    for a, b in ((first, second), (first @ white, second @ white)):
        found += [stats.ks_2samp(x, z, method="asymp").pvalue for x, z in zip(a.T, b.T, strict=True)]
    return min(found) * (2 * first.shape[1] + COMBINATIONS)


def data_ratios(images: FloatArray, known: int, c: FloatArray, N: int) -> FloatArray:
    """Three sums over data of which everything is revealed, over what they are on average given the labels.

    X_perp, the N - known Gaussian columns beyond those of the weights, is independent of the labels and of
    the images Z_w of the weights. With n = N - known, S = X_perp X_perp^T and any C = diag(c) made of labels,
    E tr S = n M, E tr CSCS = n (n + 1) tr C^2 + n (tr C)^2, E tr Z_w^T C S C Z_w = n tr Z_w^T C^2 Z_w.
    """
    first, rest, n = images[:, :known], images[:, known:], N - known
    weighted = rest.T @ (c[:, None] * rest)
    return np.array(
        [
            np.vdot(rest, rest) / (n * len(rest)),
            np.vdot(weighted, weighted) / (n * (n + 1) * (c @ c) + n * c.sum() ** 2),
            ((rest.T @ (c[:, None] * first)) ** 2).sum() / (n * ((c[:, None] * first) ** 2).sum()),
        ]
    )
