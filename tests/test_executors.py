"""The store is the same whichever executor runs the jobs; processes start at once and leave nothing."""

from __future__ import annotations

import ast
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import xarray as xr

from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.cli import _exit_code
from bendscape.sweep.engine import fork_server, processes
from bendscape.sweep.engine.executor import (
    Executor,
    Job,
    Result,
    WorkerLost,
    WorkerOutOfMemory,
    choose,
    executor_at,
)
from bendscape.sweep.engine.fork_server import READY, ForkServer
from bendscape.sweep.engine.processes import ProcessExecutor
from bendscape.sweep.engine.worker import Order
from bendscape.sweep.store.ledger import LeaseLost
from campaigns import RANDOM, calls, campaign_text, data_files, make_campaign, recorded, run

ROOT = Path(__file__).parent.parent
BENDSCAPE = Path(sys.executable).with_name("bendscape")
KernelFile = Callable[..., str]
Pool = Callable[..., Executor]
SMALL = {"p": [1], "N": [64]}
CELLS = 2 * 3 * 6  # of SMALL
ODD = "cell[:-1] == (1, 1, 0.7, 1.0, 64, 3) and attempt == 1"  # the first try of one cell
SPAN = """
began = time.time()
time.sleep(0.05)
outcome = rng.normal() + cell.alpha
(CALLS.parent / (uuid.uuid4().hex + ".span")).write_text(f"{began} {time.time()}")
return Outcome({"x": outcome})
"""


def state_of(pid: int) -> tuple[str, int]:
    """Its state and its parent."""
    state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return state, int(parent)


def alive(pid: int) -> bool:
    try:
        return state_of(pid)[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def workers_of(module: str) -> set[int]:
    texts = (path.read_text() for path in (Path(module).parent / "calls").iterdir())
    return {int(text) for text in texts if text}


def at_the_same_time(folder: Path) -> int:
    """The most cells of `SPAN` that were computed at one moment."""
    spans = [tuple(map(float, path.read_text().split())) for path in folder.glob("*.span")]
    assert spans
    return max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)


@dataclass
class Changed:
    """An executor whose jobs are changed on their way."""

    inner: Executor
    change: Callable[[Job], Job]

    @property
    def slots(self) -> int:
        return self.inner.slots

    @property
    def memory(self) -> float:
        return self.inner.memory

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        return self.inner.run(lambda: (job := next_job()) and self.change(job))

    def close(self) -> None:
        self.inner.close()


# -- any executor


def test_a_worker_that_is_lost_once_costs_no_cell_its_value(
    tmp_path: Path, kernel_file: KernelFile, pool: Pool
) -> None:
    module = kernel_file(f"if {ODD}:\n    os.kill(os.getpid(), signal.SIGKILL)\n{RANDOM}")
    summary = run(tmp_path / "a.zarr", module, make_campaign(**SMALL), pool())
    assert (summary.outcome, summary.done) == ("complete", CELLS)
    run(tmp_path / "b.zarr", kernel_file(RANDOM), make_campaign(**SMALL))
    assert data_files(tmp_path / "a.zarr") == data_files(tmp_path / "b.zarr")


def test_a_job_that_wants_the_whole_node_runs_alone(
    tmp_path: Path, kernel_file: KernelFile, pool: Pool
) -> None:
    executor = Changed(pool(), lambda job: job._replace(whole_node=True))
    summary = run(tmp_path / "s.zarr", kernel_file(SPAN), make_campaign(**SMALL), executor)
    assert summary.outcome == "complete"
    assert at_the_same_time(tmp_path) == 1


def test_an_error_in_a_job_keeps_its_type(tmp_path: Path, kernel_file: KernelFile, pool: Pool) -> None:
    module = kernel_file(RANDOM)
    run(tmp_path / "s.zarr", module, make_campaign(**SMALL))
    stale = Changed(pool(), lambda job: job._replace(order=job.order._replace(revision=9)))
    with pytest.raises(LeaseLost, match="no longer at revision 9"):  # what a driver makes of `Superseded`
        run(tmp_path / "s.zarr", module, make_campaign(**SMALL, seeds=8), stale)


def test_ray_is_imported_by_one_module() -> None:
    found = set()
    for folder in ("core", "sweep", "analysis", "cluster"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if any(name.partition(".")[0] == "ray" for name in names):
                    found.add(path.relative_to(ROOT).as_posix())
    assert found == {"sweep/engine/ray_executor.py"}


@pytest.mark.parametrize("address", ["local", "serial"])
def test_a_run_on_this_machine_loads_no_ray_and_leaves_nothing(
    tmp_path: Path, kernel_file: KernelFile, address: str
) -> None:
    module = kernel_file(f"import sys\nassert 'ray' not in sys.modules\n{RANDOM}")
    file, temporary = tmp_path / "c.toml", tmp_path / "temporary"
    file.write_text(campaign_text(**SMALL))
    temporary.mkdir()
    command = [BENDSCAPE, "run", file, "--store", tmp_path / "s.zarr", "--kernel-module", module]
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1", "TMPDIR": str(temporary)}
    done = subprocess.run(
        [*command, "--address", address, "--json"],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done"] == CELLS
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "numpy" in imported
    assert not {name for name in imported if name.partition(".")[0] == "ray"}
    assert (len(workers_of(module)) == 1) == (address == "serial")
    assert list(temporary.iterdir()) == []
    wait_until(lambda: not any(map(alive, workers_of(module))))


@pytest.mark.parametrize(
    ("address", "name", "here"),
    [
        ("local", "processes", True),
        ("serial", "serial", True),
        ("ray", "ray", True),
        ("10.0.0.1:6379", "ray", False),
    ],
)
def test_the_plan_says_which_executor_an_address_stands_for_and_why(
    tmp_path: Path, kernel_file: KernelFile, address: str, name: str, here: bool
) -> None:
    choice = choose(address)
    assert (choice.name, choice.here) == (name, here)
    assert "--address" in choice.reason
    assert address == "local" or address in choice.reason
    if address != "local":
        return
    file = tmp_path / "c.toml"
    file.write_text(campaign_text(**SMALL))
    command = [
        BENDSCAPE,
        "plan",
        file,
        "--store",
        tmp_path / "s.zarr",
        "--kernel-module",
        kernel_file(RANDOM),
    ]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    document = json.loads(subprocess.check_output([*command, "--json"], timeout=60))
    assert (document["executor"], document["executor_reason"]) == (name, choice.reason)
    assert f"executor: {name}; {choice.reason}" in text


@pytest.mark.parametrize("workers", [0, -1])
def test_at_least_one_worker_is_needed(workers: int) -> None:
    with pytest.raises(ParameterError, match=f"--workers = {workers}"):
        executor_at("local", workers)()


# -- processes


@pytest.mark.parametrize(
    ("workers", "memory", "most"), [(1, 1e9, 1), (3, 1e9, 3), (3, 2.5e6, 2), (3, 1.5e6, 1)]
)
def test_as_many_jobs_run_as_there_are_workers_and_as_memory_holds(
    tmp_path: Path, kernel_file: KernelFile, workers: int, memory: float, most: int
) -> None:
    executor = ProcessExecutor(workers, memory)  # a job of the kernel takes 1 MB
    summary = run(tmp_path / "s.zarr", kernel_file(SPAN), make_campaign(p=[1]), executor)
    assert summary.outcome == "complete"
    assert at_the_same_time(tmp_path) == most


def test_workers_are_forked_from_a_process_of_one_thread() -> None:
    server = ForkServer()
    assert server.reports.recv() == (READY, 0)
    assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1, "a second thread would hang in a fork"
    server.close()
    assert not alive(server.pid)


def test_forked_workers_do_not_draw_the_same_random_numbers(tmp_path: Path, kernel_file: KernelFile) -> None:
    module = kernel_file(
        "import numpy, random\ntime.sleep(0.02)\nreturn Outcome({'x': numpy.random.random()})"
    )
    run(tmp_path / "s.zarr", module, make_campaign(**SMALL), ProcessExecutor(2))
    assert len(workers_of(module)) == 2
    with xr.open_dataset(tmp_path / "s.zarr", engine="bendscape") as ds:
        drawn = ds.x.values.ravel()
    assert len(set(drawn)) == CELLS


def test_everything_that_cells_print_reaches_standard_error(
    tmp_path: Path, kernel_file: KernelFile, capfd: pytest.CaptureFixture[str]
) -> None:
    long = "Q" * 200_000  # more than a pipe holds
    module = kernel_file(f"import warnings\nprint('{long}')\nwarnings.warn(f'odd {{cell.seed}}')\n{RANDOM}")
    run(tmp_path / "s.zarr", module, make_campaign(**SMALL), ProcessExecutor(2))
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("Q") == CELLS * len(long)
    assert "UserWarning: odd 3" in err


def test_when_the_process_that_forks_is_killed_another_takes_over(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file(
        f"if {ODD}:\n    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(60)\n{RANDOM}"
    )
    summary = run(tmp_path / "s.zarr", module, make_campaign(**SMALL), ProcessExecutor(2))
    assert (summary.outcome, summary.done) == ("complete", CELLS)


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"])
def test_processes_started_by_a_cell_end_with_its_worker_without_waiting(
    tmp_path: Path, kernel_file: KernelFile, end: str
) -> None:
    # The child of a fork holds all that its parent had open, the way to the driver too.
    module = kernel_file(
        f"""
        if {ODD}:
            if not (child := os.fork()):
                time.sleep(3600)
            (CALLS.parent / "child").write_text(str(child))
            {end}
        {RANDOM}
        """
    )
    summary = run(tmp_path / "s.zarr", module, make_campaign(**SMALL), ProcessExecutor(2))
    assert (summary.missing, summary.done) == (0, CELLS)
    wait_until(lambda: not alive(int((tmp_path / "child").read_text())))


def test_a_worker_that_closes_its_connection_is_lost_without_waiting(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file(f"if {ODD}:\n    os.closerange(3, 1000)\n    time.sleep(3600)\n{RANDOM}")
    summary = run(tmp_path / "s.zarr", module, make_campaign(**SMALL), ProcessExecutor(2))
    assert (summary.missing, summary.done) == (0, CELLS)


def start(tmp_path: Path, module: str, *options: str) -> subprocess.Popen[bytes]:
    file = tmp_path / "c.toml"
    file.write_text(campaign_text(**SMALL))
    command = [BENDSCAPE, "run", file, "--store", tmp_path / "s.zarr", "--kernel-module", module, *options]
    return subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.mark.parametrize("deed", ["sum(itertools.repeat(0))", "time.sleep(3600)"])
def test_workers_die_with_their_driver_whatever_they_do(
    tmp_path: Path, kernel_file: KernelFile, deed: str
) -> None:
    other = "subprocess.Popen(['sleep', '3600']).pid"
    module = kernel_file(f"import subprocess\n(CALLS.parent / 'other').write_text(str({other}))\n{deed}")
    process = start(tmp_path, module)
    try:
        wait_until(lambda: (tmp_path / "other").exists() and len(workers_of(module)) == 2)
        wait_until(lambda: (tmp_path / "other").read_text() != "")
        others = [*workers_of(module), int((tmp_path / "other").read_text())]
        servers = {
            int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            for pid in workers_of(module)
        }
        assert all(map(alive, [*others, *servers]))
    finally:
        process.kill()
        process.communicate(timeout=60)
    wait_until(lambda: not any(map(alive, [*others, *servers])))


def test_a_signal_to_every_process_of_a_run_stops_it_and_what_is_under_way_comes_to_its_end(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    # As a service manager sends it, or a scheduler: not only to the process group.
    module = kernel_file(f"time.sleep(0.1)\n{RANDOM}")
    process = start(tmp_path, module, "--json")
    try:
        wait_until(lambda: len(workers_of(module)) == 2)
        workers = workers_of(module)
        (server,) = {state_of(pid)[1] for pid in workers}
        for number, pid in itertools.product(
            (signal.SIGTERM, signal.SIGHUP, signal.SIGINT), [*workers, server]
        ):
            os.kill(pid, number)
        os.kill(process.pid, signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 75, stderr.decode()
    computed = sum(calls(module).values())
    assert 0 < computed == json.loads(stdout)["computed"] == len(recorded(tmp_path / "s.zarr")) < CELLS
    assert workers_of(module) == workers, "none was lost and replaced"


def test_closing_does_not_wait_for_a_cell_that_never_ends(tmp_path: Path, kernel_file: KernelFile) -> None:
    module = kernel_file("sum(itertools.repeat(0))")
    executor = ProcessExecutor(2)
    summary = run(tmp_path / "s.zarr", module, make_campaign(**SMALL), executor, time_budget=6.0)
    assert (summary.outcome, summary.computed) == ("stopped", 0)
    assert not any(map(alive, workers_of(module)))
    executor.close()


def test_where_no_worker_can_start_the_run_ends_with_the_reason(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, campaign = kernel_file(RANDOM), make_campaign(**SMALL)
    (tmp_path / "threadpoolctl.py").write_text("raise ImportError('not today')")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(WorkerLost, match="no worker can be started: ImportError: not today"):
            ProcessExecutor(2)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(WorkerLost, match="ended at once"):
            ProcessExecutor(2)
    assert _exit_code(WorkerLost("no worker can be started")) == 74
    assert run(tmp_path / "s.zarr", module, campaign).outcome == "complete"


def test_an_out_of_memory_kill_is_distinguished_from_other_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 3
    monkeypatch.setattr(processes, "_times_out_of_memory", lambda: count)
    executor = ProcessExecutor(1)
    assert type(executor._lost(-signal.SIGKILL)) is WorkerLost
    count = 4
    assert type(executor._lost(-signal.SIGSEGV)) is WorkerLost
    assert type(executor._lost(-signal.SIGKILL)) is WorkerOutOfMemory
    assert str(executor._lost(-signal.SIGKILL)) == "a worker process was killed by SIGKILL"
    assert str(executor._lost(3)) == "a worker process exited with code 3"
    executor.close()


def test_linux_counts_its_out_of_memory_kills() -> None:
    assert processes._times_out_of_memory() >= 0
    assert any(line.startswith("oom_kill ") for line in Path("/proc/vmstat").read_text().splitlines())


def test_an_error_that_does_not_pickle_is_reported_by_name() -> None:
    class Local(Exception):
        pass

    class Picky(Exception):
        def __init__(self, one: str, two: str) -> None:
            super().__init__(one)

    told = fork_server._portable(Local("no way"))
    assert (type(told), str(told)) == (RuntimeError, "Local: no way")
    assert str(fork_server._portable(Picky("one", "two"))) == "Picky: one"
    kept = ParameterError("a", 1, "more")
    assert fork_server._portable(kept) is kept


@pytest.mark.ray
def test_a_ray_of_our_own_asks_for_a_token_that_no_list_of_processes_shows(local_ray: None) -> None:
    import ray

    token = os.environ["RAY_AUTH_TOKEN"]
    command = ["ps", "axww", "-o", "args"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "gcs_server" in shown.stdout
    assert token not in shown.stdout
    address = ray.get_runtime_context().gcs_address
    script = f"import ray; ray.init(address={address!r}, log_to_driver=False); print('let in')"
    # Without the second, the stranger's Ray takes 127.0.0.1 for the machine's address, where nobody listens.
    environment = {**os.environ, "RAY_AUTH_TOKEN": "0" * 64, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, text=True
    ) as stranger:
        try:  # it asks again and again until it is ended
            assert stranger.stderr is not None
            assert any("InvalidAuthToken" in line for line in stranger.stderr)
        finally:
            stranger.kill()


@pytest.mark.ray
def test_a_ray_of_our_own_listens_on_loopback_alone(local_ray: None) -> None:
    own = [psutil.Process(), *psutil.Process().children(recursive=True)]
    assert any(process.name() == "gcs_server" for process in own)
    sockets = [socket for process in own for socket in process.net_connections("inet")]
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert listening


@pytest.mark.ray
def test_an_answer_that_never_comes_holds_up_no_campaign_on_ray(
    local_ray: None, tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bendscape.sweep.engine import ray_executor

    monkeypatch.setattr(ray_executor, "BACK_UP_SECONDS", 3.0)
    module = kernel_file(f"time.sleep(3600 if {ODD} else 0)\n{RANDOM}")
    executor = ray_executor.RayExecutor({}, 2)
    summary = run(tmp_path / "s.zarr", module, make_campaign(**SMALL), executor)
    assert (summary.outcome, summary.computed) == ("complete", CELLS)
    run(tmp_path / "serial.zarr", kernel_file(RANDOM), make_campaign(**SMALL))
    assert data_files(tmp_path / "s.zarr") == data_files(tmp_path / "serial.zarr")


def test_the_memory_of_a_head_without_cores_is_promised_to_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray would wait for ever for a worker with the memory of the head.
    from bendscape.sweep.engine import ray_executor

    nodes = [{"Alive": True, "Resources": {"memory": 64.0}}]
    monkeypatch.setattr(ray_executor.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray_executor, "answers", lambda _: True)
    executor = object.__new__(ray_executor.RayExecutor)
    executor._workers, executor._head = None, "127.0.0.1:6379"

    def look() -> tuple[int, float]:
        executor._looked = -ray_executor.LOOK_SECONDS
        executor._look()
        return executor.slots, executor.memory

    assert look() == (1, 64.0), "workers are still to join"
    nodes += [{"Alive": True, "Resources": {"memory": 16.0, "CPU": 8.0}}]
    assert look() == (8, 16.0)
    nodes += [{"Alive": False, "Resources": {"memory": 32.0, "CPU": 8.0}}]
    assert look() == (8, 16.0)


LOST, BACK = "lost", "back"


@pytest.mark.parametrize(
    ("outcomes", "cancelled"),
    [
        ([{"first": BACK}], ["second"]),
        ([{"second": BACK}], ["first"]),
        ([{"first": BACK, "second": BACK}], ["second"]),
        ([{"first": LOST}, {"second": BACK}], []),
        ([{"first": LOST, "second": BACK}], []),
        ([{"second": LOST}, {"first": LOST}], []),
        ([{"first": LOST, "second": LOST}], []),
    ],
    ids=str,
)
def test_a_job_that_is_computed_twice_has_one_result(
    outcomes: list[dict[str, str]], cancelled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bendscape.sweep.engine import ray_executor

    names, ended, gone = iter(("first", "second")), dict[str, str](), list[str]()

    def wait(refs: list[str], num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        if timeout and outcomes and ("second" in executor._since or ended):
            ended.update(outcomes.pop(0))
        ready = [ref for ref in refs if ref in ended]
        return ready[:num_returns], []

    def get(ref: str) -> list[str]:
        if ended[ref] == LOST:
            raise ray_executor.ray.exceptions.WorkerCrashedError
        return []

    class Task:
        def options(self, memory: int) -> Task:
            return self

        def remote(self, order: object) -> str:
            return next(names)

    monkeypatch.setattr(ray_executor, "BACK_UP_SECONDS", -1.0)
    for name, fake in (("wait", wait), ("get", get), ("cancel", lambda ref, force: gone.append(ref))):
        monkeypatch.setattr(ray_executor.ray, name, fake)
    executor = object.__new__(ray_executor.RayExecutor)
    monkeypatch.setattr(executor, "_look", lambda: None, raising=False)
    executor._workers, executor._cores, executor._memory = None, 2, 8.0
    executor._refs, executor._since, executor._twins, executor._task = {}, {}, {}, Task()
    asked = list[float]()
    job = Job(
        Order("file:///none", 1, (), ()), 1, again=lambda waited: not asked and not asked.append(waited)
    )
    jobs = iter([job])
    results = [result for result in executor.run(lambda: next(jobs, None)) if result is not None]
    assert len(results) == 1
    lost = all(one == LOST for one in ended.values())
    assert isinstance(results[0].error, WorkerLost) == lost
    assert (gone, len(asked)) == (cancelled, 1)
    assert not executor._refs
    assert not executor._twins
    assert not executor._since
