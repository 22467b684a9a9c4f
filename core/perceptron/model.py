"""The teacher-student perceptron: one sample, its logistic loss, and the error of a student."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit

from bendscape.core.errors import ParameterError, as_integer, as_positive

FloatArray = npt.NDArray[np.float64]


class Sample(NamedTuple):
    """Labelled Gaussian inputs.

    Parameters
    ----------
    signed : array, shape (M, N)
        y_mu x_mu / sqrt(N), x_mu standard Gaussian, y_mu = sign(u.x_mu): w @ signed.T are the fields h_mu.
    teacher : array, shape (N,)
        u, with |u|^2 = N.
    """

    signed: FloatArray
    teacher: FloatArray

    @property
    def M(self) -> int:
        """Number of inputs."""
        return len(self.signed)

    @property
    def N(self) -> int:
        """Their dimension."""
        return int(self.signed.shape[1])


class Losses(NamedTuple):
    """The logistic loss at one point, and its derivatives.

    Parameters
    ----------
    loss : float
        (1/M) sum_mu log(1 + exp(-h_mu)).
    force : array, shape (N,)
        Minus the gradient of M times the loss: sum_mu y_mu x_mu/sqrt(N) / (1 + exp h_mu).
    curvature : array, shape (M,)
        Second derivative of each term with respect to its field.
    training_error : float
        Share of the inputs with h_mu <= 0.
    """

    loss: float
    force: FloatArray
    curvature: FloatArray
    training_error: float


def draw(alpha: float, N: int, rng: np.random.Generator) -> Sample:
    """A sample of M = round(alpha N) inputs with the labels of a random teacher.

    Raises
    ------
    ParameterError
        ``alpha`` is not > 0, N not >= 1, or alpha N <= 1/2.
    """
    N, alpha = as_integer("N", N, 1), as_positive("alpha", alpha)
    M = round(alpha * N)
    if M < 1:
        raise ParameterError("alpha", alpha, f"alpha N > 1/2, so alpha > {0.5 / N:.6g} at N = {N}")
    teacher = rng.standard_normal(N)
    teacher *= math.sqrt(N) / np.linalg.norm(teacher)
    inputs = rng.standard_normal((M, N))
    inputs *= np.where(inputs @ teacher < 0, -1.0, 1.0)[:, None] / math.sqrt(N)
    return Sample(inputs, teacher)


def losses(sample: Sample, w: FloatArray) -> Losses:
    """The loss of weights w, shape (N,), with its derivatives."""
    fields = sample.signed @ w
    wrong = expit(-fields)
    return Losses(
        -float(log_expit(fields).mean()),
        wrong @ sample.signed,
        wrong * expit(fields),
        float((fields <= 0).mean()),
    )


def hessian(sample: Sample, curvature: FloatArray) -> FloatArray:
    """Second derivative of M times the loss, N x N, from the curvature of each term; M N^2 operations."""
    root = sample.signed * np.sqrt(curvature)[:, None]
    return np.asarray(root.T @ root)


def norm_of(w: FloatArray) -> float:
    """|w|/sqrt(N), the norm by which fields grow."""
    return float(np.linalg.norm(w)) / math.sqrt(len(w))


def generalisation_error(w: FloatArray, teacher: FloatArray) -> float:
    """Probability that a new input gets the wrong label: arccos(w.u/(|w||u|))/pi; 1/2 for w = 0."""
    length = float(np.linalg.norm(w) * np.linalg.norm(teacher))
    return angle_error(float(w @ teacher) / length) if length else 0.5


def angle_error(overlap: float) -> float:
    """arccos(overlap)/pi, for an overlap in [-1, 1] up to rounding."""
    return math.acos(min(1.0, max(-1.0, overlap))) / math.pi
