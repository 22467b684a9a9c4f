"""The edge of a Gaussian orthogonal matrix with critical spikes: the universal law every continuous outlier
is born by.

r spikes of equal strength theta = 1 + w n^(-1/3) on an n x n matrix with its edge at 2. Known: without spikes
(w -> -inf) the extreme eigenvalue has the Tracy-Widom law; far above (w -> inf) the overlap is 2 w n^(-1/3)
and the eigenvalue w^2 n^(-2/3) beyond the edge; far below the overlap is r/(n w^2). Between them it is
tabulated, from the sampled matrices of ``benchmarks/spiked_edge.py``.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

FloatArray = npt.NDArray[np.float64]

TRACY_WIDOM_MEAN, TRACY_WIDOM_SD = 1.2065335745820, 1.2679810
"""Mean distance into the bulk and standard deviation of the extreme eigenvalue at beta = 1."""

_OVERLAP = (  # w, phi_1(w), its standard error
    (-8, 0.015382, 0.00015),
    (-6, 0.026953, 0.00027),
    (-5, 0.038114, 0.00038),
    (-4, 0.057339, 0.00056),
    (-3, 0.094214, 0.00089),
    (-2.5, 0.12587, 0.0012),
    (-2, 0.17314, 0.0015),
    (-1.5, 0.24592, 0.0021),
    (-1, 0.36151, 0.0028),
    (-0.5, 0.54714, 0.0038),
    (0, 0.84237, 0.0051),
    (0.5, 1.2957, 0.0064),
    (1, 1.9629, 0.0075),
    (1.5, 2.8382, 0.0079),
    (2, 3.8537, 0.0072),
    (2.5, 4.904, 0.0061),
    (3, 5.9405, 0.0051),
    (4, 7.9705, 0.004),
    (5, 9.9823, 0.0033),
    (6, 11.988, 0.0028),
    (8, 15.994, 0.0021),
)
_AT = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)  # w / r^(1/3)
_EIGENVALUE = {  # r: mean and standard deviation of xi_r, at these places
    1: (
        (1.009, 1.276),
        (0.8072, 1.297),
        (0.5542, 1.349),
        (-0.0114, 1.526),
        (-1.349, 2.003),
        (-4.197, 2.767),
        (-16.03, 4.011),
    ),
    2: (
        (0.8831, 1.258),
        (0.5457, 1.278),
        (0.08799, 1.342),
        (-1.024, 1.582),
        (-3.799, 2.155),
        (-9.299, 2.808),
        (-29.49, 3.853),
    ),
    3: (
        (0.8238, 1.267),
        (0.36, 1.288),
        (-0.2858, 1.359),
        (-1.901, 1.611),
        (-5.892, 2.117),
        (-13.44, 2.688),
        (-40.34, 3.701),
    ),
    4: (
        (0.7902, 1.291),
        (0.2404, 1.305),
        (-0.541, 1.371),
        (-2.538, 1.648),
        (-7.499, 2.195),
        (-16.83, 2.78),
        (-49.75, 3.783),
    ),
    6: (
        (0.6732, 1.25),
        (-0.07757, 1.279),
        (-1.179, 1.37),
        (-4.032, 1.669),
        (-10.89, 2.19),
        (-23.43, 2.723),
        (-67.09, 3.707),
    ),
}
_MOST_SPIKES = max(_EIGENVALUE)


@lru_cache(maxsize=1)
def _overlap_ratio() -> tuple[PchipInterpolator, float, float]:
    """phi_1 over a function with its limits on both sides, and the ends of the table."""
    w, phi, _ = np.array(_OVERLAP).T
    return PchipInterpolator(w, np.log(phi / _overlap_limits(w))), float(w[0]), float(w[-1])


def _overlap_limits(w: FloatArray) -> FloatArray:
    """2 w for w -> inf, 1/w^2 for w -> -inf, and smooth between."""
    positive = (np.abs(w) + np.hypot(w, 2)) / 2
    h = np.where(w > 0, positive, 1 / positive)  # (w + (w^2 + 4)^(1/2))/2 without cancellation
    limits: FloatArray = np.asarray(2 * h**2 / np.cbrt(h**3 + 8))
    return limits


def critical_overlap(w: float, r: int) -> float:
    """Scaling function phi_r(w) of the overlap: n^(1/3) times its mean over the r extreme vectors.

    phi_r(w) = r^(1/3) phi_1(w / r^(1/3)), phi_1 tabulated.

    Parameters
    ----------
    w : float
        Distance (theta - 1) n^(1/3) from criticality, or (1 - 1/theta^2) n^(1/3) / 2 above it.
    r : int
        Spikes, >= 1.

    Returns
    -------
    float
        > 0.

    Notes
    -----
    Limits: 2 w for w -> inf, r/w^2 for w -> -inf; phi_1(0) = 0.842(5). Accuracy 1 per cent for r = 1; the
    scaling with r is exact in both limits and holds to 2 per cent between them for r = 2, 3, 4, as sampled.
    Held by ``tests/test_overlap_law.py``. Source: sampled from the block tridiagonal form of the spiked
    ensemble (Bloemendal and Virag, arXiv:1011.1877 and 1109.3704).
    """
    ratio, low, high = _overlap_ratio()
    scale = r ** (1 / 3)
    x = w / scale
    inside = min(max(x, low), high)
    # Beyond the table the ratio goes on to 1, like the inverse square.
    log_ratio = float(ratio(inside)) * min(1.0, abs(inside / x) ** 2 if x else 1.0)
    phi: float = scale * float(_overlap_limits(np.array(x))) * math.exp(log_ratio)
    return phi


@lru_cache(maxsize=64)
def _eigenvalue_table(r: int) -> tuple[PchipInterpolator, PchipInterpolator]:
    """Mean of xi_r + max(w, 0)^2 and its standard deviation, as functions of w / r^(1/3)."""
    known = np.array(sorted(_EIGENVALUE))
    at = np.array(_AT)
    moments = np.array([_EIGENVALUE[int(k)] for k in known])  # (r, place, 2)
    moments[:, :, 0] += known[:, np.newaxis] ** (2 / 3) * np.maximum(at, 0) ** 2
    capped = min(r, _MOST_SPIKES)
    mean, sd = (
        np.array([np.interp(np.log(capped), np.log(known), moments[:, i, j]) for i in range(len(at))])
        for j in (0, 1)
    )
    return PchipInterpolator(at, mean * (r / capped) ** (2 / 3)), PchipInterpolator(at, sd)


def critical_eigenvalue(w: float, r: int) -> tuple[float, float]:
    """Mean and standard deviation of xi_r(w) + max(w, 0)^2, xi_r = n^(2/3) (2 - largest eigenvalue).

    Parameters
    ----------
    w : float
        As in :func:`critical_overlap`.
    r : int
        Spikes, >= 1.

    Returns
    -------
    mean, sd : float
        In units of n^(-2/3); a positive mean lies inside the bulk, or below the outlier's asymptotic place.

    Notes
    -----
    Limits: 1.2065 and 1.2680 for w -> -inf (Tracy-Widom, beta = 1); for w -> inf the mean is 0 for r = 1 and
    else the repulsion of r outliers, the standard deviation grows like w^(1/2), 2 w^(1/2) for r = 1. Accuracy
    0.02 for r = 1 and 0.05 for the other tabulated r; interpolated in log r, and beyond r = 6 extrapolated
    like r^(2/3). Held by ``tests/test_edge_law.py``. Source: as for :func:`critical_overlap`.
    """
    mean, sd = _eigenvalue_table(r)
    x = w / r ** (1 / 3)
    if x < _AT[0]:
        fade = _AT[0] / x
        return (
            TRACY_WIDOM_MEAN + (float(mean(_AT[0])) - TRACY_WIDOM_MEAN) * fade,
            TRACY_WIDOM_SD + (float(sd(_AT[0])) - TRACY_WIDOM_SD) * fade,
        )
    if x > _AT[-1]:
        growth = (x / _AT[-1]) ** 0.5
        # A single outlier has nothing to repel: its mean correction fades.
        return float(mean(_AT[-1])) * (growth if r > 1 else 1 / growth), float(sd(_AT[-1])) * growth
    return float(mean(x)), float(sd(x))
