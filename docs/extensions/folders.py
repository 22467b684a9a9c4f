"""The folders of the machine that builds the site, shown as a user's: commands in tutorials print them."""

from __future__ import annotations

import os
import re
import sys
import tempfile

from docutils import nodes
from sphinx.application import Sphinx

HOME = "/home/you"
_temporary = re.escape(tempfile.gettempdir())
_SHOWN = (
    (re.escape(os.environ["BENDSCAPE_JOBS"]), f"{HOME}/.local/state/bendscape/jobs"),
    (rf"{_temporary}/tmp\w+", f"{HOME}/sweep"),  # where a tutorial is executed
    (re.escape(sys.executable), f"{HOME}/.venv/bin/python"),
    (re.escape(sys.prefix), f"{HOME}/.venv"),
)


def shown(text: str) -> str:
    """The text with these folders in place of those of this machine."""
    for folder, instead in _SHOWN:
        text = re.sub(folder, instead, text)
    return text


def _replace(app: Sphinx, doctree: nodes.document) -> None:
    for text in list(doctree.findall(nodes.Text)):
        if (instead := shown(text)) != text:
            parent = text.parent
            if isinstance(parent, nodes.literal_block):  # highlighted, if the source is the text
                parent.rawsource = shown(parent.rawsource)
            parent.replace(text, nodes.Text(instead))


def setup(app: Sphinx) -> dict[str, bool]:
    """Replace them in every page, once it is read."""
    app.connect("doctree-read", _replace)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
