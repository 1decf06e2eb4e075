# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of referring segmentation as functions of pixel counts: masks → (intersection, union, area) → scores.

IoU is intersection / union of one sample in pixels, a fraction in [0, 1]; an empty union counts as 0 (in `giou` as 1
where nothing was meant and nothing found).

Where a sentence may mean nothing, two flags can stand beside the counts: `nothing_meant`, whether the data says so of
a sample, by default where the reference has no pixel; and `nothing_found`, whether the model does, by default where
the prediction has no pixel. Of a model with a head that says so, count masks as they came, and give the flags.

Every score is a ratio of two sums. Functions called `..._ratios` give what is summed, for who draws samples anew or
sums over some of them; those called `..._iou` the scores.
"""

from typing import NamedTuple

import numpy as np


PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
TARGET_PRECISION_THRESHOLDS = (0.7, 0.8, 0.9)  # of gRefCOCO


class Ratio(NamedTuple):
    """A score as a ratio of sums: numbers, one each per unit, and `samples`, which sample a unit is of.

    A unit is a sample that the score is about, or a ref; that is of the first of its samples that the score is about.
    """

    numerators: np.ndarray
    denominators: np.ndarray
    samples: np.ndarray

    @property
    def value(self) -> float:
        """The score; nan without a unit, 0 if the denominators are."""
        if not self.samples.size:
            return float("nan")
        return float(_divide(self.numerators.sum(), self.denominators.sum()))


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


def sample_ious(
    intersections, unions, reference_areas=None, nothing_found=None, nothing_meant=None, blanks=False
) -> np.ndarray:
    """Compute what `miou` is the mean of or, with `reference_areas`, `giou`: float64, one number per sample.

    Args:
        intersections, unions, reference_areas, nothing_found, nothing_meant: see `generalized_iou`.
        blanks: whether a prediction is empty where `nothing_found` says so, and whether nothing is found only where it
            is empty, as `ref_zom_iou` and `r_refcoco_iou` count.
    """
    if reference_areas is None:
        return _divide(*_check_counts(intersections, unions))
    count = _blank if blanks else _read_generalized
    intersections, unions, _, is_found, is_meant = count(
        intersections, unions, reference_areas, nothing_found, nothing_meant
    )
    return _generalized_ious(intersections, unions, is_found, is_meant)


def referring_iou(intersections, unions) -> dict[str, float]:
    """Compute mIoU, oIoU and precision as in the evaluation of RefCOCO, RefCOCO+ and G-Ref.

    Args:
        intersections, unions: pixel counts, one integer per sample.

    Returns `miou` (mean IoU of the samples), `oiou` (all intersections over all unions) and `precision@X` for X in
    0.5, 0.6 … 0.9 (share of the samples with IoU ≥ X), all in [0, 1].
    """
    return _values(referring_ratios(intersections, unions))


def referring_ratios(intersections, unions) -> dict[str, Ratio]:
    """Return the sums behind the scores of `referring_iou`, which has the same arguments."""
    intersections, unions = _check_counts(intersections, unions)
    return _referring_ratios(intersections, unions, np.arange(len(unions)))


def generalized_iou(
    intersections, unions, reference_areas, nothing_found=None, nothing_meant=None
) -> dict[str, float]:
    """Compute gIoU, cIoU, N-acc, T-acc and precision of gRefCOCO (GRES, arXiv 2306.00968), as ReLA's evaluator does.

    Args:
        intersections, unions, reference_areas: pixel counts, one integer per sample, of masks as they came.
        nothing_found: bool, one per sample, whether the model says that the sample means nothing; its mask does not
            count in that. By default where the prediction has no pixel at all.
        nothing_meant: bool, one per sample, whether that is true (a no-target sample). By default where
            `reference_areas` is 0.

    Returns `giou` (mean IoU, where a no-target sample counts 1 if nothing is found and 0 if not, and any other 0 if
    nothing is found), `ciou` (all intersections over all unions; where nothing is found rightly neither counts, where
    wrongly the union does), `n_acc` (share of no-target samples of which nothing is found), `t_acc` (share of the
    others of which something is) and `target_precision@X` for X in 0.7, 0.8, 0.9 (share of the others with IoU ≥ X),
    all in [0, 1]; a score without a sample of its kind is nan.
    """
    return _values(generalized_ratios(intersections, unions, reference_areas, nothing_found, nothing_meant))


def generalized_ratios(
    intersections, unions, reference_areas, nothing_found=None, nothing_meant=None
) -> dict[str, Ratio]:
    """Return the sums behind the scores of `generalized_iou`, which has the same arguments."""
    intersections, unions, _, is_found, is_meant = _read_generalized(
        intersections, unions, reference_areas, nothing_found, nothing_meant
    )
    ious = _generalized_ious(intersections, unions, is_found, is_meant)
    samples = np.arange(len(ious))
    of_nothing, of_something = np.flatnonzero(~is_meant), np.flatnonzero(is_meant)
    return {
        "giou": _mean(ious, samples),
        "ciou": Ratio(intersections, unions, samples),
        "n_acc": _mean(~is_found[of_nothing], of_nothing),
        "t_acc": _mean(is_found[of_something], of_something),
        **{f"target_precision@{x}": _mean(ious[of_something] >= x, of_something) for x in TARGET_PRECISION_THRESHOLDS},
    }


def ref_zom_iou(intersections, unions, reference_areas, nothing_found=None, nothing_meant=None) -> dict[str, float]:
    """Compute mIoU, oIoU, precision and accuracy of Ref-ZOM, as the evaluation of DMMI does.

    Args:
        intersections, unions, reference_areas, nothing_meant: see `generalized_iou`.
        nothing_found: bool, one per sample, of which the prediction counts as empty whatever its mask; by default of
            none. Otherwise only a prediction without a pixel finds nothing.

    Returns `miou`, `oiou` and `precision@X` of `referring_iou` over the samples that mean something, and `acc` (share
    of the others of which nothing is found), all in [0, 1]; a score without a sample of its kind is nan.
    """
    return _values(ref_zom_ratios(intersections, unions, reference_areas, nothing_found, nothing_meant))


def ref_zom_ratios(intersections, unions, reference_areas, nothing_found=None, nothing_meant=None) -> dict[str, Ratio]:
    """Return the sums behind the scores of `ref_zom_iou`, which has the same arguments."""
    intersections, unions, _, is_found, is_meant = _blank(
        intersections, unions, reference_areas, nothing_found, nothing_meant
    )
    of_nothing, of_something = np.flatnonzero(~is_meant), np.flatnonzero(is_meant)
    return {
        **_referring_ratios(intersections[of_something], unions[of_something], of_something),
        "acc": _mean(~is_found[of_nothing], of_nothing),
    }


def r_refcoco_iou(
    intersections, unions, reference_areas, ref_ids, nothing_found=None, nothing_meant=None
) -> dict[str, float]:
    """Compute mIoU, oIoU, mRR, rIoU and precision of R-RefCOCO (Wu et al., arXiv 2209.09554), as its evaluation does.

    Args:
        intersections, unions, reference_areas, nothing_found, nothing_meant: see `ref_zom_iou`.
        ref_ids: integers, one per sample, the same for the sentences of a ref, true or false.

    Returns, over the refs that have a true sentence: `miou` (mean of the mean IoU of a ref's true sentences) and
    `riou` (mean of a ref's intersections over its unions, that of a false sentence being what is found of it); over
    the refs that have a false one: `mrr` (mean share of a ref's false sentences of which nothing is found); over all
    true sentences: `oiou` and `precision@X` as in `referring_iou`, and `released_precision@X`, which compares with X
    not the IoU of a sentence but the sum of those of its ref up to it, as the released code does. All are in [0, 1],
    and nan where there is nothing to take a mean of.
    """
    return _values(r_refcoco_ratios(intersections, unions, reference_areas, ref_ids, nothing_found, nothing_meant))


def r_refcoco_ratios(
    intersections, unions, reference_areas, ref_ids, nothing_found=None, nothing_meant=None
) -> dict[str, Ratio]:
    """Return the sums behind the scores of `r_refcoco_iou`, which has the same arguments."""
    intersections, unions, _, is_found, is_meant = _blank(
        intersections, unions, reference_areas, nothing_found, nothing_meant
    )
    ref_ids = np.asarray(ref_ids)
    if ref_ids.shape != unions.shape or ref_ids.dtype.kind not in "iu":
        raise ValueError(f"ref_ids are {ref_ids.dtype} {ref_ids.shape}; give one integer for each of {len(unions)}.")
    _, refs = np.unique(ref_ids, return_inverse=True)
    ious = _divide(intersections, unions)

    def sum_by_ref(values) -> np.ndarray:
        return np.bincount(refs, weights=values)

    num_true, num_false = sum_by_ref(is_meant), sum_by_ref(~is_meant)
    has_true, has_false = num_true > 0, num_false > 0
    ious_of_refs = sum_by_ref(np.where(is_meant, ious, 0))[has_true] / num_true[has_true]
    right_of_refs = sum_by_ref(~is_found & ~is_meant)[has_false] / num_false[has_false]
    robust_of_refs = _divide(sum_by_ref(intersections)[has_true], sum_by_ref(unions)[has_true])
    first_true, first_false = (
        np.flatnonzero(is_of)[np.unique(refs[is_of], return_index=True)[1]] for is_of in (is_meant, ~is_meant)
    )
    in_order = np.flatnonzero(is_meant)[np.argsort(refs[is_meant], kind="stable")]
    ious_by_ref = np.split(ious[in_order], np.cumsum(num_true.astype(np.int64))[:-1])
    sums = np.concatenate([np.cumsum(ious_of_ref) for ious_of_ref in ious_by_ref])
    return {
        **_referring_ratios(intersections[is_meant], unions[is_meant], np.flatnonzero(is_meant)),
        "miou": _mean(ious_of_refs, first_true),
        "mrr": _mean(right_of_refs, first_false),
        "riou": _mean(robust_of_refs, first_true),
        **{f"released_precision@{x}": _mean(sums >= x, in_order) for x in PRECISION_THRESHOLDS},
    }


def _referring_ratios(intersections: np.ndarray, unions: np.ndarray, samples: np.ndarray) -> dict[str, Ratio]:
    ious = _divide(intersections, unions)
    return {
        "miou": _mean(ious, samples),
        "oiou": Ratio(intersections, unions, samples),
        **{f"precision@{threshold}": _mean(ious >= threshold, samples) for threshold in PRECISION_THRESHOLDS},
    }


def _mean(values: np.ndarray, samples: np.ndarray) -> Ratio:
    return Ratio(values, np.ones(len(samples), dtype=np.int64), samples)


def _values(ratios: dict[str, Ratio]) -> dict[str, float]:
    return {name: ratio.value for name, ratio in ratios.items()}


def _read_generalized(intersections, unions, reference_areas, nothing_found, nothing_meant) -> list[np.ndarray]:
    """Check counts and flags: intersections, unions, areas, whether something is found, and meant, of each sample.

    Where nothing is found the intersection is empty, and if nothing is meant either so is the union.
    """
    intersections, unions, areas = _check_counts(intersections, unions, reference_areas)
    is_found = ~_read_flags(nothing_found, "nothing_found", intersections + unions == areas)  # P is I + U - R
    is_meant = ~_read_flags(nothing_meant, "nothing_meant", areas == 0)
    is_wrong = ~is_meant & (areas > 0)
    if is_wrong.any():
        index = int(np.argmax(is_wrong))
        raise ValueError(
            f"Sample {index} has nothing_meant, and its reference has {areas[index]} pixels; give an empty mask there."
        )
    intersections = np.where(is_found, intersections, 0)
    return [intersections, np.where(is_found | is_meant, unions, 0), areas, is_found, is_meant]


def _blank(intersections, unions, reference_areas, nothing_found, nothing_meant) -> list[np.ndarray]:
    """As `_read_generalized`, of predictions that are made empty where `nothing_found` says so; then masks decide."""
    intersections, unions, areas, is_found, is_meant = _read_generalized(
        intersections, unions, reference_areas, nothing_found, nothing_meant
    )
    unions = np.where(is_found, unions, areas)
    return [intersections, unions, areas, intersections + unions > areas, is_meant]


def _generalized_ious(intersections, unions, is_found, is_meant) -> np.ndarray:
    return np.where(is_found | is_meant, _divide(intersections, unions), 1.0)


def _read_flags(flags, name: str, default: np.ndarray) -> np.ndarray:
    if flags is None:
        return default
    values = np.asarray(flags)
    if values.shape != default.shape:
        raise ValueError(f"{name} is {values.shape}, for {len(default)} samples; give one bool per sample.")
    if values.dtype.kind not in "biu" or ((values != 0) & (values != 1)).any():
        raise ValueError(f"{name} holds {values.dtype} {np.unique(values)[:4]}; give bool, or 0 and 1.")
    return values.astype(bool)


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
