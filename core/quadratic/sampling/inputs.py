"""Data of one cell in blocks of rows, kept in memory or drawn again for every pass.

Each block has a generator of its own, keyed by the cell's key and the block's index, so that any block can be
drawn at any time and a cell's data are the same bits whether they are kept or drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError

FloatArray = npt.NDArray[np.float64]
RealArray = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Precision = Literal["float64", "float32"]

INPUT_LAWS = ("gaussian", "rademacher")
"""Laws of the entries of x: standard normal, or +1 and -1 with equal probability. Both have variance 1."""

PRECISIONS: tuple[Precision, ...] = ("float64", "float32")
"""Types in which data are kept and multiplied."""

BLOCK_NUMBERS = 2**18
"""Entries of one block: 2 MiB in double precision."""


@dataclass(frozen=True, eq=False)
class DrawnInputs:
    """Data X that are drawn again whenever they are read.

    Parameters
    ----------
    law : {"gaussian", "rademacher"}
        Law of the entries, which are independent.
    key : tuple of int
        Key that distinguishes this cell's data from those of all others.
    shape : tuple of int
        (M, N).

    Notes
    -----
    Block i holds rows i r to (i + 1) r with r = :func:`rows_of_block`, drawn from the generator that a
    SeedSequence of the key gives its child i. Independent of precision except for rounding. Held by
    ``tests/test_lanczos.py``.
    """

    law: str
    key: tuple[int, ...]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self, precision: Precision) -> Iterator[tuple[int, RealArray]]:
        """First row and rows of every block; an array is good until the next is asked for."""
        M, N = self.shape
        rows = min(M, rows_of_block(N))
        drawn = np.empty((rows, N))
        rounded: RealArray = drawn if precision == "float64" else np.empty((rows, N), dtype=np.float32)
        for place, first in enumerate(range(0, M, rows)):
            here = min(rows, M - first)
            child = np.random.SeedSequence(self.key, spawn_key=(place,))
            _fill(drawn[:here], self.law, np.random.Generator(np.random.SFC64(child)))
            if rounded is not drawn:
                rounded[:here] = drawn[:here]
            yield first, rounded[:here]

    def stored(self, precision: Precision) -> RealArray:
        """All of X in memory."""
        stored: RealArray = np.empty(self.shape, dtype=precision)
        for first, block in self.blocks(precision):
            stored[first : first + len(block)] = block
        return stored


def drawn_inputs(law: str, M: int, N: int, rng: np.random.Generator) -> DrawnInputs:
    """Data of a cell; their key consists of four words drawn from its generator."""
    if law not in INPUT_LAWS:
        raise ParameterError("inputs", law, "one of " + ", ".join(INPUT_LAWS))
    return DrawnInputs(law, tuple(int(word) for word in rng.integers(2**32, size=4)), (M, N))


def rows_of_block(N: int) -> int:
    """Rows of one block of data."""
    return max(1, BLOCK_NUMBERS // N)


def row_blocks(inputs: RealArray | DrawnInputs, precision: Precision) -> Iterator[tuple[int, RealArray]]:
    """First row and rows of every block of data, kept or drawn, the same blocks in either case."""
    if isinstance(inputs, DrawnInputs):
        yield from inputs.blocks(precision)
        return
    rows = rows_of_block(inputs.shape[1])
    for first in range(0, len(inputs), rows):
        block: RealArray = inputs[first : first + rows].astype(precision, copy=False)
        yield first, block


def _fill(out: FloatArray, law: str, rng: np.random.Generator) -> None:
    if law == "gaussian":
        rng.standard_normal(out=out)
        return
    bits = np.unpackbits(np.frombuffer(rng.bytes(-(-out.size // 8)), dtype=np.uint8), count=out.size)
    np.multiply(bits.reshape(out.shape), 2.0, out=out)
    out -= 1.0
