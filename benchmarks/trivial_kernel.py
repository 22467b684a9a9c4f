"""A kernel that costs nothing: all the time of its campaign is the engine's."""

import numpy as np

from bendscape.sweep.campaign.axes import Cell
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable


def compute(cell: Cell, rng: np.random.Generator) -> Outcome:
    """One random number."""
    return Outcome({"x": rng.random()})


KERNEL = Kernel(
    name="trivial",
    version=1,
    variables=(Variable("x", "a uniform random number"),),
    compute=compute,
    seconds=lambda cell: 2e-5,
    peak_bytes=lambda cell: 1e6,
)
