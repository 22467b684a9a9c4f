"""Checks that the functions of a kernel return what it declares."""

from __future__ import annotations

import asyncio
import importlib
import math
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Cell
from bendscape.sweep.campaign.kernel import (
    ACCEPTED,
    LONGEST_NAME,
    Kernel,
    Outcome,
    Variable,
    outside_range,
    range_in_words,
)
from bendscape.sweep.texts import clean, message_of

NOT_OURS = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)  # what a user's module may raise


class BadOutcome(TypeError):
    """The outcome of `compute` does not match the kernel's declaration; the cell is recorded as failed."""


def origin_of(error: BaseException) -> str:
    """An error with the file and line that raised it."""
    machinery = ("<frozen ", importlib.__file__, str(Path(__file__).parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(message_of(error).split())}{place}"


def estimated(of: Callable[[Cell], float], field: str, bound: str, cell: Cell) -> float:
    """The estimate of a kernel at a cell: a finite number, with ``bound`` "> 0" or ">= 0".

    Raises
    ------
    ParameterError
        The estimate is something else, or its function raises.
    """
    accepted, at = f"a finite number {bound} for every cell", f"this is at {cell}"
    try:
        value = float(of(cell))
    except NOT_OURS as error:
        raise ParameterError(f"KERNEL.{field}", origin_of(error), accepted, at) from None
    if not math.isfinite(value) or value < 0 or (value == 0 and bound == "> 0"):
        raise ParameterError(f"KERNEL.{field}", value, accepted, at)
    return value


def computed(kernel: Kernel, cell: Cell, rng: np.random.Generator) -> Outcome:
    """Compute a cell and check every declared variable: dtype, shape and range.

    Raises
    ------
    BadOutcome
        The outcome does not match the declaration.
    """
    outcome = kernel.compute(cell, rng)
    if not isinstance(outcome, Outcome):
        raise BadOutcome(f"compute returned {type(outcome).__name__}, not an Outcome")
    declared, values = {v.name for v in kernel.variables}, outcome.values
    if not isinstance(values, Mapping):
        raise BadOutcome(f"the values of an Outcome must be a mapping, not {_kind(values)}")
    if missing := [name for name in declared if name not in values]:
        raise BadOutcome(f"compute returned no value for {', '.join(missing)}")
    if unknown := [str(name) for name in values if name not in declared]:
        raise BadOutcome(f"compute returned {', '.join(unknown)}, which KERNEL.variables does not declare")
    if type(outcome.converged) not in (bool, np.bool_):
        raise BadOutcome(f"converged must be True or False, not {_kind(outcome.converged)}")
    numbers = {
        of.name: _array(of, values[of.name], kernel.inner_shape(of))
        if of.dims
        else _number(of.name, values[of.name], of.dtype)
        for of in kernel.variables
    }
    for variable in kernel.variables:
        if variable.dtype.startswith("complex"):
            continue
        low, high = variable.valid_range
        outside = outside_range(numbers[variable.name], low, high)
        if outside.any():
            found, accepted = np.asarray(numbers[variable.name])[outside][0], range_in_words(low, high)
            raise BadOutcome(f"{variable.name} = {found} must be {accepted}, as its valid_range declares")
    return Outcome(numbers, bool(outcome.converged))


def _array(variable: Variable, value: object, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    # A conversion must lose nothing: the dtype represents every value; lists and masked arrays are refused.
    name, dtype = variable.name, np.dtype(variable.dtype)
    if type(value) is not np.ndarray:
        raise BadOutcome(f"{name} must be a NumPy array of shape {shape}, not {_kind(value)}")
    if value.shape != shape:
        raise BadOutcome(
            f"{name} must have the shape {shape} of {', '.join(variable.dims)}, not {value.shape}"
        )
    if not np.can_cast(value.dtype, dtype, "safe"):
        raise BadOutcome(
            f"{name} must be of type {dtype}, not {value.dtype}: round it, astype({str(dtype)!r})"
        )
    cast_to = value.astype(dtype)
    if dtype.kind == "i" and (cast_to == np.iinfo(dtype).min).any():
        raise BadOutcome(f"{name} holds the lowest {dtype}, which is reserved for absent cells")
    return cast_to


def _number(name: str, value: object, dtype: str) -> complex:
    # By exact type: an object that merely converts to a number may carry more (a mask, a unit, further
    # digits), which would be lost silently.
    plain = value
    of_numpy = isinstance(value, np.generic | np.ndarray) and type(value) in (value.dtype.type, np.ndarray)
    if of_numpy and value.shape == () and value.dtype.kind in "biufc":  # type: ignore[attr-defined]
        plain = value.item()  # type: ignore[attr-defined]  # of a long double it is no float
    if type(plain) not in ACCEPTED[dtype]:
        raise BadOutcome(f"{name} must be one number of type {dtype}, not {_kind(value)}")
    if not dtype.startswith("int"):
        return _held_exactly(name, cast(complex, plain), dtype)
    number = cast(int, plain)
    if not np.iinfo(dtype).min < number <= np.iinfo(dtype).max:
        # the lowest value is reserved for absent cells
        accepted = f"{np.iinfo(dtype).min + 1} to {np.iinfo(dtype).max}"
        raise BadOutcome(f"{name} = {_shown(number)} is outside the range of {dtype} variables, {accepted}")
    return number


def _held_exactly(name: str, number: complex, dtype: str) -> complex:
    try:
        held = complex(np.dtype(dtype).type(number))
    except OverflowError:
        held = complex(math.inf)
    if held != number and not (number != number and held != held):  # NaN is held as NaN
        shown = _shown(number) if isinstance(number, int) else number
        remedy = "float(...), or declare int64" if dtype == "float64" else f"np.{dtype}(...)"
        raise BadOutcome(f"{name} = {shown} is not exactly a {dtype}: round it, {remedy}")
    return number


def _shown(number: float | int) -> str:
    return str(number) if abs(number) < 10**40 else "an integer of more than 40 digits"


def _kind(value: object) -> str:
    if np.ma.isMA(value):
        return "a masked value or array"
    if isinstance(value, np.ndarray) and value.shape:
        return f"an array of shape {value.shape}"
    return clean(type.__dict__["__name__"].__get__(type(value)), LONGEST_NAME)
