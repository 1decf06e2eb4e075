# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What files of strangers may hold: pieces of them for the cases."""

import io
import os
import struct
import zlib

from PIL import Image

from remamber_hf.data.check import check_data


HEIGHT, WIDTH = 40, 60
DIGITS = "9" * 5000
SQUARE = [2, 3, 12, 3, 12, 15, 2, 15]
ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202egnp.\u2066"
ADDRESS = "http://127.0.0.1:9/a.png"


def picture_bytes(height: int = HEIGHT, width: int = WIDTH, file_format: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (width, height), "gray").save(content, file_format)
    return content.getvalue()


def png_bomb(height: int, width: int) -> bytes:
    """A PNG of a few kilobytes with any number of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = b"\0" * (width // 8 + 2)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 40\n%%EndComments\n/Times findfont\nshowpage\n%%EOF\n"


class Runs:
    """Unpickled by Python's own reader, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def nested_lists(depth: int, width: int = 10):
    """A list that unfolds to width ** depth entries, and takes a few bytes in a pickle."""
    value = ["x"]
    for _ in range(depth):
        value = [value] * width
    return value


def zigzag(num_points: int) -> list[float]:
    return [number for index in range(num_points) for number in ((index % 2) * 3 * WIDTH - WIDTH, index % 37)]


def link_to(target: str):
    return lambda path: path.symlink_to(path.name if target == "itself" else target)


def huge(path):
    with open(path, "wb") as file:
        file.truncate(2**43)


def check_is_bad(root) -> bool:
    results = check_data(root)
    return bool(results) and not any(result.is_good for result in results)
