"""Ising models of at most 16 spins by enumeration of all states."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError
from bendscape.core.inverse_ising.model import FloatArray, Ising, Spins

MOST_SPINS = 16
"""Largest N that is enumerated: 2^16 states."""

Masks = npt.NDArray[np.int64]


def walsh(values: FloatArray) -> FloatArray:
    """Walsh-Hadamard transform, shape (2^N,): sum_b values_b (-1)^|a & b|, in N 2^N operations.

    With spin i of state a equal to -1 where bit i of a is set, it turns coefficients of products of spins
    into a function of the state, and probabilities of states into all correlations.
    """
    found = np.array(values, dtype=np.float64)
    half = 1
    while half < len(found):
        blocks = found.reshape(-1, 2, half)
        found = np.stack([blocks[:, 0] + blocks[:, 1], blocks[:, 0] - blocks[:, 1]], axis=1).reshape(-1)
        half *= 2
    return found


def masks(N: int) -> Masks:
    """The products of spins in the law, as sets of bits: the pairs i < j row by row, then single spins."""
    i, j = np.triu_indices(N, 1)
    single = np.int64(1) << np.arange(N)
    return np.concatenate([single[i] | single[j], single])


def probabilities(coefficients: FloatArray, of: Masks, N: int) -> tuple[FloatArray, float]:
    """Probability of every state, shape (2^N,), and the log of the partition function, for the exponent
    sum_A coefficients_A prod_{i in A} s_i.

    Raises
    ------
    ParameterError
        N > 16.
    """
    if N > MOST_SPINS:
        raise ParameterError("N", N, f"at most {MOST_SPINS}, for an enumeration of all states")
    spread = np.zeros(2**N)
    spread[of] = coefficients
    exponent = walsh(spread)
    top = float(exponent.max())
    weight = np.exp(exponent - top)
    total = float(weight.sum())
    return weight / total, top + float(np.log(total))


def state_probabilities(model: Ising) -> FloatArray:
    """Probability of every state of a model, shape (2^N,); ``spins_of`` has the order of the states."""
    upper = model.theta[np.triu_indices(model.N, 1)]
    return probabilities(np.concatenate([upper, model.field]), masks(model.N), model.N)[0]


def spins_of(states: npt.NDArray[np.int64], N: int) -> Spins:
    """The spins of states, (M,) -> (M, N)."""
    return (1 - 2 * ((states[:, None] >> np.arange(N)) & 1)).astype(np.int8)


def moments(model: Ising) -> tuple[FloatArray, FloatArray]:
    """Exact magnetisations <s_i>, shape (N,), and connected correlations <s_i s_j> - <s_i><s_j>, N x N."""
    N = model.N
    all_of = walsh(state_probabilities(model))
    single = np.int64(1) << np.arange(N)
    m = all_of[single]
    return m, all_of[single[:, None] ^ single[None, :]] - np.outer(m, m)
