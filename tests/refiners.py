"""A small refiner for the tests of rounds: the mean of x at one point of each model, by more seeds."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from bendscape.sweep.campaign import target as target_module
from bendscape.sweep.campaign.target import Addition, ModelState, Proposal, Refiner, Target

GROWTH = 2  # most seeds of a round over those before
MOST = 64  # seeds of a point; who needs more is told that the target is unreachable


def mean_of_x(store: Any, target: Target) -> Proposal:
    """The mean of x over the seeds at the first point of the curve and the first size of each model."""
    assert any(of.name == "x" for of in store.kernel().variables), "also one that is not installed"
    with xr.open_dataset(store, engine="bendscape") as ds:
        ds = ds.load()
    curve = next((str(dim) for dim in ds.dims if ds[dim].attrs.get("role") == "curve"), None)
    curve = curve or next((str(dim) for dim in ds.dims if str(dim).endswith("_factor")), None)
    size = next((str(dim) for dim in ds.dims if ds[dim].attrs.get("role") == "size"), None)
    models = [str(dim) for dim in ds["x"].dims if dim not in (curve, size, "seed")]
    additions, states = [], []
    for at in np.ndindex(*(ds.sizes[dim] for dim in models)):
        own = ds.isel(dict(zip(models, at, strict=True)))
        model = {dim: own[dim].item() for dim in models}
        if target.of(model) is None:
            continue
        point = own.isel({dim: 0 for dim in (curve, size) if dim})
        if not bool(point["wanted"].any()):
            continue
        x = point["x"].values[point["status"].values == 1]
        value = float(x.mean()) if len(x) else math.nan
        error = float(x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan
        wanted = target.wanted(model, value)
        seeds = int(point["n_seeds"].item())
        state: Any = "met" if error <= wanted else "open"
        reason, expected = "", error
        if state == "open":
            needed = math.ceil(len(x) * (error / wanted) ** 2) if error > 0 else 2 * seeds
            reason = f"{needed} seeds are needed, {seeds} are there"
            if needed > MOST:
                state, reason = "unreachable", f"{needed} seeds are needed, more than {MOST}"
            else:
                more = min(GROWTH * seeds, max(needed, seeds + 1))
                expected = error * math.sqrt(seeds / more)
                place = 0.0 if curve is None else float(point[curve].item())
                additions.append(Addition(model, place, int(point[size].item()) if size else 0, more))
        hours = 0.25 / 3600 * (additions[-1].seeds - seeds) if state == "open" else 0.0
        states.append(ModelState(model, state, value, error, wanted, expected, hours, reason))
    return Proposal(tuple(additions), tuple(states))


def lacks(kernel: Any) -> str:
    return "" if any(of.name == "x" for of in kernel.variables) else "the variable x"


MEAN = Refiner(mean_of_x, lacks)


def install(monkeypatch: pytest.MonkeyPatch, value: str = "refiners:MEAN") -> None:
    """Offer the quantity `mean_x` in this process."""
    points = EntryPoints([EntryPoint("mean_x", value, target_module.REFINERS)])
    real = target_module.entry_points
    monkeypatch.setattr(
        target_module,
        "entry_points",
        lambda group: points if group == target_module.REFINERS else real(group),
    )


def distribution(folder: Path) -> Path:
    """A folder for PYTHONPATH in which a distribution offers `mean_x` to other processes."""
    about = folder / "refiners_for_tests-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: refiners-for-tests\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[{target_module.REFINERS}]\nmean_x = refiners:MEAN\n")
    (folder / "refiners.py").write_text(Path(__file__).read_text())
    return folder
