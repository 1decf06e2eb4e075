# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`remamber data stats`: of data sets of every kind, of text files, by any tokenizer, in 80 columns."""

import json
import re
import sys
from io import BytesIO, TextIOWrapper

import pytest
from refer_fixture import TinyRefer
from rich.cells import cell_len
from test_data import folder_of_one
from tiny import make_tokenizer
from transformers import CLIPConfig

from remamber_hf.cli import main as cli
from remamber_hf.inference.loading import BUNDLED_MODEL
from remamber_hf.synthetic.dataset import synthesize


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def numbers(data_command):
    """What the command prints as JSON."""

    def call(*arguments) -> dict:
        code, output = data_command("stats", *arguments, "--json", "-")
        assert code == 0
        return json.loads(output[output.index("{") :])

    return call


def write_lines(path, *lines: str):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    return path


def test_a_refer_set_is_counted_split_by_split_and_together(numbers, root):
    TinyRefer().write(root)
    found = numbers("--data_dir", root)
    assert (found["data"], found["model"]) == ("refcoco (unc)", "bundled")
    assert found["splits"] == {
        "train": {"rows": 3, "pictures": 3, "sentences": 6},
        **{split: {"rows": 1, "pictures": 1, "sentences": 2} for split in ("val", "testA", "testB")},
    }
    text, masks = found["text"], found["masks"]
    assert (text["num_sentences"], text["num_words"], text["text_length"]) == (12, 6 * 4 + 6 * 2, 20)
    assert text["places"]["left"] == text["num_placed"] == 6
    assert (text["words"]["min"], text["words"]["median"], text["words"]["max"]) == (2, 3, 4)
    assert masks["kinds"] == {"none": 0, "one": 6, "many": 0}
    assert sum(map(sum, masks["centres"])) == 6
    assert masks["areas"]["max"] <= 10 * 12 / (32 * 32)


def test_one_split_and_the_text_as_it_was_written(numbers, root):
    tiny = TinyRefer()
    for ref in tiny.refs:
        for sentence in ref["sentences"]:
            sentence["raw"] = f"RAW {sentence['sent']}"
    tiny.write(root)
    found = numbers("--data_dir", root, "--dataset", "refcoco", "--split", "val", "--sentences", "raw")
    assert list(found["splits"]) == ["val"] and found["text"]["frequent"]["raw"] == 2
    assert found["masks"]["kinds"]["one"] == 1


def test_sets_of_nothing_and_several_and_the_command_of_the_others_options(numbers, root):
    tiny = TinyRefer()
    tiny.add_generalized()
    tiny.grefs.append({**tiny.ref(3, ["gone"], "val"), "ann_id": [999], "category_id": [1]})
    tiny.write(root)
    with pytest.raises(ValueError, match="999"):
        numbers("--data_dir", root, "--generalized")
    found = numbers("--data_dir", root, "--generalized", "--on_error", "skip", "--split_by", "unc")
    assert found["masks"]["kinds"] == {"none": 1, "one": 0, "many": 1}
    assert sum(map(sum, found["masks"]["centres"])) == 1


def test_own_folders_and_parquet_give_the_same_numbers(numbers, data_command, root, tmp_path):
    folder = folder_of_one(root)
    first = numbers("--data_dir", folder)
    assert data_command("export", "--data_dir", folder, "--output_dir", tmp_path / "exported")[0] == 0
    second = numbers("--dataset", tmp_path / "exported")
    assert {**first, "data": ""} == {**second, "data": ""}
    # the left half of 30 × 40 pixels
    assert first["masks"]["areas"]["max"] == 0.5 and first["masks"]["centres"] == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_tables_fit_80_columns(data_command, root, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    synthesize(root, 8, 0, image_size=64, num_workers=1, no_target=True, many=True, progress=False)
    code, output = data_command("stats", "--data_dir", root, "--generalized")
    assert code == 0
    output = output[output.index("shapes (unc): ") :]
    lines = [line for line in output.splitlines() if line[:1] in "┏┃┡│└├"]
    assert len(lines) > 30 and max(map(cell_len, lines)) <= 80
    for words in ("Most frequent words: the ", "Rows by how many objects they mean: ", "centres of masks", "(0.0%)"):
        assert words in output


# --------------------------------------------------------------------------------------------------------- text files
def test_a_text_file_has_an_expression_in_each_line(numbers, tmp_path):
    path = tmp_path / "written.txt"
    path.write_bytes("\ufeffthe left dog\r\n\r\n  \na\u2028b\x85c\x0bd\x1ce\nlast 🐶".encode())
    found = numbers("--text", path)
    assert (found["splits"], found["masks"]) == ({}, None)
    assert found["text"]["num_sentences"] == 3
    assert found["text"]["frequent"] == dict.fromkeys(["a", "b", "c", "d", "dog", "e", "last", "left", "the"], 1)


def test_expressions_come_from_standard_input(data_command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"the dog\nthe cat\n")))
    monkeypatch.setattr(sys, "argv", ["remamber", "data", "stats", "--text", "-", "--json", "-"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out)["text"]["num_words"] == 4


def test_what_is_cut_and_what_is_refused_is_said_once(data_command, tmp_path):
    lines = ["the dog", "dog " * 30, "cat " * 40, "a <|endoftext|>", "<|startoftext|>", "x[bold]y[/bold]\x1b[31m"]
    code, output = data_command("stats", "--text", write_lines(tmp_path / "written.txt", *lines))
    assert code == 0
    assert "Sentences that are cut, of which 20 tokens are read: 2 (33.3%)" in output
    assert "refused: 2 sentences, special tokens inside; first: 'a <|endoftext|>'" in output
    assert "\x1b" not in output and output.count("refused") == 1


def test_words_that_would_write_to_the_terminal_are_shown_as_text(data_command, tmp_path):
    path = write_lines(tmp_path / "written.txt", "[red]dog[/red]", "a" * 9000, "\u0301" * 300, "\x1b]0;title\x07")
    code, output = data_command("stats", "--text", path)
    assert code == 0 and "red 2" in output and "\x1b" not in output and "\x07" not in output
    assert max(map(cell_len, output.splitlines())) <= 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no expression; give a text file with one in each line"),
        (b" \n\r\n\xe2\x80\x83\n", "holds no expression"),
        ("the dog\n".encode("utf-16"), "line 1: it looks like UTF-16; save the file as UTF-8"),
        (b"the dog\ncaf\xe9\n", "line 2: byte 0xe9 is no UTF-8"),
        (b"dog\ncat \xed\xa0\x80\n", "line 2: byte 0xed is no UTF-8"),  # half of a surrogate
    ],
)
def test_what_is_no_text_is_one_line(data_command, tmp_path, content, message):
    path = tmp_path / "written.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        data_command("stats", "--text", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "x", "--data_dir", "data"], "--data_dir is for a data set, and --text names a file"),
        (["--text", "x", "--split", "val"], "--split is for a data set"),
        (["--text", "x", "--generalized"], "--generalized is for a data set"),
        (["--text", "x", "--sentences", "raw"], "--sentences is for a data set"),
        (["--text", "x", "--text_length", 2], "--text_length is 2; give 3 to 65536"),
        ([], "no data is named; give --data_dir, --dataset"),
        (["--data_dir", "nowhere"], "--data_dir nowhere is no folder"),
        (["--text", "x", "--model", "nowhere"], "the tokenizer 'nowhere' cannot be loaded"),
    ],
)
def test_what_cannot_be_counted_is_one_line(data_command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=re.escape(message)):
        data_command("stats", *arguments)


def test_an_unknown_split_names_those_that_are_there(data_command, root):
    TinyRefer().write(root)
    with pytest.raises(ValueError, match="has no split 'test'; choose one of train, val, testA, testB with --split"):
        data_command("stats", "--data_dir", root, "--split", "test")


# -------------------------------------------------------------------------------------------------- tokenizer, output
def test_tokens_are_those_of_the_model_that_is_named(numbers, tmp_path):
    path = write_lines(tmp_path / "written.txt", "cat dog", "the cat")
    folder = tmp_path / "tokenizer"
    make_tokenizer().save_pretrained(folder)
    found = numbers("--text", path, "--model", folder)["text"]
    assert (found["tokens"]["min"], found["tokens"]["max"], found["text_length"]) == (4, 6, 20)
    assert (found["num_whole_different"], found["num_different"]) == (2, 3)
    CLIPConfig().save_pretrained(folder)  # as beside the tokenizer of a CLIP
    assert numbers("--text", path, "--model", folder)["text"] == found
    cut = numbers("--text", path, "--model", folder, "--text_length", 5)["text"]
    assert (cut["num_cut"], cut["text_length"]) == (1, 5)


def test_the_text_length_is_that_of_the_model(numbers, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((BUNDLED_MODEL / name).read_bytes())
    config = json.loads((BUNDLED_MODEL / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "text_length": 9}))
    path = write_lines(tmp_path / "written.txt", "dog " * 8)
    found = numbers("--text", path, "--model", folder)["text"]
    assert (found["text_length"], found["num_cut"]) == (9, 1)


def test_the_numbers_go_to_a_file_beside_the_tables(data_command, numbers, tmp_path):
    path, output = write_lines(tmp_path / "written.txt", "the dog"), tmp_path / "new" / "stats.json"
    code, printed = data_command("stats", "--text", path, "--json", output)
    assert code == 0 and "Most frequent words: dog 1, the 1" in printed and f"written: {output}" in printed
    assert json.loads(output.read_text()) == numbers("--text", path)
    with pytest.raises(ValueError, match="is a folder; give the name of a file"):
        data_command("stats", "--text", path, "--json", tmp_path)
