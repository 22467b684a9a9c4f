"""Kernels: the documented example runs, campaign files execute nothing, and breaches of the contract are
reported."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from command_line import bendscape, process
from scipy.linalg import eigvalsh

from bendscape.core import Model, ParameterError, bulk_density, dense_hessian, sample_instance
from bendscape.sweep.campaign import loading
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.file import load_campaign, parse_campaign
from bendscape.sweep.campaign.kernel import Outcome
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.campaign.outcomes import BadOutcome
from bendscape.sweep.engine.plan import plan_campaign
from bendscape.sweep.kernels.hessian import KERNEL as HESSIAN
from bendscape.sweep.kernels.quadratic import AXES
from bendscape.sweep.store.publish import silence_zarr
from campaigns import RANDOM, campaign_text, make_campaign, run

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs" / "my_kernel.py"
CELL = AXES.cell(p=1, p_star=1, a=0.7, alpha=1.5, N=64, seed=0)
SMALL = {"p": [1], "a": [0.7], "alpha": [1.0], "N": [64], "seeds": 4}

MODULE = """
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable
KERNEL = Kernel({arguments})
"""
GOOD = {
    "name": "'mine'",
    "version": "1",
    "variables": "(Variable('x', 'a number'), Variable('n', 'a count', dtype='int8'))",
    "compute": "lambda cell, rng: Outcome({'x': 0.5, 'n': 1})",
    "seconds": "lambda cell: 0.25",
    "peak_bytes": "lambda cell: 1e6",
}


def module(path: Path, **changes: str) -> str:
    """A module with a valid KERNEL except for the changes, given as source code."""
    path.write_text(MODULE.format(arguments=", ".join(f"{k}={v}" for k, v in (GOOD | changes).items())))
    return str(path)


def refused(done: subprocess.CompletedProcess[str], *named: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    for name in named:
        assert name in line


def test_the_example_on_the_page_is_the_file_and_has_at_most_thirty_lines() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert f"```python\n{text}```\n" in (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30


def test_the_example_runs_from_the_command_line_and_agrees_with_a_direct_computation(tmp_path: Path) -> None:
    file, store = ROOT / "campaigns" / "index.toml", tmp_path / "index.zarr"
    call = ("run", file, "--kernel-module", EXAMPLE, "--store", store, "--address", "serial", "--json")
    done = process(*call)
    assert done.returncode == 0, done.stderr
    campaign = load_campaign(file)
    assert json.loads(done.stdout)["done"] == campaign.to_grid(AXES).cell_count() == 256
    silence_zarr()
    with xr.open_dataset(store, engine="bendscape") as ds:
        for p, alpha, N, seed in ((1, 1.5, 64, 0), (2, 4.0, 128, 15)):
            cell = AXES.cell(p=p, p_star=1, a=0.7, alpha=alpha, N=N, seed=seed)
            rng = cell_rng(campaign.campaign.entropy, cell)
            stored = ds.sel(p=p, p_star=1, a=0.7, alpha=alpha, N=N, seed=seed)
            for name, inputs in (("index", "gaussian"), ("index_signs", "rademacher")):
                instance = sample_instance(Model(p, 1, 0.7), alpha, N, rng, inputs=inputs)
                assert stored[name].item() == (eigvalsh(dense_hessian(instance)) < 0).mean()
        # Four standard errors and the finite-N shift: both laws of the data share one limit.
        expected = bulk_density(Model(2, 1, 0.7), 2.0, [-1e-9]).integrated[0]
        means = ds[["index", "index_signs"]].sel(p=2, alpha=2.0, N=128).mean("seed")
        assert means["index"].item() == pytest.approx(expected, abs=0.03)
        assert means["index_signs"].item() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    "named", ["{file}", "{stem}", "os", "my_package.kernel:KERNEL", "bendscape.sweep.kernels.hessian", ""]
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_campaign_file_that_names_anything_but_a_kernel_executes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, verb: str
) -> None:
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trap", raising=False)
    kernel = named.format(file=trap, stem="trap")
    file = tmp_path / "c.toml"
    file.write_text(campaign_text().replace('"probe"\n\n', f'"{kernel}"\n\n'))
    done = bendscape(verb, file, "--store", tmp_path / "c.zarr")
    known = "activations, descent, hessian, inverse_ising, labels, memory, perceptron, spectral, theory"
    refused(done, "campaign.kernel", known, "--kernel-module")
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "c.zarr").exists()
    refused(bendscape(verb, file, "--kernel-module", "trap", "--store", tmp_path / "c.zarr"), "KERNEL")
    assert (tmp_path / "executed").exists(), "the trap works: named on the command line it runs"


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("", "a module whose KERNEL is a bendscape Kernel"),
        ("KERNEL = 'hessian'", "a module whose KERNEL is a bendscape Kernel"),
        ("\nimport no_such_module", "No module named 'no_such_module' (broken.py, line 2)"),
        ("def compute(:", "SyntaxError"),
        ("x = 1\ny = 1 / 0\n", "ZeroDivisionError: division by zero (broken.py, line 2)"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_a_module_without_a_kernel_is_refused_in_one_line_and_leaves_no_store(
    tmp_path: Path, source: str, named: str
) -> None:
    broken, file = tmp_path / "broken.py", tmp_path / "c.toml"
    broken.write_text(source)
    file.write_text(campaign_text())
    done = bendscape("run", file, "--kernel-module", broken, "--store", tmp_path / "c.zarr")
    refused(done, "--kernel-module", named)
    assert not (tmp_path / "c.zarr").exists()


@pytest.mark.parametrize("named", ["nothing.py", "no.such.module", "", "."])
def test_a_module_that_is_not_there_is_refused(named: str) -> None:
    with pytest.raises(ParameterError, match="--kernel-module"):
        load_kernel("mine", [named])


def test_a_module_is_named_by_a_path_or_a_dotted_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = module(tmp_path / "mine_by_name.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    for named in (path, "mine_by_name"):
        assert load_kernel("mine", [named]).name == "mine"
    assert load_kernel("mine", [path, path]).name == "mine", "the same module twice is one kernel"


def test_two_kernels_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second = module(tmp_path / "first.py"), module(tmp_path / "second.py")
    with pytest.raises(ParameterError, match=r"'mine' .*second\.py has the name of another"):
        load_kernel("mine", [first, second])
    shadow = module(tmp_path / "shadow.py", name="'hessian'")
    for asked in ("hessian", "theory"):
        with pytest.raises(ParameterError, match=r"'hessian' .*shadow\.py has the name of an installed"):
            load_kernel(asked, [shadow])


def test_an_installed_kernel_is_found_by_its_name_and_nothing_else_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module(tmp_path / "of_a_package.py")
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('imported')")
    points = [
        EntryPoint("mine", "of_a_package:KERNEL", "bendscape.kernels"),
        EntryPoint("other", "of_a_package:KERNEL", "bendscape.kernels"),
        EntryPoint("broken", "broken_package:KERNEL", "bendscape.kernels"),
    ]
    monkeypatch.setattr(loading, "entry_points", lambda group: EntryPoints(points))
    assert load_kernel("mine").version == 1
    with pytest.raises(ParameterError, match=r"'mine' is not accepted: KERNEL\.name must be 'other'"):
        load_kernel("other")
    with pytest.raises(ParameterError, match=r"RuntimeError: imported \(broken_package.py, line 1\)"):
        load_kernel("broken")
    with pytest.raises(ParameterError, match="broken, mine, other"):
        load_kernel("absent")
    points.append(EntryPoint("mine", "broken_package:KERNEL", "bendscape.kernels"))
    with pytest.raises(ParameterError, match="both installed"):
        load_kernel("mine")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"variables": "()"}, "KERNEL.variables = ()"),
        ({"variables": "[Variable('x', 'a')]"}, "a tuple of at least one Variable"),
        ({"variables": "('x',)"}, "KERNEL.variables = 'x'"),
        ({"variables": "(Variable('x', 'a'), Variable('x', 'b'))"}, "distinct names"),
        ({"variables": "(Variable('status', 'a'),)"}, "KERNEL.variables = 'status'"),
        ({"variables": "(Variable('seed', 'a'),)"}, "KERNEL.variables = 'seed'"),
        ({"variables": "(Variable('../x', 'a'),)"}, "KERNEL.variables = '../x'"),
        (
            {"variables": "(Variable('x', 'a', dtype='float16'),)"},
            "float64, float32, complex128, complex64, int64, int8",
        ),
        ({"variables": "(Variable('x', 'a', valid_range=(1, 0)),)"}, "valid_range of x, = (1, 0)"),
        ({"variables": "(Variable('x', 'a', valid_range=0.5),)"}, "two numbers (low, high), low <= high"),
        ({"name": "''"}, "KERNEL.name = ''"),
        ({"name": "3"}, "KERNEL.name = 3"),
        ({"version": "'1'"}, "KERNEL.version = '1'"),
        ({"version": "0"}, "KERNEL.version = 0"),
        ({"compute": "None"}, "KERNEL.compute = None"),
        ({"seconds": "0.25"}, "KERNEL.seconds = 0.25"),
    ],
)
def test_a_malformed_declaration_is_refused_when_it_is_loaded(
    tmp_path: Path, changes: dict[str, str], named: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        load_kernel("mine", [module(tmp_path / "mine.py", **changes)])
    assert named in str(caught.value)
    assert "mine.py" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seconds": "lambda cell: float('nan')"}, "KERNEL.seconds = nan"),
        ({"seconds": "lambda cell: float('inf')"}, "KERNEL.seconds = inf"),
        ({"seconds": "lambda cell: -1.0"}, "KERNEL.seconds = -1.0"),
        ({"seconds": "lambda cell: 0"}, "KERNEL.seconds = 0.0"),
        ({"seconds": "lambda cell: cell.size"}, "AttributeError"),
        ({"seconds": "lambda cell: None"}, "TypeError"),
        ({"peak_bytes": "lambda cell: -1"}, "KERNEL.peak_bytes = -1.0"),
        ({"peak_bytes": "lambda cell: float('nan')"}, "KERNEL.peak_bytes = nan"),
    ],
)
def test_an_invalid_estimate_is_refused_by_the_plan(
    tmp_path: Path, changes: dict[str, str], named: str
) -> None:
    kernel = load_kernel("mine", [module(tmp_path / "mine.py", **changes)])
    with pytest.raises(ParameterError) as caught:
        plan_campaign(make_campaign(), kernel)
    assert named in str(caught.value)
    assert "p=" in str(caught.value), "the line names the cell"


def test_a_malformed_kernel_is_one_line_of_the_command_line(tmp_path: Path) -> None:
    path = module(tmp_path / "mine.py", seconds="lambda cell: float('nan')")
    file = tmp_path / "c.toml"
    file.write_text(campaign_text().replace("probe", "mine"))
    refused(
        bendscape("run", file, "--kernel-module", path, "--store", tmp_path / "c.zarr"),
        "KERNEL.seconds = nan",
    )
    assert not (tmp_path / "c.zarr" / "zarr.json").exists()


class Masses(float):
    """A number that carries more than its value: here, a unit."""


class Convertible:
    def __float__(self) -> float:
        return 0.5

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        return np.array(0.5)


BAD_FLOATS: list[tuple[object, str]] = [
    ("1.0", "not str"),
    (b"1", "not bytes"),
    (np.str_("1"), "not str_"),
    (None, "not NoneType"),
    (1j, "not complex"),
    (np.complex128(1), "not complex128"),
    ([1.0, 2.0], "not list"),
    ([1.0], "not list"),
    (np.array([1.0]), "an array of shape (1,)"),
    (np.ma.masked, "a masked value"),
    (np.ma.array(1.0, mask=True), "a masked value"),
    (np.ma.array(1.0), "a masked value"),
    (Decimal("0.1"), "not Decimal"),
    (Fraction(1, 3), "not Fraction"),
    (np.longdouble(1) / 3, "not longdouble"),
    (np.datetime64(5, "ns"), "not datetime64"),
    (np.timedelta64(5, "ns"), "not timedelta64"),
    (np.array(5, dtype="m8[ns]"), "not ndarray"),
    (np.array(0.5, dtype=object), "not ndarray"),
    (True, "not bool"),
    (np.True_, "not bool"),
    (Masses(0.5), "not Masses"),
    (Convertible(), "not Convertible"),
    (xr.DataArray(0.5), "not DataArray"),
    (2**53 + 1, "9007199254740993 is not exactly a float64"),
    (np.uint64(2**64 - 1), "18446744073709551615 is not exactly a float64"),
    (10**400, "an integer of more than 40 digits is not exactly a float64"),
]
BAD_INTEGERS: list[tuple[object, str]] = [
    (1.0, "not float"),
    (np.float64(1.0), "not float64"),
    (np.array(1.0), "not ndarray"),
    (128, "128 is outside the range of int8"),
    (np.int64(-129), "-129 is outside the range of int8"),
    (-128, "-128 is outside the range of int8 variables, -127 to 127"),  # stands for a missing value
    (IntEnum("Kind", "sharp").sharp, "not Kind"),
    (np.ma.masked, "a masked value"),
    ("1", "not str"),
]


def outcome_of(tmp_path: Path, outcome: object) -> Outcome:
    """What a kernel of a float64 x and an int8 n is taken to have returned."""
    declared = load_kernel("mine", [module(tmp_path / "m.py")])
    held = dataclasses.replace(declared, compute=lambda cell, rng: outcome)  # type: ignore[arg-type, return-value]
    return loading.hold(held, "a test").compute(CELL, np.random.default_rng(1))


@pytest.mark.parametrize(("value", "message"), BAD_FLOATS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_value_that_is_not_a_plain_number_is_not_converted(
    tmp_path: Path, value: object, message: str
) -> None:
    with pytest.raises(BadOutcome, match=r"^x ") as caught:
        outcome_of(tmp_path, Outcome({"x": value, "n": 1}))  # type: ignore[dict-item]
    assert message in str(caught.value)


@pytest.mark.parametrize(("value", "message"), BAD_INTEGERS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_value_that_is_not_an_integer_in_range_is_not_converted(
    tmp_path: Path, value: object, message: str
) -> None:
    with pytest.raises(BadOutcome, match=r"^n ") as caught:
        outcome_of(tmp_path, Outcome({"x": 0.5, "n": value}))  # type: ignore[dict-item]
    assert message in str(caught.value)


@pytest.mark.parametrize("converged", [None, 1, 0.0, "no", np.array(False), np.array([True]), np.ma.masked])
def test_converged_must_be_exactly_true_or_false(tmp_path: Path, converged: object) -> None:
    with pytest.raises(BadOutcome, match="converged must be True or False"):
        outcome_of(tmp_path, Outcome({"x": 0.5, "n": 1}, converged=converged))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "stored"),
    [
        (0.1, 0.1),
        (3, 3.0),
        (-(2**53), -(2.0**53)),
        (2**60, 2.0**60),
        (np.float16(0.1), float(np.float16(0.1))),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.array(0.1), 0.1),
        (np.array(0.1, dtype=">f8"), 0.1),
        (np.uint8(200), 200.0),
        (-0.0, -0.0),
        (math.inf, math.inf),
    ],
)
def test_a_number_that_its_variable_holds_exactly_is_stored_as_it_is(
    tmp_path: Path, x: float, stored: float
) -> None:
    value = outcome_of(tmp_path, Outcome({"x": x, "n": np.int64(-127)})).values["x"]
    assert np.float64(value).tobytes() == np.float64(stored).tobytes()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": 1.0}, "compute returned no value for n"),
        ({"x": 1.0, "n": 1, "m": 2}, "compute returned m, which KERNEL.variables does not declare"),
        ([("x", 1.0), ("n", 1)], "the values of an Outcome must be a mapping, not list"),
        ("xn", "the values of an Outcome must be a mapping, not str"),
    ],
)
def test_an_outcome_has_the_declared_values_and_no_other(
    tmp_path: Path, values: object, message: str
) -> None:
    with pytest.raises(BadOutcome, match=message):
        outcome_of(tmp_path, Outcome(values))  # type: ignore[arg-type]


def test_a_masked_value_fails_its_cell_and_no_other(tmp_path: Path) -> None:
    bad = "lambda cell, rng: Outcome({'x': np.ma.masked if cell.seed == 2 else 0.5, 'n': 1})"
    path = module(tmp_path / "mine.py", compute=bad)
    Path(path).write_text("import numpy as np\n" + Path(path).read_text())
    campaign = parse_campaign(campaign_text(**SMALL).replace("probe", "mine"))
    summary = run(tmp_path / "c.zarr", path, campaign)
    assert (summary.done, summary.failed) == (3, 1)
    with xr.open_dataset(tmp_path / "c.zarr", engine="bendscape") as ds:
        assert ds.status.values.ravel().tolist() == [1, 1, 2, 1]
        assert np.isnan(ds.x.values.ravel()).tolist() == [False, False, True, False]
    with xr.open_dataset(tmp_path / "c.zarr", engine="bendscape", group="errors") as errors:
        assert errors.error.item() == "BadOutcome"


def test_a_value_outside_the_declared_range_fails_its_cell_and_the_range_is_stored_with_the_data(
    tmp_path: Path,
) -> None:
    declared = "(Variable('x', 'a', valid_range=(0, 1)), Variable('n', 'b', 'int8', valid_range=(0, 9)))"
    undeclared = declared.replace("'n', 'b', 'int8', valid_range=(0, 9)", "'overlap_sq_space', 'b'")
    summaries = {}
    for stem, variables, returned in (
        ("mine", declared, "{'x': (0.5, 50.0, -0.3, 1 + 1e-9)[cell.seed], 'n': 1}"),
        ("other", undeclared, "{'x': 0.5, 'overlap_sq_space': 50.0}"),
    ):
        compute = f"lambda cell, rng: Outcome({returned})"
        path = module(tmp_path / f"{stem}.py", name=repr(stem), variables=variables, compute=compute)
        campaign = make_campaign(**SMALL)
        named = campaign.campaign.model_copy(update={"kernel": stem})
        store = tmp_path / f"{stem}.zarr"
        summaries[stem] = run(store, path, campaign.model_copy(update={"campaign": named}))
        ds = xr.open_dataset(str(store), engine="bendscape")
        assert (ds["x"].attrs["valid_min"], ds["x"].attrs["valid_max"]) == (0.0, 1.0)
    assert (summaries["mine"].done, summaries["mine"].failed) == (2, 2)
    assert (summaries["other"].done, summaries["other"].failed) == (4, 0)
    # what analyses read under a known name has its range, whichever kernel measured it
    assert (ds["overlap_sq_space"].attrs["valid_min"], ds["overlap_sq_space"].attrs["valid_max"]) == (0, 1)
    errors = xr.open_dataset(str(tmp_path / "mine.zarr"), engine="bendscape", group="errors")
    messages = {str(message) for message in errors["message"].values}
    assert messages == {f"x = {x} must be in [0, 1], as its valid_range declares" for x in (50.0, -0.3)}


@pytest.mark.parametrize("returned", ["{'x': 0.5, 'n': 1}", "0.5", "None"])
def test_compute_must_return_an_outcome(tmp_path: Path, returned: str) -> None:
    kernel = load_kernel("mine", [module(tmp_path / "m.py", compute=f"lambda cell, rng: {returned}")])
    with pytest.raises(TypeError, match="not an Outcome"):
        kernel.compute(CELL, np.random.default_rng(1))


def test_numbers_of_numpy_are_stored_as_they_are(tmp_path: Path) -> None:
    returned = "Outcome({'x': np.float32(0.5), 'n': np.array(True)}, converged=np.bool_(False))"
    path = module(tmp_path / "m.py", compute=f"lambda cell, rng: {returned}")
    Path(path).write_text("import numpy as np\n" + Path(path).read_text())
    outcome = load_kernel("mine", [path]).compute(CELL, np.random.default_rng(1))
    assert (outcome.values["x"], outcome.values["n"], outcome.converged) == (0.5, 1, False)


def test_nan_is_a_value_and_not_converged_is_not_a_failure(tmp_path: Path) -> None:
    returned = "Outcome({'x': float('nan'), 'n': cell.seed}, converged=cell.seed != 3)"
    path = module(tmp_path / "mine.py", compute=f"lambda cell, rng: {returned}")
    campaign = make_campaign(**SMALL)
    campaign = campaign.model_copy(
        update={"campaign": campaign.campaign.model_copy(update={"kernel": "mine"})}
    )
    summary = run(tmp_path / "c.zarr", path, campaign)
    assert (summary.outcome, summary.done, summary.failed) == ("complete", 4, 0)
    with xr.open_dataset(tmp_path / "c.zarr", engine="bendscape") as ds:
        assert ds.status.values.ravel().tolist() == [1, 1, 1, 3]
        assert ds.n.values.ravel().tolist() == [0, 1, 2, 3]
        assert bool(np.isnan(ds.x).all())


def test_reserved_names_are_exactly_those_that_a_store_uses(
    tmp_path: Path, kernel_file: Callable[..., str]
) -> None:
    for around in ("[1.0]", '{ around = "alpha_bbp", values = [1.0] }'):
        store = tmp_path / f"{len(around)}.zarr"
        run(store, kernel_file(RANDOM), make_campaign(**SMALL | {"alpha": around}))
        with xr.open_dataset(store, engine="bendscape") as ds:
            names = set(ds.variables) - {"x"}
        for name in names:
            module = kernel_file(RANDOM, variables=f'Variable("x", "a number"), Variable("{name}", "taken")')
            with pytest.raises(ParameterError, match="a name other than"):
                load_kernel("probe", [module])


def test_every_installed_kernel_is_checked_against_its_declaration_and_otherwise_unchanged() -> None:
    for name in ("hessian", "spectral", "theory"):
        assert load_kernel(name).name == name
    loaded = load_kernel("hessian")
    assert (loaded.variables, loaded.version) == (HESSIAN.variables, HESSIAN.version)
    assert loaded.seconds(CELL) == HESSIAN.seconds(CELL)
    assert loaded.peak_bytes(CELL) == HESSIAN.peak_bytes(CELL)
    assert loaded.compute(CELL, cell_rng(1, CELL)) == HESSIAN.compute(CELL, cell_rng(1, CELL))


STORED = {  # options, in their order, as stores of version 1 hold them
    "descent": {
        "times": [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0],
        "until_recovered": False,
        "method": "flow",
        "learning_rate": None,
        "tolerance": 3e-3,
        "pairs": 0,
        "overlaps": 0,
        "data": "auto",
        "precision": None,
        "rel": 0.0,
        "max_bytes": 8 * 2.0**30,
    },
    "perceptron": {
        "times": [10.0 ** (k / 2) for k in range(-4, 13)],
        "method": "flow",
        "learning_rate": None,
        "tolerance": 1e-4,
    },
}


@pytest.mark.parametrize("name", STORED)
def test_stores_of_paths_keep_the_options_and_the_version_that_they_were_made_with(name: str) -> None:
    kernel = load_kernel(name)
    assert (json.dumps(dict(kernel.settings)), kernel.version) == (json.dumps(STORED[name]), 1)
