"""A campaign with cells added at some points, written as tables `[[more]]` in one canonical form."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Axes, Scalar
from bendscape.sweep.campaign.file import MAX_SEEDS, Campaign, parse_campaign
from bendscape.sweep.campaign.grid import NO_SIZE, Grid
from bendscape.sweep.campaign.target import Addition
from bendscape.sweep.campaign.toml import to_toml

_Point = tuple[tuple[Scalar, ...], Scalar | None, int]  # model, curve (None without one), size


def extended(campaign: Campaign, additions: Iterable[Addition], axes: Axes) -> Campaign:
    """The campaign that wants what `campaign` wants, and the additions.

    The text depends only on `[grid]` and on the cells wanted beside it: the same additions in any order, at
    once or one after another, give the same text. Its tables `[[more]]` name each point once, with the seeds
    in all; points that `[grid]` wants with at least as many seeds are left out. Each table holds the points
    of one model that have the same seeds at the same sizes. Comments before the first table stay.

    Parameters
    ----------
    axes
        The axes of the campaign's kernel.

    Raises
    ------
    ParameterError
        An addition lies at a model, curve point or size that the axes do not accept, names a model axis that
        `[grid]` does not, or there are too many values on an axis.
    """
    additions = tuple(additions)
    if not additions and not campaign.more:
        return campaign
    whole = campaign.to_grid(axes)
    first = Grid.union(axes, whole.around, whole.parts[:1]) if whole.parts else whole
    points: dict[_Point, int] = {}
    if whole.parts:
        points |= _wanted(Grid.union(axes, whole.around, whole.parts[1:]))
    for addition in additions:
        point = _point(first, addition)
        points[point] = max(addition.seeds, points.get(point, 0))
    has = _Counts(first)
    tables = _tables(first, {point: seeds for point, seeds in points.items() if seeds > has.at(point)})
    return _with_tables(campaign, tables)


def _wanted(grid: Grid) -> dict[_Point, int]:
    dims = list(grid.dims.values())
    found: dict[_Point, int] = {}
    for size in grid.sizes:
        counts = grid.counts(size)
        for at in np.argwhere(counts).tolist():
            values = tuple(of[k] for of, k in zip(dims, at, strict=True))
            model, curve = (values, None) if grid.curve is None else (values[:-1], values[-1])
            found[model, curve, size] = int(counts[tuple(at)])
    return found


def _point(grid: Grid, addition: Addition) -> _Point:
    axes, given = grid.axes, dict(addition.model)
    names = [name for name in grid.dims if name != grid.curve]
    for name, value in grid.constants.items():
        if (own := given.pop(name, value)) != value:
            raise ParameterError(f"addition.{name}", own, f"{value!r}, as everywhere in this campaign")
    if unknown := [name for name in given if name not in names]:
        raise ParameterError("addition", unknown[0], f"a model axis of the campaign ({', '.join(names)})")
    values: list[tuple[str, Any]] = [(name, given.get(name)) for name in names]
    if axes.curve is not None:
        values.append((axes.curve.name, addition.curve))
    if axes.size is not None:
        values.append((axes.size.name, addition.size))
    for name, value in values:
        if not axes[name].holds(value):
            raise ParameterError(f"addition.{name}", value, axes[name].accepted)
    if not isinstance(addition.seeds, int) or not 1 <= addition.seeds < MAX_SEEDS:
        raise ParameterError("addition.seeds", addition.seeds, "an integer >= 1")
    model = tuple(axes[name].canonical(given[name]) for name in names)
    curve = None if axes.curve is None else axes.curve.canonical(addition.curve)
    return model, curve, NO_SIZE if axes.size is None else int(addition.size)


class _Counts:
    """The seeds that a grid wants at a point; looked up by value."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._at = [{value: k for k, value in enumerate(values)} for values in grid.dims.values()]

    def at(self, point: _Point) -> int:
        model, curve, size = point
        values = model if self._grid.curve is None else (*model, curve)
        at = [places.get(value) for places, value in zip(self._at, values, strict=True)]  # type: ignore[arg-type]
        if size not in self._grid.sizes or None in at:
            return 0
        return int(self._grid.counts(size)[tuple(at)])


def _tables(grid: Grid, points: Mapping[_Point, int]) -> list[dict[str, Any]]:
    axes = grid.axes
    curves: dict[Any, list[Any]] = defaultdict(list)
    for (model, curve, size), seeds in points.items():
        curves[model, size, seeds].append(curve)
    sizes: dict[Any, dict[int, int]] = defaultdict(dict)
    for (model, size, seeds), found in curves.items():
        sizes[model, () if grid.curve is None else tuple(sorted(found))][size] = seeds
    names = [name for name in grid.dims if name != grid.curve]
    tables = []
    for (model, curve), seeds_of in sorted(sizes.items(), key=lambda item: (item[0], sorted(item[1]))):
        table: dict[str, Any] = dict(zip(names, model, strict=True))
        if axes.curve is not None:
            table[axes.curve.name] = list(curve)
        if axes.size is not None:
            table[axes.size.name] = sorted(seeds_of)
        counts = set(seeds_of.values())
        table["seeds"] = counts.pop() if len(counts) == 1 else dict(sorted(seeds_of.items()))
        tables.append(table)
    return tables


def _with_tables(campaign: Campaign, tables: list[dict[str, Any]]) -> Campaign:
    document = {key: value for key, value in tomllib.loads(campaign.text).items() if key != "more"}
    added = to_toml({"more": tables}) if tables else ""
    head = re.split(r"^\s*\[\[\s*more\s*\]\]", campaign.text, maxsplit=1, flags=re.MULTILINE)[0].rstrip()
    try:
        kept = tomllib.loads(head) == document
    except tomllib.TOMLDecodeError:
        kept = False
    if not kept:  # something else follows a table [[more]]
        head = to_toml(document).rstrip()
    return parse_campaign(
        "\n\n".join(part for part in (head, added) if part).rstrip() + "\n", campaign.source
    )
