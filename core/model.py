"""The model, its parameters, and the one error every bad parameter gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal

EdgeKind = Literal["sharp", "smooth"]
TransitionKind = Literal["continuous", "discontinuous"]

EDGE_KINDS: tuple[EdgeKind, ...] = ("sharp", "smooth")
"""Kinds of left edge; a kind is stored as int8, its place in this tuple."""

TRANSITION_KINDS: tuple[TransitionKind, ...] = ("continuous", "discontinuous")
"""Kinds of transition at alpha_bbp; stored as int8, the place in this tuple."""

LARGEST_SAMPLE_COUNT = 2**53
"""Above this an integer M is no longer exact as a double, and M / N stops being what was asked for."""


class ParameterError(ValueError):
    """A parameter outside its domain.

    Its text is one line: the parameter, the value given, what is accepted, and (where there is one) the
    remedy.

    Parameters
    ----------
    parameter : str
        Name of the parameter, as in the notation table of ``bendscape.core``.
    value : object
        The value given.
    accepted : str
        The accepted values, in words.
    remedy : str, optional
        What to do instead.
    """

    def __init__(self, parameter: str, value: object, accepted: str, remedy: str = "") -> None:
        super().__init__(parameter, value, accepted, remedy)  # every argument, so that the error pickles
        self.parameter = parameter
        self.value = value
        self.accepted = accepted
        self.remedy = remedy

    def __str__(self) -> str:
        shown = " ".join(repr(self.value).split())
        most = 240 if isinstance(self.value, str) else 80  # paths are shown whole
        if len(shown) > most:
            shown = f"{shown[: most // 2 - 2]}...{shown[1 - most // 2 :]}"
        line = f"{self.parameter} = {shown} is not accepted: {self.parameter} must be {self.accepted}"
        return f"{line}; {self.remedy}" if self.remedy else line


class PrecisionWarning(UserWarning):
    """A number of the theory whose error estimate exceeds what the theory promises of it.

    The number is returned all the same, with its estimate beside it.
    """


def as_real(value: object) -> float:
    """Return a real number as a float, and anything else (booleans and strings included) as nan."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def as_integer(parameter: str, value: object, least: int, accepted: str = "", remedy: str = "") -> int:
    """Return an integral number of any type as an int, or raise ParameterError if it is not one >= least."""
    number = as_real(value)
    if not math.isfinite(number) or number != math.floor(number) or number < least:
        raise ParameterError(parameter, value, accepted or f"an integer >= {least}", remedy)
    return int(value) if isinstance(value, int) else int(number)


def as_positive(parameter: str, value: object) -> float:
    """Return a finite number above zero as a float, or raise ParameterError."""
    number = as_real(value)
    if not (math.isfinite(number) and number > 0):
        raise ParameterError(parameter, value, "a finite number > 0")
    return number


LARGEST_ALPHA = 1e100
"""Beyond it the theory's gamma, of order alpha^(-1/2) or 1/alpha, and its powers underflow."""


def as_load(alpha: object) -> float:
    """Return a load alpha the theory can be asked for as a float, or raise ParameterError."""
    load = as_positive("alpha", alpha)
    if load > LARGEST_ALPHA:
        raise ParameterError("alpha", alpha, f"at most {LARGEST_ALPHA:g}")
    return load


SMALLEST_A, LARGEST_A = 1e-12, 1e12
"""Range of a; the accuracies stated hold from 1e-6 to 1e3, and beyond it the error estimates tell."""


@dataclass(frozen=True)
class Model:
    """Two-layer quadratic student and teacher, with the loss that is bent.

    The student has ``p`` hidden units, the teacher ``p_star``; both average the squares of their
    pre-activations, yhat = (1/p) sum_k lambda_k^2 and y = (1/p_star) sum_l u_l^2, and the loss of one sample
    is (1/2) (y - yhat)^2 / (a + y).

    Parameters
    ----------
    p : int or math.inf
        Student hidden units, >= 1. ``math.inf`` is the limit p -> inf, taken after N -> inf: theory only.
    p_star : int
        Teacher hidden units, >= 1. It may exceed p.
    a : float
        Offset in the denominator of the loss, finite and > 0.
    noise : float, optional
        Variance Delta >= 0 of Gaussian noise on the teacher's pre-activations, u_l -> u_l + sqrt(noise) xi_l
        with a fresh xi_l for every sample. Noise added to y itself would make it negative, and a + y
        singular.

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
    """Raise ParameterError where noise > 0 meets a formula that holds for noiseless labels alone."""
    if model.noise:
        raise ParameterError("noise", model.noise, f"0 for {what}", "it holds for noiseless labels")


def sample_count(alpha: float, N: int) -> int:
    """Number of samples M at load alpha and dimension N.

    M = round(alpha N). This is the only place where M is decided; the realised load M / N is what samplers
    report.

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

    Notes
    -----
    Python's rounding: a half goes to the even neighbour. Held by ``tests/test_model.py``.
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
