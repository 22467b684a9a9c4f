"""The engine compared with xyzpy, xsweep, pipefunc, signac and Ray Tune, two workers each, results on disk.

    python benchmarks/engine.py [--venvs DIR] [--rounds 3] [--only PART ...] [--engines NAME ...]

Every engine runs `rivals/cell.py` in a driver process, the others in virtual environments of their own
(created in DIR, or in a temporary folder). They take turns, so that a noisy machine disturbs all of them
equally:

trivial  cells that cost nothing: time per cell, excluding the start of workers that outlive a sweep
share    cells of 1 s of CPU time: fraction of the two workers' time that is spent inside the kernel
kill     200 cells of 0.1 s: kill -9 of everything about half way, and how many cells are computed twice when
         the same command is given again; then two more seeds: how many cells are computed for them
worker   200 cells of 0.1 s: kill -9 of one worker about half way, whether the sweep ends by itself or which
         error it reports, and how many cells are computed twice until all are done
lines    lines of code that a user writes for the sweep, without comments and blank lines

Prints tables and writes engine.json beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent / "rivals"))
from cell import NOTE

HERE = Path(__file__).parent
ROUNDS = 3
WORKERS = 2
CELLS = 40  # per seed
PACKAGES = {
    "xyzpy": ("xyzpy==1.3.5", "matplotlib"),
    "xsweep": ("xsweep==0.5.0",),
    "pipefunc": ("pipefunc==0.93.2", "xarray", "zarr"),
    "signac": ("signac==2.4.1", "signac-flow==0.29.1", "numpy"),
    "tune": ("ray[tune]==2.60.0", "numpy"),
}


@dataclass(frozen=True)
class Engine:
    """A driver with its options, the package whose environment runs it, and the seeds of the trivial
    sweep."""

    driver: str
    options: tuple[str, ...] = ()
    package: str = ""
    trivial_seeds: int = 100


ENGINES = {
    "bendscape": Engine("bendscape_run.py", ("local",)),
    "bendscape on Ray": Engine("bendscape_run.py", ("ray",)),
    "bendscape, from Python": Engine("bendscape_python.py"),
    "xyzpy harvest": Engine("xyzpy_harvest.py", (), "xyzpy"),
    "xyzpy crop, batches of 1": Engine("xyzpy_crop.py", ("1",), "xyzpy"),
    "xyzpy crop, batches of 20": Engine("xyzpy_crop.py", ("20",), "xyzpy"),
    "xsweep thread": Engine("xsweep_run.py", ("thread", "0"), "xsweep"),
    "xsweep thread, chunks of 20": Engine("xsweep_run.py", ("thread", "20"), "xsweep"),
    "pipefunc, files": Engine("pipefunc_map.py", ("file_array",), "pipefunc"),
    "pipefunc, Zarr": Engine("pipefunc_map.py", ("zarr_file_array",), "pipefunc"),
    "signac": Engine("signac_flow.py", (), "signac", 10),
    "Ray Tune": Engine("tune_grid.py", (), "tune", 10),
    # Sends the whole plan with every cell: 4,000 cells cost a hundred times as much as 400.
    "xsweep process": Engine("xsweep_run.py", ("process", "0"), "xsweep", 10),
    "xsweep process, chunks of 20": Engine("xsweep_run.py", ("process", "20"), "xsweep", 10),
}


class Bench:
    """Runs drivers in a folder, with the interpreter of their package."""

    def __init__(self, venvs: Path, folder: Path) -> None:
        self.venvs, self.folder = venvs, folder

    def python(self, package: str) -> str:
        """The interpreter that has a package; its environment is created if missing."""
        if not package:
            return sys.executable
        python = self.venvs / package / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
            install = [python, "-m", "pip", "install", "--quiet", *PACKAGES[package]]
            subprocess.run(install, check=True)
        return str(python)

    def start(
        self, engine: Engine, store: Path, seeds: int, seconds: float, notes: Path | None
    ) -> subprocess.Popen[str]:
        """Start a driver in a session of its own."""
        env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        env["BENCH_SECONDS"] = str(seconds)
        if notes is not None:
            notes.mkdir(exist_ok=True)
            env["BENCH_NOTES"] = str(notes)
        driver = HERE / "rivals" / engine.driver
        command = [self.python(engine.package), driver, store, str(seeds), *engine.options]
        return subprocess.Popen(
            command, env=env, cwd=self.folder, start_new_session=True, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: Any) -> tuple[float | None, str]:
        """The seconds that a driver reports, or None and the last line of its output."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=900)
        finally:
            end(process)
        if process.returncode:
            return None, (err.strip().splitlines() or ["no word"])[-1]
        return json.loads(out.splitlines()[-1])["seconds"], ""

    def store(self, name: str) -> Path:
        """A path for a new store."""
        return Path(tempfile.mkdtemp(prefix=name.replace(" ", "-").replace(",", ""), dir=self.folder)) / "s"


def end(process: subprocess.Popen[str]) -> None:
    """Kill a driver's whole session, like a node that goes down; Ray's workers have process groups of their
    own."""
    while alive := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _in(pid, process)]:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(0.01)
    process.wait()


def _in(pid: int, process: subprocess.Popen[str]) -> bool:
    try:
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return False
    return int(session) == process.pid and state not in "ZX"


def notes_of(folder: Path) -> list[tuple[float, float]]:
    """Wall and CPU time of every call."""
    return [note for file in sorted(folder.glob("*")) for note in NOTE.iter_unpack(file.read_bytes())]


def trivial(bench: Bench, name: str, engine: Engine, turn: int) -> dict[str, Any]:
    """Seconds per cell, with and without what comes before and after the sweep."""
    started = time.perf_counter()
    seconds, error = bench.run(engine, bench.store(name), engine.trivial_seeds, 0.0, None)
    whole, cells = time.perf_counter() - started, CELLS * engine.trivial_seeds
    if seconds is None:
        raise SystemExit(f"{name}: {error}")
    return {"cells": cells, "ms_a_cell": 1e3 * seconds / cells, "ms_a_cell_with_start": 1e3 * whole / cells}


def share(bench: Bench, name: str, engine: Engine, turn: int) -> dict[str, Any]:
    """Time inside the kernel over two workers' time, by the wall clock and by the CPU clock of its thread."""
    store = bench.store(name)
    notes = store.with_name("notes")
    seconds, error = bench.run(engine, store, 1, 1.0, notes)
    if seconds is None:
        raise SystemExit(f"{name}: {error}")
    wall, cpu = (sum(column) for column in zip(*notes_of(notes), strict=True))
    slots = WORKERS * seconds
    return {"cells": CELLS, "seconds": seconds, "share_wall": wall / slots, "share_cpu": cpu / slots}


def kill(bench: Bench, name: str, engine: Engine, turn: int) -> dict[str, Any]:
    """Cells that a restart after kill -9 computes again, and cells computed for two more seeds."""
    seeds, seconds = 5, 0.1
    store, cells = bench.store(name), CELLS * seeds
    counts = []
    for leg in ("killed", "again", "more seeds"):
        notes = store.with_name(leg.replace(" ", "-"))
        if leg == "killed":
            process = bench.start(engine, store, seeds, seconds, notes)
            while process.poll() is None and len(notes_of(notes)) < cells * (9 + turn) // 20:
                time.sleep(0.02)
            end(process)
            error = ""
        else:
            wanted = seeds + 2 * (leg == "more seeds")
            _, error = bench.run(engine, store, wanted, 0.0, notes)  # only the number of cells matters
        counts.append(len(notes_of(notes)))
        if error and leg == "again":
            raise SystemExit(f"{name}: {error}")
    killed, again, extended = counts
    lost = killed + again - cells
    return {
        "cells": cells,
        "computed_before_the_kill": killed,
        "lost_cells": lost,
        "lost_core_seconds": float(lost * seconds),
        "new_cells": CELLS * 2,
        "extension_computes": None if error else extended,
        "extension_says": error,
    }


def worker(bench: Bench, name: str, engine: Engine, turn: int) -> dict[str, Any]:
    """The cost of killing one worker, the one that began a cell last."""
    seeds, seconds = 5, 0.1
    store, cells = bench.store(name), CELLS * seeds
    notes = store.with_name("notes")
    process = bench.start(engine, store, seeds, seconds, notes)
    while process.poll() is None and len(notes_of(notes)) < cells * (9 + turn) // 20:
        time.sleep(0.02)
    workers = {int(file.name) for file in notes.iterdir()} - {process.pid}
    if not workers:
        end(process)
        return {"cells": cells, "has_workers": "no: threads", "ends_by_itself": "", "computed_twice": None}
    with contextlib.suppress(ProcessLookupError):
        os.kill(max(workers, key=lambda pid: (notes / str(pid)).stat().st_mtime_ns), signal.SIGKILL)
    try:
        _, err = process.communicate(timeout=120)
        says = (err.strip().splitlines() or ["no word"])[-1] if process.returncode else "yes"
    except subprocess.TimeoutExpired:
        says = "no: it hangs"
    end(process)
    if says != "yes":
        bench.run(engine, store, seeds, 0.0, notes)
    lost = len(notes_of(notes)) - cells
    return {"cells": cells, "has_workers": "yes", "ends_by_itself": says, "computed_twice": lost}


def lines(bench: Bench, name: str, engine: Engine, turn: int) -> dict[str, Any]:
    """Number of lines of a driver that a user would have to write."""
    _, block = (HERE / "rivals" / engine.driver).read_text().split("# what a user writes")
    code = [line.strip() for line in block.partition("\n")[2].partition("# to here\n")[0].splitlines()]
    return {"lines": sum(bool(line) and not line.startswith("#") for line in code)}


PARTS = {"trivial": trivial, "share": share, "kill": kill, "worker": worker, "lines": lines}


def median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of every number over several rounds."""
    return {
        key: statistics.median(row[key] for row in rows) if isinstance(value, int | float) else value
        for key, value in rows[0].items()
    }


def show(part: str, rows: dict[str, dict[str, Any]]) -> None:
    """One part as a table; for trivial cells also the ratio to bendscape."""
    columns = list(next(iter(rows.values())))
    ratio = part == "trivial" and "bendscape" in rows
    table = Table(part, *columns, *(["times bendscape"] if ratio else []))
    for name, row in rows.items():
        shown = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()]
        if ratio:
            shown.append(f"{row['ms_a_cell'] / rows['bendscape']['ms_a_cell']:.2g}")
        table.add_row(name, *shown)
    Console(width=200).print(table)


def main() -> None:
    """Measure, print, write engine.json beside this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--venvs", type=Path, help="where the rivals' environments are, or are made")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of trivial and kill; share has one")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    chosen = parser.parse_args()
    file = HERE / "engine.json"
    document = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench((chosen.venvs or Path(temporary) / "venvs").absolute(), Path(temporary))
        for package in {ENGINES[name].package for name in chosen.engines}:
            bench.python(package)
        for part in chosen.only:
            measure, rounds = PARTS[part], 1 if part in ("share", "lines") else chosen.rounds
            rows: dict[str, list[dict[str, Any]]] = {}
            for turn in range(rounds):
                for name in chosen.engines:
                    rows.setdefault(name, []).append(measure(bench, name, ENGINES[name], turn))
                    print(part, name, rows[name][-1], file=sys.stderr)
            document.setdefault(part, {}).update({name: median(row) for name, row in rows.items()})
            show(part, document[part])
            document["load_average"] = os.getloadavg()
            file.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
