"""The code, tests and files named in the documents exist."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from bendscape.sweep.campaign.file import CampaignSection, parse_campaign
from bendscape.sweep.campaign.loading import load_kernel
from bendscape.sweep.campaign.target import LEVEL_REFINERS, REFINERS, Target

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
THEORY = ROOT / "docs" / "theory.md"

IN_FILE = re.compile(r"`((?:core|sweep|analysis|cluster)/[\w/]+\.py): ([\w.]+)`")
IN_TESTS = re.compile(r"`(tests/\w+\.py): (\w+)`")
DOTTED = re.compile(r"`(bendscape(?:\.\w+)+)(?:\(\))?`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
DISPLAY = re.compile(r"^```math\n.*?^```$", re.MULTILINE | re.DOTALL)

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module, or reached by attributes from the longest module in it."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            if hasattr(found, name):
                found = getattr(found, name)
            elif name in getattr(found, "__annotations__", {}):  # a field of a dataclass
                return name == parts[-1]
            else:
                return False
        return True
    return False


def code_names(text: str) -> set[str]:
    in_file = {
        f"bendscape.{path.removesuffix('.py').replace('/', '.')}.{name}"
        for path, name in IN_FILE.findall(text)
    }
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    return in_file | set(DOTTED.findall(text)) - {
        *groups,
        REFINERS,
        LEVEL_REFINERS,
    }  # entry-point groups are names of no module


def slug(heading: str) -> str:
    """The anchor that a heading has on the web: lower case, no punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def dead_links(path: Path) -> list[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    dead = []
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if target.is_file() else []
        if not target.exists() or (anchor and anchor not in map(slug, headings)):
            dead.append(link)
    return dead


@each_document
def test_every_code_name_in_a_document_exists(path: Path) -> None:
    missing = [name for name in code_names(path.read_text(encoding="utf-8")) if not resolves(name)]
    assert not missing


@each_document
def test_every_test_a_document_names_exists(path: Path) -> None:
    for file, name in IN_TESTS.findall(path.read_text(encoding="utf-8")):
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}: {name}"


@each_document
def test_no_relative_link_is_dead(path: Path) -> None:
    assert not dead_links(path)


def test_every_displayed_equation_of_the_theory_is_followed_by_the_function_that_computes_it() -> None:
    text = THEORY.read_text(encoding="utf-8")
    ends = [match.end() for match in DISPLAY.finditer(text)]
    starts = [match.start() for match in DISPLAY.finditer(text)]
    assert len(ends) > 20
    for end, following in zip(ends, [*starts[1:], len(text)], strict=True):
        until_heading = re.split(r"^#", text[end:following], maxsplit=1, flags=re.MULTILINE)[0]
        assert code_names(until_heading), f"no function after {text[:end].splitlines()[-3:]}"


def test_inline_formulas_hold_no_backslash_that_markdown_would_eat() -> None:
    text = FENCE.sub("", THEORY.read_text(encoding="utf-8"))
    formulas = re.findall(r"\$[^$]+\$", text)
    assert len(formulas) > 100
    assert not [formula for formula in formulas if re.search(r"\\[^a-zA-Z]", formula)]


def test_references_to_missing_things_are_detected(tmp_path: Path) -> None:
    assert resolves("bendscape.core.quadratic.sampling.hessian.Instance.d_par")
    assert resolves("bendscape.core.quadratic.sampling.hessian.Instance.fields")
    assert resolves("bendscape.core")
    for name in (
        "bendscape.core.quadratic.theory.bulk.right_edge",
        "bendscape.core.lost.edge",
        "bendscape.core.quadratic.theory.bulk.Edge.x",
    ):
        assert not resolves(name)
    (tmp_path / "there.md").write_text("# A heading, with words\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md#a-heading-with-words) [b](gone.md) [c](there.md#b) [d](https://x.org/y.md)\n"
    )
    assert dead_links(page) == ["gone.md", "there.md#b"]
    assert code_names(
        "`core/quadratic/theory/bulk.py: left_edge`, `bendscape.core.quadratic.model.Model`, `N`"
    ) == {
        "bendscape.core.quadratic.theory.bulk.left_edge",
        "bendscape.core.quadratic.model.Model",
    }


def test_the_reference_of_the_campaign_file_has_every_key_and_no_other() -> None:
    page = (ROOT / "docs" / "campaign-file.md").read_text(encoding="utf-8")
    tables = {
        name: re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
        for name, part in re.findall(r"^## \[(\w+)\]\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    }
    kernel = load_kernel("hessian")
    assert kernel.options is not None
    assert tables == {
        "campaign": list(CampaignSection.model_fields),
        "kernel": ["name", *kernel.options.model_fields],
        "target": [name for name in ("core_hours", "models") if name in Target.model_fields],
        "grid": [*(axis.name for axis in kernel.axes.declared if axis.role != "seed"), "seeds", "where"],
    }
    for name, of in kernel.options.model_json_schema()["properties"].items():
        for value in of.get("enum", []):
            assert f'`"{value}"`' in page, f"{name} = {value}"
    example = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0]
    campaign = parse_campaign(example)
    load_kernel(campaign.kernel_name, (), campaign.options)
    assert campaign.to_grid(kernel.axes).cell_count() == 4 * 21 * (256 + 64)
    more = parse_campaign("\n".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[:2]))
    beside = 3 * (400 + 100)
    assert more.to_grid(kernel.axes).cell_count() == 4 * 21 * (256 + 64) + beside


def test_every_page_is_listed_in_one_of_the_four_parts_and_these_in_the_index() -> None:
    docs = ROOT / "docs"
    parts = [docs / part / "index.md" for part in ("tutorials", "how-to", "explanation", "reference")]
    listed = [
        (part.parent / name).resolve()
        for part in parts
        for name in re.findall(
            r"^- \[[^]]+\]\(([^)#]+)\)[^\n]*\w", part.read_text(encoding="utf-8"), re.MULTILINE
        )
    ]
    pages = {path for path in docs.rglob("*.md") if path.parent.name != "decisions"}
    landing = {docs / "README.md", docs / "index.md", *parts}
    assert sorted(listed) == sorted((pages - landing) | {docs / "decisions" / "index.md"})
    index = (docs / "README.md").read_text(encoding="utf-8")
    assert [f"({part.relative_to(docs)})" in index for part in parts] == [True] * 4
