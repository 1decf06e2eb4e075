# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""docs/paper.md as its reader runs it, which is slow; and without its trainings, on results that stand for theirs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_runs import run
from typer.testing import CliRunner

import remamber_hf
from remamber_hf.cli.main import app


PAGE = (Path(__file__).parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def check(folder: Path, compared: str) -> None:
    lines = [line.split("|") for line in compared.splitlines() if line.startswith("| shapes (unc) | val")]
    assert [line[6].strip() for line in lines[:4]] == ["frozen", "frozen", "all", "all"]
    table = (folder / "table.tex").read_text()
    assert table.startswith(r"\begin{tabular}{llllrrr}") and table.count("all & full & measured & ") == 2
    assert table.count(r"$\pm$") == 12
    assert (folder / "differ.png").is_file() and (folder / "kinds.csv").is_file()


def test_the_commands_behind_the_trainings_lead_to_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = ""
    for line in "".join(COMMANDS).splitlines():
        if line.startswith("remamber data synthesize"):
            output += invoke(line.replace("--images 800", "--images 60"))
            run(tmp_path / "results" / "before", data_dir=tmp_path / "shapes", save_masks="rle")
            for name in ("all", "frozen"):
                for seed in range(3):
                    shutil.copytree(tmp_path / "results" / "before", tmp_path / "results" / f"{name}-{seed}")
        elif line.startswith(("remamber data check", "remamber compare", "remamber table")):
            output += invoke(line)
    check(tmp_path, output)


def invoke(line: str) -> str:
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, (line, result.output, result.exception)
    return result.stdout


@pytest.mark.slow
def test_the_page_leads_to_its_table(tmp_path):
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "recipe.yaml").write_text(recipe)
    start = f'set -e\nremamber() {{ "{sys.executable}" -m remamber_hf "$@"; }}\n'
    environment = {**os.environ, "PYTHONPATH": str(Path(remamber_hf.__file__).parents[1]), "HF_HOME": str(tmp_path)}
    process = subprocess.run(
        ["bash", "-c", start + "\n".join(COMMANDS)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-3000:]
    check(tmp_path, process.stdout)
    for path in (tmp_path / "results").glob("*/results.json"):
        assert json.loads(path.read_text())["splits"]["val"]["scores"]["oiou"] > 0.88
