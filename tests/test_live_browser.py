"""The live page in a real browser during a real run: it follows, keeps what is chosen, and survives."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import refiners
from command_line import BENDSCAPE
from live_page import served
from test_any_axes import CASES, Place, module_of

from bendscape.sweep.campaign.file import parse_campaign
from campaigns import RANDOM, campaign_text, run, write_kernel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.browser
HOSTILE = "</script><script>document.title = 'taken'</script><img src=http://127.0.0.1:9/x onerror=alert(1)>"
LONG = HOSTILE + "y" * 800
MODULE = """
import time
from pathlib import Path
from bendscape.sweep.campaign.axes import Axes, Axis
from bendscape.sweep.campaign.kernel import Kernel, Outcome, Variable

GATE = Path(__file__).with_name("open")

def compute(cell, rng):
    for _ in range(1200 if cell.spins == 10 else 0):  # the smaller size is computed last
        if GATE.exists():
            break
        time.sleep(0.05)
    if cell.rule == "hebb" and cell.field == 1.0 and cell.seed == 0:
        raise ValueError({hostile!r})
    return Outcome({{"x": rng.normal() + cell.field, "n": int(rng.integers(9))}})

KERNEL = Kernel(
    "gated", 1, (Variable("x", "a <b>number</b>"), Variable("n", "an integer", dtype="int64")), compute,
    lambda cell: 3.0, lambda cell: 1e6,
    axes=Axes((
        Axis("rule", "str", long_name="learning <i>rule</i>"), Axis("field", "float64", "curve", "field"),
        Axis("spins", "int64", "size", "number of spins"), Axis("seed", "int64", "seed", "realisation"),
    )),
)
"""
FILE = """
[campaign]
name = "<u>gated</u>"
store = "s.zarr"
entropy = 3
kernel = "gated"

[grid]
rule = ["hebb", "storkey <s>"]
field = { start = 0.0, stop = 2.0, num = 5 }
spins = [10, 20]
seeds = 3
where = "rule == 'hebb' or field > 0.1"
"""


class Reader:
    """Opens pages in fresh contexts, and records everything that should not be: console messages, errors,
    dialogs, and requests to anywhere but the server."""

    def __init__(self, browser: Browser, port: int) -> None:
        self.browser, self.url = browser, f"http://127.0.0.1:{port}/"
        self.wrong: list[str] = []
        self.contexts: list[BrowserContext] = []

    def __call__(self, at: str = "", **options: Any) -> Page:
        context = self.browser.new_context(**options)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.look(request.url))
        page.goto(self.url + at)
        page.wait_for_selector("html[data-shown]", state="attached")
        return page

    def look(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.wrong.append(url)

    def close(self) -> None:
        for context in self.contexts:
            context.close()


def until(page: Page, condition: str, seconds: float = 60.0) -> None:
    """Wait for a condition; Playwright's own waiting evaluates a string, which the page forbids."""
    for _ in range(int(10 * seconds)):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(100)
    text = page.inner_text("body")[:600]
    raise AssertionError(f"never came true: {condition}; the page says {text}")


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@contextlib.contextmanager
def started(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a process group of its own, ended at the end."""
    process = subprocess.Popen(
        [str(BENDSCAPE), *map(str, arguments)], cwd=cwd, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


FIGURE = "document.querySelector('#curves-figures figure .drawn')"
DONE = "document.querySelector('#tiles .tile b').textContent"


def test_a_page_follows_a_run_that_dies_and_a_watcher_that_restarts(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "gated.py").write_text(MODULE.format(hostile=LONG))
    (tmp_path / "f.toml").write_text(FILE)
    port = free_port()
    watch = ("watch", "s.zarr", "--port", port, "--kernel-module", "gated.py")
    run = ("run", "f.toml", "--kernel-module", "gated.py", "--workers", 2)
    reader = Reader(browser, port)
    with contextlib.ExitStack() as ends:
        watcher = ends.enter_context(started(*watch, cwd=tmp_path))
        wait_for(port)
        page = reader(viewport={"width": 1100, "height": 800})
        until(page, "document.getElementById('state').textContent.startsWith('There is no store here yet')")
        driver = ends.enter_context(started(*run, cwd=tmp_path))
        until(page, "document.getElementById('state').className === 'at work'")
        until(page, "document.querySelectorAll('#failures-list details').length === 1")
        until(page, f"parseFloat({DONE}) > 40")

        # The reader chooses: a row, a stretch of the curve, one size off in the legend, details, a place.
        until(page, f"{FIGURE}.querySelectorAll('.scatterlayer .point').length > 3")
        box = page.locator("#curves-figures figure .nsewdrag").first.bounding_box()
        assert box is not None
        page.locator("#curves-figures figure .nsewdrag").first.scroll_into_view_if_needed()
        box = page.locator("#curves-figures figure .nsewdrag").first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.2 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"], steps=5)
        page.mouse.up()
        page.locator("#curves-figures figure .legendtoggle").nth(1).click()
        until(page, f"{FIGURE}.data[1].visible === 'legendonly'")
        zoom = page.evaluate(f"{FIGURE}.layout.xaxis.range")
        page.locator("#failures-list summary").click()
        page.locator("#curves-table summary").click()
        page.select_option("#choose-size", "20")
        place = page.evaluate("scrollY")
        page.evaluate("window.kept = document.querySelector('#curves-figures figure .drawn')")

        # The driver dies, and the page says so by itself.
        os.killpg(driver.pid, signal.SIGKILL)  # and nobody has waited for it yet
        until(page, "document.getElementById('state').className === 'dead'")
        assert f"The run has died: process {driver.pid}" in page.inner_text("#state")
        assert "died" in (page.text_content("#said") or "")

        # The watcher dies too; it is started again after the campaign was resumed.
        os.killpg(watcher.pid, signal.SIGKILL)
        watcher.wait(30)
        until(page, "document.getElementById('link').textContent.startsWith('disconnected since')")
        (tmp_path / "open").touch()
        again = ends.enter_context(started(*run, cwd=tmp_path))
        assert again.wait(120) == 1  # two cells fail
        ends.enter_context(started(*watch, cwd=tmp_path))
        until(page, "document.getElementById('link').textContent === 'live'")
        until(page, "document.getElementById('state').className === 'failed cells'")
        until(page, "document.querySelectorAll('#failures-list details').length === 2")

        # What was chosen is as it was; the page was never loaded again.
        until(page, f"{FIGURE}.data[0].y.every((y) => y !== null)")
        assert page.evaluate(f"window.kept === {FIGURE}")
        assert page.evaluate(f"{FIGURE}.layout.xaxis.range") == zoom
        assert page.evaluate(f"{FIGURE}.data[1].visible") == "legendonly"
        assert page.evaluate("document.querySelectorAll('#failures-list details[open]').length") == 1
        assert page.evaluate("document.getElementById('curves-table').open")
        assert page.locator("#means-rows tr").count() == 2 * 2 * 5
        assert page.input_value("#choose-size") == "20"
        assert page.evaluate("scrollY") == place
        # 60 cells less the 6 that are never asked for, of which two have failed.
        assert page.inner_text("#tiles").split("\n")[2] == "52 of 54"
        offline = [one for one in reader.wrong if "ERR_CONNECTION_REFUSED" in one or "ERR_INCOMPLETE" in one]
        others = [one for one in reader.wrong if one not in offline]
        assert others == []
        assert page.inner_text("h1") == "<u>gated</u>"
        assert "gated" in page.title()
        summary = page.text_content("#failures-list summary") or ""
        assert HOSTILE in summary
        assert len(summary) < 300
        assert LONG in (page.text_content("#failures-list pre") or "")
        assert (
            page.locator("#failures-list img, main script, main u, main i:not(.key i), main s").count() == 0
        )
    reader.close()


def wait_for(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError("the watcher does not answer")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign of the scenario, finished."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "gated.py").write_text(MODULE.format(hostile=LONG))
    (folder / "f.toml").write_text(FILE)
    (folder / "open").touch()
    command = [sys.executable, "-m", "bendscape.sweep", "run", "f.toml", "--kernel-module", "gated.py"]
    options = ["--address", "serial"]
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    return folder


@pytest.fixture(scope="module")
def readers(browser: Browser, finished: Path) -> Iterator[Reader]:
    with served(str(finished / "s.zarr"), [str(finished / "gated.py")]) as port:
        reader = Reader(browser, port)
        yield reader
        reader.close()


@pytest.fixture
def open_page(readers: Reader) -> Iterator[Reader]:
    yield readers
    readers.close()
    readers.contexts.clear()
    assert readers.wrong == []


def test_on_a_phone_nothing_scrolls_sideways_and_fingers_hit_what_they_mean(open_page: Reader) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for figure in page.locator(".drawn svg.main-svg").all():
        box = figure.bounding_box()
        assert box is not None
        assert box["width"] <= 390
    page.evaluate("document.querySelector('#choose-rule option').textContent = 'a long name '.repeat(20)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for control in page.locator("#chooser select, summary").all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= 44


def luminance(colour: str) -> float:
    red, green, blue = (float(part) for part in re.findall(r"[\d.]+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_dark_page_has_light_figures_and_changes_with_the_system(open_page: Reader) -> None:
    ink = "getComputedStyle(document.querySelector('#curves-figures .xtick text')).fill"
    page = open_page(color_scheme="dark")
    assert luminance(page.evaluate(ink)) > 180
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 50
    page.emulate_media(color_scheme="light")
    until(page, f"{ink} === 'rgb(29, 33, 38)'")


def test_the_page_is_used_from_the_keyboard_and_read_aloud(open_page: Reader) -> None:
    page = open_page()
    assert page.get_by_role("combobox", name="rule").input_value() == "0"
    page.get_by_role("combobox", name="rule").focus()
    page.keyboard.press("ArrowDown")
    until(page, "document.getElementById('curves-words').textContent.startsWith('rule = storkey <s>')")
    assert "#row=1" in page.url
    page.locator("#map-table summary").focus()
    page.keyboard.press("Enter")
    rows = [row.split("\t") for row in page.locator("#map-rows").inner_text().split("\n")]
    assert rows == [["rule = hebb", "30", "28", "2", "0"], ["rule = storkey <s>", "24", "24", "0", "0"]]
    for figure in page.locator(".drawn[role=img]").all():
        if figure.is_visible():
            assert len(figure.get_attribute("aria-label") or "") > 20
    assert page.locator("[aria-live=polite]").count() == 1
    page.reload()
    page.wait_for_selector("html[data-shown]", state="attached")
    assert page.get_by_role("combobox", name="rule").input_value() == "1"


def test_the_map_shows_failures_and_what_was_never_asked_for_and_a_click_chooses_a_row(
    open_page: Reader,
) -> None:
    page = open_page()
    shares, crosses = page.evaluate("document.getElementById('map').data")
    assert shares["z"] == [[1, 1, pytest.approx(2 / 3), 1, 1], [None, 1, 1, 1, 1]]
    assert (crosses["x"], crosses["y"]) == ([2], [0])
    box = page.locator("#map .nsewdrag").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.75 * box["height"])
    page.wait_for_selector("#map .hoverlayer .hovertext")
    assert "rule = storkey <s>, field = 1" in (page.text_content("#map .hoverlayer") or "")
    page.mouse.down()
    page.mouse.up()
    until(page, "document.getElementById('choose-rule').value === '1'")
    until(page, "document.getElementById('curves-words').textContent.startsWith('rule = storkey')")


def test_a_page_that_slept_says_so_and_catches_up(open_page: Reader) -> None:
    page = open_page()
    before = page.get_attribute("html", "data-shown")
    page.evaluate(
        """() => {
            const link = document.getElementById("link");
            window.told = [];
            new MutationObserver(() => told.push(link.textContent)).observe(link, { childList: true });
            const clock = Date.now; // a minute during which no timer fired and nothing was heard
            Date.now = () => clock() + 60000;
        }"""
    )
    until(page, "told.length > 1 && document.getElementById('link').textContent === 'live'")
    assert page.evaluate("told[0]").startswith("disconnected since")
    assert page.get_attribute("html", "data-shown") == before  # nothing had happened meanwhile


def test_a_choice_keeps_its_values_in_an_extension_and_a_hidden_page_holds_no_connection(
    browser: Browser, tmp_path: Path
) -> None:
    case = CASES["no sizes"]
    place = Place(case, module_of(case, tmp_path / "any.py"), tmp_path)
    place.run("s.zarr", {**case.grid, "width": "[4, 7]"})
    with served(str(tmp_path / "s.zarr"), [place.module]) as port:
        reader = Reader(browser, port)
        page = reader()
        page.add_init_script(
            """{ const Source = window.EventSource;
                window.opened = [];
                window.EventSource = class extends Source {
                    constructor(at) { super(at); opened.push(this); }
                }; }"""
        )
        page.reload()
        page.wait_for_selector("html[data-shown]", state="attached")
        page.select_option("#choose-width", "1")
        words = "document.getElementById('curves-words').textContent"
        until(page, f"{words}.startsWith('width = 7')")
        page.evaluate(f"Plotly.relayout({FIGURE}, {{'xaxis.range': [-0.5, 0.5]}})")
        streams = "opened.filter(({ readyState }) => readyState < 2).length"
        hide = "(now) => { Object.defineProperty(document, 'hidden', { value: now, configurable: true });"
        hide += " document.dispatchEvent(new Event('visibilitychange')); }"
        assert page.evaluate(streams) == 1
        page.evaluate(hide, True)
        assert page.evaluate(streams) == 0
        place.run("s.zarr", {**case.grid, "width": "[4, 5, 6, 7]"})
        page.evaluate(hide, False)
        until(page, "document.getElementById('choose-width').value === '3'")
        until(page, f"{words}.startsWith('width = 7')")
        assert page.evaluate(streams) == 1
        assert "#row=3" in page.url
        assert page.evaluate(f"{FIGURE}.layout.xaxis.range") == [-0.5, 0.5]
        assert page.inner_text("#link") == "live"
        reader.close()
        assert reader.wrong == []


def test_the_page_says_that_a_target_is_unreachable_and_why(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refiners.install(monkeypatch)
    module, store = write_kernel(tmp_path, RANDOM), tmp_path / "s.zarr"
    text = campaign_text(p=[1], a=[0.7, 1.5], alpha=[0.8, 1.2], N=[64], seeds=4)
    target = (
        "\n[target]\nmean_x = { absolute = 0.001 }\n[[target.models]]\na = 1.5\nmean_x = { absolute = 9 }\n"
    )
    run(store, module, parse_campaign(text))
    spent = text + target.replace("0.001", "0.3").replace("[target]\n", "[target]\ncore_hours = 1e-9\n")
    assert run(store, module, parse_campaign(spent)).exit_code == 3
    with served(str(store), [module]) as port:
        reader = Reader(browser, port)
        page = reader(viewport={"width": 390, "height": 800})
        state = page.inner_text("#state")
        assert state.startswith(
            "No run is at work, and cells are missing. The target is unreachable: the 1e-09"
        )
        assert "core-hours of [target] are used up" in state
        assert "resumes" not in state, "the same command computes nothing"
        assert run(store, module, parse_campaign(text + target)).exit_code == 3
        words = "document.getElementById('state').textContent"
        until(
            page, f"{words}.startsWith('Complete. The target is unreachable: p = 1, p_star = 1, a = 0.7: ')"
        )
        state = page.inner_text("#state")
        assert "seeds are needed, more than 64." in state
        assert "a = 1.5" not in state, "that model has its precision"
        assert "unreachable" in (page.text_content("#said") or ""), "read aloud"
        last = page.locator("#rounds-rows tr").last.inner_text().split("\t")
        assert (last[3:6], last[-1]) == (["1", "0", "1"], "target unreachable")
        models = [row.split("\t") for row in page.locator("#rounds-models tr").all_inner_texts()]
        assert [row[:2] for row in models] == [
            ["p = 1, p_star = 1, a = 0.7", "unreachable"],
            ["p = 1, p_star = 1, a = 1.5", "met"],
        ]
        assert models[0][-1].endswith("seeds are needed, more than 64")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        reader.close()
        assert reader.wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_family_has_a_page(browser: Browser, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    place = Place(case, module_of(case, tmp_path / "any.py"), tmp_path)
    place.run("s.zarr", case.wider)
    with served(str(tmp_path / "s.zarr"), [place.module]) as port:
        reader = Reader(browser, port)
        page = reader(viewport={"width": 800, "height": 700})
        assert page.inner_text("#state") == "Complete."
        figures = page.locator("#curves-figures figure")
        assert [text.split()[0] for text in figures.all_inner_texts() if text]
        for figure in figures.all():
            assert figure.locator(".points path").count() > 0
        assert page.locator("#map .heatmaplayer image").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") == 800
        reader.close()
        assert reader.wrong == []
