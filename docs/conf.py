# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
The site that `make docs` builds in build/site: this repository's Markdown pages, and the API from the docstrings.

Sphinx, MyST and Furo, and not MkDocs: version 1 of that and Material for MkDocs come to their end in 2026, and of
their successors Zensical has a preliminary API reference only. The sources are read from the root of the repository,
so that a link to a page, or to any file, is the same there and here. A page fetches nothing from elsewhere.
"""

import shutil
import sys
from importlib.metadata import version as installed_version
from pathlib import Path


ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from docstrings import list_arguments, to_rst  # noqa: E402


# What the side bar shows, by its headings. The front page is README.md.
NAVIGATION = {
    "Use": [
        "docs/README",
        "docs/segment",
        "docs/pipeline",
        "docs/explain",
        "docs/convert",
        "docs/vim",
        "space/README",
    ],
    "Train and measure": [
        "docs/data",
        "docs/from_coco",
        "docs/compose",
        "docs/training",
        "docs/generalized",
        "docs/fusion",
        "docs/idioms",
        "docs/evaluation",
        "docs/paper",
        "docs/profile",
        "remamber_hf/evaluation/referring_iou/README",
    ],
    "Machine": ["docs/backends", "docs/gpu", "benchmarks/README"],
    "API": [
        "docs/api/config",
        "docs/api/models",
        "docs/api/outputs",
        "docs/api/processor",
        "docs/api/pipeline",
        "docs/api/scan",
        "docs/api/data",
        "docs/api/training",
        "docs/api/evaluation",
        "docs/api/inference",
    ],
    "Project": ["remamber_hf/checkpoints/shapes/README", "CHANGELOG", "CONTRIBUTING", "SECURITY", "RELEASING"],
}
# Below benchmarks/README.
BENCHMARKS = ["scan", "scan_vim", "model", "sizes", "vim", "training", "data", "ablation", "coverage"]

project = "remamber_hf"
author = "The remamber_hf authors"
project_copyright = f"2026 {author}"
version = release = installed_version("remamber_hf")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["README.md", "docs/*.md", "docs/api/*.md", "benchmarks/*.md"]
include_patterns += [f"{page}.md" for pages in NAVIGATION.values() for page in pages]
exclude_patterns = [".*", "build", "tests"]

myst_heading_anchors = 3  # levels that a link may name, as on GitHub

autodoc_default_options = {"exclude-members": "config_class, validate"}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # what transformers' classes say of themselves, transformers' site says
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
add_module_names = False
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
default_role = "code"  # docstrings write code between single backticks
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"remamber_hf {release}"
html_copy_source = False
html_show_sphinx = False
smartquotes_action = "D"  # what Sphinx writes as --; quotation marks stay those of the source
highlight_language = "none"  # of blocks that name none
pygments_style = "friendly"
pygments_dark_style = "monokai"


def toctree(pages: list[str], options: str = "") -> str:
    lines = "\n".join(f"/{page}" for page in pages)
    return f"\n```{{toctree}}\n:hidden:\n{options}\n{lines}\n```\n"


def add_navigation(app, page: str, source: list[str]):
    """Has the pages that others lie below name them, out of sight: the Markdown files stay plain Markdown."""
    if page == root_doc:
        source[0] += "".join(toctree(pages, f":caption: {caption}\n") for caption, pages in NAVIGATION.items())
    if page == "benchmarks/README":
        source[0] += toctree([f"benchmarks/{name}" for name in BENCHMARKS])


def convert_docstring(app, what: str, name: str, made: object, options, lines: list[str]):
    lines[:] = [*to_rst(lines), *list_arguments(made)]


def copy_front_page(app, error: Exception | None):
    if error is None and app.builder.name == "html":
        shutil.copyfile(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app):
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-docstring", convert_docstring, priority=400)  # before napoleon
    app.connect("build-finished", copy_front_page)
