# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""samples.parquet, one row per sentence: what it is about, what was counted; and a split in parts by what is in it."""

import numpy as np
import pyarrow as pa

from ..data.rows import TARGET_KINDS
from ..processing_remamber import count_tokens
from ..synthetic import shape_sentences, thing_words
from ..synthetic.grammar import Grammar
from .evaluator import Count, Sample, Split


LENGTHS = {"1": 1, "2-5": 5, "6-10": 10}  # words at most
LONGER = ">10"
# COCO's, in pixels at the picture's size: an object is of the first that it is smaller than.
SIZES = {"small": 32**2, "medium": 96**2}
LARGEST = "large"
SEVERAL = "several"  # categories
MOST_UNREAD = 0.1  # share of sentences that a grammar may not read, for kinds to be given: synonyms are in none
# Column of samples.parquet → the parts that a split has by it, in order; None takes those that are there, by name.
PARTS: dict[str, list[str] | None] = {
    "target_kind": list(TARGET_KINDS),
    "kind": list(dict.fromkeys((*shape_sentences.KINDS, *thing_words.KINDS))),
    "length": [*LENGTHS, LONGER],
    "size": [*SIZES, LARGEST],
    "category": None,
}


def make_table(split: Split, count: Count, tokenizer) -> pa.Table:
    """
    One row per sample.

    Args:
        tokenizer: that of the model, which counts tokens, start and end among them.
    """
    samples, tally = split.samples, count.tally
    pictures: dict[str, int] = {}
    integers = pa.list_(pa.int64()) if split.is_generalized else pa.int64()
    lengths = [len(sample.sentence.split()) for sample in samples]
    categories = categories_of(split)
    columns = {
        "split": pa.array([split.name] * len(samples), pa.string()),
        "ref_id": pa.array([sample.ref_id for sample in samples], pa.int64()),
        "ann_id": pa.array([sample.ann_id for sample in samples], integers),
        "sentence_id": pa.array([sample.sentence_id for sample in samples], pa.int64()),
        "image_id": pa.array([sample.image_id for sample in samples], pa.int64()),
        "image_file": pa.array([sample.image_file for sample in samples], pa.string()),
        "picture": pa.array([pictures.setdefault(sample.picture, len(pictures)) for sample in samples], pa.int64()),
        "sentence": pa.array([sample.sentence for sample in samples], pa.string()),
        "num_words": pa.array(lengths, pa.int64()),
        "num_tokens": pa.array(count_tokens(tokenizer, [sample.sentence for sample in samples]), pa.int64()),
        "length": pa.array([length_of(length) for length in lengths], pa.string()),
        "object_area": count.object_areas,
        "size": pa.array(map(size_of, count.object_areas, tally.target_kinds), pa.string()),
        "category": pa.array(categories, pa.string()),
        "kind": pa.array(kinds_of(samples, categories), pa.string()),
        "target_kind": pa.array(tally.target_kinds, pa.string()),
        "intersection": tally.pixels[:, 0],
        "union": tally.pixels[:, 1],
        "true_area": tally.pixels[:, 2],
        "presence": pa.array([None] * len(samples) if tally.presence is None else tally.presence, pa.float32()),
        "nothing_found": tally.nothing_found,
        "iou": tally.ious(),
    }
    return pa.table(columns)


def length_of(num_words: int) -> str:
    """The part by length that a sentence of so many words is of."""
    return next((name for name, most in LENGTHS.items() if num_words <= most), LONGER)


def size_of(area: int, target_kind: str) -> str | None:
    """The part by size that what a sentence means is of; None if it means nothing."""
    if target_kind == "none":
        return None
    return next((name for name, bound in SIZES.items() if area < bound), LARGEST)


def categories_of(split: Split) -> list[str | None]:
    """The category of what each sentence means; None if it means nothing, or none is known."""
    column = split.rows.select_columns(["category"])[:]["category"]
    return [category_of(column[sample.row]) for sample in split.samples]


def category_of(category: str | list[str | None] | None) -> str | None:
    """The category of an object, or that of several if all are of one."""
    named = dict.fromkeys([category] if category is None or isinstance(category, str) else category)
    if len(named) > 1:
        return SEVERAL
    return next(iter(named), None) or None


def kinds_of(samples: list[Sample], categories: list[str | None]) -> list[str | None]:
    """The kind of every expression that one of our grammars reads; None for each if none of them reads the most.

    That is the one of drawn shapes, and that of sentences about the split's own categories.
    """
    named = thing_words.make_thing_words(category for category in categories if category is not None)
    for grammar in (shape_sentences.GRAMMAR, named.evaluator.grammar):
        kinds = [_kind_of(sample.sentence, grammar) for sample in samples]
        if kinds.count(None) <= MOST_UNREAD * len(kinds):
            return kinds
    return [None] * len(samples)


def _kind_of(sentence: str, grammar: Grammar) -> str | None:
    try:
        return grammar.kind_of(sentence)
    except ValueError:
        return None


def split_by(column: str, values: list[str | None]) -> dict[str, np.ndarray]:
    """The parts that a split has by a column of `PARTS`: which samples are of each, bool (samples,)."""
    found = np.array(values, dtype=object)
    known = PARTS[column]
    names = sorted({value for value in values if value is not None}) if known is None else known
    return {name: found == name for name in names if (found == name).any()}
