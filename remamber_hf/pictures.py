"""Any picture, from any source, as upright 8-bit RGB: files, web addresses, bytes, PIL images, arrays, tensors."""

import base64
import binascii
import os
import reprlib
import struct
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from http.client import HTTPException
from io import BytesIO
from urllib.parse import quote, urlsplit
from urllib.request import Request, url2pathname, urlopen

import numpy as np
import torch
from PIL import Image, ImageOps


# What Pillow raises for a damaged file depends on the format; OSError holds "cannot identify" and "truncated".
PILLOW_ERRORS = (
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
)

WEB = ("http://", "https://")
DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer
DOWNLOAD_SECONDS = 120.0  # for a whole picture
DOWNLOAD_BYTES = 256 * 2**20
SHORTEST_BASE64 = 64  # characters; no file of a picture is shorter


def describe(value) -> str:
    """What came, for an error: short, whatever it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 100  # characters
    return short.repr(value)


def open_picture(source) -> Image.Image:
    """Opens a picture of any kind that Pillow reads as upright 8-bit RGB.

    The EXIF rotation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits, and of an animation
    the first frame is taken.

    Args:
        source: a path, a binary file object or a PIL image (at its current frame).

    Raises:
        FileNotFoundError: nothing is at the path.
        ValueError: no such source, a folder, an empty, damaged or truncated file, a decompression bomb, or pixel
            values without an 8-bit meaning.
    """
    is_picture = isinstance(source, Image.Image)
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if not os.path.exists(source):
            raise FileNotFoundError(f"There is no file {shorten(name)!r}; give the path of a picture.")
        if os.path.isdir(source):
            raise ValueError(f"{name!r} is a folder; give the path of one picture.")
    elif is_picture or hasattr(source, "read"):
        name = getattr(source, "filename", "") or getattr(source, "name", "") or type(source).__name__
    else:
        raise ValueError(f"{type(source).__name__} came; give a path, a binary file object or a PIL image.")
    try:
        with nullcontext(source) if is_picture else Image.open(source) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except PILLOW_ERRORS as error:
        raise ValueError(f"The picture {name!r} cannot be read ({error}); give a complete image file.") from error


def read_picture(source, timeout: float = DOWNLOAD_TIMEOUT) -> Image.Image:
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


def is_stored_picture(source) -> bool:
    """Whether `source` is a picture as data sets store it: {"bytes": …, "path": …}."""
    return isinstance(source, Mapping) and len(source) > 0 and set(source) <= {"bytes", "path"}


def shorten(text: str) -> str:
    """Text for an error, its middle left out where it is long."""
    return text if len(text) <= 200 else f"{text[:150]}…{text[-40:]}"


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
        raise ValueError(f"{shorten(url)} cannot be fetched: {error}") from error
    return bytes(content)


def list_pictures(images) -> list:
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
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int32)
        check_range(grey, 65535)
        return Image.fromarray(to_8_bit(grey.astype(np.uint16))).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


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
    if is_tensor:
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


def is_fraction(pixels) -> bool:
    """Whether pixels are floats in [0, 1]."""
    if isinstance(pixels, Image.Image):
        return pixels.mode == "F" and is_fraction(np.asarray(pixels))
    if isinstance(pixels, torch.Tensor):
        return pixels.is_floating_point() and pixels.numel() > 0 and bool(pixels.min() >= 0 and pixels.max() <= 1)
    is_float = isinstance(pixels, np.ndarray) and pixels.dtype.kind == "f"
    return is_float and pixels.size > 0 and bool(pixels.min() >= 0 and pixels.max() <= 1)


def check_range(values: np.ndarray, largest: int):
    if not (values.min() >= 0 and values.max() <= largest):  # a NaN fails both comparisons
        raise ValueError(
            f"pixel values from {values.min()} to {values.max()} came, [0, {largest}] was needed; scale the picture"
        )


__all__ = ["list_pictures", "open_picture", "palette_map", "read_picture", "to_picture", "to_rgb"]
