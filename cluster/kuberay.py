"""Kubernetes as a place: a campaign as a RayJob of KubeRay, and the CronJob of a schedule.

Everything here asks `kubectl`, with the rights of its user; what it hands over is rendered by `ray_job`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bendscape.cluster.place import Job, Place, State, write_private
from bendscape.cluster.pod import FINISHED, SCHEDULE
from bendscape.cluster.ray_job import (
    JOB,
    MANAGED,
    ROLE,
    KubeRayParameters,
    Timetable,
    as_text,
    contents,
    job_name,
    render_job,
    render_schedule,
)
from bendscape.core.errors import ParameterError

_JOB_KINDS = "rayjobs.ray.io,configmaps,poddisruptionbudgets.policy"
_SCHEDULE_KINDS = f"cronjobs.batch,{_JOB_KINDS},rolebindings,roles,serviceaccounts"
_OURS = ",".join("=".join(label) for label in MANAGED.items())
_SECONDS = 120.0  # for an answer of the API server


class Id(NamedTuple):
    """What a job or schedule is known by: the context of kubectl, the namespace and the name."""

    context: str
    namespace: str
    name: str

    @classmethod
    def of(cls, text: str) -> Id:
        """From `context/namespace/name`; a context may hold slashes itself."""
        parts = text.rsplit("/", 2)
        if len(parts) != 3:
            raise ParameterError("job", text, "context/namespace/name")
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(self)


def state_of(ray_job: Mapping[str, Any]) -> State:
    """The state of a RayJob, from the status that KubeRay keeps of it.

    STOPPED stands for work left: see `pod.drive`. Of a failure the message holds the driver's exit code.
    """
    status = ray_job.get("status") or {}
    deployment, job = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    message = str(status.get("message", ""))
    about = [deployment or "New", job, status.get("reason", "")]
    if tries := status.get("failed"):
        about.append(f"{tries} clusters failed")
    detail = ", ".join(filter(None, about))
    if deployment == "Complete":
        return State.of_exit({"SUCCEEDED": 0, "STOPPED": 75}.get(job, 74), detail)
    if deployment in FINISHED:
        code = re.search(r"failed with exit code (\d+)", message)
        if code is not None:
            return State.of_exit(int(code[1]), detail)
        first = message.strip().partition("\n")[0][:200]
        return State("failed", f"{detail}: {first}" if first else detail)
    return State("running" if job == "RUNNING" else "waiting", detail)


class KubeRay(Place):
    """Driver jobs as RayJobs of KubeRay v1.7."""

    name = "kuberay"

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._given = parameters

    @property
    def parameters(self) -> KubeRayParameters:
        """The parameters, checked; reporting and cancelling need none."""
        return KubeRayParameters.of(self._given)

    def ray_options(self, workers: int | None = None, memory: float | None = None) -> dict[str, Any]:
        """The Ray that KubeRay started around the driver's pod."""
        if not os.environ.get("RAY_ADDRESS"):
            raise ParameterError("RAY_ADDRESS", "missing", "set, as it is inside the head's pod")
        return {"address": os.environ["RAY_ADDRESS"]}

    def render(self, job: Job, folder: Path) -> str:
        """The manifests, as YAML."""
        data, moved = contents(job)
        return as_text(render_job(moved, self.parameters, _name(job, folder), data))

    def start(self, job: Job, folder: Path) -> str:
        """Create the objects; all of them, or none."""
        text = self.render(job, folder)
        write_private(folder / "manifests.yaml", text)
        id = Id(_context(), self.parameters.namespace, _name(job, folder))
        try:
            _kubectl("create", "--filename", "-", at=id, text=text)
        except BaseException:
            with contextlib.suppress(OSError):
                self.cancel(str(id))
            raise
        return str(id)

    def states(self, ids: Sequence[str]) -> dict[str, State]:
        """From the status of RayJobs: one question for each namespace."""
        wanted = {id: Id.of(id) for id in ids}
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for where in {(id.context, id.namespace): id for id in wanted.values()}.values():
            jobs = _get("rayjobs.ray.io", where, _OURS)
            found[where.context, where.namespace] = {job["metadata"]["name"]: job for job in jobs}
        gone = State("cancelled", "there is no such RayJob any more: it was deleted")
        there = {id: found[of.context, of.namespace].get(of.name) for id, of in wanted.items()}
        return {id: gone if job is None else state_of(job) for id, job in there.items()}

    def cancel(self, id: str) -> None:
        """Delete the RayJob and what belongs to it; the driver has its time to drain."""
        at = Id.of(id)
        _kubectl("delete", _JOB_KINDS, "--selector", f"{JOB}={at.name}", *_GONE, at=at)

    def log(self, id: str) -> str:
        """What the head's pod has printed; once the cluster is gone, the end of it that KubeRay keeps."""
        at = Id.of(id)
        of_head = ("--selector", f"{JOB}={at.name},{ROLE}=head", "--container", "ray-head", "--tail=-1")
        with contextlib.suppress(OSError):  # a pod that is still to start
            if printed := _kubectl("logs", *of_head, at=at):
                return printed
        jobs = [job for job in _get("rayjobs.ray.io", at, _OURS) if job["metadata"]["name"] == at.name]
        return "".join(str((job.get("status") or {}).get("message", "")) for job in jobs)

    # ---- schedules

    def render_schedule(
        self,
        job: Job,
        name: str,
        times: str,
        zone: str = "",
        start_within: int = 3600,
        *,
        due: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
    ) -> str:
        """The manifests of a schedule, as YAML; the arguments are those of `ray_job.Timetable`.

        `files` are further files, by name, that the commands find in `pod.FOLDER`.
        """
        data, moved = contents(job)
        timetable = Timetable(name, times, zone, start_within, tuple(due))
        return as_text(render_schedule(moved, self.parameters, {**data, **(files or {})}, timetable))

    def install(self, name: str, text: str, store: str) -> str:
        """Create a rendered schedule, or bring it up to date; returns its id.

        Raises
        ------
        ParameterError
            The namespace has a schedule of this name for another store: somebody else's.
        """
        id = Id(_context(), self.parameters.namespace, name)
        for found in _get("cronjobs.batch", id, f"{SCHEDULE}={name}"):
            of = (found["metadata"].get("annotations") or {}).get("bendscape/store", "")
            if of != store:
                accepted = f"a name of its own in namespace {id.namespace}: the schedule there is of {of!r}"
                raise ParameterError("--name", name, accepted)
        _kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", at=id, text=text)
        return str(id)

    def remove(self, id: str) -> None:
        """Delete a schedule with all that belongs to it, a job at work included."""
        at = Id.of(id)
        _kubectl("delete", _SCHEDULE_KINDS, "--selector", f"{SCHEDULE}={at.name}", *_GONE, at=at)

    def scheduled(self, id: str) -> list[tuple[str, str, State]]:
        """The jobs of a schedule that are still known: name, time of creation, state; the oldest first."""
        at = Id.of(id)
        jobs = _get("rayjobs.ray.io", at, f"{SCHEDULE}={at.name}")
        rows = [
            (str(one["metadata"]["name"]), str(one["metadata"]["creationTimestamp"]), state_of(one))
            for one in jobs
        ]
        return sorted(rows, key=lambda row: row[1])


def _name(job: Job, folder: Path) -> str:
    return job_name(job.name, folder.name.rpartition("-")[2].lower())


_GONE = ("--ignore-not-found", "--wait=false")


def _get(kinds: str, at: Id, selector: str) -> list[dict[str, Any]]:
    answer = _kubectl("get", kinds, "--selector", selector, "--output", "json", at=at)
    items: list[dict[str, Any]] = json.loads(answer)["items"]
    return items


def _context() -> str:
    # Asked for once and kept in the id: `kubectl config use-context` must not make a job look deleted.
    return _kubectl("config", "current-context").strip()


def _kubectl(*arguments: str, at: Id | None = None, text: str | None = None) -> str:
    if shutil.which("kubectl") is None:
        remedy = "--dry-run prints the manifests, for a machine that has it"
        raise ParameterError("kubectl", "missing", "on the path", remedy)
    where = () if at is None else ("--context", at.context, "--namespace", at.namespace)
    try:
        done = subprocess.run(
            ["kubectl", *where, *arguments], input=text or "", capture_output=True, text=True,
            timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise OSError(f"kubectl {arguments[0]}: no answer within {_SECONDS:.0f} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise OSError(f"kubectl {arguments[0]}: {said[:400]}")
    return done.stdout


PLACE = KubeRay
