# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
What the Trainer counts of each sample that it evaluates, and the metrics that come of it.

Rows of sets in which each sentence means one object get the scores of `referring_iou`, of masks as a user gets them.
Rows of sets in which a sentence may mean several or none get those of `generalized_iou`, of masks as they came and of
what the presence head says.
"""

from collections.abc import Iterable
from typing import Any

import datasets
import numpy as np
import torch
from transformers import EvalPrediction

from ..data.collator import ReMamberCollator
from ..data.rows import TARGET_KINDS, is_generalized_row, target_kind
from ..evaluation.referring_iou.scores import count_pixels, generalized_iou, referring_iou, sample_ious
from ..post_processing_remamber import find_absent, find_presence
from ..processing_remamber import ReMamberProcessor


ALWAYS_ONE = -1  # instead of a place in TARGET_KINDS: of a set in which each sentence means one object
# Of sets in which each sentence means one object, and of the others; these have none without a sample of its kind.
METRICS = ("loss", *referring_iou([0], [1]))
GENERALIZED_METRICS = ("loss", *generalized_iou([0], [1], [1]), *(f"giou_{kind}" for kind in TARGET_KINDS))


class EvaluationCollator(ReMamberCollator):
    """
    Batches with what evaluation needs besides: original_masks, and target_kinds, int64 (batch,), see `kind_codes`.
    """

    def __init__(self, processor: ReMamberProcessor):
        super().__init__(processor, keep_masks=True, share_pictures=True)

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor | list]:
        batch = super().__call__(rows)
        return {**batch, "target_kinds": torch.from_numpy(kind_codes(rows))}


def kind_codes(rows: Iterable[dict]) -> np.ndarray:
    """The place of each row in `TARGET_KINDS`, or `ALWAYS_ONE`, int64 (rows,)."""
    codes = (TARGET_KINDS.index(target_kind(row)) if is_generalized_row(row) else ALWAYS_ONE for row in rows)
    return np.fromiter(codes, dtype=np.int64)


def count_samples(processor: ReMamberProcessor, outputs: Any, masks: list[np.ndarray]) -> torch.Tensor:
    """
    What is counted of each sample of a batch, int64 (batch, 4): pixels of the intersection, of the union and of the
    true mask, of masks as they came, and whether nothing is found: whether the presence is below 0.5, or without a
    presence head whether the mask has no pixel.

    Args:
        outputs: what the model returned; what is not finite in it counts as 0.
        masks: the true ones at the size of the pictures, bool (height, width) each.
    """
    # An overflow shows in the loss and must not end a long run.
    outputs.logits = outputs.logits.nan_to_num()
    if getattr(outputs, "presence_logits", None) is not None:
        outputs.presence_logits = outputs.presence_logits.nan_to_num()
    # The logits alone: masks of absent objects are not made empty.
    predictions = processor.post_process_referring_segmentation(
        outputs.logits, target_sizes=[mask.shape for mask in masks]
    )
    pixels = np.array([count_pixels(found.cpu().numpy(), mask) for found, mask in zip(predictions, masks)])
    if find_presence(outputs) is None:
        nothing_found = pixels[:, 0] + pixels[:, 1] == pixels[:, 2]  # the prediction is I + U - R
    else:
        nothing_found = np.array(find_absent(outputs, None))
    return torch.from_numpy(np.column_stack([pixels, nothing_found]).astype(np.int64))


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """The papers' metrics and the mean loss, from what `prediction_step` counted."""
    predictions: Any = prediction.predictions  # the pair that `prediction_step` returns
    counts, losses = predictions
    scores = score_counts(np.asarray(counts), np.asarray(prediction.label_ids))
    return {**scores, "loss": float(np.mean(losses, dtype=np.float64))}


def score_counts(counts: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    """
    The scores of samples; one of which there is no sample is left out.

    Args:
        counts: int64 (samples, 4), see `count_samples`.
        kinds: int64 (samples,), see `kind_codes`.
    """
    intersections, unions, areas, nothing_found = counts.T
    if (kinds == ALWAYS_ONE).all():  # a user gets an empty mask where nothing is found
        return referring_iou(np.where(nothing_found, 0, intersections), np.where(nothing_found, areas, unions))
    names = np.array(TARGET_KINDS)[np.where(kinds == ALWAYS_ONE, TARGET_KINDS.index("one"), kinds)]
    samples = (intersections, unions, areas, nothing_found, names == "none")
    scores, ious = generalized_iou(*samples), sample_ious(*samples)
    scores |= {f"giou_{kind}": float(np.mean(ious[names == kind])) for kind in TARGET_KINDS if kind in names}
    return {name: value for name, value in scores.items() if not np.isnan(value)}


def metrics_of(rows: Any) -> list[str]:
    """The names of the metrics that evaluation gives of rows."""
    if not rows:
        return list(METRICS)
    is_plain = False
    if isinstance(rows, datasets.Dataset):  # no picture is decoded
        names = [name for name in ("ann_id", "segmentation") if name in rows.column_names]
        rows = rows.with_format(None).select_columns(names)
        # It is of one kind; only one in which sentences may mean nothing is looked through, and what is no such table.
        is_plain = "ann_id" not in names or not is_generalized_row(rows[0])
    told = () if is_plain else (rows[index] for index in range(len(rows)))
    kinds = kind_codes(row for row in told if "ann_id" in row)
    kinds = kinds if len(kinds) else np.array([ALWAYS_ONE])
    is_meant = kinds != TARGET_KINDS.index("none")
    counts = np.column_stack([0 * is_meant, is_meant, is_meant, 0 * is_meant])
    return ["loss", *score_counts(counts.astype(np.int64), kinds)]
