# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Outputs of the model and target sizes as users hand them to the processor."""

import numpy as np
import pytest
import rows as idioms
import torch
from rows import check_refused, make_rows, masks_one_by_one

from remamber_hf import ReferringSegmentationPipeline
from remamber_hf.inference.explanation import explain_mask


ROWS = make_rows(3)
SIZES = [(row["image"].height, row["image"].width) for row in ROWS]


@pytest.fixture(scope="module")
def model(folder):
    """Shared: no test here changes it."""
    return idioms.load_model(folder)


@pytest.fixture(scope="module")
def masks(model, processor):
    """The masks of all rows, one by one."""
    return masks_one_by_one(model, processor, ROWS)


OUTPUTS = {
    "output": lambda outputs: outputs,
    "dict": dict,
    "dict of logits": lambda outputs: {"logits": outputs.logits},
    "tuple": lambda outputs: outputs.to_tuple(),
    "tuple without loss": lambda outputs: outputs.to_tuple()[1:],
    "tensor": lambda outputs: outputs.logits,
    "numpy": lambda outputs: outputs.logits.detach().numpy(),
    "double": lambda outputs: outputs.logits.double(),
}


@pytest.fixture(scope="module")
def outputs(model, processor):
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    inputs = processor(columns["image"], columns["expression"], columns["mask"], return_tensors="pt")
    return model(**inputs)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_any_form_give_the_loops_masks(processor, outputs, masks, kind):
    found = processor.post_process_referring_segmentation(OUTPUTS[kind](outputs), target_sizes=SIZES)
    for mask, expected in zip(found, masks, strict=True):
        np.testing.assert_array_equal(mask.numpy(), expected)


def test_a_model_without_dicts_gives_the_loops_masks(model, processor, masks):
    inputs = processor(ROWS[0]["image"], ROWS[0]["expression"], return_tensors="pt")
    found = processor.post_process_referring_segmentation(model(**inputs, return_dict=False), SIZES[:1])
    np.testing.assert_array_equal(found[0].numpy(), masks[0])


@pytest.mark.parametrize("fields", [{"return_dict": False}, {"output_hidden_states": True}])
def test_what_the_configuration_says_about_outputs_stops_nothing(folder, processor, masks, fields):
    model = idioms.load_model(folder)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        for name, value in fields.items():
            setattr(config, name, value)
    inputs = processor(ROWS[0]["image"], ROWS[0]["expression"], return_tensors="pt")
    found = processor.post_process_referring_segmentation(model(**inputs), SIZES[:1])
    np.testing.assert_array_equal(found[0].numpy(), masks[0])
    pipe = ReferringSegmentationPipeline(model=model, processor=processor)
    np.testing.assert_array_equal(np.asarray(pipe(ROWS[0]["image"], ROWS[0]["expression"])["mask"]) > 0, masks[0])
    explanation = explain_mask(model, processor, ROWS[0]["image"], ROWS[0]["expression"])
    np.testing.assert_array_equal(explanation.growth[-1] > 0.5, masks[0])


@pytest.mark.parametrize(
    "wrong",
    [None, {}, (), {"loss": torch.zeros(())}, torch.zeros(3, 32, 32), torch.zeros(3, 2, 32, 32), "logits"],
    ids=lambda value: type(value).__name__,
)
def test_outputs_without_logits_are_refused(processor, wrong):
    check_refused(lambda: processor.post_process_referring_segmentation(wrong), "logits .*; give the model's output")


@pytest.mark.parametrize(
    "target_sizes",
    [
        (20, 40),
        [20, 40],
        torch.tensor([20, 40]),
        torch.Size([20, 40]),
        np.array([20, 40]),
        [(20, 40)] * 3,
        ((20, 40),) * 3,
        [[20, 40]] * 3,
        torch.tensor([[20, 40]] * 3),
        np.array([[20, 40]] * 3),
        [torch.tensor([20, 40])] * 3,
        [np.int64(20), np.int64(40)],
    ],
    ids=repr,
)
def test_one_size_for_all_or_one_for_each_is_read(processor, outputs, target_sizes):
    expected = processor.post_process_referring_segmentation(outputs, target_sizes=[(20, 40)] * 3)
    found = processor.post_process_referring_segmentation(outputs, target_sizes=target_sizes)
    for mask, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask.numpy(), other.numpy())


def test_a_size_of_two_tensors_is_read_or_refused(processor, outputs):
    try:
        found = processor.post_process_referring_segmentation(
            outputs.logits[:2], target_sizes=[torch.tensor(20), torch.tensor(40)]
        )
    except ValueError as error:
        assert "target_sizes" in str(error)
    else:
        assert [mask.shape for mask in found] == [(20, 40)] * 2


@pytest.mark.parametrize(
    "target_sizes",
    [[(20, 40)], [(20, 40)] * 4, [(20, 40, 3)] * 3, [None] * 3, [(0, 40)] * 3, (0, 40), (20,), 20, "20", ["20", "40"]],
    ids=repr,
)
def test_other_target_sizes_are_refused(processor, outputs, target_sizes):
    check_refused(
        lambda: processor.post_process_referring_segmentation(outputs, target_sizes=target_sizes), "target_sizes"
    )


def test_masks_in_the_place_of_logits_are_refused(processor, outputs):
    check_refused(
        lambda: processor.post_process_referring_segmentation(outputs.logits > 0), "logits are torch.bool; give those"
    )


def test_two_tensors_that_may_be_heights_and_widths_are_refused(processor, outputs):
    sizes = [torch.tensor([20, 23]), torch.tensor([40, 37])]
    check_refused(
        lambda: processor.post_process_referring_segmentation(outputs.logits[:2], target_sizes=sizes),
        "two tensors, which could be the heights and the widths",
    )
