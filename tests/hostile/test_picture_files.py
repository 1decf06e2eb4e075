# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Hostile pictures, from a seed: nothing runs, nothing hangs, one line says no, and nothing half-written stays."""

import io
import os
import random
import struct
import zlib

import pytest
from machinery import attempt, run_command
from PIL import Image

from remamber_hf.inference.loading import BUNDLED_MODEL, BUNDLED_PICTURES, load_pipeline
from remamber_hf.pictures import open_picture


WHOLE = (BUNDLED_PICTURES / "shapes_1.png").read_bytes()
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n%%EndComments\n(x) (w) file closefile showpage\n%%EOF\n"
SECONDS, GIGABYTES, MIB = 30, 4, 500


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    content = chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + content + chunk(b"IEND", b"")


def encoded(file_format: str, size=(64, 48), mode="RGB", **options) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size, 100).save(content, file_format, **options)
    return content.getvalue()


def with_bytes(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def make_files() -> dict[str, bytes]:
    """Names and contents; all of them must be refused."""
    files = {
        "empty.png": b"",
        "text.jpg": b"no picture\n" * 100,
        "zeros.png": bytes(10_000),
        "html.webp": b"<html>" * 50,
    }
    for ending in ("eps", "png", "jpg", "tif", "webp", "bmp"):
        files[f"program.{ending}"] = EPS
    files["program.ps"] = b"%!PS\n{ } loop\n"
    files["svg.png"] = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    files["pdf.png"] = b"%PDF-1.7\n" + bytes(500)
    files["wmf.png"] = b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(200)
    for width, height in (
        (13_377, 13_377),
        (1, 100_000_000),
        (100_000_000, 1),
        (2**31 - 1, 2**31 - 1),
        (70_000, 1_300),
    ):
        files[f"bomb_{width}x{height}.png"] = png(width, height)
    rows = zlib.compress(bytes(10_000 * 10_001), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_001, 8, 0, 0, 0, 0))
    files["bomb_whole.png"] = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    files["bomb_bits.tif"] = encoded("TIFF", (13_400, 13_400), "1", compression="group4")
    files["bomb.gif"] = with_bytes(encoded("GIF", mode="P"), 6, struct.pack("<HH", 65_535, 65_535))
    files["bomb.bmp"] = with_bytes(encoded("BMP"), 18, struct.pack("<ii", 2**30, 2**30))
    files["bomb.ppm"] = b"P6 100000 100000 255\n"
    files["bomb.qoi"] = b"qoif" + struct.pack(">II", 2**31, 2**31) + bytes(20)
    files["bomb.psd"] = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 30_000, 30_000, 8, 3) + bytes(40)
    files["bomb.tga"] = bytes(2) + b"\2" + bytes(9) + struct.pack("<HHBB", 65_535, 65_535, 24, 0)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 * 2**20)))
    files["text_bomb.png"] = png(64, 48, *[text] * 5)
    files["profile_bomb.png"] = png(64, 48, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(200 * 2**20))))
    files["short_data.png"] = png(640, 480, data=bytes(100))
    files["palette_missing.png"] = png(64, 48, depth=8, colour=9)
    generator = random.Random(0)
    for number, (file_format, options) in enumerate(
        [
            ("JPEG", {}),
            ("PNG", {}),
            ("WEBP", {}),
            ("TIFF", {"compression": "jpeg"}),
            ("GIF", {}),
            ("BMP", {}),
            ("TIFF", {}),
        ]
        + [("JPEG2000", {}), ("PPM", {}), ("AVIF", {})]
    ):
        try:
            content = encoded(file_format, **options)
        except (KeyError, OSError):  # a Pillow without this format
            continue
        ending = file_format.lower()
        for part in (3, 10, len(content) // 3):  # before any pixel is whole
            files[f"truncated_{number}_{part}.{ending}"] = content[:part]
        files[f"noise_{number}.{ending}"] = content[:8] + generator.randbytes(3000)
    for number in range(12):
        files[f"random_{number}.png"] = generator.randbytes(generator.randrange(1, 5000))
    return files


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(BUNDLED_MODEL, "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in make_files().items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    (folder / "a\x1b[31m\u202e.png").write_bytes(b"nothing")
    with (folder / "sparse.webp").open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\xffWEBPVP8 ")
        file.truncate(2**41)
    return folder


def refuse_each(read, folder):
    """Read every file with `read`, and say which were not refused in one short line."""
    wrong = []
    for path in sorted(folder.iterdir()):
        try:
            read(path)
            wrong.append(f"{ascii(path.name)} was taken")
        except (ValueError, FileNotFoundError) as error:
            text = str(error)
            if len(text) >= 600 or not text.isprintable():
                wrong.append(f"{ascii(path.name)}: {ascii(text[:700])}")
    assert not wrong, "\n".join(wrong)


def test_there_are_many(folder):
    assert len(list(folder.iterdir())) >= 80


@pytest.mark.filterwarnings("ignore")
def test_every_reader_refuses_every_file_in_one_line(folder, pipe):
    readers = {
        "path": open_picture,
        "pipeline": lambda path: pipe(path, "the star"),
        "processor": lambda path: pipe.processor(images=str(path), text="the star"),
        "bytes": lambda path: pipe(path.read_bytes(), "the star") if is_small(path) else open_picture(path),
    }
    for name, read in readers.items():
        outcome = attempt(refuse_each, read, folder, seconds=SECONDS, gigabytes=GIGABYTES, folder=folder)
        outcome.check_harmless(MIB)
        assert outcome.status == 0, f"{name}: {outcome.error} {outcome.text}\n{outcome.trace}"


def is_small(path) -> bool:
    return path.is_file() and path.stat().st_size < 2**20


def test_the_command_names_each_and_writes_nothing(folder, tmp_path):
    out = tmp_path / "out"
    command = ("segment", folder, "-e", "the star", "-o", out, "--device", "cpu")
    outcome = attempt(run_command, *command, seconds=2 * SECONDS, gigabytes=GIGABYTES, folder=tmp_path)
    assert not (outcome.signal or outcome.is_late or outcome.started or outcome.left), outcome
    assert outcome.status == 1 and outcome.growth < MIB, outcome
    lines = outcome.stderr.splitlines()
    assert all(len(line) < 600 and line.isprintable() and line.startswith("remamber: ") for line in lines), lines
    assert lines[-1].endswith("pictures failed") and len(lines) > 60


@pytest.mark.parametrize(
    "name", ["bomb_1x100000000.png", "program.png", "pipe.png", "zero.png", "loop.png", "sparse.webp"]
)
def test_the_command_refuses_one_with_status_2(folder, tmp_path, name):
    command = ("segment", folder / name, "the star", "-o", tmp_path / "out.png", "--device", "cpu")
    outcome = attempt(run_command, *command, seconds=SECONDS, gigabytes=GIGABYTES, folder=tmp_path)
    outcome.check_refused(name, megabytes=MIB)
