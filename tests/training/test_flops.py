# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What `total_flos` counts is what a count of single layers gives."""

import pytest
import torch
from runs import load_rows, make_trainer
from torch import nn

from remamber_hf import mask_heads_remamber
from remamber_hf.inference.cost import count_forward
from remamber_hf.modeling_vmamba import SS2D


@pytest.mark.parametrize("mask_head", ["conv", "mamba"])
def test_the_count_of_a_model_is_that_of_its_layers_and_leaves_no_trace(start, tmp_path, mask_head, monkeypatch):
    # Hooks have the head convolve after it has resized, as it does in half precision.
    monkeypatch.setattr(mask_heads_remamber, "is_cheaper_before_resize", lambda *args: False)
    trainer = make_trainer(start, tmp_path, mask_head)
    model = trainer.model.train()
    model.remamber.backbone.eval()
    batch = trainer.data_collator([load_rows(start, "train")[index] for index in range(4)])
    for name in ("ref_ids", "labels"):
        batch.pop(name)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    count = count_forward(model, batch)
    assert model.training and not model.remamber.backbone.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    layers = []

    def add(module, args, output):
        if isinstance(module, SS2D):
            pixels, (directions, channels, inner) = args[0].shape[:-1].numel(), module.x_proj_weight.shape
            layers.append(2 * pixels * directions * channels * inner)  # x_proj
            states = module.A_log.shape[1]
            layers.append(pixels * directions * inner * (2 * (channels - 2 * states) + 9 * states + 2))
        elif isinstance(module, nn.Linear):
            layers.append(2 * output.numel() * module.in_features)
        elif isinstance(module, nn.Conv2d):
            layers.append(2 * output.numel() * module.weight[0].numel())

    with torch.no_grad():
        hooks = [module.register_forward_hook(add) for module in model.modules()]
        model.eval()(**batch)
    for hook in hooks:
        hook.remove()
    # What is no layer: the attention of the text encoder and the products of text and picture.
    assert sum(layers) < count < 1.03 * sum(layers)


def test_the_state_of_a_run_has_the_count_of_its_steps(start, tmp_path):
    trainer = make_trainer(start, tmp_path, max_steps=2)
    trainer.train()
    counts = list(trainer.flops.values())  # batches of as many pictures are counted once
    assert trainer.state.total_flos == 3 * sum(counts * (2 // len(counts)))
