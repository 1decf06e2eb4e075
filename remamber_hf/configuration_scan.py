# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the configurations of all models with selective scans share: their fields, and how fields are checked."""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

import reprlib
from math import isfinite
from types import NoneType
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging


logger = logging.get_logger(__name__)

SET_SCAN_BACKEND = "call model.set_scan_backend(name) on the loaded model"

# The largest values of fields that say how much is made before a weight is read; far above any model that was trained.
LARGEST = {
    "channel_scan_size": 256,
    "conv_head_ratio": 64,
    "conv_kernel_size": 255,
    "correlation_size": 2**16,
    "expand": 64,
    "hidden_size": 2**16,
    "image_size": 2**13,
    "intermediate_size": 2**18,
    "max_position_embeddings": 2**16,
    "mlp_ratio": 64,
    "num_attention_heads": 1024,
    "num_channels": 2**12,
    "num_fusion_blocks": 128,
    "num_hidden_layers": 128,
    "num_labels": 10**6,
    "patch_size": 2**10,
    "projection_dim": 2**16,
    "state_size": 1024,
    "time_step_rank": 2**16,
    "vocab_size": 10**7,
}
LARGEST_HIDDEN_SIZE, LARGEST_DEPTH, MOST_STAGES = LARGEST["hidden_size"], 128, 16


def require_positive(config: PreTrainedConfig, *names: str) -> None:
    """ValueError unless each field is a number above 0, and not above what `LARGEST` has for it."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ValueError(f"{name} is {reprlib.repr(value)}; it must be greater than 0.")
        if value > LARGEST.get(name, value):
            raise ValueError(f"{name} is {reprlib.repr(value)}; it must not be greater than {LARGEST[name]:,}.")


def check_num_labels(fields: dict[str, Any]) -> None:
    """ValueError for a number of labels of which transformers would make as many names."""
    value = fields.get("num_labels")
    if value is not None and (not isinstance(value, int) or not 0 <= value <= LARGEST["num_labels"]):
        raise ValueError(f"num_labels is {reprlib.repr(value)}; give a number up to {LARGEST['num_labels']:,}.")


def check_inner_size(config: PreTrainedConfig, hidden_size: int) -> None:
    """ValueError for an `expand` that leaves no channel to scan."""
    if round(config.expand * hidden_size) < 1:
        raise ValueError(f"expand is {config.expand}, which leaves none of {hidden_size} channels; give a larger one.")


@strict
class ScanConfig(PreTrainedConfig):
    r"""
    The fields that every selective scan reads; base of all configurations here.

    Args:
        state_size (`int`, defaults to 16): N, the number of states per channel of the scan.
        expand (`float`, defaults to 2.0): inner channels, which are scanned, over outer channels.
        time_step_rank (`int`, *optional*):
            R, the rank of the time-step projection. `None` means one sixteenth of the outer channels, rounded up.
        conv_kernel_size (`int`, defaults to 4): width of the depthwise convolution before the scan.
        use_conv_bias (`bool`, defaults to `True`): whether the depthwise convolution has a bias.
        time_step_min, time_step_max (`float`, default to 0.001 and 0.1): range of the time steps at initialisation.
        time_step_floor (`float`, defaults to 1e-4): lower clamp of those time steps.
        layer_norm_eps (`float`, defaults to 1e-5): epsilon of every norm of the model's own.
        initializer_range (`float`, defaults to 0.02): standard deviation of the weights of linear layers.

    Where a scan runs is a matter of the machine and no field: `model.set_scan_backend(name)`.
    """

    state_size: int = 16
    expand: float | int = 2.0
    time_step_rank: int | None = None
    conv_kernel_size: int = 4
    use_conv_bias: bool = True
    time_step_min: float = 1e-3
    time_step_max: float = 0.1
    time_step_floor: float = 1e-4
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        backend = kwargs.pop("scan_backend", "auto")  # older folders have it
        if backend != "auto":
            logger.warning_once(f"scan_backend={backend!r} in a configuration is not read; {SET_SCAN_BACKEND}.")
        super().__post_init__(**kwargs)

    @property
    def scan_backend(self) -> str:
        """No field: raises ValueError, also for `from_pretrained(…, scan_backend=…)`."""
        raise ValueError(f"scan_backend is not part of the configuration; {SET_SCAN_BACKEND}.")

    @scan_backend.setter
    def scan_backend(self, name: str) -> None:
        raise ValueError(f"scan_backend={name!r} is not part of the configuration; {SET_SCAN_BACKEND}.")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._auto_class = None  # registered is a class, not what is made of it elsewhere

    def validate_outputs(self) -> None:
        states = self.output_hidden_states
        indices: list[Any] = states if isinstance(states, list) else []
        if not isinstance(states, (bool, NoneType, list)) or not all(isinstance(index, int) for index in indices):
            raise ValueError(f"output_hidden_states is {reprlib.repr(states)}; give true or false.")

    def validate_scan(self) -> None:
        require_positive(
            self,
            "state_size",
            "expand",
            "conv_kernel_size",
            "layer_norm_eps",
            "time_step_min",
            "time_step_floor",
        )
        if self.time_step_rank is not None:
            require_positive(self, "time_step_rank")
        if not (isfinite(self.initializer_range) and self.initializer_range >= 0):
            raise ValueError(f"initializer_range is {self.initializer_range}; it must be at least 0.")
        if not self.time_step_min <= self.time_step_max < float("inf"):
            raise ValueError(
                f"time_step_max is {self.time_step_max}, time_step_min is {self.time_step_min}; "
                "give a maximum that is not below the minimum."
            )


__all__ = ["ScanConfig"]
