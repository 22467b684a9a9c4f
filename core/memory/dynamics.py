"""Zero-temperature dynamics of many states at once."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from bendscape.core.errors import ParameterError, as_integer
from bendscape.core.numerics.threads import on_one_thread

Update = Literal["asynchronous", "parallel"]
Couplings = npt.NDArray[np.floating]
States = npt.NDArray[np.floating]

MOST_SWEEPS = 200
_BLOCK = 64
"""Neurons whose fields are brought up to date by one matrix product."""
_ROUNDING = 8.0


class Relaxed(NamedTuple):
    """Where the dynamics ended.

    Parameters
    ----------
    states : array, shape (n, N)
        The last state of each.
    settled : bool array, shape (n,)
        Whether it is a fixed point.
    sweeps : int
        Sweeps of the state that took longest.
    """

    states: States
    settled: npt.NDArray[np.bool_]
    sweeps: int


@on_one_thread
def relax(
    couplings: Couplings,
    states: States,
    rng: np.random.Generator,
    *,
    update: Update = "asynchronous",
    most_sweeps: int = MOST_SWEEPS,
) -> Relaxed:
    """s_i <- sign(sum_j J_ij s_j) until nothing changes; where the field is 0 the spin stays.

    A field counts as 0 if its modulus is at most 8 eps sum_j |J_ij|, eps the spacing of floating point at 1:
    otherwise fields that cancel, as they do by Hebb's rule, would have the sign of a rounding error.

    Parameters
    ----------
    couplings : array, shape (N, N)
        J, with zeros on the diagonal, float32 or float64: the arithmetic is that of its type.
    states : array, shape (n, N)
        Initial states of +1 and -1. They are not changed.
    rng : numpy.random.Generator
        Draws the order of updates.
    update : {"asynchronous", "parallel"}
        Asynchronous: one spin after another, all of them in each sweep, in a random order that is drawn once
        and shared by all states and sweeps. Parallel: all spins at once.
    most_sweeps : int
        A state that still moves after so many sweeps is not settled.

    Returns
    -------
    Relaxed
        States that entered a cycle of period 2, or that still move, are not settled.

    Raises
    ------
    ParameterError
        ``update`` is unknown or ``most_sweeps`` not >= 1.

    Notes
    -----
    With symmetric couplings asynchronous updates never raise the energy -1/2 sum_ij J_ij s_i s_j, so every
    state settles; parallel ones end in a fixed point or in a cycle of period 2 (Goles and Olivos, Discrete
    Math. 30 (1980) 187). With other couplings neither is certain. The fixed points are the same for both, the
    basins are not. Cost of a sweep: 2 n N^2 operations at first, in products of matrices, and little once few
    spins flip. Held by ``tests/test_memory.py``.
    """
    most_sweeps = as_integer("most_sweeps", most_sweeps, 1)
    if update not in get_args(Update):
        raise ParameterError("update", update, f"one of {', '.join(get_args(Update))}")
    if update == "parallel":
        incoming = np.ascontiguousarray(couplings.T)
        return _parallel(incoming, np.array(states, dtype=incoming.dtype), most_sweeps)
    order = rng.permutation(len(couplings))
    incoming = np.ascontiguousarray(couplings[np.ix_(order, order)].T)
    spins = np.array(states[:, order], dtype=incoming.dtype)
    fields, turns_below = spins @ incoming, _turns_below(incoming)
    sweep = 0
    while (against := fields * spins < turns_below).any() and sweep < most_sweeps:
        for first in range(0, len(order), _BLOCK):
            _update_block(incoming, spins, fields, turns_below, slice(first, first + _BLOCK))
        sweep += 1
    return Relaxed(spins[:, np.argsort(order)], np.asarray((~against).all(axis=1)), sweep)


@on_one_thread
def is_fixed(couplings: Couplings, states: States) -> npt.NDArray[np.bool_]:
    """Whether each state is a fixed point of :func:`relax`: no field against its spin; (n, N) -> (n,)."""
    incoming = np.ascontiguousarray(couplings.T)
    spins = np.asarray(states, dtype=incoming.dtype)
    return np.asarray(((spins @ incoming) * spins >= _turns_below(incoming)).all(axis=1))


def _turns_below(incoming: Couplings) -> Couplings:
    """A spin turns if its field times itself is below this: 0 but for rounding, shape (N,)."""
    return np.asarray(-_ROUNDING * np.finfo(incoming.dtype).eps * np.abs(incoming).sum(axis=0))


def _update_block(
    incoming: Couplings, spins: States, fields: States, turns_below: Couplings, block: slice
) -> None:
    """Update the spins of a block one after another, and then all fields at once."""
    least = turns_below[block, None]
    moving = np.flatnonzero((fields[:, block] * spins[:, block] < least.T).any(axis=1))
    if not moving.size:
        return
    s, h = spins[moving, block].T.copy(), fields[moving, block].T.copy()
    before, within = s.copy(), incoming[block, block]
    k = 0
    while k < len(s):  # most spins stay: go from one that moves to the next
        against = (h[k:] * s[k:] < least[k:]).any(axis=1)
        if not against.any():
            break
        k += int(against.argmax())
        change = np.where(h[k] * s[k] < least[k], -2 * s[k], 0)
        s[k] += change
        h[k + 1 :] += within[k, k + 1 :, None] * change
        k += 1
    spins[moving, block] = s.T
    fields[moving] += (s - before).T @ incoming[block]


def _parallel(incoming: Couplings, spins: States, most_sweeps: int) -> Relaxed:
    settled = np.zeros(len(spins), bool)
    moving, earlier = np.arange(len(spins)), np.zeros_like(spins)
    turns_below = _turns_below(incoming)
    for sweep in range(most_sweeps):
        now = spins[moving]
        after = np.where((now @ incoming) * now < turns_below, -now, now)
        fixed, cycle = ((after == other).all(axis=1) for other in (now, earlier))
        settled[moving[fixed]] = True
        spins[moving], earlier = after, now[~(fixed | cycle)]
        moving = moving[~(fixed | cycle)]
        if not moving.size:
            return Relaxed(spins, settled, sweep)
    return Relaxed(spins, settled, most_sweeps)
