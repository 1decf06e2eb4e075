# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""A row of referring data: its columns, its mask, its sentences, and the names and the order of splits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeGuard

import datasets
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ..messages import describe, shorten
from .coco import encode_parts
from .rle import count_covering, decode_rle


MASK_OVERLAPS = ("published", "union")
TARGET_KINDS = ("none", "one", "many")
SENTENCE_COLUMNS = ("sentences", "sentence_ids")  # one entry for each sentence of a row
SPLIT_ORDER = ("train", "trainval", "val", "validation", "dev")  # then tests, then all others
MAX_SPLIT_LETTERS = 50  # a split names files
SPLIT_NAME = f"a word of at most {MAX_SPLIT_LETTERS} letters"


def papers_order(splits) -> list[str]:
    """Return names of splits as the papers list them: train, val, then tests by name, then all others as they came."""

    def place(name: str) -> tuple[int, str]:
        if name in SPLIT_ORDER:
            return SPLIT_ORDER.index(name), ""
        return (len(SPLIT_ORDER), name) if name.startswith("test") else (len(SPLIT_ORDER) + 1, "")

    return sorted(splits, key=place)


def refer_features(generalized: bool = False) -> datasets.Features:
    """Return the columns of a row; in a generalised set `ann_id`, `category` and `bbox` are lists, one per object."""
    integer, text, number = (datasets.Value(name) for name in ("int64", "string", "float64"))
    return datasets.Features(
        {
            "image": datasets.Image(),
            "sentences": [text],
            "sentence_ids": [integer],
            "ref_id": integer,
            "ann_id": [integer] if generalized else integer,
            "image_id": integer,
            "category": [text] if generalized else text,
            "bbox": [[number]] if generalized else [number],
            "height": datasets.Value("int32"),
            "width": datasets.Value("int32"),
            "split": text,
            # float64: pycocotools rounds coordinates, and float32 would move some pixels of the border.
            "segmentation": [{"polygons": [[number]], "rles": [text]}],
        }
    )


@contextmanager
def writable_cache(cache_dir: str | os.PathLike | None = None) -> Iterator[None]:
    """Say which variable to set where the cache of `datasets` cannot be written."""
    homes = (cache_dir or datasets.config.HF_DATASETS_CACHE, datasets.config.HF_CACHE_HOME)
    caches = [os.path.abspath(home) for home in homes]
    try:
        yield
    except OSError as error:
        name = os.path.abspath(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else ""
        # Of the cache, or a folder on the way to it.
        if not name or not any(name.startswith(cache) or cache.startswith(name) for cache in caches):
            raise
        raise OSError(
            f"the cache of data sets, {shorten(caches[0])}, cannot be written ({error.strerror}: {shorten(name)})."
            " Set HF_HOME (or HF_DATASETS_CACHE) to a folder that can be, or give cache_dir."
        ) from error


def one_row_per_sentence(data: datasets.Dataset | datasets.DatasetDict) -> datasets.Dataset | datasets.DatasetDict:
    """Repeat each row for its sentences; only the splits that are asked for are written to the cache a second time.

    A sentence whose row has more or fewer `sentence_ids` than sentences, being changed by a user, has None for its id.
    """
    if isinstance(data, datasets.DatasetDict):
        return datasets.DatasetDict({split: one_row_per_sentence(rows) for split, rows in data.items()})
    plain = data.with_format(None).cast_column("image", datasets.Image(decode=False))  # a transform comes afterwards
    expanded = plain.map(_repeat_for_sentences, batched=True).cast_column("image", datasets.Image())
    expanded.set_format(**data.format)
    return expanded


def _repeat_for_sentences(rows: dict[str, list]) -> dict[str, list]:
    if "sentence_ids" in rows:
        rows = {**rows, "sentence_ids": list(map(ids_of, rows["sentences"], rows["sentence_ids"]))}
    repeated = {
        name: [value for value, sentences in zip(column, rows["sentences"]) for _ in sentences]
        for name, column in rows.items()
    }
    one_each = {
        name: [[value] for values in rows[name] for value in values] for name in SENTENCE_COLUMNS if name in rows
    }
    return {**repeated, **one_each}


def read_sentences(rows: datasets.Dataset) -> list[list[str]]:
    """The sentences of each row; no picture is read."""
    return rows.select_columns("sentences").with_format(None)[:]["sentences"]


def ids_of(sentences, ids) -> list[int | None]:
    """Return the ids of a row's sentences; none is known where the row has more or fewer, since they were changed."""
    return list(ids) if ids is not None and len(ids) == len(sentences) else [None] * len(sentences)


def row_mask(row: dict, mask_overlap: str = "published") -> np.ndarray:
    """Draw the mask of a row: all parts of all its objects.

    Args:
        row: a row of `load_refer`.
        mask_overlap: what becomes of pixels that two parts of an object cover. "published": background, as in the
            evaluation of LAVT and ReMamber, which adds up the parts and keeps what equals 1; the evaluation of
            gRefCOCO (a row whose `ann_id` is a list) takes the union. "union": the object.

    Raises ValueError for polygons, RLEs or a size that cannot be those of a picture.

    Returns the mask, bool (height, width), in memory column by column, as pycocotools decodes and encodes; all False
    if the sentence means nothing in the picture.
    """
    if mask_overlap not in MASK_OVERLAPS:
        raise ValueError(f"mask_overlap is {describe(mask_overlap)}; choose one of {', '.join(MASK_OVERLAPS)}.")
    height, width = int(row["height"]), int(row["width"])
    if height < 1 or width < 1 or height * width > (Image.MAX_IMAGE_PIXELS or float("inf")):
        raise ValueError(f"a row is of {height}×{width} pixels; no picture that is read has this size.")
    parts = [part for segmentation in row["segmentation"] for part in encode_parts(segmentation, height, width)]
    if not parts:
        return np.zeros((height, width), dtype=bool, order="F")
    union = coco_mask.merge(parts)
    is_generalized = is_generalized_row(row)
    # The areas of parts add up to that of their union just where none overlap. `area` of a list of 256 overflows.
    num_covered = sum(int(coco_mask.area(part)) for part in parts)
    if mask_overlap == "published" and not is_generalized and num_covered != coco_mask.area(union):
        return count_covering(parts, height, width) == 1
    return decode_rle(union)


def target_kind(row: dict) -> str:
    """Which of `TARGET_KINDS` a row is: whether its sentences mean nothing in the picture, one object or many."""
    return TARGET_KINDS[min(len(row["segmentation"]), 2)]


def is_split_name(name: object) -> TypeGuard[str]:
    """Whether it is a word, and short enough to name files."""
    return isinstance(name, str) and len(name) <= MAX_SPLIT_LETTERS and re.fullmatch(r"\w+", name) is not None


def is_generalized(rows: datasets.Dataset) -> bool:
    """Whether a sentence may mean several objects or none, as in gRefCOCO."""
    return isinstance(rows.features["ann_id"], (list, datasets.List))


def is_generalized_row(row: dict) -> bool:
    """Whether a row is of a data set in which a sentence may mean several objects or none: `ann_id` is a list."""
    return np.ndim(row["ann_id"]) == 1
