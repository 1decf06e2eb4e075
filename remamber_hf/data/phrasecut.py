# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""PhraseCut: phrases about pictures of Visual Genome, with the polygons of all objects that a phrase means.

    <data_dir>/VGPhraseCut_v0/image_data_split.json              or image_data_split3000.json
    <data_dir>/VGPhraseCut_v0/refer_{train,val,test,miniv}.json  those that are there
    <data_dir>/VGPhraseCut_v0/images/<image_id>.jpg

The folder may be called phrasecut. Each phrase is a row.

- The splits are the files. The published "val" is the files val and miniv together.
- `image_id` is Visual Genome's. `ref_id` counts the phrases of a file from 1, and from 10,000,001 in val, 20,000,001
  in test, 30,000,001 in miniv; it is also the id of its sentence. `ann_id` is 1000 × ref_id + 1, + 2 and so on: the
  file numbers no instances.
- A mask is drawn by Pillow as in the published evaluation, pixel for pixel, and stored as an RLE: coordinates cut to
  integers, outlines included, polygons under 2 points left out (and counted). `bbox` is as it is published.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from ..messages import describe, shorten
from .coco import MAX_OUTLINE
from .reading import Defect, are_within, decode_text, integer_of, is_integer, read_json, read_regular_file, text_of
from .refs import Instances, Meaning


if TYPE_CHECKING:
    from .refer_config import ReferConfig


SPLITS = ("train", "val", "test", "miniv")
REFS_OF_A_SPLIT = 10_000_000
MAX_INSTANCES = 999
SMALL_OUTLINE = "polygon under 2 points"


class PhraseCutFiles:
    """The list of pictures and the files of phrases."""

    is_generalized = True

    def __init__(self, config: ReferConfig):
        self.left_out: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()
        self.instances = read_pictures(config.refs_path)
        paths = phrase_paths(config)
        if not paths:
            names = ", ".join(f"refer_{split}.json" for split in SPLITS)
            raise FileNotFoundError(f"{config.folder} holds none of {names}; put those of the wanted splits there.")
        self.refs = []
        for path in paths:
            split = path.stem.removeprefix("refer_")
            first = SPLITS.index(split) * REFS_OF_A_SPLIT + 1
            tasks = _read_dicts(path, "a list of phrases")
            self.refs += [{**task, "ref_id": first + number, "split": split} for number, task in enumerate(tasks)]
        for ref in self.refs:
            ref["sentences"] = [{"sent_id": ref["ref_id"], "sent": ref.get("phrase"), "raw": ref.get("phrase")}]

    @property
    def all_instances(self) -> list[Instances]:
        return [self.instances]

    def instances_of(self, ref: dict) -> Instances:
        return self.instances

    def place_of(self, ref: dict) -> tuple[str, str]:
        """What a phrase is called, and the file that it is in."""
        number = ref["ref_id"] % REFS_OF_A_SPLIT
        return f"phrase {number} ({describe(ref.get('task_id'))})", f"refer_{ref['split']}.json"

    def meanings_of(self, ref: dict) -> list[Meaning]:
        """What a phrase means; Defect if its fields do not fit each other."""
        text_of(ref, "phrase")
        outlines, boxes, structure = (ref.get(key) for key in ("Polygons", "instance_boxes", "phrase_structure"))
        if not isinstance(outlines, list) or not 1 <= len(outlines) <= MAX_INSTANCES:
            raise Defect("malformed entry", f"Polygons is {describe(outlines)}, one list for each instance is needed")
        if not isinstance(boxes, list) or len(boxes) != len(outlines):
            raise Defect("malformed entry", f"instance_boxes is {describe(boxes)}, Polygons has {len(outlines)}")
        task_id, image_id = ref.get("task_id"), integer_of(ref, "image_id")
        if not isinstance(task_id, str) or not task_id.startswith(f"{image_id}__"):
            raise Defect("contradiction", f"task_id is {describe(task_id)}, and image_id {image_id}")
        # A phrase without structure has no category.
        category = text_of(structure, "name") if isinstance(structure, dict) else ""
        annotations = [
            {
                "id": 1000 * ref["ref_id"] + number,
                "image_id": image_id,
                "category": category,
                "bbox": box,
                "outlines": outline,
            }
            for number, (box, outline) in enumerate(zip(boxes, outlines), start=1)
        ]
        return [Meaning(ref["sentences"], annotations=annotations)]


def read_pictures(path: Path) -> Instances:
    """Read image_data_split.json as if it were an instances.json without annotations."""
    pictures = _read_dicts(path, "a list of pictures")
    for picture in pictures:
        if not is_integer(picture.get("image_id")):
            came = describe(picture.get("image_id"))
            raise ValueError(f"{shorten(str(path))} has an image_id that is {came}, an integer is needed.")
    images = {
        picture["image_id"]: {
            "file_name": f"{picture['image_id']}.jpg",
            "height": picture.get("height"),
            "width": picture.get("width"),
        }
        for picture in pictures
    }
    counts = Counter(picture["image_id"] for picture in pictures)
    repeated = Counter({image_id: count for image_id, count in counts.items() if count > 1})
    entries: dict[str, dict[int, dict]] = {"images": images, "annotations": {}, "categories": {}}
    return Instances(path.name, entries, {"images": repeated, "annotations": Counter(), "categories": Counter()})


def phrase_paths(config: ReferConfig) -> list[Path]:
    """Return the files of phrases that are there, also what is no regular file or links to none: it is no absence."""
    paths = (config.folder / f"refer_{split}.json" for split in SPLITS)
    return [path for path in paths if os.path.lexists(path)]


def read_coco_ids(path: Path) -> dict[int, int]:
    """Return COCO's id of each picture in image_data_split.json that is one of COCO's too."""
    pictures = _read_dicts(path, "a list of pictures")
    return {
        integer_of(picture, "image_id"): picture["coco_id"]
        for picture in pictures
        if is_integer(picture.get("coco_id"))
    }


def draw_outlines(outlines, height: int, width: int, where: str) -> tuple[dict, int]:
    """Draw the polygons of an instance, lists of [x, y], as the published evaluation does.

    Returns an RLE dict as COCO writes it, and the number of polygons under 2 points; Defect for no polygons.
    """
    if not isinstance(outlines, list) or not all(isinstance(outline, list) for outline in outlines):
        raise Defect("malformed entry", f"the polygons of {where} are {describe(outlines)}, a list of lists is needed")
    mask = Image.new("L", (width, height))
    pen, length, num_small = ImageDraw.Draw(mask), 0.0, 0
    for outline in outlines:
        if not all(isinstance(point, list) and len(point) == 2 for point in outline):
            raise Defect("malformed entry", f"a polygon of {where} is {describe(outline)}, [x, y] are needed")
        for low, high, side in ((-width, 2 * width, 0), (-height, 2 * height, 1)):
            if not are_within([point[side] for point in outline], low, high):
                reason = f"a polygon of {where} leaves {width}×{height} by its size or more, or is no numbers"
                raise Defect("annotation off the picture", reason)
        if len(outline) < 2:
            num_small += 1
            continue
        points = [(int(x), int(y)) for x, y in outline]
        length += float(np.abs(np.diff(points, axis=0)).max(axis=1).sum())
        if length > MAX_OUTLINE or len(points) > MAX_OUTLINE // max(height, 1):
            raise Defect("endless polygon", f"the outlines of {where} are longer than {MAX_OUTLINE} pixels")
        pen.polygon(points, outline=1, fill=1)
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}, num_small


def _read_dicts(path: Path, needed: str) -> list[dict]:
    content = read_regular_file(path)
    try:
        entries = read_json(content)
    except UnicodeDecodeError:
        decode_text(content, path)  # raises, with the line
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{shorten(str(path))} is not read: {type(error).__name__}: {shorten(str(error))}. Get the file again."
        ) from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{shorten(str(path))} holds {describe(entries)}, {needed} is needed. Get the file again.")
    return entries
