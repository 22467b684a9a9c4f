"""Ising models whose couplings are to be inferred: square lattice, Sherrington-Kirkpatrick, random regular
graphs."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError, as_integer

FloatArray = npt.NDArray[np.float64]
Spins = npt.NDArray[np.int8]
Name = Literal["square_lattice", "sherrington_kirkpatrick", "random_regular_graph"]

LEAST_SIDE = 3
"""A periodic lattice of side 2 would have two bonds between neighbours."""
MOST_DEGREE = 6
_MOST_TRIES = 10**6


class Ising(NamedTuple):
    """The law p(s) proportional to exp(sum_{i<j} theta_ij s_i s_j + sum_i field_i s_i), s_i = +-1.

    Parameters
    ----------
    theta : array, shape (N, N)
        Couplings times the inverse temperature, beta J_ij: symmetric, with zeros on the diagonal.
    field : array, shape (N,)
        Fields times the inverse temperature.
    """

    theta: FloatArray
    field: FloatArray

    @property
    def N(self) -> int:
        """Number of spins."""
        return len(self.field)

    @property
    def edges(self) -> npt.NDArray[np.bool_]:
        """Whether each pair i < j has a coupling, in the order of ``pairs``."""
        return np.asarray(pairs(self.theta) != 0)


def pairs(matrix: FloatArray) -> FloatArray:
    """The elements i < j of a matrix, row by row: shape (N (N - 1)/2,)."""
    return np.asarray(matrix[np.triu_indices(len(matrix), 1)])


def side_of_lattice(N: int) -> int | None:
    """Side of a square lattice of N spins, or None if there is no such lattice of side 3 or more."""
    side = math.isqrt(N)
    return side if side**2 == N and side >= LEAST_SIDE else None


def square_lattice(N: int) -> FloatArray:
    """J = 1 between nearest neighbours of a periodic square lattice, N x N.

    Raises
    ------
    ParameterError
        N is not the square of an integer >= 3.
    """
    side = side_of_lattice(as_integer("N", N, 1))
    if side is None:
        raise ParameterError("N", N, f"the square of an integer >= {LEAST_SIDE}, for the square lattice")
    site = np.arange(N).reshape(side, side)
    J = np.zeros((N, N))
    for axis in (0, 1):
        other = np.roll(site, 1, axis)
        J[site, other] = J[other, site] = 1.0
    return J


def sherrington_kirkpatrick(N: int, rng: np.random.Generator) -> FloatArray:
    """J_ij Gaussian with mean 0 and variance 1/N for every pair, N x N. Spin glass for beta > 1 as N ->
    infinity."""
    J = np.triu(rng.standard_normal((N, N)), 1) / math.sqrt(N)
    return np.asarray(J + J.T)


def random_regular_graph(
    N: int, degree: int, rng: np.random.Generator, *, random_signs: bool = False
) -> FloatArray:
    """J = 1, or +-1 with equal probability, on a graph uniform among those of N vertices of one degree.

    The configuration model: the ends of edges are paired at random, until no edge is a loop or double.
    A pairing succeeds with a probability near exp((1 - degree^2)/4) (Bollobas, Eur. J. Comb. 1 (1980) 311):
    1.6e-4 for degree 6.

    Raises
    ------
    ParameterError
        ``degree`` is not 1 to 6, N is not above it, or N * degree is odd.
    """
    if not 1 <= as_integer("degree", degree, 1) <= MOST_DEGREE:
        raise ParameterError("degree", degree, f"an integer from 1 to {MOST_DEGREE}")
    if not has_regular_graph(as_integer("N", N, 2), degree):
        raise ParameterError("N", N, f"N > {degree} with {degree} N even, for degree {degree}")
    ends = np.repeat(np.arange(N), degree)
    for _ in range(_MOST_TRIES):
        i, j = np.sort(rng.permutation(ends).reshape(-1, 2), axis=1).T
        if (i != j).all() and len(np.unique(i * N + j)) == len(i):
            break
    else:
        raise ParameterError("degree", degree, f"such that one of {_MOST_TRIES} pairings is a simple graph")
    J = np.zeros((N, N))
    J[i, j] = rng.choice([-1.0, 1.0], len(i)) if random_signs else 1.0
    return np.asarray(J + J.T)


def has_regular_graph(N: int, degree: int) -> bool:
    """Whether there is a simple graph of N vertices of one degree."""
    return degree < N and N * degree % 2 == 0
