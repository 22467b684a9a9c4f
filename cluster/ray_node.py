r"""One node of a Ray of our own: every port explicit, a folder of its own, the token in a file, and one
process tree, so that ending it touches nobody else's Ray.

    python -m bendscape.cluster.ray_node --folder job-12-n1 --cpus 8 --address 10.0.0.1 \
        --head 10.0.0.1:20017 [--first]
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import NamedTuple

from bendscape.core.errors import ParameterError
from bendscape.sweep.engine.machine import available_memory
from bendscape.sweep.engine.sessions import session_folder

PORTS = (20000, 31999)
"""Where ports are taken from unless told otherwise: below those that Linux gives to outgoing connections."""
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
    """

    address: str
    head: str
    first: bool
    cpus: int
    memory: int
    temporary: str
    client: bool = False


def services(cpus: int) -> int:
    """How many ports a node needs."""
    return len(_SERVICES) + 1 + _workers(cpus)


def _workers(cpus: int) -> int:
    return 2 * cpus + 8  # a worker that has ended keeps its port for a while


def ray_start(node: Node, ports: Sequence[int]) -> list[str]:
    """The command that becomes a node: `ray start --block`, with every port that it listens on."""
    named = dict(zip(_SERVICES, ports, strict=False))
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
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "5",
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
    told = parser.parse_args(arguments)
    folder = session_folder() / told.folder
    folder.mkdir(mode=0o700, exist_ok=True)
    node = Node(
        address=told.address, head=told.head, first=told.first, cpus=told.cpus,
        memory=told.memory or int(available_memory()), temporary=str(folder),
        client=find_spec("grpc") is not None,
    )  # fmt: skip
    span = (told.ports[0], told.ports[1])
    ports = free_ports(services(told.cpus), told.address, span, [int(told.head.rpartition(":")[2])])
    try:
        ray = subprocess.Popen(ray_start(node, ports), stdin=subprocess.DEVNULL)
        signals: list[int] = []

        def end(number: int, _: object) -> None:
            signals.append(number)
            ray.terminate()

        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, end)
        ray.wait()
        return bool(signals)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    serve(sys.argv[1:])
