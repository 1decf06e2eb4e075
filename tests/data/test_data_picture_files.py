# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Picture files of a data set: read whole and as they are stored, in any format."""

import numpy as np
import pytest
from PIL import Image
from refer_fixture import LAYOUTS, SIZES, picture


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
