"""`bendscape status --watch`: a terminal, a log, JSON, a store that is not there or does not answer."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import BENDSCAPE, bendscape
from rich.table import Table
from s3_server import S3Server

from bendscape.sweep.campaign.file import Campaign, parse_campaign
from bendscape.sweep.commands import watching
from bendscape.sweep.commands.console import plain
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine.executor import Job, Result, SerialExecutor
from campaigns import RANDOM, IdleExecutor, campaign_text, make_campaign, run

KernelFile = Callable[..., str]
SMALL = {"p": [1], "a": [0.7], "alpha": [1.0], "N": [64], "seeds": 4}
FAILING = f"if cell.seed == 1: raise ValueError('no')\n{RANDOM}"


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What happens between two looks, in order; a look beyond the last is a mistake."""

    def plan(*happenings: Callable[[], object]) -> None:
        left = iter(happenings)
        monkeypatch.setattr(watching, "_pause", lambda _: next(left)())

    return plan


def larger(seeds: int) -> Campaign:
    return make_campaign(**{**SMALL, "seeds": seeds})


# -- in a terminal


def in_terminal(*arguments: object) -> tuple[int, subprocess.Popen[bytes]]:
    ours, theirs = pty.openpty()
    command = [str(BENDSCAPE), "status", *map(str, arguments), "--watch", "--interval", "0.5s"]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    environment.pop("NO_COLOR", None)
    child = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
    )
    os.close(theirs)
    return ours, child


def read_until(ours: int, text: str, seconds: float = 120.0) -> list[str]:
    """What was written, one entry a read, until `text` was or the other side has ended."""
    seen, ends = list[str](), time.monotonic() + seconds
    while time.monotonic() < ends and text not in "".join(seen):
        if select.select([ours], [], [], 1.0)[0]:
            try:
                seen.append(os.read(ours, 1 << 16).decode())
            except OSError:  # Linux says so when the last one has closed it
                return seen
    return seen


def test_a_terminal_is_redrawn_in_place_until_the_run_has_ended(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store = tmp_path / "s.zarr"
    ours, child = in_terminal(store)
    try:
        first = read_until(ours, "no store at")
        assert "no store at" in "".join(first)
        run(store, kernel_file(FAILING), larger(6))
        rest = read_until(ours, "no such text")
        assert child.wait(60) == 1, "a cell has failed"
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    text = "".join(rest)
    assert re.search(r"64 +│ +6 +│ +5 +│ +1 +│ +0", text)
    assert "last run: 1" in text
    everything = "".join(first) + text
    assert "\x1b[2J" not in everything, "the screen is never emptied"
    assert "\x1b[1A" in everything, "it is drawn over what was drawn before"
    assert everything.rfind("\x1b[?25h") > everything.rfind("\x1b[?25l"), "the cursor is back"
    assert "Ctrl-C" not in text.rpartition("last run")[2], "the last picture stays, without the way to end it"


@pytest.mark.parametrize(
    ("how", "code"), [("key", 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_ending_the_watch_is_quiet_and_gives_the_cursor_back(
    tmp_path: Path, kernel_file: KernelFile, how: str | signal.Signals, code: int
) -> None:
    run(tmp_path / "s.zarr", kernel_file(RANDOM), larger(4), IdleExecutor())
    ours, child = in_terminal(tmp_path / "s.zarr")
    try:
        text = "".join(read_until(ours, "no run is at work: waiting for the next"))
        assert "no run is at work: waiting for the next" in text
        child.send_signal(signal.SIGINT if how == "key" else signal.Signals(how))
        text += "".join(read_until(ours, "no such text"))
        assert child.wait(60) == code
    finally:
        child.kill()
        child.wait()
        os.close(ours)
    assert "Traceback" not in text
    assert "Error" not in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")


# -- elsewhere


def test_a_log_gets_a_line_for_every_change_and_the_exit_code_of_the_run(
    tmp_path: Path, kernel_file: KernelFile, step: Callable[..., None]
) -> None:
    store, module = tmp_path / "s.zarr", kernel_file(FAILING)
    step(
        lambda: None,
        lambda: run(store, module, larger(4), IdleExecutor()),
        lambda: None,
        lambda: run(store, module, larger(4)),
    )
    done = bendscape("status", store, "--watch")
    assert (done.returncode, done.stderr) == (1, "")
    lines = [line[20:] for line in done.stdout.splitlines()]
    assert lines == [
        f"no store at file://{store} yet: waiting for a run that makes it",
        "0/4 cells, 0 failed, 4 left; no run is at work: waiting for the next",
        f"3/4 cells, 1 failed, 0 left; `bendscape errors file://{store}` lists what failed and why",
    ]
    assert not store.with_name("other.zarr").exists()


def test_json_is_one_document_a_line_and_the_last_agrees_with_the_status(
    tmp_path: Path, kernel_file: KernelFile, step: Callable[..., None]
) -> None:
    store, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    run(store, module, larger(4), IdleExecutor())
    step(lambda: run(store, module, larger(6)))
    done = bendscape("status", store, "--watch", "--json")
    assert done.returncode == 0
    first, last = map(json.loads, done.stdout.splitlines())
    assert (first["done"], first["missing"], last["done"], last["missing"]) == (0, 4, 6, 0)
    status = store_status(store)
    same = ("store", "name", "cells", "done", "failed", "missing", "sizes", "core_hours_left", "eta_seconds")
    assert {key: last[key] for key in same} == {key: status[key] for key in same}
    assert last["runs"][-1]["cells"] == status["runs"][-1]["cells"] == 6


def test_what_a_kernel_prints_is_not_between_the_documents(
    tmp_path: Path, kernel_file: KernelFile, capfd: pytest.CaptureFixture[str]
) -> None:
    store, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    Path(module).write_text(f"print('loud')\n{Path(module).read_text()}")
    run(store, module, larger(4))
    capfd.readouterr()
    assert watching.watch_status(str(store), [module], 1.0, True) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["done"] == 4
    assert "loud" in err


def test_a_run_at_work_is_waited_for_though_nothing_is_missing(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    class Watched(SerialExecutor):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            yield from super().run(next_job)
            yield None
            watch.look()
            seen.append((watch.following.at_work, watch.finished))

    watch, seen = watching.Watch(str(tmp_path / "s.zarr"), ()), list[tuple[bool, bool]]()
    run(tmp_path / "s.zarr", kernel_file(RANDOM), larger(4), Watched())
    watch.look()
    assert seen == [(True, False)]
    assert watch.finished


def test_an_object_store_that_does_not_answer_is_waited_for(
    s3: S3Server, s3_url: str, kernel_file: KernelFile, step: Callable[..., None]
) -> None:
    module = kernel_file(RANDOM)
    run(s3_url, module, larger(4), IdleExecutor())

    def fail(failing: bool) -> None:
        s3.failing = failing

    step(lambda: fail(True), lambda: fail(False), lambda: run(s3_url, module, larger(4)))
    done = bendscape("status", s3_url, "--watch")
    assert done.returncode == 0
    before, outage, after, last = (line[20:] for line in done.stdout.splitlines())
    assert outage.startswith(f"{before}; the store does not answer, trying again: {s3_url} cannot be read")
    assert after == before, "what was known stays on show"
    assert last == "4/4 cells, 0 failed, 0 left"


def test_a_look_at_an_object_store_asks_four_times_and_once_for_each_new_segment(
    s3: S3Server, s3_url: str, kernel_file: KernelFile
) -> None:
    class Looked(SerialExecutor):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            yield from super().run(next_job)
            watch.look()  # a first look replays the ledger
            for _ in range(3):
                before = len(s3.requests)
                watch.look()
                asked.append(len(s3.requests) - before)

    watch, asked = watching.Watch(s3_url, ()), list[int]()
    run(s3_url, kernel_file(RANDOM), larger(4), Looked())
    assert asked == [4, 4, 4]


def test_what_does_not_go_together_is_refused_and_so_is_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a store")
    for arguments, said in (
        ((tmp_path, "--watch"), "a bendscape store"),
        ((tmp_path, "--watch", "--tiles"), "--tiles"),
        ((tmp_path, "--interval", "2s"), "together with --watch"),
        ((tmp_path, "--watch", "--interval", "0.1s"), "from 0.5s to 1d"),
        ((tmp_path, "--watch", "--interval", "9999999d"), "from 0.5s to 1d"),
        ((tmp_path, "--watch", "--interval", "often"), "--interval"),
    ):
        done = bendscape("status", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_in_a_low_terminal_the_last_rows_of_the_table_are_cut_off_and_not_the_lines(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    run(
        tmp_path / "s.zarr",
        kernel_file(RANDOM),
        make_campaign(**{**SMALL, "N": [64, 128, 256]}),
        IdleExecutor(),
    )
    watch = watching.Watch(str(tmp_path / "s.zarr"), ())
    watch.look()
    tables = [
        [isinstance(part, Table) for part in watching._picture(watch, height).renderables]
        for height in (40, 8)
    ]
    assert tables[0] == [True, False, False, False, False]
    assert tables[1] == [*tables[0][1:], True]


def test_a_campaign_with_a_target_ends_as_its_run_did_and_shows_its_rounds(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch, step: Callable[..., None]
) -> None:
    import refiners

    refiners.install(monkeypatch)
    store, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    text = campaign_text(**{**SMALL, "alpha": [0.8, 1.2]})
    hopeless = parse_campaign(f"{text}\n[target]\nmean_x = {{ absolute = 0.01 }}\n")
    run(store, module, hopeless, IdleExecutor())
    step(lambda: run(store, module, hopeless))
    done = bendscape("status", store, "--watch", "--json")
    assert done.returncode == 3
    first, last = map(json.loads, done.stdout.splitlines())
    assert (first["rounds"], first["missing"]) == ([], 8)
    assert last["rounds"] == json.loads(json.dumps(plain(store_status(store)["rounds"])))
    assert last["rounds"][-1]["outcome"] == "unreachable"
    assert bendscape("status", store, "--watch").returncode == 3
