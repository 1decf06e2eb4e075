# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What the batches of a run cost, for its `total_flos`: counted once for each shape."""

from typing import Any

from torch import nn
from transformers.utils import logging

from ..inference.cost import count_training_step
from ..messages import shorten


logger = logging.get_logger(__name__)


class BatchFlops:
    """The operations of batches, see `count_training_step`; 0, said once, where they cannot be counted."""

    def __init__(self) -> None:
        self.counts: dict[tuple, int] = {}  # by the shapes of a batch and of weights, and by which are trained

    def count(self, model: nn.Module, inputs: dict[str, Any]) -> int:
        shapes = (tuple(inputs[name].shape) for name in ("pixel_values", "input_ids"))
        key = (*shapes, tuple((parameter.shape, parameter.requires_grad) for parameter in model.parameters()))
        if key not in self.counts:
            try:
                self.counts[key] = count_training_step(model, inputs)
            except (RuntimeError, TypeError) as error:  # of a user's own forward, which wants the values of tensors
                logger.warning_once(f"total_flos leaves out batches, which cannot be counted: {shorten(str(error))}")
                self.counts[key] = 0
        return self.counts[key]
