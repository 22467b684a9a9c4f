"""The `hessian` kernel: extreme eigenpairs of one random Hessian, and the theory of its own labels."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from bendscape.core.quadratic.sampling.cost import MAX_BYTES, cost_bytes, cost_seconds, resolve_method
from bendscape.core.quadratic.sampling.observe import LEAST_TOLERANCE, MOST_TOLERANCE, observe
from bendscape.sweep.campaign.kernel import FINITE, Kernel, Outcome, Variable
from bendscape.sweep.kernels.options import KernelOptions
from bendscape.sweep.kernels.quadratic import NETWORK, NoisyCell, model_of

SQUARE = (0.0, 1.0)
"""Range of a squared overlap."""
POSITIVE = (0.0, FINITE[1])

VARIABLES = (
    Variable("eigval_min", "lowest eigenvalue of the Hessian", valid_range=FINITE),
    Variable("eigval_second", "second lowest eigenvalue of the Hessian", valid_range=FINITE),
    Variable(
        "overlap_sq", "squared overlap of the lowest eigenvector with the teacher span", valid_range=SQUARE
    ),
    Variable(
        "overlap_sq_space",
        "mean squared overlap of the lowest p p_star eigenvectors with the teacher span",
        valid_range=SQUARE,
    ),
    Variable(
        "edge_sample", "left edge of the bulk, conditional on the cell's own labels", valid_range=FINITE
    ),
    Variable(
        "outlier_sample",
        "outlier, conditional on the cell's own labels; NaN where there is none",
        valid_range=FINITE,
    ),
    Variable(
        "overlap_sq_sample",
        "squared overlap of the outlier, conditional on the cell's own labels",
        valid_range=SQUARE,
    ),
    Variable("alpha_realised", "number of samples over N", valid_range=POSITIVE),
    Variable("n_matvecs", "products of the Hessian with a vector", dtype="int64", valid_range=(0, math.inf)),
    Variable("residual", "largest residual norm of the two lowest eigenpairs", valid_range=POSITIVE),
)


Inputs = Annotated[Literal["gaussian", "rademacher"], Field(description="law of the data")]
Tolerance = Annotated[
    float | None,
    Field(
        ge=LEAST_TOLERANCE,
        le=MOST_TOLERANCE,
        description="sine of the angle to the exact lowest eigenvectors at which explicit and dice stop; by "
        "default 1e-6 and 1e-3",
    ),
]
MethodBytes = Annotated[float, Field(gt=0, description="memory that auto chooses a method by")]
"""Options of every kernel that samples Hessians."""


class Options(KernelOptions):
    """The settings that are constant in a campaign of Hessians and decide its bits."""

    method: Literal["auto", "dense", "explicit", "dice", "dice_wide", "dice_compact", "conditional"] = Field(
        default="auto",
        description="how eigenpairs are found; auto takes the fastest that fits max_bytes, of all but "
        "dice_wide, for wide students, dice_compact, for the largest sizes, and conditional",
    )
    inputs: Inputs = "gaussian"
    precision: Literal["float64", "float32"] | None = Field(
        default=None,
        description="of the data (explicit) or the long vectors (dice); by default, the method's",
    )
    tolerance: Tolerance = None
    max_bytes: MethodBytes = MAX_BYTES


DEFAULTS = Options()


def compute(cell: NoisyCell, rng: np.random.Generator, options: Options = DEFAULTS) -> Outcome:
    """Draw the cell's instance and compute its lowest eigenpairs.

    The method is the fastest that fits `max_bytes`, whatever memory this machine has, so that bits are the
    same everywhere. If none fits, it is the one that needs least, and the plan refuses it (`--max-memory`).
    """
    model = model_of(cell)
    allowed = max(options.max_bytes, _peak_bytes(cell, options))
    observed = asdict(
        observe(
            model,
            cell.alpha,
            cell.N,
            rng,
            _method(cell, options),
            inputs=options.inputs,
            precision=options.precision,
            max_bytes=allowed,
            tolerance=options.tolerance,
        )
    )
    return Outcome(
        values={variable.name: observed[variable.name] for variable in VARIABLES},
        converged=observed["converged"],
    )


def _method(cell: NoisyCell, options: Options) -> str:
    model = model_of(cell)
    asked = options.method, options.max_bytes, options.inputs
    return resolve_method(model, cell.alpha, cell.N, asked[0], max_bytes=asked[1], inputs=asked[2])


def _seconds(cell: NoisyCell, options: Options = DEFAULTS) -> float:
    model, method = model_of(cell), _method(cell, options)
    return cost_seconds(model, cell.alpha, cell.N, method, tolerance=options.tolerance)


def _peak_bytes(cell: NoisyCell, options: Options = DEFAULTS) -> float:
    model, method = model_of(cell), _method(cell, options)
    precision, tolerance = options.precision, options.tolerance
    return 1.5 * cost_bytes(model, cell.alpha, cell.N, method, precision=precision, tolerance=tolerance)


def configured(options: Options) -> Kernel:
    """The kernel with the given options."""
    return Kernel(
        name="hessian",
        version=3,
        variables=VARIABLES,
        compute=partial(compute, options=options),
        seconds=partial(_seconds, options=options),
        peak_bytes=partial(_peak_bytes, options=options),
        options=Options,
        configure=configured,
        **NETWORK,
    )


KERNEL = configured(DEFAULTS)
