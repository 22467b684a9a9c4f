"""Tiles (Zarr chunks, the units of writing and of the ledger) and tasks (bundles of whole tiles).

A tile holds the cells of one size and one model, a block of the curve and a block of seeds. Sets of cells
within a tile are integers used as bit masks: cell (curve slot i, seed slot j) is bit i * seed_block + j.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bendscape.sweep.campaign.axes import Axes, Cell, Scalar, cell_type
from bendscape.sweep.campaign.grid import NO_SIZE, Grid, units_of
from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.campaign.loading import default_kernel

TILE_SECONDS = 2.0  # work that a kill can cost; long compared with a write (tens of milliseconds)
TILE_SECONDS_RANGE = (0.1, 300.0)  # the upper limit: how long a clean stop may wait
TILE_CELLS = 4096
LEAST = 8  # fewest seeds and curve points in a tile of cheap cells, even if fewer are wanted now


class TileKey(NamedTuple):
    """The size of a tile and its chunk index along each dimension of storage."""

    size: int
    chunk: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.size}/" + ".".join(map(str, self.chunk))

    @classmethod
    def parse(cls, text: str) -> TileKey:
        """Inverse of `str` and of `Layout.name`."""
        group, _, chunk = text.partition("/")
        size = group.rpartition("=")[2]
        return cls(int(size) if size.isdecimal() else NO_SIZE, tuple(map(int, chunk.split("."))))


@dataclass(frozen=True)
class SizeLayout:
    """Storage of one size: number of seeds, and the curve and seed blocks of a tile, which never change."""

    seeds: int
    curve_block: int
    seed_block: int


@dataclass(frozen=True)
class Layout:
    """Where every cell is stored. Dimensions are append-only: a value keeps its index for good.

    `dims` holds the values of the model dimensions and, last, of the curve, in storage order; `axes` all axes
    of the kernel; `constants` the values of the axes that are not dimensions.
    """

    axes: Axes
    dims: Mapping[str, tuple[Scalar, ...]]
    constants: Mapping[str, Scalar]
    around: str | None
    curve: str | None
    sizes: Mapping[int, SizeLayout]

    @classmethod
    def of(
        cls, grid: Grid, kernel: Kernel, base: Layout | None = None, tile_seconds: float = TILE_SECONDS
    ) -> Layout:
        """The layout for `grid`: a new one, or `base` with the new values appended.

        A tile of a new size has as many cells as take about `tile_seconds`; tiles of `base` do not change.
        """
        sizes = dict(base.sizes) if base else {}
        for size in grid.sizes:
            if size in sizes:
                sizes[size] = replace(sizes[size], seeds=max(sizes[size].seeds, grid.seeds[size]))
            else:
                sizes[size] = _blocks(grid, kernel, size, tile_seconds)
        kept = base.dims if base else dict.fromkeys(grid.dims, ())
        dims = {
            name: kept[name] + tuple(value for value in values if value not in set(kept[name]))
            for name, values in grid.storage_order.items()
        }
        return cls(grid.axes, dims, grid.constants, grid.around, grid.curve, sizes)

    def on(self, axes: Axes) -> Layout:
        """This layout on the present axes of its kernel: an axis added since takes its default value.

        If `axes` does not extend the axes of this layout, the layout is returned unchanged.
        """
        if not axes.extends(self.axes):
            return self
        unknown = [axis for axis in axes.declared if axis.default is not None and axis.name not in self.dims]
        defaults = {axis.name: axis.default for axis in unknown if axis.default is not None}
        return replace(self, axes=axes, constants={**defaults, **self.constants})

    @property
    def models(self) -> dict[str, tuple[Scalar, ...]]:
        """The dimensions except the curve."""
        return {name: values for name, values in self.dims.items() if name != self.curve}

    def group(self, size: int) -> str:
        """The Zarr group that holds one size."""
        return "cells" if self.axes.size is None else f"{self.axes.size.name}={size}"

    def path(self, key: TileKey, variable: str, inner: int = 0) -> str:
        """Path of the chunk with one variable of a tile; `inner` is its number of inner dimensions."""
        return f"{self.group(key.size)}/{variable}/c/" + "/".join(map(str, (*key.chunk, *[0] * inner)))

    def name(self, key: TileKey) -> str:
        """The name of a tile in messages."""
        return f"{self.group(key.size)}/" + ".".join(map(str, key.chunk))

    @property
    def cell_dims(self) -> tuple[str, ...]:
        """Names of the dimensions of the arrays of cells."""
        return (*self.dims, self.axes.seed.name)

    def shape(self, size: int) -> tuple[int, ...]:
        """Shape of the arrays of one size."""
        return (*map(len, self.dims.values()), self.sizes[size].seeds)

    def chunks(self, size: int) -> tuple[int, ...]:
        """Shape of a chunk, and so of a tile, in the arrays of one size."""
        blocks = self.sizes[size]
        curve = () if self.curve is None else (blocks.curve_block,)
        return (*(1 for _ in self.models), *curve, blocks.seed_block)

    def tile_shape(self, size: int) -> tuple[int, ...]:
        """Number of tiles along each dimension of one size, wanted or not."""
        pairs = zip(self.shape(size), self.chunks(size), strict=True)
        return tuple(math.ceil(length / chunk) for length, chunk in pairs)

    def tile_cells(self, size: int) -> int:
        """Number of cells in a full tile."""
        return self.sizes[size].curve_block * self.sizes[size].seed_block

    def region(self, key: TileKey) -> tuple[slice, ...]:
        """The slices of the arrays that a tile covers, clipped to the present length of the dimensions."""
        return tuple(
            slice(index * chunk, min((index + 1) * chunk, length))
            for index, chunk, length in zip(
                key.chunk, self.chunks(key.size), self.shape(key.size), strict=True
            )
        )

    def slots(self, key: TileKey) -> tuple[int, int]:
        """Number of curve points and of seeds in a tile, clipped likewise."""
        *rest, seed = self.region(key)
        curve = rest[-1].stop - rest[-1].start if self.curve is not None else 1
        return curve, seed.stop - seed.start

    def model(self, key: TileKey) -> dict[str, Scalar]:
        """The values of all model axes in a tile, by name."""
        return {
            **self.constants,
            **{name: values[at] for (name, values), at in zip(self.models.items(), key.chunk, strict=False)},
        }

    def coordinates(self, key: TileKey) -> tuple[Scalar | None, ...]:
        """Coordinates of the curve points of a tile."""
        if self.curve is None:
            return (None,)
        return self.dims[self.curve][self.region(key)[len(self.models)]]

    def curve_values(self, key: TileKey) -> NDArray[np.float64]:
        """Absolute values of the curve points of a tile, computed from the threshold."""
        model = {name: np.array([value]) for name, value in self.model(key).items()}
        unit = units_of(self.axes, self.around, model)
        return np.asarray(np.array(self.coordinates(key), dtype=np.float64) * unit)

    def cells(
        self, key: TileKey, mask: int, curve: NDArray[np.float64] | None = None
    ) -> Iterator[tuple[int, tuple[int, int], Cell]]:
        """The cells of a mask: the bit, the index (curve point, seed) within the tile, and the cell.

        `curve` gives the absolute values of the tile's curve points, if the store has them.
        """
        seed_block = self.sizes[key.size].seed_block
        made, fixed, coordinates = cell_type(self.axes), self.model(key), self.coordinates(key)
        if self.axes.size is not None:
            fixed[self.axes.size.name] = key.size
        if curve is None and self.curve is not None:
            curve = self.curve_values(key)
        first = key.chunk[-1] * seed_block
        while mask:
            low = mask & -mask
            mask ^= low
            bit = low.bit_length() - 1
            i, j = divmod(bit, seed_block)
            fixed[self.axes.seed.name] = first + j
            if curve is not None and self.axes.curve is not None:
                fixed[self.axes.curve.name] = float(curve[i])
            yield bit, (i, j), made(**fixed, coordinate=coordinates[i])

    def place(self, key: TileKey, bit: int) -> dict[str, Any]:
        """The coordinates that identify a cell of a tile: one on every dimension, with size and seed."""
        i, j = divmod(bit, self.sizes[key.size].seed_block)
        found: dict[str, Any] = {name: self.model(key)[name] for name in self.models}
        if self.curve is not None:
            found[self.curve] = self.coordinates(key)[i]
        if self.axes.size is not None:
            found[self.axes.size.name] = key.size
        return found | {"seed": key.chunk[-1] * self.sizes[key.size].seed_block + j}

    def values(self, cell: Cell) -> dict[str, Any]:
        """The values of a cell by axis name, with the coordinate of a relative curve."""
        found = {name: value for name, value in cell._asdict().items() if name != "coordinate"}
        return found if self.curve is None else {**found, self.curve: cell.coordinate}

    def beyond(self, grid: Grid) -> str:
        """The values of this layout that a grid does not name, in words; empty if it names them all."""
        named: dict[str, Any] = dict(grid.dims)
        missing = {name: sorted(set(values) - set(named[name])) for name, values in self.dims.items()}
        if self.axes.size is not None:
            missing[self.axes.size.name] = sorted(set(self.sizes) - set(grid.sizes))
        words = [
            f"{name} = {', '.join(map(coordinate_in_words, values))}"
            for name, values in missing.items()
            if values
        ]
        seeds = [(size, grid.seeds[size], self.sizes[size].seeds) for size in grid.sizes]
        at = "" if self.axes.size is None else f" of {self.axes.size.name} = "
        words += [f"seeds {n} to {last - 1}{at}{size if at else ''}" for size, n, last in seeds if last > n]
        return "; ".join(words)

    def to_json(self) -> dict[str, Any]:
        """The document stored in the root attributes."""
        return {
            "axes": self.axes.to_json(),
            "dims": {name: list(values) for name, values in self.dims.items()},
            "constants": dict(self.constants),
            "around": self.around,
            "curve": self.curve,
            "sizes": {str(size): list(vars(blocks).values()) for size, blocks in self.sizes.items()},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Layout:
        """Inverse of `to_json`. Also reads the layout of version 2, which has the axes of the default kernel.

        The functions of thresholds cannot be stored. They are those of the default kernel where the axes are
        the same; see also `on`.
        """
        sizes = {int(size): SizeLayout(*blocks) for size, blocks in document["sizes"].items()}
        around, today = document["around"], default_kernel().axes
        default = today.required
        if "axes" not in document:
            values = [tuple(v) for k, v in document.items() if k not in ("sizes", "around")]
            names = [axis.name for axis in default.declared if axis.role in ("model", "curve")]
            dims, curve = dict(zip(names, values, strict=False)), names[-1]
            if around is not None:
                dims = {(f"{name}_factor" if name == curve else name): v for name, v in dims.items()}
            return cls(default, dims, {}, around, list(dims)[-1], sizes)
        axes = Axes.from_json(document["axes"])
        axes = next((of for of in (today, default) if of.to_json() == axes.to_json()), axes)
        dims = {name: tuple(values) for name, values in document["dims"].items()}
        return cls(axes, dims, document["constants"], around, document["curve"], sizes)


def coordinate_in_words(value: Scalar) -> str:
    """A coordinate for messages: a string as it is, a number to 12 digits."""
    return value if isinstance(value, str) else f"{value:.12g}"


def _blocks(grid: Grid, kernel: Kernel, size: int, tile_seconds: float) -> SizeLayout:
    # The most expensive cell of this size decides. Seeds first, so that points of a curve stay independent.
    seconds = max(kernel.seconds(cell) for cell in dearest(grid, size))
    cells = max(1, min(TILE_CELLS, int(tile_seconds / max(seconds, 1e-9))))
    seeds = grid.seeds[size]
    # Otherwise a first trial with a single cell would fix tiles of one cell for the whole store.
    least = min(LEAST, cells // LEAST)
    seed_block = max(_even(seeds, cells), least)
    if grid.curve is None:
        return SizeLayout(seeds, 1, seed_block)
    places = max(1, cells // seed_block)
    length = len(grid.dims[grid.curve])
    return SizeLayout(seeds, max(_even(length, places), min(places, least)), seed_block)


def dearest(grid: Grid, size: int) -> Iterator[Cell]:
    """For each model, the cell with the largest coordinate on the curve and the first seed."""
    axes, models = grid.axes, {name: array.reshape(-1) for name, array in grid.models.items()}
    fixed: dict[str, Any] = {axes.seed.name: 0, "coordinate": None}
    if axes.size is not None:
        fixed[axes.size.name] = size
    if axes.curve is not None and grid.curve is not None:
        models[axes.curve.name] = grid.curve_values[..., -1].reshape(-1)
        fixed["coordinate"] = grid.dims[grid.curve][-1]
    made, columns = cell_type(axes), (array.tolist() for array in models.values())
    for values in zip(*columns, strict=True) if models else [()]:
        yield made(**dict(zip(models, values, strict=True)), **fixed)


def _even(length: int, block: int) -> int:
    # Length of the blocks when `length` is cut into nearly equal parts of at most `block`.
    return math.ceil(length / math.ceil(length / block))


class Tile(NamedTuple):
    """A tile, the mask of its wanted cells, and their estimated seconds."""

    key: TileKey
    mask: int
    seconds: float


class Task(NamedTuple):
    """A bundle of whole tiles that one worker computes in one call."""

    tiles: tuple[Tile, ...]

    @property
    def seconds(self) -> float:
        """Estimated seconds on one core."""
        return sum(tile.seconds for tile in self.tiles)

    @property
    def size(self) -> int:
        """The size of the cells; all tiles of a task have the same."""
        return self.tiles[0].key.size

    def within(self, seconds: float, pace: float) -> Task:
        """The first tiles that together take at most `seconds`, with estimates times `pace`; at least one."""
        ends = accumulate(pace * tile.seconds for tile in self.tiles)
        return Task(self.tiles[: max(1, sum(end <= seconds for end in ends))])


def bundle(tiles: Iterable[Tile], seconds: float, correction: Callable[[int], float]) -> Iterator[Task]:
    """Pack consecutive tiles of one size into tasks of about `seconds`, with costs times
    `correction(size)`."""
    pack: list[Tile] = []
    total = 0.0
    for tile in tiles:
        cost = tile.seconds * correction(tile.key.size)
        if pack and (total + cost > seconds or tile.key.size != pack[0].key.size):
            yield Task(tuple(pack))
            pack, total = [], 0.0
        pack.append(tile)
        total += cost
    if pack:
        yield Task(tuple(pack))
