# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The command `remamber data from-coco`, and the page about it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from coco_fixture import CocoFile, square


PAGE = Path(__file__).parents[2] / "docs" / "from_coco.md"


@pytest.fixture
def file(tmp_path, monkeypatch) -> CocoFile:
    """A file of a dozen pictures in the working folder; each has two dogs, a car and a sky."""
    monkeypatch.chdir(tmp_path)
    file = CocoFile(tmp_path)
    for image_id in range(1, 13):
        file.add_image(image_id)
        file.add(image_id, "dog", square(20 + image_id, 40))
        file.add(image_id, "dog", square(120, 50 - image_id))
        file.add(image_id, "car", square(60, 10))
        file.add(image_id, "sky", square(0, 0, 200, 8))
    return file.write()


def test_the_commands_of_the_page_run(data_command, file, tmp_path):
    (tmp_path / "words.yaml").write_text("dog: [puppy, hound]\ncar: vehicle\n")
    page = PAGE.read_text(encoding="utf-8")
    for code in re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for line in code.splitlines():
            remamber, data, *arguments = shlex.split(line)
            assert (remamber, data) == ("remamber", "data")
            code, printed = data_command(*arguments)
            assert code == 0, (line, printed)
    assert (tmp_path / "derived.png").is_file()
    code, printed = data_command("check", "--data_dir", "all")
    assert code == 0 and "derived (unc, generalised)" in printed and "derived (unc)" in printed
    code, printed = data_command("check", "--data_dir", "own")
    assert code == 0 and "all right" in printed
    lines = (tmp_path / "own" / "metadata.jsonl").read_text()
    assert "the sky" in lines and re.search("puppy|hound", lines) and "vehicle" in lines


def test_the_table_says_what_was_written_and_what_was_left_out(data_command, file):
    file.add(1, "dog", square(90, 40), iscrowd=1)
    file.add(2, "dog", square(90, 40), category_id=9)
    file.add(3, "dog", square(90, 40), category_id=10)
    file.content["categories"].append({"id": 10, "name": "left"})
    file.write()
    arguments = ["from-coco", "instances.json", "pictures", "out", "--many", "--no_target"]
    with pytest.raises(ValueError, match=r"^annotation 50: annotation of no category: there is no category 9, or two"):
        data_command(*arguments)
    code, printed = data_command(*arguments, "--on_error", "skip")
    assert code == 0 and printed.endswith("written: out\n")
    assert max(len(line) for line in printed.splitlines() if line.startswith("│")) <= 80
    for line in (
        r"pictures, train +│ +\d",
        r"pictures, val +│ +\d",
        r"sentences that mean one thing +│ +\d",
        r"sentences that mean several things +│ +\d",
        r"sentences that mean nothing +│ +\d",
        r"sentences by order +│ +\d",
        r"left out: 1 × crowd",
        r"left out: 12 × cut off by the picture's border",
        r"left out: the category 'left' consists of words of place, degree or number; --synonyms can give it a word",
        r"wrong: 1 × annotation of no category; first: annotation 50: there is no category 9, or two",
    ):
        assert re.search(line, printed), line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("dog: [puppy", "is no YAML: "),
        ("[dog]", r"holds \['dog'\]; give lines such as"),
        ("no: [dog]", "has {False: .*YAML reads as text: in quotes"),
        ("dog: 7", "YAML reads as text"),
        ("dog: [on]", "YAML reads as text"),
        ("dog: {puppy: 1}", "YAML reads as text"),
        ("cow: [ox]", "synonyms for 'cow', which is no category; the categories are 'car', 'cat', 'dog', 'sky'"),
        ("dog: [left]", "the synonym 'left' of 'dog' consists of words of place"),
        ("dog: !!python/object/apply:os.system [ls]", "is no YAML: "),
    ],
)
def test_synonyms_that_are_none_are_refused_in_one_line(data_command, file, tmp_path, content, message):
    (tmp_path / "words.yaml").write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        data_command("from-coco", "instances.json", "pictures", "out", "--synonyms", "words.yaml")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "margin", ["position", "position=", "position=far", "place=0.1", "=1", "position=nan", "half=-1"]
)
def test_margins_that_are_none_are_refused(data_command, file, margin):
    with pytest.raises(ValueError, match=r"--margin is .*NAME=VALUE|give a number from 0 up"):
        data_command("from-coco", "instances.json", "pictures", "out", "--margin", margin)


def test_wider_margins_leave_fewer_sentences(data_command, file):
    def count(*options) -> int:
        _, printed = data_command("from-coco", "instances.json", "pictures", f"out{len(options)}", *options)
        return int(re.search(r"mean one thing +│ +(\d+)", printed).group(1))

    assert count("--margin", "position=0.9", "--margin", "size_ratio=9") < count()


def test_it_is_said_in_one_line_what_is_missing(file, tmp_path):
    command = [sys.executable, "-m", "remamber_hf", "data", "from-coco", "instances.json"]
    result = subprocess.run([*command, "nowhere", "out"], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "remamber: error: nowhere is no folder; give that of the pictures.\n"
