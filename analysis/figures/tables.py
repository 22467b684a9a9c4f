"""The numbers behind a figure as tidy tables, one row for each point, written as CSV or Zarr."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.output import check_replaceable, whole
from bendscape.sweep.store.publish import silence_zarr

Numbers = Mapping[str, xr.Dataset]
"""The tables behind one figure by name, which is also the name of the file; the first holds the
measurements."""

NUMBERS = ("csv", "zarr")
TITLE = "bendscape figures"
"""A mark written into every file, by which our own earlier files are recognised."""

COLUMNS: Mapping[str, str] = {
    "p": "width of the student",
    "p_star": "width of the teacher",
    "a": "constant of the loss",
    "transition": "kind of the transition, theory",
    "alpha_bbp": "threshold of the teacher's outlier as N goes to infinity, theory",
    "N": "dimension of the input; inf for the limit",
    "alpha": "samples per dimension, as the campaign wants them",
    "alpha_realised": "samples per dimension of the cells, M / N",
    "n_seeds": "seeds done",
    "overlap_sq_space": "mean squared overlap of the lowest p p_star eigenvectors with the teacher",
    "overlap_sq_space_error": "its standard error over seeds",
    "overlap_sq_theory": "squared overlap with the teacher, theory: at N in curves, else N to infinity",
    "eigval_min": "mean lowest eigenvalue",
    "eigval_min_error": "its standard error over seeds",
    "lambda_minus": "left edge of the bulk, theory",
    "lambda_star": "outlier left of the bulk, theory",
    "side": "below or above alpha_bbp",
    "seed": "realisation",
    "rank": "place of the eigenvalue from below, 0 the lowest",
    "eigval": "eigenvalue of the Hessian",
    "eigenvalue": "place in the spectrum",
    "density": "spectral density, theory, of mass 1 less the atom at 0",
    "atom": "mass of the atom at 0, theory",
    "edge": "kind of the left edge, theory",
    "law": "law of the approach to the edge that the data support",
    "gap": "mean lowest eigenvalue less lambda_minus",
    "gap_error": "its standard error over seeds",
    "fitted": "whether this size enters the fits",
    "gap_prediction": "the same by theory without a free parameter",
    "n_two_thirds_c": "fitted c of c N^(-2/3)",
    "n_two_thirds_p_value": "probability of a larger chi squared",
    "one_over_log_c": "fitted c of c / log N",
    "one_over_log_p_value": "probability of a larger chi squared",
    "estimator": "estimator of the critical load",
    "alpha_c": "critical load, measured",
    "alpha_c_error": "its statistical standard error",
    "alpha_c_total_error": "its statistical and systematic error, added in quadrature",
    "flag": "outcome of the estimate",
    "alpha_0_principal_value": "alpha_0 on the principal-value branch, theory",
    "alpha_0_complex_re": "alpha_0 at the complex zero, real part, theory",
    "alpha_0_complex_im": "alpha_0 at the complex zero, imaginary part, theory",
    "a_tricritical": "the transition is continuous below this a and discontinuous above it, theory",
    "kind_from_data": "kind of the transition as the data have it",
    "probability_discontinuous": "probability of a discontinuous transition, even odds before",
    "scaled_overlap": "N^(1/3) overlap_sq_space",
    "scaled_overlap_error": "its standard error over seeds",
    "w": "(alpha_realised - alpha_c) N^(1/3) / width",
    "w_bbp": "(alpha_realised - alpha_bbp) N^(1/3) / width",
    "width": "unit of w in alpha N^(1/3), theory",
    "window": "half width in w of what the collapse is fitted to",
    "chi2": "chi squared of the collapse at alpha_c",
    "dof": "its degrees of freedom",
    "distance_from_bbp": "alpha_c less alpha_bbp, in total errors",
}
"""The columns of the tables of Hessians at initialisation, each with its meaning, its ``long_name``."""

OF_DESCENTS: Mapping[str, str] = {
    "noise": "variance of the noise on the teacher's pre-activations",
    "dynamics": "free, or confined to no overlap with the teacher",
    "time": "recorded time",
    "rate": "share of cells that recovered or, confined, kept the direction",
    "rate_low": "lower end of its interval",
    "rate_high": "upper end of its interval",
    "n_cells": "cells that are done",
    "half": "load at which half succeed",
    "half_low": "lower end of its interval",
    "half_high": "upper end of its interval",
    "n_seen": "cells that had the downward direction",
    "n_lost": "of these, cells that lost it",
    "time_lost": "first recorded time by which half of them have lost it",
    "time_lost_low": "the median loss is later",
    "time_lost_high": "the median loss is not later",
    "threshold": "load above which half keep the direction, confined, where that no longer moves with N",
    "threshold_low": "lower end of its interval",
    "threshold_high": "upper end of its interval",
    "amplification": "mean of N times the alignment",
    "amplification_low": "lower end of its interval",
    "amplification_high": "upper end of its interval",
    "edge_median": "median left edge of the Hessian of cells not recovered by then, own labels",
    "outlier_median": "median outlier of the cells not recovered by then that have one, own labels",
    "outlier_low": "lower end of its interval",
    "outlier_high": "upper end of its interval",
}
"""The further columns of the tables of descents."""


class LeftOutError(ParameterError):
    """The store does not have what a figure needs, or not yet; ``remedy`` says what."""


def left_out(figure: str, reason: str) -> LeftOutError:
    """The error for a figure that cannot be drawn, to be raised by the caller."""
    return LeftOutError("figure", figure, "a figure for which this store has data", reason)


def table(blocks: Iterable[Mapping[str, Any]]) -> xr.Dataset:
    """One table from blocks of rows; scalars in a block are repeated for all its rows."""
    columns: dict[str, list[npt.NDArray[Any]]] = {}
    for block in blocks:
        length = max(np.size(values) for values in block.values())
        for name, values in block.items():
            columns.setdefault(name, []).append(np.broadcast_to(np.asarray(values), length))
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return xr.Dataset(
        {name: ("row", values, _attrs(name)) for name, values in joined.items()},
        attrs={"title": TITLE},
    )


def _attrs(name: str) -> dict[str, str]:
    return {"long_name": COLUMNS.get(name) or OF_DESCENTS[name]}


def groups(numbers: Numbers, by: Sequence[str]) -> list[tuple[Any, ...]]:
    """The distinct combinations of values of some columns of the first table, in their order there."""
    first = next(iter(numbers.values()))
    return list(dict.fromkeys(zip(*(first[name].values.tolist() for name in by), strict=True)))


def rows_where(found: xr.Dataset, **values: Any) -> dict[str, npt.NDArray[Any]]:
    """The columns of a table, restricted to the rows with these values."""
    keep = np.ones(found.sizes["row"], bool)
    for name, value in values.items():
        keep &= found[name].values == value
    return {str(name): column.values[keep] for name, column in found.items()}


def restricted(
    numbers: Numbers, by: Sequence[str], wanted: Sequence[tuple[Any, ...]]
) -> dict[str, xr.Dataset]:
    """All tables, restricted to the rows of the wanted groups."""
    chosen = set(wanted)
    parts = {}
    for name, found in numbers.items():
        of_rows = zip(*(found[column].values.tolist() for column in by), strict=True)
        parts[name] = found.isel(row=[k for k, group in enumerate(of_rows) if group in chosen])
    return parts


def write_numbers(numbers: Numbers, place: Path, kind: str) -> list[Path]:
    """Write every table as ``<name>.csv`` (an absent number is an empty field) or ``<name>.zarr``."""
    paths = [place / f"{name}.{kind}" for name in numbers]
    for path, found in zip(paths, numbers.values(), strict=True):
        if kind == "csv":
            check_table(path)
            with whole(path) as file:
                found.to_dataframe().to_csv(file, index=False, lineterminator="\n")
        else:
            replace_zarr(found, path, "output")
    return paths


def replace_zarr(ds: xr.Dataset, path: Path, option: str) -> None:
    """Write a dataset with a title as Zarr. Only an earlier dataset with the same title is replaced.

    Strings are written at their own lengths: arrays of equal lengths have no specification in Zarr 3.
    """
    ds = ds.assign({name: of.astype(object) for name, of in ds.variables.items() if of.dtype.kind == "U"})
    check_replaceable(path, str(ds.attrs["title"]), what=f"dataset of {ds.attrs['title']}", name=option)
    with warnings.catch_warnings(), whole(path) as folder:
        silence_zarr()
        ds.to_zarr(folder, mode="w", zarr_format=3, consolidated=True)  # `xr.open_zarr` looks for this first


def check_table(path: Path) -> None:
    """Refuse to overwrite anything but a table of ours, whose columns are all in ``COLUMNS``
    or ``OF_DESCENTS``."""
    try:
        with path.open(encoding="utf-8") as file:
            columns = file.readline().strip().split(",")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        columns = [str(path)]
    if columns != [""] and not set(columns) <= {*COLUMNS, *OF_DESCENTS}:
        raise ParameterError(
            "output", str(path), "a new place, or an earlier table", "something else is there: choose another"
        )


def few(values: Sequence[Any], n: int) -> list[Any]:
    """At most n of the values, evenly chosen, including the first and the last."""
    places = np.linspace(0, len(values) - 1, min(n, len(values)))
    return [values[round(place)] for place in places.tolist()]
