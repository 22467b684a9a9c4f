"""The precision that a campaign asks for, and what a refiner proposes to reach it.

A refiner is an entry point of the group `bendscape.refiners`, named after the quantity that it estimates,
such as `alpha_c`; its value is a :class:`Refiner`. Where the mean of a variable passes a level is a quantity
of any kernel with a curve axis; it is named `VARIABLE=LEVEL`, such as `recalled=0.5`. The entry point of the
group `bendscape.level_refiners` makes its refiner. The engine knows nothing of estimates; a refiner knows
nothing of runs.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Axes, Scalar, is_number
from bendscape.sweep.plugins import entry_points

REFINERS, LEVEL_REFINERS = "bendscape.refiners", "bendscape.level_refiners"
"""Groups of entry points. The value of one of the second is a function of a variable and a level."""

_LEVEL = re.compile(r"\s*(\w+)\s*=\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*", re.ASCII)
_PRECISION = "a number > 0 (a relative error), { relative = number > 0 } or { absolute = number > 0 }"

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


class Precision(BaseModel):
    """A standard error: `relative` to the modulus of the estimate, or `absolute`. One of them is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    relative: float | None = None
    absolute: float | None = None

    def wanted(self, value: float) -> float:
        """The standard error asked for at an estimate; nan if it is relative and the estimate is nan."""
        if self.absolute is not None:
            return self.absolute
        return math.nan if self.relative is None else self.relative * abs(value)


class ModelTarget(BaseModel):
    """A precision for the models whose axes have one of the values in `where`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    where: dict[str, tuple[Scalar, ...]]
    precision: Precision

    def holds(self, model: Mapping[str, Scalar]) -> bool:
        """Whether a model, given by the values of its axes, is one of these."""
        return all(model.get(name) in values for name, values in self.where.items())


class Target(BaseModel):
    """`[target]`: the quantity, how well it is to be known for every model, and what the store may cost.

    Parameters
    ----------
    quantity
        `alpha_c`, the name of another refiner, or VARIABLE=LEVEL.
    precision
        For every model that no table of `models` names; None if only those are asked for.
    models
        Precisions of some models; the first table that holds for a model counts.
    core_hours
        Core-hours of all receipts of the store, those before the first round included; None is no limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    quantity: str
    precision: Precision | None = None
    models: tuple[ModelTarget, ...] = ()
    core_hours: float | None = None

    def of(self, model: Mapping[str, Scalar]) -> Precision | None:
        """The precision asked for a model, given by the values of its axes; None if nothing is asked."""
        for own in self.models:
            if own.holds(model):
                return own.precision
        return self.precision

    def wanted(self, model: Mapping[str, Scalar], value: float) -> float:
        """The standard error asked for a model at an estimate: nan where that is relative and there is no
        estimate, infinite where nothing is asked."""
        precision = self.of(model)
        return math.inf if precision is None else precision.wanted(value)

    @classmethod
    def parse(cls, table: Mapping[str, Any], axes: Axes) -> Self:
        """The target of the table `[target]` of a campaign file.

        Raises
        ------
        ParameterError
            One line with the key, the value found, and what is accepted.
        """
        raw = _canonical("target", table)
        hours, models = raw.pop("core_hours", None), raw.pop("models", [])
        if hours is not None and not (is_number(hours) and hours > 0):
            raise ParameterError("target.core_hours", hours, "a number > 0")
        tables = isinstance(models, list | tuple) and all(isinstance(one, Mapping) for one in models)
        if not tables:
            raise ParameterError("target.models", models, "tables [[target.models]]")
        places = [f"target.models[{n}]" for n in range(len(models))]
        rows = [(place, _canonical(place, one)) for place, one in zip(places, models, strict=True)]
        named = [key for key in (*raw, *(key for _, row in rows for key in row)) if key not in _models(axes)]
        quantities, offered = list(dict.fromkeys(named)), refiners()
        wrong = next((name for name in quantities if name not in offered and not level_of(name)), None)
        if wrong is not None or not quantities:
            close = difflib.get_close_matches(wrong or "", [*offered, "core_hours", "models"], n=1)
            hint = f"did you mean {close[0]!r}?" if close else ""
            raise ParameterError(
                "target", wrong or "no quantity", f"core_hours, models and {_quantities()}", hint
            )
        if len(quantities) > 1:
            raise ParameterError("target", ", ".join(quantities), "one quantity")
        (quantity,) = quantities
        if conditions := [key for key in raw if key != quantity]:
            remedy = "conditions stand in tables [[target.models]]"
            raise ParameterError(f"target.{conditions[0]}", raw[conditions[0]], "absent", remedy)
        default = _precision(f"target.{quantity}", raw[quantity]) if quantity in raw else None
        own = tuple(_own(place, row, quantity, axes) for place, row in rows)
        return cls(
            quantity=quantity,
            precision=default,
            models=own,
            core_hours=None if hours is None else float(hours),
        )


def _canonical(place: str, table: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        if (name := canonical_quantity(key)) in found:
            raise ParameterError(f"{place}.{key}", value, f"absent, since {name} is given before")
        found[name] = value
    return found


def _models(axes: Axes) -> list[str]:
    return [axis.name for axis in axes.of_role("model")]


def _own(place: str, row: dict[str, Any], quantity: str, axes: Axes) -> ModelTarget:
    if quantity not in row:
        raise ParameterError(f"{place}.{quantity}", "missing", "given")
    precision = _precision(f"{place}.{quantity}", row.pop(quantity))
    where = {}
    for name, values in row.items():
        try:
            where[name] = axes[name].values(values)
        except ValueError as error:
            raise ParameterError(f"{place}.{name}", values, str(error)) from None
    if not where:
        accepted = f"a condition on at least one of {', '.join(_models(axes)) or 'the model axes'}"
        raise ParameterError(place, "no condition", accepted)
    return ModelTarget(where=where, precision=precision)


def _precision(key: str, raw: object) -> Precision:
    table = raw if isinstance(raw, Mapping) else {"relative": raw}
    kind, value = next(iter(table.items()), ("", None))
    right = len(table) == 1 and kind in ("relative", "absolute") and is_number(value)
    if not right or not isinstance(value, int | float) or value <= 0:
        raise ParameterError(key, raw, _PRECISION)
    return Precision(**{kind: float(value)})


@dataclass(frozen=True)
class Refiner:
    """What an entry point of the group `bendscape.refiners` provides; its name is the quantity.

    Parameters
    ----------
    refine
        Given a `bendscape.sweep.store.root.Store` and a :class:`Target`, the :class:`Proposal` of the next
        round. It reads the cells that the store's campaign names, which are all done or failed.
    lacks
        Given a `bendscape.sweep.campaign.kernel.Kernel`, what it lacks for this analysis, in words; empty if
        nothing. It is asked before anything runs.
    """

    refine: Callable[[Any, Target], Proposal]
    lacks: Callable[[Any], str]


def refiners() -> list[str]:
    """The quantities that installed refiners offer by name."""
    return sorted({point.name for point in entry_points(group=REFINERS)})


def _quantities() -> str:
    named = ", ".join(refiners()) or "none is installed"
    return f'a quantity of installed refiners ({named}) or "VARIABLE=LEVEL", such as "order=0.5"'


def level_of(quantity: str) -> tuple[str, float] | None:
    """The variable and the finite level of a quantity VARIABLE=LEVEL; None for other names."""
    found = _LEVEL.fullmatch(quantity)
    return (found[1], float(found[2])) if found and math.isfinite(float(found[2])) else None


def canonical_quantity(name: str) -> str:
    """The one way to write a quantity: VARIABLE=LEVEL without spaces, the level in its shortest form."""
    found = level_of(name)
    return name if found is None else f"{found[0]}={found[1]!r}".removesuffix(".0")


def load_refiner(quantity: str, parameter: str = "target") -> Refiner:
    """The refiner of a quantity; `parameter` is what gave it, for errors.

    Raises
    ------
    ParameterError
        There is none, or it cannot be loaded.
    """
    crossing = level_of(quantity)
    group = REFINERS if crossing is None else LEVEL_REFINERS
    points = [point for point in entry_points(group=group) if crossing or point.name == quantity]
    if not points:
        raise ParameterError(parameter, quantity, _quantities())
    found = _loaded(points[0], quantity, parameter)
    if crossing is not None:
        found = found(*crossing)
    if not isinstance(found, Refiner):
        raise ParameterError("entry point", points[0].value, "a bendscape Refiner")
    return found


def _loaded(point: EntryPoint, quantity: str, parameter: str) -> Any:
    try:
        return point.load()
    except Exception as error:  # whatever another package's module does when it is imported
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ParameterError(parameter, quantity, "a refiner that can be imported", why) from None
