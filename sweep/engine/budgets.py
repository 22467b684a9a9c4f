"""What to say of a budget, of time or of core-hours, that was too short for anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from bendscape.sweep.engine.plan import Plan
from bendscape.sweep.engine.stop import least_budget


class Needed(NamedTuple):
    """A budget that is long enough to compute something, and what takes so long."""

    seconds: float
    start: float
    where: str
    tile: float

    def line(self, budget: float) -> str:
        """One line for people."""
        return (
            f"nothing was computed: --time-budget {budget:.3g}s is too short for any progress. Starting "
            f"takes {self.start:.2g} s, a tile{self.where and f' of {self.where}'} about {self.tile:.2g} s; "
            f"use --time-budget {math.ceil(self.seconds)}s or more"
        )


def budget_needed(plan: Plan, tile: tuple[int, float] | None, start: float) -> Needed | None:
    """The least budget for a tile (its size and seconds) after a start of so many seconds; None without a
    tile."""
    if tile is None:
        return None
    size, seconds = tile
    return Needed(1.1 * least_budget(start + seconds), start, plan.size_in_words(size), seconds)


def too_dear(
    plan: Plan,
    tile: tuple[int, float] | None,
    left: Mapping[str, float],
    limits: Mapping[str, float | None],
) -> str:
    """Why the core-hours did not suffice for the first tile, given what is left of the limits by label."""
    label = min(left, key=lambda name: left[name])
    of, limit = f" of {label!r}" if label else "", (limits[label] or 0.0) / 3600
    if left[label] <= 0 or tile is None:
        return f"nothing was computed: the {limit:.4g} core-hours{of} are used"
    size, seconds = tile
    at = plan.size_in_words(size)
    return (
        f"nothing was computed: {left[label] / 3600:.2g} of the {limit:.4g} core-hours{of} are left, and a "
        f"tile{at and f' of {at}'} takes about {seconds / 3600:.2g}"
    )
