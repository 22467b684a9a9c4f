"""The report in a real browser: drawing, choosing, hovering, printing, small screens, and no network
requests."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import synthetic

from bendscape.analysis.findings.results import Results
from bendscape.analysis.report.page import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.browser
FIGURES = ("overlap", "eigenvalue", "critical", "scaled")
HOSTILE = "</script><script>document.title = 'taken'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>"
TRACES = "id => document.getElementById(`figure-${id}`).data"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models (nothing is done at (2, 1, 0.7)), one of which lacks a size, with a hostile name."""
    ds = synthetic.planted(p=(1, 2), a=(0.7, 1.5), seeds={128: 12, 512: 8}, entropy=3)
    ds["status"].values[1, 0, 0] = 0
    ds["status"].values[0, 0, 1, :, 1] = 0
    ds = synthetic.with_coverage(ds).assign_attrs(name=HOSTILE, campaign=HOSTILE)
    return write_report(Results(ds, n_boot=100), tmp_path_factory.mktemp("page") / "report.html")


class Reader:
    """Opens the report in fresh contexts; records console messages, errors, and all requests except that for
    the report itself."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser, self.url = browser, url
        self.wrong: list[str] = []
        self.contexts: list[BrowserContext] = []

    def __call__(self, **options: Any) -> Page:
        context = self.browser.new_context(**options)
        self.contexts.append(context)
        page = context.new_page()
        context.route(
            "**/*", lambda route: route.continue_() if route.request.url == self.url else route.abort()
        )
        page.on("console", lambda message: self.wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on(
            "request",
            lambda request: self.wrong.append(request.url) if request.url != self.url else None,
        )
        page.goto(self.url)
        page.wait_for_selector("html[data-drawn]", state="attached")
        return page

    def close(self) -> None:
        for context in self.contexts:
            context.close()
        assert self.wrong == []


@pytest.fixture
def open_page(browser: Browser, report: Path) -> Iterator[Reader]:
    """Opens the report with given options of a context."""
    reader = Reader(browser, report.as_uri())
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def desk(browser: Browser, report: Path) -> Iterator[tuple[Reader, Page]]:
    """The report on a desktop screen, opened once."""
    reader = Reader(browser, report.as_uri())
    yield reader, reader(viewport={"width": 1200, "height": 900})
    reader.close()


@pytest.fixture
def page(desk: tuple[Reader, Page]) -> Iterator[Page]:
    """The page of `desk`, reset to its initial choice: the first model and all sizes."""
    reader, page = desk
    page.select_option("#choose-a", "0.7")
    for size in page.locator("#sizes input:enabled").all():
        size.check()
    page.mouse.move(0, 0)
    yield page
    assert reader.wrong == []


def numbers_of(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("JSON.parse(document.getElementById('numbers').textContent)")
    return found


def points_of(page: Page, figure: str) -> list[dict[str, Any]]:
    """The traces of measured points in a figure, as they are drawn."""
    traces = page.evaluate(TRACES, figure)
    return [
        {"name": trace["name"], "x": trace["x"], "y": trace["y"], "error": trace["error_y"]["array"]}
        for trace in traces
        if trace["mode"] == "markers"
    ]


def until(page: Page, condition: str) -> None:
    """Wait for a condition; Playwright's own waiting evaluates a string, which the page forbids."""
    for _ in range(300):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"never came true: {condition}")


def markers(page: Page, figure: str) -> int:
    return page.locator(f"#figure-{figure} .scatterlayer .points path").count()


def test_every_figure_is_drawn_with_all_its_points(page: Page) -> None:
    model = numbers_of(page)["models"][0]
    assert (model["p"], model["a"]) == (1, 0.7)
    for figure, column in (("overlap", "overlap"), ("eigenvalue", "eigenvalue"), ("scaled", "Y")):
        drawn = points_of(page, figure)
        assert [trace["name"] for trace in drawn] == ["N = 128", "N = 512"]
        if figure != "scaled":
            assert [trace["y"] for trace in drawn] == [size[column] for size in model["sizes"]]
            assert [trace["error"] for trace in drawn] == [size[f"{column}_error"] for size in model["sizes"]]
        assert markers(page, figure) == sum(len(trace["x"]) for trace in drawn) > 20
    assert len(page.evaluate(TRACES, "overlap")) == 1 + 2 * 2  # the limit; theory and points at each N
    assert len(page.evaluate(TRACES, "eigenvalue")) == 2 + 2 * 2
    assert len(page.evaluate(TRACES, "critical")) == 2 * 4  # alpha_bbp, alpha_0, p -> inf, measured
    assert page.locator("#figure-overlap .errorbars path").count() > 0


def test_choosing_another_model_draws_its_numbers(page: Page) -> None:
    before = points_of(page, "overlap")
    page.select_option("#choose-a", "1.5")
    models = {(model["p"], model["a"]): model for model in numbers_of(page)["models"]}
    drawn = points_of(page, "overlap")
    assert drawn != before
    assert [trace["y"] for trace in drawn] == [models[1, 1.5]["sizes"][0]["overlap"]]  # of 128 alone
    assert page.locator("#sizes input[value='512']").is_disabled()
    assert "a = 1.5: discontinuous" in page.inner_text("#chosen")
    assert "a = 1.5" in (page.get_attribute("#figure-overlap", "aria-label") or "")
    page.select_option("#choose-p", "2")
    assert [trace["y"] for trace in points_of(page, "eigenvalue")] == [
        size["eigenvalue"] for size in models[2, 1.5]["sizes"]
    ]


def test_a_model_without_data_is_replaced_by_the_nearest_with_data(page: Page) -> None:
    page.select_option("#choose-p", "2")  # nothing is done at a = 0.7 there
    assert page.input_value("#choose-a") == "1.5"
    assert "p = 2, p* = 1, a = 1.5" in page.inner_text("#chosen")


def test_a_size_can_be_left_out(page: Page) -> None:
    page.uncheck("#sizes input[value='128']")
    for figure in ("overlap", "eigenvalue", "scaled"):
        assert [trace["name"] for trace in points_of(page, figure)] == ["N = 512"]


def test_the_chooser_works_from_the_keyboard_and_its_parts_have_names(page: Page) -> None:
    page.focus("#choose-a")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#choose-a") == "1.5"
    assert "a = 1.5" in page.inner_text("#chosen")
    page.get_by_role("checkbox", name="128").focus()
    page.keyboard.press("Space")
    assert points_of(page, "overlap") == []
    assert page.get_by_role("combobox", name="p*").input_value() == "1"


def test_hovering_shows_the_numbers_of_a_point(page: Page) -> None:
    size = numbers_of(page)["models"][0]["sizes"][1]
    place = page.locator("#figure-eigenvalue .scatterlayer .trace", has=page.locator(".points path")).nth(1)
    point = place.locator(".points path").nth(15)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#figure-eigenvalue .hoverlayer .hovertext")
    text = page.locator("#figure-eigenvalue .hoverlayer .hovertext").text_content() or ""
    value, error, theory = (size[name][15] for name in ("eigenvalue", "eigenvalue_error", "eigenvalue_N"))
    assert "N = 512" in text
    assert f"α = {size['alpha'][15]:.4f}" in text
    assert f"{value:.4f} ± {error:.4f}" in text
    assert "8 seeds" in text
    assert f"theory at N: {theory:.4f} ({(value - theory) / error:.1f} σ)" in text


def test_the_table_of_numbers_says_what_hovering_says(page: Page) -> None:
    page.click("summary")
    size = numbers_of(page)["models"][0]["sizes"][0]
    rows = page.locator("#points tr")
    assert rows.count() == sum(len(size["alpha"]) for size in numbers_of(page)["models"][0]["sizes"])
    cells = rows.nth(2).locator("td").all_inner_texts()
    assert cells[:4] == [
        "128",
        f"{size['alpha'][2]:.4f}",
        "12",
        f"{size['overlap'][2]:.4f} ± {size['overlap_error'][2]:.4f}",
    ]


def test_on_a_phone_nothing_is_wider_than_the_screen_and_fingers_hit_what_they_mean(
    open_page: Reader,
) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for figure in FIGURES:
        box = page.locator(f"#figure-{figure} svg.main-svg").first.bounding_box()
        assert box is not None
        assert 300 < box["width"] <= 390
    for select in ("choose-p", "choose-p-star", "choose-a"):
        box = page.locator(f"#{select}").bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44
    table = page.locator("#thresholds .scroll")
    assert table.evaluate("e => e.scrollWidth > e.clientWidth && getComputedStyle(e).overflowX === 'auto'")


CUE = "e => getComputedStyle(e, '::before').display === 'block' && getComputedStyle(e, '::before').content"


def test_a_table_wider_than_the_screen_says_so_and_no_other_does(open_page: Reader) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    tables = page.locator(".scroll")
    until(page, "document.querySelector('#thresholds .scroll').classList.contains('wider')")
    for place in range(tables.count()):
        table = tables.nth(place)
        cue = table.evaluate(CUE)
        if table.evaluate("e => e.scrollWidth > e.clientWidth + 1"):
            assert "scroll sideways" in cue
        else:
            assert not cue or cue == "none"
    page.emulate_media(media="print")
    assert not page.locator("#thresholds .scroll").evaluate(CUE)
    wide = open_page(viewport={"width": 2400, "height": 900}).locator("#thresholds .scroll")
    assert wide.evaluate("e => e.classList.contains('wider') === e.scrollWidth > e.clientWidth + 1")


def test_no_legend_of_a_narrow_window_lies_under_the_mode_bar(open_page: Reader) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page.hover("#figure-eigenvalue")
    for figure in FIGURES:
        legend = page.locator(f"#figure-{figure} g.legend").bounding_box()
        bars = page.locator(f"#figure-{figure} .modebar-group")
        if legend is None:
            continue
        right, bottom = legend["x"] + legend["width"], legend["y"] + legend["height"]
        for place in range(bars.count()):
            bar = bars.nth(place).bounding_box()
            assert bar is None or bar["x"] >= right or bar["y"] >= bottom
        panel = page.locator(f"#figure-{figure} svg.main-svg").first.bounding_box()
        assert panel is not None
        assert right <= panel["x"] + panel["width"] + 1


def test_figures_follow_the_width_of_the_window(open_page: Reader) -> None:
    page = open_page(viewport={"width": 1200, "height": 800})
    page.set_viewport_size({"width": 500, "height": 800})
    until(page, "document.querySelector('#figure-overlap svg.main-svg').clientWidth < 500")
    assert page.evaluate("document.documentElement.scrollWidth") == 500


def luminance(colour: str) -> float:
    red, green, blue = (float(part) for part in re.findall(r"[\d.]+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_dark_page_has_light_figures_and_paper_is_always_light(open_page: Reader) -> None:
    ink = "getComputedStyle(document.querySelector('#figure-overlap .xtick text')).fill"
    light, dark = open_page(color_scheme="light"), open_page(color_scheme="dark")
    assert luminance(light.evaluate(ink)) < 80
    assert luminance(dark.evaluate(ink)) > 180
    dark.emulate_media(media="print", color_scheme="dark")
    until(dark, f"{ink} === '{light.evaluate(ink)}'")
    assert luminance(dark.evaluate("getComputedStyle(document.body).backgroundColor")) > 250
    light.emulate_media(color_scheme="dark")
    until(light, f"{ink} !== 'rgb(29, 33, 38)'")
    assert luminance(light.evaluate(ink)) > 180


def test_the_figures_of_the_chosen_model_fit_a_printed_page(open_page: Reader) -> None:
    page = open_page(viewport={"width": 1400, "height": 900})
    page.select_option("#choose-a", "1.5")
    page.emulate_media(media="print")
    until(page, "document.querySelector('#figure-scaled svg.main-svg').clientWidth < 700")
    across = math.floor((210 - 2 * 16) / 25.4 * 96)  # pixels of A4 within its margins
    for figure in FIGURES:
        box = page.locator(f"#figure-{figure} svg.main-svg").first.bounding_box()
        assert box is not None
        assert 500 < box["width"] <= across
        assert markers(page, figure) > 0
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="screen")
    until(page, "document.querySelector('#figure-scaled svg.main-svg').clientWidth > 700")


def test_a_hostile_name_is_shown_and_does_nothing(page: Page) -> None:
    assert page.inner_text("h1") == HOSTILE
    assert page.title() == f"{HOSTILE}: thresholds"
    assert page.locator("img").count() == 0


def test_without_scripts_the_page_says_how_to_get_its_figures(browser: Browser, report: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(report.as_uri())
    assert "bendscape figures STORE -o DIR" in page.locator("noscript").inner_text()
    assert page.locator("#loads table").is_visible()
    page.close()
