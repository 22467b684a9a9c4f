"""Outputs are never inside a store, replace only earlier ones of their kind, and are complete or absent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic
import xarray as xr
import zarr
from typer.testing import CliRunner

from bendscape.analysis import commands
from bendscape.analysis.figures.draw import write_figures
from bendscape.analysis.figures.tables import check_table, table, write_numbers
from bendscape.analysis.report.page import write_report
from bendscape.core.errors import ParameterError
from bendscape.sweep.commands import cli
from bendscape.sweep.commands.output import REPORT, check_report, check_writable, holds, whole
from campaigns import RANDOM, campaign_text, make_campaign, run

KernelFile = Callable[..., str]
COMMANDS: dict[str, tuple[list[str], str]] = {
    "report": (["report", "STORE", "-o", "OUT"], "r.html"),
    "run": (["run", "FILE", "--store", "STORE", "--address", "serial", "--report", "OUT"], "r.html"),
    "figures": (["figures", "STORE", "-o", "OUT"], "figures"),
    "scaling": (["scaling", "STORE", "-o", "OUT"], "scaling"),
    "export": (["export", "STORE", "-o", "OUT"], "e.zarr"),
    "export to a file": (["export", "STORE", "-o", "OUT"], "e.nc"),
    "theory map": (["theory", "map", "-o", "OUT"], "map.zarr"),
    "figure of a theory map": (["theory", "map", "-o", "SOUND/m.zarr", "--figure", "OUT"], "map.svg"),
}
"""Every command with an output, and the name of one."""


@pytest.fixture
def store(tmp_path: Path, kernel_file: KernelFile) -> Path:
    path = tmp_path / "s.zarr"
    run(path, kernel_file(RANDOM), make_campaign(p=[1], a=[0.7], N=[64], seeds=2))
    return path


@pytest.fixture
def refused(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str], str], str]:
    """Run a command that must be refused and leave everything unchanged; returns its error."""
    file = tmp_path / "c.toml"
    file.write_text(campaign_text().replace('kernel = "probe"', 'kernel = "hessian"'))
    (tmp_path / "sound").mkdir()
    cli.load_commands()
    monkeypatch.setattr(cli, "_leave", lambda code: pytest.fail("the campaign was run"))

    def call(command: list[str], output: str) -> str:
        names = {"STORE": str(store), "FILE": str(file), "OUT": output}
        arguments = [names.get(word, word.replace("SOUND", str(tmp_path / "sound"))) for word in command]
        before = contents(tmp_path)
        found = CliRunner().invoke(cli.app, arguments)
        assert isinstance(found.exception, ParameterError), found.output
        assert contents(tmp_path) == before
        return str(found.exception)

    return call


def contents(folder: Path) -> dict[Path, Any]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_writes_into_a_store_by_any_path(
    command: str, store: Path, refused: Callable[[list[str], str], str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    words, name = COMMANDS[command]
    (tmp_path / "link").symlink_to(store)
    (tmp_path / "deep").symlink_to(store / "N=64")
    lost = tmp_path / "lost.zarr"
    shutil.copytree(store, lost)
    (lost / "zarr.json").unlink()
    monkeypatch.chdir(tmp_path / "sound")
    places = [store / name, store / "N=64" / "x" / name, tmp_path / "link" / "new" / name]
    places += [tmp_path / "deep" / name, lost / name, Path("..") / "s.zarr" / name]
    for place in map(str, places):
        assert "outside any Zarr hierarchy" in refused(words, place)
    for url in (f"s3://bucket/{name}", (store / name).as_uri()):
        assert "a path on this machine" in refused(words, url)


@pytest.mark.parametrize(
    ("command", "words"),
    [("figures", "outside"), ("scaling", "outside"), ("export", "new place"), ("theory map", "new place")],
)
def test_a_folder_of_outputs_is_refused_inside_a_store(
    command: str, words: str, store: Path, refused: Callable[[list[str], str], str]
) -> None:
    assert words in refused(COMMANDS[command][0], str(store))


def test_a_report_replaces_a_report_and_nothing_else(
    refused: Callable[[list[str], str], str], store: Path, tmp_path: Path
) -> None:
    for command in ("report", "run"):
        words, _ = COMMANDS[command]
        assert "named .html" in refused(words, str(tmp_path / "c.toml"))
        (tmp_path / "mine.html").write_text("<!doctype html><title>My notes on thresholds</title>")
        assert "earlier report" in refused(words, str(tmp_path / "mine.html"))
        (tmp_path / "dangling.html").symlink_to(tmp_path / "gone")
        assert "earlier report" in refused(words, str(tmp_path / "dangling.html"))
        (tmp_path / "dangling.html").unlink()


def test_a_report_marks_itself_and_is_written_again_also_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bendscape.analysis.report import page as report

    head = (Path(report.__file__).parent / "report.html.jinja").read_text()
    monkeypatch.setattr(
        report, "render_report", lambda ds: head.replace("{{ name }}", ds.attrs["name"])
    )  # what it computes is no matter here
    ds = xr.Dataset(attrs={"name": "first"})
    page = write_report(ds, tmp_path / "new" / "r.html")
    assert holds(page, f'<meta name="generator" content="{REPORT}">')
    (tmp_path / "link.html").symlink_to(page)
    write_report(ds.assign_attrs(name="second"), tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert "<title>second: thresholds</title>" in page.read_text()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["r.html"]
    page.write_text("")
    check_report(page)
    page.write_text("<!doctype html>\n<title>sweep: thresholds</title>")  # of the first version
    check_report(page)


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("before")
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "x").write_text("before")

    def fails(name: str) -> None:
        with whole(tmp_path / name) as place:
            assert place.suffix == Path(name).suffix
            place.mkdir() if name.endswith("zarr") else place.write_text("half")
            raise OSError("the disk is full")

    for name in ("a.html", "a.zarr", "b.html"):
        with pytest.raises(OSError, match="the disk is full"):
            fails(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.zarr"]
    assert (tmp_path / "a.html").read_text() == (tmp_path / "a.zarr" / "x").read_text() == "before"


@pytest.fixture(scope="module")
def planted() -> xr.Dataset:
    return synthetic.planted(seeds={16: 6, 24: 6}, alpha=[0.75, 1.0, 1.25, 1.5])


@pytest.mark.parametrize("name", ["overlap.svg", "overlap.csv"])
def test_figures_do_not_replace_other_files_of_the_same_name(
    planted: xr.Dataset, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("a,b\n1,2\n")
    before = contents(tmp_path)
    with pytest.raises(ParameterError, match="something else"):
        write_figures(planted, tmp_path, ["svg"], ["overlap"])
    assert contents(tmp_path) == before


def test_figures_and_tables_replace_their_own_earlier_files(planted: xr.Dataset, tmp_path: Path) -> None:
    (tmp_path / "notes-1.svg").write_text("mine")
    first = write_figures(planted, tmp_path, ["svg", "png", "pdf"], ["eigenvalue"])
    texts = contents(tmp_path)
    again = write_figures(planted, tmp_path, ["svg", "png", "pdf"], ["eigenvalue"])
    assert again == first
    assert contents(tmp_path).keys() == texts.keys()
    assert contents(tmp_path)[tmp_path / "eigenvalue.svg"] == texts[tmp_path / "eigenvalue.svg"]


def test_a_table_is_recognised_by_its_columns(tmp_path: Path) -> None:
    numbers = {"overlap": table([{"p": 1, "alpha": [0.5, 1.0]}])}
    (path,) = write_numbers(numbers, tmp_path, "csv")
    check_table(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ParameterError, match="earlier table"):
        check_table(path)


def test_scaling_and_export_replace_only_their_own(store: Path, tmp_path: Path) -> None:
    from bendscape.analysis.dataset.export import export_store
    from bendscape.analysis.figures.tables import replace_zarr

    title = commands.SCALING["collapse"]
    for value in (1, 2):
        replace_zarr(xr.Dataset({"x": value}, attrs={"title": title}), tmp_path / "collapse.zarr", "--output")
    assert xr.open_zarr(tmp_path / "collapse.zarr")["x"].item() == 2
    with pytest.raises(ParameterError, match="something else"):
        replace_zarr(
            xr.Dataset(attrs={"title": commands.SCALING["edge_scaling"]}),
            tmp_path / "collapse.zarr",
            "--output",
        )
    zarr.create_group(tmp_path / "mine.zarr", attributes={"title": "my data"})
    xr.Dataset({"x": 1}).to_netcdf(tmp_path / "mine.nc")
    (tmp_path / "mine.zip").write_bytes(b"no zip")
    for name in ("mine.zarr", "mine.nc", "mine.zip"):
        before = contents(tmp_path)
        with pytest.raises(ParameterError, match="an earlier export"):
            export_store(store, tmp_path / name, overwrite=True)
        assert contents(tmp_path) == before


def test_a_hierarchy_may_replace_one_but_not_lie_inside_one(store: Path, tmp_path: Path) -> None:
    check_writable(store, hierarchy=True)
    with pytest.raises(ParameterError, match="outside any Zarr hierarchy"):
        check_writable(store / "x.zarr", hierarchy=True)
    (tmp_path / "old.zarr").mkdir()
    (tmp_path / "old.zarr" / ".zgroup").write_text("{}")
    with pytest.raises(ParameterError, match="outside any Zarr hierarchy"):
        check_writable(tmp_path / "old.zarr" / "a.csv")
