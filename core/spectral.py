"""The label-only spectral method: the Hessian's blocks with weights that are a function of the label alone.

D_f = (1/N) sum_mu f(y_mu) x_mu x_mu^T is N x N. It is what one diagonal block of the Hessian becomes when the
student is so wide that its output no longer fluctuates, and the usual spectral initialisation of a
generalised linear model. With phi = f/|inf f|, so that inf phi = -1, everything is an average over the one
variable y, a gamma variable of mean 1 and shape n = p_star/2:

    T = phi/(1 + gamma phi)   A = E[T]   F = E[(y - 1) T]   B = E[T^2]   B_y = E[y T^2]

and edge, outlier, overlap and both kinds of transition are those of the Hessian in these averages.

No f, and no Hessian of any width either, does better than f = (1 - y)/y. Write h = gamma T: an outlier with
squared overlap m^2 obeys alpha E[(1 - y) h] = 1 and alpha E[(1 + m^2 (y - 1)) h^2] = 1 - m^2, so that by
Cauchy and Schwarz 1 <= alpha E[(1 - y)^2/(1 + r y)] with r = m^2/(1 - m^2). The right-hand side falls with
r; equality, which is reached by f = (1 - y)/y at gamma = 1 - m^2, gives the largest overlap at every load,
and r = 0 the smallest threshold p_star/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import gammaln

from bendscape.core.bulk import ROOT_TOLERANCE, Edge
from bendscape.core.model import (
    Model,
    ParameterError,
    TransitionKind,
    as_integer,
    as_positive,
    as_real,
    refuse_noise,
)
from bendscape.core.outlier import Asymptotics, Transition, transition

FloatArray = npt.NDArray[np.float64]

_POINTS = 16  # of a Gauss-Legendre panel; panels are as long as the law of log y is wide
_SCAN = np.concatenate([np.geomspace(1e-9, 1 / 128, 32), np.arange(2, 128) / 128])
_MARGINAL = 1e-12  # a jump of the squared overlap below it is rounding, and the transition continuous


@dataclass(frozen=True)
class SpectralWeights:
    """Weights f(y) of the samples in D_f, made so that the teacher's outlier leaves on the left.

    Parameters
    ----------
    f : callable
        Takes labels y > 0 of shape (M,), gives weights of the same shape: finite, and smooth in log y except
        at ``kinks``. It may grow without bound above, as y -> 0 say.
    infimum : float
        inf f over y > 0, finite and < 0: 1/infimum is how far the Stieltjes transform reaches.
    kinks : tuple of float
        Labels at which f jumps or bends; the averages are cut there.
    kind : str
        A name, for messages and tables.

    Notes
    -----
    :meth:`hessian_limit` and :meth:`optimal` are the two of interest; D_f and D_cf for c > 0 have the same
    eigenvectors.
    """

    f: Callable[[FloatArray], FloatArray]
    infimum: float
    kinks: tuple[float, ...] = ()
    kind: str = "user"

    def __post_init__(self) -> None:
        infimum = as_real(self.infimum)
        if not (math.isfinite(infimum) and infimum < 0):
            raise ParameterError("infimum", self.infimum, "finite and < 0", "without it no outlier goes left")
        object.__setattr__(self, "infimum", infimum)
        object.__setattr__(self, "kinks", tuple(sorted(as_positive("kinks", y) for y in self.kinks)))

    @classmethod
    def hessian_limit(cls, a: float) -> SpectralWeights:
        """Weights f = (1 - y)/(a + y): p/2 times those of the Hessian as p -> inf, where yhat -> 1."""
        a = as_positive("a", a)
        return cls(lambda y: (1 - y) / (a + y), -1.0, (), "hessian_limit")

    @classmethod
    def optimal(cls) -> SpectralWeights:
        """Weights f = 1/E[u^2|y] - 1 = (1 - y)/y: the lowest threshold and the largest overlap at any load.

        The limit a -> 0 of :meth:`hessian_limit`. Source: for one hidden unit Luo, Alghamdi and Lu,
        arXiv:1811.04420, with weights -f; the argument in this module covers any p_star.
        """
        return cls(lambda y: (1 - y) / y, -1.0, (), "optimal")


class SpectralGain(NamedTuple):
    """What a student of finite width pays in samples, against the methods that use labels alone."""

    alpha_bbp: float
    hessian_limit: float
    optimal: float
    over_hessian_limit: float
    over_optimal: float


class _Averages(NamedTuple):
    A: float
    F: float
    B: float
    B_y: float


class _Law:
    """The law of phi(y) on quadrature nodes."""

    def __init__(self, p_star: int, weights: SpectralWeights) -> None:
        self.y, self.probability = _label_nodes(as_integer("p_star", p_star, 1), weights.kinks)
        f = np.asarray(weights.f(self.y), dtype=np.float64)
        if f.shape != self.y.shape or not np.isfinite(f).all():
            raise ParameterError("f", weights.kind, "a function that gives one finite weight for each label")
        phi = f / -weights.infimum
        if phi.min() < -1 - 1e-12:
            raise ParameterError("infimum", weights.infimum, f"at most {f.min():g}, which f reaches")
        self.phi = np.maximum(phi, -1.0)
        self.scale = -weights.infimum

    def averages(self, gamma: float) -> _Averages:
        """A, F, B, B_y at gamma; B = inf at gamma = 1 where f stays at its infimum on a range of labels."""
        D = 1 + gamma * self.phi
        if D.min() <= 0:
            return _Averages(-math.inf, math.nan, math.inf, math.inf)
        T = self.phi / D
        mass = self.probability * T
        return _Averages(
            A=float(mass.sum()),
            F=float((self.y - 1) @ mass),
            B=float(mass @ T),
            B_y=float((mass * T) @ self.y),
        )

    def z(self, alpha: float, gamma: float, at_gamma: _Averages) -> float:
        return self.scale * (-1 / gamma + alpha * at_gamma.A)

    def psi(self, gamma: float) -> float:
        """(gamma B + F)/(gamma B), of the sign of psi: negative where the outlier is isolated."""
        at_gamma = self.averages(gamma)
        return 1.0 if math.isinf(at_gamma.B) else 1 + at_gamma.F / (gamma * at_gamma.B)

    def edge(self, alpha: float) -> Edge:
        at_one = self.averages(1.0)
        if alpha * at_one.B <= 1:
            return Edge("smooth", 1.0, self.z(alpha, 1.0, at_one))
        gamma = float(brentq(lambda x: (alpha * self.averages(x).B) ** -0.5 - x, 0.0, 1.0, **ROOT_TOLERANCE))
        return Edge("sharp", gamma, self.z(alpha, gamma, self.averages(gamma)))


@lru_cache(maxsize=64)
def _label_nodes(p_star: int, kinks: tuple[float, ...]) -> tuple[FloatArray, FloatArray]:
    """Labels and their probabilities: Gauss-Legendre panels in log y, cut at the kinks."""
    n = p_star / 2
    width = 40 / n + math.sqrt(80 / n)
    low, high = -width, math.log1p(width)
    panels = math.ceil((high - low) * math.sqrt(1 + n))
    cuts = np.log([y for y in kinks if low < math.log(y) < high])
    bounds = np.unique(np.concatenate([np.linspace(low, high, panels + 1), cuts]))
    nodes, shares = np.polynomial.legendre.leggauss(_POINTS)
    half = np.diff(bounds)[:, np.newaxis] / 2
    log_y = (bounds[:-1, np.newaxis] + half * (1 + nodes)).ravel()
    y = np.exp(log_y)
    probability = (half * shares).ravel() * np.exp(n * (math.log(n) + log_y - y) - gammaln(n))
    probability /= probability.sum()  # log n^n - log Gamma(n) loses digits at large n
    for array in (y, probability):
        array.flags.writeable = False
    return y, probability


def _overlap_sq(gamma: float, at_gamma: _Averages) -> float:
    psi = gamma * at_gamma.B + at_gamma.F
    return max(0.0, psi / (psi - gamma * at_gamma.B_y))


def spectral_transition(p_star: int, weights: SpectralWeights) -> Transition:
    """Threshold alpha_bbp of the label-only spectral method, and its kind.

    Continuous: psi(gamma) = gamma B + F = 0 at a gamma in (0, 1]. Discontinuous: psi < 0 up to gamma = 1. In
    both alpha_bbp = -1/(gamma F(gamma)).

    Parameters
    ----------
    p_star : int
        Teacher hidden units.
    weights : SpectralWeights
        With E[(y - 1) f] < 0.

    Returns
    -------
    Transition
        ``alpha_bbp``: at every load above it an isolated eigenvalue of D_f lies left of the bulk; and there
        ``kind``, ``alpha_sharp`` (smooth edge below it; 0 where the edge is always sharp), ``gamma``,
        ``lambda_minus`` in units of the eigenvalues of D_f, and the jump ``overlap_sq``.

    Notes
    -----
    Limits: hessian_limit gives p_star (a + 1)/2, discontinuous; optimal gives p_star/2, where the jump has
    just vanished. For an f that makes the outlier come and go with the load this is the last time it comes.
    Accuracy 1e-11 relative where f is smooth between its kinks; held by ``tests/test_spectral.py``. Source:
    this project's own, from the p -> inf limit of arXiv:2510.18435; the general theory of such matrices is
    that of Lu and Li, arXiv:1702.06435.
    """
    law = _Law(p_star, weights)
    if law.averages(_SCAN[0]).F >= 0:
        raise ParameterError(
            "f", weights.kind, "negatively correlated with the label, E[(y - 1) f] < 0", "take its mirror -f"
        )
    at_one = law.averages(1.0)
    alpha_sharp = 1 / at_one.B
    scan = np.append(_SCAN, 1.0)
    positive = next((i for i, x in enumerate(scan) if law.psi(x) >= 0), None)
    kind: TransitionKind = "discontinuous"
    gamma, at_gamma = 1.0, at_one
    if positive is not None:
        kind = "continuous"
        gamma = float(brentq(law.psi, scan[positive - 1], scan[positive], **ROOT_TOLERANCE))
        at_gamma = law.averages(gamma)
    overlap_sq = _overlap_sq(gamma, at_gamma)
    if overlap_sq < _MARGINAL:
        kind, overlap_sq = "continuous", 0.0
    alpha_bbp = -1 / (gamma * at_gamma.F)
    return Transition(alpha_bbp, kind, alpha_sharp, gamma, law.z(alpha_bbp, gamma, at_gamma), overlap_sq)


def spectral_asymptotics(p_star: int, weights: SpectralWeights, alpha: float) -> Asymptotics:
    """Edge lambda_minus, outlier lambda_star and overlap m^2 of D_f at one load, as N -> inf.

    Edge: alpha gamma^2 B = 1, or gamma = 1. Outlier: alpha gamma F = -1 between the edge's gamma and 0. Then
    z = |inf f| (-1/gamma + alpha A) and m^2 = psi/(psi - gamma B_y), psi = gamma B + F.

    Parameters
    ----------
    p_star : int
        Teacher hidden units.
    weights : SpectralWeights
        Any; without negative correlation with the label there is no outlier on the left.
    alpha : float
        Samples per dimension, finite and > 0.

    Returns
    -------
    Asymptotics
        ``alpha``, ``edge``, ``lambda_minus``, ``lambda_star`` (p_star-fold) in units of the eigenvalues of
        D_f, and ``overlap_sq``: the weight of one of the outlier's unit eigenvectors in the span of the
        teacher. The last two are nan where there is no isolated outlier.

    Notes
    -----
    Limits: those of the Hessian as p -> inf, with eigenvalues p/2 times its; for the optimal weights
    overlap_sq = 1 - gamma, the largest of any f at that load. Accuracy as :func:`spectral_transition`; held
    by ``tests/test_spectral.py``. Source: this project's own, from arXiv:2510.18435.
    """
    alpha = as_positive("alpha", alpha)
    law = _Law(p_star, weights)
    edge = law.edge(alpha)

    def past_outlier(gamma: float) -> float:
        return -alpha * gamma * law.averages(gamma).F - 1

    if past_outlier(edge.gamma) <= 0:
        return Asymptotics(alpha, edge.kind, edge.lambda_minus, math.nan, math.nan)
    gamma = float(brentq(past_outlier, 0.0, edge.gamma, **ROOT_TOLERANCE))
    at_gamma = law.averages(gamma)
    lambda_star = min(law.z(alpha, gamma, at_gamma), edge.lambda_minus)
    return Asymptotics(alpha, edge.kind, edge.lambda_minus, lambda_star, _overlap_sq(gamma, at_gamma))


def spectral_gain(model: Model) -> SpectralGain:
    """Threshold of the Hessian beside those of the label-only spectral methods.

    alpha_bbp, p_star (a + 1)/2 (the same loss at p = inf) and p_star/2 (the optimal weights), and the ratios
    alpha_bbp / (p_star (a + 1)/2), alpha_bbp / (p_star/2).

    Parameters
    ----------
    model : Model
        Any p, including inf.

    Returns
    -------
    SpectralGain
        Loads ``alpha_bbp``, ``hessian_limit``, ``optimal``, and ``over_hessian_limit`` (below 1 where a
        student of finite width needs fewer samples than an infinite one) and ``over_optimal`` (>= 1).

    Notes
    -----
    Limits: over_hessian_limit = 1 + (2/p) (a - 1)(a + 2)/((a + 1)^2 (a + 3)) + O(1/p^2): a wide student gains
    over an infinite one where a < 1; a single unit did nowhere on a grid of p_star in 1..100, a in 1e-3..1e3.
    Thresholds as N -> inf; what samples of finite size show of a discontinuous one begins earlier. Accuracy
    1e-12 relative; held by ``tests/test_spectral.py``.
    Source: this project's own.
    """
    refuse_noise(model, "the label-only comparison")
    alpha_bbp = transition(model).alpha_bbp
    hessian_limit, optimal = model.p_star * (model.a + 1) / 2, model.p_star / 2
    return SpectralGain(alpha_bbp, hessian_limit, optimal, alpha_bbp / hessian_limit, alpha_bbp / optimal)
