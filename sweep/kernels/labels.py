"""The `labels` kernel: the labels of one sample and the theory conditional on them, without a Hessian.

O(M) in time, so cells reach sizes of 1e7 and 1e8, out of reach of any matrix: large enough to see the
threshold of a discontinuous transition drift with N.
"""

from __future__ import annotations

import numpy as np

from bendscape.core.quadratic.model import sample_count
from bendscape.core.quadratic.sampling.cost import cost_bytes
from bendscape.core.quadratic.sampling.drawn_labels import sample_drawn_labels
from bendscape.sweep.campaign.kernel import Kernel, Outcome
from bendscape.sweep.kernels import hessian as hessian_kernel
from bendscape.sweep.kernels.quadratic import NETWORK, NoisyCell, model_of

KEPT_SAMPLES = 2**24
"""Cells with at most this many samples keep their labels, in 256 MiB; larger ones draw them for every sum."""

# Seconds on one core with one BLAS thread, measured over N = 1e4 .. 1e7 and p = 1, 2, 8.
_SECONDS_FIXED = 5e-4
_SECONDS_NORMAL = 1.1e-8  # per Gaussian number
_SECONDS_SUMS = 8e-8  # per sample and kind of direction, all sums together
_PASSES = 20.0  # sums over the labels: Newton steps for edge and outlier

_NAMES = ("edge_sample", "outlier_sample", "overlap_sq_sample", "alpha_realised")
VARIABLES = tuple(variable for variable in hessian_kernel.VARIABLES if variable.name in _NAMES)


def compute(cell: NoisyCell, rng: np.random.Generator) -> Outcome:
    """Draw the cell's labels and solve for their edge and outlier."""
    found = sample_drawn_labels(model_of(cell), cell.alpha, cell.N, rng, kept=KEPT_SAMPLES)
    return Outcome({**found._asdict(), "alpha_realised": sample_count(cell.alpha, cell.N) / cell.N})


def seconds(cell: NoisyCell) -> float:
    """Seconds on one core; accurate to a factor of 2 on an idle core."""
    M, kinds = sample_count(cell.alpha, cell.N), min(cell.p, 2)
    draws = 1.0 if M <= KEPT_SAMPLES else _PASSES
    return _SECONDS_FIXED + M * (draws * (cell.p + cell.p_star) * _SECONDS_NORMAL + kinds * _SECONDS_SUMS)


def peak_bytes(cell: NoisyCell) -> float:
    """Peak memory in bytes: one block of fields, and the labels where they are kept."""
    M = sample_count(cell.alpha, cell.N)
    block = cost_bytes(model_of(cell), cell.alpha, cell.N, "conditional")
    return 1.25 * block + (16.0 * M if M <= KEPT_SAMPLES else 0.0)


KERNEL = Kernel(
    name="labels",
    version=1,
    variables=VARIABLES,
    compute=compute,
    seconds=seconds,
    peak_bytes=peak_bytes,
    **NETWORK,
)
