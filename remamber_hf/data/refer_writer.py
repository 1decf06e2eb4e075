# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of any source → a REFER folder, which `refer.py` and `grefer.py`, and so LAVT, CRIS and ReLA, read as theirs.

    <output_dir>/<dataset>/instances.json
    <output_dir>/<dataset>/refs(<split_by>).p            pickle protocol 2, lists, dicts, text and integers only
    <output_dir>/<dataset>/grefs(<split_by>).json        instead, where a sentence may mean nothing or several objects
    <output_dir>/images/mscoco/images/train2014/         the pictures, where `refer.py` looks for those of RefCOCO
    <output_dir>/images/train2014/                       where `grefer.py` does, beside a grefs file

- Ids (of refs, objects, pictures, sentences) stay where each is of one thing and none is below 0. Else all of that
  kind are numbered from 1, as they come.
- A segmentation is a list: of polygons, or, if an object has an RLE, of RLE dicts alone with `counts` as text: those
  readers look at the first entry and take the others to be alike. A dict that is in no list breaks them.
- `sent` and `raw` are the sentence of the row, `tokens` its words in small letters.
- Splits are called as the rows' are. Pictures are copied by the rules of `picture_copies.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
from collections.abc import Hashable, Sequence
from pathlib import Path

import datasets
from pycocotools import mask as coco_mask
from tqdm import tqdm

from ..files import make_whole_folder
from ..messages import describe
from .coco import encode_parts
from .outlines import polygons_of
from .picture_copies import PictureCopies
from .published import COCO_FOLDERS, IMAGE_FOLDERS, PUBLISHED_SETS, published_name
from .reading import Defect
from .refs import NO_TARGET
from .rle import decode_rle
from .rows import SPLIT_NAME, is_generalized, is_generalized_row, is_split_name


SPLIT_BY = "unc"
GREFER_PICTURES = "images/train2014"
# Published sets whose files are of the form that is written: in which a sentence means one object, or any number.
WRITTEN_SETS = {False: ("refcoco", "refcoco+", "refcocog", "refclef"), True: ("grefcoco",)}
NAME = re.compile(r"[\w+-][\w+.-]{0,49}")


def export_refer(
    data: datasets.DatasetDict,
    output_dir: str | os.PathLike,
    dataset: str,
    split_by: str | None = None,
    *,
    polygons_only: bool = False,
) -> dict[str, int]:
    """Write all splits of a data set as a REFER folder; one that is not finished is removed again.

    Args:
        data: as `load_refer`, `load_referring_folder` and `rows_from_columns` give it.
        output_dir: folder to create; an empty one is filled, any other raises FileExistsError.
        dataset: name of the folder of annotations; see `check_name`.
        split_by: who split the data, for the name of the refs file; where `dataset` does not allow it, or none is
            given, the first of that name in `PUBLISHED_SETS`, or "unc".
        polygons_only: write RLEs as the polygons that pycocotools makes the same masks of.

    Returns the number of refs of each split.

    Raises ValueError for a name, a split or a row that cannot be written.
    """
    takes_lists = is_generalized_set(data)
    check_name(dataset, takes_lists)
    if not any(len(rows) for rows in data.values()):
        raise ValueError(f"{dataset} holds no row; there is nothing to write.")
    with make_whole_folder(output_dir) as unfinished:
        folder = unfinished / dataset
        usual = IMAGE_FOLDERS.get(dataset, COCO_FOLDERS)[0]
        pictures = unfinished / (GREFER_PICTURES if takes_lists else usual)
        folder.mkdir()
        pictures.mkdir(parents=True)
        refs = _Refs(PictureCopies(pictures, dataset), polygons_only)
        for split, rows in data.items():
            refs.add(rows, split)
        instances, entries = refs.number(takes_lists)
        write_annotations(folder, choose_split_by(dataset, split_by), instances, **entries)
    return {split: len(rows) for split, rows in data.items()}


def is_generalized_set(data: datasets.DatasetDict) -> bool:
    """Whether a sentence of any split may mean several objects or none."""
    return any(is_generalized(rows) for rows in data.values())


def check_name(dataset: str, takes_lists: bool) -> None:
    """ValueError for a name that is no plain folder's, or that readers expect other files in."""
    if not NAME.fullmatch(dataset) or dataset.casefold() == "images":
        raise ValueError(
            f"the data set's name is {describe(dataset)}; give at most 50 letters, digits and _+.-, and not images."
        )
    written = WRITTEN_SETS[takes_lists]
    if published_name(dataset) in PUBLISHED_SETS and dataset not in written:
        kind = "any number of objects" if takes_lists else "one object"
        raise ValueError(
            f"a folder called {dataset} holds other files than are written here, where a sentence means {kind}; give "
            f"{' or '.join(written)}, or a name of your own, with --dataset_name."
        )


def name_for(source: str, data: datasets.DatasetDict) -> str:
    """Return a name that a data set can be written by, as near as may be to that of its source."""
    name = re.sub(r"[^\w+.-]+", "_", source.rsplit("/", 1)[-1]).lstrip(".")[:44] or "data"
    try:
        check_name(name, is_generalized_set(data))
    except ValueError:
        name = f"{name}_refer"
    return name


def choose_split_by(dataset: str, split_by: str | None) -> str:
    """Return who split the data, by a name that belongs to the data set's."""
    allowed = PUBLISHED_SETS.get(dataset)
    if split_by is not None and (split_by in allowed if allowed else NAME.fullmatch(split_by)):
        return split_by
    return allowed[0] if allowed else SPLIT_BY


def write_annotations(
    folder: Path, split_by: str, instances: dict, refs: list[dict] | None = None, grefs: list[dict] | None = None
) -> None:
    """Write the files of annotations, for each list of refs that there is: the same bytes for the same values."""
    (folder / "instances.json").write_text(json.dumps(instances), encoding="utf-8")
    if refs is not None:
        # Pickle marks strings that are one object, which depends on where they come from; JSON makes each anew.
        content = pickle.dumps(json.loads(json.dumps(refs)), protocol=2)
        (folder / f"refs({split_by}).p").write_bytes(content)
    if grefs is not None:
        (folder / f"grefs({split_by}).json").write_text(json.dumps(grefs), encoding="utf-8")


def make_sentences(texts: Sequence[str], ids: Sequence[int]) -> dict[str, list]:
    """Return the fields of a ref that are about its sentences."""
    sentences = [
        {"raw": text, "sent": text, "sent_id": number, "tokens": words_of(text)} for text, number in zip(texts, ids)
    ]
    return {"sent_ids": list(ids), "sentences": sentences}


def words_of(text: str) -> list[str]:
    """Return the words of a sentence, in small letters and without punctuation but within a word."""
    return re.findall(r"\w+(?:['’-]\w+)*", text.lower())


def number_things(ids: Sequence[int], things: Sequence[Hashable]) -> list[int]:
    """Return the ids of things, as they are if each is of one thing and none is below 0, else counted from 1."""
    if min(ids, default=0) >= 0 and len(set(ids)) == len(set(zip(ids, things))):
        return list(ids)
    counted: dict[Hashable, int] = {}
    return [counted.setdefault(thing, len(counted) + 1) for thing in things]


class _Refs:
    """rows → refs, pictures and objects as they come, which are numbered when all are there."""

    def __init__(self, pictures: PictureCopies, polygons_only: bool):
        self.pictures = pictures
        self.polygons_only = polygons_only
        self.rows: list[dict] = []  # with the place of the picture, and the keys of the objects
        self.objects: dict[str, tuple[str, dict]] = {}  # category and annotation, without ids

    def add(self, rows: datasets.Dataset, split: str) -> None:
        """Take the rows of a split; ValueError with the row that cannot be written."""
        if not is_split_name(split):
            raise ValueError(f"a split is called {describe(split)}, {SPLIT_NAME} is needed; rename it.")
        stored = rows.with_format(None).cast_column("image", datasets.Image(decode=False))
        for row in tqdm(stored, desc=f"Exporting {split}", disable=None):
            picture = self.pictures.add(row["image"])
            size, copied = (row["height"], row["width"]), self.pictures.copied[picture]
            if size != (copied.height, copied.width):
                raise ValueError(
                    f"ref {row['ref_id']} of split {split} is of {size[0]}×{size[1]} pixels, its picture of "
                    f"{copied.height}×{copied.width}; mend the row or filter it out."
                )
            lists = [row[name] if is_generalized_row(row) else [row[name]] for name in ("ann_id", "category", "bbox")]
            try:
                objects = [
                    self._object(picture, size, *each) for each in zip(*lists[1:], row["segmentation"], strict=True)
                ]
            except ValueError as error:
                raise ValueError(
                    f"ref {row['ref_id']} of split {split}: {error}; mend or leave out the row."
                ) from None
            kept = {name: row[name] for name in ("ref_id", "image_id", "sentences", "sentence_ids")}
            self.rows.append({**kept, "split": split, "picture": picture, "ann_ids": lists[0], "objects": objects})

    def _object(self, picture: int, size: tuple[int, int], category: str, bbox: list, segmentation: dict) -> str:
        """Keep an object, once, and return its key."""
        content = json.dumps([picture, category, bbox, segmentation])
        key = hashlib.sha256(content.encode("utf-8")).hexdigest()
        if key not in self.objects:
            parts = encode_parts(segmentation, *size)
            area = int(coco_mask.area(coco_mask.merge(parts)))
            written = self._segmentation(segmentation, parts, size)
            self.objects[key] = category, {"bbox": bbox, "area": area, "iscrowd": 0, "segmentation": written}
        return key

    def _segmentation(self, segmentation: dict, parts: list[dict], size: tuple[int, int]) -> list:
        polygons, rles = segmentation["polygons"], segmentation["rles"]
        if not rles:
            return polygons
        if not self.polygons_only:
            return [{"size": list(size), "counts": part["counts"].decode("ascii")} for part in parts]
        masks = [decode_rle({"size": size, "counts": counts}) for counts in rles]
        polygons = [*polygons, *(polygon for mask in masks for polygon in polygons_of(mask))]
        try:
            encode_parts({"polygons": polygons, "rles": []}, *size)
        except Defect:
            raise Defect(
                "mask too ragged", "no reader would draw its polygons; write RLEs, without --polygons"
            ) from None
        return polygons

    def number(self, takes_lists: bool) -> tuple[dict, dict[str, list[dict]]]:
        """Return instances.json, and the refs by the name that `write_annotations` has for them."""
        rows = self.rows
        image_ids = number_things([row["image_id"] for row in rows], [row["picture"] for row in rows])
        ref_ids = number_things([row["ref_id"] for row in rows], range(len(rows)))
        given = [number for row in rows for number in row["sentence_ids"]]
        sentence_ids = iter(number_things(given, range(len(given))))
        objects = [(image_id, key) for image_id, row in zip(image_ids, rows) for key in row["objects"]]
        ann_ids = number_things([number for row in rows for number in row["ann_ids"]], objects)
        names = sorted({category for category, _ in self.objects.values()})
        category_ids = {name: number for number, name in enumerate(names, start=1)}
        annotations: dict[int, dict] = {}
        for ann_id, (image_id, key) in zip(ann_ids, objects):
            category, fields = self.objects[key]
            ids = {"id": ann_id, "image_id": image_id, "category_id": category_ids[category]}
            annotations[ann_id] = {**ids, **fields}
        images, refs, waiting = {}, [], iter(ann_ids)
        for row, ref_id, image_id in zip(rows, ref_ids, image_ids):
            copied = self.pictures.copied[row["picture"]]
            images[image_id] = {"id": image_id, **vars(copied)}
            own = list(dict.fromkeys(next(waiting) for _ in row["objects"]))
            ref = {"ref_id": ref_id, "image_id": image_id, "split": row["split"], "file_name": copied.file_name}
            ref |= make_sentences(row["sentences"], [next(sentence_ids) for _ in row["sentences"]])
            own_categories = [annotations[ann_id]["category_id"] for ann_id in own]
            if takes_lists:
                ref |= {"ann_id": own or NO_TARGET, "category_id": own_categories or NO_TARGET, "no_target": not own}
            else:
                ref |= {"ann_id": own[0], "category_id": own_categories[0]}
            refs.append(ref)
        instances = {
            "info": {"description": "written by remamber data export"},
            "images": list(images.values()),
            "annotations": list(annotations.values()),
            "categories": [{"id": category_ids[name], "name": name, "supercategory": name} for name in names],
        }
        return instances, {"grefs" if takes_lists else "refs": refs}
