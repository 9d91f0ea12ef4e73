"""The site of these pages and of the docstrings: deploy/site.sh builds it, offline."""

import re

import bigbox

project, author = "bigbox", "the developers of bigbox"
version = release = bigbox.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"bigbox {version}"
html_copy_source = html_show_sourcelink = False
nb_execution_mode = "off"  # the notebook comes executed, and a test executes it again
myst_heading_anchors = 3
autodoc_typehints = "none"  # editors show them, and mypy
autodoc_member_order = "bysource"
napoleon_numpy_docstring, napoleon_google_docstring = True, False
napoleon_use_param = napoleon_use_rtype = False
suppress_warnings = ["myst.xref_missing_file_download"]


def as_numpydoc(app, what, name, obj, options, lines):
    """Put what follows "name :" on a line of its own, where numpydoc has the description."""
    inside = False
    out = []
    for at, line in enumerate(lines):
        line = re.sub(r"\|(\w+)\|", r"\\|\1\\|", line)  # |k| is no substitution
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if set(following.strip()) == {"-"} and following.strip():
            inside = line.strip() == "Parameters"
        named = re.fullmatch(r"([\w*][\w*, ]*) : (.+)", line)
        if inside and named:
            out += [named[1], f"    {named[2]}"]
        else:
            out.append(line)
    lines[:] = out


def downloads(app, name, source):
    """Have a link to a page of the checkout that is none of the site fetch its text."""
    link = r"\[([^\]`]+)\]\(((?:\.\./){2,}[^)#]+\.md)(?:#[^)]*)?\)"
    source[0] = re.sub(link, r"{download}`\1 <\2>`", source[0])


def setup(app):
    """Hook into the reading of pages, and into autodoc before napoleon."""
    app.connect("source-read", downloads)
    app.connect("autodoc-process-docstring", as_numpydoc, priority=400)
