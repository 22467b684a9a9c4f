"""Directives that make the reference from the code: `api`, `analyses`, `command-line` and `kernels`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import chain
from pkgutil import iter_modules
from types import ModuleType
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

_logger = logging.getLogger(__name__)


class Generated(SphinxDirective):
    """A directive whose content is Markdown that it makes itself."""

    def markdown(self) -> str:
        """The text."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the text in place; its headings become sections of the page. What is not below one of its
        headings would come after them."""
        return self.parse_text_to_nodes(self.markdown(), allow_section_headings=True)


class CommandLine(Generated):
    """Every command and option, by typer's own generator."""

    def markdown(self) -> str:
        """One section for each command."""
        from typer.cli import get_docs_for_click
        from typer.main import get_command

        from bendscape.sweep.commands.cli import app, load_commands

        load_commands()
        group = get_command(app)
        context = group.make_context("bendscape", [], resilient_parsing=True)
        text = get_docs_for_click(obj=group, ctx=context, name="bendscape")
        return f"#{text}"  # its own heading is below that of the page


class Kernels(Generated):
    """Every installed kernel: the tables that `bendscape kernels` prints."""

    def markdown(self) -> str:
        """One section for each kernel."""
        from bendscape.sweep.campaign.loading import load_kernels
        from bendscape.sweep.commands.kernels import describe, tables

        lines = []
        for name, kernel in load_kernels(()).items():
            document: dict[str, Any] = describe(kernel)  # type: ignore[arg-type]
            lines += [f"## {name}", f"Version {document['version']}."]
            lines += ["\n".join(_table(rows)) for rows in tables(document)]
        return "\n\n".join(lines)


def _table(rows: list[dict[str, str]]) -> Iterator[str]:
    yield _row(rows[0])
    yield _row(["---"] * len(rows[0]))
    for row in rows:
        first, *others = row.values()
        yield _row([f"`{first}`", *map(_escaped, others)])


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    # Code between backticks stays as it is.
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_$<|\[])", r"\\\1", part) for part in parts)


class Api(Generated):
    """The public names of modules: those in `__all__`, or the classes and functions that a module defines.

    Each line of the content is a module, or a package without `__all__`, which stands for its modules; names
    after a colon are those to be documented. `:of:` keeps what is defined in one folder of the modules.
    """

    has_content = True
    option_spec: ClassVar = {"of": directives.unchanged}

    def markdown(self) -> str:
        """RST for autodoc, inside fences."""
        found = []
        for line in self.content:
            dotted, _, only = line.partition(":")
            module = import_module(dotted.strip())
            whole = only.split() or hasattr(module, "__all__") or not hasattr(module, "__path__")
            for one in [module] if whole else _modules(module):
                found.append(self._documented(one, only.split()))
        return "\n\n".join(found)

    def _documented(self, module: ModuleType, only: list[str]) -> str:
        of = f"{module.__name__}.{self.options['of']}" if "of" in self.options else module.__name__
        kept = [(name, _home(module, name)) for name in only or _public(module)]
        entries = [
            _entry(module, name, home) for name, home in kept if only or f"{home}.".startswith(f"{of}.")
        ]
        return _rst([f".. py:currentmodule:: {module.__name__}", "", *chain.from_iterable(entries)])


class Analyses(Generated):
    """Every installed analysis: what it needs, and the function."""

    def markdown(self) -> str:
        """One section for each."""
        from bendscape.analysis.dataset.analyses import describe_analyses, load_analysis

        lines = []
        for row in describe_analyses():
            estimate = load_analysis(row["name"]).estimate
            lines += [f"### {row['name']}", f"Reads {', '.join(f'`{one}`' for one in row['variables'])}."]
            lines.append(_rst(_entry(import_module(estimate.__module__), estimate.__name__, "")))
        return "\n\n".join(lines)


def _rst(lines: Iterable[str]) -> str:
    return "\n".join(["````{eval-rst}", *lines, "````"])


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in iter_modules(package.__path__, f"{package.__name__}."):
        yield import_module(found.name)


def _public(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = [
        name
        for name, of in vars(module).items()
        if getattr(of, "__module__", "") == module.__name__ and (inspect.isclass(of) or inspect.isroutine(of))
    ]
    return [name for name in own if not name.startswith("_")]


def _home(module: ModuleType, name: str) -> str:
    """The module in which a public name is defined."""
    of = getattr(module, name)
    if inspect.isclass(of) or inspect.isroutine(of):
        return str(of.__module__)
    # A constant does not know its module; a package that loads its names on first use does.
    exported = getattr(module, "_MODULE", {})
    return f"{module.__name__}.{exported[name]}" if name in exported else module.__name__


def _entry(module: ModuleType, name: str, home: str) -> list[str]:
    of, full = getattr(module, name), f"{module.__name__}.{name}"
    if inspect.isclass(of):
        return [
            f".. autoclass:: {full}",
            "   :members:",
            "   :exclude-members: model_config, model_post_init",
            "",
        ]
    if inspect.isroutine(of):
        return [f".. autofunction:: {full}", ""]
    # A constant is documented below its definition, which need not be in the module that exports it.
    words = ModuleAnalyzer.for_module(home).find_attr_docs().get(("", name), [])
    return [f".. py:data:: {name}", f"   :value: {of!r}", "", *(f"   {line}" for line in words), ""]


def _as_rst(app: Sphinx, what: str, name: str, of: object, options: Any, lines: list[str]) -> None:
    """Docstrings in RST: bars are moduli, |x|, not substitutions; what is indented is a formula or code."""
    found: list[str] = []
    last = ""  # the line before that is not blank
    around: int | None = None  # in a literal block: the indentation of the text around it
    for line in lines:
        if line.strip():
            if around is not None and _indent(line) <= around:
                around = None
            item = last.lstrip().startswith(("- ", "* "))
            if around is None and last and not item and found[-1] == "" and _indent(line) > _indent(last):
                around = _indent(last)
                if not last.endswith("::"):
                    found += [" " * around + "::", ""]
            last = line
        parts = re.split(r"(`[^`]*`)", line) if around is None else []
        bars = [part if part.startswith("`") else part.replace("|", r"\|") for part in parts]
        found.append("".join(bars) if parts else line)
    lines[:] = found


def _dashes(app: Sphinx, what: str, name: str, of: object, options: Any, lines: list[str]) -> None:
    """Dashes after the names of parameters; everywhere else two hyphens are those of an option."""
    lines[:] = [re.sub(r"(?<=[*)]) -- ", " – ", line, count=1) for line in lines]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _skip_fields(app: Sphinx, what: str, name: str, of: object, skip: bool, options: Any) -> bool | None:
    """Fields of a named tuple are in its signature; Python's own words for them say nothing."""
    return True if type(of).__name__ == "_tuplegetter" else None


def _signature(
    app: Sphinx, what: str, name: str, of: object, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """A default that is no expression, such as `<factory>`, would keep Sphinx from reading the signature."""
    return signature and re.sub(r"<\w[^<>]*>", "...", signature), returns


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """A reference to a name of ours that is documented under the name by which users import it."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target:
        return None
    known = env.domains.python_domain.objects
    last = target.rsplit(".", 1)[-1]
    found = [full for full in known if full.rsplit(".", 1)[-1] == last]
    if len(found) == 1 and _object(found[0]) is _object(target, found[0]):
        entry = known[found[0]]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, found[0])
    if target.startswith("bendscape.") and _object(target) is None:
        _logger.warning("%s does not exist", target, location=node, type="ref")
    return None


def _object(dotted: str, or_else: str = "") -> object:
    """What a dotted name stands for; a bare name stands for `or_else`; None if there is nothing."""
    parts = (dotted if "." in dotted or not or_else else or_else).split(".")
    for length in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:length])
        try:
            found: object = sys.modules.get(name) or import_module(name)
        except ImportError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("api", Api)
    app.add_directive("analyses", Analyses)
    app.add_directive("command-line", CommandLine)
    app.add_directive("kernels", Kernels)
    app.connect("autodoc-process-docstring", _as_rst, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", _dashes, priority=600)  # after napoleon
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip_fields)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
