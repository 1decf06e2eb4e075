# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The `evaluate` module of referring IoU: masks or pixel counts → `scores`."""

from collections.abc import Callable

import datasets
import evaluate
import numpy as np

from .scores import count_pixels, generalized_iou, referring_iou


DESCRIPTION = "Mean and overall IoU, precision at thresholds, and gIoU, cIoU, N-acc, T-acc of generalised sets."
INPUTS = """
Args:
    predictions: masks, one (height, width) array of bool or integers per sample; sizes may differ between samples.
    references: as many masks, each of the size of its prediction.
    intersections, unions, reference_areas: instead of masks, pixel counts, one integer per sample;
        reference_areas only in the configuration "generalized".
Returns:
    "default": miou, oiou, precision@0.5, precision@0.6, precision@0.7, precision@0.8, precision@0.9.
    "generalized": giou, ciou, n_acc, t_acc.
"""
CITATION = """@inproceedings{yang2024remamber,
  title = {ReMamber: Referring Image Segmentation with Mamba Twister},
  author = {Yang, Yuhuan and Ma, Chaofan and Yao, Jiangchao and Zhong, Zhun and Zhang, Ya and Wang, Yanfeng},
  booktitle = {European Conference on Computer Vision},
  year = {2024}
}"""
COUNTS = {
    "default": ("intersections", "unions"),
    "generalized": ("intersections", "unions", "reference_areas"),
}
SCORES: dict[str, Callable[..., dict[str, float]]] = {"default": referring_iou, "generalized": generalized_iou}


class ReferringIoU(evaluate.Metric):
    """masks → pixel counts as they come → file of counts → scores.

    No mask is kept: a sample is three integers in the file of `evaluate`, which `compute` reads at the end. They stand
    under the names that `evaluate.combine` and others ask a metric for: intersection and union as the prediction, the
    area as the reference.
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in COUNTS:
            raise ValueError(f"config_name is {self.config_name!r}; choose one of {', '.join(COUNTS)}.")
        integer = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": datasets.Sequence(integer, length=2), "references": integer}),
        )

    def add(self, *, prediction=None, reference=None, predictions=None, references=None, **counts):
        """Add one sample; `evaluate.combine` gives it as `predictions` and `references`."""
        prediction = predictions if prediction is None else prediction
        reference = references if reference is None else reference
        masks = {
            name: None if mask is None else [mask]
            for name, mask in {"predictions": prediction, "references": reference}.items()
        }
        self.add_batch(**masks, **{name: [count] for name, count in counts.items()})

    def add_batch(self, *, predictions=None, references=None, **counts):
        """Add samples."""
        if predictions is not None or references is not None:
            if counts:
                raise ValueError(f"masks came together with {', '.join(counts)}; give masks, or pixel counts.")
            counts = self._count(predictions, references)
        names = COUNTS[self.config_name]
        if set(counts) != set(names):
            came = ", ".join(counts) or "nothing"
            raise ValueError(f"{came} came; give predictions and references, or {', '.join(names)}.")
        counts = {name: np.asarray(values) for name, values in counts.items()}
        for name, values in counts.items():
            if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
                raise ValueError(f"{name} are {values.dtype} {values.shape}; give integers, one for each sample.")
        lengths = {len(values) for values in counts.values()}
        if len(lengths) != 1:
            raise ValueError(f"{sorted(lengths)} counts came of one kind and another; give one of each per sample.")
        intersections, unions = counts["intersections"], counts["unions"]
        areas = counts.get("reference_areas", [0] * len(unions))
        pairs = [[int(intersection), int(union)] for intersection, union in zip(intersections, unions)]
        super().add_batch(predictions=pairs, references=[int(area) for area in areas])

    def compute(self, *, predictions=None, references=None, **counts):
        """Compute the scores of all samples that were added, and of those given here."""
        if predictions is not None or references is not None or counts:
            self.add_batch(predictions=predictions, references=references, **counts)
        return super().compute()

    def _count(self, predictions, references) -> dict[str, list[int]]:
        """Count the pixels of each pair of masks."""
        predictions, references = (
            masks if masks is None or hasattr(masks, "__len__") else list(masks) for masks in (predictions, references)
        )
        if predictions is None or references is None or len(predictions) != len(references):
            numbers = [0 if masks is None else len(masks) for masks in (predictions, references)]
            raise ValueError(
                f"{numbers[0]} predictions came with {numbers[1]} references; give one reference per prediction."
            )
        counts = [count_pixels(*pair) for pair in zip(predictions, references)]
        return {name: [count[place] for count in counts] for place, name in enumerate(COUNTS[self.config_name])}

    def _compute(self, predictions, references) -> dict[str, float]:
        counts = [*np.asarray(predictions).reshape(-1, 2).T, np.asarray(references)]
        return SCORES[self.config_name](*counts[: len(COUNTS[self.config_name])])
