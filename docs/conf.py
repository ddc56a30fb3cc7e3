"""The documentation site: `nox -s docs` builds it, with warnings as errors."""

from pathlib import Path

import fast_momentum

project = "fast_momentum"
author = "The fast_momentum developers"
copyright = "the fast_momentum developers"
version = release = fast_momentum.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
]
default_role = "py:obj"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_title = "fast_momentum"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# Beside a page in a folder stands the list of the folder; its own sections are few, and code needs the room.
html_sidebars: dict[str, list[str]] = {path.stem: [] for path in Path(__file__).parent.glob("*.md")}
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "fast_momentum"},
    "navbar_align": "left",
    "show_prev_next": False,
    "secondary_sidebar_items": {"*": ["page-toc"], "howto/*": [], "porting/*": [], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 9,
}
