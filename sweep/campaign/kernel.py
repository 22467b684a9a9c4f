"""The contract between the engine and a kernel, which declares what a cell computes and what it costs."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Axes, Cell
from bendscape.sweep.texts import clean

if TYPE_CHECKING:
    from bendscape.sweep.campaign.grid import Grid

STATUS = {"absent": 0, "done": 1, "failed": 2, "not_converged": 3}
"""Codes of the variable `status`, written last: a cell is stored if and only if its status is not absent."""

NOT_WANTED = -1
"""The status that readers show for a cell that the campaign does not want. It is never stored."""


BOOKKEEPING = frozenset({"status", "n_seeds", "wanted", "coverage"})
"""Names that readers use for the engine's own records. No variable of a kernel may have one of them."""

ACCEPTED: dict[str, tuple[type, ...]] = {
    "float64": (float, int),
    "float32": (float, int),
    "complex128": (complex, float, int),
    "complex64": (complex, float, int),
    "int64": (int, bool),
    "int8": (int, bool),
}
"""Python number types accepted for each dtype, if the dtype represents the value exactly."""

LONGEST_NAME, LONGEST_TEXT = 100, 1000  # characters: of names, and of long_name or units

MOST_BYTES = 2**20
"""Largest size of one variable in one cell, in bytes."""
ROUNDING = 1e-6
"""Tolerance on the bounds of a valid range: relative to the bound, or absolute if the bound is below 1."""


Dtype = Literal["float64", "float32", "complex128", "complex64", "int64", "int8", "str"]


@dataclass(frozen=True)
class Dimension:
    """An inner dimension of variables, stored whole in every cell: its coordinates never change."""

    name: str
    values: tuple[int | float, ...]
    long_name: str = ""
    units: str = "1"


@dataclass(frozen=True)
class Variable:
    """A quantity that a kernel returns for each cell: one number, or an array over inner dimensions.

    Absent and failed cells hold NaN; integers hold the lowest value of their dtype.

    `valid_range` bounds every value that the variable can take, ends included; NaN is always accepted.
    `flags` are the meanings of the values 0, 1, ... of an int8. `nan` states whether a reference can be NaN;
    if it cannot, a NaN in a store is damage. `dims` names inner dimensions declared by the kernel.
    """

    name: str
    long_name: str
    dtype: Dtype = "float64"
    units: str = "1"
    valid_range: tuple[float, float] = (-math.inf, math.inf)
    flags: tuple[str, ...] = ()
    nan: bool = True
    dims: tuple[str, ...] = ()

    @property
    def fill_value(self) -> float | int | str:
        """What an absent cell holds."""
        if self.dtype == "str":
            return ""
        if np.dtype(self.dtype).kind == "i":
            return int(np.iinfo(self.dtype).min) if self.name != "status" else 0
        return math.nan

    @property
    def attributes(self) -> dict[str, Any]:
        """CF attributes: `long_name`, `units`, `valid_min` and `valid_max` where finite, `flag_values` and
        `flag_meanings`."""
        kind = int if self.dtype.startswith("int") else float
        ends = zip(("valid_min", "valid_max"), self.valid_range, strict=True)
        found: dict[str, Any] = {"long_name": self.long_name, "units": self.units}
        found |= {name: kind(end) for name, end in ends if math.isfinite(end)}
        if self.flags:
            found |= {"flag_values": list(range(len(self.flags))), "flag_meanings": " ".join(self.flags)}
        return found


FINITE = (-sys.float_info.max, sys.float_info.max)
"""Valid range of a variable that must be finite."""


def range_in_words(low: float, high: float) -> str:
    """A valid range, in words."""
    return "a finite number" if (low, high) == FINITE else f"in [{low:g}, {high:g}]"


def outside_range(values: npt.ArrayLike, low: float, high: float) -> npt.NDArray[np.bool_]:
    """Which values lie outside [low, high] by more than `ROUNDING`; NaN never does."""
    values = np.asarray(values)
    least, most = (
        end + sign * ROUNDING * max(1.0, abs(end)) if abs(end) < FINITE[1] else end
        for sign, end in ((-1, low), (1, high))
    )
    found: npt.NDArray[np.bool_] = (values < least) | (values > most)
    return found


@dataclass(frozen=True)
class Outcome:
    """What a kernel returns for one cell: a value for every declared variable, and whether it converged.

    A value is a Python or NumPy number that the variable's dtype represents exactly, or an array with the
    shape of the variable's inner dimensions. NaN is a valid result: a cell that holds NaN is done.
    """

    values: Mapping[str, complex | npt.NDArray[Any]]
    converged: bool = True


@dataclass(frozen=True)
class Reference:
    """Exact values at the points of a grid, computed without random numbers and stored beside the cells.

    Parameters
    ----------
    variables
        What `compute` returns.
    over
        Names of the axes it depends on: all model axes, or all model axes and the curve.
    compute
        Function from the values of these axes (flat arrays of one length, by name) to one flat array for each
        variable. The argument of an axis with a default must have the same default.
    """

    variables: tuple[Variable, ...]
    over: tuple[str, ...]
    compute: Callable[..., Mapping[str, npt.NDArray[Any]]]

    def on(self, axes: Axes) -> Reference:
        """This reference for a kernel that lacks some of the axes with a default."""
        known = {axis.name for axis in axes.declared}
        return replace(self, over=tuple(name for name in self.over if name in known))


NO_AXES = Axes(())


@dataclass(frozen=True)
class Kernel:
    """What a cell computes. `docs/kernels.md` shows how to write a kernel.

    Parameters
    ----------
    name, version
        Identity: a store never mixes two kernels or two versions. Raise the version when results change.
    variables
        What `compute` returns for each cell.
    compute
        `compute(cell, rng) -> Outcome`, a pure function of the cell and its random stream. If it raises, the
        cell is recorded as failed, with its traceback.
    seconds, peak_bytes
        Estimates for one core, as functions of the cell; they set the sizes of tiles and tasks and the
        predicted end. Finite; seconds > 0, bytes >= 0.
    digest
        BLAKE2b digest of the kernel's source: of the module, for a kernel from `--kernel-module`; of the text
        of the function, for a kernel made in Python. Empty for an installed kernel, whose version stands for
        it.
    axes
        Axes of the cells. A kernel that declares none gets from `load_kernel` the axes of the default kernel
        that have no default value, with the references and the check of that kernel.
    references
        Exact values at the points of a grid; see `Reference`.
    dimensions
        Inner dimensions of the variables, with their coordinates.
    options, configure
        A pydantic model of the settings that are constant in a campaign and decide the bits (the table
        `[kernel]` of its file), and a function that returns the kernel for such options. `settings` holds
        their values, as stored.
    check
        Raises ParameterError for a grid with points at which no cell can be computed.
    """

    name: str
    version: int
    variables: tuple[Variable, ...]
    compute: Callable[[Cell, np.random.Generator], Outcome]
    seconds: Callable[[Cell], float]
    peak_bytes: Callable[[Cell], float]
    digest: str = ""
    axes: Axes = NO_AXES
    references: tuple[Reference, ...] = ()
    check: Callable[[Grid], None] | None = None
    dimensions: tuple[Dimension, ...] = ()
    options: type[BaseModel] | None = None
    configure: Callable[[Any], Kernel] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def inner_shape(self, variable: Variable) -> tuple[int, ...]:
        """Shape of one variable in one cell."""
        lengths = {dimension.name: len(dimension.values) for dimension in self.dimensions}
        return tuple(lengths[name] for name in variable.dims)

    def cell_bytes(self) -> int:
        """Bytes of one cell before compression, status included."""
        sizes = (math.prod(self.inner_shape(of)) * np.dtype(of.dtype).itemsize for of in self.variables)
        return sum(sizes) + 1


def check_declaration(kernel: Kernel, source: str) -> None:
    """Refuse an invalid declaration; `source` says where it was made.

    Raises
    ------
    ParameterError
        Names the part of the declaration and states what is accepted.
    """

    def refuse(part: str, value: object, accepted: str) -> ParameterError:
        return ParameterError(f"KERNEL.{part}", value, accepted, f"it is declared in {source}")

    def told(text: object) -> bool:
        return isinstance(text, str) and clean(text, LONGEST_TEXT) == text

    if not isinstance(kernel.name, str) or not re.fullmatch(r"[\w.-]{1,100}", kernel.name):
        raise refuse("name", kernel.name, f"letters, digits, _ . -, at most {LONGEST_NAME}")
    if not isinstance(kernel.version, int) or isinstance(kernel.version, bool) or kernel.version < 1:
        raise refuse("version", kernel.version, "an integer >= 1")
    for dimension in kernel.dimensions:
        numbers = [isinstance(v, int | float) and math.isfinite(v) for v in dimension.values]
        if not dimension.name.isidentifier() or not numbers or not all(numbers):
            raise refuse("dimensions", dimension.name, "a Python name with at least one number")
    variables = kernel.variables
    if not isinstance(variables, tuple) or not variables:
        raise refuse("variables", variables, "a tuple of at least one Variable")
    names: set[str] = set()
    for variable in variables:
        if not isinstance(variable, Variable):
            raise refuse("variables", variable, "a tuple of Variable")
        name = variable.name
        if not isinstance(name, str) or not name.isidentifier() or len(name) > LONGEST_NAME:
            raise refuse("variables", name, f"named by Python identifiers of at most {LONGEST_NAME} letters")
        if name in names:
            raise refuse("variables", name, "of distinct names, but two have this one")
        if unknown := [dim for dim in variable.dims if dim not in {of.name for of in kernel.dimensions}]:
            raise refuse(f"variables, dims of {name},", unknown[0], "one of the kernel's dimensions")
        if variable.dtype not in ACCEPTED:
            raise refuse(f"variables, dtype of {name},", variable.dtype, f"one of {', '.join(ACCEPTED)}")
        for of in ("long_name", "units"):
            if not told(getattr(variable, of)):
                accepted = f"text without control characters, at most {LONGEST_TEXT} characters"
                raise refuse(f"variables, {of} of {name},", getattr(variable, of), accepted)
        _check_range(variable, refuse)
        size = math.prod(kernel.inner_shape(variable)) * np.dtype(variable.dtype).itemsize
        if size > MOST_BYTES:
            raise refuse(f"variables, bytes of {name},", size, f"at most {MOST_BYTES} in a cell")
        names.add(name)
    for part in ("compute", "seconds", "peak_bytes"):
        if not callable(getattr(kernel, part)):
            raise refuse(part, getattr(kernel, part), "a function")


def _check_range(variable: Variable, refuse: Callable[[str, object, str], ParameterError]) -> None:
    try:
        low, high = (float(end) for end in variable.valid_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not low <= high:
        accepted = "two numbers (low, high), low <= high"
        raise refuse(f"variables, valid_range of {variable.name},", variable.valid_range, accepted)
