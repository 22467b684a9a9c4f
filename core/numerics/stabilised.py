"""A stabilised explicit method for stiff flows, dw/dt = F(w), with error control.

Runge-Kutta-Chebyshev of second order. A step of s stages is stable for eigenvalues of F' down to -0.65 s^2/h:
the cost of stiffness grows like the square root of the spectral radius, and nothing is solved or factorised.
Nothing here is specific to a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError, as_positive

FloatArray = npt.NDArray[np.float64]

DAMPING = 2 / 13
"""Damping of the stability polynomials; the stable interval is shorter by 2 per cent."""
_LENGTH = 2 / 3 * (1 - 2 / 15 * DAMPING)  # of the stable interval, over s^2 - 1
_SAFETY, _SHRINK, _GROW = 0.8, 0.1, 10.0
_SMALLEST_STEP = 1e-13  # relative to the time, or to 1/radius

Evaluated = TypeVar("Evaluated", bound="Forced")


class Forced(Protocol):
    """What an evaluation returns: at least the force F(w)."""

    @property
    def force(self) -> FloatArray:
        """F(w), of the shape of w, or with more components along the last axis."""


class StepTooSmall(ArithmeticError):
    """The error cannot be met by any step: F is not smooth there, or not finite."""


class Chebyshev(NamedTuple):
    """Coefficients of one step with s stages; arrays over the stages 1..s, unused ones zero."""

    first: float
    previous: FloatArray
    before: FloatArray
    forced: FloatArray
    at_start: FloatArray


def chebyshev(stages: int) -> Chebyshev:
    """Coefficients of the method with s stages.

    w_1 = w_0 + first h F_0, and for j = 2..s: w_j = (1 - mu_j - nu_j) w_0 + mu_j w_{j-1} + nu_j w_{j-2} +
    forced_j h F_{j-1} + at_start_j h F_0, with mu = ``previous``, nu = ``before``.

    Parameters
    ----------
    stages : int
        s >= 2.

    Returns
    -------
    Chebyshev
        Pure numbers.

    Notes
    -----
    Exact to rounding; held by ``tests/test_stabilised.py``. Source: Sommeijer, Shampine and Verwer, RKC: an
    explicit solver for parabolic PDEs, J. Comput. Appl. Math. 88 (1998) 315.
    """
    s = stages
    w0 = 1 + DAMPING / s**2
    T, dT, ddT = np.zeros(s + 1), np.zeros(s + 1), np.zeros(s + 1)
    T[:2], dT[1] = (1.0, w0), 1.0
    for j in range(2, s + 1):
        T[j] = 2 * w0 * T[j - 1] - T[j - 2]
        dT[j] = 2 * T[j - 1] + 2 * w0 * dT[j - 1] - dT[j - 2]
        ddT[j] = 4 * dT[j - 1] + 2 * w0 * ddT[j - 1] - ddT[j - 2]
    w1 = dT[s] / ddT[s]
    b = np.zeros(s + 1)
    b[2:] = ddT[2:] / dT[2:] ** 2
    b[:2] = b[2]
    a = 1 - b * T
    previous, before, forced, at_start = (np.zeros(s + 1) for _ in range(4))
    for j in range(2, s + 1):
        previous[j] = 2 * b[j] * w0 / b[j - 1]
        before[j] = -b[j] / b[j - 2]
        forced[j] = 2 * b[j] * w1 / b[j - 1]
        at_start[j] = -a[j - 1] * forced[j]
    return Chebyshev(float(b[1] * w1), previous, before, forced, at_start)


def combination(*terms: tuple[float, FloatArray]) -> FloatArray:
    """Sum of factors times arrays; an array that ends early along the last axis goes on with zeros."""
    widths = {array.shape[-1] for _, array in terms}
    total = np.zeros((*terms[0][1].shape[:-1], max(widths)))
    for factor, array in terms:
        total[..., : array.shape[-1]] += factor * array
    return total


class Stabilised(Generic[Evaluated]):
    """The path w(t) of dw/dt = F(w), advanced step by step.

    The number of stages of a step is the smallest that is stable: s = ceil sqrt(1 + h r/0.653), r the
    spectral radius. The error of a step is estimated by 0.8 (w_n - w_{n+1}) + 0.4 h (F_n + F_{n+1}); F_{n+1}
    serves the next step too, so a step costs s evaluations.

    Parameters
    ----------
    evaluate : callable
        w to an object with F(w) as ``force``. F may have more components than w along the last axis, which w
        then gains.
    start : array
        w(0).
    radius : callable
        (w, evaluation) to a bound on the spectral radius of F' there, > 0.
    tolerance : float
        Largest estimated error of a step, as |error|/scale.
    scale : float
        Length by which errors are measured.
    retract : callable, optional
        Brings w back to the manifold on which the flow takes place, after each step.
    rounding : float
        Relative precision of F; it limits the number of stages, which amplify it by their square.

    Notes
    -----
    Second order in the step. ``evaluations``, ``steps`` and ``rejected`` count. Held by
    ``tests/test_stabilised.py``. Source: Sommeijer, Shampine and Verwer (1998), with its step control.
    """

    def __init__(
        self,
        evaluate: Callable[[FloatArray], Evaluated],
        start: FloatArray,
        *,
        radius: Callable[[FloatArray, Evaluated], float],
        tolerance: float,
        scale: float = 1.0,
        retract: Callable[[FloatArray], FloatArray] = lambda w: w,
        rounding: float = 1.1e-16,
    ) -> None:
        self.tolerance = as_positive("tolerance", tolerance)
        self._most = int(math.sqrt(self.tolerance / (10 * rounding)))
        if self._most < 2:
            raise ParameterError(
                "tolerance", tolerance, f">= {40 * rounding:.1g} in this precision", "float64"
            )
        self._evaluate, self._radius, self._retract, self._scale = evaluate, radius, retract, scale
        self._coefficients: dict[int, Chebyshev] = {}
        self.t, self.w = 0.0, start
        self.here = evaluate(start)
        self.evaluations, self.steps, self.rejected = 1, 0, 0
        self._next = 0.0  # proposed step, 0 before the first
        self._last: tuple[float, float] | None = None  # size and error of the last step

    def advance(self, until: float) -> None:
        """One accepted step, which ends at ``until`` at the latest.

        Raises
        ------
        StepTooSmall
            The error is too large at any step.
        """
        radius = self._radius(self.w, self.here)
        proposed = self._next or 1 / radius
        while True:
            h = min(proposed, _LENGTH * (self._most**2 - 1) / radius)
            whole = h
            if until - self.t <= h * (1 + 1e-9):
                h = until - self.t
            if h != until - self.t and not h > _SMALLEST_STEP * max(self.t, 1 / radius):
                raise StepTooSmall(f"a step of {h:.3g} at t = {self.t:.6g}")
            with np.errstate(
                over="ignore", invalid="ignore"
            ):  # a step far too long is rejected, not warned of
                w, there = self._step(h, math.ceil(math.sqrt(1 + h * radius / _LENGTH)))
            w_change = combination(
                (0.8, self.w), (-0.8, w), (0.4 * h, self.here.force), (0.4 * h, there.force)
            )
            error = float(np.linalg.norm(w_change)) / (self._scale * self.tolerance)
            if error <= 1:
                break
            self.rejected += 1
            factor = _SAFETY * error ** (-1 / 3) if math.isfinite(error) else _SHRINK
            proposed = h * max(_SHRINK, factor)
        self._propose(h, whole, error)
        self.t = until if h == until - self.t else self.t + h
        self.w, self.here = w, there
        self.steps += 1

    def _propose(self, h: float, whole: float, error: float) -> None:
        small = max(error, 1e-10)
        factor = _SAFETY * small ** (-1 / 3)
        if self._last is not None:
            size, before = self._last
            factor = min(factor, factor * (h / size) * (before / small) ** (1 / 3))
        # a step cut short to end at a wanted time tells little of the next one
        self._next = max(h * min(_GROW, max(_SHRINK, factor)), whole if h < whole else 0.0)
        self._last = (h, small)

    def _step(self, h: float, stages: int) -> tuple[FloatArray, Evaluated]:
        s = max(2, stages)
        if s not in self._coefficients:
            self._coefficients[s] = chebyshev(s)
        first, mu, nu, forced, at_start = self._coefficients[s]
        w0, F0 = self.w, self.here.force
        before, w = w0, combination((1.0, w0), (first * h, F0))
        for j in range(2, s + 1):
            F = self._evaluate(w).force
            before, w = (
                w,
                combination(
                    (1 - mu[j] - nu[j], w0),
                    (mu[j], w),
                    (nu[j], before),
                    (forced[j] * h, F),
                    (at_start[j] * h, F0),
                ),
            )
        w = self._retract(w)
        self.evaluations += s
        return w, self._evaluate(w)
