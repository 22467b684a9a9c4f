"""The loss along a path: forces on the spheres, what the data must offer, overlaps and criteria.

L = (1/2) sum_mu (y - yhat)^2/(a + y) with yhat = (1/p) sum_k lambda_k^2, lambda_k = w_k.x/sqrt(N), so

    grad_k L = (1/sqrt N) sum_mu (2/p) (yhat - y)/(a + y) lambda_k x.

Weights are coordinates on an orthonormal basis: that of R^N for explicit data, and for revealed data the
directions revealed so far, of which there are more with every evaluation.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bendscape.core.numerics.stabilised import combination
from bendscape.core.quadratic.model import Model

FloatArray = npt.NDArray[np.float64]
LongArray = npt.NDArray[np.float64] | npt.NDArray[np.float32]
"""Numbers of every sample, in blocks: shape (blocks, rows) or (blocks, p, rows). Samples that fill up the
last block have the label 0 and the fields 0, and contribute to no sum."""


class Evaluation(NamedTuple):
    """Loss and force at one point.

    Parameters
    ----------
    force : array, shape (p, n)
        -(grad_k L - mu_k w_k), tangential to the spheres.
    loss : float
        L/N, the loss per dimension.
    multiplier : array, shape (p,)
        mu_k = w_k.grad_k L/|w_k|^2, of order 1: what holds w_k on its sphere.
    fields : array, shape (blocks, p, rows)
        Student pre-activations lambda_k.
    yhat : array, shape (blocks, rows)
        Student outputs.
    """

    force: FloatArray
    loss: float
    multiplier: FloatArray
    fields: LongArray
    yhat: LongArray


class Data(Protocol):
    """Labels of one cell, and products with its data."""

    model: Model
    N: int
    M: int
    rounding: float
    """Relative precision of forces."""
    students: FloatArray
    """Initial weights of the student, shape (p, n), each of norm sqrt(N)."""
    teachers: FloatArray
    """Weights of the teacher, shape (p_star, n)."""
    y: LongArray
    """Labels, shape (blocks, rows)."""

    @property
    def directions(self) -> int:
        """Number of directions of R^N in which the data are known."""

    def evaluate(self, w: FloatArray) -> Evaluation:
        """Loss and force at weights w, shape (p, n)."""

    def hessian_times(self, here: Evaluation, v: FloatArray, *, once: bool = False) -> FloatArray:
        """H v for v of shape (p, n), with the Euclidean Hessian of L where ``here`` was evaluated.

        ``once``: the v of successive calls are orthonormal, so that one projection of revealed data will do.
        """

    def fork(self) -> AbstractContextManager[None]:
        """Inside, products leave no trace in the data."""


def on_spheres(force: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Tangential part of -grad_k (given as ``force``), and mu_k; w may be off its sphere by a little."""
    wide = w if w.shape[1] == force.shape[1] else combination((0.0, force), (1.0, w))
    multiplier = -np.einsum("kn,kn->k", force, wide) / np.einsum("kn,kn->k", wide, wide)
    return force + multiplier[:, np.newaxis] * wide, multiplier


def retracted(w: FloatArray, N: int) -> FloatArray:
    """Weights brought back to the spheres of radius sqrt(N)."""
    scaled: FloatArray = w * (math.sqrt(N) / np.linalg.norm(w, axis=1, keepdims=True))
    return scaled


class Overlaps(NamedTuple):
    """Overlap matrices over N: Q = w.w (p x p), R = w.w* (p x p_star), T = w*.w* (p_star x p_star)."""

    Q: FloatArray
    R: FloatArray
    T: FloatArray

    @property
    def alignment(self) -> float:
        """Cosine between the matrices that student and teacher stand for, (1/p) sum w w^T and its teacher's.

        C = [sum R^2/(p p_star)] / sqrt(sum Q^2/p^2 sum T^2/p_star^2), in [0, 1]; q^2 = (w.w*/N)^2 at p = p* =
        1. Recovery is C > ``RECOVERED``.
        """
        students, both, teachers = self._means()
        return both / math.sqrt(students * teachers)

    @property
    def generalisation_error(self) -> float:
        """E (y - yhat)^2 over new noiseless samples: 2 [sum Q^2/p^2 + sum T^2/p_star^2 - 2 sum R^2/(p
        p_star)]."""
        students, both, teachers = self._means()
        return 2 * (students + teachers - 2 * both)

    @property
    def width(self) -> float:
        """Effective number of students, p^2/sum Q^2: p if they are orthogonal, 1 if they are parallel."""
        return 1 / float((self.Q**2).mean())

    def _means(self) -> tuple[float, float, float]:
        return tuple(float((matrix**2).mean()) for matrix in (self.Q, self.R, self.T))  # type: ignore[return-value]


RECOVERED = 0.9
"""Alignment above which the signal is recovered."""


def overlaps(w: FloatArray, teachers: FloatArray, N: int) -> Overlaps:
    """Overlap matrices of weights and teacher, both as coordinates.

    Parameters
    ----------
    w : array, shape (p, n)
        Student weights.
    teachers : array, shape (p_star, n')
        Teacher weights; the shorter of n and n' goes on with zeros.
    N : int
        Input dimension.

    Returns
    -------
    Overlaps
        Diagonals of Q and T are 1. Held by ``tests/test_descent.py``.
    """
    n = min(w.shape[1], teachers.shape[1])
    return Overlaps(w @ w.T / N, w[:, :n] @ teachers[:, :n].T / N, teachers @ teachers.T / N)
