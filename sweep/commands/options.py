"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Memory = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="Memory that tasks may take together on one machine, e.g. 12GB; by default what it has.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def bytes_of(name: str, text: str) -> float:
    """Bytes of a size with its unit, such as 12GB."""
    import re

    from bendscape.core.errors import ParameterError

    units = {"": 1.0} | {f"{letter}B": 1e3 ** (k + 1) for k, letter in enumerate("kMGT")}
    units |= {f"{letter}iB": 2.0 ** (10 * k + 10) for k, letter in enumerate("KMGT")}
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kMGT]B|[KMGT]iB|)", text)
    if found is None or not float(found[1]) > 0:
        raise ParameterError(name, text, "bytes with a unit, such as 500MB, 12GB or 12GiB")
    return float(found[1]) * units[found[2]]
