# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What comes into the model by other ways than the processor, for both mask heads and scans."""

import numpy as np
import pytest
import torch
from rows import TEXT_LENGTH, check_logits, check_refused, logits_one_by_one, make_model, make_rows, make_shared, run
from torch.export import Dim
from transformers import default_data_collator

from remamber_hf import modeling_remamber


def row_inputs(processor, row):
    return {
        name: tensor[0] for name, tensor in processor(row["image"], row["expression"], return_tensors="pt").items()
    }


@pytest.fixture(scope="module", params=["conv", "mamba"])
def either_model(request):
    return make_model(request.param)


def test_both_heads_take_rows_put_together_and_pictures_that_are_shared(either_model, processor):
    rows = make_rows()
    batch = default_data_collator([row_inputs(processor, row) for row in rows])
    check_logits(run(either_model, batch), logits_one_by_one(either_model, processor, rows))
    batch, rows = make_shared(processor)
    check_logits(run(either_model, batch), logits_one_by_one(either_model, processor, rows))


@torch.no_grad()
@pytest.mark.parametrize("scan_backend", ["torch", "auto"])
def test_both_heads_are_exported_for_any_batch_by_any_scan(either_model, processor, scan_backend):
    either_model.set_scan_backend(scan_backend)
    rows = make_rows()
    batch = dict(processor([row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt"))
    dynamic = {name: {0: Dim("batch", min=2, max=64)} for name in batch}
    two = {name: tensor[:2] for name, tensor in batch.items()}
    exported = torch.export.export(either_model, (), two, dynamic_shapes=dynamic).module()
    check_logits(exported(**batch).logits, logits_one_by_one(either_model, processor, rows))


@pytest.mark.parametrize("side", ["left", "right"])
def test_tokens_of_a_bare_tokenizer_are_right_or_refused(model, processor, side):
    rows = make_rows()
    tokens = processor.tokenizer(
        [row["expression"] for row in rows],
        padding="max_length",
        max_length=TEXT_LENGTH,
        padding_side=side,
        return_tensors="pt",
    )
    pixel_values = processor(images=[row["image"] for row in rows], return_tensors="pt")["pixel_values"]
    if side == "right":
        check_logits(run(model, {"pixel_values": pixel_values, **tokens}), logits_one_by_one(model, processor, rows))
    else:
        check_refused(lambda: model(pixel_values=pixel_values, **tokens), "attention_mask is not 1 up to the padding")


def change(name, value):
    return lambda batch: {**batch, name: value(batch[name]) if callable(value) else value}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (change("input_ids", lambda ids: ids + 10**6), "token 10.*; after adding words call model.resize_token"),
        (change("input_ids", lambda ids: -ids), "input_ids has the token"),
        (change("input_ids", lambda ids: ids.float()), "input_ids are torch.float32; give integers"),
        (change("attention_mask", torch.zeros_like), "attention_mask is not 1 up to the padding"),
        (
            change("attention_mask", lambda mask: mask[:, :-1]),
            r"attention_mask has shape \(3, 6\) and input_ids \(3, 7",
        ),
        (change("attention_mask", lambda mask: mask.numpy()), "attention_mask came as ndarray; give tensors"),
        (change("pixel_values", None), "pixel_values came as NoneType; give tensors"),
        (
            change("pixel_values", lambda pixels: pixels.to(torch.uint8)),
            "pixel_values are torch.uint8; give normalized",
        ),
        (change("labels", np.zeros((3, 32, 32))), "labels came as ndarray; give a tensor"),
        (change("image_index", [0, 1, 2]), "image_index came as list; give a tensor"),
        (change("num_images", torch.full((3,), 3)), "num_images came without image_index"),
    ],
)
def test_what_no_processor_gives_is_refused(model, processor, changed, message):
    rows = make_rows(3)
    batch = dict(processor([row["image"] for row in rows], [row["expression"] for row in rows], return_tensors="pt"))
    check_refused(lambda: model(**changed({**batch, "labels": None, "image_index": None})), message)


def test_assertions_on_a_gpu_are_short_enough_for_cuda(model, processor, monkeypatch):
    """PyTorch's kernel for CUDA refuses messages of 255 bytes and more, whatever they assert."""
    messages = []
    monkeypatch.setattr(modeling_remamber.torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(modeling_remamber.torch, "_assert_async", lambda is_right, message: messages.append(message))
    batch, rows = make_shared(processor)
    labels = torch.zeros(len(rows), 32, 32)
    model(**batch, labels=labels)
    assert len(set(messages)) == 5
    assert max(len(message.encode()) for message in messages) < 255
