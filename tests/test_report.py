"""The report is one page that loads nothing else, explains its numbers, and escapes its input; the
commands are thin."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import typer
import xarray as xr
from typer.testing import CliRunner

from bendscape.analysis.commands import register
from bendscape.analysis.estimate.collapse import collapse
from bendscape.analysis.estimate.critical import critical_point
from bendscape.analysis.estimate.edge_scaling import edge_scaling
from bendscape.analysis.estimate.estimators import ESTIMATORS
from bendscape.analysis.estimate.notation import compact
from bendscape.analysis.estimate.thresholds import thresholds, thresholds_table
from bendscape.analysis.estimate.verdicts import expected_definition, landmarks
from bendscape.analysis.figures.gain import gains
from bendscape.analysis.findings import results
from bendscape.analysis.findings.results import OF_A_REPORT, Results
from bendscape.analysis.findings.scaling import LAWS, load_rows
from bendscape.analysis.report.figures import library
from bendscape.analysis.report.page import gain_in_words, page_environment, render_report, write_report
from bendscape.analysis.report.symbols import in_html, in_text
from bendscape.analysis.report.tables import coverage_by_size, edges_by_model, failed_cells
from bendscape.core.errors import ParameterError
from bendscape.core.quadratic.finite_size.edge_law import lowest_eigenvalue_law
from bendscape.core.quadratic.finite_size.overlap_law import mean_overlap_sq
from bendscape.core.quadratic.model import Model
from bendscape.core.quadratic.theory.outlier import asymptotics, transition

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
    return thresholds(sweep)


@pytest.fixture(scope="module")
def html(sweep: xr.Dataset, result: xr.Dataset) -> str:
    return render_report(Results(sweep, n_boot=200))


def test_the_page_is_well_formed_and_its_ids_are_unique_and_resolve(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert {"summary", "thresholds", "figures", "provenance"} <= set(page.ids)
    assert page.references
    for reference in page.references:
        assert reference.startswith("#")
        assert reference[1:] in page.ids


def test_the_page_loads_nothing(html: str) -> None:
    page = Page(html)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "srcset", "data", "action")]
    ours = html.replace(library(), "")  # which names places it could load from, were it asked for maps
    assert len(ours) < 0.1 * len(html)
    assert not re.findall(r"https?://(?!doi\.org|arxiv\.org)", ours)
    assert "@import" not in ours
    assert "@font-face" not in ours
    (policy,) = (value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_every_row_shows_its_exact_threshold_and_every_estimate_with_its_interval(
    html: str, result: xr.Dataset
) -> None:
    text = Page(html).text
    for row in thresholds_table(result):
        assert f"{row['alpha_bbp']:.10f}" in text
        assert f"{row['alpha_bbp_at_size']:.4f}" in text
        for name in ESTIMATORS:
            estimate = row[name]
            assert compact(estimate) in text
            if estimate["flag"] == "estimated":
                assert f"[{estimate['low']:.3f}, {estimate['high']:.3f}]" in text
    for definition in ESTIMATORS.values():
        assert Page(str(in_html(definition))).text in text
    assert "interval at 95 %" in text


def test_the_page_opens_with_the_picture_and_the_tables_follow(html: str) -> None:
    place = [
        html.index(f'id="{id}"')
        for id in ("summary", "figure-critical", "figure-overlap", "loads", "thresholds")
    ]
    assert place == sorted(place)
    assert place[-1] < html.index('id="cells"') < html.index('id="provenance"')


def test_symbols_are_typeset_and_everything_else_is_escaped() -> None:
    words = "alpha_bbp < alpha_0_tangent & alpha_0, N^(-2/3) (lambda_minus), shift_alpha, alpha"
    typeset = "α<sub>BBP</sub> &lt; alpha_0_tangent &amp; α<sub>0</sub>, N<sup>−2/3</sup> (λ<sub>−</sub>), "
    typeset += "shift_alpha, α"
    assert in_html(words) == typeset
    assert in_text("alpha_bbp, lambda_minus") == "α_BBP, λ_−"


def test_no_name_of_the_program_stands_where_a_symbol_belongs(html: str) -> None:
    (main,) = re.findall(r"<main>(.*?)<section id=\"provenance\">", html, re.DOTALL)
    assert not re.findall(r"alpha_(?:bbp|0|c)\b|lambda_minus|lambda_\*", Page(f"<p>{main}</p>").text)


def test_every_figure_has_a_container_an_alternative_text_and_a_caption(html: str) -> None:
    page = Page(html)
    assert {"figure-overlap", "figure-eigenvalue", "figure-critical", "figure-scaled"} <= set(page.ids)
    assert page.attributes.count(("role", "img")) == page.tags.count("figcaption") == 5
    assert page.tags.count("svg") == 1  # what overparametrization buys
    assert "gain-title" in page.ids
    assert "bendscape figures STORE -o DIR" in page.text


def numbers_in(html: str) -> dict[str, Any]:
    """The document that the script of the page draws from."""
    (text,) = re.findall(r'<script type="application/json" id="numbers">(.*?)</script>', html, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_numbers_of_the_figures_are_those_of_the_store(html: str, sweep: xr.Dataset) -> None:
    first, second = numbers_in(html)["models"]
    assert (first["a"], second["a"]) == (0.7, 1.5)
    assert second["kind"] == "discontinuous"
    alpha_0 = landmarks(Model(1, 1, 1.5)).definitions["alpha_0_principal_value"]
    assert second["alpha_0"] == pytest.approx(alpha_0, rel=1e-5)
    at = first["sizes"][1]
    cells = sweep.isel(p=0, p_star=0, a=0, N=1, alpha_factor=7, seed=slice(8))
    overlap, eigenvalue = cells["overlap_sq_space"].values, cells["eigval_min"].values
    N, alpha = at["N"], at["alpha"][7]
    assert (N, at["seeds"][7]) == (512, 8)
    assert alpha == pytest.approx(cells["alpha_realised"].values[0], rel=1e-5)
    assert at["overlap"][7] == pytest.approx(overlap.mean(), rel=1e-5)
    assert at["overlap_error"][7] == pytest.approx(overlap.std(ddof=1) / 8**0.5, rel=1e-5)
    assert at["eigenvalue"][7] == pytest.approx(eigenvalue.mean(), rel=1e-5)
    model = Model(1, 1, 0.7)
    assert at["overlap_N"][7] == pytest.approx(mean_overlap_sq(model, alpha, N), rel=1e-3)
    assert at["eigenvalue_N"][7] == pytest.approx(lowest_eigenvalue_law(model, alpha, N).mean, rel=1e-3)
    assert at["eigenvalue_limit"][7] == pytest.approx(asymptotics(model, alpha).lambda_minus, rel=1e-3)
    above = at["alpha"].index(max(at["alpha"]))
    limit = asymptotics(model, at["alpha"][above])
    assert at["overlap_limit"][above] == pytest.approx(limit.overlap_sq, rel=1e-3)
    assert at["eigenvalue_limit"][above] == pytest.approx(limit.lambda_star, rel=1e-3)
    assert at["overlap_limit"][0] == 0
    assert at["Y"][7] == pytest.approx(512 ** (1 / 3) * at["overlap"][7], rel=1e-4)
    w = (alpha - first["scaled"]["alpha_c"]) * 512 ** (1 / 3) / critical_point(model).width
    assert at["w"][7] == pytest.approx(w, abs=1e-4)


def test_cells_that_are_not_done_are_in_no_figure(html: str) -> None:
    first, second = numbers_in(html)["models"]
    assert first["sizes"][0]["seeds"][3] == 11
    assert second["sizes"][1]["seeds"][4] == 7
    assert len(second["sizes"][1]["alpha"]) == 20  # of 21


def test_critical_loads_against_p_are_those_of_theory(html: str) -> None:
    continuous, discontinuous = numbers_in(html)["critical"]
    assert continuous["alpha_0"] == [None]
    assert continuous["limit"] == pytest.approx((0.7 + 1) / 2)
    assert discontinuous["alpha_bbp"] == [pytest.approx(transition(Model(1, 1, 1.5)).alpha_bbp, rel=1e-5)]


def test_each_critical_load_has_its_errors_and_its_verdict(html: str, sweep: xr.Dataset) -> None:
    (section,) = re.findall(r'<section id="loads">.*?</section>', html, re.DOTALL)
    rows = load_rows(collapse(sweep, n_boot=200))
    for row in rows:
        if row["estimator"] in ("collapse", "theory_curve"):
            assert f">{row['verdict']}" in section
            assert in_html(row["verdict_reason"]) in section
            assert f'title="{in_text(row["verdict_reason"])}"' in unescape(section)
            if row["alpha_c"] == row["alpha_c"]:
                statistical = f"{row['error']:.3f}" if row["error"] == row["error"] else "?"
                assert f"± {statistical} stat. ± {row['systematic']:.3f} syst." in section
    assert "nan" not in section
    assert "α<sub>0</sub> (the principal value" in section


def test_a_discontinuous_transition_is_compared_with_alpha_0_and_never_with_alpha_bbp() -> None:
    known = {
        "alpha_bbp": 1.4,
        "alpha_0_principal_value": 1.1,
        "alpha_0_tangent": 1.0,
        "alpha_0_complex_re": 1.2,
    }
    assert expected_definition("continuous", known) == "alpha_bbp"
    assert expected_definition("discontinuous", known) == "alpha_0_principal_value"
    without = known | {"alpha_0_principal_value": np.nan}
    assert expected_definition("discontinuous", without) == "alpha_0_complex_re"


def test_a_poor_fit_gives_no_verdict(sweep: xr.Dataset) -> None:
    found = collapse(sweep, n_boot=100)
    estimated = [row for row in load_rows(found) if row["flag"] == "estimated"]
    assert {row["verdict"] for row in estimated} > {
        "not enough data"
    }  # of the estimators with long intervals
    for flag in ("poor_fit", "interval_leaves_the_alpha_range", "not_enough_data"):
        code = found["flag"].attrs["flag_meanings"].split().index(flag)
        rows = load_rows(found.assign(flag=xr.full_like(found["flag"], code)))
        assert {row["verdict"] for row in rows} == {"not enough data"}
        assert rows[0]["verdict_reason"] == rows[0]["reason"]
    assert 'class="verdict agrees"' not in render_report(sweep.isel(seed=slice(2)))


def test_each_size_has_a_verdict_in_words(html: str, result: xr.Dataset) -> None:
    (section,) = re.findall(r'<section id="thresholds">.*?</section>', html, re.DOTALL)
    verdicts = re.findall(r'<td class="verdict [^>]*>([^<]*)<', section)
    assert verdicts == [row["verdict"] for row in thresholds_table(result)]
    reasons = [row["verdict_reason"] for row in thresholds_table(result)]
    assert all(in_html(reason) in section for reason in reasons)
    assert "the spacing of the alphas" in section


def test_the_law_of_the_edge_is_counted_by_model() -> None:
    model = Model(1, 1, 0.7)
    ds = synthetic.approaching_edge(
        model, {256: 40, 512: 40, 1024: 40, 4096: 40}, lambda N: 6 * N ** (-2 / 3), alpha=np.array([0.8, 1.0])
    )
    (row,) = edges_by_model(edge_scaling(ds, prediction=False).compute())
    assert (row["p"], row["a"], row["edge"], row["alphas"]) == (1, 0.7, "sharp", 2)
    assert row["n_two_thirds"] == 2
    assert row["alphas"] == sum(row[law] for law in LAWS)


def test_a_store_of_a_single_size_gives_a_page_that_says_what_is_missing(sweep: xr.Dataset) -> None:
    one = synthetic.with_coverage(sweep.isel(N=[1], seed=slice(8)))
    html = render_report(Results(one, n_boot=100))
    text = Page(html).text
    assert "too few sizes" in html
    assert "Not enough data: it takes three sizes" in text
    assert [at["N"] for at in numbers_in(html)["models"][0]["sizes"]] == [512]


def test_nothing_in_a_script_can_end_it_or_start_another() -> None:
    script = page_environment().from_string("{{ x | tojson }}")
    text = script.render(x={"x": "</script><!-- & \u2028 \u2029"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"x": "</script><!-- & \u2028 \u2029"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        script.render(x=[float("nan")])
    assert "</script" not in library()
    assert "<!--" not in library()


def test_means_loads_laws_and_thresholds_are_computed_together_in_one_pass(
    sweep: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    compute = results.compute
    monkeypatch.setattr(results, "compute", lambda *lazy: asked.append(len(lazy)) or compute(*lazy))
    page = render_report(Results(sweep.chunk({"a": 1}), n_boot=200))
    assert asked == [len(OF_A_REPORT)]
    assert page == render_report(Results(sweep, n_boot=200))


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


def test_hostile_text_is_escaped_wherever_it_comes_from(
    html: str, sweep: xr.Dataset, result: xr.Dataset
) -> None:
    hostile = "</pre><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>"
    poisoned = sweep.assign_attrs(
        campaign=hostile, name=hostile, created=hostile, packages=json.dumps({hostile: hostile})
    )
    page = render_report(Results(poisoned, n_boot=200))
    assert Page(page).tags.count("script") == Page(html).tags.count("script") == 3
    assert "<img" not in page.replace(library(), "")
    html = page
    # title, heading, campaign name, created, a package, its version, campaign file
    assert Page(html).text.count("alert('x')") == 7


def test_a_store_without_any_cell_still_gives_a_page(sweep: xr.Dataset) -> None:
    empty = synthetic.with_coverage(sweep.assign(status=sweep["status"] * 0))
    html = render_report(Results(empty, n_boot=100))
    assert "No cell is done yet." in Page(html).text
    assert {"loads", "figures", "thresholds", "edge"} <= set(Page(html).ids)
    assert "script" not in Page(html).tags


def test_the_gain_of_overparametrization_is_given_in_numbers_and_words(html: str, sweep: xr.Dataset) -> None:
    text = Page(html).text
    assert "gain" in Page(html).ids
    bought = gains(sweep)
    assert [(gain.p_star, gain.a) for gain in bought] == [(1, 0.7), (1, 1.5)]
    for gain in bought:
        assert f"p* = {gain.p_star}, a = {gain.a}" in text
        assert Page(str(in_html(gain_in_words(gain)))).text in text
        (row,) = gain.widths
        assert f"{row.over_hessian_limit:.3f}" in text
        assert f"{row.over_optimal:.3f}" in text
        for values in (row.overlap_sq, *gain.overlap_sq.values()):
            for value in values:
                assert value == 0 or f"{value:.3f}" in text
    assert "none is measured" in text


def test_theory_is_shown_for_a_store_without_any_cell(sweep: xr.Dataset, html: str) -> None:
    empty = synthetic.with_coverage(sweep.assign(status=sweep["status"] * 0))
    page = render_report(Results(empty, n_boot=100))
    section = re.compile(r'<section id="gain">.*?</section>', re.DOTALL)
    assert section.findall(page) == section.findall(html) != []


def test_a_teacher_without_wanted_cells_has_no_section(sweep: xr.Dataset, result: xr.Dataset) -> None:
    unwanted = sweep.assign(coverage=sweep["coverage"].where(sweep["a"] < 1))
    text = Page(render_report(Results(unwanted, n_boot=200))).text
    assert "p* = 1, a = 0.7Labels" in text.replace("\n", "")
    assert "p* = 1, a = 1.5Labels" not in text.replace("\n", "")


def test_the_same_store_gives_the_same_page_and_writing_makes_the_folder(
    sweep: xr.Dataset, result: xr.Dataset, html: str, tmp_path: Path
) -> None:
    path = write_report(Results(sweep, n_boot=200), tmp_path / "deep" / "report.html")
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
    table = CliRunner().invoke(app, ["thresholds", "s.zarr"])
    assert table.exit_code == 0
    assert "verdict" in table.stdout
    assert "1.243388" in table.stdout
    document = CliRunner().invoke(app, ["thresholds", "s.zarr", "--level", "0.9", "--json"])
    parsed = json.loads(document.stdout, parse_constant=lambda word: pytest.fail(word))
    assert parsed["level"] == 0.9
    assert [row["N"] for row in parsed["rows"]] == [128, 512, 128, 512]
    assert parsed["rows"][1]["alpha_pair"]["value"] is None
    assert parsed["rows"][1]["alpha_pair"]["flag"] == "no_larger_size"
    assert {row["verdict"] for row in parsed["rows"]} & {"agrees", "not enough data"}


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
    (tmp_path / "folder.html").mkdir()
    wrong_kind = tmp_path / ("folder.html" if command == "report" else "file")
    below = tmp_path / "file" / "x.html"
    output = {"wrong kind": wrong_kind, "below a file": below}.get(blocked, tmp_path / "x.html")
    if blocked == "read-only":  # as root everything may be written
        monkeypatch.setattr("bendscape.sweep.commands.output.os.access", lambda *_: False)
    monkeypatch.setattr("bendscape.analysis.findings.results.compute", lambda *_: pytest.fail("too late"))
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
    output = [] if command == "thresholds" else ["-o", str(tmp_path / "new.html")]
    refused = CliRunner().invoke(app, [command, "s.zarr", *output]).exception
    assert isinstance(refused, ParameterError)
    assert all(name in str(refused) for name in ("overlap_sq_space", "eigval_min"))
    assert "trivial" in str(refused)
    assert "\n" not in str(refused)
    assert not (tmp_path / "new").exists()


def test_importing_the_commands_costs_nothing_beyond_typer() -> None:
    code = "import bendscape.analysis.commands, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "xarray", "matplotlib", "jinja2", "scipy"} & set(done.stdout.split())
