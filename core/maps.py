"""Thresholds of many models at once: the transition on the outer product of axes of p, p_star and a.

The averages are those of :mod:`bendscape.core.integrals`, with two changes that only pay when there are
many. The integral over s is taken in x = a s, so that one set of nodes and weights for int_0^inf exp(-x) f(x)
dx serves every model. And since the integrands are powers of x near 0, what the trapezoidal rule in log x
cuts off on the left is a sum of geometric series, which the last nodes take over with their weights: at a = 1
sixty nodes do what two hundred and twenty did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import elementwise

from bendscape.core.model import TRANSITION_KINDS, Model, ParameterError
from bendscape.core.outlier import alpha_0 as alpha_0_of

Floats = npt.NDArray[np.float64]

CHUNK = 128  # models worked on together: what is in flight, about CHUNK x 100 doubles a term, stays in cache

_WIDEST = 1e200  # p/2 from which a gamma law of that shape is a point to all digits: p = inf as a number
_LARGEST_STEPS = 60
_COARSE_CLOSE = 1e-3  # relative: Newton's next step then lands within the coarse rule's own error
_COARSE_LOG_A = 1e-6
_FINE_CLOSE = 3e-7  # relative: past it a tangent is good to the square, 1e-13


class Map(NamedTuple):
    """The arguments of ``xarray.Dataset``, in its order: ``xr.Dataset(*transition_map(...))``.

    ``data_vars`` and ``coords`` map a name to (dims, array, attrs).
    """

    data_vars: dict[str, tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]]
    coords: dict[str, tuple[tuple[str, ...], npt.NDArray[Any], dict[str, Any]]]
    attrs: dict[str, Any]


class _Rule(NamedTuple):
    """Nodes x and weights w of int_0^inf exp(-x) f(x) dx = sum w f(x), for f that varies on any scale >=
    a_least."""

    x: Floats
    weight: Floats


class _Models(NamedTuple):
    """Flat arrays of parameters, one element a model; p may hold inf."""

    p: Floats
    p_star: Floats
    a: Floats

    def at(self, which: Any) -> _Models:
        return _Models(*(values[which] for values in self))


class _Averages(NamedTuple):
    """Those of ``bendscape.core.integrals.Averages``, and E[u^3/D^3]: each of shape (models,)."""

    A: Floats
    F: Floats
    B: Floats
    B_y: Floats
    C: Floats


@lru_cache(maxsize=64)
def _rule(log2_a: int, step: float, depth: float, height: float, powers: int) -> _Rule:
    """Trapezoidal rule in log x from ``height`` down to exp(-depth) of the least scale, 2^log2_a or 1.

    With f(x) a polynomial of degree below ``powers`` at the lower end, the terms that are cut off are sums of
    r^(jk), j >= 1, for the powers x^k, k = 1..powers, with r = exp(-step): r^k/(1 - r^k) each. Weights beta_i
    of the last nodes, sum_i beta_i r^(-ik) = r^k/(1 - r^k), stand for them.
    """
    lowest = -depth + math.log(2) * min(log2_a, 0)
    count = math.ceil((math.log(height) - lowest) / step) + 1
    x = height * np.exp(-step * np.arange(count))
    weight = step * x * np.exp(-x)
    r, k = math.exp(-step), np.arange(1, powers + 1)
    beta = np.linalg.solve(r ** -np.outer(k, np.arange(powers)), r**k / (1 - r**k))
    weight[: -powers - 1 : -1] *= 1 + beta
    return _Rule(x, weight)


def _fine(a: Floats) -> _Rule:
    return _rule(math.floor(math.log2(a.min())), 0.25, 11.0, 40.0, 3)


def _coarse(a: Floats) -> _Rule:
    return _rule(math.floor(math.log2(a.min())), 0.45, 8.0, 22.0, 2)


def _averages(models: _Models, gamma: Floats, rule: Callable[[Floats], _Rule]) -> _Averages:
    """A, F, B, B_y of ``bendscape.core.integrals.averages`` and C = E[u^3/D^3], for each model at its gamma.

    C gives the derivatives: A' = -B, F' = B - B_y, B' = -2 C. Accuracy of the fine rule 1e-14 relative (A to
    1e-14 of E|u/D|), held by ``tests/test_maps.py``.
    """
    x, weight = rule(models.a)
    p, p_star, a, gamma = (values[:, np.newaxis] for values in (*models, gamma))
    n, m = p_star / 2, np.minimum(p / 2, _WIDEST)
    s = x / a
    s_y = s * ((1 - gamma) / n)
    q = 1 / (1 + s_y)
    var_y = q * q / n
    log_y = n * np.log1p(s_y)
    total = np.zeros((5, len(a)))
    for c, share in ((1.0, 1 - 1 / p), (3.0, 1 / p)):
        if not share.any():
            continue
        s_yhat = s * (c * gamma / m)
        ck = c / (1 + s_yhat)
        mass = np.exp(-log_y - m * np.log1p(s_yhat)) * (share / a)
        mass_s = mass * s
        u = ck - q
        # Under the tilted law: variance and third cumulant of u; a weight y turns shape n into n + 1.
        var_yhat = ck * ck / m
        var_u = var_yhat + var_y
        third_u = 2 * (var_yhat * (ck / m) - var_y * (q / n))
        total += [
            (mass * u) @ weight,
            (mass * ((q - 1) * u - var_y)) @ weight,
            (mass_s * (u * u + var_u)) @ weight,
            (mass_s * q * ((u - q / n) ** 2 + var_yhat + (1 + 1 / n) * var_y)) @ weight,
            (mass_s * s * (u * (u * u + 3 * var_u) + third_u)) @ weight / 2,
        ]
    return _Averages(*total)


def _newton_step(gamma: Floats, at_gamma: _Averages) -> Floats:
    """Newton's step towards the zero of psi/B = gamma + F/B, which stays close to a straight line where a is
    small and psi = gamma B + F is steep."""
    _, F, B, B_y, C = at_gamma
    return -(gamma + F / B) / (1 + (B - B_y + 2 * C * F / B) / B)


def _approach(
    models: _Models, gamma: Floats, rule: Callable[[Floats], _Rule], close: float
) -> tuple[Floats, _Averages, Floats]:
    """Newton's method inside a shrinking bracket, until the next step is below ``close`` gamma.

    Returns the last gamma, the averages there, and the step not taken: nan where the method did not converge.
    """
    at = np.full((len(_Averages._fields), len(gamma)), math.nan)
    low, high = np.zeros_like(gamma), np.ones_like(gamma)
    gamma, step, left = gamma.copy(), np.zeros_like(gamma), np.arange(len(gamma))
    for _ in range(_LARGEST_STEPS):
        here = gamma[left]
        at_here = _averages(models.at(left), here, rule)
        at[:, left] = at_here
        step[left] = _newton_step(here, at_here)
        above = here * at_here.B + at_here.F >= 0
        low[left], high[left] = np.where(above, low[left], here), np.where(above, here, high[left])
        left = left[~(np.abs(step[left]) <= close * here)]
        if not left.size:
            break
        aim, middle = gamma[left] + step[left], (low[left] + high[left]) / 2
        gamma[left] = np.where((low[left] < aim) & (aim < high[left]), aim, middle)
    step[left] = math.nan
    return gamma, _Averages(*at), step


def _transitions(models: _Models) -> dict[str, npt.NDArray[Any]]:
    """The fields of ``bendscape.core.outlier.Transition`` as flat arrays, the kind as int8."""
    gamma = np.ones_like(models.a)
    at_one = _averages(models, gamma, _fine)
    psi_one = at_one.B + at_one.F
    continuous = psi_one >= 0
    overlap_sq = np.where(continuous, 0.0, psi_one / (psi_one - at_one.B_y))
    A, F = at_one.A.copy(), at_one.F.copy()

    sharp = np.flatnonzero(continuous)
    if sharp.size:
        chosen = models.at(sharp)
        start = 1 + _newton_step(gamma, at_one)[sharp]
        rough, _, step = _approach(chosen, np.where(start > 0, start, 0.5), _coarse, _COARSE_CLOSE)
        here, at_here, step = _approach(chosen, np.clip(rough + step, rough / 2, 1.0), _fine, _FINE_CLOSE)
        # The last step is taken along the tangents, so that it costs no further evaluation.
        gamma[sharp] = here + step
        A[sharp] = at_here.A - at_here.B * step
        F[sharp] = at_here.F + (at_here.B - at_here.B_y) * step

    alpha_bbp = -1 / (gamma * F)
    kinds = [TRANSITION_KINDS.index(kind) for kind in ("continuous", "discontinuous")]
    return {
        "alpha_bbp": alpha_bbp,
        "transition": np.where(continuous, *kinds).astype(np.int8),
        "alpha_sharp": 1 / at_one.B,
        "gamma": gamma,
        "lambda_minus": (2 / models.p) * (-1 / gamma + alpha_bbp * A) + 0.0,
        "overlap_sq": overlap_sq,
    }


def _tricritical(p: Floats, p_star: Floats) -> Floats:
    """``a_tricritical`` of flat arrays: the zero of 1 + F/B at gamma = 1, in log a; 0 at p = inf."""
    a = np.zeros_like(p)
    finite = np.isfinite(p)
    p, p_star = p[finite], p_star[finite]
    if not p.size:
        return a

    def excess(log_a: Floats, p: Floats, p_star: Floats, rule: Callable[[Floats], _Rule] = _coarse) -> Floats:
        at_one = _averages(_Models(p, p_star, np.exp(log_a)), np.ones_like(p), rule)
        return 1 + at_one.F / at_one.B

    args, start = (p, p_star), np.zeros_like(p)
    bracket = elementwise.bracket_root(excess, start - 1, start + 1, args=args).bracket
    tolerances = {"xatol": _COARSE_LOG_A, "xrtol": 0.0, "fatol": 0.0, "frtol": 0.0}
    found = elementwise.find_root(excess, bracket, args=args, tolerances=tolerances)
    # Two secants of the fine rule: from errors of 1e-4 and 1e-6 to 1e-10, then to the last digits.
    here = np.where(found.success, found.x, math.nan)
    before = here + 1e-4
    value_before = excess(before, p, p_star, _fine)
    for _ in range(2):
        value = excess(here, p, p_star, _fine)
        slope = (value - value_before) / (here - before)
        before, value_before, here = here, value, here - value / slope
    a[finite] = np.exp(here)
    return a


def transition_map(
    *,
    p: Iterable[float] | float,
    p_star: Iterable[int] | int,
    a: Iterable[float] | float,
    alpha_0: bool = False,
) -> Map:
    """The transition of every model of a grid: thresholds, kind, edge and jump over (p, p_star, a).

    The quantities of :func:`bendscape.core.outlier.transition`, by the same equations: psi(gamma) = gamma B +
    F = 0 in (0, 1) where psi(1) >= 0 (continuous), gamma = 1 otherwise (discontinuous), alpha_bbp = -1/(gamma
    F), alpha_sharp = 1/B(1), lambda_minus = (2/p)(-1/gamma + alpha_bbp A), jump psi/(psi - B_y) at gamma = 1.

    Parameters
    ----------
    p, p_star, a : number or iterable of numbers
        The axes, each in the order given, with the domains of :class:`bendscape.core.model.Model`; p may hold
        inf.
    alpha_0 : bool
        Also the three definitions of :func:`bendscape.core.outlier.alpha_0`, model by model: tens of
        milliseconds for each discontinuous one.

    Returns
    -------
    Map
        ``xr.Dataset(*transition_map(...))`` makes the dataset. On (p, p_star, a): ``alpha_bbp``,
        ``transition`` (int8, with ``flag_values`` and ``flag_meanings``), ``alpha_sharp``, ``gamma``,
        ``lambda_minus`` (in units of the eigenvalues of H), ``overlap_sq`` (the jump: its limit from above
        alpha_bbp, 0 when continuous), and with ``alpha_0``: ``alpha_0_principal_value``, ``alpha_0_tangent``,
        ``alpha_0_complex_re``, ``alpha_0_complex_im``. On (p, p_star): ``a_tricritical``. nan where a root
        was not found, or a branch has none.

    Notes
    -----
    Limits: those of the scalar functions; one element is their value. Accuracy 1e-12 relative for p and
    p_star up to 512 and p = inf, a from 1e-6 to 1e3, at any distance from tricriticality; of
    ``lambda_minus``, a difference, relative to 2/(p gamma); of a small jump, also a difference, 1e-14
    absolute. Held by ``tests/test_maps.py``. Memory beside the result: as much again, and a few megabytes.
    Source: arXiv:2510.18435.
    """
    axes = {
        "p": _axis("p", p, lambda value: Model(value, 1, 1.0).p),
        "p_star": _axis("p_star", p_star, lambda value: Model(1, value, 1.0).p_star),
        "a": _axis("a", a, lambda value: Model(1, 1, value).a),
    }
    shape = tuple(len(values) for values in axes.values())
    p_axis, p_star_axis, a_axis = (np.asarray(values, dtype=np.float64) for values in axes.values())
    parts = [_transitions(models) for models in _chunks(p_axis, p_star_axis, a_axis)]
    data = {name: np.concatenate([part[name] for part in parts]).reshape(shape) for name in parts[0]}
    if alpha_0:
        data |= _alpha_0_on(axes, shape)
    pairs = _chunks(p_axis, p_star_axis, np.ones(1))
    tricritical = np.concatenate([_tricritical(models.p, models.p_star) for models in pairs])
    dims = tuple(axes)
    return Map(
        data_vars={
            **{name: (dims, values, _attributes(name)) for name, values in data.items()},
            "a_tricritical": (dims[:2], tricritical.reshape(shape[:2]), _attributes("a_tricritical")),
        },
        coords={name: ((name,), np.array(values), _attributes(name)) for name, values in axes.items()},
        attrs={"source": "arXiv:2510.18435"},
    )


_LONG_NAMES = {
    "p": "width of the student",
    "p_star": "width of the teacher",
    "a": "constant of the loss",
    "alpha_bbp": "threshold of the teacher's outlier as N goes to infinity",
    "transition": "kind of the transition at alpha_bbp",
    "alpha_sharp": "the left edge is smooth below this alpha and sharp above it",
    "gamma": "reduced Stieltjes variable -2 g/p of the edge at alpha_bbp",
    "lambda_minus": "left edge of the bulk at alpha_bbp",
    "overlap_sq": "squared overlap of the outlier just above alpha_bbp: the jump",
    "a_tricritical": "the transition is continuous below this a and discontinuous above it",
    "alpha_0_principal_value": "alpha_0 on the principal-value branch; NaN where that has no zero",
    "alpha_0_tangent": "alpha_0 by the tangent to overlap_sq at alpha_bbp",
    "alpha_0_complex_re": "alpha_0 at the complex zero of the continued branch, real part",
    "alpha_0_complex_im": "alpha_0 at the complex zero of the continued branch, imaginary part",
}


def _attributes(name: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {"long_name": _LONG_NAMES[name], "units": "1"}
    if name == "transition":
        attributes["flag_values"] = list(range(len(TRANSITION_KINDS)))
        attributes["flag_meanings"] = " ".join(TRANSITION_KINDS)
    return attributes


def _axis(name: str, values: Any, checked: Callable[[Any], Any]) -> list[Any]:
    given = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    if not given:
        raise ParameterError(name, given, "at least one number")
    return [checked(value) for value in given]


def _chunks(p: Floats, p_star: Floats, a: Floats) -> Iterator[_Models]:
    """The outer product in slices of at most ``CHUNK`` models, the last axis fastest."""
    shape = len(p), len(p_star), len(a)
    total = math.prod(shape)
    for start in range(0, total, CHUNK):
        i, j, k = np.unravel_index(np.arange(start, min(start + CHUNK, total)), shape)
        yield _Models(p[i], p_star[j], a[k])


def _alpha_0_on(axes: dict[str, list[Any]], shape: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    found = [
        alpha_0_of(Model(p, p_star, a)) for p in axes["p"] for p_star in axes["p_star"] for a in axes["a"]
    ]
    return {
        f"alpha_0_{name}": np.array([getattr(each, name) for each in found]).reshape(shape)
        for name in ("principal_value", "tangent", "complex_re", "complex_im")
    }
