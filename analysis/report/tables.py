"""The tables of a report: cells by outcome, and the laws of the edge by model."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bendscape.analysis.dataset.counts import wanted_cells
from bendscape.analysis.dataset.models import MODEL, alpha_axis
from bendscape.analysis.estimate.edge_fits import LEAST_DOF
from bendscape.analysis.findings.scaling import LAWS, edge_rows
from bendscape.core.quadratic.model import EDGE_KINDS
from bendscape.sweep.campaign.kernel import STATUS

LISTED = 50
"""Largest number of failed cells that are listed one by one."""

OUTCOMES = {code: name.replace("_", " ") for name, code in STATUS.items()}
"""Words for the status of a cell."""

_PRESENT = {code: words for code, words in OUTCOMES.items() if code != STATUS["absent"]}


def edges_by_model(edge: xr.Dataset) -> list[dict[str, Any]]:
    """For every model with a fit, the number of alphas at which each law of the edge was found, and theory's
    kinds of edge there; from a computed :func:`bendscape.analysis.estimate.edge_scaling.edge_scaling`."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for at in edge_rows(edge):
        point = {name: at[name] for name in MODEL}
        empty = {**point, "edge": "", "alphas": 0, **dict.fromkeys(LAWS, 0)}
        row = rows.setdefault(tuple(point.values()), empty)
        row["alphas"] += 1
        row[at["law"]] += 1
    for row in rows.values():
        one = edge.sel({name: row[name] for name in MODEL})
        fitted = one["dof"] >= LEAST_DOF
        kinds = np.unique(one["edge"].values[fitted.values])
        row["edge"] = " and ".join(EDGE_KINDS[int(kind)] for kind in kinds)
    return list(rows.values())


def coverage_by_size(ds: xr.Dataset) -> list[dict[str, Any]]:
    """Number of cells planned at each N, and how many are absent, done, failed and not converged."""
    others = [dim for dim in ds["status"].dims if dim != "N"]
    planned = wanted_cells(ds).sum(others)
    counts = xr.concat([(ds["status"] == code).sum(others) for code in _PRESENT], "code").compute()
    rows = []
    for k, total in enumerate(planned.values.tolist()):
        row = {"N": int(ds["N"][k]), "planned": int(total)}
        row |= dict(zip(_PRESENT.values(), counts.isel(N=k).values.tolist(), strict=True))
        row["absent"] = row["planned"] - sum(row[name] for name in _PRESENT.values())
        rows.append(row)
    return rows


def failed_cells(ds: xr.Dataset, limit: int = LISTED) -> list[dict[str, Any]]:
    """Coordinates of cells that failed or did not converge, at most ``limit``, in the order of the axes."""
    found: list[dict[str, Any]] = []
    alpha_dim = alpha_axis(ds)
    for index in np.ndindex(*(ds.sizes[dim] for dim in MODEL)):
        point = dict(zip(MODEL, index, strict=True))
        status = ds["status"].isel(point).transpose(alpha_dim, "N", "seed").values
        for i, k, n in np.argwhere(np.isin(status, (STATUS["failed"], STATUS["not_converged"]))):
            alpha = (
                ds["alpha"].isel({dim: {**point, alpha_dim: i}[str(dim)] for dim in ds["alpha"].dims}).item()
            )
            cell = {dim: ds[dim].values[place].item() for dim, place in point.items()}
            cell |= {"alpha": alpha, "N": int(ds["N"][k]), "seed": int(ds["seed"][n])}
            found.append(cell | {"outcome": OUTCOMES[int(status[i, k, n])]})
            if len(found) == limit:
                return found
    return found
