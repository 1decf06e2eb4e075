# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What was published about REFER data sets: their names, splits, counts, archives and places of pictures."""

from __future__ import annotations

from dataclasses import dataclass


PUBLISHED_SETS = {
    "refcoco": ("unc", "google"),
    "refcoco+": ("unc",),
    "refcocog": ("umd", "google"),
    "refclef": ("unc", "berkeley"),
    "grefcoco": ("unc",),
}
COCO_FOLDERS = (
    "images/mscoco/images/train2014",
    "train2014",
    "images/train2014",
    "images/mscoco/train2014",
    "mscoco/train2014",
    "coco/train2014",
)
IMAGE_FOLDERS = {"refclef": ("images/saiapr_tc-12", "saiapr_tc-12")}


def picture_folders(dataset: str) -> tuple[str, ...]:
    """Return the folders in `data_dir` that may hold the pictures of a data set."""
    if dataset in PUBLISHED_SETS or not dataset:
        return IMAGE_FOLDERS.get(dataset, COCO_FOLDERS)
    return (f"images/{dataset}/JPEGImages", f"images/{dataset}", *COCO_FOLDERS)


@dataclass
class SplitCount:
    """What a split holds; `sentences` is None where no number was published."""

    refs: int
    images: int
    sentences: int | None


# refs, pictures, sentences. The pictures are those of TensorFlow Datasets' page on ref_coco, which has the same refs.
PUBLISHED_COUNTS: dict[tuple[str, str | None], dict[str, SplitCount]] = {
    ("refcoco", "unc"): {
        "train": SplitCount(42404, 16994, 120624),
        "val": SplitCount(3811, 1500, 10834),
        "testA": SplitCount(1975, 750, 5657),
        "testB": SplitCount(1810, 750, 5095),
    },
    ("refcoco", "google"): {
        "train": SplitCount(40000, 19213, None),
        "val": SplitCount(5000, 4559, None),
        "test": SplitCount(5000, 4527, None),
    },
    ("refcoco+", "unc"): {
        "train": SplitCount(42278, 16992, 120191),
        "val": SplitCount(3805, 1500, 10758),
        "testA": SplitCount(1975, 750, 5726),
        "testB": SplitCount(1798, 750, 4889),
    },
    ("refcocog", "umd"): {
        "train": SplitCount(42226, 21899, 80512),
        "val": SplitCount(2573, 1300, 4896),
        "test": SplitCount(5023, 2600, 9602),
    },
    ("refcocog", "google"): {
        "train": SplitCount(44822, 24698, None),
        "val": SplitCount(5000, 4650, None),
    },
}
REFER_PAGE = "https://github.com/lichengunc/refer"
ANNOTATION_ARCHIVES = {
    "refcoco": ("refcoco.zip", REFER_PAGE),
    "refcoco+": ("refcoco+.zip", REFER_PAGE),
    "refcocog": ("refcocog.zip", REFER_PAGE),
    "refclef": ("refclef.zip", REFER_PAGE),
    "grefcoco": ("the archive of gRefCOCO", "https://github.com/henghuiding/gRefCOCO"),
}
COCO_ARCHIVE = ("train2014.zip", "https://cocodataset.org/#download")
IMAGE_ARCHIVES = {"refclef": ("saiapr_tc-12.zip", REFER_PAGE)}
