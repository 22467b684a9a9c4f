"""Small campaigns and kernels for the tests of the engine, and helpers to compare stores."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obstore
from rich.console import Console

from bendscape.sweep.campaign.file import Campaign, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.engine.executor import Executor, Job, Result, SerialExecutor
from bendscape.sweep.engine.run import Summary, run_campaign
from bendscape.sweep.location import store_url
from bendscape.sweep.store.objects import connect
from bendscape.sweep.store.publish import silence_zarr
from bendscape.sweep.store.root import read_store

KERNEL_HEAD = """
import ctypes, itertools, math, os, signal, time, uuid
from pathlib import Path
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable

CALLS = Path({calls!r})

def note(cell):
    name = "_".join(str(v) for v in cell[:-1])
    for attempt in itertools.count(1):
        try:
            with open(CALLS / f"{{name}}-{{attempt}}", "x") as file:
                file.write(str(os.getpid()))
            return attempt
        except FileExistsError:
            pass

def compute(cell, rng):
    attempt = note(cell)
#BODY

KERNEL = Kernel(name="probe", version={version}, variables=({variables},), compute=compute,
                seconds=lambda cell: 0.25, peak_bytes=lambda cell: 1e6)
"""

RANDOM = "return Outcome({'x': rng.normal() + cell.alpha})"

GRID = """
[campaign]
name = "probe"
store = "unused"
entropy = {entropy}
kernel = "probe"

[grid]
p = {p}
p_star = {p_star}
a = {a}
alpha = {alpha}
N = {N}
seeds = {seeds}
where = "{where}"
"""

DEFAULT: dict[str, Any] = {
    "entropy": 7,
    "p": [1, 2],
    "p_star": [1],
    "a": [0.7, 1.5],
    "alpha": [0.8, 1.0, 1.2],
    "N": [64, 128],
    "seeds": 6,
    "where": "p >= p_star",
}


def write_kernel(
    folder: Path, body: str, variables: str = 'Variable("x", "a number")', version: int = 1
) -> str:
    """Write a kernel module whose cells leave a file in the folder `calls` for every attempt."""
    calls = folder / "calls"
    calls.mkdir(exist_ok=True)
    head = KERNEL_HEAD.format(calls=str(calls), variables=variables, version=version)
    path = folder / f"kernel_v{version}.py"
    path.write_text(head.replace("#BODY", textwrap.indent(textwrap.dedent(body).strip(), "    ")))
    return str(path)


def campaign_text(**changes: Any) -> str:
    return GRID.format(**{**DEFAULT, **changes})


def zone_far_from_midnight() -> str:
    """A time zone for windows that end at midnight, in tests of commands that look at the real clock."""
    return "UTC" if 3 <= time.gmtime().tm_hour < 21 else "Etc/GMT+6"


def make_campaign(**changes: Any) -> Campaign:
    return parse_campaign(campaign_text(**changes))


def run(
    store: Path | str,
    module: str,
    campaign: Campaign,
    executor: Executor | None = None,
    **options: Any,
) -> Summary:
    silence_zarr()
    modules = [module] if module else []
    kernel = load_kernel(campaign.kernel_name, modules, campaign.options)
    return run_campaign(
        campaign,
        store_url(store),
        kernel,
        lambda: executor or SerialExecutor(),
        console=Console(quiet=True),
        kernel_modules=(module,) if module else (),
        **options,
    )


def data_files(store: Path | str) -> dict[str, bytes]:
    """Every object of the store that holds data: all arrays, their metadata, not the ledger or the root."""
    return {
        name: content
        for name, content in all_objects(store).items()
        if not name.startswith("ledger/") and name != "zarr.json"
    }


def all_objects(store: Path | str) -> dict[str, bytes]:
    """Every object under a path or URL."""
    objects = connect(store_url(store))
    names = [item["path"] for page in obstore.list(objects) for item in page]
    return {name: bytes(obstore.get(objects, name).bytes()) for name in names}


def calls(module: str) -> Counter[str]:
    """How often each cell was begun."""
    return Counter(path.name.partition("-")[0] for path in (Path(module).parent / "calls").iterdir())


def recorded(store: Path | str) -> set[str]:
    """The cells that the ledger records as finished, named as in `calls`."""
    found = read_store(store_url(store))
    if found is None:
        return set()
    records = found.ledger.records
    return {
        "_".join(map(str, cell[:-1]))
        for key in records
        for _, _, cell in found.layout.cells(key, records.masks(key)[0])
    }


class IdleExecutor(SerialExecutor):
    """Accepts no job: a run with it publishes the store and stops."""

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        yield from ()


class DyingExecutor(SerialExecutor):
    """Kills its driver with kill -9 after some jobs: nothing is flushed, nothing released."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        for count, result in enumerate(super().run(next_job)):
            if count == self._jobs:
                os.kill(os.getpid(), signal.SIGKILL)
            yield result


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], make_campaign(), DyingExecutor(int(sys.argv[3])))
