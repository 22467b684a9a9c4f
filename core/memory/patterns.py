"""Patterns to store: independent signs, or signs of random features."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError, as_integer, as_positive

FloatArray = npt.NDArray[np.float64]


class Patterns(NamedTuple):
    """States of +1 and -1.

    Parameters
    ----------
    stored : array, shape (P, N)
        The patterns to learn.
    unseen : array, shape (n, N)
        Further examples of the same law, which are not learned.
    features : array, shape (D, N)
        The features of all of them; D = 0 for independent patterns.
    """

    stored: FloatArray
    unseen: FloatArray
    features: FloatArray


def pattern_number(alpha: float, N: int) -> int:
    """P = round(alpha N), halves upwards."""
    return int(alpha * N + 0.5)


def draw(
    alpha: float, N: int, rng: np.random.Generator, *, alpha_D: float = 0.0, unseen: int = 0
) -> Patterns:
    """P = round(alpha N) patterns of N neurons.

    Parameters
    ----------
    alpha : float
        Load P/N.
    N : int
        Number of neurons.
    rng : numpy.random.Generator
    alpha_D : float
        Latent dimension over N. 0: every sign is independent. Otherwise xi_i = sign(sum_k f_ki z_k), k = 1,
        ..., D = max(1, round(alpha_D N)), with features f of random signs, common to all patterns, and z
        standard Gaussian. Two patterns then have an overlap of order D^(-1/2); large D gives independent
        ones.
    unseen : int
        Number of further examples.

    Raises
    ------
    ParameterError
        alpha N < 1/2, or a parameter is out of its range.

    Notes
    -----
    The random-features model of arXiv:2405.08777 and arXiv:2507.05147. There the coefficients z may be signs
    as well; here they are Gaussian, so that no field vanishes.
    """
    N, alpha, unseen = as_integer("N", N, 1), as_positive("alpha", alpha), as_integer("unseen", unseen, 0)
    if not (P := pattern_number(alpha, N)):
        raise ParameterError("alpha", alpha, f"alpha N >= 1/2, so alpha >= {0.5 / N:.6g} at N = {N}")
    if not 0 <= alpha_D < math.inf:
        raise ParameterError("alpha_D", alpha_D, "a finite number >= 0")
    if alpha_D == 0:
        both = signs((P + unseen, N), rng)
        return Patterns(both[:P], both[P:], np.empty((0, N)))
    features = signs((max(1, round(alpha_D * N)), N), rng)
    both = np.sign(rng.standard_normal((P + unseen, len(features))) @ features)
    return Patterns(both[:P], both[P:], features)


def signs(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Independent +1 and -1."""
    return np.where(rng.integers(2, size=shape, dtype=np.int8), 1.0, -1.0)


def corrupted(patterns: FloatArray, overlap: float, rng: np.random.Generator) -> FloatArray:
    """The patterns, each with round(N (1 - overlap)/2) spins flipped, chosen at random."""
    flips = round(patterns.shape[1] * (1 - overlap) / 2)
    places = rng.permuted(np.broadcast_to(np.arange(patterns.shape[1]), patterns.shape), axis=1)[:, :flips]
    found = patterns.copy()
    np.put_along_axis(found, places, -np.take_along_axis(patterns, places, axis=1), axis=1)
    return found
