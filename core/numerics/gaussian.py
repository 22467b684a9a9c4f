"""Averages over a Gaussian variable of functions with kinks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

TAIL = 9.0
"""Standard deviations at which averages are cut: 1e-18 of the weight lies beyond."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def gaussian_mean(
    f: Callable[[FloatArray], FloatArray], sigma: float, kinks: tuple[float, ...], scale: float = 0.0
) -> float:
    """E f(sigma z), z standard Gaussian; ``kinks`` and ``scale`` as of :func:`piecewise_rule`."""
    x, weight = piecewise_rule(sigma, (), kinks, scale)
    return float(weight @ (f(x) * np.exp(-0.5 * (x / sigma) ** 2))) / (sigma * math.sqrt(2 * math.pi))


def piecewise_rule(
    width: float, ends: tuple[float, ...], kinks: tuple[float, ...], scale: float
) -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre between -9 and 9 widths, in pieces that end at ``ends`` and where f has a kink; towards
    a kink of the width ``scale`` they shrink in proportion to its distance."""
    pieces: npt.NDArray[np.float64] = np.append(
        np.array([-TAIL, -3.0, -1.0, 0.0, 1.0, 3.0, TAIL]) * width, ends
    )
    steps = scale * 4.0 ** np.arange(math.log(1 + 2 * TAIL * width / scale, 4.0)) if scale else np.zeros(0)
    for kink in kinks:
        pieces = np.concatenate([pieces, [kink], kink + steps, kink - steps])
    pieces = np.unique(pieces[np.abs(pieces) <= TAIL * width])
    half, middle = 0.5 * np.diff(pieces), 0.5 * (pieces[1:] + pieces[:-1])
    return (middle[:, None] + half[:, None] * _NODES).ravel(), (half[:, None] * _WEIGHTS).ravel()
