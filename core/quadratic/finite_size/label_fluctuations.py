"""Fluctuations of one cell's theory due to its sampled labels: variances over the law of one sample.

The theory of a cell replaces averages over (y, yhat) by means over M = alpha N samples, so its predictions
fluctuate by O(N^(-1/2)), with variances determined by the term of a single sample. With the direction
averages

    t = (1/p) sum_c u_c/D_c,    b = (1/p) sum_c u_c^2/D_c^2 = -dt/dgamma

over the p directions of a sample, the self-energy of a cell is (2/(p N)) sum_mu t_mu. Products of two
directions are combined by Feynman's parameter, 1/(D_c D_c') = int_0^1 dx 1/((1-x) D_c + x D_c')^2, which
turns every such average into the Laplace integral of :mod:`bendscape.core.quadratic.theory.integrals` at a
mixed c; for gamma > 1 they are finite parts, on the same rotated ray.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.polynomial.legendre import leggauss
from numpy.polynomial.polynomial import polypow
from scipy.special import poch

from bendscape.core.quadratic.model import Model, refuse_noise
from bendscape.core.quadratic.theory.integrals import RAY, log_nodes

FloatArray = npt.NDArray[np.float64]

# Gauss-Legendre nodes in x on [0, 1], and weights; the integrands are analytic far beyond.
_NODES, _WEIGHTS = leggauss(20)
_MIXING, _MIXING_WEIGHTS = (1 + _NODES) / 2, _WEIGHTS / 2


class LabelFluctuations(NamedTuple):
    """Covariances over one sample at one gamma, the derivative of B, and the average of the fourth power."""

    var_t: float
    cov_t_yt: float
    var_yt: float
    var_b: float
    B: float
    B_prime: float
    fourth: float


@lru_cache(maxsize=256)
def _terms(c: float, first: int, other: float, second: int) -> FloatArray:
    """u_c^i u_c'^k, u = c yhat - y, as a polynomial in yhat whose coefficients are powers of y."""
    return np.convolve(polypow([-1.0, c], first), polypow([-1.0, other], second))


class _Pair:
    """Nodes of the double integral over s (Laplace) and x (Feynman) for one pair of directions."""

    def __init__(self, model: Model, gamma: float, c: float, other: float) -> None:
        n, m = model.p_star / 2, model.p / 2
        log_s: Any
        log_s, step = log_nodes(model.a, RAY if gamma > 1 else 0.0)
        s = np.exp(log_s)
        if c == other:
            x, weight = np.array([0.0]), np.array([1.0])
        else:
            x, weight = _MIXING, _MIXING_WEIGHTS
        self.n, self.m, self.c, self.other, self.log_s = n, m, c, other, log_s
        self.x, self.weight = x[:, np.newaxis], weight
        mixed = c + (other - c) * self.x
        spread = 1 + model.noise  # variance factor of y
        self.q = spread / (1 + s * (1 - gamma) * spread / n)
        self.k = 1 / (1 + s * gamma * mixed / m)
        self.mass = step * np.exp(-model.a * s - n * np.log1p(s * (1 - gamma) * spread / n)) * self.k**m

    def average(self, first: int, second: int, y_power: int = 0, yhat_power: int = 0) -> float:
        """E[y^j yhat^l u_c^i u_c'^k / (D_c^i D_c'^k)]; for gamma > 1 its principal value or finite part."""
        order = first + second
        terms = _terms(self.c, first, self.other, second)
        moment: Any = 0.0
        for in_yhat, factor in enumerate(terms):
            i, j = in_yhat + yhat_power, order - in_yhat + y_power
            moment = moment + factor * (
                poch(self.m, i) * (self.k / self.m) ** i * poch(self.n, j) * (self.q / self.n) ** j
            )
        feynman = self.weight
        if self.c != self.other:
            x = self.x[:, 0]
            beta = math.gamma(first) * math.gamma(second) / math.gamma(order)
            feynman = feynman * (1 - x) ** (first - 1) * x ** (second - 1) / beta
        integrand = moment * self.mass * np.exp(order * self.log_s) / math.gamma(order)
        return float((feynman @ integrand.sum(axis=1)).real)


Weights = tuple[float, float]
"""Weights of the directions c = 1 and c = 3 of a sample."""


class DirectionAverages:
    """Averages over one sample of sums over directions, w_1 (u_1/D_1)^i + w_3 (u_3/D_3)^i."""

    def __init__(self, model: Model, gamma: float) -> None:
        self._pair = lru_cache(maxsize=None)(lambda c, other: _Pair(model, gamma, c, other))

    def single(self, weights: Weights, power: int = 1, y_power: int = 0, yhat_power: int = 0) -> float:
        """E[y^j yhat^l sum_c w_c (u_c/D_c)^i]."""
        return sum(
            weight * self._pair(c, c).average(power, 0, y_power, yhat_power)
            for weight, c in zip(weights, (1.0, 3.0), strict=True)
            if weight
        )

    def square(self, weights: Weights, power: int = 1, y_power: int = 0) -> float:
        """E[y^j (sum_c w_c (u_c/D_c)^i)^2]."""
        across, along = weights
        pairs = ((across**2, 1.0, 1.0), (2 * across * along, 1.0, 3.0), (along**2, 3.0, 3.0))
        return sum(w * self._pair(c, d).average(power, power, y_power) for w, c, d in pairs if w)


def label_fluctuations(model: Model, gamma: float) -> LabelFluctuations:
    """Covariances of t, y t and b over one sample, and B = E[b] with its derivative in gamma.

    Var t, Cov(t, y t), Var(y t), Var b with t = (1/p) sum_c u_c/D_c, b = (1/p) sum_c u_c^2/D_c^2; B' = -2
    E[(1/p) sum_c u_c^3/D_c^3]; and E[(1/p) sum_c u_c^4/D_c^4].

    Parameters
    ----------
    model : Model
        Finite p.
    gamma : float
        > 0. Above 1 the averages are finite parts: the variances over samples as seen by a cell of size N, as
        long as it has none beyond the pole, N alpha sum_c P(D_c < 0) << 1.

    Returns
    -------
    LabelFluctuations
        For one sample; the mean over M samples has 1/M of these.

    Notes
    -----
    Accuracy 1e-10 relative for a >= 0.01 and gamma <= 1; held by ``tests/test_edge_law.py`` against
    two-dimensional quadrature. Source: this project's own.
    """
    refuse_noise(model, "the finite-size laws")
    p, of = int(model.p), DirectionAverages(model, gamma)
    trace = (1 - 1 / p, 1 / p)
    t, yt = (of.single(trace, 1, j) for j in (0, 1))
    B, cube, fourth = (of.single(trace, i) for i in (2, 3, 4))
    tt, tyt, ytyt = (of.square(trace, 1, j) for j in (0, 1, 2))
    bb = of.square(trace, 2)
    return LabelFluctuations(tt - t * t, tyt - t * yt, ytyt - yt * yt, bb - B * B, B, -2 * cube, fourth)


def student_shift(model: Model, alpha: float, gamma: float, lambda_edge: float) -> float:
    """N times the shift of the lowest bulk eigenvalue due to the p^2 directions of the student.

    (1/p) sum over directions of S_d'/(lambda_edge - S_d) - 1/g, where S_d replaces the self-energy Sigma for
    the direction d. With q = (2/p) u/D perpendicular (q_1) and parallel (q_3) to a sample's fields, S_d is
    alpha E[yhat q_3] for the one direction that has w_k in block k, alpha E[yhat q_1] for the p (p-1)/2
    antisymmetric combinations, and alpha E[yhat (q_1 + 2 (q_3 - q_1)/(p + 2))] for the p (p+1)/2 - 1
    symmetric traceless ones.

    Parameters
    ----------
    model : Model
        Finite p.
    alpha : float
        Samples per dimension.
    gamma, lambda_edge : float
        Position of the edge.

    Returns
    -------
    float
        In the units of H.

    Notes
    -----
    An ordinary direction has S_d = Sigma and causes no shift, since z' = 0 at the edge. Held by
    ``tests/test_edge_law.py``. Source: this project's own.
    """
    p = int(model.p)
    of = DirectionAverages(model, gamma)
    (S3, S3_prime), (S1, S1_prime) = (
        [alpha * (2 / p) ** k * of.single(weights, k, 0, 1) for k in (1, 2)]
        for weights in ((0.0, 1.0), (1.0, 0.0))
    )
    mixed = 2 / (p + 2)
    groups = [
        (1, S3, S3_prime),
        (p * (p - 1) // 2, S1, S1_prime),
        (p * (p + 1) // 2 - 1, S1 + mixed * (S3 - S1), S1_prime + mixed * (S3_prime - S1_prime)),
    ]
    g = -p * gamma / 2
    return sum(count * (slope / (lambda_edge - S) - 1 / g) for count, S, slope in groups if count) / p


def matrix_shift(p: float, gamma: Any, cube: Any, fourth: Any) -> Any:
    """N times the shift of an edge of real matrices beyond the Tracy-Widom law, from sums at its gamma.

    With z(m) the spectral map, m = p gamma/2, and primes for derivatives in m,

        (1/p) (1/m + z'''/(6 z'')),    z'' ~ 2/gamma^3 - 2 cube,    z''' ~ 6/gamma^4 - 6 fourth.

    Parameters
    ----------
    p : float
        Width of the student.
    gamma, cube, fourth : float or array
        Position of the edge, or of an outlier, for which the same expression is used; alpha times the
        averages of (1/p) sum_c (u_c/D_c)^k there, k = 3 and 4.

    Returns
    -------
    float or array
        In the units of H; positive, into the bulk, where extreme labels dominate.

    Notes
    -----
    The mean resolvent of a real matrix with these labels exceeds that of a complex one by -(1/2) d log(m^2
    z')/dz (Bai and Silverstein, Ann. Probab. 32, 553 (2004)). At an edge that is the part which the
    Tracy-Widom law has at beta = 1, and a shift. For one block of a Gaussian orthogonal or white Wishart
    matrix it is the known N -> N - 1/2 or n - 1/2, p - 1/2 (Johnstone and Ma, Ann. Appl. Probab. 22, 1962
    (2012); Ma, Bernoulli 18, 322 (2012)). For p > 1 it is the part in which all blocks move alike; that of
    blocks moving apart is left out, as they are too weakly coupled for an expansion at sizes within reach.
    Held by ``tests/test_edge_law.py``. Source: this project's own.
    """
    return (2 / p**2) * (1 / gamma - (gamma**-4 - fourth) / (2 * (gamma**-3 - cube)))
