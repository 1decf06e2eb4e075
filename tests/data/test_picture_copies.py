# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of rows become files: byte for byte, each once, and by names that lead nowhere else."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image
from refer_fixture import picture

from remamber_hf.data.picture_copies import PictureCopies
from remamber_hf.pictures import open_picture


@pytest.fixture
def copies(tmp_path):
    (tmp_path / "out").mkdir()
    return PictureCopies(tmp_path / "out", "set")


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def other(number: int) -> bytes:
    return encode(Image.new("RGB", (8, 6), (number, 0, 0)))


def names(copies) -> list[str]:
    there = [each.file_name for each in copies.copied]
    assert sorted(there) == sorted(path.name for path in copies.folder.iterdir())
    return there


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_is_copied_byte_for_byte(copies, tmp_path, kind, mode):
    content = encode(picture(6, 8).convert(mode), kind)
    (tmp_path / "photo.jpg").write_bytes(content)
    assert copies.add({"path": str(tmp_path / "photo.jpg"), "bytes": None}) == 0
    assert copies.add({"path": "other.jpg", "bytes": content}) == 1
    assert names(copies) == ["photo.jpg", "other.jpg"]
    assert {path.read_bytes() for path in copies.folder.iterdir()} == {content}
    assert (copies.copied[0].height, copies.copied[0].width) == (6, 8)


def test_a_picture_of_several_rows_is_written_once(copies, tmp_path):
    (tmp_path / "a.png").write_bytes(other(1))
    for _ in range(2):
        assert copies.add({"path": str(tmp_path / "a.png"), "bytes": None}) == 0
        assert copies.add({"path": "a.png", "bytes": other(1)}) == 0
        assert copies.add({"path": None, "bytes": other(1)}) == 1
    assert names(copies) == ["a.png", "set_000000000002.png"]


def test_pictures_of_one_name_overwrite_none(copies):
    given = ["a/1.png", "b/1.png", "c/1.PNG", "1_2.png", "é.png", "e\u0301.png", "1"]
    for number, name in enumerate(given):
        copies.add({"path": name, "bytes": other(number)})
    assert names(copies) == ["1.png", "1_2.png", "1_3.PNG", "1_2_2.png", "é.png", "e\u0301_2.png", "1"]
    for number, name in enumerate(names(copies)):
        assert (copies.folder / name).read_bytes() == other(number)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("../../outside.png", "outside.png"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\outside.png", "outside.png"),
        ("C:\\Windows\\a.png", "a.png"),
        ("左/街 (2).png", "街 (2).png"),
        *((path, "set_000000000001.png") for path in ("..", ".", "", "a/", ".profile", "a\0.png", "a\n.png", None)),
        *(
            (path, "set_000000000001.png")
            for path in ("C:a.png", "a.png ", "a.", "half\ud83d.png", "x" * 300 + ".png")
        ),
    ],
)
def test_a_name_leads_nowhere_else(copies, tmp_path, path, name):
    copies.add({"path": path, "bytes": other(1)})
    assert names(copies) == [name]
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def exif(orientation: int) -> Image.Exif:
    values = Image.Exif()
    values[ExifTags.Base.Orientation] = orientation
    return values


def sixteen_bit() -> Image.Image:
    return Image.fromarray((np.arange(48, dtype=np.uint16) * 1300).reshape(6, 8))


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (encode(picture(6, 8), "JPEG", exif=exif(6)), (8, 6)),
        (encode(picture(6, 8), "JPEG", exif=exif(3)), (6, 8)),
        (encode(picture(6, 8), "PNG", exif=exif(8)), (8, 6)),
        (encode(picture(6, 8), "GIF"), (6, 8)),
        (encode(picture(6, 8), "TIFF"), (6, 8)),
        (encode(sixteen_bit(), "PNG"), (6, 8)),
    ],
    ids=["turned", "turned by half", "turned PNG", "GIF", "TIFF", "16 bits"],
)
def test_what_other_readers_would_see_otherwise_becomes_a_png_of_the_same_pixels(copies, content, size):
    copies.add({"path": "photo.jpg", "bytes": content})
    copies.add({"path": None, "bytes": content})
    assert names(copies) == ["photo.png", "set_000000000002.png"]
    for each in copies.copied:
        assert (each.height, each.width) == size
        with Image.open(copies.folder / each.file_name) as written:
            assert written.format == "PNG" and written.mode == "RGB" and not written.getexif()
            assert np.array_equal(np.asarray(written), np.asarray(open_picture(io.BytesIO(content))))


def test_a_picture_that_cannot_be_read_is_named(copies, tmp_path):
    with pytest.raises(ValueError, match=r"the picture 'a\.png' cannot be read: .*; mend it or leave its rows out"):
        copies.add({"path": "x/a.png", "bytes": b"no picture"})
    with pytest.raises(FileNotFoundError, match="gone.png"):
        copies.add({"path": str(tmp_path / "gone.png"), "bytes": None})
    assert names(copies) == []
