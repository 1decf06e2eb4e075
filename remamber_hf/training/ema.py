# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""An exponential moving average of the weights, kept beside those that are trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..files import weights_as_umask_says


AVERAGE = "ema.safetensors"  # in a checkpoint: what WeightAverage resumes from
AVERAGED_MODEL = "ema"  # beside a finished model: a model folder with the averaged weights


class WeightAverage:
    """
    Moving average of the trainable weights and of the floating-point buffers, such as the statistics of batch norm.

    It is held in float32 or more. Up to `start_step` it equals the weights; from then on each step makes it
    decay · average + (1 − decay) · weights.

    Args:
        model: whose weights are averaged.
        decay: share of the old average, in (0, 1).
        start_step: last step after which the average still equals the weights.
    """

    def __init__(self, model: nn.Module, decay: float, start_step: int):
        self.start_step = start_step
        self.average = get_ema_multi_avg_fn(decay)
        self.tensors = {
            name: tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
            for name, tensor in averaged_tensors(model).items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int):
        """Take in the weights after `step`, counted from 1."""
        current = averaged_tensors(model)
        if step <= self.start_step:
            for name, tensor in self.tensors.items():
                tensor.copy_(current[name])
            return
        averages = list(self.tensors.values())
        weights = [current[name].detach().to(tensor.dtype) for name, tensor in self.tensors.items()]
        self.average(averages, weights, None)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Inside, `model` holds the average; afterwards its own weights again."""
        current = averaged_tensors(model)
        weights = {name: tensor.detach().clone() for name, tensor in current.items()}
        copy_into(current, self.tensors)
        try:
            yield
        finally:
            copy_into(current, weights)

    def save(self, path: str | PathLike):
        with weights_as_umask_says(Path(path).parent):
            save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, path)

    def load(self, path: str | PathLike):
        """
        Raises:
            ValueError: if the file is of another model or of other trained parts.
        """
        try:
            saved = load_file(path)
        except (SafetensorError, ValueError, KeyError) as error:
            raise ValueError(
                f"{path} cannot be read: {str(error)[:200]}; resume from a checkpoint before it."
            ) from None
        if saved.keys() != self.tensors.keys():
            names = sorted(saved.keys() ^ self.tensors.keys())
            raise ValueError(
                f"{path} averages other weights than this run trains, {names[0]:.100} for one; resume with the same "
                "model."
            )
        for name, tensor in self.tensors.items():
            if saved[name].shape != tensor.shape or not saved[name].is_floating_point():
                raise ValueError(
                    f"{path} holds {name} as {saved[name].dtype} {tuple(saved[name].shape)}, the model as "
                    f"{tuple(tensor.shape)}; resume with the same model."
                )
            if not saved[name].isfinite().all():
                raise ValueError(f"{path} holds {name}, which is not finite; resume from a checkpoint before it.")
        copy_into(self.tensors, saved)


def averaged_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters and floating-point buffers by name."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return {**parameters, **buffers}


@torch.no_grad()
def copy_into(targets: dict[str, torch.Tensor], sources: dict[str, torch.Tensor]):
    for name, target in targets.items():
        target.copy_(sources[name])
