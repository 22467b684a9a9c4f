"""Verdicts on a measured critical load: which definitions it supports, and the kind of the transition."""

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
    "alpha_0_complex_re": "end of the pre-critical window at the complex zero, its real part",
}
"""What alpha_c may stand for, with values from theory. For a continuous transition they coincide; for a
discontinuous one the collapse finds alpha_0 at sizes below the crossover."""

SUPPORT: Mapping[str, str] = {
    "no_estimate": "no estimate that can be trusted",
    "undefined": "this definition has no value for this p, p_star, a",
    "rejected": "the estimate lies farther from it than the level allows",
    "supported": "the estimate does not tell it from the truth at the level",
}
"""Verdicts on one definition; stored as int8 in this order."""

ANSWERS: Mapping[str, str] = {
    "no_estimate": "no estimate that can be trusted",
    "one_value": "the definitions do not differ here, and the data support their value",
    "cannot_tell": "the data support all the definitions, which differ",
    "several": "the data support more than one definition and reject another",
    "one": "the data support one definition and reject all others",
    "none": "the data reject every definition",
}
"""Verdicts on all definitions of one model together; stored as int8 in this order."""

KINDS: Mapping[str, str] = {
    "no_estimate": "no estimate that can be trusted",
    "cannot_tell": "neither kind has 95 % of the odds",
    "continuous": "the overlap is born at theory's alpha_bbp",
    "discontinuous": "the overlap is born below theory's alpha_bbp",
    "neither": "the overlap is born more than 3 errors above theory's alpha_bbp, as in neither kind",
}
"""Kind of the transition according to the data; stored as int8 in this order."""

SURE_ODDS = 0.95
IMPOSSIBLE = 3.0
AGREES = 2.0
"""Number of errors within which an estimate agrees with theory."""
SURE = 3.0
"""Number of errors beyond which it differs. Between the two there is no verdict."""

TELLING = 0.25
"""Largest ``AGREES`` errors, relative to theory's value, with which an estimate can agree."""

NOT_ENOUGH_DATA = "not enough data"


class Landmarks(NamedTuple):
    """The theory that an estimate is compared with: definitions by name, and the crossover size."""

    definitions: dict[str, float]
    crossover_size: float


def landmarks(model: Model) -> Landmarks:
    """Values of ``DEFINITIONS`` and the crossover size N_x of one model."""
    found = alpha_0(model)
    complex_re = found.complex_re if found.complex_re > 0 else math.nan  # not a load
    values = (transition_at(model).alpha_bbp, found.principal_value, found.tangent, complex_re)
    return Landmarks(dict(zip(DEFINITIONS, values, strict=True)), crossover_size(model))


def expected_definition(kind: str, definitions: Mapping[str, float]) -> str:
    """Name of the definition that sizes below the crossover show: alpha_bbp for a continuous transition; for
    a discontinuous one the principal-value alpha_0 or, where that branch has no zero, the complex one."""
    if kind == "continuous":
        return "alpha_bbp"
    known = math.isfinite(definitions["alpha_0_principal_value"])
    return "alpha_0_principal_value" if known else "alpha_0_complex_re"


class Verdict(NamedTuple):
    """Result of a comparison with theory: ``agrees``, ``differs by k sigma`` or ``not enough data``; k; and
    the reason in words."""

    words: str
    sigma: float
    reason: str


class Estimate(NamedTuple):
    """A measured load, its statistical interval at ``level``, its systematic error, and the flag of its
    estimator with its meaning."""

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

    k is rounded to a tenth. The estimate agrees if k <= ``AGREES`` and ``AGREES`` errors are at most
    ``TELLING`` of theory's value. It differs if k > ``SURE``. Otherwise there is not enough data; also
    without a value of theory, with any flag but ``estimated``, with an unknown part of the error, or with an
    error too large for agreement to mean anything.

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
    """Verdict of ``SUPPORT`` on one definition: whether it lies in the two-sided normal interval of this
    level."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return "no_estimate"
    if math.isnan(definition):
        return "undefined"
    return "supported" if abs(value - definition) <= norm.isf((1 - level) / 2) * error else "rejected"


def answer(verdicts: Mapping[str, str], definitions: Mapping[str, float]) -> str:
    """The verdict of ``ANSWERS`` that follows from the verdicts on single definitions."""
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
    """Natural logarithm of the odds that the overlap appears below alpha_bbp rather than at it.

    Continuous: the estimate is normal around alpha_bbp. Discontinuous: normal around alpha_bbp - Delta, with
    Delta uniform in (0, alpha_bbp). With even prior odds, d = value - alpha_bbp and s the error,

        odds = s (Phi((alpha_bbp + d)/s) - Phi(d/s)) / (alpha_bbp phi(d/s)).

    Parameters
    ----------
    value, error : float
        Estimate of alpha_c and its total error, statistical and systematic.
    alpha_bbp : float

    Returns
    -------
    float
        nan without an estimate.

    Notes
    -----
    A threshold exactly at alpha_bbp favours a continuous transition the more strongly, the smaller the error:
    the odds are then about (pi/2)^(1/2) s/alpha_bbp. A window much narrower than the error cannot be
    resolved, and is called continuous or neither. Below the crossover size nothing else in the data tells the
    kinds apart. Held by ``tests/test_collapse.py``.
    """
    if not (math.isfinite(value) and error > 0):
        return math.nan
    d = (value - alpha_bbp) / error
    # Phi(b) - Phi(a) from the tails, to avoid cancellation
    upper, lower = norm.logsf(d), norm.logsf(d + alpha_bbp / error)
    between = upper + math.log1p(-math.exp(min(lower - upper, -1e-12)))
    return float(between - norm.logpdf(d) + math.log(error / alpha_bbp))


def kind_of(value: float, error: float, alpha_bbp: float) -> str:
    """Verdict of ``KINDS``: a kind needs 95 % of the odds of :func:`log_odds_discontinuous`."""
    log_odds = log_odds_discontinuous(value, error, alpha_bbp)
    if math.isnan(log_odds):
        return "no_estimate"
    if value - alpha_bbp > IMPOSSIBLE * error:
        return "neither"
    if abs(log_odds) < math.log(SURE_ODDS / (1 - SURE_ODDS)):
        return "cannot_tell"
    return "discontinuous" if log_odds > 0 else "continuous"


def preferred_estimator(flags: Mapping[str, str]) -> str:
    """The preferred estimator of a critical load, given their flags: theory_curve, which is more precise, if
    its fit holds, else collapse. The rule does not depend on the values."""
    return "theory_curve" if flags.get("theory_curve") == "estimated" else "collapse"
