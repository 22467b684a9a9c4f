"""The claim of arXiv:2510.18435 that transitions are continuous for small a and p and discontinuous for large
ones: with theory's alpha_bbp, and from the data alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bendscape.analysis.findings.claims_on_loads import OFF
from bendscape.analysis.findings.evidence import Claim, compare, errors_apart, weigh
from bendscape.analysis.findings.measured_loads import Load
from bendscape.analysis.findings.size_pairs import Climb
from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import transition_at

WORDS = "The transition is continuous for small a and p, discontinuous for large ones"
OF_THEORY = 0.05
"""Error of theory's own climb of the threshold with N: the labels alone lie up to 0.065 from it
(docs/drift.md)."""


def kind_claim(measured: Sequence[Load]) -> Claim:
    """Each load at the place of its kind, against the other kind: alpha_bbp for a discontinuous transition;
    10 per cent below it for a continuous one, whose window would have to have some width. At best consistent,
    because the places are theory's."""
    found = [
        compare(
            load.value,
            load.error,
            load.theory,
            load.alpha_bbp if load.kind == "discontinuous" else (1 - OFF) * load.alpha_bbp,
        )
        for load in measured
    ]
    evidence = weigh(found)
    decided = [load for load in measured if load.kind_from_data in ("continuous", "discontinuous")]
    right = [load for load in decided if load.kind_from_data == load.kind]
    odd = sum(load.kind_from_data == "neither" for load in measured)
    finding = (
        f"of {len(measured)} models the data tell the kind of {len(decided)}, {len(right)} of them as theory "
        f"has it ({sum(load.kind == 'continuous' for load in right)} continuous, "
        f"{sum(load.kind == 'discontinuous' for load in right)} discontinuous); {odd} are neither, the "
        "others cannot be told. Each kind is read off where the measured load lies beside theory's "
        "alpha_bbp, at it or below"
    )
    return Claim(
        "kind",
        f"{WORDS}: the load beside theory's.",
        evidence.verdict(of_data=False),
        finding,
        f"the other kind: α_BBP itself, or {100 * OFF:g} % below it where the claim is continuous",
        evidence.power,
        (
            *("p*", "a", "p", "kind, theory", "kind, by α_c beside α_BBP", "probability of discontinuous"),
            *("α_c", "α_BBP", "claim to alternative / error"),
        ),
        tuple(
            (
                str(load.p_star),
                f"{load.a:g}",
                str(load.p),
                load.kind,
                load.kind_from_data.replace("_", " "),
                f"{load.probability_discontinuous:.3f}",
                load.text(),
                f"{load.alpha_bbp:.4f}",
                errors_apart(comparison),
            )
            for load, comparison in zip(measured, found, strict=True)
        ),
    )


def kind_alone_claim(measured: Sequence[Climb]) -> Claim:
    """The climb with N of the load where sizes cross, with no theory in its measurement: none at a continuous
    transition, theory's at a discontinuous one, each against the other. Theory says at which sizes there is a
    climb, and so gives the power: below the crossover size a discontinuous transition has none either."""
    theory = [_climb_of_theory(climb) for climb in measured]
    pairs = []
    for climb, own in zip(measured, theory, strict=True):
        if _kind(climb.model) == "continuous":
            others = [other for other, at in zip(theory, measured, strict=True) if at.sizes == climb.sizes]
            pairs.append(compare(climb.value, climb.error, 0.0, max(others)))
        else:
            error = math.hypot(climb.error, OF_THEORY * min(1.0, own / OF_THEORY))
            pairs.append(compare(climb.value, error, own, 0.0))
    evidence = weigh(pairs)
    finding = "no model has four sizes whose curves cross within their loads"
    if measured:
        beyond = [climb for climb, own in zip(measured, theory, strict=True) if own > OF_THEORY]
        finding = (
            f"of {len(measured)} models with four sizes, {len(beyond)} have a climb by theory at the sizes "
            "measured; elsewhere both kinds look the same, and no data at these sizes tell them apart"
        )
        finding += "".join(
            f"; at p = {climb.model.p:g}, p* = {climb.model.p_star}, a = {climb.model.a:g} the load where "
            f"sizes cross grows from {climb.low:.3f} to {climb.high:.3f}, {climb.value / climb.error:+.1f} "
            "errors"
            for climb in beyond
        )
    return Claim(
        "kind_alone",
        f"{WORDS}: from the data alone.",
        evidence.verdict(),
        finding,
        "the other kind: a crossing of sizes that stays, or one that climbs with N as theory has it at these "
        "sizes",
        evidence.power,
        ("p*", "a", "p", "sizes", "kind, theory", "climb, log ratio", "error", "theory", "apart / error"),
        tuple(
            (
                str(climb.model.p_star),
                f"{climb.model.a:g}",
                f"{climb.model.p:g}",
                ", ".join(map(str, climb.sizes)),
                _kind(climb.model),
                f"{climb.value:+.3f}",
                f"{climb.error:.3f}",
                f"{own:.3f}",
                errors_apart(pair),
            )
            for climb, own, pair in zip(measured, theory, pairs, strict=True)
        ),
    )


def _kind(model: Model) -> str:
    return transition_at(model).kind


def _climb_of_theory(climb: Climb) -> float:
    """log of alpha_bbp(N) between the geometric means of both pairs of sizes."""
    small, next_one, last_but_one, large = climb.sizes
    ends = (math.sqrt(small * next_one), math.sqrt(last_but_one * large))
    low, high = (alpha_bbp_at_size(climb.model, N) for N in ends)
    return float(np.log(high / low))
