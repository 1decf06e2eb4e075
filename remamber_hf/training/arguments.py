# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What `remamber train` is told: model and data; the rest are the TrainingArguments of transformers."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch._inductor import list_mode_options
from transformers import TrainingArguments
from transformers.integrations import is_deepspeed_available

from .augmentation import read_variations


@dataclass
class ModelArguments:
    """Where the model comes from: a ReMamber model, a text encoder and a backbone, or nothing but a config."""

    model: str | None = field(
        default=None, metadata={"help": "Name or folder of a ReMamber model with its processor, to train on."}
    )
    text_model: str | None = field(
        default=None,
        metadata={"help": "Name or folder of a CLIP with its tokenizer, to start from; with --vision_model."},
    )
    vision_model: str | None = field(
        default=None, metadata={"help": "Name or folder of a VMamba, to start from; with --text_model."}
    )
    model_config: dict | str | None = field(
        default=None,
        metadata={
            "help": "Fields of ReMamberConfig, as a mapping in YAML or a JSON file: alone, to start from nothing; or "
            "those of fusion and mask head, with --text_model and --vision_model."
        },
    )
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "Side of the square, in pixels, that pictures are resized to; that of --model, or else 480, if "
            "not given."
        },
    )
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "Name or folder of a CLIP tokenizer, from nothing; by default one is trained on the sentences."
        },
    )
    new_tokenizer: bool = field(
        default=False,
        metadata={
            "help": "Train a tokenizer on the sentences in place of that of --model; tokens of both stay as learnt."
        },
    )
    vocabulary_size: int = field(default=1024, metadata={"help": "Tokens of the tokenizer that is trained."})
    predicts_presence: bool = field(
        default=False,
        metadata={
            "help": "Have the model say whether an expression means anything: a new head, where --model has none yet."
        },
    )
    lora: dict | str | None = field(
        default=None,
        metadata={"help": "Train low-rank adapters: fields of peft's LoraConfig, as a mapping or a JSON file."},
    )
    license: str | None = field(
        default=None, metadata={"help": "Licence of the trained weights, for the model card, such as apache-2.0."}
    )


@dataclass
class DataArguments:
    """Which data is trained and evaluated on, see `data/mixture.py`."""

    data_dir: str | None = field(
        default=None, metadata={"help": "Folder of REFER data sets and the pictures, or of your own data."}
    )
    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Name of a REFER data set in data_dir, or several, as in refcoco,refcoco+,refcocog; by default "
            "what is there. Without --data_dir, a data set of the Hub."
        },
    )
    split_by: str | None = field(
        default=None,
        metadata={"help": "Who split it: unc, google, umd or berkeley, for each data set; by default what is there."},
    )
    generalized: bool = field(
        default=False,
        metadata={"help": "Read grefs(…).json, where sentences may mean several objects or none; always of grefcoco."},
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="val", metadata={"help": "Split to evaluate on."})
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on the first N sentences of each data set only."}
    )
    on_error: str = field(
        default="raise",
        metadata={"help": "What is wrong in a REFER data set: raise stops there, skip leaves it out and counts it."},
    )
    sentences: str = field(
        default="sent",
        metadata={"help": "Text of a REFER data set: sent, as it was cleaned, or raw, as it was written."},
    )
    sample_predictions: int = field(
        default=8, metadata={"help": "Samples that are drawn after every evaluation, into output_dir/samples."}
    )


PARTS = ("text_encoder", "backbone", "fusion", "mask_head", "presence_head")
WEIGHT_DECAY_MODES = ("matrices", "published")


@dataclass
class ReMamberTrainingArguments(TrainingArguments):
    """
    The TrainingArguments of transformers, with what ReMamber's training needs besides.

    `learning_rate` is that of fusion and mask head. A cosine that ends at a floor is `lr_scheduler_type:
    cosine_with_min_lr` with `lr_scheduler_kwargs: {min_lr: 1.0e-6}`; the other learning rates fall in proportion.
    """

    # The collator reads the rows whole.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must be false: the collator reads all."})
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Expressions per device in evaluation."})
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Search for weights without a gradient; no weight of ReMamber is without."}
    )
    expressions_per_picture: int = field(
        default=1,
        metadata={
            "help": "Most objects of one picture that stand side by side in a batch, where they share the picture."
        },
    )
    augment: str | None = field(
        default=None,
        metadata={
            "help": "Vary pictures in training: flip (exchanges the English words left and right), colour, zoom, with "
            "commas between them."
        },
    )
    no_target_share: float | None = field(
        default=None,
        metadata={
            "help": "Share of an epoch, in [0, 1), of sentences that mean nothing in their picture; by default as the "
            "data has them."
        },
    )
    if TYPE_CHECKING:  # what `TrainingArguments` makes of them; the command reads its annotations, not these
        output_dir: str = ""
        accelerator_config: Any = None

    text_encoder_learning_rate: float | None = field(
        default=None, metadata={"help": "Of the text encoder; by default learning_rate."}
    )
    backbone_learning_rate: float | None = field(
        default=None, metadata={"help": "Of the vision backbone; by default learning_rate."}
    )
    weight_decay_mode: str = field(
        default="matrices",
        metadata={
            "help": "matrices decays linear layers and convolutions only; published decays every weight, as the "
            "released code does.",
            "choices": WEIGHT_DECAY_MODES,
        },
    )
    freeze: list[str] = field(
        default_factory=list, metadata={"help": f"Parts that stay as they are: {', '.join(PARTS)}."}
    )
    dice_weight: float = field(default=1.0, metadata={"help": "Factor of the dice loss."})
    cross_entropy_weight: float = field(default=1.0, metadata={"help": "Factor of the cross-entropy."})
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Keep a moving average of the weights, such as 0.9999; it is evaluated as eval_ema_* and saved in "
            "the folder ema/ beside the trained weights."
        },
    )
    ema_start_step: int = field(default=0, metadata={"help": "Steps up to which the average equals the weights."})
    max_nonfinite_steps: int = field(
        default=10, metadata={"help": "Skipped steps in a row, their loss not finite, that stop training."}
    )
    sync_batch_norm: bool = field(
        default=False, metadata={"help": "Batch norm over the batches of all processes, in the mask heads."}
    )

    def __post_init__(self):
        if self.deepspeed is not None and not is_deepspeed_available():
            raise ValueError("deepspeed is given, which needs a package: pip install deepspeed.")
        super().__post_init__()
        self.freeze = [self.freeze] if isinstance(self.freeze, str) else list(self.freeze or [])
        for name in ("text_encoder_learning_rate", "backbone_learning_rate", "ema_decay", "no_target_share"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (int, float)):
                raise ValueError(f"{name} is {value!r}; give a number.")
        if self.gradient_accumulation_steps < 1:
            raise ValueError(
                f"gradient_accumulation_steps is {self.gradient_accumulation_steps}; it must be 1 or more."
            )
        if self.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor is {self.label_smoothing_factor}; the loss has none, leave it out."
            )
        if self.batch_eval_metrics or not self.eval_do_concat_batches:
            raise ValueError(
                "evaluation counts pixels of all samples; leave out batch_eval_metrics and eval_do_concat_batches."
            )
        if self.include_for_metrics:
            raise ValueError(
                f"include_for_metrics is {self.include_for_metrics}; evaluation gathers counts only, leave it out."
            )
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns is true; the collator needs every column, leave it false.")
        if self.use_liger_kernel:
            raise ValueError("use_liger_kernel is true; Liger has no kernel for ReMamber, leave it out.")
        if self.debug:
            kinds = [str(getattr(kind, "value", kind)) for kind in self.debug]
            raise ValueError(f"debug is {kinds}; it knows no bool tensors, leave it out.")
        if self.torch_compile_mode not in (None, *list_mode_options()):
            modes = ", ".join(list_mode_options())
            raise ValueError(f"torch_compile_mode is {self.torch_compile_mode!r}; choose one of {modes}.")
        if self.expressions_per_picture < 1:
            raise ValueError(f"expressions_per_picture is {self.expressions_per_picture}; it must be 1 or more.")
        if self.augment is not None:
            read_variations(self.augment)
        if self.no_target_share is not None and not 0 <= self.no_target_share < 1:
            raise ValueError(f"no_target_share is {self.no_target_share}; it must be in [0, 1).")
        for name in ("text_encoder_learning_rate", "backbone_learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(
                    f"{name} is {value}; it must be greater than 0. To leave a part as it is, name it in freeze."
                )
        if self.weight_decay_mode not in WEIGHT_DECAY_MODES:
            raise ValueError(f"weight_decay_mode is {self.weight_decay_mode!r}; give matrices or published.")
        unknown = [part for part in self.freeze if part not in PARTS]
        if unknown:
            raise ValueError(f"freeze names {', '.join(unknown)}; the parts are {', '.join(PARTS)}.")
        if min(self.dice_weight, self.cross_entropy_weight) < 0 or self.dice_weight + self.cross_entropy_weight == 0:
            raise ValueError(
                f"dice_weight is {self.dice_weight}, cross_entropy_weight is {self.cross_entropy_weight}; neither may "
                "be below 0, and not both be 0."
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be between 0 and 1, such as 0.9999.")
        if self.ema_start_step < 0:
            raise ValueError(f"ema_start_step is {self.ema_start_step}; it must be 0 or more.")
        if self.ema_start_step and self.ema_decay is None:
            raise ValueError(f"ema_start_step is {self.ema_start_step} without ema_decay; give ema_decay too.")
        if self.deepspeed_plugin is not None:
            if self.deepspeed_plugin.zero_stage == 3:
                raise ValueError(
                    "DeepSpeed's ZeRO stage is 3, which splits weights before they are loaded; use 1 or 2."
                )
            if self.bf16 or self.fp16:
                raise ValueError(
                    "DeepSpeed would hold the weights in half precision, decay rates and batch norms too; leave out "
                    'bf16 and fp16, and add "torch_autocast": {"enabled": true, "dtype": "bfloat16"} to its config.'
                )
        if self.max_nonfinite_steps < 1:
            raise ValueError(f"max_nonfinite_steps is {self.max_nonfinite_steps}; it must be 1 or more.")
        if str(self.resume_from_checkpoint).lower() in ("true", "false"):
            # A bool is what Trainer.train takes.
            self.resume_from_checkpoint = str(self.resume_from_checkpoint).lower() == "true"  # type: ignore[assignment]
