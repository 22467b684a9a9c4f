"""Both analyses of a store in the workers of a dask.distributed client, beside the same on threads.

    python tests/distributed_pass.py STORE

It needs a process of its own, because a Dask cluster leaves threads and an event loop behind and must not
wait for the Ray that the tests share. Prints one JSON document: the processes that did the work, and whether
both results agree.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute
from dask.distributed import Client, LocalCluster

from bendscape.analysis.dataset.models import Output, map_models
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.estimate.thresholds import thresholds


def process(block: xr.Dataset) -> Mapping[str, Any]:
    """The process that computes a block."""
    return {"pid": os.getpid()}


def main() -> None:
    """Start two workers on loopback, compute, compare."""
    ds = xr.open_dataset(sys.argv[1], engine="bendscape", chunks={}).isel(a=[0]).chunk(p=1, p_star=1, a=1)
    lazy = (
        map_models(ds, process, {"pid": Output((), np.int64, {})}, ["status"]),
        thresholds(ds),
        collapse(ds, n_boot=100),
        edge_scaling(ds, least_size=20, prediction=False),
    )
    here = compute(*lazy)  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(2, threads_per_worker=1, **options) as cluster, Client(cluster):  # type: ignore[no-untyped-call]
        there = compute(*lazy)  # type: ignore[no-untyped-call]
    pids = [{int(pid) for pid in np.unique(found[0]["pid"])} for found in (here, there)]
    same = all(one.identical(other) for one, other in zip(here[1:], there[1:], strict=True))
    cells = int(here[1]["n_cells"].sum())
    print(
        json.dumps(
            {"own": os.getpid(), "here": [*pids[0]], "there": [*pids[1]], "same": same, "cells": cells}
        )
    )


if __name__ == "__main__":
    main()
