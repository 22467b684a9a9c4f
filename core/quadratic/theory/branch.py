"""The outlier branch as a curve in gamma, followed past the edge: on the real line and in the complex plane.

Along the branch the load is alpha(gamma) = -1/(gamma F) and the outlier's squared overlap is psi/(psi - gamma
B_y) with psi(gamma) = gamma B + F: positive while psi < 0, zero where psi is. For gamma in (0, 1) this is an
isolated eigenvalue. When psi is still negative at gamma = 1 the branch enters the bulk there, through a
smooth edge, with a finite overlap (a discontinuous transition), and its continuation to gamma > 1 determines
the pre-critical window.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from bendscape.core.errors import as_real
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.bulk import ROOT_TOLERANCE
from bendscape.core.quadratic.theory.integrals import RAY, Averages, averages

FIRST_STEP, STEP_GROWTH, _FARTHEST = 1e-3, 1.15, 1e4  # grid of gamma - 1 on the principal-value branch
_HOMOTOPY_STEP = 0.25  # in log a
_NEWTON_STEP = 1e-5  # of the central difference; its error only slows the last Newton step down
_NEWTON_LARGEST = 0.1  # largest relative step; the next two are relative too
_NEWTON_CLOSE, _NEWTON_ROUNDING = 1e-9, 1e-15
_SMALL, _FAR = 1e-3, 0.5


def psi(gamma: complex, at_gamma: Averages) -> complex:
    """The function gamma B + F, whose sign is that of z' and whose zero ends the branch."""
    value: complex = gamma * at_gamma.B + at_gamma.F
    return value


def overlap_sq_on_branch(gamma: complex, at_gamma: Averages) -> complex:
    """Squared overlap m^2 = psi/(psi - gamma B_y) of the outlier that sits at gamma."""
    overlap_sq: complex = psi(gamma, at_gamma) / (psi(gamma, at_gamma) - gamma * at_gamma.B_y)
    return overlap_sq


def load_on_branch(gamma: complex, at_gamma: Averages) -> complex:
    """Load alpha = -1/(gamma F) at which the outlier sits at gamma."""
    alpha: complex = -1 / (gamma * at_gamma.F)
    return alpha


def principal_value(model: Model, gamma: float) -> Averages:
    """The averages at gamma > 1 as Cauchy principal values: the real part of the integral along the ray."""
    on_ray = averages(model, gamma, ray=RAY)
    return Averages(*(average.real for average in on_ray))


def tangent_zero(gamma: complex, at_gamma: Averages) -> float:
    """Load at which the tangent to m^2(alpha) vanishes, alpha - m^2 / (d m^2 / d alpha).

    gamma and the averages carry derivatives in their imaginary parts (complex step), exact to all digits.
    """
    alpha, overlap_sq = load_on_branch(gamma, at_gamma), overlap_sq_on_branch(gamma, at_gamma)
    zero: float = alpha.real - overlap_sq.real * alpha.imag / overlap_sq.imag
    return zero


def principal_value_end(model: Model) -> tuple[float, bool]:
    """Where the principal-value branch of a discontinuous transition ends.

    Returns
    -------
    gamma : float
        The zero of psi on the branch if there is one; otherwise the last scanned gamma at which alpha still
        falls with gamma.
    reached : bool
        Whether it is a zero of psi.
    """
    before, load_before, step = 1.0, math.inf, FIRST_STEP
    while step < _FARTHEST:
        gamma = 1 + step
        at_gamma = principal_value(model, gamma)
        if psi(gamma, at_gamma).real >= 0:
            root = brentq(lambda x: psi(x, principal_value(model, x)).real, before, gamma, **ROOT_TOLERANCE)
            return float(root), True
        load = load_on_branch(gamma, at_gamma).real
        if not 0 < load < load_before:
            break
        before, load_before = gamma, load
        step *= STEP_GROWTH
    return before, False


def complex_root(model: Model) -> complex:
    """The zero of psi, continued through the cut, that emerges from gamma = 1 when a passes its tricritical
    value.

    Followed in a by Newton's method from just past tricriticality, where it is the real principal-value zero,
    to the model's a. Its mirror image is a zero of the continuation along the mirrored ray.

    Returns
    -------
    complex
        gamma; nan where Newton's method fails.
    """
    start = max(a_tricritical(model.p, model.p_star, model.noise), _SMALL * min(model.a, 1.0))
    stages = math.ceil(math.log(model.a / start) / _HOMOTOPY_STEP) + 1
    gamma, previous = complex(1.0), complex(1.0)
    for a in np.geomspace(start, model.a, stages + 1)[1:]:
        stage = Model(model.p, model.p_star, min(float(a), model.a), model.noise)
        # Linear in a near tricriticality; far from it gamma changes by similar factors at every stage.
        step = gamma - previous
        if abs(step) > 0 and abs(previous - 1) > _FAR:
            step *= (gamma - 1) / (previous - 1)
        previous, gamma = gamma, _newton(stage, gamma + step)
    return gamma


def _newton(model: Model, gamma: complex) -> complex:
    def value(at: complex) -> complex:
        return psi(at, averages(model, at, ray=RAY))

    last = math.inf
    for _ in range(40):
        h = _NEWTON_STEP * abs(gamma)
        slope = (value(gamma + h) - value(gamma - h)) / (2 * h)
        step = -value(gamma) / slope
        size = abs(step / gamma)
        gamma += step * min(1.0, _NEWTON_LARGEST / max(size, 1e-300))
        if size < _NEWTON_ROUNDING or (size < _NEWTON_CLOSE and size > last / 4):
            return gamma  # converged to the last digits, or no longer improving
        last = size
    return complex(math.nan, math.nan)


def a_tricritical(p: int | float, p_star: int, noise: float = 0.0) -> float:
    """Offset a at which the transition changes kind: continuous below it, discontinuous above.

    The zero in a of psi(1) = B(1) + F(1), where alpha_bbp = alpha_sharp.

    Parameters
    ----------
    p : int or math.inf
        Student hidden units.
    p_star : int
        Teacher hidden units.
    noise : float, optional
        As in ``Model``.

    Returns
    -------
    float
        a > 0, decreasing with p and increasing with p_star; (1 + noise)^2 - 1 + p_star noise^2/2 at p = inf,
        where without noise every transition is discontinuous.

    Notes
    -----
    Accuracy 1e-12 relative; held by ``tests/test_theory.py``. Source: arXiv:2510.18435.
    """
    if as_real(p) == math.inf:
        noise = Model(p, p_star, 1.0, noise).noise
        return (1 + noise) ** 2 - 1 + p_star * noise**2 / 2

    def sign(log_a: float) -> float:
        at_one = averages(Model(p, p_star, math.exp(log_a), noise), 1.0)
        return 1 + float(at_one.F / at_one.B)

    low, high = -2.0, 2.0
    while sign(low) < 0:
        low *= 2
    while sign(high) > 0:
        high *= 2
    return math.exp(float(brentq(sign, low, high, xtol=1e-15, rtol=1e-15)))
