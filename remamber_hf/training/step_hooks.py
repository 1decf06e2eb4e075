# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What happens around every step of the Trainer: frozen parts, epochs of drawn sentences, averages, refused steps."""

import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from .ema import WeightAverage


class StepHooks(TrainerCallback):
    """What the Trainer has no method to override for."""

    def __init__(self, trainer: Any):
        self.trainer = trainer  # a ReferringSegmentationTrainer, whose file imports this one

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        trainer = self.trainer
        trainer._remove_unfinished(Path(args.output_dir))
        trainer.nonfinite_steps = trainer._count_nonfinite_steps()
        if args.ema_decay is not None:
            trainer.average = WeightAverage(model, args.ema_decay, args.ema_start_step)
        if trainer.checkpoint is not None:
            trainer._load_own_state(Path(trainer.checkpoint))

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        trainer = self.trainer
        trainer.train_dataset.set_epoch(int(state.epoch))
        if trainer.group_sampler is not None:  # which accelerate does not reach in an epoch that is resumed
            trainer.group_sampler.set_epoch(int(state.epoch))

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.trainer.nonfinite_steps.begin_step(model)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        trainer = self.trainer
        self.is_finite = trainer.nonfinite_steps.end_step(model, trainer.grad_norm, state.global_step + 1)

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        trainer = self.trainer
        # Not `optimizer_step_was_skipped`: a fused optimizer skips an infinite gradient without telling.
        if trainer.average is None or not self.is_finite:
            return
        # DeepSpeed alone measures no norm, and has no average.
        if math.isfinite(trainer.grad_norm):
            trainer.average.update(model, state.global_step + 1)
