# Copyright 2026 The remamber_hf authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""ReMamber (arXiv 2403.17839), inside out: text-image correlation, Mamba Twister, mask heads, model, segmentation.

Maps are (batch, height, width, channels) inside; what the public classes return is channels-first.
"""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

import reprlib
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from os import PathLike
from typing import Any, TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from transformers import CLIPTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.backbone_utils import filter_output_hidden_states
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.utils.generic import can_return_tuple

from .configuration_remamber import LEGACY_END_TOKEN, ReMamberConfig, VMambaConfig
from .modeling_vmamba import (
    SS2D,
    VMambaModel,
    VMambaPreTrainedModel,
    channels_first,
    channels_last,
    convolve,
)


def text_config_of(config: ReMamberConfig) -> CLIPTextConfig:
    return config.text_config  # type: ignore[return-value]  # no dict and not None once the config is made


def vision_config_of(config: ReMamberConfig) -> VMambaConfig:
    return config.vision_config  # type: ignore[return-value]  # as above


def resize(hidden_states: torch.Tensor, size: tuple[int, ...], align_corners: bool) -> torch.Tensor:
    """Resize a map (batch, height, width, channels) bilinearly to `size` (height, width)."""
    if hidden_states.is_cuda:  # where it lies channels first, a GPU uses one thread for all channels of all pictures
        hidden_states = hidden_states.contiguous()
    resized = F.interpolate(channels_first(hidden_states), size, mode="bilinear", align_corners=align_corners)
    return channels_last(resized)


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


class TextImageCorrelation(nn.Module):
    """
    Local text: GELU(linear) of map and tokens → their inner products, one channel per token → 3×3 convolution → GELU
    → linear. Paper, section 3.2.
    """

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.vision_proj = nn.Linear(hidden_size, config.correlation_size)
        self.text_proj = nn.Linear(text_config_of(config).hidden_size, config.correlation_size)
        self.conv = nn.Conv2d(config.text_length, config.correlation_size, 3, padding=1)
        self.out_proj = nn.Linear(config.correlation_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor, text_hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Map (batch, height, width, channels) and tokens (batch, text_length, text channels) → map of the same shape.
        """
        vision = F.gelu(self.vision_proj(hidden_states))
        text = F.gelu(self.text_proj(text_hidden_states))
        correlation = torch.einsum("bhwc,btc->bhwt", vision, text)
        return self.out_proj(F.gelu(convolve(self.conv, correlation)))


class GlobalText(nn.Module):
    """Linear → ReLU of one text vector, repeated over a map."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.proj = nn.Linear(text_config_of(config).hidden_size, hidden_size)

    def forward(self, text: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """(batch, text channels) → (batch, height, width, hidden_size)."""
        return F.relu(self.proj(text))[:, None, None].expand(-1, *size, -1)


class ChannelScan(nn.Module):
    """
    A gated SS2D that runs along the channels: resize → cells as features, channels as steps → SS2D → resize back.

    Paper, section 3.3. A map of height 1 makes two of the four directions equal; their weights still differ.
    """

    def __init__(self, config: ReMamberConfig):
        super().__init__()
        self.size = (config.channel_scan_size, config.channel_scan_size)
        self.ss2d = SS2D(config, config.channel_scan_size**2, is_gated=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        cells = resize(hidden_states, self.size, align_corners=False)
        sequence = cells.flatten(1, 2).transpose(1, 2).unsqueeze(1)  # (batch, 1, channels, cells)
        sequence = self.ss2d(sequence)
        cells = sequence.squeeze(1).transpose(1, 2).unflatten(1, self.size)
        return resize(cells, hidden_states.shape[1:3], align_corners=False)


class MambaTwister(nn.Module):
    """Concatenate map, global and local text → channel scan → add → spatial scan back to the map's channels."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.channel_scan = ChannelScan(config)
        self.spatial_scan = SS2D(config, hidden_size, input_size=3 * hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, global_text: torch.Tensor, local_text: torch.Tensor
    ) -> torch.Tensor:
        cube = torch.cat([hidden_states, global_text, local_text], dim=-1)
        return self.spatial_scan(cube + self.channel_scan(cube))


class MambaTwisterBlock(GradientCheckpointingLayer):
    """
    norm of the three → Twister → add.

    As in the released code the two text maps change too: each gets its own norm added.
    """

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.twister = MambaTwister(config, hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, global_text: torch.Tensor, local_text: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        normed_global, normed_local = self.norm(global_text), self.norm(local_text)
        twisted = self.twister(self.norm(hidden_states), normed_global, normed_local)
        return hidden_states + twisted, global_text + normed_global, local_text + normed_local


class TextFusion(nn.Module):
    """Fusion after one stage: global and local text → Twister blocks; the map leaves with the text in it."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.global_text = GlobalText(config, hidden_size)
        self.local_text = TextImageCorrelation(config, hidden_size)
        self.blocks = nn.ModuleList(MambaTwisterBlock(config, hidden_size) for _ in range(config.num_fusion_blocks))

    def forward(
        self, hidden_states: torch.Tensor, text_hidden_states: torch.Tensor, pooled_text: torch.Tensor
    ) -> torch.Tensor:
        global_text = self.global_text(pooled_text, hidden_states.shape[1:3])
        local_text = self.local_text(hidden_states, text_hidden_states)
        for block in self.blocks:
            hidden_states, global_text, local_text = block(hidden_states, global_text, local_text)
        return hidden_states


# ------------------------------------------------------------------------------------------------------- mask heads


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
        weight = all_weights[:, :channels].permute(2, 3, 0, 1).flatten(0, 2)  # (9 * output channels, channels)
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


# ------------------------------------------------------------------------------------------------------- the models


Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass
class ReMamberModelOutput(ModelOutput):
    """
    last_hidden_state: the fused map of the last stage (batch, channels, height / 32, width / 32).
    feature_maps: the four fused maps (batch, channels, height, width) of strides 4, 8, 16, 32.
    text_hidden_states: hidden states of the tokens (batch, text_length, text channels).
    hidden_states: the map after the stem, then the four fused maps, when asked for.
    attentions: attention maps of the text encoder's layers, when asked for.
    """

    last_hidden_state: torch.Tensor | None = None
    feature_maps: tuple[torch.Tensor, ...] | None = None
    text_hidden_states: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class ReMamberSegmentationOutput(ModelOutput):
    """
    loss: dice + binary cross-entropy, a scalar, when labels were given.
    logits: mask logits (batch, 1, height, width), before the sigmoid.
    hidden_states: the map after the stem, then the four fused maps, when asked for.
    attentions: attention maps of the text encoder's layers, when asked for.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class ReMamberPreTrainedModel(VMambaPreTrainedModel):
    config: ReMamberConfig  # type: ignore[assignment]  # what the two configs share is SS2DConfig
    base_model_prefix = "remamber"
    _auto_map = {
        "AutoModel": "modeling_remamber.ReMamberModel",
        "AutoModelForImageSegmentation": "modeling_remamber.ReMamberForImageSegmentation",
    }
    input_modalities = ["image", "text"]
    _no_split_modules = [
        "VSSBlock",
        "MambaTwisterBlock",
        "MambaDecoderBlock",
        "TextImageCorrelation",
        "ConvMixer",
        "CLIPEncoderLayer",
        "CLIPTextEmbeddings",
    ]


def check_image_index(
    image_index: torch.Tensor, num_images: torch.Tensor | None, num_pictures: int, num_expressions: int
) -> None:
    """
    Raise a ValueError unless `image_index` has an entry for each expression, names each picture and none besides, and
    was made for as many pictures as there are.

    A batch that was cut, or put together of parts that counted their pictures by themselves, is found out so.
    """
    if not isinstance(image_index, torch.Tensor):
        raise ValueError(f"image_index came as {type(image_index).__name__}; give a tensor of integers.")
    if image_index.is_floating_point() or image_index.dtype == torch.bool:
        raise ValueError(f"image_index is of {image_index.dtype}; give integers, the picture of each expression.")
    if image_index.ndim != 1 or image_index.shape[0] != num_expressions:
        raise ValueError(
            f"image_index has shape {tuple(image_index.shape)} for {num_expressions} expressions; give one for each."
        )
    advice = (
        "give the picture of each expression, counted from 0 in this batch, and no picture without expression; rows "
        "that are put together one picture to one expression need no image_index."
    )
    if num_images is not None:
        num_images = torch.as_tensor(num_images)
        check_values(
            (num_images == num_pictures).all(),
            "num_images is not the number of pictures: the batch was cut or put together of parts.",
            lambda: (
                f"image_index was made for {num_images.flatten()[0].item()} pictures (num_images), and {num_pictures} "
                f"are here: the batch was cut or put together of parts; {advice}"
            ),
        )
    pictures = torch.arange(num_pictures, device=image_index.device)
    is_named = (image_index[:, None] == pictures).any(0)
    is_inside = (image_index >= 0) & (image_index < num_pictures)
    check_values(
        is_named.all() & is_inside.all(),
        "image_index does not fit the pictures: give the picture of each expression, counted from 0; leave none over.",
        lambda: f"image_index is {reprlib.repr(image_index.tolist())} for {num_pictures} pictures; {advice}",
    )


def check_tensor(name: str, value: object) -> torch.Tensor:
    """`value`, a tensor; ValueError for anything else."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(
            f"{name} came as {type(value).__name__}; give tensors, as the processor makes them with "
            "return_tensors='pt'."
        )
    return value


def check_tokens(input_ids: torch.Tensor, attention_mask: torch.Tensor | None, embedding: nn.Module) -> None:
    """
    Raise a ValueError for tokens that the text encoder does not have, and for a mask that is not 1 up to the padding.
    """
    if input_ids.is_floating_point():
        raise ValueError(f"input_ids are {input_ids.dtype}; give integers, as the tokenizer does.")
    num_tokens = getattr(embedding, "num_embeddings", None)  # an adapter's wrapper may not tell
    if num_tokens is not None and input_ids.numel():
        check_values(
            ((input_ids >= 0) & (input_ids < num_tokens)).all(),
            "input_ids has tokens that the text encoder does not have.",
            lambda: (
                f"input_ids has the token {input_ids.max().item()}, and the text encoder has {num_tokens}; after "
                "adding words call model.resize_token_embeddings(len(tokenizer))."
            ),
        )
    if attention_mask is None:
        return
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)} and input_ids {tuple(input_ids.shape)}; give one."
        )
    mask = attention_mask.bool()
    check_values(
        mask[:, :1].all() & (mask[:, 1:] <= mask[:, :-1]).all(),
        "attention_mask is not 1 up to the padding and 0 after it.",
        lambda: "attention_mask is not 1 up to the padding and 0 after it; have the tokenizer pad on the right.",
    )


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


def mask_after_end(input_ids: torch.Tensor, end_token_id: int) -> torch.Tensor:
    """1 up to the first end token and 0 after it, for tokens (batch, length); all 1 where there is none."""
    is_end = (input_ids == end_token_id).to(torch.int64)
    return (is_end.cumsum(dim=-1) - is_end == 0).to(torch.int64)


class ReMamberModel(ReMamberPreTrainedModel):
    """Text encoder and VMamba backbone, the text fused into the map after every stage."""

    def __init__(self, config: ReMamberConfig):
        super().__init__(config)
        self.text_encoder = CLIPTextModel(text_config_of(config))
        self.backbone = VMambaModel(vision_config_of(config))
        self.fusions = nn.ModuleList(TextFusion(config, size) for size in vision_config_of(config).hidden_sizes)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_encoder.set_input_embeddings(value)

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        output_hidden_states: bool | list[int] | None = None,
        output_attentions: bool | None = None,
        num_images: torch.Tensor | None = None,
    ) -> ReMamberModelOutput:
        """
        Args:
            pixel_values: normalized pictures (num_images, 3, height, width), any size.
            input_ids: tokens (num_expressions, text_length), padded with the end token.
            attention_mask: 1 for tokens, 0 for padding (num_expressions, text_length). Only the text encoder reads it.
                By default what comes after the first end token is padding.
            image_index: picture of each expression (num_expressions); what does not depend on the text runs once per
                picture. Without it there is one picture per expression.
            output_hidden_states: whether to return `hidden_states` too, or indices of some.
            output_attentions: whether to return the `attentions` of the text encoder too.
            num_images: number of pictures that `image_index` was made for (num_expressions), as the processor gives
                it; a batch that was cut has another.

        Raises:
            ValueError: if the numbers of tokens, or of pictures and expressions, do not fit, or `image_index` does not
                name each picture, see `check_values`.
        """
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if input_ids is None:
            raise ValueError(
                "input_ids are missing, the tokens of an expression; give a picture and a text to the processor, or "
                "to pipeline('referring-image-segmentation')."
            )
        pixel_values, input_ids = check_tensor("pixel_values", pixel_values), check_tensor("input_ids", input_ids)
        if attention_mask is not None:
            attention_mask = check_tensor("attention_mask", attention_mask)
        if input_ids.ndim != 2:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)}; it must be (num_expressions, text_length). Batches "
                "that were made one by one have an axis too many; take [0] of each."
            )
        num_pictures, num_expressions = pixel_values.shape[0], input_ids.shape[0]
        if input_ids.shape[-1] != self.config.text_length:
            raise ValueError(
                f"input_ids has {input_ids.shape[-1]} tokens per expression, the model reads exactly "
                f"{self.config.text_length} (config.text_length); pad or cut them as ReMamberProcessor does."
            )
        if image_index is None and num_pictures != num_expressions:
            raise ValueError(
                f"{num_pictures} pictures came with {num_expressions} expressions; give one picture per expression or "
                "image_index, the picture of each expression."
            )
        check_tokens(input_ids, attention_mask, self.get_input_embeddings())
        if image_index is None and num_images is not None:
            raise ValueError("num_images came without image_index; give both, or none where no picture is shared.")
        if image_index is not None:
            check_image_index(image_index, num_images, num_pictures, num_expressions)
            image_index = image_index.long()  # bytes would be a mask
        if attention_mask is None:
            end_token_id: Any = text_config_of(self.config).eos_token_id  # transformers allows None and a list
            attention_mask = mask_after_end(input_ids, end_token_id)
        # Left to itself the text encoder looks whether all are 1, and a GPU runs dry until the answer is there.
        like_embeddings = input_ids.new_empty((*input_ids.shape, 0), dtype=self.text_encoder.dtype)
        causal_mask = create_causal_mask(
            self.text_encoder.config,
            like_embeddings,
            attention_mask,
            None,  # no cache; by place, as its name changes with transformers 5.24
            allow_is_causal_skip=False,
        )
        text = self.text_encoder(
            input_ids=input_ids,
            attention_mask=causal_mask,
            output_attentions=output_attentions,
            output_hidden_states=False,
            return_dict=True,
        )

        maps = [channels_first(self.backbone.stem(pixel_values))]
        hidden_states = channels_last(maps[-1])  # goes on from what is returned, so that the two have one gradient
        stage: Any  # a VMambaStage, of which a ModuleList does not tell
        for index, (stage, fusion) in enumerate(zip(self.backbone.stages, self.fusions)):
            hidden_states = stage.blocks(hidden_states)
            if index == 0 and image_index is not None:
                hidden_states = hidden_states[image_index]
            maps.append(channels_first(fusion(hidden_states, text.last_hidden_state, text.pooler_output)))
            hidden_states = stage.downsample(channels_last(maps[-1]))
        return ReMamberModelOutput(
            last_hidden_state=maps[-1],
            feature_maps=tuple(maps[1:]),
            text_hidden_states=text.last_hidden_state,
            hidden_states=tuple(maps),
            attentions=text.attentions,
        )


def load_part(
    part_class: type[Model], source: str | PathLike[str] | PreTrainedModel, model_types: tuple[str, ...]
) -> Model:
    """
    The pretrained `part_class` that `source`, a model or the name or folder of one, is or holds.

    Raises:
        ValueError: if `source` is of none of the `model_types`, or weights are missing.
    """
    if isinstance(source, (str, PathLike)):
        model_type = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
        name = str(source)
    else:
        model_type = getattr(getattr(source, "config", None), "model_type", None)
        name = type(source).__name__
    if model_type not in model_types:
        raise ValueError(f"{name} is a model of type {model_type!r}; give one of type {' or '.join(model_types)}.")
    if not isinstance(source, (str, PathLike)):
        part = next((module for module in source.modules() if isinstance(module, part_class)), None)
        if part is None:
            raise ValueError(f"{name} holds no {part_class.__name__}; give one, or the name or folder of one.")
        return part
    return load_whole(part_class, source)


def load_whole(model_class: type[Model], name: str | PathLike[str], **kwargs: Any) -> Model:
    """A pretrained model; ValueError if weights are missing, where transformers makes random ones and goes on."""
    loaded: Any = model_class.from_pretrained(name, output_loading_info=True, **kwargs)  # not annotated as a pair
    model, report = loaded
    if report["missing_keys"]:
        raise ValueError(f"it lacks the weights of {sorted(report['missing_keys'])[0]} and is no whole model.")
    return model


class ReMamberForImageSegmentation(ReMamberPreTrainedModel):
    """ReMamber with a mask head: the mask of the object that an expression means."""

    def __init__(self, config: ReMamberConfig):
        super().__init__(config)
        self.remamber = ReMamberModel(config)
        self.mask_head = MASK_HEADS[config.mask_head](config)
        self.is_folded = False
        self.post_init()

    @classmethod
    def from_text_vision_pretrained(
        cls, text: str | PathLike[str] | CLIPTextModel, vision: str | PathLike[str] | VMambaModel, **config_fields: Any
    ) -> "ReMamberForImageSegmentation":
        """
        A model to train: pretrained text encoder and backbone, fresh fusion and mask head.

        Args:
            text: a CLIP text model, or the name or folder of one or of a whole CLIP.
            vision: a VMamba backbone or classifier, or the name or folder of one.
            config_fields: fields of [`ReMamberConfig`], such as `mask_head`.

        Raises:
            ValueError: if a model is of another kind, or lacks weights: they would be random.
        """
        text_encoder = load_part(CLIPTextModel, text, ("clip_text_model", "clip"))
        backbone = load_part(VMambaModel, vision, ("vmamba",))
        text_config, vision_config = deepcopy(text_encoder.config), deepcopy(backbone.config)
        if text_config.eos_token_id == LEGACY_END_TOKEN and isinstance(text, (str, PathLike)):
            tokenizer = CLIPTokenizer.from_pretrained(text)
            if len(tokenizer) > 2:  # as many as transformers makes of nothing
                text_config.eos_token_id = tokenizer.eos_token_id
        model = cls(ReMamberConfig(text_config=text_config, vision_config=vision_config, **config_fields))
        model.remamber.text_encoder.load_state_dict(text_encoder.state_dict())
        model.remamber.backbone.load_state_dict(backbone.state_dict())
        return model

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | list[int] | None = None,
        output_attentions: bool | None = None,
        num_images: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> ReMamberSegmentationOutput:
        """
        Args:
            pixel_values: normalized pictures (num_images, 3, height, width), any size.
            input_ids: tokens (num_expressions, text_length), padded with the end token.
            attention_mask: 1 for tokens, 0 for padding (num_expressions, text_length); by default what comes after the
                first end token is padding.
            image_index: picture of each expression (num_expressions), where pictures are shared.
            labels: masks (num_expressions, height, width) of 0 and 1, of the pictures' size; with them comes `loss`.
            output_hidden_states: whether to return `hidden_states` too, or indices of some.
            output_attentions: whether to return the `attentions` of the text encoder too.
            num_images: number of pictures that `image_index` was made for (num_expressions).
            token_type_ids: not read; tokenizers of other kinds give them, and CLIP's text has no segments.

        Returns:
            `logits` (num_expressions, 1, height, width) at the pictures' size.

        Raises:
            ValueError: if tokens, pictures, expressions or labels do not fit, see `ReMamberModel` and
                `segmentation_loss`.
        """
        outputs = self.remamber(
            pixel_values,
            input_ids,
            attention_mask=attention_mask,
            image_index=image_index,
            output_hidden_states=True,
            output_attentions=output_attentions,
            num_images=num_images,
            return_dict=True,
        )
        feature_maps = tuple(channels_last(feature_map) for feature_map in outputs.feature_maps)
        logits = self.mask_head(feature_maps, outputs.text_hidden_states)
        size = check_tensor("pixel_values", pixel_values).shape[-2:]
        logits = channels_first(resize(logits, size, align_corners=True))
        loss = None if labels is None else segmentation_loss(logits, labels)
        return ReMamberSegmentationOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def optimize_for_inference(self, compile: bool | str = False) -> "ReMamberForImageSegmentation":
        """
        Fold the batch norms of the mask head into the layers before them, in place; calling it again changes nothing.

        Logits stay equal to 1e-4. A folded model is neither trained nor saved: its weights are no longer ReMamber's.

        Args:
            compile: whether to have `torch.compile` compile the model too, at the first call for each size of picture;
                or its mode, such as "reduce-overhead": CUDA graphs, whose outputs the next call overwrites.

        Returns:
            the model itself.

        Raises:
            RuntimeError: if the model is in training mode or weights are offloaded.
        """
        if self.training:
            raise RuntimeError("A model in training mode cannot be optimized for inference; call model.eval() first.")
        if any(parameter.is_meta for parameter in self.mask_head.parameters()):
            raise RuntimeError(
                "The mask head's weights are offloaded; load the model without device_map to optimize it."
            )
        if not self.is_folded:
            with torch.no_grad():
                for module in self.mask_head.modules():
                    if isinstance(module, (ConvMixer, ConvNormReLU)):
                        fold_batch_norms(module)
            self.is_folded = True
        if compile:
            self.compile(mode=None if compile is True else compile)
        return self

    def train(self, mode: bool = True) -> "ReMamberForImageSegmentation":
        if mode and self.is_folded:
            raise RuntimeError(
                "optimize_for_inference() folded the batch norms of this model away; load it anew to train it."
            )
        return super().train(mode)

    def save_pretrained(self, save_directory: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """
        Write the model and its code as every model does, and the pipeline's code, which `config.json` then names.

        Raises:
            RuntimeError: if the batch norms are folded.
        """
        if self.is_folded:
            raise RuntimeError(
                "optimize_for_inference() folded the batch norms of this model away; save it before, or load it anew."
            )
        # What is imported here is saved with this file.
        from .pipeline_remamber import CUSTOM_PIPELINES

        vars(self.config).pop("custom_pipelines", None)
        if self.is_saved_with_code:
            self.config.custom_pipelines = deepcopy(CUSTOM_PIPELINES)
        super().save_pretrained(save_directory, *args, **kwargs)


def segmentation_loss(
    logits: torch.Tensor, labels: torch.Tensor, dice_weight: float = 1.0, cross_entropy_weight: float = 1.0
) -> torch.Tensor:
    """
    Dice plus binary cross-entropy, in float32 or more; with weights of 1 as the released code trains.

    Dice is the mean over the batch of 1 − (2·Σpq + 1) / (Σp + Σq + 1), p the probabilities and q the mask.

    Args:
        logits: (batch, 1, height, width).
        labels: (batch, height, width) or (batch, 1, height, width): 0 and 1, bool, or fractions between; any dtype.
        dice_weight, cross_entropy_weight: factors of the two.

    Raises:
        ValueError: if the two sizes differ, or labels are outside [0, 1]; see `check_values`.
    """
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"labels came as {type(labels).__name__}; give a tensor, one mask per expression.")
    if labels.shape not in (logits.shape, logits[:, 0].shape):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, logits {tuple(logits.shape)}; give one mask per expression, of "
            "the size of pixel_values."
        )
    if labels.dtype != torch.bool:
        check_values(
            ((labels >= 0) & (labels <= 1)).all(),
            "labels are not in [0, 1]: give 1 for the object and 0 for the rest.",
            lambda: (
                f"labels from {labels.min().item()} to {labels.max().item()} came; give 1 for the object and 0 for "
                "the rest, as in `labels == 255`. There is no value for pixels to be ignored."
            ),
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(1)  # (batch, height * width)
    labels = labels.to(logits.dtype).flatten(1)
    probabilities = logits.sigmoid()
    overlap = (probabilities * labels).sum(1)
    dice = 1 - (2 * overlap + 1) / (probabilities.sum(1) + labels.sum(1) + 1)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels)
    return dice_weight * dice.mean() + cross_entropy_weight * cross_entropy


__all__ = ["ReMamberForImageSegmentation", "ReMamberModel", "ReMamberPreTrainedModel"]
