# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""docs/data.md: every snippet that needs no archive runs, in order, in an empty folder."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import datasets
import typer
from refer_readers import GRefer, Refer, rela_mask
from typer.testing import CliRunner

from remamber_hf.cli.main import DATA_COMMANDS


PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def test_the_snippets_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    app = typer.Typer()
    for name, command in DATA_COMMANDS.items():
        app.command(name)(getattr(import_module(f"remamber_hf.cli.{command.module}"), command.function))
    namespace = {}
    snippets = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(snippets) >= 7
    for language, code in snippets:
        if language == "python":
            exec(compile(code, str(PAGE), "exec"), namespace)
            continue
        for line in code.splitlines():
            remamber, data, *arguments = shlex.split(line)
            assert (remamber, data) == ("remamber", "data")
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, (line, result.output, result.exception)
    assert all((tmp_path / name).is_file() for name in ("shapes.png", "scenes.png", "own.png", "exported/README.md"))
    for_lavt, for_rela = tmp_path / "for_lavt", tmp_path / "for_rela"
    assert [ref["split"] for ref in Refer(for_lavt, "refcoco", "unc").refs.values()] == ["train", "val"]
    rela = GRefer(for_rela, "grefcoco", "unc")
    masks = [rela_mask(rela, ref) for ref in rela.refs.values()]
    assert {mask.any() for mask in masks} == {True, False}
