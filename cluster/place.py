"""The contract of a place: where a campaign's driver runs as a job, and what the place must say of it.

A place starts or joins a Ray, and submits, reports and cancels one driver job. What it writes (a batch
script, a manifest) is rendered by pure functions from parameters to text. The folder of a job holds all
that belongs to it, readable by its owner alone, and never a credential.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from bendscape.core.errors import ParameterError
from bendscape.sweep.location import store_url

NAMES = ("local", "slurm", "kuberay")
"""Every place: the module of this name in `bendscape.cluster` has it as PLACE."""

Word = Literal[
    "waiting", "running", "complete", "failed cells", "target unreachable", "work left", "failed",
    "cancelled", "unknown",
]  # fmt: skip
_OUTCOMES: dict[int, Word] = {  # of `bendscape run`
    0: "complete",
    1: "failed cells",
    3: "target unreachable",
    75: "work left",
}
ENDED: tuple[Word, ...] = (*_OUTCOMES.values(), "failed", "cancelled")


class State(NamedTuple):
    """Where a job stands, in one word; `detail` is in the words of the place.

    `exit_code` is that of the driver, None while there is none to be had.
    """

    word: Word
    detail: str = ""
    exit_code: int | None = None

    @classmethod
    def of_exit(cls, code: int, detail: str = "") -> State:
        """The state of a job whose driver ended with this code."""
        return cls(_OUTCOMES.get(code, "failed"), detail, code)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of this job."""
        return self.word in ENDED


@dataclass(frozen=True)
class Job:
    """One driver: everything that a place needs to know of it, and nothing that is secret.

    Attributes
    ----------
    file
        Absolute path of the campaign file.
    store
        URL of the store.
    name
        Name of the campaign: any text.
    budget
        Seconds that one run may take; None until it is done.
    options
        Further options of `bendscape run`.
    folder
        Where the command was given: relative paths among the options start here.
    python
        The interpreter that has bendscape.
    """

    file: str
    store: str
    name: str
    budget: float | None = None
    options: tuple[str, ...] = ()
    folder: str = field(default_factory=os.getcwd)
    python: str = sys.executable

    def command(self, *more: str) -> tuple[str, ...]:
        """The command of its driver, with options that only the place knows, such as an address."""
        budget = () if self.budget is None else ("--time-budget", f"{self.budget:.0f}s")
        run = (self.python, "-m", "bendscape.sweep", "run", self.file, "--store", self.store)
        return (*run, *budget, *more, *self.options)


class Parameters(BaseModel):
    """What a place can be told; each place has a model of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Validate parameters; None stands for one that is not given.

        Raises
        ------
        ParameterError
            One line: the parameter, its value and what is accepted; of a misspelt one, every valid one.
        """
        try:
            return cls.model_validate({name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            problems = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
            first = problems[0]
            name = str(first["loc"][0]) if first["loc"] else "parameters"
            if first["type"] == "extra_forbidden":
                close = difflib.get_close_matches(name, cls.model_fields, n=1)
                hint = f"did you mean {close[0]!r}?" if close else ""
                raise ParameterError(
                    "parameter", name, f"one of {', '.join(cls.model_fields)}", hint
                ) from None
            if first["type"] == "missing":
                raise ParameterError(name, "missing", "given") from None
            accepted = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            raise ParameterError(name, first["input"], accepted) from None


class Place(ABC):
    """Submits, reports and cancels driver jobs, and gives the options of the Ray that they join.

    Made of its parameters; without any it can report on jobs and cancel them.
    """

    name: ClassVar[str]

    @abstractmethod
    def ray_options(self, workers: int | None = None, memory: float | None = None) -> dict[str, Any]:
        """Options of `ray.init` for a driver at this place: of a Ray of its own, or of the one it joins."""

    @abstractmethod
    def render(self, job: Job, folder: Path) -> str:
        """What is handed to the place, as text; `folder` is the job's. Changes and asks nothing."""

    @abstractmethod
    def start(self, job: Job, folder: Path) -> str:
        """Hand a job over; returns its id, which the place knows it by from then on."""

    @abstractmethod
    def states(self, ids: Sequence[str]) -> dict[str, State]:
        """Where jobs stand: one question to the place, however many they are."""

    @abstractmethod
    def cancel(self, id: str) -> None:
        """End a job for good; what it recorded is kept. One that has ended already is no error."""

    @abstractmethod
    def log(self, id: str) -> str:
        """What a job has printed so far."""

    def submit(self, job: Job) -> str:
        """Hand a job over and remember it; returns its id."""
        folder = _new_folder(self.name, job)
        try:
            id = self.start(job, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        write_private(folder / _RECORD, json.dumps(asdict(Record(self.name, id, time.time(), job))))
        return id

    def state(self, id: str) -> State:
        """Where one job stands."""
        return self.states([id])[id]


def place(name: str, parameters: Mapping[str, Any] | None = None) -> Place:
    """A place by its name, made of its parameters.

    Raises
    ------
    ParameterError
        There is no such place, or it has no such parameter.
    """
    if name not in NAMES:
        raise ParameterError("place", name, f"one of {', '.join(NAMES)}")
    made: Place = importlib.import_module(f"bendscape.cluster.{name}").PLACE(parameters or {})
    return made


# ---- what is remembered of jobs

_RECORD = "job.json"


@dataclass(frozen=True)
class Record:
    """A job that was handed over: where, under which id, and when (seconds since 1970)."""

    place: str
    id: str
    submitted: float
    job: Job


def jobs_folder() -> Path:
    """The folder of the jobs of this user: `BENDSCAPE_JOBS`, or `bendscape/jobs` in `XDG_STATE_HOME`
    (`~/.local/state`). On a cluster it must lie where every node sees it and may write."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    own = os.environ.get("BENDSCAPE_JOBS") or os.path.join(state, "bendscape", "jobs")
    return Path(own).expanduser().absolute()


def _new_folder(name: str, job: Job) -> Path:
    # Named for people, and distinct without a look at what is there.
    label = re.sub("[^A-Za-z0-9.-]+", "-", job.name).strip("-.")[:40] or "campaign"
    when = time.strftime("%Y%m%d-%H%M%S")
    folder = jobs_folder() / f"{when}-{name}-{label}-{secrets.token_hex(3)}"
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise ParameterError(
            "BENDSCAPE_JOBS", str(folder.parent), "a folder to write in", str(error)
        ) from None
    return folder


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    aside.replace(path)


def folder_of(place_name: str, id: str) -> Path:
    """The folder of a job of this user.

    Raises
    ------
    ParameterError
        This user has handed no such job over, or its folder was deleted.
    """
    for folder, record in _kept():
        if record.place == place_name and record.id == id:
            return folder
    raise ParameterError(
        "job", id, "the id of a job that was submitted from here", "see `bendscape jobs list`"
    )


def records(store: str | os.PathLike[str] | None = None) -> list[Record]:
    """The jobs of this user, or those of one store, in the order in which they were handed over."""
    url = None if store is None else store_url(store)
    found = [record for _, record in _kept() if url is None or record.job.store == url]
    return sorted(found, key=lambda record: record.submitted)


def _kept() -> Iterable[tuple[Path, Record]]:
    for path in sorted(jobs_folder().glob(f"*/{_RECORD}")):
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            job = Job(**{**kept["job"], "options": tuple(kept["job"]["options"])})
            yield path.parent, Record(kept["place"], kept["id"], kept["submitted"], job)
        except (OSError, ValueError, KeyError, TypeError):  # being deleted, or of another version
            continue


def jobs_of(
    store: str | os.PathLike[str] | None = None, *, all_of_them: bool = False
) -> list[dict[str, Any]]:
    """The jobs of a store (of all stores where none is given), and where they stand, for JSON.

    Of each store the last one, unless `all_of_them` are asked for. A place that does not answer is reported
    as the state "unknown".
    """
    found = records(store)
    if not all_of_them:
        found = list({record.job.store: record for record in found}.values())
    states: dict[tuple[str, str], State] = {}
    for name in {record.place for record in found}:
        ids = [record.id for record in found if record.place == name]
        try:
            told = place(name).states(ids)
        except (OSError, ParameterError) as error:
            told = dict.fromkeys(ids, State("unknown", str(error)))
        states |= {(name, id): state for id, state in told.items()}
    return [
        {
            "place": record.place,
            "id": record.id,
            "store": record.job.store,
            "name": record.job.name,
            "submitted": record.submitted,
            "state": (state := states[record.place, record.id]).word,
            "detail": state.detail,
            "exit_code": state.exit_code,
        }
        for record in found
    ]
