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
"""A model with its processor, or as a pipeline, ready for inference; where the bundled model lies."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, CLIPTokenizer

from .modeling_remamber import ReMamberForImageSegmentation, load_whole
from .pipeline_remamber import TASK, ReferringSegmentationPipeline
from .processing_remamber import ReMamberProcessor


BUNDLED_MODEL = Path(__file__).parent / "checkpoints" / "shapes"
BUNDLED_PICTURES = Path(__file__).parent / "examples"
DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def load_pipeline(name: str | Path, device: str = "auto", dtype: str = "auto") -> ReferringSegmentationPipeline:
    """A model as a pipeline; see `load_model`."""
    model, processor = load_model(name, device, dtype)
    return ReferringSegmentationPipeline(model=model, processor=processor, device=model.device, task=TASK)


def load_model(
    name: str | Path, device: str = "auto", dtype: str = "auto"
) -> tuple[ReMamberForImageSegmentation, ReMamberProcessor]:
    """
    Load a model for inference and its processor.

    Args:
        name: folder, or name on the Hub.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "mps".
        dtype: "auto" (as saved), "float32", "bfloat16" or "float16".

    Raises:
        ValueError: if it is no ReMamber model, lacks weights or a tokenizer, or device or dtype is not there.
    """
    target = find_device(device)
    if dtype not in DTYPES:
        raise ValueError(f"the dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}.")
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} is no model that can be loaded: {error}") from None
    if config.model_type != "remamber":
        raise ValueError(f"{name} is a model of type {config.model_type!r}; give one of type 'remamber'.")
    try:
        model = load_whole(ReMamberForImageSegmentation, name, dtype=dtype)
        processor = ReMamberProcessor.from_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{name} cannot be loaded: {error}") from None
    check_tokenizer(name, processor.tokenizer)
    return model.to(target), processor


def load_tokenizer(name: str | Path) -> CLIPTokenizer:
    """
    Load a CLIP tokenizer from a folder or the Hub.

    Raises:
        ValueError: if there is none.
    """
    try:
        tokenizer = CLIPTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"the tokenizer {str(name)!r} cannot be loaded: {str(error).splitlines()[0]}") from None
    check_tokenizer(name, tokenizer)
    return tokenizer


def check_tokenizer(name: str | Path, tokenizer: CLIPTokenizer) -> None:
    """ValueError for what transformers makes without a word where it gets no files: a tokenizer of two tokens."""
    if len(tokenizer) <= len({tokenizer.bos_token, tokenizer.eos_token}):
        raise ValueError(f"the tokenizer {str(name)!r} cannot be loaded: its files are neither here nor on the Hub.")


def find_device(device: str) -> torch.device:
    """The torch device for one of `DEVICES`; ValueError if it is unknown or not on this machine."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if available[name]))
    if device not in available:
        raise ValueError(f"the device {device!r} is unknown; use one of {', '.join(DEVICES)}.")
    if not available[device]:
        raise ValueError(f"the device {device!r} is not available on this machine; use --device auto.")
    return torch.device(device)
