"""How Sphinx makes the pages: MyST for Markdown, autodoc for the API, warnings as errors by `make docs`."""

from __future__ import annotations

import simopen

project = "simopen"
author = "the simopen authors"
release = version = simopen.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# Options begin with two hyphens, and are to be copied.
smartquotes = False

html_theme = "furo"
html_title = "simopen"
html_show_copyright = False
html_show_sphinx = False
html_static_path: list[str] = []

# Headings can be linked to as on GitHub: `page.md#a-heading`.
myst_heading_anchors = 3

# The docstrings are written for `help()`: one backtick means code.
default_role = "code"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
