"""Whether manifests are right, found out without a cluster.

Kubernetes drops a key that it does not know, and KubeRay's operator checks most rules across fields only when
the job is there. So everything that is handed over is checked before: RayJobs against the schema of KubeRay's
own definition, with unknown keys refused, and against the operator's rules, of which the functions below name
the source; the other kinds against the part of their schema that is used here.
"""

from __future__ import annotations

import copy
import difflib
import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from bendscape.core.errors import ParameterError

LONGEST_NAME = 47  # of a RayJob: KubeRay appends to it in names of at most 63 characters
SUFFIX = 5  # characters that Kubernetes appends to a generateName
DNS_LABEL = "[a-z]([-a-z0-9]*[a-z0-9])?"
SECRETIVE = re.compile(
    "secret|passw|passphrase|token|credential|access_?key|key$|private|signature", re.IGNORECASE
)
"""Names of variables whose value must come from a Secret."""

_RAY_TOKENS = (2, 52)  # the first Ray that asks for a token
_GATED = ("gcsFaultToleranceOptions", "networkPolicy", "tlsOptions", "historyServerOptions")
_DRAINS = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": 30, "RAY_JOB_STOP_WAIT_TIME_S": 3}  # and Ray's defaults
_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")


def check(documents: Iterable[Mapping[str, Any]]) -> None:
    """Refuse manifests that Kubernetes or KubeRay v1.7 would refuse, or change without a word.

    Raises
    ------
    ParameterError
        The first fault: where it is, what is there, and what is accepted.
    """
    for document in documents:
        kind = str(document.get("kind"))
        if kind not in KINDS:
            raise ParameterError("kind", kind, f"one of {', '.join(KINDS)}")
        _check_schema(document, kind)
        for rules in KINDS[kind].rules:
            for fault, accepted in rules(document):
                raise ParameterError(f"{kind}: {fault}", _shown(_at(document, fault)), accepted)


def _check_schema(document: Mapping[str, Any], kind: str) -> None:
    import jsonschema

    errors = jsonschema.Draft202012Validator(KINDS[kind].schema()).iter_errors(document)
    error = jsonschema.exceptions.best_match(errors)
    if error is None:
        return
    place = ".".join(map(str, error.absolute_path)) or "manifest"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = sorted(error.schema["properties"])
        wrong = sorted(set(error.instance) - set(known))[0]
        close = difflib.get_close_matches(wrong, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else ""
        raise ParameterError(f"{kind}: {place}", wrong, f"given keys among {', '.join(known)}", hint)
    accepted = f"of {error.validator} {error.validator_value}"
    raise ParameterError(f"{kind}: {place}", _shown(error.instance), accepted[:300])


def _shown(value: Any) -> Any:
    # Of what has parts only the kind: it may be long, and hold what nobody should read.
    return type(value).__name__ if isinstance(value, Mapping | list) else value


@cache
def ray_job_schema() -> dict[str, Any]:
    """The schema of a RayJob with unknown keys refused, which as shipped it lets pass."""
    packed = (files("bendscape.cluster") / "rayjob.json.gz").read_bytes()
    schema: dict[str, Any] = _strict(json.loads(gzip.decompress(packed)))
    schema["properties"]["metadata"] = _METADATA
    schema["properties"]["apiVersion"] = {"const": "ray.io/v1"}
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return schema


def _strict(node: Any, names: bool = False) -> Any:
    # `names`: the keys of this object are names of properties, not words of the schema.
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _strict(value, key == "properties" and not names) for key, value in node.items()}
    if not names and "properties" in node:
        made.setdefault("additionalProperties", False)
        # Kubernetes fills in what has a default before it looks for what is required.
        given = {key for key, value in node["properties"].items() if "default" in value}
        made["required"] = [key for key in node.get("required", []) if key not in given]
    return made


# ---- rules across fields: pairs of the field at fault, and what is accepted there

Faults = Iterator[tuple[str, str]]


def metadata_rules(job: Mapping[str, Any]) -> Faults:
    """`ValidateRayJobMetadata` in ray-operator/controllers/ray/utils/validation.go."""
    metadata = job["metadata"]
    name, prefix = metadata.get("name"), metadata.get("generateName")
    if (name is None) == (prefix is None):
        yield "metadata.name", "given, or metadata.generateName instead of it"
    elif len(name or prefix + SUFFIX * "x") > LONGEST_NAME:
        yield "metadata.name", f"at most {LONGEST_NAME} characters, a generated suffix included"
    elif not re.fullmatch(DNS_LABEL, name or prefix + "x"):
        yield "metadata.name", "a DNS label: lower-case letters, digits and hyphens, a letter first"


def job_rules(job: Mapping[str, Any]) -> Faults:
    """`ValidateRayJobSpec` in the same file."""
    spec = job["spec"]
    mode, retries = spec.get("submissionMode", "K8sJobMode"), spec.get("backoffLimit", 0)
    selector, cluster = spec.get("clusterSelector"), spec.get("rayClusterSpec")
    modes = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    if mode not in modes:
        yield "spec.submissionMode", f"one of {', '.join(modes)}"
    for key, least in (
        *(("ttlSecondsAfterFinished", 0), ("backoffLimit", 0)),
        *(("activeDeadlineSeconds", 1), ("preRunningDeadlineSeconds", 1)),
    ):
        if spec.get(key, least) < least:
            yield f"spec.{key}", f"an integer >= {least}"
    if spec.get("suspend") and (selector or not spec.get("shutdownAfterJobFinishes")):
        yield "spec.suspend", "false, without shutdownAfterJobFinishes or with a clusterSelector"
    if not selector and cluster is None:
        yield "spec.rayClusterSpec", "given, or a clusterSelector instead of it"
    if selector and not selector.get("ray.io/cluster"):
        yield "spec.clusterSelector", "the name of a cluster under ray.io/cluster"
    if selector and mode == "SidecarMode":
        yield "spec.submissionMode", "other than SidecarMode with a clusterSelector"
    if retries > 0 and (selector or mode == "InteractiveMode"):
        yield "spec.backoffLimit", "0 with a clusterSelector or in InteractiveMode"
    if mode == "SidecarMode" and cluster is not None:
        for key in ("submitterPodTemplate", "submitterConfig"):
            if spec.get(key) is not None:
                yield f"spec.{key}", "absent in SidecarMode"
        pod = cluster["headGroupSpec"]["template"]["spec"]
        if pod.get("restartPolicy", "Never") != "Never":
            yield "spec.rayClusterSpec.headGroupSpec", "of restartPolicy Never, or none, in SidecarMode"
    if spec.get("runtimeEnvYAML") and not _is_yaml(spec["runtimeEnvYAML"]):
        yield "spec.runtimeEnvYAML", "YAML"
    managers = ("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue")
    for holder in (spec, cluster or {}):
        if holder.get("managedBy", managers[0]) not in managers:
            yield "spec.managedBy", f"one of {', '.join(managers)}"


def deletion_rules(job: Mapping[str, Any]) -> Faults:
    """`validateDeletionConfiguration` and the CEL rules of the definition."""
    spec = job["spec"]
    shutdown, strategy = spec.get("shutdownAfterJobFinishes", False), spec.get("deletionStrategy")
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not shutdown:
        yield "spec.ttlSecondsAfterFinished", "0 without shutdownAfterJobFinishes"
    if strategy is None:
        return
    at, rules = "spec.deletionStrategy", strategy.get("deletionRules", [])
    old = [strategy[key] for key in ("onSuccess", "onFailure") if key in strategy]
    if len(old) == 1 or not (old or rules) or (old and rules):
        yield at, "either onSuccess and onFailure, or deletionRules"
    if rules and shutdown:
        yield at, "without deletionRules if shutdownAfterJobFinishes"
    workers_stay = bool((spec.get("rayClusterSpec") or {}).get("enableInTreeAutoscaling"))
    for policy in [*(one.get("policy") for one in old), *(rule["policy"] for rule in rules)]:
        if policy is None:
            yield at, "given a policy for each outcome"
        if policy in ("DeleteCluster", "DeleteWorkers") and spec.get("clusterSelector"):
            yield at, "of policies that leave the cluster, with a clusterSelector"
        if policy == "DeleteWorkers" and workers_stay:
            yield at, "other than DeleteWorkers with autoscaling"
        if policy == "DeleteNone" and old and shutdown:
            yield at, "other than DeleteNone with shutdownAfterJobFinishes"
    waits: dict[tuple[str, str], int] = {}
    for rule in rules:
        when = rule["condition"]
        named = [f"{key}={when[key]}" for key in ("jobStatus", "jobDeploymentStatus") if key in when]
        if len(named) != 1:
            yield at, "of conditions that name either jobStatus or jobDeploymentStatus"
            continue
        if (named[0], rule["policy"]) in waits:
            yield at, "one rule for each condition and policy"
        waits[named[0], rule["policy"]] = when.get("ttlSeconds", 0)
    for condition in {condition for condition, _ in waits}:
        order = [
            waits[condition, policy]
            for policy in ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
            if (condition, policy) in waits
        ]
        if order != sorted(order):
            yield at, "of ttlSeconds that do not fall from DeleteWorkers to DeleteCluster to DeleteSelf"


def cluster_rules(job: Mapping[str, Any]) -> Faults:
    """`ValidateRayClusterSpec`, without what needs a feature gate of the operator, which is refused."""
    cluster = job["spec"].get("rayClusterSpec")
    if cluster is None:
        return
    at = "spec.rayClusterSpec"
    for key in _GATED:
        if key in cluster:
            yield f"{at}.{key}", "absent: it is not checked here"
    scaling = cluster.get("enableInTreeAutoscaling", False)
    newest = scaling and (cluster.get("autoscalerOptions") or {}).get("version") == "v2"
    head, workers = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
    for place, group in (("headGroupSpec", head), *(("workerGroupSpecs", group) for group in workers)):
        where, start = f"{at}.{place}", group.get("rayStartParams") or {}
        pod = group["template"]["spec"]
        if not pod.get("containers"):
            yield where, "of at least one container"
        if group.get("resources") and any(start.get(key) for key in _RESOURCES):
            yield where, "of resources either in rayStartParams or in resources"
        if "labels" in start:
            yield where, "of labels outside rayStartParams"
        if newest and pod.get("restartPolicy", "Never") != "Never":
            yield where, "of restartPolicy Never, or none, with autoscaler v2"
        for container in pod.get("containers", []):
            for variable in container.get("env", []):
                if variable["name"] in ("RAY_REDIS_ADDRESS", "REDIS_USERNAME"):
                    yield where, f"without {variable['name']}, which turns on what is not checked here"
                if variable["name"] == "RAY_enable_autoscaler_v2" and not scaling:
                    yield where, "without RAY_enable_autoscaler_v2 unless enableInTreeAutoscaling"
    for group in workers:
        least = group.get("minReplicas", 0)
        if not 0 <= least <= group.get("maxReplicas", least):
            yield f"{at}.workerGroupSpecs", "of 0 <= minReplicas <= maxReplicas"
        for key in ("idleTimeoutSeconds", "priority"):
            if group.get(key) and not newest:
                yield f"{at}.workerGroupSpecs", f"without {key} unless autoscaler v2 is on"
        if group.get("suspend"):
            yield f"{at}.workerGroupSpecs", "not suspended"
    auth = cluster.get("authOptions") or {}
    if auth.get("enableK8sTokenAuth"):
        yield f"{at}.authOptions", "without enableK8sTokenAuth in a RayJob"
    if auth.get("mode") == "token":
        numbers = re.match(r"(\d+)\.(\d+)", cluster.get("rayVersion", ""))
        if numbers is None or tuple(map(int, numbers.groups())) < _RAY_TOKENS:
            yield f"{at}.rayVersion", "2.52.0 or later, where a token is asked for"


def campaign_rules(job: Mapping[str, Any]) -> Faults:
    """What a campaign needs beyond that: a token, time to drain, and secrets by reference only."""
    cluster = job["spec"].get("rayClusterSpec") or {}
    at = "spec.rayClusterSpec"
    if (cluster.get("authOptions") or {}).get("mode") != "token":
        yield f"{at}.authOptions", "of mode token: whoever reaches Ray's ports can run code"
    for group in (cluster.get("headGroupSpec"), *cluster.get("workerGroupSpecs", [])):
        if group is None:
            continue
        pod = group["template"]["spec"]
        for container in pod.get("containers", []):
            variables = {one["name"]: one.get("value") for one in container.get("env", [])}
            drain = max(float(variables.get(name) or default) for name, default in _DRAINS.items())
            if pod.get("terminationGracePeriodSeconds", 30) <= drain:
                yield at, f"of terminationGracePeriodSeconds above the drain time, {drain:g} s"
        for name in _given_secrets(pod):
            yield at, f"without a value for {name}: name a Secret instead"


def cron_rules(cron: Mapping[str, Any]) -> Faults:
    """A CronJob that never overlaps itself, whose schedule can be read, and whose name leaves room."""
    spec = cron["spec"]
    if len(cron["metadata"].get("name", "")) > 52:
        yield "metadata.name", "at most 52 characters"
    if spec.get("concurrencyPolicy") != "Forbid":
        yield "spec.concurrencyPolicy", "Forbid"
    if "TZ" in spec["schedule"] or len(spec["schedule"].split()) != 5:
        yield "spec.schedule", "five fields; a time zone goes into timeZone"
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    if pod.get("restartPolicy") not in ("Never", "OnFailure"):
        yield "spec.jobTemplate", "of restartPolicy Never or OnFailure"
    for name in _given_secrets(pod):
        yield "spec.jobTemplate", f"without a value for {name}: name a Secret instead"


def _given_secrets(pod: Mapping[str, Any]) -> Iterator[str]:
    for container in pod.get("containers", []):
        for variable in container.get("env", []):
            if variable.get("value") and SECRETIVE.search(variable["name"]):
                yield variable["name"]


def _is_yaml(text: str) -> bool:
    import yaml

    try:
        return isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        return False


def _at(document: Mapping[str, Any], path: str) -> Any:
    found: Any = document
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


# ---- the parts of other kinds' schemas that are used here


def _object(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


_RBAC = "rbac.authorization.k8s.io"
_TEXT, _FLAG, _NAME = {"type": "string"}, {"type": "boolean"}, {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
_LABEL = {"type": "string", "maxLength": 63, "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_LIST = {"type": "array", "items": _TEXT}
_METADATA = _object(
    "", name=_NAME, generateName=_NAME, namespace=_NAME, annotations=_TEXTS,
    labels={"type": "object", "additionalProperties": _LABEL},
)  # fmt: skip


def _kind(version: str, required: str, **properties: Any) -> dict[str, Any]:
    common = {"apiVersion": {"const": version}, "kind": _TEXT, "metadata": _METADATA}
    return _object(f"apiVersion kind metadata {required}", **common, **properties)


@cache
def _pod_template() -> dict[str, Any]:
    spec = ray_job_schema()["properties"]["spec"]["properties"]
    template: dict[str, Any] = copy.deepcopy(spec["submitterPodTemplate"])
    return template


@cache
def _cron_job() -> dict[str, Any]:
    job = _object(
        "template", template=_pod_template(), backoffLimit=_COUNT, activeDeadlineSeconds=_COUNT,
        ttlSecondsAfterFinished=_COUNT,
    )  # fmt: skip
    spec = _object(
        "schedule jobTemplate", schedule=_TEXT, timeZone=_NAME, concurrencyPolicy=_TEXT, suspend=_FLAG,
        startingDeadlineSeconds=_COUNT, successfulJobsHistoryLimit=_COUNT, failedJobsHistoryLimit=_COUNT,
        jobTemplate=_object("spec", metadata=_METADATA, spec=job),
    )  # fmt: skip
    return _kind("batch/v1", "spec", spec=spec)


def _disruption_budget() -> dict[str, Any]:
    selector = _object("matchLabels", matchLabels=_METADATA["properties"]["labels"])
    spec = _object("minAvailable selector", minAvailable=_COUNT, selector=selector)
    return _kind("policy/v1", "spec", spec=spec)


def _role() -> dict[str, Any]:
    rule = _object("apiGroups resources verbs", apiGroups=_LIST, resources=_LIST, verbs=_LIST)
    return _kind(f"{_RBAC}/v1", "rules", rules={"type": "array", "items": rule})


def _role_binding() -> dict[str, Any]:
    role = _object("kind name apiGroup", kind=_TEXT, name=_NAME, apiGroup={"const": _RBAC})
    subject = _object("kind name", kind=_TEXT, name=_NAME, namespace=_NAME)
    return _kind(
        f"{_RBAC}/v1", "roleRef subjects", roleRef=role, subjects={"type": "array", "items": subject}
    )


class Kind(NamedTuple):
    """What a kind of manifest is checked against."""

    schema: Callable[[], dict[str, Any]]
    rules: tuple[Callable[[Mapping[str, Any]], Faults], ...] = ()


KINDS = {
    "RayJob": Kind(
        ray_job_schema, (metadata_rules, job_rules, deletion_rules, cluster_rules, campaign_rules)
    ),
    "CronJob": Kind(_cron_job, (cron_rules,)),
    "ConfigMap": Kind(lambda: _kind("v1", "data", data=_TEXTS, immutable=_FLAG)),
    "ServiceAccount": Kind(lambda: _kind("v1", "", automountServiceAccountToken=_FLAG)),
    "PodDisruptionBudget": Kind(_disruption_budget),
    "Role": Kind(_role),
    "RoleBinding": Kind(_role_binding),
}
