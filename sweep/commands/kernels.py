"""The command that lists kernels: their axes, and what they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bendscape.sweep.commands.options import Json, Modules

if TYPE_CHECKING:
    from rich.table import Table

    from bendscape.sweep.campaign.kernel import Kernel, Variable


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("kernels")(kernels)


def kernels(
    names: Annotated[list[str], typer.Argument(metavar="NAME", show_default="all")] = [],  # noqa: B006
    kernel_module: Modules = [],  # noqa: B006
    json: Json = False,
) -> None:
    """List the kernels that a campaign can name, or those named here: axes, variables and references.

    An axis with a default may be left out of a campaign. A curve can be relative to any of the thresholds
    listed: `alpha = { around = "alpha_bbp", start = 0.6, stop = 1.6, num = 21 }`.
    """
    from bendscape.core.errors import ParameterError
    from bendscape.sweep.campaign.loading import load_kernels
    from bendscape.sweep.commands.console import out, print_json, results_only

    with results_only():
        found = load_kernels(kernel_module)
        for name in names:
            if name not in found:
                raise ParameterError("kernel", name, f"one of {', '.join(found)}")
    documents: list[dict[str, Any]] = [
        {"name": name, "error": str(of)} if isinstance(of, ParameterError) else describe(of)
        for name, of in found.items()
        if not names or name in names
    ]
    if json:
        print_json({"kernels": documents})
        return
    for document in documents:
        if "error" in document:
            out().print(f"{document['name']}: cannot be loaded: {document['error']}\n", markup=False)
            continue
        title = f"{document['name']}, version {document['version']}, from {document['source']}"
        out().print(title, markup=False, soft_wrap=True, style="bold")
        for rows in tables(document):
            out().print(_table(rows))
        out().print()


def describe(kernel: Kernel) -> dict[str, Any]:
    """A kernel for JSON: name, version, origin, axes, variables, references."""
    from bendscape.sweep.engine.provenance import package_of

    source = f"a source with digest {kernel.digest}" if kernel.digest else package_of(kernel.name)
    return {
        "name": kernel.name,
        "version": kernel.version,
        "source": source,
        "axes": [axis.to_json() | {"accepted": axis.accepted} for axis in kernel.axes.declared],
        "variables": [_describe_variable(variable) for variable in kernel.variables],
        "options": _options(kernel),
        "references": [
            {"over": list(of.over), "variables": [_describe_variable(variable) for variable in of.variables]}
            for of in kernel.references
        ],
    }


def tables(document: dict[str, Any]) -> list[list[dict[str, str]]]:
    """The tables of a kernel that :func:`describe` has described, as rows from column to text: its axes, its
    options if it has any, its variables with its references. Empty columns are left out."""
    axes = [
        {
            "axis": axis["name"],
            "role": axis["role"],
            "dtype": axis["dtype"],
            "accepts": axis["accepted"],
            "default": "" if axis["default"] is None else str(axis["default"]),
            "relative to": ", ".join(axis["relative_to"]),
            "meaning": _meaning(axis),
        }
        for axis in document["axes"]
    ]
    options = [
        {
            "option": of["name"],
            "accepts": _accepts(of["accepted"]),
            "default": "" if of["default"] is None else str(of["default"]),
            "meaning": of["long_name"],
        }
        for of in document["options"]
    ]
    measured = [(variable, "cell") for variable in document["variables"]]
    known = [(v, ", ".join(of["over"])) for of in document["references"] for v in of["variables"]]
    variables = [
        {
            "variable": of["name"],
            "of each": each,
            "over": ", ".join(of["dims"]),
            "dtype": of["dtype"],
            "values": ", ".join(of["flags"]) or _range(*of["valid_range"]),
            "meaning": _meaning(of),
        }
        for of, each in (*measured, *known)
    ]
    return [
        [{name: row[name] for name in rows[0] if any(one[name] for one in rows)} for row in rows]
        for rows in (axes, options, variables)
        if rows
    ]


def _options(kernel: Kernel) -> list[dict[str, Any]]:
    """The options in the table `[kernel]`: name, default, type as in JSON schema, meaning."""
    if kernel.options is None:
        return []
    schema = kernel.options.model_json_schema()["properties"]
    fields = kernel.options.model_fields
    return [
        {
            "name": name,
            "default": fields[name].default,
            "accepted": {k: v for k, v in of.items() if k not in ("title", "default", "description")},
            "long_name": of.get("description", ""),
        }
        for name, of in schema.items()
    ]


_ENDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
"""Bounds of a range in JSON schema, in the order of reading."""


def _accepts(schema: dict[str, Any]) -> str:
    """What an option accepts, in words, from its JSON schema. A null only marks an option without a
    default."""
    words = []
    for part in schema.get("anyOf", [schema]):
        if "enum" in part:
            words.append(", ".join(map(str, part["enum"])))
        elif part.get("type") != "null":
            ends = [f"{sign} {part[end]:g}" for end, sign in _ENDS.items() if end in part]
            words.append(" ".join([str(part.get("type", "any")), " and ".join(ends)]).strip())
    return " or ".join(words)


def _describe_variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "long_name": variable.long_name,
        "dtype": variable.dtype,
        "units": variable.units,
        "valid_range": list(variable.valid_range),  # an infinite end is null in JSON
        "flags": list(variable.flags),
        "dims": list(variable.dims),
    }


def _range(low: float, high: float) -> str:
    from bendscape.sweep.campaign.kernel import FINITE

    ends = [f">= {low:g}"] * (low > FINITE[0]) + [f"<= {high:g}"] * (high < FINITE[1])
    return " and ".join(ends) or "any"


def _meaning(of: dict[str, Any]) -> str:
    return str(of["long_name"]) + (f" [{of['units']}]" if of["units"] not in ("", "1") else "")


def _table(rows: list[dict[str, str]]) -> Table:
    from rich import box
    from rich.table import Column, Table

    # The first column holds names, which are to be copied.
    columns = (Column(name, overflow="fold", no_wrap=not k) for k, name in enumerate(rows[0]))
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    return table
