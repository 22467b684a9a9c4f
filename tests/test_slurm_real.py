"""Campaigns on a real Slurm of two nodes: `pytest -m slurm -n0 tests/test_slurm_real.py`, as root.

Whatever happens to the job, the store must equal that of a serial run bit for bit.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import BENDSCAPE
from slurm_cluster import SlurmCluster, missing

from bendscape.sweep.engine.sessions import session_folder
from campaigns import calls, campaign_text, data_files, make_campaign, run, write_kernel

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]

BODY = """
if SLOW: time.sleep(SECONDS)
return Outcome({'x': rng.normal() + cell.alpha})
"""
SMALL = {"p": [1], "N": [64], "a": [0.7], "alpha": [0.8, 1.0], "seeds": 60}  # 120 cells
NAME = 'it\'s "a" $(name)'


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """A Slurm with two nodes; without what it needs these tests fail, they were asked for."""
    assert not missing(), missing()
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Campaign:
    """A campaign of slow cells in a folder with an awkward name, and its job."""

    def __init__(self, slurm: SlurmCluster, folder: Path, seconds: float = 0.5, **grid: Any) -> None:
        self.slurm, self.folder = slurm, folder / 'it\'s "here" & there'
        self.folder.mkdir()
        body = BODY.replace("SECONDS", str(seconds)).replace("SLOW", "os.environ.get('SLURM_JOB_ID')")
        self.kernel = write_kernel(self.folder, body)
        self.grid = SMALL | grid
        text = campaign_text(**self.grid).replace('"unused"', '"s.zarr"')
        (self.folder / "c.toml").write_text(text.replace('name = "probe"', f"name = '''{NAME}'''", 1))
        self.store = self.folder / "s.zarr"
        self.id = ""

    def bendscape(self, *arguments: str, **environment: str) -> Any:
        command = self.slurm.inside("c", str(BENDSCAPE), *arguments)
        return subprocess.run(
            command, capture_output=True, text=True, timeout=500, check=False, cwd=self.folder,
            env={**os.environ, **self.slurm.environment, **environment},
        )  # fmt: skip

    def submit(
        self, *options: str, time: str = "30min", nodes: int = 2, cpus: int = 2, **environment: str
    ) -> None:
        told = ["--nodes", str(nodes), "--cpus", str(cpus), "--time", time, "--json", *options]
        done = self.bendscape(
            "submit", "slurm", "c.toml", *told, "--", "--kernel-module", "kernel_v1.py", **environment
        )
        assert done.returncode == 0, done.stderr
        self.id = json.loads(done.stdout)["id"]

    def job(self) -> dict[str, Any]:
        jobs = json.loads(self.bendscape("jobs", "list", str(self.store), "--json").stdout)["jobs"]
        return next(job for job in jobs if job["id"] == self.id)

    def log(self) -> str:
        return str(self.bendscape("jobs", "log", self.id).stdout)

    def files(self) -> Path:
        return next(
            path.parent
            for path in self.slurm.jobs.glob("*/job.json")
            if json.loads(path.read_text())["id"] == self.id
        )

    def until(self, true: Callable[[], object], what: str, seconds: float = 240) -> None:
        until = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < until, f"{what}: {self.job()}\n{self.log()}"
            time.sleep(1)

    def works(self, cells: int) -> None:
        """Wait until so many cells were begun."""
        self.until(lambda: len(calls(self.kernel)) >= cells, f"{cells} cells")

    def ends(self, word: str = "complete", seconds: float = 300) -> None:
        self.until(lambda: self.job()["state"] not in ("waiting", "running"), "its end", seconds)
        assert self.job()["state"] == word, self.log()

    def equals_a_serial_run(self) -> None:
        campaign = make_campaign(**self.grid)
        summary = run(self.folder / "serial.zarr", self.kernel, campaign)
        assert summary.outcome == "complete"
        assert data_files(self.store) == data_files(self.folder / "serial.zarr")


@pytest.fixture
def campaign(slurm: SlurmCluster, tmp_path: Path) -> Campaign:
    return Campaign(slurm, tmp_path)


def ray_folders(job: str) -> list[Path]:
    return list(session_folder().glob(f"j{job}-*"))


def test_two_nodes_complete_a_campaign_and_leave_nothing_behind(campaign: Campaign) -> None:
    campaign.submit()
    campaign.works(10)
    assert len(ray_folders(campaign.id)) == 2
    campaign.ends()
    campaign.equals_a_serial_run()
    assert not ray_folders(campaign.id)
    assert not (campaign.files() / "token").exists()
    shown = campaign.bendscape("status", "s.zarr", "--kernel-module", "kernel_v1.py")
    assert f"job {campaign.id} at slurm: complete" in shown.stdout


def test_no_secret_is_written_down_or_shown_and_files_are_private(campaign: Campaign, tmp_path: Path) -> None:
    handed, kept = "planted-in-a-file-5f1c", "planted-in-the-shell-8a3e"
    credentials = tmp_path / "credentials"
    credentials.write_text(f"AWS_SECRET_ACCESS_KEY={handed}\n")
    credentials.chmod(0o600)
    kernel = Path(campaign.kernel)
    kernel.write_text(
        kernel.read_text().replace(
            "if os.environ", "assert os.environ['AWS_SECRET_ACCESS_KEY'] != 'PLANTED'\n    if os.environ"
        )
    )
    campaign.submit("--credentials", str(credentials), AWS_SECRET_ACCESS_KEY=kept)
    campaign.works(10)
    token = (campaign.files() / "token").read_text()
    shown = subprocess.run(
        ["ps", "axww", "-o", "args"], capture_output=True, text=True, timeout=30, check=True
    )
    places = [campaign.files(), campaign.store, campaign.slurm.folder, *ray_folders(campaign.id)]
    texts = {
        str(path): path.read_bytes()
        for place in places
        for path in place.rglob("*")
        if path.is_file() and path != campaign.files() / "token"
    }
    texts["process list"] = shown.stdout.encode()
    texts["slurm"] = campaign.slurm.run("scontrol", "show", "job", "-dd", campaign.id).encode()
    for name, text in texts.items():
        for secret in (handed, kept, token):
            assert secret.encode() not in text, name
    for path in [campaign.files(), *campaign.files().iterdir()]:
        assert not path.stat().st_mode & 0o077, path
    campaign.ends()  # so the cells had what the file holds


def test_ray_listens_where_it_was_told_and_asks_for_its_token(campaign: Campaign) -> None:
    campaign.submit("--ports", "23000", "23400")
    campaign.works(10)
    listening = subprocess.run(
        campaign.slurm.inside("n1", "ss", "-Hltnp"), capture_output=True, text=True, timeout=30, check=True
    ).stdout
    ports = {
        int(line.split()[3].rpartition(":")[2])
        for line in listening.splitlines()
        if re.search("gcs_server|raylet|ray::", line)
    }
    assert ports
    assert all(23000 <= port <= 23400 for port in ports), listening
    head = re.search(r"--head (\S+)", " ".join(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                     for pid in campaign.slurm.processes("n1") if Path(f"/proc/{pid}").exists()))  # fmt: skip
    assert head
    script = f"import ray; ray.init(address={head[1]!r}, log_to_driver=False); print('in')"
    with subprocess.Popen(
        campaign.slurm.inside("n1", sys.executable, "-c", script), stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
    ) as stranger:  # fmt: skip
        try:  # it asks again and again; the job ends it if it is let in
            assert stranger.stderr is not None
            assert any("InvalidAuthToken" in line for line in stranger.stderr)
        finally:
            stranger.kill()
    campaign.ends()


def test_the_end_of_the_wall_time_costs_nothing(slurm: SlurmCluster, tmp_path: Path) -> None:
    campaign = Campaign(slurm, tmp_path, 1.0, seeds=110)  # 220 s on one core
    campaign.submit("--drain", "30s", time="2min", nodes=1)
    done = campaign.bendscape("jobs", "list", "--json")
    assert done.returncode == 0
    campaign.ends(seconds=500)
    rounds = [json.loads(line) for line in (campaign.files() / "rounds.jsonl").read_text().splitlines()]
    assert [line["exit_code"] for line in rounds[:-1]] == [75] * (len(rounds) - 1)
    assert rounds[-1]["exit_code"] == 0
    assert len(rounds) >= 2
    assert rounds[-1]["requeues"] == len(rounds) - 1
    assert set(calls(campaign.kernel).values()) == {1}, "no cell was computed twice"
    campaign.equals_a_serial_run()


def test_a_lost_node_is_replaced(slurm: SlurmCluster, tmp_path: Path) -> None:
    campaign = Campaign(slurm, tmp_path, 1.0, seeds=160)
    credentials = tmp_path / "credentials"
    credentials.write_text("AWS_SECRET_ACCESS_KEY=planted-in-a-file-77b2\n")
    credentials.chmod(0o600)
    # All that a node has, so that nothing but the other node can replace it.
    campaign.submit("--credentials", str(credentials), cpus=4)
    campaign.works(20)
    slurm.lose("n2")
    campaign.until(lambda: "asks for a node in its place" in campaign.log(), "a replacement")
    kept = [path for path in slurm.folder.rglob("*") if path.is_file()]  # Slurm's own files, too
    assert not [path for path in kept if b"planted-in-a-file-77b2" in path.read_bytes()]
    begun = len(calls(campaign.kernel))
    campaign.works(begun + 10)  # it goes on meanwhile
    slurm.start_node("n2")
    slurm.run("scontrol", "update", "NodeName=n2", "State=RESUME")
    replacement = re.search(r"job (\d+) asks", campaign.log())
    assert replacement
    query = ("squeue", "-h", "--states=all", "-j", replacement[1], "-o", "%T %N")
    campaign.until(lambda: slurm.run(*query).strip() == "RUNNING n2", "the replacement")
    campaign.until(lambda: (session_folder() / f"j{replacement[1]}-999").exists(), "its Ray")
    campaign.ends()
    campaign.equals_a_serial_run()
    campaign.until(lambda: slurm.run(*query).split()[0] in ("CANCELLED", "COMPLETED", "FAILED"), "its end")


def test_a_job_whose_head_is_lost_comes_back(slurm: SlurmCluster, tmp_path: Path) -> None:
    campaign = Campaign(slurm, tmp_path, 1.0, seeds=60)
    campaign.submit()
    campaign.works(20)
    slurm.lose("n1")
    time.sleep(5)
    slurm.start_node("n1")
    slurm.run("scontrol", "update", "NodeName=n1", "State=RESUME")
    campaign.ends(seconds=400)
    campaign.equals_a_serial_run()


def test_a_line_that_is_cut_and_healed_costs_the_tiles_under_way(slurm: SlurmCluster, tmp_path: Path) -> None:
    campaign = Campaign(slurm, tmp_path, 1.0, seeds=200)
    campaign.submit()
    campaign.works(20)
    slurm.cut("n2")
    campaign.until(lambda: "NodeLost" in campaign.log(), "Ray to give the node up")
    slurm.heal("n2")
    campaign.until(lambda: "starting Ray on n2 again" in campaign.log(), "the node")
    campaign.ends(seconds=400)
    campaign.equals_a_serial_run()


def test_a_line_that_is_cut_for_a_moment_holds_nothing_up(slurm: SlurmCluster, tmp_path: Path) -> None:
    campaign = Campaign(slurm, tmp_path, 1.0, seeds=60)
    campaign.submit()
    campaign.works(20)
    slurm.cut("n2")
    time.sleep(15)
    slurm.heal("n2")
    campaign.ends(seconds=400)
    campaign.equals_a_serial_run()


def test_a_cancelled_job_never_comes_back(slurm: SlurmCluster, tmp_path: Path) -> None:
    campaign = Campaign(slurm, tmp_path, 1.0)
    campaign.submit()
    campaign.works(10)
    slurm.run("scancel", campaign.id)
    campaign.ends("cancelled")
    time.sleep(15)  # longer than a requeued job waits on this Slurm
    assert campaign.job()["state"] == "cancelled"
    assert not slurm.run("squeue", "--noheader", "--states=PENDING,RUNNING").strip()
    assert "told to end" in campaign.log()
    for node in ("n1", "n2"):
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in slurm.processes(node)]
        assert not [line for line in lines if b"bendscape" in line or b"raylet" in line]
    left = [path for folder in ray_folders(campaign.id) for path in folder.rglob("*") if path.is_file()]
    assert not left, "Ray may leave empty folders, which the next job on the node sweeps"
    done = campaign.bendscape("run", "c.toml", "--kernel-module", "kernel_v1.py")
    assert done.returncode == 0, done.stderr
    campaign.equals_a_serial_run()


def test_two_campaigns_share_the_nodes_and_spare_the_ray_of_somebody_else(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    told = ("--address", f"{slurm.net}.11", "--head", f"{slurm.net}.11:6379", "--first", "--cpus", "1")
    foreign = subprocess.Popen(
        slurm.inside("n1", sys.executable, "-m", "bendscape.cluster.ray_node", "--folder", "foreign", *told),
        env={**os.environ, "RAY_AUTH_MODE": "disabled"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        (tmp_path / "1").mkdir()
        (tmp_path / "2").mkdir()
        first = Campaign(slurm, tmp_path / "1")
        second = Campaign(slurm, tmp_path / "2", entropy=8)
        first.submit()
        second.submit()
        first.works(10)
        second.works(10)
        assert {first.job()["state"], second.job()["state"]} == {"running"}, "at the same time"
        first.ends()
        second.ends()
        first.equals_a_serial_run()
        second.equals_a_serial_run()
        assert foreign.poll() is None
        script = (
            f"import ray; ray.init(address='{slurm.net}.11:6379', log_to_driver=False); print(ray.nodes())"
        )
        alive = subprocess.run(
            slurm.inside("n1", sys.executable, "-c", script), capture_output=True, text=True, timeout=100,
            check=False, env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        )  # fmt: skip
        assert "'Alive': True" in alive.stdout, alive.stderr
    finally:
        foreign.send_signal(signal.SIGTERM)
        foreign.wait(60)


def test_a_second_job_of_a_store_waits_for_the_first(campaign: Campaign) -> None:
    campaign.submit(nodes=1)
    campaign.works(4)
    first = campaign.id
    campaign.submit(nodes=1)
    assert campaign.job()["state"] == "waiting"
    assert "Dependency" in campaign.job()["detail"]
    campaign.ends()
    assert campaign.job()["exit_code"] == 0
    campaign.id = first
    assert campaign.job()["state"] == "complete"
    assert set(calls(campaign.kernel).values()) == {1}


def test_wait_follows_a_job_and_leaves_with_its_exit_code(slurm: SlurmCluster, tmp_path: Path) -> None:
    campaign = Campaign(slurm, tmp_path, 0.05, seeds=4)
    told = ("submit", "slurm", "c.toml", "--cpus", "2", "--time", "5min", "--wait")
    good = campaign.bendscape(*told, "--", "--kernel-module", "kernel_v1.py")
    assert good.returncode == 0, good.stderr
    assert "complete" in good.stderr
