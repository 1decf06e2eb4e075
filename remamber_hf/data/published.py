# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""What was published about data sets: their names, folders, splits, counts, archives and places of pictures."""

from __future__ import annotations

from dataclasses import dataclass


AUTHORS = "authors"  # who split a set whose file names nobody
PUBLISHED_SETS = {
    "refcoco": ("unc", "google"),
    "refcoco+": ("unc",),
    "refcocog": ("umd", "google"),
    "refclef": ("unc", "berkeley"),
    "grefcoco": ("unc",),
    "rrefcoco": ("unc",),
    "rrefcoco+": ("unc",),
    "rrefcocog": ("unc",),
    "ref-zom": ("final",),
    "arefcoco": (AUTHORS,),
    "phrasecut": (AUTHORS,),
}
# Sets in which a sentence may mean nothing or several objects; others are found out by their refs.
GENERALIZED_SETS = ("grefcoco", "rrefcoco", "rrefcoco+", "rrefcocog", "ref-zom", "phrasecut")
# The folders of a set, and the names of its file of refs, where they are not its name and refs(SPLIT_BY).p.
FOLDERS = {"ref-zom": ("ref-zom", "refzom"), "phrasecut": ("VGPhraseCut_v0", "phrasecut")}
REFS_NAMES = {
    "ref-zom": ("refs(final).p", "Ref_ZOM.p", "Ref-ZOM(final).p"),
    "arefcoco": ("arefcoco.json",),
    "phrasecut": ("image_data_split.json", "image_data_split3000.json"),
}
COCO_FOLDERS = (
    "images/mscoco/images/train2014",
    "train2014",
    "images/train2014",
    "images/mscoco/train2014",
    "mscoco/train2014",
    "coco/train2014",
)
IMAGE_FOLDERS = {
    "refclef": ("images/saiapr_tc-12", "saiapr_tc-12"),
    "ref-zom": (
        "images/trainval2014",
        "trainval2014",
        *COCO_FOLDERS,
        *(folder.replace("train2014", "val2014") for folder in COCO_FOLDERS),
    ),
    "phrasecut": ("VGPhraseCut_v0/images", "phrasecut/images"),
}


def published_name(dataset: str) -> str:
    """Return the name of the set that is published in a folder of this name: "refzom" holds "ref-zom"."""
    return next((name for name, folders in FOLDERS.items() if dataset in folders), dataset)


def picture_folders(dataset: str) -> tuple[str, ...]:
    """Return the folders in `data_dir` that may hold the pictures of a data set."""
    if dataset in PUBLISHED_SETS or not dataset:
        return IMAGE_FOLDERS.get(dataset, COCO_FOLDERS)
    return (f"images/{dataset}/JPEGImages", f"images/{dataset}", *COCO_FOLDERS)


@dataclass
class SplitCount:
    """What a split holds; a number is None where none was published."""

    refs: int | None
    images: int | None
    sentences: int | None

    @property
    def is_known(self) -> bool:
        """Whether there is any number."""
        return any(number is not None for number in vars(self).values())


@dataclass
class KindCount(SplitCount):
    """Likewise, and how many of the sentences mean nothing, one object and several."""

    none: int
    one: int
    many: int


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
    # Of the released file, by a project that counted it. The published totals of gRefCOCO are of another release.
    ("grefcoco", "unc"): {
        "train": SplitCount(None, None, None),
        "val": KindCount(None, 1500, 14229, none=8905, one=0, many=5324),
        "testA": KindCount(None, 750, 19200, none=4448, one=5917, many=8835),
        "testB": KindCount(None, 750, 16063, none=4673, one=5646, many=5744),
    },
    ("ref-zom", "final"): {
        "train": SplitCount(None, 43749, None),
        "test": SplitCount(None, 11329, None),
    },
    ("arefcoco", AUTHORS): {
        "train": SplitCount(41417, 18496, 110818),
        "test": SplitCount(4112, 2213, 7050),
    },
    # The published val, 20,316 phrases about 2,971 pictures, is the files val and miniv together.
    ("phrasecut", AUTHORS): {
        "train": SplitCount(310816, 71746, 310816),
        "val": SplitCount(20316 - 821, 2971 - 100, 20316 - 821),
        "test": SplitCount(14354, 2545, 14354),
        "miniv": SplitCount(821, 100, 821),
    },
}
LATER_SPLITS = {"arefcoco": ("train",)}  # which the first release does not have
PHRASECUT_VAL = "the published val of PhraseCut, 20,316 phrases, is val and miniv together; here val is its file alone"
REFER_PAGE = "https://github.com/lichengunc/refer"
ROBUST_PAGE = "https://github.com/jianzongwu/robust-ref-seg"
PHRASECUT_PAGE = "https://github.com/ChenyunWu/PhraseCutDataset"
ANNOTATION_ARCHIVES = {
    "refcoco": ("refcoco.zip", REFER_PAGE),
    "refcoco+": ("refcoco+.zip", REFER_PAGE),
    "refcocog": ("refcocog.zip", REFER_PAGE),
    "refclef": ("refclef.zip", REFER_PAGE),
    "grefcoco": ("the archive of gRefCOCO", "https://github.com/henghuiding/gRefCOCO"),
    "rrefcoco": ("the archive of R-RefCOCO", ROBUST_PAGE),
    "rrefcoco+": ("the archive of R-RefCOCO", ROBUST_PAGE),
    "rrefcocog": ("the archive of R-RefCOCO", ROBUST_PAGE),
    "ref-zom": ("the archive of Ref-ZOM", "https://github.com/toggle1995/RIS-DMMI"),
    "arefcoco": ("arefcoco.json", "https://github.com/zhenjiemao/aRefCOCO"),
    "phrasecut": ("the archive of VGPhraseCut", PHRASECUT_PAGE),
}
# What a set needs in its folder, where that is not instances.json and its refs files.
ANNOTATION_FILES = {
    "grefcoco": ("instances.json", "grefs(unc).json"),
    "arefcoco": ("arefcoco.json",),
    "phrasecut": (
        "image_data_split.json",
        "refer_train.json",
        "refer_val.json",
        "refer_test.json",
        "refer_miniv.json",
    ),
}
COCO_PAGE = "https://cocodataset.org/#download"
COCO_ARCHIVE = ("train2014.zip", COCO_PAGE)
IMAGE_ARCHIVES = {
    "refclef": ("saiapr_tc-12.zip", REFER_PAGE),
    "ref-zom": ("train2014.zip and val2014.zip", COCO_PAGE),
    "phrasecut": ("the pictures of VGPhraseCut", PHRASECUT_PAGE),
}
