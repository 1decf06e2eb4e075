# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The ids of sentences: one for each sentence of a row, whatever the rows come from and are made into."""

import pickle

import datasets
import pytest
from generalized_fixture import TinyPhraseCut, ambiguous_entries, ref_zom, robust, write_arefcoco
from refer_fixture import LAYOUTS
from test_folder import LINES, columns, folder, write  # noqa: F401  # a fixture

from remamber_hf.data.export import export_parquet
from remamber_hf.data.folder import load_referring_folder, rows_from_columns
from remamber_hf.data.mixture import load_one, load_sources, mix_training_rows
from remamber_hf.data.refer_config import VERSION
from remamber_hf.data.rows import one_row_per_sentence, refer_features
from remamber_hf.training.drawn_sentences import DrawnSentences


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def ids_of(data):
    return {split: rows["sentence_ids"][:] for split, rows in data.items()}


def texts_by_id(data):
    """All sentences of all splits by id; no id may stand twice."""
    pairs = [
        pair
        for rows in data.values()
        for row in rows.select_columns(["sentences", "sentence_ids"])
        for pair in zip(row["sentence_ids"], row["sentences"], strict=True)
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


# REFER sets


def test_ids_are_those_of_the_file(tiny, root, load):
    for ref in tiny.refs:
        for sentence in ref["sentences"]:
            sentence["sent_id"] = 7 * sentence["sent_id"] + 3
    tiny.refs[5]["sentences"][0]["sent_id"] = 2**63 - 1
    tiny.write(root)
    texts = {sentence["sent_id"]: sentence["sent"] for ref in tiny.refs for sentence in ref["sentences"]}
    assert texts_by_id(load()) == texts
    assert load(split="val")["sentence_ids"][:] == [[45, 52]]
    assert load(split="val", expand_sentences=True)["sentence_ids"][:] == [[45], [52]]


def test_an_id_that_stands_twice_stays(tiny, root, load):
    tiny.refs[1]["sentences"][0]["sent_id"] = tiny.refs[0]["sentences"][0]["sent_id"]
    tiny.write(root)
    assert load(split="train")["sentence_ids"][:] == [[0, 1], [0, 3], [4, 5]]


def test_the_id_of_a_sentence_that_is_left_out_is_left_out(tiny, root, load):
    tiny.refs[0]["sentences"][0]["sent"] = "  "
    tiny.refs[1]["sentences"][1]["sent"] = ""
    tiny.write(root)
    assert load(split="train", on_error="skip")["sentence_ids"][:] == [[1], [2], [4, 5]]


def test_sentences_without_an_integer_get_numbers_that_are_nobodys(tiny, root, load):
    del tiny.refs[0]["sentences"][1]["sent_id"]
    for (ref, number), value in zip([(1, 0), (3, 1), (5, 0), (5, 1)], ["2", True, 2**63, 1.0]):
        tiny.refs[ref]["sentences"][number]["sent_id"] = value
    tiny.write(root)
    numbered = {
        "train": [[0, 1], [2, 3], [4, 5]],
        "val": [[6, 7]],
        "testA": [[8, 9]],
        "testB": [[10, 11]],
    }
    assert ids_of(load()) == numbered
    (root / LAYOUTS["lavt"] / tiny.images[1]["file_name"]).unlink()
    numbered["train"] = [[0, 1], [4, 5]]
    assert ids_of(load(on_error="skip")) == numbered  # what is left out keeps its number for itself


def test_a_sentence_that_a_pickle_has_in_two_refs_has_two_numbers(tiny, root, load):
    shared = [{"sent": "it", "raw": "It."}]
    for ref in tiny.refs:
        ref["sentences"] = shared
    content = pickle.dumps(tiny.refs, protocol=2)
    assert content.count(b"It.") == 1
    tiny.write(root, refs_content=content)
    assert sorted(texts_by_id(load())) == [1, 2, 3, 4, 5, 6]


def test_untrue_sentences_keep_their_ids_apart_from_the_true_ones(root, load):
    robust().write(root, "rrefcoco", "unc")
    assert load("rrefcoco", split="train")["sentence_ids"][:] == [[0, 1], [900, 901], [2, 3], [4, 5]]


def test_generalised_sets_have_the_ids_of_their_files(tiny, root, load):
    ref_zom().write(root, "ref-zom", "final")
    assert ids_of(load("ref-zom", "final")) == {"train": [[12, 13], [12], [12]], "test": [[12]]}
    tiny.add_generalized()
    tiny.write(root, "grefcoco", "unc")
    assert ids_of(load("grefcoco")) == {"train": [[12]], "val": [[13]]}


def test_descriptions_of_arefcoco_are_numbered_over_all_splits(root, load):
    write_arefcoco(root, ambiguous_entries())
    assert ids_of(load("arefcoco", "authors")) == {"train": [[4]], "test": [[1, 2], [3]]}


def test_phrases_have_the_number_of_their_ref_whichever_files_are_there(root, load):
    phrases = TinyPhraseCut()
    phrases.tasks["val"] *= 2
    phrases.write(root)
    ids = {"train": [[1]], "val": [[10_000_001], [10_000_002]], "test": [[20_000_001]], "miniv": [[30_000_001]]}
    assert ids_of(load("phrasecut", "authors")) == ids
    (root / "VGPhraseCut_v0" / "refer_train.json").unlink()
    del ids["train"]
    assert ids_of(load("phrasecut", "authors")) == ids


def test_a_cache_of_another_layout_has_another_version():
    """Who changes the columns raises the version: else those of an older cache would be served."""
    assert (str(VERSION), list(refer_features())) == (
        "1.3.0",
        ["image", "sentences", "sentence_ids", "ref_id", "ann_id", "image_id", "category", "bbox", "height", "width",
         "split", "segmentation"],
    )  # fmt: skip


# One's own data


def test_expressions_of_a_folder_are_numbered_in_the_order_of_its_lines(folder):  # noqa: F811
    lines = [{**LINES[2], "expression": ["one", "two"]}, LINES[0], {**LINES[1], "split": "val"}]
    write(folder, lines)
    data = load_referring_folder(folder)
    assert ids_of(data) == {"train": [[3]], "val": [[1, 2], [4, 5]]}
    assert texts_by_id(data) == {1: "one", 2: "two", 3: "the left one", 4: "a triangle", 5: "the small one"}
    assert load_referring_folder(folder, "val", expand_sentences=True)["sentence_ids"][:] == [[1], [2], [4], [5]]


def test_sentences_of_columns_are_numbered_over_all_splits():
    one = columns()
    several = one.remove_columns("expression").add_column("sentences", [["a", "b"]])
    data = rows_from_columns(datasets.DatasetDict({"test": one, "train": several, "val": one}))
    assert ids_of(data) == {"train": [[1, 2]], "val": [[3]], "test": [[4]]}
    assert {rows.features == refer_features() for rows in data.values()} == {True}
    assert [list(rows.features) for rows in data.values()] == [list(refer_features())] * 3
    assert rows_from_columns(several)["sentence_ids"][:] == [[1, 2]]


@pytest.fixture
def exported(tiny, root, tmp_path):
    """An export, and the rows that went into it."""
    for ref in tiny.refs:
        for sentence in ref["sentences"]:
            sentence["sent_id"] += 500
    data = load_one("refcoco", "unc", tiny.write(root)).splits
    export_parquet(data, tmp_path / "exported", "RefCOCO")
    return tmp_path / "exported", data


def test_an_export_keeps_the_ids(exported):
    path, data = exported
    assert "`sentence_ids`" in (path / "README.md").read_text(encoding="utf-8")
    assert texts_by_id(load_one(str(path), None, None).splits) == texts_by_id(data)
    assert min(texts_by_id(data)) == 500


def test_an_export_of_before_is_numbered(exported, tmp_path):
    path, data = exported
    older = datasets.load_dataset(str(path)).remove_columns("sentence_ids")
    rows = rows_from_columns(older)
    ids = {"train": [[1, 2], [3, 4], [5, 6]], "val": [[7, 8]], "testA": [[9, 10]], "testB": [[11, 12]]}
    assert ids_of(rows) == ids
    assert {each.features == refer_features() for each in rows.values()} == {True}
    for split in ids:
        assert rows[split].remove_columns(["image", "sentence_ids"]).to_dict() == (
            data[split].remove_columns(["image", "sentence_ids"]).to_dict()
        )
        assert rows[split][0]["image"].size == data[split][0]["image"].size
    chosen = rows_from_columns(older["train"].select([2, 0]).with_format("numpy"))
    assert [list(row) for row in chosen.with_format(None)["sentence_ids"]] == [[1, 2], [3, 4]]
    assert chosen.with_format(None)["ref_id"][:] == [1003, 1001] and chosen.format["type"] == "numpy"
    # Where one split has ids and another none, they could be the same.
    mixed = datasets.DatasetDict({**older, "train": datasets.load_dataset(str(path))["train"]})
    assert ids_of(rows_from_columns(mixed)) == ids


# What is made of rows


def test_a_mixture_keeps_the_ids_of_its_sets(tiny, root):
    tiny.write(root)
    other = robust()
    other.refs[2]["split"] = "val"
    other.write(root, "rrefcoco", "unc")
    rows, _ = mix_training_rows(load_sources("refcoco,rrefcoco", None, root), "train")
    assert rows["image_id"][:] == [1, 2, 1, 1, 2]
    assert rows["sentence_ids"][:] == [[0, 1], [2, 3], [0, 1], [900, 901], [2, 3]]


def test_sentences_that_a_user_changed_have_no_id(tiny, root, load):
    tiny.write(root)
    rows = load(split="train")
    shorter = rows.map(lambda row: {"sentences": row["sentences"][:1]})
    for changed, ids in ((shorter, [[None]] * 3), (shorter.remove_columns("sentence_ids"), None)):
        expanded = one_row_per_sentence(changed)
        assert expanded["sentences"][:] == [["the left one 1"], ["the left one 2"], ["the left one 3"]]
        drawn = DrawnSentences(changed, 0)[0]
        assert drawn["sentences"] == ["the left one 1"]
        if ids is not None:
            assert expanded["sentence_ids"][:] == ids and drawn["sentence_ids"] == [None]
    more = {**rows[0], "sentences": [*rows[0]["sentences"], "a third"]}
    assert DrawnSentences([more], 0)[0]["sentence_ids"] == [None]
    assert DrawnSentences([{**more, "sentence_ids": None}], 0)[0]["sentence_ids"] == [None]


def test_a_sentence_is_drawn_with_its_id(tiny, root, load):
    tiny.write(root)
    drawn, texts = DrawnSentences(load(split="train"), 0), texts_by_id(load())
    seen = set()
    for epoch in range(20):
        drawn.set_epoch(epoch)
        for index in range(3):
            (sentence,), (number,) = (drawn[index][name] for name in ("sentences", "sentence_ids"))
            assert texts[number] == sentence
            seen.add(number)
    assert seen == {0, 1, 2, 3, 4, 5}
