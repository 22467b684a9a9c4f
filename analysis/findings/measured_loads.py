"""The critical loads that a sweep has measured, one for each model, and their decrease with the width."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import xarray as xr

from bendscape.analysis.estimate.notation import with_error
from bendscape.analysis.estimate.verdicts import preferred_estimator
from bendscape.analysis.findings.scaling import load_rows

LEAST_SIZES = 2
"""Number of sizes that a critical load must use."""


class Load(NamedTuple):
    """A measured critical load with its total error, theory's value for it, the kind of the transition by
    data and by theory, and theory's values of ``DEFINITIONS``."""

    p: int
    p_star: int
    a: float
    estimator: str
    value: float
    error: float
    theory: float
    alpha_bbp: float
    kind: str
    kind_from_data: str
    probability_discontinuous: float
    definitions: Mapping[str, float]

    @property
    def distance(self) -> float:
        """Distance from theory's value, in total errors."""
        return (self.value - self.theory) / self.error

    def text(self) -> str:
        """The value with its error."""
        return with_error(self.value, self.error)


def measured_loads(loads: xr.Dataset) -> list[Load]:
    """The critical load of every model that has one, in the order of p_star, a and p.

    Parameters
    ----------
    loads : xarray.Dataset
        What :func:`bendscape.analysis.estimate.collapse.collapse` returns.

    Returns
    -------
    list of Load
        By :func:`bendscape.analysis.estimate.verdicts.preferred_estimator`, if the estimate has no flag and
        ``LEAST_SIZES`` sizes are measured.
    """
    rows: dict[tuple[int, int, float], dict[str, Any]] = {}
    for row in load_rows(loads):
        rows.setdefault((row["p"], row["p_star"], row["a"]), {})[row["estimator"]] = row
    found: dict[tuple[int, int, float], Load] = {}
    for model, estimates in rows.items():
        if all(row["n_sizes"] < LEAST_SIZES for row in estimates.values()):
            continue
        row = estimates[preferred_estimator({name: one["flag"] for name, one in estimates.items()})]
        error = math.hypot(row["error"], row["systematic"])
        if row["flag"] != "estimated" or not error > 0:
            continue
        theory = {name: definition["theory"] for name, definition in row["definitions"].items()}
        found[model] = Load(
            *model,
            row["estimator"],
            row["alpha_c"],
            error,
            theory[row["against"]],
            theory["alpha_bbp"],
            row["transition"],
            row["kind_from_data"],
            row["probability_discontinuous"],
            theory,
        )
    return [found[model] for model in sorted(found, key=lambda model: (model[1], model[2], model[0]))]


def families_of(measured: Sequence[Load]) -> Iterator[list[Load]]:
    """Groups of at least two loads with equal p_star and a, in the order of the width."""
    for key in dict.fromkeys((load.p_star, load.a) for load in measured):
        family = [load for load in measured if (load.p_star, load.a) == key]
        if len(family) > 1:
            yield family


def fall_between(wide: Load, narrow: Load) -> float:
    """By how many errors the wider student's load is below the other's."""
    return (narrow.value - wide.value) / math.hypot(narrow.error, wide.error)
