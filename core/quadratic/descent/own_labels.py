"""What the labels and outputs of a cell along its path say about its Hessian, in O(M)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bendscape.core.quadratic.descent.landscape import LongArray
from bendscape.core.quadratic.model import Model

FloatArray = npt.NDArray[np.float64]

_MOST_STEPS = 60
_ACCURACY = 1e-4  # of the right edge, which only has to bound a spectral radius


def right_edge(model: Model, N: int, y: LongArray, yhat: LongArray, width: float | None = None) -> float:
    """Right edge of the spectrum of H, from the labels y and outputs yhat of one cell.

    z(g) = 1/g + (1/(p'N)) sum_mu T_mu(g), T = (p' - 1) d_perp/(1 - g d_perp) + d_par/(1 - g d_par), where
    z'(g) = 0 on 0 < g < 1/max d: the root of (1/(p'N)) sum d^2/(1 - g d)^2 = g^-2. p' = p for the independent
    students of the start, and 1 once all are parallel, when d_par acts in N directions, not in pN.

    Parameters
    ----------
    model : Model
        With finite p.
    N : int
        Input dimension.
    y, yhat : array
        Labels and student outputs of all samples, of equal shape.
    width : float, optional
        p', the effective number of students, p^2/sum_kl Q_kl^2 of their overlaps; from 1 to p, by default p.

    Returns
    -------
    float
        In units of the eigenvalues of H; 0 where no weight is positive.

    Notes
    -----
    Relative accuracy 1e-4. As N -> inf at the initial point it is the edge; along a path the outputs depend
    on the data, and it is an estimate (docs/descent.md). Held by ``tests/test_descent.py``. Source: the left
    edge of :func:`bendscape.core.quadratic.sampling.drawn_labels.drawn_labels_theory`, on the other side.
    """
    p = int(model.p)
    effective = p if width is None else min(max(width, 1.0), p)
    weights = [(2 / p) * ((c * yhat - y) / (model.a + y)) for c in ((3, 1) if p > 1 else (3,))]
    shares = [1 / (effective * N), (effective - 1) / (effective * N)][: len(weights)]
    largest = max(float(d.max()) for d in weights)
    if largest <= 0:
        return 0.0
    low, high, g = 0.0, 1 / largest, 0.9 / largest
    for _ in range(_MOST_STEPS):
        square = cube = 0.0
        for share, d in zip(shares, weights, strict=True):
            ratio = d / (1 - g * d)
            squares = ratio * ratio
            square += share * float(squares.sum(dtype=np.float64))
            cube += share * float((squares * ratio).sum(dtype=np.float64))
        value, slope = square**-0.5 - g, -cube * square**-1.5 - 1  # almost linear in g
        low, high = (g, high) if value > 0 else (low, g)
        step = -value / slope
        if not low < g + step < high:
            step = 0.5 * (low + high) - g
        g += step
        if abs(step) <= _ACCURACY * min(g, 1 / largest - g) or high - low <= 1e-12 * high:
            break
    mean = sum(
        share * float((d / (1 - g * d)).sum(dtype=np.float64))
        for share, d in zip(shares, weights, strict=True)
    )
    return 1 / g + mean if math.isfinite(mean) else 1 / g
