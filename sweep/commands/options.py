"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import typer

Memory = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="Memory that the tasks on one machine may use together, e.g. 12GB; by default what it has.",
    ),
]
Modules = Annotated[
    list[str],
    typer.Option(
        "--kernel-module", metavar="MODULE", help="Your own Python file or module that defines KERNEL."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def seconds_of(name: str, text: str | float) -> float:
    """Seconds from a number, or from a text with units such as 1h30min."""
    import math
    import re

    from bendscape.core.errors import ParameterError

    accepted = "a time with units d, h, min, s, such as 2h, 90min or 1h30min"
    if not isinstance(text, str):
        return _positive(name, text, f"seconds > 0, or {accepted}")
    unit = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(s|min|h|d)", text)
    seconds = sum(float(number) * unit[of] for number, of in parts)
    if "".join(map("".join, parts)) != text or not 0 < seconds < math.inf:
        raise ParameterError(name, text, accepted)
    return seconds


def core_hours_of(name: str, given: str | float | Iterable[str] | Mapping[str, float]) -> dict[str, float]:
    """Core-hours by label, from a mapping or from strings: "40" limits one run (its label is empty), and
    "thesis=500" all runs with the label `thesis`."""
    import math
    import re

    from bendscape.core.errors import ParameterError

    if not isinstance(given, Iterable):
        return {"": _positive(name, given, "core-hours > 0")}
    if isinstance(given, Mapping):
        given = [f"{label}={hours}" if label else f"{hours}" for label, hours in given.items()]
    limits: dict[str, float] = {}
    for text in [given] if isinstance(given, str) else given:
        label, _, number = text.rpartition("=")
        found = re.fullmatch(r"inf|[0-9]+(\.[0-9]+)?(e-?[0-9]+)?", number)
        hours = float(number) if found else math.nan
        if not hours > 0 or not re.fullmatch(r"[\w.:/+ -]*", label) or (not label and "=" in text):
            raise ParameterError(
                name, text, "core-hours > 0 such as 40, or LABEL=40 for all runs of a store with this label",
                "a label has letters, digits and . : / + - _",
            )  # fmt: skip
        if label in limits:
            raise ParameterError(name, text, "given once for each label")
        limits[label] = hours
    return limits


def _positive(name: str, number: float, accepted: str) -> float:
    import math

    from bendscape.core.errors import ParameterError

    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
        raise ParameterError(name, number, accepted)
    return float(number)


def bytes_of(name: str, text: str | float) -> float:
    """Bytes from a number, or from a text with a unit such as 12GB."""
    import re

    from bendscape.core.errors import ParameterError

    if not isinstance(text, str):
        return _positive(name, text, "bytes > 0, or a text with a unit, such as 500MB, 12GB or 12GiB")

    units = {"": 1.0} | {f"{letter}B": 1e3 ** (k + 1) for k, letter in enumerate("kMGT")}
    units |= {f"{letter}iB": 2.0 ** (10 * k + 10) for k, letter in enumerate("KMGT")}
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kMGT]B|[KMGT]iB|)", text)
    if found is None or not float(found[1]) > 0:
        raise ParameterError(name, text, "bytes with a unit, such as 500MB, 12GB or 12GiB")
    return float(found[1]) * units[found[2]]
