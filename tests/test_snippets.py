"""What README and documents tell a user to type: snippets of Python run, commands and options exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from obstore.store import from_url
from typer.main import get_command

from bendscape.sweep import Campaign, run
from bendscape.sweep.commands.cli import app, load_commands

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "reference").glob("*.md")]
)
"""Tutorials run where the site is built."""

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(bendscape (?:[^\n\\]|\\\n)*)$", re.MULTILINE)
INLINE = re.compile(r"`(bendscape [^`]+)`")
SCRIPT = re.compile(r"python (benchmarks/\w+\.py)((?: [^`#\n]*)?)")

FIRST = ("README.md", "python.md", "kernels.md", "physics.md")
"""Pages whose Python runs in every test run; that of the others is slow."""

ELSEWHERE = {"reference/store-format.md": "tests/test_store_format.py", "stores.md": "tests/test_snippets.py"}
"""Pages whose Python needs more than a small store: where it is tested."""


def python_of(page: Path) -> str:
    """The blocks of Python of a page, one after the other, as a reader would run them."""
    return "\n".join(
        text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == "python"
    )


def commands_of(text: str) -> list[list[str]]:
    """Words of every call of `bendscape`, without comments, redirections and what is before or after it."""
    blocks = [body for kind, body in BLOCK.findall(text) if kind in ("sh", "bash")]
    lines = [line for body in blocks for line in body.replace("\\\n", " ").splitlines()]
    lines += [line.replace("\\\n", " ") for line in INDENTED.findall(text)]
    lines += [line.replace("\n", " ") for line in INLINE.findall(text)]
    found = []
    for line in lines:
        for part in re.split(r"&&|;|\||>>?", line):
            words = shlex.split(part, comments=True)
            if words and words[0].endswith("bendscape"):
                found.append(words[1:])
    return found


def parse(words: list[str]) -> None:
    """Parse a call as far as its command, its options and their values; nothing is run."""
    load_commands()
    command: Any = get_command(app)
    context: Any = None
    while True:
        name = command.name or "bendscape"
        try:
            context = command.make_context(name, list(words), parent=context)
        except typer.Exit:  # --version, --help
            return
        words = [*context._protected_args, *context.args]
        if not hasattr(command, "resolve_command") or not words:
            return
        _, command, words = command.resolve_command(context, words)


def is_missing(error: Exception) -> bool:
    """A word that a sentence leaves out, such as the store; not one that does not exist."""
    return type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stores that the pages read, small."""
    folder = tmp_path_factory.mktemp("stores")

    def make(name: str, **grid: Any) -> None:
        about = {"name": name, "store": str(folder / f"{name}.zarr"), "entropy": 20261122}
        kernel = {"kernel": "index"} if name == "index" else {}
        modules = [str(ROOT / "docs" / "my_kernel.py")] if name == "index" else []
        run(Campaign.of(**about, **kernel, grid=grid), kernel_modules=modules, progress=False)

    alpha = {"around": "alpha_bbp", "start": 0.6, "stop": 1.6, "num": 21}
    sizes = {"N": [128, 256], "seeds": {128: 6, 256: 5}}
    make("figure-1", p=[1], p_star=[1], a=[0.7, 1.5], alpha=alpha, **sizes)
    make("index", p=[2], p_star=[1], a=[0.7], alpha=[2.0], N=[128], seeds=2)
    make("drift", p=[2], p_star=[1], a=[10.0], alpha=[1.0, 2.0, 3.0], N=[32, 64], seeds=4)
    return folder


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page.name in FIRST else pytest.mark.slow)
        for page in PAGES
        if python_of(page)
    ],
    ids=lambda page: page.name,
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path, stores: Path, tmp_path: Path) -> None:
    name = page.relative_to(ROOT / "docs").as_posix() if page.parent != ROOT else page.name
    code = python_of(page)
    if name in ELSEWHERE:
        assert (ROOT / ELSEWHERE[name]).is_file()
        return
    (tmp_path / "runs").mkdir()
    if "run(one" not in code:  # the page that makes its stores itself
        for store in stores.iterdir():
            shutil.copytree(store, tmp_path / "runs" / store.name)
    execute(code, tmp_path)


def execute(code: str, folder: Path) -> None:
    """Run the code of a page in a process of its own."""
    (folder / "page.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not done.returncode, done.stderr[-2000:]


def test_the_page_on_stores_reads_a_bucket(stores: Path, s3_url: str, tmp_path: Path) -> None:
    bucket = from_url(s3_url)
    for file in (stores / "figure-1.zarr").rglob("*"):
        if file.is_file():
            bucket.put(file.relative_to(stores / "figure-1.zarr").as_posix(), file)
    code = python_of(ROOT / "docs" / "stores.md")
    assert code.count("s3://bucket/figure-1.zarr") == 2
    execute(code.replace("s3://bucket/figure-1.zarr", s3_url), tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    wrong = []
    for words in commands_of(page.read_text(encoding="utf-8")):
        try:
            parse(words)
        except Exception as error:
            if not is_missing(error):
                wrong.append(f"bendscape {shlex.join(words)}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line", ["figures STORE --onyl edge", "figure STORE", "submit slurm FILE --nodes four"]
)
def test_a_command_that_does_not_exist_is_detected(line: str) -> None:
    with pytest.raises(Exception, match=r"onyl|figure|integer"):
        parse(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_of_a_page_exists_with_its_options(page: Path) -> None:
    for script, options in SCRIPT.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / script).is_file(), script
        source = (ROOT / script).read_text(encoding="utf-8")
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", options):
            assert f'"{option}"' in source, f"{script} has no {option}"
