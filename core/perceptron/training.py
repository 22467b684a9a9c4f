"""Gradient descent on the logistic loss, from w = 0: as a flow, or with a learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.integrate import BDF

from bendscape.core.errors import ParameterError, as_positive
from bendscape.core.numerics.threads import on_one_thread
from bendscape.core.perceptron.model import FloatArray, Losses, Sample, hessian, losses

TOLERANCE = 1e-4
"""Relative error of one step of the flow, component by component of the weights."""


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


@on_one_thread
def gradient_flow(
    sample: Sample, times: Sequence[float] | FloatArray, *, tolerance: float = TOLERANCE
) -> list[Trained]:
    """dw/dt = -grad sum_mu log(1 + exp(-h_mu)), from w = 0, at the recorded times.

    The sample is separable, so the loss goes to 0 and |w| grows without limit, as log t.

    Parameters
    ----------
    sample : Sample
        The inputs with their labels.
    times : array
        Increasing, >= 0.
    tolerance : float
        Estimated error of a step, relative to each weight or, below 1, absolute.

    Returns
    -------
    list of Trained
        One for each time.

    Raises
    ------
    ParameterError
        ``times`` does not increase from >= 0, or ``tolerance`` is not > 0.
    ArithmeticError
        The path cannot be followed with this tolerance.

    Notes
    -----
    SciPy's BDF with the exact Jacobian: the loss is stiff while some fields are large and others are not, and
    a decade of time costs a few tens of steps and a few factorisations, each M N^2. Held by
    ``tests/test_perceptron.py``. The limit of long times: Soudry et al., J. Mach. Learn. Res. 19 (2018) 70.
    """
    recorded, tolerance = _increasing(times), as_positive("tolerance", tolerance)
    evaluations = 0

    def force(_: float, w: FloatArray) -> FloatArray:
        nonlocal evaluations
        evaluations += 1
        return losses(sample, w).force

    def jacobian(_: float, w: FloatArray) -> FloatArray:
        return -hessian(sample, losses(sample, w).curvature)

    walk = BDF(force, 0.0, np.zeros(sample.N), recorded[-1], rtol=tolerance, atol=tolerance, jac=jacobian)
    found = [Trained(0.0, walk.y, losses(sample, walk.y), evaluations) for time in recorded[:1] if time == 0]
    while len(found) < len(recorded):
        if message := walk.step():
            raise ArithmeticError(f"{message} At t = {walk.t:.3g}, with tolerance {tolerance:g}.")
        between = walk.dense_output()
        while len(found) < len(recorded) and recorded[len(found)] <= walk.t:
            time = float(recorded[len(found)])
            w = np.asarray(between(time))
            found.append(Trained(time, w, losses(sample, w), evaluations))
    return found


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


def _increasing(times: Sequence[float] | FloatArray) -> FloatArray:
    recorded = np.asarray(times, dtype=np.float64)
    if recorded.ndim != 1 or not recorded.size or not np.isfinite(recorded).all() or recorded[0] < 0:
        raise ParameterError("times", times, "finite numbers >= 0, in increasing order")
    if not (np.diff(recorded) > 0).all():
        raise ParameterError("times", times, "finite numbers >= 0, in increasing order")
    return recorded
