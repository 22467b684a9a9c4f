"""What a sweep says about the claims of arXiv:2510.18435 (Annesi, Bocchi, Cammarota), one by one, in
numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy.typing as npt
import xarray as xr
from scipy.stats import binomtest

from bendscape.analysis.dataset.models import MODEL, alpha_axis
from bendscape.analysis.estimate.edge_fits import LEAST_SEEDS
from bendscape.analysis.estimate.notation import with_error
from bendscape.analysis.estimate.verdicts import AGREES, DEFINITIONS
from bendscape.analysis.findings.measured_loads import (
    Load,
    fall_between,
    families_of,
    measured_loads,
    together,
)
from bendscape.analysis.findings.overlap_above import OverlapAbove, overlaps_above
from bendscape.analysis.findings.scaling import LAWS, edge_rows
from bendscape.core.quadratic.finite_size.crossover import crossover_size
from bendscape.core.quadratic.finite_size.edge_scales import edge_scales
from bendscape.core.quadratic.model import EDGE_KINDS, Model
from bendscape.core.quadratic.theory.outlier import transition_at

Verdict = Literal["supported", "consistent", "contradicted", "not enough data"]

SURE = 3.0
"""A difference counts from this number of standard errors (statistical and systematic) on."""
RARE = 0.01
MISFIT = 0.03
"""Fraction of fits in which a law that holds is rejected, as measured (docs/analysis.md)."""
WIDE_RATIO = 4
"""A student is called wide if its width is at least this multiple of the teacher's."""
LEAST_MODELS = 2
"""Number of models that a claim on a limit, or on the overlap, needs to be supported."""
TELLING = 0.1
"""Largest relative error of an overlap above a threshold that supports theory."""
WIDE = 1024
"""Width of a student whose exact threshold is shown beside the limit of infinite width."""


class Claim(NamedTuple):
    """One claim: its text; the verdict of the data, in one word and in a sentence with numbers; and the table
    behind the sentence, as column names and rows of texts."""

    name: str
    words: str
    verdict: Verdict
    finding: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def claims(loads: xr.Dataset, edge: xr.Dataset, above: xr.Dataset) -> list[Claim]:
    """Every claim with its verdict.

    The critical load of a model is that of :func:`bendscape.analysis.estimate.verdicts.preferred_estimator`,
    if its fit holds and two sizes are measured. Its theory is alpha_bbp for a continuous transition and
    alpha_0 (the principal value or, without one, the complex definition) for a discontinuous one, whose
    alpha_bbp no size within reach shows.

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
        ``width``: a wider student has a lower critical load. ``limit``: thresholds tend to p_star (a + 1)/2.
        ``kind``: continuous below the tricritical a, discontinuous above. ``edge``: corrections N^(-2/3) at a
        sharp edge; slower, as 1/log N, inside a smooth one. ``window``: alpha_0 decreases with the width even
        where alpha_bbp increases. ``overlap``: the squared overlap above the threshold.

    Notes
    -----
    *Supported*: the data would have shown it if it were false, and did not. *Consistent*: the data do not
    contradict it, but could not have distinguished it from an alternative, or depend on theory's own numbers.

    A claim on loads is contradicted by one difference of ``SURE`` errors in the wrong direction. It is
    supported if there is none and all differences together (their sum over the root of their number) exceed
    ``SURE`` errors. With normal errors a true claim with n differences is contradicted with a probability of
    at most 0.0013 n. The limit is supported if ``LEAST_MODELS`` wide students with continuous transitions
    (only these show alpha_bbp) lie within ``AGREES`` errors of it, and consistent if one of them has a small
    error and none disagrees with its own theory. A kind is inferred from the distance of the measured load
    from theory's alpha_bbp, so the claim on kinds is consistent at most; it is contradicted if the load is
    ``SURE`` errors from that of the claimed kind.

    The claim on edges counts loads, whose cells are independent. A law is preferred if a fair coin would
    prefer it as often with a probability below ``RARE`` and it is rejected no more often than ``MISFIT``.
    A preference for 1/log N only says that the approach is slower than N^(-2/3), so the claim is consistent
    at most. Smooth edges count where they have no continuation
    (:func:`bendscape.core.quadratic.finite_size.edge_scales.edge_scales`): elsewhere, samples below the
    crossover size see the sharp edge of the continuation, and neither law is true.

    The overlap above the threshold is compared with theory's law at the same N
    (:func:`bendscape.analysis.findings.overlap_above.overlaps_above`): contradicted by one model ``SURE``
    errors off; supported if ``LEAST_MODELS`` models have an error of at most ``TELLING`` at an N where
    that law is within a quarter of the overlap at infinite N; otherwise consistent. lambda_* and the limit
    p_star/2 at small a have no claim here. Source of the claims: arXiv:2510.18435.
    """
    measured = measured_loads(loads)
    of_loads = [_width(measured), _limit(measured), _kind(measured)]
    return [*of_loads, _edge(edge), _window(measured), _overlap(overlaps_above(above))]


def _verdict(contradicted: bool, supported: bool, consistent: bool = False) -> Verdict:
    if contradicted:
        return "contradicted"
    return "supported" if supported else "consistent" if consistent else "not enough data"


_LOAD_COLUMNS = ("p*", "a", "p", "α_c measured", "estimator", "theory", "distance / error")


def _load_row(load: Load) -> tuple[str, ...]:
    head = (str(load.p_star), f"{load.a:g}", str(load.p), load.text(), load.estimator)
    return (*head, f"{load.theory:.4f}", f"{load.distance:+.1f}")


def _width(measured: Sequence[Load]) -> Claim:
    families = list(families_of(measured))
    whole = [fall_between(family[-1], family[0]) for family in families]
    steps = [fall_between(wide, narrow) for family in families for narrow, wide in pairwise(family)]
    finding = "no two widths are measured"
    if families:
        falls = ", ".join(
            f"from {family[0].text()} at p = {family[0].p} to {family[-1].text()} at p = {family[-1].p} "
            f"(p* = {family[0].p_star}, a = {family[0].a:g}; {fall:.1f} errors)"
            for family, fall in zip(families, whole, strict=True)
        )
        down = sum(step > 0 for step in steps)
        finding = f"The critical load falls {falls}; {down} of {len(steps)} steps go down"
        by_curve = sum(load.estimator == "theory_curve" for load in measured)
        finding += f"; {by_curve} of {len(measured)} loads are by theory_curve, which takes the shape of the "
        finding += "curve from theory and leaves its place free"
    return Claim(
        "width",
        "A wider student sees the teacher at a lower load.",
        _verdict(any(step < -SURE for step in steps), together(whole) > SURE),
        finding,
        (*_LOAD_COLUMNS, "below the next narrower / error"),
        tuple(
            (*_load_row(load), f"{fall_between(load, before):.1f}" if before is not None else "")
            for family in families
            for before, load in zip([None, *family], family, strict=False)
        ),
    )


def _limit(measured: Sequence[Load]) -> Claim:
    wide = [
        (family[0], family[-1])
        for family in families_of(measured)
        if family[-1].p >= WIDE_RATIO * family[-1].p_star
    ]
    rows, seen = [], []
    for narrow, load in wide:
        limit = _limit_of(load)
        theory = transition_at(Model(WIDE, load.p_star, load.a)).alpha_bbp
        rows.append((*_load_row(load), f"{load.alpha_bbp:.4f}", f"{theory:.4f}", f"{limit:.4f}"))
        # only continuous transitions show alpha_bbp; the test needs an error that is small compared with the
        # decrease of alpha_bbp due to the width
        if load.kind == "continuous" and SURE * load.error < abs(narrow.theory - load.theory):
            seen.append(load)
    reached = [load for load in seen if abs(load.value - _limit_of(load)) <= AGREES * load.error]
    off = max((abs(load.distance) for _, load in wide), default=math.nan)
    finding = "no wide student is measured"
    if wide:
        finding = (
            f"the critical loads of {len(wide)} wide students lie within {off:.1f} errors of the theory that "
            f"has this limit; {len(seen)} of them, continuous and with a small error, show alpha_bbp itself"
        )
        finding += "".join(
            f", {load.text()} at p = {load.p}, a = {load.a:g}, where it is {load.alpha_bbp:.4f} and its "
            f"limit {_limit_of(load):.4f}, {abs(load.value - _limit_of(load)) / load.error:.1f} errors away"
            for load in seen
        )
        below = sum(load.kind == "discontinuous" for _, load in wide)
        finding += f"; {below} are discontinuous and show alpha_0"
    return Claim(
        "limit",
        "As the student widens, alpha_BBP goes to p*(a + 1)/2.",
        _verdict(off > SURE, len(reached) >= LEAST_MODELS, bool(seen)),
        finding,
        (*_LOAD_COLUMNS, "α_BBP", f"α_BBP at p = {WIDE}", "p*(a + 1)/2"),
        tuple(rows),
    )


def _limit_of(load: Load) -> float:
    """alpha_bbp of an infinitely wide student, for the same teacher and loss."""
    return load.p_star * (load.a + 1) / 2


def _kind(measured: Sequence[Load]) -> Claim:
    decided = [load for load in measured if load.kind_from_data in ("continuous", "discontinuous")]
    right = [load for load in decided if load.kind_from_data == load.kind]
    odd = [load for load in measured if load.kind_from_data == "neither"]
    far = [load for load in decided if load not in right and abs(load.distance) > SURE]
    finding = (
        f"Of {len(measured)} models the data tell the kind of {len(decided)}, {len(right)} of them as theory "
        f"has it ({sum(load.kind == 'continuous' for load in right)} continuous, "
        f"{sum(load.kind == 'discontinuous' for load in right)} discontinuous); {len(odd)} are neither, the "
        "others cannot be told. Each kind is read off where the measured load lies beside theory's "
        "alpha_bbp, at it or below: without that number from theory nothing here tells the kinds apart"
    )
    return Claim(
        "kind",
        "The transition is continuous for small a and p, discontinuous for large ones.",
        _verdict(
            bool(odd or far),
            False,
            len(right) == len(decided) and {load.kind for load in right} == {"continuous", "discontinuous"},
        ),
        finding,
        (
            "p*",
            "a",
            "p",
            "kind, theory",
            "kind, by α_c beside α_BBP",
            "probability of discontinuous",
            "α_c",
            "α_BBP",
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
            )
            for load in measured
        ),
    )


_CLAIMED = {"sharp": ("n_two_thirds", "one_over_log"), "smooth": ("one_over_log", "n_two_thirds")}
"""For each edge the law that is claimed, and the other one."""
_CONTINUED = "smooth, seen as sharp at these sizes"


def _edge(edge: xr.Dataset) -> Claim:
    counts = {seen: dict.fromkeys(LAWS, 0) for seen in ("sharp", _CONTINUED, "smooth")}
    kind_of = _edge_kinds(edge)
    for row in edge_rows(edge):
        counts[kind_of(row)][row["law"]] += 1

    def often(count: int, total: int, share: float) -> bool:
        return total > 0 and binomtest(count, total, share, "greater").pvalue < RARE

    chosen = {seen: [counts[seen][law] for law in laws] for seen, laws in _CLAIMED.items()}
    refused = any(  # more often than a law that holds would be
        often(counts[seen]["neither"], sum(counts[seen].values()), MISFIT) for seen in _CLAIMED
    )
    finding = "; ".join(
        f"at {sum(counts[seen].values())} loads with a {seen} edge the data choose {LAWS[laws[0]]} "
        f"{chosen[seen][0]} times, the other law {chosen[seen][1]} times and neither "
        f"{counts[seen]['neither']} times"
        for seen, laws in _CLAIMED.items()
    )
    finding += (
        ". A choice of 1/log N says that the approach is slower than N^(-2/3), not that 1/log N is its law: "
        "at such sizes theory's own amplitude of 1/log N still grows with N"
    )
    return Claim(
        "edge",
        "The lowest eigenvalue approaches a sharp edge like N^(-2/3) and a smooth one like 1/log N.",
        _verdict(
            any(often(other, own + other, 0.5) for own, other in chosen.values()),
            False,
            not refused and all(often(own, own + other, 0.5) for own, other in chosen.values()),
        ),
        finding,
        ("edge, theory", *LAWS.values()),
        tuple((seen, *map(str, at.values())) for seen, at in counts.items()),
    )


def _edge_kinds(edge: xr.Dataset) -> Callable[[Mapping[str, Any]], str]:
    """The edge at the load of a row: sharp, smooth or ``_CONTINUED``. A smooth edge whose tail is too thin
    for samples within reach, not far below alpha_0, looks like the sharp edge of its continuation."""
    dim, N = alpha_axis(edge), edge["N"].values

    @cache
    def of_model(*model: float) -> list[npt.NDArray[Any]]:
        at = edge[["edge", "alpha", "n_seeds"]].sel(dict(zip(MODEL, model, strict=True)))
        return [at[name].transpose(dim, ...).values for name in ("edge", "alpha", "n_seeds")]

    def kind(row: Mapping[str, Any]) -> str:
        kinds, alpha, n_seeds = of_model(row["p"], row["p_star"], row["a"])
        place = int(abs(alpha - row["alpha"]).argmin())
        if EDGE_KINDS[int(kinds[place])] == "sharp":
            return "sharp"
        model = Model(row["p"], row["p_star"], row["a"])
        used = N[(n_seeds[place] >= LEAST_SEEDS) & (edge.attrs["least_size"] <= N)]
        beyond = used.size and used.min() >= crossover_size(model)  # here samples see the tail itself
        continued = math.isfinite(edge_scales(model, row["alpha"]).gamma_edge)
        return _CONTINUED if continued and not beyond else "smooth"

    return kind


def _window(measured: Sequence[Load]) -> Claim:
    families = [[load for load in family if load.kind == "discontinuous"] for family in families_of(measured)]
    pairs = [pair for family in families for pair in pairwise(family)]
    falls = [fall_between(wide, narrow) for narrow, wide in pairs]
    rising = [
        (wide, narrow, fall)
        for (narrow, wide), fall in zip(pairs, falls, strict=True)
        if wide.alpha_bbp > narrow.alpha_bbp
    ]
    finding = f"{sum(f > 0 for f in falls)} of {len(pairs)} steps between discontinuous transitions go down"
    for wide, narrow, fall in rising:
        finding += (
            f"; at p* = {wide.p_star}, a = {wide.a:g} from p = {narrow.p} to {wide.p} alpha_bbp rises from "
            f"{narrow.alpha_bbp:.4f} to {wide.alpha_bbp:.4f} while the measured load goes "
            f"{'down' if fall > 0 else 'up'} by {abs(fall):.1f} errors, from {narrow.text()} to {wide.text()}"
        )
    listed = [load for family in families for load in family]
    for name in DEFINITIONS:
        known = [load.distances[name] for load in listed if math.isfinite(load.distances[name])]
        near = sum(abs(distance) <= AGREES for distance in known)
        finding += f"; {name} lies within {AGREES:g} errors of {near} of {len(known)} measured loads"
    return Claim(
        "window",
        "alpha_0, where a discontinuous transition begins to show, falls with the width even where alpha_BBP "
        "does not.",
        _verdict(any(fall < -SURE for fall in falls), together(falls) > SURE),
        finding,
        ("p*", "a", "p", "α_c measured", "α_0 theory", "α_BBP", *(f"from {name}" for name in DEFINITIONS)),
        tuple(
            (
                str(load.p_star),
                f"{load.a:g}",
                str(load.p),
                load.text(),
                f"{load.theory:.4f}",
                f"{load.alpha_bbp:.4f}",
                *(_signed(load.distances[name]) for name in DEFINITIONS),
            )
            for load in listed
        ),
    )


def _overlap(rows: Sequence[OverlapAbove]) -> Claim:
    telling = [
        row for row in rows if row.error <= TELLING and abs(math.log(row.finite_size)) < math.log(1.25)
    ]
    finding = "no load above a threshold is measured with enough seeds"
    if rows:
        near = sum(abs(row.distance) <= AGREES for row in rows)
        finding = (
            f"Above the thresholds of {len(rows)} models the measured overlap lies within {AGREES:g} errors "
            f"of theory's at the same N for {near}; for {len(telling)} of them the error is {TELLING:g} at "
            "most, and theory's value at this N within a quarter of that at infinite N"
        )
    return Claim(
        "overlap",
        "Above alpha_BBP the lowest eigenvectors have theory's squared overlap with the teacher.",
        _verdict(any(abs(row.distance) > SURE for row in rows), len(telling) >= LEAST_MODELS, bool(rows)),
        finding,
        ("p*", "a", "p", "N", "loads", "measured / theory at N", "theory at N / at infinite N"),
        tuple(
            (
                str(row.model.p_star),
                f"{row.model.a:g}",
                str(row.model.p),
                str(row.N),
                str(row.loads),
                with_error(row.ratio, row.error),
                f"{row.finite_size:.2f}",
            )
            for row in rows
        ),
    )


def _signed(distance: float) -> str:
    """A distance in errors; empty if the definition has no value."""
    return f"{distance:+.1f}" if math.isfinite(distance) else ""


def render_claims(found: Sequence[Claim]) -> str:
    """The claims as Markdown, each with a heading, its text, the verdict with numbers, and a table."""
    parts = []
    for claim in found:
        lines = [
            f"### {claim.words}",
            "",
            f"**{claim.verdict.capitalize()}.** {claim.finding[0].upper()}{claim.finding[1:]}.",
        ]
        if claim.rows:
            lines += [
                "",
                *(f"| {' | '.join(row)} |" for row in (claim.columns, ("---",) * len(claim.columns))),
            ]
            lines += [f"| {' | '.join(row)} |" for row in claim.rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
