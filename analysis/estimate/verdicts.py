"""What a measured critical load says: which definitions it supports, and of which kind the transition is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from scipy.stats import norm

from bendscape.core.quadratic.finite_size.crossover import crossover_size
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import alpha_0, transition_at

DEFINITIONS: Mapping[str, str] = {
    "alpha_bbp": "threshold of the outlier as N goes to infinity",
    "alpha_0_principal_value": "end of the pre-critical window on the principal-value branch",
    "alpha_0_tangent": "end of the pre-critical window by the tangent to overlap_sq at alpha_bbp",
    "alpha_0_complex": "end of the pre-critical window at the complex zero, its real part",
}
"""What alpha_c may stand for, all from theory. All are one for a continuous transition; for a discontinuous
one the collapse finds alpha_0 at sizes below the crossover."""

SUPPORT: Mapping[str, str] = {
    "no_estimate": "no estimate that can be trusted",
    "undefined": "this definition has no value for this p, p_star, a",
    "rejected": "the estimate lies farther from it than the level allows",
    "supported": "the estimate does not tell it from the truth at the level",
}
"""Verdicts on one definition; int8 in this order."""

ANSWERS: Mapping[str, str] = {
    "no_estimate": "no estimate that can be trusted",
    "one_value": "the definitions do not differ here, and the data support their value",
    "cannot_tell": "the data support all the definitions, which differ",
    "several": "the data support more than one definition and reject another",
    "one": "the data support one definition and reject all others",
    "none": "the data reject every definition",
}
"""Verdicts on all definitions of one model; int8 in this order."""

KINDS: Mapping[str, str] = {
    "no_estimate": "no estimate that can be trusted",
    "cannot_tell": "neither kind has 95 % of the odds",
    "continuous": "the overlap is born at theory's alpha_bbp",
    "discontinuous": "the overlap is born below theory's alpha_bbp",
    "neither": "the overlap is born more than 3 errors above theory's alpha_bbp, as in neither kind",
}
"""Kind of the transition as the data have it; int8 in this order."""

SURE_ODDS = 0.95
IMPOSSIBLE = 3.0
AGREES = 2.0
"""Errors within which an estimate agrees with theory."""
SURE = 3.0
"""Errors beyond which it differs: between the two nothing is said."""

TELLING = 0.25
"""Share of theory's value that ``AGREES`` errors may reach where an estimate agrees with it."""

NOT_ENOUGH_DATA = "not enough data"


class Landmarks(NamedTuple):
    """The theory an estimate is held against: definitions by name, and the crossover size."""

    definitions: dict[str, float]
    crossover_size: float


def landmarks(model: Model) -> Landmarks:
    """Values of ``DEFINITIONS`` and the crossover size N_x of one model."""
    found = alpha_0(model)
    complex_re = found.complex_re if found.complex_re > 0 else math.nan  # no load
    values = (transition_at(model).alpha_bbp, found.principal_value, found.tangent, complex_re)
    return Landmarks(dict(zip(DEFINITIONS, values, strict=True)), crossover_size(model))


def expected_definition(kind: str, definitions: Mapping[str, float]) -> str:
    """Name of the definition that sizes below the crossover show: alpha_bbp of a continuous transition,
    alpha_0 of a discontinuous one, its principal value or, where that branch has no zero, the complex one."""
    if kind == "continuous":
        return "alpha_bbp"
    known = math.isfinite(definitions["alpha_0_principal_value"])
    return "alpha_0_principal_value" if known else "alpha_0_complex"


class Verdict(NamedTuple):
    """What an estimate says of theory: ``agrees``, ``differs by k sigma`` or ``not enough data``; k; and the
    reason in words."""

    words: str
    sigma: float
    reason: str


class Estimate(NamedTuple):
    """A measured load, the ends of its statistical interval at ``level``, its systematic error, and the flag
    of its estimator with what that means."""

    value: float
    low: float
    high: float
    level: float
    systematic: float
    flag: str
    meaning: str


def against_theory(estimate: Estimate, theory: float) -> Verdict:
    """Whether an estimate agrees with theory, and why.

    With d = value - theory, h the part of the interval on theory's side of the value and z the normal
    quantile of its level,

        k = |d| / (h^2/z^2 + systematic^2)^(1/2).

    It agrees where k <= ``AGREES`` to a tenth and ``AGREES`` errors are at most ``TELLING`` of theory's
    value, and differs where k > ``SURE``. There is not enough data between the two, without a value of
    theory, for an estimate with any flag but ``estimated``, where a part of the error is not known, and where
    the error is too large for an agreement to say anything.

    Notes
    -----
    ``tests/test_verdicts.py`` holds how often an estimate is said to differ from the truth.
    """
    value, side = estimate.value, estimate.high - estimate.value
    if theory < value:
        side = value - estimate.low
    statistical = side / float(norm.isf((1 - estimate.level) / 2))
    error = math.hypot(statistical, estimate.systematic)
    if estimate.flag != "estimated":
        return _undecided(estimate.meaning)
    if not math.isfinite(theory):
        return _undecided("theory has no value to compare with")
    if not (math.isfinite(value) and math.isfinite(statistical) and statistical > 0):
        return _undecided("the statistical error is not known")
    if not math.isfinite(estimate.systematic):
        return _undecided("the alphas lie too far apart to say where between them the threshold is")
    sigma = round(abs(value - theory) / error, 1)
    parts = f"{statistical:.2g} statistical, {estimate.systematic:.2g} systematic"
    if sigma > SURE:
        way = "above" if value > theory else "below"
        reason = f"{abs(value - theory):.2g} {way} theory's {theory:.4f}, error {error:.2g} ({parts})"
        return Verdict(f"differs by {sigma:.1f} sigma", sigma, reason)
    if AGREES * error > TELLING * theory:
        return _undecided(f"the error of {error:.2g} ({parts}) is too large to tell")
    reason = f"theory's {theory:.4f} lies {sigma:.1f} errors of {error:.2g} away ({parts})"
    if sigma > AGREES:
        return _undecided(f"{reason}, too far to agree and too near to differ")
    return Verdict("agrees", sigma, reason)


def _undecided(reason: str) -> Verdict:
    return Verdict(NOT_ENOUGH_DATA, math.nan, reason)


def supported(value: float, error: float, definition: float, level: float) -> str:
    """Verdict of ``SUPPORT`` on one definition: within the two-sided normal interval of this level or not."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return "no_estimate"
    if math.isnan(definition):
        return "undefined"
    return "supported" if abs(value - definition) <= norm.isf((1 - level) / 2) * error else "rejected"


def answer(verdicts: Mapping[str, str], definitions: Mapping[str, float]) -> str:
    """The verdict of ``ANSWERS`` that verdicts on single definitions amount to."""
    defined = {name: verdict for name, verdict in verdicts.items() if verdict != "undefined"}
    if "no_estimate" in defined.values():
        return "no_estimate"
    values = [definitions[name] for name in defined]
    favoured = sum(verdict == "supported" for verdict in defined.values())
    if favoured == 0:
        return "none"
    if max(values) - min(values) < 1e-9 * max(values):
        return "one_value"
    if favoured == len(defined):
        return "cannot_tell"
    return "one" if favoured == 1 else "several"


def log_odds_discontinuous(value: float, error: float, alpha_bbp: float) -> float:
    """Natural logarithm of the odds that the overlap is born below alpha_bbp, not at it.

    Continuous: the estimate is normal around alpha_bbp. Discontinuous: around alpha_bbp - Delta, Delta
    uniform in (0, alpha_bbp). With even odds before, d = value - alpha_bbp and s the error,

        odds = s (Phi((alpha_bbp + d)/s) - Phi(d/s)) / (alpha_bbp phi(d/s)).

    Parameters
    ----------
    value, error : float
        Estimate of alpha_c and its error, statistical and systematic.
    alpha_bbp : float

    Returns
    -------
    float
        nan without an estimate.

    Notes
    -----
    A threshold right at alpha_bbp speaks for a continuous transition the more, the smaller the error: the
    odds are then about (pi/2)^(1/2) s/alpha_bbp. A window much narrower than the error cannot be seen, and
    is called continuous or neither. Nothing else in the data tells the kinds apart below the crossover size.
    Held by ``tests/test_collapse.py``.
    """
    if not (math.isfinite(value) and error > 0):
        return math.nan
    d = (value - alpha_bbp) / error
    # Phi(b) - Phi(a) by the tail that does not cancel
    upper, lower = norm.logsf(d), norm.logsf(d + alpha_bbp / error)
    between = upper + math.log1p(-math.exp(min(lower - upper, -1e-12)))
    return float(between - norm.logpdf(d) + math.log(error / alpha_bbp))


def kind_of(value: float, error: float, alpha_bbp: float) -> str:
    """Verdict of ``KINDS``: 95 % of the odds of :func:`log_odds_discontinuous` on either side."""
    log_odds = log_odds_discontinuous(value, error, alpha_bbp)
    if math.isnan(log_odds):
        return "no_estimate"
    if value - alpha_bbp > IMPOSSIBLE * error:
        return "neither"
    if abs(log_odds) < math.log(SURE_ODDS / (1 - SURE_ODDS)):
        return "cannot_tell"
    return "discontinuous" if log_odds > 0 else "continuous"


def preferred_estimator(flags: Mapping[str, str]) -> str:
    """The estimator of a critical load to go by, from the flags of those there are: theory_curve, the more
    precise, where its fit holds, else collapse. The rule does not look at the values."""
    return "theory_curve" if flags.get("theory_curve") == "estimated" else "collapse"
