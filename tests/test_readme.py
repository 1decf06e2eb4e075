# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the front page shows is true."""

import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[snippet.splitlines()[0] for snippet in SNIPPETS])
def test_python_snippets_run(snippet, monkeypatch):
    code = compile(snippet, "README.md", "exec")
    if snippet.startswith("# needs"):
        pytest.skip(f"the snippet {snippet.splitlines()[0][2:]}")
    monkeypatch.chdir(ROOT)
    exec(code, {})


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_two_commands_and_make_targets_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert {"demo", "test"} <= shown <= targets
