"""A campaign on Kubernetes as manifests: functions from a job and parameters to dictionaries and text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from bendscape.cluster import manifest
from bendscape.cluster.place import Job, Parameters
from bendscape.cluster.pod import CAMPAIGN, COMMAND, FOLDER, RAYJOB, SCHEDULE
from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.options import bytes_of

JOB, ROLE = "bendscape/job", "bendscape/role"  # labels
MANAGED = {"app.kubernetes.io/managed-by": "bendscape"}
_OBJECT_STORE_BYTES = 100 * 2**20  # only receipts travel, and they are small
_FLUSH_SECONDS, _END_SECONDS = 15, 60  # beyond the drain: for the driver's last writes, and for Ray's own end
_CONFIG_BYTES = 2**20 - 2**15  # Kubernetes keeps no larger ConfigMap
_DNS = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"


class KubeRayParameters(Parameters):
    """What can be said of a campaign on Kubernetes."""

    image: str = Field(min_length=1, description="Image that has bendscape and Ray.")
    nodes: int = Field(1, ge=1, description="Worker pods.")
    cpus: int = Field(1, ge=1, description="Cores of a worker pod.")
    mem: str = Field("4GiB", description="Memory of a worker pod.")
    head_mem: str = Field("4GiB", description="Memory of the head's pod, in which the driver runs.")
    namespace: str = Field("default", pattern=f"^{_DNS}$")
    secrets: tuple[str, ...] = Field((), description="Secrets whose keys become environment variables.")
    env: tuple[str, ...] = Field((), description="Environment variables as NAME=VALUE, none of them secret.")
    claim: str = Field(
        "", pattern=rf"^({_DNS}:/.*)?$", description="A volume: NAME-OF-ITS-CLAIM:/mount/path."
    )
    service_account: str = Field("", pattern=f"^({_DNS})?$")
    pull_secret: str = Field("", pattern=f"^({_DNS})?$")
    priority_class: str = Field("", pattern=f"^({_DNS})?$")
    node_labels: tuple[str, ...] = Field((), description="Only on nodes with these labels, as NAME=VALUE.")
    retries: int = Field(2, ge=0, description="New clusters after the first one has failed.")
    grace: int = Field(300, ge=1, description="Seconds that tasks under way have when a pod must go.")
    keep: int = Field(600, ge=0, description="Seconds that the cluster, with its logs, outlives its job.")

    @field_validator("mem", "head_mem")
    @classmethod
    def _of_bytes(cls, text: str) -> str:
        bytes_of("memory", text)
        return text


def check_parameters(job: Job, parameters: KubeRayParameters) -> None:
    """Refuse a secret given by its value, whose error does not repeat it, and a store that pods cannot reach.

    Raises
    ------
    ParameterError
        One of these, or something that is not NAME=VALUE.
    """
    for option, pairs in (("env", parameters.env), ("node_labels", parameters.node_labels)):
        for pair in pairs:
            name, _, value = pair.partition("=")
            if not re.fullmatch(r"[-A-Za-z0-9_./]+=.*", pair, re.DOTALL):
                raise ParameterError(option, f"{name[:20]}...", "NAME=VALUE")
            if manifest.SECRETIVE.search(name) or re.search("://[^/]*@", value):
                remedy = "keep it in a Secret of the namespace, and name that with --secret"
                raise ParameterError(option, f"{name}=...", "without what must stay secret", remedy)
    # The path of a file means the same in every pod only on the volume that all of them mount.
    mount = parameters.claim.partition(":")[2].rstrip("/")
    on_volume = mount and urlsplit(job.store).path.startswith(f"{mount}/")
    if job.store.startswith("file://") and not on_volume:
        remedy = "--store names another store, --claim NAME:/mount/path a volume"
        raise ParameterError("store", job.store, "s3://bucket/prefix, or a path on a mounted volume", remedy)


# ---- rendering: from a job and parameters to manifests


def job_name(campaign: str, suffix: str, most: int = manifest.LONGEST_NAME) -> str:
    """A name that Kubernetes accepts for a campaign of any name."""
    label = re.sub("[^a-z0-9]+", "-", campaign.lower()).strip("-")
    label = label if label[:1].isalpha() else f"campaign-{label}"
    return f"{label[: most - 1 - len(suffix)].strip('-')}-{suffix}"


def contents(job: Job) -> tuple[dict[str, str], Job]:
    """The files that a driver needs in its pod, by name, and the job as it is to be run there.

    Raises
    ------
    ParameterError
        Files that Kubernetes would not keep, or a report, which nobody could fetch.
    """
    found = {CAMPAIGN: Path(job.file).read_text(encoding="utf-8")}
    options: list[str] = []
    given = iter(job.options)
    for option in given:
        name, equals, value = option.partition("=")
        if name == "--report":
            remedy = "write it with `bendscape report STORE` once the job is done"
            raise ParameterError("--report", value or next(given, ""), "absent on Kubernetes", remedy)
        if name != "--kernel-module":
            options.append(option)
            continue
        module = value if equals else next(given, "")
        path = Path(job.folder) / module
        if path.is_file():
            key = path.name if re.fullmatch(r"[-\w.]+", path.name, re.ASCII) else f"kernel_{len(found)}.py"
            key = f"kernel_{len(found)}_{key}" if key in found else key
            found[key] = path.read_text(encoding="utf-8")
            module = str(FOLDER / key)
        options += [name, module]
    if (size := sum(len(text.encode()) for text in found.values())) > _CONFIG_BYTES:
        accepted = f"files of at most {_CONFIG_BYTES} bytes together, the most that a ConfigMap holds"
        raise ParameterError("campaign", f"{size} bytes", accepted, "put the module into the image")
    return found, replace(job, file=str(FOLDER / CAMPAIGN), python="python", options=tuple(options))


def render_job(
    job: Job, parameters: KubeRayParameters, name: str, data: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The manifests of one job: its files, a limit on how many workers may be moved at a time, its RayJob.

    `job` and `data` are what `contents` gives; `name` is what Kubernetes knows the job by.
    """
    ray_job = _ray_job(job, parameters, {JOB: name})
    ray_job["metadata"] = {"name": name, **ray_job["metadata"]}
    return [*_around(job, parameters, name, {JOB: name}, data), ray_job]


def render_schedule(
    job: Job,
    parameters: KubeRayParameters,
    name: str,
    data: Mapping[str, str],
    schedule: str,
    time_zone: str = "",
    start_within: int = 3600,
) -> list[dict[str, Any]]:
    """The manifests of a schedule: a CronJob that creates a RayJob at its times, unless one is at work.

    Parameters
    ----------
    job
        As `contents` gives it, with the budget of one window.
    name
        Of the schedule: at most 41 characters.
    data
        As `contents` gives it.
    schedule
        Five fields, as in a crontab.
    time_zone
        Of the schedule, such as Europe/Rome; without one, that of the cluster.
    start_within
        Seconds after the time of a start in which it is made good, if the cluster was not there.
    """
    labels = {JOB: name, SCHEDULE: name}
    ray_job = _ray_job(job, parameters, labels)
    ray_job["metadata"] = {"generateName": f"{name}-", **ray_job["metadata"]}
    manifest.check([ray_job])
    template = json.dumps(ray_job, ensure_ascii=False, indent=1)
    role, metadata = f"{name}-starter", _metadata(f"{name}-starter", parameters, labels)
    group = "rbac.authorization.k8s.io"
    pod = {
        "serviceAccountName": role,
        "restartPolicy": "Never",
        "securityContext": _USER,
        **({"imagePullSecrets": [{"name": parameters.pull_secret}]} if parameters.pull_secret else {}),
        "volumes": [{"name": "campaign", "configMap": {"name": name}}],
        "containers": [
            {
                "name": "starter",
                "image": parameters.image,
                "command": ["python", "-m", "bendscape.cluster.pod", "create"],
                "securityContext": _CONTAINER,
                "volumeMounts": [{"name": "campaign", "mountPath": str(FOLDER), "readOnly": True}],
                "resources": _resources(1, "512MiB"),
            }
        ],
    }
    spec = {
        "schedule": schedule,
        **({"timeZone": time_zone} if time_zone else {}),
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": start_within,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {
            "spec": {
                "backoffLimit": 3,
                "activeDeadlineSeconds": 900,
                "template": {"metadata": {"labels": {**MANAGED, SCHEDULE: name}}, "spec": pod},
            }
        },
    }
    rules = [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "list", "delete"]},
    ]
    subject = {"kind": "ServiceAccount", "name": role, "namespace": parameters.namespace}
    return [
        *_around(job, parameters, name, labels, {**data, RAYJOB: template}),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"kind": "Role", "name": role, "apiGroup": group},
            "subjects": [subject],
        },
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": _metadata(name, parameters, labels, job),
            "spec": spec,
        },
    ]


def as_text(documents: Sequence[Mapping[str, Any]]) -> str:
    """Manifests as YAML, once `manifest.check` has found nothing wrong with them."""
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def string(dumper: Any, text: str) -> Any:
        # Of what other readers of YAML might take for a number or a truth value, nothing goes unquoted.
        plain = re.fullmatch(r"[A-Za-z/][-\w./ ]+", text, re.ASCII)
        style = "|" if "\n" in text else None if plain else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)

    Dumper.add_representer(str, string)
    manifest.check(documents)
    return str(yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=110))


_USER = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def _metadata(
    name: str, parameters: KubeRayParameters, labels: Mapping[str, str], job: Job | None = None
) -> dict[str, Any]:
    about = {} if job is None else {"annotations": _about(job)}
    return {"name": name, "namespace": parameters.namespace, "labels": {**MANAGED, **labels}, **about}


def _about(job: Job) -> dict[str, str]:
    return {"bendscape/campaign": job.name, "bendscape/store": job.store}


def _resources(cpus: int, memory: str) -> dict[str, Any]:
    amounts = {"cpu": str(cpus), "memory": str(int(bytes_of("memory", memory)))}
    return {"requests": amounts, "limits": amounts}


def _around(
    job: Job,
    parameters: KubeRayParameters,
    name: str,
    labels: Mapping[str, str],
    data: Mapping[str, str],
) -> list[dict[str, Any]]:
    # What a RayJob needs beside itself.
    command = job.command("--grace", f"{parameters.grace}s")
    kept = {**data, COMMAND: json.dumps(command, ensure_ascii=False)}
    files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(name, parameters, labels, job)}
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(name, parameters, labels),
        "spec": {
            "minAvailable": parameters.nodes - 1,
            "selector": {"matchLabels": {JOB: labels[JOB], ROLE: "worker"}},
        },
    }
    return [{**files, "data": kept}, budget]


def _ray_job(job: Job, parameters: KubeRayParameters, labels: Mapping[str, str]) -> dict[str, Any]:
    check_parameters(job, parameters)
    ray = {"object-store-memory": str(_OBJECT_STORE_BYTES)}
    workers = {
        "groupName": "workers",
        "replicas": parameters.nodes,
        "minReplicas": parameters.nodes,
        "maxReplicas": parameters.nodes,
        "rayStartParams": ray,
        "template": _pod("worker", parameters, labels),
    }
    # The driver has the head to itself; its job server is what KubeRay talks to.
    head = {
        "rayStartParams": {**ray, "num-cpus": "0", "dashboard-host": "0.0.0.0"},
        "template": _pod("head", parameters, labels),
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "namespace": parameters.namespace,
            "labels": {**MANAGED, **labels},
            "annotations": _about(job),
        },
        "spec": {
            "submissionMode": "HTTPMode",
            "entrypoint": "python -m bendscape.cluster.pod drive",
            "backoffLimit": parameters.retries,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": parameters.keep,
            "rayClusterSpec": {
                "rayVersion": version("ray"),
                "authOptions": {"mode": "token"},
                "headGroupSpec": head,
                "workerGroupSpecs": [workers],
            },
        },
    }


def _pod(role: str, parameters: KubeRayParameters, labels: Mapping[str, str]) -> dict[str, Any]:
    drained = parameters.grace + _FLUSH_SECONDS
    mounts: list[dict[str, Any]] = [{"name": "campaign", "mountPath": str(FOLDER), "readOnly": True}]
    volumes: list[dict[str, Any]] = [{"name": "campaign", "configMap": {"name": labels[JOB]}}]
    if parameters.claim:
        claim, _, path = parameters.claim.partition(":")
        mounts.append({"name": "store", "mountPath": path})
        volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": claim}})
    # A worker that must go finishes its tasks. The driver finishes before its Ray hears of it.
    variables = (
        {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", "RAY_JOB_STOP_WAIT_TIME_S": str(drained)}
        if role == "head"
        else {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(drained)}
    )
    variables |= dict(pair.split("=", 1) for pair in parameters.env)
    container: dict[str, Any] = {
        "name": f"ray-{role}",
        "image": parameters.image,
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "envFrom": [{"secretRef": {"name": name}} for name in parameters.secrets],
        "securityContext": _CONTAINER,
        "volumeMounts": mounts,
        "resources": _resources(1, parameters.head_mem)
        if role == "head"
        else _resources(parameters.cpus, parameters.mem),
    }
    if role == "head":
        drain = ["python", "-m", "bendscape.cluster.pod", "drain", str(drained)]
        container["lifecycle"] = {"preStop": {"exec": {"command": drain}}}
        ports = {"gcs-server": 6379, "dashboard": 8265}
        container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
    optional: dict[str, Any] = {
        "serviceAccountName": parameters.service_account,
        "priorityClassName": parameters.priority_class,
        "nodeSelector": dict(pair.split("=", 1) for pair in parameters.node_labels),
        "imagePullSecrets": [{"name": parameters.pull_secret}] if parameters.pull_secret else [],
    }
    return {
        "metadata": {
            "labels": {**MANAGED, **labels, ROLE: role},
            "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": drained + _END_SECONDS,
            "securityContext": _USER,
            **{key: value for key, value in optional.items() if value},
            "volumes": volumes,
            "containers": [container],
        },
    }
