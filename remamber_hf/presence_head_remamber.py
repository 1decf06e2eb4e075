# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Whether an expression means anything in the picture: the last fused map and the text → a logit."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .configuration_remamber import ReMamberConfig, text_config_of, vision_config_of


PRESENCE_SIZE = 256  # channels in which map and text meet, as in ReLA's head
PRIOR = 0.95  # what a head says before it has learned anything: that the object is there


class PresenceHead(nn.Module):
    """Each cell of the last fused map: norm → linear → add the text's → ReLU; mean and maximum over all → linear."""

    def __init__(self, config: ReMamberConfig):
        super().__init__()
        channels, text_channels = vision_config_of(config).hidden_sizes[-1], text_config_of(config).hidden_size
        self.map_norm = nn.LayerNorm(channels)
        self.map_proj = nn.Linear(channels, PRESENCE_SIZE)
        self.text_norm = nn.LayerNorm(text_channels)
        self.text_proj = nn.Linear(text_channels, PRESENCE_SIZE, bias=False)
        self.out_proj = nn.Linear(2 * PRESENCE_SIZE, 1)

    @torch.no_grad()
    def start_from_prior(self) -> None:
        """Make every logit that of the prior: masks of a model that had no head stay as they are."""
        init.zeros_(self.out_proj.weight)
        init.constant_(self.out_proj.bias, math.log(PRIOR / (1 - PRIOR)))

    def forward(self, feature_map: torch.Tensor, pooled_text: torch.Tensor) -> torch.Tensor:
        """
        Args:
            feature_map: the last fused map (num_expressions, height, width, channels).
            pooled_text: the text's vector, that of its end token (num_expressions, text channels).

        Returns:
            logits (num_expressions), above 0 where the expression means something; in float32 under autocast.
        """
        device = feature_map.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.forward(feature_map.float(), pooled_text.float())
        cells = feature_map.flatten(1, 2)  # (num_expressions, height * width, channels)
        text = self.text_proj(self.text_norm(pooled_text))
        fitting = F.relu(self.map_proj(self.map_norm(cells)) + text[:, None])
        return self.out_proj(torch.cat([fitting.mean(1), fitting.amax(1)], dim=-1))[:, 0]


__all__ = ["PresenceHead"]
