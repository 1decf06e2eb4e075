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

from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from os import PathLike

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from transformers.backbone_utils import filter_output_hidden_states
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.utils.generic import can_return_tuple

from .configuration_remamber import ReMamberConfig
from .modeling_vmamba import (
    SS2D,
    ChannelsLastConv2d,
    VMambaModel,
    VMambaPreTrainedModel,
    channels_first,
    channels_last,
)


def resize(hidden_states: torch.Tensor, size: tuple[int, int], align_corners: bool) -> torch.Tensor:
    """Resize a map (batch, height, width, channels) bilinearly to `size` (height, width)."""
    resized = F.interpolate(channels_first(hidden_states), size, mode="bilinear", align_corners=align_corners)
    return channels_last(resized)


def double(hidden_states: torch.Tensor, align_corners: bool) -> torch.Tensor:
    """Resize a map (batch, height, width, channels) bilinearly to twice its size."""
    height, width = hidden_states.shape[1:3]
    return resize(hidden_states, (2 * height, 2 * width), align_corners)


class ChannelsLastBatchNorm2d(nn.BatchNorm2d):
    """
    Batch norm of a map (batch, height, width, channels).

    A single pixel has no variance: in training, a batch of one picture on a 1×1 map uses the running statistics.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.training and hidden_states[..., 0].numel() == 1:
            normalized = F.batch_norm(
                channels_first(hidden_states),
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                eps=self.eps,
            )
        else:
            normalized = super().forward(channels_first(hidden_states))
        return channels_last(normalized)


def fold_batch_norms(module: nn.Module) -> None:
    """Fold the batch norms of `module` into the layers before them, as its `batch_norms` (layer: norm) says."""
    for layer_name, norm_name in module.batch_norms.items():
        layer, norm = module.get_submodule(layer_name), module.get_submodule(norm_name)
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
        self.text_proj = nn.Linear(config.text_config.hidden_size, config.correlation_size)
        self.conv = ChannelsLastConv2d(config.text_length, config.correlation_size, 3, padding=1)
        self.out_proj = nn.Linear(config.correlation_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor, text_hidden_states: torch.Tensor) -> torch.Tensor:
        """
        Map (batch, height, width, channels) and tokens (batch, text_length, text channels) → map of the same shape.
        """
        vision = F.gelu(self.vision_proj(hidden_states))
        text = F.gelu(self.text_proj(text_hidden_states))
        correlation = torch.einsum("bhwc,btc->bhwt", vision, text)
        return self.out_proj(F.gelu(self.conv(correlation)))


class GlobalText(nn.Module):
    """Linear → ReLU of one text vector, repeated over a map."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.proj = nn.Linear(config.text_config.hidden_size, hidden_size)

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


class ResizedConv2d(ChannelsLastConv2d):
    """
    Resize → concatenate another map → 3×3 convolution.

    Each of the kernel's nine entries is a linear layer, and a linear layer and a resize commute. On a CPU the wide
    convolutions, and those to one channel, run before the resize, on fewer pixels; the nine results are then resized,
    moved and summed.
    """

    def __init__(self, input_size: int, output_size: int, bias: bool = True):
        super().__init__(input_size, output_size, 3, padding=1, bias=bias)

    def forward(
        self, hidden_states: torch.Tensor, size: tuple[int, int] | None = None, skip: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Map (batch, height, width, channels), resized to `size` if that is given, and `skip`, of that size → map of it.
        """
        if size is not None:
            if self._is_cheaper_before_resize(hidden_states):
                return self._convolve_before_resize(hidden_states, size, skip)
            hidden_states = resize(hidden_states, size, align_corners=True)
        return super().forward(hidden_states if skip is None else torch.cat([hidden_states, skip], dim=-1))

    def _is_cheaper_before_resize(self, hidden_states: torch.Tensor) -> bool:
        if hidden_states.device.type != "cpu":
            return False
        if self.weight.dtype.itemsize < 4 or torch.is_autocast_enabled("cpu"):
            return False  # in half precision each of the nine results would be rounded
        return self.out_channels == 1 or hidden_states.shape[-1] >= COMMUTED_CHANNELS

    def _convolve_before_resize(self, hidden_states, size, skip):
        channels = hidden_states.shape[-1]
        if skip is None:
            bias = hidden_states.new_zeros(self.out_channels) if self.bias is None else self.bias
            output = bias.repeat(len(hidden_states), *size, 1)
        else:
            skip_weight = self.weight[:, channels:]
            output = channels_last(F.conv2d(channels_first(skip), skip_weight, self.bias, padding=1))
        weight = self.weight[:, :channels].permute(2, 3, 0, 1).flatten(0, 2)  # (9 * output channels, channels)
        parts = F.linear(hidden_states, weight)
        if self.out_channels == 1:  # nine values per pixel are resized together, nine wide maps one after the other
            resized = resize(parts, size, align_corners=True).split(1, dim=-1)
        else:
            resized = (resize(part, size, align_corners=True) for part in parts.chunk(9, dim=-1))
        for (rows, columns), part in zip(product(KERNEL_MOVES, repeat=2), resized):
            output[:, rows[0], columns[0]] += part[:, rows[1], columns[1]]
        return output


class ConvMixer(nn.Module):
    """linear → batch norm → hard swish → depthwise 3×3 → batch norm → hard swish → linear → batch norm."""

    batch_norms = {"in_proj": "in_norm", "conv": "conv_norm", "out_proj": "out_norm"}

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.in_proj = nn.Linear(input_size, input_size, bias=False)
        self.in_norm = ChannelsLastBatchNorm2d(input_size)
        self.conv = ChannelsLastConv2d(input_size, input_size, 3, padding=1, groups=input_size, bias=False)
        self.conv_norm = ChannelsLastBatchNorm2d(input_size)
        self.out_proj = nn.Linear(input_size, hidden_size, bias=False)
        self.out_norm = ChannelsLastBatchNorm2d(hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = F.hardswish(self.in_norm(self.in_proj(hidden_states)))
        hidden_states = F.hardswish(self.conv_norm(self.conv(hidden_states)))
        return self.out_norm(self.out_proj(hidden_states))


class ConvNormReLU(nn.Sequential):
    """3×3 convolution, with the resize before it → batch norm → ReLU."""

    batch_norms = {"0": "1"}

    def __init__(self, input_size: int, output_size: int, bias: bool = True):
        super().__init__(ResizedConv2d(input_size, output_size, bias), ChannelsLastBatchNorm2d(output_size), nn.ReLU())

    def forward(self, hidden_states: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        """Takes what `ResizedConv2d` takes."""
        convolution, norm, relu = self
        return relu(norm(convolution(hidden_states, *args, **kwargs)))


class ConvMaskHead(nn.Module):
    """From the coarsest map up: mixer → ×2 → concatenate the next map, three times; then the neck to logits."""

    def __init__(self, config: ReMamberConfig):
        super().__init__()
        stage1, stage2, stage3, stage4 = config.vision_config.hidden_sizes
        width = config.conv_head_ratio * stage1
        self.mixers = nn.ModuleList(ConvMixer(size, width) for size in (stage4, width + stage3, width + stage2))
        self.neck = nn.ModuleList([ConvNormReLU(width + stage1, width), ConvNormReLU(width, width)])
        self.classifier = ResizedConv2d(width, 1)

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
        return self.classifier(hidden_states, (4 * height, 4 * width))


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
        if skip is None:
            return self.upsample_norm(double(hidden_states, align_corners=True))
        hidden_states = self.upsample_norm(resize(hidden_states, skip.shape[1:3], align_corners=True))
        return self.skip_fusion(torch.cat([hidden_states, skip], dim=-1)) + skip


class MambaMaskHead(nn.Module):
    """Four levels from the coarsest map up, then ×2 → convolution → batch norm → ReLU → convolution to logits."""

    def __init__(self, config: ReMamberConfig):
        super().__init__()
        hidden_sizes = config.vision_config.hidden_sizes[::-1]
        self.levels = nn.ModuleList(
            MambaDecoderLevel(config, hidden_size, depth, has_skip=level < len(hidden_sizes) - 1)
            for level, (hidden_size, depth) in enumerate(zip(hidden_sizes, config.decoder_depths))
        )
        width = hidden_sizes[-1] // 2
        self.neck = ConvNormReLU(width, width, bias=False)
        self.classifier = ResizedConv2d(width, 1)

    def forward(self, feature_maps: tuple[torch.Tensor, ...], text_hidden_states: torch.Tensor) -> torch.Tensor:
        """Four maps (batch, height, width, channels), fine to coarse → logits (batch, height, width, 1), stride 1."""
        *skips, hidden_states = feature_maps
        for level, skip in zip(self.levels, [*reversed(skips), None]):
            hidden_states = level(hidden_states, text_hidden_states, skip)
        return self.classifier(self.neck(double(hidden_states, align_corners=False)))


MASK_HEADS = {"conv": ConvMaskHead, "mamba": MambaMaskHead}


# ------------------------------------------------------------------------------------------------------- the models


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
    config: ReMamberConfig
    base_model_prefix = "remamber"
    _auto_map = {
        "AutoModel": "modeling_remamber.ReMamberModel",
        "AutoModelForImageSegmentation": "modeling_remamber.ReMamberForImageSegmentation",
    }
    input_modalities = ("image", "text")
    _no_split_modules = [
        "VSSBlock",
        "MambaTwisterBlock",
        "MambaDecoderBlock",
        "TextImageCorrelation",
        "ConvMixer",
        "CLIPEncoderLayer",
        "CLIPTextEmbeddings",
    ]


class ReMamberModel(ReMamberPreTrainedModel):
    """Text encoder and VMamba backbone, the text fused into the map after every stage."""

    def __init__(self, config: ReMamberConfig):
        super().__init__(config)
        config.vision_config.scan_backend = config.scan_backend
        self.text_encoder = CLIPTextModel(config.text_config)
        self.backbone = VMambaModel(config.vision_config)
        self.fusions = nn.ModuleList(TextFusion(config, size) for size in config.vision_config.hidden_sizes)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.text_encoder.set_input_embeddings(value)

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        output_hidden_states: bool | list[int] | None = None,
        output_attentions: bool | None = None,
    ) -> ReMamberModelOutput:
        """
        Args:
            pixel_values: normalized pictures (num_images, 3, height, width), any size.
            input_ids: tokens (num_expressions, text_length), padded with the end token.
            attention_mask: 1 for tokens, 0 for padding (num_expressions, text_length). Only the text encoder reads it.
            image_index: picture of each expression (num_expressions); what does not depend on the text runs once per
                picture. Without it there is one picture per expression.
            output_hidden_states: whether to return `hidden_states` too, or indices of some.
            output_attentions: whether to return the `attentions` of the text encoder too.

        Raises:
            ValueError: if the numbers of tokens, or of pictures and expressions, do not fit.
        """
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        num_images, num_expressions = len(pixel_values), len(input_ids)
        if input_ids.shape[-1] != self.config.text_length:
            raise ValueError(
                f"input_ids has {input_ids.shape[-1]} tokens per expression, the model reads exactly "
                f"{self.config.text_length} (config.text_length); pad or cut them as ReMamberProcessor does."
            )
        if image_index is None and num_images != num_expressions:
            raise ValueError(
                f"{num_images} pictures came with {num_expressions} expressions; give one picture per expression or "
                "image_index, the picture of each expression."
            )
        if image_index is not None and len(image_index) != num_expressions:
            raise ValueError(
                f"image_index has {len(image_index)} entries for {num_expressions} expressions; give one for each."
            )
        if attention_mask is not None:
            # Left to itself the text encoder looks whether all are 1, and a GPU runs dry until the answer is there.
            like_embeddings = input_ids.new_empty((*input_ids.shape, 0), dtype=self.text_encoder.dtype)
            attention_mask = create_causal_mask(
                self.text_encoder.config,
                like_embeddings,
                attention_mask,
                past_key_values=None,
                allow_is_causal_skip=False,
            )
        text = self.text_encoder(
            input_ids=input_ids, attention_mask=attention_mask, output_attentions=output_attentions
        )

        maps = [channels_first(self.backbone.stem(pixel_values))]
        hidden_states = channels_last(maps[-1])  # goes on from what is returned, so that the two have one gradient
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
        cls, text: str | PathLike | CLIPTextModel, vision: str | PathLike | VMambaModel, **config_fields
    ) -> "ReMamberForImageSegmentation":
        """
        A model to train: pretrained text encoder and backbone, fresh fusion and mask head.

        Args:
            text: a CLIP text model, or the name or folder of one or of a whole CLIP.
            vision: a VMamba backbone, or the name or folder of one or of a VMamba classifier.
            config_fields: fields of [`ReMamberConfig`], such as `mask_head`.
        """
        if isinstance(text, (str, PathLike)):
            text = CLIPTextModel.from_pretrained(text)
        if isinstance(vision, (str, PathLike)):
            vision = VMambaModel.from_pretrained(vision)
        configs = {"text_config": deepcopy(text.config), "vision_config": deepcopy(vision.config)}
        model = cls(ReMamberConfig(**configs, **config_fields))
        model.remamber.text_encoder.load_state_dict(text.state_dict())
        model.remamber.backbone.load_state_dict(vision.state_dict())
        return model

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | list[int] | None = None,
        output_attentions: bool | None = None,
    ) -> ReMamberSegmentationOutput:
        """
        Args:
            pixel_values: normalized pictures (num_images, 3, height, width), any size.
            input_ids: tokens (num_expressions, text_length), padded with the end token.
            attention_mask: 1 for tokens, 0 for padding (num_expressions, text_length).
            image_index: picture of each expression (num_expressions), where pictures are shared.
            labels: masks (num_expressions, height, width) of 0 and 1, of the pictures' size; with them comes `loss`.
            output_hidden_states: whether to return `hidden_states` too, or indices of some.
            output_attentions: whether to return the `attentions` of the text encoder too.

        Returns:
            `logits` (num_expressions, 1, height, width) at the pictures' size.

        Raises:
            ValueError: if the numbers of tokens, pictures, expressions or the size of `labels` do not fit.
        """
        outputs = self.remamber(
            pixel_values,
            input_ids,
            attention_mask=attention_mask,
            image_index=image_index,
            output_hidden_states=True,
            output_attentions=output_attentions,
        )
        feature_maps = tuple(channels_last(feature_map) for feature_map in outputs.feature_maps)
        logits = self.mask_head(feature_maps, outputs.text_hidden_states)
        logits = channels_first(resize(logits, pixel_values.shape[-2:], align_corners=True))
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

    def save_pretrained(self, save_directory: str | PathLike, *args, **kwargs):
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
        labels: (batch, height, width) or (batch, 1, height, width) of 0 and 1, any dtype.
        dice_weight, cross_entropy_weight: factors of the two.

    Raises:
        ValueError: if the two sizes differ.
    """
    if len(labels) != len(logits) or labels.shape[-2:] != logits.shape[-2:]:
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, logits {tuple(logits.shape)}; give one mask per expression, of "
            "the size of pixel_values."
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(1)  # (batch, height * width)
    labels = labels.to(logits.dtype).flatten(1)
    probabilities = logits.sigmoid()
    overlap = (probabilities * labels).sum(1)
    dice = 1 - (2 * overlap + 1) / (probabilities.sum(1) + labels.sum(1) + 1)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels)
    return dice_weight * dice.mean() + cross_entropy_weight * cross_entropy


__all__ = ["ReMamberForImageSegmentation", "ReMamberModel", "ReMamberPreTrainedModel"]
