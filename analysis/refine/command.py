"""`bendscape refine`: the state of every model of a store, and the campaign of the next round."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bendscape.sweep.commands.options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from bendscape.sweep.campaign.target import ModelState, Proposal, Refiner

MARK = "# written by bendscape refine"
"""First line of a campaign that this command writes; only such a file is replaced."""


def refine(
    store: Annotated[str, typer.Argument(metavar="STORE", help="Path or URL of a store.")],
    target: Annotated[
        float, typer.Option(metavar="ERROR", help="Standard error wanted, relative to the estimate.")
    ],
    of: Annotated[
        str,
        typer.Option(
            "--of",
            metavar="NAME",
            help="The quantity: alpha_c, another installed one, or VARIABLE=LEVEL, where the mean of a "
            "variable passes a level.",
        ),
    ] = "alpha_c",
    absolute: Annotated[bool, typer.Option("--absolute", help="ERROR is absolute.")] = False,
    core_hours: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Most core-hours that the new cells may take.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.toml", help="The campaign to write.")
    ] = None,
    json: Json = False,
) -> None:
    """Which cells bring every model to a precision at the least cost: the campaign of the next round.

    The store may still be filling; cells that its campaign asks for count as coming.
    """
    from bendscape.core.errors import ParameterError
    from bendscape.sweep.campaign.extension import extended
    from bendscape.sweep.campaign.file import parse_campaign
    from bendscape.sweep.campaign.target import Precision, Target
    from bendscape.sweep.commands.console import console, out, print_json
    from bendscape.sweep.commands.output import check_replaceable, check_writable, whole
    from bendscape.sweep.store.root import open_store

    for name, number in (("--target", target), ("--core-hours", core_hours)):
        if number is not None and not 0 < number < math.inf:
            raise ParameterError(name, number, "a number > 0")
    if output is not None:
        if output.suffix != ".toml":
            raise ParameterError("--output", str(output), "a file named .toml")
        check_writable(output, name="--output")
        check_replaceable(output, MARK, what="campaign of bendscape refine", name="--output")
    refiner, opened, lacks = refiner_of(of), open_store(store), ""
    with contextlib.suppress(ParameterError):  # if its kernel is not installed, the cells will tell
        lacks = refiner.lacks(opened.kernel())
    if lacks:
        accepted = f"a quantity that kernel {opened.kernel_name!r} gives"
        raise ParameterError("--of", of, accepted, f"it lacks {lacks}")
    limit = None
    if core_hours is not None:
        spent = sum(float(size.seconds.sum()) for size in opened.ledger.records.sizes.values())
        limit = core_hours + spent / 3600
    precision = Precision(absolute=target) if absolute else Precision(relative=target)
    proposal = refiner.refine(opened, Target(quantity=of, precision=precision, core_hours=limit))
    written = output if proposal.additions else None
    if written is not None:
        campaign = parse_campaign(opened.attributes["campaign"], source=opened.url)
        text = extended(campaign, proposal.additions, opened.layout.axes).text
        with whole(written) as aside:
            aside.write_text(f"{MARK}\n" + text.removeprefix(f"{MARK}\n"), encoding="utf-8")
    if json:
        print_json({**document(proposal, of), "store": store, "output": written and str(written)})
        return
    out().print(render_proposal(proposal, of))
    if written is not None:
        console().print(f"wrote {written}: run it to compute the cells", markup=False)
    elif output is not None:
        console().print(f"wrote nothing to {output}: there are no cells to add", markup=False)


def refiner_of(name: str) -> Refiner:
    """The refiner of an installed quantity, or of VARIABLE=LEVEL.

    Raises
    ------
    ParameterError
        There is none of that name, or the level is not a number.
    """
    from bendscape.analysis.refine.level_crossing import level_crossing
    from bendscape.analysis.refine.refiner import refiner
    from bendscape.core.errors import ParameterError
    from bendscape.sweep.campaign.target import load_refiner

    variable, equals, level = name.partition("=")
    if not equals:
        return load_refiner(name)
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", level):
        raise ParameterError("--of", name, "VARIABLE=LEVEL, the level a number, such as order=0.5")
    return refiner(level_crossing(name, variable, float(level)))


def document(proposal: Proposal, name: str) -> dict[str, Any]:
    """A proposal for JSON."""
    return {
        "quantity": name,
        "models": [{**vars(of), "model": dict(of.model)} for of in proposal.models],
        "additions": [{**vars(one), "model": dict(one.model)} for one in proposal.additions],
        "core_hours": sum(of.core_hours for of in proposal.models),
    }


def render_proposal(proposal: Proposal, name: str) -> Table:
    """A proposal as a table for a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    total = sum(of.core_hours for of in proposal.models)
    table = Table(
        title=Text(f"{name}: next round"),
        caption=Text(
            f"{len(proposal.additions)} points get cells, about {total:.2g} core-hours. Errors are standard "
            "errors, not below what the 95 % intervals imply; expected: once the cells are computed."
        ),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    axes = list(proposal.models[0].model) if proposal.models else []
    for header in (*axes, name, "error", "asked for", "expected", "core-hours"):
        table.add_column(Text(header), justify="right")
    table.add_column("state")
    for of in proposal.models:
        numbers = (of.value, of.error, of.wanted, of.expected)
        cells = [_number(of.model[axis]) for axis in axes]
        cells += [_number(of.value, 5), *(_number(number, 2) for number in numbers[1:])]
        cells.append(f"{of.core_hours:.2g}" if of.core_hours else "")
        table.add_row(*cells, Text(_state(of)))
    return table


def _state(of: ModelState) -> str:
    return f"{of.state}: {of.reason}" if of.reason else of.state


def _number(value: Any, digits: int = 6) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.{digits}g}" if math.isfinite(value) else "–"
