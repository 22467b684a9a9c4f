"""The edge of a Gaussian orthogonal matrix with critical spikes: the universal law of an outlier that appears
continuously.

r spikes of equal strength theta = 1 + w n^(-1/3) on an n x n matrix with its edge at 2. Known limits: without
spikes (w -> -inf) the extreme eigenvalue has the Tracy-Widom law; far above (w -> inf) the overlap is
2 w n^(-1/3) and the eigenvalue is w^2 n^(-2/3) beyond the edge; far below the overlap is r/(n w^2). Between
the limits the law is tabulated, from the sampled matrices of ``benchmarks/spiked_edge.py``.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

FloatArray = npt.NDArray[np.float64]

TRACY_WIDOM_MEAN, TRACY_WIDOM_SD = 1.2065335745820, 1.2679810
"""Mean distance into the bulk, and standard deviation, of the extreme eigenvalue at beta = 1."""

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
_AT = (-6.0, -3.0, -1.5, -0.5, 0.0, 0.5, 1.5, 3.0, 6.0)  # values of w / r^(1/3)
_FIRST = {  # r: U_r, mean and standard deviation of T_r at these values
    1: (
        (0.9879, 1.246, 1.274),
        (0.8915, 1.244, 1.27),
        (0.7048, 1.24, 1.236),
        (0.5596, 1.247, 1.126),
        (0.549, 1.293, 1.067),
        (0.5807, 1.391, 1.052),
        (0.7299, 1.655, 1.163),
        (0.8966, 1.874, 1.339),
        (0.9699, 1.97, 1.411),
    ),
    2: (
        (1.006, 1.224, 1.284),
        (0.9325, 1.22, 1.282),
        (0.7907, 1.223, 1.257),
        (0.6871, 1.26, 1.179),
        (0.6952, 1.327, 1.148),
        (0.7511, 1.424, 1.154),
        (0.874, 1.589, 1.225),
        (0.9498, 1.69, 1.286),
        (0.9863, 1.732, 1.32),
    ),
    4: (
        (0.9714, 1.257, 1.213),
        (0.9334, 1.266, 1.215),
        (0.8499, 1.283, 1.203),
        (0.7925, 1.334, 1.17),
        (0.8175, 1.394, 1.172),
        (0.8647, 1.46, 1.197),
        (0.9358, 1.547, 1.254),
        (0.9743, 1.593, 1.287),
        (0.9934, 1.616, 1.304),
    ),
    8: (
        (1.02, 1.276, 1.276),
        (0.9974, 1.259, 1.265),
        (0.9405, 1.234, 1.238),
        (0.8782, 1.261, 1.197),
        (0.8905, 1.325, 1.203),
        (0.922, 1.393, 1.229),
        (0.9675, 1.467, 1.238),
        (0.9897, 1.497, 1.223),
        (0.9989, 1.546, 1.275),
    ),
}


@lru_cache(maxsize=1)
def _overlap_ratio() -> tuple[PchipInterpolator, float, float]:
    """phi_1 relative to a function with the same limits on both sides, and the ends of the table."""
    w, phi, _ = np.array(_OVERLAP).T
    return PchipInterpolator(w, np.log(phi / _overlap_limits(w))), float(w[0]), float(w[-1])


def _overlap_limits(w: FloatArray) -> FloatArray:
    """2 w for w -> inf, 1/w^2 for w -> -inf, smooth in between."""
    positive = (np.abs(w) + np.hypot(w, 2)) / 2
    h = np.where(w > 0, positive, 1 / positive)  # (w + (w^2 + 4)^(1/2))/2 without cancellation
    limits: FloatArray = np.asarray(2 * h**2 / np.cbrt(h**3 + 8))
    return limits


def critical_overlaps(w: FloatArray, r: int) -> FloatArray:
    """:func:`critical_overlap` for an array of distances."""
    ratio, low, high = _overlap_ratio()
    scale = r ** (1 / 3)
    x = w / scale
    inside = np.clip(x, low, high)
    # Beyond the table the ratio approaches 1 like the inverse square.
    fade = np.where(x == inside, 1.0, (inside / np.where(x == 0, 1.0, x)) ** 2)
    phi: FloatArray = scale * _overlap_limits(x) * np.exp(ratio(inside) * fade)
    return phi


def critical_overlap(w: float, r: int) -> float:
    """Scaling function phi_r(w) of the overlap: n^(1/3) times its mean over the r extreme vectors.

    phi_r(w) = r^(1/3) phi_1(w / r^(1/3)), phi_1 tabulated.

    Parameters
    ----------
    w : float
        Distance (theta - 1) n^(1/3) from criticality, or (1 - 1/theta^2) n^(1/3) / 2 above it.
    r : int
        Number of spikes, >= 1.

    Returns
    -------
    float
        > 0.

    Notes
    -----
    Limits: 2 w for w -> inf, r/w^2 for w -> -inf; phi_1(0) = 0.842(5). Accuracy 1 per cent for r = 1; the
    scaling with r is exact in both limits and, as sampled, holds to 2 per cent between them for r = 2, 3, 4.
    Held by ``tests/test_overlap_law.py``. Source: sampled from the block tridiagonal form of the spiked
    ensemble (Bloemendal and Virag, arXiv:1011.1877 and 1109.3704).
    """
    return float(critical_overlaps(np.array(w), r))


def _distance(x: FloatArray) -> FloatArray:
    """s - x at the minimum of s^2 + 1/(s - x): 2 d^3 + 2 x d^2 = 1, by Newton's method from above."""
    d: FloatArray = np.where(x <= 0, 1.0 - x, np.minimum(1.0, np.maximum(2 * x, 1e-300) ** -0.5))
    for _ in range(60):
        step = (2 * d**3 + 2 * x * d * d - 1) / (6 * d * d + 4 * x * d)
        d = d - step
        if np.all(np.abs(step) <= 1e-15 * d):
            break
    return d


def many_spikes(x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Edge, its Tracy-Widom scale and the first vector's overlap for r -> inf at x = w / r^(1/3).

    In units of (r/n)^(2/3) beyond 2, the edge is E(x) = min over s > x, 0 of s^2 + 1/(s - x). The scale is
    (1 + (s - x)^(-3))^(1/3) n^(-2/3), the overlap 2 s (r/n)^(1/3) = (s - x)^(-2) (r/n)^(1/3). Each has the
    shape of x.
    """
    d = _distance(x)
    s = 1 / (2 * d * d)
    return s * s + 1 / d, (1 + d**-3) ** (1 / 3), 2 * s


@lru_cache(maxsize=64)
def _first_table(r: int) -> PchipInterpolator:
    """U_r, mean and standard deviation of T_r as functions of w / r^(1/3), interpolated linearly in
    r^(-1/3)."""
    known = np.array([*sorted(_FIRST), math.inf])
    many = np.tile([1.0, TRACY_WIDOM_MEAN, TRACY_WIDOM_SD], (len(_AT), 1))
    rows = np.array([*(_FIRST[int(k)] for k in known[:-1]), many])
    at = np.searchsorted(known, r)
    if known[at] == r:
        found = rows[at]
    else:
        low, here, high = (k ** (-1 / 3) for k in (known[at], r, known[at - 1]))
        found = rows[at] + (rows[at - 1] - rows[at]) * (here - low) / (high - low)
    return PchipInterpolator(np.array(_AT), found)


def _first(x: FloatArray, r: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """U_r, mean and standard deviation of T_r at x, also beyond the table."""
    inside = np.clip(x, _AT[0], _AT[-1])
    U, mean, sd = np.moveaxis(_first_table(r)(inside), -1, 0)
    fade = np.where(x == inside, 1.0, inside / np.where(x == 0, 1.0, x))
    below, above = np.where(x < _AT[0], fade, 1.0), np.where(x > _AT[-1], fade**1.5, 1.0)
    mean = TRACY_WIDOM_MEAN + (mean - TRACY_WIDOM_MEAN) * below
    sd = TRACY_WIDOM_SD + (sd - TRACY_WIDOM_SD) * below
    if r == 1:  # a single outlier is Gaussian: its scale is half the distance to the edge of many spikes
        mean, sd = 2 + (mean - 2) * above, math.sqrt(2) + (sd - math.sqrt(2)) * above
    return 1 + (U - 1) * fade**2, mean, sd


def critical_eigenvalue(w: float, r: int) -> tuple[float, float]:
    """Mean and standard deviation of xi_r(w) + max(w, 0)^2, xi_r = n^(2/3) (2 - largest eigenvalue).

    xi_r = -r^(2/3) E(x) + k(x) T_r(x), x = w/r^(1/3), with edge E and scale k of :func:`many_spikes` and T_r
    tabulated.

    Parameters
    ----------
    w : float
        As in :func:`critical_overlap`.
    r : int
        Number of spikes, >= 1.

    Returns
    -------
    mean, sd : float
        In units of n^(-2/3); a positive mean lies inside the bulk, or below the outlier's asymptotic
        position.

    Notes
    -----
    Limits: T_r is the Tracy-Widom law, with 1.2065 and 1.2680, for w -> -inf and for r -> inf. For w -> inf
    it is that of the extreme eigenvalue of an r x r matrix, 2 and 2^(1/2) at r = 1: mean 0 and standard
    deviation 2 w^(1/2). Accuracy: at the tabulated r, 0.05 k(x) for the mean and 3 per cent for the standard
    deviation; at other r, interpolated in r^(-1/3) up to r = inf, 0.1 k(x) and 5 per cent. Held by
    ``tests/test_overlap_law.py``. Source: as for :func:`critical_overlap`; the limit of many spikes is this
    project's own.
    """
    mean, sd = critical_eigenvalues(np.array(w), r)
    return float(mean), float(sd)


def critical_eigenvalues(w: FloatArray, r: int) -> tuple[FloatArray, FloatArray]:
    """:func:`critical_eigenvalue` for an array of distances."""
    x = np.asarray(w / r ** (1 / 3))
    edge, scale, _ = many_spikes(x)
    _, mean, sd = _first(x, r)
    # E(x) - x^2 = 2 (s - x) x + (s - x)^2 + 1/(s - x): no cancellation if the outlier is far away.
    d = _distance(x)
    edge = np.where(x > 0, 2 * d * x + d * d + 1 / d, edge)
    return -(r ** (2 / 3)) * edge + scale * mean, scale * sd


def critical_overlap_of_first(w: float, r: int) -> float:
    """n^(1/3) times the mean overlap of the extreme vector alone: r^(1/3) 2 s(x) U_r(x), U_r tabulated.

    Parameters
    ----------
    w : float
        As in :func:`critical_overlap`.
    r : int
        Number of spikes, >= 1.

    Returns
    -------
    float
        > 0.

    Notes
    -----
    Limits: U_r = 1 for w -> -inf and w -> inf, and for r -> inf. Accuracy 2 per cent. Held by
    ``tests/test_overlap_law.py``. Source: as for :func:`critical_eigenvalue`.
    """
    return float(critical_overlaps_of_first(np.array(w), r))


def critical_overlaps_of_first(w: FloatArray, r: int) -> FloatArray:
    """:func:`critical_overlap_of_first` for an array of distances."""
    x = np.asarray(w / r ** (1 / 3))
    return np.asarray(r ** (1 / 3) * many_spikes(x)[2] * _first(x, r)[0])
