"""Readers can always open the store, with this package or without, while it fills and while it grows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import xarray as xr
import zarr

from bendscape.core.errors import ParameterError, unwarned
from bendscape.core.quadratic.model import EDGE_KINDS, Model
from bendscape.core.quadratic.theory.outlier import asymptotics, transition
from bendscape.sweep.campaign.file import parse_campaign
from bendscape.sweep.campaign.tiles import Layout
from bendscape.sweep.engine import provenance
from bendscape.sweep.engine.executor import Job, Result, SerialExecutor
from bendscape.sweep.kernels.quadratic import AXES, REFERENCES
from bendscape.sweep.location import store_url
from bendscape.sweep.store import ledger, publish, root
from bendscape.sweep.store.compare_and_swap import Publisher
from bendscape.sweep.store.publish import compute_known, known
from bendscape.sweep.store.root import holds_cells, open_store, read_store
from campaigns import RANDOM, campaign_text, make_campaign, run, write_kernel

KernelFile = Callable[..., str]
DIMS = ("p", "p_star", "a", "alpha", "N", "seed")


@pytest.fixture
def store(tmp_path: Path, kernel_file: KernelFile) -> Path:
    path = tmp_path / "s.zarr"
    run(path, kernel_file(RANDOM), make_campaign(p_star=[1, 2], seeds="{ 64 = 6, 128 = 4 }"))
    return path


def test_the_backend_gives_one_lazy_dataset_of_six_dimensions(store: Path) -> None:
    ds = xr.open_dataset(store, engine="bendscape", chunks={})
    assert ds.x.dims == ds.status.dims == DIMS
    assert dict(ds.sizes) == {"p": 2, "p_star": 2, "a": 2, "alpha": 3, "N": 2, "seed": 6}
    assert isinstance(ds.x.data, dask.array.Array)
    assert ds.x.data.npartitions == 2, "coarse chunks: one for each size, of many tiles"
    assert ds.n_seeds.values.tolist() == [6, 4]
    assert ds.status.attrs["flag_meanings"].split() == [
        "absent",
        "done",
        "failed",
        "not_converged",
        "not_wanted",
    ]
    assert ds.status.attrs["flag_values"] == [0, 1, 2, 3, -1]
    assert ds.x.attrs == {"long_name": "a number", "units": "1"}
    assert ds.attrs["entropy"] == 7
    assert ds.attrs["campaign"].startswith("\n[campaign]")
    assert json.loads(ds.attrs["packages"])["numpy"] == np.__version__


def test_unwanted_cells_are_nan_with_their_own_status_and_do_not_count_in_the_coverage(
    store: Path,
) -> None:
    ds = xr.open_dataset(store, engine="bendscape").load()
    assert bool((ds.status.sel(N=128, seed=[4, 5]) == -1).all())
    assert bool(ds.x.sel(N=128, seed=[4, 5]).isnull().all())
    unwanted = ds.sel(p=1, p_star=2)  # where = "p >= p_star"
    assert bool((unwanted.status == -1).all())
    assert bool(unwanted.coverage.isnull().all())
    wanted = ds.coverage.stack(point=("p", "p_star")).sel(point=[(1, 1), (2, 1), (2, 2)])
    assert bool((wanted == 1).all())


def test_the_theory_is_that_of_the_core(store: Path) -> None:
    ds = xr.open_dataset(store, engine="bendscape").load()
    for p, p_star, a in ((1, 1, 0.7), (2, 2, 1.5)):
        at, here = transition(Model(p, p_star, a)), ds.sel(p=p, p_star=p_star, a=a)
        assert float(here.alpha_bbp) == pytest.approx(at.alpha_bbp, rel=1e-13)
        assert float(here.alpha_sharp) == pytest.approx(at.alpha_sharp, rel=1e-13)
        assert here.transition.attrs["flag_meanings"].split()[int(here.transition)] == at.kind
        for alpha in (0.8, 1.2):
            point = asymptotics(Model(p, p_star, a), alpha)
            found = here.sel(alpha=alpha)
            assert here.edge.attrs["flag_meanings"].split()[int(found.edge)] == point.edge
            assert float(found.lambda_minus) == pytest.approx(point.lambda_minus, rel=1e-12)
            for name, value in (("lambda_star", point.lambda_star), ("overlap_sq_theory", point.overlap_sq)):
                assert float(found[name]) == pytest.approx(value, rel=1e-12, nan_ok=True)


def test_the_theory_of_a_store_of_many_points_is_that_of_each_of_them() -> None:
    alpha = tuple(np.geomspace(0.3, 20, 60).tolist())
    layout = layout_of((3, 1), (2, 1), (0.4, 1.1, 2.5), alpha)
    theory = blank(layout)
    compute_known(layout, None, REFERENCES, theory)
    rng = np.random.default_rng(11)
    for i, j, k, m in zip(*(rng.integers(0, n, 200) for n in (2, 2, 3, 60)), strict=True):
        model = Model(*(values[at] for values, at in zip(layout.dims.values(), (i, j, k), strict=False)))
        with unwarned():
            at, point = transition(model), asymptotics(model, alpha[m])
        assert theory["alpha_bbp"][i, j, k] == pytest.approx(at.alpha_bbp, rel=1e-13)
        assert EDGE_KINDS[theory["edge"][i, j, k, m]] == point.edge
        found = [theory[name][i, j, k, m] for name in ("lambda_minus", "lambda_star", "overlap_sq_theory")]
        known = [point.lambda_minus, point.lambda_star, point.overlap_sq]
        assert found == pytest.approx(known, rel=1e-10, abs=1e-13, nan_ok=True)


@pytest.mark.parametrize("around", [None, "alpha_bbp", "alpha_0"])
def test_an_extension_keeps_the_theory_of_old_points_to_the_last_bit(
    around: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "REFERENCE_POINTS", 20)  # several blocks
    before = layout_of((1, 2), (1,), (0.7, 1.5), (0.8, 1.0, 2.5), around=around)
    after = layout_of((1, 2, 4), (1, 2), (0.7, 1.5, 1.1), (0.8, 1.0, 2.5, 1.7), around=around)
    marked = blank(after)
    kept = {name: values[*map(slice, (2, 1, 2, 3)[: values.ndim])] for name, values in marked.items()}
    for values in kept.values():
        values[...] = 77  # which no theory would say
    heeded: list[None] = []
    found = compute_known(after, before, REFERENCES, marked, lambda: heeded.append(None))
    assert len(heeded) > 3
    assert all((values == 77).all() for values in kept.values())
    whole = compute_known(after, None, REFERENCES, blank(after))
    for name, values in found.items():
        new = values != 77
        assert np.count_nonzero(~new) == kept[name].size
        close = 0 if around != "alpha_0" else 1e-11  # else the very bits of a store made at once
        np.testing.assert_allclose(values[new], whole[name][new], rtol=close, atol=close)


def layout_of(*values: tuple[Any, ...], around: str | None = None) -> Layout:
    curve = "alpha_factor" if around else "alpha"
    dims = dict(zip(("p", "p_star", "a", curve), values, strict=True))
    return Layout(AXES, dims, {}, around, curve, {})


def blank(layout: Layout) -> dict[str, Any]:
    shape = tuple(map(len, layout.dims.values()))
    long = ["edge", "lambda_minus", "lambda_star", "overlap_sq_theory", *["alpha"] * bool(layout.around)]
    of_models = {name: np.zeros(shape[:3]) for name in ("alpha_bbp", "alpha_sharp", "transition")}
    theory = of_models | {name: np.zeros(shape) for name in long}
    assert set(theory) == {name for of in known(layout, REFERENCES) for name in of.names}
    return theory | {name: theory[name].astype(np.int8) for name in ("transition", "edge")}


def test_any_selection_reads_the_same_values_as_the_whole(store: Path) -> None:
    lazy = xr.open_dataset(store, engine="bendscape")
    whole = lazy.load().copy()
    lazy = xr.open_dataset(store, engine="bendscape")
    for selection in (
        {"p": 0, "N": 1, "seed": [5, 1, 3]},
        {"a": [1, 0], "alpha": slice(None, None, 2), "seed": slice(2, 4)},
        {"p": 1, "p_star": 1, "a": 0, "alpha": -1, "N": 0, "seed": 2},
        {"seed": []},
    ):
        for name in ("x", "status"):
            np.testing.assert_array_equal(lazy[name].isel(selection), whole[name].isel(selection))
        at = {k: v for k, v in selection.items() if k != "seed"}
        np.testing.assert_array_equal(lazy.coverage.isel(at), whole.coverage.isel(at))


def test_only_the_tiles_asked_for_are_read(store: Path) -> None:
    for chunk in store.glob("N=128/x/c/**/*"):
        if chunk.is_file():
            chunk.write_bytes(b"not a chunk")
    ds = xr.open_dataset(store, engine="bendscape", chunks={"N": 1})
    assert bool(ds.x.sel(N=64, p_star=1).notnull().all())
    with pytest.raises(Exception, match=r".+"):
        ds.x.sel(N=128).compute()


def test_plain_xarray_opens_the_store_without_this_package(store: Path) -> None:
    script = (
        "import sys, xarray as xr; tree = xr.open_datatree(sys.argv[1], engine='zarr');"
        "assert not any(m.startswith('bendscape') for m in sys.modules), 'it was imported after all';"
        "x = tree['N=64'].x; print(sorted(tree.children), x.dims, float(x.sel(p=2, p_star=1, a=0.7)[0, 0]))"
    )
    shown = subprocess.check_output([sys.executable, "-c", script, store], text=True, timeout=120)
    x = xr.open_dataset(store, engine="bendscape").x
    assert "['N=128', 'N=64'] ('p', 'p_star', 'a', 'alpha', 'seed')" in shown
    assert float(shown.split()[-1]) == float(x.sel(p=2, p_star=1, a=0.7, alpha=0.8, N=64, seed=0))


def test_a_relative_alpha_is_a_factor_with_alpha_as_a_coordinate(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    campaign = make_campaign(alpha='{ around = "alpha_bbp", start = 0.5, stop = 1.5, num = 3 }')
    run(tmp_path / "s.zarr", kernel_file("return Outcome({'x': cell.alpha})"), campaign)
    ds = xr.open_dataset(tmp_path / "s.zarr", engine="bendscape").load()
    assert ds.x.dims == ("p", "p_star", "a", "alpha_factor", "N", "seed")
    assert ds.attrs["around"] == "alpha_bbp"
    np.testing.assert_array_equal(ds.alpha, ds.alpha_bbp * ds.alpha_factor)
    np.testing.assert_array_equal(ds.x, ds.alpha.broadcast_like(ds.x))
    tree = xr.open_datatree(tmp_path / "s.zarr", engine="zarr")
    np.testing.assert_array_equal(tree["alpha"], ds.alpha)


def test_the_store_can_be_read_at_every_moment_of_a_run_and_of_an_extension(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0.0)
    path, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    done: list[int] = []

    class Reading(SerialExecutor):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            for result in super().run(next_job):
                ds = xr.open_dataset(path, engine="bendscape").load()
                done.append(int((ds.status == 1).sum()))
                assert bool((ds.x.notnull() == (ds.status == 1)).all())
                yield result

    run(path, module, make_campaign(), Reading())
    run(path, module, make_campaign(p=[1, 2, 3], N=[32, 64, 128], seeds=7), Reading())
    assert done == sorted(done)
    assert len(set(done)) > 4


def test_an_open_dataset_stays_what_it_was_while_tiles_land_and_axes_grow(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FLUSH_SECONDS", 0.0)
    path, module = tmp_path / "s.zarr", kernel_file("if cell.seed == 2: 1 / 0\n" + RANDOM)
    early: list[tuple[xr.Dataset, xr.Dataset]] = []

    class Opening(SerialExecutor):
        def run(self, next_job: Callable[[], Job | None]) -> Iterator[Result | None]:
            for result in super().run(next_job):
                lazy = xr.open_dataset(path, engine="bendscape", chunks={})
                early.append((lazy, xr.open_dataset(path, engine="bendscape").load()))
                yield result

    run(path, module, make_campaign(), Opening())
    run(path, module, make_campaign(p=[1, 2, 3], N=[32, 64, 128], seeds=9), Opening())
    run(
        path,
        kernel_file(RANDOM),
        make_campaign(p=[1, 2, 3], seeds=9),
        retry_failed=True,
        accept_kernel_change=True,
    )
    assert len({int((then.status == 1).sum()) for _, then in early}) > 4
    for lazy, then in early:  # read now, variable by variable, from a store that has moved on
        for name in then.data_vars:
            xr.testing.assert_identical(lazy[name].load(), then[name])


WIDER = {"p": [1, 2, 3], "a": [0.5, 0.7, 1.5], "alpha": [0.8, 0.9, 1.0, 1.2], "N": [32, 64, 128], "seeds": 3}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """What one run of the wider campaign gives."""
    folder = tmp_path_factory.mktemp("fresh")
    run(folder / "s.zarr", write_kernel(folder, RANDOM), make_campaign(**WIDER))
    return xr.open_dataset(folder / "s.zarr", engine="bendscape").load()


@pytest.mark.parametrize("writes", [3, 10, 16])
def test_an_extension_that_dies_half_way_leaves_the_old_dataset_and_can_be_repeated(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch, fresh: xr.Dataset, writes: int
) -> None:
    path, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    run(path, module, make_campaign(seeds=2))
    before = xr.open_dataset(path, engine="bendscape").load()

    put, count = Publisher.put, [0]

    def dying(self: Publisher, *rest: Any) -> None:
        count[0] += 1
        if count[0] == writes:
            raise OSError("the disk is gone")
        put(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "put", dying)
        with pytest.raises(OSError, match="the disk is gone"):
            run(path, module, make_campaign(**WIDER))
    xr.testing.assert_identical(xr.open_dataset(path, engine="bendscape").load(), before)
    run(path, module, make_campaign(**WIDER))
    xr.testing.assert_equal(xr.open_dataset(path, engine="bendscape").load(), fresh)


def test_the_campaign_and_its_provenance_are_kept_with_every_revision(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    path, module = tmp_path / "s.zarr", kernel_file(RANDOM)
    for seeds in (2, 2, 3):
        run(path, module, make_campaign(seeds=seeds))
    kept = [json.loads(file.read_text()) for file in sorted((path / "ledger" / "campaign").iterdir())]
    assert [parse_campaign(one["campaign"]).grid["seeds"] for one in kept] == [2, 3]
    assert kept[0]["campaign"] == campaign_text(seeds=2)
    assert kept[0]["packages"].keys() == set(provenance.PACKAGES)
    assert kept[1]["created"] == kept[0]["created"]
    root = json.loads((path / "zarr.json").read_text())["attributes"]
    assert root["bendscape_version"] == provenance.bendscape_version()


def test_the_version_in_a_store_has_the_commit_where_the_code_is_a_checkout() -> None:
    found, checkout = provenance.bendscape_version(), Path(__file__).parents[1]
    if (checkout / ".git").exists():
        commit = subprocess.check_output(["git", "-C", checkout, "rev-parse", "HEAD"], text=True, timeout=20)
        assert found.removesuffix("-dirty") == f"{version('bendscape')}+{commit[:12]}"
    else:
        assert found == version("bendscape")


def test_the_version_of_an_older_store_is_read_too() -> None:
    assert provenance.version_in({"code_version": "0.1.0"}) == "0.1.0"


@pytest.mark.parametrize("make", ["nothing", "folder", "zarr", "newer"])
def test_anything_but_a_bendscape_store_is_refused_in_one_line(tmp_path: Path, make: str) -> None:
    path = tmp_path / "s.zarr"
    if make != "nothing":
        path.mkdir()
    if make == "zarr":
        zarr.create_group(path)
    if make == "newer":
        zarr.create_group(path, attributes={"bendscape_store_version": 99})
    with pytest.raises(ParameterError, match=r"s\.zarr") as caught:
        xr.open_dataset(path, engine="bendscape")
    assert "\n" not in str(caught.value)


def test_a_run_does_not_write_into_somebody_elses_group(tmp_path: Path, kernel_file: KernelFile) -> None:
    zarr.create_group(tmp_path / "s.zarr", attributes={"precious": True})
    with pytest.raises(ParameterError, match="some other Zarr group"):
        run(tmp_path / "s.zarr", kernel_file(RANDOM), make_campaign())
    assert dict(zarr.open_group(tmp_path / "s.zarr").attrs) == {"precious": True}


def test_a_store_published_while_it_is_looked_for_is_found(
    tmp_path: Path, kernel_file: KernelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"

    def another_driver(url: str) -> bool:
        run(path, kernel_file(RANDOM), make_campaign(p=[1], N=[64], seeds=2))
        return holds_cells(url)

    monkeypatch.setattr(root, "holds_cells", another_driver)
    assert open_store(path).url == store_url(path)
    monkeypatch.setattr(root, "holds_cells", holds_cells)
    (path / "zarr.json").unlink()
    with pytest.raises(ParameterError, match="cells but no zarr"):
        open_store(path)


def test_paths_with_spaces_and_quotes_work(tmp_path: Path, kernel_file: KernelFile) -> None:
    path = tmp_path / "it's a #1 store, 100%.zarr"
    run(path, kernel_file(RANDOM), make_campaign(p=[1], N=[64], seeds=2))
    assert read_store(store_url(path)) is not None
    assert float(xr.open_dataset(path, engine="bendscape").coverage.min()) == 1.0


def test_a_url_that_is_not_a_store_is_refused() -> None:
    with pytest.raises(ParameterError, match="ftp://"):
        store_url("ftp://host/store")


def test_failed_cells_travel_with_the_dataset(tmp_path: Path, kernel_file: KernelFile) -> None:
    path = tmp_path / "s.zarr"
    module = kernel_file("if cell.seed == 2 and cell.N == 64: raise ValueError(f'no {cell.a}')\n" + RANDOM)
    run(path, module, make_campaign())
    status = xr.open_dataset(path, engine="bendscape").status.load()
    failed = xr.open_dataset(path, engine="bendscape", group="errors")
    assert failed.sizes["failure"] == int((status == 2).sum()) == 12
    first = failed.isel(failure=0)
    assert (first.error.item(), first.message.item(), first.attempts.item()) == ("ValueError", "no 0.7", 1)
    assert "raise ValueError" in first.traceback.item()
    for one in range(12):
        at = {name: failed[name][one].item() for name in ("p", "p_star", "a", "alpha", "N", "seed")}
        assert int(status.sel(at)) == 2
    # What the campaign no longer wants is hidden, and the table of a whole store is empty.
    run(path, module, make_campaign(N=[128]))
    assert xr.open_dataset(path, engine="bendscape", group="errors").sizes["failure"] == 0
    with pytest.raises(ParameterError, match="group = 'wrong'"):
        xr.open_dataset(path, engine="bendscape", group="wrong")


def test_a_first_trial_with_one_cell_does_not_fix_small_tiles_for_its_extensions(
    tmp_path: Path, kernel_file: KernelFile
) -> None:
    path = tmp_path / "s.zarr"
    module = Path(kernel_file(RANDOM))
    module.write_text(module.read_text().replace("lambda cell: 0.25", "lambda cell: 1e-3"))
    run(path, str(module), make_campaign(p=[1], a=[0.7], alpha=[1.0], N=[64], seeds=1))
    wider = {"p": [1], "a": [0.7], "alpha": [0.8, 0.9, 1.0, 1.1, 1.2], "N": [64], "seeds": 16}
    assert run(path, str(module), make_campaign(**wider)).done == 80
    assert len(list((path / "N=64/x/c").rglob("*"))) < 20
