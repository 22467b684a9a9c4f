"""One engine for any axes: a store has the same properties whatever its kernel declares.

Kernels: one that declares no axes and so has those of the network; one with a curve and without an axis of
sizes; one with an axis of text, sizes, an axis with a default, arrays in a cell, and no curve; one without
model axes; one with seeds alone.
"""

from __future__ import annotations

import os
import random
import re
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr
from test_two_drivers import Unguarded

from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.axes import Axes, Axis, cell_rng, check_axes
from bendscape.sweep.campaign.file import Campaign, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.commands.status import store_status, store_tiles
from bendscape.sweep.engine.executor import Job, Result, SerialExecutor
from bendscape.sweep.engine.plan import plan_campaign
from bendscape.sweep.store.fsck import fsck
from campaigns import run

HEAD = """
import numpy as np
from bendscape.sweep.campaign.axes import Axes, Axis
from bendscape.sweep.campaign.kernel import Dimension, Kernel, Outcome, Reference, Variable

VARIABLES = (Variable("x", "a number"), Variable("n", "an integer", dtype="int64"){variables})

def compute(cell, rng):
    {guard}
    return Outcome({{"x": rng.normal() + {known}, "n": int(rng.integers(100)){values}}})

KERNEL = Kernel("any", 1, VARIABLES, compute, lambda cell: 0.25, lambda cell: 1e6{declared})
"""

FILE = """
[campaign]
name = "any"
store = "unused"
entropy = 11
kernel = "any"

[grid]
"""


class Case(NamedTuple):
    """A declaration with its expected values, a grid, and a wider grid in which every axis has grown."""

    declared: str
    known: str
    grid: dict[str, str]
    wider: dict[str, str]
    dims: tuple[str, ...]
    bad: str  # a condition on a cell that fails it
    variables: str = ""  # beside x and n
    values: str = ""


CASES = {
    "the network": Case(
        "",
        "cell.alpha",
        {"p": "[1]", "p_star": "[1]", "a": "[0.7]", "alpha": "[0.8, 1.2]", "N": "[32]", "seeds": "3"},
        {
            "p": "[1, 2]",
            "p_star": "[1, 2]",
            "a": "[0.7, 1.5]",
            "alpha": "[0.8, 1.0, 1.2]",
            "N": "[16, 32]",
            "seeds": "{ 16 = 4, 32 = 5 }",
        },
        ("p", "p_star", "a", "alpha", "N", "seed"),
        "cell.alpha == 1.2 and cell.seed == 1",
    ),
    "no sizes": Case(
        """,
        axes=Axes((
            Axis("width", "int64", least=1, long_name="width"),
            Axis("field", "float64", "curve", "field", relative_to={"unit": lambda width: 1 / width}),
            Axis("seed", "int64", "seed", "realisation"),
        )),
        references=(
            Reference((Variable("half", "half the width"),), ("width",), lambda width: {"half": width / 2}),
            Reference(
                (Variable("work", "field times width"),), ("width", "field"),
                lambda width, field: {"work": field * width},
            ),
        ),""",
        "cell.field",
        {"width": "[3]", "field": '{ around = "unit", values = [-1.0, 0.0] }', "seeds": "3"},
        {"width": "[3, 7]", "field": '{ around = "unit", values = [-1.0, 0.0, 0.1] }', "seeds": "20"},
        ("width", "field_factor", "seed"),
        "cell.coordinate == 0.0 and cell.seed == 1",
    ),
    "text, no curve": Case(
        """,
        axes=Axes((
            Axis("rule", "str", choices=("hebb", "storkey", "perceptron"), long_name="learning rule"),
            Axis("noise", "float64", least=0, default=0.0),
            Axis("load", "float64", least=0, above=True),
            Axis("spins", "int64", "size", "number of spins", least=1),
            Axis("seed", "int64", "seed", "realisation"),
        )),
        dimensions=(Dimension("time", (0.0, 0.5, 2.0), "time"), Dimension("bin", (0, 1), "bin")),""",
        "len(cell.rule) + cell.noise",
        {"rule": '"hebb"', "load": "[0.1]", "spins": "[10]", "seeds": "2", "where": "\"rule != 'no'\""},
        {
            "rule": '["storkey", "hebb"]',
            "load": "[0.1, 0.14]",
            "spins": "[10, 20]",
            "seeds": "5",
            "where": "\"rule == 'hebb' or load > 0.1\"",
        },
        ("rule", "load", "spins", "seed"),
        "cell.rule == 'hebb' and cell.seed == 1",
        ', Variable("path", "a path", dims=("time",)), Variable("amplitude", "complex", dtype="complex64")'
        ', Variable("counts", "a histogram", dtype="int64", dims=("time", "bin"))',
        ', "path": rng.normal(size=3), "amplitude": np.complex64(rng.normal() + 1j)'
        ', "counts": rng.integers(9, size=(3, 2))',
    ),
    "no models": Case(
        """,
        axes=Axes((
            Axis("field", "float64", "curve", "field"),
            Axis("spins", "int64", "size", "number of spins", least=1),
            Axis("seed", "int64", "seed", "realisation"),
        )),""",
        "cell.field",
        {"field": "[0.5]", "spins": "[10]", "seeds": "3"},
        {"field": "{ start = 0.0, stop = 1.0, num = 5 }", "spins": "[10, 20]", "seeds": "{ 10 = 9, 20 = 4 }"},
        ("field", "spins", "seed"),
        "cell.field == 0.5 and cell.seed == 1",
    ),
    "seeds alone": Case(
        """,
        axes=Axes((Axis("seed", "int64", "seed", "realisation"),)),""",
        "cell.seed",
        {"seeds": "3"},
        {"seeds": "30"},
        ("seed",),
        "cell.seed == 1",
    ),
}


class Place(NamedTuple):
    """A case with a kernel module on disk, and a folder for stores."""

    case: Case
    module: str
    folder: Path

    def campaign(self, grid: dict[str, str]) -> Campaign:
        return parse_campaign(FILE + "\n".join(f"{key} = {value}" for key, value in grid.items()))

    def run(self, store: str, grid: dict[str, str], **options: Any) -> str:
        return run(self.folder / store, self.module, self.campaign(grid), **options).outcome

    def opened(self, store: str) -> xr.Dataset:
        with xr.open_dataset(self.folder / store, engine="bendscape") as ds:
            return ds.load().drop_attrs()


def module_of(case: Case, path: Path, guard: str = "") -> str:
    text = HEAD.format(
        known=case.known,
        declared=textwrap.dedent(case.declared),
        guard=guard or "pass",
        variables=case.variables,
        values=case.values,
    )
    path.write_text(text)
    return str(path)


@pytest.fixture(params=list(CASES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    case = CASES[request.param]
    return Place(case, module_of(case, tmp_path / "any.py"), tmp_path)


@pytest.fixture
def whole(place: Place) -> xr.Dataset:
    """The wider campaign, computed in a single run."""
    assert place.run("whole.zarr", place.case.wider) == "complete"
    return place.opened("whole.zarr")


class AnyOrder(SerialExecutor):
    """Every job in a random order, some of them twice."""

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        jobs = list(iter(next_job, None))
        rng = random.Random(5)
        again = rng.sample(jobs, len(jobs) // 2)
        for job in rng.sample(jobs, len(jobs)):
            yield from super().run(iter([job, None]).__next__)
        for job in again:
            list(super().run(iter([job, None]).__next__))


class Ending(SerialExecutor):
    """Ends the run after some jobs, as a failing store does."""

    def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
        for count, result in enumerate(super().run(next_job)):
            if count == 2:
                raise OSError("gone")
            yield result


def test_a_dataset_has_the_declared_axes_and_every_cell_its_own_stream(
    place: Place, whole: xr.Dataset
) -> None:
    assert whole["x"].dims == place.case.dims
    done = whole["x"].notnull().values
    assert done.sum() == plan_campaign(
        place.campaign(place.case.wider), load_kernel("any", [place.module])
    ).total("cells")
    values = whole["x"].values[done]
    assert len(np.unique(values)) == len(values)
    assert fsck(place.folder / "whole.zarr").sound


def test_any_order_and_any_repetition_give_the_same_bits(place: Place, whole: xr.Dataset) -> None:
    assert place.run("shuffled.zarr", place.case.wider, executor=AnyOrder()) == "complete"
    xr.testing.assert_identical(place.opened("shuffled.zarr"), whole)


def test_an_interrupted_run_is_completed_by_the_same_command(place: Place, whole: xr.Dataset) -> None:
    with pytest.raises(OSError, match="gone"):
        place.run("cut.zarr", place.case.wider, executor=Ending())
    some = place.opened("cut.zarr")["x"].notnull()
    assert 0 < some.sum() < whole["x"].notnull().sum()
    assert place.run("cut.zarr", place.case.wider) == "complete"
    xr.testing.assert_identical(place.opened("cut.zarr"), whole)


def test_axes_can_grow_singly_or_together_and_only_new_cells_are_computed(
    place: Place, whole: xr.Dataset
) -> None:
    grid, wider = place.case.grid, place.case.wider
    assert place.run("grown.zarr", grid) == "complete"
    seeds = "5" if "N" in grid else wider["seeds"]
    for key in wider:
        grid = {**grid, key: seeds if key == "seeds" else wider[key]}
        before = store_status(place.folder / "grown.zarr", [place.module])["done"]
        summary = run(place.folder / "grown.zarr", place.module, place.campaign(grid))
        assert summary.outcome == "complete"
        assert summary.computed == summary.done - before + summary.hidden
    assert place.run("grown.zarr", wider) == "complete"
    xr.testing.assert_identical(place.opened("grown.zarr"), whole)


@pytest.fixture(scope="module")
def drivers() -> Iterator[list[Unguarded]]:
    made = [Unguarded(), Unguarded()]
    yield made
    for driver in made:
        driver.close()


def test_two_drivers_without_guards_corrupt_nothing(
    drivers: list[Unguarded], place: Place, whole: xr.Dataset
) -> None:
    text = FILE + "\n".join(f"{key} = {value}" for key, value in place.case.wider.items())
    small = FILE + "\n".join(f"{key} = {value}" for key, value in place.case.grid.items())
    what = {"url": str(place.folder / "two.zarr"), "module": place.module, "retry_failed": False}
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(driver.run, **what, text=of, delay=0.0, seed=seed)
            for driver, of, seed in zip(drivers, (text, small), (1, 2), strict=True)
        ]
        assert {job.result(timeout=120) for job in jobs} <= {"complete", "LeaseLost"}
    assert place.run("two.zarr", place.case.wider) == "complete"
    xr.testing.assert_identical(place.opened("two.zarr"), whole)
    assert fsck(place.folder / "two.zarr").sound


def test_a_failed_cell_is_found_exactly_by_its_coordinates(place: Place) -> None:
    guard = f"if {place.case.bad}: raise ValueError('no luck')"
    module = module_of(place.case, place.folder / "bad.py", guard)
    summary = run(place.folder / "bad.zarr", module, place.campaign(place.case.wider))
    assert summary.outcome == "failed cells"
    with xr.open_dataset(place.folder / "bad.zarr", engine="bendscape", group="errors") as errors:
        errors.load()
    ds = place.opened("bad.zarr")
    assert errors.sizes["failure"] == summary.failed == int((ds["status"] == 2).sum())
    assert set(errors["message"].values) == {"no luck"}
    for k in range(errors.sizes["failure"]):
        at = {dim: errors[dim].values[k] for dim in place.case.dims}
        assert ds["status"].sel(at).item() == 2, at  # exact: no method="nearest"
    tiles = store_tiles(place.folder / "bad.zarr")
    assert sum(tile["failed"] for tile in tiles) == summary.failed
    assert {dim.removesuffix("_factor") for dim in place.case.dims} <= set(tiles[0])


def test_references_cover_every_point_and_have_only_their_own_dimensions(tmp_path: Path) -> None:
    case = CASES["no sizes"]
    place = Place(case, module_of(case, tmp_path / "any.py"), tmp_path)
    place.run("s.zarr", case.grid)
    place.run("s.zarr", case.wider)
    ds = place.opened("s.zarr")
    assert ds["half"].dims == ("width",)
    np.testing.assert_array_equal(ds["half"], ds["width"] / 2)
    field = ds["field_factor"].values / ds["width"].values[:, np.newaxis]
    np.testing.assert_allclose(ds["field"].values, field)
    xr.testing.assert_allclose(ds["work"].drop_vars("field"), (ds["field"] * ds["width"]).drop_vars("field"))


def test_an_axis_with_a_default_is_a_constant_until_it_is_named_and_changes_no_stream(tmp_path: Path) -> None:
    case = CASES["text, no curve"]
    place = Place(case, module_of(case, tmp_path / "any.py"), tmp_path)
    place.run("constant.zarr", case.wider)
    plain = place.opened("constant.zarr")
    assert plain["noise"].shape == ()
    assert plain["noise"].item() == 0.0
    place.run("swept.zarr", {**case.wider, "noise": "[0.0, 0.5]"})
    swept = place.opened("swept.zarr")
    assert swept["x"].dims == ("rule", "noise", *case.dims[1:])
    xr.testing.assert_equal(swept["x"].sel(noise=0.0), plain["x"])
    assert not (swept["n"].sel(noise=0.5, drop=True) == plain["n"].drop_vars("noise")).all()
    with pytest.raises(
        ParameterError, match=r"dimensions; noise: 0\.0 in every cell there, a dimension here\. "
    ):
        place.run("constant.zarr", {**case.wider, "noise": "[0.0, 0.5]"})
    with pytest.raises(
        ParameterError, match=r"dimensions; noise: a dimension there, 0\.0 in every cell here\. "
    ):
        place.run("swept.zarr", case.wider)


def test_an_axis_added_to_a_kernel_has_its_default_value_in_older_stores(tmp_path: Path) -> None:
    case = CASES["text, no curve"]
    gained = 'Axis("noise", "float64", least=0, default=0.0),'
    assert gained in case.declared
    before = case._replace(declared=case.declared.replace(gained, ""), known="len(cell.rule)")
    old = Place(before, module_of(before, tmp_path / "old.py"), tmp_path)
    new = Place(case, module_of(case, tmp_path / "new.py"), tmp_path)
    assert old.run("s.zarr", case.grid) == "complete"
    assert "noise" not in old.opened("s.zarr").variables
    status = store_status(tmp_path / "s.zarr", [new.module])
    assert (status["done"], status["missing"]) == (status["cells"], 0)
    with pytest.raises(ParameterError, match=r"noise: 0\.0 in every cell there"):
        new.run("s.zarr", {**case.wider, "noise": "[0.0, 0.5]"}, accept_kernel_change=True)
    same = run(tmp_path / "s.zarr", new.module, new.campaign(case.grid), accept_kernel_change=True)
    assert (same.outcome, same.computed) == ("complete", 0)
    assert new.run("s.zarr", case.wider) == "complete"
    assert new.run("fresh.zarr", case.wider) == "complete"
    xr.testing.assert_identical(new.opened("s.zarr"), new.opened("fresh.zarr"))
    assert fsck(tmp_path / "s.zarr").sound


@pytest.mark.parametrize(
    ("grid", "line"),
    [
        (
            {"rule": '"hop"'},
            "grid.rule = 'hop' is not accepted: grid.rule must be one of hebb, storkey, perceptron",
        ),
        ({"load": "[0.0]"}, "finite numbers > 0"),
        ({"spins": "[0]"}, "integers >= 1"),
        ({"spin": "[10]"}, "did you mean 'spins'?"),
        ({"alpha": "[1.0]"}, "one of rule, noise, load, spins, seeds, where"),
        ({"where": '"p > 1"'}, "the names rule, noise, load, spins; found 'p'"),
        ({"where": "\"(rule or rule) * 999999999 == 'x'\""}, "strings used only in comparisons"),
    ],
)
def test_bad_input_names_the_axes_of_the_kernel(tmp_path: Path, grid: dict[str, str], line: str) -> None:
    case = CASES["text, no curve"]
    place = Place(case, module_of(case, tmp_path / "any.py"), tmp_path)
    with pytest.raises(ParameterError) as caught:
        place.run("s.zarr", {**case.grid, **grid})
    assert line in str(caught.value)
    assert not os.path.exists(tmp_path / "s.zarr")


@pytest.mark.parametrize(
    ("axes", "line"),
    [
        ((Axis("seed", "int64", "seed"), Axis("seed", "int64")), "distinct"),
        ((Axis("x", "float64"),), "exactly one axis of role seed"),
        (
            (Axis("x", "float64", "curve"), Axis("y", "float64", "curve"), Axis("seed", "int64", "seed")),
            "at most one",
        ),
        ((Axis("x", "str", "curve"), Axis("seed", "int64", "seed")), "a number, for a curve"),
        ((Axis("N", "float64", "size"), Axis("seed", "int64", "seed")), "int64"),
        ((Axis("lambda", "float64"), Axis("seed", "int64", "seed")), "a valid Python variable name"),
        ((Axis("x", "float64", default=-1.0, least=0), Axis("seed", "int64", "seed")), "finite numbers >= 0"),
    ],
)
def test_axes_that_no_store_can_have_are_refused(axes: tuple[Axis, ...], line: str) -> None:
    with pytest.raises(ParameterError) as caught:
        check_axes(Axes(axes))
    assert line in str(caught.value)


def test_streams_of_text_and_numbers_differ_wherever_their_coordinates_do() -> None:
    axes = Axes(
        (
            Axis("a", "str"), Axis("b", "str"), Axis("c", "float64", default=0.0),
            Axis("d", "float64", default=0.0), Axis("seed", "int64", "seed"),
        )
    )  # fmt: skip
    cells = [
        {"a": "x", "b": "yz"}, {"a": "xy", "b": "z"}, {"a": "x", "b": "yz", "c": 1.0},
        {"a": "x", "b": "yz", "d": 1.0}, {"a": "x\0", "b": "yz"}, {"a": "é", "b": "yz"},
    ]  # fmt: skip
    draws = {cell_rng(1, axes.cell(**cell, seed=0)).integers(2**63) for cell in cells}
    assert len(draws) == len(cells)


def test_the_example_of_the_docs_runs_independently_of_the_network(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "kernels.md").read_text(encoding="utf-8")
    module, file = (
        next(block for block in re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) if "retrieval" in block)
        for kind in ("python", "toml")
    )
    (tmp_path / "retrieval.py").write_text(module)
    campaign = parse_campaign(file.replace("= 64", "= 3").replace("= 16", "= 2"))
    assert run(tmp_path / "s.zarr", str(tmp_path / "retrieval.py"), campaign).outcome == "complete"
    with xr.open_dataset(tmp_path / "s.zarr", engine="bendscape") as ds:
        assert ds["overlap"].dims == ("rule", "loading_factor", "N", "seed")
        mean = ds["overlap"].sel(rule="zero_diagonal", N=400).mean("seed")
        assert mean[0] > 0.995 > mean[-1], "few patterns are retrieved, many are not"
        assert not {"p", "alpha_bbp", "lambda_minus"} & set(ds.variables)
        np.testing.assert_allclose(ds["relative_loading"][0], ds["loading_factor"])


def test_arrays_of_a_cell_are_read_in_part_with_their_coordinates_and_by_plain_xarray(
    tmp_path: Path,
) -> None:
    case = CASES["text, no curve"]
    place = Place(case, module_of(case, tmp_path / "any.py"), tmp_path)
    place.run("s.zarr", case.wider)
    whole = place.opened("s.zarr")
    assert whole["counts"].dims == (*case.dims, "time", "bin")
    assert whole["time"].values.tolist() == [0.0, 0.5, 2.0]
    at = {"rule": "hebb", "load": 0.14, "spins": 20, "seed": 3}
    stream = cell_rng(11, load_kernel("any", [place.module]).axes.cell(**at))
    stream.normal(), stream.integers(100)
    np.testing.assert_array_equal(whole["path"].sel(at), stream.normal(size=3))
    with xr.open_dataset(tmp_path / "s.zarr", engine="bendscape", chunks={}) as ds:
        part = ds[["path", "counts", "amplitude"]].isel(time=[2, 0], seed=[4, 1], rule=[1])
        xr.testing.assert_identical(
            part.compute().drop_attrs(), whole[list(part)].isel(time=[2, 0], seed=[4, 1], rule=[1])
        )
        exact = xr.open_dataset(tmp_path / "s.zarr", engine="bendscape", mask_and_scale=False)
        assert exact["counts"].dtype == np.int64
    absent = whole["status"] == -1
    assert absent.any()
    assert bool(whole["counts"].where(absent, drop=True).isnull().all())
    group = xr.open_zarr(tmp_path / "s.zarr", group="spins=10", consolidated=False)
    never = (group["status"] == 0).load()
    assert bool(group["n"].where(never, drop=True).isnull().all()), (
        "an integer that was never computed is masked"
    )


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("[1.0, 2.0, 3.0]", "path must be a NumPy array of shape (3,), not list"),
        ("np.zeros(4)", "path must have the shape (3,) of time, not (4,)"),
        ("np.zeros(3, complex)", "path must be of type float64, not complex128"),
        ("np.ma.masked_array(np.zeros(3), [0, 1, 0])", "not a masked value or array"),
    ],
)
def test_an_array_that_does_not_match_its_declaration_fails_its_cell(
    tmp_path: Path, value: str, line: str
) -> None:
    case = CASES["text, no curve"]
    case = case._replace(values=case.values.replace("rng.normal(size=3)", value))
    place = Place(case, module_of(case, tmp_path / "any.py"), tmp_path)
    assert place.run("s.zarr", case.grid) == "failed cells"
    with xr.open_dataset(tmp_path / "s.zarr", engine="bendscape", group="errors") as errors:
        assert all(line in message for message in errors["message"].values), errors["message"].values


def test_inner_dimensions_can_never_change_within_a_store(tmp_path: Path) -> None:
    case = CASES["text, no curve"]
    place = Place(case, module_of(case, tmp_path / "any.py"), tmp_path)
    place.run("s.zarr", case.grid)
    other = case._replace(declared=case.declared.replace("(0, 1)", "(0, 2)"))
    module = module_of(other, tmp_path / "other.py")
    with pytest.raises(ParameterError, match=r"inner: .*there.*here"):
        run(tmp_path / "s.zarr", module, place.campaign(case.grid))
    huge = case.declared.replace("(0, 1)", "tuple(range(60000))")
    with pytest.raises(ParameterError, match="at most 1048576 in a cell"):
        load_kernel("any", [module_of(case._replace(declared=huge), tmp_path / "huge.py")])
