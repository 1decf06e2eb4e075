"""The `evaluate` module of referring IoU: masks or pixel counts → `scores`."""

import datasets
import evaluate

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
SCORES = {"default": referring_iou, "generalized": generalized_iou}


class ReferringIoU(evaluate.Metric):
    """masks → pixel counts as they come → file of counts → scores.

    No mask is kept: a sample is two or three integers in the file of `evaluate`, which `compute` reads at the end.
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in COUNTS:
            raise ValueError(f"config_name is {self.config_name!r}; choose one of {', '.join(COUNTS)}.")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({name: datasets.Value("int64") for name in COUNTS[self.config_name]}),
            format="numpy",
        )

    def add(self, *, prediction=None, reference=None, **counts):
        """Add one sample."""
        if prediction is not None or reference is not None:
            counts.update(self._count([prediction], [reference]))
            self.add_batch(**counts)
        else:
            super().add(**counts)

    def add_batch(self, *, predictions=None, references=None, **counts):
        """Add samples."""
        if predictions is not None or references is not None:
            counts.update(self._count(predictions, references))
        super().add_batch(**counts)

    def compute(self, *, predictions=None, references=None, **counts):
        """Compute the scores of all samples that were added, and of those given here."""
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        return super().compute(**counts)

    def _count(self, predictions, references) -> dict[str, list[int]]:
        """Count the pixels of each pair of masks."""
        if predictions is None or references is None or len(predictions) != len(references):
            numbers = [0 if masks is None else len(masks) for masks in (predictions, references)]
            raise ValueError(
                f"{numbers[0]} predictions came with {numbers[1]} references; give one reference per prediction."
            )
        counts = [count_pixels(*pair) for pair in zip(predictions, references)]
        return {name: [count[place] for count in counts] for place, name in enumerate(COUNTS[self.config_name])}

    def _compute(self, **counts) -> dict[str, float]:
        return SCORES[self.config_name](**counts)
