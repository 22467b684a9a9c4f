"""Kernels made from a decorated function, in a module or a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Axes, Cell
from bendscape.sweep.campaign.kernel import Dimension, Kernel, Outcome, Reference, Variable
from bendscape.sweep.campaign.loading import hold, source_digest
from bendscape.sweep.campaign.outcomes import BadOutcome

Function = Callable[[Cell, np.random.Generator], Mapping[str, Any] | Outcome]
Estimate = float | Callable[[Cell], float]


def kernel(
    *,
    axes: Axes,
    variables: tuple[Variable, ...],
    dimensions: tuple[Dimension, ...] = (),
    references: tuple[Reference, ...] = (),
    seconds: Estimate = 0.1,
    peak_bytes: Estimate = 1e8,
    version: int = 1,
) -> Callable[[Function], Kernel]:
    """Make a kernel from a function `f(cell, rng)` that returns a value for every variable.

    The kernel has the function's name. The store keeps a digest of the function's source text, decorator
    included, and refuses a different text under the same name and version unless `accept_kernel_change`
    states that the bits are the same. The digest does not cover what the function calls or reads from its
    module or notebook: raise `version` when a change there changes results.

    Parameters
    ----------
    axes
        Axes of the cells; exactly one has the role "seed".
    variables
        What the function returns, by name; see `Variable`.
    dimensions
        Inner dimensions of variables that are arrays, with their coordinates; see `Dimension`.
    references
        Exact values at the points of a grid, computed without random numbers; see `Reference`.
    seconds, peak_bytes
        Estimates for one cell on one core, as numbers or as functions of the cell. They set the size of tiles
        (about two seconds of work) and the memory that a task reserves. State them if a cell takes much more
        or much less than a tenth of a second and 100 MB.
    version
        An integer >= 1. A store never mixes two versions.

    Returns
    -------
    callable
        Decorator that turns the function into a `Kernel`; `compute(cell, rng)` calls the function.

    Raises
    ------
    ParameterError
        The declaration is not accepted, or Python cannot read the source text of the function.

    Examples
    --------
    >>> @kernel(
    ...     axes=Axes((Axis("steps", "int64"), Axis("seed", "int64", "seed"))),
    ...     variables=(Variable("end", "where the walk ends"),),
    ... )
    ... def walk(cell, rng):
    ...     return {"end": rng.choice([-1, 1], cell.steps).sum()}
    """

    def decorate(function: Function) -> Kernel:
        name = getattr(function, "__name__", None)
        if not callable(function) or name is None:
            raise ParameterError("kernel", function, "a function of a cell and its random generator")
        digest = source_digest(function)
        if not digest:
            accepted = "a function whose source text Python can read"
            raise ParameterError("kernel", name, accepted, "define it in a file or a notebook cell")
        made = Kernel(
            name=name, version=version, variables=variables, compute=partial(_outcome, function),
            seconds=_estimate(seconds), peak_bytes=_estimate(peak_bytes), digest=digest, axes=axes,
            references=references, dimensions=dimensions,
        )  # fmt: skip
        hold(made, "Python")
        return made

    return decorate


def _outcome(function: Function, cell: Cell, rng: np.random.Generator) -> Outcome:
    found = function(cell, rng)
    if isinstance(found, Outcome):
        return found
    if not isinstance(found, Mapping):
        raise BadOutcome(f"the function returned {type(found).__name__}, not a dictionary or an Outcome")
    return Outcome(found)


def _estimate(of: Estimate) -> Callable[[Cell], float]:
    return of if callable(of) else partial(_constant, of)


def _constant(value: float, cell: Cell) -> float:
    return value
