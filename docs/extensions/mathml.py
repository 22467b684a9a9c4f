"""Formulas as MathML, which browsers draw by themselves: no script, no network.

A formula that cannot be converted is a warning, so it fails a build that takes warnings for errors.
"""

from __future__ import annotations

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

_logger = logging.getLogger(__name__)
_converter = LatexToMathML(fancy_error=False)


def _mathml(node: nodes.Element, *, display: bool) -> str:
    try:
        return _converter.convert_with_local_state(node.astext(), displaystyle=display)
    except LatexError as error:
        _logger.warning("cannot convert the formula %r: %s", node.astext(), error, location=node, type="math")
        return ""


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(_mathml(node, display=False))
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math-block">{_mathml(node, display=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer `mathml`."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
