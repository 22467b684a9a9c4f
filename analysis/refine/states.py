"""Where one model stands with respect to its target, why, and its next round."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from bendscape.analysis.dataset.curves import Floats
from bendscape.analysis.refine.design_model import DesignModel, Fitted
from bendscape.analysis.refine.rounds import GROWTH, MOST_CELLS, Round, candidates, next_round
from bendscape.sweep.campaign.axes import Scalar
from bendscape.sweep.campaign.target import Addition, ModelState, State

MOST_SEEDS = 2**8
"""Cells that every point of a model without any estimate gets before the model is given up. The error of a
mean is then a sixteenth of the scatter of a cell."""

SETTLED = 2.0
"""A suspect estimate gets more cells until its error is the one wanted over this."""

_MOVED, _BIASED = 3.0, 4.5
"""Standard errors of a change under another choice of the fit: beyond the first it is suspect, beyond the
second it is no chance."""

Halves = Callable[[], tuple[Fitted, Fitted]]
"""The fits to the odd and to the even cells at every point, which are independent."""


@dataclass(frozen=True)
class Held:
    """The cells of one model, by coordinate on the curve and size.

    Parameters
    ----------
    model
        Values of the model axes.
    unit
        Value of the curve over its coordinate.
    cells, missing
        Cells that the campaign asks for, and those of them that are not computed yet.
    cost
        ``cost(coordinate, size)``, seconds of one cell.
    accepts
        Whether the curve axis accepts a coordinate.
    failed
        Number of cells that have failed.
    """

    model: Mapping[str, Scalar]
    unit: float
    cells: Mapping[tuple[float, int], int]
    missing: Mapping[tuple[float, int], int]
    cost: Callable[[float, int], float]
    accepts: Callable[[float], bool]
    failed: int = 0

    @cached_property
    def seconds(self) -> float:
        """Seconds of the cells that are computed."""
        return sum((n - self.missing.get(at, 0)) * self.cost(*at) for at, n in self.cells.items() if n)

    def present(self, size: int) -> list[float]:
        """Coordinates at which cells of a size are asked for."""
        return [x for (x, N), n in self.cells.items() if size == N and n]

    def coming(self, design: DesignModel) -> Floats:
        """Information of the missing cells in the trusted regions, (k, k)."""
        rows = []
        for (x, N), n in self.missing.items():
            if n and N in design.sizes:  # other sizes have no region
                low, high = design.region(N)
                if low <= x * self.unit <= high:
                    rows.append((x * self.unit, float(N), float(n)))
        return np.asarray(design.information(*np.array(rows, dtype=np.float64).reshape(-1, 3).T))


@dataclass(frozen=True)
class Row:
    """One model of a proposal: its state, the cells of its next round, their seconds and number, the
    certified gap of the design, and the fit. ``shorter(seconds)`` is the same for a round of at most so many
    seconds."""

    state: ModelState
    additions: tuple[Addition, ...] = ()
    seconds: float = 0.0
    cells: int = 0
    gap: float = math.nan
    fitted: Fitted = field(default_factory=Fitted)
    shorter: Callable[[float], Row] | None = None


def row_of(fitted: Fitted, held: Held, wanted: float, halves: Halves, most: float = math.inf) -> Row:
    """The state of one model and its next round of at most ``most`` seconds.

    See :func:`bendscape.analysis.refine.refiner.rows_of` for the rule. ``halves`` is called only where
    the model would be given up for a failed test.
    """

    def row(state: State, reason: str = "") -> Row:
        return Row(_state(fitted, held, wanted, state, fitted.error, 0.0, reason), fitted=fitted)

    good, moved = fitted.error <= wanted, _moved(fitted, wanted)
    if fitted.bounded:
        return row("unreachable", fitted.reason)
    if good and fitted.trust == "sound" and not moved:
        return row("met")
    refuted, biased = fitted.trust == "refuted", moved is not None and moved[0] > _BIASED
    settled = fitted.error <= wanted / SETTLED
    if not math.isnan(fitted.value) and (refuted or biased or settled):
        why = moved[1] if moved and (biased or not fitted.reason) and not refuted else fitted.reason
        if all(_fails(half, fitted, wanted) for half in halves()):
            if biased and not refuted:
                why = f"{why}; corrections at these sizes are larger than the target: add larger sizes"
            elif not refuted:
                why = f"{why}; {SETTLED:g} times the precision asked for did not settle it"
            return row("unreachable", f"{why}; each half of the cells alone says so too")
        if settled:
            return row("met", f"taken for chance, since not both halves of the cells say so: {why}")
    aim = fitted.error / math.sqrt(2) if good else wanted
    if fitted.design is None or math.isnan(aim):
        return _exploring(fitted, held, wanted)
    design = fitted.design
    at = candidates(design, held.unit, held.accepts, held.cells, held.present, held.cost)
    if not len(at.size):
        return row("unreachable", "the curve axis accepts no value where cells would help")
    if (at.cells >= MOST_CELLS).all():
        why = f"every point where cells help has {MOST_CELLS:,} of them, the most that rounds ask for"
        return row("unreachable", f"{why}: add larger sizes")
    plain = design.standard_error()
    inflation = max(1.0, fitted.error / plain) if fitted.error > 0 else 1.0
    longest = min((GROWTH - 1) * held.seconds, most)
    found = next_round(design, at, held.coming(design), aim, inflation, longest)
    points = zip(at.coordinate.tolist(), at.size.tolist(), (at.cells + found.cells).tolist(), strict=True)
    additions = tuple(
        Addition(held.model, x, int(N), int(n))
        for (x, N, n), new in zip(points, found.cells, strict=True)
        if new
    )
    reason = fitted.reason or (moved[1] if moved else _distance(found, wanted))
    state = _state(fitted, held, wanted, "open", found.expected, found.seconds / 3600, reason)

    def shorter(seconds: float) -> Row:
        return row_of(fitted, held, wanted, halves, seconds)

    return Row(state, additions, found.seconds, int(found.cells.sum()), found.gap, fitted, shorter)


def within(rows: list[Row], seconds: float) -> list[Row]:
    """The rows whose rounds the time suffices for, the shortest first; the first that it does not suffice for
    gets what is left, the others none, with the reason."""
    kept = dict(enumerate(rows))
    for k in sorted((k for k, row in kept.items() if row.additions), key=lambda k: rows[k].seconds):
        row = rows[k]
        if row.seconds > seconds:
            needed, left = row.state.core_hours, max(seconds, 0.0) / 3600
            reason = f"its next round takes {needed:.2g} core-hours and the budget leaves {left:.2g}"
            cut = row.shorter(seconds) if row.shorter is not None and seconds > 0 else row
            if cut.seconds <= seconds and cut.additions:
                row = replace(cut, state=replace(cut.state, reason=reason))
            else:
                nothing = replace(row.state, state="unreachable", core_hours=0.0, reason=reason)
                row = Row(replace(nothing, expected=nothing.error), fitted=row.fitted)
        seconds -= row.seconds
        kept[k] = row
    return list(kept.values())


def _state(
    fitted: Fitted, held: Held, wanted: float, state: State, expected: float, hours: float, reason: str
) -> ModelState:
    return ModelState(held.model, state, fitted.value, fitted.error, wanted, expected, hours, reason)


def _exploring(fitted: Fitted, held: Held, wanted: float) -> Row:
    """Three times the cells at every point, up to ``MOST_SEEDS``, for a model without an estimate."""
    points = [(x, N, n) for (x, N), n in held.cells.items() if n]
    new = [(x, N, n, min(GROWTH * n, MOST_SEEDS)) for x, N, n in points if n < MOST_SEEDS]
    computed = sum(held.cells.values()) - sum(held.missing.values())
    if 2 * held.failed > computed:
        reason = f"{held.failed} of its {computed} computed cells failed: more of them would not help"
        return Row(_state(fitted, held, wanted, "unreachable", fitted.error, 0.0, reason), fitted=fitted)
    if not new:
        least = min((n for *_, n in points), default=0)
        reason = (
            f"no estimate with {least} cells or more at every point ({fitted.reason}): "
            "other values of the curve or larger sizes may help, more cells do not"
        )
        return Row(_state(fitted, held, wanted, "unreachable", fitted.error, 0.0, reason), fitted=fitted)
    additions = tuple(Addition(held.model, x, N, int(to)) for x, N, _, to in new)
    seconds = sum((to - n) * held.cost(x, N) for x, N, n, to in new)
    reason = f"no estimate yet: {fitted.reason}"
    state = _state(fitted, held, wanted, "open", math.nan, seconds / 3600, reason)
    return Row(state, additions, seconds, int(sum(to - n for *_, n, to in new)), fitted=fitted)


def _fails(half: Fitted, whole: Fitted, wanted: float) -> bool:
    """Whether a half of the cells fails a test on its own, by the estimator of the whole."""
    return half.estimator == whole.estimator and (half.trust != "sound" or _moved(half, wanted) is not None)


def _moved(fitted: Fitted, wanted: float) -> tuple[float, str] | None:
    """The other choice of the fit that moves the estimate most, in standard errors of that change, if it does
    so significantly and by more than is wanted."""
    changes = [s for s in fitted.shifts if abs(s.change) > max(_MOVED * s.error, wanted) and s.error > 0]
    if not changes:
        return None
    most = max(changes, key=lambda s: abs(s.change) / s.error)
    ratio = abs(most.change) / most.error
    words = (
        f"{most.words} moves the estimate by {most.change:+.2g}, {ratio:.1f} standard errors of that change"
    )
    return ratio, f"{words} and more than the {wanted:.2g} asked for"


def _distance(found: Round, wanted: float) -> str:
    """How far the round leads, and the certificate of its design."""
    within = f"beside its flat share within {100 * max(found.gap, 1e-3):.1f} % of the least variance"
    if found.expected <= wanted:
        return f"one more round is expected to suffice; {within}"
    return f"{found.expected:.2g} is expected after this round and {wanted:.2g} asked for; {within}"
