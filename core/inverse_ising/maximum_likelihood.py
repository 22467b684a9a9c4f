"""Exact maximum likelihood of the couplings and fields of at most 16 spins."""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from bendscape.core.errors import ParameterError
from bendscape.core.inverse_ising.estimate import Estimate, no_estimate
from bendscape.core.inverse_ising.exact import MOST_SPINS, masks, probabilities, walsh
from bendscape.core.inverse_ising.model import FloatArray, Ising, Spins
from bendscape.core.numerics.threads import on_one_thread

_MOST_STEPS = 100
_ACCURACY = 1e-8
"""Largest last step of Newton's iteration, which then has squared it."""
FLAT, LONG = 1e-12, 1e-3
"""A step longer than ``LONG`` that gains less than ``FLAT`` of log likelihood per sample leads to infinity:
the curvature along it is below 1e-6."""


@on_one_thread
def maximum_likelihood(spins: Spins, l2: float = 0.0) -> Estimate:
    """The couplings and fields that maximise sum_mu log p(s_mu) - (l2/2) sum_{i<j} theta_ij^2.

    Newton's iteration with backtracking; moments of all orders, among them the Fisher information, come from
    one Walsh-Hadamard transform of the probabilities of all 2^N states.

    Parameters
    ----------
    spins : array, shape (M, N)
        +-1, N <= 16.
    l2 : float
        Precision >= 0 of a Gaussian prior of the couplings; fields have none. Its weight falls as 1/M.

    Returns
    -------
    Estimate
        "no_finite_estimate" where the maximum lies at infinity, as with a pair of spins that is never equal.
        A prior makes couplings finite, but not the field of a spin that is never turned.

    Raises
    ------
    ParameterError
        N > 16, or l2 < 0.
    """
    M, N = spins.shape
    if N > MOST_SPINS:
        raise ParameterError("N", N, f"at most {MOST_SPINS} for maximum_likelihood", "pseudo_likelihood")
    check_l2(l2)
    of = masks(N)
    n_pairs = len(of) - N
    s = spins.astype(np.float64)
    i, j = np.triu_indices(N, 1)
    wanted = np.concatenate([((s.T @ s) / M)[i, j], s.mean(axis=0)])
    prior = np.concatenate([np.full(n_pairs, l2 / M), np.zeros(N)])

    def objective(at: FloatArray) -> tuple[float, FloatArray]:
        p, log_z = probabilities(at, of, N)
        return log_z - float(wanted @ at) + 0.5 * float(prior @ at**2), p

    at = np.zeros(len(of))
    value, p = objective(at)
    for _ in range(_MOST_STEPS):
        correlations = walsh(p)
        gradient = correlations[of] - wanted + prior * at
        try:
            step = cho_solve(cho_factor(_fisher(correlations, of) + np.diag(prior)), gradient)
        except LinAlgError:
            break
        size, decrease = 1.0, float(gradient @ step)
        if decrease < FLAT and float(np.abs(step).max()) > LONG:
            break
        while True:
            new, p = objective(at - size * step)
            if new <= value - 0.25 * size * decrease + 1e-14 * abs(value) or size < 1e-6:
                break
            size /= 2
        at, value = at - size * step, new
        if float(np.abs(step).max()) <= _ACCURACY:
            theta = np.zeros((N, N))
            theta[i, j] = theta[j, i] = at[:n_pairs]
            return Estimate(theta, at[n_pairs:])
    return no_estimate(N, "no_finite_estimate")


def fisher_information(model: Ising) -> FloatArray:
    """Covariance of the products s_i s_j, i < j, and of the s_i, in one sample: the inverse over M is the
    covariance of the maximum-likelihood estimate as M -> infinity."""
    of = masks(model.N)
    upper = model.theta[np.triu_indices(model.N, 1)]
    return _fisher(walsh(probabilities(np.concatenate([upper, model.field]), of, model.N)[0]), of)


def check_l2(l2: float) -> None:
    """Refuse a negative regularisation."""
    if not 0 <= l2 < np.inf:
        raise ParameterError("l2", l2, "a finite number >= 0")


def _fisher(correlations: FloatArray, of: np.ndarray) -> FloatArray:
    """<AB> - <A><B>; a product of two products of spins is that of their symmetric difference."""
    mean = correlations[of]
    return np.asarray(correlations[of[:, None] ^ of[None, :]] - np.outer(mean, mean))
