"""The averages of the theory, as one-dimensional Laplace integrals.

Write gamma = -2 g / p for the reduced Stieltjes variable (0 < gamma < 1 outside the spectrum on its left), c
for the two directions of the p x p weight of one sample (c = 1, p - 1 times, across the student's
pre-activations; c = 3, once, along them), u = c yhat - y and D = a + (1 - gamma) y + gamma c yhat. An
eigenvalue d of that weight then obeys d / (1 - g d) = (2/p) u / D, so that every average the theory needs is
one of

    A  = E[u / D]    F  = E[(y - 1) u / D]    B  = E[u^2 / D^2]    B_y = E[y u^2 / D^2]

(with noise, y = (1 + noise) y0, and the teacher's weight y becomes (y0 + noise)/(1 + noise) in F and B_y)

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

from bendscape.core.quadratic.model import Model

RAY = 1.15
"""Angle of the rotated ray: away from the poles of q, at arg s = 0 to 0.83, and from the growth at pi/2."""

_STEP = 0.2  # strip |Im t| < pi/2: discretisation error about exp(-pi^2 / step) = 4e-22
_RAY_STEP = 0.05  # strip of half-width RAY - 0.83 = 0.32: error about exp(-2 pi 0.32 / step) = 3e-18
_LEFT_EFOLDS = 39.0  # the integrands are flat at s -> 0: what is cut off weighs exp(-39) = 1e-17
_RIGHT_DECAY = 45.0  # exp(-a s) ends at exp(-45)

COMPLEX_STEP = 1e-30
"""Imaginary part of a real gamma that carries a derivative; it does not change the real part."""

_DIFFERENCE_STEP = 1e-5
_UNIT = 2.0**-53
_OPERATIONS = 4.0  # rounding errors of a term that do not grow with the exponents


class Averages(NamedTuple):
    """The four averages at one gamma, each a mean over the p directions; real off the ray, complex on it."""

    A: Any
    F: Any
    B: Any
    B_y: Any


class _Nodes(NamedTuple):
    """Abscissae and the part of the weights that does not depend on gamma."""

    log_s: npt.NDArray[Any]  # (nodes,)
    s: npt.NDArray[Any]  # (nodes,)
    c: npt.NDArray[np.float64]  # (sectors, 1)
    c_s: npt.NDArray[Any]  # (sectors, nodes)
    log_weight: npt.NDArray[Any]  # (sectors, nodes): log of h s exp(-a s) times the share of the sector


class Rule(NamedTuple):
    """Nodes x and weights w of int_0^inf exp(-x) f(x) dx = sum w f(x), real or along a ray."""

    x: npt.NDArray[Any]  # (nodes,)
    weight: npt.NDArray[Any]  # (nodes,)


def log_nodes(
    a: float, ray: float, *, refined: bool = False, further: int = 0
) -> tuple[npt.NDArray[Any], float]:
    """Equidistant log s, and their step, for integrals of exp(-a s) times what varies like powers of s.

    They start where s, at most 1/(1 + a) times exp(-39 - ``further``), has no weight, and end at exp(-45);
    with ``ray`` they lie on the ray s = exp(i ray) r. ``refined``: half the step, no common node, and a wider
    range on both sides.
    """
    step = _RAY_STEP if ray else _STEP
    left = -_LEFT_EFOLDS - math.log1p(a) - further
    right = math.log(_RIGHT_DECAY / math.cos(ray)) - math.log(a)
    if refined:
        left, right, step = left - 2.13 * step, right + 0.2, step / 2
    t = left + step * np.arange(math.ceil((right - left) / step) + 1)
    return (t + 1j * ray if ray else t), step


@lru_cache(maxsize=256)
def short_rule(
    log2_scale: int, step: float, depth: float, height: float, powers: int, ray: float = 0.0
) -> Rule:
    """Trapezoidal rule in log x down to exp(-depth) of the least scale of f, 2^log2_scale or 1.

    With f(x) a polynomial of degree below ``powers`` at the lower end, the terms that are cut off are sums of
    r^(jk), j >= 1, for the powers x^k, k = 1..powers, with r = exp(-step): r^k/(1 - r^k) each. Weights beta_i
    of the last nodes, sum_i beta_i r^(-ik) = r^k/(1 - r^k), account for them: this gives one rule for all
    models of similar scales, a third as long as :func:`log_nodes`. It begins where exp(-x) is exp(-height),
    on the ray x = exp(i ray) r.
    """
    top = height / math.cos(ray)
    lowest = -depth + math.log(2) * min(log2_scale, 0)
    count = math.ceil((math.log(top) - lowest) / step) + 1
    direction = complex(math.cos(ray), math.sin(ray)) if ray else 1.0
    x = top * direction * np.exp(-step * np.arange(count))
    weight = step * x * np.exp(-x)
    r, k = math.exp(-step), np.arange(1, powers + 1)
    beta = np.linalg.solve(r ** -np.outer(k, np.arange(powers)), r**k / (1 - r**k))
    weight[: -powers - 1 : -1] *= 1 + beta
    for array in (x, weight):
        array.flags.writeable = False
    return Rule(x, weight)


@lru_cache(maxsize=256)
def _nodes(p: int | float, a: float, ray: float, refined: bool = False, further: int = 0) -> _Nodes:
    log_s, step = log_nodes(a, ray, refined=refined, further=further)
    s = np.exp(log_s)
    sectors = (
        [(1.0, 1.0)]
        if math.isinf(p)
        else [(c, share) for c, share in ((1.0, (p - 1) / p), (3.0, 1 / p)) if share]
    )
    c, share = np.array(sectors).T[:, :, np.newaxis]
    log_weight = np.log(step * share) + log_s - a * s
    nodes = _Nodes(log_s, s, c, c * s, log_weight)
    for array in nodes:
        array.flags.writeable = False
    return nodes


def _further(gamma: complex) -> int:
    """Number of e-folds, in tens, by which the integrands at large gamma extend further to the left."""
    return 10 * math.ceil(math.log(abs(gamma)) / 10) if abs(gamma) > 100 else 0


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
    Limits: at gamma = 1, F = -(2/p_star) E[1/(a + c yhat)]. Differences are written as sums of squares, so
    that no digits are lost for small a, gamma -> 0 or large p. Accuracy: 1e-14 relative, held by the
    two-dimensional quadratures and the reference table of ``tests/test_theory.py``. Source: the formulas of
    arXiv:2510.18435 in this form are this project's own.
    """
    return _integrate(model, gamma, _nodes(model.p, model.a, ray, further=_further(gamma)))[0]


def averages_errors(
    model: Model, gamma: complex, at_gamma: Averages, *, ray: float = 0.0
) -> tuple[Averages, Averages]:
    """Estimated errors of averages, and their derivatives in gamma.

    The error of an average is twice its distance from a refined rule (half the step, no node in common, a
    wider range) plus a bound on its rounding error: u sum |term| (kappa + |logs of the factors|), u = 2^-53,
    where kappa counts the operations whose error does not grow.

    Parameters
    ----------
    model : Model
        Any p, including inf.
    gamma : float or complex
        As for :func:`averages`.
    at_gamma : Averages
        ``averages(model, gamma, ray=ray)``, or on the ray its real part.
    ray : float
        Angle of the line of integration, 0 or ``RAY``.

    Returns
    -------
    errors : Averages
        Absolute, >= 0. Off the ray and for a gamma that carries a derivative, their imaginary parts are the
        errors of the imaginary parts (rounding only).
    prime : Averages
        d/d gamma of the averages: by complex step, on the ray by a central difference good to 1e-9.

    Notes
    -----
    Takes as long as three calls of :func:`averages`. Held by ``tests/test_precision.py`` against evaluations
    with 30 digits. Source: this project's own.
    """
    nodes = _nodes(model.p, model.a, ray, refined=True)
    if ray:
        refined, rounding = _integrate(model, gamma, nodes, rounding=True)
        h = _DIFFERENCE_STEP
        ahead, behind = averages(model, gamma + h, ray=ray), averages(model, gamma - h, ray=ray)
        prime = [(x - y) / (2 * h) for x, y in zip(ahead, behind, strict=True)]
        if not isinstance(at_gamma.A, complex):  # principal values
            refined = Averages(*(value.real for value in refined))
            prime = [slope.real for slope in prime]
    else:
        refined, rounding = _integrate(model, complex(gamma.real, COMPLEX_STEP), nodes, rounding=True)
        prime = [value.imag / COMPLEX_STEP for value in refined]
        refined = Averages(*(value.real for value in refined))
    errors = []
    for value, better, bound in zip(at_gamma, refined, rounding, strict=True):
        of_prime = 1j * bound.imag if not ray and isinstance(gamma, complex) else 0.0
        errors.append(2 * abs((value if ray else value.real) - better) + bound.real + of_prime)
    return Averages(*errors), Averages(*prime)


def _integrate(
    model: Model, gamma: complex, nodes: _Nodes, rounding: bool = False
) -> tuple[Averages, Averages]:
    """The averages by one rule and, where asked for, bounds on their rounding errors."""
    s, c = nodes.s, nodes.c
    n, m = model.p_star / 2, model.p / 2

    spread = 1 + model.noise  # y = spread y0, y0 ~ chi2_{p_star}/p_star, of mean q under the tilted law
    s_y = s * (spread * (1 - gamma) / n)
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
    y = spread * q
    u = c * k - y
    var_yhat = (c * k) ** 2 / m
    var_y = y * y / n
    weight = mass.ravel()
    weight_s = (mass * s).ravel()
    terms = Averages(
        A=u,
        F=(q - 1) * u - var_y / spread,
        B=u * u + var_yhat + var_y,
        B_y=q * ((u - y / n) ** 2 + var_yhat + (1 + 1 / n) * var_y),
    )
    if model.noise:  # the teacher's weight is w = (y0 + noise)/(1 + noise) in the place of y
        terms = terms._replace(F=terms.F / spread, B_y=(terms.B_y + model.noise * terms.B) / spread)
    weights = Averages(weight, weight, weight_s, weight_s)
    values = Averages(*map(_dot, weights, terms))
    if not rounding:
        return values, Averages(0.0, 0.0, 0.0, 0.0)
    # The weight, exponential of a sum, rounds like the sum; u and q - 1 like what they are made of.
    growth = _OPERATIONS + abs(nodes.log_s) + abs(nodes.log_weight) + n * abs(np.log1p(s_y)) + abs(log_mass)
    growth = growth.ravel()
    size_u, made_of = abs(u), abs(c * k) + abs(y)
    lost_in_square = 2 * size_u * made_of + abs(var_yhat) + abs(var_y)
    lost = Averages(
        A=made_of,
        F=size_u + abs(q - 1) * made_of + abs(var_y),
        B=lost_in_square,
        B_y=abs(q) * (lost_in_square + abs(y / n) * made_of),
    )

    def bound(weight: npt.NDArray[Any], term: npt.NDArray[Any], lost_of_term: npt.NDArray[Any]) -> complex:
        whole = weight * term.ravel()
        value = growth @ abs(whole) + _OPERATIONS * (abs(weight) @ lost_of_term.ravel())
        return complex(_UNIT * value, 2 * _UNIT * (growth @ abs(whole.imag)))

    return values, Averages(*map(bound, weights, terms, lost))


def _dot(weight: npt.NDArray[Any], values: npt.NDArray[Any]) -> Any:
    return (weight @ values.ravel()).item()
