"""What is handed to cron, systemd, scrontab and Kubernetes: as text, through a real shell, and taken back."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import bendscape

from bendscape.cluster import schedule_timers
from bendscape.cluster.kuberay import KubeRay
from bendscape.cluster.schedule import Schedule, every, load, path_of
from bendscape.cluster.schedule_timers import TIMERS, Table, command, mark, units, word
from bendscape.core.errors import ParameterError
from bendscape.sweep.location import store_url
from campaigns import RANDOM, campaign_text, zone_far_from_midnight

KernelFile = Callable[..., str]
NASTY = [
    "plain/file.json",
    "with space.json",
    'it\'s "quoted".json',
    "100% sure %s %%.json",
    "line\nbreak.json",
    "back\\slash \\045 \\n.json",
    "$HOME `id` $(id) ${x} !! *?[a] ~ # ; & | < > ( ) .json",
    "größe.json",
    "bad \udce9 bytes.json",
    "-dash=.json",
    "\ttab.json",
]
NIGHTS = Schedule(
    name="nights", timer="cron", file="/c.toml", store="file:///none", rules=("mon-fri 20:00-06:00",),
    zone="Europe/Berlin", python=sys.executable, installed=1.8e9,
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where schedules and units are kept, and the clock that timers see."""
    monkeypatch.setenv("BENDSCAPE_SCHEDULES", str(tmp_path / "schedules"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(schedule_timers, "local_zone", lambda: "UTC")
    return tmp_path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands in the place of crontab, scrontab, systemctl and loginctl: they keep a table, or a log."""
    programs = tmp_path / "tools"
    programs.mkdir()
    for tool, read, write in (
        ("crontab", "echo 'no crontab for me' >&2", "-) cat > TABLE;;"),
        # As Slurm's: it says so on standard output, and takes a table only from an editor.
        ("scrontab", "echo 'no crontab for me'", '-e) touch TABLE; "$VISUAL" TABLE;;'),
    ):
        body = (
            f'case "$1" in -l) [ -e TABLE ] && exec cat TABLE; {read}; exit 1;; {write} -r) rm TABLE;; esac'
        )
        write_tool(programs / tool, body.replace("TABLE", f"'{tmp_path / tool}'"))
    write_tool(programs / "systemctl", f"echo \"$@\" >> '{tmp_path}/systemctl.log'")
    write_tool(programs / "loginctl", "echo no")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return programs


def write_tool(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def cron_reads(line: str) -> str:
    """The command that cron makes of a line: five fields off, \\% is %, and % would be a line break."""
    text = line.split(None, 5)[5].rstrip("\n")
    assert not re.search(r"(?<!\\)%", text), "cron would cut the command here"
    return text.replace("\\%", "%")


def words_of(shell_text: str, shell: str = "/bin/sh") -> list[str]:
    """What a shell makes of a command line."""
    show = "import sys, os; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    script = shell_text.replace(f"exec {word(NIGHTS.python)}", f'exec "{sys.executable}" -c "{show}"')
    done = subprocess.run([shell, "-c", script], capture_output=True, timeout=60, check=True)
    return [os.fsdecode(part) for part in done.stdout.split(b"\0")]


def nasty_schedule(monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    path = Path("/some where") / name
    monkeypatch.setattr(schedule_timers, "path_of", lambda _: path)
    return path


@pytest.mark.parametrize("name", NASTY)
def test_any_path_comes_through_a_crontab_a_scrontab_and_a_unit(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = nasty_schedule(monkeypatch, name)
    wanted = ["-P", "-m", "bendscape.sweep", "schedule", "run", "--log", str(path)]
    (line,) = TIMERS["cron"].render(NIGHTS).splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert words_of(cron_reads(line)) == wanted
    *options, of_job = TIMERS["scrontab"].render(replace(NIGHTS, timer="scrontab")).splitlines()
    assert all(option.startswith("#SCRON --") for option in options)
    assert words_of(of_job.split(None, 5)[5]) == wanted
    service = units(NIGHTS)["bendscape-nights.service"]
    (start,) = [one for one in service.splitlines() if one.startswith("ExecStart=")]
    assert words_of(systemd_reads(start.removeprefix("ExecStart=/bin/sh -c "))) == wanted


def systemd_reads(argument: str) -> str:
    """One quoted argument of ExecStart: C escapes, %% and $$ undone; anything else with % or $ is refused."""
    assert argument[0] == argument[-1] == '"'
    text = re.sub(r"\\([\\\"])", r"\1", argument[1:-1])
    assert not re.search(r"(?<!%)%(%%)*(?!%)", text)
    return text.replace("%%", "%").replace("$$", "$")


def test_a_name_that_no_shell_word_can_hold_is_refused() -> None:
    for text in ("", "ends\n"):
        with pytest.raises(ParameterError, match="does not end in a line break"):
            word(text)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="only systemd can verify its units")
@pytest.mark.parametrize("name", [NASTY[0], NASTY[4], NASTY[6]])
def test_systemd_finds_no_fault_with_the_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    nasty_schedule(monkeypatch, name)
    for unit, text in units(NIGHTS).items():
        (tmp_path / unit).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.glob("bendscape-*")))],
        capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "bendscape" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


# -- tables of others


OTHERS = "MAILTO=me\nCRON_TZ=Asia/Tokyo\nSHELL=/bin/csh\n"
OTHERS += "# my own\n0 4 * * * /backup --to 'x' 50\\% # bendscape schedule nights\n"


@pytest.mark.parametrize("tool", ["crontab", "scrontab"])
def test_installing_twice_is_once_and_removing_leaves_the_lines_of_others_byte_by_byte(
    tools: Path, tmp_path: Path, tool: str
) -> None:
    table, timer = tmp_path / tool, Table(tool)
    others = OTHERS.encode() + b"#SCRON --mem=1G\n5 5 * * * caf\xe9\r\n@reboot no newline"
    table.write_bytes(others)
    other = replace(NIGHTS, name="weekends")
    timer.install(NIGHTS)
    timer.install(other)
    once = table.read_bytes()
    timer.install(NIGHTS)
    timer.install(replace(NIGHTS, every=30))
    assert sorted(table.read_bytes().splitlines()) != sorted(once.splitlines()) or tool == "scrontab"
    timer.install(NIGHTS)
    assert sorted(table.read_bytes().splitlines()) == sorted(once.splitlines())
    assert once.endswith(others), "and their variables hold for their lines alone"
    assert once.count(b"schedule run --log") == 2
    assert timer.present(NIGHTS)
    timer.remove(other)
    assert not timer.present(other)
    assert timer.present(NIGHTS)
    timer.remove(NIGHTS)
    timer.remove(NIGHTS)
    assert table.read_bytes() == others


def test_a_crontab_that_held_nothing_else_is_gone_again(tools: Path, tmp_path: Path) -> None:
    timer = Table("crontab")
    timer.install(NIGHTS)
    assert (tmp_path / "crontab").read_text() == timer.render(NIGHTS)
    timer.remove(NIGHTS)
    assert not (tmp_path / "crontab").exists()


def test_a_crontab_that_cannot_be_read_is_not_written(tools: Path, tmp_path: Path) -> None:
    write_tool(
        tools / "crontab", f"[ \"$1\" = -l ] || touch '{tmp_path}/written'; echo not allowed >&2; exit 1"
    )
    for change in (Table("crontab").install, Table("crontab").remove):
        with pytest.raises(OSError, match="crontab -l: not allowed"):
            change(NIGHTS)
    assert not (tmp_path / "written").exists()


def test_options_of_a_scrontab_job_come_before_its_line_and_its_time_is_that_of_the_longest_window() -> None:
    job = replace(NIGHTS, timer="scrontab", place={"options": ["--partition=long", "--cpus-per-task=8"]})
    *options, line = TIMERS["scrontab"].render(job).splitlines()
    assert options == [
        "#SCRON --job-name=bendscape-nights",
        "#SCRON --output=/dev/null",
        "#SCRON --time=600",
        "#SCRON --partition=long",
        "#SCRON --cpus-per-task=8",
    ]
    assert line.startswith("0 18,19 * * 1-5 exec "), "Berlin's winter and summer on a clock in UTC"
    own = replace(job, place={"options": ["--time=1-0"]})
    assert TIMERS["scrontab"].render(own).count("--time") == 1
    for option in ("long", "--x\n1 1 * * * rm", "--comment=a b"):
        with pytest.raises(ParameterError, match="one option of sbatch"):
            TIMERS["scrontab"].render(replace(job, place={"options": [option]}))


def test_a_scrontab_that_refuses_its_lines_is_an_error_although_it_ends_with_0(
    tools: Path, tmp_path: Path
) -> None:
    body = 'if [ "$1" = -l ]; then echo no crontab for me; exit 1; fi; read said; echo "errors, $said"'
    write_tool(tools / "scrontab", body)
    with pytest.raises(OSError, match="scrontab: errors, n"):
        Table("scrontab").install(replace(NIGHTS, timer="scrontab"))


def test_lines_of_a_scrontab_that_were_disabled_are_found_again(tools: Path, tmp_path: Path) -> None:
    timer = Table("scrontab")
    lines = timer.render(NIGHTS).splitlines()
    (tmp_path / "scrontab").write_text("".join(f"#DISABLED: {line}\n" for line in lines) + "# mine\n")
    timer.remove(NIGHTS)
    assert (tmp_path / "scrontab").read_text() == "# mine\n"


# -- systemd


def test_units_are_written_for_the_owner_alone_started_and_deleted_again(tools: Path, tmp_path: Path) -> None:
    timer, folder = TIMERS["systemd"], tmp_path / "config/systemd/user"
    timer.install(NIGHTS)
    timer.install(NIGHTS)
    assert {path.name for path in folder.iterdir()} == set(units(NIGHTS))
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())
    assert timer.present(NIGHTS)
    assert not timer.present(replace(NIGHTS, every=30)), "another calendar"
    (folder / "own.timer").write_text("mine")
    timer.remove(NIGHTS)
    timer.remove(NIGHTS)
    assert [path.name for path in folder.iterdir()] == ["own.timer"]
    told = (tmp_path / "systemctl.log").read_text().splitlines()
    assert told == [
        *(["--user daemon-reload", "--user enable --now bendscape-nights.timer"] * 2),
        "--user is-active --quiet bendscape-nights.timer",
        "--user disable --now bendscape-nights.timer",
        "--user daemon-reload",
    ]


def test_a_unit_of_the_same_name_that_is_not_ours_is_left_alone(tools: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "config/systemd/user/bendscape-nights.timer"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[Timer]\n")
    with pytest.raises(ParameterError, match="not of this schedule"):
        TIMERS["systemd"].install(NIGHTS)
    TIMERS["systemd"].remove(NIGHTS)
    assert theirs.read_text() == "[Timer]\n"


def test_a_systemd_that_refuses_leaves_no_unit_behind(tools: Path, tmp_path: Path) -> None:
    write_tool(tools / "systemctl", "echo 'Failed to connect to bus' >&2; exit 1")
    with pytest.raises(OSError, match="systemctl --user daemon-reload: Failed to connect to bus"):
        TIMERS["systemd"].install(NIGHTS)
    assert not list((tmp_path / "config/systemd/user").iterdir())


def test_a_service_has_longer_to_stop_than_its_run_waits_for_tasks() -> None:
    patience = {"": 360, "--grace=20min": 1260, "--grace 1h": 3660}
    for options, seconds in patience.items():
        texts = units(replace(NIGHTS, options=tuple(options.split())))
        assert f"TimeoutStopSec={seconds}\n" in texts["bendscape-nights.service"]


# -- Kubernetes


@pytest.fixture
def kubectl(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What the place of KubeRay is asked to do, instead of what kubectl would be."""
    asked: list[tuple[str, ...]] = []

    def install(_: KubeRay, name: str, text: str, store: str) -> str:
        asked.append(("install", name, text))
        return f"context/namespace/{name}"

    monkeypatch.setattr(KubeRay, "install", install)
    monkeypatch.setattr(KubeRay, "remove", lambda _, id: asked.append(("remove", id)))
    return asked


def campaign(folder: Path, **changes: Any) -> Path:
    file = folder / "a 'b' %\nc.toml"
    file.write_text(campaign_text(**{"N": [64], "a": [0.7], "p": [1], "alpha": [0.8], **changes}))
    return file


def test_a_cron_job_looks_through_the_window_and_its_driver_asks_the_schedule(
    kubectl: list[tuple[str, ...]], tmp_path: Path, kernel_file: KernelFile
) -> None:
    file, module, zone = campaign(tmp_path), kernel_file(RANDOM), zone_far_from_midnight()
    shown = bendscape(
        *("schedule", "install", file, "--kubernetes", "--window", "always", "--time-zone", zone),
        *("--core-hours", 500, "--window-core-hours", 40, "--store", "s3://bucket/it's", "--name", "kube"),
        *("--place", "image=i:1", "--place", "secrets=keys", "--place", "secrets=more", "--place", "nodes=2"),
        *("--", "--kernel-module", module),
    )
    assert shown.returncode == 0, shown.stderr
    assert load("kube").id == "context/namespace/kube"
    ((_, name, text),) = kubectl
    documents = {one["kind"]: one for one in yaml.safe_load_all(text)}
    cron, data = documents["CronJob"]["spec"], documents["ConfigMap"]["data"]
    assert (name, cron["schedule"], cron["timeZone"]) == ("kube", "0,15,30,45 * * * *", zone)
    assert (cron["startingDeadlineSeconds"], cron["concurrencyPolicy"]) == (900, "Forbid")
    driver, question = json.loads(data["command.json"]), json.loads(data["due.json"])
    assert driver[:6] == question[:6]
    assert (driver[6:], question[6:]) == (["--", "--grace", "300s"], ["--ask"])
    inside = Schedule.from_json(driver[5])
    assert (inside.file, inside.store) == ("/etc/bendscape/campaign.toml", "s3://bucket/it's")
    assert (inside.core_hours, inside.window_core_hours, inside.folder) == (500, 40, "")
    # In the pod: the question, the driver with what the pod appends, and the question again.
    here = replace(
        inside, file=str(file), store=store_url(tmp_path / "s.zarr"), options=("--kernel-module", module)
    ).to_json()
    call = driver[3:5]
    assert bendscape(*call, here, "--ask").returncode == 0
    ran = bendscape(*call, here, *driver[6:], "--address", "serial")
    assert ran.returncode == 0, ran.stderr
    assert bendscape(*call, here, "--ask").returncode == 1
    assert bendscape("schedule", "remove", "kube").returncode == 0
    assert kubectl[1:] == [("remove", "context/namespace/kube")]


def test_a_cron_job_takes_no_file_of_credentials_and_no_misspelt_parameter(
    kubectl: list[tuple[str, ...]], tmp_path: Path, kernel_file: KernelFile
) -> None:
    options = ("--", "--kernel-module", kernel_file(RANDOM))
    install = ("schedule", "install", campaign(tmp_path), "--kubernetes", "--store", tmp_path / "s.zarr")
    secret = bendscape(*install, "--window", "nights", "--credentials", "x", *options)
    assert (secret.returncode, "name a Secret: --place secrets=NAME" in secret.stderr) == (2, True)
    wrong = bendscape(*install, "--window", "nights", "--place", "imgae=x", *options)
    assert (wrong.returncode, "did you mean 'image'?" in wrong.stderr) == (2, True), wrong.stderr
    assert (every(), kubectl) == ([], [])


def test_a_schedule_that_moves_to_another_namespace_leaves_nothing_in_the_first(
    kubectl: list[tuple[str, ...]], tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(at: KubeRay, name: str, text: str, store: str) -> str:
        kubectl.append(("install", at.parameters.namespace))
        return f"context/{at.parameters.namespace}/{name}"

    monkeypatch.setattr(KubeRay, "install", install)
    call = ("schedule", "install", campaign(tmp_path), "--kubernetes", "--store", "s3://bucket/s.zarr")
    call = (*call, "--name", "kube", "--window", "nights", "--place", "image=i")
    options = ("--", "--kernel-module", kernel_file(RANDOM))
    for namespace in ("one", "two", "two"):
        done = bendscape(*call, "--place", f"namespace={namespace}", *options)
        assert done.returncode == 0, done.stderr
    assert kubectl == [
        ("install", "one"),
        ("install", "two"),
        ("remove", "context/one/kube"),
        ("install", "two"),
    ]
    assert load("kube").id == "context/two/kube"


# -- the commands


@pytest.fixture
def installed(tools: Path, tmp_path: Path, kernel_file: KernelFile) -> Callable[..., Any]:
    """`schedule install` of a campaign, with a planted secret at hand."""
    file, module = campaign(tmp_path), kernel_file(RANDOM)
    secret = tmp_path / "secret"
    secret.write_text("AWS_SECRET_ACCESS_KEY=planted-secret\n")
    secret.chmod(0o600)

    def install(*options: object, store: Path = tmp_path / "s.zarr") -> Any:
        return bendscape(
            *("schedule", "install", file, "--store", store, "--window", "always"),
            *("--time-zone", zone_far_from_midnight(), "--name", "mine", "--credentials", secret),
            *(*options, "--", "--kernel-module", module),
        )

    return install


def test_a_schedule_is_installed_listed_run_and_removed(
    installed: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert installed("--cron").returncode == 0
    assert installed("--cron", "--core-hours", 5).returncode == 0
    table = (tmp_path / "crontab").read_text()
    assert table.count("\n") == 1
    ran = bendscape("schedule", "run", "mine", "--", "--address", "serial")
    assert ran.returncode == 0, ran.stderr
    (told,) = json.loads(bendscape("schedule", "list", "--json").stdout)["schedules"]
    assert (told["installed"], told["errors"], told["missed"]) == (True, [], 0)
    assert told["past"][-1]["state"] == "complete"
    assert told["past"][-1]["cells"] == 6
    assert told["core_hours"]["left"] == pytest.approx(5 - told["core_hours"]["used"])
    shown = bendscape("schedule", "list", "mine").stdout
    assert "next start" in shown
    assert "core-hours in all" in shown
    (tmp_path / "crontab").unlink()
    assert "its timer is not there any more" in bendscape("schedule", "list").stdout
    assert bendscape("schedule", "remove", "mine").returncode == 0
    assert (every(), bendscape("schedule", "list", "--json").stdout) == ([], '{\n  "schedules": []\n}\n')
    assert (tmp_path / "s.zarr/zarr.json").exists(), "the store is kept"


def test_a_store_that_was_moved_is_not_begun_anew_with_a_budget_anew(
    installed: Callable[..., Any], tmp_path: Path
) -> None:
    assert installed("--cron", "--core-hours", 5).returncode == 0
    run = ("schedule", "run", str(path_of("mine")), "--", "--address", "serial")
    assert bendscape(*run).returncode == 0
    assert "nothing is left to compute" in bendscape(*run).stderr
    (tmp_path / "s.zarr").rename(tmp_path / "moved.zarr")  # or the disk is not mounted
    gone = bendscape(*run)
    assert (gone.returncode, "where it was when this schedule last ran" in gone.stderr) == (2, True)
    assert not (tmp_path / "s.zarr").exists()
    (told,) = json.loads(bendscape("schedule", "list", "--json").stdout)["schedules"]
    assert (told["core_hours"], "where it was" in told["errors"][0]) == (None, True)
    (tmp_path / "moved.zarr").rename(tmp_path / "s.zarr")
    assert bendscape(*run).returncode == 0
    (tmp_path / "s.zarr").rename(tmp_path / "kept.zarr")
    assert installed("--cron", "--core-hours", 5).returncode == 0
    assert bendscape(*run).returncode == 0, "installed again, it begins anew"
    assert (tmp_path / "s.zarr").exists()
    assert bendscape("schedule", "remove", "mine").returncode == 0


def test_a_store_or_a_file_that_cannot_be_read_is_told_and_hides_no_other_schedule(
    installed: Callable[..., Any], tmp_path: Path
) -> None:
    assert installed("--cron").returncode == 0
    (tmp_path / "schedules/odd.json").write_text('{"of": "another version"}')
    damaged = tmp_path / "s.zarr/ledger/segments"
    damaged.mkdir(parents=True)
    (damaged / "000001-000001.jsonl").write_text("{half a li")
    told = bendscape("schedule", "list", "--json")
    (one,) = json.loads(told.stdout)["schedules"]
    assert "odd.json is no schedule" in told.stderr
    assert "000001-000001.jsonl of the store is damaged" in one["errors"][0]
    assert (one["past"], one["core_hours"], one["missed"]) == (None, None, None), "unknown, and not nothing"
    assert one["next_start"]
    assert "the store cannot be read" in bendscape("schedule", "list").stdout


def test_a_schedule_moves_from_one_timer_to_another_but_not_to_another_store(
    installed: Callable[..., Any], tmp_path: Path
) -> None:
    assert installed("--cron").returncode == 0
    moved = installed("--systemd")
    assert (moved.returncode, "loginctl enable-linger" in moved.stderr) == (0, True), moved.stderr
    assert not (tmp_path / "crontab").exists()
    other = installed("--systemd", store=tmp_path / "other.zarr")
    assert (other.returncode, "the schedule of this name is of file://" in other.stderr) == (2, True)
    assert load("mine").store == store_url(tmp_path / "s.zarr")


def test_a_timer_that_cannot_be_installed_leaves_things_as_they_were(
    installed: Callable[..., Any], tools: Path, tmp_path: Path
) -> None:
    write_tool(tools / "crontab", "echo no >&2; exit 1")
    failed = installed("--cron")
    assert (failed.returncode, failed.stderr.count("\n")) == (74, 1)
    assert every() == []
    assert installed("--systemd", "--core-hours", 7).returncode == 0
    write_tool(tools / "systemctl", "exit 1")
    assert installed("--systemd", "--core-hours", 8).returncode == 74
    assert load("mine").core_hours == 7


def test_no_credential_is_in_anything_that_is_written_and_all_of_it_is_its_owners_alone(
    installed: Callable[..., Any], tmp_path: Path
) -> None:
    for timer in ("--cron", "--scrontab", "--systemd"):
        assert installed(timer).returncode == 0
        written = [tmp_path / "crontab", tmp_path / "scrontab"]
        written += [*tmp_path.glob("schedules/*"), *tmp_path.glob("config/systemd/user/*")]
        texts = [path.read_bytes() for path in written if path.exists()]
        assert len(texts) >= 2
        assert not any(b"planted-secret" in text or b"AWS_" in text for text in texts)
    assert stat.S_IMODE(path_of("mine").stat().st_mode) == 0o600
    assert stat.S_IMODE(path_of("mine").parent.stat().st_mode) == 0o700
    assert "planted-secret" not in command(load("mine"), path_of("mine"))
    assert mark(load("mine")) in (tmp_path / "config/systemd/user/bendscape-mine.timer").read_text()
    (tmp_path / "secret").chmod(0o644)
    for asked in (installed("--cron"), bendscape("schedule", "run", "mine")):
        assert (asked.returncode, "nobody else can read" in asked.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "timer must be exactly one of --systemd, --cron, --scrontab and --kubernetes"),
        (("--cron", "--systemd"), "timer must be exactly one of"),
        (("--cron", "--every", 7), "--every must be minutes that divide an hour"),
        (("--cron", "--core-hours", 0), "--core-hours must be core-hours > 0"),
        (("--cron", "--window-core-hours", "nan"), "--window-core-hours must be core-hours > 0"),
        (("--cron", "--name", "A b"), "--name must be 1 to 40 lower-case letters"),
        (("--cron", "--scron=--x"), "--scron must be absent without --scrontab"),
        (("--cron", "--place", "image=x"), "--place must be absent without --kubernetes"),
        (("--kubernetes", "--place", "image"), "--place must be NAME=VALUE"),
        (("--cron", "--credentials", "/nowhere"), "--credentials must be a file of NAME=VALUE lines"),
        (("--cron", "--", "--time-budget", "1h"), "an option of `bendscape run` other than --store"),
        (("--cron", "--", "--grace", "soon"), "--grace must be a time"),
        (("--cron", "--", "--wokers", "1"), "No such option: --wokers"),
    ],
)
def test_what_cannot_be_installed_is_one_line_and_leaves_nothing(
    tools: Path, tmp_path: Path, kernel_file: KernelFile, options: tuple[object, ...], said: str
) -> None:
    cut = options.index("--") if "--" in options else len(options)
    shown = bendscape(
        *("schedule", "install", campaign(tmp_path), "--window", "always", "--store", tmp_path / "s.zarr"),
        *options[:cut], "--", "--kernel-module", kernel_file(RANDOM), *options[cut + 1 :],
    )  # fmt: skip
    assert (shown.returncode, shown.stderr.count("\n")) == (2, 1), shown.stderr
    assert said in shown.stderr
    assert every() == []
    assert not (tmp_path / "crontab").exists()
