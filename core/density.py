"""Density of the whole spectrum, on both sides of zero, and its integral.

On the real line the spectral map is solved for complex gamma = -2 g/p, Im gamma > 0: -1/gamma + alpha A =
p lambda/2. There D = a + (1 - gamma) y + gamma c yhat lies, for all y and yhat, in a cone of opening below
pi, and the Laplace integrals converge along the ray that turns this cone into the right half-plane: the
averages are those of ``integrals``, along an angle that follows gamma. Solutions are followed from one point
to the next by Newton's method; the first one of either sign comes down from far above the real line.
"""

from __future__ import annotations

import cmath
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from bendscape.core.bulk import left_edge
from bendscape.core.integrals import averages, mean_log
from bendscape.core.model import Model, ParameterError, as_positive

FloatArray = npt.NDArray[np.float64]

_SHY_OF_VERTICAL = 0.37  # of the rays: exp(-a s) has to end; for many units, where q^n k^m ends by itself
_SHY_TIMES_ROOT = 3.0  # and grows like exp(n angle^2 / 2) off the best ray, this over sqrt(max(n, m))
_RAY_GRID = 0.02  # rays are rounded to it, so that their nodes are computed once
_MOST_STEPS = 30
_CONVERGED = 1e-13  # last Newton step, relative to gamma
_LARGEST_STEP = 0.3  # relative to gamma
_REAL = 1e-9  # imaginary part, relative to gamma, below which the density is lost in rounding
_PANELS = 12  # on each side of 0 to begin with, halving towards both ends
_GAUSS = 10  # nodes in a panel
_MOST_PANELS = 300  # that share the tolerance
_MOST_HALVINGS = 10
_NOT_CONVERGED = complex(math.nan, math.nan)


class Density(NamedTuple):
    """Spectral density on a grid; rho and the atom add up to one unit of mass."""

    rho: FloatArray
    integrated: FloatArray
    atom: float


def _ray(model: Model, gamma: complex) -> float:
    """Angle that turns the cone of D, between arg(1 - gamma) and arg(gamma), into the right half-plane."""
    from_zero, from_one = cmath.phase(gamma), -cmath.phase(1 - gamma)
    # A step that lands just below the real line is on the continuation of what is above it.
    from_zero += 2 * math.pi * (from_zero < -math.pi / 2)
    from_one += 2 * math.pi * (from_one < -math.pi / 2)
    turn = (from_one - from_zero) / 2
    units = max(model.p, model.p_star) / 2
    steepest = math.pi / 2 - min(_SHY_OF_VERTICAL, _SHY_TIMES_ROOT / math.sqrt(units))
    return _RAY_GRID * round(max(-steepest, min(steepest, turn)) / _RAY_GRID)


def _newton(model: Model, alpha: float, x: complex, gamma: complex) -> complex:
    """Zero of -1/gamma + alpha A - x near a start, nan if Newton's method does not get there."""
    last = math.inf
    for _ in range(_MOST_STEPS):
        at_gamma = averages(model, gamma, ray=_ray(model, gamma))
        slope = 1 / gamma**2 - alpha * at_gamma.B
        step = -(-1 / gamma + alpha * at_gamma.A - x) / slope
        size = abs(step / gamma)
        if not size < math.inf:
            return _NOT_CONVERGED
        gamma += step * min(1.0, _LARGEST_STEP / max(size, 1e-300))
        if size < _CONVERGED or (size < 1e-7 and size > last / 2):  # at the last digits
            if abs(gamma.imag) < _REAL * abs(gamma):  # outside the bulk, or all but: z falls with g there
                return gamma if (gamma**2 * alpha * at_gamma.B).real < 1 + 1e-6 else _NOT_CONVERGED
            return gamma if gamma.imag > 0 else _NOT_CONVERGED
        last = size
    return _NOT_CONVERGED


def _from_above(model: Model, alpha: float, x: float) -> complex:
    """Solution at x + i0, followed down from far above the real line, where gamma = -1/x."""
    at_zero = averages(model, 0.0)
    width = math.sqrt(alpha * at_zero.B)
    height = 10 * width + 2 * abs(x - alpha * at_zero.A)
    gamma = -1 / (complex(x, height) - alpha * at_zero.A)
    gamma = _newton(model, alpha, complex(x, height), gamma)
    lowest, factor = 1e-12 * abs(x) + 1e-300, 0.5
    while height > lowest:
        lower = height * factor
        found = _newton(model, alpha, complex(x, lower), gamma)
        if cmath.isnan(found) or abs(found - gamma) > 1.0 * abs(gamma):
            factor = math.sqrt(factor)
            if factor > 0.999:
                return _NOT_CONVERGED
            continue
        # Once the imaginary part is no longer that of the height, the real line is in reach.
        settled = abs(found - gamma) < 1e-3 * found.imag
        gamma, height, factor = found, lower, max(0.1, factor**1.5)
        if settled:
            break
    return _newton(model, alpha, complex(x, 0.0), gamma)


def _follow(model: Model, alpha: float, x: float, before: float, gamma: complex) -> complex:
    """Solution at x from that at a point before, in as many steps as it takes; nan if that is too many."""
    here, step = before, x - before
    for _ in range(200):
        slope = 1 / gamma**2 - alpha * averages(model, gamma, ray=_ray(model, gamma)).B
        guess = gamma + step / slope
        close = abs(guess - gamma) < 0.5 * abs(gamma) and guess.imag > 0
        found = _newton(model, alpha, complex(here + step), guess if close else gamma)
        if cmath.isnan(found) or abs(found - gamma) > 0.7 * abs(gamma):
            step /= 2
            continue
        here, gamma = here + step, found
        if here == x:
            return gamma
        step = min(2 * step, x - here, key=abs)
        if abs(x - here - step) < 1e-14 * abs(x):
            step = x - here
    return _NOT_CONVERGED


def _integrated(model: Model, alpha: float, lam: float, gamma: complex) -> float:
    """Integrated density -(1/pi) Im[lambda g - log gamma + alpha E log D], g = -p gamma/2."""
    angle = cmath.phase(gamma)
    angle += 2 * math.pi * (angle < -math.pi / 2)
    of_log = alpha * mean_log(model, gamma, ray=_ray(model, gamma)).imag
    return (lam * model.p * gamma.imag / 2 + angle - of_log) / math.pi


def _finite(model: Model) -> None:
    if math.isinf(model.p):
        raise ParameterError("p", model.p, "finite here", "at p = inf the spectrum shrinks to 0 like 1/p")


def bulk_density(model: Model, alpha: float, grid: npt.ArrayLike) -> Density:
    """Density rho(lambda) of the whole spectrum as N -> inf, its integral, and the atom at 0.

    rho = -Im g(lambda + i0)/pi with z(g) = lambda; the integrated density is N(lambda) = -(1/pi) Im[lambda g
    - log gamma + (alpha/p) sum over the p directions of E log D].

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension, finite and > 0.
    grid : array, shape (points,)
        Values of lambda, finite, not 0 (where an atom may sit), in any order.

    Returns
    -------
    Density
        ``rho`` and ``integrated`` of the grid's shape, per eigenvalue: rho integrates to 1 - ``atom``,
        ``integrated`` goes from 0 to 1 and contains the ``atom``, of mass max(0, 1 - alpha) at 0. nan at a
        point where no solution was found.

    Notes
    -----
    Limits: 0 left of lambda_minus, where it ends like a square root (sharp) or like exp(-A/(lambda -
    lambda_minus)) (smooth); on the right it has no edge but a tail, see :func:`upper_quantile`. Accuracy 1e-9
    relative to the largest density, exponentially small tails included only in absolute terms; unit mass to
    1e-6 on :func:`density_rule`'s grid. Held by ``tests/test_density.py``. Source: the equation is that of
    arXiv:2510.18435, its solution this project's.
    """
    _finite(model)
    alpha = as_positive("alpha", alpha)
    points = np.asarray(grid, dtype=np.float64)
    if points.ndim != 1 or not (np.isfinite(points) & (points != 0)).all():
        raise ParameterError("grid", grid, "a one-dimensional array of finite numbers other than 0")
    edge, atom = left_edge(model, alpha).lambda_minus, max(0.0, 1 - alpha)
    rho, integrated = np.zeros_like(points), np.where(points > 0, atom, 0.0)
    inside = points > edge
    for side in (inside & (points < 0), inside & (points > 0)):
        before, gamma = math.nan, _NOT_CONVERGED
        # From the middle of each half outwards: neither the edge nor 0 is a place to start from.
        order = np.flatnonzero(side)[np.argsort(points[side])]
        middle = len(order) // 2
        start, from_start = math.nan, _NOT_CONVERGED
        for branch in (order[middle:], order[:middle][::-1]):
            before, gamma = start, from_start
            for i in branch:
                lam = float(points[i])
                x = lam * model.p / 2
                if not cmath.isnan(gamma):
                    gamma = _follow(model, alpha, x, before, gamma)
                if cmath.isnan(gamma):
                    gamma = _from_above(model, alpha, x)
                if math.isnan(start):
                    start, from_start = x, gamma
                before = x
                rho[i] = max(0.0, model.p * gamma.imag / (2 * math.pi))
                integrated[i] = _integrated(model, alpha, lam, gamma)
                if cmath.isnan(gamma):
                    rho[i] = math.nan
    return Density(rho, integrated, atom)


def upper_quantile(model: Model, alpha: float, mass: float = 1e-8) -> float:
    """Point with a given mass of the spectrum above it: where a grid may end, as there is no right edge.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension, finite and > 0.
    mass : float
        Share of the eigenvalues above the point, from 1e-10 to 0.5.

    Returns
    -------
    float
        lambda > 0 with N(lambda) >= 1 - mass, its distance from 0 or lambda_minus to 3e-3 relative.
    """
    _finite(model)
    alpha = as_positive("alpha", alpha)
    if not 1e-10 <= mass <= 0.5:
        raise ParameterError("mass", mass, "between 1e-10 and 0.5")
    edge = left_edge(model, alpha).lambda_minus
    base = max(edge, 0.0)

    def excess(log_distance: float) -> float:
        lam = base + math.exp(log_distance)
        gamma = _from_above(model, alpha, lam * model.p / 2)
        above = max(0.0, 1 - _integrated(model, alpha, lam, gamma))
        return math.log(max(above, 1e-16) / mass)

    low = high = math.log(max(abs(edge), 2 / model.p))
    while excess(high) > 0:
        high += 2
    while low >= high or excess(low) < 0:
        low -= 2
    return base + math.exp(float(brentq(excess, low, high, xtol=1e-3)) + 2e-3)


class DensityRule(NamedTuple):
    """Nodes, weights and the density there: sum(weights * density.rho * f) integrates f."""

    grid: FloatArray
    weights: FloatArray
    density: Density


def density_rule(model: Model, alpha: float, tolerance: float = 3e-7, mass: float = 1e-8) -> DensityRule:
    """Grid on which the density integrates to one unit of mass, its weights and the density on it.

    Gauss-Legendre panels that crowd at the left edge and at 0, each halved until its mass agrees with the
    difference of the integrated density between its ends.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension, finite and > 0.
    tolerance : float
        Mass by which all panels together may miss the integrated density.
    mass : float
        What is left out above the last node, see :func:`upper_quantile`.

    Returns
    -------
    DensityRule
        ``grid`` rising, without 0; sum(weights * rho) + atom = 1 to 1e-6 by default.

    Notes
    -----
    Cost seconds at large p and p_star. Held by ``tests/test_density.py`` for a table of models, not for the
    whole domain. Source: this project's own.
    """
    edge, end = left_edge(model, alpha).lambda_minus, upper_quantile(model, alpha, mass)
    near = 0.5 ** np.arange(1, _PANELS + 1) ** 1.5
    fractions = np.concatenate([[0.0], near[::-1], 1 - near[1:], [1.0]])
    panels: list[tuple[float, float]] = []
    for low, high in [(edge, 0.0), (0.0, end)] if edge < 0 else [(edge, end)]:
        ends = low + (high - low) * fractions
        panels += list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
    nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
    atom, done = max(0.0, 1 - alpha), []
    for halvings in range(_MOST_HALVINGS + 1):
        lows, highs = np.array(panels).T
        middle, half = (lows + highs) / 2, (highs - lows) / 2
        grid = middle[:, np.newaxis] + half[:, np.newaxis] * nodes
        ends = np.unique(np.concatenate([lows, highs]))
        density = bulk_density(model, alpha, np.concatenate([grid.ravel(), ends[ends != 0]]))
        rho = density.rho[: grid.size].reshape(grid.shape)
        integrated = density.integrated[: grid.size].reshape(grid.shape)
        at_end = dict(zip(ends[ends != 0].tolist(), density.integrated[grid.size :].tolist(), strict=True))
        again = []
        for j, (low, high) in enumerate(panels):
            # At 0 the integrated density jumps by the atom and its side is the panel's.
            expected = at_end.get(high, math.nan) - at_end.get(low, math.nan)
            here = half[j] * weights
            missed = abs(float(here @ rho[j]) - expected)
            if math.isnan(expected):
                missed = 0.0 if high - low < 1e-6 * (end - edge) else 1.0
            if missed <= tolerance / _MOST_PANELS or halvings == _MOST_HALVINGS:
                done.append((grid[j], here, rho[j], integrated[j]))
            else:
                again += [(low, (low + high) / 2), ((low + high) / 2, high)]
        panels = again
        if not panels:
            break
    done.sort(key=lambda panel: float(panel[0][0]))
    columns = [np.concatenate(column) for column in zip(*done, strict=True)]
    return DensityRule(columns[0], columns[1], Density(columns[2], columns[3], atom))
