"""The `activations` kernel: extreme eigenpairs of one random Hessian for any activations of student and
teacher, and the theory of both sectors of outliers."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bendscape.core.activations.activation import ACTIVATIONS, Network
from bendscape.core.activations.published import TRANSITION_KINDS, Thresholds, outliers_of, thresholds_of
from bendscape.core.activations.sampling import bytes_of, method_for, observe, seconds_of
from bendscape.core.activations.weight import least_weight
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import EDGE_KINDS
from bendscape.core.quadratic.sampling.cost import MAX_BYTES
from bendscape.sweep.campaign.axes import Axes, Axis
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import FINITE, Kernel, Outcome, Reference, Variable
from bendscape.sweep.kernels.hessian import SQUARE, Inputs, MethodBytes, Tolerance
from bendscape.sweep.kernels.hessian import VARIABLES as OF_HESSIAN
from bendscape.sweep.kernels.options import KernelOptions
from bendscape.sweep.kernels.quadratic import AXES as OF_NETWORK
from bendscape.sweep.kernels.quadratic import check_samples

Floats = NDArray[np.float64]


class Cell(Protocol):
    """A cell of this kernel."""

    p: int
    p_star: int
    a: float
    activation: str
    teacher_activation: str
    alpha: float
    N: int
    seed: int


class Options(KernelOptions):
    """The settings that are constant in a campaign and decide its bits."""

    method: Literal["auto", "dense", "explicit", "dice", "dice_wide", "dice_compact"] = Field(
        default="auto", description="how eigenpairs are found; auto takes the fastest that fits max_bytes"
    )
    inputs: Inputs = "gaussian"
    tolerance: Tolerance = None
    max_bytes: MethodBytes = MAX_BYTES


DEFAULTS = Options()

_SAME = {variable.name: variable for variable in OF_HESSIAN}
_SECTOR = (
    "mean squared overlap of the lowest p p_star eigenvectors with the teacher, {} among the hidden units"
)

VARIABLES = (
    *(_SAME[name] for name in ("eigval_min", "eigval_second", "overlap_sq", "overlap_sq_space")),
    Variable(
        "overlap_sq_space_symmetric", f"{_SECTOR.format('symmetric')}; NaN at p = 1", valid_range=SQUARE
    ),
    Variable(
        "overlap_sq_space_relative",
        f"{_SECTOR.format('orthogonal to that')}; NaN at p = 1",
        valid_range=SQUARE,
    ),
    Variable(
        "edge_sample",
        "left edge of the bulk, conditional on the cell's own samples; NaN without that theory",
        valid_range=FINITE,
    ),
    Variable(
        "outlier_sample",
        "outlier, conditional on the cell's own samples; NaN where there is none",
        valid_range=FINITE,
    ),
    Variable(
        "overlap_sq_sample",
        "squared overlap of the outlier, conditional on the cell's own samples",
        valid_range=SQUARE,
    ),
    *(_SAME[name] for name in ("alpha_realised", "n_matvecs", "residual")),
)


def network_of(cell: Cell) -> Network:
    """The network of a cell."""
    return Network(cell.p, cell.p_star, cell.a, cell.activation, cell.teacher_activation)


def _networks(*model: NDArray[Any]) -> list[Network | None]:
    """The networks of points; None where a campaign leaves out a point that has none."""
    return [_network(*(of.item() for of in row)) for row in zip(*model, strict=True)]


def _network(*model: Any) -> Network | None:
    try:
        network = Network(*model)
        least_weight(network)
    except ParameterError:
        return None
    return network


def alpha_bbp(
    p: NDArray[Any],
    p_star: NDArray[Any],
    a: NDArray[Any],
    activation: NDArray[Any],
    teacher_activation: NDArray[Any],
) -> Floats:
    """The lower threshold of each network; NaN where there is none or no theory."""
    return np.asarray(_of_models(p, p_star, a, activation, teacher_activation)["alpha_bbp"])


_NAMES = tuple(ACTIVATIONS)
AXES = Axes(
    (
        *(OF_NETWORK[name] for name in ("p", "p_star", "a")),
        Axis("activation", "str", long_name="activation of the student", choices=_NAMES, default="quadratic"),
        Axis(
            "teacher_activation",
            "str",
            long_name="activation of the teacher",
            choices=_NAMES,
            default="quadratic",
        ),
        Axis(
            "alpha",
            "float64",
            "curve",
            "samples per dimension, M / N",
            least=0,
            above=True,
            relative_to={"alpha_bbp": alpha_bbp},
        ),
        *(OF_NETWORK[name] for name in ("N", "seed")),
    )
)
_OVER = ("p", "p_star", "a", "activation", "teacher_activation")


def _of_models(
    p: NDArray[Any],
    p_star: NDArray[Any],
    a: NDArray[Any],
    activation: NDArray[Any],
    teacher_activation: NDArray[Any],
) -> dict[str, NDArray[Any]]:
    found = [thresholds_of(network) for network in _networks(p, p_star, a, activation, teacher_activation)]
    columns = {name: np.array([getattr(each, name) for each in found]) for name in Thresholds._fields[:-1]}
    return columns | {"transition": np.array([TRANSITION_KINDS.index(each.transition) for each in found])}


def _of_points(
    p: NDArray[Any],
    p_star: NDArray[Any],
    a: NDArray[Any],
    activation: NDArray[Any],
    teacher_activation: NDArray[Any],
    alpha: NDArray[Any],
) -> dict[str, NDArray[Any]]:
    networks = _networks(p, p_star, a, activation, teacher_activation)
    found = [outliers_of(network, float(load)) for network, load in zip(networks, alpha, strict=True)]
    names = {
        "lambda_minus": "lambda_minus",
        "lambda_star": "lambda_star",
        "overlap_sq_theory": "overlap_sq",
        "lambda_star_symmetric": "lambda_star_symmetric",
        "lambda_star_relative": "lambda_star_relative",
        "overlap_sq_theory_symmetric": "overlap_sq_symmetric",
        "overlap_sq_theory_relative": "overlap_sq_relative",
        "theory_error": "error",
    }
    columns = {name: np.array([getattr(each, of) for each in found]) for name, of in names.items()}
    return columns | {"edge": np.array([EDGE_KINDS.index(each.edge) for each in found])}


_NONE = "NaN where there is none or no theory"


def _references() -> tuple[Reference, ...]:
    sectors = [
        Variable(f"{name}_{sector}", f"{words} in the {sector} sector as N goes to infinity; {_NONE}")
        for name, words in (
            ("lambda_star", "the teacher's outlier"),
            ("overlap_sq_theory", "squared overlap of the outlier"),
        )
        for sector in ("symmetric", "relative")
    ]
    return (
        Reference(
            (
                Variable("alpha_bbp", f"lower threshold of both sectors as N goes to infinity; {_NONE}"),
                Variable("alpha_bbp_error", "error of quadrature of alpha_bbp"),
                Variable("alpha_bbp_symmetric", f"threshold of the symmetric sector; {_NONE}"),
                Variable("alpha_bbp_relative", f"threshold of the relative sector; {_NONE}"),
                Variable("alpha_0_tangent", "alpha_0 by the tangent to the squared overlap at alpha_bbp"),
                Variable("transition", "kind of the transition at alpha_bbp", "int8", flags=TRANSITION_KINDS),
            ),
            _OVER,
            _of_models,
        ),
        Reference(
            (
                Variable("edge", "kind of the left edge of the bulk", "int8", flags=EDGE_KINDS),
                Variable("lambda_minus", "left edge of the bulk as N goes to infinity; NaN without theory"),
                Variable("lambda_star", f"the lower outlier as N goes to infinity; {_NONE}"),
                Variable("overlap_sq_theory", f"squared overlap of that outlier; {_NONE}"),
                *sectors,
                Variable("theory_error", "largest error of quadrature of these numbers"),
            ),
            (*_OVER, "alpha"),
            _of_points,
        ),
    )


def check(grid: Grid) -> None:
    """Refuse networks whose spectrum has no left edge below zero, and points with less than one sample."""
    check_samples(grid)
    points = {name: array[..., np.newaxis] for name, array in grid.models.items()}
    wanted = np.zeros(grid.shape, dtype=bool)
    for size in grid.sizes:
        wanted |= grid.wanted(size)
    models = [np.broadcast_to(points[name], wanted.shape)[wanted].tolist() for name in _OVER]
    for model in dict.fromkeys(zip(*models, strict=True)):
        try:
            least_weight(Network(*model))
        except ParameterError as error:
            at = ", ".join(f"{name} = {value}" for name, value in zip(_OVER, model, strict=True))
            raise ParameterError(
                f"grid.{error.parameter}", error.value, error.accepted, f"{error.remedy or 'here'}, at {at}"
            ) from None


def compute(cell: Cell, rng: np.random.Generator, options: Options = DEFAULTS) -> Outcome:
    """Draw the cell's instance and compute its lowest eigenpairs."""
    observed = observe(
        network_of(cell),
        cell.alpha,
        cell.N,
        rng,
        _method(cell, options),
        inputs=options.inputs,
        tolerance=options.tolerance,
    )
    return Outcome(
        values={variable.name: getattr(observed, variable.name) for variable in VARIABLES},
        converged=observed.converged,
    )


def _method(cell: Cell, options: Options) -> str:
    return method_for(
        network_of(cell),
        cell.alpha,
        cell.N,
        options.method,
        max_bytes=options.max_bytes,
        inputs=options.inputs,
    )


def _seconds(cell: Cell, options: Options = DEFAULTS) -> float:
    method = _method(cell, options)
    return seconds_of(network_of(cell), cell.alpha, cell.N, method, options.tolerance)


def _peak_bytes(cell: Cell, options: Options = DEFAULTS) -> float:
    method = _method(cell, options)
    return 1.5 * bytes_of(network_of(cell), cell.alpha, cell.N, method, options.tolerance)


def configured(options: Options) -> Kernel:
    """The kernel with the given options."""
    return Kernel(
        name="activations",
        version=1,
        variables=VARIABLES,
        compute=partial(compute, options=options),
        seconds=partial(_seconds, options=options),
        peak_bytes=partial(_peak_bytes, options=options),
        axes=AXES,
        references=_references(),
        options=Options,
        configure=configured,
        check=check,
    )


KERNEL = configured(DEFAULTS)
