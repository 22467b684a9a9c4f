"""The Python interface: campaigns from dictionaries and keywords, `run`, `plan`, `status`, function
kernels."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import bendscape.core
import bendscape.sweep
from bendscape.sweep import (
    Axes,
    Axis,
    Campaign,
    Dimension,
    Kernel,
    Outcome,
    ParameterError,
    Summary,
    Variable,
    kernel,
    plan,
    run,
    status,
)
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.loading import MAX_PICKLE, load_kernel, pickled, unpickled
from bendscape.sweep.campaign.toml import to_toml
from bendscape.sweep.commands import calls
from campaigns import RANDOM, campaign_text, data_files

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
STEPS = Axes((Axis("steps", "int64", least=1), Axis("seed", "int64", "seed")))
END = (Variable("end", "where the walk ends"),)
KernelFile = Callable[..., str]


@kernel(axes=STEPS, variables=END)
def walk(cell: Any, rng: np.random.Generator) -> dict[str, Any]:
    return {"end": rng.choice([-1, 1], cell.steps).sum()}


def walks(store: Path, **changes: Any) -> dict[str, Any]:
    """A campaign of random walks, as a dictionary."""
    section = {"name": "walks", "store": str(store), "entropy": 5}
    return {"campaign": section, "grid": {"steps": [4, 9], "seeds": 7} | changes}


def go(campaign: Any, **options: Any) -> Summary:
    return run(campaign, **{"address": "serial", "progress": False} | options)


def test_a_dictionary_keywords_and_a_file_are_the_same_campaign_with_the_bits_of_the_command(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module, file = kernel_file(RANDOM), tmp_path / "c.toml"
    file.write_text(campaign_text(a=[0.7], seeds="{ 64 = 3, 128 = 2 }"))
    document = tomllib.loads(file.read_text())
    grid = document["grid"] | {
        "p": np.array([1, 2]),
        "alpha": np.array([0.8, 1.0, 1.2]),
        "seeds": {64: 3, 128: 2},
    }
    campaigns = {
        "file": Campaign.from_file(file),
        "dictionary": Campaign.from_dict(document),
        "keywords": Campaign.of(**document["campaign"], grid=grid),
    }
    axes = load_kernel("hessian").axes
    assert len({campaign.spec_hash(axes) for campaign in campaigns.values()}) == 1

    bendscape_command = Path(sys.executable).with_name("bendscape")
    call = (
        "run",
        file,
        "--address",
        "serial",
        "--kernel-module",
        module,
        "--store",
        tmp_path / "command",
        "--json",
    )
    done = subprocess.run([bendscape_command, *call], capture_output=True, text=True, timeout=300, check=True)
    ran = json.loads(done.stdout)
    for name, campaign in campaigns.items():
        summary = go(campaign, store=tmp_path / name, kernel_modules=[module])
        assert (summary.cells, summary.done, summary.exit_code) == (
            ran["cells"],
            ran["done"],
            ran["exit_code"],
        )
        assert data_files(tmp_path / name) == data_files(tmp_path / "command")
        assert plan(campaign, store=tmp_path / name, kernel_modules=[module])["cells_left"] == 0
        assert status(tmp_path / name)["done"] == ran["done"] == 30


def test_a_store_keeps_a_dictionary_as_a_file_of_the_same_campaign(tmp_path: Path) -> None:
    go(walks(tmp_path / "s"), kernel=walk)
    text = json.loads((tmp_path / "s" / "zarr.json").read_text())["attributes"]["campaign"]
    kept, given = parse_campaign(text), Campaign.from_dict(walks(tmp_path / "s")).of_kernel("walk")
    assert kept.spec_hash(STEPS) == given.spec_hash(STEPS)
    go(walks(tmp_path / "s", steps=[4]), kernel=walk)
    hidden = status(tmp_path / "s")["hidden"]
    assert hidden == {"cells": 7, "revisions": {1: 7}}
    first = xr.open_dataset(tmp_path / "s", engine="bendscape", revision=1)
    assert first.sizes["steps"] == 2


def test_the_generated_toml_has_the_contents_of_the_dictionary() -> None:
    hard = 'quotes " and \\, a line\nmore, \x7f, \x01, é, \U0001d6fc'
    document = {
        "campaign": {"name": hard, "store": Path("/a b"), "entropy": np.int64(3)},
        "grid": {
            "x": {"around": "y", "values": (np.float64(0.1), 1e-300, 2)},
            "rule": ["hebb"], "seeds": {64: 3}, "where": None, "odd key": True, "n": range(3),
        },
    }  # fmt: skip
    assert tomllib.loads(to_toml(document)) == {
        "campaign": {"name": hard, "store": "/a b", "entropy": 3},
        "grid": {
            "x": {"around": "y", "values": [0.1, 1e-300, 2]},
            "rule": ["hebb"], "seeds": {"64": 3}, "odd key": True, "n": [0, 1, 2],
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("campaign", "entropy", -1),
        ("campaign", "entropy", 1.0),
        ("campaign", "nmae", "x"),
        ("grid", "steps", [0]),
        ("grid", "steps", [4, 4]),
        ("grid", "step", [4]),
        ("grid", "seeds", 0),
        ("grid", "where", "step > 1"),
        ("grid", "steps", {"start": 1, "stop": 2}),
    ],
)
def test_bad_input_is_reported_as_for_a_file_but_without_a_line_number(
    tmp_path: Path, section: str, key: str, value: object
) -> None:
    document = walks(tmp_path / "s")
    document[section][key] = value
    file = tmp_path / "c.toml"
    file.write_text(to_toml(document))
    lines = []
    for campaign in (file, document):
        with pytest.raises(ParameterError) as caught:
            go(campaign, kernel=walk)
        lines.append(str(caught.value))
    assert re.fullmatch(rf"{re.escape(lines[1])}; see {re.escape(str(file))}(, line \d+)?", lines[0])
    assert not (tmp_path / "s").exists()


def test_a_campaign_that_no_file_could_hold_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(
        ParameterError, match=r"^grid\.steps = \{4\} .* must be a number, a text, a list or a tab"
    ):
        go(walks(tmp_path, steps={4}), kernel=walk)
    with pytest.raises(ParameterError, match=r'^campaign = 3 .* a dictionary \{"campaign"'):
        Campaign.from_dict(3)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"^campaign\.name = .*a text in UTF-8"):
        Campaign.of(name="\ud800", store="s", entropy=1, grid={})
    with pytest.raises(ParameterError, match=r"^store = 'https://\.\.\.'"):
        Campaign.of(name="x", store="https://u:p@x", entropy=1, grid={})


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"workers": 0}, "workers = 0 is not accepted: workers must be an integer >= 1"),
        ({"max_memory": "12 apples"}, "max_memory = '12 apples' is not accepted: max_memory must be bytes"),
        ({"max_memory": -1}, "max_memory = -1 is not accepted: max_memory must be bytes > 0"),
        ({"time_budget": "soon"}, "time_budget = 'soon' is not accepted: time_budget must be a time"),
        ({"grace": 0}, "grace = 0 is not accepted: grace must be seconds > 0"),
        ({"cell_timeout": float("nan")}, "cell_timeout = nan is not accepted: cell_timeout must be seconds"),
        ({"kernel_modules": "own.py"}, "kernel_modules = 'own.py' is not accepted"),
        ({"address": "auto"}, "--address = 'auto' is not accepted"),
        ({"max_memory": 10.0}, "memory"),
    ],
)
def test_bad_options_are_reported_in_one_line_before_a_store_is_created(
    tmp_path: Path, options: dict[str, Any], line: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        go(walks(tmp_path / "s"), kernel=walk, **options)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "s").glob("steps"))


def test_a_function_is_a_kernel_that_runs_resumes_extends_and_fails_cell_by_cell(tmp_path: Path) -> None:
    @kernel(axes=STEPS, variables=END)
    def unlucky(cell: Any, rng: np.random.Generator) -> Any:
        if cell.seed == 3:
            raise ValueError("no luck")
        if cell.seed == 4:
            return {"another": 1.0}
        if cell.seed == 5:
            return 1.0
        return Outcome({"end": rng.normal()}, converged=cell.seed != 6)

    summary = go(walks(tmp_path / "s"), kernel=unlucky)
    assert (summary.outcome, summary.cells, summary.failed, summary.exit_code) == ("failed cells", 14, 6, 1)
    with xr.open_dataset(tmp_path / "s", engine="bendscape") as ds:
        assert ds["status"].sel(steps=9).values.tolist() == [1, 1, 1, 2, 2, 2, 3]
        drawn = bendscape.sweep.campaign.axes.cell_rng(5, STEPS.cell(steps=9, seed=1)).normal()
        assert ds["end"].sel(steps=9, seed=1).item() == drawn
    with xr.open_dataset(tmp_path / "s", engine="bendscape", group="errors") as errors:
        assert set(errors["message"].values) >= {"no luck"}
        assert any("not a dictionary or an Outcome" in message for message in errors["message"].values)
    more = go(walks(tmp_path / "s", steps=[4, 9, 16]), kernel=unlucky)
    assert (more.cells, more.computed) == (21, 7)
    again = go(walks(tmp_path / "s", steps=[4, 9, 16]), kernel=unlucky, retry_failed=True)
    assert again.computed == 9


def test_a_function_returns_arrays_over_an_inner_dimension_with_its_coordinates(tmp_path: Path) -> None:
    path = (Variable("path", "where the walk is", dims=("time",)),)

    @kernel(axes=STEPS, variables=path, dimensions=(Dimension("time", (1, 2, 3), "steps taken"),))
    def walk(cell: Any, rng: np.random.Generator) -> dict[str, Any]:
        return {"path": cell.steps * np.cumsum(np.ones(3))}

    assert go(walks(tmp_path / "s.zarr"), kernel=walk).exit_code == 0
    ds = xr.open_dataset(tmp_path / "s.zarr", engine="bendscape")
    assert ds.path.dims == ("steps", "seed", "time")
    assert ds.time.values.tolist() == [1, 2, 3]
    assert ds.path.sel(steps=9, seed=6).values.tolist() == [9.0, 18.0, 27.0]


def test_a_changed_function_of_the_same_name_is_refused_unless_accepted(tmp_path: Path) -> None:
    go(walks(tmp_path / "s"), kernel=walk)

    def changed() -> Kernel:
        @kernel(axes=STEPS, variables=END)
        def walk(cell: Any, rng: np.random.Generator) -> dict[str, Any]:
            return {"end": 0.0}

        return walk

    other = changed()
    assert other.digest != walk.digest
    assert other.digest == changed().digest
    wider = walks(tmp_path / "s", seeds=8)
    with pytest.raises(ParameterError, match=rf"digest {walk.digest} there, {other.digest} here"):
        go(wider, kernel=other)
    assert go(wider, kernel=other, accept_kernel_change=True).computed == 2
    fresh = go(
        walks(tmp_path / "s", seeds=9),
        kernel=kernel(axes=STEPS, variables=END, version=2)(_named_walk),
        new_generation=True,
    )
    assert fresh.store.endswith("s.generation-2")


def _named_walk(cell: Any, rng: np.random.Generator) -> dict[str, Any]:
    return {"end": 1.0}


_named_walk.__name__ = "walk"


def test_a_campaign_that_names_another_kernel_is_refused(tmp_path: Path) -> None:
    document = walks(tmp_path / "s")
    document["campaign"]["kernel"] = "hessian"
    with pytest.raises(
        ParameterError, match=r"^campaign\.kernel = 'hessian' .* 'walk', the kernel that is given"
    ):
        go(document, kernel=walk)
    with pytest.raises(ParameterError, match=r"^kernel = <function"):
        go(walks(tmp_path / "s"), kernel=_named_walk)
    from bendscape.sweep.kernels.theory import KERNEL

    with pytest.raises(ParameterError, match=r"^KERNEL\.name = 'theory' .* no installed kernel has"):
        go(walks(tmp_path / "s"), kernel=KERNEL)


@pytest.mark.parametrize(
    ("declared", "line"),
    [
        ({"axes": Axes(STEPS.declared[:1])}, "exactly one axis of role seed"),
        ({"variables": ()}, "a tuple of at least one Variable"),
        ({"variables": (Variable("steps", "taken"),)}, "a name other than"),
        ({"version": 0}, "an integer >= 1"),
    ],
)
def test_a_declaration_that_is_not_accepted_is_refused_where_the_function_is_decorated(
    declared: dict[str, Any], line: str
) -> None:
    with pytest.raises(ParameterError, match=line):
        kernel(**{"axes": STEPS, "variables": END} | declared)(_named_walk)


def test_a_function_without_source_text_or_that_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec("def walk(cell, rng): return {'end': 0.0}", scope)
    with pytest.raises(
        ParameterError, match=r"^kernel = 'walk' .* a function whose source text Python can read"
    ):
        kernel(axes=STEPS, variables=END)(scope["walk"])
    for held, line in ((threading.Lock(), "can be pickled"), (bytes(MAX_PICKLE), "at most")):

        @kernel(axes=STEPS, variables=END)
        def holding(cell: Any, rng: np.random.Generator, held: Any = held) -> dict[str, Any]:
            return {"end": 0.0 if held else 1.0}

        with pytest.raises(ParameterError, match=rf"^kernel = 'holding' .*{line}"):
            go(walks(tmp_path / "s"), kernel=holding)
    with pytest.raises(ParameterError, match=r"^kernel = 'walk' .* whose modules workers can import"):
        unpickled(pickled(walk)[:-5], "walk")


def test_a_kernel_of_a_script_runs_in_a_process_that_does_not_have_the_script(tmp_path: Path) -> None:
    # What any executor with processes does: the kernel is sent as bytes, and the results agree with this
    # process.
    place = tmp_path / "script.py"
    place.write_text(
        textwrap.dedent("""
        import sys
        from pathlib import Path
        from bendscape.sweep import Axes, Axis, Variable, kernel
        from bendscape.sweep.campaign.loading import pickled

        def shift(x):
            return x + LEVEL

        LEVEL = 10
        axes = Axes((Axis("steps", "int64"), Axis("seed", "int64", "seed")))

        @kernel(axes=axes, variables=(Variable("end", "a number"),))
        def jump(cell, rng):
            return {"end": shift(cell.steps)}

        Path(sys.argv[1]).write_bytes(pickled(jump))
    """)
    )
    subprocess.run([sys.executable, place, tmp_path / "bytes"], check=True, timeout=120)
    place.unlink()
    found = unpickled((tmp_path / "bytes").read_bytes(), "jump")
    assert found.compute(STEPS.cell(steps=2, seed=0), np.random.default_rng(0)).values == {"end": 12}


def with_the_bits_of_this_process(folder: Path, address: str) -> bool:
    go(walks(folder / "here"), kernel=walk)
    summary = go(walks(folder / "there"), kernel=walk, address=address, workers=2)
    return summary.outcome == "complete" and data_files(folder / "there") == data_files(folder / "here")


def test_a_function_in_processes_of_this_machine_has_the_bits_of_this_process(tmp_path: Path) -> None:
    assert with_the_bits_of_this_process(tmp_path, "local")


@pytest.mark.ray
def test_a_function_on_ray_has_the_bits_of_this_process(tmp_path: Path, local_ray: None) -> None:
    assert with_the_bits_of_this_process(tmp_path, "ray")


def test_a_run_in_a_thread_without_signals_is_like_any_other(tmp_path: Path) -> None:
    found: list[Summary | BaseException] = []

    def cell_of_a_notebook() -> None:
        try:
            found.append(go(walks(tmp_path / "thread"), kernel=walk))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=cell_of_a_notebook)
    thread.start()
    thread.join(timeout=120)
    assert isinstance(found[0], Summary), found
    assert found[0].outcome == "complete"
    go(walks(tmp_path / "main"), kernel=walk)
    assert data_files(tmp_path / "thread") == data_files(tmp_path / "main")


def test_an_interrupt_ends_a_run_with_its_summary_and_the_same_call_goes_on(tmp_path: Path) -> None:
    flag = tmp_path / "interrupted"

    @kernel(axes=STEPS, variables=END, seconds=5)  # so that each cell is a tile
    def interrupting(cell: Any, rng: np.random.Generator) -> dict[str, Any]:
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGINT)
        return {"end": rng.normal()}

    before = signal.getsignal(signal.SIGINT)
    stopped = go(walks(tmp_path / "s"), kernel=interrupting)
    assert (stopped.outcome, stopped.exit_code) == ("stopped", 75)
    assert 0 < stopped.missing <= 14
    assert signal.getsignal(signal.SIGINT) is before
    assert go(walks(tmp_path / "s"), kernel=interrupting).outcome == "complete"


def test_a_run_reports_progress_on_standard_error_or_not_at_all(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    go(walks(tmp_path / "quiet"), kernel=walk)
    assert capfd.readouterr() == ("", "")
    go(walks(tmp_path / "told"), kernel=walk, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "14/14 cells" in shown.err


def test_in_a_notebook_one_bar_is_drawn_and_then_redrawn_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    redrawn: list[Any] = []

    def display(shown: object, display_id: bool = False) -> object:
        # As that of IPython: a handle where it is asked for, to draw something else in the same place.
        if not display_id:
            return None  # rich's messages
        drawn.append(shown)
        return types.SimpleNamespace(update=redrawn.append)

    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    module = types.ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(calls, "standard_error", lambda: Console(force_jupyter=True))
    go(walks(tmp_path / "s"), kernel=walk, progress=True)
    assert len(drawn) == 1
    assert repr(drawn[0]).startswith("0/14 cells")
    assert repr(redrawn[-1]).startswith("14/14 cells, 2/2 tiles, 0 failed")
    assert '<progress value="14" max="14"></progress> <code>14/14 cells' in redrawn[-1]._repr_html_()


@pytest.mark.parametrize("door", [bendscape.core, bendscape.sweep], ids=["core", "sweep"])
def test_the_public_names_all_exist_and_are_imported_on_first_use(door: types.ModuleType) -> None:
    script = (
        f"import sys, {door.__name__} as s; print(*sorted(m for m in sys.modules if '.' not in m)); s.zzz"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert not {"numpy", "scipy", "pydantic", "ray", "zarr", "typer", "rich"} & set(done.stdout.split())
    assert done.stderr.splitlines()[-1] == f"AttributeError: module '{door.__name__}' has no attribute 'zzz'"
    assert set(door.__all__) <= set(dir(door))
    found = [getattr(door, name) for name in door.__all__]
    assert all(thing.__doc__ for thing in found if isinstance(thing, type | types.FunctionType))


def test_the_code_of_the_page_runs_as_it_stands_and_finds_the_outlier(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    script, checks = (
        tmp_path / "page.py",
        """
        ds = xr.open_dataset("runs/spiked.zarr", engine="bendscape")
        assert ds.top.dims == ("spike", "N", "seed") and (ds.status == 1).all()
        mean = ds.top.mean("seed").sel(N=200)
        assert abs(mean.sel(spike=2.0) - 2.5) < 0.1 and abs(mean.sel(spike=0.0) - 2) < 0.1
        from bendscape.sweep.campaign.loading import default_declarations
        assert len({campaign.spec_hash(default_declarations().axes) for campaign in (one, two, three)}) == 1
        assert summary.outcome == "complete" and status("runs/figure-1.zarr")["done"] == 72
        assert table.shape == (12, 2) and table.notna().all(axis=None) and failed.sizes["failure"] == 0
    """,
    )
    script.write_text("\n".join([*blocks, textwrap.dedent(checks)]))
    environment = os.environ | {"MPLBACKEND": "Agg"}
    call = [sys.executable, script]
    done = subprocess.run(
        call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_plan_of_a_function_changes_nothing_and_counts_its_cells(tmp_path: Path) -> None:
    found = plan(walks(tmp_path / "s"), kernel=walk)
    assert (found["cells"], found["cells_left"], found["name"]) == (14, 14, "walks")
    assert not os.path.exists(tmp_path / "s")
    with pytest.raises(ParameterError, match="memory"):
        plan(walks(tmp_path / "s"), kernel=walk, max_memory="1kB")
