"""The two-layer quadratic network and its parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bendscape.core.errors import ParameterError, as_integer, as_positive, as_real

EdgeKind = Literal["sharp", "smooth"]
TransitionKind = Literal["continuous", "discontinuous"]

EDGE_KINDS: tuple[EdgeKind, ...] = ("sharp", "smooth")
"""Kinds of left edge; stored as int8, the index in this tuple."""

TRANSITION_KINDS: tuple[TransitionKind, ...] = ("continuous", "discontinuous")
"""Kinds of transition at alpha_bbp; stored as int8, the index in this tuple."""

LARGEST_SAMPLE_COUNT = 2**53
"""Above this, M is no longer exact as a double, and M / N is no longer the requested load."""


LARGEST_ALPHA = 1e100
"""Above this, the theory's gamma, of order alpha^(-1/2) or 1/alpha, and its powers underflow."""


def as_load(alpha: object) -> float:
    """Return a load that the theory accepts as a float, or raise ParameterError."""
    load = as_positive("alpha", alpha)
    if load > LARGEST_ALPHA:
        raise ParameterError("alpha", alpha, f"at most {LARGEST_ALPHA:g}")
    return load


SMALLEST_A, LARGEST_A = 1e-12, 1e12
"""Range of a. The stated accuracies hold from 1e-6 to 1e3; beyond that the error estimates apply."""


@dataclass(frozen=True)
class Model:
    """Two-layer quadratic student and teacher, with the loss that is studied.

    The student has ``p`` hidden units, the teacher ``p_star``; both average the squares of their
    pre-activations, yhat = (1/p) sum_k lambda_k^2 and y = (1/p_star) sum_l u_l^2, and the loss of one sample
    is (1/2) (y - yhat)^2 / (a + y).

    Parameters
    ----------
    p : int or math.inf
        Student hidden units, >= 1. ``math.inf`` is the limit p -> inf, taken after N -> inf; for theory only.
    p_star : int
        Teacher hidden units, >= 1. It may exceed p.
    a : float
        Offset in the denominator of the loss, finite and > 0.
    noise : float, optional
        Variance Delta >= 0 of Gaussian noise on the teacher's pre-activations, u_l -> u_l + sqrt(noise) xi_l
        with independent xi_l for every sample. (Noise added to y itself could make y negative and a + y
        singular.)

    Notes
    -----
    Numpy integers and integral floats are accepted and normalised, so that equal models compare and hash
    equal. Held by ``tests/test_model.py``.
    """

    p: int | float
    p_star: int
    a: float
    noise: float = 0.0

    def __post_init__(self) -> None:
        p: int | float = math.inf
        if as_real(self.p) != math.inf:
            p = as_integer("p", self.p, 1, "an integer >= 1, or inf")
        object.__setattr__(self, "p", p)
        object.__setattr__(self, "p_star", as_integer("p_star", self.p_star, 1))
        a = as_positive("a", self.a)
        if not SMALLEST_A <= a <= LARGEST_A:
            raise ParameterError("a", a, f"between {SMALLEST_A:g} and {LARGEST_A:g}")
        object.__setattr__(self, "a", a)
        noise = as_real(self.noise)
        if not 0 <= noise < math.inf:
            raise ParameterError("noise", self.noise, "a finite number >= 0")
        object.__setattr__(self, "noise", noise)


def refuse_noise(model: Model, what: str) -> None:
    """Raise ParameterError if noise > 0: the formula holds only for noiseless labels."""
    if model.noise:
        raise ParameterError("noise", model.noise, f"0 for {what}", "it holds for noiseless labels")


def sample_count(alpha: float, N: int) -> int:
    """Number of samples M at load alpha and dimension N.

    M = round(alpha N). M is defined only here; samplers report the realised load M / N.

    Parameters
    ----------
    alpha : float
        Samples per dimension, finite and > 0.
    N : int
        Input dimension, >= 2.

    Returns
    -------
    int
        M >= 1.

    Raises
    ------
    ParameterError
        ``alpha`` is not finite and > 0, N < 2, or alpha N is not in [1, 2^53].

    Notes
    -----
    Python's rounding: halves go to the even neighbour. Held by ``tests/test_model.py``.
    """
    N = as_integer("N", N, 2)
    load = as_positive("alpha", alpha)
    if load * N < 1:
        raise ParameterError("alpha", alpha, f"at least 1/N = {1 / N:g} at N = {N}", "raise alpha or N")
    if load * N > LARGEST_SAMPLE_COUNT:
        raise ParameterError(
            "alpha", alpha, f"at most {LARGEST_SAMPLE_COUNT / N:g} at N = {N}", "lower alpha or N"
        )
    return round(load * N)
