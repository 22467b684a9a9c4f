"""Analyses by what they need: the variables and axes that each reads, and the one function that makes it.

An entry point of `bendscape.analyses` is an :class:`Analysis` that is asked for by its name; one of
`bendscape.theories` is laid beside the cells of every store that has what it needs, when the store is opened.
Whose kernel computed the cells plays no part.
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
"""Axes of the two-layer network with their roles."""


@dataclass(frozen=True)
class Analysis:
    """What is made of a sweep, by one function, and what the sweep must have for it.

    Parameters
    ----------
    name
        That of its entry point.
    estimate
        `estimate(ds, **options)`, which returns a Dataset; lazy where `ds` is.
    variables
        What it reads of `ds`: names, or several names of which one will do.
    axes
        The axes that `ds` must have, by name, with their roles.
    """

    name: str
    estimate: Callable[..., xr.Dataset]
    variables: tuple[str | tuple[str, ...], ...]
    axes: Mapping[str, Role] = field(default_factory=lambda: NETWORK)

    def __call__(self, ds: xr.Dataset, **options: Any) -> xr.Dataset:
        """The estimate, of a dataset that has what is needed; any other is refused as by :meth:`check`."""
        self.check(ds)
        return self.estimate(ds, **options)

    def lacking(self, ds: xr.Dataset, also: Sequence[str] = ()) -> list[str]:
        """What a dataset does not have of what is needed, in words; `also` are further variables.

        An axis that was selected to one value is there; one that a dataset gives another role is not.
        """
        found = [
            name if isinstance(name, str) else f"one of {', '.join(name)}"
            for name in (*self.variables, *also)
            if not ({name} if isinstance(name, str) else set(name)) & set(ds.variables)
        ]
        for name, role in self.axes.items():
            if name not in ds.dims and name not in ds.variables:
                found.append(f"{name} among its dimensions")
            elif name in ds.variables and ds[name].attrs.get("role", role) != role:
                found.append(f"an axis {name} of the role {role}")
        return found

    def check(self, ds: xr.Dataset, also: Sequence[str] = ()) -> None:
        """Refuse a dataset that lacks a variable or an axis, by its name."""
        if lacking := self.lacking(ds, also):
            needed = f"a sweep with {', '.join(lacking)}"
            raise ParameterError("store", in_words(ds), needed, f"{self.name} reads what is missing here")

    def sweep(self, ds: xr.Dataset, also: Sequence[str] = ()) -> xr.Dataset:
        """A dataset that has what is needed; one over the axes of the network as
        :func:`sweep_of_network` has it.

        Raises
        ------
        ParameterError
            It lacks a variable or an axis, which the line names; or as :func:`sweep_of_network`.
        """
        self.check(ds, also)
        return sweep_of_network(ds) if self.axes == NETWORK else ds


def in_words(ds: xr.Dataset) -> str:
    """The name of a dataset and the kernel that computed it, as errors have them."""
    return f"{ds.attrs.get('name', 'this dataset')} of kernel {ds.attrs.get('kernel', 'unknown')}"


def sweep_of_network(ds: xr.Dataset) -> xr.Dataset:
    """A dataset over the axes of the network as :func:`bendscape.analysis.dataset.models.as_sweep` has it,
    with at least one value along each, none twice, and sizes that increase; any other is refused."""
    ds = as_sweep(ds)
    for dim in (*MODEL, alpha_axis(ds), "N", "seed"):
        if not ds.sizes[dim]:
            raise ParameterError("ds", dim, "a dataset with at least one value of it")
        if dim != "seed" and not ds.indexes[dim].is_unique:
            raise ParameterError("ds", dim, "a dataset without a value twice along it")
    if not ds.indexes["N"].is_monotonic_increasing:
        raise ParameterError("ds", ds["N"].values.tolist(), "sizes in increasing order", 'ds.sortby("N")')
    return ds


def installed(group: str = ANALYSES) -> dict[str, EntryPoint]:
    """Entry points of a group by name; nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=group))}


@cache
def theories() -> tuple[EntryPoint, ...]:
    """Entry points of ``THEORIES``, looked for once in a process, as xarray looks for its engines."""
    return tuple(installed(THEORIES).values())


def load_analysis(name: str, group: str = ANALYSES) -> Analysis:
    """An installed analysis by its name.

    Raises
    ------
    ParameterError
        There is none of that name (the line lists those there are), or it cannot be imported.
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
        It cannot be imported, or is no analysis of that name.
    """
    accepted = f"an Analysis of that name at {point.value}"
    try:
        found = point.load()
    except Exception as error:  # it is the code of another package
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ParameterError("analysis", point.name, accepted, why) from None
    if not isinstance(found, Analysis) or found.name != point.name:
        raise ParameterError("analysis", point.name, accepted)
    return found


def described(ds: xr.Dataset | None = None) -> list[dict[str, Any]]:
    """Every installed analysis: ``name``, ``variables`` that it reads, ``axes`` with their roles, and what
    ``ds`` is ``lacking`` for it; ``error`` where it cannot be loaded."""
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
