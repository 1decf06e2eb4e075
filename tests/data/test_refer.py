# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
import io
import logging
import os
import pickle
import shutil

import datasets
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from refer_fixture import LAYOUTS, SIZES, TinyRefer, picture, python2_pickle, rectangle

from remamber_hf.data import refer
from remamber_hf.data.refer import ReferBuilder, load_refer, read_refs
from remamber_hf.data.rle import decode_rle, run_lengths
from remamber_hf.data.rows import row_mask


@pytest.fixture
def load(tmp_path):
    """`load_refer` on the folder that `TinyRefer.write` filled, with a cache of the test's own."""

    def load_from(dataset="refcoco", split_by="unc", split=None, **arguments):
        arguments = {"data_dir": tmp_path / "data", "cache_dir": tmp_path / "cache", **arguments}
        return load_refer(dataset, split_by, split, **arguments)

    return load_from


@pytest.fixture
def tiny():
    return TinyRefer()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def published_mask(parts: list[dict]) -> np.ndarray:
    """The published rule, written out: decode all parts at once, add up, keep what equals 1."""
    return coco_mask.decode(parts).sum(axis=2).astype(np.uint8) == 1


# Reading


def test_a_row_holds_every_field_of_its_object(tiny, root, load):
    tiny.write(root)
    row = load(split="train")[0]
    height, width = SIZES[0]
    assert row.pop("image").size == (width, height)
    assert row == {
        "sentences": ["the left one 1", "person 1"],
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
        "grefcoco_unc",
        "refclef_berkeley",
        "refclef_unc",
        "refcoco+_unc",
        "refcoco_google",
        "refcoco_unc",
        "refcocog_google",
        "refcocog_umd",
    ]


@pytest.mark.parametrize("config_name", sorted(ReferBuilder.builder_configs))
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


def test_expand_sentences_gives_one_row_per_sentence(tiny, root, load):
    tiny.write(root)
    rows = load(split="val", expand_sentences=True)
    assert [(row["ref_id"], row["sentences"]) for row in rows] == [
        (1004, ["the left one 4"]),
        (1004, ["person 4"]),
    ]
    assert rows[1]["image"].size == SIZES[3][::-1]
    assert rows.data.column("image").to_pylist()[1]["bytes"] is None
    assert {name: split.num_rows for name, split in load(expand_sentences=True).items()} == {
        "train": 6,
        "val": 2,
        "testA": 2,
        "testB": 2,
    }


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


@pytest.mark.parametrize(
    "came, listed",
    [
        (["val", "testB", "testA", "train"], ["train", "val", "testA", "testB"]),
        (["test", "val", "train"], ["train", "val", "test"]),
        (["testC", "extra", "testAB", "other", "dev", "testA"], ["dev", "testA", "testAB", "testC", "extra", "other"]),
    ],
)
def test_splits_come_in_the_order_of_the_papers(tiny, root, load, came, listed):
    for ref, split in zip(tiny.refs, came + came[:1] * len(tiny.refs)):
        ref["split"] = split
    tiny.write(root)
    for _ in range(2):  # the second time from the cache
        assert list(load()) == listed


def test_a_sentence_id_that_came_before_is_told_and_its_sentence_kept(tiny, root, load, caplog):
    tiny.refs[1]["sentences"][0]["sent_id"] = tiny.refs[0]["sentences"][0]["sent_id"]
    tiny.write(root)
    for _ in range(2):
        caplog.clear()
        assert load(split="train")[1]["sentences"] == ["the left one 2", "person 2"]
        assert "Noticed: 1 × repeated sentence id." in caplog.text


def test_an_absent_object_is_refused_until_it_is_read_as_such(tiny, root, load, caplog):
    tiny.refs[0]["sentences"][1]["exist"] = False
    tiny.refs[1]["sentences"][1]["exist"] = True
    tiny.write(root)
    with pytest.raises(ValueError, match='ref 1001 .*: absent object: sentence 1 has "exist": false'):
        load()
    assert load(split="train", on_error="skip")["sentences"][:2] == [
        ["the left one 1"],
        ["the left one 2", "person 2"],
    ]
    assert "Left out: 1 × absent object." in caplog.text


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


@pytest.mark.parametrize("home", ["HF_DATASETS_CACHE", "cache_dir"])
def test_a_cache_that_cannot_be_written_names_the_variable_to_set(tiny, root, tmp_path, monkeypatch, home):
    tiny.write(root)
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" / "datasets"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache if home == "HF_DATASETS_CACHE" else tmp_path)
    with pytest.raises(OSError, match=rf"{cache}, cannot be written .* Set HF_HOME .* or give cache_dir") as raised:
        load_refer("refcoco", "unc", data_dir=root, cache_dir=cache if home == "cache_dir" else None)
    assert "\n" not in str(raised.value)


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


# Masks


def test_published_masks_leave_out_what_two_polygons_cover(tiny, root, load):
    polygons = [rectangle(2, 2, 20, 20), rectangle(10, 10, 30.5, 30.2), rectangle(40, 2, 50, 9)]
    tiny.annotations[0]["segmentation"] = polygons
    tiny.write(root)
    row = load(split="train")[0]
    parts = coco_mask.frPyObjects(polygons, *SIZES[0])
    published, union = row_mask(row), row_mask(row, "union")
    assert np.array_equal(published, published_mask(parts))
    assert np.array_equal(union, coco_mask.decode(coco_mask.merge(parts)) == 1)
    assert not published[15, 15] and union[15, 15]
    assert published.dtype == bool and published.shape == SIZES[0]


def test_an_unknown_mask_overlap_is_refused(tiny, root, load):
    tiny.write(root)
    with pytest.raises(ValueError, match="mask_overlap is 'sum'; choose one of published, union"):
        row_mask(load(split="train")[0], "sum")


@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_crowd_rle_dict_is_a_mask(tiny, root, load, is_compressed):
    mask = np.zeros(SIZES[0], dtype=np.uint8)
    mask[5:20, 7:30] = 1
    mask[10:12, 9:11] = 0
    rle = coco_mask.encode(np.asfortranarray(mask))
    runs = run_lengths(rle["counts"].decode())
    counts = rle["counts"].decode() if is_compressed else runs
    tiny.annotations[0].update(iscrowd=1, segmentation={"size": list(SIZES[0]), "counts": counts})
    tiny.write(root)
    assert np.array_equal(row_mask(load(split="train")[0]), mask == 1)


@pytest.mark.parametrize("counts", ["é", b"~", [3, 3], None])
def test_counts_that_are_no_rle_are_refused_in_one_line(counts):
    with pytest.raises(ValueError, match="the counts of an RLE are .*; give the text that pycocotools encodes"):
        decode_rle({"size": [2, 3], "counts": counts})


def test_run_lengths_are_those_of_pycocotools():
    generator = np.random.default_rng(0)
    for height, width in [(1, 1), (7, 90), (300, 500)]:
        mask = generator.random((height, width)) < generator.random()
        runs = run_lengths(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode())
        again = np.concatenate([np.full(run, index % 2, dtype=bool) for index, run in enumerate(runs)])
        assert np.array_equal(again.reshape((height, width), order="F"), mask)


def test_a_polygon_partly_off_the_picture_is_cut(tiny, root, load):
    height, width = SIZES[0]
    tiny.annotations[0]["segmentation"] = [rectangle(-10, 30, width + 5, height + 7)]
    tiny.write(root)
    mask = row_mask(load(split="train")[0])
    assert mask[30:].all() and not mask[:30].any()


def test_a_polygon_under_three_points_is_left_out_and_counted(tiny, root, load, caplog):
    tiny.annotations[0]["segmentation"] = [[1.0, 2.0, 30.0, 30.0], rectangle(2, 2, 9, 9)]
    tiny.write(root)
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        row = load(split="train")[0]
        assert "Left out: 1 × polygon under 3 points." in caplog.text
    assert np.array_equal(row_mask(row), published_mask(coco_mask.frPyObjects([rectangle(2, 2, 9, 9)], *SIZES[0])))


@pytest.mark.parametrize("num_polygons", [254, 255, 256, 300, 600])
def test_an_object_of_many_polygons_is_drawn(tiny, root, load, num_polygons):
    """pycocotools adds up areas of a list in 8 bits."""
    squares = [rectangle(x, y, x + 1, y + 1) for y in range(0, 40, 2) for x in range(0, 60, 2)]
    tiny.annotations[0]["segmentation"] = squares[:num_polygons]
    tiny.write(root)
    row = load(split="train")[0]
    parts = coco_mask.frPyObjects(tiny.annotations[0]["segmentation"], *SIZES[0])
    assert np.array_equal(row_mask(row), coco_mask.decode(parts).sum(axis=2, dtype=int) == 1)
    assert np.array_equal(row_mask(row, "union"), coco_mask.decode(parts).any(axis=2))


def test_overlaps_of_many_polygons_are_left_out_as_published(tiny, root, load):
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 30, size=(300, 2)).tolist()
    tiny.annotations[0]["segmentation"] = [rectangle(x, y, x + 9, y + 5) for x, y in corners]
    tiny.write(root)
    parts = coco_mask.frPyObjects(tiny.annotations[0]["segmentation"], *SIZES[0])
    assert np.array_equal(row_mask(load(split="train")[0]), coco_mask.decode(parts).sum(axis=2, dtype=int) == 1)


def test_masks_are_decoded_as_pycocotools_does_without_its_warning(recwarn):
    generator = np.random.default_rng(0)
    for height, width, density in [(1, 1, 1.0), (7, 90, 0.5), (300, 500, 0.01), (9, 9, 0.0)]:
        mask = np.asfortranarray(generator.random((height, width)) < density, dtype=np.uint8)
        decoded = decode_rle(coco_mask.encode(mask))
        assert decoded.dtype == bool and np.array_equal(decoded, mask) and decoded.flags.f_contiguous
    assert not recwarn.list


NAN = float("nan")
BAD_ROWS = {
    "a polygon at a billion": {"segmentation": [{"polygons": [[0.0, 0.0, 1e9, 0.0, 1e9, 1e9]], "rles": []}]},
    "a polygon of NaN": {"segmentation": [{"polygons": [[NAN, 0.0, 9.0, 0.0, 5.0, 5.0]], "rles": []}]},
    "an odd polygon": {"segmentation": [{"polygons": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]], "rles": []}]},
    "a polygon of two points": {"segmentation": [{"polygons": [[1.0, 2.0, 3.0, 4.0]], "rles": []}]},
    "an endless polygon": {"segmentation": [{"polygons": [[-50.0, 1.0, 110.0, 2.0] * 20_000], "rles": []}]},
    "a short RLE": {"segmentation": [{"polygons": [], "rles": ["56"]}]},
    "an RLE of other letters": {"segmentation": [{"polygons": [], "rles": ["\xff"]}]},
    "a long RLE": {"segmentation": [{"polygons": [], "rles": ["o" * 1000]}]},
    "two billion rows": {"height": 2**31 - 1},
    "two billion rows of nothing": {"height": 2**31 - 1, "segmentation": []},
    "no rows": {"height": 0},
    "fewer than no rows": {"height": -4},
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_row_of_another_source_that_cannot_be_drawn_is_refused(tiny, root, load, case):
    """It would read foreign memory, or take all there is."""
    tiny.write(root)
    with pytest.raises(ValueError) as raised:
        row_mask({**load(split="train")[0], **BAD_ROWS[case]})
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


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


@pytest.mark.parametrize("file_format", ["PNG", "BMP"])
def test_a_picture_of_another_format_is_read_whole_or_reported(tiny, root, load, file_format):
    tiny.write(root)
    path = root / LAYOUTS["lavt"] / tiny.images[0]["file_name"]
    picture(*SIZES[0]).save(path, file_format)
    assert load(split="train")[0]["image"].size == SIZES[0][::-1]
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match="ref 1001 .*: unreadable picture: "):
        load(on_error="raise", cache_dir=root / "another_cache")


def test_a_jpeg_with_bytes_after_its_end_is_whole(tiny, root, load):
    tiny.write(root)
    path = root / LAYOUTS["lavt"] / tiny.images[0]["file_name"]
    path.write_bytes(path.read_bytes() + b"\0" * 20)
    assert load(split="train").num_rows == 3


def test_a_picture_with_an_exif_rotation_stays_as_it_is_stored(tiny, root, load):
    tiny.write(root)
    exif = Image.Exif()
    exif[0x0112] = 3
    path = root / LAYOUTS["lavt"] / tiny.images[0]["file_name"]
    picture(*SIZES[0]).save(path, quality=95, exif=exif)
    image = np.asarray(load(split="train")[0]["image"])
    assert np.array_equal(image, np.asarray(Image.open(path)))
    assert image[2, 2, 0] > 200 and image[-2, -2, 0] < 60


def test_a_picture_of_more_pixels_than_are_read_is_reported(tiny, root, load, monkeypatch):
    tiny.write(root)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIZES[0][0] * SIZES[0][1] - 1)
    with pytest.raises(ValueError, match="ref 1001 .*: unreadable picture: .*2400 pixels"):
        load()


@pytest.mark.parametrize("content", [b"[]", b'{"images": []}', b"{", b'{"images": [3]}', b'{"images": [{"name": 1}]}'])
def test_broken_instances_are_named(tiny, root, load, content):
    tiny.write(root)
    (root / "refcoco" / "instances.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"instances\.json is not read: .* needs the lists images, annotations"):
        load()


def test_a_name_twice_in_one_object_is_an_error(tiny, root, load):
    tiny.write(root)
    path = root / "refcoco" / "instances.json"
    path.write_text(path.read_text().replace('"segmentation":', '"segmentation": [], "segmentation":', 1))
    with pytest.raises(ValueError, match=r"instances\.json is not read: .* 'segmentation' stands twice in one object"):
        load()


# Pickles


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_is_refused_by_name_and_does_nothing(tiny, root, load, tmp_path, protocol):
    marker = tmp_path / "was_here"
    tiny.refs[0]["sentences"] = Hostile(marker)
    tiny.write(root, refs_content=pickle.dumps(tiny.refs, protocol=protocol))
    with pytest.raises(
        ValueError, match=r"refs\(unc\)\.p is not read: UnpicklingError: it asks for (posix|nt|os)\.mkdir, and only"
    ):
        load(on_error="skip")
    assert not marker.exists()


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"cos\nsystem\n(S'true'\ntR.", r"os\.system"),
        (b"(ibuiltins\neval\n.", r"builtins\.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", r"builtins\.eval"),
        (b"Pname\n.", "persistent object"),
        (b"\x80\x02\x82\x01.", "unregistered extension code"),
        (b"\x80\x02]r\xff\xff\xff\x7f", "EOFError"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f", "EOFError|UnpicklingError"),
        (b"", "EOFError"),
        (b"\x80\x02}.", "holds dict, a list of dicts is needed"),
        (b"\x80\x02]K\x01a.", "holds list, a list of dicts is needed"),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, reason):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_refs(path)


def test_a_refs_file_without_refs_is_refused(tiny, root, load):
    tiny.write(root, refs_content=pickle.dumps([]))
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p holds no ref"):
        load()


def test_a_memo_index_beyond_all_memory_costs_nothing(tmp_path):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"\x80\x02]r\xff\xff\xff\x7f.")
    assert read_refs(path) == []


def test_damaged_pickles_raise_nothing_but_ValueError(tiny, tmp_path):
    content = pickle.dumps(tiny.refs, protocol=2)
    generator = np.random.default_rng(0)
    path = tmp_path / "refs(unc).p"
    num_refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for place in generator.integers(len(content), size=3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            read_refs(path)
        except ValueError:
            num_refused += 1
    assert num_refused > 100


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_python_2_text_reads_right(tiny, root, load, protocol, encoding):
    tiny.refs[0]["sentences"][0]["sent"] = "café señor à gauche"
    tiny.write(root, refs_content=python2_pickle(tiny.refs, protocol, encoding))
    assert load(split="train")[0]["sentences"] == ["café señor à gauche", "person 1"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_unicode_of_any_protocol_reads_right(tiny, root, load, protocol):
    tiny.refs[0]["sentences"][0]["sent"] = "左边的人 ☂ naïve"
    tiny.write(root, refs_content=pickle.dumps(tiny.refs, protocol=protocol))
    assert load(split="train")[0]["sentences"][0] == "左边的人 ☂ naïve"


def test_half_a_character_is_reported(tiny, root, load):
    tiny.add_generalized()
    tiny.grefs[0]["sentences"][0]["sent"] = "half \ud83d"
    tiny.write(root, "grefcoco")
    with pytest.raises(ValueError, match="which is not Unicode text"):
        load("grefcoco")


def test_the_published_unpickler_would_have_run_it(tmp_path):
    """The hostile pickle above is a real one: the standard reader runs it."""
    pickle.Unpickler(io.BytesIO(pickle.dumps(Hostile(tmp_path / "was_here")))).load()
    assert (tmp_path / "was_here").exists()
