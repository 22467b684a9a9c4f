"""Gradient descent on the logistic loss, from w = 0: as a flow, or with a learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bendscape.core.errors import ParameterError, as_positive
from bendscape.core.numerics.stabilised import Stabilised
from bendscape.core.numerics.threads import on_one_thread
from bendscape.core.perceptron.model import FloatArray, Losses, Sample, losses

TOLERANCE = 1e-2
"""Largest estimated error of one step of the flow, over the norm of the weights or 1."""


class Trained(NamedTuple):
    """The weights at the recorded times, and the number of evaluations of the loss so far.

    Parameters
    ----------
    time : float
        Time of the flow; steps times learning rate for gradient descent.
    w : array, shape (N,)
        Weights.
    here : Losses
        The loss there.
    evaluations : int
        Passes over the sample.
    """

    time: float
    w: FloatArray
    here: Losses
    evaluations: int


def gradient_flow(
    sample: Sample, times: Sequence[float] | FloatArray, *, tolerance: float = TOLERANCE
) -> Iterator[Trained]:
    """dw/dt = -grad sum_mu log(1 + exp(-h_mu)), from w = 0, at the recorded times.

    The sample is separable, so the loss goes to 0 and |w| grows without limit, as log t; the curvature falls
    with the loss, and steps grow in proportion to t. A decade of time costs some 20 evaluations.

    Parameters
    ----------
    sample : Sample
        The inputs with their labels.
    times : array
        Increasing, >= 0.
    tolerance : float
        Largest estimated error of a step, relative to the larger of |w|/sqrt(N) and 1.

    Yields
    ------
    Trained
        For each time.

    Raises
    ------
    ParameterError
        ``times`` does not increase from >= 0, or ``tolerance`` is not > 0.

    Notes
    -----
    :class:`bendscape.core.numerics.stabilised.Stabilised`; the spectral radius is bounded by the largest
    curvature of a term times the largest eigenvalue of x x^T. Held by ``tests/test_perceptron.py``. Limit:
    Soudry et al., J. Mach. Learn. Res. 19 (2018) 70.
    """
    yield from _flow(sample, _increasing(times), as_positive("tolerance", tolerance))


def gradient_descent(
    sample: Sample, times: Sequence[float] | FloatArray, *, learning_rate: float
) -> Iterator[Trained]:
    """w <- w - learning_rate grad sum_mu log(1 + exp(-h_mu)), from w = 0, at the recorded times.

    Parameters
    ----------
    sample, times
        As of :func:`gradient_flow`; a moment is recorded after the first step that reaches its time, to half
        a step.
    learning_rate : float
        > 0. Stable below 8/(1 + sqrt(alpha))^2, 2 over the largest curvature at w = 0; above it the loss
        rises at first.

    Yields
    ------
    Trained
        For each time.

    Raises
    ------
    ParameterError
        ``times`` does not increase from >= 0, or ``learning_rate`` is not > 0.
    """
    rate, recorded = as_positive("learning_rate", learning_rate), _increasing(times)
    w, steps = np.zeros(sample.N), 0
    here = losses(sample, w)
    for time in map(float, recorded):
        for _ in range(math.ceil(time / rate - 0.5) - steps):
            w = w + rate * here.force
            here, steps = losses(sample, w), steps + 1
        yield Trained(steps * rate, w, here, steps + 1)


def _flow(sample: Sample, times: FloatArray, tolerance: float) -> Iterator[Trained]:
    gram = sample.signed.T @ sample.signed if sample.N <= sample.M else sample.signed @ sample.signed.T
    largest = float(np.linalg.eigvalsh(gram)[-1])

    def evaluate(w: FloatArray) -> Losses:
        return losses(sample, w)

    def radius(_: FloatArray, here: Losses) -> float:
        return max(largest * float(here.curvature.max()), 1e-300)

    walk = Stabilised(
        evaluate, np.zeros(sample.N), radius=radius, tolerance=tolerance, scale=math.sqrt(sample.N)
    )
    for time in map(float, times):
        while walk.t < time:
            on_one_thread(walk.advance)(time)
        yield Trained(walk.t, walk.w, walk.here, walk.evaluations)


def _increasing(times: Sequence[float] | FloatArray) -> FloatArray:
    recorded = np.asarray(times, dtype=np.float64)
    if recorded.ndim != 1 or not recorded.size or not np.isfinite(recorded).all() or recorded[0] < 0:
        raise ParameterError("times", times, "finite numbers >= 0, in increasing order")
    if not (np.diff(recorded) > 0).all():
        raise ParameterError("times", times, "finite numbers >= 0, in increasing order")
    return recorded


