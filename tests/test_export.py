"""An export is the dataset of the store, complete or absent, for readers who have only xarray."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from command_line import bendscape
from zarr.storage import ZipStore

from bendscape.analysis.dataset import export
from bendscape.analysis.dataset.export import export_store
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import load_campaign, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.campaign.tiles import Layout, SizeLayout, TileKey
from bendscape.sweep.engine.executor import Job, Result, SerialExecutor
from bendscape.sweep.kernels.quadratic import AXES
from bendscape.sweep.location import store_url
from bendscape.sweep.store.publish import write_layout
from bendscape.sweep.store.records import Receipt
from campaigns import RANDOM, campaign_text, make_campaign, run, write_kernel

KernelFile = Callable[..., str]
ADDED = ("Conventions", "title", "history")
VARIABLES = (
    'Variable("x", "a number"), Variable("count", "how many", "int64"), Variable("sort", "kind", "int8")'
)
MIXED = """
if cell.seed == 3 and cell.a == 1.5:
    raise ArithmeticError(f"no luck at {cell.alpha:.6g}")
x = [rng.normal(), math.nan, -math.nan, -0.0][cell.seed % 4 if cell.N == 64 else 0]
return Outcome({"x": x, "count": 2**53 + 1 + cell.seed, "sort": -cell.p}, converged=cell.seed != 5)
"""
AROUND = '{ around = "alpha_bbp", start = 0.5, stop = 1.5, num = 3 }'


class Interrupted(SerialExecutor):
    """Stops as if by a second signal when one job is back."""

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        yield next(super().run(next_job))
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def half_filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half-filled, with failed and unconverged cells, sizes of unequal seeds, holes, and axes that grew."""
    folder = tmp_path_factory.mktemp("half_filled")
    path, module = folder / "s.zarr", write_kernel(folder, MIXED, VARIABLES)
    run(path, module, make_campaign(a=[1.5], alpha=AROUND, p_star=[1, 2]))
    wider = make_campaign(
        p_star=[1, 2], a=[0.7, 1.5], alpha=AROUND, N=[32, 64, 128], seeds="{ 32 = 40, 64 = 7, 128 = 6 }"
    )
    with pytest.raises(KeyboardInterrupt):
        run(path, module, wider, Interrupted())
    return path


@pytest.fixture
def store(half_filled: Path, tmp_path: Path) -> Path:
    """A copy of the store for one test."""
    shutil.copytree(half_filled, tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def expected(store: Path) -> xr.Dataset:
    ds = xr.open_dataset(store, engine="bendscape", mask_and_scale=False).load()
    del ds.attrs["bendscape_store_version"]  # an export is no store
    return ds


def read(path: Path, group: str | None = None, mask_and_scale: bool = False) -> xr.Dataset:
    """Open it with only what a reader without this package has."""
    options: dict[str, Any] = {"group": group, "mask_and_scale": mask_and_scale}
    if path.suffix == ".nc":
        return xr.load_dataset(path, **options)
    if path.suffix == ".zip":
        with ZipStore(path, mode="r") as archive:
            ds = xr.open_zarr(archive, **options).load()
    else:
        ds = xr.open_zarr(path, **options).load()
    for variable in ds.variables.values():  # Zarr has one for every array
        if variable.dtype.kind == "f":
            variable.attrs.pop("_FillValue", None)
    return ds


def assert_same_bits(found: xr.Dataset, wanted: xr.Dataset) -> None:
    xr.testing.assert_identical(found.drop_attrs(deep=False), wanted.drop_attrs(deep=False))
    assert {name: found.attrs[name] for name in found.attrs if name not in ADDED} == wanted.attrs
    for name in wanted.variables:
        assert found[name].dtype == wanted[name].dtype, name
        assert found[name].dims == wanted[name].dims, name
        assert found[name].values.tobytes() == wanted[name].values.tobytes(), name


def no_leftovers(folder: Path) -> bool:
    return not list(folder.glob(".*"))


@pytest.mark.parametrize("name", ["e.zarr", "e.zip", "e.nc"])
@pytest.mark.parametrize("cut", [(2**22, 2**26), (2**9, 2**11)], ids=["whole", "blocks"])
def test_an_export_is_bit_for_bit_the_dataset_of_the_store(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, cut: tuple[int, int]
) -> None:
    monkeypatch.setattr(export, "CHUNK_BYTES", cut[0])
    found = export_store(store, tmp_path / name, block_bytes=cut[1])
    ds = expected(store)
    status = ds.status.values
    assert {-1, 0, 1, 2, 3} == set(status.flat), "the store has every kind of cell"
    assert np.signbit(ds.x.values[np.isnan(ds.x.values)]).any(), "and more than one NaN"
    assert_same_bits(read(tmp_path / name), ds)
    assert found["done"] == int((status == 1).sum())
    assert found["failed"] == int((status == 2).sum())
    assert found["not_converged"] == int((status == 3).sum())
    assert found["cells"] == 6 * 3 * 53  # (p, p_star, a) with p >= p_star, alpha, seeds
    assert found["coverage"] == (found["done"] + found["not_converged"]) / found["cells"]
    assert found["variables"] == list(ds.data_vars)
    assert no_leftovers(tmp_path)


def test_a_chunk_of_nothing_but_another_nan_keeps_its_bits(tmp_path: Path, kernel_file: KernelFile) -> None:
    run(tmp_path / "s.zarr", kernel_file("return Outcome({'x': -math.nan})"), make_campaign(p=[1], N=[64]))
    for name in ("e.zarr", "e.nc"):
        export_store(tmp_path / "s.zarr", tmp_path / name)
        assert np.signbit(read(tmp_path / name).x.values).all()


def test_shards_are_fewer_files_of_the_same_bits(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "CHUNK_BYTES", 2**9)
    chunks = export_store(store, tmp_path / "chunks.zarr", block_bytes=2**12, variables=["x"])
    for name in ("x.zarr", "e.zarr", "e.zip"):
        variables = {"variables": ["x"]} if name == "x.zarr" else {}
        shards = export_store(store, tmp_path / name, block_bytes=2**12, shards=True, **variables)
        if name == "x.zarr":
            assert shards["files"] < chunks["files"] / 2
        else:
            assert_same_bits(read(tmp_path / name), expected(store))
    x = zarr.open_array(tmp_path / "e.zarr", path="x", mode="r")
    assert 8 * np.prod(x.chunks) <= 2**9 < 8 * np.prod(x.shards) <= 2**12


def test_chunks_hold_whole_curves_and_no_more_than_their_bytes() -> None:
    shape = {"p": 3, "p_star": 1, "a": 50, "alpha": 21, "N": 4, "seed": 1000}
    chunk = export._grow(shape, dict.fromkeys(shape, 1), 2**22)
    assert chunk == {"p": 1, "p_star": 1, "a": 17, "alpha": 21, "N": 1, "seed": 1000}
    block = export._grow(shape, chunk, 2**26)
    assert block == {"p": 3, "p_star": 1, "a": 51, "alpha": 21, "N": 2, "seed": 1000}
    assert export._grow(shape, dict.fromkeys(shape, 1), 8) == dict.fromkeys(shape, 1)


@pytest.mark.parametrize("name", ["e.zarr", "e.nc"])
def test_a_reader_needs_neither_this_package_nor_a_warning(store: Path, tmp_path: Path, name: str) -> None:
    export_store(store, tmp_path / name)
    # The engine is named because guessing it would load every backend, ours too.
    script = (
        "import sys, xarray as xr;"
        "engine = 'zarr' if sys.argv[1].endswith('.zarr') else 'h5netcdf';"
        "ds = xr.load_dataset(sys.argv[1], engine=engine);"
        "errors = xr.load_dataset(sys.argv[1], engine=engine, group='errors');"
        "assert not any(m.startswith('bendscape') for m in sys.modules), 'it was imported after all';"
        "print(*ds.status.dims, ds.status.attrs['flag_meanings'], ds.Conventions, errors.sizes['failure'])"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / name)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert shown.returncode == 0, shown.stderr
    words = shown.stdout.split()
    assert words[:6] == ["p", "p_star", "a", "alpha_factor", "N", "seed"]
    assert words[6:11] == ["absent", "done", "failed", "not_converged", "not_wanted"]
    assert words[11] == "CF-1.12"
    assert int(words[12]) == int((expected(store).status == 2).sum())


@pytest.mark.parametrize("name", ["e.zarr", "e.zip", "e.nc"])
def test_the_errors_of_failed_cells_travel_with_their_coordinates(
    store: Path, tmp_path: Path, name: str
) -> None:
    written = export_store(store, tmp_path / name)
    ds, errors = read(tmp_path / name), read(tmp_path / name, "errors")
    assert written["errors"] == errors.sizes["failure"] == int((ds.status == 2).sum()) > 0
    for k in range(errors.sizes["failure"]):
        row = errors.isel(failure=k)
        cell = {dim: row[dim].item() for dim in ds.status.dims}
        assert ds.status.sel(cell).item() == 2
        assert row["alpha"].item() == ds.alpha.sel({dim: cell[dim] for dim in ds.alpha.dims}).item()
        assert row["error"].item() == "ArithmeticError"
        assert row["message"].item() == f"no luck at {row['alpha'].item():.6g}"
        assert row["traceback"].item().startswith("Traceback")
        assert row["attempts"].item() == 1


def test_errors_of_cells_that_the_campaign_has_dropped_are_not_exported(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    path, module = tmp_path / "s.zarr", kernel_file(MIXED, VARIABLES)
    run(path, module, make_campaign())
    assert export_store(path, tmp_path / "all.zarr")["errors"] == 2 * 3 * 2
    run(path, module, make_campaign(p=[2], alpha=[0.8, 1.2], N=[64]))
    assert export_store(path, tmp_path / "some.zarr")["errors"] == 2
    run(path, module, make_campaign(a=[0.7]))
    assert export_store(path, tmp_path / "none.zarr")["errors"] == 0
    assert not (tmp_path / "none.zarr" / "errors").exists()


@pytest.mark.parametrize("kernel", ["hessian", "theory", "spectral"])
def test_every_kernel_is_exported_with_its_theory(tmp_path: Path, kernel: str) -> None:
    text = campaign_text(p=[1], a=[0.7, 1.5], alpha=[0.9, 3.0], N=[48], seeds=2)
    file = tmp_path / "c.toml"
    file.write_text(text.replace('kernel = "probe"', f'kernel = "{kernel}"'))
    run(tmp_path / "s.zarr", "", load_campaign(file))
    for name in ("e.zarr", "e.nc"):
        written = export_store(tmp_path / "s.zarr", tmp_path / name)
        assert written["coverage"] == 1.0
        found = read(tmp_path / name)
        assert_same_bits(found, expected(tmp_path / "s.zarr"))
        assert np.isfinite(found.lambda_minus.values).all()


def test_netcdf_has_flag_values_of_the_type_of_their_variable(store: Path, tmp_path: Path) -> None:
    export_store(store, tmp_path / "e.nc")
    with xr.open_dataset(tmp_path / "e.nc") as ds:
        for name in ("status", "transition", "edge"):
            assert ds[name].attrs["flag_values"].dtype == ds[name].dtype == np.int8


def test_a_campaign_file_longer_than_an_hdf5_attribute_is_exported_whole(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    text = campaign_text(p=[1], N=[64], seeds=1) + "# " + 2**17 * "α"
    run(tmp_path / "s.zarr", kernel_file(RANDOM), parse_campaign(text))
    export_store(tmp_path / "s.zarr", tmp_path / "e.nc")
    assert read(tmp_path / "e.nc").attrs["campaign"] == text


def test_only_an_earlier_export_is_replaced_and_only_with_overwrite(store: Path, tmp_path: Path) -> None:
    (tmp_path / "photos.zarr").mkdir()
    (tmp_path / "photos.zarr" / "cat").write_text("")
    (tmp_path / "folder.nc").mkdir()
    for name in ("e.zarr", "e.zip", "e.nc"):
        export_store(store, tmp_path / name, variables=["x"])
        with pytest.raises(ParameterError, match="--overwrite"):
            export_store(store, tmp_path / name)
        assert "sort" not in read(tmp_path / name)
        export_store(store, tmp_path / name, overwrite=True)
        assert "sort" in read(tmp_path / name)
    for name in ("photos.zarr", "folder.nc", "s.zarr"):
        before = {file: file.stat().st_mtime_ns for file in (tmp_path / name).rglob("*")}
        with pytest.raises(ParameterError, match="an earlier export"):
            export_store(store, tmp_path / name, overwrite=True)
        assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / name).rglob("*")}
    assert no_leftovers(tmp_path)


KILLED = """
import os, signal, sys
import h5netcdf, zarr
from bendscape.analysis import open
from bendscape.analysis.dataset.export import export_store

real, calls = open.Measured.block, []
def dying(self, picks):
    calls.append(picks)
    if len(calls) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, picks)

open.Measured.block = dying
for output in sys.argv[2:]:  # each in a fork, as what is imported is the same
    if not (child := os.fork()):
        export_store(sys.argv[1], output, overwrite=True, block_bytes=2**11)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


def test_a_killed_export_leaves_what_was_there_and_the_next_one_cleans_up(
    store: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("new.zarr", "new.nc", "earlier.zarr", "earlier.zip")]
    for path in paths[2:]:
        export_store(store, path, variables=["x"])
    subprocess.run([sys.executable, "-c", KILLED, store, *paths], timeout=120, check=True)
    for path in paths:
        assert list((tmp_path / f".{path.name}.unfinished").iterdir()), "it was at work"
        assert path.exists() == (path.stem == "earlier")
        if path.exists():
            assert "sort" not in read(path)
        export_store(store, path, overwrite=True)
        assert_same_bits(read(path), expected(store))
    assert no_leftovers(tmp_path)


def test_an_export_that_fails_leaves_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(zarr, "consolidate_metadata", full)
    with pytest.raises(OSError, match="the disk is full"):
        export_store(store, tmp_path / "new" / "e.zarr")
    assert not list((tmp_path / "new").iterdir())


def test_two_exports_to_one_place_do_not_mix(store: Path, tmp_path: Path) -> None:
    work = tmp_path / ".e.zarr.unfinished"
    work.mkdir()
    (work / "theirs").write_text("")
    other = os.open(work, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(ParameterError, match="no other export is writing"):
        export_store(store, tmp_path / "e.zarr")
    assert (work / "theirs").exists()
    os.close(other)
    export_store(store, tmp_path / "e.zarr")
    assert no_leftovers(tmp_path)


BIG = """
import os, sys
import dask.array, h5netcdf, zarr
from bendscape.analysis.dataset.export import export_store

def peak():  # not ru_maxrss, which starts at what the parent had
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

small, big, block_bytes = *sys.argv[1:3], int(sys.argv[3])
for output in sys.argv[4:]:  # each in a fork, as what is imported is the same
    if not (child := os.fork()):
        export_store(small, output.replace("out", "first"))
        before = peak()
        written = export_store(big, output, block_bytes=block_bytes, shards=output.endswith("zarr"))
        print(peak() - before, written["done"], flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.fixture(scope="module")
def big_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight million cells, in tiles of 65,536, whose values were never computed."""
    tmp_path = tmp_path_factory.mktemp("big")
    campaign = make_campaign(p=[1], a=[*range(1, 9)], alpha=[*range(1, 17)], N=[64], seeds=2**16)
    kernel, grid = load_kernel("probe", [write_kernel(tmp_path, RANDOM)]), campaign.to_grid(AXES)
    layout = replace(Layout.of(grid, kernel), sizes={64: SizeLayout(2**16, 1, 2**16)})
    path = tmp_path / "big.zarr"
    attributes = {"name": "big", "kernel": "probe", "campaign": campaign.text}
    write_layout(store_url(path), layout, kernel, None, attributes)
    rng = np.random.default_rng(0)
    for name, tile in (("x", rng.integers(0, 100, 2**16)), ("status", np.ones(2**16))):
        array = zarr.open_array(path, path=f"N=64/{name}", mode="r+")
        for k in range(8):
            array[0, 0, k] = tile + np.zeros((16, 1))
    full = (1 << 2**16) - 1
    tiles = [TileKey(64, (0, 0, k, i, 0)) for k in range(8) for i in range(16)]
    (path / "ledger" / "segments").mkdir(parents=True)
    receipts = "".join(Receipt(str(tile), done=full).to_json() + "\n" for tile in tiles)
    (path / "ledger" / "segments" / "000001-000001.jsonl").write_text(receipts)
    return path


def test_memory_is_bounded_by_the_block_and_not_by_the_store(
    big_store: Path, store: Path, tmp_path: Path
) -> None:
    outputs = [tmp_path / name for name in ("out.zarr", "out.nc")]
    command = [sys.executable, "-c", BIG, store, big_store, 2**22, *outputs]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=True)
    assert xr.open_dataset(big_store, engine="bendscape").nbytes > 2**26
    found = [[*map(int, line.split())] for line in done.stdout.splitlines()]
    assert [cells for _, cells in found] == [2**23] * 2
    assert max(growth for growth, _ in found) < 7 * 2**23  # 40 to 52 MB, by threads; the store has 75


def test_the_command_prints_one_document_or_one_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "new folder" / "e.zarr"
    done = bendscape("export", store, "-o", output, "--variables", "x, count", "--json")
    written = json.loads(done.stdout)
    files = [file for file in output.rglob("*") if file.is_file()]
    assert written["output"] == str(output)
    assert written["bytes"] == sum(file.stat().st_size for file in files)
    assert written["files"] == len(files)
    assert written["cells"] == 6 * 3 * 53
    assert {"x", "count", "status", "coverage", "alpha_bbp"} <= set(written["variables"])
    assert "sort" not in written["variables"]
    monkeypatch.chdir(tmp_path)
    refused = bendscape("export", store, "-o", "s3://bucket/e.zarr")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "s3://bucket/e.zarr" in refused.stderr


@pytest.mark.parametrize(
    ("source", "output", "options", "words"),
    [
        ("s.zarr", "e.hdf", {}, ".zarr, .zip, .nc"),
        ("s.zarr", "e", {}, ".zarr, .zip, .nc"),
        ("s.zarr", "e.zarr", {"variables": ["x", "y"]}, "count, sort, x"),
        ("s.zarr", "e.zarr", {"variables": ["status"]}, "count, sort, x"),
        ("s.zarr", "s.zarr/sub/e.nc", {}, "outside any Zarr hierarchy"),
        ("s.zarr", "e.nc", {"shards": True}, "one file as it is"),
        ("s.zarr", "file/e.nc", {}, "not a folder"),
        ("gone.zarr", "e.zarr", {}, "there is none"),
        ("other.zarr", "e.zarr", {}, "some other Zarr group"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(
    store: Path, tmp_path: Path, source: str, output: str, options: dict[str, Any], words: str
) -> None:
    (tmp_path / "file").write_text("")
    zarr.create_group(tmp_path / "other.zarr")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ParameterError, match=re.escape(words)) as caught:
        export_store(tmp_path / source, tmp_path / output, **options)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_is_not_taken_for_a_store(store: Path, tmp_path: Path) -> None:
    export_store(store, tmp_path / "e.zarr")
    with pytest.raises(ParameterError, match="some other Zarr group"):
        xr.open_dataset(tmp_path / "e.zarr", engine="bendscape")


def test_netcdf_without_its_library_names_the_remedy(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"pip install 'bendscape\[netcdf\]'"):
        export_store(store, tmp_path / "e.nc")
    export_store(store, tmp_path / "e.zarr")
