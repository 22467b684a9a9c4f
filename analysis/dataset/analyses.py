"""Analyses, found by what they need: each declares the variables and axes that it reads, and one function.

An entry point of `bendscape.analyses` is an :class:`Analysis`, requested by name. One of
`bendscape.theories` is evaluated when a store is opened that has what it needs, and its result is put beside
the cells. The name of the kernel plays no part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint
from typing import Any, Literal

import xarray as xr

from bendscape.analysis.dataset.models import MODEL, alpha_axis, as_sweep
from bendscape.core.errors import ParameterError
from bendscape.sweep.plugins import entry_points

Role = Literal["model", "curve", "size", "seed"]

ANALYSES, THEORIES = "bendscape.analyses", "bendscape.theories"
"""Groups of entry points."""

NETWORK: Mapping[str, Role] = {
    **dict.fromkeys(MODEL, "model"),
    "alpha": "curve",
    "N": "size",
    "seed": "seed",
}
"""The axes of the two-layer network, with their roles."""


@dataclass(frozen=True)
class Analysis:
    """A function of a sweep, with the variables and axes that the sweep must have.

    Parameters
    ----------
    name
        The name of its entry point.
    estimate
        `estimate(ds, **options)` returns a Dataset, which is lazy if `ds` is.
    variables
        The variables of `ds` that it reads. An entry with several names needs only one of them.
    axes
        The axes that `ds` must have, by name, with their roles.
    inner
        Inner dimensions that its variables may have: a variable of the same name over other inner dimensions
        is another quantity, and counts as lacking.
    """

    name: str
    estimate: Callable[..., xr.Dataset]
    variables: tuple[str | tuple[str, ...], ...]
    axes: Mapping[str, Role] = field(default_factory=lambda: NETWORK)
    inner: tuple[str, ...] = ()

    def __call__(self, ds: xr.Dataset, **options: Any) -> xr.Dataset:
        """The estimate for a dataset that has what is needed; others are refused, see :meth:`check`."""
        self.check(ds)
        return self.estimate(ds, **options)

    def lacking(self, ds: xr.Dataset, also: Sequence[str] = ()) -> list[str]:
        """What a dataset lacks, in words; `also` are further variables.

        An axis reduced to one value by a selection counts; an axis of the same name with another role does
        not.
        """
        found = []
        for entry in (*self.variables, *also):
            names = (entry,) if isinstance(entry, str) else entry
            there = [name for name in names if name in ds.variables]
            if not there:
                found.append(entry if isinstance(entry, str) else f"one of {', '.join(entry)}")
            elif all(extra := [self._inner(ds, name) for name in there]):
                found.append(f"{' or '.join(there)} without the dimension {', '.join(extra[0])}")
        for name, role in self.axes.items():
            if name not in ds.dims and name not in ds.variables:
                found.append(f"{name} among its dimensions")
            elif name in ds.variables and ds[name].attrs.get("role", role) != role:
                found.append(f"an axis {name} of the role {role}")
        return found

    def _inner(self, ds: xr.Dataset, name: str) -> list[str]:
        """Inner dimensions of a variable that this analysis does not expect; `status` is over all axes."""
        if "status" not in ds.variables:
            return []
        return [str(dim) for dim in ds[name].dims if dim not in ds["status"].dims and dim not in self.inner]

    def check(self, ds: xr.Dataset, also: Sequence[str] = ()) -> None:
        """Refuse a dataset that lacks a variable or an axis, and name what is missing."""
        if lacking := self.lacking(ds, also):
            needed = f"a sweep with {', '.join(lacking)}"
            why = f"the analysis {self.name} needs them"
            raise ParameterError("store", dataset_in_words(ds), needed, why)

    def sweep(self, ds: xr.Dataset, also: Sequence[str] = ()) -> xr.Dataset:
        """A dataset that has what is needed; a dataset over the axes of the network is brought into the form
        of :func:`sweep_of_network`.

        Raises
        ------
        ParameterError
            The dataset lacks a variable or an axis; or as :func:`sweep_of_network`.
        """
        self.check(ds, also)
        return sweep_of_network(ds) if self.axes == NETWORK else ds


def dataset_in_words(ds: xr.Dataset) -> str:
    """A dataset in error messages: its name, and the kernel that computed it."""
    return f"{ds.attrs.get('name', 'this dataset')} of kernel {ds.attrs.get('kernel', 'unknown')}"


def sweep_of_network(ds: xr.Dataset) -> xr.Dataset:
    """A dataset over the axes of the network in the form of
    :func:`bendscape.analysis.dataset.models.as_sweep`. Refuses a dimension without values or with a repeated
    value, and sizes that do not increase."""
    ds = as_sweep(ds)
    for dim in (*MODEL, alpha_axis(ds), "N", "seed"):
        if not ds.sizes[dim]:
            raise ParameterError("ds", dim, "a dataset with at least one value of it")
        if dim != "seed" and not ds.indexes[dim].is_unique:
            raise ParameterError("ds", dim, "a dataset in which no value occurs twice along it")
    if not ds.indexes["N"].is_monotonic_increasing:
        raise ParameterError("ds", ds["N"].values.tolist(), "sizes in increasing order", 'ds.sortby("N")')
    return ds


def installed(group: str = ANALYSES) -> dict[str, EntryPoint]:
    """The entry points of a group by name; imports nothing."""
    return {point.name: point for point in sorted(entry_points(group=group))}


@cache
def theories() -> tuple[EntryPoint, ...]:
    """The entry points of ``THEORIES``, looked up once in a process, as xarray does for its engines."""
    return tuple(installed(THEORIES).values())


def load_analysis(name: str, group: str = ANALYSES) -> Analysis:
    """An installed analysis by name.

    Raises
    ------
    ParameterError
        There is none of that name (the message lists those that exist), or it cannot be imported.
    """
    points = installed(group)
    if name not in points:
        raise ParameterError("analysis", name, f"one of {', '.join(points) or 'none, as none is installed'}")
    return loaded(points[name])


def loaded(point: EntryPoint) -> Analysis:
    """The analysis of an entry point.

    Raises
    ------
    ParameterError
        It cannot be imported, or is not an analysis of that name.
    """
    accepted = f"an Analysis of that name at {point.value}"
    try:
        found = point.load()
    except Exception as error:  # another package's code
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ParameterError("analysis", point.name, accepted, why) from None
    if not isinstance(found, Analysis) or found.name != point.name:
        raise ParameterError("analysis", point.name, accepted)
    return found


def describe_analyses(ds: xr.Dataset | None = None) -> list[dict[str, Any]]:
    """Every installed analysis: ``name``, the ``variables`` it reads, ``axes`` with their roles, and what
    ``ds`` is ``lacking``; ``error`` if it cannot be loaded."""
    rows: list[dict[str, Any]] = []
    for name, point in installed().items():
        rows.append({"name": name})
        try:
            analysis = loaded(point)
        except ParameterError as error:
            rows[-1]["error"] = str(error)
            continue
        needs = [one if isinstance(one, str) else " or ".join(one) for one in analysis.variables]
        rows[-1] |= {"variables": needs, "axes": dict(analysis.axes)}
        if ds is not None:
            rows[-1]["lacking"] = analysis.lacking(ds)
    return rows
