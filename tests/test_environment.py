# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber env`, and the front page of `remamber`, which must not wait for PyTorch."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import remamber_hf
from remamber_hf import cli, cpu_scan
from remamber_hf.environment import describe_environment
from remamber_hf.selective_scan import BACKENDS, fastest_backend


PAGE = Path(__file__).parent.parent / "docs" / "backends.md"
COMMAND = Path(remamber_hf.__file__).parents[1] / "remamber_command.py"


@pytest.fixture
def no_library(monkeypatch, tmp_path):
    """No library of the C++ kernel is built; what was found out before is forgotten, and forgotten again after."""
    monkeypatch.setattr(cpu_scan, "FOLDER", tmp_path)
    monkeypatch.delenv(cpu_scan.KERNEL_VARIABLE, raising=False)
    cpu_scan.load_library.cache_clear()
    yield
    cpu_scan.load_library.cache_clear()


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def run(*arguments) -> str:
    result = CliRunner().invoke(cli.app, ["env", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_backend_is_listed_with_the_reason_that_the_scan_gives():
    backends = describe_environment()["backends"]
    assert list(backends) == list(BACKENDS)
    for name, backend in BACKENDS.items():
        assert backends[name]["why_not"].endswith(backend.why_not(torch.device(backend.device_type or "cpu"))), name
    assert not backends["torch"]["why_not"] and not backends["reference"]["why_not"]


def test_a_kernel_of_the_hub_is_shown_and_not_fetched(tmp_path, monkeypatch, no_cuda):
    (tmp_path / "kernels-0.17.2.dist-info").mkdir()
    (tmp_path / "kernels-0.17.2.dist-info" / "METADATA").write_text("Name: kernels\nVersion: 0.17.2\n")
    (tmp_path / "kernels.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    environment = describe_environment()
    assert environment["backends"]["kernels"]["why_not"] == "PyTorch finds no CUDA device here"
    assert environment["versions"]["kernels"] == "0.17.2"
    assert environment["auto"]["cuda, float32"] == "kernels"
    assert "kernels" not in sys.modules


def test_what_auto_takes_is_what_the_scan_takes():
    auto = describe_environment()["auto"]
    assert auto["cpu, float32"] == auto["cpu, bfloat16"] == fastest_backend("cpu")[0]
    assert auto["cpu, float64"] == auto["mps, float32"] == "torch"
    assert fastest_backend("cuda", torch.float64) == ("torch", "")  # mamba-ssm's kernel has float32 only


def test_json_is_one_object_and_all_that_is_known():
    assert json.loads(run("--json")) == describe_environment()
    assert json.loads(run("--json"))["versions"]["torch"] == torch.__version__


def test_a_missing_kernel_is_said_with_its_command_on_one_line(no_library, no_cuda):
    environment = describe_environment()
    assert environment["machine"]["scan_library"] is None
    assert environment["auto"]["cpu, float32"] == "torch"
    lines = run().splitlines()
    (cpu,) = (line for line in lines if line.startswith("cpu cannot run: "))
    assert cpu.endswith(f"build it with: {cpu_scan.INSTALL}")
    (mamba_ssm,) = (line for line in lines if line.startswith("mamba_ssm cannot run: "))
    assert "PyTorch finds no CUDA device here" in mamba_ssm


def test_the_tables_name_versions_processor_and_choice(no_cuda):
    output = run()
    environment = describe_environment()
    for text in (
        torch.__version__,
        environment["machine"]["vector_instructions"],
        "CUDA   │ float32  │ torch (no such",
    ):
        assert text in output


def test_the_snippets_of_the_page_on_backends_run():
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        exec(compile(snippet, PAGE.name, "exec"), names)
    assert names["model"].is_folded


def test_the_page_on_backends_has_every_backend():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert rows == ["auto", *BACKENDS]


# ------------------------------------------------------------------------------------------------------ the front page
@pytest.fixture
def front():
    spec = importlib.util.spec_from_file_location("remamber_command", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_version_and_help_do_not_import_pytorch(argument):
    code = (
        "import atexit, runpy, sys\n"
        f"sys.argv = ['remamber', {argument!r}]\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'transformers' in sys.modules))\n"
        f"runpy.run_path({str(COMMAND)!r}, run_name='__main__')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    *output, imported = result.stdout.splitlines()
    assert imported == "False False"
    if argument == "--version":
        assert output == [f"remamber_hf {version('remamber_hf')}"]


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "1000")])
def test_threads_wait_without_spinning_unless_the_user_says_how(front, monkeypatch, name, value):
    seen = {}

    def import_and_run(*args):
        seen.update({name: os.environ.get(name) for name in front.SETS_WAITING})

    for variable in front.SETS_WAITING:
        monkeypatch.setenv(variable, "")  # so that it is as before after the test
        monkeypatch.delenv(variable)
    if name != "OMP_WAIT_POLICY":
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["remamber", "env"])
    monkeypatch.setattr("remamber_hf.cli.main", import_and_run)
    front.main()
    assert seen[name] == value and sum(seen[variable] is not None for variable in front.SETS_WAITING) == 1


def test_the_front_page_says_of_each_command_what_it_says_itself(front):
    commands = typer.main.get_command(cli.app).commands
    assert {name: command.get_short_help_str(1000) for name, command in commands.items()} == front.COMMANDS


def test_every_other_argument_goes_to_the_commands(front, monkeypatch):
    calls = []
    monkeypatch.setattr(cli, "main", lambda: calls.append(sys.argv[1:]))
    for arguments in (["env", "--json"], ["segment", "--help"]):
        monkeypatch.setattr(sys, "argv", ["remamber", *arguments])
        front.main()
    assert calls == [["env", "--json"], ["segment", "--help"]]
