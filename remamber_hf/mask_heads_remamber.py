# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Mask heads of ReMamber: maps of all stages, fused with the text, → logits.

Maps are (batch, height, width, channels).
"""

from collections.abc import Iterable
from itertools import product
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_remamber import ReMamberConfig, vision_config_of
from .fusion_remamber import GlobalText, TextImageCorrelation
from .modeling_vmamba import SS2D, channels_first, channels_last, convolve, resize


def double(hidden_states: torch.Tensor, align_corners: bool) -> torch.Tensor:
    """Resize a map (batch, height, width, channels) bilinearly to twice its size."""
    height, width = hidden_states.shape[1:3]
    return resize(hidden_states, (2 * height, 2 * width), align_corners)


def batch_norm(norm: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    """
    Apply the batch norm `norm` to a map (batch, height, width, channels).

    In training it uses its running statistics, and leaves them alone, where its weight is frozen: whoever freezes a
    head, or trains adapters beside it, keeps the head as it was. So it does on a single pixel, which has no variance.
    `norm` may be what took a batch norm's place: one over all processes, an adapter's wrapper, the identity.
    """
    features = channels_first(hidden_states)
    if (
        isinstance(norm, _BatchNorm)
        and norm.training
        and (not norm.weight.requires_grad or (type(norm) is nn.BatchNorm2d and features[:, 0].numel() == 1))
    ):
        normalized = F.batch_norm(features, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    else:
        normalized = norm(features)
    return channels_last(normalized)


def fold_batch_norms(module: "ConvMixer | ConvNormReLU") -> None:
    """Fold the batch norms of `module` into the layers before them, as its `batch_norms` (layer: norm) says."""
    for layer_name, norm_name in module.batch_norms.items():
        layer: Any = module.get_submodule(layer_name)  # or what took its place
        norm: Any = module.get_submodule(norm_name)
        fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
        statistics = norm.running_mean, norm.running_var, norm.eps
        layer.weight, layer.bias = fuse(layer.weight, layer.bias, *statistics, norm.weight, norm.bias)
        setattr(module, norm_name, nn.Identity())


COMMUTED_CHANNELS = 128  # in narrower convolutions the nine resizes cost more than the arithmetic that they save

# For each row (or column) of a 3×3 kernel: the part of the output that it adds to, and what of its own map goes there.
KERNEL_MOVES = (
    (slice(1, None), slice(None, -1)),
    (slice(None), slice(None)),
    (slice(None, -1), slice(1, None)),
)


def convolve_resized(
    conv: nn.Module, hidden_states: torch.Tensor, size: tuple[int, int] | None = None, skip: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Resize → concatenate another map → the 3×3 convolution `conv`.

    Each of the kernel's nine entries is a linear layer, and a linear layer and a resize commute. Those to one channel,
    and on a CPU the wide ones, run before the resize, on fewer pixels; the nine results are then resized, moved and
    summed.

    Args:
        conv: an `nn.Conv2d`, or what took its place, such as one with an adapter beside it.
        hidden_states: map (batch, height, width, channels).
        size: (height, width) to which the map is resized, if at all.
        skip: map of that size, put behind the other's channels.

    Returns:
        map (batch, height, width, channels) of `size`.
    """
    if size is not None:
        if is_cheaper_before_resize(conv, hidden_states):
            return convolve_before_resize(conv, hidden_states, size, skip)
        hidden_states = resize(hidden_states, size, align_corners=True)
    return convolve(conv, hidden_states if skip is None else torch.cat([hidden_states, skip], dim=-1))


def is_cheaper_before_resize(conv: nn.Module, hidden_states: torch.Tensor) -> TypeGuard[nn.Conv2d]:
    # Of anything else, a subclass or a wrapper, the weight may not be all; an offloaded one is fetched by a call, for
    # which a hook waits too.
    if type(conv) is not nn.Conv2d or conv.weight.device != hidden_states.device:
        return False
    if conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks:
        return False
    if hidden_states.is_cuda:
        return conv.out_channels == 1
    if hidden_states.device.type != "cpu" or conv.weight.dtype.itemsize < 4 or torch.is_autocast_enabled("cpu"):
        return False  # in half precision each of the nine results would be rounded
    return conv.out_channels == 1 or hidden_states.shape[-1] >= COMMUTED_CHANNELS


def convolve_before_resize(
    conv: nn.Conv2d, hidden_states: torch.Tensor, size: tuple[int, int], skip: torch.Tensor | None
) -> torch.Tensor:
    """As `convolve_resized`; in float32 or more, for nine results are summed."""
    dtype, channels = hidden_states.dtype, hidden_states.shape[-1]
    with torch.autocast(hidden_states.device.type, enabled=False):
        hidden_states = hidden_states.to(torch.promote_types(dtype, torch.float32))
        all_weights = conv.weight.to(hidden_states.dtype)
        bias = None if conv.bias is None else conv.bias.to(hidden_states.dtype)
        if skip is None:
            bias = hidden_states.new_zeros(conv.out_channels) if bias is None else bias
            output = bias.repeat(hidden_states.shape[0], *size, 1)
        else:
            skip = skip.to(hidden_states.dtype)
            output = channels_last(F.conv2d(channels_first(skip), all_weights[:, channels:], bias, padding=1))
        weight = rearrange(all_weights[:, :channels], "output input row column -> (row column output) input")
        parts = F.linear(hidden_states, weight)
        resized: Iterable[torch.Tensor]
        if conv.out_channels == 1:  # nine values per pixel are resized together, nine wide maps one after the other
            resized = resize(parts, size, align_corners=True).split(1, dim=-1)
        else:
            resized = (resize(part, size, align_corners=True) for part in parts.chunk(9, dim=-1))
        for (rows, columns), part in zip(product(KERNEL_MOVES, repeat=2), resized):
            output[:, rows[0], columns[0]] += part[:, rows[1], columns[1]]
    return output.to(dtype)


class ConvMixer(nn.Module):
    """linear → batch norm → hard swish → depthwise 3×3 → batch norm → hard swish → linear → batch norm."""

    batch_norms = {"in_proj": "in_norm", "conv": "conv_norm", "out_proj": "out_norm"}

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.in_proj = nn.Linear(input_size, input_size, bias=False)
        self.in_norm = nn.BatchNorm2d(input_size)
        self.conv = nn.Conv2d(input_size, input_size, 3, padding=1, groups=input_size, bias=False)
        self.conv_norm = nn.BatchNorm2d(input_size)
        self.out_proj = nn.Linear(input_size, hidden_size, bias=False)
        self.out_norm = nn.BatchNorm2d(hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = F.hardswish(batch_norm(self.in_norm, self.in_proj(hidden_states)))
        hidden_states = F.hardswish(batch_norm(self.conv_norm, convolve(self.conv, hidden_states)))
        return batch_norm(self.out_norm, self.out_proj(hidden_states))


class ConvNormReLU(nn.Sequential):
    """3×3 convolution, with the resize before it → batch norm → ReLU."""

    batch_norms = {"0": "1"}

    def __init__(self, input_size: int, output_size: int, bias: bool = True):
        convolution = nn.Conv2d(input_size, output_size, 3, padding=1, bias=bias)
        super().__init__(convolution, nn.BatchNorm2d(output_size), nn.ReLU())

    def forward(
        self, hidden_states: torch.Tensor, size: tuple[int, int] | None = None, skip: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Takes what `convolve_resized` takes."""
        convolution, norm, relu = self
        return relu(batch_norm(norm, convolve_resized(convolution, hidden_states, size, skip)))


class ConvMaskHead(nn.Module):
    """From the coarsest map up: mixer → ×2 → concatenate the next map, three times; then the neck to logits."""

    def __init__(self, config: ReMamberConfig):
        super().__init__()
        stage1, stage2, stage3, stage4 = vision_config_of(config).hidden_sizes
        width = config.conv_head_ratio * stage1
        self.mixers = nn.ModuleList(ConvMixer(size, width) for size in (stage4, width + stage3, width + stage2))
        self.neck = nn.ModuleList([ConvNormReLU(width + stage1, width), ConvNormReLU(width, width)])
        self.classifier = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, feature_maps: tuple[torch.Tensor, ...], text_hidden_states: torch.Tensor) -> torch.Tensor:
        """Four maps (batch, height, width, channels), fine to coarse → logits (batch, height, width, 1), stride 1."""
        stage1, stage2, stage3, stage4 = feature_maps
        height, width = stage1.shape[1:3]
        hidden_states = stage4
        for mixer, skip in zip(self.mixers, (stage3, stage2)):
            hidden_states = resize(mixer(hidden_states), skip.shape[1:3], align_corners=True)
            hidden_states = torch.cat([hidden_states, skip], dim=-1)
        hidden_states = self.neck[0](self.mixers[2](hidden_states), (height, width), skip=stage1)
        hidden_states = self.neck[1](hidden_states, (2 * height, 2 * width))
        return convolve_resized(self.classifier, hidden_states, (4 * height, 4 * width))


class MambaDecoderBlock(GradientCheckpointingLayer):
    """norm → SS2D → add."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.ss2d = SS2D(config, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.ss2d(self.norm(hidden_states))


class MambaDecoderLevel(nn.Module):
    """
    Concatenate map, global and local text → linear → SS2D blocks → ×2 → linear to half the channels → norm, and then,
    except at the last level, fuse with the next map: two convolutions on both, plus that map.
    """

    def __init__(self, config: ReMamberConfig, hidden_size: int, depth: int, has_skip: bool):
        super().__init__()
        half_size = hidden_size // 2
        self.global_text = GlobalText(config, hidden_size)
        self.local_text = TextImageCorrelation(config, hidden_size)
        self.in_proj = nn.Linear(3 * hidden_size, hidden_size, bias=False)
        self.blocks = nn.Sequential(*(MambaDecoderBlock(config, hidden_size) for _ in range(depth)))
        self.upsample_proj = nn.Linear(hidden_size, half_size, bias=False)
        self.upsample_norm = nn.LayerNorm(half_size, eps=config.layer_norm_eps)
        self.skip_fusion = None
        if has_skip:
            self.skip_fusion = nn.Sequential(
                ConvNormReLU(hidden_size, half_size, bias=False), ConvNormReLU(half_size, half_size, bias=False)
            )

    def forward(
        self, hidden_states: torch.Tensor, text_hidden_states: torch.Tensor, skip: torch.Tensor | None
    ) -> torch.Tensor:
        size = hidden_states.shape[1:3]
        # The first token's hidden state, not the pooled output: so the released code has it.
        global_text = self.global_text(text_hidden_states[:, 0], size)
        local_text = self.local_text(hidden_states, text_hidden_states)
        hidden_states = self.blocks(self.in_proj(torch.cat([hidden_states, global_text, local_text], dim=-1)))
        # A linear layer and a resize commute; before the resize it sees a quarter of the pixels.
        hidden_states = self.upsample_proj(hidden_states)
        if skip is None or self.skip_fusion is None:
            return self.upsample_norm(double(hidden_states, align_corners=True))
        hidden_states = self.upsample_norm(resize(hidden_states, skip.shape[1:3], align_corners=True))
        return self.skip_fusion(torch.cat([hidden_states, skip], dim=-1)) + skip


class MambaMaskHead(nn.Module):
    """Four levels from the coarsest map up, then ×2 → convolution → batch norm → ReLU → convolution to logits."""

    def __init__(self, config: ReMamberConfig):
        super().__init__()
        hidden_sizes = vision_config_of(config).hidden_sizes[::-1]
        self.levels = nn.ModuleList(
            MambaDecoderLevel(config, hidden_size, depth, has_skip=level < len(hidden_sizes) - 1)
            for level, (hidden_size, depth) in enumerate(zip(hidden_sizes, config.decoder_depths))
        )
        width = hidden_sizes[-1] // 2
        self.neck = ConvNormReLU(width, width, bias=False)
        self.classifier = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, feature_maps: tuple[torch.Tensor, ...], text_hidden_states: torch.Tensor) -> torch.Tensor:
        """Four maps (batch, height, width, channels), fine to coarse → logits (batch, height, width, 1), stride 1."""
        *skips, hidden_states = feature_maps
        for level, skip in zip(self.levels, [*reversed(skips), None]):
            hidden_states = level(hidden_states, text_hidden_states, skip)
        return convolve(self.classifier, self.neck(double(hidden_states, align_corners=False)))


MASK_HEADS = {"conv": ConvMaskHead, "mamba": MambaMaskHead}
