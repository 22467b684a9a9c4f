"""The site: the command of CONTRIBUTING.md builds it, it needs no network, and faults fail the build."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import bendscape.core
import bendscape.sweep
from bendscape.core.errors import ParameterError
from bendscape.sweep.campaign.loading import load_kernels
from bendscape.sweep.commands.cli import app, load_commands
from bendscape.sweep.commands.kernels import describe

pytestmark = pytest.mark.site

ROOT = Path(__file__).parents[1]
COMMAND = re.search(
    r"^    \.venv/bin/python (-m sphinx .+) docs build/site$",
    (ROOT / "CONTRIBUTING.md").read_text(),
    re.MULTILINE,
)
NOTEBOOK = "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n# A page\n\n"
FAULTS = {
    "a link to a page that is not there": ("# A page\n\n[x](gone.md)", "gone.md"),
    "an anchor that is not there": ("# A page\n\n[x](index.md#gone)", "gone"),
    "an anchor of its own that is not there": ("# A page\n\n[x](#nowhere)", "nowhere"),
    "a file outside the documents": ("# A page\n\n[x](../README.md)", "README"),
    "a formula that cannot be converted": ("# A page\n\n$\\unknown x$", "unknown"),
    "a docstring that refers to nothing": (
        "# A page\n\n```{eval-rst}\n:func:`bendscape.core.quadratic.theory.bulk.right_edge`\n```",
        "right_edge does not exist",
    ),
    "a cell that fails": (f"{NOTEBOOK}```{{code-cell}}\n1 / 0\n```", "division by zero"),
}


def built(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    assert COMMAND, "CONTRIBUTING.md does not say how to build the site"
    command = [sys.executable, *COMMAND[1].split(), "-q", str(docs), str(site)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=1500, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    build = built(ROOT / "docs", site)
    assert build.returncode == 0, build.stderr
    return site


def small(tmp_path: Path, pages: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The build of a few pages with the settings of the real one."""
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", docs)
    for folder in ("extensions", "static"):
        shutil.copytree(ROOT / "docs" / folder, docs / folder)
    (tmp_path / "README.md").write_text("# Outside\n")
    listed = "\n".join(pages)
    (docs / "index.md").write_text(f"# Index\n\n```{{toctree}}\n{listed}\n```\n")
    for name, text in pages.items():
        (docs / f"{name}.md").write_text(text)
    return built(docs, tmp_path / "site")


LONG_LINE = "-".join(map(str, range(200)))


def test_a_long_line_that_a_command_prints_stays_one_line(tmp_path: Path) -> None:
    cell = f"```{{code-cell}}\n%%bash -e\nfor n in 1 2 3; do echo ${{n}}-{LONG_LINE}; done\n```"
    build = small(tmp_path, {"page": NOTEBOOK + cell})
    assert build.returncode == 0, build.stderr
    printed = words(tmp_path / "site" / "page.html").splitlines()
    assert [line for line in printed if line.endswith("-199")] == [f"{n}-{LONG_LINE}" for n in (1, 2, 3)]


class Loads(HTMLParser):
    """What a page loads by itself: not where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loaded = name in ("src", "srcset", "data", "poster") or (
                tag in ("link", "use", "image") and "href" in name
            )
            if loaded and value:
                self.found.append(value)


def words(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loads = Loads()
        loads.feed(text)
        assert len(loads.found) > 3
        found = [*loads.found, *re.findall(r"(?:@import|url\()\s*['\"]?([^'\")\s]+)", text)]
        assert not [url for url in found if re.match(r"(?:[a-z]+:)?//", url)], page
    for style in site.rglob("*.css"):
        found = re.findall(r"(?:@import|url\()\s*['\"]?([^'\")\s]+)", style.read_text(encoding="utf-8"))
        assert not [url for url in found if re.match(r"(?:[a-z]+:)?//", url)], style


def test_every_public_name_has_an_entry(site: Path) -> None:
    inventory = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    names = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    for module in (bendscape.core, bendscape.sweep):
        own = {name for name in module.__all__ if getattr(module, name) is not ParameterError}
        assert not {f"{module.__name__}.{name}" for name in own} - names
    assert "bendscape.core.ParameterError" in names
    assert "bendscape.analysis.estimate.thresholds.thresholds" in names
    for page in (site / "reference").glob("*.html"):
        unread = re.findall(r"~\w+\.\w+|<factory>", words(page))  # a signature that Sphinx could not read
        assert not unread, page


def options_of(command: Any, path: str) -> dict[str, set[str]]:
    """The options of every command below this one, by the words that call it."""
    found = {path: {option for of in command.params for option in of.opts if option.startswith("--")}}
    for name, below in getattr(command, "commands", {}).items():
        found |= options_of(below, f"{path} {name}")
    return found


def test_every_command_and_option_is_on_the_page_of_the_command_line(site: Path) -> None:
    from typer.main import get_command

    load_commands()
    page = words(site / "reference" / "command-line.html")
    parts = re.split(r"\n(?=bendscape[a-z -]*#)", page)
    section = {part.partition("#")[0]: part for part in parts}
    commands = options_of(get_command(app), "bendscape")
    assert len(commands) > 20
    for call, options in commands.items():
        assert not {option for option in options if option not in section[call]}, call


def test_every_axis_option_and_variable_is_on_the_page_of_the_kernels(site: Path) -> None:
    page = words(site / "reference" / "kernels.html")
    section = {part.partition("#")[0]: part for part in re.split(r"\n(?=[a-z_]+#\n)", page)}
    for name, kernel in load_kernels(()).items():
        document = describe(kernel)  # type: ignore[arg-type]
        references = [of for one in document["references"] for of in one["variables"]]
        for of in (*document["axes"], *document["options"], *document["variables"], *references):
            assert re.search(rf"^{of['name']}$", section[name], re.MULTILINE), f"{name}: {of['name']}"


def test_formulas_and_figures_of_notebooks_are_in_the_pages(site: Path) -> None:
    theory = (site / "theory.html").read_text(encoding="utf-8")
    assert theory.count("<math") > 200
    assert "\\frac" not in theory
    tutorial = (site / "tutorials" / "own-function.html").read_text(encoding="utf-8")
    assert "complete" in tutorial
    assert re.search(r"<img [^>]*_images/\w+\.(png|svg)", tutorial)


def test_no_page_shows_a_folder_of_the_machine_that_built_it(site: Path) -> None:
    temporary = re.compile(rf"{re.escape(tempfile.gettempdir())}/(tmp|jobs-)\w")
    for page in site.rglob("*.html"):
        text = words(page)
        assert sys.prefix not in text, page.name
        assert not temporary.search(text), page.name
    assert "cd /home/you/sweep" in words(site / "tutorials" / "slurm.html")


def test_every_kind_of_fault_fails_the_build(tmp_path: Path) -> None:
    pages = {f"page{number}": f"{text}\n" for number, (text, _) in enumerate(FAULTS.values())}
    build = small(tmp_path, pages)
    assert build.returncode != 0
    for number, (fault, (_, message)) in enumerate(FAULTS.items()):
        warned = build.stderr.partition(f"page{number}.md")[2].partition(f"page{number + 1}.md")[0]
        assert message in warned, f"{fault}: {build.stderr}"


@pytest.mark.browser
def test_pages_load_without_a_network_fit_a_phone_and_turn_dark(site: Path, browser: Any) -> None:
    looks = {}
    for scheme in ("light", "dark"):
        page = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme).new_page()
        asked: list[str] = []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        for name in ("index", "theory", "reference/core", "reference/kernels", "tutorials/own-function"):
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        looks[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.goto((site / "search.html").as_uri() + "?q=threshold")
        page.wait_for_selector("#search-results li")
        assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert looks["light"] != looks["dark"], json.dumps(looks)
