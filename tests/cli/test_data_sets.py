# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`remamber data check`, `preview`, `export` of sets in which a sentence may mean nothing or several; and aRefCOCO."""

import datasets
import pytest
from generalized_fixture import TinyPhraseCut, ambiguous_entries, ref_zom, robust, write_arefcoco

from remamber_hf.data.check import CheckResult
from remamber_hf.data.folder import rows_from_columns
from remamber_hf.data.published import PHRASECUT_VAL, PUBLISHED_COUNTS, SplitCount
from remamber_hf.data.rows import target_kind


WRITERS = {
    "ref-zom": lambda root: ref_zom().write(root, "ref-zom", "final"),
    "rrefcoco": lambda root: robust().write(root, "rrefcoco"),
    "arefcoco": lambda root: write_arefcoco(root, ambiguous_entries()),
    "phrasecut": lambda root: TinyPhraseCut().write(root),
}


@pytest.fixture
def check(data_command, tmp_path, monkeypatch):
    """Check a set; returns the exit code, the output, the columns, and the cells of each split."""
    monkeypatch.setenv("COLUMNS", "200")  # no cell is folded

    def call(dataset):
        code, output = data_command("check", "--data_dir", WRITERS[dataset](tmp_path / "data"), "--dataset", dataset)
        lines = [line.replace("┃", "│").split("│") for line in output.splitlines() if "│" in line or "┃" in line]
        (_, *names), *rows = [[cell.strip() for cell in line[1:-1]] for line in lines]
        return code, output, names, {row[0]: row[1:] for row in rows}

    return call


def test_sentences_of_r_refcoco_are_printed_by_kind_beside_no_published_figure(check):
    code, output, names, cells = check("rrefcoco")
    assert names == ["refs", "images", "sentences", "none", "one", "many"]
    assert (code, cells["train"], cells["val"]) == (0, ["3", "3", "8", "2", "6", "0"], ["1", "1", "2", "0", "2", "0"])
    assert "all right" in output


def test_pictures_of_ref_zom_are_compared_and_its_sentences_are_not(check, monkeypatch):
    counts = {"train": SplitCount(None, 3, None), "test": SplitCount(None, 1, None)}
    monkeypatch.setitem(PUBLISHED_COUNTS, ("ref-zom", "final"), counts)
    code, output, names, cells = check("ref-zom")
    assert names == ["refs", "images / published", "sentences", "none", "one", "many"]
    assert (code, cells["train"]) == (0, ["3", "3 / 3", "4", "1", "1", "2"])
    counts["test"].images = 2
    code, output, _, _ = check("ref-zom")
    assert code == 1 and "wrong: test has other counts than published" in output and "train has" not in output


def test_a_split_of_which_nothing_was_published_is_neither_as_published_nor_not():
    published = {"train": SplitCount(None, None, None), "val": SplitCount(None, 1, None)}
    for counts in ({"val": SplitCount(3, 1, 3)}, {"train": SplitCount(9, 9, 9), "val": SplitCount(3, 1, 3)}):
        result = CheckResult("grefcoco (unc)", counts, published)
        assert (result.agrees("train"), result.agrees("val"), result.is_good) == (None, True, True)


def test_arefcoco_has_no_columns_of_kinds(check, monkeypatch):
    counts = {"train": SplitCount(1, 1, 1), "test": SplitCount(2, 1, 3)}
    monkeypatch.setitem(PUBLISHED_COUNTS, ("arefcoco", "authors"), counts)
    code, _, names, cells = check("arefcoco")
    assert names == ["refs / published", "images / published", "sentences / published"]
    assert (code, cells) == (0, {"train": ["1 / 1", "1 / 1", "1 / 1"], "test": ["2 / 2", "1 / 1", "3 / 3"]})


def test_splits_of_phrasecut_are_its_files_and_the_published_val_is_explained(check):
    code, output, names, cells = check("phrasecut")
    assert names == ["refs / published", "images / published", "sentences / published", "none", "one", "many"]
    assert code == 1 and f"noted: {PHRASECUT_VAL}" in output
    assert cells["val"] == ["1 / 19495", "1 / 2871", "1 / 19495", "0", "0", "1"]
    assert cells["miniv"][0] == "1 / 821" and "wrong: miniv has other counts than published" in output


def test_a_phrase_that_is_wrong_is_named_with_its_file(data_command, tmp_path):
    tiny = TinyPhraseCut()
    tiny.tasks["test"][0]["Polygons"] = []
    code, output = data_command("check", "--data_dir", tiny.write(tmp_path / "data"))
    task_id = tiny.tasks["test"][0]["task_id"]
    assert code == 1
    assert f"wrong: malformed entry: 1; first: phrase 1 ('{task_id}') of refer_test.json, Polygons is []" in output


@pytest.mark.parametrize(
    "dataset, kinds",
    [
        ("ref-zom", ["many", "one", "none"]),
        ("rrefcoco", ["one", "none", "one", "one"]),
        ("arefcoco", ["one"]),
        ("phrasecut", ["many"]),
    ],
)
def test_a_set_is_previewed_and_comes_back_from_its_export(data_command, tmp_path, dataset, kinds):
    root = WRITERS[dataset](tmp_path / "data")
    arguments = ("--data_dir", root, "--dataset", dataset)
    code, output = data_command("preview", *arguments, "--output", tmp_path / "sheet.png", "--split", "train")
    assert code == 0 and f"{len(kinds)} of {len(kinds)} rows" in output
    assert data_command("export", *arguments, "--output_dir", tmp_path / "exported")[0] == 0
    rows = rows_from_columns(datasets.load_dataset(str(tmp_path / "exported"))["train"])
    assert [target_kind(row) for row in rows] == kinds
