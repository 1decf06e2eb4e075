# SPDX-FileCopyrightText: 2026 The remamber_hf authors
# SPDX-License-Identifier: Apache-2.0
"""One annotation in COCO format → a thing with its mask, measured; and which of several are one and the same."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from ..data.coco import check_segmentation, encode_parts
from ..data.picture_files import EXIF_SIDEWAYS, encode_png, ends_well
from ..data.reading import Defect, are_within, read_regular_file
from ..messages import describe, shorten
from ..pictures import PILLOW_ERRORS, open_image, orientation_of


# Masks of one category that are so much alike are one thing twice; of two, one thing with two names.
SAME_IOU = 0.9
# Part of a mask that another of its category covers where nobody knows whether they are two.
PART_COVERED = 0.9


@dataclass(frozen=True)
class Category:
    """A category: its name, none if nothing is said of it, and those that a thing of it could be taken for."""

    name: str
    is_stuff: bool
    similar: tuple[str, ...] = ()


@dataclass(eq=False)
class Seen:
    """
    One thing as the file has it: box in pixels (left, top, right, bottom), area in pixels, and its mask as one RLE, as
    pycocotools has it, and as polygons and RLEs. Without a mask the area is NaN.
    """

    ann_id: int
    category: Category
    box: tuple[float, float, float, float]
    area: float = math.nan
    rle: dict | None = None
    segmentation: dict = field(default_factory=dict)
    has_two_names: bool = False


def is_crowd(entry: dict) -> bool:
    crowd = entry.get("iscrowd", 0)
    if crowd not in (0, 1):  # True and False are these too
        raise Defect("malformed entry", f"iscrowd is {describe(crowd)}, 0 or 1 is needed")
    return bool(crowd)


def measure(category: Category, entry: dict, height: int, width: int) -> Seen:
    """Draw a thing's mask, and measure it; by its bbox if it has none. Defect if it is broken."""
    parts = entry.get("segmentation")
    if parts is None or parts == [] or parts == [[]]:
        if category.is_stuff:
            raise Defect("stuff without a mask", f"the segmentation is {describe(parts)}")
        return Seen(entry["id"], category, _read_box(entry.get("bbox"), height, width))
    segmentation, _ = check_segmentation(parts, height, width, "it")
    drawn = encode_parts(segmentation, height, width)
    rle = coco_mask.merge(drawn)
    area = float(coco_mask.area(rle))
    has_overlap = sum(float(coco_mask.area(part)) for part in drawn) != area
    if has_overlap or all(segmentation.values()):  # some readers take an overlap for background, or one kind of part
        segmentation = {"polygons": [], "rles": [rle["counts"].decode("ascii")]}
    return Seen(entry["id"], category, _box_of(rle), area, rle, segmentation)


def _box_of(rle: dict) -> tuple[float, float, float, float]:
    left, top, width, height = coco_mask.toBbox(rle).tolist()
    return left, top, left + width, top + height


def _read_box(box: object, height: int, width: int) -> tuple[float, float, float, float]:
    if not isinstance(box, list) or len(box) != 4 or not are_within(box, -1e6, 1e6) or min(box[2:]) <= 0:
        raise Defect("no mask and no box", f"bbox is {describe(box)}, four numbers are needed: x, y, width, height")
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[0] + box[2], float(width)), min(box[1] + box[3], float(height))
    if right <= left or bottom <= top:
        raise Defect("annotation off the picture", f"bbox is {describe(box)}, the picture {height}×{width}")
    return left, top, right, bottom


def merge_stuff(seen: Sequence[Seen]) -> list[Seen]:
    """Make one thing of all that there is of each stuff."""
    merged: dict[str, Seen] = {}
    things = []
    for one in seen:
        if not one.category.is_stuff:
            things.append(one)
        elif one.category.name not in merged:
            merged[one.category.name] = one
        else:
            first = merged[one.category.name]
            rle = coco_mask.merge([first.rle, one.rle])
            segmentation = {"polygons": [], "rles": [rle["counts"].decode("ascii")]}
            merged[one.category.name] = Seen(
                first.ann_id, first.category, _box_of(rle), float(coco_mask.area(rle)), rle, segmentation
            )
    return things + list(merged.values())


def find_doubles(seen: Sequence[Seen]) -> tuple[set[Seen], list[tuple[Seen, Seen]]]:
    """
    Return those that are there a second time, and pairs of one category of which one may be a part of the other; mark
    what has two names.
    """
    drawn = [one for one in seen if one.rle is not None and not one.category.is_stuff]
    doubles: set[Seen] = set()
    parts: list[tuple[Seen, Seen]] = []
    if len(drawn) < 2:
        return doubles, parts
    masks = [one.rle for one in drawn]
    ious = coco_mask.iou(masks, masks, [0] * len(masks))
    areas = np.array([one.area for one in drawn])
    shared = ious * (areas[:, None] + areas) / (1 + ious)
    covered = shared / np.minimum(areas[:, None], areas)
    for first, second in np.argwhere(np.triu(covered > PART_COVERED, 1)).tolist():
        one, other = drawn[first], drawn[second]
        is_same = bool(ious[first, second] > SAME_IOU)
        if one.category.name != other.category.name:
            one.has_two_names |= is_same
            other.has_two_names |= is_same
        elif is_same:
            doubles.add(other)
        else:
            parts.append((one, other))
    return doubles, parts


def read_picture(path: Path, height: int, width: int) -> tuple[dict, str]:
    """Read a picture as `datasets.Image` stores it, and a digest of its content; Defect unless it is of this size.

    Of a picture that its EXIF data turns, some tools annotate the pixels as they are stored and some as they are
    shown. The size tells which, and the pixels are returned that way.
    """
    content = read_regular_file(path)
    source = io.BytesIO(content)
    try:
        with open_image(source) as picture:
            if not ends_well(source, picture.format):
                picture.load()
            stored = picture.height, picture.width
            orientation = orientation_of(picture)
            shown = stored[::-1] if orientation in EXIF_SIDEWAYS else stored
            if (height, width) not in (stored, shown):
                raise Defect(
                    "picture of another size", f"{shorten(path.name)} is {stored[0]}×{stored[1]}, not {height}×{width}"
                )
            if orientation != 1 and stored == shown:
                raise Defect(
                    "picture turned by EXIF data",
                    f"{shorten(path.name)} may be annotated either way; save its pixels as they are shown",
                )
            image = {"path": str(path), "bytes": content}
            if (height, width) != shown:
                image["bytes"] = encode_png(picture)
    except Defect:
        raise
    except PILLOW_ERRORS as error:
        raise Defect("unreadable picture", f"{shorten(path.name)}: {shorten(str(error))}") from None
    return image, hashlib.sha256(content).hexdigest()
