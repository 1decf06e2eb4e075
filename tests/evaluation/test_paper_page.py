# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""docs/paper.md, as its reader runs it: with fewer pictures, seeds and steps, and as it stands where it is slow."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import remamber_hf


ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper.md"
SMALL = {"--images 800": "--images 60", "max_steps: 100": "max_steps: 1", "0 1 2": "0 1"}


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_page_leads_to_its_table(tmp_path, is_whole):
    page = PAGE.read_text(encoding="utf-8")
    for old, new in {} if is_whole else SMALL.items():
        assert old in page
        page = page.replace(old, new)
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "recipe.yaml").write_text(recipe)
    commands = re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(commands) >= 6
    start = f'set -e\nremamber() {{ "{sys.executable}" -m remamber_hf "$@"; }}\n'
    environment = {**os.environ, "PYTHONPATH": str(Path(remamber_hf.__file__).parents[1]), "HF_HOME": str(tmp_path)}
    process = subprocess.run(
        ["bash", "-c", start + "\n".join(commands)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-3000:]
    compared = [line for line in process.stdout.splitlines() if line.startswith("| shapes (unc) | val")]
    assert [line.split("|")[6].strip() for line in compared] == ["frozen", "frozen", "all", "all"]
    table = (tmp_path / "table.tex").read_text()
    assert table.startswith(r"\begin{tabular}{llllrrr}") and table.count(r"all & full & measured & ") == 2
    assert table.count(r"$\pm$") == 12
    assert (tmp_path / "differ.png").is_file() and (tmp_path / "kinds.csv").is_file()
    if is_whole:
        for path in (tmp_path / "results").glob("*/results.json"):
            assert json.loads(path.read_text())["splits"]["val"]["scores"]["oiou"] > 0.88
