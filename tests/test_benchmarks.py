# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: their quick runs work. What they measure is not looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remamber_hf import cpu_scan


pytestmark = pytest.mark.skipif(cpu_scan.load_library()[0] is None, reason=cpu_scan.load_library()[1])

FOLDER = Path(__file__).parent.parent / "benchmarks"


def run_quick(name: str, folder: Path) -> dict:
    """The JSON report of a benchmark's quick run on one thread."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--quick", "--threads", "1", "--output_dir", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert (folder / f"{name}.md").read_text().count("its figures mean nothing") == 1
    return json.loads((folder / f"{name}.json").read_text())


def all_rows(report: dict, *sections: str) -> list[dict]:
    return [row for run in report["runs"] for section in sections for row in run[section]]


def test_every_version_of_the_scan_passes_its_check_and_is_timed(tmp_path):
    report = run_quick("scan", tmp_path)
    rows = all_rows(report, "rows")
    assert {(row["operation"], row["states"]) for row in rows} == {
        (operation, states) for operation in ("core", "scan") for states in (1, 16)
    }
    for row in rows:
        assert row["milliseconds"].keys() == row["differences"].keys() >= {"cpu", "torch"}, row
    assert all(row["differences"].keys() >= {"reference", "plain recurrence", "transformers"} for row in rows[:2])


def test_every_version_of_the_model_passes_its_check_and_is_timed(tmp_path):
    report = run_quick("model", tmp_path)
    for row in all_rows(report, "heads", "training"):
        assert row["milliseconds"].keys() == row["differences"].keys() >= {"cpu", "torch", "reference"}, row
    assert all(bar["reached"] is not None for bar in report["bars"])


def test_every_size_is_timed_and_drawn(tmp_path):
    report = run_quick("sizes", tmp_path)
    assert {(point["model"], point["side"]) for point in report["sizes"]} == {
        (model, side) for model in ("conv", "mamba", "clipseg") for side in report["sides"]
    }
    assert (tmp_path / "sizes.png").stat().st_size > 0
    assert all(bar["reached"] is not None for bar in report["bars"])
