"""Inside the pods: how the driver ends, what a drain waits for, and when a schedule starts a job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bendscape.cluster.pod import KEPT, Api, create_next, drain

SECONDS = 30.0
ENTRYPOINT = """
import os, signal, sys
from pathlib import Path
from bendscape.cluster.pod import drive

def stop_job():  # as Ray does: its supervisor signals every process of the job
    Path({folder!r}, "stopped").touch()
    os.kill(os.getpid(), signal.SIGTERM)

sys.exit(drive([sys.executable, "-c", {driver!r}], stop_job, Path({folder!r}, "note"),
               Path({folder!r}, "log"), first_wait=0.01))
"""
DRAINS = """
import signal, sys, time
from pathlib import Path
folder = Path({folder!r})
def stop(number, frame):
    with (folder / "heard").open("a") as heard:
        heard.write("x")
    time.sleep(0.5)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
(folder / "ready").touch()
while True:
    time.sleep(0.05)
"""


def start(folder: Path, driver: str) -> subprocess.Popen[str]:
    """The entrypoint of a RayJob around a driver, as a process of its own."""
    text = ENTRYPOINT.format(folder=str(folder), driver=textwrap.dedent(driver).format(folder=str(folder)))
    return subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("code", [0, 1, 2, 70, 130])
def test_the_entrypoint_ends_as_the_driver_does(tmp_path: Path, code: int) -> None:
    with start(tmp_path, f"print('the log', flush=True); raise SystemExit({code})") as entrypoint:
        printed, _ = entrypoint.communicate(timeout=SECONDS)
    assert (entrypoint.returncode, printed) == (code, "the log\n")
    assert (tmp_path / "log").read_text() == "the log\n"  # that of the container, which outlives the job
    assert not (tmp_path / "stopped").exists()


def test_a_driver_that_is_killed_is_a_failure(tmp_path: Path) -> None:
    with start(tmp_path, "import os; os.kill(os.getpid(), 9)") as entrypoint:
        assert entrypoint.wait(SECONDS) == 128 + signal.SIGKILL


@pytest.mark.parametrize("code", [75, 3], ids=["work left", "target unreachable"])
def test_what_a_retry_would_not_help_has_the_job_stopped_which_costs_none(tmp_path: Path, code: int) -> None:
    with start(tmp_path, f"raise SystemExit({code})") as entrypoint:
        assert entrypoint.wait(SECONDS) == -signal.SIGTERM  # of the stop, not of its own
    assert (tmp_path / "stopped").exists()


def test_a_store_that_fails_is_tried_again_without_a_new_cluster(tmp_path: Path) -> None:
    driver = """
    from pathlib import Path
    tries = Path({folder!r}, "tries")
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    raise SystemExit(0 if len(tries.read_text()) == 3 else 74)
    """
    with start(tmp_path, driver) as entrypoint:
        assert entrypoint.wait(SECONDS) == 0
    assert (tmp_path / "tries").read_text() == "xxx"


def test_a_store_that_stays_away_is_a_failure_at_last(tmp_path: Path) -> None:
    with start(tmp_path, "raise SystemExit(74)") as entrypoint:
        assert entrypoint.wait(SECONDS) == 74


def test_a_pod_that_goes_waits_for_its_driver_and_never_says_that_the_job_is_over(tmp_path: Path) -> None:
    # KubeRay would take it for an end; as it is, it submits the job again in the next head.
    with start(tmp_path, DRAINS) as entrypoint:
        wait_for((tmp_path / "ready").exists)
        began = time.monotonic()
        assert drain(tmp_path / "note", SECONDS)
        assert time.monotonic() - began >= 0.5
        assert (tmp_path / "heard").read_text() == "x"
        with pytest.raises(subprocess.TimeoutExpired):
            entrypoint.wait(1)
        entrypoint.kill()
    assert not (tmp_path / "stopped").exists()


def test_a_job_that_is_cancelled_hears_of_it_once(tmp_path: Path) -> None:
    # Ray signals every process of the job; the pod's drain, which comes next, must not hurry the driver.
    with start(tmp_path, DRAINS) as entrypoint:
        wait_for((tmp_path / "ready").exists)
        for pid in (entrypoint.pid, int((tmp_path / "note").read_text())):
            os.kill(pid, signal.SIGTERM)
        for mark in ("heard", "note.asked"):  # by the driver and by the entrypoint, in either order
            wait_for((tmp_path / mark).exists)
        assert drain(tmp_path / "note", SECONDS)
        entrypoint.kill()
    assert (tmp_path / "heard").read_text() == "x"


def test_a_drain_gives_up_when_its_time_is_over(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as driver:
        (tmp_path / "note").write_text(str(driver.pid))
        (tmp_path / "note.asked").touch()
        assert not drain(tmp_path / "note", 0.3)
        driver.kill()


def test_a_drain_without_a_driver_is_over_at_once(tmp_path: Path) -> None:
    assert drain(tmp_path / "note", SECONDS)


# ---- the starter of a schedule, against a server that keeps RayJobs as Kubernetes does


class Cluster(ThreadingHTTPServer):
    """The requests for RayJobs that a starter makes, and what came of them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.jobs: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()


class Answers(BaseHTTPRequestHandler):
    server: Cluster

    def _answer(self, document: Any) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        assert (
            self.path
            == "/apis/ray.io/v1/namespaces/sweeps/rayjobs?labelSelector=bendscape/schedule%3Dnightly"
        )
        self._answer({"items": self.server.jobs})

    def do_POST(self) -> None:
        made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        made["metadata"]["name"] = f"{made['metadata'].pop('generateName')}{len(self.server.jobs)}"
        made["metadata"]["creationTimestamp"] = f"2026-11-28T20:00:{len(self.server.jobs):02}Z"
        self.server.jobs.append(made)
        self._answer(made)

    def do_DELETE(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.server.jobs = [job for job in self.server.jobs if job["metadata"]["name"] != name]
        self._answer({})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def night(cluster: Cluster, due: tuple[str, ...] = ()) -> str:
    api = Api(f"http://127.0.0.1:{cluster.server_port}", "sweeps", "the-token")
    job = {"metadata": {"generateName": "nightly-", "labels": {"bendscape/schedule": "nightly"}}, "spec": {}}
    return create_next(job, due, api)


def test_a_schedule_starts_a_job_when_none_is_at_work(cluster: Cluster) -> None:
    assert night(cluster) == "created nightly-0"
    assert cluster.tokens == {"Bearer the-token"}
    assert night(cluster) == "nightly-0 is still at work: nothing to start"
    cluster.jobs[0]["status"] = {"jobDeploymentStatus": "Running"}
    assert night(cluster) == "nightly-0 is still at work: nothing to start"
    cluster.jobs[0]["status"] = {"jobDeploymentStatus": "Complete"}
    assert night(cluster) == "created nightly-1"


def test_a_schedule_starts_nothing_where_no_run_is_due(cluster: Cluster) -> None:
    assert night(cluster, due=(sys.executable, "-c", "raise SystemExit(3)")) == "no run is due (exit code 3)"
    assert cluster.jobs == []
    assert night(cluster, due=(sys.executable, "-c", "")) == "created nightly-0"


def test_a_month_of_nights_leaves_a_few_jobs(cluster: Cluster) -> None:
    for _ in range(30):
        night(cluster)
        cluster.jobs[-1]["status"] = {"jobDeploymentStatus": "Complete"}
        cluster.jobs[-1]["metadata"]["name"] = f"nightly-{time.monotonic_ns()}"
    assert len(cluster.jobs) == KEPT
