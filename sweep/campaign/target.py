"""The precision that a campaign asks for, and what a refiner proposes to reach it.

A refiner is an entry point of the group `bendscape.refiners`: a function `refine(store, target)` that
analyses the cells a store holds and returns a :class:`Proposal`. The engine knows nothing of estimates; a
refiner knows nothing of runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bendscape.sweep.campaign.axes import Scalar

State = Literal["met", "open", "unreachable"]


@dataclass(frozen=True)
class Addition:
    """Cells to be computed at one point: seeds 0 to `seeds` - 1, those that the store holds included.

    `model` maps the model axes to their values, `curve` is the coordinate of the curve axis in the units of
    the store (a factor where the campaign gives it relative to a threshold), `size` the value of the size
    axis.
    """

    model: Mapping[str, Scalar]
    curve: float
    size: int
    seeds: int


@dataclass(frozen=True)
class ModelState:
    """Where one model stands.

    Parameters
    ----------
    model
        Values of the model axes.
    state
        `met`; `open`, more cells will lower the error; `unreachable`, see `reason`.
    value, error
        The estimate and its standard error; nan if there is none yet.
    wanted
        The standard error that the target asks for; nan if it is relative and there is no estimate yet.
    expected
        The standard error expected once the additions are computed.
    core_hours
        Expected cost of the additions.
    reason
        In words, why the state is not `met`; empty if it is.
    """

    model: Mapping[str, Scalar]
    state: State
    value: float
    error: float
    wanted: float
    expected: float
    core_hours: float
    reason: str = ""


@dataclass(frozen=True)
class Proposal:
    """The next round: cells to add, and the state of every model. Without additions nothing can be gained.

    It depends on the store's cells and on the target alone, so a run that was killed proposes the same again.
    """

    additions: tuple[Addition, ...]
    models: tuple[ModelState, ...]
