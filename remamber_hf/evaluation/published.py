# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""
Published figures of referring segmentation, to stand beside one's own: only such as were read where `source` says.

oIoU is what others call cIoU or overall IoU. A model is one per data set unless its name says "mixed", which is
trained on all of RefCOCO, RefCOCO+ and G-Ref, or "with a language model".
"""

from dataclasses import dataclass

from .referring_iou.scores import PRECISION_THRESHOLDS


OWN = "its own"
REPOSITORY, PAPER = "the project's repository", "a paper's full text"
RELA_SOURCE = f"{REPOSITORY}; N-acc and T-acc in {PAPER}"
Figures = tuple[float | None, ...]


@dataclass(frozen=True)
class PublishedResult:
    """
    What a model reached on one split.

    protocol: of `remamber evaluate`, that of the code which gave the figures; `OWN` if that code counts in a way that
    is none here, or is not known. source: where they were read. figures: under the names of the metric
    `referring_iou`, in per cent as printed; None where there is none.
    """

    model: str
    protocol: str
    source: str
    figures: dict[str, float | None]

    @property
    def scores(self) -> dict[str, float]:
        """The figures as fractions."""
        return {name: round(value / 100, 4) for name, value in self.figures.items() if value is not None}


@dataclass(frozen=True)
class PlainResults:
    """
    What a model reached on RefCOCO (val, testA, testB), RefCOCO+ (likewise) and G-Ref (umd: val, test), in this order.

    precisions: P@0.5 to P@0.9 of each.
    """

    model: str
    source: str
    oiou: Figures = (None,) * 8
    miou: Figures = (None,) * 8
    protocol: str = OWN
    precisions: tuple[Figures, ...] = ((),) * 8

    def result(self, place: int) -> PublishedResult:
        """That on the split at this place of the order."""
        named = {f"precision@{x}": value for x, value in zip(PRECISION_THRESHOLDS, self.precisions[place])}
        figures = {"oiou": self.oiou[place], "miou": self.miou[place], **named}
        return PublishedResult(self.model, self.protocol, self.source, figures)


PLAIN_PLACES = [
    *[("refcoco", "unc", split) for split in ("val", "testA", "testB")],
    *[("refcoco+", "unc", split) for split in ("val", "testA", "testB")],
    *[("refcocog", "umd", split) for split in ("val", "test")],
]
LAVT, LAVT_SOURCE = "LAVT (CVPR 2022)", f"{REPOSITORY}, of the released models"
NO = None
PLAIN_RESULTS = [
    PlainResults(
        "ReMamber (ECCV 2024)",
        PAPER,
        oiou=(74.54, 76.74, 70.89, 65.00, 70.78, 57.53, 63.90, 64.00),
        protocol="published",
    ),
    PlainResults(
        LAVT,
        LAVT_SOURCE,
        oiou=(72.73, 75.82, 68.79, 62.14, 68.38, 55.10, 61.24, 62.09),
        miou=(74.46, 76.89, 70.94, 65.81, 70.97, 59.23, 63.34, 63.62),
        protocol="lavt",
        precisions=(
            (84.46, 80.90, 75.28, 64.71, 34.30),
            (88.07, 85.17, 79.90, 68.52, 35.69),
            (79.12, 74.94, 69.17, 59.37, 34.45),
            (74.44, 70.91, 65.58, 56.34, 30.23),
            (80.68, 77.96, 72.90, 62.21, 32.36),
            (65.66, 61.85, 55.94, 47.56, 27.24),
            (70.81, 65.28, 58.60, 47.49, 22.73),
            (71.54, 66.38, 59.00, 48.21, 23.10),
        ),
    ),
    PlainResults(
        "CGFormer",
        PAPER,
        oiou=(74.75, 77.30, 70.64, 64.54, 71.00, 57.14, 64.68, NO),
        miou=(76.93, 78.70, 73.32, 68.56, 73.76, 61.72, 67.57, 67.83),
    ),
    PlainResults("MagNet", PAPER, oiou=(75.24, 78.24, 71.05, 66.16, 71.32, 58.14, 65.36, 66.03)),
    PlainResults(
        "SaFiRe",
        PAPER,
        oiou=(75.34, 78.52, 71.35, 66.39, 71.96, 58.47, 67.07, 66.87),
        miou=(77.02, NO, NO, NO, NO, NO, 69.68, NO),
    ),
    PlainResults(
        "DETRIS-L",
        REPOSITORY,
        oiou=(76.1, 78.3, 73.2, 67.9, 73.3, 60.2, 66.8, 68.0),
        miou=(77.3, 79.0, 75.2, 70.8, 75.3, 64.7, 69.3, 70.2),
    ),
    PlainResults(
        "MaskRIS",
        PAPER,
        oiou=(76.49, 78.96, 73.96, 67.54, 74.46, 59.39, 65.55, 66.50),
        miou=(78.35, 80.24, 76.06, 71.68, 76.73, 64.50, 69.31, 69.42),
    ),
    PlainResults("DETRIS-L, mixed", REPOSITORY, oiou=(80.7, 82.2, 77.9, 73.1, 77.5, 66.0, 73.2, 74.7)),
    PlainResults(
        "DeRIS-B (ICCV 2025), mixed", REPOSITORY, oiou=(80.80, 82.68, 78.47, 72.21, 77.26, 66.11, 73.89, 75.88)
    ),
    PlainResults(
        "SaFiRe, mixed",
        PAPER,
        oiou=(81.4, 83.6, 78.2, 74.8, 78.9, 68.3, 75.8, 76.8),
        miou=(82.1, 83.7, 80.1, 77.4, 80.5, 72.9, 77.3, 78.1),
    ),
    PlainResults("C3VG, mixed", PAPER, miou=(81.37, 82.93, 79.12, 77.05, 79.61, 72.40, 76.34, 77.10)),
    PlainResults("InstanceVG (2025), mixed", PAPER, miou=(81.36, 83.05, 79.28, 76.64, 79.51, 71.56, 75.89, 76.59)),
    PlainResults("SSDE (2026), mixed", PAPER, miou=(81.82, 83.34, 79.83, 77.44, 80.51, 74.00, 77.08, 77.80)),
    PlainResults(
        "DeRIS-L (ICCV 2025), mixed",
        REPOSITORY,
        oiou=(85.41, 86.49, 82.87, 79.01, 82.34, 74.41, 77.65, 80.12),
        miou=(85.72, 86.64, 84.52, 81.28, 83.74, 78.59, 80.01, 81.32),
    ),
    PlainResults("LISA-7B, with a language model", PAPER, oiou=(74.9, 79.1, 72.3, 65.1, 70.8, 58.1, 67.9, 70.6)),
    PlainResults("GLaMM-7B, with a language model", PAPER, oiou=(79.5, 83.2, 76.9, 72.6, 78.7, 64.6, 74.2, 74.9)),
    PlainResults(
        "UniPixel-3B, with a language model", REPOSITORY, oiou=(80.5, 82.6, 76.9, 74.3, 78.9, 68.4, 76.3, 77.0)
    ),
    PlainResults(
        "UniPixel-7B, with a language model", REPOSITORY, oiou=(80.8, 83.0, 77.4, 75.3, 80.1, 70.0, 76.4, 77.1)
    ),
    PlainResults(
        "DeRIS-7B, with a language model", PAPER, oiou=(84.05, 85.79, 83.32, 80.30, 83.92, 76.16, 80.62, 80.59)
    ),
]


def _gref(
    model: str,
    giou: float,
    ciou: float,
    n_acc: float | None = None,
    t_acc: float | None = None,
    protocol: str = OWN,
    source: str = REPOSITORY,
) -> PublishedResult:
    """On gRefCOCO; of LAVT, what the paper of gRefCOCO and those after it quote."""
    return PublishedResult(model, protocol, source, {"giou": giou, "ciou": ciou, "n_acc": n_acc, "t_acc": t_acc})


def _zom(model: str, miou: float, oiou: float, acc: float, source: str = REPOSITORY) -> PublishedResult:
    """On Ref-ZOM, at 480×480; those with a head of their own for "nothing" take their accuracy from that."""
    return PublishedResult(model, OWN, source, {"miou": miou, "oiou": oiou, "acc": acc})


def _robust(model: str, *figures: float) -> PublishedResult:
    """On R-RefCOCO, R-RefCOCO+ and R-RefCOCOg, at 480×480: mIoU, mRR, rIoU."""
    return PublishedResult(model, OWN, PAPER, dict(zip(("miou", "mrr", "riou"), figures)))


def _ambiguous(model: str, oiou: float, miou: float, *precisions: float) -> PublishedResult:
    """On aRefCOCO, by models trained on other sets: table 3 of SaFiRe's paper."""
    named = dict(zip(("precision@0.5", "precision@0.7", "precision@0.9"), precisions))
    return PublishedResult(model, OWN, "SaFiRe's paper, table 3", {"oiou": oiou, "miou": miou, **named})


# (data set, split by) → split → results
PUBLISHED_RESULTS: dict[tuple[str, str | None], dict[str, list[PublishedResult]]] = {
    ("refcocog", "google"): {
        "val": [
            PublishedResult(
                LAVT,
                "lavt",
                LAVT_SOURCE,
                {
                    "oiou": 60.50,
                    "miou": 63.66,
                    "precision@0.5": 71.16,
                    "precision@0.6": 67.21,
                    "precision@0.7": 61.76,
                    "precision@0.8": 51.98,
                    "precision@0.9": 27.30,
                },
            )
        ],
    },
    ("grefcoco", "unc"): {
        "val": [
            _gref(LAVT, 58.4, 57.6, 49.3, 96.2, "rela", PAPER),
            _gref("ReLA (CVPR 2023)", 63.60, 62.42, 56.4, 96.3, "rela", RELA_SOURCE),
            _gref("GSVA-7B (CVPR 2024)", 66.43, 63.19, 62.56, 99.62),
            _gref("CoHD, Swin-B (2024)", 68.42, 65.17, 63.38, None, "rela"),
            _gref("InstanceVG (2025)", 73.36, 69.22, source=PAPER),
            _gref("DeRIS-B (ICCV 2025)", 74.10, 68.06, 77.03),
            _gref("SSDE (2026)", 74.83, 70.09, source=PAPER),
            _gref("DeRIS-L (ICCV 2025)", 77.67, 72.00, 82.22),
        ],
        "testA": [
            _gref(LAVT, 65.9, 65.3, 49.3, 95.1, "rela", PAPER),
            _gref("ReLA (CVPR 2023)", 70.03, 69.26, 59.0, 97.8, "rela", RELA_SOURCE),
            _gref("GSVA-7B (CVPR 2024)", 71.06, 69.87, 65.72, 98.69),
            _gref("CoHD, Swin-B (2024)", 72.67, 71.85, None, None, "rela"),
            _gref("InstanceVG (2025)", 75.21, 74.51, source=PAPER),
            _gref("DeRIS-B (ICCV 2025)", 73.72, 71.99, 75.98),
            _gref("SSDE (2026)", 76.23, 75.51, source=PAPER),
            _gref("DeRIS-L (ICCV 2025)", 75.30, 73.73, 78.30),
        ],
        "testB": [
            _gref(LAVT, 55.8, 55.0, 48.5, 95.3, "rela", PAPER),
            _gref("ReLA (CVPR 2023)", 61.02, 59.88, 58.4, 95.4, "rela", RELA_SOURCE),
            _gref("GSVA-7B (CVPR 2024)", 62.20, 60.35, 60.72, 99.10),
            _gref("CoHD, Swin-B (2024)", 63.60, 62.63, None, None, "rela"),
            _gref("InstanceVG (2025)", 66.74, 65.67, source=PAPER),
            _gref("DeRIS-B (ICCV 2025)", 65.63, 64.65, 63.44),
            _gref("SSDE (2026)", 67.45, 66.13, source=PAPER),
            _gref("DeRIS-L (ICCV 2025)", 67.99, 67.38, 66.81),
        ],
    },
    ("ref-zom", "final"): {
        "test": [
            _zom(LAVT, 64.78, 64.45, 83.11, PAPER),
            _zom("DMMI (ICCV 2023)", 68.21, 68.77, 87.02, f"{PAPER}; its repository has 68.25 for mIoU"),
            _zom("GSVA-7B (CVPR 2024)", 68.13, 68.29, 94.59),
            _zom("CoHD (2024)", 69.81, 68.99, 93.34, PAPER),
            _zom("InstanceVG (2025)", 71.52, 71.12, 97.42, PAPER),
            _zom("SSDE (2026)", 73.28, 72.78, 97.98, PAPER),
        ],
    },
    ("rrefcoco", "unc"): {
        "val": [
            _robust(LAVT, 69.59, 58.25, 36.20),
            _robust("RefSegformer (TIP 2024)", 68.78, 73.73, 46.08),
            _robust("CoHD (2024)", 74.16, 84.27, 53.61),
            _robust("InstanceVG (2025)", 76.73, 92.15, 62.41),
            _robust("SSDE (2026)", 78.26, 92.29, 64.42),
        ],
    },
    ("rrefcoco+", "unc"): {
        "val": [
            _robust(LAVT, 56.99, 73.45, 36.98),
            _robust("RefSegformer (TIP 2024)", 55.82, 81.23, 42.14),
            _robust("CoHD (2024)", 64.59, 87.49, 49.07),
            _robust("InstanceVG (2025)", 69.73, 94.63, 59.13),
            _robust("SSDE (2026)", 72.15, 94.20, 61.14),
        ],
    },
    ("rrefcocog", "unc"): {
        "val": [
            _robust(LAVT, 59.52, 61.60, 34.91),
            _robust("RefSegformer (TIP 2024)", 54.99, 71.31, 37.65),
            _robust("CoHD (2024)", 63.56, 82.68, 42.16),
            _robust("InstanceVG (2025)", 70.16, 92.30, 54.36),
            _robust("SSDE (2026)", 72.40, 92.67, 57.42),
        ],
    },
    ("arefcoco", "authors"): {
        "test": [
            _ambiguous(LAVT, 31.7, 34.9, 30.8, 19.9, 5.5),
            _ambiguous("LISA-7B, with a language model", 49.0, 53.8, 58.7, 49.2, 20.6),
            _ambiguous("ReMamber (ECCV 2024)", 49.4, 57.8, 64.2, 57.9, 27.9),
            _ambiguous("EEVG", 50.7, 59.4, 66.9, 62.4, 29.4),
            _ambiguous("CGFormer", 54.0, 60.3, 67.0, 59.7, 27.2),
            _ambiguous("MagNet", 54.4, 60.7, 67.7, 61.4, 29.9),
            _ambiguous("PSALM, with a language model", 60.1, 67.3, 75.7, 71.8, 38.7),
            _ambiguous("C3VG", 62.9, 69.1, 78.4, 72.8, 32.8),
            _ambiguous("SaFiRe", 65.1, 71.4, 78.9, 73.6, 45.2),
        ],
    },
}
for place, (dataset, split_by, split) in enumerate(PLAIN_PLACES):
    results = [row.result(place) for row in PLAIN_RESULTS]
    PUBLISHED_RESULTS.setdefault((dataset, split_by), {})[split] = [result for result in results if result.scores]
