"""The error for bad parameters, the warning of lost precision, and checks of numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real


class ParameterError(ValueError):
    """A parameter outside its domain.

    Its text is one line: the parameter, the value given, what is accepted, and the remedy if there is one.

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
        super().__init__(parameter, value, accepted, remedy)  # all, so that the error can be pickled
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
    """The error estimate of a theoretical number exceeds the accuracy that the theory claims.

    The number is returned nevertheless, with its error estimate.
    """


def as_real(value: object) -> float:
    """Return a real number as a float, and anything else (including booleans and strings) as nan."""
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


@contextmanager
def unwarned() -> Iterator[None]:
    """Suppress warnings of lost precision, for the many points of a grid or a figure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        yield
