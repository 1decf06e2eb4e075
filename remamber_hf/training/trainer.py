# Copyright 2026 The remamber_hf authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The Trainer for referring segmentation: weight decay on matrices only, evaluation as pixel counts."""

import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction, Trainer

from ..data.collator import ReMamberCollator, decode_mask
from ..metrics.referring_iou.scores import count_pixels, referring_iou
from ..modeling_vmamba import SS2D


class ReferringSegmentationTrainer(Trainer):
    """
    Trains [`ReMamberForImageSegmentation`] on rows of `load_refer`.

    Evaluation turns each sample into its intersection and union at the picture's own size, so that no mask is
    gathered; the metrics are those of `metrics/referring_iou`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, compute_metrics=compute_metrics, **kwargs)
        self.eval_collator = ReMamberCollator(self.processing_class, keep_masks=True)

    def get_eval_dataloader(self, eval_dataset=None):
        train_collator, self.data_collator = self.data_collator, self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = train_collator

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices and convolutions; not the scan's A_log, D and step bias, nor any norm, bias or embedding."""
        kept = (nn.Linear, nn.Conv2d)
        names = []
        for module_name, module in model.named_modules():
            prefix = f"{module_name}." if module_name else ""
            if isinstance(module, kept):
                names.append(f"{prefix}weight")
            elif isinstance(module, SS2D):
                names += [f"{prefix}x_proj_weight", f"{prefix}dt_proj_weight"]
        return names

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss, and per sample the pixels of intersection and union at the picture's own size, as int64 (batch)."""
        masks = [decode_mask(rle) for rle in inputs.pop("original_masks")]
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        predictions = self.processing_class.post_process_referring_segmentation(
            outputs, target_sizes=[mask.shape for mask in masks]
        )
        counts = [count_pixels(found.cpu().numpy(), mask)[:2] for found, mask in zip(predictions, masks)]
        intersections, unions = torch.tensor(counts, device=loss.device).unbind(1)
        return loss.detach().mean(), intersections, unions


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """The papers' metrics, from the pixel counts of `prediction_step`."""
    return referring_iou(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))
