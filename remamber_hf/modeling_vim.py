# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Vision Mamba, Vim (arXiv 2401.09417), inside out: mixer, block, embeddings, model, backbone, classifier.

Tokens are (batch, length, channels): the patches row by row, and the class tokens among them.
"""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

import math
import reprlib
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)
from transformers.utils.generic import TransformersKwargs, can_return_tuple

from .bidirectional_scan import NUM_DIRECTIONS, bidirectional_scan
from .causal_conv import check_conv_backend_name
from .configuration_vim import VimConfig
from .modeling_scan import DropPath, ScanModule, ScanPreTrainedModel, check_keywords, check_pixel_values


class VimRMSNorm(nn.RMSNorm):
    """RMS norm of the residual stream in its own type, returned in that of the weight."""

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        normed = F.rms_norm(residual, self.normalized_shape, self.weight.to(residual.dtype), self.eps)
        return normed.to(self.weight.dtype)


class VimMixer(ScanModule):
    """
    in_proj → forward and backward, each causal convolution → SiLU → selective scan → mean of both → gate → out_proj.

    The gate is SiLU of in_proj's second half, the same for both directions, so it is applied once.
    """

    def __init__(self, config: VimConfig):
        super().__init__(config, config.hidden_size, NUM_DIRECTIONS)
        self.conv_backend = "auto"
        self.in_proj = nn.Linear(config.hidden_size, 2 * self.inner_size, bias=False)
        num_channels = NUM_DIRECTIONS * self.inner_size
        # Weights, not a module: what an adapter would put around that is never called.
        self.conv_weight = nn.Parameter(torch.empty(num_channels, config.conv_kernel_size))
        self.conv_bias = nn.Parameter(torch.empty(num_channels)) if config.use_conv_bias else None
        self.out_proj = nn.Linear(self.inner_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(batch, length, hidden_size) → (batch, length, hidden_size)."""
        x, gate = self.in_proj(hidden_states).chunk(2, dim=-1)
        y = bidirectional_scan(
            x,
            self.conv_weight,
            self.conv_bias,
            self.x_proj_weight,
            self.dt_proj_weight,
            self.dt_proj_bias,
            self.A_log,
            self.D,
            scan_backend=self.scan_backend,
            conv_backend=self.conv_backend,
        )
        return self.out_proj(y.to(gate.dtype) * F.silu(gate) / NUM_DIRECTIONS)


class VimBlock(GradientCheckpointingLayer):
    """norm → mixer → drop path → add. Returns the residual stream, and what the mixer returned."""

    def __init__(self, config: VimConfig, drop_path_rate: float):
        super().__init__()
        self.norm = VimRMSNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mixer = VimMixer(config)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mixed = self.mixer(self.norm(residual))
        return residual + self.drop_path(mixed), mixed


class VimEmbeddings(nn.Module):
    """Patch convolution → tokens → class tokens among them → positions, interpolated to the picture's size."""

    def __init__(self, config: VimConfig):
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, stride=config.stride or config.patch_size
        )
        # A grid, not a sequence: one of another shape has another meaning, though it may have as many patches.
        self.position_embedding = nn.Parameter(torch.empty(1, *config.grid_size, config.hidden_size))
        if config.num_class_tokens:
            shape = (1, config.num_class_tokens, config.hidden_size)
            self.class_token = nn.Parameter(torch.empty(shape))
            self.class_position_embedding = nn.Parameter(torch.empty(shape))

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """(batch, num_channels, height, width) → tokens (batch, length, channels), and the patches down and across."""
        check_pixel_values(pixel_values, self.config.num_channels)
        height, width = pixel_values.shape[2:]
        if height < self.config.patch_size or width < self.config.patch_size:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; height and width must be at least a patch, "
                f"{self.config.patch_size} pixels."
            )
        maps = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))
        grid_size = (maps.shape[2], maps.shape[3])
        patches = maps.flatten(2).mT + self.interpolate_positions(grid_size)
        if not self.config.num_class_tokens:
            return patches, grid_size
        class_tokens = (self.class_token + self.class_position_embedding).expand(patches.shape[0], -1, -1)
        return insert_class_tokens(patches, class_tokens, self.config.class_token_places(patches.shape[1])), grid_size

    def interpolate_positions(self, grid_size: tuple[int, int]) -> torch.Tensor:
        """Positions of patches, bicubically from the grid that was learned; a class token's place is no part of it."""
        learned = self.config.grid_size
        # Compiled or exported, nothing is asked: the answer would hold for all sizes. Resizing to the same is exact.
        if not torch.compiler.is_compiling() and grid_size == learned:
            return self.position_embedding.flatten(1, 2)
        grid = self.position_embedding.permute(0, 3, 1, 2)
        grid = grid.to(torch.promote_types(grid.dtype, torch.float32))
        resized = F.interpolate(grid, grid_size, mode="bicubic", align_corners=False)
        return resized.flatten(2).mT.to(self.position_embedding.dtype)


def insert_class_tokens(patches: torch.Tensor, class_tokens: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Tokens (batch, length, channels), each class token behind as many patches as its place says."""
    pieces, start = [], 0
    for index, place in enumerate(places):
        pieces += [patches[:, start:place], class_tokens[:, index : index + 1]]
        start = place
    return torch.cat([*pieces, patches[:, start:]], dim=1)


def split_class_tokens(tokens: torch.Tensor, places: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches and class tokens that `insert_class_tokens` put together."""
    if not places:
        return tokens, tokens[:, :0]
    starts = [0] + [place + index + 1 for index, place in enumerate(places)]
    ends = [place + index for index, place in enumerate(places)] + [tokens.shape[1]]
    patches = torch.cat([tokens[:, start:end] for start, end in zip(starts, ends)], dim=1)
    return patches, torch.cat([tokens[:, end : end + 1] for end in ends[:-1]], dim=1)


class VimPreTrainedModel(ScanPreTrainedModel):
    """What every Vim has: initial values, and where its convolutions run."""

    config: VimConfig
    base_model_prefix = "vim"
    _no_split_modules = ["VimBlock"]
    _input_embed_layer = "patch_embedding"
    _auto_map = {
        "AutoModel": "modeling_vim.VimModel",
        "AutoBackbone": "modeling_vim.VimBackbone",
        "AutoModelForImageClassification": "modeling_vim.VimForImageClassification",
    }

    def find_asked(self, keywords: TransformersKwargs) -> set[int] | None:
        """
        Which hidden states a call asks for, of the stream before the first block and after each; `None` for none.

        Unlike transformers' own way, which puts hooks on the blocks, it leaves the model as it was.
        """
        asked: Any = keywords.get("output_hidden_states", self.config.output_hidden_states)
        count = self.config.num_hidden_layers + 1
        if asked is None or isinstance(asked, bool):
            return set(range(count)) if asked else None
        indices = [asked] if isinstance(asked, int) else asked
        if not isinstance(indices, (list, tuple)) or not all(
            isinstance(index, int) and -count <= index < count for index in indices
        ):
            raise ValueError(
                f"output_hidden_states is {reprlib.repr(asked)}; give true or false, or indices from {-count} to "
                f"{count - 1}."
            )
        return {index % count for index in indices}

    def set_conv_backend(self, name: str) -> None:
        """
        Choose the implementation of every causal convolution of the model.

        It holds for this object and is not saved, as [`~VimPreTrainedModel.set_scan_backend`] does.

        Args:
            name: `"auto"`, which on a CPU is the C++ kernel where the scan takes its own, or a name from
                `causal_conv.CONV_BACKENDS`.

        Raises:
            ValueError: if the backend is unknown.
        """
        check_conv_backend_name(name)
        for module in self.modules():
            if isinstance(module, VimMixer):
                module.conv_backend = name

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As published: patches by LeCun, Mamba's own values in a mixer, whose output shrinks with the depth."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.lecun_normal_(module.weight)
        elif isinstance(module, VimEmbeddings):
            for name in ("position_embedding", "class_token", "class_position_embedding"):
                if hasattr(module, name):
                    init.trunc_normal_(getattr(module, name), std=self.config.initializer_range)
        elif isinstance(module, VimMixer):
            bound = self.config.conv_kernel_size**-0.5
            init.uniform_(module.conv_weight, -bound, bound)
            if module.conv_bias is not None:
                init.uniform_(module.conv_bias, -bound, bound)
            in_bound, out_bound = self.config.hidden_size**-0.5, module.inner_size**-0.5
            out_bound /= math.sqrt(self.config.num_hidden_layers)
            init.uniform_(module.in_proj.weight, -in_bound, in_bound)
            init.uniform_(module.out_proj.weight, -out_bound, out_bound)


class HiddenStates:
    """The streams that a call asks for, by their indices, and `None` in place of the others."""

    def __init__(self, asked: set[int] | None, first: torch.Tensor):
        self.asked = asked
        self.kept: list[Any] = []
        self.append(first)

    def append(self, stream: torch.Tensor) -> None:
        if self.asked is not None:
            self.kept.append(stream if len(self.kept) in self.asked else None)

    def as_tuple(self) -> tuple[torch.Tensor, ...] | None:
        return None if self.asked is None else tuple(self.kept)


class VimModel(VimPreTrainedModel):
    """Embeddings → blocks → norm."""

    def __init__(self, config: VimConfig):
        super().__init__(config)
        # Linear from 0 to drop_path_rate over the blocks, without tensors: __init__ runs on the meta device.
        step = config.drop_path_rate / max(config.num_hidden_layers - 1, 1)
        self.embeddings = VimEmbeddings(config)
        self.layers = nn.ModuleList(VimBlock(config, step * block) for block in range(config.num_hidden_layers))
        self.norm = VimRMSNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def embed(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """The residual stream as it enters the first block, in float32 at least, and the grid of patches."""
        tokens, grid_size = self.embeddings(pixel_values)
        return tokens.to(torch.promote_types(tokens.dtype, torch.float32)), grid_size

    def split(self, tokens: torch.Tensor, grid_size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (batch, length, channels) → patches and class tokens, (batch, number, channels) both."""
        return split_class_tokens(tokens, self.config.class_token_places(grid_size[0] * grid_size[1]))

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutputWithPoolingAndNoAttention:
        """
        Args:
            pixel_values: normalized pictures (batch, num_channels, height, width), any size from a patch on. Pixels at
                the right and at the bottom that fill no patch are not seen.
            kwargs: `output_hidden_states`, whether to return the residual stream (batch, length, hidden_size) before
                the first block and after each, or indices of some; and `return_dict`.

        Returns:
            `last_hidden_state` (batch, length, hidden_size), all tokens after the norm; `pooler_output` (batch,
            hidden_size), of these the class token, the mean of both class tokens or, without one, of all patches; and,
            if asked for, `hidden_states`, in float32.

        Raises:
            ValueError: if the pictures have another number of channels than the config, or are smaller than a patch.
            TypeError: for other keywords than transformers'.
        """
        check_keywords(kwargs)
        asked = self.find_asked(kwargs)
        residual, grid_size = self.embed(pixel_values)
        streams = HiddenStates(asked, residual)
        for block in self.layers:
            residual, _ = block(residual)
            streams.append(residual)
        tokens = self.norm(residual)
        patches, class_tokens = self.split(tokens, grid_size)
        pooled = (class_tokens if self.config.num_class_tokens else patches).mean(dim=1)
        return BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=tokens, pooler_output=pooled, hidden_states=streams.as_tuple()
        )


class VimBackbone(BackboneMixin, VimModel):
    """
    Vim as a backbone for AutoBackbone: the maps of the blocks named in `config.out_features`.

    A map is of the patches after a block, without class tokens: of the residual stream, normed or not, or of what the
    mixer returned, as the config says.
    """

    has_attentions = False

    def __init__(self, config: VimConfig):
        super().__init__(config)
        self.num_features = [config.hidden_size] * (config.num_hidden_layers + 1)
        # What no map comes from is neither computed nor trained: a weight without a gradient stops DDP.
        self.layers[self.num_used_layers :].requires_grad_(False)
        if not config.apply_layernorm:
            self.norm.requires_grad_(False)

    @property
    def num_used_layers(self) -> int:
        """Blocks up to the last one whose map is asked for."""
        return max(self.stage_names.index(name) for name in self.out_features)

    @can_return_tuple
    def forward(self, pixel_values: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> BackboneOutput:
        """
        Args:
            pixel_values, kwargs: as `VimModel` takes them.

        Returns:
            `feature_maps`, one (batch, hidden_size, height / stride, width / stride) per entry of `out_features`.
        """
        check_keywords(kwargs)
        asked = self.find_asked(kwargs)
        residual, grid_size = self.embed(pixel_values)
        streams, features = HiddenStates(asked, residual), {"stem": residual}
        num_layers = self.num_used_layers if asked is None else len(self.layers)
        for name, block in zip(self.stage_names[1:], self.layers[:num_layers]):
            residual, mixed = block(residual)
            streams.append(residual)
            if name in self.out_features:
                features[name] = residual if self.config.use_residual_as_feature else mixed
        maps: Any = tuple(self.make_map(features[name], grid_size) for name in self.out_features)
        return BackboneOutput(feature_maps=maps, hidden_states=streams.as_tuple())

    def make_map(self, tokens: torch.Tensor, grid_size: tuple[int, int]) -> torch.Tensor:
        """Tokens (batch, length, channels) → map (batch, channels, height, width) in the model's type."""
        tokens = self.norm(tokens) if self.config.apply_layernorm else tokens.to(self.dtype)
        return self.split(tokens, grid_size)[0].mT.unflatten(2, grid_size)


class VimForImageClassification(VimPreTrainedModel):
    """Vim → class token → linear, as in the ImageNet checkpoints."""

    def __init__(self, config: VimConfig):
        super().__init__(config)
        self.vim = VimModel(config)
        # A config has names of two labels where it is given none, so their number is not None.
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)  # type: ignore[arg-type]
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutputWithNoAttention:
        """
        Args:
            pixel_values, kwargs: as `VimModel` takes them.
            labels: class indices (batch); with them comes `loss`.

        Returns:
            `logits` (batch, num_labels).
        """
        outputs = self.vim(pixel_values, return_dict=True, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=outputs.hidden_states)


__all__ = ["VimBackbone", "VimForImageClassification", "VimModel", "VimPreTrainedModel"]
