"""Cells that the latest campaign file does not name are kept, are counted in all summaries, and can be
read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import xarray as xr
from command_line import bendscape
from rich.console import Console

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine.executor import SerialExecutor
from bendscape.sweep.engine.run import open_plan, run_campaign
from bendscape.sweep.location import store_url
from campaigns import RANDOM, campaign_text, make_campaign, run

KernelFile = Callable[..., str]
FIRST = {"p": [1, 2], "a": [0.7, 1.5], "alpha": [0.8, 1.0], "N": [64], "seeds": 4}  # 32 cells
DISJOINT = FIRST | {"a": [3.0], "alpha": [2.0], "N": [96]}  # 8 cells


def test_axes_without_common_values_hide_every_earlier_cell_with_a_message(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    assert run(store, module, make_campaign(**FIRST)).hidden == 0
    with xr.open_dataset(store, engine="bendscape") as first:
        first.load()
    assert "hidden" not in first.attrs
    plan, hidden = open_plan(store_url(store), make_campaign(**DISJOINT), load_kernel("probe", [module]))
    assert plan.to_json(1)["cells_hidden"] == hidden.cells == 32
    said = io.StringIO()
    summary = run_campaign(
        make_campaign(**DISJOINT), store_url(store), load_kernel("probe", [module]), SerialExecutor,
        console=Console(file=said, width=1000), kernel_modules=(module,),
    )  # fmt: skip
    assert (summary.outcome, summary.done, summary.hidden) == ("complete", 8, 32)
    assert "32 finished cells of this store are hidden" in said.getvalue()
    assert "revision=1) shows 32 of them" in said.getvalue()
    assert store_status(store)["hidden"] == {"cells": 32, "revisions": {1: 32}}
    with xr.open_dataset(store, engine="bendscape") as ds:
        assert ds.attrs["hidden"] == "a = 0.7, 1.5; alpha = 0.8, 1; N = 64"
        assert int((ds.status == 1).sum()) == 8
    with xr.open_dataset(store, engine="bendscape", revision=1) as ds:
        xr.testing.assert_equal(ds.load(), first)
    for wrong in (0, 3):
        with pytest.raises(ParameterError, match="an integer from 1 to 2"):
            xr.open_dataset(store, engine="bendscape", revision=wrong)
    both = {name: sorted({*FIRST[name], *DISJOINT[name]}) for name in ("a", "alpha", "N")}  # type: ignore[misc]
    assert run(store, module, make_campaign(**FIRST | both)).hidden == 0


def test_hidden_cells_are_counted_individually(tmp_path: Path, kernel_file: KernelFile) -> None:
    store, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    run(store, module, make_campaign(**FIRST))
    run(store, module, make_campaign(**FIRST | {"seeds": 6}))
    fewer = FIRST | {"where": "p == 1", "seeds": 3}
    assert run(store, module, make_campaign(**fewer)).hidden == 48 - 12
    assert store_status(store)["hidden"] == {"cells": 36, "revisions": {2: 36, 1: 32 - 12}}
    with xr.open_dataset(store, engine="bendscape") as ds:
        assert ds.attrs["hidden"] == "seeds 3 to 5 of N = 64"


def test_the_commands_status_and_plan_report_hidden_cells_too(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store, module, file = tmp_path / "s.zarr", kernel_file(RANDOM), tmp_path / "c.toml"
    run(store, module, make_campaign(**FIRST))
    run(store, module, make_campaign(**DISJOINT))
    file.write_text(campaign_text(**FIRST))
    for command, cells in (
        (["status", store], 32),
        (["plan", file, "--store", store, "--kernel-module", module], 8),
    ):
        told = bendscape(*command).stdout
        assert f"{cells} finished cells of this store are hidden" in " ".join(told.split())
    assert json.loads(bendscape("status", store, "--json").stdout)["hidden"]["cells"] == 32
