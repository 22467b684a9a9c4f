"""The `perceptron` kernel: norm of the weights and generalisation error along training, beside the rule of
the same norm."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bendscape.core.errors import ParameterError
from bendscape.core.perceptron.fixed_norm import FixedNorm, minimise
from bendscape.core.perceptron.model import Sample, draw, generalisation_error, norm_of
from bendscape.core.perceptron.theory import hebb, largest_stability
from bendscape.core.perceptron.training import TOLERANCE, gradient_descent, gradient_flow
from bendscape.sweep.campaign.axes import Axes, Axis
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import FINITE, Dimension, Kernel, Outcome, Reference, Variable
from bendscape.sweep.kernels.options import INCREASING, MOST_VALUES, PathOptions

TIMES = tuple(10.0 ** (k / 2) for k in range(-4, 13))
POSITIVE, ERROR = (0.0, FINITE[1]), (0.0, 1.0)

Time = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Cell(Protocol):
    """A cell of this kernel."""

    alpha: float
    N: int
    seed: int


class Options(PathOptions):
    """The settings that are constant in a campaign and decide its bits."""

    times: Annotated[tuple[Time, ...], INCREASING] = Field(
        default=TIMES, min_length=1, max_length=MOST_VALUES, description="recorded times, increasing"
    )
    method: Literal["flow", "gradient_descent"] = Field(
        default="flow", description="gradient flow, or steps of one learning rate"
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        validate_default=True,
        description="of gradient_descent, which needs it; stable below 8/(1 + sqrt(alpha))^2",
    )
    tolerance: float = Field(
        default=TOLERANCE,
        ge=1e-8,
        le=1e-2,
        description="relative error of one step of the flow",
    )


DEFAULTS = Options()

VARIABLES = (
    Variable("norm", "norm of the weights over sqrt(N)", valid_range=POSITIVE, dims=("time",)),
    Variable("loss", "logistic loss per input", valid_range=POSITIVE, dims=("time",)),
    Variable("training_error", "share of wrong labels in the sample", valid_range=ERROR, dims=("time",)),
    Variable(
        "generalisation_error", "share of wrong labels of new inputs", valid_range=ERROR, dims=("time",)
    ),
    Variable(
        "fixed_norm_error",
        "generalisation error of the smallest loss at this norm, same sample; NaN where not converged",
        valid_range=ERROR,
        dims=("time",),
    ),
    Variable(
        "fixed_norm_overlap",
        "cosine of the angle between the trained weights and those of the smallest loss at their norm",
        valid_range=(-1.0, 1.0),
        dims=("time",),
    ),
    Variable("evaluations", "passes over the sample", "int64", valid_range=(1, math.inf)),
)

AXES = Axes(
    (
        Axis("alpha", "float64", "curve", "inputs per dimension, M / N", least=0, above=True),
        Axis("N", "int64", "size", "dimension of the input", least=2),
        Axis("seed", "int64", "seed", "realisation", least=0),
    )
)


def _rules(alpha: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    values = alpha.tolist()
    return {
        "error_hebb": np.array([hebb(value).generalisation_error for value in values]),
        "error_largest_stability": np.array(
            [largest_stability(value).generalisation_error for value in values]
        ),
    }


REFERENCES = (
    Reference(
        (
            Variable(
                "error_hebb", "generalisation error of Hebb's rule, the limit of small norms, N to infinity"
            ),
            Variable(
                "error_largest_stability",
                "generalisation error of largest stability, the limit of large norms, N to infinity",
            ),
        ),
        ("alpha",),
        _rules,
    ),
)


def compute(cell: Cell, rng: np.random.Generator, options: Options = DEFAULTS) -> Outcome:
    """Draw the cell's sample, train on it, and find the rule at each norm that training passes."""
    sample = draw(cell.alpha, cell.N, rng)
    values = {variable.name: np.full(len(options.times), np.nan) for variable in VARIABLES if variable.dims}
    rule: FixedNorm | None = None
    evaluations, converged = 1, True
    for i, now in enumerate(_training(sample, options)):
        norm, evaluations = norm_of(now.w), now.evaluations
        values["norm"][i], values["loss"][i] = norm, now.here.loss
        values["training_error"][i] = now.here.training_error
        values["generalisation_error"][i] = generalisation_error(now.w, sample.teacher)
        if norm > 0:
            rule = minimise(sample, norm, rule)
            converged = converged and rule.converged
            if rule.converged:
                values["fixed_norm_error"][i] = generalisation_error(rule.w, sample.teacher)
                cosine = float(rule.w @ now.w) / float(np.linalg.norm(rule.w) * np.linalg.norm(now.w))
                values["fixed_norm_overlap"][i] = min(1.0, cosine)
            else:
                rule = None
    return Outcome({**values, "evaluations": evaluations}, converged=converged)


def _training(sample: Sample, options: Options) -> Any:
    if options.learning_rate is None:
        return gradient_flow(sample, options.times, tolerance=options.tolerance)
    return gradient_descent(sample, options.times, learning_rate=options.learning_rate)


def _seconds(cell: Cell, options: Options = DEFAULTS) -> float:
    """Seconds on one core, to a factor of 2."""
    M, N = cell.alpha * cell.N, cell.N
    if options.learning_rate is None:
        passes, factored = 700 * (TOLERANCE / options.tolerance) ** (1 / 3), 60.0
    else:
        passes, factored = options.times[-1] / options.learning_rate, 0.0
    factored += 10.0 * len(options.times)
    return float(0.01 + passes * (1e-5 + 8e-10 * M * N) + factored * (1e-4 + 4.5e-11 * M * N**2))


def _peak_bytes(cell: Cell, options: Options = DEFAULTS) -> float:
    return 2e6 + 26.0 * (cell.alpha + 1) * cell.N**2


def check(grid: Grid) -> None:
    """Refuse points without an input, alpha N <= 1/2."""
    for size in grid.sizes:
        alpha = grid.curve_values[grid.wanted(size)]
        if alpha.size and size * float(alpha.min()) <= 0.5:
            least = f"alpha N > 1/2, so alpha > {0.5 / size:.6g} at N = {size}"
            raise ParameterError("grid.alpha", float(alpha.min()), least)


def configured(options: Options) -> Kernel:
    """The kernel with the given options."""
    return Kernel(
        name="perceptron",
        version=1,
        variables=VARIABLES,
        compute=partial(compute, options=options),
        seconds=partial(_seconds, options=options),
        peak_bytes=partial(_peak_bytes, options=options),
        axes=AXES,
        references=REFERENCES,
        dimensions=(Dimension("time", options.times, "time of the flow"),),
        options=Options,
        configure=configured,
        check=check,
    )


KERNEL = configured(DEFAULTS)
