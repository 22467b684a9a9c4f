"""The `spectral` kernel: the label-only spectral method on one sample, with two choices of weights.

Both weights see the same inputs and labels. The width p of the student plays no part, so one value of p is
enough (a second only draws new samples). For the optimal weights, neither does a.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np

from bendscape.core.quadratic.model import sample_count
from bendscape.core.quadratic.sampling.label_only import sample_spectral
from bendscape.core.quadratic.theory.label_weights import SpectralWeights
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable
from bendscape.sweep.kernels import hessian as hessian_kernel
from bendscape.sweep.kernels.quadratic import NOISELESS, Cell

WEIGHTS: dict[str, tuple[str, Callable[[float], SpectralWeights]]] = {
    "hessian_limit": ("weights of the infinitely wide Hessian", SpectralWeights.hessian_limit),
    "optimal": ("optimal weights", lambda a: SpectralWeights.optimal()),
}
"""By the suffix of the variables: the weights in words, and as a function of a."""

_MEASURED = {
    "eigval_min": "lowest eigenvalue of the label-only matrix",
    "eigval_second": "second lowest eigenvalue of the label-only matrix",
    "overlap_sq": "squared overlap of its lowest eigenvector with the teacher span",
    "overlap_sq_space": "mean squared overlap of its lowest p_star eigenvectors with the teacher span",
}

RANGES = {variable.name: variable.valid_range for variable in hessian_kernel.VARIABLES}
"""Names of the same quantities of a Hessian."""

# Seconds on one core with one BLAS thread, fitted over N = 128 .. 2048 and alpha = 1, 4.
_SECONDS_FIXED = 4e-4
_SECONDS_NORMAL = 1.0e-8  # per Gaussian number
_SECONDS_GRAM = 5.5e-11  # per multiplication in the N x N matrix
_SECONDS_EIGH = 5.0e-11  # times N^3, tridiagonal reduction
_SECONDS_EIGH_FIXED = 1.0e-8  # times N^2, tridiagonal reduction

VARIABLES = (
    *(
        Variable(f"{name}_{suffix}", f"{long_name}, {words}", valid_range=RANGES[name])
        for suffix, (words, _) in WEIGHTS.items()
        for name, long_name in _MEASURED.items()
    ),
    *(variable for variable in hessian_kernel.VARIABLES if variable.name == "alpha_realised"),
)


def compute(cell: Cell, rng: np.random.Generator) -> Outcome:
    """Draw the cell's instance once for each choice of weights, from the same state of its stream."""
    values: dict[str, float] = {}
    for suffix, (_, weights_of) in WEIGHTS.items():
        sample = sample_spectral(cell.p_star, weights_of(cell.a), cell.alpha, cell.N, copy.deepcopy(rng))
        values |= {f"{name}_{suffix}": getattr(sample, name) for name in _MEASURED}
        values["alpha_realised"] = sample.alpha_realised
    return Outcome(values)


def seconds(cell: Cell) -> float:
    """Seconds on one core, both weights; accurate to a factor of 2 on an idle core."""
    M, N = sample_count(cell.alpha, cell.N), cell.N
    matrix = _SECONDS_NORMAL * M * N + _SECONDS_GRAM * M * N**2
    return len(WEIGHTS) * (_SECONDS_FIXED + matrix + _SECONDS_EIGH * N**3 + _SECONDS_EIGH_FIXED * N**2)


def peak_bytes(cell: Cell) -> float:
    """Peak memory in bytes: the data and either their weighted copy or a second N x N matrix."""
    M, N = sample_count(cell.alpha, cell.N), cell.N
    small = 60.0 * N + (M + 4.0 * N) * (cell.p_star + 2)
    return 8.0 * (M * N + N**2 + max(M * N, N**2) + small) + 2e4


KERNEL = Kernel(
    name="spectral",
    version=1,
    variables=VARIABLES,
    compute=compute,
    seconds=seconds,
    peak_bytes=peak_bytes,
    **NOISELESS,
)
