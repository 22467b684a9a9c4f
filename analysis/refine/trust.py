"""Whether an estimate can be trusted: tests of a fit, with the words that say what failed."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.counts import DONE
from bendscape.analysis.estimate.profiles import POOR
from bendscape.analysis.refine.design_model import Trust
from bendscape.sweep.campaign.kernel import STATUS

REFUTED = 1e-6
"""P-value below which a curve is given up; below ``POOR`` it is suspect."""

SIGNIFICANT, CERTAIN = 3.0, 4.5
"""Standard errors at which two estimates disagree, and certainly so."""

_ORDER = ("sound", "suspect", "refuted")


def judged(p_value: float, words: str) -> tuple[Trust, str]:
    """The verdict on a fit by its p-value; nan is sound."""
    if not p_value < POOR:
        return "sound", ""
    return (
        "refuted" if p_value < REFUTED else "suspect"
    ), f"the fit is poor ({words}, p-value {p_value:.1g})"


def compared(change: float, error: float, words: str) -> tuple[Trust, str]:
    """The verdict on two estimates that differ by ``change``, with its standard error; nan is sound."""
    ratio = abs(change) / error if error > 0 else math.nan
    if not ratio > SIGNIFICANT:
        return "sound", ""
    return ("refuted" if ratio > CERTAIN else "suspect"), f"{words} by {ratio:.1f} standard errors"


def worse(one: tuple[Trust, str], other: tuple[Trust, str]) -> tuple[Trust, str]:
    """The worse of two verdicts."""
    return max(one, other, key=lambda each: _ORDER.index(each[0]))


def halved(block: xr.Dataset, seed: str) -> tuple[xr.Dataset, xr.Dataset]:
    """The block with every other of the cells that are done, at every point along the dimension ``seed``."""
    status = block["status"]
    done = status.values == DONE
    # Parity along the seeds, one byte a cell: a cumulative sum would take eight.
    odd = np.logical_xor.accumulate(done, axis=status.get_axis_num(seed))
    halves = [np.where(kept, status.values, STATUS["absent"]) for kept in (odd, ~odd)]
    one, other = (block.assign(status=status.copy(data=half.astype(status.dtype))) for half in halves)
    return one, other
