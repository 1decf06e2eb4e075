# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Convert a published checkpoint (ReMamber_Conv, ReMamber_Mamba, VMamba or Vim ImageNet) to a Hugging Face folder."""

import math
import pickle
import re
import reprlib
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import CLIPTextConfig, CLIPTokenizer
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.initialization import no_init_weights
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from .configuration_remamber import ReMamberConfig, VMambaConfig
from .configuration_vim import VimConfig
from .files import check_new_folder, make_whole_folder
from .image_processing_remamber import ReMamberImageProcessorPil
from .inference.loading import load_tokenizer
from .modeling_remamber import ReMamberForImageSegmentation
from .modeling_scan import ScanPreTrainedModel
from .modeling_vim import VimBackbone, VimForImageClassification
from .modeling_vmamba import VMambaForImageClassification
from .processing_remamber import ReMamberProcessor
from .published_vim import VIM_PATCHES, ClassToken, merge_vim_tensors, read_vim_config
from .weight_files import check_torch_file


CLIP_TOKENIZER = "openai/clip-vit-large-patch14"
CLIP_VOCABULARY = 49408  # tokens
VIM_CROP_RATIO = 0.875  # of the picture's shorter side, what Vim is evaluated on
AnyConfig = ReMamberConfig | VMambaConfig | VimConfig
WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# Published name → ours. Every rule is applied in turn, so a later one sees what an earlier one wrote.
NAME_RULES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    # where a module lives
    (r"^(patch_embed|layers)\.", r"vmamba.\1."),
    (r"^classifier\.norm\.", r"norm."),
    (r"^classifier\.head\.", r"classifier."),
    (r"^text_encoder\.text_model\.", r"remamber.text_encoder."),
    (r"^backbone\.(patch_embed|layers)\.", r"remamber.backbone.\1."),
    (r"^backbone\.text_guidencee\.(\d+)\.0\.", r"remamber.fusions.\1.global_text.proj."),
    (r"^backbone\.local_text_fusion\.(\d+)\.", r"remamber.fusions.\1.local_text."),
    (r"^backbone\.multimodal_blocks\.(\d+)\.", r"remamber.fusions.\1."),
    # stem, stages
    (r"\.patch_embed\.0\.", r".stem.conv1."),
    (r"\.patch_embed\.2\.", r".stem.norm1."),
    (r"\.patch_embed\.5\.", r".stem.conv2."),
    (r"\.patch_embed\.7\.", r".stem.norm2."),
    (r"\.layers\.(\d+)\.(blocks\.\d+)\.op\.", r".stages.\1.\2.ss2d."),
    (r"\.layers\.(\d+)\.blocks\.", r".stages.\1.blocks."),
    (r"\.layers\.(\d+)\.downsample\.1\.", r".stages.\1.downsample.conv."),
    (r"\.layers\.(\d+)\.downsample\.3\.", r".stages.\1.downsample.norm."),
    # Conv head
    (r"^decoder\.mixer([123])\.", lambda match: f"mask_head.mixers.{3 - int(match[1])}."),
    (r"(mixers\.\d)\.conv1\.conv\.", r"\1.in_proj."),
    (r"(mixers\.\d)\.conv1\.bn\.", r"\1.in_norm."),
    (r"(mixers\.\d)\.dwconv\.", r"\1.conv."),
    (r"(mixers\.\d)\.norm\.", r"\1.conv_norm."),
    (r"(mixers\.\d)\.conv2\.conv\.", r"\1.out_proj."),
    (r"(mixers\.\d)\.conv2\.bn\.", r"\1.out_norm."),
    (r"^decoder\.neck\.([0145])\.", lambda match: f"mask_head.neck.{int(match[1]) // 4}.{int(match[1]) % 4}."),
    (r"^decoder\.neck\.8\.", r"mask_head.classifier."),
    # Mamba head
    (r"^decoder\.text_guidencee\.(\d+)\.0\.", r"mask_head.levels.\1.global_text.proj."),
    (r"^decoder\.local_text_fusion\.(\d+)\.", r"mask_head.levels.\1.local_text."),
    (r"^decoder\.in_proj\.(\d+)\.", r"mask_head.levels.\1.in_proj."),
    (r"^decoder\.multimodal_blocks\.(\d+)\.downsample\.(proj|norm)\.", r"mask_head.levels.\1.upsample_\2."),
    (r"^decoder\.multimodal_blocks\.(\d+)\.", r"mask_head.levels.\1."),
    (
        r"^decoder\.hire_fusion\.(\d+)\.fusion\.([0134])\.",
        lambda match: f"mask_head.levels.{match[1]}.skip_fusion.{int(match[2]) // 3}.{int(match[2]) % 3}.",
    ),
    (r"^decoder\.proj_out\.1\.([01])\.", r"mask_head.neck.\1."),
    (r"^decoder\.proj_out\.2\.", r"mask_head.classifier."),
    # inside a module
    (r"(local_text)\.vis_proj\.0\.", r"\1.vision_proj."),
    (r"(local_text)\.text_proj\.0\.", r"\1.text_proj."),
    (r"(local_text)\.unsqueeze\.0\.", r"\1.conv."),
    (r"(blocks\.\d+)\.ln_1\.", r"\1.norm."),
    (r"\.self_attention\.ss1d\.", r".twister.channel_scan.ss2d."),
    (r"\.self_attention\.ss2d\.", r".twister.spatial_scan."),
    (r"\.self_attention\.", r".ss2d."),
    (r"\.dt_projs_(weight|bias)$", r".dt_proj_\1"),
    (r"\.A_logs$", r".A_log"),
    (r"\.Ds$", r".D"),
    (r"\.conv2d\.", r".conv."),
]


def convert_name(name: str) -> str:
    """The name that a tensor of a published checkpoint has here."""
    for pattern, replacement in NAME_RULES:
        name = re.sub(pattern, replacement, name)
    return name


def convert_state_dict(
    state_dict: dict[str, torch.Tensor],
    image_size: int | Sequence[int] | None = None,
    class_token: ClassToken | None = None,
) -> tuple[AnyConfig, dict[str, torch.Tensor]]:
    """
    Config and renamed state dict of a published checkpoint; sizes, depths and head are read from the shapes.

    Args:
        state_dict: tensors under their published names, with or without a leading `module.`.
        image_size: of a Vim, the side, or height and width, of the pictures it was trained on, in pixels. By default
            it is guessed from the number of positions, as [`~published_vim.find_grid`] says.
        class_token: of a Vim, where its class token stands; the tensors do not tell `"middle"`, which all published
            models have, from `"first"`.

    Returns:
        a `ReMamberConfig` for `ReMamberForImageSegmentation`, a `VMambaConfig` for `VMambaForImageClassification`, or
        a `VimConfig` for `VimForImageClassification`, or `VimBackbone` where there is no classifier, as its
        `architectures` say; and the tensors under the names of that class: `load_state_dict` takes them strictly.

    Raises:
        ValueError: if the tensors are of no known model, or some are missing, unknown or of another shape.
    """
    for name in state_dict:
        if not isinstance(name, str):
            raise ValueError(f"a tensor has the name {reprlib.repr(name)}, which is no text; that is no state dict.")
    twice = next((name for name in state_dict if f"module.{name}" in state_dict), None)
    if twice is not None:
        raise ValueError(f"{_show(twice)} is there with and without a leading 'module.'; leave one out.")
    state_dict = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    # A constant that older versions of transformers stored; it is no weight.
    state_dict = {name: tensor for name, tensor in state_dict.items() if not name.endswith(".position_ids")}
    config: AnyConfig
    is_vim = VIM_PATCHES in state_dict and "layers.0.mixer.in_proj.weight" in state_dict
    if not is_vim and (image_size, class_token) != (None, None):
        raise ValueError(
            "image_size and class_token are for a Vim, whose positions they place; these are of another model."
        )
    try:
        if is_vim:
            config = read_vim_config(state_dict, image_size, class_token)
            converted = merge_vim_tensors(state_dict, config)
        elif "text_encoder.text_model.final_layer_norm.weight" in state_dict:
            config = _read_remamber_config(state_dict)
        elif "classifier.head.weight" in state_dict:
            config = _read_vmamba_config(state_dict, prefix="")
            config.num_labels = len(state_dict["classifier.head.weight"])
        else:
            known = ", ".join(map(_show, list(state_dict)[:3]))
            raise ValueError(
                "these are no tensors of ReMamber_Conv, ReMamber_Mamba or an ImageNet classifier of VMamba or Vim "
                f"(the first are: {known or 'none'}); give one of those four."
            )
    except KeyError as error:
        raise ValueError(f"the tensor {error} is missing; the checkpoint is incomplete or of another model.") from None
    except (ArithmeticError, IndexError, RuntimeError, TypeError, StrictDataclassError) as error:
        cause = reprlib.repr(" ".join(str(error).split()))
        raise ValueError(f"the shapes of the tensors are of no model that there is ({cause}).") from None

    if not is_vim:
        converted = {convert_name(name): tensor for name, tensor in state_dict.items()}
    with torch.device("meta"):
        expected = _make_model(config).state_dict()
    missing, unexpected = sorted(expected.keys() - converted.keys()), sorted(converted.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(f"tensors are missing: {_some(missing)}; unknown: {_some(unexpected)}.")
    for name, tensor in converted.items():
        if tensor.dim() == 4 and expected[name].dim() == 2:  # a 1×1 convolution, here a linear layer
            converted[name] = tensor = tensor.flatten(1)
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, the model read from the checkpoint needs "
                f"{tuple(expected[name].shape)}."
            )
    return config, converted


def _show(name: object) -> str:
    """A name as it is, or cut and escaped where a terminal would not show it whole."""
    is_plain = isinstance(name, str) and name.isprintable() and len(name) < 120
    return str(name) if is_plain else reprlib.repr(name)


def check_tensors(state_dict: dict[str, torch.Tensor]) -> None:
    """ValueError unless all are finite weights, each with as many numbers as its shape says."""
    for name, tensor in state_dict.items():
        if name.endswith((".position_ids", ".num_batches_tracked")):
            continue
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype not in WEIGHT_DTYPES:
            raise ValueError(
                f"{name} is of {tensor.dtype}, {tensor.layout}; weights are dense and floating point of 16 to 64 bits."
            )
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device, without data; save the checkpoint with its weights.")
        if tensor.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} and no values; the checkpoint is broken.")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} has shape {tuple(tensor.shape)} and fewer values than that.")
        if tensor.element_size() < 2:
            raise ValueError(f"{name} is of {tensor.dtype}; give the weights from before they were quantized.")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has values that are not finite (NaN or infinite); its training had failed.")
        if name.endswith(".running_var") and (tensor < 0).any():
            raise ValueError(f"{name} has negative values, which no variance has; the checkpoint is broken.")


def _some(names: list[str]) -> str:
    return (
        ", ".join(map(_show, names[:4])) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        if names
        else "none"
    )


def _count(state_dict: dict[str, torch.Tensor], pattern: str) -> int:
    """How many numbers occur where `pattern` has its group."""
    return len({match[1] for match in (re.match(pattern, name) for name in state_dict) if match})


def _read_ss2d_fields(state_dict: dict[str, torch.Tensor], prefix: str, hidden_size: int) -> dict:
    """Fields of `SS2DConfig` that the SS2D under `prefix` shows."""
    inner_size = state_dict[f"{prefix}.out_norm.weight"].shape[0]
    rank = state_dict[f"{prefix}.dt_projs_weight"].shape[-1]
    return {
        "expand": inner_size / hidden_size,
        "state_size": state_dict[f"{prefix}.A_logs"].shape[1],
        "time_step_rank": None if rank == math.ceil(hidden_size / 16) else rank,
        "conv_kernel_size": state_dict[f"{prefix}.conv2d.weight"].shape[-1],
        "use_conv_bias": f"{prefix}.conv2d.bias" in state_dict,
    }


def _read_vmamba_config(state_dict: dict[str, torch.Tensor], prefix: str) -> VMambaConfig:
    num_stages = _count(state_dict, rf"{re.escape(prefix)}layers\.(\d+)\.blocks\.")
    block = f"{prefix}layers.0.blocks.0"
    hidden_sizes = [state_dict[f"{prefix}layers.{i}.blocks.0.norm.weight"].shape[0] for i in range(num_stages)]
    hidden_size = state_dict[f"{block}.norm.weight"].shape[0]
    return VMambaConfig(
        num_channels=state_dict[f"{prefix}patch_embed.0.weight"].shape[1],
        hidden_sizes=hidden_sizes,
        depths=[_count(state_dict, rf"{re.escape(prefix)}layers\.{i}\.blocks\.(\d+)\.") for i in range(num_stages)],
        mlp_ratio=state_dict[f"{block}.mlp.fc1.weight"].shape[0] / hidden_size,
        **_read_ss2d_fields(state_dict, f"{block}.op", hidden_size),
    )


def _make_model(config: AnyConfig) -> ScanPreTrainedModel:
    if isinstance(config, VimConfig):
        return VimBackbone(config) if config.architectures == ["VimBackbone"] else VimForImageClassification(config)
    if isinstance(config, VMambaConfig):
        return VMambaForImageClassification(config)
    return ReMamberForImageSegmentation(config)


def _make_image_processor(config: AnyConfig) -> BaseImageProcessor:
    """Ours; of a Vim, what it was evaluated with: bicubic, the middle 7/8 of the shorter side, ImageNet's mean."""
    if not isinstance(config, VimConfig):
        return ReMamberImageProcessorPil()
    common: dict[str, Any] = {"image_mean": list(IMAGENET_DEFAULT_MEAN), "image_std": list(IMAGENET_DEFAULT_STD)}
    if not isinstance(config.image_size, int):  # of another shape than a square: nothing is cut off
        height, width = config.image_size
        return BitImageProcessorPil(size={"height": height, "width": width}, do_center_crop=False, **common)
    size = {"shortest_edge": int(config.image_size / VIM_CROP_RATIO)}
    return BitImageProcessorPil(size=size, crop_size=config.image_size, **common)


def _read_text_config(state_dict: dict[str, torch.Tensor]) -> CLIPTextConfig:
    """Text encoder of CLIP: heads of width 64, the last two ids are start and end token."""
    prefix = "text_encoder.text_model"
    vocab_size, hidden_size = state_dict[f"{prefix}.embeddings.token_embedding.weight"].shape
    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        projection_dim=hidden_size,
        intermediate_size=state_dict[f"{prefix}.encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=_count(state_dict, rf"{re.escape(prefix)}\.encoder\.layers\.(\d+)\."),
        num_attention_heads=max(1, hidden_size // 64),
        max_position_embeddings=state_dict[f"{prefix}.embeddings.position_embedding.weight"].shape[0],
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,
        pad_token_id=vocab_size - 1,
    )


def _read_remamber_config(state_dict: dict[str, torch.Tensor]) -> ReMamberConfig:
    vision_config = _read_vmamba_config(state_dict, prefix="backbone.")
    correlation_size, text_length = state_dict["backbone.local_text_fusion.0.unsqueeze.0.weight"].shape[:2]
    fields: dict[str, Any] = {}
    if "decoder.neck.0.weight" in state_dict:
        fields["mask_head"] = "conv"
        fields["conv_head_ratio"] = state_dict["decoder.neck.0.weight"].shape[0] // vision_config.hidden_sizes[0]
    else:
        fields["mask_head"] = "mamba"
        fields["decoder_depths"] = [
            _count(state_dict, rf"decoder\.multimodal_blocks\.{level}\.blocks\.(\d+)\.") for level in range(4)
        ]
    channel_scan = "backbone.multimodal_blocks.0.blocks.0.self_attention.ss1d"
    num_cells = state_dict[f"{channel_scan}.out_proj.weight"].shape[0]
    return ReMamberConfig(
        text_config=_read_text_config(state_dict),
        vision_config=vision_config,
        text_length=text_length,
        channel_scan_size=math.isqrt(num_cells),
        correlation_size=correlation_size,
        num_fusion_blocks=_count(state_dict, r"backbone\.multimodal_blocks\.0\.blocks\.(\d+)\."),
        **fields,
        **_read_ss2d_fields(state_dict, channel_scan, num_cells),
    )


class _InertObject:
    """Stands in for a class that a checkpoint names: its pickled state is stored and nothing of it is run."""

    def __new__(cls, *args):
        return OrderedDict()


class _InertArray:
    """Stands in for what a checkpoint names of numpy, whose pickled state is a tuple."""

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


# What torch's reader meets in files that are no checkpoints or were cut off.
BROKEN_FILE_ERRORS = (
    SafetensorError,  # torch reads that format too, by the name's ending
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


def load_checkpoint(path: str | Path, use_ema: bool = False) -> dict[str, torch.Tensor]:
    """
    The state dict in a published checkpoint file, read without executing anything in it.

    Args:
        path: file written by `torch.save`: a state dict, or a dict with one under `"model"`. What else is in it
            (an argparse namespace, a config object) is read as inert data.
        use_ema: take the averaged weights under `"model_ema"`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no checkpoint, is truncated or has no such weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give the .pth file of a published checkpoint.")
    check_torch_file(path)
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except BROKEN_FILE_ERRORS:
        names = []  # not in torch's zip format: what it is, the load below says
    try:
        inert: list[Callable | tuple[Callable, str]]
        inert = [(_InertArray if name.startswith("numpy.") else _InertObject, name) for name in names]
        with torch.serialization.safe_globals(inert), warnings.catch_warnings(action="ignore"):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN_FILE_ERRORS as error:
        # Only this of torch's message: the rest advises to load the file unsafely.
        refused = re.search(r"GLOBAL (\S+)", str(error))
        cause = f" (it names {_show(refused[1])})" if refused else ""
        raise ValueError(
            f"{path} is no readable checkpoint: it is of another kind, truncated or holds unsafe objects{cause}."
        ) from None
    key = "model_ema" if use_ema else "model"
    if use_ema and (not isinstance(checkpoint, dict) or key not in checkpoint):
        raise ValueError(f"{path} holds no averaged weights (model_ema); convert it without --ema.")
    state_dict = checkpoint.get(key, checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(state_dict, dict) or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise ValueError(f"{path} holds no state dict, neither at its top nor under {key!r}.")
    return state_dict


def _load_tokenizer(name: str | None, config: ReMamberConfig) -> CLIPTokenizer | None:
    text: Any = config.text_config  # CLIPTextConfig, once a configuration is made
    vocab_size = text.vocab_size
    if name is None:
        if vocab_size != CLIP_VOCABULARY:
            return None
        try:
            return load_tokenizer(CLIP_TOKENIZER)
        except ValueError:
            return None
    tokenizer = load_tokenizer(name)
    if len(tokenizer) != vocab_size:
        raise ValueError(f"the tokenizer {name!r} has {len(tokenizer)} tokens, the checkpoint {vocab_size}.")
    return tokenizer


def convert_checkpoint(
    checkpoint: str | Path,
    output_dir: str | Path,
    tokenizer: str | None = None,
    use_ema: bool = False,
    image_size: int | Sequence[int] | None = None,
    class_token: ClassToken | None = None,
) -> ScanPreTrainedModel:
    """
    Write a published checkpoint as a folder that the Auto classes load; on an error no folder is left.

    Args:
        checkpoint: the published .pth file.
        output_dir: folder to make; it must not exist or be empty.
        tokenizer: name or folder of the CLIP tokenizer. By default that of CLIP ViT-L/14 for its vocabulary; where it
            cannot be had, the folder is written without tokenizer and processor.
        use_ema: convert the averaged weights.
        image_size, class_token: as `convert_state_dict` takes them.

    Returns:
        the model that was saved.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint` and `convert_state_dict`.
        FileExistsError: if the folder is there and not empty.
    """
    check_new_folder(output_dir)
    try:
        tensors = load_checkpoint(checkpoint, use_ema)
        check_tensors({_show(name): tensor for name, tensor in tensors.items()})
        config, state_dict = convert_state_dict(tensors, image_size, class_token)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if str(checkpoint) in message else f"{checkpoint}: {message}") from None
    clip_tokenizer = _load_tokenizer(tokenizer, config) if isinstance(config, ReMamberConfig) else None
    with no_init_weights():
        model = _make_model(config)
    model.load_state_dict(state_dict, strict=True, assign=True)

    with make_whole_folder(output_dir) as unfinished:
        model.save_pretrained(unfinished)
        image_processor = _make_image_processor(config)
        if clip_tokenizer is None:
            image_processor.save_pretrained(unfinished)
        else:
            processor = ReMamberProcessor(image_processor, clip_tokenizer, text_length=config.text_length)
            processor.save_pretrained(unfinished)
    return model
