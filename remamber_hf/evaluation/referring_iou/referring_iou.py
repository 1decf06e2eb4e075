# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""The `evaluate` module of referring IoU: masks or pixel counts → `scores`."""

from collections.abc import Callable

import datasets
import evaluate
import numpy as np

from .scores import count_pixels, generalized_iou, r_refcoco_iou, ref_zom_iou, referring_iou


DESCRIPTION = (
    "Mean and overall IoU and precision; gIoU, cIoU, N-acc, T-acc of gRefCOCO; Acc of Ref-ZOM; mRR, rIoU of R-RefCOCO."
)
INPUTS = """
Args:
    predictions: masks, one (height, width) array of bool or integers per sample; sizes may differ between samples.
    references: as many masks, each of the size of its prediction.
    intersections, unions, reference_areas: instead of masks, pixel counts, one integer per sample; reference_areas not
        in the configuration "default".
    nothing_found, nothing_meant: whether the model, and whether the data, says that a sample means nothing, one bool
        per sample; not in "default". By default where its mask has no pixel.
    ref_ids: only in "r_refcoco": one integer per sample, the same for all sentences of a ref.
Returns:
    "default": miou, oiou, precision@0.5, precision@0.6, precision@0.7, precision@0.8, precision@0.9.
    "generalized": giou, ciou, n_acc, t_acc, target_precision@0.7, target_precision@0.8, target_precision@0.9.
    "ref_zom": those of "default", of samples that mean something, and acc.
    "r_refcoco": those of "default", mrr, riou, released_precision@0.5 … released_precision@0.9.
"""
CITATION = """@inproceedings{yang2024remamber,
  title = {ReMamber: Referring Image Segmentation with Mamba Twister},
  author = {Yang, Yuhuan and Ma, Chaofan and Yao, Jiangchao and Zhong, Zhun and Zhang, Ya and Wang, Yanfeng},
  booktitle = {European Conference on Computer Vision},
  year = {2024}
}"""
PAIR = ("intersections", "unions")
COUNTS = {
    "default": PAIR,
    "generalized": (*PAIR, "reference_areas"),
    "ref_zom": (*PAIR, "reference_areas"),
    "r_refcoco": (*PAIR, "reference_areas"),
}
FLAGS = ("nothing_found", "nothing_meant")
UNSAID = -1  # of a flag
SCORES: dict[str, Callable[..., dict[str, float]]] = {
    "default": referring_iou,
    "generalized": generalized_iou,
    "ref_zom": ref_zom_iou,
    "r_refcoco": r_refcoco_iou,
}


class ReferringIoU(evaluate.Metric):
    """masks → pixel counts as they come → file of counts → scores.

    No mask is kept: a sample is a few integers in the file of `evaluate`, which `compute` reads at the end. They stand
    under the names that `evaluate.combine` and others ask a metric for: as the prediction intersection, union and
    whether nothing was found, as the reference its area and whether nothing was meant.
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in COUNTS:
            raise ValueError(f"config_name is {self.config_name!r}; choose one of {', '.join(COUNTS)}.")
        integer = datasets.Value("int64")
        columns = {
            "predictions": datasets.Sequence(integer, length=3),
            "references": datasets.Sequence(integer, length=2),
        }
        if self.config_name == "r_refcoco":
            columns["ref_ids"] = integer
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(columns),
        )

    def add(self, *, prediction=None, reference=None, predictions=None, references=None, **values):
        """Add one sample; `evaluate.combine` gives it as `predictions` and `references`."""
        prediction = predictions if prediction is None else prediction
        reference = references if reference is None else reference
        masks = {
            name: None if mask is None else [mask]
            for name, mask in {"predictions": prediction, "references": reference}.items()
        }
        self.add_batch(**masks, **{name: [value] for name, value in values.items()})

    def add_batch(self, *, predictions=None, references=None, **values):
        """Add samples."""
        values = {name: value for name, value in values.items() if value is not None}
        if predictions is not None or references is not None:
            counts = [name for name in values if name in COUNTS["generalized"]]
            if counts:
                raise ValueError(f"masks came together with {', '.join(counts)}; give masks, or pixel counts.")
            values |= self._count(predictions, references)
        arrays = self._read(values)
        shape = arrays["unions"].shape
        unsaid, areas = np.full(shape, UNSAID), arrays.get("reference_areas", np.zeros(shape))
        found, meant = (arrays.get(name, unsaid) for name in FLAGS)
        columns = {
            "predictions": np.stack([arrays["intersections"], arrays["unions"], found], axis=1),
            "references": np.stack([areas, meant], axis=1),
            **({"ref_ids": arrays["ref_ids"]} if "ref_ids" in arrays else {}),
        }
        super().add_batch(**{name: column.astype(np.int64).tolist() for name, column in columns.items()})

    def _read(self, values: dict) -> dict[str, np.ndarray]:
        """Counts, flags and ids as arrays, one number per sample; ValueError for what this configuration lacks."""
        counts = COUNTS[self.config_name]
        ids = tuple(name for name in self._feature_names() if name == "ref_ids")
        flags = () if self.config_name == "default" else FLAGS
        if not {*counts, *ids} <= values.keys() <= {*counts, *ids, *flags}:
            came = ", ".join(values) or "nothing"
            needed = "".join(f", and {name}" for name in ids)
            raise ValueError(f"{came} came; give predictions and references, or {', '.join(counts)}{needed}.")
        arrays = {name: np.asarray(value) for name, value in values.items()}
        for name, array in arrays.items():
            kinds, needed = ("biu", "bools") if name in FLAGS else ("iu", "integers")
            if array.ndim != 1 or (array.size and array.dtype.kind not in kinds):
                raise ValueError(f"{name} are {array.dtype} {array.shape}; give {needed}, one for each sample.")
            if name in FLAGS and ((array != 0) & (array != 1)).any():
                raise ValueError(f"{name} are {np.unique(array)[:4]}; give bools, or 0 and 1.")
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) != 1:
            raise ValueError(f"{sorted(lengths)} counts came of one kind and another; give one of each per sample.")
        return arrays

    def compute(self, *, predictions=None, references=None, **values):
        """Compute the scores of all samples that were added, and of those given here."""
        if predictions is not None or references is not None or values:
            self.add_batch(predictions=predictions, references=references, **values)
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

    def _compute(self, predictions, references, **ref_ids) -> dict[str, float]:
        intersections, unions, nothing_found = np.asarray(predictions).reshape(-1, 3).T
        areas, nothing_meant = np.asarray(references).reshape(-1, 2).T
        if self.config_name == "default":
            return referring_iou(intersections, unions)
        # What was not said of a sample is so where its mask has no pixel.
        is_empty = {"nothing_found": intersections + unions == areas, "nothing_meant": areas == 0}
        flags = {
            name: np.where(said == UNSAID, is_empty[name], said == 1)
            for name, said in zip(FLAGS, (nothing_found, nothing_meant))
        }
        ids = {name: np.asarray(values, dtype=np.int64) for name, values in ref_ids.items()}
        return SCORES[self.config_name](intersections, unions, areas, **ids, **flags)
