"""Theory for students that are not even: a symmetric and a relative sector, each with its outlier.

The teacher is even. With e_s = (1, .., 1)/sqrt(p), J = e_s e_s^T and G = g_s J + g_r (1 - J), the
self-energies

    Sigma_i = E[e_i^T D (1 - G D)^-1 e_i],   z = 1/g_i + alpha Sigma_i   (i = s, r)

fix g_s and g_r at every z below the edge. The outlier of sector i is at z = S_i(z) = alpha E[u^2 e_i^T D (1 -
G D)^-1 e_i], with m^2 = 1/(1 - dS_i/dz). The symmetric outlier is p_star fold, the relative one (p - 1)
p_star fold.
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
from bendscape.core.activations.averages import gather, labels, least_weight, trapezoid
from bendscape.core.errors import ParameterError, as_positive

FloatArray = npt.NDArray[np.float64]

WIDEST = 3
NODES = {2: 22, 3: 12}
"""Nodes on the half-line for each pre-activation of the student."""
POINTS = 60
"""Points along the branch of G, from 0 to the end of its domain."""
STEP = 1e-4
"""Relative step of the numerical derivatives along the branch."""
SECTORS = ("symmetric", "relative")


class SectorOutlier(NamedTuple):
    """Outlier of one sector; nan where there is none."""

    lambda_star: float
    overlap_sq: float


class SectorSpectrum(NamedTuple):
    """Left edge and the outliers of both sectors at one load."""

    lambda_minus: float
    symmetric: SectorOutlier
    relative: SectorOutlier


class _Energies(NamedTuple):
    """Self-energies of both sectors, without and with u^2."""

    symmetric: float
    relative: float
    symmetric_signal: float
    relative_signal: float


Energies = Callable[[float, float], "_Energies | None"]


@lru_cache(maxsize=32)
def _energies(network: Network, share: float) -> Energies:
    p, a = network.p, network.a
    x, w = trapezoid(round(share * NODES[p]))
    fields, weights = gather(np.concatenate((-x, x)), np.concatenate((w, w)) / 2, p)
    y, u_sq, label_weights = labels(network, share)
    pull = (network.student.value(fields).mean(axis=1)[:, None] - y) / (p * (a + y))
    e = network.student.curvature(fields).T[:, :, None] * pull
    v = network.student.slope(fields).T[:, :, None] / (p * np.sqrt(a + y))
    signal_weights = label_weights * u_sq

    def at(g_s: float, g_r: float) -> _Energies | None:
        """None outside the domain, where 1 - G D is singular for some pre-activations."""
        c = 1 - g_r * e
        if c.min() <= 0:
            return None
        w = v / c
        ratio = e / c
        denominator = 1 - g_r * (v * w).sum(axis=0)
        total = w.sum(axis=0) / denominator
        across = ratio + w * total  # sqrt(p) K e_s, K = D (1 - g_r D)^-1
        k_ss = across.sum(axis=0) / p
        trace = ratio.sum(axis=0) + (w * w).sum(axis=0) / denominator
        rest = 1 - (g_s - g_r) * k_ss
        if rest.min() <= 0:
            return None
        symmetric = weights @ (k_ss / rest)
        whole = weights @ (trace + (g_s - g_r) * (across * across).sum(axis=0) / (p * rest))
        relative = (whole - symmetric) / (p - 1)
        return _Energies(
            float(symmetric @ label_weights),
            float(relative @ label_weights),
            float(symmetric @ signal_weights),
            float(relative @ signal_weights),
        )

    return at


class _Point(NamedTuple):
    """One point of the branch: z, and z - S_i for both sectors."""

    g_s: float
    g_r: float
    z: float
    symmetric: float
    relative: float


def _point(energies: Energies, alpha: float, g_r: float, end: float, near: float) -> _Point | None:
    """The point of the branch at g_r; `near` is g_s/g_r of the point before."""

    def mismatch(g_s: float) -> float:
        found = energies(g_s, g_r)
        if found is None:
            return math.nan
        return 1 / g_s - 1 / g_r + alpha * (found.symmetric - found.relative)

    width = 0.02
    while width < 0.7:
        low, high = g_r * near * (1 + width), g_r * near * (1 - width)
        values = mismatch(low), mismatch(high)
        if math.isnan(values[0]) or low < end:
            low = max(g_r * near * (1 + width / 8), end)
            values = mismatch(low), values[1]
        if any(map(math.isnan, values)):
            return None
        if values[0] * values[1] <= 0:
            g_s = float(brentq(mismatch, low, high, xtol=1e-13))
            found = energies(g_s, g_r)
            assert found is not None
            z = 1 / g_r + alpha * found.relative
            return _Point(g_s, g_r, z, z - alpha * found.symmetric_signal, z - alpha * found.relative_signal)
        width *= 2
    return None


def check_sectors(network: Network) -> None:
    """Refuse teachers that are not even, and widths without a quadrature or without a relative sector."""
    if not network.teacher.even:
        raise ParameterError("teacher_activation", network.teacher_activation, "even for this theory")
    if not 2 <= network.p <= WIDEST:
        raise ParameterError("p", network.p, f"from 2 to {WIDEST} for the two sectors", "sample instead")


def sector_spectrum(network: Network, alpha: float, share: float = 1.0) -> SectorSpectrum:
    """Left edge and the outliers of both sectors at load alpha.

    Parameters
    ----------
    network : Network
        Even teacher, any student, 2 <= p <= 3.
    alpha : float
        Samples per dimension, > 0.
    share : float
        Share of the quadrature's nodes: compare with 0.75 for the error of quadrature.

    Returns
    -------
    SectorSpectrum
        Eigenvalues in the units of H.

    Raises
    ------
    ParameterError
        As :func:`check_sectors`, or the spectrum has no left edge.
    """
    check_sectors(network)
    alpha = as_positive("alpha", alpha)
    energies = _energies(network, share)
    end = 1 / least_weight(network)
    branch: list[_Point] = []
    for g_r in map(float, end * np.linspace(0.01, 1 - 1e-9, POINTS)):
        near = branch[-1].g_s / branch[-1].g_r if branch else 1.0
        point = _point(energies, alpha, g_r, end, near)
        if point is None or (branch and point.z < branch[-1].z):
            break
        branch.append(point)
    last = branch[-1]

    def at(g_r: float, near: float) -> _Point:
        point = _point(energies, alpha, g_r, end, near)
        return last if point is None else point

    # The maximum of z lies within a step of the last point.
    step = branch[1].g_r - branch[0].g_r
    low, high = last.g_r - step, last.g_r + step
    for _ in range(40):
        thirds = low + (high - low) / 3, high - (high - low) / 3
        inner = [_point(energies, alpha, g, end, last.g_s / last.g_r) for g in thirds]
        if inner[1] is None or (inner[0] is not None and inner[0].z > inner[1].z):
            high = thirds[1]
        else:
            low = thirds[0]
    top = at((low + high) / 2, last.g_s / last.g_r)
    branch = [point for point in branch if point.g_r > top.g_r] + [max(top, last, key=lambda point: point.z)]
    outliers = [_outlier(branch, at, name) for name in SECTORS]
    return SectorSpectrum(branch[-1].z, *outliers)


def _outlier(branch: list[_Point], at: Callable[[float, float], _Point], sector: str) -> SectorOutlier:
    for before, after in pairwise(branch):
        if getattr(before, sector) * getattr(after, sector) > 0:
            continue
        near = before.g_s / before.g_r
        g_r = brentq(lambda g, near=near: getattr(at(g, near), sector), before.g_r, after.g_r, xtol=1e-12)
        left, right = at(g_r * (1 - STEP), near), at(g_r * (1 + STEP), near)
        slope = (getattr(right, sector) - getattr(left, sector)) / (right.z - left.z)  # 1 - dS/dz
        return SectorOutlier(at(g_r, near).z, 1 / slope)
    return SectorOutlier(math.nan, math.nan)


def sector_thresholds(network: Network, low: float, high: float, tolerance: float = 1e-3) -> dict[str, float]:
    """The load at which the outlier of each sector leaves the bulk, by bisection in [low, high].

    Parameters
    ----------
    network : Network
        As in :func:`sector_spectrum`.
    low, high : float
        Loads between which to look.
    tolerance : float
        Absolute accuracy of the bisection.

    Returns
    -------
    dict
        By sector; nan if there is no outlier at ``high``, and ``low`` if there is one already there.
    """
    return {sector: _threshold(network, sector, low, high, tolerance) for sector in SECTORS}


def _threshold(network: Network, sector: str, low: float, high: float, tolerance: float) -> float:
    def exists(alpha: float) -> bool:
        return not math.isnan(getattr(sector_spectrum(network, alpha), sector).lambda_star)

    if not exists(high):
        return math.nan
    if exists(low):
        return low
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (low, middle) if exists(middle) else (middle, high)
    return (low + high) / 2
