# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Any picture, from any source, as upright 8-bit RGB: files, web addresses, bytes, PIL images, arrays, tensors."""

import base64
import binascii
import os
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit
from urllib.request import Request, url2pathname, urlopen

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from .messages import describe, describe_name, printable, shorten


# What is read. Pillow knows more, and hands some of it (EPS) to programs outside; HEIF and JXL come with plugins.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI"),
    *("TGA", "TIFF", "WEBP"),
)
MAX_SIDE = 65_535  # pixels; that of a JPEG
FILE_BYTES_PER_PIXEL = 16  # four floats: no file of a picture within the bound is larger

# What Pillow raises for a damaged file depends on the format; OSError holds "cannot identify" and "truncated".
PILLOW_ERRORS = (
    Image.DecompressionBombError,
    Warning,  # where warnings are errors
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by the EXIF orientation
STRIP_PIXELS = 2**22  # that are converted at a time, where a conversion needs copies

WEB = ("http://", "https://")
DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer
DOWNLOAD_SECONDS = 120.0  # for a whole picture
DOWNLOAD_BYTES = 256 * 2**20
SHORTEST_BASE64 = 64  # characters; no file of a picture is shorter


def max_pixels() -> float:
    """How many pixels a picture may have: Pillow's bound, `PIL.Image.MAX_IMAGE_PIXELS`, which a program may set."""
    return float("inf") if Image.MAX_IMAGE_PIXELS is None else Image.MAX_IMAGE_PIXELS


def set_max_pixels(number: int | str) -> None:
    """Bound the pixels of a picture, for all that runs in this process; ValueError for what is no number above 0."""
    if not str(number).strip().isascii() or not str(number).strip().isdigit() or int(number) < 1:
        raise ValueError(f"the bound on the pixels of a picture is {describe(number)}; give a whole number above 0.")
    Image.MAX_IMAGE_PIXELS = int(number)


def check_file(image: Image.Image) -> None:
    """ValueError for a picture of a file that is too large or of another format, before it is decoded."""
    if not isinstance(image, ImageFile.ImageFile):
        return
    if image.format not in FORMATS:
        raise ValueError(f"its format is {image.format}; give one of {', '.join(FORMATS)}")
    pixels, side = max_pixels(), max(MAX_SIDE, max_pixels() // 1000)
    if image.width * image.height > pixels or max(image.size) > side:
        raise ValueError(
            f"it has {image.width}×{image.height} pixels, at most {pixels:.0f} and {side:.0f} a side are read; make "
            f"it smaller, or {RAISE_BOUND}"
        )


RAISE_BOUND = "raise PIL.Image.MAX_IMAGE_PIXELS, for the command REMAMBER_MAX_PIXELS"


@cache
def readable_formats() -> list[str]:
    """Those of `FORMATS` that this Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@cache
def picture_endings() -> frozenset[str]:
    """The endings of file names, in small letters, that stand for the formats that are read."""
    Image.init()
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in readable_formats())


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a regular file to read.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a folder, a pipe or a device, which may never end.
        OSError: it may not be read.
    """
    name = shorten(os.fspath(path))
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {name!r}; give the path of a picture.")
    if os.path.isdir(path):
        raise ValueError(f"{name!r} is a folder; give the path of one picture.")
    # Not to wait for who writes to a pipe; what is there now may be another thing than a moment ago.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError(f"{name!r} is no regular file; give the path of a picture.")
        yield file


def read_bounded(file: BinaryIO, what: str, max_bytes: int = DOWNLOAD_BYTES) -> bytes:
    """All that a stream gives; ValueError if that is more than `max_bytes`."""
    content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{what} gives more than {max_bytes >> 20} MiB; give one that ends.")
    return content


@contextmanager
def open_image(source: Any) -> Iterator[Image.Image]:
    """Opens a picture's file without decoding it; see `open_picture`, which says what is refused."""
    if isinstance(source, Image.Image):
        check_file(source)
        yield source
        return
    if isinstance(source, (str, os.PathLike)):
        with open_regular(source) as file, open_image(file) as image:
            yield image
        return
    if not getattr(source, "seekable", bool)():
        source = BytesIO(read_bounded(source, "the stream"))
    size = source.seek(0, os.SEEK_END)
    if size > max_pixels() * FILE_BYTES_PER_PIXEL:
        raise ValueError(
            f"the file has {size} bytes, no picture of {max_pixels():.0f} pixels has as many; make it smaller, or "
            f"{RAISE_BOUND}"
        )
    try:
        image = Image.open(source, formats=readable_formats())
    except UnidentifiedImageError:
        kinds = ", ".join(readable_formats())
        raise ValueError("the file is empty" if size == 0 else f"it is no picture of the formats {kinds}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{error}; make it smaller, or {RAISE_BOUND}") from None
    with image:
        check_file(image)
        yield image


def turn_upright(image: Image.Image) -> Image.Image:
    """The picture as its EXIF orientation says that it is meant; as it is where the EXIF data cannot be read."""
    image.load()
    transposition = TRANSPOSITIONS.get(orientation_of(image))
    return image if transposition is None else image.transpose(transposition)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(orientation) if orientation in TRANSPOSITIONS else 1
    except PILLOW_ERRORS:
        return 1


def open_picture(source: Any) -> Image.Image:
    """Opens a picture as upright 8-bit RGB, of all formats that `FORMATS` names.

    The EXIF rotation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits, and of an animation
    the first frame is taken. Nothing of the file is kept besides.

    Args:
        source: a path, a binary file object or a PIL image (at its current frame).

    Raises:
        FileNotFoundError: nothing is at the path.
        ValueError: no such source, a folder, pipe or device, an empty, damaged or truncated file, another format, more
            pixels than `max_pixels`, a side longer than 65,535 and than a thousandth of that, or pixel values without
            an 8-bit meaning.
    """
    is_file = isinstance(source, (str, os.PathLike))
    if is_file:
        name = os.fspath(source)
    elif isinstance(source, Image.Image) or hasattr(source, "read"):
        name = getattr(source, "filename", "") or getattr(source, "name", "") or type(source).__name__
    else:
        raise ValueError(f"{type(source).__name__} came; give a path, a binary file object or a PIL image.")
    try:
        with open_image(source) as image:
            return to_rgb(turn_upright(image))
    except FileNotFoundError as error:
        if is_file:
            raise
        raise cannot_be_read(name, error) from error
    except PILLOW_ERRORS as error:
        raise cannot_be_read(name, error) from error


def cannot_be_read(name: object, error: Exception) -> ValueError:
    """The error for a picture, which says why."""
    reason = printable(" ".join(str(error).split()) or type(error).__name__)
    if len(reason) > 300:
        reason = f"{reason[:300]}…"
    return ValueError(f"The picture {describe_name(name)} cannot be read ({reason}); give a complete image file.")


def read_picture(source: Any, timeout: float = DOWNLOAD_TIMEOUT) -> Image.Image:
    """Opens a picture from any source, as upright 8-bit RGB.

    Args:
        source: what `open_picture` takes; an array or tensor, see `to_picture`; the bytes of a file; a data set's
            {"bytes": …, "path": …}; or text: a path, a web address, a file:// address, a data URL or base64.
        timeout: seconds to wait for a web server's answer.

    Raises:
        FileNotFoundError: nothing is at the path.
        ValueError: a picture that cannot be fetched or read, or an array of another kind.
    """
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return to_picture(source)
    if is_stored_picture(source):
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    if isinstance(source, (bytes, bytearray, memoryview)):
        return open_picture(BytesIO(source))
    if isinstance(source, str):
        scheme = source[:8].lower()
        if scheme.startswith(WEB):
            return open_picture(BytesIO(download(source, timeout)))
        if scheme.startswith("file://"):
            return open_picture(url2pathname(urlsplit(source).path))
        if scheme.startswith("data:"):
            return open_picture(BytesIO(decode_base64(source.partition(",")[2])))
        if len(source) >= SHORTEST_BASE64 and not os.path.exists(source):
            try:
                content = decode_base64(source)
            except ValueError:
                content = b""  # a path then, that leads nowhere
            if content:
                return open_picture(BytesIO(content))
    return open_picture(source)


def is_stored_picture(source: object) -> bool:
    """Whether `source` is a picture as data sets store it: {"bytes": …, "path": …}."""
    return isinstance(source, Mapping) and len(source) > 0 and set(source) <= {"bytes", "path"}


def decode_base64(text: str) -> bytes:
    """The bytes that base64 text stands for, also that of URLs or without its end; ValueError if it is none."""
    letters = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the text {describe(text)} is no base64 of a picture: {error}") from None


def download(url: str, timeout: float) -> bytes:
    """What is at a web address, in bounded time and size; ValueError if it cannot be fetched."""
    end = time.monotonic() + DOWNLOAD_SECONDS
    content = bytearray()
    try:
        address = quote(url, safe=":/?#[]@!$&'()*+,;=%~")  # some letters it may not have as they are
        request = Request(address, headers={"User-Agent": "remamber_hf"})  # some servers refuse Python's own name
        with urlopen(request, timeout=timeout) as answer:
            while part := answer.read1(2**16):
                content += part
                if len(content) > DOWNLOAD_BYTES or time.monotonic() > end:
                    raise HTTPException(
                        f"it gave {len(content)} bytes and more; a picture may have {DOWNLOAD_BYTES >> 20} MiB and "
                        f"take {DOWNLOAD_SECONDS:.0f} s"
                    )
    except (OSError, HTTPException, ValueError) as error:  # ValueError: what is no address
        reason = shorten(" ".join(str(error).split()))
        raise ValueError(f"{shorten(url)} cannot be fetched: {reason}") from error
    return bytes(content)


def list_pictures(images: Any) -> list[Any]:
    """The pictures of a single one, a batch (arrays with one axis more), or an iterable of either, in their order."""
    if isinstance(images, (Image.Image, str, bytes, bytearray, memoryview, os.PathLike, Mapping)):
        return [images]
    if hasattr(images, "read"):
        return [images]
    if isinstance(images, torch.Tensor) or (isinstance(images, np.ndarray) and images.dtype != object):
        if images.ndim in (2, 3):
            return [images]
        if images.ndim == 4:
            return list(images)
        raise ValueError(
            f"an array {tuple(images.shape)} came; give (height, width), (height, width, channels), "
            "(channels, height, width) or a batch of them."
        )
    if not isinstance(images, Iterable):
        raise ValueError(f"{type(images).__name__} came; give a picture: a PIL image, an array, a path or an address.")
    return [picture for entry in images for picture in list_pictures(entry)]


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts a PIL image of any mode to RGB, transparency laid on white; the EXIF rotation is left alone.

    Integer greys (modes I and I;16) are 16-bit values. Floats are fractions if all lie in [0, 1], else 8-bit values.

    Raises:
        ValueError: integers outside [0, 65535], floats outside [0, 255], no area, or a mode that Pillow cannot
            convert.
    """
    if not (image.width and image.height):
        raise ValueError(f"a picture of {image.width}×{image.height} pixels came; give one that has an area.")
    check_file(image)
    if image.mode.startswith("I"):
        picture = convert_in_strips(image, lambda part: Image.fromarray(to_8_bit(to_16_bit(np.asarray(part)))))
    elif image.mode == "F":
        values = np.asarray(image)
        check_range(values, 255)
        scale = 255 if is_fraction(values) else 1
        picture = convert_in_strips(
            image, lambda part: Image.fromarray((np.asarray(part) * scale).round().astype(np.uint8))
        )
    elif image.has_transparency_data:
        picture = convert_in_strips(image, lay_on_white)
    else:
        picture = image.convert("RGB")
    picture.info = {}  # an orientation in it would turn the picture again; a profile or text may be large
    return picture


def convert_in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An RGB picture of what `convert` makes of strips of one of any mode: its copies are never of the whole."""
    picture = Image.new("RGB", image.size)
    height = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, height):
        picture.paste(convert(image.crop((0, top, image.width, min(top + height, image.height)))), (0, top))
    return picture


def lay_on_white(image: Image.Image) -> Image.Image:
    """A picture with transparency, on white."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def to_16_bit(values: np.ndarray) -> np.ndarray:
    """Integers in [0, 65535] as uint16."""
    check_range(values, 65535)
    return values.astype(np.uint16)


def palette_map(segmentation_map: Image.Image) -> Image.Image:
    """A map with a palette by its colours where these are black and white; else as it is, its codes being indices."""
    grey = segmentation_map.convert("L")
    is_black_and_white = not any(grey.histogram()[1:255])
    return grey if is_black_and_white else segmentation_map


def to_picture(pixels: np.ndarray | torch.Tensor, channels_first: bool | None = None) -> Image.Image:
    """Turns an array of pixels into 8-bit RGB, transparency laid on white.

    Args:
        pixels: (height, width), (height, width, channels) or (channels, height, width) with 1 (grey), 3 (RGB) or 4
            (RGBA) channels; bool, uint8, uint16 (0 … 65535), other integers in [0, 255], or floats: fractions if all
            lie in [0, 1], else 8-bit values.
        channels_first: which axis has the channels. By default what fits; where both do, the first axis in a tensor
            and the last in an array.

    Raises:
        ValueError: another shape, no area, or values outside these ranges.
    """
    is_tensor = isinstance(pixels, torch.Tensor)
    if isinstance(pixels, torch.Tensor):
        pixels = pixels.detach().cpu()
        pixels = (pixels.float() if pixels.is_floating_point() else pixels).numpy()
    shape = pixels.shape
    if pixels.ndim == 3:
        fits = {axis for axis in (0, 2) if shape[axis] in (1, 3, 4)}
        axis = (0 if is_tensor else 2) if channels_first is None else (0 if channels_first else 2)
        if channels_first is None and axis not in fits:
            axis = 2 - axis
        if axis not in fits:
            pixels = np.empty(0)  # refused below
        elif axis == 0:
            pixels = np.moveaxis(pixels, 0, -1)
        if pixels.shape[-1] == 1:
            pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise ValueError(
            f"an array {shape} came; give (height, width), (height, width, channels) or (channels, height, width), "
            "with 1, 3 or 4 channels and an area."
        )
    return to_rgb(Image.fromarray(np.ascontiguousarray(to_8_bit(pixels))))


def to_8_bit(values: np.ndarray) -> np.ndarray:
    """Pixel values of any kind as uint8; `to_picture` says which kinds there are."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:  # of either byte order
        return ((values.astype(np.int32) + 128) // 257).astype(np.uint8)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"pixel values of type {values.dtype} came; give uint8, uint16, bool or floats.")
    check_range(values, 255)
    scale = 255 if is_fraction(values) else 1
    return (values * scale).round().astype(np.uint8)


def is_fraction(pixels: Any) -> bool:
    """Whether pixels are floats in [0, 1]."""
    if isinstance(pixels, Image.Image):
        return pixels.mode == "F" and is_fraction(np.asarray(pixels))
    if isinstance(pixels, torch.Tensor):
        return pixels.is_floating_point() and pixels.numel() > 0 and bool(pixels.min() >= 0 and pixels.max() <= 1)
    is_float = isinstance(pixels, np.ndarray) and pixels.dtype.kind == "f"
    return is_float and pixels.size > 0 and bool(pixels.min() >= 0 and pixels.max() <= 1)


def check_range(values: np.ndarray, largest: int) -> None:
    if not (values.min() >= 0 and values.max() <= largest):  # a NaN fails both comparisons
        raise ValueError(
            f"pixel values from {values.min()} to {values.max()} came, [0, {largest}] was needed; scale the picture"
        )


__all__ = ["list_pictures", "open_picture", "palette_map", "read_picture", "to_picture", "to_rgb"]
