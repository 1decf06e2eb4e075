# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What several test files share: tiny configs, inputs and tokenizer, the reference cases, a process without us."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from remamber_hf import (
    ReMamberConfig,
    ReMamberForImageSegmentation,
    VimConfig,
    VMambaConfig,
    VMambaForImageClassification,
)
from remamber_hf.convert_checkpoint import convert_state_dict
from remamber_hf.selective_scan import BACKENDS


GOLDEN = Path(__file__).parent / "fixtures" / "golden"
SEGMENTATION_CASES = ("conv_tiny", "mamba_tiny")
MASK_HEADS = ("conv", "mamba")

TEXT_FIELDS = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
    "projection_dim": 32,
    "bos_token_id": 97,
    "eos_token_id": 98,
    "pad_token_id": 98,
}
VISION_FIELDS = {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1], "drop_path_rate": 0.0}
# 48 by 64 pixels are 3 by 4 patches.
VIM_FIELDS = {"image_size": [48, 64], "hidden_size": 24, "num_hidden_layers": 3, "state_size": 4}
CLASS_TOKENS = ("middle", "first", "both", "none")
REMAMBER_FIELDS = {"text_length": 7, "correlation_size": 16, "channel_scan_size": 4, "decoder_depths": [1, 1, 1, 1]}
# Every fusion, arrangement of scans and option, by the fields that differ from the published model's.
FUSIONS: dict[str, dict] = {
    "twister": {},
    "in_context": {"fusion": "in_context"},
    "cross_attention": {"fusion": "cross_attention"},
    "norm_adaptation": {"fusion": "norm_adaptation"},
}
FUSION_VARIANTS: dict[str, dict] = {
    **FUSIONS,
    "spatial_then_channel": {"twister_scans": "spatial_then_channel"},
    "parallel": {"twister_scans": "parallel"},
    "channel": {"twister_scans": "channel"},
    "spatial": {"twister_scans": "spatial"},
    "no_global_text": {"use_global_text": False},
    "no_local_text": {"use_local_text": False},
    "suffix": {"fusion": "in_context", "in_context_position": "suffix"},
    "window": {"fusion": "in_context", "in_context_window": 3},
    "window_both": {"fusion": "in_context", "in_context_window": 4, "in_context_position": "both"},
    "window_suffix": {"fusion": "in_context", "in_context_window": 2, "in_context_position": "suffix"},
}


def vision_config(**fields) -> VMambaConfig:
    return VMambaConfig(**{**VISION_FIELDS, **fields})


def vim_config(**fields) -> VimConfig:
    return VimConfig(**{**VIM_FIELDS, **fields})


def remamber_config(mask_head: str = "conv", **fields) -> ReMamberConfig:
    sub_configs = {"text_config": dict(TEXT_FIELDS), "vision_config": dict(VISION_FIELDS)}
    return ReMamberConfig(**{**sub_configs, **REMAMBER_FIELDS, "mask_head": mask_head, **fields})


def segmentation_inputs(batch_size: int = 2, height: int = 64, width: int = 96, seed: int = 0) -> dict:
    """Random pictures, expressions that end with the end token, and masks, for the tiny config."""
    generator = torch.Generator().manual_seed(seed)
    end, length = TEXT_FIELDS["eos_token_id"], REMAMBER_FIELDS["text_length"]
    input_ids = torch.randint(0, end - 1, (batch_size, length), generator=generator)
    input_ids[:, -2:] = end
    attention_mask = torch.ones_like(input_ids)
    attention_mask[:, -1] = 0
    return {
        "pixel_values": torch.randn(batch_size, 3, height, width, generator=generator),
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": torch.randint(0, 2, (batch_size, height, width), generator=generator),
    }


def build(mask_head: str = "conv", model_class=ReMamberForImageSegmentation, seed: int = 0, **fields):
    """Model with the tiny config and random weights, in eval mode."""
    torch.manual_seed(seed)
    return model_class(remamber_config(mask_head, **fields)).eval()


def unlabelled_inputs(*args, **kwargs) -> dict:
    """`segmentation_inputs` without the masks."""
    inputs = segmentation_inputs(*args, **kwargs)
    del inputs["labels"]
    return inputs


def make_tokenizer(**fields) -> CLIPTokenizer:
    """A byte-level CLIP tokenizer that knows the words cat and dog."""
    alphabet = sorted(ByteLevel.alphabet())
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    tokens = alphabet + [letter + "</w>" for letter in alphabet] + ["".join(merge) for merge in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77, **fields)


# ------------------------------------------------------------------------------------------------- reference cases
_spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
golden_fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_fill)


def golden_state_dict(case: str) -> dict[str, torch.Tensor]:
    """State dict of a reference case under the published names."""
    return {name: torch.from_numpy(value) for name, value in golden_fill.state_dict(case).items()}


def golden_tensors(case: str) -> dict[str, torch.Tensor]:
    """Inputs and outputs of a reference case."""
    return load_file(GOLDEN / f"{case}.safetensors")


def golden_inputs(case: str) -> dict[str, torch.Tensor]:
    """Arguments of the model for a reference case."""
    tensors = golden_tensors(case)
    return {name: tensors[name] for name in ("pixel_values", "input_ids", "attention_mask") if name in tensors}


def golden_model(case: str, scan_backend: str = "auto") -> ReMamberForImageSegmentation | VMambaForImageClassification:
    """Model with the weights of a reference case, in eval mode, without stochastic depth."""
    config, state_dict = convert_state_dict(golden_state_dict(case))
    getattr(config, "vision_config", config).drop_path_rate = 0.0
    is_classifier = isinstance(config, VMambaConfig)
    model = (VMambaForImageClassification if is_classifier else ReMamberForImageSegmentation)(config)
    model.load_state_dict(state_dict)
    model.set_scan_backend(scan_backend)
    return model.eval()


# --------------------------------------------------------------------------------------------------- other processes
def run_without_package(code: str, folder: Path) -> str:
    """
    Run Python code in `folder`, in a fresh process that cannot import `remamber_hf`, and return what it prints.

    Code that comes with a checkpoint is cached in `folder` / modules, so that no other test's is found.
    """
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    code = "import sys\nsys.modules['remamber_hf'] = None\n" + code
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def scan_backends(*names: str) -> list:
    """Parameters for pytest: the named backends on a CPU, each skipped with the reason where it cannot run."""
    reasons = {name: BACKENDS[name].why_not(torch.device("cpu")) for name in names}
    return [pytest.param(name, marks=pytest.mark.skipif(bool(why), reason=why)) for name, why in reasons.items()]


def base_inputs(case):
    """What the reference cases of the published size were run on."""
    pixel_values = np.random.default_rng(11).standard_normal((1, 3, 480, 480), dtype=np.float32)
    tensors = golden_tensors(case)
    inputs = {name: tensors[name] for name in ("input_ids", "attention_mask")}
    return {"pixel_values": torch.from_numpy(pixel_values), **inputs}
