"""A store on S3 behaves like any other, and its credentials are never written or shown."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import xarray as xr
from command_line import bendscape, process
from s3_server import BUCKET, SECRET, S3Server

import campaigns
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.tiles import TileKey
from bendscape.sweep.engine.executor import Job
from bendscape.sweep.engine.worker import Order
from bendscape.sweep.location import store_url
from bendscape.sweep.store.compare_and_swap import zarr_store
from bendscape.sweep.store.ledger import LeaseHeld, Ledger
from bendscape.sweep.store.objects import connect, probe
from bendscape.sweep.store.publish import silence_zarr
from bendscape.sweep.store.records import Receipt
from campaigns import RANDOM, all_objects, calls, campaign_text, data_files, make_campaign, run

KernelFile = Callable[..., str]
CELLS = 2 * 2 * 3 * 2 * 6


# -- the guarantees of the engine, on S3


@pytest.mark.parametrize("jobs", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_driver_killed_on_s3_is_finished_by_the_same_run_with_the_bits_of_plain_files(
    tmp_path: Path, s3_url: str, kernel_file: KernelFile, jobs: int
) -> None:
    module = kernel_file(RANDOM)
    run(tmp_path / "serial.zarr", module, make_campaign())
    for path in (Path(module).parent / "calls").iterdir():
        path.unlink()
    script = Path(campaigns.__file__)
    dead = subprocess.run([sys.executable, script, s3_url, module, str(jobs)], timeout=120, check=False)
    assert dead.returncode == -signal.SIGKILL
    before = calls(module)
    summary = run(s3_url, module, make_campaign())
    assert summary.outcome == "complete"
    assert data_files(s3_url) == data_files(tmp_path / "serial.zarr")
    assert set(calls(module).values()) == {1}, "a cell was computed twice"
    assert sum(before.values()) + summary.computed == CELLS


def test_a_store_on_s3_is_extended_by_computing_only_new_cells(
    tmp_path: Path, s3_url: str, kernel_file: KernelFile
) -> None:
    module = kernel_file(RANDOM)
    run(s3_url, module, make_campaign(p=[1], N=[64], seeds=3))
    wider = {"p": [1, 2], "alpha": [0.8, 0.9, 1.0, 1.2], "N": [32, 64], "seeds": 4}
    summary = run(s3_url, module, make_campaign(**wider))
    assert summary.computed == 2 * 2 * 4 * 2 * 4 - 2 * 3 * 3
    assert set(calls(module).values()) == {1}
    run(tmp_path / "fresh.zarr", module, make_campaign(**wider))
    with (
        xr.open_dataset(s3_url, engine="bendscape", chunks={}) as grown,
        xr.open_dataset(tmp_path / "fresh.zarr", engine="bendscape") as fresh,
    ):
        xr.testing.assert_equal(grown.load(), fresh.load())


def test_failed_cells_on_s3_keep_their_errors_until_a_retry_succeeds(
    tmp_path: Path, s3_url: str, kernel_file: KernelFile
) -> None:
    module = kernel_file(f"if cell.seed == 2 and attempt < 3:\n    raise ValueError('no luck')\n{RANDOM}")
    assert run(s3_url, module, make_campaign(N=[64])).failed == CELLS // 12
    assert run(s3_url, module, make_campaign(N=[64])).computed == 0
    ledger = Ledger(connect(s3_url))
    ledger.replay()
    assert {(error.error, error.message) for error in ledger.records.errors()} == {("ValueError", "no luck")}
    assert run(s3_url, module, make_campaign(N=[64]), retry_failed=True).failed == CELLS // 12
    assert run(s3_url, module, make_campaign(N=[64]), retry_failed=True).outcome == "complete"
    run(tmp_path / "serial.zarr", kernel_file(RANDOM), make_campaign(N=[64]))
    assert data_files(s3_url) == data_files(tmp_path / "serial.zarr")


def test_a_second_driver_on_s3_is_refused_while_the_first_is_alive(
    s3_url: str, kernel_file: KernelFile
) -> None:
    first = Ledger(connect(s3_url))
    first.acquire(print)
    with pytest.raises(LeaseHeld, match="stop that run, or wait for it"):
        run(s3_url, kernel_file(RANDOM), make_campaign())
    first.release()
    assert run(s3_url, kernel_file(RANDOM), make_campaign(N=[64])).outcome == "complete"


def test_an_unconfirmed_write_is_not_mistaken_for_that_of_another_driver(s3: S3Server, s3_url: str) -> None:
    ledger = Ledger(connect(s3_url))
    ledger.acquire(print)
    vars(ledger)["_newest_epoch"] = lambda: 1  # so that the write is the next request, which is obeyed
    ledger.add([Receipt("N=64/0.0.0.0.0", 0b11)])
    s3.requests.clear()
    s3.failing = True
    again = threading.Timer(0.5, setattr, (s3, "failing", False))
    again.start()
    ledger.flush()
    again.join()
    assert [method for method, path in s3.requests if "segments" in path][:2] == ["PUT", "PUT"]
    ledger.release()
    reader = Ledger(connect(s3_url))
    reader.replay()
    assert reader.records.masks(TileKey(64, (0, 0, 0, 0, 0))) == (0b11, 0)


# -- every command, and the secret nowhere


@pytest.mark.ray
def test_every_command_works_on_s3_and_the_secret_is_nowhere(
    tmp_path: Path, s3_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A serial run, then one in processes and one on Ray that add seeds; everything else in this process."""
    few, more, file = (tmp_path / f"{name}.toml" for name in ("few", "more", "c"))
    page = tmp_path / "report.html"
    grid: dict[str, Any] = {"p": [1], "a": [0.7], "alpha": "{ start = 0.6, stop = 2.6, num = 5 }"}
    text = campaign_text(**grid, N=[32, 64], seeds=10).replace('kernel = "probe"', 'kernel = "hessian"')
    file.write_text(text.replace("unused", s3_url))
    few.write_text(file.read_text().replace("seeds = 10", "seeds = 5"))
    more.write_text(file.read_text().replace("seeds = 10", "seeds = 8"))
    said = []
    for call, *command in (
        (bendscape, "plan", few),
        (bendscape, "run", few, "--address", "serial"),
        (process, "run", more, "--address", "local", "--workers", 1),
        (process, "run", file, "--address", "ray", "--workers", 1),
        (bendscape, "plan", file),
        (bendscape, "status", s3_url),
        (bendscape, "errors", s3_url),
        (bendscape, "thresholds", s3_url),
        (bendscape, "report", s3_url, "-o", page),
    ):
        done = call(*command, "--json")
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
        json.loads(done.stdout)
    assert json.loads(said[5].partition("\n}")[0] + "\n}")["done"] == 100
    run(tmp_path / "files.zarr", "", campaigns.parse_campaign(text))
    with (
        xr.open_dataset(s3_url, engine="bendscape", chunks={}) as ds,
        xr.open_dataset(tmp_path / "files.zarr", engine="bendscape") as files,
    ):
        same = [name for name in ds.data_vars if name != "seconds"]
        xr.testing.assert_equal(ds[same].load(), files[same].load())
        assert SECRET not in repr(ds) + str(ds.attrs)
    everything = b"".join(all_objects(f"s3://{BUCKET}").values())
    assert len(everything) > 1000
    assert SECRET.encode() not in everything
    assert SECRET not in "".join([*said, *capfd.readouterr()]) + page.read_text()


def test_plain_xarray_opens_a_store_on_s3(s3_url: str, kernel_file: KernelFile) -> None:
    run(s3_url, kernel_file(RANDOM), make_campaign())
    silence_zarr()
    with xr.open_datatree(zarr_store(s3_url), engine="zarr") as tree:
        assert sorted(tree.children) == ["N=128", "N=64"]
        assert int((tree["N=64"].status == 1).sum()) == CELLS // 2


def test_nothing_sent_to_a_worker_contains_credentials(s3: S3Server, s3_url: str) -> None:
    order = Order(s3_url, 1, ("kernel",), (("N=64/0.0.0.0.0", 1),))
    connect(s3_url)
    for thing in (order, Job(order, 1)):
        for dumped in (pickle.dumps(thing), cloudpickle.dumps(thing)):
            assert SECRET.encode() not in dumped
    assert SECRET not in repr(connect(s3_url)) + repr(zarr_store(s3_url))


# -- what is refused, in one line


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:hush@bucket/x",
        "s3://AKIA:hu/sh@bucket/x",
        "s3://hush@bucket",
        "s3://bucket/x?secret_access_key=hush",
        "s3://bucket:hush/x",
        "ftp://user:hush@host/x",
        "file://user:hush@host/x",
    ],
)
def test_a_url_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ParameterError) as caught:
        store_url(url)
    assert not re.search("hu|sh@|AKIA", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_campaign_file_with_credentials_is_refused_and_not_kept(tmp_path: Path) -> None:
    file, store = tmp_path / "c.toml", tmp_path / "s.zarr"
    text = campaign_text().replace("unused", "s3://AKIA:hush@bucket/x")
    file.write_text(text.replace('kernel = "probe"', 'kernel = "hessian"'))
    done = bendscape("run", file, "--store", store)
    assert done.returncode == 2
    assert "hush" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not store.exists()


def test_an_endpoint_that_is_down_denies_or_has_no_bucket_fails_in_one_line(
    tmp_path: Path, s3: S3Server, s3_url: str, kernel_file: KernelFile
) -> None:
    file, module = tmp_path / "c.toml", kernel_file(RANDOM)
    file.write_text(campaign_text(N=[64]))
    command = ["run", file, "--address", "serial", "--kernel-module", module, "--store"]
    nowhere = f"s3://{BUCKET}-that-is-not-there/x"
    for arguments, code, environment in (
        ([*command, s3_url], 74, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}),
        (["status", s3_url], 74, {"AWS_ACCESS_KEY_ID": "AKIAWRONG"}),
        ([*command, nowhere], 2, {}),
    ):
        done = process(*arguments, env={**os.environ, **environment})
        assert done.returncode == code, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("error: ")
        assert SECRET not in done.stdout + done.stderr
    assert all_objects(s3_url) == {}
    assert calls(module) == {}


@pytest.mark.parametrize("ignored", [("If-None-Match",), ("If-Match",), ("If-None-Match", "If-Match")])
def test_a_server_that_ignores_conditions_is_refused_before_anything_is_written(
    s3: S3Server, s3_url: str, kernel_file: KernelFile, ignored: tuple[str, ...]
) -> None:
    s3.ignored = ignored
    with pytest.raises(ParameterError, match=f"{ignored[0]} is ignored") as caught:
        run(s3_url, kernel_file(RANDOM), make_campaign())
    assert "\n" not in str(caught.value)
    assert all_objects(s3_url) == {}


def test_the_probe_accepts_files_and_s3_and_leaves_nothing(tmp_path: Path, s3_url: str) -> None:
    for url in (s3_url, store_url(tmp_path)):
        probe(url)
        assert all_objects(url) == {}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_files_without_locks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("bendscape.sweep.store.objects.fcntl.flock", no_locks)
    with pytest.raises(ParameterError, match="No locks available"):
        probe(store_url(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
