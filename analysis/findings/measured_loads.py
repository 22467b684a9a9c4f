"""The critical loads that a sweep has measured, one a model, and how they fall with the width."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import xarray as xr

from bendscape.analysis.estimate.notation import with_error
from bendscape.analysis.estimate.verdicts import preferred_estimator
from bendscape.analysis.findings.scaling import load_rows

LEAST_SIZES = 2
"""Sizes that a critical load rests on."""


class Load(NamedTuple):
    """A measured critical load with its total error, theory's value for it, and the kind that data and theory
    say the transition is of, and its distances from ``DEFINITIONS`` in total errors."""

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
    distances: Mapping[str, float]

    @property
    def distance(self) -> float:
        """From theory's value, in total errors."""
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
        That of :func:`bendscape.analysis.estimate.verdicts.preferred_estimator`, where it is estimated
        without a flag and ``LEAST_SIZES`` sizes are measured.
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
            {name: definition["distance"] for name, definition in row["definitions"].items()},
        )
    return [found[model] for model in sorted(found, key=lambda model: (model[1], model[2], model[0]))]


def families_of(measured: Sequence[Load]) -> Iterator[list[Load]]:
    """Loads of equal p_star and a, in the order of the width, where there are two of them."""
    for key in dict.fromkeys((load.p_star, load.a) for load in measured):
        family = [load for load in measured if (load.p_star, load.a) == key]
        if len(family) > 1:
            yield family


def fall_between(wide: Load, narrow: Load) -> float:
    """By how many errors the wider student's load lies below the other's."""
    return (narrow.value - wide.value) / math.hypot(narrow.error, wide.error)


def together(falls: Sequence[float]) -> float:
    """Several independent differences, each in its errors, as one; nan without any."""
    return sum(falls) / math.sqrt(len(falls)) if falls else math.nan
