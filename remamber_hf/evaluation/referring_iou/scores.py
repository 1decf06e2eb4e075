# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of referring segmentation as functions of pixel counts: masks → (intersection, union, area) → scores.

IoU is intersection / union of one sample in pixels, a fraction in [0, 1]; an empty union counts as 0 (in `giou` as 1,
since there nothing was meant and nothing found).
"""

import numpy as np


PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def count_pixels(prediction, reference) -> tuple[int, int, int]:
    """Count the pixels of the intersection, of the union and of the reference.

    Args:
        prediction, reference: masks of one size, (height, width), bool, 0 and 1, or 0 and 255.

    Raises ValueError if the sizes differ, or if a mask holds anything else: floats could be logits or probabilities,
    other integers several objects or pixels to be ignored.
    """
    prediction, reference = _as_mask(prediction, "prediction"), _as_mask(reference, "reference")
    if prediction.shape != reference.shape:
        raise ValueError(
            f"The prediction is {prediction.shape} and its reference {reference.shape}; resize the prediction to the "
            "size of the reference."
        )
    intersection = int(np.count_nonzero(prediction & reference))
    union = int(np.count_nonzero(prediction | reference))
    return intersection, union, int(np.count_nonzero(reference))


def sample_ious(intersections, unions, reference_areas=None) -> np.ndarray:
    """Compute what `miou` is the mean of or, with `reference_areas`, `giou`: float64, one number per sample.

    Args:
        intersections, unions, reference_areas: see `generalized_iou`.
    """
    counts = _check_counts(intersections, unions, reference_areas)
    ious = _divide(*counts[:2])
    # Where nothing is meant, an empty prediction has an empty union.
    return ious if reference_areas is None else np.where((counts[2] == 0) & (counts[1] == 0), 1.0, ious)


def referring_iou(intersections, unions) -> dict[str, float]:
    """Compute mIoU, oIoU and precision as in the evaluation of RefCOCO, RefCOCO+ and G-Ref.

    Args:
        intersections, unions: pixel counts, one integer per sample.

    Returns `miou` (mean IoU of the samples), `oiou` (all intersections over all unions) and `precision@X` for X in
    0.5, 0.6 … 0.9 (share of the samples with IoU ≥ X), all in [0, 1].
    """
    intersections, unions = _check_counts(intersections, unions)
    ious = sample_ious(intersections, unions)
    precisions = {f"precision@{threshold}": float(np.mean(ious >= threshold)) for threshold in PRECISION_THRESHOLDS}
    return {"miou": float(np.mean(ious)), "oiou": float(_divide(intersections.sum(), unions.sum())), **precisions}


def generalized_iou(intersections, unions, reference_areas) -> dict[str, float]:
    """Compute gIoU, cIoU, N-acc and T-acc of gRefCOCO (GRES, arXiv 2306.00968), where a sample may mean nothing.

    Args:
        intersections, unions, reference_areas: pixel counts, one integer per sample. An area of 0 marks a no-target
            sample. A prediction counts as empty if it has no pixel at all.

    Returns `giou` (mean IoU, where a no-target sample counts 1 if the prediction is empty and 0 if not), `ciou` (all
    intersections over all unions), `n_acc` (share of no-target samples with an empty prediction) and `t_acc` (share of
    the others with a prediction that is not empty), all in [0, 1]; n_acc or t_acc is nan without a sample of its kind.
    """
    intersections, unions, reference_areas = _check_counts(intersections, unions, reference_areas)
    is_no_target = reference_areas == 0
    is_empty = intersections + unions == reference_areas  # the area of the prediction is I + U - area
    ious = sample_ious(intersections, unions, reference_areas)
    return {
        "giou": float(np.mean(ious)),
        "ciou": float(_divide(intersections.sum(), unions.sum())),
        "n_acc": _share(is_empty[is_no_target]),
        "t_acc": _share(~is_empty[~is_no_target]),
    }


def _as_mask(mask, name: str) -> np.ndarray:
    if hasattr(mask, "detach"):  # a tensor; NumPy has no bfloat16
        mask = mask.detach().cpu()
        mask = mask.float() if mask.is_floating_point() else mask
    if getattr(mask, "mode", None) == "P":  # by its colours where they are black and white, not by their order
        grey = mask.convert("L")
        mask = mask if any(grey.histogram()[1:255]) else grey
    mask = np.asarray(mask)
    if mask.dtype.kind not in "biu":
        raise ValueError(f"The {name} holds {mask.dtype}; give a mask of bool or integers, logits > 0 for one.")
    if mask.ndim != 2:
        raise ValueError(f"The {name} has {mask.ndim} dimensions; give one mask (height, width) per sample.")
    is_object = mask != 0
    if mask.dtype != bool:
        codes = mask[is_object]
        if codes.size and not (codes[0] in (1, 255) and (codes == codes[0]).all()):
            came = ", ".join(str(code) for code in np.unique(mask)[:6])
            raise ValueError(f"The {name} has the values {came}; give bool, 0 and 1, or 0 and 255.")
    return is_object


def _check_counts(intersections, unions, reference_areas=None) -> list[np.ndarray]:
    named = {"intersections": intersections, "unions": unions}
    if reference_areas is not None:
        named["reference_areas"] = reference_areas
    counts = [np.asarray(values) for values in named.values()]
    if len({values.shape for values in counts}) != 1 or counts[0].ndim != 1 or counts[0].size == 0:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in zip(named, counts))
        raise ValueError(f"The counts have the shapes {shapes}; give one number per sample, at least one sample.")
    for name, values in zip(named, counts):
        if values.dtype.kind not in "iu":
            raise ValueError(f"{name} holds {values.dtype}; give pixel counts as integers.")
    counts = [values.astype(np.int64) for values in counts]
    # 0 ≤ intersection ≤ reference ≤ union
    ordered = [counts[0], *counts[2:], counts[1]]
    is_wrong = (counts[0] < 0) | np.any([small > large for small, large in zip(ordered, ordered[1:])], axis=0)
    if is_wrong.any():
        index = int(np.argmax(is_wrong))
        numbers = ", ".join(f"{name} {values[index]}" for name, values in zip(named, counts))
        raise ValueError(f"Sample {index} has {numbers}; no masks give these counts, were they swapped?")
    return counts


def _divide(intersections, unions):
    """Divide in float64; an empty union gives 0."""
    return np.where(unions > 0, intersections / np.maximum(unions, 1), 0.0)


def _share(is_right: np.ndarray) -> float:
    return float(np.mean(is_right)) if is_right.size else float("nan")
