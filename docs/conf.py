"""The documentation site: `nox -s docs` builds it, with warnings as errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import latex2mathml.converter
from docutils import nodes
from sphinx_gallery.sorting import ExplicitOrder

import fast_momentum

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import still

os.environ.setdefault("KERAS_BACKEND", "jax")  # without it, Keras wants TensorFlow

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx

project = "fast_momentum"
author = "The fast_momentum developers"
copyright = "the fast_momentum developers"
version = release = fast_momentum.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
default_role = "py:obj"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings have them in words
numpydoc_show_class_members = False

# In the order of the story that "Why momentum works" tells.
EXPERIMENTS = [
    "worked_example",
    "ravine",
    "saddle_chain",
    "low_pass",
    "condition_number",
    "peak_effect",
    "rate_map",
    "path_colouring",
    "continuous_limit",
    "escape",
    "two_phases",
    "nesterov_noise",
    "changing_lr",
    "adam_steps",
    "adam_eps",
    "adam_ravine",
    "low_precision",
    "momentum_map",
    "digits_momentum",
    "convex_rates",
    "accelerated",
    "root_locus",
    "early_stopping",
    "games",
    "saddle_counts",
    "initialisation",
    "linear_svm",
    "logistic_regression",
    "bandit",
    "ptychography",
    "deblurring",
    "sparse_regression",
    "skip_gram",
]
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": "train_digits",  # not an experiment, and it takes long
    "within_subsection_order": ExplicitOrder([f"{name}.py" for name in EXPERIMENTS]),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "image_srcset": ["2x"],
    "min_reported_time": 3600,  # seconds: never
    "show_signature": False,
    "write_computation_times": False,
}

html_math_renderer = "mathml"

html_theme = "pydata_sphinx_theme"
html_title = "fast_momentum"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/logo.svg"
# Beside a page stands the list of its neighbours; its own sections only where they are many, as code needs the room.
html_sidebars: dict[str, list[str]] = {"index": []}
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "fast_momentum", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg"},
    "navbar_align": "left",
    "show_prev_next": False,
    "secondary_sidebar_items": {
        "*": ["page-toc"],
        "howto/*": [],
        "porting/*": [],
        "gallery/*": [],
        **{
            page: []
            for page in ("index", "tutorial", "install", "rules", "forms", "family", "theory/movable")
        },
    },
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 6,
}


def mathml(display: str) -> Callable[[Any, nodes.Element], None]:
    """What writes a formula as MathML: browsers draw it, and a page loads nothing from elsewhere."""

    def visit(writer: Any, node: nodes.Element) -> None:
        formula = latex2mathml.converter.convert(node.astext(), display=display)
        writer.body.append(f'<div class="math">{formula}</div>' if display == "block" else formula)
        raise nodes.SkipNode

    return visit


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", lambda _: still.save(HERE / "_static" / "ravine.svg"))
    app.add_html_math_renderer("mathml", (mathml("inline"), None), (mathml("block"), None))
