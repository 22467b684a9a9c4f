"""Does overparametrization bend the landscape for other activations? The claims on a sweep of activations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bendscape.analysis.estimate.notation import with_error
from bendscape.analysis.findings.activations import ActivationModel, families
from bendscape.analysis.findings.evidence import Claim, Comparison, compare, errors_apart, weigh

WRONG = 0.5
"""Relative distance of the alternative to theory's overlap."""


def claims_of_models(models: Sequence[ActivationModel]) -> list[Claim]:
    """The claims on networks, of one sweep or of several with cells of their own.

    For every pair of activations ``width``: the load at which the teacher shows moves with the width of the
    student as theory says; and ``overlap``: above the threshold the overlap is theory's.

    Notes
    -----
    Verdicts and power: :mod:`bendscape.analysis.findings.evidence`. Held by
    ``tests/test_activation_findings.py`` on planted loads. Source: this project's own.
    """
    found = []
    for pair in dict.fromkeys(of.pair for of in models):
        of_pair = [of for of in models if of.pair == pair]
        found += [_width_claim(of_pair, pair), _overlap_claim(of_pair, pair)]
    return found


def _named(pair: tuple[str, str]) -> str:
    return f"{pair[0]} student, {pair[1]} teacher"


def _slope(family: Sequence[ActivationModel]) -> Comparison:
    """Slope in log2 p of the measured loads, weighted by their errors, those of theory's alpha_0 included:
    what theory's loads give, and none."""
    loads = [of.load for of in family if of.load is not None]
    error = np.hypot([load.error for load in loads], [of.shown_error for of in family])
    design = np.stack([np.ones(len(family)), np.log2([of.network.p for of in family])], axis=1)
    design /= error[:, None]
    row = (np.linalg.inv(design.T @ design) @ design.T)[1] / error
    measured = float(row @ np.array([load.load for load in loads]))
    return compare(
        measured, math.hypot(*(row * error)), float(row @ np.array([of.shown for of in family])), 0.0
    )


def _width_claim(models: Sequence[ActivationModel], pair: tuple[str, str]) -> Claim:
    """Slope of the measured loads against theory's, alpha_bbp or alpha_0, and against none."""
    every = list(families(models))
    found = [_slope(family) for family in every]
    evidence = weigh(found)
    words, rows = [], []
    for family, comparison in zip(every, found, strict=True):
        first, last = family[0], family[-1]
        slope, error = float(comparison.measured[0]), math.sqrt(comparison.covariance[0, 0])
        words.append(
            f"at p* = {first.network.p_star}, a = {first.network.a:g} the load where sizes cross "
            f"{'falls' if slope < 0 else 'rises'} by {with_error(abs(slope), error)} each time the width "
            f"doubles, {abs(slope) / error:.1f} errors from not at all (theory: "
            f"{float(comparison.claimed[0]):+.3f}), while theory's alpha_bbp goes from {first.alpha_bbp:.4f} "
            f"at p = {first.network.p} to {last.alpha_bbp:.4f} at p = {last.network.p}"
        )
        rows += [
            (
                str(of.network.p_star),
                f"{of.network.a:g}",
                str(of.network.p),
                of.transition,
                f"{of.alpha_bbp:.4f}",
                f"{of.shown:.4f}",
                with_error(of.load.load, of.load.error),
                errors_apart(comparison),
            )
            for of in family
            if of.load is not None
        ]
    return Claim(
        f"width_{pair[0]}_{pair[1]}",
        f"{_named(pair)}: the load at which the teacher shows moves with the width as theory says.",
        evidence.verdict(),
        "; ".join(words) or "sizes cross at no two widths",
        "a load that does not depend on the width",
        evidence.power,
        ("p*", "a", "p", "kind", "α_BBP", "theory", "sizes cross at", "claim to alternative / error"),
        tuple(rows),
    )


def _overlap_claim(models: Sequence[ActivationModel], pair: tuple[str, str]) -> Claim:
    """Overlaps above the threshold over theory's, against half as much again or half of it."""
    above = [of for of in models if of.above is not None]
    found = [compare(of.above.ratio, of.above.error, 1.0, 1 - WRONG, 1 + WRONG) for of in above if of.above]
    evidence = weigh(found)
    rows = [
        (
            str(of.network.p_star),
            f"{of.network.a:g}",
            str(of.network.p),
            str(of.above.N),
            str(of.above.loads),
            f"{of.above.measured:.3f}",
            f"{of.above.theory:.3f}",
            with_error(of.above.ratio, of.above.error),
        )
        for of in above
        if of.above
    ]
    ratios = [
        f"{with_error(of.above.ratio, of.above.error)} at p = {of.network.p}, p* = {of.network.p_star}, "
        f"a = {of.network.a:g}"
        for of in above
        if of.above
    ]
    finding = f"measured over theory's overlap is {'; '.join(ratios)}" if ratios else ""
    return Claim(
        f"overlap_{pair[0]}_{pair[1]}",
        f"{_named(pair)}: above the threshold the outlier has theory's overlap.",
        evidence.verdict(),
        finding or "no load above the threshold is measured",
        f"an overlap {100 * WRONG:.0f} % less or more",
        evidence.power,
        ("p*", "a", "p", "N", "loads", "overlap measured", "theory", "measured / theory"),
        tuple(rows),
    )
