"""The contracts of the command line: one JSON document on stdout, one clear line on stderr, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from command_line import bendscape, process

from bendscape.sweep.campaign.loading import load_kernel
from campaigns import RANDOM, IdleExecutor, campaign_text, make_campaign, run

COMMANDS = (
    *("theory", "sample", "plan", "run", "status", "errors", "fsck", "kernels"),
    *("export", "scaling", "thresholds", "claims", "figures", "report", "analyses"),
)
OWN = """
from bendscape.sweep.campaign.axes import Axes, Axis
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable

print("a module may print")
AXES = Axes((Axis("rule", "str", choices=("hebb", "storkey"), default="hebb"), Axis("seed", "int64", "seed")))
KERNEL = Kernel(
    "own", 3, (Variable("x", "a number", units="s"),), lambda cell, rng: Outcome({"x": 1.0}),
    lambda cell: 1.0, lambda cell: 1.0, axes=AXES,
)
"""
KernelFile = Callable[..., str]


def document(*arguments: object, code: int = 0) -> Any:
    done = bendscape(*arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def hessians(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store, which no test changes, and beside it its campaign file."""
    folder = tmp_path_factory.mktemp("hessians")
    file = folder / "hessians.toml"
    text = campaign_text(p=[1], a=[0.7], alpha="{ start = 0.6, stop = 2.6, num = 6 }", N=[32, 64], seeds=12)
    store = folder / "hessians.zarr"
    text = text.replace('kernel = "probe"', 'kernel = "hessian"').replace('"unused"', f'"{store}"')
    file.write_text(text)
    assert bendscape("run", file, "--address", "serial").returncode == 0
    return store


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['bendscape', '--help']\n"
        "from bendscape.sweep.commands.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', *sorted(m for m in sys.modules if '.' not in m))"
    )
    shown = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60)
    for command in COMMANDS:
        assert f" {command} " in shown
    loaded = set(shown.rpartition("LOADED")[2].split())
    assert not loaded & {
        "numpy",
        "scipy",
        "ray",
        "zarr",
        "xarray",
        "dask",
        "pandas",
        "matplotlib",
        "pydantic",
        "obstore",
    }


def test_the_version_is_that_of_the_package_by_the_command_and_by_the_module() -> None:
    module = [sys.executable, "-m", "bendscape.sweep", "--version"]
    shown = subprocess.check_output(module, text=True, timeout=60)
    assert shown == bendscape("--version").stdout == f"bendscape {version('bendscape')}\n"


def test_kernels_lists_axes_variables_and_references_of_every_installed_kernel() -> None:
    found = {kernel["name"]: kernel for kernel in document("kernels")["kernels"]}
    assert {"hessian", "labels", "spectral", "theory"} <= found.keys()
    hessian = found["hessian"]
    assert hessian["version"] == load_kernel("hessian").version
    axes = {axis["name"]: axis for axis in hessian["axes"]}
    assert list(axes) == ["p", "p_star", "a", "noise", "alpha", "N", "seed"]
    assert (axes["a"]["dtype"], axes["a"]["role"], axes["a"]["accepted"]) == (
        "float64", "model", "finite numbers > 0",
    )  # fmt: skip
    assert axes["alpha"]["relative_to"] == ["alpha_bbp", "alpha_0"]
    overlap = next(v for v in hessian["variables"] if v["name"] == "overlap_sq")
    assert overlap["valid_range"] == [0, 1]
    assert [of["over"] for of in hessian["references"]] == [
        ["p", "p_star", "a", "noise"],
        ["p", "p_star", "a", "noise", "alpha"],
    ]
    printed = bendscape("kernels").stdout
    assert "number >= 1e-10 and <= 0.001" in printed, "what an option accepts"
    for name in (*axes, "overlap_sq", "alpha_bbp", "lambda_star"):
        assert f" {name} " in printed


def test_kernels_lists_a_module_of_ones_own_with_its_defaults_and_choices(tmp_path: Path) -> None:
    module = tmp_path / "own.py"
    module.write_text(OWN)
    found = {k["name"]: k for k in document("kernels", "--kernel-module", module)["kernels"]}
    assert "hessian" in found
    assert [axis["default"] for axis in found["own"]["axes"]] == ["hebb", None]
    assert found["own"]["axes"][0]["accepted"] == "one of hebb, storkey"
    printed = bendscape("kernels", "--kernel-module", module).stdout
    assert f"own, version 3, from a source with digest {found['own']['source'].split()[-1]}" in printed
    assert "one of hebb, storkey   hebb" in printed
    chosen = document("kernels", "own", "labels", "--kernel-module", module)["kernels"]
    assert {kernel["name"] for kernel in chosen} == {"own", "labels"}
    failed = bendscape("kernels", "owm")
    assert failed.returncode == 2
    assert failed.stderr.startswith(
        "error: kernel = 'owm' is not accepted: kernel must be one of activations, "
    )
    failed = bendscape("kernels", "--kernel-module", tmp_path / "none.py")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: --kernel-module = ")
    assert len(failed.stderr.splitlines()) == 1


def test_theory_prints_the_contract() -> None:
    found = document(
        "theory", "--p", 1, "--p-star", 1, "--a", 1.5, "--alpha", 2.0618, "--alpha", 1.2, "--size", 1e10
    )
    contract = {
        "p",
        "p_star",
        "a",
        "alpha_bbp",
        "transition",
        "alpha_0",
        "alpha_sharp",
        "points",
        "sizes",
    }
    assert set(found) == contract | {"a_tricritical", "overlap_sq_jump", "errors"}
    assert found["a_tricritical"] == pytest.approx(1.10876, abs=5e-6)
    assert 0 < found["errors"]["alpha_bbp_error"] < 1e-13
    assert found["alpha_bbp"] == pytest.approx(1.3745292310, abs=5e-11)
    assert found["transition"] == "discontinuous"
    assert set(found["alpha_0"]) == {"principal_value", "tangent", "complex_re", "complex_im"}
    assert found["alpha_0"]["principal_value"] == pytest.approx(1.0964, abs=5e-5)
    above, below = found["points"]
    point = {"alpha", "edge", "lambda_minus", "lambda_star", "overlap_sq"}
    assert set(above) == point | {"lambda_minus_error", "lambda_star_error", "overlap_sq_error"}
    assert (above["lambda_star"], above["overlap_sq"]) == pytest.approx((-1.6690, 0.1731), abs=5e-5)
    assert (below["lambda_star"], below["overlap_sq"]) == (None, None)
    assert found["sizes"][0]["alpha_bbp_at_size"] == pytest.approx(1.191, abs=5e-4)
    assert found["sizes"][0]["seen"] == "threshold seen, between alpha_0 and alpha_bbp"


def test_theory_handles_infinite_width_and_a_branch_without_a_zero() -> None:
    wide = document("theory", "--p", "inf", "--a", 1.5)
    assert (wide["p"], wide["transition"]) == ("inf", "discontinuous")
    assert wide["alpha_bbp"] == pytest.approx(1.25, rel=1e-14)
    assert document("theory", "--p", 4, "--a", 1.5)["alpha_0"]["principal_value"] is None


def test_theory_prints_a_table_for_people() -> None:
    shown = bendscape("theory", "--a", 0.7, "--alpha", 1.5).stdout
    assert "1.243387989" in shown
    assert "continuous" in shown


def test_sample_gives_the_kernels_variables_and_their_cost() -> None:
    call = (
        "sample",
        "--p",
        2,
        "--p-star",
        1,
        "--a",
        1.5,
        "--alpha",
        2.5,
        "--size",
        64,
        "--seed",
        3,
        "--method",
    )
    dense, explicit = document(*call, "dense"), document(*call, "explicit")
    for name in ("eigval_min", "eigval_second", "overlap_sq", "overlap_sq_space"):
        assert dense[name] == pytest.approx(explicit[name], abs=1e-8)
    assert {
        "edge_sample",
        "outlier_sample",
        "overlap_sq_sample",
        "alpha_realised",
        "n_matvecs",
        "residual",
    } <= set(dense)
    assert dense["method"] == "dense"
    assert dense["seconds"] > 0
    assert dense["peak_bytes"] > 2**20


def test_plan_shows_what_would_run_and_writes_nothing(tmp_path: Path, kernel_file: KernelFile) -> None:
    file, store = tmp_path / "c.toml", tmp_path / "c.zarr"
    file.write_text(campaign_text())
    found = document("plan", file, "--store", store, "--kernel-module", kernel_file(RANDOM))
    assert (found["cells"], found["cells_left"]) == (144, 144)
    assert found["core_hours"] == pytest.approx(144 * 0.25 / 3600)
    assert found["bytes"] == 144 * 9
    assert found["tiles"] == 24
    assert found["objects"] == 24 * 2
    assert found["tasks"] > 1
    assert found["peak_bytes_per_task"] > 1e6
    assert [size["N"] for size in found["sizes"]] == [64, 128]
    assert not store.exists()


def test_run_then_plan_status_and_errors_agree(tmp_path: Path, kernel_file: KernelFile) -> None:
    module = kernel_file(f"if cell.seed == 2:\n    raise ValueError('no luck')\n{RANDOM}")
    file, store = tmp_path / "c.toml", tmp_path / "c.zarr"
    file.write_text(campaign_text())
    common = ("--store", store, "--kernel-module", module)
    ran = document("run", file, *common, "--address", "serial", code=1)
    assert (ran["done"], ran["failed"], ran["missing"], ran["exit_code"]) == (120, 24, 0, 1)
    assert document("plan", file, *common)["cells_left"] == 0
    status = document("status", store)
    assert (status["done"], status["failed"], status["missing"], status["holder"]) == (120, 24, 0, None)
    assert status["provenance"]["bendscape_version"].startswith(version("bendscape"))
    errors = document("errors", store)["errors"]
    assert len(errors) == 24
    assert {(error["error"], error["message"], error["cell"]["seed"]) for error in errors} == {
        ("ValueError", "no luck", 2)
    }
    assert bendscape("errors", store).stdout.count("Traceback") == 24


def test_status_of_an_unfinished_campaign_counts_what_is_left(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    file, store = tmp_path / "c.toml", tmp_path / "c.zarr"
    file.write_text(campaign_text())
    module = kernel_file(RANDOM)
    common = ("--store", store, "--kernel-module", module, "--address", "serial")
    stopped = document("run", file, *common, "--time-budget", "0.001s", code=75)
    assert (stopped["outcome"], stopped["missing"]) == ("stopped", 144)
    run(store, module, make_campaign(), IdleExecutor())
    status = document("status", store)
    assert (status["missing"], status["done"]) == (144, 0)


def test_scaling_prints_and_stores_critical_loads_and_laws(hessians: Path, tmp_path: Path) -> None:
    store = hessians.with_suffix(".zarr")
    place = tmp_path / "out"
    options = ("--least-size", 16, "--n-boot", 100)
    found = document("scaling", store, "-o", place, *options)
    assert {row["estimator"] for row in found["collapse"]} == {
        "collapse", "theory_curve", "crossing", "square_root"
    }  # fmt: skip
    row = found["collapse"][0]
    assert (row["p"], row["a"], row["transition"]) == (1, 0.7, "continuous")
    assert row["definitions"]["alpha_bbp"]["theory"] == pytest.approx(1.2433879894, rel=1e-9)
    loads = xr.open_zarr(place / "collapse.zarr", consolidated=False)
    assert loads["alpha_bbp"].values.item() == row["definitions"]["alpha_bbp"]["theory"]
    assert "law" in xr.open_zarr(place / "edge_scaling.zarr", consolidated=False)
    table = bendscape("scaling", store, *options)
    assert table.returncode == 0
    assert "theory_curve" in table.stdout
    assert (
        "no law of the edge: it needs, at a load below threshold, 3 sizes of N >= 16 with 6" in table.stderr
    )
    assert "Lowest eigenvalue against N" not in table.stdout
    assert document("scaling", store, "--n-boot", 100)["collapse"] == found["collapse"], (
        "32 and 64: no two reach 256"
    )
    assert bendscape("scaling", store, "-o", place, *options).returncode == 0, "it replaces its own"
    (place / "edge_scaling.zarr" / "zarr.json").write_text("{}")
    again = bendscape("scaling", store, "-o", place)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)


def test_a_real_campaign_ends_in_thresholds_figures_and_a_report(hessians: Path, tmp_path: Path) -> None:
    rows = document("thresholds", hessians)["rows"]
    assert [row["N"] for row in rows] == [32, 64]
    assert {row["transition"] for row in rows} == {"continuous"}
    assert rows[0]["alpha_bbp"] == pytest.approx(1.2433879894, abs=5e-11)
    files = document("figures", hessians, "-o", tmp_path / "figures", "--format", "png")["files"]
    assert all(Path(file).stat().st_size > 0 for file in files)
    assert document("report", hessians, "-o", tmp_path / "r.html")["output"] == str(tmp_path / "r.html")
    assert "1.2433879894" in (tmp_path / "r.html").read_text()


def test_help_of_sample_names_every_method() -> None:
    from bendscape.core.quadratic.sampling.cost import METHODS

    words = set(re.findall(r"\w+", bendscape("sample", "--help").stdout))
    assert set(METHODS) <= words


def test_run_with_report_prints_the_table_and_writes_the_page_and_its_folders(
    hessians: Path, tmp_path: Path
) -> None:
    page = tmp_path / "new" / "folder" / "r.html"
    done = bendscape("run", hessians.with_suffix(".toml"), "--address", "serial", "--report", page)
    assert done.returncode == 0, done.stderr
    assert "1.243388" in done.stdout
    assert page.stat().st_size > 10_000
    assert "0 computed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("theory", "--p", 0, "--a", 1), "p = 0"),
        (("theory", "--p", 1.5, "--a", 1), "p = 1.5"),
        (("theory", "--p", "wide", "--a", 1), "p = 'wide'"),
        (("theory", "--p-star", -1, "--a", 1), "p_star = -1"),
        (("theory", "--a", 0), "a = 0.0"),
        (("theory", "--a", "nan"), "a = nan"),
        (("theory", "--a", "1e-300"), "a = 1e-300"),
        (("theory", "--a", "1e300"), "a = 1e+300"),
        (("theory", "--a", 1, "--alpha", -2), "alpha = -2.0"),
        (("theory", "--a", "x"), "'--a'"),
        (("theory", "map"), "'--output'"),
        (("theroy",), "theroy"),
        (("sample", "--a", 1, "--colour", "red"), "--colour"),
        (("theory", "--a", 1, "--alpha", "1e300"), "alpha = 1e+300"),
        (("theory", "--a", 1, "map", "-o", "/dev/null/map.zarr"), "--a = 1.0"),
        (("theory", "--json", "map", "-o", "/dev/null/map.zarr"), "--json = True"),
        (("theory", "map", "-o", "/dev/null/map.zarr"), "--output = '/dev/null/map.zarr'"),
        (("theory", "map", "-o", "map.zarr", "--figure", "/dev/null/map.svg"), "--figure"),
        (("sample", "--a", 1, "--alpha", 0.01, "--size", 64), "alpha"),
        (("sample", "--a", 1, "--alpha", 1, "--size", 64, "--method", "magic"), "method = 'magic'"),
        (("sample", "--a", 1, "--alpha", 1, "--size", 64, "--seed", -1), "seed = -1"),
        (("sample", "--p", "inf", "--a", 1, "--alpha", 1, "--size", 64), "p = inf"),
        (("plan", "nothing.toml"), "nothing.toml"),
        (("status", "nothing.zarr"), "nothing.zarr"),
        (("errors", "ftp://nothing"), "store = 'ftp://...'"),
        (("thresholds", "nothing.zarr"), "nothing.zarr"),
    ],
)
def test_bad_input_is_one_line_on_stderr_and_exit_code_2(arguments: tuple[object, ...], named: str) -> None:
    done = bendscape(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert named in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("theory", "--a", "x"),
        ("theory", "--p", "inf", "--a", "1e-6", "--json"),
        ("sample", "--a", 1, "--alpha", 1, "--size", 64, "--seed", -1),
    ],
    ids=["usage", "warning", "refused"],
)
def test_a_command_in_its_own_process_behaves_as_in_these_tests(
    arguments: tuple[object, ...],
) -> None:
    ours, own = bendscape(*arguments), process(*arguments)
    assert (own.returncode, own.stdout, own.stderr) == (ours.returncode, ours.stdout, ours.stderr)
    assert own.stderr


def test_lost_precision_is_reported_once_in_one_line() -> None:
    done = bendscape("theory", "--p", "inf", "--a", "1e-6")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: overlap_sq_jump = 1.9999")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--time-budget", "soon"), "'soon'"),
        (("--time-budget", "7200"), "'7200'"),
        (("--address", "127.0.0.1:9"), "nothing answers"),
        (("--report", "/dev/null/at/all.html"), "--report"),
        (("--workers", 0), "'--workers'"),
        (("--address", "auto"), "'auto'"),
        (("--kernel-module", "no.such.module"), "no.such.module"),
        ((), "campaign.kernel = 'probe'"),
    ],
)
def test_bad_options_of_run_are_one_line_and_leave_no_store(
    tmp_path: Path, kernel_file: KernelFile, options: tuple[object, ...], named: str
) -> None:
    file, store = tmp_path / "c.toml", tmp_path / "c.zarr"
    file.write_text(campaign_text())
    module = ("--kernel-module", kernel_file(RANDOM)) if options else ()
    done = bendscape("run", file, "--store", store, *module, *options)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert named in line
    assert not store.exists()


def test_a_second_driver_is_refused_with_the_holders_name(tmp_path: Path, kernel_file: KernelFile) -> None:
    from bendscape.sweep.location import store_url
    from bendscape.sweep.store.ledger import Ledger
    from bendscape.sweep.store.objects import connect

    module, store, file = kernel_file(RANDOM), tmp_path / "c.zarr", tmp_path / "c.toml"
    run(store, module, make_campaign())
    file.write_text(campaign_text(seeds=8))
    ledger = Ledger(connect(store_url(store)))
    ledger.acquire(print)
    done = bendscape("run", file, "--store", store, "--kernel-module", module, "--address", "serial")
    assert done.returncode == 2
    assert "held by" in done.stderr
    ledger.release()
    done = bendscape("run", file, "--store", store, "--kernel-module", module, "--address", "serial")
    assert done.returncode == 0


def test_a_sample_that_does_not_converge_says_so_and_fails() -> None:
    done = bendscape(
        "sample", "--a", 1, "--alpha", 0.25, "--size", 8, "--method", "dice", "--seed", 1, "--json"
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["converged"] is False
    assert "not converged" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
