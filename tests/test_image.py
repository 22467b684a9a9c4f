"""The image for Kubernetes: built here, and a campaign in it to completion, as KubeRay would run it.

    pytest -m image -n 0 -s

Needs mmdebstrap, buildah, root and some minutes. `BENDSCAPE_IMAGE=FILE.tar` uses an image that is there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bendscape.cluster.place import Job
from bendscape.cluster.ray_job import KubeRayParameters, contents, render_job
from campaigns import data_files

pytestmark = [pytest.mark.image, pytest.mark.xdist_group("image")]
ROOT = Path(__file__).parent.parent
PLANTED = "planted-secret-0c2f"
CAMPAIGN = """
[campaign]
name = "in the image"
store = "s.zarr"
entropy = 7
kernel = "hessian"

[grid]
p = [1]
p_star = [1]
a = [0.7]
alpha = { around = "alpha_bbp", start = 0.6, stop = 1.6, num = 5 }
N = [32, 64]
seeds = 8
"""
AS_KUBERAY_DOES = '''
"""A head and a worker as KubeRay starts them, and a job through the head's server, until it has ended."""
import json, os, subprocess, sys, time, urllib.error, urllib.request

os.environ.update(json.loads(open("/etc/bendscape/environment.json").read()))
token = os.environ["RAY_AUTH_TOKEN"]
params = json.loads(os.environ["START"])
def start(*more):
    command = "ulimit -n 65536 2> /dev/null; exec ray start --block --disable-usage-stats " + " ".join(more)
    return subprocess.Popen(["/bin/bash", "-c", "--", command], stdout=subprocess.DEVNULL)
def flags(start_params):
    return [f"--{name}={value}" for name, value in start_params.items()]
def ask(path, body=None):
    headers = {"x-ray-authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = body and json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:8265{path}", data, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
def job_after(entrypoint, id, during=lambda: None):
    deadline = time.monotonic() + 240
    while True:  # as the operator does, until the node can take a job
        try:
            ask("/api/jobs/", {"entrypoint": entrypoint, "submission_id": id})
            break
        except urllib.error.HTTPError as error:
            if error.code != 500 or time.monotonic() > deadline:
                raise SystemExit(error.read().decode())
            time.sleep(1)
    while time.monotonic() < deadline:
        during()
        about = ask(f"/api/jobs/{id}")
        if about["status"] in ("STOPPED", "SUCCEEDED", "FAILED"):
            return about
        time.sleep(0.5)
    raise SystemExit(f"{id} did not end: {about}")
def in_process_list():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            seen = open(f"/proc/{pid}/cmdline", "rb").read()
        except OSError:
            continue
        if token.encode() in seen or os.environ["AWS_SECRET_ACCESS_KEY"].encode() in seen:
            found.add(seen.decode())
found = set()
head = start("--head", "--node-ip-address=127.0.0.1", "--port=6379", *flags(params["head"]))
nodes = [head]
try:
    for _ in range(600):
        try:
            ask("/api/version")
            break
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    # A worker of one core: a second raylet on the address of the head.
    nodes.append(start("--address=127.0.0.1:6379", "--num-cpus=1", *flags(params["worker"])))
    refused = None
    try:
        urllib.request.urlopen("http://127.0.0.1:8265/api/jobs/", timeout=30)
    except urllib.error.HTTPError as error:
        refused = error.code
    command = json.loads(open("/etc/bendscape/command.json").read())
    ends = {}
    for id, budget in (("cut", ["--time-budget", "1s"]), ("whole", [])):
        open("/tmp/command.json", "w").write(json.dumps([*command, *budget]))
        # The entrypoint, on a command of which a budget cuts the first run short.
        entrypoint = ("python -c \\"from pathlib import Path; from bendscape.cluster import pod; "
                      "pod.FOLDER = Path('/tmp'); raise SystemExit(pod.main(['drive']))\\"")
        ends[id] = job_after(entrypoint, id, in_process_list)
    secrets = [os.environ[name].encode() for name in ("RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY")]
    logs = [os.path.join(top, name) for top, _, names in os.walk("/tmp/ray") for name in names]
    logs = [log for log in logs if os.path.isfile(log)]
    logged = [log for log in logs if any(secret in open(log, "rb").read() for secret in secrets)]
    print(json.dumps(
        {"refused": refused, "ends": ends, "in process list": sorted(found), "in logs": logged}
    ))
finally:
    for node in reversed(nodes):
        node.terminate()
    for node in nodes:
        node.wait(60)
'''


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("BENDSCAPE_IMAGE"):
        return Path(given)
    made = tmp_path_factory.mktemp("image") / "bendscape.tar"
    (index := made.with_name(PLANTED)).mkdir()  # stands for the address of an index with a password in it
    links = f"{os.environ.get('PIP_FIND_LINKS', '')} {index}".strip()
    planted = os.environ | {"AWS_SECRET_ACCESS_KEY": PLANTED, "PIP_FIND_LINKS": links}
    subprocess.run([ROOT / "cluster" / "image.sh", made], check=True, timeout=3600, env=planted)
    return made


@pytest.fixture(scope="module")
def buildah(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    store = tmp_path_factory.mktemp("storage")
    command = ["buildah", "--root", f"{store}/root", "--runroot", f"{store}/run", "--storage-driver", "vfs"]
    name = subprocess.run(
        [*command, "from", "--quiet", f"oci-archive:{archive}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=600,
    ).stdout.strip()
    try:
        yield [*command, "run", "--isolation", "chroot", name]
    finally:
        subprocess.run([*command, "rm", "--all"], check=False, capture_output=True, timeout=600)
        shutil.rmtree(store, ignore_errors=True)


def in_image(buildah: list[str], *words: str, mounts: dict[str, Path]) -> str:
    # With a network of its own: other programs of this machine may have the ports of Ray.
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    options = [f"--volume={path}:{at}" for at, path in mounts.items()]
    command = [*alone, *buildah[:-1], *options, buildah[-1], "--", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    return done.stdout


def reference(folder: Path) -> dict[str, bytes]:
    """The data of a serial run outside the image."""
    (folder / "campaign.toml").write_text(CAMPAIGN)
    command = [sys.executable, "-m", "bendscape.sweep", "run", "campaign.toml", "--address", "serial"]
    subprocess.run(command, check=True, cwd=folder, capture_output=True, timeout=300)
    return data_files(folder / "s.zarr")


def shared(folder: Path) -> Path:
    """A folder that the image's user may write, as a volume is."""
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_the_driver_runs_in_the_image_to_completion(buildah: list[str], tmp_path: Path) -> None:
    expected = reference(tmp_path)
    data = shared(tmp_path / "data")
    (tmp_path / "campaign.toml").chmod(0o644)
    words = ("bendscape", "run", "/campaign.toml", "--store", "/data/s.zarr", "--json")
    printed = in_image(buildah, *words, mounts={"/campaign.toml": tmp_path / "campaign.toml", "/data": data})
    assert json.loads(printed)["outcome"] == "complete"
    assert data_files(data / "s.zarr") == expected


def test_a_job_ends_in_the_image_as_kuberay_is_to_see_it(buildah: list[str], tmp_path: Path) -> None:
    # Cut short by its budget it is STOPPED, which costs no retry; again it is SUCCEEDED, and the store equals
    # that of a serial run bit for bit. Whoever lacks the token is turned away; no process shows it.
    expected = reference(tmp_path)
    data, files = shared(tmp_path / "data"), shared(tmp_path / "files")
    job = Job(str(tmp_path / "campaign.toml"), "file:///data/s.zarr", "in the image")
    found, moved = contents(job)
    parameters = KubeRayParameters(image="i", claim="c:/data", grace=30)
    documents = {one["kind"]: one for one in render_job(moved, parameters, "job-1", found)}
    for name, text in documents["ConfigMap"]["data"].items():
        (files / name).write_text(text)
    (files / "kuberay.py").write_text(AS_KUBERAY_DOES)
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    start = {
        "head": cluster["headGroupSpec"]["rayStartParams"],
        "worker": cluster["workerGroupSpecs"][0]["rayStartParams"],
    }
    start["head"] |= {"dashboard-host": "127.0.0.1"}
    waits = {
        one["name"]: one["value"]
        for one in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    }
    env = waits | {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": PLANTED * 3, "START": json.dumps(start),
        "AWS_SECRET_ACCESS_KEY": PLANTED,
    }  # fmt: skip
    (files / "environment.json").write_text(json.dumps(env))
    mounts = {"/etc/bendscape": files, "/data": data}
    printed = in_image(buildah, "python", "/etc/bendscape/kuberay.py", mounts=mounts)
    told = json.loads(printed.splitlines()[-1])
    assert told["refused"] in (401, 403)
    assert told["in process list"] == []
    assert told["in logs"] == []
    assert [told["ends"][id]["status"] for id in ("cut", "whole")] == ["STOPPED", "SUCCEEDED"]
    assert PLANTED not in json.dumps(told)
    assert data_files(data / "s.zarr") == expected
    for path in data.rglob("*"):
        assert not path.is_file() or PLANTED.encode() not in path.read_bytes()


def test_a_planted_secret_is_in_no_layer_of_the_image(archive: Path, tmp_path: Path) -> None:
    if os.environ.get("BENDSCAPE_IMAGE"):
        pytest.skip("the image was built without a planted secret")
    with tarfile.open(archive) as outer:
        outer.extractall(tmp_path, filter="data")
    found = []
    for blob in (tmp_path / "blobs" / "sha256").iterdir():
        if not tarfile.is_tarfile(blob):
            assert PLANTED.encode() not in blob.read_bytes()
            continue
        with tarfile.open(blob) as layer:
            for member in layer:
                file = layer.extractfile(member) if member.isfile() else None
                if file is not None and PLANTED.encode() in file.read():
                    found.append(member.name)
    assert found == []
