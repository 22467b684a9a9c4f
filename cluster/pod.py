"""What runs inside the pods of a campaign: the driver, its drain, and the start of a scheduled job.

    python -m bendscape.cluster.pod drive            the entrypoint of a RayJob
    python -m bendscape.cluster.pod drain SECONDS    before the head's pod is stopped (its preStop hook)
    python -m bendscape.cluster.pod create           in the pod of a CronJob: create the next RayJob

What they need comes in files that the pod mounts, never in a command line that a shell would read.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

FOLDER = Path("/etc/bendscape")  # where the files are mounted
CAMPAIGN, COMMAND, RAYJOB, DUE = "campaign.toml", "command.json", "rayjob.json", "due.json"
SCHEDULE = "bendscape/schedule"  # the label of a RayJob that says which schedule it belongs to
WORK_LEFT, STORE_FAILED, UNREACHABLE = 75, 74, 3  # exit codes of `bendscape run`
TRIES, FIRST_WAIT = 6, 15.0  # of a driver whose store has failed: eight minutes in all
KEPT = 3  # finished RayJobs of a schedule, for whoever looks at what happened
FINISHED = ("Complete", "Failed", "ValidationFailed")  # KubeRay's jobDeploymentStatus at the end of a RayJob
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


# ---- the driver


def drive(
    command: Sequence[str],
    stop_job: Callable[[], None],
    note: Path,
    log: Path | None = None,
    first_wait: float = FIRST_WAIT,
) -> int:
    """Run the driver; returns the exit code of the entrypoint, or does not return.

    Exit codes 75, work left, and 3, target unreachable, would be failures for KubeRay, which would spend its
    retries on them. So the Ray job has itself stopped: the RayJob is then complete, with the job status
    STOPPED, and counts as neither failed nor succeeded. If the pod is going, the job does not end at all:
    KubeRay finds no job in the next head and submits it there again, which costs no retry either.

    A store that fails (74) is tried again here for some minutes, since the workers are still there.

    Parameters
    ----------
    command
        The driver's command.
    stop_job
        Has Ray stop this job.
    note
        File in which `drain` finds the driver, and which it marks.
    log
        Where what the driver prints goes beside the standard output of this process.
    first_wait
        Seconds before a driver whose store has failed is started again, twice as long each further time.
    """
    heard: list[int] = []

    def hear(number: int, frame: object) -> None:
        # Ray signals every process of a job: the driver has heard it too, and a second signal would hurry it.
        heard.append(number)
        note.with_suffix(".asked").touch()

    for mark in ("", ".asked", ".drained"):
        note.with_suffix(mark).unlink(missing_ok=True)
    before = signal.signal(signal.SIGTERM, hear)
    try:
        for attempt in range(TRIES):
            code = _run(command, note, log)
            if code != STORE_FAILED or heard or attempt == TRIES - 1:
                break
            _sleep_until(lambda: bool(heard), first_wait * 2**attempt)
    finally:
        signal.signal(signal.SIGTERM, before)
        note.unlink(missing_ok=True)
    if code and note.with_suffix(".drained").exists():
        _sleep_until(lambda: False)
    if code in (WORK_LEFT, UNREACHABLE) and not heard:
        stop_job()
        _sleep_until(lambda: False)  # until the signal that this brings
    return code


def _run(command: Sequence[str], note: Path, log: Path | None) -> int:
    with contextlib.ExitStack() as stack:
        copies: list[IO[bytes]] = [sys.stdout.buffer]
        with contextlib.suppress(OSError):
            copies += [stack.enter_context(log.open("wb", buffering=0))] if log else []
        driver = stack.enter_context(
            subprocess.Popen(list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        )
        note.write_text(str(driver.pid))
        assert driver.stdout is not None
        while printed := driver.stdout.read(65536):
            for copy in copies:
                with contextlib.suppress(OSError):
                    copy.write(printed)
                    copy.flush()
        code = driver.wait()
    return code if code >= 0 else 128 - code


def _sleep_until(heard: Callable[[], bool], seconds: float = float("inf")) -> None:
    deadline = time.monotonic() + seconds
    while not heard() and time.monotonic() < deadline:
        time.sleep(min(0.2, seconds))


def stop_ray_job() -> None:
    """Have Ray stop the job of this process, through the job server on this machine."""
    from importlib import import_module  # only executors import Ray: this is its client for jobs

    sdk = import_module("ray.job_submission")
    about = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]
    client = sdk.JobSubmissionClient("http://127.0.0.1:8265")
    client.stop_job(about["job_submission_id"])


# ---- the drain


def drain(note: Path, seconds: float) -> bool:
    """Ask the driver to stop, unless Ray has done so, and wait for it; returns whether it did in time."""
    note.with_suffix(".drained").touch()
    try:
        pid = int(note.read_text())
    except (OSError, ValueError):
        return True
    with contextlib.suppress(ProcessLookupError):
        if not note.with_suffix(".asked").exists():
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.2)
        return False
    return True


# ---- the next job of a schedule


class Api:
    """Kubernetes as its own pods see it: a handful of requests for RayJobs, with the pod's token."""

    def __init__(self, server: str, namespace: str, token: str, authority: str | None = None) -> None:
        self._jobs = f"{server}/apis/ray.io/v1/namespaces/{quote(namespace, safe='')}/rayjobs"
        self._token = token
        trust = ssl.create_default_context(cafile=authority) if server.startswith("https") else None
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        ).open

    @classmethod
    def of_pod(cls) -> Api:
        """The one that the pod was given."""
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT_HTTPS"]
        at = f"[{host}]" if ":" in host else host
        namespace, token = ((_ACCOUNT / name).read_text() for name in ("namespace", "token"))
        return cls(f"https://{at}:{port}", namespace, token, str(_ACCOUNT / "ca.crt"))

    def _ask(self, method: str, path: str = "", body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._jobs + path, data, headers, method=method)
        with self._open(request, timeout=60) as answer:
            return json.load(answer)

    def jobs(self, label: str, value: str) -> list[dict[str, Any]]:
        """RayJobs with a label, the oldest first."""
        found = self._ask("GET", f"?labelSelector={quote(f'{label}={value}')}")["items"]
        return sorted(found, key=lambda job: str(job["metadata"].get("creationTimestamp", "")))

    def create(self, job: Any) -> str:
        """Create a RayJob; returns its name."""
        return str(self._ask("POST", body=job)["metadata"]["name"])

    def delete(self, name: str) -> None:
        """Delete a RayJob with all that belongs to it."""
        self._ask("DELETE", f"/{quote(name, safe='')}?propagationPolicy=Background")


def create_next(job: dict[str, Any], due: Sequence[str], api: Api) -> str:
    """Create the next RayJob of a schedule if one is due and none is at work; returns what happened.

    The CronJob forbids two of its own pods at a time, but these are gone once the RayJob is there.

    Parameters
    ----------
    job
        The RayJob.
    due
        A command whose exit code 0 says that a run is due, and any other that it is not; empty for always.
    """
    earlier = api.jobs(SCHEDULE, job["metadata"]["labels"][SCHEDULE])
    for one in earlier:
        if one.get("status", {}).get("jobDeploymentStatus") not in FINISHED:
            return f"{one['metadata']['name']} is still at work: nothing to start"
    if due and (code := subprocess.run(list(due), check=False).returncode):
        return f"no run is due (exit code {code})"
    for one in earlier[: max(0, len(earlier) - KEPT + 1)]:
        api.delete(one["metadata"]["name"])
    return f"created {api.create(job)}"


def _mounted(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def main(arguments: Sequence[str]) -> int:
    """Do what one of the three words says."""
    note = Path(tempfile.gettempdir()) / f"bendscape-driver-{os.getuid()}"
    if arguments[:1] == ["drain"]:
        return 0 if drain(note, float(arguments[1])) else 1
    if arguments == ["create"]:
        print(create_next(_mounted(RAYJOB), _mounted(DUE), Api.of_pod()), flush=True)
        return 0
    if arguments == ["drive"]:
        command = [*_mounted(COMMAND), "--address", os.environ["RAY_ADDRESS"]]
        # What this process prints goes to Ray's log of the job; `kubectl logs` reads the container's.
        return drive(command, stop_ray_job, note, Path("/proc/1/fd/1"))
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
