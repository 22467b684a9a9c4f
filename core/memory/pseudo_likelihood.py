"""Couplings of the largest pseudo-likelihood: one logistic regression for each neuron, all solved at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from bendscape.core.errors import as_positive
from bendscape.core.memory.patterns import FloatArray
from bendscape.core.numerics.threads import on_one_thread

TOLERANCE = 1e-4
"""Gradient of a neuron, relative to its value at J = 0, at which its problem is solved."""
_MOST_STEPS = 60
_MOST_INNER = 400


class Maximised(NamedTuple):
    """The couplings, and how well the problems of all neurons are solved.

    Parameters
    ----------
    couplings : array, shape (N, N)
        Row i holds those of neuron i. They are not symmetric.
    residual : float
        Largest gradient of a neuron, relative to its value at J = 0. A neuron that correlates with no other
        has none there: its couplings are 0, and so is its residual.
    products : int
        Products of a (P, N) and an (N, N) matrix.
    """

    couplings: FloatArray
    residual: float
    products: int


@on_one_thread
def pseudo_likelihood(
    patterns: FloatArray, beta: float, regularisation: float, *, tolerance: float = TOLERANCE
) -> Maximised:
    """J_i = argmin sum_mu log(1 + exp(-2 beta xi_i h_i)) + (regularisation N/2) sum_j J_ij^2, h = J xi.

    The sum over mu is minus the log of the pseudo-likelihood, the probability exp(beta xi_i h_i)/(2 cosh
    beta h_i) of each spin given the others. Up to the scale of J only regularisation/beta^2 matters: large
    values give Hebb's couplings, and the limit 0, of low temperature, those of largest stability if there are
    any (independent patterns: alpha < 2).

    Parameters
    ----------
    patterns : array, shape (P, N)
    beta : float
        Inverse temperature at which the patterns are taken to be drawn, > 0.
    regularisation : float
        lambda > 0. With N lambda the fields are of order 1 for every N.
    tolerance : float
        Gradient of each neuron at the end, relative to its value at J = 0.

    Returns
    -------
    Maximised
        ``residual`` > ``tolerance`` if a neuron did not get there.

    Raises
    ------
    ParameterError
        A parameter is not > 0.

    Notes
    -----
    Newton's method, with directions from conjugate gradients and a backtracking line search, for every
    neuron, in products of matrices: a (P, N) times an (N, N) one, of 2 P N^2 operations. The problems are
    strictly convex. arXiv:2507.05147 descends the same loss without regularisation, from Hebb's couplings
    and for a finite time; the explicit term here takes the part of that time. Held by
    ``tests/test_memory.py``.
    """
    problem = _Problem(patterns, as_positive("beta", beta), as_positive("regularisation", regularisation))
    tolerance = as_positive("tolerance", tolerance)
    couplings, fields = np.zeros((problem.N, problem.N)), np.zeros_like(patterns)
    first = residual = np.empty(0)
    for step in range(_MOST_STEPS + 1):
        gradient, curvature = problem.derivatives(couplings, fields)
        size = np.linalg.norm(gradient, axis=1)
        first = size if step == 0 else first
        residual = np.divide(size, first, out=np.zeros_like(size), where=first > 0)
        if residual.max() <= tolerance or step == _MOST_STEPS:
            break
        direction = problem.solve(gradient, curvature, np.minimum(0.25, np.sqrt(residual)))
        along = problem.fields(direction)
        length = problem.search(couplings, fields, direction, along, (gradient * direction).sum(axis=1))
        couplings += length[:, None] * direction
        fields += length * along
    return Maximised(couplings, float(residual.max()), problem.products)


class _Problem:
    """The loss of all neurons; fields have the shape (P, N)."""

    def __init__(self, patterns: FloatArray, beta: float, regularisation: float) -> None:
        self.patterns, self.beta = patterns, beta
        self.N = patterns.shape[1]
        self.ridge = regularisation * self.N
        self.products = 0

    def fields(self, couplings: FloatArray) -> FloatArray:
        self.products += 1
        return np.asarray(self.patterns @ couplings.T)

    def _back(self, weights: FloatArray, couplings: FloatArray) -> FloatArray:
        """Sum over the patterns, and the term of the regularisation; without self-couplings."""
        self.products += 1
        found = weights.T @ self.patterns + self.ridge * couplings
        np.fill_diagonal(found, 0.0)
        return np.asarray(found)

    def derivatives(self, couplings: FloatArray, fields: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The gradient, (N, N), and the curvature of each term in its field, (P, N)."""
        wrong = expit(-2 * self.beta * self.patterns * fields)
        # the sum is of halves at J = 0, so that a gradient that vanishes does so without rounding
        gradient = 2 * self.beta * self._back(-self.patterns * wrong, couplings / (2 * self.beta))
        return gradient, 4 * self.beta**2 * wrong * (1 - wrong)

    def solve(self, gradient: FloatArray, curvature: FloatArray, accuracy: FloatArray) -> FloatArray:
        """Newton's direction of each neuron, to a relative accuracy of the residual."""
        found, left = np.zeros_like(gradient), -gradient
        search, square = left.copy(), (left**2).sum(axis=1)
        enough = accuracy**2 * square
        for _ in range(_MOST_INNER):
            if (done := square <= enough).all():
                break
            curved = self._back(curvature * self.fields(search), search)
            length = np.where(done, 0.0, square / np.maximum((search * curved).sum(axis=1), 1e-300))
            found += length[:, None] * search
            left -= length[:, None] * curved
            before, square = square, (left**2).sum(axis=1)
            search = left + (square / np.maximum(before, 1e-300))[:, None] * search
        return found

    def search(
        self,
        couplings: FloatArray,
        fields: FloatArray,
        direction: FloatArray,
        along: FloatArray,
        slope: FloatArray,
    ) -> FloatArray:
        """A step for each neuron that lowers its loss enough."""
        ridge = 0.5 * self.ridge

        def loss(length: FloatArray) -> FloatArray:
            terms = np.logaddexp(0.0, -2 * self.beta * self.patterns * (fields + length * along))
            return np.asarray(
                terms.sum(axis=0) + ridge * ((couplings + length[:, None] * direction) ** 2).sum(1)
            )

        length, here = np.ones(self.N), loss(np.zeros(self.N))
        for _ in range(30):
            poor = loss(length) > here + 1e-4 * length * slope + 1e-12 * here
            if not poor.any():
                break
            length[poor] /= 2
        return length
