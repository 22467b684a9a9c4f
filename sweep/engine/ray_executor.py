"""Ray as an executor, on a cluster or started for one run. The only module that imports Ray."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

# Other users of this machine can reach a Ray of our own, so it asks for a token that only its processes have.
# Ray reads this once, when it is imported: where somebody else did that, it stays as they left it. A cluster
# without a token does not mind one.
if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
    guarded = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ |= {"RAY_AUTH_MODE": "disabled"} if "ray" in sys.modules else guarded

import ray
from ray._private import ray_constants
from ray.util import metrics as ray_metrics

from bendscape.core.errors import ParameterError
from bendscape.sweep.engine.executor import (
    Job,
    NodeLost,
    PoolLost,
    Result,
    WorkerLost,
    WorkerOutOfMemory,
    answers,
)
from bendscape.sweep.engine.metrics import LABEL, METRICS
from bendscape.sweep.engine.sessions import remove_session, sweep_sessions
from bendscape.sweep.engine.worker import Order, run_tiles
from bendscape.sweep.store.records import Receipt

BACK_UP_SECONDS = 120.0  # after which a job may be computed a second time, by cores that have nothing to do
LOOK_SECONDS = 2.0  # between two queries of the cluster's state
MOST_WAITING = 1000  # queued tasks at most: each costs the driver 10 us per call of ray.wait
_LOST: dict[type[Exception], type[WorkerLost]] = {
    ray.exceptions.WorkerCrashedError: WorkerLost,
    ray.exceptions.OutOfMemoryError: WorkerOutOfMemory,
    ray.exceptions.NodeDiedError: NodeLost,
    ray.exceptions.ObjectLostError: NodeLost,
    ray.exceptions.LocalRayletDiedError: NodeLost,
}


def _work(order: Order) -> list[Receipt]:
    return run_tiles(order, hard=True)  # a Ray worker may be ended: the driver notices, and others take over


@contextmanager
def _on_loopback() -> Iterator[None]:
    # Ray replaces 127.0.0.1 by the address of the machine, and then listens on every interface, unless it
    # takes this machine for one that cannot be part of a cluster.
    real = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = real


class RayExecutor:
    """Plain Ray tasks in a bounded window; a lost worker is reported as a result."""

    def __init__(self, options: dict[str, Any], workers: int | None = None) -> None:
        # Workers use this environment as it is, not a copy that Ray would build under `uv run`.
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._owner = not ray.is_initialized()
        self._session: Path | None = None
        if self._owner:
            folder = options.get("_temp_dir")
            if folder is not None:
                sweep_sessions(Path(folder))
            with _on_loopback() if options.get("address") == "local" else nullcontext():
                ray.init(
                    include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
                    configure_logging=False, **options,
                )  # fmt: skip
            if folder is not None:
                os.chmod(folder, 0o700)  # Ray makes it accessible to everybody
                node: Any = ray._private.worker._global_node
                self._session = Path(node.get_session_dir_path())
        # The driver handles retries: a task retried by Ray itself would hide a crash from the ledger.
        self._task = ray.remote(num_cpus=1, max_retries=0)(_work)
        self._refs: dict[Any, Job] = {}
        self._since: dict[Any, float] = {}
        self._twins: dict[Any, Any] = {}
        self._workers = workers
        self._metrics: dict[str, Any] = {}
        self._head = ray.get_runtime_context().gcs_address
        self._lives, self._looked = True, -LOOK_SECONDS
        self._cores, self._memory = 1, 0.0
        self._look()

    @property
    def slots(self) -> int:
        """Cores of the cluster, or fewer if fewer were requested."""
        return min(self._workers or self._cores, self._cores)

    @property
    def memory(self) -> float:
        """Memory of the largest node that has cores, according to Ray."""
        return self._memory

    def _window(self) -> int:
        # One more job than can run waits for each slot, unless that would occupy cores beyond `workers`.
        return self.slots + (min(MOST_WAITING, self.slots) if self.slots == self._cores else 0)

    def _look(self) -> None:
        # A signal to the process group also ends Ray's own processes. Any query to them would then take a
        # minute and abort this process. So check the socket first, and query rarely.
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._lives = answers(self._head)
        if not self._lives:
            raise PoolLost("Ray is gone")
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        alive = [node for node in alive if node.get("CPU", 0)] or alive  # a head of its own computes nothing
        self._cores = max(1, int(sum(node.get("CPU", 0) for node in alive)))
        self._memory = max((node.get("memory", 0) for node in alive), default=0.0)
        self._looked = time.monotonic()

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        """Results in the order of completion."""
        more = True
        while True:
            self._look()
            while more and len(self._refs) < self._window():
                job = next_job()
                more = job is not None
                if job is not None:
                    self._check_memory(job.memory)
                    self._send(job)
            if not self._refs:
                return
            if not more and len(self._refs) < self.slots:
                self._back_up()
            # Signals are handled between two waits, so each wait is short.
            ready, _ = ray.wait(list(self._refs), num_returns=1, timeout=0.2)
            if ready:  # fetch every finished task at once: ray.wait on a thousand tasks is slow
                ready, _ = ray.wait(list(self._refs), num_returns=len(self._refs), timeout=0)
            for ref in ready:
                if ref not in self._refs:
                    continue  # its twin was first
                job, twin = self._refs.pop(ref), self._twins.pop(ref, None)
                result = self._result(ref, job)
                if twin is not None:
                    del self._twins[twin]
                    if isinstance(result.error, WorkerLost):
                        continue  # the other one goes on
                    del self._refs[twin], self._since[twin]
                    ray.cancel(twin, force=True)
                yield result
            more = True
            if not ready:
                yield None

    def _send(self, job: Job) -> Any:
        memory = max(job.memory, int(self._memory)) if job.whole_node else job.memory
        ref = self._task.options(memory=memory).remote(job.order)
        self._refs[ref], self._since[ref] = job, time.monotonic()
        return ref

    def _result(self, ref: Any, job: Job) -> Result:
        del self._since[ref]
        try:
            return Result(job, ray.get(ref), None)
        except ray.exceptions.RayTaskError as error:
            return Result(job, [], error.cause or error)
        except ray.exceptions.RayError as error:
            return Result(job, [], _translated(error))

    def _back_up(self) -> None:
        # When the line to a node was cut for a moment, Ray may wait for ever for an answer that was lost.
        # Nobody can tell such a job from a long one, so cores that have nothing to do compute it a second
        # time, unless the driver has a reason to wait: both write the same bits, and the first to finish
        # counts.
        for ref, job in list(self._refs.items()):
            waited = time.monotonic() - self._since[ref]
            free = ref not in self._twins and len(self._refs) < self.slots
            if free and waited > BACK_UP_SECONDS and job.again(waited):
                twin = self._send(job)
                self._twins |= {ref: twin, twin: ref}

    def _check_memory(self, wanted: int) -> None:
        # Ray would wait for ever for a node that never comes.
        if wanted > self._memory:
            accepted = f"at most {self._memory:.3g} bytes, the memory of the largest node now"
            remedy = "the node that had more is gone; give the same command where there is one"
            raise ParameterError("memory of a task", f"{wanted:.3g} bytes", accepted, remedy)

    def report(self, campaign: str, added: Mapping[str, float], now: Mapping[str, float]) -> None:
        """Add to the counters of a campaign and set its gauges; the agent of this node exports them."""
        kinds = {"counter": ray_metrics.Counter, "gauge": ray_metrics.Gauge}
        if not self._metrics:
            self._metrics = {
                name: kinds[metric.kind](metric.name, metric.description, (LABEL,))
                for name, metric in METRICS.items()
            }
        tags = {LABEL: campaign}
        for name, amount in added.items():
            # Not `inc`, which refuses the zero that a series must begin with for its first increase to count.
            self._metrics[name]._record(float(amount), tags)
        for name, value in now.items():
            self._metrics[name].set(value, tags)

    def close(self) -> None:
        """Cancel what still runs; shut Ray down if this executor started it, and remove its folder."""
        if self._lives and answers(self._head):
            for ref in self._refs:
                ray.cancel(ref, force=True)
            self._refs.clear()
            if self._owner:
                ray.shutdown()
        if self._session is not None:
            remove_session(self._session)


def _translated(error: Exception) -> Exception:
    for of_ray, ours in _LOST.items():
        if isinstance(error, of_ray):
            return ours(str(error))
    return error
