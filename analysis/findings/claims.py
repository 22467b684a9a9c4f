"""What a sweep says about the claims of arXiv:2510.18435 (Annesi, Bocchi, Cammarota), one by one, in
numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import xarray as xr

from bendscape.analysis.findings.claims_on_eigenvectors import (
    Gaps,
    Outlier,
    edge_claim,
    eigenvalue_claim,
    gaps_below,
    outliers_above,
    overlap_claim,
)
from bendscape.analysis.findings.claims_on_kinds import kind_alone_claim, kind_claim
from bendscape.analysis.findings.claims_on_loads import (
    definitions_claim,
    headline_claim,
    limit_claim,
    width_claim,
    window_claim,
)
from bendscape.analysis.findings.evidence import Claim
from bendscape.analysis.findings.measured_loads import Load, measured_loads
from bendscape.analysis.findings.overlap_above import OverlapAbove, overlaps_above
from bendscape.analysis.findings.size_pairs import Climb, climbs


def claims(loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset) -> list[Claim]:
    """Every claim with its verdict and the power of its test.

    The critical load of a model is that of :func:`bendscape.analysis.estimate.verdicts.preferred_estimator`,
    if its fit holds and two sizes are measured. Its theory is alpha_bbp for a continuous transition and
    alpha_0 (the principal value or, without one, the complex definition) for a discontinuous one, whose
    alpha_bbp no size below the crossover shows.

    Parameters
    ----------
    loads : xarray.Dataset
        What :func:`bendscape.analysis.estimate.collapse.collapse` returns, computed.
    edge : xarray.Dataset
        What :func:`bendscape.analysis.estimate.edge_scaling.edge_scaling` returns, computed.
    above : xarray.Dataset
        What :func:`bendscape.analysis.findings.panels.means` returns, computed.

    Returns
    -------
    list of Claim
        ``width``: a wider student has a lower critical load. ``headline``: as a -> 0 the loads of wide
        students tend to p_star/2. ``limit``: wide students have alpha_bbp = p_star (a + 1)/2. ``kind``:
        continuous below the tricritical a, discontinuous above, with theory's alpha_bbp; ``kind_alone``: the
        same without theory. ``edge``: N^(-2/3) at a sharp edge, slower inside a smooth one. ``window``:
        alpha_0 falls with the width where alpha_bbp rises; ``definitions``: which alpha_0 it is. ``overlap``
        and ``eigenvalue``: overlap_sq and lambda_star above the threshold.

    Notes
    -----
    Verdicts and power: :mod:`bendscape.analysis.findings.evidence`. The alternative of each claim is part of
    the result. ``kind`` and ``definitions`` lean on theory's own numbers, and are consistent at most. Source
    of the claims: arXiv:2510.18435; of the tests: this project's own.
    """
    return claims_of(readings(loads, edge, above))


class Readings(NamedTuple):
    """What the claims are judged by, model by model: critical loads, gaps to the edge, overlaps and outliers
    above the threshold, and the climb of the load where sizes cross."""

    loads: Sequence[Load]
    gaps: Sequence[tuple[str, Gaps]]
    overlaps: Sequence[OverlapAbove]
    outliers: Sequence[Outlier]
    climbs: Sequence[Climb]

    def __add__(self, other: Readings) -> Readings:  # type: ignore[override]
        """The readings of two sweeps with cells of their own. A model has the critical load with the smaller
        error of the two."""
        loads: dict[tuple[float, ...], Load] = {}
        for one in sorted([*self.loads, *other.loads], key=lambda load: load.error):
            loads.setdefault((one.p_star, one.a, one.p), one)
        return Readings(
            [loads[model] for model in sorted(loads)],
            [*self.gaps, *other.gaps],
            [*self.overlaps, *other.overlaps],
            [*self.outliers, *other.outliers],
            [*self.climbs, *other.climbs],
        )


def readings(loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset) -> Readings:
    """The numbers behind :func:`claims`, with the same parameters."""
    of_loads = measured_loads(loads), gaps_below(edge)
    return Readings(*of_loads, overlaps_above(above), outliers_above(above), climbs(above))


def claims_of(found: Readings) -> list[Claim]:
    """The claims from their readings."""
    return [
        width_claim(found.loads),
        headline_claim(found.loads),
        limit_claim(found.loads),
        kind_claim(found.loads),
        kind_alone_claim(found.climbs),
        edge_claim(found.gaps),
        window_claim(found.loads),
        definitions_claim(found.loads),
        overlap_claim(found.overlaps),
        eigenvalue_claim(found.outliers),
    ]


def render_claims(found: Sequence[Claim]) -> str:
    """The claims as Markdown: a table of verdicts with their power; then each with a heading, its text, the
    verdict with numbers, the alternative, and a table."""
    summary = [
        (claim.words.rstrip("."), claim.verdict, claim.strength.removeprefix("power "), claim.alternative)
        for claim in found
        if claim.alternative
    ]
    parts = [_table([("claim", "verdict", "power", "tested against"), *summary])] if summary else []
    for claim in found:
        strength = f"** ({claim.strength})." if claim.alternative else ".**"
        lines = [
            f"### {claim.words}",
            "",
            f"**{claim.verdict.capitalize()}{strength} {claim.finding[0].upper()}{claim.finding[1:]}.",
        ]
        if claim.alternative:
            lines += ["", f"Alternative: {claim.alternative}."]
        if claim.rows:
            lines += ["", _table([claim.columns, *claim.rows])]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *body))
