"""Means with less noise: what a cell's own labels predict is subtracted from what was measured on it.

Predictions cost a hundredth of a measurement or less, so their expectation can be estimated from many more
cells than were measured. For a measured quantity that follows its prediction, only the remainder has to be
averaged over the measured cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.sampling.drawn_labels import DrawnLabels

FloatArray = npt.NDArray[np.float64]

_SAME = 1e-10  # singular values below this, relative to the largest, are treated as zero
_FEWEST = 2.5  # least number of cells that must carry a control, n (E d^2)^2/E d^4
_TINY = np.finfo(np.float64).tiny
_ALONE = 1e-9  # 1 - leverage below this: without this cell a direction is lost


class Controlled(NamedTuple):
    """Mean of a measured quantity, with and without control variates.

    Parameters
    ----------
    mean, error : float
        Estimate of the expectation, without bias from the slopes at any number of cells, and its standard
        error.
    plain_mean, plain_error : float
        The same from the measured values alone.
    coefficients : array, shape (k,)
        How much the measured value follows each control.
    variance_ratio, variance_ratio_error : float
        (plain_error/error)^2, the factor by which the variance is reduced, and its standard error by the
        jackknife.
    overfit : float
        What the coefficients fitted on all cells would add to the mean: the bias that leaving each cell out
        of its own coefficients removes.
    dof : int
        Degrees of freedom of ``error``.
    """

    mean: float
    error: float
    plain_mean: float
    plain_error: float
    coefficients: FloatArray
    variance_ratio: float
    variance_ratio_error: float
    overfit: float
    dof: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Central confidence interval of the expectation, by Student's t."""
        half = self.error * float(stdtrit(self.dof, (1 + level) / 2))
        return self.mean - half, self.mean + half


def label_controls(cells: Iterable[DrawnLabels]) -> FloatArray:
    """Controls that every cell has: the lowest point min(edge, outlier), and the overlap m^2, 0 without an
    outlier.

    Both are continuous in the labels where the outlier meets the edge. Both are functions of the labels
    alone, whose expectation the extra draws give, so filling in the values of an absent outlier introduces no
    bias.

    Parameters
    ----------
    cells : iterable of DrawnLabels
        For measured cells, or from
        :func:`bendscape.core.quadratic.sampling.drawn_labels.sample_drawn_labels`.

    Returns
    -------
    array, shape (cells, 2)
        Lowest point in the units of H, and overlap in [0, 1].

    Notes
    -----
    Held by ``tests/test_control.py``.
    """
    numbers = np.array([tuple(cell) for cell in cells], dtype=np.float64).reshape(-1, 3)
    return np.column_stack([np.fmin(numbers[:, 0], numbers[:, 1]), np.nan_to_num(numbers[:, 2])])


def controlled_mean(
    values: npt.ArrayLike,
    controls: npt.ArrayLike,
    *,
    extra: npt.ArrayLike | None = None,
    expected: npt.ArrayLike | None = None,
) -> Controlled:
    """Mean of measured values f, regressed on controls c whose expectation is known or drawn cheaply.

    With n measured cells, m extra draws of mean c', w = m/(n + m), and b_i the least-squares slopes of f on c
    over all cells but i,

        mean = (1/n) sum_i [f_i - w b_i (c_i - c')] = sum_i h_i f_i,
        error^2 = s_e^2/n + (s_f^2 - s_e^2)/(n + m),    s_e^2 = n sum_i h_i^2 e_i^2/(1 - l_i),

    s_f^2 the variance of f, e the residuals and l the leverages of the regression. At large n this is s_f^2
    [(1 - R^2)/n + R^2/(n + m)]: the weight w takes the mean of c from all n + m cells.

    Parameters
    ----------
    values : array, shape (n,)
        Measured values, n >= k + 3; finite.
    controls : array, shape (n,) or (n, k)
        Controls of the same cells, finite.
    extra : array, shape (m,) or (m, k), optional
        Controls of other cells, independent of the measured ones and of the same law.
    expected : float or array, shape (k,), optional
        Their exact expectation, instead of ``extra``: m = inf.

    Returns
    -------
    Controlled
        In the units of ``values``.

    Raises
    ------
    ParameterError
        A number is not finite, the shapes do not match, there are fewer than k + 3 cells, or not exactly one
        of ``extra`` and ``expected`` is given.

    Notes
    -----
    Unbiased for any joint law and any n, because b_i depends neither on c_i nor on c': slopes along a
    direction that is absent without cell i are 0. A control that too few of n cells would carry, n (E
    d^2)^2/E d^4 < 2.5 with d the deviations of the extra draws, is ignored: a slope from so few cells makes
    the mean up to ten times noisier than the plain one. The extra draws decide this; where the decision could
    go either way the bias is at most |b| sd(c)/(2 m^(1/2)), elsewhere there is none. With ``expected`` every
    control is used.

    error^2 is unbiased where f is linear in c with noise of one variance, and holds to leading order in 1/n
    otherwise. Limits: the plain mean where f does not follow c; controls that are constant or repeat others
    are ignored. The interval's coverage and the unbiasedness are held by ``tests/test_control.py``. Source:
    regression and two-phase sampling of the textbooks (Cochran, Sampling Techniques; Lavenberg and Welch,
    Management Science 27 (1981) 322); leaving each cell out of its slopes is this project's own.
    """
    f, c = np.asarray(values, dtype=np.float64), _columns("controls", controls)
    if f.ndim != 1 or not np.isfinite(f).all():
        raise ParameterError("values", values, "a one-dimensional array of finite numbers")
    if len(c) != len(f):
        raise ParameterError("controls", len(c), f"as many as the values, {len(f)}")
    n, k = c.shape
    if n < k + 3:
        raise ParameterError("values", n, f"at least {k + 3} with {k} controls", "measure more cells")
    if extra is not None and expected is None:
        name, drawn = "extra", _columns("extra", extra)
    elif expected is not None and extra is None:
        name, drawn = "expected", _columns("expected", np.atleast_2d(expected))
    else:
        raise ParameterError("extra", extra, "given if and only if expected is not given")
    if drawn.shape[1] != k or len(drawn) == 0:
        raise ParameterError(name, drawn.shape[1], f"a non-empty array with {k} columns, like controls")
    m = len(drawn) if expected is None else math.inf
    weight, centre = 1 / (1 + n / m), drawn.mean(axis=0)
    if expected is None:  # a constant control carries no information
        carried = _carriers(drawn, n) >= _FEWEST
        c, centre = np.where(carried, c, 0.0), np.where(carried, centre, 0.0)

    Q, to_slopes = _directions(c)
    leverage = 1 / n + (Q**2).sum(axis=1)
    h = (1 - weight * _subtracted(c, centre, leverage)) / n
    mean, coefficients = float(h @ f), to_slopes @ (Q.T @ f)

    centred = f - f.mean()
    residual = centred - Q @ (Q.T @ centred)
    kept = np.maximum(1 - leverage, _ALONE)
    total, rest = centred**2 / (1 - 1 / n), (h * residual) ** 2 / kept

    def log_variances(total: FloatArray, rest: FloatArray) -> tuple[FloatArray, FloatArray]:
        plain = total / n**2
        with np.errstate(divide="ignore"):
            return np.log(plain), np.log(rest + np.maximum(plain - rest, 0.0) / (1 + m / n))

    plain, controlled = log_variances(total.sum(), rest.sum())
    each = n / (n - 1)
    plain_i, controlled_i = log_variances(each * (total.sum() - total), each * (rest.sum() - rest))
    with np.errstate(invalid="ignore"):
        ratio = np.exp(plain - controlled)
        ratio_error = ratio * (plain_i - controlled_i).std() * math.sqrt(n - 1)
    return Controlled(
        mean=mean,
        error=float(np.exp(controlled / 2)),
        plain_mean=float(f.mean()),
        plain_error=float(np.exp(plain / 2)),
        coefficients=coefficients,
        variance_ratio=float(ratio),
        variance_ratio_error=float(ratio_error),
        overfit=float(f.mean() - weight * coefficients @ (c.mean(axis=0) - centre)) - mean,
        dof=n - Q.shape[1] - 1,
    )


def _carriers(drawn: FloatArray, n: int) -> FloatArray:
    """Number of n cells that carry a control's variance: n/3 for a normal control, n P if only a fraction P
    of cells has it."""
    squares = (drawn - drawn.mean(axis=0)) ** 2
    found: FloatArray = n * squares.mean(axis=0) ** 2 / np.maximum((squares**2).mean(axis=0), _TINY)
    return found


def _subtracted(c: FloatArray, centre: FloatArray, leverage: FloatArray) -> FloatArray:
    """G with G.f = sum_i b_i (c_i - c'), where b_i are the slopes of any f on the controls without cell i.

    By the least-squares update for removing one row, b_i (c_i - c') = t_i Q^T f - (t_i Q_i) e_i/(1 -
    leverage_i) with t_i = (c_i - c') S and e the residuals.
    """
    Q, to_slopes = _directions(c)
    away = c - centre
    alone = leverage > 1 - _ALONE
    turned = np.where(alone[:, np.newaxis], 0.0, away @ to_slopes)
    update = (turned * Q).sum(axis=1) / np.where(alone, 1.0, 1 - leverage)
    of_f: FloatArray = Q @ turned.sum(axis=0) - (update - update.mean() - Q @ (Q.T @ update))
    for i in np.flatnonzero(alone):  # without this cell a direction is lost, and the update is 0/0
        rest = np.delete(np.arange(len(c)), i)
        directions, to_slopes = _directions(c[rest])
        of_f[rest] += directions @ (away[i] @ to_slopes)
    return of_f


def _columns(name: str, numbers: npt.ArrayLike) -> FloatArray:
    """Controls as a matrix with one row for each cell."""
    array = np.asarray(numbers, dtype=np.float64)
    array = array[:, np.newaxis] if array.ndim == 1 else array
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ParameterError(name, numbers, "finite numbers, one row per cell", "label_controls replaces nan")
    return array


def _directions(c: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Orthonormal Q over the cells, and S such that S Q^T f are the (least-norm) slopes of f on the
    controls."""
    Q, s, Vt = np.linalg.svd(c - c.mean(axis=0), full_matrices=False)
    floor = _SAME * max(float(s.max(initial=0.0)), float(np.abs(c).max(initial=0.0)))
    kept = s > floor
    return Q[:, kept], Vt[kept].T / s[kept]
