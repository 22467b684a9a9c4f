"""Couplings by the logistic regression of every spin on all others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import expit

from bendscape.core.inverse_ising.estimate import Estimate, no_estimate
from bendscape.core.inverse_ising.maximum_likelihood import FLAT, LONG, check_l2
from bendscape.core.inverse_ising.model import FloatArray, Spins
from bendscape.core.numerics.threads import on_one_thread

_MOST_STEPS, _MOST_INNER = 60, 50
_ACCURACY = 1e-6
"""Largest last Newton step; what it leaves is smaller by the factor of ``_REDUCTION``."""
_REDUCTION = 1e-3
"""Factor by which conjugate gradients reduce the squared residual, in the metric of the preconditioner."""
_SINGULAR = 1e-10


@on_one_thread
def pseudo_likelihood(spins: Spins, l2: float = 0.0) -> Estimate:
    """The couplings and fields that maximise, for every spin r, with theta_rr = 0,

    sum_mu log p(s_r | all others) - (l2/2) sum_j theta_rj^2,  p(s_r | ...) = 1/(1 + exp(-2 s_r h_r)),
    h_r = field_r + sum_j theta_rj s_j,

    and then theta_ij = (theta_ij + theta_ji)/2.

    Newton's iteration on all N regressions at once; steps come from conjugate gradients preconditioned by
    the second moments of the spins. One product with the curvature costs 4 M N^2 operations. Where they are
    slow, close to a maximum at infinity, a spin's step is solved for directly, in M N^2.

    Parameters
    ----------
    spins : array, shape (M, N)
        +-1.
    l2 : float
        Precision >= 0 of a Gaussian prior of the couplings; fields have none. Its weight falls as 1/M.

    Returns
    -------
    Estimate
        "singular_correlations" where spins are linearly dependent in the samples and l2 = 0, always so for M
        <= N; "no_finite_estimate" where a spin is a threshold function of the others in the samples, so that
        the maximum lies at infinity.

    Raises
    ------
    ParameterError
        l2 < 0.

    Notes
    -----
    Consistent: the error falls as M^(-1/2). Source: Ravikumar, Wainwright and Lafferty, Ann. Stat. 38 (2010)
    1287; Aurell and Ekeberg, Phys. Rev. Lett. 108 (2012) 090201.
    """
    check_l2(l2)
    M, N = spins.shape
    s = spins.astype(np.float64)
    x = np.concatenate([s, np.ones((M, 1))], axis=1)
    prior = np.concatenate([np.full(N, l2 / M), [0.0]])
    second = (x.T @ x) / M + np.diag(prior)
    if (spins == spins[0]).all(axis=0).any():
        return no_estimate(N, "no_finite_estimate")  # the field of a spin that never turns
    if not np.linalg.eigvalsh(second)[0] > _SINGULAR:
        return no_estimate(N, "singular_correlations")
    inverse = cho_solve(cho_factor(second), np.eye(N + 1))

    def free(rows: FloatArray) -> FloatArray:
        """Rows of parameters without the coupling of each spin to itself."""
        rows[np.arange(N), np.arange(N)] = 0.0
        return rows

    def precondition(rows: FloatArray) -> FloatArray:
        """Rows times the inverse of the second moments of the other spins."""
        found = rows @ inverse
        own = np.diag(found) / np.diag(inverse)[:N]
        return free(found - own[:, None] * inverse[:N])

    def losses(at: FloatArray) -> FloatArray:
        return np.asarray(np.logaddexp(0, -2 * s * (x @ at.T)).mean(axis=0) + 0.5 * (at**2) @ prior)

    at, value = np.zeros((N, N + 1)), np.full(N, np.log(2.0))
    for _ in range(_MOST_STEPS):
        margin = s * (x @ at.T)
        if l2 == 0 and (margin > 0).all(axis=0).any():
            return no_estimate(N, "no_finite_estimate")  # larger couplings are always better
        wrong = expit(-2 * margin)
        gradient = free(-2 / M * ((s * wrong).T @ x) + at * prior)
        curvature = 4 * wrong * (1 - wrong)

        def curve(rows: FloatArray, curvature: FloatArray = curvature) -> FloatArray:
            """Rows times the second derivatives."""
            return free((curvature * (x @ rows.T)).T @ x / M + rows * prior)

        step, solved = _conjugate_gradients(gradient, curve, precondition)
        for r in np.flatnonzero(~solved):
            others = np.delete(np.arange(N + 1), r)
            curved = (x.T * curvature[:, r]) @ x / M + np.diag(prior)
            try:
                factor = cho_factor(curved[np.ix_(others, others)])
            except LinAlgError:
                return no_estimate(N, "no_finite_estimate")
            step[r, others] = cho_solve(factor, gradient[r, others])
        decrease = (gradient * step).sum(axis=1)
        if ((decrease < FLAT) & (np.abs(step).max(axis=1) > LONG)).any():
            break
        size = np.ones(N)
        while True:
            new = losses(at - size[:, None] * step)
            high = (new > value - 0.25 * size * decrease + 1e-14) & (size > 1e-6)
            if not high.any():
                break
            size[high] /= 2
        at, value = at - size[:, None] * step, new
        if float(np.abs(step).max()) <= _ACCURACY:
            return Estimate(0.5 * (at[:, :N] + at[:, :N].T), at[:, N])
    return no_estimate(N, "no_finite_estimate")


def _conjugate_gradients(
    right: FloatArray,
    product: Callable[[FloatArray], FloatArray],
    precondition: Callable[[FloatArray], FloatArray],
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Solve one system for each row, and say which are solved."""
    found, residual = np.zeros_like(right), right.copy()
    direction = precondition(residual)
    first = size = (residual * direction).sum(axis=1)
    for _ in range(_MOST_INNER):
        curved = product(direction)
        along = _ratio(size, (direction * curved).sum(axis=1))
        found += along * direction
        residual -= along * curved
        next_direction = precondition(residual)
        before, size = size, (residual * next_direction).sum(axis=1)
        if (size <= _REDUCTION * first).all():
            break
        direction = next_direction + _ratio(size, before) * direction
    return found, size <= _REDUCTION * first


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """above/below as a column, 0 for a row that is solved."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)[:, None]
