"""The pass over the models of a sweep: lazy, each chunk read once, the same on threads, on processes and
without Dask."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import xarray as xr

from bendscape.analysis.dataset import models
from bendscape.analysis.dataset.models import Output, map_models, model_of
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.drift import drift
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.estimate.thresholds import thresholds
from bendscape.analysis.findings.panels import means
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.kernel import FINITE, outside_range
from bendscape.sweep.kernels.hessian import KERNEL as HESSIAN

OUTPUTS = {
    "n": Output(("N",), np.int64, {"units": "1"}),
    "mean": Output(("alpha_factor", "N"), np.float64, {"long_name": "mean"}),
    "bbp": Output((), np.float64, {}),
}
READS = ["status", "eigval_min", "alpha_bbp"]


def moments(block: xr.Dataset) -> Mapping[str, Any]:
    assert model_of(block).a == block["a"].item()
    done = block["status"] == 1
    return {
        "n": done.sum(("alpha_factor", "seed")),
        "mean": block["eigval_min"].where(done).mean("seed").transpose("alpha_factor", "N"),
        "bbp": block["alpha_bbp"],
    }


@pytest.fixture(scope="module")
def sweep() -> xr.Dataset:
    return synthetic.planted(p=(1, 2), a=(0.5, 0.7, 0.9), seeds={64: 20, 128: 10})


@pytest.mark.parametrize(
    "chunks",
    [None, {}, {"p": 1, "a": 2, "N": 1}, {"p": 1, "p_star": 1, "a": 1, "alpha_factor": 5, "seed": 7}],
)
def test_the_result_does_not_depend_on_how_the_sweep_is_chunked(
    sweep: xr.Dataset, chunks: dict[str, int] | None
) -> None:
    found = map_models(sweep if chunks is None else sweep.chunk(chunks), moments, OUTPUTS, READS)
    assert {bool(variable.chunks) for variable in found.data_vars.values()} == {chunks is not None}
    found = found.compute()
    assert found["n"].dims == ("p", "p_star", "a", "N")
    assert found["n"].dtype == np.int64
    assert found["n"].values[0, 0, 0].tolist() == [20 * 21, 10 * 21]
    mean = sweep["eigval_min"].mean("seed")
    np.testing.assert_allclose(found["mean"].values, mean.values, rtol=1e-14)
    np.testing.assert_array_equal(found["bbp"].values, sweep["alpha_bbp"].values)
    for name in ("p", "p_star", "a", "alpha_factor", "N", "alpha", "n_seeds"):
        xr.testing.assert_identical(found[name].variable.load(), sweep[name].variable)
    assert found["mean"].attrs == {"long_name": "mean"}


class _Counted:
    """An array of one number per chunk that records which parts are read, and how many at a time."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values, self.taken = values, []  # type: ignore[var-annotated]
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key: Any) -> Any:
        self.taken.append(key)
        return self.values[key]


def test_every_chunk_is_read_once_and_only_of_the_variables_asked_for(sweep: xr.Dataset) -> None:
    import dask.array

    counted = {name: _Counted(sweep[name].values) for name in ("status", "eigval_min", "overlap_sq")}
    lazy = sweep.assign(
        {
            name: (sweep[name].dims, dask.array.from_array(array, chunks=(1, 1, 2, -1, 1, -1)))
            for name, array in counted.items()
        }
    )
    found = map_models(lazy, moments, OUTPUTS, READS)
    for array in counted.values():
        array.taken.clear()
    found.compute()
    assert not counted["overlap_sq"].taken
    for name in ("status", "eigval_min"):
        assert len(counted[name].taken) == 2 * 2 * 2
        assert len({str(key) for key in counted[name].taken}) == 2 * 2 * 2


def test_without_chunks_a_block_holds_a_bounded_number_of_models(
    sweep: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_bytes, map_block = sweep[READS].nbytes // 6, models._map_block
    for together, expected in ((1, 6), (2, 4), (3, 2), (7, 1), (0.1, 6)):
        held: list[int] = []

        def watched(block: xr.Dataset, held: list[int] = held, **options: Any) -> xr.Dataset:
            held.append(block.sizes["p"] * block.sizes["a"])
            return map_block(block, **options)

        monkeypatch.setattr(models, "BLOCK_BYTES", int((together + 0.5) * model_bytes))
        monkeypatch.setattr(models, "_map_block", watched)
        map_models(sweep, moments, OUTPUTS, READS)
        assert len(held) == expected
        assert sum(held) == 6
        assert max(held) <= max(1, together)


def test_no_more_models_are_in_memory_than_there_are_threads(sweep: xr.Dataset) -> None:
    import dask

    inside, most, lock = [0], [0], threading.Lock()

    def watched(block: xr.Dataset) -> Mapping[str, Any]:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        try:
            return moments(block)
        finally:
            with lock:
                inside[0] -= 1

    with dask.config.set(scheduler="threads", num_workers=2):
        map_models(sweep.chunk(p=1, p_star=1, a=1), watched, OUTPUTS, READS).compute()
    assert 1 <= most[0] <= 2


def test_a_dataset_that_is_not_a_sweep_is_refused_by_name(sweep: xr.Dataset) -> None:
    with pytest.raises(ParameterError, match="ds"):
        map_models(sweep.isel(p=0), moments, OUTPUTS, READS)


def test_an_error_in_the_function_is_raised_when_the_result_is_computed(sweep: xr.Dataset) -> None:
    def failing(block: xr.Dataset) -> Mapping[str, Any]:
        raise ZeroDivisionError(f"at a = {block['a'].item()}")

    found = map_models(sweep.chunk(), failing, OUTPUTS, READS)
    with pytest.raises(ZeroDivisionError, match=r"a = 0\.5"):
        found.compute()


def with_ranges(ds: xr.Dataset) -> xr.Dataset:
    """The sweep with the ranges that the hessian kernel declares, as a store has them."""
    declared = {
        variable.name: {k: v for k, v in variable.attributes.items() if k.startswith("valid_")}
        for variable in HESSIAN.variables
    }
    return ds.assign({name: ds[name].assign_attrs(declared.get(str(name), {})) for name in ds.data_vars})


def with_cell(ds: xr.Dataset, name: str, value: float) -> xr.Dataset:
    """The sweep with this value in one cell: p = 2, a = 0.7, alpha_factor = 1, N = 128, seed 7."""
    spoilt = ds.copy(deep=True)
    spoilt[name].loc[{"p": 2, "p_star": 1, "a": 0.7, "N": 128, "seed": 7}] = (
        spoilt[name]
        .sel(p=2, p_star=1, a=0.7, N=128, seed=7)
        .where(abs(spoilt["alpha_factor"] - 1) > 1e-9, value)
    )
    return spoilt


@pytest.fixture(scope="module")
def small() -> xr.Dataset:
    return with_ranges(synthetic.planted(p=(1, 2), a=(0.7,), seeds={64: 12, 128: 12}))


ANALYSES = {
    "thresholds": (thresholds, ("overlap_sq_space", "eigval_min", "edge_sample")),
    "collapse": (lambda ds: collapse(ds, n_boot=100), ("overlap_sq_space", "eigval_min", "edge_sample")),
    "edge_scaling": (lambda ds: edge_scaling(ds, prediction=False), ("eigval_min", "alpha_realised")),
    "drift": (lambda ds: drift(ds, n_boot=100), ("overlap_sq_space",)),
    "means": (means, ("overlap_sq", "overlap_sq_space", "eigval_min")),
}
BAD = {"eigval_min": np.inf, "edge_sample": -np.inf, "alpha_realised": -2.0}


@pytest.mark.parametrize(
    ("analysis", "name", "value"),
    [
        (analysis, name, value)
        for analysis, (_, names) in ANALYSES.items()
        for name in names
        for value in ([BAD[name]] if name in BAD else [50.0, -0.3])
    ],
)
def test_every_analysis_refuses_a_value_outside_the_declared_range_and_names_its_cell(
    small: xr.Dataset, analysis: str, name: str, value: float
) -> None:
    with pytest.raises(ParameterError) as refused:
        ANALYSES[analysis][0](with_cell(small, name, value))
    line = str(refused.value)
    assert line.startswith(f"{name} = {value!r} is not accepted")
    alpha = small["alpha"].sel(p=2, p_star=1, a=0.7).isel(alpha_factor=8).item()
    for named in ("p = 2", "p_star = 1", "a = 0.7", f"alpha = {alpha}", "N = 128", "seed = 7", "ds.where("):
        assert named in line
    assert "\n" not in line


def test_a_value_outside_its_range_counts_only_in_a_cell_that_is_done(small: xr.Dataset) -> None:
    spoilt = with_cell(small, "overlap_sq_space", 50.0)
    found = means(with_cell(spoilt, "status", 3)).sel(p=2, p_star=1, a=0.7, N=128)
    assert found["overlap_sq_space_n_seeds"].values.tolist() == [12] * 8 + [11] + [12] * 12
    assert found["overlap_sq_space"].max() < 1


def test_rounding_errors_and_nan_are_within_every_range_but_infinity_is_not() -> None:
    inside = outside_range([0.0, 1.0, -1e-7, 1 + 1e-7, np.nan], 0.0, 1.0)
    assert not inside.any()
    assert outside_range([-1e-3, 1.001, 50.0, np.inf, -np.inf], 0.0, 1.0).all()
    assert outside_range([np.inf, -np.inf], *FINITE).all()
    assert not outside_range([*FINITE, 0.0], *FINITE).any()
    assert not outside_range([np.inf, -np.inf], -np.inf, np.inf).any()


def test_the_refusal_survives_dask_a_selection_and_a_file(small: xr.Dataset, tmp_path: Path) -> None:
    spoilt = with_cell(small, "overlap_sq_space", 50.0)
    spoilt.to_zarr(tmp_path / "sweep.zarr", zarr_format=3, consolidated=False)
    with xr.open_zarr(tmp_path / "sweep.zarr", consolidated=False) as back:
        for ds in (spoilt.chunk({"p": 1}), spoilt.sel(p=[2]), back):
            with pytest.raises(ParameterError, match=r"overlap_sq_space = 50.0 .* seed = 7"):
                means(ds).compute()
    assert means(spoilt.sel(p=[1])).compute()["overlap_sq_space_n_seeds"].min() == 12
