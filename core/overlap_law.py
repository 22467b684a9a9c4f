"""The mean overlap with the teacher that samples of dimension N show, without a free parameter."""

from __future__ import annotations

import math

import numpy as np

from bendscape.core.branch import load_on_branch, overlap_sq_on_branch, principal_value
from bendscape.core.edge_scales import as_point, edge_scales
from bendscape.core.extreme_labels import drawn_cells
from bendscape.core.finite_size import tail_probability, window_end
from bendscape.core.model import Model
from bendscape.core.outlier import transition_at
from bendscape.core.spiked_edge import critical_overlap, critical_overlap_of_first
from bendscape.core.splitting import outlier_splitting


def mean_overlap_sq(model: Model, alpha: float, N: float) -> float:
    """Mean squared overlap of the lowest p p_star eigenvectors with the teacher, at dimension N.

    <overlap_sq_space> = A N^(-1/3) phi_r(w) exp(-kappa), r = p p_star, with A and w = N^(1/3) distance of
    :func:`bendscape.core.edge_scales.edge_scales`, phi_r the universal law of critical spikes, and kappa = N
    alpha sum_c P(D_c < 0) at the gamma of the outlier (of the edge, where there is no outlier) if that
    exceeds 1, else 0: the expected number of directions of samples that lie beyond it.

    Parameters
    ----------
    model : Model
        Any p; nan for p = inf, where N is infinite by construction.
    alpha : float
        Samples per dimension, at least 1/N.
    N : float
        Dimension, from 2 to 1e280.

    Returns
    -------
    float
        In [0, 1]. Where neither the continued edge nor the outlier's branch exists, far below alpha_0, it is
        the mean of the same law over cells of drawn extreme labels
        (:mod:`bendscape.core.extreme_labels`).

    Notes
    -----
    Limits: overlap_sq above alpha_bbp and p_star S'/(N (lambda_minus - S)^2) below, as N -> inf;
    ``N^(1/3) mean = A phi_r(0)`` at a continuous threshold, and at alpha_0 up to the crossover size. The
    critical law is that of an isolated sharp edge, with corrections of relative order N^(-1/3) and prefactors
    that grow with the spread of the labels: samples lie within 25 per cent of it at N = 128 to 512, and 50
    per cent above it where the continued edge is about to end. Heuristic: for a discontinuous transition, the
    principal-value branch as the law below the crossover, and that a label beyond the outlier hides it
    altogether (exp(-kappa), leading order in log N). Held by ``tests/test_overlap_law.py``. Source: this
    project's own, with the universal law of :mod:`bendscape.core.spiked_edge`.
    """
    alpha, size = as_point(alpha, N)
    if math.isinf(model.p):
        return math.nan
    visible, gamma = _if_not_hidden(model, alpha, size)
    return visible * math.exp(-_hidden(model, alpha, gamma, size))


def overlap_sq_if_not_hidden(model: Model, alpha: float, N: float) -> float:
    """The factor of :func:`mean_overlap_sq` beside exp(-kappa): what samples show that no label hides.

    Parameters
    ----------
    model : Model
        Any p; nan for p = inf.
    alpha : float
        Samples per dimension, at least 1/N.
    N : float
        Dimension, from 2 to 1e280.

    Returns
    -------
    float
        In [0, 1]. The principal-value overlap as N -> inf between alpha_0 and alpha_bbp.

    Notes
    -----
    Held by ``tests/test_drift.py``; accuracy and source as of :func:`mean_overlap_sq`.
    """
    alpha, size = as_point(alpha, N)
    return math.nan if math.isinf(model.p) else _if_not_hidden(model, alpha, size)[0]


def mean_overlap_sq_lowest(model: Model, alpha: float, N: float) -> float:
    """Mean squared overlap of the lowest eigenvector alone, the best of p p_star above a threshold.

    <overlap_sq_space> is exceeded by N^(-1/2) <splitting> min(1, d), with all that splits the outliers to
    first order (:func:`bendscape.core.splitting.outlier_splitting`) and d, what the universal law of critical
    spikes has at w over its own first order e_r/w^(1/2), e_r the mean of -lambda_min of a Gaussian orthogonal
    r x r matrix. Below a threshold the excess is that of the universal law.

    Parameters
    ----------
    model : Model
        Any p; nan for p = inf.
    alpha : float
        Samples per dimension, at least 1/N.
    N : float
        Dimension, from 2 to 1e280.

    Returns
    -------
    float
        In [0, 1]. Where no continued edge exists (far below alpha_0) that of :func:`mean_overlap_sq`: the
        lowest vectors are then not known apart.

    Notes
    -----
    Limits: overlap_sq as N -> inf above alpha_bbp; :func:`mean_overlap_sq` at p p_star = 1. Accuracy 5 per
    cent for w > 2, 12 per cent down to w = 1, of samples at N = 200 to 2500. Held by
    ``tests/test_splitting.py``. Source: this project's own.
    """
    space = mean_overlap_sq(model, alpha, N)
    (alpha, size), r = as_point(alpha, N), model.p * model.p_star
    if r in (1, math.inf) or math.isnan((scales := edge_scales(model, alpha)).gamma_edge):
        return space
    r, cube_root = int(r), math.cbrt(size)
    isolated = not math.isnan(scales.gamma_star)
    gamma = scales.gamma_star if isolated else scales.gamma_edge
    w = scales.distance * cube_root
    excess = critical_overlap_of_first(w, r) - critical_overlap(w, r)
    if isolated and w > 1e-3:
        split = outlier_splitting(model, alpha, gamma)
        damped = min(1.0, excess * math.sqrt(w) / split.orthogonal)
        found = split.overlap_sq_mean / math.sqrt(size) * damped
    else:
        found = scales.amplitude / cube_root * excess
    return min(1.0, space + max(0.0, found) * math.exp(-_hidden(model, alpha, gamma, size)))


def _if_not_hidden(model: Model, alpha: float, size: float) -> tuple[float, float]:
    """The mean overlap without extreme labels, and the gamma beyond which a label would hide it."""
    scales, r = edge_scales(model, alpha), int(model.p) * model.p_star
    if math.isnan(scales.gamma_edge):
        gamma, overlap_sq = _on_branch(model, alpha)
        if math.isnan(gamma):
            return _in_the_tail(model, alpha, size, r), gamma
        return overlap_sq, gamma
    gamma = scales.gamma_edge if math.isnan(scales.gamma_star) else scales.gamma_star
    cube_root = math.cbrt(size)
    return min(1.0, scales.amplitude / cube_root * critical_overlap(scales.distance * cube_root, r)), gamma


def _hidden(model: Model, alpha: float, gamma: float, size: float) -> float:
    """Expected number of directions of samples beyond the pole at gamma."""
    return size * alpha * tail_probability(model, gamma) if gamma > 1 else 0.0


def _in_the_tail(model: Model, alpha: float, size: float, r: int) -> float:
    """Mean over cells of drawn extreme labels of the law each has by its own scales."""
    cells, cube_root = drawn_cells(model, alpha, size), math.cbrt(size)
    universal = np.array([critical_overlap(w, r) for w in cells.distance * cube_root])
    return float(np.minimum(1.0, cells.amplitude / cube_root * universal).mean())


def _on_branch(model: Model, alpha: float) -> tuple[float, float]:
    """gamma and overlap of the principal-value branch at this load; nan where it has no such load."""
    if transition_at(model).kind == "continuous":
        return math.nan, math.nan
    end, load_at_end = window_end(model)
    if not load_at_end <= alpha:
        return math.nan, math.nan
    low, high = 1.0, end  # the load falls with gamma
    for _ in range(60):
        middle = 0.5 * (low + high)
        if load_on_branch(middle, principal_value(model, middle)).real > alpha:
            low = middle
        else:
            high = middle
    return high, max(0.0, overlap_sq_on_branch(high, principal_value(model, high)).real)
