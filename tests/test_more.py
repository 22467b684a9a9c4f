"""Tables [[more]] of a campaign: points with seeds of their own, in union with [grid]."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_any_axes import CASES, AnyOrder, Ending, Place, module_of
from test_two_drivers import Unguarded

from bendscape.analysis.dataset.counts import share_done, wanted_cells
from bendscape.analysis.dataset.export import export_store
from bendscape.analysis.figures.draw import numbers_of, write_figures
from bendscape.analysis.findings.results import Results
from bendscape.core.errors import ParameterError
from bendscape.sweep import Campaign
from bendscape.sweep.campaign.extension import extended
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.grid import Grid
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.campaign.target import Addition
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.engine.plan import plan_campaign
from bendscape.sweep.kernels.quadratic import AXES
from bendscape.sweep.store.fsck import fsck
from campaigns import RANDOM, IdleExecutor, campaign_text, data_files, run

KernelFile = Callable[..., str]
GRID: dict[str, Any] = {"p": [1, 2], "a": [0.7, 1.5], "alpha": [0.8, 1.2], "N": [64], "seeds": 4}
MORE = """
[[more]]
p = 1
p_star = 1
a = 0.7
alpha = [0.9, 1.2]
N = [64, 128]
seeds = { 64 = 9, 128 = 3 }
"""
Cells = set[tuple[Any, ...]]


def cells_of(grid: Grid) -> Cells:
    """The cells of a grid, point by point: the value along each dimension, size and seed."""
    found: Cells = set()
    for size in grid.sizes:
        counts = grid.counts(size)
        for at in np.ndindex(counts.shape):
            values = tuple(of[k] for of, k in zip(grid.dims.values(), at, strict=True))
            found |= {(*values, size, seed) for seed in range(counts[at])}
    return found


tables = st.fixed_dictionaries(
    {
        "p": st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=2, unique=True),
        "p_star": st.just([1]),
        "a": st.lists(st.sampled_from([0.7, 1.5]), min_size=1, unique=True),
        "alpha": st.lists(st.sampled_from([0.8, 0.9, 1.0, 1.2]), min_size=1, max_size=3, unique=True),
        "N": st.lists(st.sampled_from([64, 128]), min_size=1, unique=True),
        "seeds": st.integers(1, 6),
        "where": st.sampled_from(["p < 3", "alpha > 0.85 or N > 100", "p >= p_star"]),
    }
)
additions = st.lists(
    st.builds(
        lambda p, a, curve, size, seeds: Addition({"p": p, "p_star": 1, "a": a}, curve, size, seeds),
        st.sampled_from([1, 2]),
        st.sampled_from([0.7, 1.5]),
        st.sampled_from([0.8, 0.95, 1.05, 1.2]),
        st.sampled_from([64, 256]),
        st.integers(1, 9),
    ),
    max_size=8,
)
HEAD = {"campaign": {"name": "u", "store": "u.zarr", "entropy": 1}}


@settings(max_examples=15, deadline=None)
@given(st.lists(tables, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_a_campaign_wants_the_union_of_its_tables_in_whatever_order_they_stand(
    parts: list[dict[str, Any]], rng: random.Random
) -> None:
    first, more = parts[0], parts[1:]
    campaign = Campaign.from_dict({**HEAD, "grid": first, "more": more})
    singly: Cells = set()
    for part in parts:
        singly |= cells_of(Campaign.from_dict({**HEAD, "grid": part}).to_grid(AXES))
    grid = campaign.to_grid(AXES)
    assert cells_of(grid) == singly
    assert grid.cell_count() == len(singly)
    shuffled = rng.sample(more, len(more))
    again = Campaign.from_dict({**HEAD, "grid": first, "more": shuffled})
    assert again.spec_hash(AXES) == campaign.spec_hash(AXES)
    assert cells_of(again.to_grid(AXES)) == singly
    assert parse_campaign(campaign.text).spec_hash(AXES) == campaign.spec_hash(AXES)
    names = [*grid.dims, "N", "seed"]
    for cell in random.Random(0).sample(sorted(singly), min(9, len(singly))):
        assert grid.holds(dict(zip(names, cell, strict=True)))
        assert not grid.holds(dict(zip(names, (*cell[:-1], 99), strict=True)))


@settings(max_examples=15, deadline=None)
@given(tables, st.lists(tables, max_size=2), additions, additions, st.randoms(use_true_random=False))
def test_additions_in_any_order_and_any_portions_give_the_same_text(
    grid: dict[str, Any], more: list[dict[str, Any]], one: list[Addition], two: list[Addition],
    rng: random.Random,
) -> None:  # fmt: skip
    campaign = Campaign.from_dict({**HEAD, "grid": grid, "more": more})
    both = extended(campaign, [*one, *two], AXES)
    shuffled = rng.sample([*two, *one], len(one) + len(two))
    assert extended(campaign, shuffled, AXES).text == both.text
    assert extended(extended(campaign, one, AXES), two, AXES).text == both.text
    assert extended(both, one, AXES).text == both.text
    wanted = {
        (of.model["p"], 1, of.model["a"], of.curve, of.size, seed)
        for of in (*one, *two)
        for seed in range(of.seeds)
    }
    assert cells_of(both.to_grid(AXES)) == cells_of(campaign.to_grid(AXES)) | wanted


def test_an_extension_keeps_the_comments_of_a_file_and_groups_points_by_model() -> None:
    text = "# why this campaign\n" + campaign_text(**GRID)
    points = [Addition({"p": 1, "p_star": 1, "a": 0.7}, alpha, 64, 9) for alpha in (1.2, 0.9, 0.95)]
    points += [Addition({"p": 1, "p_star": 1, "a": 0.7}, alpha, 128, 3) for alpha in (0.95, 0.9, 1.2)]
    points += [Addition({"p": 2, "p_star": 1, "a": 1.5}, 0.8, 64, 4)]  # [grid] has it
    found = extended(parse_campaign(text), points, AXES)
    assert found.text == text.rstrip() + (
        "\n\n[[more]]\np = 1\np_star = 1\na = 0.7\nalpha = [0.9, 0.95, 1.2]\nN = [64, 128]\n"
        "seeds = { 64 = 9, 128 = 3 }\n"
    )
    odd = parse_campaign(text + MORE + "\n[kernel]\nmethod = 'dice'\n")
    again = extended(odd, points, AXES)
    assert tomllib.loads(again.text)["kernel"] == {"method": "dice"}
    assert cells_of(again.to_grid(AXES)) == cells_of(odd.to_grid(AXES)) | cells_of(found.to_grid(AXES))


@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        (
            "a = 0.7",
            "aa = 0.7",
            "N, seeds, where, as in [grid]; did you mean 'a'?",
        ),
        ("a = 0.7\n", "", "more[0].a must be given"),
        ("a = 0.7", "a = 0.7\nnoise = 0.1", "as in [grid]"),
        ("N = [64, 128]", "N = 1", "integers >= 2"),
        ("[0.9, 1.2]", '{ around = "alpha_bbp", values = [1] }', "no threshold, as in [grid]"),
        ("128 = 3", "256 = 3", "one count for each size in more[0].N = [64, 128]"),
        ("[[more]]", "[more]", "tables [[more]]"),
        ("[0.9, 1.2]", "{ start = 1.0, stop = 2.0, num = 4096 }", "at most 4096 in all"),
    ],
)
def test_a_mistake_in_a_table_is_one_line_with_its_place(old: str, new: str, accepted: str) -> None:
    text = campaign_text(**GRID) + MORE.replace(old, new)
    with pytest.raises(ParameterError) as error:
        parse_campaign(text).to_grid(AXES)
    assert accepted in str(error.value)
    assert "\n" not in str(error.value)
    assert "see campaign, line 1" in str(error.value) or "line 2" in str(error.value)


def test_additions_outside_the_campaign_are_refused() -> None:
    campaign = parse_campaign(campaign_text(**GRID))
    model = {"p": 1, "p_star": 1, "a": 0.7}
    for addition, accepted in (
        (Addition(model | {"a": -1}, 1.0, 64, 3), "addition.a must be finite numbers > 0"),
        (Addition(model, -1.0, 64, 3), "addition.alpha must be finite numbers > 0"),
        (Addition(model, 1.0, 64, 0), "addition.seeds must be an integer >= 1"),
        (Addition(model | {"noise": 0.1}, 1.0, 64, 3), "0.0, as everywhere in this campaign"),
        (Addition(model | {"b": 1}, 1.0, 64, 3), "a model axis of the campaign (p, p_star, a)"),
    ):
        with pytest.raises(ParameterError) as error:
            extended(campaign, [addition], AXES)
        assert accepted in str(error.value)


def test_datasets_exports_and_status_know_which_cells_were_asked_for(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module, store = kernel_file(RANDOM), tmp_path / "s.zarr"
    campaign = parse_campaign(campaign_text(**GRID) + MORE)
    cells = campaign.to_grid(load_kernel("probe", [module]).axes).cell_count()
    assert cells == 2 * 2 * 2 * 4 + 5 + 9 + 2 * 3
    summary = run(store, module, campaign)
    assert (summary.outcome, summary.done, summary.missing, summary.hidden) == ("complete", cells, 0, 0)
    status = store_status(store, [module])
    assert (status["cells"], status["done"], status["missing"]) == (cells, cells, 0)
    with xr.open_dataset(store, engine="bendscape") as ds:
        ds.load()
    assert int((ds.status == 1).sum()) == cells == int((ds.status != -1).sum()) == int(wanted_cells(ds).sum())
    assert int(ds.x.notnull().sum()) == cells
    assert int(ds.n_seeds.sum()) == cells
    at = ds.sel(p=1, a=0.7)
    assert at.n_seeds.sel(N=64).values.ravel().tolist() == [4, 9, 9]
    assert at.n_seeds.sel(N=128).values.ravel().tolist() == [0, 3, 3]
    assert ds.coverage.where(ds.wanted).fillna(1).values.min() == 1
    assert float(share_done(ds.where(ds.status == 1), ["p", "p_star", "a", "alpha", "N", "seed"])) == 1
    counts = export_store(store, tmp_path / "e.zarr")
    assert (counts["cells"], counts["done"], counts["coverage"]) == (cells, cells, 1.0)
    assert fsck(store).sound
    run(store, module, parse_campaign(campaign_text(**GRID)))
    assert store_status(store, [module])["hidden"] == {"cells": 20, "revisions": {1: 20}}
    with xr.open_dataset(store, engine="bendscape", revision=1) as again:
        xr.testing.assert_identical(again.load().drop_attrs(), ds.drop_attrs())


def test_partly_filled_and_failed_points_are_counted_with_their_own_seeds(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    module = kernel_file("if cell.seed == 7: raise ValueError('no luck')\n" + RANDOM)
    store, more = tmp_path / "s.zarr", MORE.replace("64 = 9", "64 = 40")
    run(store, module, parse_campaign(campaign_text(**GRID)))
    assert run(store, module, parse_campaign(campaign_text(**GRID) + more), IdleExecutor()).missing > 0
    with xr.open_dataset(store, engine="bendscape") as ds:
        ds.load()
    done = (ds.status == 1).sum("seed")
    np.testing.assert_allclose(ds.coverage.where(ds.wanted), (done / ds.n_seeds).where(ds.wanted))
    assert run(store, module, parse_campaign(campaign_text(**GRID) + more)).failed == 2
    with xr.open_dataset(store, engine="bendscape", group="errors") as errors:
        assert errors.seed.values.tolist() == [7, 7]


# -- any axes


def points_of(place: Place) -> list[Addition]:
    """Some points of the wider grid of a case, two of them outside its first grid, with their own seeds."""
    axes = load_kernel("any", [place.module]).axes
    wider = place.campaign(place.case.wider).to_grid(axes)
    found = []
    for size in wider.sizes:
        places = np.argwhere(wider.counts(size)).tolist()
        for at in places[:: max(1, len(places) // 3)]:
            values = {name: of[k] for (name, of), k in zip(wider.dims.items(), at, strict=True)}
            curve = values.pop(wider.curve) if wider.curve is not None else 0.0
            seeds = max(1, wider.seeds[size] - len(found) % 3)
            found.append(Addition(values, float(curve), size, seeds))
    return found


@pytest.fixture(params=["no sizes", "text, no curve", "no models"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    case = CASES[request.param]
    return Place(case, module_of(case, tmp_path / "any.py"), tmp_path)


def grown(place: Place) -> Campaign:
    campaign = place.campaign(place.case.grid)
    return extended(campaign, points_of(place), load_kernel("any", [place.module]).axes)


def test_a_store_extended_at_some_points_has_the_bits_of_the_whole_grid_there(place: Place) -> None:
    place.run("whole.zarr", place.case.wider)
    place.run("s.zarr", place.case.grid)
    before = data_files(place.folder / "s.zarr")
    campaign = grown(place)
    summary = run(place.folder / "s.zarr", place.module, campaign)
    cells = campaign.to_grid(load_kernel("any", [place.module]).axes).cell_count()
    assert (summary.outcome, summary.done, summary.hidden) == ("complete", cells, 0)
    small, whole = place.opened("s.zarr"), place.opened("whole.zarr")
    there = whole.sel({dim: small[dim] for dim in place.case.dims})
    asked = small["status"] == 1
    assert int(asked.sum()) == cells == int((small["status"] != -1).sum())
    for name in ("x", "n"):
        xr.testing.assert_equal(
            small[name].where(asked).reset_coords(drop=True), there[name].where(asked).reset_coords(drop=True)
        )
    assert before.keys() <= data_files(place.folder / "s.zarr").keys()
    assert fsck(place.folder / "s.zarr").sound


def test_an_extension_in_any_order_or_interrupted_gives_the_same_store(place: Place) -> None:
    campaign = grown(place)
    for name, executor in (("a", None), ("b", AnyOrder())):
        place.run(name, place.case.grid)
        assert run(place.folder / name, place.module, campaign, executor).outcome == "complete"
    place.run("c", place.case.grid)
    try:
        run(place.folder / "c", place.module, campaign, Ending())
    except OSError:
        assert run(place.folder / "c", place.module, campaign).outcome == "complete"
    whole = data_files(place.folder / "a")
    assert data_files(place.folder / "b") == whole
    assert data_files(place.folder / "c") == whole


@pytest.fixture(scope="module")
def drivers() -> Iterator[list[Unguarded]]:
    made = [Unguarded(), Unguarded()]
    yield made
    for driver in made:
        driver.close()


def test_two_drivers_of_a_grid_and_of_its_extension_corrupt_nothing(
    drivers: list[Unguarded], tmp_path: Path
) -> None:
    case = CASES["no sizes"]
    place = Place(case, module_of(case, tmp_path / "any.py"), tmp_path)
    campaign = grown(place)
    what = {"url": str(place.folder / "two.zarr"), "module": place.module, "retry_failed": False}
    texts = (campaign.text, place.campaign(place.case.grid).text)
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(driver.run, **what, text=text, delay=0.0, seed=seed)
            for driver, text, seed in zip(drivers, texts, (1, 2), strict=True)
        ]
        assert {job.result(timeout=120) for job in jobs} <= {"complete", "LeaseLost"}
    assert run(place.folder / "two.zarr", place.module, campaign).outcome == "complete"
    run(place.folder / "one.zarr", place.module, campaign)
    xr.testing.assert_identical(place.opened("two.zarr"), place.opened("one.zarr"))
    assert fsck(place.folder / "two.zarr").sound


def test_a_plan_of_many_tables_has_every_cell_once(
    kernel_file: KernelFile,
) -> None:
    module = kernel_file(RANDOM)
    kernel = load_kernel("probe", [module])
    campaign = parse_campaign(campaign_text(**GRID | {"a": [0.7], "p": [1]}))
    points = [
        Addition({"p": 1, "p_star": 1, "a": a / 100}, 0.5 + k / 1000, size, 2 + k % 7)
        for a in range(100, 110)
        for k in range(200)
        for size in (64, 128)
    ]
    big = extended(campaign, points, kernel.axes)
    plan = plan_campaign(big, kernel)
    assert plan.total("cells") == 8 + sum(of.seeds for of in points)
    assert sum(tile.mask.bit_count() for task in plan.tasks(2) for tile in task.tiles) == plan.total("cells")


def test_every_figure_of_a_store_with_tables_more_is_drawn(tmp_path: Path) -> None:
    """Seeds then differ between points; spectra are those of loads that were computed."""
    text = campaign_text(p=[1], a=[0.7], alpha=[0.9, 2.4], N=[16, 32], seeds=4).replace("probe", "hessian")
    more = "\n[[more]]\np = 1\np_star = 1\na = 1.5\nalpha = [0.8, 1.0, 3.0]\nN = [16, 32]\nseeds = 6\n"
    run(tmp_path / "s.zarr", "", parse_campaign(text + more))
    ds = xr.open_dataset(tmp_path / "s.zarr", engine="bendscape", chunks={})
    assert "alpha" in ds["n_seeds"].dims
    spectra = numbers_of(Results(ds), "spectrum")["spectrum"]
    found = {(float(a), float(alpha)) for a, alpha in zip(spectra["a"], spectra["alpha"], strict=True)}
    assert found == {(0.7, 0.9), (0.7, 2.4), (1.5, 1.0), (1.5, 3.0)}
    assert write_figures(ds, tmp_path / "figures", ["svg"]).paths
