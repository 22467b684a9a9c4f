"""Analyses are matched by the variables and axes that they need, whichever kernel computed the cells."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import xarray as xr
from command_line import bendscape

from bendscape.analysis.dataset import analyses
from bendscape.analysis.dataset.analyses import ANALYSES, THEORIES, Analysis, describe_analyses, load_analysis
from bendscape.analysis.findings.results import PASSES, Results
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.theory.label_only import SpectralWeights, spectral_asymptotics
from campaigns import make_campaign, run, write_kernel

KernelFile = Callable[..., str]
VALUES = """
above = max(0.0, cell.alpha - 0.9)
values = {"overlap_sq_space": above * rng.uniform(0.8, 1.0), "eigval_min": rng.normal(-1.0, 0.1)}
values["overlap_sq"] = values["overlap_sq_space"]
values["edge_sample"] = values["eigval_min"] + rng.normal(0.3 - above, 0.1)
return Outcome({name: values[name] for name in NAMES})
"""
GRID = {"p": [1], "a": [0.7], "alpha": [0.6, 0.8, 1.0, 1.2, 1.4], "N": [64, 128, 256], "seeds": 6}
ALL = ("overlap_sq", "overlap_sq_space", "eigval_min", "edge_sample")


def third_party(folder: Path, kernel_file: KernelFile, *names: str) -> Path:
    """A store of an unknown kernel with some of the variables that analyses read."""
    declared = ", ".join(f"Variable({name!r}, 'of somebody else')" for name in names)
    module = kernel_file(VALUES.replace("NAMES", repr(names)), declared)
    run(folder / "s.zarr", module, make_campaign(**GRID))
    return folder / "s.zarr"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all variables that the analyses of a sweep of Hessians read."""
    folder = tmp_path_factory.mktemp("whole")
    return third_party(folder, partial(write_kernel, folder), *ALL)


def opened(store: Path) -> xr.Dataset:
    return xr.open_dataset(store, engine="bendscape", chunks={})


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Install a user's own analysis: a module with ANALYSIS, under a name, in a group."""

    def install(name: str, group: str, source: str) -> None:
        module = f"analysis_of_{name}_{uuid.uuid4().hex}"
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        real, point = analyses.entry_points, EntryPoint(name, f"{module}:ANALYSIS", group)
        monkeypatch.setattr(
            analyses,
            "entry_points",
            lambda *, group: EntryPoints([*real(group=group), *([point] if point.group == group else [])]),
        )

        analyses.theories.cache_clear()

    yield install
    monkeypatch.undo()
    analyses.theories.cache_clear()


SPREAD = """
import xarray as xr
from bendscape.analysis.dataset.analyses import Analysis

def spread(ds, *, of):
    return ds[["x"]].std(of)

ANALYSIS = Analysis("spread", spread, ("x",), {"seed": "seed"})
"""


# -- what an analysis needs


def test_every_installed_analysis_declares_what_it_needs_and_has_the_name_of_its_entry_point() -> None:
    rows = {row["name"]: row for row in describe_analyses()}
    assert {"thresholds", "collapse", "edge_scaling", "drift", "means", "shift_map"} <= set(rows)
    assert not any("error" in row for row in rows.values())
    assert "status" in rows["drift"]["variables"]
    assert "overlap_sq_space or overlap_sq_sample" in rows["drift"]["variables"]
    assert rows["edge_scaling"]["axes"]["alpha"] == "curve"
    assert load_analysis("label_only", THEORIES).name == "label_only"


def test_a_kernel_with_the_variables_of_an_analysis_gets_it(whole: Path) -> None:
    store = whole
    lacking = {row["name"] for row in describe_analyses(opened(store)) if row["lacking"]}
    assert lacking == {"activation_means", "success", "descent", "norm_laws"}  # of other kernels
    found = json.loads(bendscape("thresholds", store, "--json").stdout)
    assert [row["n_cells"] for row in found["rows"]] == [5 * 6] * 3
    assert {row["alpha_gap_sample"]["flag"] for row in found["rows"]} != {"not_enough_data"}
    assert opened(store).bend.analyse("means")["eigval_min"].notnull().all()
    done = bendscape("scaling", store, "--n-boot", 100, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["collapse"]) == 4
    assert "left out" not in done.stderr


def test_a_store_that_lacks_a_variable_is_refused_in_one_line_that_names_it(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store = third_party(tmp_path, kernel_file, *ALL[:-1])
    for command in (("thresholds",), ("claims",), ("report", "-o", tmp_path / "r.html")):
        done = bendscape(command[0], store, *command[1:])
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "must be a sweep with edge_sample; " in line, line
        assert "of kernel probe" in line
    rows = json.loads(bendscape("analyses", store, "--json").stdout)["analyses"]
    lacking = {row["name"]: row["lacking"] for row in rows}
    assert lacking["thresholds"] == lacking["collapse"] == ["edge_sample"]
    assert lacking["edge_scaling"] == lacking["drift"] == lacking["means"] == []
    assert "edge_sample" in bendscape("analyses", store).stdout
    with pytest.raises(ParameterError, match="a sweep with edge_sample; the analysis shift_map needs"):
        opened(store).bend.analyse("shift_map")
    with pytest.raises(ParameterError, match="a sweep with outlier_sample; the analysis edge_scaling needs"):
        opened(store).assign(edge_sample=opened(store).eigval_min).bend.edge_scaling(extra_draws=2)


def test_scaling_computes_what_the_variables_allow_and_reports_what_is_left_out(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    store = third_party(tmp_path, kernel_file, "eigval_min")
    done = bendscape("scaling", store, "--n-boot", 100, "--json", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "left out collapse: this store lacks overlap_sq_space, edge_sample"
    assert "left out drift: this store lacks one of overlap_sq_space, overlap_sq_sample" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["edge_scaling.zarr"]
    assert len(json.loads(done.stdout)["edge_scaling"]) > 0


def test_a_store_without_any_possible_result_is_refused_with_what_it_lacks(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    run(tmp_path / "s.zarr", kernel_file("return Outcome({'x': 1.0})"), make_campaign(**GRID))
    done = bendscape("scaling", tmp_path / "s.zarr")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    lacking = "for collapse overlap_sq_space, eigval_min, edge_sample; for edge_scaling eigval_min"
    assert f"it lacks {lacking}" in line


def test_an_axis_of_another_role_is_not_the_axis_that_is_needed() -> None:
    axes = {"t": ("t", [0.0, 1.0], {"role": "model"})}
    ds = xr.Dataset({"x": ("t", [1.0, 2.0])}, axes)
    of_curve = Analysis("mine", lambda ds: ds, ("x",), {"t": "curve"})
    assert of_curve.lacking(ds) == ["an axis t of the role curve"]
    assert Analysis("mine", lambda ds: ds, ("x",), {"t": "model", "s": "size"}).lacking(ds) == [
        "s among its dimensions"
    ]
    assert of_curve.lacking(ds.assign_coords(t=ds.t.assign_attrs(role="curve"))) == []


def test_a_variable_over_an_inner_dimension_is_not_the_variable_that_is_needed() -> None:
    """A trajectory is not the quantity of the same name at one time; a selected time is."""
    ds = xr.Dataset({"x": (("seed", "time"), np.zeros((2, 3))), "status": ("seed", [1, 1])})
    plain, trajectory = (Analysis("mine", lambda ds: ds, ("x",), {}, inner) for inner in ((), ("time",)))
    assert plain.lacking(ds) == ["x without the dimension time"]
    assert plain.lacking(ds.isel(time=1)) == trajectory.lacking(ds) == []
    either = Analysis("mine", lambda ds: ds, (("x", "y"),), {})
    assert either.lacking(ds) == ["x without the dimension time"]
    assert either.lacking(ds.assign(y=ds["status"])) == []


def test_a_store_says_the_role_of_each_axis(tmp_path: Path, kernel_file: KernelFile) -> None:
    ds = opened(third_party(tmp_path, kernel_file, "eigval_min"))
    roles = {name: ds[name].attrs["role"] for name in ("p", "p_star", "a", "alpha", "N", "seed")}
    assert roles == analyses.NETWORK


# -- theory beside the cells


def test_any_kernel_that_measures_a_label_only_method_has_its_theory_beside_it(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    body = 'return Outcome({"overlap_sq_optimal": rng.uniform()})'
    module = kernel_file(body, 'Variable("overlap_sq_optimal", "of somebody else")')
    around = '{ around = "alpha_bbp", start = 0.8, stop = 1.2, num = 2 }'
    run(tmp_path / "s.zarr", module, make_campaign(alpha=around, p_star=[1, 2], where="alpha > 0", N=[64]))
    ds = opened(tmp_path / "s.zarr")
    assert "lambda_minus_hessian_limit" not in ds, "which this kernel does not measure"
    assert ds.lambda_minus_optimal.dims == ("p", "p_star", "a", "alpha_factor")
    at = {"p": 2, "p_star": 2, "a": 1.5}
    one = ds.sel(at).isel(alpha_factor=1).compute()
    known = spectral_asymptotics(2, SpectralWeights.optimal(), one.alpha.item())
    assert one.lambda_minus_optimal.item() == pytest.approx(known.lambda_minus, rel=1e-12)
    assert one.overlap_sq_theory_optimal.item() == pytest.approx(known.overlap_sq, rel=1e-9, nan_ok=True)


def test_a_broken_theory_of_another_package_leaves_the_cells_readable(
    tmp_path: Path, kernel_file: KernelFile, mine: Callable[[str, str, str], None]
) -> None:
    store = third_party(tmp_path, kernel_file, "eigval_min")
    mine("broken", THEORIES, "import nothing_of_that_name")
    with pytest.warns(UserWarning, match=r"analysis = 'broken'.*ModuleNotFoundError"):
        ds = opened(store)
    assert ds.eigval_min.notnull().all()


# -- analyses of other packages


def test_a_users_own_analysis_is_found_by_name_and_its_needs_are_checked(
    tmp_path: Path, kernel_file: KernelFile, mine: Callable[[str, str, str], None]
) -> None:
    mine("spread", ANALYSES, SPREAD)
    run(tmp_path / "s.zarr", kernel_file("return Outcome({'x': rng.normal()})"), make_campaign(**GRID))
    ds = opened(tmp_path / "s.zarr")
    found = ds.bend.analyse("spread", of="seed")
    np.testing.assert_allclose(found["x"], ds["x"].std("seed"))
    assert "spread" in bendscape("analyses").stdout
    with pytest.raises(ParameterError, match="a sweep with x; the analysis spread needs"):
        ds.drop_vars("x").bend.analyse("spread", of="seed")
    known = r"analysis = .spreed..*one of activation_means, collapse, .*spread"
    with pytest.raises(ParameterError, match=known):
        ds.bend.analyse("spreed")


@pytest.mark.parametrize(
    ("source", "why"),
    [("import nothing_of_that_name", "ModuleNotFoundError"), ("ANALYSIS = 1", "an Analysis of that name")],
)
def test_an_analysis_that_cannot_be_loaded_is_listed_with_its_error(
    mine: Callable[[str, str, str], None], source: str, why: str
) -> None:
    mine("spread", ANALYSES, source)
    (row,) = (row for row in describe_analyses() if row["name"] == "spread")
    assert why in row["error"]
    assert bendscape("analyses").returncode == 0


# -- one function for one estimate


def test_commands_figures_and_report_use_the_same_estimates(whole: Path, tmp_path: Path) -> None:
    for name, of in PASSES.items():
        assert load_analysis(of.analysis.name) is of.analysis, name
    enough = ParameterError("test", "it", "asked no further")
    commands = {
        ("scaling",): ["collapse", "edge_scaling", "drift"],
        ("claims",): ["collapse", "edge_scaling", "means"],
        ("report", "-o", tmp_path / "r.html"): ["means", "collapse", "edge_scaling", "thresholds"],
        ("figures", "--only", "edge", "-o", tmp_path): ["means", "means", "edge_scaling"],
    }
    for command, asked in commands.items():
        with mock.patch.object(Results, "read", autospec=True, side_effect=enough) as read:
            assert "asked no further" in bendscape(command[0], whole, *command[1:]).stderr
            assert list(read.call_args.args[1]) == asked
    ds = opened(whole)
    with mock.patch.object(Analysis, "sweep", autospec=True, side_effect=enough) as sweep:
        for method in ("thresholds", "collapse", "edge_scaling", "drift"):
            with pytest.raises(ParameterError, match="asked no further"):
                getattr(ds.bend, method)()
            assert sweep.call_args.args[0] is load_analysis(method)


def test_an_estimate_is_imported_only_when_it_is_used() -> None:
    script = (
        "import sys, bendscape.analysis.commands, bendscape.sweep.commands.cli; "
        "print(*(name for name in sys.modules if name.startswith('bendscape.analysis.') or name == 'xarray'))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    commands = {"commands", "one_model", "refine", "refine.command"}  # what these need comes when they run
    assert set(shown.stdout.split()) == {f"bendscape.analysis.{name}" for name in commands}
