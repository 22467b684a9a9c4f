"""The averages of many models at once, with their errors, and Newton's method on them.

They are those of :mod:`bendscape.core.quadratic.theory.integrals`, with two changes that are worth while only
for many models. The integral over s is taken in x = a s, so that one rule for int_0^inf exp(-x) f(x) dx
serves every model. Since the integrands are powers of x near 0, the last nodes of that rule account for
everything that it cuts off (:func:`bendscape.core.quadratic.theory.integrals.short_rule`): at a = 1 sixty
nodes do what took two hundred and twenty.

Rotated rays give the continuations past gamma = 1, as there. For principal values the pole of q lies on the
real axis, and the ray at pi/4, halfway to where exp(-x) stops decaying, allows the longest steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model, as_load
from bendscape.core.quadratic.theory.branch import psi
from bendscape.core.quadratic.theory.integrals import RAY, Rule, short_rule
from bendscape.core.quadratic.theory.precision import Known, as_root

Array = npt.NDArray[Any]  # real or complex
Floats = npt.NDArray[np.float64]

CHUNK = 128  # models integrated together: temporaries of CHUNK x 100 doubles per term fit into the cache

_WIDEST = 1e200  # for larger p/2 a gamma law of that shape is a point to all digits: stands for p = inf
_MOST_STEPS = 60  # of Newton's method
_UNIT = 2.0**-53
_OPERATIONS = 4.0  # rounding errors of a term that do not grow with the exponents

# The C library returns memory above the largest block it ever freed to the system at once, and requests it
# again for every array: half the time of a map. A large block that is never touched prevents that.
np.empty(2**22, dtype=np.uint8)

HALFWAY = math.pi / 4
"""Angle of the ray on which principal values are taken."""


class Models(NamedTuple):
    """Flat arrays of parameters, one element for each model; p may hold inf."""

    p: Floats
    p_star: Floats
    a: Floats
    noise: Floats

    def at(self, which: Any) -> Models:
        """Some of the models."""
        return Models(*(values[which] for values in self))


def checked(name: str, values: npt.ArrayLike) -> Floats:
    """The values of one parameter of many models as an array of floats.

    Raises
    ------
    ParameterError
        One of them is outside its domain.
    """
    numbers = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if numbers.ndim > 1:
        raise ParameterError(name, f"an array of shape {numbers.shape}", "of at most one dimension")
    if not numbers.size:
        return numbers
    # The accepted values form an interval (of integers for p and p_star): check its ends, or the first bad
    # number.
    wrong = numbers != np.floor(numbers) if name.startswith("p") else np.isnan(numbers)
    for value in (*numbers[wrong][:1].tolist(), float(numbers.min()), float(numbers.max())):
        as_load(value) if name == "alpha" else Model(**{"p": 1, "p_star": 1, "a": 1.0, name: value})
    return numbers


def models_of(p: npt.ArrayLike, p_star: npt.ArrayLike, a: npt.ArrayLike, noise: npt.ArrayLike) -> Models:
    """Checked arrays of at most one dimension, broadcast against each other."""
    given = {"p": p, "p_star": p_star, "a": a, "noise": noise}
    columns = np.broadcast_arrays(*(checked(name, values) for name, values in given.items()))
    return Models(columns[0], columns[1], columns[2], columns[3])


class Averages(NamedTuple):
    """Those of ``bendscape.core.quadratic.theory.integrals.Averages``, C = E[u^3/D^3] and C_y, like B_y with
    the weight of the teacher: each of shape (models,)."""

    A: Any
    F: Any
    B: Any
    B_y: Any
    C: Any
    C_y: Any

    def at(self, which: Any) -> Averages:
        """Those of some of the models."""
        return Averages(*(values[which] for values in self))

    def prime(self) -> Averages:
        """Their derivatives in gamma; those of C and C_y would be of the next order."""
        unknown = np.full_like(self.A, math.nan)
        slopes = (-self.B, self.B - self.B_y, -2 * self.C, -2 * self.C_y)
        return Averages(*slopes, unknown, unknown)


class Rules(NamedTuple):
    """The rules of one line of integration, by accuracy."""

    coarse: partial[Rule]  # 1e-5 or better, for the iterations towards a root
    fine: partial[Rule]
    refined: partial[Rule]  # for error estimates: shifted by half a step, wider
    bound: partial[Rule]  # one digit of positive quantities


def _rules(coarse: float, fine: float, bound: float, ray: float) -> Rules:
    """The rules with these steps."""
    aside = 40.0 * math.exp(1.5 * fine)  # shifted by one and a half nodes: discretisation errors change sign
    return Rules(
        partial(short_rule, step=coarse, depth=8.0, height=22.0, powers=2, ray=ray),
        partial(short_rule, step=fine, depth=11.0, height=40.0, powers=3, ray=ray),
        partial(short_rule, step=fine, depth=12.3, height=aside, powers=3, ray=ray),
        partial(short_rule, step=bound, depth=5.0, height=10.0, powers=1, ray=ray),
    )


# The error of a step h in a strip of half-width d is about exp(-2 pi d/h).
REAL = _rules(0.45, 0.25, 0.7, 0.0)  # d = pi/2
PRINCIPAL = _rules(0.25, 0.11, 0.5, HALFWAY)  # d = pi/4
CONTINUED = _rules(0.12, 0.05, 0.25, RAY)  # d = 0.32


def _log2_scales(a: Floats, gamma: Array) -> npt.NDArray[np.int_]:
    """The rule that reaches down to the smallest scale in x of each model, a/|gamma| beyond |gamma| = 1."""
    least = a / np.fmax(abs(gamma), 1.0)  # fmax: ignore a gamma that was not found
    return np.asarray(np.floor(np.log2(least)), dtype=int)


def _log1p(z: Array) -> Array:
    """log(1 + z); numpy's function loses the digits of a small complex z."""
    if not np.iscomplexobj(z):
        return np.asarray(np.log1p(z))
    out = np.empty_like(z)
    out.real = np.log1p(z.real * (2 + z.real) + z.imag * z.imag) / 2
    out.imag = np.arctan2(z.imag, 1 + z.real)
    return out


def averages(models: Models, gamma: Array, rule: partial[Rule]) -> Averages:
    """A, F, B, B_y of ``bendscape.core.quadratic.theory.integrals.averages``, C = E[u^3/D^3] and C_y, each
    model at its gamma.

    C_y carries the teacher's weight, y without noise. Derivatives: A' = -B, F' = B - B_y, B' = -2 C, B_y' =
    -2 C_y. Accuracy of the fine rules 1e-14 relative (A to 1e-14 of E|u/D|), held by ``tests/test_maps.py``.
    The values of a model do not depend on the other models, to the last bit.
    """
    return _by_chunks(models, gamma, rule)


def known(models: Models, gamma: Array, values: Averages, rules: Rules) -> Known:
    """Averages at an exact gamma with error estimates, as arrays: see
    ``bendscape.core.quadratic.theory.integrals.averages_errors``.

    Twice the distance from the refined rule, plus a bound on rounding errors. Real values are principal
    values where the rules are complex.
    """
    refined = averages(models, gamma, rules.refined)
    bounds = _by_chunks(models, gamma, rules.bound, rounding=True)
    if not np.iscomplexobj(values.A):
        refined = real(refined)
    pairs = zip(values, refined, bounds, strict=True)
    errors = Averages(*(2 * abs(value - better) + bound for value, better, bound in pairs))
    return Known(gamma, 0.0, values, errors, refined.prime())


def real(values: Averages) -> Averages:
    """The real parts: principal values on a ray."""
    return Averages(*(value.real for value in values))


def _by_chunks(models: Models, gamma: Array, rule: partial[Rule], rounding: bool = False) -> Averages:
    """Evaluate the models of one rule together, so that no value depends on the other models in the call."""
    scales = _log2_scales(models.a, gamma)
    order = np.argsort(scales, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scales[order])) + 1, len(order))
    first, parts = 0, []
    for end in ends.tolist():
        for start in range(first, end, CHUNK):
            here = order[start : min(start + CHUNK, end)]
            nodes = rule(int(scales[here[0]]))
            parts.append(_integrate(models.at(here), gamma[here], nodes, rounding))
        first = end
    if not parts:
        return Averages(*np.empty((len(Averages._fields), 0)))
    rows = np.concatenate(parts, axis=1)
    found = np.empty_like(rows)
    found[:, order] = rows
    return Averages(*found)


def _integrate(models: Models, gamma: Array, rule: Rule, rounding: bool = False) -> Averages:
    """The averages by one rule or, if asked for, bounds on their rounding errors."""
    x, weight = rule
    p, p_star, a, noise, gamma = (values[:, np.newaxis] for values in (*models, gamma))
    n, m, spread = p_star / 2, np.minimum(p / 2, _WIDEST), 1 + noise
    one_n, one_m, more = 1 / n, 1 / m, 1 + 1 / n  # dividing arrays takes four times as long as multiplying
    s = x * (1 / a)
    s_y = s * (spread * (1 - gamma) / n)
    q = 1 / (1 + s_y)
    log_y = n * _log1p(s_y)
    y = spread * q
    y_n = y * one_n
    var_y = y * y_n
    third_y = 2 * var_y * y_n
    var_y_y, third_y_y = more * var_y, more * third_y
    q_less, var_q, half_s = q - 1, var_y * (1 / spread), s / 2
    total = np.zeros((6, len(a)), dtype=float if rounding else s_y.dtype)
    for c, share in ((1.0, 1 - 1 / p), (3.0, 1 / p)):
        if not share.any():
            continue
        s_yhat = s * (c * gamma / m)
        ck = c / (1 + s_yhat)
        log_yhat = m * _log1p(s_yhat)
        mass = np.exp(-(log_y + log_yhat)) * (weight * (share / a))
        mass_s = mass * s
        mass_ss = mass_s * half_s
        masses = (mass, mass, mass_s, mass_s * q, mass_ss, mass_ss * q)
        # Under the tilted law: mean, variance and third cumulant of u; a weight y turns shape n into n + 1.
        u = ck - y
        ck_m = ck * one_m
        var_yhat = ck * ck_m
        third_yhat = 2 * var_yhat * ck_m
        square, var_u = u * u, var_yhat + var_y
        u_y, var_u_y = u - y_n, var_yhat + var_y_y
        square_y = u_y * u_y
        terms = (
            u,
            q_less * u - var_q,
            square + var_u,
            square_y + var_u_y,
            u * (square + 3 * var_u) + (third_yhat - third_y),
            u_y * (square_y + 3 * var_u_y) + (third_yhat - third_y_y),
        )
        if not rounding:
            total += [np.vecdot(of.conj(), term) for of, term in zip(masses, terms, strict=True)]
            continue
        # The weight, exponential of a sum, rounds like the sum; u and q - 1 like what they are made of.
        growth = _OPERATIONS + abs(np.log(abs(x))) + abs(x) + abs(log_y) + abs(log_yhat)
        made_of = abs(ck) + abs(y) * more
        of_square = made_of * (2 * abs(u) + abs(y_n)) + abs(var_yhat) + abs(var_y_y)
        of_cube = 3 * made_of * (of_square + abs(square)) + abs(third_yhat) + abs(third_y_y)
        made = (
            made_of,
            abs(u) + abs(q_less) * made_of + abs(var_y),
            of_square,
            of_square,
            of_cube,
            of_cube,
        )
        total += [
            np.vecdot(abs(of), growth * abs(term) + _OPERATIONS * parts)
            for of, term, parts in zip(masses, terms, made, strict=True)
        ]
    return _with_teacher(_UNIT * total if rounding else total, models)


def _with_teacher(rows: Array, models: Models) -> Averages:
    """From the weight y0 to the teacher's, (y0 + noise)/(1 + noise); the same for errors."""
    A, F, B, B_y, C, C_y = rows
    if models.noise.any():
        spread = 1 + models.noise
        F, B_y, C_y = F / spread, (B_y + models.noise * B) / spread, (C_y + models.noise * C) / spread
    return Averages(A, F, B, B_y, C, C_y)


def newton_step(gamma: Array, at_gamma: Averages) -> Array:
    """Newton's step towards the zero of psi/B = gamma + F/B, which stays close to a straight line where a is
    small and psi = gamma B + F is steep."""
    _, F, B, B_y, C, _ = at_gamma
    return np.asarray(-(gamma + F / B) / (1 + (B - B_y + 2 * C * F / B) / B))


Equation = Callable[[npt.NDArray[np.int_], Floats, Averages], tuple[Floats, Floats]]
"""An equation and Newton's step towards its zero, for some models (given by index) at their gamma."""


def of_psi(which: npt.NDArray[np.int_], gamma: Floats, at_gamma: Averages) -> tuple[Floats, Floats]:
    """The equation psi = 0."""
    return np.asarray(gamma * at_gamma.B + at_gamma.F), newton_step(gamma, at_gamma)


def approach(
    models: Models,
    gamma: Floats,
    bracket: tuple[Floats, Floats],
    rule: partial[Rule],
    close: Floats,
    equation: Equation = of_psi,
) -> tuple[Floats, Averages, Floats]:
    """The zero of an equation by Newton's method inside a shrinking bracket, until the next step is below
    ``close``.

    The equation is < 0 at the lower end of the bracket and >= 0 at the upper end; above gamma = 1 the
    averages are principal values. Returns the last gamma, the averages there, and the step not taken: nan
    where the method did not converge.
    """
    at = np.full((len(Averages._fields), len(gamma)), math.nan)
    low, high = (end.copy() for end in bracket)
    gamma, step, left = gamma.copy(), np.zeros_like(gamma), np.arange(len(gamma))
    for _ in range(_MOST_STEPS):
        here = gamma[left]
        at_here = real(averages(models.at(left), here, rule))
        at[:, left] = at_here
        value, step[left] = equation(left, here, at_here)
        above = value >= 0
        low[left], high[left] = np.where(above, low[left], here), np.where(above, here, high[left])
        left = left[~(np.abs(step[left]) <= close[left])]
        if not left.size:
            break
        aim, middle = gamma[left] + step[left], (low[left] + high[left]) / 2
        gamma[left] = np.where((low[left] < aim) & (aim < high[left]), aim, middle)
    step[left] = math.nan
    return gamma, Averages(*at), step


def after_last_step(gamma: Array, at_gamma: Averages, step: Array) -> tuple[Array, Averages]:
    """gamma + step and the averages there to second order in the step, which costs no further evaluation."""
    A, F, B, B_y, C, C_y = at_gamma
    moved = Averages(
        A - B * step + C * step**2,
        F + (B - B_y) * step + (C_y - C) * step**2,
        B - 2 * C * step,
        B_y - 2 * C_y * step,
        C,
        C_y,
    )
    return gamma + step, moved


def known_at_zero(models: Models, gamma: Array, values: Averages, rules: Rules) -> Known:
    """Averages and errors at a computed zero of psi; the remaining value of psi there counts as an error
    too."""
    at_root = as_root(known(models, gamma, values, rules), psi)
    return at_root._replace(gamma_error=at_root.gamma_error + abs(newton_step(gamma, values)))
