"""What a network has learned: stabilities, and which patterns it retrieves from where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bendscape.core.memory.dynamics import Couplings, Update, relax
from bendscape.core.memory.patterns import FloatArray, corrupted
from bendscape.core.numerics.threads import on_one_thread


class RetrievalMap(NamedTuple):
    """Where states end that begin near patterns.

    Parameters
    ----------
    final_overlap : array, shape (n, P)
        xi.s/N of the last state with the pattern, for each initial overlap and pattern.
    unsettled : float
        Share of the states that did not reach a fixed point.
    """

    final_overlap: FloatArray
    unsettled: float


@on_one_thread
def stabilities(couplings: Couplings, patterns: FloatArray) -> FloatArray:
    """xi_i sum_j J_ij xi_j / |J_i|, shape (P, N); a neuron without couplings has 0.

    A pattern is a fixed point if none of its stabilities is below 0 but for rounding, as
    :func:`bendscape.core.memory.dynamics.is_fixed` tells: a spin without a field stays.
    """
    norms = np.linalg.norm(couplings, axis=1)
    return np.asarray(patterns * (patterns @ (couplings / np.where(norms > 0, norms, 1.0)[:, None]).T))


def retrieval_map(
    couplings: Couplings,
    patterns: FloatArray,
    overlaps: Sequence[float],
    rng: np.random.Generator,
    *,
    update: Update = "asynchronous",
) -> RetrievalMap:
    """Final overlap with each pattern against the initial one, by zero-temperature dynamics.

    Parameters
    ----------
    couplings : array, shape (N, N)
        With zeros on the diagonal.
    patterns : array, shape (P, N)
    overlaps : sequence of float, n of them
        Initial overlaps, rounded to what flipped spins allow:
        :func:`bendscape.core.memory.patterns.corrupted`. One corrupted state for each pattern.
    rng : numpy.random.Generator
        Chooses the spins and the order of updates.
    update : {"asynchronous", "parallel"}
        As of :func:`bendscape.core.memory.dynamics.relax`.
    """
    start = np.concatenate([corrupted(patterns, overlap, rng) for overlap in overlaps])
    ended = relax(couplings, start, rng, update=update)
    last = ended.states.reshape(len(overlaps), *patterns.shape)
    return RetrievalMap((last * patterns).mean(axis=2), float((~ended.settled).mean()))


def basin_overlap(overlaps: Sequence[float], share: FloatArray) -> float:
    """The initial overlap from which half of the patterns are recovered.

    The smallest m such that from m and from all larger ones at least half are, by linear interpolation of the
    share in the overlap below the last value with less than a half. Where there is none, the smallest
    overlap, which is then an upper bound; nan if less than half are recovered from the largest. A small value
    is a large basin.

    Parameters
    ----------
    overlaps : sequence of float, n of them, increasing
    share : array, shape (n,)
        Share of the patterns recovered from each.
    """
    below = np.flatnonzero(np.asarray(share) < 0.5)
    if not below.size:
        return float(overlaps[0])
    if (k := int(below[-1])) == len(overlaps) - 1:
        return math.nan
    part = (0.5 - share[k]) / (share[k + 1] - share[k])
    return float(overlaps[k] + part * (overlaps[k + 1] - overlaps[k]))
