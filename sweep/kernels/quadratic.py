"""What the kernels of the two-layer quadratic network share: axes, thresholds and theory.

The theory is imported when it is first evaluated: kernels without axes of their own have these, and neither
their workers nor commands on their stores evaluate it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import EDGE_KINDS, TRANSITION_KINDS, Model
from bendscape.sweep.campaign.axes import Axes, Axis
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import Reference, Variable

Floats = NDArray[np.float64]
NONE = np.zeros(1)
"""Noise of a kernel without a noise axis."""
MOST_NOISE = 10.0
"""Largest label noise. Up to 10 the theory is as accurate as without noise, 1e-12 relative; at 100, 1e-8."""


class Cell(Protocol):
    """A cell of this network: `alpha` is absolute, `coordinate` is as the campaign gives it."""

    p: int
    p_star: int
    a: float
    alpha: float
    N: int
    seed: int
    coordinate: float


class NoisyCell(Cell, Protocol):
    """A cell of a kernel whose labels may carry noise."""

    noise: float


def model_of(cell: NoisyCell) -> Model:
    """The model of a cell, label noise included."""
    return Model(cell.p, cell.p_star, cell.a, cell.noise)


def alpha_bbp(p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any], noise: NDArray[Any] = NONE) -> Floats:
    """The threshold alpha_bbp of each model."""
    return np.asarray(_transitions(p, p_star, a, noise)["alpha_bbp"])


def alpha_0_complex_re(
    p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any], noise: NDArray[Any] = NONE
) -> Floats:
    """Real part of alpha_0 of each model, in its complex definition."""
    return np.asarray(_transitions(p, p_star, a, noise, alpha_0=True)["alpha_0_complex_re"])


def _transitions(*model: NDArray[Any], alpha_0: bool = False) -> dict[str, NDArray[Any]]:
    from bendscape.core.quadratic.theory.maps import transitions_of_models

    return transitions_of_models(*model, alpha_0=alpha_0)


AXES = Axes(
    (
        Axis("p", "int64", long_name="width of the student", least=1),
        Axis("p_star", "int64", long_name="width of the teacher", least=1),
        Axis("a", "float64", long_name="constant of the loss", least=0, above=True),
        Axis(
            "noise",
            "float64",
            long_name="variance of the noise on the teacher's pre-activations",
            least=0,
            most=MOST_NOISE,
            default=0.0,
        ),
        Axis(
            "alpha",
            "float64",
            "curve",
            "samples per dimension, M / N",
            least=0,
            above=True,
            relative_to={"alpha_bbp": alpha_bbp, "alpha_0": alpha_0_complex_re},
        ),
        Axis("N", "int64", "size", "dimension of the input", least=2),
        Axis("seed", "int64", "seed", "realisation", least=0),
    )
)


def _of_models(
    p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any], noise: NDArray[Any] = NONE
) -> dict[str, NDArray[Any]]:
    found = _transitions(p, p_star, a, noise)
    return {name: found[name] for name in ("alpha_bbp", "alpha_sharp", "transition")}


def _of_points(
    p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any], alpha: NDArray[Any], noise: NDArray[Any] = NONE
) -> dict[str, NDArray[Any]]:
    from bendscape.core.quadratic.theory.points import asymptotics_of_points

    found = asymptotics_of_points(p, p_star, a, alpha, noise)
    return {
        "edge": found.edge,
        "lambda_minus": found.lambda_minus,
        "lambda_star": found.lambda_star,
        "overlap_sq_theory": found.overlap_sq,
    }


REFERENCES = (
    Reference(
        (
            Variable("alpha_bbp", "threshold of the teacher's outlier as N goes to infinity", nan=False),
            Variable("alpha_sharp", "the left edge is smooth below this alpha and sharp above it", nan=False),
            Variable("transition", "kind of the transition at alpha_bbp", "int8", flags=TRANSITION_KINDS),
        ),
        ("p", "p_star", "a", "noise"),
        _of_models,
    ),
    Reference(
        (
            Variable("edge", "kind of the left edge of the bulk", "int8", flags=EDGE_KINDS),
            Variable("lambda_minus", "left edge of the bulk as N goes to infinity", nan=False),
            Variable("lambda_star", "the teacher's outlier as N goes to infinity; NaN where there is none"),
            Variable(
                "overlap_sq_theory",
                "squared overlap of the outlier as N goes to infinity; NaN where there is none",
            ),
        ),
        ("p", "p_star", "a", "noise", "alpha"),
        _of_points,
    ),
)


def check_samples(grid: Grid) -> None:
    """Refuse points with less than one sample, alpha N < 1."""
    for size in grid.sizes:
        alpha = grid.curve_values[grid.wanted(size)]
        if alpha.size and size * float(alpha.min()) < 1:
            raise ParameterError(
                "grid.alpha",
                float(alpha.min()),
                f"alpha N >= 1, so alpha >= {1 / size:.6g} at N = {size}",
            )


NETWORK: dict[str, Any] = {"axes": AXES, "references": REFERENCES, "check": check_samples}
"""Declarations for a kernel of this network with label noise: ``Kernel(..., **NETWORK)``."""

NOISELESS: dict[str, Any] = NETWORK | {
    "axes": AXES.required,
    "references": tuple(of.on(AXES.required) for of in REFERENCES),
}
"""The same for a kernel without label noise."""
