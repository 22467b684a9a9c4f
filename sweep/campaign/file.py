"""The campaign file: what to compute, where to keep it, and one clear line when something in it is wrong."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import MAX_AXIS, Axes, Axis
from bendscape.sweep.campaign.grid import NO_SIZE, Grid, Part, check_where
from bendscape.sweep.campaign.loading import DEFAULT
from bendscape.sweep.campaign.target import Target
from bendscape.sweep.campaign.tiles import TILE_SECONDS, TILE_SECONDS_RANGE
from bendscape.sweep.campaign.toml import to_toml
from bendscape.sweep.location import store_url

MAX_SEEDS = 2**31


def _seeds(raw: object) -> int | dict[int, int]:
    entries = raw if isinstance(raw, Mapping) else {"1": raw}
    for size, count in entries.items():
        if (
            not re.fullmatch("[0-9]{1,18}", str(size))
            or not isinstance(count, int)
            or isinstance(count, bool)
            or not 1 <= count < MAX_SEEDS
        ):
            raise ValueError(
                "an integer >= 1, or a table from size to count such as { 128 = 256, 1024 = 64 }"
            )
    return {int(size): count for size, count in raw.items()} if isinstance(raw, Mapping) else int(str(raw))


class CampaignSection(BaseModel):
    """`[campaign]`: name, store, entropy of all random streams, kernel, and duration of a tile.

    `tile_seconds` is the intended computing time of one tile: a longer tile needs fewer requests per cell,
    but a killed worker loses more. Sizes already in a store keep their tiles.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: Annotated[str, Field(min_length=1, max_length=100)]
    store: Annotated[str, Field(min_length=1)]
    entropy: Annotated[int, Field(ge=0, lt=2**63)]
    kernel: str = DEFAULT
    tile_seconds: Annotated[float, Field(ge=TILE_SECONDS_RANGE[0], le=TILE_SECONDS_RANGE[1])] = TILE_SECONDS


class Campaign(BaseModel):
    """A campaign: `[campaign]` validated; `[grid]`, `[[more]]` and `[target]` as written until the axes of
    the kernel are known.

    Made by `from_file`, `from_dict` or, from keywords, `of`. Equal campaigns have the same `spec_hash`.
    `text` is what a store keeps.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    campaign: CampaignSection
    grid: dict[str, Any]
    kernel: dict[str, Any] = Field(default_factory=dict)
    more: list[dict[str, Any]] = Field(default_factory=list)
    target: dict[str, Any] | None = None
    _text: str = PrivateAttr("")
    _source: str = PrivateAttr("campaign")

    @property
    def kernel_name(self) -> str:
        """The kernel that the campaign names, in the table `[kernel]` or as `campaign.kernel`."""
        named: str = self.kernel.get("name", self.campaign.kernel)
        return named

    @property
    def options(self) -> dict[str, Any]:
        """Options of the kernel, as written."""
        return {name: value for name, value in self.kernel.items() if name != "name"}

    @property
    def text(self) -> str:
        """The text of the campaign file; for a campaign made in Python, the text of an equivalent file."""
        return self._text

    @property
    def source(self) -> str:
        """Where it was read from, for errors; empty if it was made in Python."""
        return self._source

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Campaign:
        """Read and validate a campaign file.

        Raises
        ------
        ParameterError
            One line with the key, its line in the file, the value found, and what is accepted.
        """
        return load_campaign(path)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Campaign:
        """Validate a campaign given as the dictionary that a campaign file is parsed to: `{"campaign": {...},
        "grid": {...}}` with numbers, strings, lists, tables, and NumPy numbers and arrays.

        Raises
        ------
        ParameterError
            One line with the key, the value found, and what is accepted.
        """
        if not isinstance(document, Mapping):
            raise ParameterError("campaign", document, 'a dictionary {"campaign": {...}, "grid": {...}}')
        campaign = parse_campaign(to_toml(document), source="")
        store_url(campaign.campaign.store)  # its text is kept in the store: credentials must not be
        return campaign

    @classmethod
    def of(
        cls,
        *,
        name: str,
        store: str | os.PathLike[str],
        entropy: int,
        grid: Mapping[str, Any],
        kernel: str | None = None,
        options: Mapping[str, Any] | None = None,
        tile_seconds: float | None = None,
        more: Sequence[Mapping[str, Any]] = (),
        target: Mapping[str, Any] | None = None,
    ) -> Campaign:
        """Validate a campaign given by keywords: the keys of `[campaign]`, the grid and the tables
        `[[more]]`, the options of the kernel, and the target. See `from_dict`."""
        section: dict[str, Any] = {"name": name, "store": store, "entropy": entropy, "kernel": kernel}
        section["tile_seconds"] = tile_seconds
        tables: dict[str, Any] = {"kernel": options} if options else {}
        tables |= {"target": target} if target is not None else {}
        return cls.from_dict({"campaign": section, "grid": grid, **tables, "more": list(more)})

    def of_kernel(self, name: str) -> Campaign:
        """This campaign with the kernel set to `name`.

        Raises
        ------
        ParameterError
            The campaign names another kernel.
        """
        named = self.kernel_name
        if named == name:
            return self
        if "kernel" in self.campaign.model_fields_set or "name" in self.kernel:
            raise self._refused("campaign.kernel", named, f"{name!r}, the kernel that is given", "kernel")
        document = self.model_dump(exclude_unset=True)
        document["campaign"]["kernel"] = name
        return self.from_dict(document)

    def to_grid(self, axes: Axes) -> Grid:
        """The grid on the axes of a kernel, with one number of seeds for each size.

        Raises
        ------
        ParameterError
            One line with the key, its line in the file, the value found, and what is accepted.
        """
        around, parts = self._parts(axes)
        grid = Grid.union(axes, around, parts)
        long = [(axis, values) for axis, values in grid.values.items() if len(values) > MAX_AXIS]
        if long:
            axis, values = long[0]
            raise self._refused(
                f"more, {axis}", f"{len(values)} values", f"at most {MAX_AXIS} in all", "more"
            )
        return grid

    def to_target(self, axes: Axes) -> Target | None:
        """The target on the axes of a kernel, None without `[target]`.

        Raises
        ------
        ParameterError
            One line with the key, the value found, and what is accepted; for a quantity that no installed
            refiner offers, those that are offered.
        """
        if self.target is None:
            return None
        try:
            target = Target.parse(self.target, axes)
            self._check_named(target, axes)
            return target
        except ParameterError as error:
            name = error.parameter.rpartition(".")[2] if "." in error.parameter else str(error.value)
            at = name if name in self.target else "target"
            hint = self._place(at, error.remedy or "")
            raise ParameterError(error.parameter, error.value, error.accepted, hint) from None

    def _check_named(self, target: Target, axes: Axes) -> None:
        """Refuse a table of a target that holds for no model of the grid: it would be passed over."""
        named = self.to_grid(axes).models
        models = [
            dict(zip(named, at, strict=True))
            for at in zip(*(values.reshape(-1).tolist() for values in named.values()), strict=True)
        ]
        for k, own in enumerate(target.models):
            if not any(own.holds(model) for model in models):
                asked = ", ".join(f"{name} = {list(values)}" for name, values in own.where.items())
                accepted = "conditions that a model of the grid meets"
                raise ParameterError(f"target.models[{k}]", asked, accepted)

    def _parts(self, axes: Axes) -> tuple[str | None, list[Part]]:
        known = [*(axis.name for axis in axes.declared if axis.role != "seed"), "seeds", "where"]
        needed = [axis.name for axis in axes.declared if axis.role != "seed" and axis.default is None]
        base, around = self._part("grid", self.grid, axes, known, [*needed, "seeds"], None)
        named = [name for name in known if name in self.grid or name == "where"]
        needed = [name for name in named if name != "where"]
        parts = [base]
        for number, table in enumerate(self.more):
            part, own = self._part(f"more[{number}]", table, axes, named, needed, number)
            if own is not None and own != around and axes.curve is not None:
                units = "no threshold" if around is None else f"{around!r}"
                name = axes.curve.name
                accepted = f"{units}, as in [grid]; or the values alone, in the units of [grid]"
                raise self._refused(f"more[{number}].{name}.around", own, accepted, name, "", number)
            parts.append(part)
        return around, parts

    def _part(
        self,
        of: str,
        raw: Mapping[str, Any],
        axes: Axes,
        accepted: list[str],
        needed: list[str],
        number: int | None,
    ) -> tuple[Part, str | None]:
        # One table, named `of` in errors: [grid], or [[more]] with its number.
        if unknown := [key for key in raw if key not in accepted]:
            close = difflib.get_close_matches(unknown[0], accepted, n=1)
            hint = f"did you mean {close[0]!r}?" if close else ""
            named = f"one of {', '.join(accepted)}" + (", as in [grid]" if number is not None else "")
            raise self._refused("key", f"{of}.{unknown[0]}", named, unknown[0], hint, number)
        if missing := [key for key in needed if key not in raw]:
            more = f"and {len(missing) - 1} more" if len(missing) > 1 else ""
            place = self._place("grid" if number is None else "", more, number)
            raise ParameterError(f"{of}.{missing[0]}", "missing", "given", place)
        values: dict[str, tuple[Any, ...]] = {}
        around: str | None = None
        for key, value in raw.items():
            try:
                if key == "where":
                    check_where(value, axes)
                elif key == "seeds":
                    seeds = _seeds(value)
                elif axes[key].role == "curve":
                    values[key], around = _curve(axes[key], value)
                else:
                    values[key] = axes[key].values(value)
            except ValueError as error:
                raise self._refused(f"{of}.{key}", value, str(error), key, "", number) from None
        sizes = values.pop(axes.size.name) if axes.size is not None else (NO_SIZE,)
        if isinstance(seeds, dict) and (axes.size is None or set(seeds) != set(sizes)):
            name = axes.size.name if axes.size is not None else "size"
            wanted = f"one count for each size in {of}.{name} = {list(sizes)}" if axes.size else "one count"
            raise self._refused(f"{of}.seeds", sorted(seeds), wanted, "seeds", "", number)
        counts = dict.fromkeys(sizes, seeds) if isinstance(seeds, int) else seeds
        return Part(values, sizes, {size: counts[size] for size in sizes}, raw.get("where")), around

    def _refused(
        self, key: str, value: object, accepted: str, at: str, hint: str = "", number: int | None = None
    ) -> ParameterError:
        return ParameterError(key, value, accepted, self._place(at, hint, number))

    def _place(self, key: str, hint: str = "", number: int | None = None) -> str:
        return _place(self._text, self._source, key, hint, number)

    def canonical(self, axes: Axes) -> dict[str, Any]:
        """What the campaign asks for, however its file is written, for JSON: `campaign`, `grid` and, if there
        are any, `more` and `kernel`. The target is not part of it: it changes no cell."""
        around, (base, *more) = self._parts(axes)

        def table(part: Part) -> dict[str, Any]:
            found: dict[str, Any] = {name: list(values) for name, values in part.values.items()}
            if axes.curve is not None and axes.curve.name in found:
                found[axes.curve.name] = {"values": found[axes.curve.name], "around": around}
            if axes.size is not None:
                found[axes.size.name] = list(part.sizes)
            return found

        described = table(base) | {"seeds": _seeds(self.grid["seeds"]), "where": base.where}
        tables = [table(part) | {"seeds": dict(part.seeds), "where": part.where} for part in more]
        added = {"more": sorted(tables, key=partial(json.dumps, sort_keys=True))} if tables else {}
        # The grouping of cells into tiles changes neither the cells nor their values.
        campaign = self.campaign.model_dump(mode="json", exclude={"tile_seconds"}) | {
            "kernel": self.kernel_name
        }
        options = {"kernel": self.options} if self.options else {}
        return {"campaign": campaign, "grid": described, **added, **options}

    def spec_hash(self, axes: Axes) -> str:
        """BLAKE2b of the canonical JSON; equal campaigns have equal hashes."""
        canonical = json.dumps(self.canonical(axes), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def _curve(axis: Axis, raw: object) -> tuple[tuple[Any, ...], str | None]:
    around = None
    if isinstance(raw, Mapping) and "around" in raw:
        raw = dict(raw)
        around = raw.pop("around")
        if around not in axis.relative_to:
            known = ", ".join(axis.relative_to) or "nothing: this kernel has no thresholds"
            raise ValueError(f"relative (around) to one of {known}; found {around!r}")
        if set(raw) == {"values"}:
            raw = raw["values"]
    return axis.values(raw), around


def load_campaign(path: str | os.PathLike[str]) -> Campaign:
    """Read and validate a campaign file.

    Raises
    ------
    ParameterError
        One line with the key, its line in the file, the value found, and what is accepted.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError("campaign file", str(path), "a readable TOML file", str(error)) from None
    campaign = parse_campaign(text, source=str(path))
    store_url(campaign.campaign.store)  # its text is kept in the store: credentials must not be
    return campaign


def parse_campaign(text: str, source: str = "campaign") -> Campaign:
    """Validate the text of a campaign file; see `load_campaign`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(source, str(error), "valid TOML") from None
    try:
        campaign = Campaign.model_validate(document)
    except ValidationError as error:
        raise _one_line(error, text, source) from None
    campaign._text, campaign._source = text, source
    named = campaign.kernel.get("name", campaign.campaign.kernel)
    both = "kernel" in campaign.campaign.model_fields_set and "name" in campaign.kernel
    if not isinstance(named, str) or (both and named != campaign.campaign.kernel):
        accepted = "one name" + (f", {campaign.campaign.kernel!r} as campaign.kernel has it" if both else "")
        raise ParameterError("kernel.name", named, accepted, _place(text, source, "kernel"))
    return campaign


def _place(text: str, source: str, key: str, hint: str = "", number: int | None = None) -> str:
    # Where to look, placed after the hint: "did you mean 'alpha'?; see figure-1.toml, line 9"; with a number,
    # in that table [[more]]. A campaign made in Python has no line numbers.
    lines = list(enumerate(text.splitlines(), start=1))
    if number is not None:
        starts = [n for n, line in lines if re.match(r"\s*\[\[\s*more\s*\]\]", line)]
        lines = lines[starts[number] - 1 :] if number < len(starts) else []
        key = key or "[more"
    at = next((f", line {n}" for n, line in lines if re.match(rf"\s*\[*{re.escape(key)}\b", line)), "")
    return "; ".join(part for part in (hint, source and f"see {source}{at}") if part)


def _one_line(error: ValidationError, text: str, source: str) -> ParameterError:
    # A misspelt key is the cause of a missing one, so it is reported first.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    path = [part for part in first["loc"] if isinstance(part, str)]
    key = ".".join(path)
    more = f"and {len(problems) - 1} more" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {"campaign": CampaignSection}
        section = sections[path[0]] if len(path) > 1 else Campaign
        accepted = list(section.model_fields)
        close = difflib.get_close_matches(path[-1], accepted, n=1)
        hint = f"did you mean {close[0]!r}?" if close else more
        return ParameterError(
            "key", key, f"one of {', '.join(accepted)}", _place(text, source, path[-1], hint)
        )
    if first["type"] == "missing":
        return ParameterError(key, "missing", "given", _place(text, source, path[0], more))
    if key == "more":
        return ParameterError(key, first["input"], "tables [[more]]", _place(text, source, key, more))
    accepted_text = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return ParameterError(key, first["input"], accepted_text, _place(text, source, path[-1], more))
