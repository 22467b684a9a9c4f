"""What the kernels of the two-layer quadratic network share: its axes, its thresholds and its theory."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import EDGE_KINDS, TRANSITION_KINDS
from bendscape.core.quadratic.theory.maps import transitions_of_models
from bendscape.core.quadratic.theory.points import asymptotics_of_points
from bendscape.sweep.campaign.axes import Axes, Axis
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.kernel import Reference, Variable


class Cell(Protocol):
    """A cell of this network: `alpha` is absolute, `coordinate` what the campaign has for it."""

    p: int
    p_star: int
    a: float
    alpha: float
    N: int
    seed: int
    coordinate: float


def alpha_bbp(p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any]) -> NDArray[np.float64]:
    """The threshold alpha_bbp of each model."""
    found: NDArray[np.float64] = transitions_of_models(p, p_star, a)["alpha_bbp"]
    return found


def alpha_0_complex(p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any]) -> NDArray[np.float64]:
    """alpha_0 of each model by its complex definition, its real part."""
    found: NDArray[np.float64] = transitions_of_models(p, p_star, a, alpha_0=True)["alpha_0_complex_re"]
    return found


AXES = Axes(
    (
        Axis("p", "int64", long_name="width of the student", least=1),
        Axis("p_star", "int64", long_name="width of the teacher", least=1),
        Axis("a", "float64", long_name="constant of the loss", least=0, above=True),
        Axis(
            "alpha",
            "float64",
            "curve",
            "samples per dimension, M / N",
            least=0,
            above=True,
            relative_to={"alpha_bbp": alpha_bbp, "alpha_0": alpha_0_complex},
        ),
        Axis("N", "int64", "size", "dimension of the input", least=2),
        Axis("seed", "int64", "seed", "realisation", least=0),
    )
)


def _of_models(p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any]) -> dict[str, NDArray[Any]]:
    found = transitions_of_models(p, p_star, a)
    return {name: found[name] for name in ("alpha_bbp", "alpha_sharp", "transition")}


def _of_points(
    p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any], alpha: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    found = asymptotics_of_points(p, p_star, a, alpha)
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
        ("p", "p_star", "a"),
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
        ("p", "p_star", "a", "alpha"),
        _of_points,
    ),
)


def check_samples(grid: Grid) -> None:
    """Refuse points with fewer than one sample, alpha N < 1."""
    for size in grid.sizes:
        alpha = grid.curve_values[grid.wanted(size)]
        if alpha.size and size * float(alpha.min()) < 1:
            raise ParameterError(
                "grid.alpha",
                float(alpha.min()),
                f"alpha N >= 1, so alpha >= {1 / size:.6g} at N = {size}",
            )


NETWORK: dict[str, Any] = {"axes": AXES, "references": REFERENCES, "check": check_samples}
"""What a kernel of this network declares: ``Kernel(..., **NETWORK)``."""
