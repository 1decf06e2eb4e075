# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What crops and pads is undone where masks are laid back; codes in labels and segmentation maps."""

from types import SimpleNamespace

import numpy as np
import pytest
import rows as idioms
import torch
from PIL import Image
from rows import SIDE, check_refused, losses_one_by_one, make_rows
from test_picture_sources import IMAGE_PROCESSORS, make_processor
from transformers.image_utils import SizeDict

from remamber_hf import ReferringSegmentationPipeline


SIZES = [(40, 60), (60, 40), (50, 50), (33, 90)]  # (height, width)
SHORTEST = {"shortest_edge": 40}
SQUARE = {"height": 48, "width": 48}
GEOMETRIES = {
    "shortest edge, padded": {"size": SHORTEST, "do_pad": True, "pad_size": {"height": 128, "width": 128}},
    "longest edge, padded": {
        "size": {"longest_edge": 64, "shortest_edge": 64},
        "do_pad": True,
        "pad_size": {"height": 64, "width": 64},
    },
    "within a maximum, padded": {
        "size": {"max_height": 64, "max_width": 64},
        "do_pad": True,
        "pad_size": {"height": 64, "width": 64},
    },
    "padded to the largest": {"size": SHORTEST, "do_pad": True},
    "square, padded": {"size": SQUARE, "do_pad": True, "pad_size": {"height": 64, "width": 80}},
    "not resized, padded": {"do_resize": False, "do_pad": True, "pad_size": {"height": 96, "width": 96}},
    "shortest edge, cropped": {"size": SHORTEST, "do_center_crop": True, "crop_size": {"height": 40, "width": 40}},
    "square, cropped": {"size": SQUARE, "do_center_crop": True, "crop_size": {"height": 40, "width": 32}},
    "cropped to more": {"size": SHORTEST, "do_center_crop": True, "crop_size": {"height": 64, "width": 64}},
    "not resized, cropped": {"do_resize": False, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
    "cropped and padded": {
        "size": SHORTEST,
        "do_center_crop": True,
        "crop_size": {"height": 40, "width": 40},
        "do_pad": True,
        "pad_size": {"height": 64, "width": 64},
    },
}


@pytest.fixture(params=IMAGE_PROCESSORS, ids=lambda image_processor_class: image_processor_class.__name__)
def image_processor_class(request):
    return request.param


@pytest.fixture(scope="module")
def model(folder):
    """Shared: what a test changes, it puts back."""
    return idioms.load_model(folder)


def scene(height: int, width: int) -> tuple[Image.Image, np.ndarray]:
    """A black picture with a white object that is off its middle, and the object's mask."""
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 5 : 3 * height // 5, width // 4 : 5 * width // 8] = True
    return Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB"), mask


def see_white(pixel_values: torch.Tensor) -> torch.Tensor:
    """Logits of what is white; the zeros of a border are grey."""
    return 10 * (pixel_values.mean(1, keepdim=True) - 1)


def shown(options: dict, height: int, width: int) -> np.ndarray:
    """Which pixels of a picture the crop leaves."""
    seen = np.ones((height, width), dtype=bool)
    if options.get("do_center_crop"):
        size, crop = options["size"] if options.get("do_resize", True) else {}, options["crop_size"]
        factor = size["shortest_edge"] / min(height, width) if "shortest_edge" in size else 1
        resized = [size.get("height", height * factor), size.get("width", width * factor)]
        for axis, (side, whole, part) in enumerate(zip((height, width), resized, crop.values())):
            first, last = side * max(whole - part, 0) / 2 / whole, side * (1 - max(whole - part, 0) / 2 / whole)
            middle = np.arange(side) + 0.5
            seen &= np.expand_dims((middle > first) & (middle < last), 1 - axis)
    return seen


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


@pytest.mark.parametrize("together", [True, False], ids=["batch", "one by one"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_masks_come_back_where_the_object_is_whatever_crops_and_pads(image_processor_class, name, together):
    options = GEOMETRIES[name]
    processor = make_processor(image_processor_class, **options)
    scenes = [scene(*size) for size in SIZES]
    batches = [range(len(scenes))] if together else [[index] for index in range(len(scenes))]
    for indices in batches:
        inputs = processor(images=[scenes[index][0] for index in indices], return_tensors="pt")
        masks = processor.post_process_referring_segmentation(
            see_white(inputs["pixel_values"]), target_sizes=[SIZES[index] for index in indices]
        )
        for index, mask in zip(indices, masks):
            expected = scenes[index][1] & shown(options, *SIZES[index])
            assert iou(mask.numpy(), expected) > 0.85, f"{name}, picture {SIZES[index]}"


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "padded to the largest"])
def test_the_pipeline_lays_masks_back_likewise(image_processor_class, name, batch_size, model, monkeypatch):
    options = GEOMETRIES[name]
    pipe = ReferringSegmentationPipeline(model=model, processor=make_processor(image_processor_class, **options))
    monkeypatch.setattr(
        model, "forward", lambda pixel_values, **inputs: SimpleNamespace(logits=see_white(pixel_values))
    )
    scenes = [scene(*size) for size in SIZES]
    for (_, mask), result in zip(scenes, pipe([picture for picture, _ in scenes], "cat", batch_size=batch_size)):
        expected = mask & shown(options, *mask.shape)
        assert iou(np.asarray(result["mask"]) > 0, expected) > 0.85


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    "options",
    [{"size": SHORTEST}, {"do_resize": False}, {"size": SHORTEST, "do_pad": True}],
    ids=["shortest edge", "not resized", "padded to the largest"],
)
def test_pictures_prepared_at_several_sizes_are_right_or_refused_in_a_batch(
    image_processor_class, options, batch_size, model, monkeypatch
):
    pipe = ReferringSegmentationPipeline(model=model, processor=make_processor(image_processor_class, **options))
    monkeypatch.setattr(
        model, "forward", lambda pixel_values, **inputs: SimpleNamespace(logits=see_white(pixel_values))
    )
    scenes = [scene(*size) for size in SIZES]
    try:
        results = pipe([picture for picture, _ in scenes], "cat", batch_size=batch_size)
    except ValueError as error:
        assert batch_size > 1
        assert "\n" not in str(error)
    else:
        for (_, mask), result in zip(scenes, results, strict=True):
            assert iou(np.asarray(result["mask"]) > 0, mask) > 0.85


@pytest.mark.parametrize("kind", [dict, lambda size: SizeDict(**size)], ids=["dict", "SizeDict"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_attributes_of_an_image_processor_are_as_its_arguments(image_processor_class, name, kind):
    options = GEOMETRIES[name]
    image_processor = make_processor(image_processor_class).image_processor
    for option, value in options.items():
        setattr(image_processor, option, kind(value) if isinstance(value, dict) else value)
    pictures = [scene(*size)[0] for size in SIZES]
    pixel_values = image_processor(pictures, return_tensors="pt")["pixel_values"]
    expected = make_processor(image_processor_class, **options).image_processor
    torch.testing.assert_close(pixel_values, expected(pictures, return_tensors="pt")["pixel_values"])
    logits = see_white(pixel_values)
    masks = image_processor.post_process_referring_segmentation(logits, target_sizes=SIZES)
    for mask, other in zip(masks, expected.post_process_referring_segmentation(logits, SIZES), strict=True):
        np.testing.assert_array_equal(mask.numpy(), other.numpy())


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_saved_processor_lays_masks_back_where_it_did(image_processor_class, name, tmp_path):
    processor = make_processor(image_processor_class, **GEOMETRIES[name])
    processor.save_pretrained(tmp_path)
    loaded = idioms.load_processor(tmp_path)
    pictures = [scene(*size)[0] for size in SIZES]
    logits = see_white(processor(images=pictures, return_tensors="pt")["pixel_values"])
    assert loaded(images=pictures, return_tensors="pt")["pixel_values"].shape[2:] == logits.shape[2:]
    expected = processor.post_process_referring_segmentation(logits, SIZES)
    for mask, other in zip(loaded.post_process_referring_segmentation(logits, SIZES), expected, strict=True):
        np.testing.assert_array_equal(mask.numpy(), other.numpy())


@pytest.mark.parametrize("name", GEOMETRIES)
def test_labels_go_where_their_picture_goes(image_processor_class, name):
    processor = make_processor(image_processor_class, **GEOMETRIES[name])
    scenes = [scene(*size) for size in SIZES]
    inputs = processor(
        images=[picture for picture, _ in scenes],
        text=["cat"] * len(scenes),
        segmentation_maps=[mask for _, mask in scenes],
        return_tensors="pt",
    )
    assert inputs["labels"].shape[1:] == inputs["pixel_values"].shape[2:]
    for label, logits in zip(inputs["labels"], see_white(inputs["pixel_values"])):
        assert iou(label.numpy() == 1, logits[0].numpy() > 0) > 0.85


@pytest.mark.parametrize(
    "options",
    [
        {"do_pad": True, "pad_size": {"height": 64, "width": 64}},
        {"do_pad": True},
        {"do_center_crop": True, "crop_size": {"height": 16, "width": 16}},
        {"images_kwargs": {"do_center_crop": True, "crop_size": {"height": 16, "width": 16}}},
    ],
    ids=str,
)
def test_a_crop_or_border_for_one_call_is_refused(image_processor_class, options):
    processor = make_processor(image_processor_class)
    with pytest.raises(ValueError, match=r"in this call and .* in the image processor, .* set it there"):
        processor(images=scene(40, 60)[0], text="cat", **options)


@pytest.mark.parametrize("name", ["shortest edge, padded", "shortest edge, cropped"])
def test_another_size_for_one_call_is_refused_where_masks_are_laid_back(image_processor_class, name):
    processor = make_processor(image_processor_class, **GEOMETRIES[name])
    with pytest.raises(ValueError, match=r"size is .* in this call and .* in the image processor"):
        processor(images=scene(40, 60)[0], text="cat", size={"height": 64, "width": 64})


def test_another_size_for_one_call_keeps_masks_on_their_pictures(image_processor_class):
    processor = make_processor(image_processor_class)
    picture, mask = scene(40, 60)
    inputs = processor(images=picture, size={"height": 64, "width": 96}, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 64, 96)
    (found,) = processor.post_process_referring_segmentation(see_white(inputs["pixel_values"]), [mask.shape])
    assert iou(found.numpy(), mask) > 0.85


# ----------------------------------------------------------------------------------------------------- labels and maps
CODES = {
    "0/255": (0, 255),
    "0/1/255": (0, 1, 255),
    "-100": (0, 1, -100),
    "-1": (0, 1, -1),
    "1/2": (1, 2),
    "0/1/2": (0, 1, 2),
    "0/7": (0, 7),
    "floats beyond 1": (0.0, 1.5),
    "floats below 0": (-0.5, 1.0),
    "NaN": (0.0, float("nan")),
    "infinite": (0.0, float("inf")),
}


def coded(mask: np.ndarray, codes: tuple, dtype=None) -> np.ndarray:
    """The mask with the last code for the object, the first for the rest, and one pixel of each code between."""
    values = np.where(mask, codes[-1], codes[0]).astype(dtype or np.asarray(codes).dtype)
    values.flat[: len(codes)] = codes
    return values


def labelled(processor, row):
    return processor(row["image"], row["expression"], row["mask"], return_tensors="pt")


@pytest.mark.parametrize("codes", CODES.values(), ids=CODES.keys())
def test_labels_of_other_codes_are_refused_by_the_model(model, image_processor_class, codes):
    inputs = labelled(make_processor(image_processor_class), make_rows(1)[0])
    inputs["labels"] = torch.from_numpy(coded(inputs["labels"].numpy() == 1, codes))
    with pytest.raises(ValueError, match=r"labels from .* to .* came; give 1 for the object and 0 for the rest"):
        model(**inputs)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64]
)
@pytest.mark.parametrize("axes", [3, 4])
def test_labels_of_0_and_1_of_any_type_give_the_loss(model, image_processor_class, dtype, axes):
    processor = make_processor(image_processor_class)
    row = make_rows(1)[0]
    inputs = labelled(processor, row)
    inputs["labels"] = inputs["labels"].to(dtype)
    if axes == 4:
        inputs["labels"] = inputs["labels"][:, None]
    expected = losses_one_by_one(model, processor, [row])
    torch.testing.assert_close(model(**inputs).loss[None], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "shape",
    [
        lambda labels: labels[..., None],
        lambda labels: labels[:, None].expand(-1, 3, -1, -1),
        lambda labels: labels[:, ::2, ::2],
        lambda labels: labels[0],
        lambda labels: labels.expand(2, -1, -1),
    ],
    ids=["channels last", "three channels", "half size", "no batch", "two for one"],
)
def test_labels_of_another_shape_are_refused_by_the_model(model, image_processor_class, shape):
    inputs = labelled(make_processor(image_processor_class), make_rows(1)[0])
    inputs["labels"] = shape(inputs["labels"])
    with pytest.raises(ValueError, match=r"labels have shape .*; give one mask per expression, of the size of"):
        model(**inputs)


@pytest.mark.parametrize("kind", ["array", "tensor"])
@pytest.mark.parametrize("codes", [*list(CODES)[1:], "fractions"])
def test_segmentation_maps_of_other_codes_are_refused(image_processor_class, codes, kind):
    row = make_rows(1)[0]
    values = coded(row["mask"], CODES.get(codes, (0.0, 0.5)))
    values = torch.from_numpy(values) if kind == "tensor" else values
    with pytest.raises(ValueError, match=r"Segmentation map 0 has the values .*; give 0 and 1, 0 and 255 or bool"):
        make_processor(image_processor_class)(row["image"], "cat", values)


MAPS = {
    "bool": lambda mask: mask,
    "uint8 0/255": lambda mask: mask.astype(np.uint8) * 255,
    "int64": lambda mask: mask.astype(np.int64),
    "float32": lambda mask: mask.astype(np.float32),
    "PIL 1": Image.fromarray,
    "PIL L": lambda mask: Image.fromarray(mask.astype(np.uint8) * 255),
    "PIL L 0/1": lambda mask: Image.fromarray(mask.astype(np.uint8)),
    "PIL I": lambda mask: Image.fromarray(mask.astype(np.int32)),
    "tensor": torch.from_numpy,
    "tensor (1, height, width)": lambda mask: torch.from_numpy(mask)[None],
    "list of one": lambda mask: [mask],
}


@pytest.mark.parametrize("kind", MAPS)
def test_segmentation_maps_of_every_kind_give_the_labels(image_processor_class, kind):
    row = make_rows(1)[0]
    processor = make_processor(image_processor_class)
    found = processor(row["image"], "cat", MAPS[kind](row["mask"]), return_tensors="pt")["labels"]
    torch.testing.assert_close(found, labelled(processor, row)["labels"], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "LANCZOS"])
def test_a_filter_may_be_named(image_processor_class, name):
    picture = make_rows(1)[0]["image"]
    image_processor = image_processor_class(size={"height": SIDE, "width": SIDE})
    expected = image_processor(picture, resample=Image.Resampling[name.upper()], return_tensors="pt")["pixel_values"]
    assert torch.equal(image_processor(picture, resample=name, return_tensors="pt")["pixel_values"], expected)
    check_refused(lambda: image_processor(picture, resample="some"), "resample is 'some'; give one of nearest")


def test_a_palette_of_black_and_white_is_read_by_its_colours(image_processor_class):
    mask = np.zeros((20, 30), dtype=bool)
    mask[:8, :10] = True
    palette = Image.fromarray(mask.astype(np.uint8) * 255).convert("RGB").quantize(2)
    image_processor = image_processor_class(size={"height": 20, "width": 30})
    for picture in (palette, palette.convert("L")):
        labels = image_processor(Image.new("RGB", (30, 20)), picture, return_tensors="np")["labels"][0]
        assert np.array_equal(labels, mask)
