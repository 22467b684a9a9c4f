"""Counts of a sweep: which cells are wanted, which are done, and their realised alpha."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.curves import Floats
from bendscape.sweep.campaign.kernel import STATUS

DONE = STATUS["done"]
"""Status of a cell that enters estimates."""


def realised_alpha(block: xr.Dataset, alpha: Floats) -> Floats:
    """The realised alpha of cells, M / N with M = round(alpha N); it differs from alpha by at most 0.5/N.

    Parameters
    ----------
    block : xarray.Dataset
        ``status`` and, where the kernel gives it, ``alpha_realised`` of one model, in memory, dimensions
        alpha, N, seed in any order.
    alpha : array, shape (n,)

    Returns
    -------
    array, shape (N, n)
        Mean of ``alpha_realised`` over the seeds that are done (all have the same value); alpha itself if
        none is done or the variable is absent.
    """
    nominal = np.broadcast_to(alpha, (block.sizes["N"], len(alpha)))
    if "alpha_realised" not in block:
        return np.array(nominal)
    cells = block["alpha_realised"].where(block["status"] == DONE).transpose("N", ..., "seed").values
    n = np.isfinite(cells).sum(axis=2)
    shift = np.where(np.isfinite(cells), cells - nominal[..., None], 0.0).sum(axis=2)
    mean = nominal + np.divide(shift, n, out=np.zeros(n.shape), where=n > 0)
    return np.asarray(np.round(mean, 12), dtype=np.float64)  # alphas with equal M remain equal


def wanted_points(ds: xr.Dataset) -> xr.DataArray:
    """Whether the campaign wants cells at a point: ``wanted``, which masking cells does not change.

    In datasets without it: where ``coverage`` is not nan; in datasets without either: everywhere."""
    if "wanted" in ds:
        return ds["wanted"].reset_coords(drop=True)
    if "coverage" in ds:
        return ds["coverage"].notnull()
    return xr.DataArray(True).expand_dims({dim: ds[dim].values for dim in ("p", "p_star", "a")})


def wanted_cells(ds: xr.Dataset) -> xr.DataArray:
    """Whether the campaign wants a cell: its point is wanted, and its seed is below ``n_seeds`` if given."""
    wanted = xr.ones_like(ds["status"], bool) & wanted_points(ds)
    return wanted & (ds["seed"] < ds["n_seeds"]) if "n_seeds" in ds else wanted


def share_done(block: xr.Dataset, over: Sequence[str]) -> xr.DataArray:
    """Cells done over cells that the campaign wants.

    Parameters
    ----------
    block : xarray.Dataset
        ``status``, dimensions alpha, N, seed, and what :func:`wanted_cells` reads.
    over : sequence of str
        Dimensions to sum over.

    Returns
    -------
    xarray.DataArray
        In [0, 1], over the other dimensions; nan where nothing is wanted. Failed and unconverged cells do not
        count as done: no estimate uses them.
    """
    wanted = wanted_cells(block)
    cells = wanted.sum(over)
    return ((block["status"] == DONE) & wanted).sum(over) / cells.where(cells > 0)
