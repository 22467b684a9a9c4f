r"""One node of a Ray of our own: every port explicit, a folder of its own, the token in a file, and one
process tree, so that ending it touches nobody else's Ray.

    python -m bendscape.cluster.ray_node --folder job-12-n1 --cpus 8 --address 10.0.0.1 \
        --head 10.0.0.1:20017 [--first]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from bendscape.core.errors import ParameterError
from bendscape.sweep.engine.machine import available_memory
from bendscape.sweep.engine.sessions import session_folder

PORTS = (20000, 31999)
"""Where ports are taken from unless told otherwise: below those that Linux gives to outgoing connections."""
ENDING = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that end a node; `srun` passes the first one on."""
END_SECONDS = 8.0  # for a node to end when it is told to; Slurm waits half a minute in all
STALE_SECONDS = 3600.0
_OBJECT_STORE_BYTES = 100 * 2**20  # only receipts travel, and they are small
_SERVICES = (
    *("node-manager-port", "object-manager-port", "dashboard-agent-listen-port"),
    *("dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port"),
)


class Node(NamedTuple):
    """What a node of Ray is told.

    Attributes
    ----------
    address
        Its own address.
    head
        host:port of the head.
    first
        Whether it is the head.
    cpus
        Tasks that it takes at the same time.
    memory
        Bytes for its tasks together.
    temporary
        Folder for its sockets and logs, short enough for sockets.
    client
        Whether Ray would also start its server for remote clients: if so it gets a port too.
    metrics_port
        Where it serves its metrics; 0 for one of the others.
    """

    address: str
    head: str
    first: bool
    cpus: int
    memory: int
    temporary: str
    client: bool = False
    metrics_port: int = 0


def services(cpus: int) -> int:
    """How many ports a node needs."""
    return len(_SERVICES) + 1 + _workers(cpus)


def _workers(cpus: int) -> int:
    return 2 * cpus + 8  # a worker that has ended keeps its port for a while


def ray_start(node: Node, ports: Sequence[int]) -> list[str]:
    """The command that becomes a node: `ray start --block`, with every port that it listens on."""
    named = dict(zip(_SERVICES, ports, strict=False))
    named["metrics-export-port"] = node.metrics_port or named["metrics-export-port"]
    client, workers = ports[len(_SERVICES)], ports[len(_SERVICES) + 1 :]
    if node.first:
        who = ["--head", f"--port={node.head.rpartition(':')[2]}", "--include-dashboard=false"]
        who += [f"--ray-client-server-port={client}"] if node.client else []
    else:
        who = [f"--address={node.head}"]
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
        *(
            *who,
            f"--temp-dir={node.temporary}",
            f"--node-ip-address={node.address}",
            f"--num-cpus={node.cpus}",
            "--num-gpus=0",
        ),
        f"--memory={node.memory}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        *(f"--{name}={port}" for name, port in named.items()),
        f"--worker-port-list={','.join(map(str, workers))}",
    ]


def environment(token: str) -> dict[str, str]:
    """What every process of a Ray with this token file needs in its environment."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token,
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",  # the driver drains; a node has nothing to wait for
    }


def free_ports(
    count: int, address: str, span: tuple[int, int] = PORTS, taken: Iterable[int] = ()
) -> list[int]:
    """Ports that nobody on this machine listens on, drawn from a span.

    Drawn at random, so that two jobs that start at the same moment on the same node seldom draw the same; a
    node that loses this race ends, and is started again with others.

    Raises
    ------
    ParameterError
        There are not enough.
    """
    held, found = set(taken), list[int]()
    for port in random.sample(range(span[0], span[1] + 1), span[1] - span[0] + 1):
        if len(found) == count:
            break
        if port not in held and all(_free(host, port) for host in {address, "0.0.0.0"}):
            found.append(port)
    if len(found) < count:
        raise ParameterError("ports", span, f"a span with {count} free ports on {socket.gethostname()}")
    return found


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def serve(arguments: Sequence[str]) -> bool:
    """Run a node of Ray until it ends or this process is told to end, then remove its folder; returns whether
    it was told."""
    parser = argparse.ArgumentParser(description="One node of a Ray of our own.")
    parser.add_argument("--folder", required=True, help="name of its folder, of its own on this machine")
    parser.add_argument("--address", required=True)
    parser.add_argument("--head", required=True, metavar="HOST:PORT")
    parser.add_argument("--first", action="store_true", help="it is the head")
    parser.add_argument("--cpus", type=int, required=True)
    parser.add_argument("--memory", type=int, default=0, help="bytes; by default what there is")
    parser.add_argument("--ports", type=int, nargs=2, default=PORTS)
    parser.add_argument("--metrics-port", type=int, default=0, help="where metrics are served")
    told = parser.parse_args(arguments)
    folder = session_folder() / told.folder
    sweep(session_folder().glob("j*-*"))
    folder.mkdir(mode=0o700, exist_ok=True)
    node = Node(
        address=told.address, head=told.head, first=told.first, cpus=told.cpus,
        memory=told.memory or int(available_memory()), temporary=str(folder),
        client=find_spec("grpc") is not None, metrics_port=told.metrics_port,
    )  # fmt: skip
    if node.metrics_port and not all(_free(host, node.metrics_port) for host in (told.address, "0.0.0.0")):
        print(f"port {node.metrics_port} is taken: metrics are served elsewhere", file=sys.stderr, flush=True)
        node = node._replace(metrics_port=0)  # a port for metrics is no reason not to compute
    span = (told.ports[0], told.ports[1])
    taken = [int(told.head.rpartition(":")[2]), node.metrics_port]
    ports = free_ports(services(told.cpus), told.address, span, taken)
    signals: list[int] = []
    for number in ENDING:
        signal.signal(number, lambda number, _: signals.append(number))
    # A session of its own, so that what it started can be ended as a whole, and nothing else.
    ray = subprocess.Popen(ray_start(node, ports), stdin=subprocess.DEVNULL, start_new_session=True)
    while ray.poll() is None and not signals:
        time.sleep(0.5)
    ray.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        ray.wait(END_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(ray.pid, signal.SIGKILL)
    ray.wait()
    remove(folder)
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    return bool(signals)


def remove(folder: Path) -> None:
    """Remove the folder of a node that has ended, also while the last of its processes write to it."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.2)


def sweep(folders: Iterable[Path]) -> None:
    """Remove folders whose node was killed: an hour old, and no Ray answers there."""
    for folder in folders:
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE_SECONDS and not _lives(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _lives(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as raylet, contextlib.suppress(OSError):
        raylet.connect(str(folder / "session_latest" / "sockets" / "raylet"))
        return True
    return False


if __name__ == "__main__":
    serve(sys.argv[1:])
