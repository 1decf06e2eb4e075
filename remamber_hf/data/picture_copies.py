# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of rows → files in one folder: each once, as it came where other readers can open it, by a name of its own.

A picture keeps the last part of its name where that is a plain one; a second of that name gets a number.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ..messages import describe, shorten
from ..pictures import PILLOW_ERRORS, open_image, to_rgb, turn_upright
from .picture_files import is_rotated
from .reading import is_unicode, read_regular_file


# What Pillow and OpenCV both open, and read as 8-bit colours.
COPIED_FORMATS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp"}
COPIED_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
MAX_NAME_BYTES = 200  # a file system takes 255


@dataclass
class CopiedPicture:
    """A picture in the folder: its name there, and its size in pixels."""

    file_name: str
    height: int
    width: int


class PictureCopies:
    """Copies pictures into a folder.

    Args:
        folder: is there, and empty.
        prefix: of the names of pictures that come without one; a number follows.

    `copied` has the pictures in the order in which they came. Two are one if content and name are the same.
    """

    def __init__(self, folder: Path, prefix: str):
        self.folder = folder
        self.prefix = prefix
        self.copied: list[CopiedPicture] = []
        self._places: dict[tuple[str, str], int] = {}
        self._places_of_paths: dict[str, int] = {}
        self._taken: set[str] = set()

    def add(self, image: dict) -> int:
        """Copy a picture, as `datasets.Image` stores it, unless it is there; return its place in `copied`.

        Raises ValueError if it cannot be read, FileNotFoundError if it is gone.
        """
        path, content = image["path"], image["bytes"]
        if content is not None:
            return self._add(content, plain_name(path))
        if path not in self._places_of_paths:
            self._places_of_paths[path] = self._add(read_regular_file(path), plain_name(path))
        return self._places_of_paths[path]

    def _add(self, content: bytes, name: str) -> int:
        key = hashlib.sha256(content).hexdigest(), name
        if key not in self._places:
            self._places[key] = len(self.copied)
            self.copied.append(self._write(content, name))
        return self._places[key]

    def _write(self, content: bytes, name: str) -> CopiedPicture:
        readable, ending, (width, height) = make_readable(content, name)
        stem, own_ending = os.path.splitext(name)
        if not name:
            stem = f"{self.prefix}_{len(self.copied) + 1:012d}"
        elif readable is content:
            ending = own_ending
        name, number = f"{stem}{ending}", 1
        while _same(name) in self._taken:
            number += 1
            name = f"{stem}_{number}{ending}"
        self._taken.add(_same(name))
        (self.folder / name).write_bytes(readable)
        return CopiedPicture(name, height, width)


def _same(name: str) -> str:
    """What names have in common that are one name for some file system."""
    return unicodedata.normalize("NFC", name).casefold()


def plain_name(path: str | None) -> str:
    """Return the last part of a path if it is a name for a file anywhere; "" if not."""
    name = re.split(r"[/\\]", path or "")[-1]
    is_plain = name.isprintable() and is_unicode(name) and not re.search(r'[<>:"|?*]|^\.|[. ]$|^ ', name)
    return name if is_plain and len(name.encode("utf-8")) <= MAX_NAME_BYTES else ""


def make_readable(content: bytes, name: str) -> tuple[bytes, str, tuple[int, int]]:
    """Return a picture that Pillow and OpenCV read alike, the ending of its kind, and (width, height).

    The content is the very one that came, or a PNG: of another format, of values of more than 8 bits, and where an
    EXIF value says that the picture is to be turned, which one reader does and another does not.
    """
    try:
        with open_image(io.BytesIO(content)) as picture:
            is_read = picture.format in COPIED_FORMATS and picture.mode in COPIED_MODES
            if is_read and not is_rotated(picture):
                return content, COPIED_FORMATS[picture.format or ""], picture.size
            upright = to_rgb(turn_upright(picture))
    except PILLOW_ERRORS as error:
        raise ValueError(
            f"the picture {describe(name)} cannot be read: {shorten(str(error))}; mend it or leave its rows out."
        ) from None
    png = io.BytesIO()
    upright.save(png, "PNG")
    return png.getvalue(), ".png", upright.size
