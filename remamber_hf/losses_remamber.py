# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What ReMamber is trained by: dice and cross-entropy of the mask, cross-entropy of the presence."""

import torch
import torch.nn.functional as F

from .modeling_scan import check_values


def segmentation_loss(
    logits: torch.Tensor, labels: torch.Tensor, dice_weight: float = 1.0, cross_entropy_weight: float = 1.0
) -> torch.Tensor:
    """
    Dice plus binary cross-entropy, in float32 or more; with weights of 1 as the released code trains.

    Dice is the mean over the batch of 1 − (2·Σpq + 1) / (Σp + Σq + 1), p the probabilities and q the mask.

    Args:
        logits: (batch, 1, height, width).
        labels: (batch, height, width) or (batch, 1, height, width): 0 and 1, bool, or fractions between; any dtype.
        dice_weight, cross_entropy_weight: factors of the two.

    Raises:
        ValueError: if the two sizes differ, or labels are outside [0, 1]; see `check_values`.
    """
    if not isinstance(labels, torch.Tensor):
        raise ValueError(f"labels came as {type(labels).__name__}; give a tensor, one mask per expression.")
    if labels.shape not in (logits.shape, logits[:, 0].shape):
        raise ValueError(
            f"labels have shape {tuple(labels.shape)}, logits {tuple(logits.shape)}; give one mask per expression, of "
            "the size of pixel_values."
        )
    if labels.dtype != torch.bool:
        check_values(
            ((labels >= 0) & (labels <= 1)).all(),
            "labels are not in [0, 1]: give 1 for the object and 0 for the rest.",
            lambda: (
                f"labels from {labels.min().item()} to {labels.max().item()} came; give 1 for the object and 0 for "
                "the rest, as in `labels == 255`. There is no value for pixels to be ignored."
            ),
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(1)  # (batch, height * width)
    labels = labels.to(logits.dtype).flatten(1)
    probabilities = logits.sigmoid()
    overlap = (probabilities * labels).sum(1)
    dice = 1 - (2 * overlap + 1) / (probabilities.sum(1) + labels.sum(1) + 1)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels)
    return dice_weight * dice.mean() + cross_entropy_weight * cross_entropy


def presence_loss(
    presence_logits: torch.Tensor, labels: torch.Tensor, is_present: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Binary cross-entropy, in float32 or more.

    Args:
        presence_logits: (batch).
        labels: masks (batch, …), of 0 and 1.
        is_present: (batch), whether each expression means something, 0 and 1 of any dtype; by default where its label
            has a pixel.

    Raises:
        ValueError: if there is not one `is_present` for each logit, or it is 0 where a label has a pixel.
    """
    has_pixels = (labels > 0).flatten(1).any(1)
    is_present = has_pixels if is_present is None else is_present
    if not isinstance(is_present, torch.Tensor) or is_present.shape != presence_logits.shape:
        came = tuple(is_present.shape) if isinstance(is_present, torch.Tensor) else type(is_present).__name__
        raise ValueError(f"is_present is {came} for {len(presence_logits)} expressions; give one bool for each.")
    check_values(
        (has_pixels <= is_present.bool()).all(),
        "is_present is 0 for an expression whose label has pixels.",
        lambda: "is_present is 0 for an expression whose label has pixels; give 1 there, or a label without.",
    )
    logits = presence_logits.to(torch.promote_types(presence_logits.dtype, torch.float32))
    return F.binary_cross_entropy_with_logits(logits, is_present.to(logits))


__all__ = ["presence_loss", "segmentation_loss"]
