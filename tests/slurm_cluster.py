"""A real Slurm of two nodes on this machine, each in a network namespace of its own.

    python tests/slurm_cluster.py FOLDER     starts one, prints how to use it, and stops it on Ctrl-C

Needs root and Debian's packages: `apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
iproute2`. The controller has the first namespace to itself and the nodes are joined to it by a bridge; each
daemon is a child of this process and ends with it. There is no accounting.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

NODES = ("n1", "n2")
PORT = 17820
PACKAGES = "slurmctld slurmd slurm-client munge iproute2"
CONF = """
ClusterName=bendscape
SlurmctldHost={host}({net}.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
SlurmdParameters=config_overrides
SlurmdTimeout=300
InactiveLimit=0
KillWait=25
MinJobAge=600
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=n1 NodeHostname={host} NodeAddr={net}.11 Port={port1} CPUs=4 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr={net}.12 Port={port2} CPUs=4 RealMemory=4000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def missing() -> str:
    """What this machine lacks for it; empty if nothing."""
    if os.getuid() != 0:
        return "root"
    lacking = [
        name
        for name in ("slurmctld", "slurmd", "munged", "sbatch", "ip", "nsenter")
        if shutil.which(name) is None
    ]
    return f"{', '.join(lacking)} (apt-get install --no-install-recommends {PACKAGES})" if lacking else ""


class SlurmCluster:
    """The daemons, and what tests do to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.net = f"10.{200 + os.getpid() % 50}.{os.getpid() % 250}"
        self.prefix = f"bs{os.getpid() % 100000}"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.jobs = folder / "jobs"
        self.environment = {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "BENDSCAPE_JOBS": str(self.jobs),
        }

    def start(self) -> None:
        """Namespaces, munge, the controller and the nodes; returns once both are idle."""
        host = socket.gethostname()
        text = CONF.format(
            host=host, net=self.net, folder=self.folder, port=PORT, port1=PORT + 1, port2=PORT + 2
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        self._network()
        self._daemon(
            "munged", "", "munged", "--foreground",
            f"--key-file={key}", f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munge.pid", f"--log-file={self.folder}/munge.log",
            f"--seed-file={self.folder}/munge.seed", "--force",
        )  # fmt: skip
        self._until(lambda: (self.folder / "munge.socket").exists(), "munge")
        self._daemon("slurmctld", "c", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        self._until(lambda: self.slurm("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == "2", "idle nodes")

    def _network(self) -> None:
        for name in ("c", *NODES):
            self._ip("netns", "add", f"{self.prefix}{name}")
            self._ip("-n", f"{self.prefix}{name}", "link", "set", "lo", "up")
        # A bridge in the namespace of the controller; each node has a line of its own to it.
        self._ip("-n", f"{self.prefix}c", "link", "add", "br0", "type", "bridge")
        self._ip("-n", f"{self.prefix}c", "addr", "add", f"{self.net}.1/24", "dev", "br0")
        self._ip("-n", f"{self.prefix}c", "link", "set", "br0", "up")
        for number, node in enumerate(NODES, start=11):
            space, line = f"{self.prefix}{node}", f"{self.prefix}{node}"
            self._ip("link", "add", line, "type", "veth", "peer", "name", f"{line}p")
            self._ip("link", "set", line, "netns", space)
            self._ip("link", "set", f"{line}p", "netns", f"{self.prefix}c")
            self._ip("-n", space, "addr", "add", f"{self.net}.{number}/24", "dev", line)
            self._ip("-n", space, "link", "set", line, "up")
            self._ip("-n", f"{self.prefix}c", "link", "set", f"{line}p", "master", "br0")
            self._ip("-n", f"{self.prefix}c", "link", "set", f"{line}p", "up")

    @staticmethod
    def _ip(*arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    def inside(self, name: str, *command: str) -> list[str]:
        """A command in the namespace of a node (n1, n2) or of the controller (c)."""
        return ["nsenter", f"--net=/run/netns/{self.prefix}{name}", *command]

    def _daemon(self, name: str, space: str, *command: str) -> None:
        if before := self._daemons.get(name):
            before.kill()
            before.wait()
        with (self.folder / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                self.inside(space, *command) if space else command, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, env={**os.environ, **self.environment}, start_new_session=True,
            )  # fmt: skip

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        (self.folder / f"spool.{node}").mkdir(exist_ok=True)
        self._daemon(node, node, "slurmd", "-D", "-N", node)

    def run(self, *command: str, environment: Mapping[str, str] | None = None, timeout: float = 120) -> str:
        """What a command prints that a user gives on the login node, which is that of the controller."""
        done = subprocess.run(
            self.inside("c", *command), capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, **self.environment, **(environment or {})},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    slurm = run

    def cut(self, node: str) -> None:
        """Cut the line of a node: its packets go nowhere."""
        self._ip("-n", f"{self.prefix}{node}", "link", "set", f"{self.prefix}{node}", "down")

    def heal(self, node: str) -> None:
        """Join its line again."""
        self._ip("-n", f"{self.prefix}{node}", "link", "set", f"{self.prefix}{node}", "up")

    def processes(self, node: str) -> list[int]:
        """Every process in the namespace of a node."""
        shown = subprocess.run(
            ["ip", "netns", "pids", f"{self.prefix}{node}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return [int(pid) for pid in shown.stdout.split()]

    def lose(self, node: str) -> None:
        """The node dies with everything on it, and Slurm is told at once instead of after its time-out."""
        for _ in range(3):  # those that were being started too
            for pid in self.processes(node):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def stop(self) -> None:
        """End everything that was started."""
        with contextlib.suppress(Exception):
            self.slurm("scancel", "--user=root", "--signal=KILL")
            self.slurm("scancel", "--user=root")
        for name in ("c", *NODES):
            with contextlib.suppress(Exception):
                for pid in self.processes(name):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()
        for name in ("c", *NODES):
            with contextlib.suppress(RuntimeError):
                self._ip("netns", "del", f"{self.prefix}{name}")

    @staticmethod
    def _until(true: object, what: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(RuntimeError):
                if true():  # type: ignore[operator]
                    return
            if time.monotonic() > until:
                raise TimeoutError(what)
            time.sleep(0.3)


if __name__ == "__main__":
    if lacks := missing():
        sys.exit(f"it lacks {lacks}")
    cluster = SlurmCluster(Path(sys.argv[1]).absolute())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cluster.start()
        exports = " ".join(f"{name}={value}" for name, value in cluster.environment.items())
        print(f"env {exports} {' '.join(cluster.inside('c'))} sinfo", flush=True)
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        cluster.stop()
