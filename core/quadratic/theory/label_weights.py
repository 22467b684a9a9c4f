"""Weights of the label-only spectral method, and their distribution under the law of a label.

With phi = f/|inf f|, so that inf phi = -1, everything is an average over the one variable y, a gamma variable
of shape n = p_star/2, by Gauss-Legendre panels in log y:

    T = phi/(1 + gamma phi)   A = E[T]   F = E[(w - 1) T]   B = E[T^2]   B_y = E[w T^2]

with w = E[u_l^2 | y] the weight of the teacher, y where labels carry no noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import gammaln

from bendscape.core.errors import ParameterError, as_integer, as_positive, as_real
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.bulk import ROOT_TOLERANCE, Edge
from bendscape.core.quadratic.theory.integrals import Averages
from bendscape.core.quadratic.theory.precision import Known, as_root, error_of

FloatArray = npt.NDArray[np.float64]

_POINTS = 16  # per Gauss-Legendre panel; a panel is as long as the law of log y is wide
_UNIT = 2.0**-53
_OPERATIONS = 8.0  # rounding errors of a term, those of f included, that do not grow with the exponents


@dataclass(frozen=True)
class SpectralWeights:
    """Weights f(y) of the samples in D_f, with signs such that the teacher's outlier leaves the bulk on the
    left.

    Parameters
    ----------
    f : callable
        Takes labels y > 0 of shape (M,), gives weights of the same shape: finite, and smooth in log y except
        at ``kinks``. It may be unbounded above, for example as y -> 0.
    infimum : float
        inf f over y > 0, finite and < 0; the Stieltjes transform reaches down to 1/infimum.
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
            raise ParameterError(
                "infimum", self.infimum, "finite and < 0", "otherwise no outlier is left of the bulk"
            )
        object.__setattr__(self, "infimum", infimum)
        object.__setattr__(self, "kinks", tuple(sorted(as_positive("kinks", y) for y in self.kinks)))

    @classmethod
    def hessian_limit(cls, a: float) -> SpectralWeights:
        """Weights f = (1 - y)/(a + y): p/2 times those of the Hessian as p -> inf, where yhat -> 1."""
        a = as_positive("a", a)
        return cls(lambda y: (1 - y) / (a + y), -1.0, (), "hessian_limit")

    @classmethod
    def optimal(cls, noise: float = 0.0) -> SpectralWeights:
        """Weights f = 1/E[u^2|y] - 1: the lowest threshold and the largest overlap at any load.

        (1 - y)/y without noise, the limit a -> 0 of :meth:`hessian_limit`; with noise, as in ``Model``, w =
        E[u^2|y] = (y0 + noise)/(1 + noise), y0 = y/(1 + noise), takes the place of y. Source: for one hidden
        unit Luo, Alghamdi and Lu, arXiv:1811.04420, with weights -f; the argument in
        :mod:`bendscape.core.quadratic.theory.label_only` covers any p_star.
        """
        noise = Model(1, 1, 1.0, noise).noise
        if not noise:
            return cls(lambda y: (1 - y) / y, -1.0, (), "optimal")
        return cls(lambda y: (1 + noise) / (y / (1 + noise) + noise) - 1, -1.0, (), "optimal")


class LabelLaw:
    """The values of phi(y) and of the teacher's weight w = E[u_l^2 | y] on quadrature nodes."""

    def __init__(
        self, p_star: int, weights: SpectralWeights, noise: float = 0.0, refined: bool = False
    ) -> None:
        if not isinstance(weights, SpectralWeights):
            raise ParameterError("weights", weights, "SpectralWeights", "SpectralWeights.optimal(), say")
        noise = Model(1, p_star, 1.0, noise).noise
        kinks = tuple(y / (1 + noise) for y in weights.kinks)
        y0, self.probability = _label_nodes(as_integer("p_star", p_star, 1), kinks, refined)
        y = (1 + noise) * y0
        f = np.asarray(weights.f(y), dtype=np.float64)
        if f.shape != y.shape or not np.isfinite(f).all():
            raise ParameterError("f", weights.kind, "a function that gives one finite weight for each label")
        phi = f / -weights.infimum
        if phi.min() < -1 - 1e-12:
            raise ParameterError("infimum", weights.infimum, f"at most {f.min():g}, which f reaches")
        self.phi = np.maximum(phi, -1.0)
        self.scale = -weights.infimum
        self.w, self.w_less_one = (y0 + noise) / (1 + noise), (y0 - 1) / (1 + noise)
        # The probability, exponential of a sum, rounds like the sum.
        n = p_star / 2
        self.growth = _OPERATIONS + n * (math.log1p(n) + abs(np.log(y0)) + y0)
        self.name = f"p_star = {p_star}, noise = {noise:g}, {weights.kind} weights"
        self._given = (p_star, weights, noise)

    def averages(self, gamma: float) -> Averages:
        """A, F, B, B_y at gamma; B = inf at gamma = 1 if f equals its infimum on a range of labels."""
        D = 1 + gamma * self.phi
        if D.min() <= 0:
            return Averages(-math.inf, math.nan, math.inf, math.inf)
        T = self.phi / D
        mass = self.probability * T
        return Averages(
            A=float(mass.sum()),
            F=float(self.w_less_one @ mass),
            B=float(mass @ T),
            B_y=float((mass * T) @ self.w),
        )

    def known(self, gamma: float, at_gamma: Averages) -> Known:
        """The averages with errors: twice the distance from panels of half the length, and a bound on
        rounding errors, which are largest where D = 1 + gamma phi is small."""
        zero = Averages(0.0, 0.0, 0.0, 0.0)
        if math.isinf(at_gamma.B):
            return Known(gamma, 0.0, at_gamma, zero, zero)
        finer, D = self.finer.averages(gamma), 1 + gamma * self.phi
        T = self.phi / D
        lost = self.probability * abs(T) * (self.growth + _OPERATIONS * (1 + gamma * abs(self.phi)) / D)
        cube = self.probability * T**3
        B, B_y = lost @ abs(T), (lost * abs(T)) @ self.w
        bounds = Averages(lost.sum(), lost @ abs(self.w_less_one), 2 * B, 2 * B_y)
        errors = Averages(
            *(
                2 * abs(value - better) + _UNIT * float(bound)
                for value, better, bound in zip(at_gamma, finer, bounds, strict=True)
            )
        )
        prime = Averages(
            -at_gamma.B, at_gamma.B - at_gamma.B_y, -2 * float(cube.sum()), -2 * float(cube @ self.w)
        )
        return Known(gamma, 0.0, at_gamma, errors, prime)

    @cached_property
    def finer(self) -> LabelLaw:
        """The same on shorter panels."""
        return LabelLaw(*self._given, refined=True)

    def z(self, alpha: float, gamma: float, at_gamma: Averages) -> float:
        """The spectral map, in units of the eigenvalues of D_f."""
        return self.scale * float(-1 / gamma + alpha * at_gamma.A)

    def z_error(self, alpha: float, known: Known) -> float:
        """Error of z at a given load; where z' vanishes the error of gamma enters as its square."""
        second_order = self.scale * known.gamma_error**2 / known.gamma**3
        return float(second_order + error_of(known, lambda x, at: self.z(alpha, x.real, at)))

    def psi(self, gamma: float) -> float:
        """(gamma B + F)/(gamma B), of the sign of psi: negative where the outlier is isolated."""
        at_gamma = self.averages(gamma)
        return 1.0 if math.isinf(at_gamma.B) else 1 + at_gamma.F / (gamma * at_gamma.B)

    def edge(self, alpha: float) -> Edge:
        """Left edge of the bulk."""
        at_one = self.averages(1.0)
        if alpha * at_one.B <= 1:
            known = self.known(1.0, at_one)
            return Edge("smooth", 1.0, self.z(alpha, 1.0, at_one), self.z_error(alpha, known))
        gamma = float(brentq(lambda x: (alpha * self.averages(x).B) ** -0.5 - x, 0.0, 1.0, **ROOT_TOLERANCE))
        at_gamma = self.averages(gamma)
        known = as_root(self.known(gamma, at_gamma), lambda x, at: alpha * x * x * at.B - 1)
        return Edge("sharp", gamma, self.z(alpha, gamma, at_gamma), self.z_error(alpha, known))


@lru_cache(maxsize=64)
def _label_nodes(p_star: int, kinks: tuple[float, ...], refined: bool) -> tuple[FloatArray, FloatArray]:
    """Labels and their probabilities: Gauss-Legendre panels in log y, cut at the kinks; ``refined``: of half
    the length."""
    n = p_star / 2
    width = 40 / n + math.sqrt(80 / n)
    low, high = -width, math.log1p(width)
    panels = math.ceil((high - low) * math.sqrt(1 + n)) * (2 if refined else 1)
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
