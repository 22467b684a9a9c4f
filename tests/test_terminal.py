"""In a shell: any encoding, only results on standard output, closed terminals, budgets, no leftovers."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import obstore
import pytest
from command_line import BENDSCAPE, bendscape
from obstore.exceptions import PermissionDeniedError
from rich.console import Console

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.commands.console import results_only
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine.executor import SerialExecutor
from bendscape.sweep.engine.run import run_campaign
from bendscape.sweep.engine.sessions import LONGEST_PATH, session_folder, sweep_sessions
from bendscape.sweep.engine.stop import Stop, least_budget
from bendscape.sweep.location import store_url
from bendscape.sweep.store.objects import probe
from campaigns import RANDOM, calls, campaign_text, make_campaign, run

KernelFile = Callable[..., str]
SMALL = {"p": [1], "a": [0.7], "alpha": [1.0], "N": [64], "seeds": 4}


# -- encodings


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_every_encoding_of_the_terminal_is_written_to(
    tmp_path: Path, kernel_file: KernelFile, encoding: str
) -> None:
    text = campaign_text(**SMALL).replace('name = "probe"', 'name = "0.5 ± 0.1 – … α_c λ Ω"', 1)
    from bendscape.sweep.campaign.file import parse_campaign

    module = kernel_file(f"if cell.seed == 1: raise ValueError('α_c')\n{RANDOM}")
    run(tmp_path / "s.zarr", module, parse_campaign(text))
    done = bendscape("status", tmp_path / "s.zarr", encoding=encoding)
    assert done.returncode == 0
    pieces = {
        "utf-8": "0.5 ± 0.1 – … α_c λ Ω",
        "latin-1": "0.5 ± 0.1 - ... alpha_c lambda \\u03a9",
        "cp1252": "0.5 ± 0.1 – … alpha_c lambda \\u03a9",
        "ascii": "0.5 +- 0.1 - ... alpha_c lambda \\u03a9",
    }
    assert pieces[encoding] in done.stdout
    done = bendscape("errors", tmp_path / "s.zarr", encoding=encoding)
    assert ("α_c" if encoding == "utf-8" else "alpha_c") in done.stdout
    done = bendscape("status", tmp_path / "s.zarr", "--json", encoding=encoding)
    assert json.loads(done.stdout)["name"] == "0.5 ± 0.1 – … α_c λ Ω"
    done = bendscape("status", "α.zarr", encoding=encoding)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


# -- standard output


def test_output_of_a_kernel_from_python_or_c_does_not_mix_with_the_results(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with results_only():
        print("by Python")
        os.system("echo by a child")
        os.write(1, b"by C\n")
    print("result")
    out, err = capfd.readouterr()
    assert out == "result\n"
    assert sorted(err.split("\n")) == ["", "by C", "by Python", "by a child"]


def test_a_kernel_that_prints_leaves_the_json_of_a_serial_run_whole(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module, file = (
        Path(kernel_file(f"print('in a cell')\nos.system('echo below')\n{RANDOM}")),
        tmp_path / "c.toml",
    )
    module.write_text(module.read_text() + "\nprint('in the module')\n")
    file.write_text(campaign_text(**SMALL))
    command = [BENDSCAPE, "run", file, "--store", tmp_path / "s.zarr", "--kernel-module", module]
    done = subprocess.run(
        [*command, "--address", "serial", "--json"], capture_output=True, text=True, timeout=120
    )
    assert json.loads(done.stdout)["done"] == 4
    assert all(words in done.stderr for words in ("in a cell", "below", "in the module"))


# -- impossible stores


@pytest.mark.parametrize("place", ["~nosuchuser/x.zarr", "", "a\0b", "a\x1b[2J.zarr", "\udcff.zarr"])
def test_an_impossible_place_for_a_store_is_refused_in_one_line(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ParameterError, match="store = ") as caught:
        store_url(place)
    str(caught.value).encode()
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_home_is_reported_in_one_line() -> None:
    done = bendscape("status", "~nosuchuser/x.zarr")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "this user has none" in done.stderr


def test_a_read_only_store_is_reported_in_plain_words(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, file, store = kernel_file(RANDOM), tmp_path / "c.toml", tmp_path / "s.zarr"
    run(store, module, make_campaign(**SMALL))
    file.write_text(campaign_text(**SMALL))

    def refuse(*_: object, **__: object) -> None:
        dump = 'Generic LocalFileSystem error: Read-only file system\n\nDebug source:\nGeneric { store: "x" }'
        raise PermissionDeniedError(dump)

    monkeypatch.setattr(obstore, "put", refuse)
    with pytest.raises(OSError, match=r"can be read but not written: .*Read-only file system$"):
        probe(store_url(store))
    for command in (
        ["run", file, "--store", store, "--kernel-module", module, "--address", "serial"],
        ["fsck", store, "--repair"],
    ):
        done = bendscape(*command)
        assert (done.returncode, done.stdout) == (74, "")
        (line,) = done.stderr.strip().splitlines()
        assert "Read-only file system" in line
        assert "Debug" not in line
    assert bendscape("status", store).returncode == 0


# -- signals


def begun(module: str, process: subprocess.Popen[bytes], cells: int) -> None:
    deadline = time.monotonic() + 120
    while len(calls(module)) < cells and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None


def test_a_closed_terminal_stops_a_run_cleanly(tmp_path: Path, kernel_file: KernelFile) -> None:
    module, store, file = kernel_file(f"time.sleep(0.1)\n{RANDOM}"), tmp_path / "s.zarr", tmp_path / "c.toml"
    file.write_text(campaign_text())
    command = [BENDSCAPE, "run", file, "--store", store, "--kernel-module", module, "--address", "serial"]
    ours, theirs = pty.openpty()
    leader = (  # also where the tests themselves run under nohup
        "import fcntl, os, signal, sys, termios\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    )
    command = [sys.executable, "-c", f"{leader}os.execv(sys.argv[1], sys.argv[1:])", *command]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        begun(module, process, 3)
        os.close(ours)  # the kernel sends SIGHUP, and whatever is printed from now on fails
        assert process.wait(60) == 75
    finally:
        process.kill()
        process.wait()
    status = store_status(store)
    assert status["holder"] is None, "the lease was given back"
    assert status["done"] == len(calls(module)) > 0, "what was computed was recorded"


def test_a_run_under_nohup_goes_on_when_the_terminal_is_closed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = Stop()
        with stop.signals():
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stop.signals():
            signal.raise_signal(signal.SIGHUP)
            assert (stop.asked, stop.reason) == (True, "SIGHUP")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


# -- budgets


def test_a_budget_too_short_for_one_tile_is_reported_with_one_that_suffices(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module, said = kernel_file(RANDOM), io.StringIO()
    summary = run_campaign(
        make_campaign(), store_url(tmp_path / "s.zarr"), load_kernel("probe", [module]), SerialExecutor,
        console=Console(file=said, width=1000), kernel_modules=(module,), time_budget=0.5,
    )  # fmt: skip
    assert (summary.exit_code, summary.computed) == (75, 0)
    assert summary.time_budget_needed is not None
    assert summary.time_budget_needed > 1.5 / 0.9, "a tile is six cells of a quarter of a second"
    assert "nothing was computed: --time-budget 0.5s is too short for any progress" in said.getvalue()
    assert "a tile of N = 128 about 1.5 s" in said.getvalue()
    assert run(tmp_path / "s.zarr", module, make_campaign(), time_budget=3600.0).time_budget_needed is None


def test_the_suggested_budget_admits_a_tile() -> None:
    for seconds in np.geomspace(0.1, 1e5, 25):
        stop = Stop(least_budget(seconds) + 0.1)
        assert stop.admits(seconds)
        assert not Stop(least_budget(seconds) - 0.1).admits(seconds)


# -- what Ray leaves behind


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which the paths of sockets fit."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as place:
        yield Path(place)


def test_only_sessions_of_runs_that_are_gone_are_removed(short_path: Path) -> None:
    tmp_path = short_path
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, elsewhere = (tmp_path / f"session_2026-01-02_03-04-0{i}_123456_{gone.pid}" for i in (5, 6))
    ours = tmp_path / f"session_2026-01-02_03-04-05_123456_{os.getpid()}"
    kept = [ours, elsewhere, tmp_path / "session_of_mine", tmp_path / "other"]
    for folder in (dead, *kept):
        (folder / "sockets").mkdir(parents=True)
        (folder / "logs").write_text("x")
    (tmp_path / "session_latest").symlink_to(dead)
    with socket.socket(socket.AF_UNIX) as raylet:  # of a container whose processes are not seen from here
        raylet.bind(str(elsewhere / "sockets" / "raylet"))
        raylet.listen()
        sweep_sessions(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    sweep_sessions(tmp_path)
    assert not elsewhere.exists(), "its socket is there, and nobody answers"


def test_sockets_are_put_where_their_paths_fit_and_ray_can_read_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = f"/bendscape-ray-{os.getuid()}"
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as place:
        room = LONGEST_PATH - len(f"{place}/{own}")
        for name, fits in (("x" * room, True), ("x" * (room + 1), False), ("é", False), ("é" * room, False)):
            monkeypatch.setattr(tempfile, "tempdir", f"{place}/{name}")
            assert str(session_folder()).startswith(place) == fits
            assert len(os.fsencode(session_folder())) <= LONGEST_PATH
            assert session_folder().stat().st_mode & 0o777 == 0o700


@pytest.mark.ray
def test_a_run_on_ray_leaves_nothing_in_the_temporary_folder(
    tmp_path: Path, short_path: Path, kernel_file: KernelFile
) -> None:
    module, file = kernel_file(RANDOM), tmp_path / "c.toml"
    file.write_text(campaign_text(**SMALL))
    command = [BENDSCAPE, "run", file, "--store", tmp_path / "s.zarr", "--kernel-module", module]
    command += ["--address", "ray"]
    environment = {**os.environ, "TMPDIR": str(short_path)}
    subprocess.run(command, capture_output=True, timeout=120, env=environment, check=True)
    (own,) = short_path.iterdir()
    assert (own.name, list(own.iterdir())) == (f"bendscape-ray-{os.getuid()}", [])
    assert own.stat().st_mode & 0o777 == 0o700
