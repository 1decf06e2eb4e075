# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The site that `make docs` builds: it has every page and every public name, and needs nothing from elsewhere."""

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import remamber_hf


ROOT = Path(__file__).parents[1]
DIRECTIVE = re.compile(
    r"^\.\. (automodule|currentmodule|autoclass|autofunction|py:data):: (\S+)(?:\n   :members: (.+))?", re.MULTILINE
)


@pytest.fixture(scope="module")
def settings() -> dict:
    path = list(sys.path)
    try:
        return runpy.run_path(str(ROOT / "docs" / "conf.py"))
    finally:
        sys.path[:] = path


def named_objects() -> list[tuple[str, str]]:
    """Module and name of all that the pages in docs/api ask for."""
    objects = []
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        module = ""
        for directive, target, members in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            if directive in ("autoclass", "autofunction", "py:data"):
                objects.append((module, target))
            else:
                module = target
                objects += [(module, name) for name in members.split(", ") if name]
    return objects


def test_the_side_bar_names_every_page(settings):
    named = {f"{page}.md" for pages in settings["NAVIGATION"].values() for page in pages}
    assert [page for page in sorted(named) if not (ROOT / page).is_file()] == []
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages - named == set()
    assert {f"{name}.md" for name in settings["BENCHMARKS"]} | {"README.md"} == {
        path.name for path in (ROOT / "benchmarks").glob("*.md")
    }


@pytest.mark.parametrize("module, name", named_objects())
def test_what_the_reference_names_is_there(module, name):
    found = getattr(importlib.import_module(module), name)
    assert name.isupper() or found.__module__ == module  # autodoc leaves out what is imported


def test_the_reference_has_every_public_name():
    assert set(remamber_hf.__all__) - {name for _, name in named_objects()} == set()


def test_docstrings_become_what_they_mean(settings):
    docstring = """The data.

    <folder>/file

| column | what |
|---|---|
| `a` | one |

What holds:
- a list, see [`Name`]
  that goes on

loss: a scalar,
    or nothing.
logits: (batch, 1).

Args:
    x: a number.""".splitlines()
    assert "\n".join(settings["to_rst"](docstring)).rstrip() == (
        "The data.\n\n::\n\n        <folder>/file\n\n"
        ".. list-table::\n   :header-rows: 1\n\n   * - column\n     - what\n   * - `a`\n     - one\n\n"
        "What holds:\n\n- a list, see :py:obj:`.Name`\n  that goes on\n\n"
        "- `loss`: a scalar,\n  or nothing.\n- `logits`: (batch, 1).\n\nArgs:\n    x: a number."
    )


def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    for library in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(library, reason=f"{library} is not installed; `make docs` installs it")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "doctrees"]
    run = subprocess.run(
        [*command, "-c", ROOT / "docs", ROOT, tmp_path / "site"], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    front = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert 'src="_images/demo.png"' in front and 'href="docs/api/models.html"' in front
    for page in (tmp_path / "site").rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=\"((?:https?:)?//[^\"]*)", page.read_text()
        )
        assert fetched == [], page.name
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", style.read_text()), style.name
