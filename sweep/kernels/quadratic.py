"""What the kernels of the two-layer quadratic network share: its axes, its thresholds and its theory."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bendscape.core.errors import ParameterError, unwarned
from bendscape.core.quadratic.model import EDGE_KINDS, TRANSITION_KINDS, Model
from bendscape.core.quadratic.theory.outlier import alpha_0, asymptotics, transition
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


def _models(p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any]) -> list[Model]:
    return [Model(*point) for point in zip(p.tolist(), p_star.tolist(), a.tolist(), strict=True)]


def alpha_bbp(p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any]) -> NDArray[np.float64]:
    """The threshold alpha_bbp of each model."""
    with unwarned():
        return np.array([transition(model).alpha_bbp for model in _models(p, p_star, a)])


def alpha_0_complex(p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any]) -> NDArray[np.float64]:
    """alpha_0 of each model by its complex definition, its real part."""
    with unwarned():
        return np.array([alpha_0(model).complex_re for model in _models(p, p_star, a)])


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
    found = [transition(model) for model in _models(p, p_star, a)]
    return {
        "alpha_bbp": np.array([at.alpha_bbp for at in found]),
        "alpha_sharp": np.array([at.alpha_sharp for at in found]),
        "transition": np.array([TRANSITION_KINDS.index(at.kind) for at in found], dtype=np.int8),
    }


def _of_points(
    p: NDArray[Any], p_star: NDArray[Any], a: NDArray[Any], alpha: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    loads = zip(_models(p, p_star, a), alpha.tolist(), strict=True)
    found = [asymptotics(model, load) for model, load in loads]
    return {
        "edge": np.array([EDGE_KINDS.index(at.edge) for at in found], dtype=np.int8),
        "lambda_minus": np.array([at.lambda_minus for at in found]),
        "lambda_star": np.array([at.lambda_star for at in found]),
        "overlap_sq_theory": np.array([at.overlap_sq for at in found]),
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
