# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of a run share: a recipe of a tiny model, and tiny parts to make one from."""

from pathlib import Path

import runs
from tiny import make_tokenizer, vision_config
from transformers import CLIPTextConfig, CLIPTextModel

from remamber_hf import VMambaForImageClassification


RECIPE = {
    "dataset": "shapes",
    "image_size": 64,
    "vocabulary_size": 600,
    "model_config": {
        "mask_head": "mamba",
        "text_length": 10,
        "correlation_size": 8,
        "channel_scan_size": 4,
        "decoder_depths": [1, 1, 1, 1],
        "num_fusion_blocks": 1,
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 10,
        },
        "initializer_range": 0.1,
        "vision_config": {
            "hidden_sizes": [8, 16, 32, 64],
            "depths": [1, 1, 1, 1],
            "drop_path_rate": 0.0,
            "initializer_range": 0.1,
        },
    },
    "do_train": True,
    "do_eval": True,
    "use_cpu": True,
    "seed": 3,
    "learning_rate": 2.0e-3,
    "per_device_train_batch_size": 8,
    "max_steps": 12,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 6,
    "save_strategy": "no",
    "report_to": "tensorboard",
    "disable_tqdm": True,
    "license": "apache-2.0",
}


def save_parts(folder: Path):
    """A tiny CLIP text encoder with its tokenizer and a tiny VMamba classifier, saved in `folder`."""
    tokenizer = make_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = CLIPTextModel(CLIPTextConfig(**runs.TEXT_FIELDS, vocab_size=len(tokenizer), **ids))
    text.save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    vision = VMambaForImageClassification(vision_config(num_labels=3))
    vision.save_pretrained(folder / "vmamba")
    return text, vision
