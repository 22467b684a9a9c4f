"""The label-only spectral method: the Hessian's blocks with weights that depend only on the label.

D_f = (1/N) sum_mu f(y_mu) x_mu x_mu^T is N x N. One diagonal block of the Hessian becomes such a matrix when
the student is so wide that its output no longer fluctuates. It is also the usual spectral initialisation of a
generalised linear model. With phi = f/|inf f|, so that inf phi = -1, everything is an average over the one
variable y, a gamma variable of mean 1 and shape n = p_star/2:

    T = phi/(1 + gamma phi)   A = E[T]   F = E[(y - 1) T]   B = E[T^2]   B_y = E[y T^2]

and edge, outlier, overlap and both kinds of transition are those of the Hessian in these averages. With noise
on the teacher's pre-activations the teacher's weight E[u_l^2 | y] takes the place of y in F and B_y, and
below. Noise added to y itself is refused: the Hessian that this is compared with has no left edge then.

No f, and no Hessian of any width either, does better than f = (1 - y)/y. Write h = gamma T: an outlier with
squared overlap m^2 obeys alpha E[(1 - y) h] = 1 and alpha E[(1 + m^2 (y - 1)) h^2] = 1 - m^2, so that by
Cauchy and Schwarz 1 <= alpha E[(1 - y)^2/(1 + r y)] with r = m^2/(1 - m^2). The right-hand side falls with
r; equality, which is reached by f = (1 - y)/y at gamma = 1 - m^2, gives the largest overlap at every load,
and r = 0 the smallest threshold p_star/2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model, TransitionKind, as_load
from bendscape.core.quadratic.theory.branch import load_on_branch, overlap_sq_on_branch, psi
from bendscape.core.quadratic.theory.bulk import ROOT_TOLERANCE
from bendscape.core.quadratic.theory.integrals import Averages
from bendscape.core.quadratic.theory.label_weights import LabelLaw, SpectralWeights
from bendscape.core.quadratic.theory.outlier import Asymptotics, Outlier, Transition, transition_at
from bendscape.core.quadratic.theory.precision import as_root, error_of, warn_of_lost_precision

_SCAN = np.concatenate([np.geomspace(1e-9, 1 / 128, 32), np.arange(2, 128) / 128])
_MARGINAL = 1e-12  # a jump of the squared overlap below it is rounding, and the transition continuous


class SpectralGain(NamedTuple):
    """The number of samples that a student of finite width needs, compared with methods that use only the
    labels."""

    alpha_bbp: float
    hessian_limit: float
    optimal: float
    over_hessian_limit: float
    over_optimal: float
    alpha_bbp_error: float = math.nan
    over_hessian_limit_error: float = math.nan
    over_optimal_error: float = math.nan


def _overlap_sq(gamma: complex, at_gamma: Averages) -> float:
    return float(max(0.0, overlap_sq_on_branch(gamma, at_gamma).real))


def spectral_transition(p_star: int, weights: SpectralWeights, *, noise: float = 0.0) -> Transition:
    """Threshold alpha_bbp of the label-only spectral method, and its kind.

    Continuous: psi(gamma) = gamma B + F = 0 at a gamma in (0, 1]. Discontinuous: psi < 0 up to gamma = 1. In
    both alpha_bbp = -1/(gamma F(gamma)).

    Parameters
    ----------
    p_star : int
        Teacher hidden units.
    weights : SpectralWeights
        With E[(y - 1) f] < 0.
    noise : float, optional
        On the teacher's pre-activations, as in ``Model``.

    Returns
    -------
    Transition
        ``alpha_bbp``: at every load above it an isolated eigenvalue of D_f lies left of the bulk; and there
        ``kind``, ``alpha_sharp`` (smooth edge below it; 0 where the edge is always sharp), ``gamma``,
        ``lambda_minus`` in units of the eigenvalues of D_f, and ``overlap_sq_jump``; then the absolute
        error estimates of four of them.

    Raises
    ------
    ParameterError
        The weights have E[(y - 1) f] >= 0, or no outlier remains at large loads.

    Notes
    -----
    Limits: hessian_limit gives p_star (a + 1)/2, discontinuous; optimal gives p_star/2, where the jump has
    just vanished, and with noise p_star (1 + noise)^2/2. If the outlier appears and disappears with the load,
    this is the last load at which it appears. Weights without an upper bound that were made for other labels
    may have no threshold, and are refused. Accuracy: as estimated, 1e-11 relative where f is smooth between
    its kinks; a PrecisionWarning where an estimate is above 1e-10, as for a kink that was not given. Held by
    ``tests/test_spectral.py``. Source: this project's own, from the p -> inf limit of arXiv:2510.18435; the
    general theory of such matrices is that of Lu and Li, arXiv:1702.06435.
    """
    law = LabelLaw(p_star, weights, noise)
    if law.averages(_SCAN[0]).F >= 0:
        raise ParameterError(
            "f", weights.kind, "negatively correlated with the label, E[(y - 1) f] < 0", "take its mirror -f"
        )
    at_one = law.averages(1.0)
    alpha_sharp = 1 / at_one.B
    scan = np.append(_SCAN, 1.0)
    positive = next((i for i, x in enumerate(scan) if law.psi(x) >= 0), None)
    if positive == 0:
        raise ParameterError(
            "f", weights.kind, "bounded where labels are small", "at large loads no outlier remains"
        )
    kind: TransitionKind = "discontinuous"
    gamma, at_gamma = 1.0, at_one
    known = known_at_one = law.known(1.0, at_one)
    if positive is not None:
        kind = "continuous"
        gamma = float(brentq(law.psi, scan[positive - 1], scan[positive], **ROOT_TOLERANCE))
        at_gamma = law.averages(gamma)
        known = as_root(law.known(gamma, at_gamma), psi)
    jump, jump_error = _overlap_sq(gamma, at_gamma), error_of(known, overlap_sq_on_branch)
    if jump < _MARGINAL:
        kind, jump, jump_error = "continuous", 0.0, 0.0
    alpha_bbp, alpha_bbp_error = load_on_branch(gamma, at_gamma).real, error_of(known, load_on_branch)
    found = Transition(
        alpha_bbp,
        kind,
        alpha_sharp,
        gamma,
        law.z(alpha_bbp, gamma, at_gamma),
        jump,
        alpha_bbp_error,
        error_of(known_at_one, lambda x, at: 1 / at.B),
        law.z_error(alpha_bbp, known) + law.scale * abs(at_gamma.A) * alpha_bbp_error,
        jump_error,
    )
    warn_of_lost_precision(
        law.name,
        law.scale,
        alpha_bbp=(found.alpha_bbp, found.alpha_bbp_error),
        alpha_sharp=(found.alpha_sharp, found.alpha_sharp_error),
        lambda_minus=(found.lambda_minus, found.lambda_minus_error),
        overlap_sq_jump=(found.overlap_sq_jump, found.overlap_sq_jump_error),
    )
    return found


def spectral_asymptotics(
    p_star: int, weights: SpectralWeights, alpha: float, *, noise: float = 0.0
) -> Asymptotics:
    """Edge lambda_minus, outlier lambda_star and overlap m^2 of D_f at one load, as N -> inf.

    Edge: alpha gamma^2 B = 1, or gamma = 1. Outlier: alpha gamma F = -1 between the edge's gamma and 0. Then
    z = |inf f| (-1/gamma + alpha A) and m^2 = psi/(psi - gamma B_y), psi = gamma B + F.

    Parameters
    ----------
    p_star : int
        Teacher hidden units.
    weights : SpectralWeights
        Any; without negative correlation with the label there is no outlier on the left.
    alpha : float
        Samples per dimension, finite and > 0.
    noise : float, optional
        On the teacher's pre-activations, as in ``Model``.

    Returns
    -------
    Asymptotics
        ``alpha``, ``edge``, ``lambda_minus``, ``lambda_star`` (p_star-fold) in units of the eigenvalues of
        D_f, and ``overlap_sq``: the weight of one of the outlier's unit eigenvectors in the span of the
        teacher, and the absolute error estimates of the three. Those of the outlier are nan where none is
        isolated.

    Notes
    -----
    Limits: those of the Hessian as p -> inf, with eigenvalues p/2 times its; for the optimal weights
    overlap_sq = 1 - gamma, the largest of any f at that load. Accuracy as :func:`spectral_transition`; held
    by ``tests/test_spectral.py``. Source: this project's own, from arXiv:2510.18435.
    """
    alpha = as_load(alpha)
    law = LabelLaw(p_star, weights, noise)
    edge = law.edge(alpha)

    def past_outlier(gamma: float) -> float:
        return float(-alpha * gamma * law.averages(gamma).F - 1)

    isolated = Outlier(math.nan, math.nan)
    if past_outlier(edge.gamma) > 0:
        gamma = float(brentq(past_outlier, 0.0, edge.gamma, **ROOT_TOLERANCE))
        at_gamma = law.averages(gamma)
        known = as_root(law.known(gamma, at_gamma), lambda x, at: alpha * x * at.F + 1)
        lambda_star = min(law.z(alpha, gamma, at_gamma), edge.lambda_minus)
        overlap_sq_error = error_of(known, overlap_sq_on_branch)
        isolated = Outlier(
            lambda_star, _overlap_sq(gamma, at_gamma), law.z_error(alpha, known), overlap_sq_error
        )
    found = Asymptotics(
        alpha, edge.kind, edge.lambda_minus, *isolated[:2], edge.lambda_minus_error, *isolated[2:]
    )
    warn_of_lost_precision(
        law.name,
        law.scale,
        lambda_minus=(found.lambda_minus, found.lambda_minus_error),
        lambda_star=(found.lambda_star, found.lambda_star_error),
        overlap_sq=(found.overlap_sq, found.overlap_sq_error),
    )
    return found


def spectral_gain(model: Model) -> SpectralGain:
    """Threshold of the Hessian compared with those of the label-only spectral methods.

    alpha_bbp, that of the same loss at p = inf (p_star (a + 1)/2 where discontinuous) and p_star (1 +
    noise)^2/2 (the optimal weights), and the ratios of the first to the two others.

    Parameters
    ----------
    model : Model
        Any p, including inf.

    Returns
    -------
    SpectralGain
        Loads ``alpha_bbp``, ``hessian_limit``, ``optimal``, and ``over_hessian_limit`` (below 1 where a
        student of finite width needs fewer samples than an infinite one) and ``over_optimal`` (>= 1).

    Notes
    -----
    Limits: over_hessian_limit = 1 + (2/p) (a - 1)(a + 2)/((a + 1)^2 (a + 3)) + O(1/p^2): a wide student gains
    over an infinite one where a < 1; a single unit did nowhere on a grid of p_star in 1..100, a in 1e-3..1e3.
    These are thresholds as N -> inf; samples of finite size respond to a discontinuous one earlier. Accuracy
    1e-12 relative; held by ``tests/test_spectral.py``. Source: this project's own.
    """
    at_bbp = transition_at(model)
    wide = transition_at(Model(math.inf, model.p_star, model.a, model.noise))
    alpha_bbp, hessian_limit = at_bbp.alpha_bbp, wide.alpha_bbp
    optimal = model.p_star * (1 + model.noise) ** 2 / 2
    relative_error = at_bbp.alpha_bbp_error / alpha_bbp
    over_limit = alpha_bbp / hessian_limit
    found = SpectralGain(
        alpha_bbp,
        hessian_limit,
        optimal,
        over_limit,
        alpha_bbp / optimal,
        at_bbp.alpha_bbp_error,
        (relative_error + wide.alpha_bbp_error / hessian_limit) * over_limit,
        relative_error * alpha_bbp / optimal,
    )
    warn_of_lost_precision(
        model,
        alpha_bbp=(found.alpha_bbp, found.alpha_bbp_error),
        hessian_limit=(found.hessian_limit, wide.alpha_bbp_error),
        over_hessian_limit=(found.over_hessian_limit, found.over_hessian_limit_error),
        over_optimal=(found.over_optimal, found.over_optimal_error),
    )
    return found
