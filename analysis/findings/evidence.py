"""How strongly data speak for a claim: its verdict, and the power of the test behind it.

Every claim is compared with stated alternatives. A comparison is a vector of measured numbers with its
covariance, the value that the claim gives them and the values that the alternatives give them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import chdtrc
from scipy.stats import norm

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.estimate.verdicts import SURE

Verdict = Literal["supported", "consistent", "contradicted", "no power", "not enough data"]

VERDICTS: Mapping[str, str] = {
    "supported": "the data reject every stated alternative, and had the power to contradict the claim",
    "consistent": "the data do not contradict the claim, but leave an alternative, or lean on theory",
    "contradicted": "the data reject the claim",
    "no power": "if an alternative were true, such data would more likely than not fail to show it",
    "not enough data": "of a claim without a stated alternative, or without any data: the data cannot tell",
}
"""The verdicts on a claim, in words."""

STRONG = 0.9
"""Least power of a test that supports a claim."""
WEAK = 0.5
"""Least power of a test that has a verdict at all."""


class Comparison(NamedTuple):
    """Measured numbers (n,), what the claim gives them (n,), what each alternative gives them (k, n), and
    their covariance (n, n), statistical and systematic."""

    measured: Floats
    claimed: Floats
    alternatives: Floats
    covariance: Floats


class Evidence(NamedTuple):
    """What independent comparisons say together, for each alternative (k,): its distance from the claim, and
    how far the data lie from the claim towards it, both in errors; and chi^2 from the claim with its degrees
    of freedom."""

    separation: Floats
    towards: Floats
    chi2: float
    dof: int

    @property
    def power(self) -> float:
        """Probability that such data would contradict the claim if the least distant alternative were true;
        nan without data."""
        return float(norm.cdf(self.separation - SURE).min()) if self.dof else math.nan

    @property
    def contradicted(self) -> bool:
        """Whether the data reject the claim: ``SURE`` errors towards an alternative, or by chi^2 at the same
        one-sided level."""
        unlikely = bool(self.dof) and float(chdtrc(self.dof, self.chi2)) < norm.sf(SURE)
        return bool((self.towards > SURE).any()) or unlikely

    @property
    def rejects_alternatives(self) -> bool:
        """Whether the data lie ``SURE`` errors from every alternative, on the claim's side."""
        return bool(self.dof) and bool((self.separation - self.towards > SURE).all())

    def verdict(self, of_data: bool = True) -> Verdict:
        """The verdict; ``of_data`` is false if the answer leans on theory's own numbers for what it tests."""
        if self.contradicted:
            return "contradicted"
        if not self.power >= WEAK:
            return "no power"
        return "supported" if of_data and self.power >= STRONG and self.rejects_alternatives else "consistent"


def compare(measured: float, error: float, claimed: float, *alternatives: float) -> Comparison:
    """The comparison of one number."""
    shape = np.array(alternatives, dtype=np.float64)[:, None]
    return Comparison(np.array([measured]), np.array([claimed]), shape, np.array([[error**2]]))


def jointly(comparisons: Sequence[Comparison], of_law: Sequence[Floats]) -> list[Comparison]:
    """Comparisons with a law, as one; none of none. To their covariances is added a common part of the law's
    error, given by one vector for each: such an error differs between models, and may also have one sign in
    all of them, where it does not average out."""
    if not comparisons:
        return []
    common = np.concatenate(of_law)
    parts = [np.concatenate([each[i] for each in comparisons], axis=-1) for i in range(3)]
    covariance = np.outer(common, common)
    start = 0
    for each in comparisons:
        stop = start + len(each.measured)
        covariance[start:stop, start:stop] += each.covariance
        start = stop
    return [Comparison(parts[0], parts[1], parts[2], covariance)]


def weigh(comparisons: Sequence[Comparison]) -> Evidence:
    """Independent comparisons of one claim with the same number of alternatives.

    With x = measured - claimed, d = alternative - claimed and C the covariance,

        separation = (sum d^T C^-1 d)^(1/2),    towards = sum d^T C^-1 x / separation,
        chi^2 = sum x^T C^-1 x.

    Notes
    -----
    With normal errors of these covariances ``towards`` is normal with variance 1, around 0 if the claim is
    true and around ``separation`` if the alternative is: the most powerful test between the two
    (Neyman and Pearson, Phil. Trans. R. Soc. A 231 (1933) 289). So a true claim with k alternatives is
    contradicted with a probability of at most 0.0013 (k + 1); if an alternative is true, the claim is
    supported with a probability of at most 0.0013, and contradicted with the probability ``power``.
    Held by ``tests/test_evidence.py`` on normal numbers, and by ``benchmarks/claims.py`` on planted cells.
    """
    if not comparisons:
        return Evidence(np.zeros(1), np.zeros(1), 0.0, 0)
    squares, along = np.zeros((2, len(comparisons[0].alternatives)))
    chi2, dof = 0.0, 0
    for each in comparisons:
        inverse = np.linalg.inv(each.covariance)
        x, d = each.measured - each.claimed, each.alternatives - each.claimed
        squares = squares + np.einsum("ki,ij,kj->k", d, inverse, d)
        along = along + d @ inverse @ x
        chi2, dof = chi2 + float(x @ inverse @ x), dof + len(x)
    separation = np.sqrt(squares)
    towards = np.divide(along, separation, out=np.zeros_like(along), where=separation > 0)
    return Evidence(separation, towards, chi2, dof)


class Claim(NamedTuple):
    """One claim: its text; the verdict of the data, in one word and in a sentence with numbers; the
    alternative that it is tested against, and the power of that test ("" and nan where none is stated); and
    the table behind it, as column names and rows of texts."""

    name: str
    words: str
    verdict: Verdict
    finding: str
    alternative: str
    power: float
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def strength(self) -> str:
        """The power in words."""
        if math.isnan(self.power):
            return "no data to test it with"
        return f"power {100 * self.power:.0f} %" if self.power >= 0.01 else "power below 1 %"


def errors_apart(comparison: Comparison) -> str:
    """Distance of the nearest alternative from the claim in errors, for a table."""
    return f"{float(weigh([comparison]).separation.min()):.1f}"
