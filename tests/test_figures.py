"""Figures show the data and theory that they claim to show, and do not change matplotlib's state."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import synthetic
import typer
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from typer.testing import CliRunner

from bendscape.analysis import accessor as _registers_bend  # noqa: F401
from bendscape.analysis.commands import register
from bendscape.analysis.figures import alpha as alpha_figures
from bendscape.analysis.figures import draw as figures
from bendscape.analysis.figures.draw import FIGURES, draw_figure, numbers_of, pages, write_figures
from bendscape.analysis.figures.style import model_rows, size_colours, style
from bendscape.analysis.figures.tables import Numbers
from bendscape.analysis.findings import panels, results
from bendscape.analysis.findings.results import Results
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import asymptotics, transition


def overlap_figure(ds: xr.Dataset) -> Figure:
    return draw_figure(ds, "overlap")


def eigenvalue_figure(ds: xr.Dataset) -> Figure:
    return draw_figure(ds, "eigenvalue")


@pytest.fixture(autouse=True, scope="module")
def few_drawn_labels() -> Iterator[None]:
    """Finite-size curves of 9 alphas. That all 33 are the law is held by ``test_figure_numbers.py``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alpha_figures, "_FINE", 9)
        yield


@pytest.fixture(scope="module")
def sweep() -> xr.Dataset:
    return synthetic.planted(p=(1, 4), a=(0.7, 1.5), seeds={128: 12, 512: 8})


AGAINST_ALPHA = ("overlap", "eigenvalue")
FINE = 21


@pytest.fixture(scope="module")
def full() -> xr.Dataset:
    """A sweep from which every figure can be drawn."""
    return synthetic.planted(
        a=(0.7, 1.5), seeds={64: 16, 128: 12, 256: 8}, alpha_factor=np.linspace(0.6, 1.6, 15)
    )


@pytest.fixture(scope="module")
def numbers(full: xr.Dataset) -> dict[str, Numbers]:
    """The numbers behind every figure of ``full``."""
    results_of_full = Results(full)
    return {name: numbers_of(results_of_full, name) for name in FIGURES}


def containers(axes: object) -> dict[str, object]:
    return {bars.get_label(): bars for bars in axes.containers}  # type: ignore[attr-defined]


def test_there_is_a_panel_for_each_model_and_points_for_each_size(sweep: xr.Dataset) -> None:
    for figure in (overlap_figure(sweep), eigenvalue_figure(sweep)):
        assert isinstance(figure, Figure)
        assert len(figure.axes) == 4
        for axes in figure.axes:
            assert set(containers(axes)) == {"$N = 128$", "$N = 512$"}
        shown = [text.get_text() for text in figure.legends[0].get_texts()]
        assert shown[:2] == ["$N = 128$", "$N = 512$"]
        assert shown[-1] == r"$\alpha_{\rm BBP}$"


def test_the_points_are_the_means_and_the_bars_the_standard_errors(sweep: xr.Dataset) -> None:
    for figure, variable in (
        (overlap_figure(sweep), "overlap_sq_space"),
        (eigenvalue_figure(sweep), "eigval_min"),
    ):
        points, _, (bars,) = containers(figure.axes[1])["$N = 512$"]  # p = 1, a = 1.5
        cells = sweep[variable].isel(p=0, p_star=0, a=1, N=1, seed=slice(0, 8))
        realised = sweep["alpha_realised"].isel(p=0, p_star=0, a=1, N=1, seed=0)
        np.testing.assert_allclose(points.get_xdata(), realised, atol=1e-11)
        assert not np.allclose(realised, sweep["alpha"].isel(p=0, p_star=0, a=1), atol=1e-5)
        np.testing.assert_allclose(points.get_ydata(), cells.mean("seed"))
        ends = np.array(bars.get_segments())[:, :, 1]
        np.testing.assert_allclose((ends[:, 1] - ends[:, 0]) / 2, cells.std("seed", ddof=1) / math.sqrt(8))


def test_points_lie_at_alpha_where_no_realised_alpha_is_stored(sweep: xr.Dataset) -> None:
    first = panels.panels(sweep.drop_vars("alpha_realised").isel(p=[0], a=[0]))[0]
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
        place = next(k for k, line in enumerate(axes.lines) if "infty" in str(line.get_label()))
        below, above = axes.lines[place - 1 : place + 1]
        assert vertical.get_xdata() == [at.alpha_bbp, at.alpha_bbp]
        assert not np.any(below.get_ydata())
        assert max(below.get_xdata()) == at.alpha_bbp
        assert above.get_ydata()[0] == pytest.approx(at.overlap_sq_jump, abs=1e-6)
        model = Model(parameters[0], 1, parameters[1])
        assert above.get_ydata()[-1] == asymptotics(model, above.get_xdata()[-1]).overlap_sq


def test_edge_and_outlier_are_drawn_and_the_outlier_starts_at_alpha_bbp(sweep: xr.Dataset) -> None:
    axes = eigenvalue_figure(sweep).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    model = Model(1, 1, 0.7)
    edge, outlier = lines[r"edge $\lambda_-$"], lines[r"outlier $\lambda_{*}$"]
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
    first = panels.panels(partial)[0].measured["overlap_sq"]
    assert math.isnan(first.mean[0, 5])
    assert np.isfinite(first.mean[0, 6])
    assert math.isnan(first.error[0, 6])
    assert first.n_seeds[0, 4:7].tolist() == [12, 0, 1]


def test_a_sweep_without_any_finished_cell_is_refused_with_a_message(sweep: xr.Dataset) -> None:
    with pytest.raises(ParameterError, match="at least one cell"):
        overlap_figure(sweep.assign(status=sweep["status"] * 0))


def test_files_are_written_in_every_format_with_the_numbers_beside_them(
    sweep: xr.Dataset, tmp_path: Path
) -> None:
    one = sweep.isel(p=[0])
    paths = write_figures(one, tmp_path / "new" / "figures", only=AGAINST_ALPHA).paths
    assert [path.name for path in paths] == [
        f"{name}{rest}" for name in AGAINST_ALPHA for rest in (".svg", ".png", ".pdf", ".csv", "-curves.csv")
    ]
    heads = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    for path in paths:
        assert path.read_bytes().startswith(heads.get(path.suffix[1:], b"p,p_star,a"))
    with (tmp_path / "new" / "figures" / "overlap.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 21 * 2
    row = next(row for row in rows if row["a"] == "1.5" and row["N"] == "512")
    cells = one["overlap_sq_space"].isel(p=0, p_star=0, a=1, N=1)
    assert float(row["overlap_sq_space"]) == pytest.approx(cells[0].mean().item(), rel=1e-12)
    assert row["n_seeds"] == "8"
    assert row["overlap_sq_theory"] == ""  # below alpha_bbp there is no outlier
    assert float(rows[-1]["alpha"]) == one["alpha"][0, 0, 1, -1].item()
    realised = float(rows[-1]["alpha_realised"])
    assert realised == pytest.approx(one["alpha_realised"][0, 0, 1, -1, 1, 0].item(), abs=1e-11)
    assert float(rows[-1]["overlap_sq_theory"]) == asymptotics(Model(1, 1, 1.5), realised).overlap_sq


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[xr.Dataset]:
    """Five models, with few points of each line of theory, and four panels a page."""
    assert figures.PANELS == 12
    monkeypatch.setattr(figures, "PANELS", 4)
    monkeypatch.setattr(alpha_figures, "_FINE", 3)
    monkeypatch.setattr(panels, "_FINE", FINE)
    panels._theory_line.cache_clear()
    yield synthetic.planted(
        p=(1,), p_star=(1,), a=np.linspace(0.5, 1.5, 5), seeds={64: 2}, alpha_factor=(0.8, 1.2)
    )
    panels._theory_line.cache_clear()


def test_many_models_are_drawn_on_pages_with_one_csv(many: xr.Dataset, tmp_path: Path) -> None:
    names = [path.name for path in write_figures(many, tmp_path, ("svg",), AGAINST_ALPHA).paths]
    assert names == [
        f"{name}{part}" for name in AGAINST_ALPHA for part in ("-1.svg", "-2.svg", ".csv", "-curves.csv")
    ]
    pages = list(figures.pages("overlap", numbers_of(many, "overlap")))
    assert [(name, len(figure.axes)) for name, figure in pages] == [("overlap-1", 4), ("overlap-2", 1)]
    titles = [axes.get_title(loc="left").split(":")[0] for _, figure in pages for axes in figure.axes]
    assert len(set(titles)) == 5


def test_pages_of_an_earlier_call_do_not_stay_beside_new_ones(
    many: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "PANELS", 1)
    for name in (*AGAINST_ALPHA, "edge"):  # what is on the pages does not matter here
        monkeypatch.setitem(figures.FIGURES, name, FIGURES[name]._replace(draw=lambda numbers: Figure()))
    one, two = many.isel(p=[0], a=[0]), many.isel(p=[0], a=[0, 1])
    write_figures(one, tmp_path, only=AGAINST_ALPHA)
    (tmp_path / "overlap-3.svg").write_text("<svg>drawn by hand</svg>")
    (tmp_path / "overlap-notes.pdf").write_bytes((tmp_path / "overlap.pdf").read_bytes())
    (tmp_path / "mine.png").write_bytes((tmp_path / "overlap.png").read_bytes())
    (tmp_path / "eigenvalue-old.svg").mkdir()
    (tmp_path / "edge-1.png").write_bytes((tmp_path / "overlap.png").read_bytes())
    theirs = {"overlap-3.svg", "overlap-notes.pdf", "mine.png", "eigenvalue-old.svg", "edge-1.png"}

    def write(ds: xr.Dataset, suffix: str) -> set[str]:
        return {path.name for path in write_figures(ds, tmp_path, (suffix,), AGAINST_ALPHA).paths}

    written = write(two, "svg")
    assert {path.name for path in tmp_path.iterdir()} == written | theirs
    written = write(one, "png")
    assert {path.name for path in tmp_path.iterdir()} == written | theirs
    more = write(one, "svg")
    assert {path.name for path in tmp_path.iterdir()} == written | more | theirs  # another format of a page
    write_figures(one, tmp_path, ("pdf",), ("overlap", "edge"))
    assert not (tmp_path / "edge-1.png").exists()  # an edge figure was asked for, and could not be drawn


def test_both_figures_read_each_model_once_and_ask_the_theory_once(
    many: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    asked: list[tuple[Model, float]] = []
    of_model, theory = panels._means_of_model, asymptotics
    monkeypatch.setattr(panels, "_means_of_model", lambda block, **o: read.append(1) or of_model(block, **o))
    monkeypatch.setattr(
        "bendscape.core.quadratic.theory.outlier.asymptotics",
        lambda model, x: asked.append((model, x)) or theory(model, x),
    )
    write_figures(many, tmp_path, ("svg",), AGAINST_ALPHA)
    assert len(read) == 5
    assert 5 * FINE <= len(asked) == len(set(asked)) <= 5 * (FINE + 2)


def test_the_same_sweep_gives_the_same_svg(full: xr.Dataset, tmp_path: Path) -> None:
    one = full.isel(a=[1])
    first, second = (write_figures(one, tmp_path / name, ("svg",)).files for name in "ab")
    assert set(first) == set(FIGURES)
    for name, paths in first.items():
        assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in second[name]], name


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


def test_every_figure_is_drawn_with_a_legend_and_leaves_matplotlib_as_it_was(
    numbers: dict[str, Numbers],
) -> None:
    before = dict(matplotlib.rcParams)
    for name in FIGURES:
        ((page, drawn),) = pages(name, numbers[name])
        assert page == name
        assert drawn.legends
        for axes in drawn.axes:
            assert axes.get_xlabel()
            assert axes.get_ylabel()
            assert axes.get_title(loc="left").startswith("$p")
    assert dict(matplotlib.rcParams) == before


def test_both_kinds_of_one_pair_of_widths_stand_side_by_side() -> None:
    of = {(p, 1, a): ("continuous" if a < 1 else "discontinuous") for p in (1, 2) for a in (0.3, 0.7, 1.5)}
    assert model_rows(list(of), of) == [[(p, 1, a) for a in (0.3, 0.7, 1.5)] for p in (1, 2)]
    wide = {(1, 1, a): ("continuous" if a < 1 else "discontinuous") for a in (0.3, 0.5, 0.7, 1.2, 1.5)}
    rows = [[a for *_, a in row] for row in model_rows(list(wide), wide)]
    assert rows == [[0.7, 1.2], [0.5, 1.5], [0.3]]
    one_kind = {(p, 1, 0.3): "continuous" for p in (1, 2, 3, 4)}
    assert [len(row) for row in model_rows(list(one_kind), one_kind)] == [2, 2]


def test_rows_of_panels_are_the_same_whichever_kind_comes_first_in_the_sweep() -> None:
    kinds = {a: ("continuous" if a < 1 else "discontinuous") for a in (0.3, 0.5, 0.7, 1.2, 1.5)}
    for first in ("continuous", "discontinuous"):
        mixed = {(4, 1, 9.0): first} | {(4, p_star, a): kinds[a] for p_star in (1, 2) for a in kinds}
        rows = model_rows(list(mixed), mixed)
        of_two = [[a for *_, a in row] for row in rows if row[0][1] == 2]
        assert of_two == [[0.7, 1.2], [0.5, 1.5], [0.3]]


def texts_of(figure: Figure) -> set[str]:
    """Every text that is drawn, ticks and legends included."""
    texts: list[Text] = figure.findobj(Text)  # type: ignore[assignment]
    return {text.get_text() for text in texts if text.get_visible() and text.get_text()}


def faint_or_missing(text: str) -> list[str]:
    """Characters that the font lacks, or draws so small that they look like a full stop."""
    found = []
    parser = MathTextParser("path")
    for font, _, number, *_ in (g for line in text.splitlines() for g in parser.parse(line).glyphs):
        font.set_size(100, 72)
        glyph = font.load_char(number)
        dot = max(glyph.width, glyph.height) < 0.4 * 64 * 100 and chr(number) not in ".,:·'′-"
        if not font.get_char_index(number) or (dot and not chr(number).isspace()):
            found.append(chr(number))
    return found


def test_every_character_of_every_figure_is_one_that_can_be_read(numbers: dict[str, Numbers]) -> None:
    """The star operator is drawn like a full stop, and lambda_star was "λ."."""
    with style():
        assert faint_or_missing(r"$\lambda_\star$") == ["⋆"]
        assert faint_or_missing(r"$\lambda_{*}$, $\alpha_0$: 1.5") == []
    shown = set()
    for name in FIGURES:
        for _, drawn in pages(name, numbers[name]):
            with style():
                FigureCanvasAgg(drawn).draw()
                texts = texts_of(drawn)
                assert {text: bad for text in texts if (bad := faint_or_missing(text))} == {}
                shown |= texts
    assert r"outlier $\lambda_{*}$" in shown
    assert any("p^*" in text for text in shown)


def test_lower_error_bars_of_the_edge_figure_are_whole(numbers: dict[str, Numbers]) -> None:
    """They end where value minus error is, also below a tenth of the value; at 0 or below, off the axis."""
    ((_, found),) = numbers["edge"].items()
    rows = {str(name): found[name].values.copy() for name in found}
    gap = rows["gap"] = np.abs(rows["gap"])
    rows["gap_error"] = gap * np.resize([0.3, 0.95, 1.0, 2.5], len(gap))
    changed = {
        "edge": xr.Dataset({name: ("row", values) for name, values in rows.items()}, attrs=found.attrs)
    }
    ((_, figure),) = pages("edge", changed)
    drawn = []
    for axes in figure.axes:
        for _, _, (bars,) in axes.containers:
            drawn += [(low, high) for (_, low), (_, high) in bars.get_segments()]
    ends = np.stack([gap - rows["gap_error"], gap + rows["gap_error"]], axis=1)
    np.testing.assert_allclose(sorted(drawn), sorted(ends.tolist()), rtol=1e-9, atol=1e-12)


def test_a_figure_without_its_data_is_left_out_with_the_reason(sweep: xr.Dataset, tmp_path: Path) -> None:
    one_size = sweep.isel(p=[0], N=[0])
    written = write_figures(one_size.drop_attrs(deep=False), tmp_path, ("svg",))
    assert "overlap.svg" in {path.name for path in tmp_path.iterdir()}
    assert set(written.left_out) == {"spectrum", "edge", "collapse"}
    assert "2 sizes" in written.left_out["edge"]
    assert "entropy" in written.left_out["spectrum"]
    assert "collapse" in written.left_out["collapse"]
    assert not list(tmp_path.glob("edge*")) + list(tmp_path.glob("collapse*"))
    with pytest.raises(ParameterError, match="edge: no model has 2 sizes"):
        write_figures(one_size, tmp_path / "none", ("svg",), ("edge",))
    assert not (tmp_path / "none").exists()


def test_names_that_are_no_figure_no_format_no_numbers_are_refused_with_the_list(
    sweep: xr.Dataset, tmp_path: Path
) -> None:
    place = tmp_path / "none"
    with pytest.raises(ParameterError, match=r"overlap, eigenvalue, spectrum, edge, thresholds, kinds, col"):
        write_figures(sweep, place, only=("overlap", "edges"))
    with pytest.raises(ParameterError, match="one of csv, zarr"):
        write_figures(sweep, place, numbers="xlsx")
    with pytest.raises(ParameterError, match="one of overlap"):
        draw_figure(sweep, "nothing")
    assert not place.exists()


def test_csv_and_zarr_hold_the_same_numbers(
    full: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "_write_pages", lambda *_: [])
    as_csv, as_zarr = (
        write_figures(full.isel(a=[1]), tmp_path, ("svg",), numbers=kind).files for kind in ("csv", "zarr")
    )
    for name, paths in as_csv.items():
        tables = [path for path in paths if path.suffix == ".csv"]
        assert [path.with_suffix(".zarr") for path in tables] == as_zarr[name][-len(tables) :]
        for path in tables:
            with path.open(encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            with xr.open_zarr(path.with_suffix(".zarr")) as found:
                assert set(rows[0]) == set(found.data_vars)
                assert len(rows) == found.sizes["row"]
                for column, values in found.load().items():
                    texts = [row[str(column)] for row in rows]
                    if values.dtype.kind == "f":
                        np.testing.assert_array_equal([float(text or "nan") for text in texts], values)
                    else:
                        assert texts == [str(value) for value in values.values.tolist()]
                    assert values.attrs["long_name"]


def test_zarr_numbers_replace_earlier_ones_and_nothing_else(full: xr.Dataset, tmp_path: Path) -> None:
    one = full.isel(a=[0])
    first, again = (
        write_figures(one, tmp_path, ("svg",), ("eigenvalue",), numbers="zarr").paths for _ in "ab"
    )
    assert first == again
    xr.Dataset({"mine": 1}).to_zarr(tmp_path / "overlap-curves.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(ParameterError, match="earlier table"):
        write_figures(one, tmp_path, ("svg",), ("overlap",), numbers="zarr")
    assert not (tmp_path / "overlap.svg").exists()
    assert xr.open_zarr(tmp_path / "overlap-curves.zarr", consolidated=False)["mine"] == 1


def test_results_shared_by_figures_are_computed_once(
    full: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **more: called.append(name) or real(*args, **more)

    loads = results.PASSES["collapse"]
    analysis = replace(loads.analysis, estimate=counted("collapse", loads.analysis.estimate))
    monkeypatch.setitem(results.PASSES, "collapse", loads._replace(analysis=analysis))
    monkeypatch.setattr(results, "panels", counted("panels", results.panels))
    monkeypatch.setattr(figures, "_write_pages", lambda *_: [])
    one = full.isel(a=[0])
    write_figures(one, tmp_path, ("svg",))
    assert sorted(called) == ["collapse", "panels"]
    for name in ("thresholds", "kinds", "collapse"):
        getattr(one.bend.plot, name)()
    assert sorted(called) == ["collapse", "collapse", "panels", "panels"]


def test_the_accessor_has_one_method_a_figure_and_the_numbers_behind_it(full: xr.Dataset) -> None:
    one = full.isel(a=[1])
    for name in FIGURES:
        assert isinstance(getattr(one.bend.plot, name)(), Figure)
    for name, found in one.bend.plot.numbers("collapse").items():
        xr.testing.assert_identical(found, numbers_of(one, "collapse")[name])


def test_the_command_says_what_was_written_and_what_was_left_out(
    sweep: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xr, "open_dataset", lambda *_, **__: sweep.isel(p=[0], N=[0]))
    app = typer.Typer()
    register(app)
    call = ["figures", "s.zarr", "-o", str(tmp_path / "f"), "--format", "svg", "--numbers", "zarr"]
    call += ["--only", "edge", "--only", "eigenvalue"]
    done = CliRunner().invoke(app, [*call, "--json"])
    document = json.loads(done.stdout)
    assert [Path(name).name for name in document["files"]] == [
        "eigenvalue.svg",
        "eigenvalue.zarr",
        "eigenvalue-curves.zarr",
    ]
    assert list(document["left_out"]) == ["edge"]
    said = CliRunner().invoke(app, call)
    assert (said.exit_code, said.stdout) == (0, "")
    assert "left out edge: no model has 2 sizes" in " ".join(said.stderr.split())
    refused = CliRunner().invoke(app, [*call, "--only", "spectra"]).exception
    assert isinstance(refused, ParameterError)
    assert "one of overlap, eigenvalue, spectrum" in str(refused)
