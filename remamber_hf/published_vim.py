# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the tensors of a published Vim say of the model, and their way to ours; `convert_checkpoint.py` calls it."""

import math
import re
from collections.abc import Sequence
from typing import Literal

import torch
from transformers.utils import logging

from .configuration_vim import VimConfig
from .modeling_vim import split_class_tokens


logger = logging.get_logger(__name__)

ClassToken = Literal["middle", "first", "both", "none"]

VIM_PATCHES = "patch_embed.proj.weight"
# Number of positions → side of the picture in pixels and stride, of the five published models.
PUBLISHED_GRIDS = {196: (224, 16), 729: (224, 8)}
# What the code that Vim was trained with can do besides, and no published model does: a tensor that only this has.
OTHER_VARIANTS = {
    r"layers\.0\.mixer\.gamma$": "init_layer_scale",
    r"layers\.0\.norm\.bias$": "rms_norm=False (LayerNorm)",
    r"dist_token$": "a distillation token",
}
NUM_AXES = {  # of what sizes are read from
    VIM_PATCHES: 4,
    "pos_embed": 3,
    "layers.0.mixer.A_log": 2,
    "layers.0.mixer.dt_proj.weight": 2,
    "layers.0.mixer.conv1d.weight": 3,
}
LEFT_OUT_REASONS = {
    "rope.": "no published model uses them, and one that was trained with if_rope=True computes something else",
    "fpn": "they scale the maps of the published segmentation, and a backbone's maps are as its blocks have them",
}
LEFT_OUT = tuple(LEFT_OUT_REASONS)
LAYER_NAMES = ("norm.weight", "mixer.in_proj.weight", "mixer.out_proj.weight")  # the same here
# Ours → published forward and backward: where both directions have weights, ours are one, the forward ones first,
DIRECTIONS = {
    "mixer.A_log": ("mixer.A_log", "mixer.A_b_log"),
    "mixer.D": ("mixer.D", "mixer.D_b"),
    "mixer.conv_weight": ("mixer.conv1d.weight", "mixer.conv1d_b.weight"),
    "mixer.conv_bias": ("mixer.conv1d.bias", "mixer.conv1d_b.bias"),
    "mixer.x_proj_weight": ("mixer.x_proj.weight", "mixer.x_proj_b.weight"),
    "mixer.dt_proj_weight": ("mixer.dt_proj.weight", "mixer.dt_proj_b.weight"),
    "mixer.dt_proj_bias": ("mixer.dt_proj.bias", "mixer.dt_proj_b.bias"),
}
# along a new axis, or else one behind the other.
STACKED = ("mixer.x_proj_weight", "mixer.dt_proj_weight", "mixer.dt_proj_bias")


def read_vim_config(
    state_dict: dict[str, torch.Tensor],
    image_size: int | Sequence[int] | None = None,
    class_token: ClassToken | None = None,
) -> VimConfig:
    """
    The configuration of the model that published tensors are of.

    Args:
        state_dict: tensors under their published names.
        image_size: side, or height and width, of the pictures it was trained on; by default as `find_grid` guesses.
        class_token: where it stands; by default in the middle. The tensors do not tell that from "first".

    Raises:
        ValueError: if it is of a variant that no published model is, or the positions fit no grid.
        KeyError: if a tensor is missing.
    """
    _refuse_variants(state_dict)
    for name, num_axes in NUM_AXES.items():
        if state_dict[name].dim() != num_axes:
            raise ValueError(f"{name} has shape {tuple(state_dict[name].shape)}; it must have {num_axes} axes.")
    hidden_size, num_channels, patch_size, _ = state_dict[VIM_PATCHES].shape
    possible, num_tokens = _read_class_tokens(state_dict)
    if class_token is not None and class_token not in possible:
        raise ValueError(f"class_token is {class_token!r}; the tensors are of a Vim with {' or '.join(possible)}.")
    num_positions = state_dict["pos_embed"].shape[1] - num_tokens
    image_size, stride = find_grid(num_positions, patch_size, image_size)
    inner_size, state_size = state_dict["layers.0.mixer.A_log"].shape
    rank = state_dict["layers.0.mixer.dt_proj.weight"].shape[1]
    has_head = "head.weight" in state_dict
    config = VimConfig(
        image_size=image_size,
        patch_size=patch_size,
        stride=None if stride == patch_size else stride,
        num_channels=num_channels,
        hidden_size=hidden_size,
        num_hidden_layers=len({name.split(".")[1] for name in state_dict if name.startswith("layers.")}),
        class_token=class_token or possible[0],
        expand=inner_size / hidden_size,
        state_size=state_size,
        time_step_rank=None if rank == math.ceil(hidden_size / 16) else rank,
        conv_kernel_size=state_dict["layers.0.mixer.conv1d.weight"].shape[-1],
        use_conv_bias="layers.0.mixer.conv1d.bias" in state_dict,
        architectures=["VimForImageClassification" if has_head else "VimBackbone"],
    )
    if has_head and class_token is None and possible == ["none"]:
        logger.warning(
            "The tensors have no class token: the mean of all patches is classified, as with final_pool_type='mean'; "
            "with the published default, 'none', it would be the last patch."
        )
    if has_head:
        config.num_labels = len(state_dict["head.weight"])
    return config


def _read_class_tokens(state_dict: dict[str, torch.Tensor]) -> tuple[list[ClassToken], int]:
    """Where class tokens may stand, the published place first, and how many they are."""
    if "cls_token_head" in state_dict:
        return ["both"], 2
    return (["middle", "first"], 1) if "cls_token" in state_dict else (["none"], 0)


def _refuse_variants(state_dict: dict[str, torch.Tensor]) -> None:
    """ValueError for the variants of the published code that its published models are none of."""
    if "layers.0.mixer.conv1d_b.weight" not in state_dict:
        kind = "'v1'" if "layers.0.mixer.A_b_log" in state_dict else "'none' (one direction, or layers in pairs)"
        raise ValueError(
            f"this is a Vim of bimamba_type {kind}; only 'v2', which all published models are, is supported."
        )
    for pattern, variant in OTHER_VARIANTS.items():
        if any(re.match(pattern, name) for name in state_dict):
            raise ValueError(f"this is a Vim with {variant}, which no published model has; it is not supported.")
    if "pos_embed" not in state_dict:
        raise ValueError(
            "this is a Vim without pos_embed (if_abs_pos_embed=False); all published ones have it, and it is needed."
        )
    for prefix, reason in LEFT_OUT_REASONS.items():
        if any(name.startswith(prefix) for name in state_dict):
            logger.warning(f"The tensors {prefix}* are left out: {reason}.")


def find_grid(
    num_positions: int, patch_size: int, image_size: int | Sequence[int] | None = None
) -> tuple[int | list[int], int]:
    """
    The size of the pictures that a model has so many positions for, and the stride of its patches, in pixels.

    Without `image_size`, 196 and 729 positions are those of the published models, for pictures of 224 pixels with
    stride 16 and 8; any other square number is taken for patches side by side. With it, the stride is the largest
    that makes as many patches: the patch size, else a divisor of it.

    Raises:
        ValueError: if there is none.
    """
    if image_size is None:
        if num_positions in PUBLISHED_GRIDS and patch_size == 16:
            return PUBLISHED_GRIDS[num_positions]
        side = math.isqrt(num_positions)
        if side**2 != num_positions:
            raise ValueError(
                f"pos_embed has {num_positions} positions, which are no square; give image_size, the height and width "
                "in pixels of the pictures that the model was trained on."
            )
        logger.warning(
            f"pos_embed has {num_positions} positions, as no published model: taken for pictures of "
            f"{side * patch_size} pixels, patches side by side. If that is wrong, say the size: image_size."
        )
        return side * patch_size, patch_size
    sides = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= patch_size for side in sides):
        raise ValueError(
            f"image_size is {image_size!r}; give a side, or height and width, in pixels, of at least a patch, "
            f"{patch_size}."
        )
    for stride in (size for size in range(patch_size, 0, -1) if patch_size % size == 0):
        if math.prod((side - patch_size) // stride + 1 for side in sides) == num_positions:
            return sides[0] if sides[0] == sides[1] else sides, stride
    raise ValueError(
        f"pos_embed has {num_positions} positions, and pictures of {sides[0]}×{sides[1]} pixels make as many patches "
        f"of {patch_size} with no stride; give the image_size that the model was trained on."
    )


def merge_vim_tensors(state_dict: dict[str, torch.Tensor], config: VimConfig) -> dict[str, torch.Tensor]:
    """
    Published tensors under our names: both directions in one, the class tokens' positions by themselves.

    Tensors of other names stay as they are. A missing one raises KeyError.
    """
    prefix = "vim." if config.architectures == ["VimForImageClassification"] else ""
    rest = {name: tensor for name, tensor in state_dict.items() if not name.startswith(LEFT_OUT)}
    merged = {}
    for kind in ("weight", "bias"):
        merged[f"{prefix}embeddings.patch_embedding.{kind}"] = rest.pop(f"patch_embed.proj.{kind}")
    merged[f"{prefix}norm.weight"] = rest.pop("norm_f.weight")
    positions = rest.pop("pos_embed")
    places = config.class_token_places(positions.shape[1] - config.num_class_tokens)
    patches, class_positions = split_class_tokens(positions, places)
    merged[f"{prefix}embeddings.position_embedding"] = patches.unflatten(1, config.grid_size)
    if places:
        names = ["cls_token_head", "cls_token_tail"] if config.class_token == "both" else ["cls_token"]
        merged[f"{prefix}embeddings.class_token"] = torch.cat([rest.pop(name) for name in names], dim=1)
        merged[f"{prefix}embeddings.class_position_embedding"] = class_positions
    for layer in range(config.num_hidden_layers):
        published, ours = f"layers.{layer}.", f"{prefix}layers.{layer}."
        for name in LAYER_NAMES:
            merged[ours + name] = rest.pop(published + name)
        for name, pair in DIRECTIONS.items():
            if name == "mixer.conv_bias" and not config.use_conv_bias:
                continue
            forward, backward = (rest.pop(published + half) for half in pair)
            if forward.shape != backward.shape:
                raise ValueError(
                    f"{published}{pair[0]} has shape {tuple(forward.shape)}, {pair[1]} has {tuple(backward.shape)}; "
                    "they must have the same."
                )
            if name in STACKED:
                merged[ours + name] = torch.stack([forward, backward])
            else:
                merged[ours + name] = torch.cat([forward, backward])
        merged[f"{ours}mixer.conv_weight"] = merged[f"{ours}mixer.conv_weight"].squeeze(1)
    for kind in ("weight", "bias"):
        if f"head.{kind}" in rest:
            merged[f"classifier.{kind}"] = rest.pop(f"head.{kind}")
    not_published = sorted(merged.keys() & rest.keys())
    if not_published:
        raise ValueError(f"the tensor {not_published[0]!r} has no published name; leave it out.")
    return merged | rest
