"""Rounds of a campaign with a target: run, analyse, add cells, until every model is met or nothing helps.

The campaign of a round is that of the file, extended by the additions of all recorded rounds. A round is
proposed when every cell of the campaign before it is done or failed, from these cells alone, and is recorded
before one of its own is computed. So whatever is killed, and whenever, the next run goes on with the same
cells.
"""

from __future__ import annotations

import hashlib
import json
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, get_args

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.extension import extended
from bendscape.sweep.campaign.file import Campaign
from bendscape.sweep.campaign.kernel import Kernel
from bendscape.sweep.campaign.target import ModelState, Proposal, Refiner, State, Target, load_refiner
from bendscape.sweep.campaign.tiles import coordinate_in_words
from bendscape.sweep.engine.plan import Plan, plan_campaign
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.root import Store, open_store
from bendscape.sweep.store.rounds import Outcome, Round, read_rounds, record_round, round_of, target_document
from bendscape.sweep.store.runs import core_seconds_spent

UNREACHABLE = "target unreachable"
_REASONS = 5  # named in one line


class Aim(NamedTuple):
    """A target, and who proposes how to reach it."""

    target: Target
    refiner: Refiner


def aim_of(campaign: Campaign, kernel: Kernel) -> Aim | None:
    """The target of a campaign with its refiner; None without `[target]`.

    Raises
    ------
    ParameterError
        The target is not accepted, no installed refiner offers its quantity, or the kernel lacks what the
        refiner reads.
    """
    target = campaign.to_target(kernel.axes)
    if target is None:
        return None
    refiner = load_refiner(target.quantity)
    if lacks := refiner.lacks(kernel):
        accepted = f"a quantity that kernel {kernel.name!r} gives"
        raise ParameterError("target", target.quantity, accepted, f"it lacks {lacks}")
    return Aim(target, refiner)


@dataclass
class Rounds:
    """The rounds of one campaign on one store; `recorded` are those of the ledger.

    `campaign` is that of the file with the additions of all rounds. The last round is left out if it was
    proposed for another target and has not been computed; `withdrawn` is then its number.
    """

    base: Campaign
    kernel: Kernel
    target: Target
    refiner: Refiner
    recorded: list[Round]
    withdrawn: int = 0
    campaign: Campaign = field(init=False)

    def __post_init__(self) -> None:
        gone = {self.withdrawn, *(of.replaces for of in self.recorded)}
        additions = [addition for of in self.recorded if of.number not in gone for addition in of.additions]
        self.campaign = extended(self.base, additions, self.kernel.axes) if additions else self.base

    @classmethod
    def of(
        cls, campaign: Campaign, kernel: Kernel, store: Store | None, ledger: Ledger | None = None
    ) -> Rounds | None:
        """The rounds of a campaign, on a store or before there is one; None without `[target]`.

        `ledger` is that of a run, which has been replayed; by default that of the store.
        """
        aim = aim_of(campaign, kernel)
        if aim is None:
            return None
        if store is None:
            return cls(campaign, kernel, *aim, [])
        ledger = ledger or store.ledger
        made = cls(campaign, kernel, *aim, read_rounds(ledger))
        last = made.last
        if last is not None and last.outcome == "open" and _asked(last.target) != made._asked():
            plan = plan_campaign(made.campaign, kernel, store.layout.on(kernel.axes), ledger.records)
            if plan.total("missing"):
                return cls(campaign, kernel, *aim, made.recorded, last.number)
        return made

    def _asked(self) -> dict[str, Any]:
        return _asked(target_document(self.target))

    @property
    def last(self) -> Round | None:
        """The round recorded last."""
        return self.recorded[-1] if self.recorded else None

    def core_seconds_left(self, ledger: Ledger) -> float:
        """Core seconds left of `core_hours` of the target."""
        hours = self.target.core_hours
        return math.inf if hours is None else 3600 * hours - core_seconds_spent(ledger)

    def settled(self, plan: Plan) -> Round | None:
        """The last round, if it was the end and rests on the cells, the target and the refiner of now."""
        last = self.last
        if last is None or last.outcome == "open" or plan.total("missing"):
            return None
        # A refiner may have found that the budget does not pay for what a model needs.
        same = last.outcome == "met" or last.target == target_document(self.target)
        return last if same and (last.basis, last.cells) == (self._basis(), _cells(plan)) else None

    def next(self, url: str, ledger: Ledger, plan: Plan) -> Round:
        """Analyse the store and record what follows: a round, or the end. The plan must have nothing left."""
        proposal, grown = self._proposed(url)
        axes = self.kernel.axes
        new = bool(proposal.additions) and grown.spec_hash(axes) != self.campaign.spec_hash(axes)
        outcome, reasons = _outcome(proposal, new)
        if outcome == "open" and (failed := self._failed(plan)):
            outcome, reasons = "unreachable", (failed,)
        number = 1 if self.last is None else self.last.number + 1
        made = round_of(
            number, self.target, proposal, outcome, reasons, _cells(plan), core_seconds_spent(ledger),
            self._basis(), self.withdrawn,
        )  # fmt: skip
        made = record_round(ledger, made)
        self.recorded.append(made)
        self.withdrawn = 0
        if outcome == "open":
            self.campaign = grown
        return made

    def _proposed(self, url: str) -> tuple[Proposal, Campaign]:
        """What the refiner proposes, and the campaign with it.

        Raises
        ------
        ParameterError
            The refiner fails, or proposes what cannot be computed or recorded; nothing is recorded then.
        """
        try:
            proposal = self.refiner.refine(open_store(url).with_kernel(self.kernel), self.target)
            grown = extended(self.campaign, proposal.additions, self.kernel.axes)
            if wrong := [of.state for of in proposal.models if of.state not in get_args(State)]:
                raise ValueError(f"a state is {wrong[0]!r}, not one of {', '.join(get_args(State))}")
            json.dumps([[asdict(of) for of in every] for every in (proposal.models, proposal.additions)])
        except (ParameterError, OSError) as error:
            if isinstance(error, OSError) or not error.parameter.startswith("addition"):
                raise
            raise self._refused(str(error)) from error
        except Exception as error:  # whatever the code of another package does
            at = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise self._refused(f"{why}, at {Path(at.filename).name}:{at.lineno}") from error
        return proposal, grown

    def _refused(self, why: str) -> ParameterError:
        accepted = "a quantity whose refiner gives a valid proposal for this store"
        return ParameterError("target", self.target.quantity, accepted, why)

    def _failed(self, plan: Plan) -> str:
        """In words, that nothing came of the round before, or of the campaign; empty otherwise."""
        done, failed = _cells(plan)
        before = next((of.cells for of in reversed(self.recorded) if of.outcome == "open"), (0, 0))
        gone = self.recorded and self.recorded[-1].outcome != "open"
        if gone or done > before[0] or failed <= before[1]:
            return ""
        return f"all {failed - before[1]} cells of the last round failed: more of them would not help"

    def _basis(self) -> str:
        about = [self.campaign.spec_hash(self.kernel.axes), self._asked(), version("bendscape")]
        return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16).hexdigest()


def _asked(target: Mapping[str, Any]) -> dict[str, Any]:
    # What decides a proposal; the budget does not.
    return {key: value for key, value in target.items() if key != "core_hours"}


def _cells(plan: Plan) -> tuple[int, int]:
    return int(plan.total("done")), int(plan.total("failed"))


def _outcome(proposal: Proposal, new: bool) -> tuple[Outcome, tuple[str, ...]]:
    unmet = [of for of in proposal.models if of.state != "met"]
    if not proposal.models:
        return "unreachable", ("the target names no model of the campaign",)
    if not unmet:
        return "met", ()
    if new and any(of.state == "open" for of in unmet):
        return "open", ()
    return "unreachable", tuple(f"{model_in_words(of)}: {_reason(of)}" for of in unmet)


def _reason(of: ModelState) -> str:
    return of.reason or "no cells are proposed that it does not have"


def model_in_words(of: ModelState) -> str:
    """The values of the model axes of a state."""
    return (
        ", ".join(f"{name} = {coordinate_in_words(value)}" for name, value in of.model.items()) or "the model"
    )


def reasons_in_words(reasons: tuple[str, ...]) -> str:
    """The first reasons in one line, and how many more there are."""
    more = f"; and {len(reasons) - _REASONS} more models" if len(reasons) > _REASONS else ""
    return "; ".join(reasons[:_REASONS]) + more


def announce(of: Round, say: Callable[[str], None]) -> None:
    """Say what a round starts from and what it adds."""
    counts = of.counts
    stand = f"{counts['met']} of {len(of.models)} models have their {of.quantity}"
    if of.outcome == "open":
        hours = f"about {of.core_hours:.2g} core-hours" if of.core_hours else "at an unknown cost"
        say(f"round {of.number}: {stand}; {len(of.additions)} points get cells, {hours}")
    elif of.outcome == "met":
        say(f"the target is met after {of.core_seconds / 3600:.3g} core-hours: {stand}")
    else:
        say(f"the target is unreachable: {stand}; {reasons_in_words(of.reasons)}")
