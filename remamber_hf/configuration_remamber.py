# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Configurations of VMamba and ReMamber; the defaults are the published base models."""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

import reprlib
from copy import deepcopy
from types import NoneType
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneConfigMixin
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_scan import (
    LARGEST_DEPTH,
    LARGEST_HIDDEN_SIZE,
    MOST_STAGES,
    ScanConfig,
    check_inner_size,
    check_num_labels,
    require_positive,
)


# In CLIP's published config, where it means the last of CLIP's own tokens; words that were added come after it.
LEGACY_END_TOKEN = 2
CLIP_VOCABULARY = 49408  # tokens
LARGEST_WINDOW = 2**16
# Fields that one fusion alone reads. Sizes are none of them: they may stay where fusion changes.
FUSION_OPTIONS = {
    "twister": ("twister_scans", "use_global_text", "use_local_text"),
    "in_context": ("in_context_position", "in_context_window"),
}
TEXT_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "projection_dim",
)


def _list_sizes(name: str, value: Any, largest: int) -> list[int]:
    """A field that has a number for each stage, as a list; ValueError for anything else."""
    is_list = isinstance(value, (list, tuple)) and len(value) <= MOST_STAGES
    if not is_list or not all(isinstance(entry, int) and entry <= largest for entry in value):
        raise ValueError(
            f"{name} is {reprlib.repr(value)}; give a list of whole numbers up to {largest:,}, one for each stage."
        )
    return list(value)


@strict
class SS2DConfig(ScanConfig):
    r"""
    The fields that every 2-D selective scan (SS2D) reads; base of [`VMambaConfig`] and [`ReMamberConfig`].

    Args:
        state_size (`int`, defaults to 1): N, the number of states per channel of the scan.
        conv_kernel_size (`int`, defaults to 3): side of the depthwise convolution, odd, in pixels.
        use_conv_bias (`bool`, defaults to `False`): whether the depthwise convolution has a bias.

    The others are those of [`ScanConfig`].
    """

    state_size: int = 1
    conv_kernel_size: int = 3
    use_conv_bias: bool = False

    def validate_ss2d(self) -> None:
        if self.conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size is {self.conv_kernel_size}; it must be odd, to keep the size of maps.")


@strict
class VMambaConfig(BackboneConfigMixin, SS2DConfig):
    r"""
    Configuration of the VMamba backbone (arXiv 2401.10166); the default is VMamba-B as ReMamber uses it.

    Args:
        num_channels (`int`, defaults to 3): channels of the picture.
        hidden_sizes (`list[int]`, defaults to `[128, 256, 512, 1024]`): channels of each stage.
        depths (`list[int]`, defaults to `[2, 2, 15, 2]`): VSS blocks in each stage.
        mlp_ratio (`float`, defaults to 4.0): hidden over outer channels of the MLP in a VSS block.
        drop_path_rate (`float`, defaults to 0.1):
            stochastic depth of the last block; it rises linearly from 0 over the blocks.
        out_features, out_indices (`list`, *optional*): maps that the backbone returns, by name or by index.

    The fields of [`SS2DConfig`] apply to every SS2D of the backbone.
    """

    model_type = "vmamba"
    base_config_key = "vision_config"

    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (128, 256, 512, 1024)
    depths: list[int] | tuple[int, ...] = (2, 2, 15, 2)
    mlp_ratio: float | int = 4.0
    drop_path_rate: float | int = 0.1
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_num_labels(kwargs)
        self.hidden_sizes = _list_sizes("hidden_sizes", self.hidden_sizes, LARGEST_HIDDEN_SIZE)
        self.depths = _list_sizes("depths", self.depths, LARGEST_DEPTH)
        self.stage_names = ["stem"] + [f"stage{index}" for index in range(1, len(self.depths) + 1)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Channels of the last stage."""
        return self.hidden_sizes[-1]

    def validate_stages(self) -> None:
        if len(self.depths) != len(self.hidden_sizes):
            raise ValueError(
                f"depths has {len(self.depths)} entries, hidden_sizes has {len(self.hidden_sizes)}; "
                "give one depth per stage."
            )
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"depths is {self.depths}; every stage needs at least one block.")
        if min(self.hidden_sizes) < 2 or self.hidden_sizes[0] % 2:
            raise ValueError(
                f"hidden_sizes is {self.hidden_sizes}; the first must be even (the stem halves it) and all at least 2."
            )
        require_positive(self, "num_channels", "mlp_ratio")
        check_inner_size(self, min(self.hidden_sizes))
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate is {self.drop_path_rate}; it must be in [0, 1).")


@strict
class ReMamberConfig(SS2DConfig):
    r"""
    Configuration of ReMamber (arXiv 2403.17839); the default is the published base model with the Conv head.

    Args:
        text_config (`CLIPTextConfig` or `dict`, *optional*): text encoder, by default that of CLIP ViT-L/14.
        vision_config (`VMambaConfig` or `dict`, *optional*): backbone, by default VMamba-B.
        text_length (`int`, defaults to 20): tokens of an expression; the correlation convolution has one channel each.
        channel_scan_size (`int`, defaults to 16): side, in cells, to which a map is resized for the channel scan.
        correlation_size (`int`, defaults to 512): channels in which text and picture are correlated.
        num_fusion_blocks (`int`, defaults to 2): fusion blocks after each stage.
        fusion (`"twister"`, `"in_context"`, `"cross_attention"` or `"norm_adaptation"`, defaults to `"twister"`):
            how the text comes into the map, by the Mamba Twister or by one of the designs that the paper compares.
        twister_scans (`str`, defaults to `"channel_then_spatial"`):
            scans of the Twister: `"channel_then_spatial"`, `"spatial_then_channel"`, `"parallel"`, `"channel"` or
            `"spatial"`.
        use_global_text, use_local_text (`bool`, default to `True`):
            whether the Twister's cube holds the text in one vector, and the correlation of tokens and pixels.
        in_context_position (`"prefix"`, `"suffix"` or `"both"`, defaults to `"prefix"`):
            where in-context fusion puts the tokens; see [`~fusion_remamber.InContextScan`].
        in_context_window (`int`, defaults to 0):
            side of the windows, in cells of the map, at each of which in-context fusion repeats the tokens; or 0.
        mask_head (`"conv"` or `"mamba"`, defaults to `"conv"`): the head that turns fused maps into mask logits.
        decoder_depths (`list[int]`, defaults to `[2, 4, 2, 2]`): blocks per level of the Mamba head, coarse to fine.
        conv_head_ratio (`int`, defaults to 4): channels of the Conv head over those of the first stage.
        predicts_presence (`bool`, defaults to `False`):
            whether a head says, besides the mask, if the expression means anything in the picture at all.
        presence_loss_weight (`float`, defaults to 0.2): factor of that head's cross-entropy in the loss.

    The fields of [`SS2DConfig`] apply to the scans of fusion and mask head; `vision_config` has those of the backbone.
    """

    model_type = "remamber"
    sub_configs_defaults = {"text_config": CLIPTextConfig, "vision_config": VMambaConfig}  # type: ignore[dict-item]

    text_config: dict[str, Any] | CLIPTextConfig | None = None
    vision_config: dict[str, Any] | VMambaConfig | None = None
    text_length: int = 20
    channel_scan_size: int = 16
    correlation_size: int = 512
    num_fusion_blocks: int = 2
    fusion: Literal["twister", "in_context", "cross_attention", "norm_adaptation"] = "twister"
    twister_scans: Literal["channel_then_spatial", "spatial_then_channel", "parallel", "channel", "spatial"] = (
        "channel_then_spatial"
    )
    use_global_text: bool = True
    use_local_text: bool = True
    in_context_position: Literal["prefix", "suffix", "both"] = "prefix"
    in_context_window: int = 0
    mask_head: Literal["conv", "mamba"] = "conv"
    decoder_depths: list[int] | tuple[int, ...] = (2, 4, 2, 2)
    conv_head_ratio: int = 4
    predicts_presence: bool = False
    presence_loss_weight: float | int = 0.2

    def __post_init__(self, **kwargs: Any) -> None:
        check_num_labels(kwargs)
        self.decoder_depths = _list_sizes("decoder_depths", self.decoder_depths, LARGEST_DEPTH)
        for name, config_class in (("text_config", CLIPTextConfig), ("vision_config", VMambaConfig)):
            value = getattr(self, name)
            if not isinstance(value, (dict, config_class, NoneType)):
                raise ValueError(
                    f"{name} is {reprlib.repr(value)}; give the fields of a {config_class.__name__} as a dict."
                )
        if self.text_config is None:
            self.text_config = CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768, pad_token_id=49407
            )
        elif isinstance(self.text_config, dict):
            check_num_labels(self.text_config)
            self.text_config = CLIPTextConfig(**self.text_config)
        # Likewise the number that CLIPTextConfig takes where none is given, of a vocabulary that has not as many.
        end, default = self.text_config.eos_token_id, CLIP_VOCABULARY - 1
        if end == LEGACY_END_TOKEN or (end == default >= self.text_config.vocab_size):
            self.text_config = deepcopy(self.text_config)
            self.text_config.eos_token_id = min(self.text_config.vocab_size, CLIP_VOCABULARY) - 1
        if self.vision_config is None:
            self.vision_config = VMambaConfig()
        elif isinstance(self.vision_config, dict):
            self.vision_config = VMambaConfig(**self.vision_config)
        super().__post_init__(**kwargs)

    @property
    def custom_pipelines(self) -> dict[str, Any]:
        """
        Pipelines whose code is in the folder, but for tasks that are registered: `pipeline()` would not take the
        registered class before the folder's, and ask for `trust_remote_code`.
        """
        stored = self.__dict__.get("custom_pipelines", {})
        return {task: info for task, info in stored.items() if task not in PIPELINE_REGISTRY.supported_tasks}

    @custom_pipelines.setter
    def custom_pipelines(self, value: dict[str, Any]) -> None:
        self.__dict__["custom_pipelines"] = value

    def validate_text(self) -> None:
        """What the text encoder would stop at later, or silently read past."""
        text = self.text_config
        assert isinstance(text, CLIPTextConfig)
        require_positive(text, *TEXT_SIZES, "layer_norm_eps")
        if text.hidden_act not in ACT2FN:
            raise ValueError(f"text_config.hidden_act is {reprlib.repr(text.hidden_act)}; give one such as 'gelu'.")
        if text.hidden_size % text.num_attention_heads:
            raise ValueError(
                f"text_config.hidden_size is {text.hidden_size}, which {text.num_attention_heads} heads "
                "(num_attention_heads) do not share; give a multiple."
            )
        for name in ("eos_token_id", "pad_token_id"):
            value = getattr(text, name)
            is_token = isinstance(value, int) and 0 <= value < text.vocab_size
            if not is_token and (value is not None or name == "eos_token_id"):
                raise ValueError(
                    f"text_config.{name} is {reprlib.repr(value)}, and the vocabulary has {text.vocab_size} tokens; "
                    "give the number of one of them."
                )

    def validate_fusion(self) -> None:
        for fusion, options in FUSION_OPTIONS.items():
            for name in options:
                value = getattr(self, name)
                if fusion != self.fusion and value != getattr(ReMamberConfig, name):
                    raise ValueError(
                        f"{name} is {reprlib.repr(value)}, which fusion={self.fusion!r} does not read; leave it out "
                        f"or give fusion={fusion!r}."
                    )
        if not self.use_global_text and not self.use_local_text:
            raise ValueError(
                "use_global_text and use_local_text are both false; the Twister needs one, for no text would come in."
            )
        if not 0 <= self.in_context_window <= LARGEST_WINDOW:
            raise ValueError(
                f"in_context_window is {self.in_context_window}; give the side of a window in cells up to "
                f"{LARGEST_WINDOW:,}, or 0 for none."
            )

    def validate_sizes(self) -> None:
        assert isinstance(self.text_config, CLIPTextConfig) and isinstance(self.vision_config, VMambaConfig)
        require_positive(
            self, "text_length", "channel_scan_size", "correlation_size", "num_fusion_blocks", "conv_head_ratio"
        )
        if not 0 <= self.presence_loss_weight < float("inf"):
            raise ValueError(f"presence_loss_weight is {self.presence_loss_weight}; give a number from 0 up.")
        num_stages = len(self.vision_config.hidden_sizes)
        if num_stages != 4:
            raise ValueError(f"vision_config has {num_stages} stages; ReMamber's mask heads read exactly 4.")
        hidden_sizes = self.vision_config.hidden_sizes
        if self.mask_head == "mamba" and any(2 * size != next_ for size, next_ in zip(hidden_sizes, hidden_sizes[1:])):
            raise ValueError(
                f"vision_config.hidden_sizes is {hidden_sizes}; the Mamba head needs channels that are doubled from "
                "stage to stage. Give such sizes or mask_head='conv'."
            )
        if len(self.decoder_depths) != num_stages or min(self.decoder_depths) < 1:
            raise ValueError(
                f"decoder_depths is {self.decoder_depths}; give one depth of at least 1 for each of the 4 levels."
            )
        if self.text_length > self.text_config.max_position_embeddings:
            raise ValueError(
                f"text_length is {self.text_length}, the text encoder has {self.text_config.max_position_embeddings} "
                "positions; give a text_length that is not above them."
            )


def text_config_of(config: ReMamberConfig) -> CLIPTextConfig:
    return config.text_config  # type: ignore[return-value]  # no dict and not None once the config is made


def vision_config_of(config: ReMamberConfig) -> VMambaConfig:
    return config.vision_config  # type: ignore[return-value]  # as above


__all__ = ["ReMamberConfig", "SS2DConfig", "VMambaConfig"]
