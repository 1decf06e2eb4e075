# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Configuration of Vision Mamba; the defaults are the published Vim-tiny."""

from .oldest_transformers import OLDEST_TRANSFORMERS  # noqa: F401  # isort: skip (what follows needs it)

import reprlib
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.backbone_utils import BackboneConfigMixin

from .configuration_scan import LARGEST, ScanConfig, check_inner_size, check_num_labels, require_positive


@strict
class VimConfig(BackboneConfigMixin, ScanConfig):
    r"""
    Configuration of Vision Mamba, Vim (arXiv 2401.09417); the default is the published Vim-tiny.

    Args:
        image_size (`int` or `list[int]`, defaults to 224):
            side, or height and width, of the pictures whose positions are learned, in pixels. Pictures may have any
            size: positions are interpolated.
        patch_size (`int`, defaults to 16): side of a patch in pixels.
        stride (`int`, *optional*): distance of patches in pixels, by default `patch_size`; less makes them overlap.
        num_channels (`int`, defaults to 3): channels of the picture.
        hidden_size (`int`, defaults to 192): channels of a token.
        num_hidden_layers (`int`, defaults to 24): blocks.
        class_token (`"middle"`, `"first"`, `"both"` or `"none"`, defaults to `"middle"`):
            where the class token stands among the patches; `"both"` are two, one at each end, whose outputs are
            averaged, and without one the classifier reads the mean of all patches.
        drop_path_rate (`float`, defaults to 0.0):
            stochastic depth of the last block; it rises linearly from 0 over the blocks.
        use_residual_as_feature (`bool`, defaults to `True`):
            whether a backbone's maps are of the residual stream after a block; else of what its mixer returns, as in
            the published segmentation.
        apply_layernorm (`bool`, defaults to `False`): whether the final norm is applied to a backbone's maps.
        out_features, out_indices (`list`, *optional*):
            maps that a backbone returns, by name or by index: "stem", "stage1" and so on, one for each block.

    The others are those of [`ScanConfig`].
    """

    model_type = "vim"

    image_size: int | list[int] | tuple[int, ...] = 224
    patch_size: int = 16
    stride: int | None = None
    num_channels: int = 3
    hidden_size: int = 192
    num_hidden_layers: int = 24
    class_token: Literal["middle", "first", "both", "none"] = "middle"
    drop_path_rate: float | int = 0.0
    use_residual_as_feature: bool = True
    apply_layernorm: bool = False
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        check_num_labels(kwargs)
        require_positive(self, "num_hidden_layers")
        if isinstance(self.image_size, tuple):
            self.image_size = list(self.image_size)
        self.stage_names = ["stem"] + [f"stage{index}" for index in range(1, self.num_hidden_layers + 1)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)

    @property
    def num_class_tokens(self) -> int:
        """Tokens that are no patches."""
        return len(self.class_token_places(0))

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches (down, across) of a picture of `image_size`."""
        size = (self.image_size, self.image_size) if isinstance(self.image_size, int) else tuple(self.image_size)
        return self.count_patches(size[0]), self.count_patches(size[1])

    def count_patches(self, side: int) -> int:
        """Patches along a side of so many pixels; what is left over at its end is in none."""
        return (side - self.patch_size) // (self.stride or self.patch_size) + 1

    def class_token_places(self, num_patches: int) -> list[int]:
        """How many patches stand before each class token."""
        places = {"middle": [num_patches // 2], "first": [0], "both": [0, num_patches], "none": []}
        return places[self.class_token]

    def validate_sizes(self) -> None:
        require_positive(self, "patch_size", "num_channels", "hidden_size")
        if self.stride is not None and not 0 < self.stride <= self.patch_size:
            raise ValueError(
                f"stride is {self.stride}, patch_size is {self.patch_size}; give a stride from 1 to patch_size, or "
                "pixels between patches would not be seen."
            )
        sides = [self.image_size] if isinstance(self.image_size, int) else list(self.image_size)
        is_list = not isinstance(self.image_size, int)
        if len(sides) != 1 + is_list or not all(self.patch_size <= side <= LARGEST["image_size"] for side in sides):
            raise ValueError(
                f"image_size is {reprlib.repr(self.image_size)}, patch_size is {self.patch_size}; give a side, or "
                f"height and width, in pixels, from patch_size to {LARGEST['image_size']:,}."
            )
        check_inner_size(self, self.hidden_size)
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate is {self.drop_path_rate}; it must be in [0, 1).")
        if self.apply_layernorm and not self.use_residual_as_feature:
            raise ValueError(
                "apply_layernorm is true and use_residual_as_feature is false; the final norm is of the residual "
                "stream: leave one of the two out."
            )


__all__ = ["VimConfig"]
