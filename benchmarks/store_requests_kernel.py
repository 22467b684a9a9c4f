"""The variables of the kernel `hessian` with random numbers in them: to count requests, not for physics."""

from dataclasses import replace

import numpy as np

from bendscape.sweep.campaign.axes import Cell
from bendscape.sweep.campaign.kernel import Outcome
from bendscape.sweep.kernels.hessian import KERNEL as HESSIAN


def compute(cell: Cell, rng: np.random.Generator) -> Outcome:
    """A number for every variable, as hard to compress as a measured one."""
    numbers = rng.random(len(HESSIAN.variables)).tolist()
    values = {v.name: number for v, number in zip(HESSIAN.variables, numbers, strict=True)}
    return Outcome({**values, "n_matvecs": int(1000 * values["n_matvecs"])})


KERNEL = replace(
    HESSIAN, name="requests", version=1, compute=compute, seconds=lambda cell: 0.02,
    peak_bytes=lambda cell: 1e6, options=None, configure=None, settings={},
)  # fmt: skip
