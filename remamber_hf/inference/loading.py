# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A model with its processor, or as a pipeline, ready for inference; where the bundled model lies."""

import hashlib
import json
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CLIPTokenizer, PreTrainedConfig
from transformers.utils import CONFIG_NAME, find_adapter_config_file

from ..configuration_remamber import ReMamberConfig
from ..messages import printable
from ..modeling_remamber import ReMamberForImageSegmentation, load_whole
from ..pipeline_remamber import ReferringSegmentationPipeline
from ..processing_remamber import ReMamberProcessor
from ..saved_code import TASK
from .devices import find_device, find_dtype


BUNDLED_MODEL = Path(__file__).parents[1] / "checkpoints" / "shapes"
BUNDLED_PICTURES = Path(__file__).parents[1] / "examples"
BUNDLED = "bundled"
LONGEST_CAUSE = 300  # characters


def find_model(name: str | Path) -> str | Path:
    """The folder of the bundled model for "bundled", where no folder of that name is; any other name as it is."""
    return BUNDLED_MODEL if str(name) == BUNDLED and not Path(BUNDLED).is_dir() else name


def load_pipeline(
    name: str | Path,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    **options: Any,
) -> ReferringSegmentationPipeline:
    """A model as a pipeline; see `load_model`, which has the same arguments."""
    model, processor = load_model(name, device, dtype, **options)
    return ReferringSegmentationPipeline(model=model, processor=processor, device=model.device, task=TASK)


def load_model(
    name: str | Path,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    revision: str = "main",
    token: str | bool | None = None,
    attn_implementation: str | None = None,
    predicts_presence: bool = False,
) -> tuple[ReMamberForImageSegmentation, ReMamberProcessor]:
    """
    Load a model for inference and its processor.

    Args:
        name: folder, or name on the Hub; "bundled" is the model that comes with the package, for drawn shapes.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" and so on, or "mps".
        dtype: "auto" (as saved), "float32", "bfloat16" or "float16".
        revision: branch, tag or commit on the Hub.
        token: for a private model on the Hub; True takes the one that is stored on this machine.
        attn_implementation: of the text encoder's attention, "sdpa" or "eager" for example; by default transformers'.
        predicts_presence: whether to give a model that has none a new presence head, to be trained; until then it
            says of everything that it is there.

    Raises:
        ValueError: if it is no ReMamber model, lacks weights or a tokenizer, its parts do not agree, or device or
            dtype is not there. Code that comes with it is never run.
    """
    name = find_model(name)
    target, number_type = find_device(device), find_dtype(dtype)
    place: dict[str, Any] = {"revision": revision, "token": token}
    config = load_config(name, **place)
    fresh = "presence_head." if predicts_presence and not config.predicts_presence else None
    config.predicts_presence |= predicts_presence
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{name} has quantized weights (quantization_config); give the model from before.")
    try:
        options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
        model = load_whole(
            ReMamberForImageSegmentation,
            name,
            fresh=fresh,
            config=config,
            dtype=number_type,
            trust_remote_code=False,
            **place,
            **options,
        )
        processor = ReMamberProcessor.from_pretrained(name, trust_remote_code=False, **place)
    except Exception as error:
        raise ValueError(f"{name} cannot be loaded: {_one_line(error)}") from error
    check_tokenizer(name, processor.tokenizer)
    check_together(name, config, processor)
    return model.to(target), processor  # type: ignore[arg-type]  # transformers' decorator hides `self`


def load_config(name: str | Path, *, revision: str = "main", token: str | bool | None = None) -> ReMamberConfig:
    """
    Load the configuration of a ReMamber.

    Args:
        name, revision, token: as `load_model` takes them; or the path of a config.json.

    Raises:
        ValueError: if there is none, or it is of another model, or of adapters.
    """
    config: Any = load_config_of((ReMamberConfig,), name, revision=revision, token=token)
    return config


def load_config_of(
    classes: Sequence[type[PreTrainedConfig]],
    name: str | Path,
    *,
    revision: str = "main",
    token: str | bool | None = None,
) -> PreTrainedConfig:
    """Likewise, of a model of one of several kinds."""
    name = find_model(name)
    place: dict[str, Any] = {"revision": revision, "token": token}
    try:
        if not str(name):
            raise ValueError("the name is empty.")
        if Path(name).is_absolute() and not Path(name).exists():
            raise ValueError("there is no such folder.")
        path = Path(name) if Path(name).is_file() else Path(name) / CONFIG_NAME
        with suppress(json.JSONDecodeError, UnicodeDecodeError):  # which transformers tells better
            if path.is_file() and not isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
                raise ValueError(f"{path.name} holds no JSON object.")
        fields = PreTrainedConfig.get_config_dict(name, **place)[0]
        if not fields:
            raise ValueError("it has no config.json, or an empty one.")
        model_type = fields.get("model_type")
        config_class = next((each for each in classes if each.model_type == model_type), None)
        config = None if config_class is None else config_class.from_pretrained(name, **place)
        adapter = None if Path(name).is_file() else find_adapter_config_file(str(name), **place)
    except (
        Exception
    ) as error:  # of any kind: its fields go to code of many authors; tokenizers raises Exception itself
        raise ValueError(f"{name} is no model that can be loaded: {_one_line(error)}") from error
    if config is None:
        known = " or ".join(repr(each.model_type) for each in classes)
        raise ValueError(f"{name} is a model of type {reprlib.repr(model_type)}; give one of type {known}.")
    if adapter is not None:
        raise ValueError(f"{name} holds adapters, which name another model; give the folder of the merged model.")
    return config


def check_together(name: str | Path, config: ReMamberConfig, processor: ReMamberProcessor) -> None:
    """ValueError unless the processor of a model gives what its configuration reads."""
    if processor.text_length != config.text_length:
        raise ValueError(
            f"{name}: text_length is {processor.text_length} in processor_config.json and {config.text_length} in "
            "config.json; they must agree."
        )
    tokenizer: Any = processor.tokenizer
    text: Any = config.text_config  # CLIPTextConfig, once a configuration is made
    last = max(tokenizer.get_vocab().values())
    if last >= text.vocab_size:
        raise ValueError(
            f"{name}: the tokenizer counts up to {last:,}, and the model has {text.vocab_size:,} tokens "
            "(text_config.vocab_size); give the tokenizer that it was trained with."
        )
    if tokenizer.eos_token_id != text.eos_token_id:
        raise ValueError(
            f"{name}: the end token is {tokenizer.eos_token_id} in the tokenizer and {text.eos_token_id} in "
            "config.json (text_config.eos_token_id); they must agree."
        )


def _one_line(error: Exception) -> str:
    """What an error of other libraries says, cut, without line breaks and what a terminal would not show."""
    if "trust_remote_code" in str(error):  # an advice to run it
        return "it needs code that comes with it, which is never run."
    last = str(error).splitlines()[-1:] if isinstance(error, StrictDataclassError) else [str(error)]
    text = " ".join(" ".join(last).split()) or type(error).__name__
    text = printable(text)
    return text if len(text) <= LONGEST_CAUSE else f"{text[:LONGEST_CAUSE]} …"


def load_tokenizer(name: str | Path) -> CLIPTokenizer:
    """
    Load a CLIP tokenizer from a folder or the Hub, or that of the bundled model.

    Raises:
        ValueError: if there is none.
    """
    name = find_model(name)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"the tokenizer {str(name)!r} cannot be loaded: {_one_line(error)}") from error
    check_tokenizer(name, tokenizer)
    return tokenizer


def check_tokenizer(name: str | Path, tokenizer: CLIPTokenizer) -> None:
    """ValueError for what transformers makes without a word where it gets no files: a tokenizer of two tokens."""
    if len(tokenizer) <= len({tokenizer.bos_token, tokenizer.eos_token}):
        raise ValueError(f"the tokenizer {str(name)!r} cannot be loaded: its files are neither here nor on the Hub.")


def hash_weights(model: torch.nn.Module) -> str:
    """SHA-256 of names, types, shapes and values of the weights in memory, whatever files they are from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {str(values.dtype).removeprefix('torch.')} {list(values.shape)}\n".encode())
        digest.update(values.view(torch.uint8).numpy() if values.ndim else values.view(1).view(torch.uint8).numpy())
    return digest.hexdigest()
