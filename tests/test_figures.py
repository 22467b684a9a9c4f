"""Figures show the data and the theory they say they show, and leave matplotlib as they found it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import synthetic
import xarray as xr
from matplotlib.figure import Figure

from bendscape.analysis import figures
from bendscape.analysis.figures import (
    eigenvalue_figure,
    figure_pages,
    overlap_figure,
    panels,
    write_figures,
)
from bendscape.analysis.style import size_colours
from bendscape.core.model import Model, ParameterError
from bendscape.core.outlier import asymptotics, transition


@pytest.fixture(scope="module")
def sweep() -> xr.Dataset:
    return synthetic.planted(p=(1, 4), a=(0.7, 1.5), seeds={128: 12, 512: 8})


def containers(axes: object) -> dict[str, object]:
    return {bars.get_label(): bars for bars in axes.containers}  # type: ignore[attr-defined]


def test_there_is_a_panel_a_model_and_points_a_size(sweep: xr.Dataset) -> None:
    for figure in (overlap_figure(sweep), eigenvalue_figure(sweep)):
        assert isinstance(figure, Figure)
        assert len(figure.axes) == 4
        for axes in figure.axes:
            assert set(containers(axes)) == {"$N = 128$", "$N = 512$"}
        shown = [text.get_text() for text in figure.legends[0].get_texts()]
        assert shown[:2] == ["$N = 128$", "$N = 512$"]
        assert shown[-1] == r"$\alpha_{\rm BBP}$"


def test_the_points_are_the_means_and_the_bars_the_standard_errors(sweep: xr.Dataset) -> None:
    for figure, variable in ((overlap_figure(sweep), "overlap_sq"), (eigenvalue_figure(sweep), "eigval_min")):
        points, _, (bars,) = containers(figure.axes[1])["$N = 512$"]  # p = 1, a = 1.5
        cells = sweep[variable].isel(p=0, p_star=0, a=1, N=1, seed=slice(0, 8))
        realised = sweep["alpha_realised"].isel(p=0, p_star=0, a=1, N=1, seed=0)
        np.testing.assert_allclose(points.get_xdata(), realised, atol=1e-11)
        assert not np.allclose(realised, sweep["alpha"].isel(p=0, p_star=0, a=1), atol=1e-5)
        np.testing.assert_allclose(points.get_ydata(), cells.mean("seed"))
        ends = np.array(bars.get_segments())[:, :, 1]
        np.testing.assert_allclose((ends[:, 1] - ends[:, 0]) / 2, cells.std("seed", ddof=1) / math.sqrt(8))


def test_points_lie_at_alpha_where_no_realised_alpha_is_stored(sweep: xr.Dataset) -> None:
    first = panels(sweep.drop_vars("alpha_realised").isel(p=[0], a=[0]))[0]
    np.testing.assert_array_equal(first.alpha_realised, [first.alpha] * 2)


def test_titles_name_the_model_its_kind_and_its_threshold(sweep: xr.Dataset) -> None:
    titles = [axes.get_title(loc="left") for axes in overlap_figure(sweep).axes]
    assert "$p = 1$" in titles[0]
    assert "$a = 0.7$: continuous" in titles[0]
    assert "$p = 4$" in titles[3]
    assert "$a = 1.5$: discontinuous" in titles[3]
    for title, parameters in zip(titles, [(1, 0.7), (1, 1.5), (4, 0.7), (4, 1.5)], strict=True):
        assert f"{transition(Model(parameters[0], 1, parameters[1])).alpha_bbp:.4f}" in title


def test_the_asymptotic_overlap_is_zero_up_to_alpha_bbp_and_jumps_where_the_transition_does(
    sweep: xr.Dataset,
) -> None:
    for axes, parameters in zip(
        overlap_figure(sweep).axes, [(1, 0.7), (1, 1.5), (4, 0.7), (4, 1.5)], strict=True
    ):
        at = transition(Model(parameters[0], 1, parameters[1]))
        vertical, *_ = axes.lines
        below, above = (
            line for line in axes.lines if len(line.get_xdata()) > 20 and line.get_linestyle() == "-"
        )
        assert vertical.get_xdata() == [at.alpha_bbp, at.alpha_bbp]
        assert not np.any(below.get_ydata())
        assert max(below.get_xdata()) == at.alpha_bbp
        assert above.get_ydata()[0] == pytest.approx(at.overlap_sq, abs=1e-6)
        model = Model(parameters[0], 1, parameters[1])
        assert above.get_ydata()[-1] == asymptotics(model, above.get_xdata()[-1]).overlap_sq


def test_edge_and_outlier_are_drawn_and_the_outlier_starts_at_alpha_bbp(sweep: xr.Dataset) -> None:
    axes = eigenvalue_figure(sweep).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    model = Model(1, 1, 0.7)
    edge, outlier = lines[r"edge $\lambda_-$"], lines[r"outlier $\lambda_\star$"]
    assert edge.get_ydata()[0] == asymptotics(model, edge.get_xdata()[0]).lambda_minus
    drawn = np.isfinite(outlier.get_ydata())
    assert min(np.asarray(outlier.get_xdata())[drawn]) == pytest.approx(transition(model).alpha_bbp, rel=1e-6)


def test_absent_cells_leave_gaps_and_models_without_any_cell_leave_no_panel(sweep: xr.Dataset) -> None:
    partial = sweep.copy(deep=True)
    partial["status"].values[1] = 0  # p = 4 is not there
    partial["status"].values[0, 0, 0, 5, 0, :] = 0  # one alpha of N = 128 is not there
    partial["status"].values[0, 0, 0, 6, 0, 1:] = 2  # and one has a single seed
    figure = overlap_figure(partial)
    assert len(figure.axes) == 2
    points, *_ = containers(figure.axes[0])["$N = 128$"]
    assert len(points.get_xdata()) == 20
    first = panels(partial)[0].measured["overlap_sq"]
    assert math.isnan(first.mean[0, 5])
    assert np.isfinite(first.mean[0, 6])
    assert math.isnan(first.error[0, 6])
    assert first.n_seeds[0, 4:7].tolist() == [12, 0, 1]


def test_a_sweep_without_a_single_cell_is_refused_in_words(sweep: xr.Dataset) -> None:
    with pytest.raises(ParameterError, match="at least one cell"):
        overlap_figure(sweep.assign(status=sweep["status"] * 0))


def test_files_are_written_in_every_format_with_the_numbers_beside_them(
    sweep: xr.Dataset, tmp_path: Path
) -> None:
    one = sweep.isel(p=[0])
    paths = write_figures(one, tmp_path / "new" / "figures")
    assert [path.name for path in paths] == [
        f"{name}.{suffix}" for name in ("overlap", "eigenvalue") for suffix in ("svg", "png", "pdf", "csv")
    ]
    heads = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    for path in paths:
        assert path.read_bytes().startswith(heads.get(path.suffix[1:], b"p,p_star,a"))
    with (tmp_path / "new" / "figures" / "overlap.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 21 * 2
    row = next(row for row in rows if row["a"] == "1.5" and row["N"] == "512")
    cells = one["overlap_sq"].isel(p=0, p_star=0, a=1, N=1)
    assert float(row["overlap_sq"]) == pytest.approx(cells[0].mean().item(), rel=1e-12)
    assert row["n_seeds"] == "8"
    assert row["overlap_sq_theory"] == ""  # below alpha_bbp there is no outlier
    assert float(rows[-1]["alpha"]) == one["alpha"][0, 0, 1, -1].item()
    realised = float(rows[-1]["alpha_realised"])
    assert realised == pytest.approx(one["alpha_realised"][0, 0, 1, -1, 1, 0].item(), abs=1e-11)
    assert float(rows[-1]["overlap_sq_theory"]) == asymptotics(Model(1, 1, 1.5), realised).overlap_sq


@pytest.fixture
def many() -> xr.Dataset:
    return synthetic.planted(
        p=(1, 2), p_star=(1,), a=np.linspace(0.5, 1.5, 7), seeds={64: 2}, alpha_factor=(0.8, 1.2)
    )


def test_many_models_are_drawn_on_pages_of_twelve_with_one_csv(many: xr.Dataset, tmp_path: Path) -> None:
    names = [path.name for path in write_figures(many, tmp_path, ("svg",))]
    assert names == [
        f"{figure}{part}" for figure in ("overlap", "eigenvalue") for part in ("-1.svg", "-2.svg", ".csv")
    ]
    pages = list(figure_pages(panels(many), "overlap"))
    assert [(name, len(figure.axes)) for name, figure in pages] == [("overlap-1", 12), ("overlap-2", 2)]
    titles = [axes.get_title(loc="left").split(":")[0] for _, figure in pages for axes in figure.axes]
    assert len(set(titles)) == 14


def test_pages_of_an_earlier_call_do_not_stay_beside_new_ones(
    many: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "PANELS", 1)
    one, two = many.isel(p=[0], a=[0]), many.isel(p=[0], a=[0, 1])
    write_figures(one, tmp_path)
    (tmp_path / "overlap-3.svg").write_text("<svg>drawn by hand</svg>")
    (tmp_path / "overlap-notes.pdf").write_bytes((tmp_path / "overlap.pdf").read_bytes())
    (tmp_path / "mine.png").write_bytes((tmp_path / "overlap.png").read_bytes())
    (tmp_path / "eigenvalue-old.svg").mkdir()
    theirs = {"overlap-3.svg", "overlap-notes.pdf", "mine.png", "eigenvalue-old.svg"}
    written = {path.name for path in write_figures(two, tmp_path, ("svg",))}
    assert {path.name for path in tmp_path.iterdir()} == written | theirs
    written = {path.name for path in write_figures(one, tmp_path, ("png",))}
    assert {path.name for path in tmp_path.iterdir()} == written | theirs
    more = {path.name for path in write_figures(one, tmp_path, ("svg",))}
    assert {path.name for path in tmp_path.iterdir()} == written | more | theirs  # another format of a page


def test_both_figures_read_each_model_once_and_ask_the_theory_once(
    many: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    asked: list[tuple[Model, float]] = []
    compute, theory = xr.Dataset.compute, asymptotics
    monkeypatch.setattr(xr.Dataset, "compute", lambda self, **o: read.append(1) or compute(self, **o))
    monkeypatch.setattr(
        "bendscape.core.outlier.asymptotics", lambda model, x: asked.append((model, x)) or theory(model, x)
    )
    figures._theory_line.cache_clear()
    write_figures(many, tmp_path, ("svg",))
    assert len(read) == 14
    assert 14 * 161 <= len(asked) == len(set(asked)) <= 14 * 163


def test_the_same_sweep_gives_the_same_svg(sweep: xr.Dataset, tmp_path: Path) -> None:
    one = sweep.isel(p=[0], a=[0])
    first, second = (write_figures(one, tmp_path / name, ("svg",))[0].read_bytes() for name in "ab")
    assert first == second


def test_an_unknown_format_is_refused_before_anything_is_written(sweep: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="svg, png, pdf"):
        write_figures(sweep, tmp_path / "none", ("bmp",))
    assert not (tmp_path / "none").exists()


def test_matplotlib_settings_and_pyplot_are_left_alone(sweep: xr.Dataset) -> None:
    import sys

    before = dict(matplotlib.rcParams)
    overlap_figure(sweep)
    assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_colours_of_sizes_go_from_light_to_dark_and_differ() -> None:
    colours = np.array(size_colours(6))
    luminance = colours @ [0.2126, 0.7152, 0.0722]
    assert np.all(np.diff(luminance) < 0)
    assert len({tuple(colour) for colour in colours}) == 6
