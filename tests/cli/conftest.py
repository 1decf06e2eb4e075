# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
from importlib import import_module

import datasets
import pytest
import typer
from typer.testing import CliRunner

from remamber_hf.cli.main import DATA_COMMANDS


@pytest.fixture
def data_command(tmp_path, monkeypatch):
    """`remamber data …`: returns exit code and output; an error that `remamber` says in one line is raised."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    app = typer.Typer()
    for name, command in DATA_COMMANDS.items():
        module = import_module(f"remamber_hf.cli.{command.module}")
        app.command(name)(getattr(module, command.function))

    def call(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call
