"""Datasets that users have masked, selected, transposed, loaded or saved: every method of `ds.bend` gives the
same results as for the dataset as opened."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import campaigns
from bendscape.analysis.accessor import Bend
from bendscape.analysis.dataset.export import export_store
from bendscape.analysis.figures.draw import FIGURES
from bendscape.analysis.figures.tables import LeftOutError
from bendscape.core.errors import ParameterError

AROUND = '{ around = "alpha_bbp", start = 0.6, stop = 1.4, num = 5 }'
ANALYSES: dict[str, dict[str, Any]] = {
    "thresholds": {},
    "collapse": {"n_boot": 100, "least_size": 16},
    "edge_scaling": {"least_size": 16, "prediction": False},
    "drift": {"n_boot": 100},
}
DEAR = {"thresholds"}  # of the figures: theory at many widths


@pytest.fixture(scope="module", params=["alpha", pytest.param("alpha_factor", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sampled Hessians, some missing, some points not wanted, with unequal numbers of seeds."""
    alpha = AROUND if request.param == "alpha_factor" else [0.75, 1.0, 1.25, 1.5, 2.0]
    text = campaigns.campaign_text(
        p=[1, 2], a=[0.7], alpha=alpha, N=[16, 24, 32], seeds="{ 16 = 8, 24 = 8, 32 = 6 }",
        where="p == 1 or N < 32",
    )  # fmt: skip
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    campaigns.run(path, "", campaigns.parse_campaign(text.replace('"probe"\n\n', '"hessian"\n\n')))
    for segment in (path / "ledger" / "segments").iterdir():
        lines = [json.loads(line) for line in segment.read_text().splitlines()]
        for line in lines:
            if line["tile"].startswith(
                "N=24/1."
            ):  # of p = 2: not all alphas, and one seed less of the others
                line["done"] = f"{int(line['done'], 16) & int('7f' * 4, 16):x}"
        segment.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def opened(store: Path, **options: Any) -> xr.Dataset:
    return xr.open_dataset(store, engine="bendscape", **options)


def netcdf(ds: xr.Dataset, folder: Path) -> xr.Dataset:
    ds.to_netcdf(folder / "saved.nc")
    return xr.load_dataset(folder / "saved.nc")


def zarr(ds: xr.Dataset, folder: Path) -> xr.Dataset:
    ds.to_zarr(folder / "saved.zarr", zarr_format=3, consolidated=False)
    return xr.open_zarr(folder / "saved.zarr", consolidated=False)


def masked(ds: xr.Dataset) -> xr.Dataset:
    return ds.where(ds.status == 1)


KEPT: dict[str, Callable[[Path, Path], xr.Dataset]] = {
    "done": lambda store, _: masked(opened(store)),
    "done, lazily": lambda store, _: masked(opened(store, chunks={})),
    "transposed": lambda store, _: opened(store).transpose("seed", "N", ..., "p"),
    "done and transposed": lambda store, _: masked(opened(store)).transpose("seed", ..., "p"),
    "loaded": lambda store, _: opened(store, chunks={}).load(),
    "rechunked": lambda store, _: opened(store, chunks={}).chunk({"N": -1, "seed": 3}),
    "integers": lambda store, _: opened(store, mask_and_scale=False),
    "NetCDF": lambda store, folder: netcdf(opened(store), folder),
    "done and NetCDF": lambda store, folder: netcdf(masked(opened(store)), folder),
    "Zarr": lambda store, folder: zarr(opened(store), folder),
    "done and Zarr": lambda store, folder: zarr(masked(opened(store)), folder),
    "exported to NetCDF": lambda store, folder: xr.load_dataset(
        export_store(store, folder / "e.nc")["output"]
    ),
    "exported to Zarr": lambda store, folder: xr.open_zarr(export_store(store, folder / "e.zarr")["output"]),
    "lists": lambda store, _: opened(store).isel(p=[0, 1], N=[0, 1, 2]),
}
"""Changes that lose no cell."""

SELECTED: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "a model by lists": lambda ds: ds.sel(p=[1]),
    "a model by scalars": lambda ds: ds.sel(p=1, p_star=1, a=0.7),
    "a model, done": lambda ds: masked(ds).sel(p=1, a=0.7),
    "a model, then done": lambda ds: masked(ds.sel(p=1, a=0.7)),
    "done, dropping": lambda ds: ds.sel(p=[1]).where(ds.status == 1, drop=True),
}
"""Changes that leave all cells of p = 1."""

POORER: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "one size": lambda ds: ds.sel(N=24),
    "one seed": lambda ds: ds.isel(seed=0),
    "one alpha": lambda ds: ds.isel({"alpha_factor" if "alpha_factor" in ds.dims else "alpha": 2}),
    "one cell": lambda ds: masked(ds).isel(dict.fromkeys(ds.status.dims, 0)),
    "a list of alphas": lambda ds: ds.isel(
        {"alpha_factor" if "alpha_factor" in ds.dims else "alpha": [1, 3]}
    ),
    "seeds": lambda ds: masked(ds).isel(seed=[5, 1, 3]),
}
"""Changes that leave too few cells for most results."""


def answers(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """Results of every analysis."""
    bend = Bend(ds)
    found = {name: getattr(bend, name)(**options).compute() for name, options in ANALYSES.items()}
    return found | {"shift_map": bend.shift_map(found["collapse"])}


def tables(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    """Behind every figure that does not need theory at many widths and for which the store has data."""
    bend, found = Bend(ds), {}
    for figure in FIGURES.keys() - DEAR:
        with contextlib.suppress(LeftOutError):
            found |= bend.plot.numbers(figure)
    return found


@pytest.fixture(scope="module")
def original(store: Path) -> dict[str, xr.Dataset]:
    return answers(opened(store))


def assert_same(found: dict[str, xr.Dataset], wanted: dict[str, xr.Dataset]) -> None:
    assert found.keys() == wanted.keys()
    for name, result in wanted.items():
        own = found[name].transpose(*result.dims).reset_coords(drop=True)
        # a sum in another order of memory has other last bits
        xr.testing.assert_allclose(own, result.reset_coords(drop=True), rtol=1e-9, atol=1e-12)
        assert {n: v.dtype.kind for n, v in own.items()} == {n: v.dtype.kind for n, v in result.items()}, name


def some_slow(changes: Iterable[str], fast: Collection[str]) -> list[Any]:
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in changes]


@pytest.mark.parametrize(
    "change", some_slow(KEPT, ("done", "done, lazily", "transposed", "done and NetCDF", "exported to Zarr"))
)
def test_every_result_is_that_of_the_dataset_as_opened(
    store: Path, original: dict[str, xr.Dataset], tmp_path: Path, change: str
) -> None:
    assert_same(answers(KEPT[change](store, tmp_path)), original)


@pytest.mark.usefixtures("fewer_resamplings")
def test_the_tables_behind_figures_are_those_of_the_dataset_as_opened(store: Path, tmp_path: Path) -> None:
    wanted = tables(opened(store))
    assert len(wanted) > 6
    changed = netcdf(KEPT["done and transposed"](store, tmp_path), tmp_path)
    assert_same(tables(changed), wanted)


@pytest.mark.parametrize("change", some_slow(SELECTED, ("a model by scalars", "a model, then done")))
def test_a_selected_model_has_the_same_results_as_in_the_sweep(
    store: Path, original: dict[str, xr.Dataset], change: str
) -> None:
    found = answers(SELECTED[change](opened(store)))
    for name in ANALYSES:
        own = original[name].sel(p=[1]).reset_coords(drop=True)
        xr.testing.assert_allclose(found[name].reset_coords(drop=True), own, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("change", some_slow(POORER, ("one size", "one cell", "seeds")))
def test_a_reduced_sweep_gives_results_or_names_what_is_missing(store: Path, change: str) -> None:
    ds = POORER[change](opened(store))
    for name, options in ANALYSES.items():
        found = getattr(Bend(ds), name)(**options).compute()
        assert dict(found.sizes).items() >= {"p": ds.p.size, "p_star": 1, "a": 1}.items()
    if change in ("one seed", "one cell"):
        flags = Bend(ds).thresholds()["alpha_gap_flag"]
        assert flags.attrs["flag_meanings"].split()[int(flags.max())] == "not_enough_data"


@pytest.mark.parametrize("lost", ["seed", "N", "p"])
def test_a_dataset_without_one_of_its_axes_is_refused_by_its_name(store: Path, lost: str) -> None:
    for name, options in ANALYSES.items():
        with pytest.raises(ParameterError, match=f"with {lost} among its dimensions"):
            getattr(Bend(opened(store).isel({lost: 0}, drop=True)), name)(**options)


@pytest.fixture
def fewer_resamplings(monkeypatch: pytest.MonkeyPatch) -> None:
    from bendscape.analysis.findings.results import Results

    real = Results.__init__
    monkeypatch.setattr(Results, "__init__", lambda self, ds, n_boot=100: real(self, ds, n_boot=n_boot))


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_resamplings")
@pytest.mark.parametrize("change", ["done", "transposed", "done and NetCDF"])
def test_every_figure_and_the_report_are_drawn_of_it(store: Path, tmp_path: Path, change: str) -> None:
    ds = KEPT[change](store, tmp_path)
    for name in FIGURES:
        try:
            assert getattr(Bend(ds).plot, name)().axes
        except LeftOutError:
            assert name in ("thresholds", "kinds", "collapse"), "the data are too few for a critical load"
    page = Bend(ds).report(tmp_path / "r.html").read_text()
    other = Bend(opened(store)).report(tmp_path / "other.html").read_text()
    assert np.mean(np.array([*page[:10_000]]) == np.array([*other[:10_000]])) > 0.99
