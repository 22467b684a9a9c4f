"""The left side of the bulk: the spectral map and the edge at which it ends."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.optimize import brentq

from bendscape.core.errors import ParameterError, as_real
from bendscape.core.quadratic.model import EdgeKind, Model, as_load
from bendscape.core.quadratic.theory.integrals import Averages, averages
from bendscape.core.quadratic.theory.precision import (
    Known,
    error_of,
    known_at,
    known_at_root,
    warn_of_lost_precision,
)

ROOT_TOLERANCE = {
    "xtol": 1e-300,
    "rtol": 1e-15,
}  # roots are found to the last digits, also when they are small


AT_THRESHOLD = 1e-12
"""Relative; loads this close above alpha_sharp or a discontinuous alpha_bbp count as equal to it."""


class Edge(NamedTuple):
    """The left edge of the bulk as N -> inf, with the estimated error of its position."""

    kind: EdgeKind
    gamma: float
    lambda_minus: float
    lambda_minus_error: float = math.nan


def reduced_map(model: Model, alpha: float, gamma: float, at_gamma: Averages) -> float:
    """Spectral map z at gamma, given the averages there; 0 at p = inf, where z shrinks like 1/p."""
    z: float = (2 / model.p) * (-1 / gamma + alpha * at_gamma.A)
    return z + 0.0  # not -0.0 at p = inf


def spectral_map(model: Model, alpha: float, g: float) -> float:
    """Point z(g) of the real line whose Stieltjes transform is g, the functional inverse of g(z).

    z(g) = 1/g + self_energy(g) = (2/p) (-1/gamma + alpha A(gamma)), gamma = -2 g/p.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension, > 0.
    g : float
        In [-p/2, 0): g(z) ~ 1/z at infinity, so g is negative left of the spectrum.

    Returns
    -------
    float
        z, in units of the eigenvalues of H; left of the spectrum as long as g > g_minus, the edge's own g.

    Notes
    -----
    Limits: z -> -inf as g -> 0. Accuracy 1e-13 relative to 1/|g|; held by ``tests/test_theory.py``. Source:
    arXiv:2510.18435.
    """
    sigma = self_energy(model, alpha, g)
    return 1 / as_real(g) + sigma


def self_energy(model: Model, alpha: float, g: float) -> float:
    """Self-energy Sigma(g): the contribution of the samples, added to the spectral map 1/g of the zero
    matrix.

    Sigma(g) = (alpha/p) E[T(g)] = (2/p) alpha A(gamma), T = sum over the p directions of d/(1 - g d), gamma =
    -2 g/p.

    Parameters
    ----------
    model : Model
        With finite p.
    alpha : float
        Samples per dimension, > 0.
    g : float
        In [-p/2, 0).

    Returns
    -------
    float
        Sigma, in units of the eigenvalues of H.

    Raises
    ------
    ParameterError
        p is infinite, ``g`` is outside this range, or ``alpha`` is not > 0.

    Notes
    -----
    Limits: tr H / (pN) as g -> 0. Accuracy 1e-13 relative; held by ``tests/test_theory.py``. Source:
    arXiv:2510.18435.
    """
    alpha = as_load(alpha)
    if math.isinf(model.p):
        raise ParameterError(
            "p", model.p, "finite here", "at p = inf the whole spectrum shrinks to 0 like 1/p"
        )
    gamma = -2 * as_real(g) / model.p
    if not 0 < gamma <= 1:
        raise ParameterError("g", g, f"in [-p/2, 0) = [{-model.p / 2:g}, 0)")
    return (2 / model.p) * alpha * float(averages(model, gamma).A)


def left_edge(model: Model, alpha: float) -> Edge:
    """Left edge lambda_minus of the bulk, and whether the density ends there sharply or smoothly.

    Sharp: z'(g) = 0, that is alpha gamma^2 B(gamma) = 1, at one gamma in (0, 1), and the density grows like
    (lambda - lambda_minus)^(1/2). Smooth: no such gamma, gamma = 1, and it grows like exp(-A/(lambda -
    lambda_minus)). In both cases lambda_minus = (2/p) (-1/gamma + alpha A(gamma)).

    Parameters
    ----------
    model : Model
        Any p, including inf.
    alpha : float
        Samples per dimension, finite and > 0.

    Returns
    -------
    Edge
        ``kind``, ``gamma`` in (0, 1], ``lambda_minus`` in units of the eigenvalues of H, and the absolute
        error estimate of the latter.

    Notes
    -----
    Limits: smooth below alpha_sharp = 1/B(1), sharp above it; at p = inf lambda_minus is 0, the limit of a
    spectrum that shrinks like 1/p. Accuracy: as estimated, a few units in the 15th digit of 1/|g|; a
    PrecisionWarning says where that is more than 1e-10 of lambda_minus. Held by ``tests/test_theory.py`` and
    ``tests/test_precision.py``. Source: arXiv:2510.18435.
    """
    alpha = as_load(alpha)
    edge = edge_at(model, alpha)
    warn_of_lost_precision(model, lambda_minus=(edge.lambda_minus, edge.lambda_minus_error))
    return edge


def edge_at(model: Model, alpha: float) -> Edge:
    """:func:`left_edge` without its check of alpha and without its warning."""

    def past_edge(gamma: float) -> float:
        # The root of alpha gamma^2 B = 1, written so that it is close to a straight line on all of [0, 1].
        return 1 / math.sqrt(alpha * averages(model, gamma).B) - gamma

    at_gamma = averages(model, 1.0)
    if alpha * at_gamma.B <= 1 + AT_THRESHOLD:
        known = known_at(model, 1.0, at_gamma)
    else:
        gamma = float(brentq(past_edge, 0.0, 1.0, **ROOT_TOLERANCE))
        at_gamma = averages(model, gamma)
        known = known_at_root(model, gamma, at_gamma, lambda x, at: alpha * x * x * at.B - 1)
    return Edge(
        "sharp" if known.gamma_error else "smooth",
        known.gamma.real,
        reduced_map(model, alpha, known.gamma.real, at_gamma),
        map_error(model, alpha, known),
    )


def map_error(model: Model, alpha: float, known: Known) -> float:
    """Error estimate of the spectral map at a given load, 0 at p = inf."""
    gamma = known.gamma.real
    # z' vanishes at a sharp edge, where the error of gamma counts by its square.
    second_order: float = (2 / model.p) * known.gamma_error**2 / gamma**3
    return second_order + error_of(known, lambda x, at: reduced_map(model, alpha, x.real, at))
