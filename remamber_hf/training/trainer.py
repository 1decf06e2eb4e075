# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The Trainer for referring segmentation: ReMamber's parts and loss, evaluation as pixel counts, exact resume."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy
from transformers.utils import logging

from ..data.collator import ReMamberCollator
from ..data.rle import decode_mask
from ..files import make_whole_file, weights_as_umask_says
from ..inference.cost import find_remamber, model_parts
from ..inference.devices import peak_gpu_memory
from ..losses_remamber import presence_loss, segmentation_loss
from ..processing_remamber import ReMamberProcessor
from .arguments import ReMamberTrainingArguments
from .augmentation import read_variations
from .checkpoints import (
    PROGRESS,
    STAGING,
    files_in,
    newest_whole_checkpoint,
    publish,
    read_json,
    require_no_checkpoint,
    require_whole,
    rotate,
)
from .drawn_sentences import DrawnSentences
from .ema import AVERAGE, AVERAGED_MODEL, WeightAverage
from .evaluation_metrics import ALWAYS_ONE, EvaluationCollator, compute_metrics, count_samples
from .flops import BatchFlops
from .given import (
    check_device,
    check_epoch,
    check_given,
    check_metric,
    evaluation_rows,
    find_image_ids,
    find_no_target,
    without_format,
)
from .nonfinite import NonFiniteSteps
from .parameter_groups import decayed_parameter_names
from .sampler import PictureGroupSampler
from .saved_state import (
    BAD_FILE,
    NOT_OF_THIS_MODEL,
    cannot_be_read,
    check_design,
    check_finite,
    check_optimizer,
    is_like,
    settings_of,
    word,
)
from .start import freeze_parts
from .step_hooks import StepHooks
from .sync_batch_norm import synchronize_batch_norm


logger = logging.get_logger(__name__)

NOT_FOR_THE_MODEL = ("ref_ids", "original_masks", "target_kinds")  # in a batch


class ReferringSegmentationTrainer(Trainer):
    """
    Trains [`ReMamberForImageSegmentation`] on rows of `load_refer`, as [`ReMamberTrainingArguments`] say.

    - Each part (text encoder, backbone, fusion, mask head) has its learning rate, or is frozen.
    - Evaluation turns each sample into pixel counts at the picture's own size, so that no mask is gathered; the
      metrics are those of `evaluation/referring_iou`, see `evaluation_metrics.py`. With `ema_decay` the averaged
      weights are evaluated too, as `eval_ema_*`.
    - A run that is killed and resumed goes on as if nothing had happened: the sentences that are drawn depend on seed,
      epoch and row, evaluation leaves the random state alone, and checkpoints are whole or not there.
    - A step whose loss or gradient is not finite changes nothing, see `NonFiniteSteps`. The schedule goes on.

    What it is given as a Trainer it honours, or refuses in one line: evaluation gathers pixel counts, so no
    `compute_metrics`; an exact resume needs rows with a length, so no stream. Evaluation rows with several sentences
    are expanded, each sentence counts. A `compute_loss_func` takes the place of Dice and cross-entropy; that of a
    presence head is added.

    `save_model` writes the trained weights and, with `ema_decay`, a folder `ema` beside them with the averaged ones.

    Raises:
        ValueError: if an argument is missing, cannot be served, or asks for what the model or the device cannot do.
    """

    # What transformers leaves open is settled here; rows are of `datasets`, or of any data set with a length.
    args: ReMamberTrainingArguments
    model: nn.Module
    processing_class: ReMamberProcessor
    train_dataset: Any
    eval_dataset: Any
    lr_scheduler: Any

    def __init__(
        self,
        model=None,
        args: ReMamberTrainingArguments | None = None,
        data_collator=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class: ReMamberProcessor | None = None,
        **kwargs,
    ):
        check_given(args, processing_class, train_dataset, eval_dataset, kwargs)
        if data_collator is None:
            data_collator = ReMamberCollator(processing_class, keep_ids=True, share_pictures=True)
        super().__init__(
            model,
            args,
            data_collator,
            train_dataset,
            eval_dataset,
            processing_class,
            compute_metrics=compute_metrics,
            **kwargs,
        )
        if self.model_init is None:
            self._prepare_to_train(self.model)
        self._check_arguments()
        self.eval_collator = EvaluationCollator(self.processing_class)
        self._draw_sentences()
        self.group_sampler: PictureGroupSampler | None = None
        self.average: WeightAverage | None = None
        self.nonfinite_steps = self._count_nonfinite_steps()
        self.flops = BatchFlops()
        self.is_staging = False
        self.checkpoint: str | None = None  # that training was resumed from
        self.grad_norm: float | None = None
        self.add_callback(StepHooks(self))

    def call_model_init(self, trial=None):
        model = super().call_model_init(trial)
        self._prepare_to_train(model)
        return model

    def _prepare_to_train(self, model: nn.Module):
        """What the arguments ask of a model, before its first step."""
        freeze_parts(model, self.args.freeze)
        if self.args.sync_batch_norm and self.args.world_size > 1:
            synchronize_batch_norm(model)

    def _draw_sentences(self):
        if self.train_dataset is not None and not isinstance(self.train_dataset, DrawnSentences):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            variations = () if self.args.augment is None else read_variations(self.args.augment)
            self.train_dataset = DrawnSentences(without_format(self.train_dataset), seed, variations)

    def _count_nonfinite_steps(self) -> NonFiniteSteps:
        return NonFiniteSteps(self.accelerator, self.args.output_dir, self.args.max_nonfinite_steps)

    def _check_arguments(self):
        model_parts(self.model)
        check_device(self.args)
        kwargs: Any = self.args.gradient_checkpointing_kwargs or self.args.activation_checkpointing_kwargs or {}
        if kwargs.get("use_reentrant") and not all(weight.requires_grad for weight in self.model.parameters()):
            raise ValueError(
                "use_reentrant is true and weights are frozen, behind which the others would get no gradient; leave "
                "use_reentrant out."
            )
        if self.args.ema_decay is not None and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                "ema_decay is given, and FSDP or DeepSpeed would split the weights that are averaged; train without "
                "one of the two."
            )
        if self.args.eval_strategy != IntervalStrategy.NO and self.args.metric_for_best_model is not None:
            check_metric(self.args.metric_for_best_model, self.eval_dataset, self.args.ema_decay is not None)

    # ------------------------------------------------------------------------------------------------------ training

    def train(  # type: ignore[override]  # the rest comes by name
        self, resume_from_checkpoint: str | bool | None = None, trial=None, **kwargs
    ):
        """
        Train, from the start or on from a checkpoint.

        Args:
            resume_from_checkpoint: folder of a checkpoint; or true for the newest whole one in `output_dir`, and from
                the start if there is none.
            trial: that of `hyperparameter_search`, which has a folder of its own in `output_dir`.

        Raises:
            FileNotFoundError: if the checkpoint does not exist.
            ValueError: if it is not whole, or none in `output_dir` is; if training is to start from the start and
                `output_dir` has checkpoints already; if there is nothing to train, or to train on.
            RuntimeError: after `max_nonfinite_steps` in a row.
        """
        if self.train_dataset is None:
            raise ValueError("train_dataset is missing; give rows of load_refer or load_referring_folder.")
        self._draw_sentences()  # of rows that were given since
        run_dir = self._get_output_dir(trial)
        num_rows = len(self.train_dataset)
        if num_rows and self.args.no_target_share is not None:
            num_rows = len(self._get_train_sampler())
        check_epoch(self.args, num_rows)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = newest_whole_checkpoint(run_dir)
            if resume_from_checkpoint is None:
                logger.warning(f"There is no checkpoint in {run_dir}; training starts from the start.")
        elif resume_from_checkpoint:
            require_whole(resume_from_checkpoint)
        self.checkpoint = resume_from_checkpoint or None
        is_split = self.is_deepspeed_enabled or self.is_fsdp_enabled  # their optimizer's files have other names
        if self.checkpoint is None:
            require_no_checkpoint(run_dir)
        elif not is_split and not (Path(self.checkpoint) / OPTIMIZER_NAME).is_file():
            raise ValueError(
                f"{self.checkpoint} was saved with save_only_model, which no run resumes from; start one from its "
                "weights."
            )
        return super().train(resume_from_checkpoint=self.checkpoint, trial=trial, **kwargs)

    def _get_train_sampler(self, train_dataset=None):
        size, share = self.args.expressions_per_picture, self.args.no_target_share
        if size == 1 and share is None:
            return super()._get_train_sampler(train_dataset)
        rows = self.train_dataset.rows
        image_ids = range(len(rows)) if size == 1 else find_image_ids(rows)
        is_no_target = [] if share is None else find_no_target(rows)
        self.group_sampler = PictureGroupSampler(image_ids, size, self.train_dataset.seed, is_no_target, share)
        return self.group_sampler

    def _run_epoch(self, *args, **kwargs):
        if self.state.global_step >= self.state.max_steps:  # resumed from the last checkpoint
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        opt_model = self.model if model is None else model
        if not any(parameter.requires_grad for parameter in opt_model.parameters()):
            raise ValueError("every weight is frozen, or every adapter; leave some to be trained.")
        if self.optimizer is None:
            try:
                optimizer = super().create_optimizer(model)
            except (ImportError, TypeError, ValueError, RuntimeError) as error:
                kind, fields = word(self.args.optim), self.args.optim_args
                raise ValueError(f"optim is {kind}, and optim_args {fields!r}: {error}") from None
            parts = {
                id(parameter): part
                for part, module in model_parts(opt_model).items()
                for parameter in module.parameters()
            }
            rates: dict[str | None, float | None] = {
                "backbone": self.args.backbone_learning_rate,
                "text_encoder": self.args.text_encoder_learning_rate,
            }
            groups = []  # in the order in which checkpoints have them
            for part in ("fusion", "mask_head", "backbone", "text_encoder", "presence_head", None):
                for group in optimizer.param_groups:
                    # None: what a subclass or a wrapper has besides the parts
                    parameters = [parameter for parameter in group["params"] if parts.get(id(parameter)) == part]
                    if parameters:
                        groups.append({**group, "params": parameters, "lr": rates.get(part) or group["lr"]})
            optimizer.param_groups = groups
        return self.optimizer  # type: ignore[return-value]  # made by now

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        try:
            return super().create_scheduler(num_training_steps, optimizer)
        except (ImportError, TypeError, ValueError, ArithmeticError) as error:
            kind, fields = word(self.args.lr_scheduler_type), self.args.lr_scheduler_kwargs
            raise ValueError(f"lr_scheduler_type is {kind}, and lr_scheduler_kwargs {fields}: {error}") from None

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """See `decayed_parameter_names`; all of them, as published, if the arguments say so."""
        if self.args.weight_decay_mode == "published":
            return [name for name, _ in model.named_parameters()]
        return decayed_parameter_names(model)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if model.training:  # a frozen part keeps all of its blocks
            for part in self.args.freeze:
                model_parts(model)[part].eval()
        if "labels" not in inputs:
            raise ValueError(f"a batch has no labels, but {', '.join(inputs)}; have the data collator make them.")
        inputs = {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
        labels = inputs.pop("labels")
        outputs = model(**inputs, return_dict=True)
        if self.compute_loss_func is not None:
            loss = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items_in_batch)
            share = 1.0 if num_items_in_batch is None else len(labels) / num_items_in_batch
            loss = loss + share * self.presence_loss(outputs, labels, inputs)
            return (loss, outputs) if return_outputs else loss
        loss = self.weighted_loss(outputs.logits, labels) + self.presence_loss(outputs, labels, inputs)
        if num_items_in_batch is not None:
            loss = loss * (len(labels) * self.current_gradient_accumulation_steps / num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches of a step and the number of their objects; the last batch of an epoch may have fewer."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(len(batch.get("labels", ())) for batch in batches)

    def floating_point_ops(self, inputs) -> int:
        """Operations of forward and backward pass of a batch, see `BatchFlops`; 0 where weights are in parts."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            return 0
        batch = {name: value for name, value in inputs.items() if name not in (*NOT_FOR_THE_MODEL, "labels")}
        return self.flops.count(self.model, batch)

    def weighted_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return segmentation_loss(logits, labels, self.args.dice_weight, self.args.cross_entropy_weight)

    def presence_loss(
        self, outputs: Any, labels: torch.Tensor, inputs: dict[str, Any], part: slice = slice(None)
    ) -> torch.Tensor | float:
        """That of the presence head on a part of the batch, by the model's own weight; 0 without one."""
        presence_logits = getattr(outputs, "presence_logits", None)  # a user's own forward may know none
        if presence_logits is None:
            return 0.0
        weight, is_present = find_remamber(self.model).config.presence_loss_weight, inputs.get("is_present")
        is_present = None if is_present is None else is_present[part]
        return weight * presence_loss(presence_logits[part], labels[part], is_present)

    def sample_losses(self, outputs: Any, labels: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """The loss of each sample of a batch, (batch,)."""
        losses = []
        for part in (slice(index, index + 1) for index in range(len(labels))):
            loss = self.weighted_loss(outputs.logits[part], labels[part])
            losses.append(loss + self.presence_loss(outputs, labels, inputs, part))
        return torch.stack(losses)

    def training_step(self, model, inputs, num_items_in_batch=None):
        ref_ids = inputs.pop("ref_ids", [])
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.nonfinite_steps.add_batch(loss, ref_ids)
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        grad_norm = super()._get_grad_norm(model, grad_norm)
        self.grad_norm = None if grad_norm is None else float(grad_norm)
        return grad_norm

    def log(self, logs: dict[str, float], *args, **kwargs):
        if self.nonfinite_steps.count and ("loss" in logs or "train_loss" in logs):
            logs["nonfinite_steps"] = self.nonfinite_steps.count
        if (memory := peak_gpu_memory(self.args.device)) is not None:
            logs["gpu_memory_mib"] = memory
        super().log(logs, *args, **kwargs)

    # ---------------------------------------------------------------------------------------------------- evaluation

    @contextmanager
    def _collating_for_evaluation(self):
        train_collator, self.data_collator = self.data_collator, self.eval_collator
        try:
            yield
        finally:
            self.data_collator = train_collator

    def get_eval_dataloader(self, eval_dataset=None):
        # A name stays one: Trainer keeps the loader of each.
        if isinstance(eval_dataset, str):
            self.eval_dataset[eval_dataset] = evaluation_rows(self.eval_dataset[eval_dataset], eval_dataset)
        elif eval_dataset is None:
            self.eval_dataset = evaluation_rows(self.eval_dataset, "eval_dataset")
        else:
            eval_dataset = evaluation_rows(eval_dataset, "eval_dataset")
        with self._collating_for_evaluation():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset):
        with self._collating_for_evaluation():
            return super().get_test_dataloader(evaluation_rows(test_dataset, "test_dataset"))

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Metrics of the trained weights and, with `ema_decay`, of the averaged ones, as `eval_ema_*`."""
        if isinstance(self.eval_dataset if eval_dataset is None else eval_dataset, dict):
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)  # comes back for each of them
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
            if self.average is not None:
                with self.average.in_place(self.model):
                    metrics |= super().evaluate(eval_dataset, ignore_keys, f"{metric_key_prefix}_ema")
        return metrics

    def evaluation_loop(self, *args, **kwargs):
        if self.args.world_size > 1:
            # Each process has taken statistics of batch norm of its own; those of the first one are saved.
            for buffer in self.model.buffers():
                dist.broadcast(buffer, src=0)
        return super().evaluation_loop(*args, **kwargs)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """
        Per sample of the batch what `count_samples` counts at the picture's own size and its loss, then its kind; the
        mean loss that the Trainer makes of batches is wrong for an uneven last one.
        """
        if "original_masks" not in inputs:
            raise ValueError("a batch has no original_masks; evaluate with the loader of get_eval_dataloader().")
        masks = [decode_mask(rle) for rle in inputs.pop("original_masks")]
        inputs = self._prepare_inputs(inputs)
        labels = inputs.pop("labels")
        kinds = inputs.pop("target_kinds", torch.full((len(labels),), ALWAYS_ONE, device=labels.device))
        is_own_loss = type(self).compute_loss is ReferringSegmentationTrainer.compute_loss
        with torch.no_grad(), self.compute_loss_context_manager():
            if is_own_loss and self.compute_loss_func is None:
                outputs = model(**inputs, return_dict=True)
                losses = self.sample_losses(outputs, labels, inputs)
            else:  # somebody else's loss, which is one for the batch
                count = None if self.compute_loss_func is None else len(labels)
                batch = {**inputs, "labels": labels}
                loss, outputs = self.compute_loss(model, batch, return_outputs=True, num_items_in_batch=count)
                losses = loss.detach().expand(len(labels))
        return None, (count_samples(self.processing_class, outputs, masks).to(losses.device), losses), kinds

    # --------------------------------------------------------------------------------------------------- checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False):
        """Save trained weights and processor and, except in a checkpoint, the averaged model in the folder `ema`."""
        if self.average is not None and not _internal_call and self.args.should_save:
            with self.average.in_place(self.model):
                self._save(os.path.join(output_dir or self.args.output_dir, AVERAGED_MODEL))
        super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict=None):
        """Write aside, then give each file its name: none is half-written, the old one stays until then."""
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        if self.is_staging:
            with weights_as_umask_says(folder):
                return super()._save(str(folder), state_dict)
        folder.mkdir(parents=True, exist_ok=True)
        staged = folder / STAGING
        shutil.rmtree(staged, ignore_errors=True)
        try:
            with weights_as_umask_says(staged):
                super()._save(str(staged), state_dict)
            for path in files_in(staged):
                (folder / path.relative_to(staged)).parent.mkdir(exist_ok=True)
                shutil.move(path, os.path.realpath(folder / path.relative_to(staged)))
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def save_state(self):
        if self.is_world_process_zero():
            with make_whole_file(Path(self.args.output_dir) / TRAINER_STATE_NAME) as unfinished:
                self.state.save_to_json(str(unfinished))

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True):
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        contents = {f"{split}_results.json": metrics}
        if combined:
            path = folder / "all_results.json"
            try:
                before = read_json(path) if path.is_file() else {}
            except ValueError:  # of a run that was killed
                before = {}
            contents[path.name] = {**before, **metrics}
        for name, content in contents.items():
            with make_whole_file(folder / name) as unfinished:
                unfinished.write_text(json.dumps(content, indent=4, sort_keys=True), encoding="utf-8")

    def _get_output_dir(self, trial) -> str:
        run_dir = super()._get_output_dir(trial)
        return os.path.join(run_dir, STAGING) if self.is_staging else run_dir

    def _save_checkpoint(self, model, trial):
        """Write the checkpoint aside, then give it its name: what has the name is whole."""
        run_dir = Path(self._get_output_dir(trial))
        final = run_dir / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        staged = run_dir / STAGING / final.name
        self._remove_unfinished(run_dir)
        self.accelerator.wait_for_everyone()
        self.is_staging = True
        try:
            super()._save_checkpoint(model, trial)
            self._save_own_state(staged, final)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                publish(staged, final)
            self.accelerator.wait_for_everyone()
            if self.is_local_process_zero() and staged.exists():  # a node with a disk of its own
                publish(staged, final)
        finally:
            self.is_staging = False
            self._remove_unfinished(run_dir)
        if self.args.should_save:
            rotate(run_dir, self.args.save_total_limit, self.state.best_model_checkpoint)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(final))

    def _save_own_state(self, staged: Path, final: Path):
        loss_since_log = self.accelerator.gather(self._tr_loss).mean().item()
        if self.state.best_model_checkpoint is not None and Path(self.state.best_model_checkpoint) == staged:
            self.state.best_model_checkpoint = str(final)
        if not self.args.should_save:
            return
        self.state.save_to_json(str(staged / TRAINER_STATE_NAME))
        if self.average is not None:
            self.average.save(staged / AVERAGE)
        progress = {
            "loss_since_log": loss_since_log,
            "last_logged_step": self._globalstep_last_logged,
            "nonfinite_steps": self.nonfinite_steps.count,
            "nonfinite_in_a_row": self.nonfinite_steps.in_a_row,
        }
        (staged / PROGRESS).write_text(json.dumps(progress) + "\n")

    def _load_own_state(self, checkpoint: Path):
        """Take up the average and the counts where the checkpoint left them, and the best checkpoint beside it."""
        # As this run spells its folder: the run may have been moved, and rotation compares names.
        run_dir = Path(self.args.output_dir)
        folder = run_dir if checkpoint.parent.resolve() == run_dir.resolve() else checkpoint.parent
        best = folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
        if best.is_dir():
            self.state.best_model_checkpoint = str(best)
        if self.average is not None:
            if not (checkpoint / AVERAGE).exists():
                raise ValueError(f"{checkpoint} was saved without ema_decay; resume without it.")
            self.average.load(checkpoint / AVERAGE)
        progress = read_json(checkpoint / PROGRESS)
        self._tr_loss += progress["loss_since_log"]
        self._total_loss_scalar -= progress["loss_since_log"]  # `train_loss` is that of the steps from here on
        self._globalstep_last_logged = progress["last_logged_step"]
        self.nonfinite_steps.count = progress["nonfinite_steps"]
        self.nonfinite_steps.in_a_row = progress["nonfinite_in_a_row"]

    def _remove_unfinished(self, run_dir: Path):
        if self.is_local_process_zero():
            shutil.rmtree(run_dir / STAGING, ignore_errors=True)

    def _push_from_checkpoint(self, checkpoint_folder: str):
        if not self.is_staging:
            super()._push_from_checkpoint(checkpoint_folder)

    def _load_best_model(self):
        # Transformers would only warn, and keep the last weights.
        best = Path(str(self.state.best_model_checkpoint))  # there is one, or this is not called
        if not best.is_dir():
            raise FileNotFoundError(
                f"the best checkpoint, {self.state.best_model_checkpoint}, is gone; the last one in "
                f"{self.args.output_dir} has the weights of the end."
            )
        super()._load_best_model()
        if self.average is not None:
            self.average.load(best / AVERAGE)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        check_design(resume_from_checkpoint, self.accelerator.unwrap_model(self.model).config)
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        except RuntimeError as error:  # sizes that differ
            last = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
            raise ValueError(f"{NOT_OF_THIS_MODEL} ({last[:200]}).") from None
        except BAD_FILE as error:
            if isinstance(error, ValueError) and str(error).startswith(NOT_OF_THIS_MODEL):
                raise
            raise ValueError(cannot_be_read(resume_from_checkpoint, "the weights", error)) from None
        check_finite(self.model if model is None else model, resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint):
        if checkpoint is None or self.is_deepspeed_enabled or self.is_fsdp_enabled:
            return super()._load_optimizer_and_scheduler(checkpoint)
        scheduler, optimizer = self.lr_scheduler, self.optimizer
        groups, schedule = settings_of(optimizer), scheduler.state_dict()
        saved_schedule = Path(checkpoint) / SCHEDULER_NAME
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
            check_optimizer(optimizer, groups)
            # Loading leaves what a file does not name as it was, so the file is looked at.
            if saved_schedule.is_file() and not is_like(torch.load(saved_schedule, weights_only=True), schedule):
                raise TypeError("the scheduler is that of another kind")
        except ValueError as error:  # other groups of weights
            raise ValueError(
                f"{checkpoint} was saved with other parts frozen; resume with the same ({str(error)[:200]})."
            ) from None
        except BAD_FILE as error:
            raise ValueError(cannot_be_read(checkpoint, "optimizer.pt or scheduler.pt", error)) from None

    def _load_rng_state(self, checkpoint):
        try:
            super()._load_rng_state(checkpoint)
        except BAD_FILE as error:
            raise ValueError(cannot_be_read(checkpoint, "the random state", error)) from None

    def _issue_warnings_after_load(self, load_result):
        names = [*load_result.missing_keys, *load_result.unexpected_keys]
        if names:
            raise ValueError(f"{NOT_OF_THIS_MODEL} ({len(names)} weights are in one of the two only: {names[0]} …).")
