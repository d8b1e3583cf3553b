"""Sphinx configuration: `sh run docs` builds docs/_build/html with warnings as errors."""

import re

import aejax

project = "aejax"
author = "the aejax authors"
copyright = "the aejax authors, Apache-2.0"
version = release = aejax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
default_role = "code"  # single backticks in docstrings are code, as in Markdown
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "mystnb.unknown_mime_type"]

nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600

autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "setup"}  # Flax's, documented there
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "sphinx_book_theme"
html_title = "aejax"
html_static_path = ["_static"]
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
}
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True


def plain_text(app, what, name, obj, options, lines):
    """Docstrings are plain text with code in backticks: an indented block after a blank line is a
    drawing or a command, printed as it is; bars and lone stars elsewhere are no markup."""
    text, is_literal, paragraph = [], False, ""
    for i, line in enumerate(lines):
        if line.strip():
            begins = line.startswith("    ") and i > 0 and not lines[i - 1].strip()
            if begins and not is_literal and not paragraph.endswith("::"):
                text += ["::", ""]
            is_literal = line.startswith("    ") and (is_literal or begins)
            paragraph = line
        if not is_literal:
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [escaped(part) for part in parts[::2]]
            line = "".join(parts)
        text.append(line)
    lines[:] = text


def escaped(text):
    """Bars, and stars that are not those of *emphasis*, as reStructuredText prints them."""
    is_emphasis = text.count("*") % 2 == 0 and "**" not in text
    return re.sub(r"\|" if is_emphasis else r"[|*]", r"\\\g<0>", text)


def setup(app):
    app.connect("autodoc-process-docstring", plain_text, priority=400)  # before napoleon
