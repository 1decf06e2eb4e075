# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Text into the map: the Mamba Twister of ReMamber (arXiv 2403.17839) and the designs that the paper compares it with.

`FUSIONS` has one class for each value of `config.fusion`. Each is `num_fusion_blocks` blocks after a stage of the
backbone, a block is norm → branch → add, and the designs differ in the branch. Only the Twister's code was published;
docs/fusion.md says what the others follow. Maps are (batch, height, width, channels).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_remamber import ReMamberConfig, text_config_of
from .modeling_vmamba import SS2D, convolve, resize
from .selective_scan import Direction, scan_dtype, selective_scan, without_autocast


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


# ------------------------------------------------------------------------------------------------------ the Twister


class MambaTwister(nn.Module):
    """
    Concatenate map, global and local text (the cube) → channel scan → add → spatial scan back to the map's channels.

    That is `twister_scans="channel_then_spatial"`, which is published. Of the paper's other arrangements no code is;
    where no spatial scan leads back to the map's channels, a linear layer does.
    """

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        scans = config.twister_scans
        cube_size = hidden_size * (1 + config.use_global_text + config.use_local_text)
        if scans != "spatial":
            self.channel_scan = ChannelScan(config)
        if scans in ("channel", "parallel"):
            self.channel_proj = nn.Linear(cube_size, hidden_size, bias=False)
        if scans != "channel":
            self.spatial_scan = SS2D(config, hidden_size, input_size=cube_size)
        self.scan = self.SCANS[scans]

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        """Maps of one shape, the picture's first → map of that shape."""
        return self.scan(self, torch.cat(maps, dim=-1))

    def add_channel_scan(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.channel_scan(hidden_states)

    def channel_then_spatial(self, cube: torch.Tensor) -> torch.Tensor:
        return self.spatial_scan(self.add_channel_scan(cube))

    def spatial_then_channel(self, cube: torch.Tensor) -> torch.Tensor:
        return self.add_channel_scan(self.spatial_scan(cube))

    def channel(self, cube: torch.Tensor) -> torch.Tensor:
        return self.channel_proj(self.add_channel_scan(cube))

    def spatial(self, cube: torch.Tensor) -> torch.Tensor:
        return self.spatial_scan(cube)

    def parallel(self, cube: torch.Tensor) -> torch.Tensor:
        return self.channel(cube) + self.spatial(cube)

    SCANS: dict[str, Callable[["MambaTwister", torch.Tensor], torch.Tensor]] = {
        "channel_then_spatial": channel_then_spatial,
        "spatial_then_channel": spatial_then_channel,
        "parallel": parallel,
        "channel": channel,
        "spatial": spatial,
    }


class MambaTwisterBlock(GradientCheckpointingLayer):
    """
    norm of map and texts → Twister → add.

    As in the released code the text maps change too: each gets its own norm added.
    """

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.twister = MambaTwister(config, hidden_size)

    def forward(self, hidden_states: torch.Tensor, *texts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        normed_texts = [self.norm(text) for text in texts]
        twisted = self.twister(self.norm(hidden_states), *normed_texts)
        return hidden_states + twisted, *(text + normed for text, normed in zip(texts, normed_texts))


class TwisterFusion(nn.Module):
    """Global and local text → Twister blocks. Paper, section 3."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.global_text = GlobalText(config, hidden_size) if config.use_global_text else None
        self.local_text = TextImageCorrelation(config, hidden_size) if config.use_local_text else None
        self.blocks = nn.ModuleList(MambaTwisterBlock(config, hidden_size) for _ in range(config.num_fusion_blocks))

    def forward(
        self, hidden_states: torch.Tensor, tokens: torch.Tensor, pooled_text: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            hidden_states: map (batch, height, width, channels).
            tokens: the text encoder's hidden states (batch, text_length, text channels).
            pooled_text: the text in one vector (batch, text channels).
            mask: 1 for tokens, 0 for padding (batch, text_length); the Twister does not read it, as published.

        Returns:
            map of the same shape.
        """
        texts = []
        if self.global_text is not None:
            texts.append(self.global_text(pooled_text, hidden_states.shape[1:3]))
        if self.local_text is not None:
            texts.append(self.local_text(hidden_states, tokens))
        for block in self.blocks:
            hidden_states, *texts = block(hidden_states, *texts)
        return hidden_states


# ------------------------------------------------------------------------------------------- the paper's other designs


class InContextScan(SS2D):
    """
    SS2D in whose reading orders the text's tokens stand too: in_proj → depthwise convolution of the map → SiLU →
    selective scan of tokens and pixels → drop the tokens → norm → out_proj.

    `in_context_position="prefix"` has the tokens in front of the pixels in each of the four orders. "suffix" has them
    after the pixels in the orders that read forward, and in front in those that read backward; behind all pixels they
    would change nothing. "both" has them at either end. With `in_context_window` that holds for each window of so
    many pixels a side: windows follow each other as pixels do, in one sequence whose state runs on, as in SaFiRe
    (arXiv 2510.10160, section 3.3), which has the tokens behind each window.
    """

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__(config, hidden_size)
        self.position = config.in_context_position
        self.window = config.in_context_window

    def forward(  # type: ignore[override]  # it has text to read besides
        self, hidden_states: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Map (batch, height, width, channels), tokens (batch, length, channels), their mask → such a map."""
        pixels = F.silu(convolve(self.conv, self.in_proj(hidden_states)))
        y = self.scan(pixels, F.silu(self.in_proj(tokens)), mask)
        return self.out_proj(self.out_norm(y).to(pixels.dtype))

    def scan(self, pixels: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Inner map, inner tokens and their mask → sum of the four scans, float32 of the map's shape."""
        height, width = pixels.shape[1:3]
        window = (min(self.window, height) or height, min(self.window, width) or width)
        is_read = mask.bool().new_ones(mask.shape[0], height, width, 1)
        padding = (0, 0, 0, -width % window[1], 0, -height % window[0])
        if any(padding):
            pixels, is_read = F.pad(pixels, padding), F.pad(is_read, padding)
        pixel_parts, token_parts = (self.project(inputs).unbind(-2) for inputs in (pixels, tokens))
        dtype = scan_dtype(pixels)
        inputs, parts, reads = [], [], []
        for index, direction in enumerate(Direction):
            inputs.append(self.join(pixels, tokens, window, direction))
            parts.append(self.join(pixel_parts[index], token_parts[index], window, direction))
            reads.append(self.join(is_read, mask.bool().unsqueeze(-1), window, direction))
        u = torch.stack(inputs, dim=1).to(dtype)  # (batch, directions, length, channels)
        rank, state_size = self.dt_proj_weight.shape[-1], self.A_log.shape[-1]
        with without_autocast(pixels):
            dt, B, C = torch.stack(parts, dim=1).to(dtype).split([rank, state_size, state_size], dim=-1)
            delta = torch.einsum("bklr,kdr->bkld", dt, self.dt_proj_weight.to(dtype))
            delta = F.softplus(delta + self.dt_proj_bias.to(dtype).unsqueeze(1))
            # A step of no length leaves the state alone: so do padding, and what fills the last windows up.
            delta = delta.masked_fill(~torch.stack(reads, dim=1), 0)
            y = selective_scan(
                rearrange(u, "b k l d -> b (k d) l"),
                rearrange(delta, "b k l d -> b (k d) l"),
                -torch.exp(self.A_log.to(dtype)),
                rearrange(B, "b k l n -> b k n l"),
                rearrange(C, "b k l n -> b k n l"),
                self.D.to(dtype),
                backend=self.scan_backend,
            )
        sequences = rearrange(y, "b (k d) l -> k b l d", k=len(Direction))
        maps = [
            self.take_map(sequence, tokens.shape[1], (pixels.shape[1], pixels.shape[2]), window, direction)
            for sequence, direction in zip(sequences, Direction)
        ]
        return torch.stack(maps).sum(0)[:, :height, :width]

    def project(self, inputs: torch.Tensor) -> torch.Tensor:
        """(…, channels) → for each direction what its scan makes of it: (…, directions, time-step rank + 2·N)."""
        weight = self.x_proj_weight.to(inputs.dtype)
        return F.linear(inputs, weight.flatten(0, 1)).unflatten(-1, weight.shape[:2])

    def has_tokens(self, direction: Direction) -> tuple[bool, bool]:
        """Whether tokens stand in front of and after the pixels of a window."""
        if self.position == "both":
            return True, True
        is_front = self.position == "prefix" or direction.is_reversed
        return is_front, not is_front

    def join(
        self, pixels: torch.Tensor, tokens: torch.Tensor, window: tuple[int, int], direction: Direction
    ) -> torch.Tensor:
        """Map (batch, height, width, channels) and tokens (batch, length, channels) → (batch, steps, channels)."""
        windows = read_windows(pixels, window, direction)
        repeated = tokens.unsqueeze(1).expand(-1, windows.shape[1], -1, -1)
        front, back = self.has_tokens(direction)
        return torch.cat([repeated] * front + [windows] + [repeated] * back, dim=2).flatten(1, 2)

    def take_map(
        self,
        sequence: torch.Tensor,
        num_tokens: int,
        size: tuple[int, int],
        window: tuple[int, int],
        direction: Direction,
    ) -> torch.Tensor:
        """The map in what `join` returns."""
        start = num_tokens * self.has_tokens(direction)[0]
        num_windows = (size[0] // window[0]) * (size[1] // window[1])
        windows = sequence.unflatten(1, (num_windows, -1))[:, :, start : start + window[0] * window[1]]
        return write_windows(windows, size, window, direction)


WINDOWS = {False: "b (i h) (j w) c -> b (i j) (h w) c", True: "b (i h) (j w) c -> b (j i) (w h) c"}  # is_column


def read_windows(pixels: torch.Tensor, window: tuple[int, int], direction: Direction) -> torch.Tensor:
    """
    Windows of a map (batch, height, width, channels), and the pixels in each, in the order of `direction`: (batch,
    windows, pixels, channels). `window` is (height, width), of which the map's size is a multiple.
    """
    windows = rearrange(pixels, WINDOWS[direction.is_column], h=window[0], w=window[1])
    return windows.flip(1, 2) if direction.is_reversed else windows


def write_windows(
    windows: torch.Tensor, size: tuple[int, int], window: tuple[int, int], direction: Direction
) -> torch.Tensor:
    """What `read_windows` read from a map of that size, back in its place."""
    windows = windows.flip(1, 2) if direction.is_reversed else windows
    pattern = " -> ".join(reversed(WINDOWS[direction.is_column].split(" -> ")))
    return rearrange(windows, pattern, h=window[0], w=window[1], i=size[0] // window[0], j=size[1] // window[1])


class InContextBlock(GradientCheckpointingLayer):
    """norm of map and tokens → scan of both → add to the map."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.in_context_scan = InContextScan(config, hidden_size)

    def forward(self, hidden_states: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.in_context_scan(self.norm(hidden_states), self.norm(tokens), mask)


class InContextFusion(nn.Module):
    """In-context conditioning: a linear layer brings the tokens to the map's channels → blocks that scan both."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.text_proj = nn.Linear(text_config_of(config).hidden_size, hidden_size)
        self.blocks = nn.ModuleList(InContextBlock(config, hidden_size) for _ in range(config.num_fusion_blocks))

    def forward(
        self, hidden_states: torch.Tensor, tokens: torch.Tensor, pooled_text: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """As [`TwisterFusion`]; it does not read the pooled text."""
        tokens = self.text_proj(tokens)
        for block in self.blocks:
            hidden_states = block(hidden_states, tokens, mask)
        return hidden_states


class CrossAttention(nn.Module):
    """Multi-head attention in which the map asks and the tokens answer; padding does not answer."""

    HEAD_SIZE = 32  # channels

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        text_size = text_config_of(config).hidden_size
        inner_size = math.ceil(hidden_size / self.HEAD_SIZE) * self.HEAD_SIZE
        self.q_proj = nn.Linear(hidden_size, inner_size, bias=False)
        self.k_proj = nn.Linear(text_size, inner_size, bias=False)
        self.v_proj = nn.Linear(text_size, inner_size, bias=False)
        self.out_proj = nn.Linear(inner_size, hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map (batch, height, width, channels), tokens (batch, length, text channels), their mask → such a map."""
        height = hidden_states.shape[1]
        queries = rearrange(self.q_proj(hidden_states), "b h w (n d) -> b n (h w) d", d=self.HEAD_SIZE)
        keys = rearrange(self.k_proj(tokens), "b t (n d) -> b n t d", d=self.HEAD_SIZE)
        values = rearrange(self.v_proj(tokens), "b t (n d) -> b n t d", d=self.HEAD_SIZE)
        answers = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask.bool()[:, None, None])
        return self.out_proj(rearrange(answers, "b n (h w) d -> b h w (n d)", h=height))


class CrossAttentionBlock(GradientCheckpointingLayer):
    """norm → cross-attention → add, then norm → SS2D → add."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.attention = CrossAttention(config, hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)
        self.spatial_scan = SS2D(config, hidden_size)

    def forward(self, hidden_states: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states + self.attention(self.norm(hidden_states), tokens, mask)
        return hidden_states + self.spatial_scan(self.norm2(hidden_states))


class CrossAttentionFusion(nn.Module):
    """Attention-based conditioning: blocks in which the map attends to the tokens and is scanned."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.blocks = nn.ModuleList(CrossAttentionBlock(config, hidden_size) for _ in range(config.num_fusion_blocks))

    def forward(
        self, hidden_states: torch.Tensor, tokens: torch.Tensor, pooled_text: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """As [`TwisterFusion`]; it does not read the pooled text."""
        for block in self.blocks:
            hidden_states = block(hidden_states, tokens, mask)
        return hidden_states


class NormAdaptationBlock(GradientCheckpointingLayer):
    """
    norm → scale and shift → SS2D → gate → add; the pooled text makes scale, shift and gate.

    adaLN-Zero of DiT (arXiv 2212.09748, section 3.2), which SaFiRe (section 3.2) brings to VMamba: the norm has no
    weights of its own, and the three start at 0, so that a new block passes the map on as it is.
    """

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps, elementwise_affine=False)
        self.adaptation = nn.Linear(text_config_of(config).hidden_size, 3 * hidden_size)
        self.spatial_scan = SS2D(config, hidden_size)

    def forward(self, hidden_states: torch.Tensor, pooled_text: torch.Tensor) -> torch.Tensor:
        scale, shift, gate = self.adaptation(F.silu(pooled_text))[:, None, None].chunk(3, dim=-1)
        adapted = self.norm(hidden_states) * (1 + scale) + shift
        return hidden_states + gate * self.spatial_scan(adapted)


class NormAdaptationFusion(nn.Module):
    """Norm adaptation: blocks whose norms the pooled text scales, shifts and gates."""

    def __init__(self, config: ReMamberConfig, hidden_size: int):
        super().__init__()
        self.blocks = nn.ModuleList(NormAdaptationBlock(config, hidden_size) for _ in range(config.num_fusion_blocks))

    def forward(
        self, hidden_states: torch.Tensor, tokens: torch.Tensor, pooled_text: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """As [`TwisterFusion`]; it reads the pooled text only."""
        for block in self.blocks:
            hidden_states = block(hidden_states, pooled_text)
        return hidden_states


FUSIONS: dict[str, Callable[[ReMamberConfig, int], nn.Module]] = {
    "twister": TwisterFusion,
    "in_context": InContextFusion,
    "cross_attention": CrossAttentionFusion,
    "norm_adaptation": NormAdaptationFusion,
}
