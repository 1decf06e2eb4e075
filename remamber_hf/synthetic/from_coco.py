# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Expressions for pictures with annotations in COCO format, derived by geometry → a REFER folder, or a folder of rows.

What is written was read back, by `evaluator`, as true of exactly these things. docs/from_coco.md has all rules.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.picture_copies import PictureCopies
from ..data.published import COCO_FOLDERS
from ..data.refer_writer import SPLIT_BY, check_name, number_things, write_annotations
from ..data.rows import TARGET_KINDS
from ..files import check_new_folder, make_whole_folder
from ..messages import describe
from .coco_pictures import CocoPicture, CocoPictures, Problems, Rules
from .coco_things import Seen
from .drawn_set import build_annotations, build_grefs
from .thing_words import ThingWords
from .thing_writers import (
    MAX_EXPRESSIONS,
    sample_absent_thing_expressions,
    sample_many_thing_expressions,
    sample_thing_expressions,
)


OUTPUT_FORMATS = ("refer", "folder")
DATASET_NAME = "derived"
NO_SENTENCE = "no sentence is true of it alone"


@dataclass
class Summary:
    """
    What was written and what was not.

    Attributes:
        pictures: split → pictures with a sentence.
        empty_pictures: pictures without one, which are not written.
        sentences: kind of target → sentences.
        kinds: kind of sentence → sentences.
        left_out: reason → annotations that no sentence is about.
        left_out_categories: those that no sentence can name → why.
        problems: what was wrong in the files.
    """

    pictures: Counter
    empty_pictures: int
    sentences: Counter
    kinds: Counter
    left_out: Counter
    left_out_categories: dict[str, str]
    problems: Problems


def derive_from_coco(
    instances: str | os.PathLike,
    images: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    seed: int = 0,
    max_sentences: int = MAX_EXPRESSIONS,
    many: bool = False,
    no_target: bool = False,
    output_format: str = "refer",
    dataset_name: str = DATASET_NAME,
    rules: Rules | None = None,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    stuff: Collection[str] = (),
    stuff_file: str | os.PathLike | None = None,
    val: float | None = None,
    on_error: str = "raise",
) -> Summary:
    """Derive expressions for the things of pictures, and write them with pictures and masks, whole or not at all.

    Args:
        instances: JSON in COCO format.
        images: folder of its pictures.
        output_dir: folder to create; an empty one is filled, any other raises FileExistsError.
        seed: the same seed gives the same files. The sentences of a picture depend on it, on the picture's id and
            annotations, and on the categories in use.
        max_sentences: most sentences of a thing.
        many: also sentences that mean several things.
        no_target: also sentences that mean nothing.
        output_format: "refer", or "folder", in which there are no sentences about several.
        dataset_name: name of the folder of annotations of a REFER folder.
        rules, synonyms, stuff, stuff_file, val, on_error: as `CocoPictures`.

    Raises ValueError for bad input, and where not one sentence is true.
    """
    check_new_folder(output_dir)
    if output_format not in OUTPUT_FORMATS:
        raise ValueError(f"format is {describe(output_format)}; choose one of {', '.join(OUTPUT_FORMATS)}.")
    if output_format == "folder" and many:
        raise ValueError("a line of a folder means one thing or none; for sentences about several write format refer.")
    if seed < 0:
        raise ValueError(f"seed is {seed}; give a number from 0 up.")
    if max_sentences < 1:
        raise ValueError(f"the most sentences of a thing are {max_sentences}; give at least 1.")
    check_name(dataset_name, many or no_target)
    source = CocoPictures(
        instances,
        images,
        rules=rules,
        synonyms=synonyms,
        stuff=stuff,
        stuff_file=stuff_file,
        val=val,
        on_error=on_error,
    )
    with make_whole_folder(output_dir) as unfinished:
        image_folder = unfinished / (COCO_FOLDERS[0] if output_format == "refer" else "images")
        image_folder.mkdir(parents=True)
        copies = PictureCopies(image_folder, dataset_name)
        written, num_empty = [], 0
        for picture in source.pictures():
            entry = write_sentences(source.words, picture, seed, max_sentences, many, no_target)
            source.left_out[NO_SENTENCE] += sum(
                thing.is_target and not drawn["expressions"] for thing, drawn in zip(picture.things, entry["objects"])
            )
            if not any(texts for _, texts in texts_of(entry)):
                num_empty += 1
                continue
            copied = copies.copied[copies.add(picture.image)]
            entry["image"] = {"id": picture.image_id, **vars(copied)}
            written.append(entry)
        if not written:
            raise ValueError(f"{instances} gives not one sentence; left out: {dict(+source.left_out)}.")
        if output_format == "refer":
            _write_refer(unfinished / dataset_name, written, source.words, many or no_target)
        else:
            _write_folder(unfinished, written)
    return _summarize(written, num_empty, source)


def write_sentences(
    words: ThingWords, picture: CocoPicture, seed: int, max_sentences: int, many: bool, no_target: bool
) -> dict:
    """Return what `drawn_set.build_annotations` takes of a picture, but for its "image"."""

    def stream(number: int) -> np.random.Generator:
        return np.random.default_rng((seed, picture.image_id % 2**64, number))

    expressions = sample_thing_expressions(words, picture.things, stream(0), max_sentences)
    # Streams of their own, so that sentences about one thing are the same with and without these.
    absent, meant = [], {}
    if no_target:
        absent = sample_absent_thing_expressions(words, picture.things, stream(1), picture.known)
    if many:
        meant = sample_many_thing_expressions(words, picture.things, stream(2))
    objects = [_annotate(one, expressions.get(index, [])) for index, one in enumerate(picture.seen)]
    return {
        "split": picture.split,
        "objects": objects,
        "absent": absent,
        "groups": [(sorted(indices), texts) for indices, texts in meant.items()],
    }


def texts_of(entry: dict) -> list[tuple[str, list[str]]]:
    """Return the sentences of a picture, each list with the kind of its target."""
    none, one, many = TARGET_KINDS
    return [
        *((one, drawn["expressions"]) for drawn in entry["objects"]),
        *((many, texts) for _, texts in entry["groups"]),
        (none, entry["absent"]),
    ]


def _annotate(seen: Seen, expressions: list[str]) -> dict:
    left, top, right, bottom = seen.box
    segmentation: list = []
    if seen.rle is not None:
        size = list(seen.rle["size"])
        rles = [{"size": size, "counts": counts} for counts in seen.segmentation["rles"]]
        segmentation = rles or seen.segmentation["polygons"]
    return {
        "id": seen.ann_id,
        "category": seen.category.name,
        "segmentation": segmentation,
        "bbox": [left, top, right - left, bottom - top],
        "area": None if seen.rle is None else int(seen.area),
        "expressions": expressions,
        "rle": seen.rle,
    }


def _write_refer(folder: Path, written: list[dict], words: ThingWords, is_generalized: bool) -> None:
    """Write the annotations: of things that a sentence is about."""
    for entry in written:
        meant = {index for indices, _ in entry["groups"] for index in indices}
        meant |= {index for index, drawn in enumerate(entry["objects"]) if drawn["expressions"]}
        places = {index: place for place, index in enumerate(sorted(meant))}
        entry["objects"] = [entry["objects"][index] for index in places]
        entry["groups"] = [([places[index] for index in indices], texts) for indices, texts in entry["groups"]]
    objects = [drawn for entry in written for drawn in entry["objects"]]
    # Those of a file of stuff may be the same as those of things.
    for drawn, number in zip(objects, number_things([drawn["id"] for drawn in objects], range(len(objects)))):
        drawn["id"] = number
    folder.mkdir()
    info = {"description": "expressions derived by remamber data from-coco"}
    instances, refs = build_annotations(written, info, dict.fromkeys(words.nouns, "thing"))
    grefs = build_grefs(written, instances, refs) if is_generalized else None
    write_annotations(folder, SPLIT_BY, instances, refs or None, grefs)


def _write_folder(folder: Path, written: list[dict]) -> None:
    lines = []
    for entry in written:
        picture = {"file_name": f"images/{entry['image']['file_name']}", "split": entry["split"]}
        for drawn in entry["objects"]:
            if drawn["expressions"]:
                rle = {"size": drawn["rle"]["size"], "counts": drawn["rle"]["counts"].decode("ascii")}
                mask = {"category": drawn["category"], "rle": rle}
                lines.append({**picture, "expression": drawn["expressions"], **mask})
        if entry["absent"]:
            lines.append({**picture, "expression": entry["absent"], "no_target": True})
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


def _summarize(written: list[dict], num_empty: int, source: CocoPictures) -> Summary:
    grammar = source.words.evaluator.grammar
    sentences: Counter = Counter()
    kinds: Counter = Counter()
    for entry in written:
        for target, texts in texts_of(entry):
            sentences[target] += len(texts)
            kinds.update(map(grammar.kind_of, texts))
    return Summary(
        pictures=Counter(entry["split"] for entry in written),
        empty_pictures=num_empty,
        sentences=+sentences,
        kinds=kinds,
        left_out=+source.left_out,
        left_out_categories=source.words.left_out,
        problems=source.problems,
    )
