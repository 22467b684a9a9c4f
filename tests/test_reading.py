"""Reading a store: damaged tiles, integers of absent cells, unwanted cells, forks, chunks, groups, and
opening it without the engine."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import obstore
import pytest
import xarray as xr
from command_line import bendscape
from zarr.storage import LocalStore

from bendscape.analysis.dataset.counts import share_done
from bendscape.analysis.dataset.export import export_store
from bendscape.analysis.open import BendscapeBackend
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.kernels.quadratic import AXES
from bendscape.sweep.location import folder_of, store_url
from bendscape.sweep.store import objects
from bendscape.sweep.store.compare_and_swap import Reading
from bendscape.sweep.store.fsck import fsck
from bendscape.sweep.store.ledger import DamageWarning
from bendscape.sweep.store.objects import Damaged, connect
from bendscape.sweep.store.root import open_store, read_store
from campaigns import RANDOM, campaign_text, make_campaign, run, write_kernel

if TYPE_CHECKING:
    from s3_server import S3Server

KernelFile = Callable[..., str]
VARIABLES = (
    'Variable("x", "a number"), Variable("count", "how many", "int64"), Variable("sort", "kind", "int8")'
)
VALUES = """
if cell.seed == 2 and cell.alpha == 0.8 and cell.a == 1.5:
    raise ArithmeticError("no luck")
return Outcome({"x": rng.normal(), "count": 10 + cell.seed, "sort": cell.p}, converged=cell.seed != 1)
"""
GRID = {"a": [0.7, 1.5], "N": [64, 128], "seeds": "{ 64 = 6, 128 = 3 }", "where": "a < 1 or N < 128"}


@pytest.fixture
def module(kernel_file: KernelFile) -> str:
    return kernel_file(VALUES, VARIABLES)


@pytest.fixture
def filled(url: str, module: str) -> str:
    """On files and on S3: unequal seeds, a hole, failed and unconverged cells."""
    run(url, module, make_campaign(**GRID))
    return url


@pytest.fixture
def store(tmp_path: Path, module: str) -> Path:
    """On files."""
    run(tmp_path / "f.zarr", module, make_campaign(**GRID))
    return tmp_path / "f.zarr"


def opened(store: Path | str, **options: Any) -> xr.Dataset:
    return xr.open_dataset(store, engine="bendscape", **options)


def forget(store: Path, N: int) -> None:
    """Half of the seeds of one size, as if they were still to come."""
    for segment in (store / "ledger" / "segments").iterdir():
        lines = [json.loads(line) for line in segment.read_text().splitlines()]
        for line in lines:
            if line["tile"].startswith(f"N={N}/"):
                line["done"] = f"{int(line['done'], 16) & int('07' * 8, 16):x}"
        segment.write_text("".join(json.dumps(line) + "\n" for line in lines))


# -- the root


def by_engine(url: str) -> None:
    opened(url).load()


def failed(url: str) -> None:
    assert opened(url, group="errors").sizes["failure"] == 1


def an_earlier_revision(url: str) -> None:
    opened(url, revision=1)


def a_tree(url: str) -> None:
    xr.open_datatree(url, engine="bendscape")


def stands(url: str) -> None:
    assert bendscape("status", url, "--tiles", "--json").returncode == 0


def listed(url: str) -> None:
    assert bendscape("errors", url, "--json").returncode == 0


def exported(url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        export_store(url, Path(folder) / "whole.zip")


def checked(url: str) -> None:
    assert fsck(url).sound


READERS = [by_engine, failed, an_earlier_revision, a_tree, stands, listed, exported, checked]


@pytest.fixture(scope="module")
def counted(s3_session: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store of six cells, one of them failed, where every read is counted."""
    url, module = s3_session.new_url(), write_kernel(tmp_path_factory.mktemp("k"), VALUES, VARIABLES)
    run(url, module, make_campaign(p=[1], a=[0.7, 1.5], alpha=[0.8], N=[64], seeds=3))
    return url


@pytest.mark.parametrize("reader", READERS, ids=[reader.__name__ for reader in READERS])
def test_every_reader_reads_the_root_once(s3: S3Server, counted: str, reader: Callable[[str], None]) -> None:
    s3.requests.clear()
    reader(counted)
    read = [path for method, path in s3.requests if method == "GET"]
    assert sum(path.endswith("sweep.zarr/zarr.json") for path in read) == 1, read


def test_cells_and_failures_of_a_store_that_was_opened_once_are_of_the_same_moment(
    store: Path, module: str
) -> None:
    held = open_store(store)
    ds = opened(held)
    run(store, module, make_campaign(**(GRID | {"alpha": [0.8, 1.0, 1.4]})))
    assert opened(store).sizes["alpha"] == 3
    assert opened(held).sizes == ds.sizes
    xr.testing.assert_identical(opened(held).load(), ds.load())


# -- refined campaigns


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_of_a_refined_store_no_absent_chunk_is_asked_for(
    url: str, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """One point of six has 40 times the seeds of the others: most of the array is absent."""
    more = "\n[[more]]\np = 1\np_star = 1\na = 0.7\nalpha = [1.0]\nN = [64]\nseeds = 400\n"
    module = kernel_file(RANDOM)
    run(url, module, parse_campaign(campaign_text(p=[1], a=[0.7], seeds=10) + more))
    there = {each["path"] for part in obstore.list(connect(url)) for each in part if "/x/c/" in each["path"]}
    asked: list[str] = []
    reader = LocalStore if folder_of(url) else Reading
    get = reader.get

    async def counted(self: Any, key: str, *arguments: Any, **options: Any) -> Any:
        asked.append(key)
        return await get(self, key, *arguments, **options)

    ds = opened(url)
    one_by_one = [ds.x.isel(alpha=[k]).load().values for k in range(3)]
    if damaged:
        obstore.delete(connect(url), "N=64/x/c/0/0/0/1/0")
    monkeypatch.setattr(reader, "get", counted)
    with pytest.warns(DamageWarning, match="x missing") if damaged else nullcontext():
        x = opened(url).x.load()
    chunks = {key for key in asked if "/x/c/" in key}
    assert chunks
    assert chunks <= there
    assert np.isfinite(x.sel(alpha=0.8)).sum() == 20
    lost = np.isnan(x.values) & np.isfinite(np.concatenate(one_by_one, axis=3))
    assert lost.any() == damaged
    np.testing.assert_array_equal(x.values[~lost], np.concatenate(one_by_one, axis=3)[~lost])


# -- damaged tiles


def test_a_tile_without_one_of_its_chunks_is_left_out_with_a_warning_that_names_it(filled: str) -> None:
    whole = opened(filled).load()
    obstore.delete(connect(filled), "N=64/x/c/0/0/1/0/0")
    ds = opened(filled)
    with pytest.warns(DamageWarning, match=r"N=64/0\.0\.1\.0\.0: x missing.*bendscape fsck --repair"):
        x = ds.x.load()
    lost = {"p": 1, "p_star": 1, "a": 1.5, "alpha": 0.8, "N": 64}
    assert np.isnan(x.sel(lost)).all()
    assert not (ds.status.sel(lost) == 1).any(), "nothing else calls them done"
    assert np.isnan(ds["count"].sel(lost)).all()
    rest = xr.ones_like(whole.x, bool)
    rest.loc[lost] = False
    xr.testing.assert_identical(x.where(rest), whole.x.where(rest))
    xr.testing.assert_identical(ds.status.where(rest), whole.status.where(rest))


def test_on_files_a_missing_chunk_shows_in_the_status_before_its_variable_is_read(store: Path) -> None:
    shutil.rmtree(store / "N=64" / "count" / "c" / "1")
    ds = opened(store)
    with pytest.warns(DamageWarning, match=r"N=64/1\.0\.0\.0\.0: count missing; .* and 3 more tiles"):
        status = ds.status.load()
    assert (status.sel(p=2, N=64) == 0).all(), "absent, failed cells of these tiles too"
    assert float(ds.coverage.sel(p=2, N=64).max()) == 0
    assert share_done(ds, ("alpha", "N", "seed")).sel(p=2, a=1.5).item() == 0


@pytest.mark.parametrize(
    ("url", "content"),
    [("files", b""), ("files", b"half"), ("files", None), ("s3", None)],
    ids=["files-empty", "files-garbage", "files-truncated", "s3-truncated"],
    indirect=["url"],
)
def test_a_chunk_that_cannot_be_read_is_left_out_with_a_warning_that_names_it(
    filled: str, content: bytes | None
) -> None:
    whole = opened(filled).load()
    there, path = connect(filled), "N=64/x/c/1/0/0/0/0"
    found = bytes(obstore.get(there, path).bytes())
    obstore.put(there, path, found[: len(found) // 2] if content is None else content)
    ds = opened(filled, chunks={})
    with pytest.warns(DamageWarning, match=r"N=64/1\.0\.0\.0\.0: x cannot be read.*fsck"):
        x = ds.x.compute()
    lost = {"p": 2, "a": 0.7, "alpha": 0.8, "N": 64}
    assert np.isnan(x.sel(lost)).all()
    same = ~((whole.p == 2) & (whole.a == 0.7) & (whole.alpha == 0.8) & (whole.N == 64))
    xr.testing.assert_identical(x.where(same), whole.x.where(same))
    assert not (ds.status.sel(lost) == 1).any()


def test_after_fsck_and_another_run_everything_is_as_it_was(store: Path, module: str) -> None:
    whole = opened(store).load()
    (store / "N=64" / "x" / "c" / "0" / "0" / "0" / "0" / "0").write_bytes(b"half")
    (store / "N=128" / "status" / "c" / "1" / "0" / "0" / "0" / "0").unlink()
    fsck(store, repair=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert int((opened(store).status == 0).sum()) > 0
    run(store, module, make_campaign(**GRID))
    xr.testing.assert_equal(opened(store).load(), whole)


def test_a_tile_of_only_nan_is_not_damage(tmp_path: Path, kernel_file: KernelFile) -> None:
    run(tmp_path / "s.zarr", kernel_file("return Outcome({'x': math.nan})"), make_campaign(p=[1]))
    assert bool((opened(tmp_path / "s.zarr").load().status == 1).all())


def test_theory_that_is_missing_is_an_error_with_its_remedy(store: Path) -> None:
    shutil.rmtree(store / "alpha_bbp" / "c")
    with pytest.raises(Damaged, match=r"alpha_bbp of the store is damaged: .* fsck --repair"):
        opened(store)
    (store / "alpha_bbp" / "c" / "0" / "0").mkdir(parents=True)
    (store / "alpha_bbp" / "c" / "0" / "0" / "0").write_bytes(b"half")
    with pytest.raises(Damaged, match="alpha_bbp"):
        opened(store)
    fsck(store, repair=True)
    assert np.isfinite(opened(store).alpha_bbp).all()


# -- integers of absent cells, and unwanted cells


def test_integers_of_absent_cells_are_nan_in_every_statistic(store: Path) -> None:
    forget(store, 64)
    ds = opened(store, chunks={})
    done = ds.status.isin([1, 3])
    seeds = ds.seed.broadcast_like(done).where(done)
    assert ds["count"].dtype == np.float64
    assert float(ds["count"].mean()) == float((10 + seeds).mean()) != 0
    assert float(ds["count"].min()) == 10
    xr.testing.assert_equal(ds["count"].notnull(), done)
    assert ds.sort.dtype == np.float32
    assert sorted(np.unique(ds.sort.values[~np.isnan(ds.sort.values)])) == [1, 2]


def test_stored_integers_have_a_fill_value_of_their_own(store: Path) -> None:
    raw, ds = opened(store, mask_and_scale=False).load(), opened(store).load()
    for name, dtype in (("count", np.int64), ("sort", np.int8)):
        assert raw[name].dtype == dtype
        assert raw[name].attrs["_FillValue"] == np.iinfo(dtype).min
    xr.testing.assert_identical(xr.decode_cf(raw), ds)
    assert opened(store, decode_cf=False)["count"].dtype == np.int64


def test_integers_that_floats_round_give_a_warning(tmp_path: Path, kernel_file: KernelFile) -> None:
    body = 'return Outcome({"count": 2**53 + 1 + cell.seed})'
    run(tmp_path / "s.zarr", kernel_file(body, 'Variable("count", "how many", "int64")'), make_campaign())
    with pytest.warns(UserWarning, match=r"above 2\^53.*mask_and_scale=False"):
        opened(tmp_path / "s.zarr").load()
    exact = opened(tmp_path / "s.zarr", mask_and_scale=False)["count"].sel(p=1)
    assert exact.isel(seed=2).max().item() == 2**53 + 3


def test_integers_and_status_survive_netcdf_and_zarr_as_they_are(store: Path, tmp_path: Path) -> None:
    forget(store, 64)
    ds = opened(store).load()
    ds.to_netcdf(tmp_path / "a.nc")
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    saved = {
        "a.nc": xr.open_dataset(tmp_path / "a.nc", mask_and_scale=False),
        "a.zarr": xr.open_zarr(tmp_path / "a.zarr", consolidated=False, mask_and_scale=False),
    }
    for raw in saved.values():
        assert raw["count"].dtype == np.int64
        xr.testing.assert_equal(xr.decode_cf(raw), ds)
        raw.close()


def test_the_status_distinguishes_unwanted_cells_from_cells_not_yet_computed(store: Path) -> None:
    forget(store, 64)
    status = opened(store).status
    codes = dict(zip(status.attrs["flag_meanings"].split(), status.attrs["flag_values"], strict=True))
    assert codes == {"absent": 0, "done": 1, "failed": 2, "not_converged": 3, "not_wanted": -1}
    assert (status.sel(N=128, seed=slice(3, None)) == codes["not_wanted"]).all(), "seeds beyond its own"
    assert (status.sel(N=128, a=1.5) == codes["not_wanted"]).all(), "left out by where"
    assert (status.sel(N=64, seed=slice(3, None), a=0.7) == codes["absent"]).all(), "still to come"
    asked = opened(store).wanted & (status.seed < opened(store).n_seeds)
    xr.testing.assert_equal((status != codes["not_wanted"]).drop_vars("wanted"), asked.drop_vars("wanted"))
    assert int(asked.sum()) == make_campaign(**GRID).to_grid(AXES).cell_count()


def test_the_fraction_done_refers_to_wanted_cells_however_the_dataset_is_masked(store: Path) -> None:
    forget(store, 64)
    ds = opened(store)
    share = share_done(ds, ("alpha", "N", "seed"))
    xr.testing.assert_equal(share_done(ds.where(ds.status == 1), ("alpha", "N", "seed")), share)
    at = share.sel(p=1, p_star=1, a=1.5).item()  # seeds 0 to 2, less the failed one and the unconverged
    assert at == pytest.approx((3 * 2 - 1) / 18)


# -- forks

FORK = """
import multiprocessing, sys
import dask, xarray as xr

def mean(ds):
    return float(ds.x.mean())

def of_store(url):
    return mean(xr.open_dataset(url, engine="bendscape", chunks={}))

def of_before(_):
    return [mean(ds) for ds in before]

if __name__ == "__main__":
    url = sys.argv[1]
    here = of_store(url)  # every thread there is has started
    before = [xr.open_dataset(url, engine="bendscape", chunks=chunks) for chunks in (None, {})]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for function in (of_store, of_before):
            try:
                print(pool.apply_async(function, (url,)).get(timeout=60), here)
            except Exception as error:
                print(type(error).__name__, error)
    with dask.config.set(scheduler="processes", num_workers=2):
        print(mean(xr.open_dataset(url, engine="bendscape", chunks={})), here)
"""


def in_a_fork(url: str, tmp_path: Path) -> list[str]:
    (tmp_path / "fork.py").write_text(FORK)
    command = [sys.executable, str(tmp_path / "fork.py"), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_store_on_files_is_read_in_forked_processes_before_and_after_the_fork(
    store: Path, tmp_path: Path
) -> None:
    fresh, before, spawned = in_a_fork(str(store), tmp_path)
    value = fresh.split()[1]
    assert fresh == f"{value} {value}"
    assert before == f"[{value}, {value}] {value}"
    assert spawned == f"{value} {value}"


def test_a_forked_process_is_told_at_once_that_it_cannot_read_an_object_store(
    s3_url: str, module: str, tmp_path: Path
) -> None:
    run(s3_url, module, make_campaign(**GRID))
    fresh, before, spawned = in_a_fork(s3_url, tmp_path)
    for words in (fresh, before):
        assert words.startswith("ParameterError")
        assert 'multiprocessing.get_context("spawn")' in words
    assert spawned.split()[0] == spawned.split()[1]


def test_a_process_that_is_a_fork_of_a_writer_does_not_write(
    store: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "_client_of", os.getpid() + 1)
    with pytest.raises(ParameterError, match="spawn"):
        run(store, module, make_campaign(**GRID, alpha=[0.8, 1.0, 1.2, 1.3]))
    assert float(opened(store).x.mean()) != 0


# -- features of xarray


def test_chunks_are_consistent_so_that_blocks_can_be_mapped(store: Path) -> None:
    ds = opened(store, chunks={})
    assert ds.chunks["N"] == (1, 1)
    assert ds.chunks["seed"] == (6,)
    mapped = ds.map_blocks(lambda block: block[["x"]].mean("seed"))
    xr.testing.assert_allclose(mapped.compute(), opened(store)[["x"]].mean("seed"))
    assert opened(store, chunks={"N": 2}).chunks["N"] == (2,)
    assert opened(store, chunks={}, mask_and_scale=False).chunks == ds.chunks


def test_variables_and_coordinates_are_dropped_when_asked(store: Path) -> None:
    ds = opened(store, drop_variables=["x", "n_seeds", "seed", "lambda_star"])
    assert not {"x", "n_seeds", "seed", "lambda_star"} & set(ds.variables)
    assert "count" in ds
    assert "wanted" in ds.coords
    assert "x" not in opened(store, drop_variables="x")
    assert "host" not in opened(store, group="errors", drop_variables="host")


def test_a_tree_holds_the_cells_and_the_errors(store: Path) -> None:
    for options in ({}, {"chunks": {}}, {"drop_variables": ["sort"]}):
        tree = xr.open_datatree(store, engine="bendscape", **options)
        xr.testing.assert_identical(tree["cells"].to_dataset(), opened(store, **options))
        errors = opened(store, group="errors", **options)
        xr.testing.assert_identical(tree["errors"].to_dataset(), errors)
        assert errors.sizes["failure"] == 2
        assert tree.attrs["kernel"] == "probe"
    assert xr.open_groups(store, engine="bendscape").keys() == {"/", "/cells", "/errors"}
    assert BendscapeBackend.supports_groups


def test_opened_without_the_engine_a_store_says_how_to_open_its_cells(store: Path, module: str) -> None:
    for _ in range(2):
        assert 'engine="bendscape"' in xr.open_dataset(store).attrs["comment"]
        assert "comment" not in opened(store).attrs
        document = json.loads((store / "zarr.json").read_text())
        del document["attributes"]["comment"]  # as an older version left it
        (store / "zarr.json").write_text(json.dumps(document))
        assert "comment" not in xr.open_dataset(store).attrs
        run(store, module, make_campaign(**GRID, alpha=[0.8, 1.0, 1.2, 1.4]))
        run(store, module, make_campaign(**GRID, alpha=[0.8, 1.0, 1.2, 1.4, 1.6]))
    assert read_store(store_url(store)) is not None


def test_an_axis_of_rounded_values_says_how_to_select_your_own_values(tmp_path: Path, module: str) -> None:
    own = np.linspace(0.7, 1.3, 7)
    alpha = "{ start = 0.7, stop = 1.3, num = 7 }"
    run(tmp_path / "s.zarr", module, make_campaign(alpha=alpha, N=[64], p=[1]))
    ds = opened(tmp_path / "s.zarr")
    with pytest.raises(KeyError):
        ds.sel(alpha=own)
    assert 'method="nearest"' in ds.alpha.attrs["comment"]
    assert 'method="nearest"' in ds.a.attrs["comment"]
    assert "comment" not in ds.p.attrs
    np.testing.assert_allclose(ds.sel(alpha=own, method="nearest").alpha, own, rtol=1e-11)


def test_dask_and_multiprocessing_behave_as_these_tests_assume() -> None:
    assert multiprocessing.get_start_method() == "fork"
    assert dask.config.get("scheduler", None) is None
