"""The report is one page that loads nothing, says what the numbers are, and escapes what it is given; the
commands are thin."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import synthetic
import typer
import xarray as xr
from typer.testing import CliRunner

from bendscape.analysis.commands import register
from bendscape.analysis.estimators import ESTIMATORS
from bendscape.analysis.gain import gains
from bendscape.analysis.report import (
    coverage_by_size,
    failed_cells,
    gain_in_words,
    render_report,
    write_report,
)
from bendscape.analysis.thresholds import compact, thresholds, thresholds_table
from bendscape.core.model import ParameterError

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects ids, references, text and tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        for name, value in attrs:
            if name in ("href", "src", "xlink:href"):
                self.references.append(value or "")
            self.references += re.findall(r"url\(([^)]*)\)", value or "") if name != "d" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def sweep() -> xr.Dataset:
    ds = synthetic.planted(a=(0.7, 1.5), seeds={128: 12, 512: 8})
    ds["status"].values[0, 0, 0, 3, 0, 5] = 2
    ds["status"].values[0, 0, 1, 4, 1, 2] = 3
    ds["status"].values[0, 0, 1, 20, 1, :] = 0
    return synthetic.with_coverage(ds)


@pytest.fixture(scope="module")
def result(sweep: xr.Dataset) -> xr.Dataset:
    return thresholds(sweep, n_boot=200)


@pytest.fixture(scope="module")
def html(sweep: xr.Dataset, result: xr.Dataset) -> str:
    return render_report(sweep, result)


def test_the_page_is_well_formed_and_its_ids_are_unique_and_resolve(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert {"summary", "thresholds", "figures", "provenance"} <= set(page.ids)
    assert page.references
    for reference in page.references:
        assert reference.startswith("#")
        assert reference[1:] in page.ids


def test_the_page_loads_nothing(html: str) -> None:
    assert not re.findall(r"https?://(?!doi\.org|arxiv\.org)", html)
    assert not {"script", "link", "img", "iframe", "object"} & set(Page(html).tags)
    assert "@import" not in html
    assert "@font-face" not in html


def test_every_row_shows_its_exact_threshold_and_every_estimate_with_its_interval(
    html: str, result: xr.Dataset
) -> None:
    text = Page(html).text
    for row in thresholds_table(result):
        assert f"{row['alpha_bbp']:.10f}" in text
        assert f"{row['alpha_bbp_N']:.4f}" in text
        for name in ESTIMATORS:
            estimate = row[name]
            assert compact(estimate) in text
            if estimate["flag"] == "estimated":
                assert f"[{estimate['low']:.3f}, {estimate['high']:.3f}]" in text
    for definition in ESTIMATORS.values():
        assert definition in text
    assert "interval at 95 %" in text


def test_all_figures_are_inline_with_alternative_text_and_captions(html: str) -> None:
    page = Page(html)
    assert page.tags.count("svg") == page.tags.count("figcaption") == 3
    assert page.attributes.count(("role", "img")) == 3
    labels = {value for name, value in page.attributes if name == "aria-labelledby"}
    assert labels == {"overlap-title", "eigenvalue-title", "gain-title"} <= set(page.ids)
    assert "Squared overlap of the lowest eigenvector against alpha, 2 models, N = 128, 512" in page.text


def test_many_models_are_shown_on_pages_with_ids_of_their_own() -> None:
    many = synthetic.planted(
        p=(1, 2), a=(0.5, 0.6, 0.7, 0.8, 1.2, 1.3, 1.5), seeds={64: 2}, alpha_factor=(0.8, 1.2)
    )
    page = Page(render_report(many, thresholds(many, n_boot=100)))
    assert page.tags.count("svg") == page.tags.count("figcaption") == 5
    assert len(page.ids) == len(set(page.ids))
    assert {"overlap-1-title", "overlap-2-title", "eigenvalue-2-title"} <= set(page.ids)
    assert "14 models, N = 64 (page 2 of 2)" in page.text


def test_the_summary_counts_every_cell_once_and_lists_those_without_a_result(
    html: str, sweep: xr.Dataset
) -> None:
    assert coverage_by_size(sweep) == [
        {"N": 128, "planned": 504, "done": 503, "failed": 1, "not converged": 0, "absent": 0},
        {"N": 512, "planned": 336, "done": 327, "failed": 0, "not converged": 1, "absent": 8},
    ]
    first, second = failed_cells(sweep)
    assert (first["a"], first["N"], first["seed"], first["outcome"]) == (0.7, 128, 5, "failed")
    assert (second["a"], second["N"], second["seed"], second["outcome"]) == (1.5, 512, 2, "not converged")
    assert first["alpha"] == sweep["alpha"][0, 0, 0, 3].item()
    assert len(failed_cells(sweep, limit=1)) == 1
    assert "98.8 %" in html  # 830 of 840, rounded down
    assert f"{first['alpha']:.6g}" in html


def test_provenance_is_complete(html: str, sweep: xr.Dataset) -> None:
    text = Page(html).text
    for key in ("campaign", "code_version", "entropy", "spec_hash", "created", "kernel"):
        assert str(sweep.attrs[key]) in text
    assert "numpy 2.4.6" in text


def test_hostile_text_is_escaped_wherever_it_comes_from(sweep: xr.Dataset, result: xr.Dataset) -> None:
    hostile = "</pre><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>"
    poisoned = sweep.assign_attrs(
        campaign=hostile, name=hostile, created=hostile, packages=json.dumps({hostile: hostile})
    )
    html = render_report(poisoned, result)
    assert "<script" not in html
    assert "<img" not in html
    # title, heading, campaign name, created, a package, its version, campaign file
    assert Page(html).text.count("alert('x')") == 7


def test_a_store_without_any_cell_still_gives_a_page(sweep: xr.Dataset) -> None:
    empty = synthetic.with_coverage(sweep.assign(status=sweep["status"] * 0))
    html = render_report(empty, thresholds(empty, n_boot=100))
    assert "No cell is done yet." in Page(html).text
    assert "figures" not in Page(html).ids


def test_what_overparametrization_buys_is_told_in_numbers_and_words(html: str, sweep: xr.Dataset) -> None:
    text = Page(html).text
    assert "gain" in Page(html).ids
    bought = gains(sweep)
    assert [(gain.p_star, gain.a) for gain in bought] == [(1, 0.7), (1, 1.5)]
    for gain in bought:
        assert f"p* = {gain.p_star}, a = {gain.a}" in text
        assert gain_in_words(gain) in text
        (row,) = gain.widths
        assert f"{row.over_hessian_limit:.3f}" in text
        assert f"{row.over_optimal:.3f}" in text
        for values in (row.overlap_sq, *gain.overlap_sq.values()):
            for value in values:
                assert value == 0 or f"{value:.3f}" in text
    assert "none is measured" in text


def test_theory_is_told_of_a_store_without_any_cell_too(sweep: xr.Dataset, html: str) -> None:
    empty = synthetic.with_coverage(sweep.assign(status=sweep["status"] * 0))
    page = render_report(empty, thresholds(empty, n_boot=100))
    section = re.compile(r'<section id="gain">.*?</section>', re.DOTALL)
    assert section.findall(page) == section.findall(html) != []


def test_a_teacher_the_campaign_wants_nothing_of_has_no_section(
    sweep: xr.Dataset, result: xr.Dataset
) -> None:
    unwanted = sweep.assign(coverage=sweep["coverage"].where(sweep["a"] < 1))
    text = Page(render_report(unwanted, result)).text
    assert "p* = 1, a = 0.7Labels" in text.replace("\n", "")
    assert "p* = 1, a = 1.5Labels" not in text.replace("\n", "")


def test_the_same_store_gives_the_same_page_and_writing_makes_the_folder(
    sweep: xr.Dataset, result: xr.Dataset, html: str, tmp_path: Path
) -> None:
    path = write_report(sweep, tmp_path / "deep" / "report.html", result)
    assert path.read_text(encoding="utf-8") == html


@pytest.fixture
def app(sweep: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    def opened(store: str, **options: object) -> xr.Dataset:
        assert (store, options) == ("s.zarr", {"engine": "bendscape", "chunks": {}})
        return sweep

    monkeypatch.setattr(xr, "open_dataset", opened)
    app = typer.Typer()
    register(app)
    return app


def test_thresholds_prints_a_table_or_one_json_document_with_null_for_nan(app: typer.Typer) -> None:
    table = CliRunner().invoke(app, ["thresholds", "s.zarr", "--n-boot", "100"])
    assert table.exit_code == 0
    assert "1.243388" in table.stdout
    document = CliRunner().invoke(
        app, ["thresholds", "s.zarr", "--n-boot", "100", "--level", "0.9", "--json"]
    )
    parsed = json.loads(document.stdout, parse_constant=lambda word: pytest.fail(word))
    assert parsed["level"] == 0.9
    assert [row["N"] for row in parsed["rows"]] == [128, 512, 128, 512]
    assert parsed["rows"][1]["alpha_pair"]["value"] is None
    assert parsed["rows"][1]["alpha_pair"]["flag"] == "no_larger_size"


def test_figures_writes_the_formats_asked_for(app: typer.Typer, tmp_path: Path) -> None:
    only = [option for name in ("overlap", "eigenvalue") for option in ("--only", name)]
    call = ["figures", "s.zarr", "-o", str(tmp_path), "--format", "svg", *only, "--json"]
    names = [Path(name).name for name in json.loads(CliRunner().invoke(app, call).stdout)["files"]]
    assert names == [
        f"{name}{rest}" for name in ("overlap", "eigenvalue") for rest in (".svg", ".csv", "-curves.csv")
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_report_writes_the_page_and_keeps_messages_off_standard_output(
    app: typer.Typer, tmp_path: Path
) -> None:
    page = tmp_path / "r.html"
    quiet = CliRunner().invoke(app, ["report", "s.zarr", "-o", str(page)])
    assert (quiet.exit_code, quiet.stdout) == (0, "")
    assert str(page) in quiet.stderr.replace("\n", "")
    Page(page.read_text(encoding="utf-8"))
    shown = CliRunner().invoke(app, ["report", "s.zarr", "-o", str(page), "--table"])
    assert "1.243388" in shown.stdout
    document = json.loads(CliRunner().invoke(app, ["report", "s.zarr", "-o", str(page), "--json"]).stdout)
    assert document["output"] == str(page)
    assert len(document["rows"]) == 4


@pytest.mark.parametrize("command", ["figures", "report"])
@pytest.mark.parametrize("blocked", ["wrong kind", "below a file", "read-only"])
def test_a_place_that_cannot_be_written_is_refused_before_the_store_is_read(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, blocked: str
) -> None:
    (tmp_path / "file").write_text("")
    wrong_kind = tmp_path if command == "report" else tmp_path / "file"
    output = {"wrong kind": wrong_kind, "below a file": tmp_path / "file" / "x"}.get(blocked, tmp_path / "x")
    if blocked == "read-only":  # as root everything may be written
        monkeypatch.setattr("bendscape.sweep.output.os.access", lambda *_: False)
    worked = pytest.fail
    monkeypatch.setattr("bendscape.analysis.thresholds.thresholds", lambda *_, **__: worked("too late"))
    monkeypatch.setattr("bendscape.analysis.figures.panels", lambda *_: worked("too late"))
    refused = CliRunner().invoke(app, [command, "s.zarr", "-o", str(output)]).exception
    assert isinstance(refused, ParameterError)
    assert str(output) in str(refused)
    assert "\n" not in str(refused)


@pytest.mark.parametrize("command", ["thresholds", "figures", "report"])
def test_a_store_of_another_kernel_is_refused_with_the_names_of_what_it_lacks(
    sweep: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    other = sweep.drop_vars(list(synthetic.MEASURED)).assign_attrs(kernel="trivial")
    monkeypatch.setattr(xr, "open_dataset", lambda *_, **__: other)
    app = typer.Typer()
    register(app)
    output = [] if command == "thresholds" else ["-o", str(tmp_path / "new")]
    refused = CliRunner().invoke(app, [command, "s.zarr", *output]).exception
    assert isinstance(refused, ParameterError)
    assert "overlap_sq_space, eigval_min, edge_sample, overlap_sq" in str(refused)
    assert "trivial" in str(refused)
    assert "\n" not in str(refused)
    assert not (tmp_path / "new").exists()


def test_importing_the_commands_costs_nothing_beyond_typer() -> None:
    code = "import bendscape.analysis.commands, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "xarray", "matplotlib", "jinja2", "scipy"} & set(done.stdout.split())
