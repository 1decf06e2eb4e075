# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The image processor against plain Pillow and numpy, and `open_picture` on every kind of picture."""

import contextlib
import http.server
import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.utils import is_torchvision_available

from remamber_hf import pictures
from remamber_hf.image_processing_remamber import (
    ReMamberImageProcessor,
    ReMamberImageProcessorPil,
    open_picture,
    read_picture,
)


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGE_PROCESSORS = [
    ReMamberImageProcessorPil,
    pytest.param(
        ReMamberImageProcessor,
        marks=pytest.mark.skipif(not is_torchvision_available(), reason="torchvision is not installed"),
    ),
]


def random_array(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def random_map(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width)) > 0.5


def published_pixel_values(picture, size=480):
    pixels = np.asarray(picture.resize((size, size), Image.BILINEAR)).astype(np.float32) / 255
    return ((pixels - np.float32(MEAN)) / np.float32(STD)).transpose(2, 0, 1)  # (channels, height, width)


def pil_nearest(segmentation_map, height, width):
    picture = Image.fromarray(segmentation_map.astype(np.uint8)).resize((width, height), Image.NEAREST)
    return np.asarray(picture)


def encoded(picture, image_format, **options):
    file = io.BytesIO()
    picture.save(file, image_format, **options)
    file.seek(0)
    return file


# ------------------------------------------------------------------------------------------------------- pixel values
@pytest.mark.parametrize("shape", [(427, 640), (640, 427), (30, 17), (480, 480), (1, 1)])
def test_pixel_values_equal_the_published_preprocessing(shape):
    picture = Image.fromarray(random_array(*shape, 3))
    pixel_values = ReMamberImageProcessorPil()(picture, return_tensors="np")["pixel_values"]
    assert pixel_values.dtype == np.float32
    np.testing.assert_array_equal(pixel_values[0], published_pixel_values(picture))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [123.0, 117.0, 104.0], "image_std": [58.0, 57.0, 57.0]},
        {"do_rescale": False, "do_normalize": False},
        {"do_resize": False},
        {"size": {"shortest_edge": 20}},
        {"do_center_crop": True, "crop_size": {"height": 16, "width": 24}},
        {"do_pad": True, "pad_size": {"height": 40, "width": 50}},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "rescale_factor": 0.003},
    ],
)
@pytest.mark.parametrize("kind", [Image.fromarray, np.asarray])
def test_looking_up_gives_the_numbers_of_the_backend(options, kind):
    picture = kind(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8))
    options = {"size": {"height": 32, "width": 32}, **options}
    ours = ReMamberImageProcessorPil(**options)
    backend = PilBackend(**{name: getattr(ours, name) for name in ours._valid_kwargs_names})
    expected = backend(picture, return_tensors="np")["pixel_values"]
    pixel_values = ours(picture, return_tensors="np")["pixel_values"]
    assert pixel_values.dtype == expected.dtype
    assert np.array_equal(pixel_values, expected)


@pytest.mark.skipif(not is_torchvision_available(), reason="torchvision is not installed")
def test_the_twins_agree_within_one_grey_level():
    picture, segmentation_map = Image.fromarray(random_array(90, 70, 3)), random_map(90, 70)
    fast, exact = (
        cls(size={"height": 48, "width": 48})(picture, segmentation_map, return_tensors="pt")
        for cls in (ReMamberImageProcessor, ReMamberImageProcessorPil)
    )
    torch.testing.assert_close(fast["pixel_values"], exact["pixel_values"], atol=1.01 / 255 / min(STD), rtol=0)
    assert torch.equal(fast["labels"], exact["labels"])


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed")
def test_the_torchvision_twin_names_what_is_missing():
    with pytest.raises(ImportError, match="requires the Torchvision library"):
        ReMamberImageProcessor()


@pytest.mark.parametrize("image_processor_class", IMAGE_PROCESSORS)
def test_arrays_tensors_and_pictures_give_the_same_pixel_values(image_processor_class, tmp_path):
    array = random_array(20, 31, 3)
    Image.fromarray(array).save(tmp_path / "picture.png")
    pictures = [
        Image.fromarray(array),
        array,
        torch.from_numpy(array).permute(2, 0, 1),
        tmp_path / "picture.png",
        str(tmp_path / "picture.png"),
    ]
    image_processor = image_processor_class(size={"height": 24, "width": 32})
    expected = image_processor(pictures[0], return_tensors="pt")["pixel_values"]
    assert expected.shape == (1, 3, 24, 32)
    for picture in pictures[1:]:
        assert torch.equal(image_processor(picture, return_tensors="pt")["pixel_values"], expected)


@pytest.mark.parametrize("image_processor_class", IMAGE_PROCESSORS)
def test_a_pil_picture_is_converted_as_by_open_picture_but_not_rotated(image_processor_class):
    image_processor = image_processor_class()
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 65536, (20, 30)).astype(np.uint16))
    seen = image_processor(grey, return_tensors="pt")["pixel_values"]
    assert torch.equal(seen, image_processor(open_picture(grey), return_tensors="pt")["pixel_values"])

    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = Image.open(encoded(Image.fromarray(random_array(20, 30, 3)), "PNG", exif=exif))
    seen = image_processor(rotated, return_tensors="pt")["pixel_values"]
    assert torch.equal(seen, image_processor(np.asarray(rotated), return_tensors="pt")["pixel_values"])


def test_saved_settings_come_back(tmp_path):
    image_processor = ReMamberImageProcessorPil(size={"height": 32, "width": 40}, do_normalize=False)
    image_processor.save_pretrained(tmp_path)
    reloaded = ReMamberImageProcessorPil.from_pretrained(tmp_path)
    assert reloaded.to_dict() == image_processor.to_dict()
    assert reloaded.to_dict()["image_processor_type"] == "ReMamberImageProcessor"


# ------------------------------------------------------------------------------------------------------------- labels
@pytest.mark.parametrize("image_processor_class", IMAGE_PROCESSORS)
@pytest.mark.parametrize("shape", [(427, 640), (333, 500), (17, 30), (480, 480)])
def test_labels_equal_pil_nearest(image_processor_class, shape):
    segmentation_map = random_map(*shape)
    labels = image_processor_class()(random_array(*shape, 3), segmentation_map, return_tensors="pt")["labels"]
    assert labels.shape == (1, 480, 480) and labels.dtype == torch.uint8
    np.testing.assert_array_equal(labels[0].numpy(), pil_nearest(segmentation_map, 480, 480))


@pytest.mark.parametrize("image_processor_class", IMAGE_PROCESSORS)
def test_every_kind_of_map_gives_the_same_labels(image_processor_class):
    is_object = random_map(20, 31)
    palette = Image.fromarray(is_object.astype(np.uint8), mode="L").convert("P")
    maps = [
        is_object,
        is_object.astype(np.uint8),
        is_object.astype(np.uint8) * 255,
        is_object.astype(np.int64),
        is_object.astype(np.float32),
        torch.from_numpy(is_object),
        torch.from_numpy(is_object.astype(np.uint8) * 255),
        Image.fromarray(is_object),
        Image.fromarray(is_object.astype(np.uint8) * 255),
        palette,
    ]
    assert (maps[7].mode, maps[8].mode, maps[9].mode) == ("1", "L", "P")
    images = [random_array(20, 31, 3)] * len(maps)
    labels = image_processor_class(size={"height": 24, "width": 16})(images, maps, return_tensors="np")["labels"]
    for label in labels:
        np.testing.assert_array_equal(label, pil_nearest(is_object, 24, 16))


@pytest.mark.parametrize(
    ("values", "came"),
    [
        ([0, 7], "0, 7"),
        ([1, 2], "1, 2"),
        ([0, 1, 255], "0, 1, 255"),
        ([-1, 1], "-1, 1"),
        ([-100, 0, 1], "-100, 0, 1"),
        ([0.0, 0.5], "0.0, 0.5"),
        ([0.0, np.nan], "0.0, nan"),
    ],
)
@pytest.mark.parametrize(
    "kind", [np.array, torch.tensor, lambda values: Image.fromarray(np.array(values, np.float32))]
)
def test_maps_with_other_codes_are_refused(values, came, kind):
    segmentation_map = [values * 6] * 4
    message = rf"Segmentation map 1 has the values {came}(\.0)?.*; give 0 and 1"
    if kind not in (np.array, torch.tensor):
        message = "Segmentation map 1 has the values .*; give 0 and 1"
    image = random_array(4, 6 * len(values), 3)
    with pytest.raises(ValueError, match=message):
        ReMamberImageProcessorPil()([image] * 2, [np.ones(image.shape[:2]), kind(segmentation_map)])


def test_image_index_says_which_image_a_map_belongs_to():
    image_processor = ReMamberImageProcessorPil(size={"height": 8, "width": 8})
    images = [random_array(20, 31, 3), random_array(40, 10, 3)]
    maps = [random_map(40, 10, seed=0), random_map(20, 31, seed=1), random_map(40, 10, seed=2)]
    features = image_processor(images, maps, image_index=[1, 0, 1], return_tensors="np")
    assert features["pixel_values"].shape == (2, 3, 8, 8)
    np.testing.assert_array_equal(
        features["labels"], [pil_nearest(segmentation_map, 8, 8) for segmentation_map in maps]
    )


def test_labels_keep_the_map_size_without_resize():
    segmentation_map = random_map(20, 31)
    features = ReMamberImageProcessorPil(do_resize=False)(random_array(20, 31, 3), segmentation_map)
    np.testing.assert_array_equal(features["labels"][0], segmentation_map)


def test_a_map_of_another_size_is_refused():
    images, maps = [random_array(20, 30, 3)] * 2, [random_map(20, 30), random_map(30, 20)]
    with pytest.raises(ValueError, match=r"map 1 is \(30, 20\), its image 1 is \(20, 30\)"):
        ReMamberImageProcessorPil()(images, maps)


def test_another_number_of_maps_is_refused():
    with pytest.raises(ValueError, match="1 segmentation maps came, 2 were needed"):
        ReMamberImageProcessorPil()([random_array(20, 30, 3)] * 2, [random_map(20, 30)])


def test_an_image_index_beyond_the_images_is_refused():
    with pytest.raises(ValueError, match=r"image_index is \[1\]; with 1 images, count from 0"):
        ReMamberImageProcessorPil()(random_array(20, 30, 3), random_map(20, 30), image_index=[1])


def test_a_colour_map_is_refused():
    with pytest.raises(ValueError, match=r"map 0 has shape \(20, 30, 3\)"):
        ReMamberImageProcessorPil()(random_array(20, 30, 3), Image.fromarray(random_array(20, 30, 3)))


# ------------------------------------------------------------------------------------------------------- open_picture
def assert_opens_as(source, expected):
    picture = open_picture(source)
    assert picture.mode == "RGB"
    expected = np.asarray(expected)
    if expected.ndim == 2:
        expected = np.repeat(expected[..., None], 3, axis=-1)
    np.testing.assert_array_equal(np.asarray(picture), expected)


def on_white(colour, alpha):
    """colour: (height, width, 3), alpha: (height, width), both 0 or 255 in alpha."""
    return np.where(alpha[..., None] > 0, colour, 255).astype(np.uint8)


def test_a_path_a_file_and_a_picture_open_alike(tmp_path):
    array = random_array(20, 31, 3)
    path = tmp_path / "picture.png"
    Image.fromarray(array).save(path)
    assert_opens_as(path, array)
    assert_opens_as(str(path), array)
    assert_opens_as(io.BytesIO(path.read_bytes()), array)
    assert_opens_as(Image.open(path), array)
    assert_opens_as(Image.fromarray(array), array)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
        (8, lambda x: np.rot90(x, 1)),
    ],
)
def test_the_exif_rotation_is_applied_once(orientation, upright):
    array = random_array(20, 31, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_picture(encoded(Image.fromarray(array), "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(picture), upright(array))
    assert picture.getexif().get(0x0112, 1) == 1


def test_a_palette_picture_gets_its_colours():
    palette = Image.fromarray(random_array(20, 31, 3)).quantize(16)
    assert_opens_as(encoded(palette, "PNG"), palette.convert("RGB"))


def test_a_transparent_palette_colour_becomes_white():
    palette = Image.fromarray(random_array(20, 31, 3)).quantize(16)
    colour, alpha = np.asarray(palette.convert("RGB")), np.asarray(palette) != 3
    assert_opens_as(encoded(palette, "PNG", transparency=3), on_white(colour, alpha))


def test_a_transparent_key_colour_becomes_white():
    array = random_array(20, 31, 3)
    array[4:9, 5:8] = (10, 20, 30)
    alpha = ~(array == (10, 20, 30)).all(-1)
    assert_opens_as(encoded(Image.fromarray(array), "PNG", transparency=(10, 20, 30)), on_white(array, alpha))


def test_one_bit_and_grey_pictures_become_grey_rgb():
    is_white, grey = random_map(20, 31), random_array(20, 31)
    assert_opens_as(encoded(Image.fromarray(is_white), "PNG"), is_white.astype(np.uint8) * 255)
    assert_opens_as(encoded(Image.fromarray(grey), "PNG"), grey)


def test_an_alpha_channel_is_laid_on_white():
    colour, alpha = random_array(20, 31, 3), random_map(20, 31).astype(np.uint8) * 255
    rgba = Image.fromarray(np.dstack([colour, alpha]))
    assert_opens_as(encoded(rgba, "PNG"), on_white(colour, alpha))
    grey = Image.fromarray(colour[..., 0])
    la = Image.merge("LA", [grey, Image.fromarray(alpha)])
    assert_opens_as(encoded(la, "PNG"), on_white(np.repeat(colour[..., :1], 3, axis=-1), alpha))


def test_half_transparency_is_mixed_with_white():
    half = Image.new("RGBA", (3, 2), (0, 100, 200, 128))
    expected = [round(c * 128 / 255 + 255 * 127 / 255) for c in (0, 100, 200)]
    assert np.abs(np.asarray(open_picture(half)).astype(int) - expected).max() <= 1


def test_16_bit_grey_is_scaled_not_clipped():
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(grey / 257)
    png, tiff = encoded(Image.fromarray(grey), "PNG"), encoded(Image.fromarray(grey.astype(np.int32)), "TIFF")
    assert Image.open(png).mode == "I;16" and Image.open(tiff).mode == "I"
    assert_opens_as(png, expected)
    assert_opens_as(tiff, expected)


def test_float_fractions_and_float_grey_levels_open_alike():
    grey = np.arange(256, dtype=np.float32).reshape(16, 16)
    assert_opens_as(encoded(Image.fromarray(grey), "TIFF"), grey)
    assert_opens_as(encoded(Image.fromarray(grey / 255), "TIFF"), grey)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.float32([[-1, 0.5]]), r"-1.0 to 0.5 came, \[0, 255\] was needed"),
        (np.float32([[np.nan, 0.5]]), "nan to nan came"),
        (np.int32([[0, 70000]]), r"0 to 70000 came, \[0, 65535\] was needed"),
    ],
)
def test_values_without_an_8_bit_meaning_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        open_picture(Image.fromarray(values))


def test_cmyk_keeps_its_colours():
    # Pillow writes CMYK JPEG files the Adobe way, inverted, with an Adobe marker.
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    file = encoded(red, "JPEG", quality=100)
    assert b"Adobe" in file.getvalue()
    assert np.abs(np.asarray(open_picture(file)).astype(int) - (255, 0, 0)).max() <= 3
    assert_opens_as(red, np.full((16, 16, 3), (255, 0, 0)))


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert_opens_as(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), frames[0])


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file '.*nothing.png'"):
        open_picture(tmp_path / "nothing.png")


def test_a_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"'{tmp_path}' is a folder"):
        open_picture(tmp_path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "header only"])
def test_a_damaged_picture_is_named(tmp_path, image_format, damage):
    data = encoded(Image.fromarray(random_array(64, 64, 3)), image_format).getvalue()
    data = {"empty": b"", "text": b"no picture", "truncated": data[: len(data) // 2], "header only": data[:24]}[damage]
    path = tmp_path / f"damaged.{image_format.lower()}"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="picture '.*damaged.* cannot be read"):
        open_picture(path)


def test_a_truncated_lazy_picture_is_named(tmp_path):
    path = tmp_path / "half.jpg"
    data = encoded(Image.fromarray(random_array(64, 64, 3)), "JPEG").getvalue()
    path.write_bytes(data[: len(data) // 2])
    with Image.open(path) as picture, pytest.raises(ValueError, match="half.jpg' cannot be read"):
        open_picture(picture)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("L", (100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="bomb.png' cannot be read .*decompression bomb"):
        open_picture(path)


def test_an_array_is_no_source():
    with pytest.raises(ValueError, match="ndarray came; give a path"):
        open_picture(random_array(3, 3, 3))


class EndlessHandler(http.server.BaseHTTPRequestHandler):
    """Sends zeros until the other side goes."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(bytes(2**16))

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize("bound", ["DOWNLOAD_BYTES", "DOWNLOAD_SECONDS"])
def test_a_picture_from_the_web_that_never_ends_is_given_up(bound, monkeypatch):
    monkeypatch.setattr(pictures, bound, {"DOWNLOAD_BYTES": 10**6, "DOWNLOAD_SECONDS": 0.1}[bound])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), EndlessHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/picture.png"
        with pytest.raises(ValueError, match=r"picture.png cannot be fetched: it gave \d+ bytes and more"):
            read_picture(url)
        server.shutdown()


def test_a_saved_folder_names_the_twin_that_loads_with_and_without_torchvision():
    processor = ReMamberImageProcessorPil()
    for twin in ("ReMamberImageProcessor", "ReMamberImageProcessorPil"):
        processor.auto_map = {"AutoImageProcessor": f"image_processing_remamber.{twin}"}
        auto_map = processor.to_dict()["auto_map"]
        assert auto_map == {"AutoImageProcessor": "image_processing_remamber.ReMamberImageProcessorPil"}
