"""Options shared by several estimates: defaults and accepted values."""

from __future__ import annotations

import xarray as xr

from bendscape.core.errors import ParameterError

USUAL_LEAST_SIZE = 256
"""At smaller sizes there are corrections that neither the collapse nor a law of the edge contains."""


def usual_least_size(ds: xr.Dataset) -> int:
    """Smallest size used in fits: 256, or the smallest size if fewer than two reach 256."""
    sizes = ds["N"].values
    return USUAL_LEAST_SIZE if (sizes >= USUAL_LEAST_SIZE).sum() > 1 else max(2, int(sizes.min()))


def check_level(level: float) -> None:
    """Refuse a level outside (0, 1)."""
    if not 0 < level < 1:
        raise ParameterError("level", level, "in (0, 1)", "0.95 asks for 95 % intervals")


def check_resampling(n_boot: int, level: float, seed: int) -> None:
    """Refuse options of a bootstrap that are out of range."""
    check_level(level)
    if not n_boot >= 100:
        raise ParameterError(
            "n_boot", n_boot, "an integer >= 100", "fewer do not resolve the ends of an interval"
        )
    if seed < 0:
        raise ParameterError("seed", seed, "an integer >= 0")


def check_shares(wrong: float, misfit: float) -> None:
    """Refuse probabilities of :func:`chosen_law` that are out of range."""
    for name, share in (("wrong", wrong), ("misfit", misfit)):
        if not 0 < share < 0.5:
            raise ParameterError(name, share, "in (0, 0.5)", "0.01 is one in a hundred")
