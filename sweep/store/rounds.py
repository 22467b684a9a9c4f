"""The rounds of a campaign with a target, as the ledger keeps them.

    ledger/rounds/<number>.json    what was proposed once the cells before were done; create-only

A round is recorded before any of its cells is computed, so a run that is killed at any moment goes on with
the same cells.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from bendscape.sweep.campaign.target import Addition, ModelState, Proposal, Target
from bendscape.sweep.store.ledger import LeaseLost, Ledger
from bendscape.sweep.store.objects import Damaged, names_in, read_object, together

FOLDER = "ledger/rounds"

Outcome = Literal["open", "met", "unreachable"]


@dataclass(frozen=True)
class Round:
    """What was known before a round, and what it computes.

    Parameters
    ----------
    number
        From 1, in the order of the record.
    outcome
        "open": more cells follow; "met": every model has its precision; "unreachable": no model can be
        brought further, and some are not met.
    quantity, target
        What was asked for.
    models
        The states of the models; see :class:`bendscape.sweep.campaign.target.ModelState`.
    additions
        The cells of this round; none unless it is open.
    reasons
        Why models are not met, in words, one line for each; empty unless `outcome` is "unreachable".
    cells
        Number of cells done and failed when this was proposed: all that the campaign then had.
    core_seconds
        Core seconds of all receipts of the store until then.
    basis
        What the proposal rests on: hash of the campaign, target, refiner and version of bendscape.
    replaces
        Number of the round before, if that was proposed for another target and never finished; 0 for none.
    epoch, recorded
        The run that recorded it, and when (seconds since 1970).
    """

    number: int
    outcome: Outcome
    quantity: str
    target: dict[str, Any]
    models: tuple[ModelState, ...]
    additions: tuple[Addition, ...]
    reasons: tuple[str, ...]
    cells: tuple[int, int]
    core_seconds: float
    basis: str
    replaces: int = 0
    epoch: int = 0
    recorded: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The document of the ledger; numbers that are not finite are null."""
        models = [{key: _finite(value) for key, value in asdict(of).items()} for of in self.models]
        return {**asdict(self), "models": models}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Round:
        """Inverse of `to_json`."""
        numbers = ("value", "error", "wanted", "expected", "core_hours")
        models = tuple(
            ModelState(**{**of, **{name: math.nan if of[name] is None else of[name] for name in numbers}})
            for of in document["models"]
        )
        additions = tuple(Addition(**of) for of in document["additions"])
        done, failed = document["cells"]
        reasons = tuple(document["reasons"])
        rest = {"models": models, "additions": additions, "reasons": reasons, "cells": (done, failed)}
        return cls(**{**document, **rest})

    @property
    def counts(self) -> dict[str, int]:
        """Number of models by state."""
        words = ("met", "open", "unreachable")
        return {word: sum(of.state == word for of in self.models) for word in words}

    @property
    def core_hours(self) -> float:
        """Expected cost of the additions."""
        return sum(of.core_hours for of in self.models if math.isfinite(of.core_hours))

    def summary(self) -> dict[str, Any]:
        """What `bendscape status --json` shows of it: everything but the list of additions."""
        document = self.to_json()
        del document["basis"], document["additions"]
        return document | {"points": len(self.additions), "core_hours": self.core_hours}


def read_rounds(ledger: Ledger) -> list[Round]:
    """Every recorded round, the first first.

    Raises
    ------
    Damaged
        A record cannot be read.
    """
    paths = [f"{FOLDER}/{name}" for name in names_in(ledger.objects, FOLDER)]
    return list(together(partial(_read, ledger), paths))


def damaged_rounds(ledger: Ledger) -> dict[str, str]:
    """Every record of a round that cannot be read, and why."""
    found = {}
    for name in names_in(ledger.objects, FOLDER):
        try:
            _read(ledger, f"{FOLDER}/{name}")
        except Damaged as error:
            found[error.path] = error.why
    return found


def _read(ledger: Ledger, path: str) -> Round:
    try:
        return Round.from_json(json.loads(read_object(ledger.objects, path)))
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(path, error) from None


def record_round(ledger: Ledger, of: Round) -> Round:
    """Record a round; the ledger must hold the lease.

    Raises
    ------
    LeaseLost
        Another run has taken this store over, or has recorded this round.
    """
    ledger.check_lease()
    made = Round(**{**vars(of), "epoch": ledger.epoch, "recorded": time.time()})
    text = json.dumps(made.to_json(), separators=(",", ":"))
    ledger.create(f"{FOLDER}/{of.number:06d}.json", text, LeaseLost)
    return made


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def target_document(target: Target) -> dict[str, Any]:
    """A target as a round records it."""
    return target.model_dump(mode="json", exclude_none=True)


def round_of(
    number: int,
    target: Target,
    proposal: Proposal,
    outcome: Outcome,
    reasons: tuple[str, ...],
    cells: tuple[int, int],
    core_seconds: float,
    basis: str,
    replaces: int = 0,
) -> Round:
    """A round as it is recorded, from a proposal."""
    additions = proposal.additions if outcome == "open" else ()
    return Round(
        number, outcome, target.quantity, target_document(target), proposal.models, additions, reasons,
        cells, core_seconds, basis, replaces,
    )  # fmt: skip
