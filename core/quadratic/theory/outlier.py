"""The eigenvalue that carries information on the teacher: its position, its overlap, and when it appears."""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.optimize import brentq

from bendscape.core.quadratic.model import EdgeKind, Model, TransitionKind, as_load
from bendscape.core.quadratic.theory.branch import (
    complex_root,
    load_on_branch,
    overlap_sq_on_branch,
    principal_value,
    principal_value_end,
    psi,
    tangent_zero,
)
from bendscape.core.quadratic.theory.bulk import (
    AT_THRESHOLD,
    ROOT_TOLERANCE,
    Edge,
    edge_at,
    map_error,
    reduced_map,
)
from bendscape.core.quadratic.theory.integrals import COMPLEX_STEP, RAY, averages
from bendscape.core.quadratic.theory.precision import (
    error_of,
    known_at,
    known_at_root,
    warn_of_lost_precision,
)


class Outlier(NamedTuple):
    """Isolated eigenvalue left of the bulk and its overlap with the teacher; all nan where there is none."""

    lambda_star: float
    overlap_sq: float
    lambda_star_error: float = math.nan
    overlap_sq_error: float = math.nan


class Transition(NamedTuple):
    """The transition at alpha_bbp, with estimated errors."""

    alpha_bbp: float
    kind: TransitionKind
    alpha_sharp: float
    gamma: float
    lambda_minus: float
    overlap_sq_jump: float
    alpha_bbp_error: float = math.nan
    alpha_sharp_error: float = math.nan
    lambda_minus_error: float = math.nan
    overlap_sq_jump_error: float = math.nan


class Alpha0(NamedTuple):
    """Three definitions of the load at which the residual overlap of a discontinuous transition appears."""

    principal_value: float
    tangent: float
    complex_re: float
    complex_im: float
    principal_value_error: float = math.nan
    tangent_error: float = math.nan
    complex_error: float = math.nan


class Asymptotics(NamedTuple):
    """The theory's predictions for the left side of the spectrum at one load."""

    alpha: float
    edge: EdgeKind
    lambda_minus: float
    lambda_star: float
    overlap_sq: float
    lambda_minus_error: float = math.nan
    lambda_star_error: float = math.nan
    overlap_sq_error: float = math.nan


_NO_OUTLIER = Outlier(math.nan, math.nan, math.nan, math.nan)


def _outlier_left_of(edge: Edge, model: Model, alpha: float) -> Outlier:
    def past_outlier(gamma: float) -> float:
        return -alpha * gamma * float(averages(model, gamma).F) - 1

    # z(g) - S(g) falls with g wherever z does, so its sign at the edge decides, and the root is unique. At a
    # discontinuous alpha_bbp itself that sign would be a matter of rounding.
    if past_outlier(edge.gamma) <= (AT_THRESHOLD if edge.kind == "smooth" else 0.0):
        return _NO_OUTLIER
    gamma = float(brentq(past_outlier, 0.0, edge.gamma, **ROOT_TOLERANCE))
    at_gamma = averages(model, gamma)
    known = known_at_root(model, gamma, at_gamma, lambda x, at: alpha * x * at.F + 1)
    overlap_sq = overlap_sq_on_branch(gamma, at_gamma).real
    overlap_sq_error = error_of(known, overlap_sq_on_branch)
    if overlap_sq <= overlap_sq_error:  # indistinguishable from an alpha at or below alpha_bbp
        return _NO_OUTLIER
    lambda_star = min(reduced_map(model, alpha, gamma, at_gamma), edge.lambda_minus)
    return Outlier(lambda_star, overlap_sq, map_error(model, alpha, known), overlap_sq_error)


def outlier(model: Model, alpha: float) -> Outlier:
    """Outlier lambda_star left of the bulk and its squared overlap m^2 with the teacher.

    1/g = (alpha/p) E[(y - 1) T(g)], that is alpha gamma F(gamma) = -1, between the edge's gamma and 0; then
    lambda_star = z(g) and m^2 = 1/(1 - S'(g)/z'(g)) = psi/(psi - gamma B_y), with S = (alpha/p) E[y T] and
    psi = gamma B + F.

    Parameters
    ----------
    model : Model
        Any p, including inf.
    alpha : float
        Samples per dimension, finite and > 0.

    Returns
    -------
    Outlier
        ``lambda_star`` (p p_star-fold degenerate as N -> inf) in units of the eigenvalues of H, and
        ``overlap_sq`` in [0, 1]: the weight of one of its unit eigenvectors in the p p_star-dimensional space
        of the teacher; and the absolute error estimates of both. All nan up to alpha_bbp, and above it as
        long as overlap_sq is below its own error.

    Notes
    -----
    Limits: overlap_sq -> 1 as alpha -> inf. At p = inf lambda_star is 0, the limit of a spectrum that shrinks
    like 1/p, and overlap_sq stays finite. Accuracy: as estimated, 1e-13 relative where overlap_sq is of order
    one; just above a continuous threshold overlap_sq is a small difference, of which some 1e-14 absolute is
    lost (the threshold itself is known no better), and a PrecisionWarning says so once that is 1e-10
    relative. Held by ``tests/test_theory.py`` and ``tests/test_precision.py``. Source: arXiv:2510.18435.
    """
    alpha = as_load(alpha)
    found = _outlier_left_of(edge_at(model, alpha), model, alpha)
    warn_of_lost_precision(
        model,
        lambda_star=(found.lambda_star, found.lambda_star_error),
        overlap_sq=(found.overlap_sq, found.overlap_sq_error),
    )
    return found


def asymptotics(model: Model, alpha: float) -> Asymptotics:
    """Edge lambda_minus, outlier lambda_star and overlap m^2 at one load, in one pass.

    The fields are those of :func:`bendscape.core.quadratic.theory.bulk.left_edge` and :func:`outlier`: same
    formulas, limits and accuracy.

    Parameters
    ----------
    model : Model
        Any p, including inf.
    alpha : float
        Samples per dimension, finite and > 0.

    Returns
    -------
    Asymptotics
        ``alpha``, ``edge`` ("sharp" or "smooth"), ``lambda_minus``, ``lambda_star``, ``overlap_sq``, and the
        absolute error estimates of the three; those of the outlier are nan where none is isolated.

    Notes
    -----
    Held by ``tests/test_theory.py``. Source: arXiv:2510.18435.
    """
    alpha = as_load(alpha)
    edge = edge_at(model, alpha)
    isolated = _outlier_left_of(edge, model, alpha)
    warn_of_lost_precision(
        model,
        lambda_minus=(edge.lambda_minus, edge.lambda_minus_error),
        lambda_star=(isolated.lambda_star, isolated.lambda_star_error),
        overlap_sq=(isolated.overlap_sq, isolated.overlap_sq_error),
    )
    return Asymptotics(
        alpha,
        edge.kind,
        edge.lambda_minus,
        isolated.lambda_star,
        isolated.overlap_sq,
        edge.lambda_minus_error,
        isolated.lambda_star_error,
        isolated.overlap_sq_error,
    )


def transition(model: Model) -> Transition:
    """Threshold alpha_bbp, above which an eigenvalue that overlaps with the teacher leaves the bulk, and its
    kind.

    Continuous: psi(gamma) = gamma B + F = 0 at a gamma in (0, 1); the outlier leaves a sharp edge, its
    overlap growing from 0. Discontinuous: psi(1) < 0; it leaves a smooth edge at gamma = 1 with a finite
    overlap. In both alpha_bbp = -1/(gamma F(gamma)).

    Parameters
    ----------
    model : Model
        Any p, including inf.

    Returns
    -------
    Transition
        ``alpha_bbp`` (no isolated outlier below it, one above), ``kind``, ``alpha_sharp`` (smooth edge below
        it, sharp above), and at alpha_bbp the edge's ``gamma``, ``lambda_minus`` and ``overlap_sq_jump``, the
        limit of overlap_sq from above (0 when continuous); then the absolute error estimates of four of them.

    Notes
    -----
    Limits: without noise p = inf is always discontinuous, with alpha_bbp = p_star (a + 1)/2, alpha_sharp
    = p_star (a + 1)^2/2 and lambda_minus = 0, the limit of a spectrum that shrinks like 1/p; a -> 0 gives
    alpha_bbp = 3 for p = p_star = 1. alpha_bbp is not monotone in p. Accuracy: as estimated, 1e-12
    relative or better; a PrecisionWarning says where an estimate is above 1e-10, as for the jump at p =
    inf and a -> 0, which is a small difference. Held by ``tests/test_theory.py`` and
    ``tests/test_precision.py``. Source: arXiv:2510.18435.
    """
    found = transition_at(model)
    warn_of_lost_precision(
        model,
        alpha_bbp=(found.alpha_bbp, found.alpha_bbp_error),
        alpha_sharp=(found.alpha_sharp, found.alpha_sharp_error),
        lambda_minus=(found.lambda_minus, found.lambda_minus_error),
        overlap_sq_jump=(found.overlap_sq_jump, found.overlap_sq_jump_error),
    )
    return found


def transition_at(model: Model) -> Transition:
    """:func:`transition` without its warning, for callers that use only part of it."""
    kind: TransitionKind
    at_one = averages(model, 1.0)
    known = known_at_one = known_at(model, 1.0, at_one)
    if psi(1.0, at_one).real >= 0:
        kind = "continuous"
        gamma = float(brentq(lambda x: psi(x, averages(model, x)).real, 0.0, 1.0, **ROOT_TOLERANCE))
        at_gamma = averages(model, gamma)
        known = known_at_root(model, gamma, at_gamma, psi)
        jump = jump_error = 0.0
    else:
        kind = "discontinuous"
        gamma, at_gamma = 1.0, at_one
        jump = overlap_sq_on_branch(gamma, at_gamma).real
        jump_error = error_of(known, overlap_sq_on_branch)
    alpha_bbp = load_on_branch(gamma, at_gamma).real
    lambda_minus = reduced_map(model, alpha_bbp, gamma, at_gamma)
    alpha_bbp_error = error_of(known, load_on_branch)
    return Transition(
        alpha_bbp,
        kind,
        1 / at_one.B,
        gamma,
        lambda_minus,
        jump,
        alpha_bbp_error,
        error_of(known_at_one, lambda x, at: 1 / at.B),
        map_error(model, alpha_bbp, known) + (2 / model.p) * abs(at_gamma.A) * alpha_bbp_error,
        jump_error,
    )


def alpha_0(model: Model) -> Alpha0:
    """Load alpha_0 at which the overlap seen at finite size appears, the lower end of the pre-critical
    window.

    Below a discontinuous alpha_bbp the outlier sits inside an exponentially thin part of the bulk, where a
    sample of reachable size does not distinguish it from an isolated one. Its branch alpha(gamma) = -1/(gamma
    F) is followed past gamma = 1 to where psi = gamma B + F vanishes:

    - ``principal_value``: with all averages as Cauchy principal values, gamma real and > 1;
    - ``complex_re``, ``complex_im``: with all averages continued through the cut, alpha = -1/(gamma F) at the
      complex zero;
    - ``tangent``: alpha_bbp - m^2 / (d m^2/d alpha) at alpha_bbp from above, without any continuation.

    Parameters
    ----------
    model : Model
        Any p, including inf.

    Returns
    -------
    Alpha0
        Loads. ``principal_value`` is nan where that branch has no zero (large jumps). ``complex_im`` >= 0 is
        the width within which alpha_0 is defined. All equal alpha_bbp, with complex_im = 0, for a continuous
        transition. Then their absolute error estimates (one for the complex alpha_0).

    Notes
    -----
    Below alpha_0 samples show no overlap that survives N -> inf; between alpha_0 and alpha_bbp samples of
    moderate size show an outlier that disappears as N grows
    (:func:`bendscape.core.quadratic.finite_size.crossover.alpha_bbp_at_size`). Limits: the three meet at the
    tricritical a; far from it the window has no sharp end, and the tangent and the complex zero can even be
    negative. Accuracy: as estimated, 1e-10 relative or better, else a PrecisionWarning. Held by
    ``tests/test_theory.py`` and ``tests/test_precision.py``. Source: the heuristic is that of
    arXiv:2510.18435; the definitions as coded are this project's.
    """
    at_bbp = transition_at(model)
    if at_bbp.kind == "continuous":
        alpha_bbp, error = at_bbp.alpha_bbp, at_bbp.alpha_bbp_error
        warn_of_lost_precision(model, alpha_0=(alpha_bbp, error))
        return Alpha0(alpha_bbp, alpha_bbp, alpha_bbp, 0.0, error, error, error)
    on_real_line = on_real_line_error = math.nan
    gamma, reached = principal_value_end(model)
    if reached:
        at_gamma = principal_value(model, gamma)
        on_real_line = load_on_branch(gamma, at_gamma).real
        on_real_line_error = error_of(known_at_root(model, gamma, at_gamma, psi, ray=RAY), load_on_branch)
    one = complex(1.0, COMPLEX_STEP)
    at_one = averages(model, one)
    tangent = tangent_zero(one, at_one)
    root = complex_root(model)
    at_root = averages(model, root, ray=RAY)
    continued = load_on_branch(root, at_root)
    found = Alpha0(
        on_real_line,
        tangent,
        continued.real,
        abs(continued.imag),
        on_real_line_error,
        error_of(known_at(model, one, at_one), tangent_zero),
        error_of(known_at_root(model, root, at_root, psi, ray=RAY), load_on_branch),
    )
    warn_of_lost_precision(
        model,
        principal_value=(found.principal_value, found.principal_value_error),
        tangent=(found.tangent, found.tangent_error),
        complex_re=(found.complex_re, found.complex_error),
    )
    return found
