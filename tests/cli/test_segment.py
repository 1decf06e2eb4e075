# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber segment`: what it reads, what it writes, and what it refuses."""

import importlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image, ImageFilter
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from remamber_hf.cli.segment import segment
from remamber_hf.cli.tasks import Task
from remamber_hf.inference.loading import BUNDLED_MODEL, BUNDLED_PICTURES, load_pipeline


ROOT = Path(__file__).parents[2]
EXAMPLE = BUNDLED_PICTURES / "shapes_1.png"
SQUARE, TRIANGLE = "the yellow square", "the triangle"
APP = typer.Typer()
APP.command()(segment)


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(BUNDLED_MODEL, "cpu")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Calls the command in `tmp_path`; a failure that is no exit status is raised."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, **options):
        arguments = [str(argument) for argument in arguments]
        return CliRunner().invoke(APP, [*arguments, "--device", "cpu"], catch_exceptions=False, **options)

    return call


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def mask_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)) > 0


# ------------------------------------------------------------------------------------------------------- what is found
def test_the_bundled_model_finds_the_yellow_square(pipe):
    picture = Image.open(EXAMPLE).convert("RGB")
    found = pipe(picture, SQUARE)
    mask, colours = np.asarray(found["mask"]) > 0, np.asarray(picture, dtype=int)
    is_yellow = (colours[..., 0] > 200) & (colours[..., 1] > 180) & (colours[..., 2] < 100)
    assert (mask & is_yellow).sum() / (mask | is_yellow).sum() > 0.5
    assert 0.5 < found["score"] <= 1


# ------------------------------------------------------------------------------------------------------- many pictures
def test_a_broken_picture_among_many_is_named_and_the_rest_is_written(run, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "c.png"):
        (tmp_path / "photos" / name).write_bytes(EXAMPLE.read_bytes())
    (tmp_path / "photos" / "b.jpg").write_text("no picture")
    (tmp_path / "photos" / "notes.txt").write_text("no picture by its name")
    result = run("photos", "none.png", "-e", SQUARE, "-e", TRIANGLE, "--mask", "masks")
    assert result.exit_code == 1
    note, first, second, last = result.stderr.splitlines()
    assert note == "remamber: note: 1 files left out of photos: notes.txt"
    assert first.startswith("remamber: failed: The picture 'photos/b.jpg' cannot be read")
    assert second.startswith("remamber: failed: There is no file 'none.png'")
    assert last == "remamber: 2 of 4 pictures failed"
    lines = result.stdout.splitlines()
    assert [line.split(": ")[:2] for line in lines[:-1]] == [
        [f"photos/{name}", text] for name in ("a.png", "c.png") for text in (SQUARE, TRIANGLE)
    ]
    assert lines[-1] == "written: 2 in segmented, 4 in masks"
    expected = [f"masks/photos/{name}_mask_{number}.png" for name in "ac" for number in (1, 2)]
    expected += [f"segmented/photos/{name}_overlay.png" for name in "ac"]
    assert [file for file in files_in(tmp_path) if "_" in file] == expected


def test_a_csv_gives_a_json_line_for_each_expression_with_the_mask_the_pipeline_gives(run, tmp_path, pipe):
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "shapes.png").write_bytes(EXAMPLE.read_bytes())
    table = f'file_name,expression,remark\nshapes.png,{SQUARE},\nshapes.png,"{TRIANGLE}","two\nlines"\n'
    (tmp_path / "list" / "wanted.csv").write_text("\ufeff" + table)  # as Excel writes it
    result = run("--from-csv", "list/wanted.csv", "--format", "json")
    assert (result.exit_code, result.stderr) == (0, "")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(record["file_name"], record["expression"]) for record in records] == [
        ("list/shapes.png", SQUARE),
        ("list/shapes.png", TRIANGLE),
    ]
    for record, found in zip(records, pipe(EXAMPLE, [SQUARE, TRIANGLE], return_box=True), strict=True):
        mask = np.asarray(found["mask"]) > 0
        np.testing.assert_array_equal(coco_mask.decode(record["rle"]), mask)
        assert record["area"] == mask.sum() and record["box"] == found["box"]
        assert record["score"] == pytest.approx(found["score"], abs=1e-4)


def test_pictures_keep_their_folders_and_their_ending_where_only_it_tells_them_apart(run, tmp_path):
    for name in ("x/a.png", "y/a.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    result = run("x/a.png", "y/a.png", "-e", TRIANGLE, "--format", "mask", "-o", "masks")
    assert result.exit_code == 0
    assert files_in(tmp_path / "masks") == ["x/a_mask.png", "y/a_mask.png"]
    for name in ("a.jpg", "A_1.png", "a_1.bmp"):
        Image.new("RGB", (32, 32)).save(tmp_path / "x" / name)
    assert run("x", "-e", TRIANGLE).exit_code == 0
    expected = ["A_1.png_overlay.png", "a.jpg_overlay.png", "a.png_overlay.png", "a_1.bmp_overlay.png"]
    assert files_in(tmp_path / "segmented") == expected


def test_what_is_written_about_a_list_stays_in_the_folder(run, tmp_path):
    (tmp_path / "list" / "x").mkdir(parents=True)
    for name in ("p.png", "list/q.png", "list/x/r.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    names = ("x/../../p.png", "q.png", "./x/r.png")
    (tmp_path / "list/wanted.csv").write_text("file_name,expression\n" + "".join(f"{name},a\n" for name in names))
    before = set(files_in(tmp_path))
    assert run("--from-csv", "list/wanted.csv", "-o", "out/deep").exit_code == 0
    new = sorted(set(files_in(tmp_path)) - before)
    assert new == [f"out/deep/{name}_overlay.png" for name in ("list/q", "list/x/r", "p")]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "list").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="linked/list/q_overlay.png leads out of linked by a link"):
        run("--from-csv", "list/wanted.csv", "-o", "linked")
    assert files_in(tmp_path / "elsewhere") == []


def test_a_folder_is_read_for_all_that_pillow_opens_and_the_rest_is_named(run, tmp_path):
    (tmp_path / "photos").mkdir()
    picture = Image.new("RGB", (32, 32))
    for ending, file_format in {"jfif": "JPEG", "jpe": "JPEG", "JP2": "JPEG2000", "png": "PNG", "tga": "TGA"}.items():
        picture.save(tmp_path / "photos" / f"of_{ending}.{ending}", file_format)
    (tmp_path / "photos" / "._a.png").write_bytes(b"of macOS")
    for name in ("notes.txt", "plan.pdf", "a\x1b[31m.doc"):
        (tmp_path / "photos" / name).write_text("no picture")
    result = run("photos", "-e", TRIANGLE)
    assert result.exit_code == 0
    assert len(files_in(tmp_path / "segmented")) == 5
    note = "remamber: note: 3 files left out of photos: a\\x1b[31m.doc, notes.txt, plan.pdf"
    assert result.stderr.splitlines() == [note]


def test_json_lines_are_utf_8_whatever_the_terminal_takes_and_expressions_are_shown_escaped(tmp_path):
    text = "grün 船 \x1b[31m\u202e"
    (tmp_path / "list.csv").write_text(f"file_name,expression\n{EXAMPLE},{text}\n", encoding="utf-8")
    program = "import sys; from remamber_hf.cli.main import main; sys.argv[0] = 'remamber'; main()"
    for encoding in ("cp1252", "ascii", "utf-16"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        command = [
            sys.executable,
            "-c",
            program,
            "segment",
            "--from-csv",
            str(tmp_path / "list.csv"),
            "--device",
            "cpu",
        ]
        found = subprocess.run([*command, "--format", "json"], env=environment, capture_output=True, check=True)
        assert json.loads(found.stdout.decode("utf-8"))["expression"] == text
        if encoding == "ascii":
            command += ["-o", str(tmp_path / "out")]
            shown = subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode("ascii")
            assert "gr\\xfcn \\u8239 \\x1b[31m\\u202e: " in shown and "\x1b" not in shown


def test_an_interrupted_run_goes_on_and_gives_what_an_uninterrupted_one_gives(run, tmp_path, monkeypatch):
    module = importlib.import_module("remamber_hf.cli.segment")
    pictures = [BUNDLED_PICTURES / f"shapes_{number}.png" for number in (1, 2, 3, 5)]
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    arguments = [
        pictures[0],
        broken,
        *pictures[1:],
        "-e",
        SQUARE,
        "-e",
        TRIANGLE,
        "--format",
        "json",
        "--mask",
        "masks",
    ]
    assert run(*arguments, "-o", "whole.jsonl").exit_code == 1
    whole = (tmp_path / "whole.jsonl").read_bytes()
    assert whole.count(b"\n") == 8
    run_task, done = module.run_task, []

    def run_out_of_memory(pipe, task, *thresholds):
        if len(done) == 2:
            raise RuntimeError("out of memory")
        result = run_task(pipe, task, *thresholds)
        done.append(task.source)
        return result

    monkeypatch.setattr(module, "run_task", run_out_of_memory)
    for half in (b'["/a.png", [', b'["a", 1, []]'):
        for settings, expected in (([], 2), (["--threshold", "0.6"], 4), ([], 4)):
            done.clear()
            with pytest.raises(RuntimeError, match="out of memory"):
                run(*arguments, "-o", "part.jsonl")
            unfinished = tmp_path / "part.jsonl.unfinished"
            assert not (tmp_path / "part.jsonl").exists() and unfinished.read_bytes().count(b"\n") == 3
            unfinished.write_bytes(unfinished.read_bytes() + half)
            if settings == [] and expected == 4:  # a picture that has changed since, or whose other files are gone
                for path in (tmp_path / "masks").rglob("*.png"):
                    path.unlink()
            done.clear()
            done.append("")  # two are missing, or all
            monkeypatch.setattr(module, "run_task", lambda *args: done.append(args[1].source) or run_task(*args))
            assert run(*arguments, "-o", "part.jsonl", *settings).exit_code == 1
            assert len(done) == 1 + expected + 1  # and the broken one
            if not settings:
                assert (tmp_path / "part.jsonl").read_bytes() == whole
            assert not unfinished.exists()
            (tmp_path / "part.jsonl").unlink()
            monkeypatch.setattr(module, "run_task", run_out_of_memory)


def test_many_expressions_of_a_picture_go_through_the_model_in_parts(monkeypatch, pipe):
    module = importlib.import_module("remamber_hf.cli.segment")
    sizes = []
    forward = pipe.model.forward
    monkeypatch.setattr(module, "MAX_TOGETHER", 2)
    monkeypatch.setattr(
        pipe.model, "forward", lambda *values, **named: (sizes.append(len(named["input_ids"])), forward(**named))[1]
    )
    texts = [SQUARE, TRIANGLE, "the star"]
    _, results = module.run_task(pipe, Task(str(EXAMPLE), Path("shapes_1"), texts), 0.5, None)
    assert sizes == [2, 1]
    assert [result["expression"] for result in results] == texts


# ------------------------------------------------------------------------------------------------------------- formats
def test_standard_input_and_output_carry_a_picture_and_its_mask(run, tmp_path):
    assert run(EXAMPLE, SQUARE, "--mask", "mask.png").exit_code == 0
    result = run("-", SQUARE, "--format", "mask", "--output", "-", input=EXAMPLE.read_bytes())
    assert result.exit_code == 0
    assert result.stdout_bytes == (tmp_path / "mask.png").read_bytes()
    assert result.stderr.startswith(f"{SQUARE}: ")


def test_a_cutout_shows_the_object_only_and_a_blurred_picture_keeps_it_sharp(run, tmp_path):
    result = run(EXAMPLE, SQUARE, TRIANGLE, "--mask", "m.png", "--cutout", "c.png", "--blur-background", "b.png")
    assert result.stdout.endswith("written: shapes_1_overlay.png, m_1.png, m_2.png, c_1.png, c_2.png, b.png\n")
    picture = np.asarray(Image.open(EXAMPLE).convert("RGB"))
    masks = [mask_of(tmp_path / f"m_{number}.png") for number in (1, 2)]
    for number, mask in enumerate(masks, 1):
        cutout = np.asarray(Image.open(tmp_path / f"c_{number}.png"))
        np.testing.assert_array_equal(cutout[..., 3], 255 * mask)
        np.testing.assert_array_equal(cutout[..., :3], picture * mask[..., None])  # nothing hidden behind it either
    blurred = np.asarray(Image.open(tmp_path / "b.png"), dtype=int)
    changed = np.abs(blurred - picture).max(-1) > 8
    inside = np.asarray(Image.fromarray(masks[0] | masks[1]).convert("L").filter(ImageFilter.MinFilter(9))) > 0
    assert inside.any() and not changed[inside].any()
    assert changed[~masks[0] & ~masks[1]].any()


def test_a_higher_threshold_gives_a_mask_inside_that_of_a_lower_one(run, tmp_path):
    for name, threshold in (("low", 0.2), ("high", 0.8)):
        run(EXAMPLE, TRIANGLE, "--format", "mask", "-o", f"{name}.png", "--threshold", threshold)
    low, high = mask_of(tmp_path / "low.png"), mask_of(tmp_path / "high.png")
    assert (high <= low).all() and high.sum() < low.sum()


def test_an_empty_mask_is_described_without_a_probability(run):
    assert run(EXAMPLE, TRIANGLE, "--threshold", 1).stdout.startswith(f"{TRIANGLE}: nothing found\n")


@pytest.fixture(scope="module")
def presence_model(tmp_path_factory):
    """The bundled model with a head that says 0.03 of everything."""
    folder = tmp_path_factory.mktemp("presence")
    pipe = load_pipeline(BUNDLED_MODEL, "cpu", predicts_presence=True)
    with torch.no_grad():
        pipe.model.presence_head.out_proj.bias.fill_(math.log(0.03 / 0.97))
    pipe.save_pretrained(folder)
    return folder


def test_what_is_not_in_the_picture_is_said_and_has_no_mask(run, tmp_path, presence_model):
    options = ("--model", presence_model)
    result = run(EXAMPLE, TRIANGLE, *options, "--mask", "mask.png")
    assert result.stdout.startswith(f"{TRIANGLE}: not in the picture (presence 0.03)\n")
    assert not mask_of(tmp_path / "mask.png").any()
    record = json.loads(run(EXAMPLE, TRIANGLE, *options, "--format", "json").stdout)
    assert record["presence"] == 0.03 and record["area"] == 0 and record["box"] is None and record["score"] == 0
    result = run(EXAMPLE, TRIANGLE, *options, "--presence_threshold", 0.02)
    assert "mean probability" in result.stdout and "not in the picture" not in result.stdout


def test_without_the_head_nothing_is_said_of_the_presence(run):
    assert "presence" not in run(EXAMPLE, TRIANGLE, "--format", "json").stdout
    with pytest.raises(ValueError, match="--presence_threshold is 0.3, and this model does not say"):
        run(EXAMPLE, TRIANGLE, "--model", BUNDLED_MODEL, "--presence_threshold", 0.3)
    with pytest.raises(ValueError, match=r"--presence_threshold is 2.0; it must be in \[0, 1\]"):
        run(EXAMPLE, TRIANGLE, "--presence-threshold", 2)


def test_half_precision_finds_nearly_the_same(run, tmp_path):
    for dtype in ("float32", "bfloat16"):
        assert run(EXAMPLE, SQUARE, "--format", "mask", "-o", f"{dtype}.png", "--dtype", dtype).exit_code == 0
    assert (mask_of(tmp_path / "float32.png") == mask_of(tmp_path / "bfloat16.png")).mean() > 0.99


# ------------------------------------------------------------------------------------------------- help and completion
def test_help_fits_80_columns_and_shows_every_example_on_a_line_of_its_own(run):
    result = CliRunner().invoke(APP, ["--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    examples = [line.strip() for line in segment.__doc__.splitlines() if "remamber segment " in line]
    assert len(examples) == 5 and set(examples) <= set(lines)


def test_the_shell_completes_the_names_of_devices():
    words = {
        "COMP_WORDS": "segment picture.png dog --device c",
        "COMP_CWORD": "4",
        "_SEGMENT_COMPLETE": "complete_bash",
    }
    assert CliRunner().invoke(APP, [], prog_name="segment", env=words).stdout.split() == ["cpu", "cuda"]


# ----------------------------------------------------------------------------------------------------------- bad input
def test_a_format_that_is_unknown_or_given_twice_is_refused(run):
    with pytest.raises(ValueError, match="--format is 'svg'; use one of overlay, mask, cutout, blur, .*json"):
        run(EXAMPLE, SQUARE, "--format", "svg")
    with pytest.raises(ValueError, match="--format mask goes to --output; leave out the option"):
        run(EXAMPLE, SQUARE, "--format", "mask", "--mask", "m.png")


# ----------------------------------------------------------------------------------------------------- docs/segment.md
def test_the_snippets_of_the_page_run(run, tmp_path):
    page = (ROOT / "docs" / "segment.md").read_text(encoding="utf-8")
    (tmp_path / "remamber_hf").symlink_to(ROOT / "remamber_hf")
    namespace = {}
    for language, code in re.findall(r"^```(python|bash)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(compile(code, "docs/segment.md", "exec"), namespace)
            continue
        for line in code.splitlines():
            remamber, command, *arguments = shlex.split(line)
            assert (remamber, command) == ("remamber", "segment")
            assert run(*arguments).exit_code == 0, line
    assert namespace["mask"].sum() == namespace["found"]["area"] > 0
    written = {"overlay.png", "star.png", "b.png", "m.png", "found.jsonl", "stars/shapes_4_overlay.png"}
    written |= {"masks/shapes_1_mask_1.png", "masks/shapes_2_mask_2.png"}
    assert written <= set(files_in(tmp_path / "build" / "segment"))
