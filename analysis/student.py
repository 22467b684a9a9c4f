"""Student's t of weighted sums of means over few and skewed cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

from bendscape.analysis.curves import Flags, Floats

ONE_SIGMA = float(2 * ndtr(1.0) - 1)
"""Level of the interval whose half width is the standard error."""

_UNSEEN = 8.0  # of the skewness, in units of what is seen, times the degrees of freedom


class Means(NamedTuple):
    """Means over independent cells, with the variance and the third central moment of each mean and the
    degrees of freedom of the variance."""

    mean: Floats
    variance: Floats
    third: Floats
    freedom: Floats


class Sums(NamedTuple):
    """Weighted sums of independent means: value, variance, third central moment, and the sum of the squared
    shares of the variance over their degrees of freedom."""

    value: Floats
    variance: Floats
    third: Floats
    squares: Floats

    def minus(self, other: Sums) -> Sums:
        """The difference of independent sums."""
        return Sums(
            self.value - other.value,
            self.variance + other.variance,
            self.third - other.third,
            self.squares + other.squares,
        )

    def t_limits(self, level: float) -> tuple[Floats, Floats]:
        """Between which t = (value - expectation)/variance^(1/2) lies with probability ``level`` or more.

        With q the quantile of Student's law with nu = variance^2/squares degrees of freedom and g = (1 +
        8/nu) third/variance^(3/2),

            lower = min(-q, T(-q)),    upper = max(q, T(q)),    T(x) = (3/g) [(1 + g (x - g/6))^(1/3) - 1].

        Notes
        -----
        Cells with a tail to the right have g > 0 and t a tail to the left, longer than Student's law knows;
        the shorter tail is left as it was, since g is known from few cells and too low on average. Source: nu
        of Satterthwaite, Biometrics Bull. 2 (1946) 110; T inverts the cubic transformation of Hall, J. R.
        Stat. Soc. B 54 (1992) 221. ``benchmarks/intervals.py`` measures the coverage.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.where(self.squares > 0, self.variance**2 / self.squares, 1e9)
            g = np.where(self.variance > 0, self.third / self.variance**1.5, 0.0) * (1 + _UNSEEN / freedom)
            q = stdtrit(freedom, 0.5 + level / 2)
            lower, upper = (
                np.where(np.abs(g) > 1e-6, 3 / g * (np.cbrt(1 + g * (x - g / 6)) - 1), x) for x in (-q, q)
            )
        return np.minimum(-q, lower), np.maximum(q, upper)


def means(values: Floats, counted: Flags) -> Means:
    """Means over the cells that count, at least 3 in every row: (n, seed) -> (n,); without bias, moments of
    the means included."""
    n = counted.sum(axis=-1).astype(np.float64)
    mean = np.where(counted, values, 0.0).sum(axis=-1) / n
    off = np.where(counted, values - mean[..., None], 0.0)
    third = (off**3).sum(axis=-1) / (n * (n - 1) * (n - 2))
    return Means(mean, (off**2).sum(axis=-1) / (n * (n - 1)), third, n - 1)


def third_moment(values: Floats) -> float:
    """Third central moment of the mean of independent values, without bias; at least 3."""
    n = len(values)
    return float(((values - values.mean()) ** 3).sum()) / (n * (n - 1) * (n - 2))


def weighted(weights: Floats, of: Means) -> Sums:
    """Sums of means by rows of weights, (k, n) -> (k,). The weights must not depend on the cells: means that
    are low by chance have low variances where cells are skewed, and weights by these are biased."""
    shares = weights**2 * of.variance
    return Sums(
        weights @ of.mean,
        shares.sum(axis=-1),
        (weights**3) @ of.third,
        (shares**2 / of.freedom).sum(axis=-1),
    )
