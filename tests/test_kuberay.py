"""Kubernetes as a place: what is handed to `kubectl`, and what KubeRay's status of a job means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import bendscape

from bendscape.cluster.kuberay import KubeRay, state_of
from bendscape.cluster.place import Job, State, place
from bendscape.cluster.ray_job import KubeRayParameters, as_text, contents, render_job
from bendscape.core.errors import ParameterError

yaml = pytest.importorskip("yaml")
CAMPAIGN = """
[campaign]
name = "night"
store = "s.zarr"
entropy = 1

[grid]
p = [1]
p_star = [1]
a = [0.7]
alpha = [1.0]
N = [8]
seeds = 1
"""
AWKWARD = "quotes ' \" and `ticks`,\nlines, $(touch /tmp/never), 1e3: yes"
IMAGE = {"image": "registry/bendscape:1"}
KUBECTL = """#!{python}
import json, sys
from pathlib import Path
folder = Path({folder!r})
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([sys.argv[1:], sys.stdin.read()]) + "\\n")
words = [word for word in sys.argv[1:] if not word.startswith("-")]
verb = next(w for w in ("config", "create", "apply", "get", "delete", "logs") if w in words)
answer = folder / verb
if (folder / f"{{verb}}-fails").exists():
    sys.exit((folder / f"{{verb}}-fails").read_text())
print(answer.read_text() if answer.exists() else "", end="")
"""


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder: what `kubectl` was asked is in `calls`; a file named like a verb is what it answers."""
    folder = tmp_path / "kubectl"
    folder.mkdir()
    script = folder / "bin" / "kubectl"
    script.parent.mkdir()
    script.write_text(KUBECTL.format(python=sys.executable, folder=str(folder)))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("BENDSCAPE_JOBS", str(tmp_path / "jobs"))
    (folder / "config").write_text("arn:aws:eks:eu-west-1:1:cluster/physics\n")
    return folder


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    file = tmp_path / "night.toml"
    file.write_text(CAMPAIGN)
    return file


def calls(kubectl: Path) -> list[tuple[list[str], str]]:
    return [tuple(json.loads(line)) for line in (kubectl / "calls").read_text().splitlines()]


def job_of(file: Path, **changes: Any) -> Job:
    return Job(**{"file": str(file), "store": "s3://bucket/s.zarr", "name": "night", **changes})


def documents(job: Job, **parameters: Any) -> dict[str, dict[str, Any]]:
    """What a user gets, read back as Kubernetes reads it, by kind."""
    data, moved = contents(job)
    text = as_text(render_job(moved, KubeRayParameters.of({**IMAGE, **parameters}), "night-1", data))
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def pods(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    cluster = found["RayJob"]["spec"]["rayClusterSpec"]
    groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    return dict(zip(("head", "worker"), (one["template"]["spec"] for one in groups), strict=True))


# ---- rendering


def test_the_dry_run_prints_what_is_checked_and_asks_nobody(campaign: Path, kubectl: Path) -> None:
    store = ("--store", "s3://bucket/s.zarr")
    done = bendscape("submit", "kuberay", campaign, *store, "--image", "registry/bendscape:1", "--dry-run")
    assert done.returncode == 0, done.stderr
    kinds = [one["kind"] for one in yaml.safe_load_all(done.stdout)]
    assert kinds == ["ConfigMap", "PodDisruptionBudget", "RayJob"]
    assert not (kubectl / "calls").exists()


def test_names_with_quotes_and_lines_arrive_as_they_are_and_never_in_a_shell(tmp_path: Path) -> None:
    file = tmp_path / f"{AWKWARD.replace('/', '|')}.toml"
    file.write_text(CAMPAIGN.replace('"night"', json.dumps(AWKWARD)))
    found = documents(job_of(file, name=AWKWARD, options=("--cell-timeout", AWKWARD)))
    assert found["RayJob"]["metadata"]["annotations"]["bendscape/campaign"] == AWKWARD
    assert found["ConfigMap"]["data"]["campaign.toml"] == file.read_text()
    assert json.loads(found["ConfigMap"]["data"]["command.json"])[-1] == AWKWARD
    assert found["RayJob"]["spec"]["entrypoint"] == "python -m bendscape.cluster.pod drive"


@pytest.mark.parametrize(
    "value", ["yes", "y", "1e3", "0x1f", "null", "~", "1:30", ".5", "", "a: b", "#", "-", "é"]
)
def test_no_text_is_read_as_anything_else(campaign: Path, value: str) -> None:
    found = documents(job_of(campaign), env=(f"GIVEN={value}",))
    for pod in pods(found).values():
        assert {"name": "GIVEN", "value": value} in pod["containers"][0]["env"]


def test_a_job_has_the_resources_that_were_asked_for(campaign: Path) -> None:
    found = documents(
        job_of(campaign, budget=3600.0), nodes=3, cpus=8, mem="12GB", grace=60, retries=5, namespace="sweeps",
        node_labels=("pool=cpu",), priority_class="low", service_account="sweeper", pull_secret="registry",
    )  # fmt: skip
    job, workers = found["RayJob"], found["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert (job["metadata"]["namespace"], job["spec"]["backoffLimit"]) == ("sweeps", 5)
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (3, 3, 3)
    for pod in pods(found).values():
        assert pod["nodeSelector"] == {"pool": "cpu"}
        assert (pod["priorityClassName"], pod["serviceAccountName"]) == ("low", "sweeper")
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
    limits = pods(found)["worker"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "8", "memory": "12000000000"}
    command = json.loads(found["ConfigMap"]["data"]["command.json"])
    assert command[command.index("--time-budget") + 1] == "3600s"
    assert command[command.index("--grace") + 1] == "60s"
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] == 2


def test_a_pod_that_must_go_has_longer_than_its_drain_takes(campaign: Path) -> None:
    found = pods(documents(job_of(campaign), grace=100))
    head, worker = (found[role]["containers"][0] for role in ("head", "worker"))
    waits = {one["name"]: int(one["value"]) for pod in (head, worker) for one in pod["env"]}
    drain = int(head["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert 100 < drain == waits["RAY_JOB_STOP_WAIT_TIME_S"] == waits["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]
    assert all(pod["terminationGracePeriodSeconds"] > drain for pod in found.values())


def test_pods_have_no_more_rights_than_they_need(campaign: Path) -> None:
    found = documents(job_of(campaign))
    assert found["RayJob"]["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for pod in pods(found).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False


def test_kernel_modules_travel_with_the_campaign(tmp_path: Path, campaign: Path) -> None:
    (tmp_path / "mine.py").write_text("KERNEL = 1\n")
    options = ("--kernel-module", "mine.py", "--kernel-module=an.installed.one", "--retry-failed")
    found = documents(job_of(campaign, folder=str(tmp_path), options=options))
    assert found["ConfigMap"]["data"]["mine.py"] == "KERNEL = 1\n"
    command = json.loads(found["ConfigMap"]["data"]["command.json"])
    expected = [
        "--kernel-module",
        "/etc/bendscape/mine.py",
        "--kernel-module",
        "an.installed.one",
        "--retry-failed",
    ]
    assert command[-5:] == expected


def test_a_store_that_pods_do_not_share_is_refused(campaign: Path) -> None:
    with pytest.raises(ParameterError, match="--claim"):
        documents(job_of(campaign, store="file:///home/me/s.zarr"))
    found = documents(job_of(campaign, store="file:///data/s.zarr"), claim="shared:/data")
    for pod in pods(found).values():
        assert {"name": "store", "persistentVolumeClaim": {"claimName": "shared"}} in pod["volumes"]


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--report", "r.html"), "bendscape report STORE"), (("--report=r.html",), "bendscape report STORE")],
)
def test_a_report_that_nobody_could_fetch_is_refused(
    campaign: Path, options: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ParameterError, match=said):
        documents(job_of(campaign, options=options))


def test_a_module_larger_than_a_config_map_is_refused(tmp_path: Path, campaign: Path) -> None:
    (tmp_path / "mine.py").write_text("#" * 2**20)
    with pytest.raises(ParameterError, match="into the image"):
        documents(job_of(campaign, folder=str(tmp_path), options=("--kernel-module", "mine.py")))


@pytest.mark.parametrize(
    "given",
    [
        "AWS_SECRET_ACCESS_KEY=sesame",
        "MY_PASSWORD=sesame",
        "GH_TOKEN=sesame",
        "API_KEY=sesame",
        "passphrase=sesame",
        "ENDPOINT=http://me:sesame@host",
    ],
)
def test_a_secret_is_refused_and_not_repeated(campaign: Path, kubectl: Path, given: str) -> None:
    done = bendscape(
        *("submit", "kuberay", campaign, "--store", "s3://bucket/s.zarr", "--image", "i"),
        *("--env", given, "--dry-run"),
    )
    assert done.returncode == 2
    assert "--secret" in done.stderr
    assert "sesame" not in done.stdout + done.stderr


def test_a_key_given_for_the_name_of_a_secret_is_not_repeated(campaign: Path) -> None:
    with pytest.raises(ParameterError, match="names of Secrets") as refused:
        documents(job_of(campaign), secrets=("sesame/Key+",))
    assert "sesame" not in str(refused.value)


def test_a_planted_secret_is_in_nothing_that_a_job_leaves(
    campaign: Path, kubectl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "plantedsecret")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "plantedsecret")
    common = (campaign, "--store", "s3://bucket/s.zarr", "--image", "i", "--secret", "s3-keys")
    (kubectl / "get").write_text(json.dumps({"items": []}))
    done = bendscape("submit", "kuberay", *common)
    assert done.returncode == 0, done.stderr
    text = KubeRay(IMAGE).render_schedule(job_of(campaign), "nightly", "0 20 * * *")
    left = [path for path in (*(tmp_path / "jobs").rglob("*"), kubectl / "calls") if path.is_file()]
    assert {path.name for path in left} == {"job.json", "manifests.yaml", "calls"}
    found = [*(path.read_text() for path in left), done.stdout, done.stderr, text]
    assert not any("plantedsecret" in one for one in found)
    for path in (tmp_path / "jobs").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0  # its owner's alone


# ---- the place


def status(name: str = "night-1", **fields: Any) -> dict[str, Any]:
    """A RayJob as `kubectl get --output json` shows it, with the fields of KubeRay's RayJobStatus."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": "2026-11-28T20:00:00Z"},
        "status": {
            "dashboardURL": f"{name}-x7k2p-head-svc.default.svc.cluster.local:8265",
            "failed": 0,
            "jobId": f"{name}-9xmbl",
            "rayClusterName": f"{name}-x7k2p",
            "startTime": "2026-11-28T20:00:00Z",
            "succeeded": 0,
            **fields,
        },
    }


FAILED = (
    "Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):\nbye\n"
)


@pytest.mark.parametrize(
    ("fields", "word", "code"),
    [
        ({}, "waiting", None),
        ({"jobDeploymentStatus": "Initializing"}, "waiting", None),
        ({"jobDeploymentStatus": "Waiting"}, "waiting", None),
        ({"jobDeploymentStatus": "Running"}, "waiting", None),
        ({"jobDeploymentStatus": "Running", "jobStatus": "PENDING"}, "waiting", None),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "running", None),
        ({"jobDeploymentStatus": "Retrying", "failed": 1}, "waiting", None),
        ({"jobDeploymentStatus": "Suspended"}, "waiting", None),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "succeeded": 1}, "complete", 0),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "work left", 75),
        (
            {
                "jobDeploymentStatus": "Failed",
                "jobStatus": "FAILED",
                "reason": "AppFailed",
                "message": FAILED.format(1),
            },
            "failed cells",
            1,
        ),
        (
            {
                "jobDeploymentStatus": "Failed",
                "jobStatus": "FAILED",
                "reason": "AppFailed",
                "message": FAILED.format(74),
            },
            "failed",
            74,
        ),
        ({"jobDeploymentStatus": "Failed", "reason": "JobStatusCheckTimeoutExceeded"}, "failed", None),
        ({"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed"}, "failed", None),
    ],
)
def test_what_the_status_of_a_job_means(fields: dict[str, Any], word: str, code: int | None) -> None:
    state = state_of(status(**fields))
    assert (state.word, state.exit_code) == (word, code)
    assert "\n" not in state.detail


def test_a_job_is_submitted_followed_and_cancelled(campaign: Path, kubectl: Path) -> None:
    common = (campaign, "--store", "s3://bucket/s.zarr", "--image", "i", "--namespace", "sweeps", "--json")
    (kubectl / "get").write_text(json.dumps({"items": []}))
    done = bendscape("submit", "kuberay", *common)
    assert done.returncode == 0, done.stderr
    id = json.loads(done.stdout)["id"]
    context, namespace, name = id.rsplit("/", 2)
    assert (context, namespace) == ("arn:aws:eks:eu-west-1:1:cluster/physics", "sweeps")
    created = next(call for call in calls(kubectl) if "create" in call[0])
    assert created[0] == ["--context", context, "--namespace", "sweeps", "create", "--filename", "-"]
    made = {one["kind"]: one["metadata"]["name"] for one in yaml.safe_load_all(created[1])}
    assert made == dict.fromkeys(("ConfigMap", "PodDisruptionBudget", "RayJob"), name)

    running = status(name, jobDeploymentStatus="Running", jobStatus="RUNNING")
    (kubectl / "get").write_text(json.dumps({"items": [running, status("another-1")]}))
    (kubectl / "logs").write_text("12 of 100 cells done\n")
    assert place("kuberay").state(id) == State("running", "Running, RUNNING")
    assert json.loads(bendscape("jobs", "list", "--json").stdout)["jobs"][0]["state"] == "running"
    assert bendscape("jobs", "log", id).stdout == "12 of 100 cells done\n"
    assert bendscape("jobs", "cancel", id).returncode == 0
    deleted = next(call for call, _ in calls(kubectl) if "delete" in call)
    assert deleted[deleted.index("--selector") + 1] == f"bendscape/job={name}"
    assert "rayjobs.ray.io,configmaps,poddisruptionbudgets.policy" in deleted


def test_many_jobs_are_one_question(kubectl: Path) -> None:
    names = [f"night-{number}" for number in range(50)]
    (kubectl / "get").write_text(json.dumps({"items": [status(name) for name in names[:-1]]}))
    states = place("kuberay").states([f"physics/sweeps/{name}" for name in names])
    assert len(calls(kubectl)) == 1
    assert [state.word for state in states.values()] == ["waiting"] * 49 + ["cancelled"]


def test_waiting_for_a_job_ends_with_the_exit_code_of_its_driver(campaign: Path, kubectl: Path) -> None:
    failed = status(jobDeploymentStatus="Failed", jobStatus="FAILED", message=FAILED.format(1))
    # The name is not known before: the answer has that of the last `create`.
    script = kubectl / "bin" / "kubectl"
    script.write_text(
        script.read_text().replace(
            "print(answer",
            "import re\ntext = answer.read_text() if answer.exists() else ''\n"
            "names = re.findall('bendscape/job: ([-a-z0-9]+)', (folder / 'calls').read_text())\n"
            "if verb == 'get': print(text.replace('night-1', names[-1])); sys.exit()\nprint(answer",
        )
    )
    (kubectl / "get").write_text(json.dumps({"items": [failed]}))
    common = (campaign, "--store", "s3://bucket/s.zarr", "--image", "i")
    assert bendscape("submit", "kuberay", *common, "--wait").returncode == 1


def test_a_job_that_was_only_half_created_is_taken_back(
    campaign: Path, kubectl: Path, tmp_path: Path
) -> None:
    (kubectl / "create-fails").write_text('no matches for kind "RayJob" in version "ray.io/v1"')
    done = bendscape("submit", "kuberay", campaign, "--store", "s3://bucket/s.zarr", "--image", "i")
    assert (done.returncode, "no matches for kind" in done.stderr) == (74, True)
    assert any("delete" in call for call, _ in calls(kubectl))
    assert list((tmp_path / "jobs").iterdir()) == []


def test_the_end_of_a_log_is_there_after_its_cluster_is_gone(kubectl: Path) -> None:
    (kubectl / "logs-fails").write_text("no pods")
    (kubectl / "get").write_text(json.dumps({"items": [status(message=FAILED.format(74))]}))
    assert place("kuberay").log("physics/sweeps/night-1").endswith("bye\n")


def test_without_kubectl_the_manifests_are_still_to_be_had(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("BENDSCAPE_JOBS", str(tmp_path / "jobs"))
    common = ("submit", "kuberay", campaign, "--store", "s3://bucket/s.zarr", "--image", "i")
    done = bendscape(*common)
    assert (done.returncode, "--dry-run" in done.stderr) == (2, True)
    assert bendscape(*common, "--dry-run").returncode == 0


# ---- schedules


def test_a_schedule_is_a_cron_job_that_may_do_no_more_than_start_its_jobs(campaign: Path) -> None:
    text = KubeRay({**IMAGE, "secrets": ("s3-keys",)}).render_schedule(
        *(job_of(campaign), "nightly", "0 20 * * 1-5", "Europe/Rome"),
        due=("look", AWKWARD), files={"schedule.json": AWKWARD},
    )  # fmt: skip
    found = {one["kind"]: one for one in yaml.safe_load_all(text)}
    cron = found["CronJob"]["spec"]
    assert (cron["schedule"], cron["timeZone"]) == ("0 20 * * 1-5", "Europe/Rome")
    assert cron["concurrencyPolicy"] == "Forbid"
    data = found["ConfigMap"]["data"]
    assert json.loads(data["due.json"]) == ["look", AWKWARD]
    assert json.loads(data["command.json"])[-2:] == ["--grace", "300s"]
    assert data["schedule.json"] == AWKWARD
    ray_job = json.loads(data["rayjob.json"])
    assert ray_job["metadata"]["generateName"] == "nightly-"
    assert ray_job["metadata"]["labels"]["bendscape/schedule"] == "nightly"
    rules = [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "list", "delete"]}]
    assert found["Role"]["rules"] == rules
    starter = cron["jobTemplate"]["spec"]["template"]["spec"]
    assert starter["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    assert starter["containers"][0]["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]


def test_a_schedule_uses_the_account_that_it_is_given(campaign: Path) -> None:
    at = KubeRay({**IMAGE, "service_account": "sweeper"})
    text = at.render_schedule(job_of(campaign), "nightly", "0 20 * * *")
    found = {one["kind"]: one for one in yaml.safe_load_all(text)}
    assert "ServiceAccount" not in found
    assert [one["name"] for one in found["RoleBinding"]["subjects"]] == ["sweeper"]
    assert (
        found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"] == "sweeper"
    )


def test_a_schedule_is_installed_asked_about_and_removed(campaign: Path, kubectl: Path) -> None:
    at, store = KubeRay({**IMAGE, "namespace": "sweeps"}), "s3://bucket/s.zarr"
    (kubectl / "get").write_text('{"items": []}')
    id = at.install("nightly", at.render_schedule(job_of(campaign), "nightly", "0 20 * * *"), store)
    complete = status("nightly-x1", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    (kubectl / "get").write_text(json.dumps({"items": [complete]}))
    assert place("kuberay").scheduled(id) == [  # type: ignore[attr-defined]
        ("nightly-x1", "2026-11-28T20:00:00Z", State("complete", "Complete, SUCCEEDED", 0))
    ]
    place("kuberay").remove(id)  # type: ignore[attr-defined]
    asked = [call for call, _ in calls(kubectl)]
    assert [next(w for w in call if w in ("config", "apply", "get", "delete")) for call in asked] == [
        "config", "get", "apply", "get", "delete",
    ]  # fmt: skip
    assert asked[-1][asked[-1].index("--selector") + 1] == "bendscape/schedule=nightly"


def test_a_schedule_of_the_same_name_for_another_store_is_left_alone(campaign: Path, kubectl: Path) -> None:
    at = KubeRay({**IMAGE, "namespace": "sweeps"})
    text = at.render_schedule(job_of(campaign, store="s3://theirs/s.zarr"), "nightly", "0 20 * * *")
    cron = next(one for one in yaml.safe_load_all(text) if one["kind"] == "CronJob")
    (kubectl / "get").write_text(json.dumps({"items": [cron]}))
    with pytest.raises(ParameterError, match="schedule there is of 's3://theirs"):
        at.install("nightly", text, "s3://ours/s.zarr")
    assert not any("apply" in call for call, _ in calls(kubectl))
    at.install("nightly", text, "s3://theirs/s.zarr")
    assert any("apply" in call for call, _ in calls(kubectl))


@pytest.mark.parametrize("name", ["a" * 42, "Nightly", "1night", "night_ly", ""])
def test_a_name_that_kubernetes_would_refuse_is_refused(campaign: Path, name: str) -> None:
    with pytest.raises(ParameterError, match="name"):
        KubeRay(IMAGE).render_schedule(job_of(campaign), name, "0 20 * * *")


def test_loading_the_commands_loads_no_schema_and_no_yaml() -> None:
    loaded = "{'yaml', 'jsonschema'} & set(sys.modules)"
    code = f"import sys, bendscape.cluster.commands, bendscape.cluster.kuberay; print({loaded})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"
