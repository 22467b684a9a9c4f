"""Gradient flow on the spheres, and gradient descent with a learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError, as_integer, as_positive
from bendscape.core.numerics.stabilised import Stabilised, StepTooSmall
from bendscape.core.numerics.threads import on_one_thread
from bendscape.core.quadratic.descent.landscape import Data, Evaluation, Overlaps, overlaps, retracted
from bendscape.core.quadratic.descent.own_labels import right_edge

FloatArray = npt.NDArray[np.float64]
Seen = TypeVar("Seen")

TOLERANCE = 3e-3
"""Largest estimated error of one step, |dw|/sqrt(pN)."""
RADIUS_SAFETY = 1.15
"""Factor on the right edge of the cell's own labels, which as an estimate of the largest eigenvalue falls
short of it by up to a tenth at N of some hundreds."""
LEAST_RADIUS = 1e-3
"""Spectral radius assumed where the labels see a smaller one."""
_MOST_EVALUATIONS = 100_000


class Moment(NamedTuple):
    """One point of a path: time, weights, what was evaluated there, and the data."""

    time: float
    w: FloatArray
    here: Evaluation
    data: Data

    @property
    def overlaps(self) -> Overlaps:
        """Overlap matrices with the teacher and among the students."""
        return overlaps(self.w, self.data.teachers, self.data.N)


class Path(NamedTuple, Generic[Seen]):
    """A path as it was seen at the recorded times, and what it cost.

    Parameters
    ----------
    times : array
        The recorded times that were reached.
    seen : list
        What ``observe`` returned at each of them.
    end : Moment
        Where the path stopped.
    evaluations : int
        Evaluations of the force.
    steps, rejected : int
        Steps accepted, and steps tried and rejected.
    stopped : str
        Why: "time" (the last recorded time), "asked" (``until`` held), "evaluations" (too many) or "step"
        (no step was small enough).
    """

    times: FloatArray
    seen: list[Seen]
    end: Moment
    evaluations: int
    steps: int
    rejected: int
    stopped: str


@on_one_thread
def gradient_flow(
    data: Data,
    times: Sequence[float] | FloatArray,
    observe: Callable[[Moment], Seen],
    *,
    tolerance: float = TOLERANCE,
    until: Callable[[Moment], bool] | None = None,
    confined: bool = False,
    max_evaluations: int = _MOST_EVALUATIONS,
) -> Path[Seen]:
    """Follow dw_k/dt = -(grad_k L - mu_k w_k) on the spheres |w_k|^2 = N, mu_k = w_k.grad_k L/N.

    Parameters
    ----------
    data : Data
        Labels, initial weights and products with the data: explicit or revealed.
    times : array
        Recorded times, increasing, >= 0; steps end on them.
    observe : callable
        Moment to whatever is to be kept; called at each recorded time. Products with the Hessian belong in
        ``data.fork()``.
    tolerance : float
        Largest estimated error of one step, as |dw|/sqrt(pN).
    until : callable, optional
        Moment to bool; called at the start and after every step, and stops the path where it holds.
    confined : bool
        Keep the weights orthogonal to the teacher's, from the start: the dynamics at N = infinity, where a
        random start has no overlap with the signal and gains none in a finite time.
    max_evaluations : int
        Give up there.

    Returns
    -------
    Path
        With the outcome in ``stopped``; nothing is raised where a path cannot be followed.

    Raises
    ------
    ParameterError
        ``times`` does not increase from >= 0, ``tolerance`` or ``max_evaluations`` is not > 0, or N <= p_star
        leaves nothing to confined weights.

    Notes
    -----
    Runs on one BLAS thread. Second-order stabilised method; the spectral radius of the flow is that of the
    cell's own labels, right edge less multiplier, times 1.15. Error against the flow, |dw|/sqrt(pN), at the
    default tolerance 3e-3: below 5e-3 up to t = 1, held by ``tests/test_descent.py``. A slow passage of a
    saddle amplifies it: 2.1e-2 up to t = 100 in the worst of ten cells at alpha = 2.5, N = 400
    (``benchmarks/descent.py --tolerances``). A path that is trapped goes on ever more slowly: give it a last
    time.
    """
    recorded = _increasing(times)
    most = as_integer("max_evaluations", max_evaluations, 1)
    evaluate, start = _on(data, confined)
    model, N = data.model, data.N

    def radius(w: FloatArray, here: Evaluation) -> float:
        width = overlaps(w, data.teachers, N).width
        edge = right_edge(model, N, data.y, here.yhat, width)
        return RADIUS_SAFETY * max(edge - float(here.multiplier.min()), LEAST_RADIUS)

    walk = Stabilised(
        evaluate,
        start,
        radius=radius,
        tolerance=tolerance,
        scale=math.sqrt(len(start) * N),
        retract=lambda w: retracted(w, N),
        rounding=data.rounding,
    )

    def moment() -> Moment:
        return Moment(walk.t, walk.w, walk.here, data)

    seen: list[Seen] = []
    stopped = "asked" if until is not None and until(moment()) else "time"
    for time in map(float, recorded):
        while walk.t < time and stopped == "time":
            try:
                walk.advance(time)
            except StepTooSmall:
                stopped = "step"
            if stopped == "time" and until is not None and until(moment()):
                stopped = "asked"
            elif stopped == "time" and walk.evaluations >= most:
                stopped = "evaluations"
        if walk.t < time:
            break
        seen.append(observe(moment()))
        if stopped != "time":
            break
    return Path(recorded[: len(seen)], seen, moment(), walk.evaluations, walk.steps, walk.rejected, stopped)


@on_one_thread
def gradient_descent(
    data: Data,
    times: Sequence[float] | FloatArray,
    observe: Callable[[Moment], Seen],
    *,
    learning_rate: float,
    until: Callable[[Moment], bool] | None = None,
    confined: bool = False,
) -> Path[Seen]:
    """Gradient descent on the spheres, at a constant learning rate.

    w_k <- w_k - learning_rate (grad_k L - mu_k w_k), brought back to |w_k|^2 = N.

    Parameters
    ----------
    data, observe, until, confined
        As of :func:`gradient_flow`.
    times : array
        Recorded times, increasing, >= 0, each at another step: a step advances time by the learning rate, and
        a moment is recorded at the step nearest to its time.
    learning_rate : float
        Finite and > 0; the same at every step.

    Returns
    -------
    Path
        ``stopped`` is "time", "asked" or "step" (the weights are no longer finite).

    Raises
    ------
    ParameterError
        ``times`` does not increase from >= 0, two of them or the start and one fall on one step,
        ``learning_rate`` is not > 0, or N <= p_star leaves nothing to confined weights.

    Notes
    -----
    Runs on one BLAS thread, one evaluation a step. It is another dynamical system than the flow, which it
    follows only where learning_rate times the largest eigenvalue of the Hessian is small: that is several
    thousand at the initial point for a = 0.01. Held by ``tests/test_descent.py``.
    """
    rate = as_positive("learning_rate", learning_rate)
    recorded = _increasing(times)
    at_steps = steps_of(recorded, rate)
    evaluate, w = _on(data, confined)
    now = Moment(0.0, w, evaluate(w), data)
    seen: list[Seen] = []
    stopped = "asked" if until is not None and until(now) else "time"
    steps = 0
    for wanted in at_steps:
        while steps < wanted and stopped == "time":
            force = now.here.force
            w = force * rate
            w[:, : now.w.shape[1]] += now.w
            with np.errstate(over="ignore"):
                length = np.linalg.norm(w, axis=1)
            if not np.isfinite(length).all():
                stopped = "step"
                break
            steps += 1
            w = retracted(w, data.N)
            now = Moment(steps * rate, w, evaluate(w), data)
            if until is not None and until(now):
                stopped = "asked"
        if steps < wanted:
            break
        seen.append(observe(now))
        if stopped != "time":
            break
    return Path(recorded[: len(seen)], seen, now, 1 + steps, steps, 0, stopped)


def steps_of(times: Sequence[float] | FloatArray, learning_rate: float) -> list[float]:
    """The step nearest to each time, as a whole number.

    Raises
    ------
    ParameterError
        Two times, or the start and a later one, have the same step.
    """
    steps = np.ceil(np.asarray(times) / learning_rate - 0.5)
    if (np.diff(steps) < 1).any() or (steps[0] < 1 and times[0] > 0):
        accepted = f"at least one step of {learning_rate:g} apart, and from the start"
        raise ParameterError("times", list(times), accepted, "lower the learning rate")
    return [float(step) for step in steps]


def _on(data: Data, confined: bool) -> tuple[Callable[[FloatArray], Evaluation], FloatArray]:
    """Evaluation and start, free or orthogonal to the teacher."""
    if not confined:
        return data.evaluate, data.students
    if len(data.teachers) >= data.N:
        raise ParameterError("confined", confined, f"False at N = {data.N} <= p_star", "raise N")
    basis = np.linalg.qr(data.teachers.T)[0].T

    def outside(w: FloatArray) -> FloatArray:
        left = w.copy()
        n = basis.shape[1]
        left[:, :n] -= (w[:, :n] @ basis.T) @ basis
        return left

    def evaluate(w: FloatArray) -> Evaluation:
        here = data.evaluate(w)
        return here._replace(force=outside(here.force))

    return evaluate, retracted(outside(data.students), data.N)


def _increasing(times: Sequence[float] | FloatArray) -> FloatArray:
    try:
        recorded = np.asarray(times, dtype=np.float64)
    except (TypeError, ValueError):
        recorded = np.zeros((0, 0))
    if recorded.ndim != 1 or not recorded.size or not np.isfinite(recorded).all() or recorded[0] < 0:
        raise ParameterError("times", times, "finite numbers >= 0, in increasing order")
    if not (np.diff(recorded) > 0).all():
        raise ParameterError("times", times, "finite numbers >= 0, in increasing order")
    return recorded
