"""The mean overlap with the teacher of samples of dimension N, without a free parameter.

If edge or outlier is isolated from the poles of the labels (gamma up to 1), both follow from averages over
all labels. Inside a smooth edge the few most extreme labels move them, differently in each cell and more
strongly at smaller N. There the law is the mean over cells in which these labels are drawn
(:mod:`bendscape.core.quadratic.finite_size.extreme_labels`), each with the scales of its own edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bendscape.core.quadratic.finite_size.edge_scales import (
    as_point,
    edge_scales,
    hidden,
    outermost,
    share_of_drawn,
)
from bendscape.core.quadratic.finite_size.extreme_labels import drawn_cells
from bendscape.core.quadratic.finite_size.spiked_edge import (
    critical_overlap,
    critical_overlap_of_first,
    critical_overlaps,
    critical_overlaps_of_first,
)
from bendscape.core.quadratic.finite_size.splitting import outlier_splitting
from bendscape.core.quadratic.model import Model

FloatArray = npt.NDArray[np.float64]
Universal = Callable[[FloatArray, int], FloatArray]

_MOST_HIDDEN = 3.0
"""Expected number of labels beyond the outlier above which too few drawn cells have none."""


def mean_overlap_sq(model: Model, alpha: float, N: float) -> float:
    """Mean squared overlap of the lowest p p_star eigenvectors with the teacher, at dimension N.

    Where edge and outlier are at gamma < 1, <overlap_sq_space> = A N^(-1/3) phi_r(w), r = p p_star, with A
    and w = N^(1/3) distance of :func:`bendscape.core.quadratic.finite_size.edge_scales.edge_scales` and phi_r
    the universal law of critical spikes. Inside a smooth edge it is the mean of this over cells with drawn
    extreme labels, with A and w of each cell: (1 - exp(-kappa)) times the mean over cells with a label
    beyond the pole of the principal-value outlier (or edge, without an outlier), plus exp(-kappa) times the
    mean over the others. kappa = N alpha sum_c P(D_c < 0) is the expected number of such labels. From
    gamma = 0.8 to 1 the two laws are interpolated.

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
        In [0, 1].

    Notes
    -----
    Limits: as N -> inf, overlap_sq above alpha_bbp and p_star S'/(N (lambda_minus - S)^2) below;
    ``N^(1/3) mean = A phi_r(0)`` at a continuous threshold, and at alpha_0 up to the crossover size. The
    critical law is that of an isolated sharp edge, with corrections of relative order N^(-1/3): at loads from
    alpha_0 on, samples are within 25 per cent of it at N = 64 to 512.

    Far below alpha_0, where the edge of a cell is determined by a single label, the law is too high, at N =
    256 no less than at 64: at alpha = 0.3 and 0.5, by 35 to 41 per cent (known to 3 to 9) at N = 256 for (p,
    p_star, a) = (1, 1, 1.5), (1, 2, 3) and (2, 2, 1.5), by 16 to 23 for (4, 1, 1.5), and by up to 33 at N =
    64; at alpha = 1 by -10 to +30. This exceeds the p_star/N of a random vector. ``benchmarks/finite_size.py
    --far`` prints it. Drawn means are known to some 2 per cent, with the same random numbers at every load
    and size.

    Beyond the crossover size, where kappa exceeds 3, the principal-value branch is heuristic. There the law
    has not been checked against matrices, and may be too high: for (4, 1, 1.5) at alpha_bbp and N = 1e5 it is
    0.018, while 40 draws of the labels alone give 0.0095(17). Held by ``tests/test_overlap_law.py``. Source:
    this project's own, with the universal law of :mod:`bendscape.core.quadratic.finite_size.spiked_edge`.
    """
    alpha, size = as_point(alpha, N)
    return math.nan if math.isinf(model.p) else _means(model, alpha, size, critical_overlaps)[0]


def overlap_sq_if_not_hidden(model: Model, alpha: float, N: float) -> float:
    """The factor of exp(-kappa) in :func:`mean_overlap_sq`: the mean over samples in which no label hides the
    teacher.

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
        In [0, 1]. As N -> inf, between alpha_0 and alpha_bbp, the principal-value overlap.

    Notes
    -----
    Held by ``tests/test_drift.py``; accuracy and source as for :func:`mean_overlap_sq`.
    """
    alpha, size = as_point(alpha, N)
    if math.isinf(model.p):
        return math.nan
    scales, cube_root = edge_scales(model, alpha), math.cbrt(size)
    if outermost(scales) <= 1 or not math.isnan(scales.gamma_star):
        universal = critical_overlap(scales.distance * cube_root, int(model.p) * model.p_star)
        return min(1.0, scales.amplitude / cube_root * universal)
    return _means(model, alpha, size, critical_overlaps)[1]


def mean_overlap_sq_lowest(model: Model, alpha: float, N: float) -> float:
    """Mean squared overlap of the lowest eigenvector alone, the largest of p p_star above a threshold.

    It exceeds <overlap_sq_space> by N^(-1/2) <splitting> min(1, d), with everything that splits the outliers
    to first order (:func:`bendscape.core.quadratic.finite_size.splitting.outlier_splitting`). d is the excess
    of the universal law of critical spikes at w, relative to its first order e_r/w^(1/2), with e_r the mean
    of -lambda_min of a Gaussian orthogonal r x r matrix. Below a threshold the excess is that of the
    universal law.

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
        In [0, 1]; nan inside a smooth edge (edge or outlier at gamma > 1) for p > 1, where it is not known.
        There, for p = 1, the mean over drawn cells of the universal law of the first vector.

    Notes
    -----
    Limits: overlap_sq as N -> inf above alpha_bbp; :func:`mean_overlap_sq` at p p_star = 1. Accuracy, from
    samples at N = 200 to 2500: 5 per cent for w > 2, 12 per cent down to w = 1. Held by
    ``tests/test_splitting.py``. Source: this project's own.
    """
    (alpha, size), r = as_point(alpha, N), model.p * model.p_star
    if r in (1, math.inf):
        return mean_overlap_sq(model, alpha, size)
    scales = edge_scales(model, alpha)
    if not outermost(scales) <= 1 and model.p > 1:
        return math.nan
    space, first = (
        _means(model, alpha, size, law)[0] for law in (critical_overlaps, critical_overlaps_of_first)
    )
    w = scales.distance * math.cbrt(size)
    if w > 1e-3:
        split = outlier_splitting(model, alpha, scales.gamma_star)
        excess = critical_overlap_of_first(w, int(r)) - critical_overlap(w, int(r))
        damped = min(1.0, excess * math.sqrt(w) / split.orthogonal)
        first = space + split.overlap_sq_mean / math.sqrt(size) * damped
    return min(1.0, max(space, first))


def _means(model: Model, alpha: float, size: float, universal: Universal) -> tuple[float, float]:
    """Mean overlap of all samples, and of those in which no label hides it, for a universal law of (w, r)."""
    scales, r, cube_root = edge_scales(model, alpha), int(model.p) * model.p_star, math.cbrt(size)

    def of(amplitude: FloatArray, distance: FloatArray) -> FloatArray:
        found: FloatArray = np.minimum(1.0, amplitude / cube_root * universal(distance * cube_root, r))
        return found

    share, averaged = share_of_drawn(scales), float(of(*map(np.array, (scales.amplitude, scales.distance))))
    if share == 0:
        return averaged, averaged
    cells = drawn_cells(model, alpha, size)
    overlap_sq = of(cells.amplitude, cells.distance)
    gamma = outermost(scales)
    kappa = hidden(model, alpha, gamma, size)
    if math.isnan(kappa):
        return float(overlap_sq.mean()), float(overlap_sq.mean())
    hides = cells.first_pole < gamma
    visible = averaged
    if kappa <= _MOST_HIDDEN:
        visible = share * float(overlap_sq[~hides].mean()) + (1 - share) * averaged
    behind = float(overlap_sq[hides].mean()) if hides.any() else 0.0
    split = math.exp(-kappa) * visible - math.expm1(-kappa) * behind
    # Cells with a label beyond the pole: their number is that drawn while they are rare, and crosses over to
    # the expected number, so that there is no step where the outlier's branch begins.
    known = min(1.0, kappa)
    together = share * float(overlap_sq.mean()) + (1 - share) * averaged
    return known * split + (1 - known) * together, visible
