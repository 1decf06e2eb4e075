# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures and masks as data sets have them in files: whole or not, rotated or not, without loss or not."""

from __future__ import annotations

import io
import os
import struct

import numpy as np
from PIL import ExifTags, Image

from ..messages import shorten
from ..pictures import PILLOW_ERRORS, TRANSPOSITIONS, open_image, orientation_of, palette_map, to_rgb, turn_upright
from .reading import Defect, read_regular_file
from .rle import encode_mask


# The last bytes of a whole file. A file that ends otherwise is decoded to know.
FILE_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


def is_rotated(picture: Image.Image) -> bool:
    """Whether `datasets` would turn a picture, or fail where it looks whether it has to."""
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except PILLOW_ERRORS:
        return True


def ends_well(source: str | os.PathLike | io.BytesIO, file_format: str | None) -> bool:
    """Whether a file, by its path or content, ends as a whole file of its format does."""
    file_end = FILE_ENDS.get(file_format or "")
    if file_end is None:
        return False
    if isinstance(source, io.BytesIO):
        return source.getvalue().endswith(file_end)
    with open(source, "rb") as file:
        file.seek(-len(file_end), os.SEEK_END)
        return file.read() == file_end


def encode_png(picture: Image.Image) -> bytes:
    """Encode the pixels as they are stored, without the EXIF data that would turn them."""
    content = io.BytesIO()
    Image.fromarray(np.asarray(picture.convert("RGB"))).save(content, "PNG")
    return content.getvalue()


EXIF_SIDEWAYS = (5, 6, 7, 8)
# All others may change pixels when they are written. A TIFF and a WebP say how they were.
LOSSLESS_FORMATS = ("PNG", "BMP", "DIB", "GIF", "PCX", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP")
MASK_MODES = ("1", "L", "I", "F", "P", "RGB")  # of Pillow, in which 0 is black
LOSSLESS_TIFF = (
    "raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "lzma", "zstd", "tiff_ccitt", "group3",
    "group4", "tiff_raw_16", "tiff_thunderscan"
)  # fmt: skip


def source_of(image: dict):
    """What Pillow opens of a picture as `datasets.Image` stores it."""
    return io.BytesIO(image["bytes"]) if image["bytes"] is not None else image["path"]


def check_picture(image: dict, name) -> tuple[dict, tuple[int, int]]:
    """Look at a picture as `datasets.Image` stores it; Defect, with its name, if it cannot be read.

    Returns it, and (height, width) of it turned upright. Where `datasets` could not turn it, since it writes all EXIF
    values anew to do so and not all can be written, its upright pixels stand in its place.
    """
    source = source_of(image)
    try:
        with open_image(source) as picture:
            if not ends_well(source, picture.format):
                picture.load()
            width, height = picture.size
            orientation = orientation_of(picture)
            if not _can_be_turned(picture):
                content = io.BytesIO()
                to_rgb(turn_upright(picture)).save(content, "PNG")
                image = {"path": None, "bytes": content.getvalue()}
    except PILLOW_ERRORS as error:
        raise Defect("unreadable picture", f"{shorten(str(name))}: {shorten(str(error))}") from None
    return image, (width, height) if orientation in EXIF_SIDEWAYS else (height, width)


def _can_be_turned(picture: Image.Image) -> bool:
    try:
        exif = picture.getexif()
        if exif.get(ExifTags.Base.Orientation) in TRANSPOSITIONS:
            exif.tobytes()
    except PILLOW_ERRORS:
        return False
    return True


def _check_mask_file(picture: Image.Image, source, height: int, width: int) -> None:
    """Defect unless a mask is of the given size and lossless; before its pixels are decoded."""
    compression = str(picture.info.get("compression", "raw"))
    kind = None
    if picture.format not in LOSSLESS_FORMATS:
        kind = picture.format
    elif picture.format == "TIFF" and compression not in LOSSLESS_TIFF:
        kind = f"TIFF with {shorten(compression)} compression"
    elif picture.format == "WEBP" and not is_lossless_webp(source):
        kind = "lossy WebP"
    if kind is not None:
        raise Defect("lossy mask", f"a mask is a {kind}, whose zeros are not exact; save it as PNG")
    if picture.mode in ("LA", "PA", "RGBA"):
        raise Defect("transparent mask", "a mask has an alpha channel; save it as grey, 0 for the background")
    if picture.mode.split(";")[0] not in MASK_MODES:
        raise Defect("mask of other colours", f"a mask is in {picture.mode}, where 0 is not black; save it as grey")
    if picture.size != (width, height):
        raise Defect(
            "mask of another size",
            f"the mask is {picture.height}×{picture.width}, its upright picture {height}×{width} (height × width)",
        )


def is_lossless_webp(source: str | os.PathLike | io.BytesIO) -> bool:
    """Whether a WebP file, by its path or content, holds no part that is coded with loss ("VP8 ", not "VP8L")."""
    content = source.getvalue() if isinstance(source, io.BytesIO) else read_regular_file(source)
    waiting, kinds = [(12, len(content))], set()
    while waiting:
        start, end = waiting.pop()
        while start + 8 <= end:
            kind, size = struct.unpack_from("<4sI", content, start)
            kinds.add(kind)
            if kind == b"ANMF":  # a frame: 16 bytes about it, then chunks of its own
                waiting.append((start + 24, min(start + 8 + size, end)))
            start += 8 + size + size % 2
    return b"VP8L" in kinds and b"VP8 " not in kinds


def read_mask(source, height: int, width: int) -> dict:
    """Read a mask picture as an RLE dict; Defect unless it is of the given size, lossless and not all zero."""
    try:
        with open_image(source) as picture:
            _check_mask_file(picture, source, height, width)
            picture.load()
    except PILLOW_ERRORS as error:
        if isinstance(error, Defect):
            raise
        raise Defect("unreadable mask", shorten(str(error))) from None
    values = np.asarray(palette_map(picture) if picture.mode == "P" else picture)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Defect("mask of several values", "the mask has pixels that are no finite number; save it as grey")
    pixels = values.any(axis=-1) if values.ndim == 3 else values != 0
    if not pixels.any():
        raise Defect("empty mask", "no pixel of the mask differs from 0")
    colours = values[pixels]
    if (colours != colours[0]).any():
        came = np.unique(colours, axis=0)
        raise Defect(
            "mask of several values",
            f"the mask has {len(came)} values besides 0, such as {came[0].tolist()} and {came[1].tolist()}; save one "
            "object as one value, without soft edges or a value for pixels to be ignored",
        )
    return encode_mask(np.asarray(pixels))
