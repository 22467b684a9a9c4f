"""Tiles: the Zarr chunk, the unit of write and of the ledger; and tasks, bundles of whole tiles.

A tile holds the cells of one (N, p, p_star, a), a block of alpha and a block of seeds. Sets of cells
within a tile are integers used as bit masks: cell (alpha slot i, seed slot j) is bit i * seed_block + j.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bendscape.sweep.campaign.grid import Cell, Grid, alpha_dim, alpha_units
from bendscape.sweep.campaign.kernel import Kernel

TILE_SECONDS = 2.0  # a tile is what a kill can cost, and what its write (tens of milliseconds) is spread over
TILE_CELLS = 4096
LEAST = 8  # seeds, and alphas, of a tile of cheap cells, even where fewer are asked for at first


class TileKey(NamedTuple):
    """Storage indices of a tile: its size N and its chunk on (p, p_star, a, alpha, seed)."""

    N: int
    p: int
    p_star: int
    a: int
    alpha: int
    seed: int

    def __str__(self) -> str:
        return f"N={self.N}/" + ".".join(map(str, self[1:]))

    def path(self, variable: str) -> str:
        """The chunk that keeps one variable of the tile."""
        return f"N={self.N}/{variable}/c/" + "/".join(map(str, self[1:]))

    @classmethod
    def parse(cls, text: str) -> TileKey:
        """Inverse of `str`."""
        size, _, chunk = text.removeprefix("N=").partition("/")
        return cls(int(size), *map(int, chunk.split(".")))


@dataclass(frozen=True)
class SizeLayout:
    """Storage of one size: seeds stored, and the alpha and seed blocks of a tile (fixed for good)."""

    seeds: int
    alpha_block: int
    seed_block: int


@dataclass(frozen=True)
class Layout:
    """Where every cell lies in storage. Axes are append-only: a value never moves once it has an index."""

    p: tuple[int, ...]
    p_star: tuple[int, ...]
    a: tuple[float, ...]
    alpha: tuple[float, ...]
    around: str | None
    sizes: dict[int, SizeLayout]

    @classmethod
    def of(cls, grid: Grid, kernel: Kernel, base: Layout | None = None) -> Layout:
        """The layout that holds `grid`: a new one, or `base` with what is new appended."""
        empty = cls((), (), (), (), grid.around, {})
        base = base or empty
        sizes = dict(base.sizes)
        for size in grid.N:
            if size in sizes:
                sizes[size] = replace(sizes[size], seeds=max(sizes[size].seeds, grid.seeds[size]))
            else:
                sizes[size] = _blocks(grid, kernel, size)
        return cls(
            p=base.p + tuple(v for v in grid.p if v not in base.p),
            p_star=base.p_star + tuple(v for v in grid.p_star if v not in base.p_star),
            a=base.a + tuple(v for v in grid.a if v not in base.a),
            alpha=base.alpha + tuple(v for v in grid.alpha if v not in base.alpha),
            around=grid.around,
            sizes=sizes,
        )

    @property
    def alpha_dim(self) -> str:
        """Name of the alpha dimension."""
        return alpha_dim(self.around)

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Values in storage order, by dimension name, of the axes that all sizes share."""
        return {"p": self.p, "p_star": self.p_star, "a": self.a, self.alpha_dim: self.alpha}

    def shape(self, N: int) -> tuple[int, ...]:
        """Shape of the arrays of one size."""
        return (len(self.p), len(self.p_star), len(self.a), len(self.alpha), self.sizes[N].seeds)

    def chunks(self, N: int) -> tuple[int, ...]:
        """Chunk, that is tile, shape of the arrays of one size."""
        return (1, 1, 1, self.sizes[N].alpha_block, self.sizes[N].seed_block)

    def tile_shape(self, N: int) -> tuple[int, ...]:
        """Tiles along each dimension of the arrays of one size, wanted or not."""
        pairs = zip(self.shape(N), self.chunks(N), strict=True)
        return tuple(math.ceil(length / chunk) for length, chunk in pairs)

    def region(self, key: TileKey) -> tuple[slice, ...]:
        """The part of the arrays that a tile covers, cut at the present end of the axes."""
        return tuple(
            slice(index * chunk, min((index + 1) * chunk, length))
            for index, chunk, length in zip(key[1:], self.chunks(key.N), self.shape(key.N), strict=True)
        )

    def cells(
        self, key: TileKey, mask: int, alphas: NDArray[np.float64] | None = None
    ) -> Iterator[tuple[int, tuple[int, int], Cell]]:
        """The cells of a mask: the bit, (alpha slot, seed slot) within the tile, and the cell.

        `alphas` are those of the tile as a store has them.
        """
        size = self.sizes[key.N]
        p, p_star, a = self.p[key.p], self.p_star[key.p_star], self.a[key.a]
        first = key.alpha * size.alpha_block
        if alphas is None:
            unit = alpha_units(self.around, p, p_star, a)
            alphas = unit * np.array(self.alpha[first : first + size.alpha_block])
        while mask:
            low = mask & -mask
            mask ^= low
            bit = low.bit_length() - 1
            i, j = divmod(bit, size.seed_block)
            factor = self.alpha[first + i]
            seed = key.seed * size.seed_block + j
            yield bit, (i, j), Cell(p, p_star, a, float(alphas[i]), key.N, seed, factor)

    def beyond(self, grid: Grid) -> str:
        """The values that a grid does not name, axis by axis, in words; empty where it names them all."""
        named = {"p": grid.p, "p_star": grid.p_star, "a": grid.a, grid.alpha_dim: grid.alpha}
        missing = {name: sorted(set(values) - set(named[name])) for name, values in self.axes.items()}
        missing["N"] = sorted(set(self.sizes) - set(grid.N))
        words = [
            f"{name} = {', '.join(f'{v:.12g}' for v in values)}" for name, values in missing.items() if values
        ]
        seeds = [(N, grid.seeds[N], self.sizes[N].seeds) for N in grid.N]
        words += [f"seeds {n} to {last - 1} of N = {N}" for N, n, last in seeds if last > n]
        return "; ".join(words)

    def to_json(self) -> dict[str, Any]:
        """As stored in the root attributes."""
        sizes = {str(size): list(vars(blocks).values()) for size, blocks in self.sizes.items()}
        return {**{k: v for k, v in vars(self).items() if k != "sizes"}, "sizes": sizes}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Layout:
        """Inverse of `to_json`."""
        axes = {name: tuple(document[name]) for name in ("p", "p_star", "a", "alpha")}
        sizes = {int(size): SizeLayout(*blocks) for size, blocks in document["sizes"].items()}
        return cls(**axes, around=document["around"], sizes=sizes)


def _blocks(grid: Grid, kernel: Kernel, size: int) -> SizeLayout:
    # The dearest cell of this size decides; seeds first, so that the points of a curve stay independent.
    alpha = max(grid.alpha)
    seconds = max(
        kernel.seconds(Cell(grid.p[at[0]], m.p_star, m.a, alpha * float(grid.units[at]), size, 0, alpha))
        for at, m in grid.models()
    )
    cells = max(1, min(TILE_CELLS, int(TILE_SECONDS / max(seconds, 1e-9))))
    seeds = grid.seeds[size]
    # A first try of one cell would otherwise bind all that grows from it to tiles of one cell.
    least = min(LEAST, cells // LEAST)
    seed_block = max(_even(seeds, cells), least)
    alphas = max(1, cells // seed_block)
    return SizeLayout(seeds, max(_even(len(grid.alpha), alphas), min(alphas, least)), seed_block)


def _even(length: int, block: int) -> int:
    # The block length that cuts `length` into equal parts of at most `block`.
    return math.ceil(length / math.ceil(length / block))


class Tile(NamedTuple):
    """A tile, the cells that are wanted of it, and their estimated seconds."""

    key: TileKey
    mask: int
    seconds: float


class Task(NamedTuple):
    """A bundle of whole tiles, computed by one worker in one go."""

    tiles: tuple[Tile, ...]

    @property
    def seconds(self) -> float:
        """Estimated seconds on one core."""
        return sum(tile.seconds for tile in self.tiles)

    @property
    def N(self) -> int:
        """The size of its cells: a task holds tiles of one size."""
        return self.tiles[0].key.N


def bundle(tiles: Iterable[Tile], seconds: float, correction: Callable[[int], float]) -> Iterator[Task]:
    """Pack consecutive tiles of one size into tasks of about `seconds`, estimates times `correction(N)`."""
    pack: list[Tile] = []
    total = 0.0
    for tile in tiles:
        cost = tile.seconds * correction(tile.key.N)
        if pack and (total + cost > seconds or tile.key.N != pack[0].key.N):
            yield Task(tuple(pack))
            pack, total = [], 0.0
        pack.append(tile)
        total += cost
    if pack:
        yield Task(tuple(pack))
