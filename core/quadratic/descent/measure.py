"""What is measured along one descent: arrays over the recorded times, and the outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import as_integer
from bendscape.core.quadratic.descent.flow import TOLERANCE, Moment, Path, gradient_descent, gradient_flow
from bendscape.core.quadratic.descent.landscape import RECOVERED, Data
from bendscape.core.quadratic.descent.spectrum import PAIRS, LowestPairs, OwnLabels, lowest_pairs, own_labels

FloatArray = npt.NDArray[np.float64]


class Measured(NamedTuple):
    """One recorded moment.

    Parameters
    ----------
    time : float
        Time of the flow; for gradient descent, steps times learning rate.
    loss : float
        L/N.
    Q, R : array, shapes (p, p) and (p, p_star)
        Overlap matrices among the students and with the teacher, over N.
    alignment : float
        C of :class:`bendscape.core.quadratic.descent.landscape.Overlaps`, q^2 at p = p* = 1.
    generalisation_error : float
        E (y - yhat)^2 over new noiseless samples.
    gradient_norm : float
        |P grad L|/sqrt(N).
    multiplier : array, shape (p,)
        mu_k.
    pairs : LowestPairs or None
        Of the Riemannian Hessian, if they were asked for.
    own : OwnLabels
        Edge and outlier from the cell's own labels.
    """

    time: float
    loss: float
    Q: FloatArray
    R: FloatArray
    alignment: float
    generalisation_error: float
    gradient_norm: float
    multiplier: FloatArray
    pairs: LowestPairs | None
    own: OwnLabels


def measure(moment: Moment, pairs: int = PAIRS) -> Measured:
    """Everything that is recorded of one moment, with this many eigenpairs of the Hessian (0 for none)."""
    overlap = moment.overlaps
    return Measured(
        moment.time,
        moment.here.loss,
        overlap.Q,
        overlap.R,
        overlap.alignment,
        overlap.generalisation_error,
        float(np.linalg.norm(moment.here.force)) / math.sqrt(moment.data.N),
        moment.here.multiplier,
        lowest_pairs(moment, pairs) if pairs else None,
        own_labels(moment),
    )


class Descent(NamedTuple):
    """One cell followed in time.

    Parameters
    ----------
    seen : list of Measured
        One for each recorded time that was reached.
    recovered : bool
        Whether the alignment exceeded 0.9 at the start or after some step.
    time_recovered : float
        When it did first, between two steps by a straight line; nan if not.
    time_lost : float
        The first recorded time at which the own labels show no outlier although they did before; nan if there
        is none.
    evaluations, directions : int
        Evaluations of the force, and directions of R^N in which the data are known at the end.
    stopped : str
        As of :class:`bendscape.core.quadratic.descent.flow.Path`; "asked" is recovery, where that ends it.
    """

    seen: list[Measured]
    recovered: bool
    time_recovered: float
    time_lost: float
    evaluations: int
    directions: int
    stopped: str


def follow(
    data: Data,
    times: Sequence[float] | FloatArray,
    *,
    pairs: int = PAIRS,
    tolerance: float = TOLERANCE,
    learning_rate: float | None = None,
    confined: bool = False,
    until_recovered: bool = False,
) -> Descent:
    """Follow one cell and measure it at the recorded times.

    Parameters
    ----------
    data : Data
        Explicit or revealed.
    times : array
        Recorded times, increasing, >= 0. A path that does not recover is trapped, but not stationary: the
        last time decides what counts as recovered, and has to be told with every success rate.
    pairs : int
        Eigenpairs of the Riemannian Hessian at each recorded time; 0 for none.
    tolerance, confined
        As of :func:`bendscape.core.quadratic.descent.flow.gradient_flow`.
    learning_rate : float, optional
        With it, gradient descent takes the place of the flow.
    until_recovered : bool
        Stop at recovery.

    Returns
    -------
    Descent
        Held by ``tests/test_descent_spectrum.py``.
    """
    pairs = as_integer("pairs", pairs, 0)
    before = (0.0, -math.inf)
    time_recovered = math.nan

    def watch(moment: Moment) -> bool:
        nonlocal before, time_recovered
        now = (moment.time, moment.overlaps.alignment)
        if math.isnan(time_recovered) and now[1] > RECOVERED:
            share = (RECOVERED - before[1]) / (now[1] - before[1]) if math.isfinite(before[1]) else 1.0
            time_recovered = before[0] + share * (now[0] - before[0])
        before = now
        return until_recovered and not math.isnan(time_recovered)

    def observe(moment: Moment) -> Measured:
        return measure(moment, pairs)

    if learning_rate is None:
        path: Path[Measured] = gradient_flow(
            data, times, observe, tolerance=tolerance, until=watch, confined=confined
        )
    else:
        path = gradient_descent(
            data, times, observe, learning_rate=learning_rate, until=watch, confined=confined
        )
    shown = [not math.isnan(seen.own.outlier_sample) for seen in path.seen]
    lost = [i for i in range(1, len(shown)) if shown[i - 1] and not shown[i]]
    return Descent(
        path.seen,
        not math.isnan(time_recovered),
        time_recovered,
        path.seen[lost[0]].time if lost else math.nan,
        path.evaluations,
        data.directions,
        path.stopped,
    )
