"""`bendscape theory map`: axes as text, the dataset on disk, the diagram, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import xarray as xr
from typer.testing import CliRunner

from bendscape.analysis.commands import register
from bendscape.analysis.figures.theory_map import (
    parse_axis,
    phase_figure,
    theory_map,
    write_figure,
    write_map,
)
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import alpha_0, transition
from bendscape.sweep.commands.cli import app


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return theory_map(p=[1, 2, 4, math.inf], p_star=[1, 3], a=np.geomspace(0.3, 3, 5).tolist())


@pytest.fixture(scope="module")
def command() -> typer.Typer:
    register(app)
    return app


def invoke(command: typer.Typer, *arguments: object) -> Any:
    return CliRunner().invoke(command, ["theory", "map", *map(str, arguments)])


@pytest.mark.parametrize(
    ("text", "integer", "values"),
    [
        ("1,2,4,8", True, [1, 2, 4, 8]),
        ("8, 1,inf,1", True, [1, 8, math.inf]),
        ("1:4:4,16", True, [1, 2, 3, 4, 16]),
        ("1:8:5:log", True, [1, 2, 3, 5, 8]),
        ("0.1:10:3:log", False, [0.1, 1, 10]),
        ("0:1:5", False, [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_an_axis_is_numbers_and_ranges_in_ascending_order(
    text: str, integer: bool, values: list[float]
) -> None:
    assert parse_axis("--p", text, integer=integer) == pytest.approx(values)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1,,2",
        "wide",
        "1:2",
        "1:2:0",
        "1:2:x",
        "1:2:3:lin",
        "0:1:3:log",
        "1:inf:3",
        "1:2:3:log:4",
        "1:2:99999",
    ],
)
def test_an_invalid_axis_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_axis("--a", text)
    assert repr(text) in str(caught.value)
    assert "START:STOP:COUNT" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_map_survives_a_round_trip_to_disk(ds: xr.Dataset, tmp_path: Path) -> None:
    path = write_map(ds, tmp_path / "map.zarr")
    with xr.open_zarr(path) as again:
        xr.testing.assert_identical(again.load(), ds)
    point = ds.sel(p=4, p_star=3).isel(a=4)
    model = Model(4, 3, point["a"].item())
    assert point["alpha_bbp"].item() == pytest.approx(transition(model).alpha_bbp, rel=1e-12)
    assert point["alpha_0_complex_re"].item() == pytest.approx(alpha_0(model).complex_re, rel=1e-9)


def test_errors_are_stored_beside_what_they_bound_and_say_so(ds: xr.Dataset, tmp_path: Path) -> None:
    with xr.open_zarr(write_map(ds, tmp_path / "map.zarr"), consolidated=False) as stored:
        for name in ("alpha_bbp", "alpha_sharp", "lambda_minus", "overlap_sq_jump", "alpha_0_tangent"):
            error = stored[f"{name}_error"]
            assert error.attrs == {"long_name": f"absolute error estimate of {name}, a bound", "units": "1"}
            assert (error <= 1e-10).all()
            assert (error >= 0).all()
        assert (stored["alpha_0_complex_error"] > 0).all()
        assert stored["noise"] == 0


def test_a_noisy_map_records_its_noise_and_differs(ds: xr.Dataset) -> None:
    noisy = theory_map(p=[1, 2], p_star=[1], a=[0.5, 1, 2], noise=0.3, alpha_0=False)
    assert noisy["noise"] == 0.3
    assert noisy["a_tricritical"].sel(p=1, p_star=1) > ds["a_tricritical"].sel(p=1, p_star=1)


def test_an_earlier_map_is_replaced_and_anything_else_is_left_alone(ds: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "map.zarr"
    write_map(ds, path)
    write_map(ds.isel(a=slice(2)), path)
    with xr.open_zarr(path, consolidated=False) as again:
        assert again.sizes["a"] == 2
    precious = tmp_path / "store.zarr"
    precious.mkdir()
    (precious / "zarr.json").write_text('{"attributes": {"bendscape_store_version": 1}}')
    with pytest.raises(ParameterError, match="--output"):
        write_map(ds, precious)
    assert [each.name for each in precious.iterdir()] == ["zarr.json"]


def test_the_diagram_has_a_panel_for_each_teacher_with_both_kinds_and_both_thresholds(ds: xr.Dataset) -> None:
    figure = phase_figure(ds)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["$p^* = 1$", "$p^* = 3$"]
    for axes, p_star in zip(figure.axes, (1, 3), strict=True):
        (line,) = axes.lines
        widths, a = line.get_xdata(), line.get_ydata()
        known = ds["a_tricritical"].sel(p=[1, 2, 4], p_star=p_star).values
        assert a[np.isin(widths, [1, 2, 4])] == pytest.approx(known)
        # No kink at p = 2: the slope changes there by no more than between its neighbours.
        slopes = np.diff(a) / np.diff(np.log(widths))
        assert abs(np.diff(slopes)).max() < 0.1 * np.ptp(slopes)
        contours = [each for each in axes.collections if type(each).__name__ == "QuadContourSet"]
        assert len(contours) == 2
        at_bbp = contours[0]
        # On the column p = 1 a contour of alpha_bbp passes where the map, linear in a, takes its value.
        column = ds["alpha_bbp"].sel(p=1, p_star=p_star).values
        for level, segments in zip(at_bbp.levels, at_bbp.allsegs, strict=True):
            for a in (y for segment in segments for x, y in segment if x == 1):
                assert np.interp(a, ds["a"].values, column) == pytest.approx(level)
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= {"continuous", "discontinuous"}


def bends(line: np.ndarray) -> np.ndarray:
    """Angles in radians by which a polygon turns, in units of the panel's two logarithms."""
    x, y = np.log2(line[:, 0]), np.log2(line[:, 1])
    moved = np.hypot(np.diff(x), np.diff(y)) > 1e-3
    direction = np.unwrap(np.arctan2(np.diff(y)[moved], np.diff(x)[moved]))
    return np.abs(np.diff(direction))


def test_contours_of_alpha_bbp_have_no_kink_at_the_integers() -> None:
    """On a fine grid of a; linear between widths, the largest bend is 0.1 to 0.3 at p = 2, 3 and 4."""
    ds = theory_map(p=[1, 2, 3, 4, 6], p_star=[1], a=np.geomspace(0.4, 3, 60).tolist(), alpha_0=False)
    (axes,) = phase_figure(ds).axes
    (contours,) = (each for each in axes.collections if type(each).__name__ == "QuadContourSet")
    seen = 0
    for segments in contours.allsegs:
        for line in segments:
            if len(line) > 1 and np.ptp(np.log2(line[:, 0])) > 1:
                seen += 1
                assert bends(line).max() < 0.06
    assert seen >= 3


def test_a_map_without_alpha_0_is_drawn_with_alpha_bbp_alone(ds: xr.Dataset) -> None:
    without = theory_map(p=[1, 2], p_star=[1], a=[0.5, 1, 2], alpha_0=False)
    assert set(ds.data_vars) - set(without.data_vars) == {
        f"alpha_0_{name}"
        for name in (
            "principal_value",
            "tangent",
            "complex_re",
            "complex_im",
            "principal_value_error",
            "tangent_error",
            "complex_error",
        )
    }
    figure = phase_figure(without)
    assert sum(type(each).__name__ == "QuadContourSet" for each in figure.axes[0].collections) == 1
    assert r"$\alpha_0$" not in {text.get_text() for text in figure.legends[0].get_texts()}


def test_the_same_map_gives_the_same_figure_file(ds: xr.Dataset, tmp_path: Path) -> None:
    first, second = (write_figure(phase_figure(ds), tmp_path / name) for name in ("a.svg", "b.svg"))
    assert first.read_bytes() == second.read_bytes()


def test_the_command_writes_dataset_and_figure_and_names_them(command: typer.Typer, tmp_path: Path) -> None:
    files = [str(tmp_path / "map.zarr"), str(tmp_path / "figures" / "map.png")]
    done = invoke(command, "--p", "1,2", "--a", "0.5:2:2", "-o", files[0], "--figure", files[1], "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"sizes": {"p": 2, "p_star": 1, "a": 2}, "files": files}
    assert Path(files[1]).stat().st_size > 10_000
    with xr.open_zarr(files[0], consolidated=False) as found:
        assert found["a"].values.tolist() == [0.5, 2]
        assert found["p"].dtype == np.int64


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--p", "0,1"), "p = 0"),
        (("--p-star", "inf"), "p_star = inf"),
        (("--a", "0:1:2"), "a = 0.0"),
        (("--a", "1"), "--a = [1.0]"),
        (("--p", "2,inf"), "--p = [2.0]"),
        (("--figure", "map.jpg"), "--figure = 'map.jpg'"),
    ],
)
def test_bad_input_stops_before_anything_is_written(
    command: typer.Typer, tmp_path: Path, arguments: tuple[str, str], named: str
) -> None:
    output = tmp_path / "map.zarr"
    options = {"--p": "1,2", "--a": "0.5,1", "--figure": str(tmp_path / "map.svg")} | dict([arguments])
    done = invoke(command, *(text for option in options.items() for text in option), "-o", output)
    assert isinstance(done.exception, ParameterError)
    assert str(done.exception).startswith(named)
    assert not list(tmp_path.iterdir())
