# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import datasets
import pytest
import typer
from typer.testing import CliRunner

from remamber_hf.cli import data as data_commands
from remamber_hf.cli.main import DATA_COMMANDS


@pytest.fixture
def data_command(tmp_path, monkeypatch):
    """`remamber data …`: returns exit code and output; an error that `remamber` says in one line is raised."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    app = typer.Typer()
    for name in DATA_COMMANDS:
        app.command(name)(getattr(data_commands, name))

    def call(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call
