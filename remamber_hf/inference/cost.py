# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
What a model costs on any machine: the parameters and the arithmetic of its parts.

Counted are matrix products, convolutions, attention and scans, as PyTorch's `FlopCounterMode` has them with the
formulas in `torch_scan.py`; other elementwise arithmetic, norms and resizes are not. In FLOPs a multiplication and an
addition are two operations. In MACs they are one, and the nine operations of a scan's recurrence count whole: so does
VMamba's code, with fvcore, for what its tables call FLOPs.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from ..configuration_remamber import ReMamberConfig, VMambaConfig, vision_config_of
from ..configuration_vim import VimConfig
from ..messages import describe
from ..torch_scan import RECURRENCE_FLOPS, SKIP_FLOPS


META = torch.device("meta")


# ------------------------------------------------------------------------------------------------------------- parts


def find_remamber(model: nn.Module) -> Any:
    """
    The [`ReMamberForImageSegmentation`] that `model` is or holds, of this package or of the code in a saved folder;
    ValueError if there is none.
    """
    for module in model.modules():
        if model_type(module) == ReMamberConfig.model_type and hasattr(module, "mask_head"):
            return module
    raise ValueError(f"The model is a {type(model).__name__}; give a ReMamberForImageSegmentation.")


def model_type(module: nn.Module) -> str | None:
    return getattr(getattr(module, "config", None), "model_type", None)


def model_parts(model: nn.Module) -> dict[str, nn.Module]:
    """
    The parts of a ReMamber, however it is wrapped; "presence_head" only if it has one.

    Raises:
        ValueError: if `model` is or holds no [`ReMamberForImageSegmentation`].
    """
    whole = find_remamber(model)
    return {
        "text_encoder": whole.remamber.text_encoder,
        "backbone": whole.remamber.backbone,
        "fusion": whole.remamber.fusions,
        "mask_head": whole.mask_head,
        **({} if whole.presence_head is None else {"presence_head": whole.presence_head}),
    }


def find_parts(model: nn.Module) -> tuple[Any, dict[str, nn.Module]]:
    """
    Configuration and parts of the ReMamber, VMamba or Vim that `model` is or holds; ValueError if there is none.

    Those of a VMamba are its stem and stages, of a Vim embeddings, layers and norm; and the layers of a classifier.
    """
    models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    types = [model_type(module) for module in models]
    if ReMamberConfig.model_type in types:
        return find_remamber(model).config, model_parts(model)
    backbones = (VMambaConfig.model_type, VimConfig.model_type)
    found: Any = next((module for module in models if model_type(module) in backbones), None)
    if found is None:
        raise ValueError(f"The model is a {type(model).__name__}; give a ReMamber, a VMamba or a Vim.")
    parts: dict[str, nn.Module] = {}
    for name, child in chain(found.base_model.named_children(), found.named_children()):
        if name == "stages":
            parts |= {f"stage{number}": stage for number, stage in enumerate(child, start=1)}
        elif child is not found.base_model:
            parts[name] = child
    return found.config, parts


# --------------------------------------------------------------------------------------------------------- parameters


def count_parameters(modules: Iterable[nn.Module]) -> tuple[int, int]:
    """Parameters of some modules, each once, and how many of them are trained."""
    parameters = {parameter for module in modules for parameter in module.parameters()}
    trained = (parameter.numel() for parameter in parameters if parameter.requires_grad)
    return sum(parameter.numel() for parameter in parameters), sum(trained)


# --------------------------------------------------------------------------------------------------------- arithmetic


class Arithmetic:
    """
    The operations of one forward pass in evaluation, module by module.

    It is made on the meta device, which has shapes and no values: so nothing is computed, the model may be anywhere,
    and the count is the same on every machine and with every backend. It is of the layers as drawn: on a CPU in
    float32 the Conv head convolves before it resizes, which is less. The pass leaves no trace in the model.
    """

    def __init__(self, model: nn.Module, inputs: dict[str, Any]):
        tensors = chain(model.named_parameters(), model.named_buffers())
        weights = {name: tensor.to(META) for name, tensor in tensors}
        inputs = {name: value.to(META) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
        with torch.no_grad(), drawn(model), FlopCounterMode(display=False) as counter:
            functional_call(model, weights, (), inputs)
        root = type(model).__name__
        counts = counter.get_flop_counts()
        self.names = {module: f"{root}.{name}".rstrip(".") for name, module in model.named_modules()}
        self.counts = {name: sum(counts[name].values()) for name in self.names.values() if name in counts}
        self.recurrences = {
            name: recurrence_flops(module, counts[name])
            for module, name in self.names.items()
            if hasattr(module, "A_log") and name in counts
        }

    def flops(self, module: nn.Module) -> int:
        """Of a module with what is in it. One that is no call of its own, such as a list, has the calls in it."""
        inside = self._inside(module, self.counts)
        return sum(
            count for name, count in inside.items() if not any(name.startswith(f"{other}.") for other in inside)
        )

    def macs(self, module: nn.Module) -> int:
        """Likewise."""
        return (self.flops(module) + sum(self._inside(module, self.recurrences).values())) // 2

    def _inside(self, module: nn.Module, counts: dict[str, int]) -> dict[str, int]:
        return {name: count for name, count in counts.items() if f"{name}.".startswith(f"{self.names[module]}.")}


def recurrence_flops(scan: Any, counts: dict[Any, int]) -> int:
    """Of the operations that a scan module calls, those of the recurrence: skips and time steps are in them too."""
    rank, recurrence = scan.dt_proj_weight.shape[-1], RECURRENCE_FLOPS * scan.A_log.shape[-1]
    total = 0
    for operator, flops in counts.items():
        if "selective_scan" in operator.__name__:
            step = recurrence + SKIP_FLOPS + (2 * rank if "cross" in operator.__name__ else 0)
            total += flops * recurrence // step
    return total


@contextmanager
def drawn(model: nn.Module) -> Iterator[None]:
    """`model` in evaluation mode, scans and convolutions as operations that are counted; then all is as before."""
    before = [
        (module, name, getattr(module, name), value)
        for module in model.modules()
        for name, value in (("training", False), ("scan_backend", "torch"), ("conv_backend", "torch"))
        if hasattr(module, name)
    ]
    try:
        for module, name, _, value in before:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value, _ in before:
            setattr(module, name, value)


def count_parts(
    model: nn.Module, image_size: int | tuple[int, int] = 480, num_expressions: int = 1
) -> dict[str, dict[str, int]]:
    """
    Parameters of each part, and operations for one picture with its expressions, ready for JSON; see `Arithmetic`.

    Args:
        model: a ReMamber, a VMamba or a Vim, however it is wrapped.
        image_size: side of the picture, or its height and width, in pixels.
        num_expressions: about the picture; not read for a VMamba or a Vim.

    Returns:
        of a ReMamber "text_encoder", "backbone", "fusion", "mask_head", maybe "presence_head", of others what
        `find_parts` has, and "whole", their sum, each → "parameters", "trained" of them, "flops", "macs".

    Raises:
        ValueError: if it is another model, or there is no such picture.
    """
    config, parts = find_parts(model)
    counts = Arithmetic(model, make_inputs(config, image_size, META, num_expressions=num_expressions))
    costs = {}
    for name, part in {**parts, "whole": model}.items():
        parameters, trained = count_parameters([part])
        costs[name] = {
            "parameters": parameters,
            "trained": trained,
            "flops": counts.flops(part),
            "macs": counts.macs(part),
        }
    return costs


def make_inputs(
    config: Any,
    image_size: int | tuple[int, int],
    device: torch.device,
    batch_size: int = 1,
    num_expressions: int = 1,
) -> dict[str, torch.Tensor]:
    """
    Pictures of noise and, for a ReMamber, expressions about each, of as many tokens as the model reads.

    Raises:
        ValueError: if there is no such picture.
    """
    sides = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"image_size is {describe(image_size)}; give a number of pixels, at least 1, or two.")
    is_remamber = config.model_type == ReMamberConfig.model_type
    num_channels = vision_config_of(config).num_channels if is_remamber else config.num_channels
    generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)
    pixel_values = torch.randn(batch_size, num_channels, *sides, device=device, generator=generator)
    if not is_remamber:
        return {"pixel_values": pixel_values}
    tokens = torch.zeros(batch_size * num_expressions, config.text_length, dtype=torch.int64, device=device)
    inputs = {"pixel_values": pixel_values, "input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if num_expressions > 1:
        inputs["image_index"] = torch.arange(batch_size, device=device).repeat_interleave(num_expressions)
    return inputs


# ----------------------------------------------------------------------------------------------------------- training


def count_training_step(model: nn.Module, inputs: dict[str, Any]) -> int:
    """
    Operations of a forward and a backward pass in which all is computed once, as without gradient checkpointing.

    A backward pass takes what the forward pass does once for the gradients of weights, and once for those of what they
    are applied to. A part whose weights are frozen has none of the first, and where nothing before it is trained, none
    of the second. Where a part is trained in part, as by adapters, the first is taken for the trained share of its
    weights.

    Args:
        model: is or holds a [`ReMamberForImageSegmentation`]; weights with `requires_grad` are trained.
        inputs: of its forward pass, on any device.

    Raises:
        ValueError: if it is another model.
        RuntimeError, TypeError: if code around the model wants the values of tensors, see `Arithmetic`.
    """
    counts, whole = Arithmetic(model, inputs), find_remamber(model)
    backbone, fusions = whole.remamber.backbone, whole.remamber.fusions
    groups: list[list[nn.Module]] = [[whole.remamber.text_encoder], [backbone.stem, backbone.stages[0].blocks]]
    for index, (stage, fusion) in enumerate(zip(backbone.stages, fusions)):
        groups += [[stage.blocks]] if index else []
        groups += [[fusion], [stage.downsample]]
    groups += [[whole.mask_head], [] if whole.presence_head is None else [whole.presence_head]]
    backward, grouped, is_trained_before = 0, 0, False
    for index, modules in enumerate(groups):
        flops = sum(map(counts.flops, modules))
        parameters, trained = count_parameters(modules)
        is_fed = index > 1 and is_trained_before  # the first two read the text and the picture themselves
        backward += flops * (is_fed or trained > 0) + (flops * trained // parameters if trained else 0)
        grouped += flops
        is_trained_before |= trained > 0
    forward = counts.flops(model)
    return forward + backward + 2 * (forward - grouped)  # around the parts is what a user put there, to be trained
