"""The averages of the theory, as one-dimensional Laplace integrals.

Write gamma = -2 g / p for the reduced Stieltjes variable (0 < gamma < 1 outside the spectrum on its left), c
for the two directions of the p x p weight of one sample (c = 1, p - 1 times, across the student's
pre-activations; c = 3, once, along them), u = c yhat - y and D = a + (1 - gamma) y + gamma c yhat. An
eigenvalue d of that weight then obeys d / (1 - g d) = (2/p) u / D, so that every average the theory needs is
one of

    A  = E[u / D]    F  = E[(y - 1) u / D]    B  = E[u^2 / D^2]    B_y = E[y u^2 / D^2]

and 1/D = int_0^inf exp(-s D) ds turns each into an integral over s of elementary functions, since y and yhat
are gamma variables: with n = p_star/2, m = p/2, q = 1/(1 + s (1 - gamma)/n), k = 1/(1 + s gamma c/m), the
tilted law exp(-s D) has mass exp(-a s) q^n k^m, and under it y and yhat are gamma variables of means q and k.

In t = log s the integrands are analytic and decay at both ends, where the trapezoidal rule converges
exponentially. On the ray s = exp(i ray) r the same rule gives the continuation through the cut gamma > 1,
whose real part is the principal value.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.model import Model

RAY = 1.1
"""Angle of the rotated ray: away from the poles of q near arg s = 0 and from the growth at pi/2."""

_STEP = 0.2  # strip |Im t| < pi/2: discretisation error about exp(-pi^2 / step) = 4e-22
_RAY_STEP = 0.08  # strip of half-width pi/2 - RAY = 0.47: error about exp(-2 pi 0.47 / step) = 1e-16
_LEFT_EFOLDS = 39.0  # the integrands are flat at s -> 0: what is cut off weighs exp(-39) = 1e-17
_RIGHT_DECAY = 45.0  # exp(-a s) ends at exp(-45)


class Averages(NamedTuple):
    """The four averages at one gamma, each a mean over the p directions; real off the ray, complex on it."""

    A: Any
    F: Any
    B: Any
    B_y: Any


class _Nodes(NamedTuple):
    """Abscissae and the part of the weights that does not depend on gamma."""

    s: npt.NDArray[Any]  # (nodes,)
    c: npt.NDArray[np.float64]  # (sectors, 1)
    c_s: npt.NDArray[Any]  # (sectors, nodes)
    log_weight: npt.NDArray[Any]  # (sectors, nodes): log of h s exp(-a s) times the share of the sector


@lru_cache(maxsize=256)
def _nodes(p: int | float, a: float, ray: float) -> _Nodes:
    step = _RAY_STEP if ray else _STEP
    left = -_LEFT_EFOLDS - math.log1p(a)
    right = math.log(_RIGHT_DECAY / math.cos(ray)) - math.log(a)
    t = left + step * np.arange(math.ceil((right - left) / step) + 1)
    log_s: npt.NDArray[Any] = t + 1j * ray if ray else t
    s = np.exp(log_s)
    sectors = (
        [(1.0, 1.0)]
        if math.isinf(p)
        else [(c, share) for c, share in ((1.0, (p - 1) / p), (3.0, 1 / p)) if share]
    )
    c, share = np.array(sectors).T[:, :, np.newaxis]
    log_weight = np.log(step * share) + log_s - a * s
    nodes = _Nodes(s, c, c * s, log_weight)
    for array in nodes:
        array.flags.writeable = False
    return nodes


def averages(model: Model, gamma: complex, *, ray: float = 0.0) -> Averages:
    """The averages A, F, B and B_y of the theory at reduced Stieltjes variable gamma.

    A = E[u/D], F = E[(y-1) u/D], B = E[u^2/D^2], B_y = E[y u^2/D^2] with u = c yhat - y and D = a + (1 -
    gamma) y + gamma c yhat; E runs over y ~ chi2_{p_star}/p_star, yhat ~ chi2_p/p and over the p directions
    (c = 1 with share (p-1)/p, c = 3 with share 1/p).

    Parameters
    ----------
    model : Model
        Any p, including inf, where yhat = 1 and only c = 1 is left.
    gamma : float or complex
        In [0, 1] on the real line. With a tiny imaginary part the result carries the derivative in gamma
        (complex step). With ``ray`` any gamma with -ray < arg(gamma - 1) <= pi.
    ray : float
        Angle of the line of integration, 0 or ``RAY``. On the ray and for real gamma > 1 the real part is the
        Cauchy principal value (Hadamard's finite part for B and B_y), the imaginary part pi times the
        residue.

    Returns
    -------
    Averages
        Dimensionless, normalised per direction: multiply by p for the sum over the p directions.

    Notes
    -----
    Limits: at gamma = 1, F = -(2/p_star) E[1/(a + c yhat)]. Differences are written as sums of squares, so no
    digits are lost for small a, gamma -> 0 or large p. Accuracy: 1e-14 relative, held by the two-dimensional
    quadratures and the reference table of ``tests/test_theory.py``. Source: the formulas of arXiv:2510.18435
    in this form are this project's own.
    """
    nodes = _nodes(model.p, model.a, ray)
    s, c = nodes.s, nodes.c
    n, m = model.p_star / 2, model.p / 2

    s_y = s * ((1 - gamma) / n)
    q = 1 / (1 + s_y)
    log_mass: npt.NDArray[Any] = nodes.log_weight - n * np.log1p(s_y)
    if math.isinf(m):
        k: Any = 1.0
        log_mass = log_mass - gamma * nodes.c_s
    else:
        s_yhat = nodes.c_s * (gamma / m)
        k = 1 / (1 + s_yhat)
        log_mass = log_mass - m * np.log1p(s_yhat)
    mass = np.exp(log_mass)

    # Under the tilted law: the mean of u, the variances of c yhat and y. A weight y turns shape n into n + 1.
    u = c * k - q
    var_yhat = (c * k) ** 2 / m
    var_y = q * q / n
    weight = mass.ravel()
    weight_s = (mass * s).ravel()
    return Averages(
        A=_dot(weight, u),
        F=_dot(weight, (q - 1) * u - var_y),
        B=_dot(weight_s, u * u + var_yhat + var_y),
        B_y=_dot(weight_s, q * ((u - q / n) ** 2 + var_yhat + (1 + 1 / n) * var_y)),
    )


def _dot(weight: npt.NDArray[Any], values: npt.NDArray[Any]) -> Any:
    return (weight @ values.ravel()).item()
