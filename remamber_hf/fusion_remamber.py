# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Text into the map: the parts of ReMamber (arXiv 2403.17839) between the backbone's stages and the mask head.

Maps are (batch, height, width, channels).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_remamber import ReMamberConfig, text_config_of
from .modeling_vmamba import SS2D, convolve, resize


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
        sequence = self.ss2d(rearrange(cells, "b h w c -> b 1 c (h w)"))
        cells = rearrange(sequence, "b 1 c (h w) -> b h w c", h=self.size[0])
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
