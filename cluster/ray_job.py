"""A campaign on Kubernetes as manifests: functions from a job and parameters to dictionaries and text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from bendscape.cluster import manifest
from bendscape.cluster.place import Job, Parameters
from bendscape.cluster.pod import CAMPAIGN, COMMAND, DUE, FOLDER, RAYJOB, SCHEDULE
from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.options import bytes_of

JOB, ROLE = "bendscape/job", "bendscape/role"  # labels
MANAGED = {"app.kubernetes.io/managed-by": "bendscape"}
METRICS_PORT = 8080  # of the head's pod, where the driver is: KubeRay's default
_SCRAPED = {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT)}
_OBJECT_STORE_BYTES = 100 * 2**20  # only receipts travel, and they are small
_FLUSH_SECONDS, _END_SECONDS = 15, 60  # beyond the drain: for the driver's last writes, and for Ray's own end
_CONFIG_BYTES = 2**20 - 2**15  # Kubernetes keeps no larger ConfigMap
LONGEST_SCHEDULE = 41  # characters of its name: a RayJob of it has a hyphen and five more
_RBAC = "rbac.authorization.k8s.io"
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
    if not all(re.fullmatch(_DNS, name) for name in parameters.secrets):
        raise ParameterError("secrets", "...", "names of Secrets (what was given is not shown)")
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
    return [*_around(job, parameters, {JOB: name}, data), ray_job]


@dataclass(frozen=True)
class Timetable:
    """When a schedule looks whether a run is due, and what it does then.

    Attributes
    ----------
    name
        Of the schedule.
    times
        When to look: five fields, as in a crontab.
    zone
        Time zone of `times`, such as Europe/Rome; without one, that of the cluster.
    start_within
        Seconds after one of the times in which a look is made good, if the cluster was not there.
    due
        A command that says with exit code 0 that a run is due, asked in a pod that has the job's secrets and
        files; without one, a run is due at each of the times.
    """

    name: str
    times: str
    zone: str = ""
    start_within: int = 3600
    due: tuple[str, ...] = ()


def render_schedule(
    job: Job, parameters: KubeRayParameters, data: Mapping[str, str], timetable: Timetable
) -> list[dict[str, Any]]:
    """The manifests of a schedule: a CronJob that creates a RayJob where one is due and none is at work.

    `job` and `data` are what `contents` gives, and `data` may hold further files.

    Raises
    ------
    ParameterError
        A name that is too long, as those of pods and RayJobs are made from it.
    """
    name = timetable.name
    if not re.fullmatch(manifest.DNS_LABEL, name) or len(name) > LONGEST_SCHEDULE:
        accepted = f"at most {LONGEST_SCHEDULE} lower-case letters, digits and hyphens, a letter first"
        raise ParameterError("name", name, accepted)
    labels = {JOB: name, SCHEDULE: name}
    ray_job = _ray_job(job, parameters, labels)
    ray_job["metadata"] = {"generateName": f"{name}-", **ray_job["metadata"]}
    manifest.check([ray_job])
    more = {RAYJOB: json.dumps(ray_job, ensure_ascii=False, indent=1), DUE: json.dumps(timetable.due)}
    # An account that was given has the cloud's roles, which the question whether a run is due needs.
    starter, account = f"{name}-starter", parameters.service_account or f"{name}-starter"
    metadata = _metadata(starter, parameters, labels)
    pod = {
        **_pod_spec(parameters, labels, "starter"),
        "serviceAccountName": account,
        "automountServiceAccountToken": True,
        "restartPolicy": "Never",
    }
    template = {"metadata": {"labels": {**MANAGED, SCHEDULE: name, ROLE: "starter"}}, "spec": pod}
    cron = {
        "schedule": timetable.times,
        **({"timeZone": timetable.zone} if timetable.zone else {}),
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": timetable.start_within,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"spec": {"backoffLimit": 3, "activeDeadlineSeconds": 900, "template": template}},
    }
    rules = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "list", "delete"]}]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": parameters.namespace}
    role = {"kind": "Role", "name": starter, "apiGroup": _RBAC}
    return [
        *_around(job, parameters, labels, {**data, **more}),
        *([] if parameters.service_account else [_document("v1", "ServiceAccount", metadata)]),
        _document(f"{_RBAC}/v1", "Role", metadata, rules=rules),
        _document(f"{_RBAC}/v1", "RoleBinding", metadata, roleRef=role, subjects=[subject]),
        _document("batch/v1", "CronJob", _metadata(name, parameters, labels, job), spec=cron),
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


def _document(version: str, kind: str, metadata: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def _around(
    job: Job,
    parameters: KubeRayParameters,
    labels: Mapping[str, str],
    data: Mapping[str, str],
) -> list[dict[str, Any]]:
    # What a RayJob needs beside itself: its files, and that its workers are moved one at a time.
    name = labels[JOB]
    driver = json.dumps(job.command("--grace", f"{parameters.grace}s"), ensure_ascii=False)
    workers = {"matchLabels": {JOB: name, ROLE: "worker"}}
    budget = {"minAvailable": parameters.nodes - 1, "selector": workers}
    metadata = _metadata(name, parameters, labels, job)
    return [
        _document("v1", "ConfigMap", metadata, data={**data, COMMAND: driver}),
        _document("policy/v1", "PodDisruptionBudget", metadata, spec=budget),
    ]


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
        "rayStartParams": {
            **ray,
            "num-cpus": "0",
            "dashboard-host": "0.0.0.0",
            "metrics-export-port": str(METRICS_PORT),
        },
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
    # A pod of Ray. A worker that must go finishes its tasks; the driver does so before its Ray hears of it.
    drained = parameters.grace + _FLUSH_SECONDS
    spec = _pod_spec(parameters, labels, role)
    container = spec["containers"][0]
    if role == "head":
        waits = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": 0, "RAY_JOB_STOP_WAIT_TIME_S": drained}
        drain = ["python", "-m", "bendscape.cluster.pod", "drain", str(drained)]
        container["lifecycle"] = {"preStop": {"exec": {"command": drain}}}
        ports = {"gcs-server": 6379, "dashboard": 8265, "metrics": METRICS_PORT}
        container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
    else:
        waits = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": drained}
    container["env"] += [{"name": name, "value": str(seconds)} for name, seconds in waits.items()]
    optional = {
        "serviceAccountName": parameters.service_account,
        "priorityClassName": parameters.priority_class,
        "nodeSelector": dict(pair.split("=", 1) for pair in parameters.node_labels),
    }
    return {
        "metadata": {
            "labels": {**MANAGED, **labels, ROLE: role},
            "annotations": {
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                **(_SCRAPED if role == "head" else {}),
            },
        },
        "spec": {
            **spec,
            "terminationGracePeriodSeconds": drained + _END_SECONDS,
            **{key: value for key, value in optional.items() if value},
        },
    }


def _pod_spec(parameters: KubeRayParameters, labels: Mapping[str, str], role: str) -> dict[str, Any]:
    # What all pods share: the image, the files, the secrets, and no more rights than they need.
    mounts: list[dict[str, Any]] = [{"name": "campaign", "mountPath": str(FOLDER), "readOnly": True}]
    volumes: list[dict[str, Any]] = [{"name": "campaign", "configMap": {"name": labels[JOB]}}]
    if parameters.claim:
        claim, _, path = parameters.claim.partition(":")
        mounts.append({"name": "store", "mountPath": path})
        volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": claim}})
    amounts = {"head": (1, parameters.head_mem), "worker": (parameters.cpus, parameters.mem)}
    container = {
        "name": role if role == "starter" else f"ray-{role}",
        "image": parameters.image,
        "env": [dict(zip(("name", "value"), pair.split("=", 1), strict=True)) for pair in parameters.env],
        "envFrom": [{"secretRef": {"name": name}} for name in parameters.secrets],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
        "resources": _resources(*amounts.get(role, (1, "1GiB"))),
    }
    if role == "starter":
        container["command"] = ["python", "-m", "bendscape.cluster.pod", "create"]
    pull = [{"name": parameters.pull_secret}] if parameters.pull_secret else []
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"imagePullSecrets": pull} if pull else {}),
        "volumes": volumes,
        "containers": [container],
    }
