# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Published figures of referring segmentation, to stand beside one's own."""

from dataclasses import dataclass

from .referring_iou.scores import PRECISION_THRESHOLDS


OWN = "its own"


@dataclass(frozen=True)
class PublishedResult:
    """
    What a paper reports on one split.

    protocol: of `remamber evaluate`, that of the code which gave the figures; `OWN` if that code counts in a way that
    is none here. figures: under the names of the metric `referring_iou`, in per cent as printed; None where there is
    none.
    """

    model: str
    protocol: str
    figures: dict[str, float | None]

    @property
    def scores(self) -> dict[str, float]:
        """The figures as fractions."""
        return {name: round(value / 100, 4) for name, value in self.figures.items() if value is not None}


def _remamber(oiou: float) -> PublishedResult:
    """Yang et al., ReMamber, ECCV 2024: one model per data set, 480 pixels."""
    return PublishedResult("ReMamber (ECCV 2024)", "published", {"oiou": oiou})


def _lavt(oiou: float, miou: float, *precisions: float) -> PublishedResult:
    """Yang et al., LAVT, CVPR 2022, as its repository gives them for the released models."""
    named = {f"precision@{threshold}": value for threshold, value in zip(PRECISION_THRESHOLDS, precisions)}
    return PublishedResult("LAVT (CVPR 2022)", "lavt", {"oiou": oiou, "miou": miou, **named})


def _gref(
    model: str, giou: float, ciou: float, n_acc: float | None = None, t_acc: float | None = None, protocol: str = OWN
) -> PublishedResult:
    """On gRefCOCO, as a model's repository has it; of LAVT, what the paper of gRefCOCO and those after it quote."""
    return PublishedResult(model, protocol, {"giou": giou, "ciou": ciou, "n_acc": n_acc, "t_acc": t_acc})


def _zom(model: str, miou: float, oiou: float, acc: float) -> PublishedResult:
    """On Ref-ZOM, at 480×480; those with a head of their own for "nothing" take their accuracy from that."""
    return PublishedResult(model, OWN, {"miou": miou, "oiou": oiou, "acc": acc})


def _robust(model: str, miou: float, mrr: float, riou: float) -> PublishedResult:
    """On R-RefCOCO, R-RefCOCO+ and R-RefCOCOg, at 480×480."""
    return PublishedResult(model, OWN, {"miou": miou, "mrr": mrr, "riou": riou})


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
    ("grefcoco", "unc"): {
        "val": [
            _gref("LAVT (CVPR 2022)", 58.4, 57.6, 49.3, 96.2, "rela"),
            _gref("ReLA (CVPR 2023)", 63.60, 62.42, 56.4, 96.3, "rela"),
            _gref("GSVA-7B (CVPR 2024)", 66.43, 63.19, 62.56, 99.62),
            _gref("CoHD, Swin-B (2024)", 68.42, 65.17, 63.38, None, "rela"),
            _gref("InstanceVG (2025)", 73.36, 69.22),
            _gref("DeRIS-L (ICCV 2025)", 77.67, 72.00, 82.22),
        ],
        "testA": [
            _gref("LAVT (CVPR 2022)", 65.9, 65.3, 49.3, 95.1, "rela"),
            _gref("ReLA (CVPR 2023)", 70.03, 69.26, 59.0, 97.8, "rela"),
            _gref("GSVA-7B (CVPR 2024)", 71.06, 69.87, 65.72, 98.69),
            _gref("CoHD, Swin-B (2024)", 72.67, 71.85, None, None, "rela"),
            _gref("InstanceVG (2025)", 75.21, 74.51),
            _gref("DeRIS-L (ICCV 2025)", 75.30, 73.73, 78.30),
        ],
        "testB": [
            _gref("LAVT (CVPR 2022)", 55.8, 55.0, 48.5, 95.3, "rela"),
            _gref("ReLA (CVPR 2023)", 61.02, 59.88, 58.4, 95.4, "rela"),
            _gref("GSVA-7B (CVPR 2024)", 62.20, 60.35, 60.72, 99.10),
            _gref("CoHD, Swin-B (2024)", 63.60, 62.63, None, None, "rela"),
            _gref("InstanceVG (2025)", 66.74, 65.67),
            _gref("DeRIS-L (ICCV 2025)", 67.99, 67.38, 66.81),
        ],
    },
    ("ref-zom", "final"): {
        "test": [
            _zom("LAVT (CVPR 2022)", 64.78, 64.45, 83.11),
            _zom("DMMI (ICCV 2023)", 68.25, 68.77, 87.02),
            _zom("GSVA-7B (CVPR 2024)", 68.13, 68.29, 94.59),
            _zom("CoHD (2024)", 69.81, 68.99, 93.34),
            _zom("InstanceVG (2025)", 71.52, 71.12, 97.42),
        ],
    },
    ("rrefcoco", "unc"): {
        "val": [
            _robust("LAVT (CVPR 2022)", 69.59, 58.25, 36.20),
            _robust("RefSegformer (TIP 2024)", 68.78, 73.73, 46.08),
            _robust("CoHD (2024)", 74.16, 84.27, 53.61),
            _robust("InstanceVG (2025)", 76.73, 92.15, 62.41),
        ],
    },
    ("rrefcoco+", "unc"): {
        "val": [
            _robust("LAVT (CVPR 2022)", 56.99, 73.45, 36.98),
            _robust("RefSegformer (TIP 2024)", 55.82, 81.23, 42.14),
            _robust("CoHD (2024)", 64.59, 87.49, 49.07),
            _robust("InstanceVG (2025)", 69.73, 94.63, 59.13),
        ],
    },
    ("rrefcocog", "unc"): {
        "val": [
            _robust("LAVT (CVPR 2022)", 59.52, 61.60, 34.91),
            _robust("RefSegformer (TIP 2024)", 54.99, 71.31, 37.65),
            _robust("CoHD (2024)", 63.56, 82.68, 42.16),
            _robust("InstanceVG (2025)", 70.16, 92.30, 54.36),
        ],
    },
}
