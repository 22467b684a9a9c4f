"""Mean and spread of the lowest eigenvalue of samples of dimension N, without a free parameter.

There are three effects. The sampled labels move the edge and the outlier by O(N^(-1/2)). Given the labels,
the edge of a random matrix fluctuates by O(N^(-2/3)), and an outlier by O(N^(-1/2)). Inside a smooth edge a
single extreme label can bind an eigenvalue of its own, far in the tail of the bulk.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from bendscape.core.quadratic.finite_size.edge_scales import (
    EdgeScales,
    as_point,
    at_any_gamma,
    edge_scales,
    hidden,
    outermost,
    share_of_drawn,
)
from bendscape.core.quadratic.finite_size.extreme_labels import CELLS, drawn_cells
from bendscape.core.quadratic.finite_size.label_fluctuations import (
    label_fluctuations,
    matrix_shift,
    student_shift,
)
from bendscape.core.quadratic.finite_size.spiked_edge import (
    TRACY_WIDOM_MEAN,
    critical_eigenvalue,
    critical_eigenvalues,
)
from bendscape.core.quadratic.finite_size.splitting import (
    MOST_OUTLIERS,
    outlier_splitting,
    overlap_sq_on_map,
)
from bendscape.core.quadratic.model import Model

Regime = Literal["edge", "outlier", "tail"]

LEFT_OUT = 0.2
"""Distance of sampled means from the law, as measured (``benchmarks/finite_size.py --far``), in units of (C p
N)^(-2/3): the next order in N^(-1/3), at N = 128; of the same order at every N where single labels decide."""

_LEAST_OVERLAP = 1e-3
"""Overlap of drawn cells and of averages above which the splitting of outliers is drawn; takes 0.3
seconds."""


class LowestEigenvalue(NamedTuple):
    """Mean and standard deviation of the lowest eigenvalue over samples, and their origin."""

    mean: float
    sd: float
    sd_labels: float
    tail_share: float
    regime: Regime
    accuracy: float


def lowest_eigenvalue_law(model: Model, alpha: float, N: float) -> LowestEigenvalue:
    """Mean and standard deviation of eigval_min over samples of dimension N.

    If no label lies in the tail, with r = p p_star, xi_r the universal law of critical spikes at w = N^(1/3)
    distance (:mod:`bendscape.core.quadratic.finite_size.edge_scales`), C the softness of the edge and t, b
    the direction averages of :mod:`bendscape.core.quadratic.finite_size.label_fluctuations`,

        mean = lambda + (C p N)^(-2/3) <xi_r(w) + max(w, 0)^2> + shift/N,    sd^2 = Var_labels + Var_matrix.

    Without an outlier, lambda is the edge, Var_labels = (4 alpha/(p^2 N)) Var t, and Var_matrix =
    (C p N)^(-4/3) Var xi_r. With an outlier, lambda = lambda_star; with R = S'/z' there, the labels of a cell
    move it by (delta S - R delta Sigma)/(1 - R), and the matrix contributes the variance m^4 (2/(p N))
    S'^2/|z'| instead of (C p N)^(-4/3) 4 w. The shift has three parts: that of the labels, alpha Var b/(p
    (2/gamma^3 + alpha B')); that of the p (p + p_star) directions of teacher and student, which are missing
    from the bulk; and that of a real matrix beyond the Tracy-Widom law
    (:func:`~bendscape.core.quadratic.finite_size.label_fluctuations.matrix_shift`). It is a shift of z at
    fixed gamma. An outlier stays on S, so only the part -R/(1 - R) = 1 - m^2 of it moves the outlier.

    Inside a smooth edge (gamma > 1), mean and variance are taken over cells with drawn extreme labels
    (:mod:`bendscape.core.quadratic.finite_size.extreme_labels`), each with its own edge or outlier and the
    law above. An outlier of overlap m_i^2 splits like the outlier of the averages at min(gamma, 1), times the
    ratio of m_i^2 to the m^2 of the latter, at most 1. With probability 1 - exp(-kappa) a label lies beyond
    the principal-value outlier (or edge) of the averages and decides; kappa = N alpha sum_c P(D_c < 0) at its
    gamma.

    Parameters
    ----------
    model : Model
        Finite p.
    alpha : float
        Samples per dimension, at least 1/N.
    N : float
        Dimension, from 2 to 1e280.

    Returns
    -------
    LowestEigenvalue
        ``mean`` and ``sd`` in the units of H; ``sd_labels``, the part of ``sd`` due to a cell's own labels;
        ``tail_share``, the probability that a label in the tail decides; ``regime``, "tail" if that
        exceeds a half, else "outlier" or "edge"; ``accuracy``, within which the mean of samples lies.

    Notes
    -----
    Limits: lambda_minus or lambda_star as N -> inf; 1.2065 (C p N)^(-2/3) above a sharp edge, far below
    threshold. The splitting of the p p_star outliers by labels, weights and matrix is that of
    :mod:`bendscape.core.quadratic.finite_size.splitting`.

    ``accuracy`` is 0.2 (C p N)^(-2/3) with the scale of a cell, times (128/N)^(1/3) where no single label
    decides, and 0.05 sd where cells are drawn; for p > 1 also 1.2065 (p^(2/3) - 1) (C p N)^(-2/3), the
    distance to the edge of p uncoupled blocks of size N. At sizes within reach the blocks are weakly coupled,
    and samples lie between the two edges: above the law, by up to 0.5 sd. Up to statistical errors it covers
    all means sampled at N = 64 to 512, p = 1, 2, 4, 8 and 0.3 to 1.5 alpha_bbp (``benchmarks/finite_size.py
    --far``), but one: at (2, 2, 30), N = 64 and alpha = 5 to 8.5 samples lie below the law, by 0.4 to 0.65
    sd. The sd is within 15 per cent, far below the threshold within 20 at N = 256; there, at N = 64 and p =
    1, it is up to 39 per cent too large.
    Below alpha_0 the splitting in drawn cells is neglected for p p_star > 512. The principal-value edge
    that decides ``regime`` and ``tail_share`` is heuristic. Held by ``tests/test_edge_law.py``. Source: this
    project's own; the universal laws are those of Tracy and Widom and of Bloemendal and Virag
    (arXiv:1011.1877, 1109.3704).
    """
    alpha, size = as_point(alpha, N)
    scales = edge_scales(model, alpha)
    share, laws = share_of_drawn(scales), []
    if share < 1:
        laws.append((1 - share, _of_averages(model, alpha, size, scales)))
    if share > 0:
        laws.append((share, _of_drawn(model, alpha, size, scales)))
    mean, var_labels, var_matrix, accuracy = (float(sum(w * law[i] for w, law in laws)) for i in range(4))
    kappa = hidden(model, alpha, outermost(scales), size)
    tail_share = 1.0 if math.isnan(kappa) else -math.expm1(-kappa)
    isolated = not math.isnan(scales.gamma_star)
    regime: Regime = "tail" if tail_share > 0.5 else "outlier" if isolated else "edge"
    return LowestEigenvalue(
        mean, math.sqrt(var_labels + var_matrix), math.sqrt(var_labels), tail_share, regime, accuracy
    )


_Law = tuple[float, float, float, float]
"""Mean, variance due to labels, variance due to the matrix, accuracy of the mean."""


def _of_blocks(model: Model) -> float:
    """Distance between the edges of p uncoupled blocks of size N and of one matrix of size p N, in its (C p
    N)^(-2/3)."""
    return TRACY_WIDOM_MEAN * (math.pow(model.p, 2 / 3) - 1)


def _of_averages(model: Model, alpha: float, size: float, scales: EdgeScales) -> _Law:
    """The law from averages over all labels."""
    p, r, of_labels = float(model.p), int(model.p) * model.p_star, 0.0
    if not math.isnan(scales.gamma_edge):
        gamma = scales.gamma_edge
        at_edge = label_fluctuations(model, gamma)
        of_labels = alpha * max(0.0, at_edge.var_b) / (p * (2 / gamma**3 + alpha * at_edge.B_prime))
    w = scales.distance * math.cbrt(size)
    xi_mean, xi_sd = critical_eigenvalue(w, r)
    per_label, left_out = 4 * alpha / (p * p * size), LEFT_OUT * (128 / size) ** (1 / 3) + _of_blocks(model)
    # At the threshold the outlier's own expressions are 0/0; their limits are those of the edge.
    if math.isnan(scales.gamma_star) or w <= 1e-3:
        shift = of_labels + _of_directions(model, alpha, gamma, scales.lambda_edge)
        shift += matrix_shift(p, gamma, -alpha * at_edge.B_prime / 2, alpha * at_edge.fourth)
        width = (scales.softness * p * size) ** (-2 / 3)
        mean = scales.lambda_edge + width * xi_mean + shift / size
        return mean, per_label * max(0.0, at_edge.var_t), (width * xi_sd) ** 2, left_out * width

    overlap_sq, gamma = scales.overlap_sq, scales.gamma_star
    at_star, averages_ = label_fluctuations(model, gamma), at_any_gamma(model, gamma)
    shift = of_labels + _of_directions(model, alpha, gamma, scales.lambda_star)
    shift += matrix_shift(p, gamma, -alpha * at_star.B_prime / 2, alpha * at_star.fourth)
    shift *= 1 - overlap_sq
    z_prime = -(4 / p**2) * (gamma**-2 - alpha * averages_.B)
    S_prime = (4 / p**2) * alpha * averages_.B_y
    R = S_prime / min(z_prime, -1e-300)
    moved = at_star.var_yt - 2 * R * at_star.cov_t_yt + R * R * at_star.var_t
    var_labels = per_label * overlap_sq**2 * max(0.0, moved)
    width_sq = overlap_sq**2 * (2 / (p * size)) * S_prime**2 / -z_prime / (4 * w)
    split = outlier_splitting(model, alpha, gamma)
    mean = scales.lambda_star + math.sqrt(width_sq) * xi_mean + shift / size
    mean += split.eigval_mean / math.sqrt(size)
    width = math.sqrt(width_sq)
    if not math.isnan(scales.softness):
        width = (scales.softness * p * size) ** (-2 / 3)
    return mean, var_labels, max(0.0, width_sq * xi_sd**2 + split.eigval_variance / size), left_out * width


def _of_drawn(model: Model, alpha: float, size: float, scales: EdgeScales) -> _Law:
    """The same, over cells with drawn extreme labels."""
    cells = drawn_cells(model, alpha, size)
    xi_mean, xi_sd = critical_eigenvalues(cells.distance * math.cbrt(size), int(model.p) * model.p_star)
    width = np.where(np.isnan(cells.outlier_width), cells.width, cells.outlier_width)
    place = cells.place + width * xi_mean
    overlap_sq = 2 * cells.amplitude * np.maximum(0.0, cells.distance)
    # The gammas of cells scatter around 1, where averages over all labels are still finite.
    gamma = outermost(scales)
    gamma = 1.0 if math.isnan(gamma) else min(1.0, gamma)
    of_directions = _of_directions(model, alpha, gamma, float(cells.place.mean()))
    shifts = of_directions + cells.shift
    mean = float(place.mean()) + float(((1 - overlap_sq) * shifts).mean()) / size
    var_labels = float(cells.place.var() + cells.var_rest.mean())
    var_matrix = float(place.var() - cells.place.var() + (width**2 * xi_sd**2).mean())
    of_averages = overlap_sq_on_map(model, alpha, gamma)
    drawable = int(model.p) * model.p_star <= MOST_OUTLIERS or not math.isnan(scales.gamma_star)
    if drawable and min(of_averages, overlap_sq.mean()) > _LEAST_OVERLAP:
        split = outlier_splitting(model, alpha, gamma)
        share = np.minimum(1.0, overlap_sq / of_averages)  # ratio of the m^2, which multiplies K
        mean += float(share.mean()) * split.eigval_mean / math.sqrt(size)
        var_matrix += float((share**2).mean()) * split.eigval_variance / size
    var_matrix = max(0.0, var_matrix)
    accuracy = (LEFT_OUT + _of_blocks(model)) * float(cells.width.mean())
    return mean, var_labels, var_matrix, accuracy + math.sqrt((var_labels + var_matrix) / CELLS)


def _of_directions(model: Model, alpha: float, gamma: float, eigval: float) -> float:
    """N times the shift of z at fixed gamma due to the p (p + p_star) directions of student and teacher."""
    p, r = float(model.p), int(model.p) * model.p_star
    return (2 / p**2) * r / gamma + student_shift(model, alpha, gamma, eigval)
