# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Steps whose loss or gradient is not finite leave no trace in the model, and are counted."""

import json
import math
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import nn
from transformers.utils import logging


logger = logging.get_logger(__name__)

REPORT = "nonfinite_batches.json"


class NotFiniteError(RuntimeError):
    """Training stopped, since losses or gradients were not finite."""


class NonFiniteSteps:
    """
    Skips steps that are not finite, and stops training after too many of them in a row.

    All processes decide alike: a step is skipped if the loss of any of them is not finite, or the norm of the
    common gradient. With the loss scaling of float16 an infinite gradient is the scaler's to skip. DeepSpeed takes a
    step together with its backward pass, too early to skip it, so the first such step stops training.

    Args:
        accelerator: that of the Trainer.
        output_dir: where the ids of the batches are written before training stops.
        max_in_a_row: how many skipped steps in a row stop training.
    """

    def __init__(self, accelerator: Accelerator, output_dir: str, max_in_a_row: int):
        self.accelerator = accelerator
        self.report = Path(output_dir) / REPORT
        self.max_in_a_row = max_in_a_row
        self.count = 0
        self.in_a_row: list[dict] = []

    def begin_step(self, model: nn.Module):
        # A forward pass alone spoils the statistics of batch norm.
        self.buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
        self.losses: list[torch.Tensor] = []
        self.ref_ids: list[int | None] = []

    def add_batch(self, loss: torch.Tensor, ref_ids: list[int | None]):
        """Takes in the loss of a batch and its rows' ids, where the collator keeps them."""
        self.losses.append(loss)
        self.ref_ids += ref_ids

    def end_step(self, model: nn.Module, grad_norm: float | None, step: int) -> bool:
        """
        Before the optimizer's step `step`, counted from 1: whether it is finite. If not, it is made to do nothing.

        Raises:
            NotFiniteError: after `max_in_a_row` such steps in a row, with DeepSpeed after the first.
        """
        has_finite_gradient = self.accelerator.scaler is not None or grad_norm is None or math.isfinite(grad_norm)
        is_finite = torch.stack(self.losses).isfinite().all() & has_finite_gradient
        num_bad = self.accelerator.reduce((~is_finite).float(), reduction="sum")
        if not num_bad.item():
            self.in_a_row = []
            return True
        model.zero_grad(set_to_none=True)  # the optimizer passes over weights without a gradient
        with torch.no_grad():
            for buffer, value in self.buffers:
                buffer.copy_(value)
        self.count += 1
        losses = gather_object([str(loss.item()) for loss in self.losses])  # JSON has no nan
        self.in_a_row.append({"step": step, "losses": losses, "ref_ids": gather_object(self.ref_ids)})
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            self.stop(
                f"The loss or gradient of step {step} was not finite, and DeepSpeed has taken the step already, so "
                f"training stops; the ids of its refs are in {self.report}. Look at these samples, and resume from "
                "the last checkpoint."
            )
        logger.warning(
            f"Step {step} is skipped, its loss or gradient is not finite ({self.count} in this run, "
            f"{len(self.in_a_row)} in a row); refs {self.in_a_row[-1]['ref_ids']}."
        )
        if len(self.in_a_row) >= self.max_in_a_row:
            self.stop(
                f"The loss or gradient of {len(self.in_a_row)} steps in a row was not finite, so training stops; the "
                f"ids of their refs are in {self.report}. Look at these samples, or lower the learning rate."
            )
        return False

    def stop(self, message: str):
        if self.accelerator.is_main_process:
            self.report.parent.mkdir(parents=True, exist_ok=True)
            self.report.write_text(json.dumps(self.in_a_row, indent=1) + "\n")
        raise NotFiniteError(message)
