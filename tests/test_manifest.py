"""Manifests are refused here for what Kubernetes would drop without a word, or KubeRay refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from bendscape.cluster.kuberay import KubeRay
from bendscape.cluster.manifest import KINDS, check, ray_job_schema
from bendscape.cluster.place import Job
from bendscape.cluster.ray_job import KubeRayParameters, Timetable, render_job, render_schedule
from bendscape.core.errors import ParameterError

JOB = Job("/etc/bendscape/campaign.toml", "s3://bucket/s.zarr", "night", python="python")
FILES = {"campaign.toml": "[campaign]\n"}
PARAMETERS = KubeRayParameters(image="registry/bendscape:1", nodes=2)


def rendered(kind: str = "RayJob") -> dict[str, Any]:
    """A manifest as it is handed over, for a test to spoil."""
    schedule = render_schedule(JOB, PARAMETERS, FILES, Timetable("nightly", "0 20 * * *"))
    documents = [*render_job(JOB, PARAMETERS, "night-1", FILES), *schedule]
    return copy.deepcopy(next(one for one in documents if one["kind"] == kind))


def group(job: dict[str, Any], head: bool = False) -> dict[str, Any]:
    cluster = job["spec"]["rayClusterSpec"]
    found: dict[str, Any] = cluster["headGroupSpec"] if head else cluster["workerGroupSpecs"][0]
    return found


def container(job: dict[str, Any], head: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = group(job, head)["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_manifest_that_is_rendered_is_accepted(kind: str) -> None:
    check([rendered(kind)])


@pytest.mark.parametrize(
    ("kind", "path", "wrong", "meant"),
    [
        ("RayJob", ("spec",), "entrypont", "entrypoint"),
        ("RayJob", ("metadata",), "lables", "labels"),
        ("RayJob", ("spec", "rayClusterSpec", "headGroupSpec"), "rayStartParam", "rayStartParams"),
        (
            "RayJob",
            ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec"),
            "nodeSelectors",
            "nodeSelector",
        ),
        ("CronJob", ("spec",), "concurencyPolicy", "concurrencyPolicy"),
        ("CronJob", ("spec", "jobTemplate", "spec", "template", "spec"), "restartPolic", "restartPolicy"),
        ("ConfigMap", (), "dat", "data"),
        ("PodDisruptionBudget", ("spec",), "minAvailble", "minAvailable"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_one_that_was_meant(
    kind: str, path: tuple[str, ...], wrong: str, meant: str
) -> None:
    document = rendered(kind)
    at = document
    for key in path:
        at = at[key]
    at[wrong] = {}
    with pytest.raises(ParameterError, match=f"'{wrong}'.*did you mean '{meant}'"):
        check([document])


def test_the_schema_as_shipped_would_let_a_misspelt_key_pass() -> None:
    # What is added to it is no more than that: without the refusals the schema says nothing of the key.
    jsonschema = pytest.importorskip("jsonschema")

    def shipped(node: Any) -> Any:
        if isinstance(node, list):
            return [shipped(one) for one in node]
        if not isinstance(node, dict):
            return node
        return {k: shipped(v) for k, v in node.items() if (k, v) != ("additionalProperties", False)}

    job = rendered() | {"spec": rendered()["spec"] | {"entrypont": "x"}}
    assert not list(jsonschema.Draft202012Validator(shipped(ray_job_schema())).iter_errors(job))
    assert list(jsonschema.Draft202012Validator(ray_job_schema()).iter_errors(job))


def _strategy(*rules: tuple[str, str, int]) -> dict[str, Any]:
    made = [
        {"policy": policy, "condition": {"jobStatus": status, "ttlSeconds": wait}}
        for policy, status, wait in rules
    ]
    return {
        "shutdownAfterJobFinishes": False,
        "ttlSecondsAfterFinished": 0,
        "deletionStrategy": {"deletionRules": made},
    }


DELETED = {"policy": "DeleteSelf"}
SPOILT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a name of 48 characters": (lambda j: j["metadata"].update(name="a" * 48), "at most 47"),
    "a name that begins with a digit": (lambda j: j["metadata"].update(name="1night"), "DNS label"),
    "a generated name of 48 characters": (
        lambda j: (j["metadata"].pop("name"), j["metadata"].update(generateName="a" * 43)),
        "at most 47",
    ),
    "no name": (lambda j: j["metadata"].pop("name"), "metadata.generateName instead"),
    "an unknown mode": (lambda j: j["spec"].update(submissionMode="Sidecar"), "HTTPMode"),
    "a negative number of retries": (lambda j: j["spec"].update(backoffLimit=-1), ">= 0"),
    "no time": (lambda j: j["spec"].update(activeDeadlineSeconds=0), ">= 1"),
    "a lifetime without shutdown": (
        lambda j: j["spec"].update(shutdownAfterJobFinishes=False),
        "shutdownAfterJobFinishes",
    ),
    "suspended without shutdown": (
        lambda j: j["spec"].update(suspend=True, shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=0),
        "spec.suspend",
    ),
    "no cluster": (lambda j: j["spec"].pop("rayClusterSpec"), "clusterSelector instead"),
    "a selector without a name": (lambda j: j["spec"].update(clusterSelector={"a": "b"}), "ray.io/cluster"),
    "retries on a cluster that is there": (
        lambda j: j["spec"].update(clusterSelector={"ray.io/cluster": "b"}),
        "backoffLimit",
    ),
    "retries of an interactive job": (
        lambda j: j["spec"].update(submissionMode="InteractiveMode"),
        "backoffLimit",
    ),
    "a sidecar with a submitter": (
        lambda j: j["spec"].update(submissionMode="SidecarMode", submitterConfig={}),
        "submitterConfig",
    ),
    "a sidecar in a pod that restarts": (
        lambda j: (
            j["spec"].update(submissionMode="SidecarMode"),
            group(j, head=True)["template"]["spec"].update(restartPolicy="Always"),
        ),
        "restartPolicy",
    ),
    "an environment that is not YAML": (lambda j: j["spec"].update(runtimeEnvYAML="{"), "YAML"),
    "an unknown manager": (lambda j: j["spec"].update(managedBy="me"), "managedBy"),
    "an unknown manager of the cluster": (
        lambda j: j["spec"]["rayClusterSpec"].update(managedBy="me"),
        "managedBy",
    ),
    "deletion rules and shutdown": (
        lambda j: j["spec"].update(
            deletionStrategy={
                "deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED"}}]
            }
        ),
        "without deletionRules",
    ),
    "half of the old deletion policy": (
        lambda j: j["spec"].update(deletionStrategy={"onSuccess": DELETED}),
        "either onSuccess",
    ),
    "both kinds of deletion": (
        lambda j: (
            j["spec"].update(_strategy(("DeleteSelf", "FAILED", 0))),
            j["spec"]["deletionStrategy"].update(onSuccess=DELETED, onFailure=DELETED),
        ),
        "either onSuccess",
    ),
    "an empty policy": (
        lambda j: j["spec"].update(deletionStrategy={"onSuccess": {}, "onFailure": DELETED}),
        "a policy for each",
    ),
    "nothing deleted, and shutdown": (
        lambda j: j["spec"].update(
            deletionStrategy={"onSuccess": {"policy": "DeleteNone"}, "onFailure": DELETED}
        ),
        "DeleteNone",
    ),
    "a condition without a status": (
        lambda j: j["spec"].update(
            _strategy() | {"deletionStrategy": {"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}}
        ),
        "either jobStatus",
    ),
    "a rule twice": (
        lambda j: j["spec"].update(_strategy(("DeleteSelf", "FAILED", 0), ("DeleteSelf", "FAILED", 9))),
        "one rule",
    ),
    "workers that outlive their cluster": (
        lambda j: j["spec"].update(_strategy(("DeleteCluster", "FAILED", 5), ("DeleteWorkers", "FAILED", 9))),
        "do not fall",
    ),
    "workers deleted under an autoscaler": (
        lambda j: (
            j["spec"].update(_strategy(("DeleteWorkers", "FAILED", 0))),
            j["spec"]["rayClusterSpec"].update(enableInTreeAutoscaling=True),
        ),
        "DeleteWorkers with autoscaling",
    ),
    "no container": (lambda j: group(j)["template"]["spec"].update(containers=[]), "one container"),
    "resources twice": (
        lambda j: (
            group(j)["rayStartParams"].update({"num-cpus": "1"}),
            group(j).update(resources={"cpu": "1"}),
        ),
        "either in rayStartParams",
    ),
    "labels for ray start": (
        lambda j: group(j)["rayStartParams"].update(labels="a=b"),
        "outside rayStartParams",
    ),
    "more workers than the most": (lambda j: group(j).update(minReplicas=9), "<= maxReplicas"),
    "a priority without an autoscaler": (lambda j: group(j).update(priority=1), "without priority"),
    "suspended workers": (lambda j: group(j).update(suspend=True), "not suspended"),
    "pods that restart under autoscaler v2": (
        lambda j: (
            j["spec"]["rayClusterSpec"].update(
                enableInTreeAutoscaling=True, autoscalerOptions={"version": "v2"}
            ),
            group(j)["template"]["spec"].update(restartPolicy="Always"),
        ),
        "autoscaler v2",
    ),
    "Redis": (
        lambda j: container(j, head=True)["env"].append({"name": "RAY_REDIS_ADDRESS", "value": "r:1"}),
        "REDIS",
    ),
    "what needs a gate": (lambda j: j["spec"]["rayClusterSpec"].update(tlsOptions={}), "not checked here"),
    "a token from a service account": (
        lambda j: j["spec"]["rayClusterSpec"]["authOptions"].update(enableK8sTokenAuth=True),
        "enableK8sTokenAuth",
    ),
    "a token for a Ray that knows none": (
        lambda j: j["spec"]["rayClusterSpec"].update(rayVersion="2.51.2"),
        "2.52.0",
    ),
    "no token": (lambda j: j["spec"]["rayClusterSpec"].pop("authOptions"), "mode token"),
    "less grace than the drain takes": (
        lambda j: group(j)["template"]["spec"].update(terminationGracePeriodSeconds=315),
        "315 s",
    ),
    "less grace for the head": (
        lambda j: group(j, head=True)["template"]["spec"].update(terminationGracePeriodSeconds=60),
        "315 s",
    ),
    "the grace of Kubernetes, which is Ray's drain time": (
        lambda j: (
            container(j).update(env=[]),
            group(j)["template"]["spec"].pop("terminationGracePeriodSeconds"),
        ),
        "30 s",
    ),
    "a secret by its value": (
        lambda j: container(j)["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "sesame"}),
        "a Secret instead",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_job_that_the_operator_would_refuse_is_refused(what: str) -> None:
    job = rendered()
    spoil, said = SPOILT[what]
    spoil(job)
    with pytest.raises(ParameterError, match=said) as refused:
        check([job])
    assert "\n" not in str(refused.value)
    assert "sesame" not in str(refused.value)


def test_what_has_a_default_may_be_left_out() -> None:
    job = rendered()
    for key in ("minReplicas", "maxReplicas", "replicas"):
        del group(job)[key]
    check([job])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"concurrencyPolicy": "Allow"}, "Forbid"),
        ({"schedule": "CRON_TZ=UTC 0 20 * * *"}, "timeZone"),
        ({"schedule": "@daily"}, "five fields"),
    ],
)
def test_a_cron_job_that_would_overlap_itself_or_not_start_is_refused(
    change: dict[str, str], said: str
) -> None:
    cron = rendered("CronJob")
    cron["spec"] |= change
    with pytest.raises(ParameterError, match=said):
        check([cron])


def test_a_kind_that_is_not_known_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"kind = 'Secret' .* RayJob, CronJob"):
        check([{"kind": "Secret"}])


def test_a_misspelt_parameter_lists_the_valid_ones() -> None:
    with pytest.raises(ParameterError, match=r"'nodse'.*image, nodes, cpus.*did you mean 'nodes'"):
        KubeRay({"image": "i", "nodse": 2}).parameters  # noqa: B018
