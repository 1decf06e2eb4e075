# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Run-length encodings against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from remamber_hf.data.rle import decode_rle, run_lengths


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


def test_masks_are_decoded_as_pycocotools_does_without_its_warning(recwarn):
    generator = np.random.default_rng(0)
    for height, width, density in [(1, 1, 1.0), (7, 90, 0.5), (300, 500, 0.01), (9, 9, 0.0)]:
        mask = np.asfortranarray(generator.random((height, width)) < density, dtype=np.uint8)
        decoded = decode_rle(coco_mask.encode(mask))
        assert decoded.dtype == bool and np.array_equal(decoded, mask) and decoded.flags.f_contiguous
    assert not recwarn.list
