"""The site of these pages and of the docstrings: deploy/site.sh builds it, offline."""

import re
from pathlib import Path

import bigbox

ROOT = Path(__file__).resolve().parents[2]

project, author = "bigbox", "the developers of bigbox"
version = release = bigbox.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"bigbox {version}"
html_copy_source = html_show_sourcelink = False
mathjax_path = ""  # no page has formulas that need it, and the site needs no network
nb_execution_mode = "off"  # the notebook comes executed, and a test executes it again
myst_heading_anchors = 3
autodoc_typehints = "none"  # the signature has them
autodoc_member_order = "bysource"
napoleon_numpy_docstring, napoleon_google_docstring = True, False
napoleon_use_param = napoleon_use_rtype = False
suppress_warnings = ["myst.xref_missing_file_download"]


def as_numpydoc(app, what, name, obj, options, lines):
    """Put what follows "name :" on a line of its own, where numpydoc has the description."""
    inside = False
    out = []
    for at, line in enumerate(lines):
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if set(following.strip()) == {"-"} and following.strip():
            inside = line.strip() == "Parameters"
        named = re.fullmatch(r"([\w*][\w*, ]*) : (.+)", line)
        if inside and named:
            out += [named[1], f"    {named[2]}"]
        else:
            out.append(line)
    lines[:] = out


def setup(app):
    """Hook into autodoc, before napoleon."""
    app.connect("autodoc-process-docstring", as_numpydoc, priority=400)
