"""Two laws for the approach of the lowest eigenvalue to the edge, fitted to a few sizes, and the choice
between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import betainc, chdtrc, chdtri, digamma, ndtri

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.estimate.student import ONE_SIGMA, Means, weighted

LAWS: Mapping[str, Callable[[Floats], Floats]] = {
    "n_two_thirds": lambda N: N ** (-2 / 3),
    "one_over_log": lambda N: 1 / np.log(N),
}
"""Decrease of the distance to the edge with N: at a sharp edge, and in an exponentially thin tail."""

OUTCOMES: Mapping[str, str] = {
    "not_applicable": "alpha is not below the threshold that these sizes show",
    "not_enough_data": "too few sizes with enough seeds",
    "cannot_tell": "both laws fit, or neither is enough better than the other",
    "n_two_thirds": "lambda_minus + c N^(-2/3)",
    "one_over_log": "lambda_minus + c / log N",
    "neither": "neither law fits",
}
"""Outcomes for the law, in words; stored as int8, the index in this order."""

LEAST_SEEDS = 6
LEAST_DOF = 2


class LawFit(NamedTuple):
    """One law fitted by weighted least squares: its amplitude, and the fitted shift of lambda_minus."""

    c: float
    c_error: float
    shift: float
    shift_error: float
    chi2: float
    p_value: float


def fit_law(
    name: str,
    N: Floats,
    gap: Floats,
    error: Floats,
    free_edge: bool = False,
    laws: Mapping[str, Callable[[Floats], Floats]] = LAWS,
) -> LawFit:
    """Fit gap(N) = c x(N), or shift + c x(N), with x of ``laws``.

    Parameters
    ----------
    name : str
        One of ``laws``.
    N, gap, error : array, shape (n,)
        Sizes, distance of the statistic from lambda_minus, its standard error.
    free_edge : bool
        Fit the shift too.
    laws : mapping of str to callable
        Decrease of the gap with N; by default the laws of the edge.

    Returns
    -------
    LawFit
        Errors assume known variances; the p-value is that of chi^2 with n - 1 or n - 2 degrees of freedom.
        ``shift`` is 0 if it is not fitted.
    """
    columns = [laws[name](N)] + [np.ones_like(N)] * free_edge
    design = np.column_stack(columns) / error[:, None]
    scale = np.linalg.norm(design, axis=0)
    Q, R = np.linalg.qr(design / scale)
    inverse = np.linalg.inv(R)
    found = inverse @ (Q.T @ (gap / error)) / scale
    errors = np.linalg.norm(inverse, axis=1) / scale
    chi2 = float(np.sum((gap / error - design @ found) ** 2))
    shift, shift_error = (float(found[1]), float(errors[1])) if free_edge else (0.0, 0.0)
    p_value = float(chdtrc(len(N) - len(found), chi2))
    return LawFit(float(found[0]), float(errors[0]), shift, shift_error, chi2, p_value)


def smooth_errors(N: Floats, n_seeds: Floats, cells: Means) -> Floats:
    """Standard errors of the means, from a power law in N for the variance of one cell.

    The law is a straight line through log(variance n_seeds) against log N, weighted by the degrees of freedom
    and scaled to be right on average; the errors are :func:`widened` by its degrees of freedom. A single size
    keeps its own error.

    Notes
    -----
    With separately measured errors, sizes that are low by chance would get more weight where cells are
    skewed, and sums of squares of few seeds would often be too small.
    """
    variance, dof = cells.variance * n_seeds, cells.dof
    slope = min(len(N) - 1, 1)
    design = np.vander(np.log(N) - np.log(N).mean(), slope + 1) * np.sqrt(dof)[:, None]
    log = np.log(variance) - digamma(dof / 2) + np.log(dof / 2)
    law = np.exp(design @ np.linalg.lstsq(design, log * np.sqrt(dof))[0] / np.sqrt(dof))
    law *= (dof * variance / law).sum() / dof.sum()
    return np.asarray(widened(1.0, int(dof.sum()) - slope) * np.sqrt(law / n_seeds))


def amplitude(
    name: str, N: Floats, n_seeds: Floats, cells: Means, free_edge: bool, level: float
) -> dict[str, float]:
    """Amplitude of a law with its interval, with weights that do not depend on the data.

    c, or c and the shift, by least squares with weights N n_seeds, since cells of one size have a variance of
    order 1/N. Errors come from the variances measured at each size and do not assume this.

    Returns
    -------
    dict
        ``c``, ``c_low``, ``c_high`` at the level, by
        :meth:`bendscape.analysis.estimate.student.Sums.t_limits`; ``c_error``, half the width of the interval
        at 68 %; ``shift`` and ``shift_error``, 0 if it is not fitted.
    """
    design = np.column_stack([LAWS[name](N)] + [np.ones_like(N)] * free_edge)
    root = np.sqrt(N * n_seeds)
    found = weighted(np.asarray(np.linalg.pinv(design * root[:, None]) * root, np.float64), cells)
    error = np.sqrt(found.variance)
    (lower, upper), (left, right) = found.t_limits(level), found.t_limits(ONE_SIGMA)
    low, high, errors = found.value - error * upper, found.value - error * lower, error * (right - left) / 2
    numbers = {"c": found.value[0], "c_error": errors[0], "c_low": low[0], "c_high": high[0]}
    shift = (
        {"shift": found.value[1], "shift_error": errors[1]}
        if free_edge
        else {"shift": 0.0, "shift_error": 0.0}
    )
    return {part: float(number) for part, number in (numbers | shift).items()}


def chosen_law(fits: Mapping[str, LawFit], wrong: float, misfit: float) -> str:
    """Which of two laws the fits support: ``cannot_tell``, ``neither`` or a name in ``fits``.

    A law fits if its p-value is at least ``misfit`` and its amplitude is not negative by more than
    ndtri(1 - misfit) of its errors. If none fits the result is neither. The law with the smaller chi^2 is
    chosen if it fits and chi^2 differs by at least the 1 - ``wrong`` quantile of chi^2 with one degree of
    freedom.

    Notes
    -----
    With normal errors of known size the wrong law is chosen with probability at most ``wrong``, whatever c,
    the sizes and the errors: in the plane spanned by both laws the data are c u + noise, with u the true law,
    and the wrong law wins in two convex sets, each at distance sqrt(quantile) from the line along u.
    """
    lowest = -float(ndtri(1 - misfit))
    fitting = [name for name, fit in fits.items() if fit.p_value >= misfit and fit.c >= lowest * fit.c_error]
    if not fitting:
        return "neither"
    best, other = sorted(fits, key=lambda name: fits[name].chi2)
    apart = fits[other].chi2 - fits[best].chi2 >= float(chdtri(1, wrong))
    return best if apart and best in fitting else "cannot_tell"


def mean_error(values: Floats) -> float:
    """Standard error of the mean: the limit of many bootstrap resamplings, times (n/(n - 1))^(1/2)."""
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def median_error(values: Floats) -> float:
    """Standard error of the median: the bootstrap limit of infinitely many resamplings of the n values.

    The median of a resampling is the k-th value with probability I_{k/n}(h, h) - I_{(k-1)/n}(h, h), h =
    (n + 1)/2 and I the incomplete beta function; for even n this is the median between the two middle ones.

    Notes
    -----
    Source: Maritz and Jarrett, J. Am. Stat. Assoc. 73 (1978) 194; Harrell and Davis for even n.
    """
    n = len(values)
    share = np.diff(betainc((n + 1) / 2, (n + 1) / 2, np.arange(n + 1) / n))
    ordered = np.sort(values)
    return math.sqrt(float(share @ (ordered - share @ ordered) ** 2))


def widened(error: float, dof: int) -> float:
    """Root mean square of the error, relative to which an estimate with an estimated error scatters like one
    with a known error: Student's t has variance dof/(dof - 2)."""
    return error * math.sqrt(dof / (dof - 2))
