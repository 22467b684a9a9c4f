"""Places as far as text goes: what is rendered, what is refused, what a scheduler's answers mean; and the
place that is this machine."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import bendscape

from bendscape.cluster.commands import hand_over
from bendscape.cluster.local import Local, LocalParameters
from bendscape.cluster.local import render_script as local_script
from bendscape.cluster.place import Job, Parameters, State, jobs_of, place, records
from bendscape.cluster.ray_node import Node, free_ports, ray_start, services, sweep
from bendscape.cluster.slurm import (
    Slurm,
    SlurmParameters,
    job_name,
    render_replacement,
    render_script,
    seconds_left,
    wall_time,
)
from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.calls import status
from campaigns import campaign_text, write_kernel

AWKWARD = [
    "plain",
    "it's",
    'say "no"',
    "$(touch pwned)",
    "two\nlines",
    "a b  c",
    "`id`;&|<>*?!",
    "µ λ",
    "-x",
    "%j %%",
]


@pytest.fixture(autouse=True)
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENDSCAPE_JOBS", str(tmp_path / "jobs"))
    return tmp_path / "jobs"


@pytest.fixture
def echo(tmp_path: Path) -> Path:
    """A stand-in for Python that writes down its arguments, one after each NUL."""
    path = tmp_path / "echo arguments"
    path.write_text(f'#!/bin/sh\nprintf "%s\\0" "$PWD" "$@" > {shlex.quote(str(tmp_path / "argv"))}\n')
    path.chmod(0o755)
    return path


def argv(tmp_path: Path) -> list[str]:
    return (tmp_path / "argv").read_bytes().decode().split("\0")[:-1]


def a_job(**changes: Any) -> Job:
    return replace(
        Job("/c/c.toml", "file:///c/s.zarr", "figure 1", folder="/", python=sys.executable), **changes
    )


@pytest.mark.parametrize("name", AWKWARD)
def test_the_batch_script_hands_on_any_name_as_it_is(name: str, tmp_path: Path, echo: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    job = a_job(
        name=name, file=str(folder / "c.toml"), store=(folder / "s.zarr").as_uri(), folder=str(folder),
        python=str(echo), options=("--kernel-module", name),
    )  # fmt: skip
    text = render_script(job, SlurmParameters.of({"cpus": 2, "time": "8h", "nodes": 3}), folder)
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = argv(tmp_path)
    assert told[0] == str(folder)
    assert told[told.index("--folder") + 1] == str(folder)
    assert tuple(told[told.index("--") + 1 :]) == job.command()
    assert not (folder / "pwned").exists()
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert all(len(shlex.split(line)) == 2 for line in directives), "Slurm splits and unquotes these lines"


@pytest.mark.parametrize("name", AWKWARD)
def test_the_local_script_hands_on_any_name_as_it_is(name: str, tmp_path: Path, echo: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    job = a_job(name=name, file=str(folder / "c.toml"), folder=str(folder), python=str(echo))
    text = local_script(job, LocalParameters.of({}), folder)
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert argv(tmp_path) == [str(folder), *job.command()[1:]]
    assert (folder / "exit").read_text() == "0\n"


def test_the_batch_script_is_the_one_written_here() -> None:
    told = {
        "cpus": 8, "nodes": 2, "time": "1-12:00:00", "mem": "16GB", "partition": "long", "account": "physics",
        "drain": "90s", "setup": ["module load python/3.11"], "sbatch": ["--qos=low"],
    }  # fmt: skip
    job = a_job(python="/venv/bin/python", options=("--retry-failed",))
    lines = render_script(job, SlurmParameters.of(told), Path("/jobs/1")).splitlines()
    assert [line for line in lines if "--export" not in line] == [
        "#!/bin/bash -l",
        "#SBATCH --job-name=bendscape-figure-1-5bfb6b77",
        "#SBATCH --nodes=2",
        "#SBATCH --time=1-12:00:00",
        "#SBATCH --no-kill",
        "#SBATCH --requeue",
        "#SBATCH --signal=B:USR1@90",
        "#SBATCH --dependency=singleton",
        "#SBATCH --output=log",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=15259M",
        "#SBATCH --partition=long",
        "#SBATCH --account=physics",
        "#SBATCH --open-mode=append",
        "#SBATCH --qos=low",
        "trap '' USR1 TERM  # until the line below heeds them: neither may end the job before it",
        "umask 077",
        "module load python/3.11",
        "cd / || exit 2",
        "exec /venv/bin/python -m bendscape.cluster.slurm_job --folder /jobs/1 --nodes 2 --cpus 8 "
        "--memory 16000000000 --wall-time 129600 --drain 90 --ports 20000 31999 -- /venv/bin/python "
        "-m bendscape.sweep run /c/c.toml --store file:///c/s.zarr --retry-failed",
    ]


@pytest.mark.parametrize("name", AWKWARD)
def test_the_script_of_a_replacement_joins_the_head_that_it_is_given(
    name: str, tmp_path: Path, echo: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    told = SlurmParameters.of({"cpus": 2, "time": "8h", "partition": "long", "sbatch": ["--qos=low"]})
    text = render_replacement(a_job(python=str(echo), folder=str(folder)), told, folder)
    command = ["bash", "-c", text, "bash", "10.0.0.1:20017"]
    subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert argv(tmp_path)[-2:] == ["--replace", "10.0.0.1:20017"]
    assert argv(tmp_path)[argv(tmp_path).index("--folder") + 1] == str(folder)
    assert {"#SBATCH --partition=long", "#SBATCH --qos=low", "#SBATCH --no-requeue"} <= set(text.splitlines())


@pytest.mark.parametrize("render", [render_script, render_replacement])
def test_no_variable_that_may_hold_a_secret_is_handed_to_slurm(render: Callable[..., str]) -> None:
    text = render(a_job(), SlurmParameters.of({"cpus": 1, "time": "1h"}), Path("/jobs/1"))
    (line,) = [line for line in text.splitlines() if "--export" in line]
    names = line.partition("=")[2].split(",")
    assert not [name for name in names if any(word in name for word in ("KEY", "SECRET", "TOKEN", "PASS"))]
    assert "ALL" not in names


def test_two_stores_have_two_names_and_the_same_store_one() -> None:
    assert job_name(a_job()) == job_name(a_job(options=("--retry-failed",)))
    assert job_name(a_job()) != job_name(a_job(store="file:///c/t.zarr"))


@pytest.mark.parametrize("text", ["1h30min", "1:30:00", "0-1:30", "5400s"])
def test_a_time_may_be_written_as_here_or_as_slurm_writes_it(text: str) -> None:
    assert SlurmParameters.of({"cpus": 1, "time": text}).time == 5400


def test_times_are_those_of_slurm() -> None:
    assert wall_time(61) == "0-00:02:00"
    assert wall_time(86400 + 3600) == "1-01:00:00"
    assert seconds_left("1-02:03:04") == 93784
    assert seconds_left("2:03") == 123
    assert seconds_left("1:02:03") == 3723
    assert seconds_left("UNLIMITED") == float("inf")
    with pytest.raises(ValueError, match="NOT_SET"):
        seconds_left("NOT_SET")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"nods": 2}, "one of cpus, time, nodes, mem, partition, account, drain, setup, credentials, sbatch, "
                      "ports; did you mean 'nodes'?"),
        ({}, "cpus must be given"),
        ({"cpus": 0}, "cpus must be greater than or equal to 1"),
        ({"cpus": 1, "time": "soon"}, "time must be a time such as 8h"),
        ({"cpus": 1, "time": "1h", "partition": "a b"}, "partition must be a name of letters"),
        ({"cpus": 1, "time": "1h", "partition": "a\n#SBATCH --uid=0"}, "partition must be a name of letters"),
        ({"cpus": 1, "time": "1h", "mem": "much"}, "mem must be bytes with a unit"),
        ({"cpus": 1, "time": "1h", "sbatch": ["--export=ALL"]}, "an option of sbatch"),
        ({"cpus": 1, "time": "1h", "sbatch": ["--qos=a\nb"]}, "an option of sbatch"),
        ({"cpus": 1, "time": "1h", "setup": ["a\nb"]}, "one line of shell"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_one_line_that_says_what_is_right(told: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError) as error:
        SlurmParameters.of({"time": "1h", **told} if told else {"time": "1h"})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_credentials_must_be_private(tmp_path: Path) -> None:
    file = tmp_path / "it's mine"
    file.write_text("AWS_SECRET_ACCESS_KEY=planted\n")
    file.chmod(0o640)
    told = {"cpus": 1, "time": "1h", "credentials": str(file)}
    with pytest.raises(ParameterError, match="chmod 600"):
        SlurmParameters.of(told)
    file.chmod(0o600)
    text = render_script(a_job(), SlurmParameters.of(told), tmp_path)
    assert f"set -a; . {shlex.quote(str(file))}; set +a" in text
    assert "planted" not in text


def test_credentials_of_the_shell_are_not_handed_over_in_silence(
    monkeypatch: pytest.MonkeyPatch, jobs: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    with pytest.raises(ParameterError, match="--credentials") as error:
        Slurm({"cpus": 1, "time": "1h"}, ask=FakeSlurm()).submit(a_job(store="s3://bucket/s.zarr"))
    assert "planted" not in str(error.value)
    assert not list(jobs.iterdir())


class FakeSlurm:
    """Answers as Slurm's commands do, and counts the questions."""

    def __init__(self, squeue: str = "", sacct: str | None = None) -> None:
        self.answers = {"sbatch": "77;west\n", "squeue": squeue, "scancel": ""}
        self.sacct = sacct
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *command: str, folder: Path | None = None) -> str:
        self.asked.append(command)
        if command[0] == "sacct":
            if self.sacct is None:
                raise OSError("sacct: Slurm accounting storage is disabled")
            return self.sacct
        return self.answers[command[0]]


def submitted(fake: FakeSlurm, rounds: list[int]) -> Slurm:
    slurm = Slurm({"cpus": 1, "time": "1h"}, ask=fake)
    assert slurm.submit(a_job()) == "77"
    (folder,) = (path.parent for path in Path(os.environ["BENDSCAPE_JOBS"]).glob("*/job.json"))
    lines = [json.dumps({"exit_code": code, "fruitless": False}) for code in rounds]
    (folder / "rounds.jsonl").write_text("\n".join(lines))
    return slurm


@pytest.mark.parametrize(
    ("squeue", "sacct", "rounds", "expected"),
    [
        ("77|PENDING|0|Priority|", None, [], State("waiting", "PENDING, Priority")),
        ("77|PENDING|0|BeginTime|", None, [75], State("waiting", "PENDING, BeginTime, after 1 round")),
        ("77|RUNNING|0|None|", None, [75, 75], State("running", "RUNNING, after 2 rounds")),
        ("77|COMPLETED|0|None|", None, [75, 0], State("complete", "COMPLETED, after 2 rounds", 0)),
        ("77|FAILED|256|None|", None, [1], State("failed cells", "FAILED, after 1 round", 1)),
        ("77|FAILED|512|NonZeroExitCode|", None, [], State("failed", "FAILED, NonZeroExitCode", 2)),
        ("77|CANCELLED|0|None|", None, [75], State("cancelled", "CANCELLED, after 1 round")),
        ("77|NODE_FAIL|0|None|", None, [], State("failed", "NODE_FAIL")),
        ("77|TIMEOUT|0|TimeLimit|", None, [75], State("work left", "TIMEOUT, TimeLimit, after 1 round", 75)),
        ("", "77|CANCELLED by 1000|0:15\n", [], State("cancelled", "CANCELLED")),
        ("", "77|COMPLETED|0:0\n", [], State("complete", "COMPLETED", 0)),
        ("", "77|FAILED|2:0\n", [], State("failed", "FAILED", 2)),
        ("", "77|FAILED|0:9\n", [], State("failed", "FAILED", -9)),
        ("", None, [0], State("complete", "after 1 round", 0)),
        ("", None, [75, 3], State("target unreachable", "after 2 rounds", 3)),
        ("", None, [], State("unknown")),
        ("78|RUNNING|0|None|", None, [], State("unknown")),
    ],
)  # fmt: skip
def test_states_are_read_from_what_slurm_says_and_the_job_wrote(
    squeue: str, sacct: str | None, rounds: list[int], expected: State
) -> None:
    assert submitted(FakeSlurm(squeue, sacct), rounds).state("77") == expected


def test_many_jobs_are_one_question() -> None:
    fake = FakeSlurm("\n".join(f"{k}|RUNNING|0|None|" for k in range(100)))
    states = Slurm({}, ask=fake).states([str(k) for k in range(100)])
    assert {state.word for state in states.values()} == {"running"}
    assert [command[0] for command in fake.asked] == ["squeue"]


def test_where_there_is_no_slurm_submitting_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.toml").write_text(SMALL)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = bendscape("submit", "slurm", tmp_path / "c.toml", "--cpus", 1, "--time", "1h")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "sbatch" in done.stderr


SMALL = campaign_text(N=[32], p=[1], alpha=[1.0], seeds=2).replace('kernel = "probe"\n', "")


def test_a_dry_run_prints_the_script_and_does_nothing(tmp_path: Path, jobs: Path) -> None:
    (tmp_path / "c.toml").write_text(SMALL)
    done = bendscape("submit", "slurm", tmp_path / "c.toml", "--cpus", 1, "--time", "1h", "--dry-run")
    assert done.returncode == 0
    assert done.stdout.startswith("#!/bin/bash -l\n#SBATCH --job-name=bendscape-probe-")
    assert not jobs.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--retry-faild"], "--retry-failed"),
        (["--address", "ray"], "other than --address"),
        (["--store=x"], "--store"),
    ],
)
def test_options_of_the_run_are_checked_before_anything_waits_in_a_queue(
    options: list[str], words: str, tmp_path: Path, jobs: Path
) -> None:
    (tmp_path / "c.toml").write_text(SMALL)
    done = bendscape("submit", "local", tmp_path / "c.toml", "--", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert not jobs.exists()


@pytest.mark.parametrize(
    "where",
    [
        ("slurm", "--cpus", 1, "--time", "1h"),
        ("kuberay", "--image", "i", "--store", "s3://bucket/s.zarr"),
    ],
    ids=lambda words: words[0],
)
def test_core_hours_of_a_job_with_several_runs_need_a_label(
    where: tuple[object, ...], tmp_path: Path
) -> None:
    (tmp_path / "c.toml").write_text(SMALL)
    call = ("submit", where[0], tmp_path / "c.toml", *where[1:], "--dry-run", "--", "--core-hours")
    refused = bendscape(*call, 40)
    assert refused.returncode == 2
    assert "LABEL=40" in refused.stderr
    accepted = bendscape(*call, "night=40")
    assert accepted.returncode == 0, accepted.stderr
    assert "night=40" in accepted.stdout


@pytest.mark.parametrize("command", [("submit", "local"), ("schedule", "install")], ids=" ".join)
def test_an_option_of_the_run_that_is_not_behind_dashes_is_told_where_it_belongs(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    told = bendscape(*command, tmp_path / "c.toml", "--retry-failed")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert told.stderr.endswith("; options of `bendscape run` follow after --\n")
    assert "after --" not in bendscape("plan", tmp_path / "c.toml", "--retry-faild").stderr


def test_waiting_for_a_job_outlasts_a_scheduler_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Flaky(Local):
        answers = iter(
            [OSError("squeue did not answer"), State("running"), OSError("gone"), State("complete", "", 0)]
        )

        def submit(self, job: Job) -> str:
            return "7"

        def states(self, ids: Sequence[str]) -> dict[str, State]:
            answer = next(self.answers)
            if isinstance(answer, OSError):
                raise answer
            return dict.fromkeys(ids, answer)

    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(typer.Exit) as left:
        hand_over(Flaky({}), a_job(), dry_run=False, wait=True, json=False)
    assert left.value.exit_code == 0
    assert "unknown (squeue did not answer)" in capsys.readouterr().err
    assert pauses == sorted(pauses)


def test_an_unknown_place_is_refused_with_those_there_are() -> None:
    with pytest.raises(ParameterError, match="one of local, slurm"):
        place("slrum")


# ---- a node of Ray


def a_node(**changes: Any) -> Node:
    return Node("10.0.0.2", "10.0.0.1:20001", False, 4, 10**9, "/tmp/b/j1-1")._replace(**changes)


def test_every_port_of_a_node_is_named() -> None:
    ports = list(range(30000, 30000 + services(4)))
    for node in (a_node(), a_node(first=True, client=True)):
        command = ray_start(node, ports)
        named = [part.partition("=") for part in command if "port" in part]
        told = [int(port) for _, _, value in named for port in value.split(",") if value]
        assert len(set(told)) == len(told)
        assert set(told) <= {*ports, 20001}
        assert {name for name, _, _ in named} >= {
            *("--node-manager-port", "--object-manager-port", "--runtime-env-agent-port"),
            *("--dashboard-agent-grpc-port", "--dashboard-agent-listen-port", "--metrics-export-port"),
            "--worker-port-list",
        }
    assert "--include-dashboard=false" in command


def test_ports_that_somebody_listens_on_are_left_alone() -> None:
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        assert free_ports(1, "127.0.0.1", (port, port + 20)) != [port]
        with pytest.raises(ParameterError, match="a span with 1 free ports"):
            free_ports(1, "127.0.0.1", (port, port))


def test_folders_of_nodes_that_were_killed_are_swept_and_those_of_others_are_not(tmp_path: Path) -> None:
    import socket

    dead, young, living = (tmp_path / name for name in ("j1-0", "j2-0", "j3-0"))
    for folder in (dead, young, living):
        (folder / "session_latest" / "sockets").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as raylet:
        here = os.getcwd()
        os.chdir(living / "session_latest" / "sockets")  # the path of a socket is short
        raylet.bind("raylet")
        os.chdir(here)
        raylet.listen()
        for folder in (dead, living):
            os.utime(folder, (0, 0))
        os.symlink(tmp_path, link := Path(tempfile.mkdtemp()) / "l")
        sweep(link / folder.name for folder in (dead, young, living))
        link.unlink()
        link.parent.rmdir()
    assert [folder.exists() for folder in (dead, young, living)] == [False, True, True]


# ---- this machine


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Callable[..., tuple[Local, Job]]]:
    made: list[Local] = []

    def make(body: str, **grid: Any) -> tuple[Local, Job]:
        module = write_kernel(tmp_path, body)
        told = {"p": [1], "N": [64], "a": [0.7], "alpha": [1.0], "seeds": 8, **grid}
        (tmp_path / "c.toml").write_text(campaign_text(**told))
        store = (tmp_path / "s.zarr").as_uri()
        options = ("--kernel-module", module)
        made.append(Local({"workers": 1}))
        return made[0], Job(str(tmp_path / "c.toml"), store, "it's", options=options, folder=str(tmp_path))

    yield make
    for record in records():
        made[0].cancel(record.id)


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_job_on_this_machine_outlives_its_command_and_is_shown_beside_the_cells(
    local: Callable[..., tuple[Local, Job]], jobs: Path
) -> None:
    here, job = local("return Outcome({'x': 1.0})")
    id = here.submit(job)
    until(lambda: here.state(id).ended)
    assert here.state(id) == State("complete", "", 0)
    assert "complete: 8 of 8 cells" in here.log(id)
    (shown,) = status(job.store, kernel_modules=job.options[1:])["jobs"]
    assert (shown["id"], shown["place"], shown["state"]) == (id, "local", "complete")
    for path in [jobs, jobs / id, *(jobs / id).iterdir()]:
        assert not path.stat().st_mode & 0o077, path


def test_a_cancelled_job_keeps_what_it_recorded(local: Callable[..., tuple[Local, Job]]) -> None:
    here, job = local("time.sleep(0.2)\nreturn Outcome({'x': 1.0})", seeds=400)
    id = here.submit(job)
    until(lambda: "cells" in here.log(id))
    assert here.state(id).word == "running"
    here.cancel(id)
    until(lambda: here.state(id).ended)
    assert here.state(id).word == "cancelled"
    assert here.state(id).exit_code == 75
    here.cancel(id)  # again: no error


def test_a_job_that_was_killed_is_said_to_have_failed(
    local: Callable[..., tuple[Local, Job]], jobs: Path
) -> None:
    here, job = local("time.sleep(0.2)\nreturn Outcome({'x': 1.0})", seeds=400)
    id = here.submit(job)
    until(lambda: "cells" in here.log(id))
    os.killpg(int((jobs / id / "process").read_text().split()[0]), signal.SIGKILL)
    until(lambda: here.state(id).ended)
    assert here.state(id).word == "failed"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only ps says when a process started")
def test_a_clock_that_is_set_makes_no_job_on_this_machine_look_killed(
    local: Callable[..., tuple[Local, Job]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The date at which ps says that a process started moves with the clock: here at each call.
    ps = tmp_path / "bin" / "ps"
    ps.parent.mkdir()
    ps.write_text("#!/bin/sh\necho S `date +%s%N`\n")
    ps.chmod(0o700)
    monkeypatch.setenv("PATH", f"{ps.parent}:{os.environ['PATH']}")
    here, job = local("time.sleep(0.2)\nreturn Outcome({'x': 1.0})", seeds=400)
    id = here.submit(job)
    until(lambda: "cells" in here.log(id))
    assert here.state(id).word == "running"


def test_a_place_that_does_not_answer_does_not_hide_the_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(FakeSlurm(), [])
    monkeypatch.setenv("PATH", "/nowhere")
    (shown,) = jobs_of(a_job().store)
    assert shown["state"] == "unknown"
    assert "squeue" in shown["detail"]


def test_every_parameter_of_a_place_is_an_option_of_its_command() -> None:
    import inspect

    from bendscape.cluster import commands

    models: dict[str, type[Parameters]] = {"local": LocalParameters, "slurm": SlurmParameters}
    for name, model in models.items():
        options = inspect.signature(getattr(commands, f"submit_{name}")).parameters
        assert set(model.model_fields) <= set(options), name
