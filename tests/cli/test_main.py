# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber` as a person calls it."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

from remamber_hf import cpu_scan
from remamber_hf.cli import main as cli
from remamber_hf.inference.loading import BUNDLED_MODEL, BUNDLED_PICTURES


EXAMPLE = BUNDLED_PICTURES / "shapes_1.png"


@pytest.fixture
def remamber(tmp_path, monkeypatch, capfd):
    """Calls the command in `tmp_path`: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["remamber", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capfd.readouterr()

    return call


def test_segment_in_a_process_of_its_own_writes_overlay_and_masks_and_says_what_it_found(tmp_path):
    command = [
        sys.executable,
        "-m",
        "remamber_hf",
        "segment",
        str(EXAMPLE),
        "the yellow square",
        "the triangle",
    ]
    run = subprocess.run([*command, "--mask", "mask.png"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    is_slow = cpu_scan.load_library()[0] is None  # which is said, in one line
    assert run.stderr.count("\n") == is_slow, run.stderr
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
        ([EXAMPLE, "the dog", "--output", "overlay.txt"], "names no format that fits"),
        ([EXAMPLE, "the dog", "--device", "tpu"], "'tpu' is unknown"),
        ([EXAMPLE, "the dog", "--output", "a.png", "--mask", "a.png"], "is to be written twice"),
        (["m_1.png", "the dog", "the cat", "--mask", "m.png"], "m_1.png is the picture itself"),
        ([EXAMPLE, "the dog", "--model", "cut"], "cut cannot be loaded"),
        ([EXAMPLE, "the dog", "--output", "empty.png/a.png"], "empty.png is a file where a folder is needed"),
        ([EXAMPLE, "the dog", "--output", "empty.png/b/a.png"], "empty.png is a file where a folder is needed"),
    ],
)
def test_bad_input_to_segment_is_one_line_and_status_2_and_writes_nothing(remamber, tmp_path, arguments, message):
    (tmp_path / "empty.png").touch()
    (tmp_path / "corrupt.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no picture")
    (tmp_path / "m_1.png").write_bytes(EXAMPLE.read_bytes())
    shutil.copytree(BUNDLED_MODEL, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"\x10\x00\x00")
    before = sorted(tmp_path.iterdir())
    status, output, error = remamber("segment", *arguments)
    assert (status, output) == (2, "")
    (line,) = error.splitlines()
    assert line.startswith("remamber: error: ") and message in line
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("mode", ["palette", "grey16", "cmyk", "rotated", "transparent"])
def test_segment_reads_every_kind_of_picture(remamber, tmp_path, mode):
    picture = Image.open(EXAMPLE).convert("RGB").resize((90, 60))
    path, size = tmp_path / "picture.png", (90, 60)
    if mode == "palette":
        picture.quantize(16).save(path)
    elif mode == "grey16":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(path)
    elif mode == "transparent":
        picture.convert("RGBA").save(path)
    else:
        path = tmp_path / "picture.jpg"
        exif = Image.Exif()
        if mode == "rotated":
            exif[0x0112], size = 6, (60, 90)
        picture.convert("CMYK" if mode == "cmyk" else "RGB").save(path, exif=exif)
    status, _, error = remamber("segment", path, "the triangle", "--mask", "mask.png")
    assert (status, error) == (0, "")
    assert Image.open(tmp_path / "mask.png").size == size


def test_an_expression_that_is_too_long_is_said_to_be_cut(remamber):
    status, output, error = remamber("segment", EXAMPLE, "the triangle " * 20)
    assert status == 0 and output
    assert error.startswith(
        "remamber: note: 1 of 1 expressions are cut, of which the model reads 20 tokens; the longest"
    )


def test_expressions_that_are_too_long_are_counted_in_one_line(remamber):
    expressions = [f"the triangle {'left ' * count}" for count in (1, 30, 40)]
    status, _, error = remamber("segment", EXAMPLE, *expressions)
    (line,) = error.splitlines()
    assert status == 0 and "2 of 3 expressions are cut" in line


def test_a_narrow_picture_gives_an_overlay_of_bounded_size(remamber, tmp_path):
    Image.new("RGB", (1, 900)).save(tmp_path / "narrow.png")
    assert remamber("segment", "narrow.png", "the triangle")[0] == 0
    overlay = Image.open(tmp_path / "narrow_overlay.png")
    assert overlay.width == 480 and overlay.height < 2100


def test_convert_of_a_file_that_is_no_checkpoint_is_one_line_and_status_2(remamber, tmp_path):
    (tmp_path / "notes.pth").write_text("no checkpoint")
    status, _, error = remamber("convert", "notes.pth", "converted")
    assert status == 2
    (line,) = error.splitlines()
    assert line.startswith("remamber: error: notes.pth is no readable checkpoint")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.pth"]


def test_train_with_an_unknown_name_in_the_recipe_is_one_line_and_status_2(remamber, tmp_path):
    (tmp_path / "recipe.yaml").write_text("learning_rat: 1.0e-3\n")
    status, _, error = remamber("train", "recipe.yaml")
    assert status == 2
    (line,) = error.splitlines()
    assert line == "remamber: error: recipe.yaml names learning_rat, which is no argument; did you mean learning_rate?"


def test_help_names_every_command(remamber):
    status, output, _ = remamber("--help")
    assert status == 0
    assert all(name in output for name in ("segment", "convert", "train", "data"))


def test_the_bound_on_pixels_is_raised_by_a_variable_for_every_command(monkeypatch, capsys):
    for bound, message in (("200000", "at most 200000 and 65535 a side are read"), ("many", "a whole number above 0")):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
        monkeypatch.setattr(cli, "keep_freed_memory", bool)  # it holds for the whole process
        monkeypatch.setenv("REMAMBER_MAX_PIXELS", bound)
        monkeypatch.setattr(sys, "argv", ["remamber", "segment", str(EXAMPLE), "the square", "--device", "cpu"])
        with pytest.raises(SystemExit) as raised:
            cli.main()
        assert raised.value.code == 2 and message in capsys.readouterr().err


def test_a_picture_of_a_data_set_beyond_the_bound_is_one_line(remamber, monkeypatch, tmp_path):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert remamber("data", "synthesize", "shapes", "--images", 8)[0] == 0
    monkeypatch.setenv("REMAMBER_MAX_PIXELS", "100")
    for command in (["data", "preview", "--data_dir", "shapes"], ["evaluate", "bundled", "--data_dir", "shapes"]):
        status, _, error = remamber(*command)
        assert status == 2 and error.splitlines()[-1].startswith("remamber: error: "), error


# ---------------------------------------------------------------------------------------------- the table of commands
@pytest.mark.parametrize("argument", ["--version", "--help", "data"])
def test_the_pages_are_there_before_pytorch_and_transformers(argument):
    code = (
        "import atexit, runpy, sys\n"
        f"sys.argv = ['remamber', {argument!r}]\n"
        "atexit.register(lambda: print('torch' in sys.modules, 'transformers' in sys.modules))\n"
        "runpy.run_module('remamber_hf', run_name='__main__')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == (2 if argument == "data" else 0), result.stderr
    *output, imported = result.stdout.splitlines()
    assert imported == "False False"
    if argument == "--version":
        assert output == [f"remamber_hf {version('remamber_hf')}"]
    else:
        table = cli.DATA_COMMANDS if argument == "data" else cli.COMMANDS
        assert all(any(f" {name} " in line for line in output) for name in table), result.stdout


@pytest.mark.parametrize("table", [cli.COMMANDS, cli.DATA_COMMANDS], ids=["remamber", "remamber data"])
def test_the_table_says_of_each_command_what_it_says_itself(table):
    said = {name: cli.load(command).get_short_help_str(1000) for name, command in table.items()}
    assert said == {name: command.help for name, command in table.items()}


def test_a_command_imports_no_other(tmp_path):
    code = "import atexit, sys; from remamber_hf.cli import main; sys.argv = ['remamber', 'env', '--json']"
    code += "; atexit.register(lambda: print([name for name in sys.modules], file=sys.stderr)); main.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    modules = result.stderr.splitlines()[-1]
    assert "remamber_hf.inference.environment" in modules
    assert "remamber_hf.training" not in modules and "remamber_hf.data" not in modules


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "1000")])
def test_threads_wait_without_spinning_unless_the_user_says_how(monkeypatch, name, value):
    for variable in cli.SETS_WAITING:
        monkeypatch.setenv(variable, "")  # so that it is as before after the test
        monkeypatch.delenv(variable)
    if name != "OMP_WAIT_POLICY":
        monkeypatch.setenv(name, value)
    cli.load(cli.COMMANDS["env"])
    assert os.environ.get(name) == value and sum(variable in os.environ for variable in cli.SETS_WAITING) == 1


def test_a_command_that_is_not_there_is_refused_with_the_one_most_like_it(remamber):
    status, _, error = remamber("segmnet")
    assert status == 2 and "segment" in error


def test_the_help_of_training_is_that_of_its_arguments(remamber):
    status, output, _ = remamber("train", "--help")
    assert status == 0 and "usage: remamber train" in output and "--ema_decay" in output
