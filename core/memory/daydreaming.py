"""Daydreaming: couplings that are pulled to the patterns and pushed away from what the network dreams."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.sparse.linalg import eigsh

from bendscape.core.errors import as_integer, as_positive
from bendscape.core.memory.dynamics import Couplings, relax
from bendscape.core.memory.patterns import FloatArray, signs
from bendscape.core.memory.retrieval import stabilities
from bendscape.core.memory.rules import hebb
from bendscape.core.numerics.threads import on_one_thread

_MOST_DREAMS = 64
_SHARE = 1 / 32


class Schedule(NamedTuple):
    """Changes of the couplings in an epoch, and dreams for each."""

    updates: int
    dreams: int


class Dreamed(NamedTuple):
    """The couplings at the end of training.

    Parameters
    ----------
    couplings : array, shape (N, N)
        Symmetric, with spectral norm 1.
    drift : float
        Relative change of the mean stability of the patterns over the second half of training. It hardly
        falls with the duration, and is small far from the limit too.
    epochs : int
        Times N dreams.
    """

    couplings: FloatArray
    drift: float
    epochs: int


def schedule(tau: float, P: int, N: int) -> Schedule:
    """The default groups: tau P/32 dreams, at most 64."""
    updates = math.ceil(N / max(1, min(_MOST_DREAMS, int(_SHARE * tau * P))))
    return Schedule(updates, math.ceil(N / updates))


@on_one_thread
def daydream(
    patterns: FloatArray,
    tau: float,
    rng: np.random.Generator,
    *,
    duration: float = 1.0,
    dreams: int | None = None,
) -> Dreamed:
    """J <- J + (1/(tau N)) (xi xi^T - s s^T) for every dream s, from Hebb's couplings.

    A dream is the fixed point that asynchronous zero-temperature dynamics reach from a random state. After
    each epoch of N dreams J is divided by its spectral norm.

    Parameters
    ----------
    patterns : array, shape (P, N)
    tau : float
        Time constant, > 0: one dream changes J by 1/tau of its spectral norm, which is 1. That of Hebb's rule
        is 1 + 2 alpha^(1/2) for independent patterns, so that this is (1 + 2 alpha^(1/2))/tau of a pattern's
        part in the couplings at the start. Couplings at the end fluctuate, with a variance proportional to
        1/tau.
    rng : numpy.random.Generator
        Of the dreams.
    duration : float
        Length of training, in units of tau epochs, > 0; two epochs at least.
    dreams : int, optional
        Dreams between two changes of the couplings. By default :func:`schedule`'s: if all patterns are
        dreamt alike, an attractor changes by 1/32.

    Raises
    ------
    ParameterError
        A parameter is out of its range.

    Notes
    -----
    The rule is that of Serricchio et al., Neural Networks 186 (2025) 107216 (arXiv:2405.08777), as described
    by others: the text was not available. It differs in two ways. In place of one random pattern, xi xi^T is
    the mean over all patterns, its expectation, which leaves less noise. And dreams come in groups with the
    same couplings, in products of matrices; ``dreams=1`` has none. Because the norm is fixed, the couplings
    have a limit; without the division their direction has the same one, and their norm grows.

    Single precision. Cost: duration tau N dreams, each of some 4 sweeps of 2 N^2 operations. Held by
    ``tests/test_memory.py``.
    """
    tau, duration = as_positive("tau", tau), as_positive("duration", duration)
    P, N = patterns.shape
    updates, group = schedule(tau, P, N)
    if dreams is not None:
        updates = math.ceil(N / as_integer("dreams", dreams, 1))
        group = math.ceil(N / updates)
    epochs = max(2, math.ceil(duration * tau))
    start = np.asarray(rng.standard_normal(N), np.float32)
    couplings = _normalised(hebb(patterns).astype(np.float32), start)
    pull = (patterns.T @ patterns / len(patterns)).astype(np.float32)
    rate = np.float32(1 / (tau * N))
    half = math.nan
    for epoch in range(epochs):
        for _ in range(updates):
            dreamt = relax(couplings, signs((group, N), rng), rng).states
            couplings += rate * (group * pull - dreamt.T @ dreamt)
        couplings = _normalised(couplings, start)
        if epoch + 1 == epochs // 2:
            half = float(stabilities(couplings, patterns).mean())
    found = couplings.astype(np.float64)
    end = float(stabilities(found, patterns).mean())
    return Dreamed(found, abs(end - half) / abs(end), epochs)


def _normalised(couplings: Couplings, start: Couplings) -> Couplings:
    """The couplings over their spectral norm, to a relative error of 1e-3."""
    (value,) = eigsh(couplings, k=1, v0=start, tol=1e-3, return_eigenvectors=False)
    return np.asarray(couplings / abs(value))
