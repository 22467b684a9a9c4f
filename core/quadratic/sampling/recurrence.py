"""The Lanczos vectors of a revealed Hessian, and what must be kept of them to multiply with X again.

There are three forms with the same methods. At p = 1 the vectors span all of the known N-dimensional side
except a fixed number of dimensions: the three-term recurrence then needs only two long vectors. At p > 1 a
vector of R^(pN) uses only part of what is known, and the images X Q are stored; the past vectors are kept in
one array or, for wide students, in pieces.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bendscape.core.quadratic.sampling.reveal import Array, Workspace

FloatArray = npt.NDArray[np.float64]

_PIECE = 16  # steps whose vectors are kept together: both products with a piece then find it in the cache
_CANCELLED = 1e-2  # if less than this of H v is left, project a second time


class TurningFrame:
    """Right-hand side at p = 1: the Lanczos vectors are themselves a basis, and their images need not be
    kept.

    In the span of the weights and of all vectors so far, the part that Lanczos has not used has p + p_star -
    1 dimensions. A step rotates the next vector into place from this part and the one new direction.
    """

    def __init__(self, space: Workspace, images: Array, start: FloatArray, p_star: int) -> None:
        self.space = space
        turn = _turn(start[0])
        self._teacher = turn[:, :p_star].T  # the teacher's span is that of the first coordinates
        self._seen = [self._teacher[:, 0]]
        self._frame = space.zeros(len(turn))
        for b in range(space.blocks):
            self._frame[b, :, :] = space.device_array(turn) @ images[b, :, :]
        self.begin()

    def start(self, b: int) -> Array:
        """Block b of X v of the first vector, shape (p, rows)."""
        return self._frame[b, :1, :]

    def begin(self, pending: int = 0) -> None:
        """Discard the measured products; `pending` images are about to be put."""
        self._products = np.zeros((1, self._frame.shape[1]))

    def measure(self, b: int, rows: Array) -> None:
        """Add block b of the coordinates of X^T Y in the known space."""
        self._products += self.space.host(rows @ self._frame[b, :, :].T)

    def advance(self, revealed: FloatArray) -> tuple[float, float]:
        """Rotate to the next Lanczos vector, given what H v reveals; returns v.Hv and the rest's length."""
        ahead = np.concatenate([self._products[0, 1:], revealed[:, 0]])
        length = float(np.linalg.norm(ahead))
        if length:
            turn = _turn(ahead)
            fresh = np.zeros((len(self._teacher), len(revealed)))
            self._teacher = np.concatenate([self._teacher[:, 1:], fresh], axis=1) @ turn.T
            self._seen.append(self._teacher[:, 0])
            self._matrix = self.space.device_array(turn)
            self._rest = self._frame[:, 1:, :]
            if not len(revealed):
                self._frame = self._rest
        return float(self._products[0, 0]), length

    def extend(self, b: int, images: Array) -> Array:
        """Block b of X v of the vector after :meth:`advance`, given that of the new directions' images."""
        self._frame[b, :, :] = self._matrix @ self.space.xp.concat([self._rest[b, :, :], images], axis=0)
        return self._frame[b, :1, :]

    def commit(self) -> None:
        """Count the images that were put."""

    def overlaps_sq(self, weights: FloatArray) -> FloatArray:
        """m^2 of the vectors sum_j weights_j v_j."""
        return np.asarray((self._components(weights) ** 2).sum(axis=0))

    def components(self, weights: FloatArray) -> FloatArray:
        """Components of these vectors, (vectors, 1, p_star), on an orthonormal basis of the teacher span."""
        return self._components(weights).T[:, np.newaxis, :]

    def _components(self, weights: FloatArray) -> FloatArray:
        return np.asarray(np.array(self._seen[: len(weights)]).T @ weights)


def _turn(ahead: FloatArray) -> FloatArray:
    """Orthogonal matrix (a Householder reflection) whose first row is along the vector ahead."""
    unit = ahead / np.linalg.norm(ahead)
    sign = 1.0 if unit[0] >= 0 else -1.0
    mirror = unit.copy()
    mirror[0] += sign
    turn = np.eye(len(unit)) - 2 * np.outer(mirror, mirror) / (mirror @ mirror)
    turn[0] *= -sign
    return np.asarray(turn)


class StoredImages:
    """Right-hand side at p > 1: the images Z = X Q of the right basis, with Lanczos vectors as coordinates on
    it, in one array.

    With ``most``, there are never more than so many images (N), and space is allocated for no more.
    """

    def __init__(
        self,
        space: Workspace,
        images: Array,
        start: FloatArray,
        p_star: int,
        steps: int,
        most: float = math.inf,
    ) -> None:
        self.space, self._p, self._p_star = space, len(start), p_star
        known = images.shape[1]
        self._images = space.columns(int(min(known + steps * len(start), most)))
        for b in range(space.blocks):
            self._images.put(b, images[b, :, :])
        self._images.commit(known)
        self._next = space.device_array(start)
        self._first(start, steps)
        self.begin()

    def _first(self, start: FloatArray, steps: int) -> None:
        """Store the first vector."""
        known = start.shape[1]
        self._vectors = np.zeros((len(start), steps, known + steps * len(start)))
        self._vectors[:, 0, :known] = start
        self._count = 1

    def start(self, b: int) -> Array:
        """Block b of X v of the first vector, shape (p, rows)."""
        return self._images.combine(b, self._next)

    def begin(self, pending: int = 0) -> None:
        """Discard the measured products; `pending` images are about to be put."""
        self._pending = pending
        self._products = np.zeros((self._p, len(self._images) + pending))

    def measure(self, b: int, rows: Array) -> None:
        """Add block b of the coordinates of X^T Y in the known space."""
        self._images.dot(b, rows, self._products, self._pending)

    def advance(self, revealed: FloatArray) -> tuple[float, float]:
        """Rotate to the next Lanczos vectors, given what H v reveals; returns v.Hv and the rest's length."""
        diagonal, length, ahead = self._rest(np.concatenate([self._products, revealed.T], axis=1))
        if length:
            self._next = self.space.device_array(ahead)
        self._images.reserve(len(revealed))
        return diagonal, length

    def _rest(self, ahead: FloatArray) -> tuple[float, float, FloatArray]:
        """Of H v: v.Hv, the length of what is orthogonal to all vectors so far, and that as the next one."""
        self._make_room(ahead.shape[1])
        past = self._vectors[
            :, : self._count, : ahead.shape[1]
        ]  # in place: a copy would cost as much as the rest
        diagonal = float(np.vdot(past[:, -1], ahead))
        for _ in range(2):  # in exact arithmetic three terms would suffice
            along = sum(vectors @ row for vectors, row in zip(past, ahead, strict=True))
            ahead = ahead - np.stack([along @ vectors for vectors in past])
        length = float(np.linalg.norm(ahead))
        if length:
            ahead = ahead / length
            self._vectors[:, self._count, : ahead.shape[1]] = ahead
            self._count += 1
        return diagonal, length, ahead

    def extend(self, b: int, images: Array) -> Array:
        """Block b of X v of the vector after :meth:`advance`, given that of the new directions' images."""
        if images.shape[0]:
            self._images.put(b, images)
        return self._images.combine(b, self._next, images.shape[0])

    def commit(self) -> None:
        """Count the images that were put."""
        self._images.commit(self._pending)

    def overlaps_sq(self, weights: FloatArray) -> FloatArray:
        """m^2 of the vectors sum_j weights_j v_j."""
        return np.asarray((self.components(weights) ** 2).sum(axis=(1, 2)))

    def components(self, weights: FloatArray) -> FloatArray:
        """Components of these vectors, (vectors, p, p_star), the first p_star coordinates."""
        return np.asarray(np.tensordot(weights.T, self._teacher(len(weights)), ([1], [1])))

    def _teacher(self, count: int) -> FloatArray:
        """The first p_star coordinates of the first vectors, shape (p, vectors, p_star)."""
        return self._vectors[:, :count, : self._p_star]

    def _make_room(self, coordinates: int) -> None:
        p, steps, width = self._vectors.shape
        if self._count == steps or coordinates > width:
            grown = np.zeros((p, steps + steps // 4 + 1, max(coordinates, width + width // 4)))
            grown[:, :steps, :width] = self._vectors
            self._vectors = grown


class PiecedImages(StoredImages):
    """The same with the Lanczos vectors in pieces of some steps, each as wide as its last vector.

    A vector has coordinates only on what was known when it was made: the pieces hold half of what one array
    would, and nothing is copied where they grow. After the three terms of the recurrence one projection on
    them is enough where more than a hundredth is left, and both products with a piece are made while it is
    in the cache. For wide students, whose past vectors take longer to read than U and Z.
    """

    def _first(self, start: FloatArray, steps: int) -> None:
        """Store the first vector."""
        self._pieces: list[FloatArray] = []  # of shape (steps, p, coordinates)
        self._used = 0  # steps of the last piece
        self._last, self._before, self._length = start, np.zeros_like(start), 0.0
        self._keep(start)

    def _rest(self, ahead: FloatArray) -> tuple[float, float, FloatArray]:
        """As of :class:`StoredImages`."""
        last, before = self._last.shape[1], self._before.shape[1]
        diagonal, size = float(np.vdot(self._last, ahead[:, :last])), float(np.linalg.norm(ahead))
        ahead[:, :last] -= diagonal * self._last
        ahead[:, :before] -= self._length * self._before
        length = self._project(ahead)
        if length <= _CANCELLED * size:
            length = self._project(ahead)
        if length:
            ahead /= length
            self._keep(ahead)
            self._before, self._last, self._length = self._last, ahead, length
        return diagonal, length, ahead

    def _teacher(self, count: int) -> FloatArray:
        """As of :class:`StoredImages`."""
        rows = np.concatenate([piece[:, :, : self._p_star] for piece in self._pieces])[:count]
        return rows.transpose(1, 0, 2)

    def _keep(self, vector: FloatArray) -> None:
        """Store a vector of shape (p, coordinates)."""
        width = vector.shape[1]
        if not self._pieces or self._used == _PIECE or width > self._pieces[-1].shape[2]:
            if self._pieces:
                self._pieces[-1] = self._pieces[-1][: self._used]
            growth = width - self._last.shape[1]  # 0 once every direction is known
            self._pieces.append(np.zeros((_PIECE, self._p, width + (_PIECE - 1) * growth)))
            self._used = 0
        self._pieces[-1][self._used, :, :width] = vector
        self._used += 1

    def _project(self, ahead: FloatArray) -> float:
        """Take the past vectors out of one, piece by piece; returns its length."""
        for i, piece in enumerate(self._pieces):
            steps = self._used if i == len(self._pieces) - 1 else len(piece)
            width = min(piece.shape[2], ahead.shape[1])
            flat = piece[:steps, :, :width].reshape(steps, -1)  # a view, but for the last piece
            part = ahead[:, :width].reshape(-1)
            ahead[:, :width] = (part - (flat @ part) @ flat).reshape(self._p, width)
        return float(np.linalg.norm(ahead))
