"""The command `remamber` as a person calls it, in a process of its own."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from remamber_hf.segment import BUNDLED_MODEL


EXAMPLE = BUNDLED_MODEL.parent.parent / "examples" / "shapes_1.png"


def remamber(*arguments, cwd) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "remamber_hf.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_segment_writes_overlay_and_masks_and_says_what_it_found(tmp_path):
    run = remamber("segment", EXAMPLE, "the yellow square", "the triangle", "--mask", "mask.png", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    first, second, written = run.stdout.splitlines()
    assert first.startswith("the yellow square: ") and "mean probability 0." in first
    assert second.startswith("the triangle: ")
    assert written == "written: shapes_1_overlay.png, mask_1.png, mask_2.png"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask_1.png", "mask_2.png", "shapes_1_overlay.png"]
    picture = Image.open(EXAMPLE)
    for name in ("mask_1.png", "mask_2.png"):
        mask = Image.open(tmp_path / name)
        assert mask.size == picture.size
        assert set(np.unique(np.asarray(mask.convert("L")))) == {0, 255}
    overlay = Image.open(tmp_path / "shapes_1_overlay.png")
    assert overlay.width == picture.width and overlay.height > picture.height  # the legend is below


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["missing.png", "the dog"], "missing.png"),
        (["empty.png", "the dog"], "empty.png"),
        (["corrupt.jpg", "the dog"], "corrupt.jpg"),
        ([EXAMPLE, " "], "expression 1 is empty"),
        ([EXAMPLE, "the dog", "--model", "."], "is no model"),
        ([EXAMPLE, "the dog", "--threshold", "1.5"], "--threshold is 1.5; it must be in [0, 1]"),
        ([EXAMPLE, "the dog", "--output", "overlay.txt"], "names no picture format"),
    ],
)
def test_bad_input_to_segment_is_one_line_and_status_2_and_writes_nothing(tmp_path, arguments, message):
    (tmp_path / "empty.png").touch()
    (tmp_path / "corrupt.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    before = sorted(tmp_path.iterdir())
    run = remamber("segment", *arguments, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("remamber: error: ") and message in line
    assert sorted(tmp_path.iterdir()) == before


def test_convert_of_a_file_that_is_no_checkpoint_is_one_line_and_status_2(tmp_path):
    (tmp_path / "notes.pth").write_text("no checkpoint")
    run = remamber("convert", "notes.pth", "converted", cwd=tmp_path)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("remamber: error: notes.pth is no readable checkpoint")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.pth"]


def test_train_with_an_unknown_name_in_the_recipe_is_one_line_and_status_2(tmp_path):
    (tmp_path / "recipe.yaml").write_text("learning_rat: 1.0e-3\n")
    run = remamber("train", "recipe.yaml", cwd=tmp_path)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line == "remamber: error: the recipe names learning_rat; `remamber train --help` lists what there is."
