"""The timers that call a schedule: a crontab, a scrontab, systemd's timers of a user, Kubernetes.

What is handed to each is rendered by pure functions. What somebody else wrote there is never changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bendscape.cluster.place import Job, place, write_private
from bendscape.cluster.schedule import Schedule, path_of
from bendscape.cluster.schedule_windows import calendar, cron_lines, local_zone
from bendscape.core.errors import ParameterError
from bendscape.sweep.commands.options import seconds_of
from bendscape.sweep.engine.stop import GRACE_SECONDS

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@+:,./-"
_DISABLED = "#DISABLED: "  # what scrontab puts before the lines of a job that was cancelled
SECONDS = 60.0  # for an answer of a timer's own command


def word(text: str) -> str:
    """A word for any POSIX shell, in one line of printable ASCII without quotes of its own inside.

    Characters with a meaning anywhere (in a shell, a crontab, a unit) are written in octal for `printf %b`.

    Raises
    ------
    ParameterError
        A line break at its end, which a shell would drop.
    """
    data = os.fsencode(text)
    if data and all(byte in _PLAIN for byte in data):
        return text
    if data.endswith(b"\n") or not data:
        raise ParameterError("path", text, "a path that does not end in a line break")
    octal = "".join(chr(byte) if byte in _PLAIN else f"\\0{byte:03o}" for byte in data)
    return f"\"$(printf %b '{octal}')\""


def command(schedule: Schedule, path: Path) -> str:
    """The command line that a timer calls; its words name files only."""
    call = (schedule.python, "-P", "-m", "bendscape.sweep", "schedule", "run", "--log", str(path))
    return "exec " + " ".join(map(word, call))


def mark(schedule: Schedule) -> str:
    """The comment by which a line or a file is known as ours."""
    return f"# bendscape schedule {schedule.name}"


class Timer(ABC):
    """What calls a schedule."""

    @abstractmethod
    def render(self, schedule: Schedule) -> str:
        """What is handed over, as text; changes nothing."""

    @abstractmethod
    def install(self, schedule: Schedule) -> str:
        """Hand it over, in place of what an earlier installation did; returns the id, where there is one."""

    @abstractmethod
    def remove(self, schedule: Schedule) -> None:
        """Take back what was handed over, and nothing else. A run at work goes on."""

    @abstractmethod
    def present(self, schedule: Schedule) -> bool | None:
        """Whether it is still there; None where nobody can tell from here."""


# -- crontab and scrontab


@dataclass(frozen=True)
class Table(Timer):
    """The lines of a user's crontab, or scrontab, edited by the command of this name."""

    tool: str

    @property
    def _jobs(self) -> bool:
        # Each line of a scrontab is a job that waits for cores: it starts with the window, and only then.
        return self.tool == "scrontab"

    def render(self, schedule: Schedule) -> str:
        """Its lines; of a scrontab with the options of the job before each."""
        now = datetime.fromtimestamp(schedule.installed, UTC)
        text = command(schedule, path_of(schedule.name))
        if not self._jobs:
            text = text.replace("%", "\\%")  # cron would make a line break of it
        times = cron_lines(schedule.windows, schedule.every, local_zone(), now, starts_only=self._jobs)
        options = "".join(f"#SCRON {option}\n" for option in _job_options(schedule)) if self._jobs else ""
        return "".join(f"{options}{when} {text} {mark(schedule)}\n" for when in times)

    def install(self, schedule: Schedule) -> str:
        """Put its lines at the head of the table, which holds them once.

        A variable in a table holds for the lines below it: one that somebody has set for lines of their own,
        such as SHELL, or CRON_TZ where cron knows it, must not change when and how these start.
        """
        before = self._read()
        self._write(before, self.render(schedule) + self.without(before, schedule))
        return ""

    def remove(self, schedule: Schedule) -> None:
        """Take its lines out of the table."""
        before = self._read()
        self._write(before, self.without(before, schedule))

    def present(self, schedule: Schedule) -> bool | None:
        """Whether the table has its lines as they are to be."""
        return self.render(schedule) in self._read()

    def without(self, table: str, schedule: Schedule) -> str:
        """A table without the lines of a schedule."""
        kept: list[str] = []
        for line in table.splitlines(keepends=True):
            if not self._ours(line, schedule):
                kept.append(line)
                continue
            while self._jobs and kept and kept[-1].removeprefix(_DISABLED).startswith("#SCRON"):
                kept.pop()  # options are those of the line that follows
        return "".join(kept)

    def _ours(self, line: str, schedule: Schedule) -> bool:
        path = word(str(path_of(schedule.name)))
        path = path if self._jobs else path.replace("%", "\\%")
        return line.rstrip("\r\n").endswith(f" schedule run --log {path} {mark(schedule)}")

    def _read(self) -> str:
        code, out, said = _call(self.tool, "-l")
        if code and "no crontab for" in out + said:
            return ""
        if code:
            raise OSError(f"{self.tool} -l: {' '.join(said.split())[:400]}")
        return out

    def _write(self, before: str, after: str) -> None:
        if after == before:
            return
        if not after:
            code, out, said = _call(self.tool, "-r")
        elif self._jobs:
            code, out, said = _edited(self.tool, after)
            # It ends with 0 also if it refuses the table.
            code = code or int(self._read().rstrip("\n") != after.rstrip("\n"))
        else:
            code, out, said = _call(self.tool, "-", text=after)
        if code:
            raise OSError(f"{self.tool}: {' '.join((said + out).split())[:400]}")


def _edited(tool: str, table: str) -> tuple[int, str, str]:
    # Not every scrontab reads a file, but all of them call an editor, which is a program without arguments.
    with tempfile.TemporaryDirectory(prefix="bendscape-") as folder:
        whole, editor = Path(folder) / "table", Path(folder) / "editor"
        whole.write_bytes(os.fsencode(table))
        editor.write_text(f'#!/bin/sh\nexec cat {word(str(whole))} > "$1"\n')
        editor.chmod(0o700)
        named = {"EDITOR": str(editor), "VISUAL": str(editor)}
        return _call(tool, "-e", text="n\n", **named)  # no, it is not to be edited again


def _job_options(schedule: Schedule) -> list[str]:
    given = list(schedule.place.get("options", ()))
    for option in given:
        if not re.fullmatch(r"-[!-~]+", option):
            accepted = "one option of sbatch without spaces, such as --partition=long"
            raise ParameterError("--scron", option, accepted)
    start = datetime.fromtimestamp(schedule.installed, UTC)
    windows = schedule.windows.between(start, start + timedelta(days=371))
    longest = max(windows, key=lambda window: window.end - window.start)
    minutes = round((longest.end - longest.start).total_seconds() / 60)
    timed = any(re.match("-t|--time[= ]", option) for option in given)
    own = [f"--job-name=bendscape-{schedule.name}", "--output=/dev/null"]
    return own + ([] if timed else [f"--time={minutes}"]) + given


# -- systemd


class Systemd(Timer):
    """A timer and a service of the user's own systemd."""

    def render(self, schedule: Schedule) -> str:
        """Both files, one after the other."""
        return "\n".join(f"# {name}\n{text}" for name, text in units(schedule).items())

    def install(self, schedule: Schedule) -> str:
        """Write both files and start the timer."""
        files = {units_folder() / name: text for name, text in units(schedule).items()}
        for path in files:
            if path.exists() and not self._ours(path, schedule):
                raise ParameterError(
                    "--name", schedule.name, "a name of its own", f"{path} is there, and not of this schedule"
                )
        units_folder().mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            write_private(path, text)
        try:
            _systemctl("daemon-reload")
            _systemctl("enable", "--now", f"{unit(schedule)}.timer")
        except BaseException:
            for path in files:
                path.unlink(missing_ok=True)
            raise
        return ""

    def remove(self, schedule: Schedule) -> None:
        """Stop the timer and delete both files."""
        ours = [path for path in self._paths(schedule) if self._ours(path, schedule)]
        if ours:
            _systemctl("disable", "--now", f"{unit(schedule)}.timer")
            for path in ours:
                path.unlink()
            _systemctl("daemon-reload")

    def present(self, schedule: Schedule) -> bool | None:
        """Whether both files are as they are to be and the timer is active."""
        with contextlib.suppress(OSError):
            texts = units(schedule)
            same = all((units_folder() / name).read_text() == text for name, text in texts.items())
            timer = f"{unit(schedule)}.timer"
            return same and _call("systemctl", "--user", "is-active", "--quiet", timer)[0] == 0
        return False

    def _paths(self, schedule: Schedule) -> list[Path]:
        return [units_folder() / f"{unit(schedule)}.{kind}" for kind in ("timer", "service")]

    def _ours(self, path: Path, schedule: Schedule) -> bool:
        try:
            return path.read_text(errors="replace").splitlines()[:1] == [mark(schedule)]
        except FileNotFoundError:
            return False


def unit(schedule: Schedule) -> str:
    """The name of its timer and its service."""
    return f"bendscape-{schedule.name}"


def units(schedule: Schedule) -> dict[str, str]:
    """The texts of a timer and a service of systemd, by file name."""
    now = datetime.fromtimestamp(schedule.installed, UTC)
    patience = round(_grace(schedule.options)) + 60
    service = f"""{mark(schedule)}
[Unit]
Description=bendscape schedule {schedule.name}

[Service]
Type=oneshot
ExecStart=/bin/sh -c {_quoted(command(schedule, path_of(schedule.name)))}
SuccessExitStatus=3 75
UMask=0077
KillMode=mixed
TimeoutStartSec=infinity
TimeoutStopSec={patience}
"""
    timer = f"""{mark(schedule)}
[Unit]
Description=bendscape schedule {schedule.name}

[Timer]
OnCalendar={calendar(schedule.windows, schedule.every, now)}
Persistent=true
AccuracySec=10s

[Install]
WantedBy=timers.target
"""
    return {f"{unit(schedule)}.service": service, f"{unit(schedule)}.timer": timer}


def _quoted(text: str) -> str:
    # One argument of ExecStart: C escapes, specifiers with %, variables with $.
    for of, by in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        text = text.replace(of, by)
    return f'"{text}"'


def _grace(options: Sequence[str]) -> float:
    words = " ".join(options).replace("=", " ").split()
    given = words[words.index("--grace") + 1 :][:1] if "--grace" in words else []
    return seconds_of("--grace", given[0]) if given else GRACE_SECONDS


def units_folder() -> Path:
    """Where systemd looks for the units of a user."""
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser().absolute() / "systemd" / "user"


def _systemctl(*arguments: str) -> None:
    code, _, said = _call("systemctl", "--user", *arguments)
    if code:
        raise OSError(f"systemctl --user {arguments[0]}: {' '.join(said.split())[:400]}")


def stays_after_logout() -> bool:
    """Whether the timers of this user run when nobody is logged in."""
    with contextlib.suppress(OSError, ParameterError):
        return _call("loginctl", "show-user", str(os.getuid()), "--property=Linger", "--value")[1] != "no\n"
    return True


# -- Kubernetes


@dataclass(frozen=True)
class ScheduledJob(Job):
    """A driver in a pod that asks its schedule whether a run is due; the schedule comes with its command."""

    schedule: str = ""

    def command(self, *more: str) -> tuple[str, ...]:
        """The command of the driver, or with `--ask` the question whether it is to start.

        Paths are those of the job, which may have been moved into the pod.
        """
        here = replace(
            Schedule.from_json(self.schedule), file=self.file, options=self.options, folder="", python="",
            place={}, id="",
        )  # fmt: skip
        call = (self.python, "-m", "bendscape.sweep", "schedule", "run", here.to_json())
        return (*call, "--ask") if more == ("--ask",) else (*call, "--", *more)


class Kubernetes(Timer):
    """A CronJob that looks all through the window, and creates a RayJob where a run is due."""

    def render(self, schedule: Schedule) -> str:
        """The manifests."""
        from bendscape.cluster.ray_job import contents

        start = datetime.fromtimestamp(schedule.installed, UTC)
        (times,) = cron_lines(schedule.windows, schedule.every, schedule.zone, start)
        job = ScheduledJob(
            file=schedule.file, store=schedule.store, name=schedule.name, options=schedule.options,
            folder=schedule.folder, schedule=schedule.to_json(),
        )  # fmt: skip
        _, moved = contents(job)
        text: str = self._place(schedule).render_schedule(
            job, schedule.name, times, schedule.zone, 60 * schedule.every, due=moved.command("--ask")
        )
        return text

    def install(self, schedule: Schedule) -> str:
        """Apply the manifests."""
        return str(self._place(schedule).install(schedule.name, self.render(schedule), schedule.store))

    def remove(self, schedule: Schedule) -> None:
        """Delete what was applied, a job at work included; its driver has its time to drain."""
        self._place(schedule).remove(schedule.id)

    def present(self, schedule: Schedule) -> bool | None:
        """Only `kubectl` knows."""
        return None

    def _place(self, schedule: Schedule) -> Any:
        return place("kuberay", schedule.place)


TIMERS: dict[str, Timer] = {
    "systemd": Systemd(),
    "cron": Table("crontab"),
    "scrontab": Table("scrontab"),
    "kubernetes": Kubernetes(),
}


def _call(tool: str, *arguments: str, text: str = "", **environment: str) -> tuple[int, str, str]:
    if shutil.which(tool) is None:
        raise ParameterError(tool, "missing", "on the path", "choose another timer, or a machine that has it")
    try:
        done = subprocess.run(
            [tool, *arguments], input=os.fsencode(text), capture_output=True, timeout=SECONDS, check=False,
            env={**os.environ, "LC_ALL": "C", **environment},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise OSError(f"{tool}: no answer within {SECONDS:.0f} s") from None
    return done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr)
