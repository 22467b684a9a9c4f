"""The `descent` kernel: one cell followed along gradient flow, with what is measured at recorded times."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, field_validator

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.descent.cost import (
    Kind,
    Work,
    descent_bytes,
    descent_seconds,
    path_precision,
    resolve_data,
)
from bendscape.core.quadratic.descent.explicit import ExplicitData
from bendscape.core.quadratic.descent.flow import TOLERANCE, steps_of
from bendscape.core.quadratic.descent.landscape import Data
from bendscape.core.quadratic.descent.measure import Descent, Measured, follow
from bendscape.core.quadratic.descent.revealed import LARGEST_REL, RevealedData
from bendscape.core.quadratic.sampling.cost import MAX_BYTES
from bendscape.core.quadratic.sampling.hessian import sample_instance
from bendscape.sweep.campaign.axes import Axes, Axis
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import FINITE, Dimension, Kernel, Outcome, Reference, Variable
from bendscape.sweep.kernels.hessian import POSITIVE, SQUARE
from bendscape.sweep.kernels.options import INCREASING, MOST_VALUES, PathOptions
from bendscape.sweep.kernels.quadratic import AXES as OF_NETWORK
from bendscape.sweep.kernels.quadratic import REFERENCES as OF_THEORY
from bendscape.sweep.kernels.quadratic import NoisyCell, check_samples, model_of

TIMES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
MOST_PAIRS, MOST_WIDTH = 3, 16
LEAST_TOLERANCE, MOST_TOLERANCE = 1e-8, 3e-2
LEAST_RATE, LEAST_IN_SINGLE = 1e-4, 1e-4

STOPPED = ("last_time", "recovery", "too_many_evaluations", "no_step_small_enough")
"""Why a path ended, in the order of the values of `stopped`."""
_STOPPED = ("time", "asked", "evaluations", "step")

FREE, CONFINED = "free", "confined"

Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class DescentCell(NoisyCell, Protocol):
    """A cell of this kernel."""

    dynamics: str


class Options(PathOptions):
    """The settings that are constant in a campaign of descents and decide its bits."""

    times: Annotated[tuple[Time, ...], INCREASING] = Field(
        default=TIMES,
        min_length=1,
        max_length=MOST_VALUES,
        description="recorded times, increasing, the dimension time; the last decides what has recovered",
    )
    until_recovered: bool = Field(
        default=False, description="stop a cell where it recovers the signal; its later times are then NaN"
    )
    method: Literal["flow", "gradient_descent"] = Field(
        default="flow", description="gradient flow, or steps of one learning rate: another dynamical system"
    )
    learning_rate: float | None = Field(
        default=None,
        ge=LEAST_RATE,
        allow_inf_nan=False,
        validate_default=True,
        description="of gradient_descent, which needs it; time is steps times learning rate",
    )
    tolerance: float = Field(
        default=TOLERANCE,
        ge=LEAST_TOLERANCE,
        le=MOST_TOLERANCE,
        description="largest estimated error of one step of the flow, |dw|/sqrt(pN)",
    )
    pairs: int = Field(
        default=0,
        ge=0,
        le=MOST_PAIRS,
        description="lowest eigenpairs of the Riemannian Hessian at every recorded time; costly at large N",
    )
    overlaps: int = Field(
        default=0,
        ge=0,
        le=MOST_WIDTH,
        description="largest width whose overlap matrices are recorded, smaller ones padded by NaN; 0: none",
    )
    data: Literal["auto", "explicit", "revealed"] = Field(
        default="auto",
        description="whether data are drawn at once or revealed along the path; auto takes the faster that "
        "fits max_bytes",
    )
    precision: Literal["float64", "float32"] | None = Field(
        default=None,
        description="of data and long vectors; by default float64, but float32 for revealed data where a "
        "path sees a small part of the space and the tolerance is 1e-3 or more",
    )
    rel: float = Field(
        default=0.0,
        ge=0,
        le=LARGEST_REL,
        description="approximation of revealed data: new directions smaller than this part of a vector are "
        "dropped; 0 is exact",
    )
    max_bytes: float = Field(default=MAX_BYTES, gt=0, description="memory that auto chooses the data by")

    @field_validator("precision")
    @classmethod
    def _fine_enough(cls, precision: str | None, info: ValidationInfo) -> str | None:
        if precision == "float32" and info.data.get("tolerance", 1.0) < LEAST_IN_SINGLE:
            raise ValueError(f"'float64' for a kernel.tolerance below {LEAST_IN_SINGLE:g}")
        return precision


DEFAULTS = Options()

_AT_TIMES = (
    Variable("loss", "loss L/N", valid_range=POSITIVE),
    Variable(
        "alignment",
        "overlap of student and teacher, C in [0, 1], (w.w*/N)^2 at p = p* = 1",
        valid_range=SQUARE,
    ),
    Variable("generalisation_error", "mean squared error on new noiseless samples", valid_range=POSITIVE),
    Variable("gradient_norm", "norm of the tangential gradient over sqrt(N)", valid_range=POSITIVE),
    Variable("multiplier", "multiplier of the spheres, mean over the students", valid_range=FINITE),
    Variable(
        "edge_sample",
        "left edge of the bulk of the Riemannian Hessian, from the cell's own labels",
        valid_range=FINITE,
    ),
    Variable(
        "outlier_sample",
        "outlier of the Riemannian Hessian, from the cell's own labels; NaN where there is none",
        valid_range=FINITE,
    ),
    Variable(
        "overlap_sq_sample",
        "squared overlap of the outlier, from the cell's own labels",
        valid_range=SQUARE,
    ),
)
_OF_PAIRS = (
    Variable(
        "eigenvalue",
        "lowest eigenvalues of the Riemannian Hessian; NaN where the iteration did not converge",
        valid_range=FINITE,
    ),
    Variable(
        "eigenvector_overlap_sq",
        "squared overlap of their eigenvectors with the teacher span; NaN where not converged",
        valid_range=SQUARE,
    ),
    Variable("eigenvector_residual", "residual norm of these pairs, converged or not", valid_range=POSITIVE),
)
_LATER = "; NaN after the end of the path"
_COSINE = (-1.0, 1.0)
_OF_CELL = (
    Variable("recovered", "whether the alignment exceeded 0.9 by the last time", "int8", valid_range=(0, 1)),
    Variable("time_recovered", "time at which it first did; NaN if it did not", valid_range=POSITIVE),
    Variable(
        "time_lost",
        "first recorded time without an outlier of the own labels after one with it; NaN if there is none",
        valid_range=POSITIVE,
    ),
    Variable(
        "outlier_kept",
        "whether the own labels have an outlier at the last recorded time that was reached; NaN if none was",
        valid_range=SQUARE,
    ),
    Variable("time_reached", "last recorded time that was reached; NaN if none was", valid_range=POSITIVE),
    Variable("evaluations", "evaluations of the force", "int64", valid_range=(1, math.inf)),
    Variable(
        "directions",
        "directions of the input space in which the data were known at the end",
        "int64",
        valid_range=(1, math.inf),
    ),
    Variable("stopped", "why the path ended", "int8", flags=STOPPED),
)

_DYNAMICS = Axis(
    "dynamics",
    "str",
    long_name="free descent, or confined to zero overlap with the teacher as at N = infinity",
    choices=(FREE, CONFINED),
    default=FREE,
)


def _whatever_dynamics(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the models of the network for those that have dynamics too: theory of the start."""

    def of_start(dynamics: object = FREE, **model: npt.NDArray[Any]) -> Any:
        return compute(**model)

    return of_start


def _axes() -> Axes:
    found: list[Axis] = []
    for axis in OF_NETWORK.declared:
        known = {name: of and _whatever_dynamics(of) for name, of in axis.relative_to.items()}
        found.append(replace(axis, relative_to=known))
        if axis.name == "noise":
            found.append(_DYNAMICS)
    return Axes(tuple(found))


def _reference(of: Reference) -> Reference:
    at = of.over.index("noise") + 1
    over = (*of.over[:at], "dynamics", *of.over[at:])
    return replace(of, over=over, compute=_whatever_dynamics(of.compute))


AXES = _axes()
REFERENCES = tuple(map(_reference, OF_THEORY))


def compute(cell: DescentCell, rng: np.random.Generator, options: Options = DEFAULTS) -> Outcome:
    """Draw the cell and follow it to its last time.

    Not converged is a path that ended before the last time without having recovered the signal.
    """
    found = follow(
        _data(cell, rng, options),
        options.times,
        pairs=options.pairs,
        tolerance=options.tolerance,
        learning_rate=options.learning_rate,
        confined=cell.dynamics == CONFINED,
        until_recovered=options.until_recovered,
    )
    values: dict[str, Any] = {
        of.name: _over_times(found, options, partial(_at_time, name=of.name)) for of in _AT_TIMES
    }
    if options.pairs:
        shape = (options.pairs,)
        values |= {
            of.name: _over_times(found, options, partial(_of_pair, name=of.name), shape) for of in _OF_PAIRS
        }
    if width := options.overlaps:
        wide = (width, width)
        values |= {
            "overlap_students": _over_times(found, options, lambda seen: _padded(seen.Q, width), wide),
            "overlap_teachers": _over_times(found, options, lambda seen: _padded(seen.R, width), wide),
        }
    last = found.seen[-1] if found.seen else None
    values |= {
        "recovered": int(found.recovered),
        "time_recovered": found.time_recovered,
        "time_lost": found.time_lost,
        "outlier_kept": float(not math.isnan(last.own.outlier_sample)) if last else math.nan,
        "time_reached": last.time if last else math.nan,
        "evaluations": found.evaluations,
        "directions": found.directions,
        "stopped": _STOPPED.index(found.stopped),
    }
    return Outcome(values, converged=found.stopped in ("time", "asked"))


def _data(cell: DescentCell, rng: np.random.Generator, options: Options) -> Data:
    model, kind = model_of(cell), _kind(cell, options)
    precision = path_precision(model, cell.alpha, cell.N, kind, _work(cell, options))
    if kind == "revealed":
        return RevealedData(model, cell.alpha, cell.N, rng, dtype=precision, rel=options.rel)
    return ExplicitData(sample_instance(model, cell.alpha, cell.N, rng, precision=precision), precision)


def _at_time(seen: Measured, name: str) -> float:
    if name == "multiplier":
        return float(seen.multiplier.mean())
    return float(getattr(seen.own if name.endswith("_sample") else seen, name))


def _of_pair(seen: Measured, name: str) -> npt.NDArray[np.float64]:
    pairs = seen.pairs
    assert pairs is not None
    if name == "eigenvector_residual":
        return pairs.residuals
    array = pairs.values if name == "eigenvalue" else pairs.overlaps_sq
    return array if pairs.converged else np.full_like(array, np.nan)


def _padded(matrix: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    return np.pad(matrix, [(0, width - n) for n in matrix.shape], constant_values=np.nan)


def _over_times(
    found: Descent, options: Options, of: Callable[[Measured], Any], shape: tuple[int, ...] = ()
) -> npt.NDArray[np.float64]:
    array = np.full((len(options.times), *shape), np.nan)
    for i, seen in enumerate(found.seen):
        array[i] = of(seen)
    return array


def _kind(cell: DescentCell, options: Options) -> Kind:
    work = _work(cell, options)
    return resolve_data(model_of(cell), cell.alpha, cell.N, options.data, work, options.max_bytes)


def _work(cell: DescentCell, options: Options) -> Work:
    return Work(
        options.times[-1],
        len(options.times),
        options.pairs,
        options.tolerance,
        options.learning_rate,
        options.precision,
        cell.dynamics == CONFINED,
        options.until_recovered,
    )


def _seconds(cell: DescentCell, options: Options = DEFAULTS) -> float:
    return descent_seconds(model_of(cell), cell.alpha, cell.N, _kind(cell, options), _work(cell, options))


def _peak_bytes(cell: DescentCell, options: Options = DEFAULTS) -> float:
    return 1.4 * descent_bytes(model_of(cell), cell.alpha, cell.N, _kind(cell, options), _work(cell, options))


def _check(grid: Grid, options: Options = DEFAULTS) -> None:
    """Refuse points with less than one sample, with matrices wider than recorded, or impossible to reveal,
    and times that a learning rate does not tell apart."""
    check_samples(grid)
    if options.learning_rate is not None:
        steps_of(options.times, options.learning_rate)
    widths = {name: int(np.max(grid.models[name])) for name in ("p", "p_star")}
    for name, width in widths.items():
        if options.overlaps and width > options.overlaps:
            accepted = f"at most {options.overlaps}, the widths of the overlap matrices that are recorded"
            raise ParameterError(f"grid.{name}", width, accepted, "raise kernel.overlaps, or set it to 0")
    least = sum(widths.values())
    confined = CONFINED in grid.models["dynamics"]
    for size in grid.sizes:
        if confined and size <= widths["p_star"]:
            raise ParameterError("grid.N", size, f"> p_star = {widths['p_star']} for confined dynamics")
        if options.data == "revealed" and size < least:
            accepted = f">= p + p_star = {least} for revealed data"
            raise ParameterError("grid.N", size, accepted, 'use kernel.data = "auto"')


def configured(options: Options) -> Kernel:
    """The kernel with the given options."""
    variables = [replace(of, dims=("time",), long_name=of.long_name + _LATER) for of in _AT_TIMES]
    dimensions = [Dimension("time", options.times, "time of the flow")]
    if options.pairs:
        variables += [replace(of, dims=("time", "pair"), long_name=of.long_name + _LATER) for of in _OF_PAIRS]
        dimensions.append(Dimension("pair", tuple(range(options.pairs)), "eigenpairs, the lowest first"))
    if options.overlaps:
        width = tuple(range(options.overlaps))
        about = f"padded by NaN{_LATER}"
        variables += [
            Variable(
                "overlap_students",
                f"overlaps w_k.w_l/N of the students, {about}",
                valid_range=_COSINE,
                dims=("time", "student", "other_student"),
            ),
            Variable(
                "overlap_teachers",
                f"overlaps w_k.w*_l/N of students and teachers, {about}",
                valid_range=_COSINE,
                dims=("time", "student", "teacher"),
            ),
        ]
        dimensions += [
            Dimension("student", width, "student"),
            Dimension("other_student", width, "student"),
            Dimension("teacher", width, "teacher"),
        ]
    return Kernel(
        name="descent",
        version=1,
        variables=(*variables, *_OF_CELL),
        compute=partial(compute, options=options),
        seconds=partial(_seconds, options=options),
        peak_bytes=partial(_peak_bytes, options=options),
        axes=AXES,
        references=REFERENCES,
        check=partial(_check, options=options),
        dimensions=tuple(dimensions),
        options=Options,
        configure=configured,
    )


KERNEL = configured(DEFAULTS)
