# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""VMamba (arXiv 2401.10166), inside out: SS2D, VSS block, stage, model, backbone, classifier.

Maps are (batch, height, width, channels) from the stem on; 1×1 convolutions are linear layers. Only what the public
classes take and return is channels-first, as everywhere in transformers.
"""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

import math
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithNoAttention,
    ImageClassifierOutputWithNoAttention,
)
from transformers.utils.generic import TransformersKwargs, can_return_tuple

from .configuration_remamber import SS2DConfig, VMambaConfig
from .modeling_scan import DropPath, ScanModule, ScanPreTrainedModel, check_keywords, check_pixel_values
from .selective_scan import Direction, cross_selective_scan


def channels_first(hidden_states: torch.Tensor) -> torch.Tensor:
    """View of a map (batch, height, width, channels) as (batch, channels, height, width)."""
    return hidden_states.permute(0, 3, 1, 2)


def channels_last(feature_map: torch.Tensor) -> torch.Tensor:
    """View of a map (batch, channels, height, width) as (batch, height, width, channels)."""
    return feature_map.permute(0, 2, 3, 1)


def convolve(conv: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """
    Apply a 2-D convolution to a map (batch, height, width, channels).

    The module is PyTorch's own, or what took its place: adapters and quantizers know where its channels are.
    """
    return channels_last(conv(channels_first(hidden_states)))


def resize(hidden_states: torch.Tensor, size: tuple[int, ...], align_corners: bool) -> torch.Tensor:
    """Resize a map (batch, height, width, channels) bilinearly to `size` (height, width)."""
    if hidden_states.is_cuda:  # where it lies channels first, a GPU uses one thread for all channels of all pictures
        hidden_states = hidden_states.contiguous()
    resized = F.interpolate(channels_first(hidden_states), size, mode="bilinear", align_corners=align_corners)
    return channels_last(resized)


class ScanLayerNorm(nn.LayerNorm):
    """Layer norm in the scan's float32, also where its weights are in half precision."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.to(hidden_states.dtype), self.bias.to(hidden_states.dtype)
        return F.layer_norm(hidden_states, self.normalized_shape, weight, bias, self.eps)


class SS2D(ScanModule):
    """
    2-D selective scan: in_proj → depthwise convolution → SiLU → cross-selective-scan → norm → out_proj.

    The gated form splits in_proj's output in two and multiplies the norm's output by SiLU of the second half.

    Args:
        config: gives `expand`, `state_size`, `time_step_rank` and the other fields of `SS2DConfig`.
        hidden_size: outer channels; `expand * hidden_size` inner channels are scanned.
        input_size: channels of the input where they differ from `hidden_size`.
        is_gated: whether the output is gated.
    """

    def __init__(self, config: SS2DConfig, hidden_size: int, input_size: int | None = None, is_gated: bool = False):
        super().__init__(config, hidden_size, len(Direction))
        inner_size = self.inner_size
        self.is_gated = is_gated
        self.in_proj = nn.Linear(input_size or hidden_size, inner_size * (2 if is_gated else 1), bias=False)
        self.conv = nn.Conv2d(
            inner_size,
            inner_size,
            config.conv_kernel_size,
            padding=config.conv_kernel_size // 2,
            groups=inner_size,
            bias=config.use_conv_bias,
        )
        self.out_norm = ScanLayerNorm(inner_size, eps=config.layer_norm_eps)
        self.out_proj = nn.Linear(inner_size, hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, height, width, input channels) → (batch, height, width, hidden_size)."""
        x = self.in_proj(hidden_states)
        if self.is_gated:
            x, gate = x.chunk(2, dim=-1)
        x = F.silu(convolve(self.conv, x))
        y = cross_selective_scan(
            x,
            self.x_proj_weight,
            self.dt_proj_weight,
            self.dt_proj_bias,
            self.A_log,
            self.D,
            backend=self.scan_backend,
        )
        y = self.out_norm(y).to(x.dtype)
        if self.is_gated:
            y = y * F.silu(gate)
        return self.out_proj(y)


class MLP(nn.Module):
    """Linear → GELU → linear, at every pixel."""

    def __init__(self, config: VMambaConfig, hidden_size: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, int(config.mlp_ratio * hidden_size))
        self.fc2 = nn.Linear(self.fc1.out_features, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(hidden_states)))


class VSSBlock(GradientCheckpointingLayer):
    """norm → SS2D → drop path → add, then norm → MLP → drop path → add."""

    def __init__(self, config: VMambaConfig, hidden_size: int, drop_path_rate: float):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.ss2d = SS2D(config, hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config, hidden_size)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self.drop_path(self.ss2d(self.norm(hidden_states)))
        return hidden_states + self.drop_path(self.mlp(self.norm2(hidden_states)))


class VMambaStem(nn.Module):
    """Convolution of stride 2 → norm → GELU → convolution of stride 2 → norm; picture in, map of stride 4 out."""

    def __init__(self, config: VMambaConfig):
        super().__init__()
        hidden_size = config.hidden_sizes[0]
        self.num_channels = config.num_channels
        self.conv1 = nn.Conv2d(config.num_channels, hidden_size // 2, 3, stride=2, padding=1)
        self.norm1 = nn.LayerNorm(hidden_size // 2, eps=config.layer_norm_eps)
        self.conv2 = nn.Conv2d(hidden_size // 2, hidden_size, 3, stride=2, padding=1)
        self.norm2 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(batch, num_channels, height, width) → (batch, height / 4, width / 4, channels), sizes rounded up."""
        check_pixel_values(pixel_values, self.num_channels)
        pixels = channels_last(pixel_values).to(self.conv1.weight.dtype)
        hidden_states = F.gelu(self.norm1(convolve(self.conv1, pixels)))
        return self.norm2(convolve(self.conv2, hidden_states))


class VMambaDownsample(nn.Module):
    """Convolution of stride 2 → norm."""

    def __init__(self, config: VMambaConfig, input_size: int, hidden_size: int):
        super().__init__()
        self.conv = nn.Conv2d(input_size, hidden_size, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.norm(convolve(self.conv, hidden_states))


class VMambaStage(nn.Module):
    """
    VSS blocks, and the downsample that leads to the next stage (none after the last).

    The two are called one after the other from outside: ReMamber fuses the text between them.
    """

    def __init__(self, config: VMambaConfig, stage: int, drop_path_rates: list[float]):
        super().__init__()
        hidden_size = config.hidden_sizes[stage]
        self.blocks = nn.Sequential(*(VSSBlock(config, hidden_size, rate) for rate in drop_path_rates))
        is_last = stage == len(config.hidden_sizes) - 1
        self.downsample = (
            nn.Identity() if is_last else VMambaDownsample(config, hidden_size, config.hidden_sizes[stage + 1])
        )


class VMambaPreTrainedModel(ScanPreTrainedModel):
    """What every VMamba has."""

    config: VMambaConfig
    base_model_prefix = "vmamba"
    _no_split_modules = ["VSSBlock"]
    _input_embed_layer = "stem"
    # There is no attention here; what is asked for holds for ReMamber's text encoder.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Every Auto class under which a saved folder is to load without this package, whichever class saved it.
    _auto_map = {
        "AutoModel": "modeling_vmamba.VMambaModel",
        "AutoBackbone": "modeling_vmamba.VMambaBackbone",
        "AutoModelForImageClassification": "modeling_vmamba.VMambaForImageClassification",
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):  # PyTorch's own default, as published
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                bound = 1 / math.sqrt(module.in_channels * math.prod(module.kernel_size) / module.groups)
                init.uniform_(module.bias, -bound, bound)
            return
        super()._init_weights(module)


class VMambaModel(VMambaPreTrainedModel):
    """Stem → stages, each of VSS blocks and a downsample."""

    def __init__(self, config: VMambaConfig):
        super().__init__(config)
        depths = config.depths
        # Linear from 0 to drop_path_rate over all blocks, without tensors: __init__ runs on the meta device.
        step = config.drop_path_rate / max(sum(depths) - 1, 1)
        rates = iter([step * block for block in range(sum(depths))])
        self.stem = VMambaStem(config)
        self.stages = nn.ModuleList(
            VMambaStage(config, stage, [next(rates) for _ in range(depth)]) for stage, depth in enumerate(depths)
        )
        self.post_init()

    def encode(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Maps (batch, channels, height, width) after the stem and after the blocks of each stage."""
        maps = [channels_first(self.stem(pixel_values))]
        hidden_states = channels_last(maps[-1])  # goes on from what is returned, so that the two have one gradient
        stage: Any  # a VMambaStage, of which a ModuleList does not tell
        for stage in self.stages:
            maps.append(channels_first(stage.blocks(hidden_states)))
            hidden_states = stage.downsample(channels_last(maps[-1]))
        return maps

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithNoAttention:
        """
        Args:
            pixel_values: normalized pictures (batch, num_channels, height, width), any size.
            kwargs: `output_hidden_states`, whether to return the maps after the stem and each stage too, or indices
                of some; and `return_dict`.

        Returns:
            `last_hidden_state` (batch, channels, height / 32, width / 32) and, if asked for, `hidden_states`.

        Raises:
            ValueError: if the pictures have another number of channels than the config.
            TypeError: for other keywords than transformers'.
        """
        check_keywords(kwargs)
        maps = self.encode(pixel_values)
        return BaseModelOutputWithNoAttention(last_hidden_state=maps[-1], hidden_states=tuple(maps))


class VMambaBackbone(BackboneMixin, VMambaModel):
    """VMamba as a backbone for AutoBackbone: the maps of the stages named in `config.out_features`, not normalized."""

    has_attentions = False

    def __init__(self, config: VMambaConfig):
        super().__init__(config)
        self.num_features = [config.hidden_sizes[0], *config.hidden_sizes]

    @can_return_tuple
    @filter_output_hidden_states
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        """
        Args:
            pixel_values, kwargs: as `VMambaModel` takes them.

        Returns:
            `feature_maps`, one (batch, channels, height, width) per entry of `out_features`.
        """
        check_keywords(kwargs)
        maps = self.encode(pixel_values)
        feature_maps = tuple(maps[self.stage_names.index(name)] for name in self.out_features)
        # Annotated as a tuple of one.
        return BackboneOutput(feature_maps=feature_maps, hidden_states=tuple(maps))  # type: ignore[arg-type]


class VMambaForImageClassification(VMambaPreTrainedModel):
    """VMamba → norm → global average pool → linear, as in the ImageNet checkpoints."""

    def __init__(self, config: VMambaConfig):
        super().__init__(config)
        self.vmamba = VMambaModel(config)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # A config has names of two labels where it is given none, so their number is not None.
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)  # type: ignore[arg-type]
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutputWithNoAttention:
        """
        Args:
            pixel_values, kwargs: as `VMambaModel` takes them.
            labels: class indices (batch); with them comes `loss`.

        Returns:
            `logits` (batch, num_labels).
        """
        outputs = self.vmamba(pixel_values, return_dict=True, **kwargs)
        pooled = self.norm(channels_last(outputs.last_hidden_state)).mean(dim=(1, 2))
        logits = self.classifier(pooled)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


__all__ = ["VMambaBackbone", "VMambaForImageClassification", "VMambaModel", "VMambaPreTrainedModel"]
