# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""`total_flos` is what `remamber profile` counts, over all pictures and expressions of a run, forward and backward."""

import pytest
import torch
from runs import SIDE, make_trainer
from transformers.utils import logging

from remamber_hf import ReMamberForImageSegmentation
from remamber_hf.inference.cost import count_parts


@pytest.fixture
def train(start, tmp_path):
    """Trains; returns the Trainer, and how many pictures and expressions the model saw in each batch."""

    def call(model=None, **arguments):
        trainer = make_trainer(start, tmp_path, **{"max_steps": 2, **arguments})
        if model is not None:
            trainer.model = trainer.model_wrapped = model
        seen = []

        def count(module, args, inputs):
            if not inputs["pixel_values"].is_meta:
                seen.append((len(inputs["pixel_values"]), len(inputs["input_ids"])))

        hook = trainer.model.register_forward_pre_hook(count, with_kwargs=True)
        trainer.train()
        hook.remove()
        return trainer, seen

    return call


def forward_flops(trainer, seen) -> int:
    """By the count of one picture with one expression, and with two: what a picture costs, and what an expression."""
    first, second = (count_parts(trainer.model, SIDE, number)["whole"]["flops"] for number in (1, 2))
    return sum(pictures * (2 * first - second) + texts * (second - first) for pictures, texts in seen)


@pytest.mark.parametrize("mask_head", ["conv", "mamba"])
def test_every_object_of_every_accumulated_batch_counts_three_forward_passes(train, mask_head):
    trainer, seen = train(mask_head=mask_head, gradient_accumulation_steps=2, per_device_train_batch_size=3)
    assert len(seen) == 4
    assert trainer.state.total_flos == 3 * forward_flops(trainer, seen) > 0


def test_expressions_that_share_a_picture_count_its_part_once(train):
    trainer, seen = train(expressions_per_picture=4)
    assert any(pictures < texts for pictures, texts in seen)
    assert trainer.state.total_flos == 3 * forward_flops(trainer, seen)


def test_what_is_frozen_counts_less_and_what_is_computed_twice_does_not_count_more(train):
    trainer, seen = train(freeze=["text_encoder"], gradient_checkpointing=True)
    text = count_parts(trainer.model, SIDE)["text_encoder"]["flops"]
    texts = sum(texts for _, texts in seen)
    assert trainer.state.total_flos == 3 * forward_flops(trainer, seen) - 2 * text * texts


def test_a_model_that_wants_the_values_of_tensors_is_trained_and_not_counted(train, start, caplog):
    class Careful(ReMamberForImageSegmentation):
        def forward(self, pixel_values=None, **inputs):
            if pixel_values.abs().max() > 1e9:
                raise ValueError("this is no picture")
            return super().forward(pixel_values, **inputs)

    model = Careful.from_pretrained(start / "conv")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    logging.enable_propagation()
    trainer, seen = train(model)
    logging.disable_propagation()
    assert len(seen) == 2 and trainer.state.total_flos == 0
    assert any(not torch.equal(before[name], weight) for name, weight in model.named_parameters())
    (line,) = [record.getMessage() for record in caplog.records if "total_flos" in record.getMessage()]
    assert line.startswith("total_flos leaves out batches, which cannot be counted: ")
