"""The axes of a kernel: the values that each accepts, the cells, and the random stream of a cell."""

from __future__ import annotations

import keyword
import math
import struct
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError

Scalar: TypeAlias = int | float | str
Cell: TypeAlias = Any
"""One point of a grid: a named tuple with the value on every axis, by axis name, and a last field
`coordinate`: the coordinate of the curve as the campaign gives it (a factor, if the curve is relative to a
threshold), or None for a kernel without a curve."""

Threshold: TypeAlias = Callable[..., npt.NDArray[np.float64]]
"""A function from the model axes (arrays of one length, by name) to the threshold of each model."""

MAX_AXIS = 4096
"""Largest number of values on an axis: one chunk of its coordinate array, so growth rewrites one object."""
DIGITS = 12
"""Significant digits kept of a real coordinate, so that 0.1 and 0.1 + 1e-15 have one random stream."""
MAX_INTEGER = 2**53
_LONGEST = 200  # characters of a str coordinate
_PACKED = {"int64": "<q", "float64": "<d"}
_TAKEN = frozenset(
    {"coordinate", "count", "index", "status", "wanted", "coverage", "n_seeds", "where", "seeds"}
)


@dataclass(frozen=True)
class Axis:
    """One axis of a kernel.

    Parameters
    ----------
    name, long_name, units
        As in the coordinates of the dataset.
    dtype
        "int64", "float64", or "str" for short identifiers.
    role
        "model": constant within a tile. "curve" (at most one): stored in blocks; a campaign may give it
        relative to a threshold. "size" (at most one, int64): each size is stored in a group of its own, since
        costs and numbers of seeds differ by orders of magnitude. "seed" (exactly one, int64).
    least, most, above
        Accepted range of a number, least <= value <= most; with `above`, least < value <= most.
    choices
        Accepted strings; empty accepts any short string.
    default
        Value where a campaign does not name the axis, which is then a constant of the store, not a dimension.
    relative_to
        For a curve: the functions that give the thresholds it can be relative to, by name.
    """

    name: str
    dtype: Literal["int64", "float64", "str"] = "float64"
    role: Literal["model", "curve", "size", "seed"] = "model"
    long_name: str = ""
    units: str = "1"
    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    choices: tuple[str, ...] = ()
    default: Scalar | None = None
    relative_to: Mapping[str, Threshold | None] = field(default_factory=dict, compare=False)

    @property
    def accepted(self) -> str:
        """The accepted values, in words."""
        if self.dtype == "str":
            return f"one of {', '.join(self.choices)}" if self.choices else "short texts"
        kind = "integers" if self.dtype == "int64" else "finite numbers"
        ends = [f"{'>' if self.above else '>='} {self.least:g}"] * math.isfinite(self.least)
        ends += [f"<= {self.most:g}"] * math.isfinite(self.most)
        return " ".join([kind, " and ".join(ends)]).strip()

    def holds(self, value: object) -> bool:
        """Whether this axis accepts a value."""
        if self.dtype == "str":
            known = not self.choices or value in self.choices
            return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LONGEST and known
        if not is_number(value) or (self.dtype == "int64" and value != int(value)):  # type: ignore[call-overload]
            return False
        inside: bool = self.least <= value <= self.most  # type: ignore[operator]
        return inside and not (self.above and value == self.least)

    def canonical(self, value: Any) -> Scalar:
        """An accepted value as it is stored."""
        if self.dtype == "float64":
            return float(f"{value:.{DIGITS}g}")
        return int(value) if self.dtype == "int64" else str(value)

    def values(self, raw: object) -> tuple[Any, ...]:
        """Distinct values in increasing order, from a value, a list or `{ start, stop, num }`.

        Raises
        ------
        ValueError
            States what is accepted.
        """
        spelt = (
            "as a value or a list" if self.dtype == "str" else "as a value, a list or { start, stop, num }"
        )
        if isinstance(raw, Mapping) and self.dtype != "str":
            raw = _range(raw)
        items: list[Any] = list(raw) if isinstance(raw, list | tuple) else [raw]
        if not 1 <= len(items) <= MAX_AXIS:
            raise ValueError(f"1 to {MAX_AXIS} values")
        for item in items:
            if not self.holds(item):
                raise ValueError(f"{self.accepted}, {spelt}; found {item!r}")
        values = sorted({self.canonical(item) for item in items})
        if len(values) != len(items):
            raise ValueError("distinct values")
        return tuple(values)

    def to_json(self) -> dict[str, Any]:
        """The declaration without its functions; infinite bounds are left out."""
        document = {k: v for k, v in asdict(self).items() if k != "relative_to"}
        document = {k: v for k, v in document.items() if not (isinstance(v, float) and math.isinf(v))}
        return document | {"choices": list(self.choices), "relative_to": list(self.relative_to)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Axis:
        """Inverse of `to_json`."""
        plain = {**document, "choices": tuple(document["choices"])}
        return cls(**plain | {"relative_to": dict.fromkeys(document["relative_to"])})


def is_number(item: object) -> bool:
    """Whether this is a finite number below 2^53 in modulus, where integers are exact as floats."""
    return isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < MAX_INTEGER


def _range(raw: Mapping[Any, Any]) -> list[float]:
    keys = {"start", "stop", "num"}
    if set(raw) != keys:
        unknown, missing = set(raw) - keys, keys - set(raw)
        problem = f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(missing)}"
        raise ValueError(f"a range with the keys start, stop, num ({problem})")
    num = raw["num"]
    if not isinstance(num, int) or isinstance(num, bool) or not 1 <= num <= MAX_AXIS:
        raise ValueError(f"a range whose num is an integer from 1 to {MAX_AXIS}")
    if not all(is_number(raw[key]) for key in ("start", "stop")):
        raise ValueError("a range whose start and stop are finite numbers")
    found: list[float] = np.linspace(raw["start"], raw["stop"], num).tolist()
    return found


@dataclass(frozen=True)
class Axes:
    """The axes of a kernel in the order in which they are declared."""

    declared: tuple[Axis, ...]

    def of_role(self, role: str) -> tuple[Axis, ...]:
        """The axes with a given role."""
        return tuple(axis for axis in self.declared if axis.role == role)

    @property
    def curve(self) -> Axis | None:
        """The axis stored in blocks, or None."""
        return next(iter(self.of_role("curve")), None)

    @property
    def size(self) -> Axis | None:
        """The axis whose values are stored in separate groups, or None."""
        return next(iter(self.of_role("size")), None)

    @property
    def seed(self) -> Axis:
        """The axis of realisations."""
        return self.of_role("seed")[0]

    @property
    def required(self) -> Axes:
        """The axes without a default, which every campaign must name."""
        return Axes(tuple(axis for axis in self.declared if axis.default is None))

    def extends(self, other: Axes) -> bool:
        """Whether these are the axes of `other`, with at most some axes with a default added."""
        mine, theirs = (
            {axis.name: (axis.dtype, axis.role, axis.default) for axis in of.declared} for of in (self, other)
        )
        return theirs.items() <= mine.items() and all(
            axis.default is not None for axis in self.declared if axis.name not in theirs
        )

    def __getitem__(self, name: str) -> Axis:
        return next(axis for axis in self.declared if axis.name == name)

    def cell(self, coordinate: Scalar | None = None, **values: Scalar) -> Cell:
        """The cell at the given values. Axes with a default may be left out; so may `coordinate`, if the
        curve is not relative to a threshold."""
        defaults = {axis.name: axis.default for axis in self.declared if axis.default is not None}
        if coordinate is None and self.curve is not None:
            coordinate = values[self.curve.name]
        return cell_type(self)(**defaults | values, coordinate=coordinate)

    def to_json(self) -> list[dict[str, Any]]:
        """The declarations, as stored."""
        return [axis.to_json() for axis in self.declared]

    @classmethod
    def from_json(cls, document: Iterable[Mapping[str, Any]]) -> Axes:
        """Inverse of `to_json`."""
        return cls(tuple(map(Axis.from_json, document)))


@lru_cache(maxsize=64)
def cell_type(axes: Axes) -> Any:
    """The named-tuple type of the cells on these axes; its attribute `axes` is `axes`."""
    names = [*(axis.name for axis in axes.declared), "coordinate"]
    return type("Cell", (namedtuple("Cell", names),), {"__slots__": (), "axes": axes})


def cell_rng(entropy: int, cell: Cell) -> np.random.Generator:
    """The random stream of one cell, from the campaign's entropy and the cell's coordinates alone.

    The bits are the same on any worker, in any order, before and after an extension. The spawn key consists
    of the coordinates as little-endian 32-bit words: the model axes and the curve in declared order, then
    size and seed. Integers are packed as int64, real numbers as IEEE float64, strings as their length and
    UTF-8 bytes. A coordinate on an axis with a default is packed only where it differs from the default,
    after all the others and preceded by the index of its axis. Hence adding such an axis to a kernel, after
    the others of its role, changes no stream, and two different cells never have the same key.
    """
    axes: Axes = cell.axes
    plain, moved = [], []
    for place, axis in enumerate(axes.declared):
        value = cell.coordinate if axis.role == "curve" else getattr(cell, axis.name)
        if axis.default is None:
            order = {"size": 1, "seed": 2}.get(axis.role, 0)
            plain.append((order, place, packed(axis, value)))
        elif value != axis.default:
            moved.append(struct.pack("<q", place) + packed(axis, value))
    key = b"".join(part for _, _, part in sorted(plain)) + b"".join(moved)
    words = struct.unpack(f"<{len(key) // 4}I", key)
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=words))


def packed(axis: Axis, value: Any) -> bytes:
    """A coordinate as whole 32-bit words."""
    if axis.dtype != "str":
        return struct.pack(_PACKED[axis.dtype], value)
    text: bytes = value.encode()
    return struct.pack("<q", len(text)) + text + b"\0" * (-len(text) % 4)


def check_axes(axes: Axes) -> None:
    """Refuse axes that no store can have.

    Raises
    ------
    ParameterError
        Names the axis and states what is accepted.
    """
    names = [axis.name for axis in axes.declared]
    for axis in axes.declared:
        told = f"axes, {axis.name}"
        name = axis.name
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name[0] == "_":
            raise ParameterError("KERNEL.axes", name, "a valid Python variable name without a leading _")
        if name in _TAKEN or names.count(name) > 1:
            raise ParameterError(
                "KERNEL.axes", name, f"distinct names, none of them {', '.join(sorted(_TAKEN))}"
            )
        if axis.dtype not in ("int64", "float64", "str"):
            raise ParameterError(f"KERNEL.{told}, dtype", axis.dtype, "int64, float64 or str")
        if axis.role not in ("model", "curve", "size", "seed"):
            raise ParameterError(f"KERNEL.{told}, role", axis.role, "model, curve, size or seed")
        if axis.role in ("size", "seed") and axis.dtype != "int64":
            raise ParameterError(f"KERNEL.{told}, dtype", axis.dtype, "int64 for a size or a seed")
        if axis.role != "model" and axis.default is not None:
            raise ParameterError(
                f"KERNEL.{told}, default", axis.default, "absent: only axes of role model may have one"
            )
        if axis.role == "curve" and axis.dtype == "str":
            raise ParameterError(f"KERNEL.{told}, dtype", axis.dtype, "a number, for a curve")
        if axis.default is not None and not axis.holds(axis.default):
            raise ParameterError(f"KERNEL.{told}, default", axis.default, axis.accepted)
    for role, least, most in (("curve", 0, 1), ("size", 0, 1), ("seed", 1, 1)):
        count = len(axes.of_role(role))
        if not least <= count <= most:
            accepted = "exactly one" if least else "at most one"
            raise ParameterError("KERNEL.axes", f"{count} of role {role}", f"{accepted} axis of role {role}")
