# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: their quick runs work. What they measure is not looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from remamber_hf import ReMamberConfig, cpu_scan
from remamber_hf.training.recipe import parse_arguments


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
    report = json.loads((tmp_path / "scan_vim.json").read_text())
    rows = all_rows(report, "rows")
    assert [(row["operation"], row["states"]) for row in rows] == [("vim", 16)] * 4
    for row in rows:
        assert row["milliseconds"].keys() == row["differences"].keys() >= {"cpu", "torch"}, row
    assert [bar["asked"] for bar in report["bars"]] == [3] * 4


def test_every_version_of_the_model_passes_its_check_and_is_timed(tmp_path):
    report = run_quick("model", tmp_path)
    for row in all_rows(report, "heads", "training"):
        assert row["milliseconds"].keys() == row["differences"].keys() >= {"cpu", "torch", "reference"}, row
    assert all(bar["reached"] is not None for bar in report["bars"])


def test_vim_is_timed_with_every_scan_and_drawn_at_every_size(tmp_path):
    report = run_quick("vim", tmp_path)
    forward, with_loops, without_loops = report["scans"]
    for row in report["scans"]:
        assert row["milliseconds"].keys() == row["differences"].keys() >= {"cpu", "torch"}, row
    for row in (forward, with_loops):
        assert row["differences"].keys() >= {"plain recurrence", "transformers"}
    assert not without_loops["differences"].keys() & {"plain recurrence", "transformers"}
    for row in report["parts"]:
        assert all(milliseconds > 0 for milliseconds in row["milliseconds"].values()), row
    for row in report["convolution"]:
        assert (
            row["milliseconds"].keys()
            > row["differences"].keys()
            == {"C++ kernel", "F.conv1d", "shifted multiply-adds"}
        ), row
    assert {(point["model"], point["side"]) for point in report["sizes"]} == {
        (model, side) for model in ("vim", "sdpa", "eager") for side in report["sides"]
    }
    assert (tmp_path / "vim.png").stat().st_size > 0


def read_ablation():
    return yaml.safe_load((FOLDER / "ablation.yaml").read_text())


@pytest.mark.parametrize("name", read_ablation()["variants"])
def test_every_variant_of_the_ablation_is_a_recipe_and_a_model(name, tmp_path):
    recipe = read_ablation()["recipe"]
    recipe["model_config"] |= read_ablation()["variants"][name]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "output_dir": str(tmp_path / "run")}))
    model_arguments, _, _, _ = parse_arguments([str(tmp_path / "recipe.yaml")])
    config = ReMamberConfig(**model_arguments.model_config)
    assert config.to_diff_dict().items() >= read_ablation()["variants"][name].items()


@pytest.mark.slow
def test_runs_of_the_ablation_end_in_one_table_and_are_not_repeated(tmp_path):
    command = [sys.executable, str(FOLDER / "ablation.py"), "--quick", "--runs_dir", str(tmp_path / "runs")]
    command += ["--output_dir", str(tmp_path)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for num_trained in (2, 0):
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count(": done after") == num_trained
        report = json.loads((tmp_path / "ablation.json").read_text())
        assert [row["variant"] for row in report["rows"]] == ["twister", "norm_adaptation"]
        assert all(0 <= row["miou"] <= 1 and row["seeds"] == [0] for row in report["rows"])
        assert [step for step, _ in report["runs"]["twister"]["0"]["curve"]] == [1, 2]
        (tmp_path / "ablation.png").unlink()
    recipe = tmp_path / "runs" / "twister-0.yaml"
    recipe.write_text(recipe.read_text().replace("learning_rate: 0.001", "learning_rate: 0.1"))
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 1
    assert result.stderr.strip().endswith(
        "twister-0 is a run of another recipe; delete it or give another --runs_dir."
    )


def test_every_size_is_timed_and_drawn(tmp_path):
    report = run_quick("sizes", tmp_path)
    assert {(point["model"], point["side"]) for point in report["sizes"]} == {
        (model, side) for model in ("conv", "mamba", "clipseg") for side in report["sides"]
    }
    assert (tmp_path / "sizes.png").stat().st_size > 0
    assert all(bar["reached"] is not None for bar in report["bars"])
