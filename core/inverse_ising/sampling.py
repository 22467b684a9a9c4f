"""Independent samples of an Ising model: exact for at most 16 spins, else one Markov chain for each."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bendscape.core.errors import as_integer
from bendscape.core.inverse_ising.exact import MOST_SPINS, spins_of, state_probabilities
from bendscape.core.inverse_ising.model import FloatArray, Ising, Spins
from bendscape.core.numerics.threads import on_one_thread

LEAST_CLUSTER_CHAINS = 100
"""Chains of Swendsen-Wang moves that are run at least, so that the check has power with few samples too."""
LEAST_HEAT_BATH_CHAINS = 1000
"""The same for the heat bath: metastable states of a glass differ little in energy."""
_QUENCH = 20  # sweeps of the quenches at a tenth of the temperature


class Samples(NamedTuple):
    """Samples of a model.

    Parameters
    ----------
    spins : array, shape (M, N)
        +-1.
    start_difference : float
        Mean exponent (minus energy over temperature) of chains from cold starts minus that of chains from hot
        starts, in standard errors: a standard normal number in equilibrium. nan for exact samples.
    """

    spins: Spins
    start_difference: float


@on_one_thread
def draw_samples(model: Ising, M: int, rng: np.random.Generator, sweeps: int = 100) -> Samples:
    """M independent samples.

    Up to 16 spins they are exact. Otherwise each is the last state of a chain of its own, so that samples
    have no autocorrelation: of Swendsen-Wang moves if no coupling and no field is negative, else of
    heat-bath sweeps, one spin after the other.

    Parameters
    ----------
    model : Ising
    M : int
        Number of samples, >= 1.
    rng : numpy.random.Generator
    sweeps : int
        Length of a chain, >= 1. Even chains start hot, from random spins. Odd chains start cold, from one
        state: all spins up, or, for the heat bath, the state of largest exponent that quenches to a tenth of
        the temperature find, one quench for each odd chain; without a field, up to a random sign.

    Returns
    -------
    Samples
        With the check of equilibrium, over max(M, 100) chains of clusters or max(M, 1000) of the heat bath.

    Notes
    -----
    The check sees energies only, and only their means. It needs a cold start that differs from where hot
    chains get stuck: chains from quenches of their own end in the same metastable states as hot ones. A
    glassy model can pass it and still have its states with wrong weights. Random numbers of the heat bath
    have 24 bits: probabilities are exact to 6e-8.
    Sources: Swendsen and Wang, Phys. Rev. Lett. 58 (1987) 86. Held by ``tests/test_inverse_ising.py``,
    against enumeration and against Kaufman's energy of the finite lattice.
    """
    M, sweeps = as_integer("samples", M, 1), as_integer("sweeps", sweeps, 1)
    if model.N <= MOST_SPINS:
        cumulative = np.cumsum(state_probabilities(model))
        states = np.searchsorted(cumulative, rng.random(M) * cumulative[-1], side="right")
        return Samples(spins_of(states, model.N), math.nan)
    if _ferromagnetic(model):
        spins = swendsen_wang(model, max(M, LEAST_CLUSTER_CHAINS), rng, sweeps)
    else:
        spins = heat_bath(model, max(M, LEAST_HEAT_BATH_CHAINS), rng, sweeps)
    value = exponents(model, spins)
    hot, cold = value[0::2], value[1::2]
    variance = hot.var(ddof=1) / len(hot) + cold.var(ddof=1) / len(cold)
    difference = float(cold.mean() - hot.mean())
    # Without any spread, both means agree or nothing moved: frozen chains differ by infinitely many errors.
    in_errors = difference / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, difference)
    return Samples(spins[:M], in_errors if difference else 0.0)


def exponents(model: Ising, spins: Spins) -> FloatArray:
    """sum_{i<j} theta_ij s_i s_j + sum_i field_i s_i of each state, (M, N) -> (M,)."""
    s = spins.astype(np.float64)
    return np.asarray(0.5 * ((s @ model.theta) * s).sum(axis=1) + s @ model.field)


def heat_bath(model: Ising, chains: int, rng: np.random.Generator, sweeps: int) -> Spins:
    """Last states of chains of heat-bath sweeps, shape (chains, N); odd chains start from the best quench."""
    spins = _random_spins(model.N, chains, rng)  # by spin, then chain: a row is updated at once
    cold = np.ascontiguousarray(spins[:, 1::2])
    if cold.size:
        _heat_bath_sweeps(cold, Ising(10 * model.theta, 10 * model.field), rng, _QUENCH)
        best = cold[:, [exponents(model, cold.T).argmax()]]
        # Both signs have the same weight without a field: chains of one sign would magnetise the samples.
        signs = np.float32(1) if model.field.any() else _random_spins(1, cold.shape[1], rng)
        spins[:, 1::2] = best * signs
    _heat_bath_sweeps(spins, model, rng, sweeps)
    return np.asarray(spins.T.astype(np.int8))


def _heat_bath_sweeps(spins: np.ndarray, model: Ising, rng: np.random.Generator, sweeps: int) -> None:
    """Set each spin to +1 with probability 1/(1 + exp(-2 h)), h its field, in float32 and in place."""
    theta, field = model.theta.astype(np.float32), model.field.astype(np.float32)
    neighbours = [np.flatnonzero(row) for row in theta]
    sparse = max(map(len, neighbours)) < model.N // 4
    limit = np.float32(40)  # beyond it, the probability is 0 or 1 to all bits
    for _ in range(sweeps):
        for i, near in enumerate(neighbours):
            h = theta[i, near] @ spins[near] if sparse else theta[i] @ spins
            odds = np.exp(np.clip(-2 * (h + field[i]), -limit, limit))
            spins[i] = np.where(rng.random(len(odds), dtype=np.float32) * (1 + odds) < 1, 1, -1)


def swendsen_wang(model: Ising, chains: int, rng: np.random.Generator, sweeps: int) -> Spins:
    """Last states of chains of cluster moves, shape (chains, N), for couplings and fields >= 0; odd chains
    start with all spins up.

    Bonds between equal neighbours are kept with probability 1 - exp(-2 theta), and every cluster is turned
    with probability 1/2. A field is a bond to a spin that is always up: it keeps the cluster of an up spin
    as it is with probability 1 - exp(-2 field). The clusters of all chains are found at once.
    """
    N = model.N
    spins = _random_spins(N, chains, rng).T.astype(np.int8)
    spins[1::2] = 1
    i, j = np.nonzero(np.triu(model.theta))
    keep = -np.expm1(-2 * model.theta[i, j]).astype(np.float32)
    fixed = -np.expm1(-2 * model.field).astype(np.float32)
    has_field = bool(fixed.any())
    for _ in range(sweeps):
        bonds = (spins[:, i] == spins[:, j]) & (rng.random((chains, len(i)), dtype=np.float32) < keep)
        chain, bond = np.nonzero(bonds)
        ends = (chain * N + i[bond], chain * N + j[bond])
        graph = coo_array((np.ones(len(chain)), ends), shape=(chains * N, chains * N))
        count, cluster = connected_components(graph, directed=False)
        turned = rng.random(count, dtype=np.float32) < 0.5
        if has_field:
            held = (spins == 1) & (rng.random(spins.shape, dtype=np.float32) < fixed)
            turned[cluster[held.reshape(-1)]] = False
        spins = np.where(turned[cluster].reshape(chains, N), -spins, spins)
    return spins


def _random_spins(N: int, chains: int, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random((N, chains), dtype=np.float32) < 0.5, np.float32(-1), np.float32(1))


def _ferromagnetic(model: Ising) -> bool:
    return bool((model.theta >= 0).all() and (model.field >= 0).all())
