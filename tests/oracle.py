"""The theory to any number of digits: slow, and sharing only the formulas with the package.

Two levels. ``direct_averages`` is a quadrature over the law of y, without any Laplace transform.
``laplace_averages`` is the Laplace form in extended precision, fast enough to solve equations with; it is
itself held against the direct quadrature, and ``transition``, ``left_edge`` and ``outlier`` stand on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath as mp

from bendscape.core.quadratic.model import Model

Number = Any  # mpmath has no types
DIGITS = 30


def _sectors(p: float) -> list[tuple[int, Number]]:
    if math.isinf(p):
        return [(1, mp.mpf(1))]
    return [(c, share) for c, share in ((1, (p - mp.mpf(1)) / p), (3, mp.mpf(1) / p)) if share]


def inverse_moments(p: float, offset: Number, slope: Number) -> tuple[Number, Number]:
    """E[1/D] and E[1/D^2] of D = offset + slope yhat: generalised exponential integrals."""
    if math.isinf(p):
        return 1 / (offset + slope), 1 / (offset + slope) ** 2
    m = mp.mpf(p) / 2
    b = m * offset / slope
    scale, at_m = mp.exp(b) * m / slope, mp.expint(m, b)
    # E_(m-1) from the recurrence (m-1) E_m = exp(-b) - b E_(m-1)
    return scale * at_m, scale * (m / slope) * ((mp.exp(-b) - (m - 1) * at_m) / b - at_m)


def direct_averages(model: Model, gamma: float, digits: int = 20) -> tuple[Number, ...]:
    """A, F, B and B_y by quadrature over y ~ chi2_{p_star}/p_star, the average over yhat in closed form.

    With u = (D - a - y)/gamma: E[u/D | y] = (1 - (a+y) E[1/D])/gamma and E[u^2/D^2 | y] = (1 - 2 (a+y) E[1/D]
    + (a+y)^2 E[1/D^2])/gamma^2, which wants extra digits at small gamma.
    """
    with mp.workdps(digits + 4 + 2 * math.ceil(-math.log10(gamma)) + math.ceil(abs(math.log10(model.a)))):
        a, x, dof = mp.mpf(model.a), mp.mpf(gamma), model.p_star
        half = mp.mpf(dof) / 2
        norm = mp.power(2, 1 - half) / mp.gamma(half)
        found: dict[Number, tuple[Number, ...]] = {}

        def terms(r: Number) -> tuple[Number, ...]:
            if r not in found:
                y = r * r / dof
                first = second = mp.mpf(0)
                for c, share in _sectors(model.p):
                    one, two = inverse_moments(model.p, a + (1 - x) * y, x * c)
                    first += share * (1 - (a + y) * one) / x
                    second += share * (1 - 2 * (a + y) * one + ((a + y) ** 2) * two) / x**2
                density = norm * mp.power(r, dof - 1) * mp.exp(-r * r / 2)
                found[r] = tuple(density * each for each in (first, (y - 1) * first, second, y * second))
            return found[r]

        centre, reach = math.sqrt(dof), math.sqrt(2 * math.log(10) * (digits + 4))
        scales = {math.sqrt(model.a * dof), 1.0, centre - 2, centre, centre + 2, centre + reach / 2}
        low, high = max(0.0, centre - reach), centre + reach
        cuts = [low, *sorted(scale for scale in scales if low < scale < high), high]
        return tuple(mp.quad(lambda r, i=i: terms(r)[i], cuts) for i in range(4))


def laplace_averages(model: Model, gamma: Number, ray: float = 0.0) -> tuple[Number, ...]:
    """A, F, B and B_y by the trapezoidal rule in log s, to about 24 digits; ``ray`` turns the line."""
    n, m, a = mp.mpf(model.p_star) / 2, mp.mpf(model.p) / 2, mp.mpf(model.a)
    turn, digits = mp.mpf(ray), 24
    step = mp.mpf("0.04") if ray else mp.mpf("0.15")
    left = -mp.log(10) * digits - mp.log1p(a)
    right = mp.log(mp.log(10) * digits / (a * mp.cos(turn)))
    s = mp.exp(left + 1j * turn) if ray else mp.exp(left)
    A = F = B = B_y = mp.mpf(0)
    for _ in range(int((right - left) / step) + 2):
        s_y = s * (1 - gamma) / n
        q = 1 / (1 + s_y)
        var_y = q * q / n
        log_mass = -a * s - n * mp.log1p(s_y)
        for c, share in _sectors(model.p):
            if math.isinf(model.p):
                k, var_yhat, weight = mp.mpf(1), mp.mpf(0), mp.exp(log_mass - gamma * c * s)
            else:
                s_yhat = s * gamma * c / m
                k = 1 / (1 + s_yhat)
                var_yhat, weight = (c * k) ** 2 / m, mp.exp(log_mass - m * mp.log1p(s_yhat))
            weight *= step * s * share
            u = c * k - q
            A += weight * u
            F += weight * ((q - 1) * u - var_y)
            B += weight * s * (u * u + var_yhat + var_y)
            B_y += weight * s * q * ((u - q / n) ** 2 + var_yhat + (1 + 1 / n) * var_y)
        s *= mp.exp(step)
    return A, F, B, B_y


def root(function: Callable[[Number], Number], near: Number) -> Number:
    """Zero of a function by the secant method, from a start that is good to several digits."""
    before, after = mp.mpmathify(near), mp.mpmathify(near) * (1 + mp.mpf(10) ** -9)
    at_before, at_after = function(before), function(after)
    for _ in range(12):
        if at_after == at_before:
            break
        step = -at_after * (after - before) / (at_after - at_before)
        before, at_before = after, at_after
        after += step
        if abs(step) < abs(after) * mp.mpf(10) ** -12:  # the next one is at most 1e-9 of it
            break
        at_after = function(after)
    return after


def transition(model: Model, gamma: float) -> dict[str, Number]:
    """alpha_bbp, alpha_sharp, lambda_minus at it and overlap_sq just above; gamma is a start for the root."""
    with mp.workdps(DIGITS):
        A, F, B, B_y = laplace_averages(model, mp.mpf(1))
        alpha_sharp, jump, x = 1 / B, (B + F) / (B + F - B_y), mp.mpf(1)
        if B + F >= 0:

            def psi(at: Number) -> Number:
                _, F, B, _ = laplace_averages(model, at)
                return at * B + F

            x, jump = root(psi, gamma), mp.mpf(0)
            A, F, _, _ = laplace_averages(model, x)
        alpha_bbp = -1 / (x * F)
        return {
            "alpha_bbp": alpha_bbp,
            "alpha_sharp": alpha_sharp,
            "lambda_minus": (2 / mp.mpf(model.p)) * (-1 / x + alpha_bbp * A),
            "overlap_sq_jump": jump,
        }


def left_edge(model: Model, alpha: float, gamma: float) -> Number:
    """lambda_minus; gamma is a start for the root at a sharp edge, and 1 at a smooth one."""
    with mp.workdps(DIGITS):
        x = mp.mpf(gamma)
        if x < 1:
            x = root(lambda at: 1 / mp.sqrt(alpha * laplace_averages(model, at)[2]) - at, x)
        return (2 / mp.mpf(model.p)) * (-1 / x + alpha * laplace_averages(model, x)[0])


def outlier(model: Model, alpha: float, gamma: float) -> tuple[Number, Number]:
    """lambda_star and overlap_sq; gamma is a start for the root."""
    with mp.workdps(DIGITS):
        x = root(lambda at: alpha * at * laplace_averages(model, at)[1] + 1, gamma)
        A, F, B, B_y = laplace_averages(model, x)
        psi = x * B + F
        return (2 / mp.mpf(model.p)) * (-1 / x + alpha * A), psi / (psi - x * B_y)


def alpha_0(model: Model, gamma: complex, ray: float, principal: bool) -> Number:
    """Load at the zero of psi past gamma = 1, near a start: of its principal value, or continued."""
    with mp.workdps(DIGITS):

        def at(x: Number) -> tuple[Number, ...]:
            values = laplace_averages(model, x, ray)
            return tuple(value.real for value in values) if principal else values

        def psi(x: Number) -> Number:
            _, F, B, _ = at(x)
            return x * B + F

        x = root(psi, gamma)
        return -1 / (x * at(x)[1])
