"""Gaussian data revealed only along the directions that an algorithm needs.

The data matrix X (M x N) is never formed. On its M-dimensional side an orthonormal basis U is stored; on its
N-dimensional side coordinates are enough. Multiplying X^T with vectors Y (M x p) that leave the span of U
reveals new directions on both sides, and what has not been revealed stays Gaussian and independent of it
("Householder Dice", Y. M. Lu, arXiv:2101.07464): with Y - U U^T Y = U_new R,

    X^T Y = Q (known) + Q_new B R,      X Q_new = U_new B^T + (1 - U U^T) G,

B upper triangular with chi_{N - r - i} on its diagonal and N(0, 1) above it, G fresh Gaussian numbers. B is
the R factor of a Gaussian (N - r) x p matrix, as Bartlett's decomposition has it.

Vectors of length M are stored in blocks of rows, so that everything a step does to a block is done while that
block of U is in the cache. As long as a block fits there, U is read from memory once per step, and twice more
for every batch of fresh numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Array = Any
"""An array of the library in use; the array API standard has no type of its own."""

BLOCK_ROWS = 4096
"""Rows of a block of one vector (of p vectors, divided by p): short enough for the cache, but long enough
that BLAS takes the time, not Python."""
BATCH = 32
"""Fresh Gaussian vectors projected at a time: enough to make up for BLAS's copy of U's blocks."""
COMPACT_ROWS, COMPACT_BATCH = 2048, 64
"""The same where vectors are kept in 16 bits: a block of them is converted, and the result has to stay in the
cache."""
_LARGEST = 2**15 - 1  # in 16 bits
_FEW = 4  # combinations computed one by one
GROWTH = 0.25  # relative growth of the storage when it is full
_LOST = 1e-3  # |U^T U - 1| beyond which nothing revealed has the law of the data
_WEAKEST = {np.dtype(np.float32): 1e-7, np.dtype(np.float64): 1e-14}  # smallest relative squared norm


class Workspace:
    """Storage and arithmetic of the long vectors: array library, precision, blocks, source of randomness.

    Parameters
    ----------
    M : int
        Length of the vectors.
    rng : numpy.random.Generator
        Source of randomness.
    dtype : numpy dtype
        float32 or float64.
    xp : module
        An array library that follows the array API standard.
    device : object, optional
        Device of its arrays; with None, the library's own default.
    normal : callable, optional
        normal(shape) -> array of Gaussian numbers on the device; with None they are drawn from ``rng``.
    block_rows : int
        Number of rows in a block. Where the memory has no significant cache (a GPU), M: a single block.
    compact : bool
        Whether :meth:`columns` are kept in 16 bits; with numpy alone.
    """

    def __init__(
        self,
        M: int,
        rng: np.random.Generator,
        dtype: npt.DTypeLike = np.float32,
        *,
        xp: Any = np,
        device: Any = None,
        normal: Callable[[tuple[int, ...]], Array] | None = None,
        block_rows: int = BLOCK_ROWS,
        compact: bool = False,
    ) -> None:
        blocks = -(-M // block_rows)
        self.rows = -(-M // blocks)
        self.blocks = -(-M // self.rows)
        self.M, self.rng, self.xp = M, rng, xp
        self._there = {} if device is None else {"device": device}
        self.precision: np.dtype[Any] = np.dtype(dtype)
        self.dtype = xp.float32 if self.precision == np.float32 else xp.float64
        self._normal, self._compact = normal, compact
        self.batch = COMPACT_BATCH if compact else BATCH

    def columns(self, capacity: int) -> Columns:
        """Long vectors that grow in number, with space for so many."""
        return CompactColumns(self, capacity) if self._compact else Columns(self, capacity)

    def zeros(self, count: int) -> Array:
        """Space for ``count`` vectors, shape (blocks, count, rows)."""
        return self.xp.zeros((self.blocks, count, self.rows), dtype=self.dtype, **self._there)

    def normal(self, count: int) -> Array:
        """Gaussian vectors, shape (blocks, count, rows); rows beyond M are zero and remain so."""
        shape = (self.blocks, count, self.rows)
        if self._normal is None:
            numbers = self.device_array(self.rng.standard_normal(shape, dtype=self.precision.type))
        else:
            numbers = self.xp.asarray(self._normal(shape), dtype=self.dtype)
        beyond = self.blocks * self.rows - self.M
        if beyond:
            numbers[self.blocks - 1, :, self.rows - beyond :] = 0.0
        return numbers

    def spread(self, vectors: FloatArray) -> Array:
        """Vectors of shape (count, M) laid out in blocks."""
        padded = np.zeros((len(vectors), self.blocks * self.rows), dtype=self.precision)
        padded[:, : self.M] = vectors
        by_block = padded.reshape(len(vectors), self.blocks, self.rows).transpose(1, 0, 2)
        return self.device_array(np.ascontiguousarray(by_block))

    def gather(self, vectors: Array) -> FloatArray:
        """Vectors in blocks as an array of shape (count, M), in double precision."""
        by_block = self.host(vectors)
        flat = by_block.transpose(1, 0, 2).reshape(by_block.shape[1], -1)
        return flat[:, : self.M].astype(np.float64)

    def device_array(self, numbers: npt.NDArray[Any]) -> Array:
        """Numbers from the host, in the precision and on the device of the long vectors."""
        if self.xp is np:
            return numbers.astype(self.precision, copy=False)
        return self.xp.asarray(numbers, dtype=self.dtype, **self._there)

    def host(self, array: Array) -> npt.NDArray[Any]:
        """An array of the library as a numpy array."""
        return array if self.xp is np else np.from_dlpack(array, device="cpu")

    def combine(self, coefficients: Array, vectors: Array) -> Array:
        """Products coefficients vectors.

        On the host a few combinations are faster one by one, from the cache: for the product of two matrices
        BLAS first copies the larger, whatever the size of the other.
        """
        if self.xp is np and 1 < len(coefficients) <= _FEW:
            return np.stack([row @ vectors for row in coefficients])
        return coefficients @ vectors

    def gram(self, rows: Array) -> FloatArray:
        """Products rows rows^T in double precision, because small differences of them are needed."""
        exact = self.xp.asarray(rows, dtype=self.xp.float64)
        return self.host(exact @ exact.T)


class Columns:
    """Long vectors that grow in number. Space is allocated ahead; existing vectors are never copied."""

    def __init__(self, space: Workspace, capacity: int) -> None:
        self.space = space
        self.parts = [self._zeros(capacity)]
        self.used = [0]

    def _zeros(self, capacity: int) -> Array:
        return self.space.zeros(capacity)

    def __len__(self) -> int:
        return sum(self.used)

    def reserve(self, count: int) -> None:
        """Allocate space for this many more vectors, in one piece."""
        if self.used[-1] + count > self.parts[-1].shape[1]:
            self.parts.append(self._zeros(max(count, int(GROWTH * len(self)))))
            self.used.append(0)

    def put(self, b: int, rows: Array) -> Array:
        """Write block b of new vectors, and return it as it is kept; :meth:`commit` counts them once every
        block is written."""
        start = self.used[-1]
        self.parts[-1][b, start : start + rows.shape[0], :] = rows
        return rows

    def commit(self, count: int) -> None:
        """Count the vectors put since the last call."""
        self.used[-1] += count

    def views(self, b: int, pending: int = 0, first: int = 0) -> list[tuple[slice, Array]]:
        """Block b of the vectors from ``first`` on, including those put but not counted: (indices, rows)."""
        found, start = [], -first
        for i, (part, used) in enumerate(zip(self.parts, self.used, strict=True)):
            count = used + (pending if i == len(self.parts) - 1 else 0)
            if start + count > max(start, 0):
                found.append((slice(max(start, 0), start + count), part[b, max(-start, 0) : count, :]))
            start += count
        return found

    def dot(self, b: int, rows: Array, out: FloatArray, pending: int = 0, first: int = 0) -> None:
        """Add block b of the products of rows with the vectors to out, shape (rows, vectors)."""
        for place, vectors in self.views(b, pending, first):
            out[:, place] += self.space.host(vectors @ rows.T).T  # in this order BLAS is twice as fast

    def mark(self) -> list[int]:
        """Where the vectors end, for :meth:`forget`."""
        return list(self.used)

    def forget(self, mark: list[int]) -> None:
        """Drop the vectors that were added since the mark, with the space allocated for them."""
        self.used = list(mark)
        del self.parts[len(mark) :]

    def combine(self, b: int, coefficients: Array, pending: int = 0, first: int = 0) -> Array:
        """Block b of linear combinations, coefficients of shape (combinations, vectors)."""
        terms = [
            self.space.combine(coefficients[:, place], vectors)
            for place, vectors in self.views(b, pending, first)
        ]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def without(self, b: int, rows: Array, coefficients: Array) -> Array:
        """Block b of rows less these linear combinations of the vectors."""
        for place, vectors in self.views(b):
            rows = rows - self.space.combine(coefficients[:, place], vectors)
        return rows


class CompactColumns(Columns):
    """The same in 16 bits: integers, times a unit for every block of every vector.

    Half the memory of float32. The unit is 1/32767 of the largest number in the block, so a vector is rounded
    by about 1e-4 of its size, but independently from number to number: products of two vectors of length M
    move by 1e-4/sqrt(M). :meth:`put` returns the rounded vector, which is used from there on. A block is
    converted once for all products with it; that takes less time than to read it from memory in float32.
    """

    def __init__(self, space: Workspace, capacity: int) -> None:
        super().__init__(space, capacity)
        self.units = [self._unit(self.parts[0])]
        self._converted = np.empty((capacity, space.rows), dtype=space.precision)
        self._block, self._ready = -1, 0

    def _zeros(self, capacity: int) -> Array:
        return np.zeros((self.space.blocks, capacity, self.space.rows), dtype=np.int16)

    def _unit(self, part: Array) -> Array:
        return np.zeros(part.shape[:2], dtype=self.space.precision)

    def reserve(self, count: int) -> None:
        """As of :class:`Columns`."""
        super().reserve(count)
        if len(self.units) < len(self.parts):
            self.units.append(self._unit(self.parts[-1]))
        if len(self._converted) < len(self) + count:
            capacity = sum(part.shape[1] for part in self.parts)
            self._converted = np.empty((capacity, self.space.rows), dtype=self.space.precision)
            self._block = -1

    def put(self, b: int, rows: Array) -> Array:
        """As of :class:`Columns`."""
        unit = np.abs(rows).max(axis=1) / self.space.precision.type(_LARGEST)
        unit[unit == 0] = 1
        numbers = np.rint(rows / unit[:, np.newaxis])
        self.units[-1][b, self.used[-1] : self.used[-1] + len(rows)] = unit
        super().put(b, numbers)
        return numbers * unit[:, np.newaxis]

    def forget(self, mark: list[int]) -> None:
        """As of :class:`Columns`."""
        super().forget(mark)
        del self.units[len(mark) :]
        self._block = -1

    def _whole(self, b: int, pending: int, first: int) -> tuple[Array, Array]:
        """Block b of the vectors as whole numbers in floating point, and their units."""
        count = len(self) + pending
        if b != self._block:
            self._block, self._ready = b, 0
        for place, numbers in super().views(b, pending, self._ready) if self._ready < count else ():
            self._converted[self._ready + place.start : self._ready + place.stop] = numbers
        self._ready = max(self._ready, count)
        used = [*self.used[:-1], self.used[-1] + pending]
        units = [part[b, :number] for part, number in zip(self.units, used, strict=True)]
        unit = units[0] if len(units) == 1 else np.concatenate(units)
        return self._converted[first:count], unit[first:]

    def views(self, b: int, pending: int = 0, first: int = 0) -> list[tuple[slice, Array]]:
        """As of :class:`Columns`; a copy."""
        numbers, unit = self._whole(b, pending, first)
        return [(slice(0, len(unit)), numbers * unit[:, np.newaxis])]

    def dot(self, b: int, rows: Array, out: FloatArray, pending: int = 0, first: int = 0) -> None:
        """As of :class:`Columns`."""
        numbers, unit = self._whole(b, pending, first)
        out += ((numbers @ rows.T) * unit[:, np.newaxis]).T

    def combine(self, b: int, coefficients: Array, pending: int = 0, first: int = 0) -> Array:
        """As of :class:`Columns`."""
        numbers, unit = self._whole(b, pending, first)
        return self.space.combine(coefficients * unit, numbers)

    def without(self, b: int, rows: Array, coefficients: Array) -> Array:
        """As of :class:`Columns`."""
        return rows - self.combine(b, coefficients)


class LeftBasis:
    """The basis U of the M-dimensional side, and fresh Gaussian vectors orthogonal to it.

    One projection in single precision leaves U^T U - 1 of 1e-6 and would amplify it from step to step. The
    Gram matrix is therefore measured along the way, and every projection uses its inverse, to first order:
    the error stays at the level of rounding.

    Fresh vectors are made orthogonal to U in batches. Vectors that U gains afterwards are projected out of
    the p fresh vectors that a step uses, when it uses them.

    Parameters
    ----------
    space : Workspace
        Where the vectors live.
    width : int
        Number of vectors that come at a time, p.
    capacity : int
        Number of vectors for which space is allocated at first.
    until_full : bool
        Whether to leave U alone once it spans all M dimensions: nothing is then measured or projected.
    """

    def __init__(self, space: Workspace, width: int, capacity: int, *, until_full: bool = False) -> None:
        self.space, self.width, self._until_full = space, width, until_full
        self.columns = space.columns(capacity)
        self.open = True
        self.excess = np.zeros((0, 0))  # U^T U - 1, as far as it has been measured
        self._batch = max(1, space.batch // width)
        self._fresh = space.zeros(0)
        self.begin()

    def begin(self, pending: int = 0, count: int | None = None) -> None:
        """Discard the measurements of the last vectors; ``count`` vectors come next, by default the width."""
        count = self.width if count is None else count
        self._pending = pending
        self._full = self._until_full and len(self.columns) + pending >= self.space.M
        self._known = np.zeros((count, len(self.columns) + pending))
        self._norms = np.zeros((count, count))
        coming = min(self.width, self._fresh.shape[1])
        self._mixed = np.zeros((coming, count))
        self._along = np.zeros((coming, len(self.columns) + pending - len(self.excess)))

    def measure(self, b: int, rows: Array) -> None:
        """Add block b of the products of Y with U, with itself and with the next fresh vectors."""
        if not self.open or self._full:
            return
        self.columns.dot(b, rows, self._known, self._pending)
        self._norms += self.space.gram(rows)
        if self._fresh.shape[1]:
            coming = self._fresh[b, : self.width, :]
            self._mixed += self.space.host(coming @ rows.T)
            self.columns.dot(b, coming, self._along, self._pending, len(self.excess))

    def coefficients(self, known: FloatArray) -> FloatArray:
        """Coefficients of the projection on U, from products with U: its inverse Gram matrix, first order."""
        corrected = known.copy()
        corrected[:, : len(self.excess)] -= known[:, : len(self.excess)] @ self.excess
        return corrected

    @property
    def products(self) -> FloatArray:
        """The measured products of Y with U, shape (vectors of Y, vectors of U)."""
        return self._known

    def share_outside(self) -> float:
        """Smallest part of the square of a combination of Y, measured, that lies outside U."""
        outside = self._norms - self.coefficients(self._known) @ self._known.T
        return float(np.linalg.eigvalsh((outside + outside.T) / 2)[0] * len(outside) / np.trace(self._norms))

    def mark(self) -> tuple[list[int], FloatArray, Array]:
        """What there is, for :meth:`forget`."""
        return self.columns.mark(), self.excess, self._fresh

    def forget(self, mark: tuple[list[int], FloatArray, Array]) -> None:
        """Go back to the mark: to the vectors, and to the fresh ones that were waiting."""
        vectors, self.excess, self._fresh = mark
        self.columns.forget(vectors)
        self.begin()

    def factor(self, Y: Array) -> FloatArray:
        """R of Y - U U^T Y = U_new R, shape (rank, p), from the measured products of Y."""
        self._nothing_new = self._full
        if self._full:
            return np.zeros((0, len(self._known)))
        if self.open and not self._fresh.shape[1]:
            self._refill(Y)
        gained = self._known[:, len(self.excess) :]
        corrected = self.coefficients(self._known)
        outside = self._norms - corrected @ self._known.T
        squares, vectors = np.linalg.eigh((outside + outside.T) / 2)
        weakest = _WEAKEST[self.space.precision] * np.trace(self._norms)
        room = self.space.M - len(self.columns)
        kept = np.flatnonzero(squares > weakest)[::-1][: room if self.open else 0]
        norms = np.sqrt(squares[kept])
        turn, factor = np.linalg.qr(norms[:, np.newaxis] * vectors[:, kept].T)
        turn *= np.where(np.diag(factor) < 0, -1.0, 1.0)  # positive diagonal: R then follows Y continuously
        factor = np.asarray(turn.T @ (norms[:, np.newaxis] * vectors[:, kept].T))
        inverse = (vectors[:, kept] / norms) @ turn
        self._inside = self.space.device_array(corrected)
        self._inverse = self.space.device_array(inverse.T)
        self._now, self._fresh = self._fresh[:, : self.width, :], self._fresh[:, self.width :, :]
        self._gained = self.space.device_array(self._along)
        self._shadow = self.space.device_array((self._mixed - self._along @ gained.T) @ inverse)
        self.columns.reserve(len(norms))
        return factor

    def reveal(self, b: int, rows: Array) -> tuple[Array, Array]:
        """Block b of U_new, from that of Y; and of p fresh vectors orthogonal to all of U."""
        if self._nothing_new:
            return rows[:0, :], rows[:0, :]
        new = self.columns.put(b, self._inverse @ self.columns.without(b, rows, self._inside))
        fresh = self._now[b, :, :] - self._shadow @ new
        if self._gained.shape[0] and self._gained.shape[1]:
            fresh = fresh - self.columns.combine(b, self._gained, first=len(self.excess))
        return new, fresh

    def commit(self) -> None:
        """Count U_new."""
        self.columns.commit(self._pending)

    def _refill(self, Y: Array) -> None:
        """Draw fresh vectors and project U out of them; measure the Gram matrix of the new part of U."""
        count, old = len(self.columns), len(self.excess)
        self._now = self._fresh = self.space.zeros(0)  # frees the old batch before the new one
        fresh = self.space.normal(self._batch * self.width)
        drawn = fresh.shape[1]
        products = np.zeros((drawn + count - old, count))
        for b in range(self.space.blocks):
            gained = [vectors for _, vectors in self.columns.views(b, first=old)]
            self.columns.dot(b, self.space.xp.concat([fresh[b, :, :], *gained], axis=0), products)
        excess = np.zeros((count, count))
        excess[:old, :old] = self.excess
        excess[old:, :] = products[drawn:]
        excess[:, old:] = products[drawn:].T
        excess[old:, old:] -= np.eye(count - old)
        if not np.abs(excess).max(initial=0.0) < _LOST:
            raise ArithmeticError("the basis of revealed data is no longer orthonormal: use double precision")
        self.excess = excess
        inside = self.space.device_array(products[:drawn] - products[:drawn] @ excess)
        self._mixed = np.zeros((self.width, len(self._norms)))
        self._along = np.zeros((self.width, 0))
        for b in range(self.space.blocks):
            fresh[b, :, :] = self.columns.without(b, fresh[b, :, :], inside)
            self._mixed += self.space.host(fresh[b, : self.width, :] @ Y[b, :, :].T)
        self._fresh = fresh


def bartlett(rows: int, width: int, rng: np.random.Generator) -> FloatArray:
    """R factor of a Gaussian matrix, shape (min(rows, width), width), without the matrix.

    chi_{rows - i} on the diagonal, N(0, 1) above it.

    Parameters
    ----------
    rows, width : int
        Shape of the Gaussian matrix.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    array, shape (min(rows, width), width)
        Upper triangular.

    Notes
    -----
    Bartlett's decomposition; exact in law, held by ``tests/test_dice.py``.
    """
    rank = min(rows, width)
    factor = np.triu(rng.standard_normal((rank, width)), 1)
    for i in range(rank):
        factor[i, i] = math.sqrt(rng.chisquare(rows - i))
    return factor
