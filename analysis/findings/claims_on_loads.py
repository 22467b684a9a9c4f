"""The claims of arXiv:2510.18435 on critical loads: their fall with the width, their limits, and alpha_0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.estimate.verdicts import SURE
from bendscape.analysis.findings.evidence import Claim, Comparison, compare, errors_apart, weigh
from bendscape.analysis.findings.measured_loads import Load, fall_between, families_of
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import transition_at

WIDE_RATIO = 4
"""A student is called wide if its width is at least this multiple of the teacher's."""
LINE_RATIO = 2
"""The line in 1/p begins at this multiple of the teacher's width. That theory's own loads bend away from it
is part of the error."""
SMALL = 0.03
"""Largest a that counts as a -> 0: p_star (a + 1)/2 is then within 3 per cent of p_star/2."""
LEAST_WIDTHS = 3
"""Widths behind an extrapolation in 1/p."""
OFF = 0.1
"""Relative distance from theory within which a load shows its limit."""
LIMIT_OFF = 0.2
"""Relative distance of the alternatives to a limit: what hours of sampling can tell apart."""
WIDE = 1024
"""Width of a student whose exact threshold is shown beside the limit of infinite width."""

COLUMNS = ("p*", "a", "p", "α_c measured", "estimator", "theory", "distance / error")
ZERO = ("alpha_0_principal_value", "alpha_0_tangent", "alpha_0_complex_re")


def load_row(load: Load) -> tuple[str, ...]:
    """The fields of ``COLUMNS``."""
    head = (str(load.p_star), f"{load.a:g}", str(load.p), load.text(), load.estimator)
    return (*head, f"{load.theory:.4f}", f"{load.distance:+.1f}")


def _trend(family: Sequence[Load], x: Floats, *hypotheses: Floats, at: int) -> Comparison:
    """Coefficient ``at`` of a straight line in x through the loads of a family, weighted by their errors,
    beside what the same line gives for the claim's loads and for each alternative's."""
    weight = np.array([load.error for load in family]) ** -2.0
    design = np.stack([np.ones_like(x), x], axis=1)
    inverse = np.linalg.inv(design.T @ (weight[:, None] * design))
    row = (inverse @ (design.T * weight))[at]
    measured = row @ np.array([load.value for load in family])
    claimed, *others = (float(row @ values) for values in hypotheses)
    return compare(float(measured), math.sqrt(inverse[at, at]), claimed, *others)


def _falling(family: Sequence[Load], *hypotheses: Floats) -> Comparison:
    return _trend(family, np.log2([load.p for load in family]), *hypotheses, at=1)


def _theory(family: Sequence[Load]) -> Floats:
    return np.array([load.theory for load in family])


def width_claim(measured: Sequence[Load]) -> Claim:
    """The load falls as theory's does, against a load that does not depend on the width: the slope in log2 p
    of every family with equal p_star and a. One step of ``SURE`` errors upwards contradicts it too."""
    families = list(families_of(measured))
    found = [_falling(family, _theory(family), np.full(len(family), family[0].value)) for family in families]
    evidence = weigh(found)
    steps = [fall_between(wide, narrow) for family in families for narrow, wide in pairwise(family)]
    finding = "no two widths are measured"
    if families:
        falls = ", ".join(
            f"from {family[0].text()} at p = {family[0].p} to {family[-1].text()} at p = {family[-1].p} "
            f"(p* = {family[0].p_star}, a = {family[0].a:g}; "
            f"{fall_between(family[-1], family[0]):.1f} errors)"
            for family in families
        )
        finding = (
            f"The critical load falls {falls}; {sum(s > 0 for s in steps)} of {len(steps)} steps go down"
        )
        by_curve = sum(load.estimator == "theory_curve" for load in measured)
        finding += f"; {by_curve} of {len(measured)} loads are by theory_curve, which takes the shape of the "
        finding += "curve from theory and leaves its place free"
    up = any(step < -SURE for step in steps)
    rows = [
        (*load_row(load), f"{fall_between(load, before):.1f}" if before else "", errors_apart(comparison))
        for family, comparison in zip(families, found, strict=True)
        for before, load in zip([None, *family], family, strict=False)
    ]
    return Claim(
        "width",
        "A wider student sees the teacher at a lower load.",
        "contradicted" if up else evidence.verdict(),
        finding,
        "the load of a family does not depend on the width; the claim is theory's slope in log2 p",
        evidence.power,
        (*COLUMNS, "below the next narrower / error", "claim to alternative / error"),
        tuple(rows),
    )


def _wide(family: Sequence[Load], ratio: int = WIDE_RATIO) -> list[Load]:
    return [load for load in family if load.p >= ratio * load.p_star]


def headline_claim(measured: Sequence[Load]) -> Claim:
    """The loads of wide students at small a, extrapolated in 1/p, against a limit 20 per cent away. What the
    straight line makes of theory's own loads at these widths and this a, less p_star/2, is part of the
    error."""
    families = [_wide(family, LINE_RATIO) for family in families_of(measured) if family[0].a <= SMALL]
    families = [family for family in families if len(family) >= LEAST_WIDTHS]
    found, rows, words = [], [], []
    for family in families:
        limit, x = family[0].p_star / 2, np.array([1 / load.p for load in family])
        flat = np.full(len(family), limit)
        at = _trend(family, x, flat, (1 - LIMIT_OFF) * flat, (1 + LIMIT_OFF) * flat, at=0)
        of_theory = float(_trend(family, x, _theory(family), at=0).claimed[0])
        error = math.hypot(math.sqrt(at.covariance[0, 0]), of_theory - limit)
        found.append(at._replace(covariance=np.array([[error**2]])))
        value = float(at.measured[0])
        words.append(
            f"at p* = {family[0].p_star}, a = {family[0].a:g} the loads of p = {family[0].p} to "
            f"{family[-1].p} extrapolate to {value:.3f} with an error of {error:.3f} (theory's own by the "
            f"same line: {of_theory:.3f}), and p*/2 = {limit:g}"
        )
        rows += [(*load_row(load), f"{limit:g}", errors_apart(found[-1])) for load in family]
    evidence = weigh(found)
    few = f"no {LEAST_WIDTHS} widths from p = {LINE_RATIO} p* on are measured at a <= {SMALL:g}"
    return Claim(
        "headline",
        "As a -> 0 the threshold of wide students goes to p*/2, the limit of weak recovery.",
        evidence.verdict(),
        "; ".join(words) or few,
        f"a limit {100 * LIMIT_OFF:g} % above or below, for a straight line in 1/p",
        evidence.power,
        (*COLUMNS, "p*/2", "claim to alternative / error"),
        tuple(rows),
    )


def _limit_of(load: Load) -> float:
    """alpha_bbp of an infinitely wide student, for the same teacher and loss."""
    return load.p_star * (load.a + 1) / 2


def limit_claim(measured: Sequence[Load]) -> Claim:
    """The widest student of a family against p_star (a + 1)/2, if its transition is continuous (only these
    show alpha_bbp below the crossover size) and theory's alpha_bbp is within 10 per cent of the limit. That
    distance is part of the error."""
    wide = [family[-1] for family in families_of(measured) if _wide(family)]
    wide = [load for load in wide if load.a > SMALL]
    seen = [
        load
        for load in wide
        if load.kind == "continuous" and abs(load.alpha_bbp / _limit_of(load) - 1) <= OFF
    ]
    found = []
    for load in seen:
        limit = _limit_of(load)
        error = math.hypot(load.error, load.alpha_bbp - limit)
        found.append(compare(load.value, error, limit, (1 - LIMIT_OFF) * limit, (1 + LIMIT_OFF) * limit))
    evidence = weigh(found)
    below = [load for load in wide if load.kind == "discontinuous"]
    finding = f"of {len(wide)} families with a wide student and a > {SMALL:g}, the law says that "
    finding += f"{len(seen)} show the limit: their transitions are continuous, so samples show alpha_bbp"
    finding += "".join(
        f", {load.text()} at p = {load.p}, a = {load.a:g}, where it is {load.alpha_bbp:.4f} and its limit "
        f"{_limit_of(load):.4f}"
        for load in seen
    )
    finding += f"; {len(below)} are discontinuous and show alpha_0, which lies below the limit"
    finding += "".join(
        f", {load.text()} at p = {load.p}, a = {load.a:g} below {_limit_of(load):.4f}" for load in below
    )
    rows = []
    for load in wide:
        theory = transition_at(Model(WIDE, load.p_star, load.a)).alpha_bbp
        apart = errors_apart(found[seen.index(load)]) if load in seen else "not visible"
        numbers = (f"{value:.4f}" for value in (load.alpha_bbp, theory, _limit_of(load)))
        rows.append((*load_row(load), *numbers, apart))
    return Claim(
        "limit",
        "As the student widens, alpha_BBP goes to p*(a + 1)/2.",
        evidence.verdict(),
        finding,
        f"a limit {100 * LIMIT_OFF:g} % above or below",
        evidence.power,
        (*COLUMNS, "α_BBP", f"α_BBP at p = {WIDE}", "p*(a + 1)/2", "claim to alternative / error"),
        tuple(rows),
    )


def window_claim(measured: Sequence[Load]) -> Claim:
    """Loads of discontinuous transitions fall with the width like theory's alpha_0, against loads that follow
    alpha_bbp: the slope in log2 p. One step of ``SURE`` errors upwards contradicts it too."""
    families = [[load for load in family if load.kind == "discontinuous"] for family in families_of(measured)]
    families = [family for family in families if len(family) > 1]
    found = [_falling(each, _theory(each), np.array([load.alpha_bbp for load in each])) for each in families]
    evidence = weigh(found)
    pairs = [pair for family in families for pair in pairwise(family)]
    falls = [fall_between(wide, narrow) for narrow, wide in pairs]
    finding = f"{sum(f > 0 for f in falls)} of {len(pairs)} steps between discontinuous transitions go down"
    for (narrow, wide), fall in zip(pairs, falls, strict=True):
        if wide.alpha_bbp > narrow.alpha_bbp:
            finding += (
                f"; at p* = {wide.p_star}, a = {wide.a:g} from p = {narrow.p} to {wide.p} theory's alpha_bbp "
                f"rises from {narrow.alpha_bbp:.4f} to {wide.alpha_bbp:.4f} while the measured load goes "
                f"{'down' if fall > 0 else 'up'} by {abs(fall):.1f} errors, from {narrow.text()} to "
                f"{wide.text()}"
            )
    return Claim(
        "window",
        "alpha_0, where a discontinuous transition begins to show, falls with the width even where alpha_BBP "
        "does not.",
        "contradicted" if any(fall < -SURE for fall in falls) else evidence.verdict(),
        finding,
        "loads that change with the width as theory's alpha_BBP does; the claim is theory's alpha_0",
        evidence.power,
        (*COLUMNS, "α_BBP", "claim to alternative / error"),
        tuple(
            (*load_row(load), f"{load.alpha_bbp:.4f}", errors_apart(comparison))
            for family, comparison in zip(families, found, strict=True)
            for load in family
        ),
    )


def definitions_claim(measured: Sequence[Load]) -> Claim:
    """Loads of discontinuous transitions at the principal-value alpha_0, against the tangent's, the complex
    one and alpha_bbp. At best consistent: the estimators take scales from the principal-value branch."""
    theory = [(load, _definitions(load)) for load in measured if load.kind == "discontinuous"]
    theory = [(load, values) for load, values in theory if np.isfinite(values).all()]
    found = [compare(load.value, load.error, *values) for load, values in theory]
    evidence = weigh(found)
    finding = "no load of a discontinuous transition is measured for which all definitions have a value"
    if found:
        parts = [
            f"{words} lies {apart:.1f} errors from the claim, and the data {apart - near:.1f} from it"
            for words, apart, near in zip(
                ("the tangent", "the complex zero", "alpha_bbp"),
                evidence.separation,
                evidence.towards,
                strict=True,
            )
        ]
        finding = f"{len(found)} loads together: " + "; ".join(parts)
    return Claim(
        "definitions",
        "alpha_0 is where the principal-value branch ends.",
        evidence.verdict(of_data=False),
        finding,
        "alpha_0 by the tangent, by the complex zero, or alpha_BBP; the power is that against the nearest",
        evidence.power,
        ("p*", "a", "p", "α_c measured", *(f"from {name}" for name in (*ZERO, "alpha_bbp"))),
        tuple(
            (
                str(load.p_star),
                f"{load.a:g}",
                str(load.p),
                load.text(),
                *(f"{(load.value - value) / load.error:+.1f}" for value in values),
            )
            for load, values in theory
        ),
    )


def _definitions(load: Load) -> Floats:
    """Theory's alpha_0 by each definition of ``ZERO``, and alpha_bbp."""
    return np.array([load.definitions[name] for name in (*ZERO, "alpha_bbp")])
