"""What descents say about the claims of the abstract of arXiv:2403.02418 (Bonnaire, Biroli, Cammarota), one
by one, in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import xarray as xr
from scipy.stats import binom

from bendscape.analysis.estimate.descent import ANALYSIS as DESCENT
from bendscape.analysis.estimate.half_success import HalfSuccess, rate_interval
from bendscape.analysis.findings.descent import (
    Confined,
    confined_threshold,
    crossings_of,
    is_confined,
    loads_of,
    model_points,
    text,
)
from bendscape.analysis.findings.evidence import STRONG, WEAK, Claim, Verdict

Rows = list[tuple[str, ...]]
RARE = 0.01
LEAST_SIZES = 3
"""Sizes that a claim on logarithmic corrections needs."""
LEAST_POINTS = 3
"""Points (alpha, N) at which the direction must surely be lost to support that it is."""
SHORT = 0.1
"""Largest part of the last time that is a short time."""
MOST = 0.9
"""Share of cells that keep the direction, and are trapped, in the alternative to its loss."""
_TAIL = 0.0027
"""Two-sided probability of three normal errors, shared by all rates that could contradict a claim."""


class Pair(NamedTuple):
    """The free and the confined descents of one model with p = p_star = 1, without noise; either may be
    missing."""

    a: float
    free: xr.Dataset | None
    confined: xr.Dataset | None

    @property
    def at_infinity(self) -> xr.Dataset | None:
        """The confined descents or, without them, the free ones."""
        return self.confined if self.confined is not None else self.free


def descent_claims(found: xr.Dataset) -> list[Claim]:
    """Every claim with its verdict, for p = p_star = 1 without noise.

    Parameters
    ----------
    found : xarray.Dataset
        What :func:`bendscape.analysis.estimate.descent.descent` returns.

    Returns
    -------
    list of Claim
        ``short_times``: early on there is a downward direction to the signal above a threshold. ``lost``: it
        is lost on the way down. ``trapped``: confined to no overlap, as at N = infinity, descents lose it up
        to a larger load. ``finite``: at finite N recovery happens well below that load. ``logarithmic``: the
        load of half recovery moves with ln N.

    Notes
    -----
    Words as in :func:`bendscape.analysis.findings.claims.claims`. With several a, a claim is contradicted by
    one of them, else has the best verdict. If the direction is that of the cells' own labels, its presence
    comes from theory on sampled labels, which along a path is approximate, and no claim on it is more than
    consistent.

    ``short_times`` needs a first recorded time of at most ``SHORT`` of the last, and is contradicted if the
    direction is surely rarer at the largest load than at the smallest.
    ``lost`` is contradicted if free cells surely keep it in their majority and surely do not recover, both at
    one load and at the last time; with n loads all rates are at a level of 1 - 0.0027/(2n), so that a true
    claim is contradicted with a probability of at most 0.003. Its alternative is that ``MOST`` of the free
    cells keep it and are trapped, at the loads at which most had it; the power is the probability that the
    data would then contradict the claim. It is supported with a power of at least 0.9 and at least
    ``LEAST_POINTS`` points (alpha, N) at which the majority had the direction and surely lost it, at levels
    that these points share; consistent with fewer, or without free cells; with none, ``no power`` below 0.5.
    ``trapped`` cannot be contradicted: what is kept late was kept early, so it is supported if the intervals
    of the two loads do not touch and the later one no longer moves with N, and consistent if it still may.
    ``finite`` compares the largest size with a crossing, within T, with that threshold at the same T:
    intervals of 95 per cent that do not touch support or contradict it. One that only bounds the threshold
    from below, by the largest confined size, makes it consistent.
    ``logarithmic`` is consistent at most, since no reachable span of N tells ln N from a small power: the
    slope with the scatter of ``LEAST_SIZES`` sizes is positive and a straight line in ln N holds. It is
    contradicted by a negative one. No number of the paper enters.
    """
    pairs = _pairs(found)
    last = float(found["time"].values[-1])
    measured = found.attrs["direction"] == "eigenvector"
    claims = (_short_times, _lost, _trapped, _finite, _logarithmic)
    return [_capped(claim(pairs, last), measured) for claim in claims]


def claims_of_descents(ds: xr.Dataset, of_labels: xr.Dataset | None = None) -> list[Claim]:
    """The claims of a store: from measured eigenvectors if it has them, else from the cells' own labels, with
    ``of_labels`` what the analysis found with these, if it is known."""
    if "eigenvector_overlap_sq" in ds:
        return descent_claims(DESCENT(ds, direction="eigenvector"))
    return descent_claims(DESCENT(ds) if of_labels is None else of_labels)


def _capped(claim: Claim, measured: bool) -> Claim:
    """A claim on the direction is consistent at most where theory on the cells' own labels says that it is
    there."""
    if claim.verdict != "supported" or measured:
        return claim
    why = (
        "; the direction is that of the cells' own labels: measured eigenpairs would be needed to support it"
    )
    return claim._replace(verdict="consistent", finding=claim.finding + why)


def _pairs(found: xr.Dataset) -> list[Pair]:
    by_a: dict[float, dict[bool, xr.Dataset]] = {}
    for point, at in model_points(found):
        if point.get("p") == point.get("p_star") == 1 and not point.get("noise", 0.0):
            one = at.assign_attrs(found.attrs)
            by_a.setdefault(float(point["a"]), {}).setdefault(is_confined(point), one)
    return [Pair(a, of.get(False), of.get(True)) for a, of in by_a.items()]


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = ("contradicted", "supported", "consistent", "no power", "not enough data")
    return min(verdicts, key=order.index, default="not enough data")


def _claim(
    name: str,
    words: str,
    columns: tuple[str, ...],
    found: Sequence[tuple[Verdict, str, Sequence[tuple[str, ...]]]],
    alternative: str = "",
    power: float = math.nan,
) -> Claim:
    finding = "; ".join(sentence for _, sentence, _ in found) or "no cell with p = p* = 1 is done"
    rows = tuple(row for _, _, rows in found for row in rows)
    verdict = _together([verdict for verdict, _, _ in found])
    return Claim(name, words, verdict, finding, alternative if found else "", power, columns, rows)


def _best(crossings: dict[int, HalfSuccess]) -> tuple[int, HalfSuccess] | None:
    """The largest size with a crossing of two ends."""
    return max(
        ((N, at) for N, at in crossings.items() if at.flag == "estimated"), default=None, key=lambda of: of[0]
    )


def _short_times(pairs: Sequence[Pair], last: float) -> Claim:
    found: list[tuple[Verdict, str, Rows]] = []
    for pair in pairs:
        at = pair.at_infinity
        assert at is not None
        first = float(at["time"].values[0])
        crossings = crossings_of(at, "kept", 0)
        rows: Rows = [(f"{pair.a:g}", f"{N}", f"{first:g}", text(one)) for N, one in crossings.items()]
        best, measured = _best(crossings), at.attrs["direction"] == "eigenvector"
        counts = [_counts(at.isel(time=0), "kept", N) for N in crossings]
        early = first <= SHORT * last
        falls = early and any(
            _rate(high, 2 * len(counts)).high < _rate(low, 2 * len(counts)).low for low, high in _ends(counts)
        )
        verdict: Verdict = "not enough data"
        if best is not None and early:
            verdict = "supported"
        sentence = f"at t = {first:g} no size shows a load above which most cells have the direction"
        if not early:
            sentence = f"the first recorded time, {first:g}, is not short beside the last, {last:g}"
        elif best is not None:
            where = "measured eigenvectors" if measured else "the cells' own labels"
            sentence = (
                f"at t = {first:g} most cells have it above {text(best[1])} "
                f"(N = {best[0]}, a = {pair.a:g}; {where})"
            )
        found.append(("contradicted" if falls else verdict, sentence, rows))
    words = "At short times the Hessian has a downward direction to the signal, above a threshold."
    return _claim("short_times", words, ("a", "N", "t", "load at which half have it"), found)


def _lost(pairs: Sequence[Pair], last: float) -> Claim:
    found: list[tuple[Verdict, str, Rows]] = []
    powers = []
    for pair in pairs:
        at = pair.at_infinity
        assert at is not None
        had = [
            (N, load, one, int(one["n_seen"]), int(one["n_lost"]))
            for N, load, one in _points(at)
            if _most_had_it(one)
        ]
        sure = sum(_rate((lost, seen), len(had)).low > 0.5 for *_, seen, lost in had)
        rows: Rows = [
            (f"{pair.a:g}", f"{N}", f"{load:.4g}", f"{seen}", f"{lost}", _when(one))
            for N, load, one, seen, lost in had
        ]
        kept, power = _kept_but_trapped(pair)
        powers.append(power)
        sentence = (
            f"at {sure} of the {len(had)} points (α, N) at which most cells had it, most have surely lost it "
            f"by t = {last:g} (a = {pair.a:g})"
            if rows
            else f"at no load and size most cells had it (a = {pair.a:g})"
        )
        if kept:
            sentence += f"; at {kept} most keep it and do not recover"
        if pair.free is None:
            sentence += "; without free cells nothing could contradict it"
        verdict: Verdict = "consistent" if sure or power >= WEAK else "no power"
        if sure >= LEAST_POINTS and power >= STRONG:
            verdict = "supported"
        found.append(("contradicted" if kept else verdict, sentence, rows))
    columns = ("a", "N", "α", "cells that had it", "lost it", "median time of loss")
    words = "While the weights descend, this direction is lost."
    alternative = f"{100 * MOST:.0f} % of the free cells keep it where most had it, and are trapped"
    return _claim("lost", words, columns, found, alternative, max(powers, default=math.nan))


def _points(at: xr.Dataset) -> list[tuple[int, float, xr.Dataset]]:
    return [(N, load, one) for N in at["N"].values.tolist() for load, one in loads_of(at, N)]


def _most_had_it(one: xr.Dataset) -> bool:
    n = int(one["n_seen"])
    return n > 0 and rate_interval(n, int(one["kept_n_cells"].isel(time=-1))).low > 0.5


def _when(one: xr.Dataset) -> str:
    low, high = float(one["time_lost_low"]), float(one["time_lost_high"])
    return f"({low:g}, {high:g}]" if math.isfinite(high) else "–"


def _kept_but_trapped(pair: Pair) -> tuple[int, float]:
    """Loads and sizes at which free cells keep the direction in their majority and do not recover; and the
    probability of at least one such where most cells had it, if a share ``MOST`` of them did so."""
    if pair.free is None:
        return 0, 0.0
    points = _points(pair.free)
    level = 1 - _TAIL / (2 * len(points))
    count, missed = 0, 1.0
    for _, _, one in points:
        late = one.isel(time=-1)
        n = int(late["kept_n_cells"])
        kept = rate_interval(int(late["kept_n_success"]), n, level).low
        recovered = rate_interval(
            int(late["recovered_n_success"]), int(late["recovered_n_cells"]), level
        ).high
        count += kept > 0.5 and recovered < 0.5
        if _most_had_it(one):
            least = next((k for k in range(n + 1) if rate_interval(k, n, level).low > 0.5), n + 1)
            missed *= float(binom.cdf(least - 1, n, MOST))
    return count, 1 - missed


def _thresholds(pair: Pair) -> tuple[Confined | None, tuple[int, HalfSuccess] | None]:
    """The confined threshold at the last time; the largest size's crossing, or its bound, there."""
    if pair.confined is None:
        return None, None
    crossings = crossings_of(pair.confined, "kept")
    bounded = [(N, at) for N, at in crossings.items() if math.isfinite(at.low)]
    return confined_threshold(pair.confined), max(bounded, default=None, key=lambda of: of[0])


def _trapped(pairs: Sequence[Pair], last: float) -> Claim:
    found: list[tuple[Verdict, str, Rows]] = []
    for pair in pairs:
        threshold, largest = _thresholds(pair)
        if pair.confined is None or threshold is None:
            found.append(("not enough data", f"no confined descents at a = {pair.a:g}", []))
            continue
        early = crossings_of(pair.confined, "kept", 0)
        late = crossings_of(pair.confined, "kept")
        rows: Rows = [(f"{pair.a:g}", f"{N}", text(early[N]), text(late[N])) for N in late]
        rows.append((f"{pair.a:g}", "∞", "", f"{text(threshold)} {threshold.outcome}"))
        before = _best(early)
        verdict: Verdict = "not enough data"
        if before is not None and largest is not None and largest[1].low > before[1].high:
            verdict = "consistent"
        if before is not None and threshold.outcome == "settled" and threshold.low > before[1].high:
            verdict = "supported"
        above = f"above {text(threshold)} at N = infinity ({threshold.outcome})"
        if not math.isfinite(threshold.value):
            above = f"above a load at N = infinity that is not known ({threshold.outcome})"
        sentence = (
            f"confined descents keep the direction to t = {last:g} {above}, and have it at the first time "
            f"above {text(before[1]) if before is not None else 'a load not measured'} (a = {pair.a:g})"
        )
        found.append((verdict, sentence, rows))
    words = (
        "At N = infinity descents lose the direction, and are trapped, up to an algorithmic threshold above "
        "that of short times."
    )
    return _claim(
        "trapped", words, ("a", "N", "load with it at the first time", f"kept to t = {last:g}"), found
    )


def _finite(pairs: Sequence[Pair], last: float) -> Claim:
    found: list[tuple[Verdict, str, Rows]] = []
    for pair in pairs:
        threshold, largest = _thresholds(pair)
        recovery = crossings_of(pair.free, "recovered") if pair.free is not None else {}
        best = _best(recovery)
        rows: Rows = [(f"{pair.a:g}", f"{N}", text(at)) for N, at in recovery.items()]
        verdict: Verdict = "not enough data"
        sentence = f"the load of half recovery or the confined threshold is not measured (a = {pair.a:g})"
        if best is not None and threshold is not None:
            if threshold.outcome == "settled" and best[1].high < threshold.low:
                verdict = "supported"
            elif threshold.outcome == "settled" and best[1].low > threshold.high:
                verdict = "contradicted"
            elif largest is not None and best[1].high < largest[1].low:
                verdict = "consistent"
            confined = f"is {text(threshold)}"
            if threshold.outcome != "settled":
                confined = f"is not known ({threshold.outcome})"
            bound = f", and {text(largest[1])} at N = {largest[0]}" if largest is not None else ""
            sentence = (
                f"half recover by t = {last:g} at {text(best[1])} for N = {best[0]}; the confined threshold "
                f"at N = infinity {confined}{bound} (a = {pair.a:g})"
            )
        found.append((verdict, sentence, rows))
    words = "At finite N the signal is recovered well below the threshold of N = infinity."
    return _claim("finite", words, ("a", "N", f"load of half recovery by t = {last:g}"), found)


def _logarithmic(pairs: Sequence[Pair], last: float) -> Claim:
    found: list[tuple[Verdict, str, Rows]] = []
    for pair in pairs:
        if pair.free is None:
            continue
        at = pair.free.isel(time=-1)
        slope, low, high, p = (
            float(at[f"recovered_{of}"]) for of in ("slope", "slope_low", "slope_high", "line_p_value")
        )
        crossings = crossings_of(pair.free, "recovered")
        sizes = sum(one.flag == "estimated" for one in crossings.values())
        located = sum(math.isfinite(one.value) for one in crossings.values())
        verdict: Verdict = "not enough data"
        if sizes >= LEAST_SIZES and high < 0:
            verdict = "contradicted"
        elif sizes >= LEAST_SIZES and low > 0 and p >= RARE:
            verdict = "consistent"
        rows: Rows = [(f"{pair.a:g}", f"{N}", text(one)) for N, one in crossings.items()]
        sentence = f"the slope of the load of half recovery in ln N is not measured (a = {pair.a:g})"
        if math.isfinite(slope):
            ends = ", ".join(f"{end:.3f}" if math.isfinite(end) else "…" for end in (low, high))
            line = f", p = {p:.2f} of the straight line" if math.isfinite(p) else ""
            sentence = (
                f"the load of half recovery by t = {last:g} moves by {slope:.3f} [{ends}] per unit of ln N "
                f"over {located} sizes{line} (a = {pair.a:g})"
            )
        found.append((verdict, sentence, rows))
    words = "The finite-N load of recovery moves towards that threshold with logarithmic corrections."
    return _claim("logarithmic", words, ("a", "N", f"load of half recovery by t = {last:g}"), found)


def _counts(at: xr.Dataset, name: str, N: int) -> list[tuple[int, int]]:
    row = at.sel(N=N)
    counts = zip(
        row[f"{name}_n_success"].values.tolist(), row[f"{name}_n_cells"].values.tolist(), strict=True
    )
    return [(int(k), int(n)) for k, n in counts if n]


def _ends(counts: Sequence[list[tuple[int, int]]]) -> list[tuple[Any, Any]]:
    """The first and the last load of each size."""
    return [(one[0], one[-1]) for one in counts if len(one) > 1]


def _rate(counts: tuple[int, int], tests: int) -> Any:
    return rate_interval(*counts, 1 - _TAIL / max(1, tests))
