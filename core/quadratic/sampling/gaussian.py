"""The Gaussian data matrix X of a cell, revealed only along the directions that an algorithm asks for.

One object for everything that multiplies with X: an iteration at initialisation (``dice``), the gradients
along a descent, and products with the Hessian in between. How a direction is revealed is described in
:mod:`bendscape.core.quadratic.sampling.reveal`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from bendscape.core.quadratic.sampling.reveal import Array, Columns, LeftBasis, Workspace, bartlett

FloatArray = npt.NDArray[np.float64]

ROUNDING = 4.0
"""Multiple of the precision below which the new part of a vector, relative to it, is rounding."""
MOSTLY_NEW = 0.8
"""Share of its square that a remainder must have outside U, or else it is projected once more."""


class GaussianMatrix:
    """X (M x N), known on the span of an orthonormal Q and, transposed, on that of an orthonormal U.

    The vectors of Q are never needed, only coordinates on it. One pass: Y is projected once, with the
    measured Gram matrix of U, while the next vector is made, which is enough where every Y has a new part of
    its own size. For Y that nearly repeats itself there is :class:`StoredMatrix`.

    Parameters
    ----------
    space : Workspace
        Where vectors of length M live, and the source of randomness.
    N : int
        Number of columns of X.
    width : int
        Number of vectors that are multiplied at a time.
    capacity : int
        Number of left vectors for which space is allocated at first.
    until_full : bool
        As of :class:`bendscape.core.quadratic.sampling.reveal.LeftBasis`.
    """

    def __init__(
        self, space: Workspace, N: int, width: int, capacity: int, *, until_full: bool = False
    ) -> None:
        self.space, self.N, self.known = space, int(N), 0
        self.left = LeftBasis(space, width, capacity, until_full=until_full)

    def directions(self, count: int) -> tuple[FloatArray, Array]:
        """The first directions: ``count`` independent unit vectors, uniform on the sphere of R^N.

        Returns
        -------
        coordinates : array, shape (count, count)
            The unit vectors in columns, on the first vectors of Q; upper triangular.
        images : array
            X Q of these, laid out as the workspace does.
        """
        coordinates = bartlett(self.N, count, self.space.rng)
        coordinates /= np.linalg.norm(coordinates, axis=0)
        images = self.space.normal(count)
        self.known = count
        return coordinates, images

    def factor(self, Y: Array) -> FloatArray:
        """Coordinates of X^T Y on new vectors of Q, from what ``left`` has measured of Y."""
        self.left.open = self.known < self.N
        factor = self.left.factor(Y)
        self._triangle = bartlett(self.N - self.known, len(factor), self.space.rng)
        self._rank = len(factor)
        return np.asarray(self._triangle @ factor)

    def begin(self) -> int:
        """Number of new vectors of Q, whose images :meth:`reveal` gives; ``left`` measures afresh."""
        self._turned = self.space.device_array(self._triangle)
        self.left.begin(self._rank)
        return len(self._triangle)

    def reveal(self, b: int, rows: Array) -> Array:
        """Block b of the images of the new vectors of Q, from that of Y."""
        new, fresh = self.left.reveal(b, rows)
        return self._turned @ new + fresh[: len(self._triangle), :]

    def commit(self) -> None:
        """Count what was revealed."""
        self.left.commit()
        self.known += len(self._triangle)


class StoredMatrix(GaussianMatrix):
    """X with the images Z = X Q kept, for paths whose vectors hardly differ from one to the next.

    The new part of X w_t along a smooth path is as small as 4e-6 of it. It is therefore projected off U
    twice: rounding of the first pass, large beside so small a remainder, is taken out by the second, and by a
    third where the second takes away a good part. At p > 1
    the remainders are orthonormalised between the passes, so that nearly parallel ones are told apart too.

    Parameters
    ----------
    space : Workspace
        Of numpy arrays.
    N, width, capacity : int
        As of :class:`GaussianMatrix`.
    smallest : float
        New parts below it, relative to the vector, are dropped: the product is then that of the vector
        without them. 0 drops only what is rounding, four times the precision of the workspace.
    """

    def __init__(self, space: Workspace, N: int, width: int, capacity: int, smallest: float = 0.0) -> None:
        super().__init__(space, N, width, capacity)
        self.smallest = max(smallest, ROUNDING * float(np.finfo(space.precision).eps))
        self.dropped = 0
        """Vectors whose new part was dropped so far."""
        self._images = Columns(space, capacity + width)

    def directions(self, count: int) -> tuple[FloatArray, Array]:
        """As of :class:`GaussianMatrix`; the images are kept."""
        coordinates, images = super().directions(count)
        self._images.reserve(count)
        for b in range(self.space.blocks):
            self._images.put(b, images[b, :, :])
        self._images.commit(count)
        return coordinates, images

    def times(self, b: int, coordinates: Array) -> Array:
        """Block b of X v for v of the given coordinates on Q, shape (vectors, known), in the precision."""
        return self._images.combine(b, coordinates)

    def known_data(self) -> FloatArray:
        """X Q of all known directions, shape (M, known), in double precision."""
        blocks = [[rows for _, rows in self._images.views(b)] for b in range(self.space.blocks)]
        return np.ascontiguousarray(self.space.gather(np.stack([np.concatenate(rows) for rows in blocks])).T)

    def transposed(self, *, once: bool = False) -> Transposed:
        """A product X^T Y, to which the blocks of Y are given one by one.

        With ``once``, Y is projected once: for Y whose new parts are of their own size, as in Lanczos'
        iteration.
        """
        return Transposed(self, self._images, once)

    @contextmanager
    def fork(self) -> Iterator[None]:
        """Inside, X is revealed further; afterwards that is forgotten, and the path goes on as without it.

        What is seen inside has exactly its law given the past; its correlations with what is revealed
        afterwards are lost. Its randomness comes from a generator of its own, so the path keeps its bits.
        """
        rng, known, dropped = self.space.rng, self.known, self.dropped
        left, images = self.left.mark(), self._images.mark()
        self.space.rng = rng.spawn(1)[0]
        try:
            yield
        finally:
            self.space.rng, self.known, self.dropped = rng, known, dropped
            self.left.forget(left)
            self._images.forget(images)


class Transposed:
    """Coordinates of X^T Y on Q, revealed in two passes over U, or in one."""

    def __init__(self, data: StoredMatrix, images: Columns, once: bool) -> None:
        self._data, self._images, self._once, space = data, images, once, data.space
        data.left.begin()
        self._Y = space.zeros(data.left.width)
        self._open = data.known < data.N
        self._on_images = np.zeros((data.left.width, data.known))
        self._on_left = np.zeros((data.left.width, len(data.left.columns)))

    def put(self, b: int, rows: Array) -> None:
        """Block b of Y, in the order of the blocks."""
        self._Y[b, :, :] = rows
        self._images.dot(b, rows, self._on_images)
        if self._open and self._once:
            self._data.left.measure(b, rows)
        elif self._open:
            self._data.left.columns.dot(b, rows, self._on_left)

    def coordinates(self) -> FloatArray:
        """X^T Y, shape (vectors, known), where Q has been extended by what it needed."""
        data, Y = self._data, self._Y
        if not self._open:
            return self._on_images
        turn = np.eye(len(Y[0])) if self._once else self._first_pass()
        data.dropped += len(Y[0]) - len(turn)
        if not len(turn):
            return self._on_images
        new = data.factor(Y[:, : len(turn), :]) @ turn
        self._images.reserve(data.begin())
        for b in range(data.space.blocks):
            self._images.put(b, data.reveal(b, Y[b, : len(turn), :]))
        self._images.commit(len(new))
        data.commit()
        return np.concatenate([self._on_images, new.T], axis=1)

    def _first_pass(self) -> FloatArray:
        """Project Y off U; returns R of the remainder = V R, with V in place of Y, measured.

        Where the remainder is rounding to a good part, it is projected once more here: a last pass that
        removes half of a vector amplifies the errors of U from one vector to the next.
        """
        left, limits = self._data.left, self._data.smallest * np.sqrt(_squares(self._Y))
        turn, limits = self._pass(self._on_left, limits)
        if len(turn) and left.share_outside() < MOSTLY_NEW:
            again, _ = self._pass(left.products, limits)
            turn = again @ turn
        return turn

    def _pass(self, on_left: FloatArray, limits: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Project as many vectors of Y as there are limits off U, and measure what is left.

        Those whose remainders are shorter than their limits are left out. At p > 1 the others become
        orthonormal, and R and their limits are returned; at p = 1 they keep their length.
        """
        Y, left, count = self._Y[:, : len(limits), :], self._data.left, len(limits)
        inside = self._data.space.device_array(left.coefficients(on_left))
        alone = left.width == 1
        left.begin()
        for b in range(self._data.space.blocks):
            if len(left.columns):
                Y[b, :, :] -= left.columns.combine(b, inside)
            if alone:  # while the block of U is in the cache
                left.measure(b, Y[b, :, :])
        if alone:
            enough = int((np.sqrt(_squares(Y)) > limits)[0])
            return np.ones((enough, count)), limits[:enough]
        turn, kept = _orthonormalised(Y, limits)
        left.begin(0, len(turn))
        for b in range(self._data.space.blocks):
            left.measure(b, Y[b, : len(turn), :])
        return turn, limits[kept] / turn[np.arange(len(kept)), kept]


def _squares(Y: Array) -> FloatArray:
    """Squared lengths of vectors in blocks."""
    return np.asarray(np.einsum("bkr,bkr->k", Y, Y, dtype=np.float64))


def _orthonormalised(Y: Array, smallest: FloatArray) -> tuple[FloatArray, list[int]]:
    """Replace the first vectors of Y by V with Y = V R, leaving out those whose new part is too small;
    returns R, and which are kept."""
    factor, kept = np.zeros((0, Y.shape[1])), []
    for k, size in enumerate(smallest):
        count = len(factor)
        past, row = Y[:, :count, :], Y[:, k, :]
        column = np.zeros(count)
        for _ in range(2):  # twice is enough
            along = np.einsum("bkr,br->k", past, row, dtype=np.float64)
            row = row - np.einsum("k,bkr->br", along.astype(Y.dtype), past)
            column += along
        length = float(np.sqrt(np.einsum("br,br->", row, row, dtype=np.float64)))
        factor[:, k] = column
        if length > size:
            Y[:, count, :] = row / length
            factor = np.concatenate([factor, np.zeros((1, Y.shape[1]))])
            factor[count, k] = length
            kept.append(k)
    return factor, kept
