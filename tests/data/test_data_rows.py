# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Rows: their order, their sentences, and the mask that is drawn from one."""

import datasets
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from refer_fixture import SIZES, published_mask, rectangle

from remamber_hf.data.refer import load_refer
from remamber_hf.data.rows import row_mask


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


@pytest.mark.parametrize("home", ["HF_DATASETS_CACHE", "cache_dir"])
def test_a_cache_that_cannot_be_written_names_the_variable_to_set(tiny, root, tmp_path, monkeypatch, home):
    tiny.write(root)
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" / "datasets"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache if home == "HF_DATASETS_CACHE" else tmp_path)
    with pytest.raises(OSError, match=rf"{cache}, cannot be written .* Set HF_HOME .* or give cache_dir") as raised:
        load_refer("refcoco", "unc", data_dir=root, cache_dir=cache if home == "cache_dir" else None)
    assert "\n" not in str(raised.value)


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
