"""Fault injection: campaigns disturbed in an isolated environment. A number determines each episode.

    python tests/chaos.py FOLDER     reads episode numbers and answers each with a line of JSON

An environment has a Ray cluster (a head and two nodes with one core each) and starts a driver, `bendscape
run`, for every episode. If the system permits it, it has its own user, mount and process namespaces; root
rights are not needed. Disks can then really be full (a tmpfs of 4 MB and a file that fills the rest) or
read-only (remounted, which stops root too), and every process ends with the first one. Without namespaces
these two kinds of episode are left out.

Two kinds of memory shortage are simulated: an allocation that the operating system refuses (MemoryError), and
the SIGKILL of its out-of-memory killer. The memory monitor of Ray has a separate test.

Episodes from `ON_S3` on have their store on an S3 server on loopback, which may fail or disappear; workers
find its address in their environment. Episodes from `LOCAL` on run without Ray: the driver starts worker
processes, and the process that forks them counts as their node. Those from `LOCAL_ON_S3` on do both.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.engine.driver import NOTES
from bendscape.sweep.engine.executor import Executor
from bendscape.sweep.engine.processes import ProcessExecutor
from bendscape.sweep.location import store_url
from bendscape.sweep.store.ledger import Ledger
from bendscape.sweep.store.objects import connect
from campaigns import KERNEL_HEAD, all_objects, calls, campaign_text, data_files, recorded, run

GRID: dict[str, Any] = {"p": [1], "N": [64, 128]}
CELLS, TILE, SLOTS = 2 * 3 * 2 * 6, 6, 2
PAUSE = 0.04
TIMEOUT = 1.5  # time limit of a cell in episodes in which a cell hangs
NAMESPACES = (
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)

# Never comes back to Python, whatever signals arrive, and takes no time of the other cells.
_LOCK = "ctypes.PyDLL(None).pthread_mutex_lock"
DEADLOCK = f"{_LOCK}(mutex := ctypes.create_string_buffer(64)) or {_LOCK}(mutex)"

# What the misbehaving cell does, the error recorded for it, and the least number of attempts.
DEEDS: dict[str, tuple[str, str, int]] = {
    "raises": ("raise ValueError('no luck')", "ValueError", 1),
    "no memory": ("bytearray(2**46)", "MemoryError", 1),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "WorkerLost", 3),
    "segfault": ("ctypes.string_at(0)", "WorkerLost", 3),
    "exits": ("os._exit(0)", "WorkerLost", 3),
    "hangs": ("while True:\n    time.sleep(0.01)", "CellTimeout", 1),
    "stuck in C": (DEADLOCK, "CellTimeout", 1),
    "nan": ("return Outcome({'x': math.nan})", "", 0),
    "slow once": ("time.sleep(3600 if attempt == 1 else 0)", "", 0),
    "well": ("pass", "", 0),
}
LOST_BY_DEED = {"killed": 15, "segfault": 15, "exits": 15, "stuck in C": 10, "slow once": 1}

# The disturbance, the possible exit codes of the driver, and the largest number of lost cells.
EVENTS: dict[str, tuple[set[int], int]] = {
    "nothing": ({0, 1}, 0),
    "kill driver": ({-signal.SIGKILL, 0, 1}, SLOTS * TILE),
    "kill worker": ({0, 1}, 2 * TILE),
    "kill node": ({0, 1}, TILE),
    "SIGTERM": ({75, 0, 1}, 0),
    "SIGINT": ({75, 0, 1}, 0),
    "SIGUSR1": ({75, 0, 1}, 0),
    "SIGTERM twice": ({130, 75, 0, 1}, SLOTS * TILE),
    "SIGINT twice": ({130, 75, 0, 1}, SLOTS * TILE),
    "grace": ({75}, SLOTS * TILE),
    "budget": ({75, 0, 1}, SLOTS * TILE),
    "full disk": ({74, 0, 1}, 3 * (SLOTS + 1) * TILE),
    "read-only": ({74, 0, 1}, 3 * (SLOTS + 1) * TILE),
}
NEED_MOUNTS = {"full disk", "read-only"}
SERVER_EVENTS: dict[str, tuple[set[int], int]] = {  # the same, for stores on a server
    "server fails": ({0, 1}, SLOTS * TILE),
    "server away": ({0, 1}, SLOTS * TILE),
    "server gone": ({74}, 3 * (SLOTS + 1) * TILE),
}

# The first episodes. On Ray: the faults in which Ray takes part. With processes: every kind of fault, and all
# deeds but two of one kind. The other episodes are random.
FIRST: list[tuple[str, str]] = [
    ("kill driver", "well"),
    ("kill worker", "nan"),
    ("kill node", "raises"),
    ("SIGINT twice", "segfault"),
    ("SIGUSR1", "hangs"),
    ("grace", "slow once"),
]


ON_S3, LOCAL, LOCAL_ON_S3 = 1000, 2000, 3000
FIRST_ON_S3: list[tuple[str, str]] = [("server away", "well")]
THEN_ON_S3: list[tuple[str, str]] = [
    ("kill driver", "well"),
    ("server fails", "raises"),
    ("server gone", "well"),
    ("kill worker", "nan"),
    ("kill node", "well"),
    ("SIGTERM", "raises"),
    ("SIGTERM twice", "well"),
    ("nothing", "hangs"),
]

FIRST_LOCAL: list[tuple[str, str]] = [
    ("kill driver", "well"),
    ("kill worker", "nan"),
    ("kill node", "raises"),
    ("full disk", "well"),
    ("read-only", "no memory"),
    ("SIGTERM", "well"),
    ("SIGUSR1", "hangs"),
    ("SIGINT twice", "well"),
    ("grace", "slow once"),
    ("nothing", "segfault"),
    ("nothing", "stuck in C"),
]
FIRST_LOCAL_ON_S3: list[tuple[str, str]] = [("kill driver", "well"), ("server fails", "raises")]


def script(number: int) -> tuple[str, str]:
    """The disturbance of an episode, and what its misbehaving cell does."""
    if number < len(FIRST):
        return FIRST[number]
    if number >= LOCAL_ON_S3:
        return FIRST_LOCAL_ON_S3[number - LOCAL_ON_S3]
    if number >= LOCAL:
        if number - LOCAL < len(FIRST_LOCAL):
            return FIRST_LOCAL[number - LOCAL]
        events = list(EVENTS)
    elif number >= ON_S3:
        given = FIRST_ON_S3 + THEN_ON_S3
        events = [*(EVENTS.keys() - NEED_MOUNTS), "server fails", "server away"]
        if number - ON_S3 < len(given):
            return given[number - ON_S3]
    else:
        events = list(EVENTS)
    rng = random.Random(number)
    event = rng.choice(
        [name for name in sorted(events, key=[*EVENTS, *SERVER_EVENTS].index) if name != "nothing"]
    )
    if event == "grace":
        return event, "slow once"
    deeds = [name for name in DEEDS if name != "slow once" and (event != "budget" or name != "stuck in C")]
    return event, rng.choice([*deeds, "well", "well"])


@dataclass
class World:
    """An isolated environment: the cluster, and a folder with a subfolder for every episode."""

    folder: Path
    mounts: bool
    nodes: list[Any] = field(default_factory=list)
    references: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __enter__(self) -> World:
        from s3_server import S3Server

        self.server = S3Server()
        os.environ.update(self.server.environment)
        return self

    @cached_property
    def cluster(self) -> Any:
        """Start the cluster for the first episode that needs it."""
        import ray
        from ray.cluster_utils import Cluster

        # `Cluster` writes its address into Ray's default folder, which must exist. This one is private, so
        # that no other Ray on this machine finds the cluster.
        default = self.folder / "default"
        (default / "ray").mkdir(parents=True)
        os.environ["RAY_TMPDIR"] = str(default)

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**head, "temp_dir": str(self.folder / "r")})
        for _ in range(SLOTS):
            self.add_node(cluster)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        return cluster

    def __exit__(self, *_: object) -> None:
        if "cluster" in vars(self):
            import ray

            ray.shutdown()
            self.cluster.shutdown()
        self.server.stop()

    def add_node(self, cluster: Any) -> None:
        """One more node of one core."""
        self.nodes.append(
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
        )

    def episode(self, number: int) -> dict[str, Any]:
        """Play one episode, resume its campaign until complete, and check the invariants."""
        event, deed = script(number)
        if event in NEED_MOUNTS and not self.mounts:
            return {"skip": "no namespaces here, and so no disk to fill"}
        place = self.folder / f"e{number}"
        (place / "calls").mkdir(parents=True)
        disk = contextlib.nullcontext() if event not in NEED_MOUNTS else mounted(place / "disk")
        with disk:
            return Episode(self, number, place, event, deed).play()


@dataclass
class Episode:
    """One driver, one disturbance, one misbehaving cell."""

    world: World
    number: int
    place: Path
    event: str
    deed: str

    def __post_init__(self) -> None:
        self.rng = random.Random(f"episode {self.number}")
        self.disk = self.place / "disk"
        self.disk.mkdir(exist_ok=True)
        self.local = self.number >= LOCAL
        on_s3 = ON_S3 <= self.number < LOCAL or self.number >= LOCAL_ON_S3
        self.store = self.world.server.new_url() if on_s3 else store_url(self.disk / "s.zarr")
        self.campaign = parse_campaign(campaign_text(**GRID))
        self.cell = (1, 1, self.rng.choice([0.7, 1.5]), self.rng.choice([0.8, 1.0, 1.2]),
                     self.rng.choice([64, 128]), self.rng.randrange(6))  # fmt: skip
        self.module = self.write_kernel("kernel.py", self.place / "calls", DEEDS[self.deed][0], PAUSE)
        self.timeout = TIMEOUT if DEEDS[self.deed][1] == "CellTimeout" else None

    def write_kernel(self, name: str, folder: Path, deed: str, pause: float) -> str:
        body = f"time.sleep({pause})\nif cell[:-1] == {self.cell!r}:\n{textwrap.indent(deed, '    ')}\n"
        body += "return Outcome({'x': rng.normal() + cell.alpha})"
        head = KERNEL_HEAD.format(calls=str(folder), variables='Variable("x", "a number")', version=1)
        path = self.place / name
        path.write_text(head.replace("#BODY", textwrap.indent(body, "    ")))
        return str(path)

    def begun(self) -> int:
        return sum(1 for _ in (self.place / "calls").iterdir())

    def pids(self) -> list[int]:
        files = sorted((self.place / "calls").iterdir(), key=lambda path: path.stat().st_mtime)
        return [int(text) for path in files if (text := path.read_text())]

    def play(self) -> dict[str, Any]:
        started = time.monotonic()
        code, log = self.disturbed()
        before, known = calls(self.module), recorded(self.store)
        allowed, cost = (EVENTS | SERVER_EVENTS)[self.event]
        cost *= SLOTS if (self.local, self.event) == (True, "kill node") else 1  # both workers are on it
        assert code in allowed, f"exit code {code}\n{log}"
        if code in (0, 1):
            assert len(known) == CELLS - bool(DEEDS[self.deed][1]), "complete, but not in the ledger"
        for _ in range(4):
            executor = ProcessExecutor(SLOTS) if self.local else ray_executor()
            summary = run(self.store, self.module, self.campaign, executor, cell_timeout=self.timeout)
            if not summary.missing:
                break
        assert summary.missing == 0, summary
        after = calls(self.module)
        twice = {cell for cell in known if before[cell] != after[cell]}
        assert not twice, f"recorded, and computed again: {twice}"
        cost += LOST_BY_DEED.get(self.deed, 0) + (code not in (0, 1) and bool(DEEDS[self.deed][1])) * 15
        lost = sum(after.values()) - CELLS
        assert lost <= cost, f"{lost} cells computed again, {cost} allowed: {after - before}\n{log}"
        assert data_files(self.store) == self.reference(), "other data than a serial run"
        self.check_errors()
        assert not [name for name in all_objects(self.store) if name.startswith(NOTES)], "notes left"
        return {"event": self.event, "deed": self.deed, "exit": code, "lost": lost,
                "seconds": round(time.monotonic() - started, 1)}  # fmt: skip

    def check_errors(self) -> None:
        _, error, attempts = DEEDS[self.deed]
        ledger = Ledger(connect(self.store))
        ledger.replay()
        found = ledger.records.errors()
        assert len(found) == bool(error), found
        for e in found:
            assert (e.error, e.attempts >= attempts) == (error, True), e
            assert e.traceback, e
            assert e.host, e
            assert e.message or error == "MemoryError", e
            at = tuple(e.cell[name] for name in ("p", "p_star", "a", "alpha", "N", "seed"))
            assert at == self.cell, e
            assert ("hard limit" in e.message) == (self.deed == "stuck in C"), e

    def reference(self) -> dict[str, bytes]:
        """The files of a serial run, made once: there, a cell that cannot be computed raises."""
        _, error, _ = DEEDS[self.deed]
        deed = "raise ValueError" if error else DEEDS[self.deed][0] if self.deed == "nan" else "pass"
        known, key = self.world.references, deed if deed == "pass" else f"{deed} at {self.cell}"
        if key not in known:
            (self.place / "others").mkdir()
            module = self.write_kernel("reference.py", self.place / "others", deed, 0.0)
            run(self.place / "reference.zarr", module, self.campaign)
            known[key] = data_files(self.place / "reference.zarr")
        return known[key]

    def disturbed(self) -> tuple[int, str]:
        """Run the command, disturb it at a random moment, and wait until it and its workers are gone."""
        file, log = self.place / "c.toml", self.place / "log"
        file.write_text(campaign_text(**GRID))
        command = [Path(sys.executable).with_name("bendscape"), "run", file, "--store", self.store, "--json"]
        command += ["--kernel-module", self.module, "--workers", str(SLOTS)]
        command += ["--address", "local" if self.local else self.world.cluster.address]
        command += ["--cell-timeout", f"{self.timeout:g}s"] if self.timeout else []
        command += ["--grace", "1s"] if self.event == "grace" else []
        command += ["--time-budget", f"{self.rng.uniform(1, 6):.2f}s"] if self.event == "budget" else []
        moment = self.rng.randrange(1, CELLS - 2 * SLOTS * TILE)
        with log.open("wb") as stream:
            driver = subprocess.Popen(command, stdout=stream, stderr=stream)
        with contextlib.ExitStack() as undo:
            undo.callback(driver.wait)
            undo.callback(driver.kill)
            if self.deed == "slow once":
                slow = "_".join(map(str, self.cell))
                self.wait(lambda: slow in calls(self.module), driver)
            else:
                self.wait(lambda: self.begun() >= moment, driver)
            time.sleep(self.rng.uniform(0, 2 * PAUSE))
            self.strike(driver, undo)
            driver.wait(400)  # it may wait out an outage for minutes, and a loaded machine is slow
        self.wait(lambda: not any(map(alive, self.pids())), None)
        return driver.returncode, log.read_text()[-3000:]

    def strike(self, driver: subprocess.Popen[bytes], undo: contextlib.ExitStack) -> None:
        """Cause the disturbance, and record how to undo it after the driver has ended."""
        if self.event == "kill driver":
            driver.kill()
        elif self.event == "kill worker":
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids()[-1], signal.SIGKILL)
        elif self.event == "kill node" and self.local:
            with contextlib.suppress(OSError):
                os.kill(parent(self.pids()[-1]), signal.SIGKILL)
        elif self.event == "kill node":
            node = self.world.nodes.pop(self.rng.randrange(SLOTS))
            self.world.add_node(self.world.cluster)
            self.world.cluster.remove_node(node, allow_graceful=False)
        elif self.event == "full disk":
            ballast = self.disk / "ballast"
            fill(ballast)
            undo.callback(ballast.unlink)
        elif self.event == "read-only":
            disk = str(self.disk)
            mount = ["mount", "-o", "remount,ro", disk]
            while subprocess.run(mount, capture_output=True, timeout=20, check=False).returncode:
                time.sleep(0.01)  # busy: a file is being written at this moment
                assert driver.poll() is None, "never to be mounted read-only"
            undo.callback(sudo, "mount", "-o", "remount,rw", disk)
        elif self.event == "server fails":
            self.world.server.failing = True
            time.sleep(self.rng.uniform(1, 5))
            self.world.server.failing = False
        elif self.event in ("server away", "server gone"):
            self.world.server.stop()
            if self.event == "server gone":
                undo.callback(self.world.server.serve)
            else:
                time.sleep(self.rng.uniform(1, 5))
                self.world.server.serve()
        elif self.event.startswith("SIG") or self.event == "grace":
            name, _, twice = self.event.replace("grace", "SIGTERM").partition(" ")
            driver.send_signal(signal.Signals[name])
            if twice:
                time.sleep(self.rng.uniform(0.0, 0.3))
                driver.send_signal(signal.Signals[name])

    def wait(self, condition: Callable[[], bool], driver: subprocess.Popen[bytes] | None) -> None:
        deadline = time.monotonic() + 120
        while not condition() and (driver is None or driver.poll() is None):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)


def sudo(*command: str) -> None:
    """Run a command as root of this namespace."""
    subprocess.run(command, check=True, timeout=20)


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Mount a disk of four megabytes."""
    folder.mkdir()
    sudo("mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder))
    try:
        yield
    finally:
        sudo("umount", "--lazy", str(folder))


def fill(path: Path) -> None:
    """Fill a disk until the system reports that no space is left."""
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))


def alive(pid: int) -> bool:
    """Whether a process is running, not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def parent(pid: int) -> int:
    """The process that forked a worker."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ray_executor() -> Executor:
    """Run on the cluster of this environment, to which this process is connected."""
    from bendscape.sweep.engine.ray_executor import RayExecutor

    return RayExecutor({})


def main(folder: Path, mounts: bool) -> None:
    """Serve episodes until there is no more input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries must not mix with the answers
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with World(folder, mounts) as world:
        for line in sys.stdin:
            try:
                verdict = world.episode(int(line))
            except Exception:
                verdict = {"script": script(int(line)), "failure": traceback.format_exc()}
            if "failure" not in verdict:
                shutil.rmtree(folder / f"e{int(line)}", ignore_errors=True)
            answers.write(json.dumps(verdict) + "\n")
            answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "1")
