# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Command: train ReMamber on referring data and evaluate it. Only wires; see `training/` and `data/`."""

import math
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import set_seed

from .inference.cost import count_parameters
from .inference.image_backend import image_backend
from .processing_remamber import ReMamberProcessor
from .training.arguments import DataArguments, ReMamberTrainingArguments
from .training.callbacks import Curves, SamplePredictions, choose_samples
from .training.lora import add_lora, merge_lora
from .training.model_card import TrainingRun, push_folder, write_model_card
from .training.nonfinite import NotFiniteError
from .training.recipe import parse_arguments
from .training.start import RunData, build_model, read_data
from .training.trainer import ReferringSegmentationTrainer


def main(argv: list[str] | None = None) -> None:
    """Train if `--do_train`, evaluate if `--do_eval`; the output folder holds model, card and metrics."""
    # Several processes: the gradients of depthwise convolutions come in another memory order and are copied, no more.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    told = parse_arguments(list(sys.argv[1:] if argv is None else argv))
    model_arguments, data_arguments, training_arguments, given = told
    # The Trainer would ask the Hub before it trains, and write a card of its own; everything is sent at the end.
    is_pushed, training_arguments.push_to_hub = training_arguments.push_to_hub, False
    is_main = training_arguments.process_index == 0
    set_seed(training_arguments.seed)

    with training_arguments.main_process_first(desc="reading the data"):
        data = read_data(data_arguments, training_arguments)
    if is_main:
        print(describe_rows(data))
    model, processor = build_model(model_arguments, data.train_rows)
    config = model.config
    cut = processor.describe_cut(data.list_sentences())  # in every process, so that none says it later
    if is_main:
        print(describe_steps(training_arguments, processor), *([] if cut is None else [cut]), sep="\n")
    if model_arguments.lora is not None:
        fields: Any = model_arguments.lora  # JSON's text is read by now
        model = add_lora(model, fields, whole=["presence_head"] if model_arguments.predicts_presence else [])
    trainer = make_trainer(model, processor, data, data_arguments, training_arguments)

    metrics, train_metrics = {}, {}
    if training_arguments.do_train:
        train_metrics = train(trainer, training_arguments, is_merged=model_arguments.lora is not None)
    if training_arguments.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    if training_arguments.do_train and is_main:
        run = TrainingRun(
            sources=data.sources,
            num_rows=len(data.train_rows),
            num_removed=data.num_removed,
            train_split=data_arguments.train_split,
            eval_split=data_arguments.eval_split,
            given=given,
            license=model_arguments.license,
            metrics=metrics,
            runtime=train_metrics["train_runtime"],
            is_resumed=trainer.checkpoint is not None,
            steps=trainer.state.global_step,
            epochs=trainer.state.epoch,
            num_parameters=count_parameters([trainer.model])[0],
        )
        write_model_card(config, processor, run, training_arguments)
        print(f"written: {training_arguments.output_dir}")
        if is_pushed:
            print(f"pushed: {push_folder(training_arguments)}")
    # Its threads hold tensors for a while, and abort the process that ends before they let go.
    PartialState().destroy_process_group()


def make_trainer(
    model,
    processor: ReMamberProcessor,
    data: RunData,
    data_arguments: DataArguments,
    arguments: ReMamberTrainingArguments,
) -> ReferringSegmentationTrainer:
    """The Trainer of a run, with curves and sample predictions."""
    eval_rows = data.eval_rows
    try:
        trainer = ReferringSegmentationTrainer(
            model=model,
            args=arguments,
            train_dataset=data.train_rows,
            eval_dataset=next(iter(eval_rows.values())) if len(eval_rows) == 1 else eval_rows or None,
            processing_class=processor,
            callbacks=[Curves()] if arguments.do_train else [],
        )
    except (ImportError, RuntimeError) as error:
        if "install" not in str(error):
            raise
        raise ValueError(f"--report_to {','.join(arguments.report_to or ())}: {error}") from None
    if eval_rows and data_arguments.sample_predictions:
        if trainer.is_fsdp_enabled:
            print("sample predictions are not drawn: no process holds the whole model.")
        else:
            rows = choose_samples(list(eval_rows.values()), data_arguments.sample_predictions)
            trainer.add_callback(SamplePredictions(rows, processor))
    return trainer


def train(
    trainer: ReferringSegmentationTrainer, arguments: ReMamberTrainingArguments, is_merged: bool
) -> dict[str, float]:
    """Train, merge low-rank adapters if there are any, and save; what the Trainer measured of the training."""
    try:
        metrics = trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint).metrics
    except NotFiniteError as error:
        raise ValueError(str(error)) from None
    if is_merged:
        is_main = arguments.process_index == 0
        trainer.model = trainer.model_wrapped = merge_lora(trainer.model, Path(arguments.output_dir), is_main)
    trainer.save_model()
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()
    return metrics


def describe_steps(arguments: ReMamberTrainingArguments, processor: ReMamberProcessor) -> str:
    """How many objects a step has, by what that comes, and what prepares their pictures."""
    factors = {
        "process": arguments.world_size,
        "object": arguments.per_device_train_batch_size,
        "accumulated batch": arguments.gradient_accumulation_steps,
    }
    counts = [
        f"{count} {name if count == 1 else name + ('es' if name.endswith(('s', 'h')) else 's')}"
        for name, count in factors.items()
    ]
    prepared = f"pictures are prepared by {image_backend(processor)}"
    if not arguments.do_train:
        return prepared
    return f"a step: {' × '.join(counts)} = {math.prod(factors.values())} objects; {prepared}"


def describe_rows(data: RunData) -> str:
    """What is trained and evaluated on, in a line each."""
    lines = []
    if data.train_rows is not None:
        lines.append(f"training: {len(data.train_rows)} objects of {', '.join(map(str, data.sources))}")
    if len(data.num_removed) > 1:
        counts = ", ".join(f"{count} of {name}" for name, count in data.num_removed.items())
        lines.append(f"left out, their pictures being in another split of one of these: {counts}")
    if data.eval_rows:
        counts = ", ".join(f"{len(rows)} expressions of {name}" for name, rows in data.eval_rows.items())
        lines.append(f"evaluation: {counts}")
    return "\n".join(lines)


if __name__ == "__main__":  # `python -m remamber_hf.run_training` is `python -m remamber_hf train`
    sys.argv.insert(1, "train")
    runpy.run_module("remamber_hf", run_name="__main__", alter_sys=True)
