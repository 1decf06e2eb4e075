# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Masks of logits and what is refused; masks, maps and objects of each picture, compared with a loop in numpy."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tiny import make_tokenizer

from remamber_hf import ReMamberImageProcessorPil, ReMamberProcessor


IMAGE_INDEX = [2, 0, 2, 1, 2]  # of five expressions about three pictures, not in order
SIZES = [(30, 40), (25, 31), (12, 50)]  # of the pictures


@pytest.fixture(scope="module")
def processor():
    return ReMamberProcessor(ReMamberImageProcessorPil(), make_tokenizer())


@pytest.fixture(scope="module")
def outputs():
    logits = 3 * torch.randn(5, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    logits[3] = -5  # means nothing
    return SimpleNamespace(logits=logits)


def probabilities_of(outputs) -> list[np.ndarray]:
    """One expression after the other, each at the size of its picture."""
    return [
        F.interpolate(outputs.logits[index : index + 1], size=SIZES[picture], mode="bilinear")[0, 0].sigmoid().numpy()
        for index, picture in enumerate(IMAGE_INDEX)
    ]


@pytest.mark.parametrize("image_index", [IMAGE_INDEX, torch.tensor(IMAGE_INDEX)], ids=["list", "tensor"])
def test_sizes_are_of_pictures_where_the_processors_index_says_which(processor, outputs, image_index):
    expected = probabilities_of(outputs)
    options = {"target_sizes": SIZES, "image_index": image_index}
    for found, one in zip(processor.post_process_probabilities(outputs, **options), expected, strict=True):
        np.testing.assert_array_equal(found.numpy(), one)
    masks = processor.post_process_referring_segmentation(outputs, threshold=0.3, **options)
    for found, one in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(found.numpy(), one > 0.3)


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_a_map_has_the_likeliest_expression_of_each_pixel(processor, outputs, threshold):
    maps = processor.post_process_semantic_segmentation(outputs, SIZES, threshold, IMAGE_INDEX)
    assert [tuple(one.shape) for one in maps] == SIZES
    for picture, found in enumerate(maps):
        own = [probability for probability, place in zip(probabilities_of(outputs), IMAGE_INDEX) if place == picture]
        stacked = np.stack([np.full(SIZES[picture], threshold, dtype=np.float32), *own])
        np.testing.assert_array_equal(found.numpy(), stacked.argmax(axis=0))  # the first of equals
        assert found.dtype == torch.int64


def test_an_expression_for_each_picture_gives_a_map_of_0_and_1(processor, outputs):
    maps = processor.post_process_semantic_segmentation(outputs)
    assert torch.equal(torch.stack(maps), (outputs.logits[:, 0].sigmoid() > 0.5).long())


def test_objects_have_what_numpy_finds(processor, outputs):
    found = processor.post_process_instance_segmentation(outputs, SIZES, 0.4, IMAGE_INDEX)
    assert [objects["labels"].tolist() for objects in found] == [[1], [], [0, 2, 4]]
    expected = probabilities_of(outputs)
    for objects, size in zip(found, SIZES, strict=True):
        assert {name: (tuple(value.shape[1:]), value.dtype) for name, value in objects.items()} == {
            "masks": (size, torch.bool),
            "scores": ((), torch.float32),
            "boxes": ((4,), torch.int64),
            "labels": ((), torch.int64),
        }
        for mask, score, box, label in zip(*(objects[name] for name in ("masks", "scores", "boxes", "labels"))):
            probability = expected[label]
            np.testing.assert_array_equal(mask.numpy(), probability > 0.4)
            assert score.item() == pytest.approx(probability[probability > 0.4].mean(), abs=1e-6)
            assert tuple(box.tolist()) == Image.fromarray(probability > 0.4).getbbox()


def test_what_the_processor_returns_says_which_picture(processor):
    pictures = [Image.new("RGB", (40, 30)), Image.new("RGB", (50, 12))]
    inputs = processor(images=pictures, text=[["cat", "dog"], ["cat"]], return_tensors="pt")
    logits = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    sizes = [(picture.height, picture.width) for picture in pictures]
    masks = processor.post_process_referring_segmentation(logits, sizes, image_index=inputs["image_index"])
    assert [tuple(mask.shape) for mask in masks] == [(30, 40), (30, 40), (12, 50)]


@pytest.mark.parametrize("method", ["referring", "semantic", "instance"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_index": [0, 1]}, "image_index is .*, logits have 5 expressions"),
        ({"image_index": [0.7, 0.2, 1.9, 0.0, 1.0]}, "image_index is .*, logits have 5 expressions"),
        ({"image_index": "abcde"}, "image_index is 'abcde', logits have 5 expressions"),
        ({"image_index": 0}, "image_index is 0, logits have 5 expressions"),
        ({"image_index": torch.zeros(5, dtype=torch.int64, device="meta")}, "image_index is .*, logits have"),
        ({"target_sizes": [(math.inf, 5)] * 5}, "target_sizes.* is .inf, 5.; give .height, width."),
        ({"image_index": [0, 1, -1, 0, 0]}, "image_index is .*, logits have 5 expressions"),
        (
            {"image_index": IMAGE_INDEX, "target_sizes": SIZES[:2]},
            "target_sizes has 2 entries, logits have 3 pictures",
        ),
        ({"target_sizes": SIZES}, "target_sizes has 3 entries, logits have 5 expressions"),
        ({"threshold": 1.5}, "threshold is 1.5"),
    ],
    ids=[
        *("too few", "fractions", "text", "a number", "no data", "no size", "negative", "too few sizes"),
        *("sizes of pictures without their index", "threshold"),
    ],
)
def test_what_does_not_fit_is_refused(processor, outputs, method, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(processor, f"post_process_{method}_segmentation")(outputs, **arguments)


def make_outputs(num_expressions=3, dtype=torch.float32, size=(12, 10)):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(num_expressions, 1, *size, generator=generator)
    return SimpleNamespace(logits=logits.to(dtype))


post_process = ReMamberImageProcessorPil().post_process_referring_segmentation
post_process_probabilities = ReMamberImageProcessorPil().post_process_probabilities


def test_masks_come_back_at_original_size():
    sizes = [(427, 640), (30, 7), (12, 10)]
    masks = post_process(make_outputs(), target_sizes=sizes)
    assert [tuple(mask.shape) for mask in masks] == sizes
    assert all(mask.dtype == torch.bool for mask in masks)


@pytest.mark.parametrize(
    ("interpolation", "options"),
    [("bilinear", {"mode": "bilinear", "align_corners": False}), ("nearest", {"mode": "nearest"})],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_resized_before_the_sigmoid_in_float32(interpolation, options, dtype):
    model_outputs, sizes = make_outputs(dtype=dtype), [(25, 31), (7, 9), (12, 10)]
    masks = post_process(model_outputs, target_sizes=sizes, threshold=0.3, interpolation=interpolation)
    probabilities = post_process_probabilities(model_outputs, target_sizes=sizes, interpolation=interpolation)
    for logits, size, mask, probability in zip(model_outputs.logits, sizes, masks, probabilities):
        expected = F.interpolate(logits[None].float(), size=size, **options)[0, 0].sigmoid()
        assert probability.dtype == torch.float32
        torch.testing.assert_close(probability, expected, rtol=0, atol=0)
        assert torch.equal(mask, expected > 0.3)


def test_masks_keep_the_logit_size_without_target_sizes():
    model_outputs = make_outputs()
    logits = model_outputs.logits.clone()
    masks = post_process(model_outputs)
    assert torch.equal(torch.stack(masks), logits[:, 0] > 0)
    assert torch.equal(model_outputs.logits, logits)


def test_target_sizes_may_be_a_tensor():
    sizes = torch.tensor([[5, 6], [7, 8], [9, 10]])
    assert [list(mask.shape) for mask in post_process(make_outputs(), target_sizes=sizes)] == sizes.tolist()


def test_probabilities_carry_no_graph():
    model_outputs = make_outputs()
    model_outputs.logits.requires_grad_()
    probabilities = post_process_probabilities(model_outputs, target_sizes=[(5, 6)] * 3)
    assert not any(probability.requires_grad for probability in probabilities)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_sizes": [(5, 6)] * 2}, "target_sizes has 2 entries, logits have 3 expressions"),
        ({"target_sizes": torch.ones(4, 2)}, "target_sizes has 4 entries, logits have 3 expressions"),
        ({"target_sizes": [(5, 6), (5, 6, 3), (5, 6)]}, r"target_sizes\[1\] is \(5, 6, 3\)"),
        ({"target_sizes": [(5, 6), (5, 6), (0, 6)]}, r"target_sizes\[2\] is \(0, 6\)"),
        ({"interpolation": "lanczos"}, r"interpolation is 'lanczos'; choose one of \['bilinear', 'nearest'\]"),
        ({"threshold": 1.5}, "threshold is 1.5"),
        ({"threshold": -0.1}, "threshold is -0.1"),
        ({"threshold": float("nan")}, "threshold is nan"),
    ],
)
def test_wrong_postprocessing_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        post_process(make_outputs(), **arguments)


def test_logits_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"logits have shape \(3, 12, 10\)"):
        post_process(SimpleNamespace(logits=make_outputs().logits[:, 0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        (torch.float16, "the model overflows in float16, which ends at 65,504"),
        (torch.float32, "weights or pixel values"),
    ],
)
def test_logits_that_are_not_finite_are_no_empty_masks(value, dtype, reason):
    broken = make_outputs(dtype=dtype)
    broken.logits[1, 0, 3, 4] = value
    with pytest.raises(ValueError, match=f"the logits of 1 of 3 expressions are not finite: {reason}"):
        post_process(broken)


def test_pictures_that_no_expression_is_about_keep_their_place(processor, outputs):
    logits = outputs.logits[:2]
    for index, sizes in (([0, 2], SIZES), ([0, 1], SIZES), (np.array([1, 0]), np.array(SIZES))):
        maps = processor.post_process_semantic_segmentation(logits, sizes, image_index=index)
        assert [tuple(one.shape) for one in maps] == SIZES
        found = processor.post_process_instance_segmentation(logits, sizes, image_index=index)
        assert [tuple(objects["masks"].shape[1:]) for objects in found] == SIZES
        (unused,) = {0, 1, 2} - set(np.asarray(index).tolist())
        assert not maps[unused].any() and len(found[unused]["labels"]) == 0


@pytest.mark.parametrize("threshold", [0.3, np.float32(0.3), np.array(0.3), torch.tensor(0.3)], ids=repr)
@pytest.mark.parametrize("method", ["referring", "semantic", "instance"])
def test_a_threshold_is_a_number_of_any_library(processor, outputs, threshold, method):
    post_process = getattr(processor, f"post_process_{method}_segmentation")
    for found, expected in zip(post_process(outputs, threshold=threshold), post_process(outputs, threshold=0.3)):
        for name in found if method == "instance" else [...]:
            np.testing.assert_array_equal(found[name], expected[name])


def test_one_size_holds_for_all_pictures(processor, outputs):
    masks = processor.post_process_referring_segmentation(outputs, (9, 7), image_index=IMAGE_INDEX)
    assert [tuple(mask.shape) for mask in masks] == [(9, 7)] * 5
    assert len(processor.post_process_semantic_segmentation(outputs, (9, 7), image_index=IMAGE_INDEX)) == 3


def test_a_users_image_processor_decides(outputs):
    class Inverted(ReMamberImageProcessorPil):
        def post_process_referring_segmentation(self, *args, **kwargs):
            return [~mask for mask in super().post_process_referring_segmentation(*args, **kwargs)]

    plain, inverted = (ReMamberProcessor(each(), make_tokenizer()) for each in (ReMamberImageProcessorPil, Inverted))
    pairs = zip(*(each.post_process_referring_segmentation(outputs) for each in (plain, inverted)), strict=True)
    assert all(torch.equal(mask, ~other) for mask, other in pairs)


# ------------------------------------------------------------------------------------------------------------ presence
PRESENCE = [0.9, 0.49, 0.5, 0.9, 0.2]


def with_presence(outputs, kind="object"):
    named = {"logits": outputs.logits, "presence_logits": torch.tensor(PRESENCE).logit()}
    if kind == "arrays":
        return {name: values.numpy() for name, values in named.items()}
    if kind == "tuple":  # as return_dict=False gives them, with a loss
        return (torch.tensor(0.3), *named.values())
    return dict(named) if kind == "dict" else SimpleNamespace(**named)


@pytest.mark.parametrize("kind", ["object", "dict", "arrays", "tuple"])
@pytest.mark.parametrize("least", [None, 0.0, 0.3, 1.0])
def test_an_absent_object_has_an_empty_mask_and_no_object(processor, outputs, kind, least):
    given = with_presence(outputs, kind)
    options = {"target_sizes": SIZES, "image_index": IMAGE_INDEX, "threshold": 0.4}
    gate = {} if least is None else {"presence_threshold": least}
    is_there = [presence >= (0.5 if least is None else least) - 1e-7 for presence in PRESENCE]
    plain = processor.post_process_referring_segmentation(outputs, **options)
    masks = processor.post_process_referring_segmentation(given, **options, **gate)
    for found, whole, there in zip(masks, plain, is_there, strict=True):
        assert found.dtype == torch.bool and torch.equal(found, whole if there else torch.zeros_like(whole))
    objects = processor.post_process_instance_segmentation(given, **options, **gate)
    labels = [label for one in objects for label in one["labels"].tolist()]
    assert sorted(labels) == [index for index in range(5) if is_there[index] and plain[index].any()]
    maps = processor.post_process_semantic_segmentation(given, **options, **gate)
    for picture, found in enumerate(maps):
        own = [
            probability if there else np.zeros_like(probability)
            for probability, place, there in zip(probabilities_of(outputs), IMAGE_INDEX, is_there)
            if place == picture
        ]
        stacked = np.stack([np.full(SIZES[picture], 0.4, dtype=np.float32), *own])
        np.testing.assert_array_equal(found.numpy(), stacked.argmax(axis=0))


def test_the_presence_is_a_probability_for_each_expression_and_probabilities_keep_theirs(processor, outputs):
    given = with_presence(outputs)
    assert processor.post_process_presence(given).tolist() == pytest.approx(PRESENCE)
    assert processor.post_process_presence({**vars(given)}).dtype == torch.float32
    for found, whole in zip(
        processor.post_process_probabilities(given), processor.post_process_probabilities(outputs), strict=True
    ):
        assert torch.equal(found, whole)


@pytest.mark.parametrize("method", ["referring", "semantic", "instance"])
def test_a_threshold_of_what_the_model_does_not_say_is_refused(processor, outputs, method):
    call = getattr(processor, f"post_process_{method}_segmentation")
    with pytest.raises(ValueError, match="presence_threshold is 0.5, and the output has no presence_logits"):
        call(outputs, presence_threshold=0.5)
    with pytest.raises(ValueError, match=r"presence_threshold is 1.5; give a probability in \[0, 1\]"):
        call(with_presence(outputs), presence_threshold=1.5)
    for wrong in (torch.zeros(4), torch.full((5,), math.nan), torch.zeros(5, dtype=torch.int64)):
        with pytest.raises(ValueError, match="presence_logits are"):
            call({"logits": outputs.logits, "presence_logits": wrong})
    with pytest.raises(ValueError, match="has no presence_logits; give that of a model with predicts_presence"):
        processor.post_process_presence(outputs)


# ---------------------------------------------------------------------------------------------------------- components
def flood(mask: np.ndarray) -> list[np.ndarray]:
    """The connected parts of a mask, one pixel after another, the largest first."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(mask))}
    parts = []
    while left:
        part, edge = set(), [min(left)]
        while edge:
            row, column = edge.pop()
            if (row, column) in left:
                left.remove((row, column))
                part.add((row, column))
                edge += [(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        picture = np.zeros_like(mask)
        picture[tuple(zip(*part))] = True
        parts.append(picture)
    return sorted(parts, key=lambda part: -part.sum())


def test_a_mask_of_several_objects_comes_apart_into_its_connected_parts(processor, outputs):
    options = {"target_sizes": SIZES, "image_index": IMAGE_INDEX, "threshold": 0.6}
    found = processor.post_process_instance_segmentation(outputs, **options, components=True)
    num_parts = 0
    for picture, objects in enumerate(found):
        expected = [
            (label, part, probability[part].mean())
            for label, probability in enumerate(probabilities_of(outputs))
            if IMAGE_INDEX[label] == picture
            for part in flood(probability > 0.6)
        ]
        assert objects["labels"].tolist() == [label for label, _, _ in expected]
        assert objects["masks"].shape == (len(expected), *SIZES[picture])
        for mask, score, box, (_, part, mean) in zip(objects["masks"], objects["scores"], objects["boxes"], expected):
            np.testing.assert_array_equal(mask.numpy(), part)
            assert score.item() == pytest.approx(mean, abs=1e-6)
            rows, columns = np.nonzero(part)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        num_parts += len(expected)
    assert num_parts > 10


def test_components_touch_by_corners_too(processor):
    logits = torch.full((1, 1, 4, 6), -9.0)
    logits[0, 0, 0, 0] = logits[0, 0, 1, 1] = logits[0, 0, 3, 4] = 9.0
    (objects,) = processor.post_process_instance_segmentation(logits, components=True)
    assert objects["boxes"].tolist() == [[0, 0, 2, 2], [4, 3, 5, 4]]
    (nothing,) = processor.post_process_instance_segmentation(-9 + 0 * logits, components=True)
    assert nothing["masks"].shape == (0, 4, 6)
