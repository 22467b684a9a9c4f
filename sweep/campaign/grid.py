"""The grid of a campaign: its axes, the condition `where`, curves relative to a threshold, and how many seeds
each point has."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Axes, Scalar

NO_SIZE = 0
"""The size recorded for a kernel without a size axis."""

_WHERE_NODES = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.Lt, ast.LtE,
    ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod, ast.FloorDiv,
    ast.Name, ast.Load, ast.Constant,
)  # fmt: skip


def check_where(expression: object, axes: Axes) -> str:
    """Validate a condition: arithmetic and comparisons of the axes, and nothing that could run code.

    Raises
    ------
    ValueError
        States what is accepted.
    """
    if not isinstance(expression, str) or len(expression) > 1000:
        raise ValueError("a condition in at most 1000 characters, such as 'p >= p_star'")
    names = [axis.name for axis in axes.declared if axis.role != "seed"]
    texts = {axis.name for axis in axes.declared if axis.dtype == "str"}
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"a condition such as '{(names or ['1'])[0]} >= 1' ({error.msg})") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and any(_is_text(part, texts) for part in ast.walk(node)):
            raise ValueError("strings used only in comparisons, such as rule == 'hebb'")
        if not isinstance(node, _WHERE_NODES):
            raise ValueError(f"numbers, comparisons, + - * / % //, and, or, not; found {type(node).__name__}")
        if isinstance(node, ast.Name) and node.id not in names:
            raise ValueError(f"the names {', '.join(names)}; found {node.id!r}")
        if isinstance(node, ast.Constant) and not isinstance(
            node.value, (int, float, str) if texts else (int, float)
        ):
            raise ValueError(f"numbers; found {node.value!r}")
    return expression


def _is_text(node: ast.AST, texts: set[str]) -> bool:
    return (isinstance(node, ast.Constant) and isinstance(node.value, str)) or (
        isinstance(node, ast.Name) and node.id in texts
    )


def curve_dim(axes: Axes, around: str | None) -> str | None:
    """Name of the dimension that the curve has in a store, or None without a curve."""
    if axes.curve is None:
        return None
    return axes.curve.name if around is None else f"{axes.curve.name}_factor"


def units_of(axes: Axes, around: str | None, values: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """The factor that turns the coordinate of the curve into its value, for models given as flat arrays.

    1, or the threshold that the curve is relative to.

    Raises
    ------
    ParameterError
        The threshold is not positive, or the kernel that defines it is not installed.
    """
    (length,) = {len(array) for array in values.values()} or {1}
    if around is None or axes.curve is None:
        return np.ones(length)
    threshold = axes.curve.relative_to[around]
    parameter = f"grid.{axes.curve.name}.around"
    if threshold is None:
        raise ParameterError(parameter, around, "a threshold of an installed kernel", "install the kernel")
    units = np.asarray(threshold(**values), dtype=np.float64)
    if not (units > 0).all():
        at = int(np.flatnonzero(~(units > 0))[0])
        model = ", ".join(f"{name} = {array[at]}" for name, array in values.items())
        raise ParameterError(
            parameter, around, f"a threshold > 0; it is {units[at]:g} for {model}",
            f"give {axes.curve.name} itself",
        )  # fmt: skip
    return units


@dataclass(frozen=True)
class Part:
    """A table of a campaign file, `[grid]` or one of `[[more]]`: a product of values at some sizes, where a
    condition holds, with a number of seeds for each size."""

    values: Mapping[str, tuple[Scalar, ...]]
    sizes: tuple[int, ...]
    seeds: Mapping[int, int]
    where: str | None = None


@dataclass(frozen=True)
class Grid:
    """The axes of a campaign: the values of the model axes and of the curve that it names, by name.

    With `around`, the values of the curve are multiples of that threshold. `constants` are the axes that the
    campaign leaves at their defaults. `stored` are the absolute values of the curve in an existing store;
    they replace those computed from the threshold.

    A campaign of several `parts` wants their union; `values`, `sizes` and `seeds` then span it, and `counts`
    says what is wanted at each point. Without parts every point that meets `where` is wanted with all seeds.
    """

    axes: Axes
    values: Mapping[str, tuple[Scalar, ...]]
    around: str | None
    sizes: tuple[int, ...]
    seeds: dict[int, int]
    where: str | None = None
    stored: NDArray[np.float64] | None = field(default=None, compare=False)
    parts: tuple[Part, ...] = ()

    @classmethod
    def union(cls, axes: Axes, around: str | None, parts: Sequence[Part]) -> Grid:
        """The grid of one part, or the union of several; a point in several has the most seeds of them."""
        first, *more = parts
        if not more:
            return cls(axes, first.values, around, first.sizes, dict(first.seeds), first.where)
        values = {
            name: tuple(sorted({value for part in parts for value in part.values[name]}))
            for name in first.values
        }
        seeds: dict[int, int] = {}
        for part in parts:
            for size, count in part.seeds.items():
                seeds[size] = max(count, seeds.get(size, 0))
        return cls(
            axes, values, around, tuple(sorted(seeds)), dict(sorted(seeds.items())), first.where,
            parts=tuple(parts),
        )  # fmt: skip

    @property
    def constants(self) -> dict[str, Scalar]:
        """The axes left at their defaults, by name."""
        return {
            axis.name: axis.default
            for axis in self.axes.declared
            if axis.default is not None and axis.name not in self.values
        }

    @property
    def curve(self) -> str | None:
        """Name of the curve's dimension, the last of `dims`."""
        return curve_dim(self.axes, self.around)

    @property
    def dims(self) -> dict[str, tuple[Scalar, ...]]:
        """The values along each dimension: the model axes in declared order, then the curve."""
        named = [axis for axis in self.axes.of_role("model") if axis.name in self.values]
        dims = {axis.name: self.values[axis.name] for axis in named}
        if self.curve is not None and self.axes.curve is not None:
            dims[self.curve] = self.values[self.axes.curve.name]
        return dims

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid of points, over `dims`."""
        return tuple(map(len, self.dims.values()))

    @cached_property
    def models(self) -> dict[str, NDArray[Any]]:
        """The values of all model axes, constants included, by name, over the model dimensions."""
        named = {k: np.asarray(v) for k, v in self.dims.items() if k != self.curve}
        found = dict(zip(named, np.meshgrid(*named.values(), indexing="ij"), strict=True)) if named else {}
        shape = tuple(map(len, named.values()))
        for axis in self.axes.of_role("model"):
            if axis.name in self.constants:
                found[axis.name] = np.broadcast_to(np.asarray(self.constants[axis.name]), shape)
        return found

    @cached_property
    def curve_values(self) -> NDArray[np.float64]:
        """Absolute values of the curve, over `dims`; ones for a kernel without a curve."""
        if self.stored is not None:
            return self.stored
        shape = next(iter(self.models.values())).shape if self.models else ()
        if self.curve is None:
            return np.ones(shape)
        flat = {name: array.reshape(-1) for name, array in self.models.items()}
        units = units_of(self.axes, self.around, flat).reshape(shape)
        factors = np.asarray(self.dims[self.curve], dtype=np.float64)
        return np.asarray(factors * units[..., np.newaxis])

    @property
    def storage_order(self) -> dict[str, tuple[Scalar, ...]]:
        """The values of `dims` in the order in which a new store holds them: points that one part names lie
        side by side along the curve, so that they share tiles."""
        dims = self.dims
        if self.curve is not None and self.axes.curve is not None and self.parts:
            name = self.axes.curve.name
            dims[self.curve] = tuple(dict.fromkeys(v for part in self.parts for v in part.values[name]))
        return dims

    def wanted(self, size: int) -> NDArray[np.bool_]:
        """Whether the campaign wants any seed of each point at one size, over `dims`."""
        return np.asarray(self.counts(size) > 0)

    def counts(self, size: int) -> NDArray[np.int64]:
        """Number of seeds that the campaign wants at each point of one size, over `dims`: seeds 0 to this
        number - 1, none where it is 0."""
        if size not in self._counts:
            self._counts[size] = self._counted(size)
        return self._counts[size]

    @cached_property
    def _counts(self) -> dict[int, NDArray[np.int64]]:
        return {}

    def _counted(self, size: int) -> NDArray[np.int64]:
        if not self.parts:
            places = [np.arange(n) for n in self.shape]
            return np.where(self._keep(size, self.where, places), self.seeds[size], 0)
        found = np.zeros(self.shape, dtype=np.int64)
        for part, places in zip(self.parts, self._places, strict=True):
            if size in part.sizes:
                keep = self._keep(size, part.where, places)
                at = np.ix_(*places)
                found[at] = np.maximum(found[at], np.where(keep, part.seeds[size], 0))
        return found

    @cached_property
    def _places(self) -> list[list[NDArray[np.intp]]]:
        # The index of each value of each part along each dimension.
        names = [name if name in self.values else self._curve_name for name in self.dims]
        at = {name: {value: k for k, value in enumerate(self.values[name])} for name in names}
        return [
            [np.array([at[name][v] for v in part.values[name]], dtype=np.intp) for name in names]
            for part in self.parts
        ]

    @property
    def _curve_name(self) -> str:
        return "" if self.axes.curve is None else self.axes.curve.name

    def _keep(self, size: int, where: str | None, places: list[NDArray[np.intp]]) -> NDArray[np.bool_]:
        shape = tuple(map(len, places))
        if where is None:
            return np.ones(shape, dtype=bool)
        code = compile(ast.parse(where, mode="eval"), "where", "eval")
        names, columns = zip(*self.points(size, places).items(), strict=True)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        try:
            kept = [
                bool(eval(code, {"__builtins__": {}}, dict(zip(names, row, strict=True)))) for row in rows
            ]
        except (ArithmeticError, TypeError):
            raise ParameterError(
                "grid.where", where, "a condition defined on every point of the grid"
            ) from None
        return np.array(kept, dtype=bool).reshape(shape)

    def points(self, size: int, places: list[NDArray[np.intp]] | None = None) -> dict[str, NDArray[Any]]:
        """The values of every axis but the seed at all points, or at an outer product of `places` along each
        dimension, flattened in the order of `dims`."""

        def picked(array: NDArray[Any]) -> NDArray[Any]:
            return (array[np.ix_(*places)] if places else array).reshape(-1)

        long = self.curve is not None
        models = {name: array[..., np.newaxis] if long else array for name, array in self.models.items()}
        found = {name: np.broadcast_to(array, self.shape) for name, array in models.items()}
        found = {name: picked(array) for name, array in found.items()}
        if self.axes.curve is not None:
            found[self.axes.curve.name] = picked(self.curve_values)
        if self.axes.size is not None:
            count = math.prod(self.shape if places is None else map(len, places))
            found[self.axes.size.name] = np.full(count, size)
        return found

    def holds(self, coordinates: Mapping[str, Any]) -> bool:
        """Whether the campaign wants a cell, given its coordinates on all dimensions, its size and its
        seed."""
        size = NO_SIZE if self.axes.size is None else coordinates[self.axes.size.name]
        if size not in self.sizes:
            return False
        if any(coordinates[name] not in values for name, values in self.dims.items()):
            return False
        at = tuple(values.index(coordinates[name]) for name, values in self.dims.items())
        return bool(coordinates["seed"] < self.counts(size)[at])

    def cell_count(self) -> int:
        """Number of cells that the campaign wants, summed over sizes."""
        return sum(int(self.counts(size).sum()) for size in self.sizes)
