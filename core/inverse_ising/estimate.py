"""An estimate of couplings, and how far it is from the truth."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from bendscape.core.inverse_ising.model import FloatArray, pairs

Flag = Literal["estimated", "singular_correlations", "no_finite_estimate", "no_real_solution"]


class Estimate(NamedTuple):
    """Couplings and fields inferred from samples, both times the inverse temperature.

    Parameters
    ----------
    theta : array, shape (N, N)
        Symmetric, zeros on the diagonal; nan where there is no estimate.
    field : array, shape (N,)
    flag : str
        "estimated"; "singular_correlations": the samples do not determine the couplings, always so for M <=
        N; "no_finite_estimate": the likelihood has no finite maximum, or none was found;
        "no_real_solution": the TAP equation of a pair has none.
    """

    theta: FloatArray
    field: FloatArray
    flag: Flag = "estimated"


def no_estimate(N: int, flag: Flag) -> Estimate:
    """nan everywhere, with the reason."""
    return Estimate(np.full((N, N), math.nan), np.full(N, math.nan), flag)


class Scores(NamedTuple):
    """Errors of an estimate.

    Parameters
    ----------
    error : float
        Delta = [sum_{i<j} (estimate - theta_ij)^2 / sum_{i<j} theta_ij^2]^(1/2).
    error_edges : float
        The same with sums over the pairs that are coupled.
    error_non_edges : float
        Root mean square of the estimate over the other pairs, over that of theta over edges; nan if there is
        none.
    edge_auc : float
        Area under the receiver operating characteristic of |estimate|: the probability that a coupled pair
        has a larger |estimate| than another pair, ties counted half. nan if every pair is coupled.
    edges_recovered : float
        1 if every coupled pair has a larger |estimate| than every other, else 0; nan as the area. 0 without
        an estimate.
    """

    error: float
    error_edges: float
    error_non_edges: float
    edge_auc: float
    edges_recovered: float


def score(estimate: FloatArray, theta: FloatArray) -> Scores:
    """Compare an estimate with the true couplings, both N x N.

    With E coupled and E' other pairs, error^2 = error_edges^2 + (E'/E) error_non_edges^2.
    """
    found, true = pairs(estimate), pairs(theta)
    edges = true != 0
    size = float(np.linalg.norm(true))
    every = bool(edges.all())
    if np.isnan(found).any():
        return Scores(math.nan, math.nan, math.nan, math.nan, math.nan if every else 0.0)
    off = found - true
    parts = float(np.linalg.norm(off)) / size, float(np.linalg.norm(off[edges])) / size
    if every:
        return Scores(*parts, math.nan, math.nan, math.nan)
    there, other = np.abs(found[edges]), np.abs(found[~edges])
    non_edges = float(np.linalg.norm(other)) / size * math.sqrt(len(there) / len(other))
    return Scores(*parts, non_edges, _auc(there, other), float(there.min() > other.max()))


def _auc(positive: FloatArray, negative: FloatArray) -> float:
    """Probability that a positive exceeds a negative, ties counted half, from the sum of ranks."""
    ranks: npt.NDArray[np.float64] = rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float(ranks[:n].sum() - n * (n + 1) / 2) / (n * m)
