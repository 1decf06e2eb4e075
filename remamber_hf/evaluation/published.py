# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Published figures of referring segmentation, to stand beside one's own."""

from dataclasses import dataclass

from .referring_iou.scores import PRECISION_THRESHOLDS


@dataclass(frozen=True)
class PublishedResult:
    """
    What a paper reports on one split: oiou, maybe miou and precisions (at IoU 0.5 … 0.9), in per cent as printed.

    protocol: of `remamber evaluate`, that of the code which gave the figures.
    """

    model: str
    protocol: str
    oiou: float
    miou: float | None = None
    precisions: tuple[float, ...] = ()

    @property
    def scores(self) -> dict[str, float]:
        """The figures as fractions, under the names of `referring_iou`."""
        named = {"oiou": self.oiou, "miou": self.miou}
        named |= {f"precision@{threshold}": value for threshold, value in zip(PRECISION_THRESHOLDS, self.precisions)}
        return {name: round(value / 100, 4) for name, value in named.items() if value is not None}


def _remamber(oiou: float) -> PublishedResult:
    """Yang et al., ReMamber, ECCV 2024: one model per data set, 480 pixels."""
    return PublishedResult("ReMamber (ECCV 2024)", "published", oiou)


def _lavt(oiou: float, miou: float, *precisions: float) -> PublishedResult:
    """Yang et al., LAVT, CVPR 2022, as its repository gives them for the released models."""
    return PublishedResult("LAVT (CVPR 2022)", "lavt", oiou, miou, precisions)


# (data set, split by) → split → results
PUBLISHED_RESULTS: dict[tuple[str, str | None], dict[str, list[PublishedResult]]] = {
    ("refcoco", "unc"): {
        "val": [_remamber(74.54), _lavt(72.73, 74.46, 84.46, 80.90, 75.28, 64.71, 34.30)],
        "testA": [_remamber(76.74), _lavt(75.82, 76.89, 88.07, 85.17, 79.90, 68.52, 35.69)],
        "testB": [_remamber(70.89), _lavt(68.79, 70.94, 79.12, 74.94, 69.17, 59.37, 34.45)],
    },
    ("refcoco+", "unc"): {
        "val": [_remamber(65.00), _lavt(62.14, 65.81, 74.44, 70.91, 65.58, 56.34, 30.23)],
        "testA": [_remamber(70.78), _lavt(68.38, 70.97, 80.68, 77.96, 72.90, 62.21, 32.36)],
        "testB": [_remamber(57.53), _lavt(55.10, 59.23, 65.66, 61.85, 55.94, 47.56, 27.24)],
    },
    ("refcocog", "umd"): {
        "val": [_remamber(63.90), _lavt(61.24, 63.34, 70.81, 65.28, 58.60, 47.49, 22.73)],
        "test": [_remamber(64.00), _lavt(62.09, 63.62, 71.54, 66.38, 59.00, 48.21, 23.10)],
    },
    ("refcocog", "google"): {
        "val": [_lavt(60.50, 63.66, 71.16, 67.21, 61.76, 51.98, 27.30)],
    },
}
