"""The seam to what a cell computes: a kernel declares its variables, costs and version, and one function."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

import numpy as np

from bendscape.core.model import ParameterError
from bendscape.sweep.grid import Cell

STATUS = {"absent": 0, "done": 1, "failed": 2, "not_converged": 3}
"""Codes of the `status` variable, written last: a cell is stored exactly when its status is not absent."""


@dataclass(frozen=True)
class Variable:
    """One number per cell, as it is stored; absent and failed cells hold NaN (integers: 0)."""

    name: str
    long_name: str
    dtype: Literal["float64", "int64", "int8"] = "float64"
    units: str = "1"

    @property
    def fill_value(self) -> float | int:
        """What an absent cell holds."""
        return math.nan if self.dtype == "float64" else 0


@dataclass(frozen=True)
class Outcome:
    """What a kernel returns for one cell: a value for every declared variable, and whether it converged."""

    values: Mapping[str, float | int]
    converged: bool = True


@dataclass(frozen=True)
class Kernel:
    """What a cell computes.

    Parameters
    ----------
    name, version
        Identity: a store never mixes two kernels or two versions. Raise the version when bits change.
    variables
        What `compute` returns for each cell.
    compute
        `compute(cell, rng) -> Outcome`. A pure function of the cell and its random stream; an exception
        marks this cell as failed, and its traceback is kept.
    seconds, peak_bytes
        Estimates on one core, as functions of the cell: they size tiles and tasks and predict the end.
    """

    name: str
    version: int
    variables: tuple[Variable, ...]
    compute: Callable[[Cell, np.random.Generator], Outcome]
    seconds: Callable[[Cell], float]
    peak_bytes: Callable[[Cell], float]


def load_kernel(name: str, modules: Iterable[str] = ()) -> Kernel:
    """Find a kernel by name: an installed entry point of `bendscape.kernels`, or one in the given modules.

    A module is named on the command line, never in a campaign file: a path to a Python file, or a dotted
    name, which defines `KERNEL`.

    Raises
    ------
    ParameterError
        No kernel of that name; the line lists those there are.
    """
    known: dict[str, Callable[[], Kernel]] = {
        point.name: point.load for point in entry_points(group="bendscape.kernels")
    }
    for module in modules:
        kernel = _kernel_of(module)
        known[kernel.name] = partial(_same, kernel)
    if name not in known:
        raise ParameterError(
            "campaign.kernel",
            name,
            ", ".join(sorted(known)),
            "name a module of your own with --kernel-module",
        )
    return known[name]()


def _same(kernel: Kernel) -> Kernel:
    return kernel


def _kernel_of(module: str) -> Kernel:
    path = Path(module)
    if path.suffix == ".py":
        name = f"bendscape_kernel_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise ParameterError("--kernel-module", module, "a Python file or an importable module")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded
        spec.loader.exec_module(loaded)
    else:
        try:
            loaded = importlib.import_module(module)
        except ImportError as error:
            raise ParameterError(
                "--kernel-module", module, "a Python file or an importable module", str(error)
            ) from None
    kernel = getattr(loaded, "KERNEL", None)
    if not isinstance(kernel, Kernel):
        raise ParameterError("--kernel-module", module, "a module that defines KERNEL, a bendscape Kernel")
    return kernel
