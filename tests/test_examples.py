# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts in examples/ run from the command line and say what they reached."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, folder: Path, *options: str) -> dict:
    """The dict that a script prints at its end."""
    command = [sys.executable, str(EXAMPLES / name), "--output_dir", "out", *options]
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return ast.literal_eval(result.stdout.strip().splitlines()[-1])


def test_the_pyramid_trains_and_draws_what_it_sees(tmp_path):
    figures = run("vim_pyramid.py", tmp_path, "--max_steps", "2", "--side", "64", "--eval_scenes", "4")
    classes = ("background", "circle", "square", "triangle", "star")
    assert figures.keys() == {"eval_mean_iou", *(f"eval_iou_{name}" for name in classes)}
    drawn = np.asarray(Image.open(tmp_path / "out" / "predictions.png"))
    assert drawn.shape == (3 * (64 + 4), 4 * (64 + 4), 3)


@pytest.mark.slow
def test_the_pyramid_learns_the_shapes_in_minutes(tmp_path):
    figures = run("vim_pyramid.py", tmp_path)
    assert figures["eval_mean_iou"] > 0.85
