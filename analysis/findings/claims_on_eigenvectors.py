"""The claims of arXiv:2510.18435 about the lowest eigenvalue and its eigenvectors, below and above the
threshold, with theory's laws at the N that was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.dataset.models import MODEL, alpha_axis
from bendscape.analysis.estimate.edge_fits import LAWS, LEAST_SEEDS, OUTCOMES, widened
from bendscape.analysis.estimate.laws import lowest_eigenvalue_law
from bendscape.analysis.estimate.notation import with_error
from bendscape.analysis.findings.evidence import Claim, Comparison, compare, errors_apart, jointly, weigh
from bendscape.analysis.findings.overlap_above import ACCURACY as OVERLAP_ACCURACY
from bendscape.analysis.findings.overlap_above import OverlapAbove
from bendscape.core.quadratic.finite_size.crossover import crossover_size
from bendscape.core.quadratic.finite_size.edge_scales import edge_scales
from bendscape.core.quadratic.finite_size.spiked_edge import TRACY_WIDOM_MEAN
from bendscape.core.quadratic.model import EDGE_KINDS, Model
from bendscape.core.quadratic.theory.bulk import left_edge
from bendscape.core.quadratic.theory.outlier import transition_at

OVERLAP_OFF = 0.2
"""Relative distance of the alternatives to theory's overlap."""
MOST_LOADS = 3
"""Loads of one model and one kind of edge at which theory's law is evaluated: far inside a smooth edge that
takes seconds each."""

_OTHER = {"sharp": "one_over_log", "smooth": "n_two_thirds"}
_NAMES = {"n_two_thirds": "N^(-2/3)", "one_over_log": "1/log N"}
_CONTINUED = "smooth, seen as sharp at these sizes"


class Gaps(NamedTuple):
    """Distance of the mean lowest eigenvalue from lambda_minus at several sizes, the mean over some loads of
    one model: measured and by theory, the statistical error, and that of the law."""

    model: Model
    loads: int
    N: Floats
    measured: Floats
    law: Floats
    error: Floats
    of_law: Floats

    def compared(self, other: str) -> Comparison:
        """Theory's law at every N, against the other law with the amplitude nearest to theory's."""
        covariance = np.diag(self.error**2) + np.outer(self.of_law, self.of_law)
        inverse, shape = np.linalg.inv(covariance), LAWS[other](self.N)
        amplitude = (shape @ inverse @ self.law) / (shape @ inverse @ shape)
        return Comparison(self.measured, self.law, amplitude * shape[None], covariance)


def edge_claim(gaps: Sequence[tuple[str, Gaps]]) -> Claim:
    """The mean lowest eigenvalue below threshold at each N beside theory's law at that N, which tends to
    N^(-2/3) above a sharp edge and is slower inside a smooth one, against the other bare law with the
    amplitude that fits theory best. Inside a smooth edge with a continuation, samples below the crossover
    size see that sharp edge, and neither law is claimed."""
    of_kind, words = {}, []
    for kind, other in _OTHER.items():
        at_kind = [at for of, at in gaps if of == kind]
        pairs = [at.compared(other) for at in at_kind]
        of_kind[kind] = weigh(jointly(pairs, [at.of_law for at in at_kind]))
        count = len(at_kind)
        if count:
            at = of_kind[kind]
            words.append(
                f"at {count} models with a {kind} edge the means lie {float(at.towards[0]):+.1f} errors from "
                f"theory's law towards {_NAMES[other]}, which is {float(at.separation[0]):.1f} errors "
                f"away (chi2 {at.chi2:.1f} with {at.dof} degrees of freedom, power {at.power:.2f})"
            )
    both = all(at.dof for at in of_kind.values())
    # one claim on two kinds of edge: it has no more power than the weaker half
    power = min((at.power for at in of_kind.values() if at.dof), default=math.nan)
    verdicts = {at.verdict() for at in of_kind.values() if at.dof}
    order = ("contradicted", "no power", "consistent", "supported")
    verdict = next(word for word in order if word in (verdicts or {"no power"}))
    if verdict == "supported" and not both:
        verdict = "consistent"
    drift = "; theory's (⟨λ_min⟩ − λ₋) log N still changes with N inside a smooth edge at such sizes"
    return Claim(
        "edge",
        "The lowest eigenvalue approaches a sharp edge like N^(-2/3) and a smooth one more slowly, like "
        "1/log N.",
        verdict,
        ("; ".join(words) + drift) if words else "too few sizes with enough seeds below a threshold",
        "the other law, with the amplitude nearest to theory's; the power is that of the weaker half",
        power,
        (
            "p*",
            "a",
            "p",
            "edge, theory",
            "loads",
            "N",
            "⟨λ_min⟩ − λ₋",
            "theory",
            "theory's law",
            "apart / error",
        ),
        tuple(_gap_row(kind, at) for kind, at in gaps),
    )


def _gap_row(kind: str, at: Gaps) -> tuple[str, ...]:
    values = zip(at.measured.tolist(), at.error.tolist(), strict=True)
    exponent = "no power law"
    if (at.law > 0).all():
        exponent = f"N^(-{-(np.diff(np.log(at.law)) / np.diff(np.log(at.N)))[-1]:.2f})"
    return (
        str(at.model.p_star),
        f"{at.model.a:g}",
        f"{at.model.p:g}",
        kind,
        str(at.loads),
        ", ".join(f"{N:g}" for N in at.N),
        ", ".join(with_error(value, error) for value, error in values),
        ", ".join(f"{value:.4f}" for value in at.law),
        exponent,
        errors_apart(at.compared(_OTHER[kind])),
    )


def gaps_below(edge: xr.Dataset) -> list[tuple[str, Gaps]]:
    """The gaps of every model with three sizes below threshold, for each kind of edge about which there is a
    claim."""
    dim, rows = alpha_axis(edge), []
    names = ("lambda_minus", "mean", "mean_error", "controlled", "controlled_error", "n_seeds")
    unfit = [tuple(OUTCOMES).index(name) for name in ("not_applicable", "not_enough_data")]
    for index in np.ndindex(*(edge.sizes[name] for name in MODEL)):
        at = edge.isel(dict(zip(MODEL, index, strict=True)))
        model, sizes = Model(*(at[name].item() for name in MODEL)), at["N"].values.astype(np.float64)
        below = ~np.isin(at["law"].values, unfit)
        values = {name: at[name].transpose(dim, "N").values for name in names}
        alpha, kinds = at["alpha"].values, at["edge"].values
        use = (values["n_seeds"] >= LEAST_SEEDS) & (sizes >= float(edge.attrs["least_size"]))
        groups: dict[tuple[str, tuple[bool, ...]], list[int]] = {}
        for i in np.flatnonzero(below & (use.sum(axis=1) >= 3)).tolist():
            kind = _edge_kind(model, float(alpha[i]), EDGE_KINDS[int(kinds[i])], float(sizes[use[i]].min()))
            groups.setdefault((kind, tuple(use[i].tolist())), []).append(i)
        largest: dict[str, tuple[tuple[bool, ...], list[int]]] = {}
        for (kind, mask), places in groups.items():  # loads with the same sizes, of the commonest set
            if kind not in largest or len(places) > len(largest[kind][1]):
                largest[kind] = (mask, places)
        for kind, (mask, places) in largest.items():
            if kind == _CONTINUED:
                continue
            chosen = np.unique(np.linspace(0, len(places) - 1, MOST_LOADS).round().astype(int))
            rows.append(
                (kind, _mean_gaps(model, alpha, sizes, values, np.array(places)[chosen], np.array(mask)))
            )
    return rows


def _mean_gaps(
    model: Model, alpha: Floats, sizes: Floats, values: dict[str, Floats], places: Floats, mask: Floats
) -> Gaps:
    N = sizes[mask]
    measured, law, variance, of_law = np.zeros((4, len(N)))
    for i in places.tolist():
        controlled = np.isfinite(values["controlled_error"][i, mask])
        mean, error = (
            np.where(controlled, values[f"controlled{part}"][i, mask], values[f"mean{part}"][i, mask])
            for part in ("", "_error")
        )
        wide = [widened(1.0, int(n) - 1) for n in values["n_seeds"][i, mask]]
        measured += mean - values["lambda_minus"][i, mask]
        variance += (error * wide) ** 2
        at_sizes = [lowest_eigenvalue_law(model, float(alpha[i]), float(size)) for size in N]
        law += np.array([at.mean for at in at_sizes]) - left_edge(model, float(alpha[i])).lambda_minus
        of_law += [at.accuracy for at in at_sizes]
    n = len(places)
    return Gaps(model, n, N, measured / n, law / n, np.sqrt(variance) / n, of_law / n)


def _edge_kind(model: Model, alpha: float, kind: str, least: float) -> str:
    """sharp, smooth, or ``_CONTINUED``: a smooth edge whose tail is too thin for samples within reach, not
    far below alpha_0, looks like the sharp edge of its continuation."""
    if kind == "sharp":
        return kind
    continued = math.isfinite(edge_scales(model, alpha).gamma_edge)
    return _CONTINUED if continued and least < crossover_size(model) else "smooth"


def overlap_claim(rows: Sequence[OverlapAbove]) -> Claim:
    """The measured overlap above alpha_bbp over theory's at the same N, which tends to m^2, against one
    20 per cent off. Theory enters as the claim alone."""
    pairs = [compare(row.ratio, row.error, 1.0, 1 - OVERLAP_OFF, 1 + OVERLAP_OFF) for row in rows]
    of_law = [np.array([OVERLAP_ACCURACY * (128 / row.N) ** (1 / 3)]) for row in rows]
    evidence = weigh(jointly(pairs, of_law))
    finding = "no load above a threshold is measured with enough seeds"
    if rows:
        near = sum(abs(row.distance) <= 2 for row in rows)
        close = sum(abs(math.log(row.finite_size)) < math.log(1.25) for row in rows)
        finding = (
            f"above the thresholds of {len(rows)} models the measured overlap lies within 2 errors of "
            f"theory's at the same N for {near}; at {close} of them that is within a quarter of m^2, its "
            "value at infinite N"
        )
    return Claim(
        "overlap",
        "Above alpha_BBP the lowest eigenvectors have theory's squared overlap with the teacher.",
        evidence.verdict(),
        finding,
        f"an overlap {100 * OVERLAP_OFF:g} % larger or smaller",
        evidence.power,
        ("p*", "a", "p", "N", "loads", "measured / theory at N", "theory at N / m²", "apart / error"),
        tuple(
            (
                str(row.model.p_star),
                f"{row.model.a:g}",
                str(row.model.p),
                str(row.N),
                str(row.loads),
                with_error(row.ratio, row.error),
                f"{row.finite_size:.2f}",
                errors_apart(pair),
            )
            for row, pair in zip(rows, pairs, strict=True)
        ),
    )


class Outlier(NamedTuple):
    """Mean lowest eigenvalue above the threshold of one model, over its loads at the largest size, with its
    statistical error; by theory with the outlier, with the error of that law; without one; lambda_star."""

    model: Model
    N: int
    loads: int
    measured: float
    error: float
    law: float
    of_law: float
    without: float
    limit: float

    def compared(self) -> Comparison:
        """With the outlier against without."""
        return compare(self.measured, math.hypot(self.error, self.of_law), self.law, self.without)


def eigenvalue_claim(rows: Sequence[Outlier]) -> Claim:
    """The mean lowest eigenvalue above alpha_bbp beside theory's law of the outlier at the same N, which
    tends to lambda_star, against an edge from which no outlier has come off."""
    pairs = [row.compared() for row in rows]
    evidence = weigh(jointly(pairs, [np.array([row.of_law]) for row in rows]))
    finding = "no load above a threshold is measured with enough seeds"
    if rows:
        at = evidence
        finding = (
            f"above the thresholds of {len(rows)} models the mean lowest eigenvalue lies "
            f"{float(at.towards[0]):+.1f} errors from theory's outlier towards an edge without one, which is "
            f"{float(at.separation[0]):.1f} errors away"
        )
    return Claim(
        "eigenvalue",
        "Above alpha_BBP the lowest eigenvalue is theory's lambda_*, below the edge of the bulk.",
        evidence.verdict(),
        finding,
        "an edge without an outlier, at the same N",
        evidence.power,
        ("p*", "a", "p", "N", "loads", "⟨λ_min⟩", "theory at N", "λ_*", "no outlier, at N", "apart / error"),
        tuple(
            (
                str(row.model.p_star),
                f"{row.model.a:g}",
                f"{row.model.p:g}",
                str(row.N),
                str(row.loads),
                with_error(row.measured, math.hypot(row.error, row.of_law)),
                *(f"{value:.4f}" for value in (row.law, row.limit, row.without)),
                errors_apart(pair),
            )
            for row, pair in zip(rows, pairs, strict=True)
        ),
    )


def outliers_above(found: xr.Dataset) -> Sequence[Outlier]:
    rows, dim = [], alpha_axis(found)
    for index in np.ndindex(*(found.sizes[name] for name in MODEL)):
        at = found.isel(dict(zip(MODEL, index, strict=True))).transpose("N", dim)
        model = Model(*(at[name].item() for name in MODEL))
        n, error = at["eigval_min_n_seeds"].values, at["eigval_min_error"].values
        use = (n >= LEAST_SEEDS) & (error > 0) & (at["alpha"].values > transition_at(model).alpha_bbp)
        if not use.any():
            continue
        k = int(np.flatnonzero(use.any(axis=1))[-1])
        N, places = int(at["N"][k]), np.flatnonzero(use[k])
        numbers = []
        for i in places.tolist():
            alpha = float(at["alpha_realised"].values[k, i])
            at_N, scales = lowest_eigenvalue_law(model, alpha, N), edge_scales(model, alpha)
            width = (scales.softness * float(model.p) * N) ** (-2 / 3)
            if not width > 0:
                continue
            without = scales.lambda_edge + width * TRACY_WIDOM_MEAN
            of_mean = widened(float(error[k, i]), int(n[k, i]) - 1)
            mean = float(at["eigval_min"].values[k, i])
            numbers.append((mean, of_mean, at_N.mean, without, scales.lambda_star, at_N.accuracy))
        if numbers:
            each = np.array(numbers).T
            mean, law, without, of_law = (float(each[j].mean()) for j in (0, 2, 3, 5))
            of_seeds = math.sqrt(float((each[1] ** 2).sum())) / len(numbers)
            known = each[4][np.isfinite(each[4])]  # the realised alpha may lie below the threshold
            limit = float(known.mean()) if len(known) else math.nan
            rows.append(Outlier(model, N, len(numbers), mean, of_seeds, law, of_law, without, limit))
    return rows
