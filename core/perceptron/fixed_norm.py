"""The learning rule of the same loss at a fixed norm of the weights."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from bendscape.core.errors import as_positive
from bendscape.core.numerics.threads import on_one_thread
from bendscape.core.perceptron.model import FloatArray, Sample, hessian, losses, norm_of

_RELATIVE = 1e-8
"""Accuracy of the norm."""
_MOST_STEPS = 100


class FixedNorm(NamedTuple):
    """The minimiser on the sphere.

    Parameters
    ----------
    w : array, shape (N,)
        argmin of sum_mu log(1 + exp(-h_mu)) over |w|^2 = norm^2 N.
    multiplier : float
        mu > 0: the force is mu w.
    converged : bool
        Whether the norm was met to 1e-8.
    """

    w: FloatArray
    multiplier: float
    converged: bool


@on_one_thread
def minimise(sample: Sample, norm: float, start: FixedNorm | None = None) -> FixedNorm:
    """The weights of a given norm |w|/sqrt(N) with the smallest logistic loss.

    As norm -> 0 they are Hebb's, sum_mu y_mu x_mu; as norm -> infinity those of largest stability.

    Parameters
    ----------
    sample : Sample
        The inputs with their labels, separable.
    norm : float
        > 0.
    start : FixedNorm, optional
        The result at a smaller norm, to start from.

    Returns
    -------
    FixedNorm
        Says whether it converged.

    Raises
    ------
    ParameterError
        ``norm`` is not > 0.

    Notes
    -----
    The minimiser with a multiplier mu is that of the convex loss + mu |w|^2/2, found by Newton steps with
    backtracking; mu follows from a Newton iteration on log |w| as a function of log mu, which is concave and
    nearly straight. A few factorisations of an N x N matrix, each M N^2. Held by
    ``tests/test_perceptron.py``.
    """
    wanted = math.log(as_positive("norm", norm))
    if start is None:
        hebb = sample.signed.sum(axis=0)
        w = hebb * (norm / norm_of(hebb))
        mu = norm_of(losses(sample, w).force) / norm
    else:
        w, mu = start.w, start.multiplier
    for _ in range(_MOST_STEPS):
        w, factor = _ridge(sample, w, mu)
        off = wanted - math.log(norm_of(w))
        if abs(off) <= _RELATIVE:
            return FixedNorm(w, mu, converged=True)
        slope = -mu * float(w @ cho_solve(factor, w)) / float(w @ w)  # d log|w| / d log mu
        mu *= math.exp(min(3.0, max(-3.0, off / slope)))
    return FixedNorm(w, mu, converged=False)


def _ridge(sample: Sample, w: FloatArray, mu: float) -> tuple[FloatArray, tuple[FloatArray, bool]]:
    """Minimiser of the loss + mu |w|^2/2 from w, and the factorised Hessian there."""

    def value(at: FloatArray) -> float:
        return sample.M * losses(sample, at).loss + 0.5 * mu * float(at @ at)

    here = losses(sample, w)
    for _ in range(_MOST_STEPS):
        curved = hessian(sample, here.curvature)
        curved[np.diag_indices_from(curved)] += mu
        factor = cho_factor(curved, overwrite_a=True, check_finite=False)
        gradient = mu * w - here.force
        step = cho_solve(factor, gradient)
        decrease = float(gradient @ step)
        if decrease <= 1e-20 * max(1.0, mu * float(w @ w)):
            break
        size, before = 1.0, value(w)
        while decrease > 1e-10 * abs(before) and value(w - size * step) > before - 0.25 * size * decrease:
            size /= 2
        w = w - size * step
        here = losses(sample, w)
    return w, factor
