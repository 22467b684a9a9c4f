"""The `theory` kernel: what is expected at each cell's own N, beside the N = infinity theory of the root.

Nothing is drawn: all seeds of a point get the same numbers, so one seed is enough.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size, crossover_size
from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import alpha_0, transition
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable
from bendscape.sweep.kernels.quadratic import NETWORK, NoisyCell, model_of

_LAWS = ("eigval_min_law", "eigval_min_sd_law", "overlap_sq_space_law")
_LAW = "NaN where no law holds, as with noise"

VARIABLES = (
    Variable("alpha_bbp_at_size", "threshold that samples of dimension N are expected to show"),
    Variable("crossover_size", "dimension up to which that threshold is alpha_0; inf where continuous"),
    Variable("alpha_0_principal_value", "alpha_0 on the principal-value branch; NaN where that has no zero"),
    Variable("alpha_0_tangent", "alpha_0 by the tangent to the squared overlap at alpha_bbp"),
    Variable("alpha_0_complex_re", "alpha_0 at the complex zero of the continued branch, real part"),
    Variable("alpha_0_complex_im", "alpha_0 at the complex zero of the continued branch, imaginary part"),
    Variable("overlap_sq_jump", "squared overlap just above alpha_bbp; 0 where continuous"),
    Variable("eigval_min_law", f"mean of the lowest eigenvalue expected at this N; {_LAW}"),
    Variable("eigval_min_sd_law", f"standard deviation of the lowest eigenvalue expected at this N; {_LAW}"),
    Variable(
        "overlap_sq_space_law", f"mean of the squared overlap of the lowest p p_star eigenvectors; {_LAW}"
    ),
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
        "overlap_sq_jump": transition(model).overlap_sq_jump,
    }


@lru_cache(maxsize=4096)
def _at_size(model: Model, N: int) -> float:
    return alpha_bbp_at_size(model, N)


@lru_cache(maxsize=4096)
def _laws(model: Model, alpha: float, N: int) -> dict[str, float]:
    if model.noise:
        return dict.fromkeys(_LAWS, math.nan)
    law = lowest_eigenvalue_law(model, alpha, N)
    return dict(zip(_LAWS, (law.mean, law.sd, mean_overlap_sq(model, alpha, N)), strict=True))


def compute(cell: NoisyCell, rng: np.random.Generator) -> Outcome:
    """The theory at the cell's point; the random stream is not used."""
    model = model_of(cell)
    at_size = {"alpha_bbp_at_size": _at_size(model, cell.N)}
    return Outcome(at_size | _of_model(model) | _laws(model, cell.alpha, cell.N))


KERNEL = Kernel(
    name="theory",
    version=5,
    variables=VARIABLES,
    compute=compute,
    seconds=lambda cell: 0.2,  # first cell of a point; the other cells of a tile cost nothing
    peak_bytes=lambda cell: 1e6,
    **NETWORK,
)
