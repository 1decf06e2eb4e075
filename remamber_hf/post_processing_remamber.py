# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""ReMamber's postprocessing: logits → probabilities, masks, maps and objects at the pictures' size."""

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .messages import describe


# How `post_process_referring_segmentation` resizes logits; the published evaluation used "nearest".
LOGIT_INTERPOLATIONS: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "bilinear", "align_corners": False},
    "nearest": {"mode": "nearest"},
}
# An expression whose presence is below this means nothing, where a call says nothing else.
PRESENCE_THRESHOLD = 0.5
TargetSizes = Sequence[tuple[int, int]] | tuple[int, int] | torch.Tensor | np.ndarray | None
ImageIndex = Sequence[int] | torch.Tensor | np.ndarray | None


def find_logits(outputs: Any) -> torch.Tensor:
    """The logits (num_expressions, 1, height, width) of a model's output; ValueError if there are none."""
    if isinstance(outputs, Mapping) or hasattr(outputs, "logits"):
        logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs.logits
    elif isinstance(outputs, (tuple, list)):  # return_dict=False: the loss comes first, where there is one
        logits = next((entry for entry in outputs if getattr(entry, "ndim", 0) == 4), None)
    else:
        logits = outputs
    if isinstance(logits, np.ndarray):
        logits = torch.from_numpy(logits)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 4 or logits.shape[1] != 1:
        shape = getattr(logits, "shape", None)
        came = "are missing" if shape is None else f"have shape {tuple(shape)}"
        raise ValueError(f"logits {came}; give the model's output or logits (num_expressions, 1, height, width).")
    if not logits.is_floating_point():
        raise ValueError(f"logits are {logits.dtype}; give those of the model, from before any threshold.")
    return logits.detach()


def find_presence(outputs: Any) -> torch.Tensor | None:
    """
    The probability that each expression means something, float32 (num_expressions,), of a model's output; None where
    its model does not say, or the logits of masks came alone.
    """
    if isinstance(outputs, Mapping):
        logits = outputs.get("presence_logits")
    elif isinstance(outputs, (tuple, list)):  # return_dict=False: it alone has one number for each expression
        logits = next((entry for entry in outputs if getattr(entry, "ndim", 0) == 1), None)
    else:
        logits = getattr(outputs, "presence_logits", None)
    if logits is None:
        return None
    num_expressions = len(find_logits(outputs))
    logits = torch.as_tensor(logits)
    if logits.shape != (num_expressions,) or not logits.is_floating_point() or not logits.isfinite().all():
        raise ValueError(
            f"presence_logits are {logits.dtype} {tuple(logits.shape)} for {num_expressions} expressions; give the "
            "model's, one finite number for each."
        )
    return logits.detach().float().sigmoid()


def find_absent(outputs: Any, presence_threshold: Any) -> list[bool]:
    """
    Whether each expression means nothing: its presence is below the threshold. None does where a model does not say.

    Raises:
        ValueError: if a threshold is given, and the output has no presence that it could be compared with.
    """
    if presence_threshold is not None:
        presence_threshold = check_threshold(presence_threshold, "presence_threshold")
    presence = find_presence(outputs)
    if presence is None:
        if presence_threshold is not None:
            raise ValueError(
                f"presence_threshold is {presence_threshold}, and the output has no presence_logits: give the model's "
                "output, of a model with predicts_presence, or leave it out."
            )
        return [False] * len(find_logits(outputs))
    return (presence < (PRESENCE_THRESHOLD if presence_threshold is None else presence_threshold)).tolist()


def check_threshold(threshold: Any, name: str = "threshold") -> float:
    """The threshold as a number; ValueError unless it is a probability."""
    if isinstance(threshold, (torch.Tensor, np.ndarray)) and threshold.ndim == 0:
        threshold = threshold.item()
    is_number = isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold <= 1:
        raise ValueError(f"{name} is {describe(threshold)}; give a probability in [0, 1].")
    return float(threshold)


def check_target_sizes(target_sizes: Any, num_sizes: int, unit: str) -> list[tuple[int, int]]:
    """(height, width) of each `unit`, an expression or a picture; ValueError for anything else."""
    is_array = isinstance(target_sizes, (torch.Tensor, np.ndarray))
    sizes: Any = target_sizes.tolist() if is_array else target_sizes
    if not isinstance(sizes, Iterable):
        raise ValueError(f"target_sizes is {describe(sizes)}; give (height, width) of each {unit}.")
    sizes = [entry.item() if getattr(entry, "ndim", None) == 0 else entry for entry in sizes]
    if len(sizes) == 2 and all(isinstance(side, int) for side in sizes):
        sizes = [sizes] * num_sizes
    if len(sizes) != num_sizes:
        raise ValueError(
            f"target_sizes has {len(sizes)} entries, logits have {num_sizes} {unit}s; give one (height, width) per "
            f"{unit}."
        )
    for index, size in enumerate(sizes):
        if isinstance(size, torch.Tensor) and num_sizes == 2:
            raise ValueError(
                "target_sizes are two tensors, which could be the heights and the widths, as default_collate makes "
                "them of pairs; give tuples (height, width), or one tensor (2, 2)."
            )
        size = size.tolist() if hasattr(size, "tolist") else size
        is_pair = isinstance(size, (tuple, list)) and len(size) == 2
        if not is_pair or not all(
            isinstance(side, (int, float, np.number)) and 1 <= side < float("inf") for side in size
        ):
            raise ValueError(f"target_sizes[{index}] is {describe(size)}; give (height, width), both at least 1.")
    return [(int(height), int(width)) for height, width in sizes]


def pictures_of(image_index: Any, num_expressions: int) -> list[int]:
    """The picture of each expression; ValueError where the index does not count pictures, one for each expression."""
    if image_index is None:
        return list(range(num_expressions))
    try:
        pictures = image_index.tolist() if hasattr(image_index, "tolist") else list(image_index)
        pictures = [operator.index(picture) for picture in pictures]
    except (TypeError, RuntimeError, NotImplementedError):  # of a meta tensor
        pictures = []
    if len(pictures) != num_expressions or min(pictures, default=0) < 0:
        raise ValueError(
            f"image_index is {describe(image_index)}, logits have {num_expressions} expressions; give the processor's "
            "image_index, which has the picture of each, counted from 0."
        )
    return pictures


@dataclass(frozen=True)
class Answers:
    """
    What a model answered about pictures, checked.

    logits: (num_expressions, 1, height, width). pictures: the picture of each expression. sizes: (height, width) of
    each picture, also of one that no expression is about.
    """

    logits: torch.Tensor
    pictures: list[int]
    sizes: list[tuple[int, int]]
    is_resized: bool


def has_several(target_sizes: Any) -> bool:
    """Whether these are sizes, and not one for all."""
    return hasattr(target_sizes, "__len__") and len(target_sizes) > 0 and np.ndim(target_sizes[0]) == 1


def read_answers(outputs: Any, target_sizes: Any, image_index: Any) -> Answers:
    """The arguments of `post_process_probabilities`, read; ValueError for what does not fit or is not finite."""
    logits = find_logits(outputs)
    pictures = pictures_of(image_index, len(logits))
    num_pictures = max(pictures, default=-1) + 1
    if image_index is not None and has_several(target_sizes):
        num_pictures = max(num_pictures, len(target_sizes))  # expressions may have been left out since
    if target_sizes is None:
        sizes = [(logits.shape[2], logits.shape[3])] * num_pictures
    else:
        sizes = check_target_sizes(target_sizes, num_pictures, "expression" if image_index is None else "picture")
    num_finite = int(logits.isfinite().flatten(1).all(dim=1).sum())
    if num_finite < len(logits):
        reason = "weights or pixel values are not; look which."
        if logits.dtype == torch.float16:
            reason = "the model overflows in float16, which ends at 65,504; use bfloat16 or float32."
        raise ValueError(
            f"the logits of {len(logits) - num_finite} of {len(logits)} expressions are not finite: {reason}"
        )
    return Answers(logits, pictures, sizes, target_sizes is not None)


class ReferringPostProcessing:
    """
    What turns logits into what is returned; a class that has this says where their pixels lie, by `lay_back`.

    Every method takes the model's output and, where several expressions share a picture, the `image_index` that the
    processor made; target sizes are then (height, width) of each picture, and else of each expression's picture.

    A model with `predicts_presence` also says whether an expression means anything. One whose presence is below
    `presence_threshold`, by default 0.5, gets an empty mask and no object; 0 leaves all masks as they are. Where the
    model does not say, or the logits of masks come alone, there is no presence, and a threshold for it is refused.
    """

    def lay_back(
        self, logits: torch.Tensor, target_size: tuple[int, int], interpolation: dict[str, Any]
    ) -> torch.Tensor:
        """Logits (1, 1, height, width) as probabilities (height, width) on a picture of `target_size`."""
        raise NotImplementedError

    def post_process_probabilities(
        self,
        outputs: Any,
        target_sizes: TargetSizes = None,
        interpolation: str = "bilinear",
        image_index: ImageIndex = None,
    ) -> list[torch.Tensor]:
        """
        Turns logits into probabilities: resize the logits → sigmoid, in float32.

        What the processor's own `do_center_crop` and `do_pad` did to a picture is undone where a target size is given:
        padding is cut off, and what was cropped away is not object.

        Args:
            outputs: the model's output, also as a dict or tuple, or its logits (num_expressions, 1, height, width).
            target_sizes: (height, width) of each expression's picture, with `image_index` of each picture, or one for
                all; by default the logits' size.
            interpolation: "bilinear", or "nearest" as in the published evaluation.
            image_index: (num_expressions,), the picture of each expression, as the processor returns it.

        Returns:
            one float32 tensor (height, width) in [0, 1] per expression.

        Raises:
            ValueError: an argument outside what is described here, or logits that are not finite.
        """
        return list(self._probabilities(read_answers(outputs, target_sizes, image_index), interpolation))

    def post_process_referring_segmentation(
        self,
        outputs: Any,
        target_sizes: TargetSizes = None,
        threshold: float = 0.5,
        interpolation: str = "bilinear",
        image_index: ImageIndex = None,
        presence_threshold: float | None = None,
    ) -> list[torch.Tensor]:
        """
        Turns logits into masks: those pixels whose probability is above the threshold; none of an absent object.

        Args:
            threshold: in [0, 1].
            presence_threshold: in [0, 1], see [`ReferringPostProcessing`].
            outputs, target_sizes, interpolation, image_index: see `post_process_probabilities`.

        Returns:
            one bool tensor (height, width) per expression.
        """
        threshold = check_threshold(threshold)
        answers = read_answers(outputs, target_sizes, image_index)
        is_absent = find_absent(outputs, presence_threshold)
        probabilities = self._probabilities(answers, interpolation)
        thresholds = [math.inf if absent else threshold for absent in is_absent]
        return [probability > least for probability, least in zip(probabilities, thresholds)]

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: TargetSizes = None,
        threshold: float = 0.5,
        image_index: ImageIndex = None,
        presence_threshold: float | None = None,
    ) -> list[torch.Tensor]:
        """
        Turns logits into one map per picture, which says of each pixel which of its expressions means it.

        Args:
            threshold: in [0, 1].
            presence_threshold: in [0, 1], see [`ReferringPostProcessing`].
            outputs, target_sizes, image_index: see `post_process_probabilities`.

        Returns:
            one int64 tensor (height, width) per picture: 0 where no probability is above the threshold, else 1 + the
            place of the expression with the highest one, among the expressions of this picture.
        """
        threshold = check_threshold(threshold)
        answers = read_answers(outputs, target_sizes, image_index)
        maps = [torch.zeros(size, dtype=torch.int64, device=answers.logits.device) for size in answers.sizes]
        highest: dict[int, torch.Tensor] = {}
        counts = [0] * len(maps)
        is_absent = find_absent(outputs, presence_threshold)
        for picture, absent, probability in zip(answers.pictures, is_absent, self._probabilities(answers)):
            counts[picture] += 1
            if absent:
                continue
            best = highest.setdefault(picture, torch.full_like(probability, threshold))
            is_higher = probability > best
            maps[picture][is_higher] = counts[picture]
            best[is_higher] = probability[is_higher]
        return maps

    def post_process_instance_segmentation(
        self,
        outputs: Any,
        target_sizes: TargetSizes = None,
        threshold: float = 0.5,
        image_index: ImageIndex = None,
        presence_threshold: float | None = None,
        components: bool = False,
    ) -> list[dict[str, torch.Tensor]]:
        """
        Turns logits into the objects of each picture, one for each of its expressions that means something there.

        Args:
            threshold: in [0, 1]. An expression of which no pixel is above it gives no object.
            presence_threshold: in [0, 1], see [`ReferringPostProcessing`].
            components: whether an expression may mean several objects, each a part of its mask that is connected by
                sides or corners of pixels; the largest first.
            outputs, target_sizes, image_index: see `post_process_probabilities`.

        Returns:
            one dict per picture, with the objects in the order of their expressions:

            masks: bool (num_objects, height, width).
            scores: float32 (num_objects,), the mean probability inside each mask, in [0, 1].
            boxes: int64 (num_objects, 4), xmin, ymin, xmax and ymax in pixels, the far edges not included.
            labels: int64 (num_objects,), the place of each one's expression among all that came, from 0.
        """
        threshold = check_threshold(threshold)
        answers = read_answers(outputs, target_sizes, image_index)
        number = answers.logits.new_zeros(0, dtype=torch.float32)
        found: list[dict[str, list[torch.Tensor]]] = [
            {
                "masks": [torch.zeros((0, *size), dtype=torch.bool, device=number.device)],
                "scores": [number],
                "boxes": [number.long().reshape(0, 4)],
                "labels": [number.long()],
            }
            for size in answers.sizes
        ]
        is_absent = find_absent(outputs, presence_threshold)
        for label, (picture, probability) in enumerate(zip(answers.pictures, self._probabilities(answers))):
            whole = probability > (math.inf if is_absent[label] else threshold)
            for mask in connected_components(whole) if components else [whole] * bool(whole.any()):
                found[picture]["masks"].append(mask[None])
                found[picture]["scores"].append(probability[mask].mean()[None])
                found[picture]["boxes"].append(box_of(mask)[None])
                found[picture]["labels"].append(torch.tensor([label], device=mask.device))
        return [{name: torch.cat(values) for name, values in objects.items()} for objects in found]

    def post_process_presence(self, outputs: Any) -> torch.Tensor:
        """
        Turns presence logits into the probability that each expression means something in its picture.

        Args:
            outputs: the model's output, also as a dict or tuple.

        Returns:
            float32 (num_expressions,), in [0, 1].

        Raises:
            ValueError: if the output has none: its model is without `predicts_presence`.
        """
        presence = find_presence(outputs)
        if presence is None:
            raise ValueError("the output has no presence_logits; give that of a model with predicts_presence.")
        return presence

    def _probabilities(self, answers: Answers, interpolation: str = "bilinear") -> Iterator[torch.Tensor]:
        """See `post_process_probabilities`; one at a time."""
        if interpolation not in LOGIT_INTERPOLATIONS:
            raise ValueError(f"interpolation is {interpolation!r}; choose one of {sorted(LOGIT_INTERPOLATIONS)}.")
        for picture, logits in zip(answers.pictures, answers.logits.split(1)):
            if answers.is_resized:
                yield self.lay_back(logits.float(), answers.sizes[picture], LOGIT_INTERPOLATIONS[interpolation])
            else:
                yield logits.float()[0, 0].sigmoid()  # (height, width)


def connected_components(mask: torch.Tensor) -> list[torch.Tensor]:
    """The parts of a mask (height, width) that are connected by sides or corners of pixels, the largest first."""
    try:
        from scipy import ndimage
    except ImportError:
        raise ImportError("components needs SciPy: pip install scipy.") from None
    labels, count = ndimage.label(mask.cpu().numpy(), structure=np.ones((3, 3)))
    places = np.bincount(labels.ravel(), minlength=count + 1)[1:]  # pixels of each
    order = np.argsort(-places, kind="stable") + 1
    return [torch.from_numpy(labels == number).to(mask.device) for number in order.tolist()]


def box_of(mask: torch.Tensor) -> torch.Tensor:
    """xmin, ymin, xmax, ymax, int64 (4,), of a mask (height, width) that is not empty."""
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
