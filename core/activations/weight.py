"""The weight D of one sample, and its infimum over all pre-activations.

D = v v^T + diag(e), v_k = sigma'(lambda_k) / (p sqrt(a + y)), e_k = (yhat - y) sigma''(lambda_k) / (p (a +
y)). Where inf D is finite and negative, the spectrum has a left edge below zero.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from bendscape.core.activations.activation import Network
from bendscape.core.activations.quadrature import trapezoid
from bendscape.core.errors import ParameterError

FloatArray = npt.NDArray[np.float64]

NEAR, FAR = 1e2, 1e4
"""Reaches of the search. A weight bounded below has the same minimum within both, to ``GROWTH``."""
GROWTH = 1.2
NODES = 31
"""Values of a pre-activation on one side of zero; they are dense near it."""
STARTS = 4


class Weight(NamedTuple):
    """D = v v^T + diag(e), with the hidden units along the first axis of v and e."""

    v: FloatArray
    e: FloatArray


def weight_of(network: Network, fields: FloatArray, y: FloatArray) -> Weight:
    """The weight of samples with pre-activations ``fields``, (p, ...), and labels y, which broadcast.

    At p = inf, with one pre-activation standing for all, the limit of p D: yhat is its mean, and v v^T, of
    rank one among infinitely many units, is left out. :func:`least_weight` says what this average misses.
    """
    student, a = network.student, network.a
    if math.isinf(network.p):
        e = (mean_output(network) - y) / (a + y) * student.curvature(fields)
        return Weight(np.zeros_like(e), e)
    p = network.p
    pull = (student.value(fields).mean(axis=0) - y) / (p * (a + y))
    return Weight(student.slope(fields) / (p * np.sqrt(a + y)), pull * student.curvature(fields))


@lru_cache(maxsize=256)
def mean_output(network: Network) -> float:
    """E[sigma(lambda)], the student's output at p = inf."""
    x, w = trapezoid(160)
    return float((network.student.value(x) + network.student.value(-x)) @ w / 2)


@lru_cache(maxsize=1024)
def least_weight(network: Network, *, typical: bool = False) -> float:
    """inf d, the infimum of the lowest eigenvalue of D over all pre-activations; of p D at p = inf.

    Searched where one or two units have one pre-activation, the others another, and all of the teacher's are
    equal: one unit that bends downwards, with the outputs of the rest as low or as high as possible; two such
    units have a direction that their slopes do not see.

    At p = inf it is the limit of p inf d. There yhat has any value between the bounds of sigma, since all
    have a positive density at finite p, if exponentially small in p away from the mean. ``typical`` holds
    yhat at its mean: the infimum among N samples, where N is far below the inverse of that density.

    Raises
    ------
    ParameterError
        D is not bounded below, or nowhere negative: the spectrum has no left edge below zero. ``typical`` at
        finite p.

    Notes
    -----
    Held by ``tests/test_activations.py`` against sampled weights and a search over all pre-activations.
    """
    if typical and not math.isinf(network.p):
        raise ParameterError("p", network.p, "inf for typical outputs", "leave out typical")
    near, far = (_least_within(network, reach, typical) for reach in (NEAR, FAR))
    if far < min(0.0, GROWTH * near) - 1e-9:
        raise ParameterError(
            "activation",
            network.activation,
            f"one whose weights are bounded below with the teacher {network.teacher_activation} at "
            f"p = {network.p}",
            "the Hessian's spectrum has no left edge otherwise",
        )
    least = min(near, far)
    if math.isinf(network.teacher.most):  # D approaches -diag(sigma'')/p as y goes to infinity
        width = 1.0 if math.isinf(network.p) else network.p
        least = min(least, -float(network.student.curvature(_line(NEAR)).max()) / width)
    if least >= -1e-12:
        raise ParameterError("activation", network.activation, "one whose Hessian has a left edge below zero")
    return least


def _line(reach: float) -> FloatArray:
    half = np.sinh(np.linspace(0, math.asinh(reach), NODES))
    return np.concatenate((-half[:0:-1], half))


def _least_within(network: Network, reach: float, typical: bool) -> float:
    line: FloatArray = _line(reach)
    u: FloatArray = _line(reach)
    if network.student.even:
        line = line[NODES - 1 :]
    if network.teacher.even:
        u = u[NODES - 1 :]
    alone = network.p == 1 or typical
    counts = (1,) if alone or math.isinf(network.p) else (1, 2)
    x, rest, u = np.meshgrid(line, line[:1] if alone else line, u, indexing="ij")
    least = math.inf
    for count in counts:
        values = _lowest(network, count, x, rest, u, typical=typical)
        least = min(least, float(values.min()))
        for place in np.argsort(values, axis=None)[:STARTS]:
            start = [float(of.flat[place]) for of in (x, rest, u)]
            found = minimize(
                lambda at, count=count: float(
                    _lowest(network, count, *np.clip(at, -reach, reach)[:, None], typical=typical)[0]
                ),
                start,
                method="Nelder-Mead",
            )
            least = min(least, float(found.fun))
    return least


def _lowest(
    network: Network, alike: int, x: FloatArray, rest: FloatArray, u: FloatArray, *, typical: bool
) -> FloatArray:
    """Lowest eigenvalue of D where ``alike`` units have the pre-activation x and the others ``rest``."""
    student, p, a = network.student, network.p, network.a
    y = network.teacher.value(u)
    if math.isinf(p):
        output = mean_output(network) if typical else student.value(rest)
        return (output - y) * student.curvature(x) / (a + y)
    others = p - alike
    pull = ((alike * student.value(x) + others * student.value(rest)) / p - y) / (p * (a + y))
    e, e_rest = pull * student.curvature(x), pull * student.curvature(rest)
    v, v_rest = (student.slope(at) / (p * np.sqrt(a + y)) for at in (x, rest))
    here = e + alike * v * v
    if not others:
        return np.minimum(here, e) if alike > 1 else here
    there, across = e_rest + others * v_rest * v_rest, math.sqrt(alike * others) * v * v_rest
    lowest = (here + there) / 2 - np.hypot((here - there) / 2, across)
    if alike > 1:
        lowest = np.minimum(lowest, e)
    return np.minimum(lowest, e_rest) if others > 1 else lowest
