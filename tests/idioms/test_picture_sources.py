# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A picture from every source and of every kind; what crops and pads; codes in labels and maps."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import rows as idioms
import torch
from PIL import Image
from rows import SIDE, TEXT_LENGTH, make_rows, serve
from tiny import make_tokenizer
from transformers.utils import is_torchvision_available

from remamber_hf import (
    ReferringSegmentationPipeline,
    ReMamberImageProcessor,
    ReMamberImageProcessorPil,
    ReMamberProcessor,
)


IMAGE_PROCESSORS = [ReMamberImageProcessorPil]
if is_torchvision_available():
    IMAGE_PROCESSORS.append(ReMamberImageProcessor)


def make_processor(image_processor_class, **options):
    options = {"size": {"height": SIDE, "width": SIDE}, **options}
    return ReMamberProcessor(image_processor_class(**options), make_tokenizer(), text_length=TEXT_LENGTH)


@pytest.fixture(scope="module")
def model(folder):
    """Shared: no test here changes it."""
    return idioms.load_model(folder)


@pytest.fixture(params=IMAGE_PROCESSORS, ids=lambda image_processor_class: image_processor_class.__name__)
def image_processor_class(request):
    return request.param


@pytest.fixture
def processor(image_processor_class):
    return make_processor(image_processor_class)


@pytest.fixture
def pipe(model, processor):
    return ReferringSegmentationPipeline(model=model, processor=processor, device="cpu")


PICTURE = make_rows(1)[0]["image"]  # 40 × 20
PIXELS = np.asarray(PICTURE)
GREY = np.asarray(PICTURE.convert("L"))
ALPHA = np.linspace(0, 255, GREY.size).astype(np.uint8).reshape(GREY.shape)
RGBA = np.dstack([PIXELS, ALPHA])
BITS = GREY > np.median(GREY)


def on_white(rgba: np.ndarray) -> Image.Image:
    picture = Image.fromarray(rgba)
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def check_same(processor, pipe, picture, expected: Image.Image):
    """The picture gives what the RGB picture gives, in processor and pipeline; `picture` makes it anew."""
    inputs = processor(images=expected, text="cat", return_tensors="pt")
    found = processor(images=picture(), text="cat", return_tensors="pt")
    torch.testing.assert_close(found["pixel_values"], inputs["pixel_values"], rtol=0, atol=0)
    wanted = pipe(expected, "cat", return_probabilities=True)
    result = pipe(picture(), "cat", return_probabilities=True)
    assert result["mask"].size == expected.size
    assert result["mask"].tobytes() == wanted["mask"].tobytes()
    np.testing.assert_allclose(result["probabilities"], wanted["probabilities"], rtol=1e-4, atol=1e-4)


def check_refused(processor, pipe, picture, message: str):
    for call in (lambda: processor(images=picture, text="cat"), lambda: pipe(picture, "cat")):
        with pytest.raises(ValueError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


# ------------------------------------------------------------------------------------------------------------- sources
@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with picture.png, and the address of a server that shows it."""
    folder = tmp_path_factory.mktemp("site")
    PICTURE.save(folder / "picture.png")
    with serve(folder) as address:
        yield folder, address


SOURCES = {
    "path": lambda folder, address: str(folder / "picture.png"),
    "Path": lambda folder, address: folder / "picture.png",
    "file://": lambda folder, address: (folder / "picture.png").as_uri(),
    "URL": lambda folder, address: f"{address}/picture.png",
    "URL with a query": lambda folder, address: f"{address}/picture.png?size=1",
    "data URL": lambda folder, address: "data:image/png;base64," + base64.b64encode(png(PICTURE)).decode(),
    "base64": lambda folder, address: base64.b64encode(png(PICTURE)).decode(),
    "base64 in lines": lambda folder, address: base64.encodebytes(png(PICTURE)).decode(),
    "bytes": lambda folder, address: png(PICTURE),
    "bytearray": lambda folder, address: bytearray(png(PICTURE)),
    "BytesIO": lambda folder, address: BytesIO(png(PICTURE)),
    "file": lambda folder, address: (folder / "picture.png").open("rb"),
    "dict of bytes": lambda folder, address: {"bytes": png(PICTURE), "path": None},
    "dict of a path": lambda folder, address: {"bytes": None, "path": str(folder / "picture.png")},
    "PIL file": lambda folder, address: Image.open(folder / "picture.png"),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_picture_is_the_same_from_every_source(processor, pipe, site, source):
    check_same(processor, pipe, lambda: source(*site), PICTURE)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_list_of_pictures_is_the_same_from_every_source(processor, pipe, site, source):
    expected = processor(images=PICTURE, return_tensors="pt")["pixel_values"]
    found = processor(images=[source(*site), PICTURE], text="cat", return_tensors="pt")
    torch.testing.assert_close(found["pixel_values"], expected.expand(2, -1, -1, -1), rtol=0, atol=0)
    first, second = pipe([source(*site), PICTURE], "cat")
    assert first["mask"].tobytes() == second["mask"].tobytes()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://127.0.0.1:9/picture.png", "cannot be fetched"),
        ("data:image/png;base64,nothing!", "is no base64 of a picture"),
        (b"nothing", "cannot be read"),
        ("file:///", "is a folder"),
        ({"bytes": None, "path": None}, "NoneType came; give a path"),
        (7, "int.*; give a"),
        ([None], "NoneType came; give a"),
    ],
    ids=str,
)
def test_a_source_that_holds_no_picture_is_refused(processor, pipe, source, message):
    check_refused(processor, pipe, source, message)


def test_a_path_or_address_that_leads_nowhere_is_named(processor, pipe):
    for missing in ("none/picture.png", Path("none/picture.png"), "file:///none/picture.png"):
        for call in (lambda: processor(images=missing, text="cat"), lambda: pipe(missing, "cat")):  # noqa: B023
            with pytest.raises(FileNotFoundError, match=r"There is no file '.*none/picture.png'"):
                call()


# --------------------------------------------------------------------------------------------------------------- kinds
MODES = {
    "RGB": (PICTURE, PICTURE),
    "L": (PICTURE.convert("L"), grey(GREY)),
    "P": (PICTURE.quantize(16), PICTURE.quantize(16).convert("RGB")),
    "1": (Image.fromarray(BITS), grey(BITS * 255)),
    "LA": (Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), on_white(np.dstack([GREY] * 3 + [ALPHA]))),
    "RGBA": (Image.fromarray(RGBA), on_white(RGBA)),
    "CMYK": (PICTURE.convert("CMYK"), PICTURE.convert("CMYK").convert("RGB")),
    "YCbCr": (PICTURE.convert("YCbCr"), PICTURE.convert("YCbCr").convert("RGB")),
    "I;16": (Image.fromarray(GREY.astype(np.uint16) * 257), grey(GREY)),
    "I": (Image.fromarray(GREY.astype(np.int32) * 257), grey(GREY)),
    "F": (Image.fromarray(GREY.astype(np.float32)), grey(GREY)),
    "F in [0, 1]": (Image.fromarray(GREY.astype(np.float32) / 255), grey(GREY)),
}


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
@pytest.mark.parametrize("mode", MODES)
def test_a_pil_picture_of_every_mode_is_seen_as_on_a_screen(processor, pipe, mode):
    picture, expected = MODES[mode]
    assert picture.mode == mode.split()[0]
    check_same(processor, pipe, lambda: picture, expected)


ARRAYS = {
    "uint8": (PIXELS, PICTURE),
    "uint16": (PIXELS.astype(np.uint16) * 257, PICTURE),
    "int32": (PIXELS.astype(np.int32), PICTURE),
    "int64": (PIXELS.astype(np.int64), PICTURE),
    "bool": (np.dstack([BITS] * 3), grey(BITS * 255)),
    "float64 in [0, 1]": (PIXELS / 255, PICTURE),
    "float32 in [0, 1]": (PIXELS.astype(np.float32) / 255, PICTURE),
    "float16 in [0, 1]": ((PIXELS / 255).astype(np.float16), PICTURE),
    "float32 in [0, 255]": (PIXELS.astype(np.float32), PICTURE),
    "float16 in [0, 255]": (PIXELS.astype(np.float16), PICTURE),
    "RGBA": (RGBA, on_white(RGBA)),
    "RGBA in [0, 1]": (RGBA / 255, on_white(RGBA)),
    "grey": (GREY, grey(GREY)),
    "grey uint16": (GREY.astype(np.uint16) * 257, grey(GREY)),
    "grey bool": (BITS, grey(BITS * 255)),
    "grey in [0, 1]": (GREY / 255, grey(GREY)),
    "grey (height, width, 1)": (GREY[..., None], grey(GREY)),
}
LAYOUTS = {
    "array": lambda array: array,
    "array, channels first": lambda array: np.moveaxis(array, -1, 0) if array.ndim == 3 else array,
    "array, not contiguous": lambda array: array[:, ::-1].copy()[:, ::-1],
    "tensor": lambda array: torch.from_numpy(np.moveaxis(array, -1, 0).copy() if array.ndim == 3 else array.copy()),
    "tensor, channels last": lambda array: torch.from_numpy(array.copy()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_of_every_kind_is_the_picture(processor, pipe, kind, layout):
    array, expected = ARRAYS[kind]
    check_same(processor, pipe, lambda: LAYOUTS[layout](array), expected)


@pytest.mark.parametrize(
    "batch",
    [
        np.stack([PIXELS, PIXELS[::-1]]),
        np.stack([PIXELS, PIXELS[::-1]]).transpose(0, 3, 1, 2),
        torch.from_numpy(np.stack([PIXELS, PIXELS[::-1]])).permute(0, 3, 1, 2) / 255,
        [PIXELS, PIXELS[::-1]],
        (PICTURE, PIXELS[::-1]),
        [torch.from_numpy(PIXELS.copy()), Image.fromarray(PIXELS[::-1])],
    ],
    ids=["(n, h, w, c)", "(n, c, h, w)", "tensor", "list of arrays", "tuple", "mixed list"],
)
def test_a_batch_of_arrays_is_its_pictures(processor, pipe, batch):
    pictures = [PICTURE, Image.fromarray(PIXELS[::-1])]
    expected = processor(images=pictures, return_tensors="pt")["pixel_values"]
    found = processor(images=batch, text="cat", return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for result, picture in zip(pipe(batch, "cat"), pictures, strict=True):
        assert result["mask"].tobytes() == pipe(picture, "cat")["mask"].tobytes()


def test_a_generator_of_pictures_is_a_list_of_them(processor, pipe):
    pictures = [PICTURE, PIXELS[::-1], torch.from_numpy(PIXELS.copy())]
    expected = processor(images=pictures, text="cat", return_tensors="pt")
    found = processor(images=iter(pictures), text="cat", return_tensors="pt")
    torch.testing.assert_close(found["pixel_values"], expected["pixel_values"], rtol=0, atol=0)
    results = [result["mask"].tobytes() for result in pipe(iter(pictures), "cat")]
    assert results == [pipe(picture, "cat")["mask"].tobytes() for picture in pictures]


UNFIT = {
    "floats in -1 … 1": (PIXELS / 127.5 - 1, r"pixel values from -\d.* to .* came, \[0, 255\] was needed"),
    "NaN": (np.where(PIXELS > 200, np.nan, PIXELS / 255), "pixel values from nan to nan came"),
    "floats above 255": (PIXELS * 2.0, "pixel values from .* came"),
    "int32 above 255": (PIXELS.astype(np.int32) * 2, "pixel values from .* came"),
    "int64 below 0": (PIXELS.astype(np.int64) - 128, "pixel values from -.* came"),
    "complex": (PIXELS.astype(np.complex64), "pixel values of type complex64 came"),
    "no height": (PIXELS[:0], r"an array \(0, 40, 3\) came; give"),
    "no width": (PIXELS[:, :0], r"an array \(20, 0, 3\) came; give"),
    "2 channels": (PIXELS[..., :2], r"an array \(20, 40, 2\) came; give"),
    "5 channels": (np.dstack([PIXELS, PIXELS[..., :2]]), r"an array \(20, 40, 5\) came; give"),
    "1-D": (PIXELS[0, :, 0], r"an array \(40,\) came; give"),
    "0-D": (np.array(7), r"an array \(\) came; give"),
    "5-D": (PIXELS[None, None], r"an array \(1, 1, 20, 40, 3\) came; give"),
}


@pytest.mark.parametrize("as_tensor", [False, True], ids=["array", "tensor"])
@pytest.mark.parametrize("kind", UNFIT)
def test_an_array_that_is_no_picture_is_refused(processor, pipe, kind, as_tensor):
    array, message = UNFIT[kind]
    check_refused(processor, pipe, torch.from_numpy(array.copy()) if as_tensor else array, message)


# ---------------------------------------------------------------------------------------------------------- do_rescale
@pytest.mark.parametrize("place", ["call", "attribute"])
def test_fractions_that_are_not_rescaled_are_the_picture(processor, pipe, place):
    expected = processor(images=PICTURE, return_tensors="pt")["pixel_values"]
    options = {"do_rescale": False} if place == "call" else {}
    processor.image_processor.do_rescale = place == "call"
    for fractions in (PIXELS / 255, PIXELS.astype(np.float32) / 255, torch.from_numpy(PIXELS / 255).permute(2, 0, 1)):
        found = processor(images=fractions, return_tensors="pt", **options)["pixel_values"]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pictures", [[PICTURE], [PIXELS], [PIXELS / 255, PICTURE]], ids=["PIL", "uint8", "mixed"])
def test_8_bit_pictures_that_are_not_rescaled_are_refused(processor, pictures):
    with pytest.raises(ValueError, match="do_rescale is false, and of . pictures . have floats in"):
        processor(images=pictures, do_rescale=False)
