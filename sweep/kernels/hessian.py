"""The `hessian` kernel: extreme eigenpairs of one random Hessian, and the theory of its own labels."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np

from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.sampling.cost import MAX_BYTES, cost_bytes, cost_seconds, resolve_method
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.sweep.campaign.kernel import FINITE, Kernel, Outcome, Variable
from bendscape.sweep.kernels.quadratic import NETWORK, Cell

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


def compute(cell: Cell, rng: np.random.Generator) -> Outcome:
    """Draw the cell's instance and diagonalise its lower end.

    The method is one that fits `MAX_BYTES`, whatever this machine has, so that bits are the same everywhere;
    where none fits it is the smallest, and what that needs is for the plan to refuse (`--max-memory`).
    """
    model = Model(cell.p, cell.p_star, cell.a)
    method = resolve_method(model, cell.alpha, cell.N, "auto")
    allowed = max(MAX_BYTES, _peak_bytes(cell))
    observed = asdict(observe(model, cell.alpha, cell.N, rng, method, max_bytes=allowed))
    return Outcome(
        values={variable.name: observed[variable.name] for variable in VARIABLES},
        converged=observed["converged"],
    )


def _peak_bytes(cell: Cell) -> float:
    return 1.5 * cost_bytes(Model(cell.p, cell.p_star, cell.a), cell.alpha, cell.N)


KERNEL = Kernel(
    name="hessian",
    version=3,
    variables=VARIABLES,
    compute=compute,
    seconds=lambda cell: cost_seconds(Model(cell.p, cell.p_star, cell.a), cell.alpha, cell.N),
    peak_bytes=_peak_bytes,
    **NETWORK,
)
