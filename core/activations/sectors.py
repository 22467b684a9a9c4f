"""Theory for students that are not even: a symmetric and a relative sector, each with its outlier.

The teacher is even. With e_s = (1, .., 1)/sqrt(p), J = e_s e_s^T, G = g_s J + g_r (1 - J) and K = D (1 - G
D)^-1, the self-energies

    Sigma_i = E[e_i^T K e_i],   z = 1/g_i + alpha Sigma_i   (i = s, r)

fix g_s and g_r at every z below the edge, where z is largest along the branch. The outlier of sector i is at
z = S_i(z) = alpha E[u^2 e_i^T K e_i], with m^2 = 1/(1 - dS_i/dz). The symmetric outlier is p_star fold, the
relative one (p - 1) p_star fold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from bendscape.core.activations.activation import Network
from bendscape.core.activations.quadrature import WIDEST_PRODUCT, Rule, Rules, rules_of
from bendscape.core.activations.weight import least_weight, weight_of
from bendscape.core.errors import ParameterError, as_positive

FloatArray = npt.NDArray[np.float64]

POINTS = 14
"""Points along the branch of G, from 0 to the end of its domain."""
GRADING = 1.5
"""They are dense near 0: power of an even spacing."""
EDGE = 1 - 1e-9
"""The domain ends at this fraction of 1/inf d where the teacher is unbounded."""
BEYOND = 3.0
"""Where it is bounded, inf d need not be reached in both sectors, and the branch is followed up to this
multiple of 1/inf d, or to where 1 - G D is singular at a node."""
HALVINGS = 30
NEWTON, CLOSE = 20, 1e-13
"""Most steps, and relative size of the last."""
LOADS = tuple(2.0**k for k in range(-5, 8))
"""Loads between which a threshold is looked for."""
SECTORS = ("symmetric", "relative")


class SectorOutlier(NamedTuple):
    """Outlier of one sector, with errors of quadrature; nan where there is none."""

    lambda_star: float
    overlap_sq: float
    lambda_star_error: float
    overlap_sq_error: float


class SectorSpectrum(NamedTuple):
    """Left edge, with its kind and error of quadrature, and the outliers of both sectors at one load."""

    lambda_minus: float
    edge: str
    lambda_minus_error: float
    symmetric: SectorOutlier
    relative: SectorOutlier


class SectorThreshold(NamedTuple):
    """Load at which the outlier of one sector leaves the bulk, kind of transition, and error of quadrature;
    nan and "none" where that is not below the last of ``LOADS``."""

    alpha_bbp: float
    kind: str
    alpha_bbp_error: float


class _Energies(NamedTuple):
    """Sigma_s and Sigma_r, and their derivatives: of Sigma_s by g_s; of Sigma_s by g_r, which is p - 1 times
    that of Sigma_r by g_s; of Sigma_r by g_r."""

    symmetric: float
    relative: float
    ss: float
    across: float
    rr: float


Energies = Callable[[float, float], "tuple[_Energies, _Energies] | None"]
"""Without and with u^2; None outside the domain, where 1 - G D is singular at a node."""


def _energies(network: Network, rule: Rule) -> Energies:
    p = int(network.p)
    v, e = weight_of(network, rule.fields[:, :, None], rule.y)
    signals = np.stack([rule.label_weights, rule.label_weights * rule.u_sq], axis=1)

    def at(g_s: float, g_r: float) -> tuple[_Energies, _Energies] | None:
        c, delta = 1 - g_r * e, g_s - g_r
        if c.min() <= 0:
            return None
        w, ratio = v / c, e / c
        denominator = 1 - g_r * (v * w).sum(axis=0)
        u = (ratio + w * (w.sum(axis=0) / denominator)) / math.sqrt(p)  # K0 e_s, K0 = D (1 - g_r D)^-1
        k = u.sum(axis=0) / math.sqrt(p)
        rest = 1 - delta * k
        if rest.min() <= 0 or denominator.min() <= 0:
            return None
        w_sq, u_sq, w_u = (w * w).sum(axis=0), (u * u).sum(axis=0), (w * u).sum(axis=0)
        turned = delta / rest
        trace = ratio.sum(axis=0) + w_sq / denominator
        square = (ratio * ratio).sum(axis=0) + (
            2 * (ratio * w * w).sum(axis=0) + w_sq**2 / denominator
        ) / denominator
        square += 2 * turned * ((ratio * u * u).sum(axis=0) + w_u**2 / denominator) + (turned * u_sq) ** 2
        symmetric, along = k / rest, u_sq / rest**2
        relative = (trace + turned * u_sq - symmetric) / (p - 1)
        rr = (square - 2 * along + symmetric**2) / (p - 1)
        means = [
            (rule.weights @ each) @ signals
            for each in (symmetric, relative, symmetric**2, along - symmetric**2, rr)
        ]
        return _Energies(*(float(of[0]) for of in means)), _Energies(*(float(of[1]) for of in means))

    return at


class _Point(NamedTuple):
    """A point of the branch: z, dz/dg_r, and z - S_i with its derivative by z for both sectors."""

    g_s: float
    g_r: float
    z: float
    slope: float
    excess: tuple[float, float]
    excess_slope: tuple[float, float]


class _Branch:
    """G along g_r at one load, from 0 to the edge."""

    def __init__(self, network: Network, energies: Energies, alpha: float) -> None:
        self.p, self.alpha, self.energies = int(network.p), alpha, energies
        end = 1 / least_weight(network)
        self.limit = end * (EDGE if math.isinf(network.teacher.most) else BEYOND)
        self.points: list[_Point] = []
        places = self.limit * np.linspace(0.0, 1.0, POINTS + 1)[1:] ** GRADING
        first = float(places[0])
        while (point := self.at(first)) is None or point.slope >= 0:  # a high load: the edge is close to 0
            first /= 4
        for g_r in (first, *places[places < first].tolist()):
            point = self.at(g_r)
            if point is None or point.slope >= 0:
                break
            self.points.append(point)
        self.kind = self._close(g_r, point)

    def at(self, g_r: float, near: _Point | None = None) -> _Point | None:
        """The point at g_r, by Newton's method from a near one; None outside the domain."""
        p, alpha = self.p, self.alpha
        g_s = g_r * self._ratio(g_r, near)
        for _ in range(NEWTON):
            if g_s < self.limit * (2 - EDGE) or g_s >= 0:
                return None
            found = self.energies(g_s, g_r)
            if found is None:
                return None
            plain, signal = found
            value = 1 / g_s - 1 / g_r + alpha * (plain.symmetric - plain.relative)
            slope = -1 / g_s**2 + alpha * (plain.ss - plain.across / (p - 1))
            step = -value / slope
            if abs(step) <= CLOSE * abs(g_s):
                break
            g_s += step
        turn = -(1 / g_r**2 + alpha * (plain.across - plain.rr)) / slope  # dg_s/dg_r
        dz = -1 / g_r**2 + alpha * (plain.rr + plain.across / (p - 1) * turn)
        z = 1 / g_r + alpha * plain.relative
        by_z = (
            alpha * (signal.ss * turn + signal.across),
            alpha * (signal.across / (p - 1) * turn + signal.rr),
        )
        excess = z - alpha * signal.symmetric, z - alpha * signal.relative
        slopes = (1 - by_z[0] / dz, 1 - by_z[1] / dz) if dz else (math.inf, math.inf)
        return _Point(g_s, g_r, z, dz, excess, slopes)

    def _ratio(self, g_r: float, near: _Point | None) -> float:
        """g_s/g_r, extrapolated."""
        if near is not None:
            return near.g_s / near.g_r
        if len(self.points) < 2:
            return self.points[-1].g_s / self.points[-1].g_r if self.points else 1.0
        one, two = self.points[-2:]
        first, last = one.g_s / one.g_r, two.g_s / two.g_r
        return last + (last - first) * (g_r - two.g_r) / (two.g_r - one.g_r)

    def _close(self, g_r: float, beyond: _Point | None) -> str:
        """Add the edge to the branch, which goes on at least to its last point and not to g_r."""
        if self.edge.g_r == g_r:
            return "smooth"
        for _ in range(HALVINGS):
            last = self.points[-1]
            if beyond is not None:
                top = brentq(self._slope, last.g_r, g_r, (last,), xtol=1e-12)
                self.points.append(self.at(top, last) or last)
                return "sharp"
            middle = (last.g_r + g_r) / 2
            point = self.at(middle)
            if point is None or point.slope >= 0:
                g_r, beyond = middle, point
            else:
                self.points.append(point)
        return "smooth"

    def _slope(self, g_r: float, near: _Point) -> float:
        found = self.at(g_r, near)
        return math.inf if found is None else found.slope * g_r**2

    @property
    def edge(self) -> _Point:
        """The end of the branch."""
        return self.points[-1]

    def outlier(self, sector: int) -> tuple[float, float]:
        """lambda_star and m^2 of a sector, nan where there is none."""
        for before, after in pairwise(self.points):
            if before.excess[sector] < 0 <= after.excess[sector]:
                ends = (before, after)
                g_r = brentq(self._excess, before.g_r, after.g_r, (*ends, sector), xtol=1e-13)
                found = self.at(g_r, before) or after
                return found.z, 1 / found.excess_slope[sector]
        return math.nan, math.nan

    def _excess(self, g_r: float, before: _Point, after: _Point, sector: int) -> float:
        near = before if g_r > (before.g_r + after.g_r) / 2 else after
        return (self.at(g_r, near) or near).excess[sector]


def check_sectors(network: Network) -> None:
    """Refuse widths without a quadrature or without a relative sector."""
    if not 2 <= network.p <= WIDEST_PRODUCT:
        raise ParameterError(
            "p", network.p, f"from 2 to {WIDEST_PRODUCT} for the two sectors", "sample instead"
        )


@lru_cache(maxsize=8)
def _of_network(network: Network) -> tuple[Rules, Energies, tuple[Energies, ...]]:
    """The rules, and the self-energies by the best and by those that give its error."""
    check_sectors(network)
    rules = rules_of(network, both_sides=True)
    return rules, _energies(network, rules.best), tuple(_energies(network, of) for of in rules.others)


def sector_spectrum(network: Network, alpha: float) -> SectorSpectrum:
    """Left edge and the outliers of both sectors at load alpha.

    Parameters
    ----------
    network : Network
        Even teacher, any student, 2 <= p <= 4.
    alpha : float
        Samples per dimension, > 0.

    Returns
    -------
    SectorSpectrum
        Eigenvalues in the units of H. Errors are the largest differences to two coarser rules.

    Raises
    ------
    ParameterError
        The teacher is not even, p is out of range, or the spectrum has no left edge.

    Notes
    -----
    Held by ``tests/test_activation_sectors.py`` against the even theory and sampled matrices.
    """
    alpha = as_positive("alpha", alpha)
    rules, best, others = _of_network(network)
    fine, *coarse = (_Branch(network, energies, alpha) for energies in (best, *others))
    outliers = []
    for sector in range(2):
        star, overlap_sq = fine.outlier(sector)
        rough = [branch.outlier(sector) for branch in coarse]
        errors = (rules.error(x, [of[k] for of in rough]) for k, x in enumerate((star, overlap_sq)))
        outliers.append(SectorOutlier(star, overlap_sq, *errors))
    error = rules.error(fine.edge.z, [branch.edge.z for branch in coarse])
    return SectorSpectrum(fine.edge.z, fine.kind, error, *outliers)


@lru_cache(maxsize=256)
def sector_thresholds(network: Network) -> dict[str, SectorThreshold]:
    """The load at which the outlier of each sector leaves the bulk.

    There z = S_i at the edge: continuous where the edge is sharp, discontinuous where it is smooth.

    Parameters
    ----------
    network : Network
        As in :func:`sector_spectrum`.

    Returns
    -------
    dict of str to SectorThreshold
        By sector, the first between ``LOADS``. The error is the largest change with two coarser rules.

    Raises
    ------
    ParameterError
        As :func:`sector_spectrum`.
    """
    rules, fine, others = _of_network(network)

    @lru_cache(maxsize=512)
    def edge(load: float, energies: Energies) -> tuple[str, tuple[float, float]]:
        branch = _Branch(network, energies, load)
        return branch.kind, branch.edge.excess

    def excess(load: float, energies: Energies, sector: int) -> float:
        return edge(load, energies)[1][sector]

    def threshold(sector: int, energies: Energies, loads: tuple[float, ...]) -> float:
        for low, high in pairwise(loads):
            if excess(low, energies, sector) < 0 <= excess(high, energies, sector):
                return float(brentq(excess, low, high, (energies, sector), xtol=1e-9, rtol=1e-9))
        return math.nan

    found = {}
    for sector, name in enumerate(SECTORS):
        load = threshold(sector, fine, LOADS)
        if math.isnan(load):
            found[name] = SectorThreshold(load, "none", math.nan)
            continue
        rough = [threshold(sector, coarse, (load * 0.95, load * 1.05)) for coarse in others]
        kind = "continuous" if edge(load, fine)[0] == "sharp" else "discontinuous"
        found[name] = SectorThreshold(load, kind, rules.error(load, rough))
    return found
