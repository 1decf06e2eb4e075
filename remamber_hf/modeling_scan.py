# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the models share: checks of what comes in, a scan's weights, stochastic depth, the base of their classes."""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

import math
from collections.abc import Callable
from os import PathLike
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import TransformersKwargs

from .configuration_scan import ScanConfig
from .files import weights_as_umask_says
from .selective_scan import check_backend_name
from .weight_files import check_weight_files


# What transformers passes from model to model, but for what it gives to losses that are sums: ours are means.
FORWARD_KEYWORDS = frozenset(TransformersKwargs.__annotations__) - {"num_items_in_batch"}


def check_keywords(keywords: TransformersKwargs) -> None:
    """TypeError, as Python's own, for what a forward pass does not take: behind `**kwargs` a slip would go unseen."""
    for name in keywords:
        if name not in FORWARD_KEYWORDS:
            raise TypeError(
                f"forward() got an unexpected keyword argument {name!r}; help(model.forward) lists what it takes."
            )


def check_pixel_values(pixel_values: torch.Tensor, num_channels: int) -> None:
    """ValueError unless these are float pictures (batch, num_channels, height, width)."""
    if pixel_values.dim() != 4 or pixel_values.shape[1] != num_channels:
        hint = " Batches that were made one by one have an axis too many; take [0] of each." * (
            pixel_values.dim() == 5
        )
        raise ValueError(
            f"pixel_values has shape {tuple(pixel_values.shape)}; "
            f"it must be (batch, {num_channels}, height, width).{hint}"
        )
    if not pixel_values.is_floating_point():
        raise ValueError(f"pixel_values are {pixel_values.dtype}; give normalized floats, as the processor does.")


def check_values(is_right: torch.Tensor, message: str, describe: Callable[[], str]) -> None:
    """
    Raise a ValueError unless `is_right`, a tensor of one bool, holds.

    A GPU would run dry until it is read. There, and in code that is compiled or exported, it is an assertion on the
    device, for which nothing waits: it writes its text to the error stream, the next synchronization raises
    "device-side assert triggered", and CUDA is of no more use to this process. Devices without such assertions, and
    CPUs, read it.

    Args:
        message: what the assertion says, in under 255 bytes as CUDA wants it.
        describe: makes the text of the ValueError, which can tell the values.
    """
    if is_right.is_meta:
        return
    is_traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or type(is_right) is not torch.Tensor
    if is_traced or is_right.device.type == "cuda":
        torch._assert_async(is_right, message)
    elif not is_right.cpu().numpy():
        raise ValueError(describe())


class ScanModule(nn.Module):
    """
    The weights of selective scans along several directions, and what initialises and places them.

    Args:
        config: gives `state_size` and `time_step_rank`, and the initial values.
        hidden_size: outer channels, of which `time_step_rank` is a sixteenth where the config has none.
        num_directions: K, each scan with weights of its own.
    """

    def __init__(self, config: ScanConfig, hidden_size: int, num_directions: int):
        super().__init__()
        inner_size = round(config.expand * hidden_size)
        state_size, rank = config.state_size, config.time_step_rank or math.ceil(hidden_size / 16)
        self.config = config
        self.inner_size = inner_size
        self.scan_backend = "auto"
        self.x_proj_weight = nn.Parameter(torch.empty(num_directions, rank + 2 * state_size, inner_size))
        self.dt_proj_weight = nn.Parameter(torch.empty(num_directions, inner_size, rank))
        self.dt_proj_bias = nn.Parameter(torch.empty(num_directions, inner_size))
        self.A_log = nn.Parameter(torch.empty(num_directions * inner_size, state_size))
        self.D = nn.Parameter(torch.empty(num_directions * inner_size))


class DropPath(nn.Module):
    """Stochastic depth: in training, zeroes the residual branch of a sample with probability `rate` (1603.09382)."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0.0:
            return hidden_states
        shape = (hidden_states.shape[0],) + (1,) * (hidden_states.dim() - 1)
        keep = hidden_states.new_empty(shape).bernoulli_(1 - self.rate)
        return hidden_states * keep / (1 - self.rate)


class ScanPreTrainedModel(PreTrainedModel):
    """What every model with scans has: loading, saving, initialization, and where its scans run."""

    config: ScanConfig
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True
    # Otherwise a Trainer takes a forward with **kwargs for one that divides the loss by the accumulated steps itself.
    accepts_loss_kwargs = False
    _can_compile_fullgraph = True
    # Of a class of ours that can be saved: Auto class → file and class.
    _auto_map: dict[str, str] = {}
    # exp amplifies the rounding of half precision.
    _keep_in_fp32_modules_strict = ["A_log", "D", "dt_proj_bias"]

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        config.validate()  # fields may have been set since it was made, as `from_pretrained(…, field=value)` does

    @classmethod
    def is_custom_code(cls) -> bool:
        # In custom code transformers skips the init of modules that own no parameters, the text encoder's too.
        return False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._auto_class = None  # registered is a class, not what is made of it elsewhere

    @staticmethod
    def _load_pretrained_model(
        model: PreTrainedModel,
        state_dict: Any,
        checkpoint_files: list[str] | None,
        load_config: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        # The one place between the model, still without data, and its files. A quantizer packs them in other shapes.
        if load_config.hf_quantizer is None and checkpoint_files:
            check_weight_files(model, checkpoint_files, load_config.ignore_mismatched_sizes)
        return PreTrainedModel._load_pretrained_model(
            model, state_dict, checkpoint_files, load_config, *args, **kwargs
        )

    @property
    def is_saved_with_code(self) -> bool:
        """Whether `_auto_map` names this class's file: not where a subclass of a user's lies in another."""
        owner = next(base for base in type(self).__mro__ if "_auto_map" in vars(base))
        return self._auto_class is not None and type(self).__module__ == owner.__module__

    def save_pretrained(self, save_directory: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """
        Save config, weights and, as `register_for_auto_class` was called on import, the code files.

        A subclass is saved without code, unless it is registered itself, and loads by its own `from_pretrained`.
        """
        vars(self.config).pop("auto_map", None)
        if self.is_saved_with_code:
            self.config.auto_map = dict(self._auto_map)
        with weights_as_umask_says(save_directory):
            super().save_pretrained(save_directory, *args, **kwargs)

    def set_scan_backend(self, name: str) -> None:
        """
        Choose the implementation of every scan of the model.

        It holds for this object and is not saved. A backend that cannot run where the model is says so when called.

        Args:
            name: `"auto"` or a name from `selective_scan.BACKENDS`.

        Raises:
            ValueError: if the backend is unknown.
        """
        check_backend_name(name)
        for module in self.modules():
            if isinstance(module, ScanModule):
                module.scan_backend = name

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ScanModule):
            self._init_scan(module)

    def _init_scan(self, module: ScanModule) -> None:
        """Mamba's initial values (arXiv 2312.00752, section 3.6)."""
        config = module.config
        inner_size, rank = module.dt_proj_weight.shape[1:]
        init.uniform_(module.x_proj_weight, -(inner_size**-0.5), inner_size**-0.5)
        init.uniform_(module.dt_proj_weight, -(rank**-0.5), rank**-0.5)
        low, high = math.log(config.time_step_min), math.log(config.time_step_max)
        time_steps = torch.empty_like(module.dt_proj_bias, dtype=torch.float32).uniform_(low, high).exp_()
        time_steps = time_steps.clamp_(min=config.time_step_floor)
        init.copy_(module.dt_proj_bias, time_steps + torch.log(-torch.expm1(-time_steps)))  # softplus⁻¹
        states = torch.arange(1, config.state_size + 1, dtype=torch.float32, device=module.A_log.device)
        init.copy_(module.A_log, states.log().expand_as(module.A_log))
        init.ones_(module.D)


__all__ = ["DropPath", "ScanModule", "ScanPreTrainedModel"]
