# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The one reader of pictures: what it turns upright, and what it refuses before it is decoded."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from remamber_hf import pictures
from remamber_hf.pictures import open_picture, picture_endings, read_picture


ARRAY = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
ORIENTATION, EXPOSURE = 0x112, 0x9203


def exif_block(orientation: int, *entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF data with an orientation and, in the inner directory, entries (tag, type, count, 4 to 8 bytes of value)."""

    def directory(entries, at):
        head, body = struct.pack("<H", len(entries)), b""
        for tag, kind, count, value in entries:
            if len(value) > 4:
                place = at + 2 + 12 * len(entries) + 4 + len(body)
                body, value = body + value, struct.pack("<I", place)
            head += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
        return head + bytes(4) + body

    inner = 8 + 2 + 2 * 12 + 4
    outer = [(ORIENTATION, 3, 1, struct.pack("<H", orientation)), (0x8769, 4, 1, struct.pack("<I", inner))]
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory(outer, 8) + directory(list(entries), inner)


ODD = {
    "a negative SRATIONAL": (EXPOSURE, 10, 1, struct.pack("<ii", -1, 0)),
    "a type that is none": (EXPOSURE, 99, 1, b"abcd"),
    "a value beyond the end": (EXPOSURE, 10, 1_000_000, b"abcdefgh"),
    "a negative SLONG where a count belongs": (EXPOSURE, 9, 1, struct.pack("<i", -5)),
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("odd", ODD)
def test_a_picture_is_turned_upright_whatever_else_its_exif_data_have(odd, file_format):
    content = io.BytesIO()
    Image.fromarray(ARRAY).save(content, file_format, exif=exif_block(6, ODD[odd]), quality=95)
    picture = open_picture(content)
    with Image.open(content) as stored:
        expected = np.rot90(np.asarray(stored.convert("RGB")), -1)
    np.testing.assert_array_equal(np.asarray(picture), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_data_that_are_none_turn_nothing():
    for exif in (b"Exif\0\0garbage!", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f"):
        content = io.BytesIO()
        Image.fromarray(ARRAY).save(content, "JPEG", exif=exif)
        assert open_picture(content).size == (30, 20)


def test_a_picture_that_was_opened_is_not_turned_again():
    content = io.BytesIO()
    Image.fromarray(ARRAY).save(content, "PNG", exif=exif_block(6))
    once = open_picture(content)
    assert once.size == (20, 30) and not once.info
    np.testing.assert_array_equal(np.asarray(open_picture(once)), np.asarray(once))


def png_of_size(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it has this size."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    "size", [(10_000, 9_000), (13_377, 13_377), (1, 80_000_000), (100_000_000, 1), (2**31 - 1, 1)]
)
def test_pixels_and_sides_have_one_bound_that_is_seen_before_anything_is_decoded(size):
    with pytest.raises(ValueError, match="BytesIO' cannot be read .*REMAMBER_MAX_PIXELS"):
        open_picture(io.BytesIO(png_of_size(*size)))


def test_the_bound_on_pixels_can_be_moved(monkeypatch):
    content = io.BytesIO()
    Image.fromarray(ARRAY).save(content, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with pytest.raises(ValueError, match="(at most|exceeds limit of) 599 .*make it smaller, or raise"):
        read_picture(content.getvalue())
    pictures.set_max_pixels("600")
    assert read_picture(content.getvalue()).size == (30, 20)
    for number in ("0", "-1", "many", "1.5", "", "²", None, 0):
        with pytest.raises(ValueError, match="a whole number above 0"):
            pictures.set_max_pixels(number)


def test_a_file_of_the_user_that_pillow_opened_has_the_same_bounds_and_formats(monkeypatch):
    content = io.BytesIO()
    Image.fromarray(ARRAY).save(content, "PNG")
    image = Image.open(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    for read in (open_picture, pictures.to_rgb):
        with pytest.raises(ValueError, match="30×20 pixels"):
            read(image)
    assert open_picture(Image.fromarray(ARRAY)).size == (30, 20)  # in memory already


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\n30 20 moveto showpage\n%%EOF\n"


@pytest.mark.parametrize("ending", [".eps", ".png", ".jpg", ""])
def test_no_program_is_started_for_a_picture(ending, tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    path = tmp_path / f"picture{ending}"
    path.write_bytes(EPS)
    with pytest.raises(ValueError, match="no picture of the formats"):
        open_picture(path)
    with Image.open(path) as image:
        for read in (open_picture, pictures.to_rgb):
            with pytest.raises(ValueError, match="format is EPS"):
                read(image)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "zero.png", "folder.png"):
        with pytest.raises(ValueError, match=f"{name}' is (no regular file|a folder)"):
            open_picture(tmp_path / name)
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "nowhere.png").symlink_to("nothing")
    for name in ("loop.png", "nowhere.png", "a\0b.png", "n" * 300):
        with pytest.raises(FileNotFoundError, match="There is no file"):
            open_picture(str(tmp_path / name))


def test_a_stream_that_never_ends_is_not_read_for_ever(monkeypatch):
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = bytes(len(buffer))
            return len(buffer)

    monkeypatch.setattr(pictures.read_bounded, "__defaults__", (2**20,))
    with pytest.raises(ValueError, match="gives more than 1 MiB"):
        open_picture(io.BufferedReader(Endless()))


def test_the_endings_are_those_of_what_is_read():
    assert {".jfif", ".jpe", ".jp2", ".png", ".bmp", ".gif", ".tif", ".webp"} <= picture_endings()
    assert not {".eps", ".ps", ".pdf", ".wmf", ".h5", ".mpg"} & picture_endings()


def test_strips_give_what_the_whole_gives(monkeypatch):
    random = np.random.default_rng(1)
    sources = [
        Image.fromarray(random.integers(0, 256, (37, 23, 4)).astype(np.uint8)),
        Image.fromarray(random.integers(0, 2**16, (37, 23)).astype(np.uint16)),
        Image.fromarray(random.random((37, 23)).astype(np.float32)),
        Image.fromarray(random.integers(0, 256, (37, 23, 4)).astype(np.uint8)).convert("LA"),
    ]
    whole = [np.asarray(open_picture(source)) for source in sources]
    monkeypatch.setattr(pictures, "STRIP_PIXELS", 100)
    for source, expected in zip(sources, whole):
        np.testing.assert_array_equal(np.asarray(open_picture(source)), expected)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not list a process's open files")
def test_nothing_that_was_read_or_refused_stays_open(tmp_path):
    path, broken = tmp_path / "picture.gif", tmp_path / "broken.png"
    frames = [Image.new("L", (8, 8), grey) for grey in (0, 100)]
    frames[0].save(path, save_all=True, append_images=frames[1:])  # Pillow itself leaves animations open
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    before, pictures = os.listdir("/proc/self/fd"), []
    pictures.append(read_picture(path))
    for source in (broken, str(broken)):
        with pytest.raises(ValueError) as caught:
            read_picture(source)
        pictures.append(caught.value)
    assert len(os.listdir("/proc/self/fd")) == len(before)
