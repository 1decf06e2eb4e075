# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber env`, and the front page of `remamber`, which must not wait for PyTorch."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from remamber_hf import cpu_scan
from remamber_hf.cli import main as cli
from remamber_hf.inference.environment import describe_environment
from remamber_hf.selective_scan import BACKENDS, fastest_backend


PAGE = Path(__file__).parents[2] / "docs" / "backends.md"


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
