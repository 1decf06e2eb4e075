# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Floating-point operations of a model, the scans included."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..modeling_vmamba import SS2D


@torch.no_grad()
def count_forward(model: nn.Module, inputs: dict[str, torch.Tensor]) -> int:
    """
    Operations of a forward pass, a multiplication and an addition counted as two.

    PyTorch counts matrix products, convolutions and attention; what the scans do, in kernels that it does not look
    into, comes from `count_scan`. The pass is one of evaluation and leaves no trace in the model.
    """
    scans = []
    modes = [(module, module.training) for module in model.modules()]
    hooks = [
        module.register_forward_hook(lambda module, args, output: scans.append(count_scan(module, args[0])))
        for module in model.modules()
        if isinstance(module, SS2D)
    ]
    try:
        model.eval()
        with FlopCounterMode(display=False) as counter:
            model(**inputs, return_dict=True)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    return counter.get_total_flops() + sum(scans)


def count_scan(module: SS2D, hidden_states: torch.Tensor) -> int:
    """
    Operations of an SS2D's scans on a map (batch, height, width, channels): time steps, recurrence and skip.

    A step of a direction takes 2·R for the time step of a channel; 9 for each state (VMamba, arXiv 2401.10166,
    appendix: decay, input and output); and 2 for the skip.
    """
    pixels = hidden_states.shape[:-1].numel()
    directions, channels, rank = module.dt_proj_weight.shape
    states = module.A_log.shape[1]
    return pixels * directions * channels * (2 * rank + 9 * states + 2)
