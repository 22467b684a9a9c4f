"""Label noise as an axis: in samples, theory and stores, and refused by analyses.

tests/data/hessian-store-without-noise.zip was written before kernels had this axis, with a kernel whose
options were fewer than now.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from command_line import bendscape
from zarr.storage import ZipStore

from bendscape.analysis.dataset.export import export_store
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.drift import drift
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.estimate.thresholds import thresholds
from bendscape.analysis.figures.draw import draw_figure
from bendscape.analysis.findings.panels import means, panels
from bendscape.analysis.findings.results import Results
from bendscape.analysis.findings.shift_map import shift_map
from bendscape.analysis.report.page import write_report
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.finite_size.crossover import alpha_bbp_at_size, crossover_size
from bendscape.core.quadratic.model import EDGE_KINDS, TRANSITION_KINDS, Model
from bendscape.core.quadratic.sampling.drawn_labels import sample_drawn_labels
from bendscape.core.quadratic.sampling.observe import observe
from bendscape.core.quadratic.theory.outlier import alpha_0, asymptotics, transition
from bendscape.sweep.campaign.axes import cell_rng
from bendscape.sweep.campaign.file import Campaign, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.commands.status import store_status
from bendscape.sweep.kernels.quadratic import AXES, MOST_NOISE
from bendscape.sweep.store.fsck import fsck
from bendscape.sweep.store.root import open_store
from campaigns import run, write_kernel

DATA = Path(__file__).parent / "data"
ENTROPY = 20261122
GRID: Mapping[str, str] = {
    "p": "[1, 2]",
    "p_star": "[1]",
    "a": "[0.7]",
    "alpha": '{ around = "alpha_bbp", start = 0.6, stop = 1.4, num = 3 }',
    "N": "[16]",
    "seeds": "4",
}
"""The grid of the old store."""
NOISES = (0.0, 0.5)


def campaign(kernel: str = "hessian", **grid: str) -> Campaign:
    head = (
        f'[campaign]\nname = "noisy"\nstore = "s.zarr"\nentropy = {ENTROPY}\nkernel = "{kernel}"\n\n[grid]\n'
    )
    lines = {**GRID, **grid}.items()
    return parse_campaign(head + "\n".join(f"{key} = {value}" for key, value in lines))


def opened(store: Path) -> xr.Dataset:
    with xr.open_dataset(store, engine="bendscape") as ds:
        return ds.load()


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of Hessians with and without noise."""
    store = tmp_path_factory.mktemp("noisy") / "s.zarr"
    assert run(store, "", campaign(noise=str(list(NOISES)))).outcome == "complete"
    return store


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without noise: its cells have the bits of those at noise 0."""
    store = tmp_path_factory.mktemp("plain") / "s.zarr"
    assert run(store, "", campaign()).outcome == "complete"
    return store


@pytest.fixture
def old(tmp_path: Path) -> Path:
    zipfile.ZipFile(DATA / "hessian-store-without-noise.zip").extractall(tmp_path / "old.zarr")
    return tmp_path / "old.zarr"


def test_cells_are_those_of_the_sampler_with_that_noise_bit_for_bit(noisy: Path) -> None:
    ds = opened(noisy)
    assert ds["eigval_min"].dims == ("p", "p_star", "a", "noise", "alpha_factor", "N", "seed")
    names = [v.name for v in load_kernel("hessian").variables]
    for p, noise, factor, seed in itertools.product((1, 2), NOISES, (0.6, 1.4), (0, 3)):
        at = ds.sel(p=p, p_star=1, a=0.7, noise=noise, alpha_factor=factor, N=16, seed=seed)
        alpha = at["alpha"].item()
        cell = AXES.cell(factor, p=p, p_star=1, a=0.7, noise=noise, alpha=alpha, N=16, seed=seed)
        sampled = observe(Model(p, 1, 0.7, noise), alpha, 16, cell_rng(ENTROPY, cell))
        for name in names:
            np.testing.assert_array_equal(at[name].item(), getattr(sampled, name), err_msg=name)
    assert not (ds["eigval_min"].sel(noise=0.0) == ds["eigval_min"].sel(noise=0.5)).any()


def test_labels_are_drawn_with_noise_too(tmp_path: Path) -> None:
    grid = {"noise": "0.3", "alpha": "[1.2]", "p": "[2]", "N": "[200]", "seeds": "2"}
    assert run(tmp_path / "s.zarr", "", campaign("labels", **grid)).outcome == "complete"
    ds = opened(tmp_path / "s.zarr")
    for seed in range(2):
        cell = AXES.cell(p=2, p_star=1, a=0.7, noise=0.3, alpha=1.2, N=200, seed=seed)
        drawn = sample_drawn_labels(Model(2, 1, 0.7, 0.3), 1.2, 200, cell_rng(ENTROPY, cell), kept=2**24)
        at = ds.sel(noise=0.3, seed=seed).squeeze()
        for name, value in drawn._asdict().items():
            np.testing.assert_array_equal(at[name].item(), value)


def test_cells_with_zero_noise_have_the_bits_of_a_store_without_the_axis(noisy: Path, old: Path) -> None:
    ds, before = opened(noisy).drop_attrs(), opened(old).drop_attrs()
    clean = ds.sel(noise=0.0)
    for name in ("status", "wanted", "n_seeds", "n_matvecs", "alpha_realised", "coverage"):
        np.testing.assert_array_equal(clean[name].values, before[name].values, err_msg=name)
    # Bits of LAPACK and BLAS differ between machines in the last digits; those of a stream never do.
    xr.testing.assert_allclose(clean, before, rtol=1e-9)


def test_the_streams_of_cells_with_noise_never_change() -> None:
    facts = {0.0: 4_167_105_112_565_973_004, 0.5: 4_369_206_239_159_564_158}
    for noise, fact in facts.items():
        cell = AXES.cell(1.2, p=2, p_star=1, a=1.5, noise=noise, alpha=1.5, N=32, seed=3)
        assert int(cell_rng(ENTROPY, cell).integers(2**62)) == fact
    without = AXES.required.cell(1.2, p=2, p_star=1, a=1.5, alpha=1.5, N=32, seed=3)
    assert int(cell_rng(ENTROPY, without).integers(2**62)) == facts[0.0]


def test_theory_beside_the_cells_is_that_of_the_noisy_model(noisy: Path) -> None:
    ds = opened(noisy)
    for p, noise in itertools.product((1, 2), NOISES):
        model = Model(p, 1, 0.7, noise)
        at, exact = ds.sel(p=p, p_star=1, a=0.7, noise=noise), transition(model)
        assert at["alpha_bbp"].item() == pytest.approx(exact.alpha_bbp, rel=1e-11)
        assert at["alpha_sharp"].item() == pytest.approx(exact.alpha_sharp, rel=1e-11)
        assert TRANSITION_KINDS[int(at["transition"].item())] == exact.kind
        for factor in (0.6, 1.4):
            point = at.sel(alpha_factor=factor)
            assert point["alpha"].item() == pytest.approx(factor * exact.alpha_bbp, rel=1e-11)
            theory = asymptotics(model, point["alpha"].item())
            assert EDGE_KINDS[int(point["edge"].item())] == theory.edge
            for name, value in (
                ("lambda_minus", theory.lambda_minus),
                ("lambda_star", theory.lambda_star),
                ("overlap_sq_theory", theory.overlap_sq),
            ):
                assert point[name].item() == pytest.approx(value, rel=1e-9, nan_ok=True)


def test_alpha_can_be_relative_to_alpha_0_of_the_noisy_model(tmp_path: Path) -> None:
    grid = {"alpha": '{ around = "alpha_0", values = [1.0] }', "a": "[4.0]", "p": "[1]", "seeds": "1"}
    run(tmp_path / "s.zarr", "", campaign("labels", **grid, noise="[0.0, 0.2]"))
    alpha = opened(tmp_path / "s.zarr")["alpha"].squeeze()
    for noise in (0.0, 0.2):
        exact = alpha_0(Model(1, 1, 4.0, noise)).complex_re
        assert alpha.sel(noise=noise).item() == pytest.approx(exact, rel=1e-9)


def test_with_noise_the_theory_kernel_gives_nan_for_laws_that_do_not_hold(tmp_path: Path) -> None:
    grid = {"noise": "[0.0, 0.2]", "a": "[4.0]", "alpha": "[3.0]", "N": "[1000]", "seeds": "1", "p": "[1]"}
    assert run(tmp_path / "s.zarr", "", campaign("theory", **grid)).outcome == "complete"
    ds = opened(tmp_path / "s.zarr").squeeze()
    laws = ("eigval_min_law", "eigval_min_sd_law", "overlap_sq_space_law")
    for noise in (0.0, 0.2):
        model, at = Model(1, 1, 4.0, noise), ds.sel(noise=noise)
        assert transition(model).kind == "discontinuous"
        assert at["alpha_bbp_at_size"].item() == alpha_bbp_at_size(model, 1000)
        assert at["crossover_size"].item() == crossover_size(model)
        assert at["overlap_sq_jump"].item() == transition(model).overlap_sq_jump
        assert at["alpha_0_complex_re"].item() == alpha_0(model).complex_re
        assert [math.isnan(at[name].item()) for name in laws] == [noise > 0] * 3
    described = {v.name: v.long_name for v in load_kernel("theory").variables}
    assert all("noise" in described[name] for name in laws)


def test_a_kernel_that_draws_no_noise_has_no_such_axis(tmp_path: Path) -> None:
    own = write_kernel(tmp_path, "return Outcome({'x': rng.normal()})")
    for name, module in (("spectral", ""), ("probe", own)):
        kernel = load_kernel(name, [module] if module else [])
        assert kernel.axes == AXES.required
        assert [of.over for of in kernel.references] == [("p", "p_star", "a"), ("p", "p_star", "a", "alpha")]
        with pytest.raises(
            ParameterError, match=r"key = 'grid\.noise' .* one of p, p_star, a, alpha, N, seeds"
        ):
            run(tmp_path / "s.zarr", module, campaign(name, noise="[0.5]"))
    assert not (tmp_path / "s.zarr").exists()
    for name in ("hessian", "labels", "theory"):
        assert load_kernel(name).axes == AXES


@pytest.mark.parametrize("noise", ["[-0.1]", "[11]", '"much"', "[nan]"])
def test_noise_outside_its_range_is_one_line(tmp_path: Path, noise: str) -> None:
    with pytest.raises(ParameterError, match=rf"finite numbers >= 0 and <= {MOST_NOISE:g}"):
        run(tmp_path / "s.zarr", "", campaign(noise=noise))


def test_a_store_without_noise_is_read_with_it_as_the_constant_that_it_was(old: Path) -> None:
    ds = opened(old)
    assert ds["eigval_min"].dims == ("p", "p_star", "a", "alpha_factor", "N", "seed")
    assert (ds["noise"].shape, ds["noise"].item()) == ((), 0.0)
    assert fsck(old).sound
    assert store_status(old)["done"] == 24


def test_the_old_store_is_resumed_and_extended_to_the_result_of_a_single_new_run(
    old: Path, tmp_path: Path
) -> None:
    assert run(old, "", campaign()).computed == 0
    grown = {"a": "[0.7, 1.5]", "N": "[16, 20]", "seeds": "{ 16 = 6, 20 = 2 }"}
    summary = run(old, "", campaign(**grown))
    assert (summary.outcome, summary.computed) == ("complete", summary.cells - 24)
    assert run(tmp_path / "fresh.zarr", "", campaign(**grown)).outcome == "complete"
    xr.testing.assert_allclose(
        opened(old).drop_attrs(), opened(tmp_path / "fresh.zarr").drop_attrs(), rtol=1e-9
    )
    assert fsck(old).sound
    stores = [open_store(path) for path in (old, tmp_path / "fresh.zarr")]
    assert [store.attributes["layout"]["constants"] for store in stores] == [{"noise": 0.0}] * 2
    assert [store.options["tolerance"] for store in stores] == [None] * 2


def test_a_lost_root_of_the_old_store_is_restored(old: Path) -> None:
    before = opened(old)
    (old / "zarr.json").unlink()
    shutil.rmtree(old / "alpha_bbp")
    assert fsck(old, repair=True).repaired
    xr.testing.assert_allclose(opened(old), before, rtol=1e-12)


def test_a_store_whose_noise_is_a_constant_is_refused_by_a_campaign_that_sweeps_it(old: Path) -> None:
    for noise in ("[0.0, 0.5]", "[0.5]", "[0.0]"):
        with pytest.raises(
            ParameterError, match=r"noise: 0\.0 in every cell there, a dimension here\..*--store"
        ):
            run(old, "", campaign(noise=noise))
    assert opened(old)["noise"].shape == ()


ANALYSES: Mapping[str, Callable[[xr.Dataset, Path], Any]] = {
    "thresholds": lambda ds, folder: thresholds(ds),
    "collapse": lambda ds, folder: collapse(ds),
    "edge scaling": lambda ds, folder: edge_scaling(ds),
    "drift": lambda ds, folder: drift(ds),
    "shift map": lambda ds, folder: shift_map(ds),
    "means": lambda ds, folder: means(ds),
    "panels": lambda ds, folder: panels(ds),
    "results": lambda ds, folder: Results(ds).read(["collapse"]),
    "a figure": lambda ds, folder: draw_figure(Results(ds), "overlap"),
    "report": lambda ds, folder: write_report(ds, folder / "report.html"),
    "accessor": lambda ds, folder: ds.bend.thresholds(),
}


@pytest.mark.parametrize("name", list(ANALYSES))
def test_every_analysis_refuses_noise_before_it_computes_anything(
    noisy: Path, tmp_path: Path, name: str
) -> None:
    analysis = ANALYSES[name]
    with xr.open_dataset(noisy, engine="bendscape", chunks={}) as ds:
        with pytest.raises(ParameterError, match=r"noise must be 0 .*; ds\.sel\(noise=0\) is that part"):
            analysis(ds, tmp_path)
        for one in (ds.sel(noise=0.5), ds.sel(noise=[0.5]), ds.sel(noise=0.5).reset_coords()):
            with pytest.raises(ParameterError, match=r"noise = \[0\.5\] is not accepted"):
                analysis(one, tmp_path)
        with pytest.raises(ParameterError, match=r"noise = \[0\.0, 0\.0\] is not accepted"):
            analysis(ds.isel(noise=[0, 0]), tmp_path)
        for gone in (ds.isel(noise=1, drop=True), ds.reset_coords().mean("noise")):
            with pytest.raises(ParameterError, match="a dataset with noise among its dimensions"):
                analysis(gone, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", list(ANALYSES))
def test_every_analysis_takes_the_part_that_its_refusal_names(noisy: Path, tmp_path: Path, name: str) -> None:
    with xr.open_dataset(noisy, engine="bendscape", chunks={}) as ds:
        ANALYSES[name](ds.sel(noise=0), tmp_path)
        ANALYSES[name](ds.sel(noise=[0]), tmp_path)


def test_the_part_without_noise_gives_the_results_of_a_sweep_without_noise(noisy: Path, old: Path) -> None:
    swept, plain = opened(noisy), opened(old)
    expected = thresholds(plain).drop_attrs()
    for part in (swept.sel(noise=0), swept.sel(noise=[0]), swept.where(swept["status"] == 1).sel(noise=0)):
        xr.testing.assert_allclose(thresholds(part).drop_attrs(), expected, rtol=1e-9)
    assert "noise" not in expected.variables


def test_stores_without_noise_and_with_it_are_joined_by_xarray(noisy: Path, old: Path) -> None:
    swept = opened(noisy).sel(noise=[0.5])
    joined = xr.concat([opened(old), swept], "noise")
    assert joined["noise"].values.tolist() == [0.0, 0.5]
    xr.testing.assert_allclose(
        joined["eigval_min"], opened(noisy)["eigval_min"].transpose(*joined["eigval_min"].dims)
    )
    assert joined["alpha_bbp"].sizes["noise"] == 2


@pytest.mark.parametrize("command", ["thresholds", "scaling", "claims", "report", "figures"])
def test_commands_refuse_noise_in_one_line(noisy: Path, tmp_path: Path, command: str) -> None:
    output = {"report": ["-o", tmp_path / "r.html"], "figures": ["-o", tmp_path / "figures"]}
    found = bendscape(command, noisy, *output.get(command, []))
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert "noise must be 0" in found.stderr
    assert "take --sel noise=0\n" in found.stderr
    assert not list(tmp_path.iterdir())


def results_of(command: str, store: Path, folder: Path, *options: str) -> Any:
    """What a command says in JSON, and the files that it writes with tables of numbers."""
    folder.mkdir()
    output: Mapping[str, list[object]] = {
        "scaling": ["--n-boot", 100],
        "report": ["-o", folder / "r.html"],
        "figures": ["-o", folder, "--format", "svg", "--only", "overlap", "--only", "eigenvalue"],
    }
    found = bendscape(command, store, "--json", *output.get(command, []), *options)
    assert found.returncode == 0, found.stderr
    document = {
        k: v for k, v in json.loads(found.stdout).items() if k not in ("store", "stores", "output", "files")
    }
    return document, {path.name: path.read_text() for path in sorted(folder.glob("*.csv"))}


@pytest.mark.parametrize("command", ["thresholds", "scaling", "claims", "report", "figures"])
def test_commands_take_one_noise_of_a_store_and_say_what_they_say_of_a_store_without(
    noisy: Path, plain: Path, tmp_path: Path, command: str
) -> None:
    found, tables = results_of(command, noisy, tmp_path / "noisy", "--sel", "noise=0", "--sel", "p=2,1")
    assert found.pop("sel") == ["noise=0", "p=2,1"]
    expected, written = results_of(command, plain, tmp_path / "plain", "--sel", "noise=0")
    assert expected.pop("sel") == ["noise=0"]
    assert (found, tables) == (expected, written)
    assert any(found.values()) or tables
    part, _ = results_of(command, noisy, tmp_path / "part", "--sel", "noise=0", "--sel", "p=1")
    assert part.pop("sel") == ["noise=0", "p=1"]
    assert part != found or command in ("claims", "figures")


def test_the_report_says_what_it_was_made_of(noisy: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    assert bendscape("report", noisy, "-o", page, "--sel", "noise=0").returncode == 0
    assert re.search(r"Only the cells with</\w+>\s*<\w+>noise=0<", page.read_text())


@pytest.mark.parametrize("command", ["thresholds", "scaling", "claims", "descent", "report", "figures"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nose=0", "one of the axes p, p_star, a, noise, alpha_factor, N, seed"),
        ("alpha=1", "one of the axes p, p_star, a, noise, alpha_factor, N, seed"),
        ("noise", "noise= with values that the axis has: 0.0, 0.5"),
        ("noise=0.25", "noise= with values that the axis has: 0.0, 0.5"),
        ("noise=0,none", "noise= with values that the axis has: 0.0, 0.5"),
        ("p=3", "p= with values that the axis has: 1, 2"),
    ],
)
def test_a_selection_of_what_is_not_there_is_one_line(
    noisy: Path, tmp_path: Path, command: str, given: str, said: str
) -> None:
    output = {"report": ["-o", tmp_path / "r.html"], "figures": ["-o", tmp_path / "figures"]}
    found = bendscape(command, noisy, *output.get(command, []), "--sel", given)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.count("\n") == 1
    assert found.stderr.endswith(f"--sel must be {'AXIS=VALUES with ' if 'axes' in said else ''}{said}\n")
    assert not list(tmp_path.iterdir())


def test_a_constant_of_a_store_is_an_axis_of_one_value(old: Path) -> None:
    assert bendscape("thresholds", old, "--sel", "noise=0").returncode == 0
    found = bendscape("thresholds", old, "--sel", "noise=0.5")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert found.stderr.endswith("noise= with values that the axis has: 0.0\n")


@pytest.mark.parametrize("ending", [".zarr", ".zip", ".nc"])
def test_exports_have_noise_as_the_dataset_has_it(
    noisy: Path, old: Path, tmp_path: Path, ending: str
) -> None:
    for name, store in (("swept", noisy), ("constant", old)):
        output, engine = tmp_path / f"{name}{ending}", "h5netcdf" if ending == ".nc" else "zarr"
        export_store(store, output)
        archive = ZipStore(output, mode="r") if ending == ".zip" else nullcontext(output)
        with archive as place, xr.open_dataset(place, engine=engine) as written:
            xr.testing.assert_equal(written["noise"].load(), opened(store)["noise"])
            xr.testing.assert_equal(written["eigval_min"].load(), opened(store)["eigval_min"])
