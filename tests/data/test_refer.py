# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""REFER sets: every field of a row, and every defect with its data set, ref and files."""

import logging
import os
import pickle
import shutil

import datasets
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from refer_fixture import LAYOUTS, SIZES, published_mask, rectangle

from remamber_hf.data import refer
from remamber_hf.data.refer import ReferBuilder, load_refer
from remamber_hf.data.rows import row_mask


# Reading


def test_a_row_holds_every_field_of_its_object(tiny, root, load):
    tiny.write(root)
    row = load(split="train")[0]
    height, width = SIZES[0]
    assert row.pop("image").size == (width, height)
    assert row == {
        "sentences": ["the left one 1", "person 1"],
        "sentence_ids": [0, 1],
        "ref_id": 1001,
        "ann_id": 101,
        "image_id": 1,
        "category": "person",
        "bbox": [2.5, 3.0, 10.0, 12.0],
        "height": height,
        "width": width,
        "split": "train",
        "segmentation": [{"polygons": [rectangle(2.5, 3.0, 12.5, 15.0)], "rles": []}],
    }


@pytest.mark.parametrize("layout", ["lavt", "remamber", "grefcoco", "mscoco", "mscoco_flat", "coco"])
def test_each_folder_layout_is_found_by_itself(tiny, root, load, layout):
    tiny.write(root, layout=layout)
    data = load().cast_column("image", datasets.Image(decode=False))
    names = [name.name for name in (root / LAYOUTS[layout]).iterdir()]
    assert sorted(os.path.basename(row["image"]["path"]) for split in data.values() for row in split) == sorted(names)


@pytest.mark.parametrize("layout", ["refclef", "refclef_flat"])
def test_refclef_has_its_own_pictures_and_lists_of_rle(tiny, root, load, layout):
    height, width = SIZES[0]
    rles = coco_mask.frPyObjects([rectangle(2, 2, 20, 20), rectangle(10, 10, 30, 30)], height, width)
    tiny.annotations[0]["segmentation"] = [{**rle, "counts": rle["counts"].decode()} for rle in rles]
    tiny.write(root, "refclef", "berkeley", layout)
    row = load("refclef", "berkeley", "train")[0]
    assert len(row["segmentation"][0]["rles"]) == 2
    assert np.array_equal(row_mask(row), published_mask(rles))


def test_a_picture_is_found_in_whichever_folder_has_it(tiny, root, load):
    tiny.write(root)
    (root / LAYOUTS["remamber"]).mkdir()
    name = tiny.images[0]["file_name"]
    shutil.move(root / LAYOUTS["lavt"] / name, root / LAYOUTS["remamber"] / name)
    assert load(split="train").num_rows == 3


def test_pictures_are_kept_by_path_and_masks_as_polygons(tiny, root, load):
    tiny.write(root)
    column = load(split="train").data.column("image").to_pylist()
    assert all(value["bytes"] is None and os.path.isabs(value["path"]) for value in column)


def test_there_is_one_config_per_data_set_and_split_by():
    assert sorted(ReferBuilder.builder_configs) == [
        "arefcoco_authors",
        "grefcoco_unc",
        "phrasecut_authors",
        "ref-zom_final",
        "refclef_berkeley",
        "refclef_unc",
        "refcoco+_unc",
        "refcoco_google",
        "refcoco_unc",
        "refcocog_google",
        "refcocog_umd",
        "rrefcoco+_unc",
        "rrefcoco_unc",
        "rrefcocog_unc",
    ]


# Those of other files are in test_refs.py.
@pytest.mark.parametrize(
    "config_name", sorted({*ReferBuilder.builder_configs} - {"arefcoco_authors", "phrasecut_authors"})
)
def test_every_config_loads_by_its_name(tiny, root, tmp_path, config_name):
    dataset, split_by = config_name.split("_")
    tiny.add_generalized()
    tiny.write(root, dataset, split_by, "refclef" if dataset == "refclef" else "lavt")
    builder = ReferBuilder(config_name=config_name, data_dir=str(root), cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    assert set(builder.as_dataset()) >= {"train", "val"}


def test_rows_stream_without_a_cache(tiny, root, tmp_path):
    tiny.write(root)
    builder = ReferBuilder(config_name="refcoco_unc", data_dir=str(root), cache_dir=str(tmp_path / "cache"))
    rows = list(builder.as_streaming_dataset("train"))
    assert [row["ref_id"] for row in rows] == [1001, 1002, 1003]


def test_a_further_folder_is_a_data_set_with_the_splits_of_its_file(tiny, root, load):
    for ref, split in zip(tiny.refs, ["train", "train", "dev", "dev", "dev", "test"]):
        ref["split"] = split
    tiny.write(root, "shapes", "ours")
    assert {name: split.num_rows for name, split in load("shapes", "ours").items()} == {
        "train": 2,
        "dev": 3,
        "test": 1,
    }


def test_test_on_refcoco_names_testA_and_testB(tiny, root, load):
    tiny.write(root)
    with pytest.raises(ValueError, match=r"no split 'test'; its splits are train, val, testA, testB\."):
        load(split="test")


def test_an_unknown_split_by_names_those_there_are(root):
    with pytest.raises(ValueError, match=r"refcocog is not split by 'unc'; choose one of umd, google\."):
        load_refer("refcocog", "unc", data_dir=root)


def test_absent_files_are_named(tiny, root, load):
    with pytest.raises(FileNotFoundError, match=r"refcoco.instances\.json is missing; data_dir must hold"):
        load()
    tiny.write(root)
    shutil.rmtree(root / "images")
    with pytest.raises(FileNotFoundError, match=r"put them into images/mscoco/images/train2014 or train2014"):
        load()


def test_an_unknown_on_error_is_refused(tiny, root, load):
    tiny.write(root)
    with pytest.raises(ValueError, match="on_error is 'ignore'; choose one of raise, skip"):
        load(on_error="ignore")


def test_the_cache_follows_the_refs_and_the_annotations(tiny, root, load):
    tiny.write(root)
    assert load(split="val")[0]["sentences"][0] == "the left one 4"
    tiny.refs[3]["sentences"][0]["sent"] = "the last one 4"  # of the same length
    tiny.write(root)
    assert load(split="val")[0]["sentences"][0] == "the last one 4"
    tiny.annotations[3]["bbox"] = [9, 9, 9, 9]
    tiny.write(root)
    assert load(split="val")[0]["bbox"] == [9, 9, 9, 9]


def test_the_cache_is_used_when_nothing_changed(tiny, root, load, monkeypatch):
    tiny.write(root)
    load()
    monkeypatch.setattr(refer, "RowReader", None)
    assert load(split="train").num_rows == 3


def test_sentences_are_read_as_cleaned_or_as_written(tiny, root, load):
    tiny.write(root)
    assert load(split="val")[0]["sentences"] == ["the left one 4", "person 4"]
    assert load(split="val", sentences="raw")[0]["sentences"] == ["THE LEFT ONE 4", "PERSON 4"]
    assert load(split="val", sentences="sent")[0]["sentences"] == ["the left one 4", "person 4"]
    with pytest.raises(ValueError, match="sentences is 'tokens'; choose one of sent, raw"):
        load(sentences="tokens")
    del tiny.refs[0]["sentences"][0]["raw"]
    tiny.write(root)
    with pytest.raises(ValueError, match="ref 1001 .*: malformed entry: raw is None, text is needed"):
        load(sentences="raw")


def test_a_sentence_id_that_came_before_is_told_and_its_sentence_kept(tiny, root, load, caplog):
    tiny.refs[1]["sentences"][0]["sent_id"] = tiny.refs[0]["sentences"][0]["sent_id"]
    tiny.write(root)
    for _ in range(2):
        caplog.clear()
        assert load(split="train")[1]["sentences"] == ["the left one 2", "person 2"]
        assert "Noticed: 1 × repeated sentence id." in caplog.text


def test_a_further_set_may_have_its_own_folder_of_pictures(tiny, root, load):
    tiny.write(root, "rrsisd")
    (root / "images" / "rrsisd").mkdir()
    shutil.move(root / LAYOUTS["lavt"], root / "images" / "rrsisd" / "JPEGImages")
    assert load("rrsisd", split="train").num_rows == 3


def test_a_missing_picture_names_the_folders_that_were_looked_in(tiny, root, load):
    tiny.images[0]["file_name"] = "00001.jpg"
    tiny.write(root, "rrsisd")
    with pytest.raises(ValueError, match=rf"there is no '00001\.jpg' in {root}/{LAYOUTS['lavt']}\."):
        load("rrsisd")


# gRefCOCO


def test_a_generalized_row_has_several_objects_or_none(tiny, root, load):
    tiny.add_generalized()
    tiny.write(root, "grefcoco")
    data = load("grefcoco")
    several, nothing = data["train"][0], data["val"][0]
    assert several["ann_id"] == [101, 201]
    assert several["category"] == ["person", "car"]
    assert several["bbox"] == [[2.5, 3.0, 10.0, 12.0], [5, 5, 20, 20]]
    assert nothing["ann_id"] == nothing["category"] == nothing["bbox"] == nothing["segmentation"] == []
    assert nothing["sentences"] == ["a green dog"]
    assert row_mask(nothing).shape == SIZES[1]
    assert not row_mask(nothing).any()


def test_objects_of_a_generalized_row_are_joined_under_either_rule(tiny, root, load):
    tiny.add_generalized()
    tiny.write(root, "grefcoco")
    row = load("grefcoco", split="train")[0]
    polygons = [rectangle(2.5, 3.0, 12.5, 15.0), rectangle(5, 5, 25, 25)]
    union = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *SIZES[0]))) == 1
    assert np.array_equal(row_mask(row, "published"), union)
    assert np.array_equal(row_mask(row, "union"), union)


def test_the_generalized_file_of_a_further_set_is_asked_for(tiny, root, load):
    tiny.add_generalized()
    tiny.write(root, "shapes")
    assert load("shapes", split="train").num_rows == 3
    assert load("shapes", split="train", generalized=True)[0]["ann_id"] == [101, 201]


@pytest.mark.parametrize("ann_ids", [[], ["101"], None, [-1, 101]])
def test_a_generalized_ref_with_other_annotation_ids_is_reported(tiny, root, load, ann_ids):
    tiny.add_generalized()
    tiny.grefs[0]["ann_id"] = ann_ids
    tiny.write(root, "grefcoco")
    with pytest.raises(ValueError, match=r"grefcoco \(unc\), ref 1001 of grefs\(unc\)\.json, .*(ann_id is|no -1 in)"):
        load("grefcoco")


def with_crowd(tiny):
    """The second of both objects is a crowd: a rectangle apart from the first."""
    tiny.add_generalized()
    tiny.annotations[-1].update(iscrowd=1, segmentation=[rectangle(30, 5, 36, 11)])


def test_crowds_of_a_generalized_row_are_left_out_and_counted(tiny, root, load, caplog):
    with_crowd(tiny)
    tiny.write(root, "grefcoco")
    row = load("grefcoco", split="train")[0]
    assert (row["ann_id"], row["category"], row["bbox"]) == ([101], ["person"], [[2.5, 3.0, 10.0, 12.0]])
    parts = coco_mask.frPyObjects(tiny.annotations[0]["segmentation"], *SIZES[0])
    assert np.array_equal(row_mask(row), published_mask(parts))
    assert "Left out: 1 × crowd in a generalised ref." in caplog.text


def test_a_generalized_ref_of_crowds_only_is_reported(tiny, root, load):
    with_crowd(tiny)
    tiny.grefs[0]["ann_id"] = [201]
    tiny.write(root, "grefcoco")
    with pytest.raises(ValueError, match=r"ref 1001 of grefs\(unc\)\.json, .*: only crowds: "):
        load("grefcoco")


def test_a_crowd_that_a_ref_of_one_object_means_is_its_mask(tiny, root, load):
    tiny.annotations[0]["iscrowd"] = 1
    tiny.write(root)
    assert row_mask(load(split="train")[0]).any()


# Defects


def unknown_annotation(tiny, root):
    tiny.refs[0]["ann_id"] = 999


def unknown_picture(tiny, root):
    tiny.refs[0]["image_id"] = 999


def unknown_category(tiny, root):
    tiny.annotations[0]["category_id"] = 999


def annotation_of_another_picture(tiny, root):
    tiny.refs[0]["ann_id"] = 102


def repeated_ref_id(tiny, root):
    tiny.refs.insert(1, tiny.refs[0])


def annotation_id_twice(tiny, root):
    tiny.annotations.append({**tiny.annotations[0], "segmentation": [rectangle(0, 0, 5, 5)]})


def image_id_twice(tiny, root):
    tiny.images.append(dict(tiny.images[0]))


def category_id_twice(tiny, root):
    tiny.categories.append({"id": 3, "name": "cat"})
    tiny.annotations[0]["category_id"] = 3


def polygon_to_and_fro(tiny, root):
    tiny.annotations[0]["segmentation"] = [[-50, 1, 110, 2] * 20_000]


def no_annotation_id(tiny, root):
    del tiny.refs[0]["ann_id"]


def split_that_is_no_word(tiny, root):
    tiny.refs[0]["split"] = "../train"


def only_two_points(tiny, root):
    tiny.annotations[0]["segmentation"] = [[1, 2, 30, 30]]


def no_segmentation(tiny, root):
    tiny.annotations[0]["segmentation"] = []


def odd_polygon(tiny, root):
    tiny.annotations[0]["segmentation"] = [[1, 2, 3, 4, 5, 6, 7]]


def annotation_off_the_picture(tiny, root):
    tiny.annotations[0]["segmentation"] = [rectangle(-30, 1, -10, 20)]


def endless_polygon(tiny, root):
    tiny.annotations[0]["segmentation"] = [rectangle(0, 0, 1e15, 10)]


def polygon_of_nan(tiny, root):
    tiny.annotations[0]["segmentation"] = [[float("nan"), 1, 2, 3, 4, 5]]


def short_rle(tiny, root):
    tiny.annotations[0]["segmentation"] = {"size": list(SIZES[0]), "counts": [5, 6]}


def short_compressed_rle(tiny, root):
    tiny.annotations[0]["segmentation"] = {"size": list(SIZES[0]), "counts": "56"}


def rle_of_another_size(tiny, root):
    height, width = SIZES[0]
    tiny.annotations[0]["segmentation"] = {"size": [width, height], "counts": [0, height * width]}


def no_text(tiny, root):
    for sentence in tiny.refs[0]["sentences"]:
        sentence["sent"] = None


def three_numbers_for_a_box(tiny, root):
    tiny.annotations[0]["bbox"] = [1, 2, 3]


def missing_picture(tiny, root):
    (root / LAYOUTS["lavt"] / tiny.images[0]["file_name"]).unlink()


def truncated_picture(tiny, root):
    path = root / LAYOUTS["lavt"] / tiny.images[0]["file_name"]
    path.write_bytes(path.read_bytes()[:-60])


def empty_picture(tiny, root):
    (root / LAYOUTS["lavt"] / tiny.images[0]["file_name"]).write_bytes(b"")


def picture_of_another_size(tiny, root):
    tiny.images[0]["height"] += 1


def picture_outside_the_folder(tiny, root):
    tiny.images[0]["file_name"] = "../train2014/" + tiny.images[0]["file_name"]


def picture_by_absolute_path(tiny, root):
    tiny.images[0]["file_name"] = str(root / LAYOUTS["lavt"] / tiny.images[0]["file_name"])


DEFECTS = {
    unknown_annotation: "unknown id in annotations",
    unknown_picture: "unknown id in images",
    unknown_category: "unknown id in categories",
    annotation_of_another_picture: "annotation of another picture",
    repeated_ref_id: "repeated ref id",
    annotation_id_twice: "repeated id in annotations",
    image_id_twice: "repeated id in images",
    category_id_twice: "repeated id in categories",
    polygon_to_and_fro: "endless polygon",
    no_annotation_id: "malformed entry",
    split_that_is_no_word: "malformed entry",
    only_two_points: "no polygon of 3 points",
    no_segmentation: "no polygon of 3 points",
    odd_polygon: "malformed entry",
    annotation_off_the_picture: "annotation off the picture",
    endless_polygon: "annotation off the picture",
    polygon_of_nan: "annotation off the picture",
    short_rle: "RLE that does not fill the picture",
    short_compressed_rle: "RLE that does not fill the picture",
    rle_of_another_size: "RLE that does not fill the picture",
    no_text: "malformed entry",
    three_numbers_for_a_box: "malformed entry",
    missing_picture: "missing picture",
    truncated_picture: "unreadable picture",
    empty_picture: "unreadable picture",
    picture_of_another_size: "picture of another size",
    picture_outside_the_folder: "picture name leaves the folder",
    picture_by_absolute_path: "picture name leaves the folder",
}


def write_with(defect, tiny, root):
    tiny.write(root)
    defect(tiny, root)
    if defect not in (missing_picture, truncated_picture, empty_picture):
        tiny.write(root)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_defect_is_reported_with_data_set_ref_and_files(tiny, root, load, defect):
    write_with(defect, tiny, root)
    with pytest.raises(ValueError) as raised:
        load()
    message = str(raised.value)
    name = None if defect is unknown_picture else tiny.images[0]["file_name"]
    assert message.startswith(f"refcoco (unc), ref 1001 of refs(unc).p, picture {name!r}: {DEFECTS[defect]}: ")
    assert 'on_error="skip"' in message


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_skipped_defect_is_counted_at_every_load(tiny, root, load, defect, caplog):
    write_with(defect, tiny, root)
    expected = [1001, 1002, 1003] if defect is repeated_ref_id else [1002, 1003]
    for is_cached in (False, True):
        caplog.clear()
        data = load(split="train", on_error="skip")
        assert data["ref_id"][:] == expected
        assert f"from {len(tiny.refs)} refs. Left out: 1 × {DEFECTS[defect]}." in caplog.text
        assert ("ref 1001 of refs(unc).p" in caplog.text) is not is_cached
    assert f"1 × {DEFECTS[defect]}" in data.info.description


def test_only_the_empty_sentence_is_skipped(tiny, root, load, caplog):
    tiny.refs[0]["sentences"][0]["sent"] = "  "
    tiny.write(root)
    with pytest.raises(ValueError, match=r"ref 1001 of .*: empty sentence: sentence 0"):
        load()
    assert load(split="train", on_error="skip")[0]["sentences"] == ["person 1"]
    assert "Left out: 1 × empty sentence." in caplog.text


def test_a_ref_whose_sentences_are_all_empty_is_skipped(tiny, root, load, caplog):
    for sentence in tiny.refs[0]["sentences"]:
        sentence["sent"] = ""
    tiny.write(root)
    assert load(split="train", on_error="skip")["ref_id"][:] == [1002, 1003]
    assert "Left out: 2 × empty sentence, 1 × no sentence." in caplog.text


def test_a_whole_data_set_leaves_nothing_out(tiny, root, load, caplog):
    caplog.set_level(logging.INFO)
    tiny.write(root)
    assert "Left out" not in load(split="train").info.description
    assert "Left out" not in caplog.text


def test_a_split_of_which_nothing_is_left_is_an_error(tiny, root, load):
    tiny.refs[3]["ann_id"] = 999
    tiny.write(root)
    with pytest.raises(ValueError, match="All of split val is left out; .* Left out: 1 × unknown id in annotations"):
        load(split="train", on_error="skip")


def test_a_picture_that_came_later_ends_the_skip(tiny, root, load):
    write_with(missing_picture, tiny, root)
    assert load(split="train", on_error="skip").num_rows == 2
    tiny.write(root)
    assert load(split="train", on_error="skip").num_rows == 3


def test_a_refs_file_without_refs_is_refused(tiny, root, load):
    tiny.write(root, refs_content=pickle.dumps([]))
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p holds no ref"):
        load()
