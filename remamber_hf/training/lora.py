# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters (LoRA, arXiv 2106.09685) through peft: put in before training, merged into the weights after."""

import warnings
from pathlib import Path

from ..files import weights_as_umask_says
from ..modeling_remamber import ReMamberForImageSegmentation


def add_lora(model: ReMamberForImageSegmentation, fields: dict, whole: list[str] | None = None):
    """
    Freeze a model and put adapters in.

    Args:
        fields: those of peft's LoraConfig; `target_modules` names linear layers, `modules_to_save` what is trained
            whole.
        whole: further parts that are trained whole, such as a new head.

    Returns:
        a PeftModel, whose checkpoints hold only what is trained.

    Raises:
        ValueError: if peft is not installed, or refuses the fields.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ValueError("--lora needs peft: pip install peft.") from None
    to_save = [*(fields.get("modules_to_save") or ()), *(whole or ())]
    try:
        with warnings.catch_warnings():
            # peft asks for it by a name that transformers leaves in version 6, and nobody who trains can mend that.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            return get_peft_model(model, LoraConfig(**{**fields, "modules_to_save": to_save or None}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"--lora is refused by peft: {error}") from None


def merge_lora(model, output_dir: Path, is_main: bool) -> ReMamberForImageSegmentation:
    """The main process saves the adapters of a PeftModel alone in output_dir/adapter; all add them to the weights."""
    if is_main:
        with weights_as_umask_says(output_dir / "adapter"):
            model.save_pretrained(output_dir / "adapter")
    return model.merge_and_unload()
