# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint brings back, checked: groups of this optimizer, numbers of this model, files that can be read."""

import math
import pickle
import zipfile
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig
from transformers.utils import CONFIG_NAME


# What libraries raise on a file that somebody made, or that a disk made of ours.
BAD_FILE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    Warning,  # where warnings are errors
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


# What only a new model reads, and parts that are told by their weights.
NOT_COMPARED = {"text_config", "vision_config", "initializer_range"}
NOT_COMPARED |= {"time_step_min", "time_step_max", "time_step_floor"}
NOT_OF_THIS_MODEL = "The checkpoint is not of this model; resume with the model and config it was saved with"


def check_design(checkpoint: str | Path, config: Any) -> None:
    """
    ValueError for a checkpoint whose config.json has other fields than `config`: weights of one shape may be read in
    several ways, as by the fusion's scans. What a file does not name is as published; there may be no such file.
    """
    path = Path(checkpoint) / CONFIG_NAME
    if not path.is_file():
        return
    try:
        saved = type(config).from_pretrained(path)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise ValueError(cannot_be_read(checkpoint, CONFIG_NAME, error)) from None
    names = {field.name for field in fields(config)} - {field.name for field in fields(PreTrainedConfig)}
    for name in sorted(names - NOT_COMPARED):
        there, here = getattr(saved, name), getattr(config, name)
        if there != here:
            raise ValueError(f"{NOT_OF_THIS_MODEL} ({name} is {there!r} there and {here!r} here).")


def word(choice) -> str:
    """How a user writes a choice that may be a member of an enumeration."""
    return str(getattr(choice, "value", choice))


def cannot_be_read(checkpoint, what: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{checkpoint}: {what} cannot be read ({ascii(reason)[1:-1]}); resume from a checkpoint before it."


def is_like(value, model) -> bool:
    """Whether a value of a file has the make of the one that it takes the place of."""
    if isinstance(model, dict):
        if not isinstance(value, dict) or value.keys() != model.keys():
            return False
        return all(is_like(value[name], model[name]) for name in model)
    if isinstance(model, (list, tuple)):
        return isinstance(value, (list, tuple)) and len(value) == len(model) and all(map(is_like, value, model))
    if isinstance(model, bool) or model is None or isinstance(model, str):
        return type(value) is type(model) or None in (value, model)
    if isinstance(model, (int, float)):
        return (
            isinstance(value, (int, float))
            and not isinstance(value, bool)
            and (math.isfinite(value) or value == model)
        )
    return type(value) is type(model)


def settings_of(optimizer) -> list[dict]:
    """The settings of each group of an optimizer; what a schedule adds is not there yet in all of them."""
    groups = optimizer.param_groups
    return [{name: value for name, value in each.items() if name not in ("params", "initial_lr")} for each in groups]


def check_finite(model: nn.Module, checkpoint):
    """ValueError for a weight or statistic that was loaded from a checkpoint and is not finite."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(cannot_be_read(checkpoint, "the weights", ValueError(f"{name} is not finite")))


def check_optimizer(optimizer, groups: list[dict]):
    """TypeError if the state that an optimizer has loaded is not one that its next step can take up."""
    if not is_like(settings_of(optimizer), groups):
        raise TypeError("its settings are those of another optimizer")
    inner = getattr(optimizer, "optimizer", optimizer)
    kept = (value for state in optimizer.state.values() if isinstance(state, dict) for value in state.values())
    if not all(value.isfinite().all() for value in kept if torch.is_tensor(value) and value.is_floating_point()):
        raise TypeError("it keeps numbers that are not finite")
    states = {weight: state for weight, state in optimizer.state.items() if state}
    if not all(isinstance(weight, torch.Tensor) and isinstance(state, dict) for weight, state in states.items()):
        raise TypeError("it keeps something of what is no weight")
    if not isinstance(inner, (torch.optim.Adam, torch.optim.AdamW)):
        return
    for weight, state in states.items():
        for name in ("step", "exp_avg", "exp_avg_sq"):
            shape = torch.Size() if name == "step" else weight.shape
            value = state.get(name)
            if not torch.is_tensor(value) or value.shape != shape or not value.is_floating_point():
                raise TypeError(f"{name} of a weight is missing, or has another shape than the weight")
