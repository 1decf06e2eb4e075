# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Sets in which a sentence may mean nothing or several objects, in their published formats, and what spoils them."""

import shutil
from itertools import groupby

import numpy as np
import pytest
from generalized_fixture import (
    TinyPhraseCut,
    ambiguous_entries,
    phrasecut_mask,
    ref_zom,
    rename_ref_zom,
    robust,
    write_arefcoco,
)
from pycocotools import mask as coco_mask
from refer_fixture import LAYOUTS, SIZES, TinyRefer, rectangle

from remamber_hf.data.check import check_data
from remamber_hf.data.discovery import find_data_sets
from remamber_hf.data.mixture import choose_files, load_sources
from remamber_hf.data.refer import ReferBuilder
from remamber_hf.data.rows import TARGET_KINDS, refer_features, row_mask, target_kind


def union(polygons, height, width):
    return coco_mask.decode(coco_mask.frPyObjects(polygons, height, width)).any(axis=2)


# R-RefCOCO and its copies


@pytest.mark.parametrize("dataset", ["rrefcoco", "rrefcoco+", "rrefcocog", "R-refcoco", "anything"])
def test_untrue_sentences_are_a_row_of_their_own_whatever_the_folder_is_called(root, load, dataset):
    split_by = "unc_exclude_unified" if dataset == "R-refcoco" else "unc"
    robust().write(root, dataset, split_by)
    for _ in range(2):  # read, then from the cache
        rows = load(dataset, split_by, "train")
        assert rows.features == refer_features(generalized=True)
        assert [(row["ref_id"], row["ann_id"], row["sentences"]) for row in rows] == [
            (1001, [101], ["the left one 1", "person 1"]),
            (1001, [], ["the blue horse", "the left horse"]),
            (1002, [102], ["the left one 2", "person 2"]),
            (1003, [103], ["the left one 3", "person 3"]),
        ]
    assert [target_kind(row) for row in rows] == ["one", "none", "one", "one"]
    arguments = {"dataset": dataset, "split_by": split_by, "data_dir": str(root), "cache_dir": str(root / "streamed")}
    assert [row["ann_id"] for row in ReferBuilder(**arguments).as_streaming_dataset("train")] == rows["ann_id"][:]
    assert np.array_equal(row_mask(rows[0]), union([rectangle(2.5, 3.0, 12.5, 15.0)], *SIZES[0]))
    assert rows[1]["segmentation"] == rows[1]["bbox"] == rows[1]["category"] == [] and not row_mask(rows[1]).any()


def test_a_false_premise_is_an_untrue_sentence(root, load):
    tiny = robust()
    for sentence in tiny.refs[0]["sentences"]:
        sentence["is_false_premise"] = not sentence.pop("exist", True)
        sentence["gt_sent"] = "the left one"
    tiny.write(root, "fprefcoco", "berkeley_exclude_unified")
    rows = load("fprefcoco", "berkeley_exclude_unified", "train")
    assert rows["ann_id"][:2] == [[101], []]
    assert rows["sentences"][1] == ["the blue horse", "the left horse"]


def test_a_set_without_an_untrue_sentence_stays_plain(root, load, tiny):
    tiny.refs[0]["sentences"][0]["exist"] = True
    tiny.write(root, "anything")
    assert load("anything", split="train").features == refer_features()


def test_a_set_that_is_known_to_have_untrue_sentences_needs_none(root, load, tiny):
    tiny.write(root, "rrefcoco")
    rows = load("rrefcoco", split="train")
    assert rows.features == refer_features(generalized=True) and rows["ann_id"][:] == [[101], [102], [103]]


def test_a_ref_of_a_list_of_objects_makes_a_set_of_any_name_a_generalised_one(root, load, tiny):
    tiny.refs[0]["ann_id"] = [101]
    tiny.write(root, "anything")
    rows = load("anything", split="train")
    assert rows.features == refer_features(generalized=True) and rows["ann_id"][:] == [[101], [102], [103]]


def test_the_cache_follows_a_sentence_that_became_untrue(root, load, tiny):
    tiny.write(root)
    assert load(split="train").features == refer_features()
    tiny.refs[0]["sentences"][1]["exist"] = False
    tiny.write(root)
    assert load(split="train")["ann_id"][:2] == [[101], []]


def test_a_ref_of_untrue_sentences_only_is_one_row(root, load, tiny):
    for sentence in tiny.refs[0]["sentences"]:
        sentence["exist"] = 0
    tiny.write(root, "rrefcoco")
    rows = load("rrefcoco", split="train")
    assert [row["ann_id"] for row in rows] == [[], [102], [103]]


def test_a_crowd_is_the_object_of_its_ref_outside_of_grefs_files(root, load):
    tiny = robust()
    tiny.annotations[0]["iscrowd"] = 1
    tiny.write(root, "rrefcoco")
    assert load("rrefcoco", split="train")[0]["ann_id"] == [101]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"exist": "no"}, "malformed entry: exist is 'no', true or false is needed"),
        ({"exist": None}, "malformed entry: exist is None"),
        ({"is_false_premise": [True]}, "malformed entry: is_false_premise is "),
        ({"exist": False, "is_false_premise": False}, "contradiction: exist and is_false_premise of sentence 1"),
    ],
)
def test_what_is_said_of_a_sentence_in_another_way_is_reported(root, load, change, message):
    tiny = robust()
    tiny.refs[0]["sentences"][1].update(change)
    tiny.write(root, "rrefcoco")
    with pytest.raises(ValueError, match=rf"rrefcoco \(unc\), ref 1001 of refs\(unc\)\.p, .*: {message}"):
        load("rrefcoco")
    assert load("rrefcoco", split="train", on_error="skip")["ref_id"][:] == [1002, 1003]


@pytest.mark.parametrize("change", [{}, {"exist": False}])
def test_a_ref_without_sentences_is_reported_outside_of_grefs_files(root, load, tiny, change):
    tiny.refs[1]["sentences"] = []
    tiny.refs[0]["sentences"][0].update(change)
    tiny.write(root)
    with pytest.raises(ValueError, match="ref 1002 .*: no sentence"):
        load()


@pytest.mark.parametrize("flag", [{"no_target": True}, {"source": "zero"}])
@pytest.mark.parametrize("dataset", ["mine", "rrefcoco", "grefcoco"])
def test_a_flag_of_another_set_that_says_nothing_is_never_overheard(root, load, tiny, flag, dataset):
    tiny.add_generalized()
    (tiny.grefs if dataset == "grefcoco" else tiny.refs)[0].update(flag)
    tiny.write(root, dataset)
    with pytest.raises(ValueError, match="contradiction: (no_target is True|source is 'zero'), and ann_id is"):
        load(dataset)


@pytest.mark.parametrize("values", [{"no_target": False, "source": "coco"}, {"source": 7, "no_target": "?"}])
def test_fields_of_other_sets_that_say_nothing_of_the_kind_change_nothing(root, load, tiny, values):
    tiny.refs[0].update(values)
    tiny.write(root, "mine")
    assert load("mine", split="train").features == refer_features()


# gRefCOCO


def test_the_mask_of_several_is_the_union_of_crowdless_polygons_and_rles(root, load, tiny, caplog):
    tiny.add_generalized()
    height, width = SIZES[0]
    square = np.zeros((height, width), dtype=bool)
    square[10:30, 8:40] = True
    runs = [len(list(run)) for _, run in groupby(square.ravel(order="F"))]
    rle = {"size": [height, width], "counts": runs}
    other = {**tiny.annotations[0], "id": 202, "segmentation": rle}
    crowd = {**tiny.annotations[0], "id": 203, "iscrowd": 1, "segmentation": [rectangle(50, 2, 58, 9)]}
    tiny.annotations[-1]["segmentation"].append([40, 2, 48, 9])  # 4 numbers, which pycocotools would read as a box
    tiny.annotations += [other, crowd]
    tiny.grefs[0].update(ann_id=[101, 201, 202, 203], file_name="COCO_train2014_000000000009_101.jpg")
    tiny.write(root, "grefcoco")
    row = load("grefcoco", split="train")[0]
    assert row["ann_id"] == [101, 201, 202] and row["image_id"] == 1
    polygons = [rectangle(2.5, 3.0, 12.5, 15.0), rectangle(5, 5, 25, 25)]
    assert np.array_equal(row_mask(row), union(polygons, height, width) | square)
    assert "Left out: 1 × crowd in a generalised ref, 1 × polygon under 3 points." in caplog.text


def test_an_annotation_id_may_stand_without_a_list(root, load, tiny):
    tiny.add_generalized()
    tiny.grefs[0]["ann_id"], tiny.grefs[1]["ann_id"] = 101, -1
    tiny.write(root, "grefcoco")
    data = load("grefcoco")
    assert (data["train"][0]["ann_id"], data["val"][0]["ann_id"]) == ([101], [])


@pytest.mark.parametrize(
    "index, change, message",
    [
        (0, {"no_target": True}, r"contradiction: no_target is True, and ann_id is \[101, 201\]"),
        (1, {"no_target": False}, r"contradiction: no_target is False, and ann_id is \[-1\]"),
        (1, {"no_target": "yes"}, "malformed entry: no_target is 'yes', true or false is needed"),
        (0, {"ann_id": []}, r"malformed entry: ann_id is \[\], where \[-1\] means nothing"),
    ],
)
def test_a_flag_that_contradicts_the_annotation_ids_is_reported(root, load, tiny, index, change, message):
    tiny.add_generalized()
    tiny.grefs[index].update(change)
    tiny.write(root, "grefcoco")
    with pytest.raises(ValueError, match=rf"grefs\(unc\)\.json, .*: {message}"):
        load("grefcoco")


def test_a_gref_without_sentences_is_left_out_and_counted_without_stopping(root, load, tiny, caplog):
    tiny.add_generalized()
    tiny.grefs.append({**tiny.ref(3, [], "train"), "ann_id": [103], "no_target": False})
    tiny.write(root, "grefcoco")
    assert load("grefcoco", split="train")["ref_id"][:] == [1001]
    assert "Left out: 1 × ref without sentences." in caplog.text


def test_a_gref_whose_objects_vanish_never_means_nothing(root, load, tiny):
    tiny.add_generalized()
    tiny.grefs.append({**tiny.ref(3, ["a person"], "train"), "ann_id": [103]})
    tiny.annotations[2]["segmentation"] = []
    tiny.write(root, "grefcoco")
    with pytest.raises(ValueError, match="ref 1003 .*no polygon of 3 points"):
        load("grefcoco")
    assert load("grefcoco", split="train", on_error="skip")["ann_id"][:] == [[101, 201]]


def test_an_object_that_is_named_twice_is_one(root, load, tiny, caplog):
    tiny.add_generalized()
    tiny.grefs[0]["ann_id"] = [101, 101]
    tiny.write(root, "grefcoco")
    assert load("grefcoco", split="train")[0]["ann_id"] == [101]
    assert "Noticed: 1 × object twice in a ref" in caplog.text


# Ref-ZOM


@pytest.mark.parametrize(
    "folder, name", [("ref-zom", "refs(final).p"), ("refzom", "Ref_ZOM.p"), ("ref-zom", "Ref-ZOM(final).p")]
)
def test_ref_zom_is_read_as_it_is_downloaded(root, load, folder, name):
    ref_zom().write(root, "ref-zom", "final")
    rename_ref_zom(root, folder, name)
    assert [str(file) for file in choose_files(root, None, None)] == ["ref-zom (final)"]
    assert choose_files(root, folder, None) == choose_files(root, "ref-zom", "final")
    for dataset in {"ref-zom", folder}:
        data = load(dataset, "final")
        assert {split: len(rows) for split, rows in data.items()} == {"train": 3, "test": 1}
    assert [target_kind(row) for row in data["train"]] == ["many", "one", "none"]
    assert data["train"].features == refer_features(generalized=True)
    polygons = [rectangle(2.5, 3.0, 12.5, 15.0), rectangle(5, 5, 25, 25)]
    assert np.array_equal(row_mask(data["train"][0]), union(polygons, *SIZES[0]))
    assert not row_mask(data["train"][2]).any()


@pytest.mark.parametrize("empty, full", [("ref-zom", "refzom"), ("VGPhraseCut_v0", "phrasecut")])
def test_a_folder_without_refs_does_not_hide_the_other(root, load, empty, full):
    ref_zom().write(root, "refzom", "final")
    TinyPhraseCut().write(root, "phrasecut")
    (root / empty).mkdir()
    dataset, split_by = {"refzom": ("ref-zom", "final"), "phrasecut": ("phrasecut", "authors")}[full]
    assert "train" in load(dataset, split_by)
    (result,) = check_data(root, dataset)
    assert not result.missing_archives and not result.problems


def test_a_set_whose_file_is_there_by_two_names_is_one(root, load):
    ref_zom().write(root, "ref-zom", "final")
    for name in ("Ref_ZOM.p", "refs(unc).p"):
        shutil.copy(root / "ref-zom" / "refs(final).p", root / "ref-zom" / name)
    assert [str(file) for file in find_data_sets(root)] == ["ref-zom (final)"]


def test_a_set_of_one_file_is_read_alike_where_grefs_are_asked_for(root, load):
    ref_zom().write(root, "ref-zom", "final")
    assert load("ref-zom", "final", "train", generalized=True)["ann_id"][:] == [[101, 201], [102], []]
    assert [str(file) for file in choose_files(root, "ref-zom", None, generalized=True)] == ["ref-zom (final)"]


def test_the_cache_of_arefcoco_follows_the_original_sets(root, load):
    write_arefcoco(root, ambiguous_entries())
    assert load("arefcoco", "authors", "test")[0]["image_id"] == 1
    tiny = TinyRefer()
    tiny.refs[0].update(ann_id=102, image_id=2)
    tiny.write(root, "refcoco")
    assert load("arefcoco", "authors", "test")[0]["image_id"] == 2


def test_pictures_of_ref_zom_are_in_one_folder_or_in_both_of_coco(root, load):
    tiny = ref_zom()
    tiny.images[3]["file_name"] = "COCO_val2014_000000000004.jpg"
    tiny.write(root, "ref-zom", "final")
    lavt = root / LAYOUTS["lavt"]
    other = lavt.parent / "val2014"
    other.mkdir()
    shutil.move(lavt / "COCO_train2014_000000000004.jpg", other / "COCO_val2014_000000000004.jpg")
    assert len(load("ref-zom", "final", "test")) == 1
    both = root / "images" / "trainval2014"
    shutil.move(lavt, both)
    shutil.move(other / "COCO_val2014_000000000004.jpg", both)
    other.rmdir()
    assert load("ref-zom", "final", "test", cache_dir=root / "other")[0]["image"].size == SIZES[3][::-1]


@pytest.mark.parametrize(
    "index, change, message",
    [
        (0, {"source": "zero"}, "contradiction: source is 'zero', and ann_id is "),
        (2, {"source": "one"}, r"contradiction: source is 'one', and ann_id is \[\]"),
        (2, {"ann_id": [-1]}, "contradiction: source is 'zero'"),
        (0, {"source": 3}, "malformed entry: source is 3, text is needed"),
        (0, {"ann_id": "101"}, "malformed entry: ann_id is '101', an integer or a list of them is needed"),
        (0, {"ann_id": [True]}, "malformed entry: ann_id is "),
        (0, {"ann_id": None}, "malformed entry: ann_id is None"),
        (0, {"ann_id": [101, 999]}, "unknown id in annotations"),
    ],
)
def test_a_contradiction_in_ref_zom_is_reported(root, load, index, change, message):
    tiny = ref_zom()
    tiny.refs[index].update(change)
    tiny.write(root, "ref-zom", "final")
    with pytest.raises(ValueError, match=rf"ref-zom \(final\), ref 100{index + 1} of refs\(final\)\.p, .*: {message}"):
        load("ref-zom", "final")
    assert len(load("ref-zom", "final", "train", on_error="skip")) == 2


def test_a_sentence_that_is_true_in_a_ref_of_nothing_is_a_contradiction(root, load):
    tiny = ref_zom()
    tiny.refs[2]["sentences"][0]["exist"] = True
    tiny.write(root, "ref-zom", "final")
    with pytest.raises(ValueError, match="contradiction: the ref means nothing, and sentence "):
        load("ref-zom", "final")


# aRefCOCO


def test_an_ambiguous_description_means_the_object_of_its_original_set(root, load):
    write_arefcoco(root, ambiguous_entries())
    data = load("arefcoco", "authors")
    assert {split: rows["ref_id"][:] for split, rows in data.items()} == {"train": [3], "test": [1, 2]}
    assert data["test"].features == refer_features()
    assert data["test"]["sentences"][:] == [["the person beside another", "a long one"], ["the person of G-Ref"]]
    assert data["test"]["image_id"][:] == [1, 1] and data["train"]["image_id"][:] == [4]
    polygons = [rectangle(2.5, 3.0, 12.5, 15.0)], [rectangle(1, 1, 9, 20)]
    for row, outline in zip(data["test"], polygons, strict=True):
        assert np.array_equal(row_mask(row), union(outline, *SIZES[0]))


def test_a_name_that_begins_with_that_of_g_ref_means_it(root, load):
    entries = ambiguous_entries()
    entries[1]["original_dataset"] = "refcocog_umd"
    write_arefcoco(root, entries)
    row = load("arefcoco", "authors", "test")[1]
    assert np.array_equal(row_mask(row), union([rectangle(1, 1, 9, 20)], *SIZES[0]))


def test_a_check_of_arefcoco_asks_for_no_train_and_compares_one_that_is_there(root):
    write_arefcoco(root, ambiguous_entries()[:2])
    (result,) = check_data(root, "arefcoco")
    assert list(result.published) == ["test"] and result.splits == ["test"]
    write_arefcoco(root, ambiguous_entries())
    (result,) = check_data(root, "arefcoco")
    assert result.published["train"].sentences == 110818 and result.agrees("train") is False


def test_a_ref_id_of_the_original_set_that_stands_twice_is_reported(root, load):
    write_arefcoco(root, ambiguous_entries())
    tiny = TinyRefer()
    tiny.refs.append({**tiny.refs[0], "ann_id": 102, "image_id": 2})
    tiny.write(root, "refcoco")
    with pytest.raises(ValueError, match="unknown id in refs: refcoco/refs.unc.*has 2 ref of id 1001, one is needed"):
        load("arefcoco", "authors")


def test_a_picture_is_that_of_the_original_set_of_each_entry(root, load):
    write_arefcoco(root, ambiguous_entries())
    tiny = TinyRefer()
    tiny.images[0]["file_name"] = "gone.jpg"
    tiny.write(root, "refcocog", "umd")
    with pytest.raises(ValueError, match=r"entry 2 of arefcoco\.json, picture 'gone\.jpg': missing picture"):
        load("arefcoco", "authors")
    assert load("arefcoco", "authors", "test", on_error="skip")["ref_id"][:] == [1]


def test_only_the_original_sets_that_are_described_are_needed(root, load):
    write_arefcoco(root, ambiguous_entries()[:1])
    shutil.rmtree(root / "refcocog")
    assert len(load("arefcoco", "authors", "test")) == 1
    (root / "refcoco" / "refs(unc).p").unlink()
    message = r"refs\(unc\)\.p is missing; arefcoco\.json describes objects of refcoco, so data_dir must hold refcoco/"
    with pytest.raises(FileNotFoundError, match=message):
        load("arefcoco", "authors")
    (result,) = check_data(root, "arefcoco")
    assert "describes objects of refcoco" in result.problems["unreadable file"].first


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ref_id": 5}, "unknown id in refs: refcoco/refs.unc.*no ref of id 5"),
        ({"ref_id": "1001"}, "malformed entry: ref_id is '1001'"),
        ({"original_dataset": "refcoco+"}, "malformed entry: original_dataset is 'refcoco.', refcoco or refcocog"),
        ({"original_dataset": "../refcoco"}, "malformed entry: original_dataset is '../refcoco', refcoco or refcocog"),
        ({"original_dataset": ["refcoco"]}, "malformed entry: original_dataset is "),
        ({"descriptions": "text"}, "malformed entry: descriptions is 'text', a list is needed"),
        ({"descriptions": [3]}, "malformed entry: descriptions holds 3, texts are needed"),
        ({"descriptions": []}, "no sentence"),
        ({"split": "../x"}, "malformed entry: split is "),
    ],
)
def test_what_is_wrong_in_an_ambiguous_entry_is_reported(root, load, change, message):
    entries = ambiguous_entries()
    entries[0].update(change)
    write_arefcoco(root, entries)
    with pytest.raises(ValueError, match=rf"arefcoco \(authors\), entry 1 of arefcoco\.json, .*: {message}"):
        load("arefcoco", "authors")


@pytest.mark.parametrize("content", ["[]", "{}", '{"annotations": 3}', '{"annotations": [3]}', "no", "[" * 100_000])
def test_an_arefcoco_file_of_another_form_is_refused(root, load, content):
    write_arefcoco(root, [])
    (root / "arefcoco" / "arefcoco.json").write_text(content)
    with pytest.raises(ValueError, match=r"arefcoco\.json (is not read|has annotations)"):
        load("arefcoco", "authors")


# PhraseCut


@pytest.mark.parametrize(
    "folder, pictures", [("VGPhraseCut_v0", "image_data_split.json"), ("phrasecut", "image_data_split3000.json")]
)
def test_a_phrase_means_all_of_its_instances_pixel_for_pixel(root, load, folder, pictures):
    tiny = TinyPhraseCut()
    tiny.write(root, folder, pictures)
    data = load("phrasecut", "authors")
    assert {split: rows["ref_id"][:] for split, rows in data.items()} == {
        "train": [1],
        "val": [10_000_001],
        "test": [20_000_001],
        "miniv": [30_000_001],
    }
    row = data["train"][0]
    assert (row["image_id"], row["ann_id"], row["category"]) == (2_300_001, [1001, 1002], ["people"] * 2)
    assert row["sentences"] == ["walking people"] and row["bbox"] == [[2, 3, 10, 12]] * 2
    assert np.array_equal(row_mask(row), phrasecut_mask(tiny.tasks["train"][0]["Polygons"], *SIZES[0]))
    assert [str(source) for source in load_sources("phrasecut", None, root)] == ["phrasecut (authors)"]


@pytest.mark.parametrize("seed", range(5))
def test_masks_of_phrases_are_the_published_drawing_of_any_polygons(root, load, seed):
    generator = np.random.default_rng(seed)
    tiny = TinyPhraseCut()
    height, width = SIZES[0]
    points = generator.uniform((-5, -5), (width + 5, height + 5), (3, 2, 6, 2)).tolist()
    tiny.tasks["train"] = [tiny.task(2_300_001, "them", points)]
    tiny.write(root)
    row = load("phrasecut", "authors", "train")[0]
    assert np.array_equal(row_mask(row), phrasecut_mask(points, height, width))


def test_a_polygon_of_two_points_is_its_line_and_one_of_fewer_is_counted(root, load, caplog):
    tiny = TinyPhraseCut()
    polygons = [[[[3, 3], [30, 20]], [[7, 7]], []]]
    tiny.tasks["train"] = [tiny.task(2_300_001, "a line", polygons)]
    tiny.write(root)
    row = load("phrasecut", "authors", "train")[0]
    assert np.array_equal(row_mask(row), phrasecut_mask([[polygons[0][0]]], *SIZES[0])) and row_mask(row).any()
    assert "Left out: 2 × polygon under 2 points." in caplog.text


def test_a_picture_that_is_listed_twice_is_reported(root, load):
    tiny = TinyPhraseCut()
    tiny.pictures.append(dict(tiny.pictures[0]))
    tiny.write(root)
    with pytest.raises(ValueError, match="repeated id in images: image_data_split.json has 2300001 2 times in images"):
        load("phrasecut", "authors")


def test_the_cache_of_phrases_follows_their_files(root, load):
    tiny = TinyPhraseCut()
    tiny.write(root)
    assert load("phrasecut", "authors", "train")["sentences"][:] == [["walking people"]]
    tiny.tasks["train"][0]["phrase"] = "them"
    tiny.write(root)
    assert load("phrasecut", "authors", "train")["sentences"][:] == [["them"]]


@pytest.mark.parametrize("content", ["{}", "[3]", "no", "[" * 100_000, '[{"phrase": "a", "phrase": "b"}]', "é"])
def test_a_file_of_phrases_of_another_form_is_refused(root, load, content):
    TinyPhraseCut().write(root)
    (root / "VGPhraseCut_v0" / "refer_val.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=r"refer_val\.json(, line 1)?(: byte| is not read| holds)"):
        load("phrasecut", "authors")


def test_splits_of_phrases_that_were_not_downloaded_are_not_there(root, load):
    TinyPhraseCut().write(root)
    for split in ("train", "val", "miniv"):
        (root / "VGPhraseCut_v0" / f"refer_{split}.json").unlink()
    assert load("phrasecut", "authors")["test"]["ref_id"][:] == [20_000_001]
    (root / "VGPhraseCut_v0" / "refer_train.json").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"refer_train\.json is missing"):
        load("phrasecut", "authors")
    for split in ("train", "test"):
        (root / "VGPhraseCut_v0" / f"refer_{split}.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds none of refer_train\.json"):
        load("phrasecut", "authors")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"Polygons": []}, r"malformed entry: Polygons is \[\]"),
        ({"Polygons": [[[[1, 2], [3, 4], [5]]]]}, "malformed entry: instance_boxes is "),
        ({"Polygons": [[], []]}, "annotation off the picture: instance 1 covers no pixel"),
        ({"Polygons": [[[[1, 2], [3, 4], [5]]], [[]]]}, "malformed entry: a polygon of instance 1 is "),
        ({"Polygons": [[[[1, 2], [3, 4], ["5", 6]]], [[]]]}, "annotation off the picture: a polygon of instance 1"),
        ({"Polygons": [[[[1, 2], [3, 1e9], [5, 6]]], [[]]]}, "annotation off the picture: a polygon of instance 1"),
        ({"Polygons": [[[[1, 2], [3, float("nan")], [5, 6]]], [[]]]}, "annotation off the picture"),
        ({"Polygons": [[[[-9, 2], [69, 2]] * 60_000], [[]]]}, "endless polygon"),
        ({"Polygons": "m"}, "malformed entry: Polygons is 'm'"),
        ({"instance_boxes": [[1, 2, 3], [1, 2, 3, 4]]}, "malformed entry: bbox is "),
        ({"phrase": None}, "malformed entry: phrase is None, text is needed"),
        ({"phrase": " "}, "empty sentence: sentence 1"),
        ({"task_id": "7__0"}, "contradiction: task_id is '7__0', and image_id 2300001"),
        ({"image_id": "2300001"}, "malformed entry: image_id is '2300001'"),
        ({"image_id": 7, "task_id": "7__0"}, "unknown id in images: image_data_split.json has no 7"),
        ({"phrase_structure": {"name": 3}}, "malformed entry: name is 3"),
    ],
)
def test_what_is_wrong_in_a_phrase_is_reported(root, load, change, message):
    tiny = TinyPhraseCut()
    tiny.tasks["train"][0].update(change)
    tiny.write(root)
    name = rf"phrase 1 \('{tiny.tasks['train'][0]['task_id']}'\) of refer_train\.json"
    with pytest.raises(ValueError, match=rf"phrasecut \(authors\), {name}, .*: {message}"):
        load("phrasecut", "authors")


@pytest.mark.parametrize(
    "content", ["{}", "[3]", "no", '[{"image_id": "../../etc/hostname"}]', '[{"image_id": null}]']
)
def test_a_list_of_pictures_of_another_form_is_refused(root, load, content):
    TinyPhraseCut().write(root)
    (root / "VGPhraseCut_v0" / "image_data_split.json").write_text(content)
    with pytest.raises(ValueError, match=r"image_data_split\.json (is not read|holds|has an image_id)"):
        load("phrasecut", "authors")


# All of them


def test_a_check_counts_sentences_by_what_they_mean(root):
    ref_zom().write(root, "ref-zom", "final")
    robust().write(root, "R-refcoco")
    write_arefcoco(root, ambiguous_entries())
    TinyPhraseCut().write(root)
    results = {result.name: result for result in check_data(root)}
    assert not any(result.problems or result.missing_archives for result in results.values())

    def kinds(name, split):
        count = results[name].counts[split]
        return (count.sentences, *(getattr(count, kind, None) for kind in TARGET_KINDS))

    assert kinds("ref-zom (final)", "train") == (4, 1, 1, 2)
    assert kinds("R-refcoco (unc)", "train") == (8, 2, 6, 0)
    assert kinds("arefcoco (authors)", "test") == (3, None, None, None)
    assert kinds("phrasecut (authors)", "val") == (1, 0, 0, 1)
    assert results["R-refcoco (unc)"].is_good
    assert results["ref-zom (final)"].agrees("train") is False
    assert any("val and miniv together" in note for note in results["phrasecut (authors)"].notes)


@pytest.mark.parametrize("dataset", ["rrefcoco", "ref-zom", "arefcoco", "phrasecut"])
def test_a_check_names_what_is_missing_and_its_folder(root, dataset):
    folder = {"phrasecut": "VGPhraseCut_v0"}.get(dataset, dataset)
    (root / folder).mkdir(parents=True)
    (result,) = check_data(root, dataset)
    assert str(root / folder) in result.missing_archives[0]
    assert [each.name for each in check_data(root)] == [dataset]


@pytest.mark.parametrize("config_name", ["arefcoco_authors", "phrasecut_authors"])
def test_every_further_config_loads_by_its_name(root, tmp_path, config_name):
    write_arefcoco(root, ambiguous_entries())
    TinyPhraseCut().write(root)
    builder = ReferBuilder(config_name=config_name, data_dir=str(root), cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    assert {*builder.as_dataset()} >= {"train", "test"}
