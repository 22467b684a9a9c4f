"""Couplings in closed form."""

from __future__ import annotations

import numpy as np
from scipy.linalg import orth

from bendscape.core.errors import ParameterError
from bendscape.core.memory.patterns import FloatArray
from bendscape.core.numerics.threads import on_one_thread

_NOTHING = 1e-10
"""Norm of a row that is rounding: in samples of N <= 200 it is 4e-15 or less, and that of other rows 5e-6 or
more."""


@on_one_thread
def hebb(patterns: FloatArray) -> FloatArray:
    """J_ij = (1/N) sum_mu xi_i xi_j, J_ii = 0; patterns (P, N).

    At N = infinity and zero temperature independent patterns are retrieved up to a load of 0.138 (Amit,
    Gutfreund and Sompolinsky, Ann. Phys. 173 (1987) 30;
    :func:`bendscape.core.memory.theory.hebb_overlap`).
    """
    couplings = patterns.T @ patterns / patterns.shape[1]
    np.fill_diagonal(couplings, 0.0)
    return np.asarray(couplings)


@on_one_thread
def pseudo_inverse(patterns: FloatArray) -> FloatArray:
    """J_ij = (1/N) sum_mu,nu xi_i^mu [C^(-1)]_mu,nu xi_j^nu, C_mu,nu = xi^mu.xi^nu/N, with J_ii = 0.

    Before its diagonal is removed, J projects on the span of the patterns: its fields are the patterns, and
    its squared rows are its diagonal. Without it, the fields are (1 - J_ii) xi_i and the squared rows
    J_ii - J_ii^2. So all stabilities of a neuron are ((1 - J_ii)/J_ii)^(1/2), and ((1 - alpha)/alpha)^(1/2)
    at N = infinity, where J_ii = alpha.

    Where the span contains the state of one spin alone, as it often does at small N and P near N, J_ii is 1:
    this spin depends on no other in any pattern. Its row and column are 0, its stabilities too, and the
    dynamics never turn it.

    Parameters
    ----------
    patterns : array, shape (P, N)
        Linearly dependent ones are accepted.

    Raises
    ------
    ParameterError
        The patterns span all states: J would vanish outside its diagonal. Independent patterns do from P = N.

    Notes
    -----
    Source: Kanter and Sompolinsky, Phys. Rev. A 35 (1987) 380, for the rule without self-couplings.
    """
    basis = orth(patterns.T)
    if basis.shape[1] == len(basis):
        accepted = f"patterns that span fewer than N = {len(basis)} dimensions"
        raise ParameterError("patterns", len(patterns), accepted, "use a smaller load")
    couplings = basis @ basis.T
    np.fill_diagonal(couplings, 0.0)
    alone = np.linalg.norm(couplings, axis=1) < _NOTHING
    couplings[alone] = couplings[:, alone] = 0.0
    return np.asarray(couplings)
