# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
What a model costs: the parameters and the arithmetic of its parts, and the time that a picture takes.

A multiplication and an addition are two operations. Counted are matrix products, convolutions, attention and scans, as
PyTorch's `FlopCounterMode` has them with the formulas in `torch_scan.py`; other elementwise arithmetic is not.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from ..configuration_remamber import ReMamberConfig, vision_config_of
from ..modeling_remamber import ReMamberForImageSegmentation
from ..selective_scan import BACKENDS, fastest_backend


def find_remamber(model: nn.Module) -> Any:
    """
    The [`ReMamberForImageSegmentation`] that `model` is or holds, of this package or of the code in a saved folder;
    ValueError if there is none.
    """
    for module in model.modules():
        if getattr(getattr(module, "config", None), "model_type", None) == ReMamberConfig.model_type:
            if hasattr(module, "mask_head"):
                return module
    raise ValueError(f"The model is a {type(model).__name__}; give a ReMamberForImageSegmentation.")


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


def count_parts(model: nn.Module, image_size: int = 480) -> dict[str, dict[str, int]]:
    """
    Parameters of each part, and operations for one picture with one expression, ready for JSON.

    Nothing is computed, for PyTorch's meta device has shapes only. So the weights may be on it too, or anywhere, and
    the count is the same on every machine and with every backend. On a CPU in float32 the Conv head does less than is
    counted: it convolves before it resizes.

    Args:
        model: a [`ReMamberForImageSegmentation`], however it is wrapped.
        image_size: side of the picture in pixels.

    Returns:
        "text_encoder", "backbone", "fusion", "mask_head", maybe "presence_head", and "whole", their sum, each →
        "parameters", "flops".

    Raises:
        ValueError: if it is another model, or there is no such picture.
    """
    if not isinstance(image_size, int) or image_size < 1:
        raise ValueError(f"image_size is {image_size!r}; give a number of pixels, at least 1.")
    parts: dict[str, nn.Module] = {**model_parts(model), "whole": model}
    device = torch.device("meta")
    weights = {name: tensor.to(device) for name, tensor in chain(model.named_parameters(), model.named_buffers())}
    inputs = make_inputs(find_remamber(model).config, image_size, device)
    with torch.no_grad(), counting(model, device) as counter:
        functional_call(model, weights, (), inputs)
    names = {part: name for name, part in model.named_modules()}
    return {
        part: {
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "flops": module_flops(counter, ".".join(filter(None, (type(model).__name__, names[module])))),
        }
        for part, module in parts.items()
    }


def module_flops(counter: FlopCounterMode, name: str) -> int:
    """
    Operations of the module that `counter` knows as `name`, and of what is in it.

    One that is no call of its own, such as a list, takes what the outermost calls in it do.
    """
    counts = {
        path: sum(flops.values())
        for path, flops in counter.get_flop_counts().items()
        if f"{path}.".startswith(f"{name}.")
    }
    return sum(flops for path, flops in counts.items() if not any(path.startswith(f"{other}.") for other in counts))


def count_forward(model: nn.Module, inputs: dict[str, Any]) -> int:
    """
    Operations of a forward pass where the model and its `inputs` are.

    The pass is one of evaluation and leaves no trace in the model. PyTorch has no formula for attention on a CPU.
    """
    with torch.no_grad(), counting(model, next(model.parameters()).device) as counter:
        model(**inputs, return_dict=True)
    return counter.get_total_flops()


@contextmanager
def counting(model: nn.Module, device: torch.device) -> Iterator[FlopCounterMode]:
    """Counts, `model` being in evaluation mode and its scans on backends that are counted; then all is as before."""
    modes = [(module, module.training) for module in model.modules()]
    found: list[Any] = [module for module in model.modules() if hasattr(module, "scan_backend")]  # SS2D, of any copy
    scans = [(module, module.scan_backend) for module in found]
    try:
        model.eval()
        for scan, name in scans:
            scan.scan_backend = counted_backend(name, device)
        with FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        for scan, name in scans:
            scan.scan_backend = name
        for module, mode in modes:
            module.training = mode


def counted_backend(name: str, device: torch.device) -> str:
    """The backend called `name`, if what it stands for on `device` is counted; or else "torch", which is anywhere."""
    operations = ("selective_scan", "cross_selective_scan")
    meant = [fastest_backend(device.type, operation=each)[0] for each in operations] if name == "auto" else [name]
    is_counted = all(BACKENDS[each].is_counted and not BACKENDS[each].why_not(device) for each in meant)
    return name if is_counted else "torch"


def make_inputs(config: ReMamberConfig, image_size: int, device: torch.device) -> dict[str, torch.Tensor]:
    """A grey picture and an expression of as many tokens as the model reads."""
    tokens = torch.zeros(1, config.text_length, dtype=torch.int64, device=device)
    pixel_values = torch.zeros(1, vision_config_of(config).num_channels, image_size, image_size, device=device)
    return {"pixel_values": pixel_values, "input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def time_picture(model: ReMamberForImageSegmentation, image_size: int = 480, num_runs: int = 5) -> float:
    """
    Time of a picture with an expression in ms, where the model is: median of `num_runs` passes after one to warm up.

    Args:
        model: in evaluation mode.
        image_size: side of the picture in pixels.
    """
    inputs = make_inputs(model.config, image_size, model.device)
    times = []
    with torch.inference_mode():
        for _ in range(1 + num_runs):
            start = time.perf_counter()
            model(**inputs)
            if model.device.type != "cpu":
                torch.accelerator.synchronize()
            times.append(1000 * (time.perf_counter() - start))
    return median(times[1:])
