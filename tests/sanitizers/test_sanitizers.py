# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The C++ kernel under address, undefined-behaviour and thread sanitizers, each library that this processor runs."""

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import setuptools

from remamber_hf import cpu_scan


pytestmark = pytest.mark.slow

DRIVER = Path(__file__).parent / "driver.cpp"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
SANITIZERS = {"address": "-fsanitize=address,undefined", "thread": "-fsanitize=thread"}


@pytest.fixture(params=cpu_scan.library_names())
def build(request, tmp_path, monkeypatch):
    """Builds the driver for one library's instructions with a sanitizer, and returns its path."""
    if not COMPILER:
        pytest.skip("no C++ compiler was found; the environment variable CXX names one")
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    variants = runpy.run_path(str(DRIVER.parents[2] / "setup.py"))["VARIANTS"]

    def compile_driver(sanitizer: str) -> Path:
        program = tmp_path / "driver"
        flags = ["-std=c++17", "-O1", "-g", "-pthread", "-fno-sanitize-recover=all", SANITIZERS[sanitizer]]
        command = [COMPILER, *flags, *variants[request.param.removeprefix("_scan_")], str(DRIVER), "-o", str(program)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return program

    return compile_driver


def run(*command) -> subprocess.CompletedProcess:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_no_shape_makes_a_sanitizer_report(sanitizer, build):
    result = run(build(sanitizer))
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout == "4752 cases\n"
    assert result.stderr == ""


def test_a_tensor_that_is_too_short_is_reported(build):
    result = run(build("address"), "short")
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr
