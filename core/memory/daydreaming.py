"""Daydreaming: couplings that are pulled to the patterns and pushed away from what the network dreams."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.sparse.linalg import eigsh

from bendscape.core.errors import ParameterError, as_integer, as_positive, as_real
from bendscape.core.memory.dynamics import Couplings, relax
from bendscape.core.memory.patterns import FloatArray, signs
from bendscape.core.memory.rules import hebb
from bendscape.core.numerics.threads import on_one_thread

_MOST_DREAMS = 64
_SHARE = 1 / 16


class Schedule(NamedTuple):
    """Changes of the couplings in an epoch, and dreams for each."""

    updates: int
    dreams: int


class Dreamed(NamedTuple):
    """What training has found.

    Parameters
    ----------
    couplings : array, shape (N, N)
        Mean over the epochs of the second half of training; symmetric, with spectral norm 1.
    drift : float
        |J/|J| - J'/|J'||, |J|^2 = sum_ij J_ij^2, J' the couplings that half the training would have returned.
    epochs : int
        Times N dreams.
    """

    couplings: FloatArray
    drift: float
    epochs: int


def schedule(tau: float, P: int, N: int) -> Schedule:
    """The default groups: tau P/16 dreams, at most 64."""
    updates = math.ceil(N / max(1, min(_MOST_DREAMS, int(_SHARE * tau * P))))
    return Schedule(updates, math.ceil(N / updates))


@on_one_thread
def daydream(
    patterns: FloatArray,
    tau: float,
    rng: np.random.Generator,
    *,
    duration: float = 16.0,
    dreams: int | None = None,
) -> Dreamed:
    """J <- J + (1/(tau N)) (xi xi^T - s s^T) for every dream s, from Hebb's couplings.

    A dream is the fixed point that asynchronous zero-temperature dynamics reach from a random state. After
    each epoch of N dreams J is divided by its spectral norm. The result is the mean of J over the second half
    of training.

    Parameters
    ----------
    patterns : array, shape (P, N)
    tau : float
        Time constant, > 0: one dream changes J by 1/tau of its spectral norm, which is 1. That of Hebb's rule
        is 1 + 2 alpha^(1/2) for independent patterns, so that this is (1 + 2 alpha^(1/2))/tau of a pattern's
        part in the couplings at the start. J fluctuates about its mean with a variance proportional to 1/tau.
    rng : numpy.random.Generator
        Of the dreams.
    duration : float
        Length of training, in units of tau epochs, >= 1; four epochs at least.
    dreams : int, optional
        Dreams between two changes of the couplings. By default :func:`schedule`'s: if all patterns are
        dreamt alike, an attractor changes by 1/16.

    Raises
    ------
    ParameterError
        A parameter is out of its range.

    Notes
    -----
    The rule is that of Serricchio et al., Neural Networks 186 (2025) 107216 (arXiv:2405.08777), as described
    by others: the text was not available. It differs in three ways. In place of one random pattern, xi xi^T
    is the mean over all patterns, its expectation, which leaves less noise. Dreams come in groups with the
    same couplings, in products of matrices; ``dreams=1`` has none. And couplings are averaged, which removes
    most of the fluctuations that tau leaves (Polyak and Juditsky, SIAM J. Control Optim. 30 (1992) 838).

    A small ``drift`` says that the direction of the couplings hardly changes when training is twice as long,
    at this tau. It holds both what training has not reached yet and the fluctuations that the averages leave.
    Both are sums over all pairs, so that it has little scatter. Below a duration of 8 it can be small where
    the couplings only move slowly; docs/memory.md compares it with the distance from much longer trainings.

    Single precision. Cost: duration tau N dreams, each of some 4 sweeps of 2 N^2 operations. Held by
    ``tests/test_memory.py``.
    """
    tau = as_positive("tau", tau)
    if not 1 <= as_real(duration) < math.inf:
        raise ParameterError("duration", duration, "a finite number >= 1")
    P, N = patterns.shape
    updates, group = schedule(tau, P, N)
    if dreams is not None:
        updates = math.ceil(N / as_integer("dreams", dreams, 1))
        group = math.ceil(N / updates)
    epochs = max(4, math.ceil(duration * tau))
    start = np.asarray(rng.standard_normal(N), np.float32)
    couplings = _normalised(hebb(patterns).astype(np.float32), start)
    pull = (patterns.T @ patterns / P).astype(np.float32)
    rate = np.float32(1 / (tau * N))
    half, total = np.zeros((N, N)), np.zeros((N, N))
    for epoch in range(epochs):
        for _ in range(updates):
            dreamt = relax(couplings, signs((group, N), rng), rng).states
            couplings += rate * (group * pull - dreamt.T @ dreamt)
        couplings = _normalised(couplings, start)
        if epochs // 4 <= epoch < epochs // 2:
            half += couplings
        elif epoch >= epochs // 2:
            total += couplings
    drift = np.linalg.norm(total / np.linalg.norm(total) - half / np.linalg.norm(half))
    return Dreamed(_normalised(total, start).astype(np.float64), float(drift), epochs)


def _normalised(couplings: Couplings, start: Couplings) -> Couplings:
    """The couplings over their spectral norm, to a relative error of 1e-3."""
    (value,) = eigsh(couplings, k=1, v0=start, tol=1e-3, return_eigenvectors=False)
    return np.asarray(couplings / abs(value))
