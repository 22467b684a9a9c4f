"""The `theory` kernel: what is expected at each cell's own N, beside the N = infinity theory of the root.

Nothing is drawn: every seed of a point gets the same numbers, so one seed is enough.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size, crossover_size
from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import alpha_0, transition
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable
from bendscape.sweep.kernels.quadratic import NETWORK, Cell

VARIABLES = (
    Variable("alpha_bbp_at_size", "threshold that samples of dimension N are expected to show"),
    Variable("crossover_size", "dimension up to which that threshold is alpha_0; inf where continuous"),
    Variable("alpha_0_principal_value", "alpha_0 on the principal-value branch; NaN where that has no zero"),
    Variable("alpha_0_tangent", "alpha_0 by the tangent to the squared overlap at alpha_bbp"),
    Variable("alpha_0_complex_re", "alpha_0 at the complex zero of the continued branch, real part"),
    Variable("alpha_0_complex_im", "alpha_0 at the complex zero of the continued branch, imaginary part"),
    Variable("overlap_sq_jump", "squared overlap just above alpha_bbp; 0 where continuous"),
    Variable("eigval_min_law", "mean of the lowest eigenvalue expected at this N; NaN where no law holds"),
    Variable("eigval_min_sd_law", "standard deviation of the lowest eigenvalue expected at this N"),
    Variable("overlap_sq_space_law", "mean of the squared overlap of the lowest p p_star eigenvectors"),
)


@lru_cache(maxsize=1024)
def _of_model(model: Model) -> dict[str, float]:
    bound = alpha_0(model)
    return {
        "crossover_size": crossover_size(model),
        "alpha_0_principal_value": bound.principal_value,
        "alpha_0_tangent": bound.tangent,
        "alpha_0_complex_re": bound.complex_re,
        "alpha_0_complex_im": bound.complex_im,
        "overlap_sq_jump": transition(model).overlap_sq,
    }


@lru_cache(maxsize=4096)
def _at_size(model: Model, N: int) -> float:
    return alpha_bbp_at_size(model, N)


@lru_cache(maxsize=4096)
def _laws(model: Model, alpha: float, N: int) -> dict[str, float]:
    law = lowest_eigenvalue_law(model, alpha, N)
    return {
        "eigval_min_law": law.mean,
        "eigval_min_sd_law": law.sd,
        "overlap_sq_space_law": mean_overlap_sq(model, alpha, N),
    }


def compute(cell: Cell, rng: np.random.Generator) -> Outcome:
    """The theory at the cell's point; its random stream is not touched."""
    model = Model(cell.p, cell.p_star, cell.a)
    at_size = {"alpha_bbp_at_size": _at_size(model, cell.N)}
    return Outcome(at_size | _of_model(model) | _laws(model, cell.alpha, cell.N))


KERNEL = Kernel(
    name="theory",
    version=4,
    variables=VARIABLES,
    compute=compute,
    seconds=lambda cell: 0.2,  # of the first cell of a point; the others of a tile cost nothing
    peak_bytes=lambda cell: 1e6,
    **NETWORK,
)
