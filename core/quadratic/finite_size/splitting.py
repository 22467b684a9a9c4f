"""The splitting of the p p_star outliers of a sample, and its effect on the lowest of them.

At N = inf the outliers coincide. At finite N they are the eigenvalues of lambda_star + m^2 N^(-1/2) K, with K
a symmetric Gaussian matrix on R^p x R^p_star whose law is invariant under O(p) and O(p_star). K consists of a
scalar, which moves all outliers together, and of parts that are traceless in p, in p_star or in both, which
split them. Let Q = q_1 (1 - n n^T) + q_3 n n^T be the weight of one sample, with q_c = (2/p) u_c/D_c and n
the direction of its fields, and let t = tr Q/p, tau = q_3 - q_1. There are three independent sources.

Labels. The average of u u^T x Q over alpha N samples has the parts y tau in p, p_star y t in p_star and
p_star y tau in both. Q also fluctuates within the bulk's g, with a traceless part in p. This adds R tau to
y tau, R = s_T/(1/g^2 - c_T), with the sector eigenvalues c, s of X -> alpha E[Q X Q] and alpha E[y Q X Q].

Weights. They are not exactly orthogonal: two units of a network have an overlap of order N^(-1/2). With this
covariance the averages alpha E[y t] and alpha E[(y + R) Q] are no longer multiples of the identity.

Matrix. Given labels and weights, each element of K fluctuates with the bulk's resolvent, with variance
kappa = s^2/(1/g^2 - c) in the scalar, symmetric and antisymmetric sectors of X. The scalar sector diverges
where the outlier meets the edge; there it makes K a Gaussian orthogonal matrix, the limit of the universal
law of :mod:`bendscape.core.quadratic.finite_size.spiked_edge`. All other parts shift the lowest eigenvalue
beyond that law.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.finite_size.edge_scales import at_any_gamma
from bendscape.core.quadratic.finite_size.label_fluctuations import DirectionAverages
from bendscape.core.quadratic.model import Model

FloatArray = npt.NDArray[np.float64]

DRAWN_NUMBERS = 400_000
"""Total number of elements in the drawn matrices: 25000 draws at r = 4."""
FEWEST_DRAWS, MOST_DRAWS = 32, 40_000

MOST_OUTLIERS = 512
"""Largest p p_star: there 32 drawn matrices and their parts took 1.6 GB. Larger matrices are drawn less
often."""

_MOST_KEPT = 64  # largest p p_star whose draws are kept, 22 MB

_STEP = 1e-4  # of central differences, relative to gamma and to the distance from the edge


class Parts(NamedTuple):
    """Laws of the parts of K at one gamma: variances, two factors, and the limit of the matrix part at the
    edge."""

    labels_p: float
    labels_p_star: float
    labels_both: float
    matrix_scalar: float
    matrix_even: float
    matrix_odd: float
    weights_p: float
    weights_p_star: float
    spike: float


class Splitting(NamedTuple):
    """Effect of the splitting on the lowest outlier, to first order.

    The mean of the eigenvalue times N^(1/2) and its variance times N, both in excess of those of a Gaussian
    orthogonal matrix; N^(1/2) times the total excess of the overlap of its eigenvector over m^2;
    ``orthogonal``, the mean of -lambda_min of such a matrix with unit variances; ``*_error``, the standard
    errors of the drawn means.
    """

    eigval_mean: float
    eigval_variance: float
    overlap_sq_mean: float
    orthogonal: float
    eigval_mean_error: float
    overlap_sq_mean_error: float


def splitting_parts(model: Model, alpha: float, gamma: float) -> Parts:
    """Laws of the parts of K at one gamma, except the scalar part due to labels.

    A part is its standard deviation times a projection of a random symmetric matrix, whose covariance is the
    projector onto symmetric matrices. It is projected onto multiples of the identity ("scalar"), or onto
    matrices that are traceless and symmetric in p, in p_star or in both, or antisymmetric in both. The
    overlaps of the weights enter as a factor times a matrix with zero diagonal and unit variances off the
    diagonal.

    Parameters
    ----------
    model : Model
        Finite p.
    alpha : float
        Samples per dimension.
    gamma : float
        Position on the branch; above 1 averages are finite parts.

    Returns
    -------
    Parts
        All times N. ``matrix_scalar`` is the variance of the matrix's scalar part and of its part traceless
        in p_star, ``matrix_even`` of those traceless in p and in both, ``matrix_odd`` of the antisymmetric
        one; relative to ``spike`` all three tend to 1 at the edge.

    Notes
    -----
    Held by ``tests/test_splitting.py`` against drawn labels. Source: this project's own.
    """
    p, p_star = int(model.p), model.p_star
    of = DirectionAverages(model, gamma)
    unit, inverse_g_sq = alpha * (2 / p) ** 2, (2 / (p * gamma)) ** 2
    T_p, T_star = 2 / (p * (p + 2)), 2 / (p_star * (p_star + 2))  # E[P-part of (n n^T - 1/p)^2] per dimension
    trace, tau = (1 - 1 / p, 1 / p), (-1.0, 1.0)

    kappa, response = [], []  # in the scalar, symmetric and antisymmetric sectors
    across, along = (unit * np.array([of.square(w, 1, j) for j in (0, 1)]) for w in ((1.0, 0.0), (0.0, 1.0)))
    quartic = unit * np.array([of.square(tau, 1, j) for j in (0, 1)])
    both = across + (along - across - quartic) / p  # q_1^2 + 2 q_1 tau/p
    for c, s in (((p - 1) * across + along) / p, both + quartic * T_p, both):
        kappa.append(s * s / (inverse_g_sq - c))
        response.append(s / (inverse_g_sq - c))
    scalar, symmetric, antisymmetric = kappa
    R = float(response[1])

    tau_sq = [float(x) for x in quartic] + [unit * of.square(tau, 1, 2)]
    # E[y^2 dt/dy] by parts: E[t y (p_star (y - 1)/2 - 1)]
    bent_y = p_star / 2 * of.single(trace, 1, 2) - (p_star / 2 + 1) * of.single(trace, 1, 1)
    bent_yhat = of.single(tau, 1, 1, 1) + R * of.single(tau, 1, 0, 1)
    spike, bent = 2 * scalar / p, symmetric - antisymmetric
    shared = spike - 2 * symmetric / p
    return Parts(
        labels_p=p_star * T_p * (tau_sq[2] + 2 * R * tau_sq[1] + R * R * tau_sq[0]),
        labels_p_star=p * T_star * unit * p_star**2 * of.square(trace, 1, 2),
        labels_both=T_p * T_star * p_star**2 * tau_sq[2],
        matrix_scalar=float(shared + bent + p * (symmetric + antisymmetric)),
        matrix_even=float(shared + bent),
        matrix_odd=float(shared - bent),
        weights_p=2 * alpha / (p * (p + 2)) * bent_yhat,
        weights_p_star=4 * alpha / (p * (p_star + 2)) * bent_y,
        spike=float(spike),
    )


def _amplitudes(parts: Parts) -> dict[str, float]:
    """Standard deviations of the parts' projections, and the two factors."""
    return {
        "scalar": math.sqrt(parts.matrix_scalar),
        "p": math.sqrt(max(0.0, parts.labels_p + parts.matrix_even)),
        "p_star": math.sqrt(max(0.0, parts.labels_p_star + parts.matrix_scalar)),
        "both": math.sqrt(max(0.0, parts.labels_both + parts.matrix_even)),
        "odd": math.sqrt(max(0.0, parts.matrix_odd)),
        "weights_p": parts.weights_p,
        "weights_p_star": parts.weights_p_star,
    }


def _orthogonal(r: int, count: int) -> FloatArray:
    """Draws whose covariance is the projector onto symmetric r x r matrices."""
    normal = np.random.default_rng(2026).standard_normal((count, r, r))
    symmetric: FloatArray = (normal + normal.transpose(0, 2, 1)) / 2
    return symmetric


@lru_cache(maxsize=64)
def _lowest_of_orthogonal(r: int, count: int) -> FloatArray:
    """Lowest eigenvalues of such draws, of shape (count,)."""
    return np.asarray(np.linalg.eigvalsh(_orthogonal(r, count))[:, 0], dtype=np.float64)


def _lowest(K: FloatArray, K_slope: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lowest eigenvalue of each K, and <v K_slope v> in its eigenvector v."""
    if K.shape[-1] > 2:
        values, vectors = np.linalg.eigh(K)
        v = vectors[:, :, 0]
        return values[:, 0], np.einsum("ni,nij,nj->n", v, K_slope, v)
    # 2 v v^T = 1 - (cos, sin; sin, -cos), many times faster than a call of LAPACK for each.
    (mean, half), (mean_slope, half_slope) = (
        ((X[:, 0, 0] + X[:, 1, 1]) / 2, (X[:, 0, 0] - X[:, 1, 1]) / 2) for X in (K, K_slope)
    )
    radius = np.maximum(np.hypot(half, K[:, 0, 1]), np.finfo(np.float64).tiny)
    return mean - radius, mean_slope - (half * half_slope + K[:, 0, 1] * K_slope[:, 0, 1]) / radius


def _drawn(p: int, p_star: int) -> tuple[tuple[str, ...], FloatArray]:
    """Names of the parts, and draws with a fixed seed, of shape (parts, draws, p p_star, p p_star)."""
    r = p * p_star
    count = max(FEWEST_DRAWS, min(MOST_DRAWS, DRAWN_NUMBERS // r**2))
    rng = np.random.default_rng(2027)
    whole = _orthogonal(r, count).reshape(count, p, p_star, p, p_star)
    in_p, in_star = np.eye(p)[:, None, :, None], np.eye(p_star)[None, :, None, :]
    of_p = np.einsum("nalbl->nab", whole)[:, :, None, :, None] * in_star / p_star
    of_star = np.einsum("nalam->nlm", whole)[:, None, :, None, :] * in_p / p
    trace = np.einsum("nalal->n", whole)[:, None, None, None, None] * in_p * in_star / r
    swapped = whole.transpose(0, 3, 2, 1, 4)
    even, odd = (whole + swapped) / 2, (whole - swapped) / 2
    parts = {
        "scalar": trace,
        "p": of_p - trace,
        "p_star": of_star - trace,
        "both": even - of_p - of_star + trace,
        "odd": odd,
    }
    for name, size, unit in (("weights_p", p, in_star), ("weights_p_star", p_star, in_p)):
        drawn = np.triu(rng.standard_normal((count, size, size)), 1)
        drawn = drawn + drawn.transpose(0, 2, 1)
        shaped = drawn[:, :, None, :, None] if name == "weights_p" else drawn[:, None, :, None, :]
        parts[name] = shaped * unit
    return tuple(parts), np.array([part.reshape(count, r, r) for part in parts.values()])


_drawn_once = lru_cache(maxsize=2)(_drawn)


@lru_cache(maxsize=1024)
def outlier_splitting(model: Model, alpha: float, gamma: float) -> Splitting:
    """Shift of the lowest of p p_star outliers due to their splitting, relative to critical spikes.

    With v the lowest eigenvector of K, and G a Gaussian orthogonal matrix with the variances ``spike``,

        N^(1/2) delta lambda = m^2 (<lambda_min(K)> - <lambda_min(G)>),
        N^(1/2) delta m^2 = m^2 (d m^2/dz) <v K v> + m^4 sum_i (d_i'/d_i) <v K_i v>,

    where d_i^2 is the variance of part i and ' = d/dz: the derivative of a Gaussian part at a given value is
    its regression. Averages are over drawn K and G with the same random numbers.

    Parameters
    ----------
    model : Model
        p p_star up to 512.
    alpha : float
        Samples per dimension.
    gamma : float
        Position of the outlier.

    Returns
    -------
    Splitting
        All zero for p p_star = 1.

    Notes
    -----
    Limits: 0 for the eigenvalue where the outlier meets the edge. First order in N^(-1/2). Held by
    ``tests/test_splitting.py``. Source: this project's own.
    """
    p, p_star = int(model.p), model.p_star
    if p * p_star > MOST_OUTLIERS:
        accepted = f"such that p p_star = {p * p_star} <= {MOST_OUTLIERS} for an outlier at finite N"
        raise ParameterError("p", p, accepted, "the splitting of p p_star outliers is sampled")
    if p * p_star == 1:
        return Splitting(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    h = _STEP * gamma * min(1.0, gamma**2 * _on_map(model, alpha, gamma)[1] * p / 2)
    below, here, above = (splitting_parts(model, alpha, x) for x in (gamma - h, gamma, gamma + h))
    overlaps, slopes = zip(*(_on_map(model, alpha, x) for x in (gamma - h, gamma, gamma + h)), strict=True)
    overlap_sq, per_z = overlaps[1], 1 / (2 * h * slopes[1])
    overlap_slope = (overlaps[2] - overlaps[0]) * per_z

    names, drawn = _drawn_once(p, p_star) if p * p_star <= _MOST_KEPT else _drawn(p, p_star)
    at = [np.array([_amplitudes(parts)[name] for name in names]) for parts in (below, here, above)]
    K, K_slope = (np.tensordot(each, drawn, 1) for each in (at[1], (at[2] - at[0]) * per_z))
    lowest, moved = _lowest(K, K_slope)
    pure = math.sqrt(here.spike) * _lowest_of_orthogonal(p * p_star, len(K))
    eigval = overlap_sq * (lowest - pure)
    overlap = overlap_sq * overlap_slope * lowest + overlap_sq**2 * moved
    root = math.sqrt(len(K))
    return Splitting(
        float(eigval.mean()),
        float(overlap_sq**2 * (lowest.var() - pure.var())),
        float(overlap.mean()),
        -float(pure.mean()) / math.sqrt(here.spike),
        float(eigval.std() / root),
        float(overlap.std() / root),
    )


def overlap_sq_on_map(model: Model, alpha: float, gamma: float) -> float:
    """m^2 of an outlier at this gamma and load, z'/(z' - S'); 0 at the edge, negative beyond."""
    return _on_map(model, alpha, gamma)[0]


def _on_map(model: Model, alpha: float, gamma: float) -> tuple[float, float]:
    """Overlap m^2 from the spectral map at this load, and dz/dgamma."""
    at = at_any_gamma(model, gamma)
    Z = gamma**-2 - alpha * float(at.B)
    return Z / (Z + alpha * float(at.B_y)), 2 / float(model.p) * Z
