"""Edge, outlier and overlap at many points (p, p_star, a, alpha) at once.

The equations are those of :mod:`bendscape.core.quadratic.theory.outlier`, the averages those of
:mod:`bendscape.core.quadratic.theory.many`. Both roots are fixed points gamma = r(gamma), the edge's with r =
(alpha B)^(-1/2) and the outlier's with r = -1/(alpha F), where r hardly varies. The load whose root is a
given gamma follows from the averages there, without solving any equation. One short and rough table of them
therefore starts Newton's method close to the root for all loads of a model. Each point is then computed by
itself: its values do not depend on the other points, to the last bit.
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

BLOCK = 4096  # points worked on together: temporaries are some hundred doubles for each point

_NODES = np.array([0.01, 0.03, 0.07, 0.14, 0.23, 0.34, 0.46, 0.58, 0.70, 0.81, 0.90, 0.96, 1.0])
_EVERY = 8  # errors of the averages are estimated at every eighth load of a model
_COARSE_CLOSE = 1e-4  # relative: Newton's next step then lands within the coarse rule's own error
_FINE_CLOSE = 1e-7  # relative: the last step is taken to second order
_ROUNDING = 4e-16  # relative: no step is smaller than two last digits
_NEAR_EDGE = 1e-8  # relative: how far past the edge an outlier is searched; its overlap then decides


class Points(NamedTuple):
    """The fields of ``bendscape.core.quadratic.theory.outlier.Asymptotics`` as arrays, one element per
    point."""

    edge: npt.NDArray[np.int8]
    lambda_minus: Floats
    lambda_star: Floats
    overlap_sq: Floats
    lambda_minus_error: Floats
    lambda_star_error: Floats
    overlap_sq_error: Floats


class _FixedPoint(NamedTuple):
    """The equation gamma = r(gamma), r proportional to alpha^-power, in the form that an error estimate
    needs."""

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
    """Edge lambda_minus, outlier lambda_star and overlap m^2 of many models, each at its own load.

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
        The four of the outlier are nan where none is isolated; values are nan too where a root was not found.

    Raises
    ------
    ParameterError
        A value outside its domain.

    Notes
    -----
    Limits: those of the scalar functions; one element is their value. Accuracy: 1e-12 relative to 2/(p gamma)
    for eigenvalues, absolute for overlaps, p and p_star up to 512 and p = inf, a from 1e-6 to 1e3, alpha up
    to 1e100. Errors are estimated in the same way as for the scalar functions, those of the averages at every
    eighth load of a model or more often, and used also for the loads between; there is no warning: look at
    the errors. Loads at most 1e-12 above alpha_sharp or a discontinuous alpha_bbp count as equal to it. The
    values of a point, except its errors, do not depend on the other points, to the last bit. Some 60,000
    points a second on one core where a model has many loads. Memory in addition to arguments and result:
    about as much again, and twenty megabytes. Held by ``tests/test_points.py``. Source: arXiv:2510.18435.
    """
    models = models_of(p, p_star, a, noise)
    *columns, load = np.broadcast_arrays(*models, checked("alpha", alpha))
    models = Models(*columns)
    found = np.full((len(Points._fields), len(load)), math.nan)
    # Neighbours have the same p and similar a: they share integration rules.
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

    # As if every edge were smooth; sharp edges are overwritten below.
    sharp = np.flatnonzero(alpha * here.values.B > 1 + AT_THRESHOLD)
    found[0] = EDGE_KINDS.index("smooth")
    found[1], found[4] = _map(models, alpha, here)
    gamma, at_edge, table = np.ones_like(alpha), here.values, _table(distinct)
    if sharp.size:
        edge = _root(_EDGE, models.at(sharp), alpha[sharp], table, of_model[sharp], gamma[sharp])
        found[0, sharp] = EDGE_KINDS.index("sharp")
        found[1, sharp], found[4, sharp] = _map(models.at(sharp), alpha[sharp], edge)
        gamma[sharp] = edge.gamma
        for column, values in zip(at_edge, edge.values, strict=True):
            column[sharp] = values

    # Whether the outlier lies beyond a sharp edge is decided by its overlap, which vanishes there.
    least = np.full_like(alpha, AT_THRESHOLD)
    least[sharp] = (
        -_NEAR_EDGE * (alpha * gamma**2 * at_edge.B_y)[sharp]
    )  # at this distance, since psi = 0 there
    beyond = np.flatnonzero(-alpha * gamma * at_edge.F - 1 > least)
    if beyond.size:
        chosen, load = models.at(beyond), alpha[beyond]
        high = np.where(gamma < 1, np.minimum(gamma * (1 + 2 * _NEAR_EDGE), 1.0), 1.0)[beyond]
        root = _root(_OUTLIER, chosen, load, table, of_model[beyond], high)
        place, place_error = _map(chosen, load, root)
        overlap_sq = np.real(overlap_sq_on_branch(root.gamma, root.values))
        overlap_sq_error = error_of(root, overlap_sq_on_branch)
        isolated = overlap_sq > overlap_sq_error  # otherwise indistinguishable from a load up to alpha_bbp
        rows = np.minimum(place, found[1, beyond]), overlap_sq, place_error, overlap_sq_error
        for row, values in zip((2, 3, 5, 6), rows, strict=True):
            found[row, beyond] = np.where(isolated, values, math.nan)
    return found


def _new(*columns: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows differ from the previous one."""
    first = np.ones(1, dtype=bool)
    return np.append(first, np.any([column[1:] != column[:-1] for column in columns], axis=0))


def _at(here: Known, which: Any) -> Known:
    """The averages and errors of some of the points."""
    parts = (Averages(*(values[which] for values in part)) for part in here[2:])
    error = here.gamma_error
    return Known(here.gamma[which], error[which] if np.ndim(error) else error, *parts)


def _map(models: Models, alpha: Floats, here: Known) -> tuple[Floats, Floats]:
    """The spectral map at a known gamma, and its error estimate."""
    of_models: Any = models
    value = reduced_map(of_models, alpha, here.gamma, here.values)  # type: ignore[arg-type]
    return np.asarray(value), np.asarray(map_error(of_models, alpha, here))  # type: ignore[arg-type]


def _root(
    fixed: _FixedPoint, models: Models, alpha: Floats, table: Averages, of_model: Any, high: Floats
) -> Known:
    """The fixed point in (0, high], from the table of each point's model.

    Points of one model lie together, in the order of their loads. The errors of the averages are estimated
    within an octave of these at the first, the last and every ``_EVERY``th.
    """
    start = _start(fixed, table, of_model, alpha, high)
    bracket, equation = (np.zeros_like(alpha), high), fixed.at(alpha)
    rough, _, step = approach(models, start, bracket, REAL.coarse, _COARSE_CLOSE * start, equation)
    gamma = np.clip(rough + step, rough / 2, high)
    gamma = np.where(np.isnan(gamma), high / 2, gamma)
    # For small a the averages vary rapidly near gamma = 1.
    close = _FINE_CLOSE * np.minimum(gamma, 1 - gamma + models.a) + _ROUNDING * gamma
    gamma, values = after_last_step(*approach(models, gamma, bracket, REAL.fine, close, equation))

    new = _new(*models, np.floor(np.log2(alpha)))
    place = np.arange(len(alpha))
    place -= np.maximum.accumulate(np.where(new, place, 0))
    is_anchor = (place % _EVERY == 0) | np.append(new[1:], True)
    anchors = np.flatnonzero(is_anchor)
    left = np.cumsum(is_anchor) - 1
    right = np.minimum(left + ~is_anchor, len(anchors) - 1)
    at_anchors = known(models.at(anchors), gamma[anchors], values.at(anchors), REAL)
    shares = zip(at_anchors.errors, _scales(at_anchors.values), _scales(values), strict=True)
    errors = Averages(*(np.fmax((of / own)[left], (of / own)[right]) * scale for of, own, scale in shares))
    exact = Known(gamma, 0.0, values, errors, values.prime())
    _, missed = equation(slice(None), gamma, values)  # the remaining step counts as an error too
    root = as_root(exact, fixed.residual(alpha))
    return root._replace(gamma_error=root.gamma_error + abs(missed))


def _table(distinct: Models) -> Averages:
    """Averages at the nodes in gamma, of shape (models, nodes), to the coarse rule's precision."""
    count, nodes = len(distinct.a), len(_NODES)
    models = distinct.at(np.repeat(np.arange(count), nodes))
    at_nodes = averages(models, np.tile(_NODES, count), REAL.coarse)
    return Averages(*(values.reshape(count, nodes) for values in at_nodes))


def _start(fixed: _FixedPoint, table: Averages, of_model: Any, alpha: Floats, high: Floats) -> Floats:
    """Approximate root in (0, high]: cubic interpolation between the nodes with larger and smaller load.

    The load of a node is the one whose root it is; beyond the first node gamma is a power of the load.
    """
    r, log_slope = fixed.of(np.ones(1), table)
    with np.errstate(invalid="ignore", divide="ignore"):  # nodes that are a root of no load, turning points
        loads = (np.log(r) - np.log(_NODES)) / fixed.power
        slopes = -fixed.power / (1 - _NODES * log_slope)
    x = np.log(alpha)
    below = loads[of_model] <= x[:, np.newaxis]
    right = np.where(below.any(axis=1), below.argmax(axis=1), len(_NODES) - 1)
    left = np.maximum(right - 1, 0)
    x_left, x_right = loads[of_model, left], loads[of_model, right]
    y_left, rise = np.log(_NODES[left]), np.log(_NODES[right]) - np.log(_NODES[left])
    with np.errstate(invalid="ignore", over="ignore"):
        width = x_right - x_left
        t = np.where(right > 0, (x - x_left) / np.where(right > 0, width, 1.0), 0.0)
        bend_left, bend_right = slopes[of_model, left] * width - rise, rise - slopes[of_model, right] * width
        y = y_left + t * rise + t * (1 - t) * ((1 - t) * bend_left + t * bend_right)
        beyond = np.exp(y_left - fixed.power * (x - x_left))
        start = np.where(right > 0, np.clip(np.exp(y), _NODES[left], _NODES[right]), beyond)
    return np.where(start <= high, start, high)  # also if it is nan


def _scales(values: Averages) -> Averages:
    """Scales to which the errors of the averages are relative; bounds where an average may vanish."""
    size = np.sqrt(values.B)
    return Averages(size, abs(values.F), values.B, values.B_y, values.B * size, values.B_y * size)
