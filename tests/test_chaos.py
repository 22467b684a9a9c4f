"""Nothing is lost under any failure: campaigns disturbed on local processes and on a real Ray cluster.

Each episode of `tests/chaos.py` checks: the resumed dataset is that of a serial run, bit for bit; what the
ledger knew before the resume is never computed again; no more work is lost than what was under way; the
cell to blame, and no other, is recorded as failed, with error, traceback, attempts and host.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chaos
import pytest
from chaos import (
    DEEDS,
    EVENTS,
    FIRST,
    FIRST_LOCAL,
    FIRST_LOCAL_ON_S3,
    FIRST_ON_S3,
    LOCAL,
    LOCAL_ON_S3,
    ON_S3,
    SERVER_EVENTS,
    script,
)

from bendscape.sweep.location import store_url
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from campaigns import RANDOM, campaign_text, recorded

MORE = range(len(FIRST), len(FIRST) + 100)
MORE_LOCAL = range(LOCAL + len(FIRST_LOCAL), LOCAL + len(FIRST_LOCAL) + 100)
MORE_ON_S3 = range(ON_S3 + len(FIRST_ON_S3), ON_S3 + len(FIRST_ON_S3) + 20)


class World:
    """The world, from outside. It is started for the first episode, and again after one that hung."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        unshare = chaos.NAMESPACES if shutil.which(chaos.NAMESPACES[0]) else ("false",)
        probe = subprocess.run([*unshare, "true"], capture_output=True, timeout=20, check=False)
        mounts = probe.returncode == 0
        place = Path(tempfile.mkdtemp(dir=self.folder))
        command = [*(unshare if mounts else ()), sys.executable, chaos.__file__, str(place), str(int(mounts))]
        environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
            )

    def play(self, number: int) -> dict[str, Any]:
        """One episode; it ends within ten minutes."""
        self._process = self._process or self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{number}\n".encode())
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], 600)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self.close(seconds=0)
            pytest.fail(
                f"the world ended, or the episode did not: {(self.folder / 'log').read_text()[-3000:]}"
            )
        verdict: dict[str, Any] = json.loads(line)
        return verdict

    def close(self, seconds: float = 60) -> None:
        """End the world; in namespaces of its own, all of it ends with its first process."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._process = None


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))  # Ray's sockets want a short path
    made = World(folder)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


def play(world: World, number: int) -> None:
    verdict = world.play(number)
    if "skip" in verdict:
        pytest.skip(verdict["skip"])
    assert "failure" not in verdict, f"{verdict['script']}: {verdict['failure']}"
    print(verdict)


def on_ray(test: Callable[..., None]) -> Any:
    """The world's cluster, separate from the Ray of other tests and started once."""
    return pytest.mark.ray(pytest.mark.xdist_group("chaos on ray")(test))


# Those that stop a driver as it stops a run on processes, below, wait for the slow suite, and so does a
# killed worker, which `test_executors.py` has on Ray too.
ALIKE = {"SIGUSR1", "SIGINT twice", "grace", "kill worker"}


@on_ray
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(k, id=": ".join(names), marks=[pytest.mark.slow] if names[0] in ALIKE else [])
        for k, names in enumerate(FIRST)
    ],
)
def test_nothing_is_lost(world: World, number: int) -> None:
    play(world, number)


@on_ray
@pytest.mark.parametrize(
    "number",
    range(ON_S3, ON_S3 + len(FIRST_ON_S3)),
    ids=[": ".join(names) for names in FIRST_ON_S3],
)
def test_nothing_is_lost_on_s3(world: World, number: int) -> None:
    play(world, number)


@pytest.mark.parametrize(
    "number",
    range(LOCAL, LOCAL + len(FIRST_LOCAL)),
    ids=[": ".join(names) for names in FIRST_LOCAL],
)
def test_nothing_is_lost_with_processes_of_this_machine(world: World, number: int) -> None:
    play(world, number)


@pytest.mark.parametrize(
    "number",
    range(LOCAL_ON_S3, LOCAL_ON_S3 + len(FIRST_LOCAL_ON_S3)),
    ids=[": ".join(names) for names in FIRST_LOCAL_ON_S3],
)
def test_nothing_is_lost_on_s3_with_processes_of_this_machine(world: World, number: int) -> None:
    play(world, number)


@pytest.mark.slow
@pytest.mark.parametrize("number", MORE_LOCAL)
def test_nothing_is_lost_with_processes_whatever_happens(world: World, number: int) -> None:
    play(world, number)


@on_ray
@pytest.mark.slow
@pytest.mark.parametrize("number", MORE_ON_S3)
def test_nothing_is_lost_on_s3_whatever_happens(world: World, number: int) -> None:
    play(world, number)


@on_ray
@pytest.mark.slow
@pytest.mark.parametrize("number", MORE)
def test_nothing_is_lost_whatever_happens_at_whatever_moment(world: World, number: int) -> None:
    play(world, number)


@pytest.mark.ray
@pytest.mark.slow
def test_a_cell_that_fills_the_memory_is_found_by_the_workers_that_ray_ends(
    tmp_path: Path, kernel_file: Callable[..., str]
) -> None:
    # Ray's own monitor, with a limit of 1.5 GB above the memory in use now.
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    memory = {name: 1024 * int(number) for name, number, *_ in lines}
    limit = Path("/sys/fs/cgroup/memory.max")
    if memory["MemAvailable:"] < 6 * 2**30 or (limit.exists() and limit.read_text().strip() != "max"):
        pytest.skip("needs 6 GB of memory that no container limits")
    greedy = "if cell[:-1] == (1, 1, 0.7, 0.8, 64, 0):\n    block = b'x' * (3 * 2**30)\n    time.sleep(60)"
    module, file, store = kernel_file(f"{greedy}\n{RANDOM}"), tmp_path / "c.toml", tmp_path / "s.zarr"
    file.write_text(campaign_text(p=[1], a=[0.7], N=[64]))
    used = memory["MemTotal:"] - memory["MemAvailable:"] + 1.5 * 2**30
    environment = {"RAY_memory_usage_threshold": f"{used / memory['MemTotal:']:.4f}"}
    environment |= {**os.environ, "RAY_memory_monitor_refresh_ms": "100"}
    command = [Path(sys.executable).with_name("bendscape"), "run", file, "--store", store, "--workers", "2"]
    command += ["--kernel-module", module, "--address", "ray"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=240, check=False)
    assert done.returncode == 1, done.stderr.decode()
    ledger = Ledger(connect(store_url(store)))
    ledger.replay()
    (error,) = ledger.records.errors()
    assert (error.error, error.attempts, error.cell["seed"]) == ("WorkerOutOfMemory", 3, 0)
    assert len(recorded(store)) == 17


def test_the_episodes_hold_every_event_and_every_deed() -> None:
    for numbers in (MORE, MORE_LOCAL):
        drawn = [script(number) for number in numbers]
        assert {event for event, _ in drawn} | {"nothing"} == set(EVENTS)
        assert {deed for _, deed in drawn} == set(DEEDS)
    on_s3 = {event for event, _ in (*FIRST_ON_S3, *map(script, MORE_ON_S3))}
    assert on_s3 > {"kill driver", "kill worker", "kill node", "SIGTERM", "SIGTERM twice", *SERVER_EVENTS}
