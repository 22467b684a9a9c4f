"""Two drivers on one store: the second is refused, and with every guard off they still corrupt nothing.

python tests/test_two_drivers.py     a driver without guards: a line of JSON a run, answered by its outcome
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import random
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from command_line import BENDSCAPE, bendscape

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.tiles import TileKey
from bendscape.sweep.engine import run as run_module
from bendscape.sweep.store import compare_and_swap as conditional
from bendscape.sweep.store import ledger as ledger_module
from bendscape.sweep.store.compare_and_swap import zarr_store
from bendscape.sweep.store.fsck import fsck
from bendscape.sweep.store.ledger import LeaseHeld, LeaseLost, Ledger
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.records import Receipt
from bendscape.sweep.store.tile_store import TileStore
from campaigns import IdleExecutor, calls, campaign_text, data_files, make_campaign, run

KernelFile = Callable[..., str]
VARIABLES = "Variable('x', 'a number'), Variable('t', 'when')"
# Other bits whenever a cell is computed, like the seconds that real kernels store: a tile must keep one.
JITTER = "import random\ntime.sleep(float(os.environ.get('JITTER', 0)) * random.random())"
BODY = f"{JITTER}\nreturn Outcome({{'x': rng.normal() + cell.alpha, 't': time.time()}})"
ONCE = f"if cell.seed == 1 and attempt == 1:\n    raise ValueError('no luck')\n{BODY}"
SMALL: dict[str, Any] = {"p": [1], "a": [0.7, 1.5], "alpha": [0.6, 0.8, 1.0, 1.2, 1.4], "N": [64], "seeds": 2}
NARROW: dict[str, Any] = {**SMALL, "alpha": [0.8, 1.2], "seeds": 9}  # blocks of five: the second holds four
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {  # of either driver; with --retry-failed
    "one campaign": ({**SMALL, "N": [64, 128]}, {**SMALL, "N": [64, 128]}, False),
    "values and sizes": (SMALL, {**SMALL, "alpha": [0.6, 0.8, 0.9, 1.0, 1.2, 1.4], "N": [32, 64]}, False),
    "seeds": (NARROW, {**NARROW, "a": [0.7, 1.0, 1.5], "seeds": 10}, False),
    "failed cells": ({**SMALL, "N": [64, 128]}, {**SMALL, "N": [64, 128]}, True),
}


class Unguarded:
    """A driver process that ignores leases."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "JITTER": "0.02"},
        )

    def run(self, **what: Any) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        outcome: str = json.loads(self.process.stdout.readline())
        return outcome

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def drivers(s3_session: Any) -> Iterator[list[Unguarded]]:
    made = [Unguarded(), Unguarded()]
    yield made
    for driver in made:
        driver.close()


class Reader:
    """Opens the dataset in a loop, and checks what it sees against itself and against what it saw."""

    def __init__(self, url: str) -> None:
        self.url, self.looks, self.done = url, 0, set[tuple[float, ...]]()
        self._end = threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self._loop = self._thread.submit(self._read)

    def _read(self) -> None:
        while not self._end.is_set():
            try:
                ds = xr.open_dataset(self.url, engine="bendscape")
            except ParameterError as error:
                if "there is none" not in str(error):
                    raise
                time.sleep(0.01)  # nothing is published yet
                continue
            began = time.monotonic()
            with ds:
                self.look(ds.load())
            self._end.wait(time.monotonic() - began)  # the server of objects is in this process, and busy

    def look(self, ds: xr.Dataset) -> None:
        done = ds.status == 1
        for name in ("x", "t"):
            assert (done == ds[name].notnull()).all(), "status and values disagree"
        index = done.to_series()
        now = set(index.index[index.to_numpy()])
        gone = (self.done & set(index.index)) - now
        assert not gone, f"{len(gone)} cells that were done are not any more"
        self.done |= now
        self.looks += 1

    def close(self) -> None:
        self._end.set()
        self._thread.shutdown()
        self._loop.result()


def whole(store: str | Path) -> dict[str, Any]:
    """The dataset as bytes, without what differs each time that a cell is computed."""
    with xr.open_dataset(store, engine="bendscape") as ds:
        variables = ds.drop_vars("t").load().variables
        return {name: (v.dims, v.dtype, v.shape, v.values.tobytes()) for name, v in variables.items()}


def together(drivers: list[Unguarded], url: str, module: str, case: str, trial: int) -> None:
    """Both drivers at once, an ordinary run to the end, and all that must hold."""
    first, second, retry = CASES[case]
    rng = random.Random(f"{case} {trial}")
    jobs: list[dict[str, Any]] = [
        {"grid": grid, "delay": delay, "seed": rng.random(), "retry_failed": retry and grid is second}
        for grid, delay in ((first, 0.0), (second, rng.choice([0.0, 0.0, 0.1, 0.5]) * rng.random()))
    ]
    if trial % 2:  # else they meet at the making of the store
        run(url, module, make_campaign(**first), IdleExecutor())
    reader = Reader(url)
    with ThreadPoolExecutor(2) as pool:
        rng.shuffle(jobs)
        runs = [
            pool.submit(d.run, url=url, module=module, **job) for d, job in zip(drivers, jobs, strict=True)
        ]
        outcomes = [each.result(timeout=120) for each in runs]
    allowed = {"complete", "LeaseLost", *(["failed cells"] if retry else [])}
    assert set(outcomes) <= allowed, "\n".join(outcomes)
    before = fsck(url)
    assert not before.absent, "recorded as finished, and absent"
    assert not before.damaged
    summary = run(url, module, make_campaign(**second), retry_failed=retry)
    reader.close()
    assert reader.looks
    assert summary.outcome == "complete"
    found = fsck(url)
    assert found.sound, found
    fresh = Path(module).parent / "fresh.zarr"
    plain = module.replace("kernel_v1.py", "plain.py")
    Path(plain).write_text(Path(module).read_text().replace("attempt == 1", "False"))
    assert run(fresh, plain, make_campaign(**second)).outcome == "complete"
    assert whole(url) == whole(fresh)
    if first == second:  # else the axes may lie in another order in storage
        files = [
            {name: content for name, content in data_files(store).items() if "/t/" not in name}
            for store in (url, fresh)
        ]
        assert files[0] == files[1]
    print(case, trial, outcomes, reader.looks, "looks")


@pytest.mark.parametrize(
    ("url", "case"),
    [*(("files", case) for case in CASES), ("s3", "failed cells")],
    indirect=["url"],
)
def test_two_drivers_without_guards_corrupt_nothing(
    drivers: list[Unguarded], url: str, kernel_file: KernelFile, case: str
) -> None:
    # Where they meet at the making of a store of files, they meet later on S3, and the other way round.
    trial = (list(CASES).index(case) + url.startswith("s3")) % 2
    together(drivers, url, kernel_file(ONCE if CASES[case][2] else BODY, VARIABLES), case, trial)


@pytest.mark.slow
@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("trial", range(22))
def test_two_drivers_without_guards_corrupt_nothing_at_whatever_moment(
    drivers: list[Unguarded], url: str, kernel_file: KernelFile, case: str, trial: int
) -> None:
    together(drivers, url, kernel_file(ONCE if CASES[case][2] else BODY, VARIABLES), case, trial)


# -- one driver takes over from the other at the worst moments


def test_a_driver_that_was_taken_over_while_it_published_destroys_nothing(
    url: str, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As one on a suspended machine: it has looked at the store, another grows and fills it, it wakes up.
    module = kernel_file(BODY, VARIABLES)
    run(url, module, make_campaign(**SMALL), IdleExecutor())
    first = {**SMALL, "alpha": [*SMALL["alpha"], 1.6], "N": [32, 64]}
    second = {**SMALL, "alpha": [*SMALL["alpha"], 1.5, 1.8], "N": [32, 64, 128], "seeds": 3}
    monkeypatch.setattr(Ledger, "_alive", lambda *_: False)
    read, began = conditional.Publisher.read, []

    def grow() -> None:
        with contextlib.suppress(
            LeaseLost
        ):  # on files it comes second, and finds another store than it planned
            run(url, module, make_campaign(**second))

    other = threading.Thread(target=grow)

    def overtaken(self: Any, path: str) -> Any:
        found = read(self, path)
        if path == stage and threading.current_thread() is not other and not began:
            began.append(path)
            other.start()
            other.join(timeout=1 if url.startswith("file") else 60)  # on files it waits for the lock
        return found

    monkeypatch.setattr(conditional.Publisher, "read", overtaken)
    stage = "N=32/x/zarr.json"
    with pytest.raises(LeaseLost):
        run(url, module, make_campaign(**first))
    other.join(timeout=60)
    assert began
    monkeypatch.undo()
    assert not fsck(url).absent
    assert run(url, module, make_campaign(**second)).outcome == "complete"
    run(Path(module).parent / "fresh.zarr", module, make_campaign(**second))
    assert whole(url) == whole(Path(module).parent / "fresh.zarr")
    with xr.open_datatree(zarr_store(url), engine="zarr") as tree:
        sizes = dict(tree["N=32"].x.sizes)
    expected = len(second["alpha"]) + url.startswith("file")
    assert (sizes["alpha"], sizes["seed"]) == (expected, 3)


def test_a_store_whose_making_was_cut_short_is_made_by_the_next_run(
    url: str, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, put = kernel_file(BODY, VARIABLES), conditional.Publisher.put

    def dying(self: Any, path: str, *rest: Any) -> None:
        put(self, path, *rest)
        if path == "N=64/x/zarr.json":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(conditional.Publisher, "put", dying)
        with pytest.raises(KeyboardInterrupt):
            run(url, module, make_campaign(**SMALL))
    with pytest.raises(ParameterError, match="there is none"):
        xr.open_dataset(url, engine="bendscape")
    other = {**SMALL, "alpha": [0.8, 1.0], "seeds": 3}  # and other blocks
    assert run(url, module, make_campaign(**other)).outcome == "complete"
    run(Path(module).parent / "fresh.zarr", module, make_campaign(**other))
    assert whole(url) == whole(Path(module).parent / "fresh.zarr")


def test_what_a_driver_that_was_taken_over_still_records_is_not_hidden_by_snapshots(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "_alive", lambda *_: False)
    monkeypatch.setattr(ledger_module, "COMPACT_SEGMENTS", 2)
    first, second = Ledger(connect(url)), Ledger(connect(url))
    for ledger in (first, second):
        ledger.acquire(lambda line: None)
        ledger.replay()
    vars(first)["_newest_epoch"] = lambda: 1
    for tile in range(6):
        for ledger in (first, second):
            ledger.add([Receipt(f"N=64/0.0.0.{tile}.0", 1 << ledger._epoch)])
            ledger.flush()
        reader = Ledger(connect(url))
        reader.replay()
        masks = [reader.records.masks(TileKey(64, (0, 0, 0, index, 0))) for index in range(tile + 1)]
        assert masks == [(0b110, 0)] * (tile + 1)
    for ledger in (first, second):
        ledger.release()


# -- through the command line


def test_a_second_command_is_refused_and_a_dead_one_is_taken_over(
    url: str, tmp_path: Path, kernel_file: KernelFile
) -> None:
    file, hold = tmp_path / "c.toml", tmp_path / "hold"
    hold.touch()
    module = kernel_file(f"while os.path.exists({str(hold)!r}):\n    time.sleep(0.01)\n{BODY}", VARIABLES)
    file.write_text(campaign_text(**SMALL))
    command = ("run", file, "--store", url, "--address", "serial", "--kernel-module", module)
    with subprocess.Popen([BENDSCAPE, *command], stderr=subprocess.DEVNULL) as first:
        try:
            deadline = time.monotonic() + 120
            while not calls(module):
                assert first.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            second = bendscape(*command)
        finally:
            first.kill()
    assert second.returncode == 2
    assert f"held by {getpass.getuser()}@" in second.stderr
    assert f"process {first.pid}, for " in second.stderr
    assert " s: stop that run, or wait for it" in second.stderr
    assert sum(calls(module).values()) == 1
    hold.unlink()
    third = bendscape(*command)
    assert third.returncode == 0, third.stderr
    assert f"taking over from process {first.pid}" in third.stderr
    assert fsck(url).sound


# -- the other process


def drop_guards() -> None:
    """No lease keeps a driver out or ends it; many small segments and snapshots; pauses at every seam."""
    acquire, put, layout = Ledger.acquire, TileStore._put, run_module.write_layout
    record = Ledger.record_campaign

    def insist(self: Ledger, *rest: Any, **options: Any) -> None:
        while not self._epoch:
            try:
                acquire(self, *rest, **options)
            except LeaseHeld:
                continue  # the other took the same epoch at this moment
        vars(self)["_newest_epoch"] = lambda: self._epoch

    def pausing(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def paused(*rest: Any, **options: Any) -> Any:
            time.sleep(random.choice([0.0, 0.0, seconds]) * random.random())
            result = call(*rest, **options)
            time.sleep(random.choice([0.0, 0.0, seconds]) * random.random())
            return result

        return paused

    Ledger._alive = lambda *_: False  # type: ignore[method-assign]
    Ledger.acquire = insist  # type: ignore[method-assign]
    Ledger.record_campaign = pausing(record, 0.3)  # type: ignore[method-assign]
    TileStore._put = pausing(put, 0.02)  # type: ignore[method-assign]
    run_module.write_layout = pausing(layout, 0.3)
    ledger_module.FLUSH_SECONDS, ledger_module.COMPACT_SEGMENTS = 0.02, 3


def main() -> None:
    """Run what each line of input says."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    drop_guards()
    for line in sys.stdin:
        what = json.loads(line)
        random.seed(what["seed"])
        time.sleep(what["delay"])
        try:
            campaign = make_campaign(**what["grid"]) if "grid" in what else parse_campaign(what["text"])
            outcome = run(what["url"], what["module"], campaign, retry_failed=what["retry_failed"]).outcome
        except LeaseLost:
            outcome = "LeaseLost"
        except Exception:
            outcome = traceback.format_exc()
        answers.write(json.dumps(outcome) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
