"""Edge, outlier and overlap at many points (p, p_star, a, alpha) at once.

The equations are those of :mod:`bendscape.core.quadratic.theory.outlier`, the averages those of
:mod:`bendscape.core.quadratic.theory.many`. Both roots are fixed points gamma = r(gamma), the edge's with r =
(alpha B)^(-1/2) and the outlier's with r = -1/(alpha F), where r hardly varies. Along the loads of one model
gamma is a smooth curve whose slope is known too, so that only every few loads its root is looked for; in
between, cubic interpolation starts Newton's method all but at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.quadratic.model import EDGE_KINDS
from bendscape.core.quadratic.theory.branch import overlap_sq_on_branch
from bendscape.core.quadratic.theory.bulk import AT_THRESHOLD, map_error, reduced_map
from bendscape.core.quadratic.theory.many import (
    REAL,
    Averages,
    Floats,
    Models,
    after_last_step,
    approach,
    averages,
    checked,
    known,
    models_of,
)
from bendscape.core.quadratic.theory.precision import Known, as_root, error_of

BLOCK = 4096  # points worked on together: what is in flight is some hundred doubles a point

_EVERY = 8  # loads of a model from one anchor to the next
_COARSE_CLOSE = 1e-4  # relative: Newton's next step then lands within the coarse rule's own error
_FINE_CLOSE = 1e-7  # relative: the last step is taken to second order
_NEAR_EDGE = 1e-8  # relative: how far past the edge an outlier is looked for, which its overlap then decides


class Points(NamedTuple):
    """Those of ``bendscape.core.quadratic.theory.outlier.Asymptotics`` as arrays, one element a point."""

    edge: npt.NDArray[np.int8]
    lambda_minus: Floats
    lambda_star: Floats
    overlap_sq: Floats
    lambda_minus_error: Floats
    lambda_star_error: Floats
    overlap_sq_error: Floats


class _FixedPoint(NamedTuple):
    """The equation gamma = r(gamma), r proportional to alpha^-power, as an error estimate needs it too."""

    of: Callable[[Floats, Averages], tuple[Floats, Floats]]
    """r and d log r/d gamma from alpha and the averages."""
    power: float
    residual: Callable[[Floats], Callable[[Any, Any], Any]]

    def at(self, alpha: Floats) -> Callable[[Any, Floats, Averages], tuple[Floats, Floats]]:
        """As an ``Equation`` of points with these loads."""

        def equation(which: Any, gamma: Floats, at_gamma: Averages) -> tuple[Floats, Floats]:
            r, log_slope = self.of(alpha[which], at_gamma)
            return gamma - r, (r - gamma) / (1 - r * log_slope)

        return equation

    def slope(self, alpha: Floats, gamma: Floats, at_gamma: Averages) -> Floats:
        """d log gamma/d log alpha of the root, negative."""
        return np.asarray(-self.power / (1 - gamma * self.of(alpha, at_gamma)[1]))


def _edge_r(alpha: Floats, at: Averages) -> tuple[Floats, Floats]:
    return 1 / np.sqrt(alpha * at.B), at.C / at.B


def _outlier_r(alpha: Floats, at: Averages) -> tuple[Floats, Floats]:
    return -1 / (alpha * at.F), -(at.B - at.B_y) / at.F


_EDGE = _FixedPoint(_edge_r, 0.5, lambda alpha: lambda gamma, at: alpha * gamma * gamma * at.B - 1)
_OUTLIER = _FixedPoint(_outlier_r, 1.0, lambda alpha: lambda gamma, at: alpha * gamma * at.F + 1)


def asymptotics_of_points(
    p: npt.ArrayLike,
    p_star: npt.ArrayLike,
    a: npt.ArrayLike,
    alpha: npt.ArrayLike,
    noise: npt.ArrayLike = 0.0,
) -> Points:
    """Edge lambda_minus, outlier lambda_star and overlap m^2 of many models, each at its load.

    The quantities of :func:`bendscape.core.quadratic.theory.outlier.asymptotics`, by the same equations: the
    left edge alpha gamma^2 B = 1 in (0, 1), smooth with gamma = 1 where alpha <= alpha_sharp; the outlier
    -alpha gamma F = 1 between 0 and the edge's gamma; lambda = (2/p) (-1/gamma + alpha A), m^2 = psi/(psi -
    gamma B_y), psi = gamma B + F.

    Parameters
    ----------
    p, p_star, a, alpha, noise : array_like
        Of at most one dimension, broadcast against each other, in any order; values as for
        :class:`bendscape.core.quadratic.model.Model` and ``asymptotics``. p may hold inf.

    Returns
    -------
    Points
        Arrays of shape (points,): ``edge`` (int8, the place in ``EDGE_KINDS``), ``lambda_minus`` and
        ``lambda_star`` in units of the eigenvalues of H, ``overlap_sq``, and their absolute error estimates.
        nan in the four of the outlier where none is isolated; nan too where a root was not found.

    Raises
    ------
    ParameterError
        A value outside its domain.

    Notes
    -----
    Limits: those of the scalar functions; one element is their value. Accuracy: 1e-12 relative to 2/(p gamma)
    for eigenvalues, absolute for overlaps, p and p_star up to 512 and p = inf, a from 1e-6 to 1e3, alpha up
    to 1e100. Errors are estimated in the manner of the scalar functions, those of the averages at every
    eighth load of a model or oftener, and taken over for the loads between; there is no warning: look at
    the errors. Loads at most 1e-12 above alpha_sharp or a discontinuous alpha_bbp count as equal to it.
    Fastest where a model has many loads. Memory beside arguments and result: about as much again, and twenty
    megabytes. Held by ``tests/test_points.py``. Source: arXiv:2510.18435.
    """
    models = models_of(p, p_star, a, noise)
    *columns, load = np.broadcast_arrays(*models, checked("alpha", alpha))
    models = Models(*columns)
    found = np.full((len(Points._fields), len(load)), math.nan)
    # Alike are neighbours of one p and of like a: they share rules of integration.
    order = np.lexsort((load, models.noise, models.p_star, models.a, models.p))
    for start in range(0, len(order), BLOCK):
        here = order[start : start + BLOCK]
        found[:, here] = _points(models.at(here), load[here])
    return Points(found[0].astype(np.int8), *found[1:])


def _points(models: Models, alpha: Floats) -> npt.NDArray[np.float64]:
    """The rows of ``Points``; points of one model lie together, in the order of their loads."""
    new = _new(*models)
    of_model = np.cumsum(new) - 1
    distinct = models.at(new)
    one: Any = np.ones_like(distinct.a)
    at_one = known(distinct, one, averages(distinct, one, REAL.fine), REAL)
    here = _at(at_one, of_model)
    found = np.full((len(Points._fields), len(alpha)), math.nan)

    # As if every edge were smooth; what is sharp is written over below.
    sharp = np.flatnonzero(alpha * here.values.B > 1 + AT_THRESHOLD)
    found[0] = EDGE_KINDS.index("smooth")
    found[1], found[4] = _map(models, alpha, here)
    gamma, at_edge = np.ones_like(alpha), here.values
    if sharp.size:
        edge = _root(_EDGE, models.at(sharp), alpha[sharp], _at(here, sharp), gamma[sharp])
        found[0, sharp] = EDGE_KINDS.index("sharp")
        found[1, sharp], found[4, sharp] = _map(models.at(sharp), alpha[sharp], edge)
        gamma[sharp] = edge.gamma
        for column, values in zip(at_edge, edge.values, strict=True):
            column[sharp] = values

    # Whether the outlier lies beyond a sharp edge is left to its overlap, which vanishes there.
    least = np.full_like(alpha, AT_THRESHOLD)
    least[sharp] = -_NEAR_EDGE * (alpha * gamma**2 * at_edge.B_y)[sharp]  # that far, as psi = 0 there
    beyond = np.flatnonzero(-alpha * gamma * at_edge.F - 1 > least)
    if beyond.size:
        chosen, load = models.at(beyond), alpha[beyond]
        high = np.where(gamma < 1, np.minimum(gamma * (1 + 2 * _NEAR_EDGE), 1.0), 1.0)[beyond]
        edge = Known(gamma[beyond], 0.0, at_edge.at(beyond), None, None)
        root = _root(_OUTLIER, chosen, load, edge, high)
        place, place_error = _map(chosen, load, root)
        overlap_sq = np.real(overlap_sq_on_branch(root.gamma, root.values))
        overlap_sq_error = error_of(root, overlap_sq_on_branch)
        isolated = overlap_sq > overlap_sq_error  # else not to be told from a load up to alpha_bbp
        rows = np.minimum(place, found[1, beyond]), overlap_sq, place_error, overlap_sq_error
        for row, values in zip((2, 3, 5, 6), rows, strict=True):
            found[row, beyond] = np.where(isolated, values, math.nan)
    return found


def _new(*columns: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows differ from the one before."""
    first = np.ones(1, dtype=bool)
    return np.append(first, np.any([column[1:] != column[:-1] for column in columns], axis=0))


def _at(here: Known, which: Any) -> Known:
    """What is known of some of the points."""
    parts = (Averages(*(values[which] for values in part)) for part in here[2:])
    error = here.gamma_error
    return Known(here.gamma[which], error[which] if np.ndim(error) else error, *parts)


def _map(models: Models, alpha: Floats, here: Known) -> tuple[Floats, Floats]:
    """The spectral map at a known gamma, and its error estimate."""
    of_models: Any = models
    value = reduced_map(of_models, alpha, here.gamma, here.values)  # type: ignore[arg-type]
    return np.asarray(value), np.asarray(map_error(of_models, alpha, here))  # type: ignore[arg-type]


def _root(fixed: _FixedPoint, models: Models, alpha: Floats, near: Known, high: Floats) -> Known:
    """The fixed point in (0, high], from what is known at some gamma near the upper end.

    Points of one model lie together, in the order of their loads. Within an octave of these the first, the
    last and every ``_EVERY``th is an anchor, where the root is looked for from ``near``, and where the errors
    of the averages are estimated.
    """
    new = _new(*models, np.floor(np.log2(alpha)))
    place = np.arange(len(alpha))
    place -= np.maximum.accumulate(np.where(new, place, 0))
    last = np.append(new[1:], True)
    is_anchor = (place % _EVERY == 0) | last
    anchors = np.flatnonzero(is_anchor)
    left = np.maximum(np.cumsum(is_anchor) - 1, 0)
    right = np.minimum(left + ~is_anchor, len(anchors) - 1)

    start = _start(fixed, alpha[anchors], near.gamma[anchors], near.values.at(anchors), high[anchors])
    rough, at = _approached(fixed, models.at(anchors), alpha[anchors], start, high[anchors])
    slope = fixed.slope(alpha[anchors], rough, at)
    gamma = _between(np.log(alpha[anchors]), np.log(rough), slope, np.log(alpha), left, right)
    gamma[anchors] = rough
    gamma = np.where((gamma > 0) & (gamma <= high), gamma, high / 2)  # a root that was not found: once more
    others = np.flatnonzero(~is_anchor)
    if others.size:
        gamma[others], _ = _approached(fixed, models.at(others), alpha[others], gamma[others], high[others])

    bracket = np.zeros_like(alpha), high
    close = _FINE_CLOSE * np.minimum(gamma, 1 - gamma + models.a)  # the averages bend fast where a is small
    here = approach(models, gamma, bracket, REAL.fine, close, fixed.at(alpha))
    gamma, values = after_last_step(*here)
    chosen = models.at(anchors)
    at_anchors = known(chosen, gamma[anchors], values.at(anchors), REAL)
    shares = zip(at_anchors.errors, _scales(at_anchors.values), _scales(values), strict=True)
    errors = Averages(*(np.fmax((of / own)[left], (of / own)[right]) * scale for of, own, scale in shares))
    exact = Known(gamma, 0.0, values, errors, values.prime())
    missed = fixed.at(alpha)(slice(None), gamma, values)[1]  # what is left of the way counts as an error too
    root = as_root(exact, fixed.residual(alpha))
    return root._replace(gamma_error=root.gamma_error + abs(missed))


def _start(fixed: _FixedPoint, alpha: Floats, gamma: Floats, at_gamma: Averages, high: Floats) -> Floats:
    """Where Newton's step from gamma leads, or r itself where that is not in (0, high)."""
    r, _ = fixed.of(alpha, at_gamma)
    _, step = fixed.at(alpha)(slice(None), gamma, at_gamma)
    aim = gamma + step
    return np.where((aim > 0) & (aim < high), aim, np.minimum(r, high))


def _approached(
    fixed: _FixedPoint, models: Models, alpha: Floats, start: Floats, high: Floats
) -> tuple[Floats, Averages]:
    """The fixed point to the coarse rule's precision, and the averages next to it."""
    bracket = np.zeros_like(alpha), high
    rough, at, step = approach(models, start, bracket, REAL.coarse, _COARSE_CLOSE * start, fixed.at(alpha))
    return np.clip(rough + step, rough / 2, high), at


def _between(x: Floats, y: Floats, slope: Floats, where: Floats, left: Any, right: Any) -> Floats:
    """exp y at ``where``, by the cubic through two neighbours with their slopes."""
    width = x[right] - x[left]
    wide = width > 0
    t = np.divide(where - x[left], width, out=np.zeros_like(where), where=wide)
    rise = y[right] - y[left]
    bend_left, bend_right = slope[left] * width - rise, rise - slope[right] * width
    return np.asarray(np.exp(y[left] + t * rise + t * (1 - t) * ((1 - t) * bend_left + t * bend_right)))


def _scales(values: Averages) -> Averages:
    """What the errors of averages are relative to: bounds where an average may vanish."""
    size = np.sqrt(values.B)
    return Averages(size, abs(values.F), values.B, values.B_y, values.B * size, values.B_y * size)
