# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the Trainer is given, checked: arguments, processor, rows with a length; rows made ready for evaluation."""

from collections.abc import Mapping
from typing import Any

import datasets
import pyarrow.compute
from torch.utils.data import IterableDataset

from ..data.rows import one_row_per_sentence, target_kind
from .arguments import ReMamberTrainingArguments
from .evaluation_metrics import METRICS, metrics_of


def check_given(args, processing_class, train_dataset, eval_dataset, others: dict):
    """ValueError for arguments that Trainer takes and the trainer cannot serve."""
    if not isinstance(args, ReMamberTrainingArguments):
        came = "missing" if args is None else f"a {type(args).__name__}"
        raise ValueError(f"args are {came}; give ReMamberTrainingArguments, which have what ReMamber needs besides.")
    if not (hasattr(processing_class, "image_processor") and hasattr(processing_class, "tokenizer")):
        came = "missing" if processing_class is None else f"a {type(processing_class).__name__}"
        raise ValueError(f"processing_class is {came}; give ReMamberProcessor.from_pretrained(…).")
    for name in ("compute_metrics", "preprocess_logits_for_metrics"):
        if others.get(name) is not None:
            raise ValueError(
                f"{name} is given, and evaluation gathers no masks, but the pixel counts of {', '.join(METRICS)}; "
                "leave it out, or take transformers' Trainer for other metrics."
            )
    rates = [name for name in ("backbone_learning_rate", "text_encoder_learning_rate") if getattr(args, name)]
    if others.get("optimizers", (None, None))[0] is not None and rates:
        raise ValueError(f"an optimizer is given and has its learning rates already; leave out {rates[0]}.")
    if isinstance(train_dataset, Mapping):
        raise ValueError(f"train_dataset has {', '.join(map(str, train_dataset))}; give one split of it.")
    named = eval_dataset if isinstance(eval_dataset, Mapping) else {"eval_dataset": eval_dataset}
    for name, rows in {"train_dataset": train_dataset, **named}.items():
        require_length(rows, name)


def check_device(args: ReMamberTrainingArguments):
    """ValueError for arguments that the device, or the batches of shared pictures, do not allow."""
    if args.fp16 and args.device.type == "cpu":
        raise ValueError("fp16 is on and there is no GPU; give --bf16, or neither to train in float32.")
    if args.fsdp and args.device.type == "cpu":
        raise ValueError("fsdp is on and there is no GPU, where accelerate would train without it; leave it out.")
    if args.n_gpu > 1:  # it would be wrapped in DataParallel, which splits pictures apart from expressions
        raise ValueError(
            f"one process sees {args.n_gpu} GPUs; start one for each with `torchrun --nproc_per_node "
            f"{args.n_gpu} -m remamber_hf train …`, or show it one with CUDA_VISIBLE_DEVICES=0."
        )
    if args.accelerator_config.dispatch_batches:
        raise ValueError(
            "dispatch_batches is true, which cuts shared pictures apart from their expressions; leave it out."
        )


def check_metric(metric: str, eval_dataset: Any, has_average: bool):
    """ValueError for a metric_for_best_model that evaluation of these rows, or of a mapping of them, does not give."""
    is_named = isinstance(eval_dataset, dict)
    named = {f"{name}_": rows for name, rows in eval_dataset.items()} if is_named else {"": eval_dataset}
    weights = ["", "ema_"] if has_average else [""]
    names = [dataset + kind + name for dataset, rows in named.items() for kind in weights for name in metrics_of(rows)]
    if metric.removeprefix("eval_") not in names:
        raise ValueError(
            f"metric_for_best_model is {metric!r}, which evaluation does not give; choose one of {', '.join(names)}."
        )


def check_epoch(args: ReMamberTrainingArguments, num_rows: int):
    """ValueError if an epoch of so many rows has no batch."""
    if not num_rows:
        raise ValueError("train_dataset has no rows; give some.")
    batch = args.per_device_train_batch_size * args.world_size
    if args.dataloader_drop_last and num_rows < batch:
        raise ValueError(f"dataloader_drop_last leaves nothing: there are {num_rows} objects for batches of {batch}.")


def require_length(rows, name: str):
    """ValueError for a stream of rows: neither its order nor where it was stopped can be found again."""
    if hasattr(rows, "iterrows"):
        raise ValueError(f"{name} is a table of pandas'; give datasets.Dataset.from_pandas(table), or a list of rows.")
    if rows is not None and (isinstance(rows, IterableDataset) or not hasattr(rows, "__len__")):
        raise ValueError(
            f"{name} is a {type(rows).__name__}, whose rows come without number; give a data set with a length, or "
            "train with transformers' Trainer and ReMamberCollator."
        )


def evaluation_rows(rows, name: str):
    """Rows with one sentence each, each of which counts: expanded where a data set has several in a row."""
    require_length(rows, name)
    rows = without_format(rows)
    if isinstance(rows, datasets.Dataset) and "sentences" in rows.column_names:
        lengths = pyarrow.compute.list_value_length(rows.data.column("sentences"))
        if (pyarrow.compute.max(lengths).as_py() or 0) > 1:
            return one_row_per_sentence(rows)
    return rows


def without_format(rows):
    """Rows as they are stored: the formats of numpy and torch make float32 of coordinates. Transforms are kept."""
    if isinstance(rows, datasets.Dataset) and rows.format["type"] != "custom":
        return rows.with_format(None)
    return rows


def find_no_target(rows) -> list[bool]:
    """Whether each row means nothing in its picture."""
    if isinstance(rows, datasets.Dataset):
        lengths = pyarrow.compute.list_value_length(rows.with_format("arrow")["segmentation"][:])
        return [length == 0 for length in lengths.to_pylist()]
    return [target_kind(rows[index]) == "none" for index in range(len(rows))]


def find_image_ids(rows) -> list[int]:
    """The picture of each row; ValueError if rows do not tell."""
    is_table = isinstance(rows, datasets.Dataset)
    if is_table:
        image_ids: Any = rows.with_format(None)["image_id"] if "image_id" in rows.column_names else [None]
    else:
        image_ids = [rows[index].get("image_id") for index in range(len(rows))]
    if None in image_ids:
        raise ValueError(
            "expressions_per_picture puts objects of a picture side by side, and rows have no image_id; give one, or "
            "leave expressions_per_picture out."
        )
    return image_ids
