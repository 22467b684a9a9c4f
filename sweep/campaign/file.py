"""The campaign file: what to compute, where to keep it, and one clear line when something in it is wrong."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.grid import AROUND, Grid, check_where
from bendscape.sweep.location import store_url

MAX_AXIS = (
    4096  # values on one axis: the chunk of a coordinate array, so that growing an axis rewrites one object
)

DIGITS = 12  # significant ones of a real coordinate

MAX_INTEGER = 2**53
MAX_SEEDS = 2**31


def _values(raw: object, kind: type[int] | type[float], lowest: float) -> tuple[Any, ...]:
    """Normalise a scalar, a list or `{start, stop, num}` to distinct values in increasing order."""
    if isinstance(raw, Mapping):
        unknown = set(raw) - {"start", "stop", "num"}
        missing = {"start", "stop", "num"} - set(raw)
        if unknown or missing:
            problem = f"unknown {sorted(unknown)}" if unknown else f"missing {sorted(missing)}"
            raise ValueError(f"a range with the keys start, stop, num ({problem})")
        num = raw["num"]
        if not isinstance(num, int) or isinstance(num, bool) or not 1 <= num <= MAX_AXIS:
            raise ValueError(f"a range whose num is an integer from 1 to {MAX_AXIS}")
        if not all(_is_number(raw[key]) for key in ("start", "stop")):
            raise ValueError("a range whose start and stop are finite numbers")
        raw = np.linspace(raw["start"], raw["stop"], num).tolist()
    items: list[Any] = list(raw) if isinstance(raw, list | tuple) else [raw]
    if not 1 <= len(items) <= MAX_AXIS:
        raise ValueError(f"1 to {MAX_AXIS} values")
    name = "integers" if kind is int else "finite numbers"
    for item in items:
        number = _is_number(item)
        if (
            not number
            or (kind is int and item != int(item))
            or item < lowest
            or (kind is float and item == 0)
        ):
            bound = f">= {lowest:g}" if kind is int else "> 0"
            raise ValueError(f"{name} {bound}, as a value, a list or {{ start, stop, num }}; found {item!r}")
    # Few enough digits: the same coordinate, hence the same random stream, however it was spelt.
    values = sorted({kind(f"{item:.{DIGITS}g}") if kind is float else int(item) for item in items})
    if len(values) != len(items):
        raise ValueError("distinct values")
    return tuple(values)


def _is_number(item: object) -> bool:
    # Below 2^53 integers and floats agree.
    return isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < MAX_INTEGER


def _integers(lowest: int) -> Callable[[object], tuple[int, ...]]:
    return lambda raw: _values(raw, int, lowest)


def _positive(raw: object) -> tuple[float, ...]:
    return _values(raw, float, 0.0)


class AlphaAxis(BaseModel):
    """Values of alpha, or of the factor alpha / threshold when `around` names a threshold."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    values: Annotated[tuple[float, ...], BeforeValidator(_positive)]
    around: str | None = None


def _alpha(raw: object) -> AlphaAxis:
    around = None
    if isinstance(raw, Mapping) and "around" in raw:
        raw = dict(raw)
        around = raw.pop("around")
        if around not in AROUND:
            raise ValueError(f"relative (around) to one of {', '.join(AROUND)}; found {around!r}")
        if set(raw) == {"values"}:
            raw = raw["values"]
    return AlphaAxis(values=_positive(raw), around=around)


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


def _where(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("text such as 'p >= p_star'")
    return check_where(raw)


class CampaignSection(BaseModel):
    """`[campaign]`: its name, its store, the entropy of every random stream, and the kernel of its cells."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: Annotated[str, Field(min_length=1, max_length=100)]
    store: Annotated[str, Field(min_length=1)]
    entropy: Annotated[int, Field(ge=0, lt=2**63)]
    kernel: str = "hessian"


class GridSection(BaseModel):
    """`[grid]`: the values on every axis and, with `where`, the points that are wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    p: Annotated[tuple[int, ...], BeforeValidator(_integers(1))]
    p_star: Annotated[tuple[int, ...], BeforeValidator(_integers(1))]
    a: Annotated[tuple[float, ...], BeforeValidator(_positive)]
    alpha: Annotated[AlphaAxis, BeforeValidator(_alpha)]
    N: Annotated[tuple[int, ...], BeforeValidator(_integers(2))]
    seeds: Annotated[int | dict[int, int], BeforeValidator(_seeds)]
    where: Annotated[str | None, BeforeValidator(_where)] = None


class Campaign(BaseModel):
    """A whole campaign: what it computes (`campaign`, `grid`) and the text it was read from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    campaign: CampaignSection
    grid: GridSection
    _text: str = PrivateAttr("")

    @property
    def text(self) -> str:
        """The file as it was read."""
        return self._text

    def to_grid(self) -> Grid:
        """The axes as the engine uses them, with one seed count for each size."""
        grid = self.grid
        seeds = dict.fromkeys(grid.N, grid.seeds) if isinstance(grid.seeds, int) else grid.seeds
        return Grid(
            p=grid.p,
            p_star=grid.p_star,
            a=grid.a,
            alpha=grid.alpha.values,
            around=grid.alpha.around,
            N=grid.N,
            seeds={size: seeds[size] for size in grid.N},
            where=grid.where,
        )

    @property
    def spec_hash(self) -> str:
        """BLAKE2b of the canonical JSON: equal for equal campaigns, however the file is laid out."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def load_campaign(path: str | Path) -> Campaign:
    """Read and validate a campaign file.

    Raises
    ------
    ParameterError
        One line: the key and its line in the file, the value found, what is accepted.
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
    grid = campaign.grid
    if isinstance(grid.seeds, dict) and set(grid.seeds) != set(grid.N):
        raise ParameterError(
            "grid.seeds",
            sorted(grid.seeds),
            f"one count for each size in grid.N = {list(grid.N)}",
            _place(text, source, "seeds"),
        )
    campaign._text = text
    return campaign


def _place(text: str, source: str, key: str, hint: str = "") -> str:
    # Where to look, after what to do: "did you mean 'alpha'?; see figure-1.toml, line 9".
    lines = enumerate(text.splitlines(), start=1)
    at = next((f", line {n}" for n, line in lines if re.match(rf"\s*\[?{re.escape(key)}\b", line)), "")
    return "; ".join(part for part in (hint, f"see {source}{at}") if part)


def _one_line(error: ValidationError, text: str, source: str) -> ParameterError:
    # A misspelt key explains the missing one, so it is shown first.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    first = problems[0]
    path = [part for part in first["loc"] if isinstance(part, str)]
    key = ".".join(path)
    more = f"and {len(problems) - 1} more" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {"campaign": CampaignSection, "grid": GridSection}
        section = sections[path[0]] if len(path) > 1 else Campaign
        accepted = list(section.model_fields)
        close = difflib.get_close_matches(path[-1], accepted, n=1)
        hint = f"did you mean {close[0]!r}?" if close else more
        return ParameterError(
            "key", key, f"one of {', '.join(accepted)}", _place(text, source, path[-1], hint)
        )
    if first["type"] == "missing":
        return ParameterError(key, "missing", "given", _place(text, source, path[0], more))
    accepted_text = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return ParameterError(key, first["input"], accepted_text, _place(text, source, path[-1], more))
