"""The pre-critical windows of many models at once: alpha_0 by its three definitions, with errors.

The quantities that :func:`bendscape.core.quadratic.theory.outlier.alpha_0` computes one model at a time, for
whole arrays. The complex zero of psi leaves gamma = 1 at the tricritical offset, and log(gamma - 1) is a
smooth function of log(a - a_tricritical), close to a straight line at both ends: it is followed once for each
pair of widths, and interpolated for all offsets. The principal-value zero is searched for from there on, on
the grid of :func:`bendscape.core.quadratic.theory.branch.principal_value_end` and by its criterion.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bendscape.core.quadratic.theory.branch import (
    FIRST_STEP,
    STEP_GROWTH,
    load_on_branch,
    overlap_sq_on_branch,
    psi,
)
from bendscape.core.quadratic.theory.integrals import Rule
from bendscape.core.quadratic.theory.many import (
    CONTINUED,
    PRINCIPAL,
    Array,
    Averages,
    Floats,
    Models,
    Rules,
    after_last_step,
    approach,
    averages,
    known_at_zero,
    newton_step,
    real,
)
from bendscape.core.quadratic.theory.precision import Known, error_of

_STAGE = 0.5  # step in log(a - a_tricritical)
_NEAR = 1e-3  # relative a - a_tricritical of the first stage
_LARGEST_TURN = 0.5  # largest Newton step in log(gamma - 1)
_MOST_STEPS = 30
_ROUGH, _CLOSE = 1e-3, 3e-7  # relative to gamma - 1; the last step is taken to second order
_ROUNDING = 1e-13
_CLOSE_TO_ONE = 0.03  # for smaller gamma - 1, psi is too small a difference for coarse rules
_BEFORE = 0.4  # the principal-value zero lies beyond this fraction of |gamma - 1| of the complex one
_MOST_SCANNED = 60  # grid points


class Paths(NamedTuple):
    """log(gamma - 1) of the complex zero at stages of log(a - a_tricritical), for pairs of widths."""

    tricritical: Floats  # (pairs,)
    first: Floats  # (pairs,)
    log_root: Array  # (stages, pairs)

    def at(self, pair: Any, a: Floats) -> Array:
        """gamma at offsets a of the pairs with these indices, accurate to about three digits.

        By cubic interpolation, and by a straight line of slope one before the first stage.
        """
        place = (np.log(a - self.tricritical[pair]) - self.first[pair]) / _STAGE
        i = np.clip(np.floor(place).astype(int) - 1, 0, len(self.log_root) - 4)
        t = np.maximum(place, 0.0) - i
        shares = (
            -(t - 1) * (t - 2) * (t - 3) / 6,
            t * (t - 2) * (t - 3) / 2,
            -t * (t - 1) * (t - 3) / 2,
            t * (t - 1) * (t - 2) / 6,
        )
        log_root = sum(share * self.log_root[i + k, pair] for k, share in enumerate(shares))
        return np.asarray(1 + np.exp(log_root + _STAGE * np.minimum(place, 0.0)))


def paths(pairs: Models, least_a: float, tricritical: Floats) -> Paths:
    """The complex zero from just past tricriticality to the offset of each pair, and at least four stages."""
    first = np.log(_NEAR * np.maximum(tricritical, min(least_a, 1.0)))
    last = np.log(np.maximum(pairs.a - tricritical, np.exp(first)))
    stages = max(4, math.ceil((last - first).max() / _STAGE) + 1)
    log_root = np.full((stages, len(first)), math.nan, dtype=complex)
    one = np.ones(len(first), dtype=complex)
    for stage in range(stages):
        models = pairs._replace(a=tricritical + np.exp(first + stage * _STAGE))
        before = log_root[:stage]
        if stage == 0:
            gamma = one + abs(newton_step(one, averages(models, one, CONTINUED.fine)))
        elif stage == 1:
            gamma = 1 + np.exp(before[0] + _STAGE)
        elif stage == 2:
            gamma = 1 + np.exp(2 * before[1] - before[0])
        else:
            gamma = 1 + np.exp(3 * before[-1] - 3 * before[-2] + before[-3])
        # A stage beyond the last a of a pair is not needed there; its extrapolated value is left.
        wanted = (stage < 4) | (first + (stage - 1.5) * _STAGE < last)
        left = np.flatnonzero(wanted)
        here, _, step = _newton(models.at(left), gamma[left], _rough(CONTINUED, gamma[left]), _ROUGH)
        gamma[left] = here + step
        log_root[stage] = np.log(gamma - 1)
    return Paths(tricritical, first, log_root)


def _rough(rules: Rules, gamma: Array) -> partial[Rule]:
    return rules.fine if abs(gamma - 1).min() < _CLOSE_TO_ONE else rules.coarse


def _newton(models: Models, gamma: Array, rule: partial[Rule], close: float) -> tuple[Array, Averages, Array]:
    """The complex zero of psi near gamma; the last gamma, the averages there, and the step not taken."""
    at = np.full((len(Averages._fields), len(gamma)), math.nan, dtype=complex)
    gamma, step, left = gamma.copy(), np.zeros_like(gamma), np.arange(len(gamma))
    for _ in range(_MOST_STEPS):
        here = gamma[left]
        at[:, left] = at_here = averages(models.at(left), here, rule)
        step[left] = newton_step(here, Averages(*at_here))
        size = abs(step[left])
        onwards = ~(size <= close * abs(here - 1) + _ROUNDING * abs(here))
        left, size = left[onwards], size[onwards]
        if not left.size:
            break
        largest = _LARGEST_TURN * abs(gamma[left] - 1)
        gamma[left] += step[left] * np.minimum(1.0, largest / np.maximum(size, 1e-300))
    step[left] = math.nan
    return gamma, Averages(*at), step


def principal_value_and_complex(models: Models, start: Array) -> dict[str, Floats]:
    """Two of the definitions of alpha_0 with errors, for discontinuous models; ``start`` is from the
    paths."""
    rough, _, step = _newton(models, start, _rough(CONTINUED, start), _ROUGH)
    root = known_at_zero(
        models, *after_last_step(*_newton(models, rough + step, CONTINUED.fine, _CLOSE)), CONTINUED
    )
    continued: Any = load_on_branch(root.gamma, root.values)
    found = {
        "complex_re": continued.real,
        "complex_im": abs(continued.imag),
        "complex_error": np.asarray(error_of(root, load_on_branch)),
        "principal_value": np.full(len(start), math.nan),
        "principal_value_error": np.full(len(start), math.nan),
    }
    low, high = _principal_value_brackets(models, abs(root.gamma - 1))
    reached = np.flatnonzero(high > 0)
    if reached.size:
        chosen, ends = models.at(reached), (low[reached], high[reached])
        middle = np.sqrt((ends[0] - 1) * (ends[1] - 1))
        rough, _, step = approach(chosen, 1 + middle, ends, _rough(PRINCIPAL, 1 + middle), _ROUGH * middle)
        aim = np.clip(rough + step, *ends)
        close = _CLOSE * middle + _ROUNDING * aim
        zero = after_last_step(*approach(chosen, aim, ends, PRINCIPAL.fine, close))
        on_real_line = known_at_zero(chosen, *zero, PRINCIPAL)
        found["principal_value"][reached] = load_on_branch(on_real_line.gamma, on_real_line.values)
        found["principal_value_error"][reached] = error_of(on_real_line, load_on_branch)
    return found


def _principal_value_brackets(models: Models, distance: Floats) -> tuple[Floats, Floats]:
    """Grid points between which psi turns positive; the upper one is 0 if alpha turns around first."""
    first = np.floor(np.log(_BEFORE * distance / FIRST_STEP) / math.log(STEP_GROWTH))
    low, high = np.ones_like(distance), np.zeros_like(distance)
    load_before = np.full_like(distance, math.inf)
    left = np.flatnonzero(np.isfinite(first))
    rule = _rough(PRINCIPAL, 1 + distance)
    for k in range(_MOST_SCANNED):
        gamma = 1 + FIRST_STEP * STEP_GROWTH ** (first[left] + k)
        at_gamma = real(averages(models.at(left), gamma, rule))
        psi_here = gamma * at_gamma.B + at_gamma.F
        load = -1 / (gamma * at_gamma.F)
        ended = psi_here >= 0
        high[left[ended]] = gamma[ended]
        # alpha decreases with gamma as long as psi < gamma B_y, even where a rule cannot resolve that.
        falls = (load < load_before[left]) | (psi_here < gamma * at_gamma.B_y)
        onwards = ~ended & (load > 0) & falls
        left, gamma = left[onwards], gamma[onwards]
        low[left], load_before[left] = gamma, load[onwards]
        if not left.size:
            break
    return low, high


def tangent_and_error(at_one: Known) -> tuple[Floats, Floats]:
    """alpha_0 by the tangent to m^2(alpha), from the averages at gamma = 1."""
    return np.asarray(_tangent_zero(at_one.gamma, at_one.values)), np.asarray(error_of(at_one, _tangent_zero))


def _tangent_zero(gamma: Any, at_gamma: Any) -> Any:
    """``bendscape.core.quadratic.theory.branch.tangent_zero`` with the derivatives that C and C_y give."""
    at, prime = at_gamma, at_gamma.prime()
    here = psi(gamma, at)
    psi_prime = at.B + gamma * prime.B + prime.F
    weight, weight_prime = gamma * at.B_y, at.B_y + gamma * prime.B_y
    # m^2 = psi/(psi - weight) and alpha = -1/(gamma F), d alpha/d gamma = (F + gamma F')/(gamma F)^2
    slope = (weight_prime * here - weight * psi_prime) / (here - weight) ** 2
    load_slope = (at.F + gamma * prime.F) / (gamma * at.F) ** 2
    return load_on_branch(gamma, at) - overlap_sq_on_branch(gamma, at) * load_slope / slope
