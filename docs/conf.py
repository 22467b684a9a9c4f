"""The site: Sphinx with MyST and executed notebooks. `python -m sphinx` and its options: CONTRIBUTING.md.

Nothing in the output is loaded from another host: no fonts, no scripts, no inventories of other projects.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.metadata import version as version_of
from pathlib import Path

from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).parent / "extensions"))
# What tutorials call: the commands of this environment, in plain text.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ |= {"TTY_COMPATIBLE": "0", "COLUMNS": "110"}
# Jobs of a tutorial are neither listed with those of whoever builds the site nor kept.
_jobs = tempfile.TemporaryDirectory(prefix="jobs-")
os.environ["BENDSCAPE_JOBS"] = _jobs.name

project = "bendscape"
author = "The authors of bendscape"
copyright = author
version = release = version_of("bendscape")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "folders", "mathml", "reference"]
root_doc = "index"
exclude_patterns = ["README.md"]  # GitHub's landing page, which index.md includes
smartquotes = False

# Pages are written for GitHub as well: relative links to headings, and formulas in fences called math.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 6
myst_fence_as_directive = ["math"]

nb_execution_mode = "force"
nb_execution_timeout = 900  # seconds for a cell
nb_execution_show_tb = True  # a cell that fails is a warning, and shown
nb_execution_in_temp = True
nb_merge_streams = True
# `%%bash` prints in pieces of 100 bytes; nbclient joins them, myst_nb would break the line after each.
NotebookClient.coalesce_streams = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
default_role = "literal"  # docstrings write code between single backticks
napoleon_google_docstring = False
napoleon_use_param = napoleon_use_rtype = False  # types are words ("array, N x P"), not names to be linked
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
add_module_names = False
toc_object_entries_show_parents = "hide"

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "bendscape"
html_context = {"default_mode": "auto"}  # dark where the browser asks for it
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": False,
    "search_as_you_type": True,
}
