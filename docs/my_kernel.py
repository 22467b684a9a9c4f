"""The index of the Hessian: its share of negative eigenvalues, for Gaussian data and for signs."""

import numpy as np
from scipy.linalg import eigvalsh

from bendscape.core import Model, dense_hessian, sample_instance
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable
from bendscape.sweep.kernels.quadratic import Cell


def index(cell: Cell, rng: np.random.Generator, inputs: str) -> float:
    instance = sample_instance(Model(cell.p, cell.p_star, cell.a), cell.alpha, cell.N, rng, inputs=inputs)
    return float((eigvalsh(dense_hessian(instance)) < 0).mean())


def compute(cell: Cell, rng: np.random.Generator) -> Outcome:
    return Outcome({"index": index(cell, rng, "gaussian"), "index_signs": index(cell, rng, "rademacher")})


KERNEL = Kernel(
    name="index",
    version=1,
    variables=(
        Variable("index", "share of negative eigenvalues"),
        Variable("index_signs", "the same for data of random signs"),
    ),
    compute=compute,
    seconds=lambda cell: 2e-3 + 1.5e-10 * (cell.p * cell.N) ** 2 * (cell.p + cell.alpha) * cell.N,
    peak_bytes=lambda cell: 24.0 * (cell.p * cell.N) ** 2 * (1 + cell.alpha),
)
