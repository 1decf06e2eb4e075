# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What `instances.json` holds of an object, and what is refused in it."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from refer_fixture import SIZES, published_mask, rectangle

from remamber_hf.data.rle import run_lengths
from remamber_hf.data.rows import row_mask


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
