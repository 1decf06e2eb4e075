# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Batch norm over the batches of all processes."""

import torch
import torch.distributed as dist
from torch import nn


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, and of its gradient on the way back."""

    @staticmethod
    def forward(ctx, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm2d(nn.BatchNorm2d):
    """
    Batch norm of a map (batch, channels, height, width) over the batches of all processes, in training.

    PyTorch's own SyncBatchNorm refuses CPUs.
    """

    # Those of the models here are there: they track statistics, with a momentum.
    momentum: float
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not (self.training and dist.is_initialized()):
            return super().forward(hidden_states)
        channels_last = hidden_states.permute(0, 2, 3, 1)
        pixels = channels_last.flatten(0, 2).to(self.weight.dtype)  # (pixels, channels)
        count = SumOverProcesses.apply(pixels.new_tensor(len(pixels)))
        mean = SumOverProcesses.apply(pixels.sum(0)) / count
        variance = SumOverProcesses.apply((pixels - mean).square().sum(0)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        normalized = (pixels - mean) * (variance + self.eps).rsqrt() * self.weight + self.bias
        return normalized.to(hidden_states.dtype).view_as(channels_last).permute(0, 3, 1, 2)


def synchronize_batch_norm(model: nn.Module):
    """Replace every batch norm of `model` by one over all processes, with the same weights and statistics."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                synchronized = SyncBatchNorm2d(child.num_features, child.eps, child.momentum)
                synchronized.weight, synchronized.bias = child.weight, child.bias
                for buffer_name, buffer in child.named_buffers():
                    setattr(synchronized, buffer_name, buffer)
                setattr(parent, name, synchronized.train(child.training))
