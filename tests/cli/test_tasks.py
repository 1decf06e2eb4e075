# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What `remamber segment` is to do, from its arguments: pictures and expressions, and files to write."""

import os
from pathlib import Path

import pytest

from remamber_hf.cli.tasks import Task, check_outputs, name_outputs, read_tasks


SQUARE, TRIANGLE = "the yellow square", "the triangle"


def test_outputs_of_web_addresses_that_end_alike_are_numbered():
    sources = ["https://a.example/1/cat.jpg", "https://a.example/2/cat.jpg", "http://b.example/cat.png", "http://c/.."]
    names = [str(name) for name in name_outputs([*sources, "-"])]
    assert names == ["cat.jpg", "cat.jpg_2", "cat.png", "..", "stdin"] and len(set(names)) == 5
    assert str(name_outputs(["http://a.example/" + "x" * 1000])[0]) == "x" * 100


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("file_name,expression\na.png,the dog\na.png,das grüne\n".encode("latin-1"), "line 3: byte 0xfc is no UTF-8"),
        ("file_name,expression\na.png,the dog\n".encode("utf-16"), "line 1: it looks like UTF-16"),
    ],
)
def test_a_csv_that_is_no_utf_8_is_refused_with_file_line_and_advice(tmp_path, monkeypatch, content, place):
    monkeypatch.chdir(tmp_path)
    Path("wanted.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"wanted.csv, {place}.*; save the file as UTF-8"):
        read_tasks([], [], Path("wanted.csv"))


@pytest.mark.parametrize("name", ["a\0.png", "x" * 5000 + ".png", "sub/" + "é" * 130 + ".png"])
def test_a_csv_that_names_what_can_be_no_file_is_refused_with_its_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("wanted.csv").write_text(f"file_name,expression\na.png,the dog\n{name},the cat\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3 of wanted.csv names '.*', which can be no file") as error:
        read_tasks([], [], Path("wanted.csv"))
    assert len(str(error.value)) < 300 and "\0" not in str(error.value)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "zeros"])
def test_a_csv_that_is_no_regular_file_is_refused(tmp_path, make):
    make(tmp_path / "wanted.csv")
    with pytest.raises(ValueError, match="wanted.csv is no regular file"):
        read_tasks([], [], tmp_path / "wanted.csv")


@pytest.mark.parametrize(
    ("inputs", "expressions", "table", "message"),
    [
        ([], [], None, "give a picture and an expression, as in: remamber segment"),
        (["a.png"], [], None, "give a picture and an expression"),
        (["a.png", "b.png"], [], None, "b.png is a file, no expression; with several pictures, use -e EXPRESSION"),
        (["a.png"], ["the dog", " "], None, "expression 2 is empty"),
        (["a.png", "a very long expression " * 20, " "], [], None, "expression 2 is empty"),
        (["empty"], ["the dog"], None, "the folder empty has no pictures right in it"),
        (
            [],
            [],
            'file_name,expression\na.png,"x' + 2**17 * "\n",
            "wanted.csv is not read: line 2: field larger than .* is a quote not",
        ),
        (["a.png"], [], "file_name,expression\na.png,x\n", "--from-csv names pictures and expressions itself"),
        ([], [], "a.png,the dog\n", "has no column 'file_name'; its first line must be file_name,expression"),
        (
            [],
            [],
            'file_name,expression\na.png,"the left\nb.png,x\n',
            "line 2: unexpected end of data; is a quote not",
        ),
        ([], [], "file_name,expression\na\0.png,x\n", "line 2 of .* names .* which can be no file"),
        (
            [],
            [],
            "file_name,expression\na.png,the left, red car\n",
            "wanted.csv is not read: line 2 has more cells than the first; quote a",
        ),
        (
            [],
            [],
            "file_name,expression,expression\na.png,x,y\n",
            "wanted.csv is not read: the column 'expression' is there twice; leave one out",
        ),
        ([], [], "file_name,expression\na.png,x\nb.png\n", "line 3 of .* lacks a file name or an expression"),
        ([], [], "file_name,expression\n", "names no pictures"),
    ],
)
def test_arguments_that_do_not_say_what_to_do_are_refused(tmp_path, monkeypatch, inputs, expressions, table, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.png").touch()
    (tmp_path / "empty").mkdir()
    if table is not None:
        (tmp_path / "wanted.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        read_tasks(inputs, expressions, None if table is None else Path("wanted.csv"))


@pytest.mark.parametrize(
    ("outputs", "is_many", "message"),
    [
        ({"overlay": "a.png"}, False, "a.png is the picture itself"),
        ({"overlay": "new.txt"}, False, r"names no format that fits; end it in \.png, \.jpg"),
        ({"mask": "new.jpg"}, False, r"names no format that fits; end it in \.png, \.bmp"),
        ({"cutout": "new.jpg"}, False, r"names no format that fits; end it in \.png, \.webp"),
        ({"json": "new.png"}, False, r"end it in \.jsonl, \.json"),
        ({"overlay": "folder.png"}, False, "is a folder; name a file in it"),
        ({"overlay": "new.png", "blur": "new.png"}, False, "is to be written twice"),
        ({"overlay": "-", "blur": "-"}, False, "overlay and blur both go to standard output"),
        ({"mask": "-"}, False, "standard output takes one mask, this makes several"),
        ({"overlay": "-"}, True, "standard output takes one overlay, this makes several"),
        ({"overlay": "a.png"}, True, "a.png is a file; with many pictures, name a folder"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(tmp_path, monkeypatch, outputs, is_many, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    (tmp_path / "folder.png").mkdir()
    tasks = [Task("a.png", Path("a"), [SQUARE, TRIANGLE])]
    with pytest.raises(ValueError, match=message):
        check_outputs(tasks, {name: Path(path) for name, path in outputs.items()}, is_many)
