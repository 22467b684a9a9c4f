"""The spectral map on the upper half-plane, and the curve on which it is real.

Write tau = -1/gamma and t = u/(a + y), the weight of a sample in units of 2/p. The spectral map is

    x(tau) = tau + alpha E[t] + alpha E[t^2/(tau - t)],    lambda = 2 x/p,

so that Im x = v (1 - alpha E[t^2/|tau - t|^2]) at tau = xi + i v, where the bracket rises with v. For every
real xi there is therefore exactly one height v(xi) >= 0 at which the bracket vanishes (0 where it is positive
all the way down), and along the curve xi + i v(xi) the real x rises (Biane 1997): the whole spectrum is found
from bracketed roots of a monotone function of one variable, and no branch can be lost.

The averages are the Laplace integrals of ``integrals`` for many gamma at once, each along its own ray. For Im
gamma > 0 the cone of D = a + (1 - gamma) y + gamma c yhat has an opening angle below pi, and the ray rotates
it into the right half-plane. At the cut the ray would be vertical; it stops short of that by an angle within
which q^n k^m grows by no more than a factor of ten, and the step is as fine as that angle. With log s = w -
exp(-w) the trapezoidal rule ends doubly exponentially on the left.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.quadratic.model import Model

FloatArray = npt.NDArray[np.float64]
ComplexArray = npt.NDArray[np.complex128]

_EFOLDS = 42.0  # the ends are cut off where the weight is exp(-42)
_SHY, _SHY_TIMES_ROOT = (
    0.55,
    1.5,
)  # angle kept from the vertical: the smaller of the first and the second/sqrt(n)
_STRIP_EFOLDS = 36.0  # discretisation error exp(-36) for a strip as wide as that angle
_NODES_AT_ONCE = 40_000  # fits into the cache
_NEWTON_STEPS, _MOST_STEPS = 25, 100  # the latter suffices to halve any bracket down to nothing
_ROOT = 1e-12  # accuracy of log v
_SURE = 1e-3  # distance in log v that is far above the rounding of its equation
_LEAST = 2.0**-53
_NEWTON_ALONE = 12  # Newton steps to a point at given x
_CONVERGED = 1e-13  # size of the last step, relative to tau
_NOISE = 1e-14  # relative error of x
_HIDDEN = 0.1  # rounding of an average that is 1 at the height, beyond which only noise is left
_ROUNDING = 64 * sys.float_info.epsilon  # bound on the relative rounding of an average


class Plane(NamedTuple):
    """Averages at points of the closed upper half-plane, normalised per direction."""

    A: ComplexArray
    """E[u/D]"""
    B: ComplexArray
    """E[u^2/D^2]"""
    rest: ComplexArray
    """1 - gamma A = E[(a + y)/D], small where gamma is large"""
    log_d: ComplexArray
    """E log D, on the branch that is real on 0 < gamma < 1"""
    bend: ComplexArray
    """E[u^2 (a + y)/D^3] = (1/(2 gamma)) (d/d gamma)(gamma^2 B)"""


class Curve(NamedTuple):
    """Points of the curve, with the spectral map there."""

    tau: ComplexArray
    x: FloatArray
    slope: ComplexArray
    """x'(tau) = 1 - alpha gamma^2 B"""
    bend: ComplexArray
    """x''(tau) = -2 alpha gamma^3 E[u^2 (a + y)/D^3]"""
    integrated: FloatArray
    """Share of the eigenvalues below, atom included"""


def plane_averages(model: Model, gamma: ComplexArray, *, refined: bool = False) -> Plane:
    """E[u/D], E[u^2/D^2], E[(a + y)/D], E log D and E[u^2 (a + y)/D^3] for many gamma with Im gamma >= 0.

    Parameters
    ----------
    model : Model
        With finite p.
    gamma : array, shape (points,)
        Finite; on the real line outside [0, 1] the values are those of the limit from above.
    refined : bool
        Use another rule, for error estimates: two thirds of the step, no common nodes, and a wider range.

    Returns
    -------
    Plane
        Each of the shape of gamma, dimensionless.

    Notes
    -----
    Accuracy 1e-11 relative, 1e-14 at small p and p_star; held by ``tests/test_density.py`` against
    two-dimensional quadrature and evaluations with 30 digits. Source: arXiv:2510.18435 for the equation; this
    form is this project's own.
    """
    gamma = np.asarray(gamma, dtype=np.complex128)
    total = np.zeros((len(Plane._fields), len(gamma)), dtype=np.complex128)
    for c, share in ((1.0, (model.p - 1) / model.p), (3.0, 1 / model.p)):
        if share:
            total += share * _one_direction(model, c, gamma, refined)
    return Plane(*total)


def _one_direction(model: Model, c: float, gamma: ComplexArray, refined: bool) -> ComplexArray:
    n, m, spread = model.p_star / 2, model.p / 2, 1 + model.noise
    in_y, in_yhat = spread * (1 - gamma) / n, c * gamma / m
    # Angles of gamma, in [0, pi], and of 1 - gamma, in [-pi, 0], from above the real line.
    arg, arg_less = np.arctan2(abs(gamma.imag), gamma.real), -np.arctan2(abs(gamma.imag), 1 - gamma.real)
    shy = min(_SHY, _SHY_TIMES_ROOT / math.sqrt(max(n, m)))
    angle = np.clip(-(arg + arg_less) / 2, shy - math.pi / 2, math.pi / 2 - shy)

    # The integrand is flat below `near` and gone above `far`: by exp(-a s), q^n, k^m, or the last two.
    size_y, size_yhat = abs(in_y) + 1e-200, abs(in_yhat) + 1e-200
    mean = abs(model.a + n * in_y + m * in_yhat)
    near = 1 / (mean + model.a + max(math.sqrt(n), 1) * size_y + max(math.sqrt(m), 1) * size_yhat)
    efolds = _EFOLDS + 3 * refined
    far = efolds / (model.a * np.cos(angle))
    for shape, size in ((n, size_y), (m, size_yhat), (n + m, np.minimum(size_y, size_yhat))):
        far = np.minimum(far, 1.5 * math.sqrt(math.expm1(2 * efolds / shape)) / size)
    far = np.maximum(far, efolds * near)
    low = -math.log(efolds) + 0.07 * refined
    high = np.log(far / near) + 0.05
    step = 2 * math.pi * shy / _STRIP_EFOLDS / (1 + 0.5 * refined)
    counts = np.ceil((high - low) / step).astype(int) + 1

    found = np.empty((len(Plane._fields), len(gamma)), dtype=np.complex128)
    order = np.argsort(counts)
    first = 0
    while first < len(order):
        rows = order[first : first + max(1, _NODES_AT_ONCE // int(counts[order[first]]))]
        first += len(rows)
        w = low + step * np.arange(counts[rows].max())
        jacobian = step * (1 + np.exp(-w))
        # In units of `near` and turned by the angle, so that one exponential serves all rows.
        unit = (near[rows] * np.exp(1j * angle[rows]))[:, np.newaxis]
        r = np.exp(w - np.exp(-w))
        s = unit * r
        s_y, s_yhat = in_y[rows, np.newaxis] * s, in_yhat[rows, np.newaxis] * s
        mass = np.exp(-model.a * s - n * _log1p(s_y) - m * _log1p(s_yhat)) * jacobian
        y, yhat = spread / (1 + s_y), c / (1 + s_yhat)
        u = yhat - y
        weight = mass * s
        var_yhat, var_y = yhat * yhat / m, y * y / n
        u_sq = u * u + var_yhat + var_y
        y_u_sq = y * ((u - y / n) ** 2 + var_yhat + (1 + 1 / n) * var_y)  # a weight y turns n into n + 1
        found[0, rows] = (weight * u).sum(axis=1)
        found[1, rows] = (weight * s * u_sq).sum(axis=1)
        found[2, rows] = (weight * (model.a + y)).sum(axis=1)
        # log D = -log(unit) + int (exp(-s/unit) - exp(-s D)) ds/s
        found[3, rows] = (np.exp(-r) * jacobian - mass).sum(axis=1) - np.log(unit[:, 0])
        found[4, rows] = (weight * s * s * (model.a * u_sq + y_u_sq)).sum(axis=1) / 2
    return found


def _log1p(z: ComplexArray) -> ComplexArray:
    """log(1 + z) to the last digits, since n and m multiply it; numpy's function loses them at small complex
    z."""
    found = np.empty_like(z)
    found.real = np.log1p(z.real * (2 + z.real) + z.imag * z.imag) / 2
    found.imag = np.arctan2(z.imag, 1 + z.real)
    return found


def heights(model: Model, alpha: float, xi: FloatArray, largest: float) -> FloatArray:
    """Height v(xi) of the curve: alpha E[t^2/|tau - t|^2] = 1 at tau = xi + i v, 0 where that has no root.

    ``largest`` = sqrt(alpha E[t^2]) bounds it. As a function of v^2 that average is a Stieltjes function and
    its reciprocal is concave, so that Newton's method for the reciprocal rises to the root from any point
    below it. A step from above that leaves the bracket is one of Newton's method in 1/v, in which the average
    is linear where v is small and the weights are dense, or else halves the bracket in log v.
    """
    floor = np.log(1e-15 * abs(xi) + 1e-300)
    high = np.full(len(xi), math.log(largest) + 1e-9)
    low, log_v, todo = np.minimum(floor, high), high.copy(), np.arange(len(xi))
    for steps in range(_MOST_STEPS):
        here = log_v[todo]
        tau = xi[todo] + 1j * np.exp(here)
        at = plane_averages(model, -1 / tau)
        bracket, fall = _bracket(alpha, tau, at), np.minimum(at.A.imag, -1e-300)
        slope = -tau.imag * (at.B / tau**2).real / fall - 1  # of the logarithm of the average in log v
        change = np.maximum(2 * bracket / np.minimum(slope, -1e-15), _LEAST - 1)  # of v^2, relative
        moved = here + np.log1p(change) / 2
        lost = _ROUNDING * map_size(alpha, tau, at) / tau.imag
        hidden = lost > _HIDDEN
        low[todo] = np.where((bracket < 0) & ~hidden, here, low[todo])
        high[todo] = np.where((bracket >= 0) & ~hidden, here, high[todo])
        done = (abs(change) <= _ROOT) | (high[todo] - low[todo] < _ROOT)
        done |= (abs(bracket) <= lost) & (lost < -_SURE * slope)
        # So far down the root is invisible: it is further up, or its weight is negligible.
        floor[todo] = np.where(hidden & ~done, np.maximum(floor[todo], here), floor[todo])
        low[todo] = np.maximum(low[todo], floor[todo])
        average = 1 - bracket
        # v falls by this factor; 1 - average (1 + slope) <= 0 where there is no root in that approximation.
        thin = -slope * average / np.maximum(1 - average * (1 + slope), 1e-10)
        for other in (here + np.log(np.maximum(thin, 1e-300)), (low[todo] + high[todo]) / 2):
            inside = (moved > low[todo]) & (moved < high[todo]) & (steps < _NEWTON_STEPS)
            moved = np.where(inside, moved, other)
        # The bracket shrinks to its lower end if there is no root above it.
        gone = (high[todo] - floor[todo] < 1) & (low[todo] <= floor[todo]) & ~done
        log_v[todo] = np.where(gone, -math.inf, np.where(done, here, moved))
        todo = todo[~(done | gone)]
        if not len(todo):
            break
    else:
        log_v[todo] = math.nan
    found: FloatArray = np.exp(log_v)
    return found


def _bracket(alpha: float, tau: ComplexArray, at: Plane) -> FloatArray:
    """Im x/v = 1 - alpha E[t^2/|tau - t|^2], without cancellation near tau = 0."""
    near_zero: FloatArray = 1 - alpha + alpha * (tau * at.rest).imag / tau.imag
    return np.where(abs(at.rest) < 0.5, near_zero, 1 + alpha * at.A.imag / tau.imag)


def map_at(alpha: float, tau: ComplexArray, at: Plane) -> ComplexArray:
    """x(tau) = tau + alpha A, given the averages at gamma = -1/tau."""
    near_zero: ComplexArray = tau * (1 - alpha + alpha * at.rest)
    return np.where(abs(at.rest) < 0.5, near_zero, tau + alpha * at.A)


def map_size(alpha: float, tau: ComplexArray, at: Plane) -> FloatArray:
    """Size of the terms of x(tau), to which rounding errors are relative."""
    near_zero: FloatArray = abs(tau) * (abs(1 - alpha) + alpha * abs(at.rest))
    return np.where(abs(at.rest) < 0.5, near_zero, abs(tau) + alpha * abs(at.A))


def curve_at(alpha: float, tau: ComplexArray, at: Plane) -> Curve:
    """All quantities that follow from the averages at points of the curve.

    The integrated density is (1/pi) [x Im gamma + arg gamma - alpha Im E log D].
    """
    gamma, x = -1 / tau, map_at(alpha, tau, at).real
    angle = np.arctan2(abs(gamma.imag), gamma.real)
    integrated = (x * gamma.imag + angle - alpha * at.log_d.imag) / math.pi
    return Curve(tau, x, 1 - alpha * gamma**2 * at.B, -2 * alpha * gamma**3 * at.bend, integrated)


def curve(model: Model, alpha: float, xi: FloatArray, largest: float) -> Curve:
    """Curve above given xi, not 0 where v(0) = 0."""
    tau: ComplexArray = xi + 1j * heights(model, alpha, xi, largest)
    return curve_at(alpha, tau, plane_averages(model, -1 / tau))


def newton(
    model: Model, alpha: float, x: FloatArray, tau: ComplexArray, low: FloatArray, high: FloatArray
) -> ComplexArray:
    """Points of the curve at real x, nan where Newton's method leaves the bracket or does not converge.

    At an edge of the bulk the zero is almost double, and steps stop shrinking where x(tau) - x is of the
    order of rounding.
    """
    found = np.full(len(x), complex(math.nan, math.nan))
    tau, last, todo = tau.copy(), np.full(len(x), math.inf), np.arange(len(x))
    todo = todo[tau != 0]
    for _ in range(_NEWTON_ALONE):
        here = tau[todo]
        at = plane_averages(model, -1 / here)
        slope = 1 - alpha * at.B / here**2
        with np.errstate(divide="ignore", invalid="ignore"):
            step = (x[todo] - map_at(alpha, here, at)) / slope
        moved = here + step
        moved = moved.real + 1j * np.maximum(moved.imag, 0.0)
        noise = _NOISE * map_size(alpha, here, at)
        slack = 1e-10 * abs(here) + noise / np.maximum(abs(slope), 1e-8)
        inside = (moved.real >= low[todo] - slack) & (moved.real <= high[todo] + slack) & (moved != 0)
        size = abs(step) / abs(here)
        stalled = (size > last[todo] / 2) & ((size < 1e-9) | (abs(step * slope) < noise))
        done = inside & ((size < _CONVERGED) | stalled)
        # On the real line, outside the bulk or nearly so, x increases with tau.
        done &= (moved.imag > 1e-9 * abs(moved)) | (slope.real > -1e-6)
        found[todo] = np.where(done, moved, found[todo])
        tau[todo], last[todo] = moved, size
        todo = todo[inside & ~done]
        if not len(todo):
            break
    return found
